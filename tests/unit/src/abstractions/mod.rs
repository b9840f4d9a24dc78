// SPDX-License-Identifier: GPL-2.0

//! The driver's abstractions, as far as flushes and bad blocks need them.

pub(crate) mod badblocks;
pub(crate) mod block;
pub(crate) mod dax;
#[path = "../../../../abstractions/flag.rs"]
pub(crate) mod flag;
pub(crate) mod memory_errors;
pub(crate) mod memremap;
pub(crate) mod nd;
pub(crate) mod scope;
pub(crate) mod timer;
pub(crate) mod work;

pub(crate) mod errno {
    use crate::prelude::Error;

    pub(crate) fn eopnotsupp() -> Error {
        Error(95)
    }
}

pub(crate) mod sysfs {
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A file that counts how often its pollers are woken.
    pub(crate) struct File(pub(crate) &'static AtomicUsize);

    impl File {
        pub(crate) fn notify(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
