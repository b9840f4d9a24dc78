// SPDX-License-Identifier: GPL-2.0

//! References to sysfs files, to wake those who poll them.
//!
//! C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use core::ptr::NonNull;
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
        // SAFETY: By the caller's promise; device directories have no namespace.
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
