// SPDX-License-Identifier: GPL-2.0

//! The selftests: their headers, and their order.

use crate::executor::{GUEST, GuestTest, Protocol};
use anyhow::{Context, Result, ensure};
use glob::Pattern;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::Duration;
use vm::Options;

/// A test's time, where its header gives none.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A selftest, as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selftest {
    /// `dax-exec` of dax-exec.sh.
    pub name: String,
    /// The path from the root of the checkout.
    pub script: PathBuf,
    /// The first sentence of the header.
    pub about: String,
    /// Options of the machine, as [`Options::from_words`] reads them.
    pub machine: String,
    pub timeout: Duration,
    /// Reports of the kernel that have one of these texts do not fail it.
    pub expected: Vec<String>,
    /// The same, with the C driver.
    pub expected_of_c: Vec<String>,
    /// The kernel must report each of these texts, or it fails.
    pub required: Vec<String>,
    /// Whether it needs the debug kernel.
    pub debug: bool,
    /// Whether it records values, to be compared between the drivers.
    pub compare: bool,
    /// Whether `make check` runs it, although it is one to compare.
    pub quick: bool,
    /// Whether it runs only by its name, because it takes minutes.
    pub soak: bool,
}

impl Selftest {
    /// Reads a script's header: its first block of comments.
    pub fn parse(script: &Path, text: &str) -> Result<Self> {
        let name = script.file_stem().unwrap_or_default().to_string_lossy();
        let mut test = Self {
            name: name.into_owned(),
            script: script.to_owned(),
            about: String::new(),
            machine: String::new(),
            timeout: TIMEOUT,
            expected: Vec::new(),
            expected_of_c: Vec::new(),
            required: Vec::new(),
            debug: false,
            compare: false,
            quick: false,
            soak: false,
        };
        let mut about = Vec::new();
        for line in text.lines().take_while(|line| line.starts_with('#')) {
            let line = line.trim_start_matches('#').trim();
            // tests/lib/test.sh reads "kernel:".
            let others = ["!", "SPDX", "shellcheck", "kernel:"];
            if others.iter().any(|other| line.starts_with(other)) {
                continue;
            }
            let (tag, text) = line.split_once(':').unwrap_or((line, ""));
            if let Some(splats) = test.splats(tag) {
                ensure!(!text.trim().is_empty(), "{tag}: without a text");
                splats.push(text.trim().to_owned());
            } else if let Some(options) = line.strip_prefix("vm:") {
                test.machine = options.split_whitespace().collect::<Vec<_>>().join(" ");
            } else if let Some(seconds) = line.strip_prefix("timeout:") {
                let seconds = seconds
                    .trim()
                    .parse()
                    .with_context(|| format!("timeout: {seconds}"))?;
                test.timeout = Duration::from_secs(seconds);
            } else if line == "debug" {
                test.debug = true;
            } else if line == "compare" {
                test.compare = true;
            } else if line == "quick" {
                test.quick = true;
            } else if line == "soak" {
                test.soak = true;
            } else {
                about.push(line);
            }
        }
        // The first sentence of the first paragraph.
        let about: Vec<_> = about
            .iter()
            .skip_while(|line| line.is_empty())
            .take_while(|line| !line.is_empty())
            .collect();
        let about = about.into_iter().copied().collect::<Vec<_>>().join(" ");
        let end = about.find(". ").unwrap_or(about.len());
        test.about = about[..end].trim_end_matches(['.', ':']).to_owned();
        test.options()
            .with_context(|| format!("vm: {}", test.machine))?;
        Ok(test)
    }

    /// Returns the texts of reports that lines with this tag add to.
    fn splats(&mut self, tag: &str) -> Option<&mut Vec<String>> {
        match tag {
            "expect-splat" => Some(&mut self.expected),
            "expect-splat-nd_pmem" => Some(&mut self.expected_of_c),
            "require-splat" => Some(&mut self.required),
            _ => None,
        }
    }

    /// Returns the machine. It has one processor, which an emulator runs with less work than two, unless the header has
    /// `--cpus`.
    fn options(&self) -> Result<Options> {
        let cpus = match self.machine.contains("--cpus") {
            true => "",
            false => "--cpus 1 ",
        };
        Options::from_words(&format!("{cpus}{}", self.machine))
    }

    /// Returns whether `make check` without arguments runs it.
    pub fn is_checked(&self) -> bool {
        !self.soak && !self.debug && (!self.compare || self.quick)
    }

    /// Returns whether a pattern matches it: `dax-*`, or `dax-*.sh`.
    pub fn matches(&self, pattern: &Pattern) -> bool {
        pattern.matches(&self.name) || pattern.matches(&format!("{}.sh", self.name))
    }

    /// Returns what runs in the guest.
    pub fn guest_test(&self) -> Result<GuestTest> {
        let script = Path::new(GUEST).join(&self.script);
        Ok(GuestTest {
            name: self.name.clone(),
            about: self.about.clone(),
            machine: self.options()?,
            timeout: self.timeout,
            command: format!(
                "cd {GUEST} && exec sh {}",
                shlex::try_quote(&script.to_string_lossy())?
            ),
            protocol: Protocol::Ktap,
            expected: self.expected.clone(),
            expected_of_c: self.expected_of_c.clone(),
            required: self.required.clone(),
            // By its name, on a kernel without its features.
            may_skip: self.debug,
            rerun: format!("make check TESTS={}", self.name),
        })
    }

    /// Returns the tags of its header.
    pub fn tags(&self) -> Vec<&'static str> {
        [
            (self.compare, "compare"),
            (self.quick, "quick"),
            (self.soak, "soak"),
            (self.debug, "debug"),
            (!self.expected.is_empty(), "expect-splat"),
            (!self.expected_of_c.is_empty(), "expect-splat-nd_pmem"),
            (!self.required.is_empty(), "require-splat"),
        ]
        .into_iter()
        .filter_map(|(is, tag)| is.then_some(tag))
        .collect()
    }
}

/// Finds the selftests in these folders of the checkout, ordered by name. No two have the same name.
pub fn find(top: &Path, folders: &[PathBuf]) -> Result<Vec<Selftest>> {
    let mut tests: Vec<Selftest> = Vec::new();
    for folder in folders {
        let path = top.join(folder);
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".sh") {
                let text = fs::read_to_string(path.join(&name)).with_context(|| name.clone())?;
                tests.push(Selftest::parse(&folder.join(&name), &text).with_context(|| name)?);
            }
        }
    }
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in tests.windows(2) {
        let (one, other) = (pair[0].script.display(), pair[1].script.display());
        ensure!(
            pair[0].name != pair[1].name,
            "{one} and {other}: two tests of one name"
        );
    }
    Ok(tests)
}

pub fn guest_tests(tests: &[Selftest]) -> Result<Vec<GuestTest>> {
    tests.iter().map(Selftest::guest_test).collect()
}

/// Groups tests by machine, in the order of each group's first test.
pub fn grouped(tests: Vec<Selftest>) -> Vec<Vec<Selftest>> {
    let mut groups: Vec<Vec<Selftest>> = Vec::new();
    for test in tests {
        match groups
            .iter_mut()
            .find(|group| group[0].machine == test.machine)
        {
            Some(group) => group.push(test),
            None => groups.push(vec![test]),
        }
    }
    groups
}

/// Estimates how long these tests take, in seconds: a small part of their time-outs.
pub fn seconds(tests: &[Selftest]) -> u64 {
    let allowed: u64 = tests.iter().map(|test| test.timeout.as_secs()).sum();
    allowed / 12
}

/// Divides a group into parts that take about as long as each other, and none much longer than `max_seconds`.
pub fn parts(group: Vec<Selftest>, max_seconds: u64) -> Vec<Vec<Selftest>> {
    let whole = seconds(&group).max(1);
    let count = whole.div_ceil(max_seconds);
    let mut parts: Vec<Vec<Selftest>> = Vec::new();
    let mut part = None;
    let mut before = 0;
    for test in group {
        let next = Some(before * count / whole);
        before += seconds(slice::from_ref(&test));
        match parts.last_mut() {
            Some(tests) if part == next => tests.push(test),
            _ => parts.push(vec![test]),
        }
        part = next;
    }
    parts
}

/// Returns the heading of a group of tests of a driver.
pub fn title(driver: &str, group: &[Selftest]) -> String {
    let machine = match group[0].machine.as_str() {
        "" => "the default machine",
        machine => machine,
    };
    format!("Selftests of {driver}, on {machine}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Selftest> {
        Selftest::parse(Path::new("tests/dax-exec.sh"), text)
    }

    #[test]
    fn header_is_read() {
        let test = parsed(
            "#!/bin/sh\n# SPDX-License-Identifier: GPL-2.0\n#\n# A mapping is durable. More of it\n# here.\n#\n\
             # vm:  --nvdimm   size=64M\n# timeout: 30\n# compare\n# quick\n# soak\n# debug\n# expect-splat: WARNING: badblocks\n\
             # expect-splat-nd_pmem: BUG: unable\n\
             # require-splat: BUG: KASAN\n\n# no header\n# timeout: 1\n",
        )
        .unwrap();
        assert_eq!(test.name, "dax-exec");
        assert_eq!(test.about, "A mapping is durable");
        assert_eq!(test.machine, "--nvdimm size=64M");
        assert_eq!(test.guest_test().unwrap().machine.cpus, 1);
        assert_eq!(test.timeout, Duration::from_secs(30));
        assert_eq!(test.expected, ["WARNING: badblocks"]);
        assert_eq!(test.expected_of_c, ["BUG: unable"]);
        assert_eq!(test.required, ["BUG: KASAN"]);
        assert_eq!(
            test.tags(),
            [
                "compare",
                "quick",
                "soak",
                "debug",
                "expect-splat",
                "expect-splat-nd_pmem",
                "require-splat"
            ]
        );
    }

    #[test]
    fn missing_header_means_default_machine() {
        let test = parsed("plan 1\n").unwrap();
        assert_eq!((test.machine.as_str(), test.timeout), ("", TIMEOUT));
    }

    #[test]
    fn header_may_ask_for_processors() {
        let test = parsed("# vm: --bare --cpus 3\n").unwrap();
        assert_eq!(test.guest_test().unwrap().machine.cpus, 3);
    }

    #[test]
    fn invalid_header_is_refused() {
        for text in [
            "# vm: --nvdimm size=1",
            "# vm: --cpus",
            "# timeout: soon",
            "# expect-splat:",
            "# expect-splat-nd_pmem:",
            "# require-splat:",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tests_are_grouped_by_machine() {
        let with = |name: &str, machine: &str| Selftest {
            name: name.into(),
            machine: machine.into(),
            ..parsed("").unwrap()
        };
        let groups = grouped(vec![with("a", ""), with("b", "--bare"), with("c", "")]);
        let names: Vec<Vec<_>> = groups
            .iter()
            .map(|group| group.iter().map(|test| test.name.as_str()).collect())
            .collect();
        assert_eq!(names, [vec!["a", "c"], vec!["b"]]);
    }

    #[test]
    fn long_group_is_divided() {
        let group = |lengths: &[u32]| -> Vec<Selftest> {
            let test = |&length| Selftest {
                timeout: TIMEOUT * length,
                ..parsed("").unwrap()
            };
            lengths.iter().map(test).collect()
        };
        let usual = seconds(&group(&[1]));
        let counts = |lengths: &[u32], max: u64| -> Vec<usize> {
            let parts = parts(group(lengths), max * usual);
            parts.iter().map(Vec::len).collect()
        };
        assert_eq!(counts(&[1; 4], 4), [4]);
        assert_eq!(counts(&[1; 5], 4), [3, 2]);
        assert_eq!(counts(&[1; 9], 4), [3, 3, 3]);
        assert_eq!(counts(&[9, 1, 1, 1], 4), [1, 3]);
        assert_eq!(counts(&[1, 1, 9, 1], 4), [3, 1]);
        assert_eq!(counts(&[9], 4), [1]);
        assert!(counts(&[], 4).is_empty());
    }

    #[test]
    fn duplicate_name_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let folders = ["one", "other"].map(PathBuf::from);
        let script = |folder: &Path, name: &str| {
            fs::create_dir_all(top.path().join(folder)).unwrap();
            fs::write(top.path().join(folder).join(name), "").unwrap();
        };
        script(&folders[0], "b.sh");
        script(&folders[1], "a.sh");
        script(&folders[1], "mutants.toml");
        let found = find(top.path(), &folders).unwrap();
        let names: Vec<_> = found.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        script(&folders[1], "b.sh");
        let error = find(top.path(), &folders).unwrap_err().to_string();
        assert!(error.contains("two tests of one name"), "{error}");
    }
}
