// SPDX-License-Identifier: GPL-2.0

//! New errors that were found at the same time, and events about them.

use crate::affected::{AffectedRange, NamespaceRange};
use crate::badblocks::kernel::offset_and_length;
use crate::badblocks::set::BadBlocks;
use crate::block::disk::Disk;
use crate::block::remap::Span;
use crate::fs::open_files::FileUser;
use crate::monitor::lists::ListSnapshot;
use crate::monitor::{ErrorEvent, ErrorLocation, Event};
use crate::sysfs::Host;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::os::unix::ffi::OsStrExt;

/// New errors that were found at the same time.
pub(super) struct Batch {
    pub(super) host: Host,
    pub(super) number: u64,
    pub(super) time_ms: u64,
    pub(super) new: bool,
    pub(super) news: Vec<(Disk, BadBlocks)>,
    pub(super) hidden: Vec<NamespaceRange>,
    /// All of it, by the number of the disk: sectors of the region.
    pub(super) sectors: Vec<(u64, BadBlocks)>,
}

/// The result for a batch.
pub(super) struct Answer {
    pub(super) number: u64,
    /// All is known of these.
    pub(super) done: Vec<Event>,
    /// So much is known of the rest.
    pub(super) rest: Vec<Event>,
}

impl Batch {
    /// Adds the new sectors of a list.
    pub(super) fn add(&mut self, snapshot: &ListSnapshot, news: &BadBlocks) {
        if !news.is_empty() {
            self.sectors.push((snapshot.sequence, news.clone()));
        }
        let shown = news.within(&snapshot.data);
        let hidden = news.without(&shown).moved_down(snapshot.covers.start);
        self.hidden.extend(NamespaceRange::beside_disk(
            &snapshot.disk,
            &snapshot.device.name,
            &hidden,
        ));
        if !shown.is_empty() {
            self.news
                .push((snapshot.disk.clone(), shown.moved_down(snapshot.data.start)));
        }
    }

    pub(super) fn event(
        &self,
        what: ErrorLocation,
        processes: Vec<FileUser>,
        complete: bool,
    ) -> Event {
        let paths = what.paths();
        let paths = paths.iter().map(|path| STANDARD.encode(path.as_bytes()));
        Event::Bad(Box::new(ErrorEvent {
            time_ms: self.time_ms,
            new: self.new,
            complete,
            physical_address: what.physical_address(&self.host),
            paths_b64: paths.collect(),
            what,
            processes,
        }))
    }

    /// Returns the events without owners.
    pub(super) fn unattributed(&self) -> Vec<Event> {
        let all = self.news.iter();
        all.flat_map(|(disk, list)| self.without_owner(disk, list, SEARCHING, false))
            .collect()
    }

    /// Returns the events about errors of a disk whose owners are not known, for this reason.
    pub(super) fn without_owner(
        &self,
        disk: &Disk,
        list: &BadBlocks,
        reason: &str,
        complete: bool,
    ) -> Vec<Event> {
        let entry = |range| {
            let (offset, length) = offset_and_length(range);
            AffectedRange {
                disk: disk.name().to_owned(),
                volume: disk.name().to_owned(),
                span: Span::of_disk(offset, length),
                file_system: None,
                mount: None,
                owner: None,
                quarantined: false,
                reason: Some(reason.to_owned()),
            }
        };
        let entries = list.ranges().map(entry);
        entries
            .map(|entry| self.event(ErrorLocation::Disk(entry), Vec::new(), complete))
            .collect()
    }
}

pub(super) const SEARCHING: &str = "searching for the owner";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Owner;
    use crate::sysfs::printable;
    use crate::testing::FakeSysfs;

    #[test]
    fn event_has_physical_address_and_paths_byte_for_byte() {
        let name = std::ffi::OsStr::from_bytes(b"/srv/\xff\\");
        let machine = FakeSysfs::new();
        machine.write("sys/block/pmem0/device/resource", "0x240000000");
        let batch = Batch {
            host: machine.host.clone(),
            number: 0,
            time_ms: 0,
            new: true,
            news: Vec::new(),
            hidden: Vec::new(),
            sectors: Vec::new(),
        };
        let entry = AffectedRange {
            disk: "pmem0".into(),
            volume: "pmem0".into(),
            span: Span::made_up(0, 512),
            file_system: None,
            mount: Some("/srv".into()),
            owner: Some(Owner::File {
                paths: vec![printable(name)],
                inode: 12,
                file_offset: Some(0),
                open_by: Vec::new(),
            }),
            quarantined: false,
            reason: None,
        };
        let event = batch.event(ErrorLocation::Disk(entry), Vec::new(), true);
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["physical_address"], 0x2_4000_0000_u64 + 1000);
        assert_eq!(json["owner"]["paths"][0], r"/srv/\xff\\");
        assert_eq!(json["paths_b64"][0], STANDARD.encode(name.as_bytes()));
    }
}
