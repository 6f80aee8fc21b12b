//! Packets that no decent client sends. Each gets the right refusal or nothing at all, and the server
//! answers as before.

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod datagrams;
mod streams;

use support::{
    dns::Query,
    portolan::{Launch, Portolan},
    wire::rtype::A,
};

fn start() -> Portolan {
    Launch::new("dev").args(["--upstream", "none"]).start()
}

/// The server is well: it answers over both transports.
fn assert_answers(portolan: &mut Portolan) {
    portolan.assert_running();
    for query in [
        Query::new("hello1.service.consul", A),
        Query::new("hello1.service.consul", A).tcp(),
    ] {
        let reply = query.ask(portolan.dns());
        assert!(!reply.answers.is_empty(), "{}", reply.summary());
    }
    let log = portolan.events();
    let panicked = log
        .iter()
        .find(|event| event.to_string().contains("panicked"));
    assert_eq!(panicked, None, "something panicked");
}
