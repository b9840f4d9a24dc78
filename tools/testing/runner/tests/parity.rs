// SPDX-License-Identifier: GPL-2.0

//! Selftests that differ between the drivers, and the table that `pmem-check --parity` makes.
//!
//! Boots two guests.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "boots guests: make release STEPS=runner"]
fn differences_are_listed_and_judged() {
    let output = Command::new(env!("CARGO_BIN_EXE_pmem-check"))
        .args(["--jobs", "1"])
        .args(["--parity", "--table", "build/check/fakes-parity"])
        .args(["--selftests", "tools/testing/runner/tests/fakes_parity"])
        .args([
            "--differences",
            "tools/testing/runner/tests/fakes_parity/differences.toml",
        ])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    // The builds of module and provider, too; one entry did not occur.
    assert!(
        printed
            .trim_end()
            .ends_with("8 passed, 5 failed, 1 skipped"),
        "{printed}"
    );
    assert_eq!(output.status.code(), Some(1));

    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let table = fs::read_to_string(top.join("build/check/fakes-parity.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<Vec<String>> = table.lines().map(cells).collect();
    for row in [
        &["all", "11", "3", "2", "1", "4", "1"][..],
        &[
            "answers",
            "it crashes",
            "skip: C oopses",
            "pass",
            "Ours does not crash.",
        ],
        &[
            "answers",
            "its name",
            "`nd_pmem`",
            "`rust_pmem`",
            "Each has its own name.",
        ],
        &["answers", "it can't be tried", "there is none"],
        &["its number", "`1`"],
        &[
            "missing",
            "the test as a whole",
            "skip: there is no program",
            "fail: skipped, where all tests can run: there is no program",
            "it fails",
        ],
        &["only nd_pmem has this", "pass", "not there", "worse"],
        &["only rust_pmem has this", "not there", "pass", "worse"],
        &[
            "splats",
            "the test as a whole",
            "pass",
            "fail: the kernel reported: WARNING: possible circular locking dependency detected",
            "it fails",
        ],
    ] {
        assert!(rows.iter().any(|cells| cells == row), "{row:?}\n{table}");
    }
    assert!(
        table.contains("* answers: \"its number\" with 2 under nd_pmem and 1 under rust_pmem"),
        "{table}"
    );
}
