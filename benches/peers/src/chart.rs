//! The chart: processor time per answer as multiples of the echo's, a bar for each server.

use crate::publish::{BESIDE, at_rate};
use crate::results::Results;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 16.0;
const GAP: f64 = 7.0;
const HEAD: f64 = 40.0;

/// Multiples that the width stands for; a longer bar is broken off and says its length.
const MOST: f64 = 6.0;

/// Draws it, on a white ground.
pub(crate) fn draw(results: &Results) -> String {
    let (mut body, mut y) = (String::new(), 24.0);
    text(
        &mut body,
        8.0,
        y,
        "bold",
        "Processor time per answer, as multiples of an echo's",
    );
    for (case, head) in BESIDE {
        y += HEAD;
        text(&mut body, 8.0, y - 10.0, "bold", head);
        let top = y;
        for row in at_rate(results, case) {
            let length = row.ratio.min(MOST) / MOST * (WIDTH - LEFT - RIGHT);
            let colour = match row.server.as_str() {
                "Portolan" => "#2a7de1",
                "echo" => "#9aa0a6",
                _ => "#d98b2b",
            };
            text(&mut body, 8.0, y + BAR - 4.0, "normal", &row.server);
            let _ = writeln!(
                body,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
            );
            if row.ratio > MOST {
                broken(&mut body, LEFT + length - 22.0, y);
            }
            let end = LEFT + length + 6.0;
            text(
                &mut body,
                end,
                y + BAR - 4.0,
                "normal",
                &format!("{:.2}", row.ratio),
            );
            y += BAR + GAP;
        }
        // Where the echo ends: nobody can be left of it.
        let one = LEFT + (WIDTH - LEFT - RIGHT) / MOST;
        let _ = writeln!(
            body,
            "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"#9aa0a6\" \
             stroke-dasharray=\"3 3\"/>",
            top - 4.0,
            y - GAP + 4.0
        );
    }
    let height = y + 8.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn text(body: &mut String, x: f64, y: f64, weight: &str, words: &str) {
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-weight=\"{weight}\" fill=\"#222222\">{words}</text>"
    );
}

/// Two slanted cuts through a bar that would be longer.
fn broken(body: &mut String, x: f64, y: f64) {
    for x in [x, x + 7.0] {
        let _ = writeln!(
            body,
            "<line x1=\"{:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"#ffffff\" stroke-width=\"3\"/>",
            x + 6.0,
            y - 1.0,
            y + BAR + 1.0
        );
    }
}
