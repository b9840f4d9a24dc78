// SPDX-License-Identifier: GPL-2.0

//! Disks of persistent memory and their partitions.

use crate::block::devno::DeviceNumber;
use crate::sysfs::{self, Host};
use abstractions::ioctl;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use units::Size;

/// Bytes in a sector, whatever the disk calls its own.
const SECTOR: u64 = 512;
/// A disk, or a partition of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// `pmem0`, `pmem0p1`.
    pub name: String,
    pub number: DeviceNumber,
    pub folder: PathBuf,
}

impl BlockDevice {
    fn at(folder: PathBuf) -> Option<Self> {
        Some(Self {
            name: folder.file_name()?.to_str()?.to_owned(),
            number: sysfs::line(folder.join("dev"))?.parse().ok()?,
            folder,
        })
    }

    /// Whether it refuses to be written.
    pub fn is_read_only(&self) -> bool {
        sysfs::line(self.folder.join("ro")).is_some_and(|ro| ro != "0")
    }
}

/// `diskseq`.
fn sequence(disk: &BlockDevice) -> Option<u64> {
    sysfs::number(disk.folder.join("diskseq"))
}

/// A disk of persistent memory.
#[derive(Debug, Clone)]
pub struct Disk {
    host: Host,
    pub whole: BlockDevice,
    sequence: Option<u64>,
}

impl Disk {
    /// The disk of this name.
    pub fn find(host: &Host, name: &str) -> Option<Self> {
        let whole = BlockDevice::at(host.path("sys/block").join(name))?;
        Some(Self {
            host: host.clone(),
            sequence: sequence(&whole),
            whole,
        })
    }

    /// The physical address of the first byte; only root can read it, and in sector mode there is none.
    pub fn physical_address(&self) -> Option<u64> {
        sysfs::number(self.whole.folder.join("device/resource"))
    }

    /// The number that no other disk has had since the boot; `None` where it had gone before that was
    /// read.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// Returns whether the disk still exists and has not been replaced by another one.
    pub fn is_there(&self) -> bool {
        self.sequence.is_some() && sequence(&self.whole) == self.sequence
    }

    /// The system that it is a disk of.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// `pmem0`.
    pub fn name(&self) -> &str {
        &self.whole.name
    }

    pub fn parts(&self) -> Vec<BlockDevice> {
        let inner = sysfs::names(&self.whole.folder)
            .into_iter()
            .map(|name| self.whole.folder.join(name))
            .filter(|folder| folder.join("partition").exists())
            .filter_map(BlockDevice::at);
        [self.whole.clone()].into_iter().chain(inner).collect()
    }

    pub fn size(&self) -> Size {
        let sectors =
            sysfs::line(self.whole.folder.join("size")).and_then(|size| size.parse().ok());
        Size::from_bytes(sectors.unwrap_or(0_u64).saturating_mul(SECTOR))
    }

    pub fn node(&self, part: &BlockDevice) -> PathBuf {
        self.host.path("dev").join(&part.name)
    }

    /// Opens it, or a part of it, for reading with these flags. `ENODEV` if it is gone.
    ///
    /// The next disk gets the device number of one that is gone, also while this open(2) looks up
    /// the number of the node.
    pub fn open(&self, part: &BlockDevice, flags: OFlags) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(self.node(part))?;

        // Disks of tests are files.
        if self.host.is_here() && self.sequence != Some(ioctl::disk_sequence(&file)?) {
            return Err(Errno::NODEV.into());
        }
        Ok(file)
    }

    /// Opens it for this program alone: as long as the file is open it can't be mounted, swapped to
    /// or made part of another device; `EBUSY` where it is.
    pub fn claim(&self) -> io::Result<File> {
        self.open(&self.whole, OFlags::EXCL)
    }

    /// Makes a part of it refuse to be written.
    pub fn set_read_only(&self, part: &BlockDevice) -> io::Result<()> {
        ioctl::set_read_only(&self.open(part, OFlags::empty())?)
    }
}
