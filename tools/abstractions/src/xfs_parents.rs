// SPDX-License-Identifier: GPL-2.0

//! Parent pointers of XFS (`XFS_IOC_GETPARENTS_BY_HANDLE`), which say where an inode has its names.

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::ffi::OsString;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

/// `struct xfs_handle`, whose file system id the kernel does not use here.
#[repr(C)]
#[derive(Clone, Copy)]
struct Handle {
    fsid: [u32; 2],
    length: u16,
    pad: u16,
    generation: u32,
    inode: u64,
}

/// The bytes of a `struct xfs_fid` behind its length.
const FID_LENGTH: u16 = 14;

/// `struct xfs_getparents_by_handle`.
#[repr(C)]
struct Request {
    handle: Handle,
    cursor: [u32; 4],
    iflags: u16,
    oflags: u16,
    size: u32,
    reserved: u64,
    buffer: u64,
}

/// `XFS_IOC_GETPARENTS_BY_HANDLE` of xfs_fs.h.
const GETPARENTS: Opcode = opcode::read_write::<Request>(b'X', 63);

const _: () = assert!(GETPARENTS == 0xc040_583f);
const _: () = assert!(offset_of!(Request, oflags) == 42 && offset_of!(Request, buffer) == 56);
const _: () = assert!(offset_of!(Handle, generation) == 12 && offset_of!(Handle, inode) == 16);

/// `struct xfs_bulkstat_req` with room for one `struct xfs_bulkstat`.
#[repr(C)]
struct Bulkstat {
    /// `struct xfs_bulk_ireq`.
    inode: u64,
    flags: u32,
    room: u32,
    count: u32,
    group: u32,
    reserved: [u64; 5],
    found_inode: u64,
    skipped: [u64; 7],
    generation: u32,
    rest: [u32; 31],
}

/// `XFS_IOC_BULKSTAT` of xfs_fs.h: `_IOR('X', 127, struct xfs_bulkstat_req)`, which is 64 bytes without the records.
const BULKSTAT: Opcode = opcode::read::<[u64; 8]>(b'X', 127);

const _: () = assert!(BULKSTAT == 0x8040_587f);
const _: () = assert!(size_of::<Bulkstat>() == 64 + 192);
const _: () = assert!(offset_of!(Bulkstat, generation) == 64 + 64);

/// A name of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The inode of the directory.
    pub inode: u64,
    /// The generation of that inode.
    pub generation: u32,
    /// The name in the directory.
    pub name: OsString,
}

/// Returns the generation of an inode; `root` is a directory of the file system.
///
/// # Errors
///
/// `NotFound` if the inode is not in use; `EPERM` without `CAP_SYS_ADMIN`; `ENOTTY` on another file system.
pub fn generation(root: impl AsFd, inode: u64) -> io::Result<u32> {
    let mut request = Bulkstat {
        inode,
        flags: 0,
        room: 1,
        count: 0,
        group: 0,
        reserved: [0; 5],
        found_inode: 0,
        skipped: [0; 7],
        generation: 0,
        rest: [0; 31],
    };
    // SAFETY: XFS_IOC_BULKSTAT reads and writes a `struct xfs_bulk_ireq` and writes at most `room` records behind it,
    // for one of which `Bulkstat` has room; other file systems fail without a write.
    unsafe { ioctl(root, Updater::<BULKSTAT, Bulkstat>::new(&mut request))? };
    // It continues with the next inode that is in use.
    if request.count == 0 || request.found_inode != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(request.generation)
}

/// The size of the buffer, in words of 64 bits; `XFS_XATTR_LIST_MAX` is 64 KiB.
const WORDS: usize = 4096;

/// Returns the names of an inode, up to `limit`; none if the inode is the root or has no names. `root` is a directory of
/// the file system.
///
/// # Errors
///
/// `EOPNOTSUPP` if the file system has no parent pointers; `ENOENT` or `ESTALE` if the inode is another file's now;
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOTTY` before Linux 6.10 and on another file system.
pub fn parents(
    root: impl AsFd,
    inode: u64,
    generation: u32,
    limit: usize,
) -> io::Result<Vec<Parent>> {
    /// `XFS_GETPARENTS_OFLAG_DONE`.
    const DONE: u16 = 2;
    let mut found = Vec::new();
    let mut cursor = [0; 4];
    loop {
        let mut buffer = vec![0_u64; WORDS];
        let mut request = Request {
            handle: Handle {
                fsid: [0; 2],
                length: FID_LENGTH,
                pad: 0,
                generation,
                inode,
            },
            cursor,
            iflags: 0,
            oflags: 0,
            size: (WORDS * 8) as u32,
            reserved: 0,
            buffer: buffer.as_mut_ptr().expose_provenance() as u64,
        };
        // SAFETY: XFS_IOC_GETPARENTS_BY_HANDLE reads and writes a `struct xfs_getparents_by_handle` and writes at most
        // `size` bytes at `buffer`, which is the size of the vector that lives until it is parsed; other file systems
        // fail without a write.
        unsafe { ioctl(&root, Updater::<GETPARENTS, Request>::new(&mut request))? };
        let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let before = found.len();
        found.extend(records(&bytes));
        if request.oflags & DONE != 0 || found.len() == before || found.len() >= limit {
            found.truncate(limit);
            return Ok(found);
        }
        cursor = request.cursor;
    }
}

/// Parses `struct xfs_getparents_rec`; what follows the last one is zero.
fn records(mut bytes: &[u8]) -> Vec<Parent> {
    const NAME: usize = 32;
    let number =
        |record: &[u8], at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let mut found = Vec::new();
    while let Some(length) = number(bytes, 24) {
        let length = length as usize;
        let Some((record, rest)) = bytes.split_at_checked(length).filter(|_| length > NAME) else {
            break;
        };
        bytes = rest;
        let inode = record.get(16..).and_then(|rest| rest.first_chunk());
        let name = record[NAME..].split(|&byte| byte == 0).next();
        if let (Some(inode), Some(generation), Some(name)) = (inode, number(record, 12), name) {
            found.push(Parent {
                inode: u64::from_ne_bytes(*inode),
                generation,
                name: OsString::from_vec(name.to_vec()),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn record(inode: u64, generation: u32, name: &[u8], length: u32) -> Vec<u8> {
        let mut record = vec![0; 8];
        record.extend(FID_LENGTH.to_ne_bytes());
        record.extend([0; 2]);
        record.extend(generation.to_ne_bytes());
        record.extend(inode.to_ne_bytes());
        record.extend(length.to_ne_bytes());
        record.extend([0; 4]);
        record.extend(name);
        record.resize(length as usize, 0);
        record
    }

    #[test]
    fn records_parse() {
        let parent = |inode, generation, name: &[u8]| Parent {
            inode,
            generation,
            name: OsString::from_vec(name.to_vec()),
        };
        // The last record ends with the buffer.
        let bytes = [
            record(1 << 33, 5, b"a\xff", 40),
            record(128, 6, b"name", 512),
        ]
        .concat();
        let wanted = [parent(1 << 33, 5, b"a\xff"), parent(128, 6, b"name")];
        assert_eq!(records(&bytes), wanted);
        assert_eq!(records(&[0; 512]), []);
        assert_eq!(records(&record(1, 2, b"x", 40)[..39]), []);
    }

    #[test]
    fn procfs_has_no_parents() {
        let file = File::open("/proc/self/status").unwrap();
        assert!(generation(&file, 1).is_err());
        assert!(parents(&file, 1, 1, 1).is_err());
    }
}
