// SPDX-License-Identifier: GPL-2.0

//! Tests that need no machine: cargo's.

use crate::ktap::Outcome;
use crate::lint;
use crate::tally::{Tally, Test};
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One line of what cargo's test runner prints, as a result.
fn result(line: &str) -> Option<(String, Outcome)> {
    let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match verdict.trim() {
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

/// All results in what cargo printed, each with the name of its crate before it.
fn results(said: &str) -> Vec<(String, Outcome)> {
    let mut target = String::new();
    let mut found = Vec::new();
    for line in said.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("Running ") {
            // "Running unittests src/lib.rs (build/tools/release/deps/vm-0123456789abcdef)"
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

/// Runs them and counts each.
pub fn test(top: &Path, tally: &mut Tally, logs: &Path) -> Result<()> {
    let clock = tally.running("cargo test");
    let mut command = Command::new("sh");
    // One stream, so that the name of each program stands before its results.
    command.current_dir(top.join("tools")).args([
        "-c",
        "exec cargo test --release --workspace --no-fail-fast --locked --offline 2>&1",
    ]);
    let (success, said) = lint::run(&mut command)?;
    fs::write(logs.join("cargo-test.log"), &said)?;
    let results = results(&said);
    let count = results.len();
    let failed = results
        .iter()
        .any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
    for (name, outcome) in results {
        let mut test = Test::new(name, outcome);
        if let Outcome::Failed(_) = test.outcome {
            test.words = panic_of(&said, &test.name);
        }
        tally.add_quietly(test);
    }
    if !success && !failed {
        let lines: Vec<&str> = said.lines().collect();
        let outcome = Outcome::Failed("the tests could not be built or run".into());
        tally.add(Test {
            time: clock.time(),
            words: lines[lines.len().saturating_sub(20)..]
                .iter()
                .map(|&line| line.to_owned())
                .collect(),
            ..Test::new("cargo-test", outcome)
        });
    }
    tally.note(&format!(
        "{count} tests in {:.1} s",
        clock.time().as_secs_f64()
    ));
    Ok(())
}

/// What a failed test said: cargo prints it after "---- name stdout ----".
fn panic_of(said: &str, name: &str) -> Vec<String> {
    let short = name.split_once("::").map_or(name, |(_, short)| short);
    let start = format!("---- {short} stdout ----");
    let lines = said.lines().skip_while(|line| *line != start).skip(1);
    lines
        .take_while(|line| !line.starts_with("---- "))
        .filter(|line| !line.is_empty())
        .take(8)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "
     Running unittests src/lib.rs (build/tools/release/deps/vm-0123456789abcdef)
running 3 tests
test serial::tests::good ... ok
test serial::tests::bad ... FAILED
test serial::tests::slow ... ignored, boots machines

failures:

---- serial::tests::bad stdout ----

thread 'serial::tests::bad' panicked at vm/src/serial.rs:1:1:
left is not right

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests units
test units/src/lib.rs - Size (line 3) ... ok
";

    #[test]
    fn what_cargo_prints() {
        assert_eq!(
            results(SAID),
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
    fn what_a_failed_test_said() {
        assert_eq!(
            panic_of(SAID, "vm::serial::tests::bad")[1],
            "left is not right"
        );
    }
}
