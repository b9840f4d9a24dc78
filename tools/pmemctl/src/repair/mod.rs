// SPDX-License-Identifier: GPL-2.0

//! Repairs the bad ranges of a file by overwriting them, which clears the poison.
//!
//! All writes go through the file, never through the device, so that no other file can be affected whatever happens
//! to this one. A write lease keeps other processes from opening or truncating the file. Before a range is written, the
//! name, the length and the blocks of the file are verified; what only the page cache has is written by the lease alone.
//!
//! A list may have too much: stale entries, or good blocks beside bad ones. So if the driver has an exact list, listed
//! ranges are first read past the CPU caches, and kept if they can be read.
//!
//! The file is not mapped: `read(2)` reports a bad block as an error, a mapping would raise SIGBUS.

mod backup;
mod contents;
mod job;
mod listed;
mod only_cached;
mod plan;
mod recheck;
mod target;

use crate::badblocks::origin::SECTOR;
use crate::block::devno::DeviceNumber;
use crate::ranges::Ranges;
use crate::repair::backup::Backup;
use crate::repair::contents::Contents;
use crate::repair::job::{Job, has_bad_attributes, verify};
use crate::repair::listed::{ListedRange, bad_of, beside, listed_ranges};
use crate::repair::plan::{ensure_no_hole, plan};
use crate::repair::recheck::{CopiesOf, Recheck, drop_readable, ensure_complete};
use crate::repair::target::{Target, ensure_no_snapshots, open_device};
use crate::sysfs::{Host, printable};
use abstractions::extents::Extent;
use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::Serialize;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use units::PAGE;

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

/// A range of the file that is written at once: whole pages of memory, and of the file if one is in two of these.
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
    /// The pages of it that were read through the page cache, which may be all that has them.
    #[serde(skip)]
    cached: Ranges,
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
            cached: Ranges::default(),
        }
    }

    fn set_counts(&mut self, contents: &Contents) {
        self.replaced = contents.replaced;
        self.kept = contents.kept;
        self.cached = contents.cached.clone();
    }

    /// Returns whether each page of the file is in two pages of its disk.
    fn is_misaligned(&self) -> bool {
        let misaligned = |at: u64| (at ^ self.file_offset) % PAGE != 0;
        self.disk_offset.is_some_and(misaligned)
    }

    /// Returns whether the page cache has all of it.
    fn is_cached(&self) -> bool {
        self.cached.gaps(&self.range()).is_empty()
    }

    fn failed(&mut self, reason: impl ToString) {
        self.result = Outcome::Failed;
        self.reason = Some(reason.to_string());
    }
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
    /// Why it ended before all was tried, or what else is to be done.
    pub stopped: Option<String>,
}

impl Report {
    fn add_stopped(&mut self, why: &str) {
        let before = self.stopped.take();
        let before = before.map(|stopped| stopped + "; ").unwrap_or_default();
        self.stopped = Some(before + why);
    }

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

/// Returns the blocks in a range.
fn whole_blocks(range: &Range<u64>, size: u64) -> Range<u64> {
    let start = range.start.next_multiple_of(size);
    start..(range.end / size * size).max(start)
}

/// Returns the ranges of the file to repair, and what is listed. Without `--trust-list`, listed pages that can be read are dropped from the lists
/// of errors first, unless they differ from the backup; if the whole file is repaired, they are among the ranges, as kept.
fn find_pieces(
    host: &Host,
    request: &Request,
    job: &Job,
    number: DeviceNumber,
) -> Result<(Vec<RepairRange>, Ranges)> {
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
                // Blocks of which it covers a part are read.
                Some(range) if request.overwrite_good => {
                    beside(&listed, &pieces, &whole_blocks(range, target.block_size))
                }
                Some(_) => beside(&listed, &pieces, &(0..0)),
            };
            let unwritten: Ranges = extents
                .iter()
                .filter(|extent| extent.flags & Extent::UNWRITTEN != 0)
                .map(Extent::range)
                .collect();
            let copies = CopiesOf {
                job,
                unwritten,
                may_write: request.invalidate_snapshots
                    || ensure_no_snapshots(host, number).is_ok(),
            };
            // The rest of a page that is replaced from a backup has to be as old as that.
            let by_sectors = target.block_size == SECTOR && job.backup.is_none();
            recheck =
                drop_readable(host, &listed, by_sectors, &copies).with_context(|| target.name())?;
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
    // A read of a bad sector may have listed the others of its page again.
    let listed = listed_ranges(&extents, &bad);
    let listed: Ranges = listed.iter().map(ListedRange::range).collect();
    if request.range.is_none() {
        let size = target.size();
        let kept = good.iter().flat_map(|range| range.outside(&listed));
        pieces.extend(kept.map(|range| RepairRange::kept(&range, size)));
        pieces.sort_by_key(|piece: &RepairRange| piece.file_offset);
    }
    Ok((pieces, listed))
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
    let (pieces, listed) = find_pieces(host, request, &job, number)?;
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
    let snapshots = match request.invalidate_snapshots {
        true => Ok(()),
        false => ensure_no_snapshots(host, number),
    };
    let may_write = snapshots.is_ok();
    let is_planned = |piece: &RepairRange| piece.result == Outcome::Planned;
    if report.pieces.iter().any(is_planned) {
        // fsync(2) writes such data to the journal only.
        ensure!(
            !job.target.buffered,
            "{}: its data is journaled, so that a write reaches the bad blocks at a later time; end that by chattr -j, or mount \
             the file system without data=journal",
            job.target.name()
        );
        snapshots.with_context(|| job.target.name())?;
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
    if !report.pieces.is_empty() {
        if let Some(stopped) = job.write_all(&mut report.pieces, &listed, may_write) {
            report.add_stopped(&stopped);
        }
    }
    if let Err(error) = job.target.restore_capabilities() {
        report.add_stopped(&format!(
            "its capabilities are gone: {error:#}; see setcap(8)"
        ));
    }
    if let Err(error) = verify(host, &job, &mut report.pieces) {
        let written = |piece: &&mut RepairRange| piece.result == Outcome::Planned;
        for piece in report.pieces.iter_mut().filter(written) {
            piece.failed("written, but whether it is still listed is unknown");
        }
        report.add_stopped(&format!("{error:#}"));
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
