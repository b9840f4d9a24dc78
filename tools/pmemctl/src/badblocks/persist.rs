// SPDX-License-Identifier: GPL-2.0

//! Saves and restores lists of errors.
//!
//! Saving replaces what is saved of a region part by part. A part whose list can be read, and had all saved errors
//! on it, is saved as the list has it; other parts stay as saved. A saved error that is not listed counts as
//! repaired only if the list had it, so saving first restores what a list has not had since the boot.

use crate::badblocks::kernel::{self, KernelList, ListLookup};
use crate::badblocks::origin::{Errors, Origin, SECTOR};
use crate::badblocks::seen::{Note, Seen};
use crate::badblocks::set::BadBlocks;
use crate::badblocks::store::{Refusal, Refused, SavedList, Store};
use crate::nd::region::Region;
use crate::nd::{Device, Name};
use crate::sysfs::{self, Host, printable};
use anyhow::{Context, Result, anyhow};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use units::PAGE;

pub const STATE_DIR: &str = "/var/lib/pmemctl";

/// The result of saving a region's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SaveOutcome {
    /// It is in the file.
    Saved,
    Unchanged,
    /// There is none, and no file.
    NoErrors,
    /// It is not in the file, or not all of it.
    Failed,
}

impl fmt::Display for SaveOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Saved => "saved",
            Self::Unchanged => "unchanged",
            Self::NoErrors => "no errors",
            Self::Failed => "failed",
        })
    }
}

/// The report of saving a region's list.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct SaveReport {
    pub region: String,
    pub disks: Vec<String>,
    pub memory: Option<String>,
    pub file: Option<String>,
    /// Bad sectors that are saved.
    pub bad_sectors: u64,
    /// Sectors that were not saved before.
    pub new_sectors: u64,
    /// Sectors that were saved and have been repaired.
    pub repaired_sectors: u64,
    /// Sectors that were put back on the kernel's lists.
    pub restored_sectors: u64,
    /// Whether the platform has a log, whose errors are not saved.
    pub has_log: bool,
    pub result: SaveOutcome,
    /// Warnings and errors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// The result of restoring a device's part of a saved list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreOutcome {
    /// It is on the kernel's list.
    Restored,
    ThereAlready,
    /// Nothing is saved of this memory.
    NothingSaved,
    /// The saved list is not to be trusted.
    Refused,
    /// It is not on the kernel's list, or not all of it.
    Failed,
}

impl fmt::Display for RestoreOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restored => "restored",
            Self::ThereAlready => "there already",
            Self::NothingSaved => "nothing saved",
            Self::Refused => "refused",
            Self::Failed => "failed",
        })
    }
}

/// The report of restoring a device's list.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct RestoreReport {
    pub disk: Option<String>,
    pub device: Name,
    pub file: Option<String>,
    /// Bad sectors of it that are saved.
    pub bad_sectors: u64,
    /// Sectors that were put back on its list.
    pub restored_sectors: u64,
    pub result: RestoreOutcome,
    /// Why the saved list was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Reasons for a failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// The kernel's name for the time since it started.
pub(crate) fn boot(host: &Host) -> Result<String> {
    sysfs::line(host.path("proc/sys/kernel/random/boot_id"))
        .filter(|id| !id.is_empty())
        .context("the kernel has no boot_id")
}

/// Returns whether a file system can't be written as long as it is read-only or full.
fn is_for_now(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        ReadOnlyFilesystem | StorageFull | QuotaExceeded
    )
}

/// Returns the saved sectors that the list lacks.
fn missing(saved: &SavedList, list: &KernelList, listed: &Errors) -> BadBlocks {
    let wanted = saved.errors.within(&list.covers).all();
    wanted.without(&listed.all())
}

/// Returns those of the `missing` sectors that the list has not had since the boot. What it has had, from an older copy, was
/// repaired.
fn never_listed(missing: &BadBlocks, seen: &Seen, list: &KernelList) -> BadBlocks {
    missing.without(&seen.had(list.sequence))
}

/// Takes the saved origins for errors that the list shows as restored, as known by the bus, or without origin.
fn named(listed: &Errors, known: &Errors) -> Errors {
    let vague = [Origin::RESTORED, Origin::UNKNOWN, Origin::LOG];
    let lists = vague.map(|origin| (origin, listed.from(origin)));
    let certain = vague
        .iter()
        .fold(listed.clone(), |all, origin| all.but(origin));
    let any: BadBlocks = lists
        .iter()
        .flat_map(|(_, list)| list.ranges())
        .cloned()
        .collect();
    let with_origin = known.common(&any);
    lists
        .iter()
        .map(|(origin, list)| Errors::of(origin, list.without(&with_origin.all())))
        .fold(certain.and(&with_origin), |all, rest| all.and(&rest))
}

/// Returns the listed sectors that an older copy of the saved list, that of an initramfs, has put there since the boot: they
/// were repaired before. None where a bad page would certainly stop this machine: they have to be read.
fn outdated(
    host: &Host,
    saved: &SavedList,
    seen: &Seen,
    list: &KernelList,
    listed: &Errors,
) -> BadBlocks {
    if !seen.has_older(list.sequence) || kernel::unsurvivable(host).is_some() {
        return BadBlocks::default();
    }
    listed.from(Origin::RESTORED).without(&saved.errors.all())
}

/// A copy in which `seen` is of this boot.
fn of_this_boot(saved: &SavedList, boot: &str) -> SavedList {
    let mut saved = saved.clone();
    if saved.boot != boot {
        saved.boot = boot.to_owned();
        saved.seen.clear();
    }
    saved
}

/// Saves the errors of a region.
pub fn save(region: &Region, folder: &Path) -> SaveReport {
    let mut report = SaveReport {
        region: region.name.clone(),
        disks: Vec::new(),
        memory: None,
        file: None,
        bad_sectors: 0,
        new_sectors: 0,
        repaired_sectors: 0,
        restored_sectors: 0,
        has_log: region.has_log(),
        result: SaveOutcome::NoErrors,
        reasons: Vec::new(),
    };
    if let Err(error) = try_save(region, folder, &mut report) {
        report.result = SaveOutcome::Failed;
        report.reasons.push(format!("{error:#}"));
    }
    report
}

/// Saves the errors of a region again if they were saved before. Returns warnings.
pub fn update(region: &Region, folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() || !folder.join(region.memory()?.file_name()).exists() {
        return Ok(Vec::new());
    }
    let report = save(region, folder);
    match report.result {
        SaveOutcome::Failed => Err(anyhow!("it stays saved: {}", report.reasons.join("; "))),
        _ => Ok(report.reasons),
    }
}

/// What is known from the file of a region's saved list.
enum Before {
    /// The list, and the disks that have had it.
    List(SavedList, Seen),
    /// There is none.
    Nothing,
    /// One that can't be used, and why.
    Refused(anyhow::Error),
}

fn try_save(region: &Region, folder: &Path, report: &mut SaveReport) -> Result<()> {
    let memory = region.memory()?;
    let boot = boot(region.host())?;
    report.memory = Some(memory.to_string());
    // Wait before locking the folder, because others may save meanwhile.
    for device in region.devices() {
        kernel::wait(&device);
    }
    let store = Store::make(folder)?;
    report.file = Some(printable(store.file(&memory)));
    let before = match store.load(&memory, region) {
        Ok(Some(saved)) => {
            let seen = Seen::new(region.host(), &boot, &saved);
            Before::List(saved, seen)
        }
        Ok(None) => Before::Nothing,
        Err(error) if error.is::<Refused>() => Before::Refused(error),
        Err(error) => return Err(error),
    };
    let none = SavedList::none(memory, region.size);
    let known = match &before {
        Before::List(saved, _) => saved,
        Before::Nothing | Before::Refused(_) => &none,
    };
    let mut saved = of_this_boot(known, &boot);
    if saved.id.is_empty() {
        saved.id = sysfs::line(region.host().path("proc/sys/kernel/random/uuid"))
            .context("the kernel makes no UUID")?;
    }

    let mut lists = Vec::new();
    let mut failed = false;
    for device in region.devices() {
        let done = KernelList::of(region, &device).and_then(|found| match found {
            ListLookup::List(list) => {
                report.disks.push(list.disk.name().to_owned());
                lists.push(list.clone());
                sync_with_list(&mut saved, &before, region, &list, report)
            }
            ListLookup::None(_) => Ok(()),
        });
        if let Err(error) = done {
            failed = true;
            report.reasons.push(format!("{}: {error:#}", device.name));
        }
    }
    saved
        .seen
        .retain(|seen| lists.iter().any(|list| list.sequence == *seen));
    if !report.has_log {
        // The parts without a list: memory without a driver, info blocks in front of the data.
        let covered: BadBlocks = lists.iter().map(|list| list.covers.clone()).collect();
        match others(region, &covered) {
            Ok(others) => {
                let others = others.without(&saved.errors.all());
                saved.errors = saved.errors.and(&Errors::of(Origin::LOG, others));
            }
            Err(error) => {
                failed = true;
                report.reasons.push(format!("{error:#}"));
            }
        }
    }

    let (old, new) = (known.errors.all(), saved.errors.all());
    report.bad_sectors = new.sectors();
    report.new_sectors = new.without(&old).sectors();
    report.repaired_sectors = old.without(&new).sectors();
    if old != new {
        saved.generation = saved.generation.saturating_add(1);
    }
    let is_empty = saved.errors.is_empty();
    report.result = match &before {
        Before::List(before, _) if *before == saved => SaveOutcome::Unchanged,
        Before::Nothing if is_empty => SaveOutcome::NoErrors,
        Before::List(..) | Before::Nothing => {
            store.save(&saved).with_context(|| printable(folder))?;
            SaveOutcome::Saved
        }
        // The next save has to know as well that it was refused.
        Before::Refused(why) if failed => {
            report.reasons.push(why.to_string());
            SaveOutcome::Failed
        }
        Before::Refused(why) => {
            let new = (!is_empty).then_some(&saved);
            let aside = store
                .replace_refused(&saved.memory, new)
                .with_context(|| format!("{why}; it cannot be replaced"))?;
            let aside = printable(&aside);
            report.reasons.push(format!("{why}; moved to {aside}"));
            match is_empty {
                true => SaveOutcome::NoErrors,
                false => SaveOutcome::Saved,
            }
        }
    };
    if failed {
        report.result = SaveOutcome::Failed;
    }
    Ok(())
}

/// Returns the sectors of the region's list that no device's list covers. The kernel shows no more than a page of it, so
/// it is not read where it has nothing to add.
fn others(region: &Region, covered: &BadBlocks) -> Result<BadBlocks> {
    let all: BadBlocks = std::iter::once(0..region.size / SECTOR).collect();
    if all.without(covered).is_empty() {
        return Ok(BadBlocks::default());
    }
    Ok(kernel::of_region(region)?.without(covered))
}

/// Restores the saved errors if the list has not had them; then takes over the list.
fn sync_with_list(
    saved: &mut SavedList,
    before: &Before,
    region: &Region,
    list: &KernelList,
    report: &mut SaveReport,
) -> Result<()> {
    let mut listed = list.read()?;
    if !saved.seen.contains(&list.sequence) {
        let unseen = match before {
            Before::List(_, seen) if !seen.has(list.sequence) => Some(seen),
            _ => None,
        };
        if let Some(seen) = unseen {
            let missing = never_listed(&missing(saved, list, &listed), seen, list);
            let outdated = outdated(region.host(), saved, seen, list, &listed);
            let mut note = seen.note(list.sequence);
            if !missing.is_empty() {
                // Nothing is restored without a note, or it could be restored again after each repair.
                note = Ok(note?);
                list.add(&missing, Origin::RESTORED)?;
            }
            list.drop_readable(&outdated, PAGE)?;
            if !missing.is_empty() || !outdated.is_empty() {
                listed = list.read()?;
            }
            report.restored_sectors += missing.sectors();
            if let Ok(note) = note {
                note.keep()?;
            }
        }
        saved.seen.push(list.sequence);
    }
    let covers = &list.covers;
    // A driver that is bound again takes all errors of the bus for the log's. Which of them were saved, a refused list can't say.
    if report.has_log && !matches!(before, Before::Refused(_)) {
        // A plain list has no origins; the region's list has the errors of the log.
        let log = match list.is_plain() {
            true => kernel::of_region(region)?.within(covers),
            false => listed.from(Origin::LOG),
        };
        listed = without_log(&listed, &log, &saved.errors);
    }
    saved.errors = with_part(&saved.errors, covers, &listed);
    Ok(())
}

/// Returns the errors that do not return by themselves: not in the log, or saved before the log had them.
fn without_log(listed: &Errors, log: &BadBlocks, known: &Errors) -> Errors {
    listed.without(&log.without(&known.all()))
}

/// Replaces a part of the known errors by its list.
fn with_part(known: &Errors, part: &Range<u64>, listed: &Errors) -> Errors {
    let covered: BadBlocks = [part.clone()].into_iter().collect();
    let now = named(listed, &known.within(part));
    known.without(&covered).and(&now)
}

/// Puts the saved errors of a device's memory back on its list. With `only_later`, a saved list is used only if it is a later
/// copy of one that the disk has had since the boot.
pub fn restore(host: &Host, device: &Device, folder: &Path, only_later: bool) -> RestoreReport {
    let mut report = RestoreReport {
        disk: device.disk().map(|disk| disk.name().to_owned()),
        device: device.name,
        file: None,
        bad_sectors: 0,
        restored_sectors: 0,
        result: RestoreOutcome::NothingSaved,
        refusal: None,
        reasons: Vec::new(),
    };
    if let Err(error) = try_restore(host, device, folder, only_later, &mut report) {
        let refused = error.downcast_ref::<Refused>();
        report.refusal = refused.map(|refused| refused.refusal);
        report.result = match refused {
            Some(_) => RestoreOutcome::Refused,
            None => RestoreOutcome::Failed,
        };
        report.reasons.push(format!("{error:#}"));
    }
    report
}

fn try_restore(
    host: &Host,
    device: &Device,
    folder: &Path,
    only_later: bool,
    report: &mut RestoreReport,
) -> Result<()> {
    let region = Region::find(host, device.name.region)
        .with_context(|| format!("there is no region{}", device.name.region))?;
    if Store::open(folder)?.is_none() {
        return Ok(());
    }
    let memory = region.memory()?;
    let boot = boot(host)?;
    // Wait before locking the folder, because others may restore meanwhile.
    if folder.join(memory.file_name()).exists() {
        kernel::wait(device);
    }
    let Some(store) = Store::open(folder)? else {
        return Ok(());
    };
    let saved = store.load(&memory, &region);
    if !matches!(saved, Ok(None)) {
        report.file = Some(printable(store.file(&memory)));
    }
    let Some(saved) = saved? else {
        return Ok(());
    };
    report.disk = device.disk().map(|disk| disk.name().to_owned());
    let list = match KernelList::of(&region, device)? {
        ListLookup::List(list) => list,
        ListLookup::None(reason) => {
            let bytes = device
                .namespace()
                .and_then(|name| region.bytes_of(&Device::find(host, name)?));
            let sectors = bytes.map_or(0..0, |bytes| kernel::sectors(&bytes));
            report.bad_sectors = saved.errors.within(&sectors).all().sectors();
            if report.bad_sectors == 0 {
                return Ok(());
            }
            anyhow::bail!(
                "{reason}; the {} bad sectors saved of it stay saved",
                report.bad_sectors
            );
        }
    };
    let mut now = of_this_boot(&saved, &boot);
    let seen = Seen::new(host, &boot, &saved);
    if only_later && !seen.has_older(list.sequence) {
        return Ok(());
    }
    let listed = list.read()?;
    let missing = missing(&saved, &list, &listed);
    report.bad_sectors = saved.errors.within(&list.covers).all().sectors();
    report.result = RestoreOutcome::ThereAlready;
    if now.seen.contains(&list.sequence) {
        if missing.is_empty() {
            return Ok(());
        }
        return Err(Refused {
            refusal: Refusal::Stale,
            reason: format!(
                "the saved list is stale: the disk has had all of it since this boot, and {} of its sectors have been repaired since; \"pmemctl errors save\" brings it up to date",
                missing.sectors()
            ),
        }
        .into());
    }
    if seen.has(list.sequence) {
        return Ok(());
    }
    let missing = never_listed(&missing, &seen, &list);
    let note = seen.note(list.sequence);
    if !missing.is_empty() {
        list.add(&missing, Origin::RESTORED)?;
        report.restored_sectors = missing.sectors();
        report.result = RestoreOutcome::Restored;
    }
    list.drop_readable(&outdated(host, &saved, &seen, &list, &listed), PAGE)?;
    now.seen.push(list.sequence);
    // The file says it as well.
    let noted = note.and_then(Note::keep);
    match store.save(&now) {
        // Early at boot the root is read-only; `save` records it later.
        Err(error) if is_for_now(&error) => noted,
        saved => saved.with_context(|| printable(folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::badblocks::origin::tests::some;
    use crate::nd::region::Memory;
    use crate::testing::{FakeSysfs, ID};
    use proptest::prelude::*;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    impl FakeSysfs {
        fn state(&self) -> PathBuf {
            self.folder.path().join("state")
        }

        fn file(&self) -> PathBuf {
            self.state().join("e820-20000000.json")
        }

        fn save(&self) -> SaveReport {
            save(&Region::find(&self.host, 0).unwrap(), &self.state())
        }

        fn restore(&self) -> RestoreReport {
            let device = Device::find(&self.host, "pfn0.0".parse().unwrap()).unwrap();
            restore(&self.host, &device, &self.state(), false)
        }

        fn refusal(&self) -> Option<Refusal> {
            let listed = fs::read(self.host.path("sys/block/pmem0/badblocks")).unwrap();
            let file = fs::read(self.file()).unwrap();
            let report = self.restore();
            let unchanged = fs::read(self.host.path("sys/block/pmem0/badblocks")).unwrap();
            assert_eq!(listed, unchanged);
            assert_eq!(file, fs::read(self.file()).unwrap());
            assert_eq!(
                report.result == RestoreOutcome::Refused,
                report.refusal.is_some()
            );
            report.refusal
        }

        fn saved(&self) -> SavedList {
            SavedList::from_text(&fs::read(self.file()).unwrap()).unwrap()
        }
    }

    #[test]
    fn folder_that_is_no_text_is_reported_with_escapes() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        let folder = machine.folder.path().join(OsStr::from_bytes(b"\xff"));
        let region = Region::find(&machine.host, 0).unwrap();
        let saved = serde_json::to_value(save(&region, &folder)).unwrap();
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let restored =
            serde_json::to_value(restore(&machine.host, &device, &folder, false)).unwrap();
        for report in [saved, restored] {
            let file = report["file"].as_str().unwrap();
            assert!(file.ends_with(r"/\xff/e820-20000000.json"), "{file}");
        }
    }

    #[test]
    fn saved_offsets_count_from_region() {
        let machine = FakeSysfs::new();
        assert_eq!(machine.save().result, SaveOutcome::NoErrors);
        assert!(!machine.file().exists());
        machine.lists("8 8");
        let report = machine.save();
        assert_eq!((report.result, report.new_sectors), (SaveOutcome::Saved, 8));
        // 3 MiB and 8 sectors.
        assert_eq!(machine.saved().errors.all().to_string(), "6152 8\n");
        assert_eq!(machine.save().result, SaveOutcome::Unchanged);
        assert_eq!(machine.restore().result, RestoreOutcome::ThereAlready);

        // The same memory by the exact list of the namespace.
        machine.write(
            "sys/devices/ndbus0/region0/pfn0.0/errors/list",
            "1052672 4096 machine-check\n0 4096 user",
        );
        assert_eq!(machine.save().new_sectors, 8);
        let saved = machine.saved().errors;
        assert_eq!(saved.from("machine-check").to_string(), "6152 8\n");
        assert_eq!(saved.from("user").to_string(), "4096 8\n");
    }

    #[test]
    fn repaired_error_is_forgotten() {
        let machine = FakeSysfs::new();
        machine.lists("8 8\n100 1");
        machine.save();
        machine.lists("8 8");
        assert_eq!(machine.refusal(), Some(Refusal::Stale));
        assert_eq!(machine.save().repaired_sectors, 1);
        assert_eq!(machine.restore().result, RestoreOutcome::ThereAlready);
    }

    #[test]
    fn repaired_error_is_not_restored_from_copy() {
        let machine = FakeSysfs::new();
        machine.lists("8 8\n16 8");
        machine.save();
        machine.write("proc/sys/kernel/random/boot_id", "boot-2");
        let copy = machine.folder.path().join("copy");
        fs::create_dir(&copy).unwrap();
        let file = copy.join("e820-20000000.json");
        fs::copy(machine.file(), &file).unwrap();
        assert_eq!(machine.restore().result, RestoreOutcome::ThereAlready);
        // Writes to this fake list have no effect, so a restore would fail.
        machine.lists("8 8");
        let region = Region::find(&machine.host, 0).unwrap();
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let restored = restore(&machine.host, &device, &copy, false);
        assert_eq!(restored.result, RestoreOutcome::ThereAlready);
        let before = fs::read(&file).unwrap();
        assert_eq!(save(&region, &copy).repaired_sectors, 8);

        // Nor from another list.
        let mut other = SavedList::from_text(&before).unwrap();
        other.errors = other.errors.within(&(6156..6168));
        fs::write(&file, other.to_text().unwrap()).unwrap();
        assert_eq!(
            restore(&machine.host, &device, &copy, false).result,
            RestoreOutcome::ThereAlready
        );

        // It has not had another error, or had this one in another boot.
        other.errors = other
            .errors
            .and(&Errors::of("user", std::iter::once(6244..6245).collect()));
        fs::write(&file, other.to_text().unwrap()).unwrap();
        assert_eq!(
            restore(&machine.host, &device, &copy, false).result,
            RestoreOutcome::Failed
        );
        fs::write(&file, &before).unwrap();
        machine.write("proc/sys/kernel/random/boot_id", "boot-3");
        assert_eq!(
            restore(&machine.host, &device, &copy, false).result,
            RestoreOutcome::Failed
        );
    }

    #[test]
    fn only_a_later_copy_is_used_if_that_is_asked_for() {
        let machine = FakeSysfs::new();
        machine.lists("8 8\n16 8");
        machine.save();
        let copy = machine.folder.path().join("copy");
        fs::create_dir(&copy).unwrap();
        let file = copy.join("e820-20000000.json");
        fs::copy(machine.file(), &file).unwrap();
        machine.lists("8 8");
        machine.save();
        machine.write("proc/sys/kernel/random/boot_id", "boot-2");
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let later = |folder: &Path| restore(&machine.host, &device, folder, true).result;
        assert_eq!(later(&machine.state()), RestoreOutcome::NothingSaved);
        machine.lists("8 8\n16 8");
        assert_eq!(
            restore(&machine.host, &device, &copy, false).result,
            RestoreOutcome::ThereAlready
        );
        assert_eq!(later(&machine.state()), RestoreOutcome::ThereAlready);

        // An older one, below a mount point for example; and another list.
        machine.lists("8 8");
        assert_eq!(later(&copy), RestoreOutcome::NothingSaved);
        let mut other = machine.saved();
        other.id = ID.replace('1', "2");
        other.generation += 1;
        fs::write(&file, other.to_text().unwrap()).unwrap();
        assert_eq!(later(&copy), RestoreOutcome::NothingSaved);
    }

    #[test]
    fn restored_error_stays_listed_when_saved_list_is_damaged() {
        let machine = FakeSysfs::new();
        // A bad page would not stop it.
        machine.write("sys/devices/system/machinecheck/machinecheck0/bank0", "1");
        machine.lists("8 8");
        machine.save();
        machine.write("proc/sys/kernel/random/boot_id", "boot-2");
        assert_eq!(machine.restore().result, RestoreOutcome::ThereAlready);
        let list = "sys/devices/ndbus0/region0/pfn0.0/errors/list";
        machine.write(list, "1052672 4096 restored");
        fs::write(machine.file(), "x").unwrap();
        let report = machine.save();
        assert_eq!(report.result, SaveOutcome::Saved, "{report:?}");
        assert_eq!(machine.saved().errors.all().to_string(), "6152 8\n");
    }

    #[test]
    fn nothing_is_restored_by_save_without_note() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        machine.save();
        machine.write("proc/sys/kernel/random/boot_id", "boot-2");
        machine.write("run/pmemctl", "no folder");
        machine.lists("");
        let report = machine.save();
        assert!(report.reasons[0].contains("run/pmemctl"), "{report:?}");
        // What needs no note is saved.
        machine.lists("8 8\n16 8");
        assert_eq!(machine.save().result, SaveOutcome::Saved);
    }

    #[test]
    fn unrestored_error_stays_saved() {
        for change in [
            ("proc/sys/kernel/random/boot_id", "boot-2"),
            ("sys/block/pmem0/diskseq", "13"),
        ] {
            let machine = FakeSysfs::new();
            machine.lists("8 8");
            machine.save();
            machine.write(change.0, change.1);
            // Writes to this fake list have no effect.
            machine.lists("");
            assert_eq!(machine.restore().result, RestoreOutcome::Failed);
            assert_eq!(machine.save().result, SaveOutcome::Failed);
            assert_eq!(machine.saved().errors.all().to_string(), "6152 8\n");
        }
    }

    #[test]
    fn unusable_list_is_refused() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        machine.save();
        let good = fs::read(machine.file()).unwrap();
        let next = |machine: &FakeSysfs| {
            machine.write("proc/sys/kernel/random/boot_id", "boot-2");
            fs::write(machine.file(), &good).unwrap();
        };
        fs::write(machine.file(), &good[..good.len() / 2]).unwrap();
        assert_eq!(machine.refusal(), Some(Refusal::Damaged));
        fs::write(machine.file(), "").unwrap();
        assert_eq!(machine.refusal(), Some(Refusal::Damaged));
        next(&machine);
        machine.write("etc/machine-id", &ID.replace('0', "1"));
        assert_eq!(machine.refusal(), Some(Refusal::OtherMemory));
        machine.write("etc/machine-id", ID);
        machine.write("sys/devices/ndbus0/region0/size", "134217728");
        assert_eq!(machine.refusal(), Some(Refusal::OtherSize));
        machine.write("sys/devices/ndbus0/region0/size", "67108864");
        assert_eq!(machine.restore().result, RestoreOutcome::ThereAlready);

        // An unusable list is kept when the next one is saved.
        fs::write(machine.file(), "x").unwrap();
        let report = machine.save();
        assert_eq!(report.result, SaveOutcome::Saved);
        assert!(report.reasons[0].contains("moved to"), "{report:?}");
        let aside = machine.state().join("e820-20000000.json.refused");
        assert_eq!(fs::read(aside).unwrap(), b"x");

        // And stays where a disk could not be read, whose errors it may have had.
        fs::write(machine.file(), "y").unwrap();
        machine.write("sys/block/pmem0/badblocks", "no list");
        assert_eq!(machine.save().result, SaveOutcome::Failed);
        assert_eq!(fs::read(machine.file()).unwrap(), b"y");
    }

    #[test]
    fn device_without_list_keeps_saved_errors() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        machine.save();
        let listed = machine.host.path("sys/block/pmem0/badblocks");
        fs::remove_file(&listed).unwrap();
        let report = machine.restore();
        assert_eq!(
            (report.result, report.bad_sectors),
            (RestoreOutcome::Failed, 8)
        );
        assert!(report.reasons[0].contains("stay saved"), "{report:?}");
        assert_ne!(machine.save().result, SaveOutcome::Failed);
        assert_eq!(machine.saved().errors.all().to_string(), "6152 8\n");
    }

    #[test]
    fn partial_file_is_removed_after_crash() {
        let machine = FakeSysfs::new();
        fs::create_dir(machine.state()).unwrap();
        let half = machine.state().join(".new-Xy12Z0");
        fs::write(&half, "{").unwrap();
        machine.lists("8 8");
        assert_eq!(machine.save().result, SaveOutcome::Saved);
        assert!(!half.exists());
        // The list and the lock.
        assert_eq!(fs::read_dir(machine.state()).unwrap().count(), 2);
    }

    #[test]
    fn missing_machine_id_is_reported() {
        let machine = FakeSysfs::new();
        for id in [
            "",
            "uninitialized",
            "00000000000000000000000000000000",
            "12",
        ] {
            machine.write("etc/machine-id", id);
            assert_eq!(machine.save().result, SaveOutcome::Failed, "{id}");
        }
        let board = "4C4C4544-0038-3510-8056-B4C04F4A3533";
        machine.write("sys/class/dmi/id/product_uuid", board);
        assert_eq!(machine.save().result, SaveOutcome::NoErrors);
    }

    #[test]
    fn platform_log_is_not_saved() {
        let machine = FakeSysfs::new();
        let commands = "ars_cap ars_start ars_status clear_error";
        machine.write("sys/devices/ndbus0/commands", commands);
        // The bus lists 3 MiB and 8 sectors; the other error was added by hand.
        machine.write("sys/devices/ndbus0/region0/badblocks", "6152 8");
        machine.lists("8 8\n100 1");
        let report = machine.save();
        assert!(report.has_log);
        assert_eq!(machine.saved().errors.all().to_string(), "6244 1\n");
        // A saved error stays saved when the bus lists it.
        machine.write(
            "sys/devices/ndbus0/region0/badblocks",
            "6152 8\n6244 1\n9000 1",
        );
        machine.lists("8 8\n100 1\n2856 1");
        assert_eq!(machine.save().result, SaveOutcome::Unchanged);
    }

    #[test]
    fn errors_of_a_refused_list_are_saved_although_the_bus_has_them() {
        let machine = FakeSysfs::new();
        let commands = "ars_cap ars_start ars_status clear_error";
        machine.write("sys/devices/ndbus0/commands", commands);
        machine.write("sys/devices/ndbus0/region0/badblocks", "6152 8");
        let list = "sys/devices/ndbus0/region0/pfn0.0/errors/list";
        machine.write(list, "1052672 4096 user");
        assert_eq!(machine.save().new_sectors, 8);
        // As after a bind.
        machine.write(list, "1052672 4096 log");
        assert_eq!(machine.save().result, SaveOutcome::Unchanged);
        fs::write(machine.file(), "x").unwrap();
        assert_eq!(machine.save().result, SaveOutcome::Saved);
        assert_eq!(machine.saved().errors.all().to_string(), "6152 8\n");
    }

    #[test]
    fn changes_of_a_list_are_counted() {
        let machine = FakeSysfs::new();
        let count = |text: &str| {
            machine.lists(text);
            machine.save();
            let SavedList { id, generation, .. } = machine.saved();
            (id, generation)
        };
        let (id, first) = count("8 8");
        assert_eq!(count("8 8"), (id.clone(), first));
        assert_eq!(count("8 8\n100 1"), (id.clone(), first + 1));
        assert_eq!(count("8 8"), (id.clone(), first + 2));
        // Another list.
        fs::write(machine.file(), "x").unwrap();
        machine.write("proc/sys/kernel/random/uuid", "another");
        assert_eq!(count("8 8"), ("another".to_owned(), first));
    }

    #[test]
    fn restore_on_a_full_file_system_succeeds() {
        for (kind, is_fine) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::QuotaExceeded, true),
            (io::ErrorKind::ReadOnlyFilesystem, true),
            (io::ErrorKind::PermissionDenied, false),
        ] {
            assert_eq!(is_for_now(&kind.into()), is_fine, "{kind}");
        }
    }

    #[test]
    fn region_list_that_is_cut_off_hides_no_list_of_a_device() {
        let machine = FakeSysfs::new();
        let cut_off = &"1000000 512\n".repeat(342)[..4094];
        machine.write("sys/devices/ndbus0/region0/badblocks", cut_off);
        machine.write(
            "sys/devices/ndbus0/region0/pfn0.0/errors/list",
            "1052672 4096 machine-check",
        );
        // The rest of the region may have errors that cannot be seen.
        assert_eq!(machine.save().result, SaveOutcome::Failed);
        assert_eq!(machine.saved().errors.all().to_string(), "6152 8\n");

        // There is no rest: the region's list is not read.
        let namespace = "sys/devices/ndbus0/region0/namespace0.0";
        machine.write(&format!("{namespace}/resource"), "0x20000000");
        machine.write(&format!("{namespace}/size"), "67108864");
        machine.write(
            "sys/devices/ndbus0/region0/pfn0.0/errors/list",
            "3149824 4096 machine-check",
        );
        assert_eq!(machine.save().result, SaveOutcome::Unchanged);
    }

    #[test]
    fn bus_errors_without_disk_are_saved() {
        let machine = FakeSysfs::new();
        machine.write(
            "sys/devices/ndbus0/region0/badblocks",
            "0 8\n6152 8\n100000 8",
        );
        machine.lists("8 8");
        machine.save();
        let wanted = "0 8\n6152 8\n100000 8\n";
        assert_eq!(machine.saved().errors.all().to_string(), wanted);
    }

    #[test]
    fn memory_identity_by_provider() {
        let machine = FakeSysfs::new();
        let region = || Region::find(&machine.host, 0).unwrap();
        let place = region().memory().unwrap();
        assert_eq!(place.file_name(), "e820-20000000.json");

        machine.write("sys/devices/ndbus0/provider", "ACPI.NFIT");
        machine.write("sys/devices/ndbus0/region0/mappings", "2");
        machine.write("sys/devices/ndbus0/region0/mapping0", "nmem3,4096,1000,1");
        machine.write("sys/devices/ndbus0/region0/mapping1", "nmem2,8192,1000,0");
        // Without ids the address identifies the memory.
        assert!(matches!(region().memory().unwrap(), Memory::Place { .. }));
        machine.write("sys/bus/nd/devices/nmem2/nfit/id", "8089-a2-1837-00000bc0");
        machine.write("sys/bus/nd/devices/nmem3/nfit/id", "8089-a2-1837-00000bc1");
        let dimms = region().memory().unwrap();
        assert_eq!(dimms.file_name(), "nfit-8089-a2-1837-00000bc0-2000.json");
        let Memory::Dimms { pieces } = &dimms else {
            panic!("{dimms}")
        };
        // In interleave order.
        assert_eq!(pieces[1].device, "8089-a2-1837-00000bc1");
        assert_eq!(pieces[1].start, 4096);
        for unknown in [
            "8089-a2-1837-00000000",
            "8089-ffffffff",
            "8089-a2-1837-00000bc0",
        ] {
            machine.write("sys/bus/nd/devices/nmem3/nfit/id", unknown);
            let memory = region().memory().unwrap();
            assert!(matches!(memory, Memory::Place { .. }), "{unknown}");
        }

        machine.write("sys/devices/ndbus0/provider", "CXL");
        machine.write("sys/bus/nd/devices/nmem2/cxl/id", "1");
        machine.write("sys/bus/nd/devices/nmem3/cxl/id", "2");
        assert!(region().memory().is_err());
        machine.write("sys/bus/cxl/devices/region7/resource", "0x20000000");
        let uuid = "5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a11";
        machine.write("sys/bus/cxl/devices/region7/uuid", uuid);
        let cxl = region().memory().unwrap();
        assert_eq!(cxl.file_name(), format!("cxl-{uuid}.json"));
    }

    proptest! {
        #[test]
        fn covered_part_follows_list_rest_stays(
            known in some(), listed in some(), start in 0_u64..150, length in 1_u64..100
        ) {
            let part = start..start + length;
            let listed = listed.within(&part);
            let after = with_part(&known, &part, &listed);
            let covered: BadBlocks = [part.clone()].into_iter().collect();
            prop_assert_eq!(after.within(&part).all(), listed.all());
            prop_assert_eq!(after.without(&covered), known.without(&covered));
            // Origins are kept, or become known; saving once more changes nothing.
            let once_more = with_part(&after, &part, &listed);
            prop_assert_eq!(once_more, after);
        }

        #[test]
        fn only_platform_log_is_left_out(known in some(), listed in some()) {
            let log = listed.from(Origin::LOG);
            let kept = without_log(&listed, &log, &known);
            prop_assert_eq!(kept.all(), listed.all().without(&log.without(&known.all())));
        }
    }
}
