// SPDX-License-Identifier: GPL-2.0

//! The command `bad`.

mod change;
pub mod forget;
pub mod import_cxl;
pub mod inject;
pub mod restore;
pub mod save;

use crate::commands::device_spec::target;
use crate::commands::output::{Status, json, table};
use anyhow::Result;
use clap::Args;
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
pub struct Bad {
    /// All names of a file, not the first that is found: looks at the whole file system
    #[arg(long)]
    links: bool,
    /// For programs: an array of one object for each range, in bytes
    #[arg(long)]
    json: bool,
    /// A device (/dev/pmem0, pmem0, a partition, a volume), a mount, or a file (otherwise all disks)
    #[arg(value_name = "DEVICE|MOUNT|FILE")]
    targets: Vec<PathBuf>,
}

/// Shows what is bad; `Bad` where there is something.
pub fn bad(arguments: &Bad) -> Result<Status> {
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
