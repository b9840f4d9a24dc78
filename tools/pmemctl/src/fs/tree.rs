// SPDX-License-Identifier: GPL-2.0

//! Opens the directories and files of a mounted file system, whose users may rename and replace them meanwhile.
//!
//! Nothing outside of the file system is opened: no symbolic link, mount point, device or FIFO that a user puts in the
//! place of a directory or file.

use crate::block::devno::DeviceNumber;
use crate::block::mountinfo;
use crate::sysfs::Host;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The files of a mount.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    mount: MountWatch,
}

impl Tree {
    /// Opens the tree of a directory where a file system is mounted.
    ///
    /// For root, this is a clone of the mount, without the mounts on it, which hide files. A clone does not keep
    /// umount(8) from succeeding, but keeps the file system alive: drop it when [`Tree::is_mounted`] says no.
    pub(crate) fn open(directory: &File) -> io::Result<Self> {
        // Before the clone, so that no unmounting is missed.
        let mount = MountWatch::of(directory)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let root = match open_tree(directory, "", flags) {
            Ok(clone) => clone,
            // Not root: use the visible mount, which is busy meanwhile.
            Err(_) => directory.try_clone()?.into(),
        };
        Ok(Self { root, mount })
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Returns whether the mount of the directory still exists.
    pub(crate) fn is_mounted(&mut self) -> io::Result<bool> {
        self.mount.is_there()
    }

    /// Opens a directory, by its path from the root.
    pub(crate) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        // O_DIRECTORY fails before anything else is opened.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat2(&self.root, path, flags, Mode::empty(), RESOLVE)?)
    }
}

/// Refers to an entry of a directory, without opening it; `None` if it is no file or directory of this file system.
pub(crate) fn handle(folder: impl AsFd, name: &Path) -> io::Result<Option<Handle>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = match openat2(folder, name, flags, Mode::empty(), RESOLVE) {
        Ok(handle) => handle,
        // Something is mounted on it.
        Err(Errno::XDEV) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    handle_of(handle)
}

/// Takes a descriptor that was opened with `O_PATH`; `None` if it is not of a file or directory.
pub(crate) fn handle_of(handle: OwnedFd) -> io::Result<Option<Handle>> {
    let status = fstat(&handle)?;
    let kind = FileType::from_raw_mode(status.st_mode);
    let right = matches!(kind, FileType::RegularFile | FileType::Directory);
    Ok(right.then_some(Handle {
        handle,
        device: DeviceNumber::from_rdev(status.st_dev),
        inode: status.st_ino,
        several: kind == FileType::RegularFile && status.st_nlink > 1,
    }))
}

/// A file or directory that is not open.
#[derive(Debug)]
pub(crate) struct Handle {
    handle: OwnedFd,
    pub(crate) device: DeviceNumber,
    pub(crate) inode: u64,
    /// It is a file with several names.
    pub(crate) several: bool,
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Handle {
    /// Opens it for queries.
    pub(crate) fn open(&self) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let open = |flags| open(&path, flags, Mode::empty());
        // O_NOATIME is only permitted to the owner of a file.
        let file = open(flags).or_else(|_| open(flags - OFlags::NOATIME))?;
        Ok(file.into())
    }
}

/// Notices when a mount goes.
#[derive(Debug)]
struct MountWatch {
    table: File,
    id: u64,
}

impl MountWatch {
    fn of(directory: &File) -> io::Result<Self> {
        Ok(Self {
            table: File::open("/proc/self/mountinfo")?,
            id: mountinfo::id_of(directory)?,
        })
    }

    fn is_there(&mut self) -> io::Result<bool> {
        // The kernel reports a change since the last call, or since the table was opened.
        let mut polled = [PollFd::new(&self.table, PollFlags::PRI)];
        let at_once = Timespec::default();
        match poll(&mut polled, Some(&at_once)) {
            Ok(0) | Err(Errno::INTR) => return Ok(true),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mounts = mountinfo::own(&Host::here())?;
        Ok(mounts.iter().any(|mount| mount.id == self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn nothing_outside_of_the_tree_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("directory")).unwrap();
        fs::write(at("directory/file"), "x").unwrap();
        symlink("/dev", at("link")).unwrap();
        symlink("directory", at("beside")).unwrap();
        let fifo = FileType::Fifo;
        rustix::fs::mknodat(CWD, at("fifo"), fifo, Mode::RUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let tree = Tree::open(&File::open(folder.path()).unwrap()).unwrap();

        let opens = |path: &str| tree.directory(Path::new(path)).is_ok();
        assert!(opens("") && opens("directory"));
        // A directory that was replaced after it was listed.
        for path in [
            "link",
            "link/shm",
            "beside",
            "..",
            "directory/../..",
            "/dev",
            "fifo",
        ] {
            assert!(!opens(path), "{path}");
        }
        let handle = |name: &str| super::handle(tree.root(), Path::new(name));
        for name in ["fifo", "socket"] {
            assert!(handle(name).unwrap().is_none(), "{name}");
        }
        for name in [
            "link",
            "link/null",
            "beside",
            "beside/file",
            "../x",
            "/dev/null",
        ] {
            assert!(handle(name).ok().flatten().is_none(), "{name}");
        }
        let file = tree.directory(Path::new("directory")).unwrap();
        let file = super::handle(file, Path::new("file")).unwrap().unwrap();
        assert_eq!(file.open().unwrap().metadata().unwrap().len(), 1);
    }

    #[test]
    fn mount_that_goes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = File::open(folder.path()).unwrap();
        let mut tree = Tree::open(&folder).unwrap();
        assert!(tree.is_mounted().unwrap());
    }
}
