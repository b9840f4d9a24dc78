// SPDX-License-Identifier: GPL-2.0

//! A reader of the output that goes away is no failure.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

#[test]
fn closed_output_ends_it_quietly() {
    let (ours, its) = UnixStream::pair().unwrap();
    drop(ours);
    let output = Command::new(env!("CARGO_BIN_EXE_pmemctl"))
        .args(["list", "--json"])
        .stdout(OwnedFd::from(its))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141));
}
