// SPDX-License-Identifier: GPL-2.0

//! Tables of mounts (proc_pid_mountinfo(5)).

use crate::block::devno::DeviceNumber;
use crate::sysfs::{self, Host, printable, unescape};
use rustix::fs::{AtFlags, StatxFlags, statx};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// A mount: a line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// No other mount has it at the same time.
    pub id: u64,
    /// The block device, or an anonymous one (btrfs).
    pub device: DeviceNumber,
    /// The directory of the file system that is seen there: `/` where it is seen as a whole.
    pub root: OsString,
    pub directory: OsString,
    /// `ext4`, `xfs`, `fuse.sshfs`, as [`printable`] has it: users name FUSE file systems.
    pub file_system: String,
    pub source: PathBuf,
    /// Those of the file system, as they are in the table.
    options: Vec<u8>,
}

impl MountInfo {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ');
        let text = |word| std::str::from_utf8(word).ok();
        let id = text(words.next()?)?.parse().ok()?;
        let device = text(words.nth(1)?)?.parse().ok()?;
        let root = unescape(words.next()?);
        let directory = unescape(words.next()?);
        // Any number of optional fields, to a hyphen.
        words.find(|word| *word == b"-")?;
        Some(Self {
            id,
            device,
            root,
            directory,
            file_system: printable(unescape(words.next()?)),
            source: unescape(words.next()?).into(),
            options: words.next().unwrap_or_default().to_owned(),
        })
    }

    /// Returns whether the file system is seen as a whole.
    pub fn is_whole(&self) -> bool {
        self.root == "/"
    }

    /// The options of the file system, for texts.
    pub fn options(&self) -> String {
        String::from_utf8_lossy(&self.options).into_owned()
    }

    /// Returns the path that an option names: `logdev`, `rtdev`.
    pub fn device_option(&self, name: &str) -> Option<PathBuf> {
        let mut options = self.options.split(|&byte| byte == b',');
        let value = options.find_map(|option| {
            option
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=".as_slice())
        })?;
        Some(unescape(value).into())
    }
}

/// Returns the mounts that this process sees.
pub fn own(host: &Host) -> io::Result<Vec<MountInfo>> {
    let lines = sysfs::lines(host.path("proc/self/mountinfo"))?;
    lines
        .filter_map(|line| line.map(|line| MountInfo::parse(&line)).transpose())
        .collect()
}

/// Returns the mounts that a process sees, as far as they can be read; `process` is its id, or `self`.
pub fn of_process(host: &Host, process: &str) -> impl Iterator<Item = MountInfo> + use<> {
    let lines = sysfs::lines(host.path(format!("proc/{process}/mountinfo")));
    let lines = lines.into_iter().flatten().flatten();
    lines.filter_map(|line| MountInfo::parse(&line))
}

/// Returns the mounts in a table.
#[cfg(test)]
pub fn parse(table: &[u8]) -> Vec<MountInfo> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(MountInfo::parse)
        .collect()
}

/// Returns the id of the mount that a directory was opened on. Asks no server.
pub fn id_of(directory: &File) -> io::Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = statx(directory, "", flags, StatxFlags::MNT_ID)?;
    Ok(status.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn mount(line: &str) -> Option<MountInfo> {
        MountInfo::parse(line.as_bytes())
    }

    #[test]
    fn mountinfo_line_parses() {
        let plain = mount(
            "36 35 259:3 / /mnt/a\\040b rw,noatime master:1 shared:2 - ext4 /dev/pmem0p1 rw,dax=always",
        );
        let plain = plain.unwrap();
        assert_eq!((plain.id, plain.device.to_string().as_str()), (36, "259:3"));
        assert!(plain.is_whole());
        assert_eq!(plain.directory, "/mnt/a b");
        assert_eq!(plain.file_system, "ext4");
        assert_eq!(plain.source, Path::new("/dev/pmem0p1"));
        assert_eq!(plain.options(), "rw,dax=always");
        assert_eq!(plain.device_option("logdev"), None);

        let log = mount(
            "41 28 253:0 /sub /data rw - xfs /dev/dm-0 rw,logdev=/dev/a\\040b,rtdev=/dev/pmem1",
        )
        .unwrap();
        assert!(!log.is_whole());
        let option = |name| log.device_option(name).unwrap();
        assert_eq!(option("logdev"), Path::new("/dev/a b"));
        assert_eq!(option("rtdev"), Path::new("/dev/pmem1"));

        let named = mount("37 28 0:40 / /f rw - fuse.\x1b[2J\\012 x rw").unwrap();
        assert_eq!(named.file_system, r"fuse.\u{1b}[2J\n");

        let bare = mount("22 1 0:21 / / rw - tmpfs none rw").unwrap();
        assert_eq!(bare.directory, "/");
        for line in [
            "",
            "36",
            "36 35 259:3 / /mnt rw",
            "36 35 nonsense / /mnt rw - ext4 /dev/pmem0 rw",
            "36 35 1:2 / /mnt rw -",
        ] {
            assert_eq!(mount(line), None, "{line}");
        }
    }
}
