// SPDX-License-Identifier: GPL-2.0

//! Runs the host tests with `cargo test`, and reads their results from its output.

use crate::green::Green;
use crate::lint;
use crate::recorded::sums;
use crate::results::{Activity, Outcome, Results, TestResult};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Reads one line of cargo's output.
fn result(line: &str) -> Option<(String, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match outcome.trim() {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed("it failed".into()),
        ignored if ignored.starts_with("ignored") => Outcome::Skipped(
            ignored
                .trim_start_matches("ignored")
                .trim_start_matches(", ")
                .to_owned(),
        ),
        _ => return None,
    };
    Some((name.trim_end_matches(" - should panic").to_owned(), outcome))
}

/// Reads all results in cargo's output. Each name begins with that of its crate.
fn results_in(output: &str) -> Vec<(String, Outcome)> {
    let mut target = String::new();
    let mut found = Vec::new();
    for line in output.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("Running ") {
            // "Running unittests src/lib.rs (build/tools/debug/deps/vm-0123456789abcdef)"
            let file = rest
                .rsplit_once('(')
                .map_or(rest, |(_, path)| path)
                .trim_end_matches(')');
            let file = file.rsplit('/').next().unwrap_or(file);
            target = file
                .rsplit_once('-')
                .map_or(file, |(name, _)| name)
                .to_owned();
        } else if let Some(rest) = line.trim_start().strip_prefix("Doc-tests ") {
            target = rest.trim().to_owned();
        } else if let Some((name, outcome)) = result(line) {
            found.push((format!("{target}::{name}"), outcome));
        }
    }
    found
}

/// Returns why the results are not those of all tests, if so.
fn problem(success: bool, found: &[(String, Outcome)]) -> Option<&'static str> {
    let failed = found.iter().any(|(_, outcome)| outcome.is_failure());
    match found {
        _ if !success && !failed => Some("the tests could not be built or run"),
        [] => Some("no test has run"),
        _ => None,
    }
}

/// Runs the host tests and counts each.
pub fn run(top: &Path, results: &mut Results, logs: &Path) -> Result<()> {
    let clock = results.running("cargo test");
    let mut command = Command::new("sh");
    // One stream: the name of each program precedes its results.
    command.current_dir(top.join("tools")).args([
        "-c",
        "exec cargo test --workspace --no-fail-fast --locked --offline 2>&1",
    ]);
    let (success, output) = lint::run(&mut command)?;
    fs::write(logs.join("cargo-test.log"), &output)?;
    let found = results_in(&output);
    let count = found.len();
    let problem = problem(success, &found);
    for (name, outcome) in found {
        let mut result = TestResult::new(name, outcome);
        if result.outcome.is_failure() {
            result.lines = panic_message(&output, &result.name);
            let name = result
                .name
                .split_once("::")
                .map_or(result.name.as_str(), |(_, name)| name);
            result.lines.push(format!(
                "run alone: setup/enter cargo test --manifest-path tools/Cargo.toml {name}"
            ));
        }
        results.add_quietly(result);
    }
    if let Some(problem) = problem {
        let lines: Vec<&str> = output.lines().collect();
        let outcome = Outcome::Failed(problem.into());
        results.add(TestResult {
            time: clock.time(),
            lines: lines[lines.len().saturating_sub(20)..]
                .iter()
                .map(|&line| line.to_owned())
                .collect(),
            ..TestResult::new("cargo-test", outcome)
        });
    }
    results.spend(Activity::Tests, clock.time());
    results.note(&format!(
        "{count} tests in {:.1} s",
        clock.time().as_secs_f64()
    ));
    Ok(())
}

/// Runs the test programs that have changed since they last passed, and counts each test. Doc tests are left out.
pub fn run_changed(top: &Path, green: &Green, results: &mut Results, logs: &Path) -> Result<()> {
    let clock = results.running("cargo test");
    let mut build = Command::new("cargo");
    build.current_dir(top.join("tools")).args([
        "test",
        "--workspace",
        "--no-run",
        "--locked",
        "--offline",
        "--quiet",
        "--message-format=json",
    ]);
    let output = build.output().context("cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut programs: Vec<Program> = text.lines().filter_map(Program::read).collect();
    programs.sort_by(|a, b| a.path.cmp(&b.path));
    if !output.status.success() || programs.is_empty() {
        let errors = String::from_utf8_lossy(&output.stderr);
        results.add(TestResult {
            lines: lint::first_errors(&errors),
            ..TestResult::new(
                "cargo-test",
                Outcome::Failed("the tests could not be built".into()),
            )
        });
        return Ok(());
    }
    let mut unchanged = 0;
    let mut count = 0;
    for Program {
        name,
        path,
        package,
    } in programs
    {
        // Tests read files of their package as well.
        let folder = package.strip_prefix(top)?.join("**/*");
        let path = path.strip_prefix(top)?.to_owned();
        let inputs = sums(top, &[&path.to_string_lossy(), &folder.to_string_lossy()])?;
        let key = format!("test-{name}");
        if green.is(&key, &inputs) {
            unchanged += 1;
            continue;
        }
        let (success, output) = lint::run(Command::new(top.join(&path)).current_dir(&package))?;
        fs::write(logs.join(format!("{key}.log")), &output)?;
        let heading = format!("Running x ({name}-0)\n{output}");
        let found = results_in(&heading);
        let problem = problem(success, &found).filter(|_| !success);
        count += found.len();
        green.note(&key, &inputs, success)?;
        for (name, outcome) in found {
            let mut result = TestResult::new(name, outcome);
            if result.outcome.is_failure() {
                result.lines = panic_message(&output, &result.name);
            }
            results.add_quietly(result);
        }
        if let Some(problem) = problem {
            results.add(TestResult::new(key, Outcome::Failed(problem.into())));
        }
    }
    results.spend(Activity::Tests, clock.time());
    let outcome = TestResult {
        about: format!("{count} host tests; {unchanged} programs are unchanged"),
        time: clock.time(),
        ..TestResult::new("cargo-test", Outcome::Passed)
    };
    results.add(outcome);
    Ok(())
}

/// A program of tests.
struct Program {
    name: String,
    path: PathBuf,
    /// The folder of its package.
    package: PathBuf,
}

impl Program {
    /// Reads a line of cargo's messages (Cargo's reference, "External tools").
    fn read(line: &str) -> Option<Self> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = PathBuf::from(message["executable"].as_str()?);
        let manifest = PathBuf::from(message["manifest_path"].as_str()?);
        message["profile"]["test"].as_bool().filter(|test| *test)?;
        let name = path.file_name()?.to_string_lossy().into_owned();
        let (name, _) = name.rsplit_once('-')?;
        Some(Self {
            name: name.to_owned(),
            path,
            package: manifest.parent()?.to_owned(),
        })
    }
}

/// Returns the output of a failed test, which follows "---- name stdout ----", from its panic on: what a test has printed
/// before may be long.
fn panic_message(output: &str, name: &str) -> Vec<String> {
    let short = name.split_once("::").map_or(name, |(_, short)| short);
    let start = format!("---- {short} stdout ----");
    let lines: Vec<&str> = output
        .lines()
        .skip_while(|line| *line != start)
        .skip(1)
        .take_while(|line| !line.starts_with("---- "))
        .filter(|line| !line.is_empty())
        .collect();
    let panic = lines
        .iter()
        .position(|line| line.starts_with("thread '") && line.contains(" panicked at "));
    lines[panic.unwrap_or_default()..]
        .iter()
        .take(8)
        .map(|&line| line.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
     Running unittests src/lib.rs (build/tools/debug/deps/vm-0123456789abcdef)
running 3 tests
test serial::tests::good ... ok
test serial::tests::bad ... FAILED
test serial::tests::slow ... ignored, boots machines

failures:

---- serial::tests::bad stdout ----
a schedule
of lines

thread 'serial::tests::bad' panicked at vm/src/serial.rs:1:1:
left is not right

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests units
test units/src/lib.rs - Size (line 3) ... ok
";

    #[test]
    fn results_are_read_with_their_crate() {
        assert_eq!(
            results_in(OUTPUT),
            [
                ("vm::serial::tests::good".to_owned(), Outcome::Passed),
                (
                    "vm::serial::tests::bad".to_owned(),
                    Outcome::Failed("it failed".into())
                ),
                (
                    "vm::serial::tests::slow".to_owned(),
                    Outcome::Skipped("boots machines".into())
                ),
                (
                    "units::units/src/lib.rs - Size (line 3)".to_owned(),
                    Outcome::Passed
                ),
            ]
        );
    }

    #[test]
    fn results_must_be_there() {
        let good = [("vm::a".to_owned(), Outcome::Passed)];
        let bad = [("vm::a".to_owned(), Outcome::Failed("so".into()))];
        assert_eq!(problem(true, &[]), Some("no test has run"));
        assert!(problem(false, &[]).is_some() && problem(false, &good).is_some());
        assert!(problem(true, &good).is_none() && problem(false, &bad).is_none());
    }

    #[test]
    fn failed_test_shows_its_panic() {
        assert_eq!(
            panic_message(OUTPUT, "vm::serial::tests::bad")[..2],
            [
                "thread 'serial::tests::bad' panicked at vm/src/serial.rs:1:1:",
                "left is not right"
            ]
        );
    }
}
