// SPDX-License-Identifier: GPL-2.0

//! Child processes that are killed with their parent, files that they get, and signal masks.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// Makes the kernel kill the child when the *thread* that starts it ends.
///
/// Start the child from a thread that lives as long as the child is to live.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    let set_signal = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the system call.
        if getppid() != Some(parent) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    // SAFETY: Only async-signal-safe functions may run between fork and exec. The closure makes two
    // system calls and does not allocate: an `io::Error` of an `ErrorKind` or errno has no heap part.
    unsafe { command.pre_exec(set_signal) }
}

/// Gives the child these files, under the numbers that they have here. They stay open here until the command is dropped, and
/// no other child gets them.
pub fn inherit(command: &mut Command, files: Vec<OwnedFd>) -> &mut Command {
    let keep = move || {
        for file in &files {
            fcntl_setfd(file, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: Only async-signal-safe functions may run between fork and exec. The closure makes system calls and does not
    // allocate.
    unsafe { command.pre_exec(keep) }
}

/// Blocks all signals that can be blocked, for the current thread, until it is dropped.
#[derive(Debug)]
pub struct BlockedSignals {
    before: libc::sigset_t,
    _not_send: std::marker::PhantomData<*const ()>,
}

impl BlockedSignals {
    /// Blocks the signals.
    pub fn new() -> io::Result<Self> {
        // SAFETY: `sigset_t` is a bit set, so zero bytes are valid; both sets outlive the calls.
        let (failed, before) = unsafe {
            let mut all: libc::sigset_t = mem::zeroed();
            let mut before: libc::sigset_t = mem::zeroed();
            libc::sigfillset(&mut all);
            (
                libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut before),
                before,
            )
        };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        Ok(Self {
            before,
            _not_send: std::marker::PhantomData,
        })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` was filled by pthread_sigmask(3) for this thread, because the type is not
        // `Send`.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
        debug_assert_eq!(failed, 0);
    }
}
