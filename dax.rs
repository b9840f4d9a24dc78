// SPDX-License-Identifier: GPL-2.0

//! The DAX device: file systems map and copy the memory itself, without a page cache.

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
        retry_if_unmapped,
        Media,
        Source, //
    },
    units::Span,
    PAGE_SHIFT, //
};
use kernel::prelude::*;

impl Media<'_> {
    /// [`Operations::direct_access`] of a device with bad blocks.
    #[cold]
    fn direct_access_slow(
        &self,
        offset: u64,
        pages: u64,
        access: Access,
    ) -> Result<Translation<'_>> {
        let to_end = self.memory.pages_from(offset)?;
        let pages = pages.min(to_end.pages());
        let asked = Span::of_pages(offset, pages, self.memory.len()).ok_or(ENXIO)?;

        if let Condition::Failed = self.badblocks().condition(&asked) {
            // The kernel reports a memory failure before it unmaps the page. A write in between
            // repairs the page, which is then unmapped, and so is bad again.
            self.find_unmapped(asked);
        }
        let usable = match (self.badblocks().first_in(&asked), access) {
            (None, _) => pages,
            // A load of the process gets `SIGBUS` with `BUS_MCEERR_AR`; `read(2)` fails with `EIO`.
            (Some(_), Access::Normal) => return Err(ehwpoison()),
            (Some(bad), Access::RecoveryWrite) => asked.whole_pages_before(bad).max(1),
        };

        Ok(to_end.first(usable))
    }
}

impl Operations for Media<'_> {
    /// Without bad blocks, returns all pages to the end of the device, however many are asked for.
    ///
    /// With bad blocks, a normal access gets what it asks for, or an error if a bad block is in it:
    /// several callers in `fs/dax.c` (7.2, 7.3) copy or compare as many pages as they have asked
    /// for, and do not look at how many they got. A recovery write gets the pages before the first
    /// bad one, or that page alone.
    #[inline]
    fn direct_access(&self, offset: u64, pages: u64, access: Access) -> Result<Translation<'_>> {
        if self.badblocks().is_clean() {
            return self.memory.pages_from(offset);
        }
        self.direct_access_slow(offset, pages, access)
    }

    fn zero_pages(&self, offset: u64, pages: u64) -> Result {
        let span = Span::of_pages(offset, pages, self.memory.len()).ok_or(EIO)?;

        retry_if_unmapped(|| self.overwrite(span, Source::Zeroes).1)
    }

    fn recovery_write(&self, offset: u64, mut to: RecoveryWrite<'_>) -> usize {
        let start = usize::try_from(offset)
            .ok()
            .and_then(|pages| pages.checked_mul(1 << PAGE_SHIFT))
            .and_then(|start| start.checked_add(to.offset_in_page()));
        let Some(span) = start.and_then(|start| Span::of_bytes(start, to.len(), self.memory.len()))
        else {
            return 0;
        };

        self.overwrite_from(span, &mut to)
    }
}
