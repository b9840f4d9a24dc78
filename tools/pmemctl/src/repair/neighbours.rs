// SPDX-License-Identifier: GPL-2.0

//! Writes what only the page cache has around a range. A bad page fails the writeback of all pages that are written with it, so that
//! memory that is not listed has older data. A write past the page cache drops the folios that it overlaps
//! (`kiocb_invalidate_pages`), with what they have of other pages.

use crate::ranges::Ranges;
use crate::repair::contents::pages_that_differ;
use crate::repair::job::Job;
use crate::repair::plan::CHUNK;
use crate::repair::target::part;
use abstractions::DirectBuffer;
use anyhow::Result;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use units::PAGE;

/// Bytes of the largest folio of a file (`EXT4_MAX_PAGECACHE_ORDER`).
const LARGEST_FOLIO: u64 = 8 << 20;

/// Parts of a file, of the size and alignment of the largest folio, whose page cache was compared with the memory.
pub(super) struct Windows {
    /// By their number. The reason is there if the page cache still has data that the memory lacks.
    known: BTreeMap<u64, Option<String>>,
    /// Ranges of the file that are not written.
    excluded: Ranges,
}

impl Windows {
    pub(super) fn without(excluded: Ranges) -> Self {
        Self {
            known: BTreeMap::new(),
            excluded,
        }
    }

    fn numbers(range: &Range<u64>) -> RangeInclusive<u64> {
        range.start / LARGEST_FOLIO..=(range.end - 1) / LARGEST_FOLIO
    }

    /// Notes that the page cache has a range that the memory lacks.
    pub(super) fn keep(&mut self, range: &Range<u64>, why: &str) {
        for number in Self::numbers(range) {
            self.known.insert(number, Some(why.to_owned()));
        }
    }
}

impl Job {
    /// Writes what only the page cache has of the windows of a range, but for the range; each window once. Returns why it could not.
    pub(super) fn write_neighbours(
        &self,
        range: &Range<u64>,
        windows: &mut Windows,
    ) -> Result<Option<String>> {
        if self.target.dax {
            return Ok(None);
        }
        for number in Windows::numbers(range) {
            let why = match windows.known.get(&number) {
                Some(why) => why.clone(),
                None => {
                    let start = number * LARGEST_FOLIO;
                    let end = self.target.size().next_multiple_of(PAGE);
                    let window = start..end.clamp(start, start + LARGEST_FOLIO);
                    let own: Ranges = [range.clone()].into_iter().collect();
                    let neighbours = own.gaps(&window).without(&windows.excluded);
                    let why = self.write_only_cached(&neighbours)?;
                    windows.known.insert(number, why.clone());
                    why
                }
            };
            if why.is_some() {
                return Ok(why);
            }
        }
        Ok(None)
    }

    /// Writes what only the page cache has of some ranges. Returns why a part of it could not be written.
    fn write_only_cached(&self, ranges: &Ranges) -> Result<Option<String>> {
        let mut why = None;
        for range in ranges.iter() {
            for start in (range.start..range.end).step_by(CHUNK as usize) {
                let chunk = start..range.end.min(start + CHUNK);
                let mut cache = DirectBuffer::new((chunk.end - chunk.start) as usize);
                let newer = self.only_cached(&chunk, &mut cache)?;
                for pages in newer.iter() {
                    let bytes = part(&mut cache, chunk.start, pages);
                    if let Err(error) = self.target.write_cached(bytes, pages.start) {
                        why.get_or_insert(format!("{error:#}"));
                    }
                }
                // ext4 does not convert an unwritten extent for pages that it has written, in vain, before.
                if !newer.is_empty() && !self.only_cached(&chunk, &mut cache)?.is_empty() {
                    why.get_or_insert_with(|| "their extent is unwritten".to_owned());
                }
            }
        }
        Ok(why)
    }

    /// Reads the page cache of a range; returns the pages that it has, and the memory has not.
    fn only_cached(&self, range: &Range<u64>, cache: &mut DirectBuffer) -> Result<Ranges> {
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
