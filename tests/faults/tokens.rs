//! A Consul with ACLs: a token that is wrong, is replaced, is taken away, or may not read any more.

use crate::{
    alone,
    asking::{Question, all_right},
    figure,
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
        write_file,
    },
    world::{Services, entry, json_of},
};
use serde_json::{Value, json};
use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

/// The token that may do everything, and one that Consul has never heard of.
const MANAGEMENT: &str = "5a17e0de-1111-4222-8333-444455556666";
const WRONG: &str = "badbad00-1111-4222-8333-444455556666";

const READER: &str = r#"node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }"#;

/// How soon a token in a file is used once it is there.
const SOON: Duration = Duration::from_secs(5);

struct Scene {
    consul: Consul,
    questions: Vec<Question>,
}

impl Scene {
    fn start() -> Self {
        // What comes without a token is the tests' own, and may do everything.
        let tokens = json!({ "master": MANAGEMENT, "agent": MANAGEMENT, "default": MANAGEMENT });
        let consul = Consul::launch(Options {
            extra: json!({ "acl": { "enabled": true, "default_policy": "deny", "tokens": tokens,
                "token_ttl": "0s", "policy_ttl": "0s" } }),
            ..Options::default()
        });
        eventually(Duration::from_secs(30), "Consul has its ACLs", || {
            let answer = http::get(consul.http(), "/v1/acl/tokens")?;
            ensure(answer.status == 200, || {
                format!("{}: {}", answer.status, answer.body)
            })
        });
        consul.wait_until_ready();
        let services = Services::new("s", 20, 20);
        services.register(&consul);
        Self {
            consul,
            questions: services.questions(),
        }
    }

    /// Makes a policy of this name and a token that has it; gives the accessor and the secret.
    fn token(&self, name: &str) -> (String, String) {
        put(
            &self.consul,
            "acl/policy",
            &json!({ "Name": name, "Rules": READER }),
        );
        let token = put(
            &self.consul,
            "acl/token",
            &json!({ "Policies": [{ "Name": name }] }),
        );
        let text = |key: &str| token[key].as_str().expect("a token has it").to_owned();
        (text("AccessorID"), text("SecretID"))
    }

    /// The service `fresh` moves; waits until Portolan shows that.
    fn moves(&self, portolan: &Portolan, number: u8) -> Duration {
        let address = Ipv4Addr::new(10, 8, 8, number);
        self.consul
            .register(&entry(&json_of("fresh", 0, address, 80)));
        let fresh = [fresh(address)];
        all_right(portolan.dns(), &fresh, Duration::from_secs(20))
    }
}

fn fresh(address: Ipv4Addr) -> Question {
    Question {
        name: "fresh.service.consul".to_owned(),
        rtype: A,
        answer: vec![address.to_string()],
    }
}

fn put(consul: &Consul, path: &str, body: &Value) -> Value {
    let answer = http::put(consul.http(), &format!("/v1/{path}"), &body.to_string());
    let answer = answer.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answer.status, 200, "PUT {path}: {}", answer.body);
    answer.json()
}

/// Waits for a warning or an error in the log that speaks of the token or of what Consul said.
fn wait_until_alarmed(portolan: &Portolan) {
    eventually(
        Duration::from_secs(10),
        "the log says what is wrong",
        || {
            let events = portolan.events();
            let alarm = events.iter().find(|event| {
                let text = event["fields"].to_string();
                let loud = event["level"] == "WARN" || event["level"] == "ERROR";
                loud && ["403", "ACL", "token"]
                    .iter()
                    .any(|word| text.contains(word))
            });
            ensure(alarm.is_some(), || format!("{} other lines", events.len()))
        },
    );
}

/// None of these stands anywhere that Portolan shows anything.
fn assert_hidden(portolan: &Portolan, tokens: &[&str]) {
    let page = |path: &str| {
        portolan
            .get(path)
            .map_or_else(|error| error, |page| page.body)
    };
    let shown = [
        ("log", portolan.log()),
        ("/metrics", page("/metrics")),
        ("/ready", page("/ready")),
    ];
    for (place, text) in shown {
        let told = tokens.iter().any(|token| text.contains(token));
        assert!(!told, "a token is in {place}");
    }
}

fn with_file(consul: &Consul, file: &Path) -> Launch {
    Launch::new("serve")
        .args(["--consul", &consul.url(), "--upstream", "none"])
        .env("RUST_LOG", "debug,hyper=trace,reqwest=trace")
        .args(["--token-file".as_ref(), file.as_os_str()])
}

#[test]
fn a_wrong_token_is_put_right_without_a_restart() {
    let _alone = alone();
    let scene = Scene::start();
    let (accessor, good) = scene.token("reader");
    let directory = directory();
    let file = write_file(directory.path(), "token", WRONG);
    let portolan = with_file(&scene.consul, &file).not_ready().start();
    wait_until_alarmed(&portolan);
    let reply = Query::new(&scene.questions[0].name, A).ask(portolan.dns());
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
    assert_ne!(portolan.get("/ready").expect("/ready answers").status, 200);

    // The right one, as a configuration management puts it there.
    write_file(directory.path(), "token", &good);
    let righted = all_right(portolan.dns(), &scene.questions, Duration::from_secs(20));
    scene.moves(&portolan, 1);

    // It is taken away: what is known stays, with an alarm, and nothing new comes.
    let forbidden = "portolan_sources_consul_requests_total{outcome=\"forbidden\"}";
    let before = portolan.metric(forbidden);
    let path = format!("/v1/acl/token/{accessor}");
    let deleted = http::request(scene.consul.http(), "DELETE", &path, "");
    assert_eq!(deleted.expect("Consul answers").status, 200);
    scene
        .consul
        .register(&entry(&json_of("fresh", 0, Ipv4Addr::new(10, 8, 8, 2), 80)));
    eventually(Duration::from_secs(10), "Consul refuses", || {
        let now = portolan.metric(forbidden);
        ensure(now > before, || format!("{now} times"))
    });
    all_right(portolan.dns(), &scene.questions, Duration::from_secs(1));
    let held = fresh(Ipv4Addr::new(10, 8, 8, 1)).ask(portolan.dns());
    assert_eq!(held, Ok(()), "what was known of a service that changed");

    // Another, written over the old one in place.
    let (_, next) = scene.token("reader-too");
    fs::write(&file, format!("{next}\n")).expect("writing the token file");
    let current = [fresh(Ipv4Addr::new(10, 8, 8, 2))];
    let renewed = all_right(portolan.dns(), &current, Duration::from_secs(20));
    let late = scene.moves(&portolan, 3);
    figure(&format!(
        "a token file was in use {righted:?} after a wrong token, {renewed:?} after a deleted one; \
         then new data {late:?} (at most {SOON:?}, {:?})",
        crate::world::NEW_DATA
    ));
    assert_hidden(&portolan, &[WRONG, &good, &next]);
    assert!(
        righted <= SOON && renewed <= SOON,
        "{righted:?} and {renewed:?}"
    );
    assert!(
        late <= crate::world::NEW_DATA,
        "new data was seen after {late:?}"
    );
}

#[test]
fn a_bad_token_file_leaves_the_good_token() {
    let _alone = alone();
    let scene = Scene::start();
    let (_, good) = scene.token("reader");
    let directory = directory();
    let file = write_file(directory.path(), "token", &good);
    let portolan = with_file(&scene.consul, &file).start();
    all_right(portolan.dns(), &scene.questions, Duration::from_secs(10));
    // Emptied, as by an editor in the middle of its work, gone, and something that no header carries.
    let damages: [&dyn Fn(); 3] = [
        &|| fs::write(&file, "").expect("emptying the token file"),
        &|| fs::remove_file(&file).expect("removing the token file"),
        &|| drop(write_file(directory.path(), "token", "two words\u{7f}")),
    ];
    for (number, damage) in (1..).zip(damages) {
        let warned = || {
            portolan
                .log()
                .lines()
                .filter(|l| l.contains("token"))
                .count()
        };
        let before = warned();
        damage();
        eventually(SOON, "Portolan complains of the token file", || {
            ensure(warned() > before, || {
                format!("damage {number}, no line about it")
            })
        });
        let late = scene.moves(&portolan, number);
        assert!(
            late <= crate::world::NEW_DATA,
            "damage {number}: new data after {late:?}"
        );
    }
    assert_hidden(&portolan, &[&good, "two words"]);
}

/// Consul of that age filters what a token may not read without a word: all lists are empty, and the
/// leader agrees. Not even Consul itself is in them, which cannot be.
#[test]
fn a_token_that_may_not_read_any_more_empties_nothing() {
    let _alone = alone();
    let scene = Scene::start();
    let (_, token) = scene.token("reader");
    let portolan = Launch::new("serve")
        .args(["--consul", &scene.consul.url(), "--upstream", "none"])
        .env("CONSUL_HTTP_TOKEN", &token)
        .start();
    all_right(portolan.dns(), &scene.questions, Duration::from_secs(10));
    let policies = scene.consul.get("/v1/acl/policies");
    let policies = policies.as_array().expect("a list of policies");
    let policy = policies
        .iter()
        .find(|policy| policy["Name"] == "reader")
        .expect("the policy");
    let id = policy["ID"].as_str().expect("its ID");
    let nothing = json!({ "ID": id, "Name": "reader", "Rules": "" });
    put(&scene.consul, &format!("acl/policy/{id}"), &nothing);
    // Changes wake the watches, which then hear nothing at all.
    scene
        .consul
        .register(&entry(&json_of("other", 0, Ipv4Addr::new(10, 8, 9, 1), 80)));
    scene
        .consul
        .register(&entry(&json_of("s1", 9, Ipv4Addr::new(10, 8, 9, 2), 80)));
    let unchanged: Vec<Question> = scene
        .questions
        .iter()
        .filter(|q| !q.name.starts_with("s1."))
        .cloned()
        .collect();
    throughout(
        SOON,
        Duration::from_millis(50),
        "keeping what is known",
        || {
            unchanged
                .iter()
                .try_for_each(|question| question.ask(portolan.dns()))
        },
    );
    wait_until_alarmed(&portolan);
    // It may read again.
    put(
        &scene.consul,
        &format!("acl/policy/{id}"),
        &json!({ "ID": id, "Name": "reader",
        "Rules": READER }),
    );
    let late = scene.moves(&portolan, 1);
    figure(&format!(
        "new data was seen {late:?} after a token might read again"
    ));
    assert_hidden(&portolan, &[&token]);
}

/// Who is asked has the token; who is named in an answer does not get it.
#[test]
fn a_redirect_gets_no_token() {
    let _alone = alone();
    let (consul, other) = (FakeConsul::start(), FakeConsul::start());
    consul.set("web", &["10.6.0.1"]);
    other.set("web", &["10.6.0.66"]);
    let portolan = Launch::new("serve")
        .args(["--consul", &consul.url(), "--upstream", "none"])
        .env("CONSUL_HTTP_TOKEN", MANAGEMENT)
        .start();
    let to = format!("{}/v1/health/service/web", other.url());
    let redirect = Lie::status(307, "").header("Location", &to);
    consul.tell("/v1/health/service/web", usize::MAX, redirect);
    let query = Query::new("web.service.consul", A).patience(Duration::from_secs(4));
    let reply = query.ask(portolan.dns());
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
    assert_eq!(other.seen().len(), 0, "somebody else was asked");
    // The log says what to do.
    eventually(Duration::from_secs(5), "the redirect is told of", || {
        let log = portolan.log();
        ensure(
            log.contains(&to) && log.contains("name that address"),
            || log,
        )
    });
}
