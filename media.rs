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
            RecoveryWrite,
            Translation, //
        },
        errno::eopnotsupp,
        flag::Flag,
        iomem,
        mce,
        memory::Memory,
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
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        new_mutex,
        Arc,
        Mutex, //
    }, //
};

/// The data area of a namespace, with the list of its errors.
///
/// Fields are dropped from the top: the memory is unmapped, its list freed, its claim released.
pub(crate) struct Media<'bound> {
    memory: Memory<Failures<'bound>>,
    errors: Arc<mce::Listener<ErrorList<'bound>>>,
    #[expect(dead_code, reason = "held to be dropped")]
    claim: iomem::Claim<'bound>,
    trial: Pin<KBox<Mutex<Trial>>>,
    overwrite_heals: Flag,
    dev: &'bound nd::Device<Bound>,
}

impl<'bound> Media<'bound> {
    /// `memory` is all of the data area, and `errors` its list. [`ENOMEM`].
    pub(crate) fn new(
        dev: &'bound nd::Device<Bound>,
        claim: iomem::Claim<'bound>,
        memory: Memory<Failures<'bound>>,
        errors: Arc<mce::Listener<ErrorList<'bound>>>,
    ) -> Result<Self> {
        let this = Self {
            memory,
            errors,
            claim,
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

    /// Where the `pages` pages at `span` are.
    pub(crate) fn translate(&self, span: &Span, pages: u64) -> Result<Translation> {
        self.memory.translate(span.offset(), pages)
    }

    /// Copies the bytes from `offset` on into memory of a bio; [`EIO`] if the memory fails under the
    /// copy.
    #[inline]
    pub(crate) fn read(&self, offset: usize, to: &Segment<'_, ToBio>) -> Result {
        self.memory
            .read(offset, to)
            .inspect_err(|_| self.read_failed(offset, to.len()))
    }

    #[cold]
    fn read_failed(&self, offset: usize, len: usize) {
        if let Some(span) = Span::of_bytes(offset, len, self.size()) {
            self.list_unmapped(span);
        }
    }

    /// Whether no error is known of, so that all can be read and written without ado.
    #[inline]
    pub(crate) fn is_sound(&self) -> bool {
        self.errors.is_empty() && !self.errors.was_reported()
    }

    /// Copies memory of a bio to the bytes from `offset` on. To be done where no error is known of
    /// in them, nor suspected, otherwise by [`Self::overwrite`].
    #[inline]
    pub(crate) fn write(&self, offset: usize, from: &Segment<'_, FromBio>) -> Result {
        self.memory.write(offset, from)
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

    /// Begins to overwrite `span`, all of it: heals what is bad in it.
    ///
    /// [`EIO`] if an error can't be cleared, or if less than a whole page is to be written where
    /// the page as a whole is lost; nothing is written then. Sleeps if there is something to heal.
    #[inline]
    pub(crate) fn overwrite(&self, span: Span) -> Result<Overwrite<'_, 'bound>> {
        let healed = match self.errors.suspects(&span) {
            true => Some(self.heal(span)?),
            false => None,
        };

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
    fn heal(&self, span: Span) -> Result<Healed<'_>> {
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
        Ok(match on_trial {
            true => Healed::OnTrial(self.trial.lock()),
            false => Healed::Cleared,
        })
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

/// How a span that has errors, or may have them, was made fit to be written.
enum Healed<'a> {
    /// The bus has cleared its errors, or there were none.
    Cleared,
    /// That shows when it is read back.
    OnTrial(Guard<'a, Trial, MutexBackend>),
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
    /// full, reads it back from the memory itself, and compares; returns the number of bytes.
    ///
    /// [`EIO`] if the memory fails, or has not kept what was written.
    fn write(
        &mut self,
        memory: &Memory<Failures<'_>>,
        mut to: Span,
        mut fill: impl FnMut(usize, &mut [u8]) -> usize,
    ) -> Result<usize> {
        let mut written = 0_usize;

        while to.len() > 0 {
            let len = to.len().min(PAGE_SIZE);
            let n = fill(written, self.sent.get_mut(..len).ok_or(EIO)?);
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

/// A span that is being overwritten from its start, and has been made fit for it.
#[must_use = "what has been healed stays listed until `finish`"]
pub(crate) struct Overwrite<'a, 'bound> {
    media: &'a Media<'bound>,
    span: Span,
    rest: Span,
    healed: Option<Healed<'a>>,
}

impl Overwrite<'_, '_> {
    /// Copies memory of a bio to what is left of the span.
    #[inline]
    pub(crate) fn write(&mut self, from: &Segment<'_, FromBio>) -> Result {
        let to = self.rest.take(from.len());

        match &mut self.healed {
            Some(Healed::OnTrial(trial)) => trial
                .write(&self.media.memory, to, |done, buffer| {
                    from.copy_to(done, buffer)
                })
                .map(|_| ()),
            _ => self.media.memory.write(to.offset(), from),
        }
    }

    /// Writes zeroes to all that is left of the span.
    pub(crate) fn zero(&mut self) -> Result {
        let to = self.rest.take(self.rest.len());

        match &mut self.healed {
            Some(Healed::OnTrial(trial)) => trial
                .write(&self.media.memory, to, |_, buffer| {
                    // It may hold something else than when it was made.
                    buffer.fill(0);
                    buffer.len()
                })
                .map(|_| ()),
            _ => self.media.memory.zero(to.offset(), to.len()),
        }
    }

    /// Copies what `from` has, and returns how many bytes that were.
    pub(crate) fn recover(&mut self, mut from: RecoveryWrite<'_>) -> usize {
        let copied = match &mut self.healed {
            Some(Healed::OnTrial(trial)) => trial
                .write(&self.media.memory, self.rest, |_, buffer| {
                    from.copy_to(buffer)
                })
                .unwrap_or(0),
            _ => from.copy(),
        };

        self.rest.take(copied);
        copied
    }

    /// Takes the sectors that were healed and written off the list of errors.
    #[inline]
    pub(crate) fn finish(mut self) {
        if let Some(healed) = &self.healed {
            let written = self.span.len().saturating_sub(self.rest.len());

            let span = self.span.take(written).whole_sectors();

            if let Healed::OnTrial(_) = healed {
                self.media.errors.forget(&span);
            }
            self.media.errors.remove(&span);
        }
    }
}
