// SPDX-License-Identifier: GPL-2.0

//! `pmem-meter`: measures operations in the guest, and prints one line of JSON for each.

use abstractions::tsc;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use meter::Cell;
use meter::ops;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures operations by the time-stamp counter.
#[derive(Parser)]
#[command(name = "pmem-meter", version, max_term_width = 120)]
struct Arguments {
    /// Name of the target in the output
    #[arg(long)]
    target: String,

    /// Prefix of the operations' names, for files of a file system
    #[arg(long, default_value = "")]
    prefix: String,

    /// Disk, which is overwritten, or folder of a file system with DAX
    path: PathBuf,

    /// Operations (otherwise all for this kind of path)
    ops: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pmem-meter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.path;
    let kind = fs::metadata(path)
        .with_context(|| path.display().to_string())?
        .file_type();
    ensure!(
        kind.is_block_device() || kind.is_dir(),
        "{}: neither a block device nor a folder",
        path.display()
    );
    tsc::mark();
    let all = if kind.is_dir() { ops::FILES } else { ops::DISK };
    let empty = empty_bracket();
    for op in all {
        let name = format!("{}{}", arguments.prefix, op.name);
        if !arguments.ops.is_empty() && !arguments.ops.contains(&name) {
            continue;
        }
        let result = ops::outcome(op, path, tsc::now, empty).with_context(|| name.clone())?;
        let cell = Cell {
            op: name,
            target: arguments.target.clone(),
            result,
        };
        println!("{}", serde_json::to_string(&cell)?);
    }
    tsc::mark();
    Ok(())
}

/// Returns the ticks of the measurement itself.
fn empty_bracket() -> u64 {
    let mut least = u64::MAX;
    for _ in 0..1000 {
        let start = tsc::now();
        least = least.min(tsc::now() - start);
    }
    least
}
