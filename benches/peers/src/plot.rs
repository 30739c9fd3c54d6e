//! Plots as SVG files: lines with marks, a legend beside them, and axes that may be stretched where
//! the interesting part is.

use std::{ops::Range, path::Path};

use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::Failure;

/// One line of a plot.
pub struct Series {
    /// As the legend has it.
    pub name: String,
    /// In the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

/// How values are laid along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal ratios are equally far apart; values are positive.
    Log,
    /// For shares below 1: 0.9, 0.99 and 0.999 are equally far apart.
    Nines,
}

/// How a plot is labelled and scaled.
pub struct Axes<'a> {
    /// Above the plot.
    pub title: &'a str,
    /// Above the legend, in short lines: of what, and when.
    pub subtitle: &'a str,
    /// What lies along x, with its unit.
    pub x: &'a str,
    /// What lies along y, with its unit.
    pub y: &'a str,
    /// How x is laid out.
    pub x_scale: Scale,
    /// How y is laid out.
    pub y_scale: Scale,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (960, 560);
const LEGEND_WIDTH: u32 = 230;
const TEXT: RGBColor = RGBColor(60, 60, 60);

/// Of the first line alone.
const FIRST: RGBColor = RGBColor(213, 94, 0);

/// The other colors of Okabe and Ito, which people with any color vision tell apart.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(130, 130, 130),
];

/// Shares closer to 1 than this are drawn as this close.
const LAST_NINE: f64 = 1e-6;

impl Scale {
    /// Where `value` lies on a linear axis; none where it cannot be shown.
    fn place(self, value: f64) -> Option<f64> {
        let place = match self {
            Self::Log => value.log10(),
            Self::Nines => -(1.0 - value).max(LAST_NINE).log10(),
        };
        place.is_finite().then_some(place)
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Self::Log => 10_f64.powf(place),
            Self::Nines => 1.0 - 10_f64.powf(-place),
        }
    }

    /// Round values between two places, about half a dozen.
    fn ticks(self, from: f64, to: f64) -> Vec<f64> {
        let values: Vec<f64> = match self {
            Self::Log => {
                let factors: &[f64] = match to - from {
                    span if span < 0.8 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
                    span if span < 2.5 => &[1.0, 2.0, 5.0],
                    _ => &[1.0],
                };
                (from.floor() as i32..=to.ceil() as i32)
                    .flat_map(|power| factors.iter().map(move |f| f * 10_f64.powi(power)))
                    .collect()
            }
            Self::Nines => {
                let near = |power: i32| [5.0, 2.0, 1.0].map(|f| 1.0 - f * 10_f64.powi(power));
                std::iter::once(0.0).chain((-6..=-1).rev().flat_map(near)).collect()
            }
        };
        values
            .into_iter()
            .filter_map(|value| self.place(value))
            .filter(|place| (from - 1e-9..=to + 1e-9).contains(place))
            .collect()
    }

    /// The text of a tick.
    fn label(self, place: f64) -> String {
        let value = self.value(place);
        let text = match self {
            Self::Nines => format!("{value:.6}"),
            _ if value.abs() >= 1e6 => return format!("{}M", short(value / 1e6)),
            _ if value.abs() >= 1e4 => return format!("{}k", short(value / 1e3)),
            _ => format!("{value:.4}"),
        };
        short_text(&text)
    }
}

/// An axis of places, with round values at its ticks.
struct Axis {
    scale: Scale,
    places: RangedCoordf64,
}

impl Axis {
    fn new(scale: Scale, (from, to): (f64, f64)) -> Self {
        Self { scale, places: (from..to).into() }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, limit: (i32, i32)) -> i32 {
        self.places.map(place, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        let Range { start, end } = self.range();
        self.scale.ticks(start, end)
    }

    fn range(&self) -> Range<f64> {
        self.places.range()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(place: &f64) -> String {
        place.to_string()
    }
}

fn short(value: f64) -> String {
    short_text(&format!("{value:.2}"))
}

/// Without zeros that say nothing.
fn short_text(text: &str) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    }
}

/// Smallest and largest with a little air around them.
fn range(places: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let from = places.clone().fold(f64::INFINITY, f64::min);
    let to = places.fold(f64::NEG_INFINITY, f64::max);
    (from <= to).then(|| {
        let air = if to > from { (to - from) * 0.04 } else { 0.5 };
        (from - air, to + air)
    })
}

/// Draws the lines to `path`, in the order given; the first has the strongest color and the widest
/// line. Points that the scales cannot show are left out, as are series without points, whose colors
/// nobody else gets, so that plots of the same series have them in the same colors; without any point
/// nothing is drawn.
///
/// # Errors
/// The file cannot be written.
pub fn draw(path: &Path, axes: &Axes<'_>, series: &[Series]) -> Result<(), Failure> {
    let placed: Vec<Placed<'_>> = series
        .iter()
        .enumerate()
        .map(|(number, series)| {
            let points = series
                .points
                .iter()
                .filter_map(|(x, y)| Some((axes.x_scale.place(*x)?, axes.y_scale.place(*y)?)));
            Placed { number, name: &series.name, points: points.collect() }
        })
        .filter(|placed| !placed.points.is_empty())
        .collect();
    let all = placed.iter().flat_map(|placed| &placed.points);
    let (Some(x), Some(y)) = (range(all.clone().map(|p| p.0)), range(all.map(|p| p.1))) else {
        return Ok(());
    };
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (chart, legend) = root.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let small = ("sans-serif", 13).into_font().color(&TEXT);
    for (line, y) in axes.subtitle.lines().zip((12..).step_by(16)) {
        legend.draw(&Text::new(line.to_owned(), (6, y), small.clone()))?;
    }
    draw_lines(&chart, axes, x, y, &placed)?;
    draw_legend(&legend, &placed)?;
    root.present().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}

/// A line where it lies on linear axes.
struct Placed<'a> {
    /// Its place among all that were given.
    number: usize,
    name: &'a str,
    points: Vec<(f64, f64)>,
}

fn style(number: usize) -> (ShapeStyle, bool) {
    // Past the last color the others begin again, with open marks.
    match number.checked_sub(1) {
        None => (FIRST.stroke_width(3), true),
        Some(other) => (COLORS[other % COLORS.len()].stroke_width(2), other < COLORS.len()),
    }
}

fn draw_lines(
    area: &Area<'_>,
    axes: &Axes<'_>,
    x: (f64, f64),
    y: (f64, f64),
    placed: &[Placed<'_>],
) -> Result<(), Failure> {
    let mut chart = ChartBuilder::on(area)
        .caption(axes.title, ("sans-serif", 20).into_font().color(&TEXT))
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(Axis::new(axes.x_scale, x), Axis::new(axes.y_scale, y))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(TEXT)
        .label_style(("sans-serif", 14).into_font().color(&TEXT))
        .axis_desc_style(("sans-serif", 16).into_font().color(&TEXT))
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_label_formatter(&|place| axes.x_scale.label(*place))
        .y_label_formatter(&|place| axes.y_scale.label(*place))
        .draw()?;
    // The first is drawn last, above all others.
    for Placed { number, points, .. } in placed.iter().rev() {
        let (line, is_filled) = style(*number);
        chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
        let mark = if is_filled { line.filled() } else { line };
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, mark)))?;
    }
    Ok(())
}

fn draw_legend(area: &Area<'_>, placed: &[Placed<'_>]) -> Result<(), Failure> {
    let text = ("sans-serif", 15).into_font().color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center));
    for (place, Placed { number, name, .. }) in placed.iter().enumerate() {
        let y = 60 + 24 * place as i32;
        let (line, is_filled) = style(*number);
        let mark = if is_filled { line.filled() } else { line };
        area.draw(&PathElement::new([(6, y), (34, y)], line))?;
        area.draw(&Circle::new((20, y), 4, mark))?;
        area.draw(&Text::new((*name).to_owned(), (42, y), text.clone()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, from: f64, to: f64) -> Vec<String> {
        let places = (scale.place(from).unwrap(), scale.place(to).unwrap());
        scale.ticks(places.0, places.1).into_iter().map(|place| scale.label(place)).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(Scale::Log, 1.0, 64.0), ["1", "2", "5", "10", "20", "50"]);
        assert_eq!(labels(Scale::Log, 900.0, 2e6), ["1000", "10k", "100k", "1M"]);
        assert_eq!(labels(Scale::Nines, 0.9, 0.99), ["0.9", "0.95", "0.98", "0.99"]);
    }

    #[test]
    fn what_cannot_be_shown_is_left_out() {
        assert_eq!(Scale::Log.place(0.0), None);
        assert_eq!(Scale::Log.place(f64::NAN), None);
        assert_eq!(Scale::Nines.place(1.0), Some(6.0));
    }

    #[test]
    fn a_plot_has_its_title_axes_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.svg");
        let axes = Axes {
            title: "Latency by clients",
            subtitle: "of a test",
            x: "clients",
            y: "p99, us",
            x_scale: Scale::Log,
            y_scale: Scale::Log,
        };
        let series = |name: &str, points| Series { name: name.to_owned(), points };
        draw(
            &path,
            &axes,
            &[
                series("ours", vec![(1.0, 200.0), (4.0, 300.0), (16.0, 500.0)]),
                series("empty", vec![]),
                series("theirs", vec![(1.0, 0.0), (4.0, 900.0)]),
            ],
        )
        .unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for text in ["Latency by clients", "of a test", "p99, us", "ours", "theirs"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("empty"));
        draw(&dir.path().join("nothing.svg"), &axes, &[]).unwrap();
        assert!(!dir.path().join("nothing.svg").exists());
    }
}
