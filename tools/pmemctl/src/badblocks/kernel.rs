// SPDX-License-Identifier: GPL-2.0

//! The kernel's lists of errors.
//!
//! Each bound device may have a list for the part of the region that it covers. The region has a read-only list of
//! its own, which the bus fills from its badrange list.

use crate::badblocks::origin::{Errors, Origin, SECTOR};
use crate::badblocks::set::BadBlocks;
use crate::block::disk::Disk;
use crate::nd::region::Region;
use crate::nd::{Device, Kind};
use crate::sysfs;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Sectors of an entry of `badblocks`, at most.
const LONGEST: u64 = 512;
/// The number of entries for which `badblocks` always has room.
const SHOWN: u64 = 200;

/// A list that can be read and added to.
#[derive(Debug, Clone)]
pub struct KernelList {
    pub device: Device,
    pub disk: Disk,
    /// The number that the kernel gave the disk, and gives no other until the next boot.
    pub sequence: u64,
    /// Sectors of the region that the list covers completely.
    pub covers: Range<u64>,
    form: ListFormat,
}

#[derive(Debug, Clone)]
enum ListFormat {
    /// `errors/list`: bytes of the namespace, with origins.
    Exact(PathBuf),
    /// `badblocks`: sectors of the disk.
    Plain,
}

/// The result of looking for a device's list.
#[derive(Debug)]
pub enum ListLookup {
    List(KernelList),
    None(&'static str),
}

/// Waits until the driver's probe is over, and with it the device's files are there.
///
/// The disk is announced while its driver still sets it up; its exact list comes last. A driver that
/// has no such list is waited for in vain.
pub fn wait(device: &Device, time: Duration) {
    let end = Instant::now() + time;
    while device.driver().as_deref() == Some("rust_pmem")
        && !device.errors_list().exists()
        && Instant::now() < end
    {
        thread::sleep(Duration::from_millis(20));
    }
}

fn sectors(bytes: &Range<u64>) -> Range<u64> {
    bytes.start.div_ceil(SECTOR)..bytes.end / SECTOR
}

impl KernelList {
    /// The list of a device of the region.
    pub fn of(region: &Region, device: &Device) -> Result<ListLookup> {
        let Some(disk) = device.disk() else {
            return Ok(ListLookup::None(match device.name.kind {
                Kind::Dax => "device DAX has no list",
                _ => "it has no disk",
            }));
        };
        let namespace = device
            .namespace()
            .and_then(|name| Device::find(region.host(), name))
            .context("it has no namespace")?;
        let whole = region
            .bytes_of(&namespace)
            .context("its namespace does not lie in its region")?;
        let file = device.errors_list();
        let (form, covers) = if file.exists() {
            (ListFormat::Exact(file), whole)
        } else if disk.whole.folder.join("badblocks").exists() {
            // `resource` of a device that claims the namespace is the start of its data.
            let start = sysfs::number(device.folder().join("resource"))
                .context("it does not say where its data begins")?;
            let data = region
                .bytes(start, disk.size().bytes())
                .filter(|data| data.end <= whole.end && data.start >= whole.start);
            (
                ListFormat::Plain,
                data.context("its disk does not lie in its namespace")?,
            )
        } else {
            return Ok(ListLookup::None(
                "its disk has no list, as in sector mode with nd_pmem",
            ));
        };
        Ok(ListLookup::List(Self {
            device: device.clone(),
            sequence: disk.sequence().context("its disk has gone")?,
            disk,
            covers: sectors(&covers),
            form,
        }))
    }

    /// Reads the list, in sectors of the region.
    pub fn read(&self) -> Result<Errors> {
        let errors = match &self.form {
            ListFormat::Exact(file) => sysfs::whole(file)
                .map_err(anyhow::Error::from)
                .and_then(|text| Ok(text.parse::<Errors>()?))
                .with_context(|| file.display().to_string())?,
            ListFormat::Plain => Errors::of(Origin::UNKNOWN, self.disk.bad()?),
        };
        Ok(errors.moved_up(self.covers.start).within(&self.covers))
    }

    /// Adds sectors of the region, which must be covered, and verifies that they are listed.
    pub fn add(&self, bad: &BadBlocks, origin: &str) -> Result<()> {
        let own = bad.moved_down(self.covers.start);
        match &self.form {
            ListFormat::Exact(file) => {
                for range in own.ranges() {
                    let (offset, length) = bytes(range);
                    let command = format!("add {offset} {length} {origin}");
                    sysfs::store(file, &command)
                        .with_context(|| format!("{}: {command}", file.display()))?;
                }
            }
            ListFormat::Plain => self.disk.add_bad(&own)?,
        }
        let left = bad.without(&self.read()?.all()).sectors();
        if left != 0 {
            bail!("{left} of {} sectors are not on the list", bad.sectors());
        }
        Ok(())
    }

    /// Whether it knows no origins.
    pub fn is_plain(&self) -> bool {
        matches!(self.form, ListFormat::Plain)
    }
}

/// The lists of a disk.
impl Disk {
    /// Returns the bad sectors: of the exact list if the driver has one, else of `badblocks`, which may be
    /// merged. Empty if the disk has no list, as in sector mode.
    pub fn bad(&self) -> Result<BadBlocks> {
        let device = self
            .owner()
            .filter(|owner| owner.kind != Kind::Btt)
            .and_then(|owner| Device::find(self.host(), owner))
            .filter(|device| device.errors_list().exists());
        match device {
            Some(device) => self
                .exact(&device)
                .with_context(|| device.errors_list().display().to_string()),
            None => self.shown(),
        }
    }

    /// What `badblocks` shows.
    pub fn shown(&self) -> Result<BadBlocks> {
        let file = self.whole.folder.join("badblocks");
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| file.display().to_string())?,
        };
        text.parse().with_context(|| file.display().to_string())
    }

    /// Returns the part of the device's exact list that is in the data area.
    fn exact(&self, device: &Device) -> Result<BadBlocks> {
        let errors: Errors = sysfs::whole(&device.errors_list())?.parse()?;
        let all = errors.all();
        let Some(offset) = device.data_offset() else {
            // Only root sees the start of the data. `badblocks` has room for so few entries.
            let entries = all
                .ranges()
                .iter()
                .map(|range| (range.end - range.start).div_ceil(LONGEST));
            ensure!(
                entries.sum::<u64>() <= SHOWN,
                "only root can see which of them are on the disk"
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
    pub fn add_bad(&self, list: &BadBlocks) -> Result<()> {
        let file = self.whole.folder.join("badblocks");
        for range in list.ranges() {
            let entry = format!("{} {}", range.start, range.end - range.start);
            sysfs::store(&file, &entry).with_context(|| format!("{}: {entry}", file.display()))?;
        }
        Ok(())
    }
}

/// Offset and length in bytes.
pub fn bytes(sectors: &Range<u64>) -> (u64, u64) {
    (
        sectors.start * SECTOR,
        (sectors.end - sectors.start) * SECTOR,
    )
}

/// Reads the region's list, which the bus fills, in sectors of the region.
pub fn of_region(region: &Region) -> Result<BadBlocks> {
    let file = region.folder().join("badblocks");
    let text = match fs::read_to_string(&file) {
        // A region without a driver has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            String::new()
        }
        text => text.with_context(|| file.display().to_string())?,
    };
    text.parse().with_context(|| file.display().to_string())
}
