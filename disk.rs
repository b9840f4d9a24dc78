// SPDX-License-Identifier: GPL-2.0

//! The block device: copies the segments of each bio, then ends it.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadblocksTable,
        block::{
            Bio,
            BoolAttribute,
            Data,
            Limits,
            Operations,
            Segments,
            SimpleBio,
            ToBio,
            Transfer, //
        },
        dax::DaxDevice,
        errno::eopnotsupp,
        scope::Scoped, //
    },
    flush::Flush,
    media::{
        retry_if_unmapped,
        Media,
        Source, //
    },
    units::{
        Span,
        SECTOR_SHIFT, //
    }, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sizes::SZ_16M,
    sync::Arc, //
};

/// The most sectors in a request to write zeroes: 16 MiB. A bio can ask for 4 GiB, and its
/// submitter would keep the CPU for all of it.
const WRITE_ZEROES: u32 = (SZ_16M >> SECTOR_SHIFT) as u32;

/// Serves the bios of `/dev/pmemN`.
pub(crate) struct PmemDisk<'bound> {
    media: Arc<Media<'bound>>,
    flush: Flush<'bound>,
    dax: Option<Arc<Scoped<'bound, DaxDevice<Media<'bound>>>>>,
}

impl<'bound> PmemDisk<'bound> {
    /// Creates the operations of a disk on `media`. `dax` is the DAX device over the same memory.
    pub(crate) fn new(
        media: Arc<Media<'bound>>,
        flush: Flush<'bound>,
        dax: Option<Arc<Scoped<'bound, DaxDevice<Media<'bound>>>>>,
    ) -> Self {
        Self { media, flush, dax }
    }

    /// Returns the limits of a disk on `media`. `needs_flush`: a flush needs more than a fence (a
    /// flush hint, or the provider), so the driver also serves `REQ_FUA`.
    pub(crate) fn limits(media: &Media<'_>, logical_block_size: u32, needs_flush: bool) -> Limits {
        Limits {
            logical_block_size,
            physical_block_size: PAGE_SIZE as u32,
            max_hw_sectors: u32::MAX,
            max_write_zeroes_sectors: WRITE_ZEROES,
            write_cache: true,
            fua: needs_flush,
            // `submit` copies, and ends all bios but those that wait for the host to flush.
            synchronous: true,
            // Nothing is refused with `EAGAIN`: a repair is short, and dm-stripe takes any error of a
            // disk for a failure of the disk.
            nowait: true,
            dax: media.memory.has_pages(),
        }
    }

    /// Serves a read or write without flags: the fast path, for one contiguous segment and a range
    /// without bad blocks. Everything else takes the slow path.
    #[inline(never)]
    fn submit_fast(&self, mut bio: SimpleBio<'_>) {
        let is_clean =
            self.media.badblocks().is_clean() || bio.has_one_segment() && self.is_range_clean(&bio);

        if !is_clean {
            return self.submit_slow(bio.into());
        }
        let Ok(mut part) = self.media.memory.sectors(bio.sector(), bio.len()) else {
            return self.submit_slow(bio.into());
        };
        let copied = match bio.data() {
            Data::Read(mut segments) => segments.only().map(|segment| part.read(&segment)),
            Data::Write(mut segments) => segments.only().map(|segment| part.write(&segment)),
        };

        match copied {
            Some(Ok(())) => Bio::from(bio).end(Ok(())),
            Some(Err(_)) => self.handle_failed_copy(bio),
            None => self.submit_slow(bio.into()),
        }
    }

    /// Returns whether the bio can be copied although the disk has bad blocks.
    #[cold]
    fn is_range_clean(&self, bio: &Bio<'_>) -> bool {
        self.span(bio).is_ok_and(|span| match bio.is_write() {
            true => !self.media.needs_repair(&span),
            false => self.media.badblocks().first_in(&span).is_none(),
        })
    }

    /// Fills the bio's memory from `span`, which has no bad blocks.
    fn read(&self, mut segments: Segments<'_, ToBio>, span: &Span) -> Result {
        let mut from = self.media.part(span)?;

        while let Some(segment) = segments.next_segment() {
            from.read(&segment)?;
        }
        Ok(())
    }

    /// Ends a bio whose copy on the fast path failed. The slow path repairs what a write covers.
    #[cold]
    fn handle_failed_copy(&self, bio: SimpleBio<'_>) {
        if let Ok(span) = self.span(&bio) {
            self.media.find_unmapped(span);
        }
        if bio.is_write() {
            return self.submit_slow(bio.into());
        }
        Bio::from(bio).end(Err(EIO));
    }

    /// Serves any bio: the slow path, with flushes, statistics and bad blocks.
    #[cold]
    fn submit_slow(&self, mut bio: Bio<'_>) {
        if bio.is_preflush() {
            if let Err(e) = self.flush.now() {
                return bio.end(Err(e));
            }
        }

        let result = match bio.len() {
            // A flush without data: its sector is undefined, and it is no write for the statistics.
            0 => Ok(()),
            _ => bio.account(|bio| retry_if_unmapped(|| self.transfer(bio))),
        };

        if result.is_ok() && bio.is_fua() {
            return self.flush.then_end(bio);
        }
        bio.end(result);
    }

    /// Copies the data of the bio. [`EIO`] if a bad block can't be read or repaired, `EOPNOTSUPP`
    /// for operations other than read, write and write zeroes. [`EFAULT`] if a write found an
    /// unmapped page, which is a bad page now: `retry_if_unmapped` calls this again.
    fn transfer(&self, bio: &mut Bio<'_>) -> Result {
        let span = self.span(bio)?;

        match bio.transfer().ok_or_else(eopnotsupp)? {
            Transfer::Data(Data::Read(segments)) => {
                if self.media.badblocks().first_in(&span).is_some() {
                    return Err(EIO);
                }
                self.read(segments, &span)
                    .inspect_err(|_| self.media.find_unmapped(span))
            }
            Transfer::Data(Data::Write(segments)) => {
                self.media.overwrite(span, Source::Bio(segments)).1
            }
            Transfer::Zero => self.media.overwrite(span, Source::Zeroes).1,
        }
    }

    /// Returns the range of the bio. [`EIO`] if it is not inside of the data area.
    fn span(&self, bio: &Bio<'_>) -> Result<Span> {
        Span::of_sectors(bio.sector(), bio.len(), self.media.memory.len()).ok_or(EIO)
    }
}

impl Operations for PmemDisk<'_> {
    type Attributes = (WriteCache, OverwriteHeals);

    #[inline]
    fn submit(&self, bio: Bio<'_>) {
        match bio.simple() {
            Ok(bio) => self.submit_fast(bio),
            Err(bio) => self.submit_slow(bio),
        }
    }

    fn bad_blocks(&self) -> &BadblocksTable {
        self.media.badblocks().table()
    }
}

/// `dax/write_cache`: whether file systems write the CPU caches back for durability.
///
/// On, unless the platform saves its caches at a power failure (NFIT platform capabilities, ACPI
/// 6.5, 5.2.25.10). An administrator who knows better can change it.
pub(crate) struct WriteCache;

impl BoolAttribute<PmemDisk<'_>> for WriteCache {
    const DIRECTORY: &'static CStr = c"dax";
    const NAME: &'static CStr = c"write_cache";

    fn show(of: &PmemDisk<'_>) -> bool {
        of.dax.as_ref().is_some_and(|dax| dax.write_cache())
    }

    fn store(of: &PmemDisk<'_>, value: bool) -> Result {
        of.dax
            .as_ref()
            .ok_or_else(eopnotsupp)?
            .set_write_cache(value);
        Ok(())
    }
}

/// `errors/overwrite_heals`: whether a bad page that the bus can't clear is repaired by an
/// overwrite of the whole page that is verified.
///
/// On where the bus has no commands. Elsewhere, an administrator who knows that the memory is good
/// again can switch it on. If it is not good, the data are lost once the CPU caches evict them.
pub(crate) struct OverwriteHeals;

impl BoolAttribute<PmemDisk<'_>> for OverwriteHeals {
    const DIRECTORY: &'static CStr = c"errors";
    const NAME: &'static CStr = c"overwrite_heals";

    fn show(of: &PmemDisk<'_>) -> bool {
        of.media.overwrite_heals.is_on()
    }

    fn store(of: &PmemDisk<'_>, value: bool) -> Result {
        of.media.overwrite_heals.set(value);
        Ok(())
    }
}
