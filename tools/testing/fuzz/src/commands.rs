// SPDX-License-Identifier: GPL-2.0

//! `pmem-fuzz commands`: mutated commands to `errors/list`, compared with a model of its grammar
//! (Documentation/ABI/sysfs-bus-nd-errors).

use crate::bus::{announce, bytes_before_data, disks, kind, listed, read_number};
use crate::inputs::Inputs;
use crate::minimize::{Only, print_shortest};
use anyhow::{Context, Result, ensure};
use clap::Args;
use fastrand::Rng;
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Errors of writes (errno(3)).
const EINVAL: i32 = Errno::INVAL.raw_os_error();
const ERANGE: i32 = Errno::RANGE.raw_os_error();
/// Bytes of a sector.
const SECTOR: u64 = 512;

#[derive(Args)]
#[command(mut_arg("count", |count| count.default_value("10000")))]
pub struct Commands {
    /// The file errors/list
    list: PathBuf,
    /// Bytes of the namespace
    size: u64,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    only: Only,
}

impl Commands {
    /// Writes each command, and compares the errno with the model's, and after each sequence the list. Empties the list at
    /// the end. Returns how many differed; of the first sequence that did, prints the commands that are needed.
    pub fn run(&self) -> Result<usize> {
        let file = OpenOptions::new()
            .write(true)
            .open(&self.list)
            .with_context(|| self.list.display().to_string())?;
        let data = bytes_before_data(self.device()?)?;
        let (mut different, mut accepted) = (0, 0);
        for (first, inputs) in self.inputs.sequences() {
            let arguments = self.inputs.arguments(first, inputs.len());
            announce(&format!("commands {arguments}"))?;
            let commands = inputs
                .into_iter()
                .map(|mut random| command(&mut random, self.size, data));
            let commands = self.only.of(commands.enumerate().collect());
            let (count, differences) = self.write_all(&file, &commands)?;
            accepted += count;
            for text in &differences {
                println!("{arguments}: {text}");
            }
            if different == 0 && !differences.is_empty() {
                let show = |text: &Vec<u8>| format!("\"{}\"", text.escape_ascii());
                print_shortest(&arguments, &commands, show, |some| {
                    self.write_all(&file, some)
                        .is_ok_and(|(_, differences)| !differences.is_empty())
                });
            }
            different += differences.len();
        }
        println!("{accepted} commands accepted");
        self.empty(&file)?;
        Ok(different)
    }

    /// Returns the first sector of the disk that is in one list only: the model's, or its badblocks, which is the kernel's. It
    /// shows a page of text, which is more than a sequence of commands fills. A disk in sector mode has none.
    fn first_unlike(&self, model: &Model) -> Result<Option<usize>> {
        let device = self.device()?;
        if kind(device) == "btt" {
            return Ok(None);
        }
        let disk = disks(device).into_iter().next();
        let disk = disk.context("it has no disk")?;
        let sectors = read_number(&disk.join("size"))? as usize;
        let listed = listed(&disk.join("badblocks"), ' ', 1, sectors)?;
        let data = bytes_before_data(device)? / SECTOR;
        Ok(model.first_unlike(data as usize, &listed))
    }

    /// Returns the folder of the device whose list it is.
    fn device(&self) -> Result<&Path> {
        let device = self.list.parent().and_then(Path::parent);
        device.with_context(|| format!("{}: not a list of errors", self.list.display()))
    }

    fn empty(&self, file: &File) -> Result<()> {
        let name = || self.list.display().to_string();
        file.write_at(format!("drop 0 {}", self.size).as_bytes(), 0)
            .with_context(name)?;
        ensure!(
            fs::read(&self.list).with_context(name)?.is_empty(),
            "the list is not empty after \"drop\""
        );
        Ok(())
    }

    /// Writes commands to the empty list. Returns how many were accepted, and what differs from the model.
    fn write_all(&self, file: &File, commands: &[(usize, Vec<u8>)]) -> Result<(u64, Vec<String>)> {
        self.empty(file)?;
        let mut model = Model::new(self.size);
        let (mut accepted, mut differences) = (0, Vec::new());
        for (place, text) in commands {
            let got = match file.write_at(text, 0) {
                Ok(length) if length == text.len() => None,
                // A caller would write the rest.
                Ok(_) => Some(0),
                Err(error) => Some(error.raw_os_error().unwrap_or(0)),
            };
            let good = match model.write(text) {
                Ok(()) => got.is_none(),
                Err(errors) => got.is_some_and(|got| errors.contains(&got)),
            };
            if !good {
                let shown = text.escape_ascii();
                differences.push(format!("command {place} \"{shown}\": errno {got:?}"));
            }
            accepted += u64::from(got.is_none());
        }
        let list =
            fs::read_to_string(&self.list).with_context(|| self.list.display().to_string())?;
        differences.extend(difference(&list, &model.list()));
        if let Some(sector) = self.first_unlike(&model)? {
            differences.push(format!("badblocks differs at sector {sector}"));
        }
        Ok((accepted, differences))
    }
}

/// Returns how a list differs from the one that is wanted.
fn difference(list: &str, wanted: &str) -> Option<String> {
    let differs = |(got, wanted): &(&str, &str)| got != wanted;
    let pairs = list.lines().chain([""]).zip(wanted.lines().chain([""]));
    let first = pairs.into_iter().find(differs)?;
    Some(format!(
        "the list differs: {first:?}, of {} and {} lines",
        list.lines().count(),
        wanted.lines().count()
    ))
}

/// Sectors of the small area of many commands, so that ranges meet.
const NEAR: u64 = 64;

/// Returns the sector at which the small area begins: in front of the `data`, if there is room.
fn near(data: u64) -> u64 {
    (data / SECTOR).saturating_sub(NEAR / 2)
}

/// Returns a command that is valid, or nearly so, or has random bytes.
pub fn command(random: &mut Rng, size: u64, data: u64) -> Vec<u8> {
    match random.bool() {
        true => valid(random, size, data).into_bytes(),
        false => mutated(random, size, data),
    }
}

/// Returns a valid command.
fn valid(random: &mut Rng, size: u64, data: u64) -> String {
    let sectors = match random.bool() {
        true => near(data)..near(data) + NEAR,
        false => 0..size / SECTOR,
    };
    let first = random.u64(sectors.clone());
    let count = random.u64(1..=(sectors.end - first).min(NEAR));
    let (offset, length) = (first * SECTOR, count * SECTOR);
    if random.u8(0..3) == 0 {
        return format!("drop {offset} {length}");
    }
    let origin = random.choice(ORIGINS).unwrap_or_default();
    format!("add {offset} {length} {origin}")
}

fn mutated(random: &mut Rng, size: u64, data: u64) -> Vec<u8> {
    let words: [&[&str]; 2] = [
        &[
            "add", "add", "add", "drop", "poison", "ADD", "", "a", "addd",
        ],
        &[
            "",
            "",
            "",
            "user",
            "restored",
            "device",
            "log",
            "machine-check",
            "injected",
            "users",
            "0",
        ],
    ];
    let gap = |random: &mut Rng| {
        [" ", " ", " ", " ", " ", "  ", "\t", "\n", "", "\0", "\u{b}"][random.usize(0..11)]
    };
    let mut text = String::new();
    text.push_str(["", "", "", "", " ", "\n"][random.usize(0..6)]);
    // Three in four commands begin as they should.
    let verb = if random.u8(0..4) == 0 {
        words[0].len()
    } else {
        4
    };
    text.push_str(words[0][random.usize(0..verb)]);
    // The offset, and the length.
    for start in [near(data) * SECTOR, 0] {
        text.push_str(gap(random));
        text.push_str(&number(random, size, start));
    }
    let word = words[1][random.usize(0..words[1].len())];
    if !word.is_empty() {
        text.push_str(gap(random));
        text.push_str(word);
    }
    text.push_str(["", "", "\n", " ", "\n\n", "\0", " x"][random.usize(0..7)]);
    let mut text = text.into_bytes();
    if random.u8(0..12) == 0 && !text.is_empty() {
        let at = random.usize(0..text.len());
        text[at] = random.u8(..);
    }
    text
}

/// Returns a number that is as a rule a multiple of 512 within the namespace, often within a small area from `start` on.
fn number(random: &mut Rng, size: u64, start: u64) -> String {
    let sectors = size / SECTOR;
    let near = random.u64(0..NEAR) * SECTOR;
    let value = match random.u8(0..16) {
        0 => random.u64(..),
        1 => random.u64(0..size),
        2 => u64::MAX - random.u64(0..2048),
        3 => size - near,
        4 => size + near,
        5 => 0,
        6 | 7 => random.u64(0..sectors) * SECTOR,
        _ => start + near,
    };
    match random.u8(0..32) {
        0 => format!("{value:#x}"),
        1 => format!("{value:#X}"),
        2 => format!("-{value}"),
        3 => format!("+{value}"),
        4 => format!("{value}K"),
        5 => format!("00{value}"),
        6 => format!("{value}0000000000000000000"),
        7 => "0x".to_owned(),
        _ => value.to_string(),
    }
}

/// The list as it should be: the origin of each sector, where it has one, as its place in [`ORIGINS`].
struct Model {
    size: u64,
    sectors: Vec<Option<usize>>,
}

/// The origins that a user can name.
const ORIGINS: [&str; 3] = ["user", "restored", "device"];

impl Model {
    fn new(size: u64) -> Self {
        Self {
            size,
            sectors: vec![None; (size / SECTOR) as usize],
        }
    }

    /// Returns the first sector behind `data` sectors that is in one list only.
    fn first_unlike(&self, data: usize, listed: &[bool]) -> Option<usize> {
        let mut pairs = self.sectors.iter().skip(data).zip(listed);
        pairs.position(|(origin, listed)| origin.is_some() != *listed)
    }

    /// Carries out a command, or returns the errnos that it may give: it can be wrong in two ways.
    fn write(&mut self, text: &[u8]) -> Result<(), Vec<i32>> {
        let words: Vec<&[u8]> = text
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .collect();
        let invalid = || vec![EINVAL];
        let [verb, offset, length, rest @ ..] = words.as_slice() else {
            return Err(invalid());
        };
        let offset = parse(offset).ok_or_else(invalid)?;
        let length = parse(length).ok_or_else(invalid)?;
        let named = |word: &[u8]| ORIGINS.iter().position(|origin| origin.as_bytes() == word);
        let command = match (*verb, rest) {
            (b"add", []) => Some(Some(0)),
            (b"add", [word]) => named(word).map(Some),
            (b"drop", []) => Some(None),
            _ => None,
        };
        let even = length != 0 && offset % SECTOR == 0 && length % SECTOR == 0;
        let end = offset.checked_add(length).filter(|&end| end <= self.size);
        match (command, end) {
            (Some(origin), Some(end)) if even => {
                for sector in &mut self.sectors[(offset / SECTOR) as usize..(end / SECTOR) as usize]
                {
                    // A sector that is listed keeps its origin: those that a user can name are equally specific.
                    *sector = origin.map(|origin| sector.unwrap_or(origin));
                }
                Ok(())
            }
            (Some(_), None) if even => Err(vec![ERANGE]),
            (_, Some(_)) => Err(invalid()),
            (_, None) => Err(vec![EINVAL, ERANGE]),
        }
    }

    /// Returns the text of the list.
    fn list(&self) -> String {
        let mut text = String::new();
        let mut at = 0;
        for run in self.sectors.chunk_by(|one, other| one == other) {
            if let Some(origin) = run[0] {
                let length = run.len() as u64 * SECTOR;
                text.push_str(&format!("{} {length} {}\n", at, ORIGINS[origin]));
            }
            at += run.len() as u64 * SECTOR;
        }
        text
    }
}

/// Parses a decimal number, or a hexadecimal one after "0x".
fn parse(word: &[u8]) -> Option<u64> {
    let (digits, radix) = match word.strip_prefix(b"0x") {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    let text = std::str::from_utf8(digits).ok()?;
    let plain = text.chars().all(|letter| letter.is_digit(radix));
    u64::from_str_radix(text, radix).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_accepts_the_documented_commands() {
        let mut model = Model::new(1 << 20);
        for text in [
            "add 0 1024",
            "add 0x400 512 device\n",
            " add 4096  512 restored ",
            "drop 512 512",
        ] {
            model.write(text.as_bytes()).unwrap();
        }
        assert_eq!(
            model.list(),
            "0 512 user\n1024 512 device\n4096 512 restored\n"
        );
        for (text, errno) in [
            ("add 0", EINVAL),
            ("add 0 0", EINVAL),
            ("add 1 512", EINVAL),
            ("add 0 512 log", EINVAL),
            ("drop 0 512 user", EINVAL),
            ("poison 0 512", EINVAL),
            ("add 0 0X200", EINVAL),
            ("add 1048576 512", ERANGE),
            ("add 18446744073709551104 1024", ERANGE),
        ] {
            assert!(
                model.write(text.as_bytes()).unwrap_err().contains(&errno),
                "{text}"
            );
        }
    }

    #[test]
    fn commands_are_of_every_kind() {
        let mut model = Model::new(1 << 20);
        let mut count = [0; 3];
        for seed in 0..4000 {
            let text = command(&mut Rng::with_seed(seed), 1 << 20, (seed % 2) << 19);
            count[match model.write(&text) {
                Ok(()) => 0,
                Err(errors) if errors == [EINVAL] => 1,
                Err(_) => 2,
            }] += 1;
        }
        assert!(
            count[0] > 800 && count[1] > 800 && count[2] > 80,
            "{count:?}"
        );
    }
}
