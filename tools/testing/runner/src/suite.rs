// SPDX-License-Identifier: GPL-2.0

//! Test suites of other projects: each test runs in a guest, under both drivers.
//!
//! tests/external/NAME/suite.toml describes a suite. Its results are kept in build/suites/NAME.json from one run to the
//! next; build/suites.md is the table of all suites.

use crate::executor::{Executor, GUEST, GuestTest, Protocol};
use crate::lint::{self, Step};
use crate::markdown::table;
use crate::reading::{LOST, REPORTED, TIMED_OUT};
use crate::results::{Activity, Kind, Outcome, Results, TestResult};
use crate::scheduler::{self, Job, locked};
use anyhow::{Context, Result, ensure};
use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use vm::Options;

/// Seconds of a test that has no timeout of its own.
const TIMEOUT: u64 = 300;

/// The drivers, in the order of the table.
const DRIVERS: [&str; 2] = ["nd_pmem", "rust_pmem"];

/// Between the number of runs and the reason of a failure.
const TIMES: &str = " times: ";

/// A suite, as its file describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    about: String,
    image: String,
    run: PathBuf,
    module: PathBuf,
    build: String,
    harmless: Option<Vec<String>>,
    machine: String,
    /// Number of tests that run in a guest one after the other, as long as they pass.
    #[serde(default = "one")]
    shared: NonZeroUsize,
    #[serde(default)]
    test: Vec<Case>,
    #[serde(default)]
    machines: Vec<Group>,
    #[serde(default)]
    reasons: Vec<Reason>,
    /// Its tests are the user's: a test that does not pass under nd_pmem either needs no reason.
    #[serde(default)]
    open: bool,
    /// Tests that are run more than once.
    #[serde(default)]
    often: Vec<Often>,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// Tests that are run more than once under each driver, because they do not fail each time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Often {
    /// A pattern of names.
    test: String,
    runs: u32,
}

/// Tests on another machine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    machine: String,
    test: Vec<Case>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    quick: bool,
    #[serde(default)]
    timeout: Option<u64>,
    #[serde(skip)]
    machine: String,
    /// Number of further runs.
    #[serde(skip)]
    again: u32,
}

/// A result that is expected although it is not a pass, with the reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    test: String,
    nd_pmem: Kind,
    rust_pmem: Kind,
    why: String,
}

/// The result of a test under a driver, as the file keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    verdict: Kind,
    reason: String,
    seconds: f64,
    /// Identifies the driver, the guest, the scripts and the tests.
    hash: String,
    /// That of the sources.
    #[serde(default)]
    revision: String,
}

impl Run {
    /// Returns whether the kernel reported something, the guest was lost or the test hung.
    fn has_crashed(&self) -> bool {
        // Behind the number of runs, if there were several.
        [REPORTED, TIMED_OUT, LOST]
            .iter()
            .any(|sign| self.reason.contains(sign))
    }

    /// Returns whether this failure is the same as the other one, however often each was seen.
    fn is_like(&self, other: &Self) -> bool {
        lasting_words(&self.reason) == lasting_words(&other.reason)
    }

    fn new(result: &TestResult, hash: String) -> Self {
        let mut reason = result.outcome.reason().to_owned();
        // Page faults in two places have the same title, and hangs have none.
        let reported = [REPORTED, TIMED_OUT]
            .iter()
            .any(|sign| reason.contains(sign));
        match place(&result.lines) {
            Some(place) if reported && !reason.contains(place) => {
                reason.push_str(&format!(", in {place}"));
            }
            _ => {}
        }
        Self {
            verdict: result.outcome.kind(),
            reason,
            seconds: (result.time.as_secs_f64() * 10.0).round() / 10.0,
            hash,
            revision: String::new(),
        }
    }

    /// Returns the worst of several runs, of which there is at least one: a crash, or else another failure. A failure says how
    /// many runs failed.
    fn worst_of(mut all: Vec<Self>) -> Self {
        let count = all.len();
        let seconds = all.iter().map(|run| run.seconds).sum();
        all.sort_by_key(|run| (run.verdict != Kind::Fail, !run.has_crashed()));
        let same = |run: &&Self| run.verdict == all[0].verdict;
        let same = all.iter().filter(same).count();
        let mut worst = all.swap_remove(0);
        worst.seconds = seconds;
        if count > 1 && worst.verdict == Kind::Fail {
            worst.reason = format!("{same} of {count}{TIMES}{}", worst.reason);
        }
        worst
    }
}

/// The results of a suite, as the file keeps them.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    about: String,
    kernel: String,
    /// By test, then by driver.
    tests: BTreeMap<String, BTreeMap<String, Run>>,
    /// Reasons of the tests that do not pass.
    whys: BTreeMap<String, String>,
}

impl Saved {
    fn load(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| path.display().to_string()),
            Err(_) => Ok(Self::default()),
        }
    }

    fn save(&self, path: &Path) -> Result<()> {
        let partial = path.with_extension("json.partial");
        fs::write(&partial, serde_json::to_string_pretty(self)?)?;
        fs::rename(&partial, path).with_context(|| path.display().to_string())
    }
}

/// Which tests of a suite are run.
pub struct Selection<'a> {
    /// Those that match one of these, or all.
    pub patterns: &'a [Pattern],
    /// Without patterns, the quick ones alone.
    pub quick: bool,
    /// A test whose result is known for the same driver, guest, scripts and tests is not run again.
    pub resume: bool,
    pub drivers: &'a [&'static str],
}

impl Selection<'_> {
    fn has(&self, case: &Case) -> bool {
        match self.patterns {
            [] => case.quick || !self.quick,
            patterns => patterns.iter().any(|pattern| pattern.matches(&case.name)),
        }
    }
}

pub struct Suite {
    pub name: String,
    top: PathBuf,
    pub about: String,
    image: PathBuf,
    run: PathBuf,
    module: PathBuf,
    build: String,
    machine: String,
    /// A test that prints "command not found" fails, except in lines with one of these texts.
    harmless: Option<Vec<String>>,
    /// Number of tests that run in a guest.
    shared: NonZeroUsize,
    cases: Vec<Case>,
    reasons: Vec<Reason>,
    open: bool,
    often: Vec<Often>,
    /// The user's tests.
    tree: Option<PathBuf>,
    /// That of the sources, for the table.
    pub revision: String,
}

impl Suite {
    /// Reads tests/external/NAME/suite.toml.
    pub fn load(top: &Path, name: &str) -> Result<Self> {
        Self::load_from(top, name, &top.join("tests/external").join(name))
    }

    /// Reads the suite.toml of a folder.
    pub fn load_from(top: &Path, name: &str, folder: &Path) -> Result<Self> {
        let path = folder.join("suite.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::parse(top, name, &text).with_context(|| path.display().to_string())
    }

    fn parse(top: &Path, name: &str, text: &str) -> Result<Self> {
        let Description {
            about,
            image,
            run,
            module,
            build,
            harmless,
            machine,
            shared,
            test,
            machines,
            reasons,
            open,
            often,
        } = toml::from_str(text)?;
        let first = Group {
            machine: machine.clone(),
            test,
        };
        let mut cases = Vec::new();
        for group in [first].into_iter().chain(machines) {
            Options::from_words(&group.machine)
                .with_context(|| format!("machine: {}", group.machine))?;
            cases.extend(group.test.into_iter().map(|case| Case {
                machine: group.machine.clone(),
                ..case
            }));
        }
        for (index, case) in cases.iter().enumerate() {
            let twice = cases[..index].iter().any(|other| other.name == case.name);
            ensure!(!twice, "{}: two tests of one name", case.name);
        }
        for reason in &reasons {
            let known = cases.iter().any(|case| case.name == reason.test);
            ensure!(known || open, "{}: there is no such test", reason.test);
            ensure!(!reason.why.trim().is_empty(), "{}: no why", reason.test);
        }
        Ok(Self {
            name: name.to_owned(),
            top: top.to_owned(),
            about,
            image: top.join("build/images").join(image),
            run,
            module: top.join(module),
            build,
            machine,
            harmless,
            shared,
            cases,
            reasons,
            open,
            often,
            tree: None,
            revision: String::new(),
        })
    }

    /// Adds the tests of a tree to the suite, with a time-out in seconds, on a machine with these further options.
    pub fn with_tests(
        mut self,
        tree: &Path,
        names: Vec<String>,
        seconds: u64,
        options: &str,
    ) -> Result<Self> {
        self.tree = Some(tree.to_owned());
        let machine = format!("{} {options}", self.machine);
        Options::from_words(&machine).with_context(|| format!("machine: {machine}"))?;
        for name in names {
            let mut again = 0;
            for often in &self.often {
                if Pattern::new(&often.test)?.matches(&name) {
                    again = often.runs.saturating_sub(1);
                }
            }
            self.cases.push(Case {
                name,
                quick: false,
                timeout: Some(seconds),
                machine: machine.clone(),
                again,
            });
        }
        Ok(self)
    }

    /// Returns the command that builds the module that it tests.
    pub fn build(&self) -> Step {
        let mut command = lint::make(&self.top);
        command.arg(&self.build);
        Step {
            name: "suite",
            about: "the driver as the suite needs it",
            activity: Activity::Builds,
            command,
            warnings: true,
            inputs: &[],
        }
    }

    fn file(&self) -> PathBuf {
        self.top
            .join("build/suites")
            .join(&self.name)
            .with_extension("json")
    }

    /// Identifies what runs: the guest's image, which is of one kernel, the module if it is not in the image, the suite's
    /// description, the scripts, and the user's tests.
    fn hash(&self, driver: &str) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        let image = fs::canonicalize(&self.image)
            .with_context(|| format!("{}: run setup/setup {}", self.image.display(), self.name))?;
        image.hash(&mut hasher);
        let own = self.run.parent().unwrap_or(Path::new(""));
        for folder in [
            own,
            Path::new("tests/lib"),
            Path::new("tools/testing/vm/guest"),
        ] {
            for script in glob::glob(&self.top.join(folder).join("*").to_string_lossy())? {
                let script = script?;
                if script.is_file() {
                    fs::read(&script)
                        .with_context(|| script.display().to_string())?
                        .hash(&mut hasher);
                }
            }
        }
        if let Some(tree) = &self.tree {
            hash_tree(tree, &mut hasher)?;
        }
        if driver == "rust_pmem" {
            fs::read(&self.module)
                .with_context(|| self.module.display().to_string())?
                .hash(&mut hasher);
        }
        Ok(format!("{:016x}", hasher.finish()))
    }

    /// Runs the selected tests in so many guests at once, and counts the results.
    pub fn test(
        &self,
        selection: &Selection<'_>,
        guests: usize,
        results: &mut Results,
    ) -> Result<()> {
        let file = self.file();
        let logs = file.with_extension("");
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let mut saved = Saved::load(&file)?;
        saved.about = self.about.clone();
        saved
            .tests
            .retain(|name, _| self.open || self.cases.iter().any(|case| case.name == *name));

        for pattern in selection.patterns {
            if !self.cases.iter().any(|case| pattern.matches(&case.name)) {
                let outcome = Outcome::Failed(format!("{} has no such test", self.name));
                results.add(TestResult::new(pattern.as_str(), outcome));
            }
        }
        let executors = selection
            .drivers
            .iter()
            .map(|driver| Ok((Executor::new(driver, logs.join(driver)), self.hash(driver)?)))
            .collect::<Result<Vec<_>>>()?;
        let selected = |case: &&Case| selection.has(case);
        let cases: Vec<&Case> = self.cases.iter().filter(selected).collect();
        let saved = &Mutex::new(saved);
        // All guests shall have about as many.
        let size = self.shared.get().min(cases.len().div_ceil(guests)).max(1);
        let jobs = cases
            .chunk_by(|one, next| one.machine == next.machine)
            .flat_map(|same| same.chunks(size))
            .map(|part| {
                let executors = &executors;
                Job::new(0, move |results| {
                    results.resume_group(&self.name);
                    for (executor, hash) in executors {
                        self.run_part(part, executor, hash, selection.resume, saved, results)?;
                    }
                    for case in part {
                        self.count(case, selection.drivers, saved, results)?;
                    }
                    Ok(())
                })
            });
        scheduler::run(jobs.collect(), guests, results)?;
        write_table(&self.top)
    }

    /// Runs tests of one machine one after the other, in as few guests as possible, and saves their results.
    fn run_part(
        &self,
        part: &[&Case],
        executor: &Executor,
        hash: &str,
        resume: bool,
        saved: &Mutex<Saved>,
        results: &mut Results,
    ) -> Result<()> {
        let driver = executor.driver;
        let mut guest = None;
        let is_known = |case: &&Case| {
            let saved = locked(saved);
            let runs = saved.tests.get(&case.name);
            let run = runs.and_then(|runs| runs.get(driver));
            run.is_some_and(|run| run.hash == hash)
        };
        let mut part = part.to_vec();
        part.retain(|case| !resume || !is_known(case));
        for (index, case) in part.iter().enumerate() {
            let mut all = Vec::new();
            for run in 0..=case.again {
                let clock = results.running(&case.name);
                let test = self.guest_test(case)?;
                let mut result = executor.test(&test, &mut guest, results, &clock)?;
                if index + 1 == part.len() && run == case.again {
                    executor.end(&test, guest.take(), &mut result)?;
                }
                result.name = format!("{:<24} {driver}", case.name);
                result.about = driver.to_owned();
                results.show(&result);
                all.push(Run::new(&result, hash.to_owned()));
            }
            let mut saved = locked(saved);
            let runs = saved.tests.entry(case.name.clone()).or_default();
            let run = Run {
                revision: self.revision.clone(),
                ..Run::worst_of(all)
            };
            runs.insert(driver.to_owned(), run);
            if let Some(kernel) = executor.kernel.get() {
                saved.kernel.clone_from(kernel);
            }
            saved.save(&self.file())?;
        }
        Ok(())
    }

    /// Judges a test by its saved results under these drivers, and counts it.
    fn count(
        &self,
        case: &Case,
        drivers: &[&str],
        saved: &Mutex<Saved>,
        results: &mut Results,
    ) -> Result<()> {
        let mut saved = locked(saved);
        let runs = &saved.tests[&case.name];
        let (outcome, why) = self.judge(&case.name, runs, drivers);
        let seconds = drivers.iter().map(|driver| runs[*driver].seconds).sum();
        match why {
            Some(why) => saved.whys.insert(case.name.clone(), why),
            None => saved.whys.remove(&case.name),
        };
        saved.save(&self.file())?;
        let mut result = TestResult {
            time: Duration::from_secs_f64(seconds),
            ..TestResult::new(format!("{}: {}", self.name, case.name), outcome)
        };
        if result.outcome.is_failure() {
            result
                .lines
                .push(format!("run alone: {}", self.rerun(&case.name)));
            results.show(&result);
        }
        results.count(result);
        Ok(())
    }

    /// Judges the runs of a test under these drivers. Also returns the listed reason of those that did not pass.
    fn judge(
        &self,
        test: &str,
        runs: &BTreeMap<String, Run>,
        drivers: &[&str],
    ) -> (Outcome, Option<String>) {
        let found = |driver| {
            let run = runs.get(driver).filter(|_| drivers.contains(&driver));
            run.map(|run| run.verdict)
        };
        let [c, rust] = DRIVERS.map(found);
        let fits = |listed, found: Option<Kind>| found.is_none_or(|found| found == listed);
        let reason = self.reasons.iter().find(|reason| {
            reason.test == test && fits(reason.nd_pmem, c) && fits(reason.rust_pmem, rust)
        });
        let why = reason.map(|reason| reason.why.clone());
        if [c, rust].iter().flatten().all(|found| *found == Kind::Pass) {
            return (Outcome::Passed, None);
        }
        let not_passed: Vec<_> = DRIVERS
            .iter()
            .filter_map(|driver| runs.get(*driver).map(|run| (driver, run)))
            .filter(|(driver, run)| drivers.contains(driver) && run.verdict != Kind::Pass)
            .map(|(driver, run)| format!("{driver}: {}: {}", run.verdict, run.reason))
            .collect();
        let mut reasons = not_passed.join("; ");
        let both_fail = [c, rust] == [Some(Kind::Fail); 2];
        let alike = both_fail && runs["nd_pmem"].is_like(&runs["rust_pmem"]);
        if both_fail && !alike {
            reasons = format!("not in the same way: {reasons}");
        }
        // Only the same crash of nd_pmem excuses a crash of rust_pmem. A crash of nd_pmem hides whether it fails like rust_pmem.
        let crashed = |found, driver| found == Some(Kind::Fail) && runs[driver].has_crashed();
        let crashed = crashed(rust, "rust_pmem") || both_fail && crashed(c, "nd_pmem");
        let outcome = match (&why, rust.or(c)) {
            _ if crashed && !alike => Outcome::Failed(reasons),
            (None, _) if self.open => open_outcome(c, rust, reasons),
            (None, _) => Outcome::Failed(format!("{reasons}; no reason is listed for that")),
            (Some(_), Some(Kind::Pass)) => Outcome::Passed,
            // The reason is the same where the suite's script prints which parts of a test failed.
            (Some(_), _) if both_fail && !alike => Outcome::Failed(reasons),
            (Some(why), _) => Outcome::Skipped(why.clone()),
        };
        (outcome, why)
    }

    /// Returns the command that runs one test alone.
    fn rerun(&self, test: &str) -> String {
        match self.name.starts_with("xfstests") {
            true => format!("make xfstests XFSTESTS=DIR FRESH=1 TESTS={test}"),
            false => format!("make suite-{} TESTS={test}", self.name),
        }
    }

    /// Returns what runs in the guest.
    fn guest_test(&self, case: &Case) -> Result<GuestTest> {
        let mut machine = Options::from_words(&case.machine)?;
        machine.image = Some(self.image.clone());
        Ok(GuestTest {
            name: case.name.clone(),
            about: self.about.clone(),
            machine,
            timeout: Duration::from_secs(case.timeout.unwrap_or(TIMEOUT)),
            command: format!(
                "unset MODULE STAGE; exec {GUEST}/{} {}",
                self.run.display(),
                shlex::try_quote(&case.name)?
            ),
            protocol: Protocol::Status {
                harmless: self.harmless.clone(),
                shared: self.shared > NonZeroUsize::MIN,
            },
            expected: Vec::new(),
            expected_of_c: Vec::new(),
            required: Vec::new(),
            may_skip: true,
            fails_pages: false,
            rerun: self.rerun(&case.name),
        })
    }
}

/// Judges a test without a listed reason that does not pass under both drivers: nd_pmem's result is the right one.
fn open_outcome(c: Option<Kind>, rust: Option<Kind>, reasons: String) -> Outcome {
    use Kind::{Fail, Pass, Skip};
    match (c, rust) {
        (Some(Pass), Some(Fail | Skip)) | (Some(Skip), Some(Fail)) | (None, Some(Fail)) => {
            Outcome::Failed(reasons)
        }
        (_, Some(Pass)) => Outcome::Passed,
        _ => Outcome::Skipped(reasons),
    }
}

/// Returns the first function in a report of the kernel: that of the instruction which crashed, or the last one called, but for
/// those by which every task waits.
fn place(lines: &[String]) -> Option<&str> {
    // "RIP: 0010:filemap_cachestat+0x1a/0x2b0"
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    words
        .filter_map(|word| word.split_once("+0x")?.0.rsplit(':').next())
        .find(|function| !function.contains("schedule"))
}

/// Adds the names, sizes and times of the files below a folder, of which there are thousands, but for hidden ones.
fn hash_tree(folder: &Path, hasher: &mut impl Hasher) -> Result<()> {
    let pattern = format!("{}/**/*", Pattern::escape(&folder.to_string_lossy()));
    let visible = MatchOptions {
        require_literal_leading_dot: true,
        ..MatchOptions::new()
    };
    // The guest can't read what this can't.
    for file in glob::glob_with(&pattern, visible)?.flatten() {
        if let Some(meta) = file.metadata().ok().filter(Metadata::is_file) {
            (file, meta.len(), meta.modified()?).hash(hasher);
        }
    }
    Ok(())
}

/// Splits a reason into words, without the number of runs and what differs from run to run: addresses, processors, tasks with their
/// numbers, seconds.
fn lasting_words(reason: &str) -> Vec<&str> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let counted = reason.split_once(TIMES);
    let counted = counted.filter(|(count, _)| count.split(" of ").all(number));
    let reason = counted.map_or(reason, |(_, reason)| reason);
    let hung = reason.contains(TIMED_OUT);
    let passing = |word: &&str| {
        let word = word.trim_matches(['[', ']', ',', ';', ':', '!']);
        let digits = word.trim_start_matches("0x");
        let address = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let task = word.rsplit_once([':', '/']);
        // Not a file with its line.
        let task = task.is_some_and(|(name, id)| !name.contains('.') && number(id));
        let seconds = word.strip_suffix('s').is_some_and(number) || hung && number(word);
        address || task || seconds || word.starts_with("CPU#")
    };
    let words = reason.split_whitespace();
    words.filter(|word| !passing(word)).collect()
}

/// Writes build/suites.md: the results of each suite that has run.
fn write_table(top: &Path) -> Result<()> {
    let folder = top.join("build/suites");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    let mut suites = Vec::new();
    for file in files {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        suites.push((name, Saved::load(&file)?));
    }
    let path = top.join("build/suites.md");
    fs::write(&path, markdown(&suites)).with_context(|| path.display().to_string())
}

fn markdown(suites: &[(String, Saved)]) -> String {
    let mut sums = table([
        "suite", "driver", "tests", "pass", "fail", "skip", "seconds",
    ]);
    for (name, saved) in suites {
        for driver in DRIVERS {
            let runs = saved.tests.values().filter_map(|runs| runs.get(driver));
            let count = |kind| runs.clone().filter(|run| run.verdict == kind).count();
            let seconds: f64 = runs.clone().map(|run| run.seconds).sum();
            sums.add_row([
                name.clone(),
                driver.to_owned(),
                runs.clone().count().to_string(),
                count(Kind::Pass).to_string(),
                count(Kind::Fail).to_string(),
                count(Kind::Skip).to_string(),
                format!("{seconds:.0}"),
            ]);
        }
    }
    let mut text = format!(
        "<!-- made by `make suites` -->\n# The field's own suites, under both drivers\n\n{sums}\n"
    );
    for (name, saved) in suites {
        let mut rows = table(["test", "nd_pmem", "rust_pmem", "why"]);
        for (test, runs) in &saved.tests {
            let cell = |driver| match runs.get(driver) {
                None => String::new(),
                Some(run) if run.reason.is_empty() => {
                    format!("{}, {:.0} s", run.verdict, run.seconds)
                }
                Some(run) => format!(
                    "{}, {:.0} s: {}",
                    run.verdict,
                    run.seconds,
                    run.reason.replace('|', "\\|")
                ),
            };
            let why = saved.whys.get(test).cloned().unwrap_or_default();
            rows.add_row([test.clone(), cell(DRIVERS[0]), cell(DRIVERS[1]), why]);
        }
        let revisions: BTreeSet<&str> = saved
            .tests
            .values()
            .filter_map(|runs| runs.get(DRIVERS[1]))
            .map(|run| run.revision.as_str())
            .filter(|revision| !revision.is_empty())
            .collect();
        let of = match revisions.is_empty() {
            true => String::new(),
            false => format!(", with rust_pmem {}", Vec::from_iter(revisions).join(", ")),
        };
        let _ = write!(
            text,
            "\n## {name}\n\nOf {}, on Linux {}{of}.\n\n{rows}\n",
            saved.about, saved.kernel
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
about = "a suite"
image = "a.img"
run = "tests/a/run"
module = "a.ko"
build = "a"
harmless = ["cleanup: command"]
machine = ""
test = [{ name = "one", quick = true }, { name = "two", timeout = 5 }]
[[machines]]
machine = "--bare"
test = [{ name = "three" }]
[[reasons]]
test = "two"
nd_pmem = "fail"
rust_pmem = "fail"
why = "It is broken."
[[reasons]]
test = "three"
nd_pmem = "fail"
rust_pmem = "pass"
why = "C is broken."
"#;

    fn parsed(text: &str) -> Result<Suite> {
        Suite::parse(Path::new("/"), "a", text)
    }

    #[test]
    fn description_is_read() {
        let suite = parsed(TEXT).unwrap();
        let cases: Vec<_> = suite
            .cases
            .iter()
            .map(|case| {
                (
                    case.name.as_str(),
                    case.machine.as_str(),
                    case.quick,
                    case.timeout,
                )
            })
            .collect();
        assert_eq!(
            cases,
            [
                ("one", "", true, None),
                ("two", "", false, Some(5)),
                ("three", "--bare", false, None)
            ]
        );
    }

    #[test]
    fn invalid_description_is_refused() {
        for (from, to, reason) in [
            ("name = \"two\"", "name = \"one\"", "two tests of one name"),
            ("test = \"two\"", "test = \"four\"", "there is no such test"),
            ("It is broken.", " ", "no why"),
            ("--bare", "--bear", "machine: --bear"),
            ("\"fail\"", "\"bad\"", "unknown variant"),
        ] {
            let error = parsed(&TEXT.replace(from, to)).err().unwrap();
            assert!(format!("{error:#}").contains(reason), "{error:#}");
        }
    }

    #[test]
    fn listed_reasons_excuse_the_results_that_they_describe() {
        use Kind::{Fail, Pass, Skip};
        let suite = parsed(TEXT).unwrap();
        let both: &[&str] = &DRIVERS;
        let judged = |test: &str, drivers: &[&str], c, rust| {
            let run = |verdict| Run {
                verdict,
                reason: "so".into(),
                seconds: 1.0,
                hash: String::new(),
                revision: String::new(),
            };
            let runs = [("nd_pmem".into(), run(c)), ("rust_pmem".into(), run(rust))];
            suite.judge(test, &runs.into(), drivers).0
        };
        let skipped = |why: &str| Outcome::Skipped(why.into());
        let failed = |what: &str| Outcome::Failed(format!("{what}; no reason is listed for that"));
        assert_eq!(judged("one", both, Pass, Pass), Outcome::Passed);
        assert_eq!(
            judged("one", both, Pass, Fail),
            failed("rust_pmem: FAIL: so")
        );
        assert_eq!(judged("one", both, Fail, Pass), failed("nd_pmem: FAIL: so"));
        assert_eq!(
            judged("one", both, Skip, Skip),
            failed("nd_pmem: skip: so; rust_pmem: skip: so")
        );
        assert_eq!(judged("one", &["rust_pmem"], Fail, Pass), Outcome::Passed);
        assert_eq!(judged("two", both, Fail, Fail), skipped("It is broken."));
        assert_eq!(
            judged("two", both, Pass, Fail),
            failed("rust_pmem: FAIL: so")
        );
        assert_eq!(
            judged("two", &["rust_pmem"], Pass, Fail),
            skipped("It is broken.")
        );
        assert_eq!(judged("three", both, Fail, Pass), Outcome::Passed);
        assert_eq!(
            judged("three", &["rust_pmem"], Pass, Fail),
            failed("rust_pmem: FAIL: so")
        );
        assert_eq!(
            judged("three", &["nd_pmem"], Fail, Pass),
            skipped("C is broken.")
        );
        let mut runs = BTreeMap::new();
        for (driver, reason) in DRIVERS.iter().zip(["so", "otherwise"]) {
            let run = Run {
                verdict: Fail,
                reason: reason.into(),
                seconds: 1.0,
                hash: String::new(),
                revision: String::new(),
            };
            runs.insert((*driver).to_owned(), run);
        }
        assert_eq!(
            suite.judge("two", &runs, both).0,
            Outcome::Failed(
                "not in the same way: nd_pmem: FAIL: so; rust_pmem: FAIL: otherwise".into()
            )
        );
    }

    #[test]
    fn table_names_the_revisions_of_its_results() {
        let run = |revision: &str| Run {
            revision: revision.into(),
            ..failed("so")
        };
        let runs = |c, rust| {
            let runs = [("nd_pmem".into(), run(c)), ("rust_pmem".into(), run(rust))];
            BTreeMap::from(runs)
        };
        let saved = |tests| Saved {
            about: "somebody".into(),
            kernel: "7.2".into(),
            tests: BTreeMap::from(tests),
            whys: BTreeMap::new(),
        };
        let tests = [
            ("one".into(), runs("b1", "b1")),
            ("two".into(), runs("c3", "a2")),
        ];
        let text = markdown(&[("suite".into(), saved(tests))]);
        assert!(text.contains("Of somebody, on Linux 7.2, with rust_pmem a2, b1.\n"));
        let tests = [("one".into(), runs("", "")), ("two".into(), runs("", ""))];
        let text = markdown(&[("suite".into(), saved(tests))]);
        assert!(text.contains("Of somebody, on Linux 7.2.\n"));
    }

    fn failed(reason: &str) -> Run {
        Run {
            verdict: Kind::Fail,
            reason: reason.into(),
            seconds: 1.0,
            hash: String::new(),
            revision: String::new(),
        }
    }

    #[test]
    fn only_the_same_crash_of_nd_pmem_excuses_a_crash() {
        let judged = |suite: &Suite, test: &str, drivers: &[&str], c: Run, rust: Run| {
            let runs = [("nd_pmem".into(), c), ("rust_pmem".into(), rust)];
            suite.judge(test, &runs.into(), drivers).0.kind()
        };
        let listed = TEXT.replace(
            "\"three\"\nnd_pmem = \"fail\"",
            "\"three\"\nnd_pmem = \"skip\"",
        );
        let listed =
            parsed(&listed.replace("rust_pmem = \"pass\"", "rust_pmem = \"fail\"")).unwrap();
        let open = parsed(&TEXT.replace("about =", "open = true\nabout =")).unwrap();
        let hung = format!("{TIMED_OUT}9 s, in pmem_submit_bio");
        let warning = format!("{REPORTED}WARNING: fs/dax.c:12 at a+0x1/0x2, CPU#0:");
        for (crash, same, other) in [
            (
                format!("{REPORTED}BUG: address: 00000000deadbeef, in a"),
                format!("{REPORTED}BUG: address: 00000000feedbeef, in a"),
                format!("{REPORTED}BUG: address: 00000000deadbeef, in b"),
            ),
            (
                format!("{warning} fio/301"),
                format!("2 of 5 times: {warning} pmemctl/22"),
                format!("{REPORTED}WARNING: fs/dax.c:12 at b+0x1/0x2, CPU#0: fio/301"),
            ),
            (
                hung.clone(),
                format!("{TIMED_OUT}10 s, in pmem_submit_bio"),
                format!("{TIMED_OUT}9 s, in xfs_buf_lock"),
            ),
            (LOST.to_owned(), LOST.to_owned(), hung),
        ] {
            let rust = failed(&crash);
            for (suite, test) in [(&listed, "two"), (&open, "one")] {
                let both = |c: &str| judged(suite, test, &DRIVERS, failed(c), rust.clone());
                assert_eq!(both(&same), Kind::Skip, "{crash}");
                assert_eq!(both(&other), Kind::Fail, "{crash}");
                assert_eq!(both("so"), Kind::Fail, "{crash}");
                // nd_pmem alone crashed.
                let c = judged(suite, test, &DRIVERS, rust.clone(), failed("so"));
                assert_eq!(c, Kind::Fail, "{crash}");
                // Without nd_pmem.
                let alone = judged(suite, test, &["rust_pmem"], rust.clone(), rust.clone());
                assert_eq!(alone, Kind::Fail, "{crash}");
            }
            let skip = Run {
                verdict: Kind::Skip,
                ..failed("so")
            };
            let both = judged(&listed, "three", &DRIVERS, skip.clone(), rust.clone());
            assert_eq!(both, Kind::Fail, "{crash}");
            let both = judged(&listed, "three", &DRIVERS, skip, failed("so"));
            assert_eq!(both, Kind::Skip);
        }
    }

    #[test]
    fn reason_of_a_crash_names_its_place() {
        let reason = |reason: &str, lines: &[&str]| {
            let lines = lines.iter().map(|&line| line.to_owned()).collect();
            let result = TestResult {
                lines,
                ..TestResult::new("a", Outcome::Failed(reason.into()))
            };
            Run::new(&result, String::new()).reason
        };
        let fault = format!("{REPORTED}BUG: unable to handle page fault for address: ff110000");
        let lines = [
            "[    9.1] BUG: unable to handle page fault for address: ff110000",
            "[    9.2] RIP: 0010:filemap_cachestat+0x1a/0x2b0",
            "[    9.3]  ksys_mmap_pgoff+0x1/0x2",
        ];
        assert_eq!(
            reason(&fault, &lines),
            format!("{fault}, in filemap_cachestat")
        );
        let trace = [lines[0], lines[2]];
        assert_eq!(
            reason(&fault, &trace),
            format!("{fault}, in ksys_mmap_pgoff")
        );
        assert_eq!(reason(&fault, &lines[..1]), fault);
        // Every task that hangs waits in the scheduler.
        let hung = format!("{TIMED_OUT}9 s");
        let waits = [
            "task:fio state:D",
            " __schedule+0x1/0x2",
            " schedule+0x3/0x4",
            " xfs_buf_lock+0x5/0x6",
        ];
        assert_eq!(reason(&hung, &waits), format!("{hung}, in xfs_buf_lock"));
        // The title has it, or the kernel has reported nothing.
        let warning = format!("{REPORTED}WARNING: a.c:1 at b+0x1/0x2");
        assert_eq!(reason(&warning, &["WARNING: a.c:1 at b+0x1/0x2"]), warning);
        assert_eq!(reason("status 1: so", &lines), "status 1: so");
    }

    #[test]
    fn result_is_of_the_same_guest_module_scripts_and_tests() {
        let top = tempfile::tempdir().unwrap();
        let tree = tempfile::tempdir().unwrap();
        let write = |folder: &Path, name: &str, text: &str| {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let of_top = [
            "build/images/a.img",
            "a.ko",
            "tests/a/suite.toml",
            "tests/lib/a.sh",
        ];
        for name in of_top.into_iter().chain(["tools/testing/vm/guest/main"]) {
            write(top.path(), name, "");
        }
        write(tree.path(), "tests/generic/001", "");
        let suite = Suite::parse(top.path(), "a", TEXT).unwrap();
        let suite = suite.with_tests(tree.path(), Vec::new(), 9, "").unwrap();
        let mut before = suite.hash("rust_pmem").unwrap();
        let c = suite.hash("nd_pmem").unwrap();
        write(tree.path(), ".git/index", "");
        assert_eq!(suite.hash("rust_pmem").unwrap(), before);
        write(top.path(), "a.ko", "new");
        assert_eq!(suite.hash("nd_pmem").unwrap(), c);
        for (folder, name) in [
            (top.path(), "a.ko"),
            (top.path(), "tests/a/suite.toml"),
            (top.path(), "tests/lib/a.sh"),
            (top.path(), "tools/testing/vm/guest/main"),
            (tree.path(), "tests/generic/001"),
            (tree.path(), "tests/generic/002"),
        ] {
            write(folder, name, "newer");
            let after = suite.hash("rust_pmem").unwrap();
            assert_ne!(after, before, "{name}");
            before = after;
        }
    }

    #[test]
    fn open_suite_compares_with_nd_pmem() {
        use Kind::{Fail, Pass, Skip};
        let text = TEXT.replace(
            "about =",
            "open = true\noften = [{ test = \"*/f*\", runs = 3 }]\nabout =",
        );
        let suite = parsed(&text).unwrap();
        let tree = Path::new("/tree");
        let suite = suite.with_tests(tree, vec!["a/four".into()], 9, "--cpus 1");
        let suite = suite.unwrap();
        let added = suite.cases.last().unwrap();
        assert_eq!((added.machine.as_str(), added.again), (" --cpus 1", 2));
        let run = |verdict| Run {
            verdict,
            reason: "so".into(),
            seconds: 1.0,
            hash: String::new(),
            revision: String::new(),
        };
        let judged = |c, rust| {
            let runs = [("nd_pmem".into(), run(c)), ("rust_pmem".into(), run(rust))];
            suite.judge("a/four", &runs.into(), &DRIVERS).0
        };
        for (c, rust) in [(Pass, Pass), (Fail, Pass), (Skip, Pass)] {
            assert_eq!(judged(c, rust), Outcome::Passed);
        }
        for (c, rust) in [(Pass, Fail), (Pass, Skip), (Skip, Fail)] {
            assert!(matches!(judged(c, rust), Outcome::Failed(_)), "{c} {rust}");
        }
        let both = Outcome::Skipped("nd_pmem: FAIL: so; rust_pmem: FAIL: so".into());
        assert_eq!(judged(Fail, Fail), both);
        let runs = [
            ("nd_pmem".into(), run(Fail)),
            ("rust_pmem".into(), failed("otherwise")),
        ];
        assert_eq!(
            suite.judge("a/four", &runs.into(), &DRIVERS).0,
            Outcome::Skipped(
                "not in the same way: nd_pmem: FAIL: so; rust_pmem: FAIL: otherwise".into()
            )
        );

        let all = Run::worst_of(vec![run(Pass), run(Fail), run(Pass)]);
        assert_eq!((all.verdict, all.seconds), (Fail, 3.0));
        assert_eq!(all.reason, "1 of 3 times: so");
        let all = Run::worst_of(vec![run(Pass), run(Fail), failed(LOST)]);
        assert_eq!(all.reason, format!("2 of 3 times: {LOST}"));
        assert_eq!(Run::worst_of(vec![run(Pass), run(Pass)]).reason, "so");
    }

    #[test]
    fn command_to_run_a_test_alone_names_the_suite() {
        let mut suite = parsed(TEXT).unwrap();
        assert_eq!(suite.rerun("one"), "make suite-a TESTS=one");
        suite.name = "xfstests".into();
        assert!(suite.rerun("one").starts_with("make xfstests XFSTESTS=DIR"));
    }
}
