// SPDX-License-Identifier: GPL-2.0

//! Tests that are known to fail now and then, for a reason that is not the driver's: tests/flaky.toml. Their failures are counted
//! as skipped, up to a limit. Nothing is tried again.

use crate::results::{Outcome, Results, TestResult};
use crate::scheduler::locked;
use crate::selftest::Selftest;
use anyhow::{Context, Result, ensure};
use glob::Pattern;
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// Path of the list from the root of the checkout.
const LIST: &str = "tests/flaky.toml";
/// Stands for the boots of guests, which are tried again.
const BOOT: &str = "boot";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// A selftest, a test of a suite (generic/346), or `boot`.
    test: String,
    /// A pattern for the subtests that may fail; without it, the test has none.
    #[serde(default)]
    subtest: Option<String>,
    /// The reason, as a sentence.
    why: String,
    /// The most failures in one run.
    limit: usize,
    #[serde(skip)]
    failures: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    flaky: Vec<Entry>,
}

pub struct Flaky(Mutex<Vec<Entry>>);

impl Entry {
    fn excuses(&self, result: &TestResult) -> bool {
        let mut failed = result.subtests.iter();
        let mut failed = failed.by_ref().filter(|one| one.outcome.is_failure());
        self.test == result.name
            && match &self.subtest {
                None => result.subtests.is_empty(),
                Some(pattern) => {
                    let pattern = Pattern::new(pattern).unwrap_or_default();
                    failed.all(|subtest| pattern.matches(&subtest.name))
                }
            }
    }
}

impl Flaky {
    /// Reads the list. Entries with a pattern for subtests name some of these tests.
    pub fn load(top: &Path, tests: &[Selftest]) -> Result<Self> {
        let text = fs::read_to_string(top.join(LIST)).context(LIST)?;
        Self::parse(&text, tests).context(LIST)
    }

    fn parse(text: &str, tests: &[Selftest]) -> Result<Self> {
        let list: List = toml::from_str(text)?;
        for entry in &list.flaky {
            let test = &entry.test;
            ensure!(!entry.why.trim().is_empty(), "{test}: it does not say why");
            if let Some(pattern) = &entry.subtest {
                Pattern::new(pattern).with_context(|| test.clone())?;
                let known = tests.iter().any(|known| known.name == *test);
                ensure!(known, "{test}: there is no such test");
            }
        }
        Ok(Self(Mutex::new(list.flaky)))
    }

    /// Turns a failure that is known, and still below its limit, into a skipped test.
    pub fn excuse(&self, result: &mut TestResult) {
        if !result.outcome.is_failure() {
            return;
        }
        for entry in locked(&self.0).iter_mut() {
            if entry.excuses(result) {
                entry.failures += 1;
                if entry.failures <= entry.limit {
                    let why = format!("known to be flaky ({LIST}): {}", entry.why);
                    let excused = |outcome: &mut Outcome| {
                        if outcome.is_failure() {
                            *outcome = Outcome::Skipped(why.clone());
                        }
                    };
                    excused(&mut result.outcome);
                    result
                        .subtests
                        .iter_mut()
                        .for_each(|subtest| excused(&mut subtest.outcome));
                }
                return;
            }
        }
    }

    /// Counts boots that were tried again more often than the list allows as a failure.
    pub fn check(&self, results: &mut Results) {
        let again = results.boots_tried_again;
        for entry in locked(&self.0).iter() {
            if entry.test == BOOT && again > entry.limit {
                let why = format!("{again} boots were tried again, more than {}", entry.limit);
                results.group("boots", "Boots of guests");
                results.add(TestResult::new(BOOT, Outcome::Failed(why)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::tests::selftest;

    const LIST: &str = "[[flaky]]\ntest = 'a'\nsubtest = 'b*'\nwhy = 'Slow.'\nlimit = 1\n";

    fn failed(names: &[&str]) -> TestResult {
        let failed = || Outcome::Failed("so".into());
        let mut result = TestResult::new("a", failed());
        result.subtests = names
            .iter()
            .map(|name| TestResult::new(*name, failed()))
            .collect();
        result
    }

    fn parsed(text: &str) -> Result<Flaky> {
        Flaky::parse(text, &[selftest("a", "")])
    }

    #[test]
    fn known_failure_is_skipped_up_to_its_limit() {
        let flaky = parsed(LIST).unwrap();
        let outcome = |names: &[&str]| {
            let mut result = failed(names);
            flaky.excuse(&mut result);
            result.outcome.kind()
        };
        use crate::results::Kind::{Fail, Skip};
        assert_eq!(outcome(&["b1", "c"]), Fail);
        assert_eq!(outcome(&["b1", "b2"]), Skip);
        assert_eq!(outcome(&["b1"]), Fail);
    }

    #[test]
    fn entry_needs_a_test_and_a_reason() {
        assert!(parsed(&LIST.replace("'a'", "'x'")).is_err());
        assert!(parsed(&LIST.replace("Slow.", " ")).is_err());
        assert!(parsed(&LIST.replace("limit = 1", "")).is_err());
    }

    #[test]
    fn boots_are_limited() {
        let text = "[[flaky]]\ntest = 'boot'\nwhy = 'QEMU hangs.'\nlimit = 2\n";
        let flaky = parsed(text).unwrap();
        let mut results = Results::buffered();
        results.boots_tried_again = 2;
        flaky.check(&mut results);
        results.add(TestResult::new("a", Outcome::Passed));
        assert!(results.conclude());
        results.boots_tried_again = 3;
        flaky.check(&mut results);
        assert!(!results.conclude());
    }
}
