//! What others did to a service, what its container had to say before, and what an agent keeps to itself: none of it is
//! lost when a service is registered anew.

use crate::{
    health::{checked_every, wait_for_health},
    refused::{delete_token, root_get, token, with_acl},
    support::{docker::docker, ensure, eventually, write_file},
    world::{Host, LATE, SOON, host_name, wait_for_passes},
};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

/// The statuses of a service's checks at the agent, by their IDs.
fn checks(host: &Host, id: &str) -> Vec<(String, String)> {
    let all = host.consul.get("/v1/agent/checks");
    let all = all.as_object().expect("checks by ID");
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let own = all.iter().filter(|(_, check)| check["ServiceID"] == *id);
    own.map(|(name, check)| (name.clone(), text(check, "Status")))
        .collect()
}

/// Waits until the service's own check has this status.
fn wait_for_status(host: &Host, id: &str, within: Duration, status: &str) {
    let own = format!("service:{id}");
    eventually(within, "the check has the status", || {
        let all = checks(host, id);
        let has = all.contains(&(own.clone(), status.to_owned()));
        ensure(has, || format!("{all:?}"))
    });
}

/// Looks again and again for so long; it has to be so each time.
pub(crate) fn throughout(
    lasting: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<(), String>,
) {
    let until = Instant::now() + lasting;
    while Instant::now() < until {
        look().unwrap_or_else(|otherwise| panic!("{what}: {otherwise}"));
        thread::sleep(Duration::from_millis(20));
    }
}

const TTL: [&str; 4] = ["-e", "SERVICE_CHECK_TTL=1h", "-p", ":80"];

fn with_ttl(host: &Host, name: &str) -> crate::support::docker::Container {
    let options = [&["-e", "SERVICE_NAME=web"][..], &TTL].concat();
    host.docker.sleeper(name, &options)
}

/// Maintenance goes on and the checks of others stay, whatever makes the service be registered anew; of its own
/// definition nothing stays that is not in it any more.
#[test]
fn what_others_added_survives() {
    let host = Host::start();
    let web = with_ttl(&host, "web");
    let id = host.id(&web);
    let registrar = host.registrar(&[]);
    host.wait_for(SOON, &[&web]);
    host.consul.set_check(&format!("service:{id}"), "passing");
    host.consul.put(
        &format!("/v1/agent/service/maintenance/{id}?enable=true&reason=test"),
        &Value::Null,
    );
    host.consul.put(
        "/v1/agent/check/register",
        &json!({ "ID": "theirs", "Name": "theirs", "ServiceID": id, "TTL": "1h" }),
    );
    registrar.kill();
    let registrar = host.registrar(&["--tags", "new"]);
    eventually(LATE, "it is registered anew", || {
        let tags = host.services()[&id]["Tags"].clone();
        ensure(tags == json!(["new"]), || tags.to_string())
    });
    let now = checks(&host, &id);
    let expected = [
        ("_service_maintenance:".to_owned() + &id, "critical"),
        (format!("service:{id}"), "passing"),
        ("theirs".to_owned(), "critical"),
    ];
    let expected = expected.map(|(check, status)| (check, status.to_owned()));
    assert_eq!(now, expected);
    // The same container without its check.
    drop(registrar);
    docker(&["rm", "--force", &web.id]).expect("it is removed");
    let plain = host.service("web", "web");
    assert_eq!(host.id(&plain), id);
    let _registrar = host.registrar(&[]);
    eventually(LATE, "its own check is gone, and no other", || {
        let now = checks(&host, &id);
        let names: Vec<&str> = now.iter().map(|(check, _)| check.as_str()).collect();
        let others = [expected[0].0.as_str(), "theirs"];
        ensure(names == others, || format!("{names:?}"))
    });
}

/// A check that somebody took away comes back as it was.
#[test]
fn a_lost_check_comes_back_as_it_was() {
    let host = Host::start();
    let web = with_ttl(&host, "web");
    let id = host.id(&web);
    let registrar = host.registrar(&["--resync", "1s"]);
    host.wait_for(SOON, &[&web]);
    let own = format!("service:{id}");
    host.consul.set_check(&own, "passing");
    wait_for_passes(&registrar, 2.0);
    let path = format!("/v1/agent/check/deregister/{own}");
    host.consul.put(&path, &Value::Null);
    wait_for_status(&host, &id, LATE, "passing");
}

/// `docker commit` pauses a container for a moment, and Docker calls it unhealthy until the next probe.
#[test]
fn a_moments_pause_is_no_illness() {
    let host = Host::start();
    let container = checked_every(&host, "checked", "8s");
    let id = host.id(&container);
    wait_for_health(&container, "healthy");
    let _registrar = host.registrar(&[]);
    wait_for_status(&host, &id, SOON, "passing");
    let image = host.docker.name("committed");
    docker(&["commit", "--pause=true", &container.id, &image]).expect("an image");
    let own = (format!("service:{id}"), "passing".to_owned());
    let is_passing = || {
        let now = checks(&host, &id);
        ensure(now.contains(&own), || format!("{now:?}"))
    };
    throughout(Duration::from_secs(2), "it was committed", is_passing);
    docker(&["rmi", "--force", &image]).expect("the image goes");
    // One that lasts is told, and its end at once, before the next probe.
    container.tell("pause");
    throughout(Duration::from_secs(3), "it is paused but now", is_passing);
    wait_for_status(&host, &id, Duration::from_secs(10), "critical");
    container.tell("unpause");
    wait_for_status(&host, &id, Duration::from_secs(3), "passing");
}

/// A container that is renamed has another ID: the new one is there before the old one goes, and as well as it was.
#[test]
fn a_new_id_takes_over_the_health() {
    let host = Host::start();
    let web = with_ttl(&host, "web");
    let _registrar = host.registrar(&[]);
    host.wait_for(SOON, &[&web]);
    host.consul
        .set_check(&format!("service:{}", host.id(&web)), "passing");
    let passing = || {
        let path = "/v1/health/service/web?passing";
        let found = host.consul.get(path);
        found.as_array().map_or(0, Vec::len)
    };
    eventually(SOON, "it is passing", || {
        ensure(passing() == 1, || "it is not".to_owned())
    });
    let name = host.docker.name("renamed");
    docker(&["rename", &web.id, &name]).expect("another name");
    let new = format!("{}:{name}:80", host_name());
    let start = Instant::now();
    loop {
        assert!(passing() > 0, "it was gone");
        if host.ids() == [new.clone()].into() {
            break;
        }
        assert!(start.elapsed() < LATE, "{:?}", host.ids());
    }
    wait_for_status(&host, &new, SOON, "passing");
}

/// An instance that Consul removed because it was critical comes back as what it is.
#[test]
fn what_is_dead_does_not_come_back_to_life() {
    let host = Host::start();
    let options = [
        "-e",
        "SERVICE_NAME=web",
        "-e",
        "SERVICE_CHECK_TCP=true",
        "-e",
        "SERVICE_CHECK_INTERVAL=1s",
        "-e",
        "SERVICE_CHECK_INITIAL_STATUS=passing",
        "-e",
        "SERVICE_CHECK_DEREGISTER_AFTER=1m",
        "-e",
        "SERVICE_INTERNAL=true",
        "--expose",
        "80",
    ];
    let web = host.docker.sleeper("web", &options);
    let id = host.id(&web);
    let _registrar = host.registrar(&["--resync", "1s"]);
    host.wait_for(SOON, &[&web]);
    wait_for_status(&host, &id, Duration::from_secs(10), "critical");
    // Consul takes away what was critical for a minute, and looks each half minute.
    let (mut is_removed, start) = (false, Instant::now());
    loop {
        assert!(start.elapsed() < 2 * LATE, "it was not removed");
        let now = checks(&host, &id);
        if is_removed && !now.is_empty() {
            break;
        }
        is_removed |= now.is_empty();
        thread::sleep(Duration::from_millis(10));
    }
    throughout(Duration::from_secs(3), "it is back", || {
        let now = checks(&host, &id);
        ensure(now.iter().all(|(_, status)| status == "critical"), || {
            format!("{now:?}")
        })
    });
}

/// A service with a HEALTHCHECK whose ID somebody else has.
#[test]
fn what_is_left_alone_costs_nothing() {
    let host = Host::start();
    let container = checked_every(&host, "checked", "8s");
    let id = host.id(&container);
    host.consul
        .agent_register(&json!({ "ID": id, "Name": "theirs", "Port": 1 }));
    let registrar = host.registrar(&[]);
    eventually(SOON, "it is left alone", || {
        let conflicts = registrar.metric("portolan_register_conflicts");
        ensure(conflicts == 1.0, || conflicts.to_string())
    });
    let asked = || host.recorder.paths().len();
    let before = asked();
    thread::sleep(Duration::from_secs(5));
    let asked = asked() - before;
    assert!(asked < 10, "{asked} requests in 5 s");
}

/// With the old token deleted, the catalog hears what the agent knows all the same.
#[test]
fn a_new_token_keeps_the_catalog_right() {
    let host = with_acl();
    let rules = r#"agent_prefix "" { policy = "read" }
        node_prefix "" { policy = "read" }
        service_prefix "" { policy = "write" }"#;
    let directory = host.proxy.directory();
    let (old, new) = (token(&host, rules), token(&host, &format!("{rules} ")));
    let file = write_file(directory, "token", &old).display().to_string();
    let checked = checked_every(&host, "checked", "1s");
    let other = host.service("other", "other");
    wait_for_health(&checked, "healthy");
    let _registrar = host.registrar(&["--token-file", &file]);
    // As the servers have it.
    let catalog = |name: &str| -> Vec<String> {
        let found = root_get(&host, &format!("/v1/health/service/{name}"));
        let found = found.as_array().expect("instances").iter();
        let statuses = found.flat_map(|own| own["Checks"].as_array().expect("checks").clone());
        let own = statuses.filter(|check| check["ServiceName"] == *name);
        own.map(|check| check["Status"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let count = |name: &str| {
        let found = root_get(&host, &format!("/v1/catalog/service/{name}"));
        found.as_array().map_or(0, Vec::len)
    };
    eventually(LATE, "the catalog has both", || {
        let found = (catalog("checked"), count("other"));
        ensure(found == (vec!["passing".to_owned()], 1), || {
            format!("{found:?}")
        })
    });
    write_file(directory, "token", &new);
    let _ = host.recorder.take_writes();
    eventually(LATE, "both are registered anew", || {
        let writes = host.recorder.sent();
        let again = writes.matches("/v1/agent/service/register").count();
        ensure(again >= 2, || format!("{again} times"))
    });
    delete_token(&host, &old);
    checked.exec(&["rm", "/healthy"]).expect("it turns bad");
    eventually(LATE, "the catalog knows that one is ill", || {
        let found = catalog("checked");
        ensure(found == ["critical"], || format!("{found:?}"))
    });
    other.tell("kill");
    eventually(LATE, "the catalog knows that one has gone", || {
        let found = count("other");
        ensure(found == 0, || found.to_string())
    });
}

/// An ID with a tab in it is not another's without one.
#[test]
fn anothers_service_is_not_taken_for_ours() {
    let host = Host::start();
    host.consul
        .agent_register(&json!({ "ID": "tabx", "Name": "theirs", "Port": 1 }));
    let options = [
        "-e",
        "SERVICE_NAME=web",
        "-e",
        "SERVICE_ID=tab\tx",
        "-p",
        ":80",
    ];
    let web = host.docker.sleeper("web", &options);
    let usual = host.id(&web);
    let registrar = host.registrar(&[]);
    host.wait_for_ids(SOON, &["tabx".to_owned(), usual].into());
    assert!(registrar.log().contains("cannot stand in a path"));
    web.tell("kill");
    host.wait_for_ids(LATE, &["tabx".to_owned()].into());
    let services = host.services();
    assert_eq!(services["tabx"]["Service"], "theirs");
}

/// Which of Registrator's services are not taken over, and why.
#[test]
fn adopting_says_what_it_leaves() {
    let host = Host::start();
    for id in ["elsewhere:app:80", "elsewhere:db:5432", "hand-made"] {
        host.consul
            .agent_register(&json!({ "ID": id, "Name": "theirs", "Port": 1 }));
    }
    let registrar = host.registrar(&["--adopt"]);
    let told = registrar.log();
    assert!(
        told.contains("another host name")
            && told.contains("elsewhere:app:80, elsewhere:db:5432")
            && !told.contains("hand-made"),
        "{told}"
    );
}
