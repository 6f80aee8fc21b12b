//! Names that are not Consul's: recursion through scripted upstreams.

#[path = "../support/mod.rs"]
mod support;

mod caching;
mod failing;
mod refusing;

use hickory_proto::op::{Message, ResponseCode};
use std::{ffi::OsString, net::Ipv4Addr};
use support::{
    portolan::{Launch, Portolan},
    upstream::{self, Action, Transport, Upstream},
};

/// What every good upstream here says about every name.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// An upstream that knows the answer.
fn good() -> Upstream {
    Upstream::start(|query, _| upstream::addresses(query, 300, &[ADDRESS]))
}

/// An upstream that fails with `rcode` over whatever transport.
fn failing(rcode: ResponseCode) -> Upstream {
    Upstream::start(move |query, _| upstream::failure(query, rcode))
}

/// An upstream that says nothing.
fn silent() -> Upstream {
    Upstream::start(|_: &Message, _: Transport| Action::Silence)
}

/// `portolan serve` with no Consul and these upstreams, in this order.
fn launch(upstreams: &[&Upstream]) -> Launch {
    let flags = upstreams
        .iter()
        .flat_map(|upstream| ["--upstream".to_owned(), upstream.address().to_string()]);
    Launch::new("serve")
        .args(["--consul", "none"])
        .args(flags.map(OsString::from))
}

fn portolan(upstreams: &[&Upstream]) -> Portolan {
    launch(upstreams).start()
}
