//! Machines that were made from one template have engines with one ID: what one of them registers is not the other's.

use crate::{
    support::{
        docker::{Docker, docker},
        docker_proxy::{DockerProxy, Info},
        ensure, eventually,
        registrar::Registrar,
    },
    truth::throughout,
    world::{Host, LATE, SOON, host_name, wait_for_passes},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Two machines on one agent, each with an address of its own.
#[test]
fn a_clones_services_are_left_alone() {
    let host = Host::start();
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    proxy.set_info(Some(Info::OnHost("clone")));
    let (url, consul) = (proxy.url(), host.recorder.url());
    let start_clone = || {
        let flags = ["--docker", &url, "--consul", &consul, "--ip", "10.1.0.2"];
        let clone = Registrar::start(&[&flags[..], &["--resync", "1s"]].concat());
        clone.wait_until_ready();
        clone
    };
    let own = ["--ip", "10.1.0.1", "--resync", "1s"];
    let web = host.service("web", "web");
    let registrar = host.registrar(&own);
    let theirs = docker.sleeper("theirs", &["-e", "SERVICE_NAME=web", "-p", ":80"]);
    let both: BTreeSet<String> = [host.id(&web), host.id(&theirs)].into();
    host.wait_for(SOON, &[&web]);
    let clone = start_clone();
    host.wait_for_ids(SOON, &both);
    let are_there = || {
        let ids = host.ids();
        ensure(ids == both, || format!("{ids:?}"))
    };
    throughout(Duration::from_secs(3), "both go on", are_there);
    for registrar in [&registrar, &clone] {
        let told = registrar.log();
        assert!(
            told.contains("bear the ID of this host's Docker engine"),
            "{told}"
        );
        assert!(!told.contains("another process"), "{told}");
    }
    // Each begins anew, as after a restart of its machine.
    registrar.kill();
    clone.kill();
    let (registrar, clone) = (host.registrar(&own), start_clone());
    throughout(Duration::from_secs(3), "both go on", are_there);
    web.tell("kill");
    host.wait_for_ids(LATE, &[host.id(&theirs)].into());
    theirs.tell("kill");
    host.wait_for_ids(LATE, &BTreeSet::new());
    drop((registrar, clone));
}

/// A service as the agent shows it, in the form of a registration, with marks of a release that did not name the host.
fn of_before(shown: &Value) -> Value {
    let mut meta = shown["Meta"].clone();
    let marks = meta.as_object_mut().expect("marks");
    assert!(marks.remove("portolan-host").is_some());
    marks.insert("portolan-writer".to_owned(), json!("0123456789abcdef"));
    json!({ "ID": shown["ID"], "Name": shown["Service"], "Address": shown["Address"],
        "Port": shown["Port"], "Meta": meta })
}

/// What a release of before, or this host under another name, registered becomes ours without a gap; what may be a
/// clone's stays.
#[test]
fn marks_of_before_are_taken_over() {
    let host = Host::start();
    let web = host.service("web", "web");
    let id = host.id(&web);
    let registrar = host.registrar(&[]);
    host.wait_for(SOON, &[&web]);
    registrar.kill();
    let before = of_before(&host.services()[&id]);
    host.consul.agent_register(&before);
    let gone = format!("{}:gone:80", host_name());
    for other in [&gone, "elsewhere:app:80", "by-hand"] {
        let mut service = before.clone();
        service["ID"] = json!(other);
        service["Meta"]["portolan-container"] = json!("f".repeat(64));
        host.consul.agent_register(&service);
    }
    let stays: BTreeSet<String> = [&id, "elsewhere:app:80", "by-hand"]
        .map(str::to_owned)
        .into();
    for name in ["first", "second"] {
        host.proxy.set_info(Some(Info::OnHost(name)));
        let registrar = host.launch(&["--resync", "1s"]);
        eventually(LATE, "it is marked", || {
            let services = host.services();
            let web = services.get(&id).ok_or("it was gone")?;
            let mark = &web["Meta"]["portolan-host"];
            ensure(*mark == name, || mark.to_string())
        });
        host.wait_for_ids(LATE, &stays);
        wait_for_passes(&registrar, 2.0);
        assert_eq!(host.ids(), stays);
        let told = registrar.log();
        assert!(told.contains("by-hand, elsewhere:app:80"), "{told}");
        registrar.kill();
    }
    docker(&["kill", &web.id]).expect("it ends");
    let _registrar = host.registrar(&[]);
    host.wait_for_ids(
        LATE,
        &["elsewhere:app:80", "by-hand"].map(str::to_owned).into(),
    );
}
