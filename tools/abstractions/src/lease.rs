// SPDX-License-Identifier: GPL-2.0

//! Leases on files: fcntl(2), "Leases".
//!
//! An open or truncate that conflicts with a lease waits until the lease is released, at most
//! `/proc/sys/fs/lease-break-time` seconds. The process that holds the lease gets SIGIO, which
//! terminates it unless it is handled.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// The kind of a lease, by what conflicts with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// `F_RDLCK`: an open for writing, and truncation. Can't be taken if the file is open for writing.
    Read,
    /// `F_WRLCK`: any open. Can't be taken if the file is open elsewhere.
    Write,
}

fn control(file: impl AsFd, command: c_int, argument: c_int) -> io::Result<c_int> {
    // SAFETY: F_SETLEASE takes an integer and F_GETLEASE no argument; neither accesses user memory.
    let answer = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, argument) };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

impl Lease {
    /// Takes the lease, which is released when all duplicates of the descriptor `file` are closed.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the file is open in a way that conflicts, `EACCES` if the caller neither owns the
    /// file nor has `CAP_LEASE`, `EINVAL` if the file system does not support leases.
    pub fn take(self, file: impl AsFd) -> io::Result<()> {
        let kind = match self {
            Self::Read => libc::F_RDLCK,
            Self::Write => libc::F_WRLCK,
        };
        control(file, libc::F_SETLEASE, kind).map(drop)
    }

    /// Returns the lease held on `file`; none, or a weaker one, while an open or truncate waits for it.
    pub fn held(file: impl AsFd) -> io::Result<Option<Self>> {
        Ok(match control(file, libc::F_GETLEASE, 0)? {
            libc::F_RDLCK => Some(Self::Read),
            libc::F_WRLCK => Some(Self::Write),
            _ => None,
        })
    }

    /// Returns whether nobody has opened or truncated `file` since `then`, when its write lease was held: it is held still, or
    /// others have waited for less than half of the time that they have to.
    pub fn has_kept_others_out(file: impl AsFd, then: Instant) -> io::Result<bool> {
        Ok(Self::held(file)? == Some(Self::Write) || then.elapsed() < break_time() / 2)
    }
}

/// The time that an open waits for a lease; none if it is unknown, or has no end.
fn break_time() -> Duration {
    let seconds = fs::read_to_string("/proc/sys/fs/lease-break-time").unwrap_or_default();
    Duration::from_secs(seconds.trim().parse().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    /// A process that another test forks has our descriptors until it executes its program. So the file is opened once here,
    /// and the other time by a process of its own.
    #[test]
    fn write_lease_conflicts_with_an_open_file() {
        let path = std::env::temp_dir().join(format!("lease-{}", std::process::id()));
        let mut file = File::create_new(&path).unwrap();
        file.write_all(b"x").unwrap();
        let mut other = Command::new("tail")
            .arg("-f")
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = other.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        assert_eq!(Lease::held(&file).unwrap(), None);
        let refused = Lease::Write.take(&file).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        other.kill().unwrap();
        other.wait().unwrap();
        Lease::Write.take(&file).unwrap();
        assert_eq!(Lease::held(&file).unwrap(), Some(Lease::Write));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn open_that_waits_for_a_lease_is_kept_out_for_a_time() {
        let path = std::env::temp_dir().join(format!("kept-out-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(9));
        Lease::Write.take(&file).unwrap();
        let then = Instant::now();
        assert!(Lease::has_kept_others_out(&file, long_ago.unwrap()).unwrap());
        /// asm-generic/fcntl.h
        const F_SETSIG: c_int = 10;
        // SIGIO would end this process.
        control(&file, F_SETSIG, libc::SIGURG).unwrap();
        let mut waits = Command::new("cat").arg(&path).spawn().unwrap();
        while Lease::held(&file).unwrap() == Some(Lease::Write) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(Lease::has_kept_others_out(&file, then).unwrap());
        assert!(!Lease::has_kept_others_out(&file, then - break_time()).unwrap());
        assert!(waits.try_wait().unwrap().is_none());
        drop(file);
        assert!(waits.wait().unwrap().success());
        fs::remove_file(&path).unwrap();
    }
}
