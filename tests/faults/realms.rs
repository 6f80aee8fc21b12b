//! Namespaces that clients make up: what they cost is bounded, and those that exist are answered meanwhile.

use crate::{
    alone,
    asking::all_right,
    figure,
    lying::{beside, question},
    support::{
        dns::Query,
        ensure, eventually,
        fake_consul::{FakeConsul, Lie},
        wire::rtype::A,
    },
};
use std::time::{Duration, Instant};

const NAMES: &str = "/v1/catalog/services";

/// A quarter of `consul.max_watches`, which is 80.
const MOST: usize = 20;

const ENTERPRISE: &str =
    r#"{"Config":{"Datacenter":"dc1","NodeName":"n1","Version":"1.16.4+ent"}}"#;

#[test]
fn namespaces_that_are_made_up_are_bounded() {
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.tell("/v1/agent/self", usize::MAX, Lie::body(ENTERPRISE));
    fake.set("web", &["10.5.0.1"]);
    let portolan = beside(&fake);
    let server = portolan.dns();
    let known = [
        question("web.service.consul", &["10.5.0.1"]),
        question("web.service.team.ns.consul", &["10.5.0.1"]),
    ];
    all_right(server, &known, Duration::from_secs(10));
    let (start, mut asked) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(5) {
        asked += 1;
        let junk = format!("web.service.team{asked}.ns.consul");
        Query::new(&junk, A)
            .patience(Duration::from_secs(3))
            .ask(server);
        if asked % 16 == 0 {
            for known in &known {
                assert_eq!(known.ask(server), Ok(()), "beside junk");
            }
        }
    }
    // Each begins with a read that does not wait.
    let lists = fake.seen_at(NAMES).into_iter();
    let followed = lists.filter(|request| request.index.is_none()).count();
    figure(&format!(
        "{asked} namespaces that clients made up had {followed} lists followed"
    ));
    assert!(asked > 2 * MOST, "{asked} were asked for");
    assert!(followed <= MOST, "{followed} lists are followed");
    eventually(
        Duration::from_secs(10),
        "what was refused is counted",
        || {
            let counted = portolan.metric("portolan_sources_consul_realms_refused_total");
            ensure(counted > 0.0, || format!("{counted} of {asked}"))
        },
    );
    // What nobody asks for any more makes room.
    let late = question("web.service.late.ns.consul", &["10.5.0.1"]);
    eventually(Duration::from_secs(30), "a new one has a place", || {
        known[1].ask(server)?;
        late.ask(server)
    });
}
