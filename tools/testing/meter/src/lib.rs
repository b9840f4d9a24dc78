// SPDX-License-Identifier: GPL-2.0

//! Operations and results that `pmem-meter`, in the guest, and `pmem-bench native`, on real hardware, share.

pub mod ops;

use serde::{Deserialize, Serialize};

/// The result of an operation on a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The operation: `read-4k`, `ext4-fault-2m`.
    pub op: String,
    pub target: String,
    #[serde(flatten)]
    pub result: Outcome,
}

/// The time of an operation, or why it can't be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    Measured(Ticks),
    /// With the reason.
    Refused {
        refused: String,
    },
}

/// Ticks of the time-stamp counter for one operation, without those of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticks {
    pub median: u64,
    pub min: u64,
    /// 90th percentile.
    pub p90: u64,
    /// Number of operations.
    pub n: usize,
}

impl Ticks {
    /// Summarises samples, each of which has `each` operations and `empty` ticks of the measurement itself. Returns
    /// `None` without samples.
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
    fn percentiles_are_per_operation() {
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
    fn cell_reads_back() {
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
