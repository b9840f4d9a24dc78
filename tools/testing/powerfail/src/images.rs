// SPDX-License-Identifier: GPL-2.0

//! Makes the crash images of a log, and has each checked.

use crate::check::Checker;
use crate::workload::Workload;
use anyhow::{Context, Result};
use persistence::log::{Event, Reader, operation};
use persistence::record::{self, Promise};
use persistence::{LINE, Line, Undurable};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// An image that has lost something.
pub struct CounterExample {
    /// Number of the crash.
    pub number: u64,
    pub problem: String,
    /// The image, if it was kept.
    pub image: Option<PathBuf>,
    /// Lines that were not durable then.
    pub undurable: Vec<Undurable>,
}

/// The results of a log.
#[derive(Default)]
pub struct Found {
    /// Number of images.
    pub images: u64,
    /// Those that were taken after something had been promised.
    pub with_promises: u64,
    hashes: HashSet<u64>,
    pub counter_examples: Vec<CounterExample>,
    /// Number of undurable lines before each fence, by the fence's number.
    pub fences: Vec<(u64, u32)>,
    /// Undurable lines at a crash: the number of the last fence, and the line.
    pub places: Vec<(u64, u32)>,
}

/// Images that are kept of a workload.
const KEPT: usize = 3;

impl Found {
    /// Returns the number of different images.
    pub fn distinct(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// Returns the greatest number of undurable lines before a fence.
    pub fn most_undurable(&self) -> u32 {
        self.fences
            .iter()
            .map(|(_, lines)| *lines)
            .max()
            .unwrap_or(0)
    }

    /// Describes the counter-examples; `symbols` has names of addresses of instructions.
    pub fn problems(&self, symbols: &BTreeMap<u64, String>) -> Vec<String> {
        let describe = |example: &CounterExample| {
            let mut text = format!("image {}: {}", example.number, example.problem);
            let mut stores: BTreeMap<(u64, bool), (u32, usize)> = BTreeMap::new();
            for line in &example.undurable {
                stores
                    .entry((line.pc, line.written_back))
                    .or_insert((line.line, 0))
                    .1 += 1;
            }
            for ((pc, written_back), (line, count)) in stores {
                let lacking = if written_back {
                    "a fence"
                } else {
                    "a write-back"
                };
                let name = symbols.get(&pc).map_or("user space", String::as_str);
                text.push_str(&format!(
                    "; {count} lines from {:#x} on, stored by {name} ({pc:#x}), lack {lacking}",
                    line as usize * LINE
                ));
            }
            if let Some(image) = &example.image {
                text.push_str(&format!("; kept as {}", image.display()));
            }
            text
        };
        self.counter_examples.iter().map(describe).collect()
    }
}

/// Replays a log and checks each crash image. The disk's data begin at `offset` of the memory.
pub fn check(log: &Path, workload: &Workload, offset: usize, folder: &Path) -> Result<Found> {
    let file = File::open(log).with_context(|| log.display().to_string())?;
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file)).context("the log")?;
    let mut memory = std::mem::take(&mut reader.memory);
    let mut checker = Checker::new(workload, offset, memory.len(), folder)?;
    let mut promises: BTreeMap<u16, Promise> = BTreeMap::new();
    let mut found = Found::default();
    let (mut changes, mut undurable) = (0, Vec::new());
    let mut fence = 0;
    for event in reader {
        match event.context("the log")? {
            Event::Durable(line, data) => {
                changes += 1;
                store(&mut memory, line, &data);
            }
            Event::Mark(operation::BEGUN, note) => {
                let (record, generation) = record::noted(note);
                promises.entry(record).or_default().begun = generation;
            }
            Event::Mark(operation::PROMISED, note) => {
                let (record, generation) = record::noted(note);
                promises.entry(record).or_default().promised = generation;
            }
            Event::Mark(..) => {}
            Event::Undurable(lines) => {
                found
                    .places
                    .extend(lines.iter().map(|line| (fence, line.line)));
                undurable = lines;
            }
            Event::Fence(number, lines) => {
                fence = number;
                found.fences.push((number, lines));
            }
            Event::Crash(number, _, lines) => {
                found.images += 1;
                let is_promised = promises.values().any(|promise| promise.promised > 0);
                found.with_promises += u64::from(is_promised);
                let old: Vec<(u32, Line)> = lines
                    .iter()
                    .map(|(line, _)| (*line, load(&memory, *line)))
                    .collect();
                lines
                    .iter()
                    .for_each(|(line, data)| store(&mut memory, *line, data));
                found.hashes.insert(hash(&lines, changes));
                if let Err(problem) = checker.check(&memory, &promises)? {
                    let image = (found.counter_examples.len() < KEPT)
                        .then(|| folder.join(format!("image-{number}")));
                    if let Some(path) = &image {
                        fs::write(path, &memory).with_context(|| path.display().to_string())?;
                    }
                    let undurable = std::mem::take(&mut undurable);
                    found.counter_examples.push(CounterExample {
                        number,
                        problem,
                        image,
                        undurable,
                    });
                }
                old.iter()
                    .for_each(|(line, data)| store(&mut memory, *line, data));
            }
        }
    }
    Ok(found)
}

/// Identifies an image, by what differs from the medium and how often that has changed.
fn hash(lines: &[(u32, Line)], changes: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (lines, changes).hash(&mut hasher);
    hasher.finish()
}

fn store(memory: &mut [u8], line: u32, data: &Line) {
    let at = line as usize * LINE;
    memory[at..at + LINE].copy_from_slice(data);
}

fn load(memory: &[u8], line: u32) -> Line {
    let at = line as usize * LINE;
    let mut data = [0; LINE];
    data.copy_from_slice(&memory[at..at + LINE]);
    data
}
