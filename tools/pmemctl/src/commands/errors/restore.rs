// SPDX-License-Identifier: GPL-2.0

//! The command `errors restore`.

use crate::commands::device_spec::{Devices, StateDir};
use crate::commands::output::{Status, json, or_dash, reasons, root, table};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::persist::{self, RestoreOutcome, RestoreReport};
use pmemctl::badblocks::store::Refusal;
use pmemctl::json::Reports;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "All saved errors are on the lists."),
        ("1", "An error could not be put on a list."),
        ("3", "A saved list was refused."),
    ],
    files: &[
        (
            "/var/lib/pmemctl",
            "The saved lists of errors, one file for each memory.",
        ),
        (
            "/usr/lib/udev/rules.d/59-pmemctl.rules",
            "Restores the list of each disk that appears.",
        ),
        (
            "/usr/lib/systemd/system/pmemctl-restore.service",
            "Runs \"pmemctl errors restore --all\" at boot.",
        ),
        (
            "/usr/share/initramfs-tools/scripts/local-bottom/rust_pmem",
            "Runs \"pmemctl errors restore --all --later-copy\" once the root file system is mounted; for dracut, \
             /usr/lib/dracut/modules.d/90rust_pmem/restore.sh.",
        ),
    ],
    examples: &[(
        "pmemctl errors restore --all",
        "Restore the lists of all devices.",
    )],
    see_also: &["pmemctl-errors-save(1)"],
    ..Page::EMPTY
};

/// Put saved errors back on the kernel's lists
///
/// Run it before anything reads the memory: the udev rule 59-pmemctl.rules runs it for each disk that appears. A
/// saved list is refused, and nothing is changed, if the file is damaged, a later version wrote it, it is of other memory or of
/// another size, or it is stale: the disk has had all of it since the boot, and some of its errors are repaired. Each of several
/// devices is restored or refused separately. With --all a stale list is reported, but is not a failure.
#[derive(Args)]
pub struct Restore {
    #[command(flatten)]
    place: StateDir,
    /// Use a saved list only if it is a later copy of one that the disk has had since the boot
    ///
    /// For an initramfs, which has an older copy: its errors that were repaired since then leave the lists.
    #[arg(long)]
    later_copy: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Devices,
}

/// Returns the worst result. If all are restored, as at each start of a service, a stale list is no failure:
/// its disk has had all of it, and some was repaired since then.
pub fn restore(arguments: &Restore) -> Result<Status> {
    let host = root("errors restore")?;
    let folder = &arguments.place.state_dir;
    let devices = arguments.which.devices(&host)?;
    let reports: Vec<_> = devices
        .iter()
        .map(|device| persist::restore(&host, device, folder, arguments.later_copy))
        .collect();
    if arguments.json {
        json(&Reports { reports: &reports })?;
    } else {
        let rows = reports.iter().map(|report| {
            vec![
                or_dash(report.disk.clone()),
                report.device.to_string(),
                report.bad_sectors.to_string(),
                report.restored_sectors.to_string(),
                report.result.to_string(),
                or_dash(report.file.as_ref()),
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
    Ok(if any(RestoreOutcome::Refused) {
        Status::ListRefused
    } else {
        Status::good(!any(RestoreOutcome::Failed))
    })
}
