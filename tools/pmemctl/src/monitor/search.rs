// SPDX-License-Identifier: GPL-2.0

//! Searches for the owners of new errors, first among the files in use, then in whole file systems.

use crate::affected::{self, AffectedRange, Target};
use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::block::holders::{self, Holder};
use crate::block::remap::AffectedVolume;
use crate::fs::kernel_reports::KernelReports;
use crate::fs::open_files::{self, FileUser, FilesInUse, OpenFile};
use crate::fs::{Owner, Progress};
use crate::monitor::batch::{Answer, Batch, SEARCHING};
use crate::monitor::known_files::{in_use, reported};
use crate::monitor::{ErrorLocation, Event};
use crate::sysfs::{Host, printable};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Finds owners among the files in use.
pub(super) struct QuickSearch<'a> {
    pub(super) host: &'a Host,
    pub(super) targets: Option<&'a [Target]>,
    pub(super) reports: &'a KernelReports,
}

/// The volumes that a batch affects, and events about the rest of it.
pub(super) struct TracedBatch {
    volumes: Vec<(Disk, AffectedVolume)>,
    events: Vec<Event>,
}

/// The part of a batch that needs a search of whole file systems.
pub(super) struct PendingSearch {
    pub(super) batch: Batch,
    pub(super) affected: Vec<(Disk, AffectedVolume)>,
}

/// Why a search does not list all owners.
#[derive(Default)]
struct LeftOut(RefCell<BTreeSet<String>>);

impl Progress for LeftOut {
    fn left_out(&self, directory: &Path, reason: &str) {
        let text = format!("{}: {reason}", printable(directory));
        self.0.borrow_mut().insert(text);
    }
}

impl QuickSearch<'_> {
    fn wants(&self, options: impl Fn(&Target) -> bool) -> bool {
        self.targets
            .is_none_or(|targets| targets.iter().any(options))
    }

    /// Finds the volumes with the errors of a batch.
    pub(super) fn trace(&self, batch: &Batch) -> TracedBatch {
        let mut events = Vec::new();
        for hidden in &batch.hidden {
            if self.wants(|target| target.is_on(self.host, &hidden.disk)) {
                let what = ErrorLocation::Namespace(hidden.clone());
                events.push(batch.event(what, Vec::new(), true));
            }
        }
        let mut volumes = Vec::new();
        for (disk, list) in &batch.news {
            match affected::traced(self.host, disk, list) {
                Ok(mut affected) => volumes.append(&mut affected),
                Err(error) => {
                    let reason = format!("cannot trace new errors: {error:#}");
                    if self.wants(|target| target.is_on(self.host, disk.name())) {
                        events.extend(batch.without_owner(disk, list, &reason, true));
                    }
                    events.push(Event::Failed {
                        disk: disk.name().to_owned(),
                        reason,
                    });
                }
            }
        }
        TracedBatch { volumes, events }
    }

    /// Returns the files in use of the file systems on these volumes. Adds events if these are not all.
    pub(super) fn files_in_use(&self, traced: &mut [TracedBatch]) -> Vec<OpenFile> {
        let used = files_in_use(self.host, traced.iter().flat_map(|traced| &traced.volumes));
        if !used.complete {
            for TracedBatch { volumes, events } in traced {
                let disks: BTreeSet<&str> = volumes.iter().map(|(disk, _)| disk.name()).collect();
                events.extend(disks.into_iter().map(|disk| Event::Failed {
                    disk: disk.to_owned(),
                    reason: open_files::TOO_MANY.to_owned(),
                }));
            }
        }
        used.files
    }

    /// Returns the result so far, and the volumes that are left.
    pub(super) fn look(
        &self,
        batch: &Batch,
        traced: TracedBatch,
        used: &[OpenFile],
    ) -> (Answer, Vec<(Disk, AffectedVolume)>) {
        let TracedBatch {
            volumes: traced,
            events: mut done,
        } = traced;
        let mut users = Users::default();
        let mut remaining = Vec::new();
        for (disk, affected) in &traced {
            if self.wants(|target| target.has(affected)) {
                let (mut entries, spans) = in_use(disk, affected, used);
                let rest = AffectedVolume {
                    spans,
                    ..affected.clone()
                };
                let (more, spans) = reported(self.host, self.reports, disk, &rest);
                entries.extend(more);
                let reported = entries
                    .into_iter()
                    .map(|entry| batch.reported(disk, affected, entry, used, &mut users));
                done.extend(reported);
                if !spans.is_empty() {
                    let affected = AffectedVolume {
                        spans,
                        ..affected.clone()
                    };
                    remaining.push((disk.clone(), affected));
                }
            }
        }
        // What is not followed to a target may be its own.
        for (disk, affected) in &traced {
            if self.wants(|target| target.has(affected)) {
                continue;
            }
            let mut targets = self.targets.unwrap_or_default().iter();
            let opaque = targets.find_map(|target| affected.untraced(target.device(self.host)?));
            if let Some(opaque) = opaque {
                let reason = format!("its blocks are not followed through {opaque}");
                let entries = affected::without_owner(disk, affected, &reason);
                done.extend(
                    entries.map(|entry| batch.event(ErrorLocation::Disk(entry), Vec::new(), true)),
                );
            }
        }
        // For a target file only its own extents are read.
        let files = self.targets.unwrap_or_default().iter();
        let files: Vec<_> = files
            .filter(|target| matches!(target, Target::File(_)))
            .cloned()
            .collect();
        if !files.is_empty() {
            for (disk, affected) in &traced {
                let (entries, events) = entries(self.host, disk, affected, &files);
                done.extend(events);
                let reported = entries
                    .into_iter()
                    .map(|entry| batch.reported(disk, affected, entry, used, &mut users));
                done.extend(reported);
            }
        }
        let rest: Vec<Event> = remaining
            .iter()
            .flat_map(|(disk, affected)| affected::without_owner(disk, affected, SEARCHING))
            .map(|entry| batch.event(ErrorLocation::Disk(entry), Vec::new(), false))
            .collect();
        let number = batch.number;
        (Answer { number, done, rest }, remaining)
    }
}

/// Searches whole file systems for the rest of all batches.
pub(super) fn search(
    host: &Host,
    reports: &KernelReports,
    searches: &[PendingSearch],
) -> Vec<Answer> {
    let mut answers: Vec<Answer> = searches
        .iter()
        .map(|remaining| Answer {
            number: remaining.batch.number,
            done: Vec::new(),
            rest: Vec::new(),
        })
        .collect();
    let volumes = searches.iter().flat_map(|remaining| &remaining.affected);
    let used = files_in_use(host, volumes).files;
    let mut users = Users::default();
    for (disk, affected) in together(searches.iter().flat_map(|remaining| &remaining.affected)) {
        let (mut found, spans) = reported(host, reports, &disk, &affected);
        if !spans.is_empty() {
            let rest = AffectedVolume {
                spans,
                ..affected.clone()
            };
            let (more, events) = entries(host, &disk, &rest, &[]);
            found.extend(more);
            // The same for all batches.
            if let Some(answer) = answers.first_mut() {
                answer.done.extend(events);
            }
        }
        for entry in found {
            for (remaining, answer) in searches.iter().zip(&mut answers) {
                for part in remaining.parts(&entry) {
                    let batch = &remaining.batch;
                    let event = batch.reported(&disk, &affected, part, &used, &mut users);
                    answer.done.push(event);
                }
            }
        }
    }
    answers
}

fn files_in_use<'a>(
    host: &Host,
    volumes: impl Iterator<Item = &'a (Disk, AffectedVolume)>,
) -> FilesInUse {
    let devices = volumes.filter_map(|(_, affected)| affected.volume.number().ok());
    let devices: BTreeSet<DeviceNumber> = devices.collect();
    open_files::of_file_systems(host, &Vec::from_iter(devices))
}

/// As few as there are volumes, each with all that is bad of it.
fn together<'a>(
    all: impl Iterator<Item = &'a (Disk, AffectedVolume)>,
) -> Vec<(Disk, AffectedVolume)> {
    let mut found: Vec<(Disk, AffectedVolume)> = Vec::new();
    for (disk, affected) in all {
        let same = found.iter_mut().find(|(other, one)| {
            other.name() == disk.name()
                && one.volume.name == affected.volume.name
                && one.chain == affected.chain
        });
        match same {
            Some((_, one)) => {
                one.spans.extend(affected.spans.iter());
                // Keep the latest state.
                one.volume.clone_from(&affected.volume);
            }
            None => found.push((disk.clone(), affected.clone())),
        }
    }
    found
}

impl PendingSearch {
    /// Returns the parts of a range that belong to this batch.
    fn parts(&self, entry: &AffectedRange) -> Vec<AffectedRange> {
        let affected = self.affected.iter().filter(|(disk, affected)| {
            disk.name() == entry.disk && affected.volume.name == entry.volume
        });
        affected
            .flat_map(|(_, affected)| affected.spans.within(&entry.span.range()))
            .map(|span| {
                let skipped = span.offset - entry.span.offset;
                let mut part = AffectedRange {
                    span,
                    ..entry.clone()
                };
                if let Some(Owner::File {
                    file_offset: Some(at),
                    ..
                }) = &mut part.owner
                {
                    *at += skipped;
                }
                part
            })
            .collect()
    }
}

/// Returns the owners for a volume, or for these files only, and events if these are not all.
fn entries(
    host: &Host,
    disk: &Disk,
    affected: &AffectedVolume,
    targets: &[Target],
) -> (Vec<AffectedRange>, Vec<Event>) {
    let one = (disk.clone(), affected.clone());
    let left_out = LeftOut::default();
    let entries =
        match affected::entries_of(host, std::slice::from_ref(&one), targets, false, &left_out) {
            Ok(entries) => entries,
            Err(error) => affected::without_owner(disk, affected, &format!("{error:#}")).collect(),
        };
    let failed = |reason| Event::Failed {
        disk: disk.name().to_owned(),
        reason,
    };
    let events = left_out.0.into_inner().into_iter().map(failed);
    (entries, events.collect())
}

/// The users of disks, which are found once for all ranges: each search reads all of /proc.
#[derive(Default)]
struct Users(BTreeMap<String, Vec<Holder>>);

impl Users {
    fn of(&mut self, disk: &Disk) -> &[Holder] {
        self.0
            .entry(disk.name().to_owned())
            .or_insert_with(|| holders::of_disk(disk))
    }
}

impl Batch {
    /// With the processes that use it. The range is of this volume.
    fn reported(
        &self,
        disk: &Disk,
        affected: &AffectedVolume,
        entry: AffectedRange,
        used: &[OpenFile],
        users: &mut Users,
    ) -> Event {
        let mut processes = Vec::new();
        if let Some(Owner::File {
            inode, file_offset, ..
        }) = &entry.owner
        {
            let start = file_offset.unwrap_or_default();
            let bytes = start..start.saturating_add(entry.span.length);
            if let Ok(device) = affected.volume.number() {
                processes.extend(open_files::users_of(used, device, *inode, &bytes));
            }
        } else if entry.mount.is_none() {
            // Programs that use the device itself.
            for holder in users.of(disk) {
                if let Holder::Process {
                    device, process, ..
                } = holder
                {
                    if *device == entry.volume || *device == entry.disk {
                        processes.push(FileUser {
                            process: process.clone(),
                            open: true,
                            addresses: Vec::new(),
                        });
                    }
                }
            }
        }
        self.event(ErrorLocation::Disk(entry), processes, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::remap::Span;
    use crate::block::topology::Volume;
    use std::fs;

    #[test]
    fn batches_share_one_search() {
        let folder = tempfile::tempdir().unwrap();
        let pmem0 = folder.path().join("sys/block/pmem0");
        fs::create_dir_all(&pmem0).unwrap();
        fs::write(pmem0.join("dev"), "259:0\n").unwrap();
        let disk = Disk::find(&Host::at(folder.path()), "pmem0").unwrap();
        let remaining = |number, volume, spans: &[(u64, u64)]| {
            let volume = Volume::made_up(volume, "259:1", vec![]);
            let spans = spans
                .iter()
                .map(|&(offset, length)| Span::made_up(offset, length));
            let affected = AffectedVolume {
                chain: vec![volume.number().unwrap()],
                volume,
                spans: spans.collect(),
                opaque: None,
                beside: None,
            };
            let batch = Batch {
                host: Host::here(),
                number,
                time_ms: 0,
                new: true,
                news: Vec::new(),
                hidden: Vec::new(),
                sectors: Vec::new(),
            };
            PendingSearch {
                batch,
                affected: vec![(disk.clone(), affected)],
            }
        };
        let searches = [
            remaining(0, "pmem0p1", &[(4096, 4096)]),
            remaining(1, "pmem0p1", &[(8192, 4096), (65536, 512)]),
            remaining(2, "pmem0p2", &[(4096, 512)]),
            // Repaired, and bad again.
            remaining(3, "pmem0p1", &[(4096, 8192)]),
        ];
        let all = together(searches.iter().flat_map(|remaining| &remaining.affected));
        assert_eq!(all.len(), 2);
        let spans = [Span::made_up(4096, 8192), Span::made_up(65536, 512)];
        assert!(all[0].1.spans.iter().eq(spans));
        assert!(all[1].1.spans.iter().eq([Span::made_up(4096, 512)]));

        // Two pages of a file in two batches.
        let mut entry = affected::entry(&disk, &all[0].1, Span::made_up(4096, 8192));
        entry.owner = Some(Owner::File {
            paths: Vec::new(),
            inode: 12,
            file_offset: Some(1 << 20),
            open_by: Vec::new(),
        });
        let parts = |remaining: &PendingSearch| {
            let offset = |part: AffectedRange| match part.owner {
                Some(Owner::File { file_offset, .. }) => (part.span, file_offset.unwrap()),
                _ => panic!("{part:?}"),
            };
            remaining.parts(&entry).into_iter().map(offset).collect()
        };
        let found: Vec<Vec<_>> = searches.iter().map(parts).collect();
        let first = (Span::made_up(4096, 4096), 1 << 20);
        let second = (Span::made_up(8192, 4096), (1 << 20) + 4096);
        let both = (Span::made_up(4096, 8192), 1 << 20);
        assert_eq!(found, [vec![first], vec![second], vec![], vec![both]]);
    }
}
