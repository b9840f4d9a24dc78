// SPDX-License-Identifier: GPL-2.0

//! Claims of physical address ranges, as `/proc/iomem` shows them.
//!
//! C header: [`include/linux/ioport.h`](srctree/include/linux/ioport.h)

use super::device;
use core::ops::RangeInclusive;
use kernel::{
    bindings,
    device::Device,
    prelude::*,
    str::CString, //
};

/// An exclusive claim of a range of physical addresses, released when dropped.
///
/// # Invariants
///
/// The range of `len` bytes from `start` on was requested with `name`, and not released.
pub(crate) struct Claim {
    start: u64,
    len: u64,
    name: CString,
}

impl Claim {
    /// Claims `range` in the name of `owner`. [`EBUSY`] if a part of it is claimed, [`EINVAL`] if
    /// it is empty, [`ENOMEM`].
    pub(super) fn new(range: &RangeInclusive<u64>, owner: &Device) -> Result<Self> {
        let start = *range.start();
        let len = range
            .end()
            .checked_sub(start)
            .and_then(|len| len.checked_add(1))
            .ok_or(EINVAL)?;

        let name = CString::try_from(device::name(owner)?)?;

        // SAFETY: The result owns the name, and frees it after it has released the range.
        // `iomem_resource` is a static of the kernel, which the call locks.
        let res = unsafe {
            bindings::__request_region(
                &raw mut bindings::iomem_resource,
                start,
                len,
                name.as_char_ptr(),
                0,
            )
        };
        if res.is_null() {
            return Err(EBUSY);
        }
        // INVARIANT: `__request_region` has succeeded.
        Ok(Self { start, len, name })
    }

    /// Returns the claimed range.
    pub(super) fn range(&self) -> RangeInclusive<u64> {
        // No overflow: `new` has computed `len` from an inclusive range.
        self.start..=self.start.wrapping_add(self.len).wrapping_sub(1)
    }

    /// Returns the name of the owner.
    pub(super) fn name(&self) -> &CStr {
        &self.name
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the range was requested, and not released.
        unsafe {
            bindings::__release_region(&raw mut bindings::iomem_resource, self.start, self.len)
        };
    }
}
