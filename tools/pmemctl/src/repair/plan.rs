// SPDX-License-Identifier: GPL-2.0

//! Plans the ranges of a file to write: whole pages of memory that have listed or requested bytes.

use crate::block::remap::Spans;
use crate::ranges::{Ranges, common};
use crate::repair::listed::{ListedRange, listed_ranges};
use crate::repair::{Outcome, RepairRange};
use abstractions::extents::Extent;
use anyhow::{Result, bail};
use std::ops::Range;
use units::PAGE;

/// Bytes of the longest range, but for what [`widen`] adds.
pub(super) const CHUNK: u64 = 1 << 20;

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
    let all = extent.range();
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
                cached: Ranges::default(),
            });
            start = end;
        }
    }
    widen(&mut found, &all, places);
    found
}

/// Adds the rest of each page of the file to ranges of an extent in which such a page is in two pages of memory, so that the page cache
/// can have it again if the write fails. What is listed there is left out.
fn widen(pieces: &mut [RepairRange], all: &Range<u64>, places: &Places<'_>) {
    let mut previous = all.start;
    for index in 0..pieces.len() {
        let next = pieces
            .get(index + 1)
            .map_or(all.end, |next| next.file_offset);
        let piece = &mut pieces[index];
        if piece.is_misaligned() {
            let before = piece.file_offset % PAGE;
            let behind = piece.range().end.next_multiple_of(PAGE) - piece.range().end;
            let is_good = |at: u64, length: u64| {
                let here = Extent::new(0, at, length);
                let bad = |(_, spans): &(_, Spans)| spans.in_extent(&here).next().is_some();
                length == 0 || !places.bad.iter().any(bad)
            };
            if piece.range().end + behind <= next && is_good(piece.physical + piece.length, behind)
            {
                piece.length += behind;
            }
            let start = piece.disk_offset.and_then(|at| at.checked_sub(before));
            if start.is_some()
                && piece.file_offset - before >= previous
                && is_good(piece.physical - before, before)
            {
                piece.file_offset -= before;
                piece.physical -= before;
                piece.disk_offset = start;
                piece.length += before;
            }
        }
        previous = piece.range().end;
    }
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
pub(super) fn plan(
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
pub(super) fn ensure_no_hole(extents: &[Extent], range: &Range<u64>) -> Result<()> {
    let allocated: Ranges = extents.iter().map(Extent::range).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::remap::Span;
    use crate::repair::listed::tests::bad;
    use proptest::prelude::*;
    use std::slice::from_ref;

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
        // Pages of the disk count: the partition starts 512 bytes into one, which is in two pages of the file.
        assert_eq!(pieces(&file, &requested, &list), [(12288, 8192, 1024)]);
        // The rest of one of these is bad, and nobody asked to repair it.
        let mut more = list.to_vec();
        more.push(bad((1 << 20) + 4096, 65536 + 8704, 512));
        assert_eq!(pieces(&file, &requested, &more), [(12288, 4608, 1024)]);
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
                prop_assert!(piece.file_offset >= last && piece.length > 0 && piece.length <= CHUNK + 2 * PAGE);
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
