//! What holds where nobody has set anything: Portolan's own defaults or, with `--from-agent`, what the agent
//! beside us has in its `dns_config`.
//!
//! An agent that cannot be asked is no reason not to start. Until it can be, what it said in an earlier life
//! holds, if there is a directory to keep that in.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::{Config, Flags, Loaded, parse};
use crate::consul::DnsConfig;
use crate::recursion::Upstreams;
use crate::upstream;

use super::build::consul_client;

/// How long an agent that hangs holds up the start.
const PATIENCE: Duration = Duration::from_secs(2);

/// The layer below the file, the environment and the flags.
#[derive(Debug)]
pub(super) struct Defaults {
    own: Config,
    agent: Option<Agent>,
}

/// What is known of the agent's settings.
#[derive(Debug, Default)]
struct Agent {
    known: Option<DnsConfig>,
    /// It has said so itself, in this life.
    is_heard: bool,
    /// Why it could not be heard, as the log has it.
    told: Option<String>,
}

impl Defaults {
    /// Those of a command, before an agent is asked.
    pub(super) fn of(flags: &Flags) -> Self {
        Self {
            own: Config::of(flags.verb),
            agent: flags.from_agent.then(Agent::default),
        }
    }

    /// What the other layers go over.
    pub(super) fn base(&self) -> Config {
        let mut base = self.own.clone();
        let agent = self.agent.as_ref();
        if let Some(known) = agent.and_then(|agent| agent.known.as_ref()) {
            apply(known, &mut base);
        }
        base
    }

    /// Is there an agent that has not been heard?
    pub(super) fn lack_agent(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| !agent.is_heard)
    }

    /// Asks the agent that `loaded` names, if it is to be asked. True if that changed anything.
    pub(super) async fn ask_agent(&mut self, loaded: &Loaded) -> bool {
        let Some(agent) = &mut self.agent else {
            return false;
        };
        if loaded.config.consul.address.is_none() {
            agent.is_heard = true;
            return false;
        }
        let Ok((client, _)) = consul_client(loaded) else {
            // Whoever makes the rest of the server tells what is wrong, with all else that is.
            return false;
        };
        let directory = loaded.config.state_dir.as_deref();
        match timeout(PATIENCE, DnsConfig::read(&client)).await {
            Ok(Ok(said)) => agent.hear(said, directory),
            Ok(Err(error)) => agent.miss(error.to_string(), directory),
            Err(_) => agent.miss(format!("no answer in {} s", PATIENCE.as_secs()), directory),
        }
    }
}

impl Agent {
    fn hear(&mut self, said: DnsConfig, directory: Option<&Path>) -> bool {
        info!("using the agent's dns_config for defaults");
        (self.is_heard, self.told) = (true, None);
        if self.known.as_ref() == Some(&said) {
            return false;
        }
        if let Some(directory) = directory
            && let Err(error) = said.remember(directory)
        {
            warn!(%error, "the agent's dns_config will not survive a restart");
        }
        self.known = Some(said);
        true
    }

    fn miss(&mut self, error: String, directory: Option<&Path>) -> bool {
        let before = self.known.is_some();
        if let (None, Some(directory)) = (&self.known, directory) {
            self.known = DnsConfig::remembered(directory).unwrap_or_else(|error| {
                warn!(%error, "what the agent's dns_config was cannot be read");
                None
            });
        }
        if self.told.as_ref() != Some(&error) {
            match self.known {
                Some(_) => warn!(
                    error,
                    "cannot read the agent's dns_config; using what it was"
                ),
                None => warn!(
                    error,
                    "cannot read the agent's dns_config; using Portolan's own defaults"
                ),
            }
            self.told = Some(error);
        }
        self.known.is_some() != before
    }
}

/// Consul's own default, which is no wish of the operator's.
const UDP_ANSWER_LIMIT: u32 = 3;

/// What the agent has at Consul's default stays at ours (D7, D17).
fn apply(agent: &DnsConfig, base: &mut Config) {
    take(&mut base.domain, parse::domain(&agent.domain).ok());
    if !agent.alt_domain.is_empty() {
        base.alt_domain = parse::domain(&agent.alt_domain).ok();
    }
    let recursors: Vec<_> = agent
        .recursors
        .iter()
        .flatten()
        .filter_map(|text| text.parse().ok())
        .collect();
    if !recursors.is_empty() {
        base.recursion.upstreams = Upstreams::List(recursors);
    }
    if agent.recursor_strategy == "random" {
        base.recursion.recursor_strategy = upstream::Strategy::Random;
    }
    take(
        &mut base.recursion.recursor_timeout,
        agent.recursor_timeout(),
    );
    let answers = &mut base.answers;
    answers.only_passing = agent.only_passing;
    answers.truncate_addresses = agent.enable_truncate;
    answers.a_record_limit = agent.a_record_limit as usize;
    if agent.udp_answer_limit != UDP_ANSWER_LIMIT {
        answers.udp_answer_limit = agent.udp_answer_limit as usize;
    }
    take(&mut answers.node_ttl, agent.node_ttl().map(seconds));
    for (pattern, ttl) in agent.service_ttl() {
        answers.service_ttl.set(&pattern, seconds(ttl));
    }
    take(&mut answers.soa.min_ttl, agent.min_ttl());
    let soa = &mut answers.soa;
    [soa.refresh, soa.retry, soa.expire] = agent.soa_timers();
    answers.translate_wan_addrs = agent.translate_wan_addrs;
}

fn take<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// TTLs are whole seconds.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
