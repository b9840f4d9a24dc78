// SPDX-License-Identifier: GPL-2.0

//! A directory of hooks, which root alone may change.

use crate::sysfs::{printable, shell_path};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// The highest number of links in a path, as the kernel has it (`MAXSYMLINKS`).
const LINKS: usize = 40;

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
    let folder = match resolve(folder) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return found,
        Err(error) => {
            found.reasons = vec![format!("no hooks are run: {error}")];
            return found;
        }
    };
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
            Err(error) => found
                .reasons
                .push(format!("{} is not run: {error}", printable(&path))),
        }
    }
    found
}

fn is_left_out(name: &str) -> bool {
    const ENDS: [&str; 6] = ["~", ".bak", ".rpmnew", ".rpmorig", ".rpmsave", ".swp"];
    name.starts_with('.') || name.contains(".dpkg-") || ENDS.iter().any(|end| name.ends_with(end))
}

/// Returns whether a hook is to be run; fails if others than root could change it.
fn check(path: &Path) -> io::Result<bool> {
    let file = fs::metadata(resolve(path)?)?;
    match file.is_file() {
        true => Ok(file.permissions().mode() & 0o111 != 0),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Returns the path without symbolic links. Fails if others than root, or this user, could lead the path elsewhere, at any
/// link on the way, or change what it leads to.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::from("/");
    let mut left = parts(&std::path::absolute(path)?);
    let mut links = 0;
    loop {
        let Some(part) = left.pop() else {
            ensure_trusted(&real, true)?;
            return Ok(real);
        };
        ensure_trusted(&real, false)?;
        if part == ".." {
            real.pop();
            continue;
        }
        let next = real.join(part);
        let found = metadata(&next)?;
        if !found.is_symlink() {
            real = next;
            continue;
        }
        ensure_own(&next, &found)?;
        links += 1;
        if links > LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        left.extend(parts(&target));
    }
}

/// Returns the names in a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names.collect()
}

fn metadata(path: &Path) -> io::Result<Metadata> {
    fs::symlink_metadata(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", printable(path))))
}

/// Fails if a file or directory belongs to another than root and this user.
fn ensure_own(path: &Path, found: &Metadata) -> io::Result<()> {
    match found.uid() == 0 || found.uid() == geteuid().as_raw() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} belongs to user {}: chown -h root {}",
            printable(path),
            found.uid(),
            shell_path(path)
        ))),
    }
}

/// Fails if others than root, or this user, may change a file or directory. `last` is for what a path leads to: to a
/// directory with a sticky bit, others can add programs, but they cannot replace what root has there.
fn ensure_trusted(path: &Path, last: bool) -> io::Result<()> {
    let found = metadata(path)?;
    ensure_own(path, &found)?;
    let is_sticky = !last && found.mode() & 0o1000 != 0;
    match shared(path, found.mode()).filter(|_| !is_sticky) {
        Some(reason) => Err(io::Error::other(reason)),
        None => Ok(()),
    }
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
    fn link_that_others_may_replace_leads_to_no_hook() {
        let [hooks, theirs, good] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        fs::create_dir(good.path().join("bin")).unwrap();
        add(&good.path().join("bin"), "hook", 0o755);
        symlink(good.path().join("bin"), theirs.path().join("current")).unwrap();
        let through = theirs.path().join("current/hook");
        symlink(&through, hooks.path().join("a")).unwrap();
        symlink("a", hooks.path().join("b")).unwrap();
        // Also by a relative path through the directory.
        let name = theirs.path().file_name().unwrap().to_str().unwrap();
        symlink(format!("../{name}/current/hook"), hooks.path().join("c")).unwrap();
        let current = theirs.path().join("current");
        for (mode, count) in [(0o755, 3), (0o1777, 3), (0o777, 0), (0o775, 0)] {
            chmod(theirs.path(), mode);
            let found = programs(hooks.path());
            assert_eq!(found.paths.len(), count, "{mode:o} {found:?}");
            assert_eq!(found.reasons.len(), 3 - count, "{found:?}");
            // The directory of hooks itself may be behind the link.
            let found = programs(&current);
            assert_eq!(found.paths.len(), count.min(1), "{mode:o} {found:?}");
            assert_eq!(found.reasons.len(), usize::from(count == 0), "{found:?}");
        }
        assert!(programs(&current).reasons[0].contains("no hooks are run: others may write to"));
    }

    #[test]
    fn link_of_another_user_leads_to_no_hook() {
        let folder = tempfile::tempdir().unwrap();
        let hooks = folder.path().join("hooks");
        fs::create_dir(&hooks).unwrap();
        add(&hooks, "a", 0o755);
        let link = folder.path().join("link");
        symlink("hooks", &link).unwrap();
        assert_eq!(programs(&link).paths, [hooks.join("a")]);
        // Without root, no link can be given away.
        if !geteuid().is_root() || std::os::unix::fs::lchown(&link, Some(1000), None).is_err() {
            return;
        }
        // In a directory with a sticky bit, its user may replace it.
        chmod(folder.path(), 0o1777);
        let found = programs(&link);
        assert!(found.paths.is_empty());
        assert!(
            found.reasons[0].contains("link belongs to user 1000"),
            "{found:?}"
        );
    }

    #[test]
    fn loop_of_links_is_no_hook() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let found = programs(folder.path());
        assert!(found.paths.is_empty());
        assert_eq!(found.reasons.len(), 2, "{found:?}");
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
