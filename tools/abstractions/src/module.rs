// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading of kernel modules, without programs and libraries around it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Loads a module from its file (finit_module(2)).
///
/// # Errors
///
/// The error of its initialization, or the reason why it can't be loaded.
pub fn load(file: impl AsFd, parameters: &CStr) -> io::Result<()> {
    let file = file.as_fd().as_raw_fd();
    // SAFETY: `file` is open while it is borrowed, and `parameters` ends with a NUL; the kernel copies it. The flags are none.
    check(unsafe { libc::syscall(libc::SYS_finit_module, file, parameters.as_ptr(), 0) })
}

/// Unloads a module (delete_module(2)), unless it is in use.
///
/// # Errors
///
/// `EAGAIN` or `EBUSY` if it is in use, `ENOENT` if it is not loaded.
pub fn unload(name: &CStr) -> io::Result<()> {
    // SAFETY: `name` ends with a NUL, and the kernel copies it.
    check(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
