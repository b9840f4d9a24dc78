// SPDX-License-Identifier: GPL-2.0

//! Plots of the report.

use crate::figure::{OURS, THEIRS};
use crate::profile::{Part, Profile};
use crate::report::{Report, VIRTIO};
use anyhow::{Result, anyhow};
use epaint_default_fonts::UBUNTU_LIGHT;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Display;
use std::path::Path;

/// Size of each plot, in pixels.
const WIDTH: u32 = 1000;
const FONT: &str = "sans-serif";
const LETTERS: i32 = 15;
const PALE: RGBColor = RGBColor(225, 225, 225);
const GOOD: RGBColor = RGBColor(46, 134, 87);
const EVEN: RGBColor = RGBColor(110, 130, 160);
const BAD: RGBColor = RGBColor(196, 78, 60);
/// Sizes that are plotted, which are the last part of the operations' names.
const SIZES: [(&str, f64); 4] = [
    ("512", 512.0),
    ("4k", 4096.0),
    ("64k", 65536.0),
    ("1m", 1_048_576.0),
];
const LINES: [(&str, RGBColor); 4] = [
    (THEIRS, BAD),
    (OURS, GOOD),
    ("brd", RGBColor(190, 150, 40)),
    ("null_blk-memory", EVEN),
];

/// Writes each plot as SVG and PNG, and returns their names.
pub fn write(report: &Report, folder: &Path) -> Result<Vec<String>> {
    register_font(FONT, FontStyle::Normal, UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font can't be read"))?;
    let mut names = Vec::new();
    let ratios = report.ratios();
    if !ratios.is_empty() {
        let height = 90 + ROW as u32 * ratios.len() as u32;
        let (svg, png) = (folder.join("ratios.svg"), folder.join("ratios.png"));
        draw_ratios(
            &SVGBackend::new(&svg, (WIDTH, height)).into_drawing_area(),
            &ratios,
        )?;
        draw_ratios(
            &BitMapBackend::new(&png, (WIDTH, height)).into_drawing_area(),
            &ratios,
        )?;
        names.push("ratios".to_owned());
    }
    for verb in ["read", "write"] {
        let lines = report.by_size(verb);
        if lines.is_empty() {
            continue;
        }
        let name = format!("sizes-{verb}");
        let (svg, png) = (
            folder.join(format!("{name}.svg")),
            folder.join(format!("{name}.png")),
        );
        let size = (WIDTH, 600);
        draw_sizes(
            &SVGBackend::new(&svg, size).into_drawing_area(),
            verb,
            &lines,
        )?;
        draw_sizes(
            &BitMapBackend::new(&png, size).into_drawing_area(),
            verb,
            &lines,
        )?;
        names.push(name);
    }
    let shown: Vec<&Profile> = report
        .profiles
        .iter()
        .filter(|profile| ["read-4k", "write-4k"].contains(&profile.op.as_str()))
        .filter(|profile| profile.target != VIRTIO)
        .collect();
    if !shown.is_empty() {
        let size = (WIDTH, 110 + 44 * shown.len() as u32);
        let (svg, png) = (folder.join("parts.svg"), folder.join("parts.png"));
        draw_parts(&SVGBackend::new(&svg, size).into_drawing_area(), &shown)?;
        draw_parts(&BitMapBackend::new(&png, size).into_drawing_area(), &shown)?;
        names.push("parts".to_owned());
    }
    Ok(names)
}

impl Report {
    /// Returns a bar for each operation.
    fn ratios(&self) -> Vec<Bar> {
        let bar = |op: &str| {
            Some(Bar {
                op: op.to_owned(),
                ratio: self.ratio(op)?,
                aim: self.figure(op).map(|figure| figure.aim),
            })
        };
        self.ops().into_iter().filter_map(bar).collect()
    }

    /// Returns the instructions by size for each target that has several.
    fn by_size(&self, verb: &str) -> Vec<Line> {
        let points = |target| {
            let point = |(name, bytes): &(&str, f64)| {
                Some((
                    *bytes,
                    self.median(&format!("{verb}-{name}"), target)? as f64,
                ))
            };
            SIZES.iter().filter_map(point).collect::<Vec<_>>()
        };
        LINES
            .iter()
            .map(|&(target, colour)| Line {
                target,
                colour,
                points: points(target),
            })
            .filter(|line| line.points.len() > 1)
            .collect()
    }
}

/// The ratio of an operation, and its aim.
struct Bar {
    op: String,
    ratio: f64,
    aim: Option<f64>,
}

/// The instructions of a target by size.
struct Line {
    target: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// Converts a backend's error.
fn plot_error(error: impl Display) -> anyhow::Error {
    anyhow!("a plot: {error}")
}

fn letters<'a>(anchor: HPos) -> TextStyle<'a> {
    (FONT, LETTERS)
        .into_text_style(&(WIDTH, WIDTH))
        .pos(Pos::new(anchor, VPos::Center))
}

const ROW: i32 = 22;
/// Start of the bars, and length of one of ratio 1.
const LEFT: i32 = 270;
const ONE: f64 = 560.0;

fn draw_ratios<B: DrawingBackend>(area: &DrawingArea<B, Shift>, ratios: &[Bar]) -> Result<()> {
    area.fill(&WHITE).map_err(plot_error)?;
    area.draw(&Text::new(
        format!("Instructions with {OURS}, as a part of those with {THEIRS} (mark: the aim)"),
        (20, 26),
        (FONT, 19).into_text_style(area),
    ))
    .map_err(plot_error)?;
    let bottom = 60 + ROW * ratios.len() as i32;
    for tenth in (0..=12).step_by(2) {
        let x = LEFT + (ONE * f64::from(tenth) / 10.0) as i32;
        let colour = if tenth == 10 { &BLACK } else { &PALE };
        area.draw(&PathElement::new([(x, 56), (x, bottom)], colour))
            .map_err(plot_error)?;
        area.draw(&Text::new(
            format!("{:.1}", f64::from(tenth) / 10.0),
            (x, bottom + 12),
            letters(HPos::Center),
        ))
        .map_err(plot_error)?;
    }
    for (index, Bar { op, ratio, aim }) in ratios.iter().enumerate() {
        let middle = 60 + ROW * index as i32 + ROW / 2;
        let end = LEFT + (ONE * ratio.min(1.2)) as i32;
        let colour = match ratio {
            ..0.99 => GOOD,
            ..=1.01 => EVEN,
            _ => BAD,
        };
        let bar = [(LEFT, middle - 7), (end, middle + 7)];
        area.draw(&Rectangle::new(bar, colour.filled()))
            .map_err(plot_error)?;
        if let Some(aim) = aim {
            let x = LEFT + (ONE * aim) as i32;
            area.draw(&PathElement::new(
                [(x, middle - 10), (x, middle + 10)],
                BLACK.stroke_width(2),
            ))
            .map_err(plot_error)?;
        }
        area.draw(&Text::new(
            op.as_str(),
            (LEFT - 10, middle),
            letters(HPos::Right),
        ))
        .map_err(plot_error)?;
        area.draw(&Text::new(
            format!("{ratio:.3}"),
            (LEFT + (ONE * 1.2) as i32 + 15, middle),
            letters(HPos::Left),
        ))
        .map_err(plot_error)?;
    }
    area.present().map_err(plot_error)
}

const PARTS: [RGBColor; 6] = [
    RGBColor(150, 160, 175),
    RGBColor(214, 170, 80),
    RGBColor(90, 140, 190),
    BAD,
    RGBColor(150, 190, 150),
    PALE,
];

fn draw_parts<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    profiles: &[&Profile],
) -> Result<()> {
    const BAR: i32 = 28;
    const LENGTH: f64 = 660.0;
    let most = profiles
        .iter()
        .map(|profile| profile.total())
        .fold(1.0, f64::max);
    area.fill(&WHITE).map_err(plot_error)?;
    area.draw(&Text::new(
        "Where the instructions of a read and of a write of 4 KiB go",
        (20, 26),
        (FONT, 19).into_text_style(area),
    ))
    .map_err(plot_error)?;
    for (index, (part, colour)) in Part::ALL.iter().zip(PARTS).enumerate() {
        let x = 20 + 160 * index as i32;
        area.draw(&Rectangle::new([(x, 62), (x + 14, 76)], colour.filled()))
            .map_err(plot_error)?;
        area.draw(&Text::new(part.name(), (x + 20, 69), letters(HPos::Left)))
            .map_err(plot_error)?;
    }
    for (index, profile) in profiles.iter().enumerate() {
        let middle = 115 + 44 * index as i32;
        let name = format!("{}, {}", profile.op, profile.target);
        area.draw(&Text::new(name, (170, middle), letters(HPos::Right)))
            .map_err(plot_error)?;
        let mut from = 180.0;
        for (part, colour) in Part::ALL.iter().zip(PARTS) {
            let count = profile.parts.get(part).copied().unwrap_or(0.0);
            let to = from + LENGTH * count / most;
            let bar = [
                (from as i32, middle - BAR / 2),
                (to as i32, middle + BAR / 2),
            ];
            area.draw(&Rectangle::new(bar, colour.filled()))
                .map_err(plot_error)?;
            if to - from > 24.0 {
                let place = ((from + to) as i32 / 2, middle);
                area.draw(&Text::new(
                    format!("{count:.0}"),
                    place,
                    letters(HPos::Center),
                ))
                .map_err(plot_error)?;
            }
            from = to;
        }
        area.draw(&Text::new(
            format!(
                "{:.0}; driver {:.0}",
                profile.total(),
                profile.parts.get(&Part::Driver).copied().unwrap_or(0.0)
            ),
            (from as i32 + 10, middle),
            letters(HPos::Left),
        ))
        .map_err(plot_error)?;
    }
    area.present().map_err(plot_error)
}

fn draw_sizes<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    verb: &str,
    lines: &[Line],
) -> Result<()> {
    area.fill(&WHITE).map_err(plot_error)?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let values = || points().map(|point| point.1);
    let (least, most) = (
        values().fold(f64::MAX, f64::min),
        values().fold(1.0, f64::max),
    );
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("Instructions for a {verb} by O_DIRECT, against its size"),
            (FONT, 19),
        )
        .margin(20)
        .x_label_area_size(45)
        .y_label_area_size(90)
        .build_cartesian_2d(
            (400.0..1_400_000.0).log_scale(),
            (least / 2.0..most * 2.0).log_scale(),
        )
        .map_err(plot_error)?;
    chart
        .configure_mesh()
        .x_desc("bytes")
        .y_desc("instructions")
        .x_label_formatter(&|bytes| format!("{bytes:.0}"))
        .y_label_formatter(&|count| format!("{count:.0}"))
        .label_style((FONT, LETTERS))
        .bold_line_style(PALE)
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(plot_error)?;
    for line in lines {
        let (colour, points) = (line.colour, &line.points);
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))
            .map_err(plot_error)?
            .label(line.target)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart
            .draw_series(PointSeries::of_element(
                points.iter().copied(),
                4,
                colour.filled(),
                &|place, size, style| Circle::new(place, size, style),
            ))
            .map_err(plot_error)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, LETTERS))
        .border_style(PALE)
        .background_style(WHITE)
        .draw()
        .map_err(plot_error)?;
    area.present().map_err(plot_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meter::{Cell, Outcome, Ticks};

    #[test]
    fn measured_operations_are_plotted() {
        let mut cells = Vec::new();
        for (op, ticks) in [("read-4k", 7000), ("read-1m", 1_000_000), ("fsync", 1200)] {
            for target in [THEIRS, OURS] {
                cells.push(Cell {
                    op: op.into(),
                    target: target.into(),
                    result: Outcome::Measured(Ticks::of(&[ticks], 0, 1).unwrap()),
                });
            }
        }
        let kernel = "7.2".to_owned();
        let profiles = vec![Profile {
            op: "read-4k".to_owned(),
            target: OURS.to_owned(),
            parts: [(Part::Copy, 4106.0), (Part::Driver, 155.0)].into(),
            locked: [(Part::Block, 4.0)].into(),
            functions: Vec::new(),
        }];
        let report = Report {
            kernel,
            cells,
            profiles,
            figures: Vec::new(),
            text: 0,
        };
        let folder = tempfile::tempdir().unwrap();
        let names = write(&report, folder.path()).unwrap();
        assert_eq!(names, ["ratios", "sizes-read", "parts"]);
        let ratios = std::fs::read_to_string(folder.path().join("ratios.svg")).unwrap();
        for op in ["read-4k", "read-1m", "fsync", "1.000"] {
            assert!(ratios.contains(op), "{op}");
        }
        for name in names {
            let png = std::fs::read(folder.path().join(format!("{name}.png"))).unwrap();
            assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{name}");
        }
    }
}
