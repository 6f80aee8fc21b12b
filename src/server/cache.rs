//! Answers that were rendered before, each as long as what it was resolved from stands.
//!
//! A cache belongs to one worker, so that looking into it takes no lock and no shared cache line.
//! It is bounded by the bytes that it takes, in two generations: what is asked for moves to the
//! young one, and when that is full the old one is dropped as a whole. Negative answers have
//! generations of their own, so that random names cannot push out what is in use.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::catalog::Validity;
use crate::dns::{Excerpt, Fit, Rcode, Reply, Request};
use crate::router::Resolved;

/// Parts of one answer that are kept for clients that do not take all of it.
const PARTS: usize = 16;

/// One byte of this many is for negative answers.
const NEGATIVE_SHARE: usize = 8;

/// The longest question: a name, its type and class, and one byte more.
const LONGEST: usize = 255 + 4 + 1;

/// Bytes of memory for the answers of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Those that stay until something changes.
    pub(super) house: usize,
    /// Those of upstreams, whose TTLs run down.
    pub(super) outside: usize,
}

/// What is asked, in one form whatever the case, whether recursion is wanted and allowed, and whether
/// signatures are and checking is not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Key {
    pub(super) fn new(query: &Request<'_>, recursive: bool) -> Self {
        let question = query.question();
        let mut bytes = [0; LONGEST];
        bytes[..question.len()].copy_from_slice(question);
        // Only the name: a type's bytes may look like letters.
        bytes[..question.len() - 4].make_ascii_lowercase();
        bytes[question.len()] = u8::from(recursive)
            | u8::from(query.dnssec_ok()) << 1
            | u8::from(query.checking_disabled) << 2;
        Self {
            bytes,
            len: question.len() + 1,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An answer in the cache.
#[derive(Debug)]
pub(super) struct Entry {
    key: Box<[u8]>,
    pub(super) resolved: Resolved,
    parts: Vec<(Fit, Excerpt)>,
    next_part: usize,
}

impl Entry {
    fn size(&self) -> usize {
        size_of::<Self>()
            + self.key.len()
            + self.resolved.rendered.size()
            + self.resolved.validity.size()
    }

    /// Appends the reply. Gives the bytes of memory that are kept since.
    pub(super) fn write(&mut self, reply: &Reply<'_>, out: &mut Vec<u8>) -> usize {
        let rendered = &self.resolved.rendered;
        if rendered.fits(reply) {
            rendered.write(reply, out);
            return 0;
        }
        let place = rendered.fit(reply);
        if let Some((_, part)) = self.parts.iter().find(|(own, _)| *own == place) {
            rendered.write_excerpt(part, reply, out);
            return 0;
        }
        let part = rendered.excerpt(reply);
        rendered.write_excerpt(&part, reply, out);
        let size = part.size();
        if self.parts.len() < PARTS {
            self.parts.push((place, part));
            return size;
        }
        // Whoever asks again after so many others costs as much as the first time.
        let replaced = &mut self.parts[self.next_part];
        self.next_part = (self.next_part + 1) % PARTS;
        let grown = size.saturating_sub(replaced.1.size());
        *replaced = (place, part);
        grown
    }
}

/// One kind of answers, young and old.
#[derive(Debug, Default)]
struct Generations {
    young: HashTable<Box<Entry>>,
    old: HashTable<Box<Entry>>,
    young_bytes: usize,
    old_bytes: usize,
    /// Of the young.
    limit: usize,
}

impl Generations {
    fn new(bytes: usize) -> Self {
        Self {
            limit: bytes / 2,
            ..Self::default()
        }
    }

    /// An entry of the young takes so much more. The bound holds for what is kept beside an answer, too.
    fn grow(&mut self, bytes: usize) {
        self.young_bytes += bytes;
        if self.young_bytes > self.limit {
            self.rotate(0);
        }
    }

    /// The young become the old; so many bytes are young from now on.
    fn rotate(&mut self, young_bytes: usize) {
        self.old = std::mem::take(&mut self.young);
        self.old_bytes = std::mem::replace(&mut self.young_bytes, young_bytes);
    }

    fn take_old(&mut self, hash: u64, key: &[u8]) -> Option<Box<Entry>> {
        let found = self.old.find_entry(hash, |entry| *entry.key == *key);
        found.ok().map(|entry| entry.remove().0)
    }

    fn insert(&mut self, hash: u64, entry: Box<Entry>, hash_of: impl Fn(&[u8]) -> u64) {
        if let Ok(found) = self.young.find_entry(hash, |own| own.key == entry.key) {
            found.remove();
        }
        // Half of the young for one entry: it would push out all others.
        if entry.size() > self.limit / 2 {
            return;
        }
        self.young_bytes += entry.size();
        if self.young_bytes > self.limit {
            self.rotate(entry.size());
        }
        self.young
            .insert_unique(hash, entry, |own| hash_of(&own.key));
    }
}

/// The rendered answers of one worker.
#[derive(Debug)]
pub(super) struct Cache {
    positive: Generations,
    negative: Generations,
    outside: Generations,
    seed: u64,
}

impl Cache {
    /// A cache that takes about so much memory at most.
    pub(super) fn new(room: Room) -> Self {
        let negative = room.house / NEGATIVE_SHARE;
        Self {
            positive: Generations::new(room.house - negative),
            negative: Generations::new(negative),
            outside: Generations::new(room.outside),
            // Names are chosen by clients; where they end up in the table must not be.
            seed: RandomState::new().hash_one(0_u64),
        }
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        [&self.positive, &self.negative, &self.outside]
            .iter()
            .map(|kind| kind.young_bytes + kind.old_bytes)
            .sum()
    }

    /// Writes the reply to `key` if there is an answer that still `holds`. `write` gives how many
    /// bytes more the entry takes since.
    pub(super) fn reply(
        &mut self,
        key: &Key,
        holds: impl Fn(&Validity) -> bool,
        write: impl FnOnce(&mut Entry) -> usize,
    ) -> bool {
        let key = key.as_bytes();
        let seed = self.seed;
        let hash = xxh3_64_with_seed(key, seed);
        for kind in [&mut self.positive, &mut self.negative, &mut self.outside] {
            if let Ok(mut found) = kind.young.find_entry(hash, |entry| *entry.key == *key) {
                if holds(&found.get().resolved.validity) {
                    let grown = write(found.get_mut());
                    if grown > 0 {
                        kind.grow(grown);
                    }
                    return true;
                }
                let (entry, _) = found.remove();
                kind.young_bytes = kind.young_bytes.saturating_sub(entry.size());
                return false;
            }
            if kind.old.is_empty() {
                continue;
            }
            if let Some(mut entry) = kind.take_old(hash, key) {
                let is_good = holds(&entry.resolved.validity);
                if is_good {
                    // Its parts stay behind: they are counted where they were made.
                    entry.parts = Vec::new();
                    entry.next_part = 0;
                    let grown = write(&mut entry);
                    kind.insert(hash, entry, |key| xxh3_64_with_seed(key, seed));
                    kind.grow(grown);
                }
                return is_good;
            }
        }
        false
    }

    /// Keeps an answer, if it can be sent again.
    pub(super) fn insert(&mut self, key: &Key, resolved: Resolved) {
        if resolved.validity.is_none() {
            return;
        }
        let seed = self.seed;
        let hash = xxh3_64_with_seed(key.as_bytes(), seed);
        let kind = if resolved.born.is_some() {
            &mut self.outside
        } else if resolved.rendered.rcode() == Rcode::NOERROR {
            &mut self.positive
        } else {
            &mut self.negative
        };
        let entry = Box::new(Entry {
            key: key.as_bytes().into(),
            resolved,
            parts: Vec::new(),
            next_part: 0,
        });
        kind.insert(hash, entry, |key| xxh3_64_with_seed(key, seed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::dns::{Answer, Name, Rendered, types};

    fn request(name: &str) -> (Name, Vec<u8>) {
        let name = Name::from_text(name).expect("a valid name");
        let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(name.as_wire());
        bytes.extend_from_slice(&types::A.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        (name, bytes)
    }

    fn keep(cache: &mut Cache, name: &str, rcode: Rcode, validity: Validity) {
        let (name, bytes) = request(name);
        let key = Key::new(&Request::parse(&bytes).expect("well-formed"), true);
        let resolved = Resolved {
            rendered: Rendered::new(&Answer::empty(rcode, true), &name),
            max_udp_size: 512,
            validity,
            born: None,
        };
        cache.insert(&key, resolved);
    }

    fn has(cache: &mut Cache, name: &str, recursive: bool, holds: bool) -> bool {
        let (_, bytes) = request(name);
        let key = Key::new(&Request::parse(&bytes).expect("well-formed"), recursive);
        cache.reply(&key, |_| holds, |_| 0)
    }

    #[test]
    fn a_name_is_found_in_any_case_while_its_basis_holds() {
        let mut cache = Cache::new(Room {
            house: 100_000,
            outside: 0,
        });
        keep(
            &mut cache,
            "web.consul",
            Rcode::NOERROR,
            Catalog::new().read().into_validity(),
        );
        assert!(has(&mut cache, "WeB.Consul", true, true));
        assert!(!has(&mut cache, "web.consul", false, true), "no recursion");
        assert!(!has(&mut cache, "web.consul", true, false));
        assert!(!has(&mut cache, "web.consul", true, true), "it was dropped");
        keep(&mut cache, "web.consul", Rcode::NOERROR, Validity::none());
        assert!(!has(&mut cache, "web.consul", true, true));
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_in_use() {
        let mut cache = Cache::new(Room {
            house: 200_000,
            outside: 0,
        });
        keep(
            &mut cache,
            "hot.consul",
            Rcode::NOERROR,
            Catalog::new().read().into_validity(),
        );
        for at in 0..20_000 {
            let (x, y) = (format!("x{at}.consul"), format!("y{at}.consul"));
            keep(
                &mut cache,
                &x,
                Rcode::NOERROR,
                Catalog::new().read().into_validity(),
            );
            keep(
                &mut cache,
                &y,
                Rcode::NXDOMAIN,
                Catalog::new().read().into_validity(),
            );
            if at % 50 == 0 {
                assert!(has(&mut cache, "hot.consul", true, true), "after {at}");
            }
            assert!(cache.bytes() <= 200_000, "{} bytes", cache.bytes());
        }
        assert!(has(&mut cache, "y19999.consul", true, true));
        assert!(!has(&mut cache, "x0.consul", true, true));
    }
}
