// SPDX-License-Identifier: GPL-2.0

//! Moves namespaces from one driver to the other at run time.
//!
//! The device that is bound is moved: the namespace itself in raw mode, the `pfn` or `btt` device that claims it in
//! another mode. The bus has no `driver_override`; unbinding the namespace and letting the kernel probe would leave
//! the choice of the driver to the kernel.

use crate::badblocks::set::BadBlocks;
use crate::block::disk::Disk;
use crate::block::holders::{self, Holder};
use crate::nd::{self, Device, Kind, Name};
use crate::sysfs::{self, Host, printable};
use abstractions::process::BlockedSignals;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::fs::File;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, JsonSchema, Serialize)]
pub enum Driver {
    /// The driver in Rust.
    #[value(name = "rust_pmem")]
    #[serde(rename = "rust_pmem")]
    Rust,
    /// The kernel's driver in C.
    #[value(name = "nd_pmem")]
    #[serde(rename = "nd_pmem")]
    C,
}

impl Driver {
    fn of(name: &str) -> Option<Self> {
        [Self::Rust, Self::C]
            .into_iter()
            .find(|driver| driver.name() == name)
    }

    /// As the bus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust_pmem",
            Self::C => "nd_pmem",
        }
    }

    /// The loaded driver; how to load it, where it is not.
    pub fn loaded(self, host: &Host) -> Result<nd::Driver> {
        nd::Driver::find(host, self.name()).ok_or_else(|| {
            let command = match self {
                Self::Rust => "modprobe rust_pmem",
                // Bypasses a modprobe.d rule that prefers the other driver.
                Self::C => "modprobe --ignore-install nd_pmem",
            };
            anyhow!("{self} is not loaded; load it with: {command}")
        })
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The other driver has it.
    Moved,
    WouldBeMoved,
    ThereAlready,
    Refused,
    /// The new driver failed to bind, and the old one is bound again.
    WentBack,
    /// It is moved without all of its state, or has no driver.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Moved => "moved",
            Self::WouldBeMoved => "would be moved",
            Self::ThereAlready => "there already",
            Self::Refused => "refused",
            Self::WentBack => "went back",
            Self::Failed => "failed",
        })
    }
}

impl Outcome {
    pub fn is_good(self) -> bool {
        matches!(self, Self::Moved | Self::WouldBeMoved | Self::ThereAlready)
    }
}

/// The result for one device.
#[derive(Debug, Clone, JsonSchema, Serialize)]
pub struct SwapReport {
    pub disk: Option<String>,
    /// The device that is bound.
    pub device: Name,
    pub namespace: Option<Name>,
    /// The driver that it had.
    pub from: Option<String>,
    /// The driver that it was to have.
    pub to: Driver,
    /// The driver that it has now.
    pub driver: Option<String>,
    /// Bytes of the disk.
    pub size: Option<u64>,
    /// Bad sectors on the disk's list before.
    pub bad_sectors: u64,
    /// Bad sectors that the new list lacked and were added to it.
    pub carried_sectors: u64,
    pub result: Outcome,
    /// Reasons for a failure, and each user in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
}

impl SwapReport {
    fn new(device: &Device, to: Driver) -> Self {
        let disk = device.disk();
        Self {
            disk: disk.as_ref().map(|disk| disk.name().to_owned()),
            device: device.name,
            namespace: device.namespace(),
            from: device.driver(),
            to,
            driver: device.driver(),
            size: disk.map(|disk| disk.size().bytes()),
            bad_sectors: 0,
            carried_sectors: 0,
            result: Outcome::Refused,
            reasons: Vec::new(),
            holders: Vec::new(),
        }
    }

    fn with_reason(mut self, result: Outcome, reason: impl Into<String>) -> Self {
        self.result = result;
        self.reasons.push(reason.into());
        self
    }

    fn refuse_in_use(mut self, holders: Vec<Holder>) -> Self {
        self.result = Outcome::Refused;
        self.reasons.extend(holders.iter().map(Holder::to_string));
        self.holders = holders;
        self
    }
}

/// The devices that one of the two drivers has.
pub fn all(host: &Host) -> Vec<Device> {
    Device::all(host)
        .into_iter()
        .filter(|device| device.driver().as_deref().and_then(Driver::of).is_some())
        .collect()
}

/// The state of a disk that a new driver does not know.
struct State {
    bad: BadBlocks,
    /// Names of the disk and its partitions that were made to refuse writes.
    read_only: Vec<String>,
}

impl State {
    fn of(disk: &Disk) -> Result<Self> {
        let read_only = disk.parts().into_iter().filter(|part| part.is_read_only());
        // A driver without an exact list can only take over this.
        let shown = disk.shown()?;
        let bad = disk.bad()?;
        ensure!(
            bad.without(&shown).is_empty(),
            "the list of bad sectors is longer than the kernel shows"
        );
        Ok(Self {
            bad,
            read_only: read_only.map(|part| part.name).collect(),
        })
    }

    /// Restores the flags and the list, each in any case; returns the number of bad sectors that were missing.
    fn restore(&self, disk: &Disk) -> Result<u64> {
        let read_only = self.restore_read_only(disk);
        let carried = self.restore_bad(disk);
        read_only.and(carried)
    }

    fn restore_read_only(&self, disk: &Disk) -> Result<()> {
        for part in disk.parts() {
            if self.read_only.contains(&part.name) && !part.is_read_only() {
                disk.set_read_only(&part)
                    .with_context(|| format!("{} could not be made read-only", part.name))?;
            }
        }
        Ok(())
    }

    fn restore_bad(&self, disk: &Disk) -> Result<u64> {
        let missing = self.bad.without(&disk.bad()?);
        disk.add_bad(&missing)?;
        let left = missing.without(&disk.bad()?).sectors();
        if left != 0 {
            bail!(
                "{left} of {} bad sectors are not on the new list",
                self.bad.sectors()
            );
        }
        Ok(missing.sectors())
    }

    /// Returns the state in words, for an administrator to restore.
    fn reasons(&self) -> Vec<String> {
        let read_only = self.read_only.iter();
        let bad = self.bad.to_string();
        read_only
            .map(|part| format!("{part} was read-only"))
            .chain(
                bad.lines()
                    .map(|entry| format!("its list of bad sectors had: {entry}")),
            )
            .collect()
    }
}

/// Moves a device to a driver unless it is in use; with `dry_run`, only checks.
pub fn to(host: &Host, device: &Device, to: Driver, dry_run: bool) -> SwapReport {
    let report = SwapReport::new(device, to);
    let refused = |reason: String| report.clone().with_reason(Outcome::Refused, reason);

    if device.name.kind == Kind::Dax {
        let holders = holders::of_dax(host, &device.dax_devices());
        let report = refused("this is device DAX, dax_pmem's: there is nothing to move".into());
        return report.refuse_in_use(holders);
    }
    let Some(from) = device.driver() else {
        return refused(if device.is_seed() {
            "it has no memory: ndctl creates the next namespace from it".into()
        } else {
            let command = device.name.bind_command(&to.to_string());
            format!("it has no driver; bind one with: {command}")
        });
    };
    let Some(from) = Driver::of(&from) else {
        return refused(format!(
            "it is {}'s: there is nothing to move",
            printable(from)
        ));
    };
    if from == to {
        return SwapReport {
            result: Outcome::ThereAlready,
            ..report
        };
    }
    let Some(disk) = device.disk() else {
        return refused("it has a driver but no disk".into());
    };
    let holders = holders::of_disk(&disk);
    if !holders.is_empty() {
        return report.refuse_in_use(holders);
    }
    let claim = match disk.claim() {
        Ok(claim) => claim,
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            // A user that has just come can be named, one that is not visible cannot.
            let mut holders = holders::of_disk(&disk);
            if holders.is_empty() {
                holders.push(Holder::Unknown {
                    device: disk.name().to_owned(),
                });
            }
            return report.refuse_in_use(holders);
        }
        Err(error) => return refused(format!("it can't be opened: {}", sysfs::error_text(&error))),
    };
    let state = match State::of(&disk) {
        Ok(state) => state,
        Err(error) => {
            return refused(format!(
                "its list of bad sectors can't be carried over: {error:#}"
            ));
        }
    };
    let report = SwapReport {
        bad_sectors: state.bad.sectors(),
        ..report
    };
    if dry_run {
        return SwapReport {
            result: Outcome::WouldBeMoved,
            ..report
        };
    }
    let moved = from
        .loaded(host)
        .and_then(|old| Ok((old, to.loaded(host)?, BlockedSignals::new()?)));
    match moved {
        Ok((old, new, _undisturbed)) => {
            rebind(device, (from, &old), (to, &new), claim, &state, report)
        }
        Err(error) => report.with_reason(Outcome::Refused, format!("{error:#}")),
    }
}

/// Rebinds a device to the new driver, or back to the old one; `claim` keeps the old disk exclusive until it is
/// gone.
fn rebind(
    device: &Device,
    old: (Driver, &nd::Driver),
    new: (Driver, &nd::Driver),
    claim: File,
    state: &State,
    report: SwapReport,
) -> SwapReport {
    if let Err(error) = old.1.unbind(device.name) {
        return report.with_reason(
            Outcome::Refused,
            format!("{} failed to unbind: {}", old.0, sysfs::error_text(&error)),
        );
    }
    drop(claim);

    let mut report = report;
    let mut outcome = Outcome::Moved;
    if let Err(error) = new.1.bind(device.name) {
        report.reasons.push(format!(
            "{} failed to bind: {} (see dmesg)",
            new.0,
            sysfs::error_text(&error)
        ));
        outcome = Outcome::WentBack;
        if let Err(error) = old.1.bind(device.name) {
            report.reasons.push(format!(
                "{} failed to bind again: {}",
                old.0,
                sysfs::error_text(&error)
            ));
        }
    }
    report.driver = device.driver();
    let Some(disk) = device.disk().filter(|_| report.driver.is_some()) else {
        let reason = match device.claim() {
            Some(other) => format!("an info block on it makes it {}, now", other.name),
            None => format!(
                "it has no driver now; after the cause is fixed: {}",
                device.name.bind_command(&old.0.to_string())
            ),
        };
        report.reasons.extend(state.reasons());
        return report.with_reason(Outcome::Failed, reason);
    };
    match state.restore(&disk) {
        Ok(carried) => report.carried_sectors = carried,
        Err(error) => {
            report.reasons.extend(state.reasons());
            return report.with_reason(Outcome::Failed, format!("{error:#}"));
        }
    }
    if report.size != Some(disk.size().bytes()) {
        let reason = format!("its size is {} now", disk.size());
        return report.with_reason(Outcome::Failed, reason);
    }
    report.result = outcome;
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;

    #[test]
    fn state_that_is_not_restored_is_reported() {
        let machine = FakeSysfs::new();
        for file in ["bind", "unbind"] {
            machine.write(&format!("sys/bus/nd/drivers/nd_pmem/{file}"), "");
        }
        machine.write("dev/pmem0", "");
        machine.lists("");
        let state = State {
            // The fake list keeps only the last one that is added.
            bad: "8 8\n100 8\n".parse().unwrap(),
            read_only: vec!["pmem0".into()],
        };
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let driver = Driver::C.loaded(&machine.host).unwrap();
        let report = rebind(
            &device,
            (Driver::C, &driver),
            (Driver::C, &driver),
            tempfile::tempfile().unwrap(),
            &state,
            SwapReport::new(&device, Driver::C),
        );
        assert_eq!(report.result, Outcome::Failed);
        let [first, second, third, why] = report.reasons.as_slice() else {
            panic!("{report:?}")
        };
        assert_eq!(first, "pmem0 was read-only");
        assert_eq!(second, "its list of bad sectors had: 8 8");
        assert_eq!(third, "its list of bad sectors had: 100 8");
        // No fake disk can be made read-only.
        assert!(
            why.starts_with("pmem0 could not be made read-only"),
            "{why}"
        );
        let list = machine.host.path("sys/block/pmem0/badblocks");
        assert_eq!(sysfs::line(list).as_deref(), Some("100 8"));
    }
}
