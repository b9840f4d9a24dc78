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

/// The state of a device's list.
pub(super) struct ListSnapshot {
    pub(super) device: Device,
    pub(super) disk: Disk,
    pub(super) sequence: u64,
    /// Sectors of the region that its disk shows, from its first on; none in sector mode.
    pub(super) data: Range<u64>,
    /// Sectors of the region that the namespace begins with.
    pub(super) start: u64,
    pub(super) listed: BadBlocks,
}

/// The errors of a memory that were reported.
#[derive(Default)]
pub(super) struct ReportedErrors {
    reported: BadBlocks,
    /// By the number of the disk.
    listed: BTreeMap<u64, BadBlocks>,
}

impl ReportedErrors {
    /// Returns the sectors that were not reported before, and marks them as reported. Sectors that disappeared
    /// from the list of the same disk are repaired, and would be reported again. A disk that is bound again
    /// reports nothing.
    pub(super) fn news(&mut self, sequence: u64, listed: &BadBlocks) -> BadBlocks {
        if let Some(before) = self.listed.get(&sequence) {
            self.reported = self.reported.without(&before.without(listed));
        }
        let news = listed.without(&self.reported);
        self.reported = self.reported.and(listed);
        self.listed.insert(sequence, listed.clone());
        news
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
        start: list.covers.start,
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
        assert_eq!(known.news(1, &list("8 8\n")), list("8 8\n"));
        assert_eq!(known.news(1, &list("8 8\n")), list(""));
        assert_eq!(known.news(1, &list("8 8\n64 1\n")), list("64 1\n"));
        // Repaired, and bad again.
        assert_eq!(known.news(1, &list("64 1\n")), list(""));
        assert_eq!(known.news(1, &list("8 2\n64 1\n")), list("8 2\n"));
        // Bound again, and the list is filled a moment later.
        assert_eq!(known.news(2, &list("")), list(""));
        assert_eq!(known.news(2, &list("8 2\n")), list(""));
        assert_eq!(known.news(2, &list("8 8\n")), list("10 6\n"));
    }

    #[test]
    fn namespaces_of_one_memory_are_separate() {
        let mut known = ReportedErrors::default();
        assert_eq!(known.news(1, &list("8 8\n")), list("8 8\n"));
        assert_eq!(known.news(2, &list("800 8\n")), list("800 8\n"));
        assert_eq!(known.news(1, &list("")), list(""));
        assert_eq!(known.news(2, &list("800 8\n")), list(""));
        assert_eq!(known.news(1, &list("8 8\n")), list("8 8\n"));
    }
}
