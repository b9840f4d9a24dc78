// SPDX-License-Identifier: GPL-2.0

//! The command `quarantine`.

use crate::commands::output::{about, json, root};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::quarantine::{self as engine, Report, Request};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        (
            "0",
            "No bad block of the file system is free, or --release is done.",
        ),
        (
            "1",
            "Some are still free, or the file system was refused, or the command failed.",
        ),
    ],
    files: &[(
        "MOUNT/.pmemctl-quarantine",
        "The file that owns the bad blocks; only root can read it, and nobody can change it (chattr(1), +i).",
    )],
    examples: &[
        (
            "pmemctl quarantine /srv",
            "Keep the free bad blocks of a mount from new files.",
        ),
        (
            "pmemctl quarantine --release /srv",
            "Make the blocks free again, before they are repaired.",
        ),
    ],
    see_also: &["pmemctl-errors(1)", "pmemctl-repair(1)", "chattr(1)"],
    ..Page::EMPTY
};

/// Keep free bad blocks from being given to other files
///
/// For memory whose errors cannot be cleared. A file in the root directory of the file system owns the bad blocks, which
/// are never written. To get them, free space is allocated until no bad block is free, and what is good is given back;
/// meanwhile other files have less space, but never less than --keep-free. SIGINT ends the command after the good
/// blocks are given back. After a crash, the next run does that.
///
/// The command can be repeated: bad blocks that became free since are added, and blocks that are no longer listed are
/// given back. Bad blocks of files and metadata are left where they are. Works on ext4 and XFS that are mounted
/// read-write.
#[derive(Args)]
pub struct Quarantine {
    /// Remove the file, so that its blocks are free again
    #[arg(long, conflicts_with_all = ["keep_free", "time"])]
    release: bool,
    /// The name of the file, in the root directory
    #[arg(long, value_name = "NAME", default_value = engine::NAME)]
    name: OsString,
    /// Leave so much space available to other files: 512M, 10G; default: 5 % of the file system
    #[arg(long, value_name = "SIZE")]
    keep_free: Option<Size>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    time: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Where the file system is mounted
    #[arg(value_name = "MOUNT")]
    mount: PathBuf,
}

/// Returns whether no bad block is free, or the file is removed.
pub fn quarantine(arguments: &Quarantine) -> Result<bool> {
    let host = root("quarantine")?;
    let request = Request {
        mount: arguments.mount.clone(),
        name: arguments.name.clone(),
        keep_free: arguments.keep_free.map(|size| size.bytes()),
        time: Duration::from_secs(arguments.time),
    };
    let report = match arguments.release {
        true => engine::release(&request)?,
        false => engine::quarantine(&host, &request)?,
    };
    if arguments.json {
        json(&report)?;
    } else {
        let mut out = io::stdout().lock();
        for line in lines(&report, arguments.release) {
            writeln!(out, "{}: {line}", report.mount)?;
        }
    }
    if let Some(reason) = &report.stopped {
        let free = about(report.free);
        writeln!(
            io::stderr(),
            "pmemctl: {}: {free} of bad blocks are still free: {reason}",
            report.mount
        )?;
    }
    Ok(arguments.release || report.free == 0)
}

fn lines(report: &Report, release: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if report.quarantined > 0 {
        let bytes = about(report.quarantined);
        lines.push(format!(
            "{bytes} of bad blocks are quarantined in {}",
            report.file
        ));
    } else if !release && report.free == 0 {
        lines.push("no bad block is free".to_owned());
    }
    if report.released > 0 {
        lines.push(format!("{} are free again", about(report.released)));
    }
    if report.in_use > 0 {
        let bytes = about(report.in_use);
        lines.push(format!(
            "{bytes} of bad blocks are in use; \"pmemctl errors\" lists the files"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        quarantine: Quarantine,
    }

    #[test]
    fn limits_are_for_quarantine_only() {
        let parse = |arguments: &[&str]| {
            Program::try_parse_from([&["quarantine"], arguments].concat())
                .map(|program| program.quarantine)
        };
        let plain = parse(&["/srv"]).ok().unwrap();
        assert!(!plain.release && plain.keep_free.is_none());
        assert_eq!((plain.name, plain.time), (engine::NAME.into(), 60));
        assert!(parse(&["--release", "/srv"]).is_ok());
        assert!(parse(&["--release", "--keep-free", "1G", "/srv"]).is_err());
        assert!(parse(&["--release", "--time", "5", "/srv"]).is_err());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn report_has_the_remaining_blocks() {
        let mut report = Report {
            mount: "/srv".into(),
            file: "/srv/x".into(),
            quarantined: 0,
            free: 0,
            in_use: 4096,
            released: 0,
            stopped: None,
        };
        let text = lines(&report, false).join("\n");
        assert!(text.starts_with("no bad block is free\n4K of bad blocks are in use"));
        report.quarantined = 8192;
        let text = lines(&report, false).join("\n");
        assert!(text.starts_with("8K of bad blocks are quarantined in /srv/x\n"));
    }
}
