//! A request's bytes in, a reply's bytes out, for every transport.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::answers::{Answer, Rcode, Rendered, Reply, ReplyEdns, Transport, error_reply};
use crate::names::{Malformed, Query, types};

use super::router::{Routed, Router};

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

/// Where requests come in.
pub(super) struct Door {
    router: Arc<Router>,
    rotation: AtomicUsize,
}

impl Door {
    pub(super) fn new(router: Arc<Router>) -> Self {
        Self {
            router,
            rotation: AtomicUsize::new(0),
        }
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// Appends the reply to `out` if there is one that needs no waiting.
    pub(super) fn at_once(&self, request: &[u8], client: Client, out: &mut Vec<u8>) -> AtOnce {
        let start = Instant::now();
        let query = match Query::parse(request) {
            Ok(query) => query,
            Err(malformed) => return self.malformed(request, malformed, out),
        };
        self.router.metrics().query(client.transport, query.qtype());
        let routed = match rejection(&query) {
            Some(rcode) => Some(Self::reject(&query, rcode)),
            None => self.router.route_at_once(&query, client.of(&query)),
        };
        match routed {
            None => AtOnce::Later,
            Some(routed) => {
                self.write(&query, client, &routed, out);
                self.router.metrics().answered_at_once(start.elapsed());
                AtOnce::Replied
            }
        }
    }

    /// Appends the reply to a request that [`Door::at_once`] put off.
    pub(super) async fn in_full(&self, request: &[u8], client: Client, out: &mut Vec<u8>) {
        let start = Instant::now();
        let Ok(query) = Query::parse(request) else {
            return;
        };
        let routed = self.router.route(&query, client.of(&query)).await;
        self.write(&query, client, &routed, out);
        self.router.metrics().answered_in_full(start.elapsed());
    }

    fn malformed(&self, request: &[u8], malformed: Malformed, out: &mut Vec<u8>) -> AtOnce {
        self.router.metrics().malformed();
        match (malformed, request.first_chunk()) {
            (Malformed::Refuse { rcode }, Some(header)) => {
                out.extend_from_slice(&error_reply(header, Rcode(u16::from(rcode))));
                AtOnce::Replied
            }
            _ => AtOnce::Ignored,
        }
    }

    fn reject(query: &Query<'_>, rcode: Rcode) -> Routed {
        Routed {
            rendered: Arc::new(Rendered::new(&Answer::empty(rcode, false), &query.name())),
            recursion_available: false,
            max_udp_size: OWN_UDP_SIZE,
        }
    }

    fn write(&self, query: &Query<'_>, client: Client, routed: &Routed, out: &mut Vec<u8>) {
        let reply = Reply {
            id: query.id,
            question: query.question(),
            recursion_desired: query.recursion_desired,
            checking_disabled: query.checking_disabled,
            recursion_available: routed.recursion_available,
            transport: client.transport,
            max_udp_size: routed.max_udp_size,
            edns: query.edns.map(|edns| ReplyEdns {
                client_size: edns.udp_size,
                own_size: OWN_UDP_SIZE,
                client_subnet: edns.client_subnet,
            }),
            client: client.address,
            rotation: self.rotation.fetch_add(1, Ordering::Relaxed),
        };
        routed.rendered.write(&reply, out);
        self.router.metrics().response(routed.rendered.rcode());
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
