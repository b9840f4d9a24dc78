// SPDX-License-Identifier: GPL-2.0

//! A fake sysfs, and a watch of opens, for unit tests.

use crate::sysfs::{self, Host};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::fs::{Mode, OFlags, open};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

const BUS: &str = "sys/devices/ndbus0";

pub const ID: &str = "0123456789abcdef0123456789abcdef";

/// A machine with a region of 64 MiB from 512 MiB on, in which a namespace begins after 2 MiB,
/// and its data 1 MiB later.
pub struct FakeSysfs {
    pub folder: TempDir,
    pub host: Host,
}

impl FakeSysfs {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Self {
            host: Host::at(folder.path()),
            folder,
        };
        for (file, text) in [
            ("etc/machine-id", ID),
            ("proc/sys/kernel/random/boot_id", "boot-1"),
            (
                "proc/sys/kernel/random/uuid",
                "3b241101-e2bb-4255-8caf-4136c566a962",
            ),
            ("sys/devices/ndbus0/provider", "e820"),
            ("sys/devices/ndbus0/commands", ""),
            ("sys/devices/ndbus0/region0/resource", "0x20000000"),
            ("sys/devices/ndbus0/region0/size", "67108864"),
            ("sys/devices/ndbus0/region0/badblocks", ""),
            (
                "sys/devices/ndbus0/region0/namespace0.0/resource",
                "0x20200000",
            ),
            ("sys/devices/ndbus0/region0/namespace0.0/size", "33554432"),
            ("sys/devices/ndbus0/region0/namespace0.0/holder", "pfn0.0"),
            ("sys/devices/ndbus0/region0/pfn0.0/resource", "0x20300000"),
            (
                "sys/devices/ndbus0/region0/pfn0.0/namespace",
                "namespace0.0",
            ),
            ("sys/devices/ndbus0/region0/pfn0.0/block/pmem0/dev", "259:0"),
            ("sys/block/pmem0/dev", "259:0"),
            ("sys/block/pmem0/size", "63488"),
            ("sys/block/pmem0/diskseq", "12"),
            ("sys/block/pmem0/badblocks", ""),
        ] {
            machine.write(file, text);
        }
        let devices = machine.host.path("sys/bus/nd/devices");
        fs::create_dir_all(&devices).unwrap();
        let region = format!("../../../../{BUS}/region0");
        symlink(&region, devices.join("region0")).unwrap();
        for name in ["namespace0.0", "pfn0.0"] {
            symlink(format!("{region}/{name}"), devices.join(name)).unwrap();
        }
        let driver = format!("{BUS}/region0/pfn0.0/driver");
        symlink("/sys/bus/nd/drivers/nd_pmem", machine.host.path(driver)).unwrap();
        machine
    }

    /// The same with the folder of the disk below that of its device, as in sysfs.
    pub fn with_nested_disk() -> Self {
        let machine = Self::new();
        let block = machine.host.path("sys/block/pmem0");
        let below = format!("{BUS}/region0/pfn0.0/block/pmem0");
        for file in ["size", "diskseq", "badblocks"] {
            let text = sysfs::line(block.join(file)).unwrap();
            machine.write(&format!("{below}/{file}"), &text);
        }
        fs::remove_dir_all(&block).unwrap();
        symlink(machine.host.path(below), block).unwrap();
        machine
    }

    /// A file of it; its last line is ended.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.host.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let end = if text.is_empty() { "" } else { "\n" };
        fs::write(path, format!("{text}{end}")).unwrap();
    }

    /// The disk's list, in sectors of its data.
    pub fn lists(&self, text: &str) {
        self.write("sys/block/pmem0/badblocks", text);
    }
}

/// Notices that a file or directory is opened.
pub struct Opens(OwnedFd);

impl Opens {
    /// `None` if the kernel reports those with `O_PATH` as well (before Linux 6.10).
    pub fn of(path: &Path) -> Option<Self> {
        let watch = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        add_watch(&watch, path, WatchFlags::OPEN).unwrap();
        let opens = Self(watch);
        open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (!opens.any()).then_some(opens)
    }

    /// Returns whether it was opened since the last call.
    pub fn any(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 4096]).is_ok()
    }
}
