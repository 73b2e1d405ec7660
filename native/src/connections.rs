//! Every TCP connection of a resolver, over all its addresses, and when each has to go.
//!
//! Decides who is admitted and whose time is over; knows neither sockets nor the clock. No step
//! looks at more than one connection, however many there are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hashlink::LinkedHashMap;
use slab::Slab;

use crate::plan::Client;

/// A connection idle for so long makes place for a new one when there are too many.
pub const RECLAIM: Duration = Duration::from_secs(1);

/// Connections in all and of one client (an IPv4 address, an IPv6 /64), and how long they live.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    pub per_client: usize,
    /// Without a whole query.
    pub idle: Duration,
    /// In any case.
    pub total: Duration,
}

/// The network that counts as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl From<Client> for Network {
    fn from(client: Client) -> Self {
        match client {
            Client::V4(address) => Network::V4(address),
            Client::V6(address) => Network::V6((address >> 64) as u64),
        }
    }
}

/// What becomes of a new connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<T> {
    /// It has this number; the other one had to go for it.
    Admitted(usize, Option<T>),
    /// There are too many.
    Refused(T),
}

struct Slot<T> {
    network: Network,
    it: T,
}

/// The connections, each a `T`, by number.
pub struct Connections<T> {
    limits: Limits,
    slots: Slab<Slot<T>>,
    by_use: LinkedHashMap<usize, Instant>,
    by_birth: LinkedHashMap<usize, Instant>,
    clients: HashMap<Network, usize>,
}

impl<T> Connections<T> {
    /// None so far.
    pub fn new(limits: Limits) -> Self {
        Connections {
            limits,
            slots: Slab::new(),
            by_use: LinkedHashMap::new(),
            by_birth: LinkedHashMap::new(),
            clients: HashMap::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Count `it` in, unless there are too many; the one idle longest may have to go for it.
    pub fn admit(&mut self, client: Client, it: T, now: Instant) -> Admission<T> {
        let network = Network::from(client);
        if self.clients.get(&network).is_some_and(|count| *count >= self.limits.per_client) {
            return Admission::Refused(it);
        }
        let mut gone = None;
        if self.slots.len() >= self.limits.connections {
            gone = overdue(&self.by_use, RECLAIM, now).and_then(|number| self.forget(number));
            if gone.is_none() {
                return Admission::Refused(it);
            }
        }
        let number = self.slots.insert(Slot { network, it });
        self.by_use.insert(number, now);
        self.by_birth.insert(number, now);
        *self.clients.entry(network).or_default() += 1;
        Admission::Admitted(number, gone)
    }

    /// The one of this number.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.slots.get_mut(number).map(|slot| &mut slot.it)
    }

    /// Each with its number.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.slots.iter_mut().map(|(number, slot)| (number, &mut slot.it))
    }

    /// Note a whole query.
    pub fn used(&mut self, number: usize, now: Instant) {
        if let Some(since) = self.by_use.to_back(&number) {
            *since = now;
        }
    }

    /// Count an ended one out.
    pub fn forget(&mut self, number: usize) -> Option<T> {
        let slot = self.slots.try_remove(number)?;
        self.by_use.remove(&number);
        self.by_birth.remove(&number);
        if let Some(count) = self.clients.get_mut(&slot.network) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&slot.network);
            }
        }
        Some(slot.it)
    }

    /// Count out one whose time is over, where there is any.
    pub fn expired(&mut self, now: Instant) -> Option<T> {
        let number = overdue(&self.by_use, self.limits.idle, now)
            .or_else(|| overdue(&self.by_birth, self.limits.total, now))?;
        self.forget(number)
    }

    /// When the time of the next one is over.
    pub fn deadline(&self) -> Option<Instant> {
        let (_, used) = self.by_use.front()?;
        let (_, born) = self.by_birth.front()?;
        Some((*used + self.limits.idle).min(*born + self.limits.total))
    }
}

/// The first in `order`, if that is `allowed` ago.
fn overdue(
    order: &LinkedHashMap<usize, Instant>,
    allowed: Duration,
    now: Instant,
) -> Option<usize> {
    let (number, since) = order.front()?;
    (now.saturating_duration_since(*since) >= allowed).then_some(*number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Client = Client::V4(1);
    const B: Client = Client::V4(2);

    fn limited(connections: usize, per_client: usize) -> Connections<&'static str> {
        let (idle, total) = (Duration::from_secs(10), Duration::from_secs(30));
        Connections::new(Limits { connections, per_client, idle, total })
    }

    fn number(admission: Admission<&'static str>) -> usize {
        let Admission::Admitted(number, None) = admission else { panic!("{admission:?}") };
        number
    }

    #[test]
    fn one_client_has_only_so_many_and_gets_its_place_back() {
        let (mut all, now) = (limited(10, 2), Instant::now());
        let first = number(all.admit(A, "a", now));
        number(all.admit(A, "b", now));
        assert_eq!(all.admit(A, "c", now), Admission::Refused("c"));
        number(all.admit(B, "d", now));
        assert_eq!(all.forget(first), Some("a"));
        assert_eq!(all.forget(first), None);
        number(all.admit(A, "e", now));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn the_hosts_of_an_ipv6_network_are_one_client() {
        let (mut all, now) = (limited(10, 1), Instant::now());
        number(all.admit(Client::V6(7 << 64 | 1), "a", now));
        assert_eq!(all.admit(Client::V6(7 << 64 | 2), "b", now), Admission::Refused("b"));
        number(all.admit(Client::V6(8 << 64 | 1), "c", now));
        number(all.admit(Client::V4(7), "d", now));
    }

    #[test]
    fn when_full_the_one_idle_longest_goes_if_it_was_idle_long_enough() {
        let (mut all, now) = (limited(2, 2), Instant::now());
        let first = number(all.admit(A, "a", now));
        number(all.admit(A, "b", now));
        let soon = now + RECLAIM / 2;
        assert_eq!(all.admit(B, "c", soon), Admission::Refused("c"));
        all.used(first, soon);
        let Admission::Admitted(_, gone) = all.admit(B, "c", now + RECLAIM) else { panic!() };
        assert_eq!(gone, Some("b"));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn idle_ones_and_old_ones_are_over() {
        let (mut all, now) = (limited(5, 5), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(all.deadline(), None);
        let busy = number(all.admit(A, "busy", at(0)));
        number(all.admit(A, "idle", at(1)));
        for second in 1..30 {
            all.used(busy, at(second));
            let due = if second < 11 { 11 } else { (second + 10).min(30) };
            if second != 11 {
                assert_eq!(all.deadline(), Some(at(due)));
            }
            let over = all.expired(at(second));
            assert_eq!(over, (second == 11).then_some("idle"));
        }
        assert_eq!(all.expired(at(30)), Some("busy"));
        assert_eq!(all.expired(at(99)), None);
        assert!(all.clients.is_empty() && all.by_use.is_empty() && all.by_birth.is_empty());
    }
}
