// SPDX-License-Identifier: GPL-2.0

//! The bad blocks of a namespace: one exact set, whatever its mode.
//!
//! Errors come from the bus's badrange list, from machine checks and memory failures, and from
//! users. They are added to the [`Set`]; I/O asks the set and nothing else. A write that covers a
//! bad block takes it out (`repair.rs`). What else shows errors is a view of the set:
//!
//! - the disk's `badblocks`, a table of the block layer with room for 512 ranges: it shows what
//!   fits. Users may add to it, behind the driver's back; those sectors are bad at once, and are
//!   taken into the set when somebody looks at it ([`Set::import`]);
//! - `errors/list`, which shows the set;
//! - the bus's badrange list, by which errors outlive the binding (`badrange.rs`).

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
        memremap::{
            is_simulated,
            MemoryFailure, //
        },
        nd::{
            self,
            Region, //
        },
        scope::{
            Scope,
            Scoped, //
        },
        sysfs,
        work::Work, //
    },
    ranges::{
        RangeSet,
        Spares,
        Tag, //
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

/// Where an error was reported from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The bus's badrange list: the platform's log, or an earlier binding.
    Log,
    /// A machine check.
    MachineCheck,
    /// The kernel's memory-failure recovery, which reports pages.
    MemoryFailure,
    /// A user.
    User,
    /// A list that was saved before.
    Restored,
    /// The device's own list, which no driver reads (CXL poison).
    Device,
    /// An injected error.
    Injected,
}

impl Origin {
    /// How much it says: what says more takes the place of what says less.
    fn rank(self) -> u8 {
        match self {
            Self::Log => 0,
            Self::MemoryFailure => 1,
            Self::User | Self::Restored | Self::Device => 2,
            Self::MachineCheck => 3,
            Self::Injected => 4,
        }
    }
}

/// The table of bad blocks that is shown to users.
pub(crate) enum Table<'bound> {
    /// The disk's; users may add to it.
    Disk(Pin<KBox<BadBlocks>>),
    /// That which a BTT goes by.
    Btt(&'bound BadBlocks),
}

impl Table<'_> {
    #[inline]
    fn get(&self) -> &BadBlocks {
        match self {
            Self::Disk(table) => table,
            Self::Btt(table) => table,
        }
    }
}

/// Sectors are those of the namespace.
pub(crate) struct State {
    pub(crate) bad: RangeSet,
    /// Repaired, and not yet off the bus's list; `pending` if that is up to the driver.
    pub(crate) repaired: RangeSet,
    /// Pages of which a failure was reported: they may be missing in the direct map, or may be so
    /// soon, since the kernel unmaps them after it has reported them.
    failed: RangeSet,
    /// For reports that can't wait for memory.
    pub(crate) spares: Spares,
    /// Under repair.
    repair: Range<u64>,
    /// For that: it can't wait for memory either.
    repair_spares: Spares,
    /// An error was reported there meanwhile.
    failed_again: bool,
    /// The bus was told meanwhile that it is bad, and may have been so after it had cleared it.
    retold: bool,
    /// The version of the table in which nothing is that the set lacks.
    seen: Option<u32>,
    /// The first sector from which on the table may lack some; none if it lacks nothing.
    lacks: Option<u64>,
    /// That it is full was logged.
    warned: bool,
}

impl State {
    /// Whether some of `sectors` are under repair.
    fn is_under_repair(&self, sectors: &Range<u64>) -> bool {
        intersection(sectors, &self.repair).is_some()
    }

    /// Notes that the table may lack what is bad from sector `at` on.
    fn note_lacking(&mut self, at: u64) {
        self.lacks = Some(self.lacks.map_or(at, |lacks| lacks.min(at)));
    }

    /// Notes that the bus was told that `sectors` are bad: those that were repaired meanwhile, or are
    /// being repaired, it has to forget.
    pub(crate) fn note_told(&mut self, sectors: &Range<u64>) {
        self.retold |= self.is_under_repair(sectors);
        self.repaired
            .retag(sectors, &mut self.spares, &|_, tag| Tag {
                pending: true,
                ..tag
            });
    }
}

/// How many nodes are kept for reports that can't wait for memory.
pub(crate) const SPARES: usize = 64;

/// The length of a page in sectors.
const PAGE_SECTORS: u64 = 1 << (PAGE_SHIFT as u32 - SECTOR_SHIFT);

/// The exact set of the bad sectors of a namespace, with the table that shows them.
#[pin_data]
pub(crate) struct Set<'bound> {
    /// Whether a sector of the data area is bad, or a page of it has failed.
    any: Flag,
    table: Table<'bound>,
    #[pin]
    pub(crate) state: SpinLock<State>,
    /// Held during a repair.
    #[pin]
    repairs: Mutex<()>,
    file: SetOnce<sysfs::File>,
    dev: &'bound nd::Device<Bound>,
    /// Physical addresses.
    namespace: Range<u64>,
    /// Sectors of the data area.
    data: Range<u64>,
}

impl<'bound> Set<'bound> {
    fn new(
        dev: &'bound nd::Device<Bound>,
        namespace: Range<u64>,
        data: &Range<u64>,
        table: Table<'bound>,
    ) -> impl PinInit<Self, Error> + 'bound {
        let Sectors { start, len } = Sectors::of_addresses(data, namespace.start);
        try_pin_init!(Self {
            any: Flag::new(false),
            data: start..start.saturating_add(len),
            state <- new_spinlock!(State {
                bad: RangeSet::new(),
                repaired: RangeSet::new(),
                failed: RangeSet::new(),
                spares: Spares::new(SPARES, GFP_KERNEL)?,
                repair: 0..0,
                repair_spares: Spares::new(REPAIR_SPARES, GFP_KERNEL)?,
                failed_again: false,
                retold: false,
                seen: Some(table.get().version()),
                lacks: None,
                warned: false,
            }),
            repairs <- new_mutex!(()),
            table,
            file: SetOnce::new(),
            dev,
            namespace,
        }? Error)
    }

    /// The region that the namespace is in.
    pub(crate) fn region(&self) -> &'bound Region {
        self.dev.region()
    }

    /// The device, for messages.
    pub(crate) fn device(&self) -> &device::Device<Bound> {
        self.dev.as_ref()
    }

    /// The physical addresses of the namespace.
    pub(crate) fn namespace(&self) -> &Range<u64> {
        &self.namespace
    }

    /// The sectors that the physical `addresses`, which are the namespace's, touch.
    pub(crate) fn sectors(&self, addresses: &Range<u64>) -> Range<u64> {
        let Sectors { start, len } = Sectors::of_addresses(addresses, self.namespace.start);

        start..start.saturating_add(len)
    }

    /// The physical addresses of `sectors`.
    pub(crate) fn addresses(&self, sectors: &Range<u64>) -> Range<u64> {
        let address = |sector: u64| {
            self.namespace
                .start
                .saturating_add(sector << SECTOR_SHIFT)
                .min(self.namespace.end)
        };

        address(sectors.start)..address(sectors.end)
    }

    /// What of the physical `addresses` is the namespace's.
    pub(crate) fn of_namespace(&self, addresses: &Range<u64>) -> Option<Range<u64>> {
        intersection(addresses, &self.namespace)
    }

    /// `sectors` of the data area as those of the namespace.
    fn of_data(&self, sectors: Sectors) -> Range<u64> {
        let start = self.data.start.saturating_add(sectors.start);

        start..start.saturating_add(sectors.len)
    }

    /// The table.
    #[inline]
    pub(crate) fn table(&self) -> &BadBlocks {
        self.table.get()
    }

    /// Whether it is the BTT that goes by the table.
    pub(crate) fn is_btt(&self) -> bool {
        matches!(self.table, Table::Btt(_))
    }

    /// Adds `sectors`: all, or none of them where there is no memory ([`ENOMEM`]).
    ///
    /// What is in the set already keeps its origin, unless this one says more; and what was
    /// repaired a moment ago is bad again.
    #[inline(never)]
    pub(crate) fn add(&self, sectors: &Range<u64>, tag: Tag, flags: Flags) -> Result {
        let mut gaps = self.state.lock().bad.gaps(sectors);

        loop {
            // Freed after the lock is given up: that may sleep.
            let mut own = Spares::new(gaps, flags);
            let mut guard = self.state.lock();
            let state = &mut *guard;

            gaps = state.bad.gaps(sectors);
            match &mut own {
                Ok(own) if own.len() >= gaps => self.add_with(state, sectors, tag, own)?,
                // Others have made more gaps meanwhile.
                Ok(_) => continue,
                Err(e) if flags == GFP_KERNEL => return Err(*e),
                // A report that nobody can repeat.
                Err(_) => {
                    let mut kept = core::mem::replace(&mut state.spares, Spares::none());
                    let result = self.add_with(state, sectors, tag, &mut kept);

                    state.spares = kept;
                    result?;
                }
            }
            return Ok(());
        }
    }

    fn add_with(
        &self,
        state: &mut State,
        sectors: &Range<u64>,
        tag: Tag,
        spares: &mut Spares,
    ) -> Result {
        // The bus is made to forget what was repaired before it is told of anything.
        let pending = tag.pending || state.repaired.first(sectors).is_some();

        state.bad.insert(sectors, Tag { pending, ..tag }, spares)?;
        state.bad.retag(sectors, spares, &|range, old| Tag {
            // A report of a page says nothing of a large range that it is in.
            origin: if tag.origin.rank() > old.origin.rank()
                && range.end.saturating_sub(range.start) <= PAGE_SECTORS
            {
                tag.origin
            } else {
                old.origin
            },
            pending: old.pending || pending,
        });
        // The bus's list may have been read before the repair began.
        if tag.origin != Origin::Log && state.is_under_repair(sectors) {
            state.failed_again = true;
        }
        self.show_in_table(state, sectors);
        self.update_any(state);
        Ok(())
    }

    /// Has the bus told again of what is bad in `sectors`: it may have forgotten it.
    #[inline(never)]
    pub(crate) fn set_pending(&self, sectors: &Range<u64>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;

        state.bad.retag(sectors, &mut state.spares, &|_, tag| Tag {
            pending: true,
            ..tag
        });
    }

    /// Notes that a failure of the pages of `sectors` was reported.
    fn add_failed(&self, sectors: &Range<u64>) {
        let tag = Tag {
            origin: Origin::MemoryFailure,
            pending: false,
        };
        let own = Spares::new(1, GFP_ATOMIC);
        let mut guard = self.state.lock();
        let state = &mut *guard;

        // Without memory for it: the copies survive a page that is missing.
        let _ = match own {
            Ok(mut own) => state.failed.insert(sectors, tag, &mut own),
            Err(_) => state.failed.insert(sectors, tag, &mut state.spares),
        };
        self.update_any(state);
    }

    fn update_any(&self, state: &State) {
        self.any
            .set(state.bad.first(&self.data).is_some() || !state.failed.is_empty());
    }

    /// Changes the table, and notes whether somebody else has.
    fn change_table(&self, state: &mut State, change: impl FnOnce(&BadBlocks) -> u32) {
        let table = self.table();
        let before = table.version();
        let writes = change(table);
        let after = table.version();

        // Each write moves the sequence count of the table's lock by two.
        state.seen = (state.seen == Some(before)
            && after == before.wrapping_add(writes.wrapping_mul(2)))
        .then_some(after);
    }

    /// Has the table show `sectors`, as far as there is room.
    fn show_in_table(&self, state: &mut State, sectors: &Range<u64>) {
        let Some(Range { start, end }) = intersection(sectors, &self.data) else {
            return;
        };
        let room = self.room();
        let mut at = start;

        self.change_table(state, |table| {
            let mut writes = 0_u32;

            while at < end && table.count() < room {
                let len = end.saturating_sub(at).min(BadBlocks::LONGEST);

                writes = writes.wrapping_add(1);
                if table.set(at.saturating_sub(self.data.start), len).is_err() {
                    break;
                }
                at = at.saturating_add(len);
            }
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

    /// Has the table no longer show `sectors`.
    fn hide_in_table(&self, state: &mut State, sectors: &Range<u64>) {
        let Some(Range { start, end }) = intersection(sectors, &self.data) else {
            return;
        };
        let room = self.room();
        let is_known = state.seen == Some(self.table().version());
        let mut lacks = None;

        self.change_table(state, |table| {
            let first = start.saturating_sub(self.data.start);
            let behind = end.saturating_sub(self.data.start);
            let split = table
                .entry_in(first, behind.saturating_sub(first))
                .map(|(entry, len)| (entry, entry.saturating_add(len)))
                .filter(|entry| entry.0 < first && entry.1 > behind);

            match split {
                // No room for two ranges in place of one: the second is no longer shown.
                Some((_, entry_end)) if is_known && table.count() >= room => {
                    lacks = Some(end);
                    table.clear(first, entry_end.saturating_sub(first));
                }
                _ => table.clear(first, behind.saturating_sub(first)),
            }
            1
        });
        if let Some(at) = lacks {
            state.note_lacking(at);
        }
        self.fill_table(state);
    }

    /// Has the table show what it lacks, as far as there is room.
    fn fill_table(&self, state: &mut State) {
        while let Some(at) = state.lacks {
            if self.table().count() >= self.room() {
                return;
            }
            state.lacks = None;
            let Some((bad, _)) = state.bad.next(at) else {
                return;
            };

            self.show_in_table(state, &(bad.start.max(at)..bad.end));
            if state.lacks.is_some() {
                // No more fits.
                return;
            }
            if bad.end < self.data.end {
                state.lacks = Some(bad.end);
            }
        }
    }

    /// Whether the table may lack some.
    pub(crate) fn is_truncated(state: &State) -> bool {
        state.lacks.is_some()
    }

    /// How many ranges the table may have: what it holds, and no more than a page of text, since
    /// the kernel warns of a longer one when `badblocks` is read.
    fn room(&self) -> usize {
        let mut sectors = self.data.end.saturating_sub(self.data.start);
        // "START LENGTH\n", the length being 512 at most.
        let mut line = "0 512\n".len();

        while sectors >= 10 {
            sectors /= 10;
            line = line.saturating_add(1);
        }
        (kernel::page::PAGE_SIZE / line)
            .min(BadBlocks::CAPACITY)
            .saturating_sub(2)
    }

    /// Takes into the set what users wrote to the disk's table.
    ///
    /// [`ENOMEM`]: I/O asks the table as well, until it has succeeded.
    #[inline(never)]
    pub(crate) fn import(&self, flags: Flags) -> Result {
        let tag = Tag {
            origin: Origin::User,
            pending: true,
        };
        let mut own = Spares::none();
        let mut at = self.data.start;
        let mut begun = None;

        loop {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let version = self.table().version();

            // Nobody else changes that of a BTT but the BTT, which takes off it.
            if self.is_btt() || state.seen == Some(version) {
                return Ok(());
            }
            if begun != Some(version) {
                // Somebody has written to it meanwhile, perhaps what is in front.
                begun = Some(version);
                at = self.data.start;
            }
            // The look-up would warn if the table changed under it: the lock keeps our changes out.
            let Some(listed) = self.table_entry(at) else {
                if self.table().version() == version {
                    state.seen = Some(version);
                    return Ok(());
                }
                continue;
            };
            let gaps = state.bad.gaps(&listed);

            if own.len() < gaps {
                drop(guard);
                own = Spares::new(gaps, flags)?;
                continue;
            }
            state.bad.insert(&listed, tag, &mut own)?;
            self.update_any(state);
            at = listed.end;
        }
    }

    /// The first entry of the table that ends behind sector `at` of the data area.
    fn table_entry(&self, at: u64) -> Option<Range<u64>> {
        let (first, len) = self.table().entry_in(
            at.saturating_sub(self.data.start),
            self.data.end.saturating_sub(at),
        )?;
        let start = self.data.start.saturating_add(first);

        Some(start..start.saturating_add(len).min(self.data.end))
    }

    /// The first sector of `sectors`, which are the data area's, that is bad.
    fn first_of(&self, sectors: &Range<u64>) -> Option<u64> {
        self.first_in_state(&self.state.lock(), sectors)
    }

    #[inline]
    fn first_in_state(&self, state: &State, sectors: &Range<u64>) -> Option<u64> {
        let listed = state.bad.first(sectors);

        if state.seen == Some(self.table().version()) {
            return listed;
        }
        Iterator::chain(listed.into_iter(), self.first_in_table(sectors)).min()
    }

    /// The first sector of `sectors`, which are the data area's, that the table has.
    #[cold]
    fn first_in_table(&self, sectors: &Range<u64>) -> Option<u64> {
        let start = sectors.start.saturating_sub(self.data.start);
        let len = sectors.end.saturating_sub(sectors.start);
        let first = self.table().first_bad(start, len)?;

        Some(self.data.start.saturating_add(first))
    }

    /// Wakes those who poll the disk's `badblocks`.
    fn notify(&self) {
        if let Some(file) = self.file.as_ref() {
            file.notify();
        }
    }

    /// The first range that ends behind sector `at`, with all that follows it and has its origin.
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

/// The bad blocks of a bound namespace.
///
/// When it is dropped, the bus has all that is known.
pub(crate) struct Badblocks<'bound> {
    work: Scoped<'bound, Work<Set<'bound>>>,
    set: Arc<Set<'bound>>,
}

impl<'bound> Badblocks<'bound> {
    /// Those of `namespace`, whose data area is `data`, both physical addresses, as the bus knows
    /// them; `table` shows them. [`ENOMEM`].
    pub(crate) fn new(
        dev: &'bound nd::Device<Bound>,
        namespace: Range<u64>,
        data: Range<u64>,
        table: Table<'bound>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Arc<Self>> {
        let set = Arc::pin_init(Set::new(dev, namespace, &data, table), GFP_KERNEL)?;
        let work = Work::new(set.clone(), scope)?;

        set.read_badrange()?;
        Ok(Arc::new(Self { work, set }, GFP_KERNEL)?)
    }

    /// The disk's table of bad blocks, for the block layer.
    pub(crate) fn table(&self) -> &BadBlocks {
        self.set.table()
    }

    /// From now on, changes wake those who poll the disk's `badblocks` file.
    pub(crate) fn publish<T: Operations>(
        &self,
        dev: &device::Device<Core<'_>>,
        disk: &Disk<T>,
    ) -> Result {
        self.set
            .file
            .populate(disk.sysfs_file(dev, c"badblocks").ok_or(ENOENT)?);
        Ok(())
    }

    /// Physical addresses of the namespace.
    pub(crate) fn namespace(&self) -> &Range<u64> {
        &self.set.namespace
    }

    /// What of the physical `addresses` is in the data area.
    pub(crate) fn in_data(&self, addresses: &Range<u64>) -> Option<Span> {
        let area = self.set.addresses(&self.set.data);
        let data = intersection(addresses, &area)?;
        let offset = usize::try_from(data.start.saturating_sub(area.start)).ok()?;
        let len = usize::try_from(data.end.saturating_sub(data.start)).ok()?;

        Span::of_bytes(offset, len, usize::MAX)
    }

    /// What of the physical `addresses` is in front of the data area, and behind it.
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

    /// Tells the bus of what it does not know yet. [`ENOMEM`]. Sleeps.
    pub(crate) fn sync(&self) -> Result {
        self.set.sync()
    }

    /// Whether nothing is bad, and no page of the data area has failed: all can be read and written
    /// without a look at anything else.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        !self.set.any.is_on() && self.set.table().is_empty()
    }

    /// The first bad sector that `span` touches, as a sector of the data area.
    #[inline]
    pub(crate) fn first_in(&self, span: &Span) -> Option<u64> {
        let first = self.set.first_of(&self.set.of_data(span.sectors()))?;

        Some(first.saturating_sub(self.set.data.start))
    }

    /// Whether a sector is bad in the pages that `span` touches.
    pub(crate) fn any_in_pages_of(&self, span: &Span) -> bool {
        matches!(self.condition(span), Condition::Bad)
    }

    /// The condition of the pages that `span` touches.
    pub(crate) fn condition(&self, span: &Span) -> Condition {
        let pages = self.set.of_data(span.sectors_of_pages());
        let state = self.set.state.lock();

        if self.set.first_in_state(&state, &pages).is_some() {
            Condition::Bad
        } else if !state.failed.is_empty() && state.failed.first(&pages).is_some() {
            Condition::Failed
        } else {
            Condition::Good
        }
    }

    /// Adds the physical `addresses`, as far as they are the namespace's, and tells the bus.
    /// [`ENOMEM`]; nothing is changed then. Sleeps.
    pub(crate) fn add(&self, addresses: &Range<u64>, origin: Origin) -> Result {
        let Some(addresses) = self.set.of_namespace(addresses) else {
            return Ok(());
        };
        let tag = Tag {
            origin,
            pending: true,
        };

        self.set
            .add(&self.set.sectors(&addresses), tag, GFP_KERNEL)?;
        self.set.notify();
        // What the bus has no memory for now, it is told of later.
        let _ = self.set.sync();
        Ok(())
    }

    /// As [`Self::add`], where nobody could do anything about a failure; the bus is told in the
    /// background, unless it has been by its provider.
    fn report(&self, addresses: &Range<u64>, origin: Origin, bus_knows: bool) {
        let Some(addresses) = self.set.of_namespace(addresses) else {
            return;
        };
        let sectors = self.set.sectors(&addresses);
        let tag = Tag {
            origin,
            pending: !bus_knows,
        };

        if self.set.add(&sectors, tag, GFP_ATOMIC).is_err() {
            dev_err!(
                self.set.dev.as_ref(),
                "no memory to list the error at {:#x}\n",
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

    /// Adds the pages that `span` touches, which turned out to be missing in the direct map.
    #[cold]
    pub(crate) fn add_unmapped(&self, span: &Span) {
        let pages = self
            .set
            .addresses(&self.set.of_data(span.sectors_of_pages()));

        self.report_pages(&pages, Origin::MemoryFailure);
    }

    /// Adds pages that have failed: they may be missing in the direct map, too.
    fn report_pages(&self, addresses: &Range<u64>, origin: Origin) {
        if let Some(addresses) = self.set.of_namespace(addresses) {
            self.set.add_failed(&self.set.sectors(&addresses));
            self.report(&addresses, origin, false);
        }
    }

    /// Takes the physical `addresses`, which are whole sectors of the namespace, out; the bus is
    /// told. [`ENOMEM`]. Sleeps.
    pub(crate) fn remove(&self, addresses: &Range<u64>) -> Result {
        let sectors = self.set.sectors(addresses);

        // What was repaired a moment ago, in many places perhaps, the bus forgets first: that leaves
        // one gap.
        self.set.sync()?;
        self.begin_repair_of(sectors)?.finish(true)?;
        self.set.sync()
    }

    /// Begins the repair of `span`, and waits for another one to end. [`ENOMEM`] where there is no
    /// memory to keep account of it.
    pub(crate) fn begin_repair(&self, span: &Span) -> Result<Repair<'_, 'bound>> {
        self.begin_repair_of(self.set.of_data(span.sectors()))
    }

    fn begin_repair_of(&self, sectors: Range<u64>) -> Result<Repair<'_, 'bound>> {
        let guard = self.set.repairs.lock();

        self.set.import(GFP_ATOMIC)?;

        let mut state = self.set.state.lock();

        state.repair_spares.fill(GFP_ATOMIC)?;
        state.repair = sectors.clone();
        state.failed_again = false;
        state.retold = false;
        drop(state);
        Ok(Repair {
            badblocks: self,
            sectors,
            _alone: guard,
        })
    }

    /// Takes over what others have changed in the table: users of the disk's, or a BTT.
    pub(crate) fn refresh(&self) {
        // Without memory, sectors that users wrote to the table are missing this time.
        let _ = self.set.import(GFP_KERNEL);
        self.set.follow_btt();
    }

    /// Returns the first run of bad sectors with the same origin that ends behind sector `at` of
    /// the namespace.
    pub(crate) fn next_range(&self, at: u64) -> Option<(Range<u64>, Origin)> {
        self.set.next_range(at)
    }

    /// Returns the physical addresses of `sectors` of the namespace.
    pub(crate) fn addresses(&self, sectors: &Range<u64>) -> Range<u64> {
        self.set.addresses(sectors)
    }

    /// Adds what the bus knows.
    pub(crate) fn read_badrange(&self) {
        if self.set.read_badrange().is_err() {
            dev_err!(
                self.set.dev.as_ref(),
                "no memory to read the errors that the bus knows of\n"
            );
        }
        self.set.notify();
    }
}

impl Drop for Badblocks<'_> {
    fn drop(&mut self) {
        self.work.cancel();
        if self.set.sync().is_err() {
            dev_err!(
                self.set.device(),
                "no memory to keep all errors: some are unknown when a driver is bound again\n"
            );
        }
    }
}

/// What is known of pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing but good.
    Good,
    /// A sector of them is bad.
    Bad,
    /// None is bad, but a failure of one was reported: it may be missing in the direct map.
    Failed,
}

/// How many nodes a repair may need: one more where it makes two ranges of one, and one for each
/// gap between what was repaired in the page before.
const REPAIR_SPARES: usize = 8;

/// A repair under way; given up when dropped.
pub(crate) struct Repair<'a, 'bound> {
    badblocks: &'a Badblocks<'bound>,
    sectors: Range<u64>,
    _alone: MutexGuard<'a, ()>,
}

impl Repair<'_, '_> {
    /// The sectors hold what was written: they are no longer bad. `forget` if the bus has still to
    /// forget them.
    ///
    /// [`EIO`] if one of them has failed again since the beginning; they stay bad then.
    pub(crate) fn finish(self, forget: bool) -> Result {
        let set = &self.badblocks.set;
        let mut guard = set.state.lock();
        let state = &mut *guard;

        if state.failed_again {
            return Err(EIO);
        }
        let tag = Tag {
            origin: Origin::Log,
            pending: forget || state.retold,
        };

        state
            .repaired
            .insert(&self.sectors, tag, &mut state.repair_spares)?;
        if state.bad.remove(&self.sectors, &mut state.repair_spares)? {
            set.hide_in_table(state, &self.sectors);
            set.update_any(state);
        }
        Ok(())
    }
}

impl Drop for Repair<'_, '_> {
    fn drop(&mut self) {
        let set = &self.badblocks.set;

        set.state.lock().repair = 0..0;
        // What is still bad the bus may have cleared.
        set.set_pending(&self.sectors);
        set.notify();
        self.badblocks.work.schedule();
    }
}

impl mce::Handler for Badblocks<'_> {
    fn memory_error(&self, addresses: Range<u64>, listed: bool) {
        self.report(&addresses, Origin::MachineCheck, listed);
    }
}

/// Adds failures of the memory, and passes those of the data area on to the file system that is
/// mounted on it, if that wants to know (XFS does).
pub(crate) struct Failures<'bound> {
    badblocks: Arc<Badblocks<'bound>>,
    link: Arc<FailureLink>,
}

impl<'bound> Failures<'bound> {
    /// Failures are added to `badblocks`; `link` leads to the DAX device of the data area.
    pub(crate) fn new(badblocks: Arc<Badblocks<'bound>>, link: Arc<FailureLink>) -> Self {
        Self { badblocks, link }
    }
}

impl MemoryFailure for Failures<'_> {
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result {
        let start = pfn << PAGE_SHIFT;
        let len = nr_pages << PAGE_SHIFT;

        // A page as a whole: that is what the kernel stops to use.
        if !is_simulated(flags) {
            self.badblocks
                .report_pages(&(start..start.saturating_add(len)), Origin::MemoryFailure);
        }
        // Memory in front of the data (info block, memmap) is no file system's.
        let data = self.badblocks.set.addresses(&self.badblocks.set.data).start;
        let offset = start.checked_sub(data).ok_or_else(eopnotsupp)?;

        self.link.notify_holder(offset, len, flags)
    }
}
