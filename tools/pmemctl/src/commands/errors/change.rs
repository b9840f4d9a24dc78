// SPDX-License-Identifier: GPL-2.0

//! Arguments and output of the commands that change one range of a list.

use crate::commands::output::json;
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::inject::Place;
use pmemctl::nd::device_spec::DeviceSpec;
use pmemctl::sysfs::Host;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::{self, Write};
use std::ops::Range;
use units::Size;

#[derive(Args)]
pub struct Change {
    /// /dev/pmem0, pmem0, a partition of it, or namespace0.0
    #[arg(value_name = "DEVICE")]
    device: DeviceSpec,
    /// From the start of the disk, partition or namespace that is named: 4096, 0x1000, 4K, 1M
    #[arg(value_name = "OFFSET")]
    offset: Size,
    /// A multiple of 512 bytes
    #[arg(value_name = "LENGTH")]
    length: Size,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(JsonSchema, Serialize)]
pub struct ChangeReport {
    pub device: String,
    /// The first byte, from the start of the namespace.
    pub offset: u64,
    pub length: u64,
    /// `injected`, `cleared` or `failed`.
    pub result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Makes a change of a namespace, and reports its place and result.
pub fn change(
    host: &Host,
    arguments: &Change,
    verb: &'static str,
    work: impl FnOnce(&Place) -> Result<()>,
) -> Result<bool> {
    let (offset, length) = (arguments.offset.bytes(), arguments.length.bytes());
    let place = Place::find(host, &arguments.device, offset, length)?;
    let done = work(&place);
    if !arguments.json {
        done?;
        let Range { start, end } = place.bytes;
        writeln!(
            io::stdout(),
            "{verb}: {} at {} of {}",
            Size::from_bytes(end - start),
            Size::from_bytes(start),
            place.device.name
        )?;
        return Ok(true);
    }
    json(&ChangeReport {
        device: place.device.name.to_string(),
        offset: place.bytes.start,
        length: place.bytes.end - place.bytes.start,
        result: if done.is_ok() { verb } else { "failed" },
        reason: done.as_ref().err().map(|error| format!("{error:#}")),
    })?;
    Ok(done.is_ok())
}
