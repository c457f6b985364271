//! Curves as inline SVG. Colours come from the page's style sheet, so that they suit light, dark and paper.

use super::html;
use crate::metrics::case::short;
use std::fmt::Write;

/// Extents of a chart, and the margins around its curves: left, right, top, bottom.
const SIZE: [f64; 2] = [360.0, 190.0];
const MARGINS: [f64; 4] = [52.0, 10.0, 8.0, 24.0];
/// Points of a curve; where there are more, each stands for several by their extremes.
const POINTS: usize = 400;
/// A curve of at most so many points shows each of them.
const DOTS: usize = 12;
/// Colours that the style sheet has.
pub const COLOURS: usize = 8;

/// A curve: its colour's number, and its points by step.
pub type Curve<'a> = (usize, &'a [(u64, f64)]);

/// A chart of curves over steps with its caption; nothing where no value is finite. Positive values that span more than two
/// orders of magnitude have a logarithmic axis.
pub fn chart(title: &str, curves: &[Curve]) -> Option<String> {
    let finite = |c: &Curve| c.1.iter().copied().filter(|(_, v)| v.is_finite()).collect::<Vec<_>>();
    let all: Vec<(usize, Vec<(u64, f64)>)> = curves.iter().map(|c| (c.0, finite(c))).collect();
    let values = || all.iter().flat_map(|(_, c)| c.iter().map(|(_, v)| *v));
    let steps = || all.iter().flat_map(|(_, c)| c.iter().map(|(s, _)| *s));
    let (first, last) = (steps().min()?, steps().max()?);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    let log = low > 0.0 && high / low > 100.0;
    let scale = |v: f64| if log { v.log10() } else { v };
    let (mut bottom, mut top) = (scale(low), scale(high));
    if top - bottom <= 1e-12 * top.abs().max(bottom.abs()) {
        let room = if log { 0.5 } else { 0.1 * top.abs().max(1e-6) };
        (bottom, top) = (bottom - room, top + room);
    }
    let [left, right, above, below] = MARGINS;
    let (width, height) = (SIZE[0] - left - right, SIZE[1] - above - below);
    let x = |step: u64| {
        left + width * if last > first { (step - first) as f64 / (last - first) as f64 } else { 0.5 }
    };
    let y = |v: f64| above + height * (1.0 - (scale(v) - bottom) / (top - bottom));

    let mut svg = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
        SIZE[0],
        SIZE[1],
        html::text(title)
    );
    let ticks = if log { log_ticks(bottom, top) } else { ticks(bottom, top, 4) };
    for tick in ticks {
        let value = if log { 10f64.powf(tick) } else { tick };
        let at = above + height * (1.0 - (tick - bottom) / (top - bottom));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left + width,
            left - 5.0,
            at + 3.5,
            label(value)
        );
    }
    for tick in ticks_of_steps(first, last) {
        let anchor = if x(tick) > left + width - 12.0 { "end" } else { "middle" };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{tick}</text>",
            x(tick),
            SIZE[1] - 8.0
        );
    }
    for (colour, points) in &all {
        let colour = colour % COLOURS;
        let thin = thinned(points);
        // Where points are few they are shown as such.
        for (s, v) in thin.iter().filter(|_| thin.len() <= DOTS) {
            let _ = write!(
                svg,
                "<circle class=\"c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                x(*s),
                y(*v)
            );
        }
        if thin.len() > 1 {
            let line: Vec<String> = thin.iter().map(|(s, v)| format!("{:.1},{:.1}", x(*s), y(*v))).collect();
            let _ = write!(svg, "<polyline class=\"c{colour}\" points=\"{}\"/>", line.join(" "));
        }
    }
    svg.push_str("</svg>");
    let mut caption = format!("<b>{}</b>{}", html::text(title), if log { " (logarithmic)" } else { "" });
    for (colour, points) in &all {
        if let Some((_, v)) = points.last() {
            let key = if all.len() > 1 {
                format!("<i class=\"key c{}\"></i>", colour % COLOURS)
            } else {
                String::new()
            };
            let _ = write!(caption, " {key}<span class=\"last\" data-v=\"{v}\">{}</span>", short(*v));
        }
    }
    Some(format!("<figure class=\"chart\"><figcaption>{caption}</figcaption>{svg}</figure>"))
}

/// At most [`POINTS`] points: of each stretch the lowest and the highest, in their order.
fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let pieces = POINTS / 2;
    (0..pieces)
        .flat_map(|i| {
            let piece = &points[i * points.len() / pieces..(i + 1) * points.len() / pieces];
            let extreme = |sign: f64| {
                piece.iter().copied().min_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1))).expect("not empty")
            };
            let mut two = [extreme(1.0), extreme(-1.0)];
            two.sort_by_key(|(step, _)| *step);
            two
        })
        .collect()
}

/// Round numbers between two, about `n` of them.
fn ticks(low: f64, high: f64, n: usize) -> Vec<f64> {
    let raw = (high - low) / n as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|v| *v <= high + 1e-9 * step).take(2 * n + 2).collect()
}

/// Powers of ten between two exponents; where there are fewer than two, their middle too.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let every = (((high - low) / 5.0).ceil() as i64).max(1);
    let all: Vec<f64> =
        (low.ceil() as i64..=high.floor() as i64).filter(|e| e % every == 0).map(|e| e as f64).collect();
    if all.len() < 2 { vec![low, 0.5 * (low + high), high] } else { all }
}

fn ticks_of_steps(first: u64, last: u64) -> Vec<u64> {
    if first == last {
        return vec![first];
    }
    let all = ticks(first as f64, last as f64, 4);
    all.into_iter().filter(|t| t.fract() == 0.0 && *t >= 0.0).map(|t| t as u64).collect()
}

/// A number at an axis: short, and without zeros that say nothing.
fn label(v: f64) -> String {
    if v == 0.0 || v.abs() < 1e-300 {
        return "0".into();
    }
    if !(1e-3..1e5).contains(&v.abs()) {
        return format!("{v:.1e}").replace(".0e", "e");
    }
    let text = format!("{v:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1.0, 4), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(-0.3, 0.9, 4), [0.0, 0.5]);
        assert_eq!(log_ticks(-2.3, 1.2), [-2.0, -1.0, 0.0, 1.0]);
        assert_eq!(ticks_of_steps(1, 3), [1, 2, 3]);
        assert_eq!([0.5, 100.0, 1e-5, 1.5e-4, 0.25].map(label), ["0.5", "100", "1e-5", "1.5e-4", "0.25"]);
    }

    #[test]
    fn a_curve_keeps_its_extremes_when_it_is_thinned() {
        let mut points: Vec<(u64, f64)> = (0..10_000).map(|i| (i, 1.0)).collect();
        points[7777].1 = 9.0;
        points[42].1 = -9.0;
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS && thin.contains(&(7777, 9.0)) && thin.contains(&(42, -9.0)));
        assert!(thin.windows(2).all(|w| w[0].0 <= w[1].0));
    }

    #[test]
    fn what_is_not_finite_is_not_drawn() {
        assert!(chart("x", &[(0, &[(1, f64::NAN)])]).is_none() && chart("x", &[]).is_none());
        let svg = chart("a<b", &[(0, &[(1, 1.0), (2, f64::INFINITY), (3, 2.0)])]).expect("a chart");
        assert!(
            svg.contains("a&lt;b") && !svg.contains("inf") && svg.matches("<polyline").count() == 1,
            "{svg}"
        );
        assert!(chart("x", &[(0, &[(1, 1e-3), (2, 10.0)])]).expect("a chart").contains("logarithmic"));
    }
}
