//! Upstreams over TLS and HTTPS.

use crate::{
    secure::{NAME, Place, Secure, portolan},
    servers::{Server, launch},
    support::{
        AtEnd,
        certificates::Authority,
        directory,
        dns::Query,
        ensure, eventually, free_ports, http, own_loopback,
        portolan::{Portolan, run_to_end},
        wire::{rcode, rtype::A},
        write_file,
    },
};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const TXT: u16 = 16;

const HEAD: &str =
    "$TTL 300\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n* A 192.0.2.1\n";

/// A zone with a wildcard, a name with an answer that fits into no datagram, and an alias.
fn zone(directory: &Path) -> [(&'static str, &'static str); 1] {
    let long = "x".repeat(200);
    let large: String = (0..100)
        .map(|number| format!("large TXT \"{number}{long}\"\n"))
        .collect();
    let text = format!("{HEAD}{large}alias CNAME www\n");
    write_file(directory, "zone", &text);
    [("far.example", "zone")]
}

fn named(directory: &Path) -> Server {
    let zone = zone(directory);
    Server::named(directory, &zone)
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue("good", &format!("DNS:{NAME}"));
    authority
}

fn ask(portolan: &Portolan, name: &str) -> Result<(), String> {
    let query = Query::new(name, A).patience(Duration::from_secs(6));
    let reply = query.try_ask(portolan.dns())?;
    ensure(reply.answers.len() == 1, || {
        let errors = reply.extended_errors();
        format!("{name}: {} {errors:?}", reply.summary())
    })
}

/// Asks so many different names at once, which all have to be answered.
fn parallel(portolan: &Portolan, prefix: &str, number: usize) {
    thread::scope(|scope| {
        let all: Vec<_> = (0..number)
            .map(|at| {
                let name = format!("{prefix}-{at}.far.example");
                scope.spawn(move || ask(portolan, &name))
            })
            .collect();
        for one in all {
            one.join().expect("asking").expect("an answer");
        }
    });
}

#[test]
fn every_kind_of_server_is_asked_over_tls_and_https() {
    let (authority, files) = (authority(), directory());
    let zones = zone(files.path());
    let named = Secure::named(Place::on_interface(), files.path(), &zones, &authority);
    let to = named.server.address;
    let servers = [
        ("Unbound", Secure::unbound(Place::new(), to, &authority)),
        (
            "kresd",
            Secure::kresd(Place::new(), to, "far.example", &authority),
        ),
        (
            "dnsdist",
            Secure::dnsdist(Place::new(), to, "far.example", (&authority, "good"), ""),
        ),
        ("named", named),
    ];
    for (kind, server) in &servers {
        for upstream in [server.place.tls(), server.place.https()] {
            let what = format!("{kind} by {upstream}");
            let portolan = portolan(&authority, std::slice::from_ref(&upstream));
            parallel(&portolan, "each", 60);
            let alias = Query::new("alias.far.example", A).ask(portolan.dns());
            assert_eq!(alias.answers.len(), 2, "{what}: {}", alias.summary());
            let large = Query::new("large.far.example", TXT).tcp();
            let large = large.ask(portolan.dns());
            assert_eq!(large.answers.len(), 100, "{what}: {}", large.summary());
            let absent = Query::new("absent.elsewhere.example", A).ask(portolan.dns());
            assert_ne!(absent.rcode(), rcode::NOERROR, "{what}");
            let metrics = portolan.metrics();
            let odd: f64 = metrics
                .iter()
                .filter(|(name, _)| name.starts_with("portolan_recursion_odd_replies"))
                .map(|(_, value)| value)
                .sum();
            assert!(odd == 0.0, "{what}: {metrics:#?}");
            let connections = metrics
                .iter()
                .find(|(name, _)| name.starts_with("portolan_recursion_upstream_connections"));
            let (_, connections) = connections.expect("a figure");
            // Sixty questions are no reason for sixty connections.
            assert!(*connections <= 4.0, "{what}: {connections} connections");
            assert_eq!(portolan.log().matches("\"WARN\"").count(), 0, "{what}");
        }
    }
}

/// dnsdist refuses whoever does not say which name it wants (it tells no SNI for HTTPS, but the host), or shows by the length of a query what it asks; and it
/// counts the sessions that are taken up again.
#[test]
fn the_name_is_said_queries_are_padded_and_sessions_taken_up_again() {
    let (authority, files) = (authority(), directory());
    let named = named(files.path());
    let ip = own_loopback();
    let [web] = free_ports(ip);
    let more = format!(
        "addAction(AllRule(), LuaAction(function(dq)\n\
           local said = dq:getServerNameIndication() .. dq:getHTTPHost()\n\
           local is_right = said:sub(1, {length}) == \"{NAME}\" and dq.len % 128 == 0\n\
           if dq.tcp and not is_right then return DNSAction.Refused, \"\" end\n\
           return DNSAction.None, \"\" end))\n\
         setTCPRecvTimeout(1)\nwebserver(\"{ip}:{web}\")\n\
         setWebserverConfig({{acl=\"0.0.0.0/0\", statsRequireAuthentication=false}})\n",
        length = NAME.len()
    );
    let dnsdist = Secure::dnsdist(
        Place::new(),
        named.address,
        "far.example",
        (&authority, "good"),
        &more,
    );
    let counted = |what: &str| {
        let page = http::get((ip, web).into(), "/metrics").expect("dnsdist's metrics");
        let lines = page.body.lines().filter(|line| line.starts_with(what));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>()
    };
    for upstream in [dnsdist.place.tls(), dnsdist.place.https()] {
        let portolan = portolan(&authority, std::slice::from_ref(&upstream));
        for number in 0..20 {
            let name = format!("{}.far.example", "n".repeat(1 + number * 3));
            ask(&portolan, &name).expect(&upstream);
        }
    }
    let portolan = portolan(&authority, &[dnsdist.place.tls()]);
    ask(&portolan, "first.far.example").expect("an answer");
    let open = format!(
        "portolan_recursion_upstream_connections{{upstream=\"{}\"}}",
        dnsdist.place.tls()
    );
    eventually(Duration::from_secs(10), "the connection ends", || {
        let connections = portolan.metric(&open);
        ensure(connections == 0.0, || connections.to_string())
    });
    let before = counted("dnsdist_frontend_tlsresumptions");
    ask(&portolan, "second.far.example").expect("an answer");
    let after = counted("dnsdist_frontend_tlsresumptions");
    assert!(after > before, "{before} and {after} sessions taken up");
}

#[test]
fn another_kind_answers_where_one_does_not() {
    let (authority, files) = (authority(), directory());
    let named = named(files.path());
    let at = |place| {
        Secure::dnsdist(
            place,
            named.address,
            "far.example",
            (&authority, "good"),
            "",
        )
    };
    let (first, second) = (at(Place::new()), at(Place::new()));
    for upstreams in [
        [first.place.tls(), second.place.https()],
        [first.place.https(), second.place.tls()],
        [first.place.tls(), second.place.plain()],
        [first.place.plain(), second.place.https()],
    ] {
        let what = upstreams.join(", ");
        let portolan = portolan(&authority, &upstreams);
        ask(&portolan, "well.far.example").expect(&what);
        first.server.process.signal("STOP");
        for number in 0..5 {
            let start = Instant::now();
            ask(&portolan, &format!("stopped{number}.far.example")).expect(&what);
            let took = start.elapsed();
            assert!(took < Duration::from_millis(1500), "{what}: {took:?}");
        }
        first.server.process.signal("CONT");
        parallel(&portolan, "again", 20);
    }
}

/// Asks for new names until it is over, and counts them: what became of those that were not answered.
fn load(portolan: &Portolan, asked: &AtomicUsize, over: &AtomicBool) -> Vec<String> {
    thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let number = asked.fetch_add(1, Ordering::Relaxed);
                        let name = format!("load{thread}-{number}.far.example");
                        failed.extend(ask(portolan, &name).err());
                        thread::sleep(Duration::from_millis(20));
                    }
                    failed
                })
            })
            .collect();
        let all = all.into_iter();
        all.flat_map(|own| own.join().expect("asking")).collect()
    })
}

/// Whatever it is asked by, and though there is no other: whoever asks while it is away hears what it says then.
fn starts_anew(authority: &Authority, place: Place, start: &dyn Fn() -> Secure) {
    let mut server = start();
    for upstream in [place.tls(), place.https(), place.plain()] {
        let portolan = portolan(authority, std::slice::from_ref(&upstream));
        let (asked, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failed = thread::scope(|scope| {
            let loading = scope.spawn(|| load(&portolan, &asked, &over));
            let end = AtEnd(&over);
            for signal in ["TERM", "KILL"] {
                eventually(Duration::from_secs(10), "questions are answered", || {
                    ask(&portolan, "probe.far.example")
                });
                thread::sleep(Duration::from_millis(300));
                server.server.process.signal(signal);
                server.server.process.wait(Duration::from_secs(10));
                thread::sleep(Duration::from_millis(300));
                server = start();
            }
            while asked.load(Ordering::Relaxed) <= 100 {
                thread::sleep(Duration::from_millis(20));
            }
            drop(end);
            loading.join().expect("asking")
        });
        assert!(failed.is_empty(), "{upstream}: of {asked:?} {failed:#?}");
    }
}

#[test]
fn unbound_starts_anew_and_no_question_fails() {
    let (authority, files) = (authority(), directory());
    let named = named(files.path());
    let place = Place::new();
    let start = || Secure::unbound(place, named.address, &authority);
    starts_anew(&authority, place, &start);
}

#[test]
fn knot_resolver_starts_anew_and_no_question_fails() {
    let (authority, files) = (authority(), directory());
    let named = named(files.path());
    let place = Place::new();
    let start = || Secure::kresd(place, named.address, "far.example", &authority);
    starts_anew(&authority, place, &start);
}

#[test]
fn dnsdist_starts_anew_and_no_question_fails() {
    let (authority, files) = (authority(), directory());
    let named = named(files.path());
    let place = Place::new();
    let start = || {
        let with = (&authority, "good");
        Secure::dnsdist(place, named.address, "far.example", with, "")
    };
    starts_anew(&authority, place, &start);
}

#[test]
fn named_starts_anew_and_no_question_fails() {
    let (authority, files) = (authority(), directory());
    let zones = zone(files.path());
    let place = Place::on_interface();
    let start = || Secure::named(place, files.path(), &zones, &authority);
    starts_anew(&authority, place, &start);
}

/// What the log says of an upstream's certificate, line by line.
fn refusals(portolan: &Portolan) -> Vec<String> {
    let events = portolan.events().into_iter();
    let events = events.filter(|event| event["level"] == "WARN");
    let text = events.map(|event| event["fields"].to_string());
    text.filter(|text| text.contains("certificate")).collect()
}

#[test]
fn nobody_is_asked_whose_certificate_is_not_right() {
    let (authority, files) = (authority(), directory());
    authority.issue("other", "DNS:other.test");
    authority.issue_expired("expired", &format!("DNS:{NAME}"));
    let foreign = Authority::new();
    foreign.issue("foreign", &format!("DNS:{NAME}"));
    let named = named(files.path());
    let with = |authority, name| {
        let place = Place::new();
        let with = (authority, name);
        Secure::dnsdist(place, named.address, "far.example", with, "")
    };
    let good = with(&authority, "good");
    for (server, why) in [
        (with(&authority, "other"), "another name"),
        (with(&authority, "expired"), "expired"),
        (with(&foreign, "foreign"), "no authority"),
    ] {
        for bad in [server.place.tls(), server.place.https()] {
            let alone = portolan(&authority, std::slice::from_ref(&bad));
            for number in 0..5 {
                let reply = Query::new(&format!("bad{number}.far.example"), A);
                let reply = reply.ask(alone.dns());
                assert_eq!(reply.rcode(), rcode::SERVFAIL, "{bad}: {}", reply.summary());
            }
            let said = refusals(&alone);
            assert_eq!(said.len(), 1, "{bad}: {said:#?}");
            assert!(said[0].contains(why) && said[0].contains(&bad), "{said:#?}");
            let beside = portolan(&authority, &[bad.clone(), good.place.tls()]);
            parallel(&beside, "beside", 10);
        }
    }
    // A certificate for its address is enough where nobody says a name.
    let place = Place::new();
    authority.issue("address", &format!("IP:{}", place.ip()));
    let with = (&authority, "address");
    let _server = Secure::dnsdist(place, named.address, "far.example", with, "");
    let bare = place.tls().replace(&format!("#{NAME}"), "");
    let portolan = portolan(&authority, &[bare]);
    parallel(&portolan, "address", 10);
}

/// Who vouches is read at the start, by `check` and on SIGHUP; what is wrong with it is told with its key.
#[test]
fn the_file_of_those_who_vouch() {
    let (authority, files) = (authority(), directory());
    let named = named(files.path());
    let other = Authority::new();
    let with = (&authority, "good");
    let dnsdist = Secure::dnsdist(Place::new(), named.address, "far.example", with, "");
    let file = files.path().join("ca.pem");
    let config = format!(
        "[recursion]\nupstreams = [{:?}]\nca_file = {file:?}\n",
        dnsdist.place.tls()
    );
    let path = write_file(files.path(), "portolan.toml", &config);
    for (text, said) in [
        (None, "No such file"),
        (Some("rubbish"), "but there is none"),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "expected certificates in PEM",
        ),
    ] {
        match text {
            Some(text) => fs::write(&file, text).expect("a file"),
            None => assert!(!file.exists()),
        }
        let path = path.display().to_string();
        let ended = run_to_end(&["check", "--config", &path, "--consul", "none"], &[]);
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        let line = ended.last_line();
        assert!(
            line.contains("portolan.toml:3") && line.contains("recursion.ca_file"),
            "{line}"
        );
        assert!(line.contains(said), "{line}");
    }
    // The wrong authority, then the right one.
    fs::copy(other.path("ca.pem"), &file).expect("a file");
    let portolan = launch(&[]).config(&config).start();
    let reply = Query::new("before.far.example", A).ask(portolan.dns());
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
    fs::copy(authority.path("ca.pem"), &file).expect("a file");
    portolan.signal("HUP");
    eventually(Duration::from_secs(5), "the other authority counts", || {
        ask(&portolan, "after.far.example")
    });
    assert_eq!(refusals(&portolan).len(), 1);
}
