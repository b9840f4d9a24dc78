// SPDX-License-Identifier: GPL-2.0

//! The memory itself: reads that survive machine checks, writes that bypass the CPU's caches, and
//! the clearing of errors.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        block::{
            FromBio,
            Segment,
            ToBio, //
        },
        dax::{
            FailureLink,
            Translation, //
        },
        iomem,
        memory::Memory,
        nd, //
    },
    badblocks::{
        ErrorList,
        Failures, //
    },
    units::Span, //
};
use kernel::{
    device::Bound,
    prelude::*,
    sync::Arc, //
};

/// The data area of a namespace, with the list of its errors.
///
/// Fields are dropped from the top: the memory is unmapped, its list freed, its claim released.
#[pin_data]
pub(crate) struct Media<'bound> {
    memory: Memory<Failures>,
    #[pin]
    errors: ErrorList<'bound>,
    claim: iomem::Claim<'bound>,
    dev: &'bound nd::Device<Bound>,
}

impl<'bound> Media<'bound> {
    /// `memory` begins with the first byte of data; its failures are reported through `link`.
    pub(crate) fn new(
        dev: &'bound nd::Device<Bound>,
        claim: iomem::Claim<'bound>,
        memory: Memory<Failures>,
        link: Arc<FailureLink>,
    ) -> impl PinInit<Self, Error> + 'bound {
        let start = memory.phys();
        let last = start.saturating_add(memory.len() as u64).saturating_sub(1);

        // A page that was taken out of the kernel's map stays out while no driver has the memory.
        if !memory.is_mapped(0, memory.len()).unwrap_or(false) {
            link.set_reported();
        }

        try_pin_init!(Self {
            errors <- ErrorList::new(dev.region(), start..=last, link),
            memory,
            claim,
            dev,
        })
    }

    /// The size of the data area, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.memory.len()
    }

    /// Whether there are `struct page`s for the memory.
    pub(crate) fn has_pages(&self) -> bool {
        self.memory.has_pages()
    }

    /// The list of errors.
    #[inline]
    pub(crate) fn errors(&self) -> &ErrorList<'bound> {
        &self.errors
    }

    /// Where the `pages` pages at `span` are.
    pub(crate) fn translate(&self, span: &Span, pages: u64) -> Result<Translation> {
        self.memory.translate(span.offset(), pages)
    }

    /// Copies the first bytes of `rest` into memory of a bio, and takes them off it; [`EIO`] if the
    /// memory fails under the copy.
    #[inline]
    pub(crate) fn read(&self, rest: &mut Span, to: &Segment<'_, ToBio>) -> Result {
        self.memory.read(rest.take(to.len()).offset(), to)
    }

    /// Begins to overwrite `span`, all of it: heals what is bad in it.
    ///
    /// [`EIO`] if an error can't be cleared, or if less than a whole page is to be written where
    /// the page as a whole is lost; nothing is written then. Sleeps if there is something to heal.
    #[inline]
    pub(crate) fn overwrite(&self, span: Span) -> Result<Overwrite<'_, 'bound>> {
        let healed = self.errors.suspects(&span);

        if healed {
            self.heal(span)?;
        }
        Ok(Overwrite {
            media: self,
            span,
            rest: span,
            healed,
        })
    }

    /// Clears the errors that are listed in `span`, page by page, and puts its pages back into the
    /// kernel's map.
    ///
    /// They stay listed, so that nobody reads what is there now, until they have been written.
    #[cold]
    fn heal(&self, span: Span) -> Result {
        let mut rest = span;

        while rest.len() > 0 {
            let page = rest.take_page();
            let mapped = self.memory.is_mapped(page.offset(), page.len())?;

            if mapped && self.errors.first_in(&page).is_none() {
                continue;
            }
            // What left the kernel's map comes back in whole pages only.
            if !mapped && !page.is_whole_pages() {
                return Err(EIO);
            }
            self.clear_errors(&page)?;
        }
        Ok(())
    }

    /// Clears the errors in `span`, which is a page or a part of one.
    fn clear_errors(&self, span: &Span) -> Result {
        let (offset, len) = (span.offset(), span.len());
        // No overflow: inside of one range of physical addresses.
        let phys = self.memory.phys().wrapping_add(offset as u64);

        // CAST: `span` is not larger than a page.
        match self.dev.clear_poison(phys, len as u32) {
            Ok(cleared) if cleared as usize >= len => (),
            _ => return Err(EIO),
        }
        self.memory.restore_pages(offset, len)?;
        if !self.memory.is_mapped(offset, len)? {
            return Err(EIO);
        }
        self.memory.invalidate_caches(offset, len)
    }
}

/// A span that is being overwritten from its start, and has been made fit for it.
#[must_use = "what has been healed stays listed until `finish`"]
pub(crate) struct Overwrite<'a, 'bound> {
    media: &'a Media<'bound>,
    span: Span,
    rest: Span,
    healed: bool,
}

impl Overwrite<'_, '_> {
    /// Copies memory of a bio to what is left of the span.
    #[inline]
    pub(crate) fn write(&mut self, from: &Segment<'_, FromBio>) -> Result {
        let to = self.rest.take(from.len());

        self.media.memory.write(to.offset(), from)
    }

    /// Writes zeroes to all that is left of the span.
    pub(crate) fn zero(&mut self) -> Result {
        let to = self.rest.take(usize::MAX);

        self.media.memory.zero(to.offset(), to.len())
    }

    /// `len` bytes have been written in another way.
    pub(crate) fn wrote(&mut self, len: usize) {
        self.rest.take(len);
    }

    /// Takes the sectors that were healed and written off the list of errors.
    #[inline]
    pub(crate) fn finish(mut self) {
        if self.healed {
            let written = self.span.len().saturating_sub(self.rest.len());

            self.media
                .errors
                .remove(&self.span.take(written).whole_sectors());
        }
    }
}
