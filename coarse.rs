// SPDX-License-Identifier: GPL-2.0

//! The kernel's list of bad blocks, made to take any number of errors.

#![forbid(unsafe_code)]

use crate::{
    abstractions::badblocks::BadBlocks,
    units::{
        Sectors,
        SECTOR_SHIFT, //
    }, //
};
use kernel::page::PAGE_SIZE;

/// How errors are on a list; of several, the greatest tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    /// As they are.
    Exact,
    /// With good blocks between them, for want of room.
    Coarser,
    /// Not all of them are.
    Not,
}

/// A list that takes many errors: when it has no more room, what is between neighbours is listed with
/// them.
pub(crate) struct Coarse<'a> {
    list: &'a BadBlocks,
    size: u64,
}

impl<'a> Coarse<'a> {
    /// `list` is that of `size` sectors.
    pub(crate) fn new(list: &'a BadBlocks, size: u64) -> Self {
        Self { list, size }
    }

    /// Adds `sectors`.
    pub(crate) fn add(&self, sectors: &Sectors) -> Fit {
        let end = sectors.start.saturating_add(sectors.len);
        let mut at = sectors.start;
        let mut fit = Fit::Exact;

        // As long as an entry can be, so that there is room for each.
        while at < end {
            let len = end.wrapping_sub(at).min(BadBlocks::LONGEST);

            if self.is_full() {
                fit = Fit::Coarser;
                self.make_room();
            }
            if self.is_full() || self.list.set(at, len).is_err() {
                return Fit::Not;
            }
            at = at.saturating_add(len);
        }
        fit
    }

    /// Whether there is no room for another entry.
    pub(crate) fn is_full(&self) -> bool {
        !self.has_room_for(1)
    }

    /// Whether there is room for so many.
    pub(crate) fn has_room_for(&self, entries: usize) -> bool {
        self.list.count().saturating_add(entries) <= self.room()
    }

    /// How many entries the list may have: what it holds, and no more than a page of text, since the
    /// kernel warns of a longer one when `badblocks` is read.
    fn room(&self) -> usize {
        let mut sectors = self.size;
        // "START LENGTH\n", the length being 512 at most.
        let mut line = "0 512\n".len();

        while sectors >= 10 {
            sectors /= 10;
            line = line.saturating_add(1);
        }
        (PAGE_SIZE / line)
            .min(BadBlocks::CAPACITY)
            .saturating_sub(2)
    }

    /// Takes off what is listed for being near `healed`, in the largest blocks that are listed together:
    /// all of a block that `has_errors` denies to have some.
    pub(crate) fn clear_gaps(&self, healed: &Sectors, has_errors: &dyn Fn(&Sectors) -> bool) {
        let end = healed.start.saturating_add(healed.len);
        let mut block = Sectors {
            start: healed.start & !(BadBlocks::LONGEST - 1),
            len: BadBlocks::LONGEST,
        };

        while block.start < end {
            if !has_errors(&block) {
                self.list.clear(block.start, block.len);
            }
            block.start = block.start.saturating_add(block.len);
        }
    }

    /// Makes one entry of what is in the same page, or, where that does not make enough room, in
    /// the same 8 KiB, 16 KiB… 256 KiB, which is the longest that an entry can be.
    fn make_room(&self) {
        let mut unit = (PAGE_SIZE >> SECTOR_SHIFT) as u64;

        while unit <= BadBlocks::LONGEST && self.list.count() > self.room() / 4 * 3 {
            let mut index = 0_usize;

            while let Some((start, len)) = self.list.entry(index) {
                let block = start & !unit.wrapping_sub(1);
                let end = block.saturating_add(unit).min(self.size);

                match self.list.entry(index.saturating_add(1)) {
                    Some((next, _)) if next < end && start.saturating_add(len) < end => {
                        let len = end.saturating_sub(block);

                        self.list.clear(block, len);
                        let _ = self.list.set(block, len);
                    }
                    _ => index = index.saturating_add(1),
                }
            }
            unit = unit.saturating_mul(2);
        }
    }
}
