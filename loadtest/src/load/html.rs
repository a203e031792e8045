//! The report as one HTML file: tables and plots, nothing loaded from anywhere, readable on paper too.
//!
//! Plots are SVG written by hand; there are three of them, and a drawing library would weigh more than all of this.

use std::fmt::Write as _;

use super::report::Report;
use super::tally::{Outcome, millis};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 12.0;
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}table{border-collapse:collapse}\
td,th{padding:.2em .9em .2em 0;text-align:right;font-variant-numeric:tabular-nums}\
td:first-child,th:first-child{text-align:left}.bad{color:#b00020;font-weight:600}svg text{font-size:11px;fill:#555}";

/// One line of a plot.
struct Line<'a> {
    name: &'a str,
    colour: &'a str,
    points: Vec<(f64, f64)>,
}

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::with_capacity(32 * 1024);
    page.push_str("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>relais-load</title>");
    // Writing to a string does not fail, here and below.
    let _ = write!(page, "<style>{STYLE}</style><h1>Load run</h1>");
    asked(&mut page, report);
    verdicts(&mut page, report);
    times(&mut page, report);
    page.push_str("<h2>Latency by share of requests</h2>");
    page.push_str(&by_quantile(report));
    let over_time = |value: fn(&super::tally::Point) -> f64| {
        report.seen.points.iter().map(|point| (point.at_s, value(point))).collect::<Vec<_>>()
    };
    page.push_str("<h2>Over time</h2><p>Latency, ms.</p>");
    page.push_str(&plot(&[
        Line { name: "p50", colour: "#1f77b4", points: over_time(|point| point.p50_ms) },
        Line { name: "p99", colour: "#d62728", points: over_time(|point| point.p99_ms) },
    ]));
    page.push_str("<p>Requests ended, a second.</p>");
    page.push_str(&plot(&[
        Line { name: "all", colour: "#2ca02c", points: over_time(|point| point.rate) },
        Line { name: "errors", colour: "#d62728", points: over_time(|point| point.errors) },
    ]));
    targets(&mut page, report);
    page.push_str("</html>\n");
    page
}

fn asked(page: &mut String, report: &Report) {
    page.push_str("<table>");
    for (name, value) in &report.asked {
        let _ = write!(page, "<tr><td>{}<td style=\"text-align:left\">{}", escaped(name), escaped(value));
    }
    page.push_str("</table><h2>Outcomes</h2><table>");
    for (outcome, count) in &report.seen.outcomes {
        let class = if matches!(outcome, Outcome::Ok | Outcome::Aborted) { "" } else { " class=\"bad\"" };
        let _ = write!(page, "<tr{class}><td>{}<td>{count}", outcome.name());
    }
    let seen = &report.seen;
    let _ = write!(page, "</table><p>{:.1} a second ended well, over {:.1} s. ", report.rate(), report.measured_s);
    if seen.ramped > 0 {
        let _ = write!(page, "{} more during the ramp, which only the timeline shows. ", seen.ramped);
    }
    if seen.frames > 0 {
        let _ = write!(page, "Frames: {}, {} lost, {} doubled.", seen.frames, seen.lost, seen.duplicated);
    }
    page.push_str("</p>");
}

fn verdicts(page: &mut String, report: &Report) {
    if report.verdicts.is_empty() {
        return;
    }
    page.push_str("<h2>Expectations</h2><table>");
    for verdict in &report.verdicts {
        let (class, word) = if verdict.met { ("", "met") } else { (" class=\"bad\"", "not met") };
        let _ = write!(page, "<tr{class}><td>{}<td>{word}<td>{:.4}", escaped(&verdict.expected), verdict.got);
    }
    page.push_str("</table>");
}

fn times(page: &mut String, report: &Report) {
    page.push_str("<h2>Times, ms</h2><table><tr><th><th>count<th>p50<th>p90<th>p99<th>p99.9<th>max");
    for (name, histogram) in report.times().iter().filter(|(_, histogram)| !histogram.is_empty()) {
        let _ = write!(page, "<tr><td>{name}<td>{}", histogram.len());
        for at in [0.5, 0.9, 0.99, 0.999, 1.0] {
            let _ = write!(page, "<td>{:.3}", millis(histogram, at));
        }
    }
    page.push_str(
        "</table><p>latency: from when a request was due to its end. service: from when it was taken up. refused: \
         answered otherwise. first: from due to the first token. gap: between frames of a stream. connect: opening a \
         connection. late: how late the load generator itself was.</p>",
    );
}

fn targets(page: &mut String, report: &Report) {
    if report.targets.len() < 2 || report.seen.parts.is_empty() {
        return;
    }
    page.push_str("<h2>By key or channel</h2><table><tr><th><th>all<th>ok<th>p50, ms<th>p99, ms");
    for (name, part) in report.targets.iter().zip(&report.seen.parts) {
        let all: u64 = part.outcomes.values().sum();
        let ok = part.outcomes.get(&Outcome::Ok).copied().unwrap_or(0);
        let (p50, p99) = (millis(&part.latency, 0.5), millis(&part.latency, 0.99));
        let _ = write!(page, "<tr><td>{}<td>{all}<td>{ok}<td>{p50:.3}<td>{p99:.3}", escaped(name));
    }
    page.push_str("</table>");
}

/// Latency over quantiles, each further nine as wide as the one before.
fn by_quantile(report: &Report) -> String {
    let quantiles = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999];
    let line = |histogram: &hdrhistogram::Histogram<u64>| {
        quantiles.iter().map(|at: &f64| (-(1.0 - at).log10(), millis(histogram, *at))).collect::<Vec<_>>()
    };
    let times = &report.seen.times;
    let mut plotted = plot(&[
        Line { name: "latency", colour: "#d62728", points: line(&times.latency) },
        Line { name: "service", colour: "#1f77b4", points: line(&times.service) },
    ]);
    plotted.push_str("<p>Across: the number of nines, 1 is p90, 2 is p99, 3 is p99.9.</p>");
    plotted
}

/// Lines over one pair of axes that begin at zero.
fn plot(lines: &[Line<'_>]) -> String {
    let most = |of: fn(&(f64, f64)) -> f64| {
        let values = lines.iter().flat_map(|line| line.points.iter().map(of));
        values.fold(0.0_f64, f64::max).max(f64::MIN_POSITIVE)
    };
    let (x_max, y_max) = (most(|(x, _)| *x), most(|(_, y)| *y));
    let x_of = |x: f64| LEFT + x / x_max * (WIDTH - LEFT - 12.0);
    let y_of = |y: f64| TOP + (1.0 - y / y_max) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"100%\" role=\"img\">");
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (y, x) = (y_of(part * y_max), x_of(part * x_max));
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            WIDTH - 12.0,
            LEFT - 6.0,
            y + 4.0,
            short(part * y_max),
            HEIGHT - 8.0,
            short(part * x_max),
        );
    }
    for (at, line) in lines.iter().enumerate() {
        let points: Vec<_> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{}</text>",
            points.join(" "),
            LEFT + 8.0 + 70.0 * at as f64,
            TOP + 10.0,
            line.name,
            colour = line.colour,
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A number for an axis.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value if value > 0.0 => format!("{value:.3}"),
        _ => "0".to_owned(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_stays_in_its_frame_and_nothing_is_no_number() {
        let line = |points: Vec<(f64, f64)>| plot(&[Line { name: "a", colour: "#000", points }]);
        for points in [vec![], vec![(0.0, 0.0)], vec![(0.0, 5.0), (10.0, 0.0), (20.0, 2.5)]] {
            let svg = line(points);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert!(line(vec![(0.0, 5.0), (10.0, 0.0)]).contains("points=\"64.0,12.0 748.0,192.0\""));
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
