// SPDX-License-Identifier: GPL-2.0

//! The new contents of a range: the bytes that can still be read, and the rest from the backup or zeros.

use crate::ranges::{Ranges, common, rounded_out};
use crate::repair::job::Job;
use crate::repair::target::{is_lost, part};
use crate::repair::{Comparison, RepairRange};
use abstractions::DirectBuffer;
use abstractions::extents::Extent;
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use units::PAGE;

/// The new contents of a range.
pub(super) struct Contents {
    pub(super) buffer: DirectBuffer,
    /// Bytes that come from the source.
    pub(super) replaced: u64,
    /// Bytes that the range still has, and keeps.
    pub(super) kept: u64,
    /// The pages that were read through the page cache, which may be all that has them.
    pub(super) cached: Ranges,
    /// The kept bytes, compared with the backup.
    pub(super) compared: Comparison,
    /// Nothing has to be written.
    pub(super) is_good: bool,
}

/// What could be read of a range.
#[derive(Default)]
struct Recovered {
    /// Bytes that can't be read.
    lost: Ranges,
    /// Bytes that were read through the page cache.
    cached: Ranges,
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
    let blocks = |range: &Range<u64>| common(&rounded_out(range, unit), all);
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

/// Returns the pages of a file in which two copies of a part of it differ. The part begins at `start`, and has a length.
pub(super) fn pages_that_differ(start: u64, mut one: &[u8], mut other: &[u8]) -> Ranges {
    let (mut found, mut at) = (Ranges::default(), start);
    while !one.is_empty() {
        let length = (PAGE - at % PAGE).min(one.len() as u64);
        let (page, rest) = one.split_at(length as usize);
        let (same, other_rest) = other.split_at(length as usize);
        if page != same {
            found.insert(at..at + length);
        }
        (one, other, at) = (rest, other_rest, at + length);
    }
    found
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

impl Job {
    /// Returns the new contents of a range.
    pub(super) fn contents(&self, piece: &RepairRange) -> Result<Contents> {
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
        let uncached = self.read_page_cache(&piece.range(), buffer)?;
        // A page that can't be read through the page cache was converted meanwhile: an unwritten one needs no memory.
        let unwritten = self.target.dax || uncached.is_empty();
        if unwritten && piece.flags & Extent::UNWRITTEN != 0 {
            // It has zeros, whatever is in memory. But the page cache may have data: the extent of new data stays unwritten if its
            // writeback fails.
            for range in uncached.iter() {
                part(buffer, piece.file_offset, range).fill(0);
            }
            let zeros = vec![0; piece.length as usize];
            return Ok(Recovered {
                lost: Ranges::default(),
                cached: pages_that_differ(piece.file_offset, buffer.bytes(), &zeros),
            });
        }
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

    /// Reads the pages of a range through the file; returns the rest. The page cache may have data that the memory has lost.
    pub(super) fn read_page_cache(
        &self,
        range: &Range<u64>,
        buffer: &mut DirectBuffer,
    ) -> Result<Ranges> {
        if self.target.dax {
            return Ok([range.clone()].into_iter().collect());
        }
        self.read_file(range, buffer, false)
    }

    /// Reads the pages of a range through the file, but past the page cache; returns the rest.
    pub(super) fn read_memory(
        &self,
        range: &Range<u64>,
        buffer: &mut DirectBuffer,
    ) -> Result<Ranges> {
        self.read_file(range, buffer, true)
    }

    fn read_file(
        &self,
        range: &Range<u64>,
        buffer: &mut DirectBuffer,
        direct: bool,
    ) -> Result<Ranges> {
        let mut read = |pages: Range<u64>| {
            let data = self.target.size().clamp(pages.start, pages.end) - pages.start;
            let bytes = part(buffer, range.start, &pages);
            match self.target.read(pages.start, bytes, direct)? as u64 >= data {
                true => Ok(()),
                false => Err(Errno::IO.into()),
            }
        };
        lost_parts(range, &[], PAGE, &mut read)
            .with_context(|| format!("read failed at {}", range.start))
    }

    /// Reads the good bytes of a part of the piece from the device; returns the rest.
    pub(super) fn read_device(
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

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
    fn pages_that_differ_are_whole_but_for_the_ends() {
        let zeros = vec![0; 3 * 4096];
        let mut bytes = zeros.clone();
        assert!(pages_that_differ(3584, &bytes, &zeros).is_empty());
        (bytes[511], bytes[3 * 4096 - 1]) = (1, 1);
        let found = pages_that_differ(3584, &bytes, &zeros);
        assert!(found.iter().eq(&[3584..4096, 12288..15872]));
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
}
