// SPDX-License-Identifier: GPL-2.0

//! Saving lists of errors, and restoring them.
//!
//! What is saved of a region replaces what was saved of it before, part by part: a part whose list
//! can be read, and has had on it all that was saved, is as that list says; what is saved of any
//! other part is kept. So that nothing is taken for healed that was only not restored yet, saving
//! restores first what a list has not had.

use crate::badlist::BadList;
use crate::errors::{Errors, Origin};
use crate::host::{self, Host, printable};
use crate::list::{self, Found, List};
use crate::nd::{Device, Name};
use crate::region::Region;
use crate::saved::{Refusal, Refused, Saved, Store};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where lists are saved.
pub const FOLDER: &str = "/var/lib/pmemctl";

/// How long a driver may take to show its list, once its disk is there.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a region's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// It is in the file.
    Saved,
    /// It was there before.
    Unchanged,
    /// There is none, and no file.
    NoErrors,
    /// It is not in the file, or not all of it.
    Failed,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Saved => "saved",
            Self::Unchanged => "unchanged",
            Self::NoErrors => "no errors",
            Self::Failed => "failed",
        })
    }
}

/// How the saving of a region's list went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SaveReport {
    /// The region.
    pub region: String,
    /// The disks whose lists were read.
    pub disks: Vec<String>,
    /// Whose errors they are.
    pub memory: Option<String>,
    /// Where they are saved.
    pub file: Option<PathBuf>,
    /// Bad sectors that are saved.
    pub bad_sectors: u64,
    /// Those that were not saved before.
    pub new_sectors: u64,
    /// Those that were, and are healed.
    pub healed_sectors: u64,
    /// Those that were put on the kernel's lists at this occasion.
    pub restored_sectors: u64,
    /// Whether the platform keeps a log of its own, so that what that has is not saved.
    pub has_log: bool,
    /// How it went.
    pub result: Kept,
    /// What is not as wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// What became of a device's part of a saved list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restored {
    /// It is on the kernel's list.
    Restored,
    /// It was there before.
    ThereAlready,
    /// Nothing is saved of this memory.
    NothingSaved,
    /// The saved list is not to be trusted.
    Refused,
    /// It is not on the kernel's list, or not all of it.
    Failed,
}

impl fmt::Display for Restored {
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

/// How the restoring of a device's list went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// Its disk.
    pub disk: Option<String>,
    /// The device.
    pub device: Name,
    /// The file.
    pub file: Option<PathBuf>,
    /// Bad sectors of it that are saved.
    pub bad_sectors: u64,
    /// Those of them that were put on its list.
    pub restored_sectors: u64,
    /// How it went.
    pub result: Restored,
    /// Why the saved list was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Why it went so, where it is not as wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// The kernel's name for the time since it started.
fn boot(host: &Host) -> Result<String> {
    host::line(host.path("proc/sys/kernel/random/boot_id"))
        .filter(|id| !id.is_empty())
        .context("the kernel has no boot_id")
}

/// What is not on the list of what is saved.
fn missing(saved: &Saved, list: &List, listed: &Errors) -> BadList {
    let wanted = saved.errors.within(&list.covers).all();
    wanted.without(&listed.all())
}

/// With the origins that were known before, where the list has none, or says no more than that it
/// was restored.
fn named(listed: &Errors, known: &Errors) -> Errors {
    let mut all = listed.clone();
    for origin in [Origin::RESTORED, Origin::UNKNOWN] {
        let vague = listed.from(origin);
        let told = known.common(&vague);
        let rest = Errors::of(origin, vague.without(&told.all()));
        all = all.but(origin).and(&told).and(&rest);
    }
    all
}

/// A copy in which `seen` is of this boot.
fn of_this_boot(saved: &Saved, boot: &str) -> Saved {
    let mut saved = saved.clone();
    if saved.boot != boot {
        saved.boot = boot.to_owned();
        saved.seen.clear();
    }
    saved
}

/// Saves what is known of a region's errors.
pub fn save(region: &Region, folder: &Path) -> SaveReport {
    let mut report = SaveReport {
        region: region.name.clone(),
        disks: Vec::new(),
        memory: None,
        file: None,
        bad_sectors: 0,
        new_sectors: 0,
        healed_sectors: 0,
        restored_sectors: 0,
        has_log: region.has_log(),
        result: Kept::NoErrors,
        reasons: Vec::new(),
    };
    if let Err(error) = try_save(region, folder, &mut report) {
        report.result = Kept::Failed;
        report.reasons.push(format!("{error:#}"));
    }
    report
}

fn try_save(region: &Region, folder: &Path, report: &mut SaveReport) -> Result<()> {
    let memory = region.memory()?;
    let boot = boot(region.host())?;
    report.memory = Some(memory.to_string());
    let store = Store::make(folder)?;
    report.file = Some(store.file(&memory));
    let before = match store.load(&memory, region) {
        Ok(before) => before,
        Err(error) if error.is::<Refused>() => {
            let aside = store.put_aside(&memory)?;
            let aside = printable(&aside);
            report
                .reasons
                .push(format!("{error}; it is put aside: {aside}"));
            None
        }
        Err(error) => return Err(error),
    };
    let none = Saved::none(memory, region.size);
    let known = before.as_ref().unwrap_or(&none);
    let mut saved = of_this_boot(known, &boot);

    let of_region = list::of_region(region)?;
    let mut lists = Vec::new();
    let mut failed = false;
    for device in region.devices() {
        let done = List::of(region, &device).and_then(|found| match found {
            Found::List(list) => {
                report.disks.push(list.disk.name().to_owned());
                lists.push(list.clone());
                bring_together(&mut saved, &list, &of_region, report)
            }
            Found::None(_) => Ok(()),
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
        // Where no device has a list: memory without a driver, info blocks in front of the data.
        let covered: BadList = lists.iter().map(|list| list.covers.clone()).collect();
        let others = of_region.without(&covered).without(&saved.errors.all());
        saved.errors = saved.errors.and(&Errors::of(Origin::LOG, others));
    }

    let (old, new) = (known.errors.all(), saved.errors.all());
    report.bad_sectors = new.sectors();
    report.new_sectors = new.without(&old).sectors();
    report.healed_sectors = old.without(&new).sectors();
    report.result = match &before {
        None if saved.errors.is_empty() => Kept::NoErrors,
        Some(before) if *before == saved => Kept::Unchanged,
        _ => {
            store.save(&saved).with_context(|| printable(folder))?;
            Kept::Saved
        }
    };
    if failed {
        report.result = Kept::Failed;
    }
    Ok(())
}

/// Puts on the list what is saved, if that was not there yet; then saved is what is listed.
fn bring_together(
    saved: &mut Saved,
    list: &List,
    of_region: &BadList,
    report: &mut SaveReport,
) -> Result<()> {
    let mut listed = list.read()?;
    if !saved.seen.contains(&list.sequence) {
        let missing = missing(saved, list, &listed);
        if !missing.is_empty() {
            list.add(&missing, Origin::RESTORED)?;
            listed = list.read()?;
        }
        report.restored_sectors += missing.sectors();
        saved.seen.push(list.sequence);
    }
    if report.has_log {
        // The log's own, which a plain list does not tell from others; the region's list does.
        let own = if list.is_plain() {
            of_region.clone()
        } else {
            listed.from(Origin::LOG)
        };
        listed = listed.without(&own);
    }
    let covered: BadList = [list.covers.clone()].into_iter().collect();
    let now = named(&listed, &saved.errors.within(&list.covers));
    saved.errors = saved.errors.without(&covered).and(&now);
    Ok(())
}

/// Puts on a device's list what is saved of its memory.
pub fn restore(host: &Host, device: &Device, folder: &Path) -> RestoreReport {
    let mut report = RestoreReport {
        disk: device.disk().map(|disk| disk.name().to_owned()),
        device: device.name,
        file: None,
        bad_sectors: 0,
        restored_sectors: 0,
        result: Restored::NothingSaved,
        refusal: None,
        reasons: Vec::new(),
    };
    if let Err(error) = try_restore(host, device, folder, &mut report) {
        let refused = error.downcast_ref::<Refused>();
        report.refusal = refused.map(|refused| refused.refusal);
        report.result = match refused {
            Some(_) => Restored::Refused,
            None => Restored::Failed,
        };
        report.reasons.push(format!("{error:#}"));
    }
    report
}

fn try_restore(
    host: &Host,
    device: &Device,
    folder: &Path,
    report: &mut RestoreReport,
) -> Result<()> {
    let region = Region::find(host, device.name.region)
        .with_context(|| format!("there is no region{}", device.name.region))?;
    if Store::open(folder)?.is_none() {
        return Ok(());
    }
    let memory = region.memory()?;
    let boot = boot(host)?;
    // Not with the folder locked: others may have something to restore meanwhile.
    if folder.join(memory.file_name()).exists() {
        list::wait(device, PATIENCE);
    }
    let Some(store) = Store::open(folder)? else {
        return Ok(());
    };
    let Some(saved) = store.load(&memory, &region)? else {
        return Ok(());
    };
    report.file = Some(store.file(&memory));
    report.disk = device.disk().map(|disk| disk.name().to_owned());
    let list = match List::of(&region, device)? {
        Found::List(list) => list,
        Found::None(reason) => {
            let bytes = device
                .namespace()
                .and_then(|name| region.bytes_of(&Device::find(host, name)?));
            let sectors = bytes.map_or(0..0, |bytes| bytes.start / 512..bytes.end / 512);
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
    let missing = missing(&saved, &list, &list.read()?);
    report.bad_sectors = saved.errors.within(&list.covers).all().sectors();
    report.result = Restored::ThereAlready;
    if now.seen.contains(&list.sequence) {
        if missing.is_empty() {
            return Ok(());
        }
        return Err(Refused {
            refusal: Refusal::Stale,
            reason: format!(
                "the saved list is stale: the disk has had all of it since this boot, and {} of its sectors are healed now; \"pmemctl save\" brings it up to date",
                missing.sectors()
            ),
        }
        .into());
    }
    if !missing.is_empty() {
        list.add(&missing, Origin::RESTORED)?;
        report.restored_sectors = missing.sectors();
        report.result = Restored::Restored;
    }
    now.seen.push(list.sequence);
    match store.save(&now) {
        // Early at boot, when the root can't be written yet: then `save` notes it.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        saved => saved.with_context(|| printable(folder)),
    }
}
