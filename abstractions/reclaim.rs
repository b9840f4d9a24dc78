// SPDX-License-Identifier: GPL-2.0

//! Limits on memory reclaim (`Documentation/core-api/gfp_mask-from-fs-io.rst`).

use kernel::{
    bindings,
    task::Task, //
};

/// Calls `f`, whose allocations start no I/O to reclaim memory (`memalloc_noio_save()`).
///
/// For code that may run in `submit_bio()`: I/O that is started there is only submitted when that
/// returns.
pub(crate) fn without_io<R>(f: impl FnOnce() -> R) -> R {
    with_flag(bindings::PF_MEMALLOC_NOIO, f)
}

/// Calls `f`, whose allocations may use all of the memory reserves, and reclaim none
/// (`memalloc_noreclaim_save()`).
///
/// For small allocations that others wait for to free memory.
pub(crate) fn from_reserves<R>(f: impl FnOnce() -> R) -> R {
    with_flag(bindings::PF_MEMALLOC, f)
}

/// Calls `f` with a flag of the current task set, which is afterwards as before.
fn with_flag<R>(flag: u32, f: impl FnOnce() -> R) -> R {
    let task = Task::current_raw();
    // SAFETY: A task may read and change its own flags. Interrupts that change them restore them.
    let flags = unsafe { &raw mut (*task).flags };

    // SAFETY: `flags` is a field of the current task, which only this task writes.
    let before = unsafe { *flags } & flag;
    // SAFETY: `flags` is a field of the current task, which only this task writes.
    unsafe { *flags |= flag };
    let result = f();
    // SAFETY: `flags` is a field of the current task, which only this task writes.
    unsafe { *flags = (*flags & !flag) | before };
    result
}
