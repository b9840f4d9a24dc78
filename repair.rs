// SPDX-License-Identifier: GPL-2.0

//! Writing over bad blocks: clear poison, store, verify.
//!
//! A page at a time: it is cleared, stored, and no longer bad, before the next one is touched. So a
//! page that can't be repaired costs nothing but itself, and nothing is cleared that is not written.

#![forbid(unsafe_code)]

use crate::{
    abstractions::errno::eopnotsupp,
    badblocks::Origin,
    media::{
        Media,
        Source, //
    },
    units::Span, //
};
use core::ops::Range;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

impl Media<'_> {
    /// Whether a bad page that the bus can't clear is repaired by a write that is read back.
    pub(crate) fn overwrite_heals(&self) -> bool {
        self.overwrite_heals.is_on()
    }

    /// Sets that.
    pub(crate) fn set_overwrite_heals(&self, on: bool) {
        self.overwrite_heals.set(on);
    }

    /// [`Media::overwrite`] where something is bad.
    #[cold]
    pub(crate) fn overwrite_bad(&self, span: Span, mut from: Source<'_>) -> (usize, Result) {
        let mut rest = span;
        let mut written = 0_usize;

        while rest.len() > 0 {
            let page = rest.take_page();

            match self.overwrite_page(page, &mut from) {
                Ok(()) => written = written.saturating_add(page.len()),
                Err(e) => return (written, Err(e)),
            }
        }
        (written, Ok(()))
    }

    /// Writes the next of `from` to `page`, which is a page or a part of one, and repairs it if it is
    /// bad. Nothing is written unless `from` has enough for it: [`EFAULT`].
    fn overwrite_page(&self, page: Span, from: &mut Source<'_>) -> Result {
        // The memory of a program may not be there, and be long in coming: nobody else waits for it.
        let of_program = match from {
            Source::Program(program) => {
                let mut buffer = KVec::from_elem(0, page.len(), GFP_KERNEL)?;

                program.copy_to(&mut buffer)?;
                Some(buffer)
            }
            _ => None,
        };
        let mut guard = self.repair.lock();
        let Buffers { sent, back } = &mut *guard;
        let bytes = match (&of_program, from) {
            (Some(buffer), _) => buffer,
            (None, from) => {
                from.fill(sent.get_mut(..page.len()).ok_or(EIO)?);
                &*sent
            }
        };

        self.repair_page(&page, bytes.get(..page.len()).ok_or(EIO)?, back)
            .inspect_err(|_| self.find_unmapped(page))
    }

    /// Stores `bytes` to `page`, which is a page or a part of one, and repairs it if it is bad.
    fn repair_page(&self, page: &Span, bytes: &[u8], back: &mut KVec<u8>) -> Result {
        let (at, len) = (page.offset(), page.len());
        let mapped = self.memory.is_mapped(at, len)?;

        if mapped && self.badblocks().first_in(page).is_none() {
            return self.memory.write_bytes(at, bytes);
        }
        let whole = page.is_whole_pages();

        // A page comes back into the direct map as a whole only.
        if !(mapped || whole) {
            return Err(EIO);
        }
        let repair = self.badblocks().begin_repair(page)?;
        let cleared = self.clear_poison(page);

        // Whether the memory is good again shows only when a whole page is read back.
        if !(cleared || whole && self.overwrite_heals()) {
            self.hint_at_overwrite_heals();
            return Err(EIO);
        }
        self.memory.restore_pages(at, len)?;
        if !self.memory.is_mapped(at, len)? {
            return Err(EIO);
        }
        self.memory.invalidate_caches(at, len)?;
        self.memory.write_bytes(at, bytes)?;
        if !cleared {
            let back = back.get_mut(..len).ok_or(EIO)?;

            self.read_back(page, back)?;
            if back != bytes {
                return Err(EIO);
            }
        }
        repair.finish(!cleared)
    }

    /// Reads `page` past the CPU's caches. [`EIO`] if that fails.
    fn read_back(&self, page: &Span, back: &mut [u8]) -> Result {
        self.memory.invalidate_caches(page.offset(), page.len())?;
        self.memory.read_bytes(page.offset(), back)
    }

    /// Whether the bus has cleared the errors in `span`, which is a page or a part of one. A bus
    /// without commands says so and has done nothing.
    fn clear_poison(&self, span: &Span) -> bool {
        // No overflow: inside of one range of physical addresses.
        let phys = self.memory.phys().wrapping_add(span.offset() as u64);

        self.dev.region().has_commands()
            // CAST: `span` is not larger than a page.
            && matches!(self.dev.clear_poison(phys, span.len() as u32),
                Ok(cleared) if cleared as usize >= span.len())
    }

    /// Says once what an administrator can do about a write that fails.
    fn hint_at_overwrite_heals(&self) {
        if !self.hinted.is_on() && !self.overwrite_heals() {
            self.hinted.set(true);
            dev_info!(
                self.dev.as_ref(),
                "the bus can't clear poison, so that writes of bad blocks fail; if the memory is good again, set errors/overwrite_heals of the disk\n"
            );
        }
    }

    /// Takes errors at the physical `addresses`, which are whole sectors of the namespace, off the
    /// list: somebody has repaired the memory.
    ///
    /// [`EIO`] if what is listed can't be read, or if only a part of a page that is missing in the
    /// direct map was repaired; it stays listed from there on. What is not in the data area is not
    /// looked at. Sleeps.
    pub(crate) fn drop_errors(&self, addresses: &Range<u64>) -> Result {
        if let Some(mut rest) = self.badblocks().in_data(addresses) {
            while let Some(bad) = self.badblocks().first_in(&rest) {
                rest.take_to_page_of(bad);
                self.drop_page(&rest.take_page())?;
            }
        }
        // What was reported in the data meanwhile stays.
        for metadata in self.badblocks().outside_of_data(addresses) {
            self.badblocks().remove(&metadata)?;
        }
        self.badblocks().sync()
    }

    fn drop_page(&self, page: &Span) -> Result {
        let mut buffers = self.repair.lock();
        let repair = self.badblocks().begin_repair(page)?;

        self.memory.restore_pages(page.offset(), page.len())?;
        if !self.memory.is_mapped(page.offset(), page.len())? {
            return Err(EIO);
        }
        self.read_back(page, buffers.back.get_mut(..page.len()).ok_or(EIO)?)?;
        repair.finish(true)
    }

    /// Makes the pages at the physical `addresses` what they are after a machine check: bad, with the
    /// HWPoison flag, and unmapped from the direct map.
    ///
    /// [`EINVAL`] if they are not whole pages of the data area, `EOPNOTSUPP` without `struct page`s or
    /// a kernel that recovers. Sleeps.
    pub(crate) fn poison(&self, addresses: &Range<u64>) -> Result {
        let span = self.badblocks().in_data(addresses).ok_or(EINVAL)?;

        if !span.is_whole_pages()
            || span.len() as u64 != addresses.end.wrapping_sub(addresses.start)
        {
            return Err(EINVAL);
        }
        if !self.has_pages() {
            return Err(eopnotsupp());
        }
        // Before the recovery reports them, for their origin.
        self.badblocks().add(addresses, Origin::Injected)?;
        self.memory.poison_pages(span.offset(), span.len())
    }
}

impl Source<'_> {
    /// Copies the next of it into `buffer`.
    fn fill(&mut self, buffer: &mut [u8]) {
        match self {
            Self::Bio(segments) => {
                segments.copy_to(buffer);
            }
            // Its memory is copied before: see `overwrite_page`.
            Self::Program(_) => (),
            // It may hold something else than when it was made.
            Self::Zeroes => buffer.fill(0),
        }
    }
}

/// What is written, and what is read back: there from the start, as a write under memory pressure
/// can't allocate.
pub(crate) struct Buffers {
    sent: KVec<u8>,
    back: KVec<u8>,
}

impl Buffers {
    /// [`ENOMEM`].
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            sent: KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?,
            back: KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?,
        })
    }
}
