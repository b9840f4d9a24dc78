// SPDX-License-Identifier: GPL-2.0

//! The command `monitor`.

use crate::commands::device_spec;
use crate::commands::errors::describe_owner;
use crate::commands::journal::{self, Message};
use crate::commands::output::root;
use crate::commands::page::Page;
use anyhow::{Result, bail, ensure};
use clap::Args;
use libsystemd::daemon::NotifyState;
use pmemctl::affected::Target;
use pmemctl::fs::Owner;
use pmemctl::json::Versioned;
use pmemctl::monitor::hooks::{HookEvent, HookPrograms, Hooks, Variables};
use pmemctl::monitor::{
    self as engine, ErrorEvent, ErrorLocation, Event, EventRecord, Heartbeat, Options, Receipt,
};
use pmemctl::nd::Device;
use pmemctl::sysfs::{Host, printable, raw};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "Ended by SIGTERM or SIGINT."),
        (
            "1",
            "The lists cannot be read; a target is not on persistent memory, or its file system is not followed; the file of --cursor is another one's, or another monitor has it.",
        ),
    ],
    environment: &[
        (
            "JOURNAL_STREAM",
            "Set by systemd: if standard output is the journal, entries have fields (PMEM_DISK, PMEM_OFFSET, \
             PMEM_OWNER and so on, as the variables for the hook) and a MESSAGE_ID, which \"journalctl -x\" explains.",
        ),
        (
            "NOTIFY_SOCKET, WATCHDOG_USEC",
            "Set by systemd: the state of the service is sent, and signs of life while searches make progress.",
        ),
        (
            "PMEMCTL_ID",
            "For the hook: the id of the event, as in JSON.",
        ),
        (
            "PMEMCTL_DISK, PMEMCTL_OFFSET, PMEMCTL_LENGTH",
            "For the hook: the disk, and the bytes of it that are bad.",
        ),
        (
            "PMEMCTL_PHYSICAL_ADDRESS",
            "For the hook: the physical address of the first byte, in hexadecimal, if it is known.",
        ),
        (
            "PMEMCTL_NAMESPACE_OFFSET",
            "For the hook, in place of PMEMCTL_OFFSET: the offset in the namespace of an error outside of the data area.",
        ),
        (
            "PMEMCTL_VOLUME, PMEMCTL_MOUNT",
            "For the hook: the volume that has the bytes, and where it is mounted.",
        ),
        (
            "PMEMCTL_OWNER, PMEMCTL_FILE_OFFSET",
            "For the hook: the owner in words, with escapes, and the offset in the file.",
        ),
        (
            "PMEMCTL_KIND",
            "For the hook: file, free, metadata, unknown, namespace (outside of the data area), or summary (events that \
             were too many for the queue; only PMEMCTL_COUNT is set besides).",
        ),
        (
            "PMEMCTL_PATH, PMEMCTL_INODE",
            "For the hook: the name of the file, byte for byte, if its file system is mounted; its inode.",
        ),
        (
            "PMEMCTL_COUNT",
            "For the hook: events that this run is for, one line of standard input for each, at most 256. The other \
             variables are of the first one.",
        ),
        (
            "PMEMCTL_MAPPED_BY, PMEMCTL_OPEN_IN",
            "For the hook: ids of processes that map the bytes, or have the file open.",
        ),
        (
            "PMEMCTL_NEW, PMEMCTL_COMPLETE",
            "For the hook: 1 if the error was not listed at the start; 1 if the search for the owner is over.",
        ),
    ],
    files: &[
        (
            "/usr/lib/systemd/system/pmemctl-monitor.service",
            "Runs \"pmemctl monitor --now --cursor /var/lib/pmemctl/monitor.json --hooks-dir /etc/pmemctl/hooks.d\".",
        ),
        (
            "/etc/pmemctl/hooks.d",
            "Programs that the service runs for each error.",
        ),
    ],
    examples: &[
        (
            "pmemctl monitor --now",
            "Report listed and new errors of all disks.",
        ),
        (
            "pmemctl monitor --hook /etc/pmemctl-hook /srv/db",
            "Run a program for each error of a mount.",
        ),
        (
            "pmemctl monitor --now --cursor /var/lib/pmemctl/monitor.json",
            "Continue after a restart with errors that were not reported yet.",
        ),
    ],
    see_also: &["pmemctl-errors(1)", "systemd.exec(5)"],
};

/// Report new errors with their files and processes
///
/// Runs until SIGTERM or SIGINT. Polls the kernel's badblocks lists without touching the memory, so processes that
/// map a bad page are reported before they access it. Each event is one line, with high priority in systemd's
/// journal. Owners are found as by "pmemctl errors", files in use first. If the search takes longer than a second,
/// the error is reported at once, with "complete" false, and again when its owner is found.
///
/// Files for which the kernel reports I/O errors (XFS health monitoring, fanotify) are looked at first. If root runs
/// xfs_healer(8), it gets the reports of XFS health monitoring, and this command those of fanotify.
///
/// Hooks are run for one file at a time, first the command, then the programs of the directory in the order of their
/// names. Events for the same file that wait are passed to one run, and events that are too many for the queue are
/// counted. A hook and its children are killed after a minute. Programs that users other than root could change are not
/// run, nor those behind a symbolic link that they could replace, nor files that are not executable, hidden or copies (x~,
/// x.dpkg-old). An error is in the file of --cursor when its hooks have ended.
///
/// In JSON and PMEMCTL_OWNER, paths have escapes: \\ for a backslash, \xff for a byte that is not UTF-8, \n and
/// \u{202e} for characters that a terminal does not show. "paths_b64" has the bytes.
///
/// Disks that appear later are monitored as well; a disk that goes away is not an error. Works with both drivers;
/// nd_pmem lists fewer machine checks.
#[derive(Args)]
pub struct Monitor {
    /// Report the errors that are listed already, too
    #[arg(long)]
    now: bool,
    /// Run this with /bin/sh for each error, with PMEMCTL_* in the environment and JSON on standard input
    #[arg(long, value_name = "COMMAND")]
    hook: Option<String>,
    /// Run each program in this directory, too, which root alone may change; it need not exist
    #[arg(long, value_name = "DIR")]
    hooks_dir: Option<PathBuf>,
    /// Do not report what this file has as reported since the system was started, and keep it up to date: no other monitor
    /// may use it
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,
    /// Report mounts for which the kernel does not report errors of files
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON: one object per line and event
    #[arg(long)]
    json: bool,
    /// A device (/dev/pmem0, pmem0, a partition, a volume), a mount, or a file; default: all disks, also later ones
    #[arg(value_name = "TARGET")]
    targets: Vec<PathBuf>,
}

/// Fails if no error of these targets, which the path names, can ever be told.
fn ensure_followed(host: &Host, path: &Path, targets: &[Target]) -> Result<()> {
    let unknown = targets.iter().find_map(|target| match target {
        Target::Unknown(_, reason) => Some(reason),
        _ => None,
    });
    if let Some(reason) = unknown {
        bail!("{}: {reason}", printable(path));
    }
    let devices = Device::all(host);
    let mut disks = devices.iter().filter_map(Device::disk);
    ensure!(
        disks.any(|disk| targets.iter().any(|target| target.is_on(host, disk.name()))),
        "{}: it is not on persistent memory",
        printable(path)
    );
    Ok(())
}

/// Reports new errors until SIGTERM or SIGINT.
pub fn monitor(arguments: &Monitor) -> Result<()> {
    let host = root("monitor")?;
    // A target must exist at the start; later it may disappear for a while.
    for path in &arguments.targets {
        ensure_followed(&host, path, &device_spec::targets(&host, path)?)?;
    }
    let paths = arguments.targets.clone();
    let targets = move || -> Vec<Target> {
        let host = Host::here();
        let found = |path: &PathBuf| device_spec::targets(&host, path).unwrap_or_default();
        paths.iter().flat_map(found).collect()
    };
    let is_journal = journal::is_journal();
    let options = Options {
        targets: (!arguments.targets.is_empty()).then(|| Box::new(targets) as engine::Targets),
        now: arguments.now,
        cursor: arguments.cursor.clone(),
        // The journal can leave out lines of low priority.
        not_reported: arguments.verbose || (is_journal && !arguments.json),
        heartbeat: journal::heartbeat()
            .map(|interval| Heartbeat::new(interval, || journal::state(&[NotifyState::Watchdog]))),
    };
    let programs = HookPrograms {
        command: arguments.hook.clone(),
        folder: arguments.hooks_dir.clone(),
    };
    let has_hooks = programs.command.is_some() || programs.folder.is_some();
    let hooks = has_hooks.then(|| Hooks::new(programs));
    let mut service = Service::default();
    let report = |record: &EventRecord<'_>, receipt: Option<&Receipt>| {
        let event = record.event;
        let json = serde_json::to_string(&Versioned::new(record))?;
        let id = record.id.as_deref().unwrap_or_default();
        let mut out = io::stdout().lock();
        if arguments.json {
            writeln!(out, "{json}")?;
        } else if is_journal {
            let message = message(event);
            let line = line(event);
            if !journal::send(message, &line, facts(id, event)) {
                writeln!(out, "{}{line}", message.prefix())?;
            }
        } else {
            writeln!(out, "{}", line(event))?;
        }
        journal::state(&service.states(event));
        if let (Some(hooks), Event::Bad(bad)) = (&hooks, event) {
            hooks.add(HookEvent {
                key: key(bad),
                variables: variables(id, bad),
                json,
                receipt: receipt.cloned(),
            });
        }
        Ok(())
    };
    engine::run(&host, options, report, || {
        journal::state(&[NotifyState::Stopping]);
        if let Some(hooks) = &hooks {
            hooks.end();
        }
    })
}

/// The state of the service that systemd shows.
#[derive(Default)]
struct Service {
    disks: String,
    errors: u64,
}

impl Service {
    /// Returns the state after an event. The service is ready when it watches the disks.
    fn states(&mut self, event: &Event) -> Vec<NotifyState> {
        let mut states = Vec::new();
        match event {
            Event::Watching { .. } => {
                self.disks = line(event);
                states.push(NotifyState::Ready);
            }
            Event::Bad(bad) if bad.complete => self.errors += 1,
            _ => {}
        }
        states.push(NotifyState::Status(match self.errors {
            0 => self.disks.clone(),
            1 => format!("{}; 1 error reported", self.disks),
            errors => format!("{}; {errors} errors reported", self.disks),
        }));
        states
    }
}

fn message(event: &Event) -> Message {
    match event {
        Event::Bad(_) => Message::Bad,
        Event::Failed { .. } => Message::Failed,
        Event::Watching { .. } | Event::Summary { .. } => Message::Watching,
        Event::NotReported { .. } => Message::NotReported,
    }
}

/// Returns the facts for the journal.
fn facts(id: &str, event: &Event) -> Variables {
    match event {
        Event::Bad(bad) => variables(id, bad),
        Event::Failed { disk, .. } => {
            vec![("PMEMCTL_ID", id.into()), ("PMEMCTL_DISK", disk.into())]
        }
        Event::NotReported { mount, .. } => {
            vec![("PMEMCTL_ID", id.into()), ("PMEMCTL_MOUNT", mount.into())]
        }
        Event::Watching { .. } | Event::Summary { .. } => vec![("PMEMCTL_ID", id.into())],
    }
}

fn size(bytes: u64) -> String {
    Size::from_bytes(bytes).to_string()
}

fn line(event: &Event) -> String {
    let bad = match event {
        Event::Bad(bad) => bad,
        Event::Watching { disks } if disks.is_empty() => return "no disks to watch yet".into(),
        Event::Watching { disks } => return format!("watching {}", disks.join(", ")),
        Event::Failed { disk, reason } => return format!("{disk}: {reason}"),
        Event::NotReported { mount, reason } => {
            return format!("{mount}: errors of files are not reported by the kernel: {reason}");
        }
        Event::Summary { events } => return format!("{events} more events"),
    };
    let mut line = match &bad.what {
        ErrorLocation::Disk(entry) => {
            let (owner, offset) = describe_owner(entry);
            let mut line = format!(
                "{}: media error at {}, {}",
                entry.disk,
                size(entry.span.disk_offset),
                size(entry.span.length)
            );
            if entry.volume != entry.disk {
                line.push_str(&format!(" ({})", entry.volume));
            }
            line.push_str(&format!(": {owner}"));
            if let Some(offset) = offset {
                line.push_str(&format!(" at {}", size(offset)));
            }
            // The reason does not name the mount.
            if let (None, Some(mount)) = (&entry.owner, &entry.mount) {
                line.push_str(&format!(", on {mount}"));
            }
            line
        }
        ErrorLocation::Namespace(hidden) => format!(
            "{}: media error at {}, {} of {}: {}",
            hidden.disk,
            size(hidden.namespace_offset),
            size(hidden.length),
            hidden.device,
            hidden.reason
        ),
    };
    if !bad.new {
        line.push_str("; known before");
    }
    for user in &bad.processes {
        line.push_str(&format!("; {user}"));
    }
    line
}

/// Returns what an error is in: `file`, `free`, `metadata`, `unknown`, `namespace`.
fn kind(what: &ErrorLocation) -> &'static str {
    match what {
        ErrorLocation::Disk(entry) => match &entry.owner {
            Some(Owner::File { .. }) => "file",
            Some(Owner::Free) => "free",
            Some(Owner::Metadata { .. }) => "metadata",
            Some(Owner::Unknown { .. }) | None => "unknown",
        },
        ErrorLocation::Namespace(_) => "namespace",
    }
}

fn inode(what: &ErrorLocation) -> Option<u64> {
    match what {
        ErrorLocation::Disk(entry) => match &entry.owner {
            Some(Owner::File { inode, .. }) => Some(*inode),
            _ => None,
        },
        ErrorLocation::Namespace(_) => None,
    }
}

/// Events with the same key are for the same file, or for the same kind of space of a volume.
fn key(bad: &ErrorEvent) -> String {
    let place = match &bad.what {
        ErrorLocation::Disk(entry) => &entry.volume,
        ErrorLocation::Namespace(hidden) => &hidden.device,
    };
    format!(
        "{place} {} {:?} {} {}",
        kind(&bad.what),
        inode(&bad.what),
        bad.new,
        bad.complete
    )
}

/// The facts for a hook, as pairs of a name and a value.
fn variables(id: &str, bad: &ErrorEvent) -> Variables {
    let flag = |is: bool| u32::from(is).to_string();
    let mut facts: Variables = vec![
        ("PMEMCTL_ID", id.into()),
        ("PMEMCTL_NEW", flag(bad.new).into()),
        ("PMEMCTL_COMPLETE", flag(bad.complete).into()),
        ("PMEMCTL_KIND", kind(&bad.what).into()),
    ];
    match &bad.what {
        ErrorLocation::Disk(entry) => {
            let (owner, offset) = describe_owner(entry);
            facts.extend([
                ("PMEMCTL_DISK", entry.disk.clone().into()),
                ("PMEMCTL_OFFSET", entry.span.disk_offset.to_string().into()),
                ("PMEMCTL_LENGTH", entry.span.length.to_string().into()),
                ("PMEMCTL_VOLUME", entry.volume.clone().into()),
                (
                    "PMEMCTL_MOUNT",
                    entry.mount.as_deref().and_then(raw).unwrap_or_default(),
                ),
                ("PMEMCTL_OWNER", owner.into()),
            ]);
            if let Some(offset) = offset {
                facts.push(("PMEMCTL_FILE_OFFSET", offset.to_string().into()));
            }
            if let Some(inode) = inode(&bad.what) {
                facts.push(("PMEMCTL_INODE", inode.to_string().into()));
            }
            // A path in a file system that is not mounted would be one of another file here.
            let path = bad.what.paths().into_iter().next();
            if let Some(path) = path.filter(|_| entry.mount.is_some()) {
                facts.push(("PMEMCTL_PATH", path));
            }
        }
        ErrorLocation::Namespace(hidden) => facts.extend([
            ("PMEMCTL_DISK", hidden.disk.clone().into()),
            (
                "PMEMCTL_NAMESPACE_OFFSET",
                hidden.namespace_offset.to_string().into(),
            ),
            ("PMEMCTL_LENGTH", hidden.length.to_string().into()),
            ("PMEMCTL_OWNER", hidden.reason.into()),
        ]),
    }
    if let Some(address) = bad.physical_address {
        facts.push(("PMEMCTL_PHYSICAL_ADDRESS", format!("{address:#x}").into()));
    }
    let pids = |mapped: bool| {
        let pids = bad.processes.iter();
        let pids = pids.filter(|user| user.addresses.is_empty() != mapped);
        let pids: Vec<_> = pids.map(|user| user.process.pid.to_string()).collect();
        pids.join(" ")
    };
    facts.push(("PMEMCTL_MAPPED_BY", pids(true).into()));
    facts.push(("PMEMCTL_OPEN_IN", pids(false).into()));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use pmemctl::affected::AffectedRange;
    use pmemctl::block::remap::Span;
    use pmemctl::sysfs::printable;
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;

    fn event(owner: Option<Owner>, mount: Option<&str>) -> ErrorEvent {
        ErrorEvent {
            time_ms: 0,
            new: true,
            complete: true,
            what: ErrorLocation::Disk(AffectedRange {
                disk: "pmem0".into(),
                volume: "pmem0p1".into(),
                span: Span {
                    disk_offset: 4096,
                    offset: 0,
                    length: 512,
                },
                file_system: Some("ext4".into()),
                mount: mount.map(str::to_owned),
                owner,
                quarantined: false,
                reason: None,
            }),
            physical_address: Some(0x2_4000_1000),
            paths_b64: Vec::new(),
            processes: Vec::new(),
        }
    }

    fn file(name: &OsStr) -> Owner {
        Owner::File {
            paths: vec![printable(name)],
            inode: 12,
            file_offset: Some(0),
            open_by: Vec::new(),
        }
    }

    fn variable(event: &ErrorEvent, name: &str) -> Option<OsString> {
        let mut all = variables("0123456789abcdef-7", event).into_iter();
        all.find_map(|(its, value)| (its == name).then_some(value))
    }

    #[test]
    fn hook_gets_the_path_byte_for_byte() {
        let name = OsStr::from_bytes(b"/srv/a\\b\n\xff\xe2\x80\xae");
        let mounted = event(Some(file(name)), Some("/srv"));
        assert_eq!(variable(&mounted, "PMEMCTL_PATH").unwrap(), name);
        assert_eq!(variable(&mounted, "PMEMCTL_INODE").unwrap(), "12");
        assert_eq!(variable(&mounted, "PMEMCTL_KIND").unwrap(), "file");
        assert_eq!(
            variable(&mounted, "PMEMCTL_PHYSICAL_ADDRESS").unwrap(),
            "0x240001000"
        );
        assert_eq!(
            variable(&mounted, "PMEMCTL_ID").unwrap(),
            "0123456789abcdef-7"
        );
        // It would be another file here.
        let other = event(Some(file(name)), None);
        assert_eq!(variable(&other, "PMEMCTL_PATH"), None);
    }

    #[test]
    fn hook_gets_the_kind() {
        let unknown = Owner::Unknown { group: None };
        for (owner, kind) in [
            (Some(Owner::Free), "free"),
            (Some(unknown), "unknown"),
            (None, "unknown"),
        ] {
            let event = event(owner, Some("/srv"));
            assert_eq!(variable(&event, "PMEMCTL_KIND").unwrap(), kind);
        }
    }

    #[test]
    fn service_is_ready_when_it_watches() {
        let mut service = Service::default();
        let watching = Event::Watching {
            disks: vec!["pmem0".into()],
        };
        let state = |text: &str| NotifyState::Status(text.into());
        assert_eq!(
            service.states(&watching),
            [NotifyState::Ready, state("watching pmem0")]
        );
        let bad = |complete| {
            let mut bad = event(None, None);
            bad.complete = complete;
            Event::Bad(Box::new(bad))
        };
        service.states(&bad(false));
        let states = service.states(&bad(true));
        assert_eq!(states, [state("watching pmem0; 1 error reported")]);
        let states = service.states(&bad(true));
        assert_eq!(states, [state("watching pmem0; 2 errors reported")]);
    }

    #[test]
    fn events_of_a_file_have_one_key() {
        let one = event(Some(file(OsStr::new("/srv/a"))), Some("/srv"));
        let mut other = event(Some(file(OsStr::new("/srv/a"))), Some("/srv"));
        assert_eq!(key(&one), key(&other));
        other.new = false;
        assert_ne!(key(&one), key(&other));
        assert_ne!(key(&one), key(&event(Some(Owner::Free), Some("/srv"))));
    }
}
