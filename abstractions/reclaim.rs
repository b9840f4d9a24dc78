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
    const NOIO: u32 = bindings::PF_MEMALLOC_NOIO;
    let task = Task::current_raw();
    // SAFETY: A task may read and change its own flags. Interrupts that change them restore them.
    let flags = unsafe { &raw mut (*task).flags };

    // SAFETY: `flags` is a field of the current task, which only this task writes.
    let before = unsafe { *flags } & NOIO;
    // SAFETY: `flags` is a field of the current task, which only this task writes.
    unsafe { *flags |= NOIO };
    let result = f();
    // SAFETY: `flags` is a field of the current task, which only this task writes.
    unsafe { *flags = (*flags & !NOIO) | before };
    result
}
