// SPDX-License-Identifier: GPL-2.0

//! Whose bytes of a file system are that is not mounted, as its own tools tell.
//!
//! Nothing is written. While they look, the device is claimed, so that nobody mounts it meanwhile.

use crate::host::{Host, printable};
use crate::owner::{Owned, Owner};
use crate::stack::Volume;
use crate::trace::Span;
use crate::{ext4, xfs};
use anyhow::{Context, Result};
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What could be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Whose which bytes are; nothing where all is refused.
    pub owned: Vec<Owned>,
    /// Why not more is known.
    pub reason: Option<String>,
}

impl Told {
    /// Nothing, for a reason.
    pub(crate) fn nothing(reason: impl Into<String>) -> Self {
        Self {
            owned: Vec::new(),
            reason: Some(reason.into()),
        }
    }

    /// Adds a part, to its neighbour where that is one of the same owner.
    pub(crate) fn add(&mut self, span: Span, owner: Owner) {
        if let Some(last) = self.owned.last_mut() {
            let behind = last.span.range().end == span.offset
                && last.span.disk_offset + last.span.length == span.disk_offset;
            if behind && last.owner == owner {
                last.span.length += span.length;
                return;
            }
        }
        self.owned.push(Owned { span, owner });
    }

    /// Adds what nobody knows.
    pub(crate) fn unknown(&mut self, left: Vec<Span>, group: impl Fn(u64) -> Option<u64>) {
        for span in left {
            let group = group(span.offset);
            self.owned.push(Owned {
                span,
                owner: Owner::Unknown { group },
            });
        }
        self.owned
            .sort_by_key(|owned| (owned.span.disk_offset, owned.span.length));
    }
}

/// The name of a file as its file system has it, from its root on.
pub(crate) fn path(name: &[u8]) -> String {
    let name = name.strip_suffix(b"/.").unwrap_or(name);
    let start = name.iter().take_while(|&&byte| byte == b'/').count();
    let name = name.get(start..).unwrap_or_default();
    match name {
        b"." => "/".to_owned(),
        name => format!("/{}", printable(OsStr::from_bytes(name))),
    }
}

/// Whose the bytes of `spans` of a volume are.
pub fn owners(host: &Host, volume: &Volume, spans: &[Span], all_links: bool) -> Result<Told> {
    let kind = volume.file_system.as_deref().unwrap_or_default();
    let look = match kind {
        "ext2" | "ext3" | "ext4" => ext4::owners,
        "xfs" => xfs::owners,
        _ => return Ok(Told::nothing(stranger(kind))),
    };
    let node = host.path("dev").join(&volume.kernel_name);
    let _claim = match claim(&node)? {
        Ok(claim) => claim,
        Err(reason) => return Ok(Told::nothing(reason)),
    };
    let node = node.to_str().context("the name of its device")?;
    look(node, spans, all_links).with_context(|| volume.name.clone())
}

/// Opens a device so that nobody mounts it meanwhile; or says why it is not to be looked into.
pub(crate) fn claim(node: &Path) -> Result<std::result::Result<File, &'static str>> {
    let claimed = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(node);
    match claimed {
        Ok(claim) => Ok(Ok(claim)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Err(
            "it is not mounted, and only root may look into it: run it as root",
        )),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(Err(
            "it is not mounted here, and in use: mounted in another mount namespace, or a part of something",
        )),
        Err(error) => Err(error).with_context(|| node.display().to_string()),
    }
}

/// Why one of a kind that is not known here is not looked into.
pub fn stranger(kind: &str) -> String {
    match kind {
        "crypto_LUKS" => "it is encrypted (LUKS): whose the bytes are is not known here".to_owned(),
        "swap" => "it is swap space".to_owned(),
        "LVM2_member" => {
            "no volume of LVM has it, or none that is active (vgchange -ay)".to_owned()
        }
        "linux_raid_member" => "it is a part of a RAID, which is not known here".to_owned(),
        kind => format!("it is {kind}, which is not known here: only ext2, ext3, ext4 and XFS are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_files() {
        for (name, wanted) in [
            (&b"//file"[..], "/file"),
            (b"dir/.", "/dir"),
            (b".", "/"),
            (b"/dir/a\nb\xff", "/dir/a\\nb\u{fffd}"),
        ] {
            assert_eq!(path(name), wanted);
        }
    }

    #[test]
    fn neighbours_of_one_owner_are_one() {
        let span = |offset, length| Span {
            disk_offset: offset,
            offset,
            length,
        };
        let mut told = Told::default();
        told.add(span(0, 512), Owner::Free);
        told.add(span(512, 512), Owner::Free);
        told.add(span(1024, 512), Owner::Unknown { group: None });
        told.add(span(2048, 512), Owner::Unknown { group: None });
        let spans: Vec<_> = told.owned.iter().map(|owned| owned.span.clone()).collect();
        assert_eq!(spans, [span(0, 1024), span(1024, 512), span(2048, 512)]);
    }

    #[test]
    fn strangers() {
        assert!(stranger("btrfs").contains("btrfs"));
        assert!(stranger("crypto_LUKS").contains("encrypted"));
    }
}
