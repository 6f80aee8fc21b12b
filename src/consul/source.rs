//! Which watches are open, and for how long.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::catalog::{
    Absence, Interest, Interests, Kind, Layer, Realm, Service, ServiceKey, Slot, Sought,
};

use super::Settings;
use super::client::Client;
use super::connections::{Connections, Resets};
use super::contact::Context;
use super::gateways;
use super::json::TagsByName;
use super::lists::{Wanted, follow_lists};
use super::metrics::Metrics;
use super::probe::follow;
use super::reads::{execute, find, sweep};
use super::subjects::{Instances, KeyValues, Keys, Names, Nodes};
use super::throttle::Throttle;
use super::watch::{refresh, watch};

/// How often watches that nobody needs are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// A service that nobody asked for in this time is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// A service that was asked for within so many seconds keeps its watch, and a datacenter its place.
const IN_USE: u64 = 10;

/// A datacenter for which there is no place is not asked for again at once.
const PUT_OFF: Duration = Duration::from_secs(1);

/// Consul as a source of the catalog.
#[derive(Debug)]
pub struct Source {
    context: Context,
    connections: Connections,
    layer: Arc<Layer>,
    interests: Interests,
    watches: HashMap<(usize, ServiceKey), Watch>,
    realms: Vec<Followed>,
    /// Watches on keys.
    others: usize,
    /// Where the tags of the local services are published, until that is watched.
    tags: Option<channel::Sender<Option<Arc<TagsByName>>>>,
    lists: Arc<Wanted>,
    executions: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A datacenter whose names and nodes are watched; or a cluster peer, whose names are listed with it.
#[derive(Debug)]
struct Followed {
    realm: Arc<Realm>,
    context: Context,
    stop: CancellationToken,
}

impl Followed {
    fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }

    fn is_watched(&self) -> bool {
        !self.realm.is_of_peer()
    }
}

/// An open watch on one service.
#[derive(Debug)]
struct Watch {
    realm: Arc<Realm>,
    slot: Arc<Slot<Service>>,
    stop: CancellationToken,
}

/// Is its source here? While it is away, what is forgotten could not be learned again.
fn is_current(realm: &&Arc<Realm>) -> bool {
    realm.stale_millis().is_none()
}

impl Source {
    /// A source that feeds `layer` with what `interests` ask for.
    pub fn new(
        client: Client,
        settings: &Settings,
        layer: Arc<Layer>,
        interests: Interests,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        layer.set_unlisted_rate(settings.unknown_rate);
        let connections = Connections::new(settings.max_watches);
        Self {
            context: Context {
                client,
                contact: metrics.new_contact(layer.local()),
                metrics,
                datacenter: settings.datacenter.clone(),
                list_rate: settings.list_rate,
                resets: Arc::new(Resets::default()),
                throttle: Arc::new(Throttle::new()),
            },
            layer,
            interests,
            watches: HashMap::new(),
            realms: Vec::new(),
            others: 0,
            tags: None,
            lists: Arc::default(),
            executions: Arc::new(Semaphore::new(connections.executions())),
            reads: Arc::new(Semaphore::new(connections.reads())),
            connections,
            tasks: TaskTracker::new(),
            stop,
        }
    }

    /// Watches the keys under a prefix, which ends in a slash, and publishes them: `None` until
    /// Consul has answered.
    pub fn watch_keys(&mut self, prefix: &str) -> channel::Receiver<Option<Arc<KeyValues>>> {
        let (sender, receiver) = channel::channel(None);
        let keys = Keys::new(self.context.clone(), prefix, sender);
        let stop = self.stop.child_token();
        self.tasks.spawn(watch(self.context.clone(), keys, stop));
        self.others += 1;
        self.context.metrics.set_watches("other", self.others);
        receiver
    }

    /// Publishes the tags of all services too, which come with their names: `None` until Consul has
    /// answered.
    pub fn watch_tags(&mut self) -> channel::Receiver<Option<Arc<TagsByName>>> {
        let (sender, receiver) = channel::channel(None);
        self.tags = Some(sender);
        receiver
    }

    /// Feeds the catalog until the stop.
    pub async fn run(mut self) {
        let local = Arc::clone(self.layer.local());
        self.open_realm(&local);
        // What an earlier life had in use is confirmed before it is asked for.
        for (key, slot) in local.loaded() {
            self.open_service(Arc::clone(&local), key, slot);
        }
        let (layer, wanted) = (Arc::clone(&self.layer), Arc::clone(&self.lists));
        self.spawn(follow_lists(self.context.clone(), layer, wanted));
        let mut sweep = tokio::time::interval(SWEEP);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                interest = self.interests.recv() => match interest {
                    Some(interest) => self.take(interest),
                    None => break,
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn take(&mut self, interest: Interest) {
        match interest {
            Interest::Realm(realm) => self.open_realm(&realm),
            Interest::Datacenters => self.lists.datacenters.notify_one(),
            Interest::Peers => self.lists.peers.notify_one(),
            Interest::Service { realm, key, slot } => self.open_service(realm, key, slot),
            Interest::Reverse(realm) => {
                self.spawn(sweep(self.context.clone(), realm, Arc::clone(&self.layer)));
            }
            Interest::Unlisted {
                realm,
                sought,
                absence,
            } => self.find(&realm, sought, absence),
            Interest::Query { key, slot } => {
                let context = self.context.clone();
                let places = Arc::clone(&self.executions);
                self.spawn(execute(context, key, slot, places));
            }
        }
    }

    /// Asks for what a list does not have.
    fn find(&self, realm: &Arc<Realm>, sought: Sought, absence: Arc<Absence>) {
        let Some(context) = self.context_of(realm) else {
            // The datacenter has gone since the interest was left.
            absence.excuse(Duration::ZERO);
            return;
        };
        let places = Arc::clone(&self.reads);
        self.spawn(find(context, Arc::clone(realm), sought, absence, places));
    }

    /// Runs beside this, until the stop.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(stop.run_until_cancelled_owned(task));
    }

    fn is_local(&self, realm: &Arc<Realm>) -> bool {
        Arc::ptr_eq(realm, self.layer.local())
    }

    /// What the watches of a realm that is followed share.
    fn context_of(&self, realm: &Arc<Realm>) -> Option<Context> {
        let mut followed = self.realms.iter();
        followed
            .find(|followed| Arc::ptr_eq(&followed.realm, realm))
            .map(|followed| followed.context.clone())
    }

    /// Watches the names and the nodes of a datacenter.
    fn open_realm(&mut self, realm: &Arc<Realm>) {
        if realm.is_of_peer() {
            // What a peer exports is listed with it, and read from our own servers.
            self.follow(realm, self.context.clone(), self.stop.child_token());
            self.layer.import(realm);
            return;
        }
        let is_local = self.is_local(realm);
        if !is_local && !self.make_room_for_realm() {
            self.context.metrics.realms_refused.inc();
            self.layer.put_off(realm, PUT_OFF);
            return;
        }
        let stop = self.stop.child_token();
        let context = if is_local {
            self.context.clone()
        } else {
            self.context.about(realm)
        };
        let names = Names {
            context: context.clone(),
            realm: Arc::clone(realm),
            tags: if is_local { self.tags.take() } else { None },
            left_out: BTreeSet::new(),
        };
        let nodes = Nodes {
            context: context.clone(),
            realm: Arc::clone(realm),
            is_local,
        };
        self.tasks
            .spawn(watch(context.clone(), names, stop.clone()));
        self.tasks
            .spawn(watch(context.clone(), nodes, stop.clone()));
        self.tasks.spawn(follow(context.clone(), stop.clone()));
        self.follow(realm, context, stop);
    }

    fn follow(&mut self, realm: &Arc<Realm>, context: Context, stop: CancellationToken) {
        let realm = Arc::clone(realm);
        let followed = Followed {
            realm,
            context,
            stop,
        };
        self.realms.push(followed);
        self.count_watches();
    }

    /// The realms whose names and nodes are watched.
    fn watched_realms(&self) -> usize {
        let realms = self.realms.iter();
        realms.filter(|realm| realm.is_watched()).count()
    }

    /// Loads a service: with a watch if there is a connection for it, or one that is needed less;
    /// else by reading it once, which the next question for it does again.
    fn open_service(&mut self, realm: Arc<Realm>, key: ServiceKey, slot: Arc<Slot<Service>>) {
        // The name may have gone, or the watch have been opened, since the interest was left.
        let id = (Arc::as_ptr(&realm) as usize, key.clone());
        let is_watched = self
            .watches
            .get(&id)
            .is_some_and(|open| Arc::ptr_eq(&open.slot, &slot));
        if !realm.holds(&key, &slot) || is_watched {
            return;
        }
        let Some(context) = self.context_of(&realm) else {
            // The datacenter has gone since the interest was left.
            slot.excuse(Duration::ZERO);
            return;
        };
        if key.kind() == Kind::ApiGateway {
            let places = Arc::clone(&self.reads);
            self.spawn(gateways::refresh(context, realm, key, slot, places));
            return;
        }
        let mut instances = Instances {
            context: context.clone(),
            realm: Arc::clone(&realm),
            key: key.clone(),
            slot: Arc::clone(&slot),
        };
        if !self.make_room() {
            let places = Arc::clone(&self.reads);
            self.spawn(async move {
                let Ok(_place) = places.acquire().await else { return };
                if let Err(error) = refresh(&context, &mut instances).await {
                    debug!(service = %instances.key, %error, "cannot refresh; keeping what is known");
                    instances.slot.excuse(error.asked_to_wait());
                }
            });
            return;
        }
        let stop = self.stop.child_token();
        debug!(service = %key, "watching");
        slot.set_watched(true);
        self.tasks.spawn(watch(context, instances, stop.clone()));
        let replaced = self.watches.insert(id, Watch { realm, slot, stop });
        if let Some(replaced) = replaced {
            replaced.stop.cancel();
        }
        self.count_watches();
    }

    /// Is there a connection for one more watch? If all are taken, the service that was asked for
    /// longest ago gives up its own, unless that is in use as well.
    fn make_room(&mut self) -> bool {
        let lists = 2 * self.watched_realms() + self.others;
        if self.connections.has_room(self.watches.len(), lists) {
            return true;
        }
        // A watch on what has gone has ended by itself, and left nothing at Consul.
        let open = self.watches.len();
        self.watches.retain(|_, open| !open.stop.is_cancelled());
        if self.watches.len() < open && self.connections.has_room(self.watches.len(), lists) {
            return true;
        }
        if !self.connections.may_exchange() {
            return false;
        }
        match self.least_asked() {
            Some((id, asked))
                if self.layer.versions().seconds().saturating_sub(asked) >= IN_USE =>
            {
                // Its connection is free once Consul has let it go; until then the other service is
                // read when it is asked for.
                self.close(&id);
                self.context.metrics.evicted.inc();
            }
            _ => {}
        }
        false
    }

    /// Is there a place for one more realm? If all are taken, the one that was asked for longest ago gives up its
    /// own, unless that is in use as well.
    fn make_room_for_realm(&mut self) -> bool {
        if self.watched_realms() < self.connections.realms() {
            return true;
        }
        let watched = self.realms.iter().filter(|realm| realm.is_watched());
        let others = watched.map(Followed::realm).filter(is_current);
        let others = others.filter_map(|realm| Some((self.layer.last_asked(realm)?, realm)));
        let Some((asked, oldest)) = others.min_by_key(|(asked, _)| *asked) else {
            return false;
        };
        let idle = self.layer.versions().seconds().saturating_sub(asked);
        if idle < IN_USE {
            return false;
        }
        debug!(scope = ?oldest.scope(), "no longer followed: others are asked for more");
        self.layer.let_go(oldest);
        self.close_gone();
        true
    }

    /// The watch on the service that was asked for longest ago, and when that was.
    fn least_asked(&self) -> Option<((usize, ServiceKey), u64)> {
        self.watches
            .iter()
            .map(|(id, open)| (id, open.slot.last_asked()))
            .min_by_key(|(_, asked)| *asked)
            .map(|(id, asked)| (id.clone(), asked))
    }

    /// Gives up the watches that Consul does not bear: what they are for is read when it is asked for.
    fn shrink(&mut self) {
        let resets = &self.context.resets;
        let Some(borne) = self.connections.review(resets, self.watches.len()) else {
            return;
        };
        let open = self.watches.len();
        warn!(
            open,
            borne,
            "Consul resets connections: its limit for this host is reached; watching fewer services"
        );
        while self.watches.len() > borne
            && let Some((id, _)) = self.least_asked()
        {
            self.close(&id);
        }
    }

    /// Closes a watch. What it published stays, and is confirmed when it is asked for.
    fn close(&mut self, id: &(usize, ServiceKey)) {
        if let Some(watch) = self.watches.remove(id) {
            // One that has ended by itself has left nothing at Consul.
            if !watch.stop.is_cancelled() {
                self.connections.closed();
            }
            watch.stop.cancel();
            watch.slot.set_watched(false);
            debug!(service = %id.1, "no longer watching");
        }
        self.count_watches();
    }

    fn count_watches(&self) {
        let metrics = &self.context.metrics;
        metrics.set_watches("service", self.watches.len());
        let realms = self.watched_realms();
        metrics.set_watches("names", realms);
        metrics.set_watches("nodes", realms);
        metrics.set_borne(self.connections.borne());
    }

    /// Closes watches on services and datacenters that ceased to exist, and forgets those that nobody asks for.
    fn sweep(&mut self) {
        self.shrink();
        let layer = Arc::clone(&self.layer);
        let refused = layer.take_unlisted_refused();
        self.context.metrics.unknown_refused.inc_by(refused);
        let now = self.layer.versions().seconds();
        let is_idle = |asked| now.saturating_sub(asked) > FORGET_AFTER.as_secs();
        for realm in self.realms.iter().map(Followed::realm).filter(is_current) {
            if layer.last_asked(realm).is_some_and(is_idle) {
                debug!(scope = ?realm.scope(), "no longer followed: nobody asks for it");
                layer.let_go(realm);
            }
        }
        self.close_gone();
        let mut idle = Vec::new();
        for realm in self.realms.iter().map(Followed::realm).filter(is_current) {
            for (key, slot) in realm.loaded() {
                if is_idle(slot.last_asked()) {
                    realm.forget(&key);
                    idle.push((Arc::as_ptr(realm) as usize, key));
                }
            }
        }
        for id in idle {
            self.close(&id);
        }
    }

    /// Closes watches on services and datacenters that ceased to exist.
    fn close_gone(&mut self) {
        let layer = Arc::clone(&self.layer);
        self.realms.retain(|followed| {
            let held = layer.holds(&followed.realm);
            if !held {
                followed.stop.cancel();
            }
            held
        });
        let gone = self.watches.iter().filter(|((_, key), open)| {
            !open.realm.holds(key, &open.slot) || !layer.holds(&open.realm)
        });
        let gone: Vec<_> = gone.map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.close(&id);
        }
    }
}
