// SPDX-License-Identifier: GPL-2.0

//! The state of the main loop: the lists, the batches that are searched for, and the cursor.

use crate::badblocks::kernel;
use crate::badblocks::set::BadBlocks;
use crate::monitor::batch::{Answer, Batch};
use crate::monitor::cursor::Cursor;
use crate::monitor::lists::{ReportedErrors, snapshot};
use crate::monitor::{Event, Handled, PROMPT, Receipt, Report};
use crate::nd::region::Region;
use crate::sysfs::Host;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A batch that is not complete.
struct PendingBatch {
    /// When it is reported with the known facts; `None` afterwards.
    until: Option<Instant>,
    rest: Vec<Event>,
    sectors: Vec<(u64, BadBlocks)>,
    receipt: Receipt,
}

/// A batch that is complete, and whose events may still be handled.
struct ReportedBatch {
    sectors: Vec<(u64, BadBlocks)>,
    receipt: Weak<Handled>,
}

/// The state of the main loop.
pub(super) struct Monitor<'a> {
    pub(super) host: &'a Host,
    /// Errors that are listed at the start are reported.
    now: bool,
    /// Without targets, all errors are reported.
    everything: bool,
    cursor: Option<Cursor>,
    /// The failure to save the cursor was logged.
    complained: bool,
    /// By the name of the file of the memory.
    known: BTreeMap<String, ReportedErrors>,
    /// The disks that the driver was waited for.
    sequences: BTreeSet<u64>,
    /// The lists that could not be read, with the reasons.
    failed: BTreeSet<(String, String)>,
    /// By the number of the batch.
    pending: BTreeMap<u64, PendingBatch>,
    /// Those that are complete, but not in the cursor.
    reported: Vec<ReportedBatch>,
    /// The disks that were reported as watched; `None` at the start.
    watched: Option<Vec<String>>,
}

impl<'a> Monitor<'a> {
    pub(super) fn new(host: &'a Host, now: bool, everything: bool, cursor: Option<Cursor>) -> Self {
        Self {
            host,
            now,
            everything,
            cursor,
            complained: false,
            known: BTreeMap::new(),
            sequences: BTreeSet::new(),
            failed: BTreeSet::new(),
            pending: BTreeMap::new(),
            reported: Vec::new(),
            watched: None,
        }
    }

    fn save_cursor(&mut self) {
        let saved = self.cursor.as_mut().map(Cursor::save);
        // Monitoring matters more: /var may be full or read-only.
        if let Some(Err(error)) = saved {
            if !self.complained {
                let _ = writeln!(io::stderr(), "pmemctl: cannot save the cursor: {error:#}");
            }
            self.complained = true;
        }
    }

    /// Waits for the driver once per disk, so that results of the other threads are not delayed.
    pub(super) fn wait_for_drivers(&mut self, regions: &[Region]) {
        for device in regions.iter().flat_map(Region::devices) {
            let sequence = device.disk().and_then(|disk| disk.sequence());
            if sequence.is_some_and(|sequence| self.sequences.insert(sequence)) {
                kernel::wait(&device);
            }
        }
    }

    fn empty_batch(&self) -> Batch {
        let last = self.pending.last_key_value();
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        Batch {
            host: self.host.clone(),
            number: last.map_or(0, |(number, _)| number + 1),
            time_ms: time.map_or(0, |time| time.as_millis() as u64),
            new: self.watched.is_some(),
            news: Vec::new(),
            hidden: Vec::new(),
            sectors: Vec::new(),
        }
    }

    /// Reads all lists, and returns the new errors, if there are any. Reports disks that come and go, and lists that
    /// cannot be read.
    pub(super) fn read_lists(
        &mut self,
        regions: &[Region],
        report: Report<'_>,
    ) -> Result<Option<Batch>> {
        let mut batch = self.empty_batch();
        let mut disks = Vec::new();
        let mut listed = BTreeMap::new();
        let mut fails = BTreeSet::new();
        for region in regions {
            let memory = region.memory();
            let memory = memory.map_or_else(|_| region.name.clone(), |memory| memory.file_name());
            let known = self.known.entry(memory).or_default();
            for device in region.devices() {
                match snapshot(region, &device) {
                    Ok(Some(snapshot)) => {
                        disks.push(snapshot.disk.name().to_owned());
                        let mut news = known.news(
                            snapshot.sequence,
                            &snapshot.covers,
                            &snapshot.listed,
                            Instant::now(),
                        );
                        if let Some(cursor) = self.cursor.as_ref().filter(|_| !batch.new) {
                            news = cursor.news(snapshot.sequence, &news);
                        }
                        listed.insert(snapshot.sequence, snapshot.listed.clone());
                        if batch.new || self.now {
                            batch.add(&snapshot, &news);
                        }
                    }
                    Ok(None) => {}
                    // The device is being bound or unbound, and an event follows.
                    Err(_) if device.driver().is_none() => {}
                    Err(error) => {
                        fails.insert((device.name.to_string(), format!("{error:#}")));
                    }
                }
            }
            known.forget_gone(|sequence| listed.contains_key(&sequence));
        }
        if self.watched.as_ref() != Some(&disks) {
            let watching = Event::Watching {
                disks: disks.clone(),
            };
            report(&watching, None)?;
            self.watched = Some(disks);
        }
        for (disk, reason) in fails.difference(&self.failed) {
            let failed = Event::Failed {
                disk: disk.clone(),
                reason: reason.clone(),
            };
            report(&failed, None)?;
        }
        self.failed = fails;
        // Repaired sectors may become bad again before the cursor gets them.
        let pending = self.pending.values_mut().map(|one| &mut one.sectors);
        let reported = self.reported.iter_mut().map(|one| &mut one.sectors);
        for (disk, sectors) in pending.chain(reported).flatten() {
            *sectors = listed
                .get(disk)
                .map_or_else(BadBlocks::default, |listed| sectors.common(listed));
        }
        if let Some(cursor) = &mut self.cursor {
            cursor.keep(&listed);
            self.save_cursor();
        }
        let is_empty = batch.news.is_empty() && batch.hidden.is_empty();
        Ok((!is_empty).then_some(batch))
    }

    /// Remembers a batch that is searched for.
    pub(super) fn expect(&mut self, batch: &Batch, receipt: Receipt) {
        let first = PendingBatch {
            until: Some(Instant::now() + PROMPT),
            // With targets, the search must show first whether the error belongs to one.
            rest: match self.everything {
                true => batch.unattributed(),
                false => Vec::new(),
            },
            sectors: batch.sectors.clone(),
            receipt,
        };
        self.pending.insert(batch.number, first);
    }

    /// Handles the result of a search.
    pub(super) fn take(&mut self, answer: Answer, report: Report<'_>) -> Result<()> {
        let receipt = self.pending.get(&answer.number);
        let receipt = receipt.map(|one| one.receipt.clone());
        for event in &answer.done {
            report(event, receipt.as_ref())?;
        }
        if answer.rest.is_empty() {
            if let Some(complete) = self.pending.remove(&answer.number) {
                self.reported.push(ReportedBatch {
                    sectors: complete.sectors,
                    receipt: Arc::downgrade(&complete.receipt.0),
                });
            }
        } else if let Some(one) = self.pending.get_mut(&answer.number) {
            one.rest = answer.rest;
            // More is known than was reported.
            one.until.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Adds the batches that were handled to the cursor.
    pub(super) fn move_cursor(&mut self) {
        let reported = std::mem::take(&mut self.reported).into_iter();
        let (handled, reported) = reported.partition(|batch| batch.receipt.strong_count() == 0);
        self.reported = reported;
        let handled: Vec<ReportedBatch> = handled;
        if let Some(cursor) = &mut self.cursor {
            for (disk, sectors) in handled.iter().flat_map(|batch| &batch.sectors) {
                cursor.add(*disk, sectors);
            }
        }
        self.save_cursor();
    }

    /// Returns when the next batch is to be reported before it is complete.
    pub(super) fn next_report(&self) -> Option<Instant> {
        self.pending.values().filter_map(|one| one.until).min()
    }

    /// Reports batches that are not complete in time, with the known facts.
    pub(super) fn report_incomplete(&mut self, report: Report<'_>) -> Result<()> {
        let now = Instant::now();
        for one in self.pending.values_mut() {
            if one.until.is_some_and(|until| until <= now) {
                one.until = None;
                for event in &one.rest {
                    report(event, Some(&one.receipt))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn cursor_gets_a_batch_when_it_was_handled() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        let file = machine.folder.path().join("cursor.json");
        let cursor = || Cursor::read(&file, "b1".into());
        let mut monitor = Monitor::new(&machine.host, true, true, Some(cursor()));
        let regions = Region::all(&machine.host);
        let (woken, wake) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        let is_woken = || (&woken).read(&mut [0]).is_ok();
        let wake = Arc::new(wake);
        // The hook of the first one runs for some time.
        let mut kept = Vec::new();
        for (listed, repaired, saved) in [
            ("8 8", "8 8", "6152 8\n"),
            ("8 8\n64 8", "8 8\n64 1", "6152 8\n6208 1\n"),
        ] {
            machine.lists(listed);
            let report: Report<'_> = &mut |event, receipt| {
                if let Event::Failed { .. } = event {
                    kept.extend(receipt.cloned());
                }
                Ok(())
            };
            let batch = monitor.read_lists(&regions, report).unwrap().unwrap();
            monitor.expect(&batch, Receipt::new(&wake));
            let failed = Event::Failed {
                disk: "pmem0".into(),
                reason: String::new(),
            };
            let answer = Answer {
                number: batch.number,
                done: vec![failed],
                rest: Vec::new(),
            };
            monitor.take(answer, report).unwrap();
            machine.lists(repaired);
            assert!(monitor.read_lists(&regions, report).unwrap().is_none());
            monitor.move_cursor();
            let all: BadBlocks = saved.parse().unwrap();
            assert!(!cursor().news(12, &all).is_empty());
            assert!(!is_woken());
            kept.clear();
            assert!(is_woken());
            monitor.move_cursor();
            let more: BadBlocks = "6152 8\n6208 8\n".parse().unwrap();
            assert_eq!(cursor().news(12, &more), more.without(&all));
        }
    }
}
