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
    /// The file system recovers and is clean, and its file "records" has the records.
    File(FileSystem),
    /// The file system recovers and is clean, and each promised record is a file, and whole.
    Folder(FileSystem),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
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
    FileSystem(FileSystem),
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

const fn file(
    file_system: FileSystem,
    name: &'static str,
    about: &'static str,
    how: &'static str,
) -> Workload {
    Workload {
        name,
        about,
        mode: Mode::FileSystem(file_system),
        how,
        check: Check::File(file_system),
        stores: 700,
    }
}

const fn folder(
    file_system: FileSystem,
    name: &'static str,
    about: &'static str,
    how: &'static str,
) -> Workload {
    Workload {
        check: Check::Folder(file_system),
        ..file(file_system, name, about, how)
    }
}

pub static WORKLOADS: [Workload; 20] = [
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
        FileSystem::Ext4,
        "ext4-fsync",
        "a file of ext4 with DAX: O_DIRECT writes and fsync",
        "fsync",
    ),
    file(
        FileSystem::Ext4,
        "ext4-write",
        "a file of ext4 with DAX: writes and fsync",
        "write",
    ),
    file(
        FileSystem::Ext4,
        "ext4-dsync",
        "a file of ext4 with DAX: writes with O_DSYNC",
        "dsync",
    ),
    file(
        FileSystem::Ext4,
        "ext4-msync",
        "a mapped file of ext4: stores and msync",
        "msync",
    ),
    file(
        FileSystem::Ext4,
        "ext4-map-sync",
        "a file of ext4 mapped with MAP_SYNC: stores and cache write-back",
        "map-sync",
    ),
    folder(
        FileSystem::Ext4,
        "ext4-create",
        "new files of ext4, synced with their folder",
        "create",
    ),
    folder(
        FileSystem::Ext4,
        "ext4-rename",
        "files of ext4 that are replaced by rename",
        "rename",
    ),
    file(
        FileSystem::Xfs,
        "xfs-fsync",
        "a file of XFS with DAX: O_DIRECT writes and fsync",
        "fsync",
    ),
    file(
        FileSystem::Xfs,
        "xfs-write",
        "a file of XFS with DAX: writes and fsync",
        "write",
    ),
    file(
        FileSystem::Xfs,
        "xfs-dsync",
        "a file of XFS with DAX: writes with O_DSYNC",
        "dsync",
    ),
    file(
        FileSystem::Xfs,
        "xfs-msync",
        "a mapped file of XFS: stores and msync",
        "msync",
    ),
    file(
        FileSystem::Xfs,
        "xfs-map-sync",
        "a file of XFS mapped with MAP_SYNC: stores and cache write-back",
        "map-sync",
    ),
    folder(
        FileSystem::Xfs,
        "xfs-create",
        "new files of XFS, synced with their folder",
        "create",
    ),
    folder(
        FileSystem::Xfs,
        "xfs-rename",
        "files of XFS that are replaced by rename",
        "rename",
    ),
];

impl Workload {
    /// Returns the options of the guest.
    pub fn machine(&self, arguments: &Arguments, log: &Path) -> String {
        // A file system assumes that a disk does not tear sectors.
        let sectors = match self.mode {
            Mode::FileSystem(_) => ",sectors",
            Mode::Raw | Mode::Sector => "",
        };
        // XFS needs 300 MiB.
        let size = match self.mode {
            Mode::FileSystem(FileSystem::Xfs) => "352M",
            _ => "48M",
        };
        let eadr = if arguments.eadr { ",eadr" } else { "" };
        format!(
            "--bare --nvdimm size={size} --powerfail range={size}@4G,log={},seed={},fences=1,stores={}{sectors}{eadr}",
            log.display(),
            arguments.seed,
            self.stores
        )
    }

    /// Returns the number of records that are checked.
    pub fn records(&self) -> u16 {
        match self.check {
            Check::Folder(_) if self.how == "create" => 2000,
            Check::Folder(_) => 16,
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
            Mode::FileSystem(file_system) => {
                let mkfs = match file_system {
                    FileSystem::Ext4 => {
                        "mkfs.ext4 -q -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0 /dev/$disk"
                    }
                    FileSystem::Xfs => "make_fs xfs $disk",
                };
                &format!(
                    "disk=$(make_fsdax \"$(nfit_ns)\"); {mkfs}; mkdir -p /mnt; mount -o dax /dev/$disk /mnt; path=/mnt; \
                     case $how in create|rename) ;; *) path=/mnt/records; dd if=/dev/zero of=$path bs=4k count=32 conv=fsync status=none ;; esac"
                )
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
