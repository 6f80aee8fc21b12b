//! The words of one record -> names and record data.
//!
//! Hickory parses the data. Names and character strings are read here before it gets them, because
//! its text parser takes `\DDD` for octal in names and for something else in strings, refuses
//! underscores inside a label, and forgets the origin for some types.

use std::str::FromStr;

use hickory_proto::rr::rdata::{CNAME, NS, NULL, PTR, TXT};
use hickory_proto::rr::{Name, RData, RecordType};

use super::tokens::Token;

/// Reads a name: absolute with a dot at its end, else relative to `origin`; `@` is the origin.
/// Any octet may be in a label (RFC 2181 section 11); non-ASCII text becomes IDNA.
pub(super) fn name(token: &Token, origin: &Name) -> Result<Name, String> {
    let text = token.text.as_str();
    match text {
        "" => return Err("an empty name".to_owned()),
        "@" if !token.quoted => return Ok(origin.clone()),
        "." => return Ok(Name::root()),
        _ => {}
    }
    if !text.is_ascii() {
        let parsed = Name::from_utf8(text).map_err(|e| format!("the name {text:?}: {e}"))?;
        return absolute(parsed, text, origin);
    }
    let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = Octets::new(text);
    let mut dot_at_end = false;
    while let Some(octet) = bytes.next()? {
        dot_at_end = octet == Octet::Plain(b'.');
        match (octet, labels.last_mut()) {
            (Octet::Plain(b'.'), Some(label)) if label.is_empty() => {
                return Err(format!("an empty label in the name {text:?}"));
            }
            (Octet::Plain(b'.'), _) => labels.push(Vec::new()),
            (Octet::Plain(b) | Octet::Escaped(b), Some(label)) => label.push(b),
            (_, None) => {}
        }
    }
    if dot_at_end {
        labels.pop();
    }
    let mut parsed = Name::from_labels(labels.iter().map(Vec::as_slice))
        .map_err(|e| format!("the name {text:?}: {e}"))?;
    parsed.set_fqdn(dot_at_end);
    absolute(parsed, text, origin)
}

fn absolute(name: Name, text: &str, origin: &Name) -> Result<Name, String> {
    if name.is_fqdn() {
        return Ok(name);
    }
    let mut name = name
        .append_domain(origin)
        .map_err(|e| format!("the name {text:?} under {origin}: {e}"))?;
    name.set_fqdn(true);
    Ok(name)
}

/// Reads a record type: a mnemonic, or `TYPE123` (RFC 3597 section 5).
pub(super) fn record_type(word: &str) -> Result<RecordType, String> {
    let upper = word.to_ascii_uppercase();
    let code: Option<u16> = upper.strip_prefix("TYPE").and_then(|c| c.parse().ok());
    if let Some(code) = code {
        return Ok(RecordType::from(code));
    }
    match RecordType::from_str(&upper) {
        // Not record types of the DNS: one is a proposal that never became a standard and needs
        // work at query time, the other is hickory's own.
        Ok(RecordType::ANAME | RecordType::ZERO) | Err(_) => {
            Err(format!("unknown record type {word:?}"))
        }
        Ok(rtype) => Ok(rtype),
    }
}

/// Reads the data of a record of type `rtype` from its words.
pub(super) fn rdata(rtype: RecordType, words: &[Token], origin: &Name) -> Result<RData, String> {
    if let Some(count) = fields(rtype)
        && words.len() != count
    {
        let plural = if count == 1 { "" } else { "s" };
        return Err(format!(
            "{rtype} takes {count} field{plural}, not {}",
            words.len()
        ));
    }
    match rtype {
        RecordType::NS => Ok(RData::NS(NS(one_name(words, origin)?))),
        RecordType::CNAME => Ok(RData::CNAME(CNAME(one_name(words, origin)?))),
        RecordType::PTR => Ok(RData::PTR(PTR(one_name(words, origin)?))),
        RecordType::TXT => text(words),
        RecordType::Unknown(_) => unknown(rtype, words),
        _ => parsed_by_hickory(rtype, words, origin),
    }
}

/// How many words the data has, for types where it is fixed: hickory ignores what is too much, and
/// then half of a mistyped line would be served.
fn fields(rtype: RecordType) -> Option<usize> {
    match rtype {
        RecordType::A | RecordType::AAAA => Some(1),
        RecordType::NS | RecordType::CNAME | RecordType::PTR => Some(1),
        RecordType::MX | RecordType::HINFO => Some(2),
        RecordType::CAA => Some(3),
        RecordType::SRV => Some(4),
        RecordType::NAPTR => Some(6),
        RecordType::SOA => Some(7),
        _ => None,
    }
}

fn one_name(words: &[Token], origin: &Name) -> Result<Name, String> {
    let word = words.first().ok_or("the name is missing")?;
    name(word, origin)
}

/// The character strings of a TXT record, each of at most 255 octets (RFC 1035 section 3.3).
fn text(words: &[Token]) -> Result<RData, String> {
    let mut strings = Vec::with_capacity(words.len());
    for word in words {
        let bytes = octets(&word.text)?;
        if bytes.len() > 255 {
            return Err(format!(
                "a string of {} octets; 255 is the most, split it into several",
                bytes.len()
            ));
        }
        strings.push(bytes);
    }
    if strings.is_empty() {
        return Err("TXT needs at least one string".to_owned());
    }
    let strings = strings.iter().map(Vec::as_slice).collect();
    Ok(RData::TXT(TXT::from_bytes(strings)))
}

/// `\# LENGTH HEX...` (RFC 3597 section 5): data of a type that hickory does not know.
fn unknown(code: RecordType, words: &[Token]) -> Result<RData, String> {
    let [marker, length, hex @ ..] = words else {
        return Err("data of this type is written \\# LENGTH HEX".to_owned());
    };
    if marker.text != "\\#" {
        return Err("data of this type is written \\# LENGTH HEX".to_owned());
    }
    let digits: Vec<u32> = hex
        .iter()
        .flat_map(|word| word.text.chars())
        .map(|c| c.to_digit(16).ok_or_else(|| format!("{c:?} in hex data")))
        .collect::<Result<_, _>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .filter_map(|pair| match pair {
            [high, low] => u8::try_from(high * 16 + low).ok(),
            _ => None,
        })
        .collect();
    if !digits.len().is_multiple_of(2) || length.text.parse() != Ok(bytes.len()) {
        return Err(format!(
            "{} hex digits, length {}",
            digits.len(),
            length.text
        ));
    }
    if bytes.is_empty() {
        let rdata = NULL::new();
        return Ok(RData::Unknown { code, rdata });
    }
    let rdata = NULL::with(bytes);
    Ok(RData::Unknown { code, rdata })
}

/// Everything else goes through hickory's parser: each word as a quoted string, so that it takes
/// the word literally, and each name as `.`, to be put in afterwards.
fn parsed_by_hickory(rtype: RecordType, words: &[Token], origin: &Name) -> Result<RData, String> {
    let places: &[usize] = match rtype {
        RecordType::MX | RecordType::SVCB | RecordType::HTTPS => &[1],
        RecordType::SRV => &[3],
        RecordType::NAPTR => &[5],
        RecordType::SOA => &[0, 1],
        _ => &[],
    };
    let mut names = Vec::with_capacity(places.len());
    let mut line = String::new();
    for (place, word) in words.iter().enumerate() {
        if places.contains(&place) {
            names.push(name(word, origin)?);
            line.push_str("\".\" ");
            continue;
        }
        let literal = String::from_utf8(octets(&word.text)?)
            .map_err(|_| format!("{:?} is not UTF-8", word.text))?;
        line.push('"');
        for c in literal.chars() {
            if matches!(c, '"' | '\\') {
                line.push('\\');
            }
            line.push(c);
        }
        line.push_str("\" ");
    }
    let mut data = RData::try_from_str(rtype, &line).map_err(|error| match expected(rtype) {
        Some(expected) => format!("not valid {rtype} data: expected {expected}"),
        None => format!("not valid {rtype} data: {error}"),
    })?;
    let mut names = names.into_iter();
    let mut put = |slot: &mut Name| {
        if let Some(name) = names.next() {
            *slot = name;
        }
    };
    match &mut data {
        RData::MX(mx) => put(&mut mx.exchange),
        RData::SRV(srv) => put(&mut srv.target),
        RData::NAPTR(naptr) => put(&mut naptr.replacement),
        RData::SVCB(svcb) => put(&mut svcb.target_name),
        RData::HTTPS(https) => put(&mut https.0.target_name),
        RData::SOA(soa) => {
            put(&mut soa.mname);
            put(&mut soa.rname);
        }
        _ => {}
    }
    Ok(data)
}

/// The octets that a word stands for.
fn octets(text: &str) -> Result<Vec<u8>, String> {
    let mut all = Vec::with_capacity(text.len());
    let mut bytes = Octets::new(text);
    while let Some(Octet::Plain(b) | Octet::Escaped(b)) = bytes.next()? {
        all.push(b);
    }
    Ok(all)
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Octet {
    Plain(u8),
    Escaped(u8),
}

/// Undoes `\X` and `\DDD` (three decimal digits, RFC 1035 section 5.1).
struct Octets<'a> {
    rest: std::slice::Iter<'a, u8>,
}

impl<'a> Octets<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.as_bytes().iter(),
        }
    }

    fn next(&mut self) -> Result<Option<Octet>, String> {
        let Some(&first) = self.rest.next() else {
            return Ok(None);
        };
        if first != b'\\' {
            return Ok(Some(Octet::Plain(first)));
        }
        let Some(&escaped) = self.rest.next() else {
            return Err("a backslash at the end of a word".to_owned());
        };
        if !escaped.is_ascii_digit() {
            return Ok(Some(Octet::Escaped(escaped)));
        }
        let mut value = u32::from(escaped - b'0');
        for _ in 0..2 {
            match self.rest.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    value = value * 10 + u32::from(digit - b'0');
                }
                _ => return Err("\\ and a digit need three digits, as in \\034".to_owned()),
            }
        }
        u8::try_from(value)
            .map(|octet| Some(Octet::Escaped(octet)))
            .map_err(|_| format!("\\{value} is more than 255"))
    }
}

/// What the data of the types that people write most looks like; the library's own words are about its
/// parser.
fn expected(rtype: RecordType) -> Option<&'static str> {
    match rtype {
        RecordType::A => Some("an IPv4 address, such as 192.0.2.1"),
        RecordType::AAAA => Some("an IPv6 address, such as 2001:db8::1"),
        RecordType::MX => Some("a preference and a name, such as 10 mail.example.com."),
        RecordType::SRV => {
            Some("priority, weight, port and target, such as 1 1 80 web.example.com.")
        }
        RecordType::SOA => Some("two names and five numbers, such as ns admin 1 3600 600 86400 60"),
        _ => None,
    }
}
