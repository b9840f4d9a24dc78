// SPDX-License-Identifier: GPL-2.0

//! Finds the volumes, file systems and files that bad blocks belong to.
//!
//! There are three answers for a target: bad, good, and unknown, for example if the target is not on persistent
//! memory, or on a volume that can't be traced.

use crate::badblocks::kernel::{self, DiskErrors, offset_and_length};
use crate::badblocks::set::BadBlocks;
use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::block::remap::{self, AffectedVolume, Span, Spans};
use crate::block::topology::{self, Mount, Mounts, Volume};
use crate::fs::ext4;
use crate::fs::leases::Leases;
use crate::fs::mounted::FileSystem;
use crate::fs::offline;
use crate::fs::quarantine_mark;
use crate::fs::reopen::{again, refer};
use crate::fs::{Owned, Owner, Progress};
use crate::nd::region::Region;
use crate::nd::{Device, Kind, Name};
use crate::sysfs::{self, Host, printable};
use abstractions::extents::{self, Extent, Fork};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{OFlags, ResolveFlags};
use schemars::JsonSchema;
use serde::Serialize;
use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A bad range and its owner.
#[derive(Debug, Clone, JsonSchema, Serialize)]
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
    /// The owner is the file of `pmemctl quarantine`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
    pub reason: Option<String>,
}

/// A bad range of a namespace that is not of its disk.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct NamespaceRange {
    /// `-` without one.
    pub disk: String,
    /// Its device of the `nd` bus.
    pub device: String,
    /// The first byte, from the start of the namespace.
    pub namespace_offset: u64,
    pub length: u64,
    pub reason: &'static str,
}

impl NamespaceRange {
    /// Returns the bad sectors `bad` of the namespace of `device` that its disk does not have.
    pub fn beside_disk(
        disk: &Disk,
        device: &Name,
        bad: &BadBlocks,
    ) -> impl Iterator<Item = NamespaceRange> {
        let reason = match device.kind {
            Kind::Btt => "in sector mode the sector is unknown",
            _ => "outside of the data area: info block, struct pages, or unused",
        };
        Self::each(disk.name(), device, bad, reason)
    }

    fn each(
        disk: &str,
        device: &Name,
        bad: &BadBlocks,
        reason: &'static str,
    ) -> impl Iterator<Item = NamespaceRange> {
        bad.ranges().map(move |sectors| {
            let (namespace_offset, length) = offset_and_length(sectors);
            NamespaceRange {
                disk: disk.to_owned(),
                device: device.to_string(),
                namespace_offset,
                length,
                reason,
            }
        })
    }
}

/// The bad ranges of the targets.
#[derive(Debug, Default)]
pub struct Listing {
    pub entries: Vec<AffectedRange>,
    pub outside: Vec<NamespaceRange>,
    /// For each target whose errors are unknown, the target and the reason.
    pub unknown: Vec<String>,
}

impl Listing {
    /// Returns whether no range is bad, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.outside.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A disk, a partition or a volume, by its number.
    Device(DeviceNumber),
    /// A file system, by where it is mounted.
    Mount(DeviceNumber),
    File(PathBuf),
    /// A file or file system whose errors can't be known, and the reason.
    Unknown(PathBuf, String),
}

/// Returns why the errors of a file system are unknown, from statfs(2) and the number of its device.
pub(crate) fn untraceable(magic: u64, device: u64) -> Option<String> {
    const OVERLAYFS: u64 = 0x794c_7630;
    const OTHERS: [(u64, &str); 6] = [
        (0x9123_683e, "btrfs"),
        (0xca45_1a4e, "bcachefs"),
        (0x2fc1_2fc1, "zfs"),
        (0x0102_1994, "tmpfs"),
        (0x6969, "nfs"),
        (0x6573_5546, "fuse"),
    ];
    if magic == OVERLAYFS {
        return Some("overlayfs is not followed; give the file of the layer below".into());
    }
    let name = OTHERS.iter().find(|(other, _)| *other == magic);
    match name {
        Some((_, name)) => Some(format!("{name} is not followed to its memory")),
        None if rustix::fs::major(device) == 0 => {
            Some("its file system is on no block device of its own".into())
        }
        None => None,
    }
}

impl Target {
    /// Resolves a path: a device node, a mount point, or a file.
    pub fn of(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).with_context(|| printable(path))?;
        let kind = metadata.file_type();
        if kind.is_file() || kind.is_dir() {
            let magic = rustix::fs::statfs(path)
                .with_context(|| printable(path))?
                .f_type;
            // CAST: a magic number has 32 bits; it may be negative.
            if let Some(reason) = untraceable(u64::from(magic as u32), metadata.dev()) {
                return Ok(Self::Unknown(path.to_owned(), reason));
            }
        }
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

    /// Returns the device that the target's data is on.
    pub fn device(&self, host: &Host) -> Option<DeviceNumber> {
        match self {
            Self::Device(number) | Self::Mount(number) => Some(*number),
            Self::File(path) => {
                let file = open(path).ok()?;
                let number = DeviceNumber::from_rdev(file.metadata().ok()?.dev());
                data_device(host, &file, number, path).ok()
            }
            Self::Unknown(..) => None,
        }
    }

    /// Returns whether the target is on this disk, maybe through other volumes.
    pub fn is_on(&self, host: &Host, disk: &str) -> bool {
        let is_on = |number| topology::disks_below(host, number).contains(disk);
        self.device(host).is_some_and(is_on)
    }

    /// Returns whether the affected volume belongs to the target.
    pub fn has(&self, affected: &AffectedVolume) -> bool {
        match self {
            Self::Device(number) => affected.chain.contains(number),
            Self::Mount(number) => affected.chain.first() == Some(number),
            Self::File(_) | Self::Unknown(..) => false,
        }
    }
}

/// The errors of all disks.
pub struct Survey {
    host: Host,
    pub disks: Vec<DiskErrors>,
    /// The namespaces without a disk, and their bad sectors by the bus.
    bare: Vec<(Device, Result<BadBlocks>)>,
    pub affected: Vec<(Disk, AffectedVolume)>,
}

impl Survey {
    /// Reads the lists of all disks. A list that can't be read counts for its own disk only.
    pub fn of(host: &Host) -> Result<Self> {
        let mut disks = Vec::new();
        for disk in Device::all(host).iter().filter_map(Device::disk) {
            let mut errors = disk.errors();
            // A disk that disappeared looks empty.
            if !disk.is_there() {
                errors.bad = Err(GONE.to_owned());
            }
            disks.push(errors);
        }
        let mut affected = Vec::new();
        for errors in &mut disks {
            let Ok(bad) = &errors.bad else { continue };
            match traced(host, &errors.disk, bad) {
                Ok(found) => affected.extend(found),
                Err(error) => errors.bad = Err(format!("{error:#}")),
            }
        }
        Ok(Self {
            affected,
            bare: without_disk(host),
            host: host.clone(),
            disks,
        })
    }

    /// Returns the bad bytes of a volume.
    pub fn bad_of(&self, volume: DeviceNumber) -> Spans {
        self.on(volume)
            .flat_map(|affected| affected.spans.iter())
            .collect()
    }

    /// Returns a volume with bad bytes for each disk that these are on.
    pub fn on(&self, volume: DeviceNumber) -> impl Iterator<Item = &AffectedVolume> {
        let affected = self.affected.iter().map(|(_, affected)| affected);
        affected.filter(move |affected| affected.chain.first() == Some(&volume))
    }

    #[cfg(test)]
    pub(crate) fn made_up(host: &Host, disks: Vec<DiskErrors>) -> Self {
        Self {
            host: host.clone(),
            disks,
            bare: Vec::new(),
            affected: Vec::new(),
        }
    }

    /// Returns the bad ranges of the targets with their owners, or of all disks if there are no targets.
    pub fn list(
        &self,
        targets: &[Target],
        all_links: bool,
        progress: &dyn Progress,
    ) -> Result<Listing> {
        let mut listing = Listing::default();
        if targets.is_empty() {
            if self.disks.is_empty() && self.bare.is_empty() {
                let reason = "there is no persistent memory; \"pmemctl doctor\" shows why";
                listing.unknown.push(reason.to_owned());
            }
            for (namespace, bad) in &self.bare {
                let name = &namespace.name;
                match bad {
                    Ok(bad) => {
                        let reason = "the namespace has no disk";
                        let ranges = NamespaceRange::each("-", name, bad, reason);
                        listing.outside.extend(ranges);
                    }
                    Err(error) => listing.unknown.push(format!("{name}: {error:#}")),
                }
            }
            for disk in &self.disks {
                listing.outside.extend(outside(disk));
                let reason = disk.why_unknown();
                listing
                    .unknown
                    .extend(reason.map(|reason| format!("{}: {reason}", disk.disk.name())));
            }
        }
        let mut volumes = Vec::new();
        for target in targets {
            match target {
                Target::Unknown(path, reason) => {
                    let reason = format!("{}: {reason}", printable(path));
                    listing.unknown.push(reason);
                }
                Target::Device(number) | Target::Mount(number) => {
                    volumes.push(target.clone());
                    let name = sysfs::link_name(self.device(*number));
                    let name = name.unwrap_or_else(|| number.to_string());
                    let reason = self.unknown(target, *number);
                    listing
                        .unknown
                        .extend(reason.map(|reason| format!("{name}: {reason}")));
                    let is_whole =
                        |disk: &&DiskErrors| *target == Target::Device(disk.disk.whole.number);
                    let disks = self.disks.iter().filter(is_whole);
                    listing.outside.extend(disks.flat_map(outside));
                }
                Target::File(path) => match self.file(path) {
                    Ok(mut entries) => listing.entries.append(&mut entries),
                    Err(error) => listing.unknown.push(format!("{error:#}")),
                },
            }
        }
        if targets.is_empty() || !volumes.is_empty() {
            let (host, affected) = (&self.host, &self.affected);
            let mut entries = entries_of(host, affected, &volumes, all_links, progress)?;
            entries.append(&mut listing.entries);
            listing.entries = entries;
        }
        Ok(listing)
    }

    fn device(&self, number: DeviceNumber) -> PathBuf {
        self.host.path("sys/dev/block").join(number.to_string())
    }

    /// Returns why the lists do not show all errors of a target on the device of this number.
    pub fn unknown(&self, target: &Target, number: DeviceNumber) -> Option<String> {
        let below = topology::disks_below(&self.host, number);
        if let Some(name) = below.iter().find(|name| name.starts_with("loop")) {
            let file = sysfs::line(
                self.host
                    .path("sys/block")
                    .join(name)
                    .join("loop/backing_file"),
            );
            let file = file.map_or_else(String::new, |file| format!(" of {}", printable(file)));
            return Some(format!(
                "it is on the loop device {name}{file}, which is not followed"
            ));
        }
        let is_below = |disk: &&DiskErrors| below.contains(disk.disk.name());
        let mut disks: Vec<_> = self.disks.iter().filter(is_below).collect();
        if disks.is_empty() {
            return Some("it is not on persistent memory".into());
        }
        if let Some((name, reason)) = disks
            .iter()
            .find_map(|disk| Some((disk.disk.name(), disk.why_unknown()?)))
        {
            return Some(format!("the errors of {name} are unknown: {reason}"));
        }
        // For a disk itself they are listed.
        disks.retain(|disk| *target != Target::Device(disk.disk.whole.number));
        if let Some(disk) = disks.iter().find(|disk| disk.outside_affects_files()) {
            let name = disk.disk.name();
            let reasons = outside(disk);
            let reason = reasons.first().map_or("", |range| range.reason);
            return Some(format!("the namespace of {name} has errors: {reason}"));
        }
        self.affected.iter().find_map(|(_, affected)| {
            let opaque = affected.untraced(number)?;
            Some(format!(
                "{} has errors, which are not followed through {opaque}",
                affected.volume.name
            ))
        })
    }

    /// Returns the bad ranges of a file's data; fails if they are unknown.
    pub fn file(&self, path: &Path) -> Result<Vec<AffectedRange>> {
        let file = open(path).map_err(|error| error.context(printable(path)))?;
        self.open_file(&file, path)
    }

    /// Returns the same for an open file.
    pub fn open_file(&self, file: &File, path: &Path) -> Result<Vec<AffectedRange>> {
        let map = FileMap::of(&self.host, file, path)?;
        let target = Target::File(path.to_owned());
        match self.unknown(&target, map.device) {
            Some(reason) => bail!("{}: {reason}", printable(path)),
            None => map.entries(&self.affected, path),
        }
    }
}

/// Finds the namespaces without a disk, and the errors of each, from its start, that the bus knows.
fn without_disk(host: &Host) -> Vec<(Device, Result<BadBlocks>)> {
    let devices = Device::all(host);
    let with_disk: Vec<_> = devices
        .iter()
        .filter(|device| device.disk().is_some())
        .filter_map(Device::namespace)
        .collect();
    let bare = devices.into_iter().filter(|device| {
        device.name.kind == Kind::Namespace
            && !device.is_seed()
            && !with_disk.contains(&device.name)
    });
    let errors = |namespace: &Device| {
        let region = Region::find(host, namespace.name.region)
            .context("it has no disk, and only root can see which errors of its region it has")?;
        kernel::of_namespace(&region, namespace)
    };
    bare.map(|namespace| {
        let bad = errors(&namespace);
        (namespace, bad)
    })
    .collect()
}

/// Returns the bad ranges of a namespace that are none of its disk.
fn outside(errors: &DiskErrors) -> Vec<NamespaceRange> {
    match (&errors.device, &errors.outside) {
        (Some(device), Ok(outside)) => {
            NamespaceRange::beside_disk(&errors.disk, &device.name, outside).collect()
        }
        _ => Vec::new(),
    }
}

/// Maps sectors of a disk to the volumes on it.
pub fn traced(host: &Host, disk: &Disk, bad: &BadBlocks) -> Result<Vec<(Disk, AffectedVolume)>> {
    if bad.is_empty() {
        return Ok(Vec::new());
    }
    let span = |range| {
        let (offset, length) = offset_and_length(range);
        Span::of_disk(offset, length)
    };
    let spans = bad.ranges().map(span).collect();
    let volume = topology::of_disk(host, disk.name(), &Mounts::here()?)?;
    let affected = remap::trace(host, &volume, spans)?.into_iter();
    Ok(affected.map(|affected| (disk.clone(), affected)).collect())
}

/// Returns the owners of all bad ranges of the targets, or of all volumes if there are no targets. Where the search for
/// owners fails, the ranges have the reason; fails if the disk or volume of a target disappears.
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
            // A disk that disappeared looks empty, or fails in some way: this comes after the search.
            let owners = owners(host, disk, affected, all_links, progress);
            let reason = match (ensure_there(host, disk, affected), owners) {
                (Ok(()), Ok(owners)) => {
                    entries.extend(owners);
                    continue;
                }
                // Of all disks, one must not hide the errors of others.
                (Err(error), _) if !targets.is_empty() => return Err(error),
                // A failed search must not hide the errors either.
                (Err(error), _) | (Ok(()), Err(error)) => format!("{error:#}"),
            };
            entries.extend(without_owner(disk, affected, &reason));
        }
    }
    for target in targets {
        if let Target::File(path) = target {
            let file = open(path).map_err(|error| error.context(printable(path)))?;
            entries.extend(FileMap::of(host, &file, path)?.entries(affected, path)?);
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
        quarantined: false,
        reason: None,
    }
}

const GONE: &str = "disappeared during the search";

fn ensure_present(disk: &Disk) -> Result<()> {
    ensure!(disk.is_there(), "{} {GONE}", disk.name());
    Ok(())
}

fn ensure_there(host: &Host, disk: &Disk, affected: &AffectedVolume) -> Result<()> {
    ensure_present(disk)?;
    for number in &affected.chain {
        let there = host.path("sys/dev/block").join(number.to_string());
        ensure!(there.exists(), "{} {GONE}", affected.volume.name);
    }
    Ok(())
}

/// Returns the bad ranges of a volume without their owners, and why these are not known.
pub(crate) fn without_owner<'a>(
    disk: &'a Disk,
    affected: &'a AffectedVolume,
    reason: &'a str,
) -> impl Iterator<Item = AffectedRange> + 'a {
    affected.spans.iter().map(move |span| AffectedRange {
        reason: Some(reason.to_owned()),
        ..entry(disk, affected, span)
    })
}

fn owners(
    host: &Host,
    disk: &Disk,
    affected: &AffectedVolume,
    all_links: bool,
    progress: &dyn Progress,
) -> Result<Vec<AffectedRange>> {
    let without = |reason: &str| Ok(without_owner(disk, affected, reason).collect());
    if let Some(reason) = affected.why_opaque() {
        return without(&reason);
    }
    let Some(kind) = &affected.volume.file_system else {
        if let Some(mount) = Mounts::here()?.with_realtime_device(&affected.volume.kernel_name) {
            return without(&format!(
                "it is the real-time device of {mount}, on which files are not searched"
            ));
        }
        /// All superblocks begin before it (libblkid).
        const HEAD: u64 = 128 << 10;
        let head = affected.spans.iter().any(|span| span.offset < HEAD);
        return without(match affected.volume.children.is_empty() {
            true if head => "no file system found; its superblock may be on a bad block",
            true => "there is no file system",
            false => "outside of all partitions and volumes",
        });
    };
    let volume = &affected.volume;
    if !volume.mounts.is_empty() && !matches!(kind.as_str(), "ext2" | "ext3" | "ext4" | "xfs") {
        return without(&offline::unsupported(kind));
    }
    let Some((system, mount)) = FileSystem::of(host, volume)? else {
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
    let directory = host.absolute(Path::new(&mount.directory));
    let seen = SkipCounter {
        progress,
        skipped: Cell::new(0),
    };
    // Those of this search if the others can't be traced.
    let bad = bad_spans(host, affected).unwrap_or_else(|_| affected.spans.clone());
    let owned = system.owners(host, &affected.spans, &bad, all_links, &seen)?;
    let reason = why_unknown(mount, seen.skipped.get());
    Ok(owned
        .into_iter()
        .map(|owned| AffectedRange {
            quarantined: is_quarantined(&owned.owner, &directory),
            mount: Some(printable(&mount.directory)),
            ..with_owner(disk, affected, owned, reason.as_ref())
        })
        .collect())
}

/// Returns all bad blocks of a volume of which `affected` has some. They matter for ext4 only.
fn bad_spans(host: &Host, affected: &AffectedVolume) -> Result<Spans> {
    if affected.volume.file_system.as_deref() == Some("xfs") {
        return Ok(affected.spans.clone());
    }
    let all = Survey::of(host)?.affected;
    let same = all
        .iter()
        .filter(|(_, other)| other.chain.first() == affected.chain.first());
    Ok(same.flat_map(|(_, other)| other.spans.iter()).collect())
}

/// Returns whether a file is the quarantine file of a mount.
fn is_quarantined(owner: &Owner, mount: &Path) -> bool {
    let Owner::File { paths, .. } = owner else {
        return false;
    };
    let path = paths.first().and_then(|path| sysfs::raw(path));
    path.map(PathBuf::from)
        .is_some_and(|path| path.parent() == Some(mount) && quarantine_mark::is_on_path(&path))
}

/// Returns why the walk over a mount may have missed an owner.
fn why_unknown(mount: &Mount, skipped: u64) -> Option<String> {
    if mount.root != "/" {
        let (root, directory) = (printable(&mount.root), printable(&mount.directory));
        return Some(format!(
            "or a file outside of {root}, the only directory of it that is visible here, at {directory}"
        ));
    }
    (skipped > 0).then(|| format!("or a file or directory that cannot be read ({skipped} skipped)"))
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

    fn left_out(&self, directory: &Path, reason: &str) {
        self.progress.left_out(directory, reason);
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

/// Returns where the block of a file's extended attributes is, if the volume is ext4 and has `bad` blocks: for a file of which the
/// kernel reports none. Only root is told.
pub(crate) fn ext4_attributes(
    volume: &Volume,
    inode: u64,
    bad: &Spans,
) -> Result<Option<Range<u64>>> {
    if bad.is_empty() || !volume.is_ext4() || !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    ext4::attributes_of(&volume.node(), inode)
        .with_context(|| format!("where the attributes of inode {inode} are"))
}

/// Where the data of a file is.
struct FileMap {
    /// The device that the offsets are of.
    device: DeviceNumber,
    inode: u64,
    pieces: Vec<(Extent, Fork)>,
}

/// Returns the device of a file's data, of a file system on the device `number`: XFS may have another one for real-time
/// files.
pub(crate) fn data_device(
    host: &Host,
    file: &File,
    number: DeviceNumber,
    path: &Path,
) -> Result<DeviceNumber> {
    if !extents::is_real_time(file).unwrap_or(false) {
        return Ok(number);
    }
    let device = Mounts::here()?.realtime_device(host, number);
    device.with_context(|| {
        format!(
            "{}: its data is on an unknown real-time device",
            printable(path)
        )
    })
}

impl FileMap {
    fn of(host: &Host, file: &File, path: &Path) -> Result<Self> {
        let metadata = file.metadata().with_context(|| printable(path))?;
        let number = DeviceNumber::from_rdev(metadata.dev());
        let device = data_device(host, file, number, path)?;
        let mut pieces = Vec::new();
        extents::of_file(file, Fork::Data, |extent| {
            pieces.push((*extent, Fork::Data));
        })
        .with_context(|| format!("{}: where its bytes are", printable(path)))?;
        if device == number {
            // Fails where there are none.
            let _ = extents::of_file(file, Fork::Attributes, |extent| {
                pieces.push((*extent, Fork::Attributes));
            });
        }
        Ok(Self {
            device,
            inode: metadata.ino(),
            pieces,
        })
    }

    /// Returns the parts of the volumes that are the file's.
    fn entries(
        &self,
        affected: &[(Disk, AffectedVolume)],
        path: &Path,
    ) -> Result<Vec<AffectedRange>> {
        let mut entries = Vec::new();
        for (disk, affected) in affected
            .iter()
            .filter(|(_, affected)| affected.chain.first() == Some(&self.device))
        {
            let mut add = |part, file_offset| {
                let owner = Owner::File {
                    paths: vec![printable(path)],
                    inode: self.inode,
                    file_offset,
                    open_by: Vec::new(),
                };
                entries.push(AffectedRange {
                    owner: Some(owner),
                    ..entry(disk, affected, part)
                });
            };
            for (piece, fork) in &self.pieces {
                for (part, at) in affected.spans.in_extent(piece) {
                    add(part, (*fork == Fork::Data).then_some(at));
                }
            }
            if self
                .pieces
                .iter()
                .any(|(_, fork)| *fork == Fork::Attributes)
            {
                continue;
            }
            let bad = &affected.spans;
            if let Some(attributes) = ext4_attributes(&affected.volume, self.inode, bad)? {
                for part in bad.within(&attributes) {
                    add(part, None);
                }
            }
        }
        Ok(entries)
    }
}

/// Opens a regular file, and nothing else: opening a device or a FIFO has side effects. A file with a write lease is
/// refused, because that would break the lease.
pub(crate) fn open(path: &Path) -> Result<File> {
    let handle = refer(path, ResolveFlags::empty()).map_err(io::Error::from)?;
    let metadata = handle.metadata()?;
    ensure!(metadata.is_file(), "this is no regular file any more");
    let device = DeviceNumber::from_rdev(metadata.dev());
    ensure!(
        !Leases::read(&Host::here()).has_write(device, metadata.ino()),
        "another process has a lease on it (pmemctl lease, Samba, the NFS server), which opening it would break"
    );
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(again(&handle))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::remap::Opaque;
    use crate::block::topology::{Dax, Volume};
    use crate::testing::FakeSysfs;
    use std::os::unix::fs::symlink;

    fn number(text: &str) -> DeviceNumber {
        text.parse().unwrap()
    }

    /// `pmem0` with a volume `259:1` on it, and the disk `8:0` elsewhere.
    fn survey(machine: &FakeSysfs) -> Survey {
        for (number, device) in [
            ("259:0", "pmem0"),
            ("259:1", "pmem0/pmem0p1"),
            ("8:0", "sda"),
            ("7:0", "loop0"),
        ] {
            let folder = machine.host.path("sys/block").join(device);
            fs::create_dir_all(&folder).unwrap();
            let link = machine.host.path("sys/dev/block").join(number);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(folder, link).unwrap();
        }
        machine.write("sys/block/pmem0/pmem0p1/partition", "1");
        let disk = Disk::find(&machine.host, "pmem0").unwrap();
        Survey::made_up(&machine.host, vec![disk.errors()])
    }

    fn unknown(survey: &Survey, text: &str) -> Option<String> {
        survey.unknown(&Target::Device(number(text)), number(text))
    }

    #[test]
    fn device_without_persistent_memory_is_unknown() {
        let machine = FakeSysfs::new();
        let survey = survey(&machine);
        assert_eq!(unknown(&survey, "259:0"), None);
        assert_eq!(unknown(&survey, "259:1"), None);
        let elsewhere = Some("it is not on persistent memory".to_owned());
        assert_eq!(unknown(&survey, "8:0"), elsewhere);
        assert_eq!(unknown(&survey, "0:42"), elsewhere);
        assert!(unknown(&survey, "7:0").unwrap().contains("loop0"));
    }

    #[test]
    fn list_that_is_cut_off_is_unknown_for_its_own_disk() {
        let machine = FakeSysfs::new();
        machine.lists(&"1000000 512\n".repeat(350));
        let mut survey = survey(&machine);
        let other = machine.host.path("sys/block/pmem1");
        fs::create_dir_all(&other).unwrap();
        machine.write("sys/block/pmem1/dev", "259:8");
        machine.write("sys/block/pmem1/badblocks", "");
        symlink(&other, machine.host.path("sys/dev/block/259:8")).unwrap();
        let disk = Disk::find(&machine.host, "pmem1").unwrap();
        survey.disks.push(disk.errors());
        let reason = unknown(&survey, "259:1").unwrap();
        assert!(reason.contains("longer than the kernel shows"), "{reason}");
        assert_eq!(unknown(&survey, "259:8"), None);
        // Without targets, all disks count.
        struct Silent;
        impl Progress for Silent {}
        let listing = survey.list(&[], false, &Silent).unwrap();
        assert_eq!(listing.unknown.len(), 1);
        assert!(listing.is_empty() && listing.unknown[0].starts_with("pmem0: "));
    }

    #[test]
    fn volume_that_is_not_traced_is_unknown_if_there_are_errors_below() {
        let machine = FakeSysfs::new();
        let mut survey = survey(&machine);
        let pool = Volume::made_up("pool", "259:1", vec![]);
        let opaque = |volume: &Volume| {
            let mut opaque = Opaque::of("thin-pool");
            opaque.add(volume);
            opaque
        };
        let affected = AffectedVolume {
            opaque: Some(opaque(&pool)),
            beside: None,
            volume: Volume::made_up("pmem0", "259:0", vec![pool]),
            chain: vec![number("259:0")],
            spans: [Span::made_up(0, 512)].into_iter().collect(),
        };
        let disk = survey.disks[0].disk.clone();
        survey.affected.push((disk, affected));
        let reason = unknown(&survey, "259:1").unwrap();
        assert!(reason.contains("pmem0 has errors") && reason.contains("thin-pool"));
        assert_eq!(unknown(&survey, "259:0"), None);
    }

    #[test]
    fn failed_search_for_owners_hides_no_errors() {
        struct Silent;
        impl Progress for Silent {}
        let machine = FakeSysfs::new();
        let mut survey = survey(&machine);
        let mut volume = Volume::made_up("pmem0p1", "259:1", vec![]);
        volume.file_system = Some("ext4".into());
        volume.mounts.push(Mount {
            directory: "/unmounted meanwhile".into(),
            dax: Dax::Never,
            root: "/".into(),
            options: String::new(),
        });
        let affected = AffectedVolume {
            volume,
            chain: vec![number("259:1"), number("259:0")],
            spans: [Span::made_up(0, 512)].into_iter().collect(),
            opaque: None,
            beside: None,
        };
        let disk = survey.disks[0].disk.clone();
        survey.affected.push((disk, affected));
        for targets in [vec![], vec![Target::Device(number("259:1"))]] {
            let listing = survey.list(&targets, false, &Silent).unwrap();
            let reasons: Vec<_> = listing.entries.iter().map(|one| &one.reason).collect();
            assert!(matches!(reasons[..], [Some(reason)] if reason.contains("unmounted")));
        }
        fs::remove_file(machine.host.path("sys/dev/block/259:1")).unwrap();
        let gone = survey.list(&[Target::Device(number("259:0"))], false, &Silent);
        assert!(format!("{:#}", gone.unwrap_err()).contains(GONE));
    }

    #[test]
    fn errors_in_sector_mode_make_files_unknown() {
        let machine = FakeSysfs::new();
        let mut survey = survey(&machine);
        machine.write(
            "sys/devices/ndbus0/region0/btt0.0/namespace",
            "namespace0.0",
        );
        let link = machine.host.path("sys/bus/nd/devices/btt0.0");
        symlink("../../../../sys/devices/ndbus0/region0/btt0.0", link).unwrap();
        let btt = Device::find(&machine.host, "btt0.0".parse().unwrap());
        survey.disks[0].device = Some(btt.unwrap());
        assert_eq!(unknown(&survey, "259:1"), None);
        survey.disks[0].outside = Ok("8 8\n".parse().unwrap());
        assert!(unknown(&survey, "259:1").unwrap().contains("sector mode"));
        let mount = Target::Mount(number("259:0"));
        assert!(survey.unknown(&mount, number("259:0")).is_some());
        // They are listed for the disk.
        assert_eq!(unknown(&survey, "259:0"), None);
        struct Silent;
        impl Progress for Silent {}
        let disk = Target::Device(number("259:0"));
        let listing = survey.list(&[disk], false, &Silent).unwrap();
        let found = &listing.outside[0];
        assert_eq!((found.namespace_offset, found.length), (4096, 4096));
        assert!(!listing.is_empty() && listing.unknown.is_empty());
    }

    #[test]
    fn errors_of_a_namespace_without_disk_are_listed() {
        let machine = FakeSysfs::new();
        fs::remove_dir_all(machine.host.path("sys/devices/ndbus0/region0/pfn0.0/block")).unwrap();
        // The namespace begins at sector 4096 of the region.
        machine.write("sys/devices/ndbus0/region0/badblocks", "16 8\n4104 8");
        let bare = without_disk(&machine.host);
        let found = |(namespace, bad): &(Device, Result<BadBlocks>)| {
            (
                namespace.name.to_string(),
                bad.as_ref().unwrap().to_string(),
            )
        };
        let found: Vec<_> = bare.iter().map(found).collect();
        assert_eq!(found, [("namespace0.0".to_owned(), "8 8\n".to_owned())]);

        struct Silent;
        impl Progress for Silent {}
        let mut survey = Survey::made_up(&machine.host, Vec::new());
        let listing = survey.list(&[], false, &Silent).unwrap();
        assert!(listing.unknown[0].contains("no persistent memory"));
        survey.bare = bare;
        let listing = survey.list(&[], false, &Silent).unwrap();
        assert_eq!(listing.outside[0].namespace_offset, 4096);
        assert!(listing.unknown.is_empty());
        // The kernel shows no more.
        let cut_off = &"1000000 512\n".repeat(342)[..4094];
        machine.write("sys/devices/ndbus0/region0/badblocks", cut_off);
        survey.bare = without_disk(&machine.host);
        let listing = survey.list(&[], false, &Silent).unwrap();
        assert!(listing.unknown[0].starts_with("namespace0.0: "));
    }

    #[test]
    fn file_system_without_device_is_unknown() {
        let ext4 = rustix::fs::makedev(259, 0);
        assert_eq!(untraceable(0xef53, ext4), None);
        // A file of overlayfs may have the device number of the layer below.
        assert!(
            untraceable(0x794c_7630, ext4)
                .unwrap()
                .contains("overlayfs")
        );
        assert!(untraceable(0x9123_683e, 42).unwrap().contains("btrfs"));
        assert!(untraceable(0xef53, 42).is_some());
        let path = Path::new("/proc/self/status");
        assert!(matches!(Target::of(path).unwrap(), Target::Unknown(..)));
    }

    #[test]
    fn regular_files_alone_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(open(&path).is_err());
        fs::write(&path, "x").unwrap();
        assert!(open(&path).is_ok());
        assert!(open(folder.path()).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn bind_mount_of_a_directory_is_named() {
        let mount = |root: &str| Mount {
            directory: "/mnt".into(),
            dax: Dax::Never,
            root: root.into(),
            options: String::new(),
        };
        assert_eq!(why_unknown(&mount("/"), 0), None);
        assert!(why_unknown(&mount("/"), 3).unwrap().contains("3 skipped"));
        assert!(why_unknown(&mount("/sub"), 3).unwrap().contains("/sub"));
    }
}
