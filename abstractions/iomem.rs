// SPDX-License-Identifier: GPL-2.0

//! Claims of physical address ranges, as `/proc/iomem` shows them.
//!
//! C header: [`include/linux/ioport.h`](srctree/include/linux/ioport.h)

use core::{
    marker::PhantomData,
    ops::RangeInclusive, //
};
use kernel::{
    bindings,
    device::Device,
    prelude::*, //
};

/// An exclusive claim of a range of physical addresses, released when dropped.
///
/// # Invariants
///
/// `start` and `len` are those of a range that was requested and not released.
pub(crate) struct Claim<'a> {
    start: u64,
    len: u64,
    _named_after: PhantomData<&'a Device>,
}

impl<'a> Claim<'a> {
    /// Claims `range`, under the name of `owner`. [`EBUSY`] if any part of it is taken, [`EINVAL`]
    /// if there is no such range.
    pub(crate) fn new(range: &RangeInclusive<u64>, owner: &'a Device) -> Result<Self> {
        let start = *range.start();
        let len = range
            .end()
            .checked_sub(start)
            .and_then(|len| len.checked_add(1))
            .ok_or(EINVAL)?;

        // CAST: `Device` is a transparent wrapper.
        let owner = core::ptr::from_ref(owner).cast::<bindings::device>();

        // SAFETY: The owner, and so its name, outlives the claim. `iomem_resource` is the kernel's,
        // with its own lock.
        let res = unsafe {
            bindings::__request_region(
                &raw mut bindings::iomem_resource,
                start,
                len,
                bindings::dev_name(owner),
                0,
            )
        };
        if res.is_null() {
            return Err(EBUSY);
        }
        // INVARIANT: It was just requested.
        Ok(Self {
            start,
            len,
            _named_after: PhantomData,
        })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe {
            bindings::__release_region(&raw mut bindings::iomem_resource, self.start, self.len)
        };
    }
}
