// SPDX-License-Identifier: GPL-2.0

//! Runs a command while a lease (fcntl(2)) keeps other processes from truncating a file.

use crate::fs::reopen::{again, refer};
use abstractions::lease::Lease;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Events during the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The lease is held from now on; others wait for so long at most.
    Held {
        /// `/proc/sys/fs/lease-break-time`.
        seconds: u64,
        /// Against readers, too.
        exclusive: bool,
    },
    Wanted {
        /// How long it will at most.
        seconds: u64,
    },
    /// The kernel has taken the lease away.
    Over,
}

/// The command could not be run.
#[derive(Debug)]
pub struct Refused {
    /// As a shell has it: 127 where it is not there, 126 where it can't be run.
    pub status: u8,
    reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refused {}

/// How long the kernel makes others wait.
fn limit() -> u64 {
    crate::sysfs::number("/proc/sys/fs/lease-break-time").unwrap_or(45)
}

fn take(path: &Path, exclusive: bool) -> Result<File> {
    let handle = refer(path, ResolveFlags::empty()).map_err(io::Error::from)?;
    ensure!(
        handle.metadata()?.is_file(),
        "this is no regular file, and others have no leases"
    );
    let file = OpenOptions::new()
        .read(true)
        .write(exclusive)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(again(&handle))
        .map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::WOULDBLOCK) => anyhow::anyhow!("another process holds a lease on it"),
            _ => error.into(),
        })?;
    let lease = if exclusive { Lease::Write } else { Lease::Read };
    match lease.take(&file) {
        Ok(()) => Ok(file),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::AGAIN) if exclusive => {
                bail!("cannot take a lease: another process has the file open (see fuser(1))")
            }
            Some(Errno::AGAIN) => {
                bail!("cannot take a lease: a process has the file open for writing (see fuser(1))")
            }
            Some(Errno::ACCESS) => bail!("cannot take a lease: only its owner and root may"),
            Some(Errno::INVAL | Errno::OPNOTSUPP) => {
                bail!("cannot take a lease: its file system has no leases")
            }
            _ => Err(error).context("cannot take a lease"),
        },
    }
}

/// Signals that are passed on.
const PASSED: [i32; 6] = [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2];

/// Whether a signal of the terminal's keys has reached the command already.
fn is_in_foreground() -> bool {
    rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp())
}

/// Runs a command while the file is held, and gives its status, 128 and the signal's number where one
/// killed it.
///
/// Without `exclusive` the command opens the file itself, for reading. With it, it gets the descriptor
/// that the lease is on: any other open would have to wait for the lease.
pub fn run(
    path: &Path,
    exclusive: bool,
    command: &[OsString],
    notify: impl Fn(Notice) + Send + Sync + 'static,
) -> Result<u8> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("there is no command");
    };
    // Before the lease, because SIGIO kills by default.
    let mut signals = Signals::new(PASSED.iter().chain(&[SIGIO, SIGCHLD]))?;
    let file = take(path, exclusive)?;
    let mut command = Command::new(program);
    command.args(arguments);
    if exclusive {
        fcntl_setfd(&file, FdFlags::empty())?;
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        command.env("PMEMCTL_LEASE_FD", file.as_fd().as_raw_fd().to_string());
    }
    let notify = Arc::new(notify);
    notify(Notice::Held {
        seconds: limit(),
        exclusive,
    });
    let mut child = command.spawn().map_err(|error| Refused {
        status: match error.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        },
        reason: format!("{}: {error}", crate::sysfs::printable(program)),
    })?;
    let mut contended = false;
    loop {
        // SIGCHLD wakes this.
        for signal in signals.wait() {
            match signal {
                SIGIO if !contended => {
                    contended = true;
                    let (notify, seconds) = (Arc::clone(&notify), limit());
                    notify(Notice::Wanted { seconds });
                    // The kernel does not report that it breaks a lease.
                    thread::spawn(move || {
                        thread::sleep(Duration::from_secs(seconds));
                        notify(Notice::Over);
                    });
                }
                SIGIO | SIGCHLD => {}
                SIGINT | SIGQUIT if is_in_foreground() => {}
                signal => {
                    let process = Pid::from_child(&child);
                    if let Some(signal) = Signal::from_named_raw(signal) {
                        // The command may have exited.
                        let _ = kill_process(process, signal);
                    }
                }
            }
        }
        if let Some(status) = child.try_wait()? {
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            return Ok(code
                .and_then(|code| code.try_into().ok())
                .unwrap_or(u8::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Opens;
    use std::time::Instant;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn status_of_command_is_returned() {
        let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        for (command, status) in [("exit 3", 3), ("kill -9 $$", 137), ("exit 0", 0)] {
            let command = words(&["sh", "-c", command]);
            assert_eq!(run(&file, false, &command, |_| ()).unwrap(), status);
        }
        let error = run(&file, false, &words(&["/none"]), |_| ()).unwrap_err();
        assert_eq!(error.downcast_ref::<Refused>().unwrap().status, 127);
        let error = run(&file, false, &words(&["/"]), |_| ()).unwrap_err();
        assert_eq!(error.downcast_ref::<Refused>().unwrap().status, 126);
    }

    #[test]
    fn truncate_waits_for_command() {
        let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let text = format!(
            "{{ echo more >{}; }} & sleep 0.5; test $(stat -c %s {}) = 0",
            file.display(),
            file.display()
        );
        let begin = Instant::now();
        let status = run(&file, false, &words(&["sh", "-c", &text]), |_| ()).unwrap();
        assert_eq!(status, 0);
        assert!(begin.elapsed() >= Duration::from_millis(500));
        let end = Instant::now() + Duration::from_secs(10);
        while std::fs::metadata(&file).unwrap().len() != 5 {
            assert!(Instant::now() < end, "it was never truncated");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn file_open_for_writing_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = run(file.path(), false, &words(&["true"]), |_| ()).unwrap_err();
        assert!(error.to_string().contains("open for writing"), "{error}");
    }

    #[test]
    fn other_than_regular_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("fifo", &link).unwrap();
        let opens = Opens::of(&fifo);
        for path in [Path::new("/"), &fifo, &link] {
            for exclusive in [false, true] {
                let error = run(path, exclusive, &words(&["true"]), |_| ()).unwrap_err();
                assert!(error.to_string().contains("no regular file"), "{error}");
            }
        }
        assert!(opens.is_none_or(|opens| !opens.any()));
    }
}
