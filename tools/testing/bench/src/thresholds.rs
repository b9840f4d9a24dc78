// SPDX-License-Identifier: GPL-2.0

//! Compares figures with their thresholds.

use crate::figure::{Figure, OURS, THEIRS};
use crate::profile::Part;
use crate::report::Report;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Thresholds by the name of the operation; see thresholds.toml.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    ratio: BTreeMap<String, Threshold>,
    own: BTreeMap<String, Threshold>,
    added: BTreeMap<String, Threshold>,
    share: BTreeMap<String, Threshold>,
    locked: BTreeMap<String, Threshold>,
    text: BTreeMap<String, Threshold>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    threshold: f64,
    aim: Option<f64>,
    of: Option<String>,
}

impl Thresholds {
    /// Reads thresholds.toml.
    pub fn load() -> Result<Self> {
        toml::from_str(include_str!("../thresholds.toml"))
            .context("tools/testing/bench/thresholds.toml")
    }

    /// Returns the operations that all figures need.
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
            .flat_map(|(op, threshold)| [Some(op), threshold.of.as_ref()]);
        let mut ops: Vec<String> = names.flatten().cloned().collect();
        ops.sort();
        ops.dedup();
        ops
    }

    /// Computes the figures of a report.
    pub fn figures(&self, report: &Report) -> Vec<Figure> {
        let ours = |op: &str| Some(report.median(op, OURS)? as f64);
        let theirs = |op: &str| Some(report.median(op, THEIRS)? as f64);
        let by = |one: Option<f64>, other: Option<f64>| Some(one? / other.filter(|it| *it > 0.0)?);
        let minus = |one: Option<f64>, other: Option<f64>| Some(one? - other?);
        let profile = |op: &str| report.profile(op, OURS);
        let driver = |parts: &BTreeMap<Part, f64>| parts.get(&Part::Driver).copied();

        let mut figures = Vec::new();
        let mut add =
            |what, thresholds: &BTreeMap<_, _>, value: &dyn Fn(&str, &str) -> Option<f64>| {
                figures.extend(
                    thresholds
                        .iter()
                        .map(|(op, threshold): (&String, &Threshold)| Figure {
                            what,
                            op: op.clone(),
                            of: threshold.of.clone(),
                            value: value(op, threshold.of.as_ref().unwrap_or(op)),
                            threshold: threshold.threshold,
                            aim: threshold.aim.unwrap_or(threshold.threshold),
                        }),
                );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;
    use meter::{Cell, Outcome, Ticks};

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

    fn judged(thresholds: &str, cells: &[(&str, &str, u64)]) -> Vec<(Option<f64>, bool, bool)> {
        let thresholds: Thresholds = toml::from_str(thresholds).unwrap();
        let figures = thresholds.figures(&report(cells));
        let verdict = |figure: &Figure| (figure.value, figure.holds(), figure.reached());
        figures.iter().map(verdict).collect()
    }

    #[test]
    fn threshold_holds_within_the_tolerance() {
        let thresholds = "[ratio]\na = { threshold = 0.9, aim = 0.8 }";
        let with = |ours| judged(thresholds, &[("a", OURS, ours), ("a", THEIRS, 10_000)])[0];
        assert_eq!(with(8080), (Some(0.808), true, true));
        assert_eq!(with(8081), (Some(0.8081), true, false));
        assert_eq!(with(9090), (Some(0.909), true, false));
        assert_eq!(with(9091), (Some(0.9091), false, false));
        // A figure that was not measured does not hold.
        assert_eq!(
            judged(thresholds, &[("a", OURS, 1)]),
            [(None, false, false)]
        );
    }

    #[test]
    fn each_kind_of_figure_is_computed() {
        let cells = [("a", OURS, 110), ("b", OURS, 100), ("b", THEIRS, 220)];
        let thresholds = "[ratio]\na = { threshold = 0.5, of = \"b\" }\n[own]\na = { threshold = 1.0, of = \"b\" }\n\
                     [added]\na = { threshold = 10, of = \"b\" }\n[share]\nread-4k = { threshold = 70 }\n\
                     [locked]\nread-4k = { threshold = 0 }\n[text]\nm = { threshold = 900 }";
        let wanted = [
            (0.5, true),
            (1.1, false),
            (10.0, true),
            (71.0, false),
            (0.0, true),
            (1000.0, false),
        ];
        let found = judged(thresholds, &cells);
        assert!(
            found
                .iter()
                .map(|found| (found.0.unwrap(), found.1))
                .eq(wanted),
            "{found:?}"
        );
    }

    #[test]
    fn thresholds_file_is_valid() {
        let ops = Thresholds::load().unwrap().ops();
        assert!(ops.iter().any(|op| op == "read-1m"), "{ops:?}");
    }
}
