// SPDX-License-Identifier: GPL-2.0

//! A small table of bad blocks, which behaves like that of `block/badblocks.c`.

#[path = "../../../../abstractions/badblocks/gaps.rs"]
mod gaps;

use crate::prelude::{Error, Result};
use shuttle::sync::Mutex;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const ENOSPC: Error = Error(28);

#[derive(Default)]
pub(crate) struct BadblocksTable {
    /// Sorted, disjoint, and none longer than `LONGEST`.
    entries: Mutex<Vec<Range<u64>>>,
    version: AtomicU32,
    /// There was no room for more entries once.
    was_full: AtomicBool,
}

impl BadblocksTable {
    pub(crate) const CAPACITY: usize = 12;

    const LONGEST: u64 = 16;

    /// Returns all entries.
    pub(crate) fn all(&self) -> Vec<Range<u64>> {
        self.entries.lock().expect("no panic").clone()
    }

    /// Changes the entries: the version is odd meanwhile.
    fn write<T>(&self, change: impl FnOnce(&mut Vec<Range<u64>>) -> T) -> T {
        let mut entries = self.entries.lock().expect("no panic");

        self.version.fetch_add(1, Ordering::Relaxed);
        shuttle::thread::yield_now();
        let result = change(&mut entries);

        self.version.fetch_add(1, Ordering::Relaxed);
        assert!(entries.len() <= Self::CAPACITY);
        if entries.len() == Self::CAPACITY {
            self.was_full.store(true, Ordering::Relaxed);
        }
        result
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns whether it may lack entries for which there was no room.
    pub(crate) fn was_full(&self) -> bool {
        self.was_full.load(Ordering::Relaxed)
    }

    pub(crate) fn room(_sectors: u64) -> usize {
        Self::CAPACITY - 2
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.lock().expect("no panic").len()
    }

    pub(crate) fn entry_in(&self, start: u64, len: u64) -> Option<(u64, u64)> {
        let end = start.saturating_add(len);
        let entries = self.entries.lock().expect("no panic");
        let entry = entries.iter().find(|entry| entry.end > start)?;

        (len > 0 && entry.start < end).then_some((entry.start, entry.end - entry.start))
    }

    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, start: u64, len: u64) -> Result {
        if len == 0 {
            return Ok(());
        }
        self.write(|entries| (start..start + len).try_for_each(|sector| add(entries, sector)))
    }

    pub(crate) fn clear(&self, start: u64, len: u64) -> u32 {
        self.write(|entries| {
            let mut rest = Vec::new();
            let end = start + len;
            let mut count = entries.len();

            for entry in entries.drain(..) {
                let splits = entry.start < start && entry.end > end;

                if entry.end <= start || entry.start >= end || splits && count >= Self::CAPACITY {
                    rest.push(entry);
                    continue;
                }
                count += usize::from(splits);
                let parts = [
                    entry.start..entry.end.min(start),
                    entry.start.max(end)..entry.end,
                ];

                rest.extend(parts.into_iter().filter(|part| !part.is_empty()));
            }
            *entries = rest;
        });
        1
    }
}

/// Adds a sector, and merges it with its neighbours.
fn add(entries: &mut Vec<Range<u64>>, sector: u64) -> Result {
    let at = entries.partition_point(|entry| entry.end <= sector);

    if entries.get(at).is_some_and(|entry| entry.start <= sector) {
        return Ok(());
    }
    entries.insert(at, sector..sector + 1);
    for front in [at, at.saturating_sub(1)] {
        if let Some([one, other]) = entries.get(front..front + 2) {
            if one.end == other.start && other.end - one.start <= BadblocksTable::LONGEST {
                entries[front] = one.start..other.end;
                entries.remove(front + 1);
            }
        }
    }
    if entries.len() > BadblocksTable::CAPACITY {
        entries.remove(at);
        return Err(ENOSPC);
    }
    Ok(())
}
