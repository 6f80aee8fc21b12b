//! How soon one Portolan says what Consul has, and what junk costs.

use super::catalog::{Catalog, service};
use super::{Follower, question};
use crate::question::Asked;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use std::{
    io, thread,
    time::{Duration, Instant},
};

/// How often each is tried.
const TIMES: u32 = 200;

/// Between two rounds of a new, a changed and a deregistered service.
const EVERY: Duration = Duration::from_millis(100);

/// Between two questions.
const ASKED_EVERY: Duration = Duration::from_millis(1);

/// An answer that is not right after this is never.
const PATIENCE: Duration = Duration::from_secs(20);

/// Names that do not exist, and how many questions there are for them, over how long.
const NAMES: u32 = 20_000;
const QUESTIONS: u32 = 100_000;
const LASTING: Duration = Duration::from_secs(30);

/// One in so many questions beside junk is for a service that exists.
const KNOWN_IN: u32 = 100;

/// Waits until the answer is right; gives how long that took.
fn seen(
    follower: &Follower,
    name: &str,
    is_right: impl Fn(&Message) -> bool,
) -> io::Result<Duration> {
    let (start, question) = (Instant::now(), question(name));
    loop {
        let (_, reply) = Asked::probe(&question, follower.server.address)?;
        if is_right(&reply) {
            return Ok(start.elapsed());
        }
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other(format!(
                "{name} is not right after {PATIENCE:?}"
            )));
        }
        thread::sleep(ASKED_EVERY);
    }
}

/// New, changed and deregistered services.
pub(super) fn visible(catalog: &Catalog, follower: &Follower) -> io::Result<String> {
    let (mut new, mut changed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TIMES {
        thread::sleep(EVERY);
        // Never one that was there before.
        let number = catalog.next();
        let name = format!("visible-{number}");
        catalog.appear(&name).map_err(io::Error::other)?;
        new.push(seen(follower, &name, |reply| !reply.answers.is_empty())?);

        let port = 20_000 + number % 40_000;
        let registered = catalog.register(&service(0), "node-0", port);
        registered.map_err(io::Error::other)?;
        let has_port = |reply: &Message| {
            let mut records = reply.answers.iter();
            records.any(
                |record| matches!(&record.data, RData::SRV(srv) if u32::from(srv.port) == port),
            )
        };
        changed.push(seen(follower, &service(0), has_port)?);

        catalog.vanish(&name).map_err(io::Error::other)?;
        let is_gone = |reply: &Message| reply.metadata.response_code == ResponseCode::NXDomain;
        gone.push(seen(follower, &name, is_gone)?);
    }
    let shown = [("new", new), ("changed", changed), ("gone", gone)].map(|(what, mut times)| {
        times.sort();
        let at =
            |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
        format!(
            "{what} {:.1} / {:.1} / {:.1} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        )
    });
    Ok(format!("median / p99 / most: {}", shown.join(", ")))
}

/// Names that do not exist, and one that does beside them.
pub(super) fn junk(follower: &Follower) -> io::Result<String> {
    let (start, before) = (Instant::now(), follower.relay.counted());
    let mut known = Vec::new();
    for number in 0..QUESTIONS {
        let due = start + LASTING * number / QUESTIONS;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let name = format!("junk-{}", number % NAMES);
        Asked::probe(&question(&name), follower.server.address)?;
        if number % KNOWN_IN == 0 {
            let asked = Instant::now();
            Asked::probe(&question(&service(0)), follower.server.address)?;
            known.push(asked.elapsed());
        }
    }
    known.sort();
    let requests = follower.relay.counted().requests - before.requests;
    let seconds = start.elapsed().as_secs_f64();
    Ok(format!(
        "{:.0} questions a second: {:.1} requests a second, a known name {:.2} ms (p99)",
        f64::from(QUESTIONS) / seconds,
        requests as f64 / seconds,
        known[known.len() * 99 / 100].as_secs_f64() * 1000.0
    ))
}
