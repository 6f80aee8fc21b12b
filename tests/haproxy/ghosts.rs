//! No server that is gone comes back with a reload, whatever name its line asks for; and nothing is left out in silence.

use crate::{
    backends::Backend,
    edge::{Edge, SOON, Site},
    scaling::haproxy_3,
    support::{consul::instance, ensure, eventually, program, write_file},
};
use serde_json::json;
use std::{path::PathBuf, thread, time::Duration};

const TEMPLATE: &str = "global
  server-state-file {{ state_file }}
  hard-stop-after 5m
defaults
  mode http
  load-server-state-from-file global
  timeout connect 5s
  timeout client {{ key_or('client', '9s') }}
  timeout server 9s
resolvers portolan
  nameserver portolan {{ resolver }}
  accepted_payload_size 8192
  timeout resolve 1s
  hold obsolete 0s
frontend f
  bind {{ bind }}
  use_backend %[path,field(2,/)]
backend blue
  server-template s 4 _web._blue.service.{{ domain }} resolvers portolan resolve-prefer ipv4 init-addr last,none
backend here
  server-template s 4 _web._tcp.service.dc1.{{ domain }} resolvers portolan resolve-prefer ipv4 init-addr last,none
backend address
  server-template s 4 blue.web.service.{{ domain }}:{{ key('port') }} resolvers portolan resolve-prefer ipv4 init-addr last,none
";

/// The addresses that a backend of HAProxy's has.
fn held(edge: &Edge, backend: &str) -> Vec<String> {
    // Nobody is there for a moment of a reload.
    let state = eventually(SOON, "HAProxy says", || {
        edge.ask(&format!("@1 show servers state {backend}"))
    });
    let rows = state
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() > 5 && row[1] == backend && row[4] != "-");
    rows.map(|row| row[4].to_owned()).collect()
}

fn holds(edge: &Edge, backend: &str, expected: &[&Backend]) {
    let mut expected: Vec<String> = expected
        .iter()
        .map(|backend| backend.address.ip().to_string())
        .collect();
    expected.sort();
    eventually(SOON, &format!("{backend} has its servers"), || {
        let mut found = held(edge, backend);
        found.sort();
        ensure(found == expected, || format!("{found:?}, not {expected:?}"))
    });
}

fn what_is_gone_stays_gone(haproxy: PathBuf) {
    let site = Site::new().with_haproxy(haproxy);
    let backends = ["one", "two"].map(Backend::start);
    let [one, two] = &backends;
    let enter = |backend: &Backend, tag: &str| site.register("web", tag, backend);
    enter(one, "blue");
    enter(two, "blue");
    site.set_key("port", &one.address.port().to_string());
    let file = write_file(site.directory.path(), "edge.j2", TEMPLATE);
    let edge = site.launch(&["--template", &file.display().to_string()]);
    edge.wait_until_ready();
    // The template's own backends.
    edge.says("3 backends");
    for backend in ["blue", "here", "address"] {
        holds(&edge, backend, &[one, two]);
    }
    // Right after that it goes, and something else is a reload: the new process may not take what is gone from the old one.
    for round in 0..3 {
        enter(two, "green");
        holds(&edge, "blue", &[one]);
        site.set_key("client", &format!("{}s", 10 + round));
        edge.reloaded(round + 1);
        assert_eq!(held(&edge, "blue"), [one.address.ip().to_string()]);
        holds(&edge, "address", &[one]);
        holds(&edge, "here", &[one, two]);
        enter(two, "blue");
        holds(&edge, "blue", &[one, two]);
    }
    // A reload that is not ours finds what there was a moment ago.
    enter(two, "green");
    site.consul.deregister("w", "two");
    for backend in ["blue", "here", "address"] {
        holds(&edge, backend, &[one]);
    }
    let file = site.directory.path().join("haproxy.state");
    eventually(SOON, "it is written down", || {
        let state = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let ip = format!(" {} ", two.address.ip());
        ensure(!state.contains(&ip), || state)
    });
    edge.ask("reload").expect("an answer");
    thread::sleep(Duration::from_secs(1));
    for backend in ["blue", "here", "address"] {
        holds(&edge, backend, &[one]);
    }
    assert_eq!(edge.reloads(), 3);
}

#[test]
fn what_is_gone_stays_gone_with_haproxy_2() {
    what_is_gone_stays_gone(program("haproxy"));
}

#[test]
fn what_is_gone_stays_gone_with_haproxy_3() {
    what_is_gone_stays_gone(haproxy_3());
}

/// As it is with a process of before that had it from a file: no line of the usual name would show that.
#[test]
fn a_ghost_of_another_name_is_healed() {
    let site = Site::new();
    let one = Backend::start("one");
    site.register("web", "blue", &one);
    site.set_key("port", "80");
    let file = write_file(site.directory.path(), "edge.j2", TEMPLATE);
    let edge = site.launch(&["--template", &file.display().to_string()]);
    edge.wait_until_ready();
    holds(&edge, "blue", &[&one]);
    let state = edge.ask("@1 show servers state").expect("an answer");
    let ip = one.address.ip();
    let stray = state
        .replace(&format!(" {ip} "), " 127.9.9.9 ")
        .replace("7f", "7e");
    std::fs::write(site.directory.path().join("haproxy.state"), stray).expect("written");
    edge.ask("reload").expect("an answer");
    eventually(SOON, "HAProxy holds the stray server", || {
        let held = held(&edge, "blue");
        ensure(held.contains(&"127.9.9.9".to_owned()), || {
            format!("{held:?}")
        })
    });
    holds(&edge, "blue", &[&one]);
    edge.reloaded(1);
}

/// HAProxy cannot ask for every name that Consul takes.
#[test]
fn a_service_without_a_backend_is_told() {
    let site = Site::new();
    let _web = site.service("web");
    let edge = site.start();
    edge.says("1 backends");
    for name in ["rest.web", &"x".repeat(63)] {
        let entry = json!({ "Service": name, "ID": name, "Port": 80, "Tags": ["rest"] });
        site.consul.register(&instance("w", "127.0.0.1", &entry));
        let (status, body) = edge.says(name);
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(edge.metric("left_out_services"), 2);
    let told = || {
        let events = edge.events().into_iter();
        events
            .filter(|event| event["fields"]["service"] == "rest.web")
            .count()
    };
    assert_eq!(told(), 1, "once");
    site.consul.deregister("w", "rest.web");
    eventually(SOON, "it is gone", || {
        let left_out = edge.metric("left_out_services");
        ensure(left_out == 1, || left_out.to_string())
    });
    site.answers("/web/x", "web /x");
}

/// What was last accepted is known to the next process, not what is refused.
#[test]
fn a_refused_value_is_not_a_default_after_a_restart() {
    let site = Site::new();
    site.set_key("maxconn", "500");
    site.set_key("balance", "leastconn");
    let _web = site.service("web");
    let mut edge = site.start();
    site.answers("/web/x", "web /x");
    assert!(site.config().contains("maxconn 500\n"));
    site.set_key("maxconn", "many");
    edge.says("service/haproxy/maxconn: ");
    for is_crash in [false, true] {
        if is_crash {
            edge.kill();
        }
        drop(edge);
        edge = site.start();
        edge.says("service/haproxy/maxconn: ");
        site.answers("/web/x", "web /x");
        let config = site.config();
        assert!(config.contains("maxconn 500\n"), "{is_crash}: {config}");
        assert!(
            config.contains("balance leastconn\n"),
            "{is_crash}: {config}"
        );
    }
}
