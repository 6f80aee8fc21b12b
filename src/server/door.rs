//! A request's bytes in, a reply's bytes out, for every transport.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::answers::{Answer, Rcode, Rendered, Reply, ReplyEdns, Transport, error_reply};
use crate::catalog::{self, Basis};
use crate::names::{Malformed, Query, types};

use super::cache::{Cache, Key, Made};
use super::router::Router;
use super::tally::{Counts, Tally, Way};

/// The UDP payload that we can take, as told to clients: no query comes near it.
const OWN_UDP_SIZE: u16 = 1232;

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// Where the query came from.
    pub(super) address: IpAddr,
    /// Where the one is that it is asked for: the client subnet, else the address.
    pub(super) network: IpAddr,
    pub(super) transport: Transport,
}

impl Client {
    pub(super) fn new(address: IpAddr, transport: Transport) -> Self {
        // A client of a dual-stack socket is its IPv4 self.
        let address = address.to_canonical();
        Self {
            address,
            network: address,
            transport,
        }
    }

    /// On whose behalf this query is.
    fn of(self, query: &Query<'_>) -> Self {
        let subnet = query.edns.and_then(|edns| edns.client_subnet);
        Self {
            network: subnet.map_or(self.network, |subnet| subnet.address),
            ..self
        }
    }
}

/// What came of a request without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtOnce {
    /// The reply has been appended.
    Replied,
    /// There is nothing to reply.
    Ignored,
    /// It must go the full way.
    Later,
}

/// What one worker answers from.
#[derive(Debug)]
pub(super) struct Desk {
    cache: Cache,
    /// Turns the order of addresses.
    rotation: usize,
    /// Milliseconds on the catalog's clock, as of the beginning of the batch.
    now: u64,
    began: Instant,
    tally: Tally,
    counts: Arc<Counts>,
}

impl Desk {
    /// A desk whose cache takes so many bytes at most.
    pub(super) fn new(cache_bytes: usize, counts: Arc<Counts>) -> Self {
        Self {
            cache: Cache::new(cache_bytes),
            rotation: 0,
            now: 0,
            began: Instant::now(),
            tally: Tally::default(),
            counts,
        }
    }

    /// A batch of requests has come. The time is read once for all of them.
    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
        self.now = catalog::millis();
    }

    /// The batch is answered.
    pub(super) fn end(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        self.counts.add(&tally, Way::AtOnce, self.began.elapsed());
    }

    /// Keeps an answer that was made elsewhere.
    pub(super) fn keep(&mut self, key: &Key, made: Made) {
        self.cache.insert(key, made);
        self.counts.set_cache_bytes(self.cache.bytes());
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

/// Where requests come in.
pub(super) struct Door {
    router: Arc<Router>,
}

impl Door {
    pub(super) fn new(router: Arc<Router>) -> Self {
        Self { router }
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// Appends the reply to `out` if there is one that needs no waiting: as it was rendered
    /// before if that still holds, else made from memory.
    pub(super) fn at_once(
        &self,
        desk: &mut Desk,
        request: &[u8],
        client: Client,
        out: &mut Vec<u8>,
    ) -> AtOnce {
        let query = match Query::parse(request) {
            Ok(query) => query,
            Err(malformed) => return Self::malformed(desk, request, malformed, out),
        };
        desk.tally.query(query.qtype());
        if let Some(rcode) = rejection(&query) {
            let made = reject(&query, rcode);
            made.write(&reply(&query, client, &made, false, 0, 0), out);
            desk.tally.response(rcode);
            return AtOnce::Replied;
        }
        let may_recurse = self.router.may_recurse(client);
        let recursive = may_recurse && query.recursion_desired;
        let key = Key::new(&query, recursive);
        let (now, turn) = (desk.now, desk.rotation);
        desk.rotation = turn.wrapping_add(1);
        let mut rcode = Rcode::NOERROR;
        let was_there = desk.cache.reply(
            &key,
            |basis| basis.holds(now),
            |entry| {
                let made = &entry.made;
                made.basis.touch(now / 1000);
                rcode = made.rendered.rcode();
                let reply = reply(&query, client, made, may_recurse, turn, now);
                entry.write(&reply, out)
            },
        );
        if was_there {
            desk.tally.hits += 1;
            desk.tally.response(rcode);
            return AtOnce::Replied;
        }
        let Some(made) = self.router.route_at_once(&query, client.of(&query)) else {
            return AtOnce::Later;
        };
        made.write(&reply(&query, client, &made, may_recurse, turn, now), out);
        desk.tally.response(made.rendered.rcode());
        desk.keep(&key, made);
        AtOnce::Replied
    }

    /// Appends the reply to a request that [`Door::at_once`] put off. Gives what can be kept.
    pub(super) async fn in_full(
        &self,
        counts: &Counts,
        request: &[u8],
        client: Client,
        out: &mut Vec<u8>,
    ) -> Option<(Key, Made)> {
        let start = Instant::now();
        let query = Query::parse(request).ok()?;
        let may_recurse = self.router.may_recurse(client);
        let recursive = may_recurse && query.recursion_desired;
        let made = self
            .router
            .route(&query, client.of(&query), recursive)
            .await;
        let now = catalog::millis();
        let turn = now as usize;
        made.write(&reply(&query, client, &made, may_recurse, turn, now), out);
        let mut tally = Tally::default();
        tally.response(made.rendered.rcode());
        counts.add(&tally, Way::InFull, start.elapsed());
        (!made.basis.is_none()).then(|| (Key::new(&query, recursive), made))
    }

    fn malformed(
        desk: &mut Desk,
        request: &[u8],
        malformed: Malformed,
        out: &mut Vec<u8>,
    ) -> AtOnce {
        desk.tally.malformed += 1;
        match (malformed, request.first_chunk()) {
            (Malformed::Refuse { rcode }, Some(header)) => {
                out.extend_from_slice(&error_reply(header, Rcode(u16::from(rcode))));
                AtOnce::Replied
            }
            _ => AtOnce::Ignored,
        }
    }
}

fn reject(query: &Query<'_>, rcode: Rcode) -> Made {
    Made {
        rendered: Rendered::new(&Answer::empty(rcode, false), &query.name()),
        max_udp_size: OWN_UDP_SIZE,
        basis: Basis::none(),
        born: None,
    }
}

/// What is the client's own in the reply.
fn reply<'a>(
    query: &Query<'a>,
    client: Client,
    made: &Made,
    may_recurse: bool,
    rotation: usize,
    now: u64,
) -> Reply<'a> {
    Reply {
        id: query.id,
        question: query.question(),
        recursion_desired: query.recursion_desired,
        checking_disabled: query.checking_disabled,
        recursion_available: may_recurse,
        transport: client.transport,
        max_udp_size: made.max_udp_size,
        edns: query.edns.map(|edns| ReplyEdns {
            client_size: edns.udp_size,
            own_size: OWN_UDP_SIZE,
            client_subnet: edns.client_subnet,
        }),
        client: client.address,
        rotation,
        elapsed: made.elapsed(now),
    }
}

/// Queries that no zone and no upstream needs to see.
fn rejection(query: &Query<'_>) -> Option<Rcode> {
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Some(Rcode::BADVERS);
    }
    if query.qclass() != types::CLASS_IN {
        return Some(Rcode::REFUSED);
    }
    // An OPT record cannot be asked for (RFC 6891 section 6.1.1).
    (query.qtype() == types::OPT).then_some(Rcode::FORMERR)
}

#[cfg(test)]
mod tests;
