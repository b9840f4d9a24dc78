// SPDX-License-Identifier: GPL-2.0

//! A file system and its mounts.

use crate::block::topology::{self, Dax, Mount, Volume};
use crate::doctor::probe;
use crate::doctor::volume::{Place, window};
use crate::doctor::{Doctor, Finding, Prevents};
use crate::fs::{ext4, mounted, xfs};
use crate::sysfs::{printable, shell_path};
use abstractions::xattr;
use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::path::Path;
use units::PAGE;

impl Doctor<'_> {
    pub(super) fn file_system(
        &mut self,
        volume: &Volume,
        dax: bool,
        places: &[Place],
    ) -> Result<()> {
        let Some(kind) = volume.file_system.as_deref() else {
            return Ok(());
        };
        if !volume.children.is_empty() || !dax {
            return Ok(());
        }
        let node = volume.node();
        match kind {
            "ext2" | "ext4" | "xfs" => {}
            _ if kind.ends_with("_member") || matches!(kind, "crypto_LUKS" | "swap" | "erofs") => {
                return Ok(());
            }
            _ => {
                self.found(
                    Finding::new(
                        &volume.name,
                        "file-system-without-dax",
                        Prevents::Dax,
                        format!("{kind} has no direct access to a block device"),
                        format!("mkfs.ext4 -b 4096 {node}, or mkfs.xfs {node}"),
                    )
                    .destroying(),
                );
                return Ok(());
            }
        }
        let size = topology::probed("FSBLOCKSIZE", &[], &node)?;
        let size: Option<u64> = size.parse().ok();
        if let Some(size) = size.filter(|size| *size != PAGE) {
            self.found(
                Finding::new(
                    &volume.name,
                    "block-size",
                    Prevents::Dax,
                    format!("the blocks of its {kind} are {size} bytes, pages 4096"),
                    match kind {
                        "xfs" => format!("mkfs.xfs -f -b size=4096 {node}"),
                        _ => format!("mkfs.ext4 -b 4096 {node}"),
                    },
                )
                .destroying(),
            );
        }
        if kind == "ext4" && has_feature(&node, "inline_data")? {
            self.found(
                Finding::new(
                    &volume.name,
                    "inline-data",
                    Prevents::Dax,
                    "its ext4 has the feature inline_data, with which dax=always is refused",
                    format!("mkfs.ext4 -b 4096 -O ^inline_data {node}"),
                )
                .destroying(),
            );
        }
        let per_file = volume.mounts.iter().any(|mount| mount.dax == Dax::PerFile);
        if kind == "xfs" && volume.kind == "part" && !per_file && xfs::shares_blocks(&node)? {
            self.found(
                Finding::new(
                    &volume.name,
                    "reflink-on-partition",
                    Prevents::Dax,
                    "its XFS has reflink=1, with which dax=always is refused on a partition",
                    format!("mkfs.xfs -f -m reflink=0 {node}"),
                )
                .destroying(),
            );
        }
        if let Some(path) = self.scope.file() {
            return match volume.mounts.first() {
                Some(mount) => self.file(path, &node, mount, places),
                None => Ok(()),
            };
        }
        for mount in &volume.mounts {
            let done = self.mount(kind, volume, mount, places);
            self.note_failure(&printable(&mount.directory), done);
        }
        Ok(())
    }

    /// Reports mount options that prevent direct access; returns whether they prevent all of it.
    pub(super) fn options(&mut self, node: &str, mount: &Mount) -> bool {
        let directory = printable(&mount.directory);
        let quoted = shell_path(&mount.directory);
        let again = format!("umount {quoted} && mount -o dax=always {node} {quoted}");
        let options: Vec<_> = mount.options.split(',').collect();
        if options.contains(&"data=journal") {
            self.found(Finding::new(
                &directory,
                "data-journal",
                Prevents::Dax,
                "it is mounted with data=journal: ext4 writes all data twice, by the page cache",
                again,
            ));
            return true;
        }
        let realtime = options
            .iter()
            .find_map(|option| option.strip_prefix("rtdev=/dev/"));
        if let Some(device) = realtime.filter(|device| !topology::has_dax(self.host, device)) {
            self.found(Finding::new(
                &directory,
                "realtime-without-dax",
                Prevents::Dax,
                format!("files of its realtime device {device} have no direct access"),
                format!("xfs_io -c 'chattr -t' on its directories, or a realtime device of persistent memory instead of {device}"),
            ));
        }
        if mount.dax == Dax::Never {
            self.found(Finding::new(
                &directory,
                "mount-option",
                Prevents::Dax,
                "it is mounted with dax=never",
                again,
            ));
            return true;
        }
        false
    }

    /// Returns whether a finding for the mount, or for a layer below, already explains one of these.
    fn is_explained(&self, directory: &str, prevents: &[Prevents]) -> bool {
        self.report.findings.iter().any(|finding| {
            let on_the_way = finding.place == directory || self.path.contains(&finding.place);
            on_the_way && prevents.contains(&finding.prevents)
        })
    }

    fn mount(
        &mut self,
        kind: &str,
        volume: &Volume,
        mount: &Mount,
        places: &[Place],
    ) -> Result<()> {
        let node = &volume.node();
        if self.options(node, mount) {
            return Ok(());
        }
        let path = self.host.absolute(Path::new(&mount.directory));
        let directory = printable(&mount.directory);
        let root = match mounted::open_root(&path, volume.number()?) {
            // A single file: the file system has another mount.
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(()),
            root => {
                root.context("cannot open its root; another file system may be mounted above it")?
            }
        };
        let tried = match self.try_files {
            true => probe::mount(&root, &path)?,
            false => None,
        };
        let flagged = match &tried {
            Some(tried) => tried.flagged,
            None => xattr::flags(&root).unwrap_or(0) & xattr::DAX != 0,
        };
        if mount.dax == Dax::PerFile && !flagged {
            self.found(Finding::new(
                &directory,
                "no-dax-flag",
                Prevents::Dax,
                "it is mounted with dax=inode, and new files in it do not get the flag FS_XFLAG_DAX",
                format!(
                    "xfs_io -c 'chattr +x' {}, or mount it with dax=always",
                    shell_path(&mount.directory)
                ),
            ));
        }
        let Some(tried) = tried else {
            return Ok(());
        };
        let probe = tried.probe;
        let any_dax = [Prevents::All, Prevents::Dax];
        if !probe.dax && !self.is_explained(&directory, &any_dax) {
            self.found(Finding::new(
                &directory,
                "no-dax-seen",
                Prevents::Dax,
                "a file that was made there has no STATX_ATTR_DAX, for no reason known here",
                "dmesg says why, as the last lines of the file system",
            ));
        }
        if probe.dax && !probe.map_sync && !self.is_explained(&directory, &[Prevents::MapSync]) {
            self.found(Finding::new(
                &directory,
                "map-sync-refused",
                Prevents::MapSync,
                "MAP_SYNC was refused for a file that was made there",
                "have programs call fsync(2) or msync(2)",
            ));
        }
        if probe.dax
            && probe.huge == Some(false)
            && !self.is_explained(&directory, &[Prevents::HugeMappings])
        {
            let aligned = window(&tried.pieces, places).is_some();
            let (cause, evidence) = match aligned {
                false => (
                    "file-system-alignment",
                    "a file of 4 MiB that was made there does not lie at multiples of 2 MiB",
                ),
                true => (
                    "no-huge-page-seen",
                    "a file that was made there lies well, and is mapped by pages of 4 KiB all the same",
                ),
            };
            let command = match (aligned, kind) {
                (true, _) => "grep THP_enabled /proc/self/status".to_owned(),
                (false, "xfs") => format!("mkfs.xfs -f -d su=2m,sw=1 {node}"),
                (false, _) => format!("mkfs.ext4 -b 4096 -E stride=512,stripe_width=512 {node}"),
            };
            let finding =
                Finding::new(&directory, cause, Prevents::HugeMappings, evidence, command);
            self.found(match aligned {
                true => finding,
                false => finding.destroying(),
            });
        }
        self.report.probes.push(probe);
        Ok(())
    }
}

/// Whether an ext4 has a feature, as dumpe2fs(8) names it.
fn has_feature(node: &str, feature: &str) -> Result<bool> {
    match ext4::Header::read(node)? {
        Ok(header) => Ok(header.has(feature)),
        Err(reason) => bail!(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Report, Scope};
    use crate::sysfs::Host;

    #[test]
    fn covered_mount_is_unknown_and_a_mounted_file_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mount = |directory: &Path| Mount {
            directory: directory.into(),
            dax: Dax::Always,
            root: "/".into(),
            options: String::new(),
        };
        let volume = Volume::made_up("pmem0", "259:7", vec![]);
        let mut doctor = Doctor {
            host: &Host::here(),
            scope: &Scope::All,
            try_files: true,
            seen: true,
            path: Vec::new(),
            report: Report::default(),
        };
        for directory in [file.path(), folder.path()] {
            let done = doctor.mount("ext4", &volume, &mount(directory), &[]);
            doctor.note_failure("/srv", done);
        }
        let Report {
            findings,
            probes,
            unknown,
        } = doctor.report;
        assert!(findings.is_empty() && probes.is_empty());
        assert_eq!(unknown.len(), 1);
        assert!(unknown[0].reason.contains("mounted above it"));
    }
}
