//! The behaviour of the system that is replaced.

use crate::{
    backends::Backend,
    edge::{SOON, Site},
    support::{ensure, eventually, http},
};
use std::time::Duration;

#[test]
fn services_by_path_and_settings_by_key() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    let _hello2 = site.service("Hello2");
    let other = Backend::start("other");
    site.register("other", "internal", &other);
    let edge = site.start();

    site.answers("/hello1/x", "hello1 /x");
    site.answers("/hello2/y/z?q=/1", "Hello2 /y/z?q=/1");
    site.answers("/hello1", "hello1 /");
    site.answers("/hello1/", "hello1 /");
    site.answers("/HELLO1/X", "hello1 /X");
    for path in [
        "/hello1x",
        "/hello1x/y",
        "/other/x",
        "/",
        "/x/hello1",
        "/portolan:statistics",
    ] {
        assert_eq!(site.get(path).expect("an answer").0, 404, "{path}");
    }
    assert_eq!(edge.reloads(), 0);

    site.set_key("maxconn", "321");
    site.set_key("timeouts/client", "7s");
    eventually(Duration::from_secs(2), "the settings are there", || {
        ensure(edge.info("Maxconn")? == "321", || "maxconn".to_owned())?;
        ensure(site.config().contains("timeout client 7s"), || {
            site.config()
        })
    });
    site.answers("/hello1/x", "hello1 /x");
}

#[test]
fn statistics_with_credentials_from_a_key() {
    let site = Site::new();
    let edge = site.start();
    let status = |credentials: &str| {
        let header = "/ HTTP/1.0\r\nAuthorization: Basic ".to_owned() + credentials + "\r\nX: ";
        http::get(site.stats, header.trim_end()).map(|response| response.status)
    };
    assert_eq!(http::get(site.stats, "/").expect("an answer").status, 200);
    assert!(!site.config().contains("stats auth"), "{}", site.config());
    site.set_key("stats/auth", "me:it's #1");
    edge.says("stats/auth");
    // Base64 of `me:secret`.
    site.set_key("stats/auth", "me:secret");
    eventually(SOON, "it asks for credentials", || {
        let without = http::get(site.stats, "/")?.status;
        let with = status("bWU6c2VjcmV0")?;
        ensure((without, with) == (401, 200), || {
            format!("{without}, {with}")
        })
    });
}

/// What comes within a moment is one change.
#[test]
fn changes_in_a_row_are_one_reload() {
    let site = Site::new();
    let edge = site.start();
    let timeouts = ["client", "server", "connect", "queue", "check"];
    let _services = ["a", "b", "c"].map(|name| site.service(name));
    for timeout in timeouts {
        site.set_key(&format!("timeouts/{timeout}"), "6s");
    }
    eventually(SOON, "all of it is there", || {
        let config = site.config();
        let is_there = |timeout: &&str| config.contains(&format!("timeout {timeout} 6s\n"));
        let all = timeouts.iter().all(is_there);
        ensure(all && config.contains("backend c\n"), || config)
    });
    edge.reloaded(1);
}
