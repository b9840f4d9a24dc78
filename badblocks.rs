// SPDX-License-Identifier: GPL-2.0

//! The list of bad blocks: where it comes from, who is told, what clears it.
//!
//! An error travels: the bus's log, or a machine check that the bus's provider hears of, → the
//! bus's list → [`ErrorList`] → [`EIO`] on that block alone → a write that covers it → cleared.
//! Memory failures go another way, to the file system that has the memory: [`Failures`].

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadBlocks,
        block::GenDisk,
        dax::FailureLink,
        errno::eopnotsupp,
        nd::Region,
        pagemap::MemoryFailure,
        sysfs, //
    },
    units::Span,
    PAGE_SHIFT, //
};
use core::ops::RangeInclusive;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        SetOnce, //
    }, //
};

/// The bad sectors of the data area.
#[pin_data]
pub(crate) struct ErrorList<'bound> {
    #[pin]
    list: BadBlocks,
    region: &'bound Region,
    data: RangeInclusive<u64>,
    link: Arc<FailureLink>,
    file: SetOnce<sysfs::File>,
}

impl<'bound> ErrorList<'bound> {
    /// The list for the data area at the physical addresses `data`, with what the bus knows of
    /// it. Failures of its memory are reported through `link`. [`ENOMEM`].
    pub(crate) fn new(
        region: &'bound Region,
        data: RangeInclusive<u64>,
        link: Arc<FailureLink>,
    ) -> impl PinInit<Self, Error> + 'bound {
        try_pin_init!(Self {
            list <- BadBlocks::new(),
            _: { region.read_errors(&list, &data) },
            region,
            data,
            link,
            file: SetOnce::new(),
        })
    }

    /// The list itself, for the block layer.
    pub(crate) fn list(&self) -> &BadBlocks {
        &self.list
    }

    /// From now on, changes wake those who poll the disk's `badblocks` file.
    pub(crate) fn publish(&self, disk: &GenDisk) -> Result {
        self.file
            .populate(disk.sysfs_file(c"badblocks").ok_or(ENOENT)?);
        Ok(())
    }

    /// Adds what the bus has learnt since.
    pub(crate) fn read_log(&self) {
        self.region.read_errors(&self.list, &self.data);
        self.notify();
    }

    /// Whether nothing at all is listed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first bad sector in `span`.
    pub(crate) fn first_in(&self, span: &Span) -> Option<u64> {
        let sectors = span.sectors();

        self.list.first_bad(sectors.start, sectors.len)
    }

    /// Whether pages that `span` touches are bad, or may have been taken out of the kernel's map:
    /// if not, it can be written without ado.
    #[inline]
    pub(crate) fn suspects(&self, span: &Span) -> bool {
        self.link.has_reported() || (!self.is_empty() && self.lists_pages_of(span))
    }

    /// Whether anything is listed in the pages that `span` touches.
    #[cold]
    pub(crate) fn lists_pages_of(&self, span: &Span) -> bool {
        let sectors = span.sectors_of_pages();

        self.list.first_bad(sectors.start, sectors.len).is_some()
    }

    /// Takes the sectors of `span` off the list: their errors are cleared, and they hold what was
    /// written over them. Nobody is woken if none was listed.
    pub(crate) fn remove(&self, span: &Span) {
        if self.first_in(span).is_none() {
            return;
        }
        let sectors = span.sectors();

        self.list.clear(sectors.start, sectors.len);
        self.notify();
    }

    fn notify(&self) {
        if let Some(file) = self.file.as_ref() {
            file.notify();
        }
    }
}

/// Passes failures of the data area's memory on to the file system that is mounted on it, if that
/// wants to know (XFS does).
pub(crate) struct Failures {
    link: Arc<FailureLink>,
    data_start: u64,
}

impl Failures {
    /// For the data area from physical address `data_start` on; `link` leads to its DAX device.
    pub(crate) fn new(link: Arc<FailureLink>, data_start: u64) -> Self {
        Self { link, data_start }
    }
}

impl MemoryFailure for Failures {
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result {
        // Memory in front of the data (info block, page map) is no file system's.
        let offset = (pfn << PAGE_SHIFT)
            .checked_sub(self.data_start)
            .ok_or_else(eopnotsupp)?;

        self.link
            .notify_holder(offset, nr_pages << PAGE_SHIFT, flags)
    }
}
