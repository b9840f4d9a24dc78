// SPDX-License-Identifier: GPL-2.0

//! The bus's badrange list: how errors of a namespace outlive its binding, and how the platform's
//! arrive.
//!
//! It is read at probe and at each notification, and written from process context only: by a work
//! item, by who adds or drops errors through `errors/list`, and at unbind. That is done under the
//! lock of the bus, with which libnvdimm walks the list. Nothing on an I/O path touches it.

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
use kernel::prelude::*;

/// How many ranges the bus is told of before others get its lock.
const BATCH: usize = 64;

impl Set<'_> {
    /// Adds what the bus knows of the namespace. [`ENOMEM`]. Sleeps.
    pub(crate) fn read_badrange(&self) -> Result {
        self.sync()?;

        let bus = self.region().lock_bus();
        // Repaired meanwhile, and known to the bus a moment ago: that is no new report. With the
        // bus's lock held they stay in `repaired`.
        for addresses in &bus.badrange(self.namespace())? {
            let mut rest = self.sectors(addresses);

            // A report with the same start as an entry gives it its own length (`badrange_add`).
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

    /// Tells the bus of what it does not know yet: repaired sectors, and new errors.
    ///
    /// [`ENOMEM`] if it has no memory for all of them; it is told of those at the next occasion.
    /// Sleeps.
    pub(crate) fn sync(&self) -> Result {
        let imported = self.import(GFP_KERNEL);
        let mut at = 0;

        // What a BTT has cleared, the bus has forgotten, and is not told of again.
        self.follow_btt();
        let mut changed = false;
        let mut more = true;

        while more {
            let bus = self.region().lock_bus();

            for _ in 0..BATCH {
                more = self.forget_next(&bus) || self.tell_next(&bus, &mut at)?;
                if !more {
                    break;
                }
                changed = true;
            }
        }
        if changed {
            self.region().notify_list();
        }
        self.keep_spares().and(imported)
    }

    /// Has the bus and the region forget the next range that was repaired; whether there was one.
    fn forget_next(&self, bus: &Bus<'_>) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some((sectors, tag)) = state.repaired.next(0) else {
            return false;
        };

        // All of a range: that takes no memory.
        let _ = state.repaired.remove(&sectors, &mut state.spares);
        drop(guard);
        if tag.pending {
            bus.forget(&self.addresses(&sectors));
        }
        // Where that, or the bus's own command, has made two entries of one, the second is lost if there
        // was no memory for it (`badrange_forget`).
        self.set_pending(&(sectors.end..sectors.end.saturating_add(1)));
        true
    }

    /// Tells the bus and the region of the next range from sector `at` on that they do not know;
    /// whether there may be more.
    fn tell_next(&self, bus: &Bus<'_>, at: &mut u64) -> Result<bool> {
        let state = self.state.lock();
        let next = state.bad.next_pending(*at);
        let has_pending = state.bad.has_pending();

        drop(state);
        let Some(sectors) = next else {
            *at = 0;
            return Ok(has_pending);
        };
        bus.add(&self.addresses(&sectors))?;
        *at = sectors.end;

        let mut guard = self.state.lock();
        let state = &mut *guard;

        state.note_told(&sectors);
        // What has grown meanwhile stays pending; so does what was repaired and is bad again.
        let repaired = &state.repaired;

        state
            .bad
            .retag(&sectors, &mut state.spares, &|range, tag| Tag {
                pending: tag.pending
                    && (range.start < sectors.start
                        || range.end > sectors.end
                        || repaired.first(range).is_some()),
                ..tag
            });
        Ok(true)
    }

    /// A BTT clears errors itself, where its bus can: what it has taken off its table is no longer
    /// bad.
    pub(crate) fn follow_btt(&self) {
        let table = self.table();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut at = 0;

        if !self.is_btt() || Self::is_truncated(state) || !self.region().has_commands() {
            return;
        }
        while let Some((bad, _)) = state.bad.next(at) {
            at = at.max(bad.start);
            let listed = table.entry_in(at, bad.end.saturating_sub(at));
            let (start, end) = listed.map_or((bad.end, bad.end), |(first, len)| {
                (first.max(at), first.saturating_add(len))
            });

            // Nothing, where two entries touch. Without a spare node, another time.
            let _ = state.bad.remove(&(at..start), &mut state.spares);
            at = end;
        }
    }

    /// Makes up for the spare nodes that were used. [`ENOMEM`].
    fn keep_spares(&self) -> Result {
        let missing = SPARES.saturating_sub(self.state.lock().spares.len());
        let spares = Spares::new(missing, GFP_KERNEL)?;

        spares.give(&mut self.state.lock().spares);
        Ok(())
    }
}

impl Job for Set<'_> {
    fn run(&self) {
        // Without memory now, at the next report, or at unbind.
        let _ = self.sync();
    }
}
