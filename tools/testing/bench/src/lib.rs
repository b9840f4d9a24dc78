// SPDX-License-Identifier: GPL-2.0

//! What `pmem-meter` measures in the guest, and `pmem-bench native` on a machine of its own.

pub mod ops;

use serde::{Deserialize, Serialize};

/// An operation on a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The operation: `read-4k`, `ext4-fault-2m`.
    pub op: String,
    /// A driver.
    pub target: String,
    /// What it takes.
    #[serde(flatten)]
    pub result: Outcome,
}

/// What an operation takes, or why there is nothing to measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Ticks of the time-stamp counter for each time it was done.
    Measured(Ticks),
    /// It can't be done.
    Refused {
        /// Why.
        refused: String,
    },
}

/// Ticks of the time-stamp counter for each time something was done, less those of measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticks {
    /// Half of the times took no more.
    pub median: u64,
    /// No time took less.
    pub min: u64,
    /// Nine of ten times took no more.
    pub p90: u64,
    /// How often it was done.
    pub n: usize,
}

impl Ticks {
    /// Of these samples, each of which did it `each` times and has `empty` ticks too many; `None` where
    /// there are none.
    pub fn of(samples: &[u64], empty: u64, each: u64) -> Option<Self> {
        let mut ticks: Vec<u64> = samples
            .iter()
            .map(|ticks| ticks.saturating_sub(empty) / each.max(1))
            .collect();
        ticks.sort_unstable();
        let at = |share: usize| ticks.get((ticks.len().checked_sub(1)? * share).div_ceil(100));
        Some(Self {
            median: *at(50)?,
            min: *at(0)?,
            p90: *at(90)?,
            n: ticks.len() * usize::try_from(each).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        let samples: Vec<u64> = (0..=100).rev().map(|value| 1000 + value * 10).collect();
        let ticks = Ticks::of(&samples, 1000, 10).unwrap();
        let wanted = Ticks {
            median: 50,
            min: 0,
            p90: 90,
            n: 1010,
        };
        assert_eq!(ticks, wanted);
        assert_eq!(Ticks::of(&[], 0, 1), None);
    }

    #[test]
    fn a_cell_reads_back() {
        let cell = |result| Cell {
            op: "read-4k".into(),
            target: "brd".into(),
            result,
        };
        let refused = Outcome::Refused {
            refused: "not supported".into(),
        };
        for result in [Outcome::Measured(Ticks::of(&[7], 0, 1).unwrap()), refused] {
            let cell = cell(result);
            let text = serde_json::to_string(&cell).unwrap();
            assert_eq!(serde_json::from_str::<Cell>(&text).unwrap(), cell);
        }
    }
}
