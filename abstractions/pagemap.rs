// SPDX-License-Identifier: GPL-2.0

//! Page maps: `struct page`s for memory that a driver owns.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use super::bindings;
use core::{
    ops::RangeInclusive,
    ptr::NonNull, //
};
use kernel::{
    bindings::{
        dev_pagemap,
        dev_pagemap_ops,
        memory_type_MEMORY_DEVICE_FS_DAX, //
    },
    error::{
        from_err_ptr,
        from_result, //
    },
    prelude::*,
    types::Opaque, //
};

/// Who is told when memory of a page map fails.
pub(crate) trait MemoryFailure: Send + Sync {
    /// `nr_pages` pages from page frame `pfn` on have failed.
    ///
    /// `EOPNOTSUPP` where nobody knows their users, so that the core finds and kills them.
    ///
    /// The caller holds a reference to the page map that its unmapping waits for: do not wait for
    /// anything that unbinding holds.
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result;
}

/// Which physical addresses are to have `struct page`s, and where those are kept.
pub(crate) struct Layout(dev_pagemap);

impl Layout {
    /// `pgmap` has at least its range set, as by `nvdimm_setup_pfn`.
    pub(super) fn from_raw(pgmap: dev_pagemap) -> Self {
        Self(pgmap)
    }

    /// All of `range`, with the `struct page`s in ordinary memory.
    pub(crate) fn in_ram(range: &RangeInclusive<u64>) -> Self {
        let mut pgmap = zeroed();

        pgmap.nr_range = 1;
        // SAFETY: `range` is the member that is in use where there is one range.
        *unsafe { pgmap.__bindgen_anon_1.range.as_mut() } = kernel::bindings::range {
            start: *range.start(),
            end: *range.end(),
        };
        Self(pgmap)
    }

    /// The physical addresses.
    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        // SAFETY: There is one range, so that it is `range` that is in use.
        let range = unsafe { self.0.__bindgen_anon_1.range.as_ref() };

        range.start..=range.end
    }
}

/// An all-zero page map: what `kzalloc` gives a C driver.
pub(super) fn zeroed() -> dev_pagemap {
    // SAFETY: `struct dev_pagemap` is plain C data, for which all zeroes is its empty state.
    unsafe { core::mem::zeroed() }
}

/// Memory mapped with `struct page`s of type `MEMORY_DEVICE_FS_DAX`, until it is dropped.
///
/// Dropping waits until nobody holds a reference to any of the pages.
///
/// # Invariants
///
/// `pgmap` is mapped, at `base`.
#[pin_data(PinnedDrop)]
pub(crate) struct PageMap<H: MemoryFailure> {
    #[pin]
    pgmap: Opaque<dev_pagemap>,
    base: NonNull<u8>,
    failure: H,
}

// SAFETY: The map may be undone by any thread; `H` is `Send`.
unsafe impl<H: MemoryFailure> Send for PageMap<H> {}
// SAFETY: A reference gives access to `H` alone, which is `Sync`.
unsafe impl<H: MemoryFailure> Sync for PageMap<H> {}

impl<H: MemoryFailure> PageMap<H> {
    const OPS: dev_pagemap_ops = dev_pagemap_ops {
        folio_free: None,
        migrate_to_ram: None,
        memory_failure: Some(Self::memory_failure_callback),
        folio_split: None,
    };

    /// Maps the addresses of `layout`, with `struct page`s on NUMA node `node`.
    pub(super) fn new(layout: Layout, node: c_int, failure: H) -> Result<Pin<KBox<Self>>> {
        KBox::try_pin_init(
            try_pin_init!(Self {
                // First, as the map calls `failure` from the moment it is there.
                failure,
                pgmap <- Opaque::ffi_init(|slot: *mut dev_pagemap| {
                    let mut pgmap = layout.0;

                    pgmap.type_ = memory_type_MEMORY_DEVICE_FS_DAX;
                    pgmap.ops = const { &Self::OPS };
                    pgmap.owner = slot.cast();
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(pgmap) };
                }),
                base: {
                    // SAFETY: The map is pinned, and its fields are set.
                    let base = from_err_ptr(unsafe {
                        kernel::bindings::memremap_pages(pgmap.get(), node)
                    })?;

                    NonNull::new(base.cast()).ok_or(ENOMEM)?
                },
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The kernel's address of the first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    extern "C" fn memory_failure_callback(
        pgmap: *mut dev_pagemap,
        pfn: c_ulong,
        nr_pages: c_ulong,
        flags: c_int,
    ) -> c_int {
        let pgmap = Opaque::cast_from(pgmap);

        // SAFETY: The core holds a reference to the map, so that it, and all that it is a field
        // of, is there; `failure` was initialised before the map was made.
        let failure = unsafe { &(*kernel::container_of!(pgmap, Self, pgmap)).failure };

        from_result(|| {
            failure
                .memory_failure(pfn as u64, nr_pages as u64, flags)
                .map(|()| 0)
        })
    }
}

#[pinned_drop]
impl<H: MemoryFailure> PinnedDrop for PageMap<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant; it is unmapped only here.
        unsafe { kernel::bindings::memunmap_pages(self.pgmap.get()) };
    }
}

/// Takes the HWPoison flag from page frame `pfn` and puts it back into the kernel's map.
///
/// # Safety
///
/// The page frame is memory of a live page map.
pub(super) unsafe fn restore_page(pfn: u64) {
    #[cfg(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE))]
    {
        use core::sync::atomic::{
            AtomicU64,
            Ordering, //
        };

        const_assert!(size_of::<kernel::bindings::page>() == 64);
        // CAST: A page frame number fits, as this is a 64-bit architecture.
        let pfn = pfn as usize;
        // SAFETY: `vmemmap_base` is set at boot. On x86-64 it is the address of the `struct page`
        // of page frame 0 (`vmemmap`), and every page of a page map has one.
        let page = unsafe {
            (kernel::bindings::vmemmap_base as *mut kernel::bindings::page).wrapping_add(pfn)
        };
        // SAFETY: The flags of a `struct page` are only ever accessed atomically.
        let flags = unsafe { AtomicU64::from_ptr((&raw mut (*page).flags).cast()) };

        flags.fetch_and(
            !(1 << kernel::bindings::pageflags_PG_hwpoison),
            Ordering::Relaxed,
        );
        // A page that never left the map is not harmed; one that can't be put back stays out and
        // is found so by the next look at the map.
        // SAFETY: Changes the kernel's map of the page only.
        let _ = unsafe { bindings::clear_mce_nospec(pfn) };
    }
    #[cfg(not(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE)))]
    let _ = pfn;
}
