// SPDX-License-Identifier: GPL-2.0

//! What the commands share: tables for people, JSON for programs, reasons on standard error.

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use pmemctl::host::Host;
use serde::Serialize;
use std::io::{self, Write};

/// This machine, if it is root who asks: others can't see where memory is.
pub fn root(command: &str) -> Result<Host> {
    if !rustix::process::geteuid().is_root() {
        bail!("{command} is for root: others can't see where memory is, nor who uses it");
    }
    Ok(Host::here())
}

/// For programs.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
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

/// What there is, or a dash.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
