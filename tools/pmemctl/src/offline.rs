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
use std::collections::{BTreeMap, BTreeSet};
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

/// What a directory holds: a name, and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u64,
    /// It is a directory itself.
    pub(crate) folder: bool,
}

/// Is told what a directory, by its inode, holds.
pub(crate) type Holds<'a> = dyn FnMut(u64, Held) + 'a;

/// How many directories are asked for at once.
const FOLDERS: usize = 1000;

/// A walk over the directories of a file system.
pub(crate) struct Walk {
    /// Those that were not listed yet, with their names.
    folders: Vec<(u64, Vec<u8>)>,
    /// All that were seen: a directory has one name, but where the file system has a fault.
    known: BTreeSet<u64>,
}

impl Walk {
    /// From the root directory on.
    pub(crate) fn from(root: u64) -> Self {
        Self {
            folders: vec![(root, Vec::new())],
            known: BTreeSet::from([root]),
        }
    }

    /// Has `list` tell what the next directories hold, and `see` look at each of that and at the name
    /// of its directory; whether there were any.
    pub(crate) fn step(
        &mut self,
        list: impl FnOnce(&[u64], &mut Holds<'_>) -> Result<()>,
        mut see: impl FnMut(&Held, &[u8]),
    ) -> Result<bool> {
        let rest = self.folders.len().saturating_sub(FOLDERS);
        let some: BTreeMap<u64, Vec<u8>> = self.folders.split_off(rest).into_iter().collect();
        if some.is_empty() {
            return Ok(false);
        }
        let inodes: Vec<u64> = some.keys().copied().collect();
        list(&inodes, &mut |folder, held| {
            let Some(above) = some.get(&folder) else {
                return;
            };
            if matches!(held.name.as_slice(), b"." | b"..") {
                return;
            }
            see(&held, above);
            if held.folder && self.known.insert(held.inode) {
                self.folders.push((held.inode, held.below(above)));
            }
        })?;
        Ok(true)
    }
}

impl Held {
    /// Its name, from the root on.
    fn below(&self, above: &[u8]) -> Vec<u8> {
        [above, b"/", &self.name].concat()
    }
}

/// The names of inodes, the first that is found or all of them, by a walk over the directories from
/// `root` on.
pub(crate) fn paths(
    root: u64,
    wanted: &BTreeSet<u64>,
    all_links: bool,
    mut list: impl FnMut(&[u64], &mut Holds<'_>) -> Result<()>,
) -> Result<BTreeMap<u64, Vec<String>>> {
    let mut paths: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    if wanted.contains(&root) {
        paths.insert(root, vec!["/".to_owned()]);
    }
    let mut walk = Walk::from(root);
    while paths.len() < wanted.len() || all_links && !wanted.is_empty() {
        let more = walk.step(&mut list, |held, above| {
            if wanted.contains(&held.inode) {
                let names = paths.entry(held.inode).or_default();
                if all_links || names.is_empty() {
                    names.push(printable(OsStr::from_bytes(&held.below(above))));
                }
            }
        })?;
        if !more {
            break;
        }
    }
    Ok(paths)
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

    /// What a made-up file system holds; 4 is held twice, and a fault has 3 hold the root.
    fn held(folder: u64) -> Vec<Held> {
        let held = |name: &[u8], inode, folder| Held {
            name: name.to_vec(),
            inode,
            folder,
        };
        match folder {
            2 => vec![
                held(b".", 2, true),
                held(b"..", 2, true),
                held(b"folder", 3, true),
                held(b"file", 4, false),
            ],
            3 => vec![held(b"a\nb\xff", 4, false), held(b"up", 2, true)],
            _ => panic!(),
        }
    }

    #[test]
    fn names_of_inodes() {
        let asked = |wanted: &[u64], all_links| {
            let mut lists = 0;
            let wanted = wanted.iter().copied().collect();
            let found = paths(2, &wanted, all_links, |folders, see| {
                lists += 1;
                for &folder in folders {
                    held(folder).into_iter().for_each(|held| see(folder, held));
                }
                Ok(())
            });
            let found: Vec<_> = found.unwrap().into_iter().collect();
            (found, lists)
        };
        let file = "/file".to_owned();
        let other = "/folder/a\\nb\u{fffd}".to_owned();
        assert_eq!(asked(&[4], false), (vec![(4, vec![file.clone()])], 1));
        assert_eq!(asked(&[4], true), (vec![(4, vec![file, other])], 2));
        assert_eq!(asked(&[2], false), (vec![(2, vec!["/".to_owned()])], 0));
        assert_eq!(
            asked(&[3, 7], false),
            (vec![(3, vec!["/folder".to_owned()])], 2)
        );
        assert_eq!(asked(&[], true), (vec![], 0));
        let fails = paths(2, &[4].into(), false, |_, _| anyhow::bail!("no"));
        assert!(fails.is_err());
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
