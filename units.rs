// SPDX-License-Identifier: GPL-2.0

//! Sectors, pages and bytes of the data area, and the checked conversions between them.
//!
//! It needs nothing of the kernel but the size of a page, so that its tests run on the host.

#![forbid(unsafe_code)]

use crate::PAGE_SHIFT;
use core::ops::{
    Range,
    RangeInclusive, //
};

/// A sector has `1 << SECTOR_SHIFT` bytes, for every logical block size of the disk.
pub(crate) const SECTOR_SHIFT: u32 = 9;

/// Returns the sectors of 512 bytes that the `addresses` touch, in an area that begins at the
/// address `base`.
pub(crate) fn sectors_of(addresses: &Range<u64>, base: u64) -> Range<u64> {
    let start = addresses.start.saturating_sub(base) >> SECTOR_SHIFT;
    let last = addresses.end.saturating_sub(base).saturating_sub(1) >> SECTOR_SHIFT;

    match addresses.is_empty() {
        true => start..start,
        // No overflow: fewer sectors than addresses.
        false => start..last.wrapping_add(1),
    }
}

/// Converts an inclusive range to a half-open one.
pub(crate) fn half_open(range: &RangeInclusive<u64>) -> Range<u64> {
    *range.start()..range.end().saturating_add(1)
}

/// Returns the part that `a` and `b` have in common, unless it is empty.
pub(crate) fn intersection(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let common = a.start.max(b.start)..a.end.min(b.end);

    (!common.is_empty()).then_some(common)
}

/// A range of the data area: its offset and its length, in bytes.
///
/// # Invariants
///
/// `offset + len` does not overflow, and is at most the size that the constructor has checked it
/// against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    offset: usize,
    len: usize,
}

impl Span {
    /// Returns the `len` bytes from `sector` on. `None` if they are not inside of a data area of
    /// `size` bytes.
    #[inline]
    pub(crate) fn of_sectors(sector: u64, len: u32, size: usize) -> Option<Self> {
        let offset = usize::try_from(sector)
            .ok()?
            .checked_mul(1 << SECTOR_SHIFT)?;

        Self::of_bytes(offset, len as usize, size)
    }

    /// Returns the `pages` pages from page `first` on. `None` if they are not inside of a data area
    /// of `size` bytes.
    pub(crate) fn of_pages(first: u64, pages: u64, size: usize) -> Option<Self> {
        let offset = usize::try_from(first).ok()?.checked_mul(1 << PAGE_SHIFT)?;
        let len = usize::try_from(pages).ok()?.checked_mul(1 << PAGE_SHIFT)?;

        Self::of_bytes(offset, len, size)
    }

    /// Returns the `len` bytes from `offset` on. `None` if they are not inside of a data area of
    /// `size` bytes.
    #[inline]
    pub(crate) fn of_bytes(offset: usize, len: usize, size: usize) -> Option<Self> {
        // INVARIANT: `len <= size - offset`, and so `offset + len <= size`.
        (len <= size.checked_sub(offset)?).then_some(Self { offset, len })
    }

    /// The offset of the first byte, in bytes.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// The number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The offset after the last byte, in bytes.
    fn end(&self) -> usize {
        // No overflow: type invariant.
        self.offset.wrapping_add(self.len)
    }

    /// Splits off the first `len` bytes, or all if there are fewer.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Self {
        let len = len.min(self.len);
        let head = Self {
            offset: self.offset,
            len,
        };

        // INVARIANT: Both parts are inside of `self`, because `len <= self.len`.
        self.offset = self.offset.wrapping_add(len);
        self.len = self.len.wrapping_sub(len);
        head
    }

    /// Returns the sectors that the span touches.
    pub(crate) fn sectors(&self) -> Range<u64> {
        sectors_of(&(self.offset as u64..self.end() as u64), 0)
    }

    /// Returns the sectors of the pages that the span touches.
    pub(crate) fn sectors_of_pages(&self) -> Range<u64> {
        let per_page = PAGE_SHIFT as u32 - SECTOR_SHIFT;
        let first = (self.offset >> PAGE_SHIFT) as u64;
        let last = (self.end().wrapping_sub(1) >> PAGE_SHIFT) as u64;
        let end = match self.len {
            0 => first,
            // No overflow: fewer pages than bytes.
            _ => last.wrapping_add(1),
        };

        first << per_page..end << per_page
    }

    /// Splits off the bytes that are in the same page as the first byte.
    pub(crate) fn take_page(&mut self) -> Self {
        let in_page = self.offset & ((1 << PAGE_SHIFT) - 1);

        self.take((1_usize << PAGE_SHIFT).wrapping_sub(in_page))
    }

    /// Splits off the bytes in front of the page that has `sector`.
    pub(crate) fn take_to_page_of(&mut self, sector: u64) -> Self {
        let page = sector >> (PAGE_SHIFT as u32 - SECTOR_SHIFT);
        let start = usize::try_from(page)
            .ok()
            .and_then(|page| page.checked_mul(1 << PAGE_SHIFT))
            .unwrap_or(usize::MAX);

        self.take(start.saturating_sub(self.offset))
    }

    /// Returns whether the span consists of whole pages.
    pub(crate) fn is_whole_pages(&self) -> bool {
        (self.offset | self.len) % (1 << PAGE_SHIFT) == 0
    }

    /// Returns whether the span consists of whole sectors.
    pub(crate) fn is_whole_sectors(&self) -> bool {
        (self.offset | self.len) % (1 << SECTOR_SHIFT) == 0
    }

    /// Returns the number of whole pages in front of the page that has `sector`; all whole pages of
    /// the span if that is behind it.
    pub(crate) fn whole_pages_before(&self, sector: u64) -> u64 {
        let page = sector >> (PAGE_SHIFT as u32 - SECTOR_SHIFT);
        let first = (self.offset >> PAGE_SHIFT) as u64;

        page.saturating_sub(first)
            .min((self.len >> PAGE_SHIFT) as u64)
    }
}
