//! What is in a container's environment stays on the host.

use crate::{
    support::{ensure, eventually},
    world::{Host, SOON},
};

#[test]
fn a_secret_in_the_environment_never_leaves_the_host() {
    let host = Host::start();
    let registrar = host.registrar(&[]);
    let secrets = [
        "SERVICE_DB_PASSWORD=hunter2-one",
        "SERVICE_80_DB_PASSWORD=hunter2-two",
        "SERVICE_TOKEN=hunter2-three",
        "DB_PASSWORD=hunter2-four",
        "SERVICE_META_DB_PASSWORD=hunter2-six",
        "SERVICE_AWS_SECRET_ACCESS_KEY=hunter2-five",
    ];
    let mut options = vec![
        "-e",
        "SERVICE_NAME=db",
        "-e",
        "SERVICE_META_REGION=us",
        "-p",
        ":80",
    ];
    options.extend(secrets.iter().flat_map(|secret| ["-e", secret]));
    let db = host.docker.sleeper("db", &options);
    host.wait_for(SOON, &[&db]);
    // Also when it changes, and when everything is registered anew.
    db.tell("restart");
    eventually(SOON, "it is registered again", || {
        let registered = registrar.events("registered").len();
        ensure(registered >= 2, || format!("{registered} times"))
    });
    assert_eq!(host.services()[&host.id(&db)]["Meta"]["region"], "us");
    let sent = host.recorder.sent();
    assert!(sent.contains(&host.id(&db)), "nothing was recorded");
    for leak in ["hunter2", "PASSWORD", "password", "secret"] {
        let at = sent.find(leak).map(|at| &sent[at.saturating_sub(100)..]);
        assert_eq!(at, None, "{leak} was sent to Consul");
    }
    // The names of variables may be told there, their values not.
    let metrics = registrar.get("/metrics").expect("an answer").body;
    for text in [registrar.log(), metrics] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
