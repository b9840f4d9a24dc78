// SPDX-License-Identifier: GPL-2.0

//! Claims of physical address ranges, as `/proc/iomem` shows them.
//!
//! C header: [`include/linux/ioport.h`](srctree/include/linux/ioport.h)

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
/// `start` and `len` are those of a range that was requested as `name` and not released.
pub(crate) struct Claim {
    start: u64,
    len: u64,
    name: CString,
}

impl Claim {
    /// Claims `range`, under the name of `owner`. [`EBUSY`] if any part of it is taken, [`EINVAL`]
    /// if there is no such range, [`ENOMEM`].
    pub(crate) fn new(range: &RangeInclusive<u64>, owner: &Device) -> Result<Self> {
        let start = *range.start();
        let len = range
            .end()
            .checked_sub(start)
            .and_then(|len| len.checked_add(1))
            .ok_or(EINVAL)?;

        // CAST: `Device` is a transparent wrapper.
        let owner = core::ptr::from_ref(owner).cast::<bindings::device>();
        // SAFETY: A device that there is a reference to has a name, a C string.
        let name = unsafe {
            let name = bindings::dev_name(owner);
            let len = bindings::strlen(name).saturating_add(1);

            core::slice::from_raw_parts(name.cast::<u8>(), len)
        };
        let name = CString::try_from(CStr::from_bytes_with_nul(name).map_err(|_| EINVAL)?)?;

        // SAFETY: The claim owns its name, and frees it after it was released. `iomem_resource` is the
        // kernel's, with its own lock.
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
        // INVARIANT: It was just requested.
        Ok(Self { start, len, name })
    }

    /// The range.
    pub(super) fn range(&self) -> RangeInclusive<u64> {
        // No overflow: it was made from such a range.
        self.start..=self.start.wrapping_add(self.len).wrapping_sub(1)
    }

    /// The name of its owner.
    pub(super) fn name(&self) -> &CStr {
        &self.name
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe {
            bindings::__release_region(&raw mut bindings::iomem_resource, self.start, self.len)
        };
    }
}
