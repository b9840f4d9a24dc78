// SPDX-License-Identifier: GPL-2.0

//! Runs the hooks, one process at a time, beside the monitoring.
//!
//! A damaged DIMM may cause thousands of events within a second, and a hook may take a minute. Events of the same file
//! that wait are therefore passed to one run, and the queue is bounded: events that do not fit in are counted, and a
//! summary follows when the queue is empty.

use crate::json::Versioned;
use crate::monitor::{Event, EventRecord, Receipt, hooks_dir};
use crate::sysfs::printable;
use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A hook and its children are killed after this time.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A hook that was killed has this long to end; others do not wait longer.
const ENDING: Duration = Duration::from_secs(1);
/// At the end the hooks that wait get this long.
const LAST: Duration = Duration::from_secs(5);
/// Runs that may wait, each for another file.
const RUNS: usize = 64;
/// Events that are passed to one run, and the bytes of their lines; more are only counted.
const EVENTS: usize = 256;
const LINES_MAX: usize = 1 << 20;
/// Bytes of a variable.
const VALUE_MAX: usize = 64 << 10;

/// Names and values for the environment.
pub type Variables = Vec<(&'static str, OsString)>;

/// An event for the hook.
#[derive(Debug, Clone)]
pub struct HookEvent {
    /// Events with the same key are passed to one run.
    pub key: String,
    pub variables: Variables,
    /// One line.
    pub json: String,
    /// Kept until the run has ended.
    pub receipt: Option<Receipt>,
}

/// A run of the hook: the environment of its first event, the lines of all.
#[derive(Debug)]
struct Run {
    key: String,
    variables: Variables,
    json: Vec<String>,
    /// Events, also those that have no line.
    count: u64,
    receipts: Receipts,
}

/// The receipts of events, one for each batch.
#[derive(Debug, Default)]
struct Receipts(Vec<Receipt>);

impl Receipts {
    fn add(&mut self, receipt: Option<Receipt>) {
        let is_new = |one: &Receipt| !self.0.iter().any(|other| other.is_same(one));
        self.0.extend(receipt.filter(is_new));
    }
}

impl Run {
    fn summary(events: u64, receipts: Receipts) -> Self {
        Self {
            key: String::new(),
            variables: vec![("PMEMCTL_KIND", "summary".into())],
            json: serde_json::to_string(&Versioned::new(EventRecord {
                id: None,
                event: &Event::Summary { events },
            }))
            .into_iter()
            .collect(),
            count: events,
            receipts,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    runs: VecDeque<Run>,
    /// Events that did not fit in.
    skipped: u64,
    skipped_receipts: Receipts,
    closed: bool,
}

impl Queue {
    fn add(&mut self, event: HookEvent) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.key == event.key) {
            run.count += 1;
            run.receipts.add(event.receipt);
            let bytes: usize = run.json.iter().map(String::len).sum();
            if run.json.len() < EVENTS && bytes + event.json.len() <= LINES_MAX {
                run.json.push(event.json);
            }
        } else if self.runs.len() < RUNS {
            self.runs.push_back(Run {
                key: event.key,
                variables: event.variables,
                json: vec![event.json],
                count: 1,
                receipts: Receipts(event.receipt.into_iter().collect()),
            });
        } else {
            self.skipped += 1;
            self.skipped_receipts.add(event.receipt);
        }
    }

    fn next(&mut self) -> Option<Run> {
        self.runs.pop_front().or_else(|| {
            let skipped = std::mem::take(&mut self.skipped);
            let receipts = std::mem::take(&mut self.skipped_receipts);
            (skipped > 0).then(|| Run::summary(skipped, receipts))
        })
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is valid after each statement.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next run; `None` at the end.
    fn next(&self) -> Option<Run> {
        let mut queue = self.queue();
        loop {
            if let Some(run) = queue.next() {
                return Some(run);
            }
            if queue.closed {
                return None;
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread that runs the hook.
pub struct Hooks {
    shared: Arc<Shared>,
    runner: JoinHandle<()>,
}

/// The programs that are run for an event.
#[derive(Debug, Default)]
pub struct HookPrograms {
    /// A command for /bin/sh.
    pub command: Option<String>,
    /// A directory of programs, which is read for each run.
    pub folder: Option<PathBuf>,
}

impl HookPrograms {
    /// Runs all of them, one after the other. `reported` are the reasons that were reported before.
    fn run(&self, one: &Run, reported: &mut BTreeSet<String>) {
        if let Some(command) = &self.command {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", command]);
            report(command, run(&mut shell, one, TIMEOUT));
        }
        let Some(folder) = &self.folder else {
            return;
        };
        let programs = hooks_dir::programs(folder);
        for path in &programs.paths {
            report(&printable(path), run(&mut Command::new(path), one, TIMEOUT));
        }
        let reasons: BTreeSet<_> = programs.reasons.into_iter().collect();
        for reason in reasons.difference(reported) {
            let _ = writeln!(io::stderr(), "pmemctl: {reason}");
        }
        *reported = reasons;
    }
}

fn report(name: &str, done: Result<ExitStatus>) {
    let reason = match done {
        Ok(status) if status.success() => return,
        Ok(status) => status.to_string(),
        Err(error) => format!("{error:#}"),
    };
    let _ = writeln!(io::stderr(), "pmemctl: the hook {name:?}: {reason}");
}

impl Hooks {
    pub fn new(programs: HookPrograms) -> Self {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let runner = thread::spawn(move || {
            let mut reported = BTreeSet::new();
            while let Some(one) = its.next() {
                programs.run(&one, &mut reported);
            }
        });
        Self { shared, runner }
    }

    pub fn add(&self, event: HookEvent) {
        self.shared.queue().add(event);
        self.shared.changed.notify_one();
    }

    /// Ends the thread after the runs that wait, as far as they end soon.
    pub fn end(&self) {
        self.shared.queue().closed = true;
        self.shared.changed.notify_one();
        let end = Instant::now() + LAST;
        while !self.runner.is_finished() {
            if Instant::now() > end {
                let _ = writeln!(io::stderr(), "pmemctl: leaving running hooks behind");
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns as much of a value as a program can be given: no variable may have more than 128 KiB (execve(2)). A list of
/// process ids ends with a whole one. The event on its standard input has all of it.
fn shortened(value: &OsStr) -> &OsStr {
    let bytes = value.as_bytes();
    let Some(start) = bytes.get(..VALUE_MAX) else {
        return value;
    };
    let end = start.iter().rposition(|&byte| byte == b' ');
    OsStr::from_bytes(&start[..end.unwrap_or(VALUE_MAX)])
}

/// Runs the command in a process group of its own, which is killed after the time.
fn run(command: &mut Command, run: &Run, timeout: Duration) -> Result<ExitStatus> {
    // Not a pipe, because a hook that does not read would block the writer.
    let memory = memfd_create("pmemctl-event", MemfdFlags::CLOEXEC).context("its input")?;
    let mut input = File::from(memory);
    for line in &run.json {
        writeln!(input, "{line}").context("its input")?;
    }
    input.rewind().context("its input")?;
    let variables = run.variables.iter();
    let variables = variables.map(|(name, value)| (name, shortened(value)));
    // systemd's variables are for the service itself.
    for name in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"] {
        command.env_remove(name);
    }
    let mut child = command
        .envs(variables)
        .env("PMEMCTL_COUNT", run.count.to_string())
        .stdin(Stdio::from(input))
        .stdout(io::stderr())
        .process_group(0)
        .spawn()
        .context("cannot be run")?;
    let end = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            // The child is not reaped yet, so the group is its own.
            kill_process_group(Pid::from_child(&child), Signal::KILL)?;
            let end = Instant::now() + ENDING;
            while child.try_wait()?.is_none() {
                if Instant::now() > end {
                    // It waits for a device or a frozen file system. Without a thread, it stays a zombie.
                    let _ = thread::Builder::new().spawn(move || child.wait());
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
            bail!("killed after {} s", timeout.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    fn event(key: &str, number: usize) -> HookEvent {
        HookEvent {
            key: key.into(),
            variables: vec![("PMEMCTL_OFFSET", number.to_string().into())],
            json: format!("{{\"a\": {number}}}"),
            receipt: None,
        }
    }

    fn queue(events: impl IntoIterator<Item = HookEvent>) -> Queue {
        let mut queue = Queue::default();
        events.into_iter().for_each(|event| queue.add(event));
        queue
    }

    fn one(event: HookEvent) -> Run {
        queue([event]).next().unwrap()
    }

    fn shell(command: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]);
        shell
    }

    #[test]
    fn all_hooks_of_a_directory_are_run_after_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let hooks = folder.path().join("hooks.d");
        fs::create_dir(&hooks).unwrap();
        let log = folder.path().join("log");
        let add = |name: &str, text: &str| {
            let path = hooks.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text} >>{}\n", log.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        add("20-count", "echo $PMEMCTL_COUNT");
        add("10-input", "{ cat; exit 3; }");
        add("30-offset", "echo $PMEMCTL_OFFSET");
        let programs = HookPrograms {
            command: Some(format!("echo first >{}", log.display())),
            folder: Some(hooks),
        };
        programs.run(&one(event("x", 7)), &mut BTreeSet::new());
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text, "first\n{\"a\": 7}\n1\n7\n");
    }

    #[test]
    fn receipt_is_kept_until_the_run_has_ended() {
        let (woken, wake) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        let is_woken = || (&woken).read(&mut [0]).is_ok();
        let receipt = Receipt::new(&Arc::new(wake));
        let folder = tempfile::tempdir().unwrap();
        let end = folder.path().join("end");
        let hooks = Hooks::new(HookPrograms {
            command: Some(format!(
                "for _ in $(seq 100); do [ ! -e {} ] || exit 0; sleep 0.05; done",
                end.display()
            )),
            folder: None,
        });
        hooks.add(HookEvent {
            receipt: Some(receipt),
            ..event("a", 1)
        });
        thread::sleep(Duration::from_millis(200));
        assert!(!is_woken());
        fs::write(&end, "").unwrap();
        hooks.end();
        assert!(is_woken());
    }

    #[test]
    fn events_that_share_a_run_or_are_counted_keep_their_receipts() {
        let (_woken, wake) = UnixStream::pair().unwrap();
        let wake = Arc::new(wake);
        let receipts = [Receipt::new(&wake), Receipt::new(&wake)];
        let mut queue = queue((1..RUNS).map(|number| event(&number.to_string(), number)));
        for key in ["shared", "counted"] {
            for receipt in receipts.iter().chain(&receipts) {
                queue.add(HookEvent {
                    receipt: Some(receipt.clone()),
                    ..event(key, 0)
                });
            }
        }
        let runs: Vec<Run> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(runs.len(), RUNS + 1);
        for run in &runs[RUNS - 1..] {
            assert_eq!((run.count, run.receipts.0.len()), (4, 2));
        }
    }

    #[test]
    fn hook_gets_environment_and_json() {
        let run = |command| run(&mut shell(command), &one(event("x", 1)), TIMEOUT);
        let options = "test \"$PMEMCTL_OFFSET $PMEMCTL_COUNT\" = '1 1' && read -r text && test \"$text\" = '{\"a\": 1}'";
        assert!(run(options).unwrap().success());
        let long = "x".repeat(200 << 10).into();
        let event = HookEvent {
            variables: vec![("PMEMCTL_OWNER", long)],
            ..event("x", 1)
        };
        let long = "test ${#PMEMCTL_OWNER} = 65536";
        assert!(
            super::run(&mut shell(long), &one(event), TIMEOUT)
                .unwrap()
                .success()
        );
        // A hook that does not read its input.
        assert!(run("true").unwrap().success());
        assert_eq!(run("exit 3").unwrap().code(), Some(3));
    }

    #[test]
    fn hook_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let command = format!("sleep 100 & echo $! >{}; wait", pid.display());
        let begun = Instant::now();
        let error = run(
            &mut shell(&command),
            &one(event("x", 1)),
            Duration::from_secs(5),
        )
        .unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(50));
        assert!(error.to_string().contains("killed after"));
        let pid = fs::read_to_string(pid).unwrap();
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
            stat.rsplit(") ").next()?.chars().next()
        };
        let end = Instant::now() + Duration::from_secs(60);
        // A zombie until process 1 reaps it.
        while state().is_some_and(|state| state != 'Z') {
            assert!(Instant::now() < end, "it still runs");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn events_of_a_file_share_a_run() {
        let events = [event("a", 1), event("b", 2), event("a", 3)];
        let mut queue = queue(events);
        let first = queue.next().unwrap();
        assert_eq!(
            (first.count, &first.json[..]),
            (2, &["{\"a\": 1}".to_owned(), "{\"a\": 3}".into()][..])
        );
        assert_eq!(first.variables, event("a", 1).variables);
        assert_eq!(queue.next().unwrap().key, "b");
        assert!(queue.next().is_none());
    }

    #[test]
    fn lines_of_a_run_are_bounded() {
        let long = |number| HookEvent {
            json: "x".repeat(LINES_MAX / 10 + 1),
            ..event("a", number)
        };
        let run = queue((0..20).map(long)).next().unwrap();
        assert_eq!((run.count, run.json.len()), (20, 9));
    }

    #[test]
    fn list_that_is_too_long_ends_with_a_whole_number() {
        let pids: Vec<_> = (1_000_000..1_010_000).map(|pid| pid.to_string()).collect();
        let pids = OsString::from(pids.join(" "));
        let short = shortened(&pids).to_str().unwrap();
        assert!(short.len() > VALUE_MAX - 8 && pids.len() > VALUE_MAX);
        assert!(short.split(' ').all(|pid| pid.len() == 7));
        assert_eq!(shortened(OsStr::new("12 34")), "12 34");
    }

    #[test]
    fn queue_is_bounded_and_summarized() {
        let files = (0..RUNS + 10).map(|number| event(&number.to_string(), number));
        let many = (0..EVENTS + 10).map(|number| event("0", number));
        let mut queue = queue(files.chain(many));
        let runs: Vec<Run> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(runs.len(), RUNS + 1);
        assert_eq!(
            (runs[0].count, runs[0].json.len()),
            (EVENTS as u64 + 11, EVENTS)
        );
        let last = runs.last().unwrap();
        assert_eq!(
            last.json,
            [r#"{"version":1,"event":"summary","events":10}"#]
        );
        assert_eq!(last.variables, [("PMEMCTL_KIND", "summary".into())]);
        assert!(queue.next().is_none());
    }
}
