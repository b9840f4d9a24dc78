// SPDX-License-Identifier: GPL-2.0

//! Reads and writes of a file by system calls.

use crate::area::{Area, Call};
use crate::mapped::differences;
use crate::pattern::Pattern;
use crate::shell;
use abstractions::DirectBuffer;
use abstractions::userfault::MissingPages;
use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::thread;

#[derive(Args)]
pub struct Flags {
    /// Fail rather than wait (RWF_NOWAIT)
    #[arg(long)]
    nowait: bool,
    /// Make the write durable (RWF_DSYNC)
    #[arg(long)]
    dsync: bool,
}

impl Flags {
    fn bits(&self) -> ReadWriteFlags {
        let mut bits = ReadWriteFlags::empty();
        bits.set(ReadWriteFlags::NOWAIT, self.nowait);
        bits.set(ReadWriteFlags::DSYNC, self.dsync);
        bits
    }
}

/// Writes the pattern.
pub fn fill(area: &Area, pattern: Pattern, call: &Call, sync: bool) -> Result<usize> {
    let file = area.open(true, call.direct)?;
    area.blocks(&file, call, |buffer, at| {
        pattern.fill(buffer, at);
        file.write_all_at(buffer, at)
            .with_context(|| format!("write at {at}"))
    })?;
    if sync {
        file.sync_all().context("fsync")?;
    }
    Ok(0)
}

/// Compares the file with the pattern; returns how many blocks differ.
pub fn verify(area: &Area, pattern: Pattern, call: &Call) -> Result<usize> {
    let file = area.open(false, call.direct)?;
    let mut different = 0;
    area.blocks(&file, call, |buffer, at| {
        file.read_exact_at(buffer, at)
            .with_context(|| format!("read at {at}"))?;
        different += differences(&pattern, buffer, at);
        Ok(())
    })?;
    Ok(different)
}

/// Makes one preadv2(2) call and prints how many bytes it returned.
pub fn pread(area: &Area, call: &Call, flags: &Flags) -> Result<usize> {
    let file = area.open(false, call.direct)?;
    let mut buffer = DirectBuffer::misaligned(area.length_of(&file)?, call.misalign);
    let mut to = [IoSliceMut::new(buffer.bytes())];
    let read = preadv2(&file, &mut to, area.offset.bytes(), flags.bits())?;
    println!("{read}");
    Ok(0)
}

/// Makes one pwritev2(2) call with the pattern and prints how many bytes it wrote.
pub fn pwrite(area: &Area, pattern: Pattern, call: &Call, flags: &Flags) -> Result<usize> {
    let file = area.open(true, call.direct)?;
    let mut buffer = DirectBuffer::misaligned(area.length_of(&file)?, call.misalign);
    pattern.fill(buffer.bytes(), area.offset.bytes());
    let from = [IoSlice::new(buffer.bytes())];
    let written = pwritev2(&file, &from, area.offset.bytes(), flags.bits())?;
    println!("{written}");
    Ok(0)
}

/// Makes one pwrite(2) call whose source pages are missing until the shell command `run` ends.
pub fn pwrite_stalled(area: &Area, pattern: Pattern, run: &str) -> Result<usize> {
    /// Seconds until the call must have read its source.
    const TIMEOUT: u32 = 20;

    let file = area.open(true, false)?;
    let mut bytes = vec![0; area.length_of(&file)?];
    pattern.fill(&mut bytes, area.offset.bytes());
    let source = MissingPages::new(bytes.len()).context("userfaultfd")?;
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| source.pwrite(&file, area.offset.bytes()));
        let waits = source.wait(TIMEOUT);
        let status = matches!(waits, Ok(true)).then(|| shell(run));
        // Supply the pages even after an error: the writer would block forever, and the scope
        // waits for it.
        let supplied = source.supply(&bytes);
        let written = writer.join().expect("the writer does not panic");
        ensure!(waits?, "the call did not read its source in {TIMEOUT} s");
        supplied.context("UFFDIO_COPY")?;
        status.transpose()?;
        Ok(written)
    })?;
    println!("{}", written?);
    Ok(0)
}
