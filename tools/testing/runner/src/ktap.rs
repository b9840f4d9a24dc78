// SPDX-License-Identifier: GPL-2.0

//! Reads the output of a selftest (Documentation/dev-tools/ktap.rst of the kernel) and judges it.

use crate::reading::{MAX_LINES, Reading, interrupted};
use crate::results::{Outcome, TestResult};
use std::collections::BTreeSet;
use std::time::Duration;
use vm::{Ended, Loss};

/// Lines shown of the expected value and of the seen one, each.
const MAX_VALUE: usize = 3;

/// The output of one run of a selftest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ktap {
    /// Number of subtests that it announced.
    pub plan: Option<usize>,
    /// Why it announced none.
    pub skip: Option<String>,
    /// Why it gave up.
    pub bail_out: Option<String>,
    /// The subtests; their lines are what follows them, up to the next one.
    pub subtests: Vec<TestResult>,
    /// Whether those that have a number are numbered from 1 on.
    pub in_order: bool,
    /// Lines before the first subtest.
    pub preamble: Vec<String>,
}

/// How a run of a selftest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(i32),
    /// By a power cut or restart that the test requested.
    CutOff,
}

/// Exit status of a test that does not apply.
pub const SKIP: i32 = 4;

/// Returns the names that occur more than once. A subtest is identified by its name: under the other driver, in the
/// tables, in differences.toml.
pub fn duplicates<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let names = names.into_iter();
    names.filter(|name| !seen.insert(*name)).collect()
}

/// Splits a text at `# SKIP` or another such word, in upper or lower case: the text before it, and the reason after it.
fn directive<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let upper = text.to_ascii_uppercase();
    let at = upper.find(&format!("# {word}"))?;
    let reason = text[at + 2 + word.len()..].trim();
    Some((text[..at].trim(), reason))
}

impl Ktap {
    /// Parses the output. Any text is valid: lines that are not KTAP are diagnosis.
    pub fn parse(text: &str) -> Self {
        let mut ktap = Self {
            plan: None,
            skip: None,
            bail_out: None,
            subtests: Vec::new(),
            in_order: true,
            preamble: Vec::new(),
        };
        for line in text.lines() {
            let line = line.trim_end_matches('\r');
            if let Some((number, subtest)) = subtest(line) {
                ktap.subtests.push(subtest);
                ktap.in_order &= number.is_none_or(|number| number == ktap.subtests.len());
            } else if let Some((plan, skip)) = plan(line) {
                ktap.plan = Some(plan);
                ktap.skip = skip;
            } else if let Some(reason) = line.strip_prefix("Bail out!") {
                ktap.bail_out = Some(reason.trim().to_owned());
            } else if !line.starts_with("KTAP version") && !line.starts_with("TAP version") {
                match ktap.subtests.last_mut() {
                    Some(subtest) => subtest.lines.push(line.to_owned()),
                    None => ktap.preamble.push(line.to_owned()),
                }
            }
        }
        ktap
    }

    /// Returns the last lines that are not KTAP.
    pub fn last_lines(&self, count: usize) -> &[String] {
        let lines = match self.subtests.last() {
            Some(subtest) => &subtest.lines,
            None => &self.preamble,
        };
        &lines[lines.len().saturating_sub(count)..]
    }

    pub fn failed(&self) -> impl Iterator<Item = &TestResult> {
        let subtests = self.subtests.iter();
        subtests.filter(|subtest| subtest.outcome.is_failure())
    }

    /// Returns the failure of the test that results from failed subtests, if any did.
    pub fn failure(&self) -> Option<Outcome> {
        let run = self.subtests.len();
        let first = &self.failed().next()?.name;
        Some(Outcome::Failed(match self.failed().count() {
            1 => format!("of {run} subtests this failed: {first}"),
            failed => format!("of {run} subtests {failed} failed, first: {first}"),
        }))
    }

    /// Judges the run. A test passes if it announced a number of subtests, ran that many, in order and each with a
    /// name of its own, none of them failed, and it exited with status 0.
    pub fn outcome(&self, end: End) -> Outcome {
        let run = self.subtests.len();
        if let Some(reason) = &self.bail_out {
            return Outcome::Failed(format!("gave up: {reason}"));
        }
        if let Some(failure) = self.failure() {
            return failure;
        }
        match end {
            End::Exited(SKIP) => {
                let reason = self
                    .skip
                    .clone()
                    .or_else(|| self.last_lines(1).first().cloned());
                return Outcome::Skipped(reason.unwrap_or_else(|| "it did not say why".into()));
            }
            End::Exited(0) | End::CutOff => {}
            End::Exited(status) => {
                return Outcome::Failed(format!(
                    "status {status} after {run} subtests, none of which failed"
                ));
            }
        }
        let Some(plan) = self.plan else {
            return Outcome::Failed("it announced no number of subtests".into());
        };
        if plan != run {
            let when = if end == End::CutOff {
                " before the power cut"
            } else {
                ""
            };
            return Outcome::Failed(format!("{plan} subtests announced, {run} run{when}"));
        }
        if !self.in_order {
            return Outcome::Failed("the subtests' numbers are not in order".into());
        }
        let names = self.subtests.iter().map(|subtest| subtest.name.as_str());
        if let Some(name) = duplicates(names).first() {
            return Outcome::Failed(format!("two subtests have this name: {name}"));
        }
        let reason = |subtest: &TestResult| match &subtest.outcome {
            Outcome::Skipped(reason) => Some(reason.clone()),
            _ => None,
        };
        if self
            .subtests
            .iter()
            .any(|subtest| reason(subtest).is_none())
        {
            return Outcome::Passed;
        }
        let skipped = self.skip.clone();
        match skipped.or_else(|| self.subtests.first().and_then(reason)) {
            Some(reason) => Outcome::Skipped(reason),
            None => Outcome::Failed("it tested nothing".into()),
        }
    }
}

/// Reads `1..N`, with the reason where N is 0.
fn plan(line: &str) -> Option<(usize, Option<String>)> {
    let rest = line.strip_prefix("1..")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let plan = rest[..digits].parse().ok()?;
    Some((
        plan,
        directive(rest, "SKIP").map(|(_, reason)| reason.to_owned()),
    ))
}

/// Reads the output of a stage of a selftest.
pub fn read(ended: Ended, limit: Duration, output: &str) -> Reading {
    let ktap = Ktap::parse(output);
    let outcome = match ended {
        Ended::Exited(status) => ktap.outcome(End::Exited(status)),
        Ended::Lost(Loss::PowerCut | Loss::Restart) => ktap.outcome(End::CutOff),
        Ended::Lost(Loss::Unasked) | Ended::TimedOut => interrupted(ended, limit),
    };
    let mut lines = Vec::new();
    for subtest in ktap.failed() {
        lines.push(format!("not ok: {}", subtest.name));
        lines.extend(explain(subtest).iter().map(|line| format!("  {line}")));
    }
    let last = ktap
        .subtests
        .last()
        .map(|subtest| format!("last: {}", subtest.name));
    let mut tail = Vec::from_iter(last);
    tail.extend_from_slice(ktap.last_lines(MAX_LINES / 2));
    Reading {
        outcome,
        by_subtests: ktap.failure(),
        lines,
        tail,
        subtests: ktap.subtests,
    }
}

/// Explains a failed subtest by the expected value and the seen one, from the diagnosis that tests/lib/tap.sh prints.
fn explain(subtest: &TestResult) -> Vec<String> {
    let lines = subtest.lines.iter();
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .collect();
    let Some((&first, rest)) = lines.split_first() else {
        return Vec::new();
    };
    if let Some(seen) = first.strip_prefix("got:    ") {
        let wanted = |line: &&str| line.starts_with("wanted: ");
        let at = rest.iter().position(wanted).unwrap_or(rest.len());
        let mut expected = rest[at..].to_vec();
        if let Some(line) = expected.first_mut() {
            *line = &line["wanted: ".len()..];
        }
        let seen = [&[seen], &rest[..at]].concat();
        let same = seen
            .iter()
            .zip(&expected)
            .take_while(|(seen, expected)| seen == expected);
        let same = same.count();
        return [
            excerpt("expected: ", &expected, same),
            excerpt("seen:     ", &seen, same),
        ]
        .concat();
    }
    let (expected, seen) = match (
        first.split_once(", should fail: "),
        first.split_once(" of: "),
    ) {
        (Some((status, command)), _) if status.starts_with("status ") => {
            (format!("failure of: {command}"), status)
        }
        (_, Some((status, command))) if status.starts_with("status ") => {
            (format!("success of: {command}"), status)
        }
        _ => return excerpt("", &lines, 0),
    };
    let mut explained = vec![format!("expected: {expected}")];
    explained.extend(excerpt("seen:     ", &[&[seen], rest].concat(), 0));
    explained
}

/// Returns the lines of a value from the first one that differs on.
fn excerpt(label: &str, value: &[&str], same: usize) -> Vec<String> {
    let shown = value.iter().skip(same).take(MAX_VALUE).enumerate();
    shown
        .map(|(index, line)| match index {
            0 => format!("{label}{line}"),
            _ => format!("{:width$}{line}", "", width = label.len()),
        })
        .collect()
}

/// Reads `ok N name` or `not ok N - name # SKIP reason`: the number, where there is one, and the result.
fn subtest(line: &str) -> Option<(Option<usize>, TestResult)> {
    let (good, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number = rest[..digits].parse().ok();
    let rest = rest[digits..].trim().trim_start_matches("- ");
    let (name, outcome) = if let Some((name, reason)) = directive(rest, "SKIP") {
        (name, Outcome::Skipped(reason.to_owned()))
    } else if let Some((name, reason)) = directive(rest, "TODO") {
        (name, Outcome::Skipped(format!("to do: {reason}")))
    } else if good {
        (rest, Outcome::Passed)
    } else {
        (rest, Outcome::Failed(rest.to_owned()))
    };
    Some((number, TestResult::new(name, outcome)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str, status: i32) -> Outcome {
        Ktap::parse(text).outcome(End::Exited(status))
    }

    fn failure(text: &str, status: i32) -> String {
        match outcome(text, status) {
            Outcome::Failed(reason) => reason,
            other => panic!("{text:?}, {status}: {other:?}"),
        }
    }

    #[test]
    fn complete_run_without_failures_passes() {
        for text in [
            "KTAP version 1\n1..2\nok 1 one\nok 2 two\n",
            "TAP version 13\n1..1\nok 1 - one\n",
            "KTAP version 1\n# hello\n1..2\nok 1 one\nnoise\nok 2 two # SKIP no such thing\n",
            "ok 1 one\r\n1..1\r\n",
        ] {
            assert_eq!(outcome(text, 0), Outcome::Passed, "{text}");
        }
    }

    #[test]
    fn incomplete_or_contradictory_run_fails() {
        for (text, status, reason) in [
            ("", 0, "announced no number"),
            ("KTAP version 1\nok 1 one\n", 0, "announced no number"),
            ("1..2\nok 1 one\n", 0, "2 subtests announced, 1 run"),
            (
                "1..1\nok 1 one\nok 2 two\n",
                0,
                "1 subtests announced, 2 run",
            ),
            (
                "1..2\nok 1 one\nnot ok 2 two\n",
                0,
                "of 2 subtests this failed: two",
            ),
            (
                "1..2\nnot ok 1 one\nnot ok 2 two\n",
                1,
                "2 failed, first: one",
            ),
            ("1..1\nok 1 one\n", 1, "status 1"),
            ("1..1\nok 1 one\n", 139, "status 139"),
            ("1..2\nok 1 one\nok 3 three\n", 0, "not in order"),
            (
                "1..3\nok 1 one\nok 2 two\nok 3 one\n",
                0,
                "two subtests have this name: one",
            ),
            (
                "1..2\nok 1 one\nok 2 one # SKIP no\n",
                0,
                "two subtests have this name: one",
            ),
            ("1..0\n", 0, "tested nothing"),
            (
                "1..1\nok 1 one\nBail out! no tools\n",
                0,
                "gave up: no tools",
            ),
            ("1..1\nnot ok 1 one\n", 4, "this failed: one"),
            ("okay\nnotok\n1..0", 0, "tested nothing"),
        ] {
            let found = failure(text, status);
            assert!(found.contains(reason), "{text:?}: {found}");
        }
    }

    #[test]
    fn skip_gives_its_reason() {
        for (text, status, reason) in [
            ("KTAP version 1\n1..0 # SKIP no NVDIMM\n", 4, "no NVDIMM"),
            ("1..0 # skip no NVDIMM\n", 0, "no NVDIMM"),
            ("# no NVDIMM\n", 4, "# no NVDIMM"),
            ("", 4, "did not say why"),
            ("1..1\nok 1 one # SKIP no NVDIMM\n", 0, "no NVDIMM"),
        ] {
            let found = outcome(text, status);
            assert!(matches!(found, Outcome::Skipped(_)), "{text:?}");
            assert!(found.reason().contains(reason), "{text:?}: {found:?}");
        }
    }

    #[test]
    fn power_cut_ends_a_stage() {
        let ktap = Ktap::parse("1..1\nok 1 stored\n");
        assert_eq!(ktap.outcome(End::CutOff), Outcome::Passed);
        let ktap = Ktap::parse("1..2\nok 1 stored\n");
        assert_eq!(
            ktap.outcome(End::CutOff),
            Outcome::Failed("2 subtests announced, 1 run before the power cut".into())
        );
    }

    #[test]
    fn diagnosis_belongs_to_the_subtest_before_it() {
        let ktap = Ktap::parse("before\n1..2\nok 1 a\nnot ok 2 b\n# status 1 of: false\nlast\n");
        assert_eq!(ktap.preamble, ["before"]);
        assert_eq!(ktap.subtests[1].lines, ["# status 1 of: false", "last"]);
        assert_eq!(ktap.last_lines(1), ["last"]);
    }

    #[test]
    fn explanation_has_the_expected_and_the_seen_value() {
        for (diagnosis, explained) in [
            (
                "# got:    8 8\n# wanted: 8 16",
                "expected: 8 16\nseen:     8 8",
            ),
            (
                "# got:    \n# wanted: a\n# b",
                "expected: a\n          b\nseen:     ",
            ),
            (
                "# got:    a\n# b\n# c\n# d\n# wanted: a\n# b\n# x\n# d",
                "expected: x\n          d\nseen:     c\n          d",
            ),
            (
                "# status 1 of: grep -q a b\n# grep: b: no such file",
                "expected: success of: grep -q a b\nseen:     status 1\n          grep: b: no such file",
            ),
            (
                "# status 0, should fail: mount /dev/pmem0\n# mounted",
                "expected: failure of: mount /dev/pmem0\nseen:     status 0\n          mounted",
            ),
            ("# nothing seen", "nothing seen"),
        ] {
            let ktap = Ktap::parse(&format!("1..1\nnot ok 1 a\n{diagnosis}\n"));
            assert_eq!(explain(&ktap.subtests[0]).join("\n"), explained);
        }
    }

    #[test]
    fn reading_has_the_explanation_of_a_failure() {
        let limit = Duration::from_secs(9);
        let output = "1..2\nok 1 a\nnot ok 2 b\n# got:    1\n# wanted: 2\n";
        let reading = read(Ended::Exited(1), limit, output);
        assert_eq!(reading.by_subtests, Some(reading.outcome));
        assert_eq!(
            reading.lines,
            ["not ok: b", "  expected: 2", "  seen:     1"]
        );
        let reading = read(Ended::TimedOut, limit, "1..2\nok 1 a\nwaiting\n");
        assert!(reading.by_subtests.is_none() && reading.lines.is_empty());
        assert_eq!(reading.outcome.reason(), "not done after 9 s");
        assert_eq!(reading.tail, ["last: a", "waiting"]);
        let cut = Ended::Lost(Loss::PowerCut);
        let reading = read(cut, limit, "1..1\nok 1 a\n");
        assert_eq!(reading.outcome, Outcome::Passed);
    }
}
