// SPDX-License-Identifier: GPL-2.0

//! Reports of memory errors.

use std::ops::Range;

#[derive(Clone, Copy)]
pub(crate) enum Source {
    MachineCheck,
    Firmware,
}

pub(crate) trait Handler: Send + Sync {
    fn memory_error(&self, addresses: Range<u64>, source: Source);
}
