//! Three commands of one host, which share what Consul's agent allows it: 200 connections.

use crate::{
    edge::Site,
    support::{ensure, eventually, registrar::Registrar, resources::held, soak},
};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const SERVICES: usize = 300;
const INSTANCES: usize = 3;
const MOST: usize = 120;

/// In transactions of 64, which is what Consul takes.
fn fill(site: &Site) {
    let consul = &site.consul;
    consul.register(&json!({ "Node": "w", "Address": "127.0.0.1" }));
    let all: Vec<Value> = (0..SERVICES * INSTANCES)
        .map(|number| {
            let (service, instance) = (number / INSTANCES, number % INSTANCES);
            json!({ "Service": { "Verb": "set", "Node": "w", "Service": {
                "Service": format!("svc-{service:03}"), "ID": format!("svc-{service:03}-{instance}"),
                "Address": "127.0.0.1", "Port": 9, "Tags": ["rest"] } } })
        })
        .collect();
    for transaction in all.chunks(64) {
        consul.put("/v1/txn", &Value::from(transaction));
    }
}

/// `serve` is asked for each service once a second, by HAProxy.
#[test]
fn three_commands_stay_below_what_consul_allows_a_host() {
    let site = Site::new();
    fill(&site);
    let address = site.consul.http();
    let (is_over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let took = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(held(address), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
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
        let new = site.service("new");
        site.answers("/new/x", "new /x");
        let took = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        drop(new);
        let resets = "portolan_sources_consul_requests_total{outcome=\"reset\"}";
        assert_eq!((edge.any(resets), site.dns.metric(resets)), (0.0, 0.0));
        took
    });
    let most = most.into_inner();
    eprintln!("figure: {most} connections at most, a new service after {took:.1?}");
    assert!(most <= MOST, "{most} connections");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
