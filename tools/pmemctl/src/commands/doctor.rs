// SPDX-License-Identifier: GPL-2.0

//! The command `doctor`.

use crate::commands::output::{Status, json, reasons, root, table};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::doctor::probe::Probe;
use pmemctl::doctor::{self, Finding, Report, Scope};
use pmemctl::nd::device_spec::DeviceSpec;
use pmemctl::sysfs::Host;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "No cause was found."),
        ("1", "A cause was found."),
        (
            "4",
            "The target, or a part of it, cannot be examined; causes may be shown.",
        ),
    ],
    examples: &[
        ("pmemctl doctor", "Check all namespaces and mounts."),
        (
            "pmemctl doctor /srv/db/t.17",
            "Check a file and everything below it.",
        ),
    ],
    see_also: &["pmemctl-list(1)", "pmemctl-plan(1)"],
    ..Page::EMPTY
};

/// Find bad blocks, and why DAX or huge mappings do not work
///
/// Checks the kernel, the namespace, its partitions and volumes, the file system, the mount and the file, and names
/// each cause with the command that fixes it. Then tries it: on a mount with an unnamed file of 4 MiB that is gone
/// when the command ends, on a file by reading 2 MiB through a mapping. Bad blocks on the lists are findings as well.
#[derive(Args)]
pub struct Doctor {
    /// Do not create a file on the mounts
    #[arg(long)]
    no_probe: bool,
    /// Print one JSON object with "findings", "probes" and "unknown", which could not be examined
    #[arg(long)]
    json: bool,
    /// A device (/dev/pmem0, namespace0.0, a partition, a volume), a mount, or a file; default: all
    #[arg(value_name = "TARGET")]
    target: Option<PathBuf>,
}

/// Shows what is wrong; `Unknown` where something could not be examined.
pub fn doctor(arguments: &Doctor) -> Result<Status> {
    let host = root("doctor")?;
    let scope = match &arguments.target {
        None => Scope::All,
        Some(path) => scope(&host, path)?,
    };
    let report = doctor::examine(&host, &scope, !arguments.no_probe)?;
    let status = status(&report);
    if arguments.json {
        json(&report)?;
        return Ok(status);
    }
    if !report.probes.is_empty() {
        table(&PROBES, &[], report.probes.iter().map(probe))?;
    }
    if status == Status::Good {
        writeln!(io::stdout(), "Nothing is wrong.")?;
    } else {
        let mut out = io::stdout().lock();
        for one in &report.findings {
            write!(out, "{}", finding(one))?;
        }
    }
    for unknown in &report.unknown {
        reasons(&unknown.place, std::slice::from_ref(&unknown.reason))?;
    }
    Ok(status)
}

fn status(report: &Report) -> Status {
    match (report.findings.is_empty(), report.unknown.is_empty()) {
        (_, false) => Status::Unknown,
        (false, true) => Status::Bad,
        (true, true) => Status::Good,
    }
}

/// Resolves an argument: the name of a device as the other commands take it, or a path.
fn scope(host: &Host, path: &Path) -> Result<Scope> {
    let name = path.to_str().filter(|_| !path.exists());
    match name.map(str::parse::<DeviceSpec>) {
        Some(Ok(spec)) => {
            let device = spec.find(host)?;
            Ok(match (&spec, device.disk()) {
                // A partition has its own device number.
                (DeviceSpec::Disk(name), _) if Path::new("/dev").join(name).exists() => {
                    doctor::scope(&Path::new("/dev").join(name))?
                }
                _ => Scope::Namespace(device.name),
            })
        }
        _ => doctor::scope(path),
    }
}

const PROBES: [&str; 4] = ["TESTED", "DAX", "MAP_SYNC", "HUGE MAPPINGS"];

fn probe(probe: &Probe) -> Vec<String> {
    let word = |seen: bool| if seen { "yes" } else { "no" }.to_owned();
    vec![
        probe.path.clone(),
        word(probe.dax),
        word(probe.map_sync),
        match (&probe.huge, &probe.reason) {
            (Some(huge), _) => word(*huge),
            (None, Some(reason)) => format!("not tried: {reason}"),
            (None, None) => "not tried".into(),
        },
    ]
}

/// Formats a cause with its sign and its remedy, as lines: commands are too long for a table.
fn finding(finding: &Finding) -> String {
    let loses = if finding.destroys {
        "    (that loses the data)\n"
    } else {
        ""
    };
    format!(
        "{}: {} prevents {}\n    seen:  {}\n    fix:   {}\n{loses}",
        finding.place, finding.cause, finding.prevents, finding.evidence, finding.command
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use pmemctl::doctor::{Prevents, Severity, Unknown};

    #[test]
    fn what_cannot_be_examined_is_no_bad_block() {
        let mut report = Report::default();
        assert_eq!(status(&report), Status::Good);
        report.findings.push(Finding {
            place: "pmem0".into(),
            cause: "bad-blocks",
            severity: Severity::Error,
            prevents: Prevents::Reads,
            evidence: String::new(),
            command: String::new(),
            destroys: false,
        });
        assert_eq!(status(&report), Status::Bad);
        report.unknown.push(Unknown {
            place: "/srv".into(),
            reason: "it cannot be opened".into(),
        });
        assert_eq!(status(&report), Status::Unknown);
    }
}
