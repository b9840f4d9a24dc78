// SPDX-License-Identifier: GPL-2.0

//! Extents of files (FIEMAP, GETBMAPX) and owners of extents of a file system (GETFSMAP).

use crate::xattr;
use rustix::ioctl::{Getter, Opcode, Setter, Updater, ioctl};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

/// `FS_IOC_FIEMAP` of linux/fs.h: `_IOWR('f', 11, struct fiemap)`.
const FIEMAP: Opcode = 0xc020_660b;

/// `FS_IOC_GETFSMAP` of linux/fsmap.h: `_IOWR('X', 59, struct fsmap_head)`.
const GETFSMAP: Opcode = 0xc0c0_583b;

/// `XFS_IOC_GETBMAPX` of xfs_fs.h: `_IOWR('X', 56, struct getbmap)`.
const GETBMAPX: Opcode = 0xc020_5838;

/// `XFS_IOC_FSGEOMETRY` of xfs_fs.h: `_IOR('X', 126, struct xfs_fsop_geom)`.
const FSGEOMETRY: Opcode = 0x8100_587e;

/// Number of records per call.
const RECORDS: usize = 128;

/// An extent of a file (`struct fiemap_extent`), in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub logical: u64,
    /// Offset on the device of the file system.
    pub physical: u64,
    /// Length.
    pub length: u64,
    reserved64: [u64; 2],
    /// `FIEMAP_EXTENT_…`.
    pub flags: u32,
    reserved: [u32; 3],
}

impl Extent {
    /// `FIEMAP_EXTENT_UNWRITTEN`: allocated, but reads return zeros.
    pub const UNWRITTEN: u32 = 0x800;
    /// `FIEMAP_EXTENT_SHARED`: shared with other files, or with other extents of this file.
    pub const SHARED: u32 = 0x2000;

    /// Creates an extent that is written and not shared.
    pub fn new(logical: u64, physical: u64, length: u64) -> Self {
        Self {
            logical,
            physical,
            length,
            ..Self::default()
        }
    }

    /// Its bytes in the file.
    pub fn range(&self) -> Range<u64> {
        self.logical..self.logical.saturating_add(self.length)
    }
}

/// `FIEMAP_EXTENT_LAST`.
const EXTENT_LAST: u32 = 1;
/// The physical offset is not that of the data: unknown, delayed allocation, encoded, inline.
const EXTENT_UNLOCATED: u32 = 0x2 | 0x4 | 0x8 | 0x200;

/// `struct fiemap` and the extents that follow it.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; RECORDS],
}

/// The part of a file whose extents are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The data.
    Data,
    /// The extended attributes: `FIEMAP_FLAG_XATTR`.
    Attributes,
}

/// Calls `see` with each extent of a file that is on the device of its file system, in order.
///
/// # Errors
///
/// `EOPNOTSUPP` or `ENOTTY` if the file system does not support it, `EBADR` if it does not for
/// [`Fork::Attributes`].
pub fn of_file(file: impl AsFd, fork: Fork, mut see: impl FnMut(&Extent)) -> io::Result<()> {
    match by_fiemap(&file, fork, 0..u64::MAX, &mut see) {
        // XFS does not support FIEMAP for directories.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            by_getbmapx(&file, fork, &mut see)
        }
        done => done,
    }
}

/// Calls `see` with each extent of the data of a regular file that overlaps `range`, in bytes of the file, in order.
///
/// # Errors
///
/// `EOPNOTSUPP` or `ENOTTY` if the file system does not support it.
pub fn of_range(file: impl AsFd, range: Range<u64>, see: impl FnMut(&Extent)) -> io::Result<()> {
    by_fiemap(file, Fork::Data, range, see)
}

/// `struct getbmapx`, in sectors of 512 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Getbmapx {
    offset: i64,
    block: i64,
    length: i64,
    count: i32,
    entries: i32,
    iflags: i32,
    oflags: i32,
    unused: [i32; 2],
}

/// Lists the extents by GETBMAPX, which XFS supports for all inodes that can be opened.
fn by_getbmapx(file: impl AsFd, fork: Fork, mut see: impl FnMut(&Extent)) -> io::Result<()> {
    /// `BMV_IF_ATTRFORK`.
    const ATTRIBUTES: i32 = 1;
    /// `BMV_OF_LAST`.
    const LAST: i32 = 4;
    /// `BMV_OF_SHARED`.
    const SHARED: i32 = 8;
    let mut offset = 0;
    loop {
        let mut map = [Getbmapx::default(); RECORDS + 1];
        map[0] = Getbmapx {
            offset,
            length: -1,
            count: map.len() as i32,
            iflags: if fork == Fork::Attributes {
                ATTRIBUTES
            } else {
                0
            },
            ..Getbmapx::default()
        };
        // SAFETY: XFS_IOC_GETBMAPX reads the first of an array of `struct getbmapx` and writes at most
        // `count` of them, which is the length of `map`; other file systems fail without a write.
        unsafe { ioctl(&file, Updater::<GETBMAPX, _>::new(&mut map))? };
        let found = &map[1..=RECORDS.min(usize::try_from(map[0].entries).unwrap_or(0))];
        let bytes = |sectors: i64| u64::try_from(sectors).ok()?.checked_mul(512);
        for record in found {
            // Holes and delayed allocations have negative block numbers.
            if let (Some(logical), Some(physical), Some(length)) = (
                bytes(record.offset),
                bytes(record.block),
                bytes(record.length),
            ) {
                see(&Extent {
                    logical,
                    physical,
                    length,
                    flags: if record.oflags & SHARED != 0 {
                        Extent::SHARED
                    } else {
                        0
                    },
                    ..Extent::default()
                });
            }
        }
        match found.last() {
            Some(last) if last.oflags & LAST == 0 && found.len() == RECORDS => {
                offset = last.offset.saturating_add(last.length);
            }
            _ => return Ok(()),
        }
    }
}

/// Geometry of an XFS (the start of `struct xfs_fsop_geom`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct XfsGeometry {
    /// Block size in bytes.
    pub block_size: u32,
    realtime_extent: u32,
    /// Blocks per allocation group; the last one may have fewer.
    pub group_blocks: u32,
    /// Number of allocation groups.
    pub groups: u32,
    /// Size of the log in blocks.
    pub log_blocks: u32,
    /// Sector size in bytes.
    pub sector_size: u32,
    inode_size: u32,
    inode_percent: u32,
    data_blocks: u64,
    realtime_blocks: u64,
    realtime_extents: u64,
    /// First block of the log, as an XFS block number; 0 if the log is on another device.
    pub log_start: u64,
    others: [u64; 8],
    /// First block of a real-time section on the same device; 0 if there is none, or the kernel knows of none.
    realtime_start: u64,
    rest: [u64; 15],
}

impl XfsGeometry {
    /// Returns the number of the data device in `FS_IOC_GETFSMAP`: with a real-time section on the same device, the
    /// sections are numbered (`xfs_getfsmap_device`).
    fn fsmap_device(&self, device: u32) -> u32 {
        /// `XFS_DEV_DATA` of xfs_fs.h.
        const DATA: u32 = 1;
        match self.realtime_start {
            0 => device,
            _ => DATA,
        }
    }
}

/// Returns the number by which [`of_device`] and its records know the device of a mounted file system.
pub fn fsmap_device(file: impl AsFd, device: u32) -> u32 {
    match xfs_geometry(file) {
        Ok(geometry) => geometry.fsmap_device(device),
        Err(_) => device,
    }
}

/// Returns the geometry of the XFS that a file is on; `ENOTTY` on another file system.
pub fn xfs_geometry(file: impl AsFd) -> io::Result<XfsGeometry> {
    // SAFETY: XFS_IOC_FSGEOMETRY writes a `struct xfs_fsop_geom` of 256 bytes, the size of
    // `XfsGeometry`, whose fields are integers and valid for any bytes.
    Ok(unsafe { ioctl(file, Getter::<FSGEOMETRY, XfsGeometry>::new())? })
}

fn by_fiemap(
    file: impl AsFd,
    fork: Fork,
    range: Range<u64>,
    mut see: impl FnMut(&Extent),
) -> io::Result<()> {
    let mut start = range.start;
    while start < range.end {
        let mut map = Fiemap {
            start,
            length: range.end - start,
            flags: if fork == Fork::Attributes { 2 } else { 0 },
            mapped: 0,
            count: RECORDS as u32,
            reserved: 0,
            extents: [Extent::default(); RECORDS],
        };
        // SAFETY: FS_IOC_FIEMAP reads and writes a `struct fiemap` and at most `count` extents behind
        // it, which is the length of `extents`; other file systems fail without a write.
        unsafe { ioctl(&file, Updater::<FIEMAP, Fiemap>::new(&mut map))? };
        let found = &map.extents[..RECORDS.min(map.mapped as usize)];
        for extent in found {
            if extent.flags & EXTENT_UNLOCATED == 0 {
                see(extent);
            }
        }
        match found.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 => {
                start = last.logical.saturating_add(last.length);
            }
            _ => break,
        }
    }
    Ok(())
}

/// Whether the data of a file is on the real-time device of its XFS, and not on the data device.
pub fn is_real_time(file: impl AsFd) -> io::Result<bool> {
    Ok(xattr::flags(file)? & xattr::REAL_TIME != 0)
}

/// `FICLONERANGE` of linux/fs.h: `_IOW(0x94, 13, struct file_clone_range)`.
const CLONE_RANGE: Opcode = 0x4020_940d;

/// Replaces `length` bytes of `to` at `at` by the first ones of `from`, whose blocks both files then
/// share. Whole blocks; atomic.
///
/// # Errors
///
/// `EOPNOTSUPP` if the file system does not support shared blocks.
pub fn clone_range(from: impl AsFd, length: u64, to: impl AsFd, at: u64) -> io::Result<()> {
    let number = u64::try_from(from.as_fd().as_raw_fd());
    let range = [
        number.map_err(|_| io::ErrorKind::InvalidInput)?,
        0,
        length,
        at,
    ];
    // SAFETY: FICLONERANGE only reads a `struct file_clone_range`, four 64-bit numbers, which `Setter`
    // passes by address; the kernel validates the descriptor and the ranges.
    unsafe { ioctl(to, Setter::<CLONE_RANGE, [u64; 4]>::new(range))? };
    Ok(())
}

/// An extent of a file system's device and its owner (`struct fsmap`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// Device number, encoded like the result of `makedev(3)`.
    pub device: u32,
    /// `FMR_OF_…`.
    pub flags: u32,
    /// Offset on the device, in bytes.
    pub physical: u64,
    /// Inode number, or `FMR_OWN_…` if `flags` has `FMR_OF_SPECIAL_OWNER`.
    pub owner: u64,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    reserved: [u64; 3],
}

/// `struct fsmap_head` and the records that follow it.
#[repr(C)]
struct Fsmap {
    iflags: u32,
    oflags: u32,
    count: u32,
    entries: u32,
    reserved: [u64; 6],
    keys: [Record; 2],
    records: [Record; RECORDS],
}

/// Calls `see` with each extent in `range` of a device, in order, according to the file system that
/// `file` is on. Extents of several owners may overlap.
///
/// # Errors
///
/// `ENOTTY` or `EOPNOTSUPP` if the file system does not support it.
pub fn of_device(
    file: impl AsFd,
    device: u32,
    range: &Range<u64>,
    mut see: impl FnMut(&Record),
) -> io::Result<()> {
    /// `FMR_OF_LAST`.
    const LAST: u32 = 0x20;
    let mut low = Record {
        device,
        physical: range.start,
        ..Record::default()
    };
    loop {
        let mut map = Fsmap {
            iflags: 0,
            oflags: 0,
            count: RECORDS as u32,
            entries: 0,
            reserved: [0; 6],
            keys: [
                low,
                Record {
                    device,
                    flags: u32::MAX,
                    physical: range.end.saturating_sub(1),
                    owner: u64::MAX,
                    offset: u64::MAX,
                    ..Record::default()
                },
            ],
            records: [Record::default(); RECORDS],
        };
        // SAFETY: FS_IOC_GETFSMAP reads and writes a `struct fsmap_head` and at most `count` records
        // behind it, which is the length of `records`; other file systems fail without a write.
        unsafe { ioctl(&file, Updater::<GETFSMAP, Fsmap>::new(&mut map))? };
        let found = &map.records[..RECORDS.min(map.entries as usize)];
        found.iter().for_each(&mut see);
        match found.last() {
            // The next call starts at the last record: "for a subsequent call", linux/fsmap.h.
            Some(last) if last.flags & LAST == 0 && found.len() == RECORDS => low = *last,
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::mem::{offset_of, size_of};

    #[test]
    fn layouts_match_the_kernel() {
        assert_eq!(size_of::<Extent>(), 56);
        assert_eq!(offset_of!(Extent, flags), 40);
        assert_eq!(offset_of!(Fiemap, extents), 32);
        assert_eq!(size_of::<Record>(), 64);
        assert_eq!(size_of::<Getbmapx>(), 48);
        assert_eq!(size_of::<XfsGeometry>(), 256);
        assert_eq!(offset_of!(XfsGeometry, log_start), 56);
        assert_eq!(offset_of!(XfsGeometry, realtime_start), 128);
        assert_eq!(offset_of!(Fsmap, keys), 64);
        assert_eq!(offset_of!(Fsmap, records), 192);
    }

    #[test]
    fn data_device_is_a_section_beside_an_internal_real_time_section() {
        let mut geometry = XfsGeometry {
            block_size: 4096,
            realtime_extent: 1,
            group_blocks: 1 << 16,
            groups: 4,
            log_blocks: 0,
            sector_size: 512,
            inode_size: 512,
            inode_percent: 25,
            data_blocks: 1 << 18,
            realtime_blocks: 1 << 18,
            realtime_extents: 1 << 18,
            log_start: 0,
            others: [0; 8],
            realtime_start: 0,
            rest: [0; 15],
        };
        assert_eq!(geometry.fsmap_device(0x10300), 0x10300);
        geometry.realtime_start = 1 << 18;
        assert_eq!(geometry.fsmap_device(0x10300), 1);
    }

    #[test]
    fn procfs_reports_no_extents() {
        let file = File::open("/proc/self/status").unwrap();
        assert!(of_file(&file, Fork::Data, |_| ()).is_err());
        assert!(by_getbmapx(&file, Fork::Data, |_| ()).is_err());
        assert!(xfs_geometry(&file).is_err());
        assert!(of_device(&file, 0, &(0..4096), |_| ()).is_err());
        assert_eq!(fsmap_device(&file, 7), 7);
    }
}
