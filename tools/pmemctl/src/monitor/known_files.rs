// SPDX-License-Identifier: GPL-2.0

//! Finds owners without a search: files in use, and files for which the kernel has reported errors.

use crate::affected::{self, AffectedRange};
use crate::block::disk::Disk;
use crate::block::remap::{AffectedVolume, Span, Spans};
use crate::fs::Owner;
use crate::fs::extent_reader;
use crate::fs::kernel_reports::KernelReports;
use crate::fs::mounted::FileSystem;
use crate::fs::open_files::OpenFile;
use crate::sysfs::{Host, printable};
use crate::waiting::{CALLS, DEADLINE};
use abstractions::extents::{Extent, Fork};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Splits the bad bytes into those of files in use that share no blocks, and the rest.
pub(super) fn in_use(
    disk: &Disk,
    affected: &AffectedVolume,
    used: &[OpenFile],
) -> (Vec<AffectedRange>, Spans) {
    let mut entries = Vec::new();
    let mut remaining = affected.spans.clone();
    let Ok(device) = affected.volume.number() else {
        return (entries, remaining);
    };
    let bad = Arc::new(affected.spans.clone());
    for used in used.iter().filter(|used| used.device == device) {
        // A file without a known name must be searched for.
        if used.name.is_none() && !used.removed {
            continue;
        }
        let Ok(file) = used.open() else { continue };
        for (part, offset) in parts_of(file, &bad, &mut remaining) {
            let owner = Owner::File {
                paths: used.name.iter().map(printable).collect(),
                inode: used.inode,
                file_offset: Some(offset),
                open_by: match used.removed {
                    true => used.by.iter().map(|one| one.process.pid).collect(),
                    false => Vec::new(),
                },
            };
            entries.push(AffectedRange {
                owner: Some(owner),
                ..affected::entry(disk, affected, part)
            });
        }
    }
    (entries, remaining)
}

/// Splits the bad bytes into those of files for which the kernel has reported errors, and the rest.
pub(super) fn reported(
    host: &Host,
    reports: &KernelReports,
    disk: &Disk,
    affected: &AffectedVolume,
) -> (Vec<AffectedRange>, Spans) {
    let mut entries = Vec::new();
    let mut remaining = affected.spans.clone();
    if remaining.is_empty() {
        return (entries, remaining);
    }
    let (Ok(Some((_, mount))), Ok(device)) = (
        FileSystem::of(host, &affected.volume),
        affected.volume.number(),
    ) else {
        return (entries, remaining);
    };
    let directory = host.absolute(Path::new(&mount.directory));
    let bad = Arc::new(affected.spans.clone());
    for reported in reports.files(host, device, &directory) {
        for (part, offset) in parts_of(reported.file, &bad, &mut remaining) {
            let owner = Owner::File {
                paths: vec![printable(&reported.path)],
                inode: reported.inode,
                file_offset: Some(offset),
                open_by: Vec::new(),
            };
            entries.push(AffectedRange {
                owner: Some(owner),
                ..affected::entry(disk, affected, part)
            });
        }
    }
    (entries, remaining)
}

/// Takes the parts out of `remaining` that are the file's alone; returns them with their offsets in the file.
fn parts_of(file: File, bad: &Arc<Spans>, remaining: &mut Spans) -> Vec<(Span, u64)> {
    let mut parts = Vec::new();
    for extent in bad_extents(file, bad) {
        parts.extend(remaining.in_extent(&extent));
        remaining.remove(&(extent.physical..extent.physical.saturating_add(extent.length)));
    }
    parts
}

/// Returns the extents of a file that have bad bytes and are its alone; none if the file system does not answer.
fn bad_extents(file: File, bad: &Arc<Spans>) -> Vec<Extent> {
    let Ok(status) = file.metadata() else {
        return Vec::new();
    };
    let key = format!("extents of {}:{}", status.dev(), status.ino());
    let bad = Arc::clone(bad);
    let ask = move || extent_reader::with_bytes(&file, Fork::Data, &bad);
    let mut found = CALLS.within(&key, DEADLINE, ask).unwrap_or_default();
    found.retain(|extent| extent.flags & Extent::SHARED == 0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use abstractions::extents;
    use std::fs;

    #[test]
    fn file_takes_its_parts_only() {
        // Skipped if the file system has no FIEMAP.
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; 65536]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let mut first = None;
        let _ = extents::of_file(&file, Fork::Data, |extent| {
            first.get_or_insert(*extent);
        });
        let Some(extent) = first.filter(|extent| extent.physical >= 4096) else {
            return;
        };
        let start = extent.physical;
        let before = Span::made_up(start - 4096, 4096);
        let mut remaining = Spans::default();
        remaining.extend([Span {
            length: 8192,
            ..before.clone()
        }]);
        let bad = Arc::new(remaining.clone());
        let parts = parts_of(file, &bad, &mut remaining);
        assert_eq!(parts, [(Span::made_up(start, 4096), extent.logical)]);
        assert!(remaining.iter().eq([before]));
    }
}
