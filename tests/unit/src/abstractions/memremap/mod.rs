// SPDX-License-Identifier: GPL-2.0

//! Failures of mapped memory, and which of its pages may have users.

#[path = "../../../../../abstractions/memremap/chunks.rs"]
mod chunks;
mod chunks_test;

use crate::prelude::{c_int, Result};

pub(crate) trait MemoryFailure {
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result;
}

pub(crate) fn is_simulated(flags: c_int) -> bool {
    flags != 0
}
