// SPDX-License-Identifier: GPL-2.0

//! Copies to and from persistent memory that survive memory failures, and stores that bypass the
//! CPU caches.
//!
//! C headers: [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h),
//! [`include/linux/libnvdimm.h`](srctree/include/linux/libnvdimm.h)

use super::bindings;
use core::ptr::NonNull;
#[cfg(not(CONFIG_X86_64))]
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// The number of bytes that [`zero_flushcache`] stores in an iteration.
pub(super) const ZEROED_AT_ONCE: usize = 128;

/// An instruction that may fault. It has an entry in the exception table (`_ASM_EXTABLE_TYPE`), so
/// that execution continues at label 3 then.
///
/// Of `MCE_SAFE` type: a machine check is as good as a fault. Where the host has unmapped failed
/// memory (KVM), a guest takes one at a store or a flush as well.
#[cfg(CONFIG_X86_64)]
macro_rules! guarded {
    ($instruction:expr) => {
        concat!(
            "4: ",
            $instruction,
            "\n",
            ".pushsection \"__ex_table\",\"a\"\n",
            ".balign 4\n",
            ".long 4b - .\n",
            ".long 3f - .\n",
            ".long {fault}\n",
            ".popsection\n",
        )
    };
}

/// Stores zeroes at four offsets.
#[cfg(CONFIG_X86_64)]
macro_rules! zero_32 {
    ($($offset:literal),*) => {
        concat!($(guarded!(concat!("movnti {zero}, ", $offset, "({to})"))),*)
    };
}

/// Copies 8 bytes at each of four offsets.
#[cfg(CONFIG_X86_64)]
macro_rules! copy_32 {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            guarded!(concat!("movq ", $a, "({from}), %r8")),
            guarded!(concat!("movq ", $b, "({from}), %r9")),
            guarded!(concat!("movq ", $c, "({from}), %r10")),
            guarded!(concat!("movq ", $d, "({from}), %r11")),
            guarded!(concat!("movnti %r8, ", $a, "({to})")),
            guarded!(concat!("movnti %r9, ", $b, "({to})")),
            guarded!(concat!("movnti %r10, ", $c, "({to})")),
            guarded!(concat!("movnti %r11, ", $d, "({to})")),
        )
    };
}

/// The number of bytes that [`copy_flushcache`] copies in an iteration.
#[cfg(CONFIG_X86_64)]
const COPIED_AT_ONCE: usize = 64;

/// Stores zeroes past the CPU caches, without a fence. [`EIO`] if a page is not mapped, or with a
/// machine check.
///
/// # Safety
///
/// `to` is the start of `len` bytes that may be written where they are mapped. Both are multiples
/// of [`ZEROED_AT_ONCE`].
#[inline(never)]
#[cfg(CONFIG_X86_64)]
pub(super) unsafe fn zero_flushcache(to: NonNull<u8>, len: usize) -> Result {
    let mut left = len;

    if len == 0 {
        return Ok(());
    }
    // SAFETY: The stores are to the `len` bytes that may be written, as `# Safety` requires. After
    // a fault, execution continues at label 3.
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
            fault = const kernel::bindings::EX_TYPE_DEFAULT_MCE_SAFE,
            options(nostack, att_syntax),
        )
    };
    if left != 0 {
        return Err(EIO);
    }
    Ok(())
}

/// Stores zeroes past the CPU caches, without a fence.
///
/// # Safety
///
/// `to` is the start of `len` mapped bytes that may be written.
#[cfg(not(CONFIG_X86_64))]
pub(super) unsafe fn zero_flushcache(to: NonNull<u8>, len: usize) -> Result {
    let mut done = 0;

    while done < len {
        let chunk = PAGE_SIZE.min(len.wrapping_sub(done));

        // SAFETY: `done` is less than `len`, and `# Safety` requires that many bytes. The source is
        // the kernel's page of zeroes, which nobody writes.
        unsafe {
            bindings::memcpy_flushcache(
                to.as_ptr().add(done).cast(),
                (&raw const kernel::bindings::empty_zero_page).cast(),
                chunk,
            )
        };
        done = done.wrapping_add(chunk);
    }
    Ok(())
}

/// Copies from persistent memory. [`EIO`] if the memory fails during the copy: see
/// [`Memory::read_bytes`](super::memory::Memory::read_bytes).
///
/// # Safety
///
/// `to` is valid for writes of `len` bytes, which are less than 4 GiB. `from` is the start of as
/// many bytes that may be read where they are mapped.
#[inline]
pub(super) unsafe fn copy_mc(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    #[cfg(CONFIG_X86_64)]
    if !is_copy_mc_guarded() {
        // SAFETY: Its requirements are the same.
        return unsafe { copy_mc_words(to, from, len) };
    }
    // SAFETY: `# Safety` requires `to` and `from` to have `len` bytes. With concurrent writers to
    // either, the routines, which are in assembly, copy any of the values, as a disk does.
    #[cfg(CONFIG_X86_64)]
    let left = unsafe {
        kernel::bindings::copy_mc_to_kernel(
            to.as_ptr().cast(),
            from.as_ptr().cast(),
            // CAST: `# Safety` requires less than 4 GiB.
            len as c_uint,
        )
    };
    #[cfg(not(CONFIG_X86_64))]
    // SAFETY: `# Safety` requires `to` and `from` to have `len` bytes.
    let left = unsafe {
        kernel::bindings::memcpy(to.as_ptr().cast(), from.as_ptr().cast(), len);
        0
    };
    if left != 0 {
        return Err(EIO);
    }
    Ok(())
}

/// Returns whether `copy_mc_to_kernel` survives memory that fails. On a CPU without fast strings
/// (ERMS), it is a plain `memcpy`.
#[inline]
pub(super) fn is_copy_mc_guarded() -> bool {
    #[cfg(CONFIG_X86_64)]
    {
        const FEATURE: usize = kernel::bindings::X86_FEATURE_ERMS as usize;

        // SAFETY: `x86_capability` is an array with a bit for each feature. The kernel sets it at
        // boot, and does not change it.
        let word = unsafe {
            (&raw const kernel::bindings::boot_cpu_data)
                .byte_add(bindings::X86_CAPABILITY_OFFSET)
                .cast::<u32>()
                .add(FEATURE / 32)
                .read()
        };

        word & (1 << (FEATURE % 32)) != 0
    }
    #[cfg(not(CONFIG_X86_64))]
    false
}

/// [`copy_mc`] by words: `mce=recovery` asks for a copy without string instructions, and without
/// loads that cross a cache line. By bytes where a bio has a segment that is not whole words.
///
/// # Safety
///
/// See [`copy_mc`].
#[cold]
#[inline(never)]
#[cfg(CONFIG_X86_64)]
unsafe fn copy_mc_words(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    let mut left = len;

    // SAFETY: The loads and stores are to the `len` bytes that may be read and written, as
    // `# Safety` requires. After a fault, execution continues at label 3, with what is left.
    unsafe {
        core::arch::asm!(
            "test {left}, {left}",
            "jz 3f",
            "test $7, {odd:l}",
            "jnz 5f",
            "2:",
            guarded!("movq ({from}), {word}"),
            guarded!("movq {word}, ({to})"),
            "add $8, {from}",
            "add $8, {to}",
            "sub $8, {left}",
            "jnz 2b",
            "jmp 3f",
            "5:",
            guarded!("movb ({from}), {word:l}"),
            guarded!("movb {word:l}, ({to})"),
            "inc {from}",
            "inc {to}",
            "dec {left}",
            "jnz 5b",
            "3:",
            odd = in(reg) from.as_ptr() as usize | len,
            to = inout(reg) to.as_ptr() => _,
            from = inout(reg) from.as_ptr() => _,
            left = inout(reg) left,
            word = out(reg) _,
            fault = const kernel::bindings::EX_TYPE_DEFAULT_MCE_SAFE,
            options(nostack, att_syntax),
        )
    };
    if left != 0 {
        return Err(EIO);
    }
    Ok(())
}

/// Copies with non-temporal stores, or with stores and write-backs. [`EIO`] if a page of either is
/// not mapped, or with a machine check.
///
/// It has a loop of its own because the kernel's `__memcpy_flushcache` does not survive a fault.
/// `copy_to_nontemporal` does, but ends with a fence, which makes a write of 4 KiB a third slower.
///
/// # Safety
///
/// `to` is the start of `len` bytes that may be written where they are mapped, `from` of as many
/// bytes that may be read where they are mapped.
#[inline(never)]
#[cfg(CONFIG_X86_64)]
pub(super) unsafe fn copy_flushcache(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    let mut left = len;

    if (to.as_ptr() as usize | len) % COPIED_AT_ONCE != 0 || len == 0 {
        // SAFETY: Its requirements are the same.
        return unsafe { copy_flushcache_unaligned(to, from, len) };
    }
    // SAFETY: The loads and stores are to the `len` bytes, a multiple of an iteration, that may be
    // read and written, as `# Safety` requires. After a fault, execution continues at label 3.
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
            fault = const kernel::bindings::EX_TYPE_DEFAULT_MCE_SAFE,
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

/// [`copy_flushcache`] for bytes that are not whole cache lines. A machine check at a load from
/// memory that is bad itself is not survived: it is for bytes from RAM.
///
/// # Safety
///
/// See [`copy_flushcache`].
#[cold]
#[cfg(CONFIG_X86_64)]
unsafe fn copy_flushcache_unaligned(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    // SAFETY: `# Safety` requires bytes that may be read and written where they are mapped. The
    // routine stops at a fault, and returns the number of bytes that are left. It stores partial
    // words through the caches, so these are flushed.
    unsafe {
        if bindings::copy_to_nontemporal(to.as_ptr().cast(), from.as_ptr().cast(), len) != 0 {
            return Err(EIO);
        }
        flush_caches(to, len)
    }
}

/// Writes back and invalidates the CPU caches. [`EIO`] if a page is not mapped, or with a machine
/// check, which the kernel's own routines do not survive.
///
/// # Safety
///
/// `at` is the start of `len` bytes that may be read where they are mapped.
#[inline(never)]
#[cfg(CONFIG_X86_64)]
pub(super) unsafe fn flush_caches(at: NonNull<u8>, len: usize) -> Result {
    // SAFETY: The kernel sets it at boot, and does not change it.
    let line = usize::from(unsafe { kernel::bindings::boot_cpu_data.x86_clflush_size }).max(1);
    let end = (at.as_ptr() as usize).wrapping_add(len);
    let mut next = at.as_ptr() as usize & !line.wrapping_sub(1);

    if len == 0 {
        return Ok(());
    }
    // SAFETY: A flush of a cache line does not change its contents. It faults like a load. After a
    // fault, execution continues at label 3.
    unsafe {
        core::arch::asm!(
            "mfence",
            "2:",
            guarded!("clflush ({next})"),
            "add {line}, {next}",
            "cmp {end}, {next}",
            "jb 2b",
            "3:",
            "mfence",
            next = inout(reg) next,
            end = in(reg) end,
            line = in(reg) line,
            fault = const kernel::bindings::EX_TYPE_DEFAULT_MCE_SAFE,
            options(nostack, att_syntax),
        )
    };
    if next < end {
        return Err(EIO);
    }
    Ok(())
}

/// Writes back and invalidates the CPU caches.
///
/// # Safety
///
/// `at` is the start of `len` mapped bytes.
#[cfg(not(CONFIG_X86_64))]
pub(super) unsafe fn flush_caches(at: NonNull<u8>, len: usize) -> Result {
    // SAFETY: `# Safety` requires mapped bytes.
    unsafe { bindings::arch_wb_cache_pmem(at.as_ptr().cast(), len) };
    // SAFETY: `# Safety` requires mapped bytes.
    unsafe { invalidate_caches(at, len) };
    Ok(())
}

/// Writes back and invalidates the CPU caches, to the point of coherency.
///
/// `arch_invalidate_pmem` only invalidates (DC IVAC): it loses what another CPU has stored since
/// the write-back.
///
/// # Safety
///
/// `at` is the start of `len` mapped bytes.
#[cfg(CONFIG_ARM64)]
unsafe fn invalidate_caches(at: NonNull<u8>, len: usize) {
    let end = (at.as_ptr() as usize).wrapping_add(len);
    // SAFETY: The kernel knows the register: this is its value that is safe on all CPUs, which may
    // differ.
    let ctr = unsafe { bindings::read_sanitised_ftr_reg(bindings::SYS_CTR_EL0) };
    // DminLine, the binary logarithm of the words in the smallest line (Arm ARM, D24.2.34).
    let line = 4_usize << ((ctr >> 16) & 0xf);
    let mut next = at.as_ptr() as usize & !line.wrapping_sub(1);

    while next < end {
        // SAFETY: `# Safety` requires mapped bytes, and a line is in one page. Its contents do not
        // change.
        unsafe { core::arch::asm!("dc civac, {next}", next = in(reg) next, options(nostack)) };
        next = next.wrapping_add(line);
    }
    // SAFETY: A barrier.
    unsafe { core::arch::asm!("dsb sy", options(nostack)) };
}

/// Copies with stores and write-backs.
///
/// # Safety
///
/// `to` is the start of `len` mapped bytes that may be written, `from` of as many that may be read.
#[inline]
#[cfg(not(CONFIG_X86_64))]
pub(super) unsafe fn copy_flushcache(to: NonNull<u8>, from: NonNull<u8>, len: usize) -> Result {
    // SAFETY: `# Safety` requires mapped bytes that may be written and read.
    unsafe { bindings::memcpy_flushcache(to.as_ptr().cast(), from.as_ptr().cast(), len) };
    Ok(())
}
