// SPDX-License-Identifier: GPL-2.0

//! Disks that take bios as they come, without a request queue in between.
//!
//! C headers: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h),
//! [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::{
    badblocks::BadBlocks,
    bindings,
    memory::HasPages,
    pagemap,
    scope::{
        Registered,
        Scope,
        Scoped, //
    },
    sysfs::File, //
};
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings::{
        attribute,
        attribute_group,
        bio,
        bio_vec,
        blk_opf_t,
        block_device_operations,
        bvec_iter,
        device_attribute,
        gendisk,
        queue_limits,
        req_op_REQ_OP_READ,
        req_op_REQ_OP_WRITE,
        req_op_REQ_OP_WRITE_ZEROES,
        DISK_NAME_LEN, //
    },
    device::{
        self,
        Core, //
    },
    error::{
        from_err_ptr,
        from_result,
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

/// A sysfs file that holds a boolean.
pub(crate) trait BoolAttribute<T> {
    /// The name of the directory that the file is in, below the disk's own.
    const DIRECTORY: &'static CStr;
    /// The name of the file.
    const NAME: &'static CStr;
    /// Whether the file is there at all.
    const VISIBLE: bool;

    /// What is read.
    fn show(of: &T) -> bool;

    /// What is written; anything that `kstrtobool` does not know is [`EINVAL`].
    fn store(of: &T, value: bool) -> Result;
}

/// The files of a disk, as the core takes them.
pub(crate) trait Attributes<T> {
    /// Ends with a null pointer.
    const GROUPS: &'static [*const attribute_group];
}

impl<T, A, B> Attributes<T> for (A, B)
where
    T: Operations,
    A: BoolAttribute<T>,
    B: BoolAttribute<T>,
{
    const GROUPS: &'static [*const attribute_group] = &[
        AttributeFile::<T, A>::GROUP_REF,
        AttributeFile::<T, B>::GROUP_REF,
        core::ptr::null(),
    ];
}

/// The file of a [`BoolAttribute`].
struct AttributeFile<T, A>(PhantomData<(T, A)>);

impl<T: Operations, A: BoolAttribute<T>> AttributeFile<T, A> {
    #[allow(
        clippy::needless_update,
        reason = "with lockdep, an attribute has more fields"
    )]
    const ATTRIBUTE: device_attribute = device_attribute {
        attr: attribute {
            name: A::NAME.to_bytes_with_nul().as_ptr(),
            mode: 0o644,
            ..pin_init::zeroed()
        },
        __bindgen_anon_1: kernel::bindings::device_attribute__bindgen_ty_1 {
            show: Some(Self::show_callback),
        },
        __bindgen_anon_2: kernel::bindings::device_attribute__bindgen_ty_2 {
            store: Some(Self::store_callback),
        },
    };

    const ATTRIBUTES: [*mut attribute; 2] = [
        (&raw const Self::ATTRIBUTE_REF.attr).cast_mut(),
        core::ptr::null_mut(),
    ];
    const ATTRIBUTE_REF: &'static device_attribute = &Self::ATTRIBUTE;

    const GROUP: attribute_group = attribute_group {
        name: A::DIRECTORY.to_bytes_with_nul().as_ptr(),
        __bindgen_anon_1: kernel::bindings::attribute_group__bindgen_ty_1 {
            is_visible: Some(Self::is_visible_callback),
        },
        __bindgen_anon_2: kernel::bindings::attribute_group__bindgen_ty_2 {
            attrs: Self::ATTRIBUTES_REF.as_ptr().cast_mut(),
        },
        ..pin_init::zeroed()
    };
    const ATTRIBUTES_REF: &'static [*mut attribute; 2] = &Self::ATTRIBUTES;
    const GROUP_REF: &'static attribute_group = &Self::GROUP;

    extern "C" fn is_visible_callback(
        _kobj: *mut kernel::bindings::kobject,
        attr: *mut attribute,
        _index: c_int,
    ) -> kernel::bindings::umode_t {
        if A::VISIBLE {
            // SAFETY: sysfs calls this for the attributes of the group.
            unsafe { (*attr).mode }
        } else {
            0
        }
    }

    extern "C" fn show_callback(
        dev: *mut kernel::bindings::device,
        _attr: *mut device_attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: sysfs calls this for a file that `register` has made.
        let data = unsafe { UnregisteredDisk::<T>::data_of_device(dev) };
        let digit = if A::show(data) { b'1' } else { b'0' };

        // SAFETY: `buf` has a page.
        unsafe {
            buf.write(digit);
            buf.add(1).write(b'\n');
            buf.add(2).write(0);
        }
        2
    }

    extern "C" fn store_callback(
        dev: *mut kernel::bindings::device,
        _attr: *mut device_attribute,
        buf: *const c_char,
        len: usize,
    ) -> isize {
        // SAFETY: sysfs calls this for a file that `register` has made.
        let data = unsafe { UnregisteredDisk::<T>::data_of_device(dev) };
        let mut value = false;

        from_result(|| {
            // SAFETY: sysfs ends what was written with a zero.
            to_result(unsafe { kernel::bindings::kstrtobool(buf, &mut value) })?;
            A::store(data, value)?;
            // CAST: No write to sysfs is longer than a page.
            Ok(len as isize)
        })
    }
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
    pub(super) fn as_raw(&self) -> *mut gendisk {
        self.disk.as_ptr()
    }

    /// The device that the disk is registered below; null before it is.
    pub(super) fn parent(&self) -> *mut kernel::bindings::device {
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
    unsafe fn data_of_device<'a>(dev: *mut kernel::bindings::device) -> &'a T {
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

/// A bio that is ours to end, which is done exactly once: by [`Self::end`], or with [`EIO`] when
/// it is dropped.
///
/// # Invariants
///
/// `bio` is a valid bio, submitted to a disk of ours and not ended.
pub(crate) struct Bio<'a> {
    bio: NonNull<bio>,
    _submitted: PhantomData<&'a bio>,
}

/// The memory of a bio, by what is to be done with it.
pub(crate) enum Data<'a> {
    /// The bio's memory is to be filled.
    Read(Segments<'a, ToBio>),
    /// The bio's memory is to be stored.
    Write(Segments<'a, FromBio>),
}

/// What is to be done.
pub(crate) enum Transfer<'a> {
    /// Data is to be moved.
    Data(Data<'a>),
    /// Zeroes are to be stored; the bio has no memory.
    Zero,
}

impl<'a> Bio<'a> {
    /// # Safety
    ///
    /// The type invariant must hold, for all of `'a`, and nobody else may end the bio.
    #[inline]
    pub(super) unsafe fn from_raw(bio: NonNull<bio>) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            bio,
            _submitted: PhantomData,
        }
    }

    /// What is asked for: operation and flags.
    #[inline]
    fn opf(&self) -> blk_opf_t {
        // SAFETY: By the type invariant; the field is the owner's.
        unsafe { (*self.bio.as_ptr()).bi_opf }
    }

    /// Where the data is: on the disk, and in the bio's memory.
    #[inline]
    fn iter(&self) -> &bvec_iter {
        // SAFETY: By the type invariant; the field is the owner's, who does not change it.
        unsafe { &(*self.bio.as_ptr()).bi_iter }
    }

    /// Gives the bio away; the receiver must end it.
    pub(super) fn into_raw(self) -> NonNull<bio> {
        core::mem::ManuallyDrop::new(self).bio
    }

    /// Whether all that was written and acknowledged before must be durable first.
    #[inline]
    pub(crate) fn is_preflush(&self) -> bool {
        self.opf() & bindings::REQ_PREFLUSH != 0
    }

    /// Whether the submitter would rather have the bio back than wait.
    #[inline]
    pub(crate) fn is_nowait(&self) -> bool {
        self.opf() & bindings::REQ_NOWAIT != 0
    }

    /// Whether what is written must be durable when the bio ends.
    #[inline]
    pub(crate) fn is_fua(&self) -> bool {
        self.opf() & bindings::REQ_FUA != 0
    }

    /// The first sector (512 bytes) of the disk that is concerned.
    #[inline]
    pub(crate) fn sector(&self) -> u64 {
        self.iter().bi_sector
    }

    /// The number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.iter().bi_size
    }

    /// What is to be done, in the order of the disk; `None` for an operation that [`Limits`] has no
    /// field for.
    pub(crate) fn transfer(&mut self) -> Option<Transfer<'_>> {
        // Discards and operations on zones have a size, but no memory.
        #[allow(non_upper_case_globals, reason = "the names of C constants")]
        match self.opf() & bindings::REQ_OP_MASK {
            req_op_REQ_OP_READ => {
                // SAFETY: A read, whose memory is to be filled.
                let segments = unsafe { Segments::new(self) };

                Some(Transfer::Data(Data::Read(segments)))
            }
            req_op_REQ_OP_WRITE => {
                // SAFETY: A write, whose memory is to be stored.
                let segments = unsafe { Segments::new(self) };

                Some(Transfer::Data(Data::Write(segments)))
            }
            req_op_REQ_OP_WRITE_ZEROES => Some(Transfer::Zero),
            _ => None,
        }
    }

    /// The bio as one that is a read or a write of data with nothing to be done besides, if it is one.
    #[inline]
    pub(crate) fn plain(self) -> Result<PlainBio<'a>, Self> {
        const NOT_PLAIN: blk_opf_t =
            bindings::REQ_OP_MASK & !1 | bindings::REQ_PREFLUSH | bindings::REQ_FUA;

        if self.opf() & NOT_PLAIN == 0 && !self.has_statistics() {
            // INVARIANT: Checked here.
            Ok(PlainBio(self))
        } else {
            Err(self)
        }
    }

    /// Whether the bio changes the disk.
    #[inline]
    pub(crate) fn is_write(&self) -> bool {
        // Odd operations do: see `op_is_write`.
        self.opf() & 1 != 0
    }

    /// Whether the disk counts what it serves.
    #[inline]
    fn has_statistics(&self) -> bool {
        // SAFETY: By the type invariant: a submitted bio has a device with a queue. Its features may
        // be changed through sysfs meanwhile.
        let features = unsafe {
            let queue = (*(*self.bio.as_ptr()).bi_bdev).bd_queue;

            (&raw const (*queue).limits.features).read_volatile()
        };

        features & bindings::BLK_FEAT_IO_STAT != 0
    }

    /// Calls `serve` with the bio, and counts that in the disk's statistics if those are on.
    pub(crate) fn account<R>(&mut self, serve: impl FnOnce(&mut Self) -> R) -> R {
        if !self.has_statistics() {
            return serve(self);
        }
        let bio = self.bio.as_ptr();
        // SAFETY: By the type invariant the bio was submitted to a disk.
        let start = unsafe { kernel::bindings::bio_start_io_acct(bio) };
        let result = serve(self);

        // SAFETY: The accounting was started above. `serve` had the bio borrowed, so that it could not
        // end it, and its device is the one that it was submitted to.
        unsafe { kernel::bindings::bio_end_io_acct_remapped(bio, start, (*bio).bi_bdev) };
        result
    }

    /// Ends the bio, of which nothing was done: that would have meant to wait.
    pub(crate) fn end_would_wait(self) {
        let bio = self.into_raw();

        // SAFETY: The bio was ours, and now is the submitter's again.
        unsafe {
            (*bio.as_ptr()).bi_status = bindings::BLK_STS_AGAIN;
            kernel::bindings::bio_endio(bio.as_ptr());
        }
    }

    /// Ends the bio.
    #[inline]
    pub(crate) fn end(self, result: Result) {
        let bio = self.into_raw();

        // SAFETY: The bio was ours, and now is the submitter's again.
        unsafe {
            if let Err(e) = result {
                (*bio.as_ptr()).bi_status = kernel::bindings::errno_to_blk_status(e.to_errno());
            }
            kernel::bindings::bio_endio(bio.as_ptr());
        }
    }
}

/// A bio that is a read or a write of data with nothing to be done besides: no flush, no statistics.
///
/// # Invariants
///
/// The operation is `REQ_OP_READ` or `REQ_OP_WRITE`, so that there is memory.
pub(crate) struct PlainBio<'a>(Bio<'a>);

impl PlainBio<'_> {
    /// The memory of the bio, in the order of the disk.
    #[inline]
    pub(crate) fn data(&mut self) -> Data<'_> {
        if self.is_write() {
            // SAFETY: By the type invariant it is a write, whose memory is to be stored.
            Data::Write(unsafe { Segments::new(&self.0) })
        } else {
            // SAFETY: By the type invariant it is a read, whose memory is to be filled.
            Data::Read(unsafe { Segments::new(&self.0) })
        }
    }

    /// Whether its memory is one piece.
    #[inline]
    pub(crate) fn is_in_one_piece(&self) -> bool {
        // SAFETY: By the type invariant there is memory; none of it is taken.
        let segments = unsafe { Segments::<'_, ()>::new(&self.0) };

        segments.is_one()
    }

    /// Ends the bio.
    #[inline]
    pub(crate) fn end(self, result: Result) {
        self.0.end(result);
    }
}

impl<'a> Deref for PlainBio<'a> {
    type Target = Bio<'a>;

    #[inline]
    fn deref(&self) -> &Bio<'a> {
        &self.0
    }
}

impl<'a> From<PlainBio<'a>> for Bio<'a> {
    #[inline]
    fn from(bio: PlainBio<'a>) -> Self {
        bio.0
    }
}

impl Drop for Bio<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; dropping gives the bio back.
        unsafe {
            (*self.bio.as_ptr()).bi_status = kernel::bindings::errno_to_blk_status(EIO.to_errno());
            kernel::bindings::bio_endio(self.bio.as_ptr());
        }
    }
}

/// The data goes from the device into the bio's memory.
pub(crate) struct ToBio;
/// The data goes from the bio's memory to the device.
pub(crate) struct FromBio;

/// One contiguous piece of a bio's memory; `D` is [`ToBio`] or [`FromBio`].
///
/// # Invariants
///
/// `ptr` is mapped and valid for `len` bytes: for writes if `D` is [`ToBio`], else for reads. `page` is
/// the `struct page` of the first byte, and those of the rest follow.
pub(crate) struct Segment<'a, D> {
    ptr: NonNull<u8>,
    len: u32,
    page: *mut kernel::bindings::page,
    _memory: PhantomData<(&'a bio, D)>,
}

impl<D> Segment<'_, D> {
    /// The number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Makes the kernel's and user space's views of the memory agree, where they may differ.
    #[inline]
    pub(super) fn flush_dcache(&self) {
        #[cfg(CONFIG_ARM64)]
        {
            let offset = self.ptr.as_ptr() as usize % PAGE_SIZE;

            // No overflow: a segment is less than 4 GiB long.
            for i in 0..offset.wrapping_add(self.len()).div_ceil(PAGE_SIZE) {
                // SAFETY: By the type invariant the pages from `page` on are those of the segment.
                unsafe { bindings::flush_dcache_page(self.page.add(i)) };
            }
        }
        #[cfg(not(CONFIG_ARM64))]
        let _ = self.page;
    }
}

impl<D> Drop for Segment<'_, D> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(CONFIG_KMAP_LOCAL)]
        // SAFETY: It was mapped by `Segments::next`.
        unsafe {
            kernel::bindings::kunmap_local(self.ptr.as_ptr().cast())
        };
    }
}

/// Goes through the memory of a bio, whose pieces may be larger than a page.
///
/// # Invariants
///
/// `left` bytes are in the elements from `vec` on, after the first `done` of `vec`'s.
pub(crate) struct Segments<'a, D> {
    vec: *const bio_vec,
    done: u32,
    left: u32,
    _memory: PhantomData<(&'a bio, D)>,
}

impl<'a, D> Segments<'a, D> {
    /// # Safety
    ///
    /// The bio is a read or a write. If any memory is taken, it is a read if `D` is [`ToBio`], and a
    /// write if `D` is [`FromBio`]; and no other segments of the bio are in use.
    #[inline]
    unsafe fn new(bio: &'a Bio<'_>) -> Self {
        let iter = bio.iter();

        // INVARIANT: That is how a bio is submitted.
        Self {
            // SAFETY: By the type invariant of `Bio`.
            vec: unsafe { (*bio.bio.as_ptr()).bi_io_vec.add(iter.bi_idx as usize) },
            done: iter.bi_bvec_done,
            left: iter.bi_size,
            _memory: PhantomData,
        }
    }

    /// Whether something is left, and is one piece.
    #[inline]
    fn is_one(&self) -> bool {
        // SAFETY: Something is left.
        self.left != 0 && unsafe { self.first_len() } == self.left
    }

    /// All that is left, if it is one piece.
    #[inline]
    pub(crate) fn only(&mut self) -> Option<Segment<'_, D>> {
        // SAFETY: Something is left. The result borrows the segments, so that it is dropped before the
        // next one is made.
        self.is_one().then(|| unsafe { self.first() })
    }

    /// The next piece, as by `bio_for_each_bvec`, or by `bio_for_each_segment` where pages must be
    /// mapped one at a time.
    #[inline]
    pub(crate) fn next_segment(&mut self) -> Option<Segment<'_, D>> {
        if self.left == 0 {
            return None;
        }
        // SAFETY: Something is left. The result borrows the segments, so that it is dropped before the
        // next one is made.
        let segment = unsafe { self.first() };

        self.advance(segment.len, cfg!(not(CONFIG_KMAP_LOCAL)));
        Some(segment)
    }

    /// Goes on behind the next `len` bytes, which are in the first piece; `whole` if they are known to
    /// be all of its element, or all that is left.
    #[inline]
    fn advance(&mut self, len: u32, whole: bool) {
        // INVARIANT: They are taken off.
        self.left = self.left.wrapping_sub(len);
        self.done = self.done.wrapping_add(len);
        // SAFETY: By the type invariant; the vectors of a submitted bio do not change.
        if whole || self.done == unsafe { (*self.vec).bv_len } {
            self.done = 0;
            self.vec = self.vec.wrapping_add(1);
        }
    }

    /// The length of the first piece of what is left.
    ///
    /// # Safety
    ///
    /// Something is left.
    #[inline]
    unsafe fn first_len(&self) -> u32 {
        // SAFETY: By the type invariant there is an element, as something is left; the vectors of a
        // submitted bio do not change.
        let vec = unsafe { &*self.vec };
        let len = vec.bv_len.wrapping_sub(self.done).min(self.left);

        if cfg!(CONFIG_KMAP_LOCAL) {
            let offset = vec.bv_offset.wrapping_add(self.done) as usize % PAGE_SIZE;

            // CAST: Not more than a page.
            len.min(PAGE_SIZE.wrapping_sub(offset) as u32)
        } else {
            len
        }
    }

    /// The first piece of what is left.
    ///
    /// # Safety
    ///
    /// Something is left. If there is `CONFIG_KMAP_LOCAL`, the pieces must be dropped in the opposite
    /// order.
    #[inline]
    unsafe fn first(&self) -> Segment<'a, D> {
        // SAFETY: By the type invariant there is an element, as something is left; the vectors of a
        // submitted bio do not change.
        let vec = unsafe { &*self.vec };
        let offset = vec.bv_offset.wrapping_add(self.done);
        // SAFETY: Something is left.
        let len = unsafe { self.first_len() };

        // SAFETY: The page is the bio's, and the pages of a vector are contiguous; without
        // `CONFIG_KMAP_LOCAL` in the kernel's map as well.
        let ptr = unsafe { address_of(vec.bv_page, offset as usize) };

        // INVARIANT: `len` bytes of the vector are left, and are mapped from `ptr` on.
        Segment {
            // SAFETY: Mapped pages have no null address.
            ptr: unsafe {
                core::hint::assert_unchecked(!ptr.is_null());
                NonNull::new_unchecked(ptr)
            },
            len,
            // SAFETY: As above.
            page: unsafe { vec.bv_page.add(offset as usize / PAGE_SIZE) },
            _memory: PhantomData,
        }
    }
}

impl Segments<'_, FromBio> {
    /// Copies the next bytes into `to`, until it is full or there are no more; the number of bytes.
    pub(crate) fn copy_to(&mut self, to: &mut [u8]) -> usize {
        let mut done = 0_usize;

        while self.left != 0 {
            // SAFETY: Something is left. The segment is dropped before the next one is made.
            let segment = unsafe { self.first() };
            let rest = to.get_mut(done..).unwrap_or_default();
            let len = segment.len().min(rest.len());

            if len == 0 {
                break;
            }
            segment.flush_dcache();
            // SAFETY: Both are valid for `len` bytes. Others may write to the memory of a bio
            // meanwhile; then it is undefined what is copied.
            unsafe {
                kernel::bindings::memcpy(rest.as_mut_ptr().cast(), segment.ptr.as_ptr().cast(), len)
            };
            // CAST: No longer than the segment.
            self.advance(len as u32, false);
            done = done.saturating_add(len);
        }
        done
    }
}

/// Where the byte at `offset` from the start of `page` is mapped, or has now been mapped.
///
/// # Safety
///
/// The byte is in a page of a bio, contiguous to `page`. If there is `CONFIG_KMAP_LOCAL`, it must be
/// unmapped.
#[inline]
unsafe fn address_of(page: *mut kernel::bindings::page, offset: usize) -> *mut u8 {
    // What `page_address` is there, without a call.
    #[cfg(all(CONFIG_X86_64, not(CONFIG_KMAP_LOCAL)))]
    return pagemap::address_in_map(page).wrapping_add(offset);

    #[cfg(not(all(CONFIG_X86_64, not(CONFIG_KMAP_LOCAL))))]
    // SAFETY: The byte's page is the bio's, and that of `page` as many pages on.
    return unsafe {
        kernel::bindings::kmap_local_page(page.add(offset / PAGE_SIZE))
            .cast::<u8>()
            .add(offset % PAGE_SIZE)
    };
}
