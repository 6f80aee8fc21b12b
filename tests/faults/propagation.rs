//! From a registration to the first right answer, beside Consul's own DNS.

use crate::{
    alone, figure, percentile,
    support::{consul::Consul, dns::Query, portolan::Portolan, still::undisturbed, wire::rtype::A},
    world::{entry, json_of},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

const MEDIAN: Duration = Duration::from_millis(3);
const P99: Duration = Duration::from_millis(20);

/// Between two changes. A service that changes more than ten times a second is followed more slowly on
/// purpose (D18).
const PACE: Duration = Duration::from_millis(150);

/// Asks until `address` is the answer; gives when it first was.
fn first_right(server: SocketAddr, address: Ipv4Addr) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let reply = Query::new("watched.service.consul", A).ask(server);
        let now = Instant::now();
        if reply.data() == [address.to_string()] {
            return now;
        }
        assert!(now < deadline, "never {address}: {}", reply.summary());
        // The pace of the polls, a fraction of what is measured.
        thread::sleep(Duration::from_micros(200));
    }
}

/// Moves the service and gives how long after Consul had taken that Consul's own DNS and Portolan
/// showed it.
fn change(consul: &Consul, portolan: &Portolan, number: usize) -> (Duration, Duration) {
    let start = Instant::now();
    let address = Ipv4Addr::from(0x0a07_0001 + u32::try_from(number).expect("a small number"));
    let polling = Barrier::new(3);
    let poll = |server| {
        polling.wait();
        first_right(server, address)
    };
    let lags = thread::scope(|scope| {
        let theirs = scope.spawn(|| poll(consul.dns()));
        let ours = scope.spawn(|| poll(portolan.dns()));
        polling.wait();
        consul.register(&entry(&json_of("watched", 0, address, 80)));
        let taken = Instant::now();
        let lag = |seen: Instant| seen.saturating_duration_since(taken);
        let theirs = theirs.join().expect("Consul shows it");
        (lag(theirs), lag(ours.join().expect("Portolan shows it")))
    });
    thread::sleep(PACE.saturating_sub(start.elapsed()));
    lags
}

#[test]
fn a_change_is_seen_in_milliseconds() {
    let _alone = alone();
    let consul = Consul::start();
    let portolan = Portolan::beside(&consul);
    // Fewer, and the p99 would be the worst of all: what one stall of the machine makes it.
    let changes = 200;
    // The first one opens the watch.
    change(&consul, &portolan, 0);
    let (mut lags, mut void) = (Vec::new(), Vec::new());
    for number in 1.. {
        match undisturbed(|| change(&consul, &portolan, number)) {
            // In time is in time, however the machine stood.
            Ok(lag) => lags.push(lag),
            Err(lag) if lag.1 <= MEDIAN => lags.push(lag),
            Err((_, ours)) => void.push(ours),
        }
        assert!(
            void.len() <= changes,
            "the machine stands still all the time: {void:?}"
        );
        if lags.len() == changes {
            break;
        }
    }
    let sorted = |mut lags: Vec<Duration>| {
        lags.sort();
        (percentile(&lags, 50), percentile(&lags, 99))
    };
    let (theirs, their_p99) = sorted(lags.iter().map(|(theirs, _)| *theirs).collect());
    let (median, p99) = sorted(lags.iter().map(|(_, ours)| *ours).collect());
    figure(&format!(
        "register to first right answer over {changes} changes: median {median:?} p99 {p99:?} (at \
         most {MEDIAN:?} and {P99:?}); Consul's own DNS {theirs:?} and {their_p99:?}; measured again \
         because the machine stood still: {}",
        void.len()
    ));
    assert!(median <= MEDIAN, "median {median:?}");
    assert!(p99 <= P99, "p99 {p99:?}");
}
