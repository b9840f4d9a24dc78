// SPDX-License-Identifier: GPL-2.0

//! Saving at each change.
//!
//! `poll(2)` wakes for changes of the lists, the kernel's device events for disks that come and go.

use crate::host::Host;
use crate::list;
use crate::region::Region;
use crate::remember::{self, Kept, PATIENCE, SaveReport};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Changes come in swarms: one file for those of this time.
const SWARM: Duration = Duration::from_millis(100);

/// The kernel's device events.
struct Events(OwnedFd);

impl Events {
    fn open() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            flags,
            Some(KOBJECT_UEVENT),
        )
        .context("no socket for the kernel's device events")?;
        // Group 1 are the kernel's own; udev's are another.
        bind(&socket, &SocketAddrNetlink::new(0, 1))
            .context("the kernel's device events can't be heard")?;
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
                // So many that some were lost.
                Err(Errno::NOBUFS) => ours = true,
                Err(_) => return ours,
            }
        }
    }
}

/// What wakes when a list changes.
struct Lists {
    /// The kernel wakes those who poll these, each of which was read once, for what it finds.
    files: Vec<File>,
    /// What somebody writes to a disk's list wakes nobody there.
    written: OwnedFd,
}

impl Lists {
    /// From now on.
    fn of(regions: &[Region]) -> Result<Self> {
        let written = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let disks = regions
            .iter()
            .flat_map(Region::devices)
            .filter_map(|device| device.disk())
            .map(|disk| disk.whole.folder.join("badblocks"));
        let regions = regions
            .iter()
            .map(|region| region.folder().join("badblocks"));
        let open = |path: PathBuf| {
            inotify::add_watch(&written, &path, inotify::WatchFlags::MODIFY).ok()?;
            let mut file = File::open(path).ok()?;
            file.read_to_end(&mut Vec::new()).ok()?;
            Some(file)
        };
        Ok(Self {
            files: disks.chain(regions).filter_map(open).collect(),
            written,
        })
    }
}

/// What is worth a line: a region seen for the first time, and what has changed.
fn is_news(report: &SaveReport, last: Option<&SaveReport>) -> bool {
    let Some(last) = last else { return true };
    let changed = report.new_sectors + report.healed_sectors + report.restored_sectors > 0;
    changed
        || report.reasons != last.reasons
        || (report.result == Kept::Failed) != (last.result == Kept::Failed)
}

/// Saves the lists of these regions, of all where `chosen` is `None`, now and at each change, and
/// tells of it, until SIGTERM or SIGINT.
pub fn run(
    host: &Host,
    folder: &Path,
    chosen: Option<&[u32]>,
    mut tell: impl FnMut(&SaveReport) -> Result<()>,
) -> Result<()> {
    let (ended, end) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, end.try_clone()?)?;
    }
    let events = Events::open()?;
    let mut last: BTreeMap<u32, SaveReport> = BTreeMap::new();
    let mut ending = false;
    loop {
        let mut regions = Region::all(host);
        regions.retain(|region| chosen.is_none_or(|chosen| chosen.contains(&region.id)));
        for device in regions.iter().flat_map(Region::devices) {
            let known = |report: &SaveReport| {
                let name = device.disk().map(|disk| disk.name().to_owned());
                name.is_none_or(|name| report.disks.contains(&name))
            };
            if !last.get(&device.name.region).is_some_and(known) {
                list::wait(&device, PATIENCE);
            }
        }
        let lists = Lists::of(&regions)?;
        last.retain(|id, _| regions.iter().any(|region| region.id == *id));
        for region in &regions {
            let report = remember::save(region, folder);
            if is_news(&report, last.get(&region.id)) {
                tell(&report)?;
            }
            last.insert(region.id, report);
        }
        if ending {
            return Ok(());
        }
        // What changed last is saved even then.
        ending = !wait(&ended, &events, &lists)?;
        if !ending {
            thread::sleep(SWARM);
        }
        events.take();
    }
}

/// Until something has changed, or all shall end: false.
fn wait(ended: &UnixStream, events: &Events, lists: &Lists) -> Result<bool> {
    loop {
        let mut waited = vec![
            PollFd::new(ended, PollFlags::IN),
            PollFd::new(&events.0, PollFlags::IN),
            PollFd::new(&lists.written, PollFlags::IN),
        ];
        waited.extend(
            lists
                .files
                .iter()
                .map(|file| PollFd::new(file, PollFlags::PRI | PollFlags::ERR)),
        );
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let happened: Vec<_> = waited.iter().map(|one| !one.revents().is_empty()).collect();
        if happened[0] {
            return Ok(false);
        }
        if happened[2..].contains(&true) || (happened[1] && events.take()) {
            return Ok(true);
        }
    }
}
