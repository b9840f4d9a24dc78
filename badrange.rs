// SPDX-License-Identifier: GPL-2.0

//! Synchronisation with the bus's badrange list: it keeps the errors of a namespace across
//! bindings, and has those that the platform reports.
//!
//! The driver reads the list at probe, at each notification and at unbind. It writes the list in
//! process context only: from a work item and at unbind. Both happen with the bus lock held, under
//! which libnvdimm walks the list. No I/O path touches it.
//!
//! The list is not sorted, and a change of one entry walks all of it. So all changes since the last
//! time are made in one walk.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadblocksTable,
        nd::BusToChange,
        work::Job, //
    },
    badblocks::{
        BadSectors,
        BadSectorsState,
        SPARES, //
    },
    ranges::{
        Origin,
        RangeSet,
        Spares,
        Tag, //
    },
};
use core::ops::Range;
use kernel::prelude::*;

impl BadSectors<'_> {
    /// Adds the bus's badranges in the namespace. [`ENOMEM`]; the next work item tries again.
    /// Sleeps.
    pub(crate) fn read_badrange(&self) -> Result {
        // Without memory, `repaired` still has what the list has.
        let _ = self.sync();

        self.add_badranges()
            .inspect_err(|_| self.state.lock().unread = true)
    }

    /// Reads the badrange list again if the last read failed or a report was missed, then writes
    /// pending changes. Returns whether it was read. [`ENOMEM`]. Sleeps.
    pub(crate) fn read_missed(&self) -> Result<bool> {
        if !self.state.lock().unread {
            return Ok(false);
        }
        self.read_badrange()?;
        self.sync()?;
        Ok(true)
    }

    fn add_badranges(&self) -> Result {
        let bus = self.region().lock_bus_to_change(self.namespace());

        // It is set with the bus lock held, or by a failure.
        self.state.lock().unread = false;

        let listed = self.listed(&bus)?;

        // An entry that began in front of the namespace may have been lost as well.
        self.set_pending_from(0);
        // Sectors that were repaired since the `sync` are still in the list. Skip them: that is no
        // new report. `repaired` keeps them while the bus lock is held.
        let mut at = 0;

        while let Some((mut rest, tag)) = listed.next(at) {
            at = rest.end;
            // libnvdimm adds them to the region's list, but here the driver has hidden them.
            if !self.region().has_commands() {
                bus.set_badblocks(&self.addresses(&rest));
            }
            // A report with the same start as an entry replaces its length (`badrange_add`), so
            // that the list may have lost what follows.
            self.set_pending_from(at);
            while !rest.is_empty() {
                let gap = self.state.lock().split_unknown(&mut rest);

                if !gap.is_empty() {
                    match self.add(&gap, tag, GFP_KERNEL) {
                        // A sector of the gap was reported, or reported and repaired, meanwhile.
                        Err(e) if e == EAGAIN => rest.start = gap.start,
                        added => added?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the sectors of the badrange list, whose entries may overlap and are in any order.
    /// [`ENOMEM`]. Sleeps.
    #[inline(never)]
    fn listed(&self, bus: &BusToChange<'_>) -> Result<RangeSet> {
        let tag = Tag {
            origin: Origin::Log,
            pending: false,
        };
        let mut listed = RangeSet::new();

        for addresses in &bus.badranges(self.namespace())? {
            let sectors = self.sectors(addresses);
            let mut spares = Spares::new(listed.gaps(&sectors), GFP_KERNEL)?;

            listed.insert(&sectors, tag, &mut spares)?;
        }
        Ok(listed)
    }

    /// Writes changes to the badrange list: removes repaired sectors, and adds new errors.
    ///
    /// [`ENOMEM`] if there is no memory for all of them; the next call does the rest. Sleeps.
    pub(crate) fn sync(&self) -> Result {
        let imported = self.import(GFP_KERNEL);

        // First: what a BTT has cleared must not be added, because nobody would remove it.
        let written = self.follow_btt().and_then(|()| self.write_badrange());

        // Without memory, the next call tries again.
        let _ = self.refill_spares();
        written.and(imported)
    }

    /// Walks the badrange list once for all changes. [`ENOMEM`].
    fn write_badrange(&self) -> Result {
        let bus = self.region().lock_bus_to_change(self.namespace());
        let mut guard = self.state.lock();
        let repaired = core::mem::replace(&mut guard.repaired, RangeSet::new());

        if repaired.is_empty() && !guard.bad.has_pending() {
            return Ok(());
        }
        drop(guard);
        let mut at = 0;

        while let Some((sectors, _)) = repaired.next(at) {
            // Also where the bus's own command has cleared them: the region's table may have had no
            // room to split an entry, or a concurrent change of an entry may have brought them
            // back.
            bus.clear_badblocks(&self.addresses(&sectors));
            // For those that are bad again.
            self.set_pending(&sectors);
            // Where the bus's own command (`badrange_forget`) or a full table of the region has no
            // room for the second half of an entry that it splits, it loses that half. Add it
            // again.
            self.set_pending_from(sectors.end);
            at = sectors.end;
        }
        let cut = bus.cut_badranges(|entry| {
            let sectors = self.sectors(&self.in_namespace(entry)?);
            let cut = repaired.first_pending(&sectors);

            // The platform has reported a sector again since the bus's command cleared it: perhaps
            // before the repair ended, so that it was bad still when the list was read.
            if cut.is_none() && repaired.first(&sectors).is_some() {
                bus.set_badblocks(&self.addresses(&sectors));
                self.state.lock().unread = true;
            }
            cut.map(|cut| self.addresses(&cut))
        });

        if cut.is_err() {
            let mut guard = self.state.lock();
            let state = &mut *guard;

            // For the next walk. Before the additions, so that one of a sector that is bad again is
            // pending still: the next walk removes it.
            state.repaired.append(repaired, &mut state.spares);
        }
        let added = self.add_pending(&bus);

        self.region().notify_badblocks();
        added.and(cut)
    }

    /// Adds those sectors of the pending ranges to the badrange list that it does not have.
    /// [`ENOMEM`].
    fn add_pending(&self, bus: &BusToChange<'_>) -> Result {
        if !self.state.lock().bad.has_pending() {
            return Ok(());
        }
        let mut rest = 0..u64::MAX;

        self.state.lock().repair_ended = false;

        let listed = self.listed(bus)?;

        while let Some(bad) = self.next_pending(&mut rest) {
            if self.adds_later() {
                if !bus.set_badblocks(&self.addresses(&bad)) {
                    break;
                }
                continue;
            }
            let mut missing = bad.clone();

            while !missing.is_empty() {
                let gap = listed.split_gap(&mut missing);

                if !gap.is_empty() {
                    bus.add_badrange(&self.addresses(&gap))?;
                    self.state.lock().note_added_to_bus(&gap);
                }
            }
            self.note_listed(bus, &bad);
        }
        Ok(())
    }

    /// Returns whether ranges stay pending until the BTT is detached. When it clears some, the bus
    /// forgets them before they are cleared in the table (`nsio_rw_bytes`). If they were added in
    /// between, nobody would remove them.
    fn adds_later(&self) -> bool {
        self.is_btt() && self.region().has_commands() && !self.is_detached.is_on()
    }

    /// Returns the first pending range that overlaps `rest`, and removes it and what is in front of it
    /// from `rest`. Takes the lock several times if there are many ranges.
    fn next_pending(&self, rest: &mut Range<u64>) -> Option<Range<u64>> {
        while !rest.is_empty() {
            let found = self.state.lock().bad.take_pending(rest);

            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Notes that `sectors`, a range that was pending, are in the badrange list, and adds them to
    /// the bad blocks of the region.
    fn note_listed(&self, bus: &BusToChange<'_>, sectors: &Range<u64>) {
        bus.set_badblocks(&self.addresses(sectors));

        let mut guard = self.state.lock();
        let state = &mut *guard;

        // The bus may have forgotten some since. The next walk looks them up.
        if state.repair_ended {
            return;
        }
        // A range that has grown since stays pending, and so does one that was repaired and is bad
        // again.
        let repaired = &state.repaired;

        state.bad.retag(
            sectors,
            &mut state.spares,
            &|range: &Range<u64>, tag: Tag| Tag {
                pending: tag.pending
                    && (range.start < sectors.start
                        || range.end > sectors.end
                        || repaired.first(range).is_some()),
                ..tag
            },
        );
    }

    /// Removes sectors that a BTT has cleared itself, which it does where its bus can, or has no
    /// commands: they are no longer in its table. The BTT uses these blocks again, and would take
    /// data in them for lost for ever if they were bad when it is bound next. [`ENOMEM`]. Sleeps.
    pub(crate) fn follow_btt(&self) -> Result {
        let tag = Tag {
            origin: Origin::Log,
            // A bus with the command has forgotten them itself.
            pending: !self.region().has_commands(),
        };
        let mut own = Spares::none();
        let mut at = 0;

        while self.is_btt() {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some(cleared) = self.next_cleared(state, at) else {
                break;
            };
            // One to split a range.
            let needed = state.repaired.gaps(&cleared).saturating_add(1);

            if own.len() < needed {
                drop(guard);
                own = Spares::new(needed.max(SPARES), GFP_KERNEL)?;
                continue;
            }
            state.bad.remove(&cleared, &mut own)?;
            state.repaired.insert(&cleared, tag, &mut own)?;
            at = cleared.end;
        }
        Ok(())
    }

    /// Returns the first bad sectors from `at` on that the table of the BTT does not have.
    fn next_cleared(&self, state: &BadSectorsState, mut at: u64) -> Option<Range<u64>> {
        // Behind, the table may lack others as well.
        let end = state.first_lacking();

        while let Some((bad, _)) = state.bad.next(at).filter(|(bad, _)| bad.start < end) {
            let mut rest = bad.start.max(at)..bad.end.min(end);

            at = bad.end;
            while !rest.is_empty() {
                let gap = self.table().split_gap(&mut rest);

                if !gap.is_empty() {
                    return Some(gap);
                }
            }
        }
        None
    }

    /// Adds the bus's badranges `before` a BTT was attached, from which its table was filled, and
    /// does not change the table: the BTT may have cleared some since ([`Self::follow_btt`]).
    /// [`ENOMEM`]. Sleeps.
    pub(crate) fn add_attached(&self, before: &[Range<u64>]) -> Result {
        // Without room for all of them, the table does not show which were cleared.
        if self.table_entries(before) >= BadblocksTable::CAPACITY {
            return Ok(());
        }
        let tag = Tag {
            origin: Origin::Log,
            pending: false,
        };

        for addresses in before {
            let sectors = self.sectors(addresses);
            let mut own = Spares::none();

            loop {
                let mut guard = self.state.lock();

                if guard.bad.insert(&sectors, tag, &mut own).is_ok() {
                    break;
                }
                // Reports that come meanwhile may make more.
                let gaps = guard.bad.gaps(&sectors);

                drop(guard);
                own = Spares::new(gaps, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Returns the number of entries that the table needs for these physical addresses, or more.
    fn table_entries(&self, ranges: &[Range<u64>]) -> usize {
        ranges.iter().fold(0, |entries, addresses| {
            let sectors = self.sectors(addresses);

            entries.saturating_add(BadblocksTable::entries(
                sectors.end.saturating_sub(sectors.start),
            ))
        })
    }

    /// Replaces the spare nodes that were used. [`ENOMEM`].
    fn refill_spares(&self) -> Result {
        let missing = SPARES.saturating_sub(self.state.lock().spares.len());
        let spares = Spares::new(missing, GFP_KERNEL)?;

        spares.give(&mut self.state.lock().spares);
        Ok(())
    }
}

impl Job for BadSectors<'_> {
    fn run(&self) {
        // Without memory, the next report tries again, and unbind at the latest.
        let _ = self.sync();

        if let Ok(true) = self.read_missed() {
            self.notify();
        }
        self.announce();
    }
}
