// SPDX-License-Identifier: GPL-2.0

//! `pmem-demo`: what the driver is for, told while it happens.

mod errors;
#[cfg(feature = "picture")]
mod picture;
mod power;
mod story;
mod truth;

use anyhow::{Context, Result};
use clap::Parser;
use std::process::ExitCode;
use story::Story;
use vm::LogFile;

/// The whole story in a virtual machine: a stock kernel, the driver, file systems on persistent
/// memory, a power cut, and memory that goes bad.
#[derive(Parser)]
#[command(name = "pmem-demo", version, max_term_width = 120)]
struct Arguments {
    /// Which driver to show
    #[arg(long, value_name = "DRIVER", default_value = "rust_pmem")]
    driver: Driver,

    /// Instead, the story of N machine checks at random addresses
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        default_missing_value = "12",
        value_parser = clap::value_parser!(u16).range(1..=200)
    )]
    errors: Option<u16>,

    /// Which random addresses; the same seed tells the same story again
    #[arg(long, requires = "errors")]
    seed: Option<u64>,

    /// Instead, draw what pmemctl prints in a terminal, as SVG into this folder
    #[cfg(feature = "picture")]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["errors", "driver"])]
    picture: Option<std::path::PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Driver {
    #[value(name = "rust_pmem")]
    Rust,
    #[value(name = "nd_pmem")]
    C,
}

impl Driver {
    /// Its module.
    fn name(self) -> &'static str {
        match self {
            Driver::Rust => "rust_pmem",
            Driver::C => "nd_pmem",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut story = Story::new();
    match run(&arguments, &mut story) {
        Ok(()) => {
            story.conclude();
            ExitCode::SUCCESS
        }
        Err(error) => {
            story.fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, story: &mut Story) -> Result<()> {
    #[cfg(feature = "picture")]
    if let Some(folder) = &arguments.picture {
        return picture::draw(story, folder);
    }
    match arguments.errors {
        None => power::tell(story, arguments.driver),
        Some(count) => errors::tell(story, arguments.driver, count.into(), arguments.seed),
    }
}

/// Where the kernel's log goes.
fn log_file() -> Result<LogFile> {
    let here = std::env::current_dir()?;
    let top = here
        .ancestors()
        .find(|folder| folder.join("Kbuild").is_file());
    LogFile::in_folder(
        &top.context("this is in no checkout of the project")?
            .join("build/demo"),
    )
}

/// Loads the driver and what finds the memory.
fn load(story: &mut Story, driver: Driver) -> Result<()> {
    story.guest("modprobe -a nfit nd_e820 nd_btt virtio_pmem 2>/dev/null")?;
    match driver {
        Driver::Rust => story.guest("insmod /rust_pmem/rust_pmem.ko")?,
        Driver::C => story.guest("modprobe nd_pmem")?,
    };
    // Probes run in their own time.
    story.quietly("cat /sys/bus/nd/devices/ndbus*/wait_probe")?;
    Ok(())
}
