// SPDX-License-Identifier: GPL-2.0

//! The state of all regions and namespaces in short.

use crate::badblocks::kernel::{self, KernelList, ListLookup};
use crate::badblocks::origin::{Errors, Origin};
use crate::badblocks::set::BadBlocks;
use crate::badblocks::store;
use crate::block::holders;
use crate::block::topology::{self, Dax, Mount, Mounts, Volume};
use crate::inventory::{self, Mode};
use crate::nd::dimm::{self, Dimm};
use crate::nd::preference;
use crate::nd::region::Region;
use crate::nd::{Device, Kind, Name};
use crate::quarantine::{self, Quarantine};
use crate::scrub::{Progress, Scrub};
use crate::sysfs::{self, Host};
use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Whether there are errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Every list can be read and is empty.
    Healthy,
    /// A list has errors.
    Errors,
    /// No list that can be read has errors, but not all can be read.
    Unknown,
}

#[derive(Debug, JsonSchema, Serialize)]
pub struct Status {
    pub health: Health,
    /// Whether root runs `pmemctl monitor`.
    pub monitoring: bool,
    /// Whether root runs `pmemctl errors save --follow`.
    pub saving: bool,
    pub regions: Vec<RegionStatus>,
    /// The files that own bad blocks which were free.
    pub quarantines: Vec<Quarantine>,
    /// The DIMMs whose firmware reports health.
    pub dimms: Vec<Dimm>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub struct RegionStatus {
    pub region: String,
    /// `ACPI.NFIT`, `e820`, `virtio-pmem`, `CXL`.
    pub provider: Option<String>,
    /// Bytes of the region.
    pub size: u64,
    /// Sectors of 512 bytes on the lists of the region and of its devices.
    pub bad_sectors: u64,
    /// Whether the region's list could be read: the kernel shows no more than a page of it.
    #[serde(skip)]
    pub is_list_read: bool,
    /// Whether the saved list has all errors that do not come back by themselves; `null` where there are none.
    pub saved: Option<bool>,
    /// When the saved list was last written, in milliseconds since 1970.
    pub saved_ms: Option<u64>,
    pub namespaces: Vec<NamespaceStatus>,
    /// Why a list or a saved list can't be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub struct NamespaceStatus {
    pub namespace: Name,
    /// The namespace, or the device that claims it.
    pub device: Name,
    pub disk: Option<String>,
    pub mode: Mode,
    pub driver: Option<String>,
    /// Why nd_pmem serves it although `modprobe.d` prefers rust_pmem.
    pub fallback: Option<String>,
    /// Bytes of the namespace.
    pub size: Option<u64>,
    pub read_only: bool,
    /// Where its volumes are mounted; `null` where that is unknown.
    pub mounts: Option<Vec<MountStatus>>,
    /// Sectors of 512 bytes; `null` where no list can be read.
    pub bad_sectors: Option<u64>,
    /// Contiguous ranges of bad sectors.
    pub bad_ranges: Option<usize>,
    /// Bad sectors by their origin; each counts for one.
    pub origins: BTreeMap<String, u64>,
    /// `null` if it was never scrubbed.
    pub scrub: Option<Progress>,
}

/// A mount of a volume.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct MountStatus {
    pub directory: String,
    /// `pmem0p1`.
    pub volume: String,
    /// Which files are accessed directly.
    pub dax: Dax,
    /// Whether such a file can be mapped with `MAP_SYNC`.
    pub map_sync: bool,
}

impl Status {
    /// Reads the state of all regions; `folder` has the saved lists.
    pub fn read(host: &Host, folder: &Path) -> Self {
        let all = Region::all(host);
        // Needless and slow without memory.
        let mounts = (!all.is_empty()).then(Mounts::here).and_then(Result::ok);
        // The same for all namespaces; modules.dep is long.
        let fallback = LazyCell::new(|| preference::fallback_reason(host));
        let fallback = || fallback.clone();
        let regions: Vec<_> = all
            .iter()
            .map(|region| RegionStatus::read(host, region, folder, mounts.as_ref(), &fallback))
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
            dimms: dimm::all(host),
        }
    }
}

impl RegionStatus {
    fn read(
        host: &Host,
        region: &Region,
        folder: &Path,
        mounts: Option<&Mounts>,
        fallback: &dyn Fn() -> Option<String>,
    ) -> Self {
        let mut status = Self {
            region: region.name.clone(),
            provider: region.provider(),
            size: region.size,
            bad_sectors: 0,
            is_list_read: true,
            saved: None,
            saved_ms: saved_ms(region, folder),
            namespaces: Vec::new(),
            reasons: Vec::new(),
        };
        let bus = kernel::of_region(region).unwrap_or_else(|error| {
            status.reasons.push(format!("{error:#}"));
            status.is_list_read = false;
            BadBlocks::default()
        });
        let mut errors = Errors::default();
        // Errors that the platform lists again after a reboot are not saved.
        let mut log = BadBlocks::default();
        // Errors that the log lacks.
        let mut others = BadBlocks::default();
        let namespaces = Device::all(host).into_iter().filter(|device| {
            device.name.kind == Kind::Namespace
                && device.name.region == region.id
                && !device.is_seed()
        });
        for namespace in namespaces {
            let device = namespace.claim().unwrap_or_else(|| namespace.clone());
            let disk = device.disk();
            let mut bad = None;
            let mut origins = BTreeMap::new();
            match KernelList::of(region, &device) {
                Ok(ListLookup::List(list)) => match list.read() {
                    Ok(listed) => {
                        bad = Some(listed.all());
                        origins = by_origin(&listed);
                        if !list.is_plain() {
                            let of_log = listed.from(Origin::LOG);
                            others = others.and(&listed.all().without(&of_log));
                            log = log.and(&of_log);
                        }
                        errors = errors.and(&listed);
                    }
                    Err(error) => status.reasons.push(format!("{}: {error:#}", device.name)),
                },
                Ok(ListLookup::None(reason)) => {
                    let bytes = region.bytes_of(&namespace);
                    let known = bytes.map(|bytes| bus.within(&kernel::sectors(&bytes)));
                    bad = known.filter(|known| !known.is_empty());
                    if let Some(known) = &bad {
                        origins = by_origin(&Errors::of(Origin::UNKNOWN, known.clone()));
                    }
                    status.reasons.push(format!("{}: {reason}", device.name));
                }
                Err(error) => status.reasons.push(format!("{}: {error:#}", device.name)),
            }
            let mode = inventory::mode(host, device.name.kind, &device.dax_devices());
            let driver = device.driver();
            let of_stock_driver = driver.as_deref() == Some("nd_pmem");
            let volume = disk
                .as_ref()
                .zip(mounts)
                .and_then(|(disk, mounts)| topology::of_disk(host, disk.name(), mounts).ok());
            let is_synchronous = status.provider.as_deref() != Some("virtio-pmem");
            let scrub = Scrub::of(host, &device).ok();
            status.namespaces.push(NamespaceStatus {
                mode,
                fallback: of_stock_driver.then(fallback).flatten(),
                driver,
                size: sysfs::number(namespace.folder().join("size")),
                read_only: disk.as_ref().is_some_and(|disk| disk.whole.is_read_only()),
                mounts: volume.map(|volume| mounts_of(&volume, is_synchronous)),
                disk: disk.map(|disk| disk.name().to_owned()),
                bad_sectors: bad.as_ref().map(BadBlocks::sectors),
                bad_ranges: bad.as_ref().map(|bad| bad.ranges().count()),
                origins,
                scrub: scrub.and_then(|scrub| scrub.progress(folder)),
                namespace: namespace.name,
                device: device.name,
            });
        }
        let all = errors.all().and(&bus);
        status.bad_sectors = all.sectors();
        let platform = match region.has_log() {
            // Of rust_pmem, the bus also knows the errors of other origins.
            true => log.and(&bus.without(&others)),
            false => BadBlocks::default(),
        };
        let lost = all.without(&platform);
        // A list that is refused is not restored after a reboot, whether there are errors now or not.
        let saved = saved(region, folder);
        if !lost.is_empty() {
            let is_saved = |saved: &BadBlocks| lost.without(saved).is_empty();
            status.saved = Some(saved.as_ref().is_ok_and(is_saved));
        }
        // Memory without an identity has no saved list.
        let matters = !lost.is_empty() || region.memory().is_ok();
        let error = saved.err().filter(|_| matters);
        status
            .reasons
            .extend(error.map(|error| format!("{error:#}")));
        status.reasons.extend(aside(region, folder).map(|file| {
            format!(
                "{}: this saved list was refused, so its errors may not be listed: look at it, and remove it",
                sysfs::printable(file)
            )
        }));
        status
    }
}

/// Counts each sector for the first of its origins.
fn by_origin(errors: &Errors) -> BTreeMap<String, u64> {
    let words: BTreeSet<_> = errors.entries().map(|(origin, _)| origin.word()).collect();
    let mut counted = BadBlocks::default();
    let mut found = BTreeMap::new();
    for word in words {
        let news = errors.from(word).without(&counted);
        if !news.is_empty() {
            found.insert(word.to_owned(), news.sectors());
        }
        counted = counted.and(&news);
    }
    found
}

/// Returns whether a mount shows a directory where another mount of the file system has it anyway: systemd mounts the
/// directories of `ReadWritePaths=` on themselves.
fn is_on_itself(mount: &Mount, all: &[Mount]) -> bool {
    let directory = Path::new(&mount.directory);
    all.iter().any(|other| {
        directory.strip_prefix(&other.directory).is_ok_and(|below| {
            below != Path::new("") && Path::new(&other.root).join(below) == Path::new(&mount.root)
        })
    })
}

/// Returns the mounts of a volume and of those on it, without directories that are mounted on themselves.
fn mounts_of(volume: &Volume, is_synchronous: bool) -> Vec<MountStatus> {
    let mounts = &volume.mounts;
    let own = mounts.iter().filter(|mount| !is_on_itself(mount, mounts));
    let own = own.map(|mount| MountStatus {
        directory: sysfs::printable(&mount.directory),
        volume: volume.name.clone(),
        dax: mount.dax,
        // fs/ext4/file.c, fs/xfs/xfs_file.c: daxdev_mapping_supported().
        map_sync: is_synchronous && matches!(mount.dax, Dax::Always | Dax::PerFile),
    });
    let others = volume
        .children
        .iter()
        .flat_map(|child| mounts_of(child, is_synchronous));
    // lsblk shows a volume below each of its parents.
    let mut seen = BTreeSet::new();
    own.chain(others)
        .filter(|mount| seen.insert((mount.volume.clone(), mount.directory.clone())))
        .collect()
}

/// Returns when the saved list of a region was last written.
fn saved_ms(region: &Region, folder: &Path) -> Option<u64> {
    store::modified_ms(&folder.join(region.memory().ok()?.file_name()))
}

/// The saved lists of a region that were refused and put aside.
fn aside(region: &Region, folder: &Path) -> impl Iterator<Item = PathBuf> {
    let file = region
        .memory()
        .map(|memory| folder.join(memory.file_name()));
    file.into_iter()
        .flat_map(|file| store::aside(&file))
        .filter(|aside| fs::symlink_metadata(aside).is_ok())
}

fn saved(region: &Region, folder: &Path) -> Result<BadBlocks> {
    let memory = region.memory()?;
    let saved = store::load(&folder.join(memory.file_name()), &memory, region)?;
    Ok(saved.map_or_else(BadBlocks::default, |saved| saved.errors.all()))
}

/// Returns the arguments of each `pmemctl` that root runs. Users can give their programs this name.
fn commands(host: &Host) -> Vec<Vec<String>> {
    let arguments = |pid: u32| {
        let folder = host.path(format!("proc/{pid}"));
        sysfs::line(folder.join("comm")).filter(|name| name == "pmemctl")?;
        if !holders::is_of_root(host, pid) {
            return None;
        }
        // Waits for the lock of the process's mappings.
        let text = fs::read(folder.join("cmdline")).ok()?;
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

    fn process(machine: &FakeSysfs, pid: u32, ids: &str, command: &str) {
        let status = format!("Name:\tpmemctl\nUid:\t{ids}\nGid:\t0\t0\t0\t0");
        machine.write(&format!("proc/{pid}/status"), &status);
        machine.write(&format!("proc/{pid}/comm"), "pmemctl");
        machine.write(&format!("proc/{pid}/cmdline"), &command.replace(' ', "\0"));
    }

    const ROOT: &str = "0\t0\t0\t0";

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
        assert_eq!(namespace.fallback, None);
        assert_eq!(namespace.bad_sectors, Some(0));
        assert_eq!(namespace.bad_ranges, Some(0));
        assert!(namespace.origins.is_empty());
        assert_eq!((&namespace.scrub, region.saved_ms), (&None, None));
    }

    #[test]
    fn each_sector_has_one_origin() {
        let errors = "8192 4096 machine-check\n8192 512 user\n65536 512 user\n";
        let counted = by_origin(&errors.parse().unwrap());
        let expected = [("machine-check", 8), ("user", 1)];
        assert_eq!(
            counted,
            expected.map(|(word, count)| (word.into(), count)).into()
        );
    }

    #[test]
    fn map_sync_needs_dax_and_synchronous_memory() {
        let mount = |directory: &str, dax| Mount {
            directory: directory.into(),
            dax,
            root: "/".into(),
            options: String::new(),
        };
        let mut part = Volume::made_up("pmem0p1", "259:1", Vec::new());
        part.mounts = vec![mount("/srv", Dax::Always)];
        let mut disk = Volume::made_up("pmem0", "259:0", vec![part]);
        disk.mounts = vec![mount("/a\n", Dax::Never)];
        let found = mounts_of(&disk, true);
        let facts = |one: &MountStatus| (one.directory.clone(), one.volume.clone(), one.map_sync);
        assert_eq!(facts(&found[0]), (r"/a\n".into(), "pmem0".into(), false));
        assert_eq!(facts(&found[1]), ("/srv".into(), "pmem0p1".into(), true));
        assert!(!mounts_of(&disk, false)[1].map_sync);
        // A volume on two partitions is shown below both.
        disk.children.push(disk.children[0].clone());
        assert_eq!(mounts_of(&disk, true).len(), 2);
    }

    #[test]
    fn directory_mounted_on_itself_is_no_mount_of_its_own() {
        let mut disk = Volume::made_up("pmem0", "259:0", Vec::new());
        disk.mounts = [
            ("/", "/"),
            ("/var/lib/x", "/var/lib/x"),
            ("/srv", "/srv/data"),
            ("/srv/export", "/srv/data/export"),
            ("/mnt", "/"),
        ]
        .map(|(directory, root)| Mount {
            directory: directory.into(),
            dax: Dax::Always,
            root: root.into(),
            options: String::new(),
        })
        .into();
        let found = mounts_of(&disk, true);
        let directories: Vec<_> = found.iter().map(|one| one.directory.as_str()).collect();
        assert_eq!(directories, ["/", "/srv", "/mnt"]);
    }

    #[test]
    fn fallback_to_the_stock_driver_is_shown() {
        let machine = FakeSysfs::new();
        machine.write("proc/sys/kernel/osrelease", "7.2.13");
        machine.write("etc/modprobe.d/x.conf", "softdep nd_pmem pre: rust_pmem");
        let status = read(&machine);
        let reason = status.regions[0].namespaces[0].fallback.as_deref();
        assert_eq!(reason, Some("module not built for 7.2.13"));
        assert_eq!(status.health, Health::Healthy);
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
        let saved = read(&machine);
        assert_eq!(saved.regions[0].saved, Some(true));
        assert!(saved.regions[0].saved_ms.is_some());
        assert_eq!(saved.regions[0].namespaces[0].bad_ranges, Some(1));
    }

    #[test]
    fn error_that_the_log_lacks_is_unsaved_until_it_is_saved() {
        let machine = FakeSysfs::new();
        let commands = "ars_cap ars_start ars_status clear_error";
        machine.write("sys/devices/ndbus0/commands", commands);
        // The bus has what rust_pmem has told it.
        machine.write("sys/devices/ndbus0/region0/badblocks", "6152 16");
        let list = "sys/devices/ndbus0/region0/pfn0.0/errors/list";
        machine.write(list, "1052672 4096 log");
        assert_eq!(read(&machine).regions[0].saved, None);
        machine.write(list, "1052672 4096 log\n1056768 4096 user");
        assert_eq!(read(&machine).regions[0].saved, Some(false));
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
        process(&machine, 10, ROOT, "/usr/sbin/pmemctl errors save pmem0");
        process(&machine, 11, ROOT, "/usr/sbin/pmemctl repair monitor");
        let status = read(&machine);
        assert!(!status.monitoring && !status.saving);
        process(&machine, 12, ROOT, "/usr/sbin/pmemctl monitor --now");
        process(&machine, 13, ROOT, "pmemctl errors save --follow --all");
        let status = read(&machine);
        assert!(status.monitoring && status.saving);
    }

    #[test]
    fn program_of_a_user_is_no_service() {
        let machine = FakeSysfs::new();
        for (pid, ids) in [(10, "1000\t1000\t1000\t1000"), (11, "1000\t0\t0\t0")] {
            process(&machine, pid, ids, "pmemctl monitor --now");
        }
        assert!(!read(&machine).monitoring);
    }
}
