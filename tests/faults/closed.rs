//! A Consul that is there and tells us nothing: a load balancer without agents, a token that is refused,
//! and none where there has to be one. What was known grows old, which is said, and with its reason.

use crate::{
    alone,
    asking::all_right,
    figure,
    lying::{Scene, question},
    support::{
        consul::{Consul, Options},
        directory,
        dns::Query,
        ensure, eventually,
        fake_consul::{FakeConsul, Lie},
        http,
        portolan::{Launch, Portolan},
        throughout,
        wire::{rcode, rtype::A},
    },
    world::{NEW_DATA, stale_seconds},
};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Whatever has to happen has happened by then, on the slowest machine.
const SOON: Duration = Duration::from_secs(20);

/// What is answered to everything, and what is said of it in the log and by `/ready`.
fn answers() -> Vec<(Lie, &'static str, &'static str)> {
    let away = "Consul is away; ";
    let closed = "Consul is closed to us; ";
    let refused = "the ACL token is refused (403)";
    let no_agent = "no server is available to handle this request";
    vec![
        (
            Lie::status(503, no_agent),
            away,
            "Consul's load balancer answers 503",
        ),
        (
            Lie::status(503, no_agent).header("Retry-After", "1"),
            away,
            "Consul's load balancer answers 503",
        ),
        (
            Lie::status(502, "<html>Bad Gateway</html>"),
            away,
            "Consul's load balancer answers 502",
        ),
        (
            Lie::status(504, ""),
            away,
            "Consul's load balancer answers 504",
        ),
        (Lie::status(403, "ACL not found"), closed, refused),
        (Lie::status(403, "<html>Forbidden</html>"), closed, refused),
    ]
}

/// The warnings that begin so, from a line of the log on.
fn warnings(portolan: &Portolan, from: usize, begins: &str) -> Vec<Value> {
    let mut events = portolan.events().split_off(from);
    events.retain(|event| {
        let message = event["fields"]["message"].as_str().unwrap_or_default();
        event["level"] == "WARN" && message.starts_with(begins)
    });
    events.into_iter().map(|mut e| e["fields"].take()).collect()
}

#[test]
fn who_answers_is_not_for_that_reason_well() {
    let _alone = alone();
    let scene = Scene::of(5);
    let portolan = &scene.portolan;
    let asking = scene.ask("closed");
    for (number, (lie, begins, why)) in (1..).zip(answers()) {
        let (from, start) = (portolan.events().len(), Instant::now());
        scene.fake.tell("/v1/*", usize::MAX, lie.clone());
        let told = eventually(SOON, "the log says why", || {
            let mut told = warnings(portolan, from, begins);
            told.pop()
                .ok_or_else(|| format!("{lie:?}: {begins:?} is not there"))
        });
        let trouble = told["trouble"].as_str().unwrap_or_default();
        assert!(trouble.starts_with(why), "{told}");
        let noticed = start.elapsed();
        let before = stale_seconds(portolan);
        assert!(before > 0.0, "{lie:?}: it is stale from then on");
        let ready = portolan.get("/ready").expect("/ready answers");
        assert_eq!(
            ready.status, 200,
            "the last known good is served: {ready:?}"
        );
        assert!(ready.body.contains(why), "{ready:?}");
        eventually(SOON, "the age grows", || {
            let now = stale_seconds(portolan);
            ensure(now >= before + 1.0, || format!("{now} after {before}"))
        });
        asking.rounds(2);
        let all = warnings(portolan, from, "");
        assert_eq!(all.len(), 1, "{lie:?} is told once: {all:#?}");
        scene.fake.repent();
        eventually(SOON, "Consul is well again", || {
            let (age, ready) = (stale_seconds(portolan), portolan.get("/ready")?);
            ensure(age == 0.0 && !ready.body.contains(why), || {
                format!("{age} s, {ready:?}")
            })
        });
        let late = scene.new_data(number);
        figure(&format!(
            "{why} was said after {noticed:?}; then new data within {late:?}"
        ));
        assert!(late <= NEW_DATA, "new data was seen after {late:?}");
    }
    asking.flawless("5 names and a node while Consul is closed");
}

#[test]
fn who_never_heard_anything_says_why() {
    let _alone = alone();
    for (lie, begins, why) in answers() {
        let fake = FakeConsul::start();
        fake.set("web", &["10.6.0.1"]);
        fake.tell("/v1/*", usize::MAX, lie.clone());
        let portolan = Launch::new("serve")
            .args(["--consul", &fake.url(), "--upstream", "none"])
            .not_ready()
            .start();
        eventually(SOON, "/ready says why", || {
            let ready = portolan.get("/ready")?;
            assert_eq!(ready.status, 503, "{lie:?}: {ready:?}");
            ensure(ready.body.contains(why), || format!("{ready:?}"))
        });
        let told = warnings(&portolan, 0, begins);
        assert_eq!(told.len(), 1, "{lie:?}: {}", portolan.log());
        let reply = Query::new("web.service.consul", A).ask(portolan.dns());
        assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
        fake.repent();
        let web = [question("web.service.consul", &["10.6.0.1"])];
        all_right(portolan.dns(), &web, SOON);
    }
}

/// There is another address, which is well: nobody notices anything.
#[test]
fn the_next_address_is_asked() {
    let _alone = alone();
    let long = |status| Lie::status(status, "no agent").header("Retry-After", "60");
    let lies = [
        Lie::status(503, "no agent"),
        long(503),
        Lie::status(502, "no agent"),
        Lie::status(504, "no agent"),
        Lie::status(403, "ACL not found"),
        Lie::status(403, "Permission denied"),
    ];
    let web = |address| [question("web.service.consul", &[address])];
    for lie in lies {
        let (first, second) = (FakeConsul::start(), FakeConsul::start());
        for fake in [&first, &second] {
            fake.set("web", &["10.6.0.1"]);
        }
        let fallback = format!("[consul]\nfallback_addresses = [\"{}\"]\n", second.url());
        let portolan = Launch::new("serve")
            .args(["--consul", &first.url(), "--upstream", "none"])
            .config(&fallback)
            .start();
        all_right(portolan.dns(), &web("10.6.0.1"), SOON);
        // Both speak of one cluster, whose index goes on.
        for _ in 0..100 {
            second.set("other", &["10.6.0.9"]);
        }
        first.tell("/v1/*", usize::MAX, lie.clone());
        second.set("web", &["10.6.0.2"]);
        let late = all_right(portolan.dns(), &web("10.6.0.2"), SOON);
        figure(&format!(
            "{lie:?}: the next address was in use after {late:?}"
        ));
        assert!(late <= NEW_DATA, "{lie:?}: {late:?}");
        throughout(
            Duration::from_secs(3),
            Duration::from_millis(100),
            "the other address will do",
            || {
                let age = stale_seconds(&portolan);
                ensure(age == 0.0, || format!("{lie:?}: stale for {age} s"))
            },
        );

        // The same from the start.
        let portolan = Launch::new("serve")
            .args(["--consul", &first.url(), "--upstream", "none"])
            .config(&fallback)
            .start();
        all_right(portolan.dns(), &web("10.6.0.2"), SOON);
    }
}

/// What a good token may have no right to is refused by every agent, and makes none of them ill.
#[test]
fn a_right_that_is_missing_moves_nobody() {
    let _alone = alone();
    let (first, second) = (FakeConsul::start(), FakeConsul::start());
    first.set("web", &["10.6.0.1"]);
    for path in ["/v1/agent/self", "/v1/peerings"] {
        first.tell(path, usize::MAX, Lie::status(403, "Permission denied"));
    }
    let portolan = Launch::new("serve")
        .args(["--consul", &first.url(), "--upstream", "none"])
        .config(&format!(
            "[consul]\nfallback_addresses = [\"{}\"]\n",
            second.url()
        ))
        .start();
    let web = [question("web.service.consul", &["10.6.0.1"])];
    all_right(portolan.dns(), &web, SOON);
    eventually(SOON, "both were asked for", || {
        let told = first.told();
        ensure(told >= 2, || format!("{told} refusals"))
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(second.seen().len(), 0, "the first address is well");
}

const MANAGEMENT: &str = "5a17e0de-1111-4222-8333-444455556666";

/// A Consul that shows nothing to those without a token, with a service `web`; and a token that may read.
fn with_acls() -> (Consul, String) {
    let consul = Consul::launch(Options {
        extra: json!({ "acl": { "enabled": true, "default_policy": "deny", "token_ttl": "0s",
            "policy_ttl": "0s", "tokens": { "master": MANAGEMENT, "agent": MANAGEMENT } } }),
        ..Options::default()
    });
    let put = |path: &str, body: &Value| {
        let path = format!("/v1/{path}?token={MANAGEMENT}");
        eventually(Duration::from_secs(30), "Consul takes it", || {
            let answer = http::put(consul.http(), &path, &body.to_string())?;
            ensure(answer.status == 200, || format!("{answer:?}"))?;
            Ok(answer.json())
        })
    };
    let rules = r#"node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }"#;
    put("acl/policy", &json!({ "Name": "reader", "Rules": rules }));
    let token = put("acl/token", &json!({ "Policies": [{ "Name": "reader" }] }));
    let service = json!({ "Service": "web", "Address": "10.1.0.1", "Port": 80 });
    put(
        "catalog/register",
        &json!({ "Node": "n1", "Address": "10.0.0.1", "Service": service }),
    );
    let secret = token["SecretID"].as_str().expect("a token has it");
    (consul, secret.to_owned())
}

/// The token was forgotten: nothing is known then, and nothing is what nobody may be told. Put right, names
/// go from no answer to the right one, and never by way of NXDOMAIN.
#[test]
fn a_forgotten_token_is_no_empty_catalog() {
    let _alone = alone();
    let (consul, token) = with_acls();
    let why = "not even a node is visible";
    for has_token in [false, true] {
        let place = directory();
        let file = place.path().join("token");
        let mut launch = Launch::new("serve")
            .args(["--consul", &consul.url(), "--upstream", "none"])
            .not_ready();
        if has_token {
            let body = json!({ "Description": "nothing" }).to_string();
            let path = format!("/v1/acl/token?token={MANAGEMENT}");
            let made = http::put(consul.http(), &path, &body).expect("Consul answers");
            let made = made.json();
            let nothing = made["SecretID"].as_str().expect("a token has it");
            fs::write(&file, nothing).expect("a token file");
            launch = launch.args(["--token-file".as_ref(), file.as_os_str()]);
        }
        let portolan = launch.start();
        let query = Query::new("web.service.consul", A);
        eventually(SOON, "/ready says why", || {
            let ready = portolan.get("/ready")?;
            assert_eq!(ready.status, 503, "a token: {has_token}, {ready:?}");
            let reply = query.try_ask(portolan.dns())?;
            assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
            ensure(ready.body.contains(why), || format!("{ready:?}"))
        });
        std::thread::sleep(Duration::from_secs(3));
        let told = warnings(&portolan, 0, "");
        assert_eq!(told.len(), 1, "told once: {told:#?}");
        let begins = told[0]["message"].as_str().unwrap_or_default();
        assert!(begins.starts_with("Consul is closed to us; "), "{told:#?}");
        if !has_token {
            continue;
        }
        fs::write(&file, &token).expect("the right token");
        let start = Instant::now();
        eventually(SOON, "it is read", || {
            let reply = query.try_ask(portolan.dns())?;
            assert_ne!(reply.rcode(), rcode::NXDOMAIN, "{}", reply.summary());
            ensure(reply.data() == ["10.1.0.1"], || reply.summary())
        });
        figure(&format!(
            "a token that was put right was in use after {:?}",
            start.elapsed()
        ));
        eventually(SOON, "/ready is well", || {
            let ready = portolan.get("/ready")?;
            let well = ready.status == 200 && !ready.body.contains("stale");
            ensure(well, || format!("{ready:?}"))
        });
    }
}
