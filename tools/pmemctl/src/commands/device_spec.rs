// SPDX-License-Identifier: GPL-2.0

//! Arguments that name devices, mounts or files.

use anyhow::Result;
use clap::Args;
use pmemctl::affected::Target;
use pmemctl::badblocks::persist::STATE_DIR;
use pmemctl::block::topology::Mounts;
use pmemctl::nd::Device;
use pmemctl::nd::device_spec::DeviceSpec;
use pmemctl::nd::region::Region;
use pmemctl::sysfs::Host;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Devices {
    /// All devices
    #[arg(long, conflicts_with = "devices")]
    pub all: bool,
    /// /dev/pmem0, pmem0, namespace0.0, pfn0.0 or btt0.0
    #[arg(value_name = "DEVICE", required_unless_present = "all")]
    devices: Vec<DeviceSpec>,
}

#[derive(Args)]
pub struct StateDir {
    /// The folder of the saved lists
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
}

impl Devices {
    /// Each once. Where one is not there, nothing is done to any.
    pub fn devices(&self, host: &Host) -> Result<Vec<Device>> {
        if self.all {
            let regions = Region::all(host);
            return Ok(regions.iter().flat_map(Region::devices).collect());
        }
        let mut found: Vec<Device> = Vec::new();
        for spec in &self.devices {
            let device = spec.find(host)?;
            if found.iter().all(|other| other.name != device.name) {
                found.push(device);
            }
        }
        Ok(found)
    }

    pub fn regions(&self, host: &Host) -> Result<Vec<Region>> {
        let mut regions = Region::all(host);
        if !self.all {
            let devices = self.devices(host)?;
            let meant = |region: &Region| devices.iter().any(|one| one.name.region == region.id);
            regions.retain(meant);
        }
        Ok(regions)
    }
    /// Returns whether a region has one of them: with `--all` also one that appears later.
    pub fn region_filter(&self, host: &Host) -> Result<impl Fn(&Region) -> bool + use<>> {
        let regions = self.regions(host)?;
        let chosen: Vec<u32> = regions.iter().map(|region| region.id).collect();
        let all = self.all;
        Ok(move |region: &Region| all || chosen.contains(&region.id))
    }
}

/// Resolves an argument: a path, or the name of a device as the other commands take it. A mount has several devices if an
/// XFS has its log or its real-time data on others.
pub fn targets(host: &Host, path: &Path) -> Result<Vec<Target>> {
    let name = path.to_str().filter(|_| !path.exists());
    let disk = match name.map(str::parse::<DeviceSpec>) {
        Some(Ok(spec)) => spec.find(host)?.disk(),
        _ => None,
    };
    if let Some(disk) = disk {
        return Ok(vec![Target::Device(disk.whole.number)]);
    }
    let mut targets = vec![Target::of(path)?];
    if let [Target::Mount(number)] = targets[..] {
        let others = Mounts::here()?.other_devices(host, number);
        targets.extend(others.into_iter().map(Target::Device));
    }
    Ok(targets)
}
