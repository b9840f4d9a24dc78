// SPDX-License-Identifier: GPL-2.0

//! Names of the inodes of a mounted XFS, by its parent pointers (`mkfs.xfs -n parent=1`).
//!
//! Users may rename files meanwhile, and the pointers of a corrupt file system may be wrong: each name is looked up.

use crate::fs::tree::Tree;
use abstractions::xfs_parents::{self, Parent};
use rustix::fs::{AtFlags, fstat, statat};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The highest number of names of an inode that are found.
pub(crate) const NAMES: usize = 10_000;

/// The highest number of directories above a file: `PATH_MAX` allows half as many.
const DEEPEST: usize = 4096;

/// The names of an inode below a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Paths {
        /// From the directory.
        paths: Vec<PathBuf>,
        /// These are all names, not only one.
        all: bool,
    },
    /// All names are outside of the directory, which is a bind mount of a part of the file system.
    Outside,
    /// The inode has no name.
    Removed,
}

/// Returns the names of an inode below `root`, where the file system is mounted.
///
/// # Errors
///
/// `EOPNOTSUPP` if the file system has no parent pointers; `EAGAIN` if a name was changed meanwhile.
pub(crate) fn names(root: &File, inode: u64, all_links: bool) -> io::Result<Names> {
    let top = fstat(root)?;
    if inode == top.st_ino {
        return Ok(Names::Paths {
            paths: vec![PathBuf::new()],
            all: true,
        });
    }
    let generation = xfs_parents::generation(root, inode)?;
    let found = find(
        top.st_ino,
        inode,
        generation,
        all_links,
        |inode, generation, limit| xfs_parents::parents(root, inode, generation, limit),
    )?;
    if let Names::Paths { paths, .. } = &found {
        let tree = Tree::open(root)?;
        for path in paths {
            let (folder, name) = (path.parent(), path.file_name());
            let folder = tree.directory(folder.unwrap_or(Path::new("")))?;
            let status = statat(&folder, name.unwrap_or_default(), AtFlags::SYMLINK_NOFOLLOW)?;
            if status.st_ino != inode || status.st_dev != top.st_dev {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }
    Ok(found)
}

/// Finds the names below the directory `top` by `ask`, which returns the parents of an inode, at most so many.
fn find(
    top: u64,
    inode: u64,
    generation: u32,
    all_links: bool,
    mut ask: impl FnMut(u64, u32, usize) -> io::Result<Vec<Parent>>,
) -> io::Result<Names> {
    let parents = ask(inode, generation, NAMES)?;
    let count = parents.len();
    let mut paths = Vec::new();
    for parent in parents {
        if let Some(path) = climb(top, parent, &mut ask)? {
            paths.push(path);
            if !all_links {
                break;
            }
        }
    }
    Ok(match (count, paths.len()) {
        (0, _) => Names::Removed,
        (_, 0) => Names::Outside,
        (NAMES.., _) => Names::Paths { paths, all: false },
        (_, found) => Names::Paths {
            paths,
            all: all_links || found == count,
        },
    })
}

/// Returns the path from the directory `top`; `None` if the name is not below it.
fn climb(
    top: u64,
    first: Parent,
    ask: &mut impl FnMut(u64, u32, usize) -> io::Result<Vec<Parent>>,
) -> io::Result<Option<PathBuf>> {
    let mut names = Vec::new();
    let mut next = first;
    while names.len() < DEEPEST {
        let bytes = next.name.as_bytes();
        // Only a corrupt file system has such names.
        if bytes.contains(&b'/') || matches!(bytes, b"" | b"." | b"..") {
            return Ok(None);
        }
        let (inode, generation) = (next.inode, next.generation);
        names.push(next.name);
        if inode == top {
            return Ok(Some(names.iter().rev().collect()));
        }
        match ask(inode, generation, 1)?.pop() {
            Some(parent) => next = parent,
            // The root of the file system, or a removed directory.
            None => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file system: 1 is the root, 2 is /a, 3 is /a/b; 10 is /a/b/c and /d; 11 is removed; 12 is in a loop of 13.
    fn ask(inode: u64, generation: u32, limit: usize) -> io::Result<Vec<Parent>> {
        if generation != 7 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let parents: &[(u64, &str)] = match inode {
            1 | 11 => &[],
            2 => &[(1, "a")],
            3 => &[(2, "b")],
            10 => &[(3, "c"), (1, "d")],
            12 => &[(13, "x")],
            13 => &[(12, "y")],
            14 => &[(1, "../etc")],
            _ => panic!("{inode}"),
        };
        let parent = |&(inode, name): &(u64, &str)| Parent {
            inode,
            generation: 7,
            name: name.into(),
        };
        Ok(parents.iter().take(limit).map(parent).collect())
    }

    #[test]
    fn paths_are_found_upwards() {
        let paths = |top, inode, all_links| match find(top, inode, 7, all_links, ask).unwrap() {
            Names::Paths { paths, all } => {
                let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
                format!("{} {all}", paths.join(" "))
            }
            other => format!("{other:?}"),
        };
        assert_eq!(paths(1, 10, true), "a/b/c d true");
        assert_eq!(paths(1, 10, false), "a/b/c false");
        assert_eq!(paths(1, 3, false), "a/b true");
        // A bind mount of /a.
        assert_eq!(paths(2, 10, true), "b/c true");
        assert_eq!(paths(3, 2, true), "Outside");
        assert_eq!(paths(1, 11, true), "Removed");
        // A corrupt file system.
        assert_eq!(paths(1, 12, true), "Outside");
        assert_eq!(paths(1, 14, true), "Outside");
        assert!(find(1, 10, 8, true, ask).is_err());
    }
}
