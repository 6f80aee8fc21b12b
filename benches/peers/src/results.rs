//! What was found, as it is kept and shown.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, io, path::Path};

/// A server in one case: medians over the rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What is asked, where a case has several.
    pub(crate) what: String,
    pub(crate) server: String,
    /// What every server was offered: queries a second, or how many are always under way.
    pub(crate) offered: String,
    /// What this one was asked at: the same, unless it could not keep the rate.
    pub(crate) pace: String,
    /// Processor time of the server per answer.
    pub(crate) cost_us: f64,
    /// That, by the reference's of the same round: the echo's, over TCP Knot's, for `uncached` Unbound's, and in
    /// `changes` that of a Portolan without changes.
    pub(crate) ratio: f64,
    pub(crate) answers_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) reply_bytes: f64,
    /// Queries without a reply in time, in all rounds.
    pub(crate) lost: u64,
    /// How its replies differ from Portolan's.
    pub(crate) note: String,
}

/// Everything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Processor, cores and kernel.
    pub(crate) machine: String,
    /// By server.
    pub(crate) versions: BTreeMap<String, String>,
    /// By case.
    pub(crate) cases: BTreeMap<String, Vec<Row>>,
}

impl Results {
    /// What is in the file; nothing if there is none.
    pub(crate) fn load(file: &Path) -> io::Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => Ok(serde_json::from_str(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn save(&self, file: &Path) -> io::Result<()> {
        fs::write(file, serde_json::to_string_pretty(self)? + "\n")
    }
}

/// Processor, cores and kernel, as the system calls them.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let models = processors
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<&str> = models
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']))
        .collect();
    let model = models.first().copied().unwrap_or("unknown processor");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {} cores, Linux {}", models.len(), kernel.trim())
}

/// For the terminal.
pub(crate) fn print(case: &str, rows: &[Row]) {
    println!("\n{case}");
    println!(
        "  {:<24} {:<13} {:<13} {:>8} {:>7} {:>9} {:>7} {:>7} {:>7} {:>7} {:>6}",
        "", "", "", "us/query", "x", "answers/s", "p50 us", "p99", "p99.9", "bytes", "lost"
    );
    for row in rows {
        println!(
            "  {:<24} {:<13} {:<13} {:>8.2} {:>7.2} {:>9.0} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>6} {}",
            row.what,
            row.server,
            row.pace,
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
