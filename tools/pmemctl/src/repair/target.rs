// SPDX-License-Identifier: GPL-2.0

//! The file under repair: its write lease, its extents, and reads and writes of it.

use crate::block::devno::DeviceNumber;
use crate::block::remap;
use crate::block::topology::{self, Mounts, Volume};
use crate::fs::open_files;
use crate::fs::reopen::{again, refer};
use crate::nd::Device;
use crate::ranges::{Ranges, common};
use crate::repair::RepairRange;
use crate::sysfs::{Host, printable, shell_path};
use abstractions::DirectBuffer;
use abstractions::extents::{self, Extent};
use abstractions::lease::Lease;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::{
    Advice, AtFlags, FallocateFlags, OFlags, ResolveFlags, StatVfsMountFlags, StatxAttributes,
    StatxFlags, XattrFlags, fgetxattr, fsetxattr,
};
use rustix::io::Errno;
use signal_hook::consts::SIGIO;
use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// The extended attribute that has the capabilities of a program (capabilities(7)), and more bytes than it has.
const CAPABILITIES: &str = "security.capability";

const CAPABILITIES_MAX: usize = 256;

/// Returns whether a read error means that the data is lost: a bad block, or one of a DAX file.
pub(super) fn is_lost(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::FAULT))
}

/// The file, under a write lease.
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) metadata: Metadata,
    pub(super) dax: bool,
    is_ext4: bool,
    /// Its capabilities before the repair, as the attribute has them; empty if it has none.
    capabilities: Vec<u8>,
    /// Whether direct I/O goes through the page cache.
    pub(super) buffered: bool,
    /// The volume that its file system is on.
    pub(super) volume: Volume,
    /// The logical block size of the volume.
    pub(super) block_size: u64,
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

/// The magic number of ext2, ext3 and ext4 in statfs(2).
const EXT4: u64 = 0xef53;
/// That of XFS.
const XFS: u64 = 0x5846_5342;

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
pub(super) fn ensure_no_snapshots(host: &Host, number: DeviceNumber) -> Result<()> {
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
pub(super) fn open_device(host: &Host, name: &str, number: DeviceNumber) -> Result<File> {
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
pub(super) fn open_path(path: &Path, no_symlinks: bool) -> Result<File> {
    let resolve = match no_symlinks {
        true => ResolveFlags::NO_SYMLINKS,
        false => ResolveFlags::empty(),
    };
    refer(path, resolve).map_err(|error| match error {
        Errno::LOOP if no_symlinks => anyhow!("{}: the path has a symbolic link", printable(path)),
        error => anyhow!("{}: {}", printable(path), io::Error::from(error)),
    })
}

fn has_dax(file: &File) -> io::Result<bool> {
    let status = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(status.stx_attributes.contains(StatxAttributes::DAX))
}

impl Target {
    pub(super) fn open(host: &Host, path: &Path, no_symlinks: bool) -> Result<Self> {
        let name = printable(path);
        let handle = open_path(path, no_symlinks)?;
        let metadata = handle.metadata().with_context(|| name.clone())?;
        ensure!(metadata.is_file(), "{name}: this is no regular file");
        let kind = rustix::fs::fstatfs(&handle)?.f_type as u64;
        ensure!(
            [EXT4, XFS].contains(&kind),
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
            let its = used
                .files
                .iter()
                .filter(|used| used.inode == metadata.ino());
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
        // A read would read ahead, into bad pages, and evict what only the page cache has.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        // The first call reports an earlier failure of writeback, if nobody has seen it.
        file.sync_all()
            .or_else(|_| file.sync_all())
            .with_context(|| format!("{name}: fsync failed"))?;
        Ok(Self {
            block_size: topology::block_size(host, &volume.kernel_name),
            path: path.to_owned(),
            metadata: file.metadata()?,
            dax: status.stx_attributes.contains(StatxAttributes::DAX),
            is_ext4: kind == EXT4,
            capabilities: capabilities_of(&file)
                .with_context(|| format!("{name}: {CAPABILITIES}"))?,
            // Linux before 6.1 does not report it.
            buffered: status.stx_mask & StatxFlags::DIOALIGN.bits() != 0
                && status.stx_dio_offset_align == 0,
            file,
            volume,
        })
    }

    pub(super) fn name(&self) -> String {
        printable(&self.path)
    }

    /// Gives the file its capabilities again, which each write removes, also by root. Fails if others may have written it
    /// meanwhile: these would get them.
    pub(super) fn restore_capabilities(&self) -> Result<()> {
        if !self.capabilities.is_empty() {
            self.ensure_alone()?;
            let value = &self.capabilities;
            fsetxattr(&self.file, CAPABILITIES, value, XattrFlags::empty())?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.metadata.len()
    }

    /// Returns the extents that overlap a range of the file.
    pub(super) fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let mut found = Vec::new();
        extents::of_range(&self.file, range, |extent| found.push(*extent))
            .with_context(|| format!("{}: where its bytes are", self.name()))?;
        Ok(found)
    }

    /// Reads with or without `O_DIRECT`, up to the end of the file.
    pub(super) fn read(&self, at: u64, buffer: &mut [u8], direct: bool) -> io::Result<usize> {
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
    /// through it, so that it is still there if the write fails; if all is to be written at once, when that has failed.
    pub(super) fn write(&self, piece: &RepairRange, buffer: &mut DirectBuffer) -> io::Result<()> {
        let (start, cached) = (piece.file_offset, &piece.cached);
        if self.is_written_at_once(piece) {
            let all = Ranges::from_iter([piece.range()]);
            return self
                .write_ranges(true, &all, start, buffer)
                .inspect_err(|_| {
                    let _ = self.write_ranges(false, cached, start, buffer);
                });
        }
        self.write_ranges(false, cached, start, buffer)?;
        self.write_ranges(true, &cached.gaps(&piece.range()), start, buffer)
    }

    /// Writes ranges of a buffer, which begins at `from` of the file, with or without `O_DIRECT`.
    fn write_ranges(
        &self,
        direct: bool,
        ranges: &Ranges,
        from: u64,
        buffer: &mut DirectBuffer,
    ) -> io::Result<()> {
        self.direct(direct)?;
        ranges.iter().try_for_each(|range| {
            let bytes = part(buffer, from, range);
            self.file.write_all_at(bytes, range.start)
        })
    }

    /// Writes ranges of a buffer, which begins at `from` of the file, through the page cache, and makes them durable.
    pub(super) fn write_buffered(
        &self,
        ranges: &Ranges,
        from: u64,
        buffer: &mut DirectBuffer,
    ) -> io::Result<()> {
        self.write_ranges(false, ranges, from, buffer)?;
        self.file.sync_all()
    }

    /// Returns whether no part of a range may be written alone, also what the page cache has.
    fn is_written_at_once(&self, piece: &RepairRange) -> bool {
        // ext4 does not convert an unwritten extent for pages that it has written, in vain, before. The disk repairs whole pages of
        // memory: none may be written in two parts.
        let unwritten = piece.flags & Extent::UNWRITTEN != 0 && !piece.cached.is_empty();
        self.is_ext4 && unwritten || piece.is_misaligned()
    }

    /// Returns whether a write through the page cache repairs any page of a range that the page cache has.
    pub(super) fn is_written_by_page(&self, piece: &RepairRange) -> bool {
        // The file gets other memory for what it shares, which ends the repair of the rest.
        let moves = piece.shared && (!piece.is_cached() || piece.replaced > 0);
        !moves && !self.is_written_at_once(piece)
    }

    /// Returns whether the repair of a range may drop folios, with what only they have of other pages.
    pub(super) fn drops_folios(&self, piece: &RepairRange) -> bool {
        // What is written behind the end of the file is truncated.
        let truncates = piece.range().end > self.size();
        truncates || piece.shared || self.is_written_at_once(piece) || !piece.is_cached()
    }

    fn direct(&self, direct: bool) -> io::Result<()> {
        let mut flags = rustix::fs::fcntl_getfl(&self.file)?;
        flags.set(OFlags::DIRECT, direct);
        Ok(rustix::fs::fcntl_setfl(&self.file, flags)?)
    }

    /// Replaces a shared range by new blocks with these bytes. A write would do so as well, but with DAX the
    /// kernel first copies the blocks around it (`dax_iomap_copy_around`), which cannot be read.
    pub(super) fn replace(&self, piece: &RepairRange, bytes: &[u8]) -> io::Result<()> {
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
    /// again, because truncate(2) frees them. Fails if others may have appended data since `then`, when the lease was held.
    pub(super) fn restore_size(&self, behind: &[Range<u64>], then: Instant) -> Result<()> {
        ensure!(
            Lease::has_kept_others_out(&self.file, then)?,
            "another process may have opened it"
        );
        self.file.set_len(self.size())?;
        for range in behind {
            let length = range.end - range.start;
            rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, range.start, length)?;
        }
        Ok(())
    }

    /// Returns the bytes of the file's blocks behind the one with its end.
    pub(super) fn behind_end(&self) -> Result<Vec<Range<u64>>> {
        let block = rustix::fs::fstatvfs(&self.file)?.f_frsize;
        let behind = self.size().next_multiple_of(block)..u64::MAX;
        let extents = self.extents(behind.clone())?;
        let parts = extents
            .iter()
            .filter_map(|extent| common(&extent.range(), &behind));
        Ok(parts.collect())
    }

    /// Fails if the kernel no longer keeps others from opening the file, whose data they could change: a lease that others
    /// wait for ends after a time.
    pub(super) fn ensure_alone(&self) -> Result<()> {
        ensure!(
            Lease::held(&self.file)? == Some(Lease::Write),
            "another process waits to open or truncate it; try again"
        );
        Ok(())
    }

    /// Verifies that the name, length and blocks of the file are unchanged.
    pub(super) fn is_the_same(&self, piece: &RepairRange) -> Result<()> {
        let now = self.file.metadata()?;
        ensure!(
            now.nlink() > 0,
            "it was removed during the repair; if that was a mistake, restore it from a backup"
        );
        let by_name = fs::metadata(&self.path)
            .context("its name no longer exists; run it again by the new name")?;
        ensure!(
            (by_name.dev(), by_name.ino()) == (now.dev(), now.ino()),
            "its name leads to another file now; run it again"
        );
        ensure!(
            now.len() == self.size(),
            "its size changed during the repair; run it again"
        );
        self.ensure_alone()?;
        let is_there = |extent: &&Extent| {
            let place = |at: u64, logical: u64| at.wrapping_sub(logical);
            place(extent.physical, extent.logical) == place(piece.physical, piece.file_offset)
                && (extent.flags ^ piece.flags) & Extent::SHARED == 0
                // A write converts a part of an unwritten extent; ext4 writes zeros to a short rest of it.
                && extent.flags & Extent::UNWRITTEN & !piece.flags == 0
        };
        let extents = self.extents(piece.range())?;
        let there: Ranges = extents.iter().filter(is_there).map(Extent::range).collect();
        ensure!(
            there.gaps(&piece.range()).is_empty(),
            "its blocks were moved during the repair; run it again"
        );
        Ok(())
    }
}

/// Returns the bytes of `range` in a buffer that starts at `from` of the file.
pub(super) fn part<'a>(
    buffer: &'a mut DirectBuffer,
    from: u64,
    range: &Range<u64>,
) -> &'a mut [u8] {
    &mut buffer.bytes()[(range.start - from) as usize..(range.end - from) as usize]
}
