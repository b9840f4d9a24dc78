// SPDX-License-Identifier: GPL-2.0

//! A boolean for fast paths.

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};

/// A boolean with relaxed ordering (`READ_ONCE`, `WRITE_ONCE`), whose read is a single load.
///
/// A load of the `kernel` crate's `Atomic<bool>` calls a C function, which costs the fast path of a
/// read too much.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new(on: bool) -> Self {
        Self(AtomicBool::new(on))
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}
