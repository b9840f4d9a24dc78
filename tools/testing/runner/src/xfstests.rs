// SPDX-License-Identifier: GPL-2.0

//! Makes a suite of an installed tree of xfstests that the user provides: each test with each `-o dax=`.

use crate::suite::Suite;
use anyhow::{Context, Result, ensure};
use glob::Pattern;
use std::fs;
use std::path::Path;

/// Values of `-o dax=` that file systems are mounted with.
const CONFIGS: [&str; 3] = ["always", "inode", "never"];
/// Time-out of a test, in seconds.
const TIMEOUT: u64 = 3600;

/// Returns the tests of `tree` for file systems of the type `fstyp`: those of `group` or, with patterns, those that match
/// one, once for each `-o dax=`. A pattern matches a test, such as generic/4*, or a whole name, such as
/// xfs/inode/generic/413.
pub fn suite(
    top: &Path,
    tree: &Path,
    fstyp: &str,
    group: &str,
    patterns: &[Pattern],
) -> Result<Suite> {
    ensure!(
        tree.join("check").is_file() && tree.join("tests").is_dir(),
        "{}: no xfstests are installed there: it has no program check, or no tests",
        tree.display()
    );
    let own = tree.join("suite.toml");
    let suite = match own.is_file() {
        true => Suite::load_from(top, "xfstests/standin", tree)?,
        false => Suite::load(top, "xfstests")?,
    };
    let tests = tests(tree, fstyp)?;
    let mut names = Vec::new();
    for config in CONFIGS {
        for (test, groups) in &tests {
            let name = format!("{fstyp}/{config}/{test}");
            let selected = match patterns {
                [] => groups.iter().any(|of| of == group),
                _ => patterns
                    .iter()
                    .any(|pattern| pattern.matches(test) || pattern.matches(&name)),
            };
            if selected {
                names.push(name);
            }
        }
    }
    ensure!(
        !names.is_empty(),
        "{}: it has no such tests for {fstyp}",
        tree.display()
    );
    let path = tree.canonicalize()?;
    let path = path.to_str().context("the tree's name is not in UTF-8")?;
    let share = format!(
        "local,path={},mount_tag=xfstests,security_model=none,readonly=on",
        path.replace(',', ",,")
    );
    // Quoted once for QEMU's command line, once for the machine's options.
    let qemu = format!("-virtfs {}", shlex::try_quote(&share)?);
    let options = format!("--qemu {}", shlex::try_quote(&qemu)?);
    suite.with_tests(tree, names, TIMEOUT, &options)
}

/// Returns the generic tests and those of this file system, each with its groups, as the suite lists them.
fn tests(tree: &Path, fstyp: &str) -> Result<Vec<(String, Vec<String>)>> {
    let mut tests = Vec::new();
    for folder in ["generic", fstyp] {
        let list = tree.join("tests").join(folder).join("group.list");
        let Ok(text) = fs::read_to_string(&list) else {
            ensure!(
                folder != "generic",
                "{}: not there; is the suite installed?",
                list.display()
            );
            continue;
        };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace().map(str::to_owned);
            if let Some(number) = words.next() {
                tests.push((format!("{folder}/{number}"), words.collect()));
            }
        }
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read_with_their_groups() {
        let tree = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = tree.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("check", "");
        write(
            "tests/generic/group.list",
            "# comment\n\n001 auto dax\n002 auto # dax\n",
        );
        write("tests/xfs/group.list", "003 dax\n");
        let found = tests(tree.path(), "xfs").unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["generic/001", "generic/002", "xfs/003"]);
        assert_eq!(found[1].1, ["auto"]);
        assert_eq!(tests(tree.path(), "ext4").unwrap().len(), 2);
    }
}
