// SPDX-License-Identifier: GPL-2.0

//! The command `errors import-cxl`.

use crate::commands::device_spec::Devices;
use crate::commands::output::{json, name_list, reasons, root, table};
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::cxl::{self, Synced};

#[derive(Args)]
pub struct ImportCxl {
    /// For programs: an array of one object for each region
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Devices,
}

/// Whether all that the devices know is on the lists.
pub fn import_cxl(arguments: &ImportCxl) -> Result<bool> {
    let host = root("errors import-cxl")?;
    let mut regions = arguments.which.regions(&host)?;
    if arguments.which.all {
        regions.retain(|region| region.provider().as_deref() == Some("CXL"));
    }
    let reports: Vec<_> = regions.iter().map(cxl::sync).collect();
    if arguments.json {
        json(&reports)?;
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
    Ok(reports.iter().all(|report| report.result != Synced::Failed))
}
