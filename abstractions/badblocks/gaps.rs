// SPDX-License-Identifier: GPL-2.0

//! Lookups in a table: entries in a range of sectors, and the gaps between them.

#![forbid(unsafe_code)]

use super::BadblocksTable;
use core::ops::Range;

impl BadblocksTable {
    /// Returns the first bad sector of the `len` from `start` on.
    #[inline]
    pub(crate) fn first_bad(&self, start: u64, len: u64) -> Option<u64> {
        // An entry that overlaps the start of the range begins in front of it.
        self.entry_in(start, len).map(|(first, _)| first.max(start))
    }

    /// Advances the start of `sectors` behind the next entry, and returns the gap in front of that
    /// entry.
    pub(crate) fn split_gap(&self, sectors: &mut Range<u64>) -> Range<u64> {
        let start = sectors.start;
        let (end, next) = match self.entry_in(start, sectors.end.saturating_sub(start)) {
            Some((first, len)) => (first.max(start), first.saturating_add(len).min(sectors.end)),
            None => (sectors.end, sectors.end),
        };

        sectors.start = next;
        start..end
    }

    /// Returns the number of entries for a run of so many sectors.
    pub(crate) fn entries(sectors: u64) -> usize {
        usize::try_from(sectors.div_ceil(Self::LONGEST)).unwrap_or(usize::MAX)
    }

    /// Adds those of `sectors` that the table does not have, from the first one on, as long as the
    /// table has fewer than `room` entries. Returns the first one that is missing, or the end, and
    /// the number of writes to the table.
    pub(crate) fn set_while_room(&self, sectors: Range<u64>, room: usize) -> (u64, u32) {
        let mut rest = sectors;
        let mut writes = 0_u32;

        while !rest.is_empty() {
            let mut behind = rest.clone();
            let gap = self.split_gap(&mut behind);

            if gap.is_empty() {
                rest = behind;
                continue;
            }
            let len = gap.end.saturating_sub(gap.start).min(Self::LONGEST);

            if self.count() >= room {
                break;
            }
            writes = writes.wrapping_add(1);
            if self.set(gap.start, len).is_err() {
                break;
            }
            rest.start = gap.start.saturating_add(len);
        }
        (rest.start, writes)
    }
}
