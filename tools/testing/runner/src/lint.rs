// SPDX-License-Identifier: GPL-2.0

//! Format and lints, and other commands on the host that must succeed, some without a warning.

use crate::results::{Activity, Outcome, Results, TestResult};
use anyhow::{Context, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines shown of a failure.
const MAX_LINES: usize = 25;

/// A command on the host.
pub struct Step {
    pub name: &'static str,
    /// The claim that it checks, or its product.
    pub about: &'static str,
    pub activity: Activity,
    pub command: Command,
    /// Whether the word "warning" in its output fails it.
    pub warnings: bool,
    /// Patterns of the files that its result depends on, for [`Green`](crate::green::Green).
    pub inputs: &'static [&'static str],
}

/// What the module is made of, and how.
pub const MODULE: &[&str] = &[
    "*.rs",
    "abstractions/**/*.rs",
    "abstractions/bind*",
    "Kbuild",
    ".clippy.toml",
    ".rustfmt.toml",
    "setup/kernels",
    "setup/kbuild",
];
/// What the host tools are made of.
pub const TOOLS: &[&str] = &[
    "tools/**/*.rs",
    "tools/**/*.toml",
    "tools/Cargo.lock",
    "tests/unit/**/*.rs",
    "tests/unit/Cargo.toml",
    "*.rs",
    "abstractions/**/*.rs",
];
/// All places that have a version.
const VERSIONS: &[&str] = &[
    "tools/Cargo.toml",
    "debian/changelog",
    "contrib/rpm/rust-pmem.spec",
    "CHANGELOG.md",
    "setup/version",
    "setup/check-version",
];
/// All folders that have shell scripts.
const SCRIPTS: &[&str] = &[
    ".shellcheckrc",
    ".ci/*",
    "contrib/**/*",
    "debian/**/*",
    "setup/**/*",
    "tests/*",
    "tests/lib/*",
    "tests/bench/*",
    "tests/external/**/*.sh",
    "tools/testing/vm/guest/*",
];

/// Runs a command; returns whether it succeeded, and its output.
pub fn run(command: &mut Command) -> Result<(bool, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((false, format!("{program} is not there")));
        }
        Err(error) => return Err(error).context(program),
    };
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

impl Step {
    /// Runs it and counts it as a test; returns whether it passed.
    pub fn test(mut self, results: &mut Results, logs: &Path) -> Result<bool> {
        let clock = results.running(self.name);
        let (success, output) = run(&mut self.command)?;
        let log = logs.join(format!("{}.log", self.name));
        fs::write(&log, &output)?;
        let warned = self.warnings && output.lines().any(|line| line.contains("warning"));
        let outcome = if !success {
            Outcome::Failed("it failed".into())
        } else if warned {
            Outcome::Failed("it warned".into())
        } else {
            Outcome::Passed
        };
        let good = outcome == Outcome::Passed;
        let mut lines = Vec::new();
        if !good {
            lines = first_errors(&output);
            lines.push(format!("log: {}", log.display()));
        }
        let time = clock.time();
        match self.activity {
            Activity::Tests => results.spend_on_test(self.name.into(), time),
            other => results.spend(other, time),
        }
        results.add(TestResult {
            about: self.about.into(),
            time,
            lines,
            ..TestResult::new(self.name, outcome)
        });
        Ok(good)
    }
}

/// Returns what to show of a failure: the output from its first error or warning on, or its last lines if these have the
/// first one, or if there is none.
pub fn first_errors(output: &str) -> Vec<String> {
    let lines: Vec<&str> = output.lines().collect();
    // Other lines may speak of errors: those of memory.
    let words = ["error:", "error[", "warning:", "warning[", "Diff in "];
    let is_error = |line: &&str| words.iter().any(|word| line.contains(word));
    let last = lines.len().saturating_sub(MAX_LINES);
    let start = lines
        .iter()
        .position(is_error)
        .map_or(last, |first| first.min(last));
    lines[start..]
        .iter()
        .take(MAX_LINES)
        .map(|&line| line.to_owned())
        .collect()
}

/// Returns the lints of the module. They build it in the folder where it is built for the guest.
pub fn of_module(top: &Path) -> Result<Vec<Step>> {
    let mut format = Command::new("rustfmt");
    format
        .current_dir(top)
        .args(["--check", "--edition", "2021"])
        .args(module_sources(top)?);
    let mut clippy = make(top);
    // A warning is an error: the next build would not compile what has one, and pass.
    clippy.args(["module", "CLIPPY=1", "W=e"]);
    Ok(vec![
        Step {
            name: "rustfmt-module",
            about: "the module has the kernel's format",
            activity: Activity::Lints,
            command: format,
            warnings: true,
            inputs: MODULE,
        },
        Step {
            name: "clippy-module",
            about: "clippy and rustc have no warning for the module",
            activity: Activity::Lints,
            command: clippy,
            warnings: true,
            inputs: MODULE,
        },
    ])
}

/// Returns the lints of the tools and of all scripts.
pub fn of_tools(top: &Path) -> Result<Vec<Step>> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.current_dir(top.join("tools")).args(arguments);
        command
    };
    let mut clippy = cargo(&["clippy", "--workspace", "--all-targets", "--locked"]);
    clippy.args(["--offline", "--quiet", "--", "-D", "warnings"]);
    let mut shellcheck = Command::new("shellcheck");
    shellcheck
        .current_dir(top)
        .args(["--external-sources", "--source-path=SCRIPTDIR"])
        .args(scripts(top)?);
    Ok(vec![
        Step {
            name: "rustfmt-tools",
            about: "the tools have rustfmt's format",
            activity: Activity::Lints,
            command: cargo(&["fmt", "--all", "--check"]),
            warnings: true,
            inputs: TOOLS,
        },
        Step {
            name: "clippy-tools",
            about: "clippy and rustc have no warning for the tools",
            activity: Activity::Lints,
            command: clippy,
            warnings: false,
            inputs: TOOLS,
        },
        Step {
            name: "version",
            about: "packages and changelog have the version of tools/Cargo.toml",
            activity: Activity::Lints,
            command: Command::new(top.join("setup/check-version")),
            warnings: false,
            inputs: VERSIONS,
        },
        Step {
            name: "shellcheck",
            about: "shellcheck has no remark on the shell scripts",
            activity: Activity::Lints,
            command: shellcheck,
            warnings: false,
            inputs: SCRIPTS,
        },
    ])
}

/// Returns a `make` in the checkout that is not a child of another make.
pub fn make(top: &Path) -> Command {
    let mut command = Command::new("make");
    command.current_dir(top).arg("--no-print-directory");
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        command.env_remove(variable);
    }
    command
}

/// The module's own sources in Rust, from the root of the checkout, without the output of bindgen.
pub fn module_sources(top: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for pattern in ["*.rs", "abstractions/**/*.rs"] {
        for source in glob::glob(&format!("{}/{pattern}", top.display()))? {
            let source = source?.strip_prefix(top)?.to_owned();
            if !source.to_string_lossy().contains("generated") {
                sources.push(source);
            }
        }
    }
    sources.sort();
    Ok(sources)
}

/// Finds every shell script of the checkout, by its name or its first line.
fn scripts(top: &Path) -> Result<Vec<PathBuf>> {
    const NOT: &[&str] = &["build", ".git", "target"];
    let mut scripts = Vec::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !NOT.iter().any(|not| entry.file_name() == *not) {
                    folders.push(path);
                }
            } else if kind.is_file() && is_script(&path) {
                scripts.push(path.strip_prefix(top)?.to_path_buf());
            }
        }
    }
    scripts.sort();
    Ok(scripts)
}

fn is_script(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension == "sh") {
        return true;
    }
    if path.extension().is_some() {
        return false;
    }
    let Ok(text) = fs::read(path) else {
        return false;
    };
    let start = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
    start.lines().next().is_some_and(|line| {
        line.starts_with("#!") && (line.ends_with("/sh") || line.ends_with(" sh"))
    }) || start.contains("# shellcheck shell=sh")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "an error of memory\n";

    #[test]
    fn output_is_shown_from_its_first_error_on() {
        let other = OTHER.repeat(100);
        let shown = first_errors(&format!("{other}error: first\n{other}error: second\n"));
        assert_eq!(shown.len(), MAX_LINES);
        assert_eq!(shown[0], "error: first");
    }

    #[test]
    fn end_of_the_output_is_shown_if_the_error_is_there() {
        let other = OTHER.repeat(100);
        for last in ["error: it differs\n", "no error\n"] {
            let shown = first_errors(&format!("{other}{last}"));
            assert_eq!(shown.len(), MAX_LINES);
            assert_eq!(shown.last().unwrap(), last.trim_end());
        }
    }
}
