// SPDX-License-Identifier: GPL-2.0

//! The driver's abstractions, as far as flushes and bad blocks need them.

pub(crate) mod badblocks;
pub(crate) mod block;
pub(crate) mod dax;
#[path = "../../../../abstractions/flag.rs"]
pub(crate) mod flag;
pub(crate) mod kbox;
pub(crate) mod memory_errors;
pub(crate) mod memremap;
pub(crate) mod nd;
pub(crate) mod scope;
mod scope_test;
pub(crate) mod suspend;
pub(crate) mod timer;
pub(crate) mod work;

pub(crate) mod errno {
    use crate::prelude::Error;

    pub(crate) fn eopnotsupp() -> Error {
        Error(95)
    }
}

pub(crate) mod reclaim {
    pub(crate) fn without_io<R>(f: impl FnOnce() -> R) -> R {
        f()
    }

    pub(crate) fn from_reserves<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
}

pub(crate) mod sysfs {
    /// A file without pollers.
    pub(crate) struct File;

    impl File {
        pub(crate) fn notify(&self) {}
    }
}
