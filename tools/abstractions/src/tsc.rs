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

/// Returns the frequency of the host's counter in kHz, which the first call measures in 50 ms. `None` if there is none.
#[cfg(target_arch = "x86_64")]
pub fn khz() -> Option<u64> {
    use std::{
        sync::OnceLock,
        thread,
        time::{Duration, Instant},
    };
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();

    // The reading that took the least time: nothing else ran in between.
    let moment = || {
        let readings = (0..64).map(|_| {
            let (at, counter) = (Instant::now(), now());
            (at.elapsed(), at, counter)
        });
        readings.min().map(|(_, at, counter)| (at, counter))
    };
    *KHZ.get_or_init(|| {
        let (start, from) = moment()?;
        thread::sleep(Duration::from_millis(50));
        let (end, to) = moment()?;
        let cycles = u128::from(to.checked_sub(from)?);
        u64::try_from(cycles * 1_000_000 / (end - start).as_nanos()).ok()
    })
}

/// Returns the frequency of the host's counter: there is none.
#[cfg(not(target_arch = "x86_64"))]
pub fn khz() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn frequency_fits_the_clock() {
        let (start, from) = (Instant::now(), now());
        std::thread::sleep(Duration::from_millis(100));
        let cycles = (now() - from) as f64;
        let expected = khz().unwrap() as f64 * start.elapsed().as_secs_f64() * 1000.0;
        // The host may be busy in between.
        assert!(
            (cycles / expected - 1.0).abs() < 0.5,
            "{cycles} of {expected}"
        );
    }
}
