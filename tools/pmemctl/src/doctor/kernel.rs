// SPDX-License-Identifier: GPL-2.0

//! The options of the kernel, and the settings of this process.

use crate::doctor::{Doctor, Finding, KERNEL, PROCESS, Prevents};
use crate::sysfs::{self, Host};
use anyhow::Result;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Required kernel options, and what does not work without them.
const OPTIONS: [(&str, Prevents); 3] = [
    ("CONFIG_FS_DAX", Prevents::Dax),
    ("CONFIG_ZONE_DEVICE", Prevents::Dax),
    ("CONFIG_TRANSPARENT_HUGEPAGE", Prevents::HugeMappings),
];

/// The configuration of the running kernel, and where it was found.
fn configuration(host: &Host) -> Option<(PathBuf, String)> {
    let release = sysfs::line(host.path("proc/sys/kernel/osrelease"))?;
    if let Ok(file) = File::open(host.path("proc/config.gz")) {
        let mut text = String::new();
        if flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .is_ok()
        {
            return Some(("/proc/config.gz".into(), text));
        }
    }
    [
        format!("boot/config-{release}"),
        format!("lib/modules/{release}/config"),
        format!("usr/lib/modules/{release}/config"),
    ]
    .iter()
    .find_map(|file| {
        let text = fs::read_to_string(host.path(file)).ok()?;
        Some((Path::new("/").join(file), text))
    })
}

/// Where the kernel has the settings of huge pages, if it has these.
const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage";

impl Doctor<'_> {
    pub(super) fn kernel(&mut self) -> Result<()> {
        if let Some((file, text)) = configuration(self.host) {
            for (option, prevents) in OPTIONS {
                if !text.lines().any(|line| line == format!("{option}=y")) {
                    self.found(Finding::new(
                        KERNEL,
                        "kernel-configuration",
                        prevents,
                        format!("{} has no {option}=y", file.display()),
                        format!("boot a kernel with {option}=y"),
                    ));
                }
            }
        }
        // /sys/kernel/mm/transparent_hugepage does not apply to DAX, this does (`__thp_vma_allowable_orders` of
        // mm/huge_memory.c).
        let status = fs::read_to_string(self.host.path("proc/self/status")).unwrap_or_default();
        let off = status
            .lines()
            .filter_map(|line| line.strip_prefix("THP_enabled:"))
            .any(|value| value.trim() == "0");
        // Without huge pages in the kernel, they are off for each process.
        if off && self.host.path(HUGE_PAGES).exists() {
            self.found(Finding::new(
                PROCESS,
                "thp-disabled",
                Prevents::HugeMappings,
                "THP_enabled is 0 in /proc/self/status: a parent process called prctl(PR_SET_THP_DISABLE)",
                "start the program from another shell or service",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{found, write};

    #[test]
    fn missing_kernel_options_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        write(&host, "proc/sys/kernel/osrelease", "7.2.0-x\n");
        assert_eq!(configuration(&host), None);
        write(
            &host,
            "lib/modules/7.2.0-x/config",
            "CONFIG_ZONE_DEVICE=y\nCONFIG_FS_DAX=y\n# CONFIG_TRANSPARENT_HUGEPAGE is not set\n",
        );
        let kernel: Vec<_> = found(&host)
            .into_iter()
            .filter(|finding| finding.place == "kernel")
            .collect();
        assert_eq!(kernel.len(), 1);
        assert_eq!(kernel[0].prevents, Prevents::HugeMappings);
        assert!(kernel[0].evidence.contains("/lib/modules/7.2.0-x/config"));
        // /proc/config.gz takes precedence.
        let mut packed = Vec::new();
        let mut gzip = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::default());
        std::io::Write::write_all(
            &mut gzip,
            b"CONFIG_FS_DAX=y\nCONFIG_ZONE_DEVICE=y\nCONFIG_TRANSPARENT_HUGEPAGE=y\n",
        )
        .unwrap();
        gzip.finish().unwrap();
        fs::write(host.path("proc/config.gz"), packed).unwrap();
        assert!(found(&host).iter().all(|finding| finding.place != "kernel"));
    }
}
