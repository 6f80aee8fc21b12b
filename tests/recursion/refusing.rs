//! Who is not recursed for, and upstreams that are refused at the start.

use crate::{
    good, launch, portolan,
    support::{
        directory,
        dns::{self, Query},
        free_ports, own_loopback,
        portolan::{Launch, run_to_end},
        wire::{rcode, rtype::A},
        write_file,
    },
};

#[test]
fn without_rd_nothing_is_forwarded() {
    let upstream = good();
    let portolan = portolan(&[&upstream]);
    let query = Query::new("www.test", A).no_recursion();
    for query in [query.clone(), query.edns(1232).tcp()] {
        let reply = query.ask(portolan.dns());
        assert_eq!(reply.rcode(), rcode::REFUSED, "{}", reply.summary());
    }
    assert_eq!(upstream.seen(), []);
}

/// Never an open resolver: recursion is for those on the list, our own names are for everybody.
#[test]
fn clients_off_the_list_are_not_recursed_for() {
    let upstream = good();
    let files = directory();
    let config = write_file(
        files.path(),
        "portolan.toml",
        "[recursion]\nallow = [\"192.0.2.0/24\"]\n",
    );
    let portolan = launch(&[&upstream])
        .args(["--config".into(), config.into_os_string()])
        .start();
    for query in [Query::new("www.test", A), Query::new("www.test", A).tcp()] {
        let reply = query.ask(portolan.dns());
        assert_eq!(reply.rcode(), rcode::REFUSED, "{}", reply.summary());
    }
    assert_eq!(upstream.seen(), []);
    let own = dns::ask(portolan.dns(), "web.service.consul", A);
    assert_ne!(own.rcode(), rcode::REFUSED, "{}", own.summary());
}

#[test]
fn with_no_upstream_other_names_are_refused() {
    let portolan = Launch::new("serve")
        .args(["--consul", "none", "--upstream", "none"])
        .start();
    let reply = dns::ask(portolan.dns(), "www.test", A);
    assert_eq!(reply.rcode(), rcode::REFUSED, "{}", reply.summary());
    assert!(!reply.ra(), "{}", reply.summary());
}

/// An upstream that is ourselves would be asked by itself, for ever.
#[test]
fn an_upstream_that_is_ourselves_is_refused() {
    let ip = own_loopback();
    let [port] = free_ports(ip);
    let address = format!("{ip}:{port}");
    // By its very address, and through a listener on every address.
    for listen in [address.clone(), format!("0.0.0.0:{port}")] {
        let outcome = run_to_end(
            &[
                "serve",
                "--consul",
                "none",
                "--admin",
                "none",
                "--listen",
                &listen,
                "--upstream",
                &address,
            ],
            &[],
        );
        assert!(
            matches!(outcome.code, Some(1 | 78)),
            "{listen}: {outcome:?}"
        );
        let line = outcome.last_line();
        assert!(
            line.contains(&address),
            "{listen}: which upstream? {outcome:?}"
        );
    }
}
