// SPDX-License-Identifier: GPL-2.0

//! A figure and its threshold, and the names of the drivers that figures compare.

use serde::Serialize;

/// The driver of this project.
pub const OURS: &str = "rust_pmem";
/// The driver that it is compared with.
pub const THEIRS: &str = "nd_pmem";

#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Kind of the figure: `ratio`, `share`…
    pub what: &'static str,
    pub op: String,
    /// The operation that it is compared with, if it is another one.
    pub of: Option<String>,
    /// `None` if it was not measured.
    pub value: Option<f64>,
    #[serde(rename = "line")]
    pub threshold: f64,
    pub aim: f64,
}

/// Relative difference between two counts of the same instructions.
const TOLERANCE: f64 = 0.01;

impl Figure {
    /// Returns whether it does not exceed its threshold.
    pub fn holds(&self) -> bool {
        self.is_at_most(self.threshold)
    }

    /// Returns whether the aim is reached.
    pub fn reached(&self) -> bool {
        self.is_at_most(self.aim)
    }

    fn is_at_most(&self, most: f64) -> bool {
        self.value
            .is_some_and(|value| value <= most * (1.0 + TOLERANCE))
    }

    /// Returns whether it is the ratio of the same operation under both drivers.
    pub fn is_plain_ratio(&self) -> bool {
        self.what == "ratio" && self.of.is_none()
    }

    /// Describes it.
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

    /// Formats a number of its kind.
    pub fn number(&self, value: f64) -> String {
        match self.what {
            "ratio" | "own" => format!("{value:.3}"),
            _ => format!("{value:.0}"),
        }
    }

    /// Describes its threshold, whether it holds, and the aim where that is not reached.
    pub fn verdict(&self) -> String {
        let sign = if self.holds() { "✓" } else { "✗" };
        let threshold = self.number(self.threshold);
        match self.reached() || self.aim == self.threshold {
            true => format!("{threshold} {sign}"),
            false => format!("{threshold} {sign} (aim: {})", self.number(self.aim)),
        }
    }
}
