// SPDX-License-Identifier: GPL-2.0

//! `pmem-io requests`: random requests to a disk by io_uring, many at once, compared with a copy in memory.

use crate::sequence::{differences, unaligned_buffer};
use abstractions::DirectBuffer;
use abstractions::queue::{Kind, Queue, Request};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fastrand::Rng;
use rustix::fs::{FallocateFlags, OFlags, ioctl_blksszget};
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
    /// How much of the disk to use, from its start; its last sectors are used in any case
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(16))]
    length: Size,
    /// Add pages to the disk's badblocks, and repair them by overwrites of whole pages
    #[arg(long)]
    bad: bool,
}

/// The most requests at once.
const DEPTH: usize = 32;
/// The most buffers of a vector: more than a bio has room for.
const MAX_BUFFERS: usize = 300;
const PAGE_BYTES: usize = PAGE as usize;

/// Alignment of memory and lengths of buffers that every disk accepts.
const ALIGN: usize = 512;
/// Sectors at the end of the disk that are used.
const LAST: usize = 64;

/// The expected contents of a disk.
struct Model {
    /// The used bytes: those from the start of the disk, and its last ones.
    image: Vec<u8>,
    /// How many of them are from the start.
    head: usize,
    /// Numbers of the bad pages, which are in the head.
    bad: BTreeSet<usize>,
    sector: usize,
    /// The size of the disk in bytes.
    size: usize,
    /// Whether the disk has an operation to write zeroes. Without it, the kernel writes pages of zeroes, but punches no
    /// holes.
    zeroes: bool,
    random: Rng,
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
        let mut model = Model::new(
            usize::try_from(sectors * 512)?,
            ioctl_blksszget(&file).context("not a block device")? as usize,
            usize::try_from(self.length.bytes())?,
            Rng::with_seed(self.seed),
        )?;
        let zeroes = fs::read_to_string(sysfs.join("queue/write_zeroes_max_bytes"))?;
        model.zeroes = zeroes.trim() != "0";
        for place in model.places() {
            model.overwrite(&file, place)?;
        }
        let mut queue = Queue::new(DEPTH as u32).context("io_uring")?;
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
                let page = model.random.usize(0..model.head / PAGE_BYTES - 8);
                let pages = page..page + model.random.usize(1..8);
                let sectors = PAGE_BYTES / 512;
                let entry = format!("{} {}", pages.start * sectors, pages.len() * sectors);
                fs::write(sysfs.join("badblocks"), &entry).context("badblocks")?;
                model.bad.extend(pages);
            }
            let mut requests = model.requests();
            let results = queue.submit(&file, &mut requests).context("io_uring")?;
            for (request, result) in requests.iter_mut().zip(results) {
                let end = result
                    .as_ref()
                    .map_or_else(io::Error::to_string, |_| "done".into());
                *seen
                    .entry(format!("{}: {end}", describe(request)))
                    .or_default() += 1;
                different += model.check(request, &result)?;
            }
        }
        let bad: Vec<usize> = model.bad.iter().copied().collect();
        for page in bad {
            model.overwrite(&file, page * PAGE_BYTES..(page + 1) * PAGE_BYTES)?;
        }
        for place in model.places() {
            for start in place.clone().step_by(1 << 20) {
                let length = (place.end - start).min(1 << 20);
                let mut buffer = unaligned_buffer(length, &mut model.random);
                file.read_exact_at(buffer.bytes(), start as u64)?;
                different += model.differences(buffer.bytes(), start);
            }
        }
        for (what, count) in seen {
            println!("{count:6} {what}");
        }
        Ok(different)
    }
}

impl Model {
    fn new(size: usize, sector: usize, head: usize, random: Rng) -> Result<Self> {
        ensure!(head <= size, "the disk has only {size} bytes");
        let last = (LAST * sector).min(size - head);
        Ok(Self {
            image: vec![0; head + last],
            head,
            bad: BTreeSet::new(),
            sector,
            size,
            zeroes: false,
            random,
        })
    }

    /// Returns the parts of the disk that are used.
    fn places(&self) -> [Range<usize>; 2] {
        let last = self.image.len() - self.head;
        [0..self.head, self.size - last..self.size]
    }

    /// Returns the expected bytes of a part of the disk.
    fn contents(&mut self, place: Range<usize>) -> &mut [u8] {
        let unused = match place.start < self.head {
            true => 0,
            false => self.size - self.image.len(),
        };
        &mut self.image[place.start - unused..place.end - unused]
    }

    /// Prints where the bytes that were found differ; returns how many sectors do.
    fn differences(&mut self, found: &[u8], start: usize) -> usize {
        let sector = self.sector;
        differences(
            found,
            self.contents(start..start + found.len()),
            start,
            sector,
        )
    }

    /// Returns requests that may be made at once: none shares a page with a write.
    fn requests(&mut self) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::new();
        let mut taken: Vec<Range<usize>> = Vec::new();
        for _ in 0..self.random.usize(1..=DEPTH) {
            let request = self.request();
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

    fn request(&mut self) -> Request {
        match self.random.u32(0..10) {
            0 => self.with_flags(Kind::Flush, 0, Vec::new()),
            1 | 2 => self.allocation(),
            _ => self.transfer(),
        }
    }

    /// Returns a request that zeroes sectors, or that a disk does not support.
    fn allocation(&mut self) -> Request {
        let (zero, punch) = (FallocateFlags::ZERO_RANGE, FallocateFlags::PUNCH_HOLE);
        let keep = FallocateFlags::KEEP_SIZE;
        let mode = self.random.choice([
            zero,
            zero,
            zero | keep,
            zero | keep,
            punch | keep,
            punch,
            FallocateFlags::COLLAPSE_RANGE,
            FallocateFlags::empty(),
        ]);
        let mode = mode.unwrap_or(zero);
        let mut length = self.random.usize(0..=512 * 1024 / self.sector) * self.sector;
        if length > 0 && self.random.u32(0..16) == 0 {
            length -= self.random.usize(1..self.sector);
        }
        let mut offset = self.offset(length);
        if let Some(pages) = self.repair(offset..offset + length) {
            (offset, length) = (pages.start, pages.len());
        }
        self.with_flags(
            Kind::Allocate(mode, length as u64),
            offset as u64,
            Vec::new(),
        )
    }

    /// Returns a read or a write.
    fn transfer(&mut self) -> Request {
        let kind = match self.random.bool() {
            true => Kind::Read,
            false => Kind::Write,
        };
        let mut lengths = self.lengths();
        let length: usize = lengths.iter().sum();
        let mut offset = self.offset(length);
        if kind == Kind::Write {
            if let Some(pages) = self.repair(offset..offset + length) {
                (offset, lengths) = (pages.start, vec![pages.len()]);
            }
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

    /// Returns the lengths of a vector's buffers, as a rule whole sectors together.
    fn lengths(&mut self) -> Vec<usize> {
        let mut lengths: Vec<usize> = match self.random.u32(0..4) {
            // Many small ones, some of them empty.
            0 => (0..self.random.usize(1..=MAX_BUFFERS))
                .map(|_| self.random.usize(0..=4 * self.sector / ALIGN) * ALIGN)
                .collect(),
            // A few.
            1 => (0..self.random.usize(1..=8))
                .map(|_| self.random.usize(1..=64) * self.sector)
                .collect(),
            _ => vec![self.random.usize(1..=512 * 1024 / self.sector) * self.sector],
        };
        let length: usize = lengths.iter().sum();
        let last = lengths.len() - 1;
        lengths[last] += length.next_multiple_of(self.sector) - length;
        match (self.random.u32(0..16), lengths[last]) {
            // Not whole sectors.
            (0, most @ 1..) => {
                lengths[last] -= self.random.usize(1..=most.min(self.sector - 1));
            }
            // Divided at any byte.
            (1, 1..) if last == 0 => {
                let first = self.random.usize(0..lengths[0]);
                lengths = vec![first, lengths[0] - first];
            }
            _ => {}
        }
        lengths
    }

    /// Returns where a request of a length begins: as a rule at a sector of the head, so that it ends there, too.
    fn offset(&mut self, length: usize) -> usize {
        let sectors = (self.head - length) / self.sector;
        let offset = self.random.usize(0..=sectors) * self.sector;
        match self.random.u32(0..16) {
            // Not a whole number of sectors.
            0 => offset + self.random.usize(1..self.sector),
            // Near the end of the disk, and across it.
            1 => self.size - self.random.usize(1..=LAST) * self.sector,
            // Behind it.
            2 => self.size + self.random.usize(0..2 * self.sector),
            _ => offset,
        }
    }

    /// Returns what to write instead, if a part of the disk has bad pages: a repair takes whole pages, also where the
    /// block layer divides the request.
    fn repair(&self, place: Range<usize>) -> Option<Range<usize>> {
        self.has_bad(place.clone()).then(|| {
            let start = place.start / PAGE_BYTES * PAGE_BYTES;
            let pages = place.len().div_ceil(PAGE_BYTES).min(64);
            start..(start + pages * PAGE_BYTES).min(self.head)
        })
    }

    fn with_flags(&mut self, kind: Kind, offset: u64, buffers: Vec<DirectBuffer>) -> Request {
        let mut flags = ReadWriteFlags::empty();
        if kind == Kind::Write {
            for flag in [ReadWriteFlags::DSYNC, ReadWriteFlags::SYNC] {
                flags.set(flag, self.random.u32(0..6) == 0);
            }
        }
        if matches!(kind, Kind::Read | Kind::Write) && self.random.u32(0..5) == 0 {
            flags |= ReadWriteFlags::NOWAIT;
        }
        Request {
            kind,
            offset,
            registered: buffers.len() == 1 && self.random.bool(),
            buffers,
            flags,
            by_worker: self.random.u32(0..5) == 0,
        }
    }

    fn has_bad(&self, place: Range<usize>) -> bool {
        let pages = place.start / PAGE_BYTES..place.end.div_ceil(PAGE_BYTES);
        self.bad.range(pages).next().is_some()
    }

    /// Returns how many bytes a request must transfer, or how it must fail, and then change nothing.
    fn expected(&self, request: &Request) -> Result<usize, Errno> {
        let (start, length) = (request.offset as usize, length_of(request));
        let count = length.min(self.size.saturating_sub(start));
        match request.kind {
            Kind::Flush => return Ok(0),
            Kind::Allocate(mode, _) => return self.expected_of_allocation(mode, start, length),
            _ if length == 0 => return Ok(0),
            Kind::Write if count == 0 => return Err(Errno::NOSPC),
            Kind::Read if count == 0 => return Ok(0),
            Kind::Read | Kind::Write => {}
        }
        // The kernel checks whole buffers of a vector, also the one that the end of the disk cuts.
        let mut used = request.buffers.iter().scan(0, |end, buffer| {
            let is_used = *end < count;
            *end += buffer.len();
            is_used.then_some(buffer)
        });
        let is_odd = used.any(|buffer| buffer.len() % ALIGN != 0);
        if (start | count) % self.sector != 0 || (is_odd && request.buffers.len() > 1) {
            return Err(Errno::INVAL);
        }
        match request.kind == Kind::Read && self.has_bad(start..start + count) {
            true => Err(Errno::IO),
            false => Ok(count),
        }
    }

    /// The same for fallocate(2), which may zero sectors.
    fn expected_of_allocation(
        &self,
        mode: FallocateFlags,
        start: usize,
        length: usize,
    ) -> Result<usize, Errno> {
        let known =
            FallocateFlags::ZERO_RANGE | FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let keeps = mode.contains(FallocateFlags::KEEP_SIZE);
        if length == 0 {
            return Err(Errno::INVAL);
        }
        if !known.contains(mode) || mode == FallocateFlags::PUNCH_HOLE {
            return Err(Errno::OPNOTSUPP);
        }
        if start >= self.size || (start + length > self.size && !keeps) {
            return Err(Errno::INVAL);
        }
        let count = length.min(self.size - start);
        if (start | count) % self.sector != 0 {
            return Err(Errno::INVAL);
        }
        match mode.contains(FallocateFlags::ZERO_RANGE)
            || (self.zeroes && mode.contains(FallocateFlags::PUNCH_HOLE))
        {
            true => Ok(0),
            false => Err(Errno::OPNOTSUPP),
        }
    }

    /// Checks the result of a request, and follows what it has changed. Returns how many sectors differ.
    fn check(&mut self, request: &mut Request, result: &io::Result<usize>) -> Result<usize> {
        let length = length_of(request);
        let waits = !request.flags.contains(ReadWriteFlags::NOWAIT);
        let bytes = match (self.expected(request), result) {
            // A disk need not support it.
            (_, Err(error))
                if !waits && matches!(errno(error), Some(Errno::AGAIN | Errno::OPNOTSUPP)) =>
            {
                return Ok(0);
            }
            (Err(wanted), Err(error)) if errno(error) == Some(wanted) => return Ok(0),
            (Ok(wanted), Ok(bytes)) if *bytes == wanted => wanted,
            (expected, result) => bail!(
                "{} of {length} bytes in {} buffers at {}: {result:?}, and not {expected:?}",
                describe(request),
                request.buffers.len(),
                request.offset,
            ),
        };
        let start = request.offset as usize;
        let transferred: Vec<u8> = match request.kind {
            Kind::Allocate(..) => vec![0; length.min(self.size - start)],
            _ => {
                let buffers = request.buffers.iter_mut();
                let all = buffers.flat_map(|buffer| buffer.bytes().to_vec());
                all.take(bytes).collect()
            }
        };
        if transferred.is_empty() {
            return Ok(0);
        }
        if request.kind == Kind::Read {
            return Ok(self.differences(&transferred, start));
        }
        let end = start + transferred.len();
        self.contents(start..end).copy_from_slice(&transferred);
        self.bad
            .retain(|page| !(start / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).contains(page));
        Ok(0)
    }

    /// Writes random bytes.
    fn overwrite(&mut self, file: &File, place: Range<usize>) -> Result<()> {
        let mut buffer = unaligned_buffer(place.len(), &mut self.random);
        self.random.fill(buffer.bytes());
        file.write_all_at(buffer.bytes(), place.start as u64)
            .with_context(|| format!("write of {} bytes at {}", place.len(), place.start))?;
        self.contents(place).copy_from_slice(buffer.bytes());
        Ok(())
    }
}

fn length_of(request: &Request) -> usize {
    match request.kind {
        Kind::Allocate(_, length) => length as usize,
        _ => request.buffers.iter().map(DirectBuffer::len).sum(),
    }
}

fn pages_of(request: &Request) -> Range<usize> {
    let start = request.offset as usize;
    start / PAGE_BYTES..(start + length_of(request)).div_ceil(PAGE_BYTES)
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// Describes a request, without places and lengths.
fn describe(request: &Request) -> String {
    let mut text = match request.kind {
        Kind::Read => "read".to_owned(),
        Kind::Write => "write".to_owned(),
        Kind::Flush => "flush".to_owned(),
        Kind::Allocate(mode, _) => format!("{mode:?}"),
    };
    for (is_set, name) in [
        (request.flags.contains(ReadWriteFlags::DSYNC), "DSYNC"),
        (request.flags.contains(ReadWriteFlags::SYNC), "SYNC"),
        (request.flags.contains(ReadWriteFlags::NOWAIT), "NOWAIT"),
        (request.registered, "registered"),
        (request.by_worker, "by a worker"),
    ] {
        if is_set {
            text.push_str(", ");
            text.push_str(name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = 4096;
    const SIZE: usize = 32 << 20;

    fn model() -> Model {
        Model::new(SIZE, SECTOR, 16 << 20, Rng::with_seed(1)).unwrap()
    }

    fn request(kind: Kind, offset: usize, lengths: &[usize]) -> Request {
        Request::new(kind, offset as u64, lengths)
    }

    fn expected(kind: Kind, offset: usize, lengths: &[usize]) -> Result<usize, Errno> {
        model().expected(&request(kind, offset, lengths))
    }

    #[test]
    fn transfer_is_cut_at_the_end_and_then_checked() {
        let last = SIZE - SECTOR;
        for kind in [Kind::Read, Kind::Write] {
            assert_eq!(expected(kind, last, &[SECTOR]), Ok(SECTOR));
            assert_eq!(expected(kind, last, &[2 * SECTOR + 1]), Ok(SECTOR));
            assert_eq!(expected(kind, last, &[SECTOR, 1, 1]), Ok(SECTOR));
            let cut = [2 * SECTOR + 1, 1];
            assert_eq!(expected(kind, last, &cut), Err(Errno::INVAL));
            assert_eq!(expected(kind, last + 512, &[SECTOR]), Err(Errno::INVAL));
            assert_eq!(expected(kind, SIZE, &[0]), Ok(0));
        }
        for behind in [SIZE, SIZE + 1] {
            assert_eq!(expected(Kind::Read, behind, &[SECTOR]), Ok(0));
            assert_eq!(expected(Kind::Write, behind, &[1]), Err(Errno::NOSPC));
        }
    }

    #[test]
    fn buffers_may_end_within_a_sector_but_not_within_512_bytes() {
        let expected = |lengths| expected(Kind::Write, 0, lengths);
        assert_eq!(expected(&[512, 0, SECTOR - 512]), Ok(SECTOR));
        assert_eq!(expected(&[100, SECTOR - 100]), Err(Errno::INVAL));
        assert_eq!(expected(&[512, 512]), Err(Errno::INVAL));
    }

    #[test]
    fn zeroing_is_supported_and_some_of_it_cut_at_the_end() {
        let expected =
            |mode, offset, length: u64| expected(Kind::Allocate(mode, length), offset, &[]);
        let zero = FallocateFlags::ZERO_RANGE;
        let punch = FallocateFlags::PUNCH_HOLE;
        let keep = FallocateFlags::KEEP_SIZE;
        let last = SIZE - SECTOR;
        assert_eq!(expected(zero, last, 4096), Ok(0));
        assert_eq!(expected(zero, last, 8192), Err(Errno::INVAL));
        assert_eq!(expected(zero | keep, last, 8191), Ok(0));
        assert_eq!(expected(zero | keep, SIZE, 4096), Err(Errno::INVAL));
        assert_eq!(expected(zero, 0, 512), Err(Errno::INVAL));
        assert_eq!(expected(zero, 0, 0), Err(Errno::INVAL));
        for mode in [punch | keep, punch, FallocateFlags::empty()] {
            assert_eq!(expected(mode, 0, 4096), Err(Errno::OPNOTSUPP));
        }
        let mut model = model();
        model.zeroes = true;
        let hole = |mode| model.expected(&request(Kind::Allocate(mode, 4096), 0, &[]));
        assert_eq!(hole(punch | keep), Ok(0));
        assert_eq!(hole(punch), Err(Errno::OPNOTSUPP));
        let collapse = FallocateFlags::COLLAPSE_RANGE;
        assert_eq!(expected(collapse, SIZE, 4096), Err(Errno::OPNOTSUPP));
    }

    #[test]
    fn what_was_written_across_the_end_is_followed() {
        let mut model = model();
        let last = SIZE - SECTOR;
        let mut write = request(Kind::Write, last, &[2 * SECTOR]);
        write.buffers[0].bytes().fill(7);
        assert!(model.check(&mut write, &Ok(2 * SECTOR)).is_err());
        assert_eq!(model.check(&mut write, &Ok(SECTOR)).unwrap(), 0);
        let mut read = request(Kind::Read, last - SECTOR, &[4 * SECTOR]);
        assert_eq!(model.check(&mut read, &Ok(2 * SECTOR)).unwrap(), 1);
        let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        let mut behind = request(Kind::Read, SIZE + 1, &[SECTOR]);
        assert_eq!(model.check(&mut behind, &Ok(0)).unwrap(), 0);
        let mut zero = request(Kind::Allocate(mode, 8192), last, &[]);
        assert_eq!(model.check(&mut zero, &Ok(0)).unwrap(), 0);
        assert_eq!(model.check(&mut read, &Ok(2 * SECTOR)).unwrap(), 0);
    }

    #[test]
    fn zeroing_repairs() {
        let mut model = model();
        model.bad.extend([3, 5]);
        let mut read = request(Kind::Read, 3 * PAGE_BYTES, &[SECTOR]);
        assert_eq!(model.expected(&read), Err(Errno::IO));
        let mode = FallocateFlags::ZERO_RANGE;
        let mut zero = request(Kind::Allocate(mode, 8192), 2 * PAGE_BYTES, &[]);
        assert_eq!(model.check(&mut zero, &Ok(0)).unwrap(), 0);
        assert_eq!(model.check(&mut read, &Ok(SECTOR)).unwrap(), 0);
        assert!(model.has_bad(0..SIZE));
    }

    #[test]
    fn requests_stay_in_what_is_used_and_have_every_result() {
        let mut seen = BTreeMap::new();
        let mut model = model();
        model.bad.extend(64..256);
        for _ in 0..2000 {
            let request = model.request();
            let expected = model
                .expected(&request)
                .map(|bytes| bytes == length_of(&request));
            *seen.entry(format!("{expected:?}")).or_insert(0) += 1;
            let start = request.offset as usize;
            let end = (start + length_of(&request)).min(SIZE);
            let used = |place: Range<usize>| place.start <= start && end <= place.end;
            let fails = model.expected(&request).is_err();
            assert!(fails || start >= SIZE || model.places().into_iter().any(used));
        }
        assert_eq!(seen.len(), 6, "{seen:?}");
        assert!(seen.values().all(|&count| count > 10), "{seen:?}");
    }
}
