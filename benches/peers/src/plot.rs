//! Plots as SVG files.

use std::path::Path;

use plotters::{coord::Shift, prelude::*};

use crate::Failure;

/// One line of a plot.
pub struct Series {
    /// As the legend has it.
    pub name: String,
    /// In the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

/// How a plot is labelled and scaled.
pub struct Axes<'a> {
    /// Above the plot.
    pub title: &'a str,
    /// With its unit.
    pub x: &'a str,
    /// With its unit.
    pub y: &'a str,
    /// Equal ratios are equally far apart.
    pub x_is_log: bool,
    /// Equal ratios are equally far apart.
    pub y_is_log: bool,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Okabe and Ito's colors, which people with any color vision tell apart; ours is the first.
const COLORS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(120, 120, 120),
];

/// Draws the lines to `path`. Series without points are left out; nothing at all draws nothing.
///
/// # Errors
/// The file cannot be written.
pub fn draw(path: &Path, axes: &Axes<'_>, series: &[Series]) -> Result<(), Failure> {
    let _ = (path, axes, series);
    Err("to be drawn".into())
}
