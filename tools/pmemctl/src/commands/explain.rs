// SPDX-License-Identifier: GPL-2.0

//! The command `explain`.

use crate::commands::output::{Status, json, root};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::explain::{self as engine, Cause, Explanation, Subject};
use pmemctl::sysfs::printable;
use std::io::{self, Write};
use std::path::PathBuf;
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        (
            "0",
            "The memory is not listed as bad: the signal has another cause.",
        ),
        ("1", "The memory is bad."),
        (
            "4",
            "Whether it is bad is unknown: the address is not mapped, the process is gone, the file is not on persistent \
             memory that can be followed, or a list cannot be read.",
        ),
    ],
    examples: &[
        (
            "pmemctl explain --pid 812 --addr 0x7f0000065000",
            "Explain a SIGBUS of a process that has caught it, or is stopped by a debugger.",
        ),
        (
            "cp /proc/812/maps /tmp/812.maps",
            "Save the mappings, as a handler of the signal or of core dumps does.",
        ),
        (
            "pmemctl explain --maps /tmp/812.maps --addr 0x7f0000065000",
            "Explain the SIGBUS after the process has ended.",
        ),
    ],
    see_also: &[
        "pmemctl-errors(1)",
        "pmemctl-repair(1)",
        "sigaction(2)",
        "core(5)",
    ],
    ..Page::EMPTY
};

/// Explain a SIGBUS at an address of a process
///
/// Follows the address to the mapped file, its offset and the sector of the disk, and says whether the memory is bad, the
/// file ends before the address (it was truncated), a fault had to fill a hole, or a page that is no persistent memory
/// is poisoned. Prints what to do; commands are quoted for a shell. The memory itself is not read.
///
/// The address is si_addr of the signal (sigaction(2)); debuggers and systemd-coredump show it. If si_code is
/// BUS_MCEERR_AR or BUS_MCEERR_AO, si_addr_lsb says how many bytes may be bad: 12 is a page, 21 a page of 2 MiB.
#[derive(Args)]
pub struct Explain {
    /// The process
    #[arg(long, required_unless_present = "maps")]
    pid: Option<u32>,
    /// A copy of /proc/PID/maps that was saved before the process ended
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    maps: Option<PathBuf>,
    /// The address, si_addr of the signal, in hexadecimal
    #[arg(long, value_parser = address)]
    addr: u64,
    /// si_addr_lsb of the signal
    #[arg(long, value_name = "BITS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=30))]
    lsb: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn address(text: &str) -> Result<u64, String> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    match u64::from_str_radix(digits, 16) {
        Ok(address) if !digits.starts_with('+') => Ok(address),
        _ => Err("not a hexadecimal address, such as 0x7f0000065000".to_owned()),
    }
}

pub fn explain(arguments: &Explain) -> Result<Status> {
    let host = root("explain")?;
    let subject = match (arguments.pid, &arguments.maps) {
        (_, Some(file)) => Subject::Saved(file.clone()),
        (pid, None) => Subject::Process(pid.unwrap_or_default()),
    };
    let found = engine::explain(&host, &subject, arguments.addr, arguments.lsb)?;
    if arguments.json {
        json(&found)?;
    } else {
        let mut out = io::stdout().lock();
        for (name, value) in lines(&found) {
            writeln!(out, "{:<9} {value}", format!("{name}:"))?;
        }
    }
    Ok(status(found.cause))
}

fn status(cause: Cause) -> Status {
    match cause {
        Cause::BadBlock | Cause::PoisonedPage => Status::Bad,
        Cause::BeyondEnd | Cause::Hole | Cause::NotListed => Status::Good,
        Cause::Unknown => Status::Unknown,
    }
}

fn size(bytes: u64) -> String {
    Size::from_bytes(bytes).to_string()
}

/// Returns the known facts as pairs of a word and a text.
fn lines(found: &Explanation) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(process) = &found.process {
        lines.push(("process", process.to_string()));
    }
    let mapping = &found.mapping;
    lines.push((
        "mapping",
        format!(
            "{:#x}-{:#x} {}",
            mapping.start, mapping.end, mapping.permissions
        ),
    ));
    if let Some(file) = &found.file {
        let path = file.path.clone();
        let path =
            path.unwrap_or_else(|| format!("inode {} (removed, or not visible here)", file.inode));
        let offset = found.file_offset.map(|at| format!(" at {}", size(at)));
        let dax = if file.dax { "DAX" } else { "not DAX" };
        lines.push((
            "file",
            format!(
                "{path}{}, {dax}, {} long",
                offset.unwrap_or_default(),
                size(file.size)
            ),
        ));
    }
    if let (Some(disk), Some(at), Some(sector)) = (&found.disk, found.disk_offset, found.sector) {
        lines.push((
            "disk",
            format!("{} at {}, sector {sector}", printable(disk), size(at)),
        ));
    }
    let cause = match found.cause {
        Cause::BadBlock => "bad block",
        Cause::PoisonedPage => "poisoned page",
        Cause::BeyondEnd => "beyond the end of the file",
        Cause::Hole => "hole",
        Cause::NotListed => "not listed as bad",
        Cause::Unknown => "unknown",
    };
    lines.push(("cause", format!("{cause}: {}", found.reason)));
    for entry in &found.listed {
        let at = size(entry.span.disk_offset);
        lines.push((
            "listed",
            format!("{} at {at}, {}", entry.disk, size(entry.span.length)),
        ));
    }
    let actions = found.actions.iter();
    lines.extend(actions.map(|action| ("do", action.clone())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        _explain: Explain,
    }

    impl std::fmt::Debug for Explain {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:#x}", self.addr)
        }
    }

    #[test]
    fn address_is_hexadecimal() {
        assert_eq!(address("0x7f00"), Ok(0x7f00));
        assert_eq!(address("7f00"), Ok(0x7f00));
        for text in ["", "0x", "+7f", "0x+7f", "-1", "x", "7f00000000000000f"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn process_or_table_is_needed() {
        let parse =
            |arguments: &[&str]| Program::try_parse_from([&["explain"], arguments].concat());
        assert!(parse(&["--pid", "1", "--addr", "0x1000"]).is_ok());
        assert!(parse(&["--maps", "x", "--addr", "0x1000", "--lsb", "21"]).is_ok());
        assert!(parse(&["--addr", "0x1000"]).is_err());
        assert!(parse(&["--pid", "1"]).is_err());
        assert!(parse(&["--pid", "1", "--maps", "x", "--addr", "1"]).is_err());
        assert!(parse(&["--pid", "1", "--addr", "1", "--lsb", "64"]).is_err());
    }

    #[test]
    fn status_says_whether_the_memory_is_bad() {
        assert_eq!(status(Cause::BadBlock), Status::Bad);
        assert_eq!(status(Cause::PoisonedPage), Status::Bad);
        assert_eq!(status(Cause::BeyondEnd), Status::Good);
        assert_eq!(status(Cause::Unknown), Status::Unknown);
    }
}
