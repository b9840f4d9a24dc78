// SPDX-License-Identifier: GPL-2.0

//! Selftests that fail in every way, and the results that `pmem-check` prints.
//!
//! Boots about ten guests, in a minute.

use std::process::Command;

#[test]
#[ignore = "boots guests: make release STEPS=runner"]
fn each_failure_is_reported() {
    let output = Command::new(env!("CARGO_BIN_EXE_pmem-check"))
        .args([
            "--jobs",
            "1",
            "--driver",
            "nd_pmem",
            "--selftests",
            "tools/testing/runner/tests/fakes",
            "*",
            "nonsense",
        ])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    for (verdict, name, reason) in [
        ("FAIL", "crash", "the kernel reported: Kernel panic"),
        ("FAIL", "fail", "of 2 subtests this failed: a file is there"),
        ("FAIL", "hang", "not done after"),
        ("FAIL", "killer", "status 137 after 0 subtests"),
        (
            "FAIL",
            "late",
            "after the test, the kernel reported: WARNING: late",
        ),
        (
            "FAIL",
            "oops_hang",
            "the kernel reported: BUG: unable to handle page fault",
        ),
        (
            "FAIL",
            "splat",
            "the kernel reported: WARNING: possible circular locking",
        ),
        ("pass", "pass", ""),
        ("pass", "powercut", ""),
        ("pass", "splat_expected", ""),
        ("skip", "skip", "there is no such thing here"),
        ("FAIL", "nonsense", "no selftest has such a name"),
    ] {
        let found = printed.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(verdict) && words.next() == Some(name) && line.contains(reason)
        });
        assert!(found.is_some(), "{verdict} {name} {reason}\n{printed}");
    }
    // With the builds of module and provider.
    assert!(
        printed
            .trim_end()
            .ends_with("5 passed, 8 failed, 1 skipped"),
        "{printed}"
    );
    assert_eq!(output.status.code(), Some(1));
}
