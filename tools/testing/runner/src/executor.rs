// SPDX-License-Identifier: GPL-2.0

//! Runs tests in guests: boots them, tries again, ends tests that take too long, and collects output, logs and the kernel's
//! reports. Selftests and suites are sources of tests: each [`GuestTest`] has a command, and a protocol of its output.

use crate::coverage;
use crate::exit_status;
use crate::flaky::Flaky;
use crate::ktap;
use crate::reading::{LOST, MAX_LINES, REPORTED, Reading};
use crate::results::{Activity, Clock, Outcome, Results, TestResult};
use anyhow::{Context, Result};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vm::{Architecture, Ended, Images, LogFile, Options, Report, Vm, reports};

/// Where the guest sees the checkout.
pub const GUEST: &str = "/rust_pmem";
/// Lines shown of one report of the kernel, or of one blocked task.
const MAX_REPORT: usize = 6;

/// QEMU's gdb server for a guest that is kept, from the root of the checkout.
const GDB: &str = "build/gdb.sock";
/// The kernel's log, in the folder of a test.
const SERIAL: &str = "serial.log";
/// Begins the names of kernels that report what tests do not see.
const DEBUG_KERNELS: &str = "debug";
/// The debug kernel that reports data races, which need two processors.
const RACES: &str = "debug-races";
/// Where the modules for other kernels are, from the root of the checkout.
const KERNELS: &str = "build/kernels";
/// Where the tools for arm64 guests are.
const ARM64_TOOLS: &str = "build/tools/aarch64-unknown-linux-gnu/debug";
const C_DRIVER: &str = "nd_pmem";
const FIND_LEAKS: &str = "sh /rust_pmem/tests/lib/kmemleak.sh";
/// Prints a line if lockdep is there, but off.
const LOCKDEP_IS_OFF: &str = "grep -s 'debug_locks: *0' /proc/lockdep_stats || :";
/// Prints what a report of the kernel changes: the numbers of warnings and oopses, and the taints of a bad page (also by KASAN), an
/// oops, a warning and a lockup (Documentation/admin-guide/tainted-kernels.rst).
const COUNTS: &str = "cat /sys/kernel/warn_count /sys/kernel/oops_count; \
    echo $(($(cat /proc/sys/kernel/tainted) & 0x42a0))";
/// In the log of a test that has changed them, before the old and the new ones.
const COUNTED: &str = "pmem-check: counts of reports before and after the test: ";
const LEAKS_AT_BOOT: Duration = Duration::from_secs(60);
/// The time for the last command in a guest.
const TIME_TO_REPORT: Duration = Duration::from_secs(60);
/// A test can request one power cut or restart less than this.
const STAGES: u32 = 9;

/// The subtest that stands for the whole test.
pub const WHOLE: &str = "the test as a whole";

/// Lines that every report of the kernel has.
const BOILERPLATE: &[&str] = &[
    "Modules linked in:",
    "CPU: ",
    "Tainted: ",
    "Hardware name:",
    "Workqueue: ",
    "Call Trace:",
    "<TASK>",
];

/// Returns whether the kernel of this name reports what tests do not see.
pub fn is_debug_kernel(name: &str) -> bool {
    name.starts_with(DEBUG_KERNELS)
}

/// A test that runs in a guest.
pub struct GuestTest {
    /// Also the name of the folder of its logs.
    pub name: String,
    pub about: String,
    pub machine: Options,
    /// The time that it may take where booting takes the usual time.
    pub timeout: Duration,
    /// Command line; DRIVER, MODULE and STAGE are in its environment.
    pub command: String,
    pub protocol: Protocol,
    /// Reports of the kernel that have one of these texts do not fail it.
    pub expected: Vec<String>,
    /// The same, with the C driver.
    pub expected_of_c: Vec<String>,
    /// It fails unless the kernel reports each of these texts.
    pub required: Vec<String>,
    /// It may be skipped on the default kernel as well, but not on the one for debugging.
    pub may_skip: bool,
    /// It has pages fail, which the kernel then unmaps from the direct map: its guest is not used again.
    pub fails_pages: bool,
    /// The command that runs it alone.
    pub rerun: String,
}

/// How a test's output is read.
pub enum Protocol {
    /// A selftest prints KTAP. It may request power cuts and restarts, each of which begins another stage, counted from 1. It
    /// shares a guest with tests of the same machine until one of them fails.
    Ktap,
    /// A test of a suite exits with a status. Its guest is replaced once where it was lost and the kernel reported nothing.
    Status {
        /// "command not found" is a failure except in lines with one of these texts.
        harmless: Option<Vec<String>>,
        /// The next test may have the same guest, unless this one fails.
        shared: bool,
    },
}

impl Protocol {
    fn is_ktap(&self) -> bool {
        matches!(self, Protocol::Ktap)
    }

    fn shares_guest(&self) -> bool {
        matches!(self, Protocol::Ktap | Protocol::Status { shared: true, .. })
    }

    fn read(&self, ended: Ended, limit: Duration, output: &str) -> Reading {
        match self {
            Protocol::Ktap => ktap::read(ended, limit, output),
            Protocol::Status { harmless, .. } => {
                exit_status::read(harmless.as_deref(), ended, limit, output)
            }
        }
    }
}

/// Checks a variable for the tests, and quotes its value for the shell.
pub fn variable(text: &str) -> Result<String, String> {
    let good =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    match text.split_once('=').filter(|(name, _)| good(name)) {
        Some((name, value)) => match shlex::try_quote(value) {
            Ok(value) => Ok(format!("{name}={value}")),
            Err(error) => Err(error.to_string()),
        },
        None => Err("write NAME=VALUE, with a name in capital letters".to_owned()),
    }
}

/// Runs tests of one driver. Several threads may use it, each with a guest of its own.
pub struct Executor {
    pub driver: &'static str,
    /// Where the guest finds rust_pmem.ko.
    pub module: PathBuf,
    /// Further variables of the tests, as the shell reads them.
    pub variables: String,
    /// Known failures that are not the driver's.
    pub flaky: Option<Arc<Flaky>>,
    /// Whether a failed test's guest stays, with a shell.
    pub keep: bool,
    /// A shell command that runs after each test; the kernel's reports meanwhile are the test's.
    pub after: Option<&'static str>,
    /// The name of another kernel than the default.
    other_kernel: Option<String>,
    architecture: Architecture,
    /// An argument of the kernel.
    argument: Option<&'static str>,
    /// Number of processors of a guest, at least.
    cpus: u32,
    /// Whether the guests' blocks of instructions are written, beside the kernel's logs.
    notes_coverage: bool,
    /// The kernel's release, once a guest has booted.
    pub kernel: OnceLock<String>,
    logs: PathBuf,
    boots: AtomicUsize,
}

/// A running guest with the files of its devices.
pub struct Guest {
    // Before the folder: QEMU is gone when its files are removed.
    vm: Vm,
    /// Up to where its log has been read: what the kernel reports between two tests is the next one's.
    log_read: u64,
    folder: TempDir,
    _log: Option<LogFile>,
}

/// One stage of a test, after it has run.
struct Stage {
    outcome: Outcome,
    reading: Reading,
    output: String,
    log: String,
    reports: Vec<Report>,
    ended: Ended,
    time: Duration,
}

impl Executor {
    /// Returns an executor that writes logs below `logs`.
    pub fn new(driver: &'static str, logs: PathBuf) -> Self {
        Self {
            driver,
            module: Path::new(GUEST).join("rust_pmem.ko"),
            variables: String::new(),
            flaky: None,
            keep: false,
            after: None,
            argument: None,
            other_kernel: None,
            architecture: Architecture::X86_64,
            cpus: 1,
            notes_coverage: false,
            kernel: OnceLock::new(),
            logs,
            boots: AtomicUsize::new(0),
        }
    }

    /// Takes the modules and tools that were built for the kernel of this name, which the images are of. On a debug kernel,
    /// searches for leaks after each test.
    pub fn use_kernel(&mut self, name: &str) -> Result<()> {
        let built = Path::new(GUEST).join(KERNELS).join(name);
        self.module = built.join("rust_pmem.ko");
        let provider = built.join("tests/provider/pmem_provider.ko");
        self.variables
            .push_str(&format!(" KERNEL={name} PROVIDER={}", provider.display()));
        self.other_kernel = Some(name.to_owned());
        if is_debug_kernel(name) {
            self.after = Some(FIND_LEAKS);
        }
        if name == RACES {
            self.cpus = 2;
        }
        self.architecture = Images::find(&Options::from_words("")?)?.architecture;
        if self.architecture == Architecture::Arm64 {
            let tools = Path::new(GUEST).join(ARM64_TOOLS);
            self.variables
                .push_str(&format!(" TOOLS={}", tools.display()));
        }
        Ok(())
    }

    /// Turns off the search for leaks, for which a debug kernel notes where each object was allocated.
    pub fn ignore_leaks(&mut self) {
        self.after = None;
        self.argument = Some("kmemleak=off");
    }

    /// Returns whether kernel and driver may lack what the test needs.
    fn may_skip(&self, test: &GuestTest) -> bool {
        let made_for_it = match self.other_kernel.as_deref() {
            None => !test.may_skip,
            // Others lack something for debugging, or what PREEMPT_RT excludes.
            Some(kernel) => kernel == DEBUG_KERNELS,
        };
        !made_for_it || self.driver == C_DRIVER
    }

    /// Returns the reports in a log, but for those that say nothing of the driver.
    fn reports(&self, log: &str) -> Vec<Report> {
        let mut found = reports(log);
        found.retain(|report| !self.is_race_of_others(report));
        found
    }

    /// Returns the first report that a test does not expect.
    fn unexpected<'a>(&self, test: &GuestTest, reports: &'a [Report]) -> Option<&'a Report> {
        let of_c = test
            .expected_of_c
            .iter()
            .filter(|_| self.driver == C_DRIVER);
        let wanted = test.expected.iter().chain(of_c);
        reports.iter().find(|report| {
            !wanted.clone().any(|text| report.is(text))
                && !test.required.iter().any(|text| report.mentions(text))
        })
    }

    /// Returns whether this is a data race that the driver has no part in: the kernel has some. An access of an interrupt is none of what
    /// it has interrupted, which is below it in the stack.
    fn is_race_of_others(&self, report: &Report) -> bool {
        let driver = format!("[{}]", self.driver);
        let has = |line: &str, texts: &[&str]| texts.iter().any(|text| line.contains(text));
        let mut interrupted = false;
        let mut is_own = |line: &String| {
            interrupted &= !has(line, &[" by task ", " by interrupt "]);
            interrupted |= has(line, &["asm_sysvec_", "asm_common_interrupt"]);
            !interrupted && line.contains(&driver)
        };
        report.title.contains("KCSAN: data-race") && !report.lines.iter().any(&mut is_own)
    }

    /// Returns whether the kernel has reported more in the time of this log than data races of others, each of which counts as a warning
    /// (`check_panic_on_warn`): a test may have changed what the console shows.
    fn hides_report(&self, log: &str) -> bool {
        let Some((_, counts)) = log.split_once(COUNTED) else {
            return false;
        };
        let counts = counts.lines().next().unwrap_or_default();
        let all_races = || {
            let (before, after) = counts.split_once(", ")?;
            let (before, others_before) = before.split_once(' ')?;
            let (after, others_after) = after.trim_end().split_once(' ')?;
            let warnings = after
                .parse::<usize>()
                .ok()?
                .checked_sub(before.parse().ok()?)?;
            let races = reports(log)
                .iter()
                .filter(|report| self.is_race_of_others(report))
                .count();
            // Others may have raced outside of the time between the two counts.
            Some(warnings <= races && others_before == others_after)
        };
        all_races() != Some(true)
    }

    /// Has each guest's blocks of instructions written, and removes those of earlier runs.
    pub fn note_coverage(&mut self) -> Result<()> {
        self.notes_coverage = true;
        for log in glob::glob(&format!("{}/*.{}", self.logs.display(), coverage::BLOCKS))? {
            let log = log?;
            fs::remove_file(&log).with_context(|| log.display().to_string())?;
        }
        Ok(())
    }

    /// Runs tests of the same machine, shows and returns their results. They share a guest until it breaks or one of
    /// them fails; the rest get another one.
    pub fn group(&self, tests: &[GuestTest], results: &mut Results) -> Vec<TestResult> {
        let mut guest = None;
        let mut found = Vec::new();
        for (index, test) in tests.iter().enumerate() {
            let clock = results.running(&test.name);
            let without_guest = |outcome| TestResult {
                about: test.about.clone(),
                ..TestResult::new(&test.name, outcome)
            };
            let failed = |error: anyhow::Error| Outcome::Failed(format!("{error:#}"));
            let mut result = match self.architecture.adapt(&mut test.machine.clone()) {
                // The next test gets another guest.
                Ok(()) => self
                    .test(test, &mut guest, results, &clock)
                    .unwrap_or_else(|error| without_guest(failed(error))),
                Err(reason) => without_guest(Outcome::Skipped(reason.into())),
            };
            if index + 1 == tests.len() {
                let ended = self.end(test, guest.take(), &mut result);
                ended.unwrap_or_else(|error| fail(&mut result, failed(error)));
            }
            if let Some(flaky) = &self.flaky {
                flaky.excuse(&mut result);
            }
            if self.driver != C_DRIVER {
                results.note_selftest(&result);
            }
            results.show(&result);
            found.push(result);
        }
        found
    }

    /// Runs a test in a guest of its own; does not show the result.
    pub fn alone(
        &self,
        test: &GuestTest,
        results: &mut Results,
        clock: &Clock,
    ) -> Result<TestResult> {
        let mut guest = None;
        let mut result = self.test(test, &mut guest, results, clock)?;
        self.end(test, guest, &mut result)?;
        Ok(result)
    }

    /// Ends a guest. The kernel may have something to report after the last test in it: what it frees, and work that it has
    /// put off.
    pub fn end(
        &self,
        test: &GuestTest,
        guest: Option<Guest>,
        result: &mut TestResult,
    ) -> Result<()> {
        let Some(mut guest) = guest.filter(|_| !result.outcome.is_failure()) else {
            return Ok(());
        };
        let limit = guest.vm.limit(TIME_TO_REPORT);
        let (ended, _) = guest.vm.output("sleep 1", limit)?;
        let log = guest.vm.serial().since(guest.log_read)?;
        let reports = self.reports(&log);
        let reason = match (self.unexpected(test, &reports), ended) {
            (Some(report), _) => {
                let lines = report.lines.iter().map(String::as_str);
                result.lines = without_boilerplate(lines).collect();
                format!("after the test, {REPORTED}{}", report.title)
            }
            (None, Ended::Exited(_)) => return Ok(()),
            (None, _) => format!("after the test, {LOST}"),
        };
        fail(result, Outcome::Failed(reason));
        self.add_rerun(test, result);
        if test.protocol.shares_guest() {
            let folder = self.logs.join(&test.name);
            // A test that another architecture lacks has none.
            fs::create_dir_all(&folder)?;
            let path = folder.join(SERIAL);
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(log.as_bytes())?;
        }
        Ok(())
    }

    /// Boots a guest with the files of its devices in `folder`. The inner error becomes the test's failure.
    fn boot(
        &self,
        test: &GuestTest,
        folder: TempDir,
        results: &mut Results,
    ) -> Result<Guest, String> {
        let (log, lock) = match test.protocol.shares_guest() {
            true => {
                let log = self.machine_log().map_err(|error| error.to_string())?;
                (log.path().to_owned(), Some(log))
            }
            false => (self.logs.join(&test.name).join(SERIAL), None),
        };
        let begin = Instant::now();
        let mut retries = 0;
        let mut note = |text: &str| {
            retries += 1;
            results.note(text);
        };
        let mut machine = test.machine.clone();
        self.architecture.adapt(&mut machine)?;
        machine.cpus = machine.cpus.max(self.cpus);
        machine.append.extend(self.argument.map(str::to_owned));
        if self.keep {
            machine
                .qemu
                .push(format!("-gdb unix:{GDB},server=on,wait=off"));
        }
        if self.notes_coverage {
            machine.coverage = Some(log.with_extension(coverage::BLOCKS));
        }
        let booted = Vm::boot(&machine, folder.path(), &log, &mut note);
        results.spend(Activity::Boots, begin.elapsed());
        results.boots_tried_again += retries;
        let mut vm = booted.map_err(|error| error.to_string())?;
        if let Some(after) = self.after {
            // Leaks of the kernel's start belong to no test.
            let limit = vm.limit(LEAKS_AT_BOOT);
            vm.output(after, limit).map_err(|error| error.to_string())?;
        }
        // It stays off, and no test would fail.
        let (_, locks) = vm
            .output(LOCKDEP_IS_OFF, vm.limit(LEAKS_AT_BOOT))
            .map_err(|error| error.to_string())?;
        if !locks.is_empty() {
            return Err("lockdep has turned itself off since the kernel's start".into());
        }
        self.kernel.get_or_init(|| vm.kernel().to_owned());
        let seconds = vm.boot_time().as_secs_f64();
        results.note(&format!("Linux {} booted in {seconds:.1} s", vm.kernel()));
        let log_read = vm.serial().len();
        for report in reports(&vm.serial().since(0).unwrap_or_default()) {
            results.note(&format!("reported at boot: {}", report.title));
        }
        Ok(Guest {
            vm,
            log_read,
            folder,
            _log: lock,
        })
    }

    /// Opens the next log that no other pmem-check writes to.
    fn machine_log(&self) -> Result<LogFile> {
        loop {
            let number = self.boots.fetch_add(1, Ordering::Relaxed) + 1;
            match LogFile::at(self.logs.join(format!("machine-{number:02}.log"))) {
                Err(_) if number < 1000 => {}
                log => return log,
            }
        }
    }

    /// Runs a test in this guest, or in a new one; does not show the result. Leaves the guest if the next test may have it.
    pub fn test(
        &self,
        test: &GuestTest,
        guest: &mut Option<Guest>,
        results: &mut Results,
        clock: &Clock,
    ) -> Result<TestResult> {
        let folder = self.logs.join(&test.name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let ktap = test.protocol.is_ktap();
        let shared = test.protocol.shares_guest();
        let label = format!("{}: {}", self.driver, test.name);
        let mut result = TestResult {
            about: test.about.clone(),
            ..TestResult::new(&test.name, Outcome::Failed("it was never run".into()))
        };
        let (mut output, mut log) = (String::new(), String::new());
        let (mut number, mut lost) = (1, false);
        let (mut memory, mut left) = (None, None);
        loop {
            clock.show("booting");
            let mut running = match guest.take() {
                Some(running) => running,
                None => {
                    let memory = memory.take().map_or_else(tempfile::tempdir, Ok)?;
                    match self.boot(test, memory, results) {
                        Ok(running) => running,
                        Err(reason) => {
                            fail(&mut result, Outcome::Failed(reason));
                            break;
                        }
                    }
                }
            };
            clock.show(&label);
            let stage = self.stage(test, number, &mut running)?;
            if !ktap && !lost && matches!(stage.ended, Ended::Lost(_)) && stage.reports.is_empty() {
                lost = true;
                results.note(&format!("{label}: the machine was lost: again"));
                continue;
            }
            result.time += stage.time;
            output.push_str(&stage.output);
            log.push_str(&stage.log);
            let next = ktap && stage.requests_another();
            let exited = matches!(stage.ended, Ended::Exited(_));
            let usable = shared && !test.fails_pages && stage.leaves_guest_usable();
            let hung = stage.ended == Ended::TimedOut;
            stage.add_to(&mut result, number);
            if self.keep && result.outcome.is_failure() && (exited || hung) {
                results.show(&result);
                self.keep(test, hung, running)?;
            } else if usable {
                *guest = Some(running);
            } else if next {
                // The same memory in a new guest.
                let Guest { vm, folder, .. } = running;
                drop(vm);
                memory = Some(folder);
            } else if exited {
                left = Some(running);
            }
            if !next {
                break;
            }
            if number == STAGES {
                let reason = format!("it has more than {STAGES} stages");
                fail(&mut result, Outcome::Failed(reason));
                break;
            }
            number += 1;
        }
        if lost && !result.outcome.is_failure() && self.driver != C_DRIVER {
            let reason = format!("{LOST} without a report, and not again");
            fail(&mut result, Outcome::Failed(reason));
        }
        results.spend_on_test(format!("{} ({})", test.name, self.driver), result.time);
        match &result.outcome {
            Outcome::Skipped(reason) if !self.may_skip(test) => {
                let reason = format!("skipped, where all tests can run: {reason}");
                fail(&mut result, Outcome::Failed(reason));
            }
            _ => {}
        }
        let kind = if ktap { "ktap" } else { "log" };
        fs::write(folder.join("output").with_extension(kind), &output)?;
        if shared {
            fs::write(folder.join(SERIAL), &log)?;
        }
        if result.outcome.is_failure() {
            self.add_rerun(test, &mut result);
        }
        self.end(test, left, &mut result)?;
        Ok(result)
    }

    /// Gives a shell in the guest of a failed test.
    fn keep(&self, test: &GuestTest, hung: bool, mut guest: Guest) -> Result<()> {
        let sections = format!("cat /sys/module/{}/sections/.text", self.driver);
        let limit = guest.vm.limit(TIME_TO_REPORT);
        let text = match hung {
            true => String::new(),
            false => guest.vm.output(&sections, limit)?.1,
        };
        let symbols = match text.trim().starts_with("0x") {
            true => format!(" -ex 'add-symbol-file rust_pmem.ko {}'", text.trim()),
            false => String::new(),
        };
        eprintln!(
            "The guest of {} waits. gdb attaches with\n  gdb -ex 'target remote {GDB}'{symbols}",
            test.name
        );
        if hung {
            eprintln!("The test has hung, so there is no shell: press Enter to end the guest.");
            io::stdin().read_line(&mut String::new())?;
            return Ok(());
        }
        guest.vm.shell(&self.logs.join(&test.name).join(SERIAL))?;
        guest.vm.power_off();
        Ok(())
    }

    /// Adds how the test runs alone, how its guest stays, and where its logs are.
    fn add_rerun(&self, test: &GuestTest, result: &mut TestResult) {
        let mut rerun = test.rerun.clone();
        if let Some(kernel) = &self.other_kernel {
            rerun.push_str(&format!(" KERNEL={kernel}"));
        }
        if !test.protocol.is_ktap() || self.driver == C_DRIVER {
            rerun.push_str(&format!(" DRIVER={}", self.driver));
        }
        result.lines.push(format!("run alone: {rerun}"));
        if rerun.starts_with("make check") {
            let keep = format!("keep its guest: {rerun} KEEP=1 (a shell; gdb attaches to {GDB})");
            result.lines.push(keep);
        }
        let folder = self.logs.join(&test.name);
        result.lines.push(format!("logs: {}", folder.display()));
    }

    fn stage(&self, test: &GuestTest, number: u32, guest: &mut Guest) -> Result<Stage> {
        let Guest { vm, log_read, .. } = guest;
        let command = format!(
            "echo 'pmem-check: {} stage {number}' >/dev/kmsg; export DRIVER={} STAGE={number} MODULE={} {}; \
            counts=$({COUNTS}); ({}); status=$?; {}; \
            now=$({COUNTS}; {LOCKDEP_IS_OFF}); \
            [ \"$now\" = \"$counts\" ] || echo \"{COUNTED}\"$counts, $now >/dev/kmsg; exit $status",
            test.name,
            self.driver,
            self.module.display(),
            self.variables,
            test.command,
            self.after.unwrap_or(":"),
        );
        let limit = vm.limit(test.timeout);
        let begin = Instant::now();
        let start = *log_read;
        let (ended, output) = vm.output(&command, limit)?;
        let time = begin.elapsed();
        *log_read = vm.serial().len();
        // Before the kernel is asked for its blocked tasks, which are not reports of its own.
        let log = vm.serial().since(start)?;
        let reports = self.reports(&log);
        if ended == Ended::TimedOut {
            vm.dump_blocked_tasks();
        }
        let reading = test.protocol.read(ended, limit, &output);
        let mut outcome = reading.outcome.clone();
        let missing = |text: &&String| !reports.iter().any(|report| report.mentions(text));
        if let Some(text) = test
            .required
            .iter()
            .find(missing)
            .filter(|_| outcome == Outcome::Passed)
        {
            outcome = Outcome::Failed(format!("the kernel did not report: {text}"));
        }
        if let Some(report) = self.unexpected(test, &reports) {
            let then = match ended {
                Ended::TimedOut => "; then it hung",
                _ => "",
            };
            outcome = Outcome::Failed(format!("{REPORTED}{}{then}", report.title));
        } else if reports.is_empty() && self.hides_report(&log) {
            outcome = Outcome::Failed(format!("{REPORTED}something that its log does not show"));
        }
        Ok(Stage {
            outcome,
            reading,
            output,
            log: vm.serial().since(start)?,
            reports,
            ended,
            time,
        })
    }
}

impl Stage {
    fn requests_another(&self) -> bool {
        self.ended.was_requested() && !self.outcome.is_failure()
    }

    fn leaves_guest_usable(&self) -> bool {
        matches!(self.ended, Ended::Exited(_))
            && !self.outcome.is_failure()
            && self.reports.is_empty()
    }

    /// Adds the stage to the result of its test. Subtests of later stages have the stage in their names.
    fn add_to(self, result: &mut TestResult, number: u32) {
        let lines = self.failure_lines();
        result
            .subtests
            .extend(staged(self.reading.subtests, number));
        if self.outcome.is_failure() {
            result.lines = lines;
            if self.reading.by_subtests.as_ref() != Some(&self.outcome) {
                return fail(result, self.outcome);
            }
        }
        result.outcome = self.outcome;
    }

    /// Returns the lines to show of a failure: its explanation and the kernel's reports, or the last lines.
    fn failure_lines(&self) -> Vec<String> {
        let mut lines = self.reading.lines.clone();
        for report in &self.reports {
            lines.extend(without_boilerplate(report.lines.iter().map(String::as_str)));
        }
        if lines.is_empty() {
            lines.clone_from(&self.reading.tail);
            if self.ended == Ended::TimedOut {
                lines.extend(blocked(&self.log));
            }
        }
        lines.truncate(MAX_LINES);
        lines
    }
}

/// Gives the subtests of later stages names of their own.
pub fn staged(subtests: Vec<TestResult>, stage: u32) -> impl Iterator<Item = TestResult> {
    subtests.into_iter().map(move |subtest| TestResult {
        name: match stage {
            1 => subtest.name,
            _ => format!("stage {stage}: {}", subtest.name),
        },
        ..subtest
    })
}

/// Makes a test fail for another reason than its subtests.
pub fn fail(result: &mut TestResult, outcome: Outcome) {
    result.subtests.push(TestResult {
        lines: vec![format!("# {}", outcome.reason())],
        ..TestResult::new(WHOLE, outcome.clone())
    });
    result.outcome = outcome;
}

fn without_boilerplate<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    lines
        .filter(|line| !BOILERPLATE.iter().any(|text| line.contains(text)))
        .take(MAX_REPORT)
        .map(str::to_owned)
}

/// Returns the last task in the log that is blocked in the kernel, with its trace.
fn blocked(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let task = lines
        .iter()
        .rposition(|line| line.contains("task:") && line.contains(" state:D"));
    let trace = lines[task.unwrap_or(lines.len())..].iter();
    without_boilerplate(trace.copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm::Loss;

    fn reading(outcome: Outcome, by_subtests: bool) -> Reading {
        Reading {
            subtests: vec![TestResult::new("a", outcome.clone())],
            by_subtests: by_subtests.then(|| outcome.clone()),
            outcome,
            lines: Vec::new(),
            tail: vec!["last".into()],
        }
    }

    fn stage(ended: Ended, reading: Reading) -> Stage {
        Stage {
            outcome: reading.outcome.clone(),
            reading,
            output: String::new(),
            log: String::new(),
            reports: Vec::new(),
            ended,
            time: Duration::ZERO,
        }
    }

    fn added(stage: Stage, number: u32) -> (Outcome, Vec<String>) {
        let mut result = TestResult::new("test", Outcome::Failed("it was never run".into()));
        stage.add_to(&mut result, number);
        let names = result.subtests.into_iter().map(|subtest| subtest.name);
        (result.outcome, names.collect())
    }

    #[test]
    fn data_race_counts_where_the_driver_is_in_a_stack() {
        let executor = Executor::new("rust_pmem", PathBuf::from("build/check"));
        let of_others = |text: &str| {
            let log = format!("{text}\n==================\nrust_pmem: bound [rust_pmem]\n");
            let found = reports(&log);
            assert_eq!(found.len(), 1, "{text}");
            executor.is_race_of_others(&found[0])
        };
        let race = "BUG: KCSAN: data-race in a / b\n\nread by task 1:\n a+0x1/0x2";
        assert!(of_others(race));
        assert!(!of_others(&format!("{race} [rust_pmem]")));
        let interrupt = "\nwrite by interrupt on cpu 0:\n b+0x1/0x2\n asm_sysvec_apic_timer_interrupt+0x1/0x2\n c+0x1/0x2 [rust_pmem]\n";
        assert!(of_others(&format!("{race}\n{interrupt}")));
        let other_stack = "\nread to 0x1 of 8 bytes by task 2 on cpu 1:\n d+0x1/0x2 [rust_pmem]";
        assert!(!of_others(&format!("{race}\n{interrupt}{other_stack}")));
        let use_after_free = "BUG: KASAN: slab-use-after-free in a+0x1/0x2";
        assert!(!of_others(use_after_free));
        assert!(!of_others(&format!("{use_after_free}\n{race}")));
    }

    #[test]
    fn failure_beside_subtests_is_a_subtest_of_its_own() {
        let failed = || Outcome::Failed("so".into());
        let by_subtest = stage(Ended::Exited(1), reading(failed(), true));
        assert_eq!(added(by_subtest, 1), (failed(), vec!["a".to_owned()]));
        let beside = stage(Ended::Exited(1), reading(failed(), false));
        assert_eq!(
            added(beside, 2),
            (failed(), vec!["stage 2: a".to_owned(), WHOLE.to_owned()])
        );
        let mut reported = stage(Ended::Exited(0), reading(Outcome::Passed, false));
        reported.outcome = Outcome::Failed("the kernel reported: BUG".into());
        assert_eq!(added(reported, 1).1, ["a", WHOLE]);
    }

    #[test]
    fn next_stage_begins_after_a_requested_loss_only() {
        let passed = || reading(Outcome::Passed, false);
        let cut = stage(Ended::Lost(Loss::PowerCut), passed());
        assert!(cut.requests_another() && !cut.leaves_guest_usable());
        assert!(stage(Ended::Lost(Loss::Restart), passed()).requests_another());
        for ended in [
            Ended::Lost(Loss::Unasked),
            Ended::TimedOut,
            Ended::Exited(0),
        ] {
            assert!(!stage(ended, passed()).requests_another(), "{ended:?}");
        }
        assert!(stage(Ended::Exited(0), passed()).leaves_guest_usable());
    }

    #[test]
    fn counted_report_must_be_in_the_log() {
        let executor = Executor::new("rust_pmem", PathBuf::from("build/check"));
        let hides = |log: &str| executor.hides_report(log);
        let counted = |counts: &str| format!("[ 9.1] {COUNTED}{counts}\n[ 9.2] end\n");
        assert!(hides(&counted("1 0 0, 2 0 0")));
        let race = "[ 9.0] BUG: KCSAN: data-race in a / b\n[ 9.0] ==================\n";
        assert!(!hides(&format!("{race}{race}{}", counted("1 0 0, 3 0 0"))));
        for more in [
            "1 0 0, 4 0 0",
            "1 0 0, 3 1 0",
            "1 0 0, 3 0 512",
            "1 0 0, 3 0 0 debug_locks: 0",
            "no numbers",
        ] {
            assert!(hides(&format!("{race}{race}{}", counted(more))), "{more}");
        }
        assert!(!hides("[ 9.1] quiet\n"));
    }

    #[test]
    fn variables_are_quoted_for_the_shell() {
        assert_eq!(variable("SEED=7").unwrap(), "SEED=7");
        assert_eq!(variable("A_B=1; x").unwrap(), "A_B='1; x'");
        for text in ["SEED", "=7", "seed=7", "A;B=7"] {
            variable(text).unwrap_err();
        }
    }

    #[test]
    fn hung_test_shows_the_blocked_task() {
        let mut hung = stage(
            Ended::TimedOut,
            reading(Outcome::Failed("so".into()), false),
        );
        hung.log =
            "sysrq: Show Blocked State\ntask:fio state:D\nCall Trace:\n <TASK>\n schedule+0x1\n"
                .into();
        assert_eq!(
            hung.failure_lines(),
            ["last", "task:fio state:D", " schedule+0x1"]
        );
        hung.ended = Ended::Exited(1);
        assert_eq!(hung.failure_lines(), ["last"]);
    }
}
