// SPDX-License-Identifier: GPL-2.0

//! A machine check in a file: one page is lost, pmemctl finds the file, and a write of the page repairs it.

use crate::narrate::Story;
use anyhow::{Context, Result, bail, ensure};
use std::thread;
use std::time::{Duration, Instant};
use units::PAGE;
use vm::Driver;

/// A page in the middle of the file.
const BAD_PAGE: u64 = 5;
const BAD_OFFSET: u64 = BAD_PAGE * PAGE;

/// Injects a machine check into `file` on /dev/pmem0, which holds the pattern of `seed` in 8 MiB.
pub fn run(story: &mut Story, driver: Driver, file: &str, seed: u64) -> Result<()> {
    story.chapter(
        "A media error",
        "One page of the file gets an uncorrectable error: a machine check, injected by QEMU's monitor. The file must lose \
         that page and no other.",
    );
    let address = story.guest(&format!("pmem-io phys {file} --offset {BAD_OFFSET}"))?;
    let digits = address.trim().trim_start_matches("0x");
    let address =
        u64::from_str_radix(digits, 16).with_context(|| format!("\"{address}\" is no address"))?;
    story.machine_check(address, 12)?;

    let listed = wait_for_badblocks(story)?;
    ensure!(
        listed.len() == 1 && listed[0].ends_with(" 8"),
        "badblocks does not list 8 sectors alone: {listed:?}"
    );
    story.guest("cat /sys/block/pmem0/badblocks")?;
    story.seen(
        "machine check: listed in badblocks",
        &format!("sector and count: {}", listed[0]),
    );

    let (status, text) = story.guest_status("pmemctl errors /dev/pmem0")?;
    ensure!(
        status == 1 && text.contains(file),
        "pmemctl errors does not find the file"
    );
    story.seen("pmemctl errors: the file and the offset", file);

    let (status, touched) = story.guest_status(&format!("pmem-io map {file} --read-only load"))?;
    let refused: Vec<&str> = touched
        .lines()
        .filter(|line| line.starts_with("page "))
        .collect();
    ensure!(
        status == 3
            && refused.len() == 1
            && refused[0].starts_with(&format!("page {BAD_PAGE} code 4 ")),
        "SIGBUS is not raised for page {BAD_PAGE} alone"
    );
    story.seen(
        "mapping: SIGBUS on that page alone",
        &format!("page {BAD_PAGE} of {}", (8 << 20) / PAGE),
    );

    let (status, output) = story.guest_status(&format!(
        "pmem-io pread {file} --offset {BAD_OFFSET} --length 4096"
    ))?;
    ensure!(
        status == 1 && output.contains("os error 5"),
        "reading the page is not EIO"
    );
    let after = BAD_OFFSET + PAGE;
    story.guest(&format!(
        "pmem-io verify {file} --seed {seed} --length {BAD_OFFSET} && \
         pmem-io verify {file} --seed {seed} --offset {after} && echo all other pages are readable"
    ))?;
    story.seen(
        "read(2): EIO on that page alone",
        "2047 of 2048 pages, every byte",
    );
    match driver {
        Driver::Rust => repair(story, file, seed),
        // Its write does not clear poison on an NVDIMM without a clear-error command.
        Driver::C => Ok(()),
    }
}

/// Takes the page from a copy of the file.
fn repair(story: &mut Story, file: &str, seed: u64) -> Result<()> {
    story.quietly(&format!(
        "fallocate -l 8M /run/copy && pmem-io fill /run/copy --seed {seed}"
    ))?;
    story.guest(&format!("pmemctl repair --from /run/copy {file}"))?;
    let listed = story.guest("cat /sys/block/pmem0/badblocks")?;
    ensure!(listed.trim().is_empty(), "the page is still listed");
    story.guest(&format!(
        "pmem-io map {file} --read-only --seed {seed} verify"
    ))?;
    story.seen(
        "pmemctl repair: the page is written, read back, and off the list",
        "2048 of 2048 pages, every byte",
    );
    Ok(())
}

/// Returns the lines of badblocks, once there are any.
fn wait_for_badblocks(story: &mut Story) -> Result<Vec<String>> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let listed = story.quietly("cat /sys/block/pmem0/badblocks")?;
        if !listed.trim().is_empty() {
            return Ok(listed.lines().map(str::to_owned).collect());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("badblocks stays empty")
}
