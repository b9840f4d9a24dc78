// SPDX-License-Identifier: GPL-2.0

//! Synchronisation with the bus's badrange list: it keeps the errors of a namespace across bindings,
//! and has those that the platform reports.
//!
//! The driver reads the list at probe and at each notification. It writes the list in process
//! context only: from a work item, from writes to `errors/list`, and at unbind. Both happen with
//! the bus lock held, under which libnvdimm walks the list. No I/O path touches it.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        nd::Bus,
        work::Job, //
    },
    badblocks::{
        Origin,
        Set,
        SPARES, //
    },
    ranges::{
        Spares,
        Tag, //
    },
};
use core::ops::Range;
use kernel::prelude::*;

/// The most ranges that are written before the bus lock is released for others.
const BATCH: usize = 64;

impl Set<'_> {
    /// Adds the bus's badranges in the namespace. [`ENOMEM`]. Sleeps.
    pub(crate) fn read_badrange(&self) -> Result {
        self.sync()?;

        let bus = self.region().lock_bus();
        // Sectors that were repaired since the `sync` are still in the list. Skip them: that is no new
        // report. `repaired` keeps them while the bus lock is held.
        for addresses in &bus.badranges(self.namespace())? {
            let mut rest = self.sectors(addresses);

            // A report with the same start as an entry replaces its length (`badrange_add`), so that
            // the list may have lost what follows.
            self.set_pending(&(rest.end..rest.end.saturating_add(1)));
            while !rest.is_empty() {
                let gap = self.state.lock().repaired.split_gap(&mut rest);
                let tag = Tag {
                    origin: Origin::Log,
                    pending: false,
                };

                if !gap.is_empty() {
                    self.add(&gap, tag, GFP_KERNEL)?;
                }
            }
        }
        Ok(())
    }

    /// Writes changes to the badrange list: removes repaired sectors, and adds new errors.
    ///
    /// [`ENOMEM`] if there is no memory for all of them; the next call adds the rest. Sleeps.
    pub(crate) fn sync(&self) -> Result {
        let imported = self.import(GFP_KERNEL);
        let mut at = 0;

        // First: what a BTT has cleared, the bus has forgotten, and must not get back.
        self.follow_btt();
        let mut changed = false;
        let mut more = true;

        while more {
            let bus = self.region().lock_bus();

            for _ in 0..BATCH {
                more = self.forget_next(&bus) || self.add_next(&bus, &mut at)?;
                if !more {
                    break;
                }
                changed = true;
            }
        }
        if changed {
            self.region().notify_badblocks();
        }
        self.refill_spares().and(imported)
    }

    /// Removes the next repaired range from the lists of bus and region. Returns whether there was one.
    fn forget_next(&self, bus: &Bus<'_>) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some((sectors, tag)) = state.repaired.next(0) else {
            return false;
        };

        // Cannot fail: to remove all of a range takes no spare.
        let _ = state.repaired.remove(&sectors, &mut state.spares);
        drop(guard);
        if tag.pending {
            bus.forget_badrange(&self.addresses(&sectors));
        }
        // When `badrange_forget`, here or in the bus's own command, splits an entry and has no memory
        // for the second half, it loses that half. Add it again.
        self.set_pending(&(sectors.end..sectors.end.saturating_add(1)));
        true
    }

    /// Adds the next pending range from sector `at` on to the lists of bus and region. Returns whether
    /// there may be more.
    fn add_next(&self, bus: &Bus<'_>, at: &mut u64) -> Result<bool> {
        let state = self.state.lock();
        let next = state.bad.next_pending(*at);
        let has_pending = state.bad.has_pending();

        drop(state);
        let Some(sectors) = next else {
            *at = 0;
            return Ok(has_pending);
        };
        bus.add_badrange(&self.addresses(&sectors))?;
        *at = sectors.end;

        let mut guard = self.state.lock();
        let state = &mut *guard;

        state.note_added_to_bus(&sectors);
        // A range that has grown since stays pending, and so does one that was repaired and is bad again.
        let repaired = &state.repaired;

        state.bad.retag(
            &sectors,
            &mut state.spares,
            &|range: &Range<u64>, tag: Tag| Tag {
                pending: tag.pending
                    && (range.start < sectors.start
                        || range.end > sectors.end
                        || repaired.first(range).is_some()),
                ..tag
            },
        );
        Ok(true)
    }

    /// Removes sectors that a BTT has cleared itself, which it does where its bus can: they are no
    /// longer in its table.
    pub(crate) fn follow_btt(&self) {
        let table = self.table();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut at = 0;

        // A table that is not complete does not say which sectors were cleared.
        if !self.is_btt() || Self::is_truncated(state) || !self.region().has_commands() {
            return;
        }
        while let Some((bad, _)) = state.bad.next(at) {
            at = at.max(bad.start);
            let listed = table.entry_in(at, bad.end.saturating_sub(at));
            let (start, end) = listed.map_or((bad.end, bad.end), |(first, len)| {
                (first.max(at), first.saturating_add(len))
            });

            // An empty range where two entries touch. Without a spare node, it is removed next time.
            let _ = state.bad.remove(&(at..start), &mut state.spares);
            at = end;
        }
    }

    /// Replaces the spare nodes that were used. [`ENOMEM`].
    fn refill_spares(&self) -> Result {
        let missing = SPARES.saturating_sub(self.state.lock().spares.len());
        let spares = Spares::new(missing, GFP_KERNEL)?;

        spares.give(&mut self.state.lock().spares);
        Ok(())
    }
}

impl Job for Set<'_> {
    fn run(&self) {
        // Without memory, the next report tries again, and unbind at the latest.
        let _ = self.sync();
        self.announce();
    }
}
