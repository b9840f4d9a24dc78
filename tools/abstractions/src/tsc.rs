// SPDX-License-Identifier: GPL-2.0

//! The time-stamp counter.

/// Reads the counter after all earlier instructions have completed and before any later one starts.
///
/// Intel SDM volume 2, "RDTSC": an `LFENCE` before and one after it enforce that order.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn now() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};

    // SAFETY: Every x86-64 processor has both instructions, and neither accesses memory. With
    // PR_TSC_SIGSEGV the process is killed.
    unsafe {
        _mm_lfence();
        let counter = _rdtsc();
        _mm_lfence();
        counter
    }
}

/// Marks the end of a section for an instruction counter outside the guest: RDTSC without LFENCE.
#[cfg(target_arch = "x86_64")]
pub fn mark() {
    // SAFETY: Every x86-64 processor has RDTSC, and it accesses no memory.
    let _ = unsafe { std::arch::x86_64::_rdtsc() };
}
