//! The lists that cannot be watched and seldom change: datacenters, cluster peers, and which Consul it is.
//!
//! Datacenters and peers are believed like everything else. One that is new is known at once; one that is missing
//! was perhaps not found yet by a server that has just started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::catalog::{Layer, Peers};

use super::agent::{self, Itself};
use super::client::{Ask, Mode, RequestError, is_refusal};
use super::contact::{Context, WatchHandle};
use super::json;
use super::pace::{Cost, Pace};

/// How often they are read if nobody asks for a datacenter that is not known.
const EVERY: Duration = Duration::from_secs(60);

/// How far apart two reads are at least, whoever asks.
const APART: Duration = Duration::from_secs(1);

/// A datacenter or peer is gone when no list has had it for so long, and so many lists. Servers look for those of
/// other datacenters every 30 s.
const DOUBT: Duration = Duration::from_secs(30);
const LISTS_IN_DOUBT: usize = 5;

/// How often the lists are read meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Tells that somebody asks for one that is not known.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) datacenters: Notify,
    pub(super) peers: Notify,
}

/// Reads them again and again; datacenters and peers also when somebody has `wanted` one that is not known.
pub(super) async fn follow_lists(context: Context, layer: Arc<Layer>, wanted: Arc<Wanted>) {
    tokio::join!(
        follow_datacenters(&context, &layer, &wanted.datacenters),
        follow_peers(&context, &layer, &wanted.peers)
    );
}

async fn follow_peers(context: &Context, layer: &Layer, wanted: &Notify) {
    let mut pace = Pace::of_keys();
    let mut believed = BelievedPeers::new(layer);
    loop {
        let begun = Instant::now();
        let next = match read_peers(context, layer, &mut believed).await {
            Ok(()) => {
                pace.after_success(&Cost::default());
                match believed.is_in_doubt() {
                    true => LOOK_AGAIN,
                    false => EVERY,
                }
            }
            Err(error) => {
                debug!(%error, "cannot read Consul's cluster peers");
                let wait = error.asked_to_wait();
                layer.places().excuse_peers(wait);
                pace.after_failure(EVERY).max(wait).max(APART)
            }
        };
        tokio::select! {
            () = sleep_until(begun + next) => {}
            () = wanted_after(wanted, begun + APART) => {}
        }
    }
}

async fn follow_datacenters(context: &Context, layer: &Layer, wanted: &Notify) {
    let mut pace = Pace::of_keys();
    let mut handle = WatchHandle::new(&context.contact, &list_of_datacenters(), None);
    // What an earlier life knew goes as reluctantly.
    let known = layer.places().datacenters();
    let known = known.map_or_else(BTreeSet::new, |known| known.as_ref().clone());
    let mut believed = Believed::new("datacenter", known);
    let mut others_due = Instant::now();
    loop {
        handle.begin();
        let begun = Instant::now();
        match read_datacenters(context, layer).await {
            Ok(listed) => {
                believed.hear_and_tell(listed, context);
                layer.publish_datacenters(believed.known.clone());
                handle.answered();
                pace.after_success(&Cost::default());
                if begun >= others_due {
                    read_edition(context, layer).await;
                    others_due = begun + EVERY;
                }
                let next = match believed.is_in_doubt() {
                    false => others_due,
                    true => others_due.min(begun + LOOK_AGAIN),
                };
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = wanted_after(wanted, begun + APART) => {}
                }
            }
            Err(error) => {
                layer.places().excuse_datacenters(error.asked_to_wait());
                handle.failed(&error);
                sleep(error.asked_to_wait()).await;
                let pause = pace.after_failure(handle.longest_pause(&error)).max(APART);
                tokio::select! {
                    recovered = handle.rest(pause) => if recovered { pace.start_anew() },
                    () = wanted_after(wanted, begun + APART) => {}
                }
            }
        }
    }
}

/// Waits until somebody wants to know, but not less than until `earliest`.
async fn wanted_after(wanted: &Notify, earliest: Instant) {
    wanted.notified().await;
    sleep_until(earliest).await;
}

fn list_of_datacenters() -> Ask {
    Ask::new(&["catalog", "datacenters"])
}

async fn read_datacenters(
    context: &Context,
    layer: &Layer,
) -> Result<BTreeSet<String>, RequestError> {
    let response = context.get(&list_of_datacenters(), Mode::Stale).await?;
    let own = layer.local().datacenter().to_ascii_lowercase();
    let listed = json::datacenters(&response.body)
        .inspect_err(|_| context.metrics.suspect("body"))
        .map_err(RequestError::from)?;
    if !is_list(&listed, &own) {
        context.metrics.suspect("datacenters");
        return Err(RequestError::Suspect(
            "Consul's own datacenter is not in it",
        ));
    }
    Ok(listed)
}

/// Whoever knows of any datacenter knows of its own, whose name may not have been learned yet.
fn is_list(listed: &BTreeSet<String>, own: &str) -> bool {
    match own {
        "" => !listed.is_empty(),
        own => listed.contains(own),
    }
}

/// The datacenters, or the peers, that are believed to exist.
#[derive(Debug)]
struct Believed {
    /// One of them, in words.
    what: &'static str,
    known: BTreeSet<String>,
    /// Those of them that are not listed any more.
    missing: BTreeMap<String, Missing>,
}

/// Since when one of them is missing, and from how many lists.
#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    lists: usize,
}

/// What a list has changed.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    /// Missing for the first time.
    doubted: Vec<String>,
    /// Believed to be gone from now on.
    gone: Vec<String>,
}

impl Believed {
    fn new(what: &'static str, known: BTreeSet<String>) -> Self {
        Self {
            what,
            known,
            missing: BTreeMap::new(),
        }
    }

    fn is_in_doubt(&self) -> bool {
        !self.missing.is_empty()
    }

    fn hear_and_tell(&mut self, listed: BTreeSet<String>, context: &Context) {
        let what = self.what;
        let heard = self.hear(listed, Instant::now());
        if self.is_in_doubt() {
            context.metrics.suspect("datacenters");
        }
        for name in heard.doubted {
            info!(
                what,
                name, "Consul lists it no longer; kept until that is certain"
            );
        }
        for name in heard.gone {
            info!(what, name, "it is gone from Consul");
        }
    }

    fn hear(&mut self, listed: BTreeSet<String>, now: Instant) -> Heard {
        self.missing.retain(|name, _| !listed.contains(name));
        let mut heard = Heard {
            doubted: Vec::new(),
            gone: Vec::new(),
        };
        for name in self.known.difference(&listed) {
            let missing = self.missing.entry(name.clone()).or_insert_with(|| {
                heard.doubted.push(name.clone());
                Missing {
                    since: now,
                    lists: 0,
                }
            });
            missing.lists += 1;
            if missing.lists >= LISTS_IN_DOUBT && now.duration_since(missing.since) >= DOUBT {
                heard.gone.push(name.clone());
            }
        }
        for name in &heard.gone {
            self.missing.remove(name);
        }
        self.known = listed;
        self.known.extend(self.missing.keys().cloned());
        heard
    }
}

/// The peers that are believed to exist, and what each of them is believed to export.
#[derive(Debug)]
struct BelievedPeers {
    peers: Believed,
    exports: BTreeMap<String, Believed>,
    /// The log has said that the token may not list them.
    told: bool,
}

impl BelievedPeers {
    fn new(layer: &Layer) -> Self {
        Self {
            peers: Believed::new("cluster peer", layer.places().peers().unwrap_or_default()),
            exports: BTreeMap::new(),
            told: false,
        }
    }

    fn is_in_doubt(&self) -> bool {
        let mut exports = self.exports.values();
        self.peers.is_in_doubt() || exports.any(Believed::is_in_doubt)
    }

    fn hear(&mut self, listed: BTreeMap<String, BTreeSet<String>>, context: &Context) {
        let now = Instant::now();
        self.peers
            .hear_and_tell(listed.keys().cloned().collect(), context);
        self.exports
            .retain(|peer, _| self.peers.known.contains(peer));
        for (peer, exported) in listed {
            let known = self.exports.entry(peer);
            let known = known.or_insert_with(|| Believed::new("export", BTreeSet::new()));
            // A leader that was just elected has not heard of them all yet.
            let heard = known.hear(exported, now);
            debug!(?heard, "what a peer exports");
        }
    }

    fn known(&self) -> Peers {
        let names = |peer: &String| {
            let exports = self.exports.get(peer)?;
            Some(Arc::new(
                exports
                    .known
                    .iter()
                    .map(|name| name.as_str().into())
                    .collect(),
            ))
        };
        let peers = self.peers.known.iter();
        peers.map(|peer| (peer.clone(), names(peer))).collect()
    }
}

/// A Consul before 1.13 has no peers, and a token may not be allowed to list them.
async fn read_peers(
    context: &Context,
    layer: &Layer,
    believed: &mut BelievedPeers,
) -> Result<(), RequestError> {
    let ask = Ask {
        may_be_refused: true,
        ..Ask::new(&["peerings"])
    };
    let peers = match context.get(&ask, Mode::Stale).await {
        Ok(response) => json::peers(&response.body)?,
        Err(RequestError::Status { status, .. }) if status == StatusCode::NOT_FOUND => {
            BTreeMap::new()
        }
        Err(RequestError::Status { status, .. }) if is_refusal(status) => {
            if !std::mem::replace(&mut believed.told, true) {
                warn!(
                    "the ACL token may not list cluster peers, so only their services are known; give its policy \
                     `peering = \"read\"`"
                );
            }
            layer.places().hide_peers();
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    believed.told = false;
    believed.hear(peers, context);
    layer.publish_peers(believed.known());
    Ok(())
}

/// Without the agent's word it is taken for the community edition.
async fn read_edition(context: &Context, layer: &Layer) {
    let itself = context.get(&agent::ask_itself(), Mode::Stale).await;
    match itself.and_then(|response| Itself::read(&response.body)) {
        Ok(itself) => layer.places().publish_edition(itself.edition()),
        Err(error) => debug!(%error, "cannot read which Consul this is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_list_has_its_own_datacenter() {
        for (listed, own, expected) in [
            (&["dc1", "dc2"][..], "dc1", true),
            (&["dc1"], "dc1", true),
            (&["dc2"], "dc1", false),
            (&[], "dc1", false),
            (&["dc2"], "", true),
            (&[], "", false),
        ] {
            assert_eq!(is_list(&names(listed), own), expected, "{listed:?}");
        }
    }

    /// Lists with the seconds at which they were heard, and what is known then.
    #[test]
    fn what_is_known_of_datacenters() {
        const BOTH: &[&str] = &["dc1", "dc2"];
        const ONE: &[&str] = &["dc1"];
        const THREE: &[&str] = &["dc1", "dc2", "dc3"];
        type List = (u64, &'static [&'static str], &'static [&'static str]);
        let cases: [(&str, &[List]); 6] = [
            (
                "a new one is known at once",
                &[(0, ONE, ONE), (1, BOTH, BOTH)],
            ),
            (
                "one that is missing is kept for a while",
                &[
                    (0, BOTH, BOTH),
                    (60, ONE, BOTH),
                    (62, ONE, BOTH),
                    (70, ONE, BOTH),
                    (80, ONE, BOTH),
                    (89, ONE, BOTH),
                    (90, ONE, ONE),
                ],
            ),
            (
                "what comes back was never gone",
                &[
                    (0, BOTH, BOTH),
                    (10, ONE, BOTH),
                    (20, ONE, BOTH),
                    (30, ONE, BOTH),
                    (39, BOTH, BOTH),
                    (50, ONE, BOTH),
                    (60, ONE, BOTH),
                    (70, ONE, BOTH),
                    (79, ONE, BOTH),
                ],
            ),
            (
                "two lists that are far apart are too few",
                &[(0, BOTH, BOTH), (10, ONE, BOTH), (100, ONE, BOTH)],
            ),
            (
                "many lists in a short time are too soon",
                &[
                    (0, BOTH, BOTH),
                    (1, ONE, BOTH),
                    (2, ONE, BOTH),
                    (3, ONE, BOTH),
                    (4, ONE, BOTH),
                    (5, ONE, BOTH),
                    (6, ONE, BOTH),
                ],
            ),
            (
                "each by itself",
                &[
                    (0, THREE, THREE),
                    (1, &["dc1", "dc3"], THREE),
                    (10, ONE, THREE),
                    (20, ONE, THREE),
                    (30, ONE, THREE),
                    (31, ONE, &["dc1", "dc3"]),
                ],
            ),
        ];
        let start = Instant::now();
        for (what, lists) in cases {
            let mut believed = Believed::new("datacenter", BTreeSet::new());
            for (second, listed, known) in lists {
                believed.hear(names(listed), start + Duration::from_secs(*second));
                assert_eq!(believed.known, names(known), "{what}, second {second}");
            }
        }
    }

    #[test]
    fn each_doubt_and_each_end_is_told_once() {
        let mut believed = Believed::new("datacenter", BTreeSet::new());
        let start = Instant::now();
        believed.hear(names(&["dc1", "dc2"]), start);
        let (mut doubted, mut gone) = (Vec::new(), Vec::new());
        for second in 1..60 {
            let heard = believed.hear(names(&["dc1"]), start + Duration::from_secs(second));
            doubted.extend(heard.doubted);
            gone.extend(heard.gone);
        }
        assert_eq!(
            (doubted, gone),
            (vec!["dc2".to_owned()], vec!["dc2".to_owned()])
        );
    }
}
