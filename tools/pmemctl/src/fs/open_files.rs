// SPDX-License-Identifier: GPL-2.0

//! Finds the processes that have files of a file system open or mapped.
//!
//! File descriptors in flight through a socket or registered with io_uring are not visible, nor are processes
//! outside of this PID namespace.

use crate::block::descriptors::{self, Descriptor, MountTable};
use crate::block::devno::DeviceNumber;
use crate::block::holders::{self, Process};
use crate::block::maps;
use crate::fs::leases::Leases;
use crate::fs::reopen::{device_of, refer, status};
use crate::fs::tree;
use crate::sysfs::{self, Host, printable};
use rustix::fs::{ResolveFlags, Statx};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A mapped range of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedRange {
    /// The address in the process.
    pub address: u64,
    /// The range of the file.
    pub bytes: Range<u64>,
}

/// How a process uses a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUse {
    pub process: Process,
    /// The process has a descriptor of the file.
    pub open: bool,
    pub mapped: Vec<MappedRange>,
}

/// A process that maps a range or has its file open.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct FileUser {
    #[serde(flatten)]
    pub process: Process,
    /// The process has a descriptor of the file or of the device.
    pub open: bool,
    /// The address of the first byte of the range in each mapping, or in the first 16 of them.
    pub addresses: Vec<u64>,
}

/// A file that processes have open or mapped.
#[derive(Debug)]
pub struct OpenFile {
    pub device: DeviceNumber,
    pub inode: u64,
    /// The name by which it was opened, if it is still valid.
    pub name: Option<PathBuf>,
    /// The file is removed.
    pub removed: bool,
    /// A link in `/proc` through which it can be opened, whether it has a name or not.
    link: PathBuf,
    /// A descriptor of it in a process that is trusted: the process and the number.
    descriptor: Option<(u32, i32)>,
    /// An open would break a lease.
    leased: bool,
    pub by: Vec<FileUse>,
}

impl OpenFile {
    #[cfg(test)]
    fn made_up(device: DeviceNumber, inode: u64, by: Vec<FileUse>) -> Self {
        Self {
            device,
            inode,
            name: None,
            removed: false,
            link: PathBuf::new(),
            descriptor: None,
            leased: false,
            by,
        }
    }

    /// Returns the file for queries.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if an open would break a lease and no process that is trusted has a descriptor. `NotFound` if the
    /// process has closed the file.
    pub fn open(&self) -> io::Result<File> {
        // A lease may be newer than the list of leases.
        let descriptor = self.descriptor;
        if let Some(file) = descriptor.and_then(|(pid, fd)| self.duplicate(pid, fd)) {
            return Ok(file);
        }
        if self.leased {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        open_link(&self.link, self.device, self.inode)
    }

    /// A link in `/proc` to it, whether it has a name or not.
    pub fn link(&self) -> &Path {
        &self.link
    }

    /// Duplicates a descriptor of a process of root or of this user, if it still is of this file.
    ///
    /// The number may be another file's now, and the duplicate is closed then: on FUSE, that waits for the server, and no
    /// signal ends it. Another user's process could do so for ever.
    fn duplicate(&self, pid: u32, fd: i32) -> Option<File> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let process = pidfd_open(number, PidfdFlags::empty()).ok()?;
        // If another process had this number by now, `process` would be gone, and have no descriptors.
        if !is_trusted(Path::new(&format!("/proc/{pid}"))) {
            return None;
        }
        let file = pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).ok()?;
        let status = status(&file).ok()?;
        is_of(&status, self.device, self.inode).then(|| file.into())
    }

    /// Returns the processes that map any of these bytes or have the file open, up to [`USERS`].
    pub fn users(&self, bytes: &Range<u64>) -> Vec<FileUser> {
        let user = |one: &FileUse| {
            let addresses: Vec<u64> = one
                .mapped
                .iter()
                .filter(|piece| piece.bytes.start < bytes.end && bytes.start < piece.bytes.end)
                .map(|piece| piece.address + bytes.start.saturating_sub(piece.bytes.start))
                .take(ADDRESSES)
                .collect();
            let user = FileUser {
                process: one.process.clone(),
                open: one.open,
                addresses,
            };
            (user.open || !user.addresses.is_empty()).then_some(user)
        };
        self.by.iter().filter_map(user).take(USERS).collect()
    }
}

fn is_of(status: &Statx, device: DeviceNumber, inode: u64) -> bool {
    status.stx_ino == inode && device_of(status) == device
}

/// Opens the file of a link in `/proc` for queries.
///
/// The number or address may be another file's now, which is not opened: the open of a device has side effects, and a server
/// may not answer. `NotFound` then.
pub(crate) fn open_link(link: &Path, device: DeviceNumber, inode: u64) -> io::Result<File> {
    let handle = refer(link, ResolveFlags::empty())?;
    match is_of(&status(&handle)?, device, inode) {
        true => tree::handle_of(handle.into())?
            .ok_or(io::ErrorKind::NotFound)?
            .open(),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Returns whether the file of a link in `/proc` is removed; `false` if the number or address is another file's now.
fn is_removed(link: &Path, device: DeviceNumber, inode: u64) -> io::Result<bool> {
    let handle = refer(link, ResolveFlags::empty())?;
    let status = status(handle)?;
    Ok(is_of(&status, device, inode) && status.stx_nlink == 0)
}

/// Returns the processes that map any of these bytes of a file or have it open. Inode numbers repeat on each file system.
pub fn users_of(
    used: &[OpenFile],
    device: DeviceNumber,
    inode: u64,
    bytes: &Range<u64>,
) -> Vec<FileUser> {
    let its = used
        .iter()
        .filter(|used| (used.device, used.inode) == (device, inode));
    its.flat_map(|used| used.users(bytes)).collect()
}

impl std::fmt::Display for FileUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.addresses.as_slice() {
            [] => write!(f, "open in {}", self.process),
            addresses => {
                let at: Vec<_> = addresses.iter().map(|at| format!("{at:#x}")).collect();
                write!(f, "mapped by {} at {}", self.process, at.join(", "))
            }
        }
    }
}

/// The files of file systems that other processes use.
#[derive(Debug)]
pub struct FilesInUse {
    pub files: Vec<OpenFile>,
    /// There was room for all.
    pub complete: bool,
}

/// The highest number of processes that are reported for a range: each event about the file has them.
const USERS: usize = 256;

/// The highest number of addresses of a range that are reported for a process.
const ADDRESSES: usize = 16;

/// Bytes of memory for files in use, of which collections may take twice as much: processes of a user can have millions open,
/// or mapped in pieces.
const ROOM: usize = 64 << 20;

/// Why some are missing.
pub const TOO_MANY: &str = "processes have too many files open or mapped to look at all";

/// Returns the files on `devices` that other processes use.
pub fn of_file_systems(host: &Host, devices: &[DeviceNumber]) -> FilesInUse {
    find(host, devices, ROOM)
}

fn find(host: &Host, devices: &[DeviceNumber], room: usize) -> FilesInUse {
    let pids = holders::pids(host);
    let mut search = Search {
        host,
        table: MountTable::of(host, &pids),
        leases: Leases::read(host),
        devices,
        found: BTreeMap::new(),
        room: Room(0),
    };
    let own = std::process::id();
    let mut rest = room;
    let mut complete = true;
    for pid in pids.into_iter().filter(|&pid| pid != own) {
        // One process can't take the room of all that are behind it.
        let share = rest / 4;
        search.room = Room(share);
        complete &= search.add_process(pid).is_some();
        rest -= share - search.room.0;
    }
    FilesInUse {
        files: search.found.into_values().collect(),
        complete,
    }
}

/// A search for the files that processes use.
struct Search<'a> {
    host: &'a Host,
    table: MountTable,
    leases: Leases,
    devices: &'a [DeviceNumber],
    found: BTreeMap<(DeviceNumber, u64), OpenFile>,
    /// For the files of one process.
    room: Room,
}

impl Search<'_> {
    /// Adds the files of a process; `None` if there is no room for all.
    fn add_process(&mut self, pid: u32) -> Option<()> {
        let folder = self.host.path(format!("proc/{pid}"));
        let trusted = is_trusted(&folder);
        for name in descriptors::names(&folder) {
            let Some(descriptor) = Descriptor::read(&folder, &name) else {
                continue;
            };
            let link = folder.join("fd").join(&name);
            // A file elsewhere is not asked for its status, because its file system may not answer.
            if let Some(device) = descriptor.device(&self.table) {
                if !self.devices.contains(&device) {
                    continue;
                }
            }
            let Some(metadata) = self.table.status(&link, descriptor.place()) else {
                continue;
            };
            let device = DeviceNumber::from_rdev(metadata.dev());
            if (metadata.is_file() || metadata.is_dir()) && self.devices.contains(&device) {
                let file = self.file(device, metadata.ino(), &link, pid)?;
                if file.descriptor.is_none() && trusted && !descriptor.is_path() {
                    file.descriptor = name.parse().ok().map(|fd| (pid, fd));
                }
                file.by.last_mut()?.open = true;
            }
        }
        for mapped in maps::files(&folder) {
            if self.devices.contains(&mapped.device) {
                let link = folder.join("map_files").join(mapped.link());
                self.room.take(size_of::<MappedRange>())?;
                let file = self.file(mapped.device, mapped.inode, &link, pid)?;
                file.by.last_mut()?.mapped.push(MappedRange {
                    address: mapped.start,
                    bytes: mapped.offset..mapped.offset + (mapped.end - mapped.start),
                });
            }
        }
        Some(())
    }

    /// Returns a file, whose last user is this process; `None` if there is no room for it.
    fn file(
        &mut self,
        device: DeviceNumber,
        inode: u64,
        link: &Path,
        pid: u32,
    ) -> Option<&mut OpenFile> {
        let used = match self.found.entry((device, inode)) {
            Entry::Occupied(used) => used.into_mut(),
            Entry::Vacant(place) => {
                self.room
                    .take(size_of::<OpenFile>() + link.as_os_str().len())?;
                place.insert(OpenFile {
                    device,
                    inode,
                    name: None,
                    removed: is_removed(link, device, inode).unwrap_or(false),
                    link: link.to_owned(),
                    descriptor: None,
                    leased: self.leases.has_write(device, inode),
                    by: Vec::new(),
                })
            }
        };
        if used.name.is_none() {
            // The name that a process of another mount namespace sees may be that of another file here.
            used.name = fs::read_link(link).ok().filter(|name| {
                name.is_absolute()
                    && self
                        .table
                        .status_of_path(self.host, name)
                        .is_some_and(|metadata| {
                            DeviceNumber::from_rdev(metadata.dev()) == device
                                && metadata.ino() == inode
                        })
            });
            self.room
                .take(used.name.as_ref().map_or(0, |name| name.as_os_str().len()))?;
        }
        // One process is read after another.
        if used.by.last().is_none_or(|last| last.process.pid != pid) {
            let comm = self.host.path(format!("proc/{pid}/comm"));
            self.room.take(size_of::<FileUse>())?;
            used.by.push(FileUse {
                process: Process {
                    pid,
                    command: printable(sysfs::line(comm).unwrap_or_default()),
                },
                open: false,
                mapped: Vec::new(),
            });
        }
        Some(used)
    }
}

/// Bytes of memory that are left.
struct Room(usize);

impl Room {
    /// `None` if there is no room for so many bytes.
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.checked_sub(bytes)?;
        Some(())
    }
}

/// Returns whether the process of the directory `process` is one of root or of this user. A program with a set-user-ID bit
/// is one of the user who started it.
fn is_trusted(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let own = rustix::process::getuid().as_raw();
    real_uid(&status).is_some_and(|uid| [0, own].contains(&uid))
}

fn real_uid(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn root_and_this_user_are_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let own = rustix::process::getuid().as_raw();
        let trusted = |uids: &str| {
            fs::write(
                folder.path().join("status"),
                format!("Name:\tx\nUid:\t{uids}\nGid:\t0\n"),
            )
            .unwrap();
            is_trusted(folder.path())
        };
        assert!(trusted("0\t1000\t0\t1000"));
        assert!(trusted(&format!("{own}\t{own}\t{own}\t{own}")));
        // su(1), started by a user.
        assert!(!trusted("4711\t0\t0\t0"));
        assert!(!trusted(""));
    }

    #[test]
    fn users_are_found_by_range() {
        let process = |pid| Process {
            pid,
            command: "x".into(),
        };
        let used = OpenFile::made_up(
            "1:2".parse().unwrap(),
            7,
            vec![
                FileUse {
                    process: process(1),
                    open: true,
                    mapped: vec![],
                },
                FileUse {
                    process: process(2),
                    open: false,
                    mapped: vec![
                        MappedRange {
                            address: 0x10000,
                            bytes: 4096..12288,
                        },
                        MappedRange {
                            address: 0x80000,
                            bytes: 0..4096,
                        },
                    ],
                },
            ],
        );
        let who = |range| -> Vec<_> {
            let users = used.users(&range);
            users.iter().map(FileUser::to_string).collect()
        };
        assert_eq!(
            who(8192..8704),
            [
                "open in process 1 (x)",
                "mapped by process 2 (x) at 0x11000"
            ]
        );
        // A range that overlaps both mappings.
        assert_eq!(
            who(2048..6144)[1],
            "mapped by process 2 (x) at 0x10000, 0x80800"
        );
        assert_eq!(who(12288..16384), ["open in process 1 (x)"]);
    }

    #[test]
    fn users_of_a_range_are_limited() {
        let one = |pid| FileUse {
            process: Process {
                pid,
                command: "x".into(),
            },
            open: false,
            mapped: (0..1000)
                .map(|page| MappedRange {
                    address: page << 16,
                    bytes: 0..4096,
                })
                .collect(),
        };
        let used = OpenFile::made_up("1:2".parse().unwrap(), 7, (0..1000).map(one).collect());
        let users = used.users(&(0..1));
        assert_eq!((users.len(), users[0].addresses.len()), (USERS, ADDRESSES));
    }

    #[test]
    fn same_inode_number_on_another_device_is_another_file() {
        let number = |text: &str| text.parse::<DeviceNumber>().unwrap();
        let opened_by = |device, pid| {
            let process = Process {
                pid,
                command: "x".into(),
            };
            let by = FileUse {
                process,
                open: true,
                mapped: Vec::new(),
            };
            OpenFile::made_up(number(device), 131, vec![by])
        };
        let used = [opened_by("259:0", 1), opened_by("259:1", 2)];
        let users = users_of(&used, number("259:1"), 131, &(0..4096));
        let pids: Vec<_> = users.iter().map(|user| user.process.pid).collect();
        assert_eq!(pids, [2]);
        assert!(users_of(&used, number("259:1"), 132, &(0..4096)).is_empty());
    }

    /// Starts a process that has a file open; no other has it as this one has.
    fn child_with(file: &tempfile::NamedTempFile) -> std::process::Child {
        std::process::Command::new("sleep")
            .arg("60")
            .stdin(file.reopen().unwrap())
            .spawn()
            .unwrap()
    }

    #[test]
    fn open_file_of_child_is_found() {
        // A file that only a child process has open.
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = child_with(&file);
        let metadata = file.as_file().metadata().unwrap();
        let device = DeviceNumber::from_rdev(metadata.dev());
        let used = of_file_systems(&Host::here(), &[device]).files;
        child.kill().unwrap();
        child.wait().unwrap();
        let ours = used
            .iter()
            .find(|used| used.inode == metadata.ino())
            .unwrap();
        assert_eq!(ours.name.as_deref(), Some(file.path()));
        assert_eq!(ours.users(&(0..1))[0].process.pid, child.id());
    }

    #[test]
    fn file_elsewhere_is_not_asked_for_its_status() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let device = DeviceNumber::from_rdev(folder.path().metadata().unwrap().dev());
        write("file", "");
        write(
            "proc/7/fdinfo/3",
            "pos:\t0\nflags:\t0100000\nmnt_id:\t9\nino:\t5\n",
        );
        fs::create_dir(folder.path().join("proc/7/fd")).unwrap();
        std::os::unix::fs::symlink("../../../file", folder.path().join("proc/7/fd/3")).unwrap();
        let found = |mount: &str| {
            write("proc/7/mountinfo", mount);
            of_file_systems(&Host::at(folder.path()), &[device])
                .files
                .len()
        };
        // stat(2) through the link would say that it is on the device.
        assert_eq!(found("9 1 0:50 / /srv rw - nfs server:/ rw\n"), 0);
        assert_eq!(
            found(&format!("9 1 {device} / /srv rw - xfs /dev/x rw\n")),
            1
        );
    }

    /// A file that is used through a link, without a descriptor.
    fn used_through(link: &Path, metadata: &fs::Metadata) -> OpenFile {
        let device = DeviceNumber::from_rdev(metadata.dev());
        OpenFile {
            link: link.to_owned(),
            ..OpenFile::made_up(device, metadata.ino(), Vec::new())
        }
    }

    #[test]
    fn only_the_same_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["file", "other"] {
            fs::write(at(name), name).unwrap();
        }
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let metadata = |name: &str| at(name).metadata().unwrap();
        let file = used_through(&at("file"), &metadata("file"));
        assert_eq!(
            file.open().unwrap().metadata().unwrap().ino(),
            metadata("file").ino()
        );
        // The process has closed it and reused the number, or has put something else in its place.
        for (link, found) in [("other", "file"), ("fifo", "file"), ("fifo", "fifo")] {
            let used = used_through(&at(link), &metadata(found));
            assert_eq!(used.open().unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn mapping_that_was_exchanged_does_not_say_that_the_file_is_removed() {
        // A removed file, which only a descriptor of this process leads to.
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let device = DeviceNumber::from_rdev(metadata.dev());
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("proc/7");
        fs::create_dir_all(process.join("map_files")).unwrap();
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::os::unix::fs::symlink(link, process.join("map_files/1000-2000")).unwrap();
        let number = metadata.dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let is_removed = |inode: u64| {
            let line = format!("1000-2000 r--s 0 {major:x}:{minor:x} {inode} /x (deleted)\n");
            fs::write(process.join("maps"), line).unwrap();
            let used = of_file_systems(&Host::at(folder.path()), &[device]).files;
            assert_eq!((used.len(), used[0].inode), (1, inode));
            used[0].removed
        };
        assert!(is_removed(metadata.ino()));
        assert!(!is_removed(metadata.ino() + 1));
    }

    #[test]
    fn files_in_use_take_limited_memory() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("proc/7");
        fs::create_dir_all(&process).unwrap();
        let maps: Vec<_> = (1..=1000)
            .map(|page| format!("{page:x}000-{page:x}800 r--s 0 103:05 12 /x\n"))
            .collect();
        fs::write(process.join("maps"), maps.concat()).unwrap();
        let found = |room| {
            let found = find(&Host::at(folder.path()), &["259:5".parse().unwrap()], room);
            let mapped = found.files.iter().flat_map(|file| &file.by[0].mapped);
            (mapped.count(), found.complete)
        };
        assert_eq!(found(ROOM), (1000, true));
        let (count, complete) = found(400 * size_of::<MappedRange>());
        assert!((50..100).contains(&count) && !complete, "{count}");
        // The next process has room.
        let next = folder.path().join("proc/8");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("maps"), "1000-2000 r--s 0 103:05 13 /y\n").unwrap();
        assert_eq!(found(400 * size_of::<MappedRange>()), (count + 1, false));
    }

    #[test]
    fn query_of_open_file_breaks_no_lease() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = child_with(&file);
        let metadata = file.as_file().metadata().unwrap();
        let device = DeviceNumber::from_rdev(metadata.dev());
        let used = of_file_systems(&Host::here(), &[device]).files;
        let ours = used.iter().find(|used| used.inode == metadata.ino());
        let ours = ours.unwrap();
        assert_eq!(ours.descriptor.map(|(pid, _)| pid), Some(child.id()));
        let duplicate = ours.open().unwrap();
        assert_eq!(duplicate.metadata().unwrap().ino(), metadata.ino());
        let leased = OpenFile {
            leased: true,
            descriptor: ours.descriptor,
            ..used_through(file.path(), &metadata)
        };
        assert_eq!(
            leased.open().unwrap().metadata().unwrap().ino(),
            metadata.ino()
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let leased = OpenFile {
            leased: true,
            ..used_through(file.path(), &metadata)
        };
        assert_eq!(leased.open().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
