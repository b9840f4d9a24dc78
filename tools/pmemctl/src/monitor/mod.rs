// SPDX-License-Identifier: GPL-2.0

//! Reports new errors with their files and the processes that use them.
//!
//! The main loop polls the lists. A second thread looks among the files that are open or mapped, which is quick. A
//! third one searches the whole file system, as `pmemctl errors` does, which may take minutes; errors that are
//! listed meanwhile are searched for together in the next run. After [`PROMPT`] an error is reported with what is
//! known, and again when its owner is found. A fourth thread listens for files for which the kernel reports errors;
//! both searches look at those first.

mod cursor;
pub mod hooks;
mod hooks_dir;

use crate::affected::{self, AffectedRange, Target};
use crate::badblocks::kernel::{self, KernelList, ListLookup, bytes};
use crate::badblocks::origin::SECTOR;
use crate::badblocks::persist::{self, PROBE_TIMEOUT};
use crate::badblocks::poll::{Changes, SETTLE_TIME, Wakeup, WatchedLists};
use crate::badblocks::set::BadBlocks;
use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::block::holders::{self, Holder};
use crate::block::remap::{AffectedVolume, Span, Spans};
use crate::fs::kernel_reports::{self, KernelReports};
use crate::fs::open_files::{self, FileUser, OpenFile};
use crate::fs::{Owner, Progress};
use crate::monitor::cursor::Cursor;
use crate::nd::region::Region;
use crate::nd::{Device, Kind};
use crate::programs::sandboxed;
use crate::sysfs::{self, Host, printable};
use abstractions::extents::{self, Extent, Fork};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    /// A list could not be read, or traced.
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
    Namespace(NamespaceError),
}

/// Bad bytes of a namespace that are none of its disk.
#[derive(Debug, Clone, JsonSchema, Serialize)]
pub struct NamespaceError {
    pub disk: String,
    /// Its device of the `nd` bus.
    pub device: String,
    /// The first byte, from the start of the namespace.
    pub namespace_offset: u64,
    pub length: u64,
    pub reason: &'static str,
    #[serde(skip)]
    number: DeviceNumber,
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

/// The state of a device's list.
struct ListSnapshot {
    device: Device,
    disk: Disk,
    sequence: u64,
    /// Sectors of the region that its disk shows, from its first on; none in sector mode.
    data: Range<u64>,
    /// Sectors of the region that the namespace begins with.
    start: u64,
    listed: BadBlocks,
}

/// The errors of a memory that were reported.
#[derive(Default)]
struct ReportedErrors {
    reported: BadBlocks,
    /// By the number of the disk.
    listed: BTreeMap<u64, BadBlocks>,
}

impl ReportedErrors {
    /// Returns the sectors that were not reported before, and marks them as reported. Sectors that disappeared
    /// from the list of the same disk are repaired, and would be reported again. A disk that is bound again
    /// reports nothing.
    fn news(&mut self, sequence: u64, listed: &BadBlocks) -> BadBlocks {
        if let Some(before) = self.listed.get(&sequence) {
            self.reported = self.reported.without(&before.without(listed));
        }
        let news = listed.without(&self.reported);
        self.reported = self.reported.and(listed);
        self.listed.insert(sequence, listed.clone());
        news
    }
}

/// New errors that were found at the same time.
struct Batch {
    host: Host,
    number: u64,
    time_ms: u64,
    new: bool,
    news: Vec<(Disk, BadBlocks)>,
    hidden: Vec<NamespaceError>,
    /// All of it, by the number of the disk: sectors of the region.
    sectors: Vec<(u64, BadBlocks)>,
}

/// The result for a batch.
struct Answer {
    number: u64,
    /// All is known of these.
    done: Vec<Event>,
    /// So much is known of the rest.
    rest: Vec<Event>,
}

/// A batch that is not complete.
struct PendingBatch {
    /// When it is reported with the known facts; `None` afterwards.
    until: Option<Instant>,
    rest: Vec<Event>,
    sectors: Vec<(u64, BadBlocks)>,
    receipt: Receipt,
}

/// A batch that is complete, and whose events may still be handled.
struct ReportedBatch {
    sectors: Vec<(u64, BadBlocks)>,
    receipt: Weak<Handled>,
}

/// The time of each program that reads an unmounted file system. The files of other disks wait for it.
const SEARCH: Duration = Duration::from_secs(300);

/// The threads beside the main loop. They end with the process.
struct Threads {
    batches: mpsc::Sender<Batch>,
    answers: mpsc::Receiver<Answer>,
    notes: mpsc::Receiver<Event>,
    /// It can be read after each answer and note, and when a batch was handled.
    woken: UnixStream,
    wake: Arc<UnixStream>,
}

impl Threads {
    fn start(
        host: &Host,
        targets: Option<Targets>,
        not_reported: bool,
        state: &SearchState,
    ) -> Result<Self> {
        let (batches, queue) = mpsc::channel();
        let (found, answers) = mpsc::channel();
        let (note, notes) = mpsc::channel();
        let (searches, to_search) = mpsc::channel();
        let (woken, wake) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let reports = KernelReports::default();

        let searcher = || -> Result<Searcher> {
            Ok(Searcher {
                host: host.clone(),
                reports: reports.clone(),
                answers: found.clone(),
                wake: wake.try_clone()?,
            })
        };
        let (quick, full) = (searcher()?, searcher()?);
        let handled = Arc::new(wake.try_clone()?);
        let (host, state) = (host.clone(), state.clone());
        let note = not_reported.then_some(note);
        thread::spawn(move || listen(&host, &reports, note.as_ref(), wake));
        thread::spawn(move || quick.search_files_in_use(queue, targets, &state, &searches));
        thread::spawn(move || full.search_file_systems(&to_search));
        Ok(Self {
            batches,
            answers,
            notes,
            woken,
            wake: handled,
        })
    }
}

/// A thread that searches for owners.
struct Searcher {
    host: Host,
    reports: KernelReports,
    answers: mpsc::Sender<Answer>,
    wake: UnixStream,
}

impl Searcher {
    /// Searches among the files in use, which are read once for all batches that wait. Passes the rest of each batch to
    /// `searches`.
    fn search_files_in_use(
        mut self,
        batches: mpsc::Receiver<Batch>,
        targets: Option<Targets>,
        state: &SearchState,
        searches: &mpsc::Sender<PendingSearch>,
    ) {
        while let Ok(first) = batches.recv() {
            state.set(Some(Instant::now()));
            let batches: Vec<Batch> = std::iter::once(first).chain(batches.try_iter()).collect();
            let targets = targets.as_ref().map(|targets| targets());
            let look = QuickSearch {
                host: &self.host,
                targets: targets.as_deref(),
                reports: &self.reports,
            };
            let traced: Vec<_> = batches.iter().map(|batch| look.trace(batch)).collect();
            let used = look.files_in_use(&traced);
            for (batch, traced) in batches.into_iter().zip(traced) {
                state.set(Some(Instant::now()));
                let (answer, affected) = look.look(&batch, traced, &used);
                // The receivers are gone only when the process ends.
                let _ = self.answers.send(answer);
                let _ = self.wake.write_all(b"x");
                if !affected.is_empty() {
                    let _ = searches.send(PendingSearch {
                        batch,
                        affected,
                        used: Arc::clone(&used),
                    });
                }
            }
            state.set(None);
        }
    }

    /// Searches whole file systems, once for all batches that wait.
    fn search_file_systems(mut self, queue: &mpsc::Receiver<PendingSearch>) {
        while let Ok(first) = queue.recv() {
            let searches: Vec<PendingSearch> =
                std::iter::once(first).chain(queue.try_iter()).collect();
            for answer in search(&self.host, &self.reports, &searches) {
                let _ = self.answers.send(answer);
            }
            let _ = self.wake.write_all(b"x");
        }
    }
}

/// Listens for the kernel's reports of errors of files. Mounts without any are passed to `notes`.
fn listen(
    host: &Host,
    reports: &KernelReports,
    notes: Option<&mpsc::Sender<Event>>,
    mut wake: UnixStream,
) {
    let mut note = |mount, reason| {
        if let Some(notes) = notes {
            let _ = notes.send(Event::NotReported { mount, reason });
            let _ = wake.write_all(b"x");
        }
    };
    // Without it, files are searched for.
    if let Err(error) = kernel_reports::listen(host, reports, &mut note) {
        note("all mounts".into(), error.to_string());
    }
}

/// Receives the events in order, with the receipts of their batches.
type Report<'a> = &'a mut dyn FnMut(&Event, Option<&Receipt>) -> Result<()>;

/// The state of the main loop.
struct Monitor<'a> {
    host: &'a Host,
    /// Errors that are listed at the start are reported.
    now: bool,
    /// Without targets, all errors are reported.
    everything: bool,
    cursor: Option<Cursor>,
    /// The failure to save the cursor was logged.
    complained: bool,
    /// By the name of the file of the memory.
    known: BTreeMap<String, ReportedErrors>,
    /// The disks that the driver was waited for.
    sequences: BTreeSet<u64>,
    /// The lists that could not be read, with the reasons.
    failed: BTreeSet<(String, String)>,
    /// By the number of the batch.
    pending: BTreeMap<u64, PendingBatch>,
    /// Those that are complete, but not in the cursor.
    reported: Vec<ReportedBatch>,
    /// The disks that were reported as watched; `None` at the start.
    watched: Option<Vec<String>>,
}

impl<'a> Monitor<'a> {
    fn new(host: &'a Host, now: bool, everything: bool, cursor: Option<Cursor>) -> Self {
        Self {
            host,
            now,
            everything,
            cursor,
            complained: false,
            known: BTreeMap::new(),
            sequences: BTreeSet::new(),
            failed: BTreeSet::new(),
            pending: BTreeMap::new(),
            reported: Vec::new(),
            watched: None,
        }
    }

    fn save_cursor(&mut self) {
        let saved = self.cursor.as_mut().map(Cursor::save);
        // Monitoring matters more: /var may be full or read-only.
        if let Some(Err(error)) = saved {
            if !self.complained {
                let _ = writeln!(io::stderr(), "pmemctl: cannot save the cursor: {error:#}");
            }
            self.complained = true;
        }
    }

    /// Waits for the driver once per disk, so that results of the other threads are not delayed.
    fn wait_for_drivers(&mut self, regions: &[Region]) {
        for device in regions.iter().flat_map(Region::devices) {
            let sequence = device.disk().and_then(|disk| disk.sequence());
            if sequence.is_some_and(|sequence| self.sequences.insert(sequence)) {
                kernel::wait(&device, PROBE_TIMEOUT);
            }
        }
    }

    fn empty_batch(&self) -> Batch {
        let last = self.pending.last_key_value();
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        Batch {
            host: self.host.clone(),
            number: last.map_or(0, |(number, _)| number + 1),
            time_ms: time.map_or(0, |time| time.as_millis() as u64),
            new: self.watched.is_some(),
            news: Vec::new(),
            hidden: Vec::new(),
            sectors: Vec::new(),
        }
    }

    /// Reads all lists, and returns the new errors, if there are any. Reports disks that come and go, and lists that
    /// cannot be read.
    fn read_lists(&mut self, regions: &[Region], report: Report<'_>) -> Result<Option<Batch>> {
        let mut batch = self.empty_batch();
        let mut disks = Vec::new();
        let mut listed = BTreeMap::new();
        let mut fails = BTreeSet::new();
        for region in regions {
            let memory = region.memory();
            let memory = memory.map_or_else(|_| region.name.clone(), |memory| memory.file_name());
            let known = self.known.entry(memory).or_default();
            for device in region.devices() {
                match snapshot(region, &device) {
                    Ok(Some(snapshot)) => {
                        disks.push(snapshot.disk.name().to_owned());
                        let mut news = known.news(snapshot.sequence, &snapshot.listed);
                        if let Some(cursor) = self.cursor.as_ref().filter(|_| !batch.new) {
                            news = cursor.news(snapshot.sequence, &news);
                        }
                        listed.insert(snapshot.sequence, snapshot.listed.clone());
                        if batch.new || self.now {
                            batch.add(&snapshot, &news);
                        }
                    }
                    Ok(None) => {}
                    // The device is being bound or unbound, and an event follows.
                    Err(_) if device.driver().is_none() => {}
                    Err(error) => {
                        fails.insert((device.name.to_string(), format!("{error:#}")));
                    }
                }
            }
        }
        if self.watched.as_ref() != Some(&disks) {
            let watching = Event::Watching {
                disks: disks.clone(),
            };
            report(&watching, None)?;
            self.watched = Some(disks);
        }
        for (disk, reason) in fails.difference(&self.failed) {
            let failed = Event::Failed {
                disk: disk.clone(),
                reason: reason.clone(),
            };
            report(&failed, None)?;
        }
        self.failed = fails;
        // Repaired sectors may become bad again before the cursor gets them.
        let pending = self.pending.values_mut().map(|one| &mut one.sectors);
        let reported = self.reported.iter_mut().map(|one| &mut one.sectors);
        for (disk, sectors) in pending.chain(reported).flatten() {
            *sectors = listed
                .get(disk)
                .map_or_else(BadBlocks::default, |listed| sectors.common(listed));
        }
        if let Some(cursor) = &mut self.cursor {
            cursor.keep(&listed);
            self.save_cursor();
        }
        let is_empty = batch.news.is_empty() && batch.hidden.is_empty();
        Ok((!is_empty).then_some(batch))
    }

    /// Remembers a batch that is searched for.
    fn expect(&mut self, batch: &Batch, receipt: Receipt) {
        let first = PendingBatch {
            until: Some(Instant::now() + PROMPT),
            // With targets, the search must show first whether the error belongs to one.
            rest: match self.everything {
                true => batch.unattributed(),
                false => Vec::new(),
            },
            sectors: batch.sectors.clone(),
            receipt,
        };
        self.pending.insert(batch.number, first);
    }

    /// Handles the result of a search.
    fn take(&mut self, answer: Answer, report: Report<'_>) -> Result<()> {
        let receipt = self.pending.get(&answer.number);
        let receipt = receipt.map(|one| one.receipt.clone());
        for event in &answer.done {
            report(event, receipt.as_ref())?;
        }
        if answer.rest.is_empty() {
            if let Some(complete) = self.pending.remove(&answer.number) {
                self.reported.push(ReportedBatch {
                    sectors: complete.sectors,
                    receipt: Arc::downgrade(&complete.receipt.0),
                });
            }
        } else if let Some(one) = self.pending.get_mut(&answer.number) {
            one.rest = answer.rest;
            // More is known than was reported.
            one.until.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Adds the batches that were handled to the cursor.
    fn move_cursor(&mut self) {
        let reported = std::mem::take(&mut self.reported).into_iter();
        let (handled, reported) = reported.partition(|batch| batch.receipt.strong_count() == 0);
        self.reported = reported;
        let handled: Vec<ReportedBatch> = handled;
        if let Some(cursor) = &mut self.cursor {
            for (disk, sectors) in handled.iter().flat_map(|batch| &batch.sectors) {
                cursor.add(*disk, sectors);
            }
        }
        self.save_cursor();
    }

    /// Returns when the next batch is to be reported before it is complete.
    fn next_report(&self) -> Option<Instant> {
        self.pending.values().filter_map(|one| one.until).min()
    }

    /// Reports batches that are not complete in time, with the known facts.
    fn report_incomplete(&mut self, report: Report<'_>) -> Result<()> {
        let now = Instant::now();
        for one in self.pending.values_mut() {
            if one.until.is_some_and(|until| until <= now) {
                one.until = None;
                for event in &one.rest {
                    report(event, Some(&one.receipt))?;
                }
            }
        }
        Ok(())
    }
}

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

/// The list of a device, if it has one.
fn snapshot(region: &Region, device: &Device) -> Result<Option<ListSnapshot>> {
    let ListLookup::List(list) = KernelList::of(region, device)? else {
        return Ok(None);
    };
    let listed = list.read()?.all();
    let data = match sysfs::number(device.folder().join("resource")) {
        _ if list.is_plain() => list.covers.clone(),
        Some(start) if list.disk.whole.folder.join("badblocks").exists() => {
            let data = region.bytes(start, list.disk.size().bytes());
            data.map_or(0..0, |data| data.start / SECTOR..data.end / SECTOR)
        }
        _ => 0..0,
    };
    Ok(Some(ListSnapshot {
        device: device.clone(),
        sequence: list.sequence,
        start: list.covers.start,
        disk: list.disk,
        data,
        listed,
    }))
}

impl Batch {
    /// Adds the new sectors of a list.
    fn add(&mut self, snapshot: &ListSnapshot, news: &BadBlocks) {
        if !news.is_empty() {
            self.sectors.push((snapshot.sequence, news.clone()));
        }
        let shown = news.within(&snapshot.data);
        for range in news.without(&shown).moved_down(snapshot.start).ranges() {
            let (offset, length) = bytes(range);
            self.hidden.push(NamespaceError {
                disk: snapshot.disk.name().to_owned(),
                device: snapshot.device.name.to_string(),
                number: snapshot.disk.whole.number,
                namespace_offset: offset,
                length,
                reason: match snapshot.device.name.kind {
                    Kind::Btt => "in sector mode the sector is unknown",
                    _ => "outside of the data area: info block, struct pages, or unused",
                },
            });
        }
        if !shown.is_empty() {
            self.news
                .push((snapshot.disk.clone(), shown.moved_down(snapshot.data.start)));
        }
    }

    fn event(&self, what: ErrorLocation, processes: Vec<FileUser>, complete: bool) -> Event {
        let paths = what.paths();
        let paths = paths.iter().map(|path| STANDARD.encode(path.as_bytes()));
        Event::Bad(Box::new(ErrorEvent {
            time_ms: self.time_ms,
            new: self.new,
            complete,
            physical_address: what.physical_address(&self.host),
            paths_b64: paths.collect(),
            what,
            processes,
        }))
    }

    /// Returns the events without owners.
    fn unattributed(&self) -> Vec<Event> {
        let entry = |disk: &Disk, range| {
            let (offset, length) = bytes(range);
            AffectedRange {
                disk: disk.name().to_owned(),
                volume: disk.name().to_owned(),
                span: Span::of_disk(offset, length),
                file_system: None,
                mount: None,
                owner: None,
                quarantined: false,
                reason: Some(SEARCHING.into()),
            }
        };
        let entries = self
            .news
            .iter()
            .flat_map(|(disk, list)| list.ranges().map(move |range| entry(disk, range)));
        entries
            .map(|entry| self.event(ErrorLocation::Disk(entry), Vec::new(), false))
            .collect()
    }
}

const SEARCHING: &str = "searching for the owner";

/// Finds owners among the files in use.
struct QuickSearch<'a> {
    host: &'a Host,
    targets: Option<&'a [Target]>,
    reports: &'a KernelReports,
}

/// The volumes that a batch affects, and events about the rest of it.
struct TracedBatch {
    volumes: Vec<(Disk, AffectedVolume)>,
    events: Vec<Event>,
}

/// The part of a batch that needs a search of whole file systems.
struct PendingSearch {
    batch: Batch,
    affected: Vec<(Disk, AffectedVolume)>,
    used: Arc<[OpenFile]>,
}

struct Silent;
impl Progress for Silent {}

impl QuickSearch<'_> {
    fn wants(&self, options: impl Fn(&Target) -> bool) -> bool {
        self.targets
            .is_none_or(|targets| targets.iter().any(options))
    }

    /// Finds the volumes with the errors of a batch.
    fn trace(&self, batch: &Batch) -> TracedBatch {
        let mut events = Vec::new();
        for hidden in &batch.hidden {
            if self.wants(|target| *target == Target::Device(hidden.number)) {
                let what = ErrorLocation::Namespace(hidden.clone());
                events.push(batch.event(what, Vec::new(), true));
            }
        }
        let mut volumes = Vec::new();
        for (disk, list) in &batch.news {
            match affected::traced(self.host, &[(disk.clone(), list.clone())]) {
                Ok(mut affected) => volumes.append(&mut affected),
                Err(error) => events.push(Event::Failed {
                    disk: disk.name().to_owned(),
                    reason: format!("cannot trace new errors: {error:#}"),
                }),
            }
        }
        TracedBatch { volumes, events }
    }

    /// Returns the files in use of the file systems on these volumes.
    fn files_in_use(&self, traced: &[TracedBatch]) -> Arc<[OpenFile]> {
        let volumes = traced.iter().flat_map(|traced| &traced.volumes);
        let devices: BTreeSet<DeviceNumber> = volumes
            .filter_map(|(_, affected)| affected.volume.number().ok())
            .collect();
        let devices: Vec<_> = devices.into_iter().collect();
        open_files::of_file_systems(self.host, &devices).into()
    }

    /// Returns the result so far, and the volumes that are left.
    fn look(
        &self,
        batch: &Batch,
        traced: TracedBatch,
        used: &[OpenFile],
    ) -> (Answer, Vec<(Disk, AffectedVolume)>) {
        let TracedBatch {
            volumes: traced,
            events: mut done,
        } = traced;
        let mut users = Users::default();
        let mut remaining = Vec::new();
        for (disk, affected) in &traced {
            if self.wants(|target| target.has(affected)) {
                let (mut entries, spans) = in_use(disk, affected, used);
                let rest = AffectedVolume {
                    spans,
                    ..affected.clone()
                };
                let (more, spans) = reported(self.host, self.reports, disk, &rest);
                entries.extend(more);
                let reported = entries
                    .into_iter()
                    .map(|entry| batch.reported(disk, affected, entry, used, &mut users));
                done.extend(reported);
                if !spans.is_empty() {
                    let affected = AffectedVolume {
                        spans,
                        ..affected.clone()
                    };
                    remaining.push((disk.clone(), affected));
                }
            }
        }
        // For a target file only its own extents are read.
        let files = self.targets.unwrap_or_default().iter();
        let files: Vec<_> = files
            .filter(|target| matches!(target, Target::File(_)))
            .cloned()
            .collect();
        if !files.is_empty() {
            for (disk, affected) in &traced {
                let entries = entries(self.host, disk, affected, &files);
                let reported = entries
                    .into_iter()
                    .map(|entry| batch.reported(disk, affected, entry, used, &mut users));
                done.extend(reported);
            }
        }
        let rest: Vec<Event> = remaining
            .iter()
            .flat_map(|(disk, affected)| affected::without_owner(disk, affected, SEARCHING))
            .map(|entry| batch.event(ErrorLocation::Disk(entry), Vec::new(), false))
            .collect();
        let number = batch.number;
        (Answer { number, done, rest }, remaining)
    }
}

/// Searches whole file systems for the rest of all batches.
fn search(host: &Host, reports: &KernelReports, searches: &[PendingSearch]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = searches
        .iter()
        .map(|remaining| Answer {
            number: remaining.batch.number,
            done: Vec::new(),
            rest: Vec::new(),
        })
        .collect();
    let mut users = Users::default();
    for (disk, affected) in together(searches.iter().flat_map(|remaining| &remaining.affected)) {
        let (mut found, spans) = reported(host, reports, &disk, &affected);
        if !spans.is_empty() {
            let rest = AffectedVolume {
                spans,
                ..affected.clone()
            };
            found.extend(entries(host, &disk, &rest, &[]));
        }
        for entry in found {
            for (remaining, answer) in searches.iter().zip(&mut answers) {
                for part in remaining.parts(&entry) {
                    let batch = &remaining.batch;
                    let event = batch.reported(&disk, &affected, part, &remaining.used, &mut users);
                    answer.done.push(event);
                }
            }
        }
    }
    answers
}

/// As few as there are volumes, each with all that is bad of it.
fn together<'a>(
    all: impl Iterator<Item = &'a (Disk, AffectedVolume)>,
) -> Vec<(Disk, AffectedVolume)> {
    let mut found: Vec<(Disk, AffectedVolume)> = Vec::new();
    for (disk, affected) in all {
        let same = found.iter_mut().find(|(other, one)| {
            other.name() == disk.name()
                && one.volume.name == affected.volume.name
                && one.chain == affected.chain
        });
        match same {
            Some((_, one)) => {
                one.spans.extend(affected.spans.iter());
                // Keep the latest state.
                one.volume.clone_from(&affected.volume);
            }
            None => found.push((disk.clone(), affected.clone())),
        }
    }
    found
}

impl PendingSearch {
    /// Returns the parts of a range that belong to this batch.
    fn parts(&self, entry: &AffectedRange) -> Vec<AffectedRange> {
        let affected = self.affected.iter().filter(|(disk, affected)| {
            disk.name() == entry.disk && affected.volume.name == entry.volume
        });
        affected
            .flat_map(|(_, affected)| affected.spans.within(&entry.span.range()))
            .map(|span| {
                let skipped = span.offset - entry.span.offset;
                let mut part = AffectedRange {
                    span,
                    ..entry.clone()
                };
                if let Some(Owner::File {
                    file_offset: Some(at),
                    ..
                }) = &mut part.owner
                {
                    *at += skipped;
                }
                part
            })
            .collect()
    }
}

/// Returns the owners for a volume, or for these files only.
fn entries(
    host: &Host,
    disk: &Disk,
    affected: &AffectedVolume,
    targets: &[Target],
) -> Vec<AffectedRange> {
    let one = (disk.clone(), affected.clone());
    match affected::entries_of(host, std::slice::from_ref(&one), targets, false, &Silent) {
        Ok(entries) => entries,
        Err(error) => affected::without_owner(disk, affected, &format!("{error:#}")).collect(),
    }
}

/// The users of disks, which are found once for all ranges: each search reads all of /proc.
#[derive(Default)]
struct Users(BTreeMap<String, Vec<Holder>>);

impl Users {
    fn of(&mut self, disk: &Disk) -> &[Holder] {
        self.0
            .entry(disk.name().to_owned())
            .or_insert_with(|| holders::of_disk(disk))
    }
}

impl Batch {
    /// With the processes that use it. The range is of this volume.
    fn reported(
        &self,
        disk: &Disk,
        affected: &AffectedVolume,
        entry: AffectedRange,
        used: &[OpenFile],
        users: &mut Users,
    ) -> Event {
        let mut processes = Vec::new();
        if let Some(Owner::File {
            inode, file_offset, ..
        }) = &entry.owner
        {
            let start = file_offset.unwrap_or_default();
            let bytes = start..start.saturating_add(entry.span.length);
            if let Ok(device) = affected.volume.number() {
                processes.extend(open_files::users_of(used, device, *inode, &bytes));
            }
        } else if entry.mount.is_none() {
            // Programs that use the device itself.
            for holder in users.of(disk) {
                if let Holder::Process {
                    device, process, ..
                } = holder
                {
                    if *device == entry.volume || *device == entry.disk {
                        processes.push(FileUser {
                            process: process.clone(),
                            open: true,
                            addresses: Vec::new(),
                        });
                    }
                }
            }
        }
        self.event(ErrorLocation::Disk(entry), processes, true)
    }
}

/// Splits the bad bytes into those of files in use that share no blocks, and the rest.
fn in_use(
    disk: &Disk,
    affected: &AffectedVolume,
    used: &[OpenFile],
) -> (Vec<AffectedRange>, Spans) {
    let mut entries = Vec::new();
    let mut remaining = affected.spans.clone();
    let Ok(device) = affected.volume.number() else {
        return (entries, remaining);
    };
    for used in used.iter().filter(|used| used.device == device) {
        // A file without a known name must be searched for.
        if used.name.is_none() && !used.removed {
            continue;
        }
        let Ok(file) = used.open() else { continue };
        for (part, offset) in parts_of(&file, &mut remaining) {
            let owner = Owner::File {
                paths: used.name.iter().map(printable).collect(),
                inode: used.inode,
                file_offset: Some(offset),
                open_by: match used.removed {
                    true => used.by.iter().map(|one| one.process.pid).collect(),
                    false => Vec::new(),
                },
            };
            entries.push(AffectedRange {
                owner: Some(owner),
                ..affected::entry(disk, affected, part)
            });
        }
    }
    (entries, remaining)
}

/// Splits the bad bytes into those of files for which the kernel has reported errors, and the rest.
fn reported(
    host: &Host,
    reports: &KernelReports,
    disk: &Disk,
    affected: &AffectedVolume,
) -> (Vec<AffectedRange>, Spans) {
    let mut entries = Vec::new();
    let mut remaining = affected.spans.clone();
    let mounts = &affected.volume.mounts;
    let whole = mounts.iter().find(|mount| mount.root == "/");
    let (Some(mount), Ok(device)) = (whole.or(mounts.first()), affected.volume.number()) else {
        return (entries, remaining);
    };
    if remaining.is_empty() {
        return (entries, remaining);
    }
    let directory = host.absolute(Path::new(&mount.directory));
    for reported in reports.files(host, device, &directory) {
        for (part, offset) in parts_of(&reported.file, &mut remaining) {
            let owner = Owner::File {
                paths: vec![printable(&reported.path)],
                inode: reported.inode,
                file_offset: Some(offset),
                open_by: Vec::new(),
            };
            entries.push(AffectedRange {
                owner: Some(owner),
                ..affected::entry(disk, affected, part)
            });
        }
    }
    (entries, remaining)
}

/// Takes the parts out of `remaining` that are the file's alone; returns them with their offsets in the file.
fn parts_of(file: &File, remaining: &mut Spans) -> Vec<(Span, u64)> {
    let mut parts = Vec::new();
    // Its extents are of another device.
    if extents::is_real_time(file).unwrap_or(false) {
        return parts;
    }
    let _ = extents::of_file(file, Fork::Data, |extent| {
        if extent.flags & Extent::SHARED != 0 {
            return;
        }
        parts.extend(remaining.in_extent(extent));
        remaining.remove(&(extent.physical..extent.physical.saturating_add(extent.length)));
    });
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::topology::Volume;
    use crate::testing::FakeSysfs;
    use std::fs;

    fn list(text: &str) -> BadBlocks {
        text.parse().unwrap()
    }

    #[test]
    fn only_new_sectors_are_reported() {
        let mut known = ReportedErrors::default();
        assert_eq!(known.news(1, &list("8 8\n")), list("8 8\n"));
        assert_eq!(known.news(1, &list("8 8\n")), list(""));
        assert_eq!(known.news(1, &list("8 8\n64 1\n")), list("64 1\n"));
        // Repaired, and bad again.
        assert_eq!(known.news(1, &list("64 1\n")), list(""));
        assert_eq!(known.news(1, &list("8 2\n64 1\n")), list("8 2\n"));
        // Bound again, and the list is filled a moment later.
        assert_eq!(known.news(2, &list("")), list(""));
        assert_eq!(known.news(2, &list("8 2\n")), list(""));
        assert_eq!(known.news(2, &list("8 8\n")), list("10 6\n"));
    }

    #[test]
    fn cursor_gets_a_batch_when_it_was_handled() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        let file = machine.folder.path().join("cursor.json");
        let cursor = || Cursor::read(&file, "b1".into());
        let mut monitor = Monitor::new(&machine.host, true, true, Some(cursor()));
        let regions = Region::all(&machine.host);
        let (woken, wake) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        let is_woken = || (&woken).read(&mut [0]).is_ok();
        let wake = Arc::new(wake);
        // The hook of the first one runs for some time.
        let mut kept = Vec::new();
        for (listed, repaired, saved) in [
            ("8 8", "8 8", "6152 8\n"),
            ("8 8\n64 8", "8 8\n64 1", "6152 8\n6208 1\n"),
        ] {
            machine.lists(listed);
            let report: Report<'_> = &mut |event, receipt| {
                if let Event::Failed { .. } = event {
                    kept.extend(receipt.cloned());
                }
                Ok(())
            };
            let batch = monitor.read_lists(&regions, report).unwrap().unwrap();
            monitor.expect(&batch, Receipt::new(&wake));
            let failed = Event::Failed {
                disk: "pmem0".into(),
                reason: String::new(),
            };
            let answer = Answer {
                number: batch.number,
                done: vec![failed],
                rest: Vec::new(),
            };
            monitor.take(answer, report).unwrap();
            machine.lists(repaired);
            assert!(monitor.read_lists(&regions, report).unwrap().is_none());
            monitor.move_cursor();
            let all: BadBlocks = saved.parse().unwrap();
            assert!(!cursor().news(12, &all).is_empty());
            assert!(!is_woken());
            kept.clear();
            assert!(is_woken());
            monitor.move_cursor();
            let more: BadBlocks = "6152 8\n6208 8\n".parse().unwrap();
            assert_eq!(cursor().news(12, &more), more.without(&all));
        }
    }

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
    fn file_takes_its_parts_only() {
        // Skipped if the file system has no FIEMAP.
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; 65536]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let mut first = None;
        let _ = extents::of_file(&file, Fork::Data, |extent| {
            first.get_or_insert(*extent);
        });
        let Some(extent) = first.filter(|extent| extent.physical >= 4096) else {
            return;
        };
        let start = extent.physical;
        let before = Span::made_up(start - 4096, 4096);
        let mut remaining = Spans::default();
        remaining.extend([Span {
            length: 8192,
            ..before.clone()
        }]);
        let parts = parts_of(&file, &mut remaining);
        assert_eq!(parts, [(Span::made_up(start, 4096), extent.logical)]);
        assert!(remaining.iter().eq([before]));
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

    #[test]
    fn event_has_physical_address_and_paths_byte_for_byte() {
        let name = std::ffi::OsStr::from_bytes(b"/srv/\xff\\");
        let machine = FakeSysfs::new();
        machine.write("sys/block/pmem0/device/resource", "0x240000000");
        let batch = Batch {
            host: machine.host.clone(),
            number: 0,
            time_ms: 0,
            new: true,
            news: Vec::new(),
            hidden: Vec::new(),
            sectors: Vec::new(),
        };
        let entry = AffectedRange {
            disk: "pmem0".into(),
            volume: "pmem0".into(),
            span: Span::made_up(0, 512),
            file_system: None,
            mount: Some("/srv".into()),
            owner: Some(Owner::File {
                paths: vec![printable(name)],
                inode: 12,
                file_offset: Some(0),
                open_by: Vec::new(),
            }),
            quarantined: false,
            reason: None,
        };
        let event = batch.event(ErrorLocation::Disk(entry), Vec::new(), true);
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["physical_address"], 0x2_4000_0000_u64 + 1000);
        assert_eq!(json["owner"]["paths"][0], r"/srv/\xff\\");
        assert_eq!(json["paths_b64"][0], STANDARD.encode(name.as_bytes()));
    }

    #[test]
    fn batches_share_one_search() {
        let folder = tempfile::tempdir().unwrap();
        let pmem0 = folder.path().join("sys/block/pmem0");
        fs::create_dir_all(&pmem0).unwrap();
        fs::write(pmem0.join("dev"), "259:0\n").unwrap();
        let disk = Disk::find(&Host::at(folder.path()), "pmem0").unwrap();
        let remaining = |number, volume, spans: &[(u64, u64)]| {
            let volume = Volume::made_up(volume, "259:1", vec![]);
            let spans = spans
                .iter()
                .map(|&(offset, length)| Span::made_up(offset, length));
            let affected = AffectedVolume {
                chain: vec![volume.number().unwrap()],
                volume,
                spans: spans.collect(),
                opaque: None,
                beside: None,
            };
            let batch = Batch {
                host: Host::here(),
                number,
                time_ms: 0,
                new: true,
                news: Vec::new(),
                hidden: Vec::new(),
                sectors: Vec::new(),
            };
            PendingSearch {
                batch,
                affected: vec![(disk.clone(), affected)],
                used: [].into(),
            }
        };
        let searches = [
            remaining(0, "pmem0p1", &[(4096, 4096)]),
            remaining(1, "pmem0p1", &[(8192, 4096), (65536, 512)]),
            remaining(2, "pmem0p2", &[(4096, 512)]),
            // Repaired, and bad again.
            remaining(3, "pmem0p1", &[(4096, 8192)]),
        ];
        let all = together(searches.iter().flat_map(|remaining| &remaining.affected));
        assert_eq!(all.len(), 2);
        let spans = [Span::made_up(4096, 8192), Span::made_up(65536, 512)];
        assert!(all[0].1.spans.iter().eq(spans));
        assert!(all[1].1.spans.iter().eq([Span::made_up(4096, 512)]));

        // Two pages of a file in two batches.
        let mut entry = affected::entry(&disk, &all[0].1, Span::made_up(4096, 8192));
        entry.owner = Some(Owner::File {
            paths: Vec::new(),
            inode: 12,
            file_offset: Some(1 << 20),
            open_by: Vec::new(),
        });
        let parts = |remaining: &PendingSearch| {
            let offset = |part: AffectedRange| match part.owner {
                Some(Owner::File { file_offset, .. }) => (part.span, file_offset.unwrap()),
                _ => panic!("{part:?}"),
            };
            remaining.parts(&entry).into_iter().map(offset).collect()
        };
        let found: Vec<Vec<_>> = searches.iter().map(parts).collect();
        let first = (Span::made_up(4096, 4096), 1 << 20);
        let second = (Span::made_up(8192, 4096), (1 << 20) + 4096);
        let both = (Span::made_up(4096, 8192), 1 << 20);
        assert_eq!(found, [vec![first], vec![second], vec![], vec![both]]);
    }

    #[test]
    fn namespaces_of_one_memory_are_separate() {
        let mut known = ReportedErrors::default();
        assert_eq!(known.news(1, &list("8 8\n")), list("8 8\n"));
        assert_eq!(known.news(2, &list("800 8\n")), list("800 8\n"));
        assert_eq!(known.news(1, &list("")), list(""));
        assert_eq!(known.news(2, &list("800 8\n")), list(""));
        assert_eq!(known.news(1, &list("8 8\n")), list("8 8\n"));
    }
}
