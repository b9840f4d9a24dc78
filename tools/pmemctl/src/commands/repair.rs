// SPDX-License-Identifier: GPL-2.0

//! The command `repair`.

use crate::commands::output::{json, or_dash, root, table};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::repair::{self, Outcome, RepairRange, Report, Request, Source};
use std::io::{self, Write};
use std::path::PathBuf;
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        (
            "0",
            "No part of the file, or of the range, is bad any more.",
        ),
        (
            "1",
            "A range could not be repaired, or the file was refused.",
        ),
    ],
    examples: &[
        (
            "pmemctl repair --dry-run --zero /srv/db/t.17",
            "Show which ranges would be replaced.",
        ),
        (
            "pmemctl repair --from /backup/t.17 /srv/db/t.17",
            "Take the bad ranges from a backup.",
        ),
    ],
    see_also: &["pmemctl-errors(1)", "pmemctl-errors-forget(1)"],
    ..Page::EMPTY
};

/// Repair the bad ranges of a file from a backup or with zeros
///
/// Writes what is listed as bad through the file, which clears the poison; no other file can be affected. If the driver
/// has an exact list (errors/list), what is listed is read past the CPU caches first: what can be read is kept, and
/// taken off the list ("good after all"), unless it differs from the backup: that is for you to decide. Bytes of the
/// same pages that can still be read are kept as well. With --offset and --length, bytes of that range that can't be
/// read are replaced, whether they are listed or not, and with --overwrite-good all of it; a range with a hole is
/// refused then, because a hole has no memory to overwrite.
///
/// A backup is refused if it differs from the file around the bad ranges, where that can be read: it is of another
/// version. It is refused as well if nothing there can be read.
///
/// A file on the origin of snapshots (LVM, dm-snapshot) is refused: the first write to a bad block copies the old block to
/// the snapshots, which cannot be read, so that they become invalid. --invalidate-snapshots repairs it nevertheless.
///
/// If users can change a directory of the path, as may be in a hook, use --no-symlinks.
///
/// No other process may have the file open: such a process is named. A process that opens it during the repair
/// waits, or ends the repair between two writes. Before each write the name, length and blocks of the file are
/// verified; after it the bytes are read back and must be off the list. If files of XFS share the blocks, this file
/// gets new ones ("moved"), and the bad blocks are repaired with the last of these files. After a crash, the last
/// page of the file may have zeros behind its old end; blocks that were preallocated behind that, and the file's
/// capabilities, may be missing.
#[derive(Args)]
pub struct Repair {
    /// Replace bad ranges with the bytes of this file at the same offsets
    #[arg(long, value_name = "BACKUP", required_unless_present = "zero")]
    from: Option<PathBuf>,
    /// Replace bad ranges with zeros
    #[arg(long, conflicts_with = "from")]
    zero: bool,
    /// Repair the range from this offset, listed or not: 4096, 0x1000, 4K, 1M
    #[arg(long, requires = "length")]
    offset: Option<Size>,
    /// The length of that range
    #[arg(long, requires = "offset")]
    length: Option<Size>,
    /// Replace all of that range, also bytes that can be read
    #[arg(long, requires = "offset")]
    overwrite_good: bool,
    /// Refuse the file and the backup if a path has a symbolic link
    #[arg(long)]
    no_symlinks: bool,
    /// Replace listed ranges without reading them first, also from a badblocks list that is nearly full; required with
    /// nd_pmem, and if a bad page would stop this system
    #[arg(long)]
    trust_list: bool,
    /// Use the backup although it differs from what can be read of the file
    #[arg(long, conflicts_with = "zero")]
    force: bool,
    /// Repair the file although snapshots of its volume become invalid
    #[arg(long)]
    invalidate_snapshots: bool,
    /// Show what would be replaced, and change nothing: not even what is listed is read
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The file to repair
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Whether nothing of it is bad any more.
pub fn repair(arguments: &Repair) -> Result<bool> {
    let host = root("repair")?;
    let range = arguments.offset.zip(arguments.length);
    let report = repair::repair(
        &host,
        &Request {
            file: arguments.file.clone(),
            source: match &arguments.from {
                Some(path) => Source::Backup(path.clone()),
                None => Source::Zeros,
            },
            range: range.map(|(offset, length)| {
                offset.bytes()..offset.bytes().saturating_add(length.bytes())
            }),
            overwrite_good: arguments.overwrite_good,
            no_symlinks: arguments.no_symlinks,
            trust_list: arguments.trust_list,
            force: arguments.force,
            invalidate_snapshots: arguments.invalidate_snapshots,
            dry_run: arguments.dry_run,
        },
    )?;
    if arguments.json {
        json(&report)?;
    } else if report.pieces.is_empty() && report.stopped.is_none() {
        writeln!(
            io::stderr(),
            "pmemctl: no errors are listed for {}",
            report.file
        )?;
    } else {
        if !report.pieces.is_empty() {
            table(&HEADER, &[0, 1, 3, 4, 5, 6], report.pieces.iter().map(row))?;
        }
        print_reasons(&report)?;
    }
    Ok(report.is_good())
}

const HEADER: [&str; 8] = [
    "FILE OFFSET",
    "LENGTH",
    "DISK",
    "OFFSET",
    "BAD",
    "REPLACED",
    "KEPT",
    "RESULT",
];

fn size(bytes: u64) -> String {
    Size::from_bytes(bytes).to_string()
}

fn row(piece: &RepairRange) -> Vec<String> {
    vec![
        size(piece.file_offset),
        size(piece.length),
        or_dash(piece.disk.as_deref()),
        or_dash(piece.disk_offset.map(size)),
        size(piece.bad),
        size(piece.replaced),
        size(piece.kept),
        match (piece.result, piece.shared) {
            (Outcome::Planned, false) => "planned",
            (Outcome::Planned, true) => "planned: moves",
            (Outcome::Repaired, _) => "repaired",
            (Outcome::Moved, _) => "moved",
            (Outcome::GoodAfterAll, _) => "good after all",
            (Outcome::Failed, _) => "failed",
        }
        .to_owned(),
    ]
}

/// Prints the facts that the table does not have.
fn print_reasons(report: &Report) -> Result<()> {
    let mut err = io::stderr().lock();
    for piece in &report.pieces {
        if let Some(reason) = &piece.reason {
            writeln!(err, "pmemctl: at {}: {reason}", size(piece.file_offset))?;
        }
    }
    if let Some(reason) = &report.stopped {
        writeln!(err, "pmemctl: {}: {reason}", report.file)?;
    }
    if report.pieces.iter().any(|piece| piece.shared) {
        writeln!(
            err,
            "pmemctl: other files share the bad blocks: this one gets new blocks; the bad ones are repaired with the last of \
             them (\"pmemctl errors\" lists them)"
        )?;
    }
    if let Some(compared) = report.compared {
        let all = compared.same + compared.different;
        writeln!(
            err,
            "pmemctl: {} of {all} bytes around the ranges are the same in the backup",
            compared.same
        )?;
    }
    if report.lost > 0 {
        let what = if report.dry_run { "would be" } else { "are" };
        writeln!(err, "pmemctl: {} bytes {what} lost", report.lost)?;
    }
    Ok(())
}
