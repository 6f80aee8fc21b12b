//! dig itself: what a person types, and what it prints.

use super::program;
use std::{net::SocketAddr, process::Command};

/// What dig printed, taken apart.
#[derive(Debug)]
pub(crate) struct Dig {
    pub(crate) status: String,
    pub(crate) flags: Vec<String>,
    /// The payload size in the server's OPT record.
    pub(crate) edns: Option<u16>,
    pub(crate) answer: Vec<String>,
    pub(crate) authority: Vec<String>,
    pub(crate) additional: Vec<String>,
    pub(crate) output: String,
}

/// Runs `dig @server ARGUMENTS`, which has to get an answer at its first try.
pub(crate) fn dig(server: SocketAddr, arguments: &[&str]) -> Dig {
    let output = Command::new(program("dig"))
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+tries=1", "+time=3"])
        .args(arguments)
        .output()
        .expect("running dig");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "dig {arguments:?}: {text}");
    // dig falls back and complains instead of failing, in comments of its own.
    for complaint in ["malformed", "extra bytes", "Truncated, retrying"] {
        assert!(!text.contains(complaint), "dig {arguments:?}: {text}");
    }
    let after = |mark: &str| Some(text.split_once(mark)?.1);
    let section = |name: &str| -> Vec<String> {
        let lines = after(&format!(";; {name} SECTION:\n")).unwrap_or_default();
        lines
            .lines()
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let status = after("status: ").and_then(|rest| rest.split(',').next());
    let flags = after(";; flags: ").and_then(|rest| rest.split(';').next());
    let edns = after("; EDNS:").and_then(|rest| {
        let size = rest.lines().next()?.split_once("udp: ")?.1;
        size.trim().parse().ok()
    });
    Dig {
        status: status.unwrap_or_default().to_owned(),
        flags: flags
            .unwrap_or_default()
            .split(' ')
            .map(str::to_owned)
            .collect(),
        edns,
        answer: section("ANSWER"),
        authority: section("AUTHORITY"),
        additional: section("ADDITIONAL"),
        output: text,
    }
}
