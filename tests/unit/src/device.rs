// SPDX-License-Identifier: GPL-2.0

//! `kernel::device`.

use crate::sync::aref::ARef;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

/// The context of a device that may be bound or not.
#[derive(Clone)]
pub struct Normal;

/// The context of a bound device.
pub struct Bound;

/// The context of a callback of the bus.
pub struct Core<'a>(PhantomData<&'a ()>);

/// A device with its messages.
#[derive(Clone)]
pub struct Device<Ctx = Normal>(Arc<Mutex<Vec<String>>>, PhantomData<fn(Ctx)>);

impl<Ctx> Default for Device<Ctx> {
    fn default() -> Self {
        Self(Arc::default(), PhantomData)
    }
}

impl<Ctx> Device<Ctx> {
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
