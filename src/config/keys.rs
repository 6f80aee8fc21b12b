//! THE table: every key of `portolan.toml`, with what it means, its default, its flag and its variable.
//! To add a key, add a field to the settings of the room that needs it, and a row here.

use std::time::Duration;

use strsim::osa_distance;

use crate::answers;
use crate::consul::Authorities;
use crate::docker::Deregister;
use crate::recursion::Upstreams;
use crate::secret::{Token, TokenSource};
use crate::upstream::Strategy;

use super::flags::Verb;
use super::flags::Verb::{Dev, Haproxy, Register, Serve};
use super::key::{Key, KeyFlag, Slot};
use super::settings::{Config, LogFormat, OnExit};
use super::{address, forward, parse};

/// A row becomes a [`Key`]: its path is its place in [`Config`] too, so that a row cannot write a field
/// that is another's. What stands elsewhere, or needs more than one word to say, is `Own`.
macro_rules! keys {
    ($(
        #[doc = $help:literal]
        $head:ident $(. $tail:ident)* : $form:ident $(( $($how:tt)* ))?
        $(, default $default:literal)?
        $(, example $example:literal)?
        $(, flag $flag:literal $value:literal $verbs:ident)?
        $(, env $variable:literal)? ;
    )*) => {
        /// Every key, table by table.
        pub static KEYS: &[Key] = &[$(
            Key {
                path: concat!(stringify!($head) $(, ".", stringify!($tail))*),
                help: $help.trim_ascii_start(),
                default: keys!(@option $($default)?),
                example: keys!(@option $($example)?),
                flag: keys!(@option $(KeyFlag { name: $flag, value: $value, verbs: $verbs })?),
                variable: keys!(@option $($variable)?),
                slot: keys!(@$form [$head $(. $tail)*] $($($how)*)?),
            },
        )*];
    };

    (@option) => { None };
    (@option $value:expr) => { Some($value) };

    (@Text [$($place:tt)+] $parse:expr) => {
        Slot::Text(|config, text| { config.$($place)+ = $parse(text)?; Ok(()) })
    };
    (@Optional [$($place:tt)+] $parse:expr) => {
        Slot::Text(|config, text| { config.$($place)+ = Some($parse(text)?); Ok(()) })
    };
    (@OrNone [$($place:tt)+] $parse:expr) => {
        Slot::Text(|config, text| {
            config.$($place)+ = match text { "none" => None, _ => Some($parse(text)?) };
            Ok(())
        })
    };
    (@Choice [$($place:tt)+] $choices:expr) => {
        Slot::Text(|config, text| { config.$($place)+ = parse::choice(text, $choices)?; Ok(()) })
    };
    (@Number [$($place:tt)+] $range:expr) => {
        Slot::Number(|config, number| {
            config.$($place)+ = parse::number(number, $range)?;
            Ok(())
        })
    };
    (@Time [$($place:tt)+] $range:expr) => {
        Slot::Time(|config, time| { config.$($place)+ = parse::time_within(time, $range)?; Ok(()) })
    };
    (@Ttl [$($place:tt)+]) => {
        Slot::Time(|config, time| { config.$($place)+ = parse::ttl(time)?; Ok(()) })
    };
    (@Size [$($place:tt)+]) => {
        Slot::Text(|config, text| { config.$($place)+ = parse::size(text)?; Ok(()) })
    };
    (@Switch [$($place:tt)+]) => { Slot::Switch(|config, on| config.$($place)+ = on) };
    (@List [$($place:tt)+] $parse:expr) => {
        Slot::List {
            empty: |config| config.$($place)+.clear(),
            add: |config, text| { config.$($place)+.push($parse(text)?); Ok(()) },
        }
    };
    (@Own [$($place:tt)+] $slot:expr) => { $slot };
}

const ALL: &[Verb] = &[Serve, Dev, Register, Haproxy];
const SERVERS: &[Verb] = &[Serve, Dev];
const WITH_DOMAIN: &[Verb] = &[Serve, Dev, Haproxy];
const WITH_CONSUL: &[Verb] = &[Serve, Register, Haproxy];
const SERVE: &[Verb] = &[Serve];
const REGISTER: &[Verb] = &[Register];
const HAPROXY: &[Verb] = &[Haproxy];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

keys! {
    /// Domain that services are under
    domain: Text(parse::domain), default "consul", flag "domain" "NAME" WITH_DOMAIN;
    /// A second domain with the same names
    alt_domain: Optional(parse::domain), example "example";
    /// Datacenter that services from files and containers belong to
    datacenter: Text(parse::datacenter), default "dc1";
    /// Keep the last known catalog here, so that a restart while Consul is away still answers
    state_dir: Optional(parse::path), example "/var/lib/portolan", flag "state-dir" "DIR" SERVE;

    /// Address for UDP and TCP; may be repeated
    server.listen: List(parse::listen_address), default "127.0.0.1:53", flag "listen" "IP:PORT" SERVERS;
    /// UDP workers for each address; one per core if not set
    server.workers: Number(1..=1024), example "4", flag "workers" "N" SERVE;
    /// TCP connections at most
    server.max_tcp_connections: Number(1..=1_000_000), default "512";
    /// TCP connections of one client at most
    server.max_tcp_connections_per_client: Number(1..=1_000_000), default "128";
    /// How long a TCP connection may be silent
    server.tcp_idle_timeout: Time(Duration::from_millis(100)..=HOUR), default "30s";
    /// Queries that may wait for an answer that is not in memory; more are dropped and counted
    server.queue_size: Number(1..=1_000_000), default "4096";

    /// Consul's HTTP API, or `none`; for `register` the agent of this host
    consul.address: OrNone(address::consul), default "http://127.0.0.1:8500",
        flag "consul" "URL|none" WITH_CONSUL, env "CONSUL_HTTP_ADDR";
    /// ACL token for Consul
    consul.token: Own(Slot::Text(|config, text| {
        config.consul.token = TokenSource::Given(Token::new(text)?);
        Ok(())
    })), example "11111111-2222-3333-4444-555555555555", env "CONSUL_HTTP_TOKEN";
    /// File with the ACL token for Consul; it is read again when it changes
    consul.token_file: Own(Slot::Text(|config, text| {
        config.consul.token = TokenSource::File(parse::path(text)?);
        Ok(())
    })), example "/etc/portolan/token", flag "token-file" "FILE" WITH_CONSUL, env "CONSUL_HTTP_TOKEN_FILE";
    /// Datacenter to ask for; the agent's own if not set
    consul.datacenter: Optional(parse::datacenter), example "dc2";
    /// Other agents of the same datacenter, asked in this order while the first is not well
    consul.fallback_addresses: List(address::consul), example "http://10.0.0.2:8500";
    /// Connections to Consul at most, 8 for `haproxy` and `register`; its agent resets the 201st of one host
    // With fewer there is no room for watches beside what is always open.
    consul.max_watches: Number(8..=10_000), default "80";
    /// Bytes that the lists of all services and nodes may bring in a second on average; bigger lists are read less often
    consul.list_rate: Number(1_000..=1_000_000_000), default "20000";
    /// Names that the lists do not have, yet or at all, that Consul is asked for in a second at most
    consul.unknown_rate: Number(0..=10_000), default "45";
    /// For how long at most the last known good is served while Consul is away; for ever if not set
    consul.max_stale: Time(Duration::ZERO..=Duration::MAX), example "24h";
    /// Whether instances and nodes of other datacenters answer with their `wan` addresses
    consul.translate_wan_addrs: Own(Slot::Switch(|config, on| {
        config.answers.translate_wan_addrs = on;
    })), default "false";
    /// Directory of PEM files of authorities for Consul's certificate
    consul.ca_path: Own(Slot::Text(|config, text| {
        config.consul.authorities = Authorities::Directory(parse::path(text)?);
        Ok(())
    })), example "/etc/portolan/ca", env "CONSUL_CAPATH";
    /// PEM file of authorities for Consul's certificate; those that the system trusts if not set
    consul.ca_file: Own(Slot::Text(|config, text| {
        config.consul.authorities = Authorities::File(parse::path(text)?);
        Ok(())
    })), example "/etc/portolan/ca.pem", env "CONSUL_CACERT";
    /// Our own certificate, where Consul asks for one
    consul.client_cert: Optional(parse::path), example "/etc/portolan/client.pem", env "CONSUL_CLIENT_CERT";
    /// The key of our certificate
    consul.client_key: Optional(parse::path), example "/etc/portolan/client-key.pem", env "CONSUL_CLIENT_KEY";
    /// Name to expect in Consul's certificate; the host of the address if not set
    consul.tls_server_name: Optional(parse::domain), example "server.dc1.consul", env "CONSUL_TLS_SERVER_NAME";
    /// Whether Consul's certificate is checked
    consul.verify: Switch, default "true", env "CONSUL_HTTP_SSL_VERIFY";

    /// Docker's API
    docker.address: Text(address::docker), default "unix:///var/run/docker.sock",
        flag "docker" "URL" REGISTER, env "DOCKER_HOST";
    /// Directory of ca.pem, cert.pem and key.pem, for TLS to Docker
    docker.cert_path: Optional(parse::path), example "/etc/portolan/docker", env "DOCKER_CERT_PATH";
    /// Whether `serve` answers for the running containers
    docker.serve: Switch, default "false";
    /// Address at which `serve` says that published ports are
    docker.ip: Optional(parse::service_address), example "10.0.0.5";

    /// Owner name in the metadata of registered services, of which only those with this name are removed; the ID of the Docker engine if not set
    register.owner: Optional(parse::owner), example "host-1", flag "owner" "NAME" REGISTER;
    /// Address of published ports; that of Consul's agent if not set
    register.ip: Optional(parse::service_address), example "10.0.0.5", flag "ip" "IP" REGISTER;
    /// Tags that every service gets
    register.tags: List(parse::tag), example "rest", flag "tags" "TAG,…" REGISTER;
    /// Register containers with their own addresses and ports instead of published ones
    register.internal: Switch, default "false", flag "internal" "" REGISTER;
    /// Register only containers with a SERVICE_NAME
    register.explicit: Switch, default "false", flag "explicit" "" REGISTER;
    /// Remove the services of a container that has ended `always`, or only `on-success`
    register.deregister: Choice(&[
        ("always", Deregister::Always),
        ("on-success", Deregister::OnSuccess),
    ]), default "always", flag "deregister" "WHEN" REGISTER;
    /// At the end `keep` all services or `deregister` them
    register.on_exit: Choice(&[("keep", OnExit::Keep), ("deregister", OnExit::Deregister)]),
        default "keep", flag "on-exit" "WHAT" REGISTER;
    /// How often everything is compared, whatever Docker says
    register.resync: Time(SECOND..=DAY), default "30s", flag "resync" "TIME" REGISTER;

    /// Directory of Consul service-definition files to serve; may be repeated
    services.directories: List(parse::path), example "/etc/portolan/services", flag "services" "DIR" SERVERS;

    /// Directory of zone files (*.zone) to serve
    zones.directory: Optional(parse::path), example "/etc/portolan/zones", flag "zones" "DIR" SERVERS;

    /// Resolver for all other names: an address, `tls://IP#NAME`, `https://NAME/PATH#IP` or `none`; may be repeated; the system's resolv.conf if not set
    recursion.upstreams: Own(Slot::List {
        empty: |config| config.recursion.upstreams = Upstreams::List(Vec::new()),
        add: add_upstream,
    }), example "192.0.2.53, tls://192.0.2.54#dns.example", flag "upstream" "ADDRESS|none" SERVERS;
    /// Domain that other resolvers are asked for, or a network for its reverse names, or `none` for a domain that does not exist; may be repeated
    recursion.forward: Own(Slot::Rules {
        empty: |config| config.recursion.forward.clear(),
        add: |config, text| forward::add(&mut config.recursion.forward, text),
        add_parts: |config, domains, upstreams| {
            let all = &mut config.recursion.forward;
            forward::add_parts(all, domains.iter().copied(), upstreams.iter().copied())
        },
    }), example "corp.example=10.1.0.53, 10.0.0.0/8=10.1.0.53", flag "forward" "DOMAIN=ADDRESS|none" SERVERS;
    /// Certificates (PEM) that vouch for `tls://` and `https://` resolvers; those that the system trusts if not set
    recursion.ca_file: Optional(parse::path), example "/etc/portolan/resolvers-ca.pem", flag "upstream-ca-file" "FILE" SERVERS;
    /// Hosts file with names and addresses of your own; may be repeated
    recursion.hosts: List(parse::path), example "/etc/hosts", flag "hosts" "FILE" SERVERS;
    /// Networks whose clients may recurse
    recursion.allow: List(parse::network), default "127.0.0.0/8, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16, ::1/128, fc00::/7, fe80::/10";
    /// In which order upstreams are asked: `sequential` or `random`
    recursion.recursor_strategy: Choice(&[
        ("sequential", Strategy::Sequential),
        ("random", Strategy::Random),
    ]), default "sequential";
    /// How long one upstream has to answer
    recursion.recursor_timeout: Time(Duration::from_millis(10)..=Duration::from_secs(60)), default "2s";
    /// Whether upstreams are asked over UDP with letters in random case, which makes replies harder to forge; some servers do not keep it
    recursion.random_case: Switch, default "false";
    /// Whether names of others may lead to private addresses and to your own names: `allow` or `refuse`
    recursion.rebinding: Own(Slot::Text(|config, text| {
        let choices = &[("allow", false), ("refuse", true)];
        config.recursion.refuse_rebinding = parse::choice(text, choices)?;
        Ok(())
    })), default "allow";
    /// Memory that answers of upstreams may take, such as `512KiB` or `1GiB`; 0 switches the cache off
    recursion.cache: Size, default "64MiB";
    /// For how long after their TTL answers are still served while no upstream has one; 0s switches it off
    recursion.stale: Time(Duration::ZERO..=Duration::from_secs(7 * 86_400)), default "24h";
    /// Whether names that are asked for are asked for anew shortly before their TTL is over
    recursion.prefetch: Switch, default "true";

    /// Largest UDP answer for Consul's names in bytes, even if the client accepts more
    // 512 bytes are every client's right; 65507 is the most that fits into a datagram.
    answers.max_udp_size: Number(512..=65_507), default "65507";
    /// Whether a cut A or AAAA answer of a service sets TC: `silent` or `tc`
    answers.truncate_addresses: Choice(&[("silent", false), ("tc", true)]), default "silent";
    /// What SRV records point at: `consul`, the node's name where the service has no address of its own, or always its `address`
    answers.srv_target: Choice(&[
        ("consul", answers::SrvTarget::Consul),
        ("address", answers::SrvTarget::Address),
    ]), default "consul";
    /// What SRV weights are multiplied by: 1, or 256 for HAProxy
    answers.srv_weight_scale: Own(Slot::Number(|config, scale| {
        config.answers.srv_weight_scale = match scale {
            1 => 1,
            256 => 256,
            _ => return Err(format!("expected 1 or 256, got {scale}")),
        };
        Ok(())
    })), default "1";
    /// Leave out instances with a warning, too
    answers.only_passing: Switch, default "false";
    /// TTLs of services, by name, `prefix*` or `*`
    answers.service_ttl: Own(Slot::Times(|config, pattern, time| {
        let pattern = parse::service_pattern(pattern)?;
        config.answers.service_ttl.set(&pattern, parse::ttl(time)?);
        Ok(())
    })), default "\"*\" = \"1s\"";
    /// TTL of nodes and addresses
    answers.node_ttl: Ttl, default "5s";
    /// A and AAAA records in one answer at most; 0 is no limit
    answers.a_record_limit: Number(0..=65_535), default "0";
    /// Records in a UDP answer to a client without EDNS at most; 0 is no limit
    answers.udp_answer_limit: Number(0..=65_535), default "0";
    /// TTL of negative answers
    answers.soa.min_ttl: Ttl, default "1s";
    /// Refresh interval in the SOA record
    answers.soa.refresh: Ttl, default "1h";
    /// Retry interval in the SOA record
    answers.soa.retry: Ttl, default "10m";
    /// Expiry in the SOA record
    answers.soa.expire: Ttl, default "24h";

    /// Where the keys for HAProxy are in Consul's KV store
    haproxy.prefix: Text(parse::prefix), default "service/haproxy", flag "prefix" "KEY" HAPROXY;
    /// Services with this tag get a backend
    haproxy.tag: Text(parse::tag), default "rest", flag "tag" "TAG" HAPROXY;
    /// Template of haproxy.cfg; the one in the program if not set
    haproxy.template: Optional(parse::path), example "/etc/portolan/haproxy.cfg.j2", flag "template" "FILE" HAPROXY;
    /// Path of the haproxy.cfg to write
    haproxy.output: Text(parse::path), default "/etc/haproxy/haproxy.cfg", flag "output" "FILE" HAPROXY;
    /// HAProxy, as a path or as a name on the PATH
    haproxy.program: Text(parse::path), default "haproxy", flag "haproxy" "PATH" HAPROXY;
    /// Socket of HAProxy's master process; without `exec`, of the one that is managed
    haproxy.master_socket: Text(parse::path), default "/run/haproxy-master.sock",
        flag "master-socket" "PATH" HAPROXY;
    /// Start HAProxy as a child
    haproxy.exec: Switch, default "true", flag "no-exec" "" HAPROXY;
    /// DNS server for HAProxy to ask
    haproxy.resolver: Text(parse::resolver), default "127.0.0.1:53", flag "resolver" "IP[:PORT]" HAPROXY;
    /// Address for requests
    haproxy.bind: Text(parse::listen_address), default "0.0.0.0:80", flag "bind" "IP:PORT" HAPROXY;
    /// Address of HAProxy's statistics; port 1936 if not set, on 127.0.0.1 only unless there are credentials for them
    haproxy.stats_bind: Optional(parse::listen_address), example "127.0.0.1:1936", flag "stats-bind" "IP:PORT" HAPROXY;
    /// USER:PASSWORD for HAProxy's statistics
    haproxy.stats_auth: Optional(parse::credentials), example "admin:secret", env "HAPROXY_STATS_AUTH";
    /// Minimum number of server slots in a backend
    haproxy.min_slots: Number(1..=10_000), default "32";
    /// How long the backend of a service that has gone stays, empty
    haproxy.linger: Time(Duration::ZERO..=HOUR), default "5m";
    /// How far reloads of HAProxy are apart at least, but for the first three
    haproxy.reload_pace: Time(Duration::ZERO..=HOUR), default "10s";
    /// How long to wait before believing that more than half of the services, or all keys, are gone
    haproxy.doubt: Time(Duration::ZERO..=HOUR), default "30s";
    /// How long HAProxy may differ from Consul before it is reloaded
    haproxy.heal_after: Time(SECOND..=HOUR), default "10s";
    /// How long requests in flight may take when HAProxy is stopped
    haproxy.stop_timeout: Time(Duration::ZERO..=HOUR), default "8s";

    /// Address of /healthz, /ready and /metrics, or `none`
    admin.listen: OrNone(parse::listen_address), default "127.0.0.1:8054",
        flag "admin" "IP:PORT|none" ALL;

    /// Form of log lines: text or json
    log.format: Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        default "text", flag "log-format" "text|json" ALL;
}

/// An address among others, or `none` alone.
fn add_upstream(config: &mut Config, text: &str) -> Result<(), String> {
    let listed = match &mut config.recursion.upstreams {
        Upstreams::List(listed) => Some(listed),
        Upstreams::None | Upstreams::System => None,
    };
    match (text, listed) {
        ("none", Some(listed)) if listed.is_empty() => config.recursion.upstreams = Upstreams::None,
        ("none", None) => {}
        (text, Some(listed)) if text != "none" => listed.push(text.parse()?),
        _ => {
            let message = "`none` switches recursion off: remove it, or remove the addresses";
            return Err(message.to_owned());
        }
    }
    Ok(())
}

/// The key of this name.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Is this the name of a table that holds keys?
pub(super) fn is_table(path: &str) -> bool {
    let inside = |key: &Key| {
        let rest = key.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    KEYS.iter().any(inside)
}

// What to say about a key that `portolan.toml` may not have: most are known ones in the wrong place, or slips
// of the pen.

/// Keys of Consul's own configuration that have another name here.
const CONSUL_NAMES: &[(&str, &str)] = &[
    ("recursors", "recursion.upstreams"),
    ("enable_truncate", "answers.truncate_addresses"),
    ("dns_config", "answers"),
    ("client_addr", "server.listen"),
];

/// What to say about a path that is neither a key nor a table.
pub(super) fn unknown(path: &str) -> String {
    if path == "recursion.cache_size" {
        return "the cache counts bytes now, not answers: use `recursion.cache`, such as \"64MiB\""
            .to_owned();
    }
    match nearest(path) {
        Some(key) if key.contains('.') || !path.contains('.') => {
            format!("unknown key, did you mean `{key}`?")
        }
        Some(key) => {
            format!("unknown key, did you mean `{key}`, which stands before the first [table]?")
        }
        None => format!("unknown key, known here: {}", siblings(path).join(", ")),
    }
}

/// The key that was most likely meant: one that is spelled nearly so in the same table, or one
/// of the same name in another table, or one that is spelled nearly so anywhere.
fn nearest(path: &str) -> Option<&'static str> {
    let (table, name) = split(path);
    let close = |candidate: &str| {
        let distance = osa_distance(name, split(candidate).1);
        // Two slips in a long word, one in a short one: more is another word.
        (distance <= if name.len() > 4 { 2 } else { 1 }).then_some(distance)
    };
    let closest = |inside: Option<&str>| {
        places()
            .filter(|candidate| inside.is_none_or(|table| split(candidate).0 == table))
            .filter_map(|candidate| close(candidate).map(|distance| (distance, candidate)))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, candidate)| candidate)
    };
    let consul_name = CONSUL_NAMES
        .iter()
        .find(|(theirs, _)| *theirs == name)
        .map(|(_, ours)| *ours);
    closest(Some(table))
        .or(consul_name)
        .or_else(|| closest(None))
}

/// Every key, and every table by its name.
fn places() -> impl Iterator<Item = &'static str> {
    let tables = KEYS
        .iter()
        .filter_map(|key| key.path.rsplit_once('.'))
        .map(|(table, _)| table);
    KEYS.iter().map(|key| key.path).chain(tables)
}

/// The names that may stand beside the given one.
fn siblings(path: &str) -> Vec<&'static str> {
    let (table, _) = split(path);
    let mut names: Vec<&str> = places()
        .filter(|candidate| split(candidate).0 == table)
        .map(|candidate| split(candidate).1)
        .collect();
    // Places are listed by table, so the same table comes in one run.
    names.dedup();
    names
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_get_the_likely_one_suggested() {
        for (path, suggestion) in [
            ("consul.adress", "did you mean `consul.address`?"),
            ("consul.tokne", "did you mean `consul.token`?"),
            ("listen", "did you mean `server.listen`?"),
            ("admin.lisen", "did you mean `admin.listen`?"),
            ("answers.min_ttl", "did you mean `answers.soa.min_ttl`?"),
            ("servr", "did you mean `server`?"),
            (
                "server.domain",
                "did you mean `domain`, which stands before the first [table]?",
            ),
            ("recursors", "did you mean `recursion.upstreams`?"),
            ("log.colour", "known here: format"),
        ] {
            let message = unknown(path);
            assert!(message.contains(suggestion), "{path}: {message}");
        }
    }

    #[test]
    fn what_may_stand_at_the_top_is_listed_once() {
        let message = unknown("something_else");
        assert_eq!(
            message,
            "unknown key, known here: domain, alt_domain, datacenter, state_dir, server, consul, \
     docker, register, services, zones, recursion, answers, haproxy, admin, log"
        );
    }
}
