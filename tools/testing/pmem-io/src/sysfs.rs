// SPDX-License-Identifier: GPL-2.0

//! Writes to files of sysfs and debugfs, and waits for changes of them.

use crate::{repeat, shell};
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes each line of standard input, again and again for `seconds`; returns how many writes failed.
pub fn write_lines(path: &Path, seconds: Option<u64>) -> Result<usize> {
    let name = || path.display().to_string();
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(name)?;
    let text = io::read_to_string(io::stdin())?;
    ensure!(!text.is_empty(), "standard input has no line");
    repeat(seconds, || {
        let mut failed = 0;
        for line in text.lines() {
            match file.write_at(line.as_bytes(), 0) {
                Ok(length) if length == line.len() => continue,
                Ok(length) => println!("{line}: {length} bytes"),
                Err(error) => println!("{line}: {error}"),
            }
            failed += 1;
        }
        Ok(failed)
    })
}

/// Waits until the kernel notifies of a change, and prints the file.
pub fn wait_for_change(path: &Path, run: Option<&str>, seconds: u32) -> Result<usize> {
    let name = || path.display().to_string();
    let mut file = File::open(path).with_context(name)?;
    let mut text = String::new();
    // poll(2) reports changes since the last read.
    file.read_to_string(&mut text).with_context(name)?;
    if let Some(command) = run {
        shell(command)?;
    }
    let limit = Timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&file, PollFlags::PRI | PollFlags::ERR)];
    if poll(&mut fds, Some(&limit)).context("poll")? == 0 {
        println!("no change in {seconds} s");
        return Ok(1);
    }
    file.seek(SeekFrom::Start(0))?;
    text.clear();
    file.read_to_string(&mut text).with_context(name)?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}
