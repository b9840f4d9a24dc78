// SPDX-License-Identifier: GPL-2.0

//! `fsync(2)` in place of libc's.

#![deny(clippy::undocumented_unsafe_blocks)]

use std::os::fd::{BorrowedFd, RawFd};

/// Makes the file durable. Returns 0, or -1 and sets `errno`.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: RawFd) -> i32 {
    let result = if fd < 0 {
        Err(rustix::io::Errno::BADF)
    } else {
        // SAFETY: The caller of fsync(2) keeps the descriptor open during the call.
        crate::fsync(unsafe { BorrowedFd::borrow_raw(fd) })
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            // SAFETY: libc returns the address of this thread's errno.
            unsafe { *libc::__errno_location() = error.raw_os_error() };
            -1
        }
    }
}
