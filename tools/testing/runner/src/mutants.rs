// SPDX-License-Identifier: GPL-2.0

//! Checks that the selftests find faults: each fault of tests/mutants.toml is planted into a copy of the driver, which is
//! built as a module of its own, and the one selftest that the list names for it must fail.

use crate::executor::{Executor, GUEST, GuestTest, WHOLE};
use crate::lint;
use crate::markdown::{plain, table};
use crate::results::{Activity, Clock, Outcome, Results, TestResult};
use crate::scheduler::{self, Job, locked};
use crate::seconds::Seconds;
use crate::selftest::{self, Selftest, grouped};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Path of the list from the root of the checkout.
pub const LIST: &str = "tests/mutants.toml";
/// Folder of the builds; the table is next to it, as .md.
const BUILD: &str = "build/mutants";
/// The sources of the module that are not Rust.
const BESIDE: [&str; 3] = [
    "Kbuild",
    "abstractions/bindgen_parameters",
    "abstractions/bindings_helper.h",
];
/// Name of the group of the results.
pub const GROUP: &str = "mutants";
/// Name of the driver without a fault.
const NONE: &str = "without";

/// A planted fault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    pub name: String,
    /// The fault, as a sentence.
    pub fault: String,
    /// Path of the source from the root of the checkout.
    file: PathBuf,
    /// A text that the source has exactly once.
    text: String,
    /// The text that replaces it.
    becomes: String,
    /// The selftest that must fail.
    pub test: String,
    /// The debug kernel that must report the fault, or that the test needs. It is tried there only.
    pub kernel: Option<String>,
    /// A text that must be in the kernel's first report. Without one, a check of the test must fail.
    pub report: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

impl Mutant {
    /// Plants the fault into a source.
    fn plant(&self, source: &str) -> Result<String> {
        let found = source.matches(&self.text).count();
        ensure!(
            found == 1,
            "{}: {} has the text {found} times, not once: {}",
            self.name,
            self.file.display(),
            self.text.trim()
        );
        Ok(source.replace(&self.text, &self.becomes))
    }
}

/// Reads the list. Its entries name some of these tests.
pub fn load(top: &Path, tests: &[Selftest]) -> Result<Vec<Mutant>> {
    let text = fs::read_to_string(top.join(LIST)).context(LIST)?;
    parse(&text, tests).context(LIST)
}

fn parse(text: &str, tests: &[Selftest]) -> Result<Vec<Mutant>> {
    let mutants = toml::from_str::<List>(text)?.mutant;
    let mut names = BTreeSet::from([NONE]);
    for mutant in &mutants {
        let Mutant {
            name, fault, test, ..
        } = mutant;
        let good = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        ensure!(
            !name.is_empty() && name.chars().all(good),
            "\"{name}\" is no name of a mutant: letters, digits, -"
        );
        ensure!(names.insert(name), "{name}: there are two of this name");
        ensure!(
            !fault.trim().is_empty(),
            "{name}: it does not describe the fault"
        );
        let known = tests.iter().find(|known| known.name == *test);
        let known = known.with_context(|| format!("{name}: there is no test {test}"))?;
        ensure!(
            mutant.kernel.is_none() || mutant.report.is_some() || known.debug,
            "{name}: a debug kernel is for its report, or for a test that needs one"
        );
        ensure!(
            mutant.kernel.is_some() || !known.debug,
            "{name}: {test} needs a debug kernel"
        );
    }
    Ok(mutants)
}

/// Checks that all faults of the list can be planted into the sources.
pub fn lint(top: &Path, tests: &[Selftest], results: &mut Results) -> Result<()> {
    let clock = results.running("mutants");
    let lines: Vec<String> = match load(top, tests) {
        Ok(mutants) => mutants
            .iter()
            .filter_map(|mutant| mutant.planted(top).err())
            .map(|error| format!("{error:#}"))
            .collect(),
        Err(error) => vec![format!("{error:#}")],
    };
    let outcome = match lines.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Failed(format!("{LIST} does not fit the driver's sources")),
    };
    results.spend(Activity::Lints, clock.time());
    results.add(TestResult {
        about: "each planted fault has its place in the driver".into(),
        time: clock.time(),
        lines,
        ..TestResult::new("mutants", outcome)
    });
    Ok(())
}

impl Mutant {
    /// Reads the source and plants the fault.
    fn planted(&self, top: &Path) -> Result<String> {
        let path = top.join(&self.file);
        let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        self.plant(&source)
    }

    /// Returns its folder for a debug kernel, where it is built by that kernel's compilers, from the root of the checkout.
    fn folder(&self, kernel: &str) -> PathBuf {
        Path::new(BUILD).join(kernel).join(&self.name)
    }
}

/// Plants each fault into a copy of the driver's sources, to be built for this debug kernel.
pub fn plant(top: &Path, mutants: &[Mutant], kernel: &str) -> Result<()> {
    for mutant in mutants {
        let folder = top.join(mutant.folder(kernel));
        remove_old_sources(top, &folder)?;
        for path in sources(top)? {
            let copy = folder.join(&path);
            let parent = copy.parent().context("a source has a folder")?;
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
            write_source(top, &path, Some(mutant), &copy)?;
        }
        println!("{}", mutant.folder(kernel).display());
    }
    Ok(())
}

/// Removes copies of sources that the driver does not have any more: rustc would find them as modules.
fn remove_old_sources(top: &Path, folder: &Path) -> Result<()> {
    let known = sources(top)?;
    for copy in glob::glob(&format!("{}/**/*.rs", folder.display()))? {
        let copy = copy?;
        let path = copy.strip_prefix(folder)?;
        let generated = path.to_string_lossy().ends_with("_generated.rs");
        if !generated && !known.iter().any(|known| known == path) {
            fs::remove_file(&copy).with_context(|| copy.display().to_string())?;
        }
    }
    Ok(())
}

/// Copies a source, with the fault if that is planted there. A copy that has not changed is not written, so that Kbuild does
/// not build it again.
fn write_source(top: &Path, path: &Path, mutant: Option<&Mutant>, copy: &Path) -> Result<()> {
    let mut text = fs::read_to_string(top.join(path))?;
    if let Some(mutant) = mutant.filter(|mutant| mutant.file == path) {
        text = mutant.plant(&text)?;
    }
    if let Some(folder) = copy.parent() {
        fs::create_dir_all(folder)?;
    }
    if fs::read_to_string(copy).ok().as_deref() != Some(&text) {
        fs::write(copy, text).with_context(|| copy.display().to_string())?;
    }
    Ok(())
}

/// A copy of the driver's sources, where faults are planted.
struct Workspace {
    top: PathBuf,
    folder: PathBuf,
}

impl Workspace {
    fn new(top: &Path) -> Result<Self> {
        let workspace = Self {
            top: top.to_path_buf(),
            folder: top.join(BUILD),
        };
        remove_old_sources(top, &workspace.folder.join("source"))?;
        Ok(workspace)
    }

    /// Builds the module with this fault, or with none. Returns its path from the root of the checkout, or the errors of the
    /// build.
    fn build(&self, mutant: Option<&Mutant>) -> Result<Result<PathBuf, Vec<String>>> {
        for path in sources(&self.top)? {
            let copy = self.folder.join("source").join(&path);
            write_source(&self.top, &path, mutant, &copy)?;
        }
        let name = mutant.map_or(NONE, |mutant| &mutant.name);
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let mut command = lint::make(&self.top);
        let source = self.folder.join("source");
        command.arg("module").arg(format!("M={}", source.display()));
        let (good, output) = lint::run(&mut command)?;
        fs::write(folder.join("build.log"), &output)?;
        if !good {
            return Ok(Err(lint::first_errors(&output)));
        }
        fs::copy(source.join("rust_pmem.ko"), folder.join("rust_pmem.ko"))?;
        Ok(Ok(Path::new(BUILD).join(name).join("rust_pmem.ko")))
    }
}

/// Returns the paths of the sources from the root of the checkout, without files that the build makes.
fn sources(top: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = lint::module_sources(top)?;
    sources.extend(BESIDE.map(PathBuf::from));
    Ok(sources)
}

/// Whether a fault was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Detection {
    /// These checks of its test failed, or the kernel reported this.
    Killed(Vec<String>),
    /// Its test passed.
    Survived,
    /// Its test gave no answer, for this reason.
    Unknown(String),
}

impl Detection {
    fn of(result: &TestResult, report: Option<&str>) -> Self {
        if let (Outcome::Failed(why), Some(report)) = (&result.outcome, report) {
            return match why.contains(report) {
                true => Self::Killed(vec![why.clone()]),
                false => Self::Unknown(format!("the test broke, without that report: {why}")),
            };
        }
        let checks = result
            .subtests
            .iter()
            .filter(|subtest| subtest.name != WHOLE && subtest.outcome.is_failure());
        let checks: Vec<String> = checks.map(|subtest| subtest.name.clone()).collect();
        match &result.outcome {
            Outcome::Failed(_) if !checks.is_empty() => Self::Killed(checks),
            Outcome::Failed(why) => Self::Unknown(format!(
                "the test broke, but none of its checks failed: {why}"
            )),
            Outcome::Passed => Self::Survived,
            Outcome::Skipped(why) => Self::Unknown(format!("the test was skipped: {why}")),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Killed(_) => Outcome::Passed,
            other => Outcome::Failed(other.to_string()),
        }
    }
}

impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(checks) => {
                write!(f, "killed: {}", checks[0])?;
                match checks.len() {
                    1 => Ok(()),
                    count => write!(f, " (and {} more)", count - 1),
                }
            }
            Self::Survived => f.write_str("SURVIVED"),
            Self::Unknown(why) => f.write_str(why),
        }
    }
}

/// A row of the table.
struct Row<'a> {
    mutant: &'a Mutant,
    detection: Detection,
    time: Duration,
}

/// Tries these mutants, `threads` at a time, and counts each. Their tests run without a fault first.
pub fn run(
    top: &Path,
    mutants: &[Mutant],
    tests: &[Selftest],
    seconds: &Seconds,
    threads: usize,
    results: &mut Results,
) -> Result<()> {
    let by_name: BTreeMap<&str, &Selftest> = tests
        .iter()
        .map(|test| (test.name.as_str(), test))
        .collect();
    let workspace = Workspace::new(top)?;
    let good = &controls(&workspace, mutants, &by_name, seconds, threads, results)?;
    results.heading("With a fault");
    let workspace = &Mutex::new(workspace);
    let rows = &Mutex::new(Vec::new());
    let job = |(index, mutant)| {
        let mutant: &Mutant = mutant;
        let test = by_name[mutant.test.as_str()];
        let passes = good.contains(&test.name);
        Job::new(seconds.of([test]), move |results: &mut Results| {
            results.resume_group(GROUP);
            let clock = results.running(&mutant.name);
            let (detection, lines) = match passes {
                true => try_out(workspace, top, mutant, test, results, &clock)?,
                false => (
                    Detection::Unknown(format!("{} fails without the fault, too", test.name)),
                    Vec::new(),
                ),
            };
            let time = clock.time();
            results.add(TestResult {
                about: format!("{} {detection}", test.name),
                time,
                lines,
                ..TestResult::new(&mutant.name, detection.outcome())
            });
            let row = Row {
                mutant,
                detection,
                time,
            };
            locked(rows).push((index, row));
            Ok(())
        })
    };
    let jobs = mutants.iter().enumerate().map(job).collect();
    scheduler::run(jobs, threads, results)?;
    let mut rows = mem::take(&mut *locked(rows));
    rows.sort_by_key(|(index, _)| *index);
    let rows: Vec<Row<'_>> = rows.into_iter().map(|(_, row)| row).collect();
    let path = top.join(BUILD).with_extension("md");
    fs::write(&path, markdown(&rows)).with_context(|| path.display().to_string())
}

/// Runs the tests without a fault, and returns those that pass.
fn controls(
    workspace: &Workspace,
    mutants: &[Mutant],
    by_name: &BTreeMap<&str, &Selftest>,
    seconds: &Seconds,
    threads: usize,
    results: &mut Results,
) -> Result<BTreeSet<String>> {
    let needed: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.test.as_str()).collect();
    let controls: Vec<Selftest> = needed.iter().map(|name| by_name[name].clone()).collect();
    results.heading("Without a fault");
    let mut executor = Executor::new("rust_pmem", workspace.folder.join(NONE));
    // All mutants are for the same kernel. For another one than the stock kernel, make has built the driver.
    if let Some(kernel) = mutants.iter().find_map(|mutant| mutant.kernel.as_deref()) {
        executor.use_kernel(kernel)?;
    } else {
        let begin = Instant::now();
        let built = workspace.build(None)?;
        results.spend(Activity::Builds, begin.elapsed());
        let module = match built {
            Ok(module) => module,
            Err(lines) => {
                results.add(TestResult {
                    lines,
                    ..TestResult::new(NONE, Outcome::Failed("it can't be built".into()))
                });
                return Ok(BTreeSet::new());
            }
        };
        executor.module = Path::new(GUEST).join(module);
    }
    let executor = &executor;
    let good = &Mutex::new(BTreeSet::new());
    let job = |group: Vec<Selftest>| {
        Job::new(seconds.of(&group), move |results: &mut Results| {
            results.resume_group(GROUP);
            for result in executor.group(&selftest::guest_tests(&group)?, results) {
                if result.outcome == Outcome::Passed {
                    locked(good).insert(result.name.clone());
                }
                results.count(result);
            }
            Ok(())
        })
    };
    let jobs = grouped(controls).into_iter().map(job).collect();
    scheduler::run(jobs, threads, results)?;
    let good = mem::take(&mut *locked(good));
    Ok(good)
}

/// Builds a mutant and runs its test. Also returns what to show where the fault was not found.
fn try_out(
    workspace: &Mutex<Workspace>,
    top: &Path,
    mutant: &Mutant,
    test: &Selftest,
    results: &mut Results,
    clock: &Clock,
) -> Result<(Detection, Vec<String>)> {
    let rerun = format!("make mutants MUTANTS={}", mutant.name);
    let mut executor = Executor::new("rust_pmem", top.join(BUILD).join(&mutant.name));
    let module = if let Some(kernel) = &mutant.kernel {
        executor.use_kernel(kernel)?;
        mutant.folder(kernel).join("rust_pmem.ko")
    } else {
        let workspace = locked(workspace);
        let begin = Instant::now();
        let built = workspace.build(Some(mutant));
        drop(workspace);
        results.spend(Activity::Builds, begin.elapsed());
        match built {
            Ok(Ok(module)) => module,
            Ok(Err(lines)) => return Ok((Detection::Unknown("it can't be built".into()), lines)),
            Err(error) => return Ok((Detection::Unknown(format!("{error:#}")), Vec::new())),
        }
    };
    executor.module = Path::new(GUEST).join(module);
    let test = GuestTest {
        rerun: rerun.clone(),
        ..test.guest_test()?
    };
    let result = executor.alone(&test, results, clock)?;
    let detection = Detection::of(&result, mutant.report.as_deref());
    let lines = match detection {
        Detection::Killed(_) => Vec::new(),
        Detection::Survived => vec![
            format!("expected: a check of {} fails", test.name),
            "seen:     all of them pass".to_owned(),
            match &mutant.kernel {
                Some(kernel) => format!("run alone: {rerun} KERNEL={kernel}"),
                None => format!("run alone: {rerun}"),
            },
        ],
        Detection::Unknown(_) => result.lines,
    };
    Ok((detection, lines))
}

fn markdown(rows: &[Row<'_>]) -> String {
    let killed = |row: &&Row<'_>| matches!(row.detection, Detection::Killed(_));
    let mut text = format!(
        "<!-- made by `make mutants` -->\n# Planted faults of rust_pmem, and the selftests that find them\n\n\
         {} faults; {} are found, each by the one selftest that is there for it. Without the fault the test passes.\n\n",
        rows.len(),
        rows.iter().filter(killed).count(),
    );
    let mut table = table(["fault", "the driver's", "test", "result", "s"]);
    for row in rows {
        let Mutant {
            name,
            fault,
            file,
            test,
            ..
        } = row.mutant;
        table.add_row([
            format!("{name}: {}", plain(fault)),
            file.display().to_string(),
            test.clone(),
            plain(&row.detection.to_string()),
            row.time.as_secs().to_string(),
        ]);
    }
    let _ = writeln!(text, "{table}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::tests::selftest;

    const ENTRY: &str = r#"
[[mutant]]
name = "no-flush"
fault = "Nothing is flushed."
file = "flush.rs"
text = "self.flush()"
becomes = "Ok(())"
test = "flush-fsync"
"#;

    fn parsed(text: &str) -> Result<Vec<Mutant>> {
        let tests = [("flush-fsync", ""), ("allocation-failure-io", "# debug\n")];
        let tests = tests.map(|(name, header)| selftest(name, header));
        parse(text, &tests)
    }

    #[test]
    fn test_that_needs_a_debug_kernel_needs_no_report() {
        let text = ENTRY.replace("flush-fsync", "allocation-failure-io");
        let mutants = parsed(&format!("{text}kernel = \"debug\"")).unwrap();
        assert_eq!(mutants[0].report, None);
    }

    #[test]
    fn fault_is_planted_where_its_text_occurs_once() {
        let mutant = &parsed(ENTRY).unwrap()[0];
        assert_eq!(mutant.plant("{ self.flush() }").unwrap(), "{ Ok(()) }");
        for (source, times) in [("", "0 times"), ("self.flush() self.flush()", "2 times")] {
            let error = mutant.plant(source).unwrap_err().to_string();
            assert!(error.contains(times), "{error}");
            assert!(error.contains("no-flush: flush.rs"), "{error}");
        }
    }

    #[test]
    fn invalid_entry_is_refused() {
        let twice = format!("{ENTRY}{ENTRY}");
        for (text, reason) in [
            (twice.as_str(), "two of this name"),
            (
                &ENTRY.replace("flush-fsync", "flush-fua"),
                "no test flush-fua",
            ),
            (
                &ENTRY.replace("no-flush", "no/flush"),
                "no name of a mutant",
            ),
            (
                &ENTRY.replace("Nothing is flushed.", ""),
                "does not describe the fault",
            ),
            (&ENTRY.replace("becomes", "instead"), "unknown field"),
            (&format!("{ENTRY}\nkernel = \"debug\""), "for its report"),
            (
                &ENTRY.replace("flush-fsync", "allocation-failure-io"),
                "needs a debug kernel",
            ),
            (&ENTRY.replace("no-flush", NONE), "two of this name"),
        ] {
            let error = format!("{:#}", parsed(text).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }

    fn ran(outcome: Outcome, subtests: &[(&str, Outcome)]) -> TestResult {
        let subtests = subtests.iter();
        TestResult {
            subtests: subtests
                .map(|(name, outcome)| TestResult::new(*name, outcome.clone()))
                .collect(),
            ..TestResult::new("flush-fsync", outcome)
        }
    }

    #[test]
    fn only_its_report_kills_a_mutant_that_has_one() {
        let of = |outcome| Detection::of(&ran(outcome, &[]), Some("KASAN")).to_string();
        let reported = |title| Outcome::Failed(format!("the kernel reported: {title}"));
        assert_eq!(
            of(reported("BUG: KASAN: slab-use-after-free")),
            "killed: the kernel reported: BUG: KASAN: slab-use-after-free"
        );
        assert!(of(reported("INFO: task hung")).contains("the test broke"));
        assert_eq!(of(Outcome::Passed), "SURVIVED");
        let failed = Outcome::Failed("why".into());
        let result = ran(failed.clone(), &[("a", failed)]);
        assert!(matches!(
            Detection::of(&result, Some("KASAN")),
            Detection::Unknown(_)
        ));
    }

    #[test]
    fn failed_check_kills_a_mutant() {
        let failed = || Outcome::Failed("why".into());
        for (result, detection) in [
            (
                ran(
                    failed(),
                    &[("a", Outcome::Passed), ("b", failed()), ("c", failed())],
                ),
                "killed: b (and 1 more)",
            ),
            // With a report of the kernel besides.
            (
                ran(failed(), &[("b", failed()), (WHOLE, failed())]),
                "killed: b",
            ),
            (ran(Outcome::Passed, &[("a", Outcome::Passed)]), "SURVIVED"),
            (
                ran(failed(), &[("a", Outcome::Passed), (WHOLE, failed())]),
                "the test broke, but none of its checks failed: why",
            ),
            (
                ran(failed(), &[]),
                "the test broke, but none of its checks failed: why",
            ),
            (
                ran(Outcome::Skipped("no disk".into()), &[]),
                "the test was skipped: no disk",
            ),
        ] {
            let found = Detection::of(&result, None);
            assert_eq!(found.to_string(), detection);
            assert_eq!(
                found.outcome() == Outcome::Passed,
                detection.starts_with("killed")
            );
        }
    }
}
