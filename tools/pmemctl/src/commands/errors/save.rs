// SPDX-License-Identifier: GPL-2.0

//! The command `errors save`.

use crate::commands::device_spec::{Devices, StateDir};
use crate::commands::output::{
    change, json, memory_name, name_list, or_dash, reasons, root, table,
};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::follow;
use pmemctl::badblocks::persist::{self, SaveOutcome, SaveReport};
use pmemctl::json::Reports;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "All lists are saved."),
        ("1", "A list could not be saved."),
    ],
    files: &[
        (
            "/var/lib/pmemctl",
            "The saved lists of errors, one file for each memory.",
        ),
        (
            "/usr/lib/systemd/system/pmemctl-save.service",
            "Runs \"pmemctl errors save --follow --all\".",
        ),
    ],
    examples: &[
        ("pmemctl errors save --all", "Save the lists once."),
        (
            "pmemctl errors save --follow --all",
            "Save each change until SIGTERM.",
        ),
    ],
    see_also: &["pmemctl-errors-restore(1)"],
    ..Page::EMPTY
};

/// Save the kernel's lists of errors across reboots
///
/// Writes one file for each memory. The file names the memory by the ids of its DIMMs, by the serial numbers of its
/// CXL devices and the region's uuid, or, if it has neither (e820, virtio-pmem, ramdax), by its address in this
/// machine. Errors belong to the memory: they are saved for the whole region of a device, whatever the modes of its
/// namespaces are.
///
/// Errors in the platform's own log (NFIT with address range scrub) return by themselves and are not saved. Saved
/// errors that a list has not had since the boot are restored first. Errors that a list had and has no longer are
/// repaired, and are removed from the file.
#[derive(Args)]
pub struct Save {
    /// Keep running and save within a second of each change, until SIGTERM
    ///
    /// A minute after a failure it tries again.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    place: StateDir,
    /// Print one JSON object; with --follow one per line and change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Devices,
}

/// A line for a log.
fn line(report: &SaveReport) -> String {
    let name = memory_name(&report.region, &report.disks);
    let mut changes: Vec<String> = [
        (report.new_sectors, "new"),
        (report.repaired_sectors, "repaired"),
        (report.restored_sectors, "put back on the list"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    changes.extend(report.reasons.iter().cloned());
    let changes = match changes.as_slice() {
        [] => String::new(),
        changes => format!(" ({})", changes.join("; ")),
    };
    format!(
        "{name}: {}: {} bad sectors in {}{changes}",
        report.result,
        report.bad_sectors,
        or_dash(report.file.as_ref())
    )
}

/// Whether all is saved.
pub fn save(arguments: &Save) -> Result<bool> {
    let host = root("errors save")?;
    let folder = &arguments.place.state_dir;
    if arguments.follow {
        let is_chosen = arguments.which.region_filter(&host)?;
        follow::run(&host, folder, is_chosen, |report| {
            change(arguments.json, report, &line(report))
        })?;
        return Ok(true);
    }
    let regions = arguments.which.regions(&host)?;
    let reports: Vec<_> = regions
        .iter()
        .map(|region| persist::save(region, folder))
        .collect();
    if arguments.json {
        json(&Reports { reports: &reports })?;
    } else {
        let rows = reports.iter().map(|report| {
            vec![
                report.region.clone(),
                name_list(&report.disks),
                report.bad_sectors.to_string(),
                report.new_sectors.to_string(),
                report.repaired_sectors.to_string(),
                if report.has_log { "yes" } else { "no" }.to_owned(),
                report.result.to_string(),
                or_dash(report.file.as_ref()),
            ]
        });
        let header = [
            "REGION",
            "DISKS",
            "BAD SECTORS",
            "NEW",
            "REPAIRED",
            "PLATFORM LOG",
            "RESULT",
            "FILE",
        ];
        table(&header, &[2, 3, 4], rows)?;
        for report in &reports {
            reasons(&report.region, &report.reasons)?;
        }
    }
    Ok(reports
        .iter()
        .all(|report| report.result != SaveOutcome::Failed))
}
