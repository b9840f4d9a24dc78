// SPDX-License-Identifier: GPL-2.0

//! The block device: one bio in, its segments copied, the answer back.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadBlocks,
        block::{
            Bio,
            BoolAttribute,
            Data,
            Limits,
            Operations,
            PlainBio,
            Segments,
            ToBio,
            Transfer, //
        },
        dax::DaxDevice,
        errno::eopnotsupp,
        scope::Scoped, //
    },
    flush::Flush,
    media::{
        again_if_unmapped,
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

/// The most sectors in a request to write zeroes: 16 MiB. A bio can ask for 4 GiB, and its submitter
/// would keep the CPU for all of it.
const WRITE_ZEROES: u32 = (SZ_16M >> SECTOR_SHIFT) as u32;

/// What serves the bios of `/dev/pmemN`.
pub(crate) struct PmemDisk<'bound> {
    media: Arc<Media<'bound>>,
    flush: Flush<'bound>,
    dax: Option<Arc<Scoped<'bound, DaxDevice<Media<'bound>>>>>,
}

impl<'bound> PmemDisk<'bound> {
    /// A disk on `media`, made durable by `flush`, whose memory file systems reach by `dax`.
    pub(crate) fn new(
        media: Arc<Media<'bound>>,
        flush: Flush<'bound>,
        dax: Option<Arc<Scoped<'bound, DaxDevice<Media<'bound>>>>>,
    ) -> Self {
        Self { media, flush, dax }
    }

    /// Returns the limits of a disk on `media`. Writes are durable without a flush unless
    /// `needs_flush`.
    pub(crate) fn limits(media: &Media<'_>, logical_block_size: u32, needs_flush: bool) -> Limits {
        Limits {
            logical_block_size,
            physical_block_size: PAGE_SIZE as u32,
            max_hw_sectors: u32::MAX,
            max_write_zeroes_sectors: WRITE_ZEROES,
            write_cache: true,
            fua: needs_flush,
            // A bio is copied when it is submitted, and is over then, unless it waits for the host.
            synchronous: true,
            nowait: true,
            poll: true,
            dax: media.dax(),
        }
    }

    /// Serves a bio that is a read or a write of data and nothing besides: the straight path, for
    /// memory in one piece, and a place that no error is known of.
    #[inline(never)]
    fn submit_plain(&self, mut bio: PlainBio<'_>) {
        let is_good =
            self.media.badblocks().is_clean() || bio.is_in_one_piece() && self.is_good(&bio);

        if !is_good {
            return self.submit_with_care(bio.into());
        }
        let part = self.span(&bio).and_then(|span| self.media.part(&span));
        let Ok(mut part) = part else {
            return self.submit_with_care(bio.into());
        };
        let copied = match bio.data() {
            Data::Read(mut segments) => segments.only().map(|segment| part.read(&segment)),
            Data::Write(mut segments) => segments.only().map(|segment| part.write(&segment)),
        };

        match copied {
            Some(Ok(())) => bio.end(Ok(())),
            Some(Err(_)) => self.fail(bio),
            None => self.submit_with_care(bio.into()),
        }
    }

    /// Whether nothing is bad where the bio's data is, though something is elsewhere.
    #[cold]
    fn is_good(&self, bio: &Bio<'_>) -> bool {
        self.span(bio).is_ok_and(|span| match bio.is_write() {
            true => !self.media.needs_repair(&span),
            false => self.media.badblocks().first_in(&span).is_none(),
        })
    }

    /// Fills the bio's memory from `span`, in which nothing is bad.
    fn read(&self, mut segments: Segments<'_, ToBio>, span: &Span) -> Result {
        let mut from = self.media.part(span)?;

        while let Some(segment) = segments.next_segment() {
            from.read(&segment)?;
        }
        Ok(())
    }

    /// Serves a bio under which the memory has failed: a write may repair it.
    #[cold]
    fn fail(&self, bio: PlainBio<'_>) {
        if let Ok(span) = self.span(&bio) {
            self.media.find_unmapped(span);
        }
        if bio.is_write() {
            return self.submit_with_care(bio.into());
        }
        bio.end(Err(EIO));
    }

    /// Serves a bio with what there is to be done besides: flushes, statistics, errors.
    #[cold]
    fn submit_with_care(&self, mut bio: Bio<'_>) {
        if bio.is_nowait() && self.would_wait(&bio) {
            return bio.end_would_wait();
        }
        if bio.is_preflush() {
            if let Err(e) = self.flush.now() {
                return bio.end(Err(e));
            }
        }

        let result = bio.account(|bio| again_if_unmapped(|| self.transfer(bio)));

        if result.is_ok() && bio.is_fua() {
            return self.flush.then_end(bio);
        }
        bio.end(result);
    }

    /// Whether the bio can't be served without waiting: for the host that makes it durable, or for
    /// errors to be cleared.
    fn would_wait(&self, bio: &Bio<'_>) -> bool {
        let repairs = || {
            self.span(bio)
                .is_ok_and(|span| self.media.needs_repair(&span))
        };

        (bio.is_preflush() || bio.is_fua()) && self.flush.waits() || bio.is_write() && repairs()
    }

    /// Copies what the bio asks for; [`EIO`] if any of it is bad and can't be repaired, `EOPNOTSUPP` if
    /// it is neither a read nor a write.
    fn transfer(&self, bio: &mut Bio<'_>) -> Result {
        // A flush alone; its sector means nothing.
        if bio.len() == 0 {
            return Ok(());
        }
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

    /// What the bio is about; [`EIO`] if that is not all on the disk.
    #[inline]
    fn span(&self, bio: &Bio<'_>) -> Result<Span> {
        Span::of_sectors(bio.sector(), bio.len(), self.media.size()).ok_or(EIO)
    }
}

impl Operations for PmemDisk<'_> {
    type Attributes = (WriteCache, OverwriteHeals);

    #[inline]
    fn submit(&self, bio: Bio<'_>) {
        match bio.plain() {
            Ok(bio) => self.submit_plain(bio),
            Err(bio) => self.submit_with_care(bio),
        }
    }

    fn bad_blocks(&self) -> &BadBlocks {
        self.media.badblocks().table()
    }
}

/// `dax/write_cache`: whether file systems write the CPU's caches back for durability. On unless
/// the platform saves its caches at a power failure (NFIT platform capabilities, ACPI 6.5,
/// 5.2.25.10); an administrator may know better.
pub(crate) struct WriteCache;

impl BoolAttribute<PmemDisk<'_>> for WriteCache {
    const DIRECTORY: &'static CStr = c"dax";
    const NAME: &'static CStr = c"write_cache";
    const VISIBLE: bool = cfg!(CONFIG_ARCH_HAS_PMEM_API);

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

/// `errors/overwrite_heals`: whether a write of a whole bad page that is found in the memory
/// afterwards clears its errors, where the bus can't. On where the bus has no commands. Elsewhere an
/// administrator may know that the memory is good again; where it is not, what is written is lost
/// once the CPU's caches have let go of it.
pub(crate) struct OverwriteHeals;

impl BoolAttribute<PmemDisk<'_>> for OverwriteHeals {
    const DIRECTORY: &'static CStr = c"errors";
    const NAME: &'static CStr = c"overwrite_heals";
    const VISIBLE: bool = true;

    fn show(of: &PmemDisk<'_>) -> bool {
        of.media.overwrite_heals()
    }

    fn store(of: &PmemDisk<'_>, value: bool) -> Result {
        of.media.set_overwrite_heals(value);
        Ok(())
    }
}
