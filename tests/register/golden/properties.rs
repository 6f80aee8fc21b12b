//! What holds for every container, however odd.

use crate::{base, container, patch};
use portolan::{
    docker::{Container, Reach, Settings, desired},
    register::body,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn settings(reach: Reach) -> Settings {
    Settings {
        reach,
        explicit: false,
        ip: None,
        host: [192, 0, 2, 10].into(),
        tags: Vec::new(),
        host_name: "host1".to_owned(),
    }
}

/// Keys that mean something, with any value, and keys that mean nothing.
fn pair() -> impl Strategy<Value = (String, String)> {
    let known = prop::sample::select(vec![
        "NAME",
        "ID",
        "TAGS",
        "IGNORE",
        "IP",
        "NETWORK",
        "INTERNAL",
        "PORT",
        "WEIGHTS_PASSING",
        "CHECK_HTTP",
        "CHECK_SCRIPT",
        "CHECK_TTL",
        "CHECK_INTERVAL",
        "CHECK_TIMEOUT",
        "CHECK_DEREGISTER_AFTER",
        "CHECK_INITIAL_STATUS",
        "80_NAME",
        "80_TCP_ID",
        "META_X",
        "a.b",
    ]);
    let key = prop_oneof![
        known.prop_map(str::to_owned),
        "[A-Za-z0-9_.-]{0,20}",
        any::<String>()
    ];
    let value = prop_oneof![
        any::<String>(),
        "[0-9.]{0,25}(ns|us|ms|s|m|h|d|)",
        "[a-z,\\\\ ]{0,20}",
    ];
    (key, value).prop_map(|(key, value)| (format!("SERVICE_{key}"), value))
}

fn odd_container(name: &str, pairs: &[(String, String)], as_labels: bool) -> Arc<Container> {
    let mut changes = json!({ "Name": format!("/{name}"), "Id": name.repeat(8) });
    if as_labels {
        let labels: serde_json::Map<String, Value> = pairs
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        changes["Config"]["Labels"] = labels.into();
    } else {
        let env = pairs.iter().map(|(key, value)| format!("{key}={value}"));
        changes["Config"]["Env"] = env.collect::<Vec<_>>().into();
    }
    container(&changes)
}

proptest! {
    /// Whatever one container says, the others are registered as if it were not there, and what is
    /// sent keeps Consul's limits.
    #[test]
    fn no_container_hurts_another(
        pairs in prop::collection::vec(pair(), 0..12),
        as_labels in any::<bool>(),
        reach in prop::sample::select(vec![Reach::Published, Reach::Internal, Reach::Either]),
    ) {
        let good = container(&json!({ "Name": "/good", "Config": { "Labels": { "SERVICE_REGION": "eu" } } }));
        let odd = odd_container("odd", &pairs, as_labels);
        let alone = desired(&[Arc::clone(&good)], &settings(reach));
        let together = desired(&[odd, good], &settings(reach));
        let others: Vec<_> = together
            .registrations
            .iter()
            .filter(|registration| registration.container_name == "good")
            .collect();
        prop_assert_eq!(others, alone.registrations.iter().collect::<Vec<_>>());
        for registration in &together.registrations {
            prop_assert!(!registration.name.is_empty() && !registration.id.is_empty());
            prop_assert!(registration.meta.len() <= 64);
            for (key, value) in &registration.meta {
                let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                prop_assert!((1..=128).contains(&key.len()) && key.bytes().all(good), "{}", key);
                prop_assert!(value.len() <= 512);
            }
            // It can be written as JSON.
            prop_assert!(body(registration, "90s").is_object());
        }
    }

    /// One label that Consul would refuse removes neither the others nor the service.
    #[test]
    fn a_bad_label_costs_itself_alone(bad in "[a-z]{0,5}[.:/ ä][a-z]{0,5}", value in any::<String>()) {
        let labels = |with_bad: bool| {
            let mut labels = json!({ "SERVICE_REGION": "eu", "SERVICE_TAGS": "a,b", "SERVICE_NAME": "shop" });
            if with_bad {
                labels[format!("SERVICE_{bad}")] = json!(value);
            }
            let changes = json!({ "Config": { "Labels": labels } });
            desired(&[container(&changes)], &settings(Reach::Published)).registrations
        };
        prop_assert_eq!(labels(true), labels(false));
    }

    /// No value of a variable reaches Consul unless its key is one of ours.
    #[test]
    fn no_secret_leaves_the_host(key in "[A-Z]{1,8}(_[A-Z]{1,8}){0,2}") {
        let known = [
            "NAME", "ID", "TAGS", "IGNORE", "IP", "NETWORK", "INTERNAL", "PORT", "ENABLE_TAG_OVERRIDE",
        ];
        prop_assume!(!known.contains(&key.as_str()));
        prop_assume!(!["CHECK_", "META_", "WEIGHTS_"].iter().any(|prefix| key.starts_with(prefix)));
        let odd = odd_container("odd", &[(format!("SERVICE_{key}"), "hunter2".to_owned())], false);
        let found = desired(&[odd], &settings(Reach::Published));
        let bodies: Vec<Value> = found.registrations.iter().map(|one| body(one, "90s")).collect();
        prop_assert_eq!(bodies.len(), 1);
        let all = format!("{bodies:?} {:?}", found.problems);
        prop_assert!(!all.contains("hunter2"), "{}", all);
    }

    /// No inspection makes it panic: any part of one may be missing, null or of another type.
    #[test]
    fn no_inspection_is_too_odd(
        part in prop::sample::select(vec![
            "/Id", "/Name", "/State", "/State/Status", "/State/Health", "/Config", "/Config/Env",
            "/Config/Labels", "/Config/ExposedPorts", "/Config/Image", "/HostConfig",
            "/HostConfig/NetworkMode", "/NetworkSettings", "/NetworkSettings/Ports",
            "/NetworkSettings/Ports/80~1tcp", "/NetworkSettings/Networks",
            "/NetworkSettings/Networks/bridge",
        ]),
        value in prop::sample::select(vec![
            json!(null), json!(""), json!("x"), json!(7), json!([]), json!(["x"]), json!({}),
            json!({ "x": null }), json!([null]), json!(true),
        ]),
    ) {
        let mut inspected = base();
        patch(&mut inspected, &json!({ "State": { "Health": { "Status": "healthy" } } }));
        if let Some(place) = inspected.pointer_mut(part) {
            *place = value;
        }
        let bytes = serde_json::to_vec(&inspected).expect("JSON");
        if let Ok(container) = Container::from_inspect(&bytes) {
            for reach in [Reach::Published, Reach::Internal, Reach::Either] {
                desired(&[Arc::new(container.clone())], &settings(reach));
            }
        }
    }
}
