// SPDX-License-Identifier: GPL-2.0

//! Test results: printed as they arrive, counted, and written to a JUnit file.

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const PALE: Style = AnsiColor::BrightBlack.on_default();
const TITLE: Style = Style::new().bold();

/// Number of tests in the list of the slowest ones.
const SLOWEST: usize = 10;

/// How a test or one of its subtests ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Passed,
    /// With the reason.
    Failed(String),
    /// It does not apply here, with the reason.
    Skipped(String),
}

/// An [`Outcome`] without its reason, as saved files and suite.toml have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Pass,
    Fail,
    Skip,
}

impl Outcome {
    pub fn kind(&self) -> Kind {
        match self {
            Outcome::Passed => Kind::Pass,
            Outcome::Failed(_) => Kind::Fail,
            Outcome::Skipped(_) => Kind::Skip,
        }
    }

    /// Returns why it failed or was skipped; an empty string where it passed.
    pub fn reason(&self) -> &str {
        match self {
            Outcome::Passed => "",
            Outcome::Failed(reason) | Outcome::Skipped(reason) => reason,
        }
    }

    pub fn is_failure(&self) -> bool {
        self.kind() == Kind::Fail
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Pass => "pass",
            Kind::Fail => "FAIL",
            Kind::Skip => "skip",
        })
    }
}

/// The result of a test, of a subtest, or of a command on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResult {
    pub name: String,
    /// The title: the claim that the test checks.
    #[serde(skip)]
    pub about: String,
    pub outcome: Outcome,
    #[serde(skip)]
    pub time: Duration,
    /// The lines that are shown of a failed test; the diagnosis of a subtest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtests: Vec<TestResult>,
}

impl TestResult {
    pub fn new(name: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            name: name.into(),
            about: String::new(),
            outcome,
            time: Duration::ZERO,
            lines: Vec::new(),
            subtests: Vec::new(),
        }
    }
}

/// The use of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    Boots,
    Builds,
    Lints,
    Tests,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activity::Boots => "boots",
            Activity::Builds => "builds",
            Activity::Lints => "lints",
            Activity::Tests => "tests",
        })
    }
}

/// All results so far.
pub struct Results {
    junit: Report,
    suite: Option<TestSuite>,
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
    /// How often, and for how long in all.
    spent: BTreeMap<Activity, (usize, Duration)>,
    tests: Vec<(String, Duration)>,
    /// The selftests of rust_pmem that ran, with their seconds and the names of their subtests.
    pub selftests: BTreeMap<String, (u64, Vec<String>)>,
    pub boots_tried_again: usize,
    start: Instant,
    live: ProgressBar,
    /// The lines of a job that another thread runs, until they are printed together.
    buffer: Option<RefCell<Vec<String>>>,
}

impl Results {
    pub fn new() -> Self {
        Self {
            junit: Report::new("rust_pmem"),
            suite: None,
            passed: 0,
            failed: 0,
            skipped: 0,
            failures: Vec::new(),
            spent: BTreeMap::new(),
            tests: Vec::new(),
            selftests: BTreeMap::new(),
            boots_tried_again: 0,
            start: Instant::now(),
            live: ProgressBar::hidden(),
            buffer: None,
        }
    }

    /// Returns results that print nothing until they are [merged](Self::merge) into others.
    pub fn buffered() -> Self {
        Self {
            buffer: Some(RefCell::default()),
            ..Self::new()
        }
    }

    /// Prints and counts the results of another thread.
    pub fn merge(&mut self, mut other: Results) {
        self.live.finish_and_clear();
        self.end_group();
        other.end_group();
        for line in other.buffer.take().unwrap_or_default().into_inner() {
            self.line(&line);
        }
        for suite in other.junit.test_suites {
            self.record_group(suite);
        }
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.append(&mut other.failures);
        self.tests.append(&mut other.tests);
        self.selftests.append(&mut other.selftests);
        self.boots_tried_again += other.boots_tried_again;
        for (activity, (count, time)) in other.spent {
            let spent = self.spent.entry(activity).or_default();
            *spent = (spent.0 + count, spent.1 + time);
        }
    }

    /// Begins a group of tests.
    pub fn group(&mut self, name: &str, about: &str) {
        self.end_group();
        self.suite = Some(TestSuite::new(name));
        self.heading(about);
    }

    /// Continues a group that another job has begun.
    pub fn resume_group(&mut self, name: &str) {
        self.end_group();
        self.suite = Some(TestSuite::new(name));
    }

    pub fn heading(&self, about: &str) {
        self.line(&format!("\n{TITLE}{about}{TITLE:#}"));
    }

    fn end_group(&mut self) {
        if let Some(suite) = self.suite.take() {
            self.record_group(suite);
        }
    }

    /// Groups with the same name become one in the file.
    fn record_group(&mut self, suite: TestSuite) {
        let mut known = self.junit.test_suites.iter_mut();
        match known.find(|known| known.name == suite.name) {
            Some(known) => {
                known.add_test_cases(suite.test_cases);
            }
            None => {
                self.junit.add_test_suite(suite);
            }
        }
    }

    /// Returns how many have passed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Prints a line above the live one.
    pub fn line(&self, text: &str) {
        if let Some(buffer) = &self.buffer {
            buffer.borrow_mut().push(text.to_owned());
            return;
        }
        self.live.suspend(|| anstream::println!("{text}"));
    }

    /// Prints a remark that is not a result.
    pub fn note(&self, text: &str) {
        self.line(&format!("  {PALE}{text}{PALE:#}"));
    }

    /// Shows the running jobs, with their seconds, on a terminal.
    pub fn running(&mut self, what: &str) -> Clock {
        if self.buffer.is_none() {
            let style = ProgressStyle::with_template("  {spinner} {msg} {elapsed:.bright.black}");
            self.live = ProgressBar::new_spinner().with_message(what.to_owned());
            if let Ok(style) = style {
                self.live.set_style(style);
            }
            self.live.enable_steady_tick(Duration::from_millis(120));
        }
        Clock {
            live: self.live.clone(),
            start: Instant::now(),
        }
    }

    /// Notes that this took so long, for [`Self::write_times`].
    pub fn spend(&mut self, activity: Activity, time: Duration) {
        let spent = self.spent.entry(activity).or_default();
        *spent = (spent.0 + 1, spent.1 + time);
    }

    /// Notes how long a test took, for the list of the slowest ones.
    pub fn spend_on_test(&mut self, name: String, time: Duration) {
        self.spend(Activity::Tests, time);
        self.tests.push((name, time));
    }

    /// Notes that a selftest of rust_pmem ran, for [`crate::seconds`] and [`crate::names`].
    pub fn note_selftest(&mut self, result: &TestResult) {
        let names = result.subtests.iter().map(|subtest| subtest.name.clone());
        let seconds = result.time.as_secs_f64().round() as u64;
        self.selftests
            .insert(result.name.clone(), (seconds, names.collect()));
    }

    /// Shows and counts a result.
    pub fn add(&mut self, result: TestResult) {
        self.show(&result);
        self.count(result);
    }

    pub fn show(&self, result: &TestResult) {
        self.live.finish_and_clear();
        let kind = result.outcome.kind();
        let (style, text) = match kind {
            Kind::Pass => (GOOD, result.about.as_str()),
            Kind::Fail => (BAD, result.outcome.reason()),
            Kind::Skip => (PALE, result.outcome.reason()),
        };
        let seconds = match result.time {
            Duration::ZERO => String::new(),
            time => format!("{:.1} s", time.as_secs_f64()),
        };
        self.line(&format!(
            "  {style}{kind}{style:#}  {:<38} {PALE}{seconds:>7}{PALE:#}  {}",
            result.name,
            shortened(text)
        ));
        for line in &result.lines {
            self.line(&format!("        {PALE}{line}{PALE:#}"));
        }
    }

    pub fn count(&mut self, result: TestResult) {
        match &result.outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(reason) => {
                self.failed += 1;
                self.failures.push(format!("{}: {reason}", result.name));
            }
            Outcome::Skipped(_) => self.skipped += 1,
        }
        self.record(&result);
    }

    /// Counts a result, and shows it unless it passed.
    pub fn add_quietly(&mut self, result: TestResult) {
        if result.outcome != Outcome::Passed {
            self.show(&result);
        }
        self.count(result);
    }

    fn record(&mut self, result: &TestResult) {
        let Some(suite) = &mut self.suite else { return };
        let group = suite.name.as_str().to_owned();
        let mut case = test_case(result, group.clone());
        case.set_time(result.time);
        suite.add_test_case(case);
        for subtest in &result.subtests {
            suite.add_test_case(test_case(subtest, format!("{group}.{}", result.name)));
        }
    }

    /// Writes the JUnit file.
    pub fn write_junit(&mut self, path: &Path) -> Result<()> {
        self.end_group();
        let file = File::create(path).with_context(|| path.display().to_string())?;
        self.junit
            .serialize(file)
            .with_context(|| path.display().to_string())
    }

    /// Prints how the time was spent, the failures and the last line; whether all is well.
    pub fn conclude(&mut self) -> bool {
        if !self.spent.is_empty() {
            self.write_times();
        }
        if !self.failures.is_empty() {
            self.line(&format!("\n{BAD}Failed{BAD:#}"));
            for failure in &self.failures {
                self.line(&format!("  {failure}"));
            }
        }
        let good = self.failed == 0 && self.passed > 0;
        let style = if good { GOOD } else { BAD };
        self.line(&format!(
            "\n{style}{} passed, {} failed, {} skipped{style:#}",
            self.passed, self.failed, self.skipped
        ));
        good
    }

    /// Prints the use of the time. Jobs run at the same time, so the sum exceeds the time on the clock.
    fn write_times(&mut self) {
        let spent = self.spent.iter().map(|(activity, (count, time))| {
            format!("{activity} {:.0} s ({count})", time.as_secs_f64())
        });
        self.line(&format!(
            "\n{TITLE}Time{TITLE:#}  {:.0} s; {}",
            self.start.elapsed().as_secs_f64(),
            spent.collect::<Vec<_>>().join(", ")
        ));
        if self.boots_tried_again > 0 {
            self.note(&format!(
                "boots that were tried again: {}",
                self.boots_tried_again
            ));
        }
        self.tests.sort_by_key(|(_, time)| Reverse(*time));
        let slowest = self.tests.iter().take(SLOWEST);
        let slowest: Vec<_> = slowest
            .map(|(name, time)| format!("{name} {:.0} s", time.as_secs_f64()))
            .collect();
        for some in slowest.chunks(SLOWEST / 2) {
            self.note(&format!("slowest: {}", some.join(", ")));
        }
    }
}

/// Measures one test.
pub struct Clock {
    live: ProgressBar,
    start: Instant,
}

impl Clock {
    pub fn time(&self) -> Duration {
        self.start.elapsed()
    }

    /// Shows the test's present step.
    pub fn show(&self, what: &str) {
        self.live.set_message(what.to_owned());
    }
}

/// Shortens a sentence to the room that is left on the line of a test.
fn shortened(text: &str) -> String {
    /// Columns before it.
    const BEFORE: usize = 33;
    let columns = vm::terminal::size().map_or(140, |(_, columns)| usize::from(columns).max(80));
    if text.chars().count() <= columns - BEFORE {
        return text.to_owned();
    }
    let short: String = text.chars().take(columns - BEFORE).collect();
    let end = short.rfind(' ').unwrap_or(short.len());
    format!("{}…", short[..end].trim_end_matches([',', ':', ';']))
}

fn test_case(result: &TestResult, group: String) -> TestCase {
    let mut status = match result.outcome.kind() {
        Kind::Pass => TestCaseStatus::success(),
        Kind::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Kind::Skip => TestCaseStatus::skipped(),
    };
    if result.outcome != Outcome::Passed {
        status.set_message(result.outcome.reason());
    }
    let mut case = TestCase::new(result.name.clone(), status);
    case.set_classname(group);
    if !result.lines.is_empty() {
        case.set_system_out(result.lines.join("\n"));
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffered_results_are_printed_and_counted_by_merge() {
        let mut buffered = Results::buffered();
        buffered.group("other", "Other");
        buffered.add(TestResult::new("good", Outcome::Passed));
        buffered.add(TestResult::new("bad", Outcome::Failed("so".into())));
        buffered.spend_on_test("good".into(), Duration::from_secs(2));
        assert_eq!(buffered.buffer.as_ref().unwrap().borrow().len(), 3);

        let mut results = Results::new();
        results.group("own", "Own");
        results.add(TestResult::new("good", Outcome::Passed));
        results.spend_on_test("good".into(), Duration::from_secs(1));
        results.merge(buffered);
        assert_eq!((results.passed, results.failed, results.skipped), (2, 1, 0));
        assert_eq!(results.failures, ["bad: so"]);
        assert_eq!(results.junit.test_suites.len(), 2);
        assert_eq!(results.spent[&Activity::Tests], (2, Duration::from_secs(3)));

        let mut more = Results::buffered();
        more.group("own", "More of it");
        more.add(TestResult::new("better", Outcome::Passed));
        results.merge(more);
        let suites = &results.junit.test_suites;
        assert_eq!(suites.len(), 2);
        assert_eq!((suites[0].name.as_str(), suites[0].tests), ("own", 2));
        assert!(!results.conclude());
    }
}
