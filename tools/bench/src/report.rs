// SPDX-License-Identifier: GPL-2.0

//! What was measured, for programs and for people.

use crate::profile::{Part, Profile};
use anstream::println;
use bench::{Cell, Outcome};
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_BORDERS_ONLY};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// In the order of measuring.
    pub cells: Vec<Cell>,
    /// Where the instructions of some operations go.
    pub profiles: Vec<Profile>,
}

/// The driver of this project.
pub const OURS: &str = "rust_pmem";
/// What it is held against.
pub const THEIRS: &str = "nd_pmem";
/// What stands beside them, for scale.
const OTHERS: [&str; 4] = ["brd", "null_blk", "null_blk-memory", "virtio-blk"];

/// Functions of each profile that are listed.
const FUNCTIONS: usize = 40;

/// The ratio that is to be reached at most.
const REACH: &[(&str, f64)] = &[
    ("read-4k", 0.99),
    ("write-4k", 0.98),
    ("read-64k", 0.99),
    ("write-64k", 0.97),
    ("read-1m-huge", 0.98),
    ("write-1m-huge", 0.94),
    ("uring-read-4k", 0.47),
    ("uring-write-4k", 0.40),
    ("uring-read-4k-x32", 0.82),
    ("uring-write-4k-x32", 0.78),
    ("uring-read-4k-x32-registered", 0.78),
    ("uring-write-4k-x32-registered", 0.73),
    ("zeroout-1m", 0.31),
    ("fsync", 1.0),
    ("dsync-write-4k", 1.0),
    ("ext4-read-4k", 1.0),
    ("ext4-write-4k", 1.0),
    ("ext4-fault-4k", 1.0),
    ("ext4-fault-2m", 1.0),
    ("xfs-read-4k", 1.0),
    ("xfs-write-4k", 1.0),
    ("xfs-fault-4k", 1.0),
    ("xfs-fault-2m", 1.0),
];

/// An instruction count does not wobble by more than this.
const WOBBLE: f64 = 0.01;

/// The ratio that an operation is to reach, if there is one.
pub fn reach(op: &str) -> Option<f64> {
    let (_, most) = REACH.iter().find(|(name, _)| *name == op)?;
    Some(*most)
}

impl Report {
    /// The median, where there is something to measure.
    pub fn median(&self, op: &str, target: &str) -> Option<u64> {
        match self.find(op, target)? {
            Outcome::Measured(ticks) => Some(ticks.median),
            Outcome::Refused { .. } => None,
        }
    }

    fn find(&self, op: &str, target: &str) -> Option<&Outcome> {
        let cell = self
            .cells
            .iter()
            .find(|cell| cell.op == op && cell.target == target);
        cell.map(|cell| &cell.result)
    }

    fn shown(&self, op: &str, target: &str) -> String {
        match self.find(op, target) {
            None => String::new(),
            Some(Outcome::Measured(ticks)) => ticks.median.to_string(),
            Some(Outcome::Refused { refused }) => refused.clone(),
        }
    }

    /// Ours by theirs.
    pub fn ratio(&self, op: &str) -> Option<f64> {
        let (ours, theirs) = (self.median(op, OURS)?, self.median(op, THEIRS)?);
        (theirs > 0).then(|| ours as f64 / theirs as f64)
    }

    /// The operations, in their order.
    pub fn ops(&self) -> Vec<&str> {
        let mut ops: Vec<&str> = Vec::new();
        for cell in &self.cells {
            if !ops.contains(&cell.op.as_str()) {
                ops.push(&cell.op);
            }
        }
        ops
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        let head = ["operation", THEIRS, OURS, "ratio", "to reach"];
        table.set_header(head.iter().chain(&OTHERS));
        for op in self.ops() {
            let ratio = self.ratio(op);
            let mut row = vec![
                op.to_owned(),
                self.shown(op, THEIRS),
                self.shown(op, OURS),
                ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
                reach(op).map_or(String::new(), |most| {
                    let there = ratio.is_some_and(|ratio| ratio <= most + WOBBLE);
                    format!("{most:.2} {}", if there { "✓" } else { "✗" })
                }),
            ];
            row.extend(OTHERS.map(|target| self.shown(op, target)));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// What a bad block that is listed elsewhere adds to an operation.
    fn bad_block(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for op in ["read-1m", "write-1m"] {
            let added = |target| {
                let with = self.median(&format!("{op}-one-bad"), target)?;
                let without = self.median(op, target)?;
                Some(i128::from(with) - i128::from(without))
            };
            if let (Some(theirs), Some(ours)) = (added(THEIRS), added(OURS)) {
                lines.push(format!(
                    "One bad block listed elsewhere adds to {op}: {theirs:+} with {THEIRS}, {ours:+} with {OURS}."
                ));
            }
        }
        lines
    }

    fn profile_table(&self) -> Table {
        let mut table = Table::new();
        let parts = Part::ALL.map(Part::name);
        table.set_header(["operation", "with"].iter().chain(&parts));
        for profile in &self.profiles {
            let mut row = vec![profile.op.clone(), profile.target.clone()];
            row.extend(Part::ALL.map(|part| {
                let count = profile.parts.get(&part).copied().unwrap_or(0.0);
                format!("{count:.0}")
            }));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// For a file, with these plots.
    pub fn markdown(&self, plots: &[String]) -> String {
        let mut table = self.table();
        table.load_preset(ASCII_MARKDOWN);
        let mut text = format!(
            "<!-- SPDX-License-Identifier: GPL-2.0 -->\n\n# Instructions for each operation\n\n\
             Median; Linux {}, in an emulator whose clock counts instructions (QEMU, `-icount shift=0`), all in one boot.\n\
             Copying by `rep movsb` counts an instruction for each byte there.\n\n{table}\n",
            self.kernel
        );
        for line in self.bad_block() {
            text.push_str(&format!("\n{line}\n"));
        }
        if !self.profiles.is_empty() {
            let mut table = self.profile_table();
            table.load_preset(ASCII_MARKDOWN);
            text.push_str(&format!("\n## Where they go\n\n{table}\n"));
        }
        for profile in &self.profiles {
            text.push_str(&format!("\n{}, {}:\n\n", profile.op, profile.target));
            for (function, count) in profile.functions.iter().take(FUNCTIONS) {
                text.push_str(&format!("    {count:>9.1}  {function}\n"));
            }
        }
        for plot in plots {
            text.push_str(&format!("\n![{plot}]({plot}.svg)\n"));
        }
        text
    }

    /// For who is waiting.
    pub fn print(&self) {
        let mut table = self.table();
        table.load_preset(UTF8_BORDERS_ONLY);
        println!("{table}");
        for line in self.bad_block() {
            println!("{line}");
        }
        if !self.profiles.is_empty() {
            let mut table = self.profile_table();
            table.load_preset(UTF8_BORDERS_ONLY);
            println!("{table}");
        }
    }
}
