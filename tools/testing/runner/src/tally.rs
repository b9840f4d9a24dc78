// SPDX-License-Identifier: GPL-2.0

//! The results: shown as they come, counted, and kept in a JUnit file.

use crate::ktap::Outcome;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const PALE: Style = AnsiColor::BrightBlack.on_default();
const TITLE: Style = Style::new().bold();

/// Something within a test.
#[derive(Debug, Clone)]
pub struct Detail {
    /// Its name.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// What it said.
    pub text: String,
}

/// One test that has run.
#[derive(Debug, Clone)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// What it tests, in a few words.
    pub about: String,
    /// How it went.
    pub outcome: Outcome,
    /// How long it took.
    pub time: Duration,
    /// What a person wants to see where it failed.
    pub words: Vec<String>,
    /// Its parts.
    pub details: Vec<Detail>,
}

impl Test {
    /// A test of which there is no more to say.
    pub fn new(name: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            name: name.into(),
            about: String::new(),
            outcome,
            time: Duration::ZERO,
            words: Vec::new(),
            details: Vec::new(),
        }
    }
}

/// All results so far.
pub struct Tally {
    junit: Report,
    suite: Option<TestSuite>,
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
    live: ProgressBar,
    /// Lines that are kept until there is room for them.
    kept: Option<RefCell<Vec<String>>>,
}

impl Tally {
    /// No results yet.
    pub fn new() -> Self {
        Self {
            junit: Report::new("rust_pmem"),
            suite: None,
            passed: 0,
            failed: 0,
            skipped: 0,
            failures: Vec::new(),
            live: ProgressBar::hidden(),
            kept: None,
        }
    }

    /// For results that come while others are shown: nothing is printed until they are
    /// [taken over](Self::take_over).
    pub fn beside() -> Self {
        Self {
            kept: Some(RefCell::default()),
            ..Self::new()
        }
    }

    /// Prints, and counts as its own, what came beside.
    pub fn take_over(&mut self, mut other: Tally) {
        self.live.finish_and_clear();
        self.end_group();
        other.end_group();
        for line in other.kept.take().unwrap_or_default().into_inner() {
            self.line(&line);
        }
        for suite in other.junit.test_suites {
            self.record_group(suite);
        }
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.append(&mut other.failures);
    }

    /// Begins a group of tests.
    pub fn group(&mut self, name: &str, about: &str) {
        self.end_group();
        self.suite = Some(TestSuite::new(name));
        self.heading(about);
    }

    /// Prints what the next lines are about.
    pub fn heading(&self, about: &str) {
        self.line(&format!("\n{TITLE}{about}{TITLE:#}"));
    }

    fn end_group(&mut self) {
        if let Some(suite) = self.suite.take() {
            self.record_group(suite);
        }
    }

    /// Groups of one name are one in the file.
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

    /// How many tests passed.
    #[cfg(test)]
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Prints a line above the live one.
    pub fn line(&self, text: &str) {
        if let Some(kept) = &self.kept {
            kept.borrow_mut().push(text.to_owned());
            return;
        }
        self.live.suspend(|| anstream::println!("{text}"));
    }

    /// A remark that is no result.
    pub fn note(&self, text: &str) {
        self.line(&format!("  {PALE}{text}{PALE:#}"));
    }

    /// Shows what is running, with its seconds, on a terminal.
    pub fn running(&mut self, what: &str) -> Clock {
        if self.kept.is_none() {
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

    /// Takes a result, shows and counts it.
    pub fn add(&mut self, test: Test) {
        self.show(&test);
        self.count(test);
    }

    /// Shows a result.
    pub fn show(&self, test: &Test) {
        self.live.finish_and_clear();
        let (style, verdict) = match &test.outcome {
            Outcome::Passed => (GOOD, "pass"),
            Outcome::Failed(_) => (BAD, "FAIL"),
            Outcome::Skipped(_) => (PALE, "skip"),
        };
        let seconds = match test.time {
            Duration::ZERO => String::new(),
            time => format!("{:.1} s", time.as_secs_f64()),
        };
        let about = match &test.outcome {
            Outcome::Passed => &test.about,
            Outcome::Failed(reason) | Outcome::Skipped(reason) => reason,
        };
        self.line(&format!(
            "  {style}{verdict}{style:#}  {:<38} {PALE}{seconds:>7}{PALE:#}  {}",
            test.name,
            shortened(about)
        ));
        for word in &test.words {
            self.line(&format!("        {PALE}{word}{PALE:#}"));
        }
    }

    /// Counts a result.
    pub fn count(&mut self, test: Test) {
        match &test.outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(reason) => {
                self.failed += 1;
                self.failures.push(format!("{}: {reason}", test.name));
            }
            Outcome::Skipped(_) => self.skipped += 1,
        }
        self.record(&test);
    }

    /// Takes a result that needs no line where it is good.
    pub fn add_quietly(&mut self, test: Test) {
        if test.outcome != Outcome::Passed {
            self.show(&test);
        }
        self.count(test);
    }

    fn record(&mut self, test: &Test) {
        let Some(suite) = &mut self.suite else { return };
        let mut case = TestCase::new(test.name.clone(), status(&test.outcome));
        case.set_classname(suite.name.as_str().to_owned());
        case.set_time(test.time);
        if !test.words.is_empty() {
            case.set_system_out(test.words.join("\n"));
        }
        suite.add_test_case(case);
        for detail in &test.details {
            let mut case = TestCase::new(detail.name.clone(), status(&detail.outcome));
            case.set_classname(format!("{}.{}", suite.name.as_str(), test.name));
            if !detail.text.is_empty() {
                case.set_system_out(&detail.text);
            }
            suite.add_test_case(case);
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

    /// Prints what failed and the last line; whether all is well.
    pub fn conclude(&self) -> bool {
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
}

/// Measures one test.
pub struct Clock {
    live: ProgressBar,
    start: Instant,
}

impl Clock {
    /// How long it has run.
    pub fn time(&self) -> Duration {
        self.start.elapsed()
    }

    /// Says more about what it is doing.
    pub fn say(&self, what: &str) {
        self.live.set_message(what.to_owned());
    }
}

/// As much of a sentence as the line of a test has room for.
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

fn status(outcome: &Outcome) -> TestCaseStatus {
    match outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed(reason) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason.clone());
            status
        }
        Outcome::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.clone());
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_beside_counts_and_is_kept_until_it_is_taken_over() {
        let mut beside = Tally::beside();
        beside.group("beside", "Beside");
        beside.add(Test::new("good", Outcome::Passed));
        beside.add(Test::new("bad", Outcome::Failed("so".into())));
        assert_eq!(beside.kept.as_ref().unwrap().borrow().len(), 3);

        let mut tally = Tally::new();
        tally.group("own", "Own");
        tally.add(Test::new("good", Outcome::Passed));
        tally.take_over(beside);
        assert_eq!((tally.passed, tally.failed, tally.skipped), (2, 1, 0));
        assert_eq!(tally.failures, ["bad: so"]);
        assert_eq!(tally.junit.test_suites.len(), 2);

        let mut more = Tally::beside();
        more.group("own", "More of it");
        more.add(Test::new("better", Outcome::Passed));
        tally.take_over(more);
        let suites = &tally.junit.test_suites;
        assert_eq!(suites.len(), 2);
        assert_eq!((suites[0].name.as_str(), suites[0].tests), ("own", 2));
        assert!(!tally.conclude());
    }
}
