// SPDX-License-Identifier: GPL-2.0

//! Finds the owners of blocks on a mounted file system.
//!
//! `FS_IOC_GETFSMAP` reports free space and metadata, and on XFS with a reverse map (`rmapbt`) the inodes of files.
//! Their names are known at once if the XFS has parent pointers. Other names, and without a reverse map the files
//! themselves, are found by a walk over the whole file system, which asks each file for its extents (`FS_IOC_FIEMAP`).

use crate::block::devno::DeviceNumber;
use crate::block::remap::{Span, Spans};
use crate::block::topology::{Mount, Volume};
use crate::fs::ext4::{self, Header, Layout};
use crate::fs::extent_reader::{self, Answer, ExtentReader};
use crate::fs::leases::Leases;
use crate::fs::open_files;
use crate::fs::parents::{self, Names};
use crate::fs::places::Places;
use crate::fs::reopen::{self, again};
use crate::fs::tree::{self, Tree};
use crate::fs::xfs::Geometry;
use crate::fs::{Owned, Owner, Progress, Space, SpaceKind};
use crate::ranges::{Ranges, common};
use crate::sysfs::{Host, printable};
use crate::waiting::CALLS;
use abstractions::extents::{self, Extent, Fork, Record};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstatfs, open, statat};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

#[derive(Debug)]
pub struct FileSystem {
    pub device: DeviceNumber,
    pub directory: PathBuf,
    /// The volume that it is on.
    volume: Volume,
}

/// Special owners of linux/fsmap.h, fs/xfs/libxfs/xfs_fs.h and fs/ext4/fsmap.h.
const METADATA: [(u64, &str); 13] = [
    (3, "metadata"),
    (owner(b'X', 1), "superblock"),
    (owner(b'X', 2), "journal"),
    (owner(b'X', 3), "metadata"),
    (owner(b'X', 4), "inode index"),
    (owner(b'X', 5), "inode table"),
    (owner(b'X', 6), "reference counts"),
    (owner(b'X', 7), "copy-on-write staging"),
    (owner(b'X', 8), "marked defective"),
    (owner(b'f', 1), "group descriptors"),
    (owner(b'f', 2), "reserved group descriptors"),
    (owner(b'f', 3), "block bitmap"),
    (owner(b'f', 4), "inode bitmap"),
];

const fn owner(kind: u8, code: u64) -> u64 {
    ((kind as u64) << 32) | code
}

const FREE: u64 = 1;
/// `FMR_OF_ATTR_FORK | FMR_OF_EXTENT_MAP`.
const NOT_DATA: u32 = 0x2 | 0x4;
/// `FMR_OF_SPECIAL_OWNER`.
const SPECIAL: u32 = 0x10;

/// The owner of a range according to `FS_IOC_GETFSMAP`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FsmapOwner {
    Free,
    Metadata(&'static str),
    /// An inode, and the offset in the file.
    Inode(u64, Option<u64>),
    Unknown,
}

impl FsmapOwner {
    /// Returns the owner of the byte at `at` in the record.
    fn of(record: &Record, at: u64) -> Self {
        if record.flags & SPECIAL == 0 {
            let data = record.flags & NOT_DATA == 0;
            let offset = record.offset + (at - record.physical);
            return Self::Inode(record.owner, data.then_some(offset));
        }
        if record.owner == FREE {
            return Self::Free;
        }
        match METADATA.iter().find(|(code, _)| *code == record.owner) {
            Some((_, what)) => Self::Metadata(what),
            None => Self::Unknown,
        }
    }
}

/// Returns the ranges to ask a mounted file system for, to learn about these.
///
/// ext4 is asked once for those in the same block group: for each query, it makes a list of the metadata of all groups
/// (`ext4_getfsmap_find_fixed_metadata`). It also reads the bitmap of each group in the range, which may be on a bad block,
/// and takes a failure for an error in the file system.
fn queries(directory: &File, ranges: &Ranges) -> Vec<Range<u64>> {
    const EXT4: u32 = 0xef53;
    match fstatfs(directory) {
        // CAST: a magic number has 32 bits, and the size of a block is positive.
        Ok(status) if status.f_type as u32 == EXT4 => {
            let block = status.f_bsize as u64;
            merged(ranges, 8 * block * block)
        }
        _ => ranges.iter().cloned().collect(),
    }
}

/// Merges those ranges that are in the same part of `length` bytes.
fn merged(ranges: &Ranges, length: u64) -> Vec<Range<u64>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    for range in ranges.iter() {
        match found.last_mut() {
            Some(last) if last.start / length == (range.end - 1) / length => last.end = range.end,
            _ => found.push(range.clone()),
        }
    }
    found
}

/// Returns the part of a record that was asked for: a file system returns whole records, and those of its other devices.
fn asked(record: &Record, number: u32, query: &Range<u64>) -> Option<Range<u64>> {
    let end = record.physical.saturating_add(record.length);
    common(&(record.physical..end), query).filter(|_| record.device == number)
}

/// Returns the free parts of ranges of bytes of the device of a mounted file system.
pub(crate) fn free_parts(
    directory: &File,
    device: DeviceNumber,
    ranges: &[Range<u64>],
) -> io::Result<Vec<Range<u64>>> {
    let mut free = Vec::new();
    let ranges: Ranges = ranges.iter().cloned().collect();
    let number = extents::fsmap_device(directory, device.encoded());
    for query in queries(directory, &ranges) {
        extents::of_device(directory, number, &query, |record| {
            let is_free = FsmapOwner::of(record, record.physical) == FsmapOwner::Free;
            if let Some(part) = asked(record, number, &query).filter(|_| is_free) {
                free.extend(ranges.within(&part).iter().cloned());
            }
        })?;
    }
    Ok(free)
}

/// Opens the root of a mount. Fails with `ENODEV` if it was unmounted, or another file system is mounted above it: one of a
/// user may not answer, and is not asked.
pub(crate) fn open_root(directory: &Path, device: DeviceNumber) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle: File = open(directory, flags | OFlags::PATH, Mode::empty())?.into();
    match reopen::device_of(&reopen::status(&handle)?) == device {
        true => Ok(open(again(&handle), flags | OFlags::RDONLY, Mode::empty())?.into()),
        false => Err(Errno::NODEV.into()),
    }
}

impl FileSystem {
    /// Returns the file system of a volume that is mounted at `directory`.
    pub fn at(volume: &Volume, directory: &Path) -> Result<Self> {
        let system = Self {
            device: volume.number()?,
            directory: directory.to_owned(),
            volume: volume.clone(),
        };
        system.root()?;
        Ok(system)
    }

    /// Returns the file system of a volume at the first of its mounts that is not covered by another one, if it has any. A mount of
    /// the whole file system is preferred to that of a directory.
    pub fn of<'a>(host: &Host, volume: &'a Volume) -> Result<Option<(Self, &'a Mount)>> {
        let (whole, parts): (Vec<_>, Vec<_>) =
            volume.mounts.iter().partition(|mount| mount.root == "/");
        let mut failure = None;
        for mount in whole.into_iter().chain(parts) {
            match Self::at(volume, &host.absolute(Path::new(&mount.directory))) {
                Ok(system) => return Ok(Some((system, mount))),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Opens its root. The mount is busy as long as that is open.
    fn root(&self) -> Result<File> {
        open_root(&self.directory, self.device).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::NODEV) => anyhow!("{}", self.gone()),
                _ => anyhow::Error::from(error).context(printable(&self.directory)),
            }
        })
    }

    fn gone(&self) -> String {
        format!(
            "{} was unmounted from {}; try again",
            self.volume.name,
            printable(&self.directory)
        )
    }

    /// Reads where the metadata of ext4 is, from its device. Without that, nobody knows what it must not be asked about.
    fn ext4(&self) -> Result<(String, Header, Layout)> {
        let node = self.volume.node();
        let header = Header::read(&node).ok().and_then(Result::ok);
        let header = header
            .with_context(|| format!("dumpe2fs (e2fsprogs) cannot read {}", self.volume.name))?;
        let layout = Layout::read(&node, &header)?;
        Ok((node, header, layout))
    }

    /// Returns the space that is known without `FS_IOC_GETFSMAP`.
    pub(crate) fn space(&self) -> Result<Space> {
        let directory = self.root()?;
        if let Ok(geometry) = extents::xfs_geometry(&directory) {
            let geometry = Geometry::of(&geometry)?;
            let mut maps = false;
            self.records(&directory, &(0..u64::MAX), |record| {
                maps |= record.flags & SPECIAL == 0;
            })?;
            return Ok(Space {
                fixed: geometry.fixed(),
                rest: if maps {
                    SpaceKind::Files
                } else {
                    SpaceKind::Used
                },
                free: Vec::new(),
            });
        }
        let (node, header, layout) = self.ext4()?;
        Ok(layout.space(ext4::hidden_ranges(&node, &header)?))
    }

    fn fsmap_device(&self, directory: &File) -> u32 {
        extents::fsmap_device(directory, self.device.encoded())
    }

    fn records(
        &self,
        directory: &File,
        range: &Range<u64>,
        see: impl FnMut(&Record),
    ) -> Result<()> {
        extents::of_device(directory, self.fsmap_device(directory), range, see)
            .with_context(|| format!("owners of the blocks of {}", printable(&self.directory)))
    }

    /// Returns the block groups that ext4 must not be asked about. `bad` are all bad blocks of the volume.
    pub(crate) fn groups_without_bitmap(&self, bad: &Spans) -> Result<Ranges> {
        if bad.is_empty() || !self.volume.is_ext4() {
            return Ok(Ranges::default());
        }
        let (.., layout) = self.ext4()?;
        Ok(layout.groups_without_bitmap(bad))
    }

    /// Calls `see` with each range outside of `refused` and its use, in order; space between them is in use.
    pub(crate) fn each(
        &self,
        refused: &Ranges,
        mut see: impl FnMut(&Range<u64>, SpaceKind),
    ) -> Result<()> {
        let directory = self.root()?;
        let number = self.fsmap_device(&directory);
        let all: Ranges = std::iter::once(0..u64::MAX).collect();
        all.without(refused).iter().try_for_each(|query| {
            self.records(&directory, query, |record| {
                let Some(range) = asked(record, number, query) else {
                    return;
                };
                let kind = match FsmapOwner::of(record, record.physical) {
                    FsmapOwner::Free => SpaceKind::Free,
                    FsmapOwner::Metadata(_) => SpaceKind::Metadata,
                    FsmapOwner::Inode(_, Some(_)) => SpaceKind::Files,
                    FsmapOwner::Inode(_, None) => SpaceKind::Metadata,
                    FsmapOwner::Unknown => return,
                };
                see(&range, kind);
            })
        })
    }

    /// Finds the owners of `spans`, in order. With `all_links`, files have all of their names, which takes a walk
    /// over the whole file system. `bad` are all bad blocks of the volume.
    pub fn owners(
        &self,
        host: &Host,
        spans: &Spans,
        bad: &Spans,
        all_links: bool,
        progress: &dyn Progress,
    ) -> Result<Vec<Owned>> {
        let directory = self.root()?;
        let ext4 = match self.volume.is_ext4() {
            true => Some(self.ext4()?),
            false => None,
        };
        let layout = ext4.as_ref().map(|(.., layout)| layout);
        let geometry = extents::xfs_geometry(&directory).ok();
        let geometry = geometry.as_ref().map(Geometry::of).transpose()?;
        let allocated = self.allocated(&directory, layout, geometry.as_ref(), spans, bad)?;
        // From here on only the walks keep the mount in use.
        drop(directory);
        let mut found = allocated.found;
        let mut search = Search::of(host, allocated.unknown, allocated.inodes);
        search.places = allocated.places;
        search.not_searched.extend(
            allocated
                .failure
                .map(|error| (self.directory.clone(), error)),
        );
        search.shares_attributes = ext4.is_some();
        if all_links {
            search.limit = parents::NAMES;
        }
        search.links = ext4.as_ref().map(|_| Vec::new());
        search.unreadable = layout.map_or_else(Ranges::default, |layout| layout.inodes_on(bad));
        if geometry.is_some() {
            self.names_by_parents(host, &mut search, all_links)?;
        }
        self.walk(&mut search, Fork::Data, all_links, progress)?;
        if !search.is_done(false) {
            self.open_files(host, &mut search);
        }
        if !search.left.is_empty() {
            search.seen.clear();
            search.searched = search.left.clone().into();
            self.walk(&mut search, Fork::Attributes, all_links, progress)?;
        }
        if let (false, Some((node, header, _))) = (search.left.is_empty(), &ext4) {
            found.extend(search.ext4_by_number(node, header)?);
            search.ext4_attributes(node, header);
            if !search.is_done(all_links) {
                // Finds the names of these.
                search.searched = search.left.clone().into();
                self.walk(&mut search, Fork::Attributes, all_links, progress)?;
            }
        }
        // Behind the walks, each of which begins to count.
        for (path, error) in std::mem::take(&mut search.not_searched) {
            progress.skipped(&path, &error);
        }
        if !search.is_done(false) {
            search.report_leased(progress);
        }
        if search.too_many_open {
            progress.skipped(Path::new("/proc"), &io::Error::other(open_files::TOO_MANY));
        }
        if search.places.are_left_out {
            let reason = "files share a bad block in so many places that not all are listed";
            progress.left_out(&self.directory, reason);
        }
        if CALLS.is_full() {
            progress.skipped(&self.directory, &io::Error::other(extent_reader::WHY));
        }
        match &geometry {
            Some(geometry) => found.extend(geometry.by_group(&search.left)),
            None => found.extend(search.left.iter().map(|span| Owned {
                span,
                owner: Owner::Unknown { group: None },
            })),
        }
        found.extend(search.into_files());
        found.sort_by_key(|owned| (owned.span.disk_offset, owned.span.length));
        Ok(found)
    }

    /// Splits spans by what the file system has allocated them for: metadata at fixed places, then `FS_IOC_GETFSMAP`.
    fn allocated(
        &self,
        directory: &File,
        layout: Option<&Layout>,
        geometry: Option<&Geometry>,
        spans: &Spans,
        bad: &Spans,
    ) -> Result<Allocated> {
        let mut left = spans.clone();
        let mut allocated = Allocated {
            found: match (layout, geometry) {
                (Some(layout), _) => layout.take(&mut left),
                (_, Some(geometry)) => geometry.take(&mut left),
                _ => Vec::new(),
            },
            ..Allocated::default()
        };
        let group = |at| geometry.and_then(|geometry| geometry.group_of(at));
        let refused =
            layout.map_or_else(Ranges::default, |layout| layout.groups_without_bitmap(bad));
        let (owned, failure) = self.query(directory, left, &refused, &mut allocated.places);
        allocated.failure = failure;
        for (span, owner) in owned {
            match owner {
                FsmapOwner::Free => allocated.found.push(Owned {
                    span,
                    owner: Owner::Free,
                }),
                FsmapOwner::Metadata(what) => {
                    let group = group(span.offset);
                    let owner = Owner::Metadata { what, group };
                    allocated.found.push(Owned { span, owner });
                }
                FsmapOwner::Inode(inode, offset) => allocated.inodes.push(Hit {
                    span,
                    inode,
                    offset,
                }),
                FsmapOwner::Unknown => allocated.unknown.extend([span]),
            }
        }
        Ok(allocated)
    }

    /// Splits spans by the owners from `FS_IOC_GETFSMAP`, unknown where that is `refused`, or fails: metadata of XFS may be bad
    /// itself. Returns the first failure as well.
    fn query(
        &self,
        directory: &File,
        spans: Spans,
        refused: &Ranges,
        places: &mut Places,
    ) -> (Vec<(Span, FsmapOwner)>, Option<io::Error>) {
        let mut pieces = Vec::new();
        let ranges: Ranges = spans.iter().map(|span| span.range()).collect();
        let mut left = spans.clone();
        let number = self.fsmap_device(directory);
        let queries: Ranges = queries(directory, &ranges).into_iter().collect();
        let mut failure = None;
        for query in queries.without(refused).iter() {
            let searched = extents::of_device(directory, number, query, |record| {
                if let Some(range) = asked(record, number, query) {
                    let parts = spans.within(&range);
                    pieces.extend(parts.filter_map(|part| {
                        let owner = FsmapOwner::of(record, part.offset);
                        let is_kept =
                            !matches!(owner, FsmapOwner::Inode(..)) || places.keep(part.offset);
                        is_kept.then_some((part, owner))
                    }));
                    left.remove(&range);
                }
            });
            match searched.map_err(|error| (Errno::from_io_error(&error), error)) {
                Ok(()) => {}
                Err((Some(Errno::NOTTY | Errno::OPNOTSUPP), _)) => break,
                Err((_, error)) => {
                    failure.get_or_insert(error);
                }
            }
        }
        pieces.extend(left.iter().map(|part| (part, FsmapOwner::Unknown)));
        (pieces, failure)
    }

    /// Finds the names of inodes of XFS by their parent pointers. The walk finds those that have none, or change.
    fn names_by_parents(&self, host: &Host, search: &mut Search, all_links: bool) -> Result<()> {
        let root = self.root()?;
        let mut removed = Vec::new();
        for &inode in &search.wanted {
            match parents::names(&root, inode, all_links) {
                Ok(Names::Paths { paths, all }) => {
                    let paths = paths
                        .iter()
                        .map(|path| printable(self.directory.join(path)));
                    search.names.insert(inode, paths.collect());
                    search.complete.extend(all.then_some(inode));
                }
                Ok(Names::Outside) => {
                    search.complete.insert(inode);
                }
                Ok(Names::Removed) => removed.push(inode),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => break,
                Err(_) => {}
            }
        }
        drop(root);
        if !removed.is_empty() {
            self.open_files(host, search);
            removed.retain(|inode| search.open_by.contains_key(inode));
            search.complete.extend(removed);
        }
        Ok(())
    }

    /// Walks over all files until all owners are found. Fails if the file system is unmounted.
    fn walk(
        &self,
        search: &mut Search,
        fork: Fork,
        all_links: bool,
        progress: &dyn Progress,
    ) -> Result<()> {
        let done = self.visit_all(search, fork, all_links, progress);
        search.look_at_rest(fork, progress);
        done
    }

    fn visit_all(
        &self,
        search: &mut Search,
        fork: Fork,
        all_links: bool,
        progress: &dyn Progress,
    ) -> Result<()> {
        if search.is_done(all_links) {
            return Ok(());
        }
        let mut tree = Tree::open(&self.root()?)?;
        if let Ok(counts) = rustix::fs::fstatvfs(tree.root()) {
            progress.begin(counts.f_files.saturating_sub(counts.f_ffree));
        }
        let root = rustix::fs::fstat(tree.root())?;
        let entry = Entry {
            folder: tree.directory(Path::new(""))?,
            path: PathBuf::new(),
            inode: root.st_ino,
            kind: FileType::Directory,
        };
        search.visit(self, &entry, fork, progress);
        let mut folders = Folders::from_root(search.room);
        while let Some(folder) = folders.pop() {
            let folder = Rc::new(folder);
            if search.is_done(all_links) {
                return Ok(());
            }
            let skipped = |error: &io::Error| {
                progress.skipped(&self.directory.join(&*folder), error);
            };
            let opened = match tree.directory(&folder) {
                Ok(opened) => opened,
                // A mount on it: without root, the tree is not a clone.
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => continue,
                Err(error) => {
                    skipped(&error);
                    continue;
                }
            };
            let entries = match Dir::read_from(&opened) {
                Ok(entries) => entries,
                Err(error) => {
                    skipped(&error.into());
                    continue;
                }
            };
            for entry in entries {
                ensure!(tree.is_mounted()?, "{}", self.gone());
                search.leases.refresh();
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        skipped(&error.into());
                        break;
                    }
                };
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let name = OsStr::from_bytes(name);
                if search.unreadable.contains(&entry.ino()) {
                    let error = io::Error::other("its inode is on a bad block");
                    progress.skipped(&self.directory.join(folder.join(name)), &error);
                    continue;
                }
                let mut kind = entry.file_type();
                if kind == FileType::Unknown {
                    let status = statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW);
                    let Ok(status) = status else { continue };
                    kind = FileType::from_raw_mode(status.st_mode);
                }
                let entry = Entry {
                    folder: opened.as_fd(),
                    path: folder.join(name),
                    inode: entry.ino(),
                    kind,
                };
                search.visit(self, &entry, fork, progress);
                if kind == FileType::Directory && !folders.push(&folder, name) {
                    let error = io::Error::other("too many directories wait to be searched");
                    progress.skipped(&self.directory.join(folder.join(name)), &error);
                }
            }
        }
        Ok(())
    }

    /// Searches the files that processes have open, of those that a walk does not open: removed ones, those with a lease,
    /// and those with an inode on a bad block.
    fn open_files(&self, host: &Host, search: &mut Search) {
        let used = open_files::of_file_systems(host, &[self.device]);
        search.too_many_open |= !used.complete;
        for used in used.files {
            let skipped =
                search.leased.contains_key(&used.inode) || search.unreadable.contains(&used.inode);
            if !used.removed && !skipped {
                continue;
            }
            if search.seen.insert(used.inode) {
                let file = match used.open() {
                    Ok(file) => Some(file),
                    // The walk reports the others, or `report_leased`.
                    Err(error) if used.removed && error.kind() != io::ErrorKind::NotFound => {
                        search.not_searched.push((used.link().to_owned(), error));
                        None
                    }
                    Err(_) => None,
                };
                let regular = |file: &File| file.metadata().is_ok_and(|it| it.is_file());
                if let Some(file) = file.filter(regular) {
                    let asked = Asked {
                        inode: used.inode,
                        path: used.link().to_owned(),
                        is_name: false,
                    };
                    search.look_at_open(asked, file);
                    let mut paths = search.leased.remove(&used.inode).unwrap_or_default();
                    paths.extend(used.name.clone());
                    if search.wanted.contains(&used.inode) {
                        for path in &paths {
                            search.add_name(used.inode, path);
                        }
                    }
                }
            }
            if used.removed && search.wanted.contains(&used.inode) {
                let pids = used.by.iter().map(|one| one.process.pid).collect();
                search.open_by.insert(used.inode, pids);
            }
        }
    }
}

/// Directories that a walk has yet to read.
struct Folders {
    /// By their parents: there may be many in one whose path is long.
    waiting: Vec<(Rc<PathBuf>, OsString)>,
    /// Bytes of memory that are left for them.
    room: usize,
}

impl Folders {
    fn from_root(room: usize) -> Self {
        Self {
            waiting: vec![Default::default()],
            room,
        }
    }

    /// Returns the memory that a directory takes, with the path of its parent if that is there for this one alone.
    fn size(parent: &Rc<PathBuf>, name: &OsStr) -> usize {
        let path = match Rc::strong_count(parent) {
            1 => parent.as_os_str().len(),
            _ => 0,
        };
        size_of::<(Rc<PathBuf>, OsString)>() + path + name.len()
    }

    /// Adds a directory. Returns whether there is room for it.
    fn push(&mut self, parent: &Rc<PathBuf>, name: &OsStr) -> bool {
        let room = self.room.checked_sub(Self::size(parent, name));
        if let Some(room) = room {
            self.room = room;
            self.waiting.push((Rc::clone(parent), name.to_owned()));
        }
        room.is_some()
    }

    fn pop(&mut self) -> Option<PathBuf> {
        let (parent, name) = self.waiting.pop()?;
        self.room += Self::size(&parent, &name);
        Some(parent.join(name))
    }
}

/// An entry of a directory.
struct Entry<F> {
    folder: F,
    /// From the root of the file system; empty for the root itself.
    path: PathBuf,
    inode: u64,
    kind: FileType,
}

impl<F> Entry<F> {
    fn name(&self) -> &Path {
        self.path.file_name().map_or(Path::new("."), Path::new)
    }
}

/// A range of an inode.
#[derive(Debug, Clone)]
struct Hit {
    span: Span,
    inode: u64,
    offset: Option<u64>,
}

/// What a file system has allocated spans for.
#[derive(Default)]
struct Allocated {
    /// The parts without an inode.
    found: Vec<Owned>,
    inodes: Vec<Hit>,
    places: Places,
    /// The parts that only a search through the files can find the owners of.
    unknown: Spans,
    /// Why there may be more of them.
    failure: Option<io::Error>,
}

/// The state of a search.
struct Search {
    leases: Leases,
    /// Files that were not opened, because that would break a lease, with their paths.
    leased: BTreeMap<u64, BTreeSet<PathBuf>>,
    /// Inodes without names so far.
    wanted: BTreeSet<u64>,
    /// Bytes whose inodes are.
    searched: Arc<Spans>,
    extents: ExtentReader<Asked>,
    /// Ranges without owner so far.
    left: Spans,
    /// Whether files share some of the ranges, so that each may have several owners.
    shared: bool,
    /// Files with the same attributes share their block (`ext4_xattr_block_find`), and the kernel does not say so.
    shares_attributes: bool,
    hits: Vec<Hit>,
    places: Places,
    names: BTreeMap<u64, BTreeSet<String>>,
    /// The highest number of names of an inode that are kept: users can make millions of hard links.
    limit: usize,
    open_by: BTreeMap<u64, Vec<u32>>,
    /// What could not be searched beside the walks.
    not_searched: Vec<(PathBuf, io::Error)>,
    /// Processes have more files open than were looked at.
    too_many_open: bool,
    /// Inodes with several names, or none, whose extents were read.
    seen: BTreeSet<u64>,
    /// Inodes all of whose names are known.
    complete: BTreeSet<u64>,
    /// Bytes of memory for directories that wait to be searched: users can make millions of them.
    room: usize,
    /// Symbolic links with a block of their own, collected for ext4.
    links: Option<Vec<u64>>,
    /// An inode of `wanted` that had no name when one was looked for last.
    unnamed: u64,
    /// Inodes on bad blocks of ext4, which takes the attempt to read one for an error in the file system: with
    /// `errors=remount-ro` it becomes read-only, with `errors=panic` the system stops.
    unreadable: Ranges,
}

/// Bytes of memory for directories that wait to be searched: for half a million or more in one directory.
const FOLDERS: usize = 64 << 20;

/// Bytes of blocks without an owner, in which attributes are searched.
const MOST_ATTRIBUTES: u64 = 4 << 20;

/// The highest number of symbolic links whose blocks are looked up.
const LINKS: usize = 10_000;

impl Search {
    /// Searches the inodes of `unknown` spans, and a name of each of these and of others.
    fn of(host: &Host, unknown: Spans, hits: Vec<Hit>) -> Self {
        Self {
            leases: Leases::read(host),
            leased: BTreeMap::new(),
            wanted: hits.iter().map(|hit| hit.inode).collect(),
            left: unknown.clone(),
            searched: unknown.into(),
            extents: ExtentReader::new(),
            shared: false,
            shares_attributes: false,
            hits,
            places: Places::default(),
            names: BTreeMap::new(),
            limit: 1,
            open_by: BTreeMap::new(),
            not_searched: Vec::new(),
            too_many_open: false,
            seen: BTreeSet::new(),
            complete: BTreeSet::new(),
            room: FOLDERS,
            links: None,
            unnamed: 0,
            unreadable: Ranges::default(),
        }
    }

    fn is_done(&mut self, all_links: bool) -> bool {
        if !self.left.is_empty() || self.shared {
            return false;
        }
        let is_named =
            |inode: &u64| self.names.contains_key(inode) || self.open_by.contains_key(inode);
        let is_open =
            |inode: &&u64| !self.complete.contains(inode) && (all_links || !is_named(inode));
        // From the last one on, because an inode keeps its name: a walk asks this for each directory.
        let behind = self.wanted.range(self.unnamed..);
        let before = self.wanted.range(..self.unnamed);
        match behind.chain(before).find(is_open).copied() {
            Some(inode) => self.unnamed = inode,
            None => return true,
        }
        false
    }

    /// Adds a name of an inode, unless it has enough.
    fn add_name(&mut self, inode: u64, path: &Path) {
        let names = self.names.entry(inode).or_default();
        if names.len() < self.limit {
            names.insert(printable(path));
        }
        if names.len() == parents::NAMES {
            self.complete.insert(inode);
        }
    }

    /// Finds ranges of inodes that can't be opened, by `debugfs`: hidden ones of ext4, and symbolic links that walks have met.
    /// Returns the ranges of the hidden ones.
    fn ext4_by_number(&mut self, node: &str, header: &Header) -> Result<Vec<Owned>> {
        let hidden = header.hidden();
        let links = self.links.take().unwrap_or_default();
        let inodes: Vec<u64> = hidden
            .iter()
            .map(|(inode, _)| *inode)
            .chain(links)
            .collect();
        let mut found = Vec::new();
        for (span, inode, offset) in ext4::of_inodes(node, header, &inodes, &mut self.left)? {
            match hidden.iter().find(|(hidden, _)| *hidden == inode) {
                Some((_, what)) => found.push(Owned {
                    span,
                    owner: Owner::Metadata { what, group: None },
                }),
                None => self.add_hit(span, inode, offset),
            }
        }
        Ok(found)
    }

    fn add_hit(&mut self, span: Span, inode: u64, offset: Option<u64>) {
        self.wanted.insert(inode);
        self.hits.push(Hit {
            span,
            inode,
            offset,
        });
    }

    /// Finds blocks of extended attributes that the kernel does not report, because their inodes have others in themselves
    /// (`ext4_iomap_xattr_fiemap`): a file for each.
    fn ext4_attributes(&mut self, node: &str, header: &Header) {
        // Each search reads all inodes, and most of what is left may be free.
        let bytes: u64 = self.left.iter().map(|span| span.length).sum();
        if bytes > MOST_ATTRIBUTES {
            return;
        }
        // Where an inode table is bad, this finds nothing.
        let mut left = self.left.clone();
        let Ok(found) = ext4::by_block(node, header, &mut left) else {
            return;
        };
        self.left = left;
        for (span, inode, offset) in found {
            self.add_hit(span, inode, offset);
        }
    }

    /// Returns the ranges of files, with their names and the processes that have them open.
    fn into_files(self) -> impl Iterator<Item = Owned> {
        let Self {
            hits,
            names,
            open_by,
            ..
        } = self;
        hits.into_iter().map(move |hit| Owned {
            owner: Owner::File {
                paths: names
                    .get(&hit.inode)
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
                open_by: open_by.get(&hit.inode).cloned().unwrap_or_default(),
                inode: hit.inode,
                file_offset: hit.offset,
            },
            span: hit.span,
        })
    }

    /// Searches one file of a walk.
    fn visit<F: AsFd>(
        &mut self,
        of: &FileSystem,
        entry: &Entry<F>,
        fork: Fork,
        progress: &dyn Progress,
    ) {
        progress.step();
        let inode = entry.inode;
        let looks = (!self.left.is_empty() || self.shared) && !CALLS.is_full();
        if looks && matches!(entry.kind, FileType::RegularFile | FileType::Directory) {
            match self.query(of, entry, fork, progress) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    progress.skipped(&of.directory.join(&entry.path), &error);
                }
                _ => {}
            }
        }
        if let Some(links) = self.links.as_mut().filter(|links| links.len() < LINKS) {
            let long = || {
                statat(&entry.folder, entry.name(), AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|status| status.st_blocks > 0)
            };
            if looks && entry.kind == FileType::Symlink && long() {
                links.push(inode);
            }
        }
        if self.wanted.contains(&inode) {
            self.add_name(inode, &of.directory.join(&entry.path));
        }
    }

    /// Queries the extents of a file or directory.
    fn query<F: AsFd>(
        &mut self,
        of: &FileSystem,
        entry: &Entry<F>,
        fork: Fork,
        progress: &dyn Progress,
    ) -> io::Result<()> {
        let Some(handle) = tree::handle(&entry.folder, entry.name())? else {
            return Ok(());
        };
        if handle.several && self.seen.contains(&handle.inode) {
            return Ok(());
        }
        if self.leases.has_write(handle.device, handle.inode) {
            let paths = self.leased.entry(handle.inode).or_default();
            if paths.len() < self.limit {
                paths.insert(of.directory.join(&entry.path));
            }
            return Ok(());
        }
        let file = handle.open()?;
        let asked = Asked {
            inode: handle.inode,
            path: of.directory.join(&entry.path),
            is_name: true,
        };
        self.look(asked, file, fork, progress);
        if handle.several {
            self.seen.insert(handle.inode);
            // Its next name is one of a wanted file, or not.
            self.look_at_rest(fork, progress);
        }
        Ok(())
    }

    /// Reports the files that were not opened because of a lease.
    fn report_leased(&mut self, progress: &dyn Progress) {
        let reason = "not searched, because that would break the lease of another process";
        for mut paths in std::mem::take(&mut self.leased).into_values() {
            let Some(path) = paths.pop_first() else {
                continue;
            };
            progress.skipped(&path, &io::Error::new(io::ErrorKind::WouldBlock, reason));
        }
    }

    /// Reads the extents of a file, or of several later.
    fn look(&mut self, asked: Asked, file: File, fork: Fork, progress: &dyn Progress) {
        let answers = self.extents.add(asked, file, fork, &self.searched);
        self.take_each(answers, fork, progress);
    }

    /// Reads the extents of a file that a process has open.
    fn look_at_open(&mut self, asked: Asked, file: File) {
        let mut answers = self.extents.add(asked, file, Fork::Data, &self.searched);
        answers.extend(self.extents.read());
        let failed = self.take_all(answers, Fork::Data);
        self.not_searched.extend(failed);
    }

    /// Reads the extents of the files that wait for it.
    fn look_at_rest(&mut self, fork: Fork, progress: &dyn Progress) {
        let answers = self.extents.read();
        self.take_each(answers, fork, progress);
    }

    fn take_each(&mut self, answers: Vec<Answer<Asked>>, fork: Fork, progress: &dyn Progress) {
        for (path, error) in self.take_all(answers, fork) {
            progress.skipped(&path, &error);
        }
    }

    /// Returns the files whose extents could not be read.
    fn take_all(&mut self, answers: Vec<Answer<Asked>>, fork: Fork) -> Vec<(PathBuf, io::Error)> {
        let mut failed = Vec::new();
        for (asked, extents) in answers {
            match extents {
                Ok(extents) => self.take(&asked, &extents, fork),
                Err(error) => failed.push((asked.path, error)),
            }
        }
        failed
    }

    /// Removes the file's extents from `left`.
    fn take(&mut self, asked: &Asked, extents: &[Extent], fork: Fork) {
        let inode = asked.inode;
        let mut hits = Vec::new();
        for extent in extents {
            for (part, at) in self.searched.in_extent(extent) {
                self.shared |= extent.flags & Extent::SHARED != 0
                    || fork == Fork::Attributes && self.shares_attributes;
                self.left.remove(&part.range());
                if self.places.keep(part.offset) {
                    hits.push(Hit {
                        offset: (fork == Fork::Data).then_some(at),
                        inode,
                        span: part,
                    });
                }
            }
        }
        if hits.is_empty() {
            return;
        }
        self.wanted.insert(inode);
        self.hits.append(&mut hits);
        if asked.is_name {
            self.add_name(inode, &asked.path);
        }
    }
}

/// A file whose extents are read.
struct Asked {
    inode: u64,
    path: PathBuf,
    /// The path is a name of it.
    is_name: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Opens;
    use abstractions::lease::Lease;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn ranges_of_a_block_group_are_one_query() {
        let ranges: Ranges = [0..8, 16..24, 90..110, 120..128, 300..301]
            .into_iter()
            .collect();
        assert_eq!(merged(&ranges, 100), [0..24, 90..110, 120..128, 300..301]);
        let all = merged(&ranges, 1 << 20);
        assert_eq!((all.len(), all[0].clone()), (1, 0..301));
        assert!(merged(&Ranges::default(), 100).is_empty());
    }

    fn record(flags: u32, owner: u64) -> Record {
        let mut record = Record::default();
        record.flags = flags;
        record.owner = owner;
        record.physical = 8192;
        record.offset = 4096;
        record.length = 8192;
        record
    }

    #[test]
    fn fsmap_record_maps_to_owner() {
        assert_eq!(
            FsmapOwner::of(&record(0, 131), 8192 + 512),
            FsmapOwner::Inode(131, Some(4096 + 512))
        );
        assert_eq!(
            FsmapOwner::of(&record(0x2, 131), 8192),
            FsmapOwner::Inode(131, None)
        );
        assert_eq!(FsmapOwner::of(&record(SPECIAL, 1), 8192), FsmapOwner::Free);
        assert_eq!(
            FsmapOwner::of(&record(SPECIAL, 2), 8192),
            FsmapOwner::Unknown
        );
        assert_eq!(
            FsmapOwner::of(&record(SPECIAL, 0x5800_0002), 8192),
            FsmapOwner::Unknown
        );
        assert_eq!(
            FsmapOwner::of(&record(SPECIAL, 0x58_0000_0002), 8192),
            FsmapOwner::Metadata("journal")
        );
        assert_eq!(
            FsmapOwner::of(&record(SPECIAL, 0x66_0000_0003), 8192),
            FsmapOwner::Metadata("block bitmap")
        );
    }

    #[test]
    fn directory_named_by_a_user_is_escaped() {
        let system = system_at(Path::new("/mnt/\x1b[2J"), "1:0".parse().unwrap());
        let opened = format!("{:#}", system.root().unwrap_err());
        for message in [system.gone(), opened] {
            assert!(message.contains(r"/mnt/\u{1b}[2J"), "{message}");
        }
    }

    #[test]
    fn file_system_above_the_mount_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let device = DeviceNumber::from_rdev(fs::metadata(folder.path()).unwrap().dev());
        let opens = Opens::of(folder.path());
        let other = system_at(folder.path(), "259:7".parse().unwrap());
        assert_eq!(other.root().unwrap_err().to_string(), other.gone());
        let error = open_root(folder.path(), other.device).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NODEV));
        assert!(opens.is_none_or(|opens| !opens.any()));
        let root = open_root(folder.path(), device).unwrap();
        assert!(Dir::read_from(&root).is_ok());
    }

    #[test]
    fn search_ends_with_the_last_name() {
        let mut search = Search::of(&Host::here(), Spans::default(), Vec::new());
        assert!(search.is_done(true));
        search.wanted.extend([5, 7, 9]);
        let name = |search: &mut Search, inode| {
            search.add_name(inode, Path::new("/file"));
        };
        for inode in [5, 9] {
            name(&mut search, inode);
            assert!(!search.is_done(false));
        }
        // Another one is found, before those that have names.
        search.wanted.insert(3);
        name(&mut search, 7);
        assert!(!search.is_done(false));
        search.open_by.insert(3, vec![812]);
        assert!(search.is_done(false) && !search.is_done(true));
        search.complete.extend([3, 5, 7, 9]);
        assert!(search.is_done(true));
    }

    #[test]
    fn names_of_many_files_are_looked_at_once() {
        let mut search = Search::of(&Host::here(), Spans::default(), Vec::new());
        search.wanted = (0..100_000).collect();
        search.names = (0..99_999).map(|inode| (inode, BTreeSet::new())).collect();
        let begun = std::time::Instant::now();
        // Each directory of a walk asks.
        assert!((0..10_000).all(|_| !search.is_done(false)));
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    }

    struct Silent;
    impl Progress for Silent {}

    fn system_at(folder: &Path, device: DeviceNumber) -> FileSystem {
        FileSystem {
            device,
            directory: folder.to_owned(),
            volume: Volume::made_up("disk", "1:0", vec![]),
        }
    }

    #[test]
    fn names_of_a_file_with_many_links_are_limited() {
        let system = system_at(Path::new("/mnt"), "1:0".parse().unwrap());
        let found = |limit| {
            let mut search = Search::of(&Host::here(), Spans::default(), Vec::new());
            search.limit = limit;
            search.wanted.insert(5);
            for name in 0..200_000 {
                let entry = Entry {
                    folder: std::io::stdin(),
                    path: name.to_string().into(),
                    inode: 5,
                    kind: FileType::RegularFile,
                };
                search.visit(&system, &entry, Fork::Data, &Silent);
            }
            (search.names[&5].len(), search.is_done(true))
        };
        assert_eq!(found(1), (1, false));
        assert_eq!(found(parents::NAMES), (parents::NAMES, true));
    }

    #[test]
    fn places_of_a_shared_block_are_limited() {
        let block: Spans = [Span::made_up(1 << 20, 4096)].into_iter().collect();
        let mut search = Search::of(&Host::here(), block, Vec::new());
        let asked = Asked {
            inode: 5,
            path: "file".into(),
            is_name: true,
        };
        let clone = |page: u64| Extent::new(page << 12, 1 << 20, 4096);
        let clones: Vec<_> = (0..5000).map(clone).collect();
        search.take(&asked, &clones, Fork::Data);
        assert!(search.left.is_empty());
        assert_eq!(search.hits.len(), crate::fs::places::PLACES);
        assert!(search.places.are_left_out);
    }

    struct Skipped(std::cell::Cell<usize>, io::ErrorKind);
    impl Progress for Skipped {
        fn skipped(&self, _path: &Path, error: &io::Error) {
            assert_eq!(error.kind(), self.1);
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn directories_that_wait_to_be_searched_take_limited_memory() {
        let folder = tempfile::tempdir().unwrap();
        for name in 0..100 {
            fs::create_dir_all(folder.path().join(format!("{name:0200}/below"))).unwrap();
        }
        let device = DeviceNumber::from_rdev(folder.path().metadata().unwrap().dev());
        let system = system_at(folder.path(), device);
        let searched = |room| {
            let mut search = Search::of(&Host::here(), Spans::default(), Vec::new());
            // No file has this one.
            search.wanted.insert(u64::MAX);
            search.room = room;
            let skipped = Skipped(0.into(), io::ErrorKind::Other);
            system
                .walk(&mut search, Fork::Data, false, &skipped)
                .unwrap();
            skipped.0.get()
        };
        assert_eq!(searched(FOLDERS), 0);
        // The room of one that was searched is free again: what is in it is searched.
        let skipped = searched(5000);
        assert!((75..90).contains(&skipped), "{skipped}");
    }

    #[test]
    fn links_of_a_file_with_a_lease_are_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        for link in 0..10 {
            fs::hard_link(&path, folder.path().join(link.to_string())).unwrap();
        }
        Lease::Write.take(&file).unwrap();
        let device = DeviceNumber::from_rdev(file.metadata().unwrap().dev());
        let system = system_at(folder.path(), device);
        let somewhere = Span {
            disk_offset: 0,
            offset: 0,
            length: 512,
        };
        let spans: Spans = [somewhere].into_iter().collect();
        let mut search = Search::of(&Host::here(), spans, Vec::new());
        search.leases.refresh();
        let skipped = Skipped(0.into(), io::ErrorKind::WouldBlock);
        system
            .walk(&mut search, Fork::Data, false, &skipped)
            .unwrap();
        assert_eq!(search.leased.values().flatten().count(), 1);
        search.report_leased(&skipped);
        assert_eq!(skipped.0.get(), 1);
    }

    #[test]
    fn file_is_found_by_its_extents() {
        // Skipped if the file system has no FIEMAP.
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; 65536]).unwrap();
        fs::hard_link(&path, folder.path().join("link")).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let mut first = None;
        let _ = extents::of_file(&file, Fork::Data, |extent| {
            first.get_or_insert(*extent);
        });
        let Some(extent) = first else { return };

        let span = Span {
            disk_offset: 0,
            offset: extent.physical + 4096,
            length: 512,
        };
        let spans: Spans = [span].into_iter().collect();
        let device = DeviceNumber::from_rdev(file.metadata().unwrap().dev());
        let system = system_at(folder.path(), device);
        let mut search = Search::of(&Host::here(), spans, Vec::new());
        search.limit = parents::NAMES;
        system.walk(&mut search, Fork::Data, true, &Silent).unwrap();
        let inode = file.metadata().unwrap().ino();
        assert!(search.left.is_empty());
        assert_eq!(search.hits.len(), 1);
        assert_eq!(search.hits[0].offset, Some(extent.logical + 4096));
        assert_eq!(search.names[&inode].len(), 2);
    }
}
