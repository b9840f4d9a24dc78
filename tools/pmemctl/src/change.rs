// SPDX-License-Identifier: GPL-2.0

//! Adding errors by hand, to try what they do, and removing those that were repaired elsewhere.

use crate::disk::{Disk, Number};
use crate::errors::{SECTOR, sectors};
use crate::host::{self, Host, printable};
use crate::list;
use crate::nd::{Device, Kind};
use crate::swap::Asked;
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
    /// Listed alone.
    List,
}

/// The name of the disk or partition that is meant, if one is.
fn disk_name(host: &Host, asked: &Asked) -> Result<Option<String>> {
    match asked {
        Asked::Disk(name) => Ok(Some(name.clone())),
        Asked::Node(path) => {
            let status = fs::metadata(host.absolute(path)).with_context(|| asked.to_string())?;
            let number = Number::from_rdev(status.rdev());
            let link = host.path(format!("sys/dev/block/{number}"));
            Ok(host::link_name(link))
        }
        Asked::Bus(_) => Ok(None),
    }
}

impl Place {
    /// `length` bytes from `offset`: of the data where a disk or partition was named, else of the
    /// namespace.
    pub fn find(host: &Host, asked: &Asked, offset: u64, length: u64) -> Result<Self> {
        let (device, start, size) = match disk_name(host, asked)? {
            Some(name) => Self::of_disk(host, &name).with_context(|| asked.to_string())?,
            None => (asked.find(host)?, None, None),
        };
        let namespace = device
            .namespace()
            .and_then(|name| Device::find(host, name))
            .with_context(|| format!("{asked}: there is no memory behind it"))?;
        let folder = namespace.folder();
        let whole = host::number(folder.join("size")).context("its namespace has no size")?;
        let data = match device.name.kind {
            Kind::Pfn => {
                let first = host::number(device.folder().join("resource"));
                let all = host::number(folder.join("resource"));
                first
                    .zip(all)
                    .and_then(|(first, all)| first.checked_sub(all))
                    .with_context(|| format!("{asked}: where its data begins can't be seen"))?
            }
            _ => 0,
        };
        let size = size.unwrap_or(whole);
        let end = offset.checked_add(length).filter(|end| *end <= size);
        ensure!(
            end.is_some(),
            "{asked}: {length} bytes from {offset} are not in its {size}"
        );
        ensure!(
            sectors(offset, length).is_some(),
            "{length} bytes from {offset} are not whole sectors of {SECTOR} bytes"
        );
        let start = start.map_or(0, |start| start + data) + offset;
        ensure!(start + length <= whole, "{asked}: it ends before that");
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
        let size = host::number(folder.join("size")).context("it has no size")?;
        let (whole, start) = match host::number(folder.join("start")) {
            Some(start) if folder.join("partition").exists() => {
                let whole = folder.parent().and_then(Path::file_name);
                (whole.and_then(|name| name.to_str()), start)
            }
            _ => (Some(name), 0),
        };
        let owner = whole
            .and_then(|name| Disk::find(host, name)?.owner())
            .context("it is no persistent memory")?;
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
        let file = host
            .path("sys/kernel/debug/rust_pmem")
            .join(self.device.name.to_string());
        let verb = match how {
            Injection::Poison => "poison",
            Injection::List => "add",
        };
        if how == Injection::Poison {
            ensure!(
                start % PAGE == 0 && length % PAGE == 0,
                "memory fails in pages of {PAGE} bytes: {length} bytes from {start} of the namespace are not whole ones (--list-only takes sectors)"
            );
        }
        if file.exists() {
            let command = format!("{verb} {start} {length}");
            return host::store(&file, &command)
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
            "there is no {}: rust_pmem takes errors when it was loaded with inject=1, and the kernel is not locked down",
            printable(&file)
        )
    }

    /// Takes it off the kernel's lists, if it can be read again.
    pub fn clear(&self) -> Result<()> {
        let Range { start, end } = self.bytes;
        let file = list::exact(&self.device);
        ensure!(
            file.exists(),
            "there is no {}: only rust_pmem takes errors off its list, by itself when they are written over",
            printable(&file)
        );
        let command = format!("drop {start} {}", end - start);
        host::store(&file, &command).with_context(|| format!("{}: {command}", printable(&file)))
    }
}
