// SPDX-License-Identifier: GPL-2.0

//! The command `swap-driver`.

use crate::commands::output::{json, or_dash, reasons, root, table};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::json::Reports;
use pmemctl::nd::Device;
use pmemctl::nd::device_spec::DeviceSpec;
use pmemctl::swap_driver::{self, Driver, SwapReport};
use pmemctl::sysfs::Host;
use std::io::{self, Write};
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        (
            "0",
            "Each device has the driver, or, with --dry-run, could be moved.",
        ),
        ("1", "A device was refused, or could not be moved."),
    ],
    examples: &[
        (
            "pmemctl swap-driver --dry-run --all",
            "Show which devices can be moved to rust_pmem.",
        ),
        (
            "pmemctl swap-driver --to nd_pmem pmem0",
            "Move a disk back to nd_pmem.",
        ),
    ],
    see_also: &["ndctl-enable-namespace(1)", "modprobe(8)"],
    ..Page::EMPTY
};

/// Move namespaces between rust_pmem and nd_pmem at run time
///
/// Moves the device that is bound: the namespace in raw mode, its pfn or btt device in fsdax or sector mode. The
/// data stays as it is; the list of bad sectors and the read-only flag are carried over. Refuses a disk in use and
/// names each user: mounts, swap, device mapper, md, bcache, loop devices, the NVMe and SCSI targets, processes that have it
/// open or mapped. If the new driver fails to bind, the old one is bound again. Each of several devices is moved or
/// refused separately.
#[derive(Args)]
pub struct SwapDriver {
    /// The driver to move them to
    #[arg(long, value_name = "DRIVER", default_value = "rust_pmem")]
    to: Driver,
    /// Show what would be moved, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Move all devices that one of the two drivers has
    #[arg(long, conflicts_with = "devices")]
    all: bool,
    /// /dev/pmem0, pmem0, namespace0.0, pfn0.0 or btt0.0
    #[arg(value_name = "DEVICE", required_unless_present = "all")]
    devices: Vec<DeviceSpec>,
}

/// Whether all is as wanted.
pub fn swap_driver(arguments: &SwapDriver) -> Result<bool> {
    let host = root("swap-driver")?;
    let devices = devices(&host, arguments)?;
    if devices.is_empty() && !arguments.json {
        writeln!(
            io::stderr(),
            "pmemctl: neither rust_pmem nor nd_pmem has a namespace"
        )?;
        return Ok(true);
    }
    if !devices.is_empty() {
        arguments.to.loaded(&host)?;
    }
    let reports: Vec<_> = devices
        .iter()
        .map(|device| swap_driver::to(&host, device, arguments.to, arguments.dry_run))
        .collect();

    if arguments.json {
        json(&Reports { reports: &reports })?;
    } else {
        table(&HEADER, &[4, 5, 6], reports.iter().map(row))?;
        for report in &reports {
            let name = report
                .disk
                .clone()
                .unwrap_or_else(|| report.device.to_string());
            reasons(&name, &report.reasons)?;
        }
    }
    Ok(reports.iter().all(|report| report.result.is_good()))
}

/// The devices that are meant, each once. Where one is not there, nothing is done to any.
fn devices(host: &Host, arguments: &SwapDriver) -> Result<Vec<Device>> {
    if arguments.all {
        return Ok(swap_driver::all(host));
    }
    let mut found: Vec<Device> = Vec::new();
    for spec in &arguments.devices {
        let device = spec.find(host)?;
        if found.iter().all(|other| other.name != device.name) {
            found.push(device);
        }
    }
    Ok(found)
}

const HEADER: [&str; 8] = [
    "DISK",
    "DEVICE",
    "FROM",
    "TO",
    "SIZE",
    "BAD SECTORS",
    "CARRIED",
    "RESULT",
];

fn row(report: &SwapReport) -> Vec<String> {
    vec![
        or_dash(report.disk.as_ref()),
        report.device.to_string(),
        or_dash(report.from.as_ref()),
        report.to.to_string(),
        or_dash(report.size.map(Size::from_bytes)),
        report.bad_sectors.to_string(),
        report.carried_sectors.to_string(),
        report.result.to_string(),
    ]
}
