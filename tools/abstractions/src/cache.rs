// SPDX-License-Identifier: GPL-2.0

//! Write-back of CPU caches from user space.

use std::fmt;

/// An instruction that writes a cache line back, best first (Intel SDM volume 2).
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Writes the line back and may keep it in the cache.
    Clwb,
    /// Writes the line back and evicts it, not ordered with other flushes.
    ClflushOpt,
    /// Writes the line back and evicts it, ordered with other flushes.
    Clflush,
}

/// An instruction that writes a cache line back, best first (Arm Architecture Reference Manual, "Cache maintenance
/// instructions").
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Writes the line back to persistent memory.
    DcCvap,
    /// Writes the line back to memory. Without the first one, the kernel uses it for persistent memory too.
    DcCvac,
}

#[cfg(target_arch = "x86_64")]
impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flush::Clwb => "clwb",
            Flush::ClflushOpt => "clflushopt",
            Flush::Clflush => "clflush",
        })
    }
}

#[cfg(target_arch = "aarch64")]
impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flush::DcCvap => "dc cvap",
            Flush::DcCvac => "dc cvac",
        })
    }
}

#[cfg(target_arch = "aarch64")]
impl Flush {
    /// Returns the best instruction of this processor.
    pub fn best() -> Self {
        match std::arch::is_aarch64_feature_detected!("dpb") {
            true => Flush::DcCvap,
            false => Flush::DcCvac,
        }
    }

    /// Writes back the cache lines of a range and waits until they have left the caches.
    ///
    /// # Safety
    ///
    /// The processor has the instruction, and `length` bytes at `start` are mapped. (A line does not
    /// cross a page, so the lines of the first and the last byte are mapped, too.)
    pub(crate) unsafe fn write_back(self, start: *const u8, length: usize) {
        use std::arch::asm;

        let types: usize;
        // SAFETY: Linux lets processes read the cache type register, and emulates it where it does not.
        unsafe {
            asm!("mrs {}, ctr_el0", out(reg) types, options(nomem, nostack, preserves_flags))
        };
        // DminLine: the logarithm of the words of the smallest line.
        let size = 4 << (types >> 16 & 0xf);
        let end = start as usize + length;
        let mut line = start as usize & !(size - 1);
        while line < end {
            // SAFETY: The caller guarantees that the range is mapped, so `line` is, and that the
            // processor has the instruction. A write-back does not change the value of memory.
            unsafe {
                match self {
                    // DC CVAP by its number: the assembler knows its name only for processors that have it.
                    Flush::DcCvap => {
                        asm!("sys #3, c7, c12, #1, {}", in(reg) line, options(nostack, preserves_flags))
                    }
                    Flush::DcCvac => {
                        asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags))
                    }
                }
            }
            line += size;
        }
        // SAFETY: A barrier accesses no memory.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }
}

/// Size of a cache line of every x86-64 processor, in bytes.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

#[cfg(target_arch = "x86_64")]
impl Flush {
    /// Returns the best instruction of this processor.
    pub fn best() -> Self {
        use std::arch::x86_64::{__cpuid, __cpuid_count};

        // SAFETY: Every x86-64 processor has CPUID, and leaf 7 is read only if leaf 0 reports it.
        let leaf7 = unsafe {
            if __cpuid(0).eax >= 7 {
                __cpuid_count(7, 0).ebx
            } else {
                0
            }
        };
        if leaf7 & (1 << 24) != 0 {
            Flush::Clwb
        } else if leaf7 & (1 << 23) != 0 {
            Flush::ClflushOpt
        } else {
            Flush::Clflush
        }
    }

    /// Writes back the cache lines of a range and waits until they have left the caches.
    ///
    /// # Safety
    ///
    /// The processor has the instruction, and `length` bytes at `start` are mapped. (A line does not
    /// cross a page, so the lines of the first and the last byte are mapped, too.)
    pub(crate) unsafe fn write_back(self, start: *const u8, length: usize) {
        use std::arch::asm;

        let end = start as usize + length;
        let mut line = start as usize & !(LINE - 1);
        while line < end {
            // SAFETY: The caller guarantees that the range is mapped, so `line` is, and that the
            // processor has the instruction. A write-back does not change the value of memory.
            unsafe {
                match self {
                    Flush::Clwb => {
                        asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags))
                    }
                    Flush::ClflushOpt => {
                        asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags));
                    }
                    Flush::Clflush => {
                        asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags));
                    }
                }
            }
            line += LINE;
        }
        // SAFETY: SFENCE orders stores and accesses no memory.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) };
    }
}
