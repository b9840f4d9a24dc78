// SPDX-License-Identifier: GPL-2.0

//! Sysfs files: references that notify pollers, and reads of texts longer than a page.
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
/// `node` is a valid `struct kernfs_node`, and a reference to it is held.
pub(crate) struct File {
    node: NonNull<bindings::kernfs_node>,
}

// SAFETY: Any thread may use and put a reference.
unsafe impl Send for File {}
// SAFETY: Any thread may call `kernfs_notify`, in any context.
unsafe impl Sync for File {}

impl File {
    /// Looks up the file `name` in the directory `dir`.
    ///
    /// # Safety
    ///
    /// `dir` is a directory of sysfs, to which there is a reference for the duration of the call.
    pub(super) unsafe fn find(dir: *mut bindings::kernfs_node, name: &CStr) -> Option<Self> {
        // SAFETY: `# Safety` requires a reference to `dir`. `name` is a C string. Directories of
        // devices have no namespace.
        let node =
            unsafe { bindings::kernfs_find_and_get_ns(dir, name.as_char_ptr(), core::ptr::null()) };

        // INVARIANT: `kernfs_find_and_get_ns` takes a reference to what it finds.
        NonNull::new(node).map(|node| Self { node })
    }

    /// Wakes processes that `poll(2)` the file for `POLLPRI`.
    pub(crate) fn notify(&self) {
        // SAFETY: By the type invariant the node is valid. The call has no effect on a removed
        // file, and only warns of a directory.
        unsafe { bindings::kernfs_notify(self.node.as_ptr()) };
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: By the type invariant a reference is held. It is put only here.
        unsafe { bindings::kernfs_put(self.node.as_ptr()) };
    }
}

/// A read of a part of a text: from an offset on, as much as fits into a buffer.
///
/// The text is written to it from the start, or from an offset that [`Self::begin_at`] accepts.
pub(crate) struct Window<'a> {
    reader: usize,
    skip: usize,
    offset: usize,
    to: &'a mut [u8],
    len: usize,
}

impl<'a> Window<'a> {
    /// Creates a read by `file` into `to` of the text behind its first `skip` bytes.
    pub(super) fn new(file: *const bindings::file, skip: usize, to: &'a mut [u8]) -> Self {
        Self {
            reader: file as usize,
            skip,
            offset: 0,
            to,
            len: 0,
        }
    }

    /// Returns a number that identifies the open file until it is closed.
    pub(crate) fn reader(&self) -> usize {
        self.reader
    }

    /// Returns the number of bytes that were read.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the read is from the start of the text.
    pub(crate) fn is_first(&self) -> bool {
        self.skip == 0
    }

    /// Lets the writer begin at `offset` of the text, if the read begins there or behind it.
    /// Returns whether it does.
    pub(crate) fn begin_at(&mut self, offset: usize) -> bool {
        let can = offset <= self.skip;

        if can {
            self.offset = offset;
        }
        can
    }

    /// Returns the offset in the text that was written up to.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Returns whether the buffer is full.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.to.len()
    }

    /// Ends the read at `offset` of the text, if it begins in front of it.
    pub(crate) fn end_at(&mut self, offset: usize) {
        if offset > self.skip {
            self.len = self.len.min(offset.wrapping_sub(self.skip));
        }
    }
}

impl fmt::Write for Window<'_> {
    #[inline(never)]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let skipped = self.skip.saturating_sub(self.offset).min(text.len());
        let from = text.as_bytes().get(skipped..).unwrap_or_default();
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
