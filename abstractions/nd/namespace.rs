// SPDX-License-Identifier: GPL-2.0

//! Namespaces, and the info blocks that assign them to a btt, pfn or dax device.

use super::Device;
use crate::abstractions::{
    badblocks::BadblocksTable,
    bindings,
    block::DiskName,
    copy::is_copy_mc_guarded,
    errno::eopnotsupp,
    iomem::Claim,
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
    block::SECTOR_SHIFT,
    device::{
        self,
        Core, //
    },
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    sizes::{
        SZ_4K,
        SZ_8K, //
    }, //
};

/// The end of the info block, in bytes from the start of the namespace (`info_block_reserve` in
/// `nd.h`).
const INFO_BLOCK_END: u64 = if PAGE_SIZE > SZ_8K { PAGE_SIZE } else { SZ_8K } as u64;

/// A namespace, and the device that is probed for it: its own, or one that has claimed it.
///
/// # Invariants
///
/// `ndns` is the field `common` of a valid `struct nd_namespace_io`, and the namespace of `dev`.
pub(crate) struct Namespace<'a, 'b> {
    pub(super) ndns: NonNull<bindings::nd_namespace_common>,
    pub(super) dev: &'a Device<Core<'b>>,
}

impl<'a> Namespace<'a, '_> {
    pub(super) fn as_raw(&self) -> *mut bindings::nd_namespace_common {
        self.ndns.as_ptr()
    }

    fn nsio(&self) -> *mut bindings::nd_namespace_io {
        // CAST: By the type invariant it is the field `common` of an `nd_namespace_io`, the first
        // one.
        self.as_raw().cast()
    }

    /// Returns the namespace's own device.
    pub(crate) fn device(&self) -> &'a device::Device {
        // SAFETY: By the type invariant the namespace is valid. A device that has claimed it holds
        // a reference to it, and stays for `'a`.
        unsafe { device::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }

    /// The physical addresses of the namespace.
    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        let nsio = self.nsio();

        // SAFETY: By the type invariant `nsio` is valid. Its range does not change while a driver
        // is bound.
        unsafe { (*nsio).res.start..=(*nsio).res.end }
    }

    /// Claims the physical addresses of the namespace. [`EBUSY`] if a part of them is claimed,
    /// [`ENOMEM`].
    pub(crate) fn claim(&self) -> Result<Claim> {
        Claim::new(&self.range(), self.device())
    }

    /// Returns the logical sector size in the namespace's label, in bytes.
    pub(crate) fn sector_size(&self) -> u32 {
        // SAFETY: By the type invariant the namespace is valid.
        unsafe { bindings::pmem_sector_size(self.as_raw()) }
    }

    /// Returns the name of the namespace's disk.
    pub(crate) fn disk_name(&self) -> DiskName {
        let mut name = [0; kernel::bindings::DISK_NAME_LEN as usize];

        // SAFETY: By the type invariant the namespace is valid. `name` has `DISK_NAME_LEN` bytes.
        unsafe { bindings::nvdimm_namespace_disk_name(self.as_raw(), name.as_mut_ptr()) };
        DiskName::new(name)
    }

    /// Returns whether a label says that there is an info block: the mode is not raw.
    pub(crate) fn is_labelled_with_mode(&self) -> bool {
        // SAFETY: By the type invariant the namespace is valid.
        let class = unsafe { (*self.as_raw()).claim_class };

        // Without a label, it is what users have written to `holder_class`, and ndctl makes raw
        // namespaces for fsdax.
        self.has_label()
            && matches!(
                class,
                bindings::nvdimm_claim_class_NVDIMM_CCLASS_BTT
                    | bindings::nvdimm_claim_class_NVDIMM_CCLASS_BTT2
                    | bindings::nvdimm_claim_class_NVDIMM_CCLASS_PFN
                    | bindings::nvdimm_claim_class_NVDIMM_CCLASS_DAX
            )
    }

    /// Returns whether the namespace is defined by labels.
    fn has_label(&self) -> bool {
        // SAFETY: By the type invariant the namespace is valid, and this is its device.
        let uuid = unsafe { bindings::nd_dev_to_uuid(&raw mut (*self.as_raw()).dev) };

        // SAFETY: If it is not null, it points to the namespace's uuid, or to one of zeros that is
        // static. It changes only while no driver is bound.
        !uuid.is_null() && unsafe { uuid.cast::<[u8; 16]>().read() } != [0; 16]
    }

    /// Returns whether users want it to be bound in raw mode, whatever its info block says
    /// (`force_raw`).
    pub(crate) fn is_forced_raw(&self) -> bool {
        // SAFETY: By the type invariant the namespace is valid. Users may change it at any time.
        unsafe { (&raw const (*self.as_raw()).force_raw).read_volatile() != 0 }
    }

    /// Maps the start of the namespace for libnvdimm to read info blocks, until the result is
    /// dropped.
    ///
    /// [`EBUSY`] if the range is claimed in iomem, [`ENOMEM`].
    pub(crate) fn enable(&self) -> Result<InfoAccess<'_>> {
        let dev = self.dev.as_raw();

        // SAFETY: By the type invariants both are valid, and `ndns` is the namespace of `dev`,
        // whose lock is held: the context of `Namespace::dev` is `Core`.
        to_result(unsafe { bindings::devm_namespace_enable(dev, self.as_raw(), INFO_BLOCK_END) })?;

        // libnvdimm reads no listed sector. Where nothing but the driver knows of errors, the
        // memory tells whether the info block can be read, if libnvdimm's copy survives that.
        if is_copy_mc_guarded() && !self.dev.region().has_commands() {
            // SAFETY: By the type invariant it is valid, and its table is initialised while it is
            // enabled.
            unsafe { BadblocksTable::from_raw(&raw mut (*self.nsio()).bb) }
                .clear(0, INFO_BLOCK_END >> SECTOR_SHIFT);
        }
        // INVARIANT: `devm_namespace_enable` has succeeded for the pair.
        Ok(InfoAccess {
            dev,
            ndns: self.as_raw(),
            range: self.range(),
            _namespace: PhantomData,
        })
    }

    /// Reads the info block of a pfn device, or creates and writes it.
    ///
    /// Returns the layout of the memory with its `struct page`s, and the offset of the data area in
    /// it, in bytes, which is behind the info block. [`ENODEV`] if the device is not configured,
    /// [`ENXIO`] or [`EINVAL`] if it is not a pfn device or the info block is inconsistent,
    /// [`EBUSY`] if it is so inconsistent that libnvdimm can't look at the memmap, or if the range
    /// is claimed in iomem. [`ENOMEM`].
    ///
    /// On a bus without commands, the region has no bad blocks in the namespace afterwards.
    pub(crate) fn setup_pfn(&self) -> Result<(Layout, u64)> {
        let region = self.dev.region();
        let range = *self.range().start()..self.range().end().saturating_add(1);

        // libnvdimm writes over bad blocks of the region in the memmap until there are none
        // (`nd_pfn_clear_memmap_errors`, 7.2, 7.3). On a bus without a command to clear errors
        // nothing removes them, and it would not return. So there must be none in the namespace
        // then, for any driver. For a namespace that does not begin where the region does, it looks
        // in front of it as well, and writes to addresses in front of its mapping: on any bus, the
        // region must have no bad blocks there.
        let hides = !region.has_clear_error();
        let others = region.hide_badblocks_before(&range)?;

        if hides {
            region.hide_badblocks(&range);
        }
        let info_block = self.enable().and_then(InfoAccess::setup_pfn);

        if hides && region.has_commands() {
            region.show_badblocks(&range);
        }
        drop(others);
        info_block
    }
}

/// Access to the info blocks of a namespace.
///
/// # Invariants
///
/// `ndns` is the namespace of `dev`, whose lock is held, and is enabled.
pub(crate) struct InfoAccess<'a> {
    pub(super) dev: *mut kernel::bindings::device,
    pub(super) ndns: *mut bindings::nd_namespace_common,
    /// The physical addresses of the namespace.
    range: RangeInclusive<u64>,
    _namespace: PhantomData<&'a ()>,
}

impl InfoAccess<'_> {
    /// Calls `probe`, which searches for an info block. [`ENXIO`] if it finds one: libnvdimm has
    /// created a device that claims the namespace. `EOPNOTSUPP` if what it finds can't be served,
    /// [`ENOMEM`].
    ///
    /// `probe` returns [`ENOMEM`] without memory for a device, but [`ENODEV`] without memory for a
    /// copy of the info block (`devm_kzalloc` in `nd_btt_probe`, 7.2, 7.3). A namespace with an
    /// info block must not be taken for a raw one then, so this tries a second time.
    pub(super) fn ensure_not_found(probe: impl Fn() -> c_int) -> Result {
        for _ in 0..2 {
            match to_result(probe()) {
                Ok(()) => return Err(ENXIO),
                // There is an info block that can't be served: the namespace is not free for
                // another use.
                Err(e) if e == eopnotsupp() || e == ENOMEM => return Err(e),
                Err(_) => (),
            }
        }
        Ok(())
    }

    /// Returns where libnvdimm looks for an info block, in bytes from the start of the namespace
    /// (`nd_btt_version`, `nd_pfn_validate`).
    fn offset(&self) -> u32 {
        // SAFETY: By the type invariant the namespace is valid.
        match unsafe { (*self.ndns).claim_class } {
            bindings::nvdimm_claim_class_NVDIMM_CCLASS_BTT2 => 0,
            // CAST: 4096.
            _ => SZ_4K as u32,
        }
    }

    /// Returns the physical address where libnvdimm looks for an info block.
    pub(crate) fn address(&self) -> u64 {
        self.range.start().saturating_add(u64::from(self.offset()))
    }

    /// Returns whether libnvdimm can read the memory there. [`ENOMEM`].
    pub(crate) fn is_readable(&self) -> Result<bool> {
        let mut buffer = KVec::<u8>::with_capacity(SZ_4K, GFP_KERNEL)?;
        // SAFETY: By the type invariant the namespace is valid; libnvdimm has set the function when
        // it created it.
        let read = unsafe { (*self.ndns).rw_bytes }.ok_or(ENXIO)?;
        // SAFETY: By the type invariant the namespace is enabled, with room for an info block. The
        // buffer has room for `SZ_4K` bytes. A `rw` of 0 is a read.
        let result = unsafe {
            read(
                self.ndns,
                self.offset().into(),
                buffer.spare_capacity_mut().as_mut_ptr().cast(),
                SZ_4K,
                0,
                0,
            )
        };

        Ok(result == 0)
    }

    /// Searches for the info block of a pfn device; fails as [`Self::ensure_not_found`] does.
    pub(crate) fn ensure_no_pfn(&self) -> Result {
        // SAFETY: By the type invariant the lock of `dev` is held, and its namespace is enabled.
        Self::ensure_not_found(|| unsafe { bindings::nd_pfn_probe(self.dev, self.ndns) })
    }

    /// Searches for the info block of a dax device; fails as [`Self::ensure_not_found`] does.
    pub(crate) fn ensure_no_dax(&self) -> Result {
        // SAFETY: By the type invariant the lock of `dev` is held, and its namespace is enabled.
        Self::ensure_not_found(|| unsafe { bindings::nd_dax_probe(self.dev, self.ndns) })
    }

    /// [`Namespace::setup_pfn`], with the bad blocks hidden that libnvdimm handles wrongly.
    fn setup_pfn(self) -> Result<(Layout, u64)> {
        // To look at the memmap, libnvdimm disables the namespace and enables it with another size.
        // After a failure it is unknown whether it is enabled: leave it to devres, after the probe.
        let this = ManuallyDrop::new(self);
        let mut pgmap = memremap::zeroed();

        // SAFETY: By the type invariant `dev` is valid.
        if !unsafe { bindings::is_nd_pfn(this.dev) } {
            return Err(ENXIO);
        }
        // SAFETY: `dev` is a pfn device, as checked above.
        let pfn = unsafe { bindings::to_nd_pfn(this.dev) };
        // SAFETY: `pfn` belongs to `dev`, whose lock is held. `pgmap` is zeroed, as libnvdimm
        // requires.
        to_result(unsafe { bindings::nvdimm_setup_pfn(pfn, &mut pgmap) })?;
        // SAFETY: After a successful set-up, `pfn_sb` is a valid info block for as long as the
        // driver is bound.
        let data_offset = u64::from_le(unsafe { (*(*pfn).pfn_sb).dataoff });

        // libnvdimm checks it only with `--map=mem`. With `--map=dev`, the memmap ends where the
        // data begins: its length would wrap around, on which memory hotplug warns.
        if data_offset < INFO_BLOCK_END {
            return Err(EINVAL);
        }
        let layout = Layout::from_raw(pgmap);
        let pages = layout.range();

        // libnvdimm subtracts the padding from the size without a check for overflow
        // (`nd_pfn_validate`, 7.2, 7.3). Otherwise it has checked that the data, and the memmap in
        // front of it, are inside of `pages`.
        if pages.is_empty() || pages.start() < this.range.start() || pages.end() > this.range.end()
        {
            return Err(EINVAL);
        }
        drop(ManuallyDrop::into_inner(this));
        Ok((layout, data_offset))
    }
}

impl Drop for InfoAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant `devm_namespace_enable` has succeeded for the pair.
        unsafe { bindings::devm_namespace_disable(self.dev, self.ndns) };
    }
}
