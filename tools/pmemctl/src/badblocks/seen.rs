// SPDX-License-Identifier: GPL-2.0

//! Notes of which disks have had which saved list since the boot, in `/run`.
//!
//! An error that such a disk does not list has been repaired; restored, it would make good data unreadable. A saved list
//! says so itself, unless its file can't be written: a full or read-only file system, or the copy of an initramfs, whose
//! `/run` remains.

use crate::badblocks::set::BadBlocks;
use crate::badblocks::store::{SavedList, make_folder};
use crate::sysfs::{Host, printable};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use tempfile::NamedTempFile;

/// Older notes are dropped: a disk has another number each time it is bound.
const MOST: usize = 1000;

/// And where all take more bytes: those of some lists of the longest kind that can be saved.
const LONGEST: usize = 64 << 20;

/// The notes of a memory that concern one saved list.
#[derive(Debug)]
pub struct Seen {
    file: PathBuf,
    boot: String,
    /// Identifies the errors.
    list: u32,
    errors: BadBlocks,
    id: String,
    generation: u64,
}

/// A note that only has to be kept.
#[derive(Debug)]
pub struct Note {
    new: NamedTempFile,
    file: PathBuf,
}

impl Seen {
    pub fn new(host: &Host, boot: &str, saved: &SavedList) -> Self {
        let errors = saved.errors.all();
        Self {
            file: host
                .path("run/pmemctl")
                .join(saved.memory.file_name())
                .with_extension("seen"),
            boot: boot.to_owned(),
            list: crc32fast::hash(errors.to_string().as_bytes()),
            errors,
            id: saved.id.clone(),
            generation: saved.generation,
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns the notes of this boot and disk. Earlier versions noted less.
    fn of_disk(&self, disk: u64) -> Vec<Noted> {
        let of_disk = format!("{} {disk} ", self.boot);
        let lines = self.lines();
        let notes = lines.iter().filter_map(|line| line.strip_prefix(&of_disk));
        notes.map(Noted::parse).collect()
    }

    /// Returns whether the disk of this sequence number has had the list.
    pub fn has(&self, disk: u64) -> bool {
        let list = format!("{:08x}", self.list);
        self.of_disk(disk).iter().any(|noted| noted.list == list)
    }

    /// Returns the sectors of the region of which the disk has had those that are its own, from any list.
    pub fn had(&self, disk: u64) -> BadBlocks {
        let notes = self.of_disk(disk);
        let errors = notes.iter().flat_map(|noted| noted.errors.ranges());
        errors.cloned().collect()
    }

    /// Returns whether it has had an older copy of this list since the boot: that of an initramfs. Another list, or one of a
    /// snapshot, says nothing of what has been repaired.
    pub fn has_older(&self, disk: u64) -> bool {
        self.of_disk(disk)
            .iter()
            .filter_map(|noted| noted.copy.as_ref())
            .any(|(id, generation)| *id == self.id && *generation < self.generation)
    }

    /// Prepares a note that it has, so that little can fail later.
    pub fn note(&self, disk: u64) -> Result<Note> {
        let folder = self.file.parent().unwrap_or(&self.file);
        make_folder(folder)?;
        let mut lines = VecDeque::from(self.lines());
        lines.push_back(format!(
            "{} {disk} {:08x} {} {} {}",
            self.boot,
            self.list,
            self.id,
            self.generation,
            Noted::errors_to_word(&self.errors)
        ));
        let mut bytes: usize = lines.iter().map(String::len).sum();
        while lines.len() > MOST || lines.len() > 1 && bytes > LONGEST {
            bytes -= lines.pop_front().map_or(0, |line| line.len());
        }
        let lines = Vec::from(lines);
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

/// What a note says of a list that a disk has had.
struct Noted {
    /// Identifies the errors.
    list: String,
    /// The id and the generation of the list.
    copy: Option<(String, u64)>,
    errors: BadBlocks,
}

impl Noted {
    fn parse(note: &str) -> Self {
        let mut words = note.split(' ');
        let mut next = || words.next().unwrap_or_default();
        Self {
            list: next().to_owned(),
            copy: Some((next().to_owned(), next()))
                .and_then(|(id, generation)| Some((id, generation.parse().ok()?))),
            errors: next()
                .split(',')
                .filter_map(|error| {
                    let (start, length) = error.split_once('+')?;
                    let start: u64 = start.parse().ok()?;
                    Some(start..start.checked_add(length.parse().ok()?)?)
                })
                .collect(),
        }
    }

    /// Writes errors without blanks: `8+16,40+8`.
    fn errors_to_word(errors: &BadBlocks) -> String {
        let lines = errors.to_string();
        lines.trim_end().replace(' ', "+").replace('\n', ",")
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
    use crate::badblocks::origin::{Errors, Origin};
    use crate::nd::region::Region;
    use crate::testing::FakeSysfs;

    fn seen(machine: &FakeSysfs, boot: &str, id: &str, sectors: &str, generation: u64) -> Seen {
        let region = Region::find(&machine.host, 0).unwrap();
        let mut saved = SavedList::none(region.memory().unwrap(), region.size);
        saved.errors = Errors::of(Origin::RESTORED, sectors.parse().unwrap());
        saved.id = id.to_owned();
        saved.generation = generation;
        Seen::new(&machine.host, boot, &saved)
    }

    #[test]
    fn older_copy_is_noticed_if_the_same_disk_had_it_in_the_same_boot() {
        let machine = FakeSysfs::new();
        let seen = |boot, id, sectors, generation| seen(&machine, boot, id, sectors, generation);
        seen("a", "x", "8 16\n", 3).note(7).unwrap().keep().unwrap();
        assert!(seen("a", "x", "8 16\n", 3).has(7));
        assert!(!seen("a", "x", "8 16\n", 3).has_older(7));
        let newer = seen("a", "x", "8 8\n", 4);
        assert!(!newer.has(7) && newer.has_older(7));
        assert!(!newer.has_older(8) && !newer.has_older(70));
        assert!(!seen("b", "x", "8 8\n", 4).has_older(7));
        // One of a snapshot, and another list.
        assert!(!seen("a", "x", "8 8\n", 2).has_older(7));
        assert!(!seen("a", "y", "8 8\n", 4).has_older(7));
    }

    #[test]
    fn note_says_which_errors_the_disk_has_had() {
        let machine = FakeSysfs::new();
        let seen = |boot, id, sectors, generation| seen(&machine, boot, id, sectors, generation);
        seen("a", "x", "8 16\n", 3).note(7).unwrap().keep().unwrap();
        seen("a", "y", "40 8\n64 1\n", 1)
            .note(7)
            .unwrap()
            .keep()
            .unwrap();
        let had = |boot, disk| seen(boot, "z", "", 9).had(disk).to_string();
        assert_eq!(had("a", 7), "8 16\n40 8\n64 1\n");
        assert_eq!((had("a", 8), had("b", 7)), (String::new(), String::new()));
    }

    #[test]
    fn note_of_an_earlier_version_says_which_errors_a_disk_has_had() {
        let machine = FakeSysfs::new();
        let list = seen(&machine, "a", "x", "8 16\n", 3);
        let note = format!("a 7 {:08x}\n", list.list);
        machine.write("run/pmemctl/e820-20000000.seen", &note);
        assert!(list.has(7) && !list.has(8));
        assert!(!seen(&machine, "a", "x", "8 8\n", 4).has_older(7));
    }
}
