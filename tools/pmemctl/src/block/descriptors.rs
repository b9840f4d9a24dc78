// SPDX-License-Identifier: GPL-2.0

//! Identifies the files that processes have open, without a call that may hang.
//!
//! stat(2) of `/proc/PID/fd/N` asks the file system of the file, which may be that of an NFS server that is down or of
//! a FUSE process that is stopped. `/proc/PID/fdinfo/N` has the mount and the inode without asking it.

use crate::block::devno::DeviceNumber;
use crate::block::mountinfo::{self, MountInfo};
use crate::sysfs::{self, Host};
use crate::waiting::{CALLS, DEADLINE};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::path::Path;

/// How soon a file system answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// At once: it is in memory, or on a block device.
    AtOnce,
    /// It may wait for one below it.
    Perhaps,
    /// It waits for a server or a process.
    Remote,
}

impl Answers {
    fn of(kind: &str, number: DeviceNumber) -> Self {
        const IN_MEMORY: [&str; 8] = [
            "devpts",
            "devtmpfs",
            "hugetlbfs",
            "proc",
            "ramfs",
            "rootfs",
            "sysfs",
            "tmpfs",
        ];
        const POOLS: [&str; 3] = ["bcachefs", "btrfs", "zfs"];
        const REMOTE: [&str; 12] = [
            "9p", "afs", "autofs", "ceph", "cifs", "coda", "gfs2", "lustre", "nfs", "nfs4",
            "ocfs2", "smb3",
        ];
        let has_device = number.is_of_block_device();
        if kind.starts_with("fuse") || REMOTE.contains(&kind) {
            Self::Remote
        } else if has_device || IN_MEMORY.contains(&kind) || POOLS.contains(&kind) {
            Self::AtOnce
        } else {
            Self::Perhaps
        }
    }
}

/// The mounts that processes see, in all mount namespaces.
#[derive(Debug)]
pub struct MountTable {
    by_id: BTreeMap<u64, (DeviceNumber, Answers)>,
    by_device: BTreeMap<DeviceNumber, Answers>,
    /// The mount points in this namespace.
    own: Vec<(OsString, Answers)>,
}

impl MountTable {
    /// Reads the tables of all namespaces and roots.
    pub fn of(host: &Host, pids: &[u32]) -> Self {
        let mut table = Self {
            by_id: BTreeMap::new(),
            by_device: BTreeMap::new(),
            own: Vec::new(),
        };
        for mount in mountinfo::of_process(host, "self") {
            let answers = table.add(&mount);
            table.own.push((mount.directory, answers));
        }
        let mut seen = HashSet::new();
        for pid in pids {
            let folder = host.path(format!("proc/{pid}"));
            // A process sees the mounts of its namespace that are below its root.
            let link = |name| fs::read_link(folder.join(name)).ok();
            let view = (link("ns/mnt"), link("root"));
            if view.0.is_none() || seen.insert(view) {
                for mount in mountinfo::of_process(host, &pid.to_string()) {
                    table.add(&mount);
                }
            }
        }
        table
    }

    fn add(&mut self, mount: &MountInfo) -> Answers {
        let answers = Answers::of(&mount.file_system, mount.device);
        self.by_id.insert(mount.id, (mount.device, answers));
        self.by_device.insert(mount.device, answers);
        answers
    }

    /// Returns the status of the file that `link` in `/proc/PID` refers to; `None` if its file system may be remote
    /// or does not answer. `place` is the mount or the device that the file is on.
    pub fn status(&self, link: &Path, place: Place) -> Option<Metadata> {
        let answers = match place {
            Place::Mount(id) => self.by_id.get(&id).map(|(_, answers)| *answers),
            Place::Device(number) => self.by_device.get(&number).copied(),
            Place::Unknown => None,
        };
        match answers {
            Some(Answers::AtOnce) => return fs::metadata(link).ok(),
            Some(Answers::Remote) => return None,
            Some(Answers::Perhaps) => {}
            // Pipes, sockets and the kernel's own files have no path.
            None => {
                let name = fs::read_link(link).ok()?;
                if !name.is_absolute() || name.starts_with("/memfd:") {
                    return None;
                }
            }
        }
        let key = match place {
            Place::Unknown => format!("{}", link.display()),
            place => format!("{place:?}"),
        };
        let link = link.to_owned();
        CALLS.within(&key, DEADLINE, move || fs::metadata(link).ok())?
    }

    /// Returns the status of the file at an absolute path, if the file systems on the way answer.
    pub fn status_of_path(&self, host: &Host, path: &Path) -> Option<Metadata> {
        let real = host.absolute(path);
        let local = self
            .own
            .iter()
            .filter(|(directory, _)| path.starts_with(directory))
            .all(|(_, answers)| *answers == Answers::AtOnce);
        if local {
            // A symbolic link may lead to another file system.
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let resolve = ResolveFlags::NO_SYMLINKS;
            match openat2(CWD, &real, flags, Mode::empty(), resolve) {
                Ok(file) => return File::from(file).metadata().ok(),
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOSYS) => {}
                Err(_) => return None,
            }
        }
        let key = format!("{}", path.display());
        CALLS.within(&key, DEADLINE, move || fs::metadata(real).ok())?
    }
}

/// Where a file is, according to `/proc/PID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The number of its mount.
    Mount(u64),
    /// The device of its file system.
    Device(DeviceNumber),
    Unknown,
}

/// A descriptor of a process (`/proc/PID/fdinfo/N`, proc_pid_fdinfo(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The flags of open(2).
    flags: u32,
    mount: Option<u64>,
    /// The inode, since Linux 5.14.
    pub inode: Option<u64>,
}

impl Descriptor {
    /// Reads the descriptor `name` of the process of the directory `process`.
    pub fn read(process: &Path, name: &str) -> Option<Self> {
        let text = fs::read(process.join("fdinfo").join(name)).ok()?;
        Some(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let number = |name| value(name)?.trim().parse().ok();
        let flags = value("flags:").and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        Self {
            flags: flags.unwrap_or(0),
            mount: number("mnt_id:"),
            inode: number("ino:"),
        }
    }

    /// Opened by `O_PATH`, so that only its name can be used.
    pub fn is_path(&self) -> bool {
        OFlags::from_bits_retain(self.flags).contains(OFlags::PATH)
    }

    pub fn is_writable(&self) -> bool {
        let mode = OFlags::from_bits_retain(self.flags) & OFlags::RWMODE;
        !self.is_path() && mode != OFlags::RDONLY
    }

    pub fn place(&self) -> Place {
        self.mount.map_or(Place::Unknown, Place::Mount)
    }

    /// Returns the device of its file system, if a process sees its mount.
    pub fn device(&self, table: &MountTable) -> Option<DeviceNumber> {
        let (number, _) = table.by_id.get(&self.mount?)?;
        Some(*number)
    }
}

/// The descriptors of a process, by their names.
pub fn names(process: &Path) -> Vec<String> {
    sysfs::names(&process.join("fd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_parses() {
        let parse = Descriptor::parse;
        let one = parse("pos:\t0\nflags:\t0100002\nmnt_id:\t29\nino:\t4711\nlock:\t1: LEASE\n");
        assert_eq!((one.place(), one.inode), (Place::Mount(29), Some(4711)));
        assert!(one.is_writable() && !one.is_path());
        assert!(!parse("flags:\t0100000\n").is_writable());
        let path = parse("flags:\t012000002\nmnt_id:\t29\n");
        assert!(path.is_path() && !path.is_writable());
        assert_eq!((path.inode, parse("").place()), (None, Place::Unknown));
    }

    #[test]
    fn file_system_that_may_hang_is_recognised() {
        let of = |kind, number: &str| Answers::of(kind, number.parse().unwrap());
        assert_eq!(of("xfs", "259:1"), Answers::AtOnce);
        assert_eq!(of("devtmpfs", "0:6"), Answers::AtOnce);
        assert_eq!(of("btrfs", "0:40"), Answers::AtOnce);
        assert_eq!(of("overlay", "0:41"), Answers::Perhaps);
        assert_eq!(of("nfs4", "0:42"), Answers::Remote);
        assert_eq!(of("fuseblk", "259:1"), Answers::Remote);
    }

    #[test]
    fn path_is_looked_up_on_local_file_systems() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("proc/self");
        fs::create_dir_all(&own).unwrap();
        let table =
            "22 1 0:21 / / rw - tmpfs none rw\n23 22 0:50 / /srv\\040x rw - nfs4 server:/ rw\n";
        fs::write(own.join("mountinfo"), table).unwrap();
        fs::write(folder.path().join("file"), "four").unwrap();
        let host = Host::at(folder.path());
        let table = MountTable::of(&host, &[]);
        let found = table.status_of_path(&host, Path::new("/file")).unwrap();
        assert_eq!(found.len(), 4);
        assert!(table.status_of_path(&host, Path::new("/none")).is_none());
        let remote = Place::Mount(23);
        assert!(table.status(&folder.path().join("file"), remote).is_none());
        let local = Place::Mount(22);
        assert!(table.status(&folder.path().join("file"), local).is_some());
    }
}
