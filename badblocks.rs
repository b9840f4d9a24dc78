// SPDX-License-Identifier: GPL-2.0

//! The bad blocks of a namespace: one exact set, in every mode.
//!
//! Errors come from the bus's badrange list, from machine checks and memory failures, and from
//! users. They are added to the [`BadSectors`], which is all that I/O looks up. A write that covers
//! a bad block removes it (`repair.rs`). Everything else that shows errors is a view of the set:
//!
//! - the disk's `badblocks`, a table of the block layer with room for 512 ranges: it shows as many
//!   as fit. Users can add to it without the driver. Such sectors are bad at once, and the next
//!   reader of the set adds them to it ([`BadSectors::import`]);
//! - `errors/list` (`control.rs`), which shows the set;
//! - the bus's badrange list, which keeps errors across bindings (`badrange.rs`).

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        badblocks::BadblocksTable,
        block::{
            Disk,
            Operations, //
        },
        dax::FailureLink,
        errno::eopnotsupp,
        flag::Flag,
        memory_errors,
        memremap::{
            is_simulated,
            MemoryFailure, //
        },
        nd::{
            self,
            Region, //
        },
        reclaim,
        scope::{
            Scope,
            Scoped, //
        },
        sysfs,
        work::{
            Queue,
            Work, //
        }, //
    },
    ranges::{
        Origin,
        RangeSet,
        Spares,
        Tag, //
    },
    units::{
        intersection,
        sectors_of,
        Span,
        SECTOR_SHIFT, //
    },
    PAGE_SHIFT, //
};
use core::{
    ops::Range,
    sync::atomic::{
        fence,
        Ordering, //
    }, //
};
use kernel::{
    alloc::Flags,
    device::{
        self,
        Bound,
        Core, //
    },
    new_spinlock,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex,
        MutexGuard,
        SetOnce,
        SpinLock, //
    }, //
};

/// The table of bad blocks that users or `nd_btt` see.
pub(crate) enum Table<'bound> {
    /// The `badblocks` of the driver's disk, which users can add to.
    Disk(Pin<KBox<BadblocksTable>>),
    /// The table of the namespace, which a BTT consults and clears.
    Btt(&'bound BadblocksTable),
}

impl Table<'_> {
    #[inline]
    fn get(&self) -> &BadblocksTable {
        match self {
            Self::Disk(table) => table,
            Self::Btt(table) => table,
        }
    }
}

/// The data that the lock of a [`BadSectors`] protects. Sectors count from the start of the
/// namespace.
pub(crate) struct BadSectorsState {
    /// The bad sectors. `pending`: the bus's badrange list lacks them.
    pub(crate) bad: RangeSet,
    /// Repaired sectors that the badrange list still has. `pending`: the driver has to remove them.
    pub(crate) repaired: RangeSet,
    /// Pages whose failure was reported. They may be unmapped from the direct map, now or soon: the
    /// kernel unmaps a page after it has reported it.
    failed: RangeSet,
    /// Nodes for reports in contexts that can't wait for memory.
    pub(crate) spares: Spares,
    /// The sectors under repair.
    repair: Range<u64>,
    /// Nodes for the repair: a write under memory pressure can't wait for memory either.
    repair_spares: Spares,
    /// An error in `repair` was reported since the repair began.
    failed_again: bool,
    /// Sectors in `repair` were added to the badrange list since the repair began: perhaps after
    /// the bus had cleared and forgotten them.
    added_to_bus: bool,
    /// A repair has ended since the badrange list was read. If it has failed, the bus may have
    /// forgotten its sectors before.
    pub(crate) repair_ended: bool,
    /// The version of the table whose entries are all in the set.
    seen: Option<u32>,
    /// The first sector from which on the table may lack some; `None` if it lacks none.
    lacks: Option<u64>,
    /// The warning that the table is full was logged.
    warned: bool,
    /// Sectors were added since the last uevent.
    unannounced: bool,
    /// The badrange list may have errors that the set lacks.
    pub(crate) unread: bool,
}

impl BadSectorsState {
    fn is_under_repair(&self, sectors: &Range<u64>) -> bool {
        intersection(sectors, &self.repair).is_some()
    }

    /// Notes that the table may lack bad sectors from `at` on.
    fn note_lacking(&mut self, at: u64) {
        self.lacks = Some(self.lacks.map_or(at, |lacks| lacks.min(at)));
    }

    /// Returns the first sector from which on the table may lack some.
    pub(crate) fn first_lacking(&self) -> u64 {
        self.lacks.unwrap_or(u64::MAX)
    }

    /// Advances the start of `sectors` behind the next range that is bad or was repaired, and
    /// returns the gap in front of that range.
    pub(crate) fn split_unknown(&self, sectors: &mut Range<u64>) -> Range<u64> {
        let mut rest = self.repaired.split_gap(sectors);
        let gap = self.bad.split_gap(&mut rest);

        if !rest.is_empty() {
            sectors.start = rest.start;
        }
        gap
    }

    /// Notes that `sectors` were added to the badrange list. The driver has to remove those that
    /// were repaired since it has looked them up, or are under repair.
    pub(crate) fn note_added_to_bus(&mut self, sectors: &Range<u64>) {
        self.added_to_bus |= self.is_under_repair(sectors);
        self.repaired.set_pending(sectors, &mut self.spares);
    }
}

/// The number of nodes that are kept for reports that can't wait for memory.
pub(crate) const SPARES: usize = 64;

/// Spares to make a part of a range a range of its own: for the part, and for what is behind it.
const OWN_RANGE_SPARES: usize = 2;

/// The tag of sectors that users have written to the table.
const USER: Tag = Tag {
    origin: Origin::User,
    pending: true,
};

/// The length of a page in sectors.
const PAGE_SECTORS: u64 = 1 << (PAGE_SHIFT as u32 - SECTOR_SHIFT);

/// The exact set of bad sectors of a namespace, with the table that shows them.
#[pin_data]
pub(crate) struct BadSectors<'bound> {
    /// A sector of the data area is bad, or a page of it has failed. Set under the lock; the fast
    /// path reads it without.
    any: Flag,
    table: Table<'bound>,
    /// The BTT whose table this is, if it is one, is detached.
    pub(crate) is_detached: Flag,
    #[pin]
    pub(crate) state: SpinLock<BadSectorsState>,
    /// Locked during a repair.
    #[pin]
    repairs: Mutex<()>,
    /// The disk's `badblocks` in sysfs.
    file: SetOnce<sysfs::File>,
    dev: &'bound nd::Device<Bound>,
    /// The physical addresses of the namespace.
    namespace: Range<u64>,
    /// The sectors of the data area.
    data: Range<u64>,
}

impl<'bound> BadSectors<'bound> {
    fn new(
        dev: &'bound nd::Device<Bound>,
        namespace: Range<u64>,
        data: &Range<u64>,
        table: Table<'bound>,
    ) -> impl PinInit<Self, Error> + 'bound {
        let data = sectors_of(data, namespace.start);

        try_pin_init!(Self {
            any: Flag::new(false),
            is_detached: Flag::new(false),
            data,
            state <- new_spinlock!(BadSectorsState {
                spares: Spares::new(SPARES, GFP_KERNEL)?,
                repair_spares: Spares::new(REPAIR_SPARES, GFP_KERNEL)?,
                bad: RangeSet::new(),
                repaired: RangeSet::new(),
                failed: RangeSet::new(),
                repair: 0..0,
                failed_again: false,
                added_to_bus: false,
                repair_ended: false,
                seen: Some(table.get().version()),
                lacks: None,
                warned: false,
                unannounced: false,
                unread: false,
            }),
            repairs <- new_mutex!(()),
            table,
            file: SetOnce::new(),
            dev,
            namespace,
        }? Error)
    }

    pub(crate) fn region(&self) -> &'bound Region {
        self.dev.region()
    }

    pub(crate) fn namespace(&self) -> &Range<u64> {
        &self.namespace
    }

    /// Returns the sectors that the physical `addresses`, which are in the namespace, touch.
    pub(crate) fn sectors(&self, addresses: &Range<u64>) -> Range<u64> {
        sectors_of(addresses, self.namespace.start)
    }

    /// Returns the physical addresses of `sectors`.
    pub(crate) fn addresses(&self, sectors: &Range<u64>) -> Range<u64> {
        let address = |sector: u64| {
            self.namespace
                .start
                .saturating_add(sector << SECTOR_SHIFT)
                .min(self.namespace.end)
        };

        address(sectors.start)..address(sectors.end)
    }

    /// Returns the part of the physical `addresses` that is in the namespace.
    pub(crate) fn in_namespace(&self, addresses: &Range<u64>) -> Option<Range<u64>> {
        intersection(addresses, &self.namespace)
    }

    /// Converts sectors of the data area to those of the namespace.
    fn to_namespace(&self, sectors: Range<u64>) -> Range<u64> {
        let of_data = |sector: u64| self.data.start.saturating_add(sector);

        of_data(sectors.start)..of_data(sectors.end)
    }

    #[inline]
    pub(crate) fn table(&self) -> &BadblocksTable {
        self.table.get()
    }

    /// Returns whether a BTT consults the table.
    pub(crate) fn is_btt(&self) -> bool {
        matches!(self.table, Table::Btt(_))
    }

    /// Adds all of `sectors`, or none if there is no memory ([`ENOMEM`]).
    ///
    /// Sectors that are in the set already keep their origin, unless the new one ranks higher.
    /// Sectors that were just repaired are bad again. An entry of the badrange list is no news of
    /// either, and may be older: [`EAGAIN`].
    #[inline(never)]
    pub(crate) fn add(&self, sectors: &Range<u64>, tag: Tag, flags: Flags) -> Result {
        let mut gaps = self.state.lock().bad.gaps(sectors);
        let splits = match self.is_btt() {
            true => OWN_RANGE_SPARES,
            false => 0,
        };

        loop {
            // Declared before `guard`: spares that are left are freed after the lock is released,
            // because that may sleep.
            let mut own = Spares::new(gaps.saturating_add(splits), flags);
            let mut guard = self.state.lock();
            let state = &mut *guard;

            if tag.origin == Origin::Log && state.split_unknown(&mut sectors.clone()) != *sectors {
                return Err(EAGAIN);
            }
            gaps = state.bad.gaps(sectors);
            match &mut own {
                Ok(own) if own.len() >= gaps => self.add_with(state, sectors, tag, own)?,
                // Other threads have made more gaps since.
                Ok(_) => continue,
                Err(e) if flags == GFP_KERNEL => return Err(*e),
                // Nobody repeats this report: use the spares that are kept for it.
                Err(_) => {
                    let mut kept = core::mem::replace(&mut state.spares, Spares::none());
                    let result = self.add_with(state, sectors, tag, &mut kept);

                    state.spares = kept;
                    result?;
                }
            }
            state.unannounced |= gaps > 0;
            return Ok(());
        }
    }

    fn add_with(
        &self,
        state: &mut BadSectorsState,
        sectors: &Range<u64>,
        mut tag: Tag,
        spares: &mut Spares,
    ) -> Result {
        // Where its table lacks some, a BTT may have cleared other sectors of a range unnoticed.
        // They must not become pending with these.
        if self.is_btt() && state.lacks.is_some() && tag.pending && spares.len() >= OWN_RANGE_SPARES
        {
            if let Some((bad, old)) = state.bad.next(sectors.start) {
                if bad.start < sectors.end && old.origin.rank() > tag.origin.rank() {
                    tag.origin = old.origin;
                }
            }
            state.bad.remove(sectors, spares)?;
        }
        state.bad.insert(sectors, tag, spares)?;
        state
            .bad
            .retag(sectors, spares, &|range: &Range<u64>, old: Tag| Tag {
                // The report of a page does not identify the origin of a larger range around it.
                origin: if tag.origin.rank() > old.origin.rank()
                    && range.end.saturating_sub(range.start) <= PAGE_SECTORS
                {
                    tag.origin
                } else {
                    old.origin
                },
                pending: old.pending || tag.pending,
            });
        // A report from the badrange list may be older than the repair, and does not make it fail.
        if tag.origin != Origin::Log && state.is_under_repair(sectors) {
            state.failed_again = true;
        }
        self.show_in_table(state, sectors);
        self.update_any(state);
        Ok(())
    }

    /// Marks the bad sectors in `sectors` as pending, because the badrange list may have lost them.
    /// Returns whether there are any.
    #[inline(never)]
    pub(crate) fn set_pending(&self, sectors: &Range<u64>) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;

        state.bad.set_pending(sectors, &mut state.spares);
        state.bad.first(sectors).is_some()
    }

    /// Marks the bad sectors from `at` on, up to the first good one, as pending: one entry of the
    /// list may span ranges of several origins. Not those that a BTT may have cleared unnoticed.
    #[inline(never)]
    pub(crate) fn set_pending_from(&self, mut at: u64) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let end = if self.is_btt() {
            state.first_lacking()
        } else {
            u64::MAX
        };

        while let Some((bad, _)) = state
            .bad
            .next(at)
            .filter(|(bad, _)| bad.start <= at && bad.end <= end)
        {
            state.bad.set_pending(&bad, &mut state.spares);
            at = bad.end;
        }
    }

    /// Notes that a failure of pages was reported.
    fn add_failed(&self, sectors: &Range<u64>) {
        let tag = Tag {
            origin: Origin::MemoryFailure,
            pending: false,
        };
        let mut own = Spares::new(1, GFP_ATOMIC);
        let mut guard = self.state.lock();
        let state = &mut *guard;

        let spares = own.as_mut().unwrap_or(&mut state.spares);
        // Without memory, nothing is noted: copies survive a page that is unmapped.
        let _ = state.failed.insert(sectors, tag, spares);
        self.update_any(state);
    }

    fn update_any(&self, state: &BadSectorsState) {
        self.any
            .set(state.bad.first(&self.data).is_some() || !state.failed.is_empty());
    }

    /// Changes the table, and notes whether others have changed it. `change` returns the number of
    /// its writes.
    fn change_table(
        &self,
        state: &mut BadSectorsState,
        change: impl FnOnce(&BadblocksTable) -> u32,
    ) {
        let table = self.table();
        let before = table.version();
        let writes = change(table);
        let after = table.version();

        // Each write adds two to the sequence count of the table's lock.
        state.seen = (state.seen == Some(before)
            && after == before.wrapping_add(writes.wrapping_mul(2)))
        .then_some(after);
    }

    /// Adds `sectors` to the table, as many as fit.
    fn show_in_table(&self, state: &mut BadSectorsState, sectors: &Range<u64>) {
        let Some(Range { start, end }) = intersection(sectors, &self.data) else {
            return;
        };
        let room = self.room();
        let mut at = start;

        self.change_table(state, |table| {
            let offset = self.data.start;
            let sectors = start.saturating_sub(offset)..end.saturating_sub(offset);
            let (reached, writes) = table.set_while_room(sectors, room);

            at = offset.saturating_add(reached);
            writes
        });
        if at >= end {
            return;
        }
        state.note_lacking(at);
        if !state.warned {
            state.warned = true;
            dev_warn!(
                self.dev.as_ref(),
                "'badblocks' is full and does not show all bad blocks; 'errors/list' does\n"
            );
        }
    }

    /// Removes `sectors` from the table.
    fn hide_in_table(&self, state: &mut BadSectorsState, sectors: &Range<u64>) {
        let Some(Range { start, mut end }) = intersection(sectors, &self.data) else {
            return;
        };

        if let Some(half) = self.second_half(state, start..end) {
            state.note_lacking(half.start);
            end = half.end;
        }
        self.change_table(state, |table| {
            table.clear(
                start.saturating_sub(self.data.start),
                end.saturating_sub(start),
            )
        });
        // It does not lack what is not bad any more.
        state.lacks = state
            .lacks
            .and_then(|at| state.bad.next(at).map(|(bad, _)| bad.start.max(at)));
        self.fill_table(state);
    }

    /// Returns what the table has to drop together with `sectors`, because it has no room to split
    /// their entry: the half behind them, which the set has all of.
    fn second_half(&self, state: &mut BadSectorsState, sectors: Range<u64>) -> Option<Range<u64>> {
        // What a BTT has cleared is known from its table alone: that keeps all that it has.
        if self.is_btt() || self.table().count() < self.room() {
            return None;
        }
        let entry = self
            .table_entry(sectors.start)
            .filter(|entry| entry.start < sectors.start && entry.end > sectors.end)?;
        let listed = sectors.end..entry.end.min(self.data.end);
        let gaps = state.bad.gaps(&listed);

        // Users may have added to the entry since `import`.
        state.bad.insert(&listed, USER, &mut state.spares).ok()?;
        state.unannounced |= gaps > 0;
        Some(sectors.end..entry.end)
    }

    /// Adds bad sectors that the table lacks, as many as fit. Not to that of a BTT, which may have
    /// cleared some of them: it would take their data for lost.
    fn fill_table(&self, state: &mut BadSectorsState) {
        while let Some(at) = state.lacks {
            if self.is_btt() || self.table().count() >= self.room() {
                return;
            }
            state.lacks = None;
            let Some((bad, _)) = state.bad.next(at) else {
                return;
            };

            self.show_in_table(state, &(bad.start.max(at)..bad.end));
            if state.lacks.is_some() {
                // The table is full again.
                return;
            }
            if bad.end < self.data.end {
                state.lacks = Some(bad.end);
            }
        }
    }

    /// The number of entries that the table may have. Users can't read that of a BTT.
    fn room(&self) -> usize {
        match self.table {
            Table::Disk(_) => BadblocksTable::room(self.data.end.saturating_sub(self.data.start)),
            Table::Btt(_) => BadblocksTable::CAPACITY,
        }
    }

    /// Adds sectors that users have written to the disk's table to the set.
    ///
    /// [`ENOMEM`]. Until it has all of them, I/O looks up the table as well.
    #[inline(never)]
    pub(crate) fn import(&self, flags: Flags) -> Result {
        let mut own = Spares::none();
        let mut at = self.data.start;
        let mut begun = None;
        let mut passes = 0_u32;

        loop {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let version = self.table().version();

            // Only the BTT changes its own table, and it only clears entries.
            if self.is_btt() || state.seen == Some(version) {
                return Ok(());
            }
            if begun != Some(version) {
                // The table has changed, perhaps in front of `at`: start again. If it changes all
                // the time, the rest is for the next call.
                if passes == IMPORT_PASSES {
                    return Ok(());
                }
                passes = passes.wrapping_add(1);
                begun = Some(version);
                at = self.data.start;
            }
            // The lookup warns if the table changes under it: the lock excludes the driver's own
            // changes.
            let Some(entry) = self.table_entry(at) else {
                if self.table().version() == version {
                    state.seen = Some(version);
                    return Ok(());
                }
                continue;
            };
            let listed = entry.start..entry.end.min(self.data.end);
            let gaps = state.bad.gaps(&listed);

            if own.len() < gaps {
                drop(guard);
                own = Spares::new(gaps, flags)?;
                continue;
            }
            state.bad.insert(&listed, USER, &mut own)?;
            state.unannounced |= gaps > 0;
            self.update_any(state);
            at = listed.end;
        }
    }

    /// Returns the first entry of the table that ends behind sector `at`, which is in the data
    /// area. One that users have written may end behind that.
    fn table_entry(&self, at: u64) -> Option<Range<u64>> {
        let (first, len) = self.table().entry_in(
            at.saturating_sub(self.data.start),
            self.data.end.saturating_sub(at),
        )?;
        let start = self.data.start.saturating_add(first);

        Some(start..start.saturating_add(len))
    }

    /// Returns the first bad sector of `sectors`, which are in the data area.
    fn first_of(&self, sectors: &Range<u64>) -> Option<u64> {
        self.first_in_state(&self.state.lock(), sectors)
    }

    #[inline]
    fn first_in_state(&self, state: &BadSectorsState, sectors: &Range<u64>) -> Option<u64> {
        let listed = state.bad.first(sectors);

        if state.seen == Some(self.table().version()) {
            return listed;
        }
        Iterator::chain(listed.into_iter(), self.first_in_table(sectors)).min()
    }

    /// Returns the first of `sectors`, which are in the data area, that the table has.
    #[cold]
    fn first_in_table(&self, sectors: &Range<u64>) -> Option<u64> {
        let start = sectors.start.saturating_sub(self.data.start);
        let len = sectors.end.saturating_sub(sectors.start);
        let first = self.table().first_bad(start, len)?;

        Some(self.data.start.saturating_add(first))
    }

    /// Wakes pollers of the disk's `badblocks`.
    pub(crate) fn notify(&self) {
        if let Some(file) = self.file.as_ref() {
            file.notify();
        }
    }

    /// Sends a uevent if sectors were added since the last one. Sleeps.
    ///
    /// Not for the disk: udev would read its superblock again, and if that is bad, remove the links
    /// to the file system, on which systemd may unmount it.
    pub(crate) fn announce(&self) {
        if core::mem::take(&mut self.state.lock().unannounced) {
            self.dev.send_change(c"BADBLOCKS=added");
        }
    }

    /// Returns the first run of bad sectors with the same origin that ends behind sector `at`.
    fn next_range(&self, at: u64) -> Option<(Range<u64>, Origin)> {
        let state = self.state.lock();
        let (mut bad, tag) = state.bad.next(at)?;

        while let Some((next, _)) = state
            .bad
            .next(bad.end)
            .filter(|(next, other)| next.start == bad.end && other.origin == tag.origin)
        {
            bad.end = next.end;
        }
        Some((bad, tag.origin))
    }
}

/// The bad blocks of a bound namespace. Dropping it writes them to the bus's badrange list.
pub(crate) struct Badblocks<'bound> {
    work: Scoped<'bound, Work<BadSectors<'bound>>>,
    set: Arc<BadSectors<'bound>>,
}

impl<'bound> Badblocks<'bound> {
    /// Creates the bad blocks of a namespace, which has none before [`Self::fill`]. `namespace` and
    /// `data`, its data area, are physical addresses; `table` shows the bad blocks. [`ENOMEM`].
    pub(crate) fn new(
        dev: &'bound nd::Device<Bound>,
        namespace: Range<u64>,
        data: Range<u64>,
        table: Table<'bound>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Arc<Self>> {
        let set = Arc::pin_init(BadSectors::new(dev, namespace, &data, table), GFP_KERNEL)?;
        let work = Work::new(set.clone(), Queue::System, scope)?;

        Arc::new(Self { work, set }, GFP_KERNEL).map_err(|_| ENOMEM)
    }

    /// Reads the bus's badrange list. `before` is what the list had before a BTT was attached.
    /// [`ENOMEM`]; what a BTT has cleared may be bad again then, until it is written.
    pub(crate) fn fill(&self, before: &[Range<u64>]) -> Result {
        self.set.add_attached(before)?;
        self.set.read_badrange()?;
        // The driver core sends a uevent at the end of a probe.
        self.set.state.lock().unannounced = false;
        Ok(())
    }

    /// The table of bad blocks, for the block layer.
    pub(crate) fn table(&self) -> &BadblocksTable {
        self.set.table()
    }

    /// Makes changes wake pollers of the disk's `badblocks` file from now on.
    pub(crate) fn publish<T: Operations>(
        &self,
        dev: &device::Device<Core<'_>>,
        disk: &Disk<T>,
    ) -> Result {
        self.set
            .file
            .populate(disk.sysfs_file(dev, c"badblocks").ok_or(ENOENT)?);
        // For who has polled it since the disk was registered.
        self.set.notify();
        Ok(())
    }

    /// The physical addresses of the namespace.
    pub(crate) fn namespace(&self) -> &Range<u64> {
        &self.set.namespace
    }

    /// Returns the part of the physical `addresses` that is in the data area.
    pub(crate) fn in_data(&self, addresses: &Range<u64>) -> Option<Span> {
        let area = self.set.addresses(&self.set.data);
        let data = intersection(addresses, &area)?;
        let offset = usize::try_from(data.start.saturating_sub(area.start)).ok()?;
        let len = usize::try_from(data.end.saturating_sub(data.start)).ok()?;

        Span::of_bytes(offset, len, usize::MAX)
    }

    /// Returns the parts of the physical `addresses` in front of the data area and behind it.
    pub(crate) fn outside_of_data(
        &self,
        addresses: &Range<u64>,
    ) -> impl Iterator<Item = Range<u64>> {
        let area = self.set.addresses(&self.set.data);
        let parts = [
            intersection(addresses, &(self.set.namespace.start..area.start)),
            intersection(addresses, &(area.end..self.set.namespace.end)),
        ];

        parts.into_iter().flatten()
    }

    /// Returns whether the data area has no bad sector and no failed page: I/O needs no lookup.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        let is_clean = !self.set.any.is_on() && self.set.table().is_empty();

        // A repair writes the data before it removes the sector: who misses the sector has to see
        // the data. It pairs with the write barrier of the sequence lock in `badblocks_clear`.
        fence(Ordering::Acquire);
        is_clean
    }

    /// Returns the first bad sector that `span` touches, counted from the start of the data area.
    #[inline]
    pub(crate) fn first_in(&self, span: &Span) -> Option<u64> {
        let first = self.set.first_of(&self.set.to_namespace(span.sectors()))?;

        Some(first.saturating_sub(self.set.data.start))
    }

    /// Returns whether a page that `span` touches has a bad sector.
    pub(crate) fn any_in_pages_of(&self, span: &Span) -> bool {
        matches!(self.condition(span), Condition::Bad)
    }

    /// Returns the condition of the pages that `span` touches.
    pub(crate) fn condition(&self, span: &Span) -> Condition {
        let pages = self.set.to_namespace(span.sectors_of_pages());
        let state = self.set.state.lock();

        if self.set.first_in_state(&state, &pages).is_some() {
            Condition::Bad
        } else if !state.failed.is_empty() && state.failed.first(&pages).is_some() {
            Condition::Failed
        } else {
            Condition::Clean
        }
    }

    /// Adds the part of the physical `addresses` that is in the namespace. A work item adds it to
    /// the badrange list. [`ENOMEM`], and nothing is changed. Sleeps.
    pub(crate) fn add(&self, addresses: &Range<u64>, origin: Origin) -> Result {
        let Some(addresses) = self.set.in_namespace(addresses) else {
            return Ok(());
        };
        let tag = Tag {
            origin,
            pending: true,
        };

        // A repair that is under way would fail, and with it a write that has stored its data. I/O
        // waits for that lock.
        let _repairs = self.set.repairs.lock();

        reclaim::without_io(|| self.set.add(&self.set.sectors(&addresses), tag, GFP_KERNEL))?;
        self.set.notify();
        self.work.schedule();
        Ok(())
    }

    /// Adds the part of the physical `addresses` that is in the namespace, for callers that can't
    /// sleep or handle a failure. A work item adds it to the badrange list.
    fn report(&self, addresses: &Range<u64>, origin: Origin) {
        let Some(addresses) = self.set.in_namespace(addresses) else {
            return;
        };
        let sectors = self.set.sectors(&addresses);
        let tag = Tag {
            origin,
            pending: true,
        };

        if self.set.add(&sectors, tag, GFP_ATOMIC).is_err() {
            dev_err!(
                self.set.dev.as_ref(),
                "no memory to list the error at {:#x}; free memory and run pmemctl scrub\n",
                addresses.start
            );
        }
        if intersection(&sectors, &self.set.data).is_none() {
            dev_warn!(
                self.set.dev.as_ref(),
                "error at {:#x}, in the info block or the memmap of the namespace\n",
                addresses.start
            );
        }
        self.set.notify();
        self.work.schedule();
    }

    /// Adds the pages that `span` touches, which were found unmapped from the direct map.
    #[cold]
    pub(crate) fn add_unmapped(&self, span: &Span) {
        let pages = self
            .set
            .addresses(&self.set.to_namespace(span.sectors_of_pages()));

        self.report_pages(&pages, Origin::MemoryFailure);
    }

    /// Adds pages that have failed, and that may be unmapped from the direct map.
    fn report_pages(&self, addresses: &Range<u64>, origin: Origin) {
        if let Some(addresses) = self.set.in_namespace(addresses) {
            self.set.add_failed(&self.set.sectors(&addresses));
            self.report(&addresses, origin);
        }
    }

    /// Removes the physical `addresses`, which are whole sectors of the namespace. A work item
    /// removes them from the badrange list. [`EIO`] if some of them are reported meanwhile,
    /// [`ENOMEM`]. Sleeps.
    pub(crate) fn remove(&self, addresses: &Range<u64>) -> Result {
        let sectors = self.set.sectors(addresses);
        let gaps = self.set.state.lock().repaired.gaps(&sectors);

        // `finish` has no spares for more gaps between repaired ranges than a page has. Empty the
        // set.
        if gaps >= REPAIR_SPARES {
            self.set.sync()?;
        }
        self.begin_repair_of(sectors)?.finish(true)
    }

    /// Begins the repair of `span`, after another one has ended. [`ENOMEM`] if there is no memory
    /// to keep account of it.
    pub(crate) fn begin_repair(&self, span: &Span) -> Result<Repair<'_, 'bound>> {
        self.begin_repair_of(self.set.to_namespace(span.sectors()))
    }

    fn begin_repair_of(&self, sectors: Range<u64>) -> Result<Repair<'_, 'bound>> {
        let guard = self.set.repairs.lock();

        self.set.import(GFP_ATOMIC)?;

        let mut state = self.set.state.lock();

        let filled = state.repair_spares.fill(GFP_ATOMIC);

        // One to split a range, and one for each gap: at least one, because `repaired` may be
        // emptied meanwhile. A larger stock is for the next repair.
        if state.repair_spares.len() <= state.repaired.gaps(&sectors).max(1) {
            filled?;
        }
        state.repair = sectors.clone();
        state.failed_again = false;
        state.added_to_bus = false;
        drop(state);
        Ok(Repair {
            badblocks: self,
            sectors,
            _guard: guard,
        })
    }

    /// Applies changes that others have made to the table: users of the disk, or a BTT. A work item
    /// applies them to the badrange list.
    pub(crate) fn refresh(&self) {
        // Without memory, sectors that users wrote to the table are missing this time.
        let _ = self.set.import(GFP_KERNEL);
        // Or those that a BTT has cleared are there.
        let _ = self.set.follow_btt();
        let state = self.set.state.lock();
        let changed = state.unannounced || state.unread || !state.repaired.is_empty();

        drop(state);
        if changed {
            self.work.schedule();
        }
    }

    /// Returns the first run of bad sectors with the same origin that ends behind sector `at` of
    /// the namespace.
    pub(crate) fn next_range(&self, at: u64) -> Option<(Range<u64>, Origin)> {
        self.set.next_range(at)
    }

    /// Returns the first bad one of the physical `addresses`, which are in the namespace.
    pub(crate) fn first_at(&self, addresses: &Range<u64>) -> Option<u64> {
        let sectors = self.set.sectors(addresses);
        let (bad, _) = self.set.next_range(sectors.start)?;

        (bad.start < sectors.end).then(|| self.set.addresses(&bad).start.max(addresses.start))
    }

    /// Returns the physical addresses of `sectors` of the namespace.
    pub(crate) fn addresses(&self, sectors: &Range<u64>) -> Range<u64> {
        self.set.addresses(sectors)
    }

    /// Adds the bus's badranges in the namespace.
    pub(crate) fn read_badrange(&self) {
        if self.set.read_badrange().is_err() {
            dev_err!(
                self.set.dev.as_ref(),
                "no memory to read the errors that the bus knows of; bind the device again\n"
            );
        }
        self.set.notify();
        self.work.schedule();
    }
}

impl Drop for Badblocks<'_> {
    fn drop(&mut self) {
        self.work.cancel();
        self.set.is_detached.set(true);
        // Also reads the list: a report may have shortened an entry (`badrange_add`), while its
        // notification waits for the device lock, which is held here (`nfit_handle_mce`).
        let write = || self.set.read_badrange().and_then(|()| self.set.sync());

        // Nobody tries again later.
        if write().is_err() && write().is_err() {
            dev_err!(
                self.set.dev.as_ref(),
                "no memory to keep all errors: some are unknown, or repaired ones bad, when a driver is bound again; scrub the disk then\n"
            );
        }
        // Without commands, neither libnvdimm nor a write to the memory removes them.
        if !self.set.region().has_commands() {
            let namespace = self.set.namespace();

            self.set
                .region()
                .lock_bus_to_change(namespace)
                .clear_badblocks(namespace);
        }
    }
}

/// The condition of pages.
pub(crate) enum Condition {
    /// No sector is bad.
    Clean,
    /// A sector is bad.
    Bad,
    /// No sector is bad, but a page has failed, and may be unmapped from the direct map.
    Failed,
}

/// The number of times that [`BadSectors::import`] reads a table that changes meanwhile.
const IMPORT_PASSES: u32 = 8;

/// The number of nodes that a repair may need: one to split a bad range, and one for each gap
/// between the repaired ranges of a page.
// CAST: 8, or 128 with the largest pages.
const REPAIR_SPARES: usize = PAGE_SECTORS as usize;

/// A repair in progress, abandoned when dropped.
pub(crate) struct Repair<'a, 'bound> {
    badblocks: &'a Badblocks<'bound>,
    sectors: Range<u64>,
    _guard: MutexGuard<'a, ()>,
}

impl Repair<'_, '_> {
    /// Removes the sectors, which are repaired, from the bad blocks. `forget` if the driver has to
    /// remove them from the badrange list: the bus does it itself when it clears poison.
    ///
    /// [`EIO`] if one of them has failed again since the repair began; then all stay bad.
    pub(crate) fn finish(self, forget: bool) -> Result {
        let set = &self.badblocks.set;
        let mut guard = set.state.lock();
        let state = &mut *guard;

        if state.failed_again {
            return Err(EIO);
        }
        let tag = Tag {
            origin: Origin::Log,
            pending: forget || state.added_to_bus,
        };

        state
            .repaired
            .insert(&self.sectors, tag, &mut state.repair_spares)?;
        if tag.pending {
            // Also those that a repair before has not had to remove.
            state
                .repaired
                .set_pending(&self.sectors, &mut state.repair_spares);
        }
        let removed = state.bad.remove(&self.sectors, &mut state.repair_spares)?;

        // The table of a BTT may have had no room to split an entry the last time, and that of a
        // disk may have what `import` has not reached.
        if removed || set.is_btt() || state.seen != Some(set.table().version()) {
            set.hide_in_table(state, &self.sectors);
            set.update_any(state);
        }
        Ok(())
    }
}

impl Drop for Repair<'_, '_> {
    fn drop(&mut self) {
        let set = &self.badblocks.set;

        {
            let mut state = set.state.lock();

            state.repair = 0..0;
            state.repair_ended = true;
        }
        // That of a BTT has cleared nothing.
        if !set.is_btt() && set.set_pending(&self.sectors) {
            // The bus may have cleared and forgotten them, and lost what follows (see
            // `write_badrange`).
            set.set_pending_from(self.sectors.end);
        }
        set.notify();
        self.badblocks.work.schedule();
    }
}

impl memory_errors::Handler for Badblocks<'_> {
    fn memory_error(&self, addresses: Range<u64>, source: memory_errors::Source) {
        self.report(
            &addresses,
            match source {
                memory_errors::Source::MachineCheck => Origin::MachineCheck,
                memory_errors::Source::Firmware => Origin::Firmware,
            },
        );
    }
}

/// Adds memory failures to the bad blocks, and passes those in the data area on to the mounted file
/// system, if it handles them (XFS does).
pub(crate) struct Failures<'bound> {
    badblocks: Arc<Badblocks<'bound>>,
    link: Arc<FailureLink>,
}

impl<'bound> Failures<'bound> {
    /// Passes failures on to `badblocks`, and through `link` to the DAX device of the data area.
    pub(crate) fn new(badblocks: Arc<Badblocks<'bound>>, link: Arc<FailureLink>) -> Self {
        Self { badblocks, link }
    }
}

impl MemoryFailure for Failures<'_> {
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result {
        let start = pfn << PAGE_SHIFT;
        let len = nr_pages << PAGE_SHIFT;

        // The whole page is bad: the kernel stops using it.
        if !is_simulated(flags) {
            self.badblocks
                .report_pages(&(start..start.saturating_add(len)), Origin::MemoryFailure);
        }
        // Memory in front of the data area (info block, memmap) belongs to no file system.
        let data = self.badblocks.set.addresses(&self.badblocks.set.data).start;
        let offset = start.checked_sub(data).ok_or_else(eopnotsupp)?;

        self.link.notify_holder(offset, len, flags)
    }
}
