// SPDX-License-Identifier: GPL-2.0

//! Measures the same operations on this machine's own persistent memory, in nanoseconds.

use crate::FILE_SYSTEMS;
use anstream::{eprint, eprintln, println};
use anyhow::{Context, Result, bail, ensure};
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_BORDERS_ONLY};
use comfy_table::{CellAlignment, Table};
use meter::ops::{self, Op};
use pmemctl::block::disk::Disk;
use pmemctl::block::holders;
use pmemctl::nd;
use pmemctl::sysfs::Host;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tempfile::TempDir;

/// Measure disks of persistent memory of this machine with any driver. ALL DATA ON THEM IS LOST
///
/// Each operation is measured in several rounds. The result is the median of the rounds' medians, in
/// nanoseconds, with a 95 % confidence interval. Nothing else should run at the same time; `taskset -c 3`
/// and `numactl` keep it on one processor near the memory.
///
/// Several disks are measured in turns and compared with the first. To compare two drivers of the same
/// disk: measure it, move it with `pmemctl swap-driver`, and measure it --against the file of the first
/// run.
#[derive(clap::Args)]
#[command(max_term_width = 120)]
pub struct Arguments {
    /// Disks: /dev/pmem0
    #[arg(value_name = "DEVICE", required = true)]
    disks: Vec<PathBuf>,

    /// Overwrite this device without asking; may be repeated
    #[arg(long, value_name = "DEVICE")]
    yes_overwrite: Vec<PathBuf>,

    /// Number of rounds
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(6..=1000))]
    rounds: u32,

    /// Do not measure file systems
    #[arg(long)]
    no_files: bool,

    /// Write native.json and native.md to this folder
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Compare with this native.json of the same disks
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// Size of the area at the start of a disk that is measured.
const LEAST: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    /// The kernel's release.
    kernel: String,
    rounds: u32,
    cells: Vec<Cell>,
}

/// The result of an operation on a disk.
#[derive(Debug, Serialize, Deserialize)]
struct Cell {
    op: String,
    disk: String,
    driver: String,
    /// In nanoseconds; `None` if the operation was refused.
    time: Option<Estimate>,
    /// Ratio to the first disk's time, round by round.
    ratio: Option<Estimate>,
    /// The rounds' medians.
    medians: Vec<f64>,
}

/// A median with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Estimate {
    median: f64,
    low: f64,
    high: f64,
}

impl Estimate {
    /// Estimates the median of the distribution of independent samples. The interval is between two samples, the same
    /// number from either end, and contains the median with a probability of at least 95 % for any distribution.
    /// Returns `None` for less than six samples.
    fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        // Each sample is below the median with probability 1/2: `below` is P(at most `outside` samples are).
        let mut exactly = 0.5_f64.powi(n as i32);
        let mut below = exactly;
        let mut outside = 0;
        while below <= 0.025 {
            outside += 1;
            exactly *= (n + 1 - outside) as f64 / outside as f64;
            below += exactly;
        }
        let first = outside.checked_sub(1)?;
        Some(Self {
            median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
            low: sorted[first],
            high: sorted[n - 1 - first],
        })
    }
}

/// A disk, its driver, and its nd device.
struct Target {
    disk: Disk,
    path: PathBuf,
    driver: String,
    device: String,
}

impl Target {
    /// Finds the disk at a path. Fails unless it is a whole disk of persistent memory that is not in use.
    fn find(host: &Host, path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
        let name = path.file_name().and_then(|name| name.to_str());
        let disk = name
            .filter(|_| path.parent() == Some(Path::new("/dev")))
            .and_then(|name| Disk::find(host, name));
        let device = disk.as_ref().and_then(Disk::owner);
        let (Some(disk), Some(device)) = (disk, device) else {
            bail!("{}: this is no disk of persistent memory", path.display());
        };
        let driver = nd::Device::find(host, device).and_then(|device| device.driver());
        let target = Self {
            disk,
            driver: driver.context("no driver has it")?,
            device: device.to_string(),
            path,
        };
        target.unused()?;
        Ok(target)
    }

    /// Fails if it is in use.
    fn unused(&self) -> Result<()> {
        let name = self.disk.name();
        let users: Vec<String> = holders::of_disk(&self.disk)
            .iter()
            .map(|user| user.to_string())
            .collect();
        ensure!(users.is_empty(), "{name} is in use: {}", users.join("; "));
        self.disk
            .claim()
            .with_context(|| format!("{name} can't be had alone"))?;
        ensure!(!self.disk.whole.is_read_only(), "{name} is read-only");
        ensure!(
            self.disk.size().bytes() >= LEAST,
            "{name} is smaller than 64M"
        );
        Ok(())
    }

    /// Describes the data that will be lost.
    fn described(&self) -> String {
        let probe = Command::new("blkid")
            .args([
                "-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE", "-s", "LABEL",
            ])
            .arg(&self.path)
            .output();
        let found = probe
            .map(|output| String::from_utf8_lossy(&output.stdout).replace('\n', " "))
            .unwrap_or_default();
        let parts: Vec<String> = self
            .disk
            .parts()
            .iter()
            .skip(1)
            .map(|part| part.name.clone())
            .collect();
        let mut text = format!(
            "{}  {}, {} of {}",
            self.path.display(),
            self.disk.size(),
            self.device,
            self.driver
        );
        if !found.trim().is_empty() {
            text.push_str(&format!("; blkid finds: {}", found.trim()));
        }
        if !parts.is_empty() {
            text.push_str(&format!("; partitions: {}", parts.join(" ")));
        }
        text
    }
}

/// Fails unless the option or the user at the terminal allows each disk to be overwritten.
fn agreed(targets: &[Target], arguments: &Arguments) -> Result<()> {
    eprintln!("ALL DATA IS LOST that is on");
    for target in targets {
        eprintln!("  {}", target.described());
    }
    let given = |target: &&Target| {
        !arguments
            .yes_overwrite
            .iter()
            .any(|path| *path == target.path)
    };
    let asked: Vec<&str> = targets
        .iter()
        .filter(given)
        .map(|target| target.disk.name())
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let asked = asked.join(" ");
    ensure!(
        io::stdin().is_terminal(),
        "nobody can be asked: --yes-overwrite names each device that may be overwritten"
    );
    eprint!("To go on, type \"{asked}\": ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    ensure!(line.trim() == asked, "nothing was done");
    Ok(())
}

/// A mounted file system. Dropping it unmounts it.
struct Mounted(TempDir);

impl Mounted {
    fn new(disk: &Path, make: &str) -> Result<Self> {
        shell(&format!("{{ {make} {}; }} >/dev/null", disk.display()))?;
        let mounted = Self(tempfile::tempdir()?);
        let (disk, folder) = (disk.display(), mounted.0.path().display());
        shell(&format!("mount -o dax=always,noatime {disk} {folder}"))?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg(self.0.path())
            .stderr(std::process::Stdio::null())
            .status();
    }
}

fn shell(command: &str) -> Result<()> {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .context("sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command}: {}", said.trim());
    Ok(())
}

/// Returns the nanoseconds of the measurement itself.
fn empty_bracket(now: impl Fn() -> u64) -> u64 {
    (0..10_000)
        .map(|_| now())
        .map(|start| now() - start)
        .min()
        .unwrap_or(0)
}

/// Measures the median of each round, for each operation and disk, in this order. A refused operation has none.
fn measure(
    all: &[Op],
    prefix: &str,
    places: &[(&Target, PathBuf)],
    rounds: u32,
) -> Result<Vec<Cell>> {
    let start = Instant::now();
    let now = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let empty = empty_bracket(now);
    let mut cells: Vec<Cell> = Vec::new();
    // Operations that list errors would leave them where the bus can't clear poison.
    for op in all.iter().filter(|op| !op.lists_errors()) {
        cells.extend(places.iter().map(|(target, _)| Cell {
            op: format!("{prefix}{}", op.name),
            disk: target.disk.name().to_owned(),
            driver: target.driver.clone(),
            time: None,
            ratio: None,
            medians: Vec::new(),
        }));
    }
    for round in 1..=rounds {
        eprint!("\r{prefix}round {round} of {rounds}");
        let ops = all.iter().filter(|op| !op.lists_errors());
        let turns = ops.flat_map(|op| places.iter().map(move |(_, path)| (op, path)));
        for ((op, path), cell) in turns.zip(&mut cells) {
            if let meter::Outcome::Measured(ticks) =
                ops::outcome(op, path, now, empty).context(cell.op.clone())?
            {
                cell.medians.push(ticks.median as f64);
            }
        }
    }
    eprintln!();
    for row in cells.chunks_mut(places.len()) {
        let first = row[0].medians.clone();
        for (index, cell) in row.iter_mut().enumerate() {
            cell.time = Estimate::of(&cell.medians);
            let ratios: Vec<f64> = cell
                .medians
                .iter()
                .zip(&first)
                .map(|(one, other)| one / other)
                .collect();
            cell.ratio = (index > 0).then(|| Estimate::of(&ratios)).flatten();
        }
    }
    Ok(cells)
}

/// Measures the disks, prints the results and writes the files.
pub fn run(arguments: &Arguments) -> Result<()> {
    let earlier: Option<Report> = match &arguments.against {
        None => None,
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Some(serde_json::from_str(&text).with_context(|| path.display().to_string())?)
        }
    };
    let host = Host::here();
    let find = |path: &PathBuf| Target::find(&host, path);
    let targets = arguments
        .disks
        .iter()
        .map(find)
        .collect::<Result<Vec<_>>>()?;
    agreed(&targets, arguments)?;

    // From here on, they can't be mounted or become part of another device.
    let claim = |target: &Target| {
        target.unused()?;
        Ok(target.disk.claim()?)
    };
    let claims = targets.iter().map(claim).collect::<Result<Vec<_>>>()?;
    let places: Vec<_> = targets
        .iter()
        .map(|target| (target, target.path.clone()))
        .collect();
    let mut cells = measure(ops::DISK, "", &places, arguments.rounds)?;
    drop(claims);
    for (system, make) in FILE_SYSTEMS.iter().filter(|_| !arguments.no_files) {
        let mounted = targets
            .iter()
            .map(|target| Mounted::new(&target.path, make))
            .collect::<Result<Vec<_>>>();
        match mounted {
            Err(error) => eprintln!("no {system} with DAX: {error:#}"),
            Ok(mounted) => {
                let folders = mounted.iter().map(|mounted| mounted.0.path().to_owned());
                let places: Vec<_> = targets.iter().zip(folders).collect();
                cells.extend(measure(
                    ops::FILES,
                    &format!("{system}-"),
                    &places,
                    arguments.rounds,
                )?);
            }
        }
    }

    let report = Report {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        rounds: arguments.rounds,
        cells,
    };
    let mut table = report.table(earlier.as_ref());
    if let Some(folder) = &arguments.output {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::write(
            folder.join("native.json"),
            serde_json::to_string_pretty(&report)?,
        )?;
        table.load_preset(ASCII_MARKDOWN);
        let text = format!(
            "<!-- SPDX-License-Identifier: GPL-2.0 -->\n\n# Nanoseconds for each operation\n\n\
             Linux {}; medians of {} rounds, with intervals of 95 %.\n\n{table}\n",
            report.kernel, report.rounds
        );
        fs::write(folder.join("native.md"), text)?;
    }
    table.load_preset(UTF8_BORDERS_ONLY);
    println!("{table}");
    Ok(())
}

impl Report {
    fn table(&self, earlier: Option<&Report>) -> Table {
        let mut table = Table::new();
        let mut head = vec![
            "operation",
            "disk",
            "driver",
            "ns",
            "95 %",
            "by the first disk's",
        ];
        head.extend(earlier.map(|_| "by the earlier"));
        table.set_header(head);
        let nanoseconds = |it: Estimate| {
            (
                format!("{:.0}", it.median),
                format!("{:.0} – {:.0}", it.low, it.high),
            )
        };
        let ratio = |it: Estimate| format!("{:.3} ({:.3} – {:.3})", it.median, it.low, it.high);
        for cell in &self.cells {
            let (time, interval) = cell
                .time
                .map_or(("not supported".to_owned(), String::new()), nanoseconds);
            let first = cell.ratio.map_or(String::new(), ratio);
            let mut row = vec![
                cell.op.clone(),
                cell.disk.clone(),
                cell.driver.clone(),
                time,
                interval,
                first,
            ];
            row.extend(earlier.map(|earlier| {
                let same = |it: &&Cell| it.op == cell.op && it.disk == cell.disk;
                let before = earlier.cells.iter().find(same).and_then(|it| it.time);
                // The rounds were not taken in turns: the interval is as wide as both allow.
                let by = |now: Estimate, before: Estimate| Estimate {
                    median: now.median / before.median,
                    low: now.low / before.high,
                    high: now.high / before.low,
                };
                cell.time
                    .zip(before)
                    .map_or(String::new(), |(now, before)| ratio(by(now, before)))
            }));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_that_of_the_sign_test() {
        let samples = |n: u32| (1..=n).rev().map(f64::from).collect::<Vec<_>>();
        // Tables of the sign test: the first and the last of 6, the second of 9, the third of 12, the sixth of 20.
        for (n, low) in [
            (6, 1.0),
            (8, 1.0),
            (9, 2.0),
            (12, 3.0),
            (20, 6.0),
            (100, 40.0),
        ] {
            let n_f = f64::from(n);
            let wanted = Estimate {
                median: (n_f + 1.0) / 2.0,
                low,
                high: n_f + 1.0 - low,
            };
            assert_eq!(Estimate::of(&samples(n)), Some(wanted), "{n}");
        }
        assert_eq!(Estimate::of(&samples(5)), None);
        assert_eq!(Estimate::of(&[]), None);
    }
}
