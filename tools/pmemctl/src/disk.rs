// SPDX-License-Identifier: GPL-2.0

//! Disks of persistent memory and their partitions.

use crate::badlist::BadList;
use crate::errors::Errors;
use crate::host::{self, Host};
use crate::nd;
use abstractions::ioctl;
use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use units::Size;

/// Bytes in a sector, whatever the disk calls its own.
const SECTOR: u64 = 512;
/// Sectors of an entry of `badblocks`, at most.
const LONGEST: u64 = 512;
/// So many entries `badblocks` always has room for.
const SHOWN: u64 = 200;

/// The number of a device: `259:0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    major: u32,
    minor: u32,
}

impl Number {
    /// As `stat(2)` has it in `st_rdev`.
    pub fn from_rdev(rdev: u64) -> Self {
        Self {
            major: rustix::fs::major(rdev),
            minor: rustix::fs::minor(rdev),
        }
    }
}

impl Number {
    /// As the kernel writes it in 32 bits (`new_encode_dev` of linux/kdev_t.h).
    pub fn encoded(self) -> u32 {
        (self.minor & 0xff) | (self.major << 8) | ((self.minor & !0xff) << 12)
    }
}

impl FromStr for Number {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self {
            major: major.parse()?,
            minor: minor.parse()?,
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A disk, or a partition of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `pmem0`, `pmem0p1`.
    pub name: String,
    /// Its number.
    pub number: Number,
    /// Its folder in sysfs.
    pub folder: PathBuf,
}

impl Part {
    fn at(folder: PathBuf) -> Option<Self> {
        Some(Self {
            name: folder.file_name()?.to_str()?.to_owned(),
            number: host::line(folder.join("dev"))?.parse().ok()?,
            folder,
        })
    }

    /// Whether it refuses to be written.
    pub fn is_read_only(&self) -> bool {
        host::line(self.folder.join("ro")).is_some_and(|ro| ro != "0")
    }
}

/// `diskseq`.
fn sequence(disk: &Part) -> Option<u64> {
    host::number(disk.folder.join("diskseq"))
}

/// A disk of persistent memory.
#[derive(Debug, Clone)]
pub struct Disk {
    host: Host,
    /// The whole of it.
    pub whole: Part,
    sequence: Option<u64>,
}

impl Disk {
    /// The disk of this name.
    pub fn find(host: &Host, name: &str) -> Option<Self> {
        let whole = Part::at(host.path("sys/block").join(name))?;
        Some(Self {
            host: host.clone(),
            sequence: sequence(&whole),
            whole,
        })
    }

    /// The number that no other disk has had since the boot; `None` where it had gone before that was
    /// read.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// Whether it is there still, and no other one in its place.
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

    /// Its device of the `nd` bus, where it has one.
    pub fn owner(&self) -> Option<nd::Name> {
        nd::owner(&self.host, &Path::new("/sys/block").join(self.name()))
    }

    /// It and its partitions.
    pub fn parts(&self) -> Vec<Part> {
        let inner = host::names(&self.whole.folder)
            .into_iter()
            .map(|name| self.whole.folder.join(name))
            .filter(|folder| folder.join("partition").exists())
            .filter_map(Part::at);
        [self.whole.clone()].into_iter().chain(inner).collect()
    }

    /// Its size.
    pub fn size(&self) -> Size {
        let sectors = host::line(self.whole.folder.join("size")).and_then(|size| size.parse().ok());
        Size::from_bytes(sectors.unwrap_or(0_u64).saturating_mul(SECTOR))
    }

    /// Its bad sectors: all that are known where its driver has an exact list, else what `badblocks` has
    /// room for. None where it keeps no list of them, as in sector mode.
    pub fn bad(&self) -> Result<BadList> {
        let device = self
            .owner()
            .filter(|owner| owner.kind != nd::Kind::Btt)
            .and_then(|owner| nd::Device::find(&self.host, owner))
            .filter(|device| device.errors_list().exists());
        match device {
            Some(device) => self
                .exact(&device)
                .with_context(|| device.errors_list().display().to_string()),
            None => self.shown(),
        }
    }

    /// What `badblocks` shows.
    pub fn shown(&self) -> Result<BadList> {
        let file = self.whole.folder.join("badblocks");
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| file.display().to_string())?,
        };
        text.parse().with_context(|| file.display().to_string())
    }

    /// What the exact list of the device that is its owner has of its data.
    fn exact(&self, device: &nd::Device) -> Result<BadList> {
        let errors: Errors = host::whole(&device.errors_list())?.parse()?;
        let all = errors.all();
        let Some(offset) = device.data_offset() else {
            // Root alone sees where the data begins. Of so few `badblocks` shows all.
            let entries = all
                .ranges()
                .iter()
                .map(|range| (range.end - range.start).div_ceil(LONGEST));
            ensure!(
                entries.sum::<u64>() <= SHOWN,
                "only root can tell which of them are the disk's"
            );
            return self.shown();
        };
        let start = offset / SECTOR;
        let data = start..start + self.size().bytes() / SECTOR;
        Ok(all
            .within(&data)
            .ranges()
            .iter()
            .map(|range| range.start - start..range.end - start)
            .collect())
    }

    /// Adds sectors to its list.
    pub fn add_bad(&self, list: &BadList) -> Result<()> {
        let file = self.whole.folder.join("badblocks");
        for range in list.ranges() {
            let entry = format!("{} {}", range.start, range.end - range.start);
            host::store(&file, &entry).with_context(|| format!("{}: {entry}", file.display()))?;
        }
        Ok(())
    }

    /// Its device node.
    pub fn node(&self, part: &Part) -> PathBuf {
        self.host.path("dev").join(&part.name)
    }

    /// Opens it for this program alone: as long as the file is open it can't be mounted, swapped to
    /// or made part of another device; `EBUSY` where it is.
    pub fn claim(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::EXCL.bits() as i32)
            .open(self.node(&self.whole))
    }

    /// Makes a part of it refuse to be written.
    pub fn set_read_only(&self, part: &Part) -> io::Result<()> {
        ioctl::set_read_only(&File::open(self.node(part))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!("259:1".parse::<Number>().unwrap().encoded(), 0x1_0301);
        assert_eq!("252:300".parse::<Number>().unwrap().encoded(), 0x10_fc2c);
        assert_eq!("259:12".parse::<Number>().unwrap().to_string(), "259:12");
        assert_eq!(Number::from_rdev(0x0010_0305).to_string(), "3:261");
        for text in ["", ":", "259", "259:", "a:b", "259:0:0"] {
            assert!(text.parse::<Number>().is_err(), "{text}");
        }
    }
}
