//! A request's bytes in, a reply's bytes out, for every transport.

use std::sync::Arc;
use std::time::Instant;

use crate::catalog::Versions;
use crate::dns::{
    Answer, Malformed, Rcode, Reply, ReplyEdns, Request, Transport, error_reply, types,
};
use crate::router::{Asker, Inquiry, Resolved, Router, Waiting};

use super::cache::{Cache, Key, Room};
use super::metrics::{Counts, Metrics, Tally, Way};

/// The UDP payload that we can take, as told to clients: no query comes near it.
const OWN_UDP_SIZE: u16 = 1232;

/// What came of a request without waiting.
#[derive(Debug)]
pub(super) enum Handled {
    /// The reply has been appended.
    Replied,
    /// There is nothing to reply.
    Ignored,
    /// Something has to be waited for.
    Later(Waiting),
}

/// What one worker answers from: its own share of the rendered answers, and its own counts.
#[derive(Debug)]
pub(super) struct Shard {
    cache: Cache,
    /// Turns the order of addresses.
    rotation: usize,
    /// Milliseconds on the catalog's clock, as of the beginning of the batch.
    now: u64,
    began: Instant,
    tally: Tally,
    counts: Arc<Counts>,
    versions: Arc<Versions>,
}

impl Shard {
    /// A shard whose cache has so much room, of answers under these versions.
    pub(super) fn new(room: Room, counts: Arc<Counts>, versions: Arc<Versions>) -> Self {
        Self {
            cache: Cache::new(room),
            rotation: 0,
            now: 0,
            began: Instant::now(),
            tally: Tally::default(),
            counts,
            versions,
        }
    }

    /// A batch of requests has come. The time is read once for all of them.
    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
        self.now = self.versions.millis();
    }

    /// The batch is answered.
    pub(super) fn end(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        self.counts.add(&tally, Way::AtOnce, self.began.elapsed());
    }

    /// Turns addresses from here on.
    #[cfg(test)]
    pub(super) fn turn(&mut self, rotation: usize) {
        self.rotation = rotation;
    }

    /// Keeps an answer that was made elsewhere.
    pub(super) fn keep(&mut self, key: &Key, resolved: Resolved) {
        self.cache.insert(key, resolved);
        self.counts.set_cache_bytes(self.cache.bytes());
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

/// Where requests come in.
pub(super) struct Responder {
    router: Arc<Router>,
    metrics: Metrics,
}

impl Responder {
    pub(super) fn new(router: Arc<Router>, metrics: Metrics) -> Self {
        Self { router, metrics }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A worker's shard, counted as one of this transport.
    pub(super) fn shard(&self, room: Room, transport: Transport) -> Shard {
        let versions = Arc::clone(self.router.versions());
        Shard::new(room, self.metrics.worker(transport), versions)
    }

    /// Appends the reply to `out` if there is one that needs no waiting: as it was rendered
    /// before if that still holds, else made from memory.
    pub(super) fn at_once(
        &self,
        shard: &mut Shard,
        request: &[u8],
        asker: Asker,
        out: &mut Vec<u8>,
    ) -> Handled {
        let request = match Request::parse(request) {
            Ok(request) => request,
            Err(malformed) => return Self::malformed(shard, request, malformed, out),
        };
        shard.tally.query(request.qtype());
        if let Some(rcode) = rejection(&request) {
            let answer = Answer::empty(rcode, false);
            let resolved = Resolved::once(&answer, &request.name(), OWN_UDP_SIZE);
            let reply = reply(&request, asker, &resolved, false, 0, 0);
            resolved.rendered.write(&reply, out);
            shard.tally.response(rcode);
            return Handled::Replied;
        }
        let may_recurse = self.router.may_recurse(asker);
        let recursive = may_recurse && request.recursion_desired;
        let key = Key::new(&request, recursive);
        let (now, turn) = (shard.now, shard.rotation);
        shard.rotation = turn.wrapping_add(1);
        let mut rcode = Rcode::NOERROR;
        let versions = &shard.versions;
        let was_there = shard.cache.reply(
            &key,
            |validity| validity.holds(versions, now),
            |entry| {
                let resolved = &entry.resolved;
                resolved.validity.touch(now / 1000);
                rcode = resolved.rendered.rcode();
                let reply = reply(&request, asker, resolved, may_recurse, turn, now);
                entry.write(&reply, out)
            },
        );
        if was_there {
            shard.tally.hit();
            shard.tally.response(rcode);
            return Handled::Replied;
        }
        let resolved = match self
            .router
            .resolve(&Inquiry::new(&request, asker, recursive))
        {
            Ok(resolved) => resolved,
            Err(waiting) => return Handled::Later(waiting),
        };
        let reply = reply(&request, asker, &resolved, may_recurse, turn, now);
        resolved.rendered.write(&reply, out);
        shard.tally.response(resolved.rendered.rcode());
        shard.keep(&key, resolved);
        Handled::Replied
    }

    /// Appends the reply to a request that [`Responder::at_once`] put off. Gives what can be kept.
    pub(super) async fn later(
        &self,
        counts: &Counts,
        request: &[u8],
        asker: Asker,
        waiting: Waiting,
        out: &mut Vec<u8>,
    ) -> Option<(Key, Resolved)> {
        let start = Instant::now();
        let request = Request::parse(request).ok()?;
        let may_recurse = self.router.may_recurse(asker);
        let recursive = may_recurse && request.recursion_desired;
        let inquiry = Inquiry::new(&request, asker, recursive);
        let resolved = self.router.resolve_later(&inquiry, waiting).await;
        let now = self.router.versions().millis();
        let turn = now as usize;
        let reply = reply(&request, asker, &resolved, may_recurse, turn, now);
        resolved.rendered.write(&reply, out);
        let mut tally = Tally::default();
        tally.response(resolved.rendered.rcode());
        counts.add(&tally, Way::InFull, start.elapsed());
        (!resolved.validity.is_none()).then(|| (Key::new(&request, recursive), resolved))
    }

    fn malformed(
        shard: &mut Shard,
        request: &[u8],
        malformed: Malformed,
        out: &mut Vec<u8>,
    ) -> Handled {
        shard.tally.malformed();
        match (malformed, request.first_chunk()) {
            (Malformed::Refuse { rcode }, Some(header)) => {
                out.extend_from_slice(&error_reply(header, Rcode(u16::from(rcode))));
                Handled::Replied
            }
            _ => Handled::Ignored,
        }
    }
}

/// What is the client's own in the reply.
fn reply<'a>(
    request: &Request<'a>,
    asker: Asker,
    resolved: &Resolved,
    may_recurse: bool,
    rotation: usize,
    now: u64,
) -> Reply<'a> {
    Reply {
        id: request.id,
        question: request.question(),
        recursion_desired: request.recursion_desired,
        wants_authentic: request.wants_authentic(),
        checking_disabled: request.checking_disabled,
        recursion_available: may_recurse,
        transport: asker.transport,
        max_udp_size: resolved.max_udp_size,
        edns: request.edns.map(|edns| ReplyEdns {
            client_size: edns.udp_size,
            own_size: OWN_UDP_SIZE,
            dnssec_ok: edns.dnssec_ok,
            client_subnet: edns.client_subnet,
        }),
        client: asker.address,
        rotation,
        elapsed: resolved.elapsed(now),
    }
}

/// Queries that no zone and no upstream needs to see.
fn rejection(request: &Request<'_>) -> Option<Rcode> {
    if request.edns.is_some_and(|edns| edns.version != 0) {
        return Some(Rcode::BADVERS);
    }
    if request.qclass() != types::CLASS_IN {
        return Some(Rcode::REFUSED);
    }
    // An OPT record cannot be asked for (RFC 6891 section 6.1.1).
    (request.qtype() == types::OPT).then_some(Rcode::FORMERR)
}
