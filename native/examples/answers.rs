//! Nanoseconds that an answer costs without the kernel: `answers TABLE... QUERIES`.
//!
//! TABLEs are hand-overs in order, as `resolver/handover.py` makes them; QUERIES holds datagrams behind their
//! lengths, as `dnsperf -B` takes them. Prints the median over batches: with warm caches, and where
//! other memory was touched before each batch, as the kernel does.

use std::time::Instant;

use _native::ahead::{ask_ahead, GROUP};
use _native::counters::Counters;
use _native::plan::Client;
use _native::query::{read_query, Query};
use _native::respond::{respond, Transport};
use _native::server::Shared;

const CLIENT: Client = Client::V4(0x7F00_0001);
/// Queries of one batch.
const BATCH: usize = 64;
/// Batches that are measured.
const BATCHES: usize = 20_000;
/// Octets of other memory touched before each batch.
const OTHERS: usize = 768 << 10;
/// Octets from query to query in memory.
const STRIDE: usize = 4224;

fn main() {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [tables @ .., queries] = &paths[..] else { panic!("answers TABLE... QUERIES") };
    let shared = Shared::default();
    for table in tables {
        println!("{:?}", shared.load(&std::fs::read(table).unwrap()).unwrap());
    }
    shared.heard(f64::INFINITY);
    let data = std::fs::read(queries).unwrap();
    let mut all = Vec::new();
    let mut rest = &data[..];
    while let [high, low, more @ ..] = rest {
        let size = usize::from(*high) << 8 | usize::from(*low);
        all.push(&more[..size]);
        rest = &more[size..];
    }
    for (what, others) in [("warm", 0), ("after other work", OTHERS)] {
        let mut bench = Bench::new(&shared, others);
        let mut queries = all.iter().copied().cycle();
        let mut each: Vec<f64> = (0..BATCHES).map(|_| bench.batch(&mut queries)).collect();
        each.sort_by(f64::total_cmp);
        let octets = bench.octets / BATCHES / BATCH;
        println!("{what}: {:.1} ns a query, {octets} octets a reply", each[BATCHES / 2]);
    }
}

/// One worker's memory, and memory of others.
struct Bench<'s> {
    shared: &'s Shared,
    counters: Counters,
    dice: fastrand::Rng,
    input: Vec<u8>,
    output: Vec<u8>,
    others: Vec<u64>,
    octets: usize,
}

impl<'s> Bench<'s> {
    fn new(shared: &'s Shared, others: usize) -> Self {
        Bench {
            shared,
            counters: Counters::new(1 << 17),
            dice: fastrand::Rng::with_seed(1),
            input: vec![0; BATCH * STRIDE],
            output: vec![0; BATCH * 4096],
            others: vec![1; others / 8],
            octets: 0,
        }
    }

    /// Nanoseconds by query of the next batch.
    fn batch<'q>(&mut self, queries: &mut impl Iterator<Item = &'q [u8]>) -> f64 {
        self.others.iter_mut().step_by(8).for_each(|one| *one += 1);
        let mut sizes = [0; BATCH];
        for ((size, query), place) in
            sizes.iter_mut().zip(queries).zip(self.input.chunks_exact_mut(STRIDE))
        {
            *size = query.len();
            place[..query.len()].copy_from_slice(query);
        }
        let begun = Instant::now();
        let table = self.shared.table();
        let mut at = 0;
        let mut queries: [Option<Query<'_>>; GROUP] = [None; GROUP];
        for (inputs, sizes) in self.input.chunks(STRIDE * GROUP).zip(sizes.chunks(GROUP)) {
            for ((place, input), size) in
                queries.iter_mut().zip(inputs.chunks_exact(STRIDE)).zip(sizes)
            {
                *place = read_query(&input[..*size]);
            }
            ask_ahead(&table, &queries, |_| CLIENT);
            for query in queries.iter().flatten() {
                let draw = self.dice.u64(..);
                let room = &mut self.output[at..];
                if let Some(reply) = respond(
                    &table,
                    query,
                    CLIENT,
                    Transport::Udp,
                    false,
                    draw,
                    &self.counters,
                    room,
                ) {
                    at += reply.len;
                }
            }
        }
        self.octets += at;
        begun.elapsed().as_secs_f64() * 1e9 / BATCH as f64
    }
}
