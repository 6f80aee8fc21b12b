//! What the agent cannot tell the servers any more, because the token that it has for it was deleted, is noticed.

use crate::{
    health::{checked_every, wait_for_health},
    refused::{delete_token, root_get, token, with_acl},
    support::{ensure, eventually, write_file},
    world::{LATE, wait_for_passes},
};

/// What a registrar needs that also compares with the servers.
pub(crate) const RULES: &str = r#"agent_prefix "" { policy = "read" }
    node_prefix "" { policy = "read" }
    service_prefix "" { policy = "write" }"#;

/// The token was replaced while no registrar ran, so nobody saw it change.
#[test]
fn what_the_servers_do_not_hear_is_told_with_another_token() {
    let host = with_acl();
    let (old, new) = (token(&host, RULES), token(&host, &format!("{RULES} ")));
    let directory = host.proxy.directory();
    let file = write_file(directory, "token", &old).display().to_string();
    let checked = checked_every(&host, "checked", "1s");
    let other = host.service("other", "other");
    wait_for_health(&checked, "healthy");
    let flags = ["--token-file", &file, "--resync", "1s"];
    let registrar = host.registrar(&flags);
    let count = |name: &str| {
        let found = root_get(&host, &format!("/v1/catalog/service/{name}"));
        found.as_array().map_or(0, Vec::len)
    };
    let status = || {
        let checks = root_get(&host, "/v1/health/checks/checked");
        checks[0]["Status"].as_str().unwrap_or_default().to_owned()
    };
    eventually(LATE, "the servers know both", || {
        let found = (status(), count("other"));
        ensure(found == ("passing".to_owned(), 1), || format!("{found:?}"))
    });
    registrar.kill();
    delete_token(&host, &old);
    write_file(directory, "token", &new);
    // The one goes and the other turns bad, while nobody looks.
    other.tell("kill");
    checked.exec(&["rm", "/healthy"]).expect("it turns bad");
    let registrar = host.registrar(&flags);
    eventually(LATE, "the servers know that one is ill", || {
        let now = status();
        ensure(now == "critical", || now)
    });
    eventually(LATE, "the servers know that one has gone", || {
        let found = count("other");
        ensure(found == 0, || found.to_string())
    });
    eventually(LATE, "nothing is left to tell", || {
        let unsynced = registrar.metric("portolan_register_unsynced");
        ensure(unsynced == 0.0, || unsynced.to_string())
    });
    let told = registrar.log();
    assert!(
        told.contains("servers do not have it as the agent has it"),
        "{told}"
    );
    assert!(told.contains("and the agent does not"), "{told}");
}

/// With a token that may not read the node nothing can be compared, and the log says so once.
#[test]
fn who_may_not_read_the_catalog_is_told() {
    let host = with_acl();
    let rules = r#"agent_prefix "" { policy = "read" } service_prefix "" { policy = "write" }"#;
    let file = write_file(host.proxy.directory(), "token", &token(&host, rules));
    let file = file.display().to_string();
    let web = host.service("web", "web");
    let registrar = host.registrar(&["--token-file", &file, "--resync", "1s"]);
    eventually(LATE, "it is told", || {
        let told = registrar.log();
        ensure(
            told.contains("may not read this node in the catalog"),
            || told,
        )
    });
    let _ = host.recorder.take_writes();
    wait_for_passes(&registrar, 5.0);
    assert!(host.recorder.take_writes().is_empty(), "it was told anew");
    let told = registrar.log();
    assert_eq!(told.matches("may not read this node").count(), 1, "{told}");
    drop(web);
}
