//! What the fuzz targets have in common: a table to ask, and what holds for every reply.
//!
//! `GTM_FUZZ_TABLE` names a hand-over; `python -m tests.fuzz.seeds` writes one.

use std::cell::RefCell;
use std::sync::OnceLock;

use _native::counters::Counters;
use _native::load::{Loaded, HEAD, MAGIC, VERSION};
use _native::plan::Client;
use _native::query::read_query;
use _native::respond::{respond, Transport};
use _native::table::Table;
use _native::wire::{MAX_TCP, PLAIN_UDP};

/// Cells that are counted in; numbers beyond are not.
const CELLS: usize = 1 << 12;
/// Compression pointers in one name of a reply, at most.
const MAX_POINTERS: usize = 8;

/// The hand-over that every target answers from, or starts with: its octets.
pub fn handed_over() -> &'static [u8] {
    static OCTETS: OnceLock<Vec<u8>> = OnceLock::new();
    OCTETS.get_or_init(|| {
        let path = std::env::var_os("GTM_FUZZ_TABLE").expect("GTM_FUZZ_TABLE names a hand-over");
        std::fs::read(path).expect("a file")
    })
}

/// What was loaded of it.
pub fn base() -> &'static Loaded {
    static BASE: OnceLock<Loaded> = OnceLock::new();
    BASE.get_or_init(|| Loaded::default().with(handed_over()).expect("a hand-over"))
}

/// `body` as a hand-over whose head is right.
pub fn headed(body: &[u8]) -> Vec<u8> {
    let mut made = Vec::with_capacity(HEAD + body.len());
    made.extend_from_slice(MAGIC);
    made.extend_from_slice(&VERSION.to_le_bytes());
    made.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    made.extend_from_slice(&(body.len() as u64).to_le_bytes());
    made.extend_from_slice(body);
    made
}

/// Numbers off the front of what the fuzzer gives; zeros behind its end.
pub struct Dice<'d>(pub &'d [u8]);

impl Dice<'_> {
    /// `N` octets.
    pub fn octets<const N: usize>(&mut self) -> [u8; N] {
        let mut all = [0; N];
        let (front, rest) = self.0.split_at(N.min(self.0.len()));
        all[..front.len()].copy_from_slice(front);
        self.0 = rest;
        all
    }

    /// A client's address: IPv6 where `six`.
    pub fn client(&mut self, six: bool) -> Client {
        let octets: [u8; 16] = self.octets();
        Client::source(if six { &octets } else { &octets[..4] })
    }
}

/// A place for replies, and cells.
pub struct Asker {
    counters: Counters,
    out: Box<[u8]>,
}

impl Default for Asker {
    fn default() -> Self {
        Asker { counters: Counters::new(CELLS), out: vec![0; MAX_TCP].into() }
    }
}

/// Call `run` with the one asker: a new one for each input would take most of the time.
pub fn with_asker(run: impl FnOnce(&mut Asker)) {
    thread_local!(static ASKER: RefCell<Asker> = RefCell::default());
    ASKER.with_borrow_mut(run);
}

impl Asker {
    /// The reply to `data`, which is checked; None for silence.
    pub fn ask(
        &mut self,
        table: &Table,
        data: &[u8],
        client: Client,
        transport: Transport,
        stale: bool,
        draw: u64,
    ) -> Option<&[u8]> {
        let query = read_query(data)?;
        // What an earlier reply left must not show.
        let fill = draw as u8;
        let room = usize::from(query.edns.map_or(0, |edns| edns.payload)).max(PLAIN_UDP);
        let size = if transport == Transport::Tcp { MAX_TCP } else { room };
        let out = &mut self.out[..size.min(MAX_TCP)];
        out[..PLAIN_UDP].fill(fill);
        let reply = respond(table, &query, client, transport, stale, draw, &self.counters, out)?;
        let reply = &self.out[..reply.len];
        if transport == Transport::Udp {
            let limit = room.min(table.serving.udp_payload.into()).max(PLAIN_UDP);
            assert!(reply.len() <= limit, "{} octets where {limit} are taken", reply.len());
        }
        check(data, reply);
        Some(reply)
    }
}

/// What holds for every query and its reply: it can be read, and is a reply to this query.
fn check(data: &[u8], reply: &[u8]) {
    assert!(reply.len() >= 12, "no header");
    assert_eq!(reply[..2], data[..2], "another id");
    assert_eq!(reply[2] & 0xF9, 0x80 | data[2] & 0x79, "no reply, another opcode or RD");
    let count = |at: usize| usize::from(u16::from_be_bytes([reply[at], reply[at + 1]]));
    let mut at = 12;
    assert!(count(4) <= 1, "more questions than one");
    if count(4) == 1 {
        at = behind_name(reply, at).expect("a question") + 4;
        assert_eq!(reply.get(12..at), data.get(12..at), "another question");
    }
    for _ in 0..count(6) + count(8) + count(10) {
        at = behind_name(reply, at).expect("an owner");
        let fixed = reply.get(at..at + 10).expect("a record");
        let end = at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let rdata = reply.get(at + 10..end).expect("RDATA");
        if fixed[..2] == [0, 41] {
            check_options(rdata);
        }
        at = end;
    }
    assert_eq!(at, reply.len(), "octets behind the last record");
}

/// Options behind each other, and nothing else.
fn check_options(mut rest: &[u8]) {
    while !rest.is_empty() {
        let [_, _, high, low, more @ ..] = rest else { panic!("half an option") };
        let size = usize::from(*high) << 8 | usize::from(*low);
        rest = more.get(size..).expect("the data of an option");
    }
}

/// The position behind a name whose pointers all lead backwards, to names.
fn behind_name(reply: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut behind, mut total) = (start, None, 0);
    let mut floor = start;
    for _ in 0..=MAX_POINTERS {
        loop {
            let length = usize::from(*reply.get(at)?);
            if length >= 0xC0 {
                break;
            }
            if length > 63 {
                return None;
            }
            at += length + 1;
            total += length + 1;
            if total > 255 {
                return None;
            }
            if length == 0 {
                return Some(behind.unwrap_or(at));
            }
        }
        let target = usize::from(reply[at] & 0x3F) << 8 | usize::from(*reply.get(at + 1)?);
        behind.get_or_insert(at + 2);
        if target < 12 || target >= floor {
            return None;
        }
        (at, floor) = (target, target);
    }
    None
}
