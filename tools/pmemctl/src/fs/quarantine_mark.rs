// SPDX-License-Identifier: GPL-2.0

//! The mark of a quarantine file: an extended attribute, which only root can set.

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, lgetxattr};
use rustix::io;
use std::os::fd::AsFd;
use std::path::Path;

const MARK: &str = "trusted.pmemctl.quarantine";

/// Marks a file, so that no other file of its name is changed.
pub fn set(file: impl AsFd) -> io::Result<()> {
    fsetxattr(file, MARK, b"1", XattrFlags::empty())
}

/// Returns whether a file has the mark.
pub fn is_on(file: impl AsFd) -> bool {
    fgetxattr(file, MARK, &mut [0; 8]).is_ok_and(|length| length > 0)
}

/// Returns the same for a path; a symbolic link has none.
pub fn is_on_path(path: &Path) -> bool {
    lgetxattr(path, MARK, &mut [0; 8]).is_ok_and(|length| length > 0)
}
