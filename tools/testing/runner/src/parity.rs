// SPDX-License-Identifier: GPL-2.0

//! The two drivers side by side: each test runs under both, in machines of its own, and what each
//! subtest showed under the one is held against what it showed under the other.
//!
//! What counts is what a user would see, so a subtest that the tests of both drivers pass is the
//! same; one that `seen` or `answers` made (tests/lib.sh) is the same where its text is. The rest
//! must stand in tests/differences.toml. Nothing excuses a failure of rust_pmem.

use crate::differences::Differences;
use crate::ktap::{Outcome, twice};
use crate::queue::locked;
use crate::selftest::{self, Runner, Selftest, WHOLE};
use crate::tally::{Detail, Tally, Test};
use anyhow::Result;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::path::Path;
use std::sync::Mutex;

/// What a subtest showed under one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// It passed.
    Passed,
    /// It saw this text.
    Seen(String),
    /// It failed, and said this.
    Failed(String),
    /// It does not apply, and why.
    Skipped(String),
    /// It is not there.
    Missing,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Passed => f.write_str("pass"),
            Shown::Seen(text) => f.write_str(text),
            Shown::Failed(said) if said.is_empty() => f.write_str("fail"),
            Shown::Failed(said) => write!(f, "fail: {said}"),
            Shown::Skipped(reason) => write!(f, "skip: {reason}"),
            Shown::Missing => f.write_str("not there"),
        }
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Shown {
    fn new(outcome: &Outcome, text: &str) -> Self {
        const SEEN: &str = "# seen: ";
        let joined = |prefix| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
            lines.collect::<Vec<&str>>().join("; ")
        };
        match outcome {
            Outcome::Passed if text.starts_with(SEEN) => Shown::Seen(joined(SEEN)),
            Outcome::Passed => Shown::Passed,
            Outcome::Failed(_) => Shown::Failed(joined("# ")),
            Outcome::Skipped(reason) => Shown::Skipped(reason.clone()),
        }
    }

    /// What a whole test came to.
    fn whole(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Failed(reason) => Shown::Failed(reason.clone()),
            other => Shown::new(other, ""),
        }
    }
}

/// What a subtest of the two drivers comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nobody sees a difference.
    Same,
    /// They differ, and ours is the better answer.
    Better,
    /// They differ, and neither is the better answer.
    Equal,
    /// They differ in a way that nobody has given a reason for, or ours failed.
    Worse,
    /// Neither could be tried here.
    #[serde(rename = "not run")]
    NotRun,
}

impl Verdict {
    /// Each, in the order of the table.
    pub const ALL: [Self; 5] = [
        Self::Same,
        Self::Better,
        Self::Equal,
        Self::Worse,
        Self::NotRun,
    ];
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Same => "same",
            Verdict::Better => "better",
            Verdict::Equal => "equal",
            Verdict::Worse => "worse",
            Verdict::NotRun => "not run",
        })
    }
}

/// A row of the table: one subtest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The test's name.
    pub test: String,
    /// The subtest's.
    pub subtest: String,
    /// What it showed under nd_pmem.
    pub c: Shown,
    /// What it showed under rust_pmem.
    pub rust: Shown,
    /// What to think of it.
    pub verdict: Verdict,
    /// The reason, where they are not the same.
    pub why: String,
}

/// All that was compared.
#[derive(Default, Serialize)]
pub struct Parity {
    /// The kernel's release.
    pub kernel: String,
    /// The rows, in the order of their tests.
    pub rows: Vec<Row>,
    /// What each test is about.
    #[serde(skip)]
    pub abouts: BTreeMap<String, String>,
    /// Entries of the list that did not occur.
    pub unneeded: Vec<String>,
}

/// The parts of a test: what each showed, by name, in order.
fn parts(test: &Test) -> Vec<(&str, Shown)> {
    let part = |detail: &Detail| match detail.name.as_str() {
        WHOLE => Shown::whole(&detail.outcome),
        _ => Shown::new(&detail.outcome, &detail.text),
    };
    let details = test.details.iter();
    details
        .map(|detail| (detail.name.as_str(), part(detail)))
        .collect()
}

/// The rows of a test.
pub fn compare(c: &Test, rust: &Test, differences: &mut Differences) -> Vec<Row> {
    let skipped =
        |test: &Test| matches!(test.outcome, Outcome::Skipped(_)) && test.details.is_empty();
    let (c_parts, rust_parts) = if skipped(c) || skipped(rust) {
        (
            vec![(WHOLE, Shown::whole(&c.outcome))],
            vec![(WHOLE, Shown::whole(&rust.outcome))],
        )
    } else {
        (parts(c), parts(rust))
    };
    let [c_twice, rust_twice] =
        [&c_parts, &rust_parts].map(|parts| twice(parts.iter().map(|(name, _)| *name)));
    let mut rows: Vec<Row> = Vec::new();
    for &(subtest, _) in c_parts.iter().chain(&rust_parts) {
        if rows.iter().any(|row| row.subtest == subtest) {
            continue;
        }
        let c_shown = find(&c_parts, subtest);
        let rust_shown = find(&rust_parts, subtest);
        let (verdict, why) = if c_twice.contains(subtest) || rust_twice.contains(subtest) {
            (Verdict::Worse, "two subtests have this name".to_owned())
        } else {
            judge(&rust.name, subtest, &c_shown, &rust_shown, differences)
        };
        rows.push(Row {
            test: rust.name.clone(),
            subtest: subtest.to_owned(),
            c: c_shown,
            rust: rust_shown,
            verdict,
            why,
        });
    }
    rows
}

/// What the part of this name showed.
fn find(parts: &[(&str, Shown)], name: &str) -> Shown {
    match parts.iter().find(|(other, _)| *other == name) {
        Some((_, shown)) => shown.clone(),
        // Said of failures alone.
        None if name == WHOLE => Shown::Passed,
        None => Shown::Missing,
    }
}

fn judge(
    test: &str,
    subtest: &str,
    c: &Shown,
    rust: &Shown,
    differences: &mut Differences,
) -> (Verdict, String) {
    let worse = |why: &str| (Verdict::Worse, why.to_owned());
    match (c, rust) {
        (Shown::Failed(_), Shown::Failed(_)) => worse("it fails under both"),
        (_, Shown::Failed(_)) => worse("it fails"),
        (_, Shown::Missing) => worse("rust_pmem does not have it"),
        (Shown::Skipped(one), Shown::Skipped(other)) => {
            let why = match one == other {
                true => one.clone(),
                false => format!("nd_pmem: {one}; rust_pmem: {other}"),
            };
            (Verdict::NotRun, why)
        }
        (c, rust) if c == rust => (Verdict::Same, String::new()),
        (c, rust) => match differences.explain(test, subtest, c, rust) {
            Some(entry) => (entry.verdict, entry.why.clone()),
            None if *c == Shown::Missing => worse("nd_pmem does not have it"),
            None => worse("they differ, and differences.toml does not say why"),
        },
    }
}

impl Row {
    /// As a result to count.
    fn result(&self) -> Test {
        let outcome = match self.verdict {
            Verdict::Same | Verdict::Better | Verdict::Equal => Outcome::Passed,
            Verdict::Worse => Outcome::Failed(self.why.clone()),
            Verdict::NotRun => Outcome::Skipped(self.why.clone()),
        };
        Test {
            about: self.why.clone(),
            words: vec![
                format!("nd_pmem:   {}", self.c),
                format!("rust_pmem: {}", self.rust),
            ],
            ..Test::new(format!("{}: {}", self.test, self.subtest), outcome)
        }
    }
}

/// How many rows have each verdict.
pub fn counts<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeMap<Verdict, usize> {
    let mut counts: BTreeMap<_, _> = Verdict::ALL.map(|verdict| (verdict, 0)).into();
    for row in rows {
        *counts.entry(row.verdict).or_default() += 1;
    }
    counts
}

/// Runs tests under both drivers, several groups at once if need be.
pub struct Comparison {
    /// Of nd_pmem, and of rust_pmem.
    runners: [Runner; 2],
    differences: Mutex<Differences>,
    parity: Mutex<Parity>,
}

impl Comparison {
    /// Will allow these differences and write logs below `logs`.
    pub fn new(differences: Differences, logs: &Path) -> Self {
        Self {
            runners: ["nd_pmem", "rust_pmem"].map(|driver| Runner::new(driver, logs.join(driver))),
            differences: Mutex::new(differences),
            parity: Mutex::default(),
        }
    }

    /// Runs tests that want the same machine, and counts the rows.
    pub fn group(&self, tests: &[Selftest], tally: &mut Tally) -> Result<()> {
        tally.group("parity", "Both drivers, side by side");
        let [c, rust] = self.runners.each_ref().map(|runner| {
            tally.heading(&selftest::title(runner.driver, tests));
            runner.group(tests, tally)
        });
        let mut rows = Vec::new();
        let mut unneeded = Vec::new();
        for (c, rust) in c?.iter().zip(&rust?) {
            let mut differences = locked(&self.differences);
            rows.extend(compare(c, rust, &mut differences));
            let entries = differences.unneeded(&rust.name);
            unneeded.extend(entries.map(|entry| format!("{}: {entry}", rust.name)));
        }
        let found = counts(&rows).into_iter();
        let found = found.filter(|(_, count)| *count > 0);
        let found: Vec<_> = found
            .map(|(verdict, count)| format!("{count} {verdict}"))
            .collect();
        tally.heading("Side by side");
        tally.note(&found.join(", "));
        for row in &rows {
            match row.verdict {
                Verdict::Worse => tally.add(row.result()),
                _ => tally.count(row.result()),
            }
        }
        for entry in &unneeded {
            let outcome = Outcome::Failed(format!("this did not occur: {entry}"));
            tally.add(Test::new("differences.toml", outcome));
        }
        let mut parity = locked(&self.parity);
        parity.rows.extend(rows);
        parity.unneeded.extend(unneeded);
        let abouts = tests.iter();
        let abouts = abouts.map(|test| (test.name.clone(), test.about.clone()));
        parity.abouts.extend(abouts);
        Ok(())
    }

    /// All that was compared.
    pub fn parity(self) -> Parity {
        let mut parity = mem::take(&mut *locked(&self.parity));
        parity.kernel = self.runners[1].kernel.get().cloned().unwrap_or_default();
        parity.rows.sort_by(|a, b| a.test.cmp(&b.test));
        parity.unneeded.sort();
        parity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ktap::{End, Ktap};
    use std::path::Path;

    /// A test whose stages printed this. Each but the last ended by a power cut.
    fn ran(stages: &[&str]) -> Test {
        let mut test = Test::new("sysfs-disk", Outcome::Passed);
        for (stage, text) in (1..).zip(stages) {
            let ktap = Ktap::parse(&text.replace('/', "\n"));
            test.details.extend(selftest::details(&ktap, stage));
            let end = match stage as usize == stages.len() {
                true => End::Exited(0),
                false => End::CutOff,
            };
            test.outcome = ktap.verdict(end);
        }
        test
    }

    fn list(entries: &[[&str; 4]]) -> Differences {
        let mut text = String::new();
        for [subtest, c, rust, verdict] in entries {
            text += &format!(
                "[[difference]]\ntest = 'sysfs-disk'\nsubtest = '{subtest}'\nnd_pmem = '{c}'\n\
                 rust_pmem = '{rust}'\nverdict = '{verdict}'\nwhy = 'So it is.'\n"
            );
        }
        let script = Path::new("tests/sysfs-disk.sh");
        Differences::parse(&text, &[Selftest::parse(script, "").unwrap()]).unwrap()
    }

    /// Name, verdict and reason of each row.
    fn rows(c: &Test, rust: &Test, list: &mut Differences) -> Vec<(String, Verdict, String)> {
        let rows = compare(c, rust, list).into_iter();
        rows.map(|row| (row.subtest, row.verdict, row.why))
            .collect()
    }

    #[test]
    fn verdicts_of_one_subtest() {
        use Verdict::*;
        const LISTED: &str = "they differ, and differences.toml does not say why";
        for (c, rust, entry, verdict, why) in [
            ("ok 1 a", "ok 1 a", None, Same, ""),
            (
                "ok 1 a/# seen: 0",
                "ok 1 a/# seen: 0/# more",
                None,
                Same,
                "",
            ),
            ("ok 1 a/# seen: 0", "ok 1 a/# seen: 1", None, Worse, LISTED),
            (
                "ok 1 a/# seen: 0",
                "ok 1 a/# seen: 0/# seen: 1",
                None,
                Worse,
                LISTED,
            ),
            (
                "ok 1 a/# seen: 0",
                "ok 1 a/# seen: 1",
                Some(["a", "0", "1", "equal"]),
                Equal,
                "So it is.",
            ),
            (
                "ok 1 a/# seen: 0",
                "ok 1 a/# seen: 1",
                Some(["a", "1", "0", "equal"]),
                Worse,
                LISTED,
            ),
            (
                "ok 1 a/# seen: 0/# seen: 1",
                "ok 1 a/# seen: 2",
                Some(["a", "0; 1", "*", "better"]),
                Better,
                "So it is.",
            ),
            (
                "not ok 1 a/# status 1 of: false",
                "ok 1 a",
                None,
                Worse,
                LISTED,
            ),
            (
                "not ok 1 a/# status 1 of: false",
                "ok 1 a",
                Some(["*", "fail", "pass", "better"]),
                Better,
                "So it is.",
            ),
            (
                "ok 1 a",
                "not ok 1 a",
                Some(["*", "pass", "fail", "equal"]),
                Worse,
                "it fails",
            ),
            (
                "not ok 1 a",
                "not ok 1 a",
                Some(["*", "fail", "fail", "equal"]),
                Worse,
                "it fails under both",
            ),
            (
                "ok 1 a # SKIP no disk",
                "ok 1 a # SKIP no disk",
                None,
                NotRun,
                "no disk",
            ),
            (
                "ok 1 a # SKIP no disk",
                "ok 1 a # SKIP no",
                None,
                NotRun,
                "nd_pmem: no disk; rust_pmem: no",
            ),
            ("ok 1 a # SKIP C oopses", "ok 1 a", None, Worse, LISTED),
            (
                "ok 1 a # SKIP C oopses",
                "ok 1 a",
                Some(["a", "skip: C oopses*", "pass", "better"]),
                Better,
                "So it is.",
            ),
        ] {
            // Something else passes, as a test of which all is skipped is another thing.
            let [c_test, rust_test] = [c, rust].map(|text| ran(&[&format!("1..2/{text}/ok 2 b")]));
            let found = rows(&c_test, &rust_test, &mut list(entry.as_slice()));
            assert_eq!(
                found[0],
                ("a".into(), verdict, why.into()),
                "{c}, {rust}, {entry:?}"
            );
            assert_eq!(found[1..], [("b".into(), Same, String::new())]);
        }
    }

    #[test]
    fn a_subtest_of_one_driver_alone() {
        let [one, two] = ["1..1/ok 1 a", "1..2/ok 1 a/ok 2 b"].map(|text| ran(&[text]));
        let found = rows(&two, &one, &mut list(&[["*", "*", "*", "equal"]]));
        assert_eq!(found[1].1, Verdict::Worse);
        assert_eq!(found[1].2, "rust_pmem does not have it");
        let found = rows(&one, &two, &mut list(&[]));
        assert_eq!(found[1].1, Verdict::Worse);
        assert_eq!(found[1].2, "nd_pmem does not have it");
        let mut ours = list(&[["b", "not there", "pass", "better"]]);
        assert_eq!(rows(&one, &two, &mut ours)[1].1, Verdict::Better);
    }

    #[test]
    fn two_subtests_of_one_name() {
        let [one, two] = ["1..1/ok 1 a", "1..2/ok 1 a/ok 2 a"].map(|text| ran(&[text]));
        for (c, rust) in [(&one, &two), (&two, &one), (&two, &two)] {
            let found = rows(c, rust, &mut list(&[]));
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].1, Verdict::Worse);
            assert_eq!(found[0].2, "two subtests have this name");
        }
    }

    #[test]
    fn a_test_that_is_skipped_is_one_row() {
        let skipped = ran(&["1..0 # SKIP no disk"]);
        let passed = ran(&["1..2/ok 1 a/ok 2 b"]);
        let found = rows(&skipped, &skipped, &mut list(&[]));
        assert_eq!(found, [(WHOLE.into(), Verdict::NotRun, "no disk".into())]);
        let mut better = list(&[["*", "skip: no disk", "pass", "better"]]);
        let found = rows(&skipped, &passed, &mut better);
        assert_eq!(found, [(WHOLE.into(), Verdict::Better, "So it is.".into())]);
        let found = rows(&passed, &skipped, &mut better);
        assert_eq!(found[0].1, Verdict::Worse);
        let failed = ran(&["1..2/ok 1 a/not ok 2 b"]);
        assert_eq!(rows(&skipped, &failed, &mut better)[0].2, "it fails");
    }

    #[test]
    fn a_test_that_breaks() {
        let passed = ran(&["1..1/ok 1 a"]);
        let mut broken = ran(&["1..1/ok 1 a"]);
        selftest::fail(&mut broken, Outcome::Failed("the machine was lost".into()));
        let mut listed = list(&[["*whole", "fail: the machine*", "pass", "better"]]);
        let found = rows(&broken, &passed, &mut listed);
        assert_eq!(
            found[1],
            (WHOLE.into(), Verdict::Better, "So it is.".into())
        );
        let found = rows(&broken, &passed, &mut list(&[]));
        assert_eq!(found[1].1, Verdict::Worse);
        let found = rows(&passed, &broken, &mut list(&[["*", "*", "*", "equal"]]));
        assert_eq!(found[1], (WHOLE.into(), Verdict::Worse, "it fails".into()));
    }

    #[test]
    fn a_power_cut_and_what_is_after_it() {
        let c = ran(&["1..1/ok 1 a", "1..1/ok 1 a/# seen: old"]);
        let rust = ran(&["1..1/ok 1 a", "1..1/ok 1 a/# seen: new"]);
        let mut listed = list(&[["stage 2: a", "old", "new", "better"]]);
        let found = rows(&c, &rust, &mut listed);
        assert_eq!(found[0], ("a".into(), Verdict::Same, String::new()));
        assert_eq!(
            found[1],
            ("stage 2: a".into(), Verdict::Better, "So it is.".into())
        );
        assert_eq!(listed.unneeded("sysfs-disk").count(), 0);
    }
}
