// SPDX-License-Identifier: GPL-2.0

//! Sysfs files: references to them, to wake those who poll them, and texts longer than a page.
//!
//! C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use core::{
    fmt,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    prelude::*, //
};

/// A reference to a sysfs file.
///
/// # Invariants
///
/// `node` is a `struct kernfs_node` of a file that a reference is held to.
pub(crate) struct File {
    node: NonNull<bindings::kernfs_node>,
}

// SAFETY: A reference may be used and dropped by any thread.
unsafe impl Send for File {}
// SAFETY: `kernfs_notify` may be called by any thread, and from any context.
unsafe impl Sync for File {}

impl File {
    /// The file `name` in the directory `dir`, if it is there.
    ///
    /// # Safety
    ///
    /// `dir` is a directory of sysfs that is referenced for the duration of the call.
    pub(super) unsafe fn find(dir: *mut bindings::kernfs_node, name: &CStr) -> Option<Self> {
        // SAFETY: `dir` is referenced for the call; device directories have no namespace.
        let node =
            unsafe { bindings::kernfs_find_and_get_ns(dir, name.as_char_ptr(), core::ptr::null()) };

        // INVARIANT: The call has taken a reference.
        NonNull::new(node).map(|node| Self { node })
    }

    /// Wakes those who `poll(2)` the file for `POLLPRI`.
    pub(crate) fn notify(&self) {
        // SAFETY: By the type invariant; the file may be removed already.
        unsafe { bindings::kernfs_notify(self.node.as_ptr()) };
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::kernfs_put(self.node.as_ptr()) };
    }
}

/// The part of a text that somebody reads: as much as fits, from some byte on.
pub(crate) struct Window<'a> {
    skip: usize,
    offset: usize,
    to: &'a mut [u8],
    len: usize,
}

impl<'a> Window<'a> {
    /// What follows the first `skip` bytes of the text goes to `to`.
    pub(super) fn new(skip: usize, to: &'a mut [u8]) -> Self {
        Self {
            skip,
            offset: 0,
            to,
            len: 0,
        }
    }

    /// The number of bytes that there were to read.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the text is read from its beginning.
    pub(crate) fn is_first(&self) -> bool {
        self.skip == 0
    }

    /// The text is written from its byte `offset` on, if nothing before that is wanted; whether it
    /// is so.
    pub(crate) fn begin_at(&mut self, offset: usize) -> bool {
        let can = offset <= self.skip;

        if can {
            self.offset = offset;
        }
        can
    }

    /// How much of the text was written, or left out as unwanted.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Whether what is wanted is there.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.to.len()
    }
}

impl fmt::Write for Window<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let unwanted = self.skip.saturating_sub(self.offset).min(text.len());
        let from = text.as_bytes().get(unwanted..).unwrap_or_default();
        let to = self.to.get_mut(self.len..).unwrap_or_default();
        let len = from.len().min(to.len());

        self.offset = self.offset.saturating_add(text.len());
        self.len = self.len.saturating_add(len);
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
        Ok(())
    }
}
