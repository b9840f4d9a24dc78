// SPDX-License-Identifier: GPL-2.0

//! Reads tests/differences.toml, the list of what may differ between the two drivers, and why.

use crate::executor::WHOLE;
use crate::results::{Outcome, TestResult};
use crate::selftest::Selftest;
use anyhow::{Context, Result, ensure};
use glob::{Pattern, PatternError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::Path;

/// Begins the lines of a subtest that hold a recorded value.
const RECORDED: &str = "# seen: ";

fn joined(subtest: &TestResult, prefix: &str) -> String {
    let lines = subtest.lines.iter();
    let lines = lines.filter_map(|line| line.strip_prefix(prefix));
    lines.collect::<Vec<&str>>().join("; ")
}

/// Returns the value that a subtest recorded, if it passed and recorded one.
pub fn recorded(subtest: Option<&TestResult>) -> Option<String> {
    let subtest = subtest?;
    let records = subtest.lines.first()?.starts_with(RECORDED);
    (records && subtest.outcome == Outcome::Passed).then(|| joined(subtest, RECORDED))
}

/// Describes the result of a subtest under a driver; `None` if that driver's test does not have it.
pub fn shown(subtest: Option<&TestResult>) -> String {
    let Some(result) = subtest else {
        return "not there".to_owned();
    };
    match &result.outcome {
        Outcome::Passed => recorded(subtest).unwrap_or_else(|| "pass".to_owned()),
        Outcome::Failed(_) => match joined(result, "# ").as_str() {
            "" => "fail".to_owned(),
            diagnosis => format!("fail: {diagnosis}"),
        },
        Outcome::Skipped(reason) => format!("skip: {reason}"),
    }
}

/// The result of comparing a subtest under both drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Same,
    /// They differ, and rust_pmem's result is better.
    Better,
    /// They differ, and neither result is better.
    Equal,
    /// They differ without a listed reason, or rust_pmem failed.
    Worse,
    /// Both skipped it.
    #[serde(rename = "not run")]
    NotRun,
}

impl Verdict {
    /// All verdicts, in the order of the table.
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

/// A pattern, as a string of the file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Glob(Pattern);

impl TryFrom<String> for Glob {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Pattern::new(&text).map(Self)
    }
}

impl Glob {
    /// Returns whether it matches the result of a subtest. A failure is matched by the word or by its whole text.
    fn matches(&self, subtest: Option<&TestResult>) -> bool {
        let failed = subtest.is_some_and(|subtest| subtest.outcome.is_failure());
        failed && self.0.matches("fail") || self.0.matches(&shown(subtest))
    }
}

/// An entry of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    test: String,
    subtest: Glob,
    /// The kernels on which the drivers differ so; without it, all.
    kernel: Option<Glob>,
    nd_pmem: Glob,
    rust_pmem: Glob,
    /// Better or equal.
    pub verdict: Verdict,
    /// The reason, as a sentence.
    pub why: String,
    /// Whether the difference occurred.
    #[serde(skip)]
    occurred: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    #[serde(default, rename = "difference")]
    entries: Vec<Difference>,
}

impl Differences {
    /// Reads the list. Its entries name some of these tests.
    pub fn load(path: &Path, tests: &[Selftest]) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text, tests).with_context(|| path.display().to_string())
    }

    /// Parses the list.
    pub fn parse(text: &str, tests: &[Selftest]) -> Result<Self> {
        let list: Self = toml::from_str(text)?;
        for Difference {
            test,
            subtest,
            verdict,
            why,
            ..
        } in &list.entries
        {
            let entry = format!("{test}, \"{}\"", subtest.0);
            ensure!(
                tests.iter().any(|known| known.name == *test),
                "{entry}: there is no such test"
            );
            ensure!(
                matches!(verdict, Verdict::Better | Verdict::Equal),
                "{entry}: the verdict must be \"better\" or \"equal\""
            );
            ensure!(!why.trim().is_empty(), "{entry}: it does not say why");
        }
        Ok(list)
    }

    /// Leaves the entries for the kernel of this name.
    pub fn for_kernel(mut self, name: &str) -> Self {
        self.entries.retain(|entry| {
            let kernel = entry.kernel.as_ref();
            kernel.is_none_or(|kernel| kernel.0.matches(name))
        });
        self
    }

    /// Finds the entry for the results of a subtest under the two drivers.
    pub fn explain(
        &mut self,
        test: &str,
        subtest: &str,
        c: Option<&TestResult>,
        rust: Option<&TestResult>,
    ) -> Option<&Difference> {
        let mut first = None;
        // A report of the kernel, a lost guest: no pattern for subtests means that as well.
        let literally = subtest == WHOLE && c.is_some_and(|c| c.outcome.is_failure());
        for entry in &mut self.entries {
            let name = &entry.subtest.0;
            if entry.test == test
                && name.matches(subtest)
                && (!literally || name.as_str() == WHOLE)
                && entry.nd_pmem.matches(c)
                && entry.rust_pmem.matches(rust)
            {
                entry.occurred = true;
                first = first.or(Some(&*entry));
            }
        }
        first
    }

    /// Returns the entries of a test whose difference did not occur.
    pub fn unneeded(&self, test: &str) -> impl Iterator<Item = String> {
        self.entries
            .iter()
            .filter(move |entry| entry.test == test && !entry.occurred)
            .map(|entry| {
                format!(
                    "\"{}\" with {} under nd_pmem and {} under rust_pmem",
                    entry.subtest.0, entry.nd_pmem.0, entry.rust_pmem.0
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Outcome;
    use crate::selftest::tests::selftest;

    const ENTRY: &str = r#"
[[difference]]
test = "sysfs-disk"
subtest = "its *"
nd_pmem = "0"
rust_pmem = "1"
verdict = "better"
why = "It is."
"#;

    fn parsed(text: &str) -> Result<Differences> {
        Differences::parse(text, &[selftest("sysfs-disk", "")])
    }

    #[test]
    fn entry_explains_its_difference_only() {
        let result = |value: &str| {
            let mut result = TestResult::new("its size", Outcome::Passed);
            result.lines = vec![format!("# seen: {value}")];
            result
        };
        let (zero, one) = (result("0"), result("1"));
        let mut list = parsed(ENTRY).unwrap();
        assert!(
            list.explain("sysfs-disk", "its size", Some(&one), Some(&zero))
                .is_none()
        );
        assert!(
            list.explain("sysfs-disk", "a name", Some(&zero), Some(&one))
                .is_none()
        );
        assert!(
            list.explain("sysfs-labelled-region", "its size", Some(&zero), Some(&one))
                .is_none()
        );
        assert_eq!(list.unneeded("sysfs-disk").count(), 1);
        assert_eq!(list.unneeded("sysfs-labelled-region").count(), 0);
        let found = list.explain("sysfs-disk", "its size", Some(&zero), Some(&one));
        assert_eq!(found.unwrap().why, "It is.");
        assert_eq!(list.unneeded("sysfs-disk").count(), 0);
    }

    #[test]
    fn entry_for_a_kernel_is_for_no_other() {
        let of = |kernel: &str| {
            let text = ENTRY.replace("nd_pmem =", "kernel = \"arm64*\"\nnd_pmem =");
            parsed(&text).unwrap().for_kernel(kernel).entries.len()
        };
        assert_eq!(
            [of("arm64"), of("arm64-16k"), of("stock"), of("next")],
            [1, 1, 0, 0]
        );
        assert_eq!(parsed(ENTRY).unwrap().for_kernel("stock").entries.len(), 1);
    }

    #[test]
    fn failure_is_matched_by_word_or_text() {
        let mut failed = TestResult::new("a", Outcome::Failed("a".into()));
        failed.lines = vec!["# got: 1".into(), "# wanted: 0".into()];
        for (pattern, matches) in [("fail", true), ("fail: got: 1*", true), ("pass", false)] {
            assert_eq!(
                Glob(Pattern::new(pattern).unwrap()).matches(Some(&failed)),
                matches
            );
        }
    }

    #[test]
    fn invalid_entry_is_refused() {
        for (from, to, reason) in [
            ("sysfs-disk", "sysfs-labelled-region", "no such test"),
            ("\"better\"", "\"same\"", "must be \"better\" or \"equal\""),
            ("\"better\"", "\"good\"", "unknown variant"),
            ("It is.", " ", "does not say why"),
            ("why =", "because =", "unknown field `because`"),
            ("why = \"It is.\"", "", "missing field `why`"),
            ("its *", "its ***", "wildcards"),
            ("[[difference]]", "[[differences]]", "unknown field"),
        ] {
            let Err(error) = parsed(&ENTRY.replace(from, to)) else {
                panic!("{to} was taken")
            };
            let text = format!("{error:#}");
            assert!(text.contains(reason), "{to}: {text}");
        }
    }
}
