// SPDX-License-Identifier: GPL-2.0

//! Leases on files: fcntl(2), "Leases".
//!
//! Who opens or truncates the file in a way that conflicts with the lease waits until it is given
//! back, no longer than `/proc/sys/fs/lease-break-time`; the process that took it gets SIGIO, which
//! kills it unless it is caught.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What a lease is against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// Against who opens the file for writing, or truncates it: `F_RDLCK`. Nobody may have it open for
    /// writing.
    Read,
    /// Against who opens it at all: `F_WRLCK`. Nobody else may have it open.
    Write,
}

fn control(file: impl AsFd, command: c_int, argument: c_int) -> io::Result<c_int> {
    // SAFETY: F_SETLEASE takes an integer and F_GETLEASE nothing; neither touches memory.
    let answer = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, argument) };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

impl Lease {
    /// Takes it; it is given back when all descriptors that `file` was duplicated to are closed.
    ///
    /// `EAGAIN` where somebody has the file open, `EACCES` of who neither owns it nor has `CAP_LEASE`,
    /// `EINVAL` of a file system that has none.
    pub fn take(self, file: impl AsFd) -> io::Result<()> {
        let kind = match self {
            Self::Read => libc::F_RDLCK,
            Self::Write => libc::F_WRLCK,
        };
        control(file, libc::F_SETLEASE, kind).map(drop)
    }

    /// The one that is held on `file`; none, or a lesser one, once somebody waits for it.
    pub fn held(file: impl AsFd) -> io::Result<Option<Self>> {
        Ok(match control(file, libc::F_GETLEASE, 0)? {
            libc::F_RDLCK => Some(Self::Read),
            libc::F_WRLCK => Some(Self::Write),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};

    #[test]
    fn nobody_else_may_have_it_open() {
        let path = std::env::temp_dir().join(format!("lease-{}", std::process::id()));
        std::fs::write(&path, "x").unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let other = File::open(&path).unwrap();
        assert_eq!(Lease::held(&file).unwrap(), None);
        let refused = Lease::Write.take(&file).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        drop(other);
        Lease::Write.take(&file).unwrap();
        assert_eq!(Lease::held(&file).unwrap(), Some(Lease::Write));
        std::fs::remove_file(&path).unwrap();
    }
}
