// SPDX-License-Identifier: GPL-2.0

//! Refers to files without opening them, to open them after a look at them.
//!
//! The open of a device has side effects: that of a watchdog arms it. The open of a FIFO, or of a file of a FUSE server, may
//! wait for ever.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io;
use std::fs::File;
use std::os::fd::AsRawFd;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Opens;

    #[test]
    fn file_that_is_referred_to_is_not_opened() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Some(opens) = Opens::of(file.path()) else {
            return;
        };
        let handle = refer(file.path(), ResolveFlags::empty()).unwrap();
        assert!(!opens.any());
        File::open(again(&handle)).unwrap();
        assert!(opens.any());
    }
}
