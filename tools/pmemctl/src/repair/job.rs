// SPDX-License-Identifier: GPL-2.0

//! Compares the backup with the file, writes the planned ranges, and verifies them.

use crate::affected;
use crate::block::devno::DeviceNumber;
use crate::ranges::{Ranges, common};
use crate::repair::backup::Backup;
use crate::repair::listed::{bad_of, listed_ranges};
use crate::repair::only_cached::OnlyCached;
use crate::repair::target::{Target, is_lost};
use crate::repair::{Comparison, Outcome, RepairRange, Report};
use crate::sysfs::{Host, printable};
use abstractions::DirectBuffer;
use abstractions::extents::{self, Fork};
use abstractions::process::BlockedSignals;
use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;
use units::PAGE;

/// Bytes on each side of a range that are compared with the backup.
const AROUND: u64 = 64 << 10;

/// A repair with its open files.
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) backup: Option<Backup>,
    pub(super) range: Option<Range<u64>>,
    /// Replace all of the range, not only bytes that can't be read.
    pub(super) overwrite_good: bool,
    /// The volume of the file system, for reading the good sectors of a bad page.
    pub(super) device: File,
}

/// Returns what is around the ranges in a file of `size` bytes, without the ranges.
fn surroundings(ranges: &Ranges, size: u64) -> Ranges {
    let wide =
        |range: &Range<u64>| range.start.saturating_sub(AROUND)..(range.end + AROUND).min(size);
    ranges.iter().map(wide).collect::<Ranges>().without(ranges)
}

impl Job {
    /// Reads what would be written, and what remains around it, to compare the backup with the file. Fails if the backup is of
    /// another version of the file, unless `force`d.
    pub(super) fn read_sources(&self, report: &mut Report, force: bool) -> Result<()> {
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

    /// Writes the planned ranges, and what else only the page cache has: see [`Self::write_only_cached`]. Returns why it stopped before
    /// the last one, or what is left.
    pub(super) fn write_all(
        &self,
        pieces: &mut [RepairRange],
        listed: &Ranges,
        may_write: bool,
    ) -> Option<String> {
        let only_cached = self.write_only_cached(pieces, listed, may_write);
        let planned = |piece: &&mut RepairRange| piece.result == Outcome::Planned;
        let mut order: Vec<_> = pieces.iter_mut().filter(planned).collect();
        let (mut only_cached, mut stopped) = match only_cached {
            Ok(only_cached) => (only_cached, None),
            Err(error) => (OnlyCached::default(), Some(format!("{error:#}"))),
        };
        // First those whose write drops no folios, then those that only the page cache has some of.
        order
            .sort_by_cached_key(|piece| (self.target.drops_folios(piece), piece.cached.is_empty()));
        for piece in order {
            if stopped.is_some() {
                piece.failed("not tried");
                continue;
            }
            match self.write(piece, &only_cached) {
                Ok(mut written) if piece.result == Outcome::Planned => {
                    self.read_back(piece, &mut written);
                    if piece.result == Outcome::Planned {
                        only_cached.repaired(&piece.range());
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    piece.failed("not tried");
                    stopped = Some(format!("{error:#}"));
                }
            }
        }
        stopped.or_else(|| only_cached.left(pieces))
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
    fn write(&self, piece: &mut RepairRange, only_cached: &OnlyCached) -> Result<DirectBuffer> {
        let planned = piece.replaced;
        let contents = self.contents(piece)?;
        piece.set_counts(&contents);
        let mut buffer = contents.buffer;
        // The page cache has dropped it, or there is a new error: the backup may not have been compared.
        if piece.replaced > planned {
            piece.failed("more of it is lost than when the repair was planned; run it again");
            return Ok(buffer);
        }
        let target = &self.target;
        let data = piece.file_offset..piece.range().end.min(target.size());
        if piece.replaced == 0 && only_cached.has_written(&data) {
            return Ok(buffer);
        }
        if target.drops_folios(piece) && only_cached.is_beside(&piece.range()) {
            piece.failed(
                "only the page cache has the newest data of pages around it, which a write would drop, and which could not be written \
                 before; copy the file",
            );
            return Ok(buffer);
        }
        // Block signals between the check and the write.
        let _whole = BlockedSignals::new()?;
        let checked = Instant::now();
        target.is_the_same(piece)?;
        // Whole pages are written, and the last one extends the file.
        let extends = piece.range().end > target.size();
        let behind = match extends {
            true => target.behind_end()?,
            false => Vec::new(),
        };
        let written = match piece.shared {
            true => target.replace(piece, buffer.bytes()),
            false => target.write(piece, &mut buffer),
        };
        let restored = match extends {
            true => target.restore_size(&behind, checked),
            false => Ok(()),
        };
        // Also if it has failed: what the page cache has again fails no other range.
        let synced = target.file.sync_all();
        let written = written.and(synced).map_err(|error| self.why(piece, &error));
        let restored = restored.map_err(|error| {
            format!(
                "the file has not its old size of {} bytes and its old blocks behind that: {error:#}",
                target.size()
            )
        });
        match (written, restored) {
            (Ok(()), Ok(())) => {}
            (Err(why), Ok(())) => piece.failed(why),
            (Ok(()), Err(size)) => piece.failed(format!("written, but {size}")),
            (Err(why), Err(size)) => piece.failed(format!("{why}; {size}")),
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
            Ok(_) => piece.failed(
                "it reads back as something else: the memory does not keep what is written; copy the file to another disk",
            ),
            Err(error) => piece.failed(format!(
                "cannot be read back: {error}; copy the file to another disk"
            )),
        }
    }
}

/// Returns whether a block with the file's extended attributes is listed.
pub(super) fn has_bad_attributes(host: &Host, job: &Job, number: DeviceNumber) -> Result<bool> {
    let mut extents = Vec::new();
    // Fails where there are none.
    let _ = extents::of_file(&job.target.file, Fork::Attributes, |extent| {
        extents.push(*extent);
    });
    let bad = bad_of(host, &job.target.path, number)?;
    if !extents.is_empty() {
        return Ok(!listed_ranges(&extents, &bad).is_empty());
    }
    let (volume, inode) = (&job.target.volume, job.target.metadata.ino());
    for (_, spans) in &bad {
        if let Some(attributes) = affected::ext4_attributes(volume, inode, spans)? {
            if spans.within(&attributes).next().is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns what to do about a range of this disk that was written and is still listed.
fn still_listed(disk: Option<&str>) -> String {
    let attribute = format!(
        "/sys/block/{}/errors/overwrite_heals",
        disk.unwrap_or("pmemN")
    );
    format!(
        "written, but still listed as bad; run it again, and if that does not help, write 1 to {attribute}, where the memory is \
         good again, or copy the file to another disk"
    )
}

/// Verifies that the written ranges are not listed any more.
pub(super) fn verify(host: &Host, job: &Job, pieces: &mut [RepairRange]) -> Result<()> {
    let number = DeviceNumber::from_rdev(job.target.metadata.dev());
    let bad = bad_of(host, &job.target.path, number)?;
    for piece in pieces
        .iter_mut()
        .filter(|piece| piece.result == Outcome::Planned)
    {
        let mut moved = false;
        let mut listed = false;
        for extent in job.target.extents(piece.range())? {
            if let Some(part) = common(&piece.range(), &extent.range()) {
                let physical = extent.physical + (part.start - extent.logical);
                moved |= physical != piece.physical + (part.start - piece.file_offset);
                let place = physical..physical + (part.end - part.start);
                listed |= bad
                    .iter()
                    .any(|(_, spans)| spans.within(&place).next().is_some());
            }
        }
        match (listed, moved) {
            (true, _) => piece.failed(still_listed(piece.disk.as_deref())),
            (false, true) => piece.result = Outcome::Moved,
            (false, false) => piece.result = Outcome::Repaired,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_that_stays_listed_has_a_next_step() {
        let known = still_listed(Some("pmem1"));
        assert!(
            known.contains("/sys/block/pmem1/errors/overwrite_heals"),
            "{known}"
        );
        assert!(still_listed(None).contains("another disk"));
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
}
