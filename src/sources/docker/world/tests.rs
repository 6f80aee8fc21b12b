//! Events, lists and inspections in every order.

use serde_json::{Value, json};

use super::*;

fn inspected(id: &str, state: &Value) -> Arc<Container> {
    let json = json!({ "Id": id, "Name": format!("/{id}"), "State": state });
    Arc::new(Container::from_inspect(json.to_string().as_bytes()).expect("an inspection"))
}

fn running(id: &str) -> Option<Arc<Container>> {
    Some(inspected(id, &json!({ "Status": "running" })))
}

fn exited(id: &str, code: i64) -> Option<Arc<Container>> {
    Some(inspected(
        id,
        &json!({ "Status": "exited", "ExitCode": code }),
    ))
}

fn list(elements: &[(&str, &str, &str)]) -> Vec<Summary> {
    elements
        .iter()
        .map(|(id, state, status)| {
            let json = json!({
                "Id": id, "Names": [format!("/{id}"), "/other/link"], "State": state, "Status": status
            });
            serde_json::from_value(json).expect("an element of a list")
        })
        .collect()
}

fn event(container: &str, what: What) -> Event {
    Event {
        what,
        container: container.to_owned(),
    }
}

fn signal(container: &str, signal: &str) -> Event {
    event(container, What::Signalled(signal.to_owned()))
}

fn died(container: &str, exit_code: i64) -> Event {
    let what = What::Died {
        name: container.to_owned(),
        exit_code: Some(exit_code),
    };
    event(container, what)
}

fn names(world: &World) -> Vec<String> {
    let containers = world.snapshot().containers;
    containers
        .iter()
        .map(|container| container.name.clone())
        .collect()
}

/// What has to be inspected, all of it.
fn due(world: &mut World) -> Vec<String> {
    std::iter::from_fn(|| world.next_to_inspect(usize::MAX)).collect()
}

/// A world in which these containers run.
fn world_with(deregister: Deregister, ids: &[&str]) -> World {
    let mut world = World::new(deregister);
    let elements: Vec<_> = ids
        .iter()
        .map(|id| (*id, "running", "Up 1 second"))
        .collect();
    world.listed(&list(&elements));
    for id in due(&mut world) {
        world.inspected(&id, running(&id));
    }
    assert!(world.is_settled());
    assert_eq!(names(&world), ids);
    world
}

#[test]
fn a_list_that_says_what_is_known_asks_for_nothing() {
    let mut world = world_with(Deregister::Always, &["a", "b"]);
    world.listed(&list(&[
        ("a", "running", "Up 2 hours"),
        ("b", "paused", "Up 2 hours (Paused)"),
    ]));
    assert_eq!(due(&mut world), Vec::<String>::new());
}

#[test]
fn a_list_makes_up_for_lost_events() {
    let mut world = world_with(Deregister::Always, &["a", "b", "c"]);
    // a got a name or a health that is not known, b is gone, d is new.
    let healthy = "Up 2 seconds (healthy)";
    world.listed(&list(&[
        ("a", "running", healthy),
        ("c", "running", "Up 1 hour"),
        ("d", "running", "Up 1 second"),
    ]));
    // Until it is known what became of them, they are as they were.
    assert_eq!(names(&world), ["a", "b", "c"]);
    assert_eq!(world.snapshot().unknown.keys().collect::<Vec<_>>(), ["d"]);
    assert_eq!(due(&mut world), ["a", "b", "d"]);
    world.inspected("b", None);
    world.not_inspected("d");
    assert_eq!(names(&world), ["a", "c"]);
    assert_eq!(
        world.snapshot().unknown.len(),
        1,
        "it runs, and nothing is known of it"
    );
}

#[test]
fn a_list_that_is_older_than_an_event_does_no_harm() {
    let mut world = world_with(Deregister::Always, &["a"]);
    let now = Instant::now();
    // The list was made before b started and a died, and arrives after.
    assert!(world.event(event("b", What::Started), now));
    assert!(world.event(died("a", 0), now));
    for id in due(&mut world) {
        world.inspected(
            &id,
            if id == "b" {
                running("b")
            } else {
                exited("a", 0)
            },
        );
    }
    world.listed(&list(&[("a", "running", "Up 1 second")]));
    assert_eq!(names(&world), ["b"]);
    for id in due(&mut world) {
        world.inspected(
            &id,
            if id == "b" {
                running("b")
            } else {
                exited("a", 0)
            },
        );
    }
    assert_eq!(names(&world), ["b"]);
}

#[test]
fn an_event_during_an_inspection_is_a_reason_for_another() {
    let mut world = world_with(Deregister::Always, &["a"]);
    let now = Instant::now();
    world.event(event("a", What::Changed), now);
    assert_eq!(due(&mut world), ["a"]);
    world.event(event("a", What::Changed), now);
    assert_eq!(due(&mut world), Vec::<String>::new(), "one at a time");
    world.inspected("a", running("a"));
    assert_eq!(due(&mut world), ["a"]);
}

#[test]
fn a_network_is_joined_before_the_start_and_that_is_no_reason_to_look() {
    let mut world = world_with(Deregister::Always, &[]);
    let now = Instant::now();
    assert!(!world.event(event("a", What::Changed), now));
    assert!(world.event(event("a", What::Started), now));
    assert_eq!(due(&mut world), ["a"]);
}

#[test]
fn what_is_told_to_stop_is_gone_at_once_and_back_if_it_does_not() {
    let mut world = world_with(Deregister::Always, &["a", "b"]);
    let now = Instant::now();
    assert!(world.event(signal("a", "15"), now));
    assert_eq!(names(&world), ["b"]);
    let until = world.next_reprieve().expect("a moment");
    assert_eq!(until - now, STOP_TIME + STOP_GRACE);
    world.reprieve(now + STOP_TIME);
    assert_eq!(names(&world), ["b"]);
    world.reprieve(until);
    assert_eq!(due(&mut world), ["a"]);
    world.inspected("a", running("a"));
    assert_eq!(names(&world), ["a", "b"]);
    assert_eq!(world.next_reprieve(), None);
}

#[test]
fn signals_that_end_nothing_change_nothing() {
    let mut world = world_with(Deregister::Always, &["a"]);
    for harmless in ["1", "10", "SIGUSR2", "28", "3", "", "none"] {
        assert!(
            !world.event(signal("a", harmless), Instant::now()),
            "{harmless}"
        );
        assert_eq!(names(&world), ["a"]);
    }
    for deadly in ["2", "9", "15", "SIGTERM", "kill"] {
        let mut world = world_with(Deregister::Always, &["a"]);
        world.event(signal("a", deadly), Instant::now());
        assert_eq!(names(&world), Vec::<String>::new(), "{deadly}");
    }
}

#[test]
fn the_stop_signal_of_a_container_ends_it() {
    for (configured, sent) in [
        ("SIGQUIT", "3"),
        ("3", "QUIT"),
        ("RTMIN+3", "37"),
        ("HUP", "1"),
    ] {
        let json = json!({
            "Id": "a", "Name": "/a", "State": { "Status": "running" },
            "Config": { "StopSignal": configured, "StopTimeout": 60 }
        });
        let container = Container::from_inspect(json.to_string().as_bytes());
        let mut world = World::new(Deregister::Always);
        world.inspected("a", container.ok().map(Arc::new));
        let now = Instant::now();
        assert!(world.event(signal("a", sent), now), "{configured} {sent}");
        assert_eq!(names(&world), Vec::<String>::new());
        let until = world.next_reprieve().expect("a moment");
        assert_eq!(until - now, Duration::from_secs(65));
    }
}

#[test]
fn a_restart_is_a_death_and_a_start() {
    let mut world = world_with(Deregister::OnSuccess, &["a"]);
    let now = Instant::now();
    world.event(signal("a", "15"), now);
    world.event(died("a", 1), now);
    assert_eq!(world.snapshot().failed.len(), 1);
    world.event(event("a", What::Started), now);
    assert_eq!(due(&mut world), ["a"]);
    world.inspected("a", running("a"));
    assert_eq!(names(&world), ["a"]);
    assert_eq!(world.snapshot().failed.len(), 0);
}

#[test]
fn who_failed_is_kept_on_request_while_it_exists() {
    for (code, is_kept) in [
        (0, false),
        (1, true),
        (127, true),
        (137, false),
        (143, false),
        (255, false),
    ] {
        let mut world = world_with(Deregister::OnSuccess, &["a"]);
        world.event(died("a", code), Instant::now());
        assert_eq!(world.snapshot().failed.contains_key("a"), is_kept, "{code}");
        world.inspected("a", exited("a", code));
        assert_eq!(world.snapshot().failed.contains_key("a"), is_kept, "{code}");
        // The list tells too, for a death that nobody saw.
        let mut world = world_with(Deregister::OnSuccess, &["a"]);
        world.listed(&list(&[(
            "a",
            "exited",
            &format!("Exited ({code}) 2 minutes ago"),
        )]));
        assert_eq!(world.snapshot().failed.contains_key("a"), is_kept, "{code}");
        assert!(world.event(event("a", What::Removed), Instant::now()));
        assert_eq!(world.snapshot().failed.len(), 0);
    }
    let mut world = world_with(Deregister::Always, &["a"]);
    world.event(died("a", 1), Instant::now());
    assert_eq!(world.snapshot().failed.len(), 0);
}

#[test]
fn an_inspection_that_hangs_holds_up_nobody() {
    let mut world = World::new(Deregister::Always);
    world.listed(&list(&[("a", "running", ""), ("b", "running", "")]));
    assert_eq!(world.next_to_inspect(1).as_deref(), Some("a"));
    assert_eq!(world.next_to_inspect(1), None, "so many at a time");
    assert_eq!(world.next_to_inspect(2).as_deref(), Some("b"));
    world.inspected("b", running("b"));
    assert_eq!(names(&world), ["b"]);
    assert!(!world.is_settled());
    world.interrupted();
    assert_eq!(due(&mut world), ["b"], "of what runs nothing is certain");
}

/// A container at an address and a port of the host, since a moment.
fn placed(id: &str, address: &str, port: u16, started_at: &str) -> Option<Arc<Container>> {
    let json = json!({
        "Id": id, "Name": format!("/{id}"),
        "State": { "Status": "running", "StartedAt": started_at },
        "NetworkSettings": {
            "Ports": { "80/tcp": [
                { "HostIp": "0.0.0.0", "HostPort": port.to_string() },
                { "HostIp": "::", "HostPort": port.to_string() },
            ], "443/tcp": null },
            "Networks": { "bridge": { "IPAddress": address, "GlobalIPv6Address": "" } },
        },
    });
    let container = Container::from_inspect(json.to_string().as_bytes());
    Some(Arc::new(container.expect("an inspection")))
}

/// What a list says of the container `a`, with these ports and networks.
fn listed(ports: &Value, networks: &Value) -> [Summary; 1] {
    let json = json!({
        "Id": "a", "Names": ["/a"], "State": "running", "Status": "Up 1 second",
        "Ports": ports, "NetworkSettings": { "Networks": networks },
    });
    [serde_json::from_value(json).expect("an element of a list")]
}

#[test]
fn a_restart_that_nobody_saw_is_noticed() {
    let ports = |port: u16| {
        json!([
            { "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": port, "Type": "tcp" },
            { "IP": "::", "PrivatePort": 80, "PublicPort": port, "Type": "tcp" },
            { "PrivatePort": 443, "Type": "tcp" },
        ])
    };
    let networks =
        |address: &str| json!({ "bridge": { "IPAddress": address, "GlobalIPv6Address": "" } });
    let mut world = World::new(Deregister::Always);
    world.inspected("a", placed("a", "172.17.0.2", 32768, "1"));
    // Nothing has changed, or the list does not say.
    for (ports, networks) in [
        (ports(32768), networks("172.17.0.2")),
        (Value::Null, Value::Null),
        (ports(32768), json!({ "bridge": null })),
        (ports(32768), json!({ "bridge": {} })),
    ] {
        world.listed(&listed(&ports, &networks));
        assert_eq!(due(&mut world), Vec::<String>::new(), "{ports} {networks}");
    }
    for (ports, networks) in [
        (ports(32769), networks("172.17.0.2")),
        (ports(32768), networks("172.17.0.3")),
        (ports(32768), json!({ "other": {} })),
    ] {
        world.listed(&listed(&ports, &networks));
        assert_eq!(due(&mut world), ["a"], "{ports} {networks}");
        // An inspection that failed is no answer.
        world.not_inspected("a");
        world.listed(&listed(&ports, &networks));
        assert_eq!(due(&mut world), ["a"], "{ports} {networks}");
        // It is as it was: then the two differ for good, and one look is enough.
        world.inspected("a", placed("a", "172.17.0.2", 32768, "1"));
        world.listed(&listed(&ports, &networks));
        assert_eq!(due(&mut world), Vec::<String>::new(), "{ports} {networks}");
    }
}

#[test]
fn who_was_told_to_stop_and_started_since_runs() {
    let mut world = World::new(Deregister::Always);
    world.inspected("a", placed("a", "172.17.0.2", 32768, "1"));
    world.event(signal("a", "15"), Instant::now());
    // It still ends.
    world.inspected("a", placed("a", "172.17.0.2", 32768, "1"));
    assert_eq!(names(&world), Vec::<String>::new());
    world.interrupted();
    assert_eq!(due(&mut world), ["a"]);
    world.inspected("a", placed("a", "172.17.0.3", 32769, "2"));
    assert_eq!(names(&world), ["a"]);
}

#[test]
fn who_waits_for_a_restart_has_failed_too() {
    let mut world = world_with(Deregister::OnSuccess, &["a"]);
    let waits = [("a", "restarting", "Restarting (1) 3 seconds ago")];
    for _ in 0..2 {
        world.listed(&list(&waits));
        for id in due(&mut world) {
            let state = json!({ "Status": "restarting", "ExitCode": 1 });
            world.inspected(&id, Some(inspected(&id, &state)));
        }
        assert_eq!(names(&world), Vec::<String>::new());
        assert_eq!(world.snapshot().failed.len(), 1);
    }
}
