//! The results for readers: tables and chart in the repository.

use crate::chart;
use crate::results::{Results, Row};
use std::{fmt::Write as _, fs, io, path::Path};

/// Between these lines the README's tables are.
const BEGIN: &str = "<!-- benches/peers: begin -->\n";
const END: &str = "<!-- benches/peers: end -->\n";

/// The cases in which all servers are beside each other, with the head of their column.
pub(crate) const BESIDE: [(&str, &str); 3] = [
    ("services", "3 instances, A and SRV"),
    ("large", "60 instances, SRV in 4 KiB"),
    ("recursion", "other names, cached"),
];

/// Writes the figures, the chart, and the tables between the marks of the README.
pub(crate) fn publish(results: &Results, repository: &Path) -> io::Result<()> {
    let here = repository.join("benches/peers");
    results.save(&here.join("results.json"))?;
    fs::write(here.join("chart.svg"), chart::draw(results))?;
    let readme = repository.join("README.md");
    let text = fs::read_to_string(&readme)?;
    let parts = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or_else(|| io::Error::other("README.md has no place for the tables"))?;
    fs::write(
        &readme,
        format!("{before}{BEGIN}{}{END}{after}", tables(results)),
    )
}

/// The rows of a case in which all servers are offered the same rate, or are at their limit.
pub(crate) fn rows<'a>(
    results: &'a Results,
    case: &str,
    at_limit: bool,
) -> impl Iterator<Item = &'a Row> {
    let rows = results.cases.get(case).into_iter().flatten();
    rows.filter(move |row| row.offered.ends_with("/s") != at_limit)
}

fn tables(results: &Results) -> String {
    let mut text = format!("On {}:\n\n", results.machine);
    side_by_side(results, &mut text);
    latencies(results, &mut text);
    text
}

/// Processor time per answer.
fn side_by_side(results: &Results, text: &mut String) {
    text.push_str("| processor time per answer |");
    for (_, head) in BESIDE {
        let _ = write!(text, " {head} |");
    }
    text.push_str("\n|---|---|---|---|\n");
    for server in servers(results) {
        let version = results.versions.get(server).map_or("", String::as_str);
        let _ = write!(text, "| {} |", format!("{server} {version}").trim());
        for (case, _) in BESIDE {
            let cell = |at_limit| {
                let row = rows(results, case, at_limit).find(|row| row.server == server);
                row.map(|row| {
                    let stars = if row.pace == row.offered { "" } else { "*" };
                    format!("{:.1} µs{stars}, × {:.2}", row.cost_us, row.ratio)
                })
            };
            let _ = match (cell(false), cell(true)) {
                (Some(rate), Some(limit)) => write!(text, " {rate}; {limit} |"),
                _ => write!(text, " – |"),
            };
        }
        text.push('\n');
    }
    text.push('\n');
}

/// All servers that were asked, the echo first.
fn servers(results: &Results) -> Vec<&str> {
    let mut servers = Vec::new();
    for (case, _) in BESIDE {
        for row in rows(results, case, false) {
            if !servers.contains(&row.server.as_str()) {
                servers.push(row.server.as_str());
            }
        }
    }
    servers
}

fn latencies(results: &Results, text: &mut String) {
    let mut rows = rows(results, "latency", false).peekable();
    let Some(first) = rows.peek() else {
        return;
    };
    let _ = writeln!(
        text,
        "| latency at {} | p50 | p99 | p99.9 |\n|---|---|---|---|",
        first.offered
    );
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {:.0} µs | {:.0} µs | {:.0} µs |",
            row.server, row.p50_us, row.p99_us, row.p999_us
        );
    }
}
