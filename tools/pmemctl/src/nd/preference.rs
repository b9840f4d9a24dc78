// SPDX-License-Identifier: GPL-2.0

//! Whether `modprobe.d` prefers rust_pmem, and why nd_pmem serves a namespace nevertheless.

use crate::sysfs::{self, Host};
use std::collections::BTreeMap;
use std::fs;

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
    let is_built = ["lib/modules", "usr/lib/modules"].iter().any(|folder| {
        let file = host.path(folder).join(&release).join("modules.dep");
        // "updates/dkms/rust_pmem.ko.xz: kernel/…"
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| {
            let path = line.split(':').next().unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default();
            name == "rust_pmem.ko" || name.starts_with("rust_pmem.ko.")
        })
    });
    Some(match is_built {
        true => "module not loaded; \"modprobe rust_pmem\" says why".into(),
        false => format!("module not built for {}", sysfs::printable(release)),
    })
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
        machine.write("sys/module/rust_pmem/initstate", "live");
        assert!(reason().unwrap().starts_with("both are loaded"));
        // Hidden by the administrator.
        machine.write("etc/modprobe.d/rust_pmem.conf", "");
        assert_eq!(reason(), None);
        machine.write("etc/modprobe.d/x.conf", "softdep nd_pmem pre: rust_pmem");
        assert!(reason().is_some());
    }
}
