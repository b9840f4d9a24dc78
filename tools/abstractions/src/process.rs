// SPDX-License-Identifier: GPL-2.0

//! Child processes that don't outlive the one that started them, and work that a signal must not
//! cut in two.

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::io;
use std::mem;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// Has the command's process killed when the calling *thread* ends, however it ends.
///
/// The kernel ties the child to the thread that starts it: start it from one that lives as long as
/// the child shall.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the request.
        if getppid() != Some(parent) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    // SAFETY: Between fork and exec only async-signal-safe functions may run: the closure makes two
    // system calls and allocates nothing (an `io::Error` made of a kind or of an errno does
    // not).
    unsafe { command.pre_exec(ask) }
}

/// The signals that can wait do so as long as this value lives: Ctrl-C, too, but not SIGKILL.
///
/// Of the thread that made it; it stays with that thread.
#[derive(Debug)]
pub struct BlockedSignals {
    before: libc::sigset_t,
    _of_one_thread: std::marker::PhantomData<*const ()>,
}

impl BlockedSignals {
    /// From now on.
    pub fn new() -> io::Result<Self> {
        // SAFETY: All zeros is a valid `sigset_t`, and both sets live as long as the calls.
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
            _of_one_thread: std::marker::PhantomData,
        })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: The set is one that the kernel gave, of this thread: the value is not `Send`.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
        debug_assert_eq!(failed, 0);
    }
}
