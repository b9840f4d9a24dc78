// SPDX-License-Identifier: GPL-2.0

//! Finds bad blocks, and why files on persistent memory have no DAX, `MAP_SYNC` or huge mappings.
//!
//! The cause may be in any layer: the kernel, the namespace and its driver, partitions and volumes, the file
//! system, its mount, the file. Each finding names the layer and the command that fixes it. [`probe`] tests the
//! result on a file.

mod bad_blocks;
mod file;
mod file_system;
mod kernel;
mod memory;
mod namespace;
pub mod probe;
mod volume;

use crate::affected::Survey;
use crate::block::devno::DeviceNumber;
use crate::inventory;
use crate::nd::Name;
use crate::sysfs::{Host, printable};
use anyhow::{Context, Result};
use probe::Probe;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prevents {
    /// Any of it: there is no persistent memory to use.
    All,
    /// Direct access, and with it the rest.
    Dax,
    /// `MAP_SYNC`: stores that are durable without a call of the kernel.
    MapSync,
    /// Mappings by pages of 2 MiB.
    HugeMappings,
    /// Reads of some of the data.
    Reads,
}

impl fmt::Display for Prevents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::All => "all",
            Self::Dax => "DAX",
            Self::MapSync => "MAP_SYNC",
            Self::HugeMappings => "huge mappings",
            Self::Reads => "reads",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// There is no direct access, or data cannot be read.
    Error,
    /// Direct access works, but with limits.
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Finding {
    /// `kernel`, `namespace0.0`, `pmem0p1`, a mount, a file.
    #[serde(rename = "where")]
    pub place: String,
    /// Its name, for programs: `sector-mode`.
    pub cause: &'static str,
    pub severity: Severity,
    pub prevents: Prevents,
    pub evidence: String,
    /// The command or other action that fixes it.
    pub command: String,
    /// The command destroys the data.
    pub destroys: bool,
}

impl Finding {
    fn new(
        place: impl Into<String>,
        cause: &'static str,
        prevents: Prevents,
        evidence: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            cause,
            severity: match prevents {
                Prevents::All | Prevents::Dax | Prevents::Reads => Severity::Error,
                Prevents::MapSync | Prevents::HugeMappings => Severity::Warning,
            },
            prevents,
            evidence: evidence.into(),
            command: command.into(),
            destroys: false,
        }
    }

    fn destroying(self) -> Self {
        Self {
            destroys: true,
            ..self
        }
    }
}

/// The findings and the tests.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub struct Report {
    /// The reasons; none where all works.
    pub findings: Vec<Finding>,
    /// Tests of mounts and files.
    pub probes: Vec<Probe>,
    /// What could not be examined: there may be more findings.
    pub unknown: Vec<Unknown>,
}

/// A place that could not be examined.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Unknown {
    /// `namespace0.0`, a mount, or `bad blocks`.
    #[serde(rename = "where")]
    pub place: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    /// A namespace, by its device.
    Namespace(Name),
    /// A partition, a volume, or the file system on it, by its number.
    Volume(DeviceNumber),
    /// A file, with the number of its file system.
    File(PathBuf, DeviceNumber),
}

impl Scope {
    fn number(&self) -> Option<DeviceNumber> {
        match self {
            Self::Volume(number) | Self::File(_, number) => Some(*number),
            Self::All | Self::Namespace(_) => None,
        }
    }

    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) => Some(path),
            _ => None,
        }
    }
}

/// Examines the scope; with `try_files`, mounts are tested with an unnamed file.
pub fn examine(host: &Host, scope: &Scope, try_files: bool) -> Result<Report> {
    let mut doctor = Doctor {
        host,
        scope,
        try_files,
        seen: false,
        path: Vec::new(),
        report: Report::default(),
    };
    doctor.kernel()?;
    let entries = inventory::all(host)?;
    doctor.memory(&entries);
    for entry in &entries {
        let done = doctor.namespace(entry);
        doctor.note_failure(&entry.device.to_string(), done);
    }
    if doctor.seen || *scope == Scope::All {
        let done = Survey::of(host).map(|survey| doctor.errors(&survey));
        doctor.note_failure("bad blocks", done);
    }
    if !doctor.seen && !matches!(scope, Scope::All) {
        let (place, on) = match scope {
            Scope::File(path, number) => (printable(path), Some(*number)),
            Scope::Volume(number) => (number.to_string(), Some(*number)),
            Scope::Namespace(name) => (name.to_string(), None),
            Scope::All => (String::new(), None),
        };
        let on = on.map_or_else(String::new, |number| format!(" (device {number})"));
        doctor.found(Finding::new(
            place,
            "not-persistent-memory",
            Prevents::All,
            format!("it is on a device{on} that is not persistent memory"),
            "pmemctl list shows persistent memory",
        ));
    }
    Ok(doctor.report)
}

struct Doctor<'a> {
    host: &'a Host,
    scope: &'a Scope,
    try_files: bool,
    /// The target of the examination was found.
    seen: bool,
    /// The namespace and the volumes from there to the current one.
    path: Vec<String>,
    report: Report,
}

/// The place of findings that affect all memory.
const KERNEL: &str = "kernel";

const PROCESS: &str = "this process";

impl Doctor<'_> {
    fn found(&mut self, finding: Finding) {
        self.report.findings.push(finding);
    }

    /// Keeps the reason for a failure, so that it does not hide the findings of other places.
    fn note_failure(&mut self, place: &str, done: Result<()>) {
        if let Err(error) = done {
            self.report.unknown.push(Unknown {
                place: place.to_owned(),
                reason: format!("{error:#}"),
            });
        }
    }
}

/// Resolves a path: a device node, a file, or else its file system.
pub fn scope(path: &Path) -> Result<Scope> {
    use std::os::unix::fs::FileTypeExt;
    let metadata = fs::metadata(path).with_context(|| printable(path))?;
    let kind = metadata.file_type();
    if kind.is_block_device() {
        return Ok(Scope::Volume(DeviceNumber::from_rdev(metadata.rdev())));
    }
    let number = DeviceNumber::from_rdev(metadata.dev());
    match kind.is_file() {
        true => Ok(Scope::File(path.to_owned(), number)),
        false => Ok(Scope::Volume(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn found(host: &Host) -> Vec<Finding> {
        let mut doctor = Doctor {
            host,
            scope: &Scope::All,
            try_files: false,
            seen: false,
            path: Vec::new(),
            report: Report::default(),
        };
        doctor.kernel().unwrap();
        doctor.memory(&[]);
        doctor.report.findings
    }

    pub(super) fn write(host: &Host, file: &str, text: &str) {
        let path = host.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
