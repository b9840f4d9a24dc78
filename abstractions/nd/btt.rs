// SPDX-License-Identifier: GPL-2.0

//! Block translation tables, which `nd_btt` serves.

use super::{
    Device,
    Namespace, //
};
use crate::abstractions::{
    badblocks::BadBlocks,
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
        Core, //
    },
    error::to_result,
    prelude::*, //
};

/// A block translation table that serves its namespace: sector mode.
///
/// The disk, its data path and its metadata are those of `nd_btt`.
///
/// # Invariants
///
/// `btt` is a BTT device that is bound for `'bound`, and has claimed a namespace that is enabled until
/// after `'bound`.
pub(crate) struct Btt<'bound> {
    btt: NonNull<bindings::nd_btt>,
    _dev: PhantomData<&'bound Device<Bound>>,
}

// SAFETY: Detaching waits for the users of the disk, which any thread may do.
unsafe impl Send for Btt<'_> {}
// SAFETY: Its list of errors has its own lock; the rest does not change.
unsafe impl Sync for Btt<'_> {}

impl<'bound> Btt<'bound> {
    /// Starts the disk of a BTT device.
    pub(crate) fn attach(
        ns: &Namespace<'bound, '_>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>> {
        if !ns.dev.is_btt() {
            return Err(ENXIO);
        }
        // SAFETY: The device is a BTT.
        let btt = unsafe { bindings::to_nd_btt(ns.dev.as_raw()) };
        // INVARIANT: By the type invariant of `Namespace` the BTT has claimed it. Attaching enables it,
        // and devres disables it, after the scope has ended.
        let this = Self {
            btt: NonNull::new(btt).ok_or(ENXIO)?,
            _dev: PhantomData,
        };

        Scoped::new(scope, this, |_| {
            // SAFETY: The device is a BTT that has claimed the namespace, and is probing.
            to_result(unsafe { bindings::nvdimm_namespace_attach_btt(ns.as_raw()) })
        })
    }

    /// The disk, if the BTT is that of `dev`.
    fn disk(&self, dev: &Device<Core<'_>>) -> Option<NonNull<kernel::bindings::gendisk>> {
        // SAFETY: By the type invariant the BTT is valid.
        if unsafe { &raw mut (*self.btt.as_ptr()).dev } != dev.as_raw() {
            return None;
        }
        // SAFETY: By the type invariant the BTT is valid. It is detached when the handle is dropped, which
        // lends `self`, or by the scope, under the device's lock, which is held: it has a disk, or `btt`
        // is null.
        unsafe {
            let btt = (*self.btt.as_ptr()).btt;

            btt.as_ref().and_then(|btt| NonNull::new(btt.btt_disk))
        }
    }

    /// Returns the bad blocks that the BTT consults, in sectors of the namespace.
    pub(crate) fn badblocks(&self) -> &'bound BadBlocks {
        // SAFETY: By the type invariant the namespace is there, and its list initialised; devres
        // releases that after the driver's data are dropped.
        unsafe {
            let nsio = (*self.btt.as_ptr())
                .ndns
                .cast::<bindings::nd_namespace_io>();

            BadBlocks::from_raw(&raw mut (*nsio).bb)
        }
    }

    /// Makes the BTT's disk read-only, or writable again, as its region is.
    pub(crate) fn follow_read_only(&self, dev: &Device<Core<'_>>) {
        if let Some(disk) = self.disk(dev) {
            // SAFETY: The disk is that of `dev`, whose lock is held, and whose parent is a region.
            unsafe { bindings::nvdimm_check_and_set_ro(disk.as_ptr()) };
        }
    }

    /// Makes the BTT's disk read-only.
    pub(crate) fn set_read_only(&self, dev: &Device<Core<'_>>) {
        if let Some(disk) = self.disk(dev) {
            // SAFETY: The disk is that of `dev`, whose lock is held.
            unsafe { kernel::bindings::set_disk_ro(disk.as_ptr(), true) };
        }
    }
}

// SAFETY: A BTT that is detached has no disk any more that would use it. Its list is that of the
// namespace, which stays until after `'bound`, and the other methods look whether there is a disk.
unsafe impl Registered for Btt<'_> {
    unsafe fn unregister(&self) {
        // SAFETY: It was attached when it was registered, and is detached only here.
        unsafe { bindings::nvdimm_namespace_detach_btt(self.btt.as_ptr()) };
    }
}
