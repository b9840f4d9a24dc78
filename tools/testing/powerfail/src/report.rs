// SPDX-License-Identifier: GPL-2.0

//! The table, and the files of a counter-example.

use crate::Arguments;
use crate::images::Found;
use crate::workload::Workload;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;
use vm::Vm;

/// The result of a workload.
#[derive(Serialize, Deserialize)]
pub struct Row {
    /// The inputs of the result: a row with another key is another result.
    pub key: String,
    pub workload: String,
    pub images: u64,
    /// Number of different images.
    pub distinct: u64,
    pub most_undurable: u32,
    pub problems: Vec<String>,
    pub seconds: u64,
}

const FILE: &str = "result.json";

impl Row {
    /// Reads the result of an earlier run; none if there is none with this key.
    pub fn read(folder: &Path, key: &str) -> Option<Self> {
        let text = fs::read_to_string(folder.join(FILE)).ok()?;
        serde_json::from_str(&text)
            .ok()
            .filter(|row: &Self| row.key == key)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| path.display().to_string())
    }
}

/// Writes the table.
pub fn write(path: &Path, driver: &str, rows: &[Row]) -> Result<()> {
    let mut text = format!(
        "# Crash images, {driver}\n\n| workload | images | different | lost | most undurable lines | time (s) |\n\
         |---|--:|--:|--:|--:|--:|\n"
    );
    for row in rows {
        let Row {
            workload,
            images,
            distinct,
            problems,
            most_undurable,
            seconds,
            ..
        } = row;
        let _ = writeln!(
            text,
            "| {workload} | {images} | {distinct} | {} | {most_undurable} | {seconds} |",
            problems.len()
        );
    }
    let (images, lost) = (
        rows.iter().map(|row| row.images).sum::<u64>(),
        rows.iter().map(|row| row.problems.len()).sum::<usize>(),
    );
    let distinct: u64 = rows.iter().map(|row| row.distinct).sum();
    let seconds: u64 = rows.iter().map(|row| row.seconds).sum();
    let _ = writeln!(
        text,
        "| sum | {images} | {distinct} | {lost} | | {seconds} |"
    );
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Names the kernel's instructions that stored the lines of the counter-examples.
pub fn symbols(vm: &mut Vm, found: &Found) -> Result<BTreeMap<u64, String>> {
    const KERNEL: u64 = 1 << 63;
    let addresses: BTreeSet<u64> = found
        .counter_examples
        .iter()
        .flat_map(|example| example.undurable.iter().map(|line| line.pc))
        .filter(|pc| *pc >= KERNEL)
        .collect();
    if addresses.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (_, output) = vm.output("cat /proc/kallsyms", Duration::from_secs(300))?;
    // ADDRESS TYPE NAME [MODULE]
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let name: Vec<&str> = words.skip(1).collect();
        Some((address, name.join(" ")))
    };
    let known: BTreeMap<u64, String> = output.lines().filter_map(parse).collect();
    let name = |pc: u64| Some((pc, known.range(..=pc).next_back()?.1.clone()));
    Ok(addresses.into_iter().filter_map(name).collect())
}

/// Writes how to get the counter-examples again.
pub fn keep(
    problems: &[String],
    arguments: &Arguments,
    workload: &Workload,
    folder: &Path,
) -> Result<()> {
    let path = folder.join("counter-examples.txt");
    if problems.is_empty() {
        let _ = fs::remove_file(path);
        return Ok(());
    }
    let mut text = format!(
        "{} with seed {}, driver {}, module {}, cpu {}\n",
        workload.name,
        arguments.seed,
        arguments.driver.name(),
        arguments.module.display(),
        arguments.cpu
    );
    for problem in problems {
        let _ = writeln!(text, "{problem}");
    }
    fs::write(&path, text).with_context(|| path.display().to_string())
}
