// SPDX-License-Identifier: GPL-2.0

//! A bus with a badrange list, which behaves like that of `drivers/nvdimm/badrange.c`.

use super::Region;
use crate::abstractions::badblocks::BadblocksTable;
use crate::prelude::{allocate, KVVec, Result, GFP_KERNEL};
use crate::sync::{Guard, Mutex};
use shuttle::rand::{thread_rng, Rng};
use std::collections::BTreeSet;
use std::ops::Range;

/// The bus of a region, and the bad blocks of the region.
pub(crate) struct State {
    lock: Mutex<()>,
    list: Mutex<Vec<Range<u64>>>,
    /// What the list has lost.
    lost: Mutex<Vec<Range<u64>>>,
    table: BadblocksTable,
    has_commands: bool,
    /// The physical address of the region.
    start: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            lock: Mutex::new(()),
            list: Mutex::new(Vec::new()),
            lost: Mutex::new(Vec::new()),
            table: BadblocksTable::default(),
            has_commands: false,
            start: 0,
        }
    }
}

fn without(entry: &Range<u64>, part: &Range<u64>) -> [Range<u64>; 2] {
    [
        entry.start..entry.end.min(part.start),
        entry.start.max(part.end)..entry.end,
    ]
}

/// What the driver does not do: the bus itself, and tests that look at it.
impl Region {
    pub(crate) fn at(start: u64, has_commands: bool) -> Self {
        Self {
            bus: State {
                has_commands,
                start,
                ..State::default()
            },
            ..Self::default()
        }
    }

    /// Adds a report of the platform to the list (`badrange_add`).
    pub(crate) fn report(&self, addresses: Range<u64>) {
        let mut list = self.bus.list.lock();

        match list.iter_mut().find(|entry| entry.start == addresses.start) {
            Some(entry) => {
                self.bus.lost.lock().push(addresses.end..entry.end);
                *entry = addresses;
            }
            None => list.push(addresses),
        }
    }

    /// Adds the list to the bad blocks of the region (`nvdimm_badblocks_populate`).
    pub(crate) fn populate(&self) {
        let _guard = self.bus.lock.lock();
        // It walks the list without its lock.
        let list = self.bus.list.lock().clone();

        for addresses in list {
            let sectors = self.sectors(&addresses);
            let _ = self
                .bus
                .table
                .set(sectors.start, sectors.end - sectors.start);
        }
    }

    /// Clears poison: the bus forgets the `addresses` (`nvdimm_clear_poison`).
    pub(crate) fn clear_poison(&self, addresses: &Range<u64>) {
        drop(self.bus.lock.lock());
        let mut list = self.bus.list.lock();
        let mut rest = Vec::new();

        for entry in list.drain(..) {
            let [front, back] = without(&entry, addresses);

            // To split an entry takes memory, for which this does not wait.
            let lacks_memory = !front.is_empty() && thread_rng().gen_range(0..4) == 0;

            if lacks_memory && !back.is_empty() {
                self.bus.lost.lock().push(back.clone());
            }
            rest.extend(
                [(front, false), (back, lacks_memory)]
                    .into_iter()
                    .filter(|(part, is_lost)| !part.is_empty() && !is_lost)
                    .map(|(part, _)| part),
            );
        }
        *list = rest;
        drop(list);
        let sectors = self.sectors(addresses);

        self.bus
            .table
            .clear(sectors.start, sectors.end - sectors.start);
    }

    /// Returns the list.
    pub(crate) fn list(&self) -> Vec<Range<u64>> {
        self.bus.list.lock().clone()
    }

    /// Returns what the list has lost at any time: an entry was overwritten by a shorter one, or there was no memory to split it.
    pub(crate) fn lost(&self) -> Vec<Range<u64>> {
        self.bus.lost.lock().clone()
    }

    /// Returns the bad blocks of the region.
    pub(crate) fn bad_sectors(&self) -> BTreeSet<u64> {
        self.bus.table.all().into_iter().flatten().collect()
    }

    /// Returns whether these may lack some for which there was no room.
    pub(crate) fn was_table_full(&self) -> bool {
        self.bus.table.was_full()
    }

    fn sectors(&self, addresses: &Range<u64>) -> Range<u64> {
        (addresses.start - self.bus.start) / 512..(addresses.end - self.bus.start).div_ceil(512)
    }
}

impl Region {
    pub(crate) fn has_commands(&self) -> bool {
        self.bus.has_commands
    }

    pub(crate) fn lock_bus(&self) -> Bus<'_> {
        Bus(self, self.bus.lock.lock())
    }

    /// The namespace is the only one of the region.
    pub(crate) fn lock_bus_to_change(&self, _namespace: &Range<u64>) -> BusToChange<'_> {
        self.lock_bus()
    }

    pub(crate) fn notify_badblocks(&self) {}
}

pub(crate) type BusToChange<'a> = Bus<'a>;

pub(crate) struct Bus<'a>(
    &'a Region,
    #[expect(dead_code, reason = "held")] Guard<'a, ()>,
);

impl Bus<'_> {
    pub(crate) fn badranges(&self, within: &Range<u64>) -> Result<KVVec<Range<u64>>> {
        let list = self.0.bus.list.lock();
        let mut entries = KVVec::with_capacity(list.len(), GFP_KERNEL)?;

        for entry in list.iter() {
            let part = entry.start.max(within.start)..entry.end.min(within.end);

            if !part.is_empty() {
                entries.push_within_capacity(part).expect("there is room");
            }
        }
        Ok(entries)
    }

    pub(crate) fn cut_badranges(
        &self,
        mut cut: impl FnMut(&Range<u64>) -> Option<Range<u64>>,
    ) -> Result {
        let mut list = self.0.bus.list.lock();
        let mut at = 0;

        while at < list.len() {
            let entry = list[at].clone();
            let Some(part) =
                cut(&entry).filter(|part| part.start < entry.end && part.end > entry.start)
            else {
                at += 1;
                continue;
            };
            let [front, back] = without(&entry, &part);

            match (front.is_empty(), back.is_empty()) {
                (true, true) => drop(list.remove(at)),
                (true, false) => list[at] = back,
                (false, true) => list[at] = front,
                (false, false) => {
                    allocate()?;
                    list[at] = front;
                    list.push(back);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn add_badrange(&self, addresses: &Range<u64>) -> Result {
        allocate()?;
        self.0.bus.list.lock().push(addresses.clone());
        Ok(())
    }

    pub(crate) fn set_badblocks(&self, addresses: &Range<u64>) -> bool {
        let sectors = self.0.sectors(addresses);
        let end = sectors.end;

        self.0
            .bus
            .table
            .set_while_room(sectors, BadblocksTable::CAPACITY)
            .0
            >= end
    }

    pub(crate) fn clear_badblocks(&self, addresses: &Range<u64>) {
        let Range { mut start, end } = self.0.sectors(addresses);
        let table = &self.0.bus.table;

        while let Some((first, count)) = table.entry_in(start, end - start.min(end)) {
            let behind = first + count;

            table.clear(first, count);
            let _ = table.set(first, start.saturating_sub(first));
            let _ = table.set(end, behind.saturating_sub(end));
            start = behind.max(start + 1);
        }
    }
}
