// SPDX-License-Identifier: GPL-2.0

//! Arguments that several commands share: a range of a file, and how it is opened and mapped.

use crate::pattern::Pattern;
use abstractions::DirectBuffer;
use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use units::Size;

/// A range of a file.
#[derive(Args)]
pub struct Area {
    /// The file or device
    pub file: PathBuf,
    /// Start of the range
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_bytes(0))]
    pub offset: Size,
    /// Length of the range (default: to the end of the file)
    #[arg(long, value_name = "SIZE")]
    pub length: Option<Size>,
}

#[derive(Args)]
pub struct Seed {
    /// Select the pattern, in which each byte depends on the seed and its offset in the file
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Seed {
    pub fn pattern(&self) -> Pattern {
        Pattern::new(self.seed)
    }
}

#[derive(Args)]
pub struct MapOptions {
    /// Map with MAP_SYNC
    #[arg(long)]
    pub sync: bool,
    /// Map with MAP_POPULATE
    #[arg(long)]
    pub populate: bool,
}

#[derive(Args)]
pub struct Call {
    /// Open with O_DIRECT
    #[arg(long)]
    pub direct: bool,
    /// Distance of the buffer from the start of a page
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub misalign: usize,
    /// Length of each call, where there are several
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(1))]
    pub block: Size,
}

/// Opens a file or device for reading and, if `write`, for writing.
pub fn open(path: &Path, write: bool, direct: bool) -> Result<File> {
    let flags = if direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .with_context(|| path.display().to_string())
}

impl Area {
    pub fn open(&self, write: bool, direct: bool) -> Result<File> {
        open(&self.file, write, direct)
    }

    /// Returns the length of the range in bytes.
    pub fn length_of(&self, mut file: &File) -> Result<usize> {
        if let Some(length) = self.length {
            return Ok(usize::try_from(length.bytes())?);
        }
        // Metadata has no size for a device.
        let end = file.seek(SeekFrom::End(0)).context("the end of the file")?;
        let length = end
            .checked_sub(self.offset.bytes())
            .filter(|&length| length > 0);
        Ok(usize::try_from(
            length.context("--offset is beyond the end of the file")?,
        )?)
    }

    /// Calls `act` with a buffer for each block and the block's offset in the file.
    pub fn blocks(
        &self,
        file: &File,
        call: &Call,
        mut act: impl FnMut(&mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        let block = usize::try_from(call.block.bytes())?;
        ensure!(block > 0, "--block 0");
        let length = self.length_of(file)?;
        ensure!(length > 0, "--length 0");
        let mut buffer = DirectBuffer::misaligned(block.min(length), call.misalign);
        let mut done = 0;
        while done < length {
            let now = block.min(length - done);
            let offset = self.offset.bytes() + done as u64;
            act(&mut buffer.bytes()[..now], offset)?;
            done += now;
        }
        Ok(())
    }
}
