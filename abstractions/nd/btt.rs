// SPDX-License-Identifier: GPL-2.0

//! Block translation tables, which `nd_btt` serves.

use super::{
    namespace::InfoAccess,
    Device,
    Namespace, //
};
use crate::abstractions::{
    badblocks::BadblocksTable,
    bindings,
    scope::{
        Registered,
        Scope,
        Scoped, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Core,
        DeviceContext, //
    },
    error::to_result,
    prelude::*, //
};

impl<Ctx: DeviceContext> Device<Ctx> {
    /// Returns whether this is a btt device, which has claimed a namespace.
    pub(crate) fn is_btt(&self) -> bool {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::is_nd_btt(self.as_raw()) }
    }
}

impl InfoAccess<'_> {
    /// Searches for the info block of a BTT; fails as [`Self::ensure_not_found`] does.
    pub(crate) fn ensure_no_btt(&self) -> Result {
        // SAFETY: By the type invariant the lock of `dev` is held, and its namespace is enabled.
        Self::ensure_not_found(|| unsafe { bindings::nd_btt_probe(self.dev, self.ndns) })
    }
}

/// A block translation table that serves its namespace: sector mode.
///
/// `nd_btt` has the disk, its data path and its metadata.
///
/// # Invariants
///
/// `btt` is a btt device that is bound for `'bound`. It has claimed a namespace, which is enabled
/// until after `'bound`.
pub(crate) struct Btt<'bound> {
    btt: NonNull<bindings::nd_btt>,
    _dev: PhantomData<&'bound Device<Bound>>,
}

// SAFETY: Any thread may detach the BTT, which waits for the users of the disk.
unsafe impl Send for Btt<'_> {}
// SAFETY: The bad blocks have their own lock. The other methods require the device lock, as `Core`.
unsafe impl Sync for Btt<'_> {}

impl<'bound> Btt<'bound> {
    /// Starts the disk of a btt device. [`ENXIO`] if it is none.
    pub(crate) fn attach(
        ns: &Namespace<'bound, '_>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>> {
        if !ns.dev.is_btt() {
            return Err(ENXIO);
        }
        // SAFETY: The device is a btt device, as checked above.
        let btt = unsafe { bindings::to_nd_btt(ns.dev.as_raw()) };
        // INVARIANT: By the type invariant of `Namespace` the BTT has claimed it. `attach_btt`
        // enables it, and devres disables it after the scope has ended.
        let this = Self {
            btt: NonNull::new(btt).ok_or(ENXIO)?,
            _dev: PhantomData,
        };

        Scoped::new(scope, this, |_| {
            // SAFETY: The device is a BTT that has claimed the namespace. Its lock is held: the
            // context of `Namespace::dev` is `Core`.
            to_result(unsafe { bindings::nvdimm_namespace_attach_btt(ns.as_raw()) })
        })
    }

    /// Returns the disk, if `dev` is the device of the BTT and the disk exists.
    fn disk(&self, dev: &Device<Core<'_>>) -> Option<NonNull<kernel::bindings::gendisk>> {
        // SAFETY: By the type invariant the BTT is valid; this takes the address of a field.
        if unsafe { &raw mut (*self.btt.as_ptr()).dev } != dev.as_raw() {
            return None;
        }
        // SAFETY: By the type invariant the BTT is valid. Dropping the handle, which is borrowed as
        // `self`, detaches it, or the scope does, with the device lock held, as it is here. So it
        // has a disk, or `btt` is null.
        unsafe {
            let btt = (*self.btt.as_ptr()).btt;

            btt.as_ref().and_then(|btt| NonNull::new(btt.btt_disk))
        }
    }

    /// Returns the bad blocks that the BTT consults, in sectors of the namespace.
    pub(crate) fn badblocks(&self) -> &'bound BadblocksTable {
        // SAFETY: By the type invariant the namespace is enabled, so that `bb` is initialised.
        // devres frees it after `'bound`.
        unsafe {
            let nsio = (*self.btt.as_ptr())
                .ndns
                .cast::<bindings::nd_namespace_io>();

            BadblocksTable::from_raw(&raw mut (*nsio).bb)
        }
    }

    /// Makes the BTT's disk read-only, or writable again, as its region is.
    pub(crate) fn follow_read_only(&self, dev: &Device<Core<'_>>) {
        if let Some(disk) = self.disk(dev) {
            // SAFETY: `disk` returns a valid disk. Its parent is `dev`, whose parent is a region.
            unsafe { bindings::nvdimm_check_and_set_ro(disk.as_ptr()) };
        }
    }

    /// Makes the BTT's disk read-only.
    pub(crate) fn set_read_only(&self, dev: &Device<Core<'_>>) {
        if let Some(disk) = self.disk(dev) {
            // SAFETY: `disk` returns a valid disk, which stays while the device lock is held.
            unsafe { kernel::bindings::set_disk_ro(disk.as_ptr(), true) };
        }
    }
}

// SAFETY: After the BTT is detached, there is no disk that uses it. Its bad blocks are those of the
// namespace, which stay until after `'bound`. The other methods check whether there is a disk.
unsafe impl Registered for Btt<'_> {
    unsafe fn unregister(&self) {
        // SAFETY: `Registered::unregister` requires that the value is registered, so the BTT is
        // attached. It is detached only here.
        unsafe { bindings::nvdimm_namespace_detach_btt(self.btt.as_ptr()) };
    }
}
