// SPDX-License-Identifier: GPL-2.0

//! Waits for changes of the badblocks lists.
//!
//! `poll(2)` reports changes of the lists, uevents report disks that appear and disappear.

use crate::nd::region::Region;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Changes come in bursts; the lists are read once for this time.
pub const SETTLE_TIME: Duration = Duration::from_millis(100);

/// How soon something that failed is tried again. Its cause may go without a change of any list.
pub const RETRY_TIME: Duration = Duration::from_secs(60);

struct Uevents(OwnedFd);

impl Uevents {
    fn open() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            flags,
            Some(KOBJECT_UEVENT),
        )
        .context("no socket for the kernel's device events")?;
        // Group 1 has the kernel's events, another group udev's.
        bind(&socket, &SocketAddrNetlink::new(0, 1))
            .context("cannot receive the kernel's device events")?;
        Ok(Self(socket))
    }

    /// Takes all that have come; whether one may be about persistent memory.
    fn take(&self) -> bool {
        let mut buffer = [0; 8192];
        let mut ours = false;
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    ours |= text.contains("/block/pmem") || text.contains("SUBSYSTEM=nd\0");
                }
                Err(Errno::INTR) => {}
                // Events were lost.
                Err(Errno::NOBUFS) => ours = true,
                Err(_) => return ours,
            }
        }
    }
}

/// The files that wake a poll when a list changes.
pub struct WatchedLists {
    /// `poll(2)` on these wakes for errors that the kernel finds; each must have been read once.
    files: Vec<File>,
    /// inotify, because a write to a disk's list from user space does not wake `poll(2)`. `None` where the user has as
    /// many instances as allowed.
    written: Option<OwnedFd>,
}

impl WatchedLists {
    /// Opens the lists of the regions and of their disks.
    pub fn of(regions: &[Region]) -> Self {
        Self::with(inotify::init(inotify::CreateFlags::CLOEXEC).ok(), regions)
    }

    fn with(written: Option<OwnedFd>, regions: &[Region]) -> Self {
        let disks = regions
            .iter()
            .flat_map(Region::devices)
            .filter_map(|device| device.disk())
            .map(|disk| disk.whole.folder.join("badblocks"));
        let regions = regions
            .iter()
            .map(|region| region.folder().join("badblocks"));
        Self {
            files: disks
                .chain(regions)
                .filter_map(|path| watch(written.as_ref(), &path))
                .collect(),
            written,
        }
    }
}

/// Opens a list. Without inotify, of which a user has a limited number of instances and watches, poll(2) reports most
/// changes still.
fn watch(written: Option<impl AsFd>, list: &Path) -> Option<File> {
    if let Some(written) = written {
        let _ = inotify::add_watch(written, list, inotify::WatchFlags::MODIFY);
    }
    let mut file = File::open(list).ok()?;
    file.read_to_end(&mut Vec::new()).ok()?;
    Some(file)
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wakeup {
    /// SIGTERM or SIGINT: all shall end.
    End,
    /// A list has changed, or a disk has appeared or disappeared.
    Changed,
    /// The time is over, or there is something to read.
    Other,
}

/// Signals and uevents, which end a wait besides the lists.
pub struct Changes {
    ended: UnixStream,
    events: Uevents,
}

impl Changes {
    /// From now on SIGTERM and SIGINT end a wait, not the program. Disks that come and go end it as well.
    pub fn open() -> Result<Self> {
        let (ended, end) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, end.try_clone()?)?;
        }
        Ok(Self {
            ended,
            events: Uevents::open()?,
        })
    }

    /// Drops pending uevents before all disks are read.
    pub fn forget(&self) {
        self.events.take();
    }

    /// Until something has changed, `also` can be read, or it is `until`.
    pub fn wait(
        &self,
        lists: &WatchedLists,
        also: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<Wakeup> {
        loop {
            let mut waited = vec![
                PollFd::new(&self.ended, PollFlags::IN),
                PollFd::new(&self.events.0, PollFlags::IN),
            ];
            let written = lists.written.as_ref();
            waited.extend(written.map(|written| PollFd::new(written, PollFlags::IN)));
            waited.extend(
                lists
                    .files
                    .iter()
                    .map(|file| PollFd::new(file, PollFlags::PRI | PollFlags::ERR)),
            );
            let of_lists = 2..waited.len();
            waited.extend(also.map(|also| PollFd::from_borrowed_fd(also, PollFlags::IN)));
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let count = match poll(&mut waited, left.as_ref()) {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("poll"),
            };
            let happened: Vec<_> = waited.iter().map(|one| !one.revents().is_empty()).collect();
            if happened[0] {
                return Ok(Wakeup::End);
            }
            if happened[of_lists.clone()].contains(&true) || (happened[1] && self.events.take()) {
                return Ok(Wakeup::Changed);
            }
            if count == 0 || happened[of_lists.end..].contains(&true) {
                return Ok(Wakeup::Other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_polled_without_inotify_as_well() {
        let list = tempfile::NamedTempFile::new().unwrap();
        let no_inotify = File::open("/dev/null").unwrap();
        for written in [Some(&no_inotify), None] {
            assert!(watch(written, list.path()).is_some());
            assert!(watch(written, Path::new("/nonexistent")).is_none());
        }
    }

    #[test]
    fn wait_without_inotify_ends_in_time() {
        let machine = crate::testing::FakeSysfs::new();
        let lists = WatchedLists::with(None, &Region::all(&machine.host));
        assert_eq!(lists.files.len(), 2);
        let changes = Changes::open().unwrap();
        let woken = changes.wait(&lists, None, Some(Instant::now()));
        assert_eq!(woken.unwrap(), Wakeup::Other);
    }
}
