// SPDX-License-Identifier: GPL-2.0

//! `pmem-fuzz`: feeds the drivers mutated input, the same for the same seed.

mod bus;
mod commands;
mod files;
mod images;
mod inputs;
mod ioctls;
mod labels;
mod layout;
mod minimize;
mod mutation;
mod requests;
mod results;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Feed a driver of persistent memory mutated metadata, writes to files and ioctls, the same for the same seed
///
/// Inputs are announced in the kernel's log before they are tried, commands and ioctls 256 at a time, so that the
/// log of a lost guest ends with what did it: --first and --count repeat it.
///
/// Exit status: 0; 1 for an error; 3 if the driver did what it must not: each such input is printed.
#[derive(Parser)]
#[command(name = "pmem-fuzz", version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mutate the info blocks of a namespace, and its maps and logs, and let the driver probe the result
    Images(images::Images),
    /// Mutate the labels of a DIMM, and let libnvdimm and the driver probe the region
    Labels(labels::Labels),
    /// Write valid, nearly valid and random commands to errors/list, and compare with a model
    Commands(commands::Commands),
    /// Write valid and random texts to the files of a region's devices and disks in sysfs
    Files(files::Files),
    /// Make mutated ioctl(2) requests to a disk with bad blocks, to buses and to DIMMs, and compare the disk with a model
    Ioctls(ioctls::Ioctls),
}

fn main() -> ExitCode {
    let done: Result<usize> = match Arguments::parse().command {
        Command::Images(images) => images.run(),
        Command::Labels(labels) => labels.run(),
        Command::Commands(commands) => commands.run(),
        Command::Files(files) => files.run(),
        Command::Ioctls(ioctls) => ioctls.run(),
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(3),
        Err(error) => {
            eprintln!("pmem-fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}
