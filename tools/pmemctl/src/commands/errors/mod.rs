// SPDX-License-Identifier: GPL-2.0

//! The command `errors`.

mod change;
mod forget;
mod import_cxl;
mod inject;
mod restore;
mod save;

use crate::commands::device_spec::target;
use crate::commands::output::{Status, json, table};
use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use pmemctl::affected::{self, Entry};
use pmemctl::fs::{Owner, Progress};
use pmemctl::sysfs::{Host, printable};
use std::cell::Cell;
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use units::Size;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Errors {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Subcommand)]
enum Command {
    /// Save the lists of errors, so that they outlive a reboot
    ///
    /// One file for each memory, named and recognised by what identifies that: the DIMMs' own ids,
    /// the CXL devices' serial numbers and the region's uuid, and where there is nothing of the
    /// kind (e820, virtio-pmem, ramdax) the place in this machine. Errors belong to the memory: they
    /// are saved for the whole region that a device lies in, whatever the modes of its namespaces.
    /// Where the platform keeps a log of its own (NFIT with scrubbing), what that has comes back by
    /// itself and is not saved. What the lists have not had since the boot is restored first; what
    /// was there and is no longer is healed, and is forgotten.
    Save(save::Save),
    /// Put the saved errors back on the kernel's lists
    ///
    /// Before anything touches the memory: contrib/udev/59-pmemctl.rules does this for each disk that
    /// appears. A saved list that was cut off or edited, is of other memory or of another size, or
    /// is stale (the disk has had all of it since this boot, and some of it was healed) is refused
    /// with the reason and status 3, and nothing is changed. Of several devices each is restored or
    /// refused for itself. With --all, which services run, one that is stale is said, and no failure.
    Restore(restore::Restore),
    /// Put what CXL memory devices know of their own errors on the kernel's lists
    ///
    /// What "cxl list --media-errors" shows, for regions of one device. The kernel does not do this
    /// itself. Nothing is taken off the device's list: "clear poison" of CXL writes zeros, which may
    /// by then replace what was written over the error.
    ImportCxl(import_cxl::ImportCxl),
    /// Take errors that were repaired elsewhere off the lists, if the memory can be read again
    ///
    /// The data stays as it is. What is saved of it is forgotten, too. rust_pmem only.
    Forget(forget::Forget),
    /// Make an error, to see what it does; rust_pmem has to be loaded with inject=1
    ///
    /// The memory is taken away as after a machine check, but is not harmed: "pmemctl errors forget", or a
    /// write of the whole pages, brings it back.
    Inject(inject::Inject),
}

#[derive(Args)]
struct List {
    /// All names of a file, not the first that is found: looks at the whole file system
    #[arg(long)]
    links: bool,
    /// For programs: an array of one object for each range, in bytes
    #[arg(long)]
    json: bool,
    /// A device (/dev/pmem0, pmem0, a partition, a volume), a mount, or a file (otherwise all disks); a file that is
    /// named as one of the commands is ./save, or save behind --
    #[arg(value_name = "DEVICE|MOUNT|FILE")]
    targets: Vec<PathBuf>,
}

/// Runs the subcommand, or lists the errors.
pub fn run(arguments: &Errors) -> Result<Status> {
    match &arguments.command {
        Some(Command::Save(arguments)) => save::save(arguments).map(Status::good),
        Some(Command::Restore(arguments)) => restore::restore(arguments),
        Some(Command::ImportCxl(arguments)) => import_cxl::import_cxl(arguments).map(Status::good),
        Some(Command::Forget(arguments)) => forget::forget(arguments).map(Status::good),
        Some(Command::Inject(arguments)) => inject::inject(arguments).map(Status::good),
        None => Status::or_untold(list(&arguments.list)),
    }
}

/// Shows what is bad; `Bad` where there is something.
fn list(arguments: &List) -> Result<Status> {
    let host = Host::here();
    let targets = arguments
        .targets
        .iter()
        .map(|path| target(&host, path))
        .collect::<Result<Vec<_>>>()?;
    let walk = Walk::new();
    let entries = affected::entries(&host, &targets, arguments.links, &walk)?;
    walk.bar.finish_and_clear();
    if arguments.json {
        json(&entries)?;
    } else if entries.is_empty() {
        writeln!(io::stderr(), "pmemctl: nothing is listed as bad")?;
    } else {
        table(&HEADER, &[1, 2, 5], entries.iter().map(row))?;
    }
    if walk.skipped.get() > 0 {
        writeln!(
            io::stderr(),
            "pmemctl: {} files or directories could not be looked at, and may have what is told as metadata",
            walk.skipped.get()
        )?;
    }
    Ok(Status::good(entries.is_empty()))
}

/// Shows how far a walk over a file system has come.
struct Walk {
    bar: ProgressBar,
    skipped: Cell<u64>,
}

impl Walk {
    fn new() -> Self {
        // Nothing where this is no terminal.
        let bar = ProgressBar::new_spinner();
        let template = "{wide_bar} {percent} % of {human_len} files, {per_sec}, {eta} to go";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar,
            skipped: Cell::new(0),
        }
    }
}

impl Progress for Walk {
    fn begin(&self, files: u64) {
        self.skipped.set(0);
        self.bar.reset();
        self.bar.set_length(files);
    }

    fn step(&self) {
        self.bar.inc(1);
    }

    fn skipped(&self, path: &Path, error: &io::Error) {
        self.skipped.set(self.skipped.get() + 1);
        self.bar
            .println(format!("pmemctl: {}: {error}", printable(path)));
    }
}

const HEADER: [&str; 6] = ["DISK", "OFFSET", "LENGTH", "VOLUME", "WHOSE", "FILE OFFSET"];

fn row(entry: &Entry) -> Vec<String> {
    let (whose, offset) = whose(entry);
    vec![
        entry.disk.clone(),
        Size::from_bytes(entry.span.disk_offset).to_string(),
        Size::from_bytes(entry.span.length).to_string(),
        entry.volume.clone(),
        whose,
        offset.map_or_else(String::new, |offset| Size::from_bytes(offset).to_string()),
    ]
}

/// Whose the bytes are, in words, and where they are in the file.
pub fn whose(entry: &Entry) -> (String, Option<u64>) {
    let place = entry.mount.as_deref().unwrap_or(&entry.volume);
    let group = |group: &Option<u64>| match (group, entry.file_system.as_deref()) {
        (Some(group), Some("xfs")) => format!(" of AG {group}"),
        (Some(group), _) => format!(" of group {group}"),
        (None, _) => String::new(),
    };
    match &entry.owner {
        None => (entry.reason.clone().unwrap_or_default(), None),
        Some(Owner::Free) => (format!("free space of {place}"), None),
        Some(Owner::Metadata { what, group: of }) => {
            (format!("{what}{} of {place}", group(of)), None)
        }
        Some(Owner::Unknown { group: of }) => {
            let reason = match (&entry.reason, &entry.mount) {
                (Some(reason), _) => reason,
                (None, Some(_)) => "or of a symbolic link, or of a file that has changed meanwhile",
                (None, None) => "or of what its tools don't know",
            };
            (format!("metadata{} of {place}, {reason}", group(of)), None)
        }
        Some(Owner::File {
            paths,
            inode,
            file_offset,
            open_by,
        }) => {
            let mut text = if paths.is_empty() {
                format!("inode {inode} of {place}")
            } else {
                paths.join(", ")
            };
            if entry.mount.is_none() && !paths.is_empty() {
                text.push_str(&format!(" of {place}"));
            }
            if !open_by.is_empty() {
                let pids: Vec<_> = open_by.iter().map(u32::to_string).collect();
                text.push_str(&format!(" (removed; open in {})", pids.join(", ")));
            }
            if file_offset.is_none() {
                text.push_str(" (attributes or block map)");
            }
            (text, *file_offset)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        errors: Errors,
    }

    fn parse(arguments: &[&str]) -> Errors {
        let all = [&["errors"], arguments].concat();
        Program::try_parse_from(all).unwrap().errors
    }

    #[test]
    fn word_that_is_a_subcommand_is_one() {
        assert!(matches!(
            parse(&["save", "--all"]).command,
            Some(Command::Save(_))
        ));
        assert!(matches!(
            parse(&["import-cxl", "pmem0"]).command,
            Some(Command::ImportCxl(_))
        ));
        assert!(parse(&[]).command.is_none());
    }

    #[test]
    fn file_named_as_a_subcommand_is_reached() {
        for (arguments, file) in [
            (["./save"].as_slice(), "./save"),
            (&["--", "save"], "save"),
            (&["--links", "--", "inject"], "inject"),
            (&["help"], "help"),
        ] {
            let parsed = parse(arguments);
            assert!(parsed.command.is_none(), "{arguments:?}");
            assert_eq!(parsed.list.targets, [PathBuf::from(file)]);
        }
    }
}
