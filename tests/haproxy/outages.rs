//! Consul goes and comes back, with all or with nothing.

use crate::{
    edge::{Edge, SOON, Site},
    load::Load,
    support::{
        consul::{Consul, Options},
        ensure, eventually, http,
        portolan::command,
        soak, throughout,
    },
};
use serde_json::{Value, json};
use std::{thread, time::Duration};

/// Nothing changes for this long, and whoever asks is answered.
fn all_stays(site: &Site, edge: &Edge, during: Duration, reloads: u64, config: &str) {
    throughout(during, Duration::from_millis(200), "what runs", || {
        ensure(site.config() == config, || site.config())?;
        ensure(edge.reloads() == reloads, || "a reload".to_owned())?;
        let (status, body) = edge.ready()?;
        ensure(status == 200, || body)
    });
}

#[test]
fn consul_is_away_and_comes_back_with_the_same() {
    let mut site = Site::new();
    site.set_key("maxconn", "500");
    let _hello1 = site.service("hello1");
    let _hello2 = site.service("hello2");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    site.answers("/hello2/x", "hello2 /x");
    let (config, load) = (site.config(), Load::start(site.http, "/hello1/x"));

    site.consul.kill();
    let away = soak(Duration::from_secs(10), Duration::from_secs(60));
    all_stays(&site, &edge, away, 0, &config);
    site.consul.restart();
    site.consul.wait_until_ready();
    all_stays(&site, &edge, Duration::from_secs(3), 0, &config);
    load.stop_without_failure(0);

    site.set_key("maxconn", "501");
    edge.reloaded(1);
}

#[test]
fn consul_comes_back_with_nothing_for_three_seconds() {
    let mut site = Site::new();
    site.set_key("maxconn", "500");
    let hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let (config, load) = (site.config(), Load::start(site.http, "/hello1/x"));

    site.consul.restart_empty();
    site.consul.wait_until_ready();
    all_stays(&site, &edge, Duration::from_secs(3), 0, &config);
    site.register("hello1", "rest", &hello1);
    site.set_key("maxconn", "500");
    // Beyond the time for which an index that went back is doubted.
    all_stays(&site, &edge, Duration::from_secs(9), 0, &config);
    load.stop_without_failure(0);
}

/// As when every agent of a site is started anew: the leader itself says that nothing is there.
#[test]
fn everything_is_deregistered_for_three_seconds() {
    let site = Site::new();
    site.set_key("maxconn", "500");
    let backends = ["hello1", "hello2", "hello3"].map(|name| site.service(name));
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let (config, load) = (site.config(), Load::start(site.http, "/hello1/x"));
    site.consul.deregister_node("w");
    site.consul.delete_key("service/haproxy/maxconn");
    all_stays(&site, &edge, Duration::from_secs(3), 0, &config);
    assert!(edge.metric("held_removals_total") >= 2, "services and keys");
    for backend in &backends {
        site.register(&backend.name, "rest", backend);
    }
    site.set_key("maxconn", "500");
    all_stays(&site, &edge, Duration::from_secs(2), 0, &config);
    load.stop_without_failure(0);
}

/// A Consul that came up empty says so at once: the file of before stays, and HAProxy runs on it.
#[test]
fn consul_has_nothing_at_the_start() {
    let mut site = Site::new();
    let hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let config = site.config();
    drop(edge);

    site.consul.restart_empty();
    site.consul.wait_until_ready();
    let edge = site.start();
    all_stays(&site, &edge, Duration::from_secs(4), 0, &config);
    assert_eq!(edge.metric("held_removals_total"), 1);
    site.register("hello1", "rest", &hello1);
    edge.says("haproxy: 1 backends");
    site.answers("/hello1/x", "hello1 /x");
    assert_eq!(site.config(), config);
}

/// Without Consul from the start, HAProxy runs on the file of before; without that, it waits.
#[test]
fn consul_is_away_at_the_start() {
    let mut site = Site::new();
    let _hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let config = site.config();
    drop(edge);

    site.consul.kill();
    let edge = site.launch(&[]);
    site.answers("/hello1/x", "hello1 /x");
    edge.says("the last good configuration of before");
    assert_eq!(site.config(), config);
    site.consul.restart();
    site.consul.wait_until_ready();
    eventually(SOON, "it is current again", || {
        let (status, body) = edge.ready()?;
        ensure(
            status == 200 && body.contains("haproxy: 1 backends"),
            || body,
        )
    });
    assert_eq!(edge.reloads(), 0, "the file says the same");
    drop(edge);

    site.consul.kill();
    std::fs::remove_file(site.file()).expect("there is a file");
    let edge = site.launch_command(command(&site.arguments(&[]), &[]));
    thread::sleep(Duration::from_secs(3));
    let (status, body) = edge.ready().expect("an answer");
    assert_eq!(status, 503, "{body}");
    assert_eq!(site.config(), "", "nothing was written");
    site.consul.restart();
    site.answers("/hello1/x", "hello1 /x");
}

/// Consul is well, and does not let us read any more: some of it, or with a token that is gone. What is known goes on,
/// and its age is told.
#[test]
fn what_may_not_be_read_any_more_is_told_with_its_age() {
    const ROOT: &str = "00000000-1111-2222-3333-444444444444";
    let acl = json!({ "acl": { "enabled": true, "default_policy": "allow", "enable_key_list_policy": true,
        "tokens": { "master": ROOT, "agent": ROOT } } });
    let site = Site::with(Consul::start_with(Options {
        extra: acl,
        ..Options::default()
    }));
    let address = site.consul.http();
    let ask = |method: &str, path: &str, body: Value| {
        let path = format!("{path}?token={ROOT}");
        let response = http::request(address, method, &path, &body.to_string())?;
        ensure(response.status == 200, || format!("{response:?}"))?;
        Ok::<_, String>(response)
    };
    let policy = |rules: &str| json!({ "Name": "edge", "Rules": rules });
    let all = "key_prefix \"\" { policy = \"list\" }";
    let made = eventually(SOON, "there is a policy", || {
        Ok(ask("PUT", "/v1/acl/policy", policy(all))?.json())
    });
    let text = |value: &Value, key: &str| value[key].as_str().expect("a text").to_owned();
    let id = text(&made, "ID");
    let token = json!({ "Policies": [{ "Name": "edge" }] });
    let token = ask("PUT", "/v1/acl/token", token).expect("a token").json();
    let _web = site.service("web");
    let environment = [("CONSUL_HTTP_TOKEN".to_owned(), text(&token, "SecretID"))];
    let edge = site.launch_command(command(&site.arguments(&[]), &environment));
    edge.wait_until_ready();
    site.answers("/web/x", "web /x");
    let stale = || edge.any("portolan_sources_consul_stale_seconds{datacenter=\"dc1\"}");
    assert_eq!(stale(), 0.0);
    let is_told = |words: &str| {
        // What waits for news is refused only when there are some.
        site.set_key("timeouts/server", "20s");
        let (status, body) = edge.says(words);
        assert!(status == 200 && body.contains("403"), "{status} {body}");
        eventually(SOON, "its age grows", || {
            let age = stale();
            ensure(age > 6.0, || format!("{age}"))
        });
        site.answers("/web/x", "web /x");
    };

    let none = "key_prefix \"\" { policy = \"deny\" }";
    ask("PUT", &format!("/v1/acl/policy/{id}"), policy(none)).expect("another policy");
    is_told("the keys last read ");
    ask("PUT", &format!("/v1/acl/policy/{id}"), policy(all)).expect("another policy");
    eventually(Duration::from_secs(60), "all is well", || {
        let (age, (_, body)) = (stale(), edge.ready()?);
        ensure(age == 0.0 && !body.contains("last read"), || {
            format!("{age}, {body}")
        })
    });
    edge.reloaded(1);

    let accessor = text(&token, "AccessorID");
    ask("DELETE", &format!("/v1/acl/token/{accessor}"), Value::Null).expect("it is gone");
    is_told("last current ");
    assert_eq!(edge.reloads(), 1);
}
