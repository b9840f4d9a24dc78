// SPDX-License-Identifier: GPL-2.0

//! Regions: flushing, and their bad blocks.

use crate::abstractions::{
    badblocks::BadblocksTable,
    bindings,
    block::Bio, //
};
use core::ops::Range;
use kernel::{
    block::{
        SECTOR_SHIFT,
        SECTOR_SIZE, //
    },
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// A region: interleaved memory that is flushed, and becomes read-only, as a whole.
///
/// # Invariants
///
/// An instance is a valid `struct nd_region` that is bound to its driver. (In 7.2 and 7.3 it is not
/// if `nd_region_probe` fails after it has created namespaces, for want of memory for two of them:
/// it does not remove those that it has.)
#[repr(transparent)]
pub(crate) struct Region(Opaque<bindings::nd_region>);

// SAFETY: libnvdimm takes its own locks for flushes and lists. Only one of the other fields that
// are read here changes: `bb_state`, which is read by one volatile load.
unsafe impl Sync for Region {}

impl Region {
    pub(super) fn as_raw(&self) -> *mut bindings::nd_region {
        self.0.get()
    }

    /// Makes all earlier writes of this CPU durable, and those that other CPUs have fenced. May
    /// sleep where the provider flushes asynchronously.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: By the type invariant the region is valid. A null bio asks for a synchronous
        // flush.
        match unsafe { bindings::nvdimm_flush(self.as_raw(), core::ptr::null_mut()) } {
            // Success is inlined: `to_result` is a call.
            0 => Ok(()),
            rc => to_result(rc),
        }
    }

    /// Flushes like [`Self::flush`], then ends the bio. An asynchronous flush continues in the
    /// background, and the provider ends the bio.
    pub(crate) fn flush_then_end(&self, bio: Bio<'_>) {
        let bio = bio.into_raw();

        // SAFETY: By the type invariant the region is valid. `into_raw` has given up the bio, which
        // the provider owns from here on if it returns `NVDIMM_FLUSH_ASYNC`.
        let rc = unsafe { bindings::nvdimm_flush(self.as_raw(), bio.as_ptr()) };
        if rc == bindings::NVDIMM_FLUSH_ASYNC as c_int {
            return;
        }
        // SAFETY: The flush is not pending, so the provider has not taken the bio.
        let bio = unsafe { Bio::from_raw(bio) };

        bio.end(match rc {
            // Success is inlined: `to_result` is a call.
            0 => Ok(()),
            rc => to_result(rc),
        });
    }

    /// Returns whether writes need a flush to be durable. [`ENXIO`] if that is unknown.
    pub(crate) fn has_flush(&self) -> Result<bool> {
        // SAFETY: By the type invariant the region is valid.
        let rc = unsafe { bindings::nvdimm_has_flush(self.as_raw()) };

        to_result(rc).map(|()| rc > 0)
    }

    /// Returns whether a power failure loses the CPU caches (ADR), so that stores must be written
    /// back.
    pub(crate) fn has_cache(&self) -> bool {
        // SAFETY: By the type invariant the region is valid.
        unsafe { bindings::nvdimm_has_cache(self.as_raw()) != 0 }
    }

    /// Returns whether a store is durable once it has left the CPU caches, without an asynchronous
    /// flush by the provider.
    pub(crate) fn is_synchronous(&self) -> bool {
        // SAFETY: By the type invariant the region is valid.
        unsafe { bindings::is_nvdimm_sync(self.as_raw()) }
    }

    pub(super) fn bus(&self) -> *mut bindings::nvdimm_bus {
        // SAFETY: By the type invariant the region is valid. Its parent is its bus.
        unsafe { bindings::to_nvdimm_bus((*self.as_raw()).dev.parent) }
    }

    /// Returns whether the bus has commands. If not, its provider can't clear poison, and reports
    /// none.
    pub(crate) fn has_commands(&self) -> bool {
        // SAFETY: By the type invariant the region is bound; its bus and the descriptor outlive it.
        unsafe { (*(*self.bus()).nd_desc).ndctl.is_some() }
    }

    /// Returns whether the bus has a clear-error command (ACPI 6.5, 9.20.7.6).
    pub(crate) fn has_clear_error(&self) -> bool {
        // SAFETY: By the type invariant the region is bound; its bus and the descriptor outlive it.
        // Providers set the mask before they register the bus.
        let commands = unsafe { (*(*self.bus()).nd_desc).cmd_mask };

        commands & (1 << bindings::ND_CMD_CLEAR_ERROR) != 0
    }

    /// The bad blocks of the region, which has all its namespaces.
    pub(super) fn badblocks(&self) -> &BadblocksTable {
        // SAFETY: By the type invariant the region is bound: its driver initialises `bb` before it
        // creates the namespaces.
        unsafe { BadblocksTable::from_raw(&raw mut (*self.as_raw()).bb) }
    }

    /// The size in bytes.
    pub(super) fn size(&self) -> u64 {
        // SAFETY: By the type invariant the region is valid; its size does not change.
        unsafe { (*self.as_raw()).ndr_size }
    }

    /// The physical address of its first byte.
    pub(super) fn start(&self) -> u64 {
        // SAFETY: By the type invariant the region is valid; its start does not change.
        unsafe { (*self.as_raw()).ndr_start }
    }

    /// Converts physical addresses to sectors of the region.
    pub(super) fn sectors(&self, addresses: &Range<u64>) -> Range<u64> {
        let base = self.start();
        let start = addresses.start.saturating_sub(base) >> SECTOR_SHIFT;
        let end = addresses
            .end
            .saturating_sub(base)
            .div_ceil(SECTOR_SIZE.into());

        start..end
    }

    /// Wakes pollers of the region's `badblocks`.
    pub(crate) fn notify_badblocks(&self) {
        // SAFETY: By the type invariant the region is bound, and its driver holds a reference to
        // the file until it is unbound.
        unsafe {
            let file = (&raw const (*self.as_raw()).bb_state).read_volatile();

            if !file.is_null() {
                kernel::bindings::kernfs_notify(file);
            }
        }
    }
}
