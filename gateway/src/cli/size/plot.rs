//! The picture of a run: peaks over time with their quantiles, and memory by requests and by bytes under way
//! with the fitted lines. Drawn as SVG; a PNG is made of that.

use std::path::Path;
use std::sync::Arc;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use resvg::{tiny_skia, usvg};

use super::answer::Answer;
use super::windows::{Phase, Window};

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 820;
/// Of the upper picture.
const UPPER: u32 = 440;
/// A PNG has so many dots for each unit of the drawing.
const SCALE: f32 = 2.0;
const MIB: f64 = 1048576.0;
const KIB: f64 = 1024.0;
const FONT: &str = "sans-serif";
/// Room above the highest point, for the legend.
const ABOVE: f64 = 1.12;

const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(225, 228, 232);
const GREY: RGBColor = RGBColor(150, 156, 165);
const BLUE: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(230, 126, 34);
const GREEN: RGBColor = RGBColor(39, 140, 80);
const RED: RGBColor = RGBColor(200, 50, 50);

/// Fonts without serifs that Linux systems have, the best first.
const SANS: [&str; 5] = ["DejaVu Sans", "Liberation Sans", "Noto Sans", "Arial", "FreeSans"];

/// What is drawn.
pub(super) struct Plot<'a> {
    pub(super) title: String,
    pub(super) windows: Vec<Window>,
    pub(super) answer: &'a Answer,
    /// The limit that is recommended, bytes.
    pub(super) limit: Option<u64>,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes it as what the file's name ends with: `.svg` or `.png`.
pub(super) fn write(path: &Path, plot: &Plot) -> Result<(), String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let svg = plot.svg().map_err(|error| named(&error))?;
    let bytes = if is_png(path) { png(&svg).map_err(|why| named(&why))? } else { svg.into_bytes() };
    std::fs::write(path, bytes).map_err(|error| named(&error))
}

/// For clap: a name that says what it is.
pub(super) fn file(text: &str) -> Result<std::path::PathBuf, String> {
    let path = std::path::PathBuf::from(text);
    let is_svg = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("svg"));
    if is_svg || is_png(&path) {
        Ok(path)
    } else {
        Err("a name that ends in .svg or .png".to_owned())
    }
}

pub(super) fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("png"))
}

/// The fonts of this machine; an error without any, since there would be no text in the picture.
pub(super) fn fonts() -> Result<usvg::fontdb::Database, String> {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_system_fonts();
    let has = |name: &str| {
        fonts.faces().any(|face| face.families.iter().any(|(family, _)| family == name))
    };
    let known = SANS.into_iter().find(|name| has(name)).map(str::to_owned);
    let any = || fonts.faces().find_map(|face| Some(face.families.first()?.0.clone()));
    let family = known.or_else(any).ok_or(
        "a PNG needs a font, and this machine has none: install one (such as the package fonts-dejavu-core), or write an .svg",
    )?;
    fonts.set_sans_serif_family(family);
    Ok(fonts)
}

fn png(svg: &str) -> Result<Vec<u8>, String> {
    let options = usvg::Options { fontdb: Arc::new(fonts()?), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let (width, height) = ((WIDTH as f32 * SCALE) as u32, (HEIGHT as f32 * SCALE) as u32);
    let mut picture = tiny_skia::Pixmap::new(width, height).ok_or("it is too large")?;
    let scale = tiny_skia::Transform::from_scale(SCALE, SCALE);
    resvg::render(&tree, scale, &mut picture.as_mut());
    picture.encode_png().map_err(|error| error.to_string())
}

impl Plot<'_> {
    fn svg(&self) -> Result<String, Box<dyn std::error::Error>> {
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
            root.fill(&WHITE)?;
            let title = TextStyle::from((FONT, 20).into_font()).color(&INK);
            let root = root.titled(&self.title, title)?;
            let (upper, lower) = root.split_vertically(UPPER);
            let (left, right) = lower.split_horizontally(WIDTH / 2);
            self.over_time(&upper)?;
            self.by_requests(&left)?;
            self.by_bytes(&right)?;
            root.present()?;
        }
        Ok(text)
    }

    fn top(&self) -> f64 {
        let highest = self.windows.iter().map(|window| window.peak).max().unwrap_or(1);
        highest.max(self.limit.unwrap_or(0)) as f64 / MIB * ABOVE
    }

    fn over_time(&self, area: &Area) -> Drawn {
        let begin = self.windows.iter().map(|window| window.at).fold(f64::INFINITY, f64::min);
        let end = self.windows.iter().map(|window| window.at - begin).fold(1.0, f64::max);
        let (unit, name) = if end < 600.0 {
            (1.0, "seconds")
        } else if end < 36_000.0 {
            (60.0, "minutes")
        } else {
            (3600.0, "hours")
        };
        let right = end / unit;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(24)
            .x_label_area_size(42)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..right, 0.0..self.top())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(GREY)
            .label_style((FONT, 13, &INK))
            .axis_desc_style((FONT, 14, &INK))
            .x_label_formatter(&|value| label(*value))
            .y_label_formatter(&|value| label(*value))
            .x_desc(name)
            .y_desc("peak of each window, MiB")
            .draw()?;
        self.points(&mut chart, begin, unit)?;
        self.lines(&mut chart, right)?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.85))
            .border_style(FAINT)
            .label_font((FONT, 13, &INK))
            .draw()?;
        Ok(())
    }

    /// The windows, coloured by what the load was doing.
    fn points(&self, chart: &mut Chart<'_, '_>, begin: f64, unit: f64) -> Drawn {
        for (phase, colour, name) in [
            (Phase::Rest, GREY, "at rest"),
            (Phase::Warm, GREEN, "first requests"),
            (Phase::Climb, ORANGE, "climb"),
            (Phase::Hold, BLUE, "hold"),
        ] {
            let points: Vec<_> = self
                .windows
                .iter()
                .filter(|window| window.phase == phase)
                .map(|window| ((window.at - begin) / unit, window.peak as f64 / MIB))
                .collect();
            if points.is_empty() {
                continue;
            }
            let dots =
                points.into_iter().map(|point| Circle::new(point, 2, colour.mix(0.7).filled()));
            chart
                .draw_series(dots)?
                .label(name)
                .legend(move |(x, y)| Circle::new((x + 9, y), 4, colour.filled()));
        }
        Ok(())
    }

    /// The quantiles and the limit, from left to right.
    fn lines(&self, chart: &mut Chart<'_, '_>, right: f64) -> Drawn {
        let memory = &self.answer.memory;
        let quantiles =
            [("p50", memory.p50.value), ("p90", memory.p90.value), ("p99", memory.p99.value)];
        let lines = quantiles
            .into_iter()
            .filter(|_| self.answer.windows > 0)
            .map(|(name, value)| (name, value, INK));
        let limit = self.limit.map(|limit| ("limit", limit as f64, RED));
        for (number, (name, value, colour)) in lines.chain(limit).enumerate() {
            let y = value / MIB;
            // Longer dashes for higher quantiles, so that they can be told apart.
            let dash = 3 + 4 * number as i32;
            let style = colour.stroke_width(if name == "limit" { 2 } else { 1 });
            chart
                .draw_series(DashedLineSeries::new([(0.0, y), (right, y)], dash, 3, style))?
                .label(format!("{name} {:.0} MiB", value / MIB))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        Ok(())
    }

    /// Without what the fit says that the bodies take: what is left goes by requests alone.
    fn by_requests(&self, area: &Area) -> Drawn {
        let fit = self.answer.usable_fit();
        let per_byte = fit.map_or(0.0, |fit| fit.per_byte.value);
        let points = self.loaded(|window| {
            (f64::from(window.in_flight), window.peak as f64 - per_byte * window.bytes as f64)
        });
        let line = fit.map(|fit| (fit.base.value, fit.per_request.value));
        let less = if fit.is_some() { "peak less the bodies' part, MiB" } else { "peak, MiB" };
        scatter(area, points, line, 1.0, ("requests under way", less))
    }

    fn by_bytes(&self, area: &Area) -> Drawn {
        let fit = self.answer.usable_fit();
        let per_request = fit.map_or(0.0, |fit| fit.per_request.value);
        let points = self.loaded(|window| {
            (window.bytes as f64, window.peak as f64 - per_request * f64::from(window.in_flight))
        });
        let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
        let (unit, name) = if most < 4.0 * MIB {
            (KIB, "bytes of bodies under way, KiB")
        } else {
            (MIB, "bytes of bodies under way, MiB")
        };
        let line = fit.map(|fit| (fit.base.value, fit.per_byte.value));
        let less = if fit.is_some() { "peak less the requests' part, MiB" } else { "peak, MiB" };
        scatter(area, points, line, unit, (name, less))
    }

    /// Of the windows under load, as points in bytes.
    fn loaded(&self, point: impl Fn(&Window) -> (f64, f64)) -> Vec<(f64, f64)> {
        let loaded = self.windows.iter().filter(|window| window.phase >= Phase::Climb);
        loaded.map(point).collect()
    }
}

/// `50`, `0.5`: as many decimals as it takes, at most two.
fn label(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Points, and a line by its beginning and slope. `unit` divides what lies along x.
fn scatter(
    area: &Area,
    points: Vec<(f64, f64)>,
    line: Option<(f64, f64)>,
    unit: f64,
    names: (&str, &str),
) -> Drawn {
    let right = points.iter().map(|point| point.0).fold(unit, f64::max) / unit * 1.08;
    let at = |x: f64| line.map_or(0.0, |(base, slope)| base + slope * x * unit) / MIB;
    let top = points.iter().map(|point| point.1 / MIB).fold(at(right), f64::max) * ABOVE;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..right, 0.0..top.max(1.0))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GREY)
        .label_style((FONT, 13, &INK))
        .axis_desc_style((FONT, 14, &INK))
        .x_label_formatter(&|value| label(*value))
        .y_label_formatter(&|value| label(*value))
        .x_labels(6)
        .y_labels(6)
        .x_desc(names.0)
        .y_desc(names.1)
        .draw()?;
    let dots = points
        .into_iter()
        .map(|(x, y)| Circle::new((x / unit, y / MIB), 2, BLUE.mix(0.5).filled()));
    chart.draw_series(dots)?;
    if line.is_some() {
        chart.draw_series(LineSeries::new(
            [(0.0, at(0.0)), (right, at(right))],
            RED.stroke_width(2),
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_axes_its_legend_and_a_png_where_there_is_a_font() {
        let answer = Answer::of(&crate::cli::size::measure::tests::climbed());
        let windows =
            crate::cli::size::measure::tests::climbed().tracks[0].series.windows().to_vec();
        let plot =
            Plot { title: "qa".to_owned(), windows, answer: &answer, limit: Some(256 << 20) };
        let svg = plot.svg().unwrap();
        for text in [
            "peak of each window, MiB",
            "limit 256 MiB",
            "requests under way",
            "climb",
            "hold",
            "p99",
        ] {
            assert!(svg.contains(text), "no {text:?} in {svg}");
        }
        match fonts() {
            Ok(_) => assert!(png(&svg).unwrap().starts_with(b"\x89PNG")),
            Err(why) => assert!(why.contains("fonts-dejavu-core"), "{why}"),
        }
    }

    #[test]
    fn only_names_that_say_what_they_are_will_do() {
        assert!(file("a/b.SVG").is_ok() && file("b.png").is_ok());
        assert!(file("b.pdf").unwrap_err().contains(".svg"));
    }
}
