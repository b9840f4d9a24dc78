// SPDX-License-Identifier: GPL-2.0

//! The memory itself: reads that survive machine checks, and writes that bypass the CPU's caches.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        block::{
            FromBio,
            Segments, //
        },
        dax::{
            RecoveryWrite,
            Translation, //
        },
        flag::Flag,
        memory::{
            HasPages,
            Memory,
            Part, //
        },
        nd, //
    },
    badblocks::{
        Badblocks,
        Condition,
        Failures, //
    },
    repair::Buffers,
    units::Span, //
};
use kernel::{
    device::Bound,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex, //
    }, //
};

/// The data area of a namespace, with its bad blocks.
///
/// Fields are dropped from the top: the memory is unmapped and its claim released, then its bad blocks
/// are handed over to the bus.
pub(crate) struct Media<'bound> {
    pub(crate) memory: Memory<Failures<'bound>>,
    badblocks: Arc<Badblocks<'bound>>,
    /// Held while a page is repaired.
    pub(crate) repair: Pin<KBox<Mutex<Buffers>>>,
    pub(crate) overwrite_heals: Flag,
    /// That a write failed for want of it was logged.
    pub(crate) hinted: Flag,
    pub(crate) dev: &'bound nd::Device<Bound>,
}

impl<'bound> Media<'bound> {
    /// `memory` is all of the data area. [`ENOMEM`].
    pub(crate) fn new(
        dev: &'bound nd::Device<Bound>,
        memory: Memory<Failures<'bound>>,
        badblocks: Arc<Badblocks<'bound>>,
    ) -> Result<Self> {
        let this = Self {
            memory,
            badblocks,
            repair: KBox::pin_init(new_mutex!(Buffers::new()?), GFP_KERNEL)?,
            overwrite_heals: Flag::new(!dev.region().has_commands()),
            hinted: Flag::new(false),
            dev,
        };

        // A page that was unmapped from the direct map stays so while no driver has the memory.
        this.find_unmapped(Span::of_bytes(0, this.size(), this.size()).ok_or(ENXIO)?);
        Ok(this)
    }

    /// The size of the data area, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.memory.len()
    }

    /// Whether there are `struct page`s for the memory.
    pub(crate) fn has_pages(&self) -> bool {
        self.memory.has_pages()
    }

    /// The same, for the disk's limits.
    pub(crate) fn dax(&self) -> Option<HasPages> {
        self.memory.dax()
    }

    /// The bad blocks.
    #[inline]
    pub(crate) fn badblocks(&self) -> &Badblocks<'bound> {
        &self.badblocks
    }

    /// Where the pages from the one at `offset` to the end are. Fails as [`Memory::pages_from`].
    #[inline]
    pub(crate) fn pages_from(&self, offset: u64) -> Result<Translation<'_>> {
        self.memory.pages_from(offset)
    }

    /// The memory at `span`, to be read where nothing is bad in it, and written where nothing is to
    /// be repaired; otherwise it is to be written by [`Self::overwrite`]. Where it fails, the pages
    /// that are missing in the direct map are to be found, by [`Self::find_unmapped`].
    #[inline]
    pub(crate) fn part(&self, span: &Span) -> Result<Part<'_>> {
        self.memory.part(span.offset(), span.len())
    }

    /// Adds the pages of `rest` that are missing in the direct map to the bad blocks. Machine checks
    /// taken during a copy are reported through the MCE notifier.
    #[cold]
    pub(crate) fn find_unmapped(&self, mut rest: Span) {
        while let Ok(Some(hole)) = self.memory.unmapped(rest.offset(), rest.len()) {
            rest.take(hole.saturating_sub(rest.offset()));
            self.badblocks.add_unmapped(&rest.take_page());
        }
    }

    /// Whether a write to `span` has to repair something first, so that it sleeps.
    #[inline]
    pub(crate) fn needs_repair(&self, span: &Span) -> bool {
        !self.badblocks.is_clean()
            && match self.badblocks.condition(span) {
                Condition::Good => false,
                Condition::Bad => true,
                Condition::Failed => self.is_unmapped(span),
            }
    }

    /// Whether a page that `span` touches is missing in the direct map.
    #[cold]
    fn is_unmapped(&self, span: &Span) -> bool {
        !self
            .memory
            .is_mapped(span.offset(), span.len())
            .unwrap_or(true)
    }

    /// Writes `from` to `span`, past the CPU's caches, and repairs what is bad in it: the number of
    /// bytes written from the start of `span` on, and whether it was all that `from` has.
    ///
    /// [`EIO`] if a bad block can't be repaired, or if less than a whole page is to be written where
    /// the page as a whole is lost, [`ENOMEM`] if there is no memory to keep account of a repair.
    /// What is in front of that page is written then; from it on, nothing is. [`EFAULT`] if a page
    /// turned out to be missing in the direct map, of which nobody knew: it is bad now, and who tries
    /// again repairs it. Sleeps if there is something to repair.
    #[inline]
    pub(crate) fn overwrite(&self, span: Span, from: Source<'_>) -> (usize, Result) {
        if self.needs_repair(&span) {
            return self.overwrite_bad(span, from);
        }
        match self.part(&span).and_then(|to| from.store(to)) {
            Ok(written) => (written, Ok(())),
            Err(_) => {
                self.find_unmapped(span);
                (0, Err(EFAULT))
            }
        }
    }
}

/// Has `copy` done again if it found a page missing in the direct map ([`EFAULT`]): that is bad now,
/// so that a write repairs it. [`EIO`] if it fails again.
pub(crate) fn again_if_unmapped(mut copy: impl FnMut() -> Result) -> Result {
    match copy() {
        Err(e) if e == EFAULT => copy().map_err(|_| EIO),
        result => result,
    }
}

/// What is to be written.
pub(crate) enum Source<'a> {
    /// The memory of a bio.
    Bio(Segments<'a, FromBio>),
    /// What a file system copies from a program.
    Program(RecoveryWrite<'a>),
    /// Zeroes, as many as there is room for.
    Zeroes,
}

impl Source<'_> {
    /// Writes all of it to `to`; the number of bytes.
    #[inline]
    fn store(self, mut to: Part<'_>) -> Result<usize> {
        let len = to.len();

        match self {
            Self::Bio(mut segments) => {
                while let Some(segment) = segments.next_segment() {
                    to.write(&segment)?;
                }
            }
            Self::Program(from) => return Ok(from.copy()),
            Self::Zeroes => to.zero()?,
        }
        Ok(len)
    }
}
