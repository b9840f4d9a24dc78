// SPDX-License-Identifier: GPL-2.0

//! The data area of a mapped namespace: reads that survive machine checks, and writes that bypass
//! the CPU caches.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        block::{
            FromBio,
            Segments, //
        },
        flag::Flag,
        memory::{
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
    units::Span, //
};
use kernel::{
    device::Bound,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex, //
    }, //
};

/// The data area of a namespace, with its bad blocks.
///
/// Fields are dropped from the top: the memory is unmapped and its claim released before the
/// reference to its bad blocks, the last one of which hands them over to the bus.
pub(crate) struct Media<'bound> {
    pub(crate) memory: Memory<'bound, Failures<'bound>>,
    badblocks: Arc<Badblocks<'bound>>,
    /// Locked while a page is repaired.
    pub(crate) repair: Pin<KBox<Mutex<Buffers>>>,
    pub(crate) overwrite_heals: Flag,
    /// `overwrite_heals` was recommended in the kernel log.
    pub(crate) hinted: Flag,
    pub(crate) dev: &'bound nd::Device<Bound>,
}

impl<'bound> Media<'bound> {
    /// Creates the data area, which is all of `memory`. [`ENOMEM`].
    pub(crate) fn new(
        dev: &'bound nd::Device<Bound>,
        memory: Memory<'bound, Failures<'bound>>,
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

        // Pages that were unmapped from the direct map during an earlier binding are still
        // unmapped, and the kernel does not report them again.
        this.find_unmapped(Span::of_bytes(0, this.memory.len(), this.memory.len()).ok_or(ENXIO)?);
        Ok(this)
    }

    /// The bad blocks of the data area.
    #[inline]
    pub(crate) fn badblocks(&self) -> &Badblocks<'bound> {
        &self.badblocks
    }

    /// Returns the memory at `span`.
    ///
    /// The caller has checked that it has no bad blocks to read, and none to repair by the write:
    /// else it uses [`Self::overwrite`]. After a copy that failed, the caller calls
    /// [`Self::find_unmapped`].
    #[inline]
    pub(crate) fn part(&self, span: &Span) -> Result<Part<'_>> {
        self.memory.part(span.offset(), span.len())
    }

    /// Adds pages of `rest` that are unmapped from the direct map to the bad blocks.
    ///
    /// A copy that failed for a machine check has no such page: the MCE notifier reports it. Sleeps,
    /// because a repair maps a page again: one that was just repaired must not be bad again.
    #[cold]
    pub(crate) fn find_unmapped(&self, mut rest: Span) {
        let _repairs = self.repair.lock();

        while let Ok(Some(hole)) = self.memory.unmapped(rest.offset(), rest.len()) {
            rest.take(hole.saturating_sub(rest.offset()));
            self.badblocks.add_unmapped(&rest.take_page());
        }
    }

    /// Returns whether a write to `span` has to repair something, and so sleeps.
    #[inline]
    pub(crate) fn needs_repair(&self, span: &Span) -> bool {
        !self.badblocks.is_clean()
            && match self.badblocks.condition(span) {
                Condition::Clean => false,
                Condition::Bad => true,
                Condition::Failed => self.is_unmapped(span),
            }
    }

    /// Returns whether a page that `span` touches is unmapped from the direct map.
    #[cold]
    fn is_unmapped(&self, span: &Span) -> bool {
        !self
            .memory
            .is_mapped(span.offset(), span.len())
            .unwrap_or(true)
    }

    /// Writes `from` to `span`, past the CPU caches, and repairs bad blocks in it. Sleeps if there
    /// are any.
    ///
    /// Returns the number of bytes written from the start of `span` on, and whether these are all.
    /// Pages before the one that fails are written, and those behind it are not. That page stays
    /// bad, and may have old and new data.
    ///
    /// - [`EIO`]: a bad block can't be repaired, or its page is unmapped from the direct map and
    ///   only a part of it is to be written. A page is mapped again as a whole only.
    /// - [`ENOMEM`]: there is no memory to keep account of the repair.
    /// - [`EFAULT`]: a page was unmapped without a report. It is a bad page now, which the next try
    ///   repairs.
    #[inline]
    pub(crate) fn overwrite(&self, span: Span, from: Source<'_>) -> (usize, Result) {
        if self.needs_repair(&span) {
            return self.overwrite_slow(span, from);
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

/// Repeats `copy` if it fails with [`EFAULT`]: it has found an unmapped page, which is a bad page
/// now, so that a write repairs it. [`EIO`] if it fails again.
pub(crate) fn retry_if_unmapped(mut copy: impl FnMut() -> Result) -> Result {
    match copy() {
        Err(e) if e == EFAULT => copy().map_err(|_| EIO),
        result => result,
    }
}

/// The source of a write.
pub(crate) enum Source<'a> {
    /// The memory of a bio.
    Bio(Segments<'a, FromBio>),
    /// Any number of zeroes.
    Zeroes,
}

impl Source<'_> {
    /// Writes everything to `to`, and returns the number of bytes.
    #[inline]
    fn store(self, mut to: Part<'_>) -> Result<usize> {
        let len = to.len();

        match self {
            Self::Bio(mut segments) => {
                while let Some(segment) = segments.next_segment() {
                    to.write(&segment)?;
                }
            }
            Self::Zeroes => to.zero()?,
        }
        Ok(len)
    }
}

/// A page to write, and a page to read back.
///
/// They are allocated with the namespace: a write under memory pressure must not allocate.
pub(crate) struct Buffers {
    pub(crate) data: KVec<u8>,
    pub(crate) readback: KVec<u8>,
}

impl Buffers {
    /// [`ENOMEM`].
    fn new() -> Result<Self> {
        Ok(Self {
            data: KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?,
            readback: KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?,
        })
    }
}
