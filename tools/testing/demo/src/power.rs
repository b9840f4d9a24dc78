// SPDX-License-Identifier: GPL-2.0

//! A file that survives a power cut.

use crate::story::Story;
use crate::{Driver, load, log_file};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use vm::Options;

/// What is stored and found again.
const LETTER: &str = "Written by a store instruction, read after the power failed.";
/// A page of the file in the middle of others, and its place.
const BAD_PAGE: u64 = 5;
const BAD_OFFSET: u64 = BAD_PAGE * units::PAGE;
/// The file systems that are put on the NVDIMM: name, disk, how it is made, mounted, and checked
/// after the power cut.
const FILE_SYSTEMS: [FileSystem; 2] = [
    FileSystem {
        name: "ext4",
        disk: "/dev/pmem0",
        make: "mkfs.ext4 -q -b 4096 /dev/pmem0",
        mount: "mount -o dax /dev/pmem0 /mnt/ext4",
        recover: &["e2fsck -p /dev/pmem0 || [ $? = 1 ]"],
        check: "e2fsck -fn /dev/pmem0",
        seed: 4,
    },
    FileSystem {
        name: "XFS",
        disk: "/dev/pmem0.1",
        make: "mkfs.xfs -q /dev/pmem0.1",
        mount: "mount -o dax=always /dev/pmem0.1 /mnt/XFS",
        recover: &["mount /dev/pmem0.1 /mnt/XFS", "umount /mnt/XFS"],
        check: "xfs_repair -n /dev/pmem0.1",
        seed: 10,
    },
];

struct FileSystem {
    name: &'static str,
    disk: &'static str,
    make: &'static str,
    mount: &'static str,
    recover: &'static [&'static str],
    check: &'static str,
    seed: u64,
}

/// Tells it.
pub fn tell(story: &mut Story, driver: Driver) -> Result<()> {
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    let memory = folder.path().join("memory.img");
    let log = log_file()?;
    let words = format!(
        "--nvdimm size=768M,labels,file={} --e820 64M@512M",
        memory.display()
    );
    let options = Options::from_words(&words)?;

    story.title("From a blank NVDIMM to a file that survives a power cut");
    story.chapter(
        "A machine",
        "An emulated PC with an NVDIMM of 768 MiB, whose memory is a file of this host, and 64 MiB of its RAM that its \
         firmware calls persistent (e820 type 12).",
    );
    story.boot(&options, folder.path(), log.path())?;
    the_kernel(story)?;
    the_driver(story, driver)?;
    namespaces(story)?;
    file_systems(story)?;
    store(story)?;
    legacy_memory(story)?;
    power_cut(story, &memory)?;

    story.chapter(
        "The power comes back",
        "A new machine, the same memory file.",
    );
    story.boot(&options, folder.path(), log.path())?;
    load(story, driver)?;
    afterwards(story)?;
    bad_memory(story)?;
    goodbye(story, driver)
}

fn the_kernel(story: &mut Story) -> Result<()> {
    story.chapter(
        "A stock kernel",
        "As Debian ships it: not patched, not rebuilt. Its own driver for such memory stays out.",
    );
    let version = story.guest("uname -rv")?;
    let modules = story.guest("cut -d' ' -f1 /proc/modules | sort | tr '\\n' ' '")?;
    ensure!(
        !modules.contains("pmem"),
        "a driver for persistent memory is loaded already"
    );
    let release = version
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned();
    story.seen("stock kernel, no nd_pmem in it", &release);
    Ok(())
}

fn the_driver(story: &mut Story, driver: Driver) -> Result<()> {
    story.chapter(
        "The driver",
        "The stock kernel finds the memory and puts it on its nd bus; the driver makes disks of it.",
    );
    load(story, driver)?;
    let disks = story.guest("lsblk -o NAME,SIZE,DAX /dev/pmem*")?;
    let count = disks
        .lines()
        .filter(|line| line.starts_with("pmem"))
        .count();
    ensure!(count == 2, "{count} disks, not 2");
    story.seen(
        "module loaded, a disk for each memory",
        "pmem0 (NVDIMM), pmem1 (e820)",
    );
    Ok(())
}

fn namespaces(story: &mut Story) -> Result<()> {
    story.chapter(
        "Namespaces",
        "ndctl, as for nd_pmem: labels divide the NVDIMM in two. fsdax = each page has a record in the kernel, so that files \
         can be mapped; those records are in RAM (-M mem) or on the device itself (-M dev).",
    );
    let region = story.quietly(
        "for r in /sys/bus/nd/devices/region*; do [ -e $r/mapping0 ] && basename $r && break; done",
    )?;
    let region = region.trim();
    story.guest("ndctl disable-region all; ndctl init-labels -f nmem0; ndctl enable-region all")?;
    for (map, disk) in [("mem", "pmem0"), ("dev", "pmem0.1")] {
        let said = story.guest(&format!(
            "ndctl create-namespace -r {region} -m fsdax -M {map} -s 352M | jq -c '{{mode, map, size, blockdev}}'"
        ))?;
        ensure!(
            said.contains(&format!("\"blockdev\":\"{disk}\"")),
            "the disk is not {disk}"
        );
    }
    story.seen(
        "fsdax namespaces, page map in RAM and on the device",
        "pmem0, pmem0.1",
    );
    Ok(())
}

fn file_systems(story: &mut Story) -> Result<()> {
    story.chapter(
        "File systems without a page cache",
        "mkfs.ext4 has no dax option: blocks as large as pages are what it takes. The option is mount's.",
    );
    story.quietly("mkdir -p /mnt/ext4 /mnt/XFS /mnt/e820")?;
    for system in &FILE_SYSTEMS {
        story.guest(system.make)?;
        story.guest(system.mount)?;
        let mounted = story.guest(&format!(
            "findmnt -no FSTYPE,SOURCE,OPTIONS {}",
            system.disk
        ))?;
        ensure!(
            mounted.contains("dax=always"),
            "{} is not mounted with DAX",
            system.name
        );
        story.seen(&format!("{} mounted with DAX", system.name), system.disk);
    }
    Ok(())
}

fn store(story: &mut Story) -> Result<()> {
    story.chapter(
        "Stores, not writes",
        "Two files on each are mapped with MAP_SYNC and stored to: no write(2), no fsync(2). The processor writes its caches \
         back with clwb and a fence, from user space; then nothing is left to do.",
    );
    for system in &FILE_SYSTEMS {
        let folder = format!("/mnt/{}", system.name);
        story.guest(&format!(
            "cd {folder} && fallocate -l 4K letter && pmem-io map-write letter --sync --durable flush --text '{LETTER}'"
        ))?;
        let said = story.guest(&format!(
            "cd {folder} && fallocate -l 8M data && pmem-io map-write data --sync --durable flush --seed {}",
            system.seed
        ))?;
        story.seen(
            &format!("{}: MAP_SYNC mapping, flushed from user space", system.name),
            said.trim(),
        );
    }
    Ok(())
}

fn legacy_memory(story: &mut Story) -> Result<()> {
    story.chapter(
        "The e820 memory",
        "The same, without the power cut that follows: this memory is the emulated machine's own RAM, which ends with it. On a \
         real machine it would be a DIMM with a battery.",
    );
    story.guest("mkfs.ext4 -q -b 4096 /dev/pmem1 && mount -o dax /dev/pmem1 /mnt/e820")?;
    story.guest("cd /mnt/e820 && fallocate -l 8M data && pmem-io map-write data --sync --durable flush --seed 8")?;
    story.guest("umount /mnt/e820 && mount -o dax /dev/pmem1 /mnt/e820")?;
    story.guest("pmem-io map-verify /mnt/e820/data --seed 8 && echo every byte is there")?;
    story.seen(
        "e820: stored, unmounted, mounted, read",
        "8 MiB, every byte",
    );
    Ok(())
}

fn power_cut(story: &mut Story, memory: &Path) -> Result<()> {
    story.chapter(
        "The power fails",
        "QEMU is killed (SIGKILL) with both file systems mounted. What the guest's kernel had in its buffers is gone with it.",
    );
    story.cut_power()?;
    let bytes = fs::read(memory).context("the memory file")?;
    let place = bytes
        .windows(LETTER.len())
        .position(|piece| piece == LETTER.as_bytes());
    let place = place.context("the letter is not in the memory file")?;
    story.host(&format!(
        "in the NVDIMM's memory file, at byte {place}: \"{LETTER}\""
    ));
    story.remark(
        "What this proves: the bytes were in the memory itself; none sat in a kernel's buffer or waited for a write-back.",
    );
    story.remark(
        "What it does not: that they had left the processor's caches. An emulator has none; a store is in the file at once, \
         flushed or not. That takes a tool that follows each store and flush; this is not it.",
    );
    story.seen(
        "power cut",
        "SIGKILL to QEMU; the letter is in the memory file",
    );
    Ok(())
}

fn afterwards(story: &mut Story) -> Result<()> {
    story.quietly("mkdir -p /mnt/ext4 /mnt/XFS")?;
    for system in &FILE_SYSTEMS {
        for command in system.recover {
            story.guest(command)?;
        }
        story.guest(system.check)?;
        story.guest(system.mount)?;
        let letter = story.guest(&format!("head -n 1 /mnt/{}/letter", system.name))?;
        ensure!(letter.trim_end() == LETTER, "the letter is another");
        story.guest(&format!(
            "pmem-io map-verify /mnt/{}/data --seed {} && echo every byte is there",
            system.name, system.seed
        ))?;
        story.seen(
            &format!("{} after the power cut", system.name),
            "log replayed, fsck clean, letter and 8 MiB are there",
        );
    }
    Ok(())
}

fn bad_memory(story: &mut Story) -> Result<()> {
    story.chapter(
        "Memory goes bad",
        "One page of the file's memory gets an error that nothing corrects: a real machine check, injected by QEMU's monitor. \
         The page must be lost, and nothing but the page.",
    );
    let file = "/mnt/ext4/data";
    let seed = FILE_SYSTEMS[0].seed;
    let address = story.guest(&format!("pmem-io phys {file} --offset {BAD_OFFSET}"))?;
    let digits = address.trim().trim_start_matches("0x");
    let address =
        u64::from_str_radix(digits, 16).with_context(|| format!("\"{address}\" is no address"))?;
    story.machine_check(address, 12)?;

    let listed = wait_for_badblocks(story)?;
    ensure!(
        listed.len() == 1 && listed[0].ends_with(" 8"),
        "badblocks does not hold 8 sectors alone: {listed:?}"
    );
    story.guest("cat /sys/block/pmem0/badblocks")?;
    story.seen(
        "machine check: listed in badblocks",
        &format!("sector and count: {}", listed[0]),
    );

    let (status, touched) = story.guest_status(&format!("pmem-io map-read {file}"))?;
    let lines: Vec<&str> = touched.lines().collect();
    ensure!(
        status == 3
            && lines.len() == 1
            && lines[0].starts_with(&format!("page {BAD_PAGE} code 4 ")),
        "not page {BAD_PAGE} alone is refused"
    );
    story.seen(
        "mapping: that page alone is a SIGBUS",
        &format!("page {BAD_PAGE} of {}", (8 << 20) / units::PAGE),
    );

    let (status, said) = story.guest_status(&format!(
        "pmem-io pread {file} --offset {BAD_OFFSET} --length 4096"
    ))?;
    ensure!(
        status == 1 && said.contains("os error 5"),
        "reading the page is not EIO"
    );
    let after = BAD_OFFSET + units::PAGE;
    story.guest(&format!(
        "pmem-io verify {file} --seed {seed} --length {BAD_OFFSET} && \
         pmem-io verify {file} --seed {seed} --offset {after} && echo all others are there"
    ))?;
    story.seen(
        "read(2): that page is EIO, all others read",
        "2047 of 2048 pages, every byte",
    );
    Ok(())
}

/// The lines of badblocks, once there are any.
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

fn goodbye(story: &mut Story, driver: Driver) -> Result<()> {
    story.chapter(
        "Goodbye",
        "The driver leaves as it came; the kernel has had nothing to complain of.",
    );
    let name = driver.name();
    story.guest(&format!("umount /mnt/ext4 /mnt/XFS && rmmod {name}"))?;
    let left = story.guest("ls /dev/pmem* 2>/dev/null || echo none of its disks is left")?;
    ensure!(!left.contains("/dev/pmem"), "a disk is left");
    story.healthy()?;
    story.seen(
        "module removed, its disks with it",
        "no warning in the kernel's log",
    );
    Ok(())
}
