// SPDX-License-Identifier: GPL-2.0

//! Finds the users of a disk: mounts, swap, stacked devices, processes.

use crate::block::descriptors::{self, Descriptor, MountTable, Place};
use crate::block::devno::DeviceNumber;
use crate::block::disk::{BlockDevice, Disk};
use crate::block::maps;
use crate::block::mountinfo;
use crate::sysfs::{self, Host, printable, unescape};
use glob::glob;
use schemars::JsonSchema;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One user of a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Holder {
    Mount {
        /// The disk or partition: the file system's own or its log's.
        device: String,
        directory: String,
        file_system: String,
        /// A process that sees it there, where this one does not.
        #[serde(skip_serializing_if = "Option::is_none")]
        seen_by: Option<Process>,
    },
    Swap {
        device: String,
    },
    /// A block device on top of it.
    Stacked {
        device: String,
        /// The device on top: `dm-0`, `md127`, `loop0`.
        by: String,
        /// The type of that device.
        what: String,
    },
    /// The kernel's NVMe target exports it.
    NvmeTarget {
        device: String,
        /// The subsystem and the number of its namespace.
        subsystem: String,
        /// The number of the namespace.
        namespace: String,
    },
    /// The kernel's SCSI target has it open.
    ScsiTarget {
        device: String,
        /// The backstore: its HBA and its name, `fileio_0/disk`.
        backstore: String,
    },
    /// A process has it open or mapped.
    Process {
        /// The disk or partition, or the device of device DAX.
        device: String,
        #[serde(flatten)]
        process: Process,
        /// Mapped, not only open.
        mapped: bool,
    },
    /// It is kernel memory: system RAM.
    SystemRam {
        /// The device of device DAX.
        device: String,
    },
    /// It is claimed, but the user is not visible.
    Unknown {
        device: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize)]
pub struct Process {
    pub pid: u32,
    pub command: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount {
                device,
                directory,
                file_system,
                seen_by,
            } => {
                write!(f, "{device} is mounted at {directory} ({file_system})")?;
                match seen_by {
                    Some(process) => write!(f, ", as {process} sees it"),
                    None => Ok(()),
                }
            }
            Self::Swap { device } => write!(f, "{device} is swap space"),
            Self::Stacked { device, by, what } => write!(f, "{device} is part of {by} ({what})"),
            Self::NvmeTarget {
                device,
                subsystem,
                namespace,
            } => write!(
                f,
                "{device} is exported by the NVMe target: namespace {namespace} of subsystem {subsystem}"
            ),
            Self::ScsiTarget { device, backstore } => {
                write!(f, "{device} is backstore {backstore} of the SCSI target")
            }
            Self::Process {
                device,
                process,
                mapped,
            } => write!(
                f,
                "{process} has {device} {}",
                if *mapped { "mapped" } else { "open" }
            ),
            Self::SystemRam { device } => write!(f, "{device} is system RAM"),
            Self::Unknown { device } => write!(
                f,
                "{device} is claimed by something that can't be seen from here (a mount that only the kernel knows of, the journal \
                 of another file system)"
            ),
        }
    }
}

/// Recognises files that refer to the devices in question.
struct Lookup<'a> {
    host: &'a Host,
    parts: Vec<BlockDevice>,
    /// Block devices, or the character devices of device DAX.
    block: bool,
    /// Processes that only read are no users.
    writers: bool,
    pids: Vec<u32>,
    table: MountTable,
    /// The files of processes that were looked at.
    known: RefCell<BTreeMap<(Place, u64), Option<DeviceNumber>>>,
}

impl<'a> Lookup<'a> {
    fn new(host: &'a Host, parts: Vec<BlockDevice>, block: bool) -> Self {
        let pids = pids(host);
        Self {
            host,
            parts,
            block,
            writers: false,
            table: MountTable::of(host, &pids),
            pids,
            known: RefCell::default(),
        }
    }

    fn numbered(&self, number: DeviceNumber) -> Option<&str> {
        let part = self.parts.iter().find(|part| part.number == number)?;
        Some(&part.name)
    }

    /// The number of a device, if it is of the right kind.
    fn device(&self, status: &fs::Metadata) -> Option<DeviceNumber> {
        let kind = status.file_type();
        let right = if self.block {
            kind.is_block_device()
        } else {
            kind.is_char_device()
        };
        right.then(|| DeviceNumber::from_rdev(status.rdev()))
    }

    /// Returns the one that a file of a process is, by any name.
    fn file(&self, link: &Path, place: Place, inode: Option<u64>) -> Option<&str> {
        let look = || {
            let status = self.table.status(link, place)?;
            self.device(&status)
        };
        let number = match inode {
            // Many processes map the same libraries.
            Some(inode) => {
                let known = self.known.borrow().get(&(place, inode)).copied();
                match known {
                    Some(number) => number,
                    None => {
                        let number = look();
                        self.known.borrow_mut().insert((place, inode), number);
                        number
                    }
                }
            }
            None => look(),
        };
        self.numbered(number?)
    }

    /// Which of them a path in a text of the kernel is: by its number, or by its name where this
    /// process has no such file.
    fn path(&self, path: &Path) -> Option<&str> {
        if let Some(status) = self.table.status_of_path(self.host, path) {
            return self.numbered(self.device(&status)?);
        }
        let name = path.strip_prefix("/dev").ok()?.to_str()?;
        let part = self.parts.iter().find(|part| part.name == name)?;
        Some(&part.name)
    }
}

/// All users of a disk and its partitions that can be seen.
///
/// Not seen are: descriptors on their way through a socket or registered with io_uring, processes
/// of a PID namespace that is not below this one, and clients of other machines.
pub fn of_disk(disk: &Disk) -> Vec<Holder> {
    let host = disk.host();
    let lookup = Lookup::new(host, disk.parts(), true);
    let mut found = BTreeSet::new();
    users(&lookup, &mut found);
    found.into_iter().collect()
}

fn users(lookup: &Lookup<'_>, found: &mut BTreeSet<Holder>) {
    mounts(lookup, found);
    swaps(lookup, found);
    stacked(lookup, found);
    nvme_target(lookup, found);
    scsi_target(lookup, found);
    processes(lookup, found);
}

/// All users of a disk, partition or volume, `name` for the kernel, that may write to it: those of [`of_disk`] but
/// processes that only read, mounts that no process sees, and processes that may write to a device below it.
pub fn writers(host: &Host, name: &str, number: DeviceNumber) -> Vec<Holder> {
    let part = BlockDevice {
        name: name.to_owned(),
        number,
        folder: host.path("sys/class/block").join(name),
    };
    let below = below(host, &part);
    let mut lookup = Lookup::new(host, vec![part], true);
    lookup.writers = true;
    let mut found = BTreeSet::new();
    users(&lookup, &mut found);
    let mounted = found
        .iter()
        .any(|holder| matches!(holder, Holder::Mount { .. }));
    // These directories live as long as the superblock: after umount -l, too.
    let active = |kind: &str| host.path("sys/fs").join(kind).join(name).exists();
    if !mounted && ["ext4", "xfs"].into_iter().any(active) {
        found.insert(Holder::Unknown {
            device: name.to_owned(),
        });
    }
    lookup.parts = below;
    lookup.known = RefCell::default();
    nvme_target(&lookup, &mut found);
    scsi_target(&lookup, &mut found);
    processes(&lookup, &mut found);
    found.into_iter().collect()
}

/// Returns the devices that a device is on: the disk of a partition, the devices of a volume, and those below them.
fn below(host: &Host, part: &BlockDevice) -> Vec<BlockDevice> {
    let mut found: Vec<BlockDevice> = Vec::new();
    let mut pending = vec![part.folder.clone()];
    while let Some(folder) = pending.pop() {
        let mut names = sysfs::names(&folder.join("slaves"));
        if folder.join("partition").exists() {
            let real = fs::canonicalize(&folder).unwrap_or(folder);
            let disk = real.parent().and_then(Path::file_name);
            names.extend(disk.and_then(|name| Some(name.to_str()?.to_owned())));
        }
        for name in names {
            let folder = host.path("sys/class/block").join(&name);
            let number = sysfs::line(folder.join("dev")).and_then(|number| number.parse().ok());
            let Some(number) = number else { continue };
            if !found.iter().any(|known| known.number == number) {
                pending.push(folder.clone());
                found.push(BlockDevice {
                    name,
                    number,
                    folder,
                });
            }
        }
    }
    found
}

/// All users of devices of device DAX (`dax0.0`).
pub fn of_dax(host: &Host, devices: &[String]) -> Vec<Holder> {
    let part = |name: &String| {
        let folder = host.path("sys/bus/dax/devices").join(name);
        Some(BlockDevice {
            name: name.clone(),
            number: sysfs::line(folder.join("dev"))?.parse().ok()?,
            folder,
        })
    };
    let lookup = Lookup::new(host, devices.iter().filter_map(part).collect(), false);
    let mut found = BTreeSet::new();
    for part in &lookup.parts {
        if sysfs::link_name(part.folder.join("driver")).is_some_and(|driver| driver == "kmem") {
            found.insert(Holder::SystemRam {
                device: part.name.clone(),
            });
        }
    }
    processes(&lookup, &mut found);
    found.into_iter().collect()
}

pub(crate) fn pids(host: &Host) -> Vec<u32> {
    let mut pids: Vec<u32> = sysfs::names(&host.path("proc"))
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

/// Returns whether root runs a process, by its `status` (proc_pid_status(5)). A user can give a process any name, and can
/// run a set-user-ID program, whose real user is not root.
pub(crate) fn is_of_root(host: &Host, pid: u32) -> bool {
    let status = fs::read_to_string(host.path(format!("proc/{pid}/status"))).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.is_some_and(|ids| ids.split_whitespace().all(|id| id == "0"))
}

pub(crate) fn process(host: &Host, pid: u32) -> Process {
    let command = sysfs::line(host.path(format!("proc/{pid}/comm"))).unwrap_or_default();
    Process {
        pid,
        command: printable(command),
    }
}

fn mounts(lookup: &Lookup<'_>, found: &mut BTreeSet<Holder>) {
    let host = lookup.host;
    let space = |process: &str| fs::read_link(host.path(format!("proc/{process}/ns/mnt"))).ok();
    let mut seen = HashSet::new();
    let own = space("self");
    let mut known = HashSet::new();
    // This process comes first, so that other processes are named only for mounts that are not visible here.
    let mut tables = vec![("self".to_owned(), None)];
    tables.extend(lookup.pids.iter().map(|&pid| (pid.to_string(), Some(pid))));
    for (folder, pid) in tables {
        let its = space(&folder);
        if its.is_some() && !seen.insert(its.clone()) {
            continue;
        }
        let elsewhere = its != own;
        for mount in mountinfo::of_process(host, &folder) {
            let other = |option: &&str| lookup.path(&mount.device_option(option)?);
            // These have an anonymous device number. Users can mount others, such as tmpfs, with any source.
            let pool = matches!(mount.file_system.as_str(), "bcachefs" | "btrfs");
            let source = || lookup.path(&mount.source).filter(|_| pool);
            let device = lookup
                .numbered(mount.device)
                .or_else(source)
                .or_else(|| ["logdev", "rtdev"].iter().find_map(other));
            let Some(device) = device else { continue };
            if elsewhere && known.contains(&(device.to_owned(), mount.directory.clone())) {
                continue;
            }
            known.insert((device.to_owned(), mount.directory.clone()));
            found.insert(Holder::Mount {
                device: device.to_owned(),
                directory: printable(&mount.directory),
                file_system: mount.file_system,
                seen_by: pid.filter(|_| elsewhere).map(|pid| process(host, pid)),
            });
        }
    }
    // File systems on several devices name only one as their source.
    for part in &lookup.parts {
        let pattern = host.path("sys/fs/btrfs/*/devices").join(&part.name);
        for path in glob(&pattern.to_string_lossy())
            .into_iter()
            .flatten()
            .flatten()
        {
            let id = path
                .ancestors()
                .nth(2)
                .and_then(Path::file_name)
                .unwrap_or_default();
            let mounted = |holder: &Holder| matches!(holder, Holder::Mount { device, .. } if *device == part.name);
            if !found.iter().any(mounted) {
                found.insert(Holder::Stacked {
                    device: part.name.clone(),
                    by: printable(id),
                    what: "btrfs".into(),
                });
            }
        }
    }
}

fn swaps(lookup: &Lookup<'_>, found: &mut BTreeSet<Holder>) {
    let table = fs::read(lookup.host.path("proc/swaps")).unwrap_or_default();
    for line in table.split(|&byte| byte == b'\n').skip(1) {
        let name = line
            .split(|byte| b" \t".contains(byte))
            .next()
            .unwrap_or_default();
        if let Some(device) = lookup.path(Path::new(&unescape(name))) {
            found.insert(Holder::Swap {
                device: device.to_owned(),
            });
        }
    }
}

/// Finds `holders` links, bcache, which has none, and loop devices, which only have a file name.
fn stacked(lookup: &Lookup<'_>, found: &mut BTreeSet<Holder>) {
    let block = lookup.host.path("sys/block");
    for part in &lookup.parts {
        for by in sysfs::names(&part.folder.join("holders")) {
            let folder = block.join(&by);
            let what = if let Some(name) = sysfs::line(folder.join("dm/name")) {
                format!("device mapper: {}", printable(name))
            } else if let Some(level) = sysfs::line(folder.join("md/level")) {
                format!("md {level}")
            } else if by.starts_with("bcache") {
                "bcache".into()
            } else {
                "a block device".into()
            };
            found.insert(Holder::Stacked {
                device: part.name.clone(),
                by: printable(by),
                what,
            });
        }
        let bcache = part.folder.join("bcache");
        let linked = |holder: &Holder| matches!(holder, Holder::Stacked { device, what, .. } if *device == part.name && what == "bcache");
        if bcache.exists() && !found.iter().any(linked) {
            found.insert(Holder::Stacked {
                device: part.name.clone(),
                by: "a cache set".into(),
                what: "bcache".into(),
            });
        }
    }
    for name in sysfs::names(&block) {
        if let Some(file) = sysfs::line(block.join(&name).join("loop/backing_file")) {
            if let Some(device) = lookup.path(Path::new(&file)) {
                found.insert(Holder::Stacked {
                    device: device.to_owned(),
                    by: name,
                    what: "loop device".into(),
                });
            }
        }
    }
}

/// Returns the files below configfs that match, of targets that are enabled, and their folders.
fn enabled_targets(host: &Host, pattern: &str) -> Vec<(PathBuf, PathBuf)> {
    let pattern = host.path("sys/kernel/config").join(pattern);
    let paths = glob(&pattern.to_string_lossy()).into_iter().flatten();
    paths
        .flatten()
        .filter_map(|path| {
            let folder = path.parent()?.to_owned();
            sysfs::line(folder.join("enable")).filter(|enable| enable != "0")?;
            Some((path, folder))
        })
        .collect()
}

/// Returns the name of the folder that is this many levels above.
fn name_above(folder: &Path, levels: usize) -> String {
    let name = folder.ancestors().nth(levels).and_then(Path::file_name);
    printable(name.unwrap_or_default())
}

fn nvme_target(lookup: &Lookup<'_>, found: &mut BTreeSet<Holder>) {
    let pattern = "nvmet/subsystems/*/namespaces/*/device_path";
    for (path, namespace) in enabled_targets(lookup.host, pattern) {
        let device = sysfs::line(&path).and_then(|file| lookup.path(Path::new(&file)));
        if let Some(device) = device {
            found.insert(Holder::NvmeTarget {
                device: device.to_owned(),
                subsystem: name_above(&namespace, 2),
                namespace: name_above(&namespace, 0),
            });
        }
    }
}

/// Finds the backstores of LIO, by what they show of themselves: `udev_path` is what a program has written there. Those of
/// type fileio do not claim a device, and those of type iblock need not.
fn scsi_target(lookup: &Lookup<'_>, found: &mut BTreeSet<Holder>) {
    for (path, folder) in enabled_targets(lookup.host, "target/core/*/*/info") {
        let info = sysfs::line(&path).unwrap_or_default();
        let device = match backing(&info) {
            Some(Backing::File(file)) => lookup.path(file),
            Some(Backing::Number(number)) => lookup.numbered(number),
            None => None,
        };
        if let Some(device) = device {
            found.insert(Holder::ScsiTarget {
                device: device.to_owned(),
                backstore: format!("{}/{}", name_above(&folder, 1), name_above(&folder, 0)),
            });
        }
    }
}

/// The file or device of a backstore.
enum Backing<'a> {
    File(&'a Path),
    Number(DeviceNumber),
}

/// Parses `info` of a backstore: `TCM FILEIO ID: 0        File: /dev/pmem0  Size: 4096  Mode: O_DSYNC Async: 0` of fileio,
/// `Major: 259 Minor: 0  CLAIMED: IBLOCK` of iblock.
fn backing(info: &str) -> Option<Backing<'_>> {
    info.lines().find_map(|line| {
        if let Some((_, rest)) = line.split_once("  File: ") {
            let (file, _) = rest.rsplit_once("  Size: ")?;
            return Some(Backing::File(Path::new(file)));
        }
        let (_, rest) = line.split_once("Major: ")?;
        let (major, rest) = rest.split_once(" Minor: ")?;
        let minor = rest.split(' ').next()?;
        let number = format!("{major}:{minor}").parse().ok()?;
        Some(Backing::Number(number))
    })
}

fn processes(lookup: &Lookup<'_>, found: &mut BTreeSet<Holder>) {
    let host = lookup.host;
    let own = std::process::id();
    for &pid in lookup.pids.iter().filter(|&&pid| pid != own) {
        let folder = host.path(format!("proc/{pid}"));
        let mut note = |device: &str, mapped| {
            found.insert(Holder::Process {
                device: device.to_owned(),
                process: process(host, pid),
                mapped,
            });
        };
        for name in descriptors::names(&folder) {
            let Some(descriptor) = Descriptor::read(&folder, &name) else {
                continue;
            };
            if lookup.writers && !descriptor.is_writable() {
                continue;
            }
            let link = folder.join("fd").join(name);
            if let Some(device) = lookup.file(&link, descriptor.place(), descriptor.inode) {
                note(device, false);
            }
        }
        for mapped in maps::files(&folder) {
            if lookup.writers && !mapped.is_shared_writable() {
                continue;
            }
            let link = folder.join("map_files").join(mapped.link());
            let place = Place::Device(mapped.device);
            if let Some(device) = lookup.file(&link, place, Some(mapped.inode)) {
                note(device, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tempfile::TempDir;

    /// A system of these files (text) and links (a target after ->).
    fn tree(files: &[(&str, &str)]) -> (TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match content.strip_prefix("->") {
                Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
                None => fs::write(path, content).unwrap(),
            }
        }
        let host = Host::at(folder.path());
        (folder, host)
    }

    const DISK: [(&str, &str); 5] = [
        ("sys/block/pmem90/dev", "259:90\n"),
        ("sys/block/pmem90/pmem90p1/dev", "259:91\n"),
        ("sys/block/pmem90/pmem90p1/partition", "1\n"),
        (
            "proc/swaps",
            "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
        ),
        ("proc/self/mountinfo", "22 1 0:21 / / rw - tmpfs none rw\n"),
    ];

    /// Returns the holders in a fake tree with these files added or replaced.
    fn holders_with(files: &[(&str, &str)]) -> Vec<String> {
        let mut all = DISK.to_vec();
        all.retain(|(path, _)| files.iter().all(|(other, _)| other != path));
        all.extend(files);
        let (_folder, host) = tree(&all);
        let disk = Disk::find(&host, "pmem90").unwrap();
        of_disk(&disk).iter().map(Holder::to_string).collect()
    }

    #[test]
    fn unused_disk_has_no_holders() {
        assert!(holders_with(&[]).is_empty());
        // Devices with similar names.
        assert!(holders_with(&[
            ("proc/swaps", "Filename\n/dev/pmem9 partition 1 0 -2\n/dev/pmem901 partition 1 0 -2\n/swapfile file 1 0 -2\n"),
            ("proc/self/mountinfo", "36 35 259:9 / /mnt rw - ext4 /dev/pmem9 rw\n"),
            ("sys/block/loop0/loop/backing_file", "/dev/pmem900\n"),
            ("sys/kernel/config/nvmet/subsystems/s/namespaces/1/device_path", "/dev/pmem90\n"),
            ("sys/kernel/config/nvmet/subsystems/s/namespaces/1/enable", "0\n"),
            ("sys/kernel/config/target/core/fileio_0/new/info", "TCM FILEIO ID: 0        File: /dev/pmem90  Size: 0  Mode: O_DSYNC Async: 0\n"),
            ("sys/kernel/config/target/core/fileio_0/new/enable", "0\n"),
            ("sys/kernel/config/target/core/iblock_0/new/info", "        Major: 0 Minor: 0\n"),
            ("sys/kernel/config/target/core/iblock_0/new/enable", "1\n"),
        ])
        .is_empty());
    }

    #[test]
    fn mount_in_other_namespace_is_found() {
        let found = holders_with(&[
            ("proc/self/ns/mnt", "->mnt:[1]"),
            (
                "proc/self/mountinfo",
                "36 35 259:91 / /mnt rw - ext4 /dev/pmem90p1 rw\n",
            ),
            ("proc/7/ns/mnt", "->mnt:[1]"),
            ("proc/7/mountinfo", "never read\n"),
            ("proc/8/ns/mnt", "->mnt:[2]"),
            ("proc/8/comm", "box\n"),
            (
                "proc/8/mountinfo",
                "51 50 259:91 / /mnt rw - ext4 /dev/pmem90p1 rw\n52 50 259:90 / /in\\012side rw - xfs /dev/pmem90 rw\n",
            ),
        ]);
        let lookup = [
            r"pmem90 is mounted at /in\nside (xfs), as process 8 (box) sees it",
            "pmem90p1 is mounted at /mnt (ext4)",
        ];
        assert_eq!(found, lookup);
    }

    #[test]
    fn mount_is_found_by_source_and_option() {
        let found = holders_with(&[(
            "proc/self/mountinfo",
            "36 35 0:40 / /b rw - btrfs /dev/pmem90 rw\n37 35 8:1 / /x rw - xfs /dev/sda1 rw,logdev=/dev/pmem90p1\n",
        )]);
        let lookup = [
            "pmem90 is mounted at /b (btrfs)",
            "pmem90p1 is mounted at /x (xfs)",
        ];
        assert_eq!(found, lookup);
    }

    #[test]
    fn mount_of_a_user_with_the_source_is_none() {
        let found = holders_with(&[(
            "proc/self/mountinfo",
            "36 35 0:40 / /t rw - tmpfs /dev/pmem90 rw\n37 35 0:41 / /f rw - fuse.btrfs /dev/pmem90p1 rw\n",
        )]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn stacked_devices_are_found() {
        let found = holders_with(&[
            (
                "proc/swaps",
                "Filename\tType\n/dev/pmem90p1   partition\t1\t0\t-2\n",
            ),
            ("sys/block/pmem90/holders/dm-3", ""),
            ("sys/block/dm-3/dm/name", "vg-data\n"),
            ("sys/block/pmem90/pmem90p1/holders/md127", ""),
            ("sys/block/md127/md/level", "raid1\n"),
            ("sys/block/pmem90/pmem90p1/bcache/x", ""),
            ("sys/block/loop0/loop/backing_file", "/dev/pmem90\n"),
            (
                "sys/kernel/config/nvmet/subsystems/s/namespaces/1/device_path",
                "/dev/pmem90\n",
            ),
            (
                "sys/kernel/config/nvmet/subsystems/s/namespaces/1/enable",
                "1\n",
            ),
            (
                "sys/kernel/config/target/core/fileio_0/data/info",
                "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 16384\n        \
                 TCM FILEIO ID: 0        File: /dev/pmem90p1  Size: 4096  Mode: O_DSYNC Async: 0\n",
            ),
            ("sys/kernel/config/target/core/fileio_0/data/enable", "1\n"),
            (
                "sys/kernel/config/target/core/iblock_1/all/info",
                "Status: DEACTIVATED  Max Queue Depth: 0  SectorSize: 0  HwMaxSectors: 0\n        \
                 iBlock device: pmem90  UDEV PATH: /dev/sda  readonly: 0\n  exclusive: 0\n        \
                 Major: 259 Minor: 90  CLAIMED: IBLOCK\n",
            ),
            ("sys/kernel/config/target/core/iblock_1/all/enable", "1\n"),
        ]);
        let lookup = [
            "pmem90p1 is swap space",
            "pmem90 is part of dm-3 (device mapper: vg-data)",
            "pmem90 is part of loop0 (loop device)",
            "pmem90p1 is part of a cache set (bcache)",
            "pmem90p1 is part of md127 (md raid1)",
            "pmem90 is exported by the NVMe target: namespace 1 of subsystem s",
            "pmem90 is backstore iblock_1/all of the SCSI target",
            "pmem90p1 is backstore fileio_0/data of the SCSI target",
        ];
        assert_eq!(found, lookup);
    }

    /// Returns what may write to the volume `dm-3` on the partition, in a fake tree with these files.
    fn writers_with(files: &[(&str, &str)]) -> Vec<String> {
        let mut all = DISK.to_vec();
        all.extend([
            ("sys/class/block/dm-3/dev", "252:3\n"),
            ("sys/class/block/dm-3/slaves/pmem90p1", ""),
            ("sys/class/block/pmem90p1", "->../../block/pmem90/pmem90p1"),
            ("sys/class/block/pmem90", "->../../block/pmem90"),
        ]);
        all.retain(|(path, _)| files.iter().all(|(other, _)| other != path));
        all.extend(files);
        let (_folder, host) = tree(&all);
        let number = "252:3".parse().unwrap();
        let found = writers(&host, "dm-3", number);
        let below = below(
            &host,
            &BlockDevice {
                name: "dm-3".into(),
                number,
                folder: host.path("sys/class/block/dm-3"),
            },
        );
        let below: Vec<_> = below.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(below, ["pmem90p1", "pmem90"]);
        found.iter().map(Holder::to_string).collect()
    }

    #[test]
    fn superblock_without_visible_mount_is_found() {
        assert!(writers_with(&[]).is_empty());
        let found = writers_with(&[("sys/fs/xfs/dm-3/log", "")]);
        assert!(
            found[0].starts_with("dm-3 is claimed by something"),
            "{found:?}"
        );
        let mount = "36 35 252:3 / /mnt rw - xfs /dev/dm-3 rw\n";
        let files = [("sys/fs/xfs/dm-3/log", ""), ("proc/self/mountinfo", mount)];
        assert_eq!(writers_with(&files), ["dm-3 is mounted at /mnt (xfs)"]);
    }

    #[test]
    fn process_that_only_reads_is_no_writer() {
        // A device that exists here, and a process with it open.
        let null = DeviceNumber::from_rdev(fs::metadata("/dev/null").unwrap().rdev());
        let found = |flags: &str, kind: &str| {
            let info = format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t9\nino:\t5\n");
            let table = format!("9 1 0:6 / /dev rw - {kind} x rw\n");
            let (_folder, host) = tree(&[
                ("proc/7/fd/3", "->/dev/null"),
                ("proc/7/fdinfo/3", &info),
                ("proc/7/comm", "cat\n"),
                ("proc/7/mountinfo", &table),
            ]);
            let part = BlockDevice {
                name: "null".into(),
                number: null,
                folder: PathBuf::new(),
            };
            // A character device, because there is always one.
            let mut lookup = Lookup::new(&host, vec![part], false);
            let mut all = BTreeSet::new();
            processes(&lookup, &mut all);
            lookup.writers = true;
            let mut writers = BTreeSet::new();
            processes(&lookup, &mut writers);
            (all.len(), writers.len())
        };
        assert_eq!(found("0100000", "devtmpfs"), (1, 0));
        assert_eq!(found("0100002", "devtmpfs"), (1, 1));
        // A server that is down would not answer.
        assert_eq!(found("0100002", "nfs"), (0, 0));
    }
}
