// SPDX-License-Identifier: GPL-2.0

//! A child process of the host, and signals that wait.

use abstractions::process::{BlockedSignals, die_with_parent};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

#[test]
fn a_child_ends_with_the_thread_that_started_it() {
    let starter = thread::spawn(|| {
        die_with_parent(Command::new("sleep").arg("600"))
            .spawn()
            .unwrap()
    });
    let mut child = starter.join().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
}

/// The signals that wait, of this thread, as a mask.
fn blocked() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
}

#[test]
fn signals_wait() {
    let before = blocked();
    let blocked_signals = BlockedSignals::new().unwrap();
    for signal in [1, 2, 3, 15] {
        assert_ne!(blocked() & (1 << (signal - 1)), 0, "{signal}");
    }
    drop(blocked_signals);
    assert_eq!(blocked(), before);
}
