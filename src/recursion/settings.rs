//! What an operator may set about recursion.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::dns::Name;
use crate::upstream::{Address, Strategy};

/// The resolvers that an operator wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// Those in the system's resolv.conf.
    System,
    /// These, in this order.
    List(Vec<Address>),
    /// Recursion is off.
    None,
}

/// A domain that upstreams of its own are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// In lower case.
    pub domain: Name,
    /// Who is asked, in this order; nobody, and its names do not exist, if there is none.
    pub upstreams: Vec<Address>,
}

/// What an operator may set about recursion: the keys of `[recursion]`, and three times and limits that
/// are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who is asked.
    pub upstreams: Upstreams,
    /// Who is asked for names of these domains instead; the longest counts.
    pub forward: Vec<Forward>,
    /// Who may vouch for upstreams that are asked over TLS and HTTPS, as PEM; those whom the system trusts, if there is
    /// none.
    pub ca_file: Option<PathBuf>,
    /// Hosts files, whose names are answered here.
    pub hosts: Vec<PathBuf>,
    /// Clients that may recurse. No network of v4-mapped addresses is in here: compare with a client's
    /// canonical address.
    pub allow: Vec<IpNet>,
    /// In which order upstreams that are well are asked.
    pub recursor_strategy: Strategy,
    /// How long one upstream may take for one question.
    pub recursor_timeout: Duration,
    /// After how long without an answer the next upstream is asked as well. The first good answer
    /// of all wins.
    pub hedge_after: Duration,
    /// How long one question may take in all.
    pub deadline: Duration,
    /// Whether upstreams are asked with letters in random case.
    pub random_case: bool,
    /// Whether answers that lead inside are withheld, unless their domain is forwarded: private addresses, and
    /// aliases to our own names.
    pub refuse_rebinding: bool,
    /// Bytes that the answers of upstreams may take in memory.
    pub cache: u64,
    /// For how long after their time answers are served while upstreams have none.
    pub stale: Duration,
    /// Whether names that are asked for are asked for anew shortly before their time is over.
    pub prefetch: bool,
    /// How many questions may wait for upstreams at a time, of which one client gets a half at most. What is
    /// more gets SERVFAIL at once.
    pub max_concurrent: usize,
}

impl Default for Settings {
    /// 2 s per upstream as in Consul, hedged after 300 ms, 5 s in all (after that, clients have asked
    /// again), 64 MiB, stale for a day, 1024 questions; for clients behind the same router.
    fn default() -> Self {
        Self {
            upstreams: Upstreams::System,
            forward: Vec::new(),
            ca_file: None,
            hosts: Vec::new(),
            allow: behind_the_same_router(),
            recursor_strategy: Strategy::default(),
            recursor_timeout: Duration::from_secs(2),
            hedge_after: Duration::from_millis(300),
            deadline: Duration::from_secs(5),
            random_case: false,
            refuse_rebinding: false,
            cache: 64 << 20,
            stale: Duration::from_secs(86_400),
            prefetch: true,
            max_concurrent: 1024,
        }
    }
}

/// Loopback, private and link-local networks.
fn behind_the_same_router() -> Vec<IpNet> {
    let networks = [
        (IpAddr::from([127, 0, 0, 0]), 8),
        (IpAddr::from([10, 0, 0, 0]), 8),
        (IpAddr::from([172, 16, 0, 0]), 12),
        (IpAddr::from([192, 168, 0, 0]), 16),
        (IpAddr::from([169, 254, 0, 0]), 16),
        (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
        (IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7),
        (IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
    ];
    networks
        .into_iter()
        .map(|(address, prefix)| IpNet::new_assert(address, prefix))
        .collect()
}

/// Of the memory for answers one part of this many is the workers', for what they render of them.
const WORKERS_SHARE: u64 = 4;

impl Settings {
    /// Does anybody have to vouch for one of these, or for one that domains are forwarded to?
    pub fn need_trust(&self, upstreams: &[Address]) -> bool {
        let forward = self.forward.iter().flat_map(|own| &own.upstreams);
        upstreams.iter().chain(forward).any(Address::is_encrypted)
    }

    /// Bytes that the links of upstreams' answers may take.
    pub(super) fn links_cache(&self) -> u64 {
        self.cache - self.workers_cache() as u64
    }

    /// Bytes that workers may keep of what they made of upstreams' answers, all together.
    pub fn workers_cache(&self) -> usize {
        usize::try_from(self.cache / WORKERS_SHARE).unwrap_or(usize::MAX)
    }
}
