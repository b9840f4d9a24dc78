// SPDX-License-Identifier: GPL-2.0

//! Names and nodes of devices.
//!
//! C header: [`include/linux/device.h`](srctree/include/linux/device.h)

use kernel::{
    bindings,
    device::Device,
    prelude::*, //
};

/// The NUMA node of a device, or `NUMA_NO_NODE`.
#[derive(Clone, Copy)]
pub(crate) struct NumaNode(pub(super) c_int);

/// Returns the name of `dev`.
///
/// `Device::name` of the `kernel` crate adds a check for overflow to the module, which can panic.
pub(crate) fn name(dev: &Device) -> Result<&CStr> {
    // CAST: `Device` is a transparent wrapper of `struct device`.
    let dev = core::ptr::from_ref(dev).cast::<bindings::device>();
    // SAFETY: The reference keeps the device valid, and a device has a name, a C string.
    let name = unsafe {
        let name = bindings::dev_name(dev);
        let len = bindings::strlen(name).saturating_add(1);

        core::slice::from_raw_parts(name.cast::<u8>(), len)
    };

    CStr::from_bytes_with_nul(name).map_err(|_| EINVAL)
}
