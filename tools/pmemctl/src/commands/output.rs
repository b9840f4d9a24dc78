// SPDX-License-Identifier: GPL-2.0

//! Output of all commands: tables for people, JSON for programs, reasons on standard error.

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use pmemctl::json::Versioned;
use pmemctl::sysfs::Host;
use serde::Serialize;
use std::io::{self, Write};
use units::Size;

/// The exit status. Commands that answer a question fail with [`Unknown`](Self::Unknown), so that a failure is not
/// taken for a bad block; the others with [`Bad`](Self::Bad).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Nothing is bad, or the command is done.
    Good = 0,
    /// Something is bad, or the command was refused or failed.
    Bad = 1,
    /// A saved list was refused.
    ListRefused = 3,
    /// The answer could not be determined.
    Unknown = 4,
}

impl Status {
    pub fn good(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }

    /// Prints an error of a command that answers a question, unless the reader of the output has gone.
    pub fn or_unknown(done: Result<Self>) -> Result<Self> {
        done.or_else(|error| {
            if is_closed_output(&error) {
                return Err(error);
            }
            // If standard error is closed, the exit status still reports the failure.
            let _ = writeln!(io::stderr(), "pmemctl: {error:#}");
            Ok(Self::Unknown)
        })
    }
}

/// The exit status of a program that SIGPIPE ends. This program ignores the signal, which would end a repair between
/// two writes.
pub const OUTPUT_CLOSED: u8 = 141;

/// Returns whether the reader of standard output has gone: `pmemctl errors | head -1`. Errors of other files have a
/// context.
pub fn is_closed_output(error: &anyhow::Error) -> bool {
    if error.chain().count() != 1 {
        return false;
    }
    let kind = match error.downcast_ref::<serde_json::Error>() {
        Some(error) => error.io_error_kind(),
        None => error.downcast_ref().map(io::Error::kind),
    };
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// This machine, if it is root who asks: others can't see where memory is.
pub fn root(command: &str) -> Result<Host> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "{command} needs root: physical addresses and the files of other processes are hidden from others"
        );
    }
    Ok(Host::here())
}

/// Prints an object for programs.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &Versioned::new(value))?;
    writeln!(out)?;
    Ok(())
}

/// Prints a change that a command has followed: a line of JSON, or `text`.
pub fn change(as_json: bool, report: &impl Serialize, text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match as_json {
        true => writeln!(out, "{}", serde_json::to_string(&Versioned::new(report))?)?,
        false => writeln!(out, "{text}")?,
    }
    Ok(())
}

/// The memory of a region, for a log: its disks, or the region without any.
pub fn memory_name(region: &str, disks: &[String]) -> String {
    match disks {
        [] => region.to_owned(),
        disks => disks.join(", "),
    }
}

/// A table of words and numbers; `numbers` are the columns of the latter.
pub fn table(
    header: &[&str],
    numbers: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<()> {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    table.add_rows(rows);
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
    Ok(())
}

/// Each with the name of what it is about.
pub fn reasons(name: &str, reasons: &[String]) -> Result<()> {
    for reason in reasons {
        writeln!(io::stderr(), "pmemctl: {name}: {reason}")?;
    }
    Ok(())
}

/// Formats bytes for people, with two or three digits.
pub fn about(bytes: u64) -> String {
    let exact = Size::from_bytes(bytes).to_string();
    if exact.len() <= 5 {
        return exact;
    }
    let units = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return exact;
    };
    let half = 1_u64 << (shift - 1);
    let whole = (bytes >> shift) + u64::from(bytes & ((1 << shift) - 1) >= half);
    // One digit behind the point, where there is one before it.
    let tenths = (u128::from(bytes) * 10 + u128::from(half)) >> shift;
    match tenths {
        ..100 if tenths % 10 != 0 => format!("{}.{}{unit}", tenths / 10, tenths % 10),
        _ => format!("{whole}{unit}"),
    }
}

/// Formats a value, or a dash if there is none.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Names in one cell of a table.
pub fn name_list(names: &[String]) -> String {
    or_dash((!names.is_empty()).then(|| names.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_output_is_no_other_pipe() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        let json: Result<(), _> = serde_json::to_writer(Closed, "x");
        assert!(is_closed_output(&pipe().into()));
        assert!(is_closed_output(&json.unwrap_err().into()));
        let other = anyhow::Error::from(pipe()).context("/dev/pmem0");
        assert!(!is_closed_output(&other));
        assert!(!is_closed_output(&io::Error::other("x").into()));
        let passed_on = Status::or_unknown(Err(pipe().into()));
        assert!(is_closed_output(&passed_on.unwrap_err()));
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn sizes_are_rounded() {
        for (bytes, text) in [
            (0, "0"),
            (512, "512"),
            (8192, "8K"),
            (520 << 10, "520K"),
            ((120 << 20) + 5, "120M"),
            ((2 << 20) + 128, "2M"),
            (8_388_480, "8M"),
            (522_724 << 10, "510M"),
            (655_956 << 10, "641M"),
            (1_100_005, "1M"),
            ((9 << 30) + (1 << 29), "9728M"),
            ((9 << 30) + (1 << 29) + 4096, "9.5G"),
            ((1 << 30) - 512, "1024M"),
            (u64::MAX, "16777216T"),
        ] {
            assert_eq!(about(bytes), text, "{bytes}");
        }
    }
}
