// SPDX-License-Identifier: GPL-2.0

//! The workloads: what a guest does until its power fails.

use crate::Arguments;
use std::path::Path;
use vm::Driver;

/// How an image is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The records are on the disk, one after the other.
    Raw,
    /// The records are the blocks of a BTT, and none is torn.
    Btt,
    /// ext4 recovers and is clean, and its file "records" has the records.
    Ext4File,
    /// ext4 recovers and is clean, and each promised record is a file, and whole.
    Ext4Folder,
}

/// A workload.
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    /// Makes the disk, and sets `disk`; for file systems, mounts it at /mnt.
    mode: Mode,
    /// The argument of `pmem-io promise --how`.
    how: &'static str,
    pub check: Check,
    /// Mean number of stores between images at a store.
    stores: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Raw,
    Sector,
    Ext4,
}

const fn raw(name: &'static str, about: &'static str, how: &'static str) -> Workload {
    Workload {
        name,
        about,
        mode: Mode::Raw,
        how,
        check: Check::Raw,
        stores: 500,
    }
}

const fn file(name: &'static str, about: &'static str, how: &'static str) -> Workload {
    Workload {
        name,
        about,
        mode: Mode::Ext4,
        how,
        check: Check::Ext4File,
        stores: 700,
    }
}

pub static WORKLOADS: [Workload; 13] = [
    raw(
        "raw-fsync",
        "block writes (O_DIRECT), made durable by fsync",
        "fsync",
    ),
    raw("raw-dsync", "block writes (O_DIRECT) with O_DSYNC", "dsync"),
    raw(
        "raw-sync",
        "block writes through the page cache with O_SYNC",
        "sync",
    ),
    raw(
        "raw-msync",
        "a mapping of the block device, made durable by msync",
        "msync",
    ),
    Workload {
        name: "sector-fsync",
        about: "sector mode: atomic block writes, made durable by fsync",
        mode: Mode::Sector,
        how: "fsync",
        check: Check::Btt,
        stores: 500,
    },
    Workload {
        name: "sector-dsync",
        about: "sector mode: atomic block writes with O_DSYNC",
        mode: Mode::Sector,
        how: "dsync",
        check: Check::Btt,
        stores: 500,
    },
    file(
        "ext4-fsync",
        "a file of ext4 with DAX: O_DIRECT writes and fsync",
        "fsync",
    ),
    file(
        "ext4-write",
        "a file of ext4 with DAX: writes and fsync",
        "write",
    ),
    file(
        "ext4-dsync",
        "a file of ext4 with DAX: writes with O_DSYNC",
        "dsync",
    ),
    file(
        "ext4-msync",
        "a mapped file of ext4: stores and msync",
        "msync",
    ),
    file(
        "ext4-map-sync",
        "a file of ext4 mapped with MAP_SYNC: stores and cache write-back",
        "map-sync",
    ),
    Workload {
        name: "ext4-create",
        about: "new files of ext4, synced with their folder",
        mode: Mode::Ext4,
        how: "create",
        check: Check::Ext4Folder,
        stores: 700,
    },
    Workload {
        name: "ext4-rename",
        about: "files of ext4 that are replaced by rename",
        mode: Mode::Ext4,
        how: "rename",
        check: Check::Ext4Folder,
        stores: 700,
    },
];

impl Workload {
    /// Returns the options of the guest.
    pub fn machine(&self, arguments: &Arguments, log: &Path) -> String {
        // A file system assumes that a disk does not tear sectors.
        let sectors = if self.mode == Mode::Ext4 {
            ",sectors"
        } else {
            ""
        };
        let eadr = if arguments.eadr { ",eadr" } else { "" };
        format!(
            "--bare --nvdimm size=48M --powerfail range=48M@4G,log={},seed={},fences=1,stores={}{sectors}{eadr}",
            log.display(),
            arguments.seed,
            self.stores
        )
    }

    /// Returns the number of records that are checked.
    pub fn records(&self) -> u16 {
        match self.check {
            Check::Ext4Folder if self.how == "create" => 2000,
            Check::Ext4Folder => 16,
            _ => 32,
        }
    }

    /// Returns the shell script that the guest runs. It prints the offset of the disk's data in the memory.
    pub fn script(&self, arguments: &Arguments, images: u64) -> String {
        let driver = arguments.driver.name();
        let module = match arguments.driver {
            Driver::Rust => format!("MODULE=/rust_pmem/{}; ", arguments.module.display()),
            Driver::C => String::new(),
        };
        let make = match self.mode {
            Mode::Raw => {
                "disk=$(disk_of \"$(nfit_ns)\"); path=/dev/$disk; dd if=/dev/zero of=$path bs=128k count=1 oflag=direct status=none"
            }
            Mode::Sector => {
                "disk=$(ndctl create-namespace -f -e \"$(nfit_ns)\" -m sector -l 4K | jq -r .blockdev); settle; path=/dev/$disk"
            }
            Mode::Ext4 => {
                "disk=$(make_fsdax \"$(nfit_ns)\"); \
                 mkfs.ext4 -q -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0 /dev/$disk; \
                 mkdir -p /mnt; mount -o dax /dev/$disk /mnt; path=/mnt; \
                 case $how in create|rename) ;; *) path=/mnt/records; dd if=/dev/zero of=$path bs=4k count=32 conv=fsync status=none ;; esac"
            }
        };
        format!(
            "TESTS=/rust_pmem/tests; DRIVER={driver}; {module}how={how}; . /rust_pmem/tests/lib/test.sh; load_driver; {make}; sync; \
             resource=$(cat /sys/block/$disk/device/resource 2>/dev/null || cat $ND/$(nfit_ns)/resource); \
             echo offset $((resource - 0x100000000)); pmem-io mark watch; \
             pmem-io promise $path --how {how} --records {records} --images {images} --seed {seed}",
            how = self.how,
            records = self.records(),
            seed = arguments.seed,
        )
    }
}
