// SPDX-License-Identifier: GPL-2.0

//! Keeps free bad blocks of a mounted file system from being given to other files.
//!
//! A file owns them. The kernel has no call that allocates a given block, so free space is allocated in pieces until no
//! bad block is free, and all other blocks are given back. Blocks are allocated unwritten, so that nothing is written to
//! them, and a read of the file returns zeros without reading them.

use crate::affected::{self, Survey, Target};
use crate::badblocks::kernel::bytes;
use crate::badblocks::origin::SECTOR;
use crate::badblocks::set::BadBlocks;
use crate::block::devno::DeviceNumber;
use crate::block::mountinfo;
use crate::block::topology;
use crate::fs::kernel_reports;
use crate::fs::mounted::{self, FileSystem};
use crate::fs::quarantine_mark;
use crate::fs::reopen::again;
use crate::sysfs::{Host, printable};
use abstractions::extents::{self, Extent, Fork};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, IFlags, Mode, OFlags, StatVfsMountFlags,
    StatxAttributes, StatxFlags, fallocate, flock, fstat, fstatvfs, ftruncate, ioctl_getflags,
    ioctl_setflags, open, openat, statat, statx, unlinkat,
};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use units::Size;

/// The name of the file, in the root directory of the file system.
pub const NAME: &str = ".pmemctl-quarantine";

/// The first and the largest piece that is allocated at once.
const PIECES: Range<u64> = 64 << 20..1 << 30;

/// The highest number of holes that are closed at a time, those at the end: XFS needs a transaction for each part behind
/// each hole.
const MOVED: usize = 1000;

#[derive(Debug)]
pub struct Request {
    pub mount: PathBuf,
    pub name: OsString,
    /// Bytes that stay available to other files at any time; 5 % of the file system if `None`.
    pub keep_free: Option<u64>,
    /// How long free space is allocated at most.
    pub time: Duration,
}

#[derive(Debug, JsonSchema, Serialize)]
pub struct Report {
    pub mount: String,
    pub file: String,
    /// Bytes of bad blocks that the file owns.
    pub quarantined: u64,
    /// Bytes of bad blocks that are still free.
    pub free: u64,
    /// Bytes of bad blocks of other files or of metadata.
    pub in_use: u64,
    /// Bytes that the file has given back, because they are no longer listed as bad, or it was removed.
    pub released: u64,
    /// Why bad blocks are still free.
    pub stopped: Option<String>,
}

/// A quarantine file with the usual name.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Quarantine {
    pub mount: String,
    pub file: String,
    pub bytes: u64,
}

/// The root directory of a mounted file system.
struct Place {
    directory: PathBuf,
    root: File,
    device: DeviceNumber,
    /// Bytes of a block.
    block: u64,
}

impl Place {
    fn open(directory: &Path) -> Result<Self> {
        let shown = printable(directory);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle: File = open(directory, flags | OFlags::PATH, Mode::empty())
            .with_context(|| shown.clone())?
            .into();
        let id = mountinfo::id_of(&handle).with_context(|| shown.clone())?;
        let mut mounts = mountinfo::own(&Host::here())?.into_iter();
        let mount = mounts.find(|mount| mount.id == id);
        let mount = mount.with_context(|| format!("{shown}: its mount is not visible"))?;
        ensure!(
            mount.file_system == "ext4" || mount.file_system == "xfs",
            "{shown}: {} cannot allocate blocks without writing them; only ext4 and XFS can",
            mount.file_system
        );
        ensure!(
            mount.is_whole(),
            "{shown}: this is a bind mount of a part of the file system; give a mount of all of it"
        );
        // Only now, because a file system of a user may not answer.
        let root: File = open(again(&handle), flags | OFlags::RDONLY, Mode::empty())
            .with_context(|| shown.clone())?
            .into();
        let status = fstat(&root).with_context(|| shown.clone())?;
        let flags = AtFlags::EMPTY_PATH;
        let root_of_mount = statx(&root, "", flags, StatxFlags::BASIC_STATS)
            .is_ok_and(|it| it.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        ensure!(
            root_of_mount,
            "{shown}: this is a directory below the mount {}; give the mount",
            printable(&mount.directory)
        );
        let space = fstatvfs(&root).with_context(|| shown.clone())?;
        Ok(Self {
            directory: directory.to_owned(),
            device: DeviceNumber::from_rdev(status.st_dev),
            block: space.f_frsize.max(SECTOR),
            root,
        })
    }

    fn ensure_writable(&self) -> Result<()> {
        let space = fstatvfs(&self.root)?;
        ensure!(
            !space.f_flag.contains(StatVfsMountFlags::RDONLY),
            "{} is mounted read-only; mount it read-write",
            printable(&self.directory)
        );
        Ok(())
    }

    /// Returns the bad blocks, in sectors from the start of the volume; whole blocks of the file system.
    fn bad(&self, host: &Host) -> Result<BadBlocks> {
        let survey = Survey::of(host)?;
        let target = Target::Mount(self.device);
        if let Some(reason) = survey.unknown(&target, self.device) {
            bail!("{}: {reason}", printable(&self.directory));
        }
        let spans = survey.bad_of(self.device);
        if let Some(affected) = survey.on(self.device).next() {
            let system = FileSystem::at(&affected.volume, &self.directory)?;
            ensure!(
                system.groups_without_bitmap(&spans)?.is_empty(),
                "{}: a block bitmap is bad; the search for free blocks would read it, which is an error in the file system. Unmount it, and run e2fsck",
                printable(&self.directory)
            );
        }
        Ok(blocks(spans.iter().map(|span| span.range()), self.block))
    }

    /// Returns the blocks of these that are free.
    fn free(&self, of: &BadBlocks) -> Result<BadBlocks> {
        let ranges: Vec<_> = of.ranges().map(bytes).collect();
        let free = mounted::free_parts(&self.root, self.device, &ranges);
        let free =
            free.with_context(|| format!("free blocks of {}", printable(&self.directory)))?;
        Ok(blocks(free.into_iter(), self.block).common(of))
    }

    /// Opens a quarantine file without changing it; `None` if there is no file of that name.
    fn find(&self, name: &OsStr) -> Result<Option<QuarantineFile>> {
        let path = self.directory.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = match openat(&self.root, name, flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).with_context(|| printable(&path)),
        };
        let status = fstat(&file)?;
        let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        let is_private = status.st_uid == 0 && status.st_nlink == 1 && status.st_mode & 0o077 == 0;
        // It was created, but the command was killed before it was marked.
        let is_empty = status.st_size == 0 && status.st_blocks == 0;
        ensure!(
            is_file && is_private && (quarantine_mark::is_on(&file) || is_empty),
            "{}: this is no quarantine file; give another name with --name",
            printable(&path)
        );
        Ok(Some(QuarantineFile {
            path,
            file,
            block: self.block,
        }))
    }

    fn create(&self, name: &OsStr) -> Result<QuarantineFile> {
        let path = self.directory.join(name);
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file: File = openat(&self.root, name, flags, mode)
            .with_context(|| printable(&path))?
            .into();
        Ok(QuarantineFile {
            path,
            file,
            block: self.block,
        })
    }

    /// Returns whether the name leads to this file.
    fn leads_to(&self, name: &OsStr, file: &QuarantineFile) -> Result<bool> {
        let there = match statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error).with_context(|| printable(&file.path)),
        };
        let its = fstat(&file.file)?;
        Ok((there.st_dev, there.st_ino) == (its.st_dev, its.st_ino))
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        unlinkat(&self.root, name, AtFlags::empty())?;
        self.root.sync_all()?;
        Ok(())
    }
}

/// Returns ranges of bytes as sectors, rounded out to whole blocks.
fn blocks(ranges: impl Iterator<Item = Range<u64>>, block: u64) -> BadBlocks {
    let round = |range: Range<u64>| {
        let start = range.start / block * block;
        let end = range.end.div_ceil(block).saturating_mul(block);
        start / SECTOR..end / SECTOR
    };
    ranges.map(round).collect()
}

struct QuarantineFile {
    path: PathBuf,
    /// For queries.
    file: File,
    block: u64,
}

/// A quarantine file that can be changed.
struct Unlocked {
    file: File,
    block: u64,
}

impl QuarantineFile {
    /// Returns its extents in order of their offsets.
    fn extents(&self) -> Result<Vec<Extent>> {
        extents_of(&self.file).with_context(|| printable(&self.path))
    }

    /// Opens it for changes. The immutable attribute is back after [`Self::lock`].
    fn unlock(&self) -> Result<Unlocked> {
        let context = || printable(&self.path);
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                bail!("{}: another \"pmemctl quarantine\" is running", context())
            }
            Err(error) => return Err(error).with_context(context),
        }
        let flags = ioctl_getflags(&self.file).with_context(context)?;
        if flags.contains(IFlags::IMMUTABLE) {
            ioctl_setflags(&self.file, flags - IFlags::IMMUTABLE).with_context(context)?;
        }
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file: File = open(path, flags, Mode::empty())
            .with_context(context)?
            .into();
        ensure!(
            !extents::is_real_time(&file).unwrap_or(false),
            "{}: files of this directory are on the real-time device; their blocks are not supported",
            context()
        );
        quarantine_mark::set(&file).with_context(context)?;
        Ok(Unlocked {
            file,
            block: self.block,
        })
    }

    fn lock(&self, unlocked: &Unlocked) -> Result<()> {
        let context = || printable(&self.path);
        unlocked.file.sync_all().with_context(context)?;
        let flags = ioctl_getflags(&self.file).with_context(context)?;
        ioctl_setflags(&self.file, flags | IFlags::IMMUTABLE).with_context(context)
    }
}

fn extents_of(file: &File) -> io::Result<Vec<Extent>> {
    let mut found = Vec::new();
    extents::of_file(file, Fork::Data, |extent| found.push(*extent))?;
    Ok(found)
}

/// Returns the sectors of a volume that are in these extents.
fn sectors_of(extents: &[Extent]) -> BadBlocks {
    let range = |extent: &Extent| {
        let end = extent.physical.saturating_add(extent.length);
        extent.physical / SECTOR..end / SECTOR
    };
    extents.iter().map(range).collect()
}

/// Returns the parts of a file whose blocks are in `keep`, in order and merged.
fn kept_parts(extents: &[Extent], keep: &BadBlocks) -> Vec<Range<u64>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    for extent in extents {
        let own = extent.physical / SECTOR..extent.physical.saturating_add(extent.length) / SECTOR;
        for part in keep.within(&own).ranges() {
            let part = bytes(part);
            let start = extent.logical + (part.start - extent.physical);
            let end = start + (part.end - part.start);
            match parts.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => parts.push(start..end),
            }
        }
    }
    parts
}

impl Unlocked {
    fn size(&self) -> Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Allocates free space behind the end of the file until `is_done` or a limit is reached; returns the limit.
    fn fill(
        &self,
        request: &Request,
        stop: &AtomicBool,
        mut is_done: impl FnMut() -> Result<bool>,
    ) -> Result<Option<String>> {
        let start = Instant::now();
        let mut piece = PIECES.start;
        let mut end = self.size()?.next_multiple_of(self.block);
        while !is_done()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(Some("stopped by a signal".to_owned()));
            }
            if start.elapsed() > request.time {
                let time = request.time.as_secs();
                return Ok(Some(format!("not found in {time} s; use a larger --time")));
            }
            let space = fstatvfs(&self.file)?;
            let keep = request
                .keep_free
                .unwrap_or(space.f_blocks * space.f_frsize / 20);
            let spare = (space.f_bavail * space.f_frsize).saturating_sub(keep);
            let length = piece.min(spare) / self.block * self.block;
            if length == 0 {
                let keep = Size::from_bytes(keep);
                return Ok(Some(format!(
                    "to take more would leave less than {keep} free; use a smaller --keep-free, or free some space"
                )));
            }
            match fallocate(&self.file, FallocateFlags::empty(), end, length) {
                Ok(()) => {
                    piece = piece.saturating_mul(2).min(PIECES.end);
                    end = end.saturating_add(length);
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                // Some of it may have been allocated.
                Err(Errno::NOSPC) if length > self.block => {
                    piece = (length / 2).max(self.block);
                    end = end.saturating_add(length);
                }
                Err(Errno::NOSPC) => {
                    return Ok(Some(
                        "there is no more free space to take; free some space, and run it again"
                            .to_owned(),
                    ));
                }
                Err(Errno::FBIG) => {
                    return Ok(Some(
                        "the file would be too large; use --name for another file".to_owned(),
                    ));
                }
                Err(error) => return Err(error).context("cannot allocate free space"),
            }
        }
        Ok(None)
    }

    /// Gives back all blocks that are not in `keep`, and moves the rest together.
    fn trim(&self, keep: &BadBlocks) -> Result<()> {
        let kept = kept_parts(&extents_of(&self.file)?, keep);
        ftruncate(&self.file, kept.last().map_or(0, |part| part.end))?;
        let starts = std::iter::once(0).chain(kept.iter().map(|part| part.end));
        let gaps: Vec<_> = starts
            .zip(kept.iter().map(|part| part.start))
            .filter(|(start, end)| start < end)
            .collect();
        for (start, end) in &gaps {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.file, punch, *start, end - start)?;
        }
        // From the end, so that the offsets of earlier parts stay as they are.
        for (start, end) in gaps.into_iter().rev().take(MOVED) {
            let collapse = FallocateFlags::COLLAPSE_RANGE;
            match fallocate(&self.file, collapse, start, end - start) {
                // Blocks may be larger than those of fstatvfs (bigalloc, extent size hints).
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Sets a flag for signals that would end the program.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn check_name(name: &OsStr) -> Result<()> {
    let bytes = name.as_bytes();
    ensure!(
        !bytes.is_empty() && !matches!(bytes, b"." | b"..") && !bytes.contains(&b'/'),
        "{}: the name of a file in the root directory is needed, without a slash",
        printable(name)
    );
    Ok(())
}

/// Gives the free bad blocks of a file system to its quarantine file, and takes blocks that are no longer listed from it.
pub fn quarantine(host: &Host, request: &Request) -> Result<Report> {
    check_name(&request.name)?;
    let place = Place::open(&request.mount)?;
    place.ensure_writable()?;
    let bad = place.bad(host)?;
    let mut report = Report {
        mount: printable(&place.directory),
        file: printable(place.directory.join(&request.name)),
        quarantined: 0,
        free: 0,
        in_use: 0,
        released: 0,
        stopped: None,
    };
    let found = place.find(&request.name)?;
    if found.is_none() && place.free(&bad)?.is_empty() {
        report.in_use = bad.sectors() * SECTOR;
        return Ok(report);
    }
    let stop = stop_flag()?;
    let file = match found {
        Some(file) => file,
        None => place.create(&request.name)?,
    };
    let before = sectors_of(&file.extents()?);
    let unlocked = file.unlock()?;
    // A run that was killed may have left it too much.
    let filled = unlocked
        .trim(&bad)
        .and_then(|()| unlocked.fill(request, &stop, || Ok(place.free(&bad)?.is_empty())));
    // The file keeps bad blocks only, even if that failed.
    let trimmed = unlocked.trim(&bad).and_then(|()| file.lock(&unlocked));
    // First: it says what to do if both have failed.
    trimmed.with_context(|| {
        format!(
            "{}: blocks could not be given back; run the command again",
            report.file
        )
    })?;
    report.stopped = filled.with_context(|| report.file.clone())?;
    // The owner of the directory can remove a file that is not yet immutable.
    ensure!(
        place.leads_to(&request.name, &file)?,
        "{}: another process removed it; run the command again",
        report.file
    );
    let own = sectors_of(&file.extents()?);
    let quarantined = own.common(&bad);
    let free = place.free(&bad)?;
    report.quarantined = quarantined.sectors() * SECTOR;
    report.free = free.sectors() * SECTOR;
    report.in_use = bad.without(&quarantined).without(&free).sectors() * SECTOR;
    report.released = before.without(&own).sectors() * SECTOR;
    if own.is_empty() {
        let flags = ioctl_getflags(&file.file)?;
        ioctl_setflags(&file.file, flags - IFlags::IMMUTABLE)?;
        place.remove(&request.name)?;
    }
    Ok(report)
}

/// Removes the quarantine file, so that its blocks are free again.
pub fn release(request: &Request) -> Result<Report> {
    check_name(&request.name)?;
    let place = Place::open(&request.mount)?;
    place.ensure_writable()?;
    let path = printable(place.directory.join(&request.name));
    let Some(file) = place.find(&request.name)? else {
        bail!("{path}: there is no quarantine file");
    };
    let released = sectors_of(&file.extents()?).sectors() * SECTOR;
    let unlocked = file.unlock()?;
    // Once it can be changed, the owner of the directory can rename it.
    if place.leads_to(&request.name, &file)? {
        place.remove(&request.name).with_context(|| path.clone())?;
    }
    if fstat(&file.file)?.st_nlink != 0 {
        file.lock(&unlocked)?;
        bail!(
            "{path}: another process renamed it, so that it still has its blocks; find it by its inode, {}",
            fstat(&file.file)?.st_ino
        );
    }
    Ok(Report {
        mount: printable(&place.directory),
        file: path,
        quarantined: 0,
        free: released,
        in_use: 0,
        released,
        stopped: None,
    })
}

/// Returns the quarantine files of the mounted file systems on these disks.
pub fn all(host: &Host, disks: &[String]) -> Vec<Quarantine> {
    let mounts = mountinfo::own(host).unwrap_or_default();
    let mut found = Vec::new();
    for mount in kernel_reports::one_of_each(mounts) {
        let below = topology::disks_below(host, mount.device);
        if !mount.is_whole() || !below.iter().any(|disk| disks.contains(disk)) {
            continue;
        }
        let directory = host.absolute(Path::new(&mount.directory));
        let Some(file) = file_in(&directory, mount.device) else {
            continue;
        };
        let extents = extents_of(&file).unwrap_or_default();
        found.push(Quarantine {
            mount: printable(&mount.directory),
            file: printable(directory.join(NAME)),
            bytes: sectors_of(&extents).sectors() * SECTOR,
        });
    }
    found
}

/// Opens the quarantine file with the usual name in the root of a mount. Others are not looked for: that would read
/// inodes, which may be on bad blocks.
fn file_in(directory: &Path, device: DeviceNumber) -> Option<File> {
    let root = mounted::open_root(directory, device).ok()?;
    // Not by the directory's name, because another file system may be mounted above it by now.
    let path = Path::new(&again(&root)).join(NAME);
    let is_marked = quarantine_mark::is_on_path(&path);
    is_marked.then(|| affected::open(&path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Opens;

    fn request() -> Request {
        Request {
            mount: PathBuf::new(),
            name: NAME.into(),
            keep_free: None,
            time: Duration::from_secs(60),
        }
    }

    /// A file that can be allocated, or `None` if the file system has no FIEMAP.
    fn file(folder: &Path) -> Option<Unlocked> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(folder.join("file"))
            .unwrap();
        let unlocked = Unlocked { file, block: 4096 };
        fallocate(&unlocked.file, FallocateFlags::empty(), 0, 1 << 20).ok()?;
        let extents = extents_of(&unlocked.file).ok()?;
        (!extents.is_empty()).then_some(unlocked)
    }

    #[test]
    fn ranges_become_whole_blocks() {
        let found = blocks([4096..4608, 16383..16385].into_iter(), 4096);
        assert!(found.ranges().eq(&[8..16, 24..40]));
    }

    #[test]
    fn parts_of_bad_blocks_are_kept() {
        let extents = [
            Extent::new(0, 1 << 20, 16384),
            Extent::new(16384, 2 << 20, 8192),
            Extent::new(65536, 3 << 20, 4096),
        ];
        let keep = [
            (1 << 20) + 12288..(1 << 20) + 20480,
            2 << 20..(2 << 20) + 4096,
            5 << 20..6 << 20,
        ];
        let keep = blocks(keep.into_iter(), 4096);
        let parts = kept_parts(&extents, &keep);
        assert_eq!(parts, std::slice::from_ref(&(12288..20480)));
        assert_eq!(kept_parts(&extents, &BadBlocks::default()), []);
        assert_eq!(sectors_of(&extents).sectors(), 56);
    }

    #[test]
    fn all_but_bad_blocks_are_given_back() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let Some(unlocked) = file(folder.path()) else {
            return;
        };
        let extents = extents_of(&unlocked.file).unwrap();
        let start = extents[0].physical;
        let bad = [start + 4096..start + 4608, start + 16384..start + 20480];
        let bad = blocks(bad.into_iter(), 4096);
        unlocked.trim(&bad).unwrap();
        let left = extents_of(&unlocked.file).unwrap();
        assert!(sectors_of(&left).ranges().eq(bad.ranges()));
        assert_eq!(unlocked.file.metadata().unwrap().len(), 8192);
        unlocked.trim(&bad).unwrap();
        assert_eq!(extents_of(&unlocked.file).unwrap(), left);
        unlocked.trim(&BadBlocks::default()).unwrap();
        assert_eq!(unlocked.file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn filling_stops_at_its_limits() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let Some(unlocked) = file(folder.path()) else {
            return;
        };
        let go = AtomicBool::new(false);
        let mut rounds = 0;
        let mut done = || {
            rounds += 1;
            Ok(rounds > 1)
        };
        let space = fstatvfs(&unlocked.file).unwrap();
        if space.f_bavail * space.f_frsize > 1 << 30 {
            let keep_free = Some(512 << 20);
            let little = Request {
                keep_free,
                ..request()
            };
            assert_eq!(unlocked.fill(&little, &go, &mut done).unwrap(), None);
            assert_eq!(unlocked.size().unwrap(), (1 << 20) + PIECES.start);
        }
        let reason = |request: &Request, stop| {
            let stop = AtomicBool::new(stop);
            unlocked
                .fill(request, &stop, || Ok(false))
                .unwrap()
                .unwrap()
        };
        let all = Request {
            keep_free: Some(u64::MAX),
            ..request()
        };
        assert!(reason(&all, false).contains("--keep-free"));
        assert!(reason(&all, true).contains("signal"));
        let time = Duration::ZERO;
        assert!(reason(&Request { time, ..request() }, false).contains("--time"));
    }

    #[test]
    fn name_is_in_the_root_directory() {
        for name in ["", ".", "..", "a/b", "/x"] {
            assert!(check_name(OsStr::new(name)).is_err(), "{name}");
        }
        assert!(check_name(OsStr::new(NAME)).is_ok());
    }

    fn place_in(folder: &Path) -> Place {
        Place {
            directory: folder.to_owned(),
            root: File::open(folder).unwrap(),
            device: "1:2".parse().unwrap(),
            block: 4096,
        }
    }

    #[test]
    fn file_without_mark_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = place_in(folder.path());
        assert!(place.find(OsStr::new("none")).unwrap().is_none());
        std::fs::write(folder.path().join("data"), "data").unwrap();
        assert!(place.find(OsStr::new("data")).is_err());
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(place.find(OsStr::new("link")).is_err());
        assert!(!quarantine_mark::is_on_path(&folder.path().join("data")));
        let device = DeviceNumber::from_rdev(fstat(&place.root).unwrap().st_dev);
        assert!(file_in(folder.path(), device).is_none());
    }

    #[test]
    fn file_that_was_removed_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let place = place_in(folder.path());
        let name = OsStr::new(NAME);
        let file = place.create(name).unwrap();
        assert!(place.leads_to(name, &file).unwrap());
        place.remove(name).unwrap();
        assert!(!place.leads_to(name, &file).unwrap());
        place.create(name).unwrap();
        assert!(!place.leads_to(name, &file).unwrap());
    }

    #[test]
    fn covered_mount_is_not_searched() {
        let folder = tempfile::tempdir().unwrap();
        let usual = folder.path().join(NAME);
        let file = File::create(&usual).unwrap();
        // Needs root.
        if quarantine_mark::set(&file).is_err() {
            return;
        }
        let device = DeviceNumber::from_rdev(fstat(&file).unwrap().st_dev);
        let found = file_in(folder.path(), device).unwrap();
        assert_eq!(fstat(found).unwrap().st_ino, fstat(&file).unwrap().st_ino);
        let covered = "259:7".parse().unwrap();
        assert!(file_in(folder.path(), covered).is_none());
    }

    #[test]
    fn root_of_another_file_system_is_not_opened() {
        let folder = Path::new("/proc/sys/fs");
        let opens = Opens::of(folder);
        let error = Place::open(folder).err().unwrap().to_string();
        assert!(error.contains("only ext4 and XFS can"), "{error}");
        assert!(opens.is_none_or(|opens| !opens.any()));
    }
}
