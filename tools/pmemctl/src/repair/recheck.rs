// SPDX-License-Identifier: GPL-2.0

//! Reads listed ranges again. Those that can be read are taken off the lists, unless another copy differs.

use crate::badblocks::kernel::{self, ExactList, unsurvivable};
use crate::badblocks::origin::{Origin, SECTOR};
use crate::badblocks::set::BadBlocks;
use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::block::topology;
use crate::ranges::Ranges;
use crate::repair::job::Job;
use crate::repair::listed::ListedRange;
use crate::repair::target::part;
use crate::repair::{Comparison, RepairRange};
use crate::sysfs::Host;
use crate::throttle::Throttle;
use abstractions::DirectBuffer;
use abstractions::process::BlockedSignals;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use units::PAGE;

/// What a listed range that can be read is, compared with other copies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    Good,
    /// The backup differs.
    Different,
    /// The page cache differs, as a write of it has failed, and fails again.
    Outdated,
}

/// What the page cache has of a listed range.
pub(super) struct Cached {
    bytes: DirectBuffer,
    /// It does not have these.
    missing: Ranges,
}

/// Copies of the contents of listed ranges.
pub(super) trait Copies {
    /// Reads the page cache, while the range is listed: later, it would be filled from the memory.
    fn look(&self, range: &ListedRange) -> Result<Cached>;

    /// Compares a range that can be read, and is not listed any more, with the copies.
    fn compare(&self, range: &ListedRange, cached: Cached) -> Result<Readable>;
}

/// The page cache and the backup of a repair.
pub(super) struct CopiesOf<'a> {
    pub(super) job: &'a Job,
    /// Ranges of the file that read as zeros, whatever is in memory.
    pub(super) unwritten: Ranges,
    /// What the page cache has may be written.
    pub(super) may_write: bool,
}

/// What was listed and can be read.
#[derive(Debug, Default)]
pub(super) struct Recheck {
    /// It is off the lists.
    pub(super) good: Vec<ListedRange>,
    /// It is listed again, because the backup differs.
    pub(super) different: Vec<ListedRange>,
}

impl Copies for CopiesOf<'_> {
    fn look(&self, range: &ListedRange) -> Result<Cached> {
        let mut bytes = DirectBuffer::new(range.length as usize);
        let missing = self.job.read_page_cache(&range.range(), &mut bytes)?;
        Ok(Cached { bytes, missing })
    }

    fn compare(&self, range: &ListedRange, mut cached: Cached) -> Result<Readable> {
        let target = &self.job.target;
        let size = target.size();
        // The device is read in whole blocks.
        let before = range.file_offset % target.block_size;
        let mut blocks = RepairRange::kept(range, size);
        blocks.file_offset -= before;
        blocks.physical -= before;
        blocks.length = (before + range.length).next_multiple_of(target.block_size);
        let start = blocks.file_offset;
        let mut buffer = DirectBuffer::new(blocks.length as usize);
        let lost = self
            .job
            .read_device(&blocks, &blocks.range(), &mut buffer)?;
        let data = range.file_offset..size.clamp(range.file_offset, range.range().end);
        let unwritten = self.unwritten.within(&data);
        for zeros in unwritten.iter() {
            part(&mut buffer, start, zeros).fill(0);
        }
        let readable = lost.gaps(&data);
        let mut kept = readable.without(&unwritten);
        for copied in readable.without(&cached.missing).iter() {
            let bytes = part(&mut cached.bytes, range.file_offset, copied);
            if bytes == part(&mut buffer, start, copied) {
                continue;
            }
            // Off the list, it can be written; in an unwritten extent, the repair has to look at its neighbours before.
            let may = self.may_write && unwritten.within(copied).is_empty();
            if !may {
                return Ok(Readable::Outdated);
            }
            part(&mut buffer, start, copied).copy_from_slice(bytes);
            let one = [copied.clone()].into_iter().collect();
            target.ensure_alone()?;
            let written = target.write_buffered(&one, range.file_offset, &mut cached.bytes);
            let restored = target.restore_capabilities();
            if written.is_err() || restored.is_err() {
                return Ok(Readable::Outdated);
            }
            // It is written now.
            kept.insert(copied.clone());
        }
        let Some(backup) = &self.job.backup else {
            return Ok(Readable::Good);
        };
        let mut compared = Comparison::default();
        for kept in kept.iter() {
            let bytes = part(&mut buffer, start, kept);
            backup.compare(kept.start, bytes, &mut compared)?;
        }
        // What the backup lacks, or can't be read there, is not the same.
        Ok(match compared.same < kept.count() {
            true => Readable::Different,
            false => Readable::Good,
        })
    }
}

/// The lists that have the ranges, and the memory.
trait Lists {
    /// Returns whether all that is listed in a page of a disk is in `own`.
    fn has_only(&mut self, disk: &str, page: &Range<u64>, own: &Ranges) -> Result<bool>;

    /// Takes bytes of a disk off its list, and the parts of ranges in them, and returns true if they can be read.
    fn drop_readable(
        &mut self,
        disk: &str,
        bytes: &Range<u64>,
        parts: &[ListedRange],
    ) -> Result<bool>;
}

/// Reads listed ranges of a file; with `by_sectors`, each sector of those that can't be read as a whole.
///
/// A page is read once, whatever is listed of it: unmapped pages come back as a whole only. But what is listed for another file
/// is not compared with its copies, so it stays listed, and only the parts are read then.
fn read_listed(listed: &[ListedRange], by_sectors: bool, lists: &mut dyn Lists) -> Result<()> {
    let mut pages: BTreeMap<(String, u64), Vec<ListedRange>> = BTreeMap::new();
    for range in listed {
        for (page, part) in range.pages() {
            let parts = pages.entry((range.disk.clone(), page)).or_default();
            parts.push(part);
        }
    }
    for ((disk, page), parts) in pages {
        let page = page * PAGE..(page + 1) * PAGE;
        // Parts of the file that share a block are one range of the disk.
        let own: Ranges = parts.iter().map(ListedRange::on_disk).collect();
        let whole = lists.has_only(&disk, &page, &own)?;
        if whole && lists.drop_readable(&disk, &page, &parts)? {
            continue;
        }
        for range in own.iter() {
            let tried = whole && *range == page;
            if !tried && lists.drop_readable(&disk, range, &parts_in(&parts, range))? {
                continue;
            }
            if !by_sectors || range.end - range.start <= SECTOR {
                continue;
            }
            for at in (range.start..range.end).step_by(SECTOR as usize) {
                let sector = at..at + SECTOR;
                lists.drop_readable(&disk, &sector, &parts_in(&parts, &sector))?;
            }
        }
    }
    Ok(())
}

/// Returns the parts of listed ranges in bytes of their disk.
fn parts_in(listed: &[ListedRange], bytes: &Range<u64>) -> Vec<ListedRange> {
    let parts = listed.iter().filter_map(|range| range.on(bytes));
    parts.collect()
}

/// Returns the ranges in the order of the file, with those that are next to each other everywhere as one.
fn merge(mut found: Vec<ListedRange>) -> Vec<ListedRange> {
    found.sort_by_key(|part| part.file_offset);
    let mut merged: Vec<ListedRange> = Vec::new();
    for part in found {
        match merged.last_mut() {
            Some(last)
                if last.disk == part.disk
                    && last.file_offset + last.length == part.file_offset
                    && last.disk_offset + last.length == part.disk_offset =>
            {
                last.length += part.length;
            }
            _ => merged.push(part),
        }
    }
    merged
}

/// A disk with an exact list.
struct Listed {
    disk: Disk,
    list: ExactList,
    /// What it has, and the time of reading it: each page asks, and it may have 100,000 errors.
    bad: BadBlocks,
    reads: Throttle,
}

impl Listed {
    fn of(disk: Disk, list: ExactList) -> Result<Self> {
        let mut reads = Throttle::default();
        Ok(Self {
            bad: reads.time(|| disk.bad())?,
            reads,
            disk,
            list,
        })
    }

    /// Returns whether all that is listed in bytes of the disk is in `own`.
    fn has_only(&mut self, range: &Range<u64>, own: &Ranges) -> Result<bool> {
        if own.gaps(range).is_empty() {
            return Ok(true);
        }
        if self.reads.is_due() {
            self.bad = self.reads.time(|| self.disk.bad())?;
        }
        let bad = self.bad.within(&kernel::sectors(range));
        let is_own = |bad: &Range<u64>| own.gaps(&kernel::bytes(bad)).is_empty();
        Ok(bad.ranges().all(is_own))
    }
}

/// The lists of the disks, and what was found.
struct KernelLists<'a> {
    listed: BTreeMap<String, Listed>,
    copies: &'a dyn Copies,
    found: Recheck,
    /// The first failure after which a range was listed again, or was not.
    failure: Option<anyhow::Error>,
}

impl Lists for KernelLists<'_> {
    fn has_only(&mut self, disk: &str, page: &Range<u64>, own: &Ranges) -> Result<bool> {
        let Some(listed) = self.listed.get_mut(disk) else {
            return Ok(false);
        };
        let end = page.end.min(listed.disk.size().bytes());
        listed.has_only(&(page.start..end), own)
    }

    fn drop_readable(
        &mut self,
        disk: &str,
        bytes: &Range<u64>,
        parts: &[ListedRange],
    ) -> Result<bool> {
        let Some(Listed { disk, list, .. }) = self.listed.get(disk) else {
            return Ok(false);
        };
        let look = |part| self.copies.look(part);
        let cached: Vec<_> = parts.iter().map(look).collect::<Result<_>>()?;
        // No signal leaves a page off the list that was not compared.
        let _whole = BlockedSignals::new()?;
        let end = bytes.end.min(disk.size().bytes());
        if !list.drop_readable(&(bytes.start..end))? {
            return Ok(false);
        }
        for (part, cached) in parts.iter().zip(cached) {
            // What can't be compared is listed again as well.
            let is = self.copies.compare(part, cached).unwrap_or_else(|error| {
                self.failure.get_or_insert(error);
                Readable::Different
            });
            if is != Readable::Good {
                if let Err(error) = list.add(&part.on_disk(), Origin::RESTORED) {
                    self.failure.get_or_insert(error);
                }
            }
            match is {
                Readable::Good => self.found.good.push(part.clone()),
                Readable::Different => self.found.different.push(part.clone()),
                Readable::Outdated => {}
            }
        }
        Ok(true)
    }
}

/// Takes what can be read off the exact lists of the disks, unless it differs from another copy; with `by_sectors`, sectors of a
/// page that can't be read as a whole as well.
pub(super) fn drop_readable(
    host: &Host,
    listed: &[ListedRange],
    by_sectors: bool,
    copies: &dyn Copies,
) -> Result<Recheck> {
    let mut lists = KernelLists {
        listed: BTreeMap::new(),
        copies,
        found: Recheck::default(),
        failure: None,
    };
    for name in listed.iter().map(|range| &range.disk) {
        if !lists.listed.contains_key(name) {
            let disk = Disk::find(host, name).with_context(|| format!("{name} has gone"))?;
            let list = disk.exact_list().with_context(|| {
                format!(
                    "{name}: its driver has no exact list, by which it can be proven that a listed range is bad; to replace \
                     what is listed without that, use --trust-list"
                )
            })?;
            if let Some(why) = unsurvivable(host) {
                bail!(
                    "{name}: what is listed is not read, because a bad page would stop this machine: {why}; to replace it \
                     without that, use --trust-list"
                );
            }
            lists.listed.insert(name.clone(), Listed::of(disk, list)?);
        }
    }
    let read = read_listed(listed, by_sectors, &mut lists);
    let KernelLists { found, failure, .. } = lists;
    if let Some(error) = failure {
        return Err(error);
    }
    read?;
    Ok(Recheck {
        good: merge(found.good),
        different: merge(found.different),
    })
}

/// Fails if a disk of the volume may have errors that are not listed.
pub(super) fn ensure_complete(host: &Host, number: DeviceNumber) -> Result<()> {
    for name in topology::disks_below(host, number) {
        let disk = Disk::find(host, &name).with_context(|| format!("{name} has gone"))?;
        // Only disks of persistent memory have such a list.
        if disk.owner().is_some() {
            ensure!(
                !disk.may_lack_errors()?,
                "the list of {name} is nearly full and may lack errors; to repair the listed ranges, use --trust-list"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranges::common;
    use crate::repair::listed::tests::listed;
    use std::fs;
    use std::slice::from_ref;

    #[test]
    fn without_an_exact_list_nothing_is_proven() {
        let machine = crate::testing::FakeSysfs::new();
        let error =
            drop_readable(&machine.host, &[listed(4096, 0, 4096)], true, &NoCopies).unwrap_err();
        assert!(error.to_string().contains("--trust-list"), "{error}");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn cpu_that_cannot_recover_reads_no_poison() {
        let machine = crate::testing::FakeSysfs::with_nested_disk();
        let list = "sys/devices/ndbus0/region0/pfn0.0/errors/list";
        machine.write(list, "1052672 4096 log");
        machine.write("sys/devices/system/machinecheck/machinecheck0/bank0", "1");
        machine.write(
            "proc/cpuinfo",
            "vendor_id\t: AuthenticAMD\nflags\t\t: fpu mce",
        );
        let error =
            drop_readable(&machine.host, &[listed(4096, 0, 4096)], true, &NoCopies).unwrap_err();
        assert!(error.to_string().contains("succor"), "{error}");
        let text = fs::read_to_string(machine.host.path(list)).unwrap();
        assert_eq!(text, "1052672 4096 log\n");
    }

    struct NoCopies;

    impl Copies for NoCopies {
        fn look(&self, _: &ListedRange) -> Result<Cached> {
            bail!("there is no page cache")
        }

        fn compare(&self, _: &ListedRange, _: Cached) -> Result<Readable> {
            Ok(Readable::Good)
        }
    }

    /// Lists on which bytes of other files are as well, and memory of which some can't be read.
    struct FakeLists {
        others: Ranges,
        bad: Ranges,
        /// What was read.
        reads: Vec<Range<u64>>,
        found: Vec<ListedRange>,
    }

    impl Lists for FakeLists {
        fn has_only(&mut self, _: &str, page: &Range<u64>, own: &Ranges) -> Result<bool> {
            assert!(
                own.iter()
                    .all(|own| common(own, page).as_ref() == Some(own))
            );
            Ok(self.others.within(page).is_empty())
        }

        fn drop_readable(
            &mut self,
            _: &str,
            bytes: &Range<u64>,
            parts: &[ListedRange],
        ) -> Result<bool> {
            self.reads.push(bytes.clone());
            self.others.remove(bytes);
            let can = self.bad.within(bytes).is_empty();
            if can {
                self.found.extend_from_slice(parts);
            }
            Ok(can)
        }
    }

    fn read(ranges: &[ListedRange], by_sectors: bool, lists: &mut FakeLists) -> Vec<ListedRange> {
        read_listed(ranges, by_sectors, lists).unwrap();
        merge(std::mem::take(&mut lists.found))
    }

    /// The ranges that are kept if what is in `bad` can't be read, and the number of reads.
    fn kept(ranges: &[ListedRange], bad: &[Range<u64>]) -> (Vec<ListedRange>, usize) {
        let mut lists = FakeLists {
            others: Ranges::default(),
            bad: bad.iter().cloned().collect(),
            reads: Vec::new(),
            found: Vec::new(),
        };
        let found = read(ranges, true, &mut lists);
        (found, lists.reads.len())
    }

    #[test]
    fn listed_page_that_can_be_read_is_kept() {
        let ranges = [listed(1 << 20, 0, 3 * 4096), listed(8 << 20, 65536, 512)];
        assert_eq!(kept(&ranges, &[]), (ranges.to_vec(), 4));
        // Only a bad page is replaced.
        let bad = (1 << 20) + 4096..(1 << 20) + 8192;
        let (found, _) = kept(&ranges, &[bad]);
        assert_eq!(
            found,
            [
                listed(1 << 20, 0, 4096),
                listed((1 << 20) + 8192, 8192, 4096),
                listed(8 << 20, 65536, 512)
            ]
        );
        let (found, _) = kept(&ranges, from_ref(&(0..u64::MAX)));
        assert_eq!(found, []);
    }

    #[test]
    fn sector_beside_a_bad_one_is_kept() {
        let ranges = [listed(4096, 0, 512), listed(5120, 1024, 512)];
        let (found, reads) = kept(&ranges, from_ref(&(5120..5632)));
        assert_eq!((found.as_slice(), reads), (&ranges[..1], 3));
    }

    #[test]
    fn good_sectors_of_a_bad_page_are_kept() {
        let page = listed(4096, 0, 4096);
        let (found, reads) = kept(from_ref(&page), from_ref(&(5120..5632)));
        assert_eq!(found, [listed(4096, 0, 1024), listed(5632, 1536, 2560)]);
        assert_eq!(reads, 1 + 8);
        // Larger blocks can only be read and written as a whole.
        let mut lists = FakeLists {
            others: Ranges::default(),
            bad: from_iter(5120..5632),
            reads: Vec::new(),
            found: Vec::new(),
        };
        assert_eq!(read(&[page], false, &mut lists), []);
        assert_eq!(lists.reads, from_ref(&(4096..8192)));
    }

    #[test]
    fn what_is_listed_for_another_file_stays_listed() {
        let ranges = [listed(4096, 0, 1024), listed(6144, 1024, 1024)];
        let mut lists = FakeLists {
            others: from_iter(5120..6144),
            bad: from_iter(6144..6656),
            reads: Vec::new(),
            found: Vec::new(),
        };
        let found = read(&ranges, true, &mut lists);
        assert_eq!(found, [listed(4096, 0, 1024), listed(6656, 1536, 512)]);
        assert_eq!(lists.others, from_iter(5120..6144));
    }

    #[test]
    fn parts_of_a_file_that_share_a_block_are_read_once() {
        let ranges = [listed(4096, 0, 512), listed(4096, 8192, 512)];
        let mut lists = FakeLists {
            others: from_iter(7680..8192),
            bad: Ranges::default(),
            reads: Vec::new(),
            found: Vec::new(),
        };
        assert_eq!(read(&ranges, true, &mut lists), ranges);
        assert_eq!(lists.reads, from_ref(&(4096..4608)));
    }

    #[test]
    fn other_errors_in_a_page_are_found() {
        let machine = crate::testing::FakeSysfs::with_nested_disk();
        let list = "sys/devices/ndbus0/region0/pfn0.0/errors/list";
        // The data begins 1 MiB behind the start of the namespace.
        let lists = |text: &str| {
            machine.write(list, text);
            let disk = Disk::find(&machine.host, "pmem0").unwrap();
            let exact = disk.exact_list().unwrap();
            Listed::of(disk, exact).unwrap()
        };
        let page = 4096..8192;
        let own = from_iter(4096..5120);
        let mut alone = lists("1048576 4096 user\n1052672 1024 user\n1056768 512 user");
        assert!(alone.has_only(&page, &own).unwrap());
        let mut others = lists("1052672 1024 user\n1054720 512 user");
        assert!(!others.has_only(&page, &own).unwrap());
        assert!(others.has_only(&page, &from_iter(page.clone())).unwrap());
        // A report that came later.
        alone.reads = Throttle::default();
        assert!(!alone.has_only(&page, &own).unwrap());
    }

    fn from_iter(range: Range<u64>) -> Ranges {
        [range].into_iter().collect()
    }

    #[test]
    fn error_other_than_a_bad_block_ends_the_search() {
        struct Fails;

        impl Lists for Fails {
            fn has_only(&mut self, _: &str, _: &Range<u64>, _: &Ranges) -> Result<bool> {
                Ok(true)
            }

            fn drop_readable(
                &mut self,
                _: &str,
                _: &Range<u64>,
                _: &[ListedRange],
            ) -> Result<bool> {
                bail!("no memory")
            }
        }

        let ranges = [listed(4096, 0, 512)];
        assert!(read_listed(&ranges, true, &mut Fails).is_err());
    }
}
