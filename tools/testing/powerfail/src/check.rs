// SPDX-License-Identifier: GPL-2.0

//! Checks that a crash image has all promised data.

use crate::btt::Btt;
use crate::recovery::{Guest, Verdict, recover_ext4};
use crate::workload::{Check, FileSystem, POISON_LOG, Workload};
use anyhow::{Context, Result};
use persistence::record::{self, Promise, RECORD};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Bytes of a sector.
const SECTOR: usize = 512;

/// Checks the images of a workload.
pub struct Checker {
    check: Check,
    /// Where the disk's data begin.
    offset: usize,
    folder: TempDir,
    /// Recovers XFS; none for other workloads.
    guest: Option<Guest>,
}

impl Checker {
    /// `size` is that of the memory. Logs of a guest that recovers images go to `logs`.
    pub fn new(workload: &Workload, offset: usize, size: usize, logs: &Path) -> Result<Self> {
        let guest = match workload.check {
            Check::File(FileSystem::Xfs) | Check::Folder(FileSystem::Xfs) => {
                let size = size
                    .checked_sub(offset)
                    .context("the disk begins behind the memory")?;
                Some(Guest::boot(size as u64, logs)?)
            }
            _ => None,
        };
        Ok(Self {
            check: workload.check,
            offset,
            folder: tempfile::tempdir().context("no folder for images")?,
            guest,
        })
    }

    /// Checks an image of the whole memory. The outer error is one of this host.
    pub fn check(&mut self, memory: &[u8], promises: &BTreeMap<u16, Promise>) -> Result<Verdict> {
        let data = memory
            .get(self.offset..)
            .context("the disk begins behind the memory")?;
        match self.check {
            Check::Raw => return Ok(in_order(data, promises)),
            Check::Repair => return Ok(in_order(&without_errors(data, promises), promises)),
            Check::Btt => return Ok(blocks(data, promises)),
            Check::File(_) | Check::Folder(_) => {}
        }
        let files = tempfile::tempdir_in(&self.folder)?;
        let recovered = match &mut self.guest {
            Some(guest) => guest.recover(data, files.path())?,
            None => {
                let image = self.folder.path().join("image");
                fs::write(&image, data)?;
                recover_ext4(&image, files.path())?
            }
        };
        Ok(recovered.and_then(|()| match self.check {
            Check::Folder(_) => each_file(files.path(), promises),
            _ => match fs::read(files.path().join("records")) {
                Ok(data) => in_order(&data, promises),
                Err(error) => Err(format!("the file of the records: {error}")),
            },
        }))
    }
}

/// Checks records that are files.
fn each_file(folder: &Path, promises: &BTreeMap<u16, Promise>) -> Verdict {
    let check = |(&record, promise): (&u16, &Promise)| match fs::read(
        folder.join(format!("record{record}")),
    ) {
        Ok(data) if promise.promised > 0 => promise.check(&data, record, true),
        Err(error) if promise.promised > 0 => {
            Err(format!("record {record} is no file any more: {error}"))
        }
        _ => Ok(()),
    };
    promises.iter().try_for_each(check)
}

/// Checks records that are stored one after the other.
fn in_order(data: &[u8], promises: &BTreeMap<u16, Promise>) -> Verdict {
    promises.iter().try_for_each(|(&record, promise)| {
        let at = usize::from(record) * RECORD;
        promise.check(data.get(at..at + RECORD).unwrap_or_default(), record, false)
    })
}

/// Returns the records with good data in the place of sectors that the platform's log of errors has, where a newer generation
/// has begun, and its memory failed before: the driver will list these, and they promise nothing.
fn without_errors(data: &[u8], promises: &BTreeMap<u16, Promise>) -> Vec<u8> {
    let last = promises
        .keys()
        .next_back()
        .map_or(0, |&record| usize::from(record) + 1);
    let mut records = data[..last * RECORD].to_vec();
    let log = data.get(POISON_LOG..).unwrap_or_default();
    let mut good = [0; RECORD];
    let failed = (promises.iter()).filter(|(_, promise)| promise.begun > promise.promised);
    for (&record, promise) in failed {
        record::fill(&mut good, record, promise.begun);
        let at = usize::from(record) * RECORD;
        let sectors = records[at..at + RECORD].chunks_mut(SECTOR);
        for (index, (sector, good)) in sectors.zip(good.chunks(SECTOR)).enumerate() {
            if log.get(at / SECTOR + index) == Some(&1) {
                sector.copy_from_slice(good);
            }
        }
    }
    records
}

fn blocks(memory: &[u8], promises: &BTreeMap<u16, Promise>) -> Verdict {
    let btt = Btt::new(memory).map_err(|error| format!("{error:#}"))?;
    promises.iter().try_for_each(|(&record, promise)| {
        let block = btt
            .read(record.into())
            .map_err(|error| format!("{error:#}"))?;
        promise.check(&block, record, true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_sectors_may_be_lost() {
        let mut memory = vec![0; POISON_LOG + 4096];
        record::fill(&mut memory[RECORD..2 * RECORD], 1, 7);
        memory[RECORD + SECTOR..RECORD + 2 * SECTOR].fill(0xff);
        let check = |memory: &[u8], begun| {
            let promise = Promise { begun, promised: 7 };
            let promises = BTreeMap::from([(1, promise)]);
            in_order(&without_errors(memory, &promises), &promises)
        };
        assert!(check(&memory, 8).unwrap_err().contains("byte 512"));
        memory[POISON_LOG + 9] = 1;
        assert_eq!(check(&memory, 8), Ok(()));
        // What was promised was written after its memory failed.
        assert!(check(&memory, 7).unwrap_err().contains("byte 512"));
    }
}
