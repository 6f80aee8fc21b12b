//! Recursion against scripted upstreams on the loopback interface.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{Name as HickoryName, RData, Record};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::dns::{Data, types};

use super::*;

/// What a scripted upstream does with a question over UDP. Over TCP it answers as `Answer`.
#[derive(Clone, Copy)]
enum Does {
    Answer(u8),
    /// With a TTL of a second.
    Short(u8),
    /// So many milliseconds later.
    Late(u8, u64),
    Rcode(ResponseCode),
    NxDomain,
    Truncate,
    Nothing,
    /// An alias to `b.test.`, and for that name an address.
    OpenAlias,
    /// FORMERR to a query with EDNS.
    NoEdns,
}

struct Scripted {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    does: Arc<Mutex<Does>>,
}

impl Scripted {
    async fn new(does: Does) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = tcp.local_addr().expect("an address");
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (udp, tcp);
            }
        };
        let address = tcp.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let script_of = Arc::new(Mutex::new(does));
        let now_does = Arc::clone(&script_of);
        tokio::spawn(async move {
            let udp = Arc::new(udp);
            let mut buffer = [0; 2048];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::Relaxed);
                let does = *now_does.lock().expect("no panic");
                let later = match does {
                    Does::Late(_, millis) => Duration::from_millis(millis),
                    _ => Duration::ZERO,
                };
                if let Some(reply) = script(does, &buffer[..length]) {
                    let udp = Arc::clone(&udp);
                    tokio::spawn(async move {
                        tokio::time::sleep(later).await;
                        let _ = udp.send_to(&reply, peer).await;
                    });
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let Ok(length) = stream.read_u16().await else {
                    continue;
                };
                let mut query = vec![0; length.into()];
                if stream.read_exact(&mut query).await.is_err() {
                    continue;
                }
                let reply = script(Does::Answer(99), &query).expect("an answer");
                let length = u16::try_from(reply.len()).expect("short");
                let _ = stream.write_u16(length).await;
                let _ = stream.write_all(&reply).await;
            }
        });
        Self {
            address,
            asked,
            does: script_of,
        }
    }

    fn does(&self, does: Does) {
        *self.does.lock().expect("no panic") = does;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn script(does: Does, query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).expect("a query");
    assert!(query.metadata.recursion_desired);
    let question = query.queries.first().expect("a question").clone();
    let owner = question.name().clone();
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.add_query(question);
    let record = |data| Record::from_rdata(owner.clone(), 60, data);
    let address = |last| record(RData::A(A::new(192, 0, 2, last)));
    match does {
        Does::Nothing => return None,
        Does::Answer(last) | Does::Late(last, _) => {
            reply.add_answer(address(last));
        }
        Does::Short(last) => {
            let mut short = address(last);
            short.ttl = 1;
            reply.add_answer(short);
        }
        Does::Rcode(rcode) => reply.metadata.response_code = rcode,
        Does::Truncate => reply.metadata.truncation = true,
        Does::NoEdns if query.edns.is_some() => {
            reply.metadata.response_code = ResponseCode::FormErr;
        }
        Does::NoEdns => {
            reply.add_answer(address(7));
        }
        Does::OpenAlias if owner == name("b.test.") => {
            reply.add_answer(address(8));
        }
        Does::OpenAlias => {
            reply.add_answer(record(RData::CNAME(CNAME(name("b.test.")))));
        }
        Does::NxDomain => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(owner.clone(), owner.clone(), 1, 2, 3, 4, 30);
            reply.add_authority(record(RData::SOA(soa)));
        }
    }
    Some(reply.to_vec().expect("a reply"))
}

fn question(name: &Name, qtype: u16) -> Question<'_> {
    let form = Form::default();
    Question { name, qtype, form }
}

fn codes(answer: &Answer) -> Vec<u16> {
    answer.errors.iter().map(|error| error.code).collect()
}

fn name(text: &str) -> HickoryName {
    HickoryName::from_ascii(text).expect("a name")
}

struct World {
    recursor: Arc<Recursor>,
    registry: Registry,
    upstreams: Vec<Scripted>,
}

impl World {
    async fn new(script: &[Does]) -> Self {
        Self::with(script, |_| {}).await
    }

    async fn with(script: &[Does], change: impl FnOnce(&mut Settings)) -> Self {
        let mut upstreams = Vec::new();
        for &does in script {
            upstreams.push(Scripted::new(does).await);
        }
        let addresses: Vec<_> = upstreams.iter().map(|own| own.address.into()).collect();
        let mut settings = Settings {
            // Long, so that a busy machine does not decide a test; those that wait shorten them.
            recursor_timeout: Duration::from_secs(10),
            hedge_after: Duration::from_secs(10),
            deadline: Duration::from_secs(20),
            ..Settings::default()
        };
        change(&mut settings);
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let recursor = Recursor::new(&addresses, settings, None, &Handle::current(), metrics)
            .expect("good settings");
        Self {
            recursor: Arc::new(recursor),
            registry,
            upstreams,
        }
    }

    async fn ask(&self, text: &str) -> Answer {
        let name = Name::from_text(text).expect("a name");
        let client = Client::of(IpAddr::from([10, 0, 0, 1]));
        let question = question(&name, types::A);
        let unsaid = match self.recursor.recall(question) {
            Ok(told) => return told.answer,
            Err(unsaid) => unsaid,
        };
        let landed = self.recursor.resolve(question, client, unsaid).await;
        self.recursor.tell(question, &landed).answer
    }

    fn asked(&self) -> Vec<usize> {
        self.upstreams.iter().map(Scripted::asked).collect()
    }

    /// The metrics text has this line. `#0` in it stands for the first upstream.
    fn metric(&self, line: &str) {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("text");
        let mut line = line.to_owned();
        for (index, upstream) in self.upstreams.iter().enumerate() {
            line = line.replace(&format!("#{index}"), &upstream.address.to_string());
        }
        let found = text.lines().any(|l| l == line);
        assert!(found, "{line} is not in\n{text}");
    }
}

fn data(answer: &Answer) -> Vec<String> {
    let text = |data: &Data| match data {
        Data::A(ip) => ip.to_string(),
        Data::Cname(target) => target.to_string(),
        other => format!("{other:?}"),
    };
    let records = answer.answers.iter();
    records.map(|record| text(&record.data)).collect()
}

#[tokio::test]
async fn an_answer_is_cached_and_then_at_hand() {
    let world = World::new(&[Does::Answer(1), Does::Answer(2)]).await;
    let name = Name::from_text("a.test").expect("a name");
    assert!(world.recursor.recall(question(&name, types::A)).is_err());
    for _ in 0..2 {
        let answer = world.ask("a.test.").await;
        assert_eq!(data(&answer), ["192.0.2.1"]);
        assert_eq!(answer.answers[0].owner, name);
    }
    let known = world.recursor.recall(question(&name, types::A));
    assert_eq!(
        known.ok().map(|told| data(&told.answer)),
        Some(vec!["192.0.2.1".to_owned()])
    );
    assert_eq!(world.asked(), [1, 0]);
    world.metric("portolan_recursion_cache_hits_total 2");
    world.metric("portolan_recursion_queries_total{upstream=\"#0\",outcome=\"noerror\"} 1");
    world.metric("portolan_recursion_latency_seconds_count{upstream=\"#0\"} 1");
    world.metric("portolan_recursion_upstream_healthy{upstream=\"#1\"} 1");
}

#[tokio::test]
async fn nxdomain_is_final_and_cached() {
    let world = World::new(&[Does::NxDomain, Does::Answer(2)]).await;
    for _ in 0..2 {
        let answer = world.ask("a.test.").await;
        assert_eq!(answer.rcode, Rcode::NXDOMAIN);
        assert_eq!(answer.authority.len(), 1);
        assert!(answer.authority[0].ttl <= 30);
    }
    assert_eq!(world.asked(), [1, 0]);
}

#[tokio::test]
async fn errors_move_on_to_the_next_upstream() {
    for rcode in [
        ResponseCode::ServFail,
        ResponseCode::Refused,
        ResponseCode::NotImp,
    ] {
        let world = World::new(&[Does::Rcode(rcode), Does::Answer(2)]).await;
        // Once more than it takes to be asked last.
        for number in 0..4 {
            let answer = world.ask(&format!("a{number}.test.")).await;
            assert_eq!(data(&answer), ["192.0.2.2"], "{rcode}");
        }
        let asked_first = world.upstreams[0].asked();
        world.ask("b.test.").await;
        assert_eq!(world.upstreams[0].asked(), asked_first, "{rcode}");
        world.metric("portolan_recursion_upstream_healthy{upstream=\"#0\"} 0");
    }
}

#[tokio::test]
async fn a_broken_name_does_not_make_an_upstream_sick() {
    let servfail = Does::Rcode(ResponseCode::ServFail);
    let world = World::new(&[servfail, servfail]).await;
    for number in 0..5 {
        let answer = world.ask(&format!("a{number}.test.")).await;
        assert_eq!(answer.rcode, Rcode::SERVFAIL);
        assert_eq!(codes(&answer), [NO_REACHABLE_AUTHORITY]);
    }
    world.metric("portolan_recursion_upstream_healthy{upstream=\"#0\"} 1");
    world.metric("portolan_recursion_failures_total 5");
    // And the failure is remembered.
    let asked = world.asked();
    let answer = world.ask("a4.test.").await;
    assert_eq!(codes(&answer), [CACHED_ERROR]);
    assert_eq!(world.asked(), asked);
}

#[tokio::test]
async fn a_dead_upstream_is_hedged_then_asked_last() {
    let change = |s: &mut Settings| s.hedge_after = Duration::from_millis(60);
    let world = World::with(&[Does::Nothing, Does::Answer(2)], change).await;
    for number in 0..3 {
        let start = Instant::now();
        let answer = world.ask(&format!("a{number}.test.")).await;
        assert_eq!(data(&answer), ["192.0.2.2"]);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(60), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let asked = world.asked()[0];
    world.ask("b.test.").await;
    assert_eq!(world.asked()[0], asked);
    world.metric("portolan_recursion_hedges_total{upstream=\"#1\"} 3");
    world.metric("portolan_recursion_upstream_healthy{upstream=\"#0\"} 0");
    world.metric("portolan_recursion_queries_total{upstream=\"#0\",outcome=\"overtaken\"} 3");
}

#[tokio::test]
async fn silence_everywhere_ends_in_time() {
    let by_timeout = |s: &mut Settings| {
        s.recursor_timeout = Duration::from_millis(300);
        s.hedge_after = Duration::from_millis(50);
    };
    let by_deadline = |s: &mut Settings| s.deadline = Duration::from_millis(150);
    for change in [by_timeout, by_deadline] {
        let world = World::with(&[Does::Nothing, Does::Nothing], change).await;
        let start = Instant::now();
        let answer = world.ask("a.test.").await;
        assert_eq!(answer.rcode, Rcode::SERVFAIL);
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(world.upstreams[0].asked() >= 1);
    }
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let world = World::new(&[Does::Truncate]).await;
    assert_eq!(data(&world.ask("a.test.").await), ["192.0.2.99"]);
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without() {
    let world = World::new(&[Does::NoEdns]).await;
    assert_eq!(data(&world.ask("a.test.").await), ["192.0.2.7"]);
}

#[tokio::test]
async fn an_alias_left_open_is_left_open() {
    let world = World::new(&[Does::OpenAlias]).await;
    let answer = world.ask("a.test.").await;
    assert_eq!(data(&answer), ["b.test."]);
    assert_eq!(answer.rcode, Rcode::NOERROR);
    let leads_to: Vec<String> = answer.open.iter().map(|end| end.to.to_string()).collect();
    assert_eq!(leads_to, ["b.test."]);
    assert!(world.ask("b.test.").await.open.is_empty());
}

#[tokio::test]
async fn what_is_too_much_is_shed() {
    let change = |s: &mut Settings| {
        s.max_concurrent = 1;
        s.recursor_timeout = Duration::from_millis(300);
    };
    let world = World::with(&[Does::Nothing], change).await;
    let (one, two) = tokio::join!(world.ask("a.test."), world.ask("b.test."));
    assert_eq!(codes(&one), [NO_REACHABLE_AUTHORITY]);
    assert_eq!(two.rcode, Rcode::SERVFAIL);
    assert_eq!(codes(&two), [NOT_READY]);
    world.metric("portolan_recursion_shed_total 1");
}

#[tokio::test]
async fn some_questions_stay_here() {
    let world = World::new(&[Does::Answer(1)]).await;
    assert_eq!(data(&world.ask("x.localhost.").await), ["127.0.0.1"]);
    assert_eq!(world.ask("x.invalid").await.rcode, Rcode::NXDOMAIN);
    let owner = Name::from_text("a.test").expect("a name");
    let transfer = world.recursor.recall(question(&owner, types::AXFR));
    assert_eq!(transfer.expect("at hand").answer.rcode, Rcode::NOTIMP);
    assert_eq!(world.asked(), [0]);
}

#[tokio::test]
async fn upstreams_that_cannot_be() {
    // Nobody is asked, and nobody vouches for who is asked.
    for upstreams in [&[][..], &["tls://192.0.2.1#dns.example"]] {
        let addresses = upstreams.iter().map(|text| text.parse().expect(text));
        let addresses: Vec<Address> = addresses.collect();
        let metrics = Metrics::register(&mut Registry::default());
        let settings = Settings {
            upstreams: Upstreams::List(Vec::new()),
            ..Settings::default()
        };
        let made = Recursor::new(&addresses, settings, None, &Handle::current(), metrics);
        assert!(made.is_err(), "{upstreams:?}");
    }
}

/// One record with a TTL of its own is enough to see a link age.
#[test]
fn links_age() {
    let second = Duration::from_secs(1);
    let link = |ttl: u32, rcode| {
        let wire = Name::from_text("a.test").expect("a name");
        let record = crate::dns::RawRecord {
            owner: wire.as_wire(),
            rtype: types::A,
            ttl,
            rdata: &[192, 0, 2, 1],
        };
        let parts = link::Parts {
            rcode,
            alias: None,
            answers: link::Set::new(None, std::iter::once(record))
                .into_iter()
                .collect(),
            authority: Vec::new(),
            authentic: true,
            errors: Vec::new(),
        };
        Link::new(parts, Instant::now())
    };
    let day = Duration::from_secs(86_400);
    let (known, born) = (link(100, Rcode::NOERROR), Instant::now());
    for (after, stale, age, look_again) in [
        (0, day, Age::Fresh, 90),
        (50, day, Age::Fresh, 40),
        (89, day, Age::Fresh, 1),
        (91, day, Age::Ageing, 1),
        (99, day, Age::Ageing, 1),
        (101, day, Age::Expired, 1),
        (101, Duration::ZERO, Age::Gone, 1),
        (159, 60 * second, Age::Expired, 1),
        (161, 60 * second, Age::Gone, 1),
        (90_000, day, Age::Gone, 1),
    ] {
        let now = born + after * second;
        assert_eq!(known.age(now, stale), age, "after {after} s");
        let told = known.look_again(now);
        let most = Duration::from_secs(look_again);
        assert!(
            told <= most && told + second > most,
            "{told:?} after {after} s"
        );
    }
    // Nobody asks for it twice at a time, nor for a while after that failed.
    assert!(known.begin_refresh());
    assert!(!known.begin_refresh());
    assert_eq!(known.put_off_since(born + 96 * second), None);
    known.put_off(born + 97 * second);
    for after in [98, 120, 126] {
        let since = known.put_off_since(born + after * second).expect("put off");
        assert!(since <= born + 97 * second && since + second > born + 97 * second);
    }
    assert_eq!(known.put_off_since(born + 128 * second), None);
    assert!(known.begin_refresh());
    // What has run down is told for half a minute, and it is told what it is.
    let name = Name::from_text("a.test").expect("a name");
    for (rcode, code) in [(Rcode::NOERROR, 3), (Rcode::NXDOMAIN, 19)] {
        let known = link(100, rcode);
        let mut answer = Answer::empty(Rcode::NOERROR, false);
        answer.authentic = true;
        let born = Instant::now();
        known.tell(&name, born + 99 * second, &mut answer);
        assert!(answer.authentic && answer.errors.is_empty());
        assert_eq!(answer.answers[0].ttl, 1);
        let mut answer = Answer::empty(Rcode::NOERROR, false);
        answer.authentic = true;
        known.tell(&name, born + 200 * second, &mut answer);
        assert!(!answer.authentic);
        assert_eq!(codes(&answer), [code]);
        assert_eq!(answer.answers[0].ttl, 30);
    }
    // A failure lasts longer each time, and is never told when it is over.
    let mut failure = Link::failed(Vec::new(), None, born);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let end = born + seconds * second;
        assert!(failure.holds(end - second / 2), "{seconds} s");
        assert_eq!(failure.age(end, day), Age::Gone, "{seconds} s");
        failure = Link::failed(Vec::new(), Some(&failure), born);
    }
}

/// Signatures that have run out are of use to nobody, however long the answer may be served.
#[test]
fn stale_ends_with_the_signature() {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since_1970 = since_1970.expect("after 1970").as_secs() as u32;
    let owner = Name::from_text("a.test").expect("a name");
    for (left, after, expected) in [
        (3600_u32, 1000, Age::Expired),
        (3600, 3700, Age::Gone),
        (0, 101, Age::Gone),
        (u32::MAX - 5, 101, Age::Gone),
    ] {
        let mut rdata = vec![0, 1, 13, 2, 0, 0, 0, 100];
        rdata.extend_from_slice(&since_1970.wrapping_add(left).to_be_bytes());
        rdata.extend_from_slice(&[0; 16]);
        let record = crate::dns::RawRecord {
            owner: owner.as_wire(),
            rtype: types::RRSIG,
            ttl: 100,
            rdata: &rdata,
        };
        let parts = link::Parts {
            rcode: Rcode::NOERROR,
            alias: None,
            answers: link::Set::new(None, std::iter::once(record))
                .into_iter()
                .collect(),
            authority: Vec::new(),
            authentic: false,
            errors: Vec::new(),
        };
        let now = Instant::now();
        let link = Link::new(parts, now);
        let day = Duration::from_secs(86_400);
        let age = link.age(now + Duration::from_secs(after), day);
        assert_eq!(age, expected, "{left} s left, after {after} s");
    }
}

#[tokio::test]
async fn what_has_run_down_is_served_while_upstreams_fail() {
    let world = World::with(&[Does::Short(1)], |settings| {
        settings.recursor_timeout = Duration::from_millis(200);
    })
    .await;
    let upstream = &world.upstreams[0];
    assert_eq!(data(&world.ask("a.test").await), ["192.0.2.1"]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for does in [
        Does::Rcode(ResponseCode::ServFail),
        Does::Rcode(ResponseCode::Refused),
    ] {
        upstream.does(does);
        let asked = upstream.asked();
        let answer = world.ask("a.test").await;
        assert_eq!(data(&answer), ["192.0.2.1"]);
        assert_eq!(codes(&answer), [3]);
        assert_eq!(answer.answers[0].ttl, 30);
        assert!(upstream.asked() <= asked + 1);
    }
    // Once it has failed, it is left alone with this name: what is known is at hand.
    let asked = upstream.asked();
    let name = Name::from_text("a.test").expect("a name");
    let told = world
        .recursor
        .recall(question(&name, types::A))
        .expect("at hand");
    assert_eq!(codes(&told.answer), [3]);
    assert_eq!(upstream.asked(), asked);
    // Nothing was known of another one, and that is remembered for longer each time.
    assert_eq!(world.ask("b.test").await.rcode, Rcode::SERVFAIL);
    world.metric("portolan_recursion_stale_total 3");
}

#[tokio::test]
async fn a_silent_upstream_is_waited_for_less_long_where_something_is_known() {
    let world = World::new(&[Does::Short(1)]).await;
    world.ask("a.test").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.upstreams[0].does(Does::Late(2, 2500));
    let start = Instant::now();
    let answer = world.ask("a.test").await;
    assert_eq!(data(&answer), ["192.0.2.1"]);
    assert_eq!(codes(&answer), [3]);
    let took = start.elapsed();
    assert!(
        took >= STALE_AFTER && took < Duration::from_secs(5),
        "{took:?}"
    );
    // The question is still on its way, though nobody waits for it: what comes of it is kept.
    let name = Name::from_text("a.test").expect("a name");
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let told = world.recursor.recall(question(&name, types::A));
        if told.is_ok_and(|told| data(&told.answer) == ["192.0.2.2"]) {
            break;
        }
        assert!(Instant::now() < end, "what came late was lost");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_leaves_takes_nothing_with_him() {
    let world = World::new(&[Does::Nothing]).await;
    let leaving = timeout(Duration::from_millis(50), world.ask("a.test"));
    assert!(leaving.await.is_err());
    let asked = world.asked();
    assert_eq!(asked, [1]);
    world.upstreams[0].does(Does::Answer(1));
    // The next one gets what the first one asked for.
    assert_eq!(data(&world.ask("a.test").await), ["192.0.2.1"]);
    assert_eq!(world.asked(), [2], "sent again once, by the first flight");
}

#[tokio::test]
async fn what_is_asked_for_is_fetched_before_it_runs_down() {
    /// Asks until the name has run down; gives how often the upstream was asked.
    async fn asked(world: &World, name: &str) -> usize {
        let before = world.upstreams[0].asked();
        world.ask(name).await;
        let name = Name::from_text(name).expect("a name");
        while world.recursor.recall(question(&name, types::A)).is_ok()
            && world.upstreams[0].asked() < before + 2
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.upstreams[0].asked() - before
    }
    let never = World::with(&[Does::Short(1)], |settings| settings.prefetch = false).await;
    assert_eq!(asked(&never, "a.test").await, 1);
    // Whoever sleeps through the last tenth of a second gets another one.
    let world = World::new(&[Does::Short(1)]).await;
    for attempt in 0..10 {
        if asked(&world, &format!("a{attempt}.test")).await == 2 {
            world.metric("portolan_recursion_refreshes_total 1");
            return;
        }
    }
    panic!("nothing is asked for anew");
}

#[tokio::test]
async fn failures_of_an_outage_end_with_it() {
    let world = World::with(&[Does::Short(1)], |settings| {
        settings.recursor_timeout = Duration::from_millis(100);
    })
    .await;
    world.ask("known.test").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.upstreams[0].does(Does::Nothing);
    // Three failures in a row, and it rests.
    for name in ["a.test", "b.test", "c.test"] {
        assert_eq!(world.ask(name).await.rcode, Rcode::SERVFAIL);
    }
    assert_eq!(codes(&world.ask("known.test").await), [3]);
    world.upstreams[0].does(Does::Answer(2));
    assert_eq!(data(&world.ask("d.test").await), ["192.0.2.2"]);
    for name in ["a.test", "b.test", "c.test", "known.test"] {
        let answer = world.ask(name).await;
        assert_eq!(data(&answer), ["192.0.2.2"], "{name}");
        assert!(answer.errors.is_empty(), "{name}");
    }
}

/// Of what is kept of a name, what was learned last counts: a failure does not outlive the answer after it, nor
/// hide that the name is gone.
#[test]
fn a_failure_counts_until_something_is_known() {
    let name = Name::from_text("a.test").expect("a name");
    let form = Form::default();
    let begin = Instant::now();
    let second = Duration::from_secs(1);
    let soa = [&[0, 0][..], &[0; 16], &60_u32.to_be_bytes()].concat();
    let link = |rcode, rtype, rdata: &[u8], born| {
        let record = crate::dns::RawRecord {
            owner: name.as_wire(),
            rtype,
            ttl: 5,
            rdata,
        };
        let sets = link::Set::new(None, std::iter::once(record))
            .into_iter()
            .collect();
        let (answers, authority) = match rtype {
            types::SOA => (Vec::new(), sets),
            _ => (sets, Vec::new()),
        };
        let parts = link::Parts {
            rcode,
            alias: None,
            answers,
            authority,
            authentic: false,
            errors: Vec::new(),
        };
        Arc::new(Link::new(parts, born))
    };
    let mut failure = Link::failed(Vec::new(), None, begin);
    for _ in 0..5 {
        failure = Link::failed(Vec::new(), Some(&failure), begin);
    }
    let failure = Arc::new(failure);
    assert!(failure.holds(begin + 29 * second));
    let (mark, stale) = (Mark::default(), 600 * second);
    let question = Question {
        name: &name,
        qtype: types::A,
        form,
    };
    for (rcode, rtype, rdata) in [
        (Rcode::NOERROR, types::A, &[192, 0, 2, 1][..]),
        (Rcode::NXDOMAIN, types::SOA, &soa),
        (Rcode::NOERROR, types::SOA, &soa),
    ] {
        let cache = Cache::new(1 << 20);
        cache.put(question, mark, &failure, begin);
        let later = begin + second;
        cache.put(question, mark, &link(rcode, rtype, rdata, later), later);
        for (after, age) in [(1, Age::Fresh), (20, Age::Expired)] {
            let got = cache.get(question, mark, stale, begin + after * second);
            let (got, own) = got.expect("something is known");
            assert_eq!((got.rcode, own), (rcode, age), "after {after} s");
        }
    }
    // And the other way round: what failed since then failed.
    let cache = Cache::new(1 << 20);
    let old = link(
        Rcode::NOERROR,
        types::A,
        &[192, 0, 2, 1],
        begin - 10 * second,
    );
    cache.put(question, mark, &old, begin - 10 * second);
    cache.put(question, mark, &failure, begin);
    let (got, _) = cache
        .get(question, mark, stale, begin + second)
        .expect("something is known");
    assert!(got.is_failure());
    // One that was long ago says nothing about how long the next one lasts.
    let next = Link::failed(Vec::new(), Some(&failure), begin + 90 * second);
    assert!(!next.holds(begin + 92 * second));
}

/// Who is asked changes; what is known stays, and what failed meanwhile is asked of the new ones.
#[tokio::test]
async fn others_are_asked_from_now_on() {
    let world = World::new(&[Does::Answer(1), Does::Rcode(ResponseCode::ServFail)]).await;
    let follow = |addresses: &[SocketAddr]| {
        let addresses: Vec<Address> = addresses.iter().copied().map(Address::from).collect();
        world.recursor.follow(&addresses).expect("upstreams");
    };
    world.ask("known.test").await;
    follow(&[world.upstreams[1].address]);
    assert_eq!(data(&world.ask("known.test").await), ["192.0.2.1"]);
    assert_eq!(world.ask("new.test").await.rcode, Rcode::SERVFAIL);
    follow(&[world.upstreams[0].address]);
    assert_eq!(data(&world.ask("new.test").await), ["192.0.2.1"]);
    follow(&[]);
    assert_eq!(codes(&world.ask("other.test").await), [NOT_READY]);
}

/// The operator's settings change; what is known stays, but for what others said of names that are now
/// forwarded, or what would be withheld now.
#[tokio::test]
async fn other_settings_from_now_on() {
    let world = World::new(&[Does::Answer(1), Does::Answer(2)]).await;
    let address = |number: usize| Address::from(world.upstreams[number].address);
    let adopt = |settings: &Settings| {
        let adopted = world.recursor.adopt(&[address(0)], settings.clone(), None);
        adopted.expect("good settings");
    };
    let mut settings = Settings::default();
    adopt(&settings);
    for name in ["known.test", "host.corp.test"] {
        assert_eq!(data(&world.ask(name).await), ["192.0.2.1"]);
    }
    settings.forward = vec![Forward {
        domain: Name::from_text("corp.test").expect("a name"),
        upstreams: vec![address(1)],
    }];
    settings.cache = 1 << 20;
    adopt(&settings);
    assert_eq!(data(&world.ask("host.corp.test").await), ["192.0.2.2"]);
    assert_eq!(data(&world.ask("known.test").await), ["192.0.2.1"]);
    assert_eq!(world.asked(), [2, 1]);
    settings.forward.clear();
    adopt(&settings);
    assert_eq!(data(&world.ask("host.corp.test").await), ["192.0.2.1"]);
    assert_eq!(world.asked(), [2, 1], "it was known from before");
    settings.refuse_rebinding = true;
    adopt(&settings);
    world.ask("known.test").await;
    assert_eq!(world.asked(), [3, 1]);
    settings.cache = 0;
    adopt(&settings);
    world.ask("known.test").await;
    assert_eq!(world.asked(), [4, 1]);
}
