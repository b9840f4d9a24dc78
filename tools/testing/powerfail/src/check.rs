// SPDX-License-Identifier: GPL-2.0

//! Checks of a crash image: what was promised is there.

use crate::btt::Btt;
use crate::workload::{Check, Workload};
use anyhow::{Context, Result};
use persistence::record::{Promise, RECORD};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// What is wrong with an image, as a sentence; nothing if all is well.
type Verdict = Result<(), String>;

/// Checks the images of a workload.
pub struct Checker {
    check: Check,
    /// Where the disk's data begin.
    offset: usize,
    folder: TempDir,
}

impl Checker {
    pub fn new(workload: &Workload, offset: usize) -> Result<Self> {
        Ok(Self {
            check: workload.check,
            offset,
            folder: tempfile::tempdir().context("no folder for images")?,
        })
    }

    /// Checks an image of the whole memory. The outer error is one of this host.
    pub fn check(&self, memory: &[u8], promises: &BTreeMap<u16, Promise>) -> Result<Verdict> {
        let data = memory
            .get(self.offset..)
            .context("the disk begins behind the memory")?;
        Ok(match self.check {
            Check::Raw => in_order(data, promises),
            Check::Btt => blocks(data, promises),
            Check::Ext4File | Check::Ext4Folder => {
                let image = self.folder.path().join("image");
                fs::write(&image, data)?;
                match self.recover(&image)? {
                    Err(problem) => Err(problem),
                    Ok(()) if self.check == Check::Ext4File => self.file(&image, promises)?,
                    Ok(()) => self.files(&image, promises)?,
                }
            }
        })
    }

    /// Has e2fsck recover the journal, as mount does, and check the file system.
    fn recover(&self, image: &Path) -> Result<Verdict> {
        let journal = run(Command::new("e2fsck")
            .args(["-fy", "-E", "journal_only"])
            .arg(image))?;
        if !matches!(journal.status.code(), Some(0 | 1)) {
            return Ok(Err(format!(
                "the journal can't be recovered: {}",
                text(&journal)
            )));
        }
        let check = run(Command::new("e2fsck").arg("-fn").arg(image))?;
        Ok(match check.status.success() {
            true => Ok(()),
            false => Err(format!("the file system is not clean: {}", text(&check))),
        })
    }

    /// Copies the root folder of ext4 out, and returns its path.
    fn copy(&self, image: &Path) -> Result<TempDir> {
        let folder = tempfile::tempdir_in(&self.folder)?;
        let request = format!("rdump / {}", folder.path().display());
        let output = run(Command::new("debugfs").args(["-R", &request]).arg(image))?;
        anyhow::ensure!(output.status.success(), "debugfs: {}", text(&output));
        Ok(folder)
    }

    fn file(&self, image: &Path, promises: &BTreeMap<u16, Promise>) -> Result<Verdict> {
        let folder = self.copy(image)?;
        Ok(match fs::read(folder.path().join("records")) {
            Ok(data) => in_order(&data, promises),
            Err(error) => Err(format!("the file of the records: {error}")),
        })
    }

    fn files(&self, image: &Path, promises: &BTreeMap<u16, Promise>) -> Result<Verdict> {
        let folder = self.copy(image)?;
        let check = |(&record, promise): (&u16, &Promise)| match fs::read(
            folder.path().join(format!("record{record}")),
        ) {
            Ok(data) if promise.promised > 0 => promise.check(&data, record, true),
            Err(error) if promise.promised > 0 => {
                Err(format!("record {record} is no file any more: {error}"))
            }
            _ => Ok(()),
        };
        Ok(promises.iter().try_for_each(check))
    }
}

/// Checks records that are stored one after the other.
fn in_order(data: &[u8], promises: &BTreeMap<u16, Promise>) -> Verdict {
    promises.iter().try_for_each(|(&record, promise)| {
        let at = usize::from(record) * RECORD;
        promise.check(data.get(at..at + RECORD).unwrap_or_default(), record, false)
    })
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

fn run(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .output()
        .with_context(|| format!("{program} can't be run"))
}

/// Returns the last lines of a program's output as one.
fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(6)..].join(" / ")
}
