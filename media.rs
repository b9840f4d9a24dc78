// SPDX-License-Identifier: GPL-2.0

//! The memory itself: reads that survive machine checks, writes that bypass the CPU's caches, and
//! the clearing of errors.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        block::{
            FromBio,
            Segments, //
        },
        dax::{
            RecoveryWrite,
            Translation, //
        },
        errno::eopnotsupp,
        flag::Flag,
        mce,
        memory::{
            Memory,
            Part, //
        },
        nd, //
    },
    badblocks::{
        ErrorList,
        Failures, //
    },
    errors::Origin,
    units::Span, //
};
use core::ops::Range;
use kernel::{
    device::Bound,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex, //
    }, //
};

/// The data area of a namespace, with the list of its errors.
///
/// Fields are dropped from the top: the memory is unmapped and its claim released, then its list freed.
pub(crate) struct Media<'bound> {
    memory: Memory<Failures<'bound>>,
    errors: Arc<mce::Listener<ErrorList<'bound>>>,
    trial: Pin<KBox<Mutex<Trial>>>,
    overwrite_heals: Flag,
    dev: &'bound nd::Device<Bound>,
}

impl<'bound> Media<'bound> {
    /// `memory` is all of the data area, and `errors` its list. [`ENOMEM`].
    pub(crate) fn new(
        dev: &'bound nd::Device<Bound>,
        memory: Memory<Failures<'bound>>,
        errors: Arc<mce::Listener<ErrorList<'bound>>>,
    ) -> Result<Self> {
        let this = Self {
            memory,
            errors,
            trial: KBox::pin_init(new_mutex!(Trial::new()?), GFP_KERNEL)?,
            overwrite_heals: Flag::new(!dev.region().has_commands()),
            dev,
        };

        // A page that was taken out of the kernel's map stays out while no driver has the memory.
        this.list_unmapped(Span::of_bytes(0, this.size(), this.size()).ok_or(ENXIO)?);
        this.errors.log_unknown();
        Ok(this)
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

    /// Whether errors that the bus can't clear are healed by a write that is found in the memory
    /// afterwards.
    pub(crate) fn overwrite_heals(&self) -> bool {
        self.overwrite_heals.is_on()
    }

    /// Says whether they are.
    pub(crate) fn set_overwrite_heals(&self, on: bool) {
        self.overwrite_heals.set(on);
    }

    /// Where the pages from the one at `offset` to the end are. Fails as [`Memory::pages_from`].
    #[inline]
    pub(crate) fn pages_from(&self, offset: u64) -> Result<Translation<'_>> {
        self.memory.pages_from(offset)
    }

    /// Whether no error is known of, so that all can be read and written without ado.
    #[inline]
    pub(crate) fn is_sound(&self) -> bool {
        self.errors.is_empty() && !self.errors.was_reported()
    }

    /// The memory at `span`, to be read where no error is listed in it, and written where none is
    /// suspected; otherwise it is to be written by [`Self::overwrite`]. What turns out to be out of
    /// the kernel's map is to be listed, by [`Self::list_unmapped`].
    #[inline]
    pub(crate) fn part(&self, span: &Span) -> Result<Part<'_>> {
        self.memory.part(span.offset(), span.len())
    }

    /// Lists what of `rest` is out of the kernel's map, so that nobody touches it again. Of a machine
    /// check under a copy the list is told by the platform.
    #[cold]
    pub(crate) fn list_unmapped(&self, mut rest: Span) {
        while let Ok(Some(hole)) = self.memory.unmapped(rest.offset(), rest.len()) {
            rest.take(hole.saturating_sub(rest.offset()));
            self.errors.add_unmapped(&rest.take_page());
        }
    }

    /// Writes `from` to `span`, past the CPU's caches, and heals what is bad in it. The number of bytes
    /// written: all of `span`, unless `from` has less.
    ///
    /// [`EIO`] if an error can't be cleared, or if less than a whole page is to be written where
    /// the page as a whole is lost; nothing is written then. Sleeps if there is something to heal.
    #[inline]
    pub(crate) fn overwrite(&self, span: Span, from: Source<'_>) -> Result<usize> {
        if self.errors.suspects(&span) {
            return self.heal(span, from);
        }
        from.store(self.part(&span)?)
    }

    /// The same, where something is bad, or may be. Errors stay listed, so that nobody reads what is
    /// there now, until they have been written over.
    #[cold]
    fn heal(&self, mut span: Span, mut from: Source<'_>) -> Result<usize> {
        let on_trial = self.repair(span)?;
        let written = if on_trial {
            let mut trial = self.trial.lock();

            trial.write(&self.memory, span, |buffer| from.fill(buffer))?
        } else {
            from.store(self.part(&span)?)?
        };
        let healed = span.take(written).whole_sectors();

        if on_trial {
            self.errors.forget(&healed);
        }
        self.errors.remove(&healed);
        Ok(written)
    }

    /// Clears the errors that are listed in `span`, page by page, and puts its pages back into the
    /// kernel's map. Whether there were some that the bus can't clear: whether the memory is good
    /// again shows when it is read back.
    fn repair(&self, span: Span) -> Result<bool> {
        let mut on_trial = false;
        let mut rest = span;

        while rest.len() > 0 {
            let page = rest.take_page();
            let mapped = self.memory.is_mapped(page.offset(), page.len())?;

            if mapped && self.errors.first_in(&page).is_none() {
                continue;
            }
            let whole = page.is_whole_pages();

            // What left the kernel's map comes back in whole pages only.
            if !(mapped || whole) {
                return Err(EIO);
            }
            let cleared = self.clear_errors(&page);

            // Whether it is good again, nobody knows: so not a part of it either.
            if !(cleared || whole && self.overwrite_heals()) {
                return Err(EIO);
            }
            on_trial |= !cleared;
            self.memory.restore_pages(page.offset(), page.len())?;
            if !self.memory.is_mapped(page.offset(), page.len())? {
                return Err(EIO);
            }
            self.memory.invalidate_caches(page.offset(), page.len())?;
        }
        Ok(on_trial)
    }

    /// Takes errors at the physical `addresses`, which are whole sectors of the namespace, off the
    /// lists: somebody has repaired the memory.
    ///
    /// [`EIO`] if what is listed can't be read, or if only a part of a page that is out of the
    /// kernel's map was repaired; it stays listed from there on. What is not in the data area is not
    /// looked at. Sleeps.
    pub(crate) fn drop_errors(&self, addresses: &Range<u64>) -> Result {
        if let Some(mut rest) = self.errors.of_data(addresses) {
            while let Some(bad) = self.errors.first_in(&rest) {
                rest.take_to_page_of(bad);
                let page = rest.take_page();

                self.memory.restore_pages(page.offset(), page.len())?;
                if !self.memory.is_mapped(page.offset(), page.len())? {
                    return Err(EIO);
                }
                self.trial.lock().read(&self.memory, &page)?;
                self.errors.forget(&page);
                self.errors.remove(&page);
            }
        }
        self.errors.log().forget(addresses);
        Ok(())
    }

    /// Makes the pages at the physical `addresses` what they are after a machine check: listed,
    /// marked, and out of the kernel's map.
    ///
    /// [`EINVAL`] if they are not whole pages of the data area, `EOPNOTSUPP` without `struct page`s or
    /// a kernel that recovers. Sleeps.
    pub(crate) fn poison(&self, addresses: &Range<u64>) -> Result {
        let span = self.errors.of_data(addresses).ok_or(EINVAL)?;

        if !span.is_whole_pages()
            || span.len() as u64 != addresses.end.wrapping_sub(addresses.start)
        {
            return Err(EINVAL);
        }
        if !self.has_pages() {
            return Err(eopnotsupp());
        }
        // Before the recovery lists them, for their origin.
        self.errors.set_reported();
        self.errors.report(addresses, Origin::Injected)?;
        self.memory.poison_pages(span.offset(), span.len())
    }

    /// Whether the bus has cleared the errors in `span`, which is a page or a part of one. A bus
    /// without commands says so and has done nothing.
    fn clear_errors(&self, span: &Span) -> bool {
        // No overflow: inside of one range of physical addresses.
        let phys = self.memory.phys().wrapping_add(span.offset() as u64);

        self.dev.region().has_commands()
            // CAST: `span` is not larger than a page.
            && matches!(self.dev.clear_poison(phys, span.len() as u32),
                Ok(cleared) if cleared as usize >= span.len())
    }
}

impl Drop for Media<'_> {
    fn drop(&mut self) {
        self.errors.log_unknown();
    }
}

/// What is to be written.
pub(crate) enum Source<'a> {
    /// The memory of a bio.
    Bio(Segments<'a, FromBio>),
    /// What a file system copies from a program.
    Program(RecoveryWrite<'a>),
    /// Zeroes, as many as there is room for.
    Zeroes,
}

impl Source<'_> {
    /// Writes all of it to `to`; the number of bytes.
    #[inline]
    fn store(self, mut to: Part<'_>) -> Result<usize> {
        let len = to.len();

        match self {
            Self::Bio(mut segments) => {
                while let Some(segment) = segments.next_segment() {
                    to.write(&segment)?;
                }
            }
            Self::Program(from) => return Ok(from.copy()),
            Self::Zeroes => to.zero()?,
        }
        Ok(len)
    }

    /// Copies the next of it into `buffer`; the number of bytes.
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Self::Bio(segments) => segments.copy_to(buffer),
            Self::Program(from) => from.copy_to(buffer),
            Self::Zeroes => {
                // It may hold something else than when it was made.
                buffer.fill(0);
                buffer.len()
            }
        }
    }
}

/// Writes that are read back, one bio at a time: a path on which memory is reclaimed can't allocate.
struct Trial {
    sent: KVec<u8>,
    back: KVec<u8>,
}

impl Trial {
    /// [`ENOMEM`].
    fn new() -> Result<Self> {
        Ok(Self {
            sent: KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?,
            back: KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?,
        })
    }

    /// Reads `from`, which is not larger than a page, from the memory itself. [`EIO`] if that fails.
    fn read(&mut self, memory: &Memory<Failures<'_>>, from: &Span) -> Result {
        memory.invalidate_caches(from.offset(), from.len())?;
        memory.read_bytes(from.offset(), self.back.get_mut(..from.len()).ok_or(EIO)?)
    }

    /// Writes what `fill` puts into a buffer to the start of `to`, until there is no more or `to` is
    /// full, reads it back from the memory itself, and compares; the number of bytes.
    ///
    /// [`EIO`] if the memory fails, or has not kept what was written.
    fn write(
        &mut self,
        memory: &Memory<Failures<'_>>,
        mut to: Span,
        mut fill: impl FnMut(&mut [u8]) -> usize,
    ) -> Result<usize> {
        let mut written = 0_usize;

        while to.len() > 0 {
            let len = to.len().min(PAGE_SIZE);
            let n = fill(self.sent.get_mut(..len).ok_or(EIO)?);
            let to = to.take(n);

            if n == 0 {
                break;
            }
            memory.write_bytes(to.offset(), self.sent.get(..n).ok_or(EIO)?)?;
            self.read(memory, &to)?;
            if self.sent.get(..n) != self.back.get(..n) {
                return Err(EIO);
            }
            written = written.saturating_add(n);
        }
        Ok(written)
    }
}
