// SPDX-License-Identifier: GPL-2.0

//! Test suites that others have made: each test in a machine of its own, under either driver.
//!
//! tests/external/NAME/suite.toml describes one. What its tests came to is kept in build/suites/NAME.json,
//! from one run to the next, and build/suites.md is the table of all that is there.

use crate::ktap::Outcome;
use crate::lint::{self, Step};
use crate::report::table;
use crate::selftest::{GUEST, WORDS};
use crate::tally::{Tally, Test};
use anyhow::{Context, Result, ensure};
use glob::Pattern;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vm::{Ended, Options, Vm, reports};

/// Of a test that does not apply, as automake and meson have it.
const SKIP: i32 = 77;
/// Seconds of a test that has no timeout of its own.
const TIMEOUT: u64 = 300;
/// How often a machine that was lost is replaced.
const LOSSES: u32 = 1;

/// The drivers, in the order of the table.
const DRIVERS: [&str; 2] = ["nd_pmem", "rust_pmem"];

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
    #[serde(default)]
    test: Vec<Case>,
    #[serde(default)]
    machines: Vec<Group>,
    #[serde(default)]
    reasons: Vec<Reason>,
    /// Its tests are the user's, so that what does not pass under nd_pmem either needs no reason.
    #[serde(default)]
    open: bool,
    /// Tests of which one run says little.
    #[serde(default)]
    often: Vec<Often>,
}

/// Tests that are run more than once under each driver.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Often {
    /// A pattern.
    test: String,
    runs: u32,
}

/// Tests that want another machine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    machine: String,
    test: Vec<Case>,
}

/// A test.
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
    /// How often it runs, less one.
    #[serde(skip)]
    again: u32,
}

/// Why a test does not pass under each of the drivers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    test: String,
    nd_pmem: Verdict,
    rust_pmem: Verdict,
    why: String,
}

/// What a test came to under a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passed.
    Pass,
    /// It failed.
    Fail,
    /// It does not apply.
    Skip,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "skip",
        })
    }
}

/// One run of a test.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    verdict: Verdict,
    /// What went wrong or was missing.
    reason: String,
    seconds: f64,
    /// Of what was tested.
    hash: String,
}

impl Run {
    /// The worst of several runs, of which there is one at least; it says how many they are.
    fn of_all(mut all: Vec<Self>) -> Self {
        let count = all.len();
        let seconds = all.iter().map(|run| run.seconds).sum();
        all.sort_by_key(|run| run.verdict != Verdict::Fail);
        let alike = all
            .iter()
            .filter(|run| run.verdict == all[0].verdict)
            .count();
        let mut worst = all.swap_remove(0);
        worst.seconds = seconds;
        if count > 1 && worst.verdict == Verdict::Fail {
            worst.reason = format!("{alike} of {count} times: {}", worst.reason);
        }
        worst
    }
}

/// What is known of a suite.
#[derive(Default, Serialize, Deserialize)]
struct Results {
    about: String,
    kernel: String,
    /// By test, then by driver.
    tests: BTreeMap<String, BTreeMap<String, Run>>,
    /// Why what does not pass does not.
    whys: BTreeMap<String, String>,
}

impl Results {
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

/// A suite of the checkout.
pub struct Suite {
    /// Its name.
    pub name: String,
    top: PathBuf,
    /// What is tested, in a few words.
    pub about: String,
    image: PathBuf,
    run: PathBuf,
    module: PathBuf,
    build: String,
    machine: String,
    /// A test in which a command is not found fails, but for lines with these texts.
    harmless: Option<Vec<String>>,
    cases: Vec<Case>,
    reasons: Vec<Reason>,
    open: bool,
    often: Vec<Often>,
}

impl Suite {
    /// Reads tests/external/NAME/suite.toml.
    pub fn load(top: &Path, name: &str) -> Result<Self> {
        Self::load_from(top, name, &top.join("tests/external").join(name))
    }

    /// Reads suite.toml in a folder.
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
            cases,
            reasons,
            open,
            often,
        })
    }

    /// The same suite with these tests, in order, each of so many seconds at most, on a machine with
    /// these options as well.
    pub fn with_tests(mut self, names: Vec<String>, seconds: u64, options: &str) -> Result<Self> {
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

    /// The making of what it tests.
    pub fn build(&self) -> Step {
        let mut command = lint::make(&self.top);
        command.arg(&self.build);
        Step {
            name: "suite",
            about: "the driver as the suite wants it",
            command,
            warnings: true,
        }
    }

    fn file(&self) -> PathBuf {
        self.top
            .join("build/suites")
            .join(&self.name)
            .with_extension("json")
    }

    /// What a driver's tests are of: the guest's image, and the module if it is not in that.
    fn hash(&self, driver: &str) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        let image = fs::canonicalize(&self.image)
            .with_context(|| format!("{}: run setup/setup {}", self.image.display(), self.name))?;
        image.hash(&mut hasher);
        if driver == "rust_pmem" {
            fs::read(&self.module)
                .with_context(|| self.module.display().to_string())?
                .hash(&mut hasher);
        }
        Ok(format!("{:016x}", hasher.finish()))
    }

    /// Runs tests, those that patterns mean, or all, or the quick ones, under these drivers, and
    /// counts what they come to. With `resume`, not those again that have been tested as they are.
    pub fn test(
        &self,
        patterns: &[Pattern],
        quick: bool,
        resume: bool,
        drivers: &[&str],
        tally: &mut Tally,
    ) -> Result<()> {
        let file = self.file();
        let logs = file.with_extension("");
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let mut results = Results::load(&file)?;
        results.about = self.about.clone();
        results
            .tests
            .retain(|name, _| self.open || self.cases.iter().any(|case| case.name == *name));

        for pattern in patterns {
            if !self.cases.iter().any(|case| pattern.matches(&case.name)) {
                let outcome = Outcome::Failed(format!("{} has no such test", self.name));
                tally.add(Test::new(pattern.as_str(), outcome));
            }
        }
        let meant = |case: &&Case| match patterns {
            [] => case.quick || !quick,
            patterns => patterns.iter().any(|pattern| pattern.matches(&case.name)),
        };
        let hashes = drivers
            .iter()
            .map(|driver| Ok((*driver, self.hash(driver)?)))
            .collect::<Result<Vec<_>>>()?;
        for case in self.cases.iter().filter(meant) {
            for (driver, hash) in &hashes {
                let runs = results.tests.entry(case.name.clone()).or_default();
                if resume && runs.get(*driver).is_some_and(|run| run.hash == *hash) {
                    continue;
                }
                let mut all = Vec::new();
                for _ in 0..=case.again {
                    let kernel = &mut results.kernel;
                    all.push(self.once(case, driver, hash.clone(), &logs, kernel, tally)?);
                }
                let run = Run::of_all(all);
                let runs = results.tests.entry(case.name.clone()).or_default();
                runs.insert((*driver).to_owned(), run);
                results.save(&file)?;
            }
            let runs = &results.tests[&case.name];
            let (outcome, why) = self.judge(&case.name, runs, drivers);
            match why {
                Some(why) => results.whys.insert(case.name.clone(), why),
                None => results.whys.remove(&case.name),
            };
            results.save(&file)?;
            tally.count(Test {
                time: Duration::from_secs_f64(
                    drivers.iter().map(|driver| runs[*driver].seconds).sum(),
                ),
                ..Test::new(format!("{}: {}", self.name, case.name), outcome)
            });
        }
        write_table(&self.top)
    }

    /// What the runs of a test under these drivers mean, and why those that did not pass did not.
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
        let fits = |listed, found: Option<Verdict>| found.is_none_or(|found| found == listed);
        let reason = self.reasons.iter().find(|reason| {
            reason.test == test && fits(reason.nd_pmem, c) && fits(reason.rust_pmem, rust)
        });
        let why = reason.map(|reason| reason.why.clone());
        if [c, rust]
            .iter()
            .flatten()
            .all(|found| *found == Verdict::Pass)
        {
            return (Outcome::Passed, None);
        }
        let came: Vec<_> = DRIVERS
            .iter()
            .filter_map(|driver| runs.get(*driver).map(|run| (driver, run)))
            .filter(|(driver, run)| drivers.contains(driver) && run.verdict != Verdict::Pass)
            .map(|(driver, run)| format!("{driver}: {}: {}", run.verdict, run.reason))
            .collect();
        let both_fail = [c, rust] == [Some(Verdict::Fail); 2];
        let outcome = match (&why, rust.or(c)) {
            (None, _) if self.open => open_outcome(c, rust, &came.join("; ")),
            (None, _) => {
                Outcome::Failed(format!("{}; no reason is listed for that", came.join("; ")))
            }
            (Some(_), Some(Verdict::Pass)) => Outcome::Passed,
            // The same words, as far as the suite's script says which parts of a test failed.
            (Some(_), _)
                if both_fail
                    && without_addresses(&runs["nd_pmem"].reason)
                        != without_addresses(&runs["rust_pmem"].reason) =>
            {
                Outcome::Failed(format!("not in the same way: {}", came.join("; ")))
            }
            (Some(why), _) => Outcome::Skipped(why.clone()),
        };
        (outcome, why)
    }

    /// What the guest lacks: an absent tool must not look like a result.
    fn missing(&self, output: &str) -> Option<String> {
        let texts = self.harmless.as_ref()?;
        let harmless = |line: &str| texts.iter().any(|text| line.contains(text));
        let mut missing = output
            .lines()
            .filter(|line| line.contains("command not found") && !harmless(line));
        Some(format!("the guest lacks something: {}", missing.next()?))
    }

    /// Runs a test under a driver, and once more where the machine was lost.
    fn once(
        &self,
        case: &Case,
        driver: &str,
        hash: String,
        logs: &Path,
        kernel: &mut String,
        tally: &mut Tally,
    ) -> Result<Run> {
        let folder = logs.join(driver).join(&case.name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut options = Options::from_words(&case.machine)?;
        options.image = Some(self.image.clone());
        let command = format!(
            "export DRIVER={driver}; exec {GUEST}/{} {}",
            self.run.display(),
            shlex::try_quote(&case.name)?
        );
        let clock = tally.running(&format!("{driver}: {}", case.name));
        let mut losses = 0;
        let (verdict, reason, time, output) = loop {
            let memory = tempfile::tempdir()?;
            let serial = folder.join("serial.log");
            let mut note = |text: &str| tally.note(text);
            let mut vm = match Vm::boot(&options, memory.path(), &serial, &mut note) {
                Ok(vm) => vm,
                Err(error) => {
                    break (
                        Verdict::Fail,
                        error.to_string(),
                        clock.time(),
                        String::new(),
                    );
                }
            };
            *kernel = vm.kernel().to_owned();
            let limit = vm.limit(Duration::from_secs(case.timeout.unwrap_or(TIMEOUT)));
            let begin = Instant::now();
            let start = vm.serial().len();
            let (ended, output) = vm.output(&command, limit)?;
            let time = begin.elapsed();
            let reported = reports(&vm.serial().since(start)?).into_iter().next();
            if ended == Ended::TimedOut {
                vm.tell_who_waits();
            }
            if let (Ended::Lost(_), None, true) = (ended, &reported, losses < LOSSES) {
                losses += 1;
                tally.note(&format!(
                    "{driver}: {}: the machine was lost: again",
                    case.name
                ));
                continue;
            }
            let problem = reported
                .map(|report| format!("the kernel reported: {}", report.title))
                .or_else(|| self.missing(&output));
            let (verdict, reason) = verdict(ended, limit, problem, &output);
            break (verdict, reason, time, output);
        };
        fs::write(folder.join("output.log"), &output)?;
        let outcome = match verdict {
            Verdict::Pass => Outcome::Passed,
            Verdict::Fail => Outcome::Failed(reason.clone()),
            Verdict::Skip => Outcome::Skipped(reason.clone()),
        };
        let mut words = Vec::new();
        if verdict == Verdict::Fail {
            let lines: Vec<&str> = output.lines().collect();
            let last = lines.len().saturating_sub(WORDS);
            words.extend(lines[last..].iter().map(|line| line.to_string()));
            words.push(format!("all of it: {}", folder.display()));
        }
        tally.show(&Test {
            about: driver.to_owned(),
            time,
            words,
            ..Test::new(format!("{:<24} {driver}", case.name), outcome)
        });
        Ok(Run {
            verdict,
            reason,
            seconds: (time.as_secs_f64() * 10.0).round() / 10.0,
            hash,
        })
    }
}

/// What a test that nobody has given reasons for came to, which does not pass under both drivers: what
/// nd_pmem does is right.
fn open_outcome(c: Option<Verdict>, rust: Option<Verdict>, came: &str) -> Outcome {
    use Verdict::{Fail, Pass, Skip};
    match (c, rust) {
        (Some(Pass), Some(Fail | Skip)) | (Some(Skip), Some(Fail)) | (None, Some(Fail)) => {
            Outcome::Failed(came.to_owned())
        }
        (_, Some(Pass)) => Outcome::Passed,
        _ => Outcome::Skipped(came.to_owned()),
    }
}

/// Words that are addresses, as a kernel's report may have them, say nothing.
fn without_addresses(reason: &str) -> Vec<&str> {
    let address = |word: &&str| {
        let digits = word.trim_start_matches("0x");
        digits.len() >= 8 && digits.chars().all(|digit| digit.is_ascii_hexdigit())
    };
    let words = reason.split_whitespace();
    words.filter(|word| !address(word)).collect()
}

/// What the end of a test means, and why.
fn verdict(
    ended: Ended,
    limit: Duration,
    problem: Option<String>,
    output: &str,
) -> (Verdict, String) {
    if let Some(problem) = problem {
        return (Verdict::Fail, problem);
    }
    // A shell's traces of its commands are no last words.
    let words = output.lines().rev().map(str::trim);
    let last = words
        .clone()
        .find(|line| !line.is_empty() && !line.starts_with('+'))
        .unwrap_or("it said nothing");
    match ended {
        Ended::Exited(0) => (Verdict::Pass, String::new()),
        Ended::Exited(SKIP) => (Verdict::Skip, last.to_owned()),
        Ended::Exited(status) => {
            let line = words.clone().find(|line| line.contains("failed at line"));
            (
                Verdict::Fail,
                format!("status {status}: {}", line.unwrap_or(last)),
            )
        }
        Ended::TimedOut => (
            Verdict::Fail,
            format!("not done after {} s", limit.as_secs()),
        ),
        Ended::Lost(_) => (Verdict::Fail, "the machine was lost".to_owned()),
    }
}

/// Writes build/suites.md: what is known of each suite that has run.
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
        suites.push((name, Results::load(&file)?));
    }
    let path = top.join("build/suites.md");
    fs::write(&path, markdown(&suites)).with_context(|| path.display().to_string())
}

fn markdown(suites: &[(String, Results)]) -> String {
    let mut sums = table([
        "suite", "driver", "tests", "pass", "fail", "skip", "seconds",
    ]);
    for (name, results) in suites {
        for driver in DRIVERS {
            let runs = results.tests.values().filter_map(|runs| runs.get(driver));
            let count = |verdict| runs.clone().filter(|run| run.verdict == verdict).count();
            let seconds: f64 = runs.clone().map(|run| run.seconds).sum();
            sums.add_row([
                name.clone(),
                driver.to_owned(),
                runs.clone().count().to_string(),
                count(Verdict::Pass).to_string(),
                count(Verdict::Fail).to_string(),
                count(Verdict::Skip).to_string(),
                format!("{seconds:.0}"),
            ]);
        }
    }
    let mut text = format!(
        "<!-- made by `make suites` -->\n# The field's own suites, under both drivers\n\n{sums}\n"
    );
    for (name, results) in suites {
        let mut rows = table(["test", "nd_pmem", "rust_pmem", "why"]);
        for (test, runs) in &results.tests {
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
            let why = results.whys.get(test).cloned().unwrap_or_default();
            rows.add_row([test.clone(), cell(DRIVERS[0]), cell(DRIVERS[1]), why]);
        }
        let _ = write!(
            text,
            "\n## {name}\n\nOf {}, on Linux {}.\n\n{rows}\n",
            results.about, results.kernel
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
    fn a_suite() {
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
    fn suites_that_are_refused() {
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
    fn what_runs_mean() {
        use Verdict::*;
        let suite = parsed(TEXT).unwrap();
        let both: &[&str] = &DRIVERS;
        let judged = |test: &str, drivers: &[&str], c, rust| {
            let run = |verdict| Run {
                verdict,
                reason: "so".into(),
                seconds: 1.0,
                hash: String::new(),
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
    fn tests_of_the_users() {
        use Verdict::*;
        let text = TEXT.replace(
            "about =",
            "open = true\noften = [{ test = \"*/f*\", runs = 3 }]\nabout =",
        );
        let suite = parsed(&text).unwrap();
        let suite = suite.with_tests(vec!["a/four".into()], 9, "--cpus 1");
        let suite = suite.unwrap();
        let added = suite.cases.last().unwrap();
        assert_eq!((added.machine.as_str(), added.again), (" --cpus 1", 2));
        let run = |verdict| Run {
            verdict,
            reason: "so".into(),
            seconds: 1.0,
            hash: String::new(),
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

        let all = Run::of_all(vec![run(Pass), run(Fail), run(Pass)]);
        assert_eq!((all.verdict, all.seconds), (Fail, 3.0));
        assert_eq!(all.reason, "1 of 3 times: so");
        assert_eq!(Run::of_all(vec![run(Pass), run(Pass)]).reason, "so");
    }

    #[test]
    fn what_an_end_means() {
        let limit = Duration::from_secs(9);
        let of = |ended, output| verdict(ended, limit, None, output);
        assert_eq!(
            of(Ended::Exited(0), "+ exit 0\n"),
            (Verdict::Pass, String::new())
        );
        assert_eq!(
            of(Ended::Exited(77), "kernel 7.2: no jq\n+ exit 77\n"),
            (Verdict::Skip, "kernel 7.2: no jq".into())
        );
        assert_eq!(
            of(Ended::Exited(1), "test/clear.sh: failed at line 9\nafter\n"),
            (
                Verdict::Fail,
                "status 1: test/clear.sh: failed at line 9".into()
            )
        );
        assert_eq!(
            of(Ended::TimedOut, ""),
            (Verdict::Fail, "not done after 9 s".into())
        );
        let reported = verdict(Ended::Exited(0), limit, Some("WARNING".into()), "");
        assert_eq!(reported, (Verdict::Fail, "WARNING".into()));
    }

    #[test]
    fn what_is_missing() {
        let suite = parsed(TEXT).unwrap();
        let said = "x: line 1: cleanup: command not found\nx: line 2: jq: command not found\n";
        let missing = suite.missing(said).unwrap();
        assert_eq!(
            missing,
            "the guest lacks something: x: line 2: jq: command not found"
        );
        assert_eq!(suite.missing("jq: parse error\n"), None);
    }
}
