// SPDX-License-Identifier: GPL-2.0

//! `pmem-check`: the project's tests.

mod differences;
mod host;
mod ktap;
mod lint;
mod mutants;
mod parity;
mod queue;
mod report;
mod selftest;
mod suite;
mod tally;
mod xfstests;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use differences::Differences;
use glob::Pattern;
use ktap::Outcome;
use parity::Comparison;
use queue::Job;
use selftest::{Runner, Selftest};
use std::env;
use std::fs;
use std::io::{Write, stderr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use suite::Suite;
use tally::{Tally, Test};

/// The project's tests: format and lints, host tests, the module's build, what operations cost, and
/// the selftests in virtual machines.
///
/// Each is counted; the last line says how many passed, failed and were skipped. What each selftest
/// printed and what the kernel logged meanwhile is in build/check/DRIVER/TEST/, all results in
/// build/check/DRIVER/junit.xml.
///
/// With --parity, selftests run under both drivers, and what each subtest showed is compared; the
/// table is build/parity.md, and build/parity.json for programs; what was printed and logged, and
/// junit.xml, are in build/parity/. Where TESTS are given, all of these are parity-partial.
///
/// With --suite, a suite that others have made runs under both drivers, or the one of --driver. What
/// each test printed is in build/suites/SUITE/DRIVER/TEST/, the table of all suites is
/// build/suites.md.
///
/// With --xfstests, an installed tree of xfstests runs in the same way, its tests of a group or those
/// that TESTS mean, such as generic/4* or xfs/always/generic/413, each with dax=always, inode and
/// never.
///
/// With --mutants, faults are planted into copies of the driver (tests/mutants.toml), one at a time, and
/// the selftest that is there for each must fail; TESTS are names of these faults then. The table is
/// build/mutants.md; logs are in build/mutants/.
#[derive(Parser)]
#[command(name = "pmem-check", version, max_term_width = 120)]
struct Arguments {
    /// Run only the selftests that these patterns match, such as dax-* (otherwise everything)
    #[arg(value_name = "TESTS")]
    tests: Vec<String>,

    /// Run only format and lints
    #[arg(long, conflicts_with_all = ["tests", "list"])]
    lint: bool,

    /// Test this driver: rust_pmem (as if it were not given, but for --suite), or the stock nd_pmem,
    /// which tests the tests
    #[arg(long, value_name = "DRIVER")]
    driver: Option<Driver>,

    /// Run the selftests under both drivers and compare them
    #[arg(long, conflicts_with_all = ["driver", "lint"])]
    parity: bool,

    /// Run the tests of tests/SUITE/suite.toml
    #[arg(long, value_name = "SUITE", conflicts_with_all = ["parity", "lint", "list", "mutants"])]
    suite: Option<String>,

    /// Run the tests of xfstests, installed in this folder
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

    /// Leave out what has been tested before, with the same module and the same guest
    #[arg(long)]
    resume: bool,

    /// Plant faults into the driver and see that the selftests find them
    #[arg(long, conflicts_with_all = ["driver", "lint", "parity"])]
    mutants: bool,

    /// Print each selftest's name, title, tags and machine, and run nothing
    #[arg(long)]
    list: bool,

    /// Folder of selftests, from the root of the checkout; may be repeated
    #[arg(long, value_name = "DIR", default_values = ["tests"])]
    selftests: Vec<PathBuf>,

    /// What may differ between the drivers, and why
    #[arg(
        long,
        value_name = "FILE",
        default_value = "tests/differences.toml"
    )]
    differences: PathBuf,

    /// Do so many things at once
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: NonZeroUsize,

    /// Where the table of --parity goes, less .md (otherwise build/parity, or build/parity-partial
    /// where TESTS are given)
    #[arg(long, value_name = "PATH", requires = "parity")]
    table: Option<PathBuf>,
}

/// Tests that take longer than so many seconds, and share a machine, are divided, each part with a machine of its
/// own, so that those who run them are done at the same time.
const MOST: u64 = 200;

/// Suites of which some tests run when everything is run.
const QUICK_SUITES: &[&str] = &["ndctl"];

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Driver {
    #[value(name = "rust_pmem")]
    Rust,
    #[value(name = "nd_pmem")]
    C,
}

impl Arguments {
    fn driver(&self) -> Driver {
        self.driver.unwrap_or(Driver::Rust)
    }

    /// Those that suites run under.
    fn drivers(&self) -> &'static [&'static str] {
        match self.driver {
            None => &["nd_pmem", "rust_pmem"],
            Some(Driver::C) => &["nd_pmem"],
            Some(Driver::Rust) => &["rust_pmem"],
        }
    }
}

impl Driver {
    fn name(self) -> &'static str {
        match self {
            Driver::Rust => "rust_pmem",
            Driver::C => "nd_pmem",
        }
    }
}

fn main() -> ExitCode {
    match work(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(stderr(), "pmem-check: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn work(arguments: &Arguments) -> Result<bool> {
    let top = top()?;
    let patterns = patterns(&arguments.tests)?;
    if let Some(name) = &arguments.suite {
        return suite(arguments, &top, Suite::load(&top, name)?, &patterns);
    }
    if let Some(tree) = &arguments.xfstests {
        let (fstyp, group) = (&arguments.fstyp, &arguments.group);
        let tests = xfstests::suite(&top, tree, fstyp, group, &patterns)?;
        return suite(arguments, &top, tests, &[]);
    }
    let known = selftest::find(&top, &arguments.selftests)?;
    if arguments.mutants {
        return mutants(arguments, &top, &patterns, &known);
    }
    let meant = |test: &&Selftest| {
        patterns.is_empty() || patterns.iter().any(|pattern| test.is_meant_by(pattern))
    };
    let tests: Vec<Selftest> = known.iter().filter(meant).cloned().collect();
    if arguments.list {
        for test in tests {
            println!("{}", test.name);
            println!("    {}", test.about);
            if !test.tags().is_empty() {
                println!("    tags: {}", test.tags().join(", "));
            }
            if !test.machine.is_empty() {
                println!("    vm: {}", test.machine);
            }
        }
        return Ok(true);
    }
    let everything = patterns.is_empty() && !arguments.lint && !arguments.parity;
    let (one, both) = divided(arguments, everything, tests);
    let differences = match both.is_empty() {
        true => Differences::default(),
        false => Differences::load(&top.join(&arguments.differences), &known)?,
    };
    let table = top.join(match (&arguments.table, patterns.is_empty()) {
        (Some(path), _) => path,
        (None, true) => Path::new("build/parity"),
        (None, false) => Path::new("build/parity-partial"),
    });
    let logs = match arguments.parity {
        true => table.clone(),
        false => top.join("build/check").join(arguments.driver().name()),
    };
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let mut tally = Tally::new();

    if everything || arguments.lint {
        tally.group("lint-module", "Format and lints of the module");
        for step in lint::of_module(&top)? {
            step.test(&mut tally, &logs)?;
        }
        mutants::lint(&top, &known, &mut tally)?;
    }
    if arguments.lint {
        lint_tools(&top, &logs, &mut tally)?;
    }
    names(&patterns, &known, &mut tally);
    let some = !one.is_empty() || !both.is_empty();
    let built = some && built(arguments, &top, &mut tally, &logs)?;
    let runner = Runner::new(arguments.driver().name(), logs.clone());
    let comparison = Comparison::new(differences, &logs);
    let mut jobs = Vec::new();
    if everything {
        jobs.extend(steps(arguments, built, &top, &logs, &known));
    }
    if built {
        jobs.extend(alone(one, &runner));
        jobs.extend(side_by_side(both, &comparison));
    }
    queue::run(jobs, arguments.jobs.get(), &mut tally)?;
    let retried = runner.retried.load(Ordering::Relaxed);
    if retried > 0 {
        tally.line(&format!("\nboots that were tried again: {retried}"));
    }
    if arguments.parity && built {
        let parity = comparison.parity();
        report::write(&parity, &table)?;
        tally.line(&format!("\n{}", report::summary(&parity)));
        tally.line(&format!("\nall of it: {}.md", table.display()));
    }
    tally.write_junit(&logs.join("junit.xml"))?;
    Ok(tally.conclude())
}

/// What `make check` does besides selftests.
fn steps<'a>(
    arguments: &'a Arguments,
    built: bool,
    top: &'a Path,
    logs: &'a Path,
    known: &'a [Selftest],
) -> Vec<Job<'a>> {
    let mut jobs = vec![Job::new(400, move |tally| {
        beside(arguments, built, top, logs, tally)
    })];
    if built && arguments.driver() == Driver::Rust {
        jobs.push(Job::new(120, |tally| bench(top, tally, logs)));
        jobs.push(Job::new(120, |tally| {
            tally.group("mutants", "Planted faults that are quickly found");
            let mut planted = mutants::load(top, known)?;
            planted.retain(|mutant| mutant.quick);
            mutants::run(top, &planted, known, tally)
        }));
    }
    jobs
}

/// Lints, and what needs no module, and with the module that was built the suites: all that makes things in
/// the checkout again, and so one after the other.
fn beside(
    arguments: &Arguments,
    built: bool,
    top: &Path,
    logs: &Path,
    tally: &mut Tally,
) -> Result<()> {
    lint_tools(top, logs, tally)?;
    tally.group("host", "Host tests");
    host::test(top, tally, logs)?;
    if !built {
        return Ok(());
    }
    if arguments.driver() == Driver::Rust {
        let mut command = Command::new(top.join("build/tools/release/pmem-vm"));
        command.current_dir(top);
        command.args([
            "--run",
            "test -d /sys/module/rust_pmem && test -b /dev/pmem0",
        ]);
        lint::Step {
            name: "vm",
            about: "the machine of make vm has the module, and disks",
            command,
            warnings: true,
        }
        .test(tally, logs)?;
        picture(top, tally, logs)?;
        tally.group("xfstests", "What runs xfstests, on a stand-in");
        let mut command = Command::new(top.join("tests/external/xfstests/try.sh"));
        command.current_dir(top).arg(env::current_exe()?);
        lint::Step {
            name: "xfstests",
            about: "guest, devices, settings, comparison, and going on after a cut",
            command,
            warnings: false,
        }
        .test(tally, logs)?;
    }
    for name in QUICK_SUITES {
        let suite = Suite::load(top, name)?;
        if suite.build().test(tally, logs)? {
            tally.group(name, &suite.about);
            suite.test(&[], true, false, arguments.drivers(), tally)?;
        }
    }
    Ok(())
}

fn lint_tools(top: &Path, logs: &Path, tally: &mut Tally) -> Result<()> {
    tally.group("lint", "Format and lints");
    for step in lint::of_tools(top)? {
        step.test(tally, logs)?;
    }
    Ok(())
}

/// Plants faults, those that the patterns mean or all.
fn mutants(
    arguments: &Arguments,
    top: &Path,
    patterns: &[Pattern],
    tests: &[Selftest],
) -> Result<bool> {
    let mut planted = mutants::load(top, tests)?;
    let meant = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
    planted.retain(|mutant| patterns.is_empty() || meant(&mutant.name));
    ensure!(!planted.is_empty(), "no fault has such a name");
    if arguments.list {
        for mutant in planted {
            println!("{:<24} {} {}", mutant.name, mutant.test, mutant.fault);
        }
        return Ok(true);
    }
    let logs = top.join("build/mutants");
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let mut tally = Tally::new();
    if built(arguments, top, &mut tally, &logs)? {
        tally.group("mutants", "Planted faults");
        mutants::run(top, &planted, tests, &mut tally)?;
        tally.line(&format!("\nall of it: {}.md", logs.display()));
    }
    tally.write_junit(&logs.join("junit.xml"))?;
    Ok(tally.conclude())
}

/// The tests that run under one driver, and those that run under both and are compared.
fn divided(
    arguments: &Arguments,
    everything: bool,
    tests: Vec<Selftest>,
) -> (Vec<Selftest>, Vec<Selftest>) {
    if arguments.lint {
        return (Vec::new(), Vec::new());
    }
    if arguments.parity {
        return (Vec::new(), tests);
    }
    if !everything {
        return (tests, Vec::new());
    }
    let (mut both, one): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| test.compare);
    both.retain(|test| test.quick && arguments.driver() == Driver::Rust);
    (one, both)
}

/// Selftests of one driver.
fn alone(tests: Vec<Selftest>, runner: &Runner) -> impl Iterator<Item = Job<'_>> {
    let groups = selftest::grouped(tests).into_iter().enumerate();
    let parts = groups.flat_map(|(index, group)| {
        let parts = selftest::parts(group, MOST).into_iter();
        parts.map(move |part| (index, part))
    });
    parts.map(move |(index, part)| {
        Job::new(selftest::seconds(&part), move |tally| {
            let title = selftest::title(runner.driver, &part);
            tally.group(&format!("selftests-{index}"), &title);
            for result in runner.group(&part, tally)? {
                tally.count(result);
            }
            Ok(())
        })
    })
}

/// Selftests of both drivers, compared.
fn side_by_side(tests: Vec<Selftest>, comparison: &Comparison) -> impl Iterator<Item = Job<'_>> {
    let groups = selftest::grouped(tests).into_iter();
    let parts = groups.flat_map(|group| selftest::parts(group, MOST / 2));
    parts.map(move |part| {
        Job::new(2 * selftest::seconds(&part), move |tally| {
            comparison.group(&part, tally)
        })
    })
}

/// Runs a suite.
fn suite(arguments: &Arguments, top: &Path, suite: Suite, patterns: &[Pattern]) -> Result<bool> {
    let logs = top.join("build/suites").join(&suite.name);
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let mut tally = Tally::new();

    tally.group("build", "Build");
    if suite.build().test(&mut tally, &logs)? {
        tally.group(&suite.name, &suite.about);
        let resume = arguments.resume;
        suite.test(patterns, false, resume, arguments.drivers(), &mut tally)?;
    }
    tally.write_junit(&logs.join("junit.xml"))?;
    Ok(tally.conclude())
}

/// Patterns that mean no test are failures.
fn names(patterns: &[Pattern], tests: &[Selftest], tally: &mut Tally) {
    let missing = |pattern: &&Pattern| !tests.iter().any(|test| test.is_meant_by(pattern));
    let missing: Vec<_> = patterns.iter().filter(missing).collect();
    if !missing.is_empty() {
        tally.group("names", "Selftests that are not there");
    }
    for pattern in missing {
        let outcome = Outcome::Failed("no selftest has such a name".into());
        tally.add(Test::new(pattern.as_str(), outcome));
    }
}

/// What the selftests load: the module, which those of the stock driver swap it with, and the
/// memory that fails.
fn built(arguments: &Arguments, top: &Path, tally: &mut Tally, logs: &Path) -> Result<bool> {
    tally.group("build", "Build");
    let mut good = true;
    for (name, about) in [
        ("module", "rust_pmem.ko for the stock kernel"),
        ("provider", "the selftests' own persistent memory"),
    ] {
        let mut command = lint::make(top);
        command.arg(name);
        good &= lint::Step {
            name,
            about,
            command,
            warnings: true,
        }
        .test(tally, logs)?;
    }
    if good && arguments.driver() == Driver::Rust && !arguments.parity && !arguments.mutants {
        let mut command = Command::new(top.join("setup/check-module"));
        command.current_dir(top);
        lint::Step {
            name: "symbols",
            about: "rust_pmem.ko can't panic, and stands on libnvdimm and nd_btt alone",
            command,
            warnings: false,
        }
        .test(tally, logs)?;
    }
    Ok(good)
}

/// What the README shows of pmemctl is what it prints.
fn picture(top: &Path, tally: &mut Tally, logs: &Path) -> Result<()> {
    let drawn = logs.join("picture");
    std::fs::create_dir_all(&drawn)?;
    let mut command = Command::new("sh");
    command.current_dir(top).args([
        "-c",
        "build/tools/release/pmem-demo --picture \"$1\" || exit; same=true
         for drawn in \"$1\"/*.svg; do diff \"Documentation/${drawn##*/}\" \"$drawn\" || same=false; done
         $same || { echo 'error: other pictures than Documentation/pmemctl*.svg: look at them, and make picture'; exit 1; }",
        "sh",
    ]);
    command.arg(&drawn);
    lint::Step {
        name: "picture",
        about: "what the README shows of pmemctl is what it prints",
        command,
        warnings: false,
    }
    .test(tally, logs)?;
    Ok(())
}

/// What operations cost, held against tools/testing/bench/lines.toml. Shown in any case.
fn bench(top: &Path, tally: &mut Tally, logs: &Path) -> Result<()> {
    tally.group("bench", "Instructions for each operation");
    let mut command = Command::new(top.join("build/tools/release/pmem-bench"));
    command.current_dir(top).arg("--check");
    command.arg("--output").arg(logs.join("bench"));
    let step = lint::Step {
        name: "bench",
        about: "no figure is above its line by more than 1 %",
        command,
        warnings: false,
    };
    step.test(tally, logs)?;
    tally.line(fs::read_to_string(logs.join("bench.log"))?.trim_end());
    Ok(())
}

/// The checkout above the current folder.
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

    /// The tests that run under one driver, and those that run under both, by name.
    fn divided_by(words: &[&str], everything: bool) -> [String; 2] {
        let arguments = Arguments::parse_from([&["pmem-check"], words].concat());
        let tests = [
            ("tests/a.sh", ""),
            ("tests/b.sh", "# compare\n# quick\n"),
            ("tests/c.sh", "# compare\n"),
        ];
        let tests = tests.map(|(script, text)| Selftest::parse(Path::new(script), text).unwrap());
        let (one, both) = divided(&arguments, everything, tests.into());
        [one, both].map(|tests| tests.iter().map(|test| test.name.as_str()).collect())
    }

    #[test]
    fn which_tests_run_under_which_drivers() {
        assert_eq!(divided_by(&[], true), ["a", "b"]);
        assert_eq!(divided_by(&["--driver", "nd_pmem"], true), ["a", ""]);
        assert_eq!(divided_by(&["*"], false), ["abc", ""]);
        assert_eq!(divided_by(&["--parity"], false), ["", "abc"]);
        assert_eq!(divided_by(&["--lint"], false), ["", ""]);
    }
}
