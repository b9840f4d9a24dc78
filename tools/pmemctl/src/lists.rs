// SPDX-License-Identifier: GPL-2.0

//! The commands about lists of errors.

use crate::Status;
use crate::show::{json, or_dash, reasons, root, table};
use anyhow::Result;
use clap::Args;
use pmemctl::change::{Injection, Place};
use pmemctl::follow;
use pmemctl::host::Host;
use pmemctl::nd::Device;
use pmemctl::poison::{self, Synced};
use pmemctl::region::Region;
use pmemctl::remember::{self, FOLDER, Kept, RestoreReport, Restored, SaveReport};
use pmemctl::saved::Refusal;
use pmemctl::swap::Asked;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;
use units::Size;

#[derive(Args)]
struct Which {
    /// All there are
    #[arg(long, conflicts_with = "devices")]
    all: bool,
    /// /dev/pmem0, pmem0, namespace0.0, pfn0.0 or btt0.0
    #[arg(value_name = "DEVICE", required_unless_present = "all")]
    devices: Vec<Asked>,
}

#[derive(Args)]
struct Where {
    /// Where lists are saved
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    state_dir: PathBuf,
}

#[derive(Args)]
pub struct Save {
    /// Stay, and save within a second of each change; SIGTERM ends it
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    place: Where,
    /// For programs: an array of one object for each region; with --follow an object a line for
    /// each change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
pub struct Restore {
    #[command(flatten)]
    place: Where,
    /// For programs: an array of one object for each device
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
pub struct Change {
    /// /dev/pmem0, pmem0, a partition of it, or namespace0.0
    #[arg(value_name = "DEVICE")]
    device: Asked,
    /// From the start of the disk or partition, or of the namespace where that is named: 4096, 0x1000, 4K, 1M
    #[arg(value_name = "OFFSET")]
    offset: Size,
    /// Bytes: whole sectors of 512
    #[arg(value_name = "LENGTH")]
    length: Size,
    /// For programs: an object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Inject {
    #[command(flatten)]
    change: Change,
    /// Only list it, and leave the memory as it is; sectors instead of pages
    #[arg(long)]
    list_only: bool,
}

#[derive(Args)]
pub struct Clear {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    place: Where,
}

#[derive(Args)]
pub struct SyncPoison {
    /// For programs: an array of one object for each region
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

impl Which {
    /// Each once. Where one is not there, nothing is done to any.
    fn devices(&self, host: &Host) -> Result<Vec<Device>> {
        if self.all {
            let regions = Region::all(host);
            return Ok(regions.iter().flat_map(Region::devices).collect());
        }
        let mut found: Vec<Device> = Vec::new();
        for asked in &self.devices {
            let device = asked.find(host)?;
            if found.iter().all(|other| other.name != device.name) {
                found.push(device);
            }
        }
        Ok(found)
    }

    fn regions(&self, host: &Host) -> Result<Vec<Region>> {
        let mut regions = Region::all(host);
        if !self.all {
            let devices = self.devices(host)?;
            let meant = |region: &Region| devices.iter().any(|one| one.name.region == region.id);
            regions.retain(meant);
        }
        Ok(regions)
    }
}

fn list_of(disks: &[String]) -> String {
    or_dash((!disks.is_empty()).then(|| disks.join(" ")))
}

fn file_name(file: Option<&PathBuf>) -> String {
    or_dash(file.map(|file| file.display().to_string()))
}

/// A line for a log.
fn line(report: &SaveReport) -> String {
    let name = match report.disks.as_slice() {
        [] => report.region.clone(),
        disks => disks.join(", "),
    };
    let mut changes: Vec<String> = [
        (report.new_sectors, "new"),
        (report.healed_sectors, "healed"),
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
        file_name(report.file.as_ref())
    )
}

/// Whether all is saved.
pub fn save(arguments: &Save) -> Result<bool> {
    let host = root("save")?;
    let folder = &arguments.place.state_dir;
    if arguments.follow {
        let chosen: Option<Vec<u32>> = match arguments.which.all {
            true => None,
            false => {
                let regions = arguments.which.regions(&host)?;
                Some(regions.iter().map(|region| region.id).collect())
            }
        };
        follow::run(&host, folder, chosen.as_deref(), |report| {
            let text = match arguments.json {
                true => serde_json::to_string(report)?,
                false => line(report),
            };
            writeln!(io::stdout(), "{text}")?;
            Ok(())
        })?;
        return Ok(true);
    }
    let regions = arguments.which.regions(&host)?;
    let reports: Vec<_> = regions
        .iter()
        .map(|region| remember::save(region, folder))
        .collect();
    if arguments.json {
        json(&reports)?;
    } else {
        let rows = reports.iter().map(|report| {
            vec![
                report.region.clone(),
                list_of(&report.disks),
                report.bad_sectors.to_string(),
                report.new_sectors.to_string(),
                report.healed_sectors.to_string(),
                if report.has_log { "yes" } else { "no" }.to_owned(),
                report.result.to_string(),
                file_name(report.file.as_ref()),
            ]
        });
        let header = [
            "REGION",
            "DISKS",
            "BAD SECTORS",
            "NEW",
            "HEALED",
            "OWN LOG",
            "RESULT",
            "FILE",
        ];
        table(&header, &[2, 3, 4], rows)?;
        for report in &reports {
            reasons(&report.region, &report.reasons)?;
        }
    }
    Ok(reports.iter().all(|report| report.result != Kept::Failed))
}

/// The worst of what became of them. Where all are restored, as at each start of a service, a list
/// that is stale is no failure: its disk has had all of it, and some was healed since then.
pub fn restore(arguments: &Restore) -> Result<Status> {
    let host = root("restore")?;
    let folder = &arguments.place.state_dir;
    let devices = arguments.which.devices(&host)?;
    let reports: Vec<_> = devices
        .iter()
        .map(|device| remember::restore(&host, device, folder))
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

#[derive(Serialize)]
struct Changed {
    device: String,
    offset: u64,
    length: u64,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Tells how a change went, of which place of which namespace.
fn change(
    host: &Host,
    arguments: &Change,
    verb: &'static str,
    work: impl FnOnce(&Place) -> Result<()>,
) -> Result<bool> {
    let (offset, length) = (arguments.offset.bytes(), arguments.length.bytes());
    let place = Place::find(host, &arguments.device, offset, length)?;
    let done = work(&place);
    if !arguments.json {
        return done.map(|()| true);
    }
    json(&Changed {
        device: place.device.name.to_string(),
        offset: place.bytes.start,
        length: place.bytes.end - place.bytes.start,
        result: if done.is_ok() { verb } else { "failed" },
        reason: done.as_ref().err().map(|error| format!("{error:#}")),
    })?;
    Ok(done.is_ok())
}

/// Whether there is an error now.
pub fn inject(arguments: &Inject) -> Result<bool> {
    let host = root("inject")?;
    let how = match arguments.list_only {
        true => Injection::List,
        false => Injection::Poison,
    };
    change(&host, &arguments.change, "injected", |place| {
        place.inject(&host, how)
    })
}

/// Whether there is none now.
pub fn clear(arguments: &Clear) -> Result<bool> {
    let host = root("clear")?;
    let folder = &arguments.place.state_dir;
    change(&host, &arguments.change, "cleared", |place| {
        place.clear()?;
        let region = Region::find(&host, place.device.name.region);
        match region {
            Some(region) => remember::update(&region, folder),
            None => Ok(()),
        }
    })
}

/// Whether all that the devices know is on the lists.
pub fn sync_poison(arguments: &SyncPoison) -> Result<bool> {
    let host = root("sync-poison")?;
    let mut regions = arguments.which.regions(&host)?;
    if arguments.which.all {
        regions.retain(|region| region.provider().as_deref() == Some("CXL"));
    }
    let reports: Vec<_> = regions.iter().map(poison::sync).collect();
    if arguments.json {
        json(&reports)?;
    } else {
        let rows = reports.iter().map(|report| {
            vec![
                report.region.clone(),
                list_of(&report.disks),
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
