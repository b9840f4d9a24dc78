// SPDX-License-Identifier: GPL-2.0

//! A child process that is killed with its parent, and blocked signals.

use abstractions::process::{BlockedSignals, die_with_parent};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

#[test]
fn child_is_killed_when_the_starting_thread_ends() {
    let starter = thread::spawn(|| {
        die_with_parent(Command::new("sleep").arg("600"))
            .spawn()
            .unwrap()
    });
    let mut child = starter.join().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
}

/// Returns the signal mask of this thread.
fn blocked() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
}

#[test]
fn signals_are_blocked_until_drop() {
    let before = blocked();
    let blocked_signals = BlockedSignals::new().unwrap();
    for signal in [1, 2, 3, 15] {
        assert_ne!(blocked() & (1 << (signal - 1)), 0, "{signal}");
    }
    drop(blocked_signals);
    assert_eq!(blocked(), before);
}
