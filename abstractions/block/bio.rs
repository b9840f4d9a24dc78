// SPDX-License-Identifier: GPL-2.0

//! Bios, and the memory that they transfer to or from.

#[cfg(CONFIG_X86_64)]
use crate::abstractions::page;
use crate::abstractions::{
    bindings,
    copy::copy_mc, //
};
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings::{
        bio,
        bio_vec,
        blk_opf_t,
        bvec_iter,
        req_op_REQ_OP_READ,
        req_op_REQ_OP_WRITE,
        req_op_REQ_OP_WRITE_ZEROES, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// A bio that the driver owns, and ends exactly once: by [`Self::end`], or with [`EIO`] when it is
/// dropped.
///
/// # Invariants
///
/// `bio` is a valid bio that was submitted to a disk, and has not ended.
pub(crate) struct Bio<'a> {
    bio: NonNull<bio>,
    _submitted: PhantomData<&'a bio>,
}

/// The memory of a bio, by the direction of the copy.
pub(crate) enum Data<'a> {
    /// A read fills the memory.
    Read(Segments<'a, ToBio>),
    /// A write stores the memory.
    Write(Segments<'a, FromBio>),
}

/// The operation of a bio.
pub(crate) enum Transfer<'a> {
    /// A read or a write.
    Data(Data<'a>),
    /// A write of zeroes. The bio has no memory.
    Zero,
}

impl<'a> Bio<'a> {
    /// # Safety
    ///
    /// `bio` is a valid bio that was submitted to a disk and has not ended, for all of `'a`. The
    /// result is the only one to end it.
    #[inline]
    pub(in crate::abstractions) unsafe fn from_raw(bio: NonNull<bio>) -> Self {
        // INVARIANT: `# Safety` requires a submitted bio that has not ended.
        Self {
            bio,
            _submitted: PhantomData,
        }
    }

    /// Returns the operation and the flags.
    #[inline]
    fn opf(&self) -> blk_opf_t {
        // SAFETY: By the type invariant the bio is valid. Only its owner, this driver, may change
        // the field.
        unsafe { (*self.bio.as_ptr()).bi_opf }
    }

    /// Returns the position of the data on the disk and in the bio's memory.
    #[inline]
    fn iter(&self) -> &bvec_iter {
        // SAFETY: By the type invariant the bio is valid. Only its owner, this driver, may change
        // the field, and does not.
        unsafe { &(*self.bio.as_ptr()).bi_iter }
    }

    /// Gives up the bio. The caller must end it.
    pub(in crate::abstractions) fn into_raw(self) -> NonNull<bio> {
        core::mem::ManuallyDrop::new(self).bio
    }

    /// Returns whether all acknowledged writes must be durable before this one is served.
    #[inline]
    pub(crate) fn is_preflush(&self) -> bool {
        self.opf() & bindings::REQ_PREFLUSH != 0
    }

    /// Returns whether the data must be durable when the bio ends.
    #[inline]
    pub(crate) fn is_fua(&self) -> bool {
        self.opf() & bindings::REQ_FUA != 0
    }

    /// Returns the first sector (512 bytes) on the disk.
    #[inline]
    pub(crate) fn sector(&self) -> u64 {
        self.iter().bi_sector
    }

    /// Returns the number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.iter().bi_size
    }

    /// Returns the operation, with the memory in the order of the disk. `None` for operations other
    /// than read, write and write zeroes.
    pub(crate) fn transfer(&mut self) -> Option<Transfer<'_>> {
        // Other operations (discard, zones) have a size, but no memory.
        #[allow(non_upper_case_globals, reason = "the names of C constants")]
        match self.opf() & bindings::REQ_OP_MASK {
            req_op_REQ_OP_READ => {
                // SAFETY: The bio is a read.
                let segments = unsafe { Segments::new(self) };

                Some(Transfer::Data(Data::Read(segments)))
            }
            req_op_REQ_OP_WRITE => {
                // SAFETY: The bio is a write.
                let segments = unsafe { Segments::new(self) };

                Some(Transfer::Data(Data::Write(segments)))
            }
            req_op_REQ_OP_WRITE_ZEROES => Some(Transfer::Zero),
            _ => None,
        }
    }

    /// Converts the bio to a [`SimpleBio`]. Returns it unchanged if it is not simple.
    #[inline]
    pub(crate) fn simple(self) -> Result<SimpleBio<'a>, Self> {
        const NOT_SIMPLE: blk_opf_t =
            bindings::REQ_OP_MASK & !1 | bindings::REQ_PREFLUSH | bindings::REQ_FUA;

        if self.opf() & NOT_SIMPLE == 0 && !self.has_statistics() {
            // INVARIANT: The operation is 0 or 1, `REQ_OP_READ` or `REQ_OP_WRITE`.
            Ok(SimpleBio(self))
        } else {
            Err(self)
        }
    }

    /// Returns whether the bio changes the disk.
    #[inline]
    pub(crate) fn is_write(&self) -> bool {
        // Operations that change the disk are odd (`op_is_write`).
        self.opf() & 1 != 0
    }

    /// Returns whether the disk has I/O statistics switched on.
    #[inline]
    fn has_statistics(&self) -> bool {
        // SAFETY: By the type invariant the bio was submitted, so it has a device with a queue.
        // sysfs may change the features at the same time: one volatile load.
        let features = unsafe {
            let queue = (*(*self.bio.as_ptr()).bi_bdev).bd_queue;

            (&raw const (*queue).limits.features).read_volatile()
        };

        features & bindings::BLK_FEAT_IO_STAT != 0
    }

    /// Calls `serve` with the bio, and accounts for it in the disk's statistics if they are on.
    pub(crate) fn account<R>(&mut self, serve: impl FnOnce(&mut Self) -> R) -> R {
        if !self.has_statistics() {
            return serve(self);
        }
        let bio = self.bio.as_ptr();
        // SAFETY: By the type invariant the bio was submitted to a disk, and has not ended.
        let start = unsafe { kernel::bindings::bio_start_io_acct(bio) };
        let result = serve(self);

        // SAFETY: The accounting was started above. `serve` only borrows the bio, and no safe
        // function makes another one to replace it with, so it has not ended, and has the same
        // device.
        unsafe { kernel::bindings::bio_end_io_acct_remapped(bio, start, (*bio).bi_bdev) };
        result
    }

    /// Ends the bio.
    #[inline]
    pub(crate) fn end(self, result: Result) {
        let bio = self.into_raw();

        // SAFETY: `into_raw` has given up the bio, which is valid and not ended. It is ended once,
        // here.
        unsafe {
            if let Err(e) = result {
                (*bio.as_ptr()).bi_status = kernel::bindings::errno_to_blk_status(e.to_errno());
            }
            kernel::bindings::bio_endio(bio.as_ptr());
        }
    }
}

/// A bio that only reads or writes data: without a flush, and without statistics.
///
/// # Invariants
///
/// The operation is `REQ_OP_READ` or `REQ_OP_WRITE`, so that the bio has memory.
pub(crate) struct SimpleBio<'a>(Bio<'a>);

impl SimpleBio<'_> {
    /// Returns the memory of the bio, in the order of the disk.
    #[inline]
    pub(crate) fn data(&mut self) -> Data<'_> {
        if self.is_write() {
            // SAFETY: By the type invariant the bio is a read or a write, and it is not a read.
            Data::Write(unsafe { Segments::new(&self.0) })
        } else {
            // SAFETY: By the type invariant the bio is a read or a write, and it is not a write.
            Data::Read(unsafe { Segments::new(&self.0) })
        }
    }

    /// Returns whether the memory is one contiguous segment.
    #[inline]
    pub(crate) fn has_one_segment(&self) -> bool {
        // SAFETY: By the type invariant the bio is a read or a write. No segment is taken.
        let segments = unsafe { Segments::<'_, ()>::new(&self.0) };

        segments.is_one()
    }
}

impl<'a> Deref for SimpleBio<'a> {
    type Target = Bio<'a>;

    #[inline]
    fn deref(&self) -> &Bio<'a> {
        &self.0
    }
}

impl<'a> From<SimpleBio<'a>> for Bio<'a> {
    #[inline]
    fn from(bio: SimpleBio<'a>) -> Self {
        bio.0
    }
}

impl Drop for Bio<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the bio is valid and not ended. It is ended once: `end` and
        // `into_raw` do not drop.
        unsafe {
            (*self.bio.as_ptr()).bi_status = kernel::bindings::errno_to_blk_status(EIO.to_errno());
            kernel::bindings::bio_endio(self.bio.as_ptr());
        }
    }
}

/// The direction of a read: to the bio's memory.
pub(crate) struct ToBio;
/// The direction of a write: from the bio's memory.
pub(crate) struct FromBio;

/// A contiguous segment of a bio's memory. `D`, the direction, is [`ToBio`] or [`FromBio`].
///
/// # Invariants
///
/// `ptr` is valid for `len` bytes: for writes if `D` is [`ToBio`], else for reads. Persistent
/// memory among them may be unmapped when it fails, so only copies that survive a fault access
/// them. `page` is the `struct page` of the first byte; those of the other bytes follow it.
pub(crate) struct Segment<'a, D> {
    ptr: NonNull<u8>,
    len: u32,
    page: *mut kernel::bindings::page,
    _memory: PhantomData<(&'a bio, D)>,
}

impl<D> Segment<'_, D> {
    /// Returns the number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(in crate::abstractions) fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Makes the kernel's and user space's mappings coherent, where they may differ
    /// (`flush_dcache_page`).
    #[inline]
    pub(in crate::abstractions) fn flush_dcache(&self) {
        #[cfg(CONFIG_ARM64)]
        {
            let offset = self.ptr.as_ptr() as usize % PAGE_SIZE;

            // No overflow: a segment is shorter than 4 GiB.
            for i in 0..offset.wrapping_add(self.len()).div_ceil(PAGE_SIZE) {
                // SAFETY: By the type invariant the `struct page`s of the segment follow `page`.
                unsafe { bindings::flush_dcache_page(self.page.add(i)) };
            }
        }
        #[cfg(not(CONFIG_ARM64))]
        let _ = self.page;
    }
}

/// An iterator over the segments of a bio, which may be larger than a page.
///
/// # Invariants
///
/// `left` bytes remain: in the elements from `vec` on, without the first `done` bytes of `vec`.
pub(crate) struct Segments<'a, D> {
    vec: *const bio_vec,
    done: u32,
    left: u32,
    _memory: PhantomData<(&'a bio, D)>,
}

impl<'a, D> Segments<'a, D> {
    /// # Safety
    ///
    /// The bio is a read or a write. If segments are taken, it is a read if `D` is [`ToBio`], and a
    /// write if `D` is [`FromBio`], and no other segments of the bio are in use.
    #[inline]
    unsafe fn new(bio: &'a Bio<'_>) -> Self {
        let iter = bio.iter();

        // INVARIANT: The block layer submits a bio whose `bi_iter` describes its vectors so.
        Self {
            // SAFETY: By the type invariant of `Bio` it is valid; `bi_idx` is an index of its
            // vectors.
            vec: unsafe { (*bio.bio.as_ptr()).bi_io_vec.add(iter.bi_idx as usize) },
            #[cfg(BVEC_ITER_HAS_BI_OFFSET)]
            done: iter.bi_offset,
            #[cfg(not(BVEC_ITER_HAS_BI_OFFSET))]
            done: iter.bi_bvec_done,
            left: iter.bi_size,
            _memory: PhantomData,
        }
    }

    /// Returns whether one segment remains.
    #[inline]
    fn is_one(&self) -> bool {
        // SAFETY: Bytes remain, as is checked first.
        self.left != 0 && unsafe { self.first_len() } == self.left
    }

    /// Returns the remaining memory if it is one segment.
    #[inline]
    pub(crate) fn only(&mut self) -> Option<Segment<'_, D>> {
        // SAFETY: Bytes remain.
        self.is_one().then(|| unsafe { self.first() })
    }

    /// Returns the next segment, like `bio_for_each_bvec`.
    #[inline]
    pub(crate) fn next_segment(&mut self) -> Option<Segment<'_, D>> {
        if self.left == 0 {
            return None;
        }
        // SAFETY: Bytes remain.
        let segment = unsafe { self.first() };

        self.advance(segment.len, true);
        Some(segment)
    }

    /// Advances by `len` bytes, which are in the first segment. `whole` if they are known to be the
    /// rest of its element, or all that remains.
    #[inline]
    fn advance(&mut self, len: u32, whole: bool) {
        // INVARIANT: `len` bytes less remain, behind `len` bytes more of `vec`.
        self.left = self.left.wrapping_sub(len);
        self.done = self.done.wrapping_add(len);
        // SAFETY: By the type invariant `vec` is an element, as bytes of it remained. The vectors
        // of a submitted bio do not change.
        if whole || self.done == unsafe { (*self.vec).bv_len } {
            self.done = 0;
            self.vec = self.vec.wrapping_add(1);
        }
    }

    /// Returns the length of the first segment.
    ///
    /// # Safety
    ///
    /// Bytes remain.
    #[inline]
    unsafe fn first_len(&self) -> u32 {
        // SAFETY: By the type invariant `vec` is an element, as bytes remain. The vectors of a
        // submitted bio do not change.
        let vec = unsafe { &*self.vec };

        vec.bv_len.wrapping_sub(self.done).min(self.left)
    }

    /// Returns the first segment.
    ///
    /// # Safety
    ///
    /// Bytes remain.
    #[inline]
    unsafe fn first(&self) -> Segment<'a, D> {
        // SAFETY: By the type invariant `vec` is an element, as bytes remain. The vectors of a
        // submitted bio do not change.
        let vec = unsafe { &*self.vec };
        let offset = vec.bv_offset.wrapping_add(self.done);
        // SAFETY: `# Safety` requires that bytes remain.
        let len = unsafe { self.first_len() };

        // SAFETY: The page belongs to the bio, and the pages of a vector are contiguous.
        let ptr = unsafe { address_of(vec.bv_page, offset as usize) };
        // The pages of a vector may have different KASAN tags. This one matches all
        // (`kasan_reset_tag`).
        #[cfg(CONFIG_ARM64)]
        let ptr = ptr.map_addr(|address| address | 0xff << 56);

        // INVARIANT: `len` bytes of the vector remain, and begin at `ptr`: the pages of a vector
        // are contiguous in the direct map.
        Segment {
            // SAFETY: No page has the address null.
            ptr: unsafe {
                core::hint::assert_unchecked(!ptr.is_null());
                NonNull::new_unchecked(ptr)
            },
            len,
            // SAFETY: The offset is inside of the vector, whose `struct page`s follow `bv_page`.
            page: unsafe { vec.bv_page.add(offset as usize / PAGE_SIZE) },
            _memory: PhantomData,
        }
    }
}

impl Segments<'_, FromBio> {
    /// Fills `to` with the next bytes. [`EIO`] if fewer remain, or if their memory fails: it may be
    /// persistent memory as well.
    pub(crate) fn copy_to(&mut self, mut to: &mut [u8]) -> Result {
        while !to.is_empty() {
            if self.left == 0 {
                return Err(EIO);
            }
            // SAFETY: Bytes remain.
            let segment = unsafe { self.first() };
            let len = segment.len().min(to.len());
            let (now, rest) = to.split_at_mut_checked(len).ok_or(EIO)?;

            segment.flush_dcache();
            // SAFETY: Both are valid for `len` bytes, at most those of a bio. A program may write
            // to the memory of a bio during the copy, as `copy_mc` allows.
            unsafe { copy_mc(NonNull::from(now).cast(), segment.ptr, len) }?;
            to = rest;
            // CAST: At most the length of the segment.
            self.advance(len as u32, false);
        }
        Ok(())
    }
}

/// Returns the address of the byte at `offset` from the start of `page`. All memory of a 64-bit
/// kernel is in the direct map, also where `CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP` maps it a second
/// time.
///
/// # Safety
///
/// The byte is in a page of a bio, contiguous to `page`.
#[inline]
unsafe fn address_of(page: *mut kernel::bindings::page, offset: usize) -> *mut u8 {
    // `page_address`, without a call.
    #[cfg(CONFIG_X86_64)]
    return page::direct_map_address(page).wrapping_add(offset);

    #[cfg(not(CONFIG_X86_64))]
    // SAFETY: `# Safety` requires that the page of the byte belongs to the bio, and follows `page`.
    // Without `CONFIG_KMAP_LOCAL`, this is `page_address`, and there is nothing to unmap.
    return unsafe {
        kernel::bindings::kmap_local_page(page.add(offset / PAGE_SIZE))
            .cast::<u8>()
            .add(offset % PAGE_SIZE)
    };
}
