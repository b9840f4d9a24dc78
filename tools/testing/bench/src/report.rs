// SPDX-License-Identifier: GPL-2.0

//! The report of the measurements, for programs and for people.

use crate::figure::{Figure, OURS, THEIRS};
use crate::profile::{Part, Profile};
use anstream::println;
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_BORDERS_ONLY};
use comfy_table::{CellAlignment, Table};
use meter::{Cell, Outcome};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// In the order of the measurements.
    pub cells: Vec<Cell>,
    pub profiles: Vec<Profile>,
    pub figures: Vec<Figure>,
    /// Bytes of the module's text.
    pub text: u64,
}

/// Other drivers, for scale.
const OTHERS: [&str; 3] = ["brd", "null_blk", "null_blk-memory"];
/// Another one, of which only profiles exist.
pub const VIRTIO: &str = "virtio-blk";

/// Number of functions listed of each profile.
const FUNCTIONS: usize = 40;

impl Report {
    /// Returns the median, unless the operation was refused.
    pub fn median(&self, op: &str, target: &str) -> Option<u64> {
        match self.find(op, target)? {
            Outcome::Measured(ticks) => Some(ticks.median),
            Outcome::Refused { .. } => None,
        }
    }

    /// Returns the profile of an operation.
    pub fn profile(&self, op: &str, target: &str) -> Option<&Profile> {
        let matches = |profile: &&Profile| profile.op == op && profile.target == target;
        self.profiles.iter().find(matches)
    }

    /// Returns the ratio of an operation with its threshold, if it has one.
    pub fn figure(&self, op: &str) -> Option<&Figure> {
        let matches = |figure: &&Figure| figure.is_plain_ratio() && figure.op == op;
        self.figures.iter().find(matches)
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

    /// Returns rust_pmem's median divided by nd_pmem's.
    pub fn ratio(&self, op: &str) -> Option<f64> {
        let (ours, theirs) = (self.median(op, OURS)?, self.median(op, THEIRS)?);
        (theirs > 0).then(|| ours as f64 / theirs as f64)
    }

    /// Returns the operations, in order.
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
        let head = ["operation", THEIRS, OURS, "ratio", "threshold"];
        table.set_header(head.iter().chain(&OTHERS).chain([&VIRTIO]));
        for op in self.ops() {
            let ratio = self.ratio(op);
            let mut row = vec![
                op.to_owned(),
                self.shown(op, THEIRS),
                self.shown(op, OURS),
                ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
                self.figure(op).map_or(String::new(), Figure::verdict),
            ];
            row.extend(OTHERS.map(|target| self.shown(op, target)));
            let virtio = self.profile(op, VIRTIO).map(Profile::total);
            row.push(virtio.map_or(String::new(), |total| format!("{total:.0}")));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// Returns the figures that are not the ratio of the same operation under both drivers.
    fn figure_table(&self) -> Option<Table> {
        let mut table = Table::new();
        table.set_header(["figure", "is", "threshold"]);
        for figure in &self.figures {
            let known = figure.value.filter(|_| !figure.is_plain_ratio());
            if let Some(value) = known {
                table.add_row([figure.name(), figure.number(value), figure.verdict()]);
            }
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        (!table.is_empty()).then_some(table)
    }

    /// Returns the parts of each profile: all instructions, or the locked ones.
    fn profile_table(&self, parts: impl Fn(&Profile) -> &BTreeMap<Part, f64>) -> Table {
        let mut table = Table::new();
        let names = Part::ALL.map(Part::name);
        table.set_header(["operation", "with"].iter().chain(&names));
        for profile in &self.profiles {
            let mut row = vec![profile.op.clone(), profile.target.clone()];
            row.extend(Part::ALL.map(|part| {
                let count = parts(profile).get(&part).copied().unwrap_or(0.0);
                format!("{count:.0}")
            }));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// Returns the tables after the first one, with their titles.
    fn tables(&self) -> Vec<(&'static str, Table)> {
        let figures = self.figure_table().map(|table| ("Other figures", table));
        let mut tables: Vec<_> = figures.into_iter().collect();
        if !self.profiles.is_empty() {
            tables.push((
                "Where the instructions go",
                self.profile_table(|profile| &profile.parts),
            ));
            tables.push((
                "Locked instructions among them",
                self.profile_table(|profile| &profile.locked),
            ));
        }
        tables
    }

    /// Returns the report as Markdown, with these plots.
    pub fn markdown(&self, plots: &[String]) -> String {
        let mut table = self.table();
        table.load_preset(ASCII_MARKDOWN);
        let mut text = format!(
            "<!-- SPDX-License-Identifier: GPL-2.0 -->\n\n# Instructions for each operation\n\n\
             Median; Linux {}, in an emulator whose clock counts instructions (QEMU, `-icount shift=0`), all in one boot.\n\
             Copying by `rep movsb` counts an instruction for each byte there.\n\n{table}\n",
            self.kernel
        );
        for (title, mut table) in self.tables() {
            table.load_preset(ASCII_MARKDOWN);
            text.push_str(&format!("\n## {title}\n\n{table}\n"));
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

    pub fn print(&self) {
        let mut table = self.table();
        table.load_preset(UTF8_BORDERS_ONLY);
        println!("{table}");
        for (title, mut table) in self.tables() {
            table.load_preset(UTF8_BORDERS_ONLY);
            println!("{title}:\n{table}");
        }
    }
}
