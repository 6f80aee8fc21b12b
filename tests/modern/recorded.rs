//! What was recorded of a running Consul 1.16.4: `consul-1.16.json`, with what its agents answered over HTTP and
//! what their DNS answered.

use crate::{
    judge::Oracle,
    support::{
        dns::Query,
        wire::{Record, Reply, rcode, rtype},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

/// All of it.
pub(crate) struct Recording {
    pub(crate) worlds: Vec<World>,
    /// What the agents' recursor answered: names with their records by type, and a TTL.
    pub(crate) outside: BTreeMap<String, BTreeMap<String, Value>>,
}

/// One agent, seen from both sides.
pub(crate) struct World {
    name: String,
    pub(crate) reads: Vec<Read>,
    pub(crate) asked: Vec<Asked>,
    by_question: HashMap<Key, usize>,
}

/// One answer over HTTP.
#[derive(Clone, Deserialize)]
pub(crate) struct Read {
    pub(crate) path: String,
    pub(crate) params: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) client: Option<String>,
    #[serde(default)]
    pub(crate) token: Option<String>,
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

/// One question and the answer of its DNS.
#[derive(Deserialize)]
pub(crate) struct Asked {
    q: Vec<Value>,
    #[serde(default)]
    none: bool,
    #[serde(default)]
    rcode: String,
    #[serde(default)]
    flags: String,
    #[serde(default)]
    an: Vec<String>,
    #[serde(default)]
    ns: Vec<String>,
    #[serde(default)]
    ar: Vec<String>,
    #[serde(default)]
    opt: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct FileJson {
    upstream: UpstreamJson,
    worlds: Vec<WorldJson>,
}

#[derive(Deserialize)]
struct UpstreamJson {
    zone: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct WorldJson {
    name: String,
    http: Vec<Read>,
    dns: Vec<Asked>,
}

impl Recording {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let file: FileJson = serde_json::from_str(include_str!("consul-1.16.json"))
            .expect("the recording has its form");
        Self {
            worlds: file.worlds.into_iter().map(World::of).collect(),
            outside: file.upstream.zone,
        }
    }

    /// The world of that name.
    pub(crate) fn world(&self, name: &str) -> &World {
        let mut worlds = self.worlds.iter();
        worlds
            .find(|world| world.name == name)
            .expect("a world of the recording")
    }
}

impl World {
    fn of(json: WorldJson) -> Self {
        let mut by_question = HashMap::new();
        for (at, asked) in json.dns.iter().enumerate() {
            let query = asked.query();
            by_question.entry(key(&query)).or_insert(at);
        }
        let chains = chains(&json);
        Self {
            name: json.name,
            reads: [chains, json.http].concat(),
            asked: json.dns,
            by_question,
        }
    }
}

/// The discovery chains that nobody read where `.virtual` was asked for, as the agent's own answer has them.
fn chains(json: &WorldJson) -> Vec<Read> {
    let given = json.dns.iter().filter_map(|asked| {
        let answer = asked.an.first()?;
        let (owner, rest) = answer.split_once(".virtual.consul. ")?;
        let (_, address) = rest.split_once(" A ")?;
        let path = format!("/v1/discovery-chain/{owner}");
        let is_read = json.http.iter().any(|read| read.path == path);
        (!is_read && !owner.contains('.')).then(|| Read {
            path,
            params: BTreeMap::new(),
            client: None,
            token: None,
            status: 200,
            headers: BTreeMap::from([
                ("X-Consul-Index".to_owned(), "1".to_owned()),
                ("X-Consul-Knownleader".to_owned(), "true".to_owned()),
            ]),
            body: json!({ "Chain": { "AutoVirtualIPs": [address] } }),
        })
    });
    given.collect()
}

/// A question and how it was asked: over TCP or not, with which payload size, and with which options.
type Key = (String, u16, bool, Option<u16>, Vec<u8>);

fn key(query: &Query) -> Key {
    (
        query.name.clone(),
        query.rtype,
        query.is_tcp(),
        query.payload_size(),
        query.options().to_vec(),
    )
}

impl Oracle for World {
    /// What was not asked in that way may have been in another; what was not asked at all is answered SERVFAIL.
    fn answer(&self, query: &Query) -> Result<Reply, String> {
        let (name, rtype, tcp, size, options) = key(query);
        let ways = [
            (tcp, size),
            (true, None),
            (true, Some(4096)),
            (false, Some(4096)),
        ];
        let known = ways.iter().find_map(|(tcp, size)| {
            let key = (name.clone(), rtype, *tcp, *size, options.clone());
            self.by_question.get(&key)
        });
        match known.map(|at| &self.asked[*at]) {
            Some(asked) if asked.none => Err("Consul sends nothing".to_owned()),
            Some(asked) => Ok(asked.reply(query)),
            None => Ok(Reply::told(
                query.question(),
                rcode::SERVFAIL,
                Default::default(),
            )),
        }
    }
}

impl Asked {
    /// Whether Consul sent anything.
    pub(crate) fn is_answered(&self) -> bool {
        !self.none
    }

    /// The question, to be asked again.
    pub(crate) fn query(&self) -> Query {
        let word = |at: usize| self.q.get(at).and_then(Value::as_str);
        let query = Query::new(
            word(0).expect("a name"),
            type_named(word(1).expect("a type")),
        );
        let query = match word(2) {
            Some("tcp") => query.tcp(),
            _ => query,
        };
        let network = word(4).and_then(|network| network.split_once('/'));
        if let Some((ip, prefix)) = network {
            let ip: IpAddr = ip.parse().expect("an address");
            return query.on_behalf_of_network(ip, prefix.parse().expect("a prefix"));
        }
        match self.q.get(3).and_then(Value::as_u64) {
            Some(size) => query.edns(u16::try_from(size).expect("a payload size")),
            None => query,
        }
    }

    fn reply(&self, query: &Query) -> Reply {
        let mut flags = match self.rcode.as_str() {
            "NOERROR" => rcode::NOERROR,
            "FORMERR" => rcode::FORMERR,
            "SERVFAIL" => rcode::SERVFAIL,
            "NXDOMAIN" => rcode::NXDOMAIN,
            "NOTIMP" => rcode::NOTIMP,
            "REFUSED" => rcode::REFUSED,
            other => panic!("an unknown response code {other}"),
        };
        // RD was sent, and comes back.
        flags |= 0x0100;
        for flag in self.flags.split(' ') {
            flags |= match flag {
                "aa" => 0x0400,
                "tc" => 0x0200,
                "ra" => 0x0080,
                _ => 0,
            };
        }
        let records = |texts: &[String]| texts.iter().map(|text| record(text)).collect();
        let mut additional: Vec<Record> = records(&self.ar);
        additional.extend(self.opt.as_ref().map(|opt| {
            let size = opt.first().and_then(Value::as_u64);
            let subnet = opt.get(1).and_then(Value::as_str);
            Record {
                name: ".".to_owned(),
                rtype: rtype::OPT,
                class: size.map_or(0, |size| u16::try_from(size).expect("a payload size")),
                ttl: 0,
                data: subnet.map_or_else(String::new, option),
            }
        }));
        Reply::told(
            query.question(),
            flags,
            [records(&self.an), records(&self.ns), additional],
        )
    }
}

/// `ECS 10.0.0.5/32 scope/32` as the hexadecimal digits of the option.
fn option(subnet: &str) -> String {
    let mut words = subnet.split(' ').skip(1);
    let (ip, prefix) = words
        .next()
        .and_then(|network| network.split_once('/'))
        .expect("a network");
    let scope = words.next().and_then(|word| word.strip_prefix("scope/"));
    let number = |text: &str| -> u8 { text.parse().expect("a prefix") };
    let (prefix, scope) = (number(prefix), number(scope.expect("a scope")));
    let (family, octets) = match ip.parse().expect("an address") {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let sent = usize::from(prefix).div_ceil(8);
    let length = u8::try_from(4 + sent).expect("an address is short");
    let mut bytes = vec![0, 8, 0, length, 0, family, prefix, scope];
    bytes.extend(&octets[..sent]);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `OWNER TTL TYPE DATA`. A SOA's serial number is the time, which is told as of now.
fn record(text: &str) -> Record {
    let mut words = text.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (name, ttl, kind, data) = (word(), word(), word(), word());
    let rtype = type_named(kind);
    let data = match rtype {
        rtype::SOA => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.expect("a time after 1970").as_secs().to_string();
            let mut words: Vec<&str> = data.split(' ').collect();
            words[2] = &now;
            words.join(" ")
        }
        _ => data.to_owned(),
    };
    Record {
        name: name.to_owned(),
        rtype,
        class: 1,
        ttl: ttl.parse().expect("a TTL"),
        data,
    }
}

fn type_named(name: &str) -> u16 {
    let known = [
        rtype::A,
        rtype::NS,
        rtype::CNAME,
        rtype::SOA,
        rtype::PTR,
        rtype::MX,
        rtype::TXT,
        rtype::AAAA,
        rtype::SRV,
        rtype::HTTPS,
        rtype::AXFR,
        rtype::ANY,
    ];
    let mut known = known.into_iter();
    known
        .find(|known| rtype::name(*known) == name)
        .unwrap_or_else(|| panic!("an unknown type {name}"))
}
