// SPDX-License-Identifier: GPL-2.0

//! The selftests: their headers, and their order.

use crate::executor::{GUEST, GuestTest, Protocol};
use crate::machines::{Machine, Machines};
use crate::results::{Outcome, TestResult};
use crate::seconds::Seconds;
use anyhow::{Context, Result, ensure};
use glob::Pattern;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Words of scripts that have pages fail.
const FAILS_PAGES: &[&str] = &["host mce", "mce_inject", "inject_mce", "hwpoison"];
/// Begins the names of machines whose memory the tests' provider makes whole again.
const PROVIDER: &str = "provider";
/// A test's time, where its header gives none.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A selftest, as its header describes it.
#[derive(Debug, Clone)]
pub struct Selftest {
    /// `dax-exec` of dax-exec.sh.
    pub name: String,
    /// The path from the root of the checkout.
    pub script: PathBuf,
    /// The first sentence of the header.
    pub about: String,
    pub machine: Machine,
    pub timeout: Duration,
    /// Reports of the kernel that have one of these texts do not fail it.
    pub expected: Vec<String>,
    /// The same, with the C driver.
    pub expected_of_c: Vec<String>,
    /// The kernel must report each of these texts, or it fails.
    pub required: Vec<String>,
    /// Whether it needs the debug kernel.
    pub debug: bool,
    /// Whether it has pages fail that stay so for the tests after it.
    pub fails_pages: bool,
    /// Whether it records values, to be compared between the drivers.
    pub compare: bool,
    /// Whether `make quick` runs it.
    pub quick: bool,
    /// Whether it runs only by its name, because it takes minutes.
    pub soak: bool,
}

impl Selftest {
    /// Reads a script's header: its first block of comments.
    pub fn parse(script: &Path, text: &str, machines: &Machines) -> Result<Self> {
        let name = script.file_stem().unwrap_or_default().to_string_lossy();
        let header = || text.lines().take_while(|line| line.starts_with('#'));
        let machine = header().find_map(|line| line.strip_prefix("# vm:"));
        let machine =
            machine.with_context(|| format!("{name}: its header names no machine (# vm: NAME)"))?;
        let mut test = Self {
            name: name.into_owned(),
            script: script.to_owned(),
            about: String::new(),
            machine: machines.find(machine)?,
            timeout: TIMEOUT,
            expected: Vec::new(),
            expected_of_c: Vec::new(),
            required: Vec::new(),
            debug: false,
            fails_pages: false,
            compare: false,
            quick: false,
            soak: false,
        };
        let mut about = Vec::new();
        for line in header() {
            let line = line.trim_start_matches('#').trim();
            // tests/lib/test.sh reads "kernel:".
            let others = ["!", "SPDX", "shellcheck", "kernel:", "vm:"];
            if others.iter().any(|other| line.starts_with(other)) {
                continue;
            }
            let (tag, text) = line.split_once(':').unwrap_or((line, ""));
            if let Some(splats) = test.splats(tag) {
                ensure!(!text.trim().is_empty(), "{tag}: without a text");
                splats.push(text.trim().to_owned());
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
        let written = !test.about.is_empty() && !test.about.starts_with("TODO");
        let fails_pages = FAILS_PAGES.iter().any(|word| text.contains(word));
        test.fails_pages = fails_pages && !test.machine.label.starts_with(PROVIDER);
        ensure!(written, "{}: its header has no title", test.name);
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

    /// Returns whether `make check` without arguments runs it.
    pub fn is_checked(&self) -> bool {
        !self.soak && !self.debug
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
            machine: self.machine.options.clone(),
            timeout: self.timeout,
            command: format!(
                "cd {GUEST} && exec sh {}",
                shlex::try_quote(&script.to_string_lossy())?
            ),
            protocol: Protocol::Ktap,
            expected: self.expected.clone(),
            expected_of_c: self.expected_of_c.clone(),
            required: self.required.clone(),
            fails_pages: self.fails_pages,
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

/// Finds the selftests in a folder of the checkout, ordered by name.
pub fn find(top: &Path, folder: &Path) -> Result<Vec<Selftest>> {
    let machines = Machines::load(top)?;
    let mut tests: Vec<Selftest> = Vec::new();
    let path = top.join(folder);
    for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sh") {
            let text = fs::read_to_string(path.join(&name)).with_context(|| name.clone())?;
            let script = folder.join(&name);
            tests.push(Selftest::parse(&script, &text, &machines).with_context(|| name)?);
        }
    }
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tests)
}

pub fn guest_tests(tests: &[Selftest]) -> Result<Vec<GuestTest>> {
    tests.iter().map(Selftest::guest_test).collect()
}

/// Checks that each machine of the list has a test.
pub fn lint_machines(top: &Path, tests: &[Selftest]) -> Result<TestResult> {
    let machines = Machines::load(top)?;
    let unused = machines.unused(tests.iter().map(|test| test.machine.label.as_str()));
    let outcome = match unused.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Failed(format!("no test names {}", unused.join(", "))),
    };
    Ok(TestResult {
        about: "each machine of tests/machines.toml has a test".into(),
        ..TestResult::new("machines", outcome)
    })
}

/// Groups tests by machine, in the order of each group's first test.
pub fn grouped(tests: Vec<Selftest>) -> Vec<Vec<Selftest>> {
    let mut groups: Vec<Vec<Selftest>> = Vec::new();
    for test in tests {
        match groups
            .iter_mut()
            .find(|group| group[0].machine.label == test.machine.label)
        {
            Some(group) => group.push(test),
            None => groups.push(vec![test]),
        }
    }
    groups
}

/// Divides a group into parts that take about as long as each other, and none much longer than `max_seconds`.
pub fn parts(group: Vec<Selftest>, seconds: &Seconds, max_seconds: u64) -> Vec<Vec<Selftest>> {
    let whole = seconds.of(&group).max(1);
    let count = whole.div_ceil(max_seconds);
    let mut parts: Vec<Vec<Selftest>> = Vec::new();
    let mut part = None;
    let mut before = 0;
    for test in group {
        let next = Some((before * count / whole).min(count - 1));
        before += seconds.of([&test]);
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
    format!("Selftests of {driver}, on {}", group[0].machine.label)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::machines::tests::machines;

    fn parsed(text: &str) -> Result<Selftest> {
        Selftest::parse(Path::new("tests/dax-exec.sh"), text, &machines())
    }

    /// Returns a test of this name on a machine, with these lines in its header.
    pub fn selftest(name: &str, header: &str) -> Selftest {
        let script = format!("tests/{name}.sh");
        let text = format!("# A claim.\n# vm: one\n{header}");
        Selftest::parse(Path::new(&script), &text, &machines()).unwrap()
    }

    #[test]
    fn header_is_read() {
        let test = parsed(
            "#!/bin/sh\n# SPDX-License-Identifier: GPL-2.0\n#\n# A mapping is durable. More of it\n# here.\n#\n\
             # vm:  one\n# timeout: 30\n# compare\n# quick\n# soak\n# debug\n# expect-splat: WARNING: badblocks\n\
             # expect-splat-nd_pmem: BUG: unable\n\
             # require-splat: BUG: KASAN\n\n# no header\n# timeout: 1\n",
        )
        .unwrap();
        assert_eq!(test.name, "dax-exec");
        assert_eq!(test.about, "A mapping is durable");
        assert_eq!(test.machine.label, "one");
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
    fn invalid_header_is_refused() {
        for (text, reason) in [
            ("# vm: one", "no title"),
            ("# TODO: one sentence.\n# vm: one", "no title"),
            ("# A claim.", "names no machine"),
            (
                "# A claim.\n# vm: --nvdimm size=64M",
                "only a number of CPUs",
            ),
            ("# A claim.\n# vm: one\n# timeout: soon", "timeout"),
            ("# A claim.\n# vm: one\n# expect-splat:", "without a text"),
            (
                "# A claim.\n# vm: one\n# expect-splat-nd_pmem:",
                "without a text",
            ),
            ("# A claim.\n# vm: one\n# require-splat:", "without a text"),
        ] {
            let error = format!("{:#}", parsed(text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn tests_are_grouped_by_machine_and_cpus() {
        let with = |name: &str, machine: &str| Selftest {
            machine: machines().find(machine).unwrap(),
            ..selftest(name, "")
        };
        let groups = grouped(vec![
            with("a", "one"),
            with("b", "other"),
            with("c", "one"),
            with("d", "one 2"),
        ]);
        let names: Vec<Vec<_>> = groups
            .iter()
            .map(|group| group.iter().map(|test| test.name.as_str()).collect())
            .collect();
        assert_eq!(names, [vec!["a", "c"], vec!["b"], vec!["d"]]);
    }

    #[test]
    fn long_group_is_divided() {
        let counts = |lengths: &[u64], max: u64| -> Vec<usize> {
            let names: Vec<String> = (0..lengths.len())
                .map(|number| format!("t{number}"))
                .collect();
            let group = names.iter().map(|name| selftest(name, "")).collect();
            let seconds = Seconds::from_iter(names.into_iter().zip(lengths.iter().copied()));
            let parts = parts(group, &seconds, max);
            parts.iter().map(Vec::len).collect()
        };
        assert_eq!(counts(&[10; 4], 40), [4]);
        assert_eq!(counts(&[10; 5], 40), [3, 2]);
        assert_eq!(counts(&[10; 9], 40), [3, 3, 3]);
        assert_eq!(counts(&[90, 10, 10, 10], 40), [1, 3]);
        assert_eq!(counts(&[10, 10, 90, 10], 40), [3, 1]);
        assert_eq!(counts(&[90], 40), [1]);
        assert!(counts(&[], 40).is_empty());
    }
}
