// SPDX-License-Identifier: GPL-2.0

//! The badrange list of a bus, which has the errors of all its regions.

use super::Region;
use crate::abstractions::{
    badblocks::BadblocksTable,
    bindings, //
};
use core::ops::{
    Deref,
    Range, //
};
use kernel::{
    alloc::Flags,
    block::SECTOR_SHIFT,
    prelude::*,
    sync::{
        GlobalGuard,
        SpinLock,
        SpinLockGuard, //
    },
    types::NotThreadSafe, //
};

impl Region {
    /// Takes the lock of the bus, with which libnvdimm walks its badrange list. Sleeps.
    pub(crate) fn lock_bus(&self) -> Bus<'_> {
        // SAFETY: By the type invariant the region is valid, and so is its bus, which outlives it.
        unsafe { bindings::nvdimm_bus_lock(&raw mut (*self.as_raw()).dev) };
        // INVARIANT: The lock was just taken.
        Bus(self, NotThreadSafe)
    }

    /// Takes the lock of the bus to change the bad blocks of the region at the physical addresses of a
    /// `namespace`: waits while they are [`Hidden`] for another one. Sleeps.
    pub(crate) fn lock_bus_to_change(&self, namespace: &Range<u64>) -> BusToChange<'_> {
        let guard = self.lock_hiding(namespace);

        BusToChange {
            bus: self.lock_bus(),
            _guard: guard,
        }
    }

    /// Takes [`static@HIDING`], unless `namespace` is the only one of the region. Sleeps.
    fn lock_hiding(&self, namespace: &Range<u64>) -> Option<GlobalGuard<HIDING>> {
        let start = self.start();
        let is_alone =
            namespace.start <= start && namespace.end >= start.saturating_add(self.size());

        (!is_alone).then(|| HIDING.lock())
    }

    /// Removes the physical `addresses` from the bad blocks of the region. The badrange list keeps
    /// them. Sleeps.
    #[inline(never)]
    pub(super) fn hide_badblocks(&self, addresses: &Range<u64>) {
        self.lock_bus().clear_badblocks(addresses);
    }

    /// Removes the bad blocks of the region in front of the physical addresses of a `namespace`
    /// until the result is dropped. [`ENOMEM`]. Sleeps.
    pub(super) fn hide_badblocks_before(&self, namespace: &Range<u64>) -> Result<Hidden<'_>> {
        let before = self.start()..namespace.start;
        let mut hidden = Hidden {
            region: self,
            ranges: KVVec::new(),
            _guard: self.lock_hiding(namespace),
        };

        if before.is_empty() {
            return Ok(hidden);
        }
        hidden.ranges = KVVec::with_capacity(BadblocksTable::CAPACITY, GFP_KERNEL)?;

        let bus = self.lock_bus();

        while let Some(bad) = bus.first_badblocks(&before) {
            hidden
                .ranges
                .push_within_capacity(bad.clone())
                .map_err(|_| ENOMEM)?;
            bus.clear_badblocks(&bad);
        }
        drop(bus);
        Ok(hidden)
    }

    /// Adds what the badrange list has in the physical addresses `within` to the bad blocks of the
    /// region, which were hidden, as far as there is room. Sleeps.
    pub(super) fn show_badblocks(&self, within: &Range<u64>) {
        self.lock_bus()
            .show_badblocks(core::slice::from_ref(within));
    }
}

/// Returns the part of `range` that is `within`, which may be empty.
fn part(range: &Range<u64>, within: &Range<u64>) -> Range<u64> {
    range.start.max(within.start)..range.end.min(within.end)
}

kernel::sync::global_lock! {
    // SAFETY: `init` initialises it before a driver is registered, and without a bound driver there
    // is no `Region`.
    unsafe(uninit) static HIDING: Mutex<()> = ();
}

/// Initialises the lock.
///
/// # Safety
///
/// To be called once, before a driver is registered.
pub(super) unsafe fn init() {
    // SAFETY: `# Safety` requires that this is the first call.
    unsafe { HIDING.init() };
}

/// Bad blocks in front of a namespace that the table of a region lacks until this is dropped. There
/// is one at a time where a region has several namespaces, because libnvdimm probes them
/// concurrently.
pub(super) struct Hidden<'a> {
    region: &'a Region,
    ranges: KVVec<Range<u64>>,
    _guard: Option<GlobalGuard<HIDING>>,
}

impl Drop for Hidden<'_> {
    /// Adds those to the table again that the badrange list still has. Sleeps.
    fn drop(&mut self) {
        if !self.ranges.is_empty() {
            self.region.lock_bus().show_badblocks(&self.ranges);
        }
    }
}

/// The locked bus of a region, whose bad blocks are not [`Hidden`] for another namespace.
pub(crate) struct BusToChange<'a> {
    // Unlocked first, in the order of the fields.
    bus: Bus<'a>,
    _guard: Option<GlobalGuard<HIDING>>,
}

impl<'a> Deref for BusToChange<'a> {
    type Target = Bus<'a>;

    fn deref(&self) -> &Bus<'a> {
        &self.bus
    }
}

impl BusToChange<'_> {
    /// Adds the physical `addresses` to the bad blocks of the region, as far as there is room.
    /// Returns whether there was.
    pub(crate) fn set_badblocks(&self, addresses: &Range<u64>) -> bool {
        let room = BadblocksTable::room(self.0.size() >> SECTOR_SHIFT);

        self.set_while_room(addresses, room)
    }
}

/// The locked bus of a region.
///
/// # Invariants
///
/// The lock of the region's bus is held.
pub(crate) struct Bus<'a>(&'a Region, NotThreadSafe);

impl Bus<'_> {
    /// Returns the parts of the badrange list that are in the physical addresses `within`.
    /// [`ENOMEM`].
    pub(crate) fn badranges(&self, within: &Range<u64>) -> Result<KVVec<Range<u64>>> {
        let mut entries = KVVec::new();

        loop {
            let mut missing = 0_usize;

            entries.clear();
            self.cut_badranges(|entry| {
                let entry = part(entry, within);

                if !entry.is_empty() && entries.push_within_capacity(entry).is_err() {
                    missing = missing.saturating_add(1);
                }
                None
            })?;
            if missing == 0 {
                return Ok(entries);
            }
            entries = KVVec::with_capacity(entries.len().saturating_add(missing), GFP_KERNEL)?;
        }
    }

    /// Removes what `cut` returns, which is called with the physical addresses of each entry of the
    /// badrange list until it returns none of them. It must not sleep.
    ///
    /// [`ENOMEM`] if there is no memory to split an entry; then those behind it are as they were.
    /// Sleeps.
    pub(crate) fn cut_badranges(
        &self,
        mut cut: impl FnMut(&Range<u64>) -> Option<Range<u64>>,
    ) -> Result {
        let mut spare = None;

        // Where the lock rules out to wait for memory, get it without, and walk the list again.
        while !self.lock_badranges().cut(&mut cut, &mut spare) {
            spare = Some(new_entry(GFP_KERNEL)?);
        }
        Ok(())
    }

    /// Adds an entry with the physical `addresses` to the badrange list. [`ENOMEM`].
    ///
    /// Entries may overlap: those who read the list merge them.
    pub(crate) fn add_badrange(&self, addresses: &Range<u64>) -> Result {
        let mut entry = new_entry(GFP_KERNEL)?;

        set_addresses(&mut entry, addresses);
        self.lock_badranges().append(entry);
        Ok(())
    }

    fn lock_badranges(&self) -> Badranges<'_> {
        // SAFETY: The bus outlives the region, and was registered with an initialised `badrange`.
        let badrange = unsafe { &raw mut (*self.0.bus()).badrange };
        // SAFETY: `badrange_init` has initialised the lock, a `spinlock_t` like that of a
        // `SpinLock<()>`. It is valid for as long as the bus.
        let lock = unsafe { SpinLock::<()>::from_raw(&raw mut (*badrange).lock) };

        // INVARIANT: The lock is held.
        Badranges {
            _guard: lock.lock(),
            // SAFETY: `badrange` is valid; this takes the address of a field.
            head: unsafe { &raw mut (*badrange).list },
        }
    }

    fn set_while_room(&self, addresses: &Range<u64>, room: usize) -> bool {
        let sectors = self.0.sectors(addresses);
        let end = sectors.end;
        let (reached, _) = self.0.badblocks().set_while_room(sectors, room);

        reached >= end
    }

    /// Adds what the badrange list has in `ranges` of physical addresses to the bad blocks of the
    /// region, as libnvdimm does: as many as the table can have.
    fn show_badblocks(&self, ranges: &[Range<u64>]) {
        // Without a cut, it needs no memory.
        let _ = self.cut_badranges(|entry| {
            for range in ranges {
                let listed = part(entry, range);

                if !listed.is_empty() {
                    self.set_while_room(&listed, BadblocksTable::CAPACITY);
                }
            }
            None
        });
    }

    /// Returns the first bad blocks of the region in the physical addresses `within`.
    fn first_badblocks(&self, within: &Range<u64>) -> Option<Range<u64>> {
        let Range { start, end } = self.0.sectors(within);
        let len = end.saturating_sub(start);
        let (first, count) = self.0.badblocks().entry_in(start, len)?;
        let address = |sector: u64| self.0.start().saturating_add(sector << SECTOR_SHIFT);

        Some(part(
            &(address(first)..address(first.saturating_add(count))),
            within,
        ))
    }

    /// Removes the physical `addresses`, which are whole sectors, from the bad blocks of the
    /// region.
    pub(crate) fn clear_badblocks(&self, addresses: &Range<u64>) {
        let Range { mut start, end } = self.0.sectors(addresses);
        let table = self.0.badblocks();

        // `badblocks_clear` keeps an entry that it has no room to split, and nothing would ever
        // remove it. Remove the whole entry, then add the parts that remain, if they fit.
        while let Some((first, count)) = table.entry_in(start, end.saturating_sub(start)) {
            let behind = first.saturating_add(count);

            table.clear(first, count);
            let _ = table.set(first, start.saturating_sub(first));
            let _ = table.set(end, behind.saturating_sub(end));
            start = behind.max(start.saturating_add(1));
        }
    }
}

impl Drop for Bus<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held.
        unsafe { bindings::nvdimm_bus_unlock(&raw mut (*self.0.as_raw()).dev) };
    }
}

/// The locked badrange list of a bus.
///
/// # Invariants
///
/// The lock of the list is held. `head` is its head; all its nodes are fields `list` of a
/// `badrange_entry` that `kmalloc` has allocated.
struct Badranges<'a> {
    _guard: SpinLockGuard<'a, ()>,
    head: *mut kernel::bindings::list_head,
}

impl Badranges<'_> {
    /// Removes what `cut` returns, which is called with the physical addresses of each entry until
    /// it returns none of them.
    ///
    /// A part in the middle splits an entry. Returns `false` at an entry for whose second half
    /// there is neither `spare` nor memory.
    fn cut(
        &self,
        cut: &mut impl FnMut(&Range<u64>) -> Option<Range<u64>>,
        spare: &mut Option<KBox<bindings::badrange_entry>>,
    ) -> bool {
        // SAFETY: By the type invariant the head is valid. The list changes with its lock held
        // only.
        let mut node = unsafe { (*self.head).next };

        while node != self.head {
            // SAFETY: Each node but the head is the field `list` of a `badrange_entry`, which is
            // accessed and freed only with the lock of the list held, as it is here.
            let (entry, addresses, next) = unsafe {
                let entry = kernel::container_of!(node, bindings::badrange_entry, list);

                (entry, addresses(&*entry), (*node).next)
            };
            let removed = cut(&addresses)
                .map(|removed| part(&removed, &addresses))
                .filter(|removed| !removed.is_empty());
            let Some(removed) = removed else {
                node = next;
                continue;
            };
            let front = addresses.start..removed.start;
            let back = removed.end..addresses.end;

            if front.is_empty() && back.is_empty() {
                // SAFETY: `entry` is of this list, and not used again.
                unsafe { self.remove(entry) };
                node = next;
                continue;
            }
            let rest = if front.is_empty() { &back } else { &front };

            if !front.is_empty() && !back.is_empty() {
                let Some(mut second) = spare.take().or_else(|| new_entry(GFP_ATOMIC).ok()) else {
                    return false;
                };

                set_addresses(&mut second, &back);
                // At the end of the list, so that it is passed to `cut` as well.
                self.append(second);
            }
            // SAFETY: `entry` is still in the list, and is accessed only with the lock of the list
            // held.
            set_addresses(unsafe { &mut *entry }, rest);
        }
        true
    }

    /// Adds an entry at the end of the list.
    fn append(&self, entry: KBox<bindings::badrange_entry>) {
        let entry = KBox::into_raw(entry);

        // INVARIANT: A `KBox` is allocated with `kmalloc`.
        // SAFETY: By the type invariant the list is valid, and its lock held. The entry is valid,
        // and from here on owned by the list.
        unsafe {
            let last = (*self.head).prev;

            (*entry).list.next = self.head;
            (*entry).list.prev = last;
            (*last).next = &raw mut (*entry).list;
            (*self.head).prev = &raw mut (*entry).list;
        }
    }

    /// Removes an entry of the list, and frees it.
    ///
    /// # Safety
    ///
    /// `entry` is an entry of this list, and not used afterwards.
    unsafe fn remove(&self, entry: *mut bindings::badrange_entry) {
        // SAFETY: `# Safety` requires an entry of the list. By the type invariant the lock is held,
        // so that its neighbours are valid, and it was allocated with `kmalloc`, as a `KBox` is.
        unsafe {
            let (prev, next) = ((*entry).list.prev, (*entry).list.next);

            (*prev).next = next;
            (*next).prev = prev;
            drop(KBox::from_raw(entry));
        }
    }
}

/// Returns an empty entry of the badrange list that is in no list yet. [`ENOMEM`].
fn new_entry(flags: Flags) -> Result<KBox<bindings::badrange_entry>> {
    let entry = bindings::badrange_entry {
        start: 0,
        length: 0,
        list: kernel::bindings::list_head::default(),
    };

    Ok(KBox::new(entry, flags)?)
}

fn addresses(entry: &bindings::badrange_entry) -> Range<u64> {
    entry.start..entry.start.saturating_add(entry.length)
}

fn set_addresses(entry: &mut bindings::badrange_entry, addresses: &Range<u64>) {
    entry.start = addresses.start;
    entry.length = addresses.end.saturating_sub(addresses.start);
}
