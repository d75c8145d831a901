//! Plots as SVG, drawn by hand: what they take is a line or a bar, a scale and names.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 48.0;
const COLOURS: [&str; 6] = ["#1f6f8b", "#c4572e", "#4d7c3a", "#7a4b8c", "#a8842c", "#444444"];

/// Curves over a common scale that begins at 0; each has a name and points.
pub fn curves(title: &str, unit: &str, curves: &[(String, Vec<(f64, f64)>)]) -> String {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let across = points().map(|point| point.0).fold(1.0, f64::max);
    let up = points().map(|point| point.1).fold(1.0, f64::max) * 1.1;
    let x = |value: f64| MARGIN + value / across * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - value / up * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"20\" \
         font-size=\"13\">{}</text>\n",
        escaped(title)
    );
    for part in 0..=4 {
        let value = up / 4.0 * f64::from(part);
        let (right, at, left) = (WIDTH - MARGIN, y(value), MARGIN - 4.0);
        let _ = write!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n<text x=\"{left:.1}\" \
             y=\"{at:.1}\" text-anchor=\"end\">{value:.0}</text>\n"
        );
    }
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"20\" text-anchor=\"end\">{}</text>", WIDTH - MARGIN, escaped(unit));
    for (at, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let line: Vec<String> = points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\n<text x=\"{:.1}\" \
             y=\"{:.1}\" fill=\"{colour}\">{}</text>\n",
            line.join(" "),
            MARGIN + 90.0 * at as f64,
            HEIGHT - 14.0,
            escaped(name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A bar for each value with its name before it and its label behind it. Where the largest is more than fifty times the
/// smallest, the scale is logarithmic, which the title says then.
pub fn bars(title: &str, bars: &[(String, f64, String)]) -> String {
    const ROW: f64 = 22.0;
    const NAMES: f64 = 250.0;
    const LABELS: f64 = 150.0;
    let values = || bars.iter().map(|bar| bar.1).filter(|value| *value > 0.0);
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN_POSITIVE, f64::max));
    let logarithmic = most > 50.0 * least;
    let room = WIDTH + 120.0 - NAMES - LABELS;
    let length = |value: f64| match logarithmic {
        _ if value <= 0.0 => 0.0,
        true => room * (0.08 + 0.92 * (value / least).ln() / (most / least).ln()),
        false => room * value / most,
    };
    let (width, height) = (WIDTH + 120.0, 36.0 + ROW * bars.len() as f64);
    let scale = if logarithmic { " (logarithmic)" } else { "" };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"8\" y=\"18\" \
         font-size=\"13\">{}{scale}</text>\n",
        escaped(title)
    );
    for (at, (name, value, label)) in bars.iter().enumerate() {
        let (top, long) = (30.0 + ROW * at as f64, length(*value));
        // What readyroom does is told apart by its colour.
        let colour = if name.contains("readyroom") { COLOURS[0] } else { "#b8b8b8" };
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n<rect x=\"{NAMES}\" y=\"{:.1}\" \
             width=\"{long:.1}\" height=\"14\" fill=\"{colour}\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            NAMES - 6.0,
            top + 11.0,
            escaped(name),
            top,
            NAMES + long + 6.0,
            top + 11.0,
            escaped(label)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
