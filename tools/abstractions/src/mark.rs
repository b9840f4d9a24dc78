// SPDX-License-Identifier: GPL-2.0

//! Marks for QEMU's power-failure plugin.

/// Marks an operation with an argument (see the crate `persistence`, `log::operation`) and returns its result. Without the
/// plugin, the result is `operation`: the instruction does nothing.
#[cfg(target_arch = "x86_64")]
pub fn mark(operation: u64, argument: u64) -> u64 {
    let mut result = operation;
    // SAFETY: The instruction is a no-op of x86-64 (Intel SDM volume 2, "NOP"), whose operand is not accessed. The plugin may
    // change RAX.
    unsafe {
        std::arch::asm!(
            "nopl 0x504d4352(%rax,%rax,1)",
            inout("rax") result,
            in("rdx") argument,
            options(att_syntax, nostack, preserves_flags)
        );
    }
    result
}

/// The plugin is for x86-64.
#[cfg(not(target_arch = "x86_64"))]
pub fn mark(operation: u64, _argument: u64) -> u64 {
    operation
}
