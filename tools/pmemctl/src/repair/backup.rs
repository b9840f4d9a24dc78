// SPDX-License-Identifier: GPL-2.0

//! The backup that replaced bytes come from.

use crate::fs::reopen::again;
use crate::repair::target::{Target, is_lost, open_path};
use crate::repair::{Comparison, Request};
use crate::sysfs::printable;
use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The backup.
pub(super) struct Backup {
    pub(super) path: PathBuf,
    file: File,
    pub(super) metadata: Metadata,
}

impl Backup {
    pub(super) fn open(path: &Path, target: &Target, request: &Request) -> Result<Self> {
        let name = printable(path);
        let handle = open_path(path, request.no_symlinks)?;
        let metadata = handle.metadata().with_context(|| name.clone())?;
        ensure!(metadata.is_file(), "{name}: this is no regular file");
        let same = (metadata.dev(), metadata.ino());
        ensure!(
            same != (target.metadata.dev(), target.metadata.ino()),
            "{name}: this is the file itself"
        );
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(again(&handle))
            .with_context(|| name.clone())?;
        let metadata = file.metadata()?;
        match &request.range {
            None => ensure!(
                metadata.len() == target.size(),
                "{name}: it has {} bytes, {} has {}; to use it nevertheless, give --offset and --length",
                metadata.len(),
                target.name(),
                target.size()
            ),
            Some(range) => ensure!(
                metadata.len() >= range.end,
                "{name}: it has {} bytes, less than the end of the range, {}",
                metadata.len(),
                range.end
            ),
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
        })
    }

    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let name = printable(&self.path);
        self.file
            .read_exact_at(bytes, at)
            .map_err(|error| match error.raw_os_error() {
                Some(code) if code == Errno::IO.raw_os_error() => {
                    anyhow!("{name}: the backup has a bad block at {at} as well, or shares its blocks with the file")
                }
                _ => anyhow!("{name}: read failed at {at}: {error}"),
            })?;
        let now = self.file.metadata()?;
        let state = |of: &Metadata| {
            (
                of.len(),
                of.mtime(),
                of.mtime_nsec(),
                of.ctime(),
                of.ctime_nsec(),
            )
        };
        ensure!(
            state(&now) == state(&self.metadata),
            "{name}: the backup has changed while it was read"
        );
        Ok(())
    }

    /// Compares bytes of the file with those at the same offset, as far as these exist and can be read.
    pub(super) fn compare(&self, at: u64, bytes: &[u8], compared: &mut Comparison) -> Result<()> {
        let length = self
            .metadata
            .len()
            .saturating_sub(at)
            .min(bytes.len() as u64);
        let mut own = vec![0; length as usize];
        match self.file.read_exact_at(&mut own, at) {
            Ok(()) => compared.add(bytes, &own),
            Err(error) if is_lost(&error) => {}
            Err(error) => {
                let name = printable(&self.path);
                return Err(error).with_context(|| format!("{name}: read failed at {at}"));
            }
        }
        Ok(())
    }
}
