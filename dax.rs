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
    badblocks::Condition,
    media::{
        again_if_unmapped,
        Media,
        Source, //
    },
    units::Span,
    PAGE_SHIFT, //
};
use kernel::prelude::*;

impl Media<'_> {
    /// [`Operations::direct_access`] where something is bad.
    #[cold]
    fn direct_access_bad(
        &self,
        offset: u64,
        pages: u64,
        access: Access,
    ) -> Result<Translation<'_>> {
        let to_end = self.pages_from(offset)?;
        let pages = pages.min(to_end.pages());
        let asked = Span::of_pages(offset, pages, self.size()).ok_or(ENXIO)?;

        if let Condition::Failed = self.badblocks().condition(&asked) {
            // A page that was repaired in the moment of its failure, before the kernel unmapped it,
            // is bad again.
            self.find_unmapped(asked);
        }
        let usable = match (self.badblocks().first_in(&asked), access) {
            (None, _) => pages,
            // At a touch the process gets `SIGBUS` with `BUS_MCEERR_AR`; `read(2)` fails with `EIO`.
            (Some(_), Access::Normal) => return Err(ehwpoison()),
            (Some(bad), Access::RecoveryWrite) => asked.whole_pages_before(bad).max(1),
        };

        Ok(to_end.first(usable))
    }
}

impl Operations for Media<'_> {
    /// With nothing bad, all to the end of the device is usable, however much was asked for.
    /// Otherwise what was asked for is, if nothing in it is bad: several callers in `fs/dax.c` (7.2)
    /// do not look at how many pages they got, and copy or compare as many as they asked for. A
    /// recovery write gets the pages before the first bad one, or that page alone.
    #[inline]
    fn direct_access(&self, offset: u64, pages: u64, access: Access) -> Result<Translation<'_>> {
        if self.badblocks().is_clean() {
            return self.pages_from(offset);
        }
        self.direct_access_bad(offset, pages, access)
    }

    fn zero_pages(&self, offset: u64, pages: u64) -> Result {
        let span = Span::of_pages(offset, pages, self.size()).ok_or(EIO)?;

        again_if_unmapped(|| self.overwrite(span, Source::Zeroes).1)
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
        if !span.is_whole_pages() && self.badblocks().any_in_pages_of(&span) {
            return 0;
        }
        self.overwrite(span, Source::Program(to)).0
    }
}
