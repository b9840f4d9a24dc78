// SPDX-License-Identifier: GPL-2.0

//! `struct page`s of persistent memory: their users, their HWPoison flag, and the direct map.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/set_memory.h`](srctree/include/linux/set_memory.h)

use super::bindings;
#[cfg(CONFIG_X86_64)]
use kernel::error::to_result;
use kernel::prelude::*;

/// The size of a `struct page`, in bytes.
const STRUCT_PAGE_SIZE: usize = 64;

/// Returns the `struct page` of page frame `pfn`. It is valid if the memory has `struct page`s.
fn page(pfn: u64) -> *mut kernel::bindings::page {
    const_assert!(size_of::<kernel::bindings::page>() == STRUCT_PAGE_SIZE);

    // CAST: A pfn fits on a 64-bit architecture.
    vmemmap().wrapping_add(pfn as usize)
}

/// Returns the address of the `struct page` of page frame 0.
#[cfg(CONFIG_X86_64)]
fn vmemmap() -> *mut kernel::bindings::page {
    // SAFETY: The kernel sets it at boot, and does not change it.
    (unsafe { kernel::bindings::vmemmap_base }) as *mut kernel::bindings::page
}

/// Returns the address of the `struct page` of page frame 0 (`vmemmap` of asm/pgtable.h).
#[cfg(CONFIG_ARM64)]
fn vmemmap() -> *mut kernel::bindings::page {
    // SAFETY: The kernel sets it at boot, and does not change it.
    let start = unsafe { kernel::bindings::memstart_addr };

    // CAST: An address; the start of memory may be negative if the kernel is configured for more
    // bits of virtual addresses than the processor has.
    (bindings::VMEMMAP_START as *mut kernel::bindings::page)
        .wrapping_offset((start >> kernel::page::PAGE_SHIFT).wrapping_neg() as isize)
}

/// Returns the address of a page in the direct map.
#[cfg(CONFIG_X86_64)]
#[inline]
pub(super) fn direct_map_address(page: *mut kernel::bindings::page) -> *mut u8 {
    const_assert!(size_of::<kernel::bindings::page>() == STRUCT_PAGE_SIZE);
    // SAFETY: The kernel sets both at boot, and does not change them: `vmemmap` and
    // `__PAGE_OFFSET`.
    let (vmemmap, map) = unsafe {
        (
            kernel::bindings::vmemmap_base,
            kernel::bindings::page_offset_base,
        )
    };

    // A page per `struct page`. No overflow: the result is an address.
    ((page as usize)
        .wrapping_sub(vmemmap)
        .wrapping_mul(kernel::page::PAGE_SIZE / STRUCT_PAGE_SIZE))
    .wrapping_add(map) as *mut u8
}

/// Returns whether page frame `pfn` is mapped by a process, referenced by I/O, or a page of a file
/// that has an inode in memory.
///
/// # Safety
///
/// The page frame has an initialised `struct page` (`MEMORY_DEVICE_FS_DAX`).
pub(super) unsafe fn page_is_in_use(pfn: u64) -> bool {
    let page = page(pfn);
    // SAFETY: `# Safety` requires an initialised `struct page`. Others may change it: volatile
    // loads. For a page of a file, `mapping` is set, or, if files share the page, the next word
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

/// Gives page frame `to` the flags of page frame `from`, with its node and zone.
///
/// # Safety
///
/// Both have a `struct page`. That of `from` is initialised, and that of `to` is not, so that the
/// kernel at most reads its flags.
pub(super) unsafe fn copy_page_flags(from: u64, to: u64) {
    // SAFETY: `# Safety` requires `struct page`s. Others may read the flags, and may change those
    // of `from`: volatile accesses.
    unsafe {
        let flags = (&raw const (*page(from)).flags).read_volatile();

        (&raw mut (*page(to)).flags).write_volatile(flags);
    }
}

/// Clears the HWPoison flag of page frame `pfn` and, unless it is `mapped`, maps it in the direct
/// map, from which only x86-64 unmaps pages.
///
/// # Safety
///
/// The page frame has an initialised `struct page`.
pub(super) unsafe fn restore_page(pfn: u64, mapped: bool) {
    #[cfg(CONFIG_MEMORY_FAILURE)]
    {
        // SAFETY: `# Safety` requires an initialised `struct page`, whose flags C changes in the
        // same way.
        unsafe { kernel::bindings::clear_bit(HWPOISON, flags(pfn)) };
        #[cfg(CONFIG_X86_64)]
        if !mapped {
            // If this fails, the page stays unmapped, and `Memory::is_mapped` finds that.
            // SAFETY: This changes the direct map of the page only.
            let _ = unsafe { bindings::clear_mce_nospec(pfn as usize) };
        }
    }
    let _ = (pfn, mapped);
}

/// Handles page frame `pfn` as after a machine check: memory-failure recovery, the HWPoison flag,
/// and, on x86-64, unmapped from the direct map. The recovery alone does not unmap a page that has
/// no users.
///
/// `EOPNOTSUPP` if the kernel has no such recovery.
///
/// # Safety
///
/// The page frame has an initialised `struct page`.
pub(super) unsafe fn poison_page(pfn: u64) -> Result {
    #[cfg(CONFIG_MEMORY_FAILURE)]
    {
        // The recovery reports to the users of the page; its result does not matter here.
        // SAFETY: It may be called for any page frame.
        let _ = unsafe { kernel::bindings::memory_failure(pfn as usize, 0) };

        // SAFETY: `# Safety` requires an initialised `struct page`, whose flags C changes in the
        // same way.
        unsafe { kernel::bindings::set_bit(HWPOISON, flags(pfn)) };
        #[cfg(CONFIG_X86_64)]
        // SAFETY: This changes the direct map of the page only. Copies from and to the page survive
        // a fault.
        to_result(unsafe { bindings::set_mce_nospec(pfn as usize) })?;
        Ok(())
    }
    #[cfg(not(CONFIG_MEMORY_FAILURE))]
    {
        let _ = pfn;
        Err(super::errno::eopnotsupp())
    }
}

/// Returns the address of the flags of page frame `pfn`.
///
/// The flags of the second page of a folio have its order, which C changes by a plain read and
/// write when a huge mapping begins or ends: a change of [`HWPOISON`] at that time may be lost, as
/// one by C itself.
///
/// # Safety
///
/// The page frame has a `struct page`.
#[cfg(CONFIG_MEMORY_FAILURE)]
unsafe fn flags(pfn: u64) -> *mut c_ulong {
    // SAFETY: `# Safety` requires a `struct page`; this takes the address of a field.
    unsafe { (&raw mut (*page(pfn)).flags).cast() }
}

#[cfg(CONFIG_MEMORY_FAILURE)]
const HWPOISON: c_ulong = kernel::bindings::pageflags_PG_hwpoison as c_ulong;
