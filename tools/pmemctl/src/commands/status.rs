// SPDX-License-Identifier: GPL-2.0

//! The command `status`.

use crate::commands::device_spec::StateDir;
use crate::commands::output::{self, about, json, or_dash, reasons, root, table};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::nd::dimm::Dimm;
use pmemctl::status::{Health, MountStatus, NamespaceStatus, RegionStatus, Status as State};
use pmemctl::sysfs::printable;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "No list has errors. With --check: OK."),
        ("1", "A list has errors. With --check: WARNING."),
        (
            "4",
            "No list has errors, but a list cannot be read, a saved list is refused, a file of a refused one is still there, or there is no persistent memory.",
        ),
        ("3", "With --check: UNKNOWN, also if the command fails."),
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
        (
            "pmemctl status --check",
            "Check it from Nagios, Icinga or the like, as root.",
        ),
    ],
    see_also: &["pmemctl-list(1)", "pmemctl-errors(1)", "pmemctl-doctor(1)"],
    ..Page::EMPTY
};

/// Show whether persistent memory is healthy
///
/// Prints a row for each namespace, and for each region that has none. DAX and MAP_SYNC are those of its mounts. ERRORS
/// are the bytes and ranges on the kernel's lists, which are not repaired, "-" where no list can be read. SAVED says
/// whether the saved list has all errors that do not return by themselves after a reboot. SCRUBBED is the time since the
/// whole disk was last read by "pmemctl scrub", or how much of it the first scrub has read. Further lines name what is
/// not as it should be, and say whether "pmemctl monitor" and "pmemctl errors save --follow" run.
///
/// --check prints one line with performance data in the format of monitoring plugins. CRITICAL: a list has errors, or
/// firmware reports a DIMM as critical or fatal. UNKNOWN: a list cannot be read, a saved list is refused, a file of a
/// refused one (FILE.refused) is still there, or there is no persistent memory.
/// WARNING: nd_pmem serves a namespace although modprobe.d prefers rust_pmem, a scrub skips bytes because the machine
/// stopped when they were read, or the health of a DIMM is not ok.
#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    place: StateDir,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print one line, and exit with the status of a Nagios plugin: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    #[arg(long, conflicts_with = "json")]
    pub check: bool,
}

/// The result of a check, by the exit statuses of monitoring plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum CheckResult {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// Prints the line of a monitoring plugin.
pub fn check(arguments: &Status) -> ExitCode {
    let (result, line) = match root("status") {
        Ok(host) => judge(&State::read(&host, &arguments.place.state_dir)),
        Err(error) => (
            CheckResult::Unknown,
            plugin_line(CheckResult::Unknown, &[format!("{error:#}")], ""),
        ),
    };
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => ExitCode::from(result as u8),
        Err(_) => ExitCode::from(CheckResult::Unknown as u8),
    }
}

/// Returns a line, in which a bar begins the performance data.
fn plugin_line(result: CheckResult, reasons: &[String], data: &str) -> String {
    let text = reasons.join("; ").replace('|', "/").replace('\n', " ");
    match data {
        "" => format!("PMEM {result} - {text}"),
        data => format!("PMEM {result} - {text} | {data}"),
    }
}

/// Returns the worst result with all reasons, the worst first.
fn judge(state: &State) -> (CheckResult, String) {
    let mut reasons: Vec<(CheckResult, String)> = Vec::new();
    let namespaces = || {
        let regions = state.regions.iter();
        regions.flat_map(|region| region.namespaces.iter())
    };
    for region in &state.regions {
        if region.bad_sectors > 0 {
            let disks = region
                .namespaces
                .iter()
                .filter(|one| one.bad_sectors > Some(0));
            let disks: Vec<_> = disks.map(name).collect();
            let place = match disks.as_slice() {
                [] => region.region.clone(),
                disks => disks.join(", "),
            };
            let saved = match region.saved {
                Some(false) => ", not saved",
                _ => "",
            };
            reasons.push((
                CheckResult::Critical,
                format!("{place}: {} bad bytes{saved}", region.bad_sectors * 512),
            ));
        }
        for reason in &region.reasons {
            let reason = format!("{}: {reason}", region.region);
            reasons.push((CheckResult::Unknown, reason));
        }
    }
    if state.regions.is_empty() {
        let reason = "there is no persistent memory; \"pmemctl doctor\" shows why";
        reasons.push((CheckResult::Unknown, reason.into()));
    } else if state.health == Health::Unknown && reasons.is_empty() {
        let reason = "a list of errors cannot be read";
        reasons.push((CheckResult::Unknown, reason.into()));
    }
    for dimm in &state.dimms {
        let result = match dimm.health.as_deref() {
            None | Some("ok") => continue,
            Some("critical" | "fatal") => CheckResult::Critical,
            Some(_) => CheckResult::Warning,
        };
        reasons.push((result, dimm_health(dimm)));
    }
    for namespace in namespaces() {
        let own = [fallback(namespace), suspected(namespace)];
        let own = own.into_iter().flatten();
        reasons.extend(own.map(|reason| (CheckResult::Warning, reason)));
    }
    // Stable, so that reasons of one kind stay in order.
    let order = [
        CheckResult::Critical,
        CheckResult::Unknown,
        CheckResult::Warning,
        CheckResult::Ok,
    ];
    reasons.sort_by_key(|(result, _)| order.iter().position(|one| one == result));
    if reasons.is_empty() {
        let count = namespaces().count();
        let plural = if count == 1 { "" } else { "s" };
        reasons.push((
            CheckResult::Ok,
            format!("no errors in {count} namespace{plural}"),
        ));
    }
    let result = reasons[0].0;
    let bytes: u64 = state.regions.iter().map(|one| one.bad_sectors * 512).sum();
    let ranges: usize = namespaces().filter_map(|one| one.bad_ranges).sum();
    let data = format!("bad_bytes={bytes}B;;0;0 bad_ranges={ranges};;0;0");
    let reasons: Vec<_> = reasons.into_iter().map(|(_, reason)| reason).collect();
    (result, plugin_line(result, &reasons, &data))
}

/// The disk, or the namespace where it has none.
fn name(namespace: &NamespaceStatus) -> String {
    let disk = namespace.disk.clone();
    disk.unwrap_or_else(|| namespace.namespace.to_string())
}

fn fallback(namespace: &NamespaceStatus) -> Option<String> {
    let reason = namespace.fallback.as_ref()?;
    Some(format!(
        "{} is served by nd_pmem although rust_pmem is preferred: {reason}",
        name(namespace)
    ))
}

fn suspected(namespace: &NamespaceStatus) -> Option<String> {
    let scrub = namespace.scrub.as_ref()?;
    (scrub.suspected > 0).then(|| {
        format!(
            "{}: scrubs skip {}, because the machine stopped when it was read; \"pmemctl scrub --retry {}\" reads it",
            name(namespace),
            about(scrub.suspected),
            name(namespace)
        )
    })
}

fn dimm_health(dimm: &Dimm) -> String {
    let health = dimm.health.as_deref().unwrap_or("unknown");
    let left = match dimm.life_left {
        Some(life) => format!(", {life} % of its life left"),
        None => String::new(),
    };
    format!("{}: health is {}{left}", dimm.dimm, printable(health))
}

/// Returns all that the firmware of a DIMM reports.
fn dimm_report(dimm: &Dimm) -> String {
    let mut line = dimm_health(dimm);
    if let Some(spares) = dimm.spares_left {
        line += &format!(", {spares} % of its spare blocks");
    }
    if let Some(temperature) = dimm.temperature {
        line += &format!(", {temperature} °C");
    }
    match dimm.unsafe_shutdowns {
        Some(1) => line += ", 1 dirty shutdown",
        Some(count) => line += &format!(", {count} dirty shutdowns"),
        None => {}
    }
    line
}

/// Formats the time since then for people: `3 h`.
fn age(since_ms: u64, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = (now.as_millis() as u64).saturating_sub(since_ms) / 1000;
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

pub fn status(arguments: &Status) -> Result<output::Status> {
    let host = root("status")?;
    let state = State::read(&host, &arguments.place.state_dir);
    if arguments.json {
        json(&state)?;
    } else if state.regions.is_empty() {
        writeln!(
            io::stderr(),
            "pmemctl: there is no persistent memory; \"pmemctl doctor\" shows why"
        )?;
    } else {
        let now = SystemTime::now();
        let rows = state.regions.iter().flat_map(|region| rows(region, now));
        table(&HEADER, &[9], rows)?;
        let mut out = io::stdout().lock();
        for namespace in state.regions.iter().flat_map(|region| &region.namespaces) {
            for reason in [fallback(namespace), suspected(namespace)].iter().flatten() {
                writeln!(out, "\n{reason}")?;
            }
        }
        if !state.dimms.is_empty() {
            writeln!(out)?;
        }
        for dimm in &state.dimms {
            writeln!(out, "{}", dimm_report(dimm))?;
        }
        let word = |runs| if runs { "running" } else { "not running" };
        writeln!(
            out,
            "\npmemctl monitor: {}; pmemctl errors save --follow: {}",
            word(state.monitoring),
            word(state.saving)
        )?;
        for one in &state.quarantines {
            let (bytes, file) = (about(one.bytes), &one.file);
            writeln!(out, "{}: {bytes} quarantined in {file}", one.mount)?;
        }
        for region in &state.regions {
            reasons(&region.region, &region.reasons)?;
        }
    }
    Ok(match state.health {
        Health::Healthy => output::Status::Good,
        Health::Errors => output::Status::Bad,
        Health::Unknown => output::Status::Unknown,
    })
}

const HEADER: [&str; 12] = [
    "REGION",
    "NAMESPACE",
    "DISK",
    "MODE",
    "DRIVER",
    "PROVIDER",
    "READ-ONLY",
    "DAX",
    "MAP_SYNC",
    "ERRORS",
    "SAVED",
    "SCRUBBED",
];

/// Returns the words for all mounts, each once.
fn mounts(
    namespace: Option<&NamespaceStatus>,
    word: impl Fn(&MountStatus) -> String,
) -> Option<String> {
    let mounts = namespace?.mounts.as_ref()?;
    let words: BTreeSet<_> = mounts.iter().map(word).collect();
    let words: Vec<_> = words.into_iter().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Returns when a disk was last read completely, or how far the first scrub has come.
fn scrubbed(namespace: &NamespaceStatus, now: SystemTime) -> Option<String> {
    let scrub = namespace.scrub.as_ref()?;
    match scrub.completed_ms {
        Some(time) => Some(format!("{} ago", age(time, now))),
        None if scrub.size > 0 => Some(format!("{} %", scrub.done * 100 / scrub.size)),
        None => None,
    }
}

fn rows(region: &RegionStatus, now: SystemTime) -> Vec<Vec<String>> {
    let saved = match region.saved {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    let row = |namespace: Option<&NamespaceStatus>| {
        let errors = match namespace {
            Some(namespace) => namespace.bad_sectors.zip(namespace.bad_ranges),
            None => Some((region.bad_sectors, 0)),
        };
        let errors = errors.map(|(sectors, ranges)| match (about(sectors * 512), ranges) {
            (bytes, 0) => bytes,
            (bytes, ranges) => format!("{bytes} in {ranges}"),
        });
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
            or_dash(mounts(namespace, |mount| mount.dax.to_string())),
            or_dash(mounts(namespace, |mount| {
                if mount.map_sync { "yes" } else { "no" }.to_owned()
            })),
            or_dash(errors),
            saved.to_owned(),
            or_dash(namespace.and_then(|one| scrubbed(one, now))),
        ]
    };
    match region.namespaces.as_slice() {
        [] => vec![row(None)],
        namespaces => namespaces.iter().map(|one| row(Some(one))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pmemctl::block::topology::Dax;
    use pmemctl::inventory::Mode;
    use pmemctl::scrub::Progress;
    use std::time::Duration;

    fn healthy() -> State {
        let namespace = NamespaceStatus {
            namespace: "namespace0.0".parse().unwrap(),
            device: "pfn0.0".parse().unwrap(),
            disk: Some("pmem0".into()),
            mode: Mode::Fsdax,
            driver: Some("rust_pmem".into()),
            fallback: None,
            size: Some(1 << 30),
            read_only: false,
            mounts: Some(Vec::new()),
            bad_sectors: Some(0),
            bad_ranges: Some(0),
            origins: [].into(),
            scrub: None,
        };
        State {
            health: Health::Healthy,
            monitoring: false,
            saving: false,
            regions: vec![RegionStatus {
                region: "region0".into(),
                provider: Some("e820".into()),
                size: 1 << 30,
                bad_sectors: 0,
                is_list_read: true,
                saved: None,
                saved_ms: None,
                namespaces: vec![namespace],
                reasons: Vec::new(),
            }],
            quarantines: Vec::new(),
            dimms: Vec::new(),
        }
    }

    fn namespace(state: &mut State) -> &mut NamespaceStatus {
        &mut state.regions[0].namespaces[0]
    }

    fn dimm(health: &str) -> Dimm {
        Dimm {
            dimm: "nmem0".into(),
            health: Some(health.into()),
            life_left: Some(9),
            ..Dimm::default()
        }
    }

    #[test]
    fn report_of_a_dimm_has_the_values_of_its_firmware() {
        let mut reported = dimm("ok");
        assert_eq!(
            dimm_report(&reported),
            "nmem0: health is ok, 9 % of its life left"
        );
        reported.spares_left = Some(80);
        reported.temperature = Some(41.5);
        reported.unsafe_shutdowns = Some(1);
        assert_eq!(
            dimm_report(&reported),
            "nmem0: health is ok, 9 % of its life left, 80 % of its spare blocks, 41.5 °C, 1 dirty shutdown"
        );
    }

    #[test]
    fn check_names_the_worst_first() {
        let mut state = healthy();
        let data = "bad_bytes=0B;;0;0 bad_ranges=0;;0;0";
        let expected = format!("PMEM OK - no errors in 1 namespace | {data}");
        assert_eq!(judge(&state), (CheckResult::Ok, expected));

        namespace(&mut state).fallback = Some("module not built for 7.2.13".into());
        let (result, line) = judge(&state);
        assert_eq!(result, CheckResult::Warning);
        let expected = "PMEM WARNING - pmem0 is served by nd_pmem although rust_pmem is preferred: \
                        module not built for 7.2.13 |";
        assert!(line.starts_with(expected), "{line}");

        state.regions[0].reasons = vec!["a|b\nc".into()];
        state.health = Health::Unknown;
        let (result, line) = judge(&state);
        assert_eq!(result, CheckResult::Unknown);
        assert!(
            line.starts_with("PMEM UNKNOWN - region0: a/b c; pmem0 is served"),
            "{line}"
        );

        state.regions[0].bad_sectors = 9;
        state.regions[0].saved = Some(false);
        namespace(&mut state).bad_sectors = Some(9);
        namespace(&mut state).bad_ranges = Some(2);
        let (result, line) = judge(&state);
        assert_eq!(result, CheckResult::Critical);
        let expected =
            "PMEM CRITICAL - pmem0: 4608 bad bytes, not saved; region0: a/b c; pmem0 is served";
        assert!(line.starts_with(expected), "{line}");
        assert!(
            line.ends_with(" | bad_bytes=4608B;;0;0 bad_ranges=2;;0;0"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn check_sees_dimms_and_scrubs() {
        let mut state = healthy();
        state.dimms = vec![dimm("ok")];
        assert_eq!(judge(&state).0, CheckResult::Ok);
        state.dimms = vec![dimm("non-critical")];
        assert_eq!(judge(&state).0, CheckResult::Warning);
        state.dimms = vec![dimm("fatal")];
        let (result, line) = judge(&state);
        assert_eq!(result, CheckResult::Critical);
        assert!(
            line.contains("nmem0: health is fatal, 9 % of its life left"),
            "{line}"
        );

        let mut state = healthy();
        namespace(&mut state).scrub = Some(Progress {
            done: 0,
            size: 1 << 30,
            suspected: 1 << 20,
            completed_ms: None,
        });
        let (result, line) = judge(&state);
        assert_eq!(result, CheckResult::Warning);
        assert!(line.contains("scrubs skip 1M"), "{line}");

        state.regions.clear();
        state.health = Health::Unknown;
        assert_eq!(judge(&state).0, CheckResult::Unknown);
    }

    #[test]
    fn row_has_mounts_errors_and_scrubs() {
        let mount = |dax, map_sync| MountStatus {
            directory: "/srv".into(),
            volume: "pmem0".into(),
            dax,
            map_sync,
        };
        let now = UNIX_EPOCH + Duration::from_secs(10 * 86400);
        let mut state = healthy();
        let row = |state: &State| rows(&state.regions[0], now)[0][7..].to_vec();
        assert_eq!(row(&state), ["-", "-", "0", "-", "-"]);
        let one = namespace(&mut state);
        one.mounts = Some(vec![
            mount(Dax::PerFile, true),
            mount(Dax::Always, true),
            mount(Dax::Always, true),
        ]);
        one.bad_sectors = Some(8);
        one.bad_ranges = Some(1);
        one.scrub = Some(Progress {
            done: 1 << 28,
            size: 1 << 30,
            suspected: 0,
            completed_ms: None,
        });
        assert_eq!(
            row(&state),
            ["always, per file", "yes", "4K in 1", "-", "25 %"]
        );
        namespace(&mut state).scrub.as_mut().unwrap().completed_ms = Some(7 * 86_400_000);
        assert_eq!(row(&state)[4], "3 d ago");
    }

    #[test]
    fn ages_are_rounded_down() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(age((1_000_000 - seconds) * 1000, now), text);
        }
        // The clock was set back.
        assert_eq!(age(2_000_000_000, now), "0 s");
    }
}
