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
    media::{
        Media,
        Source, //
    },
    units::Span,
    PAGE_SHIFT, //
};
use kernel::prelude::*;

impl Media<'_> {
    /// [`Operations::direct_access`] where errors are known of.
    #[cold]
    fn direct_access_with_care(
        &self,
        offset: u64,
        pages: u64,
        access: Access,
    ) -> Result<Translation<'_>> {
        let to_end = self.pages_from(offset)?;
        let pages = pages.min(to_end.pages());
        let asked = Span::of_pages(offset, pages, self.size()).ok_or(ENXIO)?;

        if self.errors().was_reported() {
            // A page that was healed at the moment of its failure, too early, is listed again.
            self.list_unmapped(asked);
        }
        let usable = match self.errors().first_in(&asked) {
            None => pages,
            Some(bad) => match (asked.whole_pages_before(bad), access) {
                // At a touch the process gets `SIGBUS` with `BUS_MCEERR_AR`; `read(2)` fails with
                // `EIO`.
                (0, Access::Normal) => return Err(ehwpoison()),
                (0, Access::RecoveryWrite) => 1,
                (good, _) => good,
            },
        };

        Ok(to_end.first(usable))
    }
}

impl Operations for Media<'_> {
    /// With no errors listed, all to the end of the device is usable, however much was asked for.
    /// Otherwise, of what was asked for, the pages before the first bad one are: so that `read(2)`
    /// gets all in front of it. A recovery write gets up to a bad page, and that page alone.
    ///
    /// The kernel's `dax_range_compare_iter` (deduplication) does not look how many pages it got;
    /// see "Errors" in Documentation/design.rst.
    #[inline]
    fn direct_access(&self, offset: u64, pages: u64, access: Access) -> Result<Translation<'_>> {
        if self.is_sound() {
            return self.pages_from(offset);
        }
        self.direct_access_with_care(offset, pages, access)
    }

    fn zero_pages(&self, offset: u64, pages: u64) -> Result {
        let span = Span::of_pages(offset, pages, self.size()).ok_or(EIO)?;

        self.overwrite(span, Source::Zeroes).map(|_| ())
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
        self.overwrite(span, Source::Program(to)).unwrap_or(0)
    }
}
