// SPDX-License-Identifier: GPL-2.0

//! Judges a test of a suite by its exit status and its last lines.

use crate::reading::{MAX_LINES, Reading, interrupted};
use crate::results::Outcome;
use std::time::Duration;
use vm::Ended;

/// Exit status of a test that does not apply, as in automake and meson.
const SKIP: i32 = 77;

/// Reads the output of a test. A test that did not find a tool in the guest failed: its status would look like a result.
pub fn read(harmless: Option<&[String]>, ended: Ended, limit: Duration, output: &str) -> Reading {
    let lines: Vec<&str> = output.lines().collect();
    let missing = harmless.and_then(|texts| {
        let harmless = |line: &str| texts.iter().any(|text| line.contains(text));
        let mut lines = lines
            .iter()
            .filter(|line| line.contains("command not found"));
        lines.find(|line| !harmless(line))
    });
    let tail = lines[lines.len().saturating_sub(MAX_LINES)..].iter();
    Reading {
        outcome: match missing {
            Some(line) => Outcome::Failed(format!("the guest lacks something: {line}")),
            None => outcome(ended, limit, output),
        },
        by_subtests: None,
        subtests: Vec::new(),
        lines: Vec::new(),
        tail: tail.map(|line| line.to_string()).collect(),
    }
}

/// Judges a test by its status and its last lines.
fn outcome(ended: Ended, limit: Duration, output: &str) -> Outcome {
    // Without a shell's traces of its commands.
    let mut lines = output.lines().rev().map(str::trim);
    let last = lines
        .clone()
        .find(|line| !line.is_empty() && !line.starts_with('+'))
        .unwrap_or("it printed nothing");
    match ended {
        Ended::Exited(0) => Outcome::Passed,
        Ended::Exited(SKIP) => Outcome::Skipped(last.to_owned()),
        Ended::Exited(status) => {
            let line = lines.find(|line| line.contains("failed at line"));
            Outcome::Failed(format!("status {status}: {}", line.unwrap_or(last)))
        }
        Ended::TimedOut | Ended::Lost(_) => interrupted(ended, limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_last_lines_decide() {
        let limit = Duration::from_secs(9);
        let of = |ended, output| outcome(ended, limit, output);
        assert_eq!(of(Ended::Exited(0), "+ exit 0\n"), Outcome::Passed);
        assert_eq!(
            of(Ended::Exited(77), "kernel 7.2: no jq\n+ exit 77\n"),
            Outcome::Skipped("kernel 7.2: no jq".into())
        );
        assert_eq!(
            of(Ended::Exited(1), "test/clear.sh: failed at line 9\nafter\n"),
            Outcome::Failed("status 1: test/clear.sh: failed at line 9".into())
        );
        assert_eq!(
            of(Ended::TimedOut, ""),
            Outcome::Failed("not done after 9 s".into())
        );
    }

    #[test]
    fn missing_tool_is_a_failure() {
        let harmless = ["cleanup".to_owned()];
        let output = "x: line 1: cleanup: command not found\nx: line 2: jq: command not found\n";
        let read = |output| read(Some(&harmless), Ended::Exited(0), Duration::ZERO, output).outcome;
        assert_eq!(
            read(output).reason(),
            "the guest lacks something: x: line 2: jq: command not found"
        );
        assert_eq!(read("jq: parse error\n"), Outcome::Passed);
    }
}
