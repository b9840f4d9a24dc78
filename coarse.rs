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
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// A list that takes any number of errors: when it has no more room, what is between neighbours is
/// listed with them, so that no error is left out.
pub(crate) struct Coarse<'a> {
    list: &'a BadBlocks,
    size: u64,
}

impl<'a> Coarse<'a> {
    /// `list` is that of `size` sectors.
    pub(crate) fn new(list: &'a BadBlocks, size: u64) -> Self {
        Self { list, size }
    }

    /// Adds `sectors`; returns whether good ones had to be listed for it.
    pub(crate) fn add(&self, sectors: &Sectors) -> bool {
        let end = sectors.start.saturating_add(sectors.len);
        let mut at = sectors.start;
        let mut coarser = false;

        // As long as an entry can be, so that there is room for each.
        while at < end {
            let len = end.wrapping_sub(at).min(BadBlocks::LONGEST);

            if self.is_full() {
                coarser = true;
                self.make_room();
            }
            if self.list.set(at, len).is_err() {
                pr_warn!("the list of errors is full: sector {at} is not on it\n");
            }
            at = at.saturating_add(len);
        }
        coarser
    }

    /// Whether there is no room for another entry.
    pub(crate) fn is_full(&self) -> bool {
        self.list.count() >= self.room()
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
