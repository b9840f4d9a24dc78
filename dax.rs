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
    /// Otherwise, of what was asked for, the pages before the first bad one are: so that whoever
    /// reads a stretch gets all in front of it. A recovery write gets up to a bad page, and that
    /// page alone.
    fn direct_access(&self, offset: u64, pages: u64, access: Access) -> Result<Translation> {
        let mut left = self.pages_from(offset)?;
        let (address, pfn) = self.locate(&left)?;
        let to_end = (left.len() >> PAGE_SHIFT) as u64;
        let found = |pages| {
            Ok(Translation {
                address,
                pfn,
                pages,
            })
        };

        if self.errors().is_empty() {
            return found(to_end);
        }

        let pages = pages.min(to_end);
        // CAST: No more than `left.len()`, which is a `usize`.
        let asked = left.take((pages << PAGE_SHIFT) as usize);
        let Some(bad) = self.errors().first_in(&asked) else {
            return found(pages);
        };
        match (asked.whole_pages_before(bad), access) {
            // At a touch the process gets `SIGBUS` with `BUS_MCEERR_AR`; `read(2)` fails with `EIO`.
            (0, Access::Normal) => Err(ehwpoison()),
            (0, Access::RecoveryWrite) => found(1),
            (good, _) => found(good),
        }
    }

    fn zero_pages(&self, offset: u64, pages: u64) -> Result {
        let span = Span::of_pages(offset, pages, self.size()).ok_or(EIO)?;
        let bad = self.errors().first_in(&span).is_some();

        if bad {
            self.heal(&span)?;
        }
        self.zero(span)?;
        if bad {
            self.errors().remove(&span);
        }
        Ok(())
    }

    fn recovery_write(&self, offset: u64, to: RecoveryWrite<'_>) -> usize {
        let start = usize::try_from(offset)
            .ok()
            .and_then(|pages| pages.checked_mul(1 << PAGE_SHIFT))
            .and_then(|start| start.checked_add(to.offset_in_page()));
        let Some(span) = start.and_then(|start| Span::of_bytes(start, to.len(), self.size()))
        else {
            return 0;
        };

        if self.errors().first_in(&span).is_none() {
            return to.copy();
        }
        // A page is lost as a whole, so that a part of it can't be recovered.
        if !span.is_whole_pages() || self.heal(&span).is_err() {
            return 0;
        }
        let copied = to.copy();
        let mut written = span;

        self.errors().remove(&written.take(copied));
        copied
    }
}
