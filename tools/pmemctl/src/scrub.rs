// SPDX-License-Identifier: GPL-2.0

//! Reads a whole disk to find errors before an application does.
//!
//! Each page that is not listed is read past the page cache, through the driver's machine-check-safe copy. A page
//! that cannot be read is added to the list if the driver has not done so. The position is saved in a file for the
//! memory of the disk.

use crate::badblocks::kernel::{KernelList, ListLookup};
use crate::badblocks::origin::SECTOR;
use crate::badblocks::set::BadBlocks;
use crate::nd::region::{Memory, Region};
use crate::nd::{Device, Kind};
use crate::sysfs::{self, printable};
use abstractions::DirectBuffer;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::iter::once;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use units::PAGE;

/// The version of the form of the file.
const VERSION: u32 = 1;
/// The largest read.
const CHUNK: u64 = 1 << 20;
/// How often the position is saved.
const SAVED_EVERY: Duration = Duration::from_secs(2);
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
            serde_json::from_slice(text).context("it makes no sense")?;
        if state.version != VERSION {
            bail!("it is of version {}", state.version);
        }
        if checksum != state.checksum()? {
            bail!("it was changed since it was written");
        }
        let size = state.covers.end.saturating_sub(state.covers.start);
        let sound = state.done <= size
            && state.done % PAGE == 0
            && state
                .found
                .iter()
                .all(|bad| bad.start < bad.end && bad.end <= size);
        if !sound {
            bail!("it has numbers that no such disk can have");
        }
        Ok(state)
    }

    /// Writes it: after a crash at any time the file is the old one or the new one.
    fn save(&self, path: &Path) -> Result<()> {
        let folder = path.parent().context("it has no folder")?;
        // One scrub runs at a time, so a fixed name suffices and a crash leaves at most one file.
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(self.to_text()?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()?;
        Ok(())
    }
}

/// A range of bad bytes of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRange {
    pub offset: u64,
    pub length: u64,
}

impl From<&Range<u64>> for BadRange {
    fn from(range: &Range<u64>) -> Self {
        Self {
            offset: range.start,
            length: range.end - range.start,
        }
    }
}

#[derive(Debug, Serialize)]
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
    /// Errors after `from` that were listed before, and were not read.
    pub known: Vec<BadRange>,
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
    /// Begin at the beginning, whatever is saved.
    pub anew: bool,
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

    fn file(&self, folder: &Path) -> PathBuf {
        let name = self.memory.file_name();
        let name = name.strip_suffix(".json").unwrap_or(&name);
        folder.join(format!("scrub-{name}+{:x}.json", self.covers.start))
    }

    /// Reads the saved position; also returns why it cannot be used.
    fn state(&self, file: &Path) -> (State, Option<String>) {
        let begin = State {
            version: VERSION,
            memory: self.memory.clone(),
            covers: self.covers.clone(),
            done: 0,
            found: Vec::new(),
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

    /// Reads the disk from where it was left.
    pub fn run(&self, wanted: &Options<'_>) -> Result<Summary> {
        let folder = wanted.folder;
        fs::create_dir_all(folder).with_context(|| printable(folder))?;
        let file = self.file(folder);
        let lock = File::create(file.with_extension("lock")).with_context(|| printable(folder))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => bail!("{}: another scrub is running", self.disk()),
            locked => locked.with_context(|| printable(folder))?,
        }
        let (mut state, anew) = self.state(&file);
        if wanted.anew {
            state.done = 0;
            state.found.clear();
        }
        let node = self.list.disk.node(&self.list.disk.whole);
        let disk = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&node)
            .with_context(|| printable(&node))?;
        let (from, begun) = (state.done, Instant::now());
        let mut known = Vec::new();
        let mut saved = begun;
        let mut buffer = DirectBuffer::new(CHUNK as usize);
        let result = loop {
            let end = self.size().min(state.done + chunk(wanted.rate));
            if state.done >= self.size() || (wanted.stop)() {
                break Ok(());
            }
            match self.step(&disk, buffer.bytes(), state.done..end, &mut known) {
                Ok(found) => state.found.extend(found),
                Err(error) => break Err(error),
            }
            state.done = end;
            let bad: u64 = state.found.iter().map(|bad| bad.end - bad.start).sum();
            (wanted.progress)(state.done, bad);
            if saved.elapsed() > SAVED_EVERY {
                state.save(&file).with_context(|| printable(&file))?;
                saved = Instant::now();
            }
            let due = pace(end - from, wanted.rate);
            while begun.elapsed() < due && !(wanted.stop)() {
                thread::sleep(NAP.min(due.saturating_sub(begun.elapsed())));
            }
        };
        let complete = state.done >= self.size();
        if complete {
            match fs::remove_file(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.with_context(|| printable(&file))?,
            }
        } else {
            state.save(&file).with_context(|| printable(&file))?;
        }
        result?;
        Ok(Summary {
            disk: self.disk().to_owned(),
            size: self.size(),
            from,
            done: state.done,
            complete,
            found: joined(&state.found).iter().map(BadRange::from).collect(),
            known: joined(&known).iter().map(BadRange::from).collect(),
            seconds: begun.elapsed().as_secs_f64(),
            anew,
        })
    }

    /// Reads the unlisted pages of a range; lists and returns those that cannot be read.
    fn step(
        &self,
        disk: &File,
        buffer: &mut [u8],
        bytes: Range<u64>,
        known: &mut Vec<Range<u64>>,
    ) -> Result<Vec<Range<u64>>> {
        let listed = self.list.disk.bad()?;
        let (unlisted, skipped) = split(&bytes, &listed);
        known.extend(skipped);
        let mut found = Vec::new();
        for range in unlisted {
            if read(
                disk,
                &mut buffer[..(range.end - range.start) as usize],
                range.start,
            )? {
                continue;
            }
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + PAGE);
                if !read(disk, &mut buffer[..(end - at) as usize], at)? {
                    self.record(at..end)?;
                    found.push(at..end);
                }
                at = end;
            }
        }
        Ok(found)
    }

    /// Adds an unreadable range to the list, unless the driver has done so.
    fn record(&self, bytes: Range<u64>) -> Result<()> {
        if !self.list.disk.is_there() {
            bail!("{}: the disk has gone", self.disk());
        }
        let bad = BadBlocks::from_iter(once(bytes.start / SECTOR..bytes.end.div_ceil(SECTOR)));
        if bad.without(&self.list.disk.bad()?).is_empty() {
            return Ok(());
        }
        // The list counts from the start of the region, the disk from the start of its data.
        self.list
            .add(&bad.moved_up(self.covers.start / SECTOR), ORIGIN)
            .with_context(|| {
                format!(
                    "{}: byte {} cannot be added to the list",
                    self.disk(),
                    bytes.start
                )
            })
    }
}

/// Returns whether a range can be read; fails for errors other than `EIO`.
fn read(disk: &File, buffer: &mut [u8], offset: u64) -> Result<bool> {
    match disk.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            // A disk that disappeared fails like this, too.
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("reading at byte {offset}")),
    }
}

/// Returns the size of a read for about ten reads per second.
fn chunk(rate: u64) -> u64 {
    (rate / 10).clamp(PAGE, CHUNK) / PAGE * PAGE
}

/// Returns the time for `bytes` at this rate.
fn pace(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

/// Splits `bytes` into pages without and with listed sectors.
fn split(bytes: &Range<u64>, listed: &BadBlocks) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
    let mut unlisted = Vec::new();
    let mut skipped = Vec::new();
    let mut at = bytes.start;
    for range in listed.ranges() {
        let first = (range.start * SECTOR / PAGE * PAGE).max(at);
        let last = (range.end * SECTOR).next_multiple_of(PAGE).min(bytes.end);
        if last <= at || first >= bytes.end {
            continue;
        }
        if first > at {
            unlisted.push(at..first);
        }
        skipped.push(first..last);
        at = last;
    }
    if at < bytes.end {
        unlisted.push(at..bytes.end);
    }
    (unlisted, skipped)
}

/// Merges adjacent ranges.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range.clone()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use proptest::prelude::*;

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
        }
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
    }

    proptest! {
        #[test]
        fn each_page_is_read_or_skipped(start in 0_u64..64, pages in 1_u64..64, bad in prop::collection::vec((0_u64..1024, 1_u64..40), 0..8)) {
            let listed = BadBlocks::from_iter(bad.iter().map(|(start, length)| *start..start + length));
            let bytes = start * PAGE..(start + pages) * PAGE;
            let (unlisted, skipped) = split(&bytes, &listed);
            let mut all: Vec<_> = unlisted.iter().chain(&skipped).cloned().collect();
            all.sort_by_key(|range| range.start);
            prop_assert_eq!(joined(&all), [bytes]);
            for (ranges, has) in [(&unlisted, false), (&skipped, true)] {
                for range in ranges {
                    for page in (range.start..range.end).step_by(PAGE as usize) {
                        let sectors = BadBlocks::from_iter(once(page / SECTOR..(page + PAGE) / SECTOR));
                        prop_assert_eq!(!listed.common(&sectors).is_empty(), has);
                    }
                }
            }
        }
    }
}
