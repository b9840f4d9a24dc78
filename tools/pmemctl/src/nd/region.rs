// SPDX-License-Identifier: GPL-2.0

//! Regions, and the identity of their memory across reboots.

use crate::nd::{DEVICES, Device};
use crate::sysfs::{self, Host};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

/// A region: memory of one bus, in which namespaces lie.
#[derive(Debug, Clone)]
pub struct Region {
    host: Host,
    /// `region0`.
    pub name: String,
    /// The number in its name.
    pub id: u32,
    pub start: u64,
    /// Its bytes.
    pub size: u64,
}

/// The part of a region on one DIMM or CXL memory device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceExtent {
    /// The id of a DIMM, `VENDOR[-LOCATION-DATE]-SERIAL`, or the serial number of a CXL device.
    pub device: String,
    /// Its first byte, by the device's own count.
    pub start: u64,
    /// Its bytes.
    pub size: u64,
}

/// The identity of the memory of a region, from boot to boot.
///
/// Not `region0` or `pmem0`, which are numbers in the order of discovery; not a namespace's
/// uuid, as errors stay where they are when a namespace is made anew; and not the cookie of an
/// interleave set, which changes with the version of the labels: it is a sum of what is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum Memory {
    /// DIMMs that firmware describes (ACPI NFIT), in the order of their interleaving: they carry
    /// their errors with them, into another socket or machine.
    Dimms { pieces: Vec<DeviceExtent> },
    /// CXL memory devices with a region, whose uuid is in their labels.
    Cxl {
        uuid: String,
        pieces: Vec<DeviceExtent>,
    },
    /// Memory without identity (e820, virtio-pmem, ramdax): its address in this machine.
    Place {
        /// Its provider: `e820`.
        provider: String,
        machine: String,
        start: u64,
    },
}

impl Memory {
    /// Returns the name of its file. It stays the same if the memory is resized or reassembled, so that the old
    /// list is found and refused.
    pub fn file_name(&self) -> String {
        let plain = |text: &str| -> String {
            let fit = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
            text.chars().take(100).map(fit).collect()
        };
        match self {
            Self::Dimms { pieces } => {
                let first = pieces.first();
                let (device, start) = first.map_or(("", 0), |piece| (&*piece.device, piece.start));
                format!("nfit-{}-{start:x}.json", plain(device))
            }
            Self::Cxl { uuid, .. } => format!("cxl-{}.json", plain(uuid)),
            Self::Place {
                provider, start, ..
            } => format!("{}-{start:x}.json", plain(provider)),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = |f: &mut fmt::Formatter<'_>, pieces: &[DeviceExtent]| {
            for (index, piece) in pieces.iter().enumerate() {
                let separator = if index == 0 { "" } else { ", " };
                write!(f, "{separator}{} from {:#x}", piece.device, piece.start)?;
            }
            Ok(())
        };
        match self {
            Self::Dimms { pieces: dimms } => {
                f.write_str("NVDIMM ")?;
                pieces(f, dimms)
            }
            Self::Cxl {
                uuid,
                pieces: devices,
            } => {
                write!(f, "CXL region {uuid} of ")?;
                pieces(f, devices)
            }
            Self::Place {
                provider,
                machine,
                start,
            } => write!(f, "{provider} at {start:#x} of machine {machine}"),
        }
    }
}

impl Region {
    /// All, in the order of their numbers.
    pub fn all(host: &Host) -> Vec<Self> {
        let mut regions: Vec<_> = sysfs::names(&host.path(DEVICES))
            .iter()
            .filter_map(|name| Self::find(host, name.strip_prefix("region")?.parse().ok()?))
            .collect();
        regions.sort_by_key(|region| region.id);
        regions
    }

    /// The one of this number, if its memory can be seen: by root.
    pub fn find(host: &Host, id: u32) -> Option<Self> {
        let name = format!("region{id}");
        let folder = host.path(DEVICES).join(&name);
        Some(Self {
            host: host.clone(),
            start: sysfs::number(folder.join("resource"))?,
            size: sysfs::number(folder.join("size"))?,
            name,
            id,
        })
    }

    pub fn folder(&self) -> PathBuf {
        self.host.path(DEVICES).join(&self.name)
    }

    /// The system that it is a region of.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the bound devices of its namespaces: the namespace or the device that claims it.
    pub fn devices(&self) -> Vec<Device> {
        // `holder` cannot be read while a device is being unbound, which may take until a file is closed.
        Device::all(&self.host)
            .into_iter()
            .filter(|device| device.name.region == self.id && device.driver().is_some())
            .collect()
    }

    /// Returns the range of a namespace in the region.
    pub fn bytes_of(&self, namespace: &Device) -> Option<Range<u64>> {
        let start = sysfs::number(namespace.folder().join("resource"))?;
        let size = sysfs::number(namespace.folder().join("size"))?;
        self.bytes(start, size)
    }

    /// Returns the range at a physical address in the region.
    pub fn bytes(&self, address: u64, size: u64) -> Option<Range<u64>> {
        let start = address.checked_sub(self.start)?;
        let end = start.checked_add(size)?;
        (end <= self.size).then_some(start..end)
    }

    fn bus(&self) -> Option<PathBuf> {
        // The bus lists symbolic links.
        let folder = fs::canonicalize(self.folder()).ok()?;
        Some(folder.parent()?.to_owned())
    }

    /// Returns the provider: `ACPI.NFIT`, `e820`, `virtio-pmem`, `CXL`, `ramdax`.
    pub fn provider(&self) -> Option<String> {
        sysfs::line(self.bus()?.join("provider"))
    }

    /// The name of its bus: `ndbus0`.
    pub fn bus_name(&self) -> Option<String> {
        Some(self.bus()?.file_name()?.to_str()?.to_owned())
    }

    /// Whether the platform keeps a log of its errors, which fills the lists again by itself.
    ///
    /// Its bus has the command that asks for it then, "address range scrub status" (ACPI 6.5,
    /// 9.20.7.5).
    pub fn has_log(&self) -> bool {
        let commands = self
            .bus()
            .and_then(|bus| sysfs::line(bus.join("commands")))
            .unwrap_or_default();
        commands
            .split_whitespace()
            .any(|command| command == "ars_status")
    }

    pub fn memory(&self) -> Result<Memory> {
        let provider = self
            .provider()
            .with_context(|| format!("{} has no provider", self.name))?;
        let pieces = match provider.as_str() {
            "ACPI.NFIT" => self.pieces("nfit/id"),
            "CXL" => self.pieces("cxl/id"),
            _ => None,
        };
        match (pieces, provider.as_str()) {
            (Some(pieces), "ACPI.NFIT") => Ok(Memory::Dimms { pieces }),
            (Some(pieces), "CXL") => Ok(Memory::Cxl {
                uuid: self
                    .cxl_attribute("uuid")
                    .context("its CXL region has no uuid")?,
                pieces,
            }),
            _ => Ok(Memory::Place {
                provider,
                machine: machine(&self.host)?,
                start: self.start,
            }),
        }
    }

    /// The folder of the CXL region that it is.
    pub fn cxl(&self) -> Option<PathBuf> {
        let devices = self.host.path("sys/bus/cxl/devices");
        sysfs::names(&devices)
            .into_iter()
            .filter(|name| name.starts_with("region"))
            .map(|name| devices.join(name))
            .find(|folder| sysfs::number(folder.join("resource")) == Some(self.start))
    }

    fn cxl_attribute(&self, name: &str) -> Option<String> {
        sysfs::line(self.cxl()?.join(name)).filter(|value| !value.is_empty())
    }

    /// Returns the devices of the region; `None` unless each has a unique id.
    fn pieces(&self, id: &str) -> Option<Vec<DeviceExtent>> {
        let count = sysfs::number(self.folder().join("mappings"))?;
        let devices = self.host.path(DEVICES);
        let known = |name: &str| {
            // No serial number, or the default one.
            let value = sysfs::line(devices.join(name).join(id))?;
            let serial = value.rsplit('-').next()?.to_ascii_lowercase();
            let blank = |digit| serial.chars().all(|c| c == digit);
            (!serial.is_empty() && !blank('0') && !blank('f')).then_some(value)
        };
        let all: Vec<_> = sysfs::names(&devices)
            .iter()
            .filter(|name| name.starts_with("nmem"))
            .filter_map(|name| known(name))
            .collect();
        let pieces: Option<Vec<_>> = (0..count)
            .map(|index| {
                // nmem0,START,SIZE,POSITION
                let line = sysfs::line(self.folder().join(format!("mapping{index}")))?;
                let mut words = line.split(',');
                let device = known(words.next()?)?;
                let unique = all.iter().filter(|other| **other == device).count() == 1;
                let start = words.next()?.parse().ok()?;
                let size = words.next()?.parse().ok()?;
                let position: u64 = words.next()?.parse().ok()?;
                let piece = DeviceExtent {
                    device,
                    start,
                    size,
                };
                unique.then_some((position, piece))
            })
            .collect();
        let mut pieces = pieces.filter(|pieces| !pieces.is_empty())?;
        pieces.sort_by_key(|(position, _)| *position);
        Some(pieces.into_iter().map(|(_, piece)| piece).collect())
    }
}

/// Returns the id of the installation (machine-id(5)), else of the board.
fn machine(host: &Host) -> Result<String> {
    let hex = |text: String| -> Option<String> {
        let digits: String = text.chars().filter(|&c| c != '-').collect();
        let digits = digits.to_ascii_lowercase();
        let good = digits.len() == 32 && digits.chars().all(|c| c.is_ascii_hexdigit());
        let blank = digits.chars().all(|c| c == '0') || digits.chars().all(|c| c == 'f');
        (good && !blank).then_some(digits)
    };
    let id = ["etc/machine-id", "sys/class/dmi/id/product_uuid"]
        .into_iter()
        .find_map(|file| hex(sysfs::line(host.path(file))?));
    ensure!(
        id.is_some(),
        "this machine has no id by which its memory could be known again: systemd-machine-id-setup makes one"
    );
    id.context("no id")
}
