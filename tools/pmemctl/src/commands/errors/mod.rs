// SPDX-License-Identifier: GPL-2.0

//! The command `errors`.

pub mod change;
pub mod forget;
pub mod import_cxl;
pub mod inject;
pub mod restore;
pub mod save;

use crate::commands::device_spec::targets;
use crate::commands::output::{Status, json, table};
use crate::commands::page::Page;
use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use pmemctl::affected::{AffectedRange, Listing, NamespaceRange, Survey};
use pmemctl::block::disk::Disk;
use pmemctl::fs::{Owner, Progress};
use pmemctl::nd::Device;
use pmemctl::sysfs::{Host, printable};
use schemars::JsonSchema;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "The lists show that there are no errors."),
        ("1", "Errors are listed; for a subcommand: see there."),
        (
            "4",
            "Whether there are errors is unknown: a target is not on persistent memory, or on a volume or file system that is not followed, a list cannot be read, or there is no persistent memory.",
        ),
    ],
    examples: &[
        ("pmemctl errors", "List the errors of all disks."),
        (
            "pmemctl errors /srv/db/t.17 && postgres",
            "Start a program only if a file has no errors.",
        ),
        (
            "pmemctl errors ./save",
            "Look at a file with the name of a subcommand.",
        ),
    ],
    see_also: &[
        "pmemctl-repair(1)",
        "pmemctl-quarantine(1)",
        "pmemctl-monitor(1)",
        "ndctl-list(1)",
    ],
    ..Page::EMPTY
};

/// List media errors and the files they belong to
///
/// Reads the kernel's badblocks lists and follows each bad range through partitions and device-mapper volumes to the
/// file system, and there to a file, free space or metadata. Follows linear, striped, crypt, verity, snapshot-origin,
/// flakey, delay and dust targets. XFS with a reverse map answers at once; on other file systems every file is asked
/// for its extents, which takes minutes for millions of files. Removed files that are still open are found, too.
///
/// The exit status says whether there are errors (1), there are none (0), or that is unknown (4). Files on btrfs,
/// overlayfs, memory that is not persistent, or a volume of another target, md or bcache above bad blocks are
/// unknown. Errors in sector mode, in the metadata of a namespace, and of a namespace without a disk are listed with
/// their place in the namespace. In sector mode, and if the device has the struct pages, files are unknown if there are
/// any.
///
/// A file with the name of a subcommand is given as "./save", or "save" after "--".
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
    Save(save::Save),
    Restore(restore::Restore),
    ImportCxl(import_cxl::ImportCxl),
    Forget(forget::Forget),
    Inject(inject::Inject),
}

#[derive(Args)]
struct List {
    /// Find all names of a file, not only one: reads the whole file system
    #[arg(long)]
    links: bool,
    /// Print one JSON object, sizes in bytes
    #[arg(long)]
    json: bool,
    /// A device (/dev/pmem0, pmem0, a partition, a volume), a mount, or a file; default: all disks
    #[arg(value_name = "TARGET")]
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
        None => Status::or_unknown(list(&arguments.list)),
    }
}

/// Shows the errors of the targets.
fn list(arguments: &List) -> Result<Status> {
    let host = Host::here();
    let targets = arguments
        .targets
        .iter()
        .map(|path| targets(&host, path))
        .collect::<Result<Vec<_>>>()?
        .concat();
    let walk = WalkProgress::new();
    let listing = Survey::of(&host)?.list(&targets, arguments.links, &walk)?;
    walk.bar.finish_and_clear();
    if arguments.json {
        json(&ErrorList {
            errors: listed_ranges(&host, &listing),
        })?;
    } else if !listing.is_empty() {
        let outside = listing.outside.iter().map(namespace_row);
        let rows = listing.entries.iter().map(row).chain(outside);
        table(&HEADER, &[1, 2, 5], rows)?;
    } else if listing.unknown.is_empty() {
        writeln!(io::stderr(), "pmemctl: no errors are listed")?;
    }
    for reason in &listing.unknown {
        writeln!(io::stderr(), "pmemctl: {reason}")?;
    }
    let skipped = walk.skipped.borrow().len();
    if skipped > 0 {
        writeln!(
            io::stderr(),
            "pmemctl: {} files or directories could not be read, and may own blocks that are shown as metadata",
            skipped
        )?;
    }
    Ok(status(listing.is_empty(), listing.unknown.is_empty()))
}

/// Errors that are listed outweigh what is unknown.
fn status(is_empty: bool, is_known: bool) -> Status {
    match (is_empty, is_known) {
        (false, _) => Status::Bad,
        (true, false) => Status::Unknown,
        (true, true) => Status::Good,
    }
}

/// The output of --json.
#[derive(JsonSchema, Serialize)]
pub struct ErrorList<'a> {
    errors: Vec<ListedRange<'a>>,
}

#[derive(JsonSchema, Serialize)]
pub struct ListedRange<'a> {
    #[serde(flatten)]
    place: ListedPlace<'a>,
    /// The address of the first byte, as the kernel and rasdaemon report it; `null` if it cannot be read.
    physical_address: Option<u64>,
}

#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum ListedPlace<'a> {
    Disk(&'a AffectedRange),
    Namespace(&'a NamespaceRange),
}

fn listed_ranges<'a>(host: &Host, listing: &'a Listing) -> Vec<ListedRange<'a>> {
    let mut disks = BTreeMap::new();
    let entries = listing.entries.iter().map(|entry| {
        let first = disks
            .entry(&entry.disk)
            .or_insert_with(|| Disk::find(host, &entry.disk)?.physical_address());
        ListedRange {
            physical_address: first.and_then(|first| first.checked_add(entry.span.disk_offset)),
            place: ListedPlace::Disk(entry),
        }
    });
    let entries: Vec<_> = entries.collect();
    let mut namespaces = BTreeMap::new();
    let outside = listing.outside.iter().map(|range| {
        let first = namespaces
            .entry(&range.device)
            .or_insert_with(|| Device::find(host, range.device.parse().ok()?)?.namespace_address());
        ListedRange {
            physical_address: first.and_then(|first| first.checked_add(range.namespace_offset)),
            place: ListedPlace::Namespace(range),
        }
    });
    entries.into_iter().chain(outside).collect()
}

/// Shows how far a walk over a file system has come.
struct WalkProgress {
    bar: ProgressBar,
    /// Hashes of the paths that were skipped: several walks may do so.
    skipped: RefCell<HashSet<u64>>,
    hasher: RandomState,
}

impl WalkProgress {
    fn new() -> Self {
        // Draws nothing unless standard error is a terminal.
        let bar = ProgressBar::new_spinner();
        let template = "{wide_bar} {percent} % of {human_len} files, {per_sec}, {eta} to go";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar,
            skipped: RefCell::default(),
            hasher: RandomState::new(),
        }
    }

    /// Says something of a path, and not by the bar, which prints nothing unless it is shown.
    fn say(&self, path: &Path, what: impl Display) {
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "pmemctl: {}: {what}", printable(path));
        });
    }
}

impl Progress for WalkProgress {
    fn begin(&self, files: u64) {
        self.bar.reset();
        self.bar.set_length(files);
    }

    fn step(&self) {
        self.bar.inc(1);
    }

    fn skipped(&self, path: &Path, error: &io::Error) {
        if !self.skipped.borrow_mut().insert(self.hasher.hash_one(path)) {
            return;
        }
        self.say(path, error);
    }

    fn left_out(&self, directory: &Path, reason: &str) {
        self.say(directory, reason);
    }
}

const HEADER: [&str; 6] = ["DISK", "OFFSET", "LENGTH", "VOLUME", "OWNER", "FILE OFFSET"];

fn row(entry: &AffectedRange) -> Vec<String> {
    let (owner, offset) = describe_owner(entry);
    vec![
        entry.disk.clone(),
        Size::from_bytes(entry.span.disk_offset).to_string(),
        Size::from_bytes(entry.span.length).to_string(),
        entry.volume.clone(),
        owner,
        offset.map_or_else(String::new, |offset| Size::from_bytes(offset).to_string()),
    ]
}

fn namespace_row(range: &NamespaceRange) -> Vec<String> {
    let offset = Size::from_bytes(range.namespace_offset);
    vec![
        range.disk.clone(),
        "-".to_owned(),
        Size::from_bytes(range.length).to_string(),
        range.device.clone(),
        format!("at {offset} of the namespace, {}", range.reason),
        String::new(),
    ]
}

/// Returns the owner in words, and the offset in the file.
pub fn describe_owner(entry: &AffectedRange) -> (String, Option<u64>) {
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
                (None, Some(_)) => "or a symbolic link, or a file that changed during the search",
                (None, None) => "or unknown to its tools",
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
            if entry.quarantined {
                text.push_str(" (quarantined)");
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
    fn status_has_three_answers() {
        assert_eq!(status(true, true), Status::Good);
        assert_eq!(status(false, true), Status::Bad);
        assert_eq!(status(false, false), Status::Bad);
        assert_eq!(status(true, false), Status::Unknown);
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
