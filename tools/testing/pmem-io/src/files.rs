// SPDX-License-Identifier: GPL-2.0

//! `pmem-io files`: makes many files.

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, openat};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use units::Size;

/// Files in each folder.
const PER_FOLDER: u64 = 1000;
/// One in this many files has a block.
const WRITTEN: u64 = 16;

pub fn make(folder: &Path, numbers: Range<u64>, size: Size) -> Result<usize> {
    let mut next = numbers.start;
    while next < numbers.end {
        let path = folder.join((next / PER_FOLDER).to_string());
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let directory = File::open(&path)?;
        let end = numbers.end.min((next / PER_FOLDER + 1) * PER_FOLDER);
        for number in next..end {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let mode = Mode::from_raw_mode(0o644);
            let file = openat(&directory, number.to_string(), flags, mode)
                .map(File::from)
                .with_context(|| format!("file {number}"))?;
            file.set_len(size.bytes())?;
            if number % WRITTEN == 0 {
                file.write_all_at(b"x", 0)?;
            }
        }
        next = end;
    }
    Ok(0)
}
