// SPDX-License-Identifier: GPL-2.0

//! Errors of a disk held against a model: what is listed, read, written, mapped.
//!
//! The model knows of each sector whether it is bad, for the disk and for the bus, and what it holds.
//! Random steps are done to the disk and to the model; after each of them the lists must be the
//! model's, and every answer and every byte on the way must be what the model says. Where there are
//! more errors than the disk's badblocks holds, it may have fewer than the model, never others, and
//! the model counts all the same.

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

/// Bytes of a page.
const PAGE_BYTES: usize = units::PAGE as usize;
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Sectors of a page.
const PAGE: u64 = PAGE_BYTES as u64 / SECTOR;
/// So many entries fit on any list: from here on it may have fewer than the model.
const SURE: usize = 300;
/// Sectors of an entry of the disk's list, at most.
const LONGEST: u64 = 512;
/// What a store through a mapping stores.
const STORED: usize = 64;

/// What is tried, and by which rules.
#[derive(Args)]
pub struct Options {
    /// The disk
    disk: PathBuf,
    /// Bytes of it, from --at on
    #[arg(long, value_name = "SIZE", default_value = "4M")]
    length: units::Size,
    /// Where on the disk they begin
    #[arg(long, value_name = "SIZE", default_value = "0")]
    at: units::Size,
    /// A DAX file that has these bytes of the disk: it is read, written and mapped as well
    #[arg(long)]
    file: Option<PathBuf>,
    /// What clears errors
    #[arg(long)]
    clears: Clears,
    /// Errors come by this file of the tests' provider, which takes OFFSET+LENGTH in bytes; otherwise
    /// by the disk's badblocks
    #[arg(long, value_name = "FILE")]
    provider: Option<PathBuf>,
    /// They come by this file as well, errors/list of the device
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Bytes from the start of the namespace to the disk's first
    #[arg(long, value_name = "SIZE", default_value = "0")]
    data: units::Size,
    /// Has the namespace bound again
    #[arg(long, value_name = "COMMAND")]
    rebind: Option<String>,
    /// What was added by the disk's badblocks is forgotten then, and what does not fit there is not bad:
    /// the C driver
    #[arg(long)]
    c: bool,
    /// Series of steps; each begins with good memory
    #[arg(long, default_value_t = 20)]
    cases: u32,
    /// Steps of a series, at most
    #[arg(long, default_value_t = 300)]
    steps: usize,
    /// How often fewer steps are tried where some fail
    #[arg(long, default_value_t = 2000)]
    shrink: u32,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How a write heals.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clears {
    /// The bus has a command: what is written is cleared
    Command,
    /// A write of the whole page
    Overwrite,
    /// The bus says so and does nothing: whatever is written
    Pretends,
    /// It does not
    Never,
}

/// Something done to the disk. Places and lengths are in sectors, of files in bytes.
#[derive(Clone, Debug)]
enum Step {
    Bad(u8, u64, u64),
    Scatter(u64, u64, u64),
    Drop(u64, u64),
    Read(u64, u64),
    Write(u64, u64, u64),
    Zero(u64, u64),
    FileRead(u64, u64),
    FileWrite(u64, u64, u64),
    Load(u64),
    Store(u64, u64),
    Rebind,
}

/// Steps in `sectors` sectors: most in a few pages, so that they meet.
fn steps(sectors: u64, trial: &Options) -> impl Strategy<Value = Vec<Step>> + use<> {
    let place = move |unit: u64| {
        prop_oneof![
            6 => (0..24 * PAGE / unit).prop_map(move |at| at * unit),
            2 => (0..sectors / unit).prop_map(move |at| at * unit),
            1 => (sectors - 2 * PAGE..sectors).prop_map(move |at| at / unit * unit),
        ]
    };
    // Whole pages often enough.
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
    let file = u32::from(trial.file.is_some());
    let list = u32::from(trial.list.is_some());
    let bind = u32::from(trial.rebind.is_some());
    let seed = || 1..1000u64;
    let mut steps: Vec<(u32, BoxedStrategy<Step>)> = vec![
        (
            96,
            (any::<u8>(), piece())
                .prop_map(|(by, (at, len))| Step::Bad(by, at, len))
                .boxed(),
        ),
        (
            8,
            (
                place(1),
                9..12u64,
                // As often more than the list holds.
                prop_oneof![1 => 2..20u64, 1 => 400..900u64],
            )
                .prop_map(|(at, stride, count)| Step::Scatter(at, stride, count))
                .boxed(),
        ),
        (
            12 * list,
            piece().prop_map(|(at, len)| Step::Drop(at, len)).boxed(),
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
    prop::collection::vec(step, 1..=trial.steps)
}

/// What is bad and what is there.
struct Model {
    /// On the disk's list.
    listed: RangeSet<u64>,
    /// Known to the bus, and so the next time as well.
    known: RangeSet<u64>,
    /// Written to the disk's list by hand, of which the bus is told at the end, if at all.
    written: RangeSet<u64>,
    /// The disk's list was full since the namespace was bound: it may not have all.
    was_full: bool,
    bytes: Vec<u8>,
}

impl Model {
    fn new(sectors: usize) -> Self {
        Self {
            listed: RangeSet::new(),
            known: RangeSet::new(),
            written: RangeSet::new(),
            was_full: false,
            bytes: vec![0; sectors * SECTOR as usize],
        }
    }

    /// All of these sectors are good.
    fn heal(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.listed.remove(range.clone());
            self.known.remove(range.clone());
            self.written.remove(range);
        }
    }

    /// What the bus is told of.
    fn remembered(&self) -> RangeSet<u64> {
        self.known.union(&self.written).collect()
    }

    fn any_bad(&self, range: &Range<u64>) -> bool {
        self.listed.overlaps(range)
    }

    fn page_is_bad(&self, page: u64) -> bool {
        self.any_bad(&(page * PAGE..(page + 1) * PAGE))
    }

    /// Whether there are so many entries that the disk's list may not have all.
    fn is_full(&self) -> bool {
        let entries: u64 = self
            .listed
            .iter()
            .map(|range| (range.end - range.start).div_ceil(LONGEST))
            .sum();
        entries as usize > SURE
    }

    /// How many of these sectors, from the first on, are written by the block device: those in front of a
    /// page that can't be repaired.
    fn writable(&self, clears: Clears, range: &Range<u64>) -> u64 {
        pieces(range)
            .take_while(|piece| {
                !self.any_bad(piece)
                    || match clears {
                        Clears::Command | Clears::Pretends => true,
                        Clears::Overwrite => piece.end - piece.start == PAGE,
                        Clears::Never => false,
                    }
            })
            .map(|piece| piece.end - piece.start)
            .sum()
    }
}

/// A range cut at the pages' borders.
fn pieces(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let start = at;
        at = (start / PAGE * PAGE + PAGE).min(end);
        (start < end).then_some(start..at)
    })
}

/// The disk, its model, and the steps so far.
struct Run<'a> {
    trial: &'a Options,
    disk: Option<File>,
    file: Option<File>,
    model: Model,
    sectors: u64,
}

/// The steps that were shown where one fails.
const SHOWN: usize = 40;

/// Does `trial.cases` series of steps.
pub fn run(trial: &Options) -> Result<usize> {
    let sectors = trial.length.bytes() / SECTOR;
    ensure!(
        sectors >= 64 * PAGE && trial.at.bytes() % PAGE_BYTES as u64 == 0,
        "at least 64 pages, from a page's start on"
    );
    sigbus::catch().context("sigaction")?;
    println!("seed {}", trial.seed);
    let config = Config {
        cases: trial.cases,
        failure_persistence: None,
        max_shrink_iters: trial.shrink,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&trial.seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let done = Cell::new(0usize);
    let most = Cell::new(0usize);
    let in_steps = Cell::new(false);
    let was_full = Cell::new(true);
    let trace = RefCell::new(Vec::new());
    let began = Instant::now();
    let result = runner.run(&steps(sectors, trial), |steps| {
        let mut shown = Vec::new();
        let outcome = Run::new(trial, was_full.get()).and_then(|mut run| {
            for (number, step) in steps.iter().enumerate() {
                shown.push(format!("{number}: {step:?}"));
                let outcome = run.step(step).and_then(|()| run.compare());
                was_full.set(run.model.was_full);
                in_steps.set(in_steps.get() || outcome.is_err());
                outcome.with_context(|| format!("step {number}, {step:?}"))?;
                done.set(done.get() + 1);
                most.set(most.get().max(run.model.listed.len()));
            }
            // While the fewest steps are looked for, it is about one of them.
            if in_steps.get() {
                Ok(())
            } else {
                run.all_there()
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
                most.get()
            );
            Ok(0)
        }
        Err(TestError::Fail(reason, steps)) => {
            println!("the last steps of the last failure:");
            let trace = trace.borrow();
            for line in &trace[trace.len().saturating_sub(SHOWN)..] {
                println!("  {line}");
            }
            println!("the fewest steps, {}: {steps:?}", steps.len());
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
    /// All of it is good, and zero.
    fn new(trial: &'a Options, was_full: bool) -> Result<Self> {
        let sectors = trial.length.bytes() / SECTOR;
        let mut run = Self {
            trial,
            disk: None,
            file: None,
            model: Model::new(sectors as usize),
            sectors,
        };
        run.open()?;
        let switch = run.sysfs("errors/overwrite_heals");
        if trial.clears == Clears::Never {
            fs::write(&switch, "1").context("overwrite_heals")?;
        }
        run.block_zero(0..sectors).context("all of it zeroed")?;
        if trial.clears == Clears::Never {
            fs::write(&switch, "0").context("overwrite_heals")?;
        }
        run.compare().context("all of it written over")?;
        run.model.was_full = was_full;
        if was_full && trial.rebind.is_some() {
            run.rebind()?;
        }
        Ok(run)
    }

    fn open(&mut self) -> Result<()> {
        self.disk = Some(open(&self.trial.disk, true, true)?);
        self.file = match &self.trial.file {
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

    /// A file of the disk in sysfs.
    fn sysfs(&self, name: &str) -> PathBuf {
        let disk = self.trial.disk.file_name().unwrap_or_default();
        Path::new("/sys/block").join(disk).join(name)
    }

    fn first(&self) -> u64 {
        self.trial.at.bytes() / SECTOR
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Bad(by, at, len) => self.bad(by, std::slice::from_ref(&(at..at + len))),
            // What does not fit, C leaves out.
            Step::Scatter(_, _, count) if self.trial.c && count >= 20 => Ok(()),
            Step::Scatter(at, stride, count) => {
                let end = self.sectors;
                let places: Vec<_> = (0..count)
                    .map(|number| at + number * stride)
                    .take_while(|at| *at < end)
                    .map(|at| at..at + 1)
                    .collect();
                // As many as the provider takes at a time.
                places
                    .chunks(100)
                    .try_for_each(|places| self.bad(0, places))
            }
            Step::Drop(at, len) => self.drop_errors(at..at + len),
            Step::Read(at, len) => self.read(at..at + len),
            Step::Write(at, len, seed) => {
                let mut buffer = DirectBuffer::new((len * SECTOR) as usize);
                Pattern::new(seed).fill(buffer.bytes(), at * SECTOR);
                let offset = self.trial.at.bytes() + at * SECTOR;
                let answer = self.disk()?.write_at(buffer.bytes(), offset).map(|_| ());
                self.written(at..at + len, answer, |bytes| {
                    bytes.copy_from_slice(buffer.bytes())
                })
            }
            Step::Zero(at, len) => {
                let answer = self.zero_out(&(at..at + len))?;
                self.written(at..at + len, answer, |bytes| bytes.fill(0))
            }
            Step::FileRead(at, len) => self.file_read(at, len as usize),
            Step::FileWrite(at, len, seed) => self.file_write(at, len as usize, seed),
            Step::Load(page) => self.touch(page, None),
            Step::Store(page, seed) => self.touch(page, Some(seed)),
            Step::Rebind => self.rebind(),
        }
    }

    /// These sectors go bad, in one of the ways that there are.
    fn bad(&mut self, by: u8, ranges: &[Range<u64>]) -> Result<()> {
        let trial = self.trial;
        let start = trial.data.bytes() + trial.at.bytes();
        let bytes = |range: &Range<u64>| {
            let len = (range.end - range.start) * SECTOR;
            (start + range.start * SECTOR, len)
        };
        match (by % 3, &trial.provider, &trial.list) {
            (0, Some(file), _) => {
                let known = &self.model.known;
                let new: Vec<_> = ranges
                    .iter()
                    // The bus makes an entry shorter when there is another of the same start.
                    .filter(|range| !known.overlaps(range))
                    .collect();
                let text: Vec<_> = new
                    .iter()
                    .map(|range| bytes(range))
                    .map(|(offset, len)| format!("{offset}+{len}"))
                    .collect();
                fs::write(file, text.join(",")).context("the provider")?;
                for range in new {
                    self.model.listed.insert(range.clone());
                    self.model.known.insert(range.clone());
                }
            }
            (_, _, Some(file)) if by % 3 < 2 => {
                for (range, (offset, len)) in ranges.iter().map(|range| (range, bytes(range))) {
                    fs::write(file, format!("add {offset} {len}")).context("errors/list")?;
                    self.model.listed.insert(range.clone());
                    self.model.known.insert(range.clone());
                }
            }
            _ => {
                for range in ranges {
                    // The kernel refuses what does not fit, or takes a part of it.
                    if self.model.is_full() {
                        return Ok(());
                    }
                    let (at, len) = (self.first() + range.start, range.end - range.start);
                    fs::write(self.sysfs("badblocks"), format!("{at} {len}\n"))
                        .context("badblocks")?;
                    self.model.listed.insert(range.clone());
                    if !trial.c {
                        self.model.written.insert(range.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// These were repaired elsewhere.
    fn drop_errors(&mut self, range: Range<u64>) -> Result<()> {
        let file = self.trial.list.as_ref().context("no --list")?;
        let offset = self.trial.data.bytes() + self.trial.at.bytes() + range.start * SECTOR;
        let len = (range.end - range.start) * SECTOR;
        fs::write(file, format!("drop {offset} {len}")).context("errors/list")?;
        self.model.heal(range);
        Ok(())
    }

    fn read(&mut self, range: Range<u64>) -> Result<()> {
        let mut buffer = DirectBuffer::new(((range.end - range.start) * SECTOR) as usize);
        let offset = self.trial.at.bytes() + range.start * SECTOR;
        let answer = self.disk()?.read_at(buffer.bytes(), offset);
        if self.model.any_bad(&range) {
            return refused(answer, &[Errno::IO]);
        }
        self.same(answer?, buffer.bytes(), range.start * SECTOR)
    }

    /// So many bytes were read, and they are the model's.
    fn same(&self, got: usize, bytes: &[u8], at: u64) -> Result<()> {
        ensure!(got == bytes.len(), "{got} bytes of {}", bytes.len());
        let wanted = &self.model.bytes[at as usize..at as usize + got];
        if let Some(first) = bytes.iter().zip(wanted).position(|(a, b)| a != b) {
            bail!("byte {} is not what was written", at + first as u64);
        }
        Ok(())
    }

    fn zero_out(&self, range: &Range<u64>) -> Result<io::Result<()>> {
        let offset = self.trial.at.bytes() + range.start * SECTOR;
        let length = (range.end - range.start) * SECTOR;
        Ok(ioctl::zero_out(self.disk()?, offset, length))
    }

    fn block_zero(&mut self, range: Range<u64>) -> Result<()> {
        let answer = self.zero_out(&range)?;
        self.model.heal(range);
        Ok(answer?)
    }

    /// What a write by the block device has done to the model, and whether its answer is right.
    fn written(
        &mut self,
        range: Range<u64>,
        answer: io::Result<()>,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let sectors = self.model.writable(self.trial.clears, &range);
        let written = range.start..range.start + sectors;

        if written == range {
            answer?;
        } else {
            refused(answer.map(|()| 0), &[Errno::IO])?;
            if self.trial.c {
                return Ok(());
            }
        }
        let bytes =
            |range: &Range<u64>| (range.start * SECTOR) as usize..(range.end * SECTOR) as usize;
        let mut new = self.model.bytes[bytes(&range)].to_vec();
        write(&mut new);
        new.truncate((sectors * SECTOR) as usize);
        self.model.bytes[bytes(&written)].copy_from_slice(&new);
        self.model.heal(written);
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
            return refused(answer, &[Errno::IO]);
        }
        // What stands in front of it may be given, in part, or not.
        if answer.is_err() && good < len {
            return refused(answer, &[Errno::IO]);
        }
        let got = answer?;
        let right = got == good || got < good && good < len;
        ensure!(right, "{got} bytes, {good} stand before the bad page");
        self.same(got, &bytes[..got], at)
    }

    /// Page by page: a bad one takes all of it, and the write ends where that can't be.
    fn file_write(&mut self, at: u64, len: usize, seed: u64) -> Result<()> {
        let page = PAGE_BYTES as u64;
        let mut pages = at / page..(at + len as u64).div_ceil(page);
        if self.trial.c && pages.any(|page| self.model.page_is_bad(page)) {
            // C heals where a page begins with the write, and else does not write what is good.
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
                if self.trial.clears == Clears::Never || next - done != page {
                    break;
                }
                self.model.heal(done / SECTOR..next / SECTOR);
            }
            done = next;
        }
        let done = (done - at) as usize;
        if done == 0 {
            return refused(answer, &[Errno::IO, Errno::FAULT]);
        }
        let got = answer?;
        ensure!(got == done, "{got} bytes written, not {done}");
        self.model.bytes[at as usize..at as usize + done].copy_from_slice(&bytes[..done]);
        Ok(())
    }

    /// A load or a store through a mapping.
    fn touch(&mut self, page: u64, store: Option<u64>) -> Result<()> {
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
                Pattern::new(seed).fill(&mut bytes[..STORED], 0);
                mapping.try_copy_in(0, &bytes[..STORED])
            }
        };
        if self.model.page_is_bad(page) {
            let refusal = answer.err().context("a bad page is there")?;
            ensure!(
                (refusal.code, refusal.lsb) == (MCEERR_AR, 12),
                "SIGBUS code {} lsb {}",
                refusal.code,
                refusal.lsb
            );
            return Ok(());
        }
        answer.map_err(|refusal| anyhow!("SIGBUS code {}, of a good page", refusal.code))?;
        match store {
            None => self.same(PAGE_BYTES, &bytes, offset),
            Some(_) => {
                self.model.bytes[offset as usize..][..STORED].copy_from_slice(&bytes[..STORED]);
                Ok(())
            }
        }
    }

    fn rebind(&mut self) -> Result<()> {
        let command = self.trial.rebind.as_ref().context("no --rebind")?;
        (self.disk, self.file) = (None, None);
        let status = Command::new("sh").args(["-c", command]).status()?;
        ensure!(status.success(), "{command}: {status}");
        self.open()?;
        self.model.known = self.model.remembered();
        self.model.written.clear();
        self.model.listed = self.model.known.clone();
        self.model.was_full = false;
        Ok(())
    }

    /// The lists are the model's.
    fn compare(&mut self) -> Result<()> {
        let listed = self.listed()?;
        self.model.was_full |= self.model.is_full();
        if self.model.was_full {
            if let Some(at) = first_lacking(&listed, &self.model.listed) {
                bail!("badblocks: sector {at} is listed and not bad");
            }
            if self.trial.c {
                self.model.listed = listed;
            }
        } else {
            differs("badblocks", &self.model.listed, &listed)?;
        }
        if let Some(exact) = self.exact()? {
            differs("errors/list", &self.model.remembered(), &exact)?;
        }
        Ok(())
    }

    /// The tested ones of `len` sectors from `start`, which count from `first` on.
    fn within(&self, start: u64, len: u64, first: u64) -> Option<Range<u64>> {
        let range = start.max(first) - first..(start + len).saturating_sub(first).min(self.sectors);
        (!range.is_empty()).then_some(range)
    }

    /// The exact list, where there is one.
    fn exact(&self) -> Result<Option<RangeSet<u64>>> {
        let Some(file) = &self.trial.list else {
            return Ok(None);
        };
        let text = text_of(file)?;
        let mut exact = RangeSet::new();
        let skip = (self.trial.data.bytes() + self.trial.at.bytes()) / SECTOR;
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

    /// The disk's list.
    fn listed(&self) -> Result<RangeSet<u64>> {
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

    /// At the end, all is read: sector by sector where not all can be.
    fn all_there(&mut self) -> Result<()> {
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

/// What a file of sysfs holds, in as few pieces as it gives: each of them is made anew.
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

/// The first sector that is in `set` and not in `other`.
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

/// The answer is one of these errors.
fn refused(answer: io::Result<usize>, wanted: &[Errno]) -> Result<()> {
    match answer {
        Ok(done) => bail!("{done} bytes, where an error was due"),
        Err(error) if errno_of(&error).is_some_and(|errno| wanted.contains(&errno)) => Ok(()),
        Err(error) => Err(error).context("another error than was due"),
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
        fn heal_removes_from_each_set(set in set(), start in 0..40u64, len in 0..8u64) {
            let mut model = Model::new(48);
            model.listed = set.clone();
            model.known = set.clone();
            model.written = set.clone();
            model.heal(start..start + len);
            let mut left = sectors(&set);
            left.retain(|at| !(start..start + len).contains(at));
            for set in [&model.listed, &model.known, &model.written] {
                prop_assert_eq!(&sectors(set), &left);
            }
            prop_assert_eq!(sectors(&model.remembered()), left);
        }
    }
}
