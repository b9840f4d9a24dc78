// SPDX-License-Identifier: GPL-2.0

//! The parts of a file that are listed as bad, with their places on the disks.

use crate::affected::{self, Survey};
use crate::block::devno::DeviceNumber;
use crate::block::remap::{AffectedVolume, Spans};
use crate::ranges::{Ranges, common};
use crate::repair::RepairRange;
use crate::sysfs::{Host, printable};
use abstractions::extents::Extent;
use anyhow::{Result, bail};
use std::ops::Range;
use std::path::Path;
use units::PAGE;

/// Returns the bad ranges of a volume, with their disks; fails if they are unknown.
pub(super) fn bad_of(
    host: &Host,
    file: &Path,
    number: DeviceNumber,
) -> Result<Vec<(String, Spans)>> {
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
pub(super) struct ListedRange {
    pub(super) disk: String,
    pub(super) disk_offset: u64,
    pub(super) file_offset: u64,
    pub(super) length: u64,
    /// From the start of the volume.
    pub(super) physical: u64,
}

impl ListedRange {
    /// The bytes of the file.
    pub(super) fn range(&self) -> Range<u64> {
        self.file_offset..self.file_offset + self.length
    }

    /// The bytes of the disk.
    pub(super) fn on_disk(&self) -> Range<u64> {
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

    /// Returns the part in bytes of the disk.
    pub(super) fn on(&self, bytes: &Range<u64>) -> Option<Self> {
        let part = common(&self.on_disk(), bytes)?;
        let start = self.file_offset + (part.start - self.disk_offset);
        self.cut(&(start..start + (part.end - part.start)))
    }

    /// Returns the part that is not in other `ranges` of the file.
    pub(super) fn outside(&self, ranges: &Ranges) -> Vec<Self> {
        let rest = ranges.gaps(&self.range());
        rest.iter().filter_map(|part| self.cut(part)).collect()
    }

    /// Returns its parts in each page of memory.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u64, Self)> {
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
pub(super) fn listed_ranges(extents: &[Extent], bad: &[(String, Spans)]) -> Vec<ListedRange> {
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

/// Returns what is listed in the pieces, but not in `range`.
pub(super) fn beside(
    listed: &[ListedRange],
    pieces: &[RepairRange],
    range: &Range<u64>,
) -> Vec<ListedRange> {
    let mut parts: Ranges = pieces.iter().map(RepairRange::range).collect();
    parts.remove(range);
    let mut found = Vec::new();
    for listed in listed {
        let its = parts.within(&listed.range());
        found.extend(its.iter().filter_map(|part| listed.cut(part)));
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::block::remap::Span;
    use crate::repair::plan::plan;

    pub(in crate::repair) fn bad(disk_offset: u64, offset: u64, length: u64) -> (String, Spans) {
        let span = Span {
            disk_offset,
            offset,
            length,
        };
        ("pmem0".into(), [span].into_iter().collect())
    }

    pub(in crate::repair) fn listed(
        disk_offset: u64,
        file_offset: u64,
        length: u64,
    ) -> ListedRange {
        ListedRange {
            disk: "pmem0".into(),
            disk_offset,
            file_offset,
            length,
            physical: disk_offset,
        }
    }

    #[test]
    fn listed_again_is_not_kept() {
        let range = listed(4096, 8192, 2048);
        let again = [8704..9216, 0..4096].into_iter().collect();
        assert_eq!(
            range.outside(&again),
            [listed(4096, 8192, 512), listed(5120, 9216, 1024)]
        );
        assert_eq!(range.on(&(4608..5120)), Some(listed(4608, 8704, 512)));
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
}
