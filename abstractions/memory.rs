// SPDX-License-Identifier: GPL-2.0

//! Mapped persistent memory.
//!
//! C header: [`include/linux/io.h`](srctree/include/linux/io.h)

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
    device::NumaNode,
    iomem::Claim,
    memremap::{
        DevPagemap, //
        Layout,
        MemoryFailure,
    },
    page,
    scope::Scope, //
};
use core::{
    marker::PhantomData,
    ops::RangeInclusive,
    ptr::NonNull, //
};
use kernel::{
    block::SECTOR_SIZE,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Whether a read of memory that fails is an error, and does not end the kernel.
pub(crate) const READS_SURVIVE_POISON: bool = cfg!(CONFIG_X86_64);

/// Persistent memory that is mapped into the kernel. Offsets are in bytes from its start.
///
/// # Invariants
///
/// `base` is the start of `len` bytes that stay mapped, cached and writable for as long as the
/// value lives, and that no reference points to. Machine-check recovery may unmap single pages of
/// them from the direct map, so only copies that survive that may access them.
pub(crate) struct Memory<'bound, H: MemoryFailure> {
    base: NonNull<u8>,
    len: usize,
    phys: u64,
    backing: Backing<'bound, H>,
}

/// The mapping. Dropping it unmaps the memory, then releases its claim.
enum Backing<'bound, H: MemoryFailure> {
    Pages(DevPagemap<'bound, H>),
    NoPages(#[expect(dead_code, reason = "held to be dropped")] (Remapped, Claim)),
}

// SAFETY: The memory belongs to the device, not to a thread. Any thread may unmap it.
unsafe impl<H: MemoryFailure> Send for Memory<'_, H> {}
// SAFETY: All accesses are copies in C or assembly, which may race with each other and with user
// space as accesses to a disk may: the result is any of the values.
unsafe impl<H: MemoryFailure> Sync for Memory<'_, H> {}

impl<'bound, H: MemoryFailure + 'bound> Memory<'bound, H> {
    /// Maps the claimed physical addresses without `struct page`s, and holds `claim` until they are
    /// unmapped, before `_scope` ends. [`ENXIO`] if they can't be mapped.
    pub(crate) fn remap(claim: Claim, _scope: &'bound Scope<'bound>) -> Result<Self> {
        let range = claim.range();
        let len = len_of(&range)?;
        let mapping = Remapped::new(*range.start(), len)?;

        // INVARIANT: `mapping` has `len` bytes mapped from `base` on until it is dropped.
        Ok(Self {
            base: mapping.base,
            len,
            phys: *range.start(),
            backing: Backing::NoPages((mapping, claim)),
        })
    }

    /// Maps the physical addresses of `layout` with `struct page`s, and returns the memory from
    /// `data_offset` on: what is in front may be the `struct page`s. Notifies `failure` of memory
    /// failures in them, and holds `claim` until they are unmapped. [`EINVAL`] if it does not cover
    /// them, or if `struct page`s are behind `data_offset`, [`ENXIO`] if nothing is, [`ENOMEM`], or
    /// another error of `memremap_pages`.
    pub(crate) fn map_pages(
        layout: Layout,
        data_offset: u64,
        node: NumaNode,
        claim: Claim,
        failure: H,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let range = layout.range();
        let mapped = len_of(&range)?;
        let claimed = claim.range();

        if range.start() < claimed.start() || range.end() > claimed.end() {
            return Err(EINVAL);
        }
        if let Some(memmap) = layout.memmap() {
            if range.start().saturating_add(data_offset) < memmap.end {
                return Err(EINVAL);
            }
        }
        let offset = usize::try_from(data_offset).map_err(|_| ENXIO)?;
        let len = mapped
            .checked_sub(offset)
            .filter(|len| *len > 0)
            .ok_or(ENXIO)?;
        let mapping = DevPagemap::new(layout, node, claim, failure, scope)?;

        // INVARIANT: `mapping` has `len` bytes mapped behind the first `offset` until it is
        // dropped.
        Ok(Self {
            // SAFETY: `offset` is less than the length of the mapping, as checked above.
            base: unsafe { mapping.base().add(offset) },
            len,
            // No overflow: both are inside of one range of physical addresses.
            phys: range.start().wrapping_add(data_offset),
            backing: Backing::Pages(mapping),
        })
    }

    /// Returns the physical address of the first byte.
    pub(crate) fn phys(&self) -> u64 {
        self.phys
    }

    /// Returns whether the memory has `struct page`s.
    pub(crate) fn has_pages(&self) -> bool {
        matches!(self.backing, Backing::Pages(_))
    }

    /// Returns the length in bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the address of the `len` bytes at `offset`: the bounds check of all accesses.
    /// [`EIO`] if they are not inside of the memory.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> Result<NonNull<u8>> {
        match self.len.checked_sub(offset) {
            // SAFETY: `offset <= self.len`, as the subtraction has not overflowed.
            Some(rest) if len <= rest => Ok(unsafe { self.base.add(offset) }),
            _ => Err(EIO),
        }
    }

    /// Returns the addresses of the pages from `offset`, in pages, to the end. [`ENXIO`] if there
    /// are none.
    #[inline]
    pub(crate) fn pages_from(&self, offset: u64) -> Result<Translation<'_>> {
        let pages = ((self.len >> PAGE_SHIFT) as u64)
            .checked_sub(offset)
            .filter(|pages| *pages > 0)
            .ok_or(ENXIO)?;

        // INVARIANT: The pages are inside of the memory, which the result borrows.
        Ok(Translation {
            // SAFETY: `offset` is less than the number of pages, so the shift does not overflow,
            // and the result is inside of the memory.
            address: unsafe { self.base.add((offset as usize) << PAGE_SHIFT) }.cast(),
            pfn: (self.phys >> PAGE_SHIFT).wrapping_add(offset),
            pages,
            chunks: match &self.backing {
                Backing::Pages(mapping) => Some(mapping.chunks()),
                Backing::NoPages(_) => None,
            },
        })
    }

    /// Returns the `len` bytes from the 512-byte sector `sector` on. [`EIO`] if they are not inside
    /// of the memory.
    #[inline]
    pub(crate) fn sectors(&self, sector: u64, len: u32) -> Result<Part<'_>> {
        let offset = usize::try_from(sector)
            .ok()
            // CAST: no value is changed.
            .and_then(|sector| sector.checked_mul(SECTOR_SIZE as usize))
            .ok_or(EIO)?;

        self.part(offset, len as usize)
    }

    /// Returns the `len` bytes at `offset`. [`EIO`] if they are not inside of the memory.
    #[inline]
    pub(crate) fn part(&self, offset: usize, len: usize) -> Result<Part<'_>> {
        let base = self.at(offset, len)?;

        // INVARIANT: `at` has checked that they are inside of the memory, which the result borrows.
        Ok(Part {
            base,
            len,
            _memory: PhantomData,
        })
    }

    /// Fills `to` with the bytes at `offset`.
    ///
    /// [`EIO`] if the memory fails during the copy: with a machine check, or with a fault where
    /// recovery has unmapped the page from the direct map. That is an oops unless
    /// [`READS_SURVIVE_POISON`]. [`EINVAL`] for 4 GiB or more.
    pub(crate) fn read_bytes(&self, offset: usize, to: &mut [u8]) -> Result {
        let from = self.at(offset, to.len())?;

        if to.len() > u32::MAX as usize {
            return Err(EINVAL);
        }
        // SAFETY: `to` is a slice of that length, less than 4 GiB. `at` has checked that the memory
        // has as many bytes at `from`.
        unsafe { copy_mc(NonNull::from(&mut *to).cast(), from, to.len()) }
    }

    /// Copies `from` to the bytes at `offset`. See [`Part::write`] for errors and durability.
    /// [`EINVAL`] for 4 GiB or more.
    pub(crate) fn write_bytes(&self, offset: usize, from: &[u8]) -> Result {
        let to = self.at(offset, from.len())?;

        if from.len() > u32::MAX as usize {
            return Err(EINVAL);
        }
        // SAFETY: `from` is a slice. `at` has checked that the memory has as many bytes at `to`,
        // which may be written where they are mapped.
        unsafe { copy_flushcache(to, NonNull::from(from).cast(), from.len()) }
    }

    /// Writes back and invalidates the CPU caches of the `len` bytes at `offset`, so that the next
    /// read reads the memory.
    pub(crate) fn invalidate_caches(&self, offset: usize, len: usize) -> Result {
        let at = self.at(offset, len)?;

        // SAFETY: `at` has checked that the range is inside of the memory.
        unsafe { flush_caches(at, len) }
    }

    /// Maps the whole pages in the `len` bytes at `offset` in the direct map again, and clears
    /// their HWPoison flag. To be called after their poison is cleared. [`EIO`] if a page is still
    /// not mapped then. Sleeps.
    pub(crate) fn restore_pages(&self, offset: usize, len: usize) -> Result {
        let mapped = self.is_mapped(offset, len)?;

        self.for_each_frame(offset, len, |pfn| {
            // SAFETY: `for_each_frame` calls this with pfns of this memory, which has `struct
            // page`s.
            unsafe { page::restore_page(pfn, mapped) };
            Ok(())
        })?;
        match self.is_mapped(offset, len)? {
            true => Ok(()),
            false => Err(EIO),
        }
    }

    /// Calls `change` with the pfns of the whole pages in the `len` bytes at `offset` until it
    /// fails. Does nothing without `struct page`s.
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

    /// Handles the whole pages in the `len` bytes at `offset` as the kernel does after a machine
    /// check: memory-failure recovery, then unmapped from the direct map. `EOPNOTSUPP` if the
    /// kernel has no recovery. Sleeps.
    pub(crate) fn poison_pages(&self, offset: usize, len: usize) -> Result {
        self.for_each_frame(offset, len, |pfn| {
            // SAFETY: `for_each_frame` calls this with pfns of this memory, which has `struct
            // page`s.
            unsafe { page::poison_page(pfn) }
        })
    }

    /// Returns whether all of the `len` bytes at `offset` are in the direct map. Slow: walks page
    /// tables.
    pub(crate) fn is_mapped(&self, offset: usize, len: usize) -> Result<bool> {
        self.unmapped(offset, len).map(|hole| hole.is_none())
    }

    /// Returns the offset of the first of the `len` bytes at `offset` that is not in the direct
    /// map.
    #[inline(never)]
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

/// A range of a [`Memory`] that is copied from its start to its end.
///
/// It is the proof of the bounds check: the copies only check that a segment is not longer than
/// what remains of the range.
///
/// # Invariants
///
/// `base` is the start of `len` bytes of a [`Memory`] that is borrowed for `'a`.
pub(crate) struct Part<'a> {
    base: NonNull<u8>,
    len: usize,
    _memory: PhantomData<&'a ()>,
}

impl Part<'_> {
    /// Returns the number of bytes that remain.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the next bytes into a segment of a read bio. See [`Memory::read_bytes`] for errors.
    #[inline]
    pub(crate) fn read(&mut self, to: &Segment<'_, ToBio>) -> Result {
        let from = self.take(to.len())?;

        // SAFETY: By its type invariant the segment is valid for its length, which is less than 4
        // GiB. `take` has checked that the memory has as many bytes at `from`.
        let result = unsafe { copy_mc(to.as_ptr(), from, to.len()) };
        to.flush_dcache();
        result
    }

    /// Copies a segment of a write bio to the next bytes, past the CPU caches. It is durable after
    /// the next flush of the region.
    ///
    /// [`EIO`] if it is longer than the range, or if recovery has unmapped a page from the direct
    /// map (on x86-64; elsewhere that is an oops).
    #[inline]
    pub(crate) fn write(&mut self, from: &Segment<'_, FromBio>) -> Result {
        let to = self.take(from.len())?;

        from.flush_dcache();
        // SAFETY: By its type invariant the segment is valid for its length. `take` has checked
        // that the memory has as many bytes at `to`, which may be written where they are mapped.
        unsafe { copy_flushcache(to, from.as_ptr(), from.len()) }
    }

    /// Zeroes the range, which must be whole sectors, past the CPU caches. See [`Self::write`] for
    /// errors and durability.
    pub(crate) fn zero(self) -> Result {
        if (self.base.as_ptr() as usize | self.len) % ZEROED_AT_ONCE != 0 {
            return Err(EIO);
        }
        // SAFETY: By the type invariant `len` bytes of the memory begin at `base`, which may be
        // written where they are mapped. The alignment of both was checked.
        unsafe { zero_flushcache(self.base, self.len) }
    }

    /// Splits off the next `len` bytes, and returns their address. [`EIO`] if fewer remain.
    #[inline]
    fn take(&mut self, len: usize) -> Result<NonNull<u8>> {
        let base = self.base;

        // INVARIANT: `len` bytes less remain, behind the `len` bytes.
        self.len = self.len.checked_sub(len).ok_or(EIO)?;
        // SAFETY: At least `len` bytes remained, as checked above.
        self.base = unsafe { base.add(len) };
        Ok(base)
    }
}

/// Returns the end of the page, of any size, that is mapped at the kernel address `at`. `None` if
/// none is.
#[cfg(CONFIG_X86_64)]
fn end_of_mapped(at: usize) -> Option<usize> {
    let mut level: c_uint = 0;

    // SAFETY: Any kernel address may be looked up. Page tables of a mapping in use are not freed.
    let pte = unsafe { bindings::lookup_address(at, &mut level) };
    // SAFETY: A pointer that is not null points to a valid entry. Others may change it: one
    // volatile load.
    if pte.is_null() || unsafe { (&raw const (*pte).pte).read_volatile() } & PRESENT == 0 {
        return None;
    }
    // Level 1 is a page of 4 KiB, each further level 512 times as large (Intel SDM volume 3, 4.5).
    let size = PAGE_SIZE.checked_shl(level.saturating_sub(1).saturating_mul(9))?;

    (at | size.wrapping_sub(1)).checked_add(1)
}

/// Other architectures do not unmap pages.
#[cfg(not(CONFIG_X86_64))]
fn end_of_mapped(_at: usize) -> Option<usize> {
    Some(usize::MAX)
}

/// The bit of a page table entry that is set if a page is mapped (`_PAGE_PRESENT`).
#[cfg(CONFIG_X86_64)]
const PRESENT: usize = 1;

/// Returns the number of bytes in a range of physical addresses. [`EINVAL`] if it is empty or too
/// large.
fn len_of(range: &RangeInclusive<u64>) -> Result<usize> {
    range
        .end()
        .checked_sub(*range.start())
        .and_then(|len| len.checked_add(1))
        .and_then(|len| usize::try_from(len).ok())
        .ok_or(EINVAL)
}

/// A mapping of memory without `struct page`s, unmapped when dropped.
///
/// # Invariants
///
/// `memremap` has returned `base`, which is not unmapped.
struct Remapped {
    base: NonNull<u8>,
}

impl Remapped {
    fn new(phys: u64, len: usize) -> Result<Self> {
        // SAFETY: `memremap` returns null for a range that it can't map. The caller has claimed
        // this one.
        let base = unsafe { bindings::memremap(phys, len, bindings::ARCH_MEMREMAP_PMEM) };

        // INVARIANT: `memremap` has returned it, and it is not null.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENXIO)?,
        })
    }
}

impl Drop for Remapped {
    fn drop(&mut self) {
        // SAFETY: By the type invariant `base` is mapped. It is unmapped only here.
        unsafe { bindings::memunmap(self.base.as_ptr().cast()) };
    }
}
