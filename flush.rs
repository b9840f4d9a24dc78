// SPDX-License-Identifier: GPL-2.0

//! Durability: what was written becomes durable when the region is flushed.
//!
//! Writes go past the CPU's caches, but may still be in the buffers between it and the memory. A
//! flush fences them and, where the platform has flush hints (NFIT flush hint address structures,
//! ACPI 6.5, 5.2.25.9) or a host to be asked (virtio-pmem), drains those buffers.

#![forbid(unsafe_code)]

use crate::abstractions::{
    block::Bio,
    nd::{
        Flushed,
        Region, //
    }, //
};
use kernel::prelude::*;

/// The flush of a namespace's region.
#[derive(Clone, Copy)]
pub(crate) struct Flush<'bound>(&'bound Region);

impl<'bound> Flush<'bound> {
    /// The flush of `region`.
    pub(crate) fn new(region: &'bound Region) -> Self {
        Self(region)
    }

    /// Makes all that was written durable; waits where the provider's flush is asynchronous.
    #[inline]
    pub(crate) fn now(&self) -> Result {
        self.0.flush()
    }

    /// Whether a flush has to wait for the host.
    pub(crate) fn waits(&self) -> bool {
        !self.0.is_synchronous()
    }

    /// Makes all that was written durable, then ends the bio: here, or in the background where the
    /// provider's flush is asynchronous.
    pub(crate) fn then_end(&self, bio: Bio<'_>) {
        match self.0.flush_for(bio) {
            Flushed::Done(bio, result) => bio.end(result),
            Flushed::Pending => (),
        }
    }
}

/// Flushes the region when it is dropped: the last thing to be done after its last user is gone.
pub(crate) struct LastFlush<'bound>(pub(crate) Flush<'bound>);

impl Drop for LastFlush<'_> {
    fn drop(&mut self) {
        // There is nobody left to be told of a failure; the provider logs its own.
        let _ = self.0.now();
    }
}
