// SPDX-License-Identifier: GPL-2.0

//! Child processes that don't outlive the one that started them.

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

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
