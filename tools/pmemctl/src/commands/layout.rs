// SPDX-License-Identifier: GPL-2.0

//! The command `layout`.

use crate::commands::output::Status;
use crate::commands::output::{about, json, or_dash, reasons, table};
use crate::commands::page::Page;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Color, Style};
use anyhow::{Context, Result, bail};
use clap::Args;
use pmemctl::block::disk::Disk;
use pmemctl::fs::SpaceKind;
use pmemctl::layout::{self, Cell, DiskLayout};
use pmemctl::nd::device_spec::DeviceSpec;
use pmemctl::output_file;
use pmemctl::sysfs::Host;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use units::Size;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "The disk is drawn."),
        (
            "1",
            "The disk or a mounted file system cannot be read; or the disk is drawn, but its bad blocks are unknown, as \
             those in sector mode.",
        ),
    ],
    examples: &[
        ("pmemctl layout pmem0", "Draw a disk in the terminal."),
        (
            "pmemctl layout --svg pmem0.svg pmem0",
            "Draw it into a file as well.",
        ),
    ],
    see_also: &["pmemctl-errors(1)"],
    ..Page::EMPTY
};

/// Draw where files, free space and errors are on a disk
///
/// Divides the disk into cells and shows what most bytes of each cell are used for; a cell with a bad block is
/// shown as bad. Free space and metadata are known of ext4 and XFS, mounted or not; all metadata of XFS is known if
/// it is mounted and has a reverse map.
#[derive(Args)]
pub struct Layout {
    /// Print one JSON object: the volumes, the sums, and each cell with its use, in bytes
    #[arg(long)]
    json: bool,
    /// Replace this file by a picture as well, with mode 0644, in one step
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The highest number of cells; none is smaller than a page
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    cells: u64,
    /// A disk (/dev/pmem0, pmem0) or its namespace
    #[arg(value_name = "DEVICE")]
    device: PathBuf,
}

/// Cells of a row.
const ROW: usize = 64;

/// Draws it.
pub fn layout(arguments: &Layout) -> Result<Status> {
    let host = Host::here();
    let disk = disk(&host, &arguments.device)?;
    let map = layout::of_disk(&host, &disk, arguments.cells)?;
    if let Some(path) = &arguments.svg {
        output_file::replace(path, ".pmemctl-layout-", &svg(&map))?;
    }
    if arguments.json {
        json(&map)?;
    } else {
        let color = match io::stdout().is_terminal() {
            true => ColorChoice::Auto,
            false => ColorChoice::Never,
        };
        write!(AutoStream::new(io::stdout(), color), "{}", picture(&map))?;
        let rows = map.volumes.iter().map(|part| {
            vec![
                part.name.clone(),
                Size::from_bytes(part.offset).to_string(),
                Size::from_bytes(part.length).to_string(),
                or_dash(part.file_system.as_ref()),
                or_dash(part.mount.as_ref()),
            ]
        });
        table(
            &["VOLUME", "OFFSET", "SIZE", "FILE SYSTEM", "MOUNTED"],
            &[1, 2],
            rows,
        )?;
        for part in &map.volumes {
            reasons(&part.name, part.reason.as_slice())?;
        }
    }
    if let Some(reason) = &map.reason {
        let reason = format!("its bad blocks are unknown: {reason}");
        reasons(&map.disk, &[reason])?;
    }
    Ok(Status::good(map.bad.is_some()))
}

/// The disk that a word means.
fn disk(host: &Host, word: &Path) -> Result<Disk> {
    let Some(name) = word.to_str() else {
        bail!("{}: there is no such device", word.display());
    };
    let spec: DeviceSpec = name.parse().map_err(anyhow::Error::msg)?;
    let device = spec.find(host)?;
    device
        .disk()
        .with_context(|| format!("{name} has no disk: only disks can be drawn"))
}

/// How a cell is shown.
#[derive(Clone, Copy)]
struct CellStyle {
    letter: char,
    words: &'static str,
    /// In a terminal.
    style: Style,
    /// In a picture.
    fill: &'static str,
}

const fn on(ground: AnsiColor, letter: AnsiColor) -> Style {
    Style::new()
        .bg_color(Some(Color::Ansi(ground)))
        .fg_color(Some(Color::Ansi(letter)))
}

impl CellStyle {
    fn of(kind: SpaceKind) -> Self {
        use AnsiColor::{Black, BrightBlack, BrightWhite, Cyan, Green, Magenta, Yellow};
        let pale = |colour| Style::new().fg_color(Some(Color::Ansi(colour)));
        let (letter, words, style, fill) = match kind {
            SpaceKind::Free => ('.', "free", pale(Green), "#dcefd8"),
            SpaceKind::Files => ('F', "files", on(AnsiColor::Blue, BrightWhite), "#4f81bd"),
            SpaceKind::Metadata => ('M', "metadata", on(Yellow, Black), "#e0b050"),
            SpaceKind::Used => ('U', "files or metadata", on(Cyan, Black), "#6fb0b8"),
            SpaceKind::Other => ('?', "not known here", on(Magenta, BrightWhite), "#b79ac8"),
            SpaceKind::Outside => ('-', "no volume", pale(BrightBlack), "#c8c8c8"),
        };
        Self {
            letter,
            words,
            style,
            fill,
        }
    }

    /// Bad, however little of it is.
    fn of_cell(cell: &Cell) -> Self {
        match cell.bad {
            0 => Self::of(cell.kind),
            _ => BAD,
        }
    }

    /// In a terminal.
    fn coloured(self) -> String {
        let Self { letter, style, .. } = self;
        format!("{style}{letter}{style:#}")
    }
}

const BAD: CellStyle = CellStyle {
    letter: 'X',
    words: "bad",
    style: on(AnsiColor::Red, AnsiColor::BrightWhite).bold(),
    fill: "#d62728",
};

/// Returns the looks with their meaning, and the bytes that have it.
fn legend(map: &DiskLayout) -> Vec<(CellStyle, String)> {
    let entry = |look: CellStyle, bytes| (look, format!("{} {}", look.words, about(bytes)));
    let sums = map.sums.iter();
    let mut legend: Vec<_> = sums
        .map(|sum| entry(CellStyle::of(sum.kind), sum.bytes))
        .collect();
    let bad = map.cells.iter().map(|cell| cell.bad).sum();
    if bad > 0 {
        let (look, text) = entry(BAD, bad);
        let cells = map.cells.iter().filter(|cell| cell.bad > 0).count();
        let word = if cells == 1 { "cell" } else { "cells" };
        legend.push((look, format!("{text} in {cells} {word}")));
    }
    legend
}

fn title(map: &DiskLayout) -> String {
    let length = map.cells.first().map_or(0, |cell| cell.length);
    let unknown = match map.bad {
        Some(_) => "",
        None => "; bad blocks unknown",
    };
    format!(
        "{}: {}, {} a cell{unknown}",
        map.disk,
        Size::from_bytes(map.size),
        Size::from_bytes(length)
    )
}

/// Rows of letters, each with where it begins, and what they mean.
fn picture(map: &DiskLayout) -> String {
    let mut text = title(map) + "\n";
    for row in map.cells.chunks(ROW) {
        let offset = row.first().map_or(0, |cell| cell.offset);
        let _ = write!(text, "{:>8} ", Size::from_bytes(offset).to_string());
        for cell in row {
            text.push_str(&CellStyle::of_cell(cell).coloured());
        }
        text.push('\n');
    }
    let words: Vec<_> = legend(map)
        .into_iter()
        .map(|(look, words)| format!("{} {words}", look.coloured()))
        .collect();
    let _ = writeln!(text, "{}", words.join("   "));
    text
}

/// The same as a picture.
fn svg(map: &DiskLayout) -> String {
    const SIDE: usize = 12;
    const LEFT: usize = 84;
    const TOP: usize = 34;
    const LINE: usize = 18;
    let rows = map.cells.len().div_ceil(ROW);
    let legend = legend(map);
    let below = TOP + rows * SIDE + LINE;
    let height = below + (legend.len().div_ceil(3) + map.volumes.len()) * LINE + LINE / 2;
    let width = LEFT + ROW * SIDE + 16;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(&title(map))
    );
    let square = |text: &mut String, x: usize, y: usize, fill: &str, about: &str| {
        let side = SIDE - 1;
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" fill=\"{fill}\"><title>{about}</title></rect>"
        );
    };
    for (number, cell) in map.cells.iter().enumerate() {
        let (row, column) = (number / ROW, number % ROW);
        let offset = Size::from_bytes(cell.offset).to_string();
        if column == 0 {
            let _ = writeln!(
                text,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" font-size=\"10\">{offset}</text>",
                LEFT - 6,
                TOP + row * SIDE + 10
            );
        }
        let CellStyle { words, fill, .. } = CellStyle::of_cell(cell);
        let (x, y) = (LEFT + column * SIDE, TOP + row * SIDE);
        square(&mut text, x, y, fill, &format!("{offset}: {words}"));
    }
    for (number, (look, words)) in legend.iter().enumerate() {
        let x = LEFT + number % 3 * (ROW * SIDE / 3);
        let y = below + number / 3 * LINE;
        square(&mut text, x, y - 10, look.fill, words);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{y}\">{}</text>",
            x + LINE,
            escaped(words)
        );
    }
    let below = below + legend.len().div_ceil(3) * LINE;
    for (number, part) in map.volumes.iter().enumerate() {
        let mut line = format!(
            "{}: {} from {}",
            part.name,
            Size::from_bytes(part.length),
            Size::from_bytes(part.offset)
        );
        for word in [&part.file_system, &part.mount, &part.reason]
            .into_iter()
            .flatten()
        {
            line.push_str(&format!(", {word}"));
        }
        let _ = writeln!(
            text,
            "<text x=\"{LEFT}\" y=\"{}\">{}</text>",
            below + number * LINE,
            escaped(&line)
        );
    }
    text.push_str("</svg>\n");
    text
}

/// A text for XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pmemctl::layout::{Sum, VolumeSummary};

    fn map() -> DiskLayout {
        let cell = |number: u64, kind, bad| Cell {
            offset: number << 20,
            length: 1 << 20,
            kind,
            bad,
            bytes: [0; SpaceKind::ALL.len()],
        };
        let mut cells = vec![
            cell(0, SpaceKind::Outside, 0),
            cell(1, SpaceKind::Metadata, 0),
            cell(2, SpaceKind::Files, 0),
            cell(3, SpaceKind::Free, 512),
        ];
        cells.extend((4..70).map(|number| cell(number, SpaceKind::Free, 0)));
        DiskLayout {
            disk: "pmem0".into(),
            size: 70 << 20,
            volumes: vec![VolumeSummary {
                name: "pmem0p1".into(),
                offset: 1 << 20,
                length: 69 << 20,
                file_system: Some("ext4".into()),
                mount: Some("/a<b>&".into()),
                reason: None,
            }],
            sums: vec![Sum {
                kind: SpaceKind::Free,
                bytes: 67 << 20,
            }],
            bad: Some(512),
            reason: None,
            cells,
        }
    }

    #[test]
    fn cells_print_as_letters() {
        let mut plain = AutoStream::never(Vec::new());
        plain.write_all(picture(&map()).as_bytes()).unwrap();
        let text = String::from_utf8(plain.into_inner()).unwrap();
        let row = format!("       0 -MFX{}", ".".repeat(60));
        let wanted = format!(
            "pmem0: 70M, 1M a cell\n{row}\n     64M ......\n. free 67M   X bad 512 in 1 cell\n"
        );
        assert_eq!(text, wanted);
        // In colours, a bad cell is red.
        assert!(
            picture(&map()).contains("\x1b[41mX\x1b[0m"),
            "{:?}",
            picture(&map())
        );
    }

    #[test]
    fn unknown_errors_are_in_the_title() {
        let map = DiskLayout { bad: None, ..map() };
        for text in [picture(&map), svg(&map)] {
            assert!(text.contains("pmem0: 70M, 1M a cell; bad blocks unknown"));
            assert!(text.contains("bad 512 in 1 cell"));
        }
    }

    #[test]
    fn svg_has_a_square_for_each_cell() {
        let text = svg(&map());
        assert_eq!(text.matches("fill=\"#d62728\"").count(), 2);
        assert_eq!(text.matches("<rect").count(), 1 + 70 + 2);
        assert!(text.contains("/a&lt;b&gt;&amp;"));
    }
}
