// SPDX-License-Identifier: GPL-2.0

//! Reads the poison lists of CXL memory devices.
//!
//! A device keeps a list of poisoned addresses (CXL 3.1, 8.2.9.9.4.1). The kernel exposes it as trace events only,
//! which `cxl list --media-errors` collects for a region; modules have no access to it.

use crate::badblocks::cxl_events::CxlEvents;
use crate::badblocks::kernel::{self, KernelList, ListLookup};
use crate::badblocks::origin::{Origin, SECTOR};
use crate::badblocks::poll::{Changes, RETRY_TIME, SETTLE_TIME, Wakeup, WatchedLists};
use crate::badblocks::set::BadBlocks;
use crate::block::disk::Disk;
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
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportOutcome {
    /// The missing errors are on the kernel's lists now.
    Added,
    ThereAlready,
    /// The device knows of no errors there.
    NoErrors,
    /// The device's list is not complete, or some errors are where no disk with a list is; the others are on the lists.
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
    /// Missing if there are none, or if the device could not be asked.
    media_errors: Option<Vec<MediaError>>,
}

/// Bytes, from the start of the region.
#[derive(Deserialize)]
struct MediaError {
    /// Missing if the kernel could not compute it.
    offset: Option<u64>,
    length: u64,
    /// Words, each with a comma.
    #[serde(default)]
    flags: String,
}

/// The poison list of the device of a region.
#[derive(Debug, Default)]
struct PoisonList {
    bad: BadBlocks,
    /// Why it may not be all.
    incomplete: Vec<String>,
}

/// Parses the output of `cxl list` for a region of `size` bytes; none if it has no list.
fn parse(text: &[u8], region: &str, size: u64) -> Result<Option<PoisonList>> {
    let listed: Vec<CxlRegion> = serde_json::from_slice(text).context("its output")?;
    let listed = listed
        .iter()
        .find(|listed| listed.region == region)
        .with_context(|| format!("it says nothing of {region}"))?;
    let Some(errors) = &listed.media_errors else {
        return Ok(None);
    };
    let sectors = |error: &MediaError| {
        let start = error.offset?;
        let end = start.checked_add(error.length)?;
        let is_inside = end <= size && error.length > 0;
        is_inside.then(|| start / SECTOR..end.div_ceil(SECTOR))
    };
    let mut incomplete = Vec::new();
    let elsewhere = errors.iter().filter(|error| sectors(error).is_none());
    let elsewhere = elsewhere.count();
    if elsewhere > 0 {
        incomplete.push(format!(
            "{elsewhere} entries of the device's list are not in the region's {size} bytes"
        ));
    }
    // drivers/cxl/core/trace.h: show_poison_trace_type(), show_poison_flags().
    if errors.iter().any(|error| error.flags.contains("Overflow")) {
        incomplete.push("the device has more errors than its list has room for".to_owned());
    }
    if errors
        .last()
        .is_some_and(|last| last.flags.contains("More"))
    {
        incomplete.push("the kernel has not read all of the device's list".to_owned());
    }
    Ok(Some(PoisonList {
        bad: errors.iter().filter_map(sectors).collect(),
        incomplete,
    }))
}

/// The time that `cxl list` may take; the kernel gives a device 2 s for each part of its list (drivers/cxl/pci.c).
const TIME: Duration = Duration::from_secs(60);

/// Asks the devices of a CXL region.
fn of_devices(region: &Region, cxl: &Path) -> Result<PoisonList> {
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
    let mut list = Command::new(programs::path("cxl"));
    list.args(["list", "--region", name, "--media-errors"]);
    let output = programs::output_within(TIME, &mut list)
        .with_context(|| format!("\"{command}\" has failed"))?;
    let message = String::from_utf8_lossy(&output.stderr);
    let message = || format!("\"{command}\": {}", sysfs::printable(message.trim()));
    if !output.status.success() {
        bail!(message());
    }
    let list =
        parse(&output.stdout, name, region.size).with_context(|| format!("\"{command}\""))?;
    // It succeeds, too, if the device does not answer, or its answer can't be traced.
    if list.is_none() && !output.stderr.is_empty() {
        bail!(message());
    }
    Ok(list.unwrap_or_default())
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
    /// With the number of each, which is another one after a bind.
    disks: Vec<(String, Option<u64>)>,
}

impl LastImport {
    fn has_failed(&self) -> bool {
        self.report.result == ImportOutcome::Failed
    }

    /// Returns whether another one is due without a report of a device. A change of other devices is no reason, such
    /// as a uevent about the errors that were added.
    fn is_outdated(&self, disks: &[(String, Option<u64>)]) -> bool {
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
            let numbered = |disk: &Disk| (disk.name().to_owned(), disk.sequence());
            let disks: Vec<_> = disks.iter().map(numbered).collect();
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
    let mut list = of_devices(region, &cxl)?;
    add(region, &list.bad, report);
    if !list.incomplete.is_empty() {
        if report.result != ImportOutcome::Failed {
            report.result = ImportOutcome::Incomplete;
        }
        report.reasons.append(&mut list.incomplete);
    }
    Ok(())
}

/// Adds bad sectors of a region to the lists of its disks.
fn add(region: &Region, bad: &BadBlocks, report: &mut ImportReport) {
    report.bad_sectors = bad.sectors();
    if bad.is_empty() {
        return;
    }
    report.result = ImportOutcome::ThereAlready;
    let mut left = bad.clone();
    let mut failed = false;
    for device in region.devices() {
        kernel::wait(&device);
        // One disk does not keep the errors of others off their lists.
        let added = add_to_disk(region, &device, bad, &mut left, report);
        if let Err(error) = added {
            failed = true;
            report.reasons.push(format!("{}: {error:#}", device.name));
        }
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
    if failed {
        report.result = ImportOutcome::Failed;
    }
}

/// Adds those of the sectors that a device has to the list of its disk, and removes them from `left`.
fn add_to_disk(
    region: &Region,
    device: &Device,
    bad: &BadBlocks,
    left: &mut BadBlocks,
    report: &mut ImportReport,
) -> Result<()> {
    let list = match KernelList::of(region, device)? {
        ListLookup::List(list) => list,
        ListLookup::None(reason) => {
            report.reasons.push(format!("{}: {reason}", device.name));
            return Ok(());
        }
    };
    report.disks.push(list.disk.name().to_owned());
    *left = left.without(&[list.covers.clone()].into_iter().collect());
    let missing = bad.within(&list.covers).without(&list.read()?.all());
    list.add(&missing, Origin::DEVICE)?;
    report.added_sectors += missing.sectors();
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
            add(&region, &bad.parse().unwrap(), &mut report);
            assert_eq!((report.result, report.added_sectors), (result, 0));
            let is_complete = result != ImportOutcome::Incomplete;
            assert_eq!(report.reasons.is_empty(), is_complete);
        }
    }

    #[test]
    fn disk_without_a_readable_list_fails_the_import() {
        let machine = FakeSysfs::new();
        let region = Region::find(&machine.host, 0).unwrap();
        machine.lists("not a list");
        let mut report = no_errors();
        add(&region, &"6152 8\n".parse().unwrap(), &mut report);
        assert_eq!(report.result, ImportOutcome::Failed);
        assert!(report.reasons[0].starts_with("pfn0.0: "), "{report:?}");
    }

    #[test]
    fn failed_import_is_tried_again() {
        let disks = |disks: &[(&str, u64)]| {
            let numbered = disks
                .iter()
                .map(|(name, number)| ((*name).to_owned(), Some(*number)));
            numbered.collect::<Vec<_>>()
        };
        let mut last = LastImport {
            report: no_errors(),
            disks: disks(&[("pmem0", 12)]),
        };
        let outdated = |last: &LastImport, now| last.is_outdated(&disks(now));
        assert!(!outdated(&last, &[("pmem0", 12)]));
        assert!(outdated(&last, &[("pmem0", 12), ("pmem1", 13)]));
        assert!(outdated(&last, &[("pmem0", 13)]), "bound again");
        // Another disk may have a list there; until then it would be the same.
        last.report.result = ImportOutcome::Incomplete;
        assert!(!outdated(&last, &[("pmem0", 12)]));
        last.report.result = ImportOutcome::Failed;
        assert!(outdated(&last, &[("pmem0", 12)]));
    }

    #[test]
    fn media_errors_parsed_as_sectors() {
        let text = br#"[{"region":"region0","resource":77577846784,"size":268435456,"type":"pmem","interleave_ways":1,
            "media_errors":[{"offset":1048704,"length":64,"source":"Injected"},
                            {"offset":1048640,"length":64,"source":"Injected"},
                            {"offset":511,"length":2,"source":"Unknown"}]}]"#;
        let list = parse(text, "region0", 256 << 20).unwrap().unwrap();
        assert_eq!(list.bad.to_string(), "0 2\n2048 1\n");
        assert!(list.incomplete.is_empty());
        assert!(parse(text, "region1", 256 << 20).is_err());
        assert!(parse(b"", "region0", 1 << 20).is_err());
        let none = br#"[{"region":"region0"}]"#;
        assert!(parse(none, "region0", 1 << 20).unwrap().is_none());
        for offset in ["-1", "\"0x1000\""] {
            let text =
                format!(r#"[{{"region":"r","media_errors":[{{"offset":{offset},"length":64}}]}}]"#);
            assert!(parse(text.as_bytes(), "r", u64::MAX).is_err(), "{offset}");
        }
    }

    #[test]
    fn incomplete_list_is_imported_and_reported() {
        let list = |second: &str, size| {
            let text = format!(
                r#"[{{"region":"r","media_errors":[{{"offset":0,"length":64,"flags":"More,"}},{{{second}}}]}}]"#
            );
            let list = parse(text.as_bytes(), "r", size).unwrap().unwrap();
            (list.bad.to_string(), list.incomplete.len())
        };
        let first = "0 1\n".to_owned();
        assert_eq!(list(r#""offset":64,"length":64"#, 4096), (first.clone(), 0));
        // Behind the region, without an address, with a length that overflows, and by the device's own word.
        for (second, size) in [
            (r#""offset":4096,"length":64"#, 4096),
            (r#""length":64"#, 4096),
            (r#""offset":18446744073709551615,"length":64"#, u64::MAX),
            (r#""offset":64,"length":64,"flags":"Overflow,""#, 4096),
            (r#""offset":64,"length":64,"flags":"More,""#, 4096),
        ] {
            assert_eq!(list(second, size), (first.clone(), 1), "{second}");
        }
    }
}
