// SPDX-License-Identifier: GPL-2.0

//! Writes the comparison of the drivers, for people (Markdown) and for programs (JSON).

use crate::differences::{Verdict, recorded, shown};
use crate::markdown::{plain, table};
use crate::parity::{Parity, Row, counts};
use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Characters shown of a value.
const VALUE: usize = 90;
/// More rows than this that are the same are folded.
const UNFOLDED: usize = 4;

/// Writes PATH.md and PATH.json.
pub fn write(parity: &Parity, path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(parity)?;
    for (extension, text) in [("md", markdown(parity)), ("json", json)] {
        let path = path.with_extension(extension);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Returns the topic of a test, with which its name begins.
fn area(test: &str) -> &str {
    test.split_once('-').map_or(test, |(area, _)| area)
}

/// Counts the rows of each area that have each verdict.
pub fn summary(parity: &Parity) -> Table {
    let mut areas: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &parity.rows {
        areas.entry(area(&row.test)).or_default().push(row);
    }
    let line = |name: &str, rows: &[&Row]| {
        let mut line = vec![name.to_owned(), rows.len().to_string()];
        line.extend(
            counts(rows.iter().copied())
                .values()
                .map(|count| match count {
                    0 => String::new(),
                    count => count.to_string(),
                }),
        );
        line
    };
    let mut table = table([
        "area", "rows", "same", "better", "equal", "worse", "not run",
    ]);
    for (name, rows) in &areas {
        table.add_row(line(name, rows));
    }
    table.add_row(line("all", &parity.rows.iter().collect::<Vec<_>>()));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn markdown(parity: &Parity) -> String {
    let mut text = format!(
        "<!-- made by `make parity` -->\n\
         # rust_pmem beside nd_pmem\n\n\
         Linux {}: its own C driver, `nd_pmem`, and `rust_pmem`{}, each in virtual machines of its own. A row is one thing that \
         a user can see.\n\n{}\n\n\
         *same*: nobody sees a difference; *better*: they differ, and rust_pmem has the better answer; *equal*: they differ, and \
         neither answer is the better one; *worse*: a difference that nobody has given a reason for, or a failure; *not run*: \
         it can't be tried here.\n",
        parity.kernel,
        match parity.revision.as_str() {
            "" => String::new(),
            revision => format!(" {revision}"),
        },
        summary(parity)
    );
    for (verdict, title) in [
        (Verdict::Worse, "Worse"),
        (Verdict::Better, "Better"),
        (Verdict::Equal, "Equal"),
    ] {
        let mut table = table(["test", "what", "nd_pmem", "rust_pmem", "why"]);
        for row in of(&parity.rows, verdict) {
            let (c, rust) = values(row);
            table.add_row([&row.test, &plain(&row.subtest), &c, &rust, &plain(&row.why)]);
        }
        section(&mut text, title, table);
    }
    if !parity.unneeded.is_empty() {
        text.push_str("\n## In differences.toml, but not seen\n\n");
        for entry in &parity.unneeded {
            let _ = writeln!(text, "* {}", plain(entry));
        }
    }
    let mut not_run = table(["test", "what", "why"]);
    for row in of(&parity.rows, Verdict::NotRun) {
        not_run.add_row([&row.test, &plain(&row.subtest), &plain(&row.why)]);
    }
    section(&mut text, "Not run", not_run);

    text.push_str("\n## Everything\n");
    let mut last = "";
    for rows in parity.rows.chunk_by(|a, b| a.test == b.test) {
        let name = &rows[0].test;
        if area(name) != last {
            last = area(name);
            let _ = write!(text, "\n### {last}\n");
        }
        let about = parity.abouts.get(name).map_or("", String::as_str);
        let _ = write!(text, "\n#### {name}: {}\n", plain(about));
        same(&mut text, of(rows, Verdict::Same).collect());
        let mut table = table(["what", "nd_pmem", "rust_pmem", "verdict"]);
        for row in rows.iter().filter(|row| row.verdict != Verdict::Same) {
            let (c, rust) = values(row);
            table.add_row([&plain(&row.subtest), &c, &rust, &row.verdict.to_string()]);
        }
        if !table.is_empty() {
            let _ = write!(text, "\n{table}\n");
        }
    }
    text
}

fn of(rows: &[Row], verdict: Verdict) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| row.verdict == verdict)
}

fn section(text: &mut String, title: &str, table: Table) {
    let _ = match table.is_empty() {
        true => write!(text, "\n## {title}\n\nNothing.\n"),
        false => write!(text, "\n## {title}\n\n{table}\n"),
    };
}

/// Writes the rows of a test that are the same.
fn same(text: &mut String, rows: Vec<&Row>) {
    let mut table = table(["what", "both"]);
    for row in &rows {
        table.add_row([plain(&row.subtest), values(row).0]);
    }
    let _ = match rows.len() {
        0 => Ok(()),
        1..=UNFOLDED => write!(text, "\n{table}\n"),
        count => write!(
            text,
            "\n<details><summary>{count} the same</summary>\n\n{table}\n\n</details>\n"
        ),
    };
}

/// Returns the results under both drivers as cells of a table, cut to the part in which they differ.
fn values(row: &Row) -> (String, String) {
    let both = [row.c.as_ref(), row.rust.as_ref()];
    let texts = both.map(shown);
    let long = texts.iter().any(|text| text.chars().count() > VALUE);
    let alike = texts[0].chars().zip(texts[1].chars());
    let alike = alike.take_while(|(c, rust)| c == rust).count();
    let start = match texts[0] != texts[1] && long {
        true => alike.saturating_sub(VALUE / 3),
        false => 0,
    };
    let cell = |index: usize| {
        let text = &texts[index];
        let length = text.chars().count();
        let mut part: String = text.chars().skip(start).take(VALUE).collect();
        if start > 0 {
            part.insert(0, '…');
        }
        if start + VALUE < length {
            part.push('…');
        }
        match recorded(both[index]) {
            Some(_) => format!("`{}`", part.replace('`', "'").replace('|', "\\|")),
            None => plain(&part),
        }
    };
    (cell(0), cell(1))
}
