// SPDX-License-Identifier: GPL-2.0

//! A directory of hooks, which root alone may change.

use crate::sysfs::{printable, shell_path};
use rustix::process::geteuid;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The programs to run, in order, and why others are not run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Programs {
    pub paths: Vec<PathBuf>,
    pub reasons: Vec<String>,
}

/// Returns the programs in a directory, in the order of their names. Hidden files, copies that editors and package
/// managers leave, and files that are not executable are left out; a directory that does not exist is empty.
pub fn programs(folder: &Path) -> Programs {
    let mut found = Programs::default();
    let folder = match fs::canonicalize(folder) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return found,
        Err(error) => {
            found.reasons = vec![format!("{}: {error}", printable(folder))];
            return found;
        }
    };
    // Others could add programs to a directory with a sticky bit.
    let mode = fs::metadata(&folder).map_or(0, |folder| folder.mode());
    if let Some(reason) = shared(&folder, mode).or_else(|| distrusted(&folder)) {
        found.reasons = vec![format!("no hooks are run: {reason}")];
        return found;
    }
    let mut names: Vec<_> = match fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
        Err(error) => {
            found.reasons = vec![format!("{}: {error}", printable(&folder))];
            return found;
        }
    };
    names.sort();
    for name in names {
        if is_left_out(&name.to_string_lossy()) {
            continue;
        }
        let path = folder.join(name);
        match check(&path) {
            Ok(true) => found.paths.push(path),
            Ok(false) => {}
            Err(reason) => found
                .reasons
                .push(format!("{} is not run: {reason}", printable(&path))),
        }
    }
    found
}

fn is_left_out(name: &str) -> bool {
    const ENDS: [&str; 6] = ["~", ".bak", ".rpmnew", ".rpmorig", ".rpmsave", ".swp"];
    name.starts_with('.') || name.contains(".dpkg-") || ENDS.iter().any(|end| name.ends_with(end))
}

/// Returns whether a hook is to be run; fails if others than root could change it.
fn check(path: &Path) -> Result<bool, String> {
    let real = fs::canonicalize(path).map_err(|error| error.to_string())?;
    let file = fs::metadata(&real).map_err(|error| error.to_string())?;
    if !file.is_file() {
        return Err("it is no regular file".into());
    }
    match distrusted(&real) {
        Some(reason) => Err(reason),
        None => Ok(file.permissions().mode() & 0o111 != 0),
    }
}

/// Returns why others than root, or this user, may change what a canonical path leads to.
fn distrusted(path: &Path) -> Option<String> {
    path.ancestors().enumerate().find_map(|(depth, part)| {
        let found = match fs::symlink_metadata(part) {
            Ok(found) => found,
            Err(error) => return Some(format!("{}: {error}", printable(part))),
        };
        if found.uid() != 0 && found.uid() != geteuid().as_raw() {
            return Some(format!(
                "{} belongs to user {}: chown root {}",
                printable(part),
                found.uid(),
                shell_path(part)
            ));
        }
        // Others cannot replace what root has in a directory with a sticky bit.
        let is_sticky = depth > 0 && found.mode() & 0o1000 != 0;
        shared(part, found.mode()).filter(|_| !is_sticky)
    })
}

/// Returns the reason if the group or others may write.
fn shared(path: &Path, mode: u32) -> Option<String> {
    (mode & 0o022 != 0).then(|| {
        format!(
            "others may write to {}: chmod go-w {}",
            printable(path),
            shell_path(path)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::symlink;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn add(folder: &Path, name: &str, mode: u32) {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        chmod(&path, mode);
    }

    fn names(found: &Programs) -> Vec<String> {
        let paths = found.paths.iter();
        paths
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn hooks_are_run_in_order() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(programs(&folder.path().join("none")), Programs::default());
        for name in [
            "20-b",
            "10-a.sh",
            ".hidden",
            "10-a~",
            "x.dpkg-old",
            "x.rpmsave",
        ] {
            add(folder.path(), name, 0o755);
        }
        add(folder.path(), "15-disabled", 0o644);
        symlink("10-a.sh", folder.path().join("30-link")).unwrap();
        let found = programs(folder.path());
        assert_eq!(names(&found), ["10-a.sh", "20-b", "30-link"]);
        assert!(found.reasons.is_empty(), "{found:?}");
    }

    #[test]
    fn hook_that_others_may_write_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), "group", 0o775);
        add(folder.path(), "others", 0o757);
        add(folder.path(), "good", 0o755);
        fs::create_dir(folder.path().join("directory")).unwrap();
        let other = tempfile::tempdir().unwrap();
        add(other.path(), "target", 0o755);
        chmod(other.path(), 0o777);
        symlink(other.path().join("target"), folder.path().join("link")).unwrap();
        symlink("nowhere", folder.path().join("broken")).unwrap();
        let found = programs(folder.path());
        assert_eq!(names(&found), ["good"]);
        assert_eq!(found.reasons.len(), 5, "{found:?}");
        let reason = found.reasons.iter().find(|one| one.contains("/group"));
        assert!(reason.unwrap().contains("chmod go-w"), "{found:?}");
    }

    #[test]
    fn directory_that_others_may_write_has_no_hooks() {
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), "good", 0o755);
        for mode in [0o777, 0o1777, 0o775] {
            chmod(folder.path(), mode);
            let found = programs(folder.path());
            assert!(found.paths.is_empty(), "{mode:o}");
            assert!(found.reasons[0].contains("no hooks are run"), "{found:?}");
        }
    }

    #[test]
    fn hook_of_another_user_is_not_run() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), "a", 0o755);
        let path = folder.path().join("a");
        // A user namespace may have one user only.
        if std::os::unix::fs::chown(&path, Some(1000), None).is_err() {
            return;
        }
        let found = programs(folder.path());
        assert!(found.paths.is_empty());
        assert!(
            found.reasons[0].contains("belongs to user 1000"),
            "{found:?}"
        );
    }
}
