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
    let services: Vec<Value> = (0..SERVICES)
        .map(|number| {
            let name = format!("svc-{number:04}");
            json!({ "Service": name, "ID": name, "Address": backend.address.ip(),
                "Port": backend.address.port(), "Tags": ["rest"] })
        })
        .collect();
    site.register_all(&services);
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
