// SPDX-License-Identifier: GPL-2.0

//! The health of DIMMs, from ndctl(1).

use crate::nd::DEVICES;
use crate::programs;
use crate::sysfs::{self, Host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::Duration;

/// The health of a DIMM; `null` for values that its firmware does not report.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema, Serialize)]
pub struct Dimm {
    /// `nmem0`.
    pub dimm: String,
    /// Vendor, place and date of manufacture, serial number.
    pub id: Option<String>,
    /// `ok`, `non-critical`, `critical`, `fatal`.
    pub health: Option<String>,
    /// The rest of its life, in percent.
    pub life_left: Option<u64>,
    /// The rest of its spare blocks, in percent.
    pub spares_left: Option<u64>,
    /// The temperature of the media, in degrees Celsius.
    pub temperature: Option<f64>,
    /// Times that power was lost before all data was durable.
    pub unsafe_shutdowns: Option<u64>,
}

/// A DIMM in the output of ndctl.
#[derive(Deserialize)]
struct NdctlDimm {
    dev: String,
    id: Option<String>,
    health: Option<Health>,
}

#[derive(Deserialize)]
struct Health {
    health_state: Option<String>,
    life_used_percentage: Option<u64>,
    spares_percentage: Option<u64>,
    temperature_celsius: Option<f64>,
    shutdown_count: Option<u64>,
}

/// The firmware of a failing DIMM may not answer.
const TIME: Duration = Duration::from_secs(10);

/// Returns the DIMMs whose firmware reports health; none without ndctl, or if one does not answer.
pub fn all(host: &Host) -> Vec<Dimm> {
    let names = sysfs::names(&host.path(DEVICES));
    if !names.iter().any(|name| name.starts_with("nmem")) {
        return Vec::new();
    }
    let mut command = Command::new(programs::path("ndctl"));
    command.args(["list", "--dimms", "--health"]);
    match programs::output_within(TIME, &mut command) {
        Ok(output) => parse(&output.stdout),
        Err(_) => Vec::new(),
    }
}

/// Returns those of `dimms` that a region is on.
pub fn of_region(host: &Host, region: &str, dimms: &[Dimm]) -> Vec<Dimm> {
    let folder = host.path(DEVICES).join(region);
    let names: Vec<_> = sysfs::names(&folder)
        .iter()
        .filter(|name| name.starts_with("mapping"))
        .filter_map(|name| sysfs::line(folder.join(name)))
        .filter_map(|line| Some(line.split(',').next()?.to_owned()))
        .collect();
    let own = dimms.iter().filter(|dimm| names.contains(&dimm.dimm));
    own.cloned().collect()
}

fn parse(text: &[u8]) -> Vec<Dimm> {
    // Some versions print a single object without an array.
    let listed = serde_json::from_slice::<Vec<NdctlDimm>>(text)
        .or_else(|_| serde_json::from_slice::<NdctlDimm>(text).map(|one| vec![one]))
        .unwrap_or_default();
    listed
        .into_iter()
        .filter_map(|listed| {
            let health = listed.health?;
            let known = Dimm {
                dimm: listed.dev,
                id: listed.id,
                health: health.health_state,
                life_left: health
                    .life_used_percentage
                    .map(|used| 100_u64.saturating_sub(used)),
                spares_left: health.spares_percentage,
                temperature: health.temperature_celsius,
                unsafe_shutdowns: health.shutdown_count,
            };
            let nothing = Dimm {
                dimm: known.dimm.clone(),
                id: known.id.clone(),
                ..Dimm::default()
            };
            (known != nothing).then_some(known)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimm_health_parses() {
        let text = br#"[{"dev":"nmem1","id":"8089","health":{"health_state":"ok","temperature_celsius":23.5,
            "spares_percentage":99,"life_used_percentage":12,"shutdown_state":"clean","shutdown_count":3}},
            {"dev":"nmem2","id":"8090","health":{}},
            {"dev":"nmem0","handle":1}]"#;
        let dimm = Dimm {
            dimm: "nmem1".into(),
            id: Some("8089".into()),
            health: Some("ok".into()),
            life_left: Some(88),
            spares_left: Some(99),
            temperature: Some(23.5),
            unsafe_shutdowns: Some(3),
        };
        assert_eq!(parse(text), [dimm]);
        assert_eq!(parse(b""), []);
        assert_eq!(parse(b"[ {"), []);
        let one = br#"{"dev":"nmem0","health":{"health_state":"fatal"}}"#;
        assert_eq!(parse(one)[0].health.as_deref(), Some("fatal"));
    }
}
