// SPDX-License-Identifier: GPL-2.0

//! `pmem-fuzz ioctls`: mutated ioctls of a disk with bad blocks, of the buses and of the DIMMs, compared with a model of the
//! disk's bad blocks and contents.

use crate::bus::{MEDIA, announce, bytes_before_data, listed, read_number, resource};
use crate::inputs::Inputs;
use crate::layout::number;
use crate::minimize::{Only, print_shortest};
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

#[derive(Args)]
#[command(mut_arg("count", |count| count.default_value("10000")))]
pub struct Ioctls {
    /// The disk of a namespace of tests/provider in raw or fsdax mode; its contents are lost
    disk: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    only: Only,
    /// Print each request and its result
    #[arg(long)]
    verbose: bool,
}

/// What requests are made to.
struct Target {
    disk: Disk,
    buses: Vec<Device>,
    dimms: Vec<Device>,
    area: Area,
}

/// A request, and the number of its device among those of a kind.
#[derive(Clone, Debug)]
struct Made {
    kind: Kind,
    device: usize,
    request: Request,
}

/// The disk, and what it must be like.
struct Disk {
    device: Device,
    /// Its folder in sysfs.
    folder: PathBuf,
    /// Where its data is in memory.
    space: Range<u64>,
    /// Sectors of its namespace in front of the data.
    before: usize,
    /// Whether a sector is zero; otherwise it has [`pattern`].
    zero: Vec<bool>,
    bad: Vec<bool>,
}

impl Ioctls {
    /// Makes each request, and compares the disk with the model after each sequence. Prints how often each kind of device
    /// gave each result, and a checksum of all results in order; returns how many differed from the model. Of the first
    /// sequence that did, prints the requests that are needed.
    pub fn run(&self) -> Result<usize> {
        let mut target = Target::new(&self.disk)?;
        let (mut seen, mut all) = (BTreeMap::<_, u64>::new(), crc32fast::Hasher::new());
        let mut different = 0;
        for (first, mut inputs) in self.inputs.sequences() {
            let arguments = self.inputs.arguments(first, inputs.len());
            announce(&format!("ioctls {arguments}"))?;
            let bad = inputs[0].fork();
            let made = inputs.iter_mut().enumerate();
            let made = made.map(|(place, random)| (place, target.make(place, random)));
            let requests = self.only.of(made.collect());
            let differences = target.request_all(&bad, &requests, |place, made, result| {
                if self.verbose {
                    println!("{} {made:?}: {result:?}", first + place as u64);
                }
                let errno = result.as_ref().err().copied().unwrap_or(0);
                all.update(&errno.to_le_bytes());
                // A label area is not the same in each guest.
                if let (Ok(bytes), Kind::Disk | Kind::Bus) = (result, made.kind) {
                    all.update(bytes);
                }
                *seen.entry((made.kind, errno)).or_default() += 1;
            })?;
            for text in &differences {
                println!("{arguments}: {text}");
            }
            if different == 0 && !differences.is_empty() {
                let show = |made: &Made| format!("{made:?}");
                print_shortest(&arguments, &requests, show, |some| {
                    let differences = target.request_all(&bad, some, |_, _, _| {});
                    differences.is_ok_and(|differences| !differences.is_empty())
                });
            }
            different += differences.len();
        }
        for ((kind, errno), count) in &seen {
            println!("{kind:?}, errno {errno}: {count}");
        }
        println!("checksum {:08x}", all.finalize());
        Ok(different)
    }
}

impl Target {
    fn new(disk: &Path) -> Result<Self> {
        Ok(Self {
            disk: Disk::new(disk)?,
            buses: open_all("ndctl")?,
            dimms: open_all("nmem")?,
            area: Area::new()?,
        })
    }

    /// Returns the request for a place in a sequence.
    fn make(&self, place: usize, random: &mut Rng) -> Made {
        if place % 16 == 0 {
            // Some requests make the disk read-only.
            return Made {
                kind: Kind::Disk,
                device: 0,
                request: of_disk(BLKROSET),
            };
        }
        let (kind, devices) = match random.u8(0..8) {
            0..3 if !self.buses.is_empty() => (Kind::Bus, self.buses.len()),
            3 if !self.dimms.is_empty() => (Kind::Dimm, self.dimms.len()),
            _ => (Kind::Disk, 1),
        };
        Made {
            kind,
            device: random.usize(0..devices),
            request: request(kind, random, &self.disk.space),
        }
    }

    /// Makes requests to the disk as it is at the start of a sequence, with errors that `bad` places. Calls `see` with each
    /// result, and returns what differs from the model.
    fn request_all(
        &mut self,
        bad: &Rng,
        requests: &[(usize, Made)],
        mut see: impl FnMut(usize, &Made, &Result<Vec<u8>, i32>),
    ) -> Result<Vec<String>> {
        self.disk.reset(&mut self.area, bad.clone())?;
        let mut differences = Vec::new();
        for (place, made) in requests {
            let device = match made.kind {
                Kind::Disk => &self.disk.device,
                Kind::Bus => &self.buses[made.device],
                Kind::Dimm => &self.dimms[made.device],
            };
            let result = self.area.request(device, &made.request)?;
            see(*place, made, &result);
            if !self.disk.expect(made.kind, &made.request, &result) {
                differences.push(format!("request {place} {made:?}: {result:?}"));
            }
        }
        differences.extend(self.disk.compare(&mut self.area)?);
        Ok(differences)
    }
}

/// Returns a request to a disk with a zero, or without an argument.
fn of_disk(number: u8) -> Request {
    Request {
        number,
        encoded: 0,
        bytes: vec![0; 4],
        link: None,
        place: Place::Room,
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
        let device = folder.join("device");
        let device = fs::canonicalize(&device).with_context(|| device.display().to_string())?;
        let start = resource(&device)?;
        let size = read_number(&folder.join("size"))?;
        Ok(Self {
            device: open(path, OFlags::DIRECT)?,
            folder,
            space: start..start + size * SECTOR as u64,
            before: bytes_before_data(&device)? as usize / SECTOR,
            zero: vec![true; size as usize],
            bad: vec![false; size as usize],
        })
    }

    fn must(&self, area: &mut Area, number: u8) -> Result<()> {
        let result = area.request(&self.device, &of_disk(number))?;
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
                let start = self.space.start - (self.before * SECTOR) as u64;
                let is_all = field(0) <= start && last >= self.space.end - 1;
                is_all == (*result == Err(EBUSY))
            }
            // The partition table may be in a bad block.
            (Kind::Disk, number, Err(EIO)) => number == BLKRRPART,
            _ => true,
        }
    }

    /// Returns which sectors are in a list of the namespace: each line has a start, `between`, and a length, in bytes.
    fn listed(&self, file: &str, between: char) -> Result<Vec<bool>> {
        let (path, sectors) = (self.folder.join(file), self.before + self.bad.len());
        let mut list = listed(&path, between, SECTOR as u64, sectors)?;
        let data = list.split_off(self.before);
        ensure!(
            !list.contains(&true),
            "{}: errors in front of the data",
            path.display()
        );
        Ok(data)
    }

    /// Makes the disk writable, and removes its partitions.
    fn restore(&self, area: &mut Area) -> Result<()> {
        self.must(area, BLKROSET)?;
        self.must(area, BLKRRPART)
    }

    /// Compares lists and contents with the model; returns what differs.
    fn compare(&self, area: &mut Area) -> Result<Vec<String>> {
        self.restore(area)?;
        let mut differences = Vec::new();
        let badblocks = self.folder.join("badblocks");
        let mut lists = vec![("badblocks", listed(&badblocks, ' ', 1, self.bad.len())?)];
        // Only rust_pmem has this list.
        if self.folder.join("device/errors/list").exists() {
            let list = "device/errors/list";
            lists.push((list, self.listed(list, ' ')?));
        }
        for (name, list) in lists {
            let pairs = || list.iter().zip(&self.bad).enumerate();
            let first = pairs().find(|(_, (got, wanted))| got != wanted);
            if let Some((sector, (got, _))) = first {
                let not = if *got { "" } else { "not " };
                differences.push(format!("{name}: sector {sector} is {not}listed"));
            }
        }
        let media = self.listed(MEDIA, '+')?;
        let lost = media
            .iter()
            .zip(&self.bad)
            .position(|(media, bad)| *media && !bad);
        if let Some(sector) = lost {
            differences.push(format!(
                "sector {sector} has a media error, but was repaired"
            ));
        }
        differences.extend(self.compare_contents());
        Ok(differences)
    }

    fn contents(&self, sectors: &Range<usize>) -> Vec<u8> {
        let sectors = sectors.clone().map(|sector| match self.zero[sector] {
            true => vec![0; SECTOR],
            false => pattern(sector),
        });
        sectors.collect::<Vec<_>>().concat()
    }

    fn compare_contents(&self) -> Vec<String> {
        let mut differences = Vec::new();
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
                differences.push(format!(
                    "sectors {sectors:?} (bad: {bad}) are not as they were: {read:?}"
                ));
            }
        }
        differences
    }

    /// Repairs and fills all sectors, and makes some bad.
    fn reset(&mut self, area: &mut Area, mut random: Rng) -> Result<()> {
        self.restore(area)?;
        self.zero.fill(false);
        self.bad.fill(false);
        for (_, sectors) in runs(&self.zero) {
            let mut buffer = DirectBuffer::new(sectors.len() * SECTOR);
            buffer.bytes().copy_from_slice(&self.contents(&sectors));
            let offset = (sectors.start * SECTOR) as u64;
            let written = self.device.file().write_all_at(buffer.bytes(), offset);
            written.context("write of the pattern")?;
        }
        for _ in 0..16 {
            let start = match random.bool() {
                true => random.usize(0..256),
                false => random.usize(0..self.bad.len() - 8),
            };
            let sectors = start..start + random.usize(1..=8);
            let at = (self.before + start) * SECTOR;
            let text = format!("{at}+{}", sectors.len() * SECTOR);
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
