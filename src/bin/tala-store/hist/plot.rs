//! A picture for each tag: its percentiles, and under them how it went over time.

use std::{fmt::Display, fs, ops::Range, path::Path};

use hdrhistogram::Histogram;
use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Log, Tag, log::Interval};
use crate::failure::Failure;

const SIZE: (u32, u32) = (960, 880);
const LEGEND_WIDTH: u32 = 190;
const TEXT: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// Of the colors of Okabe and Ito, which people with any color vision tell apart.
const COLORS: [RGBColor; 3] = [RGBColor(213, 94, 0), RGBColor(0, 114, 178), RGBColor(0, 158, 115)];
const LINE_WIDTHS: [u32; 3] = [2, 5, 8];
/// Points of a percentile curve to each halving of the distance to 100%.
const POINTS_PER_HALF: u32 = 10;
/// Shares closer to 1 than this are drawn as this close.
const LAST_NINE: f64 = 1e-6;
/// An axis with fewer ticks says too little.
const TICKS_MIN: usize = 3;
/// With more intervals than this, points are not marked.
const MARKS_MAX: usize = 100;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Place = (f64, f64);
/// A time of an interval, in nanoseconds.
type FigureOf = fn(&Interval) -> u64;

/// How values are laid along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// Times in nanoseconds: equal ratios are equally far apart.
    Latency,
    /// Shares below 1: 90%, 99% and 99.9% are equally far apart.
    Share,
    /// Seconds since the first interval.
    Elapsed,
}

impl Scale {
    /// Where `value` lies on a linear axis; none where it cannot be shown.
    fn place(self, value: f64) -> Option<f64> {
        let place = match self {
            Self::Latency => value.log10(),
            Self::Share => -(1.0 - value).max(LAST_NINE).log10(),
            Self::Elapsed => value,
        };
        place.is_finite().then_some(place)
    }

    /// Round places from `from` to `to`.
    fn ticks(self, from: f64, to: f64) -> Vec<f64> {
        let places: Vec<f64> = match self {
            Self::Latency => {
                let factors: &[f64] = if to - from < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let powers = from.floor() as i32..=to.ceil() as i32;
                let round: Vec<f64> = powers
                    .flat_map(|power| factors.iter().map(move |of| f64::from(power) + of.log10()))
                    .filter(|at| (from..=to).contains(at))
                    .collect();
                if round.len() < TICKS_MIN { evenly_spaced(from, to) } else { round }
            }
            Self::Share => {
                let nines = (1..=6).map(f64::from);
                [0.0, 0.5, 0.75]
                    .into_iter()
                    .filter_map(|share| self.place(share))
                    .chain(nines)
                    .collect()
            }
            Self::Elapsed => {
                let step = round_step((to - from) / 6.0);
                let first = (from / step).ceil() as i64;
                (first..).map(|number| number as f64 * step).take_while(|at| *at <= to).collect()
            }
        };
        places.into_iter().filter(|at| (from - 1e-9..=to + 1e-9).contains(at)).collect()
    }

    /// The text of a tick.
    fn label(self, place: f64) -> String {
        match self {
            Self::Latency => {
                // What took no time that a clock could tell is drawn there as well.
                if place == 0.0 {
                    return "≤ 1 ns".to_owned();
                }
                let ns = 10_f64.powf(place);
                let (value, unit) = match ns {
                    ..999.5 => (ns, "ns"),
                    ..999.5e3 => (ns / 1e3, "µs"),
                    ..999.5e6 => (ns / 1e6, "ms"),
                    _ => (ns / 1e9, "s"),
                };
                let text = format!("{value:.4}");
                format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
            }
            Self::Share => {
                let text = format!("{:.4}", (1.0 - 10_f64.powf(-place)) * 100.0);
                format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
            }
            Self::Elapsed => {
                let text = format!("{place:.3}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
    }
}

/// Places of times at even distances, for an axis so short that few round powers lie on it.
fn evenly_spaced(from: f64, to: f64) -> Vec<f64> {
    let (shortest, longest) = (10_f64.powf(from), 10_f64.powf(to));
    let step = round_step((longest - shortest) / 5.0);
    let first = (shortest / step).ceil() as i64;
    (first..).map(|number| (number as f64 * step).log10()).take_while(|at| *at <= to).collect()
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(1e-3).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|of| of * power).into_iter().find(|of| *of >= step).unwrap_or(1.0)
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

/// One line.
struct Series {
    /// As the legend has it.
    name: String,
    points: Vec<Place>,
    style: ShapeStyle,
    /// Whether each point has a mark.
    is_marked: bool,
}

/// One half of a picture.
struct Panel {
    title: String,
    x: (&'static str, Scale),
    series: Vec<Series>,
}

/// Draws a picture of each tag with something in it, into `dir`, which is created if need be;
/// returns how many.
///
/// # Errors
/// The directory or a file cannot be written.
pub(super) fn draw_all(dir: &Path, log: &Log, other: Option<&Log>) -> Result<usize, Failure> {
    fs::create_dir_all(dir).map_err(|error| Failure::file("create", dir, error))?;
    let mut count = 0;
    for tag in log.tags.iter().filter(|tag| !tag.sum.is_empty()) {
        let others = other.and_then(|other| other.tags.iter().find(|other| other.name == tag.name));
        let path = dir.join(format!("{}.svg", file_stem(&tag.name)));
        let failed = |error: String| {
            let source = std::io::Error::other(error);
            Failure::file("draw", &path, source)
        };
        draw(&path, &[percentiles(tag, others), over_time(tag)]).map_err(failed)?;
        count += 1;
    }
    Ok(count)
}

/// A tag as part of a name of a file: letters, digits, `-` and `_` alone.
fn file_stem(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(kept).collect()
}

/// The style of series `number`, which lies above those after it: they are wider, and so each is seen
/// where they are equal.
fn line(number: usize) -> ShapeStyle {
    COLORS[number % COLORS.len()].stroke_width(LINE_WIDTHS[number % LINE_WIDTHS.len()])
}

fn percentiles(tag: &Tag, other: Option<&Tag>) -> Panel {
    let curve = |histogram: &Histogram<u64>| {
        histogram
            .iter_quantiles(POINTS_PER_HALF)
            .filter_map(|point| {
                let share = Scale::Share.place(point.quantile_iterated_to())?;
                Some((share, Scale::Latency.place(point.value_iterated_to().max(1) as f64)?))
            })
            .collect()
    };
    // The last step goes to 100%, which is nowhere: no further than the count has nines for.
    let cut = |histogram: &Histogram<u64>, points: Vec<Place>| {
        let last = (histogram.len() as f64).max(2.0).log10();
        points.into_iter().map(|(share, at)| (share.min(last), at)).collect()
    };
    let series = |name: &str, histogram: &Histogram<u64>, number| Series {
        name: name.to_owned(),
        points: cut(histogram, curve(histogram)),
        style: line(number),
        is_marked: false,
    };
    let mut all = vec![series("this log", &tag.sum, 0)];
    all.extend(other.map(|other| series("the other", &other.sum, 1)));
    let title = format!("{}: {} times, by percentile", tag.name, tag.sum.len());
    Panel { title, x: ("share of times at most as long", Scale::Share), series: all }
}

fn over_time(tag: &Tag) -> Panel {
    let recorded = || tag.intervals.iter().filter(|interval| interval.count > 0);
    let begin_s = tag.intervals.first().map_or(0.0, |first| first.begin_s);
    let is_marked = recorded().count() <= MARKS_MAX;
    let series = |(number, (name, read)): (usize, (&str, FigureOf))| {
        let point = |interval: &Interval| {
            // In the middle of what it tells of.
            let at = interval.begin_s + interval.length_s / 2.0 - begin_s;
            Some((at, Scale::Latency.place(read(interval).max(1) as f64)?))
        };
        Series {
            name: name.to_owned(),
            points: recorded().filter_map(point).collect(),
            style: line(number),
            is_marked,
        }
    };
    let reads: [(&str, FigureOf); 3] = [
        ("longest", |interval| interval.max_ns),
        ("p99", |interval| interval.p99_ns),
        ("p50", |interval| interval.p50_ns),
    ];
    let title = format!("{}: by interval", tag.name);
    let x = ("seconds since the first interval", Scale::Elapsed);
    Panel { title, x, series: reads.into_iter().enumerate().map(series).collect() }
}

fn text_of(error: impl Display) -> String {
    error.to_string()
}

fn draw(path: &Path, panels: &[Panel; 2]) -> Result<(), String> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(text_of)?;
    let (upper, lower) = root.split_vertically(SIZE.1 / 2);
    for (area, panel) in [upper, lower].iter().zip(panels) {
        let (chart, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        draw_lines(&chart, panel).map_err(text_of)?;
        draw_legend(&legend, panel).map_err(text_of)?;
    }
    root.present().map_err(text_of)
}

/// Smallest and largest with a little air around them.
fn range(places: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let from = places.clone().fold(f64::INFINITY, f64::min);
    let to = places.fold(f64::NEG_INFINITY, f64::max);
    if from > to {
        return (0.0, 1.0);
    }
    let air = if to > from { (to - from) * 0.04 } else { 0.5 };
    (from - air, to + air)
}

type Drawing<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn draw_lines<'a>(area: &Area<'a>, panel: &Panel) -> Result<(), Drawing<'a>> {
    let all = panel.series.iter().flat_map(|series| &series.points);
    let (x, y) = (range(all.clone().map(|point| point.0)), range(all.map(|point| point.1)));
    let (x_title, x_scale) = panel.x;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 20).into_font().color(&TEXT))
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(Axis::new(x_scale, x), Axis::new(Scale::Latency, y))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(TEXT)
        .label_style(("sans-serif", 14).into_font().color(&TEXT))
        .axis_desc_style(("sans-serif", 16).into_font().color(&TEXT))
        .x_desc(x_title)
        .y_desc("time, logarithmic")
        .x_label_formatter(&|place| x_scale.label(*place))
        .y_label_formatter(&|place| Scale::Latency.label(*place))
        .draw()?;
    for series in panel.series.iter().rev() {
        chart.draw_series(LineSeries::new(series.points.iter().copied(), series.style))?;
        if series.is_marked {
            let radius = series.style.stroke_width / 2 + 2;
            let mark = |point: &Place| Circle::new(*point, radius, series.style.filled());
            chart.draw_series(series.points.iter().map(mark))?;
        }
    }
    Ok(())
}

fn draw_legend<'a>(area: &Area<'a>, panel: &Panel) -> Result<(), Drawing<'a>> {
    let text = ("sans-serif", 15).into_font().color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center));
    for (number, series) in panel.series.iter().enumerate() {
        let y = 60 + 24 * i32::try_from(number).unwrap_or(0);
        area.draw(&PathElement::new([(6, y), (34, y)], series.style))?;
        area.draw(&Text::new(series.name.clone(), (42, y), text.clone()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_have_their_unit() {
        let labels = |scale: Scale, from: f64, to: f64| -> Vec<String> {
            scale.ticks(from, to).into_iter().map(|place| scale.label(place)).collect()
        };
        assert_eq!(labels(Scale::Latency, 2.0, 9.0)[..3], ["100 ns", "1 µs", "10 µs"]);
        assert_eq!(labels(Scale::Latency, 0.0, 5.0)[..2], ["≤ 1 ns", "10 ns"]);
        assert_eq!(labels(Scale::Latency, 6.0, 7.1), ["1 ms", "2 ms", "5 ms", "10 ms"]);
        let (short, shorter) = ((3.4e8_f64.log10(), 8.8e8_f64.log10()), (6.1, 6.11));
        assert_eq!(labels(Scale::Latency, short.0, short.1), ["400 ms", "600 ms", "800 ms"]);
        assert!(labels(Scale::Latency, shorter.0, shorter.1).contains(&"1.27 ms".to_owned()));
        assert_eq!(labels(Scale::Share, 0.0, 3.2), ["0%", "50%", "75%", "90%", "99%", "99.9%"]);
        assert_eq!(labels(Scale::Elapsed, 0.0, 11.0), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(Scale::Elapsed, -0.01, 0.25)[..2], ["0", "0.05"]);
    }

    #[test]
    fn a_tag_is_no_path() {
        assert_eq!(file_stem("../a b/log-write"), "___a_b_log-write");
    }
}
