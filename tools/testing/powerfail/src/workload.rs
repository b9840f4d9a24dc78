// SPDX-License-Identifier: GPL-2.0

//! The workloads of a guest until its power fails.

use crate::Arguments;
use std::path::Path;
use vm::Driver;

/// The place of the records, and the check of an image of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The records are on the disk, one after the other.
    Raw,
    /// The same, and the memory of each record fails before it is written. A record may be lost where the platform's log of
    /// errors, which is at [`POISON_LOG`], has it.
    Repair,
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

/// Where the memory of [`Check::Repair`] has a byte for each sector, which is 1 if the sector has poison.
pub const POISON_LOG: usize = 16 << 20;

/// A workload.
pub struct Workload {
    pub check: Check,
    pub name: &'static str,
    pub about: &'static str,
    /// The argument of `pmem-io promise --how`.
    how: &'static str,
    /// Why images of nd_pmem may have lost something.
    pub lost_by_nd_pmem: Option<&'static str>,
}

const fn workload(
    check: Check,
    name: &'static str,
    about: &'static str,
    how: &'static str,
) -> Workload {
    Workload {
        check,
        name,
        about,
        how,
        lost_by_nd_pmem: None,
    }
}

pub static WORKLOADS: [Workload; 21] = [
    workload(
        Check::Raw,
        "raw-fsync",
        "block writes (O_DIRECT), made durable by fsync",
        "fsync",
    ),
    workload(
        Check::Raw,
        "raw-dsync",
        "block writes (O_DIRECT) with O_DSYNC",
        "dsync",
    ),
    workload(
        Check::Raw,
        "raw-sync",
        "block writes through the page cache with O_SYNC",
        "sync",
    ),
    workload(
        Check::Raw,
        "raw-msync",
        "a mapping of the block device, made durable by msync",
        "msync",
    ),
    Workload {
        lost_by_nd_pmem: Some("it clears poison before it has written the data"),
        ..workload(
            Check::Repair,
            "repair-fsync",
            "block writes (O_DIRECT) over bad blocks, made durable by fsync",
            "fsync",
        )
    },
    workload(
        Check::Btt,
        "sector-fsync",
        "sector mode: atomic block writes, made durable by fsync",
        "fsync",
    ),
    workload(
        Check::Btt,
        "sector-dsync",
        "sector mode: atomic block writes with O_DSYNC",
        "dsync",
    ),
    workload(
        Check::File(FileSystem::Ext4),
        "ext4-fsync",
        "a file of ext4 with DAX: O_DIRECT writes and fsync",
        "fsync",
    ),
    workload(
        Check::File(FileSystem::Ext4),
        "ext4-write",
        "a file of ext4 with DAX: writes and fsync",
        "write",
    ),
    workload(
        Check::File(FileSystem::Ext4),
        "ext4-dsync",
        "a file of ext4 with DAX: writes with O_DSYNC",
        "dsync",
    ),
    workload(
        Check::File(FileSystem::Ext4),
        "ext4-msync",
        "a mapped file of ext4: stores and msync",
        "msync",
    ),
    workload(
        Check::File(FileSystem::Ext4),
        "ext4-map-sync",
        "a file of ext4 mapped with MAP_SYNC: stores and cache write-back",
        "map-sync",
    ),
    workload(
        Check::Folder(FileSystem::Ext4),
        "ext4-create",
        "new files of ext4, synced with their folder",
        "create",
    ),
    workload(
        Check::Folder(FileSystem::Ext4),
        "ext4-rename",
        "files of ext4 that are replaced by rename",
        "rename",
    ),
    workload(
        Check::File(FileSystem::Xfs),
        "xfs-fsync",
        "a file of XFS with DAX: O_DIRECT writes and fsync",
        "fsync",
    ),
    workload(
        Check::File(FileSystem::Xfs),
        "xfs-write",
        "a file of XFS with DAX: writes and fsync",
        "write",
    ),
    workload(
        Check::File(FileSystem::Xfs),
        "xfs-dsync",
        "a file of XFS with DAX: writes with O_DSYNC",
        "dsync",
    ),
    workload(
        Check::File(FileSystem::Xfs),
        "xfs-msync",
        "a mapped file of XFS: stores and msync",
        "msync",
    ),
    workload(
        Check::File(FileSystem::Xfs),
        "xfs-map-sync",
        "a file of XFS mapped with MAP_SYNC: stores and cache write-back",
        "map-sync",
    ),
    workload(
        Check::Folder(FileSystem::Xfs),
        "xfs-create",
        "new files of XFS, synced with their folder",
        "create",
    ),
    workload(
        Check::Folder(FileSystem::Xfs),
        "xfs-rename",
        "files of XFS that are replaced by rename",
        "rename",
    ),
];

impl Workload {
    /// Returns the options of the guest.
    pub fn machine(&self, arguments: &Arguments, log: &Path) -> String {
        // The size; the mean number of stores between images at a store; a file system assumes that a disk does not tear
        // sectors.
        let (size, stores, sectors) = match self.check {
            Check::Raw | Check::Repair | Check::Btt => ("48M", 500, ""),
            Check::File(FileSystem::Ext4) | Check::Folder(FileSystem::Ext4) => {
                ("48M", 700, ",sectors")
            }
            // XFS needs 300 MiB.
            Check::File(FileSystem::Xfs) | Check::Folder(FileSystem::Xfs) => {
                ("352M", 700, ",sectors")
            }
        };
        let eadr = if arguments.eadr { ",eadr" } else { "" };
        let start = self.start() >> 20;
        let memory = match self.check {
            Check::Repair => format!("--append memmap={size}${start}M"),
            // The driver does without write-backs then.
            _ if arguments.eadr => format!("--nvdimm size={size} --persistence cpu"),
            _ => format!("--nvdimm size={size}"),
        };
        format!(
            "--bare {memory} --powerfail range={size}@{start}M,log={},seed={},fences=1,stores={stores}{sectors}{eadr}",
            log.display(),
            arguments.seed
        )
    }

    /// Returns the physical address of the memory.
    fn start(&self) -> u64 {
        match self.check {
            Check::Repair => 512 << 20,
            _ => 4 << 30,
        }
    }

    /// Returns the workload's share of the images: one of XFS takes ten times as long as others, because a guest recovers it.
    pub fn share(&self) -> u64 {
        match self.check {
            Check::File(FileSystem::Xfs) | Check::Folder(FileSystem::Xfs) => 1,
            _ => 10,
        }
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
        let make = match self.check {
            Check::Repair => &format!(
                ". $TESTS/lib/provider.sh; provide size=$((48 << 20)) dimm=0 poison_log={POISON_LOG}; disk=$DISK; path=/dev/$disk"
            ),
            Check::Raw => {
                "load_driver; disk=$(disk_of \"$(nfit_ns)\"); path=/dev/$disk; dd if=/dev/zero of=$path bs=128k count=1 oflag=direct status=none"
            }
            Check::Btt => {
                "load_driver; disk=$(ndctl create-namespace -f -e \"$(nfit_ns)\" -m sector -l 4K | jq -r .blockdev); settle; path=/dev/$disk"
            }
            Check::File(file_system) | Check::Folder(file_system) => {
                let mkfs = match file_system {
                    FileSystem::Ext4 => {
                        "mkfs.ext4 -q -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0 /dev/$disk"
                    }
                    FileSystem::Xfs => "make_fs xfs $disk",
                };
                let path = match self.check {
                    Check::Folder(_) => "path=/mnt",
                    _ => {
                        "path=/mnt/records; dd if=/dev/zero of=$path bs=4k count=32 conv=fsync status=none"
                    }
                };
                &format!(
                    "load_driver; disk=$(make_fsdax \"$(nfit_ns)\"); {mkfs}; MNT=/mnt; mount_dax $disk; {path}"
                )
            }
        };
        let poison = match self.check {
            Check::Repair => " --poison /sys/module/pmem_provider/parameters/bad",
            _ => "",
        };
        format!(
            "TESTS=/rust_pmem/tests; DRIVER={driver}; {module}. /rust_pmem/tests/lib/test.sh; {make}; sync; \
             resource=$(cat /sys/block/$disk/device/resource 2>/dev/null || cat $ND/$(nfit_ns)/resource); \
             echo offset $((resource - {start})); pmem-io mark watch; \
             pmem-io promise $path --how {how} --records {records} --images {images} --seed {seed}{poison}",
            start = self.start(),
            how = self.how,
            records = self.records(),
            seed = arguments.seed,
        )
    }
}
