// SPDX-License-Identifier: GPL-2.0

//! Tables of bad blocks.
//!
//! C header: [`include/linux/badblocks.h`](srctree/include/linux/badblocks.h)

mod gaps;

use super::bindings;
use core::sync::atomic::{
    fence,
    Ordering, //
};
use kernel::{
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    types::Opaque, //
};

/// The most sectors of one call: `block/badblocks.c` counts the rest of a range in an `int`, and
/// with more it would not return.
const LONGEST_CALL: usize = 1 << 30;

/// Divides the `len` sectors from `start` on into parts, each a start and a length, for one call
/// each.
fn calls(start: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = start.saturating_add(len);

    (start..end).step_by(LONGEST_CALL).map(move |at| {
        // CAST: no value is changed.
        (at, end.saturating_sub(at).min(LONGEST_CALL as u64))
    })
}

/// A sorted table of bad 512-byte sectors (`struct badblocks`), which the block layer can show.
///
/// It has room for [`CAPACITY`](Self::CAPACITY) entries of at most 512 sectors.
///
/// # Invariants
///
/// `inner` is initialised.
#[pin_data(PinnedDrop)]
#[repr(transparent)]
pub(crate) struct BadblocksTable {
    #[pin]
    inner: Opaque<bindings::badblocks>,
}

// SAFETY: Any thread may use and free a `struct badblocks`.
unsafe impl Send for BadblocksTable {}
// SAFETY: `struct badblocks` has its own lock; fields that are read without are single loads.
unsafe impl Sync for BadblocksTable {}

impl BadblocksTable {
    /// The most entries in a table.
    pub(crate) const CAPACITY: usize = PAGE_SIZE / size_of::<u64>();

    /// The most sectors in an entry.
    const LONGEST: u64 = 512;

    /// Creates an empty table. [`ENOMEM`].
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- Opaque::try_ffi_init(|bb: *mut bindings::badblocks| {
                // SAFETY: `bb` is valid for writes, and all zeroes is a valid `struct badblocks`.
                unsafe { bb.write_bytes(0, 1) };
                // SAFETY: `bb` is valid and zeroed.
                to_result(unsafe { bindings::badblocks_init(bb, 1) })
            }),
        })
    }

    /// Borrows a table that a C structure has.
    ///
    /// # Safety
    ///
    /// `table` is initialised, and stays so for all of `'a`.
    pub(super) unsafe fn from_raw<'a>(table: *mut bindings::badblocks) -> &'a Self {
        // SAFETY: `# Safety` requires a table that is initialised for all of `'a`. CAST: `Self` is
        // a transparent wrapper of it.
        unsafe { &*table.cast::<Self>() }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::badblocks {
        self.inner.get()
    }

    /// Returns whether the table is empty: a single load, for fast paths.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.raw_count() == 0
    }

    /// Returns the number of entries that a table of so many sectors should have at most: as many
    /// as a page has room for as text, since the kernel warns when more is read from `badblocks`.
    pub(crate) fn room(mut sectors: u64) -> usize {
        // "START LENGTH\n", where the length is at most 512.
        let mut line = "0 512\n".len();

        while sectors >= 10 {
            sectors /= 10;
            line = line.saturating_add(1);
        }
        (PAGE_SIZE / line).min(Self::CAPACITY).saturating_sub(2)
    }

    /// Returns the number of entries.
    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.raw_count()).unwrap_or(0)
    }

    #[inline]
    fn raw_count(&self) -> c_int {
        // SAFETY: By the type invariant the field is initialised. The C drivers read it without the
        // lock, too.
        unsafe { (&raw const (*self.as_raw()).count).read_volatile() }
    }

    /// Returns the start and the length of the first entry that overlaps the `len` sectors from
    /// `start` on.
    #[inline(never)]
    pub(crate) fn entry_in(&self, start: u64, len: u64) -> Option<(u64, u64)> {
        let (mut first, mut count) = (0, 0);

        if self.is_empty() {
            return None;
        }
        calls(start, len)
            .any(|(start, len)| {
                // SAFETY: By the type invariant the table is initialised. `first` and `count` are
                // valid for writes.
                0 != unsafe {
                    bindings::badblocks_check(self.as_raw(), start, len, &mut first, &mut count)
                }
            })
            .then_some((first, count))
    }

    /// Returns the sequence count of the table's lock: a write adds two, and it is odd during a
    /// write. What is read of the table afterwards is at least as new.
    pub(crate) fn version(&self) -> u32 {
        // SAFETY: By the type invariant the lock is initialised. Its sequence count is only read.
        let version = unsafe {
            (&raw const (*self.as_raw()).lock.seqcount.seqcount.sequence).read_volatile()
        };

        fence(Ordering::Acquire);
        version
    }

    /// Adds the `len` sectors from `start` on. [`ENOSPC`] if the table has no room for all of them.
    pub(crate) fn set(&self, start: u64, len: u64) -> Result {
        // SAFETY: By the type invariant the table is initialised.
        if len == 0 || unsafe { bindings::badblocks_set(self.as_raw(), start, len, 1) } {
            return Ok(());
        }
        Err(ENOSPC)
    }

    /// Removes the `len` sectors from `start` on. In a full table, an entry that would have to be
    /// split stays as it is. Returns the number of writes to the table.
    #[inline(never)]
    pub(crate) fn clear(&self, start: u64, len: u64) -> u32 {
        calls(start, len).fold(0, |writes, (start, len)| {
            // SAFETY: By the type invariant the table is initialised.
            unsafe { bindings::badblocks_clear(self.as_raw(), start, len) };
            writes.wrapping_add(1)
        })
    }
}

#[pinned_drop]
impl PinnedDrop for BadblocksTable {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the table is initialised. It is freed only here.
        unsafe { bindings::badblocks_exit(self.as_raw()) };
    }
}
