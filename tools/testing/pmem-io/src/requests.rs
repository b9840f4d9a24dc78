// SPDX-License-Identifier: GPL-2.0

//! `pmem-io requests`: random requests to a disk by io_uring, many at once, compared with a copy in memory.

use crate::sequence::{differences, unaligned_buffer};
use abstractions::DirectBuffer;
use abstractions::queue::{Kind, Queue, Request};
use anyhow::{Context, Result, bail};
use clap::Args;
use fastrand::Rng;
use rustix::fs::{OFlags, ioctl_blksszget};
use rustix::io::{Errno, ReadWriteFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Instant;
use units::{PAGE, Size};

#[derive(Args)]
pub struct Requests {
    /// The disk
    disk: PathBuf,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of times that requests are made, up to 32 at once
    #[arg(long, default_value_t = 60)]
    batches: u32,
    /// Stop after this time
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// How much of the disk to use, from its start
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(16))]
    length: Size,
    /// Add pages to the disk's badblocks, and repair them by overwrites of whole pages
    #[arg(long)]
    bad: bool,
    /// Poll the disk for the ends of requests
    #[arg(long)]
    polled: bool,
}

/// The most requests at once.
const DEPTH: usize = 32;
/// The most buffers of a vector: more than a bio has room for.
const MAX_BUFFERS: usize = 300;
const PAGE_BYTES: usize = PAGE as usize;

/// The expected contents of a disk.
struct Model {
    image: Vec<u8>,
    /// Numbers of the bad pages.
    bad: BTreeSet<usize>,
    sector: usize,
    /// The size of the disk in bytes.
    size: u64,
    random: Rng,
}

/// What may become of a request.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// All of it is done.
    Done,
    /// Some other number of bytes.
    Bytes(usize),
    /// It fails, and changes nothing.
    Fails(Errno),
}

impl Requests {
    /// Makes the requests, and prints how many had each result. Returns how many sectors differed.
    pub fn run(&self) -> Result<usize> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&self.disk)
            .with_context(|| self.disk.display().to_string())?;
        let name = self.disk.file_name().context("the path has no file name")?;
        let sysfs = PathBuf::from("/sys/block").join(name);
        let sectors: u64 = fs::read_to_string(sysfs.join("size"))?.trim().parse()?;
        let length = usize::try_from(self.length.bytes())?;
        let mut model = Model {
            image: vec![0; length],
            bad: BTreeSet::new(),
            sector: ioctl_blksszget(&file).context("not a block device")? as usize,
            size: sectors * 512,
            random: Rng::with_seed(self.seed),
        };
        model.overwrite(&file, 0..length)?;
        let mut queue = Queue::new(DEPTH as u32, self.polled).context("io_uring")?;
        let mut different = 0;
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let begin = Instant::now();
        for _ in 0..self.batches {
            if self
                .seconds
                .is_some_and(|seconds| begin.elapsed().as_secs() >= seconds)
            {
                break;
            }
            if self.bad && model.bad.len() < 64 {
                let page = model.random.usize(0..length / PAGE_BYTES - 8);
                let pages = page..page + model.random.usize(1..8);
                let sectors = PAGE_BYTES / 512;
                let entry = format!("{} {}", pages.start * sectors, pages.len() * sectors);
                fs::write(sysfs.join("badblocks"), &entry).context("badblocks")?;
                model.bad.extend(pages);
            }
            let mut requests = model.requests(!self.polled);
            let results = queue.submit(&file, &mut requests).context("io_uring")?;
            for (request, result) in requests.iter_mut().zip(results) {
                *seen.entry(describe(request, &result)).or_default() += 1;
                different += model.check(request, &result)?;
            }
        }
        let bad: Vec<usize> = model.bad.iter().copied().collect();
        for page in bad {
            model.overwrite(&file, page * PAGE_BYTES..(page + 1) * PAGE_BYTES)?;
        }
        let mut all = vec![0; length];
        for (index, part) in all.chunks_mut(1 << 20).enumerate() {
            let mut buffer = unaligned_buffer(part.len(), &mut model.random);
            file.read_exact_at(buffer.bytes(), (index as u64) << 20)?;
            part.copy_from_slice(buffer.bytes());
        }
        different += differences(&all, &model.image, 0, model.sector);
        for (what, count) in seen {
            println!("{count:6} {what}");
        }
        Ok(different)
    }
}

impl Model {
    /// Returns requests that may be made at once: none shares a page with a write.
    fn requests(&mut self, flushes: bool) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::new();
        let mut taken: Vec<Range<usize>> = Vec::new();
        for _ in 0..self.random.usize(1..=DEPTH) {
            let request = self.request(flushes);
            let pages = pages_of(&request);
            if taken
                .iter()
                .all(|other| pages.end <= other.start || other.end <= pages.start)
            {
                taken.push(pages);
                requests.push(request);
            }
        }
        requests
    }

    fn request(&mut self, flushes: bool) -> Request {
        if flushes && self.random.u32(0..10) == 0 {
            return self.with_flags(Kind::Flush, 0, Vec::new());
        }
        let kind = match self.random.bool() {
            true => Kind::Read,
            false => Kind::Write,
        };
        let mut lengths = match self.random.u32(0..4) {
            // Many small ones.
            0 => (0..self.random.usize(1..=MAX_BUFFERS))
                .map(|_| self.random.usize(1..=4) * self.sector)
                .collect(),
            // A few.
            1 => (0..self.random.usize(1..=8))
                .map(|_| self.random.usize(1..=64) * self.sector)
                .collect(),
            _ => vec![self.random.usize(1..=512 * 1024 / self.sector) * self.sector],
        };
        let mut length: usize = lengths.iter().sum();
        let mut offset = self
            .random
            .usize(0..=(self.image.len() - length) / self.sector)
            * self.sector;
        if kind == Kind::Write && self.has_bad(offset..offset + length) {
            // A repair takes whole pages, also where the block layer divides the request.
            offset = offset / PAGE_BYTES * PAGE_BYTES;
            length = length.div_ceil(PAGE_BYTES).min(64) * PAGE_BYTES;
            length = length.min(self.image.len() - offset);
            lengths = vec![length];
        }
        match self.random.u32(0..16) {
            // Not whole sectors.
            0 => offset += self.random.usize(1..self.sector),
            1 => {
                if let Some(last) = lengths.last_mut() {
                    *last -= self.random.usize(1..self.sector);
                }
            }
            // At the end of the disk, and behind it.
            2 if kind == Kind::Read => {
                let sectors = self.random.u64(0..4);
                offset = (self.size - sectors * self.sector as u64) as usize;
            }
            3 => offset = self.size as usize,
            _ => {}
        }
        let buffers = lengths
            .iter()
            .map(|&length| {
                let mut buffer = unaligned_buffer(length, &mut self.random);
                self.random.fill(buffer.bytes());
                buffer
            })
            .collect();
        self.with_flags(kind, offset as u64, buffers)
    }

    fn with_flags(&mut self, kind: Kind, offset: u64, buffers: Vec<DirectBuffer>) -> Request {
        let mut flags = ReadWriteFlags::empty();
        if kind == Kind::Write && self.random.u32(0..4) == 0 {
            flags |= ReadWriteFlags::DSYNC;
        }
        if kind != Kind::Flush && self.random.u32(0..5) == 0 {
            flags |= ReadWriteFlags::NOWAIT;
        }
        Request {
            kind,
            offset,
            buffers,
            flags,
            by_worker: self.random.u32(0..5) == 0,
        }
    }

    fn has_bad(&self, range: Range<usize>) -> bool {
        let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
        self.bad.range(pages).next().is_some()
    }

    /// Returns what must become of a request.
    fn expected(&self, request: &Request) -> Expected {
        let length = length_of(request);
        let offset = request.offset;
        if request.kind == Kind::Flush {
            return Expected::Bytes(0);
        }
        if offset % self.sector as u64 != 0 || length % self.sector != 0 {
            return Expected::Fails(Errno::INVAL);
        }
        if offset >= self.size && request.kind == Kind::Write {
            return Expected::Fails(Errno::NOSPC);
        }
        if offset + length as u64 > self.size {
            return Expected::Bytes((self.size - offset) as usize);
        }
        let range = offset as usize..offset as usize + length;
        if request.kind == Kind::Read && range.end <= self.image.len() && self.has_bad(range) {
            return Expected::Fails(Errno::IO);
        }
        Expected::Done
    }

    /// Checks the result of a request, and follows what it has changed. Returns how many sectors differ.
    fn check(&mut self, request: &mut Request, result: &io::Result<usize>) -> Result<usize> {
        let length = length_of(request);
        let waits = !request.flags.contains(ReadWriteFlags::NOWAIT);
        match (self.expected(request), result) {
            // A disk need not support it.
            (_, Err(error))
                if !waits && matches!(errno(error), Some(Errno::AGAIN | Errno::OPNOTSUPP)) =>
            {
                return Ok(0);
            }
            (Expected::Fails(wanted), Err(error)) if errno(error) == Some(wanted) => return Ok(0),
            (Expected::Bytes(wanted), Ok(bytes)) if *bytes == wanted => return Ok(0),
            (Expected::Done, Ok(bytes)) if *bytes == length => {}
            (expected, result) => bail!(
                "{:?} of {length} bytes in {} buffers at {}, {:?}: {result:?}, and not {expected:?}",
                request.kind,
                request.buffers.len(),
                request.offset,
                request.flags
            ),
        }
        let start = request.offset as usize;
        if start + length > self.image.len() {
            return Ok(0);
        }
        let bytes: Vec<u8> = request
            .buffers
            .iter_mut()
            .flat_map(|buffer| buffer.bytes().to_vec())
            .collect();
        if request.kind == Kind::Read {
            return Ok(differences(
                &bytes,
                &self.image[start..start + length],
                start,
                self.sector,
            ));
        }
        self.image[start..start + length].copy_from_slice(&bytes);
        self.bad.retain(|page| {
            !(start / PAGE_BYTES..(start + length).div_ceil(PAGE_BYTES)).contains(page)
        });
        Ok(0)
    }

    /// Writes random bytes.
    fn overwrite(&mut self, file: &File, range: Range<usize>) -> Result<()> {
        let mut buffer = unaligned_buffer(range.len(), &mut self.random);
        self.random.fill(buffer.bytes());
        file.write_all_at(buffer.bytes(), range.start as u64)
            .with_context(|| format!("write of {} bytes at {}", range.len(), range.start))?;
        self.image[range].copy_from_slice(buffer.bytes());
        Ok(())
    }
}

fn length_of(request: &Request) -> usize {
    request.buffers.iter().map(DirectBuffer::len).sum()
}

fn pages_of(request: &Request) -> Range<usize> {
    let start = request.offset as usize;
    start / PAGE_BYTES..(start + length_of(request)).div_ceil(PAGE_BYTES)
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// Describes a request and its result, without places and lengths.
fn describe(request: &Request, result: &io::Result<usize>) -> String {
    let what = match request.kind {
        Kind::Read => "reads",
        Kind::Write => "writes",
        Kind::Flush => "flushes",
    };
    let mut text = what.to_owned();
    for (flag, name) in [
        (ReadWriteFlags::DSYNC, ", durable"),
        (ReadWriteFlags::NOWAIT, ", without waiting"),
    ] {
        if request.flags.contains(flag) {
            text.push_str(name);
        }
    }
    if request.by_worker {
        text.push_str(", by a worker");
    }
    match result {
        Ok(_) => text + ": done",
        Err(error) => format!("{text}: {error}"),
    }
}
