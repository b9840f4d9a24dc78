// SPDX-License-Identifier: GPL-2.0

//! `pmem-io places`: the same access at many offsets of a file or device.

use crate::area::{Call, Seed, open};
use crate::pattern::Pattern;
use crate::repeat;
use abstractions::DirectBuffer;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use units::Size;

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    /// From the lowest to the highest offset
    Ascending,
    /// From the highest to the lowest offset
    Descending,
    /// In a random order, which is always the same
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

#[derive(Args)]
pub struct Places {
    /// The file or device
    file: PathBuf,
    /// The access
    #[arg(value_enum)]
    access: Access,
    /// First offset
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_bytes(0))]
    offset: Size,
    /// Distance between offsets
    #[arg(long, value_name = "SIZE")]
    stride: Size,
    /// Number of offsets
    #[arg(long)]
    count: u64,
    /// Length of each access
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_bytes(4096))]
    length: Size,
    /// Order of the accesses
    #[arg(long, value_name = "ORDER", default_value = "ascending")]
    order: Order,
    /// Repeat for this many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    #[command(flatten)]
    seed: Seed,
    #[command(flatten)]
    call: Call,
}

/// The results: how many accesses had each, and the first of their offsets.
#[derive(Default)]
struct Results(BTreeMap<String, (u64, u64)>);

impl Results {
    fn count(&mut self, result: String, at: u64) {
        self.0.entry(result).or_insert((0, at)).0 += 1;
    }

    fn print(&self) {
        for (result, (count, first)) in &self.0 {
            match self.0.len() {
                1 => println!("{result}: {count}"),
                _ => println!("{result}: {count}, first at {first}"),
            }
        }
    }
}

impl Places {
    /// Makes the accesses and prints a line for each different result.
    pub fn run(&self) -> Result<usize> {
        let length = usize::try_from(self.length.bytes())?;
        ensure!(length > 0, "--length 0");
        ensure!(self.count > 0, "--count 0");
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
        let mut results = Results::default();
        repeat(self.seconds, || {
            for number in &numbers {
                let at = self.offset.bytes() + number * self.stride.bytes();
                results.count(self.access(&file, &pattern, buffer.bytes(), at), at);
            }
            Ok(0)
        })?;
        results.print();
        Ok(0)
    }

    /// Makes one access and returns its result as text.
    fn access(&self, file: &impl FileExt, pattern: &Pattern, buffer: &mut [u8], at: u64) -> String {
        let write = matches!(self.access, Access::Write | Access::Rewrite);
        if write {
            pattern.fill(buffer, at);
            if let Some(result) = failure(file.write_at(buffer, at), buffer.len()) {
                return result;
            }
        }
        if self.access == Access::Write {
            return "ok".into();
        }
        buffer.fill(0);
        match failure(file.read_at(buffer, at), buffer.len()) {
            None => {}
            Some(result) if write => return format!("written, then {result}"),
            Some(result) => return result,
        }
        if self.access != Access::Read && pattern.first_difference(buffer, at).is_some() {
            return "not the pattern".into();
        }
        "ok".into()
    }
}

/// Returns the text of a result other than `length` bytes.
fn failure(result: io::Result<usize>, length: usize) -> Option<String> {
    match result {
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
