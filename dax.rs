// SPDX-License-Identifier: GPL-2.0

//! The DAX device: file systems map and copy the memory itself, with no page cache.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        dax::{
            Access,
            Operations,
            RecoveryWrite,
            Translation, //
        },
        errno::ehwpoison, //
    },
    media::Media,
    units::Span,
    PAGE_SHIFT, //
};
use kernel::prelude::*;

impl Media<'_> {
    /// From page `offset` to the end of the data area; [`ENXIO`] if it is not in it.
    fn pages_from(&self, offset: u64) -> Result<Span> {
        let pages = (self.size() >> PAGE_SHIFT) as u64;
        let left = pages
            .checked_sub(offset)
            .filter(|left| *left > 0)
            .ok_or(ENXIO)?;

        Span::of_pages(offset, left, self.size()).ok_or(ENXIO)
    }
}

impl Operations for Media<'_> {
    /// With no errors listed, all to the end of the device is usable, however much was asked for.
    /// Otherwise, of what was asked for, the pages before the first bad one are: so that `read(2)`
    /// gets all in front of it. A recovery write gets up to a bad page, and that page alone.
    ///
    /// The kernel's `dax_range_compare_iter` (deduplication) does not look how many pages it got;
    /// see "Errors" in Documentation/design.rst.
    fn direct_access(&self, offset: u64, pages: u64, access: Access) -> Result<Translation> {
        let mut left = self.pages_from(offset)?;
        let to_end = (left.len() >> PAGE_SHIFT) as u64;
        let start = left;

        if self.errors().is_empty() && !self.errors().was_reported() {
            return self.translate(&start, to_end);
        }

        let pages = pages.min(to_end);
        // CAST: No more than `left.len()`, which is a `usize`.
        let asked = left.take((pages << PAGE_SHIFT) as usize);

        if self.errors().was_reported() {
            // A page that was healed at the moment of its failure, too early, is listed again.
            self.list_unmapped(asked);
        }
        let Some(bad) = self.errors().first_in(&asked) else {
            return self.translate(&start, pages);
        };
        match (asked.whole_pages_before(bad), access) {
            // At a touch the process gets `SIGBUS` with `BUS_MCEERR_AR`; `read(2)` fails with `EIO`.
            (0, Access::Normal) => Err(ehwpoison()),
            (0, Access::RecoveryWrite) => self.translate(&start, 1),
            (good, _) => self.translate(&start, good),
        }
    }

    fn zero_pages(&self, offset: u64, pages: u64) -> Result {
        let span = Span::of_pages(offset, pages, self.size()).ok_or(EIO)?;
        let mut overwrite = self.overwrite(span)?;

        overwrite.zero()?;
        overwrite.finish();
        Ok(())
    }

    /// Writes nothing where a part of a bad page is to be written: for those who map it, a page is
    /// lost as a whole.
    fn recovery_write(&self, offset: u64, to: RecoveryWrite<'_>) -> usize {
        let start = usize::try_from(offset)
            .ok()
            .and_then(|pages| pages.checked_mul(1 << PAGE_SHIFT))
            .and_then(|start| start.checked_add(to.offset_in_page()));
        let Some(span) = start.and_then(|start| Span::of_bytes(start, to.len(), self.size()))
        else {
            return 0;
        };
        if !span.is_whole_pages() && self.errors().lists_pages_of(&span) {
            return 0;
        }
        let Ok(mut overwrite) = self.overwrite(span) else {
            return 0;
        };
        let copied = overwrite.recover(to);

        overwrite.finish();
        copied
    }
}
