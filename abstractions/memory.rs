// SPDX-License-Identifier: GPL-2.0

//! Mapped persistent memory, and the copies into and out of it that outlive its failures.
//!
//! C headers: [`include/linux/io.h`](srctree/include/linux/io.h),
//! [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h),
//! [`include/linux/libnvdimm.h`](srctree/include/linux/libnvdimm.h)

use super::{
    bindings,
    block::{
        FromBio,
        Segment,
        ToBio, //
    },
    copy::{
        copy_flushcache,
        copy_mc,
        flush_caches,
        zero_flushcache,
        ZEROED_AT_ONCE, //
    },
    dax::Translation,
    iomem::Claim,
    memremap::{
        Layout,
        MemoryFailure,
        PageMap, //
    },
    page, //
};
use core::{
    marker::PhantomData,
    ops::RangeInclusive,
    ptr::NonNull, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// A range of persistent memory that is mapped into the kernel.
///
/// All offsets are in bytes from its start.
///
/// # Invariants
///
/// `base` is the start of `len` bytes that stay mapped, cached and writable for as long as the
/// value lives, and that no reference points into. Single pages of them may be taken out of the
/// kernel's map by machine-check recovery.
pub(crate) struct Memory<H: MemoryFailure> {
    base: NonNull<u8>,
    len: usize,
    phys: u64,
    backing: Backing<H>,
}

/// There is memory with `struct page`s, which file systems need for DAX: they look for the page of each
/// page frame that they are given.
pub(crate) struct HasPages(());

/// What keeps the memory mapped; unmaps it when dropped, then releases its claim.
enum Backing<H: MemoryFailure> {
    Pages(PageMap<H>),
    Plain(#[expect(dead_code, reason = "held to be dropped")] (Remapped, Claim)),
}

// SAFETY: The memory is the device's, no thread's; all accesses are copies, which may race with
// each other and with user space as accesses to a disk may.
unsafe impl<H: MemoryFailure> Send for Memory<H> {}
// SAFETY: As above.
unsafe impl<H: MemoryFailure> Sync for Memory<H> {}

impl<H: MemoryFailure> Memory<H> {
    /// Maps the physical addresses `range`, without `struct page`s, as the architecture wants
    /// persistent memory mapped; `claim` is held until they are unmapped. [`ENXIO`] if that can't be
    /// done.
    pub(crate) fn remap(range: &RangeInclusive<u64>, claim: Claim) -> Result<Self> {
        let len = len_of(range)?;
        let mapping = Remapped::new(*range.start(), len)?;

        // INVARIANT: `mapping` keeps `len` bytes mapped.
        Ok(Self {
            base: mapping.base,
            len,
            phys: *range.start(),
            backing: Backing::Plain((mapping, claim)),
        })
    }

    /// Maps the physical addresses of `layout`, with `struct page`s; `failure` is told of memory
    /// failures of them, and `claim` is held until they are unmapped. [`ENOMEM`] or another error of
    /// `memremap_pages`.
    pub(crate) fn map_pages(layout: Layout, node: c_int, claim: Claim, failure: H) -> Result<Self> {
        let range = layout.range();
        let len = len_of(&range)?;
        let mapping = PageMap::new(layout, node, claim, failure)?;

        // INVARIANT: `mapping` keeps `len` bytes mapped.
        Ok(Self {
            base: mapping.base(),
            len,
            phys: *range.start(),
            backing: Backing::Pages(mapping),
        })
    }

    /// The physical address of the first byte.
    pub(crate) fn phys(&self) -> u64 {
        self.phys
    }

    /// Whether the memory has `struct page`s.
    pub(crate) fn has_pages(&self) -> bool {
        matches!(self.backing, Backing::Pages(_))
    }

    /// The same, for [`Limits`](super::block::Limits).
    pub(crate) fn dax(&self) -> Option<HasPages> {
        self.has_pages().then_some(HasPages(()))
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The same memory without its first `offset` bytes; [`ENXIO`] if there are no more than that.
    pub(crate) fn skip(self, offset: usize) -> Result<Self> {
        let len = self
            .len
            .checked_sub(offset)
            .filter(|len| *len > 0)
            .ok_or(ENXIO)?;

        // SAFETY: `offset` is inside of the memory.
        let base = unsafe { self.base.add(offset) };
        // INVARIANT: A part of the memory is as valid as the whole.
        Ok(Self {
            base,
            len,
            // No overflow: both are inside of one range of physical addresses.
            phys: self.phys.wrapping_add(offset as u64),
            backing: self.backing,
        })
    }

    /// The address of the `len` bytes from `offset`; [`EIO`] if they are not all inside.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> Result<NonNull<u8>> {
        match self.len.checked_sub(offset) {
            // SAFETY: `offset` is inside of the memory.
            Some(rest) if len <= rest => Ok(unsafe { self.base.add(offset) }),
            _ => Err(EIO),
        }
    }

    /// Where the pages from the one at `offset`, in pages, to the end are; [`ENXIO`] if there are none.
    #[inline]
    pub(crate) fn pages_from(&self, offset: u64) -> Result<Translation<'_>> {
        let pages = ((self.len >> PAGE_SHIFT) as u64)
            .checked_sub(offset)
            .filter(|pages| *pages > 0)
            .ok_or(ENXIO)?;

        // INVARIANT: The pages are inside of the memory, which the result borrows.
        Ok(Translation {
            // SAFETY: Inside of the memory, so that nothing overflows either.
            address: unsafe { self.base.add((offset as usize) << PAGE_SHIFT) }.cast(),
            pfn: (self.phys >> PAGE_SHIFT).wrapping_add(offset),
            pages,
            memory: PhantomData,
            chunks: match &self.backing {
                Backing::Pages(mapping) => Some(mapping.chunks()),
                Backing::Plain(_) => None,
            },
        })
    }

    /// The `len` bytes from `offset` on; [`EIO`] if they are not all inside.
    #[inline]
    pub(crate) fn part(&self, offset: usize, len: usize) -> Result<Part<'_>> {
        let base = self.at(offset, len)?;

        // INVARIANT: All inside of the memory.
        Ok(Part {
            base,
            len,
            _memory: PhantomData,
        })
    }

    /// Copies the bytes from `offset` on into `to`.
    ///
    /// [`EIO`] if the memory fails under the copy, on x86-64: by a machine check, or, with a CPU whose
    /// copies `copy_mc_to_kernel` guards (fast strings, or Xeons known to need it), because
    /// recovery has taken the page out of the kernel's map. Elsewhere that is an oops. [`EINVAL`] for
    /// 4 GiB or more.
    pub(crate) fn read_bytes(&self, offset: usize, to: &mut [u8]) -> Result {
        let from = self.at(offset, to.len())?;

        if to.len() > u32::MAX as usize {
            return Err(EINVAL);
        }
        // SAFETY: Both are valid for `to.len()` bytes, which are less than 4 GiB.
        unsafe { copy_mc(NonNull::from(&mut *to).cast(), from, to.len()) }
    }

    /// Copies `from`, which is whole sectors, to the bytes from `offset` on. Fails, and is durable,
    /// as [`Part::write`].
    pub(crate) fn write_bytes(&self, offset: usize, from: &[u8]) -> Result {
        let to = self.at(offset, from.len())?;

        // SAFETY: `at` has checked that `to` has `from.len()` bytes, which the memory maps but for
        // single pages; `from` is a slice of that length.
        unsafe { copy_flushcache(to, NonNull::from(from).cast(), from.len()) }
    }

    /// Drops what the CPU's caches hold of the `len` bytes from `offset` on, so that the next read
    /// sees the memory.
    pub(crate) fn invalidate_caches(&self, offset: usize, len: usize) -> Result {
        let at = self.at(offset, len)?;

        // SAFETY: `at` has checked that the range is the memory's.
        unsafe { flush_caches(at, len) }
    }

    /// Puts the pages that are wholly inside of the `len` bytes from `offset` on back into the
    /// kernel's map, if they are not all in it, and takes their HWPoison flag away, whether or not
    /// they have it.
    ///
    /// To be called when their errors have been cleared. Sleeps.
    pub(crate) fn restore_pages(&self, offset: usize, len: usize) -> Result {
        let mapped = self.is_mapped(offset, len)?;

        self.for_each_frame(offset, len, |pfn| {
            // SAFETY: The page is one of ours, and has a `struct page`.
            unsafe { page::restore_page(pfn, mapped) };
            Ok(())
        })
    }

    /// Calls `change` with the page frames that are wholly inside of the `len` bytes from `offset` on,
    /// if they have `struct page`s, until it fails.
    fn for_each_frame(&self, offset: usize, len: usize, change: impl Fn(u64) -> Result) -> Result {
        self.at(offset, len)?;
        if !self.has_pages() {
            return Ok(());
        }
        // No overflow: inside of one range of physical addresses.
        let start = self.phys.wrapping_add(offset as u64);
        let end = start.wrapping_add(len as u64);
        let first = start.wrapping_add(PAGE_SIZE as u64 - 1) >> PAGE_SHIFT;

        (first..(end >> PAGE_SHIFT)).try_for_each(change)
    }

    /// Does with the pages that are wholly inside of the `len` bytes from `offset` on what the kernel
    /// does when a machine check hits them: its memory-failure recovery, and out of its map.
    ///
    /// `EOPNOTSUPP` where there is no recovery. Sleeps.
    pub(crate) fn poison_pages(&self, offset: usize, len: usize) -> Result {
        self.for_each_frame(offset, len, |pfn| {
            // SAFETY: The page is one of ours, and has a `struct page`.
            unsafe { page::poison_page(pfn) }
        })
    }

    /// Whether the kernel's map has all pages of the `len` bytes from `offset` on.
    ///
    /// Slow: walks the page table.
    pub(crate) fn is_mapped(&self, offset: usize, len: usize) -> Result<bool> {
        self.unmapped(offset, len).map(|hole| hole.is_none())
    }

    /// The first of the `len` bytes from `offset` on that the kernel's map does not have.
    pub(crate) fn unmapped(&self, offset: usize, len: usize) -> Result<Option<usize>> {
        let start = self.at(offset, len)?.as_ptr() as usize;
        let end = start.wrapping_add(len);
        let mut at = start;

        while at < end {
            let Some(next) = end_of_mapped(at) else {
                return Ok(Some(offset.wrapping_add(at.wrapping_sub(start))));
            };
            at = next;
        }
        Ok(None)
    }
}

/// A part of a [`Memory`], which bios are served from, from its start to its end.
///
/// # Invariants
///
/// `base` is the start of `len` bytes of a [`Memory`] that lives for `'a`.
pub(crate) struct Part<'a> {
    base: NonNull<u8>,
    len: usize,
    _memory: PhantomData<&'a ()>,
}

impl Part<'_> {
    /// The number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the first bytes into a segment of a read bio, and goes on behind them. Fails as
    /// [`Memory::read_bytes`].
    #[inline]
    pub(crate) fn read(&mut self, to: &Segment<'_, ToBio>) -> Result {
        let from = self.take(to.len())?;

        // SAFETY: Both are valid for `to.len()` bytes.
        let result = unsafe { copy_mc(to.as_ptr(), from, to.len()) };
        to.flush_dcache();
        result
    }

    /// Copies a segment of a write bio, which is whole sectors, to the first bytes, past the CPU's
    /// caches, and goes on behind them.
    ///
    /// [`EIO`] if it is longer than the part, or, on x86-64, if recovery has taken a page out of the
    /// direct map; elsewhere that is an oops. The copy is durable after the next flush of the region.
    #[inline]
    pub(crate) fn write(&mut self, from: &Segment<'_, FromBio>) -> Result {
        let to = self.take(from.len())?;

        from.flush_dcache();
        // SAFETY: `take` has checked that `to` has `from.len()` bytes, which the memory maps but for
        // single pages; a segment is valid for its length.
        unsafe { copy_flushcache(to, from.as_ptr(), from.len()) }
    }

    /// Zeroes all of it, which must be whole sectors, past the CPU's caches. Fails, and is durable,
    /// as [`Self::write`].
    pub(crate) fn zero(self) -> Result {
        if (self.base.as_ptr() as usize | self.len) % ZEROED_AT_ONCE != 0 {
            return Err(EIO);
        }
        // SAFETY: By the type invariant, but for single pages; the length was checked.
        unsafe { zero_flushcache(self.base, self.len) }
    }

    /// Splits off the first `len` bytes; where they are.
    #[inline]
    fn take(&mut self, len: usize) -> Result<NonNull<u8>> {
        let base = self.base;

        // INVARIANT: `len` bytes less, from `len` bytes farther on.
        self.len = self.len.checked_sub(len).ok_or(EIO)?;
        // SAFETY: It was as long as that.
        self.base = unsafe { base.add(len) };
        Ok(base)
    }
}

/// The end of the page, of whatever size, that the kernel's map has at the address `at`; `None` if
/// it has none there.
#[cfg(CONFIG_X86_64)]
fn end_of_mapped(at: usize) -> Option<usize> {
    let mut level: c_uint = 0;

    // SAFETY: Any kernel address may be looked up; the tables of a mapping that is in use are not
    // freed.
    let pte = unsafe { bindings::lookup_address(at, &mut level) };
    // SAFETY: A pointer that is not null points to a live entry, which others may change.
    if pte.is_null() || unsafe { (&raw const (*pte).pte).read_volatile() } & PRESENT == 0 {
        return None;
    }
    // Level 1 is a page, each further one 512 times as large (Intel SDM volume 3, 4.5).
    let size = PAGE_SIZE.checked_shl(level.saturating_sub(1).saturating_mul(9))?;

    (at | size.wrapping_sub(1)).checked_add(1)
}

/// Other architectures do not take pages out of the map.
#[cfg(not(CONFIG_X86_64))]
fn end_of_mapped(_at: usize) -> Option<usize> {
    Some(usize::MAX)
}

/// The bit of a page table entry that says that there is a page.
#[cfg(CONFIG_X86_64)]
const PRESENT: usize = 1;

/// The number of bytes in a range of physical addresses; [`EINVAL`] if it is empty or too large.
fn len_of(range: &RangeInclusive<u64>) -> Result<usize> {
    range
        .end()
        .checked_sub(*range.start())
        .and_then(|len| len.checked_add(1))
        .and_then(|len| usize::try_from(len).ok())
        .ok_or(EINVAL)
}

/// A mapping of memory that has no `struct page`s, undone when dropped.
///
/// # Invariants
///
/// `base` is what `memremap` gave for the memory, and was not unmapped.
struct Remapped {
    base: NonNull<u8>,
}

impl Remapped {
    fn new(phys: u64, len: usize) -> Result<Self> {
        // SAFETY: Any physical range may be asked for.
        let base = unsafe { bindings::memremap(phys, len, bindings::ARCH_MEMREMAP_PMEM) };

        // INVARIANT: Mapped here, unless it is null.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENXIO)?,
        })
    }
}

impl Drop for Remapped {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is mapped, and it is unmapped only here.
        unsafe { bindings::memunmap(self.base.as_ptr().cast()) };
    }
}
