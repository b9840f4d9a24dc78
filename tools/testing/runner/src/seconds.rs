// SPDX-License-Identifier: GPL-2.0

//! How long each selftest takes: tests/seconds.toml, which `make check` rewrites. Jobs are ordered by it, and it limits the
//! quick tier.

use crate::results::{Outcome, TestResult};
use crate::selftest::Selftest;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Path of the file from the root of the checkout.
const FILE: &str = "tests/seconds.toml";
/// The most seconds of all quick tests together. Three of them run at once on two processors, so that they end in some four
/// minutes.
pub const QUICK: u64 = 660;

const HEADER: &str = "\
# SPDX-License-Identifier: GPL-2.0
#
# Seconds of each selftest in the last `make check`, which rewrites this file where they have changed by half. Three tests ran at
# once on two processors, without KVM.
";

#[derive(Default, Deserialize)]
#[serde(transparent)]
pub struct Seconds(BTreeMap<String, u64>);

impl FromIterator<(String, u64)> for Seconds {
    fn from_iter<T: IntoIterator<Item = (String, u64)>>(entries: T) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Seconds {
    pub fn load(top: &Path) -> Result<Self> {
        let text = fs::read_to_string(top.join(FILE)).context(FILE)?;
        toml::from_str(&text).context(FILE)
    }

    /// Returns how long these tests take, in seconds. A new one takes a small part of its time-out.
    pub fn of<'a>(&self, tests: impl IntoIterator<Item = &'a Selftest>) -> u64 {
        let seconds = |test: &Selftest| match self.0.get(&test.name) {
            Some(seconds) => *seconds,
            None => test.timeout.as_secs() / 12,
        };
        tests.into_iter().map(seconds).sum()
    }

    /// Takes the times of a run of all tests. A time that has changed by less than half stays, as do those of tests that have
    /// not run.
    fn update(&mut self, tests: &[Selftest], ran: &BTreeMap<String, u64>) {
        self.0
            .retain(|name, _| tests.iter().any(|test| test.name == *name));
        for test in tests.iter().filter(|test| test.is_checked()) {
            let Some(&now) = ran.get(&test.name) else {
                continue;
            };
            let now = now.max(1);
            let before = self.0.entry(test.name.clone()).or_insert(now);
            if before.abs_diff(now) > (*before / 2).max(2) {
                *before = now;
            }
        }
    }

    /// Writes the file anew with the times of this run, if that changes it.
    pub fn rewrite(
        mut self,
        top: &Path,
        tests: &[Selftest],
        ran: &BTreeMap<String, u64>,
    ) -> Result<()> {
        self.update(tests, ran);
        let mut text = format!("{HEADER}\n");
        for (name, seconds) in &self.0 {
            let _ = writeln!(text, "{name} = {seconds}");
        }
        let path = top.join(FILE);
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            let new = path.with_extension("toml.new");
            fs::write(&new, text).with_context(|| new.display().to_string())?;
            fs::rename(&new, &path).context(FILE)?;
        }
        Ok(())
    }

    /// Checks that the file has each test, and that the quick tier is quick.
    pub fn lint(&self, tests: &[Selftest]) -> TestResult {
        let checked = || tests.iter().filter(|test| test.is_checked());
        let missing = checked().filter(|test| !self.0.contains_key(&test.name));
        let mut lines: Vec<String> = missing
            .map(|test| format!("{}: {FILE} has no time; `make check` writes it", test.name))
            .collect();
        let quick = self.of(checked().filter(|test| test.quick));
        if quick > QUICK {
            lines.push(format!(
                "the tests with `# quick` take {quick} s, more than {QUICK} s: remove the tag from some"
            ));
        }
        let outcome = match lines.is_empty() {
            true => Outcome::Passed,
            false => Outcome::Failed(format!("{} problems", lines.len())),
        };
        TestResult {
            about: format!("the quick tests take {quick} of {QUICK} s, and each test has its time"),
            lines,
            ..TestResult::new("seconds", outcome)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::tests::selftest;

    fn seconds(entries: &[(&str, u64)]) -> Seconds {
        let entries = entries.iter();
        Seconds::from_iter(entries.map(|(name, seconds)| ((*name).to_owned(), *seconds)))
    }

    #[test]
    fn only_larger_changes_are_taken() {
        let tests = ["same", "slower", "new", "absent"].map(|name| selftest(name, ""));
        let mut known = seconds(&[("same", 10), ("slower", 10), ("absent", 7), ("gone", 3)]);
        let ran = [("same", 14), ("slower", 16), ("new", 0)];
        let ran = ran.map(|(name, seconds)| (name.to_owned(), seconds)).into();
        known.update(&tests, &ran);
        let wanted = seconds(&[("same", 10), ("slower", 16), ("new", 1), ("absent", 7)]);
        assert_eq!(known.0, wanted.0);
    }

    #[test]
    fn slow_tier_and_missing_test_are_found() {
        let tests = [
            selftest("a", "# quick"),
            selftest("b", ""),
            selftest("c", "# soak"),
        ];
        let lines = |known: &[(&str, u64)]| seconds(known).lint(&tests).lines;
        assert!(lines(&[("a", QUICK), ("b", 900)]).is_empty());
        assert!(lines(&[("a", QUICK + 1), ("b", 1)])[0].contains("more than"));
        assert!(lines(&[("a", 1)])[0].starts_with("b: "));
    }
}
