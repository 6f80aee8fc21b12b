//! Names of others that lead inside, with dnsmasq's `stop-dns-rebind` as the reference.

use crate::{
    servers::{Server, launch},
    support::{
        directory,
        dns::Query,
        wire::{
            rcode,
            rtype::{A, AAAA},
        },
        write_file,
    },
};

const HTTPS: u16 = 65;
const FILTERED: u16 = 17;

/// One name for each address, and some that lead to names of ours. For dnsmasq the networks of documentation
/// (RFC 5737) are private.
const ZONE: &str = "$TTL 300\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n@ A 192.0.2.1\n\
    private A 10.1.2.3\nrouter A 192.168.1.1\nlocal A 127.0.0.1\nmeta A 169.254.169.254\nnobody A 0.0.0.0\n\
    ula AAAA fd00::1\nlink AAAA fe80::1\nmapped AAAA ::ffff:10.0.0.1\nself AAAA ::1\n\
    public A 11.0.0.7\npublic AAAA 2600::7\nmixed A 11.0.0.8\nmixed A 10.0.0.8\nalias CNAME private\n\
    ours CNAME web.service.consul.\nhttps HTTPS 1 . alpn=h2 ipv4hint=10.0.0.9\n\
    good HTTPS 1 . alpn=h2 ipv4hint=11.0.0.9\n";

#[test]
fn names_of_others_do_not_lead_inside() {
    let (own, office) = (directory(), directory());
    write_file(own.path(), "zone", ZONE);
    write_file(office.path(), "zone", ZONE);
    let named = Server::named(own.path(), &[("far.example", "zone")]);
    let office = Server::named(office.path(), &[("corp.example", "zone")]);
    let dnsmasq = Server::dnsmasq(named.address, "far.example", "stop-dns-rebind\n");
    let with = |config: &str| {
        launch(&[named.address])
            .args([
                "--forward".to_owned(),
                format!("corp.example={}", office.address),
            ])
            .config(&format!("[recursion]\n{config}\n"))
            .start()
    };
    let (refusing, allowing) = (with("rebinding = \"refuse\""), with(""));
    for (name, rtype, is_inside) in [
        ("private", A, true),
        ("router", A, true),
        ("local", A, true),
        ("meta", A, true),
        ("nobody", A, true),
        ("ula", AAAA, true),
        ("link", AAAA, true),
        ("mapped", AAAA, true),
        ("self", AAAA, true),
        ("mixed", A, true),
        ("alias", A, true),
        ("public", A, false),
        ("public", AAAA, false),
        ("private", AAAA, false),
    ] {
        let outside = format!("{name}.far.example");
        let theirs = Query::new(&outside, rtype).ask(dnsmasq.address);
        let ours = Query::new(&outside, rtype).edns(1232).ask(refusing.dns());
        let addresses = |data: Vec<String>| {
            data.into_iter()
                .filter(|own| !own.ends_with('.'))
                .collect::<Vec<_>>()
        };
        let said = format!(
            "{name}: {} and dnsmasq {}",
            ours.summary(),
            theirs.summary()
        );
        assert_eq!(
            (ours.rcode(), addresses(ours.data())),
            (theirs.rcode(), addresses(theirs.data())),
            "{said}"
        );
        assert_eq!(ours.extended_errors() == [FILTERED], is_inside, "{said}");
        // The operator's own domain, and who does not mind.
        let inside = format!("{name}.corp.example");
        for (portolan, name) in [(&refusing, &inside), (&allowing, &outside)] {
            let reply = Query::new(name, rtype).ask(portolan.dns());
            assert_eq!(
                addresses(reply.data()).is_empty(),
                name.starts_with("private") && rtype == AAAA,
                "{name}: {}",
                reply.summary()
            );
        }
    }
    // Hints are addresses too, and so is a name of ours.
    for (name, rtype, answers) in [("https", HTTPS, 0), ("good", HTTPS, 1), ("ours", A, 0)] {
        let reply = Query::new(&format!("{name}.far.example"), rtype)
            .edns(1232)
            .ask(refusing.dns());
        assert_eq!(reply.rcode(), rcode::NOERROR, "{name}: {}", reply.summary());
        assert_eq!(reply.answers.len(), answers, "{name}: {}", reply.summary());
        assert_eq!(
            reply.extended_errors() == [FILTERED],
            answers == 0,
            "{name}: {}",
            reply.summary()
        );
    }
}
