// SPDX-License-Identifier: GPL-2.0

//! Writing over bad blocks: clear poison, store, verify.
//!
//! Each page is cleared, stored and removed from the bad blocks before the next one is touched. So
//! a page that can't be repaired affects only itself, and nothing is cleared that is not written.
//! Where the bus has a clear-error command, the data is also stored before, for a power failure
//! between the two.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        dax::RecoveryWrite,
        errno::eopnotsupp,
        memory::READS_SURVIVE_POISON, //
    },
    media::{
        Buffers,
        Media,
        Source, //
    },
    ranges::Origin,
    units::Span, //
};
use core::ops::Range;
use kernel::{
    current,
    page::PAGE_SIZE,
    prelude::*, //
};

impl Media<'_> {
    /// [`Media::overwrite`] of a range with bad blocks.
    #[cold]
    pub(crate) fn overwrite_slow(&self, span: Span, mut from: Source<'_>) -> (usize, Result) {
        self.write_pages(span, |page| {
            let mut guard = self.repair.lock();
            let Buffers { data, readback } = &mut *guard;
            let bytes = data.get_mut(..page.len()).ok_or(EIO)?;

            from.fill(bytes)?;
            self.repair_page(page, bytes, readback)
        })
    }

    /// Writes bytes of a program to `span`, for a file system, and returns how many.
    #[cold]
    pub(crate) fn overwrite_from(&self, span: Span, program: &mut RecoveryWrite<'_>) -> usize {
        let Ok(mut buffer) = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL) else {
            return 0;
        };
        let (written, _) = self.write_pages(span, |page| {
            let bytes = buffer.get_mut(..page.len()).ok_or(EIO)?;

            // It may fault and take long. Other repairs do not wait for it.
            program.peek(bytes)?;
            if self.needs_repair(page) {
                let mut guard = self.repair.lock();

                // A process that maps a bad page loses all of it, so that its other bytes must not
                // look repaired.
                if !page.is_whole_pages() && self.badblocks().any_in_pages_of(page) {
                    return Err(EIO);
                }
                self.repair_page(page, bytes, &mut guard.readback)?;
            } else {
                // The pages around a bad one.
                self.memory.write_bytes(page.offset(), bytes)?;
            }
            program.skip(page.len());
            Ok(())
        });

        written
    }

    /// Calls `write` for the pages of `span`, of which the first and the last may be parts of one.
    /// Returns the number of bytes written, and whether these are all: it stops at the first error.
    fn write_pages(&self, span: Span, mut write: impl FnMut(&Span) -> Result) -> (usize, Result) {
        let mut rest = span;
        let mut written = 0_usize;

        while rest.len() > 0 {
            let page = rest.take_page();

            if let Err(e) = write(&page) {
                self.find_unmapped(page);
                return (written, Err(e));
            }
            written = written.saturating_add(page.len());
        }
        (written, Ok(()))
    }

    /// Stores `bytes` to `page`, a page or a part of one, and repairs it if it is bad.
    fn repair_page(&self, page: &Span, bytes: &[u8], readback: &mut KVec<u8>) -> Result {
        let (at, len) = (page.offset(), page.len());
        let mapped = self.memory.is_mapped(at, len)?;

        if mapped && self.badblocks().first_in(page).is_none() {
            return self.memory.write_bytes(at, bytes);
        }
        let whole = page.is_whole_pages();

        // The direct map gets a page back as a whole only, and a sector is good as a whole only.
        if !(whole || mapped && page.is_whole_sectors()) {
            return Err(EIO);
        }
        let repair = self.badblocks().begin_repair(page)?;

        // A write that a power failure interrupts leaves the old error or the new data: the data is
        // durable before the platform forgets the error. If clearing changes the contents, the
        // store below counts. Without that command, nothing is stored before the page is known to
        // be good.
        if mapped && self.dev.region().has_clear_error() {
            self.memory.write_bytes(at, bytes)?;
            // A failed flush is no reason to fail the write, which promises nothing before its own
            // flush.
            let _ = self.dev.region().flush();
        }
        let cleared = self.clear_poison(page);

        // Without a clear-error command, only reading back a whole page shows that it is good
        // again: the poison may be in a part that the write does not cover.
        if !(cleared || whole && self.overwrite_heals.is_on()) {
            self.recommend_overwrite_heals();
            return Err(EIO);
        }
        self.memory.restore_pages(at, len)?;
        self.memory.invalidate_caches(at, len)?;
        self.memory.write_bytes(at, bytes)?;
        if !cleared && READS_SURVIVE_POISON {
            let readback = readback.get_mut(..len).ok_or(EIO)?;

            self.read_back(page, readback)?;
            if readback != bytes {
                return Err(EIO);
            }
        }
        repair.finish(!cleared)
    }

    /// Reads `page` from the memory, not from the CPU caches. [`EIO`] if that fails.
    fn read_back(&self, page: &Span, to: &mut [u8]) -> Result {
        self.memory.invalidate_caches(page.offset(), page.len())?;
        self.memory.read_bytes(page.offset(), to)
    }

    /// Clears poison in `span`, a page or a part of one, and returns whether the bus has cleared
    /// it.
    ///
    /// A bus without commands is not asked: libnvdimm returns success for it, and does nothing.
    fn clear_poison(&self, span: &Span) -> bool {
        // No overflow: inside of one range of physical addresses.
        let phys = self.memory.phys().wrapping_add(span.offset() as u64);

        self.dev.region().has_commands()
            // CAST: `span` is not larger than a page.
            && matches!(self.dev.clear_poison(phys, span.len() as u32),
                Ok(cleared) if cleared as usize >= span.len())
    }

    /// Logs once what an administrator can do about failing writes.
    fn recommend_overwrite_heals(&self) {
        if !self.hinted.is_on() && !self.overwrite_heals.is_on() {
            self.hinted.set(true);
            dev_info!(
                self.dev.as_ref(),
                "the bus can't clear poison, so that writes of bad blocks fail; if the memory is good again, set errors/overwrite_heals of the disk\n"
            );
        }
    }

    /// Removes the bad blocks at the physical `addresses`, which are whole sectors of the
    /// namespace: a user says that the memory is repaired. Sleeps.
    ///
    /// [`EIO`] if the data area can't be read there, or if a page is unmapped from the direct map
    /// and `addresses` cover only a part of it; [`EINTR`] if a signal arrives. The bad blocks from
    /// there on stay.
    pub(crate) fn drop_badblocks(&self, addresses: &Range<u64>) -> Result {
        if let Some(mut rest) = self.badblocks().in_data(addresses) {
            while let Some(bad) = self.badblocks().first_in(&rest) {
                // A range of terabytes takes hours.
                if current!().signal_pending() {
                    return Err(EINTR);
                }
                rest.take_to_page_of(bad);
                self.drop_page(&rest.take_page())?;
            }
        }
        // Only the info block and the memmap: reports for the data area that came since stay.
        for metadata in self.badblocks().outside_of_data(addresses) {
            self.badblocks().remove(&metadata)?;
        }
        Ok(())
    }

    fn drop_page(&self, page: &Span) -> Result {
        let mut buffers = self.repair.lock();
        let repair = self.badblocks().begin_repair(page)?;

        self.memory.restore_pages(page.offset(), page.len())?;
        if READS_SURVIVE_POISON {
            self.read_back(page, buffers.readback.get_mut(..page.len()).ok_or(EIO)?)?;
        }
        repair.finish(true)
    }

    /// Puts the pages at the physical `addresses` in the state that follows a machine check: bad
    /// blocks, the HWPoison flag, and unmapped from the direct map. Sleeps.
    ///
    /// [`EINVAL`] if they are not whole pages of the data area, `EOPNOTSUPP` without `struct page`s
    /// or without memory-failure recovery.
    pub(crate) fn poison(&self, addresses: &Range<u64>) -> Result {
        let span = self.badblocks().in_data(addresses).ok_or(EINVAL)?;

        if !span.is_whole_pages()
            || span.len() as u64 != addresses.end.wrapping_sub(addresses.start)
        {
            return Err(EINVAL);
        }
        if !self.memory.has_pages() {
            return Err(eopnotsupp());
        }
        // First, because the recovery reports the same pages, and `Injected` outranks its origin.
        self.badblocks().add(addresses, Origin::Injected)?;
        self.memory.poison_pages(span.offset(), span.len())
    }
}

impl Source<'_> {
    /// Copies the next bytes into `buffer`. [`EIO`] if the memory of a bio fails.
    fn fill(&mut self, buffer: &mut [u8]) -> Result {
        match self {
            Self::Bio(segments) => segments.copy_to(buffer),
            // The buffer holds the bytes of an earlier repair.
            Self::Zeroes => {
                buffer.fill(0);
                Ok(())
            }
        }
    }
}
