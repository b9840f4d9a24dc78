// SPDX-License-Identifier: GPL-2.0

//! Errors that the kernel reports for the files of a mounted file system.
//!
//! fanotify(7) reports I/O errors of files (`FAN_FS_ERROR`) to any number of listeners, but merges those that wait to
//! be read. XFS reports each one to a single listener (`XFS_IOC_HEALTH_MONITOR`).

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::read;
use rustix::ioctl::{Opcode, opcode};
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// `MAX_HANDLE_SZ` of linux/exportfs.h.
const LONGEST: usize = 128;

/// `FILEID_INO32_GEN` of linux/exportfs.h.
const INO32_GEN: i32 = 1;

/// `FILEID_INO32_GEN | XFS_FILEID_TYPE_64FLAG` of fs/xfs/xfs_export.h.
const XFS_INO64_GEN: i32 = 0x81;

/// A file of a file system, by a handle of name_to_handle_at(2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileHandle {
    kind: i32,
    bytes: Vec<u8>,
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}:", self.kind)?;
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// `struct file_handle` of linux/fs.h, with room for any handle.
#[repr(C)]
struct RawHandle {
    length: u32,
    kind: i32,
    bytes: [u8; LONGEST],
}

impl FileHandle {
    /// Returns the handle of an inode of XFS.
    pub fn xfs(inode: u64, generation: u32) -> Self {
        let mut bytes = inode.to_ne_bytes().to_vec();
        bytes.extend(generation.to_ne_bytes());
        Self {
            kind: XFS_INO64_GEN,
            bytes,
        }
    }

    /// Returns the inode and its generation, if the handle is of a type of ext4 or XFS that has them.
    pub fn inode(&self) -> Option<(u64, u32)> {
        match self.kind {
            INO32_GEN => Some((u64::from(number(&self.bytes, 0)?), number(&self.bytes, 4)?)),
            XFS_INO64_GEN => Some((long(&self.bytes, 0)?, number(&self.bytes, 8)?)),
            _ => None,
        }
    }

    /// Refers to the file (`O_PATH`), without opening it. `mount` is a directory of the file system.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the file is removed and not open, or the inode is another file's now; `EPERM` without
    /// `CAP_DAC_READ_SEARCH`.
    pub fn path(&self, mount: impl AsFd) -> io::Result<OwnedFd> {
        let mut raw = RawHandle {
            length: u32::try_from(self.bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            kind: self.kind,
            bytes: [0; LONGEST],
        };
        let room = raw.bytes.get_mut(..self.bytes.len());
        room.ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(&self.bytes);
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: open_by_handle_at(2) reads the two fields of a `struct file_handle` and `length` bytes behind them,
        // which `RawHandle` has; the kernel validates the contents.
        let fd = unsafe {
            libc::open_by_handle_at(mount.as_fd().as_raw_fd(), (&raw mut raw).cast(), flags)
        };
        owned(fd)
    }
}

/// Takes the descriptor that a system call returned.
fn owned(fd: c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The callers pass the result of a system call that returns a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The reports that were read from a [`Listener`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// Files that had an error.
    pub files: Vec<FileHandle>,
    /// The file system is unmounted: nothing follows.
    pub ended: bool,
}

/// A descriptor from which errors are read.
#[derive(Debug)]
pub enum Listener {
    /// A fanotify group with a mark on one file system.
    Fanotify(OwnedFd),
    /// The health monitor of an XFS.
    XfsHealth(OwnedFd),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Fanotify(fd) | Self::XfsHealth(fd) => fd.as_fd(),
        }
    }
}

/// `XFS_IOC_HEALTH_MONITOR` of xfs_fs.h: `_IOW('X', 68, struct xfs_health_monitor)`.
const HEALTH_MONITOR: Opcode = opcode::write::<[u64; 4]>(b'X', 68);

const _: () = assert!(HEALTH_MONITOR == 0x4020_5844);

impl Listener {
    /// Listens for errors of the file system of a file, without keeping it mounted.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` before Linux 5.16, `ENODEV` or `EOPNOTSUPP` if the file system does
    /// not support it.
    pub fn fanotify(file: impl AsFd) -> io::Result<Self> {
        let flags =
            libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_FID;
        // SAFETY: fanotify_init(2) takes two numbers and accesses no memory of the process.
        let group = owned(unsafe { libc::fanotify_init(flags, libc::O_RDONLY as _) })?;
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: Without a path name, fanotify_mark(2) marks the file of the descriptor and accesses no memory of
        // the process.
        let marked = unsafe {
            libc::fanotify_mark(
                group.as_raw_fd(),
                flags,
                libc::FAN_FS_ERROR,
                file.as_fd().as_raw_fd(),
                ptr::null(),
            )
        };
        match marked {
            0 => Ok(Self::Fanotify(group)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Becomes the health monitor of an XFS, of which `root` is the root directory, without keeping it mounted.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is one; `ENOTTY` before Linux 7.0 and on other file systems; `EPERM` without
    /// `CAP_SYS_ADMIN` or if the directory is not the root.
    pub fn xfs_health(root: impl AsFd) -> io::Result<Self> {
        // Format 0, and no flags.
        let request = [0_u64; 4];
        // SAFETY: XFS_IOC_HEALTH_MONITOR only reads a `struct xfs_health_monitor` of 32 bytes, the size of `request`,
        // and returns a new descriptor; other file systems fail with ENOTTY.
        let fd = unsafe {
            libc::ioctl(
                root.as_fd().as_raw_fd(),
                HEALTH_MONITOR as _,
                request.as_ptr(),
            )
        };
        let fd = owned(fd)?;
        fcntl_setfl(&fd, OFlags::NONBLOCK)?;
        Ok(Self::XfsHealth(fd))
    }

    /// Reads the reports that wait, if any.
    pub fn read(&self) -> io::Result<Reports> {
        let mut buffer = [0; 8192];
        let length = match read(self, &mut buffer) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                return Ok(Reports::default());
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        Ok(match self {
            Self::Fanotify(_) => Reports {
                files: of_fanotify(bytes),
                ended: false,
            },
            Self::XfsHealth(_) => of_xfs_health(bytes),
        })
    }
}

/// Parses `struct fanotify_event_metadata` and the records of each (linux/fanotify.h).
fn of_fanotify(mut bytes: &[u8]) -> Vec<FileHandle> {
    /// `FAN_EVENT_INFO_TYPE_FID`.
    const FID: u8 = 1;
    /// Its length up to the bytes of the handle: header, fsid, length and type.
    const HEAD: usize = 4 + 8 + 8;
    let mut found = Vec::new();
    while let (Some(length), Some(head)) = (number(bytes, 0), bytes.get(6..8)) {
        let head = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some((event, rest)) = bytes.split_at_checked(length as usize) else {
            break;
        };
        bytes = rest;
        let Some(mut records) = event.get(head..).filter(|_| head >= 24) else {
            break;
        };
        while let Some(&[kind, _, low, high]) = records.first_chunk() {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            if length < 4 {
                break;
            }
            let Some((record, rest)) = records.split_at_checked(length) else {
                break;
            };
            records = rest;
            if let (FID, Some(size), Some(kind)) = (kind, number(record, 12), number(record, 16)) {
                let handle = record.get(HEAD..HEAD.saturating_add(size as usize));
                // An error without a file has an empty handle.
                if let Some(bytes) = handle.filter(|handle| !handle.is_empty()) {
                    found.push(FileHandle {
                        kind: kind as i32,
                        bytes: bytes.to_vec(),
                    });
                }
            }
        }
    }
    found
}

/// Parses `struct xfs_health_monitor_event` (xfs_fs.h). No bytes mean that the file system is unmounted.
fn of_xfs_health(bytes: &[u8]) -> Reports {
    const SIZE: usize = 64;
    /// `XFS_HEALTH_MONITOR_DOMAIN_FILERANGE`.
    const FILE_RANGE: u32 = 8;
    /// `XFS_HEALTH_MONITOR_DOMAIN_MOUNT` and `XFS_HEALTH_MONITOR_TYPE_UNMOUNT`.
    const UNMOUNT: (u32, u32) = (0, 2);
    let mut reports = Reports {
        ended: bytes.is_empty(),
        files: Vec::new(),
    };
    for event in bytes.chunks_exact(SIZE) {
        match (number(event, 0), number(event, 4)) {
            (Some(FILE_RANGE), _) => {
                let file = long(event, 32).zip(number(event, 40));
                let file = file.map(|(inode, generation)| FileHandle::xfs(inode, generation));
                reports.files.extend(file);
            }
            (Some(domain), Some(kind)) if (domain, kind) == UNMOUNT => reports.ended = true,
            _ => {}
        }
    }
    reports
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// An event of fanotify with these records.
    fn fanotify_event(records: &[&[u8]]) -> Vec<u8> {
        let records = records.concat();
        let mut event = (24 + records.len() as u32).to_ne_bytes().to_vec();
        event.extend([3, 0]);
        event.extend(24_u16.to_ne_bytes());
        event.extend(libc::FAN_FS_ERROR.to_ne_bytes());
        event.extend([0xff; 8]);
        event.extend(records);
        event
    }

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (4 + body.len()) as u16;
        [&[kind, 0], &length.to_ne_bytes()[..], body].concat()
    }

    fn fid(kind: u32, handle: &[u8]) -> Vec<u8> {
        let length = handle.len() as u32;
        let head = [
            [7; 8].as_slice(),
            &length.to_ne_bytes(),
            &kind.to_ne_bytes(),
        ];
        record(1, &[&head.concat(), handle].concat())
    }

    #[test]
    fn fanotify_events_parse() {
        let error = record(5, &[5, 0, 0, 0, 1, 0, 0, 0]);
        let ext4 = [12_u32.to_ne_bytes(), 34_u32.to_ne_bytes()].concat();
        let file = fanotify_event(&[&error, &fid(1, &ext4)]);
        let whole = fanotify_event(&[&error, &fid(0xff, &[])]);
        let found = of_fanotify(&[whole.as_slice(), &file].concat());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].inode(), Some((12, 34)));
        // Lengths that do not fit.
        for cut in 0..file.len() {
            assert!(of_fanotify(&file[..cut]).is_empty(), "{cut}");
        }
        let mut short = file.clone();
        short[26] = 3;
        assert!(of_fanotify(&short).is_empty());
        assert!(of_fanotify(&[0; 64]).is_empty());
    }

    #[test]
    fn xfs_events_parse() {
        let event = |domain: u32, kind: u32| {
            let mut event = [domain.to_ne_bytes(), kind.to_ne_bytes()].concat();
            event.extend([0; 24]);
            event.extend(((1_u64 << 40) | 5).to_ne_bytes());
            event.extend(77_u32.to_ne_bytes());
            event.resize(64, 0);
            event
        };
        let found = of_xfs_health(&[event(0, 0), event(8, 12), event(5, 7)].concat());
        assert_eq!(found.files, [FileHandle::xfs((1 << 40) | 5, 77)]);
        assert_eq!(found.files[0].inode(), Some(((1 << 40) | 5, 77)));
        assert!(!found.ended);
        assert!(of_xfs_health(&event(0, 2)).ended);
        assert!(of_xfs_health(&[]).ended);
        assert_eq!(of_xfs_health(&[0; 63]), Reports::default());
    }

    #[test]
    fn procfs_does_not_listen() {
        let file = File::open("/proc/self/status").unwrap();
        assert!(Listener::xfs_health(&file).is_err());
        assert!(FileHandle::xfs(1, 2).path(&file).is_err());
        let long = FileHandle {
            kind: 1,
            bytes: vec![0; 129],
        };
        let error = long.path(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
