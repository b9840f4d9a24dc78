// SPDX-License-Identifier: GPL-2.0

//! Bad blocks, and lists of them that cannot be read.

use crate::affected::{Survey, Target};
use crate::badblocks::kernel::DiskErrors;
use crate::badblocks::origin::SECTOR;
use crate::badblocks::set::BadBlocks;
use crate::block::devno::DeviceNumber;
use crate::block::topology;
use crate::doctor::{Doctor, Finding, Prevents, Scope};
use crate::sysfs::{self, printable};
use std::ops::Range;

/// The places of listed errors: the number of bytes and of ranges.
#[derive(Default)]
struct ErrorCount {
    bytes: u64,
    ranges: usize,
}

impl ErrorCount {
    fn add(&mut self, lengths: impl Iterator<Item = u64>) {
        for length in lengths {
            self.bytes += length;
            self.ranges += 1;
        }
    }
}

impl Doctor<'_> {
    /// Reports the errors that are listed for the scope, and lists that cannot be read.
    pub(super) fn errors(&mut self, survey: &Survey) {
        let number = self.scope.number();
        for errors in &survey.disks {
            let device = errors.device.as_ref();
            let is_asked = match self.scope {
                Scope::All => true,
                Scope::Namespace(name) => device.is_some_and(|device| {
                    device.name == *name || device.namespace() == Some(*name)
                }),
                Scope::Volume(number) | Scope::File(_, number) => {
                    topology::disks_below(self.host, *number).contains(errors.disk.name())
                }
            };
            if !is_asked {
                continue;
            }
            let is_whole = number.is_none_or(|number| number == errors.disk.whole.number);
            let mut count = ErrorCount::default();
            let lengths = |range: &Range<u64>| (range.end - range.start) * SECTOR;
            if is_whole && self.scope.file().is_none() {
                let lists = errors.bad.iter().chain(&errors.outside);
                count.add(lists.flat_map(BadBlocks::ranges).map(lengths));
            }
            // A driver without any list is no finding.
            let has_list = errors.disk.whole.folder.join("badblocks").exists();
            if let Some(reason) = errors.why_unknown().filter(|_| has_list) {
                self.found(Finding::new(
                    errors.disk.name(),
                    "errors-unknown",
                    Prevents::Reads,
                    format!("its bad blocks are unknown: {reason}"),
                    "repair the listed blocks; with rust_pmem, errors/list has all of them",
                ));
            }
            self.found_errors(errors.disk.name().to_owned(), &count);
        }
        let mut count = ErrorCount::default();
        let place = match (self.scope, number) {
            (Scope::File(path, _), _) => {
                let entries = survey.file(path).unwrap_or_default();
                count.add(entries.iter().map(|entry| entry.span.length));
                printable(path)
            }
            (_, Some(number)) => {
                let is_disk = |errors: &DiskErrors| errors.disk.whole.number == number;
                if !survey.disks.iter().any(is_disk) {
                    let affected = survey.affected.iter();
                    let affected =
                        affected.filter(|(_, affected)| affected.chain.contains(&number));
                    let spans = affected.flat_map(|(_, affected)| affected.spans.iter());
                    count.add(spans.map(|span| span.length));
                }
                self.volume_name(number)
            }
            (_, None) => return,
        };
        self.found_errors(place, &count);
        self.unknown_errors(survey);
    }

    /// Reports that the lists of the disks below the scope do not show all of its errors. Those that can't be read are reported
    /// for the disks.
    fn unknown_errors(&mut self, survey: &Survey) {
        let (target, number) = match self.scope {
            Scope::File(path, number) => (Target::File(path.clone()), *number),
            Scope::Volume(number) => (Target::Device(*number), *number),
            _ => return,
        };
        let below = topology::disks_below(self.host, number);
        let of_scope = |errors: &&DiskErrors| below.contains(errors.disk.name());
        let mut disks = survey.disks.iter().filter(of_scope).peekable();
        if disks.peek().is_none() || disks.any(|errors| errors.why_unknown().is_some()) {
            return;
        }
        if let Some(reason) = survey.unknown(&target, number) {
            let name = match self.scope.file() {
                Some(path) => printable(path),
                None => self.volume_name(number),
            };
            self.found(Finding::new(
                name,
                "errors-unknown",
                Prevents::Reads,
                format!("its bad blocks are unknown: {reason}"),
                "pmemctl errors shows what is listed of the disk",
            ));
        }
    }

    fn volume_name(&self, number: DeviceNumber) -> String {
        let device = self.host.path("sys/dev/block").join(number.to_string());
        sysfs::link_name(device).unwrap_or_else(|| number.to_string())
    }

    fn found_errors(&mut self, place: String, count: &ErrorCount) {
        if count.ranges > 0 {
            self.found(Finding::new(
                place,
                "bad-blocks",
                Prevents::Reads,
                format!(
                    "{} bytes in {} ranges are listed as bad",
                    count.bytes, count.ranges
                ),
                "pmemctl errors names the files; pmemctl repair restores a file from a backup",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Report;
    use crate::nd::Device;

    fn errors_of(machine: &crate::testing::FakeSysfs, scope: &Scope) -> Vec<Finding> {
        let disk = crate::block::disk::Disk::find(&machine.host, "pmem0").unwrap();
        let mut errors = disk.errors();
        errors.device = Device::find(&machine.host, "pfn0.0".parse().unwrap());
        let mut doctor = Doctor {
            host: &machine.host,
            scope,
            try_files: false,
            seen: true,
            path: Vec::new(),
            report: Report::default(),
        };
        doctor.errors(&Survey::made_up(&machine.host, vec![errors]));
        doctor.report.findings
    }

    #[test]
    fn bad_blocks_are_reported() {
        let machine = crate::testing::FakeSysfs::new();
        let namespace = |name: &str| Scope::Namespace(name.parse().unwrap());
        assert_eq!(errors_of(&machine, &Scope::All), []);
        machine.lists("8 8\n64 1");
        for scope in [Scope::All, namespace("pfn0.0"), namespace("namespace0.0")] {
            let found = errors_of(&machine, &scope);
            assert_eq!(found.len(), 1, "{scope:?}");
            assert_eq!(
                (found[0].place.as_str(), found[0].cause, found[0].prevents),
                ("pmem0", "bad-blocks", Prevents::Reads)
            );
            assert_eq!(
                found[0].evidence,
                "4608 bytes in 2 ranges are listed as bad"
            );
        }
        assert_eq!(errors_of(&machine, &namespace("pfn1.0")), []);
        machine.lists(&"1000000 512\n".repeat(350));
        let found = errors_of(&machine, &Scope::All);
        assert_eq!(found[0].cause, "errors-unknown");
    }
}
