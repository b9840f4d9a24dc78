// SPDX-License-Identifier: GPL-2.0

//! What a selftest prints (Documentation/dev-tools/ktap.rst of the kernel), and what it means.

use std::collections::BTreeSet;

/// One line `ok` or `not ok`, and the diagnosis after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtest {
    /// Its number, where it has one.
    pub number: Option<usize>,
    /// What it says it tests.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// The lines after it, up to the next one.
    pub diagnosis: Vec<String>,
}

/// How a test or subtest went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not so, and why.
    Failed(String),
    /// It does not apply here, and why.
    Skipped(String),
}

/// What one run of a selftest printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ktap {
    /// Number of subtests that it announced.
    pub plan: Option<usize>,
    /// Why it announced none.
    pub skip: Option<String>,
    /// Why it gave up.
    pub bail_out: Option<String>,
    /// The subtests.
    pub subtests: Vec<Subtest>,
    /// Lines before the first subtest.
    pub preamble: Vec<String>,
}

/// How a run of a selftest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(i32),
    /// By a power cut or restart that it asked for.
    CutOff,
}

/// The status of a test that does not apply.
pub const SKIP: i32 = 4;

/// The names that stand here more than once. A subtest is found again by its name: under the other driver, in the
/// tables, in differences.toml.
pub fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let names = names.into_iter();
    names.filter(|name| !seen.insert(*name)).collect()
}

/// The text after `# SKIP`, whatever the letters' case.
fn directive<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let upper = text.to_ascii_uppercase();
    let at = upper.find(&format!("# {word}"))?;
    let reason = text[at + 2 + word.len()..].trim();
    Some((text[..at].trim(), reason))
}

impl Ktap {
    /// Reads what was printed. Nothing is an error here: lines that are no KTAP are diagnosis.
    pub fn parse(text: &str) -> Self {
        let mut ktap = Self::default();
        for line in text.lines() {
            let line = line.trim_end_matches('\r');
            if let Some(subtest) = subtest(line) {
                ktap.subtests.push(subtest);
            } else if let Some((plan, skip)) = plan(line) {
                ktap.plan = Some(plan);
                ktap.skip = skip;
            } else if let Some(reason) = line.strip_prefix("Bail out!") {
                ktap.bail_out = Some(reason.trim().to_owned());
            } else if !line.starts_with("KTAP version") && !line.starts_with("TAP version") {
                match ktap.subtests.last_mut() {
                    Some(subtest) => subtest.diagnosis.push(line.to_owned()),
                    None => ktap.preamble.push(line.to_owned()),
                }
            }
        }
        ktap
    }

    /// The last lines that are no KTAP.
    pub fn last_words(&self, count: usize) -> &[String] {
        let words = match self.subtests.last() {
            Some(subtest) => &subtest.diagnosis,
            None => &self.preamble,
        };
        &words[words.len().saturating_sub(count)..]
    }

    /// The subtests that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Subtest> {
        self.subtests
            .iter()
            .filter(|subtest| matches!(subtest.outcome, Outcome::Failed(_)))
    }

    /// The failure that its subtests are.
    pub fn failure(&self) -> Option<Outcome> {
        let run = self.subtests.len();
        let first = &self.failed().next()?.name;
        Some(Outcome::Failed(match self.failed().count() {
            1 => format!("of {run} subtests this failed: {first}"),
            failed => format!("of {run} subtests {failed} failed, first: {first}"),
        }))
    }

    /// What the run means. A test passes when it says so in every way: it announced a number of
    /// subtests, ran so many, each of a name of its own, all of them right, and ended with status 0.
    pub fn verdict(&self, end: End) -> Outcome {
        let run = self.subtests.len();
        if let Some(reason) = &self.bail_out {
            return Outcome::Failed(format!("gave up: {reason}"));
        }
        if let Some(failure) = self.failure() {
            return failure;
        }
        match end {
            End::Exited(SKIP) => {
                let said = self
                    .skip
                    .clone()
                    .or_else(|| self.last_words(1).first().cloned());
                return Outcome::Skipped(said.unwrap_or_else(|| "it did not say why".into()));
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
        let numbered = |(index, subtest): (usize, &Subtest)| {
            subtest.number.is_none_or(|number| number == index + 1)
        };
        if !self.subtests.iter().enumerate().all(numbered) {
            return Outcome::Failed("the subtests' numbers are not in order".into());
        }
        let names = self.subtests.iter().map(|subtest| subtest.name.as_str());
        if let Some(name) = twice(names).first() {
            return Outcome::Failed(format!("two subtests have this name: {name}"));
        }
        let reason = |subtest: &Subtest| match &subtest.outcome {
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

/// `1..N`, with the reason where N is 0.
fn plan(line: &str) -> Option<(usize, Option<String>)> {
    let rest = line.strip_prefix("1..")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let plan = rest[..digits].parse().ok()?;
    Some((
        plan,
        directive(rest, "SKIP").map(|(_, reason)| reason.to_owned()),
    ))
}

/// `ok N name` or `not ok N - name # SKIP reason`.
fn subtest(line: &str) -> Option<Subtest> {
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
    Some(Subtest {
        number,
        name: name.to_owned(),
        outcome,
        diagnosis: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, status: i32) -> Outcome {
        Ktap::parse(text).verdict(End::Exited(status))
    }

    fn failure(text: &str, status: i32) -> String {
        match verdict(text, status) {
            Outcome::Failed(reason) => reason,
            other => panic!("{text:?}, {status}: {other:?}"),
        }
    }

    #[test]
    fn what_passes() {
        for text in [
            "KTAP version 1\n1..2\nok 1 one\nok 2 two\n",
            "TAP version 13\n1..1\nok 1 - one\n",
            "KTAP version 1\n# hello\n1..2\nok 1 one\nnoise\nok 2 two # SKIP no such thing\n",
            "ok 1 one\r\n1..1\r\n",
        ] {
            assert_eq!(verdict(text, 0), Outcome::Passed, "{text}");
        }
    }

    #[test]
    fn what_fails() {
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
            let said = failure(text, status);
            assert!(said.contains(reason), "{text:?}: {said}");
        }
    }

    #[test]
    fn what_is_skipped() {
        for (text, status, reason) in [
            ("KTAP version 1\n1..0 # SKIP no NVDIMM\n", 4, "no NVDIMM"),
            ("1..0 # skip no NVDIMM\n", 0, "no NVDIMM"),
            ("# no NVDIMM\n", 4, "# no NVDIMM"),
            ("", 4, "did not say why"),
            ("1..1\nok 1 one # SKIP no NVDIMM\n", 0, "no NVDIMM"),
        ] {
            let Outcome::Skipped(said) = verdict(text, status) else {
                panic!("{text:?}")
            };
            assert!(said.contains(reason), "{text:?}: {said}");
        }
    }

    #[test]
    fn a_power_cut_ends_a_stage() {
        let ktap = Ktap::parse("1..1\nok 1 stored\n");
        assert_eq!(ktap.verdict(End::CutOff), Outcome::Passed);
        let ktap = Ktap::parse("1..2\nok 1 stored\n");
        assert_eq!(
            ktap.verdict(End::CutOff),
            Outcome::Failed("2 subtests announced, 1 run before the power cut".into())
        );
    }

    #[test]
    fn diagnosis_belongs_to_the_subtest_before_it() {
        let ktap = Ktap::parse("before\n1..2\nok 1 a\nnot ok 2 b\n# status 1 of: false\nlast\n");
        assert_eq!(ktap.preamble, ["before"]);
        assert_eq!(ktap.subtests[1].diagnosis, ["# status 1 of: false", "last"]);
        assert_eq!(ktap.last_words(1), ["last"]);
    }
}
