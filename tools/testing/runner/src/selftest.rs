// SPDX-License-Identifier: GPL-2.0

//! The selftests: which there are, what machine each wants, and how they are run.

use crate::ktap::{End, Ktap, Outcome};
use crate::tally::{Clock, Detail, Tally, Test};
use anyhow::{Context, Result, ensure};
use glob::Pattern;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vm::{Ended, LogFile, Loss, Options, Vm, reports};

/// Where the guest sees the checkout.
pub const GUEST: &str = "/rust_pmem";
/// A test's time, where its header gives none.
const TIMEOUT: Duration = Duration::from_secs(120);
/// A test can lose its power so often, less one.
const STAGES: u32 = 9;
/// Lines shown of a failure.
pub const WORDS: usize = 12;

/// The part of a test that stands for all of it.
pub const WHOLE: &str = "the test as a whole";

/// Lines of a kernel's report that are the same in all of them.
const NO_NEWS: &[&str] = &[
    "Modules linked in:",
    "CPU: ",
    "Tainted: ",
    "Hardware name:",
    "Call Trace:",
    "<TASK>",
];

/// A selftest, as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selftest {
    /// `dax-exec` of dax-exec.sh.
    pub name: String,
    /// The script, from the root of the checkout.
    pub script: PathBuf,
    /// The first comment: what it tests.
    pub about: String,
    /// Options of the machine it wants.
    pub machine: String,
    /// Its time.
    pub timeout: Duration,
    /// Texts of reports of the kernel that don't fail it.
    pub expected: Vec<String>,
    /// Whether it records what it sees, to be compared between the drivers.
    pub compare: bool,
    /// Whether `make check` runs it, though it is one to be compared.
    pub quick: bool,
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
            compare: false,
            quick: false,
        };
        let mut about = Vec::new();
        for line in text.lines().take_while(|line| line.starts_with('#')) {
            let line = line.trim_start_matches('#').trim();
            if line.starts_with('!') || line.starts_with("SPDX") || line.starts_with("shellcheck") {
                continue;
            }
            if let Some(options) = line.strip_prefix("vm:") {
                test.machine = options.split_whitespace().collect::<Vec<_>>().join(" ");
            } else if let Some(seconds) = line.strip_prefix("timeout:") {
                let seconds = seconds
                    .trim()
                    .parse()
                    .with_context(|| format!("timeout: {seconds}"))?;
                test.timeout = Duration::from_secs(seconds);
            } else if let Some(text) = line.strip_prefix("expect-splat:") {
                ensure!(!text.trim().is_empty(), "expect-splat: without a text");
                test.expected.push(text.trim().to_owned());
            } else if line == "compare" {
                test.compare = true;
            } else if line == "quick" {
                test.quick = true;
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
        Options::from_words(&test.machine).with_context(|| format!("vm: {}", test.machine))?;
        Ok(test)
    }

    /// Whether a pattern means it: `dax-*`, or `dax-*.sh`.
    pub fn is_meant_by(&self, pattern: &Pattern) -> bool {
        pattern.matches(&self.name) || pattern.matches(&format!("{}.sh", self.name))
    }

    /// The tags of its header.
    pub fn tags(&self) -> Vec<&'static str> {
        [
            (self.compare, "compare"),
            (self.quick, "quick"),
            (!self.expected.is_empty(), "expect-splat"),
        ]
        .into_iter()
        .filter_map(|(is, tag)| is.then_some(tag))
        .collect()
    }
}

/// The selftests in these folders of the checkout, in order. No two have the same name.
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

/// Tests that share a machine stand together, in the order of each group's first.
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

/// About how long these take, in seconds: a small part of what they may.
pub fn seconds(tests: &[Selftest]) -> u64 {
    let allowed: u64 = tests.iter().map(|test| test.timeout.as_secs()).sum();
    allowed / 12
}

/// A group as several that take about as long as each other, and none much longer than `most` seconds.
pub fn parts(group: Vec<Selftest>, most: u64) -> Vec<Vec<Selftest>> {
    let whole = seconds(&group).max(1);
    let count = whole.div_ceil(most);
    let mut parts: Vec<Vec<Selftest>> = Vec::new();
    let mut part = None;
    let mut before = 0;
    for test in group {
        let its = Some(before * count / whole);
        before += seconds(slice::from_ref(&test));
        match parts.last_mut() {
            Some(tests) if part == its => tests.push(test),
            _ => parts.push(vec![test]),
        }
        part = its;
    }
    parts
}

/// What a group of tests of a driver is called.
pub fn title(driver: &str, group: &[Selftest]) -> String {
    let machine = match group[0].machine.as_str() {
        "" => "the default machine",
        machine => machine,
    };
    format!("Selftests of {driver}, on {machine}")
}

/// Runs selftests, several groups at once if need be.
pub struct Runner {
    /// The driver under test.
    pub driver: &'static str,
    /// Where the guest finds rust_pmem.ko.
    pub module: PathBuf,
    /// Where logs go.
    logs: PathBuf,
    /// Boots that were tried again.
    pub retried: AtomicUsize,
    /// The kernel's release, once a machine has booted.
    pub kernel: OnceLock<String>,
    boots: AtomicUsize,
}

/// A machine with the files of its devices.
struct Machine {
    // Before the folder: QEMU is gone when its files are.
    vm: Vm,
    folder: TempDir,
    _log: LogFile,
}

/// How one stage of a test went.
struct Stage {
    outcome: Outcome,
    ktap: Ktap,
    output: String,
    log: String,
    /// Whether another stage follows.
    more: bool,
    /// Whether the machine can be used again.
    usable: bool,
    /// Whether more than its subtests failed.
    apart: bool,
    /// Whether it ran out of time.
    hung: bool,
    /// What the kernel reported meanwhile.
    reports: Vec<vm::Report>,
    /// How long it took.
    time: Duration,
}

impl Runner {
    /// Will test this driver and write logs below `logs`.
    pub fn new(driver: &'static str, logs: PathBuf) -> Self {
        Self {
            driver,
            module: Path::new(GUEST).join("rust_pmem.ko"),
            logs,
            retried: AtomicUsize::new(0),
            kernel: OnceLock::new(),
            boots: AtomicUsize::new(0),
        }
    }

    /// Runs tests that want the same machine. They share one until it breaks or one of them fails,
    /// when the rest get another. Shows the results, and returns them.
    pub fn group(&self, tests: &[Selftest], tally: &mut Tally) -> Result<Vec<Test>> {
        let mut machine = None;
        let mut results = Vec::new();
        for test in tests {
            let clock = tally.running(&test.name);
            let result = self.test(test, &mut machine, tally, &clock)?;
            tally.show(&result);
            results.push(result);
        }
        Ok(results)
    }

    /// Runs a test on a machine of its own; shows nothing.
    pub fn alone(&self, test: &Selftest, tally: &Tally, clock: &Clock) -> Result<Test> {
        self.test(test, &mut None, tally, clock)
    }

    /// Boots; the inner error is one that a test can be blamed for.
    fn boot(
        &self,
        options: &Options,
        folder: TempDir,
        tally: &Tally,
        clock: &Clock,
    ) -> Result<Machine, String> {
        // Another pmem-check may have machines here.
        let log = loop {
            let number = self.boots.fetch_add(1, Ordering::Relaxed) + 1;
            let path = self.logs.join(format!("machine-{number:02}.log"));
            match LogFile::at(path) {
                Ok(log) => break log,
                Err(_) if number < 1000 => {}
                Err(error) => return Err(error.to_string()),
            }
        };
        clock.say("booting");
        let mut note = |text: &str| {
            self.retried.fetch_add(1, Ordering::Relaxed);
            tally.note(text);
        };
        match Vm::boot(options, folder.path(), log.path(), &mut note) {
            Ok(vm) => {
                self.kernel.get_or_init(|| vm.kernel().to_owned());
                tally.note(&format!(
                    "Linux {} booted in {:.1} s",
                    vm.kernel(),
                    vm.boot_time().as_secs_f64()
                ));
                for report in serial_reports(&vm, 0) {
                    tally.note(&format!("reported at boot: {}", report.title));
                }
                Ok(Machine {
                    vm,
                    folder,
                    _log: log,
                })
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn test(
        &self,
        test: &Selftest,
        machine: &mut Option<Machine>,
        tally: &Tally,
        clock: &Clock,
    ) -> Result<Test> {
        let folder = self.logs.join(&test.name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let options = Options::from_words(&test.machine)?;
        let mut result = Test {
            about: test.about.clone(),
            ..Test::new(&test.name, Outcome::Failed("it was never run".into()))
        };
        let mut output = String::new();
        let mut log = String::new();
        for number in 1..=STAGES {
            let mut running = match machine.take() {
                Some(running) => running,
                None => match self.boot(&options, tempfile::tempdir()?, tally, clock) {
                    Ok(running) => running,
                    Err(reason) => {
                        fail(&mut result, Outcome::Failed(reason));
                        break;
                    }
                },
            };
            clock.say(&test.name);
            let stage = self.stage(test, number, &mut running.vm)?;
            result.time += stage.time;
            output.push_str(&stage.output);
            log.push_str(&stage.log);
            result.details.extend(details(&stage.ktap, number));
            if let Outcome::Failed(_) = stage.outcome {
                result.words = words(&stage);
            }
            if stage.apart {
                fail(&mut result, stage.outcome);
            } else {
                result.outcome = stage.outcome;
            }
            if stage.more {
                // The same memory under a new machine.
                let Machine { vm, folder, .. } = running;
                drop(vm);
                match self.boot(&options, folder, tally, clock) {
                    Ok(next) => *machine = Some(next),
                    Err(reason) => {
                        fail(&mut result, Outcome::Failed(reason));
                        break;
                    }
                }
                continue;
            }
            if stage.usable {
                *machine = Some(running);
            }
            break;
        }
        fs::write(folder.join("output.ktap"), &output)?;
        fs::write(folder.join("serial.log"), &log)?;
        if let Outcome::Failed(_) = result.outcome {
            result
                .words
                .push(format!("all of it: {}", folder.display()));
        }
        Ok(result)
    }

    fn stage(&self, test: &Selftest, number: u32, vm: &mut Vm) -> Result<Stage> {
        let script = Path::new(GUEST).join(&test.script);
        let command = format!(
            "echo 'pmem-check: {} stage {number}' >/dev/kmsg; cd {GUEST} && export DRIVER={} STAGE={number} MODULE={} \
             PATH={GUEST}/tests:{GUEST}/build/tools/release:$PATH && exec sh {}",
            test.name,
            self.driver,
            self.module.display(),
            shlex::try_quote(&script.to_string_lossy())?
        );
        let limit = vm.limit(test.timeout);
        let begin = Instant::now();
        let start = vm.serial().len();
        let mut bytes = Vec::new();
        let ended = vm.run(&command, Some(limit), &mut |piece| {
            bytes.extend_from_slice(piece)
        })?;
        let time = begin.elapsed();
        // What it is asked for below is no report of the kernel's own.
        let own = vm.serial().since(start)?;
        if ended == Ended::TimedOut {
            vm.tell_who_waits();
        }
        let output = String::from_utf8_lossy(&bytes).into_owned();
        let ktap = Ktap::parse(&output);
        let log = vm.serial().since(start)?;
        let reports = reports(&own);
        let unexpected = reports
            .iter()
            .find(|report| !test.expected.iter().any(|text| report.mentions(text)));
        let (mut outcome, mut more) = match ended {
            Ended::Exited(status) => (ktap.verdict(End::Exited(status)), false),
            Ended::Lost(Loss::PowerCut | Loss::Restart) => {
                (ktap.verdict(End::CutOff), number < STAGES)
            }
            Ended::Lost(Loss::Unasked) => (Outcome::Failed("the machine was lost".into()), false),
            Ended::TimedOut => (
                Outcome::Failed(format!("not done after {} s", limit.as_secs())),
                false,
            ),
        };
        if let Some(report) = unexpected {
            let then = if ended == Ended::TimedOut {
                "; then it hung"
            } else {
                ""
            };
            outcome = Outcome::Failed(format!("the kernel reported: {}{then}", report.title));
        }
        let failed = matches!(outcome, Outcome::Failed(_));
        let apart = failed && ktap.failure().as_ref() != Some(&outcome);
        more &= !failed;
        let usable = matches!(ended, Ended::Exited(_)) && !failed && reports.is_empty();
        let hung = ended == Ended::TimedOut;
        Ok(Stage {
            outcome,
            ktap,
            output,
            log,
            more,
            usable,
            apart,
            hung,
            reports,
            time,
        })
    }
}

/// The test has failed in another way than by its subtests.
pub fn fail(result: &mut Test, outcome: Outcome) {
    result.details.push(Detail {
        name: WHOLE.to_owned(),
        outcome: outcome.clone(),
        text: String::new(),
    });
    result.outcome = outcome;
}

fn serial_reports(vm: &Vm, start: u64) -> Vec<vm::Report> {
    vm.serial()
        .since(start)
        .map(|log| reports(&log))
        .unwrap_or_default()
}

/// What to show of a stage that failed: what failed and its diagnosis, what the kernel reported, or
/// its last words.
fn words(stage: &Stage) -> Vec<String> {
    let mut words = Vec::new();
    for subtest in stage.ktap.failed() {
        words.push(format!("not ok: {}", subtest.name));
        words.extend(
            subtest
                .diagnosis
                .iter()
                .take(4)
                .map(|line| format!("  {line}")),
        );
    }
    for report in &stage.reports {
        let lines = report
            .lines
            .iter()
            .filter(|line| !NO_NEWS.iter().any(|text| line.contains(text)));
        words.extend(lines.take(6).cloned());
    }
    if words.is_empty() {
        words.extend(
            stage
                .ktap
                .subtests
                .last()
                .map(|subtest| format!("last: {}", subtest.name)),
        );
        words.extend(stage.ktap.last_words(WORDS / 2).iter().cloned());
        if stage.hung {
            words.extend(blocked(&stage.log));
        }
    }
    words.truncate(WORDS);
    words
}

/// The tasks that the kernel, asked last, found waiting in it, and for what.
fn blocked(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let last = lines
        .iter()
        .rposition(|line| line.contains("task:") && line.contains(" state:D"));
    let trace = last.map_or(&[][..], |last| &lines[last..]);
    let news = |line: &&&str| !NO_NEWS.iter().any(|text| line.contains(text));
    trace
        .iter()
        .filter(news)
        .take(WORDS / 2)
        .map(|&line| line.to_owned())
        .collect()
}

/// What the subtests of a stage came to. Those of later stages say so in their names.
pub fn details(ktap: &Ktap, stage: u32) -> impl Iterator<Item = Detail> {
    ktap.subtests.iter().map(move |subtest| Detail {
        name: if stage == 1 {
            subtest.name.clone()
        } else {
            format!("stage {stage}: {}", subtest.name)
        },
        outcome: subtest.outcome.clone(),
        text: subtest.diagnosis.join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Selftest> {
        Selftest::parse(Path::new("tests/dax-exec.sh"), text)
    }

    #[test]
    fn a_header() {
        let test = parsed(
            "#!/bin/sh\n# SPDX-License-Identifier: GPL-2.0\n#\n# A mapping is durable. More of it\n# here.\n#\n\
             # vm:  --nvdimm   size=64M\n# timeout: 30\n# compare\n# quick\n# expect-splat: WARNING: badblocks\n\n# no header\n# timeout: 1\n",
        )
        .unwrap();
        assert_eq!(test.name, "dax-exec");
        assert_eq!(test.about, "A mapping is durable");
        assert_eq!(test.machine, "--nvdimm size=64M");
        assert_eq!(test.timeout, Duration::from_secs(30));
        assert_eq!(test.expected, ["WARNING: badblocks"]);
        assert_eq!(test.tags(), ["compare", "quick", "expect-splat"]);
    }

    #[test]
    fn no_header_is_the_default_machine() {
        let test = parsed("plan 1\n").unwrap();
        assert_eq!((test.machine.as_str(), test.timeout), ("", TIMEOUT));
    }

    #[test]
    fn bad_headers() {
        for text in [
            "# vm: --nvdimm size=1",
            "# timeout: soon",
            "# expect-splat:",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tests_of_one_machine_stand_together() {
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
    fn a_long_group_is_several() {
        let group = |lengths: &[u32]| -> Vec<Selftest> {
            let test = |&length| Selftest {
                timeout: TIMEOUT * length,
                ..parsed("").unwrap()
            };
            lengths.iter().map(test).collect()
        };
        let usual = seconds(&group(&[1]));
        let counts = |lengths: &[u32], most: u64| -> Vec<usize> {
            let parts = parts(group(lengths), most * usual);
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
    fn names_are_unique() {
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
