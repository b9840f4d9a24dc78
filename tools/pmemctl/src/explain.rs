// SPDX-License-Identifier: GPL-2.0

//! Explains a SIGBUS: what was mapped at the address, and why an access to it may have failed.
//!
//! Nothing is read from the memory itself.

use crate::affected::{self, AffectedRange, Survey};
use crate::block::descriptors::MountTable;
use crate::block::devno::DeviceNumber;
use crate::block::holders::{self, Process};
use crate::block::maps::{self, Mapping};
use crate::block::remap::{self, Span};
use crate::block::topology::{self, Mounts};
use crate::fs::Owner;
use crate::fs::leases::Leases;
use crate::fs::open_files;
use crate::sysfs::{Host, error_text, printable, shell_path, unescape};
use abstractions::extents::{self, Extent, Fork};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use units::Size;

/// The largest saved table of mappings that is read.
const LARGEST_TABLE: u64 = 64 << 20;

/// Where the mappings of the process are read.
#[derive(Debug, Clone)]
pub enum Subject {
    Process(u32),
    /// A copy of `/proc/PID/maps` of a process that is gone.
    Saved(PathBuf),
}

/// Why an access to the address fails, or may have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The memory of the file is listed as bad.
    BadBlock,
    /// A page that is no persistent memory is poisoned.
    PoisonedPage,
    /// The file ends before the address: it was truncated, or is shorter than the mapping.
    BeyondEnd,
    /// The file has no block there, and a fault must allocate one.
    Hole,
    /// Nothing is listed.
    NotListed,
    /// Whether the memory is bad is unknown.
    Unknown,
}

/// Returns the mapping of an address; if there is none, why.
fn mapping_of(table: &[u8], address: u64) -> Result<Mapping> {
    let all = maps::parse(table);
    ensure!(
        !all.is_empty(),
        "this is no table of mappings; save /proc/PID/maps before the process ends"
    );
    let at = |one: &&Mapping| (one.start..one.end).contains(&address);
    all.iter().find(at).cloned().with_context(|| {
        format!("{address:#x} is not mapped: an access is SIGSEGV, unless it was unmapped since")
    })
}

/// A mapped file.
#[derive(Debug, Clone, JsonSchema, Serialize)]
pub struct MappedFile {
    /// `null` if it is removed.
    pub path: Option<String>,
    pub inode: u64,
    pub size: u64,
    /// Its pages are the persistent memory itself, and no copies in the page cache.
    pub dax: bool,
}

/// The known facts about an address.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Explanation {
    pub address: u64,
    pub process: Option<Process>,
    pub mapping: Mapping,
    pub file: Option<MappedFile>,
    /// The byte of the file that is mapped at the address.
    pub file_offset: Option<u64>,
    pub disk: Option<String>,
    /// The byte of the disk.
    pub disk_offset: Option<u64>,
    /// The sector of the disk, of 512 bytes.
    pub sector: Option<u64>,
    pub cause: Cause,
    pub reason: String,
    /// The bad ranges of the page or pages.
    pub listed: Vec<AffectedRange>,
    /// The steps to take, in order; commands are quoted for a shell.
    pub actions: Vec<String>,
}

/// Explains an access to `address`. `lsb` is `si_addr_lsb` of the signal: the error is somewhere in the naturally aligned
/// `1 << lsb` bytes; a page is the least.
pub fn explain(host: &Host, subject: &Subject, address: u64, lsb: u32) -> Result<Explanation> {
    let page = rustix::param::page_size() as u64;
    let size = 1_u64.checked_shl(lsb).unwrap_or(page).max(page);
    let (table, process) = match subject {
        Subject::Process(pid) => (live_table(host, *pid)?, Some(holders::process(host, *pid))),
        Subject::Saved(path) => {
            let table = saved_table(path).map_err(|error| error.context(printable(path)))?;
            (table, None)
        }
    };
    let mapping = mapping_of(&table, address).map_err(|error| match &process {
        Some(process) => error.context(process.to_string()),
        None => error,
    })?;
    let mut explanation = Explanation {
        address,
        process,
        mapping,
        file: None,
        file_offset: None,
        disk: None,
        disk_offset: None,
        sector: None,
        cause: Cause::Unknown,
        reason: String::new(),
        listed: Vec::new(),
        actions: Vec::new(),
    };
    let pages = address - address % size..(address - address % size).saturating_add(size);
    if explanation.mapping.is_anonymous() {
        explanation.page_cache(host, &pages, page, "anonymous memory");
        return Ok(explanation);
    }
    let (file, path) = match open(host, subject, &explanation.mapping) {
        Ok(file) => file,
        Err(error) => {
            explanation.reason = format!("{error:#}");
            return Ok(explanation);
        }
    };
    explanation.of_file(host, &file, path, &pages, page)?;
    Ok(explanation)
}

fn live_table(host: &Host, pid: u32) -> Result<Vec<u8>> {
    let path = host.path(format!("proc/{pid}/maps"));
    match fs::read(&path) {
        Ok(table) if table.is_empty() => {
            bail!("process {pid} has no mappings: it is a kernel thread, or is ending")
        }
        Ok(table) => Ok(table),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || Errno::from_io_error(&error) == Some(Errno::SRCH) =>
        {
            bail!(
                "there is no process {pid}; if a copy of its /proc/{pid}/maps was saved, give that with --maps"
            )
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn saved_table(path: &Path) -> Result<Vec<u8>> {
    let mut table = Vec::new();
    let file = affected::open(path)?;
    file.take(LARGEST_TABLE + 1).read_to_end(&mut table)?;
    ensure!(
        table.len() as u64 <= LARGEST_TABLE,
        "this is no table of mappings: it is longer than {}",
        Size::from_bytes(LARGEST_TABLE)
    );
    Ok(table)
}

/// Opens the mapped file and finds its name. Asks no file system that may not answer, and breaks no lease.
fn open(host: &Host, subject: &Subject, mapping: &Mapping) -> Result<(File, Option<PathBuf>)> {
    let shown = printable(&mapping.name);
    if mapping.name.as_bytes().starts_with(b"/dev/dax") {
        bail!("{shown} is device DAX, for which no errors are listed; see \"pmemctl status\"");
    }
    ensure!(
        mapping.device.is_of_block_device(),
        "{shown}: {}",
        "its file system is on no block device of its own, so it is not followed to its memory"
    );
    ensure!(
        !Leases::read(host).has_write(mapping.device, mapping.inode),
        "{shown}: not opened, because that would break the lease of another process"
    );
    match (by_name(host, mapping), subject) {
        (Some((file, path)), _) => Ok((file, Some(path))),
        // It is removed, or has another name in the mount namespace of the process.
        (None, Subject::Process(pid)) => Ok((by_address(host, *pid, mapping)?, None)),
        (None, Subject::Saved(_)) => bail!(
            "{shown}: there is no file of this name with inode {} any more",
            mapping.inode
        ),
    }
}

/// Opens the mapped file by its name, if it still has that name here: the process may have another file of this name, which is
/// not opened, nor is its server asked.
fn by_name(host: &Host, mapping: &Mapping) -> Option<(File, PathBuf)> {
    let is_same = |metadata: &fs::Metadata| {
        metadata.ino() == mapping.inode
            && DeviceNumber::from_rdev(metadata.dev()) == mapping.device
            && metadata.is_file()
    };
    let candidates = [
        mapping.name.clone(),
        // The table has a newline as \012.
        unescape(mapping.name.as_bytes()),
    ];
    let mut candidates = candidates
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let mounts = MountTable::of(host, &[]);
    candidates.find_map(|path| {
        mounts.status_of_path(host, &path).filter(is_same)?;
        let file = open_files::open_link(&host.absolute(&path), mapping.device, mapping.inode);
        Some((file.ok()?, path))
    })
}

/// Opens the mapped file by its address in the process.
fn by_address(host: &Host, pid: u32, mapping: &Mapping) -> Result<File> {
    let shown = printable(&mapping.name);
    let link = host.path(format!("proc/{pid}/map_files/{}", mapping.link()));
    let file = open_files::open_link(&link, mapping.device, mapping.inode);
    file.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!("{shown}: it was unmapped meanwhile"),
        _ => anyhow!("{shown}: {}", error_text(&error)),
    })
}

/// The state of a page that is no persistent memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageState {
    Poisoned,
    Good,
    Unknown,
}

/// Returns the page frame of an entry of `/proc/PID/pagemap`; that of a poisoned page looks like a page in swap space
/// that does not exist.
fn page_frame(entry: u64, swap_areas: u64) -> Option<u64> {
    const FRAME: u64 = (1 << 55) - 1;
    let (present, swapped) = ((entry >> 63) & 1 == 1, (entry >> 62) & 1 == 1);
    match (present, swapped) {
        (true, _) => Some(entry & FRAME),
        (false, true) if entry & 0x1f >= swap_areas => Some((entry & FRAME) >> 5),
        _ => None,
    }
    .filter(|frame| *frame != 0)
}

/// Looks at the page of an address through `/proc/PID/pagemap` and `/proc/kpageflags`.
fn page_state(host: &Host, pid: u32, address: u64, page: u64) -> PageState {
    /// `KPF_HWPOISON` of linux/kernel-page-flags.h.
    const HWPOISON: u64 = 1 << 19;
    let read = |file: String, index: u64| -> Option<u64> {
        let mut entry = [0; 8];
        let file = File::open(host.path(file)).ok()?;
        file.read_exact_at(&mut entry, index.checked_mul(8)?).ok()?;
        Some(u64::from_ne_bytes(entry))
    };
    let swaps = fs::read_to_string(host.path("proc/swaps")).unwrap_or_default();
    let areas = swaps.lines().count().saturating_sub(1) as u64;
    let Some(entry) = read(format!("proc/{pid}/pagemap"), address / page) else {
        return PageState::Unknown;
    };
    let Some(frame) = page_frame(entry, areas) else {
        return PageState::Good;
    };
    match read("proc/kpageflags".to_owned(), frame) {
        Some(flags) if flags & HWPOISON != 0 => PageState::Poisoned,
        Some(_) => PageState::Good,
        None => PageState::Unknown,
    }
}

fn size(bytes: u64) -> Size {
    Size::from_bytes(bytes)
}

impl Explanation {
    /// Explains an access to a page in ordinary memory.
    fn page_cache(&mut self, host: &Host, pages: &Range<u64>, page: u64, what: &str) {
        let Some(process) = &self.process else {
            self.reason = format!(
                "{what}, which is no persistent memory; whether it was poisoned is not known after the process has ended: see \
                 \"Memory failure\" in the kernel log"
            );
            return;
        };
        let range = pages.start.max(self.mapping.start)..pages.end.min(self.mapping.end);
        let states = (range.start / page..range.end.div_ceil(page))
            .map(|index| page_state(host, process.pid, index * page, page));
        let states: Vec<_> = states.collect();
        if states.contains(&PageState::Poisoned) {
            self.cause = Cause::PoisonedPage;
            self.reason = format!("{what}, which is no persistent memory: the page is poisoned");
            self.actions = vec![
                "restart the process: the kernel does not use the page again".into(),
                "look for the DIMM in the kernel log (\"Memory failure\", EDAC) and replace it"
                    .into(),
            ];
        } else if states.contains(&PageState::Unknown) {
            self.reason =
                format!("{what}, which is no persistent memory; its page flags cannot be read");
        } else {
            self.cause = Cause::NotListed;
            self.reason =
                format!("{what}, which is no persistent memory: the page is not poisoned");
        }
    }

    /// Explains an access to a mapped file.
    fn of_file(
        &mut self,
        host: &Host,
        file: &File,
        path: Option<PathBuf>,
        pages: &Range<u64>,
        page: u64,
    ) -> Result<()> {
        let shown = path
            .clone()
            .unwrap_or_else(|| PathBuf::from(&self.mapping.name));
        let metadata = file.metadata().with_context(|| printable(&shown))?;
        let attributes = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
        let dax = attributes.is_ok_and(|it| it.stx_attributes.contains(StatxAttributes::DAX));
        self.file = Some(MappedFile {
            path: path.as_ref().map(printable),
            inode: metadata.ino(),
            size: metadata.len(),
            dax,
        });
        let offset_of = |address: u64| self.mapping.offset + (address - self.mapping.start);
        let offset = offset_of(self.address);
        let range = offset_of(pages.start.max(self.mapping.start))
            ..offset_of(pages.end.min(self.mapping.end) - 1) + 1;
        self.file_offset = Some(offset);
        if offset >= metadata.len().next_multiple_of(page) {
            self.beyond_end(path.as_deref(), metadata.len());
            return Ok(());
        }
        let magic = rustix::fs::fstatfs(file)
            .with_context(|| printable(&shown))?
            .f_type;
        // CAST: a magic number has 32 bits; it may be negative.
        if let Some(reason) = affected::untraceable(u64::from(magic as u32), metadata.dev()) {
            self.reason = reason;
            return Ok(());
        }
        let survey = Survey::of(host)?;
        let number = DeviceNumber::from_rdev(metadata.dev());
        // If it is not known, open_file() fails, and says why.
        let device = affected::data_device(host, file, number, &shown).unwrap_or(number);
        let entries = match survey.open_file(file, &shown) {
            Ok(entries) => entries,
            Err(error) => {
                // Without persistent memory below it, only the page cache can be bad.
                let is_elsewhere = topology::disks_below(host, device)
                    .iter()
                    .all(|disk| survey.disks.iter().all(|one| one.disk.name() != disk));
                match is_elsewhere {
                    true => self.page_cache(
                        host,
                        pages,
                        page,
                        "a file on another disk, in the page cache",
                    ),
                    false => self.reason = format!("{error:#}"),
                }
                return Ok(());
            }
        };
        let mut extents: Vec<Extent> = Vec::new();
        extents::of_file(file, Fork::Data, |extent| extents.push(*extent))?;
        self.listed = entries
            .into_iter()
            .filter_map(|entry| within(entry, &range))
            .collect();
        let physical = physical(&extents, offset);
        if let Some((disk, at)) = physical.and_then(|at| on_disk(host, &survey, device, at)) {
            self.disk = Some(disk);
            self.disk_offset = Some(at);
            self.sector = Some(at / 512);
        }
        if !self.listed.is_empty() {
            self.bad_block(dax, path.as_deref(), &shown);
        } else if dax && physical.is_none() {
            self.hole(&shown, metadata.len());
        } else if dax {
            self.cause = Cause::NotListed;
            self.reason = "the memory is not listed as bad: it was repaired, or written, or the file was shorter or moved \
                           at the time of the signal, or the file system has shut down (see the kernel log)"
                .into();
        } else {
            self.page_cache(
                host,
                pages,
                page,
                "the file is not DAX: its pages are in the page cache",
            );
            // The block of a page that failed may not have been allocated yet.
            if physical.is_none() && self.cause != Cause::PoisonedPage {
                self.hole(&shown, metadata.len());
            }
        }
        Ok(())
    }

    /// Explains an access behind the end of a file of `length` bytes.
    fn beyond_end(&mut self, path: Option<&Path>, length: u64) {
        self.cause = Cause::BeyondEnd;
        self.reason = format!(
            "the file ends at {}, before the address: it was truncated, or is shorter than the mapping",
            size(length)
        );
        self.actions = vec![
            "find the program that truncates the file: log rotation, a restore, a second instance"
                .into(),
        ];
        if let Some(path) = path {
            let lease = format!("pmemctl lease {} -- COMMAND", shell_path(path));
            self.actions.push(lease);
        }
    }

    /// Explains an access to listed bad memory.
    fn bad_block(&mut self, dax: bool, path: Option<&Path>, shown: &Path) {
        let whole: u64 = self.listed.iter().map(|one| one.span.length).sum();
        let disk = self.listed.first().map_or("", |one| &one.disk);
        self.cause = Cause::BadBlock;
        self.reason = format!("{} of the page are listed as bad on {disk}", size(whole));
        if !dax {
            self.reason +=
                "; the file is not DAX: the kernel could not read them into the page cache";
        }
        self.actions = repair(path, shown);
    }

    /// Explains an access to a hole in a file of `length` bytes.
    fn hole(&mut self, shown: &Path, length: u64) {
        let shown = shell_path(shown);
        self.cause = Cause::Hole;
        self.reason =
            "the file has no block at the offset: the fault could not allocate one".into();
        self.actions = vec![
            format!("look for a full file system or quota: df {shown}; quota"),
            format!("allocate the file before it is mapped: fallocate --length {length} {shown}"),
        ];
    }
}

/// Returns what to do about bad blocks in a file.
fn repair(path: Option<&Path>, shown: &Path) -> Vec<String> {
    let Some(path) = path else {
        return vec![format!(
            "{} is removed: end the process; its blocks are free then, and are listed by \"pmemctl errors\"",
            printable(shown)
        )];
    };
    let name = shell_path(path);
    vec![
        "end the process: a file that is open is not repaired".into(),
        format!("pmemctl repair --dry-run --from BACKUP {name}"),
        format!("pmemctl repair --from BACKUP {name}"),
        format!("pmemctl repair --zero {name} # if there is no backup, and zeros are valid data"),
    ]
}

/// Returns the part of a bad range that is in a range of the file.
fn within(mut entry: AffectedRange, range: &Range<u64>) -> Option<AffectedRange> {
    let Some(Owner::File {
        file_offset: Some(at),
        ..
    }) = &mut entry.owner
    else {
        return None;
    };
    let start = range.start.max(*at);
    let end = range.end.min(at.saturating_add(entry.span.length));
    let skipped = start.checked_sub(*at).filter(|_| start < end)?;
    let from = entry.span.offset.checked_add(skipped)?;
    entry.span = entry.span.cut(&(from..from.checked_add(end - start)?))?;
    *at = start;
    Some(entry)
}

/// Returns the byte of the volume that has this byte of the file; `None` for a hole.
fn physical(extents: &[Extent], offset: u64) -> Option<u64> {
    extents.iter().find_map(|extent| {
        let within = offset.checked_sub(extent.logical)?;
        (within < extent.length).then(|| extent.physical.checked_add(within))?
    })
}

/// Returns the disk and the byte of it that has a byte of a volume.
fn on_disk(host: &Host, survey: &Survey, number: DeviceNumber, at: u64) -> Option<(String, u64)> {
    let below = topology::disks_below(host, number);
    let mounts = Mounts::here().ok()?;
    let mut disks = survey.disks.iter().map(|one| &one.disk);
    disks.find_map(|disk| {
        if !below.contains(disk.name()) {
            return None;
        }
        let all = Span::of_disk(0, disk.size().bytes());
        let volume = topology::of_disk(host, disk.name(), &mounts).ok()?;
        let traced = remap::trace(host, &volume, [all].into_iter().collect()).ok()?;
        let found = traced
            .iter()
            .filter(|one| one.chain.first() == Some(&number) && one.opaque.is_none())
            .find_map(|one| one.spans.within(&(at..at.checked_add(1)?)).next())?;
        Some((disk.name().to_owned(), found.disk_offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Opens;
    use std::os::unix::fs::symlink;

    const TABLE: &[u8] = b"\
7f0000000000-7f0000400000 rw-s 00100000 103:05 4711                       /mnt/a b\\012c (deleted)\n\
7f0000400000-7f0000401000 rw-p 00000000 00:00 0 \n\
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n";

    #[test]
    fn mapping_of_an_address_is_found() {
        let mapping = mapping_of(TABLE, 0x7f00_0000_0fff).unwrap();
        assert_eq!(mapping.name, "/mnt/a b\\012c (deleted)");
        assert_eq!((mapping.offset, mapping.inode), (1 << 20, 4711));
        assert_eq!(mapping.device.to_string(), "259:5");
        let anonymous = mapping_of(TABLE, 0x7f00_0040_0000).unwrap();
        assert!(anonymous.is_anonymous() && anonymous.name.is_empty());
        let stack = mapping_of(TABLE, 0x7ffd_0000_0000).unwrap();
        assert!(stack.is_anonymous() && stack.name == "[stack]");
        let error = mapping_of(TABLE, 0x1000).unwrap_err().to_string();
        assert!(error.contains("0x1000 is not mapped"), "{error}");
        let error = mapping_of(b"junk\n", 0x1000).unwrap_err().to_string();
        assert!(error.contains("no table"), "{error}");
    }

    #[test]
    fn poisoned_page_has_a_frame() {
        let (present, swapped) = (1_u64 << 63, 1_u64 << 62);
        assert_eq!(page_frame(present | 0x1234, 0), Some(0x1234));
        // A page in the swap area 0, and a page of the type of poisoned pages.
        assert_eq!(page_frame(swapped | (0x1234 << 5), 1), None);
        assert_eq!(page_frame(swapped | (0x1234 << 5) | 0x17, 1), Some(0x1234));
        assert_eq!(page_frame(0, 0), None);
        // The frame is hidden from others than root.
        assert_eq!(page_frame(present, 0), None);
    }

    #[test]
    fn poisoned_page_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        let write = |name: &str, entries: &[u64]| {
            let path = folder.path().join("proc").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let bytes: Vec<u8> = entries.iter().flat_map(|one| one.to_ne_bytes()).collect();
            fs::write(path, bytes).unwrap();
        };
        write("7/pagemap", &[(1 << 63) | 1, (1 << 63) | 2, 0]);
        write("kpageflags", &[0, 0, 1 << 19]);
        let state = |address| page_state(&host, 7, address, 4096);
        assert_eq!(state(0), PageState::Good);
        assert_eq!(state(4096), PageState::Poisoned);
        assert_eq!(state(8192), PageState::Good);
        assert_eq!(state(12288), PageState::Unknown);
    }

    #[test]
    fn process_that_is_gone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        let error = live_table(&host, 812).unwrap_err().to_string();
        assert!(
            error.contains("no process 812") && error.contains("--maps"),
            "{error}"
        );
        fs::create_dir_all(folder.path().join("proc/812")).unwrap();
        fs::write(folder.path().join("proc/812/maps"), "").unwrap();
        let error = live_table(&host, 812).unwrap_err().to_string();
        assert!(error.contains("kernel thread"), "{error}");
    }

    /// A mapping of the file at a path, with this name.
    fn mapping_of_file(path: &Path, name: &str) -> Mapping {
        let metadata = fs::metadata(path).unwrap();
        Mapping {
            device: DeviceNumber::from_rdev(metadata.dev()),
            inode: metadata.ino(),
            name: name.into(),
            ..mapping_of(TABLE, 0x7f00_0000_0000).unwrap()
        }
    }

    #[test]
    fn mapped_file_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("proc/self")).unwrap();
        fs::write(
            at("proc/self/mountinfo"),
            "22 1 0:21 / / rw - tmpfs none rw\n",
        )
        .unwrap();
        for name in ["a\nb", "other"] {
            fs::write(at(name), "").unwrap();
        }
        let mapping = mapping_of_file(&at("a\nb"), "/a\\012b");
        let (file, path) = by_name(&host, &mapping).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), mapping.inode);
        assert_eq!(path, Path::new("/a\nb"));
        let other = mapping_of_file(&at("a\nb"), "/other");
        assert!(by_name(&host, &other).is_none());
    }

    #[test]
    fn mapping_that_was_exchanged_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("proc/7/map_files")).unwrap();
        for name in ["file", "other"] {
            fs::write(at(name), "").unwrap();
        }
        let mapping = mapping_of_file(&at("file"), "/file (deleted)");
        let link = at("proc/7/map_files").join(mapping.link());
        symlink(at("file"), &link).unwrap();
        let file = by_address(&host, 7, &mapping).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), mapping.inode);
        fs::remove_file(&link).unwrap();
        symlink(at("other"), &link).unwrap();
        let opens = Opens::of(&at("other"));
        let error = by_address(&host, 7, &mapping).unwrap_err().to_string();
        assert!(error.contains("unmapped meanwhile"), "{error}");
        assert!(opens.is_none_or(|opens| !opens.any()));
    }

    #[test]
    fn saved_table_is_a_regular_file() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        assert!(saved_table(&fifo).is_err());
        let path = folder.path().join("maps");
        fs::write(&path, TABLE).unwrap();
        assert_eq!(saved_table(&path).unwrap(), TABLE);
        File::create(&path)
            .unwrap()
            .set_len(LARGEST_TABLE + 1)
            .unwrap();
        assert!(saved_table(&path).is_err());
    }

    #[test]
    fn bad_range_is_cut_to_the_page() {
        let entry = AffectedRange {
            disk: "pmem0".into(),
            volume: "pmem0".into(),
            span: Span::made_up(8192, 8192),
            file_system: None,
            mount: None,
            owner: Some(Owner::File {
                paths: Vec::new(),
                inode: 12,
                file_offset: Some(4096),
                open_by: Vec::new(),
            }),
            quarantined: false,
            reason: None,
        };
        let cut = within(entry.clone(), &(8192..12288)).unwrap();
        assert_eq!(cut.span, Span::made_up(12288, 4096));
        assert!(matches!(
            cut.owner,
            Some(Owner::File {
                file_offset: Some(8192),
                ..
            })
        ));
        let first = within(entry.clone(), &(0..8192)).unwrap();
        assert_eq!(first.span, Span::made_up(8192, 4096));
        assert!(within(entry.clone(), &(0..4096)).is_none());
        assert!(within(entry, &(12288..16384)).is_none());
        let extents = [
            Extent::new(0, 1 << 20, 4096),
            Extent::new(8192, 1 << 30, 4096),
        ];
        assert_eq!(physical(&extents, 100), Some((1 << 20) + 100));
        assert_eq!(physical(&extents, 4096), None);
        assert_eq!(physical(&extents, 8192 + 512), Some((1 << 30) + 512));
    }
}
