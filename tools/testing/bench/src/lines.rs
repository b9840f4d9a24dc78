// SPDX-License-Identifier: GPL-2.0

//! What the figures are to be.

use crate::profile::Part;
use crate::report::{OURS, Report, THEIRS};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is to be true, by the name of the operation; see lines.toml.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lines {
    ratio: BTreeMap<String, Line>,
    own: BTreeMap<String, Line>,
    added: BTreeMap<String, Line>,
    share: BTreeMap<String, Line>,
    locked: BTreeMap<String, Line>,
    text: BTreeMap<String, Line>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    line: f64,
    aim: Option<f64>,
    of: Option<String>,
}

/// A figure beside its line.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is: `ratio`, `share`…
    pub what: &'static str,
    /// The operation.
    pub op: String,
    /// That which it is compared with, if it is another one.
    pub of: Option<String>,
    /// What it is; nothing where there was nothing to measure.
    pub value: Option<f64>,
    /// What it must not be above.
    pub line: f64,
    /// What is aimed at.
    pub aim: f64,
}

/// Counts of instructions do not wobble by more than this.
const WOBBLE: f64 = 0.01;

impl Lines {
    /// Those that are checked in.
    pub fn load() -> Result<Self> {
        toml::from_str(include_str!("../lines.toml")).context("tools/testing/bench/lines.toml")
    }

    /// The operations that it takes to know all figures.
    pub fn ops(&self) -> Vec<String> {
        let figures = [
            &self.ratio,
            &self.own,
            &self.added,
            &self.share,
            &self.locked,
        ];
        let names = figures
            .into_iter()
            .flatten()
            .flat_map(|(op, line)| [Some(op), line.of.as_ref()]);
        let mut ops: Vec<String> = names.flatten().cloned().collect();
        ops.sort();
        ops.dedup();
        ops
    }

    /// The figures of a report.
    pub fn figures(&self, report: &Report) -> Vec<Figure> {
        let ours = |op: &str| Some(report.median(op, OURS)? as f64);
        let theirs = |op: &str| Some(report.median(op, THEIRS)? as f64);
        let by = |one: Option<f64>, other: Option<f64>| Some(one? / other.filter(|it| *it > 0.0)?);
        let minus = |one: Option<f64>, other: Option<f64>| Some(one? - other?);
        let profile = |op: &str| report.profile(op, OURS);
        let driver = |parts: &BTreeMap<Part, f64>| parts.get(&Part::Driver).copied();

        let mut figures = Vec::new();
        let mut add = |what, lines: &BTreeMap<_, _>, value: &dyn Fn(&str, &str) -> Option<f64>| {
            figures.extend(lines.iter().map(|(op, line): (&String, &Line)| Figure {
                what,
                op: op.clone(),
                of: line.of.clone(),
                value: value(op, line.of.as_ref().unwrap_or(op)),
                line: line.line,
                aim: line.aim.unwrap_or(line.line),
            }));
        };
        add("ratio", &self.ratio, &|op, of| by(ours(op), theirs(of)));
        add("own", &self.own, &|op, of| by(ours(op), ours(of)));
        add("added", &self.added, &|op, of| minus(ours(op), ours(of)));
        add("share", &self.share, &|op, _| driver(&profile(op)?.parts));
        add("locked", &self.locked, &|op, _| {
            let profile = profile(op)?;
            Some(driver(&profile.locked).unwrap_or(0.0))
        });
        add("text", &self.text, &|_, _| Some(report.text as f64));
        figures
    }
}

impl Figure {
    /// Whether it is not above its line.
    pub fn holds(&self) -> bool {
        self.is_at_most(self.line)
    }

    /// Whether it is what is aimed at.
    pub fn reached(&self) -> bool {
        self.is_at_most(self.aim)
    }

    fn is_at_most(&self, most: f64) -> bool {
        self.value
            .is_some_and(|value| value <= most * (1.0 + WOBBLE))
    }

    /// Whether it is the ratio of an operation to the same one.
    pub fn is_plain_ratio(&self) -> bool {
        self.what == "ratio" && self.of.is_none()
    }

    /// In words.
    pub fn name(&self) -> String {
        let (op, of) = (&self.op, self.of.as_ref().unwrap_or(&self.op));
        match self.what {
            "ratio" if op == of => format!("{op}, by {THEIRS}'s"),
            "ratio" => format!("{op}, by {THEIRS}'s {of}"),
            "own" => format!("{op}, by its own {of}"),
            "added" => format!("{op}, more than {of}"),
            "share" => format!("{op}: instructions in the driver"),
            "locked" => format!("{op}: locked ones in the driver"),
            _ => format!("{op}: bytes of text"),
        }
    }

    /// A number of its kind.
    pub fn number(&self, value: f64) -> String {
        match self.what {
            "ratio" | "own" => format!("{value:.3}"),
            _ => format!("{value:.0}"),
        }
    }

    /// Its line, whether it holds, and what is aimed at where that is something else.
    pub fn verdict(&self) -> String {
        let sign = if self.holds() { "✓" } else { "✗" };
        let line = self.number(self.line);
        match self.reached() || self.aim == self.line {
            true => format!("{line} {sign}"),
            false => format!("{line} {sign} (aim: {})", self.number(self.aim)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;
    use bench::{Cell, Outcome, Ticks};

    fn report(cells: &[(&str, &str, u64)]) -> Report {
        let cell = |&(op, target, ticks): &(&str, &str, u64)| Cell {
            op: op.to_owned(),
            target: target.to_owned(),
            result: Outcome::Measured(Ticks::of(&[ticks], 0, 1).unwrap()),
        };
        let profile = Profile {
            op: "read-4k".to_owned(),
            target: OURS.to_owned(),
            parts: [(Part::Copy, 4106.0), (Part::Driver, 71.0)].into(),
            locked: [(Part::Block, 4.0)].into(),
            functions: Vec::new(),
        };
        Report {
            kernel: "7.2".to_owned(),
            cells: cells.iter().map(cell).collect(),
            profiles: vec![profile],
            figures: Vec::new(),
            text: 1000,
        }
    }

    fn judged(lines: &str, cells: &[(&str, &str, u64)]) -> Vec<(Option<f64>, bool, bool)> {
        let lines: Lines = toml::from_str(lines).unwrap();
        let figures = lines.figures(&report(cells));
        let verdict = |figure: &Figure| (figure.value, figure.holds(), figure.reached());
        figures.iter().map(verdict).collect()
    }

    #[test]
    fn a_line_holds_with_a_wobble_and_no_more() {
        let lines = "[ratio]\na = { line = 0.9, aim = 0.8 }";
        let with = |ours| judged(lines, &[("a", OURS, ours), ("a", THEIRS, 10_000)])[0];
        assert_eq!(with(8080), (Some(0.808), true, true));
        assert_eq!(with(8081), (Some(0.8081), true, false));
        assert_eq!(with(9090), (Some(0.909), true, false));
        assert_eq!(with(9091), (Some(0.9091), false, false));
        // Nothing measured is nothing reached.
        assert_eq!(judged(lines, &[("a", OURS, 1)]), [(None, false, false)]);
    }

    #[test]
    fn other_figures() {
        let cells = [("a", OURS, 110), ("b", OURS, 100), ("b", THEIRS, 220)];
        let lines = "[ratio]\na = { line = 0.5, of = \"b\" }\n[own]\na = { line = 1.0, of = \"b\" }\n\
                     [added]\na = { line = 10, of = \"b\" }\n[share]\nread-4k = { line = 70 }\n\
                     [locked]\nread-4k = { line = 0 }\n[text]\nm = { line = 900 }";
        let wanted = [
            (0.5, true),
            (1.1, false),
            (10.0, true),
            (71.0, false),
            (0.0, true),
            (1000.0, false),
        ];
        let found = judged(lines, &cells);
        assert!(
            found
                .iter()
                .map(|found| (found.0.unwrap(), found.1))
                .eq(wanted),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_checked_in_reads() {
        let ops = Lines::load().unwrap().ops();
        assert!(ops.iter().any(|op| op == "read-1m"), "{ops:?}");
    }
}
