// SPDX-License-Identifier: GPL-2.0

//! Reports new errors with their files and the processes that use them.
//!
//! The main loop polls the lists. A second thread looks among the files that are open or mapped, which is quick. A
//! third one searches the whole file system, as `pmemctl errors` does, which may take minutes; errors that are
//! listed meanwhile are searched for together in the next run. After [`PROMPT`] an error is reported with what is
//! known, and again when its owner is found. A fourth thread listens for files for which the kernel reports errors;
//! both searches look at those first.

mod batch;
mod cursor;
pub mod hooks;
mod hooks_dir;
mod known_files;
mod lists;
mod search;
mod state;
mod threads;

use crate::affected::{AffectedRange, NamespaceRange, Target};
use crate::badblocks::persist;
use crate::badblocks::poll::{Changes, SETTLE_TIME, Wakeup, WatchedLists};
use crate::block::disk::Disk;
use crate::fs::Owner;
use crate::fs::open_files::FileUser;
use crate::monitor::cursor::Cursor;
use crate::monitor::state::Monitor;
use crate::monitor::threads::Threads;
use crate::nd::Device;
use crate::nd::region::Region;
use crate::programs::sandboxed;
use crate::sysfs::{self, Host};
use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// After this time an error is reported even if its owner is not known.
pub const PROMPT: Duration = Duration::from_millis(1000);

/// After this time a search among the files in use is taken for hanging.
const HANGS: Duration = Duration::from_secs(300);

/// An event, as it is printed.
#[derive(Debug, JsonSchema, Serialize)]
pub struct EventRecord<'a> {
    /// A random id of this run, and the number of the event, without gaps; none for a summary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(flatten)]
    pub event: &'a Event,
}

/// Returns a random id.
fn run_id(host: &Host) -> Result<String> {
    let id = sysfs::line(host.path("proc/sys/kernel/random/uuid")).unwrap_or_default();
    let id: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    ensure!(
        id.len() == 16,
        "/proc/sys/kernel/random/uuid cannot be read"
    );
    Ok(id)
}

#[derive(Debug, JsonSchema, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The monitored disks: at the start, and after disks have appeared or disappeared.
    Watching {
        /// Disks, and devices in sector mode.
        disks: Vec<String>,
    },
    Bad(Box<ErrorEvent>),
    /// A list could not be read, or traced, or not all owners of errors are known.
    Failed {
        disk: String,
        reason: String,
    },
    /// The kernel does not report errors of the files of a mount, which are searched for instead.
    NotReported {
        mount: String,
        reason: String,
    },
    /// For a hook only: events that were too many for its queue.
    Summary {
        events: u64,
    },
}

#[derive(Debug, JsonSchema, Serialize)]
pub struct ErrorEvent {
    /// Milliseconds since 1970 when it was seen on the list.
    pub time_ms: u64,
    /// It came onto the list while this watched.
    pub new: bool,
    /// The search is complete; otherwise another event follows.
    pub complete: bool,
    #[serde(flatten)]
    pub what: ErrorLocation,
    /// The address of the first byte, as the kernel and rasdaemon report it; `null` if it cannot be read.
    pub physical_address: Option<u64>,
    /// The bytes of `owner.paths` in base64, for programs that do not want to undo the escapes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths_b64: Vec<String>,
    /// The processes that map the bytes or have the file open.
    pub processes: Vec<FileUser>,
}

impl ErrorLocation {
    fn physical_address(&self, host: &Host) -> Option<u64> {
        match self {
            Self::Disk(range) => {
                let start = Disk::find(host, &range.disk)?.physical_address()?;
                start.checked_add(range.span.disk_offset)
            }
            Self::Namespace(range) => {
                let device = Device::find(host, range.device.parse().ok()?)?;
                device
                    .namespace_address()?
                    .checked_add(range.namespace_offset)
            }
        }
    }

    /// Returns the names of the file as they are, from the root of its file system if that is not mounted.
    pub fn paths(&self) -> Vec<OsString> {
        match self {
            Self::Disk(AffectedRange {
                owner: Some(Owner::File { paths, .. }),
                ..
            }) => paths.iter().filter_map(|path| sysfs::raw(path)).collect(),
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, JsonSchema, Serialize)]
#[serde(untagged)]
pub enum ErrorLocation {
    Disk(AffectedRange),
    /// In a namespace, outside of the data area of its disk.
    Namespace(NamespaceRange),
}

/// A sign of life at an interval, for a service manager that restarts what hangs.
pub struct Heartbeat {
    interval: Duration,
    beat: Box<dyn Fn()>,
    next: Instant,
}

impl Heartbeat {
    pub fn new(interval: Duration, beat: impl Fn() + 'static) -> Self {
        Self {
            interval,
            beat: Box::new(beat),
            next: Instant::now(),
        }
    }

    /// Beats if it is time to and the quick search does not hang; returns when to be called next.
    fn beat(&mut self, search: &SearchState, now: Instant) -> Instant {
        if now >= self.next {
            if !search.hangs(now) {
                (self.beat)();
            }
            self.next = now + self.interval;
        }
        self.next
    }
}

/// Since when the quick search works on a batch, which takes no more than seconds.
#[derive(Clone, Default)]
struct SearchState(Arc<Mutex<Option<Instant>>>);

impl SearchState {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn hangs(&self, now: Instant) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now.saturating_duration_since(since) > HANGS)
    }
}

/// Kept while an event is being handled: the cursor gets the errors of a batch when nobody has its receipt any more.
#[derive(Debug, Clone)]
pub struct Receipt(Arc<Handled>);

impl Receipt {
    fn new(wake: &Arc<UnixStream>) -> Self {
        Self(Arc::new(Handled(Arc::clone(wake))))
    }

    /// Returns whether both are of the same batch.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Wakes the main loop when it is dropped.
#[derive(Debug)]
struct Handled(Arc<UnixStream>);

impl Drop for Handled {
    fn drop(&mut self) {
        let _ = (&*self.0).write_all(b"x");
    }
}

/// Returns the targets.
pub type Targets = Box<dyn Fn() -> Vec<Target> + Send>;

pub struct Options {
    /// Evaluated for each error, because a path may refer to another file by then; `None` for everything. For a
    /// file only its own extents are read.
    pub targets: Option<Targets>,
    /// Report errors that are listed at the start, too.
    pub now: bool,
    /// The file of the errors that were reported, which are not reported at the start.
    pub cursor: Option<PathBuf>,
    /// Report mounts for which the kernel does not report errors of files.
    pub not_reported: bool,
    pub heartbeat: Option<Heartbeat>,
}

/// The time of each program that reads an unmounted file system. The files of other disks wait for it.
const SEARCH: Duration = Duration::from_secs(300);

/// Receives the events in order, with the receipts of their batches.
type Report<'a> = &'a mut dyn FnMut(&Event, Option<&Receipt>) -> Result<()>;

/// Reports new errors until SIGTERM or SIGINT. A search that is running then ends with the process.
///
/// Who handles an event after `report` has returned keeps its receipt until then. `end` waits for that, also after an
/// error.
pub fn run(
    host: &Host,
    options: Options,
    report: impl FnMut(&EventRecord<'_>, Option<&Receipt>) -> Result<()>,
    end: impl FnOnce(),
) -> Result<()> {
    sandboxed::limit_runs(SEARCH);
    run_with(host, options, report, end)
}

/// Does the same without a limit for the programs, which is that of the process.
fn run_with(
    host: &Host,
    options: Options,
    mut report: impl FnMut(&EventRecord<'_>, Option<&Receipt>) -> Result<()>,
    end: impl FnOnce(),
) -> Result<()> {
    let (run, mut number) = (run_id(host)?, 0_u64);
    let mut report = |event: &Event, receipt: Option<&Receipt>| {
        number += 1;
        let record = EventRecord {
            id: Some(format!("{run}-{number}")),
            event,
        };
        report(&record, receipt)
    };
    let changes = Changes::open()?;
    let cursor = match &options.cursor {
        Some(file) => Some(Cursor::open(file, persist::boot(host)?)?),
        None => None,
    };
    let mut monitor = Monitor::new(host, options.now, options.targets.is_none(), cursor);
    let state = SearchState::default();
    let mut threads = Threads::start(host, options.targets, options.not_reported, &state)?;
    let done = watch(
        &mut monitor,
        &mut threads,
        &changes,
        options.heartbeat,
        &state,
        &mut report,
    );
    end();
    monitor.move_cursor();
    done
}

/// The main loop.
fn watch(
    monitor: &mut Monitor<'_>,
    threads: &mut Threads,
    changes: &Changes,
    mut heartbeat: Option<Heartbeat>,
    state: &SearchState,
    mut report: Report<'_>,
) -> Result<()> {
    loop {
        let regions = Region::all(monitor.host);
        monitor.wait_for_drivers(&regions);
        let lists = WatchedLists::of(&regions);
        if let Some(batch) = monitor.read_lists(&regions, &mut report)? {
            monitor.expect(&batch, Receipt::new(&threads.wake));
            let sent = threads.batches.send(batch);
            sent.context("the search has ended")?;
        }
        loop {
            let beat = heartbeat.as_mut();
            let beat = beat.map(|heartbeat| heartbeat.beat(state, Instant::now()));
            let until = monitor.next_report().into_iter().chain(beat).min();
            let wakeup = changes.wait(&lists, Some(threads.woken.as_fd()), until)?;
            if wakeup == Wakeup::End {
                return Ok(());
            }
            // Also after a change: the next one may come before the lists are read.
            while threads
                .woken
                .read(&mut [0; 64])
                .is_ok_and(|count| count > 0)
            {}
            let mut notes = threads.notes.try_iter();
            notes.try_for_each(|note| report(&note, None))?;
            for answer in threads.answers.try_iter() {
                monitor.take(answer, &mut report)?;
            }
            monitor.report_incomplete(&mut report)?;
            monitor.move_cursor();
            if wakeup == Wakeup::Changed {
                break;
            }
        }
        thread::sleep(SETTLE_TIME);
        changes.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use std::fs;
    use std::sync::mpsc;

    #[test]
    fn stream_of_changes_delays_no_report() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        machine.write("proc/sys/kernel/random/uuid", uuid);
        let list = machine.host.path("sys/block/pmem0/badblocks");
        let (seen, reports) = mpsc::channel();
        let host = machine.host.clone();
        thread::spawn(move || {
            // The list changes before each wait.
            let change = move || fs::write(&list, "8 8\n").unwrap();
            let options = Options {
                targets: None,
                now: true,
                cursor: None,
                not_reported: false,
                heartbeat: Some(Heartbeat::new(Duration::ZERO, change)),
            };
            let report = |record: &EventRecord<'_>, _: Option<&Receipt>| match record.event {
                Event::Watching { .. } => Ok(()),
                _ => {
                    seen.send(())?;
                    anyhow::bail!("the test is over")
                }
            };
            // Events may still be handled after an error.
            run_with(&host, options, report, || seen.send(()).unwrap())
        });
        for what in ["report", "end"] {
            let seen = reports.recv_timeout(Duration::from_secs(20));
            assert!(seen.is_ok(), "no {what}");
        }
    }

    #[test]
    fn search_that_hangs_stops_the_heartbeat() {
        let count = std::rc::Rc::new(std::cell::Cell::new(0));
        let its = count.clone();
        let second = Duration::from_secs(1);
        let mut heartbeat = Heartbeat::new(second, move || its.set(its.get() + 1));
        let begun = heartbeat.next;
        let search = SearchState::default();
        assert_eq!(heartbeat.beat(&search, begun), begun + second);
        // Woken by something else.
        assert_eq!(heartbeat.beat(&search, begun), begun + second);
        assert_eq!(count.get(), 1);
        search.set(Some(begun));
        heartbeat.beat(&search, begun + HANGS);
        assert_eq!(count.get(), 2);
        heartbeat.beat(&search, begun + HANGS + second);
        assert_eq!(count.get(), 2);
        search.set(None);
        heartbeat.beat(&search, begun + HANGS + 2 * second);
        assert_eq!(count.get(), 3);
    }
}
