//! Charts of all windows in one SVG, for light and dark pages.

use std::fmt::Write as _;

use quota_view::pace::{AccountPace, Chart, Point, WindowPace, summary};

use crate::format::LocalTime;
use crate::sanitize::sanitize;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 64.0;
const HEIGHT: f64 = 120.0;
/// The vertical distance between two charts.
const PITCH: f64 = 232.0;

/// Colors are set by class, so that they follow the viewer's light or dark mode.
const STYLE: &str = "\
svg{background:#fff}text{font:13px system-ui,sans-serif;fill:#1f2328}.muted{fill:#59636e}.grid{stroke:#d1d9e0}\
.now{stroke:#59636e;stroke-dasharray:2 3}.used{fill:none;stroke:#0969da;stroke-width:2}\
.projection{fill:none;stroke:#bc4c00;stroke-width:2;stroke-dasharray:5 4}\
@media(prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#f0f6fc}.muted{fill:#9198a1}.grid{stroke:#3d444d}\
.now{stroke:#9198a1}.used{stroke:#4493f8}.projection{stroke:#db6d28}}";

/// Renders the whole SVG.
pub(super) fn render(all: &[AccountPace], local: &LocalTime) -> String {
    let windows: Vec<_> =
        all.iter().flat_map(|account| account.windows.iter().map(move |window| (account, window))).collect();
    let height = PITCH * windows.len().max(1) as f64;
    let mut drawing = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"use of each \
         window over its period\">\n<style>{STYLE}</style>\n"
    );
    if windows.is_empty() {
        drawing.push_str("<text class=\"muted\" x=\"16\" y=\"32\">no data</text>\n");
    }
    for (at, (account, window)) in windows.iter().enumerate() {
        let _ = writeln!(drawing, "<g transform=\"translate(0 {})\">", PITCH * at as f64);
        one(&mut drawing, account, window, local);
        drawing.push_str("</g>\n");
    }
    drawing.push_str("</svg>\n");
    drawing
}

fn one(drawing: &mut String, account: &AccountPace, window: &WindowPace, local: &LocalTime) {
    let title = format!("{} · {}", account.account, window.name);
    label(drawing, "", 16.0, 24.0, "start", &title);
    label(drawing, "muted", 16.0, 44.0, "start", &summary(window, local));
    let Some(chart) = Chart::of(window, local.now) else { return };
    for share in [0.0, 0.5, 1.0] {
        let (from, to) = (position((0.0, share)), position((1.0, share)));
        let _ = writeln!(
            drawing,
            "<path class=\"grid\" d=\"M{} {}H{}\"/>",
            rounded(from.0),
            rounded(from.1),
            rounded(to.0)
        );
        let text = format!("{:.0} %", chart.top_percent * share);
        label(drawing, "muted", LEFT - 8.0, from.1 + 4.0, "end", &text);
    }
    let (foot, head) = (position((chart.now, 0.0)), position((chart.now, 1.0)));
    let _ = writeln!(
        drawing,
        "<path class=\"now\" d=\"M{} {}V{}\"/>",
        rounded(foot.0),
        rounded(foot.1),
        rounded(head.1)
    );
    line(drawing, "used", &chart.points);
    if let Some(projection) = &chart.projection {
        line(drawing, "projection", projection);
    }
    let below = TOP + HEIGHT + 20.0;
    label(drawing, "muted", LEFT, below, "start", &local.time_of_day(chart.from));
    label(drawing, "muted", WIDTH - RIGHT, below, "end", &local.time_of_day(chart.to));
    if (0.15..=0.85).contains(&chart.now) {
        label(drawing, "muted", foot.0, below, "middle", "now");
    }
}

fn position((x, y): Point) -> Point {
    (LEFT + x * (WIDTH - LEFT - RIGHT), TOP + (1.0 - y) * HEIGHT)
}

fn line(drawing: &mut String, class: &str, points: &[Point]) {
    let points: Vec<_> = points
        .iter()
        .map(|point| position(*point))
        .map(|(x, y)| format!("{},{}", rounded(x), rounded(y)))
        .collect();
    let _ = writeln!(drawing, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
}

fn label(drawing: &mut String, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
    let (x, y) = (rounded(x), rounded(y));
    let _ = writeln!(
        drawing,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(&sanitize(text))
    );
}

/// Rounds to a tenth of a point, which is finer than a screen shows.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
