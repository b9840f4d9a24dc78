// SPDX-License-Identifier: GPL-2.0

//! The kernel's lists of errors.
//!
//! Each bound device may have a list for the part of the region that it covers. The region has a read-only list of
//! its own, which the bus fills from its badrange list.

use crate::badblocks::origin::{Errors, Origin, SECTOR};
use crate::badblocks::set::{self, BadBlocks};
use crate::block::disk::Disk;
use crate::nd::region::Region;
use crate::nd::{Device, Kind};
use crate::sysfs::{self, Host, Store};
use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Sectors of an entry of `badblocks`, at most.
const LONGEST: u64 = 512;
/// The number of entries for which `badblocks` always has room.
const SHOWN: u64 = 200;

/// A list that can be read and added to.
#[derive(Debug, Clone)]
pub struct KernelList {
    pub device: Device,
    pub disk: Disk,
    /// The number that the kernel gave the disk, and gives no other until the next boot.
    pub sequence: u64,
    /// Sectors of the region that the list covers completely.
    pub covers: Range<u64>,
    form: ListFormat,
}

#[derive(Debug, Clone)]
enum ListFormat {
    /// `errors/list`: bytes of the namespace, with origins. Only these sectors of the region, the disk's data, can be read through
    /// it: none in sector mode.
    Exact(PathBuf, Range<u64>),
    /// `badblocks`: sectors of the disk.
    Plain,
}

/// The result of looking for a device's list.
#[derive(Debug)]
pub enum ListLookup {
    List(KernelList),
    None(&'static str),
}

/// How long a driver may take to create its list after the disk has appeared.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until the driver's probe is over, and with it the device's files are there.
///
/// The disk is announced while its driver still sets it up; its exact list comes last. A driver that
/// has no such list is waited for in vain.
pub fn wait(device: &Device) {
    let end = Instant::now() + PROBE_TIMEOUT;
    while device.driver().as_deref() == Some("rust_pmem")
        && !device.errors_list().exists()
        && Instant::now() < end
    {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the sectors of which all bytes are in the range.
pub fn sectors(bytes: &Range<u64>) -> Range<u64> {
    bytes.start.div_ceil(SECTOR)..bytes.end / SECTOR
}

impl KernelList {
    /// The list of a device of the region.
    pub fn of(region: &Region, device: &Device) -> Result<ListLookup> {
        let Some(disk) = device.disk() else {
            return Ok(ListLookup::None(match device.name.kind {
                Kind::Dax => "device DAX has no list",
                _ => "it has no disk",
            }));
        };
        let namespace = device
            .namespace()
            .and_then(|name| Device::find(region.host(), name))
            .context("it has no namespace")?;
        let whole = region
            .bytes_of(&namespace)
            .context("its namespace does not lie in its region")?;
        let data = || {
            // `resource` of a device that claims the namespace is the start of its data.
            let start = sysfs::number(device.folder().join("resource"))
                .context("it does not say where its data begins")?;
            region
                .bytes(start, disk.size().bytes())
                .filter(|data| data.end <= whole.end && data.start >= whole.start)
                .context("its disk does not lie in its namespace")
        };
        let file = device.errors_list();
        let (form, covers) = if file.exists() {
            let readable = match device.name.kind {
                Kind::Btt => 0..0,
                _ => data().map_or(0..0, |data| sectors(&data)),
            };
            (ListFormat::Exact(file, readable), whole)
        } else if device.driver().as_deref() == Some("rust_pmem") {
            bail!("rust_pmem has not made its list yet; try again");
        } else if disk.whole.folder.join("badblocks").exists() {
            (ListFormat::Plain, data()?)
        } else {
            return Ok(ListLookup::None(
                "its disk has no list, as in sector mode with nd_pmem",
            ));
        };
        Ok(ListLookup::List(Self {
            device: device.clone(),
            sequence: disk.sequence().context("its disk has gone")?,
            disk,
            covers: sectors(&covers),
            form,
        }))
    }

    /// Reads the list, in sectors of the region. Fails if the disk was replaced by another one of its name.
    pub fn read(&self) -> Result<Errors> {
        let errors = match &self.form {
            ListFormat::Exact(file, _) => sysfs::whole(file)
                .map_err(anyhow::Error::from)
                .and_then(|text| Ok(text.parse::<Errors>()?))
                .with_context(|| file.display().to_string())?,
            ListFormat::Plain => Errors::of(Origin::UNKNOWN, self.disk.bad()?),
        };
        ensure!(
            self.disk.is_there(),
            "{}: the disk has gone",
            self.disk.name()
        );
        Ok(errors.moved_up(self.covers.start).within(&self.covers))
    }

    /// Adds sectors of the region, which must be covered. Verifies that a plain list, which may have no room, has them then.
    pub fn add(&self, bad: &BadBlocks, origin: &str) -> Result<()> {
        let own = bad.moved_down(self.covers.start);
        match &self.form {
            ListFormat::Exact(file, _) => {
                let list = self.disk.open_list(file)?;
                for range in own.ranges() {
                    let (offset, length) = offset_and_length(range);
                    let command = format!("add {offset} {length} {origin}");
                    list.store(&command)
                        .with_context(|| format!("{}: {command}", file.display()))?;
                }
            }
            ListFormat::Plain => {
                self.disk.add_bad(&own)?;
                let left = bad.without(&self.read()?.all()).sectors();
                if left != 0 {
                    bail!(
                        "{left} of {} sectors are not on the list; if they were not repaired meanwhile, run it again",
                        bad.sectors()
                    );
                }
            }
        }
        Ok(())
    }

    /// Reads sectors of the region in pieces of `size` bytes, and takes the pieces off an exact list that can be read. The driver
    /// reads only data of the disk, so other sectors stay listed.
    pub fn drop_readable(&self, bad: &BadBlocks, size: u64) -> Result<()> {
        let ListFormat::Exact(file, readable) = &self.form else {
            return Ok(());
        };
        let list = self.disk.open_list(file)?;
        let bad = bad.within(readable).moved_down(self.covers.start);
        for part in bad
            .ranges()
            .flat_map(|sectors| pieces(sectors, size / SECTOR))
        {
            let (offset, length) = offset_and_length(&part);
            drop_by(file, &format!("{offset} {length}"), |command| {
                list.store(command)
            })?;
        }
        Ok(())
    }

    /// Whether it knows no origins.
    pub fn is_plain(&self) -> bool {
        matches!(self.form, ListFormat::Plain)
    }
}

/// The errors of a disk and of its namespace.
#[derive(Debug)]
pub struct DiskErrors {
    pub disk: Disk,
    /// Its device of the `nd` bus.
    pub device: Option<Device>,
    /// The bad sectors of the disk, or why they are unknown.
    pub bad: Result<BadBlocks, String>,
    /// Bad sectors of the namespace that are not of the disk, from the start of the namespace, or why they are unknown.
    pub outside: Result<BadBlocks, String>,
}

impl DiskErrors {
    /// Returns whether errors outside of the disk's data may affect a file on the disk.
    fn depends_on_outside(&self) -> bool {
        let depends = |device: &Device| match device.name.kind {
            Kind::Btt => true,
            // `struct page`s on the device.
            Kind::Pfn => sysfs::line(device.folder().join("mode")).as_deref() == Some("pmem"),
            Kind::Namespace | Kind::Dax => false,
        };
        self.device.as_ref().is_some_and(depends)
    }

    /// Returns whether a file on the disk may be affected by the errors outside.
    pub fn outside_affects_files(&self) -> bool {
        let has_errors = self.outside.as_ref().is_ok_and(|bad| !bad.is_empty());
        has_errors && self.depends_on_outside()
    }

    /// Returns why there may be more errors that affect files on the disk.
    pub fn why_unknown(&self) -> Option<&str> {
        let outside = || {
            let reason = self.outside.as_ref().err();
            reason.filter(|_| self.depends_on_outside())
        };
        let reason = self.bad.as_ref().err().or_else(outside);
        reason.map(String::as_str)
    }
}

/// The exact list of a disk, through which memory is read past the CPU caches.
#[derive(Debug)]
pub struct ExactList {
    disk: Disk,
    file: PathBuf,
    /// Where the data of the disk begins in the namespace.
    data: u64,
}

impl ExactList {
    /// Returns the range as commands name it: offset and length.
    fn operands(&self, bytes: &Range<u64>) -> Result<String> {
        let offset = self.data.checked_add(bytes.start);
        let offset = offset.context("a number is too large")?;
        Ok(format!("{offset} {}", bytes.end - bytes.start))
    }

    /// Puts whole sectors of the disk on the list.
    pub fn add(&self, bytes: &Range<u64>, origin: &str) -> Result<()> {
        let command = format!("add {} {origin}", self.operands(bytes)?);
        let list = self.disk.open_list(&self.file)?;
        list.store(&command)
            .with_context(|| format!("{}: {command}", self.file.display()))
    }

    /// Reads whole sectors of the disk; takes them off the list and returns true if they can be read.
    pub fn drop_readable(&self, bytes: &Range<u64>) -> Result<bool> {
        let list = self.disk.open_list(&self.file)?;
        drop_by(&self.file, &self.operands(bytes)?, |command| {
            list.store(command)
        })
    }
}

/// Returns why a bad page would stop this machine, where it is certain. The reaction of a hypervisor is not known.
pub fn unsurvivable(host: &Host) -> Option<String> {
    unsurvivable_on(host, std::env::consts::ARCH)
}

fn unsurvivable_on(host: &Host, arch: &str) -> Option<String> {
    /// `MCG_SER_P` of the register `IA32_MCG_CAP`: the CPU reports errors from which software can recover.
    const MCG_CAP: u64 = 0x179;
    const SER_P: u64 = 1 << 24;
    match arch {
        "x86_64" => {}
        "powerpc64" => return None,
        // No copy_mc_to_kernel().
        _ => return Some(format!("no read survives a machine check on {arch}")),
    }
    if !host
        .path("sys/devices/system/machinecheck/machinecheck0")
        .exists()
    {
        return Some("the kernel does not handle machine checks (mce=off?)".into());
    }
    let text = fs::read_to_string(host.path("proc/cpuinfo")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or("", |(_, value)| value)
    };
    let has = |flag: &str| field("flags").split_whitespace().any(|word| word == flag);
    match field("vendor_id").trim() {
        "AuthenticAMD" | "HygonGenuine" if !has("hypervisor") && !has("succor") => {
            Some("its CPU does not recover from machine checks (no flag succor)".into())
        }
        "GenuineIntel" => {
            let mut capabilities = [0; 8];
            // Missing if the module msr is not loaded.
            let register = File::open(host.path("dev/cpu/0/msr")).ok()?;
            register.read_exact_at(&mut capabilities, MCG_CAP).ok()?;
            (u64::from_le_bytes(capabilities) & SER_P == 0)
                .then(|| "its CPU does not recover from machine checks (no MCG_SER_P)".into())
        }
        _ => None,
    }
}

/// The lists of a disk.
impl Disk {
    /// Its device of the `nd` bus.
    fn device(&self) -> Option<Device> {
        Device::find(self.host(), self.owner()?)
    }

    /// Reads all lists that may have errors of the disk.
    pub fn errors(&self) -> DiskErrors {
        let device = self.device();
        let exact = device
            .as_ref()
            .is_some_and(|device| device.errors_list().exists());
        let is_btt = (device.as_ref()).is_some_and(|device| device.name.kind == Kind::Btt);
        let outside = match &device {
            Some(device) if exact => self.outside_by_list(device),
            Some(device) => self.outside_by_region(device),
            None => Ok(BadBlocks::default()),
        };
        let outside = outside.map_err(|error| format!("{error:#}"));
        let bad = match (is_btt, &outside) {
            (true, Err(reason)) => Err(reason.clone()),
            (true, Ok(outside)) if !exact && outside.is_empty() => {
                Err("in sector mode its driver has no list of errors".to_owned())
            }
            (true, Ok(_)) => Ok(BadBlocks::default()),
            (false, _) if !exact && !self.whole.folder.join("badblocks").exists() => {
                Err("it has no list of bad blocks".to_owned())
            }
            (false, _) => self.bad().map_err(|error| format!("{error:#}")),
        };
        DiskErrors {
            disk: self.clone(),
            device,
            bad,
            outside,
        }
    }

    /// Returns the sectors of the namespace that are on its exact list, but are none of the disk.
    fn outside_by_list(&self, device: &Device) -> Result<BadBlocks> {
        let errors: Errors = sysfs::whole(&device.errors_list())
            .map_err(anyhow::Error::from)
            .and_then(|text| Ok(text.parse()?))
            .with_context(|| device.errors_list().display().to_string())?;
        self.without_data(device, &errors.all())
    }

    /// Returns the sectors of a namespace that are none of its disk. Only root sees where its data begins; others are told if all
    /// are of the disk.
    fn without_data(&self, device: &Device, all: &BadBlocks) -> Result<BadBlocks> {
        if device.name.kind == Kind::Btt {
            return Ok(all.clone());
        }
        let Some(offset) = device.data_offset() else {
            ensure!(
                all.sectors() == self.bad()?.sectors(),
                "the namespace has errors that the disk does not have, and only root sees where"
            );
            return Ok(BadBlocks::default());
        };
        let start = offset / SECTOR;
        let data = start..start + self.size().bytes() / SECTOR;
        Ok(all.without(&all.within(&data)))
    }

    /// Returns the sectors of the namespace that are on the region's list, but are none of the disk.
    fn outside_by_region(&self, device: &Device) -> Result<BadBlocks> {
        let region = Region::find(self.host(), device.name.region);
        let namespace = device
            .namespace()
            .and_then(|name| Device::find(self.host(), name));
        // Only root sees where they are.
        let Some((region, namespace)) = region.zip(namespace) else {
            return Ok(BadBlocks::default());
        };
        self.without_data(device, &of_namespace(&region, &namespace)?)
    }

    /// Returns its exact list, if its driver has one; only root sees where the data begins.
    pub fn exact_list(&self) -> Option<ExactList> {
        let device = self
            .device()
            .filter(|device| device.name.kind != Kind::Btt && device.errors_list().exists())?;
        Some(ExactList {
            disk: self.clone(),
            file: device.errors_list(),
            data: device.data_offset()?,
        })
    }

    /// Returns whether its only list is `badblocks`, which is nearly full and may lack errors.
    pub fn may_lack_errors(&self) -> Result<bool> {
        if self.exact_list().is_some() {
            return Ok(false);
        }
        let file = self.whole.folder.join("badblocks");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(set::is_nearly_full(&text))
    }

    /// Returns the bad sectors: of the exact list if the driver has one, else of `badblocks`, which may be
    /// merged. Empty if the disk has no list, as in sector mode.
    pub fn bad(&self) -> Result<BadBlocks> {
        let device = self
            .owner()
            .filter(|owner| owner.kind != Kind::Btt)
            .and_then(|owner| Device::find(self.host(), owner))
            .filter(|device| device.errors_list().exists());
        match device {
            Some(device) => self
                .exact(&device)
                .with_context(|| device.errors_list().display().to_string()),
            None => self.shown(),
        }
    }

    /// Reads `badblocks`.
    pub fn shown(&self) -> Result<BadBlocks> {
        let file = self.whole.folder.join("badblocks");
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| file.display().to_string())?,
        };
        text.parse().with_context(|| file.display().to_string())
    }

    /// Returns the part of the device's exact list that is in the data area.
    fn exact(&self, device: &Device) -> Result<BadBlocks> {
        let errors: Errors = sysfs::whole(&device.errors_list())?.parse()?;
        let all = errors.all();
        let Some(offset) = device.data_offset() else {
            // Only root sees the start of the data. `badblocks` has room for so few entries.
            let entries = all
                .ranges()
                .map(|range| (range.end - range.start).div_ceil(LONGEST));
            ensure!(
                entries.sum::<u64>() <= SHOWN,
                "only root can see which of them are on the disk"
            );
            return self.shown();
        };
        let start = offset / SECTOR;
        let data = start..start + self.size().bytes() / SECTOR;
        Ok(all.within(&data).moved_down(start))
    }

    /// Adds sectors to its list.
    pub fn add_bad(&self, list: &BadBlocks) -> Result<()> {
        // A disk in sector mode has no list.
        if list.is_empty() {
            return Ok(());
        }
        let file = self.whole.folder.join("badblocks");
        let open = self.open_list(&file)?;
        for range in list.ranges() {
            let entry = format!("{} {}", range.start, range.end - range.start);
            open.store(&entry)
                .with_context(|| format!("{}: {entry}", file.display()))?;
        }
        Ok(())
    }

    /// Opens a list for writing that was found by its path; fails if that is another disk's now.
    fn open_list(&self, file: &Path) -> Result<Store> {
        let open = Store::open(file).with_context(|| file.display().to_string())?;
        ensure!(self.is_there(), "{}: the disk has gone", self.name());
        Ok(open)
    }
}

/// Has a list drop a range, by a function that writes the command; returns false if the range can't be read.
fn drop_by(file: &Path, range: &str, write: impl FnOnce(&str) -> io::Result<()>) -> Result<bool> {
    let command = format!("drop {range}");
    match write(&command) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Ok(false),
        written => {
            written.with_context(|| format!("{}: {command}", file.display()))?;
            Ok(true)
        }
    }
}

/// Splits sectors at multiples of `size`.
fn pieces(sectors: &Range<u64>, size: u64) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = *sectors;
    (start / size..end.div_ceil(size))
        .map(move |number| start.max(number * size)..end.min((number + 1) * size))
}

/// Returns the bytes of sectors.
pub fn bytes(sectors: &Range<u64>) -> Range<u64> {
    sectors.start * SECTOR..sectors.end * SECTOR
}

/// Returns the offset and the length of sectors in bytes.
pub fn offset_and_length(sectors: &Range<u64>) -> (u64, u64) {
    let bytes = bytes(sectors);
    (bytes.start, bytes.end - bytes.start)
}

/// Reads the region's list, which the bus fills, in sectors of the region.
pub fn of_region(region: &Region) -> Result<BadBlocks> {
    let file = region.folder().join("badblocks");
    let text = match fs::read_to_string(&file) {
        // A region without a driver has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            String::new()
        }
        text => text.with_context(|| file.display().to_string())?,
    };
    text.parse().with_context(|| file.display().to_string())
}

/// Reads the errors of a namespace from its region's list, in sectors of the namespace.
pub fn of_namespace(region: &Region, namespace: &Device) -> Result<BadBlocks> {
    let bytes = region
        .bytes_of(namespace)
        .context("its namespace does not lie in its region")?;
    let sectors = sectors(&bytes);
    Ok(of_region(region)?
        .within(&sectors)
        .moved_down(sectors.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use units::PAGE;

    fn disk(machine: &FakeSysfs) -> Disk {
        Disk::find(&machine.host, "pmem0").unwrap()
    }

    const LIST: &str = "sys/devices/ndbus0/region0/pfn0.0/errors/list";
    const REGION: &str = "sys/devices/ndbus0/region0/badblocks";

    #[test]
    fn errors_outside_of_the_data_are_found() {
        let machine = FakeSysfs::with_nested_disk();
        // The namespace begins at sector 4096 of the region, its data 2048 sectors later.
        machine.write(REGION, "16 8\n4112 8\n6144 8");
        machine.lists("0 8");
        let errors = disk(&machine).errors();
        assert_eq!(errors.bad.as_ref().unwrap().to_string(), "0 8\n");
        assert_eq!(errors.outside.as_ref().unwrap().to_string(), "16 8\n");
        // The exact list takes precedence.
        machine.write(LIST, "4096 512 log\n1048576 4096 user");
        let errors = disk(&machine).errors();
        assert_eq!(errors.bad.as_ref().unwrap().to_string(), "0 8\n");
        assert_eq!(errors.outside.as_ref().unwrap().to_string(), "8 1\n");
        // The struct pages are in RAM, or on the device.
        assert!(!errors.outside_affects_files());
        machine.write("sys/devices/ndbus0/region0/pfn0.0/mode", "pmem");
        assert!(errors.outside_affects_files());
    }

    #[test]
    fn user_who_cannot_see_where_data_begins_knows_errors_of_the_disk_alone() {
        let machine = FakeSysfs::with_nested_disk();
        let resource = "sys/devices/ndbus0/region0/pfn0.0/resource";
        fs::remove_file(machine.host.path(resource)).unwrap();
        machine.write("sys/devices/ndbus0/region0/pfn0.0/mode", "pmem");
        machine.lists("0 8");
        machine.write(LIST, "1048576 4096 user");
        let errors = disk(&machine).errors();
        assert!(errors.outside.unwrap().is_empty());
        machine.write(LIST, "4096 512 log\n1048576 4096 user");
        let errors = disk(&machine).errors();
        let reason = errors.why_unknown().unwrap();
        assert!(reason.contains("only root sees where"), "{reason}");
    }

    #[test]
    fn errors_in_struct_pages_are_unknown_if_the_list_is_cut_off() {
        let machine = FakeSysfs::with_nested_disk();
        machine.write(REGION, &"1000000 512\n".repeat(342)[..4094]);
        // The struct pages are in RAM, or on the device.
        let errors = disk(&machine).errors();
        assert!(errors.outside.is_err());
        assert_eq!(errors.why_unknown(), None);
        machine.write("sys/devices/ndbus0/region0/pfn0.0/mode", "pmem");
        let reason = errors.why_unknown().unwrap();
        assert!(reason.ends_with("longer than the kernel shows"), "{reason}");
    }

    #[test]
    fn plain_list_of_rust_pmem_is_not_used() {
        let machine = FakeSysfs::new();
        let driver = machine
            .host
            .path("sys/devices/ndbus0/region0/pfn0.0/driver");
        fs::remove_file(&driver).unwrap();
        std::os::unix::fs::symlink("/sys/bus/nd/drivers/rust_pmem", driver).unwrap();
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let region = Region::find(&machine.host, 0).unwrap();
        let error = KernelList::of(&region, &device).unwrap_err().to_string();
        assert!(error.contains("try again"), "{error}");
        machine.write(LIST, "");
        assert!(matches!(
            KernelList::of(&region, &device),
            Ok(ListLookup::List(_))
        ));
    }

    #[test]
    fn only_data_of_a_disk_is_read_and_dropped() {
        let machine = FakeSysfs::with_nested_disk();
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let region = Region::find(&machine.host, 0).unwrap();
        machine.write(LIST, "");
        let ListLookup::List(list) = KernelList::of(&region, &device).unwrap() else {
            panic!("it has a list");
        };
        // The namespace begins at sector 4096 of the region, its data 2048 sectors later, and ends with the disk.
        let drop = |sectors: &str, size: u64| {
            machine.write(LIST, "");
            list.drop_readable(&sectors.parse().unwrap(), size).unwrap();
            fs::read_to_string(machine.host.path(LIST)).unwrap()
        };
        assert_eq!(drop("4096 2048\n", PAGE), "");
        assert_eq!(drop("6140 12\n", PAGE), "drop 1048576 4096");
        // The last one stays in the file.
        assert_eq!(drop("6140 12\n", SECTOR), "drop 1052160 512");
        assert_eq!(drop("69632 8\n", PAGE), "");
    }

    #[test]
    fn list_of_a_disk_that_was_replaced_is_not_read() {
        let machine = FakeSysfs::new();
        let device = Device::find(&machine.host, "pfn0.0".parse().unwrap()).unwrap();
        let region = Region::find(&machine.host, 0).unwrap();
        for (number, exact) in [("13", false), ("14", true)] {
            if exact {
                machine.write(LIST, "1048576 512 log");
            }
            let ListLookup::List(list) = KernelList::of(&region, &device).unwrap() else {
                panic!("it has a list");
            };
            assert!(list.read().is_ok());
            machine.write("sys/block/pmem0/diskseq", number);
            let error = list.read().unwrap_err().to_string();
            assert_eq!(error, "pmem0: the disk has gone");
        }
    }

    #[test]
    fn missing_or_cut_off_list_is_unknown() {
        let machine = FakeSysfs::with_nested_disk();
        machine.lists(&"1000000 512\n".repeat(342)[..4094]);
        let errors = disk(&machine).errors();
        assert!(
            errors
                .bad
                .unwrap_err()
                .ends_with("longer than the kernel shows")
        );
        fs::remove_file(machine.host.path("sys/block/pmem0/badblocks")).unwrap();
        assert!(disk(&machine).errors().bad.is_err());
        machine.write(LIST, "");
        assert!(disk(&machine).errors().bad.unwrap().is_empty());
    }

    #[test]
    fn badblocks_alone_may_lack_errors() {
        let machine = FakeSysfs::with_nested_disk();
        assert!(!disk(&machine).may_lack_errors().unwrap());
        machine.lists(&"1000000 512\n".repeat(330));
        assert!(disk(&machine).may_lack_errors().unwrap());
        machine.write(LIST, "");
        assert!(!disk(&machine).may_lack_errors().unwrap());
    }

    #[test]
    fn errors_are_added_to_the_disk_that_was_found() {
        let machine = FakeSysfs::with_nested_disk();
        let found = disk(&machine);
        let list = machine.host.path("sys/block/pmem0/badblocks");
        let sectors: BadBlocks = "8 8\n".parse().unwrap();
        fs::write(&list, "").unwrap();
        found.add_bad(&sectors).unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), "8 8");
        fs::remove_file(&list).unwrap();
        // As in sector mode.
        found.add_bad(&BadBlocks::default()).unwrap();
        assert!(found.add_bad(&sectors).is_err());
        // Another one has its name.
        fs::write(&list, "").unwrap();
        machine.write("sys/block/pmem0/diskseq", "4711\n");
        let error = found.add_bad(&sectors).unwrap_err().to_string();
        assert_eq!(error, "pmem0: the disk has gone");
        assert_eq!(fs::read_to_string(&list).unwrap(), "");
    }

    #[test]
    fn sectors_are_split_into_pieces() {
        let split = |sectors: Range<u64>| pieces(&sectors, 8).collect::<Vec<_>>();
        assert_eq!(split(5..17), [5..8, 8..16, 16..17]);
        assert_eq!(split(9..10), std::iter::once(9..10).collect::<Vec<_>>());
        assert_eq!(split(8..8), []);
    }

    #[test]
    fn drop_counts_from_the_start_of_the_namespace() {
        let machine = FakeSysfs::with_nested_disk();
        assert!(disk(&machine).exact_list().is_none());
        machine.write(LIST, "");
        let list = disk(&machine).exact_list().unwrap();
        assert!(list.drop_readable(&(8192..12288)).unwrap());
        let written = fs::read_to_string(machine.host.path(LIST)).unwrap();
        assert_eq!(written, "drop 1056768 4096");
    }

    #[test]
    fn machine_that_cannot_survive_is_recognized() {
        let machine = FakeSysfs::new();
        let why = |arch| unsurvivable_on(&machine.host, arch);
        assert!(why("aarch64").is_some());
        assert_eq!(why("powerpc64"), None);
        assert!(why("x86_64").unwrap().contains("mce=off"));
        machine.write("sys/devices/system/machinecheck/machinecheck0/bank0", "1");
        let cpu = |vendor: &str, flags: &str| {
            let text = format!("processor: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}");
            machine.write("proc/cpuinfo", &text);
        };
        cpu("AuthenticAMD", "mce");
        assert!(why("x86_64").unwrap().contains("succor"));
        cpu("AuthenticAMD", "mce hypervisor");
        assert_eq!(why("x86_64"), None);
        cpu("AuthenticAMD", "mce succor");
        assert_eq!(why("x86_64"), None);
        cpu("GenuineIntel", "mce");
        assert_eq!(why("x86_64"), None);
        let register = |value: u64| {
            let bytes = [&[0; 0x179][..], &value.to_le_bytes()].concat();
            fs::create_dir_all(machine.host.path("dev/cpu/0")).unwrap();
            fs::write(machine.host.path("dev/cpu/0/msr"), bytes).unwrap();
        };
        register(0x0100_0c14);
        assert_eq!(why("x86_64"), None);
        register(0x0c14);
        assert!(why("x86_64").unwrap().contains("MCG_SER_P"));
    }
}
