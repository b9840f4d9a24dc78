// SPDX-License-Identifier: GPL-2.0

//! Durability: a flush of the region makes earlier writes durable.
//!
//! Writes bypass the CPU caches, but may still be in the buffers between the CPU and the memory. A
//! flush fences them and drains these buffers, by flush hints (NFIT flush hint address structures,
//! ACPI 6.5, 5.2.25.9) or by a request to the host (virtio-pmem).

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
    pub(crate) fn new(region: &'bound Region) -> Self {
        Self(region)
    }

    /// Makes all earlier writes durable. Sleeps where the provider flushes asynchronously.
    #[inline]
    pub(crate) fn now(&self) -> Result {
        self.0.flush()
    }

    /// Returns whether a flush has to wait for the host.
    pub(crate) fn waits(&self) -> bool {
        !self.0.is_synchronous()
    }

    /// Makes all earlier writes durable, then ends the bio: in the background where the provider
    /// flushes asynchronously.
    pub(crate) fn then_end(&self, bio: Bio<'_>) {
        match self.0.flush_for(bio) {
            Flushed::Done(bio, result) => bio.end(result),
            Flushed::Pending => (),
        }
    }
}

/// Flushes the region when dropped, after its last user is gone.
pub(crate) struct LastFlush<'bound>(pub(crate) Flush<'bound>);

impl Drop for LastFlush<'_> {
    fn drop(&mut self) {
        // Best effort: nobody is left to report a failure to, and the provider logs it.
        let _ = self.0.now();
    }
}
