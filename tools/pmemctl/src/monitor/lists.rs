// SPDX-License-Identifier: GPL-2.0

//! The list of a device, and which of its errors are new.

use crate::badblocks::kernel::{KernelList, ListLookup};
use crate::badblocks::origin::SECTOR;
use crate::badblocks::set::BadBlocks;
use crate::block::disk::Disk;
use crate::nd::Device;
use crate::nd::region::Region;
use crate::sysfs;
use anyhow::Result;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// After this time, the list of a disk that was bound again has what is to be restored or imported, also by a second try.
const FILLED: Duration = Duration::from_secs(300);
/// Disks that are remembered of a memory, beside those that it has.
const MOST: usize = 64;

/// The state of a device's list.
pub(super) struct ListSnapshot {
    pub(super) device: Device,
    pub(super) disk: Disk,
    pub(super) sequence: u64,
    /// Sectors of the region that its disk shows, from its first on; none in sector mode.
    pub(super) data: Range<u64>,
    /// Sectors of the region that the list covers: those of the namespace, or of the disk.
    pub(super) covers: Range<u64>,
    pub(super) listed: BadBlocks,
}

/// The errors of a memory that were reported.
#[derive(Default)]
pub(super) struct ReportedErrors {
    reported: BadBlocks,
    /// By the number of the disk.
    listed: BTreeMap<u64, DiskList>,
}

/// The last list of a disk.
struct DiskList {
    listed: BadBlocks,
    since: Instant,
    /// Whether what it lacked after [`FILLED`] counts as repaired.
    is_settled: bool,
}

impl ReportedErrors {
    /// Returns the sectors that were not reported before, and marks them as reported. Sectors that disappeared
    /// from the list of the same disk are repaired, and would be reported again. A disk that is bound again
    /// reports nothing; what it lacks after a while was repaired without it.
    pub(super) fn news(
        &mut self,
        sequence: u64,
        covers: &Range<u64>,
        listed: &BadBlocks,
        now: Instant,
    ) -> BadBlocks {
        let disk = self.listed.entry(sequence).or_insert_with(|| DiskList {
            listed: listed.clone(),
            since: now,
            is_settled: false,
        });
        let mut repaired = disk.listed.without(listed);
        if !disk.is_settled && now.duration_since(disk.since) >= FILLED {
            disk.is_settled = true;
            repaired = repaired.and(&self.reported.within(covers).without(&disk.listed));
        }
        disk.listed = listed.clone();
        self.reported = self.reported.without(&repaired);
        let news = listed.without(&self.reported);
        self.reported = self.reported.and(listed);
        news
    }

    /// Forgets disks that have gone, if there are many.
    pub(super) fn forget_gone(&mut self, is_there: impl Fn(u64) -> bool) {
        if self.listed.len() > MOST {
            self.listed.retain(|&sequence, _| is_there(sequence));
        }
    }
}

/// The list of a device, if it has one.
pub(super) fn snapshot(region: &Region, device: &Device) -> Result<Option<ListSnapshot>> {
    let ListLookup::List(list) = KernelList::of(region, device)? else {
        return Ok(None);
    };
    let listed = list.read()?.all();
    let data = match sysfs::number(device.folder().join("resource")) {
        _ if list.is_plain() => list.covers.clone(),
        Some(start) if list.disk.whole.folder.join("badblocks").exists() => {
            let data = region.bytes(start, list.disk.size().bytes());
            data.map_or(0..0, |data| data.start / SECTOR..data.end / SECTOR)
        }
        _ => 0..0,
    };
    Ok(Some(ListSnapshot {
        device: device.clone(),
        sequence: list.sequence,
        covers: list.covers,
        disk: list.disk,
        data,
        listed,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> BadBlocks {
        text.parse().unwrap()
    }

    #[test]
    fn only_new_sectors_are_reported() {
        let mut known = ReportedErrors::default();
        let start = Instant::now();
        let mut news = |disk, listed, seconds| {
            let now = start + Duration::from_secs(seconds);
            known.news(disk, &(0..100), &list(listed), now)
        };
        assert_eq!(news(1, "8 8\n", 0), list("8 8\n"));
        assert_eq!(news(1, "8 8\n", 0), list(""));
        assert_eq!(news(1, "8 8\n64 1\n", 0), list("64 1\n"));
        // Repaired, and bad again.
        assert_eq!(news(1, "64 1\n", 0), list(""));
        assert_eq!(news(1, "8 2\n64 1\n", 0), list("8 2\n"));
        // Bound again, and the list is filled a moment later.
        assert_eq!(news(2, "", 0), list(""));
        assert_eq!(news(2, "8 2\n", 30), list(""));
        assert_eq!(news(2, "8 8\n", 30), list("10 6\n"));
        // Repaired while the disk was unbound, and bad again later.
        assert_eq!(news(3, "10 6\n", 100), list(""));
        assert_eq!(news(3, "8 8\n", 400), list("8 2\n"));
        assert_eq!(news(3, "8 8\n64 1\n", 400), list("64 1\n"));
        assert_eq!(news(3, "8 8\n64 1\n", 900), list(""));
    }

    #[test]
    fn repair_elsewhere_is_not_taken_for_that_of_another_disk() {
        let mut known = ReportedErrors::default();
        let start = Instant::now();
        assert_eq!(
            known.news(1, &(0..100), &list("8 8\n"), start),
            list("8 8\n")
        );
        assert_eq!(known.news(2, &(100..200), &list(""), start), list(""));
        let later = start + 2 * FILLED;
        assert_eq!(known.news(2, &(100..200), &list(""), later), list(""));
        assert_eq!(known.news(3, &(0..100), &list("8 8\n"), later), list(""));
    }

    #[test]
    fn many_bindings_of_a_disk_hide_no_error_of_another_one() {
        let mut known = ReportedErrors::default();
        let now = Instant::now();
        assert_eq!(known.news(1, &(0..100), &list("8 8\n"), now), list("8 8\n"));
        let last = 2 * MOST as u64;
        for disk in 2..=last {
            known.news(1, &(0..100), &list("8 8\n"), now);
            known.news(disk, &(100..200), &list(""), now);
            known.forget_gone(|sequence| [1, disk].contains(&sequence));
        }
        assert!(known.listed.len() <= MOST);
        assert_eq!(known.news(1, &(0..100), &list(""), now), list(""));
        assert_eq!(known.news(1, &(0..100), &list("8 8\n"), now), list("8 8\n"));
    }

    #[test]
    fn namespaces_of_one_memory_are_separate() {
        let mut known = ReportedErrors::default();
        let now = Instant::now();
        let mut news = |disk, listed| known.news(disk, &(0..1000), &list(listed), now);
        assert_eq!(news(1, "8 8\n"), list("8 8\n"));
        assert_eq!(news(2, "800 8\n"), list("800 8\n"));
        assert_eq!(news(1, ""), list(""));
        assert_eq!(news(2, "800 8\n"), list(""));
        assert_eq!(news(1, "8 8\n"), list("8 8\n"));
    }
}
