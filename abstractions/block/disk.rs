// SPDX-License-Identifier: GPL-2.0

//! Disks: their limits, their registration, and the callbacks of the block layer.

use super::{
    attribute::Attributes,
    Bio, //
};
use crate::abstractions::{
    badblocks::BadBlocks,
    bindings,
    memory::HasPages,
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
    page::PAGE_SIZE,
    prelude::*,
    static_lock_class, //
};

/// The name of a disk, as it appears in `/dev`.
pub(crate) type DiskName = [c_char; DISK_NAME_LEN as usize];

/// A block device driver that is handed bios.
pub(crate) trait Operations: Send + Sync + Sized {
    /// The files of the disk's directory in sysfs that the driver adds: a pair of [`BoolAttribute`]s,
    /// each in a directory of its own.
    type Attributes: Attributes<Self>;

    /// Serves one bio. Called in the submitter's context, on many CPUs at once.
    fn submit(&self, bio: Bio<'_>);

    /// The list of bad sectors of the disk, which sysfs shows as `badblocks`.
    fn bad_blocks(&self) -> &BadBlocks;
}

/// What a disk tells the block layer of itself.
///
/// All disks serve bios without waiting where they are asked to, or end them by
/// [`Bio::end_would_wait`]; and most bios are over when they have been submitted, so that there is
/// nothing to be done for who polls for their end.
pub(crate) struct Limits {
    /// The smallest addressable unit, in bytes.
    pub(crate) logical_block_size: u32,
    /// Writes are durable only after a flush.
    pub(crate) write_cache: bool,
    /// `REQ_FUA` is served better by the driver than by a flush after the write.
    pub(crate) fua: bool,
    /// File systems may ask for the disk's DAX device, whose memory has `struct page`s.
    pub(crate) dax: Option<HasPages>,
    /// The most sectors (512 bytes) that one bio may ask to be zeroed.
    pub(crate) write_zeroes: u32,
}

impl Limits {
    fn to_raw(&self) -> queue_limits {
        let mut features =
            bindings::BLK_FEAT_SYNCHRONOUS | bindings::BLK_FEAT_NOWAIT | bindings::BLK_FEAT_POLL;

        if self.write_cache {
            features |= bindings::BLK_FEAT_WRITE_CACHE;
        }
        if self.fua {
            features |= bindings::BLK_FEAT_FUA;
        }
        if self.dax.is_some() {
            features |= bindings::BLK_FEAT_DAX;
        }
        queue_limits {
            features,
            logical_block_size: self.logical_block_size,
            physical_block_size: PAGE_SIZE as c_uint,
            max_hw_sectors: c_uint::MAX,
            max_write_zeroes_sectors: self.write_zeroes,
            ..pin_init::zeroed()
        }
    }
}

/// A `struct gendisk`, put when dropped.
///
/// # Invariants
///
/// `disk` is a valid disk that a reference is held to.
pub(crate) struct GenDisk {
    disk: NonNull<gendisk>,
}

// SAFETY: A disk may be used and put by any thread.
unsafe impl Send for GenDisk {}
// SAFETY: What a shared reference does, finding files and taking references, any thread may do.
unsafe impl Sync for GenDisk {}

impl GenDisk {
    pub(in crate::abstractions) fn as_raw(&self) -> *mut gendisk {
        self.disk.as_ptr()
    }

    /// The device that the disk is registered below; null before it is.
    pub(in crate::abstractions) fn parent(&self) -> *mut kernel::bindings::device {
        // SAFETY: By the type invariant.
        unsafe { (*(*self.as_raw()).part0).bd_device.parent }
    }
}

impl Clone for GenDisk {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant; the references of a disk are those of its device, which is
        // what `put_disk` puts.
        unsafe { kernel::bindings::get_device(&raw mut (*(*self.as_raw()).part0).bd_device) };
        // INVARIANT: The reference just taken.
        Self { disk: self.disk }
    }
}

impl Drop for GenDisk {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { kernel::bindings::put_disk(self.as_raw()) };
    }
}

/// A disk that nobody can find yet.
///
/// # Invariants
///
/// The private data of `disk` is `data`.
pub(crate) struct UnregisteredDisk<T: Operations> {
    disk: GenDisk,
    #[expect(dead_code, reason = "held for the operations")]
    data: KBox<T>,
}

impl<T: Operations> UnregisteredDisk<T> {
    const OPS: block_device_operations = block_device_operations {
        submit_bio: Some(Self::submit_callback),
        // An open disk keeps the module loaded.
        owner: (&raw const kernel::bindings::__this_module).cast_mut(),
        ..pin_init::zeroed()
    };

    /// A disk of `sectors` sectors of 512 bytes, with its memory on NUMA node `node`, that `data`
    /// serves and `name` names: up to the first zero, and without the last byte. [`ENOMEM`], or
    /// [`EINVAL`] if the limits make no sense.
    pub(crate) fn new(
        limits: &Limits,
        node: c_int,
        sectors: u64,
        data: T,
        name: impl FnOnce(&mut DiskName),
    ) -> Result<Self> {
        let data = KBox::new(data, GFP_KERNEL)?;
        let mut limits = limits.to_raw();

        // SAFETY: `limits` is valid for the call.
        let disk = from_err_ptr(unsafe {
            kernel::bindings::__blk_alloc_disk(&mut limits, node, static_lock_class!().as_ptr())
        })?;
        // INVARIANT: The allocation gives the first reference.
        let disk = GenDisk {
            disk: NonNull::new(disk).ok_or(ENOMEM)?,
        };
        let raw = disk.as_raw();

        // SAFETY: The disk is not yet registered, so that nobody else looks at its fields. `data`
        // and its list stay where they are until the disk is freed.
        unsafe {
            name(&mut (*raw).disk_name);
            (*raw).disk_name[DISK_NAME_LEN as usize - 1] = 0;
            (*raw).fops = const { &Self::OPS };
            (*raw).private_data = core::ptr::from_ref::<T>(&data).cast_mut().cast();
            (*raw).bb = data.bad_blocks().as_raw().cast();
            kernel::bindings::set_capacity(raw, sectors);
        }
        // INVARIANT: `private_data` is that of `data`'s box.
        Ok(Self { disk, data })
    }

    /// Makes the disk known, below `parent`. Its partitions are read before this returns.
    ///
    /// [`EEXIST`] if there is a disk of the name, [`ENOMEM`].
    pub(crate) fn register<'bound>(
        self,
        parent: &device::Device<Core<'_>>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Disk<T>>>
    where
        T: 'bound,
    {
        // CAST: `Device` is a transparent wrapper.
        let parent = core::ptr::from_ref(parent)
            .cast_mut()
            .cast::<kernel::bindings::device>();

        // INVARIANT: Registered here, and given out only if that succeeds.
        Scoped::new(scope, Disk(self), |disk| {
            // SAFETY: The disk is set up and not registered, and all that it refers to is static or in
            // `disk`, which stays until it is unregistered.
            to_result(unsafe {
                kernel::bindings::device_add_disk(
                    parent,
                    disk.0.disk.as_raw(),
                    T::Attributes::GROUPS.as_ptr().cast_mut(),
                )
            })
        })
    }

    /// # Safety
    ///
    /// `disk` is a disk made by [`Self::new`] that can get I/O or sysfs accesses at the moment, and
    /// will not have been unregistered for all of `'a`.
    unsafe fn data<'a>(disk: *mut gendisk) -> &'a T {
        // SAFETY: `new` has set the private data to `data`, which stays in its place until after the disk
        // is unregistered.
        unsafe { &*(*disk).private_data.cast::<T>() }
    }

    extern "C" fn submit_callback(bio: *mut bio) {
        // SAFETY: The block layer calls this with a bio for a live disk of ours, whose queue it
        // holds for the duration of the call, and gives the bio to us.
        unsafe {
            let data = Self::data((*(*bio).bi_bdev).bd_disk);

            data.submit(Bio::from_raw(NonNull::new_unchecked(bio)));
        }
    }

    /// # Safety
    ///
    /// `dev` is the device of a disk of ours, one of whose files is being accessed.
    pub(super) unsafe fn data_of_device<'a>(dev: *mut kernel::bindings::device) -> &'a T {
        // SAFETY: The device of a disk is that of its `part0`. Unregistering the disk waits for
        // accesses to its files.
        unsafe {
            let part0 = kernel::container_of!(dev, kernel::bindings::block_device, bd_device);

            Self::data((*part0).bd_disk)
        }
    }
}

impl<T: Operations> AsRef<GenDisk> for UnregisteredDisk<T> {
    fn as_ref(&self) -> &GenDisk {
        &self.disk
    }
}

/// A disk that gets I/O until it is unregistered, which waits until the last bio is served.
///
/// # Invariants
///
/// It is registered, or was.
pub(crate) struct Disk<T: Operations>(UnregisteredDisk<T>);

impl<T: Operations> Disk<T> {
    /// The directory of the disk, which is registered below `parent`, has a file `name`: a reference to
    /// it.
    pub(crate) fn sysfs_file(
        &self,
        parent: &device::Device<Core<'_>>,
        name: &CStr,
    ) -> Option<File> {
        // CAST: `Device` is a transparent wrapper.
        let parent = core::ptr::from_ref(parent).cast::<kernel::bindings::device>();

        if self.0.disk.parent().cast_const() != parent {
            return None;
        }
        // SAFETY: The disk is valid. It is unregistered when the handle is dropped, which lends `self`, or
        // by the scope, under its parent's lock, which is held: the directory is there, or null.
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

// SAFETY: `del_gendisk` waits until the last bio is served, and for those who use the disk's files. What
// is left is a disk that a reference is held to.
unsafe impl<T: Operations> Registered for Disk<T> {
    unsafe fn unregister(&self) {
        // SAFETY: The disk is registered, and unregistered only here.
        unsafe { kernel::bindings::del_gendisk(self.0.disk.as_raw()) };
    }
}
