// SPDX-License-Identifier: GPL-2.0

//! Plots of undurable lines: how many before each fence, and where.

use crate::images::Found;
use anyhow::{Result, anyhow};
use epaint_default_fonts::UBUNTU_LIGHT;
use persistence::LINE;
use plotters::prelude::*;
use plotters::style::register_font;
use std::fmt::Display;
use std::path::Path;

const SIZE: (u32, u32) = (1000, 420);
const FONT: &str = "sans-serif";
const COLOUR: RGBColor = RGBColor(46, 134, 87);
/// Points of a plot.
const POINTS: usize = 4000;

/// Writes `lines.svg` and `addresses.svg`.
pub fn draw(found: &Found, name: &str, folder: &Path) -> Result<()> {
    register_font(FONT, FontStyle::Normal, UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font can't be read"))?;
    let counts: Vec<(f64, f64)> = found
        .fences
        .iter()
        .map(|&(fence, lines)| (fence as f64, lines.into()))
        .collect();
    let title = format!("{name}: cache lines that are not durable, before each fence");
    points(&folder.join("lines.svg"), &title, "lines", &counts)?;
    let kib = |line: u32| f64::from(line) * LINE as f64 / 1024.0;
    let places: Vec<(f64, f64)> = found
        .places
        .iter()
        .map(|&(fence, line)| (fence as f64, kib(line)))
        .collect();
    let title = format!("{name}: where lines are not durable at the crash points");
    points(
        &folder.join("addresses.svg"),
        &title,
        "offset (KiB)",
        &places,
    )
}

fn points(path: &Path, title: &str, what: &str, all: &[(f64, f64)]) -> Result<()> {
    let step = all.len().div_ceil(POINTS).max(1);
    let most = |value: fn(&(f64, f64)) -> f64| all.iter().map(value).fold(1.0, f64::max);
    let (width, height) = (most(|point| point.0), most(|point| point.1));
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(plot_error)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 19))
        .margin(20)
        .x_label_area_size(45)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..width, 0.0..height * 1.05)
        .map_err(plot_error)?;
    chart
        .configure_mesh()
        .x_desc("fences")
        .y_desc(what)
        .label_style((FONT, 15))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(plot_error)?;
    let dots = all
        .iter()
        .step_by(step)
        .map(|&point| Circle::new(point, 1, COLOUR.filled()));
    chart.draw_series(dots).map_err(plot_error)?;
    area.present().map_err(plot_error)
}

fn plot_error(error: impl Display) -> anyhow::Error {
    anyhow!("a plot: {error}")
}
