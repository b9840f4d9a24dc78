// SPDX-License-Identifier: GPL-2.0

//! `pmem-demo`: shows the purpose of the driver, with a comment on each step.

mod errors;
mod narrate;
#[cfg(feature = "picture")]
mod picture;
mod power;

use anyhow::{Context, Result};
use clap::Parser;
use narrate::Story;
use std::process::ExitCode;
use vm::{Driver, LogFile};

/// Shows the driver in a virtual machine: a stock kernel, file systems on persistent memory, a power cut, and a
/// media error.
#[derive(Parser)]
#[command(name = "pmem-demo", version, max_term_width = 120)]
struct Arguments {
    /// Driver to show
    #[arg(long, value_name = "DRIVER", default_value = "rust_pmem")]
    driver: Driver,

    /// Draw the output of pmemctl in a terminal instead, as SVG files in this folder
    #[cfg(feature = "picture")]
    #[arg(long, value_name = "DIR", conflicts_with = "driver")]
    picture: Option<std::path::PathBuf>,
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
    power::run(story, arguments.driver)
}

/// Opens the file for the kernel's log.
fn log_file() -> Result<LogFile> {
    let here = std::env::current_dir()?;
    let top = here
        .ancestors()
        .find(|folder| folder.join("Kbuild").is_file());
    LogFile::in_folder(
        &top.context("the current folder is in no checkout of the project")?
            .join("build/demo"),
    )
}

/// Loads the driver, and the modules that find the memory.
fn load(story: &mut Story, driver: Driver) -> Result<()> {
    story.guest("modprobe -a nfit nd_e820 nd_btt virtio_pmem 2>/dev/null")?;
    match driver {
        Driver::Rust => story.guest("insmod /rust_pmem/rust_pmem.ko")?,
        Driver::C => story.guest("modprobe nd_pmem")?,
    };
    // Probes are asynchronous.
    story.quietly("cat /sys/bus/nd/devices/ndbus*/wait_probe")?;
    Ok(())
}
