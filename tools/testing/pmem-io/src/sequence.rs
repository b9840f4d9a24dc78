// SPDX-License-Identifier: GPL-2.0

//! `pmem-io sequence`: random reads and writes of a disk, compared with a copy in memory.

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

#[derive(Args)]
pub struct Sequence {
    /// The disk
    disk: PathBuf,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of steps
    #[arg(long, default_value_t = 600)]
    steps: u32,
    /// How much of the disk to use, from its start
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(16))]
    length: Size,
    /// Add pages to the disk's badblocks and repair them by overwrites of whole pages
    #[arg(long)]
    bad: bool,
}

struct Disk {
    file: File,
    /// The disk's `badblocks`.
    badblocks: PathBuf,
    /// The expected contents.
    image: Vec<u8>,
    /// Logical block size.
    sector: usize,
    random: Rng,
}

/// Least alignment of memory for direct I/O.
const ALIGN: usize = 512;
/// Maximum number of buffers of a vector.
const MAX_BUFFERS: usize = 24;
/// Maximum number of sectors of a buffer.
const MAX_SECTORS: usize = 24;
const PAGE_BYTES: usize = PAGE as usize;

impl Sequence {
    /// Does the steps, then prints how many of each kind they were and a checksum of the disk.
    ///
    /// Returns how many sectors differed.
    pub fn run(&self) -> Result<usize> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&self.disk)
            .with_context(|| self.disk.display().to_string())?;
        let name = self.disk.file_name().context("the path has no file name")?;
        let sector = ioctl_blksszget(&file).context("not a block device")? as usize;
        let mut disk = Disk {
            file,
            badblocks: PathBuf::from("/sys/block").join(name).join("badblocks"),
            image: vec![0; usize::try_from(self.length.bytes())?],
            sector,
            random: Rng::with_seed(self.seed),
        };
        disk.zero(0..disk.image.len())?;
        let mut different = 0;
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
                5 => different += disk.read()?,
                _ => disk.fail_and_repair()?,
            }
        }
        let all = disk.read_range(0..disk.image.len(), 1 << 20)?;
        different += disk.differences(&all, 0);
        let [plain, vectors, durable, zeroed, flushed, read, repaired] = done;
        println!(
            "{plain} writes, {vectors} of pieces, {durable} durable, {zeroed} zeroed, {flushed} flushes, {read} reads, {repaired} bad pages: \
             checksum {:08x}",
            crc32fast::hash(&all)
        );
        Ok(different)
    }
}

impl Disk {
    /// Returns a random range of at most `max` units.
    fn range(&mut self, max: usize, unit: usize) -> Range<usize> {
        let units = self.image.len() / unit;
        let length = self.random.usize(1..=max.min(units));
        let start = self.random.usize(0..=units - length);
        start * unit..(start + length) * unit
    }

    /// Returns random lengths of buffers, in whole sectors.
    fn lengths(&mut self) -> Vec<usize> {
        let count = self.random.usize(1..=MAX_BUFFERS);
        let length = |random: &mut Rng| random.usize(1..=MAX_SECTORS) * self.sector;
        (0..count).map(|_| length(&mut self.random)).collect()
    }

    /// Returns a random range of `length` bytes.
    fn place(&mut self, length: usize) -> Range<usize> {
        let start = self
            .random
            .usize(0..=(self.image.len() - length) / self.sector)
            * self.sector;
        start..start + length
    }

    /// Writes random bytes from one buffer or from a vector of unaligned buffers.
    fn write(&mut self, vector: bool, flags: ReadWriteFlags) -> Result<()> {
        let lengths = match vector {
            true => self.lengths(),
            false => vec![self.range(512, self.sector).len()],
        };
        let range = self.place(lengths.iter().sum());
        let mut buffers: Vec<DirectBuffer> = lengths
            .iter()
            .map(|&length| unaligned_buffer(length, &mut self.random))
            .collect();
        for buffer in &mut buffers {
            self.random.fill(buffer.bytes());
        }
        let bytes: Vec<u8> = buffers
            .iter_mut()
            .flat_map(|buffer| buffer.bytes().to_vec())
            .collect();
        let slices: Vec<IoSlice<'_>> = buffers
            .iter_mut()
            .map(|buffer| IoSlice::new(buffer.bytes()))
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

    /// Reads into a vector of unaligned buffers; returns how many sectors differ.
    fn read(&mut self) -> Result<usize> {
        let lengths = self.lengths();
        let range = self.place(lengths.iter().sum());
        let mut buffers: Vec<DirectBuffer> = lengths
            .iter()
            .map(|&length| unaligned_buffer(length, &mut self.random))
            .collect();
        let mut slices: Vec<IoSliceMut<'_>> = buffers
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer.bytes()))
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
            .flat_map(|buffer| buffer.bytes().to_vec())
            .collect();
        Ok(self.differences(&bytes, range.start))
    }

    fn zero(&mut self, range: Range<usize>) -> Result<()> {
        ioctl::zero_out(&self.file, range.start as u64, range.len() as u64)
            .with_context(|| format!("zeroing at {}", range.start))?;
        self.image[range].fill(0);
        Ok(())
    }

    /// Makes pages bad, checks that reads fail, and repairs them by a write or zeroing that may cover more.
    fn fail_and_repair(&mut self) -> Result<()> {
        let bad = self.range(8, PAGE_BYTES);
        let entry = format!("{} {}", bad.start / 512, bad.len() / 512);
        fs::write(&self.badblocks, &entry)
            .with_context(|| format!("{}: {entry}", self.badblocks.display()))?;
        for page in bad.clone().step_by(PAGE_BYTES) {
            let mut buffer = unaligned_buffer(PAGE_BYTES, &mut self.random);
            match self.file.read_at(buffer.bytes(), page as u64) {
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {}
                other => ensure!(false, "read of the bad page at {page}: {other:?}"),
            }
        }
        let before = self.random.usize(0..4) * PAGE_BYTES;
        let behind = self.random.usize(0..4) * PAGE_BYTES;
        let around = bad.start.saturating_sub(before)..(bad.end + behind).min(self.image.len());
        if self.random.bool() {
            return self.zero(around);
        }
        let mut buffer = unaligned_buffer(around.len(), &mut self.random);
        self.random.fill(buffer.bytes());
        self.file
            .write_all_at(buffer.bytes(), around.start as u64)
            .with_context(|| format!("overwrite of the bad pages at {}", bad.start))?;
        self.image[around].copy_from_slice(buffer.bytes());
        Ok(())
    }

    fn read_range(&mut self, range: Range<usize>, each: usize) -> Result<Vec<u8>> {
        let mut all = Vec::with_capacity(range.len());
        for start in range.clone().step_by(each) {
            let mut buffer = unaligned_buffer(each.min(range.end - start), &mut self.random);
            self.file
                .read_exact_at(buffer.bytes(), start as u64)
                .with_context(|| format!("read at {start}"))?;
            all.extend_from_slice(buffer.bytes());
        }
        Ok(all)
    }

    fn differences(&self, found: &[u8], start: usize) -> usize {
        let wanted = &self.image[start..start + found.len()];
        differences(found, wanted, start, self.sector)
    }
}

/// Compares what was found at byte `start` with the expected contents, and prints the first sectors that differ;
/// returns how many do.
pub fn differences(found: &[u8], wanted: &[u8], start: usize, sector: usize) -> usize {
    let different: Vec<usize> = found
        .chunks(sector)
        .zip(wanted.chunks(sector))
        .enumerate()
        .filter(|(_, (found, wanted))| found != wanted)
        .map(|(index, _)| start + index * sector)
        .collect();
    for at in different.iter().take(8) {
        println!("the sector at byte {at} differs from the written data");
    }
    different.len()
}

/// Allocates a buffer at a random multiple of the least alignment.
pub fn unaligned_buffer(length: usize, random: &mut Rng) -> DirectBuffer {
    DirectBuffer::misaligned(length, random.usize(0..PAGE_BYTES / ALIGN) * ALIGN)
}
