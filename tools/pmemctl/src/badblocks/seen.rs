// SPDX-License-Identifier: GPL-2.0

//! Notes of which disks have had which saved list since the boot, in `/run`.
//!
//! An error that such a disk does not list has been repaired; restored, it would make good data unreadable. A saved list
//! says so itself, unless its file can't be written: a full or read-only file system, or the copy of an initramfs, whose
//! `/run` remains.

use crate::badblocks::origin::Errors;
use crate::badblocks::store::make_folder;
use crate::nd::region::Memory;
use crate::sysfs::{Host, printable};
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use tempfile::NamedTempFile;

/// Older notes are dropped: a disk has another number each time it is bound.
const MOST: usize = 1000;

/// The notes of a memory that concern one saved list.
#[derive(Debug)]
pub struct Seen {
    file: PathBuf,
    boot: String,
    list: u32,
}

/// A note that only has to be kept.
#[derive(Debug)]
pub struct Note {
    new: NamedTempFile,
    file: PathBuf,
}

impl Seen {
    pub fn new(host: &Host, memory: &Memory, boot: &str, saved: &Errors) -> Self {
        Self {
            file: host
                .path("run/pmemctl")
                .join(memory.file_name())
                .with_extension("seen"),
            boot: boot.to_owned(),
            list: crc32fast::hash(saved.all().to_string().as_bytes()),
        }
    }

    fn line(&self, disk: u64) -> String {
        format!("{} {disk} {:08x}", self.boot, self.list)
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns whether the disk of this sequence number has had the list.
    pub fn has(&self, disk: u64) -> bool {
        self.lines().contains(&self.line(disk))
    }

    /// Returns whether it has had another list of the memory since the boot: the copy in an initramfs, which may be older.
    pub fn has_other(&self, disk: u64) -> bool {
        let of_disk = format!("{} {disk} ", self.boot);
        let list = self.line(disk);
        self.lines()
            .iter()
            .any(|line| line.starts_with(&of_disk) && *line != list)
    }

    /// Prepares a note that it has, so that little can fail later.
    pub fn note(&self, disk: u64) -> Result<Note> {
        let folder = self.file.parent().unwrap_or(&self.file);
        make_folder(folder)?;
        let mut lines = self.lines();
        lines.drain(..lines.len().saturating_sub(MOST - 1));
        lines.push(self.line(disk));
        let text = lines.join("\n") + "\n";
        let new = NamedTempFile::new_in(folder).and_then(|mut new| {
            new.write_all(text.as_bytes())?;
            Ok(new)
        });
        Ok(Note {
            new: new.with_context(|| printable(folder))?,
            file: self.file.clone(),
        })
    }
}

impl Note {
    pub fn keep(self) -> Result<()> {
        let kept = self.new.persist(&self.file);
        kept.with_context(|| printable(&self.file))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::badblocks::origin::Origin;
    use crate::nd::region::Region;
    use crate::testing::FakeSysfs;

    #[test]
    fn another_list_of_the_same_disk_and_boot_is_noticed() {
        let machine = FakeSysfs::new();
        let memory = Region::find(&machine.host, 0).unwrap().memory().unwrap();
        let seen = |boot: &str, sectors: &str| {
            let errors = Errors::of(Origin::RESTORED, sectors.parse().unwrap());
            Seen::new(&machine.host, &memory, boot, &errors)
        };
        seen("a", "8 16\n").note(7).unwrap().keep().unwrap();
        assert!(seen("a", "8 16\n").has(7));
        assert!(!seen("a", "8 16\n").has_other(7));
        let newer = seen("a", "8 8\n");
        assert!(!newer.has(7) && newer.has_other(7));
        assert!(!newer.has_other(8) && !newer.has_other(70));
        assert!(!seen("b", "8 8\n").has_other(7));
    }
}
