// SPDX-License-Identifier: GPL-2.0

//! Finds bad blocks, and why files on persistent memory have no DAX, `MAP_SYNC` or huge mappings.
//!
//! The cause may be in any layer: the kernel, the namespace and its driver, partitions and volumes, the file
//! system, its mount, the file. Each finding names the layer and the command that fixes it. [`probe`] tests the
//! result on a file.

pub mod probe;

use crate::affected::{self, Survey};
use crate::badblocks::kernel::DiskErrors;
use crate::badblocks::origin::SECTOR;
use crate::badblocks::set::BadBlocks;
use crate::block::devno::DeviceNumber;
use crate::block::remap;
use crate::block::topology::{self, Dax, Mount, Volume};
use crate::fs::{ext4, mounted, xfs};
use crate::inventory::{self, Mode, NamespaceInfo};
use crate::nd::region::Region;
use crate::nd::{DEVICES, Device, Kind, Name};
use crate::programs;
use crate::sysfs::{self, Host, printable, shell_path};
use abstractions::extents::Extent;
use abstractions::xattr;
use anyhow::{Context, Result, bail};
use probe::{HUGE, Probe};
use rustix::fs::StatxAttributes;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use units::{PAGE, Size};

#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prevents {
    /// Any of it: there is no persistent memory to use.
    All,
    /// Direct access, and with it the rest.
    Dax,
    /// `MAP_SYNC`: stores that are durable without a call of the kernel.
    MapSync,
    /// Mappings by pages of 2 MiB.
    HugeMappings,
    /// Reads of some of the data.
    Reads,
}

impl fmt::Display for Prevents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::All => "all",
            Self::Dax => "DAX",
            Self::MapSync => "MAP_SYNC",
            Self::HugeMappings => "huge mappings",
            Self::Reads => "reads",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// There is no direct access, or data cannot be read.
    Error,
    /// Direct access works, but with limits.
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Finding {
    /// `kernel`, `namespace0.0`, `pmem0p1`, a mount, a file.
    #[serde(rename = "where")]
    pub place: String,
    /// Its name, for programs: `sector-mode`.
    pub cause: &'static str,
    pub severity: Severity,
    pub prevents: Prevents,
    pub evidence: String,
    /// The command or other action that fixes it.
    pub command: String,
    /// The command destroys the data.
    pub destroys: bool,
}

impl Finding {
    fn new(
        place: impl Into<String>,
        cause: &'static str,
        prevents: Prevents,
        evidence: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            cause,
            severity: match prevents {
                Prevents::All | Prevents::Dax | Prevents::Reads => Severity::Error,
                Prevents::MapSync | Prevents::HugeMappings => Severity::Warning,
            },
            prevents,
            evidence: evidence.into(),
            command: command.into(),
            destroys: false,
        }
    }

    fn destroying(self) -> Self {
        Self {
            destroys: true,
            ..self
        }
    }
}

/// The findings and the tests.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub struct Report {
    /// The reasons; none where all works.
    pub findings: Vec<Finding>,
    /// Tests of mounts and files.
    pub probes: Vec<Probe>,
    /// What could not be examined: there may be more findings.
    pub unknown: Vec<Unknown>,
}

/// A place that could not be examined.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Unknown {
    /// `namespace0.0`, a mount, or `bad blocks`.
    #[serde(rename = "where")]
    pub place: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    /// A namespace, by its device.
    Namespace(Name),
    /// A partition, a volume, or the file system on it, by its number.
    Volume(DeviceNumber),
    /// A file, with the number of its file system.
    File(PathBuf, DeviceNumber),
}

impl Scope {
    fn number(&self) -> Option<DeviceNumber> {
        match self {
            Self::Volume(number) | Self::File(_, number) => Some(*number),
            Self::All | Self::Namespace(_) => None,
        }
    }

    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) => Some(path),
            _ => None,
        }
    }
}

/// Some bytes of a volume, in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The first of them, of the volume.
    start: u64,
    address: u64,
    length: u64,
}

impl Place {
    /// Returns whether the offsets in memory and in the volume are equal modulo `unit`.
    fn is_aligned(&self, unit: u64) -> bool {
        self.address.wrapping_sub(self.start) % unit == 0
    }
}

/// Finds an offset at which 2 MiB of a file can be mapped as one page: aligned both in the file and in memory.
fn window(pieces: &[Extent], places: &[Place]) -> Option<u64> {
    pieces.iter().find_map(|piece| {
        places.iter().find_map(|place| {
            let start = piece.physical.max(place.start);
            let end = (piece.physical.saturating_add(piece.length))
                .min(place.start.saturating_add(place.length));
            let length = end.checked_sub(start)?;
            let logical = piece.logical.checked_add(start - piece.physical)?;
            let address = place.address.checked_add(start - place.start)?;
            let first = logical.checked_next_multiple_of(HUGE)?;
            let fits = first.checked_add(HUGE)? <= logical.checked_add(length)?;
            (fits && address.wrapping_sub(logical) % HUGE == 0).then_some(first)
        })
    })
}

/// Examines the scope; with `try_files`, mounts are tested with an unnamed file.
pub fn examine(host: &Host, scope: &Scope, try_files: bool) -> Result<Report> {
    let mut doctor = Doctor {
        host,
        scope,
        try_files,
        seen: false,
        path: Vec::new(),
        report: Report::default(),
    };
    doctor.kernel()?;
    let entries = inventory::all(host)?;
    doctor.memory(&entries);
    for entry in &entries {
        let done = doctor.namespace(entry);
        doctor.note_failure(&entry.device.to_string(), done);
    }
    if doctor.seen || *scope == Scope::All {
        let done = Survey::of(host).map(|survey| doctor.errors(&survey));
        doctor.note_failure("bad blocks", done);
    }
    if !doctor.seen && !matches!(scope, Scope::All) {
        let (place, on) = match scope {
            Scope::File(path, number) => (printable(path), Some(*number)),
            Scope::Volume(number) => (number.to_string(), Some(*number)),
            Scope::Namespace(name) => (name.to_string(), None),
            Scope::All => (String::new(), None),
        };
        let on = on.map_or_else(String::new, |number| format!(" (device {number})"));
        doctor.found(Finding::new(
            place,
            "not-persistent-memory",
            Prevents::All,
            format!("it is on a device{on} that is not persistent memory"),
            "pmemctl list shows persistent memory",
        ));
    }
    Ok(doctor.report)
}

struct Doctor<'a> {
    host: &'a Host,
    scope: &'a Scope,
    try_files: bool,
    /// The target of the examination was found.
    seen: bool,
    /// The namespace and the volumes from there to the current one.
    path: Vec<String>,
    report: Report,
}

/// The place of findings that affect all memory.
const KERNEL: &str = "kernel";
const PROCESS: &str = "this process";

/// Required kernel options, and what does not work without them.
const OPTIONS: [(&str, Prevents); 3] = [
    ("CONFIG_FS_DAX", Prevents::Dax),
    ("CONFIG_ZONE_DEVICE", Prevents::Dax),
    ("CONFIG_TRANSPARENT_HUGEPAGE", Prevents::HugeMappings),
];

/// The configuration of the running kernel, and where it was found.
fn configuration(host: &Host) -> Option<(PathBuf, String)> {
    let release = sysfs::line(host.path("proc/sys/kernel/osrelease"))?;
    if let Ok(file) = File::open(host.path("proc/config.gz")) {
        let mut text = String::new();
        if flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .is_ok()
        {
            return Some(("/proc/config.gz".into(), text));
        }
    }
    [
        format!("boot/config-{release}"),
        format!("lib/modules/{release}/config"),
        format!("usr/lib/modules/{release}/config"),
    ]
    .iter()
    .find_map(|file| {
        let text = fs::read_to_string(host.path(file)).ok()?;
        Some((Path::new("/").join(file), text))
    })
}

/// Describes the persistent memory that firmware or the hypervisor announces.
fn announced(host: &Host) -> String {
    let table = |name: &str| {
        let there = host.path("sys/firmware/acpi/tables").join(name).exists();
        format!("{name} {}", if there { "there" } else { "absent" })
    };
    let iomem = fs::read_to_string(host.path("proc/iomem")).unwrap_or_default();
    let ranges = iomem
        .lines()
        .filter(|line| line.contains("Persistent Memory"))
        .count();
    format!(
        "of ACPI's tables {}, {}, {}; /proc/iomem has {ranges} ranges of persistent memory",
        table("NFIT"),
        table("SRAT"),
        table("HMAT"),
    )
}

/// Returns the modules that would create regions, but are not loaded.
fn providers(host: &Host) -> Vec<&'static str> {
    let iomem = fs::read_to_string(host.path("proc/iomem")).unwrap_or_default();
    let virtio = host.path("sys/bus/virtio/devices");
    // The id of virtio-pmem in linux/virtio_ids.h.
    let has_virtio = sysfs::names(&virtio)
        .iter()
        .any(|name| sysfs::number(virtio.join(name).join("device")) == Some(27));
    [
        (
            "nfit",
            host.path("sys/firmware/acpi/tables/NFIT").exists()
                || host.path("sys/bus/acpi/devices/ACPI0012:00").exists(),
        ),
        ("nd_e820", iomem.contains("Persistent Memory (legacy)")),
        ("virtio_pmem", has_virtio),
        (
            "cxl_acpi",
            host.path("sys/bus/acpi/devices/ACPI0017:00").exists(),
        ),
    ]
    .into_iter()
    .filter(|(module, there)| *there && !host.path("sys/module").join(module).exists())
    .map(|(module, _)| module)
    .collect()
}

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

/// Where the kernel has the settings of huge pages, if it has these.
const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage";

impl Doctor<'_> {
    /// Reports the errors that are listed for the scope, and lists that cannot be read.
    fn errors(&mut self, survey: &Survey) {
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
                // Why they are unknown is another finding, or shown by "pmemctl errors".
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
                let device = self.host.path("sys/dev/block").join(number.to_string());
                sysfs::link_name(device).unwrap_or_else(|| number.to_string())
            }
            (_, None) => return,
        };
        self.found_errors(place, &count);
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

    fn found(&mut self, finding: Finding) {
        self.report.findings.push(finding);
    }

    /// Keeps the reason for a failure, so that it does not hide the findings of other places.
    fn note_failure(&mut self, place: &str, done: Result<()>) {
        if let Err(error) = done {
            self.report.unknown.push(Unknown {
                place: place.to_owned(),
                reason: format!("{error:#}"),
            });
        }
    }

    fn kernel(&mut self) -> Result<()> {
        if let Some((file, text)) = configuration(self.host) {
            for (option, prevents) in OPTIONS {
                if !text.lines().any(|line| line == format!("{option}=y")) {
                    self.found(Finding::new(
                        KERNEL,
                        "kernel-configuration",
                        prevents,
                        format!("{} has no {option}=y", file.display()),
                        format!("boot a kernel with {option}=y"),
                    ));
                }
            }
        }
        // /sys/kernel/mm/transparent_hugepage does not apply to DAX, this does (`__thp_vma_allowable_orders` of
        // mm/huge_memory.c).
        let status = fs::read_to_string(self.host.path("proc/self/status")).unwrap_or_default();
        let off = status
            .lines()
            .filter_map(|line| line.strip_prefix("THP_enabled:"))
            .any(|value| value.trim() == "0");
        // Without huge pages in the kernel, they are off for each process.
        if off && self.host.path(HUGE_PAGES).exists() {
            self.found(Finding::new(
                PROCESS,
                "thp-disabled",
                Prevents::HugeMappings,
                "THP_enabled is 0 in /proc/self/status: a parent process called prctl(PR_SET_THP_DISABLE)",
                "start the program from another shell or service",
            ));
        }
        Ok(())
    }

    fn memory(&mut self, entries: &[NamespaceInfo]) {
        if *self.scope != Scope::All {
            return;
        }
        for module in providers(self.host) {
            self.found(Finding::new(
                module,
                "no-provider",
                Prevents::All,
                format!(
                    "there is memory for {module}, which is not loaded: {}",
                    announced(self.host)
                ),
                format!("modprobe {module}"),
            ));
        }
        let regions = Region::all(self.host);
        for region in &regions {
            let used = entries
                .iter()
                .any(|entry| entry.namespace.region == region.id);
            if !used {
                self.found(Finding::new(
                    &region.name,
                    "no-namespace",
                    Prevents::All,
                    format!(
                        "{} of memory, and no namespace",
                        Size::from_bytes(region.size)
                    ),
                    format!("ndctl create-namespace -r {} -m fsdax", region.name),
                ));
            }
        }
        if !regions.is_empty() || !self.report.findings.is_empty() {
            return;
        }
        let dimms = sysfs::names(&self.host.path(DEVICES))
            .iter()
            .filter(|name| name.starts_with("nmem"))
            .count();
        if dimms > 0 {
            self.found(Finding::new(
                format!("{dimms} DIMMs"),
                "dimms-without-region",
                Prevents::All,
                format!(
                    "none is part of a region, as in memory mode: {}",
                    announced(self.host)
                ),
                "ipmctl create -goal PersistentMemoryType=AppDirect (or the firmware's setup), and reboot",
            ));
        } else {
            self.found(Finding::new(
                "machine",
                "no-persistent-memory",
                Prevents::All,
                format!(
                    "none is announced, as with DIMMs in memory mode: {}",
                    announced(self.host)
                ),
                "look into the firmware's setup; to try things, boot with memmap=4G!8G",
            ));
        }
    }

    fn is_asked(&self, entry: &NamespaceInfo) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Namespace(name) => entry.device == *name || entry.namespace == *name,
            Scope::Volume(number) | Scope::File(_, number) => entry
                .disk
                .as_ref()
                .is_some_and(|disk| leads_to(disk, *number)),
        }
    }

    fn namespace(&mut self, entry: &NamespaceInfo) -> Result<()> {
        if !self.is_asked(entry) {
            return Ok(());
        }
        self.seen = true;
        let name = entry.device.to_string();
        self.path = vec![KERNEL.to_owned(), PROCESS.to_owned(), name.clone()];
        let Some(driver) = &entry.driver else {
            self.found(no_driver(self.host, entry));
            return Ok(());
        };
        let device = Device::find(self.host, entry.device).context("it has gone")?;
        let start = sysfs::number(device.folder().join("resource"));
        let dax = entry
            .disk
            .as_ref()
            .is_some_and(|disk| topology::has_dax(self.host, &disk.kernel_name));
        if let Some(finding) = unsuitable_mode(entry, driver, dax, start) {
            self.found(finding);
        }
        // The rest is about memory that can be mapped.
        if entry.mode == Mode::Sector || (entry.mode == Mode::Raw && !dax) {
            return Ok(());
        }
        if entry.provider.as_deref() == Some("virtio-pmem") {
            self.found(Finding::new(
                &name,
                "asynchronous-flush",
                Prevents::MapSync,
                "virtio-pmem: only the host can make stores durable, when it is asked to flush",
                "have programs call fsync(2) or msync(2), or give the machine an NVDIMM (QEMU: -device nvdimm)",
            ));
        }
        let Some(disk) = &entry.disk else {
            return Ok(());
        };
        let place = Place {
            start: 0,
            address: start.unwrap_or(0),
            length: disk.size,
        };
        self.volume(disk, dax, &[place], false)
    }

    /// Examines a disk, partition or volume and those on it. `chosen`: it is on the target of the examination.
    fn volume(&mut self, volume: &Volume, dax: bool, places: &[Place], chosen: bool) -> Result<()> {
        let own = volume.number()?;
        let wanted = self.scope.number();
        let chosen = chosen || wanted.is_none_or(|wanted| wanted == own);
        let depth = self.path.len();
        self.path.push(volume.name.clone());
        if chosen {
            self.file_system(volume, dax, places)?;
        }
        for child in &volume.children {
            if !chosen && wanted.is_some_and(|wanted| !leads_to(child, wanted)) {
                continue;
            }
            let (pieces, opaque) = remap::layout(self.host, child)?.into_parts();
            if opaque.is_some() {
                self.without_dax(child, dax)?;
                continue;
            }
            let inner: Vec<_> = pieces
                .iter()
                .flat_map(|piece| {
                    places.iter().flat_map(move |place| {
                        let range = place.start..place.start.saturating_add(place.length);
                        piece.parts(own, range).map(|(part, to)| Place {
                            start: to,
                            address: place.address + (part.start - place.start),
                            length: part.end - part.start,
                        })
                    })
                })
                .collect();
            let child_dax = topology::has_dax(self.host, &child.kernel_name);
            if !child_dax {
                self.without_dax(child, dax)?;
            } else {
                self.alignment(child, places, &inner);
            }
            self.volume(child, child_dax, &inner, chosen)?;
        }
        self.path.truncate(depth);
        Ok(())
    }

    /// Reports a volume without direct access on a device that has it.
    fn without_dax(&mut self, volume: &Volume, below: bool) -> Result<()> {
        if !below {
            return Ok(());
        }
        let targets = if volume.kernel_name.starts_with("dm-") {
            let table = programs::output("dmsetup", "dmsetup", &["table", &volume.name])?;
            let mut targets: Vec<_> = table
                .lines()
                .filter_map(|line| line.split_whitespace().nth(2))
                .map(str::to_owned)
                .collect();
            targets.dedup();
            targets.join(", ")
        } else {
            volume.kind.clone()
        };
        self.found(Finding::new(
            &volume.name,
            "target-without-dax",
            Prevents::Dax,
            format!("it is made by {targets}, which has no direct access"),
            "put the file system on the disk, a partition, or a volume of linear or striped targets alone",
        ));
        Ok(())
    }

    /// Reports a partition or volume that breaks the alignment of the device below.
    fn alignment(&mut self, volume: &Volume, below: &[Place], places: &[Place]) {
        for (unit, prevents) in [(PAGE, Prevents::Dax), (HUGE, Prevents::HugeMappings)] {
            let was = below.iter().all(|place| place.is_aligned(unit));
            let shifted = places.iter().find(|place| !place.is_aligned(unit));
            let Some(place) = shifted.filter(|_| was) else {
                continue;
            };
            let is_partition = volume.kind == "part";
            let (cause, command) = match is_partition {
                true => (
                    "partition-alignment",
                    "create it at a multiple of 2 MiB: echo start=2MiB | sfdisk DISK",
                ),
                false => (
                    "volume-alignment",
                    "create it from extents at multiples of 2 MiB: pvcreate --dataalignment 2m",
                ),
            };
            self.found(
                Finding::new(
                    &volume.name,
                    cause,
                    prevents,
                    format!(
                        "its byte {} is at {:#x}, no multiple of {} further on",
                        place.start,
                        place.address,
                        Size::from_bytes(unit)
                    ),
                    command,
                )
                .destroying(),
            );
            return;
        }
    }

    fn file_system(&mut self, volume: &Volume, dax: bool, places: &[Place]) -> Result<()> {
        let Some(kind) = volume.file_system.as_deref() else {
            return Ok(());
        };
        if !volume.children.is_empty() || !dax {
            return Ok(());
        }
        let node = format!("/dev/{}", volume.kernel_name);
        match kind {
            "ext2" | "ext4" | "xfs" => {}
            _ if kind.ends_with("_member") || matches!(kind, "crypto_LUKS" | "swap" | "erofs") => {
                return Ok(());
            }
            _ => {
                self.found(
                    Finding::new(
                        &volume.name,
                        "file-system-without-dax",
                        Prevents::Dax,
                        format!("{kind} has no direct access to a block device"),
                        format!("mkfs.ext4 -b 4096 {node}, or mkfs.xfs {node}"),
                    )
                    .destroying(),
                );
                return Ok(());
            }
        }
        let size = topology::probed("FSBLOCKSIZE", &[], &node)?;
        let size: Option<u64> = size.parse().ok();
        if let Some(size) = size.filter(|size| *size != PAGE) {
            self.found(
                Finding::new(
                    &volume.name,
                    "block-size",
                    Prevents::Dax,
                    format!("the blocks of its {kind} are {size} bytes, pages 4096"),
                    match kind {
                        "xfs" => format!("mkfs.xfs -f -b size=4096 {node}"),
                        _ => format!("mkfs.ext4 -b 4096 {node}"),
                    },
                )
                .destroying(),
            );
        }
        if kind == "ext4" && has_feature(&node, "inline_data")? {
            self.found(
                Finding::new(
                    &volume.name,
                    "inline-data",
                    Prevents::Dax,
                    "its ext4 has the feature inline_data, with which dax=always is refused",
                    format!("mkfs.ext4 -b 4096 -O ^inline_data {node}"),
                )
                .destroying(),
            );
        }
        let per_file = volume.mounts.iter().any(|mount| mount.dax == Dax::PerFile);
        if kind == "xfs" && volume.kind == "part" && !per_file && xfs::shares_blocks(&node)? {
            self.found(
                Finding::new(
                    &volume.name,
                    "reflink-on-partition",
                    Prevents::Dax,
                    "its XFS has reflink=1, with which dax=always is refused on a partition",
                    format!("mkfs.xfs -f -m reflink=0 {node}"),
                )
                .destroying(),
            );
        }
        if let Some(path) = self.scope.file() {
            return match volume.mounts.first() {
                Some(mount) => self.file(path, &node, mount, places),
                None => Ok(()),
            };
        }
        for mount in &volume.mounts {
            let done = self.mount(kind, volume, mount, places);
            self.note_failure(&printable(&mount.directory), done);
        }
        Ok(())
    }

    /// Reports mount options that prevent direct access; returns whether they prevent all of it.
    fn options(&mut self, node: &str, mount: &Mount) -> bool {
        let directory = printable(&mount.directory);
        let quoted = shell_path(&mount.directory);
        let again = format!("umount {quoted} && mount -o dax=always {node} {quoted}");
        let options: Vec<_> = mount.options.split(',').collect();
        if options.contains(&"data=journal") {
            self.found(Finding::new(
                &directory,
                "data-journal",
                Prevents::Dax,
                "it is mounted with data=journal: ext4 writes all data twice, by the page cache",
                again,
            ));
            return true;
        }
        let realtime = options
            .iter()
            .find_map(|option| option.strip_prefix("rtdev=/dev/"));
        if let Some(device) = realtime.filter(|device| !topology::has_dax(self.host, device)) {
            self.found(Finding::new(
                &directory,
                "realtime-without-dax",
                Prevents::Dax,
                format!("files of its realtime device {device} have no direct access"),
                format!("xfs_io -c 'chattr -t' on its directories, or a realtime device of persistent memory instead of {device}"),
            ));
        }
        if mount.dax == Dax::Never {
            self.found(Finding::new(
                &directory,
                "mount-option",
                Prevents::Dax,
                "it is mounted with dax=never",
                again,
            ));
            return true;
        }
        false
    }

    /// Returns whether a finding for the mount, or for a layer below, already explains one of these.
    fn is_explained(&self, directory: &str, prevents: &[Prevents]) -> bool {
        self.report.findings.iter().any(|finding| {
            let on_the_way = finding.place == directory || self.path.contains(&finding.place);
            on_the_way && prevents.contains(&finding.prevents)
        })
    }

    fn mount(
        &mut self,
        kind: &str,
        volume: &Volume,
        mount: &Mount,
        places: &[Place],
    ) -> Result<()> {
        let node = &format!("/dev/{}", volume.kernel_name);
        if self.options(node, mount) {
            return Ok(());
        }
        let path = self.host.absolute(Path::new(&mount.directory));
        let directory = printable(&mount.directory);
        let root = match mounted::open_root(&path, volume.number()?) {
            // A single file: the file system has another mount.
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(()),
            root => {
                root.context("cannot open its root; another file system may be mounted above it")?
            }
        };
        let tried = match self.try_files {
            true => probe::mount(&root, &path)?,
            false => None,
        };
        let flagged = match &tried {
            Some(tried) => tried.flagged,
            None => xattr::flags(&root).unwrap_or(0) & xattr::DAX != 0,
        };
        if mount.dax == Dax::PerFile && !flagged {
            self.found(Finding::new(
                &directory,
                "no-dax-flag",
                Prevents::Dax,
                "it is mounted with dax=inode, and new files in it do not get the flag FS_XFLAG_DAX",
                format!(
                    "xfs_io -c 'chattr +x' {}, or mount it with dax=always",
                    shell_path(&mount.directory)
                ),
            ));
        }
        let Some(tried) = tried else {
            return Ok(());
        };
        let probe = tried.probe;
        let any_dax = [Prevents::All, Prevents::Dax];
        if !probe.dax && !self.is_explained(&directory, &any_dax) {
            self.found(Finding::new(
                &directory,
                "no-dax-seen",
                Prevents::Dax,
                "a file that was made there has no STATX_ATTR_DAX, for no reason known here",
                "dmesg says why, as the last lines of the file system",
            ));
        }
        if probe.dax && !probe.map_sync && !self.is_explained(&directory, &[Prevents::MapSync]) {
            self.found(Finding::new(
                &directory,
                "map-sync-refused",
                Prevents::MapSync,
                "MAP_SYNC was refused for a file that was made there",
                "have programs call fsync(2) or msync(2)",
            ));
        }
        if probe.dax
            && probe.huge == Some(false)
            && !self.is_explained(&directory, &[Prevents::HugeMappings])
        {
            let aligned = window(&tried.pieces, places).is_some();
            let (cause, evidence) = match aligned {
                false => (
                    "file-system-alignment",
                    "a file of 4 MiB that was made there does not lie at multiples of 2 MiB",
                ),
                true => (
                    "no-huge-page-seen",
                    "a file that was made there lies well, and is mapped by pages of 4 KiB all the same",
                ),
            };
            let command = match (aligned, kind) {
                (true, _) => "grep THP_enabled /proc/self/status".to_owned(),
                (false, "xfs") => format!("mkfs.xfs -f -d su=2m,sw=1 {node}"),
                (false, _) => format!("mkfs.ext4 -b 4096 -E stride=512,stripe_width=512 {node}"),
            };
            let finding =
                Finding::new(&directory, cause, Prevents::HugeMappings, evidence, command);
            self.found(match aligned {
                true => finding,
                false => finding.destroying(),
            });
        }
        self.report.probes.push(probe);
        Ok(())
    }

    fn file(&mut self, path: &Path, node: &str, mount: &Mount, places: &[Place]) -> Result<()> {
        let name = printable(path);
        let quoted = shell_path(path);
        let opened = affected::open(path).with_context(|| name.clone())?;
        let metadata = opened.metadata().with_context(|| name.clone())?;
        let attributes = probe::attributes(&opened).with_context(|| name.clone())?;
        let by_mount = self.options(node, mount);
        if !attributes.contains(StatxAttributes::DAX) && !by_mount {
            self.file_without_dax(path, &opened, attributes, mount);
        }
        let pieces = probe::pieces(&opened).with_context(|| name.clone())?;
        let window = window(&pieces, places);
        if metadata.len() < HUGE {
            self.found(Finding::new(
                &name,
                "file-size",
                Prevents::HugeMappings,
                format!("it has {} bytes, a huge page 2 MiB", metadata.len()),
                format!("fallocate -l 2M {quoted}, if it is to grow"),
            ));
        } else if window.is_none() {
            self.found(Finding::new(
                &name,
                "file-extents",
                Prevents::HugeMappings,
                format!("none of its {} extents has 2 MiB that begin at a multiple of that both in the file and in memory", pieces.len()),
                format!("copy it: fallocate -l {} NEW && cp --reflink=never {quoted} NEW; a file system made with mkfs.ext4 -E stride=512,stripe_width=512 or mkfs.xfs -d su=2m,sw=1 aligns them", metadata.len()),
            ));
        }
        let probe = probe::file(path, &opened, window)?;
        self.report.probes.push(probe);
        Ok(())
    }

    fn file_without_dax(
        &mut self,
        path: &Path,
        opened: &File,
        attributes: StatxAttributes,
        mount: &Mount,
    ) {
        /// `FS_JOURNAL_DATA_FL` and `FS_INLINE_DATA_FL` of linux/fs.h.
        const JOURNAL_DATA: u32 = 0x4000;
        const INLINE_DATA: u32 = 0x1000_0000;
        let flags = rustix::fs::ioctl_getflags(opened).map_or(0, |flags| flags.bits());
        let flagged = xattr::flags(opened).unwrap_or(0) & xattr::DAX != 0;
        let quoted = shell_path(path);
        let copy = format!("cp --reflink=never {quoted} NEW");
        let (cause, evidence, command) = if attributes.contains(StatxAttributes::ENCRYPTED) {
            (
                "file-encrypted",
                "it is encrypted (fscrypt)",
                format!("{copy}, into a directory that is not encrypted"),
            )
        } else if attributes.contains(StatxAttributes::VERITY) {
            (
                "file-verity",
                "it has fs-verity, which reads by the page cache",
                copy,
            )
        } else if flags & JOURNAL_DATA != 0 {
            (
                "file-data-journal",
                "it has the attribute j: ext4 writes its data twice, by the page cache",
                format!("chattr -j {quoted}, and close it everywhere"),
            )
        } else if flags & INLINE_DATA != 0 {
            (
                "file-inline",
                "its data is in its inode",
                "back up all files, then: mkfs.ext4 -O ^inline_data on its device".into(),
            )
        } else if mount.dax == Dax::PerFile && !flagged {
            (
                "no-dax-flag",
                "its mount has dax=inode, and it has no flag FS_XFLAG_DAX",
                format!(
                    "xfs_io -c 'chattr +x' {quoted}, close it everywhere, echo 2 >/proc/sys/vm/drop_caches"
                ),
            )
        } else if mount.dax == Dax::PerFile {
            (
                "dax-flag-not-yet",
                "it has the flag FS_XFLAG_DAX, which takes effect when its inode is read again",
                "close it everywhere, then: echo 2 >/proc/sys/vm/drop_caches".into(),
            )
        } else {
            return;
        };
        let finding = Finding::new(printable(path), cause, Prevents::Dax, evidence, command);
        self.found(match cause {
            "file-inline" => finding.destroying(),
            _ => finding,
        });
    }
}

/// What to do about a namespace that is bound to no driver.
fn no_driver(host: &Host, entry: &NamespaceInfo) -> Finding {
    let name = entry.device.to_string();
    let drivers = host.path("sys/bus/nd/drivers");
    let loaded = ["rust_pmem", "nd_pmem"]
        .into_iter()
        .find(|driver| drivers.join(driver).exists());
    let command = match (entry.device.kind, loaded) {
        (Kind::Dax, _) => format!(
            "modprobe dax_pmem; ndctl enable-namespace {}",
            entry.namespace
        ),
        (_, None) => "modprobe rust_pmem".to_owned(),
        (Kind::Namespace, _) => format!("ndctl enable-namespace {}", entry.namespace),
        // ndctl cannot enable a namespace that is claimed.
        (_, Some(driver)) => format!("echo {name} >/sys/bus/nd/drivers/{driver}/bind"),
    };
    let what = "it is bound to no driver";
    Finding::new(name, "no-driver", Prevents::All, what, command)
}

/// What the mode of a namespace prevents. `dax`: its disk has DAX; `start`: where its data begins.
fn unsuitable_mode(
    entry: &NamespaceInfo,
    driver: &str,
    dax: bool,
    start: Option<u64>,
) -> Option<Finding> {
    let name = entry.device.to_string();
    let again = |options: &str| {
        format!(
            "ndctl create-namespace -f -e {} -m {options}",
            entry.namespace
        )
    };
    let finding = match entry.mode {
        Mode::Sector => Finding::new(
            name,
            "sector-mode",
            Prevents::Dax,
            "it is in sector mode, whose blocks move with each write",
            again("fsdax"),
        )
        .destroying(),
        Mode::Raw if !dax => Finding::new(
            name,
            "raw-mode",
            Prevents::Dax,
            "it is in raw mode, and its memory has no struct pages",
            again("fsdax"),
        )
        .destroying(),
        Mode::Fsdax if !dax => Finding::new(
            &name,
            "disk-without-dax",
            Prevents::Dax,
            format!("queue/dax of its disk is 0 with {driver}"),
            format!("pmemctl swap-driver {name}; the kernel's log says more"),
        ),
        Mode::Devdax if entry.alignment.is_some_and(|align| align < HUGE) => Finding::new(
            name,
            "namespace-alignment",
            Prevents::HugeMappings,
            "device DAX maps it by pages of 4 KiB, its alignment",
            again("devdax -a 2M"),
        )
        .destroying(),
        Mode::Raw | Mode::Fsdax if start.is_some_and(|start| start % HUGE != 0) => Finding::new(
            name,
            "namespace-alignment",
            Prevents::HugeMappings,
            format!(
                "its data begins at {:#x}, no multiple of 2 MiB",
                start.unwrap_or(0)
            ),
            again("fsdax -a 2M"),
        )
        .destroying(),
        _ => return None,
    };
    Some(finding)
}

/// Returns whether a volume, or one on it, has the device number.
fn leads_to(volume: &Volume, number: DeviceNumber) -> bool {
    volume.number().is_ok_and(|own| own == number)
        || volume.children.iter().any(|child| leads_to(child, number))
}

/// Whether an ext4 has a feature, as dumpe2fs(8) names it.
fn has_feature(node: &str, feature: &str) -> Result<bool> {
    match ext4::Header::read(node)? {
        Ok(header) => Ok(header.has(feature)),
        Err(reason) => bail!(reason),
    }
}

/// Resolves a path: a device node, a file, or else its file system.
pub fn scope(path: &Path) -> Result<Scope> {
    use std::os::unix::fs::FileTypeExt;
    let metadata = fs::metadata(path).with_context(|| printable(path))?;
    let kind = metadata.file_type();
    if kind.is_block_device() {
        return Ok(Scope::Volume(DeviceNumber::from_rdev(metadata.rdev())));
    }
    let number = DeviceNumber::from_rdev(metadata.dev());
    match kind.is_file() {
        true => Ok(Scope::File(path.to_owned(), number)),
        false => Ok(Scope::Volume(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_window_is_found() {
        let place = |start, address, length| Place {
            start,
            address,
            length,
        };
        let disk = [place(0, 1 << 32, 1 << 30)];
        for (pieces, fits) in [
            (vec![Extent::new(0, 0, HUGE)], Some(0)),
            (vec![Extent::new(0, PAGE, 4 * HUGE)], None),
            // From the second huge page on, both are aligned.
            (vec![Extent::new(PAGE, PAGE, 3 * HUGE)], Some(HUGE)),
            (vec![Extent::new(0, 0, HUGE - PAGE)], None),
            (
                vec![
                    Extent::new(0, PAGE, PAGE),
                    Extent::new(HUGE, 8 * HUGE, HUGE),
                ],
                Some(HUGE),
            ),
            (vec![Extent::new(0, 1 << 40, HUGE)], None),
            (vec![Extent::new(u64::MAX - PAGE, 0, HUGE)], None),
        ] {
            assert_eq!(window(&pieces, &disk), fits, "{pieces:?}");
        }
        let shifted = [place(0, (1 << 32) + PAGE, 1 << 30)];
        assert_eq!(window(&[Extent::new(0, 0, 4 * HUGE)], &shifted), None);
        // The second segment starts where the file continues.
        let two = [
            place(0, 1 << 32, HUGE / 2),
            place(HUGE / 2, 1 << 33, 4 * HUGE),
        ];
        assert_eq!(window(&[Extent::new(0, 0, 4 * HUGE)], &two), None);
        assert_eq!(window(&[Extent::new(0, HUGE / 2, 2 * HUGE)], &two), Some(0));
    }

    fn found(host: &Host) -> Vec<Finding> {
        let mut doctor = Doctor {
            host,
            scope: &Scope::All,
            try_files: false,
            seen: false,
            path: Vec::new(),
            report: Report::default(),
        };
        doctor.kernel().unwrap();
        doctor.memory(&[]);
        doctor.report.findings
    }

    fn write(host: &Host, file: &str, text: &str) {
        let path = host.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

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

    #[test]
    fn covered_mount_is_unknown_and_a_mounted_file_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mount = |directory: &Path| Mount {
            directory: directory.into(),
            dax: Dax::Always,
            root: "/".into(),
            options: String::new(),
        };
        let volume = Volume::made_up("pmem0", "259:7", vec![]);
        let mut doctor = Doctor {
            host: &Host::here(),
            scope: &Scope::All,
            try_files: true,
            seen: true,
            path: Vec::new(),
            report: Report::default(),
        };
        for directory in [file.path(), folder.path()] {
            let done = doctor.mount("ext4", &volume, &mount(directory), &[]);
            doctor.note_failure("/srv", done);
        }
        let Report {
            findings,
            probes,
            unknown,
        } = doctor.report;
        assert!(findings.is_empty() && probes.is_empty());
        assert_eq!(unknown.len(), 1);
        assert!(unknown[0].reason.contains("mounted above it"));
    }

    #[test]
    fn dimms_without_region_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        let none = found(&host);
        assert_eq!(none.len(), 1);
        assert_eq!(none[0].cause, "no-persistent-memory");
        assert!(none[0].evidence.contains("NFIT absent, SRAT absent"));

        write(&host, "sys/firmware/acpi/tables/NFIT", "");
        write(&host, "sys/module/nfit/refcnt", "1");
        write(&host, "sys/bus/nd/devices/nmem0/state", "idle");
        write(&host, "sys/bus/nd/devices/nmem1/state", "idle");
        let dimms = found(&host);
        assert_eq!(dimms.len(), 1);
        assert_eq!(dimms[0].cause, "dimms-without-region");
        assert_eq!(dimms[0].place, "2 DIMMs");
        assert!(dimms[0].evidence.contains("NFIT there"));
    }

    #[test]
    fn unloaded_provider_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        write(
            &host,
            "proc/iomem",
            "20000000-21ffffff : Persistent Memory (legacy)\n",
        );
        write(&host, "sys/bus/virtio/devices/virtio3/device", "0x001b\n");
        let causes: Vec<_> = found(&host)
            .into_iter()
            .map(|finding| (finding.place, finding.cause))
            .collect();
        let cause = "no-provider";
        assert_eq!(
            causes,
            [("nd_e820".into(), cause), ("virtio_pmem".into(), cause)]
        );
    }

    #[test]
    fn region_without_namespace_is_reported() {
        let machine = crate::testing::FakeSysfs::new();
        let found = found(&machine.host);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].place.as_str(), found[0].cause),
            ("region0", "no-namespace")
        );
    }

    #[test]
    fn missing_kernel_options_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        write(&host, "proc/sys/kernel/osrelease", "7.2.0-x\n");
        assert_eq!(configuration(&host), None);
        write(
            &host,
            "lib/modules/7.2.0-x/config",
            "CONFIG_ZONE_DEVICE=y\nCONFIG_FS_DAX=y\n# CONFIG_TRANSPARENT_HUGEPAGE is not set\n",
        );
        let kernel: Vec<_> = found(&host)
            .into_iter()
            .filter(|finding| finding.place == "kernel")
            .collect();
        assert_eq!(kernel.len(), 1);
        assert_eq!(kernel[0].prevents, Prevents::HugeMappings);
        assert!(kernel[0].evidence.contains("/lib/modules/7.2.0-x/config"));
        // /proc/config.gz takes precedence.
        let mut packed = Vec::new();
        let mut gzip = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::default());
        std::io::Write::write_all(
            &mut gzip,
            b"CONFIG_FS_DAX=y\nCONFIG_ZONE_DEVICE=y\nCONFIG_TRANSPARENT_HUGEPAGE=y\n",
        )
        .unwrap();
        gzip.finish().unwrap();
        fs::write(host.path("proc/config.gz"), packed).unwrap();
        assert!(found(&host).iter().all(|finding| finding.place != "kernel"));
    }
}
