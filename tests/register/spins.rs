//! Whatever is to be done or left undone, nobody is asked without a pause: requests to the agent are counted for 5 s, for
//! every action and every reason for it.

use crate::{
    health::{checked_every, wait_for_health},
    refused::{root_get, root_put, token, with_acl},
    support::{docker::docker, ensure, eventually, registrar::Registrar, write_file},
    world::{Host, LATE},
};
use serde_json::{Value, json};
use std::{thread, time::Duration};

/// In 5 s: some services at first tries of 1, 2 and 4 s, with a look for each. Without pauses there are thousands.
const MOST: usize = 100;

fn is_calm(host: &Host, what: &str) {
    let before = host.recorder.requests();
    thread::sleep(Duration::from_secs(5));
    let asked = host.recorder.requests() - before;
    assert!(asked <= MOST, "{what}: {asked} requests in 5 s");
}

/// `--explain` as JSON: what became of the services of a container.
fn services(registrar: &Registrar, container: &str) -> Result<Vec<Value>, String> {
    let all = registrar.get("/containers")?;
    ensure(all.status == 200, || all.body.clone())?;
    let all = all.json();
    let all = all.as_array().ok_or("no list")?.iter();
    let own = all.filter(|entry| entry["container"] == container);
    let own = own.filter_map(|entry| entry["services"].as_array().cloned());
    Ok(own.flatten().collect())
}

/// Waits until a service of the container is so, and for this reason.
fn is(registrar: &Registrar, container: &str, state: &str, why: &str) {
    eventually(LATE, &format!("{container} is {state}: {why}"), || {
        let services = services(registrar, container)?;
        let fits = |own: &Value| {
            own["state"] == state && own["why"].as_str().is_some_and(|said| said.contains(why))
        };
        ensure(services.iter().any(fits), || format!("{services:?}"))
    });
}

#[test]
fn what_is_kept_or_left_alone_costs_nothing() {
    let host = Host::start();
    let kept = checked_every(&host, "kept", "1s");
    let taken = checked_every(&host, "taken", "1s");
    let edited = checked_every(&host, "edited", "1s");
    let named = [
        "-e",
        "SERVICE_NAME=named",
        "-e",
        "SERVICE_ID=by-name",
        "-p",
        ":80",
    ];
    let named = host.docker.sleeper("named", &named);
    let script = "while [ ! -e /end ]; do sleep 0.1; done; exit 1";
    let options = ["-e", "SERVICE_NAME=failed", "-p", ":80"];
    let failed = host.docker.run("failed", &options, &["sh", "-c", script]);
    wait_for_health(&kept, "healthy");
    host.consul
        .agent_register(&json!({ "ID": host.id(&taken), "Name": "theirs", "Port": 1 }));
    let engine = docker(&["info", "--format", "{{.ID}}"]).expect("an engine has an ID");
    let meta =
        json!({ "portolan-owner": engine, "portolan-host": "a-clone", "portolan-writer": "x" });
    host.consul
        .agent_register(&json!({ "ID": "by-name", "Name": "named", "Port": 1, "Meta": meta }));
    let registrar = host.registrar(&["--deregister", "on-success"]);
    is(&registrar, &kept.name, "registered", "");
    is(
        &registrar,
        &taken.name,
        "left alone",
        "registered by somebody else",
    );
    is(
        &registrar,
        &named.name,
        "left alone",
        "on a host of another name",
    );
    is(&registrar, &failed.name, "registered", "");
    failed.exec(&["touch", "/end"]).expect("it ends");
    is(&registrar, &failed.name, "kept", "its container failed");
    // Another process under our name, which wants something else.
    let id = host.id(&edited);
    let mut meta = host.services()[&id]["Meta"].clone();
    meta["portolan-writer"] = json!("0123456789abcdef");
    meta["portolan-hash"] = json!("1-0");
    host.consul
        .agent_register(&json!({ "ID": id, "Name": "checked", "Port": 9, "Meta": meta }));
    is(
        &registrar,
        &edited.name,
        "left alone",
        "another process writes it",
    );
    is_calm(&host, "kept and left alone");
}

/// A token that may do nothing any more: everything that is to be done is refused.
#[test]
fn what_is_refused_is_tried_ever_more_seldom() {
    let host = with_acl();
    let read = r#"agent_prefix "" { policy = "read" } node_prefix "" { policy = "read" }
        service_prefix "" { policy = "read" }"#;
    let write = read.replace(
        r#"service_prefix "" { policy = "read" }"#,
        r#"service_prefix "" { policy = "write" }"#,
    );
    let (read, write) = (token(&host, read), token(&host, &write));
    let directory = host.proxy.directory();
    let file = write_file(directory, "token", &write).display().to_string();
    let (changed, damaged) = (
        host.service("changed", "changed"),
        checked_every(&host, "damaged", "1s"),
    );
    let (gone, same) = (
        host.service("gone", "gone"),
        checked_every(&host, "same", "1s"),
    );
    let registrar = host.registrar(&["--token-file", &file, "--resync", "1s"]);
    for container in [&changed, &damaged, &gone, &same] {
        is(&registrar, &container.name, "registered", "");
    }
    write_file(directory, "token", &read);
    // The agent's token for each is the one of before.
    is(&registrar, &same.name, "refused", "Permission denied");
    is_calm(&host, "a new token that is refused");
    let new = host.service("new", "new");
    is(&registrar, &new.name, "refused", "Permission denied");
    gone.tell("kill");
    let check = format!("/v1/agent/check/deregister/service:{}", host.id(&damaged));
    root_put(&host, &check, &Value::Null);
    let shown = root_get(&host, "/v1/agent/services")[host.id(&changed)].clone();
    let body = json!({ "ID": shown["ID"], "Name": "changed", "Port": 9, "Meta": shown["Meta"] });
    root_put(&host, "/v1/agent/service/register", &body);
    eventually(LATE, "all of it is refused", || {
        let failing = registrar.metric("portolan_register_failing");
        ensure(failing >= 5.0, || failing.to_string())
    });
    is_calm(&host, "all that is to be done is refused");
    // Consul's servers have one that the agent does not, and may not be told so.
    let deregister = json!({ "Node": host.consul.node(), "ServiceID": host.id(&same) });
    root_put(&host, "/v1/catalog/deregister", &deregister);
    is_calm(&host, "the servers lack one");
    write_file(directory, "token", &write);
    eventually(LATE, "nothing is refused", || {
        let failing = registrar.metric("portolan_register_failing");
        ensure(failing == 0.0, || failing.to_string())
    });
    is_calm(&host, "all is well again");
}
