// SPDX-License-Identifier: GPL-2.0

//! `pmem-io model`: compares a disk that has bad blocks with a model.
//!
//! The model has the contents of each sector, and whether it is in the disk's badblocks and in the
//! bus's badrange. Random steps change the disk and the model alike. After each step the lists must
//! be those of the model; each result and each byte read must be the one that the model expects. If
//! there are more bad blocks than the disk's badblocks can hold, that list may lack some of the
//! model's, but must not have others, and I/O must still behave as the model expects.

use crate::area::open;
use crate::pattern::Pattern;
use abstractions::ioctl;
use abstractions::sigbus::{self, MCEERR_AR};
use abstractions::{DirectBuffer, Mapping, mapping};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rangemap::RangeSet;
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const PAGE_BYTES: usize = units::PAGE as usize;
const SECTOR: u64 = 512;
/// Sectors in a page.
const PAGE: u64 = PAGE_BYTES as u64 / SECTOR;
/// This many entries fit in any list; one with more may lack some of the model's.
const ALWAYS_FIT: usize = 300;
/// Maximum number of sectors of an entry of badblocks.
const MAX_ENTRY: u64 = 512;
/// Bytes that a store through a mapping writes.
const STORE_LENGTH: usize = 64;

#[derive(Args)]
pub struct Options {
    /// The disk
    disk: PathBuf,
    /// How much of the disk to test
    #[arg(long, value_name = "SIZE", default_value = "4M")]
    length: units::Size,
    /// Where on the disk the tested range starts
    #[arg(long, value_name = "SIZE", default_value = "0")]
    at: units::Size,
    /// A DAX file that occupies the tested range: read, write and map it, too
    #[arg(long)]
    file: Option<PathBuf>,
    /// The writes that clear poison
    #[arg(long)]
    clears: ClearPoison,
    /// Inject errors by this file of the test provider as well as by the disk's badblocks; it takes
    /// OFFSET+LENGTH in bytes
    #[arg(long, value_name = "FILE")]
    provider: Option<PathBuf>,
    /// Inject errors by this file as well: errors/list of the device
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Offset of the disk's data in the namespace
    #[arg(long, value_name = "SIZE", default_value = "0")]
    data: units::Size,
    /// A command that unbinds and binds the namespace
    #[arg(long, value_name = "COMMAND")]
    rebind: Option<String>,
    /// Expect the behaviour of the C driver: a rebind forgets errors that were added by the disk's badblocks,
    /// and errors that do not fit there are lost
    #[arg(long)]
    c: bool,
    /// Number of test cases; each starts without bad blocks
    #[arg(long, default_value_t = 20)]
    cases: u32,
    /// Maximum number of steps of a case
    #[arg(long, default_value_t = 300)]
    steps: usize,
    /// Maximum number of attempts to shrink a failing case
    #[arg(long, default_value_t = 2000)]
    shrink: u32,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How a write clears poison.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClearPoison {
    /// The bus has a clear-error command: any write clears what it covers
    Command,
    /// A write of the whole page clears it
    Overwrite,
    /// The bus reports success for that command and does nothing; the same is expected
    Pretends,
    /// Writes do not clear poison
    Never,
}

/// One step of a case: offsets and lengths in sectors; of a file, in bytes; of a mapping, in pages.
#[derive(Clone, Debug)]
enum Step {
    Inject(u8, u64, u64),
    Scatter(u64, u64, u64),
    Forget(u64, u64),
    Read(u64, u64),
    Write(u64, u64, u64),
    Zero(u64, u64),
    FileRead(u64, u64),
    FileWrite(u64, u64, u64),
    Load(u64),
    Store(u64, u64),
    Rebind,
}

/// Generates steps in `sectors` sectors, most of them in a few pages so that they overlap.
fn steps(sectors: u64, options: &Options) -> impl Strategy<Value = Vec<Step>> + use<> {
    let place = move |unit: u64| {
        prop_oneof![
            6 => (0..24 * PAGE / unit).prop_map(move |at| at * unit),
            2 => (0..sectors / unit).prop_map(move |at| at * unit),
            1 => (sectors - 2 * PAGE..sectors).prop_map(move |at| at / unit * unit),
        ]
    };
    // Whole pages are frequent: only they can be repaired by an overwrite.
    let piece = move || {
        prop_oneof![
            2 => (place(1), 1..4 * PAGE),
            2 => (place(PAGE), (1..6u64).prop_map(|pages| pages * PAGE)),
            1 => (place(1), 1..128u64),
        ]
        .prop_map(move |(at, len)| (at, len.min(sectors - at)))
    };
    let bytes = move || {
        let bytes = sectors * SECTOR;
        prop_oneof![
            (piece()).prop_map(|(at, len)| (at * SECTOR, len * SECTOR)),
            (place(1), 0..SECTOR, 1..3 * SECTOR * PAGE)
                .prop_map(|(at, odd, len)| (at * SECTOR + odd, len)),
        ]
        .prop_map(move |(at, len)| (at, len.min(bytes - at)))
    };
    let page = move || place(PAGE).prop_map(|at| at / PAGE);
    let file = u32::from(options.file.is_some());
    let list = u32::from(options.list.is_some());
    let bind = u32::from(options.rebind.is_some());
    let seed = || 1..1000u64;
    let mut steps: Vec<(u32, BoxedStrategy<Step>)> = vec![
        (
            96,
            (any::<u8>(), piece())
                .prop_map(|(by, (at, len))| Step::Inject(by, at, len))
                .boxed(),
        ),
        (
            8,
            (
                place(1),
                9..12u64,
                // Half of these may overflow badblocks.
                prop_oneof![1 => 2..20u64, 1 => 400..900u64],
            )
                .prop_map(|(at, stride, count)| Step::Scatter(at, stride, count))
                .boxed(),
        ),
        (
            12 * list,
            piece().prop_map(|(at, len)| Step::Forget(at, len)).boxed(),
        ),
        (
            80,
            piece().prop_map(|(at, len)| Step::Read(at, len)).boxed(),
        ),
        (
            96,
            (piece(), seed())
                .prop_map(|((at, len), seed)| Step::Write(at, len, seed))
                .boxed(),
        ),
        (
            24,
            piece().prop_map(|(at, len)| Step::Zero(at, len)).boxed(),
        ),
        (
            40 * file,
            bytes()
                .prop_map(|(at, len)| Step::FileRead(at, len))
                .boxed(),
        ),
        (
            48 * file,
            (bytes(), seed())
                .prop_map(|((at, len), seed)| Step::FileWrite(at, len, seed))
                .boxed(),
        ),
        (32 * file, page().prop_map(Step::Load).boxed()),
        (
            32 * file,
            (page(), seed())
                .prop_map(|(page, seed)| Step::Store(page, seed))
                .boxed(),
        ),
        (bind, Just(Step::Rebind).boxed()),
    ];
    steps.retain(|(weight, _)| *weight > 0);
    let step = Union::new_weighted(steps);
    prop::collection::vec(step, 1..=options.steps)
}

struct Model {
    /// The disk's badblocks.
    badblocks: RangeSet<u64>,
    /// The bus's badrange, which survives a rebind.
    badrange: RangeSet<u64>,
    /// Written to badblocks by the user: the driver adds it to badrange when it is unbound.
    pending: RangeSet<u64>,
    /// Badblocks may have overflowed since the namespace was bound, and then lacks some.
    was_full: bool,
    bytes: Vec<u8>,
}

impl Model {
    fn new(sectors: usize) -> Self {
        Self {
            badblocks: RangeSet::new(),
            badrange: RangeSet::new(),
            pending: RangeSet::new(),
            was_full: false,
            bytes: vec![0; sectors * SECTOR as usize],
        }
    }

    /// Removes sectors from all lists.
    fn clear(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.badblocks.remove(range.clone());
            self.badrange.remove(range.clone());
            self.pending.remove(range);
        }
    }

    /// Returns what badrange has after a rebind, and errors/list at once.
    fn badrange_after_rebind(&self) -> RangeSet<u64> {
        self.badrange.union(&self.pending).collect()
    }

    fn any_bad(&self, range: &Range<u64>) -> bool {
        self.badblocks.overlaps(range)
    }

    fn page_is_bad(&self, page: u64) -> bool {
        self.any_bad(&(page * PAGE..(page + 1) * PAGE))
    }

    /// Whether badblocks may be too small for all entries.
    fn is_full(&self) -> bool {
        let entries: u64 = self
            .badblocks
            .iter()
            .map(|range| (range.end - range.start).div_ceil(MAX_ENTRY))
            .sum();
        entries as usize > ALWAYS_FIT
    }

    /// Returns how many sectors from the start of `range` a block write writes: it stops at the first
    /// page that can't be repaired.
    fn writable(&self, clears: ClearPoison, range: &Range<u64>) -> u64 {
        pages(range)
            .take_while(|page| {
                !self.any_bad(page)
                    || match clears {
                        ClearPoison::Command | ClearPoison::Pretends => true,
                        ClearPoison::Overwrite => page.end - page.start == PAGE,
                        ClearPoison::Never => false,
                    }
            })
            .map(|page| page.end - page.start)
            .sum()
    }
}

/// Splits a range at page boundaries.
fn pages(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let start = at;
        at = (start / PAGE * PAGE + PAGE).min(end);
        (start < end).then_some(start..at)
    })
}

/// A running case: the disk and its model.
struct Run<'a> {
    options: &'a Options,
    disk: Option<File>,
    file: Option<File>,
    model: Model,
    sectors: u64,
}

/// Steps to print before the one that failed.
const MAX_TRACE: usize = 40;

/// Runs the test cases; returns 1 if one failed.
pub fn run(options: &Options) -> Result<usize> {
    let sectors = options.length.bytes() / SECTOR;
    ensure!(
        sectors >= 64 * PAGE && options.at.bytes() % PAGE_BYTES as u64 == 0,
        "--length must be at least 64 pages, and --at a multiple of the page size"
    );
    sigbus::catch().context("sigaction")?;
    println!("seed {}", options.seed);
    let config = Config {
        cases: options.cases,
        failure_persistence: None,
        max_shrink_iters: options.shrink,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&options.seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let done = Cell::new(0usize);
    let max_ranges = Cell::new(0usize);
    let in_steps = Cell::new(false);
    let was_full = Cell::new(true);
    let trace = RefCell::new(Vec::new());
    let began = Instant::now();
    let result = runner.run(&steps(sectors, options), |steps| {
        let mut shown = Vec::new();
        let outcome = Run::new(options, was_full.get()).and_then(|mut run| {
            for (number, step) in steps.iter().enumerate() {
                shown.push(format!("{number}: {step:?}"));
                let outcome = run.step(step).and_then(|()| run.compare_lists());
                was_full.set(run.model.was_full);
                in_steps.set(in_steps.get() || outcome.is_err());
                outcome.with_context(|| format!("step {number}, {step:?}"))?;
                done.set(done.get() + 1);
                max_ranges.set(max_ranges.get().max(run.model.badblocks.len()));
            }
            // A case that is shrunk because of a step does not need the final check.
            if in_steps.get() {
                Ok(())
            } else {
                run.read_all()
            }
        });
        outcome.map_err(|error| {
            *trace.borrow_mut() = shown;
            TestCaseError::fail(format!("{error:#}"))
        })
    });
    match result {
        Ok(()) => {
            println!(
                "{} steps in {:.1} s, {} ranges at most",
                done.get(),
                began.elapsed().as_secs_f64(),
                max_ranges.get()
            );
            Ok(0)
        }
        Err(TestError::Fail(reason, steps)) => {
            println!("last steps of the last failing case:");
            let trace = trace.borrow();
            for line in &trace[trace.len().saturating_sub(MAX_TRACE)..] {
                println!("  {line}");
            }
            println!("minimal failing case, {} steps: {steps:?}", steps.len());
            println!("{reason}");
            Ok(1)
        }
        Err(TestError::Abort(reason)) => Err(anyhow!("{reason}")),
    }
}

fn errno_of(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

impl<'a> Run<'a> {
    /// Zeroes the disk, which clears all errors, and opens it.
    fn new(options: &'a Options, was_full: bool) -> Result<Self> {
        let sectors = options.length.bytes() / SECTOR;
        let mut run = Self {
            options,
            disk: None,
            file: None,
            model: Model::new(sectors as usize),
            sectors,
        };
        run.open()?;
        let switch = run.sysfs("errors/overwrite_heals");
        if options.clears == ClearPoison::Never {
            fs::write(&switch, "1").context("overwrite_heals")?;
        }
        run.block_zero(0..sectors).context("initial zeroing")?;
        if options.clears == ClearPoison::Never {
            fs::write(&switch, "0").context("overwrite_heals")?;
        }
        run.compare_lists().context("after the initial zeroing")?;
        run.model.was_full = was_full;
        if was_full && options.rebind.is_some() {
            run.rebind()?;
        }
        Ok(run)
    }

    fn open(&mut self) -> Result<()> {
        self.disk = Some(open(&self.options.disk, true, true)?);
        self.file = match &self.options.file {
            Some(path) => Some(open(path, true, false)?),
            None => None,
        };
        Ok(())
    }

    fn disk(&self) -> Result<&File> {
        self.disk.as_ref().context("the disk is closed")
    }

    fn file(&self) -> Result<&File> {
        self.file.as_ref().context("there is no file")
    }

    /// Returns the path of a sysfs file of the disk.
    fn sysfs(&self, name: &str) -> PathBuf {
        let disk = self.options.disk.file_name().unwrap_or_default();
        Path::new("/sys/block").join(disk).join(name)
    }

    fn first(&self) -> u64 {
        self.options.at.bytes() / SECTOR
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Inject(by, at, len) => self.inject(by, std::slice::from_ref(&(at..at + len))),
            // The C driver loses errors that do not fit in badblocks.
            Step::Scatter(_, _, count) if self.options.c && count >= 20 => Ok(()),
            Step::Scatter(at, stride, count) => {
                let end = self.sectors;
                let places: Vec<_> = (0..count)
                    .map(|number| at + number * stride)
                    .take_while(|at| *at < end)
                    .map(|at| at..at + 1)
                    .collect();
                // The provider takes 100 ranges at a time.
                places
                    .chunks(100)
                    .try_for_each(|places| self.inject(0, places))
            }
            Step::Forget(at, len) => self.forget(at..at + len),
            Step::Read(at, len) => self.read(at..at + len),
            Step::Write(at, len, seed) => {
                let mut buffer = DirectBuffer::new((len * SECTOR) as usize);
                Pattern::new(seed).fill(buffer.bytes(), at * SECTOR);
                let offset = self.options.at.bytes() + at * SECTOR;
                let answer = self.disk()?.write_at(buffer.bytes(), offset);
                if let Ok(done) = answer {
                    ensure!(
                        done as u64 == len * SECTOR,
                        "{done} bytes written at {offset}"
                    );
                }
                let answer = answer.map(|_| ());
                self.apply_write(at..at + len, answer, |bytes| {
                    bytes.copy_from_slice(buffer.bytes())
                })
            }
            Step::Zero(at, len) => {
                let answer = self.zero_out(&(at..at + len))?;
                self.apply_write(at..at + len, answer, |bytes| bytes.fill(0))
            }
            Step::FileRead(at, len) => self.file_read(at, len as usize),
            Step::FileWrite(at, len, seed) => self.file_write(at, len as usize, seed),
            Step::Load(page) => self.access_page(page, None),
            Step::Store(page, seed) => self.access_page(page, Some(seed)),
            Step::Rebind => self.rebind(),
        }
    }

    /// Makes sectors bad; `by` selects the interface.
    fn inject(&mut self, by: u8, ranges: &[Range<u64>]) -> Result<()> {
        let options = self.options;
        let start = options.data.bytes() + options.at.bytes();
        let bytes = |range: &Range<u64>| {
            let len = (range.end - range.start) * SECTOR;
            (start + range.start * SECTOR, len)
        };
        match (by % 3, &options.provider, &options.list) {
            (0, Some(file), _) => {
                let badrange = &self.model.badrange;
                let new: Vec<_> = ranges
                    .iter()
                    // libnvdimm replaces the length of an entry that has the same start.
                    .filter(|range| !badrange.overlaps(range))
                    .collect();
                let text: Vec<_> = new
                    .iter()
                    .map(|range| bytes(range))
                    .map(|(offset, len)| format!("{offset}+{len}"))
                    .collect();
                fs::write(file, text.join(",")).context("the provider")?;
                for range in new {
                    self.model.badblocks.insert(range.clone());
                    self.model.badrange.insert(range.clone());
                }
            }
            (_, _, Some(file)) if by % 3 < 2 => {
                for (range, (offset, len)) in ranges.iter().map(|range| (range, bytes(range))) {
                    fs::write(file, format!("add {offset} {len}")).context("errors/list")?;
                    self.model.badblocks.insert(range.clone());
                    self.model.badrange.insert(range.clone());
                }
            }
            _ => {
                for range in ranges {
                    // badblocks rejects entries that do not fit, or takes a part of one.
                    if self.model.is_full() {
                        return Ok(());
                    }
                    let (at, len) = (self.first() + range.start, range.end - range.start);
                    fs::write(self.sysfs("badblocks"), format!("{at} {len}\n"))
                        .context("badblocks")?;
                    self.model.badblocks.insert(range.clone());
                    if !options.c {
                        self.model.pending.insert(range.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes sectors by errors/list, as after a repair elsewhere.
    fn forget(&mut self, range: Range<u64>) -> Result<()> {
        let file = self.options.list.as_ref().context("no --list")?;
        let offset = self.options.data.bytes() + self.options.at.bytes() + range.start * SECTOR;
        let len = (range.end - range.start) * SECTOR;
        fs::write(file, format!("drop {offset} {len}")).context("errors/list")?;
        self.model.clear(range);
        Ok(())
    }

    fn read(&mut self, range: Range<u64>) -> Result<()> {
        let mut buffer = DirectBuffer::new(((range.end - range.start) * SECTOR) as usize);
        let offset = self.options.at.bytes() + range.start * SECTOR;
        let answer = self.disk()?.read_at(buffer.bytes(), offset);
        if self.model.any_bad(&range) {
            return expect_error(answer, &[Errno::IO]);
        }
        self.compare_bytes(answer?, buffer.bytes(), range.start * SECTOR)
    }

    /// Compares the bytes that a read returned with the model.
    fn compare_bytes(&self, got: usize, bytes: &[u8], at: u64) -> Result<()> {
        ensure!(got == bytes.len(), "{got} bytes of {}", bytes.len());
        let wanted = &self.model.bytes[at as usize..at as usize + got];
        if let Some(first) = bytes.iter().zip(wanted).position(|(a, b)| a != b) {
            bail!("byte {} differs from the written data", at + first as u64);
        }
        Ok(())
    }

    fn zero_out(&self, range: &Range<u64>) -> Result<io::Result<()>> {
        let offset = self.options.at.bytes() + range.start * SECTOR;
        let length = (range.end - range.start) * SECTOR;
        Ok(ioctl::zero_out(self.disk()?, offset, length))
    }

    fn block_zero(&mut self, range: Range<u64>) -> Result<()> {
        let answer = self.zero_out(&range)?;
        self.model.clear(range);
        Ok(answer?)
    }

    /// Checks the result of a write to the disk, and applies the write to the model.
    fn apply_write(
        &mut self,
        range: Range<u64>,
        answer: io::Result<()>,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let sectors = self.model.writable(self.options.clears, &range);
        let written = range.start..range.start + sectors;

        if written == range {
            answer?;
        } else {
            expect_error(answer.map(|()| 0), &[Errno::IO])?;
            if self.options.c {
                return Ok(());
            }
        }
        let bytes =
            |range: &Range<u64>| (range.start * SECTOR) as usize..(range.end * SECTOR) as usize;
        let mut new = self.model.bytes[bytes(&range)].to_vec();
        write(&mut new);
        new.truncate((sectors * SECTOR) as usize);
        self.model.bytes[bytes(&written)].copy_from_slice(&new);
        self.model.clear(written);
        Ok(())
    }

    fn file_read(&mut self, at: u64, len: usize) -> Result<()> {
        let mut bytes = vec![0; len];
        let answer = self.file()?.read_at(&mut bytes, at);
        let page = PAGE_BYTES as u64;
        let good = (at / page..(at + len as u64).div_ceil(page))
            .find(|page| self.model.page_is_bad(*page))
            .map_or(len, |bad| (bad * page).saturating_sub(at) as usize);
        if good == 0 {
            return expect_error(answer, &[Errno::IO]);
        }
        // The bytes before the bad page may be returned, in part or not at all.
        if answer.is_err() && good < len {
            return expect_error(answer, &[Errno::IO]);
        }
        let got = answer?;
        let right = got == good || got < good && good < len;
        ensure!(
            right,
            "read returned {got} bytes, {good} are before the bad page"
        );
        self.compare_bytes(got, &bytes[..got], at)
    }

    /// Writes to the file: a bad page must be written whole, and the write stops at one that is not.
    fn file_write(&mut self, at: u64, len: usize, seed: u64) -> Result<()> {
        let page = PAGE_BYTES as u64;
        let mut pages = at / page..(at + len as u64).div_ceil(page);
        if self.options.c && pages.any(|page| self.model.page_is_bad(page)) {
            // The C driver clears only where the write starts at a page, and skips good parts.
            return Ok(());
        }
        let mut bytes = vec![0; len];
        Pattern::new(seed).fill(&mut bytes, at);
        let answer = self.file()?.write_at(&bytes, at);
        let end = at + len as u64;
        let mut done = at;
        while done < end {
            let next = (done / page * page + page).min(end);
            if self.model.page_is_bad(done / page) {
                if self.options.clears == ClearPoison::Never || next - done != page {
                    break;
                }
                self.model.clear(done / SECTOR..next / SECTOR);
            }
            done = next;
        }
        let done = (done - at) as usize;
        if done == 0 {
            return expect_error(answer, &[Errno::IO, Errno::FAULT]);
        }
        let got = answer?;
        ensure!(got == done, "{got} bytes written, not {done}");
        self.model.bytes[at as usize..at as usize + done].copy_from_slice(&bytes[..done]);
        Ok(())
    }

    /// Loads from or stores to a page through a mapping.
    fn access_page(&mut self, page: u64, store: Option<u64>) -> Result<()> {
        let options = mapping::Options {
            writable: true,
            ..mapping::Options::default()
        };
        let offset = page * PAGE_BYTES as u64;
        let mapping = Mapping::new(self.file()?, offset, PAGE_BYTES, options).context("mmap")?;
        let mut bytes = [0; PAGE_BYTES];
        let answer = match store {
            None => mapping.try_copy_out(0, &mut bytes),
            Some(seed) => {
                Pattern::new(seed).fill(&mut bytes[..STORE_LENGTH], 0);
                mapping.try_copy_in(0, &bytes[..STORE_LENGTH])
            }
        };
        if self.model.page_is_bad(page) {
            let error = answer.err().context("access to a bad page succeeded")?;
            ensure!(
                (error.code, error.lsb) == (MCEERR_AR, 12),
                "SIGBUS code {} lsb {}",
                error.code,
                error.lsb
            );
            return Ok(());
        }
        answer.map_err(|error| anyhow!("SIGBUS code {} on a good page", error.code))?;
        match store {
            None => self.compare_bytes(PAGE_BYTES, &bytes, offset),
            Some(_) => {
                self.model.bytes[offset as usize..][..STORE_LENGTH]
                    .copy_from_slice(&bytes[..STORE_LENGTH]);
                Ok(())
            }
        }
    }

    fn rebind(&mut self) -> Result<()> {
        let command = self.options.rebind.as_ref().context("no --rebind")?;
        (self.disk, self.file) = (None, None);
        let status = Command::new("sh").args(["-c", command]).status()?;
        ensure!(status.success(), "{command}: {status}");
        self.open()?;
        self.model.badrange = self.model.badrange_after_rebind();
        self.model.pending.clear();
        self.model.badblocks = self.model.badrange.clone();
        self.model.was_full = false;
        Ok(())
    }

    /// Compares the lists with those of the model.
    fn compare_lists(&mut self) -> Result<()> {
        let listed = self.badblocks()?;
        self.model.was_full |= self.model.is_full();
        if self.model.was_full {
            if let Some(at) = first_lacking(&listed, &self.model.badblocks) {
                bail!("badblocks: sector {at} is listed and good");
            }
            if self.options.c {
                self.model.badblocks = listed;
            }
        } else {
            differs("badblocks", &self.model.badblocks, &listed)?;
        }
        if let Some(exact) = self.errors_list()? {
            differs("errors/list", &self.model.badrange_after_rebind(), &exact)?;
        }
        Ok(())
    }

    /// Converts `len` sectors from `start` to sectors of the tested range, which starts at `first`.
    fn within(&self, start: u64, len: u64, first: u64) -> Option<Range<u64>> {
        let range = start.max(first) - first..(start + len).saturating_sub(first).min(self.sectors);
        (!range.is_empty()).then_some(range)
    }

    /// Reads errors/list, if --list names it.
    fn errors_list(&self) -> Result<Option<RangeSet<u64>>> {
        let Some(file) = &self.options.list else {
            return Ok(None);
        };
        let text = text_of(file)?;
        let mut exact = RangeSet::new();
        let skip = (self.options.data.bytes() + self.options.at.bytes()) / SECTOR;
        for line in text.lines() {
            let mut words = line.split(' ');
            let mut number = || words.next()?.parse::<u64>().ok();
            let (Some(offset), Some(len)) = (number(), number()) else {
                bail!("errors/list: \"{line}\"");
            };
            exact.extend(self.within(offset / SECTOR, len / SECTOR, skip));
        }
        Ok(Some(exact))
    }

    /// Reads badblocks of the disk.
    fn badblocks(&self) -> Result<RangeSet<u64>> {
        let text = text_of(&self.sysfs("badblocks"))?;
        let mut listed = RangeSet::new();
        for line in text.lines() {
            let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
            let Some(&[start, len]) = numbers.as_deref() else {
                bail!("badblocks: \"{line}\"");
            };
            listed.extend(self.within(start, len, self.first()));
        }
        Ok(listed)
    }

    /// Reads everything, sector by sector where some are bad.
    fn read_all(&mut self) -> Result<()> {
        let piece = 16 * PAGE;
        for start in (0..self.sectors).step_by(piece as usize) {
            let range = start..(start + piece).min(self.sectors);
            if !self.model.any_bad(&range) {
                self.read(range)
                    .with_context(|| format!("sectors from {start}"))?;
                continue;
            }
            for at in range {
                self.read(at..at + 1)
                    .with_context(|| format!("sector {at}"))?;
            }
        }
        Ok(())
    }
}

/// Reads a sysfs file with as few calls as possible, because the kernel formats the text anew for
/// each call.
fn text_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut text = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(String::from_utf8(text)?),
            got => text.extend_from_slice(&piece[..got]),
        }
    }
}

/// Returns the first sector that is in `set` and not in `other`.
fn first_lacking(set: &RangeSet<u64>, other: &RangeSet<u64>) -> Option<u64> {
    set.iter()
        .find_map(|range| other.gaps(range).next())
        .map(|gap| gap.start)
}

fn differs(what: &str, wanted: &RangeSet<u64>, got: &RangeSet<u64>) -> Result<()> {
    let first = [first_lacking(wanted, got), first_lacking(got, wanted)];
    let Some(at) = first.into_iter().flatten().min() else {
        return Ok(());
    };
    let word = if got.contains(&at) {
        "listed and good"
    } else {
        "bad and not listed"
    };
    bail!("{what}: sector {at} is {word}")
}

/// Checks that a call failed with one of these errors.
fn expect_error(answer: io::Result<usize>, wanted: &[Errno]) -> Result<()> {
    match answer {
        Ok(done) => bail!("call returned {done} bytes instead of an error"),
        Err(error) if errno_of(&error).is_some_and(|errno| wanted.contains(&errno)) => Ok(()),
        Err(error) => Err(error).context("unexpected error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set() -> impl Strategy<Value = RangeSet<u64>> {
        prop::collection::vec((0..40u64, 1..8u64), 0..8)
            .prop_map(|ranges| ranges.iter().map(|(at, len)| *at..at + len).collect())
    }

    fn sectors(set: &RangeSet<u64>) -> BTreeSet<u64> {
        set.iter().cloned().flatten().collect()
    }

    proptest! {
        #[test]
        fn differs_names_the_first_sector(wanted in set(), got in set()) {
            let (wanted_sectors, got_sectors) = (sectors(&wanted), sectors(&got));
            let first = wanted_sectors.symmetric_difference(&got_sectors).min();
            let message = first.map(|at| match got_sectors.contains(at) {
                true => format!("x: sector {at} is listed and good"),
                false => format!("x: sector {at} is bad and not listed"),
            });
            let error = differs("x", &wanted, &got).err();
            prop_assert_eq!(error.map(|error| error.to_string()), message);
        }

        #[test]
        fn clear_removes_from_each_set(set in set(), start in 0..40u64, len in 0..8u64) {
            let mut model = Model::new(48);
            model.badblocks = set.clone();
            model.badrange = set.clone();
            model.pending = set.clone();
            model.clear(start..start + len);
            let mut left = sectors(&set);
            left.retain(|at| !(start..start + len).contains(at));
            for set in [&model.badblocks, &model.badrange, &model.pending] {
                prop_assert_eq!(&sectors(set), &left);
            }
            prop_assert_eq!(sectors(&model.badrange_after_rebind()), left);
        }
    }
}
