// SPDX-License-Identifier: GPL-2.0

//! Finds the owners of blocks on an unmounted file system with e2fsprogs or xfsprogs.
//!
//! Nothing is written, and the device is not claimed, so that it can be mounted at any time: an answer about a file
//! system that was in use, or changed, is discarded.

use crate::block::devno::DeviceNumber;
use crate::block::holders;
use crate::block::remap::Spans;
use crate::block::topology::Volume;
use crate::fs::{OwnersFound, ext4, xfs};
use crate::sysfs::{self, Host};
use abstractions::sandbox;
use anyhow::{Context, Result};
use rustix::fs::{Advice, FlockOperation, fadvise, flock};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Finds the owners of `spans` of a volume.
pub fn owners(host: &Host, volume: &Volume, spans: &Spans, all_links: bool) -> Result<OwnersFound> {
    let kind = volume.file_system.as_deref().unwrap_or_default();
    let look = match kind {
        "ext2" | "ext3" | "ext4" => ext4::owners,
        "xfs" => xfs::owners,
        _ => return Ok(OwnersFound::nothing(unsupported(kind))),
    };
    let unused = match Unused::check(host, volume)? {
        Ok(unused) => unused,
        Err(reason) => return Ok(OwnersFound::nothing(reason)),
    };
    let node = unused.node.to_str().context("the name of its device")?;
    let found = look(node, spans, all_links);
    // First, because a change may be the cause of an error.
    if let Some(reason) = unused.has_changed()? {
        return Ok(OwnersFound::nothing(reason));
    }
    found.with_context(|| volume.name.clone())
}

/// A device that nothing wrote to when it was checked.
#[derive(Debug)]
pub(crate) struct Unused {
    host: Host,
    name: String,
    number: DeviceNumber,
    pub(crate) node: PathBuf,
    state: State,
}

/// The state that a mount or a write changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// The first page of the device, which has the superblock; `None` if it cannot be read.
    superblock: Option<Vec<u8>>,
    /// The sectors written, if the kernel counts them. Not the writes: an fsync(2) of a program that writes nothing
    /// counts as one.
    written: Option<String>,
    /// The number that no other disk has.
    sequence: Option<u64>,
}

impl Unused {
    /// Checks a volume, or returns why it must not be read.
    pub(crate) fn check(host: &Host, volume: &Volume) -> Result<std::result::Result<Self, String>> {
        let name = &volume.kernel_name;
        let number = volume.number()?;
        let node = host.path("dev").join(name);
        let state = match state(host, name, number, &node)? {
            Ok(state) => state,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(Ok(Self {
            host: host.clone(),
            name: name.clone(),
            number,
            node,
            state,
        }))
    }

    /// Returns a reason if the device is in use now, or was written since the check.
    pub(crate) fn has_changed(&self) -> Result<Option<String>> {
        let now = state(&self.host, &self.name, self.number, &self.node)?;
        let same = now.is_ok_and(|now| now == self.state);
        Ok((!same).then(|| "it was mounted or written during the search; try again".to_owned()))
    }
}

/// Reads the state of a device, or returns why it must not be read.
fn state(
    host: &Host,
    name: &str,
    number: DeviceNumber,
    node: &Path,
) -> Result<std::result::Result<State, String>> {
    let file = match sandbox::open_read_only(node) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Err(
                "it is not mounted, and only root can read it".to_owned()
            ));
        }
        Err(error) => return Err(error).with_context(|| node.display().to_string()),
    };
    // A program that partitions or formats a device locks it: https://systemd.io/BLOCK_DEVICE_LOCKING. The lock is only
    // tried, because one that is held for the search would keep such a program waiting.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Ok(Err(
                "device is busy: a program has locked it, to partition or format it".to_owned(),
            ));
        }
        Err(_) => {}
        // Not by closing it: a process that another thread has just forked has the descriptor as well, until it executes
        // its program.
        Ok(()) => flock(&file, FlockOperation::Unlock)?,
    }
    if let Some(holder) = holders::writers(host, name, number).first() {
        return Ok(Err(format!("device is busy: {holder}")));
    }
    let folder = host.path("sys/class/block").join(name);
    Ok(Ok(State {
        superblock: first_page(&file).ok(),
        written: sysfs::line(folder.join("stat")).and_then(|line| written(&line)),
        sequence: sysfs::number(folder.join("diskseq")),
    }))
}

fn first_page(file: &File) -> io::Result<Vec<u8>> {
    // A file system may write past the page cache of its device.
    fadvise(file, 0, None, Advice::DontNeed)?;
    let mut page = vec![0; units::PAGE as usize];
    file.read_exact_at(&mut page, 0)?;
    Ok(page)
}

/// Parses the seventh number of `stat` (Documentation/block/stat.rst).
fn written(line: &str) -> Option<String> {
    line.split_whitespace().nth(6).map(str::to_owned)
}

/// Returns why a type of file system is not supported.
pub fn unsupported(kind: &str) -> String {
    match kind {
        "crypto_LUKS" => "it is encrypted (LUKS); the owners are unknown".to_owned(),
        "swap" => "it is swap space".to_owned(),
        "LVM2_member" => {
            "no volume of LVM has it, or none that is active (vgchange -ay)".to_owned()
        }
        "linux_raid_member" => "it is part of a RAID, which is not supported".to_owned(),
        kind => format!("it is {kind}; only ext2, ext3, ext4 and XFS are supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn unsupported_type_is_named() {
        assert!(unsupported("btrfs").contains("btrfs"));
        assert!(unsupported("crypto_LUKS").contains("encrypted"));
    }

    #[test]
    fn written_sectors_are_parsed() {
        let line = "    1    2    3    4    5    6    7    8    9";
        assert_eq!(written(line), Some("7".into()));
        assert_eq!(written("1 2 3 4 5"), None);
    }

    /// A system with an image as the device of a volume.
    fn system() -> (tempfile::TempDir, Host, Volume) {
        let folder = tempfile::tempdir().unwrap();
        for path in ["dev", "proc/self", "sys/class/block/disk"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::write(folder.path().join("dev/disk"), vec![1; 8192]).unwrap();
        let host = Host::at(folder.path());
        (folder, host, Volume::made_up("disk", "259:1", vec![]))
    }

    #[test]
    fn device_is_not_claimed_and_changes_are_noticed() {
        let (folder, host, volume) = system();
        let unused = Unused::check(&host, &volume).unwrap().unwrap();
        assert_eq!(unused.has_changed().unwrap(), None);
        // Others can lock it during the search.
        let image = File::open(folder.path().join("dev/disk")).unwrap();
        flock(&image, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(unused.has_changed().unwrap().is_some());
        let locked = Unused::check(&host, &volume).unwrap().unwrap_err();
        assert!(locked.contains("locked"), "{locked}");
        flock(&image, FlockOperation::Unlock).unwrap();
        assert_eq!(unused.has_changed().unwrap(), None);
        fs::write(folder.path().join("dev/disk"), vec![2; 8192]).unwrap();
        assert!(unused.has_changed().unwrap().is_some());
    }

    #[test]
    fn device_in_use_is_refused() {
        let (folder, host, volume) = system();
        let unused = Unused::check(&host, &volume).unwrap().unwrap();
        let mount = "36 35 259:1 / /mnt rw - xfs /dev/disk rw\n";
        fs::write(folder.path().join("proc/self/mountinfo"), mount).unwrap();
        let busy = Unused::check(&host, &volume).unwrap().unwrap_err();
        assert_eq!(busy, "device is busy: disk is mounted at /mnt (xfs)");
        assert!(unused.has_changed().unwrap().unwrap().contains("mounted"));
    }
}
