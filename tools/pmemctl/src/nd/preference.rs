// SPDX-License-Identifier: GPL-2.0

//! Whether `modprobe.d` prefers rust_pmem, and why nd_pmem serves a namespace nevertheless.

use crate::sysfs::{self, Host};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where kmod looks for settings; a file hides those of the same name in later folders (modprobe.d(5)).
const FOLDERS: [&str; 5] = [
    "etc/modprobe.d",
    "run/modprobe.d",
    "usr/local/lib/modprobe.d",
    "usr/lib/modprobe.d",
    "lib/modprobe.d",
];

/// Returns whether requests for nd_pmem load rust_pmem first.
fn is_preferred(host: &Host) -> bool {
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        let folder = host.path(folder);
        for name in sysfs::names(&folder) {
            if name.ends_with(".conf") {
                let path = folder.join(&name);
                files.entry(name).or_insert(path);
            }
        }
    }
    let texts = files
        .values()
        .filter_map(|path| fs::read_to_string(path).ok());
    texts.into_iter().any(|text| {
        text.lines().any(|line| {
            let mut words = line.split_whitespace();
            let command = (words.next(), words.next());
            matches!(command, (Some("install" | "softdep"), Some("nd_pmem")))
                && words.any(|word| word == "rust_pmem")
        })
    })
}

/// Returns why rust_pmem does not serve a device of nd_pmem, if it is preferred.
///
/// The text continues "… although rust_pmem is preferred: ".
pub fn fallback_reason(host: &Host) -> Option<String> {
    if !is_preferred(host) {
        return None;
    }
    if host.path("sys/module/rust_pmem").exists() {
        return Some("both are loaded; \"pmemctl swap-driver\" moves it".into());
    }
    let release = sysfs::line(host.path("proc/sys/kernel/osrelease"))?;
    let module = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|folder| {
            let folder = host.path(folder).join(&release);
            // "updates/dkms/rust_pmem.ko.xz: kernel/…"
            let text = fs::read_to_string(folder.join("modules.dep")).ok()?;
            let mut paths = text.lines().filter_map(|line| line.split(':').next());
            let path = paths.find(|path| {
                let name = path.rsplit('/').next().unwrap_or_default();
                name == "rust_pmem.ko" || name.starts_with("rust_pmem.ko.")
            })?;
            Some(folder.join(path))
        });
    Some(match module {
        Some(module) if is_newer_than_boot(host, &module) => {
            "module installed since the boot; the next boot or \"pmemctl swap-driver\" moves it"
                .into()
        }
        Some(_) => "module not loaded; \"modprobe rust_pmem\" says why".into(),
        None => format!("module not built for {}", sysfs::printable(release)),
    })
}

/// Returns whether a file was installed while this system ran.
fn is_newer_than_boot(host: &Host, file: &Path) -> bool {
    let text = fs::read_to_string(host.path("proc/stat")).unwrap_or_default();
    let boot = text.lines().find_map(|line| line.strip_prefix("btime "));
    let boot = boot.and_then(|boot| boot.trim().parse::<i64>().ok());
    // Not the time of its contents, which may be that of a package.
    let installed = fs::metadata(file).map(|metadata| metadata.ctime()).ok();
    matches!((boot, installed), (Some(boot), Some(installed)) if installed > boot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;

    const RULE: &str = "# a comment\n\
        install nd_pmem /sbin/modprobe --quiet rust_pmem || /sbin/modprobe --ignore-install nd_pmem $CMDLINE_OPTS";

    #[test]
    fn fallback_is_explained() {
        let machine = FakeSysfs::new();
        let reason = || fallback_reason(&machine.host);
        machine.write("proc/sys/kernel/osrelease", "7.2.13");
        machine.write("etc/modprobe.d/other.conf", "install nd_pmem /bin/true");
        assert_eq!(reason(), None);
        machine.write("usr/lib/modprobe.d/rust_pmem.conf", RULE);
        assert_eq!(reason().unwrap(), "module not built for 7.2.13");
        machine.write(
            "lib/modules/7.2.13/modules.dep",
            "kernel/x/nd_pmem.ko:\nupdates/rust_pmem.ko.xz: kernel/drivers/nvdimm/libnvdimm.ko",
        );
        assert!(reason().unwrap().starts_with("module not loaded"));
        machine.write("lib/modules/7.2.13/updates/rust_pmem.ko.xz", "");
        machine.write("proc/stat", "cpu 1 2 3\nbtime 4000000000\nctxt 1\n");
        assert!(reason().unwrap().starts_with("module not loaded"));
        machine.write("proc/stat", "cpu 1 2 3\nbtime 1000000000\nctxt 1\n");
        assert!(
            reason()
                .unwrap()
                .starts_with("module installed since the boot")
        );
        machine.write("sys/module/rust_pmem/initstate", "live");
        assert!(reason().unwrap().starts_with("both are loaded"));
        // Hidden by the administrator.
        machine.write("etc/modprobe.d/rust_pmem.conf", "");
        assert_eq!(reason(), None);
        machine.write("etc/modprobe.d/x.conf", "softdep nd_pmem pre: rust_pmem");
        assert!(reason().is_some());
    }
}
