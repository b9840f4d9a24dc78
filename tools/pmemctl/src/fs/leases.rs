// SPDX-License-Identifier: GPL-2.0

//! The leases and delegations on files, from `/proc/locks` (proc_locks(5)).
//!
//! An open for reading breaks a write lease, `O_NONBLOCK` or not: that of Samba (oplocks), of the NFS server
//! (delegations) and of `pmemctl lease --exclusive`. A query of extents needs an open file, so that files with one are
//! better left alone.

use crate::block::devno::DeviceNumber;
use crate::sysfs::{self, Host};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long what was read is taken for current: this, or this many times what reading took, because users can take many
/// locks, and others wait for the kernel to list them.
const CURRENT: Duration = Duration::from_millis(100);
const TIMES: u32 = 20;

/// The files with leases that an open for reading breaks.
#[derive(Debug)]
pub(crate) struct Leases {
    file: PathBuf,
    /// When they are read again.
    old: Instant,
    write: BTreeSet<(DeviceNumber, u64)>,
}

impl Leases {
    pub(crate) fn read(host: &Host) -> Self {
        let mut leases = Self {
            file: host.path("proc/locks"),
            old: Instant::now(),
            write: BTreeSet::new(),
        };
        leases.read_again();
        leases
    }

    fn read_again(&mut self) {
        let start = Instant::now();
        let lines = sysfs::lines(&self.file).into_iter().flatten().flatten();
        self.write = lines.filter_map(|line| parse(&line)).collect();
        self.old = Instant::now() + CURRENT.max(start.elapsed() * TIMES);
    }

    /// Reads them again if what was read is old. A lease that is taken between this and an open is broken.
    pub(crate) fn refresh(&mut self) {
        if Instant::now() > self.old {
            self.read_again();
        }
    }

    /// Returns whether an open for reading would break a lease.
    pub(crate) fn has_write(&self, device: DeviceNumber, inode: u64) -> bool {
        self.write.contains(&(device, inode))
    }
}

/// Parses a line such as `7: LEASE  ACTIVE    WRITE 812 103:01:4711 0 EOF`. A lease that is being broken has the type
/// that it is broken to.
fn parse(line: &[u8]) -> Option<(DeviceNumber, u64)> {
    let words: Vec<_> = std::str::from_utf8(line).ok()?.split_whitespace().collect();
    let [_, "LEASE" | "DELEG", _, "WRITE", _, file, ..] = words[..] else {
        return None;
    };
    let (device, inode) = file.rsplit_once(':')?;
    let (major, minor) = device.split_once(':')?;
    let hex = |digits| u32::from_str_radix(digits, 16).ok();
    let device = format!("{}:{}", hex(major)?, hex(minor)?).parse().ok()?;
    Some((device, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_leases_are_parsed() {
        let text = "1: POSIX  ADVISORY  WRITE 812 103:01:1 0 EOF\n\
            2: LEASE  ACTIVE    WRITE 812 103:01:2 0 EOF\n\
            3: LEASE  ACTIVE    READ 812 103:01:3 0 EOF\n\
            4: LEASE  BREAKING  UNLCK 812 103:01:4 0 EOF\n\
            5: DELEG  ACTIVE    WRITE 9 103:1a:5 0 EOF\n\
            5: -> FLOCK  ADVISORY  WRITE 9 103:1a:6 0 EOF\n";
        let device = |number: &str| number.parse::<DeviceNumber>().unwrap();
        let lines = text.lines().map(str::as_bytes);
        let found: Vec<_> = lines.filter_map(parse).collect();
        assert_eq!(found, [(device("259:1"), 2), (device("259:26"), 5)]);
    }

    #[test]
    fn lease_of_this_process_is_seen() {
        use abstractions::lease::Lease;
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let device = DeviceNumber::from_rdev(metadata.dev());
        let seen = || Leases::read(&Host::here()).has_write(device, metadata.ino());
        assert!(!seen());
        Lease::Write.take(file.as_file()).unwrap();
        assert!(seen());
    }
}
