// SPDX-License-Identifier: GPL-2.0

//! The processor's time-stamp counter.

/// The counter, once all instructions before have been done; those behind begin afterwards.
///
/// Intel SDM volume 2, "RDTSC": `LFENCE` in front of it waits for what is before, and behind it
/// holds back what follows.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn now() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};

    // SAFETY: Every x86-64 processor has both instructions, and neither touches memory. A process
    // that was denied the counter (PR_SET_TSC) gets a SIGSEGV, which ends it.
    unsafe {
        _mm_lfence();
        let counter = _rdtsc();
        _mm_lfence();
        counter
    }
}

/// Where a section ends, for who counts instructions from outside: a look at the counter with no fence
/// in front of it.
#[cfg(target_arch = "x86_64")]
pub fn mark() {
    // SAFETY: As above.
    let _ = unsafe { std::arch::x86_64::_rdtsc() };
}
