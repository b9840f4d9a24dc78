// SPDX-License-Identifier: GPL-2.0

//! Sums up what the bytes of a disk are used for, in cells: files, metadata, free space and bad blocks.

use crate::affected::{Survey, Target};
use crate::badblocks::kernel::{DiskErrors, bytes};
use crate::badblocks::set::BadBlocks;
use crate::block::disk::Disk;
use crate::block::remap::{self, Span, Spans};
use crate::block::topology::{self, Mounts, Volume};
use crate::fs::SpaceKind;
use crate::fs::ext4::{self, Header};
use crate::fs::mounted::FileSystem;
use crate::fs::offline::{self, Unused};
use crate::fs::xfs;
use crate::ranges::Ranges;
use crate::sysfs::Host;
use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::Serialize;
use std::ops::Range;
use units::PAGE;

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Cell {
    /// Where it begins, in bytes of the disk.
    pub offset: u64,
    pub length: u64,
    /// The use of most of its bytes.
    pub kind: SpaceKind,
    /// How many bytes of it are known to be bad.
    pub bad: u64,
    /// The number of bytes by use, in the order of [`SpaceKind::ALL`].
    #[serde(skip)]
    pub bytes: [u64; SpaceKind::ALL.len()],
}

#[derive(Debug)]
struct Cells(Vec<Cell>);

impl Cells {
    /// A disk of `size` bytes in `count` cells, or as many as it has pages, if that is less.
    fn new(size: u64, count: u64) -> Self {
        let length = size.div_ceil(count.max(1)).next_multiple_of(PAGE).max(PAGE);
        let cell = |index: u64| Cell {
            offset: index * length,
            length: length.min(size - index * length),
            kind: SpaceKind::Outside,
            bad: 0,
            bytes: [0; SpaceKind::ALL.len()],
        };
        Self((0..size.div_ceil(length)).map(cell).collect())
    }

    fn each(&mut self, range: &Range<u64>, mut add: impl FnMut(&mut Cell, u64)) {
        let Some(length) = self.0.first().map(|cell| cell.length) else {
            return;
        };
        let first = usize::try_from(range.start / length).unwrap_or(usize::MAX);
        for cell in self.0.iter_mut().skip(first) {
            if cell.offset >= range.end {
                break;
            }
            let end = range.end.min(cell.offset + cell.length);
            add(cell, end.saturating_sub(range.start.max(cell.offset)));
        }
    }

    fn add(&mut self, range: &Range<u64>, kind: SpaceKind) {
        self.each(range, |cell, bytes| cell.bytes[kind as usize] += bytes);
    }

    fn add_bad(&mut self, range: &Range<u64>) {
        self.each(range, |cell, bytes| cell.bad += bytes);
    }

    /// Sets the use of each cell.
    fn finish(mut self) -> Vec<Cell> {
        for cell in &mut self.0 {
            let most = SpaceKind::ALL
                .iter()
                .max_by_key(|&&kind| cell.bytes[kind as usize]);
            cell.kind = most.copied().unwrap_or(SpaceKind::Outside);
        }
        self.0
    }
}

/// A partition, a volume, or the disk itself, where it has something.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct VolumeSummary {
    pub name: String,
    /// Where it begins on the disk.
    pub offset: u64,
    /// How many of its bytes are there.
    pub length: u64,
    pub file_system: Option<String>,
    pub mount: Option<String>,
    /// Why not more is known.
    pub reason: Option<String>,
}

/// The layout of a disk.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct DiskLayout {
    pub disk: String,
    pub size: u64,
    /// Partitions and volumes on it.
    pub volumes: Vec<VolumeSummary>,
    /// The number of bytes by use.
    pub sums: Vec<Sum>,
    /// How many of its bytes are bad; `null` if there may be more than the cells have.
    pub bad: Option<u64>,
    /// Why `bad` is `null`.
    pub reason: Option<String>,
    pub cells: Vec<Cell>,
}

/// How many bytes are for something.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Sum {
    pub kind: SpaceKind,
    pub bytes: u64,
}

/// Returns the sectors of a disk that are known to be bad, and why there may be more.
fn bad(errors: &DiskErrors) -> (BadBlocks, Option<String>) {
    let listed = errors.bad.clone().unwrap_or_default();
    let reason = match errors.why_unknown() {
        Some(reason) => Some(reason.to_owned()),
        None => errors
            .outside_affects_files()
            .then(|| "errors outside of its data may affect any of it".to_owned()),
    };
    (listed, reason)
}

/// Reads the layout of `disk` in at most `count` cells.
pub fn of_disk(host: &Host, disk: &Disk, count: u64) -> Result<DiskLayout> {
    let size = disk.size().bytes();
    ensure!(size > 0, "{} has no size", disk.name());
    let mut cells = Cells::new(size, count);
    let (listed, why_unknown) = bad(&disk.errors());
    for range in listed.ranges() {
        cells.add_bad(&bytes(range));
    }
    let volume = topology::of_disk(host, disk.name(), &Mounts::here()?)?;
    let whole = [Span::of_disk(0, size)].into_iter().collect();
    let mut volumes = Vec::new();
    for affected in remap::trace(host, &volume, whole)? {
        let outside = affected.volume.file_system.is_none() && !affected.volume.children.is_empty();
        let reason = match (affected.why_opaque(), outside) {
            (Some(reason), _) => {
                add(
                    &mut cells,
                    &affected.spans,
                    &(0..u64::MAX),
                    SpaceKind::Other,
                );
                Some(reason)
            }
            (None, true) => {
                add(
                    &mut cells,
                    &affected.spans,
                    &(0..u64::MAX),
                    SpaceKind::Outside,
                );
                continue;
            }
            (None, false) => contents(host, &affected.volume, &affected.spans, &mut cells)
                .with_context(|| affected.volume.name.clone())?,
        };
        let first = affected.spans.iter().map(|span| span.disk_offset).min();
        volumes.push(VolumeSummary {
            name: affected.volume.name.clone(),
            offset: first.unwrap_or(0),
            length: affected.spans.iter().map(|span| span.length).sum(),
            file_system: affected.volume.file_system.clone(),
            mount: affected.volume.mount(),
            reason,
        });
    }
    volumes.sort_by_key(|part| part.offset);
    let cells = cells.finish();
    let sum = |&kind: &SpaceKind| Sum {
        kind,
        bytes: cells.iter().map(|cell| cell.bytes[kind as usize]).sum(),
    };
    Ok(DiskLayout {
        disk: disk.name().to_owned(),
        size,
        volumes,
        sums: SpaceKind::ALL
            .iter()
            .map(sum)
            .filter(|sum| sum.bytes > 0)
            .collect(),
        bad: (why_unknown.is_none()).then(|| cells.iter().map(|cell| cell.bad).sum()),
        reason: why_unknown,
        cells,
    })
}

/// Adds the part of a volume's range in `spans` at its place on the disk.
fn add(cells: &mut Cells, spans: &Spans, range: &Range<u64>, kind: SpaceKind) {
    for part in spans.within(range) {
        cells.add(&(part.disk_offset..part.disk_offset + part.length), kind);
    }
}

/// Adds ranges of a volume with their use, each byte once: the first of overlapping ranges counts.
struct Painter<'a> {
    cells: &'a mut Cells,
    spans: &'a Spans,
    /// Metadata at fixed places, which takes precedence.
    fixed: Ranges,
    /// The use of space between the ranges.
    between: SpaceKind,
    at: u64,
}

impl<'a> Painter<'a> {
    fn new(cells: &'a mut Cells, spans: &'a Spans, fixed: Ranges, between: SpaceKind) -> Self {
        for range in fixed.iter() {
            add(cells, spans, range, SpaceKind::Metadata);
        }
        Self {
            cells,
            spans,
            fixed,
            between,
            at: 0,
        }
    }

    fn paint(&mut self, range: &Range<u64>, kind: SpaceKind) {
        for part in self.fixed.gaps(range).iter() {
            add(self.cells, self.spans, part, kind);
        }
    }

    /// The next range, in order.
    fn next(&mut self, range: &Range<u64>, kind: SpaceKind) {
        if self.at < range.start {
            self.paint(&(self.at..range.start), self.between);
        }
        let start = range.start.max(self.at);
        if start < range.end {
            self.paint(&(start..range.end), kind);
            self.at = range.end;
        }
    }

    fn end(mut self) {
        let at = self.at;
        self.next(&(u64::MAX..u64::MAX), SpaceKind::Other);
        debug_assert!(self.at >= at);
    }
}

/// Adds the use of a volume's bytes; returns why it is unknown, if so.
fn contents(
    host: &Host,
    volume: &Volume,
    spans: &Spans,
    cells: &mut Cells,
) -> Result<Option<String>> {
    let unknown = |cells: &mut Cells, reason: String| {
        add(cells, spans, &(0..u64::MAX), SpaceKind::Other);
        Ok(Some(reason))
    };
    let kind = match volume.file_system.as_deref() {
        None => return unknown(cells, "there is no file system".to_owned()),
        Some(kind @ ("ext2" | "ext3" | "ext4" | "xfs")) => kind,
        Some(kind) => return unknown(cells, offline::unsupported(kind)),
    };
    if let Some((system, _)) = FileSystem::of(host, volume)? {
        let space = system.space()?;
        let mut refused = Ranges::default();
        if kind != "xfs" {
            // Of all its disks.
            let number = volume.number()?;
            let survey = Survey::of(host)?;
            if let Some(reason) = survey.unknown(&Target::Mount(number), number) {
                return unknown(cells, reason);
            }
            refused = system.groups_without_bitmap(&survey.bad_of(number))?;
        }
        let mut painter = Painter::new(cells, spans, space.fixed, space.rest);
        system.each(&refused, |range, kind| painter.next(range, kind))?;
        painter.end();
        let reason = match space.rest {
            SpaceKind::Used => {
                Some("XFS without a reverse map (rmapbt) does not distinguish files from metadata")
            }
            _ if !refused.is_empty() => {
                Some("free space is not known where the block bitmap of a group is bad")
            }
            _ => None,
        };
        return Ok(reason.map(str::to_owned));
    }
    let unused = match Unused::check(host, volume)? {
        Ok(unused) => unused,
        Err(reason) => return unknown(cells, reason),
    };
    let node = unused.node.to_str().context("the name of its device")?;
    let space = match kind {
        "xfs" => xfs::space(node)?,
        _ => match Header::read(node)? {
            Ok(header) => ext4::space(node, &header)?,
            Err(reason) => Err(reason),
        },
    };
    if let Some(reason) = unused.has_changed()? {
        return unknown(cells, reason);
    }
    match space {
        Err(reason) => unknown(cells, reason),
        Ok(space) => {
            let mut painter = Painter::new(cells, spans, space.fixed, space.rest);
            for range in &space.free {
                painter.next(range, SpaceKind::Free);
            }
            painter.end();
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nd::Device;
    use crate::testing::FakeSysfs;
    use proptest::prelude::*;

    #[test]
    fn bad_blocks_in_sector_mode_are_unknown() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        let mut errors = Disk::find(&machine.host, "pmem0").unwrap().errors();
        let listed: BadBlocks = "8 8\n".parse().unwrap();
        assert_eq!(bad(&errors), (listed.clone(), None));

        let folder = "sys/devices/ndbus0/region0/btt0.0";
        machine.write(&format!("{folder}/namespace"), "namespace0.0");
        let link = machine.host.path("sys/bus/nd/devices/btt0.0");
        std::os::unix::fs::symlink(machine.host.path(folder), link).unwrap();
        errors.device = Device::find(&machine.host, "btt0.0".parse().unwrap());
        errors.bad = Ok(BadBlocks::default());
        assert_eq!(bad(&errors), (BadBlocks::default(), None));
        errors.outside = Ok(listed);
        let (known, reason) = bad(&errors);
        assert!(known.is_empty());
        assert!(reason.unwrap().contains("outside of its data"));
        errors.bad = Err("it has no list".to_owned());
        assert_eq!(bad(&errors).1.as_deref(), Some("it has no list"));
    }

    #[test]
    fn cells_sum_up_their_bytes() {
        let mut cells = Cells::new(10 * PAGE + 512, 5);
        assert_eq!(cells.0.len(), 4);
        assert_eq!(cells.0[3].length, PAGE + 512);
        cells.add(&(0..4 * PAGE), SpaceKind::Metadata);
        cells.add(&(4 * PAGE..10 * PAGE + 512), SpaceKind::Free);
        cells.add_bad(&(9 * PAGE - 512..9 * PAGE + 512));
        let cells = cells.finish();
        let kinds: Vec<_> = cells.iter().map(|cell| (cell.kind, cell.bad)).collect();
        assert_eq!(
            kinds,
            [
                (SpaceKind::Metadata, 0),
                (SpaceKind::Free, 0),
                (SpaceKind::Free, 512),
                (SpaceKind::Free, 512)
            ]
        );
        assert_eq!(Cells::new(PAGE, 1024).0.len(), 1);
    }

    #[test]
    fn fixed_metadata_wins_over_ranges() {
        let span = Span {
            disk_offset: 100 * PAGE,
            offset: 0,
            length: 10 * PAGE,
        };
        let spans = [span].into_iter().collect();
        let mut cells = Cells::new(200 * PAGE, 200);
        let fixed = [2 * PAGE..3 * PAGE, 0..PAGE, 2 * PAGE..4 * PAGE];
        let fixed = fixed.into_iter().collect();
        let mut painter = Painter::new(&mut cells, &spans, fixed, SpaceKind::Files);
        painter.next(&(PAGE..3 * PAGE), SpaceKind::Free);
        // The same range again, and one that overlaps it, as for shared blocks.
        painter.next(&(PAGE..3 * PAGE), SpaceKind::Used);
        painter.next(&(5 * PAGE..6 * PAGE), SpaceKind::Free);
        painter.end();
        let cells = cells.finish();
        let kinds: Vec<_> = cells[99..111].iter().map(|cell| cell.kind).collect();
        use SpaceKind::{Files, Free, Metadata, Outside};
        assert_eq!(
            kinds,
            [
                Outside, Metadata, Free, Metadata, Metadata, Files, Free, Files, Files, Files,
                Files, Outside
            ]
        );
    }

    proptest! {
        /// Each byte of the volume is counted once, whatever ranges there are.
        #[test]
        fn each_byte_is_counted_once(
            fixed in proptest::collection::vec((0_u64..90, 1_u64..30), 0..5),
            mut ranges in proptest::collection::vec((0_u64..90, 1_u64..30), 0..9),
            count in 1_u64..40,
        ) {
            let size = 20 * PAGE;
            let unit = PAGE / 5;
            let bytes = |(start, length): (u64, u64)| start * unit..(start + length) * unit;
            let spans = [Span::of_disk(0, size)].into_iter().collect();
            let mut cells = Cells::new(size, count);
            ranges.sort_unstable();
            let mut painter = Painter::new(&mut cells, &spans, fixed.into_iter().map(bytes).collect(), SpaceKind::Files);
            for range in ranges {
                painter.next(&bytes(range), SpaceKind::Free);
            }
            painter.end();
            for cell in cells.finish() {
                prop_assert_eq!(cell.bytes.iter().sum::<u64>(), cell.length);
            }
        }
    }
}
