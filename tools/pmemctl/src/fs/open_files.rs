// SPDX-License-Identifier: GPL-2.0

//! Finds the processes that have files of a file system open or mapped.
//!
//! File descriptors in flight through a socket or registered with io_uring are not visible, nor are processes
//! outside of this PID namespace.

use crate::block::devno::DeviceNumber;
use crate::block::holders::{self, Process};
use crate::sysfs::{self, Host, printable};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileUser {
    #[serde(flatten)]
    pub process: Process,
    /// The process has a descriptor of the file or of the device.
    pub open: bool,
    /// The address of the first byte of the range in each mapping.
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
    pub by: Vec<FileUse>,
}

impl OpenFile {
    /// Opens the file without waiting for a lease.
    pub fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(&self.link)
    }

    /// Returns the processes that map any of these bytes or have the file open.
    pub fn users(&self, bytes: &Range<u64>) -> Vec<FileUser> {
        let user = |one: &FileUse| {
            let addresses: Vec<u64> = one
                .mapped
                .iter()
                .filter(|piece| piece.bytes.start < bytes.end && bytes.start < piece.bytes.end)
                .map(|piece| piece.address + bytes.start.saturating_sub(piece.bytes.start))
                .collect();
            let user = FileUser {
                process: one.process.clone(),
                open: one.open,
                addresses,
            };
            (user.open || !user.addresses.is_empty()).then_some(user)
        };
        self.by.iter().filter_map(user).collect()
    }
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

/// A line of `/proc/PID/maps` (proc_pid_maps(5)) for a file.
#[derive(Debug, PartialEq, Eq)]
struct MapsLine<'a> {
    range: &'a str,
    piece: MappedRange,
    device: DeviceNumber,
    inode: u64,
}

impl<'a> MapsLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let range = words.next()?;
        let (start, end) = range.split_once('-')?;
        let address = u64::from_str_radix(start, 16).ok()?;
        let length = u64::from_str_radix(end, 16).ok()?.checked_sub(address)?;
        let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        let (major, minor) = words.next()?.split_once(':')?;
        let hex = |text| u32::from_str_radix(text, 16).ok();
        let device = format!("{}:{}", hex(major)?, hex(minor)?).parse().ok()?;
        let inode: u64 = words.next()?.parse().ok()?;
        (inode != 0).then_some(Self {
            range,
            piece: MappedRange {
                address,
                bytes: offset..offset.checked_add(length)?,
            },
            device,
            inode,
        })
    }
}

/// Returns all files on `devices` that other processes use.
pub fn of_file_systems(host: &Host, devices: &[DeviceNumber]) -> Vec<OpenFile> {
    let mut found = BTreeMap::new();
    let own = std::process::id();
    for pid in holders::pids(host).into_iter().filter(|&pid| pid != own) {
        let folder = host.path(format!("proc/{pid}"));
        for descriptor in sysfs::names(&folder.join("fd")) {
            let link = folder.join("fd").join(descriptor);
            // stat, because open may block.
            let Ok(metadata) = fs::metadata(&link) else {
                continue;
            };
            let device = DeviceNumber::from_rdev(metadata.dev());
            if (metadata.is_file() || metadata.is_dir()) && devices.contains(&device) {
                note(&mut found, host, pid, device, metadata.ino(), &link).open = true;
            }
        }
        // Only file names may be invalid UTF-8, and they are not used here.
        let maps = fs::read(folder.join("maps")).unwrap_or_default();
        for line in String::from_utf8_lossy(&maps)
            .lines()
            .filter_map(MapsLine::parse)
        {
            if devices.contains(&line.device) {
                let link = folder.join("map_files").join(line.range);
                note(&mut found, host, pid, line.device, line.inode, &link)
                    .mapped
                    .push(line.piece);
            }
        }
    }
    found.into_values().collect()
}

type OpenFiles = BTreeMap<(DeviceNumber, u64), OpenFile>;

fn note<'a>(
    found: &'a mut OpenFiles,
    host: &Host,
    pid: u32,
    device: DeviceNumber,
    inode: u64,
    link: &Path,
) -> &'a mut FileUse {
    let used = found.entry((device, inode)).or_insert_with(|| OpenFile {
        device,
        inode,
        name: None,
        removed: fs::metadata(link).is_ok_and(|metadata| metadata.nlink() == 0),
        link: link.to_owned(),
        by: Vec::new(),
    });
    if used.name.is_none() {
        used.name = fs::read_link(link).ok().filter(|name| {
            fs::symlink_metadata(host.absolute(name)).is_ok_and(|metadata| {
                DeviceNumber::from_rdev(metadata.dev()) == device && metadata.ino() == inode
            })
        });
    }
    let at = match used.by.iter().position(|one| one.process.pid == pid) {
        Some(at) => at,
        None => {
            used.by.push(FileUse {
                process: Process {
                    pid,
                    command: printable(
                        sysfs::line(host.path(format!("proc/{pid}/comm"))).unwrap_or_default(),
                    ),
                },
                open: false,
                mapped: Vec::new(),
            });
            used.by.len() - 1
        }
    };
    &mut used.by[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_line_parses() {
        let line = MapsLine::parse(
            "7f8a5c200000-7f8a5c400000 rw-s 00100000 103:05 4711                       /mnt/a b (deleted)",
        )
        .unwrap();
        assert_eq!(line.piece.address, 0x7f8a_5c20_0000);
        assert_eq!(line.piece.bytes, 0x10_0000..0x30_0000);
        assert_eq!(line.device.to_string(), "259:5");
        assert_eq!(line.inode, 4711);
        for text in [
            "",
            "7f8a5c200000-7f8a5c400000 rw-p 00000000 00:00 0 ",
            "7ffd0000-7ffc0000 rw-p 00000000 08:01 5 /x",
            "x-y rw-p 00000000 08:01 5 /x",
            "7ffd0000-7ffe0000 rw-p",
        ] {
            assert_eq!(MapsLine::parse(text), None, "{text}");
        }
    }

    #[test]
    fn users_are_found_by_range() {
        let process = |pid| Process {
            pid,
            command: "x".into(),
        };
        let used = OpenFile {
            device: "1:2".parse().unwrap(),
            inode: 7,
            name: None,
            removed: false,
            link: PathBuf::new(),
            by: vec![
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
        };
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
    fn open_file_of_child_is_found() {
        // A file that only a child process has open.
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(file.reopen().unwrap())
            .spawn()
            .unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let device = DeviceNumber::from_rdev(metadata.dev());
        let used = of_file_systems(&Host::here(), &[device]);
        child.kill().unwrap();
        child.wait().unwrap();
        let ours = used
            .iter()
            .find(|used| used.inode == metadata.ino())
            .unwrap();
        assert_eq!(ours.name.as_deref(), Some(file.path()));
        assert_eq!(ours.users(&(0..1))[0].process.pid, child.id());
    }
}
