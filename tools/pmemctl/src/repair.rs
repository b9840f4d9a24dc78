// SPDX-License-Identifier: GPL-2.0

//! Repairs the bad ranges of a file by overwriting them, which clears the poison.
//!
//! All writes go through the file, never through the device, so that no other file can be affected whatever happens
//! to this one. A write lease keeps other processes from opening or truncating the file. Before each write, the
//! name, the length and the blocks of the file are verified.
//!
//! A list may have too much: stale entries, or good blocks beside bad ones. So if the driver has an exact list, listed
//! ranges are first read past the CPU caches, and kept if they can be read.
//!
//! The file is not mapped: `read(2)` reports a bad block as an error, a mapping would raise SIGBUS.

use crate::affected::{self, Survey};
use crate::badblocks::kernel::unsurvivable;
use crate::badblocks::origin::Origin;
use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::block::remap::{self, AffectedVolume, Spans};
use crate::block::topology::{self, Mounts, Volume};
use crate::fs::open_files;
use crate::nd::Device;
use crate::ranges::{Ranges, common};
use crate::sysfs::{Host, printable, shell_path};
use abstractions::DirectBuffer;
use abstractions::extents::{self, Extent, Fork};
use abstractions::lease::Lease;
use abstractions::process::BlockedSignals;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxAttributes,
    StatxFlags, XattrFlags, fgetxattr, fsetxattr, openat2,
};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Serialize;
use signal_hook::consts::SIGIO;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use units::PAGE;

/// The largest write.
const CHUNK: u64 = 1 << 20;

/// Bytes on each side of a range that are compared with the backup.
const AROUND: u64 = 64 << 10;

/// The extended attribute that has the capabilities of a program (capabilities(7)), and more bytes than it has.
const CAPABILITIES: &str = "security.capability";
const CAPABILITIES_MAX: usize = 256;

/// The source of replaced bytes.
#[derive(Debug, Clone)]
pub enum Source {
    /// Another file, at the same offsets.
    Backup(PathBuf),
    /// Nowhere: it is zeros from now on.
    Zeros,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub file: PathBuf,
    /// The source of replaced bytes.
    pub source: Source,
    /// The range to repair, listed or not; otherwise all that is listed. Only bytes that can't be read are replaced.
    pub range: Option<Range<u64>>,
    /// Replace all of the range.
    pub overwrite_good: bool,
    /// Refuse paths with symbolic links.
    pub no_symlinks: bool,
    /// Take what is listed as bad without reading it, and a list as complete.
    pub trust_list: bool,
    /// Use a backup although it differs in what can be read.
    pub force: bool,
    /// Write although snapshots of the volume become invalid.
    pub invalidate_snapshots: bool,
    pub dry_run: bool,
}

/// The result for a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Planned,
    /// It was written, can be read, and is not listed as bad.
    Repaired,
    /// The file has other memory in its place, which can be read and is not listed as bad. The bad memory
    /// is left to the files that share it.
    Moved,
    /// It was listed, but can be read: it is kept, and is not listed any more.
    GoodAfterAll,
    /// It is as it was, or it is still listed.
    Failed,
}

/// A range of the file that is written at once: whole pages of memory.
#[derive(Debug, Clone, JsonSchema, Serialize)]
pub struct RepairRange {
    /// The first byte, in the file.
    pub file_offset: u64,
    pub length: u64,
    /// The disk; not looked for where nothing of it is bad.
    pub disk: Option<String>,
    /// The first byte, from the start of the disk.
    pub disk_offset: Option<u64>,
    /// Bytes of it that are listed as bad, or were.
    pub bad: u64,
    /// Bytes that come from the source.
    pub replaced: u64,
    /// Bytes that it still has, and keeps.
    pub kept: u64,
    /// Other files share it: this one gets other memory in its place.
    pub shared: bool,
    pub result: Outcome,
    pub reason: Option<String>,
    /// From the start of the volume.
    #[serde(skip)]
    physical: u64,
    /// `FIEMAP_EXTENT_…`.
    #[serde(skip)]
    flags: u32,
    /// Bad bytes of it, in the file.
    #[serde(skip)]
    ranges: Vec<Range<u64>>,
}

/// The result, or with `dry_run` the plan.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Report {
    pub file: String,
    pub inode: u64,
    /// The backup; `null` for zeros.
    pub source: Option<String>,
    pub dry_run: bool,
    /// In the order of the file.
    pub pieces: Vec<RepairRange>,
    /// Bytes that are lost: zeros take their place.
    pub lost: u64,
    /// The readable bytes of the ranges and around them, compared with the backup; `null` if there is none, or if
    /// nothing is taken from it.
    pub compared: Option<Comparison>,
    /// Why it ended before all was tried.
    pub stopped: Option<String>,
}

impl Report {
    /// Returns whether all ranges are repaired, or would be.
    pub fn is_good(&self) -> bool {
        let good = |piece: &RepairRange| piece.result != Outcome::Failed;
        self.stopped.is_none() && self.pieces.iter().all(good)
    }
}

/// The number of bytes that are the same in two files, and that are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Comparison {
    pub same: u64,
    pub different: u64,
}

impl Comparison {
    fn add(&mut self, one: &[u8], other: &[u8]) {
        let different = one.iter().zip(other).filter(|(a, b)| a != b).count() as u64;
        self.different += different;
        self.same += one.len().min(other.len()) as u64 - different;
    }
}

/// Returns whether a read error means that the data is lost: a bad block, or one of a DAX file.
fn is_lost(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::FAULT))
}

/// The file, under a write lease.
struct Target {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    dax: bool,
    /// Its capabilities before the repair, as the attribute has them; empty if it has none.
    capabilities: Vec<u8>,
    /// Whether direct I/O goes through the page cache.
    buffered: bool,
    /// The volume that its file system is on.
    volume: Volume,
    /// The logical block size of the volume.
    block_size: u64,
}

/// Returns a file's capabilities, as the attribute has them; empty if it has none.
fn capabilities_of(file: &File) -> io::Result<Vec<u8>> {
    let mut value = vec![0; CAPABILITIES_MAX];
    match fgetxattr(file, CAPABILITIES, &mut value) {
        Ok(length) => value.truncate(length),
        // IO: they are in a bad block, which is reported.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::IO) => value.clear(),
        Err(error) => return Err(error.into()),
    }
    Ok(value)
}

/// Magic numbers of statfs(2): ext2, ext3 and ext4; XFS.
const SUPPORTED: [u64; 2] = [0xef53, 0x5846_5342];

/// The volumes of all disks of persistent memory.
fn volumes(host: &Host) -> Result<Vec<Volume>> {
    let mounts = Mounts::here()?;
    let devices = Device::all(host);
    let disks = devices.iter().filter_map(Device::disk);
    disks
        .map(|disk| topology::of_disk(host, disk.name(), &mounts))
        .collect()
}

/// The volume of this number, on any disk of persistent memory.
fn volume(host: &Host, number: DeviceNumber) -> Result<Option<Volume>> {
    fn find(volume: Volume, number: DeviceNumber) -> Option<Volume> {
        if volume.number().is_ok_and(|its| its == number) {
            return Some(volume);
        }
        volume
            .children
            .into_iter()
            .find_map(|child| find(child, number))
    }
    let mut disks = volumes(host)?.into_iter();
    Ok(disks.find_map(|disk| find(disk, number)))
}

/// Fails if a write over bad blocks of the volume makes snapshots invalid.
fn ensure_no_snapshots(host: &Host, number: DeviceNumber) -> Result<()> {
    let mut found = BTreeSet::new();
    for disk in volumes(host)? {
        found.append(&mut remap::snapshots(host, &disk, number)?);
    }
    let names = Vec::from_iter(found).join(", ");
    ensure!(
        names.is_empty(),
        "a write over a bad block makes snapshots of its volume invalid: {names}; copy what is in them, and remove them or \
         use --invalidate-snapshots"
    );
    Ok(())
}

/// Opens the volume of this name for reading; fails if its node is that of another device, as in a `/dev` without devtmpfs.
fn open_device(host: &Host, name: &str, number: DeviceNumber) -> Result<File> {
    let node = host.path("dev").join(name);
    let device = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(&node)
        .with_context(|| printable(&node))?;
    let metadata = device.metadata()?;
    ensure!(
        metadata.file_type().is_block_device()
            && DeviceNumber::from_rdev(metadata.rdev()) == number,
        "{}: this is not the device {number} of the file system; make the node anew",
        printable(&node)
    );
    Ok(device)
}

/// Opens a path without an effect on the file. `ELOOP` if it has symbolic links and must not.
fn open_path(path: &Path, no_symlinks: bool) -> Result<File> {
    let resolve = match no_symlinks {
        true => ResolveFlags::NO_SYMLINKS,
        false => ResolveFlags::empty(),
    };
    // O_PATH, because opening a device may have side effects.
    let handle = openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
    .map_err(|error| match error {
        Errno::LOOP if no_symlinks => anyhow!("{}: the path has a symbolic link", printable(path)),
        error => anyhow!("{}: {}", printable(path), io::Error::from(error)),
    })?;
    Ok(handle.into())
}

fn has_dax(file: &File) -> io::Result<bool> {
    let status = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(status.stx_attributes.contains(StatxAttributes::DAX))
}

/// Returns the name by which an opened path can be opened again.
fn again(handle: &File) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

impl Target {
    fn open(host: &Host, path: &Path, no_symlinks: bool) -> Result<Self> {
        let name = printable(path);
        let handle = open_path(path, no_symlinks)?;
        let metadata = handle.metadata().with_context(|| name.clone())?;
        ensure!(metadata.is_file(), "{name}: this is no regular file");
        let kind = rustix::fs::fstatfs(&handle)?.f_type as u64;
        ensure!(
            SUPPORTED.contains(&kind),
            "{name}: only files of ext4 and XFS are repaired"
        );
        let number = DeviceNumber::from_rdev(metadata.dev());
        let Some(volume) = volume(host, number)? else {
            bail!("{name}: the file is not on persistent memory");
        };
        let mount = rustix::fs::fstatvfs(&handle)?.f_flag;
        ensure!(
            !mount.contains(StatVfsMountFlags::RDONLY),
            "{name}: it is mounted read-only; mount it writable"
        );
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN;
        let status = rustix::fs::statx(&handle, "", AtFlags::EMPTY_PATH, wanted)?;
        for (attribute, what) in [
            (StatxAttributes::IMMUTABLE, "immutable; see chattr(1)"),
            (StatxAttributes::APPEND, "append-only; see chattr(1)"),
            (
                StatxAttributes::VERITY,
                "protected by fs-verity: write a new file",
            ),
            (StatxAttributes::ENCRYPTED, "encrypted: write a new file"),
        ] {
            ensure!(
                !status.stx_attributes.contains(attribute),
                "{name}: it is {what}"
            );
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags((OFlags::NONBLOCK | OFlags::NOATIME).bits() as i32)
            .open(again(&handle))
            .map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::TXTBSY) => anyhow!("{name}: the file is a running program"),
                Some(Errno::WOULDBLOCK) => {
                    anyhow!("{name}: another process holds a lease on it; try again")
                }
                _ => anyhow!("{name}: {error}"),
            })?;
        ensure!(
            !extents::is_real_time(&file).unwrap_or(false),
            "{name}: its data is on the real-time device; only data on the file system's own is repaired"
        );
        // SIGIO kills by default; a waiting process is detected by querying the lease.
        signal_hook::flag::register(SIGIO, Arc::new(AtomicBool::new(false)))?;
        if let Err(error) = Lease::Write.take(&file) {
            if Errno::from_io_error(&error) != Some(Errno::AGAIN) {
                return Err(error).with_context(|| format!("{name}: no lease on it"));
            }
            let used = open_files::of_file_systems(host, &[number]);
            let its = used.iter().filter(|used| used.inode == metadata.ino());
            let who: Vec<_> = its
                .flat_map(|used| used.users(&(0..u64::MAX)))
                .map(|user| user.to_string())
                .collect();
            match who.as_slice() {
                [] => bail!(
                    "{name}: it is in use by something that is not visible here: a loop device, the kernel's NFS server, another container"
                ),
                who => bail!("{name}: it is in use; end these first: {}", who.join("; ")),
            }
        }
        // The first call reports an earlier failure of writeback, if nobody has seen it.
        file.sync_all()
            .or_else(|_| file.sync_all())
            .with_context(|| format!("{name}: fsync failed"))?;
        Ok(Self {
            block_size: topology::block_size(host, &volume.kernel_name),
            path: path.to_owned(),
            metadata: file.metadata()?,
            dax: status.stx_attributes.contains(StatxAttributes::DAX),
            capabilities: capabilities_of(&file)
                .with_context(|| format!("{name}: {CAPABILITIES}"))?,
            // Linux before 6.1 does not report it.
            buffered: status.stx_mask & StatxFlags::DIOALIGN.bits() != 0
                && status.stx_dio_offset_align == 0,
            file,
            volume,
        })
    }

    fn name(&self) -> String {
        printable(&self.path)
    }

    /// Gives the file its capabilities again, which each write removes, also by root.
    fn restore_capabilities(&self) -> io::Result<()> {
        if !self.capabilities.is_empty() {
            let value = &self.capabilities;
            fsetxattr(&self.file, CAPABILITIES, value, XattrFlags::empty())?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.metadata.len()
    }

    /// Returns the extents that overlap a range of the file.
    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let mut found = Vec::new();
        extents::of_range(&self.file, range, |extent| found.push(*extent))
            .with_context(|| format!("{}: where its bytes are", self.name()))?;
        Ok(found)
    }

    /// Reads with or without `O_DIRECT`, up to the end of the file.
    fn read(&self, at: u64, buffer: &mut [u8], direct: bool) -> io::Result<usize> {
        self.direct(direct)?;
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes a range past the page cache, which drops its pages there first. What only the page cache may have is written
    /// through it, so that it is still there if the write fails.
    fn write(
        &self,
        piece: &RepairRange,
        buffer: &mut DirectBuffer,
        cached: &Ranges,
    ) -> io::Result<()> {
        let mut write = |ranges: &Ranges| {
            ranges.iter().try_for_each(|range| {
                let bytes = part(buffer, piece.file_offset, range);
                self.file.write_all_at(bytes, range.start)
            })
        };
        self.direct(false)?;
        write(cached)?;
        self.direct(true)?;
        write(&cached.gaps(&piece.range()))
    }

    /// Writes what the page cache has to the memory.
    fn write_cached(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.ensure_alone()?;
        self.direct(false)?;
        self.file.write_all_at(bytes, at)?;
        self.file.sync_all()?;
        Ok(self.restore_capabilities()?)
    }

    fn direct(&self, direct: bool) -> io::Result<()> {
        let mut flags = rustix::fs::fcntl_getfl(&self.file)?;
        flags.set(OFlags::DIRECT, direct);
        Ok(rustix::fs::fcntl_setfl(&self.file, flags)?)
    }

    /// Replaces a shared range by new blocks with these bytes. A write would do so as well, but with DAX the
    /// kernel first copies the blocks around it (`dax_iomap_copy_around`), which cannot be read.
    fn replace(&self, piece: &RepairRange, bytes: &[u8]) -> io::Result<()> {
        let folder = fs::canonicalize(&self.path)?;
        let folder = folder.parent().unwrap_or(Path::new("/"));
        if fs::metadata(folder)?.dev() != self.metadata.dev() {
            return Err(io::Error::other(format!(
                "{} is on another file system than the file, which is mounted there; give the file's path on its own file system",
                printable(folder)
            )));
        }
        let new = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::TMPFILE.bits() as i32)
            .open(folder)?;
        // XFS does not share blocks of a DAX file with another one. The attribute of a new file is that of its directory.
        if has_dax(&new)? != self.dax {
            let (option, what) = match self.dax {
                true => ("+x", "has"),
                false => ("-x", "does not have"),
            };
            return Err(io::Error::other(format!(
                "the file {what} the DAX attribute, unlike new files of its directory; run: chattr {option} {}",
                shell_path(folder)
            )));
        }
        new.write_all_at(bytes, 0)?;
        new.sync_all()?;
        extents::clone_range(&new, piece.length, &self.file, piece.file_offset)
    }

    /// Truncates the file to its size. Blocks that were preallocated behind its end, as `behind` lists them, are allocated
    /// again, because truncate(2) frees them.
    fn restore_size(&self, behind: &[Range<u64>]) -> io::Result<()> {
        self.file.set_len(self.size())?;
        for range in behind {
            let length = range.end - range.start;
            rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, range.start, length)?;
        }
        Ok(())
    }

    /// Returns the bytes of the file's blocks behind the one with its end.
    fn behind_end(&self) -> Result<Vec<Range<u64>>> {
        let block = rustix::fs::fstatvfs(&self.file)?.f_frsize;
        let behind = self.size().next_multiple_of(block)..u64::MAX;
        let extents = self.extents(behind.clone())?;
        let parts = extents.iter().filter_map(|extent| {
            let all = extent.logical..extent.logical.saturating_add(extent.length);
            common(&all, &behind)
        });
        Ok(parts.collect())
    }

    /// Fails if the kernel no longer keeps others from opening the file, whose data they could change: a lease that others
    /// wait for ends after a time.
    fn ensure_alone(&self) -> Result<()> {
        ensure!(
            Lease::held(&self.file)? == Some(Lease::Write),
            "another process waits to open or truncate it; try again"
        );
        Ok(())
    }

    /// Verifies that the name, length and blocks of the file are unchanged.
    fn is_the_same(&self, piece: &RepairRange) -> Result<()> {
        let now = self.file.metadata()?;
        ensure!(now.nlink() > 0, "it was removed during the repair");
        let by_name = fs::metadata(&self.path).context("its name no longer exists")?;
        ensure!(
            (by_name.dev(), by_name.ino()) == (now.dev(), now.ino()),
            "its name leads to another file now"
        );
        ensure!(
            now.len() == self.size(),
            "its size changed during the repair"
        );
        self.ensure_alone()?;
        let there = self.extents(piece.range())?.iter().any(|extent| {
            extent.logical <= piece.file_offset
                && extent.logical.saturating_add(extent.length) >= piece.range().end
                && extent.physical + (piece.file_offset - extent.logical) == piece.physical
                && (extent.flags ^ piece.flags) & Extent::SHARED == 0
                // ext4 writes zeros to a short rest of an unwritten extent.
                && extent.flags & Extent::UNWRITTEN & !piece.flags == 0
        });
        ensure!(there, "its blocks were moved during the repair");
        Ok(())
    }
}

/// Returns the bytes of `range` in a buffer that starts at `from` of the file.
fn part<'a>(buffer: &'a mut DirectBuffer, from: u64, range: &Range<u64>) -> &'a mut [u8] {
    &mut buffer.bytes()[(range.start - from) as usize..(range.end - from) as usize]
}

/// The backup.
struct Backup {
    path: PathBuf,
    file: File,
    metadata: Metadata,
}

impl Backup {
    fn open(path: &Path, target: &Target, request: &Request) -> Result<Self> {
        let name = printable(path);
        let handle = open_path(path, request.no_symlinks)?;
        let metadata = handle.metadata().with_context(|| name.clone())?;
        ensure!(metadata.is_file(), "{name}: this is no regular file");
        let same = (metadata.dev(), metadata.ino());
        ensure!(
            same != (target.metadata.dev(), target.metadata.ino()),
            "{name}: this is the file itself"
        );
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(again(&handle))
            .with_context(|| name.clone())?;
        let metadata = file.metadata()?;
        match &request.range {
            None => ensure!(
                metadata.len() == target.size(),
                "{name}: it has {} bytes, {} has {}; to use it nevertheless, give --offset and --length",
                metadata.len(),
                target.name(),
                target.size()
            ),
            Some(range) => ensure!(
                metadata.len() >= range.end,
                "{name}: it has {} bytes, less than the end of the range, {}",
                metadata.len(),
                range.end
            ),
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
        })
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let name = printable(&self.path);
        self.file
            .read_exact_at(bytes, at)
            .map_err(|error| match error.raw_os_error() {
                Some(code) if code == Errno::IO.raw_os_error() => {
                    anyhow!("{name}: the backup has a bad block at {at} as well, or shares its blocks with the file")
                }
                _ => anyhow!("{name}: read failed at {at}: {error}"),
            })?;
        let now = self.file.metadata()?;
        let state = |of: &Metadata| {
            (
                of.len(),
                of.mtime(),
                of.mtime_nsec(),
                of.ctime(),
                of.ctime_nsec(),
            )
        };
        ensure!(
            state(&now) == state(&self.metadata),
            "{name}: the backup has changed while it was read"
        );
        Ok(())
    }

    /// Compares bytes of the file with those at the same offset, as far as these exist and can be read.
    fn compare(&self, at: u64, bytes: &[u8], compared: &mut Comparison) -> Result<()> {
        let length = self
            .metadata
            .len()
            .saturating_sub(at)
            .min(bytes.len() as u64);
        let mut own = vec![0; length as usize];
        match self.file.read_exact_at(&mut own, at) {
            Ok(()) => compared.add(bytes, &own),
            Err(error) if is_lost(&error) => {}
            Err(error) => {
                let name = printable(&self.path);
                return Err(error).with_context(|| format!("{name}: read failed at {at}"));
            }
        }
        Ok(())
    }
}

/// The new contents of a range.
struct Contents {
    buffer: DirectBuffer,
    /// Bytes that come from the source.
    replaced: u64,
    /// Bytes that the range still has, and keeps.
    kept: u64,
    /// The pages that were read through the page cache, which may be all that has them.
    cached: Ranges,
    /// The kept bytes, compared with the backup.
    compared: Comparison,
    /// Nothing has to be written.
    is_good: bool,
}

/// What could be read of a range.
#[derive(Default)]
struct Recovered {
    /// Bytes that can't be read.
    lost: Ranges,
    /// Bytes that were read through the page cache.
    cached: Ranges,
}

/// What a listed range that can be read is, compared with other copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readable {
    Good,
    /// The backup differs.
    Different,
    /// The page cache differs, as a write of it has failed, and fails again.
    Outdated,
}

/// What the page cache has of a listed range.
struct Cached {
    bytes: DirectBuffer,
    /// It does not have these.
    missing: Ranges,
}

/// Copies of the contents of listed ranges.
trait Copies {
    /// Reads the page cache, while the range is listed: later, it would be filled from the memory.
    fn look(&self, range: &ListedRange) -> Result<Cached>;

    /// Compares a range that can be read, and is not listed any more, with the copies.
    fn compare(&self, range: &ListedRange, cached: Cached) -> Result<Readable>;
}

/// The page cache and the backup of a repair.
struct CopiesOf<'a> {
    job: &'a Job,
    /// Ranges of the file that read as zeros, whatever is in memory.
    unwritten: Ranges,
    /// What the page cache has may be written.
    may_write: bool,
}

/// What was listed and can be read.
#[derive(Debug, Default)]
struct Recheck {
    /// It is off the lists.
    good: Vec<ListedRange>,
    /// It is listed again, because the backup differs.
    different: Vec<ListedRange>,
}

/// A repair with its open files.
struct Job {
    target: Target,
    backup: Option<Backup>,
    range: Option<Range<u64>>,
    /// Replace all of the range, not only bytes that can't be read.
    overwrite_good: bool,
    /// The volume of the file system, for reading the good sectors of a bad page.
    device: File,
}

/// Rounds `bytes` to whole pages of memory; `memory` is the address of the first one.
fn whole_pages(bytes: &Range<u64>, memory: u64) -> Range<u64> {
    let before = memory % PAGE;
    let length = (before + (bytes.end - bytes.start)).next_multiple_of(PAGE);
    let start = bytes.start.saturating_sub(before);
    start..bytes.start + (length - before)
}

/// Where bytes of a volume are on its disks, derived from the nearest bad range.
struct Places<'a> {
    bad: &'a [(String, Spans)],
    /// The start and the end in the volume, how far the place on the disk is behind it, modulo 2^64, and the disk;
    /// in this order.
    known: Vec<(u64, u64, u64, &'a str)>,
}

impl<'a> Places<'a> {
    fn of(bad: &'a [(String, Spans)]) -> Self {
        let mut known: Vec<_> = bad
            .iter()
            .flat_map(|(disk, spans)| {
                spans.iter().map(|span| {
                    let shift = span.disk_offset.wrapping_sub(span.offset);
                    let Range { start, end } = span.range();
                    (start, end, shift, disk.as_str())
                })
            })
            .collect();
        known.sort_unstable();
        Self { bad, known }
    }

    /// Returns the shift and the disk of the byte at `offset`; 0 and no name if no range is bad.
    fn nearest(&self, offset: u64) -> (u64, &'a str) {
        let next = self.known.partition_point(|(start, ..)| *start <= offset);
        self.known[next.saturating_sub(1)..]
            .iter()
            .take(2)
            .min_by_key(|(start, end, ..)| match offset < *end {
                true => start.saturating_sub(offset),
                false => offset - end,
            })
            .map_or((0, ""), |(_, _, shift, disk)| (*shift, disk))
    }
}

/// Returns the ranges of an extent to write: all pages with some of the `requested` bytes of the file.
fn ranges_of(extent: &Extent, requested: &[Range<u64>], places: &Places<'_>) -> Vec<RepairRange> {
    let all = extent.logical..extent.logical.saturating_add(extent.length);
    let mut found: Vec<RepairRange> = Vec::new();
    let mut ranges: Vec<_> = requested
        .iter()
        .filter_map(|range| common(range, &all))
        .collect();
    ranges.sort_by_key(|range| range.start);
    for range in ranges {
        let physical = extent.physical + (range.start - extent.logical);
        let (shift, disk) = places.nearest(physical);
        let memory = physical.wrapping_add(shift);
        let Some(pages) = common(&whole_pages(&range, memory), &all) else {
            continue;
        };
        let mut start = pages.start.max(
            found
                .last()
                .map_or(0, |last| last.file_offset + last.length),
        );
        while start < pages.end {
            // End at a page boundary.
            let room = CHUNK
                - extent
                    .physical
                    .wrapping_add(start - extent.logical)
                    .wrapping_add(shift)
                    % PAGE;
            let end = pages.end.min(start + room);
            let physical = extent.physical + (start - extent.logical);
            let here = Extent::new(start, physical, end - start);
            let its = (places.bad.iter()).flat_map(|(_, spans)| spans.in_extent(&here));
            let ranges: Vec<_> = its.map(|(part, at)| at..at + part.length).collect();
            found.push(RepairRange {
                file_offset: start,
                length: end - start,
                disk: (!ranges.is_empty()).then(|| disk.to_owned()),
                disk_offset: (!ranges.is_empty()).then(|| physical.wrapping_add(shift)),
                bad: ranges.iter().map(|range| range.end - range.start).sum(),
                replaced: 0,
                kept: 0,
                shared: extent.flags & Extent::SHARED != 0,
                result: Outcome::Planned,
                reason: None,
                physical,
                flags: extent.flags,
                ranges,
            });
            start = end;
        }
    }
    found
}

impl RepairRange {
    fn range(&self) -> Range<u64> {
        self.file_offset..self.file_offset + self.length
    }

    /// A range that was listed, and is kept.
    fn kept(listed: &ListedRange, size: u64) -> Self {
        Self {
            file_offset: listed.file_offset,
            length: listed.length,
            disk: Some(listed.disk.clone()),
            disk_offset: Some(listed.disk_offset),
            bad: listed.length,
            replaced: 0,
            kept: listed.length.min(size.saturating_sub(listed.file_offset)),
            shared: false,
            result: Outcome::GoodAfterAll,
            reason: None,
            physical: listed.physical,
            flags: 0,
            ranges: Vec::new(),
        }
    }

    fn set_counts(&mut self, contents: &Contents) {
        self.replaced = contents.replaced;
        self.kept = contents.kept;
    }

    fn failed(&mut self, reason: impl ToString) {
        self.result = Outcome::Failed;
        self.reason = Some(reason.to_string());
    }
}

/// Reads `all` but for the bad ranges in it, in aligned blocks of `unit` bytes where a part of it fails; returns what is
/// lost.
fn lost_parts(
    all: &Range<u64>,
    bad: &[Range<u64>],
    unit: u64,
    read: &mut dyn FnMut(Range<u64>) -> io::Result<()>,
) -> io::Result<Ranges> {
    // A block with a bad sector is bad.
    let blocks = |range: &Range<u64>| {
        let blocks = range.start / unit * unit..range.end.next_multiple_of(unit);
        common(&blocks, all)
    };
    let mut lost: Ranges = bad.iter().filter_map(blocks).collect();
    for good in lost.gaps(all).iter() {
        match read(good.clone()) {
            Ok(()) => continue,
            Err(error) if is_lost(&error) => {}
            Err(error) => return Err(error),
        }
        let mut at = good.start;
        while at < good.end {
            let block = at..(at + 1).next_multiple_of(unit).min(good.end);
            at = block.end;
            match read(block.clone()) {
                Ok(()) => {}
                Err(error) if is_lost(&error) => lost.insert(block),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(lost)
}

/// Returns what is around the ranges in a file of `size` bytes, without the ranges.
fn surroundings(ranges: &Ranges, size: u64) -> Ranges {
    let wide =
        |range: &Range<u64>| range.start.saturating_sub(AROUND)..(range.end + AROUND).min(size);
    ranges.iter().map(wide).collect::<Ranges>().without(ranges)
}

/// Returns the bytes of `data` to replace: those that are `lost`, or all of the given range with `overwrite_good`. Fails if bytes
/// are lost outside of that range.
fn choose_replaced(
    data: &Range<u64>,
    lost: Ranges,
    range: Option<&Range<u64>>,
    overwrite_good: bool,
) -> Result<Ranges> {
    let Some(range) = range else {
        return Ok(lost);
    };
    let outside = |lost: &&Range<u64>| common(lost, range).as_ref() != Some(*lost);
    if let Some(outside) = lost.iter().find(outside) {
        bail!(
            "bytes {} to {} are bad and must be repaired together with the range; give a range that includes them",
            outside.start,
            outside.end
        );
    }
    Ok(match overwrite_good {
        true => common(range, data).into_iter().collect(),
        false => lost,
    })
}

impl Copies for CopiesOf<'_> {
    fn look(&self, range: &ListedRange) -> Result<Cached> {
        let mut bytes = DirectBuffer::new(range.length as usize);
        let missing = self.job.read_page_cache(&range.range(), &mut bytes)?;
        Ok(Cached { bytes, missing })
    }

    fn compare(&self, range: &ListedRange, mut cached: Cached) -> Result<Readable> {
        let target = &self.job.target;
        let size = target.size();
        let piece = RepairRange::kept(range, size);
        let mut buffer = DirectBuffer::new(range.length as usize);
        let lost = self.job.read_device(&piece, &range.range(), &mut buffer)?;
        let data = range.file_offset..size.clamp(range.file_offset, range.range().end);
        let kept = lost.gaps(&data).without(&self.unwritten.within(&data));
        for copied in kept.without(&cached.missing).iter() {
            let bytes = part(&mut cached.bytes, range.file_offset, copied);
            if bytes == part(&mut buffer, range.file_offset, copied) {
                continue;
            }
            // Off the list, it can be written.
            if !self.may_write || target.write_cached(bytes, copied.start).is_err() {
                return Ok(Readable::Outdated);
            }
            part(&mut buffer, range.file_offset, copied).copy_from_slice(bytes);
        }
        let Some(backup) = &self.job.backup else {
            return Ok(Readable::Good);
        };
        let mut compared = Comparison::default();
        for kept in kept.iter() {
            let bytes = part(&mut buffer, range.file_offset, kept);
            backup.compare(kept.start, bytes, &mut compared)?;
        }
        // What the backup lacks, or can't be read there, is not the same.
        Ok(match compared.same < kept.count() {
            true => Readable::Different,
            false => Readable::Good,
        })
    }
}

impl Job {
    /// Returns the new contents of a range.
    fn contents(&self, piece: &RepairRange) -> Result<Contents> {
        let mut buffer = DirectBuffer::new(piece.length as usize);
        let all = piece.range();
        let data = all.start..all.end.min(self.target.size());
        let Recovered { lost, cached } = self.recover(piece, &mut buffer)?;
        part(&mut buffer, all.start, &(data.end..all.end)).fill(0);
        let range = self.range.as_ref();
        let replaced = choose_replaced(&data, lost.within(&data), range, self.overwrite_good)?;
        let compared = self.fill_and_compare(piece, &data, &replaced, &mut buffer)?;
        let count = replaced.count();
        Ok(Contents {
            buffer,
            replaced: count,
            kept: data.end - data.start - count,
            compared,
            // A page that is not listed and can be read needs no write. In the page cache, it says nothing of the memory.
            is_good: piece.ranges.is_empty() && replaced.is_empty() && cached.is_empty(),
            cached,
        })
    }

    /// Reads what can still be read of a range.
    fn recover(&self, piece: &RepairRange, buffer: &mut DirectBuffer) -> Result<Recovered> {
        // An unwritten extent reads as zeros, whatever is in memory.
        if piece.flags & Extent::UNWRITTEN != 0 {
            return Ok(Recovered::default());
        }
        let uncached = self.read_page_cache(&piece.range(), buffer)?;
        let mut lost = Ranges::default();
        for range in uncached.iter() {
            lost.extend(self.read_device(piece, range, buffer)?.iter().cloned());
        }
        Ok(Recovered {
            lost,
            cached: uncached.gaps(&piece.range()),
        })
    }

    /// Fills in the replaced bytes, and compares the others of `data` with the backup.
    fn fill_and_compare(
        &self,
        piece: &RepairRange,
        data: &Range<u64>,
        replaced: &Ranges,
        buffer: &mut DirectBuffer,
    ) -> Result<Comparison> {
        let mut compared = Comparison::default();
        let Some(backup) = &self.backup else {
            for range in replaced.iter() {
                part(buffer, piece.file_offset, range).fill(0);
            }
            return Ok(compared);
        };
        for range in replaced.iter() {
            backup.read(range.start, part(buffer, piece.file_offset, range))?;
        }
        for kept in replaced.gaps(data).iter() {
            let bytes = part(buffer, piece.file_offset, kept);
            backup.compare(kept.start, bytes, &mut compared)?;
        }
        Ok(compared)
    }

    /// Reads what would be written, and what remains around it, to compare the backup with the file. Fails if the backup is of
    /// another version of the file, unless `force`d.
    fn read_sources(&self, report: &mut Report, force: bool) -> Result<()> {
        let name = &report.file;
        let mut compared = Comparison::default();
        let planned = |piece: &&mut RepairRange| piece.result == Outcome::Planned;
        for piece in report.pieces.iter_mut().filter(planned) {
            if piece.file_offset >= self.target.size() {
                piece.failed("it is beyond the end of the file, which has no data there");
                continue;
            }
            let contents = self.contents(piece).with_context(|| name.clone())?;
            piece.set_counts(&contents);
            if self.backup.is_none() {
                report.lost += contents.replaced;
            }
            if contents.is_good {
                piece.result = Outcome::GoodAfterAll;
            }
            if piece.replaced > 0 {
                compared.same += contents.compared.same;
                compared.different += contents.compared.different;
            }
        }
        let is_replaced = report.pieces.iter().any(|piece| piece.replaced > 0);
        let Some(backup) = self.backup.as_ref().filter(|_| is_replaced) else {
            return Ok(());
        };
        let around = self
            .compare(backup, &report.pieces)
            .with_context(|| name.clone())?;
        compared.same += around.same;
        compared.different += around.different;
        ensure!(
            compared.different == 0 || force,
            "{}: the backup is of another version of {name}: {} of {} bytes around the bad ranges differ; to use it \
             nevertheless, use --force",
            printable(&backup.path),
            compared.different,
            compared.same + compared.different
        );
        ensure!(
            compared.same > 0 || force,
            "{}: no byte of {name} around the bad ranges can be read and compared with this backup; to use it \
             nevertheless, use --force",
            printable(&backup.path)
        );
        report.compared = Some(compared);
        Ok(())
    }

    /// Writes the planned ranges. Returns why it stopped before the last one.
    fn write_all(&self, pieces: &mut [RepairRange]) -> Option<String> {
        let mut stopped = None;
        let planned = |piece: &&mut RepairRange| piece.result == Outcome::Planned;
        for piece in pieces.iter_mut().filter(planned) {
            if stopped.is_some() {
                piece.failed("not tried");
                continue;
            }
            match self.write(piece) {
                Ok(mut written) if piece.result == Outcome::Planned => {
                    self.read_back(piece, &mut written)
                }
                Ok(_) => {}
                Err(error) => {
                    piece.failed("not tried");
                    stopped = Some(format!("{error:#}"));
                }
            }
        }
        stopped
    }

    /// Reads the pages of a range through the file; returns the rest. The page cache may have data that the memory has lost.
    fn read_page_cache(&self, range: &Range<u64>, buffer: &mut DirectBuffer) -> Result<Ranges> {
        if self.target.dax {
            return Ok([range.clone()].into_iter().collect());
        }
        let mut read = |pages: Range<u64>| {
            let data = pages.start..self.target.size().clamp(pages.start, pages.end);
            let bytes = part(buffer, range.start, &data);
            let length = bytes.len();
            match self.target.read(data.start, bytes, false)? == length {
                true => Ok(()),
                false => Err(Errno::IO.into()),
            }
        };
        lost_parts(range, &[], PAGE, &mut read)
            .with_context(|| format!("read failed at {}", range.start))
    }

    /// Reads the good bytes of a part of the piece from the device; returns the rest.
    fn read_device(
        &self,
        piece: &RepairRange,
        all: &Range<u64>,
        buffer: &mut DirectBuffer,
    ) -> Result<Ranges> {
        let mut read = |range: Range<u64>| {
            let at = piece.physical + (range.start - piece.file_offset);
            let bytes = part(buffer, piece.file_offset, &range);
            self.device.read_exact_at(bytes, at)
        };
        let bad = piece.ranges.iter().filter_map(|bad| common(bad, all));
        let bad: Vec<_> = bad.collect();
        lost_parts(all, &bad, self.target.block_size, &mut read)
            .with_context(|| format!("{}: read failed", self.target.volume.name))
    }

    /// Compares what can be read around the ranges with the backup.
    fn compare(&self, backup: &Backup, pieces: &[RepairRange]) -> Result<Comparison> {
        let mut compared = Comparison::default();
        let size = self.target.size().min(backup.metadata.len());
        let replaced = pieces.iter().filter(|piece| piece.replaced > 0);
        let ranges = replaced.map(RepairRange::range).collect();
        for range in surroundings(&ranges, size).iter() {
            // A page cannot be read if it has a bad block.
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min((at + 1).next_multiple_of(PAGE));
                let mut bytes = vec![0; (end - at) as usize];
                match self.target.read(at, &mut bytes, false) {
                    Ok(count) => backup.compare(at, &bytes[..count], &mut compared)?,
                    Err(error) if is_lost(&error) => {}
                    Err(error) => {
                        return Err(error).with_context(|| format!("read failed at {at}"));
                    }
                }
                at = end;
            }
        }
        Ok(compared)
    }

    /// Writes a range. Fails if the file has changed, which ends the repair.
    fn write(&self, piece: &mut RepairRange) -> Result<DirectBuffer> {
        let contents = self.contents(piece)?;
        piece.set_counts(&contents);
        let Contents {
            mut buffer,
            mut cached,
            ..
        } = contents;
        // The disk repairs whole pages of memory: none may be written in two parts.
        if piece
            .disk_offset
            .is_some_and(|at| (at ^ piece.file_offset) % PAGE != 0)
        {
            cached = Ranges::default();
        }
        let target = &self.target;
        // Block signals between the check and the write.
        let _whole = BlockedSignals::new()?;
        target.is_the_same(piece)?;
        // Whole pages are written, and the last one extends the file.
        let extends = piece.range().end > target.size();
        let behind = match extends {
            true => target.behind_end()?,
            false => Vec::new(),
        };
        let written = match piece.shared {
            true => target.replace(piece, buffer.bytes()),
            false => target.write(piece, &mut buffer, &cached),
        };
        let restored = match extends {
            true => target.restore_size(&behind),
            false => Ok(()),
        };
        if let Err(error) = written.and_then(|()| target.file.sync_all()) {
            piece.failed(self.why(piece, &error));
        } else if let Err(error) = restored {
            piece.failed(format!(
                "written, but the file has not its old size of {} bytes and its old blocks behind that: {error}",
                target.size()
            ));
        }
        Ok(buffer)
    }

    fn why(&self, piece: &RepairRange, error: &io::Error) -> String {
        let refused = [Errno::IO, Errno::FAULT]
            .contains(&Errno::from_io_error(error).unwrap_or(Errno::INVAL));
        if !refused {
            return format!("the write failed: {error}");
        }
        let disk = piece.disk.as_deref().unwrap_or("the disk");
        format!(
            "{disk}: the write did not clear the poison ({error}): its bus has no command to clear errors, or the page is shared with other \
             blocks; copy the file, and keep this one so that its memory is not reused"
        )
    }

    /// Reads a range back and compares it.
    fn read_back(&self, piece: &mut RepairRange, requested: &mut DirectBuffer) {
        let mut there = DirectBuffer::new(piece.length as usize);
        let length = (self.target.size().min(piece.range().end) - piece.file_offset) as usize;
        match self.target.read(piece.file_offset, there.bytes(), true) {
            Ok(count)
                if count >= length && there.bytes()[..length] == requested.bytes()[..length] => {}
            Ok(_) => piece.failed("it reads back as something else"),
            Err(error) => piece.failed(format!("cannot be read back: {error}")),
        }
    }
}

/// Returns the bad ranges of a volume, with their disks; fails if they are unknown.
fn bad_of(host: &Host, file: &Path, number: DeviceNumber) -> Result<Vec<(String, Spans)>> {
    let survey = Survey::of(host)?;
    if let Some(reason) = survey.unknown(&affected::Target::File(file.to_owned()), number) {
        bail!("{}: {reason}", printable(file));
    }
    let own = |affected: &AffectedVolume| affected.chain.first() == Some(&number);
    let affected = survey
        .affected
        .into_iter()
        .filter(|(_, affected)| own(affected));
    let bad = affected.map(|(disk, affected)| (disk.name().to_owned(), affected.spans));
    Ok(bad.collect())
}

/// A listed range of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ListedRange {
    disk: String,
    disk_offset: u64,
    file_offset: u64,
    length: u64,
    /// From the start of the volume.
    physical: u64,
}

impl ListedRange {
    /// The bytes of the file.
    fn range(&self) -> Range<u64> {
        self.file_offset..self.file_offset + self.length
    }

    /// The bytes of the disk.
    fn on_disk(&self) -> Range<u64> {
        self.disk_offset..self.disk_offset + self.length
    }

    /// Returns the part in `range` of the file.
    fn cut(&self, range: &Range<u64>) -> Option<Self> {
        let part = common(&self.range(), range)?;
        let skipped = part.start - self.file_offset;
        Some(Self {
            disk: self.disk.clone(),
            disk_offset: self.disk_offset + skipped,
            file_offset: part.start,
            length: part.end - part.start,
            physical: self.physical + skipped,
        })
    }

    /// Returns its parts in each page of memory.
    fn pages(&self) -> impl Iterator<Item = (u64, Self)> {
        let end = self.disk_offset + self.length;
        let pages = self.disk_offset / PAGE..end.div_ceil(PAGE);
        pages.filter_map(move |page| {
            let start = (page * PAGE).max(self.disk_offset) - self.disk_offset;
            let end = ((page + 1) * PAGE).min(end) - self.disk_offset;
            let part = self.cut(&(self.file_offset + start..self.file_offset + end))?;
            Some((page, part))
        })
    }
}

/// Returns the listed ranges of the file's extents.
fn listed_ranges(extents: &[Extent], bad: &[(String, Spans)]) -> Vec<ListedRange> {
    let mut found = Vec::new();
    for extent in extents {
        for (disk, spans) in bad {
            found.extend(spans.in_extent(extent).map(|(span, at)| ListedRange {
                disk: disk.clone(),
                disk_offset: span.disk_offset,
                file_offset: at,
                length: span.length,
                physical: span.offset,
            }));
        }
    }
    found
}

/// Reads listed ranges by `drop_readable`, which takes bytes of a disk off its list, and the parts of ranges in them, and
/// returns true if they can be read.
fn read_listed(
    listed: &[ListedRange],
    mut drop_readable: impl FnMut(&str, &Range<u64>, &[ListedRange]) -> Result<bool>,
) -> Result<()> {
    // A page is read once, whatever is listed of it: unmapped pages come back as a whole only.
    let mut pages: BTreeMap<(String, u64), Vec<ListedRange>> = BTreeMap::new();
    for range in listed {
        for (page, part) in range.pages() {
            let parts = pages.entry((range.disk.clone(), page)).or_default();
            parts.push(part);
        }
    }
    for ((disk, page), parts) in pages {
        if drop_readable(&disk, &(page * PAGE..(page + 1) * PAGE), &parts)? {
            continue;
        }
        for part in parts.iter().filter(|part| part.length < PAGE) {
            drop_readable(&disk, &part.on_disk(), std::slice::from_ref(part))?;
        }
    }
    Ok(())
}

/// Returns the ranges in the order of the file, with those that are next to each other everywhere as one.
fn merge(mut found: Vec<ListedRange>) -> Vec<ListedRange> {
    found.sort_by_key(|part| part.file_offset);
    let mut merged: Vec<ListedRange> = Vec::new();
    for part in found {
        match merged.last_mut() {
            Some(last)
                if last.disk == part.disk
                    && last.file_offset + last.length == part.file_offset
                    && last.disk_offset + last.length == part.disk_offset =>
            {
                last.length += part.length;
            }
            _ => merged.push(part),
        }
    }
    merged
}

/// Returns what is listed in the pieces, but not in `range`.
fn beside(listed: &[ListedRange], pieces: &[RepairRange], range: &Range<u64>) -> Vec<ListedRange> {
    let mut parts: Ranges = pieces.iter().map(RepairRange::range).collect();
    parts.remove(range);
    let mut found = Vec::new();
    for listed in listed {
        let its = parts.within(&listed.range());
        found.extend(its.iter().filter_map(|part| listed.cut(part)));
    }
    found
}

/// Returns the parts of `range` without listed bytes in their pages, and the listed bytes in its other pages. Each of the
/// latter is in one place of one disk, also on a striped volume.
fn parts_of(range: &Range<u64>, listed: &[ListedRange]) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut bad = Ranges::default();
    for listed in listed {
        let pages_of = |bytes: &Range<u64>| {
            let before = bytes.start.wrapping_sub(listed.file_offset);
            whole_pages(bytes, listed.disk_offset.wrapping_add(before))
        };
        if let Some(part) = common(&pages_of(&listed.range()), range) {
            let pages = pages_of(&part);
            parts.extend(common(&pages, &listed.range()));
            bad.insert(pages);
        }
    }
    parts.extend(bad.gaps(range).iter().cloned());
    parts
}

/// Returns the ranges of the file to write: the given one, or all that is listed.
fn plan(
    extents: &[Extent],
    bad: &[(String, Spans)],
    range: Option<&Range<u64>>,
) -> Vec<RepairRange> {
    let places = Places::of(bad);
    let mut pieces = Vec::new();
    for extent in extents {
        let listed = listed_ranges(std::slice::from_ref(extent), bad);
        let requested = match range {
            None => listed.iter().map(ListedRange::range).collect(),
            Some(range) => parts_of(range, &listed),
        };
        pieces.extend(ranges_of(extent, &requested, &places));
    }
    pieces
}

/// Fails if a part of the range has no block that could be written.
fn ensure_no_hole(extents: &[Extent], range: &Range<u64>) -> Result<()> {
    let all = |extent: &Extent| extent.logical..extent.logical.saturating_add(extent.length);
    let allocated: Ranges = extents.iter().map(all).collect();
    if let Some(hole) = allocated.gaps(range).iter().next() {
        bail!(
            "bytes {} to {} are a hole, which has no memory to overwrite; write them into the file by other means, such as dd(1), \
             or give a range without them",
            hole.start,
            hole.end
        );
    }
    Ok(())
}

/// Takes what can be read off the exact lists of the disks, unless it differs from another copy.
fn drop_readable(host: &Host, listed: &[ListedRange], copies: &dyn Copies) -> Result<Recheck> {
    let mut lists = BTreeMap::new();
    for name in listed.iter().map(|range| &range.disk) {
        if !lists.contains_key(name) {
            let disk = Disk::find(host, name).with_context(|| format!("{name} has gone"))?;
            let list = disk.exact_list();
            ensure!(
                list.is_some(),
                "{name}: its driver has no exact list, by which it can be proven that a listed range is bad; to replace \
                 what is listed without that, use --trust-list"
            );
            if let Some(why) = unsurvivable(host) {
                bail!(
                    "{name}: what is listed is not read, because a bad page would stop this machine: {why}; to replace it \
                     without that, use --trust-list"
                );
            }
            lists.insert(name.clone(), (list, disk.size().bytes()));
        }
    }
    let mut found = Recheck::default();
    let mut failure = None;
    let read = read_listed(listed, |name, bytes, parts| {
        let Some((Some(list), size)) = lists.get(name) else {
            return Ok(false);
        };
        let cached: Vec<_> = parts
            .iter()
            .map(|part| copies.look(part))
            .collect::<Result<_>>()?;
        // No signal leaves a page off the list that was not compared.
        let _whole = BlockedSignals::new()?;
        if !list.drop_readable(&(bytes.start..bytes.end.min(*size)))? {
            return Ok(false);
        }
        for (part, cached) in parts.iter().zip(cached) {
            // What can't be compared is listed again as well.
            let is = copies.compare(part, cached).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                Readable::Different
            });
            if is != Readable::Good {
                if let Err(error) = list.add(&part.on_disk(), Origin::RESTORED) {
                    failure.get_or_insert(error);
                }
            }
            match is {
                Readable::Good => found.good.push(part.clone()),
                Readable::Different => found.different.push(part.clone()),
                Readable::Outdated => {}
            }
        }
        Ok(true)
    });
    if let Some(error) = failure {
        return Err(error);
    }
    read?;
    Ok(Recheck {
        good: merge(found.good),
        different: merge(found.different),
    })
}

/// Fails if a disk of the volume may have errors that are not listed.
fn ensure_complete(host: &Host, number: DeviceNumber) -> Result<()> {
    for name in topology::disks_below(host, number) {
        let disk = Disk::find(host, &name).with_context(|| format!("{name} has gone"))?;
        // Only disks of persistent memory have such a list.
        if disk.owner().is_some() {
            ensure!(
                !disk.may_lack_errors()?,
                "the list of {name} is nearly full and may lack errors; to repair the listed ranges, use --trust-list"
            );
        }
    }
    Ok(())
}

/// Returns the ranges of the file to repair. Without `--trust-list`, listed pages that can be read are dropped from the lists
/// of errors first, unless they differ from the backup; if the whole file is repaired, they are among the ranges, as kept.
fn find_pieces(
    host: &Host,
    request: &Request,
    job: &Job,
    number: DeviceNumber,
) -> Result<Vec<RepairRange>> {
    let target = &job.target;
    let extents = target.extents(0..u64::MAX)?;
    if let Some(range) = request.range.as_ref().filter(|_| request.overwrite_good) {
        ensure_no_hole(&extents, range).with_context(|| target.name())?;
    }
    let mut bad = bad_of(host, &request.file, number)?;
    let mut pieces = plan(&extents, &bad, request.range.as_ref());
    let mut recheck = Recheck::default();
    if !request.trust_list {
        ensure_complete(host, number).with_context(|| target.name())?;
        if !request.dry_run {
            let listed = listed_ranges(&extents, &bad);
            let listed = match &request.range {
                None => listed,
                Some(range) if request.overwrite_good => beside(&listed, &pieces, range),
                Some(_) => beside(&listed, &pieces, &(0..0)),
            };
            let unwritten: Ranges = extents
                .iter()
                .filter(|extent| extent.flags & Extent::UNWRITTEN != 0)
                .map(|extent| extent.logical..extent.logical.saturating_add(extent.length))
                .collect();
            let copies = CopiesOf {
                job,
                unwritten,
                may_write: request.invalidate_snapshots
                    || ensure_no_snapshots(host, number).is_ok(),
            };
            recheck = drop_readable(host, &listed, &copies).with_context(|| target.name())?;
            if !(recheck.good.is_empty() && recheck.different.is_empty()) {
                bad = bad_of(host, &request.file, number)?;
                pieces = plan(&extents, &bad, request.range.as_ref());
            }
        }
    }
    let Recheck { good, different } = recheck;
    let different: Ranges = different.iter().map(ListedRange::range).collect();
    for piece in &mut pieces {
        if !different.within(&piece.range()).is_empty() {
            piece.failed(
                "it can be read, but differs from the backup: a virtual machine that starts again may have other memory there; \
                 to replace it, use --trust-list, to keep it, \"pmemctl errors forget\"",
            );
        }
    }
    if request.range.is_none() {
        let size = target.size();
        pieces.extend(good.iter().map(|range| RepairRange::kept(range, size)));
        pieces.sort_by_key(|piece: &RepairRange| piece.file_offset);
    }
    Ok(pieces)
}

/// Repairs a file, or plans it. Fails before any change if the file is refused.
pub fn repair(host: &Host, request: &Request) -> Result<Report> {
    let target = Target::open(host, &request.file, request.no_symlinks)?;
    let name = target.name();
    let number = DeviceNumber::from_rdev(target.metadata.dev());
    if let Some(range) = &request.range {
        ensure!(
            range.start < range.end && range.end <= target.size(),
            "{name}: it has {} bytes; there is no range from {} to {} of them",
            target.size(),
            range.start,
            range.end
        );
    }
    let backup = match &request.source {
        Source::Zeros => None,
        Source::Backup(path) => Some(Backup::open(path, &target, request)?),
    };
    let device = open_device(host, &target.volume.kernel_name, number)?;
    let job = Job {
        target,
        backup,
        range: request.range.clone(),
        overwrite_good: request.overwrite_good,
        device,
    };
    let pieces = find_pieces(host, request, &job, number)?;
    let mut report = Report {
        file: name,
        inode: job.target.metadata.ino(),
        source: match &request.source {
            Source::Zeros => None,
            Source::Backup(path) => Some(printable(path)),
        },
        dry_run: request.dry_run,
        pieces,
        lost: 0,
        compared: None,
        stopped: None,
    };
    // Read all sources before anything is changed.
    job.read_sources(&mut report, request.force)?;
    let is_planned = |piece: &RepairRange| piece.result == Outcome::Planned;
    if report.pieces.iter().any(is_planned) {
        // fsync(2) writes such data to the journal only.
        ensure!(
            !job.target.buffered,
            "{}: its data is journaled, so that a write reaches the bad blocks at a later time; end that by chattr -j, or mount \
             the file system without data=journal",
            job.target.name()
        );
        if !request.invalidate_snapshots {
            ensure_no_snapshots(host, number).with_context(|| job.target.name())?;
        }
    }
    if has_bad_attributes(host, &job, number)? {
        report.stopped = Some(
            "its extended attributes are in a bad block, which is not repaired: copy the file, and remove this one"
                .to_owned(),
        );
    }
    if request.dry_run {
        return Ok(report);
    }
    if let Some(stopped) = job.write_all(&mut report.pieces) {
        report.stopped = Some(stopped);
    }
    if let Err(error) = job.target.restore_capabilities() {
        report
            .stopped
            .get_or_insert_with(|| format!("its capabilities are gone: {error}; see setcap(8)"));
    }
    if let Err(error) = verify(host, &job, &mut report.pieces) {
        let written = |piece: &&mut RepairRange| piece.result == Outcome::Planned;
        for piece in report.pieces.iter_mut().filter(written) {
            piece.failed("written, but whether it is still listed is unknown");
        }
        report.stopped.get_or_insert_with(|| format!("{error:#}"));
    }
    let is_zero = |piece: &&RepairRange| job.backup.is_none() && piece.result != Outcome::Failed;
    report.lost = report
        .pieces
        .iter()
        .filter(is_zero)
        .map(|piece| piece.replaced)
        .sum();
    Ok(report)
}

/// Returns whether a block with the file's extended attributes is listed.
fn has_bad_attributes(host: &Host, job: &Job, number: DeviceNumber) -> Result<bool> {
    let mut extents = Vec::new();
    // Fails where there are none.
    let _ = extents::of_file(&job.target.file, Fork::Attributes, |extent| {
        extents.push(*extent);
    });
    if extents.is_empty() {
        return Ok(false);
    }
    let bad = bad_of(host, &job.target.path, number)?;
    Ok(!listed_ranges(&extents, &bad).is_empty())
}

/// Verifies that the written ranges are not listed any more.
fn verify(host: &Host, job: &Job, pieces: &mut [RepairRange]) -> Result<()> {
    let number = DeviceNumber::from_rdev(job.target.metadata.dev());
    let bad = bad_of(host, &job.target.path, number)?;
    for piece in pieces
        .iter_mut()
        .filter(|piece| piece.result == Outcome::Planned)
    {
        let mut moved = false;
        let mut listed = false;
        for extent in job.target.extents(piece.range())? {
            let its = extent.logical..extent.logical.saturating_add(extent.length);
            if let Some(part) = common(&piece.range(), &its) {
                let physical = extent.physical + (part.start - extent.logical);
                moved |= physical != piece.physical + (part.start - piece.file_offset);
                let place = physical..physical + (part.end - part.start);
                listed |= bad
                    .iter()
                    .any(|(_, spans)| spans.within(&place).next().is_some());
            }
        }
        match (listed, moved) {
            (true, _) => piece.failed("written, but still listed as bad"),
            (false, true) => piece.result = Outcome::Moved,
            (false, false) => piece.result = Outcome::Repaired,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::remap::Span;
    use proptest::prelude::*;
    use std::slice::from_ref;

    fn bad(disk_offset: u64, offset: u64, length: u64) -> (String, Spans) {
        let span = Span {
            disk_offset,
            offset,
            length,
        };
        ("pmem0".into(), [span].into_iter().collect())
    }

    /// Offset, length and bad bytes of each.
    fn pieces(
        extent: &Extent,
        requested: &[Range<u64>],
        bad: &[(String, Spans)],
    ) -> Vec<(u64, u64, u64)> {
        ranges_of(extent, requested, &Places::of(bad))
            .iter()
            .map(|piece| (piece.file_offset, piece.length, piece.bad))
            .collect()
    }

    #[test]
    fn ranges_round_to_whole_pages() {
        assert_eq!(whole_pages(&(512..1024), 4096 + 512), 0..4096);
        assert_eq!(whole_pages(&(8192..12288), 0), 8192..12288);
        assert_eq!(whole_pages(&(8192..12289), 0), 8192..16384);
        // A partition that is not page-aligned.
        assert_eq!(whole_pages(&(8192..8704), 1024), 7168..11264);
    }

    #[test]
    fn ranges_cover_bad_pages_only() {
        let file = Extent::new(8192, 65536, 16384);
        let requested = [12800..13312, 13824..14336];
        let list = [
            bad(1 << 20, 65536 + 4608, 512),
            bad((1 << 20) + 1024, 65536 + 5632, 512),
        ];
        assert_eq!(pieces(&file, &requested, &list[..0]), [(12288, 4096, 0)]);
        // Pages of the disk count: the partition starts 512 bytes into one.
        assert_eq!(pieces(&file, &requested, &list), [(12800, 4096, 1024)]);
        // No more than the extent.
        let one = |range: Range<u64>| pieces(&file, std::slice::from_ref(&range), &[]);
        assert_eq!(one(0..10000), [(8192, 4096, 0)]);
        assert!(one(0..8192).is_empty());
    }

    #[test]
    fn place_follows_the_nearest_bad_range() {
        // A volume on two disks; the first bad range is long.
        let list = [
            (
                "pmem0".into(),
                [Span {
                    disk_offset: 4096,
                    offset: 0,
                    length: 8192,
                }]
                .into_iter()
                .collect(),
            ),
            (
                "pmem1".into(),
                [Span {
                    disk_offset: 512,
                    offset: 12288,
                    length: 512,
                }]
                .into_iter()
                .collect(),
            ),
        ];
        let places = Places::of(&list);
        for (offset, disk) in [
            (0, "pmem0"),
            (8191, "pmem0"),
            (9000, "pmem0"),
            (12000, "pmem1"),
            (12288, "pmem1"),
            (1 << 20, "pmem1"),
        ] {
            assert_eq!(places.nearest(offset).1, disk, "{offset}");
        }
        assert_eq!(places.nearest(0).0, 4096);
        assert_eq!(Places::of(&[]).nearest(4096), (0, ""));
    }

    #[test]
    fn requested_range_across_stripes_has_the_disk_of_each_bad_page() {
        // Chunks of 64 KiB: the first and the third one are on pmem0, 1 MiB behind the start.
        let on_other = [bad(61952, 65536 + 61952, 512), bad(69120, 200192, 512)];
        let on_other = on_other
            .into_iter()
            .flat_map(|(_, spans)| Vec::from_iter(spans.iter()));
        let list = [
            bad((1 << 20) + 65536, 131072, 65536),
            ("pmem1".into(), on_other.collect()),
        ];
        let file = Extent::new(0, 0, 4 << 20);
        let pieces = plan(from_ref(&file), &list, Some(&(0..1 << 20)));
        let found: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.range(), piece.disk.as_deref(), piece.disk_offset))
            .collect();
        assert_eq!(
            found,
            [
                (0..126976, None, None),
                (126976..131072, Some("pmem1"), Some(61440)),
                (131072..196608, Some("pmem0"), Some((1 << 20) + 65536)),
                (196608..200704, Some("pmem1"), Some(65536)),
                (200704..1 << 20, None, None),
            ]
        );
        // Of a long bad range, only the requested pages.
        let pieces = plan(from_ref(&file), &list, Some(&(135168..135169)));
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].range(), 135168..139264);
        assert_eq!(pieces[0].disk_offset, Some((1 << 20) + 69632));
    }

    #[test]
    fn large_ranges_split_at_pages() {
        let file = Extent::new(0, 4096 + 512, 3 << 20);
        let all = 0..3 << 20;
        let found = pieces(&file, std::slice::from_ref(&all), &[]);
        assert_eq!(found[0], (0, (1 << 20) - 512, 0));
        assert_eq!(found[1].0, (1 << 20) - 512);
        assert_eq!(found.iter().map(|piece| piece.1).sum::<u64>(), 3 << 20);
    }

    fn listed(disk_offset: u64, file_offset: u64, length: u64) -> ListedRange {
        ListedRange {
            disk: "pmem0".into(),
            disk_offset,
            file_offset,
            length,
            physical: disk_offset,
        }
    }

    #[test]
    fn without_an_exact_list_nothing_is_proven() {
        let machine = crate::testing::FakeSysfs::new();
        let error = drop_readable(&machine.host, &[listed(4096, 0, 4096)], &NoCopies).unwrap_err();
        assert!(error.to_string().contains("--trust-list"), "{error}");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn cpu_that_cannot_recover_reads_no_poison() {
        let machine = crate::testing::FakeSysfs::with_nested_disk();
        let list = "sys/devices/ndbus0/region0/pfn0.0/errors/list";
        machine.write(list, "1052672 4096 log");
        machine.write("sys/devices/system/machinecheck/machinecheck0/bank0", "1");
        machine.write(
            "proc/cpuinfo",
            "vendor_id\t: AuthenticAMD\nflags\t\t: fpu mce",
        );
        let error = drop_readable(&machine.host, &[listed(4096, 0, 4096)], &NoCopies).unwrap_err();
        assert!(error.to_string().contains("succor"), "{error}");
        let text = fs::read_to_string(machine.host.path(list)).unwrap();
        assert_eq!(text, "1052672 4096 log\n");
    }

    struct NoCopies;

    impl Copies for NoCopies {
        fn look(&self, _: &ListedRange) -> Result<Cached> {
            bail!("there is no page cache")
        }

        fn compare(&self, _: &ListedRange, _: Cached) -> Result<Readable> {
            Ok(Readable::Good)
        }
    }

    /// The ranges that are kept if what is in `bad` can't be read, and the number of reads.
    fn kept(ranges: &[ListedRange], bad: &[Range<u64>]) -> (Vec<ListedRange>, usize) {
        let mut reads = 0;
        let mut found = Vec::new();
        let read = read_listed(ranges, |_, bytes, parts| {
            reads += 1;
            let can = !bad.iter().any(|bad| common(bad, bytes).is_some());
            if can {
                found.extend_from_slice(parts);
            }
            Ok(can)
        });
        read.unwrap();
        (merge(found), reads)
    }

    #[test]
    fn listed_page_that_can_be_read_is_kept() {
        let ranges = [listed(1 << 20, 0, 3 * 4096), listed(8 << 20, 65536, 512)];
        assert_eq!(kept(&ranges, &[]), (ranges.to_vec(), 4));
        // Only a bad page is replaced.
        let bad = (1 << 20) + 4096..(1 << 20) + 8192;
        let (found, _) = kept(&ranges, &[bad]);
        assert_eq!(
            found,
            [
                listed(1 << 20, 0, 4096),
                listed((1 << 20) + 8192, 8192, 4096),
                listed(8 << 20, 65536, 512)
            ]
        );
        let (found, _) = kept(&ranges, from_ref(&(0..u64::MAX)));
        assert_eq!(found, []);
    }

    #[test]
    fn sector_beside_a_bad_one_is_kept() {
        let ranges = [listed(4096, 0, 512), listed(5120, 1024, 512)];
        let (found, reads) = kept(&ranges, from_ref(&(5120..5632)));
        assert_eq!((found.as_slice(), reads), (&ranges[..1], 3));
    }

    #[test]
    fn error_other_than_a_bad_block_ends_the_search() {
        let ranges = [listed(4096, 0, 512)];
        assert!(read_listed(&ranges, |_, _, _| bail!("no memory")).is_err());
    }

    #[test]
    fn beside_a_range_only_listed_bytes_are_read() {
        let extent = Extent::new(0, 0, 65536);
        let list = [bad(0, 0, 16384)];
        let read = |range: Range<u64>| {
            let extents = std::slice::from_ref(&extent);
            let pieces = plan(extents, &list, Some(&range));
            beside(&listed_ranges(extents, &list), &pieces, &range)
        };
        let found = read(8704..9216);
        assert_eq!(found, [listed(8192, 8192, 512), listed(9216, 9216, 3072)]);
        assert!(read(4096..8192).is_empty());
        assert!(read(20480..20992).is_empty());
    }

    #[test]
    fn hole_in_a_range_is_refused() {
        let extents = [
            Extent::new(4096, 65536, 4096),
            Extent::new(8192, 81920, 4096),
        ];
        assert!(ensure_no_hole(&extents, &(5000..12000)).is_ok());
        for (range, hole) in [
            (0..8192, "bytes 0 to 4096 "),
            (8192..12289, "bytes 12288 to 12289 "),
            (20000..20001, "bytes 20000 to 20001 "),
        ] {
            let error = ensure_no_hole(&extents, &range).unwrap_err();
            assert!(error.to_string().starts_with(hole), "{error}");
        }
    }

    #[test]
    fn only_an_io_error_means_that_data_is_lost() {
        let all = 0..4096;
        let fail_at = |place: u64, errno: Errno| {
            move |range: Range<u64>| match range.contains(&place) {
                true => Err(io::Error::from(errno)),
                false => Ok(()),
            }
        };
        for errno in [Errno::IO, Errno::FAULT] {
            let lost = lost_parts(&all, from_ref(&(0..512)), 512, &mut fail_at(1600, errno));
            assert!(lost.unwrap().iter().eq(&[0..512, 1536..2048]));
        }
        for errno in [Errno::INVAL, Errno::NOMEM, Errno::INTR, Errno::NXIO] {
            assert!(lost_parts(&all, &[], 512, &mut fail_at(1600, errno)).is_err());
        }
        assert!(!is_lost(&io::ErrorKind::UnexpectedEof.into()));
    }

    #[test]
    fn lost_bytes_are_replaced_or_all_of_a_range() {
        let data = 4096..8192;
        let lost = || Ranges::from_iter(Some(5120..5632));
        let choose = |range: Option<Range<u64>>, all| {
            choose_replaced(&data, lost(), range.as_ref(), all)
                .map(|found| found.iter().cloned().collect::<Vec<_>>())
        };
        for (range, all, replaced) in [
            (None, false, 5120..5632),
            (Some(5000..100_000), false, 5120..5632),
            (Some(5000..100_000), true, 5000..8192),
        ] {
            assert_eq!(choose(range, all).unwrap(), [replaced]);
        }
        for all in [false, true] {
            let error = choose(Some(5500..6000), all).unwrap_err();
            assert!(
                error.to_string().starts_with("bytes 5120 to 5632 "),
                "{error}"
            );
        }
    }

    #[test]
    fn large_blocks_are_read_as_a_whole() {
        let mut reads = Vec::new();
        let lost = lost_parts(&(0..12288), from_ref(&(4608..5120)), 4096, &mut |range| {
            reads.push(range);
            Ok(())
        });
        assert!(lost.unwrap().iter().eq(from_ref(&(4096..8192))));
        assert_eq!(reads, [0..4096, 8192..12288]);
    }

    #[test]
    fn page_beside_a_lost_one_is_read() {
        // The range begins within a page of the file.
        let mut reads = Vec::new();
        let lost = lost_parts(&(3584..16384), &[], PAGE, &mut |range| {
            reads.push(range.clone());
            match range.contains(&8192) {
                true => Err(Errno::IO.into()),
                false => Ok(()),
            }
        });
        assert!(lost.unwrap().iter().eq(from_ref(&(8192..12288))));
        assert_eq!(
            reads[1..],
            [3584..4096, 4096..8192, 8192..12288, 12288..16384]
        );
    }

    #[test]
    fn surroundings_are_compared() {
        let far = 10 * AROUND;
        let ranges = [far..far + 4096, 4096..8192, 12288..16384];
        assert_eq!(
            surroundings(&ranges.into_iter().collect(), far + 5000),
            [
                0..4096,
                8192..12288,
                16384..16384 + AROUND,
                far - AROUND..far,
                far + 4096..far + 5000
            ]
            .into_iter()
            .collect()
        );
        let mut compared = Comparison::default();
        compared.add(b"abcd", b"abxd");
        compared.add(b"abcd", b"ab");
        assert_eq!((compared.same, compared.different), (5, 1));
    }

    proptest! {
        #[test]
        fn requested_bytes_are_written_once(
            start in 0_u64..64, length in 1_u64..2000, shift in 0_u64..8,
            parts in prop::collection::vec((0_u64..2000, 1_u64..600), 0..8)
        ) {
            let file = Extent::new(start * 512, 1 << 20, length * 512);
            let end = file.logical + file.length;
            let requested: Vec<_> = parts.iter().map(|(at, length)| at * 512..(at + length) * 512).collect();
            let list = [bad((8 << 20) + shift * 512, 1 << 20, 512)];
            let found = ranges_of(&file, &requested, &Places::of(&list));
            let mut last = file.logical;
            for piece in &found {
                prop_assert!(piece.file_offset >= last && piece.length > 0 && piece.length <= CHUNK);
                last = piece.file_offset + piece.length;
                prop_assert!(last <= end);
                prop_assert_eq!(piece.physical - file.physical, piece.file_offset - file.logical);
            }
            for range in requested {
                let inside = common(&range, &(file.logical..end));
                let covered: u64 = inside.iter().flat_map(|range| {
                    found.iter().filter_map(|piece| common(range, &piece.range()))
                }).map(|part| part.end - part.start).sum();
                prop_assert_eq!(covered, inside.map_or(0, |range| range.end - range.start));
            }
        }
    }
}
