// SPDX-License-Identifier: GPL-2.0

//! Regions: flushing, and the badrange list of the bus.

use crate::abstractions::{
    badblocks::BadBlocks,
    bindings,
    block::Bio, //
};
use core::ops::Range;
use kernel::{
    error::to_result,
    prelude::*,
    sync::SpinLock,
    types::Opaque, //
};

/// A region: interleaved memory that is flushed, and becomes read-only, as a whole.
///
/// # Invariants
///
/// An instance is a valid `struct nd_region` that is bound to its driver.
#[repr(transparent)]
pub(crate) struct Region(Opaque<bindings::nd_region>);

// SAFETY: libnvdimm takes its own locks for flushes and lists; the other fields do not change.
unsafe impl Sync for Region {}

/// The state of a flush for a [`Bio`].
pub(crate) enum Flushed<'a> {
    /// The flush is complete. The caller gets the bio back.
    Done(Bio<'a>, Result),
    /// The flush continues in the background, and ends the bio.
    Pending,
}

impl Region {
    fn as_raw(&self) -> *mut bindings::nd_region {
        self.0.get()
    }

    /// Makes all earlier writes of this CPU durable, and those that other CPUs have fenced. May sleep
    /// where the provider flushes asynchronously.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: By the type invariant the region is valid. A null bio asks for a synchronous flush.
        match unsafe { bindings::nvdimm_flush(self.as_raw(), core::ptr::null_mut()) } {
            // Success is inlined: `to_result` is a call.
            0 => Ok(()),
            rc => to_result(rc),
        }
    }

    /// Flushes like [`Self::flush`], but an asynchronous flush continues in the background and ends the
    /// bio.
    pub(crate) fn flush_for<'a>(&self, bio: Bio<'a>) -> Flushed<'a> {
        let bio = bio.into_raw();

        // SAFETY: By the type invariant the region is valid. `into_raw` has given up the bio, which the
        // provider owns from here on if it returns `NVDIMM_FLUSH_ASYNC`.
        let rc = unsafe { bindings::nvdimm_flush(self.as_raw(), bio.as_ptr()) };
        if rc == bindings::NVDIMM_FLUSH_ASYNC as c_int {
            return Flushed::Pending;
        }
        // SAFETY: The flush is not pending, so the provider has not taken the bio.
        let bio = unsafe { Bio::from_raw(bio) };
        match rc {
            0 => Flushed::Done(bio, Ok(())),
            rc => Flushed::Done(bio, to_result(rc)),
        }
    }

    /// Returns whether writes need a flush to be durable. [`ENXIO`] if that is unknown.
    pub(crate) fn has_flush(&self) -> Result<bool> {
        // SAFETY: By the type invariant the region is valid.
        let rc = unsafe { bindings::nvdimm_has_flush(self.as_raw()) };

        to_result(rc).map(|()| rc > 0)
    }

    /// Returns whether a power failure loses the CPU caches (ADR), so that stores must be written back.
    pub(crate) fn has_cache(&self) -> bool {
        // SAFETY: By the type invariant the region is valid.
        unsafe { bindings::nvdimm_has_cache(self.as_raw()) != 0 }
    }

    /// Returns whether a store is durable once it has left the CPU caches, without an asynchronous flush
    /// by the provider.
    pub(crate) fn is_synchronous(&self) -> bool {
        // SAFETY: By the type invariant the region is valid.
        unsafe { bindings::is_nvdimm_sync(self.as_raw()) }
    }

    fn bus(&self) -> *mut bindings::nvdimm_bus {
        // SAFETY: By the type invariant the region is valid. Its parent is its bus.
        unsafe { bindings::to_nvdimm_bus((*self.as_raw()).dev.parent) }
    }

    /// Returns whether the bus has commands. If not, its provider can't clear poison, and reports none.
    pub(crate) fn has_commands(&self) -> bool {
        // SAFETY: By the type invariant the region is bound; its bus and the descriptor outlive it.
        unsafe { (*(*self.bus()).nd_desc).ndctl.is_some() }
    }

    /// Takes the lock of the bus, with which libnvdimm walks its badrange list. Sleeps.
    pub(crate) fn lock_bus(&self) -> Bus<'_> {
        // SAFETY: By the type invariant the region is valid, and so is its bus, which outlives it.
        unsafe { bindings::nvdimm_bus_lock(&raw mut (*self.as_raw()).dev) };
        // INVARIANT: The lock was just taken.
        Bus(self)
    }

    /// The bad blocks of the region, which has all its namespaces.
    fn badblocks(&self) -> &BadBlocks {
        // SAFETY: By the type invariant the region is bound: its driver initialises `bb` before it creates
        // the namespaces.
        unsafe { BadBlocks::from_raw(&raw mut (*self.as_raw()).bb) }
    }

    /// Converts physical addresses to sectors of the region: the first one, and the number.
    fn sectors(&self, addresses: &Range<u64>) -> (u64, u64) {
        // SAFETY: By the type invariant the region is valid; its start does not change.
        let base = unsafe { (*self.as_raw()).ndr_start };
        let start = addresses.start.saturating_sub(base) >> 9;
        let end = addresses.end.saturating_sub(base).div_ceil(512);

        (start, end.saturating_sub(start))
    }

    /// Wakes pollers of the region's `badblocks`.
    pub(crate) fn notify_badblocks(&self) {
        // SAFETY: By the type invariant the region is bound, and its driver holds a reference to the
        // file until it is unbound.
        unsafe {
            let file = (&raw const (*self.as_raw()).bb_state).read_volatile();

            if !file.is_null() {
                kernel::bindings::kernfs_notify(file);
            }
        }
    }
}

/// The locked bus of a region.
///
/// # Invariants
///
/// The lock of the region's bus is held.
pub(crate) struct Bus<'a>(&'a Region);

impl Bus<'_> {
    /// Returns the parts of the badrange list that are in the physical addresses `within`. [`ENOMEM`].
    pub(crate) fn badranges(&self, within: &Range<u64>) -> Result<KVVec<Range<u64>>> {
        let mut entries = KVVec::new();

        loop {
            let mut missing = 0_usize;

            entries.clear();
            self.for_each_badrange(|entry| {
                let entry = entry.start.max(within.start)..entry.end.min(within.end);

                if !entry.is_empty() && entries.push_within_capacity(entry).is_err() {
                    missing = missing.saturating_add(1);
                }
            });
            if missing == 0 {
                return Ok(entries);
            }
            entries = KVVec::with_capacity(entries.len().saturating_add(missing), GFP_KERNEL)?;
        }
    }

    /// Calls `see`, which must not sleep, with the physical addresses of each entry of the badrange list.
    fn for_each_badrange(&self, mut see: impl FnMut(Range<u64>)) {
        // SAFETY: The bus outlives the region, and was registered with an initialised `badrange`.
        let badrange = unsafe { &raw mut (*self.0.bus()).badrange };
        // SAFETY: `badrange_init` has initialised the lock, a `spinlock_t` like that of a `SpinLock<()>`. It
        // is valid for as long as the bus.
        let lock = unsafe { SpinLock::<()>::from_raw(&raw mut (*badrange).lock) };
        let guard = lock.lock();
        // SAFETY: `badrange_init` has initialised the list, which changes with `badrange->lock` held only.
        let mut node = unsafe { (*badrange).list.next };

        // SAFETY: `badrange` is valid; this takes the address of a field.
        while node != unsafe { &raw mut (*badrange).list } {
            // SAFETY: Each node but the head is the field `list` of a `badrange_entry`, which is freed only
            // with `badrange->lock` held, as it is here.
            let entry = unsafe { &*kernel::container_of!(node, bindings::badrange_entry, list) };

            see(entry.start..entry.start.saturating_add(entry.length));
            node = entry.list.next;
        }
        drop(guard);
    }

    /// Adds the physical `addresses` to the badrange list, and to the bad blocks of the region.
    /// [`ENOMEM`].
    pub(crate) fn add_badrange(&self, addresses: &Range<u64>) -> Result {
        let len = addresses.end.saturating_sub(addresses.start);
        let mut known = false;

        // `badrange_add` sets the length of an entry with the same start, also to a smaller one. Do not
        // shorten an entry of the provider.
        if self.0.has_commands() {
            self.for_each_badrange(|entry| {
                known |= entry.start <= addresses.start && entry.end >= addresses.end;
            });
        }
        if !known {
            // SAFETY: The bus is valid, as it outlives the region.
            to_result(unsafe {
                bindings::nvdimm_bus_add_badrange(self.0.bus(), addresses.start, len)
            })?;
        }
        let (start, len) = self.0.sectors(addresses);
        // Best effort: a full table has no room for it.
        let _ = self.0.badblocks().set(start, len);
        Ok(())
    }

    /// Removes the physical `addresses`, which are whole sectors, from the badrange list and from the bad
    /// blocks of the region.
    pub(crate) fn forget_badrange(&self, addresses: &Range<u64>) {
        let mut start = addresses.start;

        while start < addresses.end {
            let len = u32::try_from(addresses.end.wrapping_sub(start)).unwrap_or(1 << 31);

            // SAFETY: The bus is valid, as it outlives the region. Its lock is held: others who walk the
            // list hold it as well, or `badrange->lock`, which the call takes.
            unsafe { bindings::badrange_forget(&raw mut (*self.0.bus()).badrange, start, len) };
            start = start.saturating_add(len.into());
        }
        let (mut start, len) = self.0.sectors(addresses);
        let end = start.saturating_add(len);
        let table = self.0.badblocks();

        // `badblocks_clear` keeps an entry that it has no room to split, and nothing would ever remove it.
        // Remove the whole entry, then add the parts that remain, if they fit.
        while let Some((first, count)) = table.entry_in(start, end.saturating_sub(start)) {
            let behind = first.saturating_add(count);

            table.clear(first, count);
            let _ = table.set(first, start.saturating_sub(first));
            let _ = table.set(end, behind.saturating_sub(end));
            start = behind.max(start.saturating_add(1));
        }
    }
}

impl Drop for Bus<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held.
        unsafe { bindings::nvdimm_bus_unlock(&raw mut (*self.0.as_raw()).dev) };
    }
}
