//! `--from-agent`: the agent's `dns_config` as the defaults that the other layers go over.

use std::time::Duration;

use tracing::{info, warn};

use crate::config::{Config, RecursorStrategy, TruncateAddresses, Upstreams, parse};
use crate::consul::AgentDns;

use super::{Failure, parts};

/// Consul's own default, which is no wish of the operator's.
const UDP_ANSWER_LIMIT: u32 = 3;

/// Defaults as the agent of `config` has them. An agent that does not say, because it is away or
/// the token may not read it, is no reason not to start.
pub(super) async fn defaults(config: &Config) -> Result<Config, Failure> {
    let mut base = Config::default();
    let Some(consul) = &config.consul else {
        return Ok(base);
    };
    let client = parts::consul_client(consul)?;
    match AgentDns::read(&client).await {
        Ok(agent) => {
            apply(&agent, &mut base);
            info!("dns_config taken from the agent");
        }
        Err(error) => warn!(
            error,
            "the agent does not show its dns_config; our own defaults hold"
        ),
    }
    Ok(base)
}

/// What the agent has at Consul's default stays at ours (D7, D17).
fn apply(agent: &AgentDns, base: &mut Config) {
    take(&mut base.domain, parse::domain(&agent.domain).ok());
    if !agent.alt_domain.is_empty() {
        base.alt_domain = parse::domain(&agent.alt_domain).ok();
    }
    let recursors: Vec<_> = agent
        .recursors
        .iter()
        .flatten()
        .filter_map(|text| parse::upstream(text).ok())
        .collect();
    if !recursors.is_empty() {
        base.recursion.upstreams = Upstreams::List(recursors);
    }
    if agent.recursor_strategy == "random" {
        base.recursion.recursor_strategy = RecursorStrategy::Random;
    }
    take(
        &mut base.recursion.recursor_timeout,
        agent.recursor_timeout(),
    );
    let answers = &mut base.answers;
    answers.only_passing = agent.only_passing;
    if agent.enable_truncate {
        answers.truncate_addresses = TruncateAddresses::Tc;
    }
    answers.a_record_limit = agent.a_record_limit as usize;
    if agent.udp_answer_limit != UDP_ANSWER_LIMIT {
        answers.udp_answer_limit = agent.udp_answer_limit as usize;
    }
    take(&mut answers.node_ttl, agent.node_ttl().map(whole));
    for (pattern, ttl) in agent.service_ttl() {
        answers
            .service_ttl
            .insert(pattern.to_ascii_lowercase(), whole(ttl));
    }
    let [min_ttl, refresh, retry, expire] = agent.soa();
    take(&mut answers.soa.min_ttl, min_ttl);
    take(&mut answers.soa.refresh, refresh);
    take(&mut answers.soa.retry, retry);
    take(&mut answers.soa.expire, expire);
    if let Some(consul) = &mut base.consul {
        consul.translate_wan_addrs = agent.translate_wan_addrs;
    }
}

fn take<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// TTLs are whole seconds.
fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
