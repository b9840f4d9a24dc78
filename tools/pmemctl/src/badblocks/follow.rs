// SPDX-License-Identifier: GPL-2.0

//! Saves the lists of errors at each change, and again after a failure.

use crate::badblocks::kernel;
use crate::badblocks::persist::{self, SaveOutcome, SaveReport};
use crate::badblocks::poll::{Changes, RETRY_TIME, SETTLE_TIME, Wakeup, WatchedLists};
use crate::nd::region::Region;
use crate::sysfs::Host;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Returns whether a report is worth a line: the first one of a region, or a change.
fn is_news(report: &SaveReport, last: Option<&SaveReport>) -> bool {
    let Some(last) = last else { return true };
    let changed = report.new_sectors + report.repaired_sectors + report.restored_sectors > 0;
    changed
        || report.reasons != last.reasons
        || (report.result == SaveOutcome::Failed) != (last.result == SaveOutcome::Failed)
}

/// Saves the lists of the chosen regions now, at each change and some time after a failure, and reports it, until
/// SIGTERM or SIGINT.
pub fn run(
    host: &Host,
    folder: &Path,
    is_chosen: impl Fn(&Region) -> bool,
    report_change: impl FnMut(&SaveReport) -> Result<()>,
) -> Result<()> {
    run_with(RETRY_TIME, host, folder, is_chosen, report_change)
}

/// Does the same with another time until a retry.
fn run_with(
    retry: Duration,
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
        // Those of a disk that appears are watched as soon as they are there.
        for device in regions.iter().flat_map(Region::devices) {
            kernel::wait(&device);
        }
        let lists = WatchedLists::of(&regions);
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
        let failed = |report: &SaveReport| report.result == SaveOutcome::Failed;
        let until = last.values().any(failed).then(|| Instant::now() + retry);
        // The last change is saved before the end.
        ending = changes.wait(&lists, None, until)? == Wakeup::End;
        if !ending {
            thread::sleep(SETTLE_TIME);
        }
        changes.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use anyhow::bail;
    use std::fs;
    use std::sync::mpsc;

    #[test]
    fn failed_save_is_tried_again() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        let (host, state) = (machine.host.clone(), machine.folder.path().join("state"));
        fs::write(&state, "no directory").unwrap();
        let (results, seen) = mpsc::channel();
        // Without a retry it waits forever.
        thread::spawn(move || {
            let retry = Duration::from_millis(50);
            run_with(
                retry,
                &host,
                &state,
                |_| true,
                |report| {
                    results.send(report.result)?;
                    if report.result != SaveOutcome::Failed {
                        bail!("the test is over");
                    }
                    Ok(fs::remove_file(&state)?)
                },
            )
        });
        let next = || seen.recv_timeout(Duration::from_secs(10)).ok();
        assert_eq!(next(), Some(SaveOutcome::Failed));
        assert_eq!(next(), Some(SaveOutcome::Saved));
    }
}
