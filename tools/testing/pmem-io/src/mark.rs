// SPDX-License-Identifier: GPL-2.0

//! Marks for the power-failure plugin of QEMU.

use abstractions::mark;
use anyhow::{Result, ensure};
use clap::Subcommand;
use persistence::log::operation;
use std::thread;
use std::time::{Duration, Instant};

/// Time that QEMU gets to begin.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Subcommand)]
pub enum Mark {
    /// Follow stores from now on; everything that was stored before is durable
    Watch,
    /// Print the number of cache lines that are not durable
    Undurable,
    /// Take a crash image of what is durable
    Image,
    /// Take a crash image with a random choice of what is not durable
    RandomImage,
    /// Take crash images at fences and stores, until there are so many
    Crashes { number: u64 },
    /// Log a number for the checker of the images
    Note { number: u64 },
}

impl Mark {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Watch => watch()?,
            Self::Undurable => println!("{}", mark(operation::UNDURABLE, 0)),
            Self::Image => drop(mark(operation::IMAGE, 0)),
            Self::RandomImage => drop(mark(operation::RANDOM_IMAGE, 0)),
            Self::Crashes { number } => drop(mark(operation::CRASHES, *number)),
            Self::Note { number } => drop(mark(operation::NOTE, *number)),
        }
        Ok(())
    }
}

/// Waits until stores are followed.
fn watch() -> Result<()> {
    const UNUSED: u64 = u64::MAX;
    let answers = mark(UNUSED, 0) != UNUSED;
    ensure!(answers, "this guest runs without the power-failure plugin");
    let start = Instant::now();
    while mark(operation::WATCH, 0) != 1 {
        ensure!(
            start.elapsed() < LIMIT,
            "the power-failure plugin does not begin"
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
