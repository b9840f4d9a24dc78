// SPDX-License-Identifier: GPL-2.0

//! Programs of other packages: where they are, and how they run.
//!
//! [`sandboxed`] runs those that read the contents of devices.

pub mod sandboxed;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Directories of programs for administrators. A `$PATH` need not have them: that of users, and that of `su` without
/// `-`, does not.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Returns the path of a program, or its name if there is none.
pub fn path(name: &str) -> PathBuf {
    let folders = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&folders).filter(|folder| folder.is_absolute());
    find(name, folders.chain(SYSTEM.map(PathBuf::from)))
}

/// Returns the output of a program of the Debian package `package`; failing without a message counts as empty output.
pub fn output(program: &str, package: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(path(program))
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("cannot run {program} (package {package})"))?;
    if !output.status.success() && !output.stderr.is_empty() {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.trim();
        let message = message
            .strip_prefix(&format!("{program}: "))
            .unwrap_or(message);
        bail!("{program}: {message}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the output of a program that ends within this time; otherwise it is killed. What waits in the kernel is not
/// waited for.
pub fn output_within(time: Duration, command: &mut Command) -> Result<Output> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // An id would be another process's as soon as the thread has waited.
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Nobody waits any more after the time.
        let _ = sender.send(child.wait_with_output());
    });
    match receiver.recv_timeout(time) {
        Ok(output) => Ok(output?),
        Err(_) => {
            // It may have ended just now.
            let _ = pidfd_send_signal(&process, Signal::KILL);
            bail!("no answer within {} s", time.as_secs())
        }
    }
}

fn find(name: &str, folders: impl Iterator<Item = PathBuf>) -> PathBuf {
    let name = Path::new(name);
    if name.components().count() > 1 {
        return name.to_owned();
    }
    let mut paths = folders.map(|folder| folder.join(name));
    paths.find(|path| path.is_file()).unwrap_or(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_does_not_end_is_not_waited_for() {
        let shell =
            |script: &str, time| output_within(time, Command::new("sh").args(["-c", script]));
        let long = Duration::from_secs(60);
        let output = shell("echo a; echo b >&2; exit 1", long).unwrap();
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b"a\n"[..], &b"b\n"[..])
        );
        assert_eq!(output.status.code(), Some(1));
        let error = shell("echo a; exec sleep 60", Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
    }

    #[test]
    fn program_is_found_outside_of_path() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("xfs_db");
        std::fs::write(&program, "").unwrap();
        let folders = || ["/none".into(), folder.path().to_owned()].into_iter();
        assert_eq!(find("xfs_db", folders()), program);
        assert_eq!(find("debugfs", folders()), Path::new("debugfs"));
        assert_eq!(find("/a/xfs_db", folders()), Path::new("/a/xfs_db"));
    }
}
