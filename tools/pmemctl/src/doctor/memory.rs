// SPDX-License-Identifier: GPL-2.0

//! Persistent memory that has no driver, no region or no namespace.

use crate::doctor::{Doctor, Finding, Prevents, Scope};
use crate::inventory::NamespaceInfo;
use crate::nd::DEVICES;
use crate::nd::region::Region;
use crate::sysfs::{self, Host};
use std::fs;
use units::Size;

/// Describes the persistent memory that firmware or the hypervisor announces.
fn announced(host: &Host) -> String {
    let table = |name: &str| {
        let there = host.path("sys/firmware/acpi/tables").join(name).exists();
        format!("{name} {}", if there { "there" } else { "absent" })
    };
    let iomem = fs::read_to_string(host.path("proc/iomem")).unwrap_or_default();
    let ranges = iomem
        .lines()
        .filter(|line| line.contains("Persistent Memory"))
        .count();
    format!(
        "of ACPI's tables {}, {}, {}; /proc/iomem has {ranges} ranges of persistent memory",
        table("NFIT"),
        table("SRAT"),
        table("HMAT"),
    )
}

/// Returns the modules that would create regions, but are not loaded.
fn providers(host: &Host) -> Vec<&'static str> {
    let iomem = fs::read_to_string(host.path("proc/iomem")).unwrap_or_default();
    let virtio = host.path("sys/bus/virtio/devices");
    // The id of virtio-pmem in linux/virtio_ids.h.
    let has_virtio = sysfs::names(&virtio)
        .iter()
        .any(|name| sysfs::number(virtio.join(name).join("device")) == Some(27));
    [
        (
            "nfit",
            host.path("sys/firmware/acpi/tables/NFIT").exists()
                || host.path("sys/bus/acpi/devices/ACPI0012:00").exists(),
        ),
        ("nd_e820", iomem.contains("Persistent Memory (legacy)")),
        ("virtio_pmem", has_virtio),
        (
            "cxl_acpi",
            host.path("sys/bus/acpi/devices/ACPI0017:00").exists(),
        ),
    ]
    .into_iter()
    .filter(|(module, there)| *there && !host.path("sys/module").join(module).exists())
    .map(|(module, _)| module)
    .collect()
}

impl Doctor<'_> {
    pub(super) fn memory(&mut self, entries: &[NamespaceInfo]) {
        if *self.scope != Scope::All {
            return;
        }
        for module in providers(self.host) {
            self.found(Finding::new(
                module,
                "no-provider",
                Prevents::All,
                format!(
                    "there is memory for {module}, which is not loaded: {}",
                    announced(self.host)
                ),
                format!("modprobe {module}"),
            ));
        }
        let regions = Region::all(self.host);
        for region in &regions {
            let used = entries
                .iter()
                .any(|entry| entry.namespace.region == region.id);
            if !used {
                self.found(Finding::new(
                    &region.name,
                    "no-namespace",
                    Prevents::All,
                    format!(
                        "{} of memory, and no namespace",
                        Size::from_bytes(region.size)
                    ),
                    format!("ndctl create-namespace -r {} -m fsdax", region.name),
                ));
            }
        }
        if !regions.is_empty() || !self.report.findings.is_empty() {
            return;
        }
        let dimms = sysfs::names(&self.host.path(DEVICES))
            .iter()
            .filter(|name| name.starts_with("nmem"))
            .count();
        if dimms > 0 {
            self.found(Finding::new(
                format!("{dimms} DIMMs"),
                "dimms-without-region",
                Prevents::All,
                format!(
                    "none is part of a region, as in memory mode: {}",
                    announced(self.host)
                ),
                "ipmctl create -goal PersistentMemoryType=AppDirect (or the firmware's setup), and reboot",
            ));
        } else {
            self.found(Finding::new(
                "machine",
                "no-persistent-memory",
                Prevents::All,
                format!(
                    "none is announced, as with DIMMs in memory mode: {}",
                    announced(self.host)
                ),
                "look into the firmware's setup; to try things, boot with memmap=4G!8G",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{found, write};

    #[test]
    fn dimms_without_region_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        let none = found(&host);
        assert_eq!(none.len(), 1);
        assert_eq!(none[0].cause, "no-persistent-memory");
        assert!(none[0].evidence.contains("NFIT absent, SRAT absent"));

        write(&host, "sys/firmware/acpi/tables/NFIT", "");
        write(&host, "sys/module/nfit/refcnt", "1");
        write(&host, "sys/bus/nd/devices/nmem0/state", "idle");
        write(&host, "sys/bus/nd/devices/nmem1/state", "idle");
        let dimms = found(&host);
        assert_eq!(dimms.len(), 1);
        assert_eq!(dimms[0].cause, "dimms-without-region");
        assert_eq!(dimms[0].place, "2 DIMMs");
        assert!(dimms[0].evidence.contains("NFIT there"));
    }

    #[test]
    fn unloaded_provider_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        write(
            &host,
            "proc/iomem",
            "20000000-21ffffff : Persistent Memory (legacy)\n",
        );
        write(&host, "sys/bus/virtio/devices/virtio3/device", "0x001b\n");
        let causes: Vec<_> = found(&host)
            .into_iter()
            .map(|finding| (finding.place, finding.cause))
            .collect();
        let cause = "no-provider";
        assert_eq!(
            causes,
            [("nd_e820".into(), cause), ("virtio_pmem".into(), cause)]
        );
    }

    #[test]
    fn region_without_namespace_is_reported() {
        let machine = crate::testing::FakeSysfs::new();
        let found = found(&machine.host);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].place.as_str(), found[0].cause),
            ("region0", "no-namespace")
        );
    }
}
