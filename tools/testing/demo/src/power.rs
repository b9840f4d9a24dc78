// SPDX-License-Identifier: GPL-2.0

//! Files that survive a power cut.

use crate::narrate::Story;
use crate::{errors, load, log_file};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use vm::{Driver, Options};

/// Stored before the power cut and read after it.
const TEXT: &str = "Written by a store instruction, read after the power failed.";
/// The file systems on the NVDIMM, with the commands that make, mount, recover and check them.
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

pub fn run(story: &mut Story, driver: Driver) -> Result<()> {
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    let memory = folder.path().join("memory.img");
    let log = log_file()?;
    let words = format!(
        "--nvdimm size=768M,labels,file={} --e820 64M@512M",
        memory.display()
    );
    let options = Options::from_words(&words)?;

    story.title("From a blank NVDIMM to files that survive a power cut");
    story.chapter(
        "A guest",
        "An emulated PC with an NVDIMM of 768 MiB, which is a file on this host, and 64 MiB of RAM that the firmware marks \
         as persistent (e820 type 12).",
    );
    story.boot(&options, folder.path(), log.path())?;
    the_kernel(story)?;
    the_driver(story, driver)?;
    namespaces(story)?;
    file_systems(story)?;
    store(story)?;
    legacy_memory(story)?;
    power_cut(story, &memory)?;

    story.chapter("The power comes back", "A new guest, the same memory file.");
    story.boot(&options, folder.path(), log.path())?;
    load(story, driver)?;
    recovered(story)?;
    errors::run(story, driver, "/mnt/ext4/data", FILE_SYSTEMS[0].seed)?;
    unload(story, driver)
}

fn the_kernel(story: &mut Story) -> Result<()> {
    story.chapter(
        "A stock kernel",
        "Debian's, not patched, not rebuilt. Its own driver for persistent memory is not loaded.",
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
        "The stock kernel finds the memory and registers it on the nd bus; the driver makes disks of it.",
    );
    load(story, driver)?;
    let disks = story.guest("lsblk -o NAME,SIZE,DAX /dev/pmem*")?;
    let count = disks
        .lines()
        .filter(|line| line.starts_with("pmem"))
        .count();
    ensure!(count == 2, "{count} disks, not 2");
    story.seen(
        "module loaded, a disk for each region",
        "pmem0 (NVDIMM), pmem1 (e820)",
    );
    Ok(())
}

fn namespaces(story: &mut Story) -> Result<()> {
    story.chapter(
        "Namespaces",
        "ndctl, as for nd_pmem: labels divide the NVDIMM in two. In fsdax mode each page has a struct page, so that files can \
         be mapped; the struct pages are in RAM (-M mem) or on the device itself (-M dev).",
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
        "fsdax namespaces, struct pages in RAM and on the device",
        "pmem0, pmem0.1",
    );
    Ok(())
}

fn file_systems(story: &mut Story) -> Result<()> {
    story.chapter(
        "File systems without a page cache",
        "DAX is an option of mount, not of mkfs; it needs file system blocks of the size of a page.",
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
        "Two files on each are mapped with MAP_SYNC and stored to: no write(2), no fsync(2). User space writes the processor's \
         caches back with clwb and a fence, and the data is durable.",
    );
    for system in &FILE_SYSTEMS {
        let folder = format!("/mnt/{}", system.name);
        story.guest(&format!(
            "cd {folder} && fallocate -l 4K letter && pmem-io map-write letter --sync --durable flush --text '{TEXT}'"
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
        "The same, except for the power cut: this memory is the guest's own RAM, which is lost with the guest. On a real \
         machine it would be a DIMM with a battery.",
    );
    story.guest("mkfs.ext4 -q -b 4096 /dev/pmem1 && mount -o dax /dev/pmem1 /mnt/e820")?;
    story.guest("cd /mnt/e820 && fallocate -l 8M data && pmem-io map-write data --sync --durable flush --seed 8")?;
    story.guest("umount /mnt/e820 && mount -o dax /dev/pmem1 /mnt/e820")?;
    story.guest("pmem-io map-verify /mnt/e820/data --seed 8 && echo every byte is as written")?;
    story.seen(
        "e820: stored, unmounted, mounted, read",
        "8 MiB, every byte",
    );
    Ok(())
}

fn power_cut(story: &mut Story, memory: &Path) -> Result<()> {
    story.chapter(
        "The power fails",
        "QEMU is killed (SIGKILL) while both file systems are mounted. The guest's RAM is lost.",
    );
    story.cut_power()?;
    let bytes = fs::read(memory).context("the memory file")?;
    let place = bytes
        .windows(TEXT.len())
        .position(|piece| piece == TEXT.as_bytes());
    let place = place.context("the text is not in the memory file")?;
    story.host(&format!(
        "in the NVDIMM's memory file, at byte {place}: \"{TEXT}\""
    ));
    story.remark(
        "This proves that the bytes were in the memory itself, not in a buffer of the kernel.",
    );
    story.remark(
        "It does not prove that they had left the processor's caches: an emulator has none. `make powerfail` follows each \
         store, cache flush and fence, and proves that.",
    );
    story.seen(
        "power cut",
        "SIGKILL to QEMU; the text is in the memory file",
    );
    Ok(())
}

fn recovered(story: &mut Story) -> Result<()> {
    story.quietly("mkdir -p /mnt/ext4 /mnt/XFS")?;
    for system in &FILE_SYSTEMS {
        for command in system.recover {
            story.guest(command)?;
        }
        story.guest(system.check)?;
        story.guest(system.mount)?;
        let letter = story.guest(&format!("head -n 1 /mnt/{}/letter", system.name))?;
        ensure!(letter.trim_end() == TEXT, "the text differs");
        story.guest(&format!(
            "pmem-io map-verify /mnt/{}/data --seed {} && echo every byte is as written",
            system.name, system.seed
        ))?;
        story.seen(
            &format!("{} after the power cut", system.name),
            "log replayed, fsck clean, text and 8 MiB are there",
        );
    }
    Ok(())
}

fn unload(story: &mut Story, driver: Driver) -> Result<()> {
    story.chapter(
        "Unloading",
        "The driver is removed; the kernel has logged no warning.",
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
