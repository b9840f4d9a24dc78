// SPDX-License-Identifier: GPL-2.0

//! The command `metrics`.

use crate::commands::device_spec::StateDir;
use crate::commands::output::root;
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::metrics;
use pmemctl::status::Status;
use std::io::{self, Write};
use std::path::PathBuf;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "The metrics were written."),
        ("1", "The file cannot be written."),
    ],
    files: &[
        (
            "/var/lib/pmemctl",
            "The saved lists of errors, and the position of scrubs.",
        ),
        (
            "/usr/lib/systemd/system/pmemctl-metrics.timer",
            "Writes /var/lib/prometheus/node-exporter/pmem.prom each minute, if that directory exists.",
        ),
    ],
    examples: &[
        ("pmemctl metrics", "Print the metrics."),
        (
            "pmemctl metrics --output /var/lib/prometheus/node-exporter/pmem.prom",
            "Write them for node_exporter with --collector.textfile.directory=/var/lib/prometheus/node-exporter.",
        ),
        (
            "sum by (instance, disk) (pmem_bad_bytes) > 0",
            "An expression for an alert: a disk has bad blocks.",
        ),
        (
            "time() - pmem_scrub_last_complete_timestamp_seconds > 30 * 86400",
            "Another one: a disk was not scrubbed for 30 days.",
        ),
    ],
    see_also: &["pmemctl-status(1)", "pmemctl-monitor(1)"],
    ..Page::EMPTY
};

/// Print the state as metrics for Prometheus
///
/// The text is in the OpenMetrics format, for the textfile collector of node_exporter: bad bytes by origin
/// (pmem_bad_bytes; a sector with several origins counts for the first) and bad ranges of each namespace, its driver,
/// mode and size, whether the disk is read-only, saved lists, scrubs, and the health of DIMMs that ndctl(1) reports. A
/// value that is unknown has no sample; pmem_list_readable is 0 where a list cannot be read. Affected files are not
/// counted, because a search for them takes long: use "pmemctl monitor" or "pmemctl errors".
#[derive(Args)]
pub struct Metrics {
    /// Replace this file, with mode 0644, in one step
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: StateDir,
}

pub fn metrics(arguments: &Metrics) -> Result<()> {
    let host = root("metrics")?;
    let text = metrics::text(&Status::read(&host, &arguments.place.state_dir));
    match &arguments.output {
        Some(file) => metrics::write(file, &text),
        None => Ok(io::stdout().write_all(text.as_bytes())?),
    }
}
