//! Whatever happens, in whatever order: the catalog becomes equal to the containers, what others did stays, and what is
//! up is there. Containers, tokens, agents, registrars and others take steps at random.

use crate::{
    health::checked_every,
    refused::{ROOT, delete_token, root_get, root_put, token, with_acl},
    servers::RULES,
    support::{
        docker::{Container, docker},
        ensure, eventually, http,
        registrar::Registrar,
        soak, write_file,
    },
    world::{Host, LATE, host_name},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Write, stderr},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

/// How often all is compared, and what a pass takes on the slowest machine beside that.
const RESYNC: &str = "1s";
const LONGEST_ABSENCE: Duration = Duration::from_secs(4);

/// Containers that there are.
const CONTAINERS: usize = 5;

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Stopped,
}

/// A container, and how it should be.
struct Own {
    container: Container,
    name: String,
    /// It has a HEALTHCHECK, and is as well as this.
    healthy: Option<bool>,
    state: State,
}

impl Own {
    fn id(&self) -> String {
        format!("{}:{}:80", host_name(), self.name)
    }

    fn is_up(&self) -> bool {
        self.state != State::Stopped
    }

    /// The status of its check, if it has one.
    fn status(&self) -> Option<&'static str> {
        let is_passing = self.healthy? && self.state == State::Running;
        Some(if is_passing { "passing" } else { "critical" })
    }
}

/// What may happen.
#[derive(Debug, Clone, Copy)]
enum Step {
    Stop,
    Start,
    Restart,
    Pause,
    Unpause,
    Rename,
    TurnIll,
    Recover,
    NewToken,
    RestartAgent,
    KillRegistrar,
    RemoveOurs,
    ChangeOurs,
    RemoveCheck,
    AddCheck,
    Maintain,
    AddForeign,
    RemoveForeign,
}

const STEPS: [Step; 18] = [
    Step::Stop,
    Step::Start,
    Step::Restart,
    Step::Pause,
    Step::Unpause,
    Step::Rename,
    Step::TurnIll,
    Step::Recover,
    Step::NewToken,
    Step::RestartAgent,
    Step::KillRegistrar,
    Step::RemoveOurs,
    Step::ChangeOurs,
    Step::RemoveCheck,
    Step::AddCheck,
    Step::Maintain,
    Step::AddForeign,
    Step::RemoveForeign,
];

/// Looks all the time whether what has to be there is.
struct Watcher {
    /// For each instance, the IDs of which one has to be there.
    must: Arc<Mutex<Vec<Vec<String>>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Duration>>,
}

impl Watcher {
    fn start(agent: SocketAddr) -> Self {
        let (must, is_over) = (
            Arc::<Mutex<Vec<Vec<String>>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (shared, ends) = (Arc::clone(&must), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut absent: BTreeMap<Vec<String>, Instant> = BTreeMap::new();
            let mut longest = Duration::ZERO;
            while !ends.load(Ordering::Relaxed) {
                // One that was asked before a step is none of after it.
                let must = shared.lock().expect("no thread panics").clone();
                absent.retain(|ids, _| must.contains(ids));
                let path = format!("/v1/agent/services?token={ROOT}");
                // An agent that is being started says nothing.
                let answer = http::get(agent, &path)
                    .ok()
                    .filter(|answer| answer.status == 200);
                if let Some(services) = answer.map(|answer| answer.json()) {
                    for ids in must {
                        if ids.iter().any(|id| services.get(id).is_some()) {
                            absent.remove(&ids);
                        } else {
                            let since = *absent.entry(ids).or_insert_with(Instant::now);
                            longest = longest.max(since.elapsed());
                        }
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
            longest
        });
        Self {
            must,
            is_over,
            thread: Some(thread),
        }
    }

    fn set(&self, must: Vec<Vec<String>>) {
        *self.must.lock().expect("no thread panics") = must;
    }

    /// The longest that anything was absent.
    fn end(mut self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("it watches to the end")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Everything that takes part.
struct World {
    host: Host,
    registrar: Option<Registrar>,
    watcher: Option<Watcher>,
    own: Vec<Own>,
    /// Services of others, by ID.
    foreign: BTreeMap<String, Value>,
    /// Checks of others on services of ours, with the service.
    checks: BTreeMap<String, String>,
    token: String,
    tokens: usize,
    names: usize,
    dice: Dice,
}

impl World {
    fn new(seed: u64) -> Self {
        let host = with_acl();
        let first = token(&host, RULES);
        write_file(host.proxy.directory(), "token", &first);
        let own = (0..CONTAINERS).map(|number| {
            let name = format!("c{number}");
            let container = match number % 2 {
                0 => checked_every(&host, &name, "300ms"),
                _ => host.service(&name, "plain"),
            };
            Own {
                name: container.name.clone(),
                container,
                healthy: (number % 2 == 0).then_some(true),
                state: State::Running,
            }
        });
        let mut world = Self {
            own: own.collect(),
            watcher: Some(Watcher::start(host.consul.http())),
            host,
            registrar: None,
            foreign: BTreeMap::new(),
            checks: BTreeMap::new(),
            token: first,
            tokens: 0,
            names: 0,
            dice: Dice(seed),
        };
        world.add_foreign();
        world.start_registrar();
        world
    }

    fn start_registrar(&mut self) {
        let file = self
            .host
            .proxy
            .directory()
            .join("token")
            .display()
            .to_string();
        let flags = ["--token-file", &file, "--resync", RESYNC];
        self.registrar = Some(self.host.launch(&flags));
    }

    fn add_foreign(&mut self) {
        self.names += 1;
        let id = format!("{}:theirs-{}:80", host_name(), self.names);
        let body = json!({ "ID": id, "Name": "theirs", "Port": self.names, "Tags": ["t"] });
        root_put(&self.host, "/v1/agent/service/register", &body);
        self.foreign.insert(id, body);
    }

    /// One of the containers for which it is so, at random.
    fn pick(&mut self, is: impl Fn(&Own) -> bool) -> Option<usize> {
        let fitting = self.own.iter().enumerate().filter(|(_, own)| is(own));
        let fitting: Vec<usize> = fitting.map(|(place, _)| place).collect();
        let place = self.dice.below(fitting.len().max(1));
        fitting.get(place).copied()
    }

    /// Whoever is up has to be there, but for this one, which is about to change.
    fn must_be_there(&self, but: Option<usize>, instead: Option<Vec<String>>) {
        let up = self.own.iter().enumerate();
        let up = up.filter(|(place, own)| own.is_up() && Some(*place) != but);
        let must = up.map(|(_, own)| vec![own.id()]).chain(instead).collect();
        self.watcher.as_ref().expect("it watches").set(must);
    }

    /// What was added to a service of ours goes with it.
    fn goes(&mut self, id: &str) {
        self.checks.retain(|_, service| service != id);
    }

    /// Takes a step. False if it is none at the moment.
    fn take(&mut self, step: Step) -> bool {
        let running = |own: &Own| own.state == State::Running;
        let place = match step {
            Step::Stop | Step::Restart | Step::Pause => self.pick(running),
            Step::Rename
            | Step::RemoveOurs
            | Step::ChangeOurs
            | Step::AddCheck
            | Step::Maintain => self.pick(Own::is_up),
            Step::Start => self.pick(|own| own.state == State::Stopped),
            Step::Unpause => self.pick(|own| own.state == State::Paused),
            Step::TurnIll => self.pick(|own| running(own) && own.healthy == Some(true)),
            Step::Recover => self.pick(|own| running(own) && own.healthy == Some(false)),
            Step::RemoveCheck => self.pick(|own| own.is_up() && own.healthy.is_some()),
            _ => Some(0),
        };
        let Some(place) = place else { return false };
        let id = self.own[place].id();
        let container = self.own[place].container.id.clone();
        let shown = root_get(&self.host, "/v1/agent/services")[&id].clone();
        // While no registrar runs, one may be up that is not registered.
        let concerns_ours = matches!(
            step,
            Step::RemoveOurs
                | Step::ChangeOurs
                | Step::RemoveCheck
                | Step::AddCheck
                | Step::Maintain
        );
        if concerns_ours && shown.is_null() {
            return false;
        }
        let tell = |arguments: &[&str]| {
            docker(arguments).unwrap_or_else(|error| panic!("{error}"));
        };
        match step {
            Step::Stop => {
                self.must_be_there(Some(place), None);
                tell(&["stop", "-t", "0", &container]);
                self.own[place].state = State::Stopped;
                self.goes(&id);
            }
            Step::Start => {
                tell(&["start", &container]);
                let own = &mut self.own[place];
                own.state = State::Running;
                // It makes its file anew.
                own.healthy = own.healthy.map(|_| true);
            }
            Step::Restart => {
                self.must_be_there(Some(place), None);
                tell(&["restart", "-t", "0", &container]);
                let own = &mut self.own[place];
                own.healthy = own.healthy.map(|_| true);
                self.goes(&id);
                self.wait_for_new_port(place);
            }
            Step::Pause => {
                tell(&["pause", &container]);
                self.own[place].state = State::Paused;
            }
            Step::Unpause => {
                tell(&["unpause", &container]);
                self.own[place].state = State::Running;
            }
            Step::Rename => {
                self.names += 1;
                let name = self.host.docker.name(&format!("n{}", self.names));
                let new = format!("{}:{name}:80", host_name());
                self.must_be_there(Some(place), Some(vec![id.clone(), new]));
                tell(&["rename", &container, &name]);
                self.own[place].name = name;
                self.goes(&id);
            }
            Step::TurnIll => {
                tell(&["exec", &container, "rm", "/healthy"]);
                self.own[place].healthy = Some(false);
            }
            Step::Recover => {
                tell(&["exec", &container, "touch", "/healthy"]);
                self.own[place].healthy = Some(true);
            }
            Step::NewToken => self.new_token(),
            Step::RestartAgent => {
                self.host.consul.restart();
                let path = format!("/v1/acl/policies?token={ROOT}");
                let agent = self.host.consul.http();
                eventually(LATE, "Consul is back", || {
                    let answer = http::get(agent, &path)?;
                    ensure(answer.status == 200, || format!("{answer:?}"))
                });
            }
            Step::KillRegistrar => {
                self.registrar.take().expect("one runs").kill();
                for _ in 0..2 {
                    let away = [
                        Step::Stop,
                        Step::Start,
                        Step::Rename,
                        Step::RemoveOurs,
                        Step::TurnIll,
                    ];
                    let step = away[self.dice.below(away.len())];
                    if self.take(step) {
                        let _ = writeln!(stderr(), "  meanwhile {step:?}");
                    }
                }
                // Nobody keeps up what is up while nobody runs.
                self.watcher.as_ref().expect("it watches").set(Vec::new());
                self.start_registrar();
            }
            Step::RemoveOurs => {
                root_put(
                    &self.host,
                    &format!("/v1/agent/service/deregister/{id}"),
                    &Value::Null,
                );
                self.goes(&id);
            }
            Step::ChangeOurs => {
                let body = json!({ "ID": id, "Name": shown["Service"], "Address": "192.0.2.1", "Port": 9,
                    "Tags": ["edited"], "Meta": shown["Meta"] });
                root_put(&self.host, "/v1/agent/service/register", &body);
            }
            Step::RemoveCheck => {
                let path = format!("/v1/agent/check/deregister/service:{id}");
                root_put(&self.host, &path, &Value::Null);
            }
            Step::AddCheck => {
                self.names += 1;
                let check = format!("theirs-{}", self.names);
                let body = json!({ "ID": check, "Name": check, "ServiceID": id, "TTL": "1h" });
                root_put(&self.host, "/v1/agent/check/register", &body);
                self.checks.insert(check, id);
            }
            Step::Maintain => {
                let check = format!("_service_maintenance:{id}");
                let is_on = self.checks.contains_key(&check);
                root_put(
                    &self.host,
                    &format!("/v1/agent/service/maintenance/{id}?enable={}", !is_on),
                    &Value::Null,
                );
                match is_on {
                    true => drop(self.checks.remove(&check)),
                    false => drop(self.checks.insert(check, id)),
                }
            }
            Step::AddForeign => self.add_foreign(),
            Step::RemoveForeign => {
                let Some((id, _)) = self.foreign.pop_first() else {
                    return false;
                };
                root_put(
                    &self.host,
                    &format!("/v1/agent/service/deregister/{id}"),
                    &Value::Null,
                );
            }
        }
        true
    }

    /// Until the restarted container is registered where it is reached now; what others added to it may have stayed or
    /// gone, by how quickly it was back.
    fn wait_for_new_port(&self, place: usize) {
        let own = &self.own[place];
        let (id, port) = (own.id(), own.container.published("80/tcp"));
        eventually(LATE, "it is registered where it is", || {
            let services = root_get(&self.host, "/v1/agent/services");
            let now = services[&id]["Port"].clone();
            ensure(now == port, || now.to_string())
        });
        let all = root_get(&self.host, "/v1/agent/checks");
        for (check, found) in all.as_object().expect("checks by ID") {
            if found["ServiceID"] == id.as_str() && *check != format!("service:{id}") {
                root_put(
                    &self.host,
                    &format!("/v1/agent/check/deregister/{check}"),
                    &Value::Null,
                );
            }
        }
    }

    /// Another token, and the one of before is deleted as soon as the agent does not need it any more.
    fn new_token(&mut self) {
        let registrar = self.registrar.as_ref().expect("one runs");
        let name = "portolan_register_writes_total{action=\"register\",outcome=\"ok\"}";
        let before = registrar.metric(name);
        self.tokens += 1;
        let new = token(&self.host, &format!("{RULES}{}", " ".repeat(self.tokens)));
        write_file(self.host.proxy.directory(), "token", &new);
        let up = self.own.iter().filter(|own| own.is_up()).count();
        eventually(LATE, "all are registered with it", || {
            let written = registrar.metric(name) - before;
            ensure(written >= up as f64, || written.to_string())
        });
        let old = std::mem::replace(&mut self.token, new);
        delete_token(&self.host, &old);
    }

    /// Is everything as it should be, as the servers have it?
    fn is_settled(&self) -> Result<(), String> {
        let node = self.host.consul.node();
        let catalog = root_get(&self.host, &format!("/v1/catalog/node/{node}"));
        let services = catalog["Services"].as_object().ok_or("no catalog")?;
        let up: Vec<&Own> = self.own.iter().filter(|own| own.is_up()).collect();
        let expected: BTreeSet<String> = up.iter().map(|own| own.id()).collect();
        let (ours, others): (Vec<_>, Vec<_>) = services
            .iter()
            .filter(|(id, _)| *id != "consul")
            .partition(|(_, service)| service["Meta"].get("portolan-owner").is_some());
        let found: BTreeSet<String> = ours.iter().map(|(id, _)| (*id).clone()).collect();
        ensure(found == expected, || {
            format!("{found:?} instead of {expected:?}")
        })?;
        for own in &up {
            let service = &services[&own.id()];
            let port = own.container.published("80/tcp");
            let is_right = service["Port"] == port && service["Tags"] == json!([]);
            ensure(is_right, || format!("{service} instead of port {port}"))?;
        }
        let others: BTreeMap<&String, &Value> = others.into_iter().collect();
        let names = |id: &&String| self.foreign.contains_key(*id);
        ensure(
            others.len() == self.foreign.len() && others.keys().all(names),
            || format!("{others:?} instead of {:?}", self.foreign),
        )?;
        for (id, service) in others {
            let body = &self.foreign[id];
            let is_same = service["Service"] == body["Name"]
                && service["Port"] == body["Port"]
                && service["Tags"] == body["Tags"];
            ensure(is_same, || format!("{service} instead of {body}"))?;
        }
        let checks = root_get(&self.host, &format!("/v1/health/node/{node}"));
        let checks = checks.as_array().ok_or("no checks")?.iter();
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let mut checks: BTreeMap<String, (String, String)> = checks
            .filter(|check| check["ServiceID"] != "")
            .map(|check| {
                (
                    text(check, "CheckID"),
                    (text(check, "ServiceID"), text(check, "Status")),
                )
            })
            .collect();
        for own in up {
            let expected = own.status().map(|status| (own.id(), status.to_owned()));
            let found = checks.remove(&format!("service:{}", own.id()));
            ensure(found == expected, || {
                format!("{found:?} instead of {expected:?}")
            })?;
        }
        let of_others = self.checks.iter();
        let of_others: BTreeMap<String, (String, String)> = of_others
            .map(|(check, id)| (check.clone(), (id.clone(), "critical".to_owned())))
            .collect();
        ensure(checks == of_others, || {
            format!("{checks:?} instead of {of_others:?}")
        })
    }
}

/// Fails with the seed and the steps on the standard error stream.
#[test]
fn the_catalog_equals_the_containers() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = since.expect("after 1970").as_nanos() as u64 | 1;
    let _ = writeln!(stderr(), "seed {seed}");
    let mut world = World::new(seed);
    eventually(LATE, "it begins well", || world.is_settled());
    let until = Instant::now() + soak(Duration::from_secs(30), Duration::from_secs(900));
    let mut steps = 0;
    while Instant::now() < until {
        world.must_be_there(None, None);
        let step = STEPS[world.dice.below(STEPS.len())];
        if !world.take(step) {
            continue;
        }
        let _ = writeln!(stderr(), "{steps}: {step:?}");
        steps += 1;
        eventually(LATE, &format!("all is well after {step:?}"), || {
            world.is_settled()
        });
    }
    let registrar = world.registrar.take().expect("one runs");
    let told = registrar.log();
    assert!(!told.contains("another process"), "{told}");
    let longest = world.watcher.take().expect("it watches").end();
    let _ = writeln!(
        stderr(),
        "{steps} steps; nothing was absent for longer than {longest:?}"
    );
    assert!(steps > 5, "only {steps} steps");
    assert!(longest < LONGEST_ABSENCE, "{longest:?}");
}
