// SPDX-License-Identifier: GPL-2.0

//! Page maps: `struct page`s for memory that a driver owns.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use super::bindings;
#[cfg(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE))]
use core::sync::atomic::{
    AtomicU64,
    Ordering, //
};
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
#[cfg(CONFIG_X86_64)]
use kernel::{
    error::to_result,
    page::PAGE_SHIFT,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Who is told when memory of a page map fails.
pub(crate) trait MemoryFailure: Send + Sync {
    /// `nr_pages` pages from page frame `pfn` on have failed, really or because somebody tries what
    /// happens then: see [`is_simulated`].
    ///
    /// `EOPNOTSUPP` where nobody knows their users, so that the core finds and kills them.
    ///
    /// The caller holds a reference to the page map that its unmapping waits for: do not wait for
    /// anything that unbinding holds.
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result;
}

/// Whether the flags of a memory failure say that the memory is good (`MADV_HWPOISON` and such).
pub(crate) fn is_simulated(flags: c_int) -> bool {
    // CAST: One bit.
    flags & kernel::bindings::mf_flags_MF_SW_SIMULATED as c_int != 0
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
/// Dropping waits until nobody uses any of the pages. By then there must be no way to get at one
/// that is idle: the DAX device over them is dead.
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

    /// The page frames that have an initialised `struct page`: all, but for those that keep the
    /// `struct page`s.
    #[cfg(CONFIG_X86_64)]
    fn frames(&self) -> core::ops::Range<u64> {
        // SAFETY: The fields do not change while the memory is mapped.
        let (range, kept) = unsafe {
            let pgmap = &*self.pgmap.get();
            let altmap = &pgmap.altmap;
            let kept = match pgmap.flags & kernel::bindings::PGMAP_ALTMAP_VALID {
                0 => 0,
                _ => altmap.reserve.wrapping_add(altmap.free),
            };

            (*pgmap.__bindgen_anon_1.range.as_ref(), kept)
        };
        let first = (range.start >> PAGE_SHIFT).wrapping_add(kept as u64);

        first..(range.end >> PAGE_SHIFT).wrapping_add(1)
    }

    /// Waits until none of the pages is mapped by a process, held for I/O, or remembered by a file
    /// system as a page of a file.
    ///
    /// The core waits for references to the map, and pages of this type hold none (Linux 7.2,
    /// `free_zone_device_folio`): their `struct page`s would go away under their users.
    fn wait_until_idle(&self) {
        #[cfg(CONFIG_X86_64)]
        {
            let frames = self.frames();
            let mut first = frames.start;
            let mut rounds = 0_u32;

            loop {
                // SAFETY: The page frames are memory of this map, which is live.
                let is_busy = |pfn: &u64| unsafe { page_is_in_use(*pfn) };
                let Some(busy) = (first..frames.end).find(is_busy) else {
                    return;
                };

                if rounds == WAITS_BEFORE_WARNING {
                    pr_warn!("page frame {busy:#x} is in use: close the file that has it, or unmount its file system\n");
                }
                rounds = rounds.saturating_add(1);
                // What was found idle stays so: there are no new users.
                first = busy;
                fsleep(Delta::from_millis(10));
            }
        }
    }
}

/// How often a page is found busy before somebody is told: a second.
#[cfg(CONFIG_X86_64)]
const WAITS_BEFORE_WARNING: u32 = 100;

#[pinned_drop]
impl<H: MemoryFailure> PinnedDrop for PageMap<H> {
    fn drop(self: Pin<&mut Self>) {
        self.wait_until_idle();
        // SAFETY: By the type invariant; it is unmapped only here.
        unsafe { kernel::bindings::memunmap_pages(self.pgmap.get()) };
    }
}

/// The `struct page` of page frame `pfn`, which must be memory of a live page map to have one.
#[cfg(CONFIG_X86_64)]
fn page(pfn: u64) -> *mut kernel::bindings::page {
    const_assert!(size_of::<kernel::bindings::page>() == 64);
    // SAFETY: `vmemmap_base` is set at boot. On x86-64 it is where the `struct page` of page frame
    // 0 would be (`vmemmap`).
    let base = unsafe { kernel::bindings::vmemmap_base } as *mut kernel::bindings::page;

    // CAST: A page frame number fits, as this is a 64-bit architecture.
    base.wrapping_add(pfn as usize)
}

/// The address of a page in the kernel's map of all memory.
#[cfg(CONFIG_X86_64)]
#[inline]
pub(super) fn address_in_map(page: *mut kernel::bindings::page) -> *mut u8 {
    const_assert!(size_of::<kernel::bindings::page>() == 64);
    // SAFETY: Both are set at boot: `vmemmap` and `__PAGE_OFFSET` of x86-64.
    let (vmemmap, map) = unsafe {
        (
            kernel::bindings::vmemmap_base,
            kernel::bindings::page_offset_base,
        )
    };

    // A page per `struct page`, and no overflow: it is an address.
    ((page as usize)
        .wrapping_sub(vmemmap)
        .wrapping_mul(kernel::page::PAGE_SIZE / 64))
    .wrapping_add(map) as *mut u8
}

/// Whether page frame `pfn` is mapped by a process, held for I/O, or a page of a file whose inode is
/// in memory.
///
/// # Safety
///
/// The page frame is memory of a live page map.
#[cfg(CONFIG_X86_64)]
unsafe fn page_is_in_use(pfn: u64) -> bool {
    let page = page(pfn);
    // SAFETY: By the caller's promise there is a `struct page`, initialised; others may change it.
    // Of a page that is in a file, `mapping` is set or, where files share it, the word behind that
    // counts them; `dax_folio_put` clears both (fs/dax.c).
    unsafe {
        let count = &raw const (*page)._refcount.counter;
        let mapping = &raw const (*page).__bindgen_anon_1.__bindgen_anon_1.mapping;
        let share = mapping.add(1).cast::<usize>();

        count.read_volatile() != 0
            || !mapping.read_volatile().is_null()
            || share.read_volatile() != 0
    }
}

/// Takes the HWPoison flag from page frame `pfn` and, unless it is `mapped`, puts it back into the
/// kernel's map.
///
/// # Safety
///
/// The page frame is memory of a live page map.
pub(super) unsafe fn restore_page(pfn: u64, mapped: bool) {
    #[cfg(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE))]
    {
        // SAFETY: By the caller's promise.
        unsafe { flags(pfn) }.fetch_and(!HWPOISON, Ordering::Relaxed);
        if !mapped {
            // One that can't be put back stays out and is found so by the next look at the map.
            // SAFETY: Changes the kernel's map of the page only.
            let _ = unsafe { bindings::clear_mce_nospec(pfn as usize) };
        }
    }
    #[cfg(not(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE)))]
    let _ = (pfn, mapped);
}

/// Treats page frame `pfn` as after a machine check: memory-failure recovery, the HWPoison flag, and
/// out of the kernel's map, also where nobody uses it and the recovery sees no reason for that.
///
/// `EOPNOTSUPP` where there is no such recovery.
///
/// # Safety
///
/// The page frame is memory of a live page map.
pub(super) unsafe fn poison_page(pfn: u64) -> Result {
    #[cfg(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE))]
    {
        // SAFETY: Any page frame may be said to have failed. What the recovery makes of it, it tells
        // those who use the page.
        let _ = unsafe { kernel::bindings::memory_failure(pfn as usize, 0) };

        // SAFETY: By the caller's promise.
        unsafe { flags(pfn) }.fetch_or(HWPOISON, Ordering::Relaxed);
        // SAFETY: Changes the kernel's map of the page only. What reads it is guarded, and nobody
        // writes to it before it is back: see `Memory::is_mapped`.
        to_result(unsafe { bindings::set_mce_nospec(pfn as usize) })
    }
    #[cfg(not(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE)))]
    {
        let _ = pfn;
        Err(super::errno::eopnotsupp())
    }
}

/// The flags of the `struct page` of page frame `pfn`.
///
/// # Safety
///
/// The page frame is memory of a live page map.
#[cfg(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE))]
unsafe fn flags<'a>(pfn: u64) -> &'a AtomicU64 {
    // SAFETY: The flags of a `struct page` are only ever accessed atomically.
    unsafe { AtomicU64::from_ptr((&raw mut (*page(pfn)).flags).cast()) }
}

#[cfg(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE))]
const HWPOISON: u64 = 1 << kernel::bindings::pageflags_PG_hwpoison;
