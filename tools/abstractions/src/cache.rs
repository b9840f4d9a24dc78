// SPDX-License-Identifier: GPL-2.0

//! Write-back of CPU caches from user space.

pub use instructions::Flush;

impl Flush {
    /// Writes back the cache lines of a range and waits until they have left the caches.
    ///
    /// # Safety
    ///
    /// The processor has the instruction, and `length` bytes at `start` are mapped.
    pub(crate) unsafe fn write_back(self, start: *const u8, length: usize) {
        let size = instructions::line_size();
        let end = start as usize + length;
        let mut line = start as usize & !(size - 1);
        while line < end {
            // SAFETY: The caller guarantees that the processor has the instruction and that the range is mapped; a line
            // does not cross a page, so the lines of its first and last byte are mapped, too.
            unsafe { self.write_back_line(line) };
            line += size;
        }
        instructions::wait();
    }
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::fmt;

    /// An instruction that writes a cache line back, best first (Intel SDM volume 2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Flush {
        /// Writes the line back and may keep it in the cache.
        Clwb,
        /// Writes the line back and evicts it, not ordered with other flushes.
        ClflushOpt,
        /// Writes the line back and evicts it, ordered with other flushes.
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

    impl Flush {
        /// Returns the best instruction of this processor.
        pub fn best() -> Self {
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

        /// Writes back a cache line.
        ///
        /// # Safety
        ///
        /// The processor has the instruction, and the line is mapped.
        pub(super) unsafe fn write_back_line(self, line: usize) {
            // SAFETY: `# Safety` requires the instruction and a mapped line, whose contents a write-back does not change.
            unsafe {
                match self {
                    Flush::Clwb => {
                        asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags))
                    }
                    Flush::ClflushOpt => {
                        asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags))
                    }
                    Flush::Clflush => {
                        asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags))
                    }
                }
            }
        }
    }

    /// Returns the size of a cache line of every x86-64 processor, in bytes.
    pub(super) fn line_size() -> usize {
        64
    }

    /// Waits until earlier write-backs have left the caches.
    pub(super) fn wait() {
        // SAFETY: SFENCE orders stores and accesses no memory.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod instructions {
    use std::arch::{asm, is_aarch64_feature_detected};
    use std::fmt;

    /// An instruction that writes a cache line back, best first (Arm Architecture Reference Manual, "Cache maintenance
    /// instructions").
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Flush {
        /// Writes the line back to persistent memory.
        DcCvap,
        /// Writes the line back to memory. Without the first one, the kernel uses it for persistent memory too.
        DcCvac,
    }

    impl fmt::Display for Flush {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(match self {
                Flush::DcCvap => "dc cvap",
                Flush::DcCvac => "dc cvac",
            })
        }
    }

    impl Flush {
        /// Returns the best instruction of this processor.
        pub fn best() -> Self {
            match is_aarch64_feature_detected!("dpb") {
                true => Flush::DcCvap,
                false => Flush::DcCvac,
            }
        }

        /// Writes back a cache line.
        ///
        /// # Safety
        ///
        /// The processor has the instruction, and the line is mapped.
        pub(super) unsafe fn write_back_line(self, line: usize) {
            // SAFETY: `# Safety` requires the instruction, which Linux permits to processes (`SCTLR_EL1.UCI`), and a mapped
            // line, whose contents a write-back does not change.
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
        }
    }

    /// Returns the size of the smallest cache line of this machine, in bytes.
    pub(super) fn line_size() -> usize {
        let types: usize;
        // SAFETY: Linux permits processes to read the cache type register (`SCTLR_EL1.UCT`), or emulates the read.
        unsafe {
            asm!("mrs {}, ctr_el0", out(reg) types, options(nomem, nostack, preserves_flags))
        };
        // DminLine: the logarithm of the number of its words.
        4 << (types >> 16 & 0xf)
    }

    /// Waits until earlier write-backs have left the caches.
    pub(super) fn wait() {
        // SAFETY: A barrier accesses no memory.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }
}
