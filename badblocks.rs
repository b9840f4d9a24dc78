// SPDX-License-Identifier: GPL-2.0

//! The list of bad blocks: where it comes from, who is told, what clears it.
//!
//! An error travels: the bus's log, or a machine check, → the bus's list and [`ErrorList`] →
//! [`EIO`] on that block alone → a write that covers it → cleared. Of a machine check on memory of the
//! NFIT its provider tells the bus, of one on other memory this driver does. Memory failures go to the
//! file system that has the memory as well: [`Failures`].

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadBlocks,
        block::GenDisk,
        dax::FailureLink,
        errno::eopnotsupp,
        mce,
        nd::Region,
        pagemap::{
            is_simulated,
            MemoryFailure, //
        },
        sysfs, //
    },
    units::{
        intersection,
        Sectors,
        Span,
        SECTOR_SHIFT, //
    },
    PAGE_SHIFT, //
};
use core::ops::Range;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        new_mutex,
        Arc,
        Mutex,
        SetOnce, //
    }, //
};

/// The bad sectors of the data area.
#[pin_data]
pub(crate) struct ErrorList<'bound> {
    #[pin]
    list: BadBlocks,
    /// Held by who adds to the list. Holds whether it had to be made coarser.
    #[pin]
    coarser: Mutex<bool>,
    region: &'bound Region,
    namespace: Range<u64>,
    data: Range<u64>,
    reported: Atomic<bool>,
    file: SetOnce<sysfs::File>,
}

impl<'bound> ErrorList<'bound> {
    /// The list for the data area at the physical addresses `data` of `namespace`, with what the bus
    /// knows of it; machine checks add to it. [`ENOMEM`].
    pub(crate) fn new(
        region: &'bound Region,
        namespace: Range<u64>,
        data: Range<u64>,
    ) -> impl PinInit<mce::Listener<Self>, Error> + 'bound {
        let list = try_pin_init!(Self {
            list <- BadBlocks::new(),
            coarser <- new_mutex!(false),
            region,
            namespace,
            data,
            reported: Atomic::new(false),
            file: SetOnce::new(),
        }? Error);

        mce::Listener::new(list.pin_chain(|list| {
            list.read_log();
            Ok(())
        }))
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

    /// Adds what the bus knows.
    pub(crate) fn read_log(&self) {
        let mut coarser = self.coarser.lock();

        self.region.for_each_error(|addresses| {
            if let Some(addresses) = intersection(&addresses, &self.data) {
                self.add(&addresses, &mut coarser);
            }
        });
        drop(coarser);
        self.notify();
    }

    /// Adds the physical `addresses`, which are in the data area.
    fn add(&self, addresses: &Range<u64>, coarser: &mut bool) {
        let Sectors { start, len } = Sectors::of_addresses(addresses, self.data.start);
        let end = start.saturating_add(len);
        let mut at = start;

        // As long as an entry can be, so that there is room for each.
        while at < end {
            let len = end.wrapping_sub(at).min(BadBlocks::LONGEST);

            if self.list.count() >= self.room() {
                if !*coarser {
                    pr_warn!("more errors than their list holds: good blocks between bad ones are listed as well\n");
                }
                *coarser = true;
                self.make_room();
            }
            if self.list.set(at, len).is_err() {
                pr_warn!("the list of errors is full: sector {at} is not on it\n");
            }
            at = at.saturating_add(len);
        }
    }

    /// The number of sectors of the data area.
    fn size(&self) -> u64 {
        Sectors::of_addresses(&self.data, self.data.start).len
    }

    /// How many entries the list may have: what it holds, and no more than a page of text, since the
    /// kernel warns of a longer one when the disk's `badblocks` is read.
    fn room(&self) -> usize {
        let mut sectors = self.size();
        // "START LENGTH\n", the length being 512 at most.
        let mut line = "0 512\n".len();

        while sectors >= 10 {
            sectors /= 10;
            line = line.saturating_add(1);
        }
        (PAGE_SIZE / line)
            .min(BadBlocks::CAPACITY)
            .saturating_sub(2)
    }

    /// Makes one entry of what is in the same page, or, where that does not make enough room, in
    /// the same 8 KiB, 16 KiB… 256 KiB, which is the longest that an entry can be.
    fn make_room(&self) {
        let mut unit = (PAGE_SIZE >> SECTOR_SHIFT) as u64;

        while unit <= BadBlocks::LONGEST && self.list.count() > self.room() / 4 * 3 {
            let mut index = 0_usize;

            while let Some((start, len)) = self.list.entry(index) {
                let block = start & !unit.wrapping_sub(1);
                let end = block.saturating_add(unit).min(self.size());

                match self.list.entry(index.saturating_add(1)) {
                    Some((next, _)) if next < end && start.saturating_add(len) < end => {
                        let len = end.saturating_sub(block);

                        self.list.clear(block, len);
                        let _ = self.list.set(block, len);
                    }
                    _ => index = index.saturating_add(1),
                }
            }
            unit = unit.saturating_mul(2);
        }
    }

    /// Says that pages may be out of the kernel's map, listed or not.
    pub(crate) fn set_reported(&self) {
        self.reported.store(true, Relaxed);
    }

    /// Lists an error at the physical `addresses`, as far as they are this namespace's, that the bus
    /// has not been told of: on the bus's list, the region's, and this one. Sleeps.
    pub(crate) fn report(&self, addresses: &Range<u64>) {
        let Some(addresses) = intersection(addresses, &self.namespace) else {
            return;
        };

        self.set_reported();
        remember(self.region, &addresses);
        let Some(data) = intersection(&addresses, &self.data) else {
            pr_warn!(
                "error at {:#x}, in the info block or the page map of a namespace\n",
                addresses.start
            );
            return;
        };
        self.add(&data, &mut self.coarser.lock());
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
        self.reported.load(Relaxed) || (!self.is_empty() && self.lists_pages_of(span))
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

    /// Takes the sectors of `span` off the lists of the bus and the region, as a bus does by itself
    /// when it clears errors.
    pub(crate) fn forget(&self, span: &Span) {
        // No overflow: inside of one range of physical addresses.
        let start = self.data.start.wrapping_add(span.offset() as u64);

        self.region
            .forget_error(&(start..start.wrapping_add(span.len() as u64)));
    }

    fn notify(&self) {
        if let Some(file) = self.file.as_ref() {
            file.notify();
        }
    }
}

impl mce::Handler for ErrorList<'_> {
    fn memory_error(&self, addresses: Range<u64>) {
        self.report(&addresses);
    }
}

/// Puts an error on the lists of the bus and of the region.
pub(crate) fn remember(region: &Region, addresses: &Range<u64>) {
    if region.add_error(addresses).is_err() {
        pr_warn!(
            "error at {:#x}: no memory to list it for the region\n",
            addresses.start
        );
    }
}

/// Lists failures of the memory, and passes those of the data area on to the file system that is
/// mounted on it, if that wants to know (XFS does).
pub(crate) struct Failures<'bound> {
    errors: Arc<mce::Listener<ErrorList<'bound>>>,
    link: Arc<FailureLink>,
}

impl<'bound> Failures<'bound> {
    /// Failures go on the list `errors`; `link` leads to the DAX device of the data area.
    pub(crate) fn new(
        errors: Arc<mce::Listener<ErrorList<'bound>>>,
        link: Arc<FailureLink>,
    ) -> Self {
        Self { errors, link }
    }
}

impl MemoryFailure for Failures<'_> {
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result {
        let start = pfn << PAGE_SHIFT;
        let len = nr_pages << PAGE_SHIFT;

        self.errors.set_reported();
        // A page as a whole: that is what the kernel stops to use.
        if !is_simulated(flags) {
            self.errors.report(&(start..start.saturating_add(len)));
        }
        // Memory in front of the data (info block, page map) is no file system's.
        let offset = start
            .checked_sub(self.errors.data.start)
            .ok_or_else(eopnotsupp)?;

        self.link.notify_holder(offset, len, flags)
    }
}
