// SPDX-License-Identifier: GPL-2.0

//! Devices as the command line names them.

use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::nd::{self, Device, Kind, Name};
use crate::sysfs::{self, Host, printable};
use anyhow::{Context, Result, anyhow, bail};
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A device as its user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSpec {
    Node(PathBuf),
    /// A disk: `pmem0`.
    Disk(String),
    /// A device of the bus.
    Bus(Name),
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_disk = |rest: &str| {
            rest.starts_with(|c: char| c.is_ascii_digit())
                && rest
                    .chars()
                    .all(|c| c.is_ascii_digit() || ".sp".contains(c))
        };
        if text.starts_with('/') {
            return Ok(Self::Node(text.into()));
        }
        if let Ok(name) = text.parse() {
            return Ok(Self::Bus(name));
        }
        if text.strip_prefix("pmem").is_some_and(is_disk) {
            return Ok(Self::Disk(text.to_owned()));
        }
        Err("write /dev/pmem0, pmem0, namespace0.0, pfn0.0 or btt0.0".into())
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(path) => f.write_str(&printable(path)),
            Self::Disk(name) => f.write_str(name),
            Self::Bus(name) => name.fmt(f),
        }
    }
}

impl DeviceSpec {
    /// The device of the bus that has a driver, or could have.
    pub fn find(&self, host: &Host) -> Result<Device> {
        let name = match self {
            Self::Node(path) => node(host, path).with_context(|| self.to_string())?,
            Self::Disk(name) => disk(host, name).with_context(|| self.to_string())?,
            Self::Bus(name) => *name,
        };
        let Some(device) = Device::find(host, name) else {
            // dax0.0 of ndctl and daxctl may differ from the name on the bus.
            if name.kind == Kind::Dax {
                let class_device = Path::new("/sys/bus/dax/devices").join(name.to_string());
                if let Some(owner) = nd::owner(host, &class_device) {
                    return Device::find(host, owner)
                        .with_context(|| format!("there is no {owner}; see \"pmemctl list\""));
                }
            }
            bail!("there is no {name}; see \"pmemctl list\"");
        };
        Ok(device.claim().unwrap_or(device))
    }
}

/// The device of the bus behind a device node.
fn node(host: &Host, path: &Path) -> Result<Name> {
    let status =
        fs::metadata(host.absolute(path)).map_err(|error| anyhow!(sysfs::error_text(&error)))?;
    let number = DeviceNumber::from_rdev(status.rdev());
    if status.file_type().is_char_device() {
        let class_device = PathBuf::from(format!("/sys/dev/char/{number}"));
        return nd::owner(host, &class_device).context("not persistent memory");
    }
    if !status.file_type().is_block_device() {
        bail!("not a device");
    }
    let name = sysfs::link_name(host.path(format!("sys/dev/block/{number}")));
    disk(
        host,
        &name.with_context(|| format!("no disk has the number {number}"))?,
    )
}

/// The device of the bus that this disk is the disk of.
fn disk(host: &Host, name: &str) -> Result<Name> {
    if let Some(disk) = Disk::find(host, name) {
        return disk
            .owner()
            .with_context(|| format!("{name} is not persistent memory"));
    }
    let partition = host.path("sys/class/block").join(name);
    match fs::canonicalize(partition) {
        Ok(path) => {
            let whole = path.parent().and_then(Path::file_name).unwrap_or_default();
            bail!(
                "{name} is a partition: name its whole disk, {}",
                printable(whole)
            )
        }
        Err(_) => bail!("no such disk; see \"pmemctl list\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_that_is_not_there_has_a_next_step() {
        let machine = crate::testing::FakeSysfs::new();
        for name in ["pmem77", "namespace77.0", "btt77.0", "dax77.0"] {
            let spec: DeviceSpec = name.parse().unwrap();
            let error = format!("{:#}", spec.find(&machine.host).unwrap_err());
            assert!(error.contains(name), "{error}");
            assert!(error.ends_with("see \"pmemctl list\""), "{error}");
        }
    }

    #[test]
    fn device_spec_parses() {
        assert_eq!(
            "/dev/pmem0".parse(),
            Ok(DeviceSpec::Node("/dev/pmem0".into()))
        );
        assert_eq!("pmem0.1s".parse(), Ok(DeviceSpec::Disk("pmem0.1s".into())));
        assert_eq!(
            "btt0.1".parse(),
            Ok(DeviceSpec::Bus("btt0.1".parse().unwrap()))
        );
        for text in [
            "", "pmem", "pmemx", "pmem0/..", "../pmem0", "sda", "region0", "all", "-", "pmem0\n",
        ] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text:?}");
        }
    }
}
