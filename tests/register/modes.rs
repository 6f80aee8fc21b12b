//! `--once`, `--dry-run`, `--on-exit`, and a missing Docker or Consul.

use crate::{
    support::{
        docker::docker,
        docker_proxy::Info,
        ensure, eventually,
        portolan::{Outcome, run_to_end},
        registrar::Registrar,
    },
    world::{Host, SOON, host_name},
};
use serde_json::json;
use std::time::Duration;

/// Runs `portolan register` to its end.
fn run(host: &Host, more: &[&str]) -> Outcome {
    let mut arguments = vec!["register".to_owned()];
    arguments.extend(host.flags());
    arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
    run_to_end(&arguments, &[])
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let host = Host::start();
    let (gone, kept) = (host.service("gone", "web"), host.service("kept", "web"));
    assert_eq!(run(&host, &["--once"]).code, Some(0));
    docker(&["kill", &gone.id]).expect("it ends");
    let new = host.service("new", "api");
    let taken = host.service("taken", "api");
    host.consul
        .agent_register(&json!({ "ID": host.id(&taken), "Name": "api", "Port": 9 }));
    let (before, index) = (host.services(), host.recorder.take_writes().len());
    assert_eq!(index, 2);

    let outcome = run(&host, &["--dry-run"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(host.recorder.take_writes().is_empty());
    assert_eq!(host.services(), before);
    let agent = host.consul.http().ip();
    let port = |id: &str| before[id]["Port"].clone();
    let expected = [
        "ACTION SERVICE ID ADDRESS WHY".to_owned(),
        format!(
            "register api {} {agent}:{} new",
            host.id(&new),
            new.published("80/tcp")
        ),
        format!(
            "deregister web {} {agent}:{} no such container runs",
            host.id(&gone),
            port(&host.id(&gone))
        ),
        format!(
            "keep web {} {agent}:{} unchanged",
            host.id(&kept),
            kept.published("80/tcp")
        ),
        format!(
            "leave api {} {agent}:{} registered by somebody else; --adopt takes over Registrator's",
            host.id(&taken),
            taken.published("80/tcp")
        ),
    ];
    let lines: Vec<String> = outcome
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(lines, expected);
    // The columns are below one another.
    let columns: Vec<_> = outcome
        .stdout
        .lines()
        .map(|line| line.find(&host_name()))
        .collect();
    assert!(
        columns[1..].iter().all(|at| *at == columns[1]),
        "{}",
        outcome.stdout
    );
}

#[test]
fn once_does_all_and_ends() {
    let host = Host::start();
    let web = host.service("web", "web");
    let outcome = run(&host, &["--once"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    host.wait_for(Duration::ZERO, &[&web]);
    let _ = host.recorder.take_writes();
    assert_eq!(run(&host, &["--once"]).code, Some(0));
    assert_eq!(host.recorder.take_writes(), Vec::<String>::new());
    web.tell("kill");
    assert_eq!(run(&host, &["--once"]).code, Some(0));
    host.wait_for(Duration::ZERO, &[]);
}

#[test]
fn once_says_what_is_missing() {
    let host = Host::start();
    host.proxy.cut();
    let outcome = run(&host, &["--once"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome
            .last_line()
            .starts_with("portolan: Docker cannot be asked: "),
        "{outcome:?}"
    );
    let docker = host.proxy.url();
    host.proxy.heal();
    let nowhere = [
        "register",
        "--once",
        "--docker",
        &docker,
        "--consul",
        "http://127.0.0.1:1",
    ];
    let outcome = run_to_end(&nowhere, &[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome
            .last_line()
            .starts_with("portolan: Consul's agent cannot be used: "),
        "{outcome:?}"
    );
}

#[test]
fn at_the_end_services_stay_or_go_as_wanted() {
    let host = Host::start();
    let web = host.service("web", "web");
    host.consul
        .agent_register(&json!({ "ID": "theirs", "Name": "theirs" }));
    let all = [host.id(&web), "theirs".to_owned()].into();
    for (flags, left) in [
        (&[][..], &all),
        (&["--on-exit", "keep"], &all),
        (&["--on-exit", "deregister"], &["theirs".to_owned()].into()),
    ] {
        let registrar = host.registrar(flags);
        host.wait_for_ids(SOON, &all);
        let ended = registrar.stop();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.took < Duration::from_secs(5), "{ended:?}");
        host.wait_for_ids(Duration::ZERO, left);
    }
}

/// A Consul that hangs does not keep it from ending.
#[test]
fn it_ends_in_time_whatever_consul_does() {
    let host = Host::start();
    let _web = host.service("web", "web");
    let registrar = host.registrar(&["--on-exit", "deregister"]);
    host.consul.pause();
    let ended = registrar.stop();
    host.consul.resume();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.took < Duration::from_secs(5), "{ended:?}");
    assert!(
        ended.stderr.contains("services stay registered"),
        "{ended:?}"
    );
}

/// It starts before Docker and before Consul, and says so, and catches up.
#[test]
fn it_waits_for_docker_and_consul() {
    let mut host = Host::start();
    host.proxy.cut();
    host.consul.kill();
    let registrar: Registrar = host.launch(&[]);
    let web = host.service("web", "web");
    let unready = |part: &str| {
        eventually(Duration::from_secs(5), "it is told what is missing", || {
            let ready = registrar.get("/ready")?;
            let is_told = ready.status == 503 && ready.body.contains(part);
            ensure(is_told, || format!("{ready:?}"))
        });
    };
    unready("docker: ");
    assert_eq!(registrar.get("/healthz").expect("an answer").status, 200);
    host.proxy.heal();
    unready("consul: cannot read the services of Consul's agent");
    host.consul.restart();
    host.consul.wait_until_ready();
    host.wait_for(Duration::from_secs(5), &[&web]);
    registrar.wait_until_ready();
}

/// Where the engine has no ID to be had, somebody has to give a name, and is told so.
#[test]
fn an_owner_is_not_made_up() {
    let host = Host::start();
    let web = host.service("web", "web");
    host.proxy.set_info(Some(Info::Changing));
    let outcome = run(&host, &["--once"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.last_line().contains("set --owner"), "{outcome:?}");
    host.proxy.set_info(Some(Info::Refused));
    let registrar = host.launch(&[]);
    eventually(Duration::from_secs(5), "it is told what to do", || {
        let ready = registrar.get("/ready")?;
        let told = "allow GET /info, or set --owner";
        let is_told = ready.status == 503 && ready.body.contains(told);
        ensure(is_told, || format!("{ready:?}"))
    });
    assert!(host.ids().is_empty());
    host.proxy.set_info(None);
    host.wait_for(Duration::from_secs(3), &[&web]);
    // With a name it asks for none.
    host.proxy.set_info(Some(Info::Refused));
    assert_eq!(run(&host, &["--once", "--owner", "me"]).code, Some(0));
}
