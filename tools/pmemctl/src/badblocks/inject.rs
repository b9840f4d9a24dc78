// SPDX-License-Identifier: GPL-2.0

//! Injects errors for testing, and removes repaired errors from the lists.

use crate::badblocks::origin::{SECTOR, sectors};
use crate::block::devno::DeviceNumber;
use crate::block::disk::Disk;
use crate::nd::device_spec::DeviceSpec;
use crate::nd::{Device, Kind};
use crate::sysfs::{self, Host, printable};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use units::PAGE;

/// Memory that somebody named: bytes of a namespace.
#[derive(Debug, Clone)]
pub struct Place {
    /// The device that has the driver.
    pub device: Device,
    /// Which bytes, from the start of the namespace.
    pub bytes: Range<u64>,
    /// Where the disk's data begins, from there.
    data: u64,
}

/// How an error is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Injection {
    /// Listed, and the memory taken away as after a machine check.
    Poison,
    List,
}

/// The name of the disk or partition that is meant, if one is.
fn disk_name(host: &Host, spec: &DeviceSpec) -> Result<Option<String>> {
    match spec {
        DeviceSpec::Disk(name) => Ok(Some(name.clone())),
        DeviceSpec::Node(path) => {
            let status = fs::metadata(host.absolute(path)).with_context(|| spec.to_string())?;
            let number = DeviceNumber::from_rdev(status.rdev());
            let link = host.path(format!("sys/dev/block/{number}"));
            Ok(sysfs::link_name(link))
        }
        DeviceSpec::Bus(_) => Ok(None),
    }
}

impl Place {
    /// `length` bytes from `offset`: of the data where a disk or partition was named, else of the
    /// namespace.
    pub fn find(host: &Host, spec: &DeviceSpec, offset: u64, length: u64) -> Result<Self> {
        let (device, start, size) = match disk_name(host, spec)? {
            Some(name) => Self::of_disk(host, &name).with_context(|| spec.to_string())?,
            None => (spec.find(host)?, None, None),
        };
        let namespace = device
            .namespace()
            .and_then(|name| Device::find(host, name))
            .with_context(|| format!("{spec}: it has no memory"))?;
        let folder = namespace.folder();
        let whole = sysfs::number(folder.join("size")).context("its namespace has no size")?;
        let data = device
            .data_offset()
            .with_context(|| format!("{spec}: the offset of its data is not visible"))?;
        let size = size.unwrap_or(whole);
        let end = offset.checked_add(length).filter(|end| *end <= size);
        ensure!(
            end.is_some(),
            "{spec}: {length} bytes from {offset} are not in its {size}"
        );
        ensure!(
            sectors(offset, length).is_some(),
            "{length} bytes from {offset} are not whole sectors of {SECTOR} bytes"
        );
        let start = start.map_or(0, |start| start + data) + offset;
        ensure!(start + length <= whole, "{spec}: it ends before that");
        Ok(Self {
            device,
            bytes: start..start + length,
            data,
        })
    }

    /// The device behind a disk or partition, its first byte on the disk, and its bytes.
    fn of_disk(host: &Host, name: &str) -> Result<(Device, Option<u64>, Option<u64>)> {
        let folder = fs::canonicalize(host.path("sys/class/block").join(name))
            .with_context(|| format!("there is no disk {name:?}"))?;
        let size = sysfs::number(folder.join("size")).context("it has no size")?;
        let (whole, start) = match sysfs::number(folder.join("start")) {
            Some(start) if folder.join("partition").exists() => {
                let whole = folder.parent().and_then(Path::file_name);
                (whole.and_then(|name| name.to_str()), start)
            }
            _ => (Some(name), 0),
        };
        let owner = whole
            .and_then(|name| Disk::find(host, name)?.owner())
            .context("not persistent memory")?;
        ensure!(
            owner.kind != Kind::Btt,
            "in sector mode a sector has no place of its own: name the namespace"
        );
        let device = Device::find(host, owner).context("its device has gone")?;
        Ok((device, Some(start * SECTOR), Some(size * SECTOR)))
    }

    /// Makes an error of it.
    pub fn inject(&self, host: &Host, how: Injection) -> Result<()> {
        let Range { start, end } = self.bytes;
        let length = end - start;
        let (file, verb) = match how {
            Injection::Poison => (
                host.path("sys/kernel/debug/rust_pmem")
                    .join(self.device.name.to_string()),
                "poison",
            ),
            Injection::List => (self.device.errors_list(), "add"),
        };
        if how == Injection::Poison {
            ensure!(
                start % PAGE == 0 && length % PAGE == 0,
                "memory fails in pages of {PAGE} bytes: {length} bytes from {start} of the namespace are not whole ones (--list-only takes sectors)"
            );
        }
        if file.exists() {
            let command = format!("{verb} {start} {length}");
            return sysfs::store(&file, &command)
                .with_context(|| format!("{}: {command}", printable(&file)));
        }
        let plain = how == Injection::List && self.device.driver().as_deref() == Some("nd_pmem");
        if let Some(disk) = self.device.disk().filter(|_| plain) {
            let first = start.checked_sub(self.data);
            let own = first.and_then(|first| sectors(first, length));
            let own = own.context("nd_pmem lists no errors in front of the data")?;
            return disk.add_bad(&[own].into_iter().collect());
        }
        bail!(
            "there is no {}: load rust_pmem with inject=1, on a kernel that is not locked down",
            printable(&file)
        )
    }

    /// Takes it off the kernel's lists, if it can be read again.
    pub fn clear(&self) -> Result<()> {
        let Range { start, end } = self.bytes;
        let file = self.device.errors_list();
        ensure!(
            file.exists(),
            "there is no {}: only rust_pmem removes errors from its list; overwriting them does so as well",
            printable(&file)
        );
        let command = format!("drop {start} {}", end - start);
        sysfs::store(&file, &command).with_context(|| format!("{}: {command}", printable(&file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    const MIB: u64 = 1 << 20;

    /// With a partition from sector 4096 on, of 1 MiB.
    fn partitioned() -> FakeSysfs {
        let machine = FakeSysfs::new();
        let block = "sys/devices/ndbus0/region0/pfn0.0/block/pmem0";
        for (file, text) in [
            ("size", "63488"),
            ("pmem0p1/partition", "1"),
            ("pmem0p1/start", "4096"),
            ("pmem0p1/size", "2048"),
        ] {
            machine.write(&format!("{block}/{file}"), text);
        }
        let class = machine.host.path("sys/class/block");
        fs::create_dir_all(&class).unwrap();
        for name in ["pmem0", "pmem0/pmem0p1"] {
            let short = name.rsplit('/').next().unwrap();
            let target = format!("../../devices/ndbus0/region0/pfn0.0/block/{name}");
            symlink(&target, class.join(short)).unwrap();
        }
        let whole = machine.host.path("sys/block");
        fs::remove_dir_all(whole.join("pmem0")).unwrap();
        let target = "../devices/ndbus0/region0/pfn0.0/block/pmem0";
        symlink(target, whole.join("pmem0")).unwrap();
        machine
    }

    fn place(machine: &FakeSysfs, name: &str, offset: u64, length: u64) -> Result<Range<u64>> {
        let place = Place::find(&machine.host, &name.parse().unwrap(), offset, length)?;
        assert_eq!(place.device.name.to_string(), "pfn0.0");
        Ok(place.bytes)
    }

    #[test]
    fn offset_counts_from_named_device() {
        let machine = partitioned();
        for (name, start) in [
            ("namespace0.0", 0),
            ("pfn0.0", 0),
            ("pmem0", MIB),
            ("pmem0p1", 3 * MIB),
        ] {
            let found = place(&machine, name, 4096, 512).unwrap();
            assert_eq!(found, start + 4096..start + 4608, "{name}");
        }
    }

    #[test]
    fn range_outside_device_is_refused() {
        let machine = partitioned();
        let whole = [("namespace0.0", 32), ("pmem0", 31), ("pmem0p1", 1)];
        for (name, mib) in whole {
            let size = mib * MIB;
            assert!(place(&machine, name, 0, size).is_ok(), "{name}");
            for (offset, length) in [
                (size, 512),
                (0, size + 512),
                (512, size),
                (0, 0),
                (1, 512),
                (0, 511),
                (u64::MAX, 512),
                (u64::MAX - 511, 512),
                (512, u64::MAX - 511),
                (1 << 63, 1 << 63),
            ] {
                let found = place(&machine, name, offset, length);
                assert!(found.is_err(), "{name}: {length} from {offset}: {found:?}");
            }
        }
        assert!(place(&machine, "pmem1", 0, 512).is_err());
    }

    proptest! {
        #[test]
        fn sector_is_same_by_each_name(sector in 0_u64..2048) {
            let machine = partitioned();
            let offset = sector * SECTOR;
            let by_part = place(&machine, "pmem0p1", offset, SECTOR).unwrap();
            let by_disk = place(&machine, "pmem0", offset + 2 * MIB, SECTOR).unwrap();
            let by_namespace = place(&machine, "namespace0.0", offset + 3 * MIB, SECTOR).unwrap();
            prop_assert_eq!(&by_part, &by_disk);
            prop_assert_eq!(&by_part, &by_namespace);
        }
    }
}
