//! Does HAProxy hold the servers that Consul has? Some releases cease to fill slots, or keep a server
//! that is gone, and only a reload helps them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::account::{Asked, Endpoints, Server, servers};
use super::metrics::Metrics;
use super::names::Names;

/// As many instances fit into an answer of the size that the template in the program takes. Of more,
/// HAProxy holds a part that cannot be foretold.
const FITTING: usize = 100;

/// How long all questions of one look may take, and how many there may be. Those that are left come first
/// the next time.
const ASKING: Duration = Duration::from_secs(2);
const ASKED: usize = 8;

/// The shortest and the longest time between two reloads that are to heal.
const FIRST_REST: Duration = Duration::from_secs(60);
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// What a look calls for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Well,
    /// A reload, for the sake of the servers of these names.
    Heal(Vec<String>),
}

/// What is wrong about one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Odd {
    /// HAProxy has it, and it is gone.
    Gone(SocketAddr),
    /// It is there, and HAProxy does not have it.
    Missing(SocketAddr),
}

/// Compares, and remembers since when something is wrong.
pub(super) struct Watchdog {
    names: Names,
    domain: String,
    after: Duration,
    metrics: Metrics,
    wrong: HashMap<Asked, Wrong>,
    rest: Duration,
    rest_until: Option<Instant>,
}

/// A name whose servers differ.
struct Wrong {
    since: Instant,
    /// In these they have differed ever since.
    odd: HashSet<Odd>,
    /// When DNS was last asked for it.
    asked: Option<Instant>,
    is_told: bool,
}

impl Watchdog {
    /// A watchdog that asks DNS when in doubt.
    pub(super) fn new(names: Names, domain: &str, after: Duration, metrics: Metrics) -> Self {
        Self {
            names,
            domain: domain.to_owned(),
            after,
            metrics,
            wrong: HashMap::new(),
            rest: FIRST_REST,
            rest_until: None,
        }
    }

    /// How long something must have been wrong.
    pub(super) fn after(&self) -> Duration {
        self.after
    }

    /// Compares HAProxy's account with Consul's instances, and with what DNS says where Consul's do not tell, which
    /// is added to them.
    pub(super) async fn look(&mut self, account: &str, known: &mut Endpoints) -> Verdict {
        let servers = servers(account, &self.domain);
        self.names.complete(&servers, known).await;
        self.wrong
            .retain(|name, _| servers.iter().any(|own| own.asked.as_ref() == Some(name)));
        self.note(differing(servers, known), known);
        let now = Instant::now();
        let mut sick = Vec::new();
        let due = self.wrong.iter();
        let due = due.filter(|(_, wrong)| now.duration_since(wrong.since) >= self.after);
        let mut due: Vec<_> = due
            .map(|(name, wrong)| (wrong.asked, name.clone()))
            .collect();
        due.sort();
        for (_, name) in due.into_iter().take(ASKED) {
            let Some(wrong) = self.wrong.get_mut(&name) else {
                continue;
            };
            wrong.asked = Some(Instant::now());
            let expected = known.get(&name);
            // Asked only now: most differences are over by the next answer of DNS.
            let said = self.names.ask(&name);
            let Ok(said) = timeout_at(now + ASKING, said).await else {
                break;
            };
            let side = match &said {
                Ok(said) if expected.is_some_and(|expected| agrees(expected, said)) => "haproxy",
                _ => "dns",
            };
            if !std::mem::replace(&mut wrong.is_told, true) {
                self.metrics.diverged(side);
                let dns = said.map_or_else(|error| error, |said| said.len().to_string());
                warn!(
                    name = name.name,
                    instances = expected.map_or(0, HashSet::len),
                    dns,
                    side,
                    "HAProxy's servers differ from Consul's"
                );
            }
            if side == "haproxy" {
                sick.push(name.name);
            }
        }
        if self.wrong.is_empty() && self.rest_until.is_some_and(|until| until <= now) {
            (self.rest, self.rest_until) = (FIRST_REST, None);
        }
        let rests = self.rest_until.is_some_and(|until| until > now);
        if sick.is_empty() || rests {
            return Verdict::Well;
        }
        self.rest_until = Some(now + self.rest);
        self.rest = (self.rest * 2).min(LONGEST_REST);
        self.wrong.clear();
        Verdict::Heal(sick)
    }

    /// Remembers what differs now, and since when. Of names that nothing is known of now, what was stays.
    fn note(&mut self, differing: BTreeMap<Asked, HashSet<Odd>>, known: &Endpoints) {
        let now = Instant::now();
        self.wrong
            .retain(|name, _| differing.contains_key(name) || !known.contains_key(name));
        for (name, odd) in differing {
            let wrong = self.wrong.entry(name).or_insert(Wrong {
                since: now,
                odd: HashSet::new(),
                asked: None,
                is_told: false,
            });
            wrong.odd.retain(|server| odd.contains(server));
            if wrong.odd.is_empty() {
                // What differs now is no older: instances come and go, and HAProxy is a moment behind.
                (wrong.odd, wrong.since, wrong.is_told) = (odd, now, false);
            }
        }
    }
}

/// Does DNS say what is expected? It may have addresses of another family beside it.
fn agrees(expected: &HashSet<SocketAddr>, said: &HashSet<SocketAddr>) -> bool {
    let of = |all: &HashSet<SocketAddr>, is_ipv4| -> HashSet<SocketAddr> {
        let all = all.iter().copied();
        all.filter(|at| at.is_ipv4() == is_ipv4).collect()
    };
    let is_same = |is_ipv4| {
        let expected = of(expected, is_ipv4);
        expected.is_empty() || expected == of(said, is_ipv4)
    };
    is_same(true) && is_same(false)
}

/// The names whose servers are not those that they should be, and in what.
fn differing(servers: Vec<Server<'_>>, known: &Endpoints) -> BTreeMap<Asked, HashSet<Odd>> {
    let mut held: HashMap<(&str, Asked), (HashSet<SocketAddr>, usize)> = HashMap::new();
    for server in servers {
        let endpoint = server.known_as();
        if let Some(asked) = server.asked {
            let (endpoints, slots) = held.entry((server.backend, asked)).or_default();
            endpoints.extend(endpoint);
            *slots += 1;
        }
    }
    let mut differing: BTreeMap<Asked, HashSet<Odd>> = BTreeMap::new();
    for ((_, asked), (held, slots)) in held {
        // Where there is no healthy instance, HAProxy keeps the last ones for a while.
        let Some(expected) = known.get(&asked).filter(|known| !known.is_empty()) else {
            continue;
        };
        // An instance may have an address of each family, of which a line takes one.
        let of_family = |is_ipv4| expected.iter().filter(|at| at.is_ipv4() == is_ipv4).count();
        let enough = match asked.is_srv {
            true => of_family(true)
                .max(of_family(false))
                .min(slots)
                .min(FITTING),
            false => 1,
        };
        let gone = held.difference(expected).copied().map(Odd::Gone);
        let missing = expected.difference(&held).copied().map(Odd::Missing);
        let lacks = held.len() < enough;
        let odd: HashSet<Odd> = gone.chain(missing.filter(|_| lacks)).collect();
        if !odd.is_empty() {
            differing.entry(asked).or_default().extend(odd);
        }
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::account::EMPTY;

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    /// An account of one backend with these servers and one free slot.
    fn account(lasts: &[u8]) -> String {
        let line = |address: &str, port: u16| {
            format!(
                "3 web 1 s1 {address} 2 64 1 1 9 6 3 4 6 0 0 0 x.addr.dc1.consul {port} \
                 _web._tcp.service.consul 0 0 - - 0\n"
            )
        };
        let lines: String = lasts
            .iter()
            .map(|last| line(&endpoint(*last).ip().to_string(), 80))
            .collect();
        format!("{EMPTY}{lines}{}", line("-", 0))
    }

    /// HAProxy is always a moment behind: while it follows, nothing is wrong for long.
    #[tokio::test(start_paused = true)]
    async fn what_follows_is_not_healed_and_what_stays_wrong_is() {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let names = Names::new(nowhere).expect("a resolver");
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let after = Duration::from_secs(3);
        let mut watchdog = Watchdog::new(names, "consul", after, metrics);
        let asked = Asked::of_service("web", "consul");
        let mut since = |held: &[u8], is: &[u8]| {
            let endpoints = is.iter().map(|last| endpoint(*last)).collect();
            let known = Endpoints::from([(asked.clone(), endpoints)]);
            watchdog.note(differing(servers(&account(held), "consul"), &known), &known);
            let wrong = watchdog.wrong.get(&asked);
            wrong.map(|wrong| wrong.since.elapsed().as_secs())
        };
        let second = || tokio::time::advance(Duration::from_secs(1));
        assert_eq!(since(&[1, 2], &[1, 2]), None);
        for _ in 0..5 {
            // 2 goes, and is seen to be there still; it comes, and is seen to be missing.
            assert_eq!(since(&[1, 2], &[1]), Some(0));
            second().await;
            assert_eq!(since(&[1], &[1, 2]), Some(0));
            second().await;
        }
        // 1 should long be gone, whatever else changes.
        for seconds in 0..5 {
            let others: &[u8] = if seconds % 2 == 0 { &[2] } else { &[2, 3] };
            assert_eq!(since(&[1, 2], others), Some(seconds));
            second().await;
        }
        assert_eq!(since(&[2], &[2]), None);
    }

    #[test]
    fn an_address_of_each_family_is_one_instance() {
        let six = |last: u16| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last], 80));
        let both = HashSet::from([endpoint(1), endpoint(2), six(1), six(2)]);
        let known = Endpoints::from([(Asked::of_service("web", "consul"), both.clone())]);
        assert!(differing(servers(&account(&[1, 2]), "consul"), &known).is_empty());
        assert!(!differing(servers(&account(&[1]), "consul"), &known).is_empty());
        let four = HashSet::from([endpoint(1), endpoint(2)]);
        assert!(agrees(&four, &both) && agrees(&both, &both) && !agrees(&both, &four));
        assert!(!agrees(&HashSet::from([endpoint(1)]), &both));
    }

    #[test]
    fn what_is_missing_and_what_is_too_much() {
        let known = |lasts: &[u8]| {
            let endpoints = lasts.iter().map(|last| endpoint(*last)).collect();
            Endpoints::from([(Asked::of_service("web", "consul"), endpoints)])
        };
        let differs = |held: &[u8], is: &[u8]| {
            !differing(servers(&account(held), "consul"), &known(is)).is_empty()
        };
        assert!(!differs(&[1, 2], &[1, 2]));
        assert!(differs(&[1], &[1, 2]), "one is missing");
        assert!(differs(&[1, 2], &[1]), "one is too much");
        assert!(!differs(&[1, 2], &[]), "the last ones are kept for a while");
        let two = account(&[1, 2]);
        let (full, _) = two.rsplit_once("3 web").expect("a free slot");
        assert!(
            differing(servers(full, "consul"), &known(&[1, 2, 3])).is_empty(),
            "no slot is free"
        );
    }
}
