//! Places that clients share: however much one of them asks for, there is room for others.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

/// The table of clients is in so many parts, so that threads seldom wait for each other.
const PARTS: usize = 16;

/// A client as far as fairness goes: an IPv4 address, or an IPv6 network of 64 bits, of which one host may have
/// all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// Whose address this is.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(ip) => {
                let network = u128::from(ip) >> 64 << 64;
                Self(Ipv6Addr::from(network).into())
            }
            v4 => Self(v4),
        }
    }
}

/// So many places. A client gets another one as long as it has less than there are free (a dynamic threshold,
/// as switches share their memory): one that floods takes half of them, two of them a third each, and
/// whoever comes next finds room.
#[derive(Debug)]
pub struct Shares {
    total: usize,
    used: AtomicUsize,
    own: [Mutex<HashTable<Own>>; PARTS],
    hasher: RandomState,
}

/// What one client has.
#[derive(Debug)]
struct Own {
    client: Client,
    hash: u64,
    places: usize,
}

impl Shares {
    /// So many places, one at least.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total: total.max(1),
            used: AtomicUsize::new(0),
            own: Default::default(),
            hasher: RandomState::new(),
        })
    }

    fn part(&self, hash: u64) -> MutexGuard<'_, HashTable<Own>> {
        let part = &self.own[(hash >> 32) as usize % PARTS];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this client, until it is dropped; `None` if it has enough.
    pub fn take(self: &Arc<Self>, client: Client) -> Option<Share> {
        let hash = self.hasher.hash_one(client);
        let mut part = self.part(hash);
        let used = self.used.fetch_add(1, Ordering::AcqRel);
        let own = part.find_mut(hash, |own| own.client == client);
        let places = own.as_ref().map_or(0, |own| own.places);
        if places >= self.total.saturating_sub(used) {
            self.used.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        if let Some(own) = own {
            own.places += 1;
        } else {
            let own = Own {
                client,
                hash,
                places: 1,
            };
            part.insert_unique(hash, own, |own| own.hash);
        }
        Some(Share {
            shares: Arc::clone(self),
            client,
            hash,
        })
    }
}

/// One of the places, in use.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    client: Client,
    hash: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut part = self.shares.part(self.hash);
        if let Ok(mut own) = part.find_entry(self.hash, |own| own.client == self.client) {
            own.get_mut().places -= 1;
            if own.get().places == 0 {
                own.remove();
            }
        }
        drop(part);
        self.shares.used.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> Client {
        Client::of(IpAddr::from([10, 0, 0, number]))
    }

    fn fill(shares: &Arc<Shares>, number: u8) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(client(number))).collect()
    }

    #[test]
    fn floods_leave_room() {
        let shares = Shares::new(1024);
        let one = fill(&shares, 1);
        assert_eq!(one.len(), 512);
        let two = fill(&shares, 2);
        assert_eq!(two.len(), 256);
        let three = fill(&shares, 3);
        assert_eq!(three.len(), 128);
        assert!(shares.take(client(1)).is_none());
        drop(one);
        assert_eq!(fill(&shares, 4).len(), 320);
        drop((two, three));
        assert_eq!(fill(&shares, 1).len(), 512, "nothing is lost");
    }

    #[test]
    fn one_place_is_somebodys() {
        let shares = Shares::new(1);
        let share = shares.take(client(1));
        assert!(share.is_some() && shares.take(client(2)).is_none());
        drop(share);
        assert!(shares.take(client(2)).is_some());
    }

    #[test]
    fn a_network_of_one_host_is_one_client() {
        let of = |text: &str| Client::of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    proptest! {
        /// However they come and go: never more than there are, a newcomer gets in while one is free, and in the
        /// end all are free.
        #[test]
        fn places_are_kept(total in 1_usize..50, steps in prop::collection::vec((0_u8..5, any::<bool>()), 0..200)) {
            let shares = Shares::new(total);
            let mut held: Vec<(u8, Share)> = Vec::new();
            for (number, comes) in steps {
                if comes {
                    let own = held.iter().filter(|(own, _)| *own == number).count();
                    let free = total - held.len();
                    let share = shares.take(client(number));
                    prop_assert_eq!(share.is_some(), own < free);
                    held.extend(share.map(|share| (number, share)));
                } else if let Some(at) = held.iter().position(|(own, _)| *own == number) {
                    held.swap_remove(at);
                }
            }
            held.clear();
            prop_assert_eq!(fill(&shares, 9).len(), total.div_ceil(2));
        }
    }
}
