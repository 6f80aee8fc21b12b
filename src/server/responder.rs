//! A request's bytes in, a reply's bytes out, for every transport.

use std::sync::Arc;
use std::time::Instant;

use crate::catalog::Versions;
use crate::dns::{
    Answer, Malformed, Rcode, Reply, ReplyEdns, Request, Transport, error_reply, types,
};
use crate::router::{Access, Asker, Inquiry, Resolved, Router, Waiting};

use super::cache::{Cache, Key, Room};
use super::metrics::{Counts, Metrics, Tally, Way};

/// The UDP payload that we can take, as told to clients: no query comes near it.
const OWN_UDP_SIZE: u16 = 1232;

/// The largest UDP answer for clients outside the access list: somebody may ask in another's name, and what he
/// gets must not be many times as much as was sent.
const STRANGERS_UDP_SIZE: u16 = 1232;

/// The Extended DNS Error "Not Ready" (RFC 8914 section 4.15): it may be asked again.
const NOT_READY: u16 = 14;

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
            let nobody = Access::default();
            let reply = reply(&request, asker, &resolved, nobody, 0, 0);
            resolved.rendered.write(&reply, out);
            shard.tally.response(rcode);
            return Handled::Replied;
        }
        let access = self.router.access(asker);
        let recursive = access.may_recurse && request.recursion_desired;
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
                let reply = reply(&request, asker, resolved, access, turn, now);
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
        let reply = reply(&request, asker, &resolved, access, turn, now);
        resolved.rendered.write(&reply, out);
        shard.tally.response(resolved.rendered.rcode());
        shard.keep(&key, resolved);
        Handled::Replied
    }

    /// Appends the reply to a request that [`Responder::at_once`] put off, when there is `room` for it. Gives
    /// what can be kept, and the room.
    pub(super) async fn later<F: Future>(
        &self,
        counts: &Counts,
        request: &[u8],
        asker: Asker,
        waiting: Waiting,
        room: impl Fn() -> F,
        out: &mut Vec<u8>,
    ) -> Option<(Option<(Key, Resolved)>, F::Output)> {
        let start = Instant::now();
        let request = Request::parse(request).ok()?;
        let access = self.router.access(asker);
        let recursive = access.may_recurse && request.recursion_desired;
        let inquiry = Inquiry::new(&request, asker, recursive);
        let (resolved, room) = self.router.resolve_later(&inquiry, waiting, room).await;
        let now = self.router.versions().millis();
        let turn = now as usize;
        let reply = reply(&request, asker, &resolved, access, turn, now);
        resolved.rendered.write(&reply, out);
        let mut tally = Tally::default();
        tally.response(resolved.rendered.rcode());
        counts.add(&tally, Way::InFull, start.elapsed());
        let is_kept = !resolved.validity.is_none();
        Some((
            is_kept.then(|| (Key::new(&request, recursive), resolved)),
            room,
        ))
    }

    /// Appends that there is too much to do for this client.
    pub(super) fn busy(&self, request: &[u8], asker: Asker, out: &mut Vec<u8>) {
        let Ok(request) = Request::parse(request) else {
            return;
        };
        let answer = Answer::failed(NOT_READY);
        let resolved = Resolved::once(&answer, &request.name(), OWN_UDP_SIZE);
        let access = self.router.access(asker);
        let reply = reply(&request, asker, &resolved, access, 0, 0);
        resolved.rendered.write(&reply, out);
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
    access: Access,
    rotation: usize,
    now: u64,
) -> Reply<'a> {
    Reply {
        id: request.id,
        question: request.question(),
        recursion_desired: request.recursion_desired,
        wants_authentic: request.wants_authentic(),
        checking_disabled: request.checking_disabled,
        recursion_available: access.may_recurse,
        transport: asker.transport,
        max_udp_size: match access.is_known {
            true => resolved.max_udp_size,
            false => resolved.max_udp_size.min(STRANGERS_UDP_SIZE),
        },
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
