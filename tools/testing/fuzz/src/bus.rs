// SPDX-License-Identifier: GPL-2.0

//! A region of the nd bus: its devices, and what they are bound to; a DIMM, and its labels.

use abstractions::DirectBuffer;
use abstractions::raw_ioctl::{Area, Device, Place, Request};
use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const DEVICES: &str = "/sys/bus/nd/devices";
pub const DRIVERS: &str = "/sys/bus/nd/drivers";
/// The media errors of tests/provider.
pub const MEDIA: &str = "/sys/module/pmem_provider/parameters/bad";
/// The state of a region without a bound device.
pub const NOTHING: &str = "nothing";
/// Time for a disk's file in /dev.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Region {
    name: String,
    bus: PathBuf,
}

impl Region {
    pub fn new(name: &str) -> Result<Self> {
        let path = Path::new(DEVICES).join(name);
        let path = fs::canonicalize(&path).with_context(|| path.display().to_string())?;
        let bus = path.parent().context("the region has no bus")?;
        Ok(Self {
            name: name.to_owned(),
            bus: bus.to_owned(),
        })
    }

    /// Returns its folder in sysfs.
    pub fn folder(&self) -> PathBuf {
        self.bus.join(&self.name)
    }

    /// Returns the folder of its bus.
    pub fn bus(&self) -> &Path {
        &self.bus
    }

    /// Returns whether a file of the bus belongs to another region.
    pub fn is_of_other(&self, path: &Path) -> bool {
        let below = path.strip_prefix(&self.bus).unwrap_or(path);
        let device = below.components().next().map(|first| self.bus.join(first));
        device.is_some_and(|device| kind(&device) == "region" && device != self.folder())
    }

    /// Returns the folders of its namespaces, and of what may claim them, in the order of their names.
    pub fn devices(&self) -> Result<Vec<PathBuf>> {
        let path = self.folder();
        let mut devices = Vec::new();
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let device = entry?.path();
            if ["namespace", "pfn", "btt", "dax"].contains(&kind(&device).as_str()) {
                devices.push(device);
            }
        }
        devices.sort();
        Ok(devices)
    }

    /// Returns the bytes of the region.
    pub fn size(&self) -> Result<u64> {
        read_number(&self.folder().join("size"))
    }

    /// Removes the region's namespaces, and all that has claimed them.
    pub fn disable(&self) -> Result<()> {
        write(&Path::new(DRIVERS).join("nd_region/unbind"), &self.name)
    }

    /// Makes the namespaces anew, and lets drivers probe them; returns after they have.
    pub fn enable(&self) -> Result<()> {
        write(&Path::new(DRIVERS).join("nd_region/bind"), &self.name)?;
        self.settle()
    }

    /// Waits for the devices that libnvdimm adds, probes and removes in the background.
    pub fn settle(&self) -> Result<()> {
        let path = self.bus.join("wait_probe");
        fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    /// Returns the devices that are bound to a driver, and the disks with their capacity, as one line. Numbers
    /// that differ from one probe to the next are left out.
    ///
    /// Fails if a disk is larger than `size` bytes, or than libnvdimm says of its device, if a read or write of
    /// one of its ends is short, or if other data is read than was written. What the ends had is written again. In sector
    /// mode, the size is not checked, and other data is a part of the state: nd_btt believes any `external_nlba`, and maps
    /// and logs that overlap the data.
    pub fn state(&self, size: u64) -> Result<String> {
        let mut state = Vec::new();
        for device in self.devices()? {
            if !device.join("driver").exists() {
                continue;
            }
            let kind = kind(&device);
            let mut text = kind.clone();
            for disk in disks(&device) {
                let most = match kind.as_str() {
                    "btt" => None,
                    _ => Some(size.min(read_number(&device.join("size"))?)),
                };
                text.push_str(&format!(" {}", capacity(&disk, most)?));
            }
            state.push(text);
        }
        state.sort();
        Ok(match state.is_empty() {
            true => NOTHING.to_owned(),
            false => state.join(", "),
        })
    }
}

/// Returns the number in a file of sysfs.
pub fn read_number(path: &Path) -> Result<u64> {
    Ok(read(path)?.trim().parse()?)
}

/// Returns the text in a file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Parses a list of errors, each in a line: a start, `between`, a length, and maybe more behind a space.
pub fn parse_errors(text: &str, between: char) -> Result<Vec<Range<u64>>> {
    let range = |line: &str| {
        let mut words = line.split([between, ' ']);
        let mut number = || words.next().with_context(|| line.to_owned());
        let (start, length): (u64, u64) = (number()?.parse()?, number()?.parse()?);
        Ok(start..start.saturating_add(length))
    };
    text.lines().map(range).collect()
}

/// Returns which of a disk's sectors are in a list: each line has a start, `between`, and a length, in units of `unit` per
/// sector.
pub fn listed(path: &Path, between: char, unit: u64, sectors: usize) -> Result<Vec<bool>> {
    let mut all = vec![false; sectors];
    let name = || path.display().to_string();
    for range in parse_errors(&read(path)?, between).with_context(name)? {
        let sectors = (range.start / unit) as usize..range.end.div_ceil(unit) as usize;
        let sectors = all.get_mut(sectors);
        sectors
            .with_context(|| format!("{}: {range:?}", path.display()))?
            .fill(true);
    }
    Ok(all)
}

/// Returns the folders of a device's disks.
pub fn disks(device: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(device.join("block"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Returns the physical address at which a device begins.
pub fn resource(device: &Path) -> Result<u64> {
    let path = device.join("resource");
    let text = read(&path)?;
    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16)
        .with_context(|| format!("{}: {text:?}", path.display()))
}

/// Returns the bytes of a namespace in front of the data of a device: the namespace itself, or one in fsdax mode that has claimed
/// it.
pub fn bytes_before_data(device: &Path) -> Result<u64> {
    if kind(device) != "pfn" {
        return Ok(0);
    }
    let namespace = read(&device.join("namespace"))?;
    Ok(resource(device)? - resource(&Path::new(DEVICES).join(namespace.trim()))?)
}

/// Returns the name of a device without its numbers.
pub fn kind(device: &Path) -> String {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.')
        .to_owned()
}

/// Bytes of labels that are read or written at once. QEMU's DIMMs take less than a page, with the request around them.
const CHUNK: usize = 1024;
/// `ND_IOCTL_GET_CONFIG_DATA` and `ND_IOCTL_SET_CONFIG_DATA`.
const GET_LABELS: u8 = 5;
const SET_LABELS: u8 = 6;

/// A DIMM, which is disabled while its labels are written.
pub struct Dimm {
    name: String,
    device: Device,
    area: RefCell<Area>,
}

impl Dimm {
    pub fn new(name: &str) -> Result<Self> {
        let path = Path::new("/dev").join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let device = Device::new(file.with_context(|| path.display().to_string())?)?;
        Ok(Self {
            name: name.to_owned(),
            device,
            area: RefCell::new(Area::new()?),
        })
    }

    /// Lets libnvdimm forget the labels. Does nothing if it has not read them.
    pub fn disable(&self) -> Result<()> {
        let driver = Path::new(DRIVERS).join("nvdimm");
        if !driver.join(&self.name).exists() {
            return Ok(());
        }
        write(&driver.join("unbind"), &self.name)
    }

    /// Lets libnvdimm read the labels.
    pub fn enable(&self) -> io::Result<()> {
        fs::write(Path::new(DRIVERS).join("nvdimm/bind"), &self.name)
    }

    /// Returns the first `length` bytes of the label area.
    pub fn read_labels(&self, length: usize) -> Result<Vec<u8>> {
        let mut labels = Vec::with_capacity(length);
        while labels.len() < length {
            let chunk = (length - labels.len()).min(CHUNK);
            let mut bytes = header(labels.len(), chunk);
            // The status, and the labels.
            bytes.resize(12 + chunk, 0);
            labels.extend_from_slice(&self.request(GET_LABELS, bytes)?[12..]);
        }
        Ok(labels)
    }

    /// Writes at most [`CHUNK`] bytes of the label area.
    pub fn write_labels(&self, offset: usize, labels: &[u8]) -> Result<()> {
        let mut bytes = header(offset, labels.len());
        bytes.extend_from_slice(labels);
        // The status.
        bytes.extend_from_slice(&[0; 4]);
        let after = self.request(SET_LABELS, bytes)?;
        ensure!(
            after.ends_with(&[0; 4]),
            "{}: labels are not written",
            self.name
        );
        Ok(())
    }

    fn request(&self, number: u8, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let request = Request {
            number,
            // libnvdimm ignores it.
            encoded: 0xc000 | bytes.len() as u16,
            bytes,
            link: None,
            place: Place::Room,
        };
        let result = self
            .area
            .borrow_mut()
            .request(&self.device, &request)?
            .map_err(io::Error::from_raw_os_error);
        result.with_context(|| format!("{}: request {number}", self.name))
    }
}

fn header(offset: usize, length: usize) -> Vec<u8> {
    [(offset as u32).to_le_bytes(), (length as u32).to_le_bytes()].concat()
}

/// Returns the capacity of a disk in sectors. Behind it are its bad blocks, and the errors of accesses to both ends. With a
/// size in bytes, checks the capacity, and that what is written is read.
fn capacity(disk: &Path, size: Option<u64>) -> Result<String> {
    let name = disk.file_name().context("the disk has no name")?;
    let path = Path::new("/dev").join(name);
    let sectors = read_number(&disk.join("size"))?;
    ensure!(
        size.is_none_or(|size| sectors <= size / 512),
        "{} has {sectors} sectors: more than its namespace",
        path.display()
    );
    if sectors < 8 {
        return Ok(sectors.to_string());
    }
    let writable = read_number(&disk.join("ro"))? == 0;
    let file = open(&path, writable)?;
    let mut text = sectors.to_string();
    // A disk in sector mode has no such file.
    for line in read(&disk.join("badblocks")).unwrap_or_default().lines() {
        text.push_str(&format!(" (bad: {line})"));
    }
    for (place, at) in [("start", 0), ("end", sectors * 512 - END as u64)] {
        let result = match writable {
            true => write_and_restore(&file, at),
            false => read_end(&file, at).map(|_| true),
        };
        match result {
            Ok(true) => {}
            Ok(false) => {
                ensure!(
                    size.is_none(),
                    "{}: what is read at {at} is not what was written",
                    path.display()
                );
                text.push_str(&format!(" ({place}: other data)"));
            }
            // An access that fails is an answer; one that is short is none.
            Err(error) => {
                let errno = error.downcast_ref().and_then(io::Error::raw_os_error);
                let errno = errno
                    .ok_or(error)
                    .with_context(|| path.display().to_string())?;
                text.push_str(&format!(" ({place}: error {errno})"));
            }
        }
    }
    if !writable {
        text.push_str(" (read-only)");
    }
    Ok(text)
}

/// Bytes at an end of a disk.
const END: usize = 4096;

fn read_end(file: &File, at: u64) -> Result<Vec<u8>> {
    let mut buffer = DirectBuffer::new(END);
    let length = file.read_at(buffer.bytes(), at)?;
    ensure!(length == END, "{length} bytes read at {at}");
    Ok(buffer.bytes().to_vec())
}

fn write_end(file: &File, at: u64, bytes: &[u8]) -> Result<()> {
    let mut buffer = DirectBuffer::new(END);
    buffer.bytes().copy_from_slice(bytes);
    let length = file.write_at(buffer.bytes(), at)?;
    ensure!(length == END, "{length} bytes written at {at}");
    Ok(())
}

/// Reads the bytes, writes others, returns whether these are read then, and writes the first ones again.
fn write_and_restore(file: &File, at: u64) -> Result<bool> {
    let before = read_end(file, at)?;
    let inverse: Vec<u8> = before.iter().map(|byte| !byte).collect();
    write_end(file, at, &inverse)?;
    let same = read_end(file, at)? == inverse;
    write_end(file, at, &before)?;
    Ok(same)
}

/// Opens a disk past the page cache; waits for its file.
pub fn open(path: &Path, write: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(write)
        .custom_flags(OFlags::DIRECT.bits() as i32);
    let mut waited = Duration::ZERO;
    loop {
        match options.open(path) {
            Err(_) if waited < PATIENCE => {}
            file => return file.with_context(|| path.display().to_string()),
        }
        let step = Duration::from_millis(10);
        sleep(step);
        waited += step;
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{}: {text}", path.display()))
}

/// Adds a line to the kernel's log.
pub fn announce(text: &str) -> Result<()> {
    let mut log = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .context("/dev/kmsg")?;
    // Each write is a line.
    log.write_all(format!("pmem-fuzz: {text}\n").as_bytes())
        .context("/dev/kmsg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_regions_are_known() {
        let region = Region {
            name: "region1".to_owned(),
            bus: PathBuf::from("/bus"),
        };
        let is_of_other = |path| region.is_of_other(Path::new(path));
        assert!(is_of_other("/bus/region0/size") && is_of_other("/bus/region10/size"));
        assert!(!is_of_other("/bus/region1/size") && !is_of_other("/bus/nmem0/uevent"));
    }

    #[test]
    fn list_of_errors_is_parsed() {
        assert_eq!(
            parse_errors("8 1\n100 16 user\n", ' ').unwrap(),
            [8..9, 100..116]
        );
        assert_eq!(parse_errors("8+1\n9+2\n", '+').unwrap(), [8..9, 9..11]);
        assert!(parse_errors("8", ' ').is_err());
    }
}
