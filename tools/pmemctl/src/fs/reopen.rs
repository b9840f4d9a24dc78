// SPDX-License-Identifier: GPL-2.0

//! Refers to files without opening them, to open them after a look at them.
//!
//! The open of a device has side effects: that of a watchdog arms it. The open of a FIFO, or of a file of a FUSE server, may
//! wait for ever.

use crate::block::devno::DeviceNumber;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, makedev, openat2, statx,
};
use rustix::io;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// Refers to the file at a path, without an effect on it.
pub(crate) fn refer(path: &Path, resolve: ResolveFlags) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), resolve).map(File::from)
}

/// Returns the name by which the file can be opened.
pub(crate) fn again(handle: &File) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

/// Returns the status of a file, as far as it is known without asking a server.
pub(crate) fn status(file: impl AsFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(file, "", flags, StatxFlags::INO | StatxFlags::NLINK)
}

/// Returns the device of the file system of a file with this status.
pub(crate) fn device_of(status: &Statx) -> DeviceNumber {
    DeviceNumber::from_rdev(makedev(status.stx_dev_major, status.stx_dev_minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Opens;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn file_that_is_referred_to_is_not_opened() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Some(opens) = Opens::of(file.path()) else {
            return;
        };
        let handle = refer(file.path(), ResolveFlags::empty()).unwrap();
        let device = file.as_file().metadata().unwrap().dev();
        let found = device_of(&status(&handle).unwrap());
        assert_eq!(found, DeviceNumber::from_rdev(device));
        assert!(!opens.any());
        File::open(again(&handle)).unwrap();
        assert!(opens.any());
    }
}
