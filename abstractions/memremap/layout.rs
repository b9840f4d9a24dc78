// SPDX-License-Identifier: GPL-2.0

//! Which memory gets `struct page`s.

use core::ops::{
    Range,
    RangeInclusive, //
};
use kernel::{
    bindings::dev_pagemap,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// The physical addresses that get `struct page`s, and where these are kept (`--map=mem`,
/// `--map=dev`).
pub(crate) struct Layout(dev_pagemap);

impl Layout {
    /// Takes over a `pgmap` with a range, such as `nvdimm_setup_pfn` fills in.
    pub(in crate::abstractions) fn from_raw(pgmap: dev_pagemap) -> Self {
        Self(pgmap)
    }

    /// Returns the layout of all of `range` with `struct page`s in ordinary memory.
    pub(crate) fn in_ram(range: &RangeInclusive<u64>) -> Self {
        let mut pgmap = zeroed();

        pgmap.nr_range = 1;
        // SAFETY: With one range, `range` is the member of the union that is in use.
        *unsafe { pgmap.__bindgen_anon_1.range.as_mut() } = kernel::bindings::range {
            start: *range.start(),
            end: *range.end(),
        };
        Self(pgmap)
    }

    /// Returns the `pgmap`.
    pub(super) fn into_raw(self) -> dev_pagemap {
        self.0
    }

    /// Returns the physical addresses where the `struct page`s are, if they are in the memory
    /// itself.
    pub(crate) fn memmap(&self) -> Option<Range<u64>> {
        if self.0.flags & kernel::bindings::PGMAP_ALTMAP_VALID == 0 {
            return None;
        }
        let bytes = |pages: c_ulong| (pages as u64) << PAGE_SHIFT;
        let start = self
            .range()
            .start()
            .saturating_add(bytes(self.0.altmap.reserve));

        Some(start..start.saturating_add(bytes(self.0.altmap.free)))
    }

    /// Returns the page frames of the data: all but those of the info block and of the memmap, if
    /// that is in the memory itself.
    pub(super) fn frames(&self) -> Range<u64> {
        let range = self.range();
        let start = self.memmap().map_or(*range.start(), |memmap| memmap.end);

        start >> PAGE_SHIFT..range.end().saturating_add(1) >> PAGE_SHIFT
    }

    /// Returns the page frames of the info block, if the memmap is in the memory itself, behind it.
    pub(super) fn reserved(&self) -> Range<u64> {
        let start = *self.range().start();
        let end = self.memmap().map_or(start, |memmap| memmap.start);

        start >> PAGE_SHIFT..end >> PAGE_SHIFT
    }

    /// Returns the physical addresses.
    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        // SAFETY: With one range, `range` is the member of the union that is in use.
        let range = unsafe { self.0.__bindgen_anon_1.range.as_ref() };

        range.start..=range.end
    }
}

/// Returns a zeroed `struct dev_pagemap`, as C drivers get it from `kzalloc`.
pub(in crate::abstractions) fn zeroed() -> dev_pagemap {
    // SAFETY: All zeroes is a valid `struct dev_pagemap`, without a range.
    unsafe { core::mem::zeroed() }
}
