// SPDX-License-Identifier: GPL-2.0

//! Waits for reports of CXL devices about their memory.
//!
//! The kernel passes them on as trace events only: records of a device's event log (CXL 3.1, 8.2.9.2.1), and injected
//! poison. They are collected in a tracing instance (Documentation/trace/ftrace.rst), beside other users of tracing.

use crate::sysfs::Host;
use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

const INSTANCE: &str = "sys/kernel/tracing/instances/pmemctl-cxl";

/// The events, and the records of them to collect. Reading a poison list makes events as well, which are no news.
const EVENTS: [(&str, &str); 3] = [
    ("cxl_general_media", ""),
    ("cxl_dram", ""),
    ("cxl_poison", "trace_type == 1"),
];

/// A tracing instance, removed when dropped. The kernel does not remove one whose events are being read.
struct Instance(PathBuf);

impl Instance {
    fn make(folder: PathBuf) -> Result<Self> {
        match fs::create_dir(&folder) {
            // A process that was killed has left it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.context("cannot trace the events of CXL devices; is tracefs mounted?")?,
        }
        Ok(Self(folder))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.0.join(file), text).with_context(|| format!("cannot set {file} of tracing"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Reports of CXL devices, which can be read from it.
pub struct CxlEvents {
    // Closed before the instance is removed.
    pipe: File,
    _instance: Instance,
}

impl CxlEvents {
    /// Collects reports from now on, until it is dropped.
    pub fn open(host: &Host) -> Result<Self> {
        let instance = Instance::make(host.path(INSTANCE))?;
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(instance.0.join("trace_pipe"))
            .map_err(|error| match error.raw_os_error() {
                Some(code) if code == Errno::BUSY.raw_os_error() => {
                    anyhow!("another \"pmemctl errors import-cxl --follow\" is running")
                }
                _ => anyhow!("cannot read the events of CXL devices: {error}"),
            })?;
        ensure!(
            instance.0.join("events/cxl").is_dir(),
            "the kernel has no trace events of CXL devices"
        );
        // Otherwise poll(2) waits until half of the buffer is full.
        instance.write("buffer_percent", "0")?;
        for (event, filter) in EVENTS {
            if !filter.is_empty() {
                instance.write(&format!("events/cxl/{event}/filter"), filter)?;
            }
            instance.write(&format!("events/cxl/{event}/enable"), "1")?;
        }
        Ok(Self {
            pipe,
            _instance: instance,
        })
    }

    /// Takes all reports that have come; returns whether there were any.
    pub fn take(&self) -> bool {
        let mut buffer = [0; 4096];
        let mut any = false;
        while (&self.pipe).read(&mut buffer).is_ok_and(|count| count > 0) {
            any = true;
        }
        any
    }
}

impl AsFd for CxlEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
