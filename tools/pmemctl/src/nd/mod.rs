// SPDX-License-Identifier: GPL-2.0

//! The `nd` bus: namespaces and the devices that claim them.
//!
//! A namespace in raw mode is bound to its driver. In other modes, according to an info block on it, a device
//! claims the namespace and is bound in its place: `pfn` (fsdax), `btt` (sector) or `dax` (device DAX); see
//! Documentation/driver-api/nvdimm/nvdimm.rst.

pub mod device_spec;
pub mod dimm;
pub mod preference;
pub mod region;

use crate::block::disk::Disk;
use crate::sysfs::{self, Host};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(crate) const DEVICES: &str = "sys/bus/nd/devices";
const DRIVERS: &str = "sys/bus/nd/drivers";

/// The type of a device on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Namespace,
    /// Memory with a page map: fsdax mode.
    Pfn,
    /// Memory behind a block translation table: sector mode.
    Btt,
    /// Memory for programs without a file system: device DAX.
    Dax,
}

const KINDS: [(&str, Kind); 4] = [
    ("namespace", Kind::Namespace),
    ("pfn", Kind::Pfn),
    ("btt", Kind::Btt),
    ("dax", Kind::Dax),
];

/// The name of such a device: `namespace0.0`, `pfn0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub kind: Kind,
    /// The number of its region.
    pub region: u32,
    /// The number among devices of the same type in the region.
    pub id: u32,
}

impl Name {
    /// Returns the command that binds the device to a driver. ndctl cannot enable a namespace that is claimed.
    pub(crate) fn bind_command(&self, driver: &str) -> String {
        match self.kind {
            Kind::Namespace => format!("ndctl enable-namespace {self}"),
            _ => format!("echo {self} >/sys/bus/nd/drivers/{driver}/bind"),
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| -> Option<u32> {
            // Rejects other forms of an integer: +1, 01.
            text.parse().ok().filter(|n: &u32| n.to_string() == text)
        };
        KINDS
            .iter()
            .find_map(|&(prefix, kind)| {
                let (region, id) = text.strip_prefix(prefix)?.split_once('.')?;
                Some(Self {
                    kind,
                    region: number(region)?,
                    id: number(id)?,
                })
            })
            .ok_or_else(|| format!("{text:?} is no device of the nd bus"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = KINDS.iter().find(|(_, kind)| *kind == self.kind);
        let prefix = prefix.map_or("", |(prefix, _)| prefix);
        write!(f, "{prefix}{}.{}", self.region, self.id)
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Name {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(namespace|pfn|btt|dax)[0-9]+\\.[0-9]+$",
        })
    }
}

/// A device of the bus.
#[derive(Debug, Clone)]
pub struct Device {
    host: Host,
    pub name: Name,
}

impl Device {
    /// The one of this name, if there is one.
    pub fn find(host: &Host, name: Name) -> Option<Self> {
        let device = Self {
            host: host.clone(),
            name,
        };
        device.folder().exists().then_some(device)
    }

    /// All namespaces and all that may claim one, in the order of their names.
    pub fn all(host: &Host) -> Vec<Self> {
        let mut devices: Vec<_> = sysfs::names(&host.path(DEVICES))
            .iter()
            .filter_map(|name| Self::find(host, name.parse().ok()?))
            .collect();
        devices.sort_by_key(|device| device.name);
        devices
    }

    pub fn folder(&self) -> PathBuf {
        self.host.path(DEVICES).join(self.name.to_string())
    }

    /// The driver that it is bound to.
    pub fn driver(&self) -> Option<String> {
        sysfs::link_name(self.folder().join("driver"))
    }

    /// The device that claims this namespace.
    pub fn claim(&self) -> Option<Device> {
        let name = sysfs::line(self.folder().join("holder"))?;
        Self::find(&self.host, name.parse().ok()?)
    }

    /// The file that has the errors of its namespace, exactly, if its driver has one.
    pub fn errors_list(&self) -> PathBuf {
        self.folder().join("errors/list")
    }

    /// Where the data of its disk begins, in bytes from the start of its namespace.
    pub fn data_offset(&self) -> Option<u64> {
        if self.name.kind != Kind::Pfn {
            return Some(0);
        }
        let first = sysfs::number(self.folder().join("resource"))?;
        first.checked_sub(self.namespace_address()?)
    }

    /// The physical address of the first byte of its namespace; only root can read it.
    pub fn namespace_address(&self) -> Option<u64> {
        let namespace = Self::find(&self.host, self.namespace()?)?;
        sysfs::number(namespace.folder().join("resource"))
    }

    /// The namespace that this device claims, or is.
    pub fn namespace(&self) -> Option<Name> {
        match self.name.kind {
            Kind::Namespace => Some(self.name),
            _ => sysfs::line(self.folder().join("namespace"))?.parse().ok(),
        }
    }

    /// Returns whether it is a seed: a device without memory, which ndctl configures next.
    pub fn is_seed(&self) -> bool {
        match self.name.kind {
            Kind::Namespace => {
                sysfs::line(self.folder().join("size")).is_some_and(|size| size == "0")
            }
            _ => self.namespace().is_none(),
        }
    }

    pub fn disk(&self) -> Option<Disk> {
        let disks = sysfs::names(&self.folder().join("block"));
        Disk::find(&self.host, disks.first()?)
    }

    /// The character devices of device DAX: `dax0.0`.
    pub fn dax_devices(&self) -> Vec<String> {
        // Below dax_region, which the driver creates.
        let mut found = Vec::new();
        for folder in sysfs::names(&self.folder()) {
            let path = self.folder().join(&folder);
            if !folder.starts_with("dax") || path.is_symlink() {
                continue;
            }
            if path.join("dev").exists() {
                found.push(folder);
            } else {
                let inner = sysfs::names(&path);
                found.extend(
                    inner
                        .into_iter()
                        .filter(|name| path.join(name).join("dev").exists()),
                );
            }
        }
        found
    }
}

/// A driver on the bus.
#[derive(Debug, Clone)]
pub struct Driver {
    folder: PathBuf,
}

impl Driver {
    /// The loaded driver of this name.
    pub fn find(host: &Host, name: &str) -> Option<Self> {
        let folder = host.path(DRIVERS).join(name);
        folder.join("bind").exists().then_some(Self { folder })
    }

    /// Gives it the device; its answer where it refuses.
    pub fn bind(&self, device: Name) -> io::Result<()> {
        sysfs::store(&self.folder.join("bind"), &device.to_string())
    }

    /// Takes the device from it.
    pub fn unbind(&self, device: Name) -> io::Result<()> {
        sysfs::store(&self.folder.join("unbind"), &device.to_string())
    }
}

/// The device of the bus that a disk (`pmem0`), or a device of device DAX (`dax0.0`), belongs to.
pub fn owner(host: &Host, class_device: &Path) -> Option<Name> {
    let path = fs::canonicalize(host.absolute(class_device)).ok()?;
    path.ancestors()
        .skip(1)
        .find_map(|folder| folder.file_name()?.to_str()?.parse().ok())
}

impl Disk {
    /// Its device of the `nd` bus, where it has one.
    pub fn owner(&self) -> Option<Name> {
        owner(self.host(), &Path::new("/sys/block").join(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_name_parses_and_prints() {
        for text in ["namespace0.0", "pfn12.3", "btt0.1", "dax1.0"] {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "pfn",
            "pfn0",
            "pfn0.",
            "pfn.0",
            "pfn0.0.0",
            "pfn-1.0",
            "pfn+1.0",
            "pfn01.0",
            "pfn0.0 ",
            "region0",
            "pmem0",
            "namespace4294967296.0",
            "namespace0.0/../pfn0.0",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
