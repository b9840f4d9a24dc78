// SPDX-License-Identifier: GPL-2.0

//! The command `status`.

use crate::commands::device_spec::StateDir;
use crate::commands::output::{self, about, json, or_dash, reasons, root, table};
use anyhow::Result;
use clap::Args;
use pmemctl::status::{Health, NamespaceStatus, RegionStatus, Status as State};
use std::io::{self, Write};

/// Show on one screen whether persistent memory is healthy
///
/// A row for each namespace, and for each region that has none. ERRORS are the bytes on the kernel's lists, "-" where no
/// list can be read; SAVED says whether the saved list has all of them that do not come back by themselves.
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
        json(&state)?;
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
