// SPDX-License-Identifier: GPL-2.0

//! The command `errors restore`.

use crate::commands::device_spec::{Devices, StateDir};
use crate::commands::output::{Status, file_name, json, or_dash, reasons, root, table};
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::persist::{self, RestoreReport, Restored};
use pmemctl::badblocks::store::Refusal;

#[derive(Args)]
pub struct Restore {
    #[command(flatten)]
    place: StateDir,
    /// For programs: an array of one object for each device
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Devices,
}

/// The worst of what became of them. Where all are restored, as at each start of a service, a list
/// that is stale is no failure: its disk has had all of it, and some was healed since then.
pub fn restore(arguments: &Restore) -> Result<Status> {
    let host = root("errors restore")?;
    let folder = &arguments.place.state_dir;
    let devices = arguments.which.devices(&host)?;
    let reports: Vec<_> = devices
        .iter()
        .map(|device| persist::restore(&host, device, folder))
        .collect();
    if arguments.json {
        json(&reports)?;
    } else {
        let rows = reports.iter().map(|report| {
            vec![
                or_dash(report.disk.clone()),
                report.device.to_string(),
                report.bad_sectors.to_string(),
                report.restored_sectors.to_string(),
                report.result.to_string(),
                file_name(report.file.as_ref()),
            ]
        });
        let header = [
            "DISK",
            "DEVICE",
            "BAD SECTORS",
            "RESTORED",
            "RESULT",
            "FILE",
        ];
        table(&header, &[2, 3], rows)?;
        for report in &reports {
            let name = report.disk.clone();
            let name = name.unwrap_or_else(|| report.device.to_string());
            reasons(&name, &report.reasons)?;
        }
    }
    let good =
        |report: &RestoreReport| arguments.which.all && report.refusal == Some(Refusal::Stale);
    let any = |result| {
        reports
            .iter()
            .any(|report| report.result == result && !good(report))
    };
    Ok(if any(Restored::Refused) {
        Status::ListRefused
    } else {
        Status::good(!any(Restored::Failed))
    })
}
