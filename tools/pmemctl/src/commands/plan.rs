// SPDX-License-Identifier: GPL-2.0

//! The command `plan`.

use crate::commands::output::{about, json, or_dash, root, table};
use crate::commands::page::Page;
use anyhow::{Result, bail};
use clap::Args;
use pmemctl::nd::device_spec::DeviceSpec;
use pmemctl::nd::dimm::{self, Dimm};
use pmemctl::nd::region::Region;
use pmemctl::plan::{self, Advice, Memory, ModeCost, Purpose, Recommendation};
use pmemctl::sysfs::Host;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::{self, Write};
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        (
            "0",
            "The modes are listed, and one fits the use, if one was given.",
        ),
        ("1", "No mode fits the use, or the device cannot be read."),
    ],
    examples: &[
        ("pmemctl plan", "Compare the modes for all memory."),
        (
            "pmemctl plan --use database region0",
            "Recommend a mode, with the commands that create it.",
        ),
    ],
    see_also: &["ndctl-create-namespace(1)", "daxctl-reconfigure-device(1)"],
    ..Page::EMPTY
};

/// Compare the cost of each namespace mode and recommend one
///
/// Compares raw, sector, fsdax with struct pages in RAM or on the device, devdax with pages of 4 KiB, 2 MiB and 1
/// GiB, and system-ram: the capacity, what alignment and memory blocks cut off, and where the struct pages are. The
/// life left of DIMMs is read from their firmware. Changes nothing.
///
/// The commands for a namespace destroy its data, which is said with them ("destroys" in JSON). There are none if the
/// namespace has the recommended mode.
#[derive(Args)]
pub struct Plan {
    /// Recommend a mode for this use, with the commands that create it
    #[arg(long = "use", value_enum, value_name = "USE")]
    purpose: Option<Purpose>,
    /// Print one JSON object, sizes in bytes
    #[arg(long)]
    json: bool,
    /// /dev/pmem0, pmem0, namespace0.0, or the free space of region0; default: all
    #[arg(value_name = "DEVICE")]
    device: Option<String>,
}

/// The output of --json.
#[derive(JsonSchema, Serialize)]
pub struct Plans<'a> {
    /// One for each memory.
    plans: &'a [Advice],
}

/// Shows the plans. Returns whether a mode fits the given use.
pub fn plan(arguments: &Plan) -> Result<bool> {
    let host = root("plan")?;
    let memories = match &arguments.device {
        None => plan::all(&host)?,
        Some(name) => vec![memory(&host, name)?],
    };
    if memories.is_empty() {
        bail!("there is no persistent memory; \"pmemctl doctor\" shows why");
    }
    let dimms = dimm::all(&host);
    let advices: Vec<_> = memories
        .into_iter()
        .map(|memory| plan::advice(&host, memory, &dimms, arguments.purpose))
        .collect();
    let good = arguments.purpose.is_none() || advices.iter().all(|advice| advice.take.is_some());
    if arguments.json {
        json(&Plans { plans: &advices })?;
        return Ok(good);
    }
    for advice in &advices {
        show(advice, arguments.purpose)?;
    }
    Ok(good)
}

fn memory(host: &Host, name: &str) -> Result<Memory> {
    let region = name
        .strip_prefix("region")
        .and_then(|id| Region::find(host, id.parse().ok()?));
    if let Some(region) = region {
        let memory = plan::of_region(host, &region)?;
        if memory.size == 0 {
            bail!("{name} has no free space: name one of its namespaces (see \"pmemctl list\")");
        }
        return Ok(memory);
    }
    let spec: DeviceSpec = name
        .parse()
        .map_err(|error: String| anyhow::anyhow!("{error}, or region0"))?;
    let device = spec.find(host)?;
    match device.namespace() {
        Some(namespace) => plan::of_namespace(host, namespace),
        None => bail!("{name} has no namespace"),
    }
}

const FORMS: [&str; 6] = [
    "MODE",
    "CAPACITY",
    "CUT OFF",
    "RAM",
    "ON DEVICE",
    "EXTRA WRITES",
];
const DIMMS: [&str; 4] = ["DIMM", "HEALTH", "LIFE LEFT", "SPARES LEFT"];

fn show(advice: &Advice, purpose: Option<Purpose>) -> Result<()> {
    let memory = &advice.memory;
    let mut out = io::stdout();
    writeln!(
        out,
        "{}: {} of {}, RAM of this machine {}, added in blocks of {}",
        memory
            .namespace
            .map_or_else(|| memory.region.clone(), |name| name.to_string()),
        Size::from_bytes(memory.size),
        memory.provider,
        about(memory.machine_ram),
        or_dash(memory.memory_block.map(Size::from_bytes)),
    )?;
    table(&FORMS, &[1, 2, 3, 4], advice.forms.iter().map(row))?;
    if !advice.dimms.is_empty() {
        table(&DIMMS, &[2, 3], advice.dimms.iter().map(dimm))?;
    }
    match (&advice.take, purpose) {
        (Some(take), _) => write!(out, "{}", recommendation(memory, take))?,
        (None, Some(_)) => writeln!(out, "No mode fits this use.")?,
        (None, None) => {}
    }
    Ok(())
}

/// Returns the recommendation; commands that destroy data are announced, and marked in case they are copied.
fn recommendation(memory: &Memory, take: &Recommendation) -> String {
    let mut text = format!("Take {}: {}.\n", take.form, take.why);
    let name = memory.namespace.map(|name| name.to_string());
    let name = name.unwrap_or_default();
    if take.commands.is_empty() {
        text.push_str(&format!("{name} has this mode; nothing is to be done.\n"));
        return text;
    }
    if take.destroys {
        text.push_str(&format!("THIS DESTROYS ALL DATA OF {name}"));
        match memory.contents.as_slice() {
            [] => text.push_str(".\n"),
            all => text.push_str(&format!(" ({}).\n", all.join("; "))),
        }
    }
    for command in &take.commands {
        // mount(8) destroys nothing.
        match take.destroys && !command.starts_with("mount ") {
            true => text.push_str(&format!("    {command} # destroys the data of {name}\n")),
            false => text.push_str(&format!("    {command}\n")),
        }
    }
    text
}

fn row(form: &ModeCost) -> Vec<String> {
    match &form.impossible {
        Some(why) => vec![
            form.form.into(),
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
            format!("not possible: {why}"),
        ],
        None => vec![
            form.form.into(),
            about(form.capacity),
            about(form.cut_off),
            about(form.ram),
            about(form.on_device),
            form.wear.into(),
        ],
    }
}

fn dimm(dimm: &Dimm) -> Vec<String> {
    let percent = |value: Option<u64>| or_dash(value.map(|value| format!("{value} %")));
    vec![
        dimm.dimm.clone(),
        or_dash(dimm.health.as_ref()),
        percent(dimm.life_left),
        percent(dimm.spares_left),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory {
            namespace: Some("namespace0.0".parse().unwrap()),
            form: None,
            contents: vec!["pmem0: ext4, mounted at /srv".into()],
            region: "region0".into(),
            provider: "ACPI.NFIT".into(),
            start: 4 << 30,
            size: 3 << 30,
            memory_block: None,
            memmap_on_memory: false,
            has_node: true,
            alignments: Vec::new(),
            shares_memmap: true,
            machine_ram: 4 << 30,
        }
    }

    fn text(memory: &Memory) -> String {
        let host = Host::at("/none");
        let advice = plan::advice(&host, memory.clone(), &[], Some(Purpose::Files));
        recommendation(memory, &advice.take.unwrap())
    }

    #[test]
    fn destructive_commands_are_announced() {
        let text = text(&memory());
        assert!(text.contains("DESTROYS ALL DATA OF namespace0.0 (pmem0: ext4, mounted at /srv)"));
        let commands = text.lines().filter(|line| line.starts_with("    "));
        for command in commands {
            let marked = command.ends_with("# destroys the data of namespace0.0");
            assert!(marked || command.contains(" mount "), "{command}");
        }
    }

    #[test]
    fn namespace_of_the_mode_is_left_alone() {
        let memory = Memory {
            form: Some("fsdax-ram"),
            ..memory()
        };
        let text = text(&memory);
        assert!(text.ends_with("namespace0.0 has this mode; nothing is to be done.\n"));
        assert!(!text.contains("ndctl") && !text.contains("mkfs"), "{text}");
    }

    #[test]
    fn free_space_has_nothing_to_destroy() {
        let memory = Memory {
            namespace: None,
            contents: Vec::new(),
            ..memory()
        };
        let text = text(&memory);
        assert!(text.contains("ndctl create-namespace -r region0 "));
        assert!(!text.to_lowercase().contains("destroys"), "{text}");
    }
}
