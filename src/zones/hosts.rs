//! Hosts files (hosts(5)): addresses of names, and names of addresses, for what is in no zone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::answers::reverse_address;
use crate::dns::{Answer, Data, Name, Rcode, Record, types};

use super::load::{Error, read};

/// For how long clients may remember what an editor can change at any time.
const TTL: u32 = 60;

/// Types that are about how to reach a host (RFC 9460): what a file does not say of it, nobody else says.
const SVCB: u16 = 64;
const HTTPS: u16 = 65;

/// What the files say. Immutable, like the zones beside it.
#[derive(Debug, Default)]
pub struct Hosts {
    /// By name, in lower case.
    addresses: HashMap<Name, Vec<IpAddr>>,
    /// The first that a file has for an address.
    names: HashMap<IpAddr, Name>,
}

impl Hosts {
    /// Reads these files. What cannot be read of one is passed over with a warning, as the system does.
    ///
    /// # Errors
    /// Every file that cannot be read at all.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Vec<Error>> {
        let mut hosts = Self::default();
        let mut errors = Vec::new();
        for path in paths {
            match read(path) {
                Ok(text) => hosts.add(path, &text),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(hosts)
        } else {
            Err(errors)
        }
    }

    fn add(&mut self, path: &Path, text: &str) {
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(first) = words.next() else { continue };
            let pass_over = |what: &str, word: &str| {
                let (path, line) = (path.display(), number + 1);
                tracing::warn!(%path, line, "{what} {word:?} in a hosts file is passed over");
            };
            // A scope says something on this host alone.
            let Ok(address) = first.parse::<IpAddr>() else {
                pass_over("the address", first);
                continue;
            };
            let address = address.to_canonical();
            for word in words {
                let Some(name) = Name::from_text(word).ok().filter(is_host) else {
                    pass_over("the name", word);
                    continue;
                };
                let name = name.to_lowercase();
                self.names.entry(address).or_insert_with(|| name.clone());
                let own = self.addresses.entry(name).or_default();
                if !own.contains(&address) {
                    own.push(address);
                }
            }
        }
    }

    /// How many names they have.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Have they none?
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Is a name in them? `name` is in lower case.
    pub(super) fn have(&self, name: &Name) -> bool {
        self.addresses.contains_key(name) || self.name_of(name).is_some()
    }

    fn name_of(&self, reverse: &Name) -> Option<&Name> {
        if self.names.is_empty() {
            return None;
        }
        self.names.get(&reverse_address(reverse.as_wire())?)
    }

    /// What they say to a question; `None` if it is not theirs. `name` is in lower case.
    pub(super) fn lookup(&self, name: &Name, qtype: u16) -> Option<Answer> {
        let data: Vec<Data> = if let Some(addresses) = self.addresses.get(name) {
            let wanted = |ip: &IpAddr| match qtype {
                types::A => ip.is_ipv4(),
                types::AAAA => ip.is_ipv6(),
                _ => qtype == types::ANY,
            };
            if !matches!(qtype, types::A | types::AAAA | types::ANY | SVCB | HTTPS) {
                return None;
            }
            let addresses = addresses.iter().copied().filter(wanted);
            let data = |ip| match ip {
                IpAddr::V4(ip) => Data::A(ip),
                IpAddr::V6(ip) => Data::Aaaa(ip),
            };
            addresses.map(data).collect()
        } else {
            let is_asked = matches!(qtype, types::PTR | types::ANY);
            let host = self.name_of(name).filter(|_| is_asked)?;
            vec![Data::Ptr(host.clone())]
        };
        let record = |data| Record {
            owner: name.clone(),
            ttl: TTL,
            data,
        };
        Some(Answer {
            answers: data.into_iter().map(record).collect(),
            ..Answer::empty(Rcode::NOERROR, true)
        })
    }
}

/// Letters, digits, hyphens and underscores, as in names of hosts that people have.
fn is_host(name: &Name) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut labels = name.labels().peekable();
    labels.peek().is_some() && labels.all(|label| label.iter().all(is_plain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(text: &str) -> Hosts {
        let mut hosts = Hosts::default();
        hosts.add(Path::new("hosts"), text);
        hosts
    }

    fn ask(hosts: &Hosts, name: &str, qtype: u16) -> Option<Vec<String>> {
        let name = Name::from_text(name).expect("a name");
        let answer = hosts.lookup(&name, qtype)?;
        let text = |data: &Data| match data {
            Data::A(ip) => ip.to_string(),
            Data::Aaaa(ip) => ip.to_string(),
            Data::Ptr(name) => name.to_string(),
            other => format!("{other:?}"),
        };
        Some(
            answer
                .answers
                .iter()
                .map(|record| text(&record.data))
                .collect(),
        )
    }

    #[test]
    fn names_have_addresses_and_addresses_a_name() {
        const MX: u16 = 15;
        let hosts = hosts(
            "# comment\n192.0.2.1\tNas.Home nas # the box\n2001:db8::1 nas.home\n192.0.2.2 nas.home\r\n\
             192.0.2.1 other.home\n\n::ffff:192.0.2.9 mapped.home\n",
        );
        for (name, qtype, said) in [
            ("nas.home", types::A, Some(vec!["192.0.2.1", "192.0.2.2"])),
            ("nas.home", types::AAAA, Some(vec!["2001:db8::1"])),
            (
                "nas.home",
                types::ANY,
                Some(vec!["192.0.2.1", "2001:db8::1", "192.0.2.2"]),
            ),
            ("nas", types::AAAA, Some(vec![])),
            ("nas.home", HTTPS, Some(vec![])),
            ("nas.home", SVCB, Some(vec![])),
            ("nas.home", MX, None),
            ("home", types::A, None),
            ("x.nas.home", types::A, None),
            ("mapped.home", types::A, Some(vec!["192.0.2.9"])),
            (
                "1.2.0.192.in-addr.arpa",
                types::PTR,
                Some(vec!["nas.home."]),
            ),
            ("1.2.0.192.in-addr.arpa", types::A, None),
            ("3.2.0.192.in-addr.arpa", types::PTR, None),
        ] {
            let said = said.map(|all| all.into_iter().map(str::to_owned).collect());
            assert_eq!(ask(&hosts, name, qtype), said, "{name} {qtype}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let hosts = hosts(
            "nonsense\nfe80::1%lo0 scoped.home\n192.0.2.300 far.home\n192.0.2.1\n\
             192.0.2.1 bad!name ok.home a..b \n\u{0}\u{fffd} x\n",
        );
        assert_eq!(hosts.len(), 1);
        assert_eq!(
            ask(&hosts, "ok.home", types::A),
            Some(vec!["192.0.2.1".to_owned()])
        );
    }

    proptest! {
        /// Whatever stands in a file, nothing breaks, and a good line behind it counts.
        #[test]
        fn rubbish_hides_nothing(text in "[ -~\\t\\n#\u{e9}]{0,200}") {
            let hosts = hosts(&format!("{text}\n192.0.2.77 good.home\n"));
            let found = ask(&hosts, "good.home", types::A).expect("it is there");
            prop_assert!(found.contains(&"192.0.2.77".to_owned()));
        }
    }
}
