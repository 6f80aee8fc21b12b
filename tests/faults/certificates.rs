//! A Consul over TLS, whose certificate runs out and is renewed.

use crate::{
    alone,
    asking::all_right,
    figure,
    support::{
        certificates::Authority,
        consul::{Consul, Options},
        dns::Query,
        ensure, eventually,
        portolan::{Launch, Portolan},
        wire::{rcode, rtype::A},
    },
    world::{Services, new_data},
};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// The name in Consul's certificates: its address is known only once it runs.
const NAME: &str = "server.dc1.consul";

/// The longest pause between two tries, and what new data take after it.
const RECOVERED: Duration = Duration::from_secs(7);

/// Makes an authority, and two certificates of Consul's: `expired` and `good`.
fn certificates() -> Authority {
    let authority = Authority::new();
    authority.issue_expired("expired", &format!("DNS:{NAME}"));
    authority.issue("good", &format!("DNS:{NAME}"));
    authority
}

/// Puts a certificate where Consul reads it, and has it read.
fn use_certificate(consul: Option<&Consul>, authority: &Authority, name: &str) {
    for (own, used) in [("pem", "certificate.pem"), ("key", "key.pem")] {
        let own = authority.path(&format!("{name}.{own}"));
        fs::copy(own, authority.path(used)).expect("a certificate and its key");
    }
    if let Some(consul) = consul {
        consul.put("/v1/agent/reload", &Value::Null);
    }
}

fn start(authority: &Authority) -> Consul {
    Consul::start_with(Options {
        https: true,
        extra: json!({ "ca_file": authority.path("ca.pem"),
            "cert_file": authority.path("certificate.pem"),
            "key_file": authority.path("key.pem") }),
        ..Options::default()
    })
}

fn beside(consul: &Consul, authority: &Authority) -> Launch {
    let authority = authority.path("ca.pem");
    Launch::new("serve")
        .args(["--consul", &consul.https_url(), "--upstream", "none"])
        .config(&format!(
            "[consul]\nca_file = {authority:?}\ntls_server_name = {NAME:?}\n"
        ))
}

/// Waits until the log says that it is the certificate.
fn wait_until_alarmed(portolan: &Portolan) {
    eventually(
        Duration::from_secs(10),
        "the log speaks of the certificate",
        || {
            let events = portolan.events();
            let alarm = events.iter().find(|event| {
                let text = event["fields"].to_string().to_lowercase();
                event["level"] != "INFO" && text.contains("certificate") && text.contains("expired")
            });
            ensure(alarm.is_some(), || format!("{} other lines", events.len()))
        },
    );
}

#[test]
fn an_expired_certificate_at_the_start_is_waited_out() {
    let _alone = alone();
    let authority = certificates();
    use_certificate(None, &authority, "expired");
    let consul = start(&authority);
    let services = Services::new("s", 20, 20);
    services.register(&consul);
    let portolan = beside(&consul, &authority).not_ready().start();
    wait_until_alarmed(&portolan);
    let reply = Query::new(&services.name(1), A).ask(portolan.dns());
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
    use_certificate(Some(&consul), &authority, "good");
    let righted = all_right(
        portolan.dns(),
        &services.questions(),
        Duration::from_secs(20),
    );
    figure(&format!(
        "names answered {righted:?} after a good certificate took an expired one's place"
    ));
    assert!(righted <= RECOVERED, "only after {righted:?}");
}

#[test]
fn a_certificate_that_expires_costs_no_name() {
    let _alone = alone();
    let authority = certificates();
    use_certificate(None, &authority, "good");
    let mut consul = start(&authority);
    let services = Services::new("s", 20, 20);
    services.register(&consul);
    let portolan = beside(&consul, &authority).start();
    let questions = services.questions();
    all_right(portolan.dns(), &questions, Duration::from_secs(10));
    new_data(&consul, portolan.dns(), "fresh", 1);

    // Connections that are open stay good, so it is a restart that shows the certificate.
    use_certificate(None, &authority, "expired");
    consul.restart();
    consul.wait_until_ready();
    wait_until_alarmed(&portolan);
    all_right(portolan.dns(), &questions, Duration::from_secs(1));
    let absent = Query::new("absent.service.consul", A).ask(portolan.dns());
    assert_eq!(absent.rcode(), rcode::NXDOMAIN, "{}", absent.summary());

    use_certificate(Some(&consul), &authority, "good");
    let late = new_data(&consul, portolan.dns(), "fresh", 2);
    all_right(portolan.dns(), &questions, Duration::from_secs(1));
    figure(&format!(
        "new data was seen {late:?} after an expired certificate was renewed"
    ));
    assert!(late <= RECOVERED, "new data was seen after {late:?}");
}
