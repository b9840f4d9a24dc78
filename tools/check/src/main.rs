// SPDX-License-Identifier: GPL-2.0

//! `pmem-check`: the project's tests.

mod host;
mod ktap;
mod lint;
mod selftest;
mod tally;

use anyhow::{Context, Result, bail};
use clap::Parser;
use glob::Pattern;
use ktap::Outcome;
use selftest::Runner;
use std::env;
use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use tally::{Tally, Test};

/// The project's tests: format and lints, host tests, the module's build, and the selftests in
/// virtual machines.
///
/// Each is counted; the last line says how many passed, failed and were skipped. What each selftest
/// printed and what the kernel logged meanwhile is in build/check/DRIVER/TEST/, all results in
/// build/check/DRIVER/junit.xml.
#[derive(Parser)]
#[command(name = "pmem-check", version, max_term_width = 120)]
struct Arguments {
    /// Run only the selftests that these patterns match, such as dax_* (otherwise everything)
    #[arg(value_name = "TESTS")]
    tests: Vec<String>,

    /// Run only format and lints
    #[arg(long, conflicts_with_all = ["tests", "list"])]
    lint: bool,

    /// Test this driver: rust_pmem, or the stock nd_pmem, which tests the tests
    #[arg(long, value_name = "DRIVER", default_value = "rust_pmem")]
    driver: Driver,

    /// Print the selftests, what each tests and on which machine, and run nothing
    #[arg(long)]
    list: bool,

    /// Folder of the selftests, from the root of the checkout
    #[arg(long, value_name = "DIR", default_value = "tests/selftests")]
    selftests: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Driver {
    #[value(name = "rust_pmem")]
    Rust,
    #[value(name = "nd_pmem")]
    C,
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
    let tests = selftest::find(&top, &arguments.selftests, &patterns)?;
    if arguments.list {
        for test in tests {
            println!("{:<18} {}", test.name, test.about);
            if !test.machine.is_empty() {
                println!("{:18}   on {}", "", test.machine);
            }
        }
        return Ok(true);
    }
    let logs = top.join("build/check").join(arguments.driver.name());
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let mut tally = Tally::new();
    let all = patterns.is_empty() && !arguments.lint;

    if all || arguments.lint {
        tally.group("lint", "Format and lints");
        for step in lint::steps(&top)? {
            step.test(&mut tally, &logs)?;
        }
    }
    if all {
        tally.group("host", "Host tests");
        host::test(&top, &mut tally, &logs)?;
    }
    let missing = |pattern: &&Pattern| {
        let mut names = tests.iter().map(|test| &test.name);
        !names.any(|name| selftest::matches(pattern, name))
    };
    let missing: Vec<_> = patterns.iter().filter(missing).collect();
    if !missing.is_empty() {
        tally.group("names", "Selftests that are not there");
    }
    for pattern in missing {
        tally.add(Test {
            name: pattern.to_string(),
            about: String::new(),
            outcome: Outcome::Failed("no selftest has such a name".into()),
            time: Duration::ZERO,
            words: Vec::new(),
            details: Vec::new(),
        });
    }
    let mut retried = 0;
    if !arguments.lint && !tests.is_empty() && built(arguments, &top, &mut tally, &logs)? {
        let mut runner = Runner::new(arguments.driver.name(), &logs);
        for (index, group) in selftest::grouped(tests).iter().enumerate() {
            let machine = match group[0].machine.as_str() {
                "" => "the default machine",
                machine => machine,
            };
            let title = format!("Selftests of {}, on {machine}", arguments.driver.name());
            tally.group(&format!("selftests-{index}"), &title);
            runner.group(group, &mut tally)?;
        }
        retried = runner.retried;
    }
    if retried > 0 {
        tally.line(&format!("\nboots that were tried again: {retried}"));
    }
    tally.write_junit(&logs.join("junit.xml"))?;
    Ok(tally.conclude())
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
    if good && arguments.driver == Driver::Rust {
        let mut command = Command::new(top.join("tests/module.sh"));
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
