// SPDX-License-Identifier: GPL-2.0

//! A child process of the host.

use abstractions::process::die_with_parent;
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
