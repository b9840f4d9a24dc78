// SPDX-License-Identifier: GPL-2.0

//! Lints and test programs that have passed, and whose inputs have not changed since then, are not repeated.

use crate::lint::Step;
use crate::recorded::sums;
use crate::results::{Outcome, Results, TestResult};
use anyhow::{Context, Result};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The inputs of steps that passed, each in a file.
const FOLDER: &str = "build/green";

pub struct Green {
    top: PathBuf,
    /// Whether what has not changed is left out.
    leaves_out: bool,
    /// Names the set-up with compilers and linters.
    root: String,
}

impl Green {
    pub fn new(top: &Path, leaves_out: bool) -> Result<Self> {
        let folder = top.join(FOLDER);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        // A link into the cache of the set-up, where each part is named for its recipe.
        let kernel =
            env::var_os("RUST_PMEM_IMAGES").map(|images| Path::new(&images).join("kernel"));
        let root = kernel.and_then(|kernel| kernel.canonicalize().ok());
        Ok(Self {
            top: top.to_owned(),
            leaves_out,
            root: root.unwrap_or_default().display().to_string(),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.top.join(FOLDER).join(name)
    }

    fn text(&self, inputs: &str) -> String {
        format!("{}\n{inputs}", self.root)
    }

    /// Returns whether this passed with these inputs, and need not be repeated.
    pub fn is(&self, name: &str, inputs: &str) -> bool {
        let passed = fs::read_to_string(self.file(name));
        self.leaves_out && passed.is_ok_and(|passed| passed == self.text(inputs))
    }

    /// Notes whether it passed with these inputs.
    pub fn note(&self, name: &str, inputs: &str, passed: bool) -> Result<()> {
        let file = self.file(name);
        if !passed {
            let _ = fs::remove_file(&file);
            return Ok(());
        }
        // Half a text is no inputs.
        fs::write(&file, self.text(inputs)).with_context(|| file.display().to_string())
    }

    /// Runs a step, unless it passed with the same inputs.
    pub fn test(&self, step: Step, results: &mut Results, logs: &Path) -> Result<()> {
        let (name, about) = (step.name, step.about);
        let inputs = sums(&self.top, step.inputs)?;
        if self.is(name, &inputs) {
            results.add(TestResult {
                about: format!("{about} (unchanged)"),
                ..TestResult::new(name, Outcome::Passed)
            });
            return Ok(());
        }
        let passed = step.test(results, logs)?;
        self.note(name, &inputs, passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_inputs_that_passed_are_left_out() {
        let top = tempfile::tempdir().unwrap();
        let green = Green::new(top.path(), true).unwrap();
        assert!(!green.is("a", "1"));
        green.note("a", "1", true).unwrap();
        assert!(green.is("a", "1"));
        assert!(!green.is("a", "2") && !green.is("b", "1"));
        assert!(!Green::new(top.path(), false).unwrap().is("a", "1"));
        green.note("a", "2", false).unwrap();
        assert!(!green.is("a", "1"));
    }
}
