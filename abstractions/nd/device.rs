// SPDX-License-Identifier: GPL-2.0

//! Devices of the bus.

use super::{
    Namespace,
    Region, //
};
use crate::abstractions::{
    bindings,
    block,
    device::NumaNode, //
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

/// A device of the `nd` bus: a namespace, or a btt or pfn device that has claimed one.
///
/// # Invariants
///
/// An instance is a valid `struct device` that libnvdimm has created. Its parent is a region.
#[repr(transparent)]
pub(crate) struct Device<Ctx: DeviceContext = device::Normal>(
    Opaque<kernel::bindings::device>,
    PhantomData<Ctx>,
);

// SAFETY: `Device` is a transparent wrapper of a type that doesn't depend on its generic argument.
kernel::impl_device_context_deref!(unsafe { Device });

// SAFETY: The methods of `Device<Normal>` only read fields that do not change.
unsafe impl Sync for Device {}

// SAFETY: Beyond those of `Device<Normal>`, the only methods that change anything are
// `clear_poison`, whose lists have locks of their own, and `send_change`, which any thread may
// call. `Bound` does not affect thread safety, unlike `Core`, which stands for the device lock.
unsafe impl Sync for Device<Bound> {}

impl<Ctx: DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        let dev: *const Self = self;

        // SAFETY: CAST: Both types are transparent wrappers of `struct device`, with the same
        // context.
        unsafe { &*dev.cast::<device::Device<Ctx>>() }
    }
}

impl<Ctx: DeviceContext> Device<Ctx> {
    pub(super) fn as_raw(&self) -> *mut kernel::bindings::device {
        self.0.get()
    }

    /// Returns the NUMA node of the memory.
    pub(crate) fn numa_node(&self) -> NumaNode {
        #[cfg(CONFIG_NUMA)]
        // SAFETY: By the type invariant the device is valid; its node does not change.
        let node = unsafe { (*self.as_raw()).numa_node };
        #[cfg(not(CONFIG_NUMA))]
        let node = kernel::bindings::NUMA_NO_NODE;

        NumaNode(node)
    }
}

impl Device<Bound> {
    /// Returns the region of the namespace.
    pub(crate) fn region(&self) -> &Region {
        // SAFETY: By the type invariant the parent is a region; a child holds a reference to its
        // parent.
        let region = unsafe { bindings::to_nd_region((*self.as_raw()).parent) };

        // INVARIANT: The region is bound while this device is: `nd_region_remove` unregisters the
        // devices below it first.
        // SAFETY: `to_nd_region` returns a valid region. `Region` is a transparent wrapper of it.
        unsafe { &*region.cast::<Region>() }
    }

    /// Sends a uevent of the action `change` with `variable`, as `NAME=value`. Without memory for
    /// it, none is sent. May sleep.
    pub(crate) fn send_change(&self, variable: &CStr) {
        let mut variables = [variable.as_char_ptr().cast_mut(), core::ptr::null_mut()];

        // SAFETY: By the type invariant the device is valid. It is bound, so that it is registered.
        // The array ends with a null pointer, and the strings in it are only read.
        unsafe {
            kernel::bindings::kobject_uevent_env(
                &raw mut (*self.as_raw()).kobj,
                kernel::bindings::kobject_action_KOBJ_CHANGE,
                variables.as_mut_ptr(),
            )
        };
    }

    /// Clears poison in the `len` bytes from physical address `phys` with the bus's clear-error
    /// command (ACPI 6.5, 9.20.7.6), and removes it from the lists of the bus and the region. May
    /// sleep.
    ///
    /// Returns the number of bytes cleared, from `phys` on. For a bus without commands (e820,
    /// virtio-pmem), libnvdimm clears nothing and returns `len`. [`ENXIO`] if the bus can't clear
    /// poison, or if the range is not a multiple of the unit that it clears.
    pub(crate) fn clear_poison(&self, phys: u64, len: u32) -> Result<u32> {
        // SAFETY: By the type invariant the device is valid. It is bound, so that its bus is valid.
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
    /// region is. Does nothing for other disks.
    pub(crate) fn follow_read_only<T: block::Operations>(&self, disk: &block::Disk<T>) {
        let disk: &block::GenDisk = disk.as_ref();

        if disk.parent() == self.as_raw() {
            // SAFETY: The disk is valid, and borrowed, so that it is not unregistered meanwhile.
            // Its parent is this device, whose parent is a region.
            unsafe { bindings::nvdimm_check_and_set_ro(disk.as_raw()) };
        }
    }

    /// Returns the namespace that this device is, or has claimed, after the checks that libnvdimm
    /// makes for every driver.
    ///
    /// [`ENODEV`] if it is too small or has no namespace or uuid, [`EBUSY`] or [`ENXIO`] if another
    /// device has claimed it, [`EACCES`] if it is locked, `EOPNOTSUPP` if it can't be mapped.
    pub(crate) fn namespace(&self) -> Result<Namespace<'_, 'b>> {
        // SAFETY: By the type invariant the device is valid. In the context `Core` the device lock
        // is held, as libnvdimm requires.
        let ndns = unsafe { bindings::nvdimm_namespace_common_probe(self.as_raw()) };
        let ndns = NonNull::new(from_err_ptr(ndns)?).ok_or(ENODEV)?;

        // INVARIANT: The drivers of this module have the types IO and PMEM. Namespaces of both are
        // embedded in a `struct nd_namespace_io`.
        Ok(Namespace { ndns, dev: self })
    }

    /// Returns whether this is a pfn device, which has claimed a namespace.
    pub(crate) fn is_pfn(&self) -> bool {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::is_nd_pfn(self.as_raw()) }
    }

    /// Returns whether raw namespaces of this region get `struct page`s.
    pub(crate) fn should_map_pages(&self) -> bool {
        // SAFETY: By the type invariant the device is valid, and its parent is a region.
        unsafe { bindings::pmem_should_map_pages(self.as_raw()) }
    }
}
