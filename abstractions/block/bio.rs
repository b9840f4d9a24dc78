// SPDX-License-Identifier: GPL-2.0

//! Bios, and the memory that they transfer to or from.

use crate::abstractions::{
    bindings,
    page, //
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
    pub(in crate::abstractions) unsafe fn from_raw(bio: NonNull<bio>) -> Self {
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
    pub(in crate::abstractions) fn into_raw(self) -> NonNull<bio> {
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
    pub(in crate::abstractions) fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Makes the kernel's and user space's views of the memory agree, where they may differ.
    #[inline]
    pub(in crate::abstractions) fn flush_dcache(&self) {
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
    return page::address_in_map(page).wrapping_add(offset);

    #[cfg(not(all(CONFIG_X86_64, not(CONFIG_KMAP_LOCAL))))]
    // SAFETY: The byte's page is the bio's, and that of `page` as many pages on.
    return unsafe {
        kernel::bindings::kmap_local_page(page.add(offset / PAGE_SIZE))
            .cast::<u8>()
            .add(offset % PAGE_SIZE)
    };
}
