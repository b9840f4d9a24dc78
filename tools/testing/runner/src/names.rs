// SPDX-License-Identifier: GPL-2.0

//! The names of the subtests of the last release, which no later one may lose in silence: tests/names-0.1.0.tsv.
//!
//! Each line has a test, a subtest (`*` stands for all of a test that only runs by its name), and what became of it: nothing (it is kept), `in TEST` (a test of this name has it), `by TEST:
//! SUBTEST` (that one covers it), or `gone: REASON`.

use crate::results::{Outcome, TestResult};
use crate::selftest::Selftest;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Path of the list from the root of the checkout.
const LIST: &str = "tests/names-0.1.0.tsv";

/// The tests that ran, with their seconds and the names of their subtests.
type Ran = BTreeMap<String, (u64, Vec<String>)>;

/// Returns what a line claims to be there: a test and a subtest. `None` if its subtest is gone.
fn claim(line: &str) -> Result<Option<(&str, &str)>> {
    let parts: Vec<&str> = line.split('\t').collect();
    Ok(match parts[..] {
        [test, subtest] => Some((test, subtest)),
        [_, subtest, now] => match (now.strip_prefix("in "), now.strip_prefix("by ")) {
            (Some(test), _) => Some((test, subtest)),
            (_, Some(by)) => Some(by.split_once(": ").context(line.to_owned())?),
            _ if now
                .strip_prefix("gone: ")
                .is_some_and(|why| !why.is_empty()) =>
            {
                None
            }
            _ => bail!("{line}: `in TEST`, `by TEST: SUBTEST` or `gone: REASON`"),
        },
        _ => bail!("{line}: two or three parts"),
    })
}

/// Checks that each old name is in the results of this run, or has an entry that says what became of it. Tests that only run by
/// their name are not asked for.
pub fn lint(top: &Path, tests: &[Selftest], ran: &Ran) -> Result<TestResult> {
    let text = fs::read_to_string(top.join(LIST)).context(LIST)?;
    let lines = missing(&text, tests, ran).context(LIST)?;
    let count = text.lines().filter(|line| !line.starts_with('#')).count();
    let outcome = match lines.len() {
        0 => Outcome::Passed,
        missing => Outcome::Failed(format!(
            "{missing} names are lost: say in {LIST} what covers them"
        )),
    };
    Ok(TestResult {
        about: format!("each of {count} subtests of 0.1.0 is there, or covered"),
        lines: lines.into_iter().take(20).collect(),
        ..TestResult::new("names", outcome)
    })
}

fn missing(text: &str, tests: &[Selftest], ran: &Ran) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((test, subtest)) = claim(line)? else {
            continue;
        };
        // All of a test that only runs by its name.
        let is_there = subtest == "*" && tests.iter().any(|known| known.name == test)
            || match (ran.get(test), tests.iter().find(|known| known.name == test)) {
                (Some((_, subtests)), _) => subtests.iter().any(|name| name == subtest),
                (None, Some(known)) => !known.is_checked(),
                (None, None) => false,
            };
        if !is_there {
            missing.push(line.replace('\t', ": "));
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::tests::selftest;

    #[test]
    fn old_name_is_there_or_covered_or_gone_with_a_reason() {
        let tests = [selftest("a", ""), selftest("s", "# soak")];
        let ran: Ran = [(
            "a".to_owned(),
            (1, vec!["one".to_owned(), "two".to_owned()]),
        )]
        .into();
        let missing = |line: &str| missing(line, &tests, &ran).map(|lines| lines.len());
        for (line, count) in [
            ("a\tone", 0),
            ("a\tthree", 1),
            ("b\ttwo\tin a", 0),
            ("b\tthree\tin a", 1),
            ("b\tx\tby a: two", 0),
            ("b\tx\tby a: x", 1),
            ("b\tx", 1),
            ("b\tx\tgone: the command is gone", 0),
            ("s\tx", 0),
            ("s\t*", 0),
            ("t\t*", 1),
            ("# b\tx", 0),
        ] {
            assert_eq!(missing(line).unwrap(), count, "{line}");
        }
        for line in ["a", "a\tb\tc", "a\tb\tgone: ", "a\tb\tby a"] {
            assert!(missing(line).is_err(), "{line}");
        }
    }
}
