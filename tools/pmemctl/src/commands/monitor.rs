// SPDX-License-Identifier: GPL-2.0

//! The command `monitor`.

use crate::commands::device_spec;
use crate::commands::errors::describe_owner;
use crate::commands::output::root;
use crate::commands::page::Page;
use anyhow::{Context, Result, bail};
use clap::Args;
use pmemctl::affected::Target;
use pmemctl::monitor::{self as engine, ErrorEvent, ErrorLocation, Event, Options};
use pmemctl::sysfs::Host;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "Ended by SIGTERM or SIGINT."),
        ("1", "The lists cannot be read."),
    ],
    environment: &[
        (
            "JOURNAL_STREAM",
            "Set by systemd: lines have a priority (sd-daemon(3)) if standard output is the journal.",
        ),
        (
            "PMEMCTL_DISK, PMEMCTL_OFFSET, PMEMCTL_LENGTH",
            "For the hook: the disk, and the bytes of it that are bad.",
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
            "PMEMCTL_WHOSE, PMEMCTL_FILE_OFFSET",
            "For the hook: the owner in words, and the offset in the file.",
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
    files: &[(
        "/usr/lib/systemd/system/pmemctl-monitor.service",
        "Runs \"pmemctl monitor --now\".",
    )],
    examples: &[
        (
            "pmemctl monitor --now",
            "Report listed and new errors of all disks.",
        ),
        (
            "pmemctl monitor --hook /etc/pmemctl-hook /srv/db",
            "Run a program for each error of a mount.",
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
    /// Print JSON: one object per line and event
    #[arg(long)]
    json: bool,
    /// A device (/dev/pmem0, pmem0, a partition, a volume), a mount, or a file; default: all disks, also later ones
    #[arg(value_name = "TARGET")]
    targets: Vec<PathBuf>,
}

/// Tells of new errors until SIGTERM or SIGINT.
pub fn monitor(arguments: &Monitor) -> Result<()> {
    let host = root("monitor")?;
    // A target must exist at the start; later it may disappear for a while.
    for path in &arguments.targets {
        device_spec::target(&host, path)?;
    }
    let paths = arguments.targets.clone();
    let targets = move || -> Vec<Target> {
        let host = Host::here();
        let found = |path: &PathBuf| device_spec::target(&host, path).ok();
        paths.iter().filter_map(found).collect()
    };
    let options = Options {
        targets: (!arguments.targets.is_empty()).then(|| Box::new(targets) as engine::Targets),
        now: arguments.now,
    };
    let journal = is_journal();
    let mut hooks = arguments.hook.as_ref().map(|command| Hooks::new(command));
    engine::run(&host, options, |event| {
        let json = serde_json::to_string(event)?;
        let mut out = io::stdout().lock();
        match event {
            _ if arguments.json => writeln!(out, "{json}")?,
            // sd-daemon(3).
            _ if journal => writeln!(out, "<{}>{}", priority(event), line(event))?,
            _ => writeln!(out, "{}", line(event))?,
        }
        if let (Some(hooks), Event::Bad(bad)) = (&mut hooks, event) {
            hooks.run(variables(bad), json);
        }
        Ok(())
    })?;
    if let Some(hooks) = hooks {
        hooks.end();
    }
    Ok(())
}

/// Whether lines go to systemd's journal: `JOURNAL_STREAM` of systemd.exec(5) says to which file.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stdout())
        .is_ok_and(|status| format!("{}:{}", status.st_dev, status.st_ino) == stream)
}

/// Of syslog(3).
fn priority(event: &Event) -> u32 {
    match event {
        Event::Bad(_) => 2,
        Event::Failed { .. } => 4,
        Event::Watching { .. } => 6,
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
    };
    let mut line = match &bad.what {
        ErrorLocation::Disk(entry) => {
            let (owner, offset) = describe_owner(entry);
            let mut line = format!(
                "{}: bad memory at {}, {}",
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
            "{}: bad memory at {}, {} of {}: {}",
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

/// The facts for a hook, as pairs of a name and a value.
fn variables(bad: &ErrorEvent) -> Vec<(&'static str, String)> {
    let flag = |is: bool| u32::from(is).to_string();
    let mut facts = vec![
        ("PMEMCTL_NEW", flag(bad.new)),
        ("PMEMCTL_COMPLETE", flag(bad.complete)),
    ];
    match &bad.what {
        ErrorLocation::Disk(entry) => {
            let (owner, offset) = describe_owner(entry);
            facts.extend([
                ("PMEMCTL_DISK", entry.disk.clone()),
                ("PMEMCTL_OFFSET", entry.span.disk_offset.to_string()),
                ("PMEMCTL_LENGTH", entry.span.length.to_string()),
                ("PMEMCTL_VOLUME", entry.volume.clone()),
                ("PMEMCTL_MOUNT", entry.mount.clone().unwrap_or_default()),
                ("PMEMCTL_WHOSE", owner),
            ]);
            if let Some(offset) = offset {
                facts.push(("PMEMCTL_FILE_OFFSET", offset.to_string()));
            }
        }
        ErrorLocation::Namespace(hidden) => facts.extend([
            ("PMEMCTL_DISK", hidden.disk.clone()),
            (
                "PMEMCTL_NAMESPACE_OFFSET",
                hidden.namespace_offset.to_string(),
            ),
            ("PMEMCTL_LENGTH", hidden.length.to_string()),
            ("PMEMCTL_WHOSE", hidden.reason.to_owned()),
        ]),
    }
    let pids = |mapped: bool| {
        let pids = bad.processes.iter();
        let pids = pids.filter(|user| user.addresses.is_empty() != mapped);
        let pids: Vec<_> = pids.map(|user| user.process.pid.to_string()).collect();
        pids.join(" ")
    };
    facts.push(("PMEMCTL_MAPPED_BY", pids(true)));
    facts.push(("PMEMCTL_OPEN_IN", pids(false)));
    facts
}

/// A hook gets no longer than this.
const HOOK: Duration = Duration::from_secs(60);
/// At the end they get this long.
const LAST: Duration = Duration::from_secs(5);

type Facts = (Vec<(&'static str, String)>, String);

/// Runs hooks, one after the other, beside the watching.
struct Hooks {
    queue: Sender<Facts>,
    runner: JoinHandle<()>,
}

impl Hooks {
    fn new(command: &str) -> Self {
        let (queue, events) = mpsc::channel();
        let command = command.to_owned();
        Self {
            queue,
            runner: thread::spawn(move || hooks(&command, &events)),
        }
    }

    fn run(&mut self, facts: Vec<(&'static str, String)>, json: String) {
        // The receiver lives as long as this sender.
        let _ = self.queue.send((facts, json));
    }

    /// Those that were asked for, as far as they are over soon.
    fn end(self) {
        drop(self.queue);
        let end = Instant::now() + LAST;
        while !self.runner.is_finished() {
            if Instant::now() > end {
                let _ = writeln!(io::stderr(), "pmemctl: leaving running hooks behind");
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn hooks(command: &str, events: &Receiver<Facts>) {
    for (facts, json) in events {
        let reason = match hook(command, &facts, &json) {
            Ok(status) if status.success() => continue,
            Ok(status) => status.to_string(),
            Err(error) => format!("{error:#}"),
        };
        let _ = writeln!(io::stderr(), "pmemctl: the hook {command:?}: {reason}");
    }
}

fn hook(command: &str, facts: &[(&'static str, String)], json: &str) -> Result<ExitStatus> {
    // Not a pipe, because a hook that does not read would block the writer.
    let memory = memfd_create("pmemctl-event", MemfdFlags::CLOEXEC).context("its input")?;
    let mut input = File::from(memory);
    writeln!(input, "{json}").context("its input")?;
    input.rewind().context("its input")?;
    let facts = facts.iter().map(|(name, value)| (name, value.as_str()));
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .envs(facts)
        .stdin(Stdio::from(input))
        .stdout(io::stderr())
        .spawn()
        .context("/bin/sh")?;
    let end = Instant::now() + HOOK;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("killed after {} s", HOOK.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_gets_environment_and_json() {
        let run = |command| hook(command, &[("PMEMCTL_DISK", "pmem0".into())], "{\"a\": 1}");
        let options =
            "test \"$PMEMCTL_DISK\" = pmem0 && read -r text && test \"$text\" = '{\"a\": 1}'";
        assert!(run(options).unwrap().success());
        // A hook that does not read its input.
        assert!(run("true").unwrap().success());
        assert_eq!(run("exit 3").unwrap().code(), Some(3));
    }
}
