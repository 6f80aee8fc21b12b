//! HAProxy 2.6 keeps a server that it was started with and that DNS does not have: one of the ways in
//! which it can come to differ from Consul.

use crate::{
    edge::{SOON, Site},
    support::{ensure, eventually},
};
use std::fs;

#[test]
fn a_server_that_should_not_be_there_is_healed() {
    let site = Site::new();
    let hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    assert_eq!(edge.metric("divergences_total{side=\"haproxy\"}"), 0);

    // As if an earlier HAProxy had known a second server.
    let state = edge.ask("@1 show servers state").expect("an answer");
    let stray = state
        .replace(&format!(" {} ", hello1.address.ip()), " 127.9.9.9 ")
        .replace("7f", "7e");
    fs::write(site.directory.path().join("haproxy.state"), stray).expect("written");
    edge.ask("reload").expect("an answer");
    eventually(SOON, "HAProxy holds the stray server", || {
        let state = edge.ask("@1 show servers state")?;
        ensure(state.contains(" 127.9.9.9 "), || state)
    });
    eventually(SOON, "it is healed", || {
        let state = edge.ask("@1 show servers state")?;
        ensure(!state.contains(" 127.9.9.9 "), || state)
    });
    site.answers("/hello1/x", "hello1 /x");
    assert_eq!(edge.metric("divergences_total{side=\"haproxy\"}"), 1);
    edge.reloaded(1);
}
