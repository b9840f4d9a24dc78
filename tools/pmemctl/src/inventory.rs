// SPDX-License-Identifier: GPL-2.0

//! The inventory of persistent memory: each namespace with its mode, driver, disk and volumes.

use crate::badblocks::kernel::bytes;
use crate::block::topology::{self, Mounts, Volume};
use crate::nd::region::Region;
use crate::nd::{Device, Kind, Name};
use crate::sysfs::{self, Host};
use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::ops::Range;

/// The mode of a namespace in ndctl's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Raw,
    /// A disk with `struct page`s for its memory: files can be mapped directly.
    Fsdax,
    /// A disk with atomic sector writes.
    Sector,
    /// Memory for programs without a file system.
    Devdax,
    /// Device DAX that the kernel uses as RAM.
    SystemRam,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw",
            Self::Fsdax => "fsdax",
            Self::Sector => "sector",
            Self::Devdax => "devdax",
            Self::SystemRam => "system-ram",
        })
    }
}

/// Where the `struct page`s of the memory are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemmapLocation {
    Ram,
    Device,
}

impl fmt::Display for MemmapLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ram => "RAM",
            Self::Device => "device",
        })
    }
}

/// A range of bad bytes.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct BadRange {
    /// From the start of the disk.
    pub offset: u64,
    pub length: u64,
}

impl From<&Range<u64>> for BadRange {
    fn from(bytes: &Range<u64>) -> Self {
        Self {
            offset: bytes.start,
            length: bytes.end - bytes.start,
        }
    }
}

/// A namespace, as it is used.
#[derive(Debug, JsonSchema, Serialize)]
pub struct NamespaceInfo {
    /// Its device that has a driver, or could have.
    pub device: Name,
    pub namespace: Name,
    /// `ACPI.NFIT`, `e820`, `virtio-pmem`, `CXL`.
    pub provider: Option<String>,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    pub mode: Mode,
    /// Where its `struct page`s are, if it has some by its mode.
    pub page_map: Option<MemmapLocation>,
    /// Bytes of the namespace.
    pub size: Option<u64>,
    /// Bytes that its data begins at a multiple of: mappings can't be larger.
    pub alignment: Option<u64>,
    /// The NUMA node of the memory.
    pub numa_node: Option<u32>,
    /// Whether its disk refuses to be written.
    pub read_only: bool,
    /// The devices of device DAX.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dax_devices: Vec<String>,
    /// Its disk, with the volumes on it.
    pub disk: Option<Volume>,
    /// The bad ranges of the disk; `null` if there is no list, or if it cannot be read.
    pub bad: Option<Vec<BadRange>>,
    /// Why the list cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_unknown: Option<String>,
}

/// Returns all namespaces in the order of their names.
pub fn all(host: &Host) -> Result<Vec<NamespaceInfo>> {
    let mounts = Mounts::here()?;
    let mut entries = Vec::new();
    for namespace in Device::all(host) {
        if namespace.name.kind == Kind::Namespace && !namespace.is_seed() {
            entries.push(NamespaceInfo::of(host, &namespace, &mounts)?);
        }
    }
    Ok(entries)
}

impl NamespaceInfo {
    pub fn of(host: &Host, namespace: &Device, mounts: &Mounts) -> Result<Self> {
        let device = namespace.claim().unwrap_or_else(|| namespace.clone());
        let folder = device.folder();
        let disk = device.disk();
        let in_bytes = |sectors| BadRange::from(&bytes(sectors));
        let (bad, bad_unknown) = match &disk {
            Some(disk) if disk.whole.folder.join("badblocks").exists() => match disk.bad() {
                Ok(bad) => (Some(bad.ranges().map(in_bytes).collect()), None),
                Err(error) => (None, Some(format!("{error:#}"))),
            },
            _ => (None, None),
        };
        let dax_devices = device.dax_devices();
        Ok(Self {
            device: device.name,
            namespace: namespace.name,
            provider: Region::find(host, namespace.name.region)
                .and_then(|region| region.provider()),
            driver: device.driver(),
            mode: mode(host, device.name.kind, &dax_devices),
            page_map: page_map(sysfs::line(folder.join("mode")).as_deref()),
            size: sysfs::number(namespace.folder().join("size")),
            alignment: sysfs::number(folder.join("align")).filter(|align| *align != 0),
            numa_node: sysfs::line(folder.join("numa_node")).and_then(|node| node.parse().ok()),
            read_only: disk.as_ref().is_some_and(|disk| disk.whole.is_read_only()),
            dax_devices,
            disk: match &disk {
                Some(disk) => Some(topology::of_disk(host, disk.name(), mounts)?),
                None => None,
            },
            bad,
            bad_unknown,
        })
    }
}

/// Parses `mode` of the device; it is `memory` for a namespace whose driver creates struct pages itself.
pub(crate) fn page_map(mode: Option<&str>) -> Option<MemmapLocation> {
    match mode {
        Some("ram" | "memory") => Some(MemmapLocation::Ram),
        Some("pmem") => Some(MemmapLocation::Device),
        _ => None,
    }
}

/// By the kind of the device, and whether the kernel uses it as RAM.
pub(crate) fn mode(host: &Host, kind: Kind, dax_devices: &[String]) -> Mode {
    let is_ram = |name: &String| {
        let device = host.path("sys/bus/dax/devices").join(name);
        sysfs::link_name(device.join("driver")).is_some_and(|driver| driver == "kmem")
    };
    match kind {
        Kind::Namespace => Mode::Raw,
        Kind::Pfn => Mode::Fsdax,
        Kind::Btt => Mode::Sector,
        Kind::Dax if dax_devices.iter().any(is_ram) => Mode::SystemRam,
        Kind::Dax => Mode::Devdax,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use std::os::unix::fs::symlink;

    #[test]
    fn mode_follows_device_kind() {
        let machine = FakeSysfs::new();
        let devices = machine.host.path("sys/bus/dax/devices");
        std::fs::create_dir_all(devices.join("dax0.0")).unwrap();
        symlink("/sys/bus/dax/drivers/kmem", devices.join("dax0.0/driver")).unwrap();
        let ram = ["dax0.0".to_owned()];
        let other = ["dax1.0".to_owned()];

        assert_eq!(mode(&machine.host, Kind::Namespace, &[]), Mode::Raw);
        assert_eq!(mode(&machine.host, Kind::Pfn, &[]), Mode::Fsdax);
        assert_eq!(mode(&machine.host, Kind::Btt, &[]), Mode::Sector);
        assert_eq!(mode(&machine.host, Kind::Dax, &ram), Mode::SystemRam);
        assert_eq!(mode(&machine.host, Kind::Dax, &other), Mode::Devdax);
    }

    #[test]
    fn memmap_location_parses() {
        assert_eq!(page_map(Some("ram")), Some(MemmapLocation::Ram));
        assert_eq!(page_map(Some("pmem")), Some(MemmapLocation::Device));
        assert_eq!(page_map(Some("memory")), Some(MemmapLocation::Ram));
        assert_eq!(page_map(Some("raw")), None);
        assert_eq!(page_map(None), None);
    }

    #[test]
    fn sectors_become_bytes() {
        assert_eq!(
            BadRange::from(&bytes(&(8..16))),
            BadRange {
                offset: 4096,
                length: 4096
            }
        );
    }
}
