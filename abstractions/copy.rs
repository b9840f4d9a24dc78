// SPDX-License-Identifier: GPL-2.0

//! Copies to and from persistent memory that survive memory failures and bypass the CPU caches.
//!
//! C headers: [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h),
//! [`include/linux/libnvdimm.h`](srctree/include/linux/libnvdimm.h)

use super::bindings;
use core::ptr::NonNull;
#[cfg(not(CONFIG_X86_64))]
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// How many bytes [`zero_flushcache`] stores in a round.
pub(super) const ZEROED_AT_ONCE: usize = 128;

/// An instruction that may fault: it goes on at label 3 then (`_ASM_EXTABLE_TYPE`).
#[cfg(CONFIG_X86_64)]
macro_rules! guarded {
    ($instruction:expr, $kind:literal) => {
        concat!(
            "4: ",
            $instruction,
            "\n",
            ".pushsection \"__ex_table\",\"a\"\n",
            ".balign 4\n",
            ".long 4b - .\n",
            ".long 3f - .\n",
            ".long {",
            $kind,
            "}\n",
            ".popsection\n",
        )
    };
}

/// Stores 32 bytes of zeroes, from `$0` on.
#[cfg(CONFIG_X86_64)]
macro_rules! zero_32 {
    ($($offset:literal),*) => {
        concat!($(guarded!(concat!("movnti {zero}, ", $offset, "({to})"), "fault")),*)
    };
}

/// Copies 32 bytes, from those offsets on.
#[cfg(CONFIG_X86_64)]
macro_rules! copy_32 {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            guarded!(concat!("movq ", $a, "({from}), %r8"), "load_fault"),
            guarded!(concat!("movq ", $b, "({from}), %r9"), "load_fault"),
            guarded!(concat!("movq ", $c, "({from}), %r10"), "load_fault"),
            guarded!(concat!("movq ", $d, "({from}), %r11"), "load_fault"),
            guarded!(concat!("movnti %r8, ", $a, "({to})"), "fault"),
            guarded!(concat!("movnti %r9, ", $b, "({to})"), "fault"),
            guarded!(concat!("movnti %r10, ", $c, "({to})"), "fault"),
            guarded!(concat!("movnti %r11, ", $d, "({to})"), "fault"),
        )
    };
}

/// How many bytes [`copy_flushcache`] copies in a round.
#[cfg(CONFIG_X86_64)]
const COPIED_AT_ONCE: usize = 64;

/// Stores zeroes past the CPU's caches, without a fence; [`EIO`] if a page is not mapped.
///
/// # Safety
///
/// `to` is the start of `len` bytes of memory, a multiple of [`ZEROED_AT_ONCE`], that may be written
/// where they are mapped, and aligned to that, too.
#[inline(never)]
#[cfg(CONFIG_X86_64)]
pub(super) unsafe fn zero_flushcache(to: NonNull<u8>, len: usize) -> Result {
    let mut left = len;

    if len == 0 {
        return Ok(());
    }
    // SAFETY: The stores are to the `len` bytes that the caller has said may be written; one that
    // faults goes on at label 3.
    unsafe {
        core::arch::asm!(
            "2:",
            zero_32!("0", "8", "16", "24"),
            zero_32!("32", "40", "48", "56"),
            zero_32!("64", "72", "80", "88"),
            zero_32!("96", "104", "112", "120"),
            "add ${round}, {to}",
            "sub ${round}, {len}",
            "jnz 2b",
            "3:",
            to = inout(reg) to.as_ptr() => _,
            len = inout(reg) left,
            zero = in(reg) 0_u64,
            round = const ZEROED_AT_ONCE,
            fault = const kernel::bindings::EX_TYPE_DEFAULT,
            options(nostack, att_syntax),
        )
    };
    if left != 0 {
        return Err(EIO);
    }
    Ok(())
}

/// As above, but a page that is not mapped is an oops.
///
/// # Safety
///
/// As above, and all of it is mapped.
#[cfg(not(CONFIG_X86_64))]
pub(super) unsafe fn zero_flushcache(to: NonNull<u8>, len: usize) -> Result {
    let mut done = 0;

    while done < len {
        let piece = PAGE_SIZE.min(len.wrapping_sub(done));

        // SAFETY: `done` is less than the `len` bytes that the caller has said may be written; the
        // source is the kernel's page of zeroes, which nobody writes.
        unsafe {
            bindings::memcpy_flushcache(
                to.as_ptr().add(done).cast(),
                (&raw const kernel::bindings::empty_zero_page).cast(),
                piece,
            )
        };
        done = done.wrapping_add(piece);
    }
    Ok(())
}

/// Copies from persistent memory; [`EIO`] if it fails under the copy, see [`Memory::read_bytes`].
///
/// # Safety
///
/// `to` is valid for writes and `from` for reads of `len` bytes, which may be out of the kernel's
/// map. `len` is less than 4 GiB.
#[inline]
pub(super) unsafe fn copy_mc(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    // SAFETY: `to` and `from` have `len` bytes, as `# Safety` asks. The C routines stand other writers
    // to either, and overlap, as much as a disk does: what is read is then undefined, nothing else.
    #[cfg(all(CONFIG_ARCH_HAS_COPY_MC, CONFIG_X86_64))]
    let left = unsafe {
        kernel::bindings::copy_mc_to_kernel(
            to.as_ptr().cast(),
            from.as_ptr().cast(),
            // CAST: Less than 4 GiB, as `# Safety` asks.
            len as c_uint,
        )
    };
    #[cfg(not(all(CONFIG_ARCH_HAS_COPY_MC, CONFIG_X86_64)))]
    // SAFETY: `to` and `from` have `len` bytes, as `# Safety` asks.
    let left = unsafe {
        kernel::bindings::memcpy(to.as_ptr().cast(), from.as_ptr().cast(), len);
        0
    };
    if left != 0 {
        return Err(EIO);
    }
    Ok(())
}

/// Copies with non-temporal stores, or stores and write-backs; [`EIO`], on x86-64, if a page of
/// either is not mapped, or if a load takes a machine check.
///
/// A loop of its own, as the kernel's `__memcpy_flushcache` does not survive a fault, and
/// `copy_to_nontemporal`, which does, ends in a fence: that makes a write of 4 KiB a third slower.
///
/// # Safety
///
/// `to` is the start of `len` bytes of memory that may be written where they are mapped, `from` of
/// as many that may be read where they are mapped.
#[inline(never)]
#[cfg(CONFIG_X86_64)]
pub(super) unsafe fn copy_flushcache(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    let mut left = len;

    if (to.as_ptr() as usize | len) % COPIED_AT_ONCE != 0 || len == 0 {
        // SAFETY: The same is asked for.
        return unsafe { copy_flushcache_unaligned(to, from, len) };
    }
    // SAFETY: The loads and stores are to the `len` bytes, a multiple of what a round copies, that
    // the caller has said may be read and written; one that faults goes on at label 3.
    unsafe {
        core::arch::asm!(
            "2:",
            copy_32!("0", "8", "16", "24"),
            copy_32!("32", "40", "48", "56"),
            "add ${round}, {from}",
            "add ${round}, {to}",
            "sub ${round}, {len}",
            "jnz 2b",
            "3:",
            to = inout(reg) to.as_ptr() => _,
            from = inout(reg) from.as_ptr() => _,
            len = inout(reg) left,
            round = const COPIED_AT_ONCE,
            fault = const kernel::bindings::EX_TYPE_DEFAULT,
            load_fault = const kernel::bindings::EX_TYPE_DEFAULT_MCE_SAFE,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            options(nostack, att_syntax),
        )
    };
    if left != 0 {
        return Err(EIO);
    }
    Ok(())
}

/// As above, of bytes that are not whole cache lines.
///
/// # Safety
///
/// As above.
#[cold]
#[cfg(CONFIG_X86_64)]
unsafe fn copy_flushcache_unaligned(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    // SAFETY: As the caller has said; the routine stops at a load or store that faults, and returns
    // how much is left. What is not whole words it stores through the caches.
    unsafe {
        if bindings::copy_to_nontemporal(to.as_ptr().cast(), from.as_ptr().cast(), len) != 0 {
            return Err(EIO);
        }
        flush_caches(to, len)
    }
}

/// Writes back and drops what the CPU's caches hold; [`EIO`], on x86-64, if a page is not mapped: the
/// kernel's own routines do not survive that.
///
/// # Safety
///
/// `at` is the start of `len` bytes of memory.
#[inline(never)]
#[cfg(CONFIG_X86_64)]
pub(super) unsafe fn flush_caches(at: NonNull<u8>, len: usize) -> Result {
    // SAFETY: Set at boot, and not changed since.
    let line = usize::from(unsafe { kernel::bindings::boot_cpu_data.x86_clflush_size }).max(1);
    let end = (at.as_ptr() as usize).wrapping_add(len);
    let mut next = at.as_ptr() as usize & !line.wrapping_sub(1);

    if len == 0 {
        return Ok(());
    }
    // SAFETY: Flushing a cache line changes nothing that can be seen. It faults as a load does; then it
    // goes on at label 3.
    unsafe {
        core::arch::asm!(
            "mfence",
            "2:",
            guarded!("clflush ({next})", "fault"),
            "add {line}, {next}",
            "cmp {end}, {next}",
            "jb 2b",
            "3:",
            "mfence",
            next = inout(reg) next,
            end = in(reg) end,
            line = in(reg) line,
            fault = const kernel::bindings::EX_TYPE_DEFAULT,
            options(nostack, att_syntax),
        )
    };
    if next < end {
        return Err(EIO);
    }
    Ok(())
}

/// As above; a page that is not mapped is an oops.
///
/// # Safety
///
/// As above, and all of it is mapped.
#[cfg(not(CONFIG_X86_64))]
pub(super) unsafe fn flush_caches(at: NonNull<u8>, len: usize) -> Result {
    // SAFETY: As the caller has said. What is in the caches is written back first: invalidating alone
    // would lose it (arm64).
    unsafe {
        bindings::arch_wb_cache_pmem(at.as_ptr().cast(), len);
        bindings::arch_invalidate_pmem(at.as_ptr().cast(), len);
    }
    Ok(())
}

/// As above, but a page that is not mapped is an oops.
///
/// # Safety
///
/// As above, and all of both is mapped.
#[inline]
#[cfg(not(CONFIG_X86_64))]
pub(super) unsafe fn copy_flushcache(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    // SAFETY: As the caller has said.
    unsafe { bindings::memcpy_flushcache(to.as_ptr().cast(), from.as_ptr().cast(), len) };
    Ok(())
}
