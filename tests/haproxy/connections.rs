//! Three commands of one host, which share what Consul's agent allows it: 200 connections.

use crate::{
    edge::Site,
    support::{ensure, eventually, registrar::Registrar, resources::most_held, soak},
};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

const SERVICES: usize = 300;
const INSTANCES: usize = 3;
const MOST: usize = 120;

/// `serve` is asked for each service once a second, by HAProxy.
#[test]
fn three_commands_stay_below_what_consul_allows_a_host() {
    let site = Site::new();
    let services: Vec<Value> = (0..SERVICES * INSTANCES)
        .map(|number| {
            let (service, instance) = (number / INSTANCES, number % INSTANCES);
            let name = format!("svc-{service:03}");
            json!({ "Service": name, "ID": format!("{name}-{instance}"), "Address": "127.0.0.1",
                "Port": 9, "Tags": ["rest"] })
        })
        .collect();
    site.register_all(&services);
    let (took, most) = most_held(site.consul.http(), || {
        let _registrar = Registrar::start(&["--consul", &site.consul.url()]);
        let edge = site.launch(&[]);
        eventually(Duration::from_secs(60), "all have a backend", || {
            let backends = edge.metric("backends");
            ensure(backends == SERVICES as u64, || backends.to_string())
        });
        eventually(Duration::from_secs(60), "HAProxy has all servers", || {
            let state = edge.ask("@1 show servers state")?;
            let servers = state.matches(" 127.0.0.1 ").count();
            // Three of one address and port are one for HAProxy, or three: what counts is that none is without.
            ensure(servers >= SERVICES, || servers.to_string())
        });
        thread::sleep(soak(Duration::from_secs(10), Duration::from_secs(60)));
        let start = Instant::now();
        let _new = site.service("new");
        site.answers("/new/x", "new /x");
        let took = start.elapsed();
        let resets = "portolan_sources_consul_requests_total{outcome=\"reset\"}";
        assert_eq!((edge.any(resets), site.dns.metric(resets)), (0.0, 0.0));
        took
    });
    eprintln!("figure: {most} connections at most, a new service after {took:.1?}");
    assert!(most <= MOST, "{most} connections");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
