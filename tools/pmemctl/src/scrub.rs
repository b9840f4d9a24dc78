// SPDX-License-Identifier: GPL-2.0

//! Reads a whole disk to find errors before an application does.
//!
//! Each page that is not listed is read past the page cache, through the driver's machine-check-safe copy. A page
//! that cannot be read is added to the list if the driver has not done so. The position is saved in a file for the
//! memory of the disk.
//!
//! A bad page may stop the machine. The file therefore says which bytes are about to be read, before they are. If the
//! kernel has started again since, these bytes are suspected: they are skipped and reported until a retry, so that a
//! scrub that a timer starts does not stop the machine again and again.

use crate::badblocks::kernel::{self, KernelList, ListLookup, unsurvivable};
use crate::badblocks::origin::SECTOR;
use crate::badblocks::persist;
use crate::badblocks::set::BadBlocks;
use crate::badblocks::store::{self, Lock};
use crate::block::topology;
use crate::inventory::BadRange;
use crate::nd::region::{Memory, Region};
use crate::nd::{Device, Kind};
use crate::ranges::{Ranges, common, rounded_out};
use crate::sysfs::{self, printable};
use crate::throttle::Throttle;
use abstractions::DirectBuffer;
use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use units::PAGE;

/// The version of the form of the file.
const VERSION: u32 = 1;
/// The largest read.
const CHUNK: u64 = 1 << 20;
/// The most that is announced, and skipped after a crash.
const WINDOW: u64 = 64 << 20;
/// The longest sleep, so that it can be stopped.
const NAP: Duration = Duration::from_millis(50);
/// The origin of errors that a scrub finds.
const ORIGIN: &str = "user";

/// The position of a scrub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    memory: Memory,
    /// The bytes of the region that are the disk's.
    covers: Range<u64>,
    /// Bytes of the disk that are done.
    done: u64,
    /// Bytes that were found to be bad, by where they are on the disk.
    found: Vec<Range<u64>>,
    /// The bytes that are about to be read; none after the scrub has ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reading: Option<Reading>,
    /// Bytes that were being read when the machine stopped, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    suspected: Vec<Range<u64>>,
}

/// The bytes that are about to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    bytes: Range<u64>,
    /// The boot of the kernel that reads them.
    boot: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    checksum: String,
    state: State,
}

impl State {
    fn checksum(&self) -> Result<String> {
        let text = serde_json::to_vec(self)?;
        Ok(format!("crc32:{:08x}", crc32fast::hash(&text)))
    }

    fn to_text(&self) -> Result<String> {
        let form = StateFile {
            checksum: self.checksum()?,
            state: self.clone(),
        };
        Ok(serde_json::to_string_pretty(&form)? + "\n")
    }

    /// Parses a file; fails if it is truncated, edited or inconsistent.
    fn from_text(text: &[u8]) -> Result<Self> {
        let StateFile { checksum, state } =
            serde_json::from_slice(text).context("it is not a state file of pmemctl scrub")?;
        if state.version != VERSION {
            bail!("it is of version {}", state.version);
        }
        if checksum != state.checksum()? {
            bail!("it was changed since it was written");
        }
        let size = state.covers.end.saturating_sub(state.covers.start);
        let inside = |bytes: &Range<u64>| bytes.start < bytes.end && bytes.end <= size;
        let pages = |bytes: &Range<u64>| inside(bytes) && bytes.start % PAGE == 0;
        let sound = state.done <= size
            && state.done % PAGE == 0
            && state.found.iter().all(inside)
            && state.suspected.iter().all(pages)
            && state.reading.iter().all(|reading| pages(&reading.bytes));
        if !sound {
            bail!("it has numbers that no such disk can have");
        }
        Ok(state)
    }

    /// Writes it: after a crash at any time the file is the old one or the new one.
    fn save(&self, path: &Path) -> Result<()> {
        let text = self.to_text()?;
        store::replace(path, &store::partial(path), text.as_bytes())
            .with_context(|| printable(path))
    }

    /// Takes what was being read as suspected if the machine has stopped since. A scrub that was killed has hit
    /// nothing. With `retry`, the scrub begins with the suspected bytes, which stay suspected until they are read.
    fn resume(&mut self, boot: &str, retry: bool) {
        if let Some(reading) = self.reading.take().filter(|reading| reading.boot != boot) {
            self.suspected.push(reading.bytes);
        }
        self.suspected = joined(&self.suspected).iter().cloned().collect();
        if retry {
            let first = self.suspected.first().map(|bytes| bytes.start);
            self.done = self.done.min(first.unwrap_or(self.done));
        }
    }

    /// Moves the position behind bytes that were read. The machine has not stopped, so they are not suspected.
    fn advance(&mut self, end: u64) {
        let mut suspected = joined(&self.suspected);
        suspected.remove(&(self.done..end));
        self.suspected = suspected.iter().cloned().collect();
        self.done = end;
    }

    /// Moves the position behind suspected bytes, and returns where the next ones begin.
    fn skip_suspected(&mut self) -> Option<u64> {
        for bytes in &self.suspected {
            if bytes.start > self.done {
                return Some(bytes.start);
            }
            self.done = self.done.max(bytes.end.next_multiple_of(PAGE));
        }
        None
    }
}

/// The end of the last scrub that has read the whole disk. Its file stays when that of the position is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastScrub {
    version: u32,
    memory: Memory,
    /// The bytes of the region that are the disk's.
    covers: Range<u64>,
    /// Milliseconds since 1970.
    time_ms: u64,
}

/// The state of the scrubs of a disk.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Progress {
    /// Bytes that the current scrub, or one that was stopped, has read; 0 if there is none.
    pub done: u64,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that later scrubs skip, because the machine stopped when they were read.
    pub suspected: u64,
    /// When the last complete scrub ended, in milliseconds since 1970.
    pub completed_ms: Option<u64>,
}

#[derive(Debug, JsonSchema, Serialize)]
pub struct Summary {
    pub disk: String,
    /// Its bytes.
    pub size: u64,
    /// The first byte of this run; not 0 if it continues an earlier one.
    pub from: u64,
    /// Bytes that are done, since the beginning.
    pub done: u64,
    pub complete: bool,
    /// Errors that were found, in this run or earlier.
    pub found: Vec<BadRange>,
    /// Errors that were listed before, and were not read: after `from`, or all if it is complete.
    pub known: Vec<BadRange>,
    /// Bytes that were not read because the machine stopped when they were.
    pub suspected: Vec<BadRange>,
    /// How long this has taken, in seconds.
    pub seconds: f64,
    /// Why the saved position was not used.
    pub anew: Option<String>,
}

/// Options and callbacks of a scrub.
pub struct Options<'a> {
    /// The folder of the saved position.
    pub folder: &'a Path,
    /// Bytes a second at most.
    pub rate: u64,
    /// Begin at the first byte, not at the saved position.
    pub anew: bool,
    /// Read what was being read when the machine stopped.
    pub retry: bool,
    /// Whether it is to stop.
    pub stop: &'a dyn Fn() -> bool,
    /// Receives the number of bytes done and of bad bytes.
    pub progress: &'a dyn Fn(u64, u64),
}

/// A disk that can be scrubbed.
pub struct Scrub {
    region: Region,
    list: KernelList,
    memory: Memory,
    covers: Range<u64>,
    /// The bytes of the smallest read.
    block_size: u64,
}

impl Scrub {
    pub fn of(host: &sysfs::Host, device: &Device) -> Result<Self> {
        match device.name.kind {
            Kind::Btt => bail!(
                "{}: in sector mode blocks have no fixed place; read the whole disk instead: dd if=/dev/pmemNs of=/dev/null bs=1M iflag=direct",
                device.name
            ),
            Kind::Dax => bail!("{}: device DAX has no disk to read", device.name),
            Kind::Namespace | Kind::Pfn => {}
        }
        let region = Region::find(host, device.name.region)
            .with_context(|| format!("{} has no region that is visible", device.name))?;
        kernel::wait(device);
        let list = match KernelList::of(&region, device)? {
            ListLookup::List(list) => list,
            ListLookup::None(why) => bail!("{}: {why}", device.name),
        };
        let size = list.disk.size().bytes();
        let start = sysfs::number(device.folder().join("resource"))
            .with_context(|| format!("{} does not say where its data begins", device.name))?;
        Ok(Self {
            memory: region.memory()?,
            covers: region
                .bytes(start, size)
                .with_context(|| format!("{} does not lie in its region", device.name))?,
            block_size: topology::block_size(host, list.disk.name()),
            region,
            list,
        })
    }

    pub fn disk(&self) -> &str {
        self.list.disk.name()
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.covers.end - self.covers.start
    }

    /// The bus, where the platform scrubs by itself.
    pub fn platform_bus(&self) -> Option<String> {
        self.region.has_log().then(|| self.region.bus_name())?
    }

    /// Returns why a page that cannot be read would stop this machine, where it is certain.
    pub fn unsurvivable(&self) -> Option<String> {
        unsurvivable(self.region.host())
    }

    fn file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}{:x}.json", self.prefix(), self.covers.start))
    }

    /// How the names of the files of this memory begin.
    fn prefix(&self) -> String {
        let name = self.memory.file_name();
        format!("scrub-{}+", name.strip_suffix(".json").unwrap_or(&name))
    }

    /// Keeps the file of a disk with the same start and another end, which may have suspected bytes behind this one.
    fn put_aside(&self, file: &Path) -> io::Result<()> {
        let state = fs::read(file)
            .ok()
            .and_then(|text| State::from_text(&text).ok());
        let Some(covers) = state
            .map(|state| state.covers)
            .filter(|covers| *covers != self.covers)
        else {
            return Ok(());
        };
        let name = format!("{}{:x}-{:x}.json", self.prefix(), covers.start, covers.end);
        fs::rename(file, file.with_file_name(name))
    }

    /// Returns the bytes of the disk that were being read when the machine stopped, before the namespace got its mode or
    /// size: the files of other disks of this memory, written after `since`, have them. A complete scrub since then has read
    /// them.
    fn suspected_before(&self, folder: &Path, boot: &str, since: Option<u64>) -> Ranges {
        let last = self.last(folder).max(since);
        let prefix = self.prefix();
        let names = sysfs::names(folder).into_iter();
        let states = names
            .filter(|name| name.starts_with(&prefix) && name.ends_with(".json"))
            .map(|name| folder.join(name))
            .filter(|file| last.is_none_or(|last| store::modified_ms(file) > Some(last)))
            .filter_map(|file| State::from_text(&fs::read(file).ok()?).ok())
            .filter(|state| state.memory == self.memory);
        let of_region = states.flat_map(|mut state| {
            state.resume(boot, false);
            let start = state.covers.start;
            let suspected = state.suspected.into_iter();
            suspected.map(move |bytes| start + bytes.start..start + bytes.end)
        });
        of_region
            .filter_map(|bytes| common(&bytes, &self.covers))
            .map(|bytes| bytes.start - self.covers.start..bytes.end - self.covers.start)
            .map(|bytes| rounded_out(&bytes, PAGE))
            .map(|pages| pages.start..pages.end.min(self.size()))
            .collect()
    }

    /// Reads the saved position; also returns why it cannot be used.
    fn state(&self, file: &Path) -> (State, Option<String>) {
        let begin = State {
            version: VERSION,
            memory: self.memory.clone(),
            covers: self.covers.clone(),
            done: 0,
            found: Vec::new(),
            reading: None,
            suspected: Vec::new(),
        };
        let read = match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (begin, None),
            read => read.map_err(anyhow::Error::from),
        };
        let why = match read.and_then(|text| State::from_text(&text)) {
            Ok(state) if state.memory != self.memory => format!("it is of {}", state.memory),
            Ok(state) if state.covers != self.covers => {
                "it is of another disk of this memory".into()
            }
            Ok(state) => return (state, None),
            Err(error) => error.to_string(),
        };
        (begin, Some(format!("{}: {why}", file.display())))
    }

    /// The file of the last complete scrub.
    fn last_file(&self, folder: &Path) -> PathBuf {
        self.file(folder).with_extension("last")
    }

    /// Keeps the time at which the whole disk was read.
    fn save_last(&self, folder: &Path, time: SystemTime) -> Result<()> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = serde_json::to_vec(&LastScrub {
            version: VERSION,
            memory: self.memory.clone(),
            covers: self.covers.clone(),
            time_ms: since.as_millis() as u64,
        })?;
        let file = self.last_file(folder);
        store::replace(&file, &store::partial(&file), &text).with_context(|| printable(&file))
    }

    /// Returns when the last complete scrub of this disk ended, in milliseconds since 1970.
    fn last(&self, folder: &Path) -> Option<u64> {
        let text = fs::read(self.last_file(folder)).ok()?;
        let last: LastScrub = serde_json::from_slice(&text).ok()?;
        let is_own = last.version == VERSION && last.memory == self.memory;
        (is_own && last.covers == self.covers).then_some(last.time_ms)
    }

    /// Returns what is known of its scrubs; `None` if there was none.
    pub fn progress(&self, folder: &Path) -> Option<Progress> {
        let (state, _) = self.state(&self.file(folder));
        let bytes = |bytes: &Range<u64>| bytes.end - bytes.start;
        let progress = Progress {
            done: state.done,
            size: self.size(),
            suspected: state.suspected.iter().map(bytes).sum(),
            completed_ms: self.last(folder),
        };
        let is_known =
            progress.done > 0 || progress.suspected > 0 || progress.completed_ms.is_some();
        is_known.then_some(progress)
    }

    /// Reads the disk from where it was left.
    pub fn run(&self, options: &Options<'_>) -> Result<Summary> {
        let mut run = Run::begin(self, options)?;
        let read = run.read();
        run.finish(read)
    }

    /// Adds unreadable sectors to the list.
    fn record(&self, bad: &BadBlocks) -> Result<()> {
        if !self.list.disk.is_there() {
            bail!("{}: the disk has gone", self.disk());
        }
        // The list counts from the start of the region, the disk from the start of its data.
        let bad = bad.moved_up(self.covers.start / SECTOR);
        // A write may have repaired a sector after it was read, and before it was listed. Then it can be read.
        self.list
            .add(&bad, ORIGIN)
            .and_then(|()| self.list.drop_readable(&bad, SECTOR))
            .with_context(|| {
                format!(
                    "{}: the errors that were found cannot be added to the list",
                    self.disk()
                )
            })
    }
}

/// A scrub that is running.
struct Run<'a> {
    scrub: &'a Scrub,
    options: &'a Options<'a>,
    /// The file of the position.
    file: PathBuf,
    _lock: Lock,
    disk: File,
    buffer: DirectBuffer,
    boot: String,
    begun: Instant,
    /// The first byte of this run.
    from: u64,
    /// Why the saved position was not used.
    anew: Option<String>,
    state: State,
    /// The end of the bytes that the file announces as about to be read.
    announced: u64,
    bytes_read: u64,
    /// The listed pages.
    listed: Ranges,
    /// Those of them that were not read.
    known: Ranges,
    /// Pages that cannot be read and are neither listed nor in `state` yet, in order.
    unsaved: Vec<Range<u64>>,
    /// Bytes that cannot be read.
    bad: u64,
}

impl<'a> Run<'a> {
    /// Takes the lock and the position.
    fn begin(scrub: &'a Scrub, options: &'a Options<'a>) -> Result<Self> {
        let folder = options.folder;
        store::make_folder(folder)?;
        let file = scrub.file(folder);
        let open =
            || store::lock_file(&file.with_extension("lock")).with_context(|| printable(folder));
        let lock = match Lock::take(open()?) {
            Err(Errno::WOULDBLOCK) => bail!(
                "{}: another scrub is running, in {}; end it, or try again later",
                scrub.disk(),
                store::lock_owner(&open()?)
            ),
            locked => locked.with_context(|| printable(folder))?,
        };
        store::remove_partial(folder, &store::partial(&file));
        let boot = persist::boot(scrub.region.host())?;
        let (mut state, anew) = scrub.state(&file);
        // What another mode has learnt since this one was scrubbed.
        let since = match &anew {
            None => store::modified_ms(&file),
            Some(_) => None,
        };
        let before = scrub.suspected_before(folder, &boot, since);
        state.suspected.extend(before.iter().cloned());
        state.suspected = joined(&state.suspected).iter().cloned().collect();
        if anew.is_some() {
            scrub.put_aside(&file)?;
        }
        state.resume(&boot, options.retry);
        if options.anew {
            state.done = 0;
            state.found.clear();
        }
        let disk = &scrub.list.disk;
        Ok(Self {
            scrub,
            options,
            file,
            _lock: lock,
            disk: disk
                .open(&disk.whole, OFlags::DIRECT)
                .with_context(|| printable(disk.node(&disk.whole)))?,
            buffer: DirectBuffer::new(CHUNK as usize),
            boot,
            begun: Instant::now(),
            from: state.done,
            anew,
            announced: 0,
            bytes_read: 0,
            listed: Ranges::default(),
            known: Ranges::default(),
            unsaved: Vec::new(),
            bad: count(&state.found),
            state,
        })
    }

    /// Reads to the end of the disk, or until it is to stop.
    fn read(&mut self) -> Result<()> {
        // Both take long with many errors.
        let (mut reread, mut saved) = (Throttle::default(), Throttle::default());
        loop {
            let next_suspected = match self.options.retry {
                true => None,
                false => self.state.skip_suspected(),
            };
            if self.state.done >= self.scrub.size() || (self.options.stop)() {
                return Ok(());
            }
            if self.state.done >= self.announced {
                self.announce(next_suspected)?;
            }
            if reread.is_due() {
                self.listed = pages_of(&reread.time(|| self.scrub.list.disk.bad())?);
            }
            self.read_chunk()?;
            if !self.unsaved.is_empty() && saved.is_due() {
                // Saved before a SIGKILL: these are listed now, so the next scrub would take them for known ones.
                self.state.reading = None;
                self.announced = self.state.done;
                saved.time(|| self.keep_found())?;
            }
            (self.options.progress)(self.state.done, self.bad);
            self.keep_pace();
        }
    }

    /// Saves which bytes are about to be read.
    fn announce(&mut self, next_suspected: Option<u64>) -> Result<()> {
        // Small steps narrow down what stops the machine.
        let length = match self.options.retry {
            true => CHUNK,
            false => window(self.options.rate),
        };
        let end = self.scrub.size().min(self.state.done + length);
        self.announced = end.min(next_suspected.unwrap_or(end));
        self.state.reading = Some(Reading {
            bytes: self.state.done..self.announced,
            boot: self.boot.clone(),
        });
        match self.unsaved.first() {
            None => self.state.save(&self.file),
            // After a SIGKILL, the next scrub finds these again.
            Some(first) => State {
                done: self.state.done.min(first.start),
                ..self.state.clone()
            }
            .save(&self.file),
        }
    }

    /// Reads the pages of the next chunk that are not listed.
    fn read_chunk(&mut self) -> Result<()> {
        let end = self
            .announced
            .min(self.state.done + chunk(self.options.rate));
        let bytes = self.state.done..end;
        self.known
            .extend(self.listed.within(&bytes).iter().cloned());
        let unlisted = self.listed.gaps(&bytes);
        let found = unreadable(&self.disk, self.buffer.bytes(), &unlisted)?;
        self.bad += count(&found);
        self.unsaved.extend(found);
        self.bytes_read += end - bytes.start;
        self.state.advance(end);
        Ok(())
    }

    /// Sleeps as long as the read was faster than the rate.
    fn keep_pace(&self) {
        let due = pace(self.bytes_read, self.options.rate);
        while self.begun.elapsed() < due && !(self.options.stop)() {
            thread::sleep(NAP.min(due.saturating_sub(self.begun.elapsed())));
        }
    }

    /// Adds what was found to the list, unless the driver has done so, and saves that it was found.
    fn keep_found(&mut self) -> Result<()> {
        let bad = self.unlisted()?;
        if !bad.is_empty() {
            self.scrub.record(&bad)?;
        }
        self.state.found.append(&mut self.unsaved);
        self.state.save(&self.file)
    }

    /// Returns the sectors of the pages in `unsaved` that are not listed and can't be read. Of a page, only some may be bad, and
    /// others may have been repaired by a write since.
    fn unlisted(&mut self) -> Result<BadBlocks> {
        let sectors = |bytes: &Range<u64>| bytes.start / SECTOR..bytes.end.div_ceil(SECTOR);
        let found: BadBlocks = self.unsaved.iter().map(sectors).collect();
        let unlisted = found.without(&self.scrub.list.disk.bad()?);
        let size = self.scrub.block_size;
        let buffer = &mut self.buffer.bytes()[..size as usize];
        let mut bad = Vec::new();
        for part in unlisted.ranges() {
            for block in part.start * SECTOR / size..(part.end * SECTOR).div_ceil(size) {
                let bytes = block * size..(block + 1) * size;
                if !read(&self.disk, buffer, bytes.start)? {
                    bad.extend(common(part, &sectors(&bytes)));
                }
            }
        }
        Ok(bad.into_iter().collect())
    }

    /// Saves the position, or removes it if the whole disk was read.
    fn finish(mut self, read: Result<()>) -> Result<Summary> {
        self.state.reading = None;
        let mut result = read;
        if !self.unsaved.is_empty() {
            result = result.and(self.keep_found());
        }
        // The next scrub finds the pages again that are not listed.
        if let Some(first) = self.unsaved.first() {
            self.state.done = self.state.done.min(first.start);
        }
        let complete = result.is_ok() && self.state.done >= self.scrub.size();
        let saved = match complete {
            true => self.save_complete(),
            false => self.state.save(&self.file),
        };
        result.and(saved)?;
        if complete {
            self.add_known_before()?;
        }
        let state = self.state;
        Ok(Summary {
            disk: self.scrub.disk().to_owned(),
            size: self.scrub.size(),
            from: self.from,
            done: state.done,
            complete,
            found: joined(&state.found).iter().map(BadRange::from).collect(),
            known: self.known.iter().map(BadRange::from).collect(),
            suspected: state.suspected.iter().map(BadRange::from).collect(),
            seconds: self.begun.elapsed().as_secs_f64(),
            anew: self.anew,
        })
    }

    /// Adds the listed pages that an earlier run has skipped, if this one has gone on from there.
    fn add_known_before(&mut self) -> Result<()> {
        if self.from > 0 {
            let listed = pages_of(&self.scrub.list.disk.bad()?).within(&(0..self.from));
            let found = joined(&self.state.found);
            self.known.extend(listed.without(&found).iter().cloned());
        }
        Ok(())
    }

    /// Saves the time of the end, and for the next scrub what it skips as well.
    fn save_complete(&self) -> Result<()> {
        if self.state.suspected.is_empty() {
            store::remove(&self.file).with_context(|| printable(&self.file))?;
        } else {
            let next = State {
                done: 0,
                found: Vec::new(),
                ..self.state.clone()
            };
            next.save(&self.file)?;
        }
        self.scrub.save_last(self.options.folder, SystemTime::now())
    }
}

fn count(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Reads ranges; returns the pages that cannot be read.
fn unreadable(disk: &File, buffer: &mut [u8], ranges: &Ranges) -> Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    for range in ranges.iter() {
        let length = (range.end - range.start) as usize;
        if read(disk, &mut buffer[..length], range.start)? {
            continue;
        }
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + PAGE);
            if !read(disk, &mut buffer[..(end - at) as usize], at)? {
                found.push(at..end);
            }
            at = end;
        }
    }
    Ok(found)
}

/// Returns whether a range can be read; fails for errors other than `EIO`.
fn read(disk: &File, buffer: &mut [u8], offset: u64) -> Result<bool> {
    match disk.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        // Of a disk that is being removed, the first read may fail like this; then its size is 0.
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            bail!("reading at byte {offset}: the disk has gone")
        }
        Err(error) => Err(error).with_context(|| format!("reading at byte {offset}")),
    }
}

/// Returns how much is announced at once: about a second.
fn window(rate: u64) -> u64 {
    (rate / CHUNK * CHUNK).clamp(chunk(rate), WINDOW)
}

/// Returns the size of a read for about ten reads per second.
fn chunk(rate: u64) -> u64 {
    (rate / 10).clamp(PAGE, CHUNK) / PAGE * PAGE
}

/// Returns the time for `bytes` at this rate.
fn pace(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

/// Returns the pages with listed sectors, in bytes.
fn pages_of(listed: &BadBlocks) -> Ranges {
    listed
        .ranges()
        .map(|sectors| rounded_out(&kernel::bytes(sectors), PAGE))
        .collect()
}

/// Merges adjacent ranges.
fn joined(ranges: &[Range<u64>]) -> Ranges {
    ranges.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use proptest::prelude::*;
    use std::iter::once;

    fn scrub() -> (FakeSysfs, Scrub) {
        let machine = FakeSysfs::new();
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let scrub = Scrub::of(&machine.host, &device).unwrap();
        (machine, scrub)
    }

    fn state(scrub: &Scrub) -> State {
        State {
            version: VERSION,
            memory: scrub.memory.clone(),
            covers: scrub.covers.clone(),
            done: 8192,
            found: once(0..4096).collect(),
            reading: None,
            suspected: Vec::new(),
        }
    }

    fn reading(bytes: Range<u64>) -> Option<Reading> {
        let boot = "boot-1".into();
        Some(Reading { bytes, boot })
    }

    #[test]
    fn place_that_stopped_the_machine_is_skipped() {
        let (_machine, scrub) = scrub();
        let folder = tempfile::tempdir().unwrap();
        let file = scrub.file(folder.path());
        let mut before = state(&scrub);
        before.reading = reading(8192..1 << 20);
        before.save(&file).unwrap();
        let read = || scrub.state(&file).0;

        // Killed: the machine is the same.
        let mut killed = read();
        killed.resume("boot-1", false);
        assert_eq!((killed.skip_suspected(), killed.done), (None, 8192));

        let mut crashed = read();
        crashed.resume("boot-2", false);
        assert_eq!(crashed.suspected.len(), 1);
        assert_eq!(crashed.suspected[0], 8192..1 << 20);
        assert_eq!((crashed.skip_suspected(), crashed.done), (None, 1 << 20));
        crashed.reading = reading(2 << 20..3 << 20);
        crashed.save(&file).unwrap();

        let mut again = read();
        again.resume("boot-3", false);
        assert_eq!(again.suspected, [8192..1 << 20, 2 << 20..3 << 20]);
        assert_eq!(
            (again.skip_suspected(), again.done),
            (Some(2 << 20), 1 << 20)
        );

        let mut retried = again.clone();
        retried.resume("boot-3", true);
        assert_eq!((retried.done, &retried.suspected), (8192, &again.suspected));
        retried.advance(1 << 20);
        assert_eq!(retried.suspected, again.suspected[1..]);
    }

    #[test]
    fn end_of_a_scrub_is_kept() {
        let (machine, scrub) = scrub();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(scrub.progress(folder.path()), None);
        let mut stopped = state(&scrub);
        stopped.suspected.push(1 << 20..2 << 20);
        stopped.save(&scrub.file(folder.path())).unwrap();
        let mut known = Progress {
            done: 8192,
            size: scrub.size(),
            suspected: 1 << 20,
            completed_ms: None,
        };
        assert_eq!(scrub.progress(folder.path()).as_ref(), Some(&known));

        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        scrub.save_last(folder.path(), time).unwrap();
        fs::remove_file(scrub.file(folder.path())).unwrap();
        known = Progress {
            done: 0,
            suspected: 0,
            completed_ms: Some(1_700_000_000_123),
            ..known
        };
        assert_eq!(scrub.progress(folder.path()).as_ref(), Some(&known));

        // Another disk of the memory, which begins at the same place.
        machine.write("sys/block/pmem0/size", "61440");
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let other = Scrub::of(&machine.host, &device).unwrap();
        assert_eq!(other.progress(folder.path()), None);
    }

    #[test]
    fn impossible_suspects_are_refused() {
        let (_machine, scrub) = scrub();
        for wrong in [1..4096, 0..1 << 40, 4096..4096] {
            let with_reading = State {
                reading: reading(wrong.clone()),
                ..state(&scrub)
            };
            let with_suspected = State {
                suspected: vec![wrong],
                ..state(&scrub)
            };
            for state in [with_reading, with_suspected] {
                assert!(State::from_text(state.to_text().unwrap().as_bytes()).is_err());
            }
        }
    }

    /// Makes the disk: a file, without an error.
    fn make_node(scrub: &Scrub, machine: &FakeSysfs) {
        let node = machine.host.path("dev/pmem0");
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        File::create(&node).unwrap().set_len(scrub.size()).unwrap();
    }

    fn run(scrub: &Scrub, machine: &FakeSysfs, stop_at: u64, retry: bool) -> Summary {
        make_node(scrub, machine);
        let done = std::cell::Cell::new(0);
        scrub
            .run(&Options {
                folder: &machine.folder.path().join("state"),
                rate: 1 << 40,
                anew: false,
                retry,
                stop: &|| done.get() > stop_at,
                progress: &|now, _| done.set(now),
            })
            .unwrap()
    }

    fn options(folder: &Path) -> Options<'_> {
        Options {
            folder,
            rate: 1 << 40,
            anew: false,
            retry: false,
            stop: &|| false,
            progress: &|_, _| {},
        }
    }

    #[test]
    fn pages_that_cannot_be_listed_are_read_again() {
        let (machine, scrub) = scrub();
        let size = scrub.size();
        make_node(&scrub, &machine);
        let folder = machine.folder.path().join("state");
        let file = scrub.file(&folder);
        let options = options(&folder);
        // The disk disappears, after a page in the middle or in the last chunk was found: its size is 0 then.
        for first in [8192, size - 8192] {
            let mut run = Run::begin(&scrub, &options).unwrap();
            run.state.done = size;
            run.unsaved = vec![first..first + PAGE, size - PAGE..size];
            File::create(machine.host.path("dev/pmem0")).unwrap();
            let error = run.finish(Ok(())).unwrap_err().to_string();
            assert_eq!(error, format!("reading at byte {first}: the disk has gone"));
            make_node(&scrub, &machine);
            let (state, why) = scrub.state(&file);
            assert_eq!((state.done, why), (first, None));
            assert_eq!(scrub.last(&folder), None);
        }
        let summary = scrub.run(&options).unwrap();
        assert_eq!(
            (summary.from, summary.complete, file.exists()),
            (size - 8192, true, false)
        );
    }

    #[test]
    fn pages_that_are_not_saved_yet_are_found_again_after_a_kill() {
        let (machine, scrub) = scrub();
        make_node(&scrub, &machine);
        let folder = machine.folder.path().join("state");
        let options = options(&folder);
        let mut run = Run::begin(&scrub, &options).unwrap();
        run.unsaved = once(8192..8192 + PAGE).collect();
        run.state.done = 1 << 20;
        run.announce(None).unwrap();
        assert_eq!(run.state.done, 1 << 20);
        let (saved, _) = scrub.state(&run.file);
        assert_eq!((saved.done, saved.found.is_empty()), (8192, true));
        assert_eq!(saved.reading.unwrap().bytes.start, 1 << 20);
    }

    #[test]
    fn good_blocks_of_a_bad_page_are_not_listed() {
        let (machine, mut scrub) = scrub();
        make_node(&scrub, &machine);
        let folder = machine.folder.path().join("state");
        let options = options(&folder);
        // Memory of this process: nothing is mapped in front of the program, and that is an EIO.
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let start = u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap();
        for (block_size, unreadable) in [(512, 2560), (1024, 2560), (4096, PAGE)] {
            scrub.block_size = block_size;
            let mut run = Run::begin(&scrub, &options).unwrap();
            run.disk = File::open("/proc/self/mem").unwrap();
            let first = match block_size {
                4096 => start - PAGE,
                _ => start - 2560,
            };
            run.unsaved = once(first..first + PAGE).collect();
            let bad = run.unlisted().unwrap();
            let first = first / SECTOR;
            let wanted: BadBlocks = once(first..first + unreadable / SECTOR).collect();
            assert_eq!(bad, wanted, "{block_size}");
        }
    }

    #[test]
    fn a_page_that_was_repaired_since_is_not_listed() {
        let (machine, scrub) = scrub();
        make_node(&scrub, &machine);
        let list = machine.host.path("sys/block/pmem0/badblocks");
        let before = fs::read(&list).unwrap();
        let folder = machine.folder.path().join("state");
        let options = options(&folder);
        let mut run = Run::begin(&scrub, &options).unwrap();
        run.state.done = scrub.size();
        run.unsaved = once(8192..8192 + PAGE).collect();
        assert!(run.finish(Ok(())).unwrap().complete);
        assert_eq!(fs::read(&list).unwrap(), before);
    }

    #[test]
    fn suspects_are_skipped_until_a_retry() {
        let (machine, scrub) = scrub();
        let file = scrub.file(&machine.folder.path().join("state"));
        fs::create_dir(file.parent().unwrap()).unwrap();
        let mut before = state(&scrub);
        before.reading = reading(1 << 20..4 << 20);
        before.found.clear();
        before.save(&file).unwrap();
        machine.write("proc/sys/kernel/random/boot_id", "boot-2");
        let suspected = [BadRange {
            offset: 1 << 20,
            length: 3 << 20,
        }];
        for from in [8192, 0] {
            let summary = run(&scrub, &machine, u64::MAX, false);
            assert!(summary.complete);
            assert_eq!(
                (summary.from, &summary.suspected[..]),
                (from, &suspected[..])
            );
        }
        let summary = run(&scrub, &machine, u64::MAX, true);
        assert!(summary.complete && summary.suspected.is_empty());
        assert!(!file.exists());
    }

    #[test]
    fn suspects_of_another_mode_or_size_are_skipped() {
        let (machine, scrub) = scrub();
        let folder = machine.folder.path().join("state");
        fs::create_dir(&folder).unwrap();
        let (covers, moved) = (scrub.covers.clone(), 1 << 20);
        let mut larger = state(&scrub);
        larger.covers.end += moved;
        larger.reading = reading(2 << 20..3 << 20);
        larger.save(&scrub.file(&folder)).unwrap();
        let mut behind = state(&scrub);
        behind.done = 0;
        behind.found.clear();
        behind.covers.start += moved;
        behind.suspected.push(4 << 20..5 << 20);
        let other = folder.join(format!("{}{:x}.json", scrub.prefix(), behind.covers.start));
        behind.save(&other).unwrap();
        machine.write("proc/sys/kernel/random/boot_id", "boot-2");
        let skipped = || run(&scrub, &machine, u64::MAX, false).suspected;
        let suspected =
            |ranges: &[Range<u64>]| ranges.iter().map(BadRange::from).collect::<Vec<_>>();
        assert_eq!(skipped(), suspected(&[2 << 20..3 << 20, 5 << 20..6 << 20]));
        assert_eq!(scrub.covers, covers);
        // Behind a smaller one.
        let aside = format!(
            "{}{:x}-{:x}.json",
            scrub.prefix(),
            covers.start,
            larger.covers.end
        );
        assert!(folder.join(aside).exists());
        // Read at last, in this mode.
        assert!(run(&scrub, &machine, u64::MAX, true).complete);
        assert_eq!(skipped(), []);
        assert!(other.exists());
    }

    /// Saves a state with suspected bytes; returns its file, and these.
    fn suspect(scrub: &Scrub, machine: &FakeSysfs) -> (PathBuf, Ranges) {
        let file = scrub.file(&machine.folder.path().join("state"));
        fs::create_dir(file.parent().unwrap()).unwrap();
        let mut before = state(scrub);
        before.suspected = vec![1 << 20..4 << 20, 6 << 20..8 << 20];
        before.save(&file).unwrap();
        (file, joined(&before.suspected))
    }

    #[test]
    fn retry_that_ends_early_keeps_the_other_suspects() {
        let (machine, scrub) = scrub();
        let (file, _) = suspect(&scrub, &machine);
        let summary = run(&scrub, &machine, 2 << 20, true);
        assert!(!summary.complete);
        let left = [(2 << 20) + 8192..4 << 20, 6 << 20..8 << 20];
        assert_eq!(scrub.state(&file).0.suspected, left);
        // The next one reads none of them.
        let summary = run(&scrub, &machine, u64::MAX, false);
        assert_eq!(summary.suspected, left.each_ref().map(BadRange::from));
    }

    #[test]
    fn retry_saves_the_suspects_before_the_read() {
        let (machine, scrub) = scrub();
        let (file, suspected) = suspect(&scrub, &machine);
        make_node(&scrub, &machine);
        let summary = scrub
            .run(&Options {
                folder: file.parent().unwrap(),
                rate: 1 << 40,
                anew: false,
                retry: true,
                stop: &|| false,
                progress: &|done, _| {
                    let unread = suspected.within(&(done..u64::MAX));
                    let saved = joined(&scrub.state(&file).0.suspected);
                    assert!(unread.without(&saved).is_empty());
                },
            })
            .unwrap();
        assert!(summary.complete && summary.suspected.is_empty());
        assert!(!file.exists());
    }

    #[test]
    fn announcement_is_written_before_the_read() {
        let (machine, scrub) = scrub();
        let file = scrub.file(&machine.folder.path().join("state"));
        make_node(&scrub, &machine);
        scrub
            .run(&Options {
                folder: file.parent().unwrap(),
                rate: 1 << 40,
                anew: false,
                retry: false,
                stop: &|| false,
                progress: &|done, _| {
                    let saved = scrub.state(&file).0;
                    assert!(saved.reading.unwrap().bytes.contains(&(done - 1)));
                },
            })
            .unwrap();
    }

    #[test]
    fn stopped_scrub_suspects_nothing() {
        let (machine, scrub) = scrub();
        let summary = run(&scrub, &machine, 2 << 20, false);
        assert!(!summary.complete);
        machine.write("proc/sys/kernel/random/boot_id", "boot-2");
        assert!(run(&scrub, &machine, u64::MAX, false).suspected.is_empty());
    }

    #[test]
    fn links_in_the_folder_are_not_followed() {
        let (machine, scrub) = scrub();
        let folder = machine.folder.path().join("state");
        let file = scrub.file(&folder);
        fs::create_dir(&folder).unwrap();
        let target = machine.folder.path().join("target");
        let link = |path: &Path| std::os::unix::fs::symlink(&target, path).unwrap();
        link(&file);
        state(&scrub).save(&file).unwrap();
        assert!(!target.exists() && file.symlink_metadata().unwrap().is_file());
        link(&file.with_extension("lock"));
        make_node(&scrub, &machine);
        let options = Options {
            folder: &folder,
            rate: 1 << 40,
            anew: false,
            retry: false,
            stop: &|| false,
            progress: &|_, _| {},
        };
        assert!(scrub.run(&options).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn known_pages_of_an_earlier_run_are_reported_at_the_end() {
        let (machine, scrub) = scrub();
        machine.lists("2048 8");
        let known = [BadRange {
            offset: 1 << 20,
            length: 4096,
        }];
        let summary = run(&scrub, &machine, 2 << 20, false);
        assert_eq!((summary.complete, &summary.known[..]), (false, &known[..]));
        let summary = run(&scrub, &machine, u64::MAX, false);
        assert!(summary.complete && summary.from > 1 << 20);
        assert_eq!(summary.known, known);
    }

    #[test]
    fn suspects_of_another_mode_are_skipped_where_this_one_was_stopped() {
        let (machine, scrub) = scrub();
        assert!(!run(&scrub, &machine, 2 << 20, false).complete);
        let mut other = state(&scrub);
        other.covers.start += PAGE;
        other.suspected.push(4 << 20..5 << 20);
        // Files differ in their times by more than a clock's tick.
        thread::sleep(Duration::from_millis(20));
        let file = machine.folder.path().join("state");
        let file = file.join(format!("{}{:x}.json", scrub.prefix(), other.covers.start));
        other.save(&file).unwrap();
        let suspected = run(&scrub, &machine, u64::MAX, false).suspected;
        let expected = BadRange {
            offset: (4 << 20) + PAGE,
            length: 1 << 20,
        };
        assert_eq!(suspected, [expected]);
    }

    #[test]
    fn data_offset_is_added() {
        let (_machine, scrub) = scrub();
        assert_eq!(scrub.covers, 3 << 20..34 << 20);
        assert_eq!(
            scrub.file(Path::new("/x")),
            Path::new("/x/scrub-e820-20000000+300000.json")
        );
        assert_eq!(scrub.platform_bus(), None);
    }

    #[test]
    fn position_of_other_memory_is_refused() {
        let (machine, scrub) = scrub();
        let folder = tempfile::tempdir().unwrap();
        let file = scrub.file(folder.path());
        assert_eq!(scrub.state(&file).0.done, 0);
        state(&scrub).save(&file).unwrap();
        assert_eq!(scrub.state(&file), (state(&scrub), None));

        machine.write("etc/machine-id", "ffff456789abcdef0123456789abcdef");
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let other = Scrub::of(&machine.host, &device).unwrap();
        let (begun, why) = other.state(&file);
        assert_eq!(begun.done, 0);
        assert!(why.unwrap().contains("e820 at 0x20000000"));
    }

    #[test]
    fn damaged_position_is_refused() {
        let (_machine, scrub) = scrub();
        let text = state(&scrub).to_text().unwrap();
        for length in 0..text.len() - 1 {
            assert!(
                State::from_text(&text.as_bytes()[..length]).is_err(),
                "{length}"
            );
        }
        for (old, new) in [
            ("8192", "4096"),
            ("\"e820\"", "\"e821\""),
            ("\"version\": 1", "\"version\": 2"),
        ] {
            let edited = text.replacen(old, new, 1);
            assert_ne!(edited, text);
            assert!(State::from_text(edited.as_bytes()).is_err(), "{old}");
        }
        for (done, found) in [
            (1 << 40, 0..4096),
            (100, 0..4096),
            (0, 4096..4096),
            (0, 0..1 << 40),
        ] {
            let wrong = State {
                done,
                found: vec![found],
                ..state(&scrub)
            };
            assert!(State::from_text(wrong.to_text().unwrap().as_bytes()).is_err());
        }
    }

    #[test]
    fn rate_limits_chunks() {
        assert_eq!(pace(200 << 20, 100 << 20), Duration::from_secs(2));
        assert_eq!(chunk(1 << 30), CHUNK);
        assert_eq!(chunk(1), PAGE);
        assert_eq!(chunk(1 << 20), 102_400);
        assert_eq!(window(1 << 40), WINDOW);
        assert_eq!(window(8 << 20), 8 << 20);
        assert_eq!(window(1), PAGE);
    }

    proptest! {
        #[test]
        fn each_page_is_read_or_skipped(start in 0_u64..64, pages in 1_u64..64, bad in prop::collection::vec((0_u64..1024, 1_u64..40), 0..8)) {
            let listed = BadBlocks::from_iter(bad.iter().map(|(start, length)| *start..start + length));
            let bytes = start * PAGE..(start + pages) * PAGE;
            let skipped = pages_of(&listed);
            let (unlisted, skipped) = (skipped.gaps(&bytes), skipped.within(&bytes));
            prop_assert!(unlisted.common(&skipped).is_empty());
            prop_assert_eq!(unlisted.and(&skipped), joined(&[bytes]));
            for (ranges, has) in [(&unlisted, false), (&skipped, true)] {
                for range in ranges.iter() {
                    for page in (range.start..range.end).step_by(PAGE as usize) {
                        let sectors = BadBlocks::from_iter(once(page / SECTOR..(page + PAGE) / SECTOR));
                        prop_assert_eq!(!listed.common(&sectors).is_empty(), has);
                    }
                }
            }
        }
    }
}
