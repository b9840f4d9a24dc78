// SPDX-License-Identifier: GPL-2.0

//! What a file shall be, by its own flags.

use rustix::ioctl::{Getter, Opcode, ioctl};
use std::io;
use std::os::fd::AsFd;

/// `FS_IOC_FSGETXATTR` of linux/fs.h: `_IOR('X', 31, struct fsxattr)`.
const FSGETXATTR: Opcode = 0x801c_581f;

/// `FS_XFLAG_REALTIME`: the data of the file is on the real-time device (XFS).
pub const REAL_TIME: u32 = 0x1;

/// `FS_XFLAG_DAX`: the file shall be accessed directly where its mount leaves that to files.
pub const DAX: u32 = 0x8000;

/// `struct fsxattr`.
#[repr(C)]
struct Fsxattr {
    xflags: u32,
    rest: [u32; 6],
}

/// The flags `FS_XFLAG_…` of a file or directory; `ENOTTY` or `EOPNOTSUPP` where the file system has none.
pub fn flags(file: impl AsFd) -> io::Result<u32> {
    // SAFETY: FS_IOC_FSGETXATTR writes a `struct fsxattr`, which is what `Getter` has room for; files
    // that do not know it leave it as it is, and fail.
    let found = unsafe { ioctl(file, Getter::<FSGETXATTR, Fsxattr>::new())? };
    Ok(found.xflags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(size_of::<Fsxattr>(), 28);
    }

    #[test]
    fn a_file_that_has_none() {
        assert!(flags(File::open("/proc/self/status").unwrap()).is_err());
    }
}
