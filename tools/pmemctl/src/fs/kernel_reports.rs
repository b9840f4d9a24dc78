// SPDX-License-Identifier: GPL-2.0

//! The files for which the kernel reports I/O errors: on XFS to its health monitor, on ext4 and XFS to fanotify.
//!
//! A report is not an error of the memory: the device may have failed in another way, or a write may have repaired it.
//! The files are candidates, whose extents are compared with the lists of errors before any is named.

use crate::block::devno::DeviceNumber;
use crate::block::holders;
use crate::block::mountinfo::{self, MountInfo};
use crate::block::topology;
use crate::fs::leases::Leases;
use crate::fs::mounted::open_root;
use crate::fs::parents::{self, Names};
use crate::fs::tree;
use crate::nd::Device;
use crate::sysfs::{self, Host, error_text};
use abstractions::fs_errors::{FileHandle, Listener, Reports};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The number of files of a file system that are remembered.
const FILES: usize = 256;

/// The file systems that report errors.
const FILE_SYSTEMS: [&str; 4] = ["ext2", "ext3", "ext4", "xfs"];

/// How long they are remembered. The lists are read about 100 ms after a change.
const RECENT: Duration = Duration::from_secs(60);

/// Files with the times of their last errors, the last one at the end.
type Recent = VecDeque<(Instant, FileHandle)>;

/// Files that had errors lately, by the device of their file system.
#[derive(Debug, Clone, Default)]
pub struct KernelReports(Arc<Mutex<BTreeMap<DeviceNumber, Recent>>>);

impl KernelReports {
    fn add(&self, device: DeviceNumber, file: FileHandle) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let files = all.entry(device).or_default();
        files.retain(|(_, other)| *other != file);
        files.push_back((Instant::now(), file));
        if files.len() > FILES {
            files.pop_front();
        }
    }

    fn forget(&self, device: DeviceNumber) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&device);
    }

    /// Returns the files of a file system that had errors lately, the last one first.
    fn recent(&self, device: DeviceNumber) -> Vec<FileHandle> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(files) = all.get_mut(&device) else {
            return Vec::new();
        };
        files.retain(|(time, _)| time.elapsed() < RECENT);
        files.iter().rev().map(|(_, file)| file.clone()).collect()
    }

    /// Opens the files of a file system that had errors lately and have a name. Breaks no lease.
    pub fn files(&self, host: &Host, device: DeviceNumber, directory: &Path) -> Vec<ReportedFile> {
        let recent = self.recent(device);
        if recent.is_empty() {
            return Vec::new();
        }
        let leases = Leases::read(host);
        let Ok(root) = open_root(directory, device) else {
            return Vec::new();
        };
        let open = |handle: &FileHandle| {
            let file = ReportedFile::open(&root, device, handle, &leases);
            let mut file = file.ok()??;
            file.path = directory.join(&file.path);
            Some(file)
        };
        recent.iter().filter_map(open).collect()
    }
}

/// A file that had an error.
#[derive(Debug)]
pub struct ReportedFile {
    pub file: File,
    pub inode: u64,
    pub path: PathBuf,
}

impl ReportedFile {
    /// Opens a file; `None` if that would break a lease, or its name is not known without a search.
    fn open(
        root: &File,
        device: DeviceNumber,
        handle: &FileHandle,
        leases: &Leases,
    ) -> io::Result<Option<Self>> {
        let Some(handle) = tree::handle_of(handle.path(root)?)? else {
            return Ok(None);
        };
        if handle.device != device || leases.has_write(device, handle.inode) {
            return Ok(None);
        }
        let path = match parents::names(root, handle.inode, false) {
            Ok(Names::Paths { mut paths, .. }) => paths.pop(),
            Ok(Names::Outside | Names::Removed) => None,
            Err(_) => cached_name(root, &handle)?,
        };
        let Some(path) = path else {
            return Ok(None);
        };
        Ok(Some(Self {
            file: handle.open()?,
            inode: handle.inode,
            path,
        }))
    }
}

/// Returns the path below `root` by which the kernel knows a file that was in use lately, if it still is that file's.
///
/// A user may have put a link or a mount in its place, whose server might not answer: neither is followed.
fn cached_name(root: &File, handle: &tree::Handle) -> io::Result<Option<PathBuf>> {
    let name = |fd: BorrowedFd<'_>| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let path = name(handle.as_fd())?;
    let Ok(path) = path.strip_prefix(name(root.as_fd())?) else {
        return Ok(None);
    };
    let now = tree::handle(root, path).ok().flatten();
    let same = now.is_some_and(|now| now.inode == handle.inode && now.device == handle.device);
    Ok(same.then(|| path.to_owned()))
}

/// Returns one mount of each ext4 and XFS, of all of it if there is one.
pub(crate) fn one_of_each(mounts: Vec<MountInfo>) -> Vec<MountInfo> {
    let mut found: BTreeMap<DeviceNumber, MountInfo> = BTreeMap::new();
    for mount in mounts {
        if !FILE_SYSTEMS.contains(&mount.file_system.as_str()) {
            continue;
        }
        let known = found.entry(mount.device).or_insert_with(|| mount.clone());
        if mount.is_whole() && !known.is_whole() {
            *known = mount;
        }
    }
    found.into_values().collect()
}

/// Listens for errors of the file system; returns the reasons why not all are reported as well.
fn listen_to(host: &Host, mount: &MountInfo) -> (Vec<Listener>, Vec<String>) {
    let mut listeners = Vec::new();
    let mut reasons = Vec::new();
    let root = match open_root(Path::new(&mount.directory), mount.device) {
        Ok(root) => root,
        Err(error) => return (listeners, vec![error_text(&error)]),
    };
    let is_xfs = mount.file_system == "xfs";
    if is_xfs && has_healer(host) {
        reasons.push("xfs_healer is the health monitor".to_owned());
    } else if is_xfs {
        match Listener::xfs_health(&root) {
            Ok(listener) => return (vec![listener], reasons),
            Err(error) => reasons.push(format!("XFS_IOC_HEALTH_MONITOR: {}", error_text(&error))),
        }
    }
    match Listener::fanotify(&root) {
        Ok(listener) => listeners.push(listener),
        Err(error) => reasons.push(format!("fanotify: {}", error_text(&error))),
    }
    (listeners, reasons)
}

/// Returns whether root runs xfs_healer(8), which repairs file systems: only one process can be the health monitor of an
/// XFS. Users can give their programs this name.
fn has_healer(host: &Host) -> bool {
    let is_healer = |&pid: &u32| {
        let name = sysfs::line(host.path(format!("proc/{pid}/comm")));
        name.is_some_and(|name| name.starts_with("xfs_healer")) && holders::is_of_root(host, pid)
    };
    holders::pids(host).iter().any(is_healer)
}

/// Returns the names of the disks of persistent memory.
fn disks(host: &Host) -> BTreeSet<String> {
    Device::all(host)
        .iter()
        .filter_map(|device| Some(device.disk()?.name().to_owned()))
        .collect()
}

/// A mount, with listeners if it is on persistent memory.
struct Monitored {
    mount: MountInfo,
    listeners: Vec<Listener>,
}

/// Listens for errors of all mounted file systems on persistent memory, as they come and go, until it fails.
///
/// `note` gets the mount and the reason where the kernel does not report errors.
pub fn listen(
    host: &Host,
    reports: &KernelReports,
    mut note: impl FnMut(String, String),
) -> io::Result<()> {
    let table = File::open("/proc/self/mountinfo")?;
    let mut monitored: Vec<Monitored> = Vec::new();
    loop {
        let mounts = one_of_each(mountinfo::own(host)?);
        // A remount changes the options.
        let is_same =
            |one: &MountInfo, other: &MountInfo| (one.id, one.device) == (other.id, other.device);
        monitored.retain(|one| mounts.iter().any(|mount| is_same(mount, &one.mount)));
        let news: Vec<_> = mounts
            .into_iter()
            .filter(|mount| !monitored.iter().any(|one| is_same(mount, &one.mount)))
            .collect();
        let disks: BTreeSet<String> = match news.is_empty() {
            true => BTreeSet::new(),
            false => disks(host),
        };
        for mount in news {
            let mut listeners = Vec::new();
            if !topology::disks_below(host, mount.device).is_disjoint(&disks) {
                reports.forget(mount.device);
                let (found, reasons) = listen_to(host, &mount);
                listeners = found;
                for reason in reasons {
                    note(sysfs::printable(&mount.directory), reason);
                }
            }
            monitored.push(Monitored { mount, listeners });
        }
        while !wait(&table, &mut monitored, reports)? {}
    }
}

/// Reads the reports that come; returns whether the mounts have changed.
fn wait(table: &File, monitored: &mut [Monitored], reports: &KernelReports) -> io::Result<bool> {
    let listeners = monitored.iter().flat_map(|one| &one.listeners);
    let mut polled = vec![PollFd::new(table, PollFlags::PRI)];
    polled.extend(listeners.map(|one| PollFd::new(one, PollFlags::IN)));
    match poll(&mut polled, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let mut happened = polled.iter().map(|one| !one.revents().is_empty());
    let changed = happened.next() == Some(true);
    let happened: Vec<bool> = happened.collect();
    let mut happened = happened.into_iter();
    for one in monitored {
        let device = one.mount.device;
        one.listeners.retain(|listener| {
            if happened.next() != Some(true) {
                return true;
            }
            // A listener that can't be read would wake this thread again and again.
            let found = listener.read().unwrap_or(Reports {
                files: Vec::new(),
                ended: true,
            });
            for file in found.files {
                reports.add(device, file);
            }
            !found.ended
        });
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_files_are_remembered_once() {
        let reports = KernelReports::default();
        let device: DeviceNumber = "259:1".parse().unwrap();
        for inode in 0..FILES as u64 + 10 {
            reports.add(device, FileHandle::xfs(inode, 1));
        }
        reports.add(device, FileHandle::xfs(100, 1));
        let recent = reports.recent(device);
        assert_eq!(recent.len(), FILES);
        assert_eq!(recent[0], FileHandle::xfs(100, 1));
        assert_eq!(recent[1], FileHandle::xfs(FILES as u64 + 9, 1));
        let same = recent.iter().filter(|file| **file == recent[0]);
        assert_eq!(same.count(), 1);
        assert!(reports.recent("259:2".parse().unwrap()).is_empty());
        reports.forget(device);
        assert!(reports.recent(device).is_empty());
    }

    #[test]
    fn one_mount_of_each_file_system_is_listened_to() {
        let table = b"30 1 259:1 /sub /a\\040b rw - xfs /dev/pmem0 rw\n\
            31 1 259:1 / /srv rw,x shared:7 - xfs /dev/pmem0 rw\n\
            32 1 259:1 / /later rw - xfs /dev/pmem0 rw\n\
            33 1 259:2 / /ext rw - ext4 /dev/pmem1 rw\n\
            34 1 0:5 / /tmp rw - tmpfs none rw\n\
            junk\n";
        let found = one_of_each(mountinfo::parse(table));
        let short: Vec<_> = found
            .iter()
            .map(|mount| {
                (
                    mount.id,
                    mount.directory.to_str().unwrap(),
                    mount.file_system.as_str(),
                )
            })
            .collect();
        assert_eq!(short, [(31, "/srv", "xfs"), (33, "/ext", "ext4")]);
    }

    #[test]
    fn xfs_healer_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        fs::create_dir_all(folder.path().join("proc/7")).unwrap();
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join("proc/7").join(name), text).unwrap();
        };
        write("status", "Name:\tx\nUid:\t0\t0\t0\t0\n");
        write("comm", "xfs_scrub\n");
        assert!(!has_healer(&host));
        write("comm", "xfs_healer_start\n");
        assert!(has_healer(&host));
        // A user's process of this name, and a set-user-ID program that a user has started.
        for ids in ["1000\t1000\t1000\t1000", "1000\t0\t0\t0"] {
            write("status", &format!("Name:\tx\nUid:\t{ids}\n"));
            assert!(!has_healer(&host), "{ids}");
        }
    }
}
