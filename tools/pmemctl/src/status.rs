// SPDX-License-Identifier: GPL-2.0

//! The state of all regions and namespaces in short.

use crate::badblocks::kernel::{self, KernelList, ListLookup};
use crate::badblocks::origin::{Errors, Origin, SECTOR};
use crate::badblocks::set::BadBlocks;
use crate::badblocks::store;
use crate::block::holders;
use crate::inventory::{self, Mode};
use crate::nd::region::Region;
use crate::nd::{Device, Kind, Name};
use crate::quarantine::{self, Quarantine};
use crate::sysfs::{self, Host};
use anyhow::Result;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Whether there are errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Every list can be read and is empty.
    Healthy,
    /// A list has errors.
    Errors,
    /// No list that can be read has errors, but not all can be read.
    Unknown,
}

#[derive(Debug, Serialize)]
pub struct Status {
    pub health: Health,
    /// Whether `pmemctl monitor` runs.
    pub monitoring: bool,
    /// Whether `pmemctl errors save --follow` runs.
    pub saving: bool,
    pub regions: Vec<RegionStatus>,
    /// The files that own bad blocks which were free.
    pub quarantines: Vec<Quarantine>,
}

#[derive(Debug, Serialize)]
pub struct RegionStatus {
    pub region: String,
    /// `ACPI.NFIT`, `e820`, `virtio-pmem`, `CXL`.
    pub provider: Option<String>,
    /// Bytes of the region.
    pub size: u64,
    /// Sectors of 512 bytes on the lists of the region and of its devices.
    pub bad_sectors: u64,
    /// Whether the saved list has all errors that do not come back by themselves; `null` where there are none.
    pub saved: Option<bool>,
    pub namespaces: Vec<NamespaceStatus>,
    /// Why a list or a saved list can't be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct NamespaceStatus {
    pub namespace: Name,
    /// The namespace, or the device that claims it.
    pub device: Name,
    pub disk: Option<String>,
    pub mode: Mode,
    pub driver: Option<String>,
    pub read_only: bool,
    /// Sectors of 512 bytes; `null` where no list can be read.
    pub bad_sectors: Option<u64>,
}

impl Status {
    /// Reads the state of all regions; `folder` has the saved lists.
    pub fn read(host: &Host, folder: &Path) -> Self {
        let regions: Vec<_> = Region::all(host)
            .iter()
            .map(|region| RegionStatus::read(host, region, folder))
            .collect();
        let unknown = |region: &RegionStatus| {
            !region.reasons.is_empty()
                || region
                    .namespaces
                    .iter()
                    .any(|namespace| namespace.bad_sectors.is_none())
        };
        let health = if regions.iter().any(|region| region.bad_sectors > 0) {
            Health::Errors
        } else if regions.is_empty() || regions.iter().any(unknown) {
            Health::Unknown
        } else {
            Health::Healthy
        };
        let commands = commands(host);
        let disks: Vec<String> = regions
            .iter()
            .flat_map(|region| &region.namespaces)
            .filter_map(|namespace| namespace.disk.clone())
            .collect();
        Self {
            quarantines: quarantine::all(host, &disks),
            health,
            monitoring: commands.iter().any(|words| is_monitor(words)),
            saving: commands.iter().any(|words| is_follower(words)),
            regions,
        }
    }
}

impl RegionStatus {
    fn read(host: &Host, region: &Region, folder: &Path) -> Self {
        let mut status = Self {
            region: region.name.clone(),
            provider: region.provider(),
            size: region.size,
            bad_sectors: 0,
            saved: None,
            namespaces: Vec::new(),
            reasons: Vec::new(),
        };
        let bus = kernel::of_region(region).unwrap_or_else(|error| {
            status.reasons.push(format!("{error:#}"));
            BadBlocks::default()
        });
        let mut errors = Errors::default();
        // Errors that the platform lists again after a reboot are not saved.
        let mut log = BadBlocks::default();
        let namespaces = Device::all(host).into_iter().filter(|device| {
            device.name.kind == Kind::Namespace
                && device.name.region == region.id
                && !device.is_seed()
        });
        for namespace in namespaces {
            let device = namespace.claim().unwrap_or_else(|| namespace.clone());
            let disk = device.disk();
            let mut bad_sectors = None;
            match KernelList::of(region, &device) {
                Ok(ListLookup::List(list)) => match list.read() {
                    Ok(listed) => {
                        bad_sectors = Some(listed.all().sectors());
                        log = log.and(&match list.is_plain() {
                            true => bus.within(&list.covers),
                            false => listed.from(Origin::LOG),
                        });
                        errors = errors.and(&listed);
                    }
                    Err(error) => status.reasons.push(format!("{}: {error:#}", device.name)),
                },
                Ok(ListLookup::None(reason)) => {
                    let sectors = region
                        .bytes_of(&namespace)
                        .map(|bytes| bytes.start / SECTOR..bytes.end / SECTOR);
                    let known = sectors.map_or(0, |sectors| bus.within(&sectors).sectors());
                    bad_sectors = Some(known).filter(|known| *known > 0);
                    status.reasons.push(format!("{}: {reason}", device.name));
                }
                Err(error) => status.reasons.push(format!("{}: {error:#}", device.name)),
            }
            let mode = inventory::mode(host, device.name.kind, &device.dax_devices());
            status.namespaces.push(NamespaceStatus {
                namespace: namespace.name,
                device: device.name,
                mode,
                driver: device.driver(),
                read_only: disk.as_ref().is_some_and(|disk| disk.whole.is_read_only()),
                disk: disk.map(|disk| disk.name().to_owned()),
                bad_sectors,
            });
        }
        let all = errors.all().and(&bus);
        status.bad_sectors = all.sectors();
        let platform = match region.has_log() {
            true => log.and(&bus),
            false => BadBlocks::default(),
        };
        let lost = all.without(&platform);
        if !lost.is_empty() {
            status.saved = Some(match saved(region, folder) {
                Ok(saved) => lost.without(&saved).is_empty(),
                Err(error) => {
                    status.reasons.push(format!("{error:#}"));
                    false
                }
            });
        }
        status
    }
}

fn saved(region: &Region, folder: &Path) -> Result<BadBlocks> {
    let memory = region.memory()?;
    let saved = store::load(&folder.join(memory.file_name()), &memory, region)?;
    Ok(saved.map_or_else(BadBlocks::default, |saved| saved.errors.all()))
}

/// Returns the arguments of each `pmemctl` that runs.
fn commands(host: &Host) -> Vec<Vec<String>> {
    let arguments = |pid: u32| {
        let folder = host.path(format!("proc/{pid}"));
        let is_own = sysfs::line(folder.join("comm")).is_some_and(|name| name == "pmemctl");
        let text = fs::read(folder.join("cmdline")).ok().filter(|_| is_own)?;
        let words = text.split(|&byte| byte == 0).skip(1);
        Some(
            words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        )
    };
    holders::pids(host)
        .into_iter()
        .filter_map(arguments)
        .collect()
}

fn is_monitor(words: &[String]) -> bool {
    words.first().is_some_and(|word| word == "monitor")
}

fn is_follower(words: &[String]) -> bool {
    let [first, second, rest @ ..] = words else {
        return false;
    };
    first == "errors" && second == "save" && rest.iter().any(|word| word == "--follow")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::badblocks::persist;
    use crate::testing::FakeSysfs;

    fn process(machine: &FakeSysfs, pid: u32, command: &str) {
        machine.write(&format!("proc/{pid}/comm"), "pmemctl");
        machine.write(&format!("proc/{pid}/cmdline"), &command.replace(' ', "\0"));
    }

    fn read(machine: &FakeSysfs) -> Status {
        Status::read(&machine.host, &machine.folder.path().join("state"))
    }

    #[test]
    fn empty_lists_are_healthy() {
        let machine = FakeSysfs::new();
        let status = read(&machine);
        assert_eq!(status.health, Health::Healthy);
        assert!(!status.monitoring && !status.saving);
        let [region] = status.regions.as_slice() else {
            panic!("{status:?}")
        };
        assert_eq!((region.bad_sectors, region.saved), (0, None));
        let [namespace] = region.namespaces.as_slice() else {
            panic!("{region:?}")
        };
        assert_eq!(namespace.device.to_string(), "pfn0.0");
        assert_eq!(namespace.disk.as_deref(), Some("pmem0"));
        assert_eq!(namespace.mode, Mode::Fsdax);
        assert_eq!(namespace.driver.as_deref(), Some("nd_pmem"));
        assert_eq!(namespace.bad_sectors, Some(0));
    }

    #[test]
    fn errors_are_unsaved_until_they_are_saved() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        let status = read(&machine);
        assert_eq!(status.health, Health::Errors);
        assert_eq!(status.regions[0].bad_sectors, 8);
        assert_eq!(status.regions[0].saved, Some(false));
        let region = Region::find(&machine.host, 0).unwrap();
        persist::save(&region, &machine.folder.path().join("state"));
        assert_eq!(read(&machine).regions[0].saved, Some(true));
    }

    #[test]
    fn list_that_is_missing_is_unknown() {
        let machine = FakeSysfs::new();
        let list = machine.host.path("sys/block/pmem0/badblocks");
        fs::remove_file(list).unwrap();
        let status = read(&machine);
        assert_eq!(status.health, Health::Unknown);
        assert_eq!(status.regions[0].namespaces[0].bad_sectors, None);
        // Errors of the bus count nevertheless.
        machine.write("sys/devices/ndbus0/region0/badblocks", "8192 8");
        assert_eq!(read(&machine).health, Health::Errors);
    }

    #[test]
    fn no_region_is_unknown() {
        let machine = FakeSysfs::new();
        fs::remove_dir_all(machine.host.path("sys/bus/nd/devices")).unwrap();
        assert_eq!(read(&machine).health, Health::Unknown);
    }

    #[test]
    fn services_are_found_by_their_arguments() {
        let machine = FakeSysfs::new();
        process(&machine, 10, "/usr/sbin/pmemctl errors save pmem0");
        process(&machine, 11, "/usr/sbin/pmemctl repair monitor");
        let status = read(&machine);
        assert!(!status.monitoring && !status.saving);
        process(&machine, 12, "/usr/sbin/pmemctl monitor --now");
        process(&machine, 13, "pmemctl errors save --follow --all");
        let status = read(&machine);
        assert!(status.monitoring && status.saving);
    }
}
