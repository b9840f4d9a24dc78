// SPDX-License-Identifier: GPL-2.0

//! A file: its attributes, and whether huge pages can map it.

use crate::affected;
use crate::block::topology::{Dax, Mount};
use crate::doctor::probe::{self, HUGE};
use crate::doctor::volume::{Place, window};
use crate::doctor::{Doctor, Finding, Prevents};
use crate::sysfs::{printable, shell_path};
use abstractions::xattr;
use anyhow::{Context, Result};
use rustix::fs::StatxAttributes;
use std::fs::File;
use std::path::Path;

impl Doctor<'_> {
    pub(super) fn file(
        &mut self,
        path: &Path,
        node: &str,
        mount: &Mount,
        places: &[Place],
    ) -> Result<()> {
        let name = printable(path);
        let quoted = shell_path(path);
        let opened = affected::open(path).with_context(|| name.clone())?;
        let metadata = opened.metadata().with_context(|| name.clone())?;
        let attributes = probe::attributes(&opened).with_context(|| name.clone())?;
        let by_mount = self.options(node, mount);
        if !attributes.contains(StatxAttributes::DAX) && !by_mount {
            self.file_without_dax(path, &opened, attributes, mount);
        }
        let pieces = probe::pieces(&opened).with_context(|| name.clone())?;
        let window = window(&pieces, places);
        if metadata.len() < HUGE {
            self.found(Finding::new(
                &name,
                "file-size",
                Prevents::HugeMappings,
                format!("it has {} bytes, a huge page 2 MiB", metadata.len()),
                format!("fallocate -l 2M {quoted}, if it is to grow"),
            ));
        } else if window.is_none() {
            self.found(Finding::new(
                &name,
                "file-extents",
                Prevents::HugeMappings,
                format!("none of its {} extents has 2 MiB that begin at a multiple of that both in the file and in memory", pieces.len()),
                format!("copy it: fallocate -l {} NEW && cp --reflink=never {quoted} NEW; a file system made with mkfs.ext4 -E stride=512,stripe_width=512 or mkfs.xfs -d su=2m,sw=1 aligns them", metadata.len()),
            ));
        }
        let probe = probe::file(path, &opened, window)?;
        self.report.probes.push(probe);
        Ok(())
    }

    fn file_without_dax(
        &mut self,
        path: &Path,
        opened: &File,
        attributes: StatxAttributes,
        mount: &Mount,
    ) {
        /// `FS_JOURNAL_DATA_FL` and `FS_INLINE_DATA_FL` of linux/fs.h.
        const JOURNAL_DATA: u32 = 0x4000;
        const INLINE_DATA: u32 = 0x1000_0000;
        let flags = rustix::fs::ioctl_getflags(opened).map_or(0, |flags| flags.bits());
        let flagged = xattr::flags(opened).unwrap_or(0) & xattr::DAX != 0;
        let quoted = shell_path(path);
        let copy = format!("cp --reflink=never {quoted} NEW");
        let (cause, evidence, command) = if attributes.contains(StatxAttributes::ENCRYPTED) {
            (
                "file-encrypted",
                "it is encrypted (fscrypt)",
                format!("{copy}, into a directory that is not encrypted"),
            )
        } else if attributes.contains(StatxAttributes::VERITY) {
            (
                "file-verity",
                "it has fs-verity, which reads by the page cache",
                copy,
            )
        } else if flags & JOURNAL_DATA != 0 {
            (
                "file-data-journal",
                "it has the attribute j: ext4 writes its data twice, by the page cache",
                format!("chattr -j {quoted}, and close it everywhere"),
            )
        } else if flags & INLINE_DATA != 0 {
            (
                "file-inline",
                "its data is in its inode",
                "back up all files, then: mkfs.ext4 -O ^inline_data on its device".into(),
            )
        } else if mount.dax == Dax::PerFile && !flagged {
            (
                "no-dax-flag",
                "its mount has dax=inode, and it has no flag FS_XFLAG_DAX",
                format!(
                    "xfs_io -c 'chattr +x' {quoted}, close it everywhere, echo 2 >/proc/sys/vm/drop_caches"
                ),
            )
        } else if mount.dax == Dax::PerFile {
            (
                "dax-flag-not-yet",
                "it has the flag FS_XFLAG_DAX, which takes effect when its inode is read again",
                "close it everywhere, then: echo 2 >/proc/sys/vm/drop_caches".into(),
            )
        } else {
            return;
        };
        let finding = Finding::new(printable(path), cause, Prevents::Dax, evidence, command);
        self.found(match cause {
            "file-inline" => finding.destroying(),
            _ => finding,
        });
    }
}
