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
        iomem,
        memory::Memory,
        nd, //
    },
    badblocks::{
        ErrorList,
        Failures, //
    },
    units::Span,
    PAGE_SHIFT, //
};
use core::ptr::NonNull;
use kernel::{
    device::Bound,
    prelude::*, //
};

/// The data area of a namespace, with the list of its errors.
///
/// Read from the end: the range is claimed, its errors are listed, it is mapped. It is torn down
/// in the opposite order.
#[pin_data]
pub(crate) struct Media<'bound> {
    memory: Memory<Failures>,
    #[pin]
    errors: ErrorList<'bound>,
    claim: iomem::Claim<'bound>,
    dev: &'bound nd::Device<Bound>,
}

impl<'bound> Media<'bound> {
    /// `memory` begins with the first byte of data.
    pub(crate) fn new(
        dev: &'bound nd::Device<Bound>,
        claim: iomem::Claim<'bound>,
        memory: Memory<Failures>,
    ) -> impl PinInit<Self, Error> + 'bound {
        let start = memory.phys();
        let last = start.saturating_add(memory.len() as u64).saturating_sub(1);

        try_pin_init!(Self {
            errors <- ErrorList::new(dev.region(), start..=last),
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

    /// The kernel's address and the page frame number of the first byte of `span`.
    pub(crate) fn locate(&self, span: &Span) -> Result<(NonNull<c_void>, u64)> {
        let address = self.memory.address(span.offset())?;
        // No overflow: inside of one range of physical addresses.
        let phys = self.memory.phys().wrapping_add(span.offset() as u64);

        Ok((address, phys >> PAGE_SHIFT))
    }

    /// Copies `span` into memory of a bio; [`EIO`] if the memory fails under the copy.
    #[inline]
    pub(crate) fn read(&self, span: Span, to: &Segment<'_, ToBio>) -> Result {
        self.memory.read(span.offset(), to)
    }

    /// Copies memory of a bio to `span`. Errors there must have been [healed](Self::heal).
    #[inline]
    pub(crate) fn write(&self, span: Span, from: &Segment<'_, FromBio>) -> Result {
        self.memory.write(span.offset(), from)
    }

    /// Writes zeroes to `span`. Errors there must have been [healed](Self::heal).
    pub(crate) fn zero(&self, span: Span) -> Result {
        self.memory.zero(span.offset(), span.len())
    }

    /// Makes `span` fit to be written as a whole: clears the errors that are listed in it, page by
    /// page, and puts its pages back into the kernel's map.
    ///
    /// They stay listed, so that nobody reads what is there now, until the caller has written and
    /// [removed](ErrorList::remove) them. [`EIO`] if an error can't be cleared, or if less than a
    /// whole page is to be written where the page as a whole is lost. Sleeps.
    pub(crate) fn heal(&self, span: &Span) -> Result {
        let mut rest = *span;

        while let Some((page, after)) = self
            .errors
            .first_in(&rest)
            .and_then(|bad| rest.split_at_page_of(bad))
        {
            self.clear_errors(&page)?;
            rest = after;
        }
        Ok(())
    }

    /// Clears the errors in `span`, which is a page or a part of one.
    fn clear_errors(&self, span: &Span) -> Result {
        let (offset, len) = (span.offset(), span.len());
        // No overflow: inside of one range of physical addresses.
        let phys = self.memory.phys().wrapping_add(offset as u64);

        // What machine-check recovery took out of the kernel's map comes back in whole pages only.
        if !span.is_whole_pages() && !self.memory.is_mapped(offset, len)? {
            return Err(EIO);
        }
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
