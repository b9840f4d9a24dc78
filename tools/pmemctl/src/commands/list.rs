// SPDX-License-Identifier: GPL-2.0

//! The command `list`.

use crate::commands::output::{about, json, or_dash, reasons, table};
use crate::commands::page::Page;
use anyhow::{Result, bail};
use clap::Args;
use pmemctl::block::topology::Volume;
use pmemctl::inventory::{self, NamespaceInfo};
use pmemctl::nd::Name;
use pmemctl::nd::device_spec::DeviceSpec;
use pmemctl::sysfs::{Host, printable};
use schemars::JsonSchema;
use serde::Serialize;
use std::io::{self, Write};
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "All devices are listed."),
        ("1", "A device does not exist, or the list cannot be read."),
    ],
    examples: &[
        ("pmemctl list", "List all namespaces."),
        (
            "pmemctl list --json pmem0 | jq '.namespaces[].bad'",
            "Print the bad ranges of a disk.",
        ),
    ],
    see_also: &["ndctl-list(1)", "lsblk(8)"],
    ..Page::EMPTY
};

/// List namespaces, their volumes, file systems and errors
///
/// Prints a row for each namespace and for each volume on its disk. MODE and MEMMAP (where the struct pages are)
/// are as in ndctl; a namespace whose driver creates struct pages without fsdax mode, such as memory of e820, is
/// raw. ALIGN is the alignment of the data area. DAX shows which files of a mount bypass the page cache. Works with
/// both drivers.
#[derive(Args)]
pub struct List {
    /// Print one JSON object, sizes in bytes
    #[arg(long)]
    json: bool,
    /// /dev/pmem0, pmem0, namespace0.0, pfn0.0 or btt0.0; default: all
    #[arg(value_name = "DEVICE")]
    devices: Vec<DeviceSpec>,
}

/// The output of --json.
#[derive(JsonSchema, Serialize)]
pub struct NamespaceList<'a> {
    namespaces: &'a [NamespaceInfo],
}

/// Shows the namespaces. Returns whether all that were named exist.
pub fn list(arguments: &List) -> Result<bool> {
    let host = Host::here();
    let mut entries = inventory::all(&host)?;
    if !arguments.devices.is_empty() {
        let specs = arguments
            .devices
            .iter()
            .map(|device| Ok(device.find(&host)?.name))
            .collect::<Result<Vec<_>>>()?;
        entries.retain(|entry| specs.contains(&entry.device));
        let is_listed = |name: &Name| entries.iter().any(|entry| entry.device == *name);
        if let Some(name) = specs.iter().find(|name| !is_listed(name)) {
            bail!("{name}: it has no memory; \"pmemctl list\" shows what has");
        }
    }
    if arguments.json {
        json(&NamespaceList {
            namespaces: &entries,
        })?;
    } else if entries.is_empty() {
        writeln!(
            io::stderr(),
            "pmemctl: there is no persistent memory; \"ndctl list -RN --idle\" shows regions and namespaces that are not set up"
        )?;
    } else {
        table(&HEADER, &[4, 5, 11], rows(&entries))?;
        for entry in &entries {
            reasons(&entry.device.to_string(), entry.bad_unknown.as_slice())?;
        }
    }
    Ok(true)
}

const HEADER: [&str; 12] = [
    "DISK",
    "DEVICE",
    "MODE",
    "MEMMAP",
    "SIZE",
    "ALIGN",
    "PROVIDER",
    "DRIVER",
    "FILE SYSTEM",
    "MOUNTED",
    "DAX",
    "BAD",
];

fn rows(entries: &[NamespaceInfo]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for entry in entries {
        let first = [
            match &entry.disk {
                Some(disk) => disk.name.clone(),
                None => {
                    or_dash(Some(entry.dax_devices.join(" ")).filter(|names| !names.is_empty()))
                }
            },
            entry.device.to_string(),
            entry.mode.to_string(),
            or_dash(entry.page_map),
            or_dash(entry.size.map(about)),
            or_dash(entry.alignment.map(Size::from_bytes)),
            or_dash(entry.provider.as_ref()),
            or_dash(entry.driver.as_ref()),
        ];
        let bad = match &entry.bad {
            None if entry.bad_unknown.is_some() => "?".to_owned(),
            None => "-".to_owned(),
            Some(bad) if bad.is_empty() => "none".to_owned(),
            Some(bad) => {
                let bytes = bad.iter().map(|bad| bad.length).sum();
                format!("{} in {}", about(bytes), bad.len())
            }
        };
        let mut last = vec![bad];
        match &entry.disk {
            None => row(&mut all, &first, [const { String::new() }; 3], &mut last),
            Some(disk) => volume(&mut all, &first, disk, &mut last),
        }
    }
    all
}

/// The rows of a volume, one for each place where it is mounted, and of what is made of it.
fn volume(all: &mut Vec<Vec<String>>, first: &[String], volume: &Volume, last: &mut Vec<String>) {
    let kind = volume.file_system.clone().unwrap_or_else(|| "-".into());
    if volume.mounts.is_empty() {
        row(all, first, [kind.clone(), "-".into(), "-".into()], last);
    }
    for (index, mount) in volume.mounts.iter().enumerate() {
        let blank = [const { String::new() }; 8];
        let first = if index == 0 { first } else { &blank };
        let middle = [
            kind.clone(),
            printable(&mount.directory),
            mount.dax.to_string(),
        ];
        row(all, first, middle, last);
    }
    for child in &volume.children {
        let mut first = [const { String::new() }; 8];
        first[0] = format!("└─{}", child.name);
        first[4] = about(child.size);
        self::volume(all, &first, child, last);
    }
}

/// One row; `last`, what is said of a disk once, goes to the first.
fn row(all: &mut Vec<Vec<String>>, first: &[String], middle: [String; 3], last: &mut Vec<String>) {
    let last = last.pop().unwrap_or_default();
    all.push(first.iter().cloned().chain(middle).chain([last]).collect());
}
