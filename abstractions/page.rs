// SPDX-License-Identifier: GPL-2.0

//! `struct page`s of persistent memory: their users, their HWPoison flag, and the direct map.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/set_memory.h`](srctree/include/linux/set_memory.h)

#[cfg(CONFIG_X86_64)]
use super::bindings;
#[cfg(all(CONFIG_X86_64, CONFIG_MEMORY_FAILURE))]
use core::sync::atomic::{
    AtomicU64,
    Ordering, //
};
#[cfg(CONFIG_X86_64)]
use kernel::error::to_result;
use kernel::prelude::*;

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
pub(super) unsafe fn page_is_in_use(pfn: u64) -> bool {
    let page = page(pfn);
    // SAFETY: A page frame of a live page map has a `struct page`, initialised; others may change it.
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
        // SAFETY: The page frame is memory of a live page map, so that it has a `struct page`.
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

        // SAFETY: The page frame is memory of a live page map, so that it has a `struct page`.
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
