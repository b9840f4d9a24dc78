// SPDX-License-Identifier: GPL-2.0

//! A region of the nd bus: its devices, and what they are bound to.

use abstractions::DirectBuffer;
use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const DEVICES: &str = "/sys/bus/nd/devices";
const DRIVERS: &str = "/sys/bus/nd/drivers";
/// Time for a disk's file in /dev.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Region {
    name: String,
    bus: PathBuf,
}

impl Region {
    pub fn new(name: &str) -> Result<Self> {
        let path = Path::new(DEVICES).join(name);
        let path = fs::canonicalize(&path).with_context(|| path.display().to_string())?;
        let bus = path.parent().context("the region has no bus")?;
        Ok(Self {
            name: name.to_owned(),
            bus: bus.to_owned(),
        })
    }

    /// Removes the region's namespaces, and all that has claimed them.
    pub fn disable(&self) -> Result<()> {
        write(&Path::new(DRIVERS).join("nd_region/unbind"), &self.name)
    }

    /// Makes the namespaces anew, and lets drivers probe them; returns after they have.
    pub fn enable(&self) -> Result<()> {
        write(&Path::new(DRIVERS).join("nd_region/bind"), &self.name)?;
        let path = self.bus.join("wait_probe");
        fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    /// Returns the devices that are bound to a driver, and the disks with their capacity, as one line. Numbers
    /// that differ from one probe to the next are left out.
    ///
    /// Fails if a disk is larger than `size` bytes, or a read of it is short. The size of a disk in sector mode is not
    /// checked: nd_btt believes any `external_nlba`.
    pub fn state(&self, size: u64) -> Result<String> {
        let mut state = Vec::new();
        let path = self.bus.join(&self.name);
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let device = entry?.path();
            let Some(name) = device
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
            else {
                continue;
            };
            let kind =
                name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
            if !["namespace", "pfn", "btt", "dax"].contains(&kind)
                || !device.join("driver").exists()
            {
                continue;
            }
            let mut text = kind.to_owned();
            for disk in fs::read_dir(device.join("block")).into_iter().flatten() {
                let most = if kind == "btt" { u64::MAX } else { size };
                text.push_str(&format!(" {}", capacity(&disk?.path(), most)?));
            }
            state.push(text);
        }
        state.sort();
        Ok(match state.is_empty() {
            true => "nothing".to_owned(),
            false => state.join(", "),
        })
    }
}

/// Returns the capacity of a disk in sectors, and checks it.
fn capacity(disk: &Path, size: u64) -> Result<String> {
    let name = disk.file_name().context("the disk has no name")?;
    let path = Path::new("/dev").join(name);
    let text = fs::read_to_string(disk.join("size")).with_context(|| disk.display().to_string())?;
    let sectors: u64 = text.trim().parse()?;
    ensure!(
        sectors <= size / 512,
        "{} has {sectors} sectors: more than its namespace",
        path.display()
    );
    if sectors < 8 {
        return Ok(sectors.to_string());
    }
    let file = open(&path)?;
    let mut buffer = DirectBuffer::new(4096);
    for at in [0, sectors * 512 - 4096] {
        // A read that fails is an answer; one that is short is none.
        if let Ok(length) = file.read_at(buffer.bytes(), at) {
            ensure!(
                length == 4096,
                "{}: {length} bytes read at {at}",
                path.display()
            );
        }
    }
    Ok(sectors.to_string())
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32);
    let mut waited = Duration::ZERO;
    loop {
        match options.open(path) {
            Err(_) if waited < PATIENCE => {}
            file => return file.with_context(|| path.display().to_string()),
        }
        let step = Duration::from_millis(10);
        sleep(step);
        waited += step;
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{}: {text}", path.display()))
}

/// Adds a line to the kernel's log.
pub fn announce(text: &str) -> Result<()> {
    let mut log = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .context("/dev/kmsg")?;
    // Each write is a line.
    log.write_all(format!("pmem-fuzz: {text}\n").as_bytes())
        .context("/dev/kmsg")
}
