// SPDX-License-Identifier: GPL-2.0

//! `pmem-io`: accesses to files and mappings that no packaged program makes, for tests.

mod area;
mod calls;
mod fail_nth;
mod files;
mod ioctl;
mod mapped;
mod mark;
#[cfg(feature = "model")]
mod model;
mod pattern;
mod places;
mod promise;
mod requests;
mod sequence;
mod steps;
mod sysfs;

use anyhow::{Result, ensure};
use area::{Area, Call, MapOptions, Seed};
use calls::Flags;
use clap::{Parser, Subcommand};
use mapped::{Durable, MappedFile};
use pattern::Pattern;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use steps::Step;
use units::Size;

/// Access files and mappings as no packaged program does, for tests of persistent memory
///
/// Exit status: 0; 1 for an error, whose message ends with the errno; 2 for bad arguments; 3 if memory
/// refused an access or bytes are not as expected: each such place is printed on a line.
#[derive(Parser)]
#[command(name = "pmem-io", version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Store the pattern to each page through a mapping, and make it durable
    MapWrite {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        map: MapOptions,
        /// Store this text and a newline instead of the pattern
        #[arg(long)]
        text: Option<String>,
        /// How to make the stores durable
        #[arg(long, value_name = "HOW", default_value = "none")]
        durable: Durable,
    },
    /// Load from each page through a mapping; print a line for each SIGBUS: page INDEX code CODE lsb
    /// LSB address ADDRESS
    MapRead {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        map: MapOptions,
    },
    /// Compare each page with the pattern through a mapping
    MapVerify {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        map: MapOptions,
    },
    /// Map the area and do steps to the mapping
    #[command(after_help = steps::HELP)]
    Map {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        map: MapOptions,
        /// Map read-only
        #[arg(long)]
        read_only: bool,
        /// Repeat for this many seconds: map, do the steps, unmap
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
        /// The steps, in order
        #[arg(value_name = "STEP", required = true)]
        steps: Vec<Step>,
    },
    /// Print the physical address of the byte at --offset of the file
    Phys {
        #[command(flatten)]
        area: Area,
    },
    /// Write the pattern by pwrite(2), then call fsync(2)
    Fill {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        call: Call,
        /// Do not call fsync(2)
        #[arg(long)]
        no_sync: bool,
    },
    /// Read by pread(2) and compare with the pattern
    Verify {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        #[command(flatten)]
        call: Call,
    },
    /// Make one preadv2(2) call; print the number of bytes, or the errno
    Pread {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        call: Call,
        #[command(flatten)]
        flags: Flags,
    },
    /// Make one pwritev2(2) call with the pattern; print the number of bytes, or the errno
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
    /// Make one pwrite(2) call with the pattern, from memory whose pages are missing until COMMAND
    /// ends (userfaultfd(2)); print the number of bytes, or the errno
    PwriteStalled {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        seed: Seed,
        /// Run this shell command when the call waits for its source
        #[arg(long, value_name = "COMMAND")]
        run: String,
    },
    /// Make the same access at equally spaced offsets; print how many had each result
    Places(places::Places),
    /// Write each line of standard input by one write(2) at the start of a file of sysfs or debugfs;
    /// print the lines that fail, with their errno
    Lines {
        /// The file
        file: PathBuf,
        /// Repeat for this many seconds
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Wait by poll(2) until the kernel notifies of a change of a sysfs file, and print the file;
    /// exit status 3 after a timeout
    Poll {
        /// The file
        file: PathBuf,
        /// Run this shell command when the wait begins
        #[arg(long, value_name = "COMMAND")]
        run: Option<String>,
        /// Timeout of the wait
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        timeout: u32,
    },
    /// Make random ranges of a disk bad, read, write and map it at random, and compare all of that
    /// with a model; exit status 3 if they differ
    #[cfg(feature = "model")]
    Model(model::Options),
    /// Read, write and zero a disk at random, with vectors of unaligned buffers, and compare with a
    /// model; print a checksum of the disk; exit status 3 if it differs
    Sequence(sequence::Sequence),
    /// Make random requests to a disk by io_uring, many at once; print the number of each result
    Requests(requests::Requests),
    /// Make files, a thousand in a folder, such as FOLDER/7/7992. They are sparse, except that every
    /// sixteenth has a block
    Files {
        /// The folder of the folders
        folder: PathBuf,
        /// First number
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Number after the last
        #[arg(long)]
        to: u64,
        /// Size of each file
        #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(1))]
        size: Size,
    },
    /// Repeat a step with a fault at its first, second, third … allocation, until it has no more; print
    /// how many faults led to each result
    #[command(after_help = fail_nth::HELP)]
    FailNth(fail_nth::FailNth),
    /// Make ioctl(2) requests in order; print a line for each: the kernel's answer, or the errno
    Ioctl(ioctl::Requests),
    /// Write records, and mark which were promised to be durable, until the power-failure plugin of
    /// QEMU has taken enough crash images
    Promise(promise::Promise),
    /// Speak to the power-failure plugin of QEMU
    Mark {
        #[command(subcommand)]
        mark: mark::Mark,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(3),
        Err(error) => {
            eprintln!("pmem-io: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; returns how many accesses failed or differed.
fn run(command: Command) -> Result<usize> {
    match command {
        Command::MapWrite {
            area,
            seed,
            map,
            text,
            durable,
        } => mapped::map_write(&area, &map, seed.pattern(), text.as_deref(), durable),
        Command::MapRead { area, map } => {
            let file = MappedFile::new(&area, &map, false, Pattern::new(0))?;
            Ok(file.load(file.all()).failed())
        }
        Command::MapVerify { area, seed, map } => {
            let file = MappedFile::new(&area, &map, false, seed.pattern())?;
            Ok(file.verify(file.all()).failed())
        }
        Command::Map {
            area,
            seed,
            map,
            read_only,
            seconds,
            steps,
        } => repeat(seconds, || {
            let mut file = MappedFile::new(&area, &map, !read_only, seed.pattern())?;
            steps::follow(&mut file, &steps)
        }),
        Command::Phys { area } => {
            println!("{:#x}", mapped::physical_address(&area)?);
            Ok(0)
        }
        Command::Fill {
            area,
            seed,
            call,
            no_sync,
        } => calls::fill(&area, seed.pattern(), &call, !no_sync),
        Command::Verify { area, seed, call } => calls::verify(&area, seed.pattern(), &call),
        Command::Pread { area, call, flags } => calls::pread(&area, &call, &flags),
        Command::Pwrite {
            area,
            seed,
            call,
            flags,
        } => calls::pwrite(&area, seed.pattern(), &call, &flags),
        Command::PwriteStalled { area, seed, run } => {
            calls::pwrite_stalled(&area, seed.pattern(), &run)
        }
        Command::Places(places) => places.run(),
        Command::Lines { file, seconds } => sysfs::write_lines(&file, seconds),
        Command::Poll { file, run, timeout } => {
            sysfs::wait_for_change(&file, run.as_deref(), timeout)
        }
        #[cfg(feature = "model")]
        Command::Model(options) => model::run(&options),
        Command::Sequence(sequence) => sequence.run(),
        Command::Requests(requests) => requests.run(),
        Command::Files {
            folder,
            from,
            to,
            size,
        } => files::make(&folder, from..to, size),
        Command::FailNth(steps) => steps.run(),
        Command::Ioctl(requests) => ioctl::run(&requests),
        Command::Promise(promise) => promise.run().map(|()| 0),
        Command::Mark { mark } => mark.run().map(|()| 0),
    }
}

/// Does this once, or again and again for `seconds`; returns how many accesses failed or differed.
fn repeat(seconds: Option<u64>, mut action: impl FnMut() -> Result<usize>) -> Result<usize> {
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut failed = 0;
    loop {
        failed += action()?;
        if end.is_none_or(|end| Instant::now() >= end) {
            return Ok(failed);
        }
    }
}

/// Runs a shell command. Its output goes to standard error, to keep it apart from ours.
fn shell(command: &str) -> Result<()> {
    let status = std::process::Command::new("sh")
        .args(["-c", command])
        .stdout(io::stderr())
        .status()?;
    ensure!(status.success(), "\"{command}\": {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
