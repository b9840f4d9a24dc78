// SPDX-License-Identifier: GPL-2.0

//! Saves the lists of errors at each change.

use crate::badblocks::kernel;
use crate::badblocks::persist::{self, PROBE_TIMEOUT, SaveOutcome, SaveReport};
use crate::badblocks::poll::{Changes, SETTLE_TIME, Wakeup, WatchedLists};
use crate::nd::region::Region;
use crate::sysfs::Host;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

/// Returns whether a report is worth a line: the first one of a region, or a change.
fn is_news(report: &SaveReport, last: Option<&SaveReport>) -> bool {
    let Some(last) = last else { return true };
    let changed = report.new_sectors + report.repaired_sectors + report.restored_sectors > 0;
    changed
        || report.reasons != last.reasons
        || (report.result == SaveOutcome::Failed) != (last.result == SaveOutcome::Failed)
}

/// Saves the lists of the chosen regions now and at each change, and reports it, until SIGTERM or
/// SIGINT.
pub fn run(
    host: &Host,
    folder: &Path,
    is_chosen: impl Fn(&Region) -> bool,
    mut report_change: impl FnMut(&SaveReport) -> Result<()>,
) -> Result<()> {
    let changes = Changes::open()?;
    let mut last: BTreeMap<u32, SaveReport> = BTreeMap::new();
    let mut ending = false;
    loop {
        let mut regions = Region::all(host);
        regions.retain(&is_chosen);
        for device in regions.iter().flat_map(Region::devices) {
            let known = |report: &SaveReport| {
                let name = device.disk().map(|disk| disk.name().to_owned());
                name.is_none_or(|name| report.disks.contains(&name))
            };
            if !last.get(&device.name.region).is_some_and(known) {
                kernel::wait(&device, PROBE_TIMEOUT);
            }
        }
        let lists = WatchedLists::of(&regions)?;
        last.retain(|id, _| regions.iter().any(|region| region.id == *id));
        for region in &regions {
            let report = persist::save(region, folder);
            if is_news(&report, last.get(&region.id)) {
                report_change(&report)?;
            }
            last.insert(region.id, report);
        }
        if ending {
            return Ok(());
        }
        // The last change is saved before the end.
        ending = changes.wait(&lists, None, None)? == Wakeup::End;
        if !ending {
            thread::sleep(SETTLE_TIME);
        }
        changes.forget();
    }
}
