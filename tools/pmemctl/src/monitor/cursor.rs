// SPDX-License-Identifier: GPL-2.0

//! The file of the errors that were reported, for a monitor that is started again.
//!
//! A boot of the kernel begins with nothing reported. An error is added when its hooks have ended, and a file that
//! cannot be read is not used: an error is reported twice rather than never. One monitor at a time has the file: another
//! one would count errors as reported whose hooks it has not run.

use crate::badblocks::set::BadBlocks;
use crate::badblocks::store::{self, Lock};
use crate::sysfs::printable;
use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The version of the file format.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CursorFile {
    version: u32,
    boot: String,
    /// By the number of the disk, which no other disk of this boot has: sectors of the region.
    disks: BTreeMap<u64, Vec<Range<u64>>>,
}

#[derive(Debug)]
pub struct Cursor {
    file: PathBuf,
    _lock: Option<Lock>,
    boot: String,
    reported: BTreeMap<u64, BadBlocks>,
    /// The contents of the file.
    saved: BTreeMap<u64, BadBlocks>,
}

impl Cursor {
    /// Fails if another monitor has the file, or if it is none of a monitor, which [`Cursor::save`] would replace.
    pub fn open(file: &Path, boot: String) -> Result<Self> {
        ensure!(
            is_cursor(file),
            "{}: this is no cursor file of pmemctl monitor: name another file, or remove it",
            printable(file)
        );
        let lock = lock(file)?;
        if let Some(folder) = file.parent() {
            store::remove_partial(folder, &store::partial(file));
        }
        Ok(Self {
            _lock: lock,
            ..Self::read(file, boot)
        })
    }

    /// Reads the file, and does not lock it.
    pub(super) fn read(file: &Path, boot: String) -> Self {
        let reported = read(file, &boot).unwrap_or_default();
        Self {
            file: file.to_owned(),
            _lock: None,
            boot,
            saved: reported.clone(),
            reported,
        }
    }

    /// Returns the sectors of a list that were not reported.
    pub fn news(&self, disk: u64, listed: &BadBlocks) -> BadBlocks {
        match self.reported.get(&disk) {
            Some(reported) => listed.without(reported),
            None => listed.clone(),
        }
    }

    pub fn add(&mut self, disk: u64, sectors: &BadBlocks) {
        let reported = self.reported.entry(disk).or_default();
        *reported = reported.and(sectors);
    }

    /// Forgets repaired sectors, which may become bad again, and disks that are gone.
    pub fn keep(&mut self, listed: &BTreeMap<u64, BadBlocks>) {
        self.reported.retain(|disk, reported| {
            let Some(listed) = listed.get(disk) else {
                return false;
            };
            *reported = reported.common(listed);
            true
        });
    }

    /// Writes the file if it has changed.
    pub fn save(&mut self) -> Result<()> {
        if self.saved == self.reported {
            return Ok(());
        }
        let disks = self.reported.iter();
        let text = serde_json::to_string(&CursorFile {
            version: VERSION,
            boot: self.boot.clone(),
            disks: disks
                .map(|(disk, list)| (*disk, list.ranges().cloned().collect()))
                .collect(),
        })?;
        store::replace(&self.file, &store::partial(&self.file), text.as_bytes())
            .with_context(|| printable(&self.file))?;
        self.saved.clone_from(&self.reported);
        Ok(())
    }
}

/// Locks a file beside this one, which is replaced as a whole. Where none can be made, [`Cursor::save`] fails as well, and
/// says why.
fn lock(file: &Path) -> Result<Option<Lock>> {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".lock");
    let open = || store::lock_file(&file.with_file_name(&name));
    let Ok(lock) = open() else {
        return Ok(None);
    };
    match Lock::take(lock) {
        Err(Errno::WOULDBLOCK) => bail!(
            "{}: {} uses it: end that monitor, or name another file",
            printable(file),
            store::lock_owner(&open()?)
        ),
        // Not all file systems have locks.
        locked => Ok(locked.ok()),
    }
}

/// Returns whether a file begins like those of this module, or can be made.
fn is_cursor(file: &Path) -> bool {
    const START: &[u8] = b"{\"version\":";
    let mut found = Vec::new();
    let metadata = fs::metadata(file);
    if metadata.is_ok_and(|metadata| !metadata.is_file()) {
        return false;
    }
    if let Ok(file) = File::open(file) {
        // What can't be read is not used.
        let _ = file.take(START.len() as u64).read_to_end(&mut found);
    }
    START.starts_with(&found)
}

fn read(file: &Path, boot: &str) -> Option<BTreeMap<u64, BadBlocks>> {
    let cursor: CursorFile = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    if cursor.version != VERSION || cursor.boot != boot {
        return None;
    }
    let disks = cursor.disks.into_iter();
    Some(
        disks
            .map(|(disk, ranges)| (disk, ranges.into_iter().collect()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> BadBlocks {
        text.parse().unwrap()
    }

    #[test]
    fn reported_errors_are_no_news_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cursor.json");
        let open = |boot: &str| Cursor::read(&file, boot.into());
        let mut cursor = open("b1");
        assert_eq!(cursor.news(12, &list("8 8\n")), list("8 8\n"));
        cursor.add(12, &list("8 8\n64 8\n"));
        cursor.save().unwrap();

        let mut again = open("b1");
        assert_eq!(again.news(12, &list("8 8\n100 1\n")), list("100 1\n"));
        // Another disk, and the same one after a reboot.
        assert_eq!(again.news(13, &list("8 8\n")), list("8 8\n"));
        assert_eq!(open("b2").news(12, &list("8 8\n")), list("8 8\n"));

        // Repaired, and bad again.
        again.keep(&BTreeMap::from([(12, list("64 8\n"))]));
        again.save().unwrap();
        assert_eq!(open("b1").news(12, &list("8 8\n64 8\n")), list("8 8\n"));
        again.keep(&BTreeMap::new());
        assert_eq!(again.news(12, &list("64 8\n")), list("64 8\n"));
    }

    #[test]
    fn second_monitor_is_refused_until_the_first_one_ends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cursor.json");
        let open = |file: &Path| Cursor::open(file, "b1".into());
        let first = open(&file).unwrap();
        let refused = open(&file).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(
            refused.contains(&format!("cursor.json: process {pid} uses it")),
            "{refused}"
        );
        open(&folder.path().join("other.json")).unwrap();
        drop(first);
        open(&file).unwrap();
        // The file can't be saved either.
        open(&folder.path().join("none/cursor.json")).unwrap();
    }

    #[test]
    fn file_that_another_monitor_writes_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cursor.json");
        let half = folder.path().join(".cursor.json.new-Xy12Z0");
        fs::write(&half, "{").unwrap();
        let open = |file: &Path| Cursor::open(file, "b1".into());
        open(&folder.path().join("other.json")).unwrap();
        assert!(half.exists());
        // After a crash it is removed.
        open(&file).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn list_longer_than_a_file_of_sysfs_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cursor.json");
        let long: BadBlocks = (0..1000).map(|at| at * 16..at * 16 + 8).collect();
        let mut cursor = Cursor::read(&file, "b1".into());
        cursor.add(12, &long);
        cursor.save().unwrap();
        let again = Cursor::read(&file, "b1".into());
        assert!(again.news(12, &long).is_empty());
    }

    #[test]
    fn file_of_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("table.17");
        for text in ["x", "{\"rows\":[]}", "{\"version\" : 1}"] {
            fs::write(&file, text).unwrap();
            let refused = Cursor::open(&file, "b1".into()).unwrap_err().to_string();
            assert!(
                refused.contains("table.17: this is no cursor file"),
                "{refused}"
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert!(Cursor::open(folder.path(), "b1".into()).is_err());
        for text in ["", "{\"ver", "{\"version\":2,"] {
            fs::write(&file, text).unwrap();
            Cursor::open(&file, "b1".into()).unwrap();
        }
    }

    #[test]
    fn damaged_file_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cursor.json");
        let mut cursor = Cursor::read(&file, "b1".into());
        cursor.add(12, &list("8 8\n"));
        cursor.save().unwrap();
        let text = fs::read(&file).unwrap();
        for length in 0..text.len() {
            fs::write(&file, &text[..length]).unwrap();
            let damaged = Cursor::read(&file, "b1".into());
            assert_eq!(damaged.news(12, &list("8 8\n")), list("8 8\n"));
        }
        fs::remove_dir_all(folder.path()).unwrap();
        let mut cursor = Cursor::read(&file, "b1".into());
        cursor.add(12, &list("8 8\n"));
        assert!(cursor.save().is_err());
    }
}
