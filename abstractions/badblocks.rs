// SPDX-License-Identifier: GPL-2.0

//! Lists of bad blocks.
//!
//! C header: [`include/linux/badblocks.h`](srctree/include/linux/badblocks.h)

use super::bindings;
use kernel::{
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    types::Opaque, //
};

/// A list of bad 512-byte sectors, sorted; the kernel's, so that the block layer can show it.
///
/// It holds [`CAPACITY`](Self::CAPACITY) entries of at most [`LONGEST`](Self::LONGEST) sectors.
#[pin_data(PinnedDrop)]
#[repr(transparent)]
pub(crate) struct BadBlocks {
    #[pin]
    inner: Opaque<bindings::badblocks>,
}

// SAFETY: `struct badblocks` has its own lock.
unsafe impl Send for BadBlocks {}
// SAFETY: As above.
unsafe impl Sync for BadBlocks {}

impl BadBlocks {
    /// How many entries there can be.
    pub(crate) const CAPACITY: usize = PAGE_SIZE / size_of::<u64>();

    /// How many sectors an entry can have.
    pub(crate) const LONGEST: u64 = 512;

    /// An empty list. [`ENOMEM`].
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- Opaque::try_ffi_init(|bb: *mut bindings::badblocks| {
                // SAFETY: `bb` is valid for writes, and all zeroes is a valid `struct badblocks`.
                unsafe { bb.write_bytes(0, 1) };
                // SAFETY: `bb` is zeroed.
                to_result(unsafe { bindings::badblocks_init(bb, 1) })
            }),
        })
    }

    /// The list of somebody else.
    ///
    /// # Safety
    ///
    /// It is initialised, and stays so for all of `'a`.
    pub(super) unsafe fn from_raw<'a>(list: *mut bindings::badblocks) -> &'a Self {
        // SAFETY: The list is initialised for all of `'a`. CAST: `Self` is a transparent wrapper.
        unsafe { &*list.cast::<Self>() }
    }

    /// The C object, for interfaces that read or add to the list.
    pub(super) fn as_raw(&self) -> *mut bindings::badblocks {
        self.inner.get()
    }

    /// Whether nothing is listed: one load, for fast paths.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.raw_count() == 0
    }

    /// The first listed sector of the `len` from `start` on.
    #[inline]
    pub(crate) fn first_bad(&self, start: u64, len: u64) -> Option<u64> {
        // An entry that begins before the range is reported with its own start.
        self.entry_in(start, len).map(|(first, _)| first.max(start))
    }

    /// The number of entries.
    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.raw_count()).unwrap_or(0)
    }

    #[inline]
    fn raw_count(&self) -> c_int {
        // SAFETY: The field is initialised. It is read without the lock, as the C drivers do.
        unsafe { (&raw const (*self.as_raw()).count).read_volatile() }
    }

    /// Start and length of the first entry that touches the `len` sectors from `start` on.
    pub(crate) fn entry_in(&self, start: u64, len: u64) -> Option<(u64, u64)> {
        let (mut first, mut count) = (0, 0);

        if self.is_empty() || len == 0 {
            return None;
        }
        // SAFETY: The list is initialised; `first` and `count` are written if anything is found.
        let found =
            unsafe { bindings::badblocks_check(self.as_raw(), start, len, &mut first, &mut count) };
        (found != 0).then_some((first, count))
    }

    /// A number that each change of the list makes greater by two; odd while one is under way.
    pub(crate) fn version(&self) -> u32 {
        // SAFETY: The sequence count of the list's lock is initialised; it is only looked at.
        unsafe { (&raw const (*self.as_raw()).lock.seqcount.seqcount.sequence).read_volatile() }
    }

    /// Adds the `len` sectors from `start` on; [`ENOSPC`] if the list has no room for all of them.
    pub(crate) fn set(&self, start: u64, len: u64) -> Result {
        // SAFETY: The list is initialised.
        if len == 0 || unsafe { bindings::badblocks_set(self.as_raw(), start, len, 1) } {
            return Ok(());
        }
        Err(ENOSPC)
    }

    /// Takes the `len` sectors from `start` on off the list; an entry that needs splitting, when the
    /// list is full, stays as it is.
    pub(crate) fn clear(&self, start: u64, len: u64) {
        if len > 0 {
            // SAFETY: The list is initialised.
            unsafe { bindings::badblocks_clear(self.as_raw(), start, len) };
        }
    }
}

#[pinned_drop]
impl PinnedDrop for BadBlocks {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The list was initialised, and nobody refers to it any more.
        unsafe { bindings::badblocks_exit(self.as_raw()) };
    }
}
