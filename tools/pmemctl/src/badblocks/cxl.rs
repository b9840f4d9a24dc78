// SPDX-License-Identifier: GPL-2.0

//! Reads the poison lists of CXL memory devices.
//!
//! A device keeps a list of poisoned addresses (CXL 3.1, 8.2.9.9.4.1). The kernel exposes it as trace events only,
//! which `cxl list --media-errors` collects for a region; modules have no access to it.

use crate::badblocks::cxl_events::CxlEvents;
use crate::badblocks::kernel::{KernelList, ListLookup};
use crate::badblocks::origin::{Origin, SECTOR};
use crate::badblocks::poll::{Changes, RETRY_TIME, SETTLE_TIME, Wakeup, WatchedLists};
use crate::badblocks::set::BadBlocks;
use crate::nd::Device;
use crate::nd::region::Region;
use crate::programs;
use crate::sysfs::{self, Host};
use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportOutcome {
    /// The missing errors are on the kernel's lists now.
    Added,
    ThereAlready,
    /// The device knows of no errors there.
    NoErrors,
    /// Some errors are where no disk with a list is; the others are on the lists.
    Incomplete,
    /// Not all is on the lists.
    Failed,
}

impl fmt::Display for ImportOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::ThereAlready => "there already",
            Self::NoErrors => "no errors",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
        })
    }
}

/// The result for one region.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct ImportReport {
    pub region: String,
    pub disks: Vec<String>,
    /// Sectors of it on the device's list.
    pub bad_sectors: u64,
    /// Sectors that were missing on the kernel's lists.
    pub added_sectors: u64,
    pub result: ImportOutcome,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// A region, as `cxl list` has it.
#[derive(Deserialize)]
struct CxlRegion {
    region: String,
    #[serde(default)]
    media_errors: Vec<MediaError>,
}

/// Bytes, from the start of the region.
#[derive(Deserialize)]
struct MediaError {
    offset: u64,
    length: u64,
}

/// Parses the output of `cxl list` to the bad sectors of a region of `size` bytes.
fn bad(text: &[u8], region: &str, size: u64) -> Result<BadBlocks> {
    let listed: Vec<CxlRegion> = serde_json::from_slice(text).context("its output")?;
    let listed = listed
        .iter()
        .find(|listed| listed.region == region)
        .with_context(|| format!("it says nothing of {region}"))?;
    listed
        .media_errors
        .iter()
        .map(|error| {
            let end = error.offset.checked_add(error.length);
            let end = end.filter(|end| *end <= size && error.length > 0);
            let end = end.with_context(|| {
                format!(
                    "an error of {} bytes from {} is not in a region of {size}",
                    error.length, error.offset
                )
            })?;
            Ok(error.offset / SECTOR..end.div_ceil(SECTOR))
        })
        .collect()
}

/// Asks the devices of a CXL region.
fn of_devices(region: &Region, cxl: &Path) -> Result<BadBlocks> {
    let name = cxl.file_name().and_then(|name| name.to_str());
    let name = name.context("its CXL region has no name")?;
    // With more ways the kernel maps offsets to devices; that it does so for this list is not tested.
    let ways = sysfs::number(cxl.join("interleave_ways"));
    ensure!(
        ways == Some(1),
        "it is interleaved {} ways: only regions of one device are supported",
        ways.unwrap_or(0)
    );
    let command = "cxl list --media-errors";
    let output = Command::new(programs::path("cxl"))
        .args(["list", "--region", name, "--media-errors"])
        .output()
        .with_context(|| format!("\"{command}\" cannot be run"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("\"{command}\": {}", sysfs::printable(message.trim()));
    }
    bad(&output.stdout, name, region.size).with_context(|| format!("\"{command}\""))
}

/// Adds the poison lists of a region's devices to the kernel's lists.
pub fn import(region: &Region) -> ImportReport {
    let mut report = ImportReport {
        region: region.name.clone(),
        disks: Vec::new(),
        bad_sectors: 0,
        added_sectors: 0,
        result: ImportOutcome::NoErrors,
        reasons: Vec::new(),
    };
    if let Err(error) = try_import(region, &mut report) {
        report.result = ImportOutcome::Failed;
        report.reasons.push(format!("{error:#}"));
    }
    report
}

/// The last import of a region, and the disks that it had.
#[derive(Debug)]
struct LastImport {
    report: ImportReport,
    disks: Vec<String>,
}

impl LastImport {
    fn has_failed(&self) -> bool {
        self.report.result == ImportOutcome::Failed
    }

    /// Returns whether another one is due without a report of a device. A change of other devices is no reason, such
    /// as a uevent about the errors that were added.
    fn is_outdated(&self, disks: &[String]) -> bool {
        self.disks != disks || self.has_failed()
    }
}

/// Imports the poison lists of the devices below the chosen regions: now, for each region and disk that appears, for
/// each report of a device, and some time after a failure. Reports the first result of a region and each change, until
/// SIGTERM or SIGINT.
pub fn follow(
    host: &Host,
    is_chosen: impl Fn(&Region) -> bool,
    mut report_change: impl FnMut(&ImportReport) -> Result<()>,
) -> Result<()> {
    let changes = Changes::open()?;
    let events = CxlEvents::open(host)?;
    let no_lists = WatchedLists::of(&[]);
    let mut last: BTreeMap<String, LastImport> = BTreeMap::new();
    loop {
        changes.forget();
        let has_reports = events.take();
        let mut regions = Region::all(host);
        regions.retain(|region| region.cxl().is_some() && is_chosen(region));
        last.retain(|name, _| regions.iter().any(|region| region.name == *name));
        for region in &regions {
            let disks: Vec<_> = region.devices().iter().filter_map(Device::disk).collect();
            let disks: Vec<_> = disks.iter().map(|disk| disk.name().to_owned()).collect();
            let before = last.get(&region.name);
            if !has_reports && before.is_some_and(|before| !before.is_outdated(&disks)) {
                continue;
            }
            let report = import(region);
            let is_news = before.is_none_or(|before| {
                report.added_sectors > 0 || report.reasons != before.report.reasons
            });
            if is_news {
                report_change(&report)?;
            }
            last.insert(region.name.clone(), LastImport { report, disks });
        }
        let failed = last.values().any(LastImport::has_failed);
        let until = failed.then(|| Instant::now() + RETRY_TIME);
        if changes.wait(&no_lists, Some(events.as_fd()), until)? == Wakeup::End {
            return Ok(());
        }
        thread::sleep(SETTLE_TIME);
    }
}

fn try_import(region: &Region, report: &mut ImportReport) -> Result<()> {
    let cxl = region.cxl().context("it is no CXL memory")?;
    add(region, &of_devices(region, &cxl)?, report)
}

/// Adds bad sectors of a region to the lists of its disks.
fn add(region: &Region, bad: &BadBlocks, report: &mut ImportReport) -> Result<()> {
    report.bad_sectors = bad.sectors();
    if bad.is_empty() {
        return Ok(());
    }
    report.result = ImportOutcome::ThereAlready;
    let mut left = bad.clone();
    for device in region.devices() {
        let list = match KernelList::of(region, &device)? {
            ListLookup::List(list) => list,
            ListLookup::None(reason) => {
                report.reasons.push(format!("{}: {reason}", device.name));
                continue;
            }
        };
        report.disks.push(list.disk.name().to_owned());
        let missing = bad.within(&list.covers).without(&list.read()?.all());
        list.add(&missing, Origin::DEVICE)?;
        report.added_sectors += missing.sectors();
        left = left.without(&[list.covers.clone()].into_iter().collect());
    }
    if report.added_sectors > 0 {
        report.result = ImportOutcome::Added;
    }
    if !left.is_empty() {
        report.result = ImportOutcome::Incomplete;
        report.reasons.push(format!(
            "{} of the device's {} bad sectors are where no disk with a list is",
            left.sectors(),
            bad.sectors()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;

    fn no_errors() -> ImportReport {
        ImportReport {
            region: "region0".into(),
            disks: Vec::new(),
            bad_sectors: 0,
            added_sectors: 0,
            result: ImportOutcome::NoErrors,
            reasons: Vec::new(),
        }
    }

    #[test]
    fn errors_beside_the_disks_are_not_imported() {
        let machine = FakeSysfs::new();
        let region = Region::find(&machine.host, 0).unwrap();
        machine.lists("8 8");
        // The data of the disk begins at sector 6144 of the region.
        for (bad, result) in [
            ("6152 8\n", ImportOutcome::ThereAlready),
            ("0 8\n6152 8\n", ImportOutcome::Incomplete),
        ] {
            let mut report = no_errors();
            add(&region, &bad.parse().unwrap(), &mut report).unwrap();
            assert_eq!((report.result, report.added_sectors), (result, 0));
            let is_complete = result != ImportOutcome::Incomplete;
            assert_eq!(report.reasons.is_empty(), is_complete);
        }
    }

    #[test]
    fn failed_import_is_tried_again() {
        let disks = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut last = LastImport {
            report: no_errors(),
            disks: disks(&["pmem0"]),
        };
        let outdated = |last: &LastImport, names| last.is_outdated(&disks(names));
        assert!(!outdated(&last, &["pmem0"]));
        assert!(outdated(&last, &["pmem0", "pmem1"]));
        // Another disk may have a list there; until then it would be the same.
        last.report.result = ImportOutcome::Incomplete;
        assert!(!outdated(&last, &["pmem0"]));
        last.report.result = ImportOutcome::Failed;
        assert!(outdated(&last, &["pmem0"]));
    }

    #[test]
    fn media_errors_parsed_as_sectors() {
        let text = br#"[{"region":"region0","resource":77577846784,"size":268435456,"type":"pmem","interleave_ways":1,
            "media_errors":[{"offset":1048704,"length":64,"source":"Injected"},
                            {"offset":1048640,"length":64,"source":"Injected"},
                            {"offset":511,"length":2,"source":"Unknown"}]}]"#;
        let list = bad(text, "region0", 256 << 20).unwrap();
        assert_eq!(list.to_string(), "0 2\n2048 1\n");
        assert!(bad(text, "region1", 256 << 20).is_err());
        assert!(bad(text, "region0", 1 << 20).is_err());
        assert!(bad(b"", "region0", 1 << 20).is_err());
        let none = br#"[{"region":"region0"}]"#;
        assert!(bad(none, "region0", 1 << 20).unwrap().is_empty());
        for offset in ["-1", "18446744073709551615", "\"0x1000\""] {
            let text =
                format!(r#"[{{"region":"r","media_errors":[{{"offset":{offset},"length":64}}]}}]"#);
            assert!(bad(text.as_bytes(), "r", u64::MAX).is_err(), "{offset}");
        }
    }
}
