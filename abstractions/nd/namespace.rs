// SPDX-License-Identifier: GPL-2.0

//! Namespaces, and the info blocks that assign them to a personality.

use super::Device;
use crate::abstractions::{
    bindings,
    block,
    errno::eopnotsupp,
    memremap::{
        self,
        Layout, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::RangeInclusive,
    ptr::NonNull, //
};
use kernel::{
    device::{
        self,
        Core, //
    },
    error::to_result,
    prelude::*,
    sizes::SZ_8K, //
};

/// What a personality says when it is asked whether a namespace is its own.
pub(crate) enum Probed {
    /// An info block of that personality was found; a device of its own now has the namespace.
    Claimed,
    /// None was found.
    Unclaimed,
}

/// A range of persistent memory, as libnvdimm describes it, and the device that has it: itself, or
/// the personality that has claimed it.
///
/// # Invariants
///
/// `ndns` is the `common` part of a valid `struct nd_namespace_io`, and the namespace of `dev`.
pub(crate) struct Namespace<'a, 'b> {
    pub(super) ndns: NonNull<bindings::nd_namespace_common>,
    pub(super) dev: &'a Device<Core<'b>>,
}

impl<'a> Namespace<'a, '_> {
    pub(super) fn as_raw(&self) -> *mut bindings::nd_namespace_common {
        self.ndns.as_ptr()
    }

    /// The namespace's own device.
    pub(crate) fn device(&self) -> &'a device::Device {
        // SAFETY: By the type invariant; it is referenced by the device that has it.
        unsafe { device::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }

    /// The physical addresses of the namespace.
    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        // CAST: By the type invariant, `common` being the first field.
        let nsio = self.as_raw().cast::<bindings::nd_namespace_io>();

        // SAFETY: By the type invariant; the range does not change while a driver is bound.
        unsafe { (*nsio).res.start..=(*nsio).res.end }
    }

    /// The logical sector size that the namespace's label asks for, in bytes.
    pub(crate) fn sector_size(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { bindings::pmem_sector_size(self.as_raw()) }
    }

    /// Writes the name of the namespace's disk.
    pub(crate) fn name_disk(&self, disk: &mut block::DiskName) {
        // SAFETY: By the type invariant; a disk name has `DISK_NAME_LEN` bytes.
        unsafe { bindings::nvdimm_namespace_disk_name(self.as_raw(), disk.as_mut_ptr()) };
    }

    /// Makes the raw bytes of the namespace readable for the personalities' probes, until the
    /// result is dropped.
    ///
    /// [`EBUSY`] if the range is claimed in iomem, [`ENOMEM`].
    pub(crate) fn enable(&self) -> Result<InfoAccess<'_>> {
        // `nd_info_block_reserve()`: 8 KiB, but never less than a page.
        let reserve = SZ_8K.max(kernel::page::PAGE_SIZE) as u64;
        let dev = self.dev.as_raw();

        // SAFETY: By the type invariants, in probe.
        to_result(unsafe { bindings::devm_namespace_enable(dev, self.as_raw(), reserve) })?;
        Ok(InfoAccess {
            dev,
            ndns: self.as_raw(),
            _namespace: PhantomData,
        })
    }
}

/// Access to the info blocks of a namespace.
///
/// # Invariants
///
/// `ndns` is the namespace of `dev`, which is bound to a driver that is probing, and is enabled.
pub(crate) struct InfoAccess<'a> {
    dev: *mut kernel::bindings::device,
    ndns: *mut bindings::nd_namespace_common,
    _namespace: PhantomData<&'a ()>,
}

impl InfoAccess<'_> {
    /// `probe` answers [`ENOMEM`] where it has no memory for a device, but [`ENODEV`] where it has
    /// none for a copy of the info block (`devm_kzalloc` in `nd_btt_probe`, 7.2): a namespace with
    /// one must not be taken for raw then, so it is asked again.
    fn claim(probe: impl Fn() -> c_int) -> Result<Probed> {
        for _ in 0..2 {
            match to_result(probe()) {
                Ok(()) => return Ok(Probed::Claimed),
                // The info block is there but can't be used: nobody else may have the namespace.
                Err(e) if e == eopnotsupp() || e == ENOMEM => return Err(e),
                Err(_) => (),
            }
        }
        Ok(Probed::Unclaimed)
    }

    /// Asks the block translation table personality; [`ENOMEM`].
    pub(crate) fn probe_btt(&self) -> Result<Probed> {
        // SAFETY: By the type invariant.
        Self::claim(|| unsafe { bindings::nd_btt_probe(self.dev, self.ndns) })
    }

    /// Asks the page map personality; `EOPNOTSUPP` if its info block can't be served, [`ENOMEM`].
    pub(crate) fn probe_pfn(&self) -> Result<Probed> {
        // SAFETY: By the type invariant.
        Self::claim(|| unsafe { bindings::nd_pfn_probe(self.dev, self.ndns) })
    }

    /// Asks the device DAX personality; `EOPNOTSUPP` if its info block can't be served, [`ENOMEM`].
    pub(crate) fn probe_dax(&self) -> Result<Probed> {
        // SAFETY: By the type invariant.
        Self::claim(|| unsafe { bindings::nd_dax_probe(self.dev, self.ndns) })
    }

    /// Reads, or makes and writes, the info block of a page map device.
    ///
    /// Returns the layout of the page map, and the offset of the data in it, in bytes. [`ENODEV`]
    /// if the device is not configured, [`ENXIO`] or [`EINVAL`] if it is no page map device or the
    /// info block makes no sense, [`EBUSY`] if it makes so little that the page map can't be looked
    /// at.
    pub(crate) fn setup_pfn(self) -> Result<(Layout, u64)> {
        // To look at the page map, libnvdimm disables the namespace and enables it at another size.
        // If that fails, whatever it has left enabled is released by devres after the probe.
        let this = ManuallyDrop::new(self);
        let mut pgmap = memremap::zeroed();

        // SAFETY: By the type invariant.
        if !unsafe { bindings::is_nd_pfn(this.dev) } {
            return Err(ENXIO);
        }
        // SAFETY: `dev` is a page map device.
        let pfn = unsafe { bindings::to_nd_pfn(this.dev) };
        // SAFETY: `pfn` is the device's own, `pgmap` is zeroed as libnvdimm wants it.
        to_result(unsafe { bindings::nvdimm_setup_pfn(pfn, &mut pgmap) })?;
        // SAFETY: A successful set-up leaves a valid info block behind, for as long as the driver
        // is bound.
        let data_offset = u64::from_le(unsafe { (*(*pfn).pfn_sb).dataoff });

        drop(ManuallyDrop::into_inner(this));
        Ok((Layout::from_raw(pgmap), data_offset))
    }
}

impl Drop for InfoAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: Undoes `devm_namespace_enable`, which succeeded for the same pair.
        unsafe { bindings::devm_namespace_disable(self.dev, self.ndns) };
    }
}
