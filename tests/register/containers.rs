//! Containers come and go, and Consul and DNS know it at once.

use crate::{
    support::{
        dns,
        docker::{Container, docker},
        ensure, eventually,
        portolan::Portolan,
        wire::rtype::SRV,
        write_file,
    },
    world::{Host, SOON, host_name},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How many instances DNS has of a service.
fn instances(portolan: &Portolan, service: &str) -> usize {
    let name = format!("{service}.service.consul");
    dns::ask(portolan.dns(), &name, SRV).answers.len()
}

fn wait_for_instances(portolan: &Portolan, service: &str, expected: usize) {
    eventually(SOON, "DNS has the instances that run", || {
        let found = instances(portolan, service);
        ensure(found == expected, || {
            format!("{found} instead of {expected}")
        })
    });
}

/// The example of the system that Portolan replaces.
#[test]
fn hello1_appears_and_goes() {
    let host = Host::start();
    let portolan = Portolan::beside(&host.consul);
    let registrar = host.registrar(&[]);
    for how in ["stop", "kill", "rm"] {
        let options = ["-e", "SERVICE_NAME=hello1", "-e", "SERVICE_TAGS=rest"];
        let options = [&options[..], &["-h", "hello1", "-p", ":80"]].concat();
        let hello1 = host.docker.sleeper("hello1", &options);
        wait_for_instances(&portolan, "hello1", 1);
        as_registrator_has_it(&host, &hello1);
        let arguments: &[&str] = match how {
            "rm" => &["rm", "--force", &hello1.id],
            _ => &[how, &hello1.id],
        };
        docker(arguments).expect("it ends");
        wait_for_instances(&portolan, "hello1", 0);
        assert!(host.ids().is_empty(), "{:?}", host.ids());
    }
    let ended = registrar.stop();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// ID, name, tags, port and address are what Registrator would have sent.
fn as_registrator_has_it(host: &Host, hello1: &Container) {
    let services = host.services();
    assert_eq!(services.len(), 1, "{services:?}");
    let id = format!("{}:{}:80", host_name(), hello1.name);
    let service = &services[&id];
    let agent = host.consul.http().ip().to_string();
    let has = |key: &str| service[key].clone();
    assert_eq!(
        [
            has("ID"),
            has("Service"),
            has("Tags"),
            has("Port"),
            has("Address")
        ],
        [
            json!(id),
            json!("hello1"),
            json!(["rest"]),
            json!(hello1.published("80/tcp")),
            json!(agent),
        ]
    );
    let checks = host.consul.get("/v1/agent/checks");
    assert_eq!(checks, json!({}), "Registrator has no check for it");
}

/// It is out of DNS while it still drains: the first signal is enough.
#[test]
fn a_container_that_is_being_stopped_is_gone_before_it_ends() {
    let host = Host::start();
    let portolan = Portolan::beside(&host.consul);
    let _registrar = host.registrar(&[]);
    // It takes no notice of the signal, and is killed five seconds later.
    let deaf = ["sh", "-c", "trap '' TERM; sleep 1000"];
    let options = [
        "-e",
        "SERVICE_NAME=slow",
        "-p",
        ":80",
        "--stop-timeout",
        "5",
    ];
    let slow = host.docker.run("slow", &options, &deaf);
    wait_for_instances(&portolan, "slow", 1);
    let id = slow.id.clone();
    let stopping = std::thread::spawn(move || docker(&["stop", &id]));
    eventually(Duration::from_secs(4), "DNS lets go of it", || {
        let found = instances(&portolan, "slow");
        ensure(found == 0, || format!("{found} instances"))
    });
    assert!(!stopping.is_finished(), "it had ended already");
    assert_eq!(slow.inspect("{{.State.Running}}"), "true");
    stopping.join().expect("no panic").expect("it stops");
    assert!(host.ids().is_empty());
}

/// `docker restart` and a new container of the same name leave one instance, at the new port.
#[test]
fn what_is_restarted_or_made_anew_is_there_once() {
    let host = Host::start();
    let _registrar = host.registrar(&[]);
    let first = host.service("web", "web");
    host.wait_for(SOON, &[&first]);
    first.tell("restart");
    port_is(&host, &first, SOON);
    docker(&["rm", "--force", &first.id]).expect("it is removed");
    let second = host.service("web", "web");
    host.wait_for(SOON, &[&second]);
    port_is(&host, &second, SOON);
}

/// Who was restarted while Docker could not be asked is registered with its new port.
#[test]
fn a_restart_that_nobody_saw_is_made_good() {
    let host = Host::start();
    let web = host.service("web", "web");
    let _registrar = host.registrar(&["--resync", "1h"]);
    host.wait_for(SOON, &[&web]);
    let before = web.published("80/tcp");
    host.proxy.cut();
    docker(&["restart", "--time", "0", &web.id]).expect("it restarts");
    assert_ne!(
        web.published("80/tcp"),
        before,
        "it could not be told from the old one"
    );
    host.proxy.heal();
    // Docker is asked again every 3 s at least.
    port_is(&host, &web, SOON + Duration::from_secs(5));
}

fn port_is(host: &Host, container: &Container, within: Duration) {
    let port = json!(container.published("80/tcp"));
    eventually(within, "the port is the published one", || {
        let services: BTreeMap<String, Value> = host.services();
        let service = services.get(&host.id(container)).ok_or("not registered")?;
        ensure(service["Port"] == port, || service.to_string())
    });
}

/// With `on-success` what failed stays until its container is removed, also for a registrar that
/// was not there when it failed.
#[test]
fn what_failed_stays_if_that_is_wanted() {
    let host = Host::start();
    let registrar = host.registrar(&["--deregister", "on-success"]);
    let service = |name: &str, code: u8| {
        let script = format!("while [ ! -e /end ]; do sleep 0.1; done; exit {code}");
        let options = ["-e", "SERVICE_NAME=job", "-p", ":80"];
        host.docker.run(name, &options, &["sh", "-c", &script])
    };
    let (good, bad) = (service("good", 0), service("bad", 3));
    host.wait_for(SOON, &[&good, &bad]);
    for job in [&good, &bad] {
        job.exec(&["touch", "/end"]).expect("it is told to end");
    }
    host.wait_for(Duration::from_secs(5), &[&bad]);
    registrar.kill();
    let _registrar = host.registrar(&["--deregister", "on-success"]);
    host.wait_for(SOON, &[&bad]);
    docker(&["rm", "--force", &bad.id]).expect("it is removed");
    host.wait_for(Duration::from_secs(5), &[]);
}

/// Tags, address and mode can be given for all; a SIGHUP reads them anew.
#[test]
fn flags_and_file_say_how_containers_are_registered() {
    let host = Host::start();
    let web = host.service("web", "web");
    let _bare = host.docker.sleeper("bare", &["-p", ":80"]);
    let file = |ip: &str| {
        let text = format!("[register]\ntags = [\"blue\"]\nexplicit = true\nip = {ip:?}\n");
        write_file(host.proxy.directory(), "portolan.toml", &text)
    };
    let path = file("10.99.0.7").display().to_string();
    let registrar = host.registrar(&["--config", &path]);
    let is = |address: &str| {
        eventually(SOON, "the address is the one given", || {
            let services = host.services();
            let service = services.get(&host.id(&web)).ok_or("not registered")?;
            ensure(service["Address"] == address, || service.to_string())
        });
    };
    is("10.99.0.7");
    host.wait_for(SOON, &[&web]);
    assert_eq!(host.services()[&host.id(&web)]["Tags"], json!(["blue"]));
    file("10.99.0.8");
    registrar.signal("HUP");
    is("10.99.0.8");
    // What is wrong changes nothing.
    file("nowhere");
    registrar.signal("HUP");
    let refused = "reload refused; keeping everything as it was";
    eventually(SOON, "it says so", || {
        ensure(registrar.events(refused).len() == 1, || registrar.log())
    });
    is("10.99.0.8");
}

/// An ID may hold what a path must not: it still finds its way there and back.
#[test]
fn ids_are_what_they_are_given() {
    let host = Host::start();
    let _registrar = host.registrar(&[]);
    for id in ["a/b", "a b?c=d%20#e", "\u{e4}:1"] {
        let variable = format!("SERVICE_ID={id}");
        let container = host.docker.sleeper("odd", &["-e", &variable, "-p", ":80"]);
        host.wait_for_ids(SOON, &[id.to_owned()].into());
        drop(container);
        host.wait_for_ids(SOON, &[].into());
    }
}
