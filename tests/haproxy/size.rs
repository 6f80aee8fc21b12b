//! A thousand services.

use crate::{
    backends::Backend,
    edge::Site,
    support::{ensure, eventually, http},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SERVICES: usize = 1000;

#[test]
fn a_thousand_services() {
    let site = Site::new();
    let backend = Backend::start("b");
    // In transactions of 64, which is what Consul takes: one by one it would be the test.
    let services: Vec<String> = (0..SERVICES).map(|n| format!("svc-{n:04}")).collect();
    site.consul
        .register(&json!({ "Node": "w", "Address": "127.0.0.1" }));
    for names in services.chunks(64) {
        let set = |name: &String| {
            json!({ "Service": { "Verb": "set", "Node": "w", "Service": { "Service": name,
                "ID": name, "Address": backend.address.ip(), "Port": backend.address.port(),
                "Tags": ["rest"] } } })
        };
        let transaction: Vec<Value> = names.iter().map(set).collect();
        site.consul.put("/v1/txn", &Value::Array(transaction));
    }
    let began = Instant::now();
    let edge = site.launch(&[]);
    eventually(Duration::from_secs(60), "it is ready", || {
        match edge.ready()? {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let ready = began.elapsed();
    eventually(Duration::from_secs(30), "the last one answers", || {
        let answer = site.get("/svc-0999/x")?;
        ensure(answer == (200, "b /x".to_owned()), || format!("{answer:?}"))
    });
    assert_eq!(edge.metric("backends"), SERVICES as u64);
    let step = |name: &str| {
        let sum = edge.float(&format!("step_seconds_sum{{step=\"{name}\"}}"));
        let count = edge.metric(&format!("step_seconds_count{{step=\"{name}\"}}"));
        Duration::from_secs_f64(sum / count.max(1) as f64)
    };
    let (render, check) = (step("render"), step("check"));

    let (before, changed) = (edge.reloads(), Instant::now());
    site.set_key("maxconn", "321");
    eventually(Duration::from_secs(30), "it is loaded", || {
        ensure(edge.info("Maxconn")? == "321", || "not yet".to_owned())
    });
    let applied = changed.elapsed();
    edge.reloaded(before + 1);
    eprintln!(
        "{SERVICES} services: ready after {ready:.2?}, rendered in {render:.2?}, checked in \
         {check:.2?}, a change applied after {applied:.2?}, reloaded in {:.2?}",
        step("reload")
    );
    let answer = http::get(site.http, "/svc-0500/y").expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(edge.reloads(), before + 1);
}
