// SPDX-License-Identifier: GPL-2.0

//! Compares the two drivers: each test runs under both, in guests of their own, and each subtest's result under one is
//! compared with its result under the other. Results of nd_pmem may have been recorded by an earlier run.
//!
//! A user sees no difference where a subtest passes under both drivers, or where the values that it records are the same
//! (tests/lib/tap.sh). All other differences must be listed in tests/differences.toml. A failure of rust_pmem is always
//! worse.

use crate::differences::{Differences, Verdict, recorded, shown};
use crate::executor::{Executor, WHOLE};
use crate::ktap::duplicates;
use crate::recorded::Recordings;
use crate::results::{Outcome, Results, TestResult};
use crate::scheduler::locked;
use crate::selftest::{self, Selftest};
use anyhow::Result;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::mem;
use std::path::Path;
use std::sync::Mutex;

fn as_text<S: Serializer>(subtest: &Option<TestResult>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(subtest.as_ref()))
}

/// A row of the table: one subtest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub test: String,
    pub subtest: String,
    /// The result under nd_pmem.
    #[serde(serialize_with = "as_text")]
    pub c: Option<TestResult>,
    /// The result under rust_pmem.
    #[serde(serialize_with = "as_text")]
    pub rust: Option<TestResult>,
    pub verdict: Verdict,
    /// The reason, unless they are the same.
    pub why: String,
}

/// The whole comparison.
#[derive(Default, Serialize)]
pub struct Parity {
    /// The kernel's release.
    pub kernel: String,
    /// That of the sources, if it is known.
    pub revision: String,
    /// The rows, in the order of their tests.
    pub rows: Vec<Row>,
    /// The title of each test.
    #[serde(skip)]
    pub abouts: BTreeMap<String, String>,
    /// Entries of the list whose difference did not occur.
    pub unneeded: Vec<String>,
}

/// Compares a test's results: one row for each subtest, or one for the whole test where a driver has none, because the test was
/// skipped or could not be run.
pub fn compare(c: &TestResult, rust: &TestResult, differences: &mut Differences) -> Vec<Row> {
    let [c_parts, rust_parts] = match c.subtests.is_empty() || rust.subtests.is_empty() {
        true => [c, rust].map(|test| {
            let mut whole = TestResult::new(WHOLE, test.outcome.clone());
            whole.lines.push(format!("# {}", test.outcome.reason()));
            vec![whole]
        }),
        false => [c, rust].map(|test| test.subtests.clone()),
    };
    let twice = [&c_parts, &rust_parts]
        .map(|parts| duplicates(parts.iter().map(|part| part.name.as_str())));
    let mut rows: Vec<Row> = Vec::new();
    for subtest in c_parts.iter().chain(&rust_parts).map(|part| &part.name) {
        if rows.iter().any(|row| row.subtest == *subtest) {
            continue;
        }
        let [c, rust_part] = [&c_parts, &rust_parts].map(|parts| find(parts, subtest));
        let (verdict, why) = if twice.iter().any(|names| names.contains(subtest.as_str())) {
            (Verdict::Worse, "two subtests have this name".to_owned())
        } else {
            judge(
                &rust.name,
                subtest,
                c.as_ref(),
                rust_part.as_ref(),
                differences,
            )
        };
        rows.push(Row {
            test: rust.name.clone(),
            subtest: subtest.clone(),
            c,
            rust: rust_part,
            verdict,
            why,
        });
    }
    rows
}

fn find(parts: &[TestResult], name: &str) -> Option<TestResult> {
    match parts.iter().find(|part| part.name == name) {
        // Only failures have this part.
        None if name == WHOLE => Some(TestResult::new(WHOLE, Outcome::Passed)),
        found => found.cloned(),
    }
}

fn judge(
    test: &str,
    subtest: &str,
    c: Option<&TestResult>,
    rust: Option<&TestResult>,
    differences: &mut Differences,
) -> (Verdict, String) {
    use Outcome::{Failed, Passed, Skipped};
    let worse = |why: &str| (Verdict::Worse, why.to_owned());
    match [c, rust].map(|result| result.map(|result| &result.outcome)) {
        [Some(Failed(_)), Some(Failed(_))] => worse("it fails under both"),
        [_, Some(Failed(_))] => worse("it fails"),
        [_, None] => worse("rust_pmem does not have it"),
        [Some(Skipped(one)), Some(Skipped(other))] => {
            let why = match one == other {
                true => one.clone(),
                false => format!("nd_pmem: {one}; rust_pmem: {other}"),
            };
            (Verdict::NotRun, why)
        }
        [Some(Passed), Some(Passed)] if recorded(c) == recorded(rust) => {
            (Verdict::Same, String::new())
        }
        _ => match differences.explain(test, subtest, c, rust) {
            Some(entry) => (entry.verdict, entry.why.clone()),
            None if c.is_none() => worse("nd_pmem does not have it"),
            None => worse("they differ, and differences.toml does not say why"),
        },
    }
}

impl Row {
    /// Returns the row as a result to count.
    fn result(&self) -> TestResult {
        let outcome = match self.verdict {
            Verdict::Same | Verdict::Better | Verdict::Equal => Outcome::Passed,
            Verdict::Worse => Outcome::Failed(self.why.clone()),
            Verdict::NotRun => Outcome::Skipped(self.why.clone()),
        };
        let mut lines = vec![
            format!("nd_pmem:   {}", shown(self.c.as_ref())),
            format!("rust_pmem: {}", shown(self.rust.as_ref())),
        ];
        if outcome.is_failure() {
            lines.push(format!("run alone: make parity TESTS={}", self.test));
        }
        TestResult {
            about: self.why.clone(),
            lines,
            ..TestResult::new(format!("{}: {}", self.test, self.subtest), outcome)
        }
    }
}

/// Counts the rows of each verdict.
pub fn counts<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeMap<Verdict, usize> {
    let mut counts: BTreeMap<_, _> = Verdict::ALL.map(|verdict| (verdict, 0)).into();
    for row in rows {
        *counts.entry(row.verdict).or_default() += 1;
    }
    counts
}

/// Runs tests under both drivers. Several threads may use it.
pub struct Comparison {
    /// For nd_pmem, and for rust_pmem.
    executors: [Executor; 2],
    differences: Mutex<Differences>,
    /// Those of nd_pmem, on the default kernel.
    recordings: Option<Recordings>,
    /// Whether recordings are used, and not only replaced.
    uses_recordings: bool,
    /// The one that every listed difference exists on; others skip some tests and subtests.
    default_kernel: bool,
    parity: Mutex<Parity>,
}

impl Comparison {
    /// Returns a comparison on the default kernel, or on that of this name, that allows these differences and writes logs below
    /// `logs`. The tests get these variables.
    pub fn new(
        differences: Differences,
        logs: &Path,
        kernel: Option<&str>,
        variables: &str,
    ) -> Result<Self> {
        let mut executors =
            ["nd_pmem", "rust_pmem"].map(|driver| Executor::new(driver, logs.join(driver)));
        for executor in &mut executors {
            executor.variables = variables.to_owned();
            if let Some(kernel) = kernel {
                executor.use_kernel(kernel)?;
            }
        }
        Ok(Self {
            executors,
            differences: Mutex::new(differences),
            recordings: None,
            uses_recordings: false,
            default_kernel: kernel.is_none(),
            parity: Mutex::default(),
        })
    }

    /// Returns the executor of rust_pmem.
    pub fn executor(&mut self) -> &mut Executor {
        let [_, executor] = &mut self.executors;
        executor
    }

    /// Makes it take results of nd_pmem from recordings where `uses` and there are some, and record others.
    pub fn record(&mut self, recordings: Recordings, uses: bool) {
        self.recordings = Some(recordings);
        self.uses_recordings = uses;
    }

    /// Returns the recorded results of nd_pmem. Those that are missing are found out now.
    fn c_results(&self, tests: &[Selftest], results: &mut Results) -> Result<Vec<TestResult>> {
        let recordings = self.recordings.as_ref().filter(|_| self.uses_recordings);
        let recorded = |test: &Selftest| match recordings {
            Some(recordings) => recordings.load(test),
            None => Ok(None),
        };
        let recorded: Vec<_> = tests.iter().map(recorded).collect::<Result<_>>()?;
        let missing = tests.iter().zip(&recorded);
        let missing = missing.filter(|(_, recorded)| recorded.is_none());
        let missing: Vec<Selftest> = missing.map(|(test, _)| test.clone()).collect();
        let mut ran = Vec::new();
        if !missing.is_empty() {
            let [executor, _] = &self.executors;
            results.heading(&selftest::title(executor.driver, &missing));
            ran = executor.group(&selftest::guest_tests(&missing)?, results);
        }
        let mut ran = ran.into_iter();
        let results = recorded
            .into_iter()
            .filter_map(|recorded| recorded.or_else(|| ran.next()));
        Ok(results.collect())
    }

    /// Runs tests of the same machine, and counts the rows.
    pub fn group(&self, tests: &[Selftest], results: &mut Results) -> Result<()> {
        results.group("parity", "Both drivers, side by side");
        let c = self.c_results(tests, results)?;
        let [_, executor] = &self.executors;
        results.heading(&selftest::title(executor.driver, tests));
        let rust = executor.group(&selftest::guest_tests(tests)?, results);
        let mut rows = Vec::new();
        let mut unneeded = Vec::new();
        for ((test, c), rust) in tests.iter().zip(&c).zip(&rust) {
            let mut differences = locked(&self.differences);
            let compared = compare(c, rust, &mut differences);
            // What fails under nd_pmem without a reason would fail each comparison.
            let failed = |row: &Row| {
                let failed = |result: &TestResult| result.outcome.is_failure();
                row.verdict == Verdict::Worse && row.c.as_ref().is_none_or(failed)
            };
            let records = test.compare && !compared.iter().any(failed);
            if let Some(recordings) = self.recordings.as_ref().filter(|_| records) {
                recordings.save(test, c)?;
            }
            rows.extend(compared);
            let entries = differences
                .unneeded(&rust.name)
                .filter(|_| self.default_kernel);
            unneeded.extend(entries.map(|entry| format!("{}: {entry}", rust.name)));
        }
        let found = counts(&rows).into_iter();
        let found = found.filter(|(_, count)| *count > 0);
        let found: Vec<_> = found
            .map(|(verdict, count)| format!("{count} {verdict}"))
            .collect();
        results.heading("Side by side");
        results.note(&found.join(", "));
        for row in &rows {
            match row.verdict {
                Verdict::Worse => results.add(row.result()),
                _ => results.count(row.result()),
            }
        }
        for entry in &unneeded {
            let outcome = Outcome::Failed(format!("this did not occur: {entry}"));
            results.add(TestResult::new("differences.toml", outcome));
        }
        let mut parity = locked(&self.parity);
        parity.rows.extend(rows);
        parity.unneeded.extend(unneeded);
        let abouts = tests.iter();
        let abouts = abouts.map(|test| (test.name.clone(), test.about.clone()));
        parity.abouts.extend(abouts);
        Ok(())
    }

    /// Returns the whole comparison, of this revision of the sources.
    pub fn parity(self, revision: &str) -> Parity {
        let mut parity = mem::take(&mut *locked(&self.parity));
        parity.revision = revision.to_owned();
        parity.kernel = self.executors[1].kernel.get().cloned().unwrap_or_default();
        parity.rows.sort_by(|a, b| a.test.cmp(&b.test));
        parity.unneeded.sort();
        parity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{fail, staged};
    use crate::ktap::{End, Ktap};
    use crate::selftest::tests::selftest;

    /// Returns a test whose stages printed this. Each but the last ended by a power cut.
    fn ran(stages: &[&str]) -> TestResult {
        let mut test = TestResult::new("sysfs-disk", Outcome::Passed);
        for (stage, text) in (1..).zip(stages) {
            let ktap = Ktap::parse(&text.replace('/', "\n"));
            let end = match stage as usize == stages.len() {
                true => End::Exited(0),
                false => End::CutOff,
            };
            test.outcome = ktap.outcome(end);
            test.subtests.extend(staged(ktap.subtests, stage));
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
        Differences::parse(&text, &[selftest("sysfs-disk", "")]).unwrap()
    }

    /// Returns the name, verdict and reason of each row.
    fn rows(
        c: &TestResult,
        rust: &TestResult,
        list: &mut Differences,
    ) -> Vec<(String, Verdict, String)> {
        let rows = compare(c, rust, list).into_iter();
        rows.map(|row| (row.subtest, row.verdict, row.why))
            .collect()
    }

    #[test]
    fn subtest_has_the_verdict_of_its_results() {
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
            // Something else passes: a test that skips all its subtests has one row.
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
    fn subtest_of_one_driver_is_worse_unless_listed() {
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
    fn duplicate_name_is_worse() {
        let [one, two] = ["1..1/ok 1 a", "1..2/ok 1 a/ok 2 a"].map(|text| ran(&[text]));
        for (c, rust) in [(&one, &two), (&two, &one), (&two, &two)] {
            let found = rows(c, rust, &mut list(&[]));
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].1, Verdict::Worse);
            assert_eq!(found[0].2, "two subtests have this name");
        }
    }

    #[test]
    fn skipped_test_is_one_row() {
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
    fn test_that_could_not_be_run_is_a_row() {
        let broken = TestResult::new("sysfs-disk", Outcome::Failed("no room".into()));
        let passed = ran(&["1..1/ok 1 a"]);
        for (c, rust, why) in [
            (&broken, &broken, "it fails under both"),
            (&passed, &broken, "it fails"),
        ] {
            let found = rows(c, rust, &mut list(&[]));
            assert_eq!(found, [(WHOLE.into(), Verdict::Worse, why.into())]);
        }
        assert_eq!(rows(&broken, &passed, &mut list(&[]))[0].1, Verdict::Worse);
    }

    #[test]
    fn failure_of_the_whole_test_is_a_row() {
        let passed = ran(&["1..1/ok 1 a"]);
        let mut broken = ran(&["1..1/ok 1 a"]);
        fail(&mut broken, Outcome::Failed("the machine was lost".into()));
        let mut listed = list(&[[WHOLE, "fail: the machine*", "pass", "better"]]);
        let found = rows(&broken, &passed, &mut listed);
        assert_eq!(
            found[1],
            (WHOLE.into(), Verdict::Better, "So it is.".into())
        );
        // No pattern for subtests means it.
        let found = rows(&broken, &passed, &mut list(&[["*", "fail", "*", "better"]]));
        assert_eq!(found[1].1, Verdict::Worse);
        let found = rows(&passed, &broken, &mut list(&[["*", "*", "*", "equal"]]));
        assert_eq!(found[1], (WHOLE.into(), Verdict::Worse, "it fails".into()));
    }

    #[test]
    fn later_stages_have_rows_of_their_own() {
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
