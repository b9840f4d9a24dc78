// SPDX-License-Identifier: GPL-2.0

//! The command `scrub`.

use crate::commands::output::Status;
use crate::commands::output::{json, root, table};
use crate::commands::page::Page;
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pmemctl::badblocks::persist::STATE_DIR;
use pmemctl::nd::device_spec::DeviceSpec;
use pmemctl::scrub::{Options, Scrub as Disk, Summary};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "The whole disk was read, and nothing is bad."),
        (
            "1",
            "Bad pages were found or known before, or the scrub failed.",
        ),
        (
            "4",
            "The scrub was stopped, or it skipped bytes that were being read when the machine stopped.",
        ),
    ],
    files: &[(
        "/var/lib/pmemctl",
        "The position of scrubs that were stopped, what was being read when the machine stopped, and when a disk was \
         last read completely.",
    )],
    examples: &[
        (
            "pmemctl scrub --rate 50M pmem0",
            "Read a disk with at most 50 MiB per second.",
        ),
        (
            "pmemctl scrub --retry pmem0",
            "Read the bytes that were skipped after the machine had stopped.",
        ),
    ],
    see_also: &["ndctl-start-scrub(1)"],
    ..Page::EMPTY
};

/// Read a whole disk at a limited rate to find errors
///
/// For memory that no firmware scrubs. Reads each page that is not listed past the page cache, while other programs
/// use the disk; a page that cannot be read is on the list afterwards. After SIGTERM, SIGINT or a crash, the same
/// command continues where it stopped. Does not read the info block and the struct pages of the namespace.
///
/// If the machine stops during a scrub, the bytes that were being read (up to 64 MiB) are suspected: later scrubs skip
/// and report them until --retry. A machine that cannot survive the read of a bad page is refused without --anyway.
#[derive(Args)]
pub struct Scrub {
    /// The highest rate in bytes per second: 50M, 1G
    #[arg(long, value_name = "SIZE", default_value = "200M")]
    rate: Size,
    /// Start at the first byte, not where the last scrub stopped
    #[arg(long)]
    restart: bool,
    /// Read what was skipped because the machine stopped when it was read
    #[arg(long)]
    retry: bool,
    /// Scrub even if the platform scrubs the memory itself, or a bad page stops this machine
    #[arg(long)]
    anyway: bool,
    /// The folder where the position is saved
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    /// /dev/pmem0, pmem0, namespace0.0 or pfn0.0
    #[arg(value_name = "DEVICE")]
    device: DeviceSpec,
}

/// Reads the disk; `Bad` where something of it is, `Unknown` where it was stopped.
pub fn scrub(arguments: &Scrub) -> Result<Status> {
    let host = root("scrub")?;
    if arguments.rate.bytes() == 0 {
        bail!("the rate must not be 0");
    }
    let disk = Disk::of(&host, &arguments.device.find(&host)?)?;
    if let Some(bus) = disk.platform_bus().filter(|_| !arguments.anyway) {
        bail!(
            "the platform of {} scrubs its memory itself: \"ndctl start-scrub {bus}\" starts that; --anyway reads it nevertheless",
            disk.disk()
        );
    }
    if let Some(why) = disk.unsurvivable().filter(|_| !arguments.anyway) {
        bail!(
            "{}: a bad page would stop this machine: {why}; --anyway reads it nevertheless",
            disk.disk()
        );
    }
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stopped))?;
    }
    // Draws nothing unless standard error is a terminal.
    let bar = ProgressBar::new(disk.size());
    if let Ok(style) = ProgressStyle::with_template(
        "{msg}{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    ) {
        bar.set_style(style);
    }
    let summary = disk.run(&Options {
        folder: &arguments.state_dir,
        rate: arguments.rate.bytes(),
        anew: arguments.restart,
        retry: arguments.retry,
        stop: &|| stopped.load(Ordering::Relaxed),
        progress: &|done, bad| {
            bar.set_position(done);
            if bad > 0 {
                bar.set_message(format!("{} bad ", Size::from_bytes(bad)));
            }
        },
    })?;
    bar.finish_and_clear();
    if arguments.json {
        json(&summary)?;
    } else {
        show(&summary)?;
    }
    if let Some(why) = &summary.anew {
        writeln!(
            io::stderr(),
            "pmemctl: started at the first byte; the saved position cannot be used: {why}"
        )?;
    }
    for skipped in &summary.suspected {
        writeln!(
            io::stderr(),
            "pmemctl: {}: skipped {} at {}: the machine stopped when this was read; --retry reads it",
            summary.disk,
            Size::from_bytes(skipped.length),
            Size::from_bytes(skipped.offset)
        )?;
    }
    let any_bad = !(summary.found.is_empty() && summary.known.is_empty());
    Ok(match (summary.complete, any_bad) {
        (false, _) => Status::Unknown,
        (true, true) => Status::Bad,
        (true, false) if !summary.suspected.is_empty() => Status::Unknown,
        (true, false) => Status::Good,
    })
}

const HEADER: [&str; 7] = [
    "DISK",
    "SIZE",
    "FROM",
    "DONE",
    "KNOWN BEFORE",
    "FOUND",
    "RESULT",
];
const BAD: [&str; 2] = ["FOUND AT", "LENGTH"];

fn show(summary: &Summary) -> Result<()> {
    let size = |bytes: u64| Size::from_bytes(bytes).to_string();
    let sum =
        |ranges: &[pmemctl::inventory::BadRange]| size(ranges.iter().map(|bad| bad.length).sum());
    let row = vec![
        summary.disk.clone(),
        size(summary.size),
        size(summary.from),
        size(summary.done),
        sum(&summary.known),
        sum(&summary.found),
        format!(
            "{} after {:.0} s",
            if summary.complete {
                "complete"
            } else {
                "stopped; the same command continues"
            },
            summary.seconds
        ),
    ];
    table(&HEADER, &[1, 2, 3, 4, 5], [row])?;
    if !summary.found.is_empty() {
        let rows = summary
            .found
            .iter()
            .map(|bad| vec![size(bad.offset), size(bad.length)]);
        table(&BAD, &[0, 1], rows)?;
        writeln!(
            io::stdout(),
            "\"pmemctl errors {}\" lists the affected files.",
            summary.disk
        )?;
    }
    Ok(())
}
