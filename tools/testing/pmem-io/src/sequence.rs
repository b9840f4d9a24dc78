// SPDX-License-Identifier: GPL-2.0

//! Random reads and writes of a disk, one after the other, held against what must be on it.

use abstractions::{DirectBuffer, ioctl};
use anyhow::{Context, Result, ensure};
use clap::Args;
use fastrand::Rng;
use rustix::fs::{OFlags, ioctl_blksszget};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use units::{PAGE, Size};

/// What is done, and how often.
#[derive(Args)]
pub struct Sequence {
    /// The disk
    disk: PathBuf,
    /// Which sequence
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many things are done
    #[arg(long, default_value_t = 600)]
    steps: u32,
    /// How much of the disk is used, from its start
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(16))]
    length: Size,
    /// Make pages bad by the disk's list, that whole pages are written over
    #[arg(long)]
    bad: bool,
}

/// The disk, and what must be on it.
struct Disk {
    file: File,
    /// Where bad sectors can be added.
    list: PathBuf,
    image: Vec<u8>,
    /// Bytes of its sectors.
    sector: usize,
    random: Rng,
}

/// Bytes that direct I/O wants memory to be aligned to, at least.
const ALIGN: usize = 512;
/// At most so many pieces, each of at most so many sectors.
const PIECES: usize = 24;
const SECTORS: usize = 24;
const PAGE_BYTES: usize = PAGE as usize;

impl Sequence {
    /// Does it all; prints what was done, and the checksum of what is on the disk then. The number of
    /// places where something else is than must be.
    pub fn run(&self) -> Result<usize> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&self.disk)
            .with_context(|| self.disk.display().to_string())?;
        let name = self.disk.file_name().context("a disk's name")?;
        let sector = ioctl_blksszget(&file).context("this is no disk")? as usize;
        let mut disk = Disk {
            file,
            list: PathBuf::from("/sys/block").join(name).join("badblocks"),
            image: vec![0; usize::try_from(self.length.bytes())?],
            sector,
            random: Rng::with_seed(self.seed),
        };
        disk.zero(0..disk.image.len())?;
        let mut wrong = 0;
        let mut done = [0; 7];
        for _ in 0..self.steps {
            let kind = disk.random.usize(0..if self.bad { 7 } else { 6 });
            done[kind] += 1;
            match kind {
                0 => disk.write(false, ReadWriteFlags::empty())?,
                1 => disk.write(true, ReadWriteFlags::empty())?,
                2 => disk.write(true, ReadWriteFlags::DSYNC)?,
                3 => {
                    let range = disk.range(1024, disk.sector);
                    disk.zero(range)?;
                }
                4 => disk.file.sync_all().context("fsync")?,
                5 => wrong += disk.read()?,
                _ => disk.fail_and_heal()?,
            }
        }
        let all = disk.read_range(0..disk.image.len(), 1 << 20)?;
        wrong += disk.differences(&all, 0);
        let [plain, pieces, durable, zeroed, flushed, read, healed] = done;
        println!(
            "{plain} writes, {pieces} of pieces, {durable} durable, {zeroed} zeroed, {flushed} flushes, {read} reads, {healed} bad pages: \
             checksum {:08x}",
            crc32fast::hash(&all)
        );
        Ok(wrong)
    }
}

impl Disk {
    /// A range of at most so many units, which begins and ends at one.
    fn range(&mut self, most: usize, unit: usize) -> Range<usize> {
        let units = self.image.len() / unit;
        let length = self.random.usize(1..=most.min(units));
        let start = self.random.usize(0..=units - length);
        start * unit..(start + length) * unit
    }

    /// Lengths of pieces, all of sectors.
    fn pieces(&mut self) -> Vec<usize> {
        let count = self.random.usize(1..=PIECES);
        let piece = |random: &mut Rng| random.usize(1..=SECTORS) * self.sector;
        (0..count).map(|_| piece(&mut self.random)).collect()
    }

    /// A place for so many bytes.
    fn place(&mut self, length: usize) -> Range<usize> {
        let start = self
            .random
            .usize(0..=(self.image.len() - length) / self.sector)
            * self.sector;
        start..start + length
    }

    /// Writes random bytes: at once, or from pieces of memory that begin anywhere.
    fn write(&mut self, in_pieces: bool, flags: ReadWriteFlags) -> Result<()> {
        let lengths = match in_pieces {
            true => self.pieces(),
            false => vec![self.range(512, self.sector).len()],
        };
        let range = self.place(lengths.iter().sum());
        let mut buffers: Vec<DirectBuffer> = lengths
            .iter()
            .map(|&length| memory(length, &mut self.random))
            .collect();
        for piece in &mut buffers {
            self.random.fill(piece.bytes());
        }
        let bytes: Vec<u8> = buffers
            .iter_mut()
            .flat_map(|piece| piece.bytes().to_vec())
            .collect();
        let slices: Vec<IoSlice<'_>> = buffers
            .iter_mut()
            .map(|piece| IoSlice::new(piece.bytes()))
            .collect();
        let written = pwritev2(&self.file, &slices, range.start as u64, flags)
            .with_context(|| format!("write of {} bytes at {}", range.len(), range.start))?;
        ensure!(
            written == range.len(),
            "{written} of {} bytes written",
            range.len()
        );
        self.image[range].copy_from_slice(&bytes);
        Ok(())
    }

    /// Reads into pieces of memory that begin anywhere. The number of sectors that differ.
    fn read(&mut self) -> Result<usize> {
        let lengths = self.pieces();
        let range = self.place(lengths.iter().sum());
        let mut buffers: Vec<DirectBuffer> = lengths
            .iter()
            .map(|&length| memory(length, &mut self.random))
            .collect();
        let mut slices: Vec<IoSliceMut<'_>> = buffers
            .iter_mut()
            .map(|piece| IoSliceMut::new(piece.bytes()))
            .collect();
        let got = preadv2(
            &self.file,
            &mut slices,
            range.start as u64,
            ReadWriteFlags::empty(),
        )
        .with_context(|| format!("read of {} bytes at {}", range.len(), range.start))?;
        ensure!(got == range.len(), "{got} of {} bytes read", range.len());
        let bytes: Vec<u8> = buffers
            .iter_mut()
            .flat_map(|piece| piece.bytes().to_vec())
            .collect();
        Ok(self.differences(&bytes, range.start))
    }

    fn zero(&mut self, range: Range<usize>) -> Result<()> {
        ioctl::zero_out(&self.file, range.start as u64, range.len() as u64)
            .with_context(|| format!("zeroes at {}", range.start))?;
        self.image[range].fill(0);
        Ok(())
    }

    /// Lists some pages as bad, sees that they can't be read, and writes or zeroes them, with some more.
    fn fail_and_heal(&mut self) -> Result<()> {
        let bad = self.range(8, PAGE_BYTES);
        let entry = format!("{} {}", bad.start / 512, bad.len() / 512);
        fs::write(&self.list, &entry)
            .with_context(|| format!("{}: {entry}", self.list.display()))?;
        let mut buffer = memory(PAGE_BYTES, &mut self.random);
        match self.file.read_at(buffer.bytes(), bad.start as u64) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {}
            other => ensure!(false, "a read of the bad page at {}: {other:?}", bad.start),
        }
        let before = self.random.usize(0..4) * PAGE_BYTES;
        let behind = self.random.usize(0..4) * PAGE_BYTES;
        let around = bad.start.saturating_sub(before)..(bad.end + behind).min(self.image.len());
        if self.random.bool() {
            return self.zero(around);
        }
        let mut buffer = memory(around.len(), &mut self.random);
        self.random.fill(buffer.bytes());
        self.file
            .write_all_at(buffer.bytes(), around.start as u64)
            .with_context(|| format!("write over the bad pages at {}", bad.start))?;
        self.image[around].copy_from_slice(buffer.bytes());
        Ok(())
    }

    fn read_range(&mut self, range: Range<usize>, each: usize) -> Result<Vec<u8>> {
        let mut all = Vec::with_capacity(range.len());
        for start in range.clone().step_by(each) {
            let mut buffer = memory(each.min(range.end - start), &mut self.random);
            self.file
                .read_exact_at(buffer.bytes(), start as u64)
                .with_context(|| format!("read at {start}"))?;
            all.extend_from_slice(buffer.bytes());
        }
        Ok(all)
    }

    /// Says which sectors are not what must be at `start`.
    fn differences(&self, found: &[u8], start: usize) -> usize {
        let wanted = self.image[start..start + found.len()].chunks(self.sector);
        let wrong: Vec<usize> = found
            .chunks(self.sector)
            .zip(wanted)
            .enumerate()
            .filter(|(_, (found, wanted))| found != wanted)
            .map(|(index, _)| start + index * self.sector)
            .collect();
        for at in wrong.iter().take(8) {
            println!("not what was written: the sector at byte {at}");
        }
        wrong.len()
    }
}

/// Allocates memory at a random multiple of the least alignment.
fn memory(length: usize, random: &mut Rng) -> DirectBuffer {
    DirectBuffer::misaligned(length, random.usize(0..PAGE_BYTES / ALIGN) * ALIGN)
}
