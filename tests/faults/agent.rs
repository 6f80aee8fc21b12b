//! `--from-agent` beside an agent that is away when Portolan starts, comes later, or changes.

use crate::{
    alone, figure,
    support::{
        consul::{Consul, Options, instance},
        directory,
        dns::Query,
        ensure, eventually,
        fake_consul::{FakeConsul, Lie},
        portolan::{Launch, Portolan},
        wire::rtype::{A, SOA},
    },
};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

/// Whatever has to happen has happened by then, on the slowest machine.
const SOON: Duration = Duration::from_secs(30);

/// A Consul with settings that are not its defaults.
fn consul() -> Consul {
    let consul = Consul::start_with(Options {
        extra: json!({ "alt_domain": "other", "dns_config": { "node_ttl": "17s",
            "service_ttl": { "*": "23s" }, "only_passing": true } }),
        ..Options::default()
    });
    let web = json!({ "Service": "web", "Address": "10.1.0.1", "Port": 80 });
    consul.register(&instance("n1", "10.0.0.1", &web));
    let mut warned = instance("n2", "10.0.0.2", &json!({ "Service": "web", "Port": 80 }));
    warned["Check"] = json!({ "CheckID": "c", "Name": "a check", "Node": "n2", "ServiceID": "web",
        "Status": "warning" });
    consul.register(&warned);
    consul
}

fn launch(consul: &str, state: Option<&Path>) -> Launch {
    let launch = Launch::new("serve")
        .args(["--from-agent", "--consul", consul, "--upstream", "none"])
        .not_ready();
    match state {
        Some(state) => launch.args(["--state-dir".as_ref(), state.as_os_str()]),
        None => launch,
    }
}

/// Does it answer as the agent of `consul()` has it?
fn is_the_agents(portolan: &Portolan) -> Result<(), String> {
    for (name, address, ttl) in [
        ("web.service.consul", "10.1.0.1", 23),
        ("web.service.other", "10.1.0.1", 23),
        ("n1.node.consul", "10.0.0.1", 17),
    ] {
        let reply = Query::new(name, A).try_ask(portolan.dns())?;
        let ttls: Vec<u32> = reply.answers.iter().map(|record| record.ttl).collect();
        let is_right = reply.data() == [address] && ttls == [ttl];
        ensure(is_right, || format!("{ttls:?}: {}", reply.summary()))?;
    }
    Ok(())
}

/// Has it read its configuration again, and waits until it has.
fn reads_again(portolan: &Portolan) {
    portolan.signal("HUP");
    eventually(SOON, "the configuration is read again", || {
        let log = portolan.log();
        ensure(log.contains("read again"), || log)
    });
}

/// An old life's settings are those of the next, with Consul or without.
#[test]
fn the_agents_settings_outlive_a_restart() {
    let _alone = alone();
    let place = directory();
    let state = place.path().join("state");
    let mut consul = consul();
    let portolan = launch(&consul.url(), Some(&state)).start();
    portolan.wait_until_ready();
    eventually(SOON, "the agent's settings hold", || {
        is_the_agents(&portolan)
    });
    assert!(portolan.stop().status.success());
    let file = fs::metadata(state.join("agent.state")).expect("it is remembered");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert!(
        file.is_file() && file.len() < 10_000,
        "{} bytes",
        file.size()
    );

    consul.kill();
    let start = Instant::now();
    let portolan = launch(&consul.url(), Some(&state)).start();
    let first = is_the_agents(&portolan);
    assert_eq!(first, Ok(()), "the first answers without Consul");
    figure(&format!(
        "with Consul away the agent's settings held after {:?}",
        start.elapsed()
    ));
    let log = portolan.log();
    let told = "cannot read the agent's dns_config; using what it was";
    assert!(log.contains(told), "{log}");
    // A SIGHUP meanwhile takes nothing away.
    reads_again(&portolan);
    assert_eq!(is_the_agents(&portolan), Ok(()));

    // What cannot be used is no reason not to start.
    drop(portolan);
    fs::write(state.join("agent.state"), "{\"DNSDomain\":").expect("damaging it");
    let portolan = launch(&consul.url(), Some(&state)).start();
    let reply = Query::new("n1.node.consul", A).ask(portolan.dns());
    assert_eq!(reply.answers.first().map(|record| record.ttl), Some(5));
    let log = portolan.log();
    assert!(
        log.contains("what the agent's dns_config was cannot be read"),
        "{log}"
    );
    // The agent puts that right.
    consul.restart();
    eventually(SOON, "the agent is heard", || is_the_agents(&portolan));
    eventually(SOON, "it is remembered anew", || {
        let text = fs::read_to_string(state.join("agent.state"));
        let text = text.map_err(|error| error.to_string())?;
        ensure(text.contains("\"other"), || text)
    });
}

#[test]
fn an_agent_that_comes_later_is_heard() {
    let _alone = alone();
    let mut consul = consul();
    consul.kill();
    let portolan = launch(&consul.url(), None).start();
    let log = portolan.log();
    let told = "cannot read the agent's dns_config; using Portolan's own defaults";
    assert!(log.contains(told), "{log}");
    // That it is asked in vain once more keeps nobody from asking it when it is there.
    reads_again(&portolan);
    consul.restart();
    consul.wait_until_ready();
    let start = Instant::now();
    eventually(SOON, "the agent is heard", || is_the_agents(&portolan));
    figure(&format!(
        "an agent that came later was heard {:?} after it was there",
        start.elapsed()
    ));
    let log = portolan.log();
    assert_eq!(
        log.matches("using the agent's dns_config").count(),
        1,
        "{log}"
    );
    assert_eq!(log.matches(told).count(), 1, "{log}");
}

/// The agent has other settings, or refuses to tell: SIGHUP asks it again, and a refusal changes nothing.
#[test]
fn sighup_asks_the_agent_again() {
    let _alone = alone();
    let fake = FakeConsul::start();
    let says = |seconds: u32| {
        let body = json!({ "Config": { "Version": "1.8.7" }, "DebugConfig": { "DNSDomain": "consul.",
            "DNSSOA": { "Minttl": seconds, "Refresh": 3600, "Retry": 600, "Expire": 86400 } } });
        fake.repent();
        fake.tell("/v1/agent/self", usize::MAX, Lie::body(&body.to_string()));
    };
    says(7);
    let portolan = launch(&fake.url(), None).start();
    let min_ttl = || {
        let reply = Query::new("consul", SOA).ask(portolan.dns());
        let soa = reply.data().first().cloned().unwrap_or_default();
        soa.rsplit(' ')
            .next()
            .map(str::to_owned)
            .unwrap_or_default()
    };
    portolan.wait_until_ready();
    assert_eq!(min_ttl(), "7");
    let reload = |times: usize| {
        portolan.signal("HUP");
        eventually(SOON, "the configuration is read again", || {
            let log = portolan.log();
            let count = log
                .matches("configuration, token and zones read again")
                .count();
            ensure(count == times, || log)
        });
    };
    says(9);
    assert_eq!(min_ttl(), "7", "nobody has asked");
    reload(1);
    assert_eq!(min_ttl(), "9");
    fake.repent();
    fake.tell(
        "/v1/agent/self",
        usize::MAX,
        Lie::status(403, "Permission denied"),
    );
    reload(2);
    assert_eq!(min_ttl(), "9", "a refusal takes nothing away");
    // One that hangs delays neither the reload for long nor the end.
    fake.repent();
    fake.tell(
        "/v1/agent/self",
        usize::MAX,
        Lie::stall(Duration::from_secs(60)),
    );
    portolan.signal("HUP");
    let ended = portolan.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
}
