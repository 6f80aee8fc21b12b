//! Why a container is registered, or not: `--explain`, and the admin server's page.

use crate::{
    support::{
        docker::Container,
        ensure, eventually,
        portolan::{Outcome, run_to_end},
    },
    world::{Host, SOON},
};
use serde_json::{Value, json};

/// What `--explain` says of a container.
fn explain(host: &Host, admin: &str, container: &str) -> Outcome {
    let mut arguments = vec!["register".to_owned()];
    arguments.extend(host.flags());
    let more = ["--admin", admin, "--explain", container];
    arguments.extend(more.map(str::to_owned));
    run_to_end(&arguments, &[])
}

/// A container for each reason, with words that have to be in what is said of it.
fn containers(host: &Host) -> Vec<(Container, &'static [&'static str])> {
    let run = |name: &str, options: &[&str]| host.docker.sleeper(name, options);
    let taken = host.service("taken", "web");
    host.consul
        .agent_register(&json!({ "ID": host.id(&taken), "Name": "theirs", "Port": 1 }));
    let two = ["-p", ":80", "--expose", "81", "-e", "SERVICE_80_NAME=web"];
    vec![
        (
            run("plain", &["-e", "SERVICE_NAME=web", "-p", ":80"]),
            &["service web, ID"],
        ),
        (taken, &["left alone since", "registered by somebody else"]),
        (
            run("ignored", &["-e", "SERVICE_IGNORE=yes", "-p", ":80"]),
            &["not registered", "port 80/tcp: SERVICE_IGNORE is set"],
        ),
        (
            run("portless", &[]),
            &["not registered", "exposes and publishes no port"],
        ),
        (
            run("unpublished", &["--expose", "80"]),
            &["not registered", "port 80/tcp: it is not published"],
        ),
        (
            run("half", &two),
            &["service web, ID", "port 81/tcp: it is not published"],
        ),
        (
            run("lost", &["-e", "SERVICE_NETWORK=nowhere", "-p", ":80"]),
            &[
                "service",
                "SERVICE_NETWORK: it has no address in \"nowhere\"",
            ],
        ),
        (
            run(
                "refused",
                &[
                    "-e",
                    "SERVICE_NAME=web",
                    "-e",
                    "SERVICE_CHECK_SCRIPT=true",
                    "-p",
                    ":80",
                ],
            ),
            &["refused since", "Scripts are disabled"],
        ),
    ]
}

#[test]
fn each_container_is_explained() {
    let host = Host::start();
    let containers = containers(&host);
    let registrar = host.registrar(&[]);
    let admin = registrar.admin();
    for (container, words) in &containers {
        let start = &container.id[..8];
        for called in [&container.name, start] {
            eventually(SOON, "it is explained", || {
                let outcome = explain(&host, &admin, called);
                assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
                let all = words.iter().all(|word| outcome.stdout.contains(word));
                let is_its = outcome.stdout.starts_with(&container.name);
                ensure(all && is_its, || format!("{words:?}: {}", outcome.stdout))
            });
        }
    }
    let page = registrar.get("/containers").expect("a page");
    assert_eq!(page.header("content-type"), Some("application/json"));
    let page = page.json();
    let of = |container: &Container| -> Value {
        let all = page.as_array().expect("containers").iter();
        let mut found = all.filter(|entry| entry["id"] == container.id.as_str());
        found.next().expect("it is there").clone()
    };
    assert_eq!(page.as_array().map(Vec::len), Some(containers.len()));
    let plain = of(&containers[0].0);
    assert_eq!(plain["services"][0]["state"], "registered");
    assert_eq!(plain["services"][0]["id"], host.id(&containers[0].0));
    assert!(
        plain["services"][0]["since"]
            .as_str()
            .is_some_and(|since| since.ends_with('Z'))
    );
    assert_eq!(of(&containers[2].0)["services"], json!([]));
    let outcome = explain(&host, &admin, "nobody");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.contains("no container is called \"nobody\""),
        "{outcome:?}"
    );
}

/// Without a registrar it is what one would do, and nothing is written.
#[test]
fn what_would_become_of_a_container_is_explained() {
    let host = Host::start();
    let web = host.service("web", "web");
    let outcome = explain(&host, "none", &web.name);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stdout.contains("planned: new") && outcome.stdout.contains(": new"),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains("This is what one would do"),
        "{outcome:?}"
    );
    assert!(host.recorder.take_writes().is_empty());
}
