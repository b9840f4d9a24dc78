// SPDX-License-Identifier: GPL-2.0

//! The state as metrics for Prometheus.
//!
//! The text is valid as OpenMetrics 1.0 and in the older format of the textfile collector of node_exporter, which
//! does not know the types `info` and `stateset`: gauges take their place.

use crate::badblocks::origin::SECTOR;
use crate::nd::dimm::Dimm;
use crate::output_file;
use crate::status::{NamespaceStatus, RegionStatus, Status};
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// The origins that the drivers know, so that each has a value before its first error.
const ORIGINS: [&str; 9] = [
    "device",
    "firmware",
    "injected",
    "log",
    "machine-check",
    "memory-failure",
    "restored",
    "unknown",
    "user",
];
const HEALTH: [&str; 4] = ["ok", "non-critical", "critical", "fatal"];

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Escapes the value of a label.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str(r"\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str(r"\n"),
            c => text.push(c),
        }
    }
    text
}

/// The text, family by family.
struct Exposition(String);

impl Exposition {
    /// Adds a family; nothing if it has no samples.
    fn family<'a>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let suffix = if kind == "counter" { "_total" } else { "" };
        let text = &mut self.0;
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP {name} {help}");
        let _ = writeln!(text, "# TYPE {name} {kind}");
        // Two mounts may be on one directory.
        let mut seen = BTreeSet::new();
        for (labels, value) in samples {
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            let labels = match labels.as_slice() {
                [] => String::new(),
                labels => format!("{{{}}}", labels.join(",")),
            };
            if seen.insert(labels.clone()) {
                let _ = writeln!(text, "{name}{suffix}{labels} {value}");
            }
        }
    }

    fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        self.family(name, "gauge", help, samples);
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Returns the text for a state.
pub fn text(status: &Status) -> String {
    let mut out = Exposition(String::new());
    let namespaces: Vec<Labelled> = status
        .regions
        .iter()
        .flat_map(|region| {
            let labelled = |one| Labelled::new(region, one);
            region.namespaces.iter().map(labelled)
        })
        .collect();
    errors(&mut out, &namespaces, &status.regions);
    drivers(&mut out, &namespaces);
    scrubs(&mut out, &namespaces);
    dimms(&mut out, &status.dimms);
    let running = [
        ("monitor", status.monitoring),
        ("errors save --follow", status.saving),
    ];
    out.gauge(
        "pmem_service_running",
        "Whether this command of pmemctl is running.",
        running.map(|(command, runs)| (vec![("command", command)], flag(runs))),
    );
    out.0.push_str("# EOF\n");
    out.0
}

/// A namespace and the names in its labels.
struct Labelled<'a> {
    region: &'a RegionStatus,
    one: &'a NamespaceStatus,
    name: String,
}

impl<'a> Labelled<'a> {
    fn new(region: &'a RegionStatus, one: &'a NamespaceStatus) -> Self {
        Self {
            region,
            one,
            name: one.namespace.to_string(),
        }
    }

    fn labels(&self) -> Labels<'_> {
        let disk = self.one.disk.as_deref().unwrap_or_default();
        vec![("disk", disk), ("namespace", &self.name)]
    }

    fn with(&self, name: &'static str, value: &'a str) -> Labels<'_> {
        let mut labels = self.labels();
        labels.push((name, value));
        labels
    }
}

fn errors(out: &mut Exposition, namespaces: &[Labelled<'_>], regions: &[RegionStatus]) {
    out.gauge(
        "pmem_list_readable",
        "Whether the list of bad blocks can be read.",
        namespaces
            .iter()
            .map(|of| (of.labels(), flag(of.one.bad_sectors.is_some()))),
    );
    let known = namespaces
        .iter()
        .filter(|of| of.one.bad_sectors.is_some())
        .collect::<Vec<_>>();
    let by_origin = known.iter().flat_map(|of| {
        let of_origin = |word| {
            let sectors = of.one.origins.get(word).copied().unwrap_or(0);
            (of.with("origin", word), (sectors * SECTOR) as f64)
        };
        let others = of.one.origins.keys().map(String::as_str);
        let others = others.filter(|word| !ORIGINS.contains(word));
        ORIGINS
            .into_iter()
            .chain(others)
            .map(of_origin)
            .collect::<Vec<_>>()
    });
    out.gauge(
        "pmem_bad_bytes",
        "Bytes on the list of bad blocks, by the origin of the error.",
        by_origin,
    );
    out.gauge(
        "pmem_bad_ranges",
        "Contiguous ranges on the list of bad blocks.",
        known.iter().filter_map(|of| {
            let ranges = of.one.bad_ranges?;
            Some((of.labels(), ranges as f64))
        }),
    );
    let of_region = |region: &'_ RegionStatus| region.region.clone();
    let names: Vec<String> = regions.iter().map(of_region).collect();
    let each = || {
        names
            .iter()
            .map(|name| vec![("region", name.as_str())])
            .zip(regions)
    };
    out.gauge(
        "pmem_region_bad_bytes",
        "Bytes of the region on any list of bad blocks.",
        each()
            .filter(|(_, region)| region.is_list_read)
            .map(|(labels, region)| (labels, (region.bad_sectors * SECTOR) as f64)),
    );
    out.gauge(
        "pmem_list_saved",
        "Whether the saved list has all errors that do not return by themselves after a reboot.",
        each().filter_map(|(labels, region)| {
            let saved = region.saved.or(region.is_list_read.then_some(true))?;
            Some((labels, flag(saved)))
        }),
    );
    out.gauge(
        "pmem_list_saved_timestamp_seconds",
        "When the saved list was last written.",
        each().filter_map(|(labels, region)| Some((labels, seconds(region.saved_ms?)))),
    );
}

fn drivers(out: &mut Exposition, namespaces: &[Labelled<'_>]) {
    let modes: Vec<String> = namespaces
        .iter()
        .map(|of| of.one.mode.to_string())
        .collect();
    out.gauge(
        "pmem_driver_info",
        "The driver, mode and provider of a namespace; always 1.",
        namespaces.iter().zip(&modes).map(|(of, mode)| {
            let mut labels = of.labels();
            labels.extend([
                ("region", of.region.region.as_str()),
                ("driver", of.one.driver.as_deref().unwrap_or_default()),
                ("mode", mode),
                (
                    "provider",
                    of.region.provider.as_deref().unwrap_or_default(),
                ),
            ]);
            (labels, 1.0)
        }),
    );
    out.gauge(
        "pmem_driver_fallback",
        "Whether nd_pmem serves the namespace although modprobe.d prefers rust_pmem.",
        namespaces
            .iter()
            .map(|of| (of.labels(), flag(of.one.fallback.is_some()))),
    );
    out.gauge(
        "pmem_read_only",
        "Whether the disk refuses to be written.",
        namespaces
            .iter()
            .filter(|of| of.one.disk.is_some())
            .map(|of| (of.labels(), flag(of.one.read_only))),
    );
    out.gauge(
        "pmem_size_bytes",
        "The size of the namespace.",
        namespaces
            .iter()
            .filter_map(|of| Some((of.labels(), of.one.size? as f64))),
    );
    let mounts = || {
        namespaces.iter().flat_map(|of| {
            let mounts = of.one.mounts.iter().flatten();
            mounts.map(|mount| (of.with("directory", &mount.directory), mount))
        })
    };
    out.gauge(
        "pmem_mount_map_sync",
        "Whether files of the mount can be mapped with MAP_SYNC.",
        mounts().map(|(labels, mount)| (labels, flag(mount.map_sync))),
    );
}

fn scrubs(out: &mut Exposition, namespaces: &[Labelled<'_>]) {
    let each = || {
        namespaces
            .iter()
            .filter_map(|of| Some((of.labels(), of.one.scrub.as_ref()?)))
    };
    out.gauge(
        "pmem_scrub_progress_ratio",
        "The part of the disk that a scrub has read that is running or was stopped; 0 without one.",
        each()
            .filter(|(_, scrub)| scrub.size > 0)
            .map(|(labels, scrub)| (labels, scrub.done as f64 / scrub.size as f64)),
    );
    out.gauge(
        "pmem_scrub_suspected_bytes",
        "Bytes that scrubs skip, because the machine stopped when they were read.",
        each().map(|(labels, scrub)| (labels, scrub.suspected as f64)),
    );
    out.gauge(
        "pmem_scrub_last_complete_timestamp_seconds",
        "When the whole disk was last scrubbed.",
        each().filter_map(|(labels, scrub)| Some((labels, seconds(scrub.completed_ms?)))),
    );
}

fn dimms(out: &mut Exposition, dimms: &[Dimm]) {
    let labels =
        |dimm: &Dimm| -> [String; 2] { [dimm.dimm.clone(), dimm.id.clone().unwrap_or_default()] };
    let named: Vec<_> = dimms.iter().map(|dimm| (labels(dimm), dimm)).collect();
    let each = || {
        named
            .iter()
            .map(|([name, id], dimm)| (vec![("dimm", name.as_str()), ("id", id.as_str())], *dimm))
    };
    out.gauge(
        "pmem_dimm_health",
        "Whether the firmware reports this state of health.",
        each().flat_map(|(labels, dimm)| {
            let health = dimm.health.as_deref();
            let states = HEALTH.into_iter().filter(move |_| health.is_some());
            let other = health.filter(|health| !HEALTH.contains(health));
            states.chain(other).map(move |state| {
                let mut labels = labels.clone();
                labels.push(("state", state));
                (labels, flag(health == Some(state)))
            })
        }),
    );
    let percent = |value: u64| value as f64 / 100.0;
    out.gauge(
        "pmem_dimm_life_used_ratio",
        "The part of the life that is used.",
        each().filter_map(|(labels, dimm)| {
            let used = 100_u64.saturating_sub(dimm.life_left?);
            Some((labels, percent(used)))
        }),
    );
    out.gauge(
        "pmem_dimm_spares_ratio",
        "The part of the spare blocks that is left.",
        each().filter_map(|(labels, dimm)| Some((labels, percent(dimm.spares_left?)))),
    );
    out.gauge(
        "pmem_dimm_temperature_celsius",
        "The temperature of the media.",
        each().filter_map(|(labels, dimm)| Some((labels, dimm.temperature?))),
    );
    out.family(
        "pmem_dimm_unsafe_shutdowns",
        "counter",
        "Times that power was lost before all data was durable.",
        each().filter_map(|(labels, dimm)| Some((labels, dimm.unsafe_shutdowns? as f64))),
    );
}

/// Replaces a file by a text, in one step.
pub fn write(path: &Path, text: &str) -> Result<()> {
    // The collector reads files whose names end in .prom, which the name does not while the file is written.
    output_file::replace(path, ".pmemctl-metrics-", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::badblocks::persist;
    use crate::block::topology::Dax;
    use crate::nd::region::Region;
    use crate::status::MountStatus;
    use crate::testing::FakeSysfs;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn read(machine: &FakeSysfs) -> Status {
        Status::read(&machine.host, &machine.folder.path().join("state"))
    }

    fn assert_has(text: &str, line: &str) {
        assert!(text.lines().any(|one| one == line), "no {line} in\n{text}");
    }

    #[test]
    fn values_are_those_of_the_status() {
        let machine = FakeSysfs::new();
        machine.lists("8 8\n64 1");
        let region = Region::find(&machine.host, 0).unwrap();
        persist::save(&region, &machine.folder.path().join("state"));
        let mut status = read(&machine);
        status.regions[0].saved_ms = Some(1_700_000_000_500);
        let text = text(&status);
        let of = r#"disk="pmem0",namespace="namespace0.0""#;
        for line in [
            &format!(r#"pmem_bad_bytes{{{of},origin="unknown"}} 4608"#),
            &format!(r#"pmem_bad_bytes{{{of},origin="machine-check"}} 0"#),
            &format!("pmem_bad_ranges{{{of}}} 2"),
            &format!("pmem_list_readable{{{of}}} 1"),
            &format!(
                r#"pmem_driver_info{{{of},region="region0",driver="nd_pmem",mode="fsdax",provider="e820"}} 1"#
            ),
            &format!("pmem_driver_fallback{{{of}}} 0"),
            &format!("pmem_read_only{{{of}}} 0"),
            &format!("pmem_size_bytes{{{of}}} 33554432"),
            r#"pmem_region_bad_bytes{region="region0"} 4608"#,
            r#"pmem_list_saved{region="region0"} 1"#,
            r#"pmem_list_saved_timestamp_seconds{region="region0"} 1700000000.5"#,
            r#"pmem_service_running{command="monitor"} 0"#,
        ] {
            assert_has(&text, line);
        }
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn list_that_is_cut_off_has_no_sample_and_no_sample_is_repeated() {
        let machine = FakeSysfs::new();
        let cut_off = &"1000000 512\n".repeat(342)[..4094];
        machine.write("sys/devices/ndbus0/region0/badblocks", cut_off);
        let mut status = read(&machine);
        assert!(!text(&status).contains("pmem_region_bad_bytes{"));
        assert!(!text(&status).contains("pmem_list_saved{"));
        let mount = |volume: &str| MountStatus {
            directory: "/srv".into(),
            volume: volume.into(),
            dax: Dax::Never,
            map_sync: false,
        };
        status.regions[0].namespaces[0].mounts = Some(vec![mount("pmem0p1"), mount("pmem0p2")]);
        assert_eq!(text(&status).matches("pmem_mount_map_sync{").count(), 1);
    }

    #[test]
    fn unknown_values_have_no_sample() {
        let machine = FakeSysfs::new();
        fs::remove_file(machine.host.path("sys/block/pmem0/badblocks")).unwrap();
        let text = text(&read(&machine));
        let of = r#"{disk="pmem0",namespace="namespace0.0"}"#;
        assert_has(&text, &format!("pmem_list_readable{of} 0"));
        for name in [
            "pmem_bad_bytes",
            "pmem_bad_ranges",
            "pmem_scrub",
            "pmem_dimm",
        ] {
            assert!(!text.contains(name), "{name} in\n{text}");
        }
    }

    #[test]
    fn dimms_have_health_and_counters() {
        let mut status = read(&FakeSysfs::new());
        status.dimms = vec![Dimm {
            dimm: "nmem0".into(),
            id: Some("8089-\"x\\\n".into()),
            health: Some("non-critical".into()),
            life_left: Some(88),
            spares_left: Some(75),
            temperature: Some(23.5),
            unsafe_shutdowns: Some(3),
        }];
        let text = text(&status);
        let of = r#"dimm="nmem0",id="8089-\"x\\\n""#;
        for line in [
            &format!(r#"pmem_dimm_health{{{of},state="ok"}} 0"#),
            &format!(r#"pmem_dimm_health{{{of},state="non-critical"}} 1"#),
            &format!("pmem_dimm_life_used_ratio{{{of}}} 0.12"),
            &format!("pmem_dimm_spares_ratio{{{of}}} 0.75"),
            &format!("pmem_dimm_temperature_celsius{{{of}}} 23.5"),
            "# TYPE pmem_dimm_unsafe_shutdowns counter",
            &format!("pmem_dimm_unsafe_shutdowns_total{{{of}}} 3"),
        ] {
            assert_has(&text, line);
        }
    }

    #[test]
    fn each_family_is_contiguous_and_described() {
        let machine = FakeSysfs::new();
        machine.lists("8 8");
        let text = text(&read(&machine));
        let mut seen: Vec<String> = Vec::new();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["#", "HELP", name, ..] => {
                    assert!(!seen.contains(&(*name).to_owned()), "{name} twice");
                    seen.push((*name).to_owned());
                }
                ["#", "TYPE", name, "gauge" | "counter"] => {
                    assert_eq!(Some(*name), seen.last().map(String::as_str));
                }
                ["#", "EOF"] => {}
                _ => {
                    let name = line.split(['{', ' ']).next().unwrap();
                    let name = name.strip_suffix("_total").unwrap_or(name);
                    assert_eq!(Some(name), seen.last().map(String::as_str), "{line}");
                }
            }
        }
        assert!(seen.len() > 8, "{seen:?}");
    }

    #[test]
    fn file_is_replaced_and_readable_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pmem.prom");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let old = File::open(&file).unwrap();
        write(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::io::read_to_string(old).unwrap(), "old");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = write(&folder.path().join("none/x.prom"), "x").unwrap_err();
        assert!(error.to_string().contains("its directory must exist"));
    }
}
