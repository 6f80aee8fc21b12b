//! The results for readers: tables and chart in the repository.

use crate::cases::CASES;
use crate::chart;
use crate::results::{Results, Row};
use std::{fmt::Write as _, fs, io, path::Path};

/// What is between these lines of a document is written here.
const BEGIN: &str = "<!-- benches/peers: begin -->\n";
const END: &str = "<!-- benches/peers: end -->\n";

/// The cases in which all servers are beside each other, with the head of their column.
pub(crate) const BESIDE: [(&str, &str); 3] = [
    ("services", "3 instances, A and SRV"),
    ("large", "60 instances, SRV in 4 KiB"),
    ("recursion", "other names, cached"),
];

/// Writes the figures, as JSON and as tables, the chart, the short tables of `docs/speed.md`, and the
/// README's one sentence.
pub(crate) fn publish(results: &Results, repository: &Path) -> io::Result<()> {
    let here = repository.join("benches/peers");
    results.save(&here.join("results.json"))?;
    fs::write(here.join("RESULTS.md"), whole(results))?;
    fs::write(here.join("chart.svg"), chart::draw(results))?;
    put(&short(results), &repository.join("docs/speed.md"))?;
    put(&sentence(results), &repository.join("README.md"))
}

/// Puts a text into its place in a document.
fn put(text: &str, document: &Path) -> io::Result<()> {
    let old = fs::read_to_string(document)?;
    let parts = old
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| {
        let place = format!("{} has no place for the figures", document.display());
        io::Error::other(place)
    })?;
    fs::write(document, format!("{before}{BEGIN}{text}{END}{after}"))
}

/// What everybody's answer costs, in the words of the README.
fn sentence(results: &Results) -> String {
    let costs: Vec<String> = at_rate(results, BESIDE[0].0)
        .filter(|row| row.server != "echo")
        .map(|row| format!("{} × {:.2}", row.server, row.ratio))
        .collect();
    format!(
        "The processor time of one answer (a service of 3 instances, 40 000 queries/s), as a multiple of an echo's:\n\
         {}.\n",
        costs.join(", ")
    )
}

/// The rows of a case in which all servers are offered the same rate.
pub(crate) fn at_rate<'a>(results: &'a Results, case: &str) -> impl Iterator<Item = &'a Row> {
    let rows = results.cases.get(case).into_iter().flatten();
    rows.filter(|row| row.offered.ends_with("/s"))
}

/// The rows of a case in which all servers are at their limit.
fn at_limit<'a>(results: &'a Results, case: &str) -> impl Iterator<Item = &'a Row> {
    let rows = results.cases.get(case).into_iter().flatten();
    rows.filter(|row| !row.offered.ends_with("/s"))
}

/// Processor time where all servers are beside each other, and latencies.
fn short(results: &Results) -> String {
    let mut text = format!("On {}:\n\n", results.machine);
    let rate = |case: &str| at_rate(results, case).collect();
    beside(results, "at 40 000 queries/s", &rate, &mut text);
    let limit = |case: &str| at_limit(results, case).collect();
    beside(results, "at its limit", &limit, &mut text);
    alone(
        results,
        "other names, asked for the first time, × of Unbound",
        "uncached",
        &mut text,
    );
    alone(results, "3 instances, over TCP", "tcp", &mut text);
    latencies(results, &mut text);
    text
}

/// A table with a line for each server and a column for each case.
fn beside<'a>(
    results: &Results,
    title: &str,
    rows: &dyn Fn(&str) -> Vec<&'a Row>,
    text: &mut String,
) {
    let cases = BESIDE.map(|(case, _)| rows(case));
    let _ = write!(text, "| {title} |");
    for (_, head) in BESIDE {
        let _ = write!(text, " {head} |");
    }
    text.push_str("\n|---|---|---|---|\n");
    let mut servers: Vec<&str> = Vec::new();
    for row in cases.iter().flatten() {
        if !servers.contains(&row.server.as_str()) {
            servers.push(&row.server);
        }
    }
    for server in servers {
        let version = results.versions.get(server).map_or("", String::as_str);
        let _ = write!(text, "| {} |", format!("{server} {version}").trim());
        for rows in &cases {
            let _ = match rows.iter().find(|row| row.server == server) {
                Some(row) => write!(
                    text,
                    " {:.1} µs, × {:.2}{} |",
                    row.cost_us,
                    row.ratio,
                    star(row)
                ),
                None => write!(text, " – |"),
            };
        }
        text.push('\n');
    }
    text.push('\n');
}

/// A case that is measured in a way of its own, with a line for each server.
fn alone(results: &Results, title: &str, case: &str, text: &mut String) {
    let Some(rows) = results.cases.get(case) else {
        return;
    };
    let mut paces: Vec<&str> = rows.iter().map(|row| row.offered.as_str()).collect();
    paces.dedup();
    let _ = writeln!(text, "| {title} | {} |", paces.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(paces.len()));
    let mut servers: Vec<&str> = rows.iter().map(|row| row.server.as_str()).collect();
    servers.truncate(servers.len() / paces.len());
    for server in servers {
        let _ = write!(text, "| {server} |");
        for row in rows.iter().filter(|row| row.server == server) {
            let _ = write!(
                text,
                " {:.1} µs, × {:.2}{} |",
                row.cost_us,
                row.ratio,
                star(row)
            );
        }
        text.push('\n');
    }
    text.push('\n');
}

fn latencies(results: &Results, text: &mut String) {
    let mut rows = at_rate(results, "latency").peekable();
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

/// Marks what could not keep the rate.
fn star(row: &Row) -> &'static str {
    if row.pace == row.offered { "" } else { " *" }
}

/// Everything.
fn whole(results: &Results) -> String {
    let mut text = format!(
        "# Results\n\nWritten by `benches/peers/run --publish`; [README.md](README.md) says what was done.\n\n\
         On {}.\n",
        results.machine
    );
    for case in CASES {
        let Some(rows) = results.cases.get(case.name) else {
            continue;
        };
        let _ = writeln!(
            text,
            "\n## {}: {}\n\n\
             | | | asked | µs/answer | × | answers/s | p50 µs | p99 µs | p99.9 µs | bytes | lost | |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|",
            case.name, case.title
        );
        for row in rows {
            let _ = writeln!(
                text,
                "| {} | {} | {}{} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} |",
                row.what,
                row.server,
                row.pace,
                star(row),
                row.cost_us,
                row.ratio,
                row.answers_per_second,
                row.p50_us,
                row.p99_us,
                row.p999_us,
                row.reply_bytes,
                row.lost,
                row.note
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the documents say is what was measured.
    #[test]
    fn the_documents_have_the_figures() {
        let repository = crate::peers::repository();
        let results = Results::load(&repository.join("benches/peers/results.json"));
        let results = results.expect("the figures");
        for (document, text) in [
            ("docs/speed.md", short(&results)),
            ("README.md", sentence(&results)),
            ("benches/peers/RESULTS.md", whole(&results)),
        ] {
            let published = fs::read_to_string(repository.join(document)).expect("a document");
            assert!(published.contains(&text), "{document} lacks:\n{text}");
        }
    }
}
