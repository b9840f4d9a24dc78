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

/// A region: interleaved memory that is flushed, and goes read-only, as one.
///
/// # Invariants
///
/// An instance is a valid `struct nd_region` that is bound to its driver.
#[repr(transparent)]
pub(crate) struct Region(Opaque<bindings::nd_region>);

// SAFETY: The methods of `Region` are safe to be called from any thread.
unsafe impl Sync for Region {}

/// How a flush on behalf of a [`Bio`] went.
pub(crate) enum Flushed<'a> {
    /// It is over; here is the bio back.
    Done(Bio<'a>, Result),
    /// It goes on in the background, and ends the bio.
    Pending,
}

impl Region {
    fn as_raw(&self) -> *mut bindings::nd_region {
        self.0.get()
    }

    /// Makes all earlier writes of this CPU, and all that other CPUs have fenced, durable. May
    /// sleep where the provider's flush is asynchronous.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: By the type invariant.
        match unsafe { bindings::nvdimm_flush(self.as_raw(), core::ptr::null_mut()) } {
            // No call for that.
            0 => Ok(()),
            rc => to_result(rc),
        }
    }

    /// As [`Self::flush`], but an asynchronous flush goes on in the background and ends the bio.
    pub(crate) fn flush_for<'a>(&self, bio: Bio<'a>) -> Flushed<'a> {
        let bio = bio.into_raw();

        // SAFETY: By the type invariant; the bio is ours, and if the flush is pending its owner is
        // the provider.
        let rc = unsafe { bindings::nvdimm_flush(self.as_raw(), bio.as_ptr()) };
        if rc == bindings::NVDIMM_FLUSH_ASYNC as c_int {
            return Flushed::Pending;
        }
        // SAFETY: The flush is not pending, so the bio has been left to us.
        let bio = unsafe { Bio::from_raw(bio) };
        match rc {
            0 => Flushed::Done(bio, Ok(())),
            rc => Flushed::Done(bio, to_result(rc)),
        }
    }

    /// Whether writes need a flush to be durable. [`ENXIO`] if that can't be known.
    pub(crate) fn has_flush(&self) -> Result<bool> {
        // SAFETY: By the type invariant.
        let rc = unsafe { bindings::nvdimm_has_flush(self.as_raw()) };

        to_result(rc).map(|()| rc > 0)
    }

    /// Whether CPU caches are lost with the power, so that stores must be written back.
    pub(crate) fn has_cache(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::nvdimm_has_cache(self.as_raw()) != 0 }
    }

    /// Whether a store is durable once it is out of the CPU's caches, without a flush by the
    /// provider.
    pub(crate) fn is_synchronous(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::is_nvdimm_sync(self.as_raw()) }
    }

    fn bus(&self) -> *mut bindings::nvdimm_bus {
        // SAFETY: By the type invariant; the parent of a region is its bus.
        unsafe { bindings::to_nvdimm_bus((*self.as_raw()).dev.parent) }
    }

    /// Whether the bus has commands. If not, its provider can't clear errors, and does not know of
    /// them.
    pub(crate) fn has_commands(&self) -> bool {
        // SAFETY: A bus and its descriptor outlive the regions on it.
        unsafe { (*(*self.bus()).nd_desc).ndctl.is_some() }
    }

    /// Takes the lock of the bus, with which libnvdimm walks its badrange list. Sleeps.
    pub(crate) fn lock_bus(&self) -> Bus<'_> {
        // SAFETY: By the type invariant; the bus of a region outlives it.
        unsafe { bindings::nvdimm_bus_lock(&raw mut (*self.as_raw()).dev) };
        // INVARIANT: It was just taken.
        Bus(self)
    }

    /// The region's own list, which is that of all its namespaces.
    fn list(&self) -> &BadBlocks {
        // SAFETY: By the type invariant the region is bound: its driver initialises the list before it
        // creates the namespaces.
        unsafe { BadBlocks::from_raw(&raw mut (*self.as_raw()).bb) }
    }

    /// What the physical `addresses` are on the region's list: first sector, and length.
    fn sectors(&self, addresses: &Range<u64>) -> (u64, u64) {
        // SAFETY: By the type invariant; the start of a region does not change.
        let base = unsafe { (*self.as_raw()).ndr_start };
        let start = addresses.start.saturating_sub(base) >> 9;
        let end = addresses.end.saturating_sub(base).div_ceil(512);

        (start, end.saturating_sub(start))
    }

    /// Wakes those who poll the region's `badblocks`.
    pub(crate) fn notify_list(&self) {
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

/// The bus of a region, locked.
///
/// # Invariants
///
/// The lock of the region's bus is held until the value is dropped.
pub(crate) struct Bus<'a>(&'a Region);

impl Bus<'_> {
    /// The entries of the badrange list that touch the physical addresses `within`, cut to these.
    /// [`ENOMEM`].
    pub(crate) fn badrange(&self, within: &Range<u64>) -> Result<KVVec<Range<u64>>> {
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

    /// Calls `see` with the physical addresses of each entry of the badrange list. It must not
    /// sleep.
    fn for_each_badrange(&self, mut see: impl FnMut(Range<u64>)) {
        // SAFETY: The bus outlives the region; `badrange_init` has initialised list and lock.
        let badrange = unsafe { &raw mut (*self.0.bus()).badrange };
        // SAFETY: As above, and the lock is that of a `SpinLock<()>`: a `spinlock_t`.
        let lock = unsafe { SpinLock::<()>::from_raw(&raw mut (*badrange).lock) };
        let guard = lock.lock();
        // SAFETY: The list is initialised, its entries are embedded in `badrange_entry` at `list`,
        // and they are neither added nor freed without `badrange->lock`, which is held.
        let mut node = unsafe { (*badrange).list.next };

        // SAFETY: As above: each node but the head is a live entry.
        while node != unsafe { &raw mut (*badrange).list } {
            // SAFETY: As above.
            let entry = unsafe { &*kernel::container_of!(node, bindings::badrange_entry, list) };

            see(entry.start..entry.start.saturating_add(entry.length));
            node = entry.list.next;
        }
        drop(guard);
    }

    /// Puts the physical `addresses` on the badrange list, and on that of the region. [`ENOMEM`].
    pub(crate) fn add(&self, addresses: &Range<u64>) -> Result {
        let len = addresses.end.saturating_sub(addresses.start);
        let mut known = false;

        // An entry with the same start would get this length, even if its provider has given it more.
        if self.0.has_commands() {
            self.for_each_badrange(|entry| {
                known |= entry.start <= addresses.start && entry.end >= addresses.end;
            });
        }
        if !known {
            // SAFETY: The bus outlives the region.
            to_result(unsafe {
                bindings::nvdimm_bus_add_badrange(self.0.bus(), addresses.start, len)
            })?;
        }
        let (start, len) = self.0.sectors(addresses);
        // One that is full shows what fits.
        let _ = self.0.list().set(start, len);
        Ok(())
    }

    /// Takes the physical `addresses`, which are whole sectors, off the badrange list, and off that
    /// of the region.
    pub(crate) fn forget(&self, addresses: &Range<u64>) {
        let mut start = addresses.start;

        while start < addresses.end {
            let len = u32::try_from(addresses.end.wrapping_sub(start)).unwrap_or(1 << 31);

            // SAFETY: The bus outlives the region. Its lock is held, without which nobody walks the
            // list but under `badrange->lock`.
            unsafe { bindings::badrange_forget(&raw mut (*self.0.bus()).badrange, start, len) };
            start = start.saturating_add(len.into());
        }
        let (mut start, len) = self.0.sectors(addresses);
        let end = start.saturating_add(len);
        let list = self.0.list();

        // `badblocks_clear` keeps an entry that it has no room to split, and nobody would ever take it
        // off again: of what is left of an entry, the list gets what fits.
        while let Some((first, count)) = list.entry_in(start, end.saturating_sub(start)) {
            let behind = first.saturating_add(count);

            list.clear(first, count);
            let _ = list.set(first, start.saturating_sub(first));
            let _ = list.set(end, behind.saturating_sub(end));
            start = behind.max(start.saturating_add(1));
        }
    }
}

impl Drop for Bus<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::nvdimm_bus_unlock(&raw mut (*self.0.as_raw()).dev) };
    }
}
