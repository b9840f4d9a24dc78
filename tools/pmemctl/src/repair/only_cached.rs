// SPDX-License-Identifier: GPL-2.0

//! Writes what only the page cache has of the file. A bad page fails the writeback of all that is written with it, so that
//! memory that is not listed has older data, which an eviction would bring back. So would a write past the page cache: it
//! drops the folios that it overlaps (`kiocb_invalidate_pages`).

use crate::ranges::{Ranges, common, rounded_out};
use crate::repair::contents::pages_that_differ;
use crate::repair::job::Job;
use crate::repair::plan::CHUNK;
use crate::repair::target::part;
use crate::repair::{Outcome, RepairRange};
use abstractions::DirectBuffer;
use abstractions::page_cache::cached_pages;
use anyhow::{Context, Result};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
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
    /// Why these could not, by the start of each part.
    reasons: BTreeMap<u64, String>,
    /// Bad pages that are left to the repair of their range, or that nobody asked to repair.
    untried: Ranges,
}

impl OnlyCached {
    /// Returns whether all of a range was written.
    pub(super) fn has_written(&self, range: &Range<u64>) -> bool {
        self.written.gaps(range).is_empty()
    }

    /// Returns whether a write past the page cache of a range might lose other pages.
    pub(super) fn is_beside(&self, range: &Range<u64>) -> bool {
        let window = folios_around(range);
        [&self.failed, &self.untried].iter().any(|pages| {
            let mut others = pages.within(&window);
            others.remove(range);
            !others.is_empty()
        })
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
        let (_, why) = self.reasons.range(..=first).next_back()?;
        Some(format!(
            "only the page cache has the newest data of {} bytes of it, the first of them at {first} ({why}); copy the file",
            left.count()
        ))
    }

    fn add_failed(&mut self, pages: &Ranges, why: &str) {
        for range in pages.iter() {
            self.failed.insert(range.clone());
            self.reasons.insert(range.start, why.to_owned());
        }
    }
}

/// Rounds a range to whole pages of the file.
fn pages_around(range: &Range<u64>) -> Range<u64> {
    rounded_out(range, PAGE)
}

/// Returns the range in which a folio may overlap this one.
fn folios_around(range: &Range<u64>) -> Range<u64> {
    rounded_out(range, LARGEST_FOLIO)
}

/// Adds the pages of a range of a file that the page cache has.
fn find_cached(file: &File, range: &Range<u64>, found: &mut Ranges) -> io::Result<()> {
    let pages = (range.end - range.start) / PAGE;
    let cached = cached_pages(file, range)?;
    if cached >= pages {
        found.insert(range.clone());
    } else if cached > 0 {
        let middle = range.start + pages / 2 * PAGE;
        find_cached(file, &(range.start..middle), found)?;
        find_cached(file, &(middle..range.end), found)?;
    }
    Ok(())
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
        // Linux up to 7.3 crashes if cachestat(2) is asked about a DAX file.
        if self.target.dax {
            return Ok(found);
        }
        let planned = || {
            pieces
                .iter()
                .filter(|piece| piece.result == Outcome::Planned)
        };
        let others = listed.without(&planned().map(RepairRange::range).collect());
        let mut untried: Ranges = others.iter().map(pages_around).collect();
        let later = planned().filter(|piece| !self.target.is_written_by_page(piece));
        untried.extend(later.map(|piece| pages_around(&piece.range())));

        let file = &self.target.file;
        let all = 0..self.target.size().next_multiple_of(PAGE);
        let mut cached = Ranges::default();
        let known = find_cached(file, &all, &mut cached);
        if known
            .as_ref()
            .is_err_and(|error| Errno::from_io_error(error) == Some(Errno::NOSYS))
        {
            // Before Linux 6.5. A read of all the file would evict what it looks for.
            cached = planned()
                .filter_map(|piece| common(&folios_around(&piece.range()), &all))
                .collect();
        } else {
            known.with_context(|| format!("{}: what the page cache has", self.target.name()))?;
        }
        for range in cached.iter() {
            for start in (range.start..range.end).step_by(CHUNK as usize) {
                let chunk = start..range.end.min(start + CHUNK);
                for left in untried.within(&chunk).iter() {
                    // The page cache also has pages that could not be read.
                    let mut bytes = DirectBuffer::new((left.end - left.start) as usize);
                    let missing = self.read_page_cache(left, &mut bytes)?;
                    found.untried.extend(missing.gaps(left).iter().cloned());
                }
                for tried in untried.gaps(&chunk).iter() {
                    self.write_only_cached_of(tried, may_write, &mut found)?;
                }
            }
        }
        found.untried.remove(&(self.target.size()..u64::MAX));
        Ok(found)
    }

    fn write_only_cached_of(
        &self,
        range: &Range<u64>,
        may_write: bool,
        found: &mut OnlyCached,
    ) -> Result<()> {
        let target = &self.target;
        target.ensure_alone()?;
        // It is read once: a page whose writeback has failed is clean, and may be evicted.
        let mut cache = DirectBuffer::new((range.end - range.start) as usize);
        let missing = self.read_page_cache(range, &mut cache)?;
        let data = range.start..target.size().clamp(range.start, range.end);
        let newer = self.not_in_memory(&data, range.start, &mut cache)?;
        let newer = newer.without(&missing);
        if !may_write {
            found.add_failed(&newer, "a write would make snapshots invalid");
            return Ok(());
        }
        if newer.is_empty() {
            return Ok(());
        }
        target.ensure_alone()?;
        let _ = target.write_buffered(&newer, range.start, &mut cache);
        let left = self.not_in_memory(&data, range.start, &mut cache)?;
        let left = left.common(&newer);
        found.written.extend(newer.without(&left).iter().cloned());
        // One that can't be written has failed those that were written with it.
        for start in left
            .iter()
            .flat_map(|pages| pages.clone().step_by(PAGE as usize))
        {
            let page = left.within(&(start..start + PAGE));
            target.ensure_alone()?;
            let written = target.write_buffered(&page, range.start, &mut cache);
            let bytes = start..data.end.min(start + PAGE);
            match written {
                Err(error) => found.add_failed(&page, &error.to_string()),
                Ok(())
                    if self
                        .not_in_memory(&bytes, range.start, &mut cache)?
                        .is_empty() =>
                {
                    found.written.extend(page.iter().cloned());
                }
                // ext4 does not convert an unwritten extent for pages that it has written, in vain, before.
                Ok(()) => found.add_failed(&page, "the memory has something else after a write"),
            }
        }
        Ok(())
    }

    /// Returns the pages of a range whose bytes in the buffer, which begins at `from` of the file, are not in memory.
    fn not_in_memory(
        &self,
        range: &Range<u64>,
        from: u64,
        buffer: &mut DirectBuffer,
    ) -> Result<Ranges> {
        let whole = pages_around(range);
        let mut memory = DirectBuffer::new((whole.end - whole.start) as usize);
        let lost = self.read_memory(&whole, &mut memory)?;
        let there = part(&mut memory, whole.start, range);
        let mut differ = pages_that_differ(range.start, part(buffer, from, range), there);
        differ.extend(lost.within(range).iter().cloned());
        Ok(differ)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::listed::ListedRange;

    #[test]
    fn pages_in_the_same_largest_folio_are_beside_a_range() {
        let page = |at: u64| at * PAGE..(at + 1) * PAGE;
        let pages = |at: &[u64]| at.iter().map(|at| page(*at)).collect::<Ranges>();
        let in_next = LARGEST_FOLIO / PAGE;
        let mut found = OnlyCached {
            untried: pages(&[4]),
            ..OnlyCached::default()
        };
        found.add_failed(&pages(&[10, 11]), "reason");
        for (at, beside) in [(3, true), (in_next - 1, true), (in_next, false)] {
            assert_eq!(found.is_beside(&page(at)), beside, "{at}");
        }
        found.repaired(&page(10));
        found.repaired(&page(11));
        assert!(found.is_beside(&page(3)));
        assert!(!found.is_beside(&page(4)), "it is the range itself");
        found.repaired(&page(4));
        assert!(!found.is_beside(&page(3)));
    }

    #[test]
    fn what_is_left_is_not_in_a_range_with_its_own_result() {
        let own = ListedRange {
            disk: "pmem0".into(),
            disk_offset: 0,
            file_offset: 0,
            length: PAGE,
            physical: 0,
        };
        let mut found = OnlyCached::default();
        assert!(found.left(&[]).is_none());
        found.add_failed(&Ranges::from_iter(Some(0..2 * PAGE)), "reason");
        found.add_failed(&Ranges::from_iter(Some(4 * PAGE..5 * PAGE)), "other reason");
        let left = found.left(&[RepairRange::kept(&own, 5 * PAGE)]).unwrap();
        assert!(
            left.contains(" 8192 bytes ") && left.contains(" at 4096 (reason)"),
            "{left}"
        );
        found.repaired(&(0..4 * PAGE));
        let left = found.left(&[]).unwrap();
        assert!(left.contains(" at 16384 (other reason)"), "{left}");
        found.repaired(&(0..5 * PAGE));
        assert!(found.left(&[]).is_none());
    }
}
