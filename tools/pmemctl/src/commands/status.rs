// SPDX-License-Identifier: GPL-2.0

//! The command `status`.

use crate::commands::device_spec::StateDir;
use crate::commands::output::{self, about, json_object, or_dash, reasons, root, table};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::status::{Health, NamespaceStatus, RegionStatus, Status as State};
use std::io::{self, Write};

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "No list has errors."),
        ("1", "A list has errors."),
        (
            "4",
            "No list has errors, but not all lists can be read, or there is no persistent memory.",
        ),
    ],
    files: &[(
        "/var/lib/pmemctl",
        "The saved lists of errors, one file for each memory.",
    )],
    examples: &[
        ("pmemctl status", "Show all regions and namespaces."),
        (
            "pmemctl status --json | jq -r .health",
            "Print \"healthy\", \"errors\" or \"unknown\".",
        ),
    ],
    see_also: &["pmemctl-list(1)", "pmemctl-errors(1)", "pmemctl-doctor(1)"],
    ..Page::EMPTY
};

/// Show whether persistent memory is healthy
///
/// Prints a row for each namespace, and for each region that has none. ERRORS are the bytes on the kernel's lists,
/// "-" where no list can be read. SAVED says whether the saved list has all errors that do not return by themselves
/// after a reboot. The last line says whether "pmemctl monitor" and "pmemctl errors save --follow" run.
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    place: StateDir,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn status(arguments: &Status) -> Result<output::Status> {
    let host = root("status")?;
    let state = State::read(&host, &arguments.place.state_dir);
    if arguments.json {
        json_object(&state)?;
    } else if state.regions.is_empty() {
        writeln!(
            io::stderr(),
            "pmemctl: there is no persistent memory; \"pmemctl doctor\" says why"
        )?;
    } else {
        table(&HEADER, &[7], state.regions.iter().flat_map(rows))?;
        let word = |runs| if runs { "running" } else { "not running" };
        writeln!(
            io::stdout(),
            "\npmemctl monitor: {}; pmemctl errors save --follow: {}",
            word(state.monitoring),
            word(state.saving)
        )?;
        for one in &state.quarantines {
            let (bytes, file) = (about(one.bytes), &one.file);
            writeln!(io::stdout(), "{}: {bytes} quarantined in {file}", one.mount)?;
        }
        for region in &state.regions {
            reasons(&region.region, &region.reasons)?;
        }
    }
    Ok(match state.health {
        Health::Healthy => output::Status::Good,
        Health::Errors => output::Status::Bad,
        Health::Unknown => output::Status::Untold,
    })
}

const HEADER: [&str; 9] = [
    "REGION",
    "NAMESPACE",
    "DISK",
    "MODE",
    "DRIVER",
    "PROVIDER",
    "READ-ONLY",
    "ERRORS",
    "SAVED",
];

fn rows(region: &RegionStatus) -> Vec<Vec<String>> {
    let saved = match region.saved {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    let row = |namespace: Option<&NamespaceStatus>| {
        let errors = match namespace {
            Some(namespace) => namespace.bad_sectors,
            None => Some(region.bad_sectors),
        };
        vec![
            region.region.clone(),
            or_dash(namespace.map(|namespace| namespace.namespace)),
            or_dash(namespace.and_then(|namespace| namespace.disk.as_ref())),
            or_dash(namespace.map(|namespace| namespace.mode)),
            or_dash(namespace.and_then(|namespace| namespace.driver.as_ref())),
            or_dash(region.provider.as_ref()),
            match namespace.map(|namespace| namespace.read_only) {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            }
            .to_owned(),
            or_dash(errors.map(|sectors| about(sectors * 512))),
            saved.to_owned(),
        ]
    };
    match region.namespaces.as_slice() {
        [] => vec![row(None)],
        namespaces => namespaces.iter().map(|one| row(Some(one))).collect(),
    }
}
