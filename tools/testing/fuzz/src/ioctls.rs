// SPDX-License-Identifier: GPL-2.0

//! `pmem-fuzz ioctls`: mutated ioctls of a disk with bad blocks, of the buses and of the DIMMs, compared with a model of the
//! disk's bad blocks and contents.

use crate::bus::{announce, parse_errors, read, read_number};
use crate::inputs::Inputs;
use crate::layout::number;
use crate::requests::{BLKROSET, BLKRRPART, BLKZEROOUT, Kind, ND_CMD_CLEAR_ERROR, request};
use abstractions::DirectBuffer;
use abstractions::raw_ioctl::{Area, Device, Place, Request};
use anyhow::{Context, Result, ensure};
use clap::Args;
use fastrand::Rng;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const EBUSY: i32 = Errno::BUSY.raw_os_error();
const EIO: i32 = Errno::IO.raw_os_error();
/// Bytes of a sector.
const SECTOR: usize = 512;
/// Sectors that are read or written at once.
const MANY: usize = 1024;
/// The media errors of tests/provider.
const MEDIA: &str = "/sys/module/pmem_provider/parameters/bad";

#[derive(Args)]
#[command(mut_arg("count", |count| count.default_value("10000")))]
pub struct Ioctls {
    /// The disk of a raw namespace of tests/provider; its contents are lost
    disk: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    /// Print each request and its result
    #[arg(long)]
    verbose: bool,
}

/// The disk, and what it must be like.
struct Disk {
    device: Device,
    /// Its folder in sysfs.
    folder: PathBuf,
    /// Where its namespace is in memory.
    space: Range<u64>,
    /// Whether a sector is zero; otherwise it has [`pattern`].
    zero: Vec<bool>,
    bad: Vec<bool>,
}

impl Ioctls {
    /// Makes each request, and compares the disk with the model from time to time. Prints how often each kind of device gave
    /// each result, and a checksum of all results in order; returns how many differed from the model.
    pub fn run(&self) -> Result<usize> {
        let mut disk = Disk::new(&self.disk)?;
        let disks = (Kind::Disk, Vec::new());
        let buses = (Kind::Bus, open_all("ndctl")?);
        let dimms = (Kind::Dimm, open_all("nmem")?);
        let mut area = Area::new()?;
        let (mut seen, mut all) = (BTreeMap::<_, u64>::new(), crc32fast::Hasher::new());
        let mut different = 0;
        let seed = self.inputs.seed;
        for (input, mut random) in self.inputs.each() {
            if input % 256 == 0 {
                announce(&format!("seed {seed} ioctls from {input}"))?;
                different += disk.compare(&mut area)?;
                disk.renew(&mut Rng::with_seed(random.u64(..)))?;
            }
            if input % 16 == 0 {
                disk.set_writable(&mut area)?;
            }
            let (kind, devices) = match random.u8(0..8) {
                0..3 => &buses,
                3 => &dimms,
                _ => &disks,
            };
            let device = random.choice(devices).unwrap_or(&disk.device);
            let kind = if devices.is_empty() {
                Kind::Disk
            } else {
                *kind
            };
            let request = request(kind, &mut random, &disk.space);
            let result = area.request(device, &request)?;
            if self.verbose {
                println!("{input} {kind:?} {request:?}: {result:?}");
            }
            if !disk.expect(kind, &request, &result) {
                different += 1;
                println!("seed {seed} input {input} {kind:?} {request:?}: {result:?}");
            }
            let errno = result.as_ref().err().copied().unwrap_or(0);
            all.update(&errno.to_le_bytes());
            // A label area is not the same in each guest.
            if let (Ok(bytes), Kind::Disk | Kind::Bus) = (&result, kind) {
                all.update(bytes);
            }
            *seen.entry((kind, errno)).or_default() += 1;
        }
        different += disk.compare(&mut area)?;
        for ((kind, errno), count) in &seen {
            println!("{kind:?}, errno {errno}: {count}");
        }
        println!("checksum {:08x}", all.finalize());
        Ok(different)
    }
}

/// Opens the files in /dev whose names are the prefix and a number.
fn open_all(prefix: &str) -> Result<Vec<Device>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir("/dev").context("/dev")? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.parse::<u32>().ok());
        paths.extend(number.map(|number| (number, Path::new("/dev").join(&name))));
    }
    paths.sort();
    let open = |(_, path): &(_, PathBuf)| open(path, OFlags::empty());
    paths.iter().map(open).collect()
}

fn open(path: &Path, flags: OFlags) -> Result<Device> {
    let name = || path.display().to_string();
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32);
    let file = options.open(path);
    Device::new(file.with_context(name)?).with_context(name)
}

/// The contents of a sector that was not zeroed.
fn pattern(sector: usize) -> Vec<u8> {
    let word = (sector as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.to_le_bytes().repeat(SECTOR / 8)
}

/// Returns the runs of sectors that are equal in `all`, at most [`MANY`] each.
fn runs(all: &[bool]) -> Vec<(bool, Range<usize>)> {
    let mut runs = Vec::new();
    let mut at = 0;
    for run in all
        .chunk_by(|one, other| one == other)
        .flat_map(|run| run.chunks(MANY))
    {
        runs.push((run[0], at..at + run.len()));
        at += run.len();
    }
    runs
}

impl Disk {
    fn new(path: &Path) -> Result<Self> {
        let name = path.file_name().context("not a disk")?;
        let folder = Path::new("/sys/block").join(name);
        let resource = read(&folder.join("device/resource"))?;
        let start = u64::from_str_radix(resource.trim().trim_start_matches("0x"), 16)?;
        let size = read_number(&folder.join("size"))?;
        let mut disk = Self {
            device: open(path, OFlags::DIRECT)?,
            folder,
            space: start..start + size * SECTOR as u64,
            zero: vec![true; size as usize],
            bad: vec![false; size as usize],
        };
        disk.bad = disk.listed("badblocks", ' ', 1)?;
        ensure!(disk.bad.iter().all(|bad| !bad), "the disk has bad blocks");
        Ok(disk)
    }

    /// Lets the disk be written again after a request that has made it read-only.
    fn set_writable(&self, area: &mut Area) -> Result<()> {
        self.must(area, BLKROSET)
    }

    fn must(&self, area: &mut Area, number: u8) -> Result<()> {
        let request = Request {
            number,
            encoded: 0,
            bytes: vec![0; 4],
            link: None,
            place: Place::Room,
        };
        let result = area.request(&self.device, &request)?;
        ensure!(
            result.is_ok() || result == Err(EIO),
            "request {number}: {result:?}"
        );
        Ok(())
    }

    /// Whether the result is one that the request may have. Notes what it has changed.
    fn expect(&mut self, kind: Kind, request: &Request, result: &Result<Vec<u8>, i32>) -> bool {
        let field = |at: usize| request.bytes.get(at..at + 8).map_or(0, number);
        match (kind, request.number, result) {
            (Kind::Disk, BLKZEROOUT, Ok(_)) => {
                let sectors =
                    (field(0) as usize / SECTOR)..((field(0) + field(8)) as usize / SECTOR);
                self.zero[sectors.clone()].fill(true);
                self.bad[sectors].fill(false);
                true
            }
            // libnvdimm refuses this only if the whole namespace of a driver is in what the caller says was cleared
            // (nd_pmem_forget_poison_check).
            (Kind::Bus, ND_CMD_CLEAR_ERROR, Ok(_) | Err(EBUSY)) => {
                let last = field(0).wrapping_add(field(24)).wrapping_sub(1);
                let is_all = field(0) <= self.space.start && last >= self.space.end - 1;
                is_all == (*result == Err(EBUSY))
            }
            // The partition table may be in a bad block.
            (Kind::Disk, number, Err(EIO)) => number == BLKRRPART,
            _ => true,
        }
    }

    /// Returns which sectors are in a list: each line has a start, `between`, and a length, in units of `unit` per sector.
    fn listed(&self, file: &str, between: char, unit: u64) -> Result<Vec<bool>> {
        let path = self.folder.join(file);
        let mut all = vec![false; self.bad.len()];
        let name = || path.display().to_string();
        for range in parse_errors(&read(&path)?, between).with_context(name)? {
            let sectors = (range.start / unit) as usize..range.end.div_ceil(unit) as usize;
            let sectors = all.get_mut(sectors);
            sectors
                .with_context(|| format!("{}: {range:?}", path.display()))?
                .fill(true);
        }
        Ok(all)
    }

    /// Compares lists and contents with the model; returns how many differ. Removes partitions before.
    fn compare(&self, area: &mut Area) -> Result<usize> {
        self.set_writable(area)?;
        self.must(area, BLKRRPART)?;
        let mut different = 0;
        let mut lists = vec![("badblocks", self.listed("badblocks", ' ', 1)?)];
        // Only rust_pmem has this list.
        if self.folder.join("device/errors/list").exists() {
            let list = "device/errors/list";
            lists.push((list, self.listed(list, ' ', SECTOR as u64)?));
        }
        for (name, list) in lists {
            let pairs = || list.iter().zip(&self.bad).enumerate();
            let first = pairs().find(|(_, (got, wanted))| got != wanted);
            if let Some((sector, (got, _))) = first {
                different += 1;
                println!(
                    "{name}: sector {sector} is {}listed",
                    if *got { "" } else { "not " }
                );
            }
        }
        let media = self.listed(MEDIA, '+', SECTOR as u64)?;
        let lost = media
            .iter()
            .zip(&self.bad)
            .position(|(media, bad)| *media && !bad);
        if let Some(sector) = lost {
            different += 1;
            println!("sector {sector} has a media error, but was repaired");
        }
        Ok(different + self.compare_contents()?)
    }

    fn contents(&self, sectors: &Range<usize>) -> Vec<u8> {
        let sectors = sectors.clone().map(|sector| match self.zero[sector] {
            true => vec![0; SECTOR],
            false => pattern(sector),
        });
        sectors.collect::<Vec<_>>().concat()
    }

    fn compare_contents(&self) -> Result<usize> {
        let mut different = 0;
        for (bad, sectors) in runs(&self.bad) {
            let mut buffer = DirectBuffer::new(sectors.len() * SECTOR);
            let read = self
                .device
                .file()
                .read_exact_at(buffer.bytes(), (sectors.start * SECTOR) as u64);
            let good = match &read {
                Ok(()) => !bad && *buffer.bytes() == *self.contents(&sectors),
                Err(error) => bad && error.raw_os_error() == Some(EIO),
            };
            if !good {
                different += 1;
                println!("sectors {sectors:?} (bad: {bad}) are not as they were: {read:?}");
            }
        }
        Ok(different)
    }

    /// Fills the sectors that were zeroed, and makes others bad.
    fn renew(&mut self, random: &mut Rng) -> Result<()> {
        for (zero, sectors) in runs(&self.zero) {
            if zero && !self.bad[sectors.clone()].contains(&true) {
                self.zero[sectors.clone()].fill(false);
                let mut buffer = DirectBuffer::new(sectors.len() * SECTOR);
                buffer.bytes().copy_from_slice(&self.contents(&sectors));
                let offset = (sectors.start * SECTOR) as u64;
                let written = self.device.file().write_all_at(buffer.bytes(), offset);
                written.context("write of the pattern")?;
            }
        }
        for _ in 0..8 {
            let start = match random.bool() {
                true => random.usize(0..256),
                false => random.usize(0..self.bad.len() - 8),
            };
            let sectors = start..start + random.usize(1..=8);
            let text = format!("{}+{}", start * SECTOR, sectors.len() * SECTOR);
            fs::write(MEDIA, &text).with_context(|| format!("{MEDIA}: {text}"))?;
            self.bad[sectors].fill(true);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_all() {
        let mut all = vec![false; 3 * MANY];
        all[5..7].fill(true);
        let runs = runs(&all);
        assert_eq!(
            runs[..3],
            [(false, 0..5), (true, 5..7), (false, 7..7 + MANY)]
        );
        assert_eq!(
            runs.iter().map(|(_, run)| run.len()).sum::<usize>(),
            all.len()
        );
    }

    #[test]
    fn patterns_of_sectors_differ() {
        assert_ne!(pattern(0), pattern(1));
        assert_eq!(pattern(7).len(), SECTOR);
    }
}
