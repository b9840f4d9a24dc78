// SPDX-License-Identifier: GPL-2.0

//! Extended attribute flags of files (`FS_XFLAG_…`).

use rustix::ioctl::{Getter, Opcode, ioctl};
use std::io;
use std::os::fd::AsFd;

/// `FS_IOC_FSGETXATTR` of linux/fs.h: `_IOR('X', 31, struct fsxattr)`.
const FSGETXATTR: Opcode = 0x801c_581f;

/// `FS_XFLAG_REALTIME`: the data of the file is on the real-time device (XFS).
pub const REAL_TIME: u32 = 0x1;

/// `FS_XFLAG_DAX`: use DAX for the file if it is mounted with `dax=inode`.
pub const DAX: u32 = 0x8000;

/// `struct fsxattr`.
#[repr(C)]
struct Fsxattr {
    xflags: u32,
    rest: [u32; 6],
}

/// Returns the flags of a file or directory; `ENOTTY` or `EOPNOTSUPP` if the file system has none.
pub fn flags(file: impl AsFd) -> io::Result<u32> {
    // SAFETY: FS_IOC_FSGETXATTR writes a `struct fsxattr`, for which `Getter` has room; other file
    // systems fail without a write.
    let found = unsafe { ioctl(file, Getter::<FSGETXATTR, Fsxattr>::new())? };
    Ok(found.xflags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn layout_matches_the_kernel() {
        assert_eq!(size_of::<Fsxattr>(), 28);
    }

    #[test]
    fn procfs_has_no_flags() {
        assert!(flags(File::open("/proc/self/status").unwrap()).is_err());
    }
}
