// SPDX-License-Identifier: GPL-2.0

//! Finds the volumes, file systems and files that bad blocks belong to.

use crate::badblocks::kernel::bytes;
use crate::badblocks::set::BadBlocks;
use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::block::remap::{self, AffectedVolume, Span};
use crate::block::topology::{self, Mounts};
use crate::fs::mounted::FileSystem;
use crate::fs::offline;
use crate::fs::{Owned, Owner, Progress};
use crate::nd::Device;
use crate::sysfs::{Host, printable};
use abstractions::extents::{self, Fork};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A bad range and its owner.
#[derive(Debug, Clone, Serialize)]
pub struct AffectedRange {
    pub disk: String,
    /// The disk itself, or the partition or volume on it that has the range.
    pub volume: String,
    #[serde(flatten)]
    pub span: Span,
    /// The type of the file system on the volume.
    pub file_system: Option<String>,
    pub mount: Option<String>,
    /// `null` if the owner is unknown.
    pub owner: Option<Owner>,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A disk, a partition or a volume, by its number.
    Device(DeviceNumber),
    /// A file system, by where it is mounted.
    Mount(DeviceNumber),
    File(PathBuf),
}

impl Target {
    /// Resolves a path: a device node, a mount point, or a file.
    pub fn of(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).with_context(|| printable(path))?;
        let kind = metadata.file_type();
        if kind.is_block_device() {
            return Ok(Self::Device(DeviceNumber::from_rdev(metadata.rdev())));
        }
        if kind.is_file() {
            return Ok(Self::File(path.to_owned()));
        }
        if !kind.is_dir() {
            bail!("{}: not a device, mount or file", printable(path));
        }
        let above = fs::metadata(path.join("..")).with_context(|| printable(path))?;
        if above.dev() == metadata.dev() && above.ino() != metadata.ino() {
            bail!(
                "{}: nothing is mounted here; give the mount, or a file",
                printable(path)
            );
        }
        Ok(Self::Mount(DeviceNumber::from_rdev(metadata.dev())))
    }

    /// Returns whether the affected volume belongs to the target.
    pub fn has(&self, affected: &AffectedVolume) -> bool {
        match self {
            Self::Device(number) => affected.chain.contains(number),
            Self::Mount(number) => affected.chain.first() == Some(number),
            Self::File(_) => false,
        }
    }
}

/// Returns the affected volumes of all disks.
pub fn all(host: &Host) -> Result<Vec<(Disk, AffectedVolume)>> {
    let mut listed = Vec::new();
    for disk in Device::all(host).iter().filter_map(Device::disk) {
        let bad = disk.bad()?;
        ensure_present(&disk)?;
        listed.push((disk, bad));
    }
    traced(host, &listed)
}

/// Maps sectors of disks to the volumes on them.
pub fn traced(host: &Host, listed: &[(Disk, BadBlocks)]) -> Result<Vec<(Disk, AffectedVolume)>> {
    let mounts = Mounts::here()?;
    let mut found = Vec::new();
    for (disk, bad) in listed.iter().filter(|(_, bad)| !bad.is_empty()) {
        let span = |range| {
            let (offset, length) = bytes(range);
            Span {
                disk_offset: offset,
                offset,
                length,
            }
        };
        let spans = bad.ranges().iter().map(span).collect();
        let volume = topology::of_disk(host, disk.name(), &mounts)?;
        for affected in remap::trace(host, &volume, spans)? {
            found.push((disk.clone(), affected));
        }
    }
    Ok(found)
}

/// Returns the owners of all bad ranges of the targets, or of all disks if there are none.
pub fn entries(
    host: &Host,
    targets: &[Target],
    all_links: bool,
    progress: &dyn Progress,
) -> Result<Vec<AffectedRange>> {
    entries_of(host, &all(host)?, targets, all_links, progress)
}

/// Does the same for volumes that are known already.
pub fn entries_of(
    host: &Host,
    affected: &[(Disk, AffectedVolume)],
    targets: &[Target],
    all_links: bool,
    progress: &dyn Progress,
) -> Result<Vec<AffectedRange>> {
    let mut entries = Vec::new();
    for (disk, affected) in affected {
        if targets.is_empty() || targets.iter().any(|target| target.has(affected)) {
            let owners = owners(host, disk, affected, all_links, progress);
            // A disk that disappeared looks empty, or fails in some way.
            ensure_present(disk)?;
            for number in &affected.chain {
                let there = host.path("sys/dev/block").join(number.to_string());
                ensure!(there.exists(), "{} {GONE}", affected.volume.name);
            }
            entries.extend(owners?);
        }
    }
    for target in targets {
        if let Target::File(path) = target {
            entries.extend(of_file(affected, path)?);
        }
    }
    Ok(entries)
}

/// Returns a range without its owner.
pub fn entry(disk: &Disk, affected: &AffectedVolume, span: Span) -> AffectedRange {
    AffectedRange {
        disk: disk.name().to_owned(),
        volume: affected.volume.name.clone(),
        span,
        file_system: affected.volume.file_system.clone(),
        mount: affected.volume.mount(),
        owner: None,
        reason: None,
    }
}

const GONE: &str = "disappeared during the search";

fn ensure_present(disk: &Disk) -> Result<()> {
    ensure!(disk.is_there(), "{} {GONE}", disk.name());
    Ok(())
}

fn owners(
    host: &Host,
    disk: &Disk,
    affected: &AffectedVolume,
    all_links: bool,
    progress: &dyn Progress,
) -> Result<Vec<AffectedRange>> {
    let without = |reason: &str| {
        let one = |span: &Span| AffectedRange {
            reason: Some(reason.to_owned()),
            ..entry(disk, affected, span.clone())
        };
        Ok(affected.spans.iter().map(one).collect())
    };
    if let Some(target) = &affected.opaque {
        return without(&format!("what is made of it by {target} is not known here"));
    }
    let Some(kind) = &affected.volume.file_system else {
        /// All superblocks begin before it (libblkid).
        const HEAD: u64 = 128 << 10;
        let head = affected.spans.iter().any(|span| span.offset < HEAD);
        return without(match affected.volume.children.is_empty() {
            true if head => "no file system found; its superblock may be on a bad block",
            true => "there is no file system",
            false => "outside of all partitions and volumes",
        });
    };
    // Prefer a mount of the whole file system to a bind mount.
    let mounts = &affected.volume.mounts;
    let whole = mounts.iter().find(|mount| mount.root == "/");
    let Some(mount) = whole.or(mounts.first()) else {
        let result = offline::owners(host, &affected.volume, &affected.spans, all_links)?;
        return Ok(match (result.owned.is_empty(), &result.reason) {
            (true, Some(reason)) => return without(reason),
            _ => result
                .owned
                .into_iter()
                .map(|owned| with_owner(disk, affected, owned, result.reason.as_ref()))
                .collect(),
        });
    };
    if !matches!(kind.as_str(), "ext2" | "ext3" | "ext4" | "xfs") {
        return without(&offline::unsupported(kind));
    }
    let directory = host.absolute(Path::new(&mount.directory));
    let system = FileSystem::at(&affected.volume, &directory)?;
    let seen = SkipCounter {
        progress,
        skipped: Cell::new(0),
    };
    let owned = system.owners(host, &affected.spans, all_links, &seen)?;
    let reason = (seen.skipped.get() > 0).then(|| {
        format!(
            "or a file or directory that cannot be read ({} skipped)",
            seen.skipped.get()
        )
    });
    Ok(owned
        .into_iter()
        .map(|owned| AffectedRange {
            mount: Some(mount.directory.clone()),
            ..with_owner(disk, affected, owned, reason.as_ref())
        })
        .collect())
}

/// Counts files and directories that could not be read.
struct SkipCounter<'a> {
    progress: &'a dyn Progress,
    skipped: Cell<u64>,
}

impl Progress for SkipCounter<'_> {
    fn begin(&self, files: u64) {
        self.skipped.set(0);
        self.progress.begin(files);
    }

    fn step(&self) {
        self.progress.step();
    }

    fn skipped(&self, path: &Path, error: &io::Error) {
        self.skipped.set(self.skipped.get() + 1);
        self.progress.skipped(path, error);
    }
}

/// An entry with its owner, and why that is not known better.
fn with_owner(
    disk: &Disk,
    affected: &AffectedVolume,
    owned: Owned,
    reason: Option<&String>,
) -> AffectedRange {
    let unknown = matches!(owned.owner, Owner::Unknown { .. });
    AffectedRange {
        owner: Some(owned.owner),
        reason: reason.filter(|_| unknown).cloned(),
        ..entry(disk, affected, owned.span)
    }
}

/// Returns the bad ranges of a file's data.
fn of_file(affected: &[(Disk, AffectedVolume)], path: &Path) -> Result<Vec<AffectedRange>> {
    let file = File::open(path).with_context(|| printable(path))?;
    let metadata = file.metadata().with_context(|| printable(path))?;
    let device = DeviceNumber::from_rdev(metadata.dev());
    let mut pieces = Vec::new();
    extents::of_file(&file, Fork::Data, |extent| pieces.push(*extent))
        .with_context(|| format!("{}: where its bytes are", printable(path)))?;
    let mut entries = Vec::new();
    for (disk, affected) in affected
        .iter()
        .filter(|(_, affected)| affected.chain.first() == Some(&device))
    {
        for piece in &pieces {
            let range = piece.physical..piece.physical.saturating_add(piece.length);
            for part in affected.spans.iter().filter_map(|span| span.cut(&range)) {
                let owner = Owner::File {
                    paths: vec![printable(path)],
                    inode: metadata.ino(),
                    file_offset: Some(piece.logical + (part.offset - piece.physical)),
                    open_by: Vec::new(),
                };
                entries.push(AffectedRange {
                    owner: Some(owner),
                    ..entry(disk, affected, part)
                });
            }
        }
    }
    Ok(entries)
}
