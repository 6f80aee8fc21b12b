//! Far more queries than can be answered: what is too much is shed and counted, memory stays bounded,
//! and whoever asks over TCP is answered all the same.

#[path = "../support/mod.rs"]
mod support;

use std::{
    io::{Write, stderr},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use support::{
    dns::Query,
    ensure, eventually,
    leash::Leash,
    portolan::{Launch, Portolan},
    resources, soak,
    wire::rtype::A,
};

const VALID: &str = "hello1.service.consul";

/// Threads that flood, each from addresses of its own.
const FLOODERS: usize = 3;

/// What the server may have of one processor, in percent: so little that the flood can be many times
/// what it can answer, while both run on the same machine.
const SHARE: u64 = 10;

/// How many times what it can answer it is asked, at least.
const TIMES: f64 = 10.0;

/// What all rendered answers, waiting queries and their like may take: far below what the flood
/// carries, far above what a server at work has.
const MEMORY: u64 = 150 << 20;

/// How long one client is asked to wait at most while everybody shouts, and right afterwards.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends queries as fast as the system takes them, until the end: some for a service, some for random
/// names of ours, some for random names of others, whose upstream never answers.
fn flood(server: SocketAddr, number: usize, sent: &AtomicU64, ended: &AtomicBool) {
    let source = Ipv4Addr::new(127, 0, 9, u8::try_from(number + 1).expect("few"));
    let socket = UdpSocket::bind((source, 0)).expect("a socket");
    socket.connect(server).expect("a loopback address");
    let valid = Query::new(VALID, A).edns(1232).bytes();
    let template = |domain: &str| {
        let bytes = Query::new(&format!("aaaaaaaaaa.{domain}"), A).bytes();
        let at = bytes.windows(10).position(|w| w == b"aaaaaaaaaa");
        (bytes, at.expect("the label"))
    };
    let mut ours = template("service.consul");
    let mut others = template("example.net");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ number as u64;
    let mut round = 0_u64;
    while !ended.load(Ordering::Relaxed) {
        round += 1;
        let message = match round % 8 {
            0 => {
                randomize(&mut others, &mut state);
                &others.0
            }
            1..=3 => {
                randomize(&mut ours, &mut state);
                &ours.0
            }
            _ => &valid,
        };
        // A full send buffer takes nothing; what it takes, the server's socket gets or drops.
        if socket.send(message).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Another random label.
fn randomize((bytes, at): &mut (Vec<u8>, usize), state: &mut u64) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    for (place, byte) in bytes[*at..*at + 10].iter_mut().enumerate() {
        *byte = b'a' + (*state >> (place * 5)) as u8 % 26;
    }
}

/// The sum of all counters whose line starts so.
fn sum(portolan: &Portolan, start: &str) -> u64 {
    let metrics = portolan.get("/metrics").expect("metrics");
    let lines = metrics.body.lines().filter(|line| line.starts_with(start));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    values.sum()
}

/// Queries over UDP that have been received, and those that were dropped: by the system, or because
/// they had waited too long.
fn accounted(portolan: &Portolan) -> (u64, u64) {
    let received = sum(portolan, "portolan_server_queries_total{transport=\"udp\"")
        + sum(portolan, "portolan_server_malformed_total");
    let dropped = sum(portolan, "portolan_server_shed_total{reason=\"socket\"}");
    let late = sum(portolan, "portolan_server_shed_total{reason=\"late\"}");
    (received, dropped + late)
}

/// Answers a second when nobody asks more than is answered.
fn capacity(server: SocketAddr) -> f64 {
    const WINDOW: usize = 32;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(server).expect("a loopback address");
    let timeout = Some(Duration::from_secs(1));
    socket.set_read_timeout(timeout).expect("a timeout");
    let query = Query::new(VALID, A).edns(1232).bytes();
    let (start, mut answers) = (Instant::now(), 0_u32);
    let mut buffer = [0; 1500];
    for _ in 0..WINDOW {
        socket.send(&query).expect("sent");
    }
    while start.elapsed() < Duration::from_secs(2) {
        socket.recv(&mut buffer).expect("an answer");
        answers += 1;
        socket.send(&query).expect("sent");
    }
    f64::from(answers) / start.elapsed().as_secs_f64()
}

#[test]
fn a_flood_is_shed_and_counted_and_passes() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let upstream = silent.local_addr().expect("an address").to_string();
    // On all addresses, which takes more than one: the reply must come from the one that was asked.
    let mut portolan = Launch::new("dev")
        .args(["--upstream", &upstream])
        .listen("0.0.0.0:0")
        .start();
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, portolan.dns().port()));
    let leash = Leash::new(portolan.pid(), SHARE);
    let capacity = capacity(server);
    eventually(Duration::from_secs(10), "the last answers are out", || {
        let (received, _) = accounted(&portolan);
        thread::sleep(Duration::from_millis(50));
        ensure(accounted(&portolan).0 == received, || {
            "still counting".to_owned()
        })
    });
    let (received_before, dropped_before) = accounted(&portolan);
    let memory_before = resources::memory(portolan.pid());

    let (sent, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let lasting = soak(Duration::from_secs(8), Duration::from_secs(60));
    let (mut over_tcp, mut slowest, mut memory) = (0, Duration::ZERO, memory_before);
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..FLOODERS {
            let (sent, ended) = (&sent, &ended);
            scope.spawn(move || flood(server, number, sent, ended));
        }
        while start.elapsed() < lasting {
            let asked = Instant::now();
            let reply = Query::new(VALID, A)
                .tcp()
                .patience(PATIENCE)
                .try_ask(server);
            if !matches!(&reply, Ok(reply) if !reply.answers.is_empty()) {
                ended.store(true, Ordering::Relaxed);
                panic!(
                    "over TCP, after {over_tcp} answers: {:?}",
                    reply.map(|reply| reply.summary())
                );
            }
            over_tcp += 1;
            slowest = slowest.max(asked.elapsed());
            memory = memory.max(resources::memory(portolan.pid()));
        }
        ended.store(true, Ordering::Relaxed);
    });
    let took = start.elapsed().as_secs_f64();
    let stopped = Instant::now();
    // A datagram may still find the socket's buffer full of what the flood left there.
    let mut asked = 0;
    eventually(PATIENCE, "it is well again", || {
        asked += 1;
        let query = Query::new(VALID, A).patience(Duration::from_millis(250));
        let reply = query.try_ask(server)?;
        ensure(!reply.answers.is_empty(), || reply.summary())
    });
    let recovered = stopped.elapsed();

    let sent = sent.load(Ordering::Relaxed) + asked;
    let what = "every query of the flood is accounted for";
    let (received, dropped) = eventually(Duration::from_secs(20), what, || {
        let (received, dropped) = accounted(&portolan);
        let now = (received - received_before, dropped - dropped_before);
        let text = || format!("{sent} sent, {} received, {} dropped", now.0, now.1);
        ensure(now.0 + now.1 == sent, text)?;
        Ok(now)
    });
    let shed = sum(&portolan, "portolan_server_shed_total{reason=\"queue\"}");
    let late = sum(&portolan, "portolan_server_shed_total{reason=\"late\"}");
    let grown = memory.saturating_sub(memory_before);
    let times = sent as f64 / took / capacity;
    let figure = format!(
        "figure: flood of {:.0} queries/s for {took:.0} s, {times:.0} times the capacity of \
         {capacity:.0}/s (with {SHARE} % of a processor); {received} received, \
         {dropped} dropped, of which {late} were late, {shed} shed at the queue; {over_tcp} answers over TCP, the \
         slowest in {slowest:?}; memory {} MiB before and {} MiB more at most; well again after {recovered:?}",
        sent as f64 / took,
        memory_before >> 20,
        grown >> 20,
    );
    // Past the harness, which keeps what a passing test prints; see tests/faults.
    let _ = writeln!(stderr(), "{figure}");
    assert!(times >= TIMES, "only {times:.1} times its capacity");
    assert!(dropped + shed > 0, "nothing was shed");
    assert!(grown < MEMORY, "{} MiB more", grown >> 20);
    assert!(
        over_tcp > 0 && recovered < Duration::from_secs(5),
        "{recovered:?}"
    );
    portolan.assert_running();
    drop(leash);
}
