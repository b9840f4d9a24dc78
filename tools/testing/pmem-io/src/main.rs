// SPDX-License-Identifier: GPL-2.0

//! `pmem-io`: what a test does to a file or a mapping that no packaged program does.

mod ioctl;
#[cfg(feature = "model")]
mod model;
mod pattern;
mod places;
mod sequence;
mod steps;

use abstractions::Mapping;
use abstractions::mapping::Want;
use abstractions::sigbus::{self, Refusal};
use abstractions::userfault::Stalled;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use pattern::Pattern;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use steps::{Step, Target};
use units::{Buffer, PAGE, Size};

/// What a test of persistent memory does to a file or a mapping that no packaged program does.
///
/// Status: 0, 1 for an error (of which the errno is the last word), 2 for bad arguments, 3 where
/// memory refused an access or bytes are not what they should be: what and where is printed, one
/// line each.
#[derive(Parser)]
#[command(name = "pmem-io", version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the pattern through a mapping, page by page, and make it durable as --durable says
    MapWrite {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        map: Map,
        /// Write this text and a newline instead of the pattern
        #[arg(long)]
        text: Option<String>,
        /// How the bytes become durable
        #[arg(long, value_name = "HOW", default_value = "none")]
        durable: Durable,
    },
    /// Touch every page through a mapping; print a line for each that is refused: page INDEX code
    /// CODE lsb LSB
    MapRead {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        map: Map,
    },
    /// Compare with the pattern through a mapping, page by page
    MapVerify {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        map: Map,
    },
    /// Map the area and do one thing after the other to the mapping
    #[command(after_help = steps::HELP)]
    Map {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        map: Map,
        /// Map for reading only
        #[arg(long)]
        read_only: bool,
        /// What is done, in this order
        #[arg(value_name = "STEP", required = true)]
        steps: Vec<Step>,
    },
    /// Print the physical address of the byte at --offset of the file, as a mapping has it
    Phys {
        #[command(flatten)]
        area: Area,
    },
    /// Write the pattern by pwrite(2), then fsync(2)
    Fill {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        call: Call,
        /// No fsync(2)
        #[arg(long)]
        no_sync: bool,
    },
    /// Compare with the pattern by pread(2)
    Verify {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        call: Call,
    },
    /// One preadv2(2); print the number of bytes it gave, or its errno
    Pread {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        call: Call,
        #[command(flatten)]
        flags: Flags,
    },
    /// One pwritev2(2) of the pattern; print the number of bytes it took, or its errno
    Pwrite {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        call: Call,
        #[command(flatten)]
        flags: Flags,
    },
    /// One pwrite(2) of the pattern from memory whose pages are missing until COMMAND has ended, by
    /// userfaultfd(2); print the number of bytes it took, or its errno
    PwriteStalled {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        /// Run by the shell once the call waits for its source
        #[arg(long, value_name = "COMMAND")]
        run: String,
    },
    /// The same access at places that are as far from each other; print how many had which answer
    Places {
        #[command(flatten)]
        places: places::Places,
    },
    /// Write each line of standard input by one write(2) at the start of a file of sysfs or debugfs;
    /// print those refused, with their errno
    Lines {
        /// The file
        file: PathBuf,
        /// Begin again until so many seconds have passed
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Read a file of sysfs, wait by poll(2) until the kernel says that it changed, and print what
    /// it holds then; status 3 when it does not in time
    Poll {
        /// The file
        file: PathBuf,
        /// Run this by the shell once the wait has begun
        #[arg(long, value_name = "COMMAND")]
        run: Option<String>,
        /// Seconds to wait
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        timeout: u32,
    },
    /// Make random ranges of a disk bad, read, write and map it at random, and hold all of that
    /// against a model; status 3 where they differ
    #[cfg(feature = "model")]
    Model {
        #[command(flatten)]
        trial: model::Trial,
    },
    /// Read, write and zero a disk at random, from and into pieces of memory that begin anywhere, and hold
    /// that against a model; print the checksum of what is on it then; status 3 where it is not what must be
    Sequence {
        #[command(flatten)]
        sequence: sequence::Sequence,
    },
    /// Make files, a thousand in a folder: FOLDER/7/7992 is one. Of most of them only the size is there,
    /// every sixteenth has a block
    Files {
        /// Where
        folder: PathBuf,
        /// The number of the first
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// The number behind the last
        #[arg(long)]
        to: u64,
        /// Their size
        #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(1))]
        size: Size,
    },
    /// Requests by ioctl(2), in their order; print a line for each: what the kernel wrote, or its
    /// errno
    Ioctl {
        #[command(flatten)]
        requests: ioctl::Requests,
    },
}

/// A piece of a file.
#[derive(Args)]
struct Area {
    /// The file or device
    file: PathBuf,
    /// Where it begins
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_bytes(0))]
    offset: Size,
    /// How long it is (otherwise to the end of the file)
    #[arg(long, value_name = "SIZE")]
    length: Option<Size>,
}

#[derive(Args)]
struct Seed {
    /// Which pattern: every byte depends on it and on its place in the file
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct Flags {
    /// Rather fail than wait (RWF_NOWAIT)
    #[arg(long)]
    nowait: bool,
    /// Durable at the end (RWF_DSYNC)
    #[arg(long)]
    dsync: bool,
}

impl Flags {
    fn bits(&self) -> ReadWriteFlags {
        let mut bits = ReadWriteFlags::empty();
        bits.set(ReadWriteFlags::NOWAIT, self.nowait);
        bits.set(ReadWriteFlags::DSYNC, self.dsync);
        bits
    }
}

#[derive(Args)]
struct Map {
    /// Map with MAP_SYNC
    #[arg(long)]
    sync: bool,
    /// Map with MAP_POPULATE
    #[arg(long)]
    populate: bool,
}

#[derive(Args)]
struct Call {
    /// Open with O_DIRECT
    #[arg(long)]
    direct: bool,
    /// Bytes that the buffer stands off a page's start
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    misalign: usize,
    /// Bytes of each call where there are several
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(1))]
    block: Size,
}

/// How stored bytes become durable.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Durable {
    /// Not at all
    None,
    /// By the processor's cache write-back, without a call of the kernel; takes --sync
    Flush,
    /// By msync(2)
    Msync,
    /// By fsync(2)
    Fsync,
}

fn main() -> ExitCode {
    match work(Arguments::parse().command) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(3),
        Err(error) => {
            eprintln!("pmem-io: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Files of one folder.
const FOLDER: u64 = 1000;
/// One in so many has a block.
const STORED: u64 = 16;

fn files(folder: &Path, numbers: Range<u64>, size: Size) -> Result<()> {
    let mut next = numbers.start;
    while next < numbers.end {
        let path = folder.join((next / FOLDER).to_string());
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let inside = File::open(&path)?;
        let end = numbers.end.min((next / FOLDER + 1) * FOLDER);
        for number in next..end {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let mode = Mode::from_raw_mode(0o644);
            let file = openat(&inside, number.to_string(), flags, mode)
                .map(File::from)
                .with_context(|| format!("file {number}"))?;
            file.set_len(size.bytes())?;
            if number % STORED == 0 {
                file.write_all_at(b"x", 0)?;
            }
        }
        next = end;
    }
    Ok(())
}

/// Does it; the number of pages refused, or of places where bytes differ.
fn work(command: Command) -> Result<usize> {
    match command {
        Command::MapWrite {
            area,
            seed,
            map,
            text,
            durable,
        } => {
            let pattern = Pattern::new(seed.seed);
            map_write(&area, &map, durable, |bytes, at| match &text {
                Some(text) => {
                    let text = text.bytes().chain([b'\n']).skip(at as usize);
                    bytes
                        .iter_mut()
                        .zip(text)
                        .map(|(byte, letter)| *byte = letter)
                        .count()
                }
                None => {
                    pattern.fill(bytes, at);
                    bytes.len()
                }
            })
        }
        Command::MapRead { area, map } => {
            let mapping = area.map(&map, false)?;
            let mut page = [0; PAGE as usize];
            each_page(&mapping, 0..mapping.len(), |at, length| {
                mapping.try_copy_out(at, &mut page[..length])
            })
        }
        Command::MapVerify { area, seed, map } => map_verify(&area, Pattern::new(seed.seed), &map),
        Command::Map {
            area,
            seed,
            map,
            read_only,
            steps,
        } => {
            let mut target = Target {
                mapping: area.map(&map, !read_only)?,
                path: area.file,
                offset: area.offset.bytes(),
                pattern: Pattern::new(seed.seed),
            };
            steps::follow(&mut target, &steps)
        }
        Command::Phys { area } => {
            println!("{:#x}", physical(&area)?);
            Ok(0)
        }
        Command::Fill {
            area,
            seed,
            call,
            no_sync,
        } => {
            let file = area.open(true, call.direct)?;
            let pattern = Pattern::new(seed.seed);
            area.blocks(&file, &call, |buffer, at| {
                pattern.fill(buffer, at);
                file.write_all_at(buffer, at)
                    .with_context(|| format!("write at {at}"))
            })?;
            if !no_sync {
                file.sync_all().context("fsync")?;
            }
            Ok(0)
        }
        Command::Verify { area, seed, call } => {
            let file = area.open(false, call.direct)?;
            let pattern = Pattern::new(seed.seed);
            let mut wrong = 0;
            area.blocks(&file, &call, |buffer, at| {
                file.read_exact_at(buffer, at)
                    .with_context(|| format!("read at {at}"))?;
                wrong += differences(&pattern, buffer, at);
                Ok(())
            })?;
            Ok(wrong)
        }
        Command::Pread { area, call, flags } => {
            let file = area.open(false, call.direct)?;
            let mut buffer = Buffer::misaligned(area.length_of(&file)?, call.misalign);
            let mut to = [IoSliceMut::new(buffer.bytes())];
            said(preadv2(&file, &mut to, area.offset.bytes(), flags.bits()))
        }
        Command::Pwrite {
            area,
            seed,
            call,
            flags,
        } => {
            let file = area.open(true, call.direct)?;
            let mut buffer = Buffer::misaligned(area.length_of(&file)?, call.misalign);
            Pattern::new(seed.seed).fill(buffer.bytes(), area.offset.bytes());
            let from = [IoSlice::new(buffer.bytes())];
            said(pwritev2(&file, &from, area.offset.bytes(), flags.bits()))
        }
        Command::PwriteStalled { area, seed, run } => {
            pwrite_stalled(&area, &Pattern::new(seed.seed), &run)
        }
        Command::Places { places } => places.run(),
        Command::Lines { file, seconds } => lines(&file, seconds),
        Command::Sequence { sequence } => sequence.run(),
        #[cfg(feature = "model")]
        Command::Model { trial } => model::run(&trial),
        Command::Files {
            folder,
            from,
            to,
            size,
        } => {
            files(&folder, from..to, size)?;
            Ok(0)
        }
        Command::Ioctl { requests } => ioctl::make(&requests),
        Command::Poll { file, run, timeout } => wait_for_change(&file, run.as_deref(), timeout),
    }
}

fn pwrite_stalled(area: &Area, pattern: &Pattern, run: &str) -> Result<usize> {
    /// Seconds until the call reads its source.
    const SOON: u32 = 20;

    let file = area.open(true, false)?;
    let mut bytes = vec![0; area.length_of(&file)?];
    pattern.fill(&mut bytes, area.offset.bytes());
    let source = Stalled::new(bytes.len()).context("userfaultfd")?;
    let answer = thread::scope(|scope| {
        let writer = scope.spawn(|| source.pwrite(&file, area.offset.bytes()));
        let waits = source.wait(SOON);
        let status = matches!(waits, Ok(true)).then(|| shell(run));
        // Whatever was answered, so that nobody waits for ever.
        let supplied = source.supply(&bytes);
        let answer = writer.join().expect("it does not panic");
        ensure!(waits?, "the call did not read its source");
        supplied.context("UFFDIO_COPY")?;
        status.transpose()?;
        Ok(answer)
    })?;
    println!("{}", answer?);
    Ok(0)
}

fn lines(path: &Path, seconds: Option<u64>) -> Result<usize> {
    let name = || path.display().to_string();
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(name)?;
    let text = io::read_to_string(io::stdin())?;
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut refused = 0;
    loop {
        for line in text.lines() {
            if let Err(error) = file.write_at(line.as_bytes(), 0) {
                println!("{line}: {error}");
                refused += 1;
            }
        }
        if end.is_none_or(|end| Instant::now() >= end) {
            return Ok(refused);
        }
    }
}

/// Runs a command, what it prints being no answer of ours.
fn shell(command: &str) -> Result<()> {
    let status = std::process::Command::new("sh")
        .args(["-c", command])
        .stdout(io::stderr())
        .status()?;
    ensure!(status.success(), "\"{command}\": {status}");
    Ok(())
}

/// Prints the answer of one call.
fn said(answer: rustix::io::Result<usize>) -> Result<usize> {
    println!("{}", answer?);
    Ok(0)
}

/// Opens a file or device for reading and, if so wanted, for writing, with or without O_DIRECT.
fn open(path: &Path, write: bool, direct: bool) -> Result<File> {
    let flags = if direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .with_context(|| path.display().to_string())
}

impl Area {
    fn open(&self, write: bool, direct: bool) -> Result<File> {
        open(&self.file, write, direct)
    }

    /// Its length in bytes, in this file.
    fn length_of(&self, mut file: &File) -> Result<usize> {
        if let Some(length) = self.length {
            return Ok(usize::try_from(length.bytes())?);
        }
        // Of a device too.
        let end = file.seek(SeekFrom::End(0)).context("the end of the file")?;
        let length = end
            .checked_sub(self.offset.bytes())
            .filter(|&length| length > 0);
        Ok(usize::try_from(
            length.context("--offset is behind the end")?,
        )?)
    }

    /// A mapping of it.
    fn map(&self, map: &Map, writable: bool) -> Result<Mapping> {
        let offset = self.offset.bytes();
        ensure!(
            offset % PAGE == 0,
            "--offset {}: not a multiple of {PAGE}",
            self.offset
        );
        // Stores need a file open for both; MAP_SYNC needs one open for stores too.
        let file = self.open(writable || map.sync, false)?;
        let want = Want {
            writable: writable || map.sync,
            sync: map.sync,
            populate: map.populate,
        };
        let mapping = Mapping::new(&file, offset, self.length_of(&file)?, want).context("mmap")?;
        sigbus::catch().context("sigaction")?;
        Ok(mapping)
    }

    /// Calls `act` with a buffer for each block and its place in the file.
    fn blocks(
        &self,
        file: &File,
        call: &Call,
        mut act: impl FnMut(&mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        let block = usize::try_from(call.block.bytes())?;
        ensure!(block > 0, "--block 0");
        let length = self.length_of(file)?;
        let mut buffer = Buffer::misaligned(block.min(length), call.misalign);
        let mut done = 0;
        while done < length {
            let now = block.min(length - done);
            act(
                &mut buffer.bytes()[..now],
                self.offset.bytes() + done as u64,
            )?;
            done += now;
        }
        Ok(())
    }
}

/// Accesses each page of a piece of a mapping, and prints those that are refused.
fn each_page(
    mapping: &Mapping,
    piece: Range<usize>,
    mut access: impl FnMut(usize, usize) -> Result<(), Refusal>,
) -> Result<usize> {
    let page = PAGE as usize;
    let mut refused = 0;
    for at in piece.clone().step_by(page) {
        let length = page.min(piece.end - at);
        if let Err(refusal) = access(at, length) {
            println!(
                "page {} code {} lsb {} address {:#x}",
                at / page,
                refusal.code,
                refusal.lsb,
                refusal.address.wrapping_sub(mapping.address())
            );
            refused += 1;
        }
    }
    Ok(refused)
}

/// Stores to each page as many bytes as `make` makes, which is told how many there are and where in
/// the file.
fn map_write(
    area: &Area,
    map: &Map,
    durable: Durable,
    make: impl Fn(&mut [u8], u64) -> usize,
) -> Result<usize> {
    ensure!(
        durable != Durable::Flush || map.sync,
        "--durable flush: without --sync the file's own records may be lost"
    );
    let mapping = area.map(map, true)?;
    let mut bytes = [0; PAGE as usize];
    let refused = each_page(&mapping, 0..mapping.len(), |at, length| {
        let made = make(&mut bytes[..length], area.offset.bytes() + at as u64);
        if made == 0 {
            return Ok(());
        }
        mapping.try_copy_in(at, &bytes[..made])
    })?;
    match durable {
        Durable::None => {}
        Durable::Flush => println!("flushed by {}", mapping.write_back(0, mapping.len())),
        Durable::Msync => mapping.sync(0, mapping.len()).context("msync")?,
        Durable::Fsync => area.open(true, false)?.sync_all().context("fsync")?,
    }
    Ok(refused)
}

fn map_verify(area: &Area, pattern: Pattern, map: &Map) -> Result<usize> {
    let mapping = area.map(map, false)?;
    let mut bytes = [0; PAGE as usize];
    let mut wrong = 0;
    let refused = each_page(&mapping, 0..mapping.len(), |at, length| {
        mapping.try_copy_out(at, &mut bytes[..length])?;
        wrong += differences(&pattern, &bytes[..length], area.offset.bytes() + at as u64);
        Ok(())
    })?;
    Ok(refused + wrong)
}

/// Prints the first byte that differs, and where its bytes belong if that can be told; how many
/// places differ, 0 or 1.
fn differences(pattern: &Pattern, bytes: &[u8], at: u64) -> usize {
    let Some(index) = pattern.first_difference(bytes, at) else {
        return 0;
    };
    println!(
        "byte {} is {:#04x}, not {:#04x}",
        at + index as u64,
        bytes[index],
        pattern.byte(at + index as u64)
    );
    1
}

/// The physical address of the area's first byte.
fn physical(area: &Area) -> Result<u64> {
    /// A page is there (Documentation/admin-guide/mm/pagemap.rst).
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;

    let within = area.offset.bytes() % PAGE;
    let page = Area {
        file: area.file.clone(),
        offset: Size::from_bytes(area.offset.bytes() - within),
        length: Some(Size::from_bytes(PAGE)),
    };
    let mapping = page.map(
        &Map {
            sync: false,
            populate: false,
        },
        false,
    )?;
    let refused = mapping.try_copy_out(0, &mut [0]);
    if let Err(refusal) = refused {
        bail!("the page is refused: SIGBUS, code {}", refusal.code);
    }
    let mut entry = [0; 8];
    let table = File::open("/proc/self/pagemap").context("/proc/self/pagemap")?;
    table
        .read_exact_at(&mut entry, mapping.address() as u64 / PAGE * 8)
        .context("/proc/self/pagemap")?;
    let entry = u64::from_ne_bytes(entry);
    ensure!(entry & PRESENT != 0, "the page is not there");
    ensure!(
        entry & FRAME != 0,
        "the kernel does not tell: this takes root"
    );
    Ok((entry & FRAME) * PAGE + within)
}

fn wait_for_change(path: &Path, run: Option<&str>, seconds: u32) -> Result<usize> {
    let name = || path.display().to_string();
    let mut file = File::open(path).with_context(name)?;
    let mut text = String::new();
    // The kernel tells of changes since the last read.
    file.read_to_string(&mut text).with_context(name)?;
    if let Some(command) = run {
        shell(command)?;
    }
    let limit = Timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&file, PollFlags::PRI | PollFlags::ERR)];
    if poll(&mut fds, Some(&limit)).context("poll")? == 0 {
        println!("no change in {seconds} s");
        return Ok(1);
    }
    file.seek(SeekFrom::Start(0))?;
    text.clear();
    file.read_to_string(&mut text).with_context(name)?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}
