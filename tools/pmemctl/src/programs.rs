// SPDX-License-Identifier: GPL-2.0

//! Where programs of other packages are.

use std::env;
use std::path::{Path, PathBuf};

/// Directories of programs for administrators. A `$PATH` need not have them: that of users, and that of `su` without
/// `-`, does not.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Returns the path of a program, or its name if there is none.
pub fn path(name: &str) -> PathBuf {
    let folders = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&folders).filter(|folder| folder.is_absolute());
    find(name, folders.chain(SYSTEM.map(PathBuf::from)))
}

fn find(name: &str, folders: impl Iterator<Item = PathBuf>) -> PathBuf {
    let name = Path::new(name);
    if name.components().count() > 1 {
        return name.to_owned();
    }
    let mut paths = folders.map(|folder| folder.join(name));
    paths.find(|path| path.is_file()).unwrap_or(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_found_outside_of_path() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("xfs_db");
        std::fs::write(&program, "").unwrap();
        let folders = || ["/none".into(), folder.path().to_owned()].into_iter();
        assert_eq!(find("xfs_db", folders()), program);
        assert_eq!(find("debugfs", folders()), Path::new("debugfs"));
        assert_eq!(find("/a/xfs_db", folders()), Path::new("/a/xfs_db"));
    }
}
