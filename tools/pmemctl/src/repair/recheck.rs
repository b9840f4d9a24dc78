// SPDX-License-Identifier: GPL-2.0

//! Reads listed ranges again. Those that can be read are taken off the lists, unless another copy differs.

use crate::badblocks::kernel::unsurvivable;
use crate::badblocks::origin::Origin;
use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::block::topology;
use crate::ranges::Ranges;
use crate::repair::job::Job;
use crate::repair::listed::ListedRange;
use crate::repair::target::part;
use crate::repair::{Comparison, RepairRange};
use crate::sysfs::Host;
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
        let piece = RepairRange::kept(range, size);
        let mut buffer = DirectBuffer::new(range.length as usize);
        let lost = self.job.read_device(&piece, &range.range(), &mut buffer)?;
        let data = range.file_offset..size.clamp(range.file_offset, range.range().end);
        let kept = lost.gaps(&data).without(&self.unwritten.within(&data));
        for copied in kept.without(&cached.missing).iter() {
            let bytes = part(&mut cached.bytes, range.file_offset, copied);
            if bytes == part(&mut buffer, range.file_offset, copied) {
                continue;
            }
            // Off the list, it can be written.
            if !self.may_write || target.write_cached(bytes, copied.start).is_err() {
                return Ok(Readable::Outdated);
            }
            part(&mut buffer, range.file_offset, copied).copy_from_slice(bytes);
        }
        let Some(backup) = &self.job.backup else {
            return Ok(Readable::Good);
        };
        let mut compared = Comparison::default();
        for kept in kept.iter() {
            let bytes = part(&mut buffer, range.file_offset, kept);
            backup.compare(kept.start, bytes, &mut compared)?;
        }
        // What the backup lacks, or can't be read there, is not the same.
        Ok(match compared.same < kept.count() {
            true => Readable::Different,
            false => Readable::Good,
        })
    }
}

/// Reads listed ranges by `drop_readable`, which takes bytes of a disk off its list, and the parts of ranges in them, and
/// returns true if they can be read.
fn read_listed(
    listed: &[ListedRange],
    mut drop_readable: impl FnMut(&str, &Range<u64>, &[ListedRange]) -> Result<bool>,
) -> Result<()> {
    // A page is read once, whatever is listed of it: unmapped pages come back as a whole only.
    let mut pages: BTreeMap<(String, u64), Vec<ListedRange>> = BTreeMap::new();
    for range in listed {
        for (page, part) in range.pages() {
            let parts = pages.entry((range.disk.clone(), page)).or_default();
            parts.push(part);
        }
    }
    for ((disk, page), parts) in pages {
        if drop_readable(&disk, &(page * PAGE..(page + 1) * PAGE), &parts)? {
            continue;
        }
        for part in parts.iter().filter(|part| part.length < PAGE) {
            drop_readable(&disk, &part.on_disk(), std::slice::from_ref(part))?;
        }
    }
    Ok(())
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

/// Takes what can be read off the exact lists of the disks, unless it differs from another copy.
pub(super) fn drop_readable(
    host: &Host,
    listed: &[ListedRange],
    copies: &dyn Copies,
) -> Result<Recheck> {
    let mut lists = BTreeMap::new();
    for name in listed.iter().map(|range| &range.disk) {
        if !lists.contains_key(name) {
            let disk = Disk::find(host, name).with_context(|| format!("{name} has gone"))?;
            let list = disk.exact_list();
            ensure!(
                list.is_some(),
                "{name}: its driver has no exact list, by which it can be proven that a listed range is bad; to replace \
                 what is listed without that, use --trust-list"
            );
            if let Some(why) = unsurvivable(host) {
                bail!(
                    "{name}: what is listed is not read, because a bad page would stop this machine: {why}; to replace it \
                     without that, use --trust-list"
                );
            }
            lists.insert(name.clone(), (list, disk.size().bytes()));
        }
    }
    let mut found = Recheck::default();
    let mut failure = None;
    let read = read_listed(listed, |name, bytes, parts| {
        let Some((Some(list), size)) = lists.get(name) else {
            return Ok(false);
        };
        let cached: Vec<_> = parts
            .iter()
            .map(|part| copies.look(part))
            .collect::<Result<_>>()?;
        // No signal leaves a page off the list that was not compared.
        let _whole = BlockedSignals::new()?;
        if !list.drop_readable(&(bytes.start..bytes.end.min(*size)))? {
            return Ok(false);
        }
        for (part, cached) in parts.iter().zip(cached) {
            // What can't be compared is listed again as well.
            let is = copies.compare(part, cached).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                Readable::Different
            });
            if is != Readable::Good {
                if let Err(error) = list.add(&part.on_disk(), Origin::RESTORED) {
                    failure.get_or_insert(error);
                }
            }
            match is {
                Readable::Good => found.good.push(part.clone()),
                Readable::Different => found.different.push(part.clone()),
                Readable::Outdated => {}
            }
        }
        Ok(true)
    });
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
        let error = drop_readable(&machine.host, &[listed(4096, 0, 4096)], &NoCopies).unwrap_err();
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
        let error = drop_readable(&machine.host, &[listed(4096, 0, 4096)], &NoCopies).unwrap_err();
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

    /// The ranges that are kept if what is in `bad` can't be read, and the number of reads.
    fn kept(ranges: &[ListedRange], bad: &[Range<u64>]) -> (Vec<ListedRange>, usize) {
        let mut reads = 0;
        let mut found = Vec::new();
        let read = read_listed(ranges, |_, bytes, parts| {
            reads += 1;
            let can = !bad.iter().any(|bad| common(bad, bytes).is_some());
            if can {
                found.extend_from_slice(parts);
            }
            Ok(can)
        });
        read.unwrap();
        (merge(found), reads)
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
    fn error_other_than_a_bad_block_ends_the_search() {
        let ranges = [listed(4096, 0, 512)];
        assert!(read_listed(&ranges, |_, _, _| bail!("no memory")).is_err());
    }
}
