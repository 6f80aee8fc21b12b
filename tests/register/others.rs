//! What others registered: Registrator before us, somebody else, a second one of us.

use crate::{
    support::{
        docker::{Docker, docker},
        docker_proxy::DockerProxy,
        ensure, eventually,
        registrar::Registrar,
    },
    world::{Host, LATE, host_name, passes},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Registers as Registrator does: no metadata of ours.
fn register_plainly(host: &Host, id: &str, port: u16) {
    host.consul.agent_register(
        &json!({ "ID": id, "Name": "web", "Tags": [], "Port": port, "Address": "10.0.0.1" }),
    );
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// Without `--adopt` what Registrator left is nobody's; with it, it is ours, once.
#[test]
fn registrators_services_are_taken_over_on_request() {
    let host = Host::start();
    let web = host.service("web", "web");
    let id = host.id(&web);
    let ghost = format!("{}:gone:80:udp", host_name());
    let theirs = ["elsewhere:app:80", "hand-made"];
    for id in [id.as_str(), &ghost].into_iter().chain(theirs) {
        register_plainly(&host, id, 1);
    }
    let all = set(&[&id, &ghost, theirs[0], theirs[1]]);

    let registrar = host.registrar(&[]);
    assert_eq!(host.ids(), all);
    assert_eq!(host.services()[&id]["Port"], 1, "it was touched");
    assert!(host.recorder.take_writes().is_empty());
    let told = registrar.log();
    assert!(
        told.contains("left alone") && told.contains("--adopt"),
        "{told}"
    );
    assert!(registrar.metric("portolan_register_conflicts") > 0.0);
    registrar.kill();

    let registrar = host.registrar(&["--adopt"]);
    assert_eq!(host.ids(), set(&[&id, theirs[0], theirs[1]]));
    assert_eq!(host.services()[&id]["Port"], web.published("80/tcp"));
    // Once: a Registrator that still runs would be seen, not followed for ever.
    register_plainly(&host, &ghost, 1);
    register_plainly(&host, &id, 1);
    let told = "it is left alone from now on";
    eventually(LATE, told, || {
        let conflicts = registrar.metric("portolan_register_conflicts");
        ensure(conflicts == 1.0, || conflicts.to_string())
    });
    assert!(host.ids().contains(&ghost));
    assert_eq!(host.services()[&id]["Port"], 1);
}

/// Two of one owner on one agent, each with containers of its own: both say so, and neither takes
/// away what the other has.
#[test]
fn a_second_writer_is_told_of() {
    let host = Host::start();
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let one = host.registrar(&["--owner", "same"]);
    let (url, consul) = (proxy.url(), host.recorder.url());
    let two = Registrar::start(&["--docker", &url, "--consul", &consul, "--owner", "same"]);
    two.wait_until_ready();
    let first = host.service("first", "web");
    host.wait_for_ids(LATE, &[host.id(&first)].into());
    let second = docker.sleeper("second", &["-e", "SERVICE_NAME=web", "-p", ":80"]);
    let both: BTreeSet<String> = [host.id(&first), host.id(&second)].into();
    let told = "another process registers services under our owner name; what it wrote is left \
                alone: end one of the two, or give each its own --owner";
    eventually(LATE, "both have told", || {
        for registrar in [&one, &two] {
            ensure(registrar.events(told).len() == 1, || registrar.log())?;
            let ready = registrar.get("/ready")?;
            ensure(ready.status == 503, || ready.body)?;
            let others = registrar.metric("portolan_register_other_writers");
            ensure(others == 1.0, || others.to_string())?;
        }
        Ok(())
    });
    host.wait_for_ids(LATE, &both);
    let _ = host.recorder.take_writes();
    // Whoever would fight would do so at its next looks.
    let before = [&one, &two].map(passes);
    eventually(LATE, "both have looked again", || {
        let now = [&one, &two].map(passes);
        let enough = now
            .iter()
            .zip(before)
            .all(|(now, before)| *now >= before + 2.0);
        ensure(enough, || format!("{now:?} after {before:?}"))
    });
    assert_eq!(host.recorder.take_writes(), Vec::<String>::new());
    assert_eq!(host.ids(), both);
    // Each goes on with its own.
    first.tell("kill");
    host.wait_for_ids(LATE, &[host.id(&second)].into());
}

/// The marks by which it knows its own.
#[test]
fn every_service_bears_its_owner() {
    let host = Host::start();
    let web = host.service("web", "web");
    let _registrar = host.registrar(&[]);
    let meta: Value = host.services()[&host.id(&web)]["Meta"].clone();
    let engine = docker(&["info", "--format", "{{.ID}}"]);
    assert_eq!(meta["portolan-owner"], engine.expect("an engine has an ID"));
    assert_eq!(meta["portolan-container"], json!(web.id));
    for mark in ["portolan-hash", "portolan-writer"] {
        assert!(meta[mark].is_string(), "{meta}");
    }
}
