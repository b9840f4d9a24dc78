// SPDX-License-Identifier: GPL-2.0

//! The command `repair`.

use crate::commands::output::{json, or_dash, root, table};
use anyhow::Result;
use clap::Args;
use pmemctl::repair::{self, Outcome, Piece, Report, Request, Source};
use std::io::{self, Write};
use std::path::PathBuf;
use units::Size;

#[derive(Args)]
pub struct Repair {
    /// Take what is lost from this file, at the same offsets
    #[arg(long, value_name = "BACKUP", required_unless_present = "zero")]
    from: Option<PathBuf>,
    /// Put zeros in place of what is lost
    #[arg(long, conflicts_with = "from")]
    zero: bool,
    /// Restore this range of the file, listed as bad or not (otherwise what is listed): 4096, 0x1000, 4K, 1M
    #[arg(long, requires = "length")]
    offset: Option<Size>,
    /// How many bytes that range has
    #[arg(long, requires = "offset")]
    length: Option<Size>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// For programs: an object
    #[arg(long)]
    json: bool,
    /// The file
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
            dry_run: arguments.dry_run,
        },
    )?;
    if arguments.json {
        json(&report)?;
    } else if report.pieces.is_empty() {
        writeln!(
            io::stderr(),
            "pmemctl: nothing of {} is listed as bad",
            report.file
        )?;
    } else {
        table(&HEADER, &[0, 1, 3, 4, 5, 6], report.pieces.iter().map(row))?;
        said(&report)?;
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

fn row(piece: &Piece) -> Vec<String> {
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
            (Outcome::Healed, _) => "healed",
            (Outcome::Moved, _) => "moved",
            (Outcome::Failed, _) => "failed",
        }
        .to_owned(),
    ]
}

/// What the table does not say.
fn said(report: &Report) -> Result<()> {
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
            "pmemctl: other files share the bad memory: this one gets memory of its own; the bad one heals when the last of \
             them is repaired (\"pmemctl errors\" names them)"
        )?;
    }
    if report.lost > 0 {
        let what = if report.dry_run { "would be" } else { "are" };
        writeln!(err, "pmemctl: {} bytes {what} lost", report.lost)?;
    }
    Ok(())
}
