// SPDX-License-Identifier: GPL-2.0

//! Disks: their limits, their registration, and the callbacks of the block layer.

use super::{
    attribute::Attributes,
    Bio, //
};
use crate::abstractions::{
    badblocks::BadblocksTable,
    bindings,
    device::NumaNode,
    scope::{
        Registered,
        Scope,
        Scoped, //
    },
    sysfs::File, //
};
use core::ptr::NonNull;
use kernel::{
    bindings::{
        bio,
        block_device_operations,
        gendisk,
        queue_limits,
        DISK_NAME_LEN, //
    },
    device::{
        self,
        Core, //
    },
    error::{
        from_err_ptr,
        to_result, //
    },
    fmt,
    prelude::*,
    static_lock_class, //
};

/// The name of a disk, as it appears in `/dev`.
#[derive(Clone, Copy)]
pub(crate) struct DiskName([c_char; DISK_NAME_LEN as usize]);

impl DiskName {
    /// Creates a name from its bytes, which end with the first 0.
    pub(crate) fn new(mut name: [c_char; DISK_NAME_LEN as usize]) -> Self {
        if let Some(last) = name.last_mut() {
            *last = 0;
        }
        Self(name)
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CStr::from_bytes_until_nul(&self.0) {
            Ok(name) => fmt::Display::fmt(name, f),
            Err(_) => Ok(()),
        }
    }
}

/// The operations of a bio-based disk.
pub(crate) trait Operations: Send + Sync + Sized {
    /// The files that the driver adds to the disk's directory in sysfs.
    type Attributes: Attributes<Self>;

    /// Serves one bio. Called in the submitter's context, on many CPUs at once.
    fn submit(&self, bio: Bio<'_>);

    /// Returns the bad blocks of the disk, which sysfs shows as `badblocks`.
    fn bad_blocks(&self) -> &BadblocksTable;
}

/// The limits and the features of a disk.
pub(crate) struct Limits {
    /// The smallest addressable unit, in bytes.
    pub(crate) logical_block_size: u32,
    /// The smallest unit that is written without a read, in bytes.
    pub(crate) physical_block_size: u32,
    /// The most sectors (512 bytes) in a read or a write.
    pub(crate) max_hw_sectors: u32,
    /// The most sectors (512 bytes) in a request to write zeroes.
    pub(crate) max_write_zeroes_sectors: u32,
    /// Writes are durable only after a flush.
    pub(crate) write_cache: bool,
    /// The driver serves `REQ_FUA` better than a flush after the write does.
    pub(crate) fua: bool,
    /// Most bios end before their submission returns.
    pub(crate) synchronous: bool,
    /// The driver serves bios with `REQ_NOWAIT`.
    pub(crate) nowait: bool,
    /// File systems may ask for the disk's DAX device.
    pub(crate) dax: bool,
}

impl Limits {
    fn to_raw(&self) -> queue_limits {
        let features = [
            (self.write_cache, bindings::BLK_FEAT_WRITE_CACHE),
            (self.fua, bindings::BLK_FEAT_FUA),
            (self.synchronous, bindings::BLK_FEAT_SYNCHRONOUS),
            (self.nowait, bindings::BLK_FEAT_NOWAIT),
            (self.dax, bindings::BLK_FEAT_DAX),
        ]
        .into_iter()
        .filter(|(on, _)| *on)
        .fold(0, |features, (_, feature)| features | feature);

        queue_limits {
            features,
            logical_block_size: self.logical_block_size,
            physical_block_size: self.physical_block_size,
            max_hw_sectors: self.max_hw_sectors,
            max_write_zeroes_sectors: self.max_write_zeroes_sectors,
            ..pin_init::zeroed()
        }
    }
}

/// A `struct gendisk`, put when dropped.
///
/// # Invariants
///
/// `disk` is a valid disk, and a reference to it is held.
pub(crate) struct GenDisk {
    disk: NonNull<gendisk>,
}

// SAFETY: Any thread may use and put a disk.
unsafe impl Send for GenDisk {}
// SAFETY: Any thread may look up files of a disk and take references to it.
unsafe impl Sync for GenDisk {}

impl GenDisk {
    pub(in crate::abstractions) fn as_raw(&self) -> *mut gendisk {
        self.disk.as_ptr()
    }

    /// The device that the disk is registered below; null before registration.
    pub(in crate::abstractions) fn parent(&self) -> *mut kernel::bindings::device {
        // SAFETY: By the type invariant the disk is valid, and so is its `part0`.
        unsafe { (*(*self.as_raw()).part0).bd_device.parent }
    }
}

impl Clone for GenDisk {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant the disk is valid. A reference to a disk is one to its
        // device, which is what `put_disk` puts.
        unsafe { kernel::bindings::get_device(&raw mut (*(*self.as_raw()).part0).bd_device) };
        // INVARIANT: `get_device` has taken the reference.
        Self { disk: self.disk }
    }
}

impl Drop for GenDisk {
    fn drop(&mut self) {
        // SAFETY: By the type invariant a reference is held. It is put only here.
        unsafe { kernel::bindings::put_disk(self.as_raw()) };
    }
}

/// A disk that is set up, and that nobody can find yet.
///
/// # Invariants
///
/// The private data of `disk` point to `data`.
pub(crate) struct UnregisteredDisk<T: Operations> {
    disk: GenDisk,
    #[expect(dead_code, reason = "held for the operations")]
    data: KBox<T>,
}

impl<T: Operations> UnregisteredDisk<T> {
    const OPS: block_device_operations = block_device_operations {
        submit_bio: Some(Self::submit_callback),
        // While the disk is open, the module cannot be unloaded.
        owner: (&raw const kernel::bindings::__this_module).cast_mut(),
        ..pin_init::zeroed()
    };

    /// Creates a disk of `sectors` sectors of 512 bytes, whose bios `data` serves, with its memory
    /// on NUMA node `node`. [`ENOMEM`], or [`EINVAL`] if the limits are inconsistent.
    pub(crate) fn new(
        limits: &Limits,
        node: NumaNode,
        sectors: u64,
        data: T,
        name: DiskName,
    ) -> Result<Self> {
        let data = KBox::new(data, GFP_KERNEL)?;
        let mut limits = limits.to_raw();

        // SAFETY: `limits` and the lock class are valid for the call.
        let disk = from_err_ptr(unsafe {
            kernel::bindings::__blk_alloc_disk(&mut limits, node.0, static_lock_class!().as_ptr())
        })?;
        // INVARIANT: `__blk_alloc_disk` returns a disk with one reference, which is ours.
        let disk = GenDisk {
            disk: NonNull::new(disk).ok_or(ENOMEM)?,
        };
        let raw = disk.as_raw();

        // SAFETY: The disk is not registered yet, so nobody else accesses its fields. `data` and
        // its bad blocks stay in place until after the disk is unregistered.
        unsafe {
            (*raw).disk_name = name.0;
            (*raw).fops = const { &Self::OPS };
            (*raw).private_data = core::ptr::from_ref::<T>(&data).cast_mut().cast();
            (*raw).bb = data.bad_blocks().as_raw().cast();
            kernel::bindings::set_capacity(raw, sectors);
        }
        // INVARIANT: `private_data` was set to `data` above.
        Ok(Self { disk, data })
    }

    /// Registers the disk below `parent`. The block layer reads its partitions before this returns.
    ///
    /// [`EEXIST`] if there is a disk with the same name, [`ENOMEM`].
    pub(crate) fn register<'bound>(
        self,
        parent: &device::Device<Core<'_>>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Disk<T>>>
    where
        T: 'bound,
    {
        // CAST: `Device` is a transparent wrapper of `struct device`.
        let parent = core::ptr::from_ref(parent)
            .cast_mut()
            .cast::<kernel::bindings::device>();

        // INVARIANT: `Scoped::new` returns the disk only if the registration succeeds.
        Scoped::new(scope, Disk(self), |disk| {
            // SAFETY: The disk is set up and not registered. Everything it refers to is static or
            // in `disk`, which stays in place until it is unregistered.
            to_result(unsafe {
                kernel::bindings::device_add_disk(
                    parent,
                    disk.0.disk.as_raw(),
                    T::Attributes::GROUPS.as_ptr().cast_mut(),
                )
            })
        })
    }

    extern "C" fn submit_callback(bio: *mut bio) {
        // SAFETY: The block layer calls this with a bio for a disk that has `OPS`, and passes the
        // bio's ownership. `new` has set its `private_data` to `data`, which stays in place until
        // after the disk is unregistered: `del_gendisk` waits for the reference to the queue that
        // is held for the call.
        unsafe {
            let data = &*(*(*(*bio).bi_bdev).bd_disk).private_data.cast::<T>();

            data.submit(Bio::from_raw(NonNull::new_unchecked(bio)));
        }
    }
}

impl<T: Operations> AsRef<GenDisk> for UnregisteredDisk<T> {
    fn as_ref(&self) -> &GenDisk {
        &self.disk
    }
}

/// A disk that serves bios until it is unregistered, which waits for calls of
/// [`Operations::submit`]. Bios that these have kept or passed on may end later.
///
/// # Invariants
///
/// The disk is registered, or was.
pub(crate) struct Disk<T: Operations>(UnregisteredDisk<T>);

impl<T: Operations> Disk<T> {
    /// Looks up the file `name` in the directory of the disk, which is registered below `parent`.
    pub(crate) fn sysfs_file(
        &self,
        parent: &device::Device<Core<'_>>,
        name: &CStr,
    ) -> Option<File> {
        // CAST: `Device` is a transparent wrapper of `struct device`.
        let parent = core::ptr::from_ref(parent).cast::<kernel::bindings::device>();

        if self.0.disk.parent().cast_const() != parent {
            return None;
        }
        // SAFETY: The disk is valid. Dropping the handle, which is borrowed as `self`, unregisters
        // it, or the scope does, with the device lock of the parent held, as it is here. So the
        // directory is valid, or null.
        unsafe {
            let dir = (*(*self.0.disk.as_raw()).part0).bd_device.kobj.sd;

            if dir.is_null() {
                return None;
            }
            File::find(dir, name)
        }
    }
}

impl<T: Operations> AsRef<GenDisk> for Disk<T> {
    fn as_ref(&self) -> &GenDisk {
        &self.0.disk
    }
}

// SAFETY: `del_gendisk` waits for calls of `submit` and for accesses to the disk's files. Only a
// reference to the disk remains; bios that end later do not use its data.
unsafe impl<T: Operations> Registered for Disk<T> {
    unsafe fn unregister(&self) {
        // SAFETY: `Registered::unregister` requires that the disk is registered. It is unregistered
        // only here.
        unsafe { kernel::bindings::del_gendisk(self.0.disk.as_raw()) };
    }
}
