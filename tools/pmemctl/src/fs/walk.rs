// SPDX-License-Identifier: GPL-2.0

//! A walk over the directories of a file system that is not mounted.

use crate::sysfs::printable;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u64,
    /// It is a directory itself.
    pub(crate) folder: bool,
}

/// Receives the inode of a directory and an entry of it.
pub(crate) type DirVisitor<'a> = dyn FnMut(u64, DirEntry) + 'a;

/// The number of directories that are listed at once.
const FOLDERS: usize = 1000;

/// A walk over the directories of a file system.
pub(crate) struct Walk {
    /// Directories that are not listed yet, with their names.
    pending: Vec<(u64, Vec<u8>)>,
    /// Directories seen so far; a corrupt file system may have several names for one.
    seen: BTreeSet<u64>,
}

impl Walk {
    /// Starts at the root directory.
    pub(crate) fn from(root: u64) -> Self {
        Self {
            pending: vec![(root, Vec::new())],
            seen: BTreeSet::from([root]),
        }
    }

    /// Lists the next directories with `list`, and calls `see` with each entry and the name of its directory.
    /// Returns whether there were any.
    pub(crate) fn step(
        &mut self,
        list: impl FnOnce(&[u64], &mut DirVisitor<'_>) -> Result<()>,
        mut see: impl FnMut(&DirEntry, &[u8]),
    ) -> Result<bool> {
        let rest = self.pending.len().saturating_sub(FOLDERS);
        let some: BTreeMap<u64, Vec<u8>> = self.pending.split_off(rest).into_iter().collect();
        if some.is_empty() {
            return Ok(false);
        }
        let inodes: Vec<u64> = some.keys().copied().collect();
        list(&inodes, &mut |folder, entry| {
            let Some(above) = some.get(&folder) else {
                return;
            };
            if matches!(entry.name.as_slice(), b"." | b"..") {
                return;
            }
            see(&entry, above);
            if entry.folder && self.seen.insert(entry.inode) {
                self.pending.push((entry.inode, entry.below(above)));
            }
        })?;
        Ok(true)
    }
}

impl DirEntry {
    /// Returns its path from the root.
    fn below(&self, above: &[u8]) -> Vec<u8> {
        [above, b"/", &self.name].concat()
    }
}

/// Finds the first name, or all names, of inodes by a walk from `root`.
pub(crate) fn paths(
    root: u64,
    wanted: &BTreeSet<u64>,
    all_links: bool,
    mut list: impl FnMut(&[u64], &mut DirVisitor<'_>) -> Result<()>,
) -> Result<BTreeMap<u64, Vec<String>>> {
    let mut paths: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    if wanted.contains(&root) {
        paths.insert(root, vec!["/".to_owned()]);
    }
    let mut walk = Walk::from(root);
    while paths.len() < wanted.len() || all_links && !wanted.is_empty() {
        let more = walk.step(&mut list, |entry, above| {
            if wanted.contains(&entry.inode) {
                let names = paths.entry(entry.inode).or_default();
                if all_links || names.is_empty() {
                    names.push(printable(OsStr::from_bytes(&entry.below(above))));
                }
            }
        })?;
        if !more {
            break;
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of a fake file system; 4 has two names, and 3 is corrupt and contains the root.
    fn entry(folder: u64) -> Vec<DirEntry> {
        let entry = |name: &[u8], inode, folder| DirEntry {
            name: name.to_vec(),
            inode,
            folder,
        };
        match folder {
            2 => vec![
                entry(b".", 2, true),
                entry(b"..", 2, true),
                entry(b"folder", 3, true),
                entry(b"file", 4, false),
            ],
            3 => vec![entry(b"a\nb\xff", 4, false), entry(b"up", 2, true)],
            _ => panic!(),
        }
    }

    #[test]
    fn walk_finds_names_of_inodes() {
        let asked = |wanted: &[u64], all_links| {
            let mut lists = 0;
            let wanted = wanted.iter().copied().collect();
            let found = paths(2, &wanted, all_links, |pending, see| {
                lists += 1;
                for &folder in pending {
                    entry(folder)
                        .into_iter()
                        .for_each(|entry| see(folder, entry));
                }
                Ok(())
            });
            let found: Vec<_> = found.unwrap().into_iter().collect();
            (found, lists)
        };
        let file = "/file".to_owned();
        let other = r"/folder/a\nb\xff".to_owned();
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
}
