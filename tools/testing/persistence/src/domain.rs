// SPDX-License-Identifier: GPL-2.0

//! The stores that have reached the medium, and those that may have.
//!
//! Rules, for write-back memory (Intel SDM volume 1, 11.4.4 and 12.4; volume 2, "CLWB", "CLFLUSHOPT", "CLFLUSH", "SFENCE"):
//!
//! * A store is in the cache of its CPU. The line may be evicted, and so become durable, at any time.
//! * `clwb` and `clflushopt` begin a write-back of the line as it is then. A later `sfence` or `mfence` of that CPU waits
//!   for it. `clflush` needs no fence (it is ordered with later stores).
//! * A non-temporal store is in a buffer of its CPU, which the same fences drain.
//! * A locked instruction drains, too, but a driver that relies on the next lock has forgotten its fence. So write-backs
//!   that were pending then become durable with the next `sfence` or `mfence` of any CPU: that CPU may act for the one
//!   that stored, because it took the lock afterwards.
//! * Buffers of non-temporal stores are not coherent: a write-back by another CPU does not take what is in one, and the
//!   buffer may leave in pieces of 8 bytes, in any order (SDM volume 3, "Buffering of Write Combining Memory Locations").
//! * With eADR the caches are persistent, but not these buffers: a store is durable at once unless it is non-temporal.

use crate::LINE;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// A line's contents.
pub type Line = [u8; LINE];

/// Bytes that the model distinguishes: the smallest non-temporal store.
const UNIT: usize = 4;
const UNITS: usize = LINE / UNIT;
/// Intermediate contents kept of a line.
const VERSIONS: usize = 8;
/// Lines of a sector.
const SECTOR: u32 = 512 / LINE as u32;

/// The parts that the power supply keeps alive long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The memory controller (ADR): caches are lost.
    #[default]
    Adr,
    /// The caches as well (eADR).
    Eadr,
}

/// The units that a crash image may tear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tearing {
    /// Each cache line is old, new, or between: all that the processor promises.
    #[default]
    Lines,
    /// A sector of 512 bytes is as durable as it is or as new as it is, and not written while it is being stored to: what
    /// ext4 assumes of a disk for its superblocks.
    Sectors,
}

/// A store.
#[derive(Debug, Clone, Copy)]
pub struct Store {
    /// CPU number.
    pub cpu: usize,
    /// Offset in the memory.
    pub at: u64,
    /// Bytes.
    pub length: usize,
    /// Address of the instruction.
    pub pc: u64,
    /// Whether it bypasses the caches.
    pub non_temporal: bool,
}

/// A line that is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undurable {
    /// Its number in the memory.
    pub line: u32,
    /// Address of the instruction that stored to it last.
    pub pc: u64,
    /// Whether all of it has been written back, and only a fence is missing.
    pub written_back: bool,
}

/// A line that has undurable units.
#[derive(Debug)]
struct Dirty {
    /// Write-backs from before this time have nothing newer than the medium.
    since: u64,
    /// Times of the last store to each unit.
    stored: [u64; UNITS],
    /// Times at which the contents were that each unit has on the medium.
    durable: [u64; UNITS],
    /// Last times at which a write-back of each unit began.
    written_back: [u64; UNITS],
    pc: u64,
    /// Contents after a store, oldest first; the last one is the newest.
    versions: Vec<Version>,
}

/// Contents of a line after a store.
#[derive(Debug, Clone, Copy)]
struct Version {
    time: u64,
    non_temporal: bool,
    data: Line,
}

impl Dirty {
    fn new(since: u64) -> Self {
        Self {
            since,
            stored: [0; UNITS],
            durable: [0; UNITS],
            written_back: [0; UNITS],
            pc: 0,
            versions: Vec::new(),
        }
    }

    /// Returns whether a store may have changed units of a write-back since it began.
    fn is_stored_after(&self, pending: &Pending) -> bool {
        pending.time < self.since
            || units(pending.units).any(|unit| self.stored[unit] > pending.time)
    }

    fn undurable_units(&self) -> u16 {
        mask(|unit| self.stored[unit] > self.durable[unit])
    }
}

fn mask(test: impl Fn(usize) -> bool) -> u16 {
    (0..UNITS).fold(0, |mask, unit| mask | (u16::from(test(unit)) << unit))
}

fn units(mask: u16) -> impl Iterator<Item = usize> {
    (0..UNITS).filter(move |unit| mask & (1 << unit) != 0)
}

fn copy_unit(to: &mut Line, from: &Line, unit: usize) {
    let bytes = unit * UNIT..(unit + 1) * UNIT;
    to[bytes.clone()].copy_from_slice(&from[bytes]);
}

/// Contents on their way to the medium.
#[derive(Debug, Clone, Copy)]
struct Pending {
    time: u64,
    line: u32,
    units: u16,
    /// Whether it is a non-temporal store, not a write-back.
    non_temporal: bool,
    data: Line,
}

/// The state of the memory.
pub struct Domain {
    policy: Policy,
    time: u64,
    /// The medium.
    medium: Vec<u8>,
    dirty: BTreeMap<u32, Dirty>,
    /// Pending write-backs of each CPU.
    pending: Vec<Vec<Pending>>,
    /// Pending write-backs that a locked instruction followed.
    shared: Vec<Pending>,
    /// The line that each CPU stored to last.
    last: BTreeMap<usize, u32>,
    rng: Rng,
}

impl Domain {
    /// Creates a memory with these contents, all of them durable. `seed` determines the crash images.
    pub fn new(policy: Policy, medium: Vec<u8>, seed: u64) -> Self {
        Self {
            policy,
            time: 0,
            medium,
            dirty: BTreeMap::new(),
            pending: Vec::new(),
            shared: Vec::new(),
            last: BTreeMap::new(),
            rng: Rng::with_seed(seed),
        }
    }

    /// Returns the contents of a line on the medium.
    ///
    /// # Panics
    ///
    /// If the line is outside the memory.
    pub fn line(&self, line: u32) -> Line {
        let at = line as usize * LINE;
        let mut data = [0; LINE];
        data.copy_from_slice(&self.medium[at..at + LINE]);
        data
    }

    /// Returns the whole medium.
    pub fn medium(&self) -> &[u8] {
        &self.medium
    }

    /// Returns the number of lines that are not durable.
    pub fn undurable_count(&self) -> usize {
        self.dirty.len()
    }

    /// Returns the lines that are not durable, in order.
    pub fn undurable(&self) -> impl Iterator<Item = Undurable> {
        self.dirty.iter().map(|(&line, dirty)| Undurable {
            line,
            pc: dirty.pc,
            written_back: units(dirty.undurable_units())
                .all(|unit| dirty.written_back[unit] >= dirty.stored[unit]),
        })
    }

    /// Records a store to one line, which contains `data` after it. Returns whether it is durable at once.
    pub fn store(&mut self, store: &Store, data: &Line) -> bool {
        self.time += 1;
        let time = self.time;
        let line = (store.at / LINE as u64) as u32;
        let first = store.at as usize % LINE;
        let end = (first + store.length).min(LINE);
        let stored = mask(|unit| unit * UNIT < end && (unit + 1) * UNIT > first);
        if self.policy == Policy::Eadr && !store.non_temporal {
            return self.complete_stored(line, stored, data);
        }
        self.last.insert(store.cpu, line);
        self.make_room_for(store.cpu);
        let dirty = self.dirty.entry(line).or_insert_with(|| Dirty::new(time));
        if store.non_temporal {
            let pending = &mut self.pending[store.cpu];
            match pending.last_mut() {
                // A buffer holds a line.
                Some(last) if last.line == line && !dirty.is_stored_after(last) => {
                    units(stored).for_each(|unit| copy_unit(&mut last.data, data, unit));
                    last.units |= stored;
                    last.time = time;
                }
                _ => pending.push(Pending {
                    time,
                    line,
                    units: stored,
                    non_temporal: true,
                    data: *data,
                }),
            }
        }
        for unit in units(stored) {
            dirty.stored[unit] = time;
            if store.non_temporal {
                dirty.written_back[unit] = time;
            }
        }
        dirty.pc = store.pc;
        if dirty.versions.len() == VERSIONS {
            let one = self.rng.usize(..VERSIONS);
            dirty.versions.remove(one);
        }
        dirty.versions.push(Version {
            time,
            non_temporal: store.non_temporal,
            data: *data,
        });
        false
    }

    /// Records that a CPU writes back a line, which contains `data`. Returns whether it is durable at once, as after
    /// `clflush` (`ordered`).
    pub fn write_back(&mut self, cpu: usize, line: u32, data: &Line, ordered: bool) -> bool {
        self.time += 1;
        self.make_room_for(cpu);
        let Some(dirty) = self.dirty.get_mut(&line) else {
            return false;
        };
        let others = (self.pending.iter().enumerate())
            .filter(|(other, _)| *other != cpu)
            .flat_map(|(_, pending)| pending)
            .filter(|pending| pending.non_temporal && pending.line == line);
        let in_buffers = others.fold(0, |all, pending| {
            all | pending.units & mask(|unit| dirty.stored[unit] <= pending.time)
        });
        let pending = Pending {
            time: self.time,
            line,
            units: dirty.undurable_units() & !in_buffers,
            non_temporal: false,
            data: *data,
        };
        units(pending.units).for_each(|unit| dirty.written_back[unit] = self.time);
        if ordered {
            return self.complete(&pending);
        }
        self.pending[cpu].push(pending);
        false
    }

    /// Records that a CPU is at a fence: it is not in the middle of a sector.
    pub fn ends_sector(&mut self, cpu: usize) {
        self.last.remove(&cpu);
    }

    /// Records a locked instruction.
    pub fn lock(&mut self, cpu: usize) {
        if let Some(pending) = self.pending.get_mut(cpu) {
            self.shared.append(pending);
        }
    }

    /// Returns whether a fence of this CPU has something to wait for.
    pub fn has_pending(&self, cpu: usize) -> bool {
        !self.shared.is_empty() || self.pending.get(cpu).is_some_and(|own| !own.is_empty())
    }

    /// Records an `sfence` or `mfence`. Returns the lines that changed on the medium.
    pub fn fence(&mut self, cpu: usize) -> BTreeSet<u32> {
        self.lock(cpu);
        let mut changed = BTreeSet::new();
        for pending in std::mem::take(&mut self.shared) {
            if self.complete(&pending) {
                changed.insert(pending.line);
            }
        }
        changed
    }

    fn make_room_for(&mut self, cpu: usize) {
        if self.pending.len() <= cpu {
            self.pending.resize_with(cpu + 1, Vec::new);
        }
    }

    fn write_medium(&mut self, line: u32, data: &Line) {
        let at = line as usize * LINE;
        self.medium[at..at + LINE].copy_from_slice(data);
    }

    /// Moves the stored units of a line to the medium, at once. Returns true: they are durable.
    fn complete_stored(&mut self, line: u32, stored: u16, data: &Line) -> bool {
        let mut medium = self.line(line);
        units(stored).for_each(|unit| copy_unit(&mut medium, data, unit));
        self.write_medium(line, &medium);
        if let Some(dirty) = self.dirty.get_mut(&line) {
            for unit in units(stored) {
                dirty.stored[unit] = self.time;
                dirty.durable[unit] = self.time;
            }
            if dirty.undurable_units() == 0 {
                self.dirty.remove(&line);
            }
        }
        true
    }

    /// Moves pending contents to the medium, unless newer ones are there. Returns whether any were moved.
    fn complete(&mut self, pending: &Pending) -> bool {
        let mut data = self.line(pending.line);
        let Some(dirty) = self.dirty.get_mut(&pending.line) else {
            return false;
        };
        let newer = |&unit: &usize| pending.time > dirty.durable[unit].max(dirty.since - 1);
        let moved: Vec<usize> = units(pending.units).filter(newer).collect();
        for &unit in &moved {
            dirty.durable[unit] = pending.time;
            copy_unit(&mut data, &pending.data, unit);
        }
        if dirty.undurable_units() == 0 {
            self.dirty.remove(&pending.line);
        }
        self.write_medium(pending.line, &data);
        !moved.is_empty()
    }

    /// Chooses the contents that a power failure at this moment leaves in the undurable lines. Returns those that differ
    /// from the medium.
    pub fn crash(&mut self, tearing: Tearing) -> Vec<(u32, Line)> {
        let mut rng = self.rng.fork();
        let favour = rng.u8(..8);
        let mut image = Vec::new();
        let mut sector = (u32::MAX, false);
        for (&line, dirty) in &self.dirty {
            let medium = self.line(line);
            let newest = dirty.versions.len() - 1;
            let chosen = match (tearing, favour) {
                (Tearing::Sectors, _) => {
                    if sector.0 != line / SECTOR {
                        let in_flight = self
                            .last
                            .values()
                            .any(|last| last / SECTOR == line / SECTOR);
                        sector = (line / SECTOR, !in_flight && rng.bool());
                    }
                    sector.1.then_some(newest)
                }
                (_, 0) => Some(newest),
                _ => match rng.u8(..3) {
                    0 => None,
                    1 => Some(newest),
                    _ => Some(rng.usize(..=newest)),
                },
            };
            let Some(version) = chosen else { continue };
            let in_pieces = tearing == Tearing::Lines
                && favour != 0
                && rng.bool()
                && dirty.versions.iter().all(|version| version.non_temporal);
            let mut data = medium;
            for word in 0..UNITS / 2 {
                let version = match in_pieces {
                    // Behind the newest is none: the medium stays.
                    true => rng.usize(..=newest + 1),
                    false => version,
                };
                let Some(version) = dirty.versions.get(version) else {
                    continue;
                };
                for unit in [2 * word, 2 * word + 1] {
                    // Stores that have become durable since are not lost again.
                    if dirty.durable[unit] <= version.time {
                        copy_unit(&mut data, &version.data, unit);
                    }
                }
            }
            if data != medium {
                image.push((line, data));
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEMORY: usize = 16 * LINE;

    /// The memory as the CPUs see it, and the model behind it.
    struct Machine {
        domain: Domain,
        seen: Vec<u8>,
    }

    impl Machine {
        fn new(policy: Policy) -> Self {
            Self {
                domain: Domain::new(policy, vec![0; MEMORY], 1),
                seen: vec![0; MEMORY],
            }
        }

        fn line(&self, line: u32) -> Line {
            let at = line as usize * LINE;
            self.seen[at..at + LINE].try_into().unwrap()
        }

        fn store(&mut self, cpu: usize, at: usize, value: u8, non_temporal: bool) {
            self.seen[at..at + 8].fill(value);
            let data = self.line((at / LINE) as u32);
            let store = Store {
                cpu,
                at: at as u64,
                length: 8,
                pc: at as u64,
                non_temporal,
            };
            self.domain.store(&store, &data);
        }

        fn write_back(&mut self, cpu: usize, line: u32) {
            let data = self.line(line);
            self.domain.write_back(cpu, line, &data, false);
        }

        fn medium(&self, at: usize) -> u8 {
            self.domain.medium()[at]
        }

        /// Returns the first two words of the first line that crash images have.
        fn first_words(&mut self) -> BTreeSet<(u8, u8)> {
            let mut words = || {
                let image = self.domain.crash(Tearing::Lines);
                let data = image.first().map_or([0; LINE], |(_, data)| *data);
                (data[0], data[8])
            };
            (0..200).map(|_| words()).collect()
        }

        /// Returns the numbers of lines in crash images that tear no sector.
        fn sizes(&mut self) -> BTreeSet<usize> {
            (0..100)
                .map(|_| self.domain.crash(Tearing::Sectors).len())
                .collect()
        }
    }

    #[test]
    fn store_is_durable_after_write_back_and_fence() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 64, 1, false);
        assert_eq!(machine.domain.undurable_count(), 1);
        machine.domain.fence(0);
        assert_eq!(
            machine.domain.undurable_count(),
            1,
            "a fence alone writes nothing back"
        );
        machine.write_back(0, 1);
        let undurable: Vec<Undurable> = machine.domain.undurable().collect();
        assert_eq!(
            undurable,
            [Undurable {
                line: 1,
                pc: 64,
                written_back: true
            }]
        );
        assert_eq!(machine.medium(64), 0);
        assert_eq!(machine.domain.fence(0), BTreeSet::from([1]));
        assert_eq!(
            (machine.domain.undurable_count(), machine.medium(64)),
            (0, 1)
        );
    }

    #[test]
    fn non_temporal_store_needs_a_fence_only() {
        let mut machine = Machine::new(Policy::Adr);
        (0..8).for_each(|word| machine.store(0, word * 8, 1, true));
        assert_eq!(machine.domain.undurable_count(), 1);
        machine.domain.fence(0);
        assert_eq!(
            (machine.domain.undurable_count(), machine.medium(56)),
            (0, 1)
        );
    }

    #[test]
    fn non_temporal_store_does_not_write_its_line_back() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 0, 1, false);
        machine.store(0, 8, 2, true);
        machine.domain.fence(0);
        assert_eq!((machine.medium(0), machine.medium(8)), (0, 2));
        assert_eq!(machine.domain.undurable_count(), 1);
    }

    #[test]
    fn store_after_write_back_is_not_durable() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 0, 1, false);
        machine.write_back(0, 0);
        machine.store(0, 0, 2, false);
        machine.domain.fence(0);
        assert_eq!(
            (machine.medium(0), machine.domain.undurable_count()),
            (1, 1)
        );
    }

    #[test]
    fn fence_of_another_cpu_waits_only_for_stores_before_a_lock() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 0, 1, true);
        machine.domain.fence(1);
        assert_eq!(machine.domain.undurable_count(), 1);
        machine.domain.lock(0);
        assert_eq!(
            machine.domain.undurable_count(),
            1,
            "a lock alone is no fence"
        );
        machine.domain.fence(1);
        assert_eq!(machine.domain.undurable_count(), 0);
    }

    #[test]
    fn old_write_back_does_not_replace_newer_contents() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 0, 1, false);
        machine.write_back(0, 0);
        machine.store(1, 0, 2, false);
        machine.write_back(1, 0);
        machine.domain.fence(1);
        assert_eq!(
            (machine.medium(0), machine.domain.undurable_count()),
            (2, 0)
        );
        machine.domain.fence(0);
        assert_eq!(machine.medium(0), 2);
        machine.store(1, 8, 3, false);
        machine.domain.lock(0);
        machine.domain.fence(0);
        assert_eq!(
            (machine.medium(0), machine.domain.undurable_count()),
            (2, 1)
        );
    }

    #[test]
    fn clflush_needs_no_fence() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 0, 1, false);
        let data = machine.line(0);
        assert!(machine.domain.write_back(0, 0, &data, true));
        assert_eq!(machine.medium(0), 1);
    }

    #[test]
    fn eadr_makes_every_store_durable_but_non_temporal_ones() {
        let mut machine = Machine::new(Policy::Eadr);
        machine.store(0, 0, 1, false);
        assert_eq!(
            (machine.medium(0), machine.domain.undurable_count()),
            (1, 0)
        );
        machine.store(0, 8, 2, true);
        machine.store(0, 16, 3, false);
        assert_eq!(
            [0, 8, 16].map(|at| machine.medium(at)),
            [1, 0, 3],
            "the buffer is lost"
        );
        machine.domain.fence(0);
        assert_eq!(
            (machine.medium(8), machine.domain.undurable_count()),
            (2, 0)
        );
    }

    #[test]
    fn write_back_does_not_take_what_another_cpu_has_in_a_buffer() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 0, 1, true);
        machine.store(1, 8, 2, false);
        machine.write_back(1, 0);
        machine.domain.fence(1);
        assert_eq!((machine.medium(0), machine.medium(8)), (0, 2));
        machine.domain.fence(0);
        assert_eq!(
            (machine.medium(0), machine.domain.undurable_count()),
            (1, 0)
        );
    }

    #[test]
    fn non_temporal_stores_to_a_line_have_no_order() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 0, 1, true);
        machine.store(0, 8, 2, true);
        let seen = machine.first_words();
        assert!(seen.contains(&(0, 2)), "{seen:?}");
    }

    #[test]
    fn crash_keeps_the_order_of_stores_to_a_line() {
        let mut machine = Machine::new(Policy::Adr);
        machine.store(0, 0, 1, false);
        machine.store(0, 8, 2, false);
        assert_eq!(
            machine.first_words(),
            BTreeSet::from([(0, 0), (1, 0), (1, 2)])
        );
    }

    #[test]
    fn sectors_are_not_torn_on_request() {
        let mut machine = Machine::new(Policy::Adr);
        (0..8).for_each(|line| machine.store(0, line * LINE, 1, false));
        machine.store(0, 8 * LINE, 1, false);
        assert_eq!(
            machine.sizes(),
            BTreeSet::from([0, 8]),
            "the second sector is being written"
        );
        machine.domain.ends_sector(0);
        assert_eq!(
            machine.sizes(),
            BTreeSet::from([0, 1, 8, 9]),
            "at a fence it has been written"
        );
    }

    /// One step of a CPU.
    #[derive(Debug, Clone)]
    enum Step {
        Store(usize, usize, bool),
        WriteBack(usize, u32),
        Lock(usize),
        Fence(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (cpu, line) = (0..3usize, 0..4u32);
        prop_oneof![
            4 => (cpu.clone(), 0..32usize, any::<bool>()).prop_map(|(cpu, word, non_temporal)| Step::Store(cpu, word * 8, non_temporal)),
            2 => (cpu.clone(), line).prop_map(|(cpu, line)| Step::WriteBack(cpu, line)),
            1 => cpu.clone().prop_map(Step::Lock),
            1 => cpu.prop_map(Step::Fence),
        ]
    }

    proptest! {
        /// Each word of a crash image is the durable value or a later one, and no durable value is lost.
        #[test]
        fn crash_image_has_only_values_since_the_durable_one(steps in proptest::collection::vec(step(), 0..100)) {
            let mut machine = Machine::new(Policy::Adr);
            for (value, step) in (1u8..).zip(steps) {
                match step {
                    Step::Store(cpu, at, non_temporal) => machine.store(cpu, at, value, non_temporal),
                    Step::WriteBack(cpu, line) => machine.write_back(cpu, line),
                    Step::Lock(cpu) => machine.domain.lock(cpu),
                    Step::Fence(cpu) => drop(machine.domain.fence(cpu)),
                }
                for (line, data) in machine.domain.crash(Tearing::Lines) {
                    let newest = machine.line(line);
                    for (at, &byte) in data.iter().enumerate() {
                        // Values grow with time.
                        let durable = machine.medium(line as usize * LINE + at);
                        prop_assert!(byte >= durable && byte <= newest[at]);
                    }
                }
            }
            // In the end, a write-back and a fence make everything durable.
            (0..4).for_each(|line| machine.write_back(0, line));
            (0..3).for_each(|cpu| drop(machine.domain.fence(cpu)));
            prop_assert_eq!(machine.domain.undurable_count(), 0);
            prop_assert_eq!(machine.domain.medium(), &machine.seen);
        }
    }

    #[test]
    fn clean_line_is_not_written_back() {
        let mut domain = Domain::new(Policy::Adr, vec![0; MEMORY], 1);
        domain.write_back(0, 3, &[7; LINE], false);
        assert!(!domain.has_pending(0));
        assert_eq!(domain.line(3), [0; LINE]);
    }
}
