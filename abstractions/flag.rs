// SPDX-License-Identifier: GPL-2.0

//! A boolean that many CPUs look at.

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};

/// As `Atomic<bool>` with relaxed ordering (`READ_ONCE`, `WRITE_ONCE`), but reading is one load: the
/// `kernel` crate's loads are calls of C functions, which the straight path of a read can do without.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    /// One that is `on`.
    pub(crate) fn new(on: bool) -> Self {
        Self(AtomicBool::new(on))
    }

    /// Whether it is on.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Switches it.
    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}
