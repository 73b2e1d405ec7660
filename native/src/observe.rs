//! What a sample of the queries shows: the most frequent names and clients, and the query log.
//!
//! A worker's observer is asked after every query and does nothing but compare a number, but for
//! the queries in its sample. It never waits: what has no place is dropped and counted.

use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::counters::{Counters, OUTCOMES};
use crate::plan::Client;
use crate::query::Query;
use crate::respond::Transport;
use crate::sketch::Sketch;
use crate::wire::{MAX_NAME, NOERROR};

/// Queries of the log that had no place.
pub const LOG_DROPPED: u32 = 2 * OUTCOMES + 14;
/// Names of which each worker keeps counts.
pub const TOP_NAMES: u16 = 512;
/// Networks of clients of which each worker keeps counts.
pub const TOP_CLIENTS: u16 = 512;
/// The bits of an IPv4 and of an IPv6 address by which clients are counted: no single person.
pub const CLIENT_BITS: (u32, u32) = (24, 56);
/// Logged queries that wait to be taken.
pub const LOG_PLACES: usize = 1024;
/// Octets of a reply that the log keeps; what it shows of a longer one may be incomplete.
pub const LOG_REPLY: usize = 1400;

/// A query of the log.
pub struct Seen {
    pub at_s: f64,
    pub transport: Transport,
    pub client: Client,
    pub qtype: u16,
    /// Source prefix length and address of the client subnet; length 0 where there is none.
    pub subnet: Option<(u8, Client)>,
    /// Octets of the reply; 0 for silence.
    pub size: usize,
    name: [u8; MAX_NAME],
    name_len: u8,
    reply: [u8; LOG_REPLY],
}

impl Seen {
    /// The name asked, on the wire, as it came; empty where there is none.
    pub fn name(&self) -> &[u8] {
        &self.name[..usize::from(self.name_len)]
    }

    /// The front of the reply.
    pub fn reply(&self) -> &[u8] {
        &self.reply[..self.size.min(LOG_REPLY)]
    }
}

/// The sketches of one worker.
pub struct Top {
    pub names: Sketch,
    pub clients: Sketch,
}

/// What the observers of one process have in common.
#[derive(Default)]
pub struct Watch {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    top_below: u64,
    log_below: u64,
    log: Option<SyncSender<Seen>>,
    tops: Vec<Arc<Mutex<Top>>>,
}

impl Watch {
    /// Have the workers that begin from now on sample one query of `top_every`, and log one of
    /// `log_every` (0: none). What is logged comes out of the receiver.
    pub fn begin(&self, top_every: u32, log_every: u32) -> Receiver<Seen> {
        let (put, take) = sync_channel(if log_every > 0 { LOG_PLACES } else { 0 });
        if let Ok(mut inner) = self.inner.lock() {
            (inner.top_below, inner.log_below) = (below(top_every), below(log_every));
            inner.log = (log_every > 0).then_some(put);
        }
        take
    }

    /// The observer of a new worker that counts in `counters`.
    pub fn observer(&self, counters: Arc<Counters>) -> Observer {
        let mut made =
            Observer { below: 0, top_below: 0, log_below: 0, top: None, log: None, counters };
        if let Ok(mut inner) = self.inner.lock() {
            if inner.top_below > 0 {
                let top = Top {
                    names: Sketch::new(TOP_NAMES, MAX_NAME as u8),
                    clients: Sketch::new(TOP_CLIENTS, 16),
                };
                let top = Arc::new(Mutex::new(top));
                inner.tops.push(top.clone());
                made.top = Some(top);
            }
            (made.top_below, made.log_below) = (inner.top_below, inner.log_below);
            made.below = made.top_below.max(made.log_below);
            made.log = inner.log.clone();
        }
        made
    }

    /// Call `each` with the sketches of every worker that there was.
    pub fn tops(&self, mut each: impl FnMut(&Top)) {
        let tops = self.inner.lock().map_or_else(|_| Vec::new(), |inner| inner.tops.clone());
        for top in tops {
            if let Ok(top) = top.lock() {
                each(&top);
            }
        }
    }
}

/// The numbers of 32 bits below this one are one of `every`; 0 is none.
fn below(every: u32) -> u64 {
    (1u64 << 32).checked_div(u64::from(every)).unwrap_or(0)
}

/// What one worker asks after each query.
pub struct Observer {
    below: u64,
    top_below: u64,
    log_below: u64,
    top: Option<Arc<Mutex<Top>>>,
    log: Option<SyncSender<Seen>>,
    counters: Arc<Counters>,
}

impl Observer {
    /// Take note of a query and its reply, which is empty for silence. The lower half of the draw
    /// decides whether; answers depend on the upper half first.
    #[inline(always)]
    pub fn saw(
        &self,
        draw: u64,
        query: &Query<'_>,
        client: Client,
        transport: Transport,
        reply: &[u8],
    ) {
        let low = draw & u64::from(u32::MAX);
        if low < self.below {
            self.sampled(low, query, client, transport, reply);
        }
    }

    #[cold]
    #[inline(never)]
    fn sampled(
        &self,
        low: u64,
        query: &Query<'_>,
        client: Client,
        transport: Transport,
        reply: &[u8],
    ) {
        if low < self.top_below {
            self.rank(query, client);
        }
        if low < self.log_below {
            if let Some(log) = &self.log {
                if log.try_send(seen(query, client, transport, reply)).is_err() {
                    self.counters.count(LOG_DROPPED);
                }
            }
        }
    }

    /// Count a name and a client; not where somebody reads the sketches just now.
    fn rank(&self, query: &Query<'_>, client: Client) {
        let Some(Ok(mut top)) = self.top.as_ref().map(|top| top.try_lock()) else { return };
        if query.rcode == NOERROR {
            let mut name = [0; MAX_NAME];
            let size = query.name().len().min(MAX_NAME);
            name[..size].copy_from_slice(&query.name()[..size]);
            name.make_ascii_lowercase();
            top.names.add(query.hash, &name[..size]);
        }
        match client {
            Client::V4(address) => {
                let network = address & u32::MAX << (32 - CLIENT_BITS.0);
                top.clients.add(u64::from(network), &network.to_be_bytes());
            }
            Client::V6(address) => {
                let network = address & u128::MAX << (128 - CLIENT_BITS.1);
                top.clients.add((network >> 64) as u64, &network.to_be_bytes());
            }
        }
    }
}

fn seen(query: &Query<'_>, client: Client, transport: Transport, reply: &[u8]) -> Seen {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let subnet = query.edns.as_ref().and_then(|edns| edns.subnet).filter(|one| one.source > 0);
    let of = |family: u16| if family == 1 { 32 } else { 128 };
    let mut made = Seen {
        at_s: now.as_secs_f64(),
        transport,
        client,
        qtype: query.qtype,
        subnet: subnet.map(|one| (one.source, Client::padded(of(one.family), one.address))),
        size: reply.len(),
        name: [0; MAX_NAME],
        name_len: query.name().len().min(MAX_NAME) as u8,
        reply: [0; LOG_REPLY],
    };
    let name = usize::from(made.name_len);
    made.name[..name].copy_from_slice(&query.name()[..name]);
    let kept = reply.len().min(LOG_REPLY);
    made.reply[..kept].copy_from_slice(&reply[..kept]);
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::read_query;

    const ASKED: &[u8] =
        b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01A\x04Test\x00\x00\x01\x00\x01";

    fn counters() -> Arc<Counters> {
        Arc::new(Counters::new(64))
    }

    fn count(counters: &Counters, cell: u32) -> u64 {
        let mut sums = [0; 64];
        counters.sum_into(&mut sums);
        sums[cell as usize]
    }

    #[test]
    fn nothing_is_seen_unless_it_was_asked_for() {
        let watch = Watch::default();
        let observer = watch.observer(counters());
        let query = read_query(ASKED).unwrap();
        observer.saw(0, &query, Client::V4(1), Transport::Udp, b"reply");
        let mut tops = 0;
        watch.tops(|_| tops += 1);
        assert_eq!(tops, 0);
    }

    #[test]
    fn one_query_of_so_many_is_in_the_sample() {
        let watch = Watch::default();
        let log = watch.begin(4, 8);
        let observer = watch.observer(counters());
        let query = read_query(ASKED).unwrap();
        for at in 0..64u64 {
            // the upper half, by which answers are drawn, decides nothing here
            observer.saw(at << 58 | at << 26, &query, Client::V4(1), Transport::Tcp, b"");
        }
        watch.tops(|top| assert_eq!((top.names.total(), top.clients.total()), (16, 16)));
        assert_eq!(log.try_iter().count(), 8);
    }

    #[test]
    fn names_are_ranked_whatever_their_case_and_clients_by_network() {
        let watch = Watch::default();
        let _log = watch.begin(1, 0);
        let observer = watch.observer(counters());
        let query = read_query(ASKED).unwrap();
        for client in [0xC000_0201, 0xC000_02FE] {
            observer.saw(9, &query, Client::V4(client), Transport::Udp, b"");
        }
        observer.saw(9, &query, Client::V6(0x2001_0db8 << 96 | 0xAB << 64), Transport::Udp, b"");
        let six = (0x2001_0db8u128 << 96).to_be_bytes();
        watch.tops(|top| {
            let names = top.names.all();
            assert_eq!((&*names[0].key, names[0].count), (&b"\x01a\x04test\x00"[..], 3));
            let clients = top.clients.all();
            assert_eq!((&*clients[0].key, clients[0].count), (&[192, 0, 2, 0][..], 2));
            assert_eq!((&*clients[1].key, clients[1].count), (&six[..], 1));
        });
    }

    #[test]
    fn a_log_that_nobody_takes_is_dropped_and_counted() {
        let watch = Watch::default();
        let log = watch.begin(0, 1);
        let counters = counters();
        let observer = watch.observer(counters.clone());
        let query = read_query(ASKED).unwrap();
        let long = vec![7; LOG_REPLY + 1];
        for _ in 0..LOG_PLACES + 5 {
            observer.saw(u64::MAX, &query, Client::V4(1), Transport::Udp, &long);
        }
        assert_eq!(count(&counters, LOG_DROPPED), 5);
        let first = log.try_recv().unwrap();
        assert_eq!((first.name(), first.size), (&b"\x01A\x04Test\x00"[..], LOG_REPLY + 1));
        assert_eq!(first.reply(), &long[..LOG_REPLY]);
        assert_eq!(log.try_iter().count(), LOG_PLACES - 1);
        drop(log);
        observer.saw(0, &query, Client::V4(1), Transport::Udp, &long);
        assert_eq!(count(&counters, LOG_DROPPED), 6);
    }

    #[test]
    fn a_query_that_could_not_be_read_is_logged_without_a_name() {
        let watch = Watch::default();
        let log = watch.begin(1, 1);
        let observer = watch.observer(counters());
        let query = read_query(&ASKED[..13]).unwrap();
        observer.saw(0, &query, Client::V4(1), Transport::Udp, b"");
        assert_eq!(log.try_recv().unwrap().name(), b"");
        watch.tops(|top| assert_eq!((top.names.total(), top.clients.total()), (0, 1)));
    }
}
