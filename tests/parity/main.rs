//! Portolan and a real Consul 1.8.7 are asked the same, thousands of times: the answers are equal,
//! apart from what `deviations` lists.

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod deviations;
mod domains;
mod generated;
mod judge;
mod model;
mod outside;
mod queries;
mod questions;
mod recursion;
mod section8;
mod world;

use judge::Tally;
use std::net::SocketAddr;
use support::{
    consul::Consul,
    portolan::{Launch, Portolan},
    upstream::Upstream,
};

/// What questions are about that need recursion, or go on where there is none.
const LEAD_OUT: [&str; 4] = [
    "addresses that are names",
    "foreign addresses",
    "reverse names",
    "outside the domain",
];

/// Both servers with the world in them, and the rest of the Internet, which is told last.
fn start() -> (Portolan, Consul, Upstream) {
    let upstream = outside::start();
    let consul = world::start(&[upstream.address()]);
    let portolan = portolan_beside(&consul, &[upstream.address()]);
    (portolan, consul, upstream)
}

/// Portolan beside `consul`, with the settings of `world` and these upstreams.
fn portolan_beside(consul: &Consul, upstreams: &[SocketAddr]) -> Portolan {
    let mut arguments = vec!["--consul".to_owned(), consul.url()];
    if upstreams.is_empty() {
        arguments.extend(["--upstream".to_owned(), "none".to_owned()]);
    }
    for upstream in upstreams {
        arguments.extend(["--upstream".to_owned(), upstream.to_string()]);
    }
    Launch::new("serve")
        .args(arguments)
        .config(world::PORTOLAN_TOML)
        .start()
}

#[test]
fn answers_are_consuls_own() {
    let (portolan, consul, _upstream) = start();
    let mut tally = Tally::default();
    for query in questions::all() {
        tally.ask(&query, &consul.dns(), portolan.dns());
    }
    // Without upstreams, what leads out of the domain is told as far as it is known.
    let consul = world::start(&[]);
    let portolan = portolan_beside(&consul, &[]);
    for what in LEAD_OUT {
        for query in questions::about(what) {
            tally.ask(&query, &consul.dns(), portolan.dns());
        }
    }
    let different: usize = questions::sizes().map(|(_, size)| size).sum();
    for (about, size) in questions::sizes() {
        println!("{size:6} names and types: {about}");
    }
    assert!(different >= 400, "only {different} names and types");
    tally.conclude("table");
    if consul.is_old() {
        tally.has_seen_all(false);
    }
}
