// SPDX-License-Identifier: GPL-2.0

//! The bad blocks of a namespace in random interleavings of those who report, repair and list errors: none is lost, and
//! none is made up, in the set, in the table and in the badrange list.
//!
//! Each thread has pages of its own, so that it knows which of their sectors are bad. But errors of all threads are
//! next to each other, in the same ranges.

use crate::abstractions::badblocks::BadblocksTable;
use crate::abstractions::dax::FailureLink;
use crate::abstractions::memory_errors::{Handler, Source};
use crate::abstractions::memremap::MemoryFailure;
use crate::abstractions::nd::{Device, Region};
use crate::abstractions::scope::Scope;
use crate::badblocks::{Badblocks, Failures, Table};
use crate::check_interleavings;
use crate::device::{self, Bound};
use crate::prelude::{fail_one_in, KBox, GFP_KERNEL};
use crate::ranges::Origin;
use crate::sync::{Arc, Mutex};
use crate::units::{Span, SECTOR_SHIFT};
use shuttle::rand::{thread_rng, Rng};
use shuttle::thread::{self, JoinHandle};
use std::collections::BTreeSet;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Interleavings of each case.
const INTERLEAVINGS: usize = 1_000;
const THREADS: u64 = 3;
/// Changes that each thread makes.
const CHANGES: usize = 8;
/// Sectors of a page.
const PAGE: u64 = 8;
/// The first sector of the namespace in its region.
const NAMESPACE: u64 = 16;
/// The physical address of the region.
const REGION: u64 = 1 << 30;

type Sectors = BTreeSet<u64>;

/// Memory that stays: threads of shuttle refer to it.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// The physical addresses of sectors of the namespace.
fn addresses(sectors: &Range<u64>) -> Range<u64> {
    let address = |sector| REGION + ((NAMESPACE + sector) << SECTOR_SHIFT);

    address(sectors.start)..address(sectors.end)
}

/// The sectors of the namespace that physical addresses touch, all of which are in front of its end.
fn sectors(addresses: &Range<u64>) -> Range<u64> {
    let first = (addresses.start - REGION) >> SECTOR_SHIFT;
    let end = (addresses.end - REGION).div_ceil(512);

    first.saturating_sub(NAMESPACE)..end.saturating_sub(NAMESPACE)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// With an info block in front of the data.
    Fsdax,
    Sector,
}

impl Mode {
    /// The first sector of the data area.
    fn data(self) -> u64 {
        match self {
            Self::Fsdax => PAGE,
            Self::Sector => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    mode: Mode,
    /// The pages of the namespace. Two never have more ranges than the table has room for.
    pages: u64,
    /// The bus reports errors, and clears poison.
    has_commands: bool,
    /// Of so many allocations one fails.
    faults: u32,
}

impl Setup {
    /// Twelve pages, whose allocations succeed.
    fn new(mode: Mode, has_commands: bool) -> Self {
        Self {
            mode,
            pages: 12,
            has_commands,
            faults: 0,
        }
    }

    /// Returns whether the table of a BTT may have no room. Then the BTT does not know of some errors, nor the driver
    /// which ones the BTT has cleared.
    fn may_overflow(self) -> bool {
        self.mode == Mode::Sector && self.pages > 2
    }

    /// Fails unless the list has the bad sectors and no others.
    fn expect(self, bad: &Sectors, has: &Sectors, what: &str, changes: &dyn fmt::Debug) {
        let missing: Vec<_> = bad.difference(has).collect();
        let more: Vec<_> = has.difference(bad).collect();

        assert!(
            missing.is_empty(),
            "{what}, {missing:?} are missing: {changes:?}"
        );
        assert!(
            more.is_empty() || self.may_overflow(),
            "{what}, {more:?} are not bad: {changes:?}"
        );
    }
}

/// A bound namespace.
struct World {
    setup: Setup,
    region: &'static Region,
    dev: &'static Device<Bound>,
    badblocks: Arc<Badblocks<'static>>,
    failures: Failures<'static>,
    /// Held by a write that repairs.
    repair: Mutex<()>,
}

impl World {
    /// Binds to the namespace. In sector mode, `table` is that of the namespace, which a BTT was attached with.
    fn bind(
        setup: Setup,
        region: &'static Region,
        scope: &'static Scope<'static>,
        attached: Option<(&'static BadblocksTable, &[Range<u64>])>,
    ) -> Self {
        let dev = leak(Device::new(region));
        let len = setup.pages * PAGE;
        let (table, before) = match attached {
            Some((table, before)) => (Table::Btt(table), before),
            None => {
                let table = KBox::pin(BadblocksTable::default(), GFP_KERNEL);

                (Table::Disk(table.expect("there is memory")), &[][..])
            }
        };
        let badblocks = Badblocks::new(
            dev,
            addresses(&(0..len)),
            addresses(&(setup.mode.data()..len)),
            table,
            scope,
        )
        .expect("there is memory");

        badblocks.fill(before).expect("there is memory");
        let link = Arc::new(FailureLink, GFP_KERNEL).expect("there is memory");

        Self {
            setup,
            region,
            dev,
            failures: Failures::new(badblocks.clone(), link),
            badblocks,
            repair: Mutex::new(()),
        }
    }

    fn span(&self, sectors: &Range<u64>) -> Span {
        let offset = (sectors.start - self.setup.mode.data()) << SECTOR_SHIFT;
        let len = (sectors.end - sectors.start) << SECTOR_SHIFT;

        Span::of_bytes(offset as usize, len as usize, usize::MAX).expect("it fits")
    }

    fn is_data(&self, sectors: &Range<u64>) -> bool {
        sectors.start >= self.setup.mode.data()
    }

    /// Returns whether I/O finds the sector bad.
    fn is_bad(&self, sector: u64) -> bool {
        let one = sector..sector + 1;

        if self.setup.mode == Mode::Sector {
            let first = self.badblocks.table().first_bad(sector, 1);

            assert!(first.is_none_or(|first| first == sector));
            return first.is_some();
        }
        if !self.is_data(&one) {
            return self.badblocks.first_at(&addresses(&one)).is_some();
        }
        let span = self.span(&one);
        let first = self.badblocks.first_in(&span);

        assert!(first.is_none_or(|first| first == sector - self.setup.mode.data()));
        assert!(
            !(first.is_some() && self.badblocks.is_clean()),
            "clean, but {sector} is bad"
        );
        first.is_some()
    }

    /// Returns the sectors that `errors/list` has.
    fn listed(&self) -> Sectors {
        let mut at = 0;
        let mut all = Sectors::new();

        while let Some((run, _)) = self.badblocks.next_range(at) {
            assert!(run.start < run.end && run.end > at, "{run:?} behind {at}");
            all.extend(run.start.max(at)..run.end);
            at = run.end;
        }
        all
    }

    /// Returns the sectors that the table has.
    fn in_table(&self) -> Sectors {
        let data = self.setup.mode.data();
        let entries = self.badblocks.table().all();

        entries
            .into_iter()
            .flatten()
            .map(|sector| sector + data)
            .collect()
    }

    fn messages(&self) -> Vec<String> {
        let dev: &device::Device<Bound> = self.dev.as_ref();

        dev.messages()
    }
}

/// A thread that changes its own pages.
struct User {
    world: std::sync::Arc<World>,
    /// The first sectors of its pages.
    pages: Vec<u64>,
    /// Its bad sectors.
    bad: Sectors,
    /// Bad sectors that the platform has reported, but the driver had no memory to read.
    unread: Sectors,
    /// Sectors that were repaired, until the list was read again.
    repaired: Sectors,
    /// Sectors that were repaired at any time.
    ever_repaired: Sectors,
    /// Sectors that are good again, but bad for the BTT: a full table had no room to split their entry.
    stuck: Sectors,
    /// What it has done.
    changes: Vec<(&'static str, Range<u64>)>,
}

impl User {
    /// Returns a range in one of its pages, often all of it.
    fn any(&self) -> Range<u64> {
        let page = self.pages[thread_rng().gen_range(0..self.pages.len())];

        match thread_rng().gen_range(0..3) {
            0 => page..page + PAGE,
            _ => {
                let first = thread_rng().gen_range(0..PAGE);

                page + first..page + thread_rng().gen_range(first..PAGE) + 1
            }
        }
    }

    fn change(&mut self) {
        let range = self.any();
        let mode = self.world.setup.mode;

        match thread_rng().gen_range(0..10) {
            0..=1 => self.machine_check(&range),
            2 => self.memory_failure(range.start / PAGE),
            3 if self.world.setup.has_commands => self.platform_report(&range),
            3..=4 => self.add(&range),
            5 if mode == Mode::Fsdax => self.write_table(&range),
            6 => self.remove(&range),
            7 => self.refresh(),
            _ => match mode {
                Mode::Fsdax => self.repair(&range),
                Mode::Sector => self.repair_by_btt(&range),
            },
        }
        if self.world.setup.faults == 0 {
            self.check(&range);
        }
    }

    /// Fails unless I/O finds the sectors of the page as they are.
    fn check(&self, range: &Range<u64>) {
        let page = range.start / PAGE * PAGE;

        for sector in page..page + PAGE {
            let is_bad = self.world.is_bad(sector);
            // For a BTT with a full table.
            let may_differ = match is_bad {
                true => self.stuck.contains(&sector),
                false => self.world.setup.may_overflow(),
            };

            assert!(
                may_differ || is_bad == self.bad.contains(&sector),
                "sector {sector} after {:?}",
                self.changes
            );
        }
    }

    fn machine_check(&mut self, range: &Range<u64>) {
        self.changes.push(("machine check", range.clone()));
        let source = match thread_rng().gen() {
            true => Source::MachineCheck,
            false => Source::Firmware,
        };

        self.world.badblocks.memory_error(addresses(range), source);
        self.bad.extend(range.clone());
    }

    fn memory_failure(&mut self, page: u64) {
        let range = page * PAGE..(page + 1) * PAGE;
        let pfn = addresses(&range).start >> 12;

        self.changes.push(("memory failure", range.clone()));

        // Outside of the data, there is no file system to tell.
        let _ = self.world.failures.memory_failure(pfn, 1, 0);
        self.bad.extend(range);
    }

    fn platform_report(&mut self, range: &Range<u64>) {
        self.changes.push(("report of the platform", range.clone()));
        // The driver can't tell a report from an entry that it has yet to remove.
        let is_told = range.clone().all(|sector| !self.repaired.contains(&sector));

        // And the bus replaces a report by a shorter one.
        if !is_told || !self.unread.is_empty() {
            return;
        }
        self.world.region.report(addresses(range));
        self.world.region.populate();
        self.bad.extend(range.clone());
        self.unread.extend(range.clone());
        self.read_badrange();
    }

    fn read_badrange(&mut self) {
        let before = self.world.messages().len();

        self.world.badblocks.read_badrange();
        // Of any thread.
        if self.world.messages()[before..]
            .iter()
            .all(|line| !line.contains("no memory"))
        {
            self.unread.clear();
            // Without memory to follow the BTT, what it has cleared is not known yet.
            if self.world.setup.faults == 0 {
                self.repaired.clear();
            }
        }
    }

    fn refresh(&mut self) {
        self.world.badblocks.refresh();
        if !self.unread.is_empty() {
            self.read_badrange();
        }
    }

    fn add(&mut self, range: &Range<u64>) {
        self.changes.push(("added", range.clone()));
        if self
            .world
            .badblocks
            .add(&addresses(range), Origin::User)
            .is_ok()
        {
            self.bad.extend(range.clone());
        }
    }

    /// A write to `badblocks` of the disk, which the driver does not see.
    fn write_table(&mut self, range: &Range<u64>) {
        self.changes.push(("written to the table", range.clone()));
        if !self.world.is_data(range) {
            return;
        }
        let table = self.world.badblocks.table();
        let first = range.start - self.world.setup.mode.data();
        let written = table.set(first, range.end - range.start);

        for (sector, place) in range.clone().zip(first..) {
            if written.is_ok() || table.first_bad(place, 1).is_some() {
                self.bad.insert(sector);
            }
        }
    }

    /// A write to `errors/list` of sectors that are good again.
    fn remove(&mut self, range: &Range<u64>) {
        self.changes.push(("removed", range.clone()));
        if self.world.badblocks.remove(&addresses(range)).is_ok() {
            self.bad.retain(|sector| !range.contains(sector));
            self.note_repaired(range);
            self.note_stuck(range);
        }
    }

    /// A write of data, as `repair.rs` makes it.
    fn repair(&mut self, range: &Range<u64>) {
        self.changes.push(("repair", range.clone()));
        // The bus would forget what the driver has never known.
        if !self.world.is_data(range) || !self.unread.is_empty() {
            return;
        }
        let world = std::sync::Arc::clone(&self.world);
        let span = world.span(range);
        let _guard = world.repair.lock();

        if world.badblocks.first_in(&span).is_none() {
            return;
        }
        let Ok(repair) = world.badblocks.begin_repair(&span) else {
            return;
        };
        let by_bus = self.world.setup.has_commands && thread_rng().gen();

        if by_bus {
            self.world.region.clear_poison(&addresses(range));
        }
        // The store takes time.
        for _ in 0..thread_rng().gen_range(0..30) {
            thread::yield_now();
        }
        let fails_again = thread_rng().gen_range(0..4) == 0;

        if fails_again {
            self.machine_check(range);
        }
        // A write also fails that is interrupted, or does not read back.
        if thread_rng().gen_range(0..4) > 0 && repair.finish(!by_bus).is_ok() {
            assert!(!fails_again, "{range:?} failed during the repair");
            self.changes.push(("repaired", range.clone()));
            self.bad.retain(|sector| !range.contains(sector));
            self.note_repaired(range);
        }
    }

    /// A write of data to a block of the BTT, as `nsio_rw_bytes` makes it.
    fn repair_by_btt(&mut self, range: &Range<u64>) {
        self.changes.push(("repair by the BTT", range.clone()));
        let table = self.world.badblocks.table();
        let len = range.end - range.start;

        if table.first_bad(range.start, len).is_none() || !self.unread.is_empty() {
            return;
        }
        if self.world.setup.has_commands {
            self.world.region.clear_poison(&addresses(range));
        }
        table.clear(range.start, len);
        self.bad.retain(|sector| !range.contains(sector));
        self.note_repaired(range);
        self.note_stuck(range);
    }

    fn note_repaired(&mut self, range: &Range<u64>) {
        self.repaired.extend(range.clone());
        self.ever_repaired.extend(range.clone());
    }

    fn note_stuck(&mut self, range: &Range<u64>) {
        if !self.world.setup.may_overflow() {
            return;
        }
        let table = self.world.badblocks.table();

        self.stuck.extend(
            range
                .clone()
                .filter(|&sector| table.first_bad(sector, 1).is_some()),
        );
    }
}

/// Reports errors in front of the namespace, at its start and in it.
fn report_some(setup: Setup, region: &Region) {
    for _ in 0..thread_rng().gen_range(0..4) {
        let first = thread_rng().gen_range(NAMESPACE - PAGE..NAMESPACE + (setup.pages - 1) * PAGE);
        let len = thread_rng().gen_range(1..=PAGE);

        region.report(REGION + first * 512..REGION + (first + len) * 512);
    }
    region.populate();
}

/// Returns the sectors of the namespace that the badrange list has.
fn in_badrange(region: &Region) -> Sectors {
    region.list().iter().flat_map(sectors).collect()
}

/// Returns what the badrange list has in front of the namespace.
fn in_front(region: &Region) -> Sectors {
    let end = addresses(&(0..0)).start;

    region
        .list()
        .into_iter()
        .flat_map(|entry| entry.start..entry.end.min(end))
        .collect()
}

/// Attaches a BTT: libnvdimm fills the table of the namespace, and the BTT may write before the driver goes on. Returns the
/// table, and what the badrange list had before.
fn attach(
    setup: Setup,
    region: &'static Region,
    known: &mut Sectors,
) -> (&'static BadblocksTable, Vec<Range<u64>>) {
    let bus = region.lock_bus();
    let before = bus
        .badranges(&addresses(&(0..setup.pages * PAGE)))
        .expect("there is memory");
    let table = leak(BadblocksTable::default());

    drop(bus);
    for sector in before.iter().flat_map(sectors) {
        let _ = table.set(sector, 1);
    }
    if let Some(written) = known.pop_first() {
        if setup.has_commands {
            region.clear_poison(&addresses(&(written..written + 1)));
        }
        table.clear(written, 1);
    }
    (table, before.to_vec())
}

fn interleave(setup: Setup) {
    fail_one_in(0);
    let region = leak(Region::at(REGION, setup.has_commands));

    report_some(setup, region);
    let outside = in_front(region);
    let mut known = in_badrange(region);
    let first_known = known.clone();
    let scope = leak(Scope::new());
    let worker = thread::spawn(|| scope.run_works());
    let attached = (setup.mode == Mode::Sector).then(|| attach(setup, region, &mut known));
    let attached = attached
        .as_ref()
        .map(|(table, before)| (*table, &before[..]));
    // After a panic it stays bound: it can't be unbound without other threads.
    let world = ManuallyDrop::new(std::sync::Arc::new(World::bind(
        setup, region, scope, attached,
    )));

    assert_eq!(world.listed(), known);
    fail_one_in(setup.faults);
    let threads: Vec<JoinHandle<User>> = (0..THREADS.min(setup.pages))
        .map(|number| {
            let pages: Vec<u64> = (number..setup.pages)
                .step_by(THREADS as usize)
                .map(|page| page * PAGE)
                .collect();
            let is_own = |sector: &&u64| pages.contains(&(*sector / PAGE * PAGE));
            let mut user = User {
                bad: known.iter().filter(is_own).copied().collect(),
                world: std::sync::Arc::clone(&world),
                pages,
                unread: Sectors::new(),
                repaired: Sectors::new(),
                ever_repaired: Sectors::new(),
                stuck: Sectors::new(),
                changes: Vec::new(),
            };

            thread::spawn(move || {
                for _ in 0..CHANGES {
                    user.change();
                }
                user
            })
        })
        .collect();
    let users: Vec<User> = threads
        .into_iter()
        .map(|one| one.join().expect("no thread panics"))
        .collect();
    let bad: Sectors = users.iter().flat_map(|user| user.bad.clone()).collect();
    let stuck: Sectors = users.iter().flat_map(|user| user.stuck.clone()).collect();
    let mut repaired: Sectors = users
        .iter()
        .flat_map(|user| user.ever_repaired.clone())
        .collect();
    let changes: Vec<_> = users.into_iter().map(|user| user.changes).collect();

    fail_one_in(0);
    // Reading mends what an unbind at once must not lose. But where a full table hides what the BTT has cleared, only that
    // shows that the bus has lost half of an entry.
    if setup.may_overflow() || thread_rng().gen() {
        world.badblocks.read_badrange();
        world.badblocks.refresh();
        setup.expect(&bad, &world.listed(), "in the list", &changes);
        assert!(
            world.in_table().is_subset(&(&world.listed() | &stuck)),
            "in the table"
        );
    }

    // Behind the end of a full table, the driver can't tell the half of an entry that the bus has lost from what the BTT has
    // cleared.
    let lost: Sectors = match attached.is_some_and(|(table, _)| table.was_full()) {
        true => region.lost().iter().flat_map(sectors).collect(),
        false => Sectors::new(),
    };

    drop(ManuallyDrop::into_inner(world));
    scope.close();
    worker.join().expect("no thread panics");
    let kept = in_badrange(region);
    let shown: Sectors = region
        .bad_sectors()
        .range(NAMESPACE..)
        .map(|sector| sector - NAMESPACE)
        .collect();

    // A full table can't split an entry of which the bus clears a part.
    repaired.extend(first_known.difference(&known));
    let stale = match region.was_table_full() {
        true => &lost | &repaired,
        false => lost.clone(),
    };

    // libnvdimm would loop over errors that nobody removes.
    assert!(
        if setup.has_commands {
            shown.is_subset(&(&kept | &stale))
                && (region.was_table_full() || kept.is_subset(&shown))
        } else {
            shown.is_empty()
        },
        "in the region's bad blocks: {shown:?}, in the badrange list: {kept:?}"
    );

    setup.expect(&(&bad - &lost), &kept, "in the badrange list", &changes);
    assert_eq!(in_front(region), outside, "in front of the namespace");
    check_rebind(setup, region, &kept);
}

/// What is bound next finds the same errors.
fn check_rebind(setup: Setup, region: &'static Region, bad: &Sectors) {
    let scope = leak(Scope::new());
    let setup = Setup {
        mode: Mode::Fsdax,
        ..setup
    };
    let world = ManuallyDrop::new(World::bind(setup, region, scope, None));

    assert_eq!(world.listed(), *bad, "when it is bound again");
    let listed = world.listed().range(setup.mode.data()..).copied().collect();

    // The table has all of them, unless it is full.
    assert!(
        world.in_table() == listed
            || world.in_table().is_subset(&listed)
                && world.badblocks.table().count() >= BadblocksTable::room(0)
    );
    drop(ManuallyDrop::into_inner(world));
}

fn check(mode: Mode, pages: u64, has_commands: bool, faults: u32) {
    let setup = Setup {
        mode,
        pages,
        has_commands,
        faults,
    };
    check_interleavings(INTERLEAVINGS, move || interleave(setup));
}

#[test]
fn a_disk_has_each_error_on_a_bus_with_commands() {
    check(Mode::Fsdax, 12, true, 0);
    check(Mode::Fsdax, 3, true, 0);
}

#[test]
fn a_disk_has_each_error_on_a_bus_without_commands() {
    check(Mode::Fsdax, 12, false, 0);
}

#[test]
fn a_btt_has_each_error_on_a_bus_with_commands() {
    check(Mode::Sector, 2, true, 0);
}

#[test]
fn a_btt_has_each_error_on_a_bus_without_commands() {
    check(Mode::Sector, 2, false, 0);
}

#[test]
fn no_error_is_forgotten_where_the_table_of_a_btt_is_full() {
    check(Mode::Sector, 12, true, 0);
    check(Mode::Sector, 12, false, 0);
}

/// Calls `test` with a region, where allocations succeed.
fn with_region(has_commands: bool, test: impl Fn(&'static Region)) -> impl Fn() {
    move || {
        fail_one_in(0);
        test(leak(Region::at(REGION, has_commands)));
    }
}

/// Calls `test` with a region, in one interleaving.
fn check_once(has_commands: bool, test: impl Fn(&'static Region) + Send + Sync + 'static) {
    shuttle::check_random(with_region(has_commands, test), 1);
}

/// Calls `test` with a region of a bus with commands, in so many interleavings.
fn check_each(number: usize, test: impl Fn(&'static Region) + Send + Sync + 'static) {
    check_interleavings(number, with_region(true, test));
}

#[test]
fn reports_of_neighbours_add_no_entries_of_all_that_is_bad() {
    let setup = Setup::new(Mode::Fsdax, true);

    check_each(INTERLEAVINGS, move |region| {
        let scope = leak(Scope::new());
        let worker = thread::spawn(|| scope.run_works());
        let world = ManuallyDrop::new(World::bind(setup, region, scope, None));

        for page in 1..setup.pages {
            let page = addresses(&(page * PAGE..(page + 1) * PAGE));
            // Both are called for each machine check, in either order.
            let by_notifier = || {
                world
                    .badblocks
                    .memory_error(page.clone(), Source::MachineCheck)
            };
            let by_nfit = || {
                region.report(page.clone());
                region.populate();
                world.badblocks.read_badrange();
            };

            match thread_rng().gen() {
                true => (by_notifier(), by_nfit()),
                false => (by_nfit(), by_notifier()),
            };
        }
        drop(ManuallyDrop::into_inner(world));
        scope.close();
        worker.join().expect("no thread panics");
        // Each may be there twice: the platform's report may come behind the driver's entry.
        let list = region.list();
        let sectors: u64 = list
            .iter()
            .map(|entry| (entry.end - entry.start) / 512)
            .sum();

        assert!(sectors <= 2 * (setup.pages - 1) * PAGE, "{list:?}");
    });
}

#[test]
fn an_error_stays_listed_if_its_repair_is_abandoned_while_others_are_added() {
    let setup = Setup::new(Mode::Fsdax, true);
    let (added, cleared) = (4 * PAGE..5 * PAGE, 6 * PAGE..7 * PAGE);

    check_each(INTERLEAVINGS, move |region| {
        region.report(addresses(&cleared));
        let scope = leak(Scope::new());
        let world = leak(World::bind(setup, region, scope, None));
        let page = cleared.clone();
        let repair = thread::spawn(move || {
            let _guard = world.repair.lock();
            let repair = world.badblocks.begin_repair(&world.span(&page));

            world.region.clear_poison(&addresses(&page));
            // The store has failed.
            drop(repair);
        });
        let report = world.badblocks.add(&addresses(&added), Origin::User);

        report.expect("there is memory");
        world.badblocks.read_badrange();
        repair.join().expect("no thread panics");
        world.badblocks.read_badrange();
        let listed = in_badrange(region);

        assert_eq!(listed, added.clone().chain(cleared.clone()).collect());
    });
}

/// Returns what the badrange list has at the end of sectors 16 to 31, an entry behind the end of the full table of a BTT, which
/// has cleared some of them unnoticed. Some were reported since.
fn listed_behind_full_table(
    region: &'static Region,
    cleared: Range<u64>,
    reported: Option<Range<u64>>,
) -> Sectors {
    let setup = Setup::new(Mode::Sector, true);
    let entry = 16..32;

    region.report(addresses(&entry));
    let scope = leak(Scope::new());
    let (table, before) = attach(setup, region, &mut Sectors::new());
    let attached = Some((table, &before[..]));
    let world = ManuallyDrop::new(World::bind(setup, region, scope, attached));
    let singles = (40..).step_by(2).map(|sector| sector..sector + 1);
    let add = |sectors: Range<u64>| {
        let added = world.badblocks.add(&addresses(&sectors), Origin::User);

        added.expect("there is memory");
    };

    // The last one, in front of the others, does not fit any more.
    singles
        .take(BadblocksTable::CAPACITY - table.count())
        .chain(std::iter::once(8..9))
        .for_each(add);
    assert_eq!(table.count(), BadblocksTable::CAPACITY);
    // nsio_rw_bytes
    region.clear_poison(&addresses(&cleared));
    table.clear(cleared.start, cleared.end - cleared.start);
    reported.into_iter().for_each(add);
    drop(ManuallyDrop::into_inner(world));
    in_badrange(region)
        .into_iter()
        .filter(|sector| entry.contains(sector))
        .collect()
}

#[test]
fn what_the_btt_has_cleared_behind_the_end_of_a_full_table_stays_good() {
    for reported in [None, Some(17..18)] {
        check_once(true, move |region| {
            let listed = listed_behind_full_table(region, 24..32, reported.clone());

            assert_eq!(listed, (16..24).collect());
        });
    }
}

#[test]
fn a_new_error_of_what_the_btt_has_cleared_behind_the_end_of_a_full_table_is_listed() {
    check_once(true, |region| {
        let listed = listed_behind_full_table(region, 16..24, Some(18..20));

        assert_eq!(listed, (18..20).chain(24..32).collect());
    });
}

#[test]
fn an_entry_that_began_in_front_of_the_namespace_is_added_if_it_is_lost() {
    let setup = Setup::new(Mode::Fsdax, true);

    check_once(true, move |region| {
        let start = addresses(&(0..0)).start;
        let inside: Sectors = (0..PAGE).collect();

        region.report(start - 4096..start + 4096);
        let scope = leak(Scope::new());
        let world = ManuallyDrop::new(World::bind(setup, region, scope, None));

        // The provider reports a machine check at the start of the entry.
        region.report(start - 4096..start - 4096 + 64);
        assert_eq!(in_badrange(region), Sectors::new());
        drop(ManuallyDrop::into_inner(world));
        assert_eq!(in_badrange(region), inside);
    });
}

#[test]
fn a_drop_of_an_error_behind_a_repair_by_the_bus_is_not_undone() {
    let setup = Setup::new(Mode::Fsdax, true);

    check_once(true, move |region| {
        let page = 4 * PAGE..5 * PAGE;

        region.report(addresses(&page));
        let scope = leak(Scope::new());
        let world = ManuallyDrop::new(World::bind(setup, region, scope, None));
        let repair = world.badblocks.begin_repair(&world.span(&page));

        world.region.clear_poison(&addresses(&page));
        repair
            .and_then(|repair| repair.finish(false))
            .expect("it can be repaired");
        // The platform and the driver note that it has failed again.
        region.report(addresses(&page));
        world
            .badblocks
            .memory_error(addresses(&page), Source::MachineCheck);
        let dropped = world.badblocks.remove(&addresses(&page));

        dropped.expect("it can be dropped");
        world.badblocks.read_badrange();
        assert!(world.badblocks.is_clean());
        drop(ManuallyDrop::into_inner(world));
        assert_eq!(in_badrange(region), Sectors::new());
    });
}

/// Calls `test` with a BTT of twelve pages on a bus without commands, whose table has had an entry of three sectors and
/// single ones until it was full.
fn check_full_btt(test: fn(&World)) {
    let setup = Setup::new(Mode::Sector, false);

    check_once(false, move |region| {
        let scope = leak(Scope::new());
        let table = leak(BadblocksTable::default());
        let world = ManuallyDrop::new(World::bind(setup, region, scope, Some((table, &[]))));
        let singles = (4..4 + 2 * BadblocksTable::CAPACITY as u64).step_by(2);

        for sectors in std::iter::once(0..3).chain(singles.map(|sector| sector..sector + 1)) {
            let added = world.badblocks.add(&addresses(&sectors), Origin::User);

            added.expect("there is memory");
        }
        assert_eq!(table.count(), BadblocksTable::CAPACITY);
        test(&world);
        drop(ManuallyDrop::into_inner(world));
    });
}

#[test]
fn a_repair_by_the_btt_counts_when_its_table_has_room_again() {
    check_full_btt(|world| {
        let all = 0..world.setup.pages * PAGE;
        let sector = addresses(&(50..51));

        world
            .badblocks
            .remove(&addresses(&all))
            .expect("they can be removed");
        world.badblocks.memory_error(sector, Source::MachineCheck);
        assert!(world.is_bad(50));
        world.badblocks.table().clear(50, 1);
        world.badblocks.refresh();
        assert_eq!(world.listed(), Sectors::new());
    });
}

#[test]
fn a_second_drop_removes_what_a_full_table_of_a_btt_has_kept() {
    check_full_btt(|world| {
        let removed = |sectors: Range<u64>| {
            let removed = world.badblocks.remove(&addresses(&sectors));

            removed.expect("they can be removed");
            !world.is_bad(sectors.start)
        };

        assert!(!removed(1..2), "there was room");
        assert!(removed(4..5));
        assert!(removed(1..2));
    });
}

#[test]
fn a_user_who_writes_badblocks_all_the_time_holds_up_no_repair() {
    /// Fewer than the reads of a table of eight entries that no write has changed meanwhile take, if they come by chance.
    const WRITES: u32 = 100;
    let setup = Setup::new(Mode::Fsdax, true);

    check_each(100, move |region| {
        let world = std::sync::Arc::new(ManuallyDrop::new(World::bind(
            setup,
            region,
            leak(Scope::new()),
            None,
        )));
        let is_over = std::sync::Arc::new(AtomicBool::new(false));
        let user = thread::spawn({
            let (world, is_over) = (world.clone(), is_over.clone());

            move || {
                let mut sector = 0;

                while !is_over.load(Ordering::Relaxed) {
                    let _ = world.badblocks.table().set(sector * 2, 1);
                    sector = (sector + 1) % 8;
                }
            }
        });
        let span = world.span(&(PAGE..2 * PAGE));
        let before = world.badblocks.table().version();

        drop(world.badblocks.begin_repair(&span));
        let writes = (world.badblocks.table().version() - before) / 2;

        is_over.store(true, Ordering::Relaxed);
        user.join().expect("it does not panic");
        assert!(writes < WRITES, "waited for {writes} writes");
    });
}

#[test]
fn what_a_user_adds_to_an_entry_while_a_full_table_drops_its_end_stays_bad() {
    let setup = Setup::new(Mode::Fsdax, true);

    check_each(INTERLEAVINGS, move |region| {
        let world = leak(World::bind(setup, region, leak(Scope::new()), None));
        let table = world.badblocks.table();
        let page = 3 * PAGE..4 * PAGE;
        let singles = (5 * PAGE..).step_by(2).map(|sector| sector..sector + 1);

        for sectors in std::iter::once(page.clone()).chain(singles) {
            if table.count() == BadblocksTable::room(0) {
                break;
            }
            let added = world.badblocks.add(&addresses(&sectors), Origin::User);

            added.expect("there is memory");
        }
        // The page's entry grows.
        let user = thread::spawn({
            let behind = page.end - setup.mode.data();

            move || table.set(behind, 1)
        });
        let removed = world
            .badblocks
            .remove(&addresses(&(page.start + 1..page.end - 1)));

        removed.expect("it can be removed");
        user.join().expect("it does not panic").expect("it fits");
        world.badblocks.refresh();
        for sector in [page.start, page.end - 1, page.end] {
            assert!(world.is_bad(sector), "{sector}");
            assert!(world.listed().contains(&sector), "{sector}");
        }
    });
}

#[test]
fn a_repaired_sector_stays_good_where_its_entry_in_a_full_table_ends_behind_the_disk() {
    let setup = Setup::new(Mode::Fsdax, true);

    check_once(true, move |region| {
        let world = ManuallyDrop::new(World::bind(setup, region, leak(Scope::new()), None));
        let table = world.badblocks.table();
        let end = setup.pages * PAGE;
        let repaired = end - 4..end - 2;
        let write = |sectors: Range<u64>| {
            let first = sectors.start - setup.mode.data();

            table.set(first, sectors.end - sectors.start)
        };

        // A user can write what no disk has.
        write(end - PAGE..end + 1).expect("there is room");
        for sector in (2 * PAGE..).step_by(2).take(BadblocksTable::CAPACITY - 1) {
            write(sector..sector + 1).expect("there is room");
        }
        let removed = world.badblocks.remove(&addresses(&repaired));

        removed.expect("it can be removed");
        // A write makes the driver read the table.
        write(2 * PAGE..2 * PAGE + 1).expect("it is there");
        world.badblocks.refresh();
        for sector in end - PAGE..end {
            assert_eq!(
                world.is_bad(sector),
                !repaired.contains(&sector),
                "{sector}"
            );
        }
        drop(ManuallyDrop::into_inner(world));
    });
}

#[test]
fn a_disk_whose_errors_are_repaired_needs_no_lookup() {
    let setup = Setup::new(Mode::Fsdax, true);

    check_once(true, move |region| {
        let scope = leak(Scope::new());
        let world = ManuallyDrop::new(World::bind(setup, region, scope, None));
        let page = addresses(&(10 * PAGE..11 * PAGE));

        assert!(world.badblocks.is_clean());
        world
            .badblocks
            .add(&page, Origin::User)
            .expect("there is memory");
        assert!(!world.badblocks.is_clean());
        world.badblocks.remove(&page).expect("it can be removed");
        assert!(world.badblocks.is_clean());
        drop(ManuallyDrop::into_inner(world));
    });
}

#[test]
fn a_report_that_shortens_an_entry_during_unbind_loses_no_error() {
    for has_commands in [true, false] {
        let setup = Setup::new(Mode::Fsdax, has_commands);

        check_once(has_commands, move |region| {
            let page = 4 * PAGE..5 * PAGE;

            region.report(addresses(&page));
            let scope = leak(Scope::new());
            let world = ManuallyDrop::new(World::bind(setup, region, scope, None));

            // The provider reports a machine check in the page's first line, and can't notify the driver.
            let start = addresses(&page).start;

            region.report(start..start + 64);
            drop(ManuallyDrop::into_inner(world));
            assert_eq!(in_badrange(region), page.collect());
        });
    }
}

#[test]
fn a_disk_has_each_error_where_allocations_fail() {
    check(Mode::Fsdax, 12, true, 5);
    check(Mode::Fsdax, 12, false, 5);
}

#[test]
fn a_btt_has_each_error_where_allocations_fail() {
    check(Mode::Sector, 2, true, 5);
    check(Mode::Sector, 2, false, 5);
}
