// SPDX-License-Identifier: GPL-2.0

//! Errors on their way from a context where nothing may sleep to a work item.

use core::ops::Range;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// As many errors wait; the kernel's own recovery has room for 16 on each CPU.
pub(super) const PLACES: usize = 64;

/// Errors that wait for a work item.
///
/// An error is its first address, in bits 0 to 55, and the binary logarithm of its length plus one
/// above. Zero is a free place.
pub(super) struct Waiting {
    places: [Atomic<u64>; PLACES],
    /// Errors that found no place.
    lost: Atomic<u64>,
}

impl Waiting {
    const LENGTH_SHIFT: u32 = 56;
    const ADDRESS: u64 = (1 << Self::LENGTH_SHIFT) - 1;

    pub(super) fn new() -> Self {
        Self {
            places: [const { Atomic::new(0) }; PLACES],
            lost: Atomic::new(0),
        }
    }

    /// Adds an error unless it waits already, or counts it as lost if there is no place. The length
    /// is a power of two. In any context.
    pub(super) fn push(&self, addresses: Range<u64>) {
        let length = addresses.end.saturating_sub(addresses.start);
        let entry = (addresses.start & Self::ADDRESS)
            | (u64::from(length.trailing_zeros() + 1) << Self::LENGTH_SHIFT);
        // A CPU that meets one error again and again leaves places to others.
        let is_pushed = self
            .places
            .iter()
            .any(|place| !matches!(place.cmpxchg(0, entry, Relaxed), Err(other) if other != entry));

        if !is_pushed {
            self.lost.add(1, Relaxed);
        }
    }

    /// Takes all errors, calls `handle` with the addresses of each, and returns how many were lost
    /// since the last call. For errors that are pushed meanwhile, it is to be called again.
    pub(super) fn take_all(&self, handle: impl Fn(Range<u64>)) -> u64 {
        for place in &self.places {
            let entry = place.xchg(0, Relaxed);
            let start = entry & Self::ADDRESS;

            if let Some(log) = (entry >> Self::LENGTH_SHIFT).checked_sub(1) {
                handle(start..start.saturating_add(1 << (log & 63)));
            }
        }
        self.lost.xchg(0, Relaxed)
    }
}
