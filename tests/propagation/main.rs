//! How long a registration takes to be seen through Portolan, against Consul's own DNS. A target of
//! its own: nothing else may run beside a measurement.

#[path = "../support/mod.rs"]
mod support;

use serde_json::json;
use std::{
    net::SocketAddr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};
use support::{
    consul::{Consul, instance},
    dns,
    portolan::Portolan,
    still::undisturbed,
    wire::rtype::A,
};

/// How much later than Consul's own DNS we may be.
const ALLOWED: Duration = Duration::from_millis(20);
const REGISTRATIONS: usize = 30;

/// Asks again and again until `address` is among the answers; gives the time when it first was.
fn first_seen(server: SocketAddr, name: &str, address: &str) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let reply = dns::Query::new(name, A).edns(4096).ask(server);
        let now = Instant::now();
        if reply.answers.iter().any(|record| record.data == address) {
            return now;
        }
        assert!(
            now < deadline,
            "{server}: {name} never had {address}: {}",
            reply.summary()
        );
        // Only the pace of the polls: a fraction of what is measured, and it leaves the two cores of
        // a small machine to the servers.
        thread::sleep(Duration::from_micros(200));
    }
}

/// The time between two registrations. A service that changes more than ten times a second is
/// followed more slowly on purpose (D18); that is not what is measured here.
const PACE: Duration = Duration::from_millis(150);

/// Who asks Portolan when.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    /// Both servers are polled from before the registration.
    Before,
    /// Portolan hears of the name for the first time once Consul's own DNS shows it.
    After,
}

/// Registers one instance and gives how much later than Consul's own DNS Portolan showed it.
fn lag(
    consul: &Consul,
    portolan: &Portolan,
    service: &str,
    number: usize,
    asked: Asked,
) -> Duration {
    let start = Instant::now();
    let name = format!("{service}.service.consul");
    let address = format!("10.7.{}.{}", number / 250, 1 + number % 250);
    let entry = instance(
        "w",
        "10.7.255.1",
        &json!({ "Service": service, "ID": format!("{service}-{number}"), "Address": address,
            "Port": 80 }),
    );
    let polling = Barrier::new(3);
    let poll = |server| {
        dns::ask(server, &name, A);
        polling.wait();
        first_seen(server, &name, &address)
    };
    let (theirs, ours) = match asked {
        Asked::Before => thread::scope(|scope| {
            let theirs = scope.spawn(|| poll(consul.dns()));
            let ours = scope.spawn(|| poll(portolan.dns()));
            polling.wait();
            consul.register(&entry);
            let theirs = theirs.join().expect("Consul shows the registration");
            (
                theirs,
                ours.join().expect("Portolan shows the registration"),
            )
        }),
        Asked::After => {
            consul.register(&entry);
            let theirs = first_seen(consul.dns(), &name, &address);
            (theirs, first_seen(portolan.dns(), &name, &address))
        }
    };
    thread::sleep(PACE.saturating_sub(start.elapsed()));
    ours.saturating_duration_since(theirs)
}

/// So many measurements of a kind may be late without a sign of that, on a core that nobody watched,
/// and are made twice more. A way through Portolan that is slow is slow again.
const STALLS: usize = 2;

fn judge(what: &str, measure: impl Fn(usize) -> Duration) {
    let (mut lags, mut void, mut late) = (Vec::new(), Vec::new(), Vec::new());
    let mut wanted = REGISTRATIONS;
    for number in 0.. {
        match undisturbed(|| measure(number)) {
            // In time is in time, however the machine stood.
            Ok(lag) | Err(lag) if lag <= ALLOWED => lags.push(lag),
            Err(lag) => void.push(lag),
            Ok(lag) => {
                late.push(lag);
                wanted += 2;
            }
        }
        assert!(
            late.len() <= STALLS && void.len() <= REGISTRATIONS,
            "{what}: later than Consul's own DNS by {late:?}; while the machine stood still by \
             {void:?}; otherwise {lags:?}"
        );
        if lags.len() >= wanted {
            break;
        }
    }
    lags.sort();
    let (median, max) = (lags[lags.len() / 2], lags[lags.len() - 1]);
    eprintln!(
        "{what}: median {median:?}, max {max:?} later than Consul's own DNS; measured again: {late:?}, \
         and {void:?} while the machine stood still"
    );
}

/// One test, so that the measurements do not disturb each other.
#[test]
fn a_registration_is_seen_within_20_ms_of_consuls_own_dns() {
    let consul = Consul::start();
    let portolan = Portolan::beside(&consul);
    let measure = |what: &str, asked: Asked, service: &dyn Fn(usize) -> String| {
        judge(what, |number| {
            lag(&consul, &portolan, &service(number), number, asked)
        });
    };
    // First: a process that has just begun watches half as many services as it may later, and the
    // others take more than that.
    measure(
        "one more instance of a watched service",
        Asked::Before,
        &|_| "watched".to_owned(),
    );
    measure(
        "a new service that is asked for already",
        Asked::Before,
        &|number| format!("awaited{number}"),
    );
    measure(
        "a new service that nobody asked for",
        Asked::After,
        &|number| format!("unheard{number}"),
    );
}
