//! A master file's entries -> the record sets of one zone (RFC 1035 section 5, RFC 2308 section 4).

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use hickory_proto::rr::{DNSClass, LowerName, Name, Record, RecordSet, RecordType, RrKey};
use hickory_proto::serialize::txt::parse_ttl;

use super::rdata;
use super::tokens::{Entries, Entry, Fault, Token};

/// One zone as its file says it.
#[derive(Debug)]
pub(super) struct Master {
    /// The owner of the SOA record.
    pub(super) origin: Name,
    /// Every record set; each record of a set has the same TTL.
    pub(super) records: BTreeMap<RrKey, RecordSet>,
}

/// The largest TTL (RFC 2181 section 8). More is a typing error.
const MAX_TTL: u32 = 0x7fff_ffff;

/// So many faults of one file are told; a file with more is not one of records.
const MAX_FAULTS: usize = 20;

/// Reads a whole file.
///
/// `origin` is what relative names are relative to until a `$ORIGIN` line says otherwise. The zone
/// is where the SOA record is, which also reads files that start with `$ORIGIN .`, as BIND's tools
/// write them.
///
/// # Errors
/// All entries that are wrong, with their lines, up to one that what follows depends on, or to the
/// twentieth. A zone without
/// SOA is reported on line 1.
pub(super) fn parse(text: &str, origin: Option<Name>) -> Result<Master, Vec<Fault>> {
    let mut reader = Reader {
        origin,
        owner: None,
        default_ttl: None,
        last_ttl: None,
    };
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for entry in Entries::new(text) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(fault) => {
                faults.push(fault);
                break;
            }
        };
        let line = entry.line;
        let is_directive = entry.tokens.first().is_some_and(Token::is_directive);
        match reader.entry(entry) {
            Ok(Some(record)) => found.push((line, record)),
            Ok(None) => {}
            Err(message) => {
                faults.push(Fault { line, message });
                if is_directive || faults.len() == MAX_FAULTS {
                    break;
                }
            }
        }
    }
    match faults.is_empty() {
        true => assemble(found).map_err(|fault| vec![fault]),
        false => Err(faults),
    }
}

/// What one entry leaves behind for the next.
struct Reader {
    origin: Option<Name>,
    owner: Option<Name>,
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
}

impl Reader {
    /// A record, or `None` for a directive.
    fn entry(&mut self, entry: Entry) -> Result<Option<Record>, String> {
        let mut words = entry.tokens.as_slice();
        if !entry.indented
            && let [first, rest @ ..] = words
        {
            if first.is_directive() {
                self.directive(&first.text, rest)?;
                return Ok(None);
            }
            self.owner = Some(rdata::name(first, self.origin()?)?);
            words = rest;
        }
        let owner = self
            .owner
            .clone()
            .ok_or("the line starts with blank space, but no record is before it")?;
        let (ttl, words) = ttl_and_class(words)?;
        let [rtype, words @ ..] = words else {
            return Err(format!("no record type after {owner}"));
        };
        let rtype = rdata::record_type(&rtype.text)?;
        let data = rdata::rdata(rtype, words, self.origin()?)?;
        let ttl = ttl
            .or(self.default_ttl)
            .or(self.last_ttl)
            .ok_or("no TTL: put one on this line, or a $TTL line at the top")?;
        self.last_ttl = Some(ttl);
        Ok(Some(Record::from_rdata(owner, ttl, data)))
    }

    fn origin(&self) -> Result<&Name, String> {
        self.origin
            .as_ref()
            .ok_or_else(|| "a name before any $ORIGIN".to_owned())
    }

    fn directive(&mut self, which: &str, words: &[Token]) -> Result<(), String> {
        let one = || match words {
            [word] => Ok(word),
            _ => Err(format!("{which} takes one word, not {}", words.len())),
        };
        match which.to_ascii_uppercase().as_str() {
            "$ORIGIN" => {
                // The first line of a file may set an origin where none is yet.
                let base = self.origin.clone().unwrap_or_else(Name::root);
                self.origin = Some(rdata::name(one()?, &base)?);
                Ok(())
            }
            "$TTL" => {
                self.default_ttl = Some(seconds(&one()?.text)?);
                Ok(())
            }
            // It can name any file of the host and include itself without end. Nobody needs it for
            // the few static zones of a host.
            "$INCLUDE" => {
                Err("$INCLUDE is not followed: put the records into this file".to_owned())
            }
            _ => Err(format!("unknown directive {which}")),
        }
    }
}

/// Takes `[TTL] [class]` in either order off the front of a record's words.
fn ttl_and_class(mut words: &[Token]) -> Result<(Option<u32>, &[Token]), String> {
    let mut ttl = None;
    let mut class = None;
    while let [word, rest @ ..] = words {
        if ttl.is_none() && word.text.starts_with(|c: char| c.is_ascii_digit()) {
            ttl = Some(seconds(&word.text)?);
        } else if class.is_none()
            && let Ok(found) = DNSClass::from_str(&word.text.to_ascii_uppercase())
        {
            if found != DNSClass::IN {
                return Err(format!("class {found}; only IN is served"));
            }
            class = Some(found);
        } else {
            break;
        }
        words = rest;
    }
    Ok((ttl, words))
}

/// Seconds, or `1h30m` as BIND writes it.
fn seconds(word: &str) -> Result<u32, String> {
    match parse_ttl(word) {
        Ok(ttl) if ttl <= MAX_TTL => Ok(ttl),
        Ok(ttl) => Err(format!("a TTL of {ttl} s is more than {MAX_TTL}")),
        Err(_) => Err(format!("{word:?} is not a TTL")),
    }
}

/// Checks the records against each other and sorts them into sets.
fn assemble(found: Vec<(usize, Record)>) -> Result<Master, Fault> {
    let Some(origin) = found
        .iter()
        .find(|(_, record)| record.record_type() == RecordType::SOA)
        .map(|(_, record)| record.name.clone())
    else {
        return Err(Fault {
            line: 1,
            message: "the zone has no SOA record".to_owned(),
        });
    };
    let mut records: BTreeMap<RrKey, RecordSet> = BTreeMap::new();
    let mut kinds: HashMap<LowerName, Kind> = HashMap::new();
    for (line, record) in found {
        let fault = |message| Err(Fault { line, message });
        let rtype = record.record_type();
        let owner = LowerName::new(&record.name);
        if !origin.zone_of(&record.name) {
            return fault(format!("{} is outside of the zone {origin}", record.name));
        }
        let key = RrKey::new(owner.clone(), rtype);
        if rtype == RecordType::SOA && (records.contains_key(&key) || record.name != origin) {
            return fault(format!("a second SOA record; {origin} has one already"));
        }
        let kind = kinds.entry(owner).or_default();
        match rtype {
            // RFC 1034 section 3.6.2, RFC 2181 section 10.1.
            RecordType::CNAME if kind.alias || kind.other => {
                return fault(format!("{} has a CNAME and another record", record.name));
            }
            RecordType::CNAME => kind.alias = true,
            _ if kind.alias => {
                return fault(format!("{} has a CNAME and another record", record.name));
            }
            _ => kind.other = true,
        }
        match records.get_mut(&key) {
            Some(set) => {
                set.insert(record, 0);
            }
            None => {
                records.insert(key, RecordSet::from(record));
            }
        }
    }
    for set in records.values_mut() {
        // RFC 2181 section 5.2: one TTL for a set; the lowest is never wrong.
        let lowest = set.records_without_rrsigs().map(|record| record.ttl).min();
        if let Some(ttl) = lowest {
            set.set_ttl(ttl);
        }
    }
    Ok(Master { origin, records })
}

/// What is at a name so far.
#[derive(Default)]
struct Kind {
    alias: bool,
    other: bool,
}

#[cfg(test)]
mod tests {
    // Master files as people write them, and as they should not.

    use hickory_proto::rr::RData;
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "$TTL 60\n@ SOA ns admin 1 2 3 4 5\n";

    fn origin() -> Option<Name> {
        Some(Name::from_ascii("example.test.").expect("a name"))
    }

    fn read(records: &str) -> Master {
        parse(&format!("{HEAD}{records}"), origin()).expect("the file is good")
    }

    /// The line within `records`, counted from 1, and the message.
    fn fault(records: &str) -> (usize, String) {
        let faults = parse(&format!("{HEAD}{records}"), origin()).expect_err("the file is faulty");
        (faults[0].line - 2, faults[0].message.clone())
    }

    fn data(master: &Master, owner: &str, rtype: RecordType) -> Vec<String> {
        let owner = LowerName::new(&Name::from_ascii(owner).expect("a name"));
        let set = master.records.get(&RrKey::new(owner, rtype));
        set.map(|set| {
            set.records_without_rrsigs()
                .map(|r| format!("{} {}", r.ttl, r.data))
                .collect()
        })
        .unwrap_or_default()
    }

    #[test]
    fn owners_ttls_and_classes_carry_over_as_rfc_1035_says() {
        let master = read(concat!(
            "a 10 IN A 192.0.2.1\n",
            "  IN 1h AAAA 2001:db8::1\n",
            "$ORIGIN sub\n",
            "b A 192.0.2.2\n",
            "$ORIGIN other.example.test.\n",
            "  TXT x\n",
            "c CNAME @\n",
        ));
        assert_eq!(
            data(&master, "a.example.test.", RecordType::A),
            ["10 192.0.2.1"]
        );
        assert_eq!(
            data(&master, "a.example.test.", RecordType::AAAA),
            ["3600 2001:db8::1"]
        );
        assert_eq!(
            data(&master, "b.sub.example.test.", RecordType::A),
            ["60 192.0.2.2"]
        );
        assert_eq!(
            data(&master, "b.sub.example.test.", RecordType::TXT),
            ["60 x"]
        );
        assert_eq!(
            data(&master, "c.other.example.test.", RecordType::CNAME),
            ["60 other.example.test."]
        );
    }

    #[test]
    fn names_may_hold_what_hickorys_own_parser_refuses() {
        let master =
            read("my_host A 192.0.2.1\nx\\.y CNAME web_1\n\\097b PTR my_host\ns SRV 1 2 3 web_1\n");
        assert_eq!(
            data(&master, "my_host.example.test.", RecordType::A).len(),
            1
        );
        assert_eq!(
            data(&master, "x\\.y.example.test.", RecordType::CNAME),
            ["60 web_1.example.test."]
        );
        assert_eq!(data(&master, "ab.example.test.", RecordType::PTR).len(), 1);
        assert_eq!(
            data(&master, "s.example.test.", RecordType::SRV),
            ["60 1 2 3 web_1.example.test."]
        );
    }

    #[test]
    fn strings_keep_every_octet() {
        let master = read("t TXT ( \"a;b\" \"q\\\"\\\\\\200\"\n bare\\032x )\n");
        let key = RrKey::new(
            LowerName::new(&Name::from_ascii("t.example.test.").expect("a name")),
            RecordType::TXT,
        );
        let record = master.records[&key].record().expect("a record");
        let RData::TXT(txt) = &record.data else {
            panic!("not TXT: {record}");
        };
        let strings: Vec<&[u8]> = txt.txt_data.iter().map(AsRef::as_ref).collect();
        assert_eq!(strings, [b"a;b".as_slice(), b"q\"\\\xc8", b"bare x"]);
    }

    #[test]
    fn types_beyond_the_usual_are_read() {
        let master = read(concat!(
            "c CAA 0 issue \"ca.example.net; account=1\"\n",
            "n NAPTR 1 2 \"u\" \"E2U+sip\" \"!^.*$!sip:a@b!\" .\n",
            "h HTTPS 1 . alpn=\"h2,h3\"\n",
            "u TYPE65400 \\# 3 abcd ef\n",
            "m MX 10 mail\n",
        ));
        assert_eq!(
            data(&master, "m.example.test.", RecordType::MX),
            ["60 10 mail.example.test."]
        );
        assert_eq!(data(&master, "c.example.test.", RecordType::CAA).len(), 1);
        assert_eq!(data(&master, "n.example.test.", RecordType::NAPTR).len(), 1);
        assert_eq!(data(&master, "h.example.test.", RecordType::HTTPS).len(), 1);
        assert_eq!(
            data(&master, "u.example.test.", RecordType::from(65400)).len(),
            1
        );
    }

    #[test]
    fn one_ttl_for_a_set_and_no_doubles() {
        let master = read("a 30 A 192.0.2.1\na 20 A 192.0.2.2\na 40 A 192.0.2.1\n");
        assert_eq!(
            data(&master, "a.example.test.", RecordType::A),
            ["20 192.0.2.1", "20 192.0.2.2"]
        );
    }

    #[test]
    fn the_zone_is_where_its_soa_is() {
        let text = "$ORIGIN .\n$TTL 5\nzone.test IN SOA a b 1 2 3 4 5\n$ORIGIN zone.test.\nw A 192.0.2.1\n";
        let master = parse(text, origin()).expect("the file is good");
        assert_eq!(master.origin.to_string(), "zone.test.");
        assert_eq!(data(&master, "w.zone.test.", RecordType::A).len(), 1);
    }

    #[test]
    fn every_fault_names_its_line() {
        for (records, line, part) in [
            ("a A 192.0.2.1\nb A 192.0.2.300\n", 2, "not valid A data"),
            (
                "a A 192.0.2.1\n\nb A 192.0.2.1 192.0.2.2\n",
                3,
                "takes 1 field, not 2",
            ),
            ("a A\n", 1, "takes 1 field, not 0"),
            ("a\n", 1, "no record type"),
            ("a FOO x\n", 1, "unknown record type \"FOO\""),
            ("a CH A 192.0.2.1\n", 1, "only IN"),
            ("a A 192.0.2.1\na CNAME b\n", 2, "a CNAME and another"),
            ("a CNAME b\na CNAME c\n", 2, "a CNAME and another"),
            ("a CNAME b\na TXT c\n", 2, "a CNAME and another"),
            ("other.test. A 192.0.2.1\n", 1, "outside of the zone"),
            ("\n\n@ SOA ns admin 2 2 3 4 5\n", 3, "a second SOA"),
            ("$INCLUDE /etc/passwd\n", 1, "$INCLUDE is not followed"),
            ("$GENERATE 1-2 a A 192.0.2.$\n", 1, "unknown directive"),
            ("$TTL\n", 1, "takes one word"),
            ("a 3000000000 A 192.0.2.1\n", 1, "more than 2147483647"),
            ("a..b A 192.0.2.1\n", 1, "empty label"),
            ("a TXT \"\\999\"\n", 1, "more than 255"),
            ("a MX 10 mail (\n", 1, "never closed"),
            ("a RRSIG x\n", 1, "not valid RRSIG data"),
            ("a TYPE65400 \\# 3 abcd\n", 1, "4 hex digits, length 3"),
        ] {
            let (at, message) = fault(records);
            assert_eq!(at, line, "{records:?}: {message}");
            assert!(message.contains(part), "{records:?}: {message}");
        }
    }

    #[test]
    fn what_a_file_needs_at_least() {
        let fault = parse("a 1 A 192.0.2.1\n", origin())
            .expect_err("no SOA")
            .remove(0);
        assert_eq!(
            (fault.line, fault.message.as_str()),
            (1, "the zone has no SOA record")
        );
        let fault = parse("@ SOA a b 1 2 3 4 5\n", origin())
            .expect_err("no TTL")
            .remove(0);
        assert!(fault.message.contains("no TTL"), "{}", fault.message);
        let fault = parse("\n  A 192.0.2.1\n", origin())
            .expect_err("no owner")
            .remove(0);
        assert_eq!(fault.line, 2);
        let fault = parse("\na A 192.0.2.1\n", None)
            .expect_err("no origin")
            .remove(0);
        assert_eq!(fault.line, 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn rubbish_is_refused_without_a_panic(text in "\\PC*") {
            let _ = parse(&text, origin());
        }

        #[test]
        fn rubbish_data_is_refused_without_a_panic(
            rtype in prop::sample::select(vec![
                "A", "AAAA", "CAA", "CERT", "CSYNC", "HINFO", "HTTPS", "MX", "NAPTR", "NS", "NULL",
                "OPENPGPKEY", "OPT", "SMIMEA", "SOA", "SRV", "SSHFP", "SVCB", "TLSA", "TSIG", "TXT",
                "TYPE1", "TYPE65280", "DS", "KEY", "ANY", "AXFR", "DNAME",
            ]),
            words in prop::collection::vec(
                prop_oneof![
                    "[0-9]{0,6}", "[a-f0-9]{0,9}", "[ -~]{0,12}", "\\PC{0,8}",
                    "(alpn|port|ech|ipv4hint|ipv6hint|mandatory|key[0-9]{0,6}|no-default-alpn)=?\"?[ -~]{0,6}\"?",
                ],
                0..8,
            ),
        ) {
            let line = words.join(" ");
            let _ = parse(&format!("{HEAD}a {rtype} {line}\n"), origin());
            let quoted = words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(" ");
            let _ = parse(&format!("{HEAD}a {rtype} {quoted}\n"), origin());
        }
    }
}
