// SPDX-License-Identifier: GPL-2.0

//! `kernel::device`.

use crate::sync::aref::ARef;

/// A device, which nothing is logged for.
pub struct Device;

impl From<&Device> for ARef<Device> {
    fn from(_device: &Device) -> Self {
        Self(Device)
    }
}

#[macro_export]
macro_rules! dev_warn {
    ($device:expr, $($message:tt)*) => {{
        let _ = (&$device, format!($($message)*));
    }};
}
