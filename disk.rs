// SPDX-License-Identifier: GPL-2.0

//! The block device: one bio in, its segments copied, the answer back.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadBlocks,
        block::{
            Bio,
            BoolAttribute,
            Operations,
            Transfer, //
        },
        dax::DaxDevice,
        errno::eopnotsupp, //
    },
    flush::Flush,
    media::Media,
    units::Span, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What serves the bios of `/dev/pmemN`.
pub(crate) struct PmemDisk<'bound> {
    media: Arc<Media<'bound>>,
    flush: Flush<'bound>,
    dax: Option<Arc<DaxDevice<Media<'bound>>>>,
}

impl<'bound> PmemDisk<'bound> {
    /// A disk on `media`, made durable by `flush`, whose memory file systems reach by `dax`.
    pub(crate) fn new(
        media: Arc<Media<'bound>>,
        flush: Flush<'bound>,
        dax: Option<Arc<DaxDevice<Media<'bound>>>>,
    ) -> Self {
        Self { media, flush, dax }
    }

    /// Copies what the bio asks for; [`EIO`] if any of it is bad and can't be healed.
    #[inline]
    fn transfer(&self, bio: &Bio<'_>) -> Result {
        // A flush alone; its sector means nothing.
        if bio.len() == 0 {
            return Ok(());
        }

        let media = &*self.media;
        let mut span = Span::of_sectors(bio.sector(), bio.len(), media.size()).ok_or(EIO)?;

        match bio.transfer() {
            Transfer::Read(mut segments) => {
                if media.errors().first_in(&span).is_some() {
                    return Err(EIO);
                }
                while let Some(segment) = segments.next_segment() {
                    media.read(&mut span, &segment)?;
                }
            }
            Transfer::Write(mut segments) => {
                let mut overwrite = media.overwrite(span)?;

                while let Some(segment) = segments.next_segment() {
                    overwrite.write(&segment)?;
                }
                overwrite.finish();
            }
            Transfer::Zero => {
                let mut overwrite = media.overwrite(span)?;

                overwrite.zero()?;
                overwrite.finish();
            }
        }
        Ok(())
    }
}

impl Operations for PmemDisk<'_> {
    type Attributes = (WriteCache, OverwriteHeals);

    fn submit(&self, bio: Bio<'_>) {
        if bio.is_preflush() {
            if let Err(e) = self.flush.now() {
                return bio.end(Err(e));
            }
        }

        let accounting = bio.account();
        let result = self.transfer(&bio);
        drop(accounting);

        if result.is_ok() && bio.is_fua() {
            return self.flush.then_end(bio);
        }
        bio.end(result);
    }

    fn bad_blocks(&self) -> &BadBlocks {
        self.media.errors().list()
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
