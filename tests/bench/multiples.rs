//! Curves as small plots beside each other: the number of things to the right in powers of ten, the cost upwards from zero.

use std::fmt::Write as _;

use super::growth::{Curve, Point, Series};

/// Pixels of one plot, with what stands around it.
const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 190.0;
const COLUMNS: usize = 3;
/// Of the plot itself.
const LEFT: f64 = 52.0;
const TOP: f64 = 34.0;
const INNER_WIDTH: f64 = 180.0;
const INNER_HEIGHT: f64 = 105.0;
const COLOURS: [&str; 2] = ["#2b6cb0", "#dd6b20"];

pub(super) fn svg(curves: &[Curve]) -> String {
    let mut body = String::new();
    for (index, curve) in curves.iter().enumerate() {
        let (x, y) = ((index % COLUMNS) as f64 * WIDTH, (index / COLUMNS) as f64 * HEIGHT);
        let _ = writeln!(body, "<g transform=\"translate({x:.0} {y:.0})\">{}</g>", plot(curve));
    }
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * curves.len().div_ceil(COLUMNS) as f64);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn plot(curve: &Curve) -> String {
    let points = || curve.series.iter().flat_map(|series| &series.points);
    let most = points().map(|point| point.y.most).fold(f64::MIN_POSITIVE, f64::max);
    let (first, last) =
        points().fold((f64::INFINITY, 0.0_f64), |(first, last), point| (first.min(place(point.x)), last.max(place(point.x))));
    let x = |point: &Point| LEFT + (place(point.x) - first) / (last - first).max(f64::MIN_POSITIVE) * INNER_WIDTH;
    let y = |value: f64| TOP + INNER_HEIGHT - value / most * INNER_HEIGHT;
    let mut text = String::new();
    let _ = write!(text, "<text x=\"8\" y=\"14\" font-weight=\"bold\">{}</text>", curve.title);
    let (bottom, digits) = (TOP + INNER_HEIGHT, if most < 10.0 { 1 } else { 0 });
    let _ = write!(text, "<path d=\"M{LEFT} {TOP}V{bottom}H{:.0}\" fill=\"none\" stroke=\"#718096\"/>", LEFT + INNER_WIDTH);
    for value in [0.0, most] {
        let (at, unit) = (y(value) + 3.0, &curve.unit);
        let _ = write!(text, "<text x=\"{:.0}\" y=\"{at:.0}\" text-anchor=\"end\">{value:.digits$} {unit}</text>", LEFT - 4.0);
    }
    for point in curve.series.iter().take(1).flat_map(|series| &series.points) {
        let _ = write!(text, "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>", x(point), bottom + 13.0, point.x);
    }
    for (index, (Series { name, points }, colour)) in curve.series.iter().zip(COLOURS).enumerate() {
        let line: Vec<String> = points.iter().map(|point| format!("{:.1},{:.1}", x(point), y(point.y.median))).collect();
        let _ = write!(text, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>", line.join(" "));
        for point in points {
            // How far apart the measurements were.
            let (at, least, most) = (x(point), y(point.y.least), y(point.y.most));
            let _ = write!(text, "<path d=\"M{at:.1} {least:.1}V{most:.1}\" stroke=\"{colour}\"/>");
            let _ = write!(text, "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"2.2\" fill=\"{colour}\"/>", y(point.y.median));
        }
        if curve.series.len() > 1 {
            let _ =
                write!(text, "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{name}</text>", LEFT + 6.0, TOP + 6.0 + 12.0 * index as f64);
        }
    }
    text
}

/// In powers of ten; nothing at all is a power below one.
fn place(x: usize) -> f64 {
    (x as f64).max(0.3).log10()
}
