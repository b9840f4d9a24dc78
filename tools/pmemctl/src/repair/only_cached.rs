// SPDX-License-Identifier: GPL-2.0

//! Writes what only the page cache has of the file. A bad page fails the writeback of all that is written with it, so that memory that
//! is not listed has older data, which an eviction would bring back. So would a write past the page cache: it drops the folios that it
//! overlaps (`kiocb_invalidate_pages`).

use crate::ranges::Ranges;
use crate::repair::contents::pages_that_differ;
use crate::repair::job::Job;
use crate::repair::plan::CHUNK;
use crate::repair::target::part;
use crate::repair::{Outcome, RepairRange};
use abstractions::DirectBuffer;
use abstractions::page_cache::cached_pages;
use anyhow::{Context, Result};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use units::PAGE;

/// No folio is larger: `MAX_XAS_ORDER` pages of 4 KiB.
const LARGEST_FOLIO: u64 = 8 << 20;

/// Pages of the file that the page cache has, and the memory had not.
#[derive(Default)]
pub(super) struct OnlyCached {
    /// The memory has them now.
    written: Ranges,
    /// They could not be written.
    failed: Ranges,
    /// Why the first of these could not.
    why: String,
    /// Bad pages that are left to the repair of their range, or that nobody asked to repair.
    untried: Ranges,
}

impl OnlyCached {
    /// Returns whether all of a range was written.
    pub(super) fn has_written(&self, range: &Range<u64>) -> bool {
        self.written.gaps(range).is_empty()
    }

    /// Returns why a write past the page cache of a range would lose other pages, if it would.
    pub(super) fn beside(&self, range: &Range<u64>) -> Option<&str> {
        let start = range.start / LARGEST_FOLIO * LARGEST_FOLIO;
        let window = start..range.end.next_multiple_of(LARGEST_FOLIO);
        let has_others = |pages: &Ranges| {
            let mut others = pages.within(&window);
            others.remove(range);
            !others.is_empty()
        };
        if has_others(&self.failed) {
            return Some(&self.why);
        }
        has_others(&self.untried).then_some("they are bad as well")
    }

    /// Notes that a range was repaired.
    pub(super) fn repaired(&mut self, range: &Range<u64>) {
        self.failed.remove(range);
        self.untried.remove(range);
    }

    /// Returns what could not be written, other than of the given ranges.
    pub(super) fn left(&self, pieces: &[RepairRange]) -> Option<String> {
        let own: Ranges = pieces.iter().map(RepairRange::range).collect();
        let left = self.failed.without(&own);
        let first = left.iter().next()?.start;
        Some(format!(
            "only the page cache has the newest data of {} bytes of it, the first of them at {first} ({}); copy the file",
            left.count(),
            self.why
        ))
    }

    fn failed(&mut self, pages: &Ranges, why: impl FnOnce() -> String) {
        if !pages.is_empty() && self.failed.is_empty() {
            self.why = why();
        }
        self.failed.extend(pages.iter().cloned());
    }
}

/// Rounds a range to whole pages of the file.
fn pages_of(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE)
}

impl Job {
    /// Writes what only the page cache has, unless it is of a range that has to be written in another way, of a `listed` range that is not
    /// to be repaired, or may not be written because of snapshots.
    pub(super) fn write_only_cached(
        &self,
        pieces: &[RepairRange],
        listed: &Ranges,
        may_write: bool,
    ) -> Result<OnlyCached> {
        let mut found = OnlyCached::default();
        if self.target.dax {
            return Ok(found);
        }
        // It can be read, and the memory has what the page cache has.
        let of = |result| pieces.iter().filter(move |piece| piece.result == result);
        let settled: Ranges = of(Outcome::Failed)
            .map(|piece| pages_of(&piece.range()))
            .collect();
        let planned: Ranges = of(Outcome::Planned).map(RepairRange::range).collect();
        let others = listed.without(&planned);
        let mut untried: Ranges = others.iter().map(pages_of).collect();
        let later = of(Outcome::Planned).filter(|piece| !piece.is_written_by_page());
        untried.extend(later.map(|piece| pages_of(&piece.range())));

        let mut cached = Ranges::default();
        let all = 0..self.target.size().next_multiple_of(PAGE);
        self.find_cached(&all, &mut cached)
            .with_context(|| format!("{}: what the page cache has", self.target.name()))?;
        for range in cached.iter() {
            for start in (range.start..range.end).step_by(CHUNK as usize) {
                let chunk = start..range.end.min(start + CHUNK);
                for part in settled.gaps(&chunk).iter() {
                    found.untried.extend(untried.within(part).iter().cloned());
                    for part in untried.gaps(part).iter() {
                        self.write_cached_part(part, may_write, &mut found)?;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Adds the pages of a range that the page cache has: all before Linux 6.5, which does not tell.
    fn find_cached(&self, range: &Range<u64>, found: &mut Ranges) -> Result<()> {
        let pages = (range.end - range.start) / PAGE;
        let cached = match cached_pages(&self.target.file, range) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSYS) => pages,
            cached => cached?,
        };
        if cached == pages {
            found.insert(range.clone());
        } else if cached > 0 {
            let middle = range.start + pages / 2 * PAGE;
            self.find_cached(&(range.start..middle), found)?;
            self.find_cached(&(middle..range.end), found)?;
        }
        Ok(())
    }

    fn write_cached_part(
        &self,
        range: &Range<u64>,
        may_write: bool,
        found: &mut OnlyCached,
    ) -> Result<()> {
        let mut cache = DirectBuffer::new((range.end - range.start) as usize);
        let newer = self.newer(range, &mut cache)?;
        if newer.is_empty() {
            return Ok(());
        }
        if !may_write {
            found.failed(&newer, || "a write would make snapshots invalid".to_owned());
            return Ok(());
        }
        let all = self.write_pages(&newer, range.start, &mut cache)?;
        let mut left = self.newer(range, &mut cache)?;
        let mut why = all.err();
        if why.is_some() {
            // One that can't be written fails those that are written with it.
            for page in left.clone().iter().flat_map(|pages| pages.clone().step_by(PAGE as usize)) {
                let page = left.within(&(page..page + PAGE));
                why = self.write_pages(&page, range.start, &mut cache)?.err().or(why);
            }
            left = self.newer(range, &mut cache)?;
        }
        found.written.extend(newer.without(&left).iter().cloned());
        // ext4 does not convert an unwritten extent for pages that it has written, in vain, before.
        let reason = || why.map_or("it reads back as something else".to_owned(), |error| error.to_string());
        found.failed(&left, reason);
        Ok(())
    }

    /// Writes pages of a buffer, which begins at `from` of the file, unless others may have the file open.
    fn write_pages(
        &self,
        pages: &Ranges,
        from: u64,
        cache: &mut DirectBuffer,
    ) -> Result<io::Result<()>> {
        self.target.ensure_alone()?;
        Ok(self.target.write_buffered(pages, from, cache))
    }

    /// Reads the page cache of a range; returns the pages that it has, and the memory has not.
    fn newer(&self, range: &Range<u64>, cache: &mut DirectBuffer) -> Result<Ranges> {
        let missing = self.read_page_cache(range, cache)?;
        let mut memory = DirectBuffer::new((range.end - range.start) as usize);
        let lost = self.read_memory(range, &mut memory)?;
        let data = range.start..self.target.size().clamp(range.start, range.end);
        let of_data = |buffer| &*part(buffer, range.start, &data);
        let mut differ = pages_that_differ(data.start, of_data(cache), of_data(&mut memory));
        differ.extend(lost.within(&data).iter().cloned());
        Ok(differ.without(&missing))
    }
}
