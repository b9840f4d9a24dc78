// SPDX-License-Identifier: GPL-2.0

//! `pmem-fuzz files`: random writes to the files of a region's devices in sysfs, of their disks, of the bus and its DIMMs,
//! of the driver and its module.

use crate::bus::{DRIVERS, Region, announce, disks, kind, open, parse_errors, read, read_number};
use crate::commands::command;
use crate::inputs::Inputs;
use abstractions::DirectBuffer;
use anyhow::{Context, Result, ensure};
use clap::Args;
use fastrand::Rng;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

const EIO: i32 = Errno::IO.raw_os_error();
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// Ranges that a table of bad blocks holds (MAX_BADBLOCKS).
const BAD_BLOCKS: usize = 512;
/// Bytes of a line of the table, at most.
const LONGEST_LINE: u64 = 24;
/// The files of rust_pmem by which memory is poisoned.
const POISON: &str = "/sys/kernel/debug/rust_pmem";
const MODULES: &str = "/sys/module";
/// Files that end the test itself, below a DIMM or the bus.
///
/// `security` erases the DIMM, sets passphrases, or freezes both until the machine starts again. `firmware/activate` arms a
/// DIMM, and then stops the whole machine while the firmware is replaced. QEMU's DIMMs have neither.
const EXCLUDED: [&str; 2] = ["security", "firmware/activate"];

#[derive(Args)]
#[command(mut_arg("count", |count| count.default_value("10000")))]
pub struct Files {
    /// The region; what its namespaces contain is lost
    region: String,
    /// The driver that disks are bound to and unbound from
    #[arg(long)]
    driver: String,
    /// Poison memory as well, by the driver's files in debugfs
    #[arg(long)]
    poison: bool,
    #[command(flatten)]
    inputs: Inputs,
    /// Print each write and its result
    #[arg(long)]
    verbose: bool,
}

impl Files {
    /// Makes each write, and looks at the disks from time to time. Prints how often each result was seen, and how many sectors were
    /// read; returns how many were not as the lists of bad blocks say. Fails if none was read.
    pub fn run(&self) -> Result<usize> {
        ensure!(
            !self.poison || Path::new(POISON).is_dir(),
            "there is no {POISON}"
        );
        let region = Region::new(&self.region)?;
        let size = region.size()?;
        let (mut seen, mut compared) = (BTreeMap::<_, u64>::new(), Compared::default());
        let seed = self.inputs.seed;
        let (mut devices, mut files, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        for (input, mut random) in self.inputs.each() {
            if input % 32 == 0 || files.is_empty() {
                compare(&region, &mut random, &mut compared)?;
                devices = region.devices()?;
                files = self.files(&region, &devices)?;
                let changes_errors = |path: &&PathBuf| {
                    path.ends_with("list")
                        || path.ends_with("badblocks")
                        || path.starts_with(POISON)
                };
                lists = files.iter().filter(changes_errors).cloned().collect();
            }
            let (path, text) = match random.u8(0..16) {
                0 => self.binding(&self.driver, random.choice(&devices), &mut random),
                1 if random.u8(0..8) == 0 => {
                    let name = PathBuf::from(&self.region);
                    self.binding("nd_region", Some(&name), &mut random)
                }
                choice => {
                    let from = if choice < 6 { &lists } else { &files };
                    let Some(path) = random.choice(from).or_else(|| random.choice(&files)) else {
                        continue;
                    };
                    let text = text(path, &files, &devices, size, &mut random);
                    (path.clone(), text)
                }
            };
            let shown = text.escape_ascii().to_string();
            let shown = &shown[..shown.len().min(100)];
            announce(&format!(
                "seed {seed} write {input}: {} \"{shown}\"",
                path.display()
            ))?;
            let errno =
                write(&path, &text).map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0);
            if self.verbose {
                println!("{input}: {} \"{shown}\": errno {errno}", path.display());
            }
            *seen.entry(errno).or_default() += 1;
        }
        compare(&region, &mut Rng::with_seed(seed), &mut compared)?;
        for (errno, count) in &seen {
            println!("errno {errno}: {count}");
        }
        println!("sectors read: {}", compared.sectors);
        ensure!(compared.sectors > 0, "there was no disk to read from");
        Ok(compared.different)
    }

    fn binding(
        &self,
        driver: &str,
        device: Option<&PathBuf>,
        random: &mut Rng,
    ) -> (PathBuf, Vec<u8>) {
        // Bound more often, so that there is something to write to.
        let file = ["unbind", "bind", "bind", "bind"][random.usize(0..4)];
        let name = device.and_then(|path| path.file_name());
        let name = name.map_or_else(Vec::new, |name| name.as_encoded_bytes().to_vec());
        (Path::new(DRIVERS).join(driver).join(file), name)
    }

    /// Returns the files that root can write to.
    fn files(&self, region: &Region, devices: &[PathBuf]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        collect(region.bus(), &mut files);
        files.retain(|path| {
            !region.is_of_other(path) && !EXCLUDED.iter().any(|end| path.ends_with(end))
        });
        for folder in [DRIVERS, MODULES] {
            collect(&Path::new(folder).join(&self.driver), &mut files);
        }
        for disk in devices.iter().flat_map(|device| disks(device)) {
            collect(&disk, &mut files);
        }
        if self.poison {
            collect(Path::new(POISON), &mut files);
        }
        files.sort();
        files.dedup();
        Ok(files)
    }
}

/// Adds the files that are writable. What goes meanwhile is left out.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(entry_type) = entry.file_type() else {
            continue;
        };
        let path = entry.path();
        if entry_type.is_dir() {
            collect(&path, files);
        } else if entry_type.is_file()
            && entry
                .metadata()
                .is_ok_and(|data| data.permissions().mode() & 0o200 != 0)
        {
            files.push(path);
        }
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_at(text, 0).map(|_| ())
}

/// Returns a text for this file: one that it may know, or another.
fn text(
    path: &Path,
    files: &[PathBuf],
    devices: &[PathBuf],
    size: u64,
    random: &mut Rng,
) -> Vec<u8> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let wide = size.max(1 << 20);
    let mut text = match (name.as_ref(), random.u8(0..16)) {
        (_, 0..10) if path.starts_with(POISON) => {
            let pages = wide / PAGE;
            let first = random.u64(0..pages);
            let count = random.u64(1..=(pages - first).min(4));
            format!("poison {} {}", first * PAGE, count * PAGE).into_bytes()
        }
        (_, 10..14) if path.starts_with(POISON) => command(random, wide, 0),
        ("list", 0..14) => command(random, wide, 0),
        ("badblocks", 0..12) => {
            let start = random.u64(0..wide / SECTOR);
            let [space, end] = [[" ", " ", "\t", "  "], ["\n", "", " ", "x"]];
            let length = random
                .choice([1, 8, 8, 512, 0, u64::MAX, 1 << 40])
                .unwrap_or(1);
            let [space, end] = [space, end].map(|all| all[random.usize(0..4)]);
            format!("{start}{space}{length}{end}").into_bytes()
        }
        (_, 0..3) => fs::read(path).unwrap_or_default(),
        (_, 3) => {
            let other = random.choice(files).map(fs::read);
            other.and_then(Result::ok).unwrap_or_default()
        }
        (_, 4..7) => {
            let word = random.choice(WORDS).unwrap_or_default();
            word.as_bytes().to_vec()
        }
        (_, 7) => {
            let device = random.choice(devices).and_then(|path| path.file_name());
            device.map_or_else(Vec::new, |name| name.as_encoded_bytes().to_vec())
        }
        (_, 8) => {
            let part = random.u128(..);
            let text = format!("{part:032x}");
            let parts = [
                &text[..8],
                &text[8..12],
                &text[12..16],
                &text[16..20],
                &text[20..],
            ];
            parts.join("-").into_bytes()
        }
        (_, 9) => {
            let mut bytes = vec![0; random.usize(0..64)];
            random.fill(&mut bytes);
            bytes
        }
        (_, 10) => b"1".repeat(random.choice([1, 20, 300, 4095, 4096, 5000]).unwrap_or(1)),
        _ => number(wide, random).into_bytes(),
    };
    // More than a page, of which the kernel takes one.
    text.truncate(5000);
    match random.u8(0..8) {
        0 => text.push(b'\n'),
        1 => text.push(0),
        _ => {}
    }
    text
}

/// Words that files of namespaces, of their devices and of disks know, and names of devices that are not the driver's.
const WORDS: [&str; 27] = [
    "",
    "\n",
    "0",
    "1",
    "Y",
    "N",
    "raw",
    "memory",
    "dax",
    "safe",
    "sector",
    "none",
    "ram",
    "pmem",
    "btt",
    "pfn",
    "auto",
    "on",
    "add",
    "change",
    "remove",
    "write back",
    "write through",
    "../..",
    "nmem0",
    "ndbus0",
    "region0",
];

fn number(size: u64, random: &mut Rng) -> String {
    let value = match random.u8(0..8) {
        0 => random.u64(..),
        1 => 1 << random.u32(0..64),
        2 => u64::MAX - random.u64(0..4096),
        3 => size - random.u64(0..4) * 4096,
        4 => [512, 520, 4096, 4104, 2 << 20, 1 << 30][random.usize(0..6)],
        5 => random.u64(0..16),
        // What a namespace may have as its size.
        _ => random.u64(0..=size >> 24) << 24,
    };
    match random.u8(0..8) {
        0 => format!("{value:#x}"),
        1 => format!("-{value}"),
        2 => format!("{value}K"),
        _ => value.to_string(),
    }
}

/// What was compared with lists of bad blocks.
#[derive(Default)]
struct Compared {
    sectors: u64,
    /// Those that could be read although they are listed, or could not although they are not.
    different: usize,
}

/// Reads sectors of the disks that libnvdimm does not translate.
fn compare(region: &Region, random: &mut Rng, compared: &mut Compared) -> Result<()> {
    // A disk that is about to go has files that are missing, and sectors that can't be read.
    region.settle()?;
    for device in region.devices()? {
        if !["namespace", "pfn"].contains(&kind(&device).as_str()) {
            continue;
        }
        for disk in disks(&device) {
            compare_disk(&disk, random, compared).with_context(|| disk.display().to_string())?;
        }
    }
    Ok(())
}

fn compare_disk(disk: &Path, random: &mut Rng, compared: &mut Compared) -> Result<()> {
    let size = read_number(&disk.join("size"))?;
    let shown = read(&disk.join("badblocks"))?;
    let mut bad_blocks = parse_errors(&shown, ' ')?;
    // Only rust_pmem has this list: bytes of the namespace, where a disk in raw mode begins. It knows more than a full table, or one
    // that fills a page.
    if let Ok(errors) = read(&disk.join("device/errors/list")) {
        let device = disk.join("device").canonicalize()?;
        let is_full = bad_blocks.len() >= BAD_BLOCKS || shown.len() as u64 > PAGE - LONGEST_LINE;
        if kind(&device) == "namespace" && is_full {
            let sectors = |range: Range<u64>| range.start / SECTOR..range.end / SECTOR;
            bad_blocks.extend(parse_errors(&errors, ' ')?.into_iter().map(sectors));
        }
    }
    let node = Path::new("/dev").join(disk.file_name().unwrap_or_default());
    let file = open(&node, false)?;
    // With logical blocks larger than a sector, only whole ones are read.
    let block = read_number(&disk.join("queue/logical_block_size"))?;
    let unit = block / SECTOR;
    for _ in 0..16 {
        // In or next to a range that is listed, or anywhere.
        let sector = match random.choice(&bad_blocks) {
            Some(range) if random.bool() => (range.start + random.u64(0..16)).saturating_sub(8),
            _ => random.u64(0..size.max(1)),
        };
        let first = sector.min(size.saturating_sub(unit)) / unit * unit;
        if first + unit > size {
            continue;
        }
        let bad = bad_blocks
            .iter()
            .any(|range| range.start < first + unit && first < range.end);
        let mut buffer = DirectBuffer::new(block as usize);
        let done = file.read_exact_at(buffer.bytes(), first * SECTOR);
        let good = match &done {
            Ok(()) => !bad,
            Err(error) => bad && error.raw_os_error() == Some(EIO),
        };
        compared.sectors += unit;
        if !good {
            compared.different += 1;
            println!(
                "{}: sector {first} (listed: {bad}): {done:?}",
                node.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_gives_the_same_text() {
        let path = PathBuf::from("/sys/none/size");
        let made = |seed| text(&path, &[], &[], 64 << 20, &mut Rng::with_seed(seed));
        assert_eq!(made(7), made(7));
        assert!((0..8).any(|seed| made(seed) != made(7)));
    }

    #[test]
    fn texts_are_at_most_a_page_and_a_bit() {
        let path = PathBuf::from("/sys/none/errors/list");
        for seed in 0..1000 {
            let text = text(&path, &[], &[], 0, &mut Rng::with_seed(seed));
            assert!(text.len() <= 5001);
        }
    }
}
