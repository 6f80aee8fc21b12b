//! Resolvers that check signatures, with Portolan between them and the servers: they see what they would
//! see without it.

use crate::{
    servers::{Server, portolan},
    signed::{QUESTIONS, Tree},
    support::{dig::dig, program},
};
use std::{net::SocketAddr, process::Command};

/// What dig shows of an answer: status, AD, and the records without their TTLs, which run down.
fn told(server: SocketAddr, name: &str, rtype: &str, flags: &[&str]) -> Vec<String> {
    let arguments = [&[name, rtype][..], flags].concat();
    let said = dig(server, &arguments);
    let mut told = vec![
        said.status,
        format!("ad: {}", said.flags.contains(&"ad".to_owned())),
    ];
    let records = [said.answer, said.authority].concat().into_iter();
    let mut records: Vec<String> = records.map(|record| without_ttl(&record)).collect();
    records.sort();
    told.extend(records);
    told
}

fn without_ttl(record: &str) -> String {
    let words = record.split_whitespace().enumerate();
    let words = words.filter(|(at, _)| *at != 1).map(|(_, word)| word);
    words.collect::<Vec<_>>().join(" ")
}

/// Asks two resolvers the same, one behind Portolan and one that asks named itself.
fn all_the_same(kind: &str, through_us: SocketAddr, directly: SocketAddr) {
    let mut wrong = Vec::new();
    let mut authentic = 0;
    for (name, rtype) in QUESTIONS {
        for flags in [&["+dnssec"][..], &[], &["+cd", "+dnssec"], &["+adflag"]] {
            let ours = told(through_us, name, rtype, flags);
            let theirs = told(directly, name, rtype, flags);
            authentic += usize::from(theirs[1] == "ad: true");
            if ours != theirs {
                wrong.push(format!(
                    "{name} {rtype} {flags:?}\n  through us: {ours:#?}\n  directly: {theirs:#?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{kind}: {}", wrong.join("\n"));
    assert!(
        authentic > 40,
        "{kind} has found {authentic} answers to be authentic"
    );
}

#[test]
fn unbound_checks_as_it_would_without_us() {
    let tree = Tree::new();
    let portolan = portolan(&[tree.named.address]);
    let anchor = format!("  trust-anchor-file: \"{}\"\n", tree.anchor.display());
    let through_us = Server::unbound(portolan.dns(), &anchor);
    let directly = Server::unbound(tree.named.address, &anchor);
    all_the_same("Unbound", through_us.address, directly.address);
}

#[test]
fn knot_resolver_checks_as_it_would_without_us() {
    let tree = Tree::new();
    let portolan = portolan(&[tree.named.address]);
    let through_us = Server::kresd(portolan.dns(), &tree.anchor);
    let directly = Server::kresd(tree.named.address, &tree.anchor);
    all_the_same("Knot Resolver", through_us.address, directly.address);
}

#[test]
fn delv_checks_as_it_would_without_us() {
    let tree = Tree::new();
    let portolan = portolan(&[tree.named.address]);
    let delv = |server: SocketAddr, name: &str, rtype: &str| -> Vec<String> {
        let output = Command::new(program("delv"))
            .arg("-a")
            .arg(&tree.anchor_of_delv)
            .arg(format!("@{}", server.ip()))
            .args(["-p", &server.port().to_string(), "-q", name, "-t", rtype])
            .output()
            .expect("running delv");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let server = format!("{}#{}", server.ip(), server.port());
        let lines = text.lines().map(|line| match line.starts_with(";;") {
            true => line.replace(&server, "SERVER"),
            false => without_ttl(line.trim_start_matches("; ")),
        });
        let mut lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
        lines.sort();
        lines
    };
    let mut wrong = Vec::new();
    let mut validated = 0;
    for (name, rtype) in QUESTIONS {
        let (ours, theirs) = (
            delv(portolan.dns(), name, rtype),
            delv(tree.named.address, name, rtype),
        );
        validated += usize::from(theirs.iter().any(|line| line.starts_with("fully")));
        if ours != theirs {
            wrong.push(format!("{name} {rtype}\n  {ours:#?}\n  {theirs:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(validated > 15, "delv has validated {validated}");
}

/// DO, CD and AD pass to a resolver that checks, and what it says of its checking comes back.
#[test]
fn what_a_checking_upstream_says_comes_back() {
    let tree = Tree::new();
    // What Unbound makes up itself, of proofs that are about to run out, may be without an SOA record and is not
    // the same twice.
    let anchor = format!(
        "  trust-anchor-file: \"{}\"\n  val-log-level: 2\n  aggressive-nsec: no\n",
        tree.anchor.display()
    );
    let unbound = Server::unbound(tree.named.address, &anchor);
    let portolan = portolan(&[unbound.address]);
    let mut wrong = Vec::new();
    for (name, rtype) in QUESTIONS {
        for flags in [
            &[][..],
            &["+dnssec"],
            &["+adflag"],
            &["+noadflag"],
            &["+cd"],
            &["+dnssec", "+cd"],
            &["+dnssec", "+cd", "+adflag"],
        ] {
            // The second time from memory.
            for _ in 0..2 {
                let ours = told(portolan.dns(), name, rtype, flags);
                let theirs = told(unbound.address, name, rtype, flags);
                // Who does not ask for signatures gets no more of the Authority section than the SOA.
                let is_beside = |record: &&String| record.contains(" IN NS ") && *rtype != "NS";
                let theirs: Vec<&String> = theirs.iter().filter(|own| !is_beside(own)).collect();
                if ours.iter().collect::<Vec<_>>() != theirs {
                    wrong.push(format!(
                        "{name} {rtype} {flags:?}\n  we: {ours:#?}\n  Unbound: {theirs:#?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for _ in 0..2 {
        let said = dig(portolan.dns(), &["www.broken", "A"]);
        let theirs = dig(unbound.address, &["www.broken", "A"]);
        let error = |output: &str| -> Vec<String> {
            let lines = output.lines().filter(|line| line.starts_with("; EDE"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(said.status, "SERVFAIL", "{}", said.output);
        assert!(!error(&theirs.output).is_empty(), "{}", theirs.output);
        assert_eq!(
            error(&said.output),
            error(&theirs.output),
            "{}",
            said.output
        );
    }
}
