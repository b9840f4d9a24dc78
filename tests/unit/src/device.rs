// SPDX-License-Identifier: GPL-2.0

//! `kernel::device`.

use crate::sync::aref::ARef;
use std::sync::{Arc, Mutex};

/// A device with its messages.
#[derive(Default, Clone)]
pub struct Device(Arc<Mutex<Vec<String>>>);

impl Device {
    pub fn log(&self, message: String) {
        self.0.lock().expect("no panic").push(message);
    }

    pub fn messages(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

impl From<&Device> for ARef<Device> {
    fn from(device: &Device) -> Self {
        Self(device.clone())
    }
}

#[macro_export]
macro_rules! dev_warn {
    ($device:expr, $($message:tt)*) => {
        $device.log(format!($($message)*))
    };
}
