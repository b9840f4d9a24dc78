// SPDX-License-Identifier: GPL-2.0

//! `pmem-check`: runs the project's tests.

mod cargo_test;
mod coverage;
mod differences;
mod executor;
mod exit_status;
mod flaky;
mod green;
mod ktap;
mod lint;
mod machines;
mod markdown;
mod mutants;
mod names;
mod parity;
mod reading;
mod recorded;
mod report;
mod results;
mod scheduler;
mod seconds;
mod selftest;
mod suite;
mod xfstests;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use coverage::Coverage;
use differences::Differences;
use executor::Executor;
use flaky::Flaky;
use glob::Pattern;
use green::Green;
use lint::Step;
use parity::Comparison;
use recorded::Recordings;
use results::{Activity, Outcome, Results, TestResult};
use scheduler::Job;
use seconds::Seconds;
use selftest::Selftest;
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{Write, stderr};
use std::mem;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use suite::{Selection, Suite};
use vm::{Driver, LogFile};

/// Runs the project's tests: format and lints, host tests, the module's build, instruction counts, and
/// the selftests in virtual machines.
///
/// --quick runs what one needs before each commit: lints and host tests of what has changed since they last passed, and the
/// selftests with the tag quick.
///
/// The last line has the numbers of passed, failed and skipped tests. The output of each selftest and the
/// kernel's log are in build/check/DRIVER/TEST/, all results in build/check/DRIVER/junit.xml.
///
/// Tests with the tag compare are compared with results of nd_pmem that an earlier run has recorded, or this one records.
///
/// --parity runs selftests under both drivers and compares the results of each subtest; the table is
/// build/parity.md, and build/parity.json for programs; output, logs and junit.xml are in build/parity/.
/// With TESTS, all of these are named parity-partial.
///
/// --kernel runs selftests on another kernel of setup/kernels, or on a debug kernel. Logs are in
/// build/check-NAME/DRIVER/.
///
/// --coverage runs selftests, and notes which lines of the driver they execute: build/coverage.md, and
/// build/coverage.info for lcov's genhtml. Each line that none executes needs a reason in tests/coverage.toml,
/// unless TESTS are given. Logs are in build/coverage/.
///
/// --suite runs the test suite of another project under both drivers, or the one of --driver. The output of
/// each test is in build/suites/SUITE/DRIVER/TEST/, the table of all suites is build/suites.md.
///
/// --xfstests does the same with an installed tree of xfstests: the tests of a group, or those that match
/// TESTS, such as generic/4* or xfs/always/generic/413, each with dax=always, inode and never.
///
/// --mutants plants faults into copies of the driver (tests/mutants.toml), one at a time; the selftest that
/// the list names for a fault must fail. TESTS are names of faults. The table is build/mutants.md; logs are
/// in build/mutants/.
#[derive(Parser)]
#[command(name = "pmem-check", version, max_term_width = 120)]
struct Arguments {
    /// Run only the selftests that match these patterns, such as dax-* (otherwise everything)
    #[arg(value_name = "TESTS")]
    tests: Vec<String>,

    /// Run only format and lints
    #[arg(long, conflicts_with_all = ["tests", "list"])]
    lint: bool,

    /// Run the quick tier; with --mutants, only plant faults whose test is in it
    #[arg(long, conflicts_with_all = ["tests", "lint", "parity", "coverage", "driver", "kernel"])]
    quick: bool,

    /// Leave the guest of a failed test running, with a shell, and QEMU's gdb server in build/gdb.sock
    #[arg(long, requires = "tests", conflicts_with_all = ["lint", "parity", "coverage", "mutants", "list"])]
    keep: bool,

    /// Test this driver: rust_pmem (the default, except with --suite), or the stock nd_pmem, which
    /// tests the tests
    #[arg(long, value_name = "DRIVER")]
    driver: Option<Driver>,

    /// Run the selftests under both drivers and compare them
    #[arg(long, conflicts_with_all = ["driver", "lint"])]
    parity: bool,

    /// Run the tests of tests/external/SUITE/suite.toml
    #[arg(long, value_name = "SUITE", conflicts_with_all = ["parity", "lint", "list", "mutants"])]
    suite: Option<String>,

    /// Run the tests of xfstests installed in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["parity", "lint", "list", "mutants", "suite"])]
    xfstests: Option<PathBuf>,

    /// Type of the file systems of --xfstests
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "xfs",
        requires = "xfstests"
    )]
    fstyp: String,

    /// Group of the tests of --xfstests
    #[arg(
        long,
        value_name = "GROUP",
        default_value = "dax",
        requires = "xfstests"
    )]
    group: String,

    /// Run the selftests on another kernel, for which `make check KERNEL=NAME` has built everything
    #[arg(long, value_name = "NAME", conflicts_with_all = ["lint", "suite", "xfstests"])]
    kernel: Option<String>,

    /// Turn off the search for leaks of a debug kernel, which is half of the time
    #[arg(long, requires = "kernel", conflicts_with = "mutants")]
    no_leaks: bool,

    /// Skip tests whose result is known for the same module, guest and tree of xfstests
    #[arg(long)]
    resume: bool,

    /// Plant faults into the driver and check that the selftests find them
    #[arg(long, conflicts_with_all = ["driver", "lint", "parity"])]
    mutants: bool,

    /// Only plant the faults that this debug kernel must report, into build/mutants/KERNEL, and print the folders
    #[arg(long, requires_all = ["mutants", "kernel"])]
    plant: bool,

    /// Note which lines of the driver the selftests execute
    #[arg(long, conflicts_with_all = ["driver", "lint", "parity", "suite", "xfstests", "kernel", "mutants"])]
    coverage: bool,

    /// Revision of the sources, for the tables of --parity, --suite and --xfstests
    #[arg(long, value_name = "REVISION", default_value = "")]
    revision: String,

    /// Print each selftest's name, title, tags and machine, and run nothing
    #[arg(long)]
    list: bool,

    /// Set a variable in the environment of the selftests, such as SEED=7; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = executor::variable)]
    variables: Vec<String>,

    /// Folder of selftests, from the root of the checkout (for tests of this program)
    #[arg(long, value_name = "DIR", default_value = "tests", hide = true)]
    selftests: PathBuf,

    /// List of what may differ between the drivers, and why
    #[arg(long, value_name = "FILE", default_value = "tests/differences.toml")]
    differences: PathBuf,

    /// Run this many jobs at once (otherwise one more than there are processors, because guests also wait, or as the free
    /// memory allows; with --suite and --xfstests as many)
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Path of the table of --parity without .md (otherwise build/parity, or build/parity-partial with
    /// TESTS)
    #[arg(long, value_name = "PATH", requires = "parity")]
    table: Option<PathBuf>,
}

/// The default kernel's name in setup/kernels.
const STOCK: &str = "stock";

/// Groups of tests that take longer than this are divided, so that all jobs end at about the same time. Each part
/// boots a guest of its own.
const MAX_SECONDS: u64 = 200;

/// Suites whose quick tests run when everything is run.
const QUICK_SUITES: &[&str] = &["ndctl"];

impl Arguments {
    fn is_debug_kernel(&self) -> bool {
        self.kernel
            .as_deref()
            .is_some_and(executor::is_debug_kernel)
    }

    fn driver(&self) -> Driver {
        self.driver.unwrap_or(Driver::Rust)
    }

    fn jobs(&self) -> usize {
        let fitting = || {
            let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
            jobs_for(processors(), available_mib(&meminfo))
        };
        self.jobs.map_or_else(fitting, NonZeroUsize::get)
    }

    /// Returns how many guests of a suite run at once. They have memory for programs, and wait less than those of selftests.
    fn suite_guests(&self) -> usize {
        self.jobs.map_or_else(processors, NonZeroUsize::get)
    }

    /// Returns the drivers that suites run under.
    fn drivers(&self) -> &'static [&'static str] {
        match self.driver {
            None => &["nd_pmem", "rust_pmem"],
            Some(Driver::C) => &["nd_pmem"],
            Some(Driver::Rust) => &["rust_pmem"],
        }
    }
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Returns how many jobs run at once: one more than there are processors, as the memory of their guests allows.
fn jobs_for(processors: usize, available_mib: usize) -> usize {
    /// Of a usual guest, with its persistent memory.
    const GUEST_MIB: usize = 1536;
    (processors + 1).min(available_mib / GUEST_MIB).max(1)
}

/// Returns `MemAvailable` of `/proc/meminfo`, in MiB.
fn available_mib(meminfo: &str) -> usize {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse::<usize>().ok());
    kib.map_or(usize::MAX, |kib| kib / 1024)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(stderr(), "pmem-check: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let top = top()?;
    let patterns = patterns(&arguments.tests)?;
    let _lock = match arguments.list || arguments.plant {
        true => None,
        false => Some(lock(&top)?),
    };
    if let Some(name) = &arguments.suite {
        return run_suite(arguments, &top, Suite::load(&top, name)?, &patterns);
    }
    if let Some(tree) = &arguments.xfstests {
        let (fstyp, group) = (&arguments.fstyp, &arguments.group);
        let suite = xfstests::suite(&top, tree, fstyp, group, &patterns)?;
        return run_suite(arguments, &top, suite, &[]);
    }
    let known = selftest::find(&top, &arguments.selftests)?;
    let seconds = Seconds::load(&top)?;
    if arguments.mutants {
        return run_mutants(arguments, &top, &patterns, &known, &seconds);
    }
    let selected = |test: &&Selftest| match patterns.as_slice() {
        [] if arguments.quick => test.quick,
        [] => arguments.list || !(test.soak || test.debug && !arguments.is_debug_kernel()),
        patterns => patterns.iter().any(|pattern| test.matches(pattern)),
    };
    let mut tests: Vec<Selftest> = known.iter().filter(selected).cloned().collect();
    if arguments.coverage {
        // These have a plugin of their own.
        tests.retain(|test| test.machine.options.powerfail.is_none());
    }
    if arguments.list {
        for test in tests {
            println!("{}", test.name);
            println!("    {}", test.about);
            if !test.tags().is_empty() {
                println!("    tags: {}", test.tags().join(", "));
            }
            println!("    vm: {}", test.machine.label);
        }
        return Ok(true);
    }
    let everything = patterns.is_empty()
        && !arguments.lint
        && !arguments.quick
        && !arguments.parity
        && !arguments.coverage
        && arguments.kernel.is_none();
    let (one, both) = by_drivers(arguments, tests);
    let differences = match both.is_empty() {
        true => Differences::default(),
        false => Differences::load(&top.join(&arguments.differences), &known)?
            .for_kernel(arguments.kernel.as_deref().unwrap_or(STOCK)),
    };
    let kernel = arguments.kernel.iter().map(|name| format!("-{name}"));
    let partial = (!patterns.is_empty()).then(|| "-partial".to_owned());
    let table = top.join(match &arguments.table {
        Some(path) => path.clone(),
        None => format!("build/parity{}", kernel.chain(partial).collect::<String>()).into(),
    });
    let driver = arguments.driver().name();
    let logs = match (arguments.parity, &arguments.kernel) {
        _ if arguments.coverage => top.join("build/coverage"),
        (true, _) => table.clone(),
        (_, Some(kernel)) => top.join(format!("build/check-{kernel}")).join(driver),
        _ => top.join("build/check").join(driver),
    };
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let mut results = Results::new();

    let green = Green::new(&top, everything || arguments.quick)?;
    if everything || arguments.lint || arguments.quick {
        results.group("lint-module", "Format and lints of the module");
        for step in lint::of_module(&top)? {
            green.test(step, &mut results, &logs)?;
        }
        mutants::lint(&top, &known, &mut results)?;
        coverage::lint(&top, &mut results);
        results.add(seconds.lint(&known));
        results.add(selftest::lint_machines(&top, &known)?);
    }
    if arguments.lint {
        lint_tools(&top, &green, &logs, &mut results)?;
    }
    fail_unknown_names(&patterns, &known, &mut results);
    let some = !one.is_empty() || !both.is_empty();
    let built =
        some && (arguments.kernel.is_some() || build(arguments, &top, &mut results, &logs)?);
    let mut executor = Executor::new(driver, logs.clone());
    executor.keep = arguments.keep;
    let flaky = Arc::new(Flaky::load(&top, &known)?);
    executor.flaky = Some(Arc::clone(&flaky));
    let variables = arguments.variables.join(" ");
    executor.variables = variables.clone();
    if let Some(kernel) = &arguments.kernel {
        executor.use_kernel(kernel)?;
    }
    if arguments.no_leaks {
        executor.ignore_leaks();
    }
    if arguments.coverage {
        executor.note_coverage()?;
    }
    let kernel = arguments.kernel.as_deref();
    let mut comparison = Comparison::new(differences, &logs, kernel, &variables)?;
    if !both.is_empty() && kernel.is_none() {
        comparison.record(Recordings::find(&top)?, !arguments.parity);
    }
    comparison.executor().keep = arguments.keep;
    comparison.executor().flaky = Some(Arc::clone(&flaky));
    let mut jobs = Vec::new();
    if everything {
        jobs.extend(other_jobs(arguments, built, &top, &logs, &green));
    }
    if arguments.quick {
        jobs.push(Job::new(100, |results| {
            lint_tools(&top, &green, &logs, results)?;
            results.group("host", "Host tests");
            cargo_test::run_changed(&top, &green, results, &logs)
        }));
    }
    if built {
        jobs.extend(selftest_jobs(one, &seconds, &executor));
        jobs.extend(parity_jobs(both, &seconds, &comparison));
    }
    let ran = scheduler::run(jobs, arguments.jobs(), &mut results);
    let complete = count_error(ran, &mut results);
    flaky.check(&mut results);
    if everything && built && complete && arguments.driver() == Driver::Rust {
        results.group("names", "Names of subtests");
        let selftests = mem::take(&mut results.selftests);
        results.add(names::lint(&top, &known, &selftests)?);
        let ran = selftests.iter();
        let ran = ran
            .map(|(name, (seconds, _))| (name.clone(), *seconds))
            .collect();
        seconds.rewrite(&top, &known, &ran)?;
    }
    if arguments.parity && built && complete {
        let parity = comparison.parity(&arguments.revision);
        report::write(&parity, &table)?;
        results.line(&format!("\n{}", report::summary(&parity)));
        results.line(&format!("\nthe whole table: {}.md", table.display()));
    }
    if arguments.coverage && built && complete {
        report_coverage(&top, &logs, patterns.is_empty(), &mut results)?;
    }
    results.write_junit(&logs.join("junit.xml"))?;
    Ok(results.conclude())
}

/// Shows and writes which lines were executed. If all tests have run, lines that were not must have a reason.
fn report_coverage(top: &Path, logs: &Path, whole: bool, results: &mut Results) -> Result<()> {
    /// Lines shown of those that are missing.
    const SHOWN: usize = 20;
    let coverage = Coverage::read(top, logs)?;
    coverage.write(top, logs)?;
    results.line(&format!("\n{}", coverage.summary()));
    results.line(&format!("\nthe lines: {}.md", logs.display()));
    for (file, line) in coverage.superfluous() {
        results.line(&format!(
            "{}:{line}: executed; remove the reason in {}",
            file.display(),
            coverage::LIST
        ));
    }
    if whole {
        let missing: Vec<String> = coverage
            .missing()
            .map(|(file, line)| format!("{}:{line}", file.display()))
            .collect();
        let outcome = match missing.len() {
            0 => Outcome::Passed,
            count => Outcome::Failed(format!(
                "{count} are not, and {} has no reason",
                coverage::LIST
            )),
        };
        results.group("coverage", "Coverage");
        results.add(TestResult {
            about: "each line of the driver is executed by a selftest".into(),
            lines: missing.into_iter().take(SHOWN).collect(),
            ..TestResult::new("coverage", outcome)
        });
    }
    Ok(())
}

/// Returns what `make check` runs besides selftests.
fn other_jobs<'a>(
    arguments: &'a Arguments,
    built: bool,
    top: &'a Path,
    logs: &'a Path,
    green: &'a Green,
) -> Vec<Job<'a>> {
    let mut jobs = vec![Job::new(400, move |results| {
        build_and_test_tools(arguments, built, top, green, logs, results)
    })];
    if built && arguments.driver() == Driver::Rust {
        jobs.push(Job::new(120, |results| bench(top, results, logs)));
        jobs.push(Job::new(120, |results| powerfail(top, results, logs)));
    }
    jobs
}

/// Runs the lints and the host tests, then the tests that build something in the checkout, which therefore run
/// one after the other.
fn build_and_test_tools(
    arguments: &Arguments,
    built: bool,
    top: &Path,
    green: &Green,
    logs: &Path,
    results: &mut Results,
) -> Result<()> {
    lint_tools(top, green, logs, results)?;
    results.group("host", "Host tests");
    cargo_test::run(top, results, logs)?;
    if !built {
        return Ok(());
    }
    Step {
        name: "kdir",
        about: "make module names the faults of a kernel's build directory",
        activity: Activity::Tests,
        command: Command::new(top.join("tests/external/packages/kdir.sh")),
        warnings: false,
        inputs: &[],
    }
    .test(results, logs)?;
    Step {
        name: "no-btt",
        about: "the module is built for a kernel without BTT",
        activity: Activity::Builds,
        command: Command::new(top.join("tests/external/packages/no-btt.sh")),
        warnings: false,
        inputs: &[],
    }
    .test(results, logs)?;
    if arguments.driver() == Driver::Rust {
        let mut command = Command::new(top.join("build/tools/debug/pmem-vm"));
        command.current_dir(top);
        command.args([
            "--run",
            "test -d /sys/module/rust_pmem && test -b /dev/pmem0",
        ]);
        Step {
            name: "vm",
            about: "the guest of make vm has the module, and disks",
            activity: Activity::Tests,
            command,
            warnings: true,
            inputs: &[],
        }
        .test(results, logs)?;
    }
    for name in QUICK_SUITES {
        let suite = Suite::load(top, name)?;
        if suite.build().test(results, logs)? {
            results.group(name, &suite.about);
            let quick = Selection {
                patterns: &[],
                quick: true,
                resume: false,
                drivers: &[arguments.driver().name()],
            };
            suite.test(&quick, 1, results)?;
        }
    }
    Ok(())
}

fn lint_tools(top: &Path, green: &Green, logs: &Path, results: &mut Results) -> Result<()> {
    results.group("lint", "Format and lints");
    for step in lint::of_tools(top)? {
        green.test(step, results, logs)?;
    }
    Ok(())
}

/// Plants the faults that match the patterns, or all.
fn run_mutants(
    arguments: &Arguments,
    top: &Path,
    patterns: &[Pattern],
    tests: &[Selftest],
    seconds: &Seconds,
) -> Result<bool> {
    let stock = arguments.kernel.is_none();
    ensure!(
        stock || arguments.is_debug_kernel(),
        "faults are planted for the stock kernel and the debug kernels only"
    );
    let mut planted = mutants::load(top, tests)?;
    for pattern in patterns {
        ensure!(
            planted.iter().any(|mutant| pattern.matches(&mutant.name)),
            "{}: no fault has such a name",
            pattern.as_str()
        );
    }
    let selected = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
    planted.retain(|mutant| {
        mutant.kernel == arguments.kernel && (patterns.is_empty() || selected(&mutant.name))
    });
    ensure!(
        !planted.is_empty(),
        "no fault that is tried on this kernel has such a name"
    );
    if let (true, Some(kernel)) = (arguments.plant, &arguments.kernel) {
        mutants::plant(top, &planted, kernel)?;
        return Ok(true);
    }
    let all = planted.len();
    let is_quick = |name: &str| tests.iter().any(|test| test.quick && test.name == name);
    if arguments.quick {
        planted.retain(|mutant| is_quick(&mutant.test));
    }
    if arguments.list {
        for mutant in planted {
            println!("{:<24} {} {}", mutant.name, mutant.test, mutant.fault);
        }
        return Ok(true);
    }
    let logs = top.join("build/mutants");
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let mut results = Results::new();
    if !stock || build(arguments, top, &mut results, &logs)? {
        results.group(mutants::GROUP, "Planted faults");
        let before = results.passed();
        let controls: BTreeSet<&str> = planted.iter().map(|mutant| mutant.test.as_str()).collect();
        let jobs = arguments.jobs();
        let ran = mutants::run(top, &planted, tests, seconds, jobs, &mut results);
        if count_error(ran, &mut results) {
            if arguments.quick {
                let found = (results.passed() - before).saturating_sub(controls.len());
                let share = found * 100 / all.max(1);
                results.line(&format!(
                    "\nquick tests find {found} of {all} planted faults, {share} %"
                ));
            }
            results.line(&format!("\nthe whole table: {}.md", logs.display()));
        }
    }
    results.write_junit(&logs.join("junit.xml"))?;
    Ok(results.conclude())
}

/// Returns the tests that run under one driver, and those that run under both and are compared.
fn by_drivers(arguments: &Arguments, tests: Vec<Selftest>) -> (Vec<Selftest>, Vec<Selftest>) {
    if arguments.lint {
        return (Vec::new(), Vec::new());
    }
    if arguments.parity {
        return (Vec::new(), tests);
    }
    if arguments.driver() != Driver::Rust || arguments.coverage || arguments.kernel.is_some() {
        return (tests, Vec::new());
    }
    let (both, one) = tests.into_iter().partition(|test| test.compare);
    (one, both)
}

fn selftest_jobs<'a>(
    tests: Vec<Selftest>,
    seconds: &'a Seconds,
    executor: &'a Executor,
) -> impl Iterator<Item = Job<'a>> {
    let groups = selftest::grouped(tests).into_iter().enumerate();
    let parts = groups.flat_map(move |(index, group)| {
        let parts = selftest::parts(group, seconds, MAX_SECONDS).into_iter();
        parts.map(move |part| (index, part))
    });
    parts.map(move |(index, part)| {
        Job::new(seconds.of(&part), move |results| {
            let title = selftest::title(executor.driver, &part);
            results.group(&format!("selftests-{index}"), &title);
            for result in executor.group(&selftest::guest_tests(&part)?, results) {
                results.count(result);
            }
            Ok(())
        })
    })
}

fn parity_jobs<'a>(
    tests: Vec<Selftest>,
    seconds: &'a Seconds,
    comparison: &'a Comparison,
) -> impl Iterator<Item = Job<'a>> {
    let groups = selftest::grouped(tests).into_iter();
    let parts = groups.flat_map(move |group| selftest::parts(group, seconds, MAX_SECONDS));
    parts.map(move |part| {
        Job::new(seconds.of(&part), move |results| {
            comparison.group(&part, results)
        })
    })
}

fn run_suite(
    arguments: &Arguments,
    top: &Path,
    mut suite: Suite,
    patterns: &[Pattern],
) -> Result<bool> {
    suite.revision.clone_from(&arguments.revision);
    let logs = top.join("build/suites").join(&suite.name);
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let mut results = Results::new();

    results.group("build", "Build");
    if suite.build().test(&mut results, &logs)? {
        results.group(&suite.name, &suite.about);
        let selection = Selection {
            patterns,
            quick: false,
            resume: arguments.resume,
            drivers: arguments.drivers(),
        };
        let built = results.passed();
        let ran = suite.test(&selection, arguments.suite_guests(), &mut results);
        if count_error(ran, &mut results) && results.passed() == built && patterns.is_empty() {
            // What a broken set-up looks like, with either driver.
            let outcome = Outcome::Failed("no test has passed".into());
            results.add(TestResult::new(&suite.name, outcome));
        }
    }
    results.write_junit(&logs.join("junit.xml"))?;
    Ok(results.conclude())
}

/// Counts an error that ended the run as a failure, so that the results until then are shown. Returns whether there was none.
fn count_error(ran: Result<()>, results: &mut Results) -> bool {
    let Err(error) = ran else {
        return true;
    };
    results.group("run", "The run was ended by an error");
    let outcome = Outcome::Failed(format!("{error:#}"));
    results.add(TestResult::new("pmem-check", outcome));
    false
}

/// Counts patterns that match no test as failures.
fn fail_unknown_names(patterns: &[Pattern], tests: &[Selftest], results: &mut Results) {
    let missing = |pattern: &&Pattern| !tests.iter().any(|test| test.matches(pattern));
    let missing: Vec<_> = patterns.iter().filter(missing).collect();
    if !missing.is_empty() {
        results.group("names", "Unknown selftests");
    }
    for pattern in missing {
        let outcome = Outcome::Failed("no selftest has such a name".into());
        results.add(TestResult::new(pattern.as_str(), outcome));
    }
}

/// Builds the modules that the selftests load: the driver, which tests of the stock driver hand namespaces over to, and the
/// provider of memory that fails.
fn build(arguments: &Arguments, top: &Path, results: &mut Results, logs: &Path) -> Result<bool> {
    results.group("build", "Build");
    let mut good = true;
    for (name, about) in [
        ("module", "rust_pmem.ko for the stock kernel"),
        ("provider", "the selftests' own persistent memory"),
    ] {
        let mut command = lint::make(top);
        command.arg(name);
        if name == "provider" {
            // See `lint::of_module`.
            command.arg("W=e");
        }
        good &= Step {
            name,
            about,
            activity: Activity::Builds,
            command,
            warnings: true,
            inputs: &[],
        }
        .test(results, logs)?;
    }
    if good && arguments.driver() == Driver::Rust && !arguments.parity && !arguments.mutants {
        let mut command = Command::new(top.join("setup/check-module"));
        command.current_dir(top);
        Step {
            name: "symbols",
            about: "rust_pmem.ko can't panic, survives machine checks, and depends on libnvdimm and nd_btt alone",
            activity: Activity::Lints,
            command,
            warnings: false,
            inputs: &[],
        }
        .test(results, logs)?;
    }
    Ok(good)
}

/// Cuts the power of guests, and checks crash images.
fn powerfail(top: &Path, results: &mut Results, logs: &Path) -> Result<()> {
    /// One for each way to check, and for each way to make data durable.
    const WORKLOADS: &[&str] = &[
        "raw-fsync",
        "repair-fsync",
        "sector-dsync",
        "ext4-write",
        "ext4-map-sync",
    ];
    results.group("powerfail", "Power cuts at fences and stores");
    let mut command = Command::new(top.join("build/tools/debug/pmem-powerfail"));
    command.current_dir(top).args(["--images", "200"]);
    command.arg("--output").arg(logs.join("powerfail"));
    command.args(WORKLOADS);
    let step = Step {
        name: "powerfail",
        about: "200 crash images have lost nothing that was promised",
        activity: Activity::Tests,
        command,
        warnings: false,
        inputs: &[],
    };
    step.test(results, logs)?;
    Ok(())
}

/// Compares instruction counts with the thresholds of the bench. They are shown in any case.
fn bench(top: &Path, results: &mut Results, logs: &Path) -> Result<()> {
    results.group("bench", "Instructions for each operation");
    let mut command = Command::new(top.join("build/tools/debug/pmem-bench"));
    command.current_dir(top).arg("--check");
    command.arg("--output").arg(logs.join("bench"));
    let step = Step {
        name: "bench",
        about: "no figure exceeds its threshold by more than 1 %",
        activity: Activity::Tests,
        command,
        warnings: false,
        inputs: &[],
    };
    step.test(results, logs)?;
    results.line(fs::read_to_string(logs.join("bench.log"))?.trim_end());
    Ok(())
}

/// Keeps other runs out of this checkout: they would write the same files.
fn lock(top: &Path) -> Result<LogFile> {
    let build = top.join("build");
    fs::create_dir_all(&build).with_context(|| build.display().to_string())?;
    let lock = LogFile::at(build.join("run.lock")).ok();
    lock.context(
        "another run is under way in this checkout: wait for its end, or use another clone",
    )
}

/// Finds the checkout above the current folder.
fn top() -> Result<PathBuf> {
    let here = env::current_dir()?;
    let Some(top) = here
        .ancestors()
        .find(|folder| folder.join("Kbuild").is_file())
    else {
        bail!("{} is in no checkout of the project", here.display());
    };
    Ok(top.to_path_buf())
}

fn patterns(words: &[String]) -> Result<Vec<Pattern>> {
    let words = words.iter().flat_map(|word| word.split_whitespace());
    words
        .map(|word| Pattern::new(word).with_context(|| format!("\"{word}\" is no pattern")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::tests::selftest;

    #[test]
    fn guests_at_once_fit_into_memory() {
        let meminfo = "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(available_mib(meminfo), 7812);
        assert_eq!(available_mib(""), usize::MAX);
        assert_eq!(jobs_for(16, 7812), 5);
        assert_eq!(jobs_for(2, 7812), 3);
        assert_eq!(jobs_for(2, 100), 1);
        assert_eq!(jobs_for(2, usize::MAX), 3);
    }

    #[test]
    fn second_run_in_a_checkout_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let first = lock(top.path()).unwrap();
        let error = lock(top.path()).err().unwrap().to_string();
        assert!(error.contains("another run is under way"), "{error}");
        drop(first);
        lock(top.path()).unwrap();
    }

    #[test]
    fn error_that_ends_the_run_is_a_failure_among_its_results() {
        let mut results = Results::buffered();
        let job = |error: bool| {
            Job::new(0, move |results: &mut Results| {
                results.group("group", "About");
                results.add(TestResult::new("test", Outcome::Passed));
                ensure!(!error, "no disk");
                Ok(())
            })
        };
        let ran = scheduler::run(vec![job(false)], 1, &mut results);
        assert!(count_error(ran, &mut results) && results.conclude());
        let ran = scheduler::run(vec![job(false), job(true)], 1, &mut results);
        assert!(!count_error(ran, &mut results) && !results.conclude());
        assert_eq!(results.passed(), 3);
    }

    /// Returns the names of the tests that run under one driver, and of those that run under both.
    fn names_by_drivers(words: &[&str]) -> [String; 2] {
        let arguments = Arguments::parse_from([&["pmem-check"], words].concat());
        let tests = [selftest("a", ""), selftest("b", "# compare\n")];
        let (one, both) = by_drivers(&arguments, tests.into());
        [one, both].map(|tests| tests.iter().map(|test| test.name.as_str()).collect())
    }

    #[test]
    fn tests_are_divided_by_drivers() {
        assert_eq!(names_by_drivers(&[]), ["a", "b"]);
        assert_eq!(names_by_drivers(&["*"]), ["a", "b"]);
        assert_eq!(names_by_drivers(&["--driver", "nd_pmem"]), ["ab", ""]);
        assert_eq!(names_by_drivers(&["--kernel", "next"]), ["ab", ""]);
        assert_eq!(names_by_drivers(&["--parity"]), ["", "ab"]);
        assert_eq!(names_by_drivers(&["--lint"]), ["", ""]);
    }
}
