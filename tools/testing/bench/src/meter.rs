// SPDX-License-Identifier: GPL-2.0

//! `pmem-meter`: runs in the guest, and prints a line of JSON for each operation.

use abstractions::tsc;
use anyhow::{Context, Result, ensure};
use bench::Cell;
use bench::ops;
use clap::Parser;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures operations by the time-stamp counter, each by itself.
#[derive(Parser)]
#[command(name = "pmem-meter", version, max_term_width = 120)]
struct Arguments {
    /// What the target is called in the lines
    #[arg(long)]
    target: String,

    /// What the operations' names begin with, for files of a file system
    #[arg(long, default_value = "")]
    prefix: String,

    /// A disk, all of whose data is lost; or a folder of a file system with DAX
    path: PathBuf,

    /// The operations (otherwise all that there are for such a path)
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

/// What measuring itself takes.
fn empty_bracket() -> u64 {
    let mut least = u64::MAX;
    for _ in 0..1000 {
        let start = tsc::now();
        least = least.min(tsc::now() - start);
    }
    least
}
