// SPDX-License-Identifier: GPL-2.0

//! The same access at many places of a file or device.

use crate::area::{Call, Seed, open};
use crate::pattern::Pattern;
use abstractions::DirectBuffer;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use units::Size;

/// In which order places are accessed.
#[derive(Clone, Copy, ValueEnum)]
enum Order {
    /// From the first to the last
    Ascending,
    /// From the last to the first
    Descending,
    /// At random, always the same
    Shuffled,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Access {
    /// pread(2)
    Read,
    /// pread(2), and compare with the pattern
    Verify,
    /// pwrite(2) of the pattern
    Write,
    /// pwrite(2) of the pattern, then pread(2), and compare
    Rewrite,
}

/// Where, and what is done there.
#[derive(Args)]
pub struct Places {
    /// The file or device
    file: PathBuf,
    /// What is done at each place
    #[arg(value_enum)]
    access: Access,
    /// The first place
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_bytes(0))]
    offset: Size,
    /// Bytes from one place to the next
    #[arg(long, value_name = "SIZE")]
    stride: Size,
    /// How many places
    #[arg(long)]
    count: u64,
    /// Bytes at each place
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_bytes(4096))]
    length: Size,
    /// In which order
    #[arg(long, value_name = "ORDER", default_value = "ascending")]
    order: Order,
    /// Begin again until so many seconds have passed
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    #[command(flatten)]
    seed: Seed,
    #[command(flatten)]
    call: Call,
}

/// Equal answers: how many, and the first place.
#[derive(Default)]
struct Tally(BTreeMap<String, (u64, u64)>);

impl Tally {
    fn count(&mut self, answer: String, at: u64) {
        self.0.entry(answer).or_insert((0, at)).0 += 1;
    }

    fn print(&self) {
        for (answer, (count, first)) in &self.0 {
            match self.0.len() {
                1 => println!("{answer}: {count}"),
                _ => println!("{answer}: {count}, first at {first}"),
            }
        }
    }
}

impl Places {
    /// Accesses each place, and prints a line for each kind of answer.
    pub fn run(&self) -> Result<usize> {
        let length = usize::try_from(self.length.bytes())?;
        ensure!(length > 0, "--length 0");
        let file = open(
            &self.file,
            matches!(self.access, Access::Write | Access::Rewrite),
            self.call.direct,
        )?;
        let mut numbers: Vec<u64> = (0..self.count).collect();
        match self.order {
            Order::Ascending => {}
            Order::Descending => numbers.reverse(),
            Order::Shuffled => fastrand::Rng::with_seed(1).shuffle(&mut numbers),
        }
        let pattern = Pattern::new(self.seed.seed);
        let mut buffer = DirectBuffer::misaligned(length, self.call.misalign);
        let mut tally = Tally::default();
        let end = self
            .seconds
            .map(|seconds| Instant::now() + Duration::from_secs(seconds));
        loop {
            for number in &numbers {
                let at = self.offset.bytes() + number * self.stride.bytes();
                tally.count(self.access(&file, &pattern, buffer.bytes(), at), at);
            }
            if end.is_none_or(|end| Instant::now() >= end) {
                break;
            }
        }
        tally.print();
        Ok(0)
    }

    /// One access, in words.
    fn access(&self, file: &impl FileExt, pattern: &Pattern, buffer: &mut [u8], at: u64) -> String {
        let write = matches!(self.access, Access::Write | Access::Rewrite);
        if write {
            pattern.fill(buffer, at);
            match whole(file.write_at(buffer, at), buffer.len()) {
                None => {}
                Some(answer) => return answer,
            }
        }
        if self.access == Access::Write {
            return "ok".into();
        }
        buffer.fill(0);
        match whole(file.read_at(buffer, at), buffer.len()) {
            None => {}
            Some(answer) if write => return format!("written, then {answer}"),
            Some(answer) => return answer,
        }
        if self.access != Access::Read && pattern.first_difference(buffer, at).is_some() {
            return "not the pattern".into();
        }
        "ok".into()
    }
}

/// What there is to say of a call that did not do all.
fn whole(answer: io::Result<usize>, length: usize) -> Option<String> {
    match answer {
        Ok(done) if done == length => None,
        Ok(done) => Some(format!("{done} bytes")),
        Err(error) => Some(
            error
                .to_string()
                .split(" (os error")
                .next()
                .unwrap_or_default()
                .to_owned(),
        ),
    }
}
