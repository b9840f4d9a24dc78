// SPDX-License-Identifier: GPL-2.0

//! A walk over the directories of a file system that is not mounted.

use crate::fs::parents::NAMES;
use crate::sysfs::printable;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

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

/// The bytes of the longest path that a system call takes: `PATH_MAX` counts the zero byte.
const LONGEST: usize = 4095;

/// A directory, by its parent: many directories may be in one whose path is long.
pub(crate) struct Folder {
    parent: Option<Rc<Folder>>,
    name: Vec<u8>,
    /// Bytes of its path.
    length: usize,
}

impl Folder {
    fn root() -> Self {
        Self {
            parent: None,
            name: Vec::new(),
            length: 0,
        }
    }

    /// Returns the length of the path of an entry; `None` if no program can open that path.
    fn length_with(&self, name: &[u8]) -> Option<usize> {
        Some(self.length + 1 + name.len()).filter(|length| *length <= LONGEST)
    }

    /// Returns a directory in it; `None` if its path is too long.
    fn below(self: &Rc<Self>, name: &[u8]) -> Option<Rc<Self>> {
        self.length_with(name).map(|length| {
            Rc::new(Self {
                parent: Some(Rc::clone(self)),
                name: name.to_owned(),
                length,
            })
        })
    }

    /// Returns the path of an entry from the root; `None` if it is too long.
    fn path(&self, name: &[u8]) -> Option<Vec<u8>> {
        let length = self.length_with(name)?;
        let above = std::iter::successors(Some(self), |folder| folder.parent.as_deref());
        let mut names: Vec<&[u8]> = above.map(|folder| folder.name.as_slice()).collect();
        // The root has no name.
        names.pop();
        let mut path = Vec::with_capacity(length);
        for name in names.into_iter().rev().chain([name]) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Some(path)
    }
}

/// A walk over the directories of a file system.
pub(crate) struct Walk {
    /// Directories that are not listed yet; `None` for one whose path is too long.
    pending: Vec<(u64, Option<Rc<Folder>>)>,
    /// Directories seen so far; a corrupt file system may have several names for one.
    seen: BTreeSet<u64>,
}

impl Walk {
    /// Starts at the root directory.
    pub(crate) fn from(root: u64) -> Self {
        Self {
            pending: vec![(root, Some(Rc::new(Folder::root())))],
            seen: BTreeSet::from([root]),
        }
    }

    /// Lists the next directories with `list`, and calls `see` with each entry and its directory, unless the path of that is
    /// too long. Returns whether there were any.
    pub(crate) fn step(
        &mut self,
        list: impl FnOnce(&[u64], &mut DirVisitor<'_>) -> Result<()>,
        mut see: impl FnMut(&DirEntry, Option<&Folder>),
    ) -> Result<bool> {
        let rest = self.pending.len().saturating_sub(FOLDERS);
        let some: BTreeMap<_, _> = self.pending.split_off(rest).into_iter().collect();
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
            see(&entry, above.as_deref());
            if entry.folder && self.seen.insert(entry.inode) {
                let below = above.as_ref().and_then(|above| above.below(&entry.name));
                self.pending.push((entry.inode, below));
            }
        })?;
        Ok(true)
    }
}

/// Finds the first name, or all names up to [`NAMES`], of inodes by a walk from `root`. A name whose path is too long is left
/// out, as a search of a mounted file system does not find it either.
pub(crate) fn paths(
    root: u64,
    wanted: &BTreeSet<u64>,
    all_links: bool,
    mut list: impl FnMut(&[u64], &mut DirVisitor<'_>) -> Result<()>,
) -> Result<BTreeMap<u64, Vec<String>>> {
    let limit = if all_links { NAMES } else { 1 };
    let mut paths: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    if wanted.contains(&root) {
        paths.insert(root, vec!["/".to_owned()]);
    }
    let mut walk = Walk::from(root);
    while paths.len() < wanted.len() || all_links && !wanted.is_empty() {
        let more = walk.step(&mut list, |entry, above| {
            if !wanted.contains(&entry.inode) {
                return;
            }
            let path = above.and_then(|above| above.path(&entry.name));
            let Some(path) = path else { return };
            let names = paths.entry(entry.inode).or_default();
            if names.len() < limit {
                names.push(printable(OsStr::from_bytes(&path)));
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

    fn directory(name: &[u8], inode: u64) -> DirEntry {
        DirEntry {
            name: name.to_vec(),
            inode,
            folder: true,
        }
    }

    #[test]
    fn deep_directories_are_kept_by_their_own_names() {
        const DEPTH: u64 = 4000;
        const LAST: u64 = 1000;
        let name = [b'a'; 255];
        let mut walk = Walk::from(0);
        let mut inodes = BTreeSet::new();
        // A chain, and many directories at its end.
        for depth in 0..=DEPTH {
            let children = match depth {
                DEPTH => depth + 1..depth + 1 + LAST,
                _ => depth + 1..depth + 2,
            };
            let list = |folders: &[u64], see: &mut DirVisitor<'_>| {
                assert_eq!(folders, [depth]);
                children.for_each(|inode| see(depth, directory(&name, inode)));
                Ok(())
            };
            assert!(
                walk.step(list, |entry, _| _ = inodes.insert(entry.inode))
                    .unwrap()
            );
        }
        assert_eq!(inodes.len() as u64, DEPTH + LAST);
        assert_eq!(walk.pending.len() as u64, LAST);
        // The paths have a million bytes each.
        assert!(walk.pending.iter().all(|(_, folder)| folder.is_none()));
    }

    #[test]
    fn paths_that_no_program_can_open_are_left_out() {
        let name = [b'a'; 255];
        // 15 directories of 256 bytes with their slash, and a 16th that leaves room for so many more.
        let found = |room: usize| {
            let list = |folders: &[u64], see: &mut DirVisitor<'_>| {
                for &folder in folders {
                    match folder {
                        0..15 => see(folder, directory(&name, folder + 1)),
                        15 => see(folder, directory(&name[room..], 16)),
                        _ => see(
                            folder,
                            DirEntry {
                                folder: false,
                                ..directory(b"file", 20)
                            },
                        ),
                    }
                }
                Ok(())
            };
            paths(0, &BTreeSet::from([16, 20]), true, list).unwrap()
        };
        let with_room = found(6);
        let (above, file) = (&with_room[&16][0], &with_room[&20][0]);
        assert_eq!(*file, format!("{above}/file"));
        assert_eq!(file.len(), LONGEST);
        let without = found(5);
        assert!(without.contains_key(&16) && !without.contains_key(&20));
    }

    #[test]
    fn names_of_a_file_with_many_links_are_limited() {
        let found = paths(2, &BTreeSet::from([4]), true, |_, see| {
            let link = |name: usize| DirEntry {
                name: name.to_string().into(),
                inode: 4,
                folder: false,
            };
            (0..2 * NAMES).for_each(|name| see(2, link(name)));
            Ok(())
        });
        assert_eq!(found.unwrap()[&4].len(), NAMES);
    }

    #[test]
    fn siblings_share_the_path_above_them() {
        let root = Rc::new(Folder::root());
        let above = root.below(b"above").unwrap();
        let folders = [b"one", b"two"].map(|name| above.below(name).unwrap());
        assert_eq!(Rc::strong_count(&above), 3);
        for (folder, path) in folders.iter().zip(["/above/one/x", "/above/two/x"]) {
            assert_eq!(folder.path(b"x").unwrap(), path.as_bytes());
            assert_eq!(folder.length + 2, path.len());
        }
    }

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
