// SPDX-License-Identifier: GPL-2.0

//! The driver and the mode of a namespace.

use crate::block::topology;
use crate::doctor::probe::HUGE;
use crate::doctor::volume::{Place, leads_to};
use crate::doctor::{Doctor, Finding, KERNEL, PROCESS, Prevents, Scope};
use crate::inventory::{Mode, NamespaceInfo};
use crate::nd::{Device, Kind};
use crate::sysfs::{self, Host};
use anyhow::{Context, Result};

impl Doctor<'_> {
    fn is_asked(&self, entry: &NamespaceInfo) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Namespace(name) => entry.device == *name || entry.namespace == *name,
            Scope::Volume(number) | Scope::File(_, number) => entry
                .disk
                .as_ref()
                .is_some_and(|disk| leads_to(disk, *number)),
        }
    }

    pub(super) fn namespace(&mut self, entry: &NamespaceInfo) -> Result<()> {
        if !self.is_asked(entry) {
            return Ok(());
        }
        self.seen = true;
        let name = entry.device.to_string();
        self.path = vec![KERNEL.to_owned(), PROCESS.to_owned(), name.clone()];
        let Some(driver) = &entry.driver else {
            self.found(no_driver(self.host, entry));
            return Ok(());
        };
        let device = Device::find(self.host, entry.device).context("it has gone")?;
        let start = sysfs::number(device.folder().join("resource"));
        let dax = entry
            .disk
            .as_ref()
            .is_some_and(|disk| topology::has_dax(self.host, &disk.kernel_name));
        if let Some(finding) = unsuitable_mode(entry, driver, dax, start) {
            self.found(finding);
        }
        // The rest is about memory that can be mapped.
        if entry.mode == Mode::Sector || (entry.mode == Mode::Raw && !dax) {
            return Ok(());
        }
        if entry.provider.as_deref() == Some("virtio-pmem") {
            self.found(Finding::new(
                &name,
                "asynchronous-flush",
                Prevents::MapSync,
                "virtio-pmem: only the host can make stores durable, when it is asked to flush",
                "have programs call fsync(2) or msync(2), or give the machine an NVDIMM (QEMU: -device nvdimm)",
            ));
        }
        let Some(disk) = &entry.disk else {
            return Ok(());
        };
        let place = Place {
            start: 0,
            address: start.unwrap_or(0),
            length: disk.size,
        };
        self.volume(disk, dax, &[place], false)
    }
}

/// What to do about a namespace that is bound to no driver.
fn no_driver(host: &Host, entry: &NamespaceInfo) -> Finding {
    let name = entry.device.to_string();
    let drivers = host.path("sys/bus/nd/drivers");
    let loaded = ["rust_pmem", "nd_pmem"]
        .into_iter()
        .find(|driver| drivers.join(driver).exists());
    let command = match (entry.device.kind, loaded) {
        (Kind::Dax, _) => format!(
            "modprobe dax_pmem; ndctl enable-namespace {}",
            entry.namespace
        ),
        (_, None) => "modprobe rust_pmem".to_owned(),
        (_, Some(driver)) => entry.device.bind_command(driver),
    };
    let what = "it is bound to no driver";
    Finding::new(name, "no-driver", Prevents::All, what, command)
}

/// What the mode of a namespace prevents. `dax`: its disk has DAX; `start`: where its data begins.
fn unsuitable_mode(
    entry: &NamespaceInfo,
    driver: &str,
    dax: bool,
    start: Option<u64>,
) -> Option<Finding> {
    let name = entry.device.to_string();
    let again = |options: &str| {
        format!(
            "ndctl create-namespace -f -e {} -m {options}",
            entry.namespace
        )
    };
    let finding = match entry.mode {
        Mode::Sector => Finding::new(
            name,
            "sector-mode",
            Prevents::Dax,
            "it is in sector mode, whose blocks move with each write",
            again("fsdax"),
        )
        .destroying(),
        Mode::Raw if !dax => Finding::new(
            name,
            "raw-mode",
            Prevents::Dax,
            "it is in raw mode, and its memory has no struct pages",
            again("fsdax"),
        )
        .destroying(),
        Mode::Fsdax if !dax => Finding::new(
            &name,
            "disk-without-dax",
            Prevents::Dax,
            format!("queue/dax of its disk is 0 with {driver}"),
            format!("pmemctl swap-driver {name}; the kernel's log says more"),
        ),
        Mode::Devdax if entry.alignment.is_some_and(|align| align < HUGE) => Finding::new(
            name,
            "namespace-alignment",
            Prevents::HugeMappings,
            "device DAX maps it by pages of 4 KiB, its alignment",
            again("devdax -a 2M"),
        )
        .destroying(),
        Mode::Raw | Mode::Fsdax if start.is_some_and(|start| start % HUGE != 0) => Finding::new(
            name,
            "namespace-alignment",
            Prevents::HugeMappings,
            format!(
                "its data begins at {:#x}, no multiple of 2 MiB",
                start.unwrap_or(0)
            ),
            again("fsdax -a 2M"),
        )
        .destroying(),
        _ => return None,
    };
    Some(finding)
}
