// SPDX-License-Identifier: GPL-2.0

//! Devices of the bus.

use super::{
    Namespace,
    Region, //
};
use crate::abstractions::{
    bindings,
    block, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    device::{
        self,
        Bound,
        Core,
        DeviceContext, //
    },
    error::from_err_ptr,
    prelude::*,
    types::Opaque, //
};

/// A device of the `nd` bus: a namespace, or a personality (BTT, page map) that has claimed one.
///
/// # Invariants
///
/// An instance is a valid `struct device` that libnvdimm has created, whose parent is a region.
#[repr(transparent)]
pub(crate) struct Device<Ctx: DeviceContext = device::Normal>(
    Opaque<kernel::bindings::device>,
    PhantomData<Ctx>,
);

// SAFETY: `Device` is a transparent wrapper of a type that doesn't depend on its generic argument.
kernel::impl_device_context_deref!(unsafe { Device });

// SAFETY: All methods of `Device<Normal>` only read what does not change while the device is there.
unsafe impl Sync for Device {}

// SAFETY: As for `Device<Normal>`; `nvdimm_clear_poison` takes the bus's lock. `Bound` is a type state
// that does not affect thread safety, unlike `Core`, which stands for the device's lock.
unsafe impl Sync for Device<Bound> {}

impl<Ctx: DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        let dev: *const Self = self;

        // SAFETY: CAST: Both are transparent wrappers of a `struct device`, with the same context.
        unsafe { &*dev.cast::<device::Device<Ctx>>() }
    }
}

impl<Ctx: DeviceContext> Device<Ctx> {
    pub(super) fn as_raw(&self) -> *mut kernel::bindings::device {
        self.0.get()
    }

    /// The NUMA node of the memory, [`NUMA_NO_NODE`](kernel::bindings::NUMA_NO_NODE) if unknown.
    pub(crate) fn numa_node(&self) -> c_int {
        #[cfg(CONFIG_NUMA)]
        // SAFETY: By the type invariant.
        let node = unsafe { (*self.as_raw()).numa_node };
        #[cfg(not(CONFIG_NUMA))]
        let node = kernel::bindings::NUMA_NO_NODE;

        node
    }
}

impl Device<Bound> {
    /// The region that the namespace is a part of.
    pub(crate) fn region(&self) -> &Region {
        // SAFETY: By the type invariant the parent is a region; it is referenced by its child.
        let region = unsafe { bindings::to_nd_region((*self.as_raw()).parent) };

        // INVARIANT: A region stays bound while one of its namespaces is: `nd_region_remove` unregisters
        // them first.
        // SAFETY: `to_nd_region` returned a valid region, and `Region` is a transparent wrapper of it.
        unsafe { &*region.cast::<Region>() }
    }

    /// Clears media errors in the `len` bytes from physical address `phys` with the bus's
    /// clear-error command (ACPI 6.5, 9.20.7.6) and takes them off the bus's and the region's
    /// lists. May sleep.
    ///
    /// Returns the number of bytes cleared, from `phys` on. A bus without commands (e820,
    /// virtio-pmem) says that all is cleared. [`ENXIO`] where the bus can't clear or where the
    /// range is not a multiple of what it clears at once.
    pub(crate) fn clear_poison(&self, phys: u64, len: u32) -> Result<u32> {
        // SAFETY: By the type invariant; a bound device keeps its bus.
        let cleared = unsafe { bindings::nvdimm_clear_poison(self.as_raw(), phys, len) };

        match u32::try_from(cleared) {
            Ok(cleared) => Ok(cleared.min(len)),
            Err(_) => Err(Error::from_errno(
                c_int::try_from(cleared).unwrap_or(EIO.to_errno()),
            )),
        }
    }
}

impl<'b> Device<Core<'b>> {
    /// Makes a disk that is registered below this device read-only, or writable again, as the
    /// region is.
    pub(crate) fn follow_read_only<T: block::Operations>(&self, disk: &block::Disk<T>) {
        let disk: &block::GenDisk = disk.as_ref();

        if disk.parent() == self.as_raw() {
            // SAFETY: The disk's parent is this device, whose parent is a region. The scope ends disks
            // under the device's lock, which is held: the disk is registered or not, and the call stands
            // both.
            unsafe { bindings::nvdimm_check_and_set_ro(disk.as_raw()) };
        }
    }

    /// The namespace that this device is, or has claimed, after the checks that are common to all
    /// personalities.
    ///
    /// [`ENODEV`] if it is too small or has no namespace or uuid, [`EBUSY`] or [`ENXIO`] if it is
    /// in other hands, [`EACCES`] if it is locked, `EOPNOTSUPP` if it can't be mapped.
    pub(crate) fn namespace(&self) -> Result<Namespace<'_, 'b>> {
        // SAFETY: By the type invariant, under the device's lock, as libnvdimm wants it.
        let ndns = unsafe { bindings::nvdimm_namespace_common_probe(self.as_raw()) };
        let ndns = NonNull::new(from_err_ptr(ndns)?).ok_or(ENODEV)?;

        // INVARIANT: All namespaces that this driver is given are embedded so.
        Ok(Namespace { ndns, dev: self })
    }

    /// Whether this is a BTT that has claimed a namespace.
    pub(crate) fn is_btt(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::is_nd_btt(self.as_raw()) }
    }

    /// Whether this is a page map ("pfn") device that has claimed a namespace.
    pub(crate) fn is_pfn(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::is_nd_pfn(self.as_raw()) }
    }

    /// Whether memory of this region is to have `struct page`s without an info block asking.
    pub(crate) fn should_map_pages(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::pmem_should_map_pages(self.as_raw()) }
    }
}
