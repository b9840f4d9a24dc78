// SPDX-License-Identifier: GPL-2.0

//! The leases and delegations on files, from `/proc/locks` (proc_locks(5)).
//!
//! An open for reading breaks a write lease, `O_NONBLOCK` or not: that of Samba (oplocks), of the NFS server
//! (delegations) and of `pmemctl lease --exclusive`. A query of extents needs an open file, so that files with one are
//! better left alone.

use crate::block::devno::DeviceNumber;
use crate::sysfs::Host;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long what was read is taken for current.
const CURRENT: Duration = Duration::from_millis(100);

/// The files with leases that an open for reading breaks.
#[derive(Debug)]
pub(crate) struct Leases {
    file: PathBuf,
    read: Instant,
    write: BTreeSet<(DeviceNumber, u64)>,
}

impl Leases {
    pub(crate) fn read(host: &Host) -> Self {
        let file = host.path("proc/locks");
        Self {
            read: Instant::now(),
            write: parse(&fs::read_to_string(&file).unwrap_or_default()),
            file,
        }
    }

    /// Reads them again if what was read is old. A lease that is taken between this and an open is broken.
    pub(crate) fn refresh(&mut self) {
        if self.read.elapsed() > CURRENT {
            self.read = Instant::now();
            self.write = parse(&fs::read_to_string(&self.file).unwrap_or_default());
        }
    }

    /// Returns whether an open for reading would break a lease.
    pub(crate) fn has_write(&self, device: DeviceNumber, inode: u64) -> bool {
        self.write.contains(&(device, inode))
    }
}

/// Parses lines such as `7: LEASE  ACTIVE    WRITE 812 103:01:4711 0 EOF`. A lease that is being broken has the type
/// that it is broken to.
fn parse(text: &str) -> BTreeSet<(DeviceNumber, u64)> {
    let one = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "LEASE" | "DELEG", _, "WRITE", _, file, ..] = words[..] else {
            return None;
        };
        let (device, inode) = file.rsplit_once(':')?;
        let (major, minor) = device.split_once(':')?;
        let hex = |digits| u32::from_str_radix(digits, 16).ok();
        let device = format!("{}:{}", hex(major)?, hex(minor)?).parse().ok()?;
        Some((device, inode.parse().ok()?))
    };
    text.lines().filter_map(one).collect()
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
        let found: Vec<_> = parse(text).into_iter().collect();
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
