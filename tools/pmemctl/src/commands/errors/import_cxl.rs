// SPDX-License-Identifier: GPL-2.0

//! The command `errors import-cxl`.

use crate::commands::device_spec::Devices;
use crate::commands::output::{change, json, memory_name, name_list, reasons, root, table};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::cxl::{self, ImportOutcome, ImportReport};
use pmemctl::json::Reports;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "All errors of the devices are on the kernel's lists."),
        (
            "1",
            "A device did not answer, or its list is not complete; an error could not be added, or is where no disk with a list is; or the region is not of one CXL device.",
        ),
    ],
    files: &[(
        "/usr/lib/systemd/system/pmemctl-import-cxl.service",
        "Runs \"pmemctl errors import-cxl --follow --all\".",
    )],
    examples: &[
        (
            "pmemctl errors import-cxl --all",
            "Import the lists of all CXL regions.",
        ),
        (
            "pmemctl errors import-cxl --follow --all",
            "Import the errors that the devices report until SIGTERM.",
        ),
    ],
    see_also: &["cxl-list(1)"],
    ..Page::EMPTY
};

/// Add the poison lists of CXL devices to the kernel's lists
///
/// Reads the list with "cxl list --media-errors", for regions of one device; the kernel does not do this. The
/// device's list is not changed: its command to clear poison writes zeros, which may replace data that was written
/// over the error.
#[derive(Args)]
pub struct ImportCxl {
    /// Keep running and import the lists again when a device reports an error, until SIGTERM
    ///
    /// The reports are the kernel's trace events cxl_general_media, cxl_dram and, for injected poison, cxl_poison. A
    /// minute after a failure it tries again.
    #[arg(long)]
    follow: bool,
    /// Print one JSON object; with --follow one per line and change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Devices,
}

/// A line for a log.
fn line(report: &ImportReport) -> String {
    let name = memory_name(&report.region, &report.disks);
    let reasons = match report.reasons.as_slice() {
        [] => String::new(),
        reasons => format!(" ({})", reasons.join("; ")),
    };
    format!(
        "{name}: {}: {} bad sectors of the device, {} added{reasons}",
        report.result, report.bad_sectors, report.added_sectors
    )
}

/// Whether all that the devices know is on the lists.
pub fn import_cxl(arguments: &ImportCxl) -> Result<bool> {
    let host = root("errors import-cxl")?;
    if arguments.follow {
        let is_chosen = arguments.which.region_filter(&host)?;
        cxl::follow(&host, is_chosen, |report| {
            change(arguments.json, report, &line(report))
        })?;
        return Ok(true);
    }
    let mut regions = arguments.which.regions(&host)?;
    if arguments.which.all {
        regions.retain(|region| region.provider().as_deref() == Some("CXL"));
    }
    let reports: Vec<_> = regions.iter().map(cxl::import).collect();
    if arguments.json {
        json(&Reports { reports: &reports })?;
    } else {
        let rows = reports.iter().map(|report| {
            vec![
                report.region.clone(),
                name_list(&report.disks),
                report.bad_sectors.to_string(),
                report.added_sectors.to_string(),
                report.result.to_string(),
            ]
        });
        let header = ["REGION", "DISKS", "BAD SECTORS", "ADDED", "RESULT"];
        table(&header, &[2, 3], rows)?;
        for report in &reports {
            reasons(&report.region, &report.reasons)?;
        }
    }
    let is_listed = |report: &ImportReport| {
        !matches!(
            report.result,
            ImportOutcome::Incomplete | ImportOutcome::Failed
        )
    };
    Ok(reports.iter().all(is_listed))
}
