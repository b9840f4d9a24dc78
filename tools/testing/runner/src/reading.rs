// SPDX-License-Identifier: GPL-2.0

//! The meaning of a test's output, for each protocol.

use crate::results::{Outcome, TestResult};
use std::time::Duration;
use vm::Ended;

/// Lines shown of a failure.
pub const MAX_LINES: usize = 12;

/// The meaning of the output of a stage.
pub struct Reading {
    pub outcome: Outcome,
    pub subtests: Vec<TestResult>,
    /// The failure that failed subtests explain.
    pub by_subtests: Option<Outcome>,
    /// The explanation of a failure.
    pub lines: Vec<String>,
    /// The last lines of the output, shown where nothing explains the failure.
    pub tail: Vec<String>,
}

/// How the reason of a failure begins: the kernel reported something, the test hung, the guest was lost.
pub const REPORTED: &str = "the kernel reported: ";
pub const TIMED_OUT: &str = "not done after ";
pub const LOST: &str = "the machine was lost";

/// Returns the outcome of a test that did not exit.
pub fn interrupted(ended: Ended, limit: Duration) -> Outcome {
    Outcome::Failed(match ended {
        Ended::TimedOut => format!("{TIMED_OUT}{} s", limit.as_secs()),
        _ => LOST.to_owned(),
    })
}
