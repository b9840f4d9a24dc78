// SPDX-License-Identifier: GPL-2.0

//! The list of bad blocks: where it comes from, who is told, what clears it.
//!
//! An error travels: the bus's log, a machine check, or a user → the bus's list
//! ([`ErrorLog`]) and [`ErrorList`] → [`EIO`] on that block alone → a write that covers it → cleared.
//! Of a machine check on memory of the NFIT its provider tells the bus, of one on other memory this
//! driver does. Memory failures go to the file system that has the memory as well: [`Failures`].

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadBlocks,
        block::{
            Disk,
            Operations, //
        },
        dax::FailureLink,
        errno::eopnotsupp,
        flag::Flag,
        mce,
        nd::Region,
        pagemap::{
            is_simulated,
            MemoryFailure, //
        },
        sysfs::{
            self,
            Window, //
        }, //
    },
    coarse::{
        Coarse,
        Fit, //
    },
    errors::{
        ErrorLog,
        Origin, //
    },
    units::{
        intersection,
        Sectors,
        Span, //
    },
    PAGE_SHIFT, //
};
use core::ops::Range;
use kernel::{
    device::{
        Core,
        Device, //
    },
    prelude::*,
    sync::{
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
    /// Held by who adds to the list.
    #[pin]
    fit: Mutex<Fit>,
    /// Not all errors fit on the list: the bus has to be asked as well.
    overflows: Flag,
    #[pin]
    log: ErrorLog<'bound>,
    data: Range<u64>,
    reported: Flag,
    file: SetOnce<sysfs::File>,
}

impl<'bound> ErrorList<'bound> {
    /// The list for the data area at the physical addresses `data` of `namespace`, with what the bus
    /// knows of it. [`ENOMEM`].
    pub(crate) fn new(
        region: &'bound Region,
        namespace: Range<u64>,
        data: Range<u64>,
    ) -> impl PinInit<Self, Error> + 'bound {
        let list = try_pin_init!(Self {
            list <- BadBlocks::new(),
            fit <- new_mutex!(Fit::Exact),
            overflows: Flag::new(false),
            log <- ErrorLog::new(region, namespace),
            data,
            reported: Flag::new(false),
            file: SetOnce::new(),
        }? Error);

        list.pin_chain(|list| {
            list.read_log();
            Ok(())
        })
    }

    /// The list itself, for the block layer.
    pub(crate) fn list(&self) -> &BadBlocks {
        &self.list
    }

    /// From now on, changes wake those who poll the disk's `badblocks` file.
    pub(crate) fn publish<T: Operations>(&self, dev: &Device<Core<'_>>, disk: &Disk<T>) -> Result {
        self.file
            .populate(disk.sysfs_file(dev, c"badblocks").ok_or(ENOENT)?);
        Ok(())
    }

    /// Adds what the bus knows.
    pub(crate) fn read_log(&self) {
        let mut entries = 0_usize;

        self.log
            .region()
            .for_each_error(|_| entries = entries.saturating_add(1));
        self.keep_unknown(entries);

        let mut fit = self.fit.lock();
        let mut all = Fit::Exact;

        self.log.region().for_each_error(|addresses| {
            if let Some(addresses) = intersection(&addresses, &self.data) {
                all = all.max(self.add(&self.sectors(&addresses), &mut fit));
            }
        });
        self.overflows.set(all == Fit::Not);
        drop(fit);
        self.log.complete_region_list();
        self.notify();
    }

    /// Before so many entries more make the list coarser: tells the bus what only the list knows.
    fn keep_unknown(&self, entries: usize) {
        if !self.coarse().has_room_for(entries) {
            self.log_unknown();
        }
    }

    fn coarse(&self) -> Coarse<'_> {
        Coarse::new(&self.list, self.sectors(&self.data).len)
    }

    /// What the physical `addresses` are on the list.
    fn sectors(&self, addresses: &Range<u64>) -> Sectors {
        Sectors::of_addresses(addresses, self.data.start)
    }

    /// Adds sectors of the data area.
    fn add(&self, sectors: &Sectors, fit: &mut Fit) -> Fit {
        let new = self.coarse().add(sectors);

        if new == Fit::Not {
            self.overflows.set(true);
        }
        if new > *fit {
            pr_warn!("more errors than 'badblocks' holds: good blocks between bad ones are listed as well, or bad ones are not; 'errors/list' is exact\n");
            *fit = new;
        }
        new
    }

    /// Lists the pages that `span` touches, which turned out to be out of the kernel's map. The bus is
    /// not told now: that takes memory, which a read can't wait for.
    #[cold]
    pub(crate) fn add_unmapped(&self, span: &Span) {
        self.set_reported();
        self.log.note(&self.addresses(span), Origin::MemoryFailure);
        self.add(&span.sectors_of_pages(), &mut self.fit.lock());
        self.notify();
    }

    /// Calls `see` with what is listed and the bus does not know: pages out of the kernel's map, and
    /// what somebody wrote to the disk's `badblocks` file. Not where the list was made coarser, and has
    /// good blocks as well.
    fn for_each_unknown(&self, mut see: impl FnMut(Range<u64>, Origin)) {
        if *self.fit.lock() == Fit::Exact {
            let base = self.data.start;

            self.log.for_each_unknown(&self.list, base, |addresses| {
                // The file takes what is behind the end as well.
                if let Some(addresses) = intersection(&addresses, &self.data) {
                    let origin = self.log.origin(addresses.start).unwrap_or(Origin::User);

                    see(addresses, origin);
                }
            });
        }
    }

    /// Tells the bus of that, so that it is known when a driver is bound again. What somebody heals
    /// meanwhile may be known then as well.
    pub(crate) fn log_unknown(&self) {
        self.for_each_unknown(|addresses, origin| {
            // Nobody is left to be told of a failure.
            let _ = self.log.add(&addresses, origin);
        });
    }

    /// Writes the lines of all errors of the namespace.
    pub(crate) fn show(&self, to: &mut Window<'_>) {
        self.log.show(to);
        self.for_each_unknown(|addresses, origin| self.log.show_line(&addresses, origin, to));
    }

    /// The errors of the namespace, as the bus has them.
    pub(crate) fn log(&self) -> &ErrorLog<'bound> {
        &self.log
    }

    /// What of the physical `addresses` is in the data area.
    pub(crate) fn of_data(&self, addresses: &Range<u64>) -> Option<Span> {
        let data = intersection(addresses, &self.data)?;
        let offset = usize::try_from(data.start.saturating_sub(self.data.start)).ok()?;
        let len = usize::try_from(data.end.saturating_sub(data.start)).ok()?;

        Span::of_bytes(offset, len, usize::MAX)
    }

    /// Says that pages may be out of the kernel's map, listed or not.
    pub(crate) fn set_reported(&self) {
        self.reported.set(true);
    }

    /// Whether that was said.
    #[inline]
    pub(crate) fn was_reported(&self) -> bool {
        self.reported.is_on()
    }

    /// Lists an error at the physical `addresses`, as far as they are this namespace's: on the bus's
    /// list, the region's, and this one. [`ENOMEM`] if the first two have no room; it is on this one
    /// then. Sleeps.
    pub(crate) fn report(&self, addresses: &Range<u64>, origin: Origin) -> Result {
        let Some(addresses) = self.log.of_namespace(addresses) else {
            return Ok(());
        };
        let logged = self.log.add(&addresses, origin);

        match intersection(&addresses, &self.data) {
            Some(data) => {
                let sectors = self.sectors(&data);
                let entries = usize::try_from(sectors.len / BadBlocks::LONGEST)
                    .unwrap_or(usize::MAX)
                    .saturating_add(2);

                self.keep_unknown(entries);
                self.add(&sectors, &mut self.fit.lock());
            }
            None => pr_warn!(
                "error at {:#x}, in the info block or the page map of a namespace\n",
                addresses.start
            ),
        }
        self.notify();
        logged
    }

    /// Whether nothing at all is listed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first bad sector in `span`.
    #[inline]
    pub(crate) fn first_in(&self, span: &Span) -> Option<u64> {
        self.first_of(&span.sectors())
    }

    #[inline]
    fn first_of(&self, sectors: &Sectors) -> Option<u64> {
        let listed = self.list.first_bad(sectors.start, sectors.len);

        if !self.overflows.is_on() {
            return listed;
        }
        match (listed, self.first_known(sectors)) {
            (Some(listed), Some(known)) => Some(listed.min(known)),
            (listed, known) => listed.or(known),
        }
    }

    /// The first of `sectors` that the bus knows to be bad.
    #[cold]
    fn first_known(&self, sectors: &Sectors) -> Option<u64> {
        let end = sectors.start.saturating_add(sectors.len);
        let mut first = None;

        self.log.region().for_each_error(|addresses| {
            if let Some(addresses) = intersection(&addresses, &self.data) {
                let bad = self.sectors(&addresses);
                let start = bad.start.max(sectors.start);

                if start < bad.start.saturating_add(bad.len).min(end) {
                    first = Some(first.map_or(start, |first: u64| first.min(start)));
                }
            }
        });
        first
    }

    /// Whether pages that `span` touches are bad, or may have been taken out of the kernel's map:
    /// if not, it can be written without ado.
    #[inline]
    pub(crate) fn suspects(&self, span: &Span) -> bool {
        self.was_reported() || (!self.is_empty() && self.lists_pages_of(span))
    }

    /// Whether anything is listed in the pages that `span` touches.
    #[inline]
    pub(crate) fn lists_pages_of(&self, span: &Span) -> bool {
        self.first_of(&span.sectors_of_pages()).is_some()
    }

    /// Takes the sectors of `span` off the list: their errors are cleared, and they hold what was
    /// written over them. Nobody is woken if none was listed.
    pub(crate) fn remove(&self, span: &Span) {
        let sectors = span.sectors();

        if self.list.first_bad(sectors.start, sectors.len).is_none() {
            return;
        }
        self.list.clear(sectors.start, sectors.len);
        self.clear_gaps(&sectors);
        self.log.clear_region_gaps(&self.addresses(span));
        if self.overflows.is_on() {
            // There is room for others.
            self.read_log();
        }
        if self.list.is_empty() {
            *self.fit.lock() = Fit::Exact;
        }
        self.notify();
    }

    /// Takes off a list that was made coarser what is there for being near `healed`, where the bus knows
    /// of no errors. With it goes what somebody wrote to the disk's `badblocks` file since then, and
    /// pages out of the kernel's map, which are found again.
    fn clear_gaps(&self, healed: &Sectors) {
        // Nobody adds to the list meanwhile: what the bus is told of now is not lost.
        let fit = self.fit.lock();

        if *fit != Fit::Exact {
            self.coarse()
                .clear_gaps(healed, &|block| self.log.has_errors(block, self.data.start));
        }
    }

    /// Takes the sectors of `span` off the lists of the bus and the region, as a bus does by itself
    /// when it clears errors.
    pub(crate) fn forget(&self, span: &Span) {
        self.log.forget(&self.addresses(span));
    }

    /// The physical addresses of `span`.
    fn addresses(&self, span: &Span) -> Range<u64> {
        // No overflow: inside of one range of physical addresses.
        let start = self.data.start.wrapping_add(span.offset() as u64);

        start..start.wrapping_add(span.len() as u64)
    }

    fn notify(&self) {
        if let Some(file) = self.file.as_ref() {
            file.notify();
        }
    }
}

impl mce::Handler for ErrorList<'_> {
    fn memory_error(&self, addresses: Range<u64>, listed: bool) {
        if !listed {
            self.set_reported();
            // Nobody is left to be told of a failure.
            let _ = self.report(&addresses, Origin::MachineCheck);
        }
        // The kernel's recovery, or the provider, may have listed it before.
        self.log.note(&addresses, Origin::MachineCheck);
    }
}

/// Lists failures of the memory, and passes those of the data area on to the file system that is
/// mounted on it, if that wants to know (XFS does).
pub(crate) struct Failures<'bound> {
    errors: Arc<ErrorList<'bound>>,
    link: Arc<FailureLink>,
}

impl<'bound> Failures<'bound> {
    /// Failures go on the list `errors`; `link` leads to the DAX device of the data area.
    pub(crate) fn new(errors: Arc<ErrorList<'bound>>, link: Arc<FailureLink>) -> Self {
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
            let _ = self
                .errors
                .report(&(start..start.saturating_add(len)), Origin::MemoryFailure);
        }
        // Memory in front of the data (info block, page map) is no file system's.
        let offset = start
            .checked_sub(self.errors.data.start)
            .ok_or_else(eopnotsupp)?;

        self.link.notify_holder(offset, len, flags)
    }
}
