// SPDX-License-Identifier: GPL-2.0

//! Finds the owners of blocks on an unmounted file system with e2fsprogs or xfsprogs.
//!
//! Nothing is written. The device is opened with `O_EXCL` meanwhile, so that it cannot be mounted.

use crate::block::remap::Span;
use crate::block::topology::Volume;
use crate::fs::{OwnersFound, ext4, xfs};
use crate::sysfs::Host;
use anyhow::{Context, Result};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Finds the owners of `spans` of a volume.
pub fn owners(
    host: &Host,
    volume: &Volume,
    spans: &[Span],
    all_links: bool,
) -> Result<OwnersFound> {
    let kind = volume.file_system.as_deref().unwrap_or_default();
    let look = match kind {
        "ext2" | "ext3" | "ext4" => ext4::owners,
        "xfs" => xfs::owners,
        _ => return Ok(OwnersFound::nothing(unsupported(kind))),
    };
    let node = host.path("dev").join(&volume.kernel_name);
    let _claim = match claim(&node)? {
        Ok(claim) => claim,
        Err(reason) => return Ok(OwnersFound::nothing(reason)),
    };
    let node = node.to_str().context("the name of its device")?;
    look(node, spans, all_links).with_context(|| volume.name.clone())
}

/// Opens a device with `O_EXCL`, so that it cannot be mounted; or returns why it must not be read.
pub(crate) fn claim(node: &Path) -> Result<std::result::Result<File, &'static str>> {
    let claimed = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(node);
    match claimed {
        Ok(claim) => Ok(Ok(claim)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(Err("it is not mounted, and only root can read it"))
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(Err(
            "device is busy (mounted in another mount namespace, or claimed by another device)",
        )),
        Err(error) => Err(error).with_context(|| node.display().to_string()),
    }
}

/// Returns why a type of file system is not supported.
pub fn unsupported(kind: &str) -> String {
    match kind {
        "crypto_LUKS" => "it is encrypted (LUKS); the owners are unknown".to_owned(),
        "swap" => "it is swap space".to_owned(),
        "LVM2_member" => {
            "no volume of LVM has it, or none that is active (vgchange -ay)".to_owned()
        }
        "linux_raid_member" => "it is part of a RAID, which is not supported".to_owned(),
        kind => format!("it is {kind}; only ext2, ext3, ext4 and XFS are supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_type_is_named() {
        assert!(unsupported("btrfs").contains("btrfs"));
        assert!(unsupported("crypto_LUKS").contains("encrypted"));
    }
}
