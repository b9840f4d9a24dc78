// SPDX-License-Identifier: GPL-2.0

//! Writing the processor's caches back to memory from user space.

use std::fmt;

/// Bytes in a cache line of every x86-64 processor.
pub const LINE: usize = 64;

/// The instruction that writes a cache line back, best first (Intel SDM volume 2: CLWB, CLFLUSHOPT,
/// CLFLUSH).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Writes back and may keep the line.
    Clwb,
    /// Writes back and drops the line, in no order.
    ClflushOpt,
    /// Writes back and drops the line, in order.
    Clflush,
}

impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flush::Clwb => "clwb",
            Flush::ClflushOpt => "clflushopt",
            Flush::Clflush => "clflush",
        })
    }
}

#[cfg(target_arch = "x86_64")]
impl Flush {
    /// The best one that this processor has.
    pub fn best() -> Self {
        use std::arch::x86_64::{__cpuid, __cpuid_count};

        // SAFETY: Every x86-64 processor has the instruction CPUID.
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

    /// Writes back the lines of the bytes and waits until they have left the processor's caches.
    ///
    /// # Safety
    ///
    /// This processor has the instruction, and the `length` bytes at `start` are mapped. (A line is
    /// within a page, so the lines that hold the first and the last byte are mapped as well.)
    pub(crate) unsafe fn write_back(self, start: *const u8, length: usize) {
        use std::arch::asm;

        let end = start as usize + length;
        let mut line = start as usize & !(LINE - 1);
        while line < end {
            // SAFETY: The line is mapped and the instruction is there, as the caller promises. None
            // of the three changes what memory holds as a program sees it.
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
        // SAFETY: A fence touches nothing.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) };
    }
}
