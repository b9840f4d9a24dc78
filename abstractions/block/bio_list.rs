// SPDX-License-Identifier: GPL-2.0

//! Bios that wait to be ended together.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h) (`struct bio_list`)

use super::Bio;
use core::ptr::NonNull;
use kernel::{
    bindings::bio,
    prelude::*, //
};

/// A queue of bios that are ours to end. Bios that are left end with [`EIO`] when the list is
/// dropped.
///
/// # Invariants
///
/// Each bio from `first` on, linked by `bi_next`, is valid, was submitted to a disk of ours and is
/// not ended; nobody else has it. `last` is the last of them, and `None` if `first` is.
pub(crate) struct BioList {
    first: Option<NonNull<bio>>,
    last: Option<NonNull<bio>>,
}

// SAFETY: A bio may be ended by any thread, and nobody else has those of the list.
unsafe impl Send for BioList {}

impl BioList {
    /// An empty list.
    pub(crate) fn new() -> Self {
        // INVARIANT: There is no bio.
        Self {
            first: None,
            last: None,
        }
    }

    /// Whether no bio waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Appends `bio`.
    pub(crate) fn push(&mut self, bio: Bio<'_>) {
        let bio = bio.into_raw();

        // INVARIANT: The bio was ours, and is the list's now; it is the last one.
        // SAFETY: `bi_next` is its owner's while a bio is not queued by the block layer, and the
        // owner of both bios is the list: of the last one by the type invariant.
        unsafe {
            (*bio.as_ptr()).bi_next = core::ptr::null_mut();
            match self.last {
                Some(last) => (*last.as_ptr()).bi_next = bio.as_ptr(),
                None => self.first = Some(bio),
            }
        }
        self.last = Some(bio);
    }

    /// Takes the first bio off the list.
    fn pop(&mut self) -> Option<Bio<'_>> {
        let bio = self.first?;

        // INVARIANT: The list goes on with the next bio.
        // SAFETY: By the type invariant the bio is valid, and its link is the list's.
        unsafe {
            self.first = NonNull::new((*bio.as_ptr()).bi_next);
            (*bio.as_ptr()).bi_next = core::ptr::null_mut();
        }
        if self.first.is_none() {
            self.last = None;
        }
        // SAFETY: By the type invariant the bio is valid, submitted and not ended, and it is off
        // the list.
        Some(unsafe { Bio::from_raw(bio) })
    }

    /// Ends all of them with `result`.
    pub(crate) fn end(mut self, result: Result) {
        while let Some(bio) = self.pop() {
            bio.end(result);
        }
    }
}

impl Drop for BioList {
    fn drop(&mut self) {
        while let Some(bio) = self.pop() {
            bio.end(Err(EIO));
        }
    }
}
