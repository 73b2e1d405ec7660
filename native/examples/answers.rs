//! Nanoseconds that an answer costs without the kernel: `answers TABLE QUERIES`.
//!
//! TABLE is a hand-over as `resolver/handover.py` makes it; QUERIES holds datagrams behind their
//! lengths, as `dnsperf -B` takes them. Prints the least of several runs.

use std::time::Instant;

use _native::counters::Counters;
use _native::plan::Client;
use _native::query::read_query;
use _native::respond::{respond, Transport};
use _native::server::Shared;

const RUNS: usize = 200;
const BATCH: usize = 64;
/// So many, again and again, that they stay in the cache, as a batch from the kernel would be.
const QUERIES: usize = 10_000;

fn main() {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [table, queries] = &paths[..] else { panic!("answers TABLE QUERIES") };
    let shared = Shared::default();
    println!("{:?}", shared.load(&std::fs::read(table).unwrap()).unwrap());
    shared.heard(f64::INFINITY);
    let data = std::fs::read(queries).unwrap();
    let mut all = Vec::new();
    let mut rest = &data[..];
    while let [high, low, more @ ..] = rest {
        let size = usize::from(*high) << 8 | usize::from(*low);
        all.push(&more[..size]);
        rest = &more[size..];
    }
    let some: Vec<&[u8]> = all.iter().copied().cycle().take(QUERIES).collect();
    let all = some;
    let counters = Counters::new(1 << 17);
    let mut out = vec![0; BATCH * 4096];
    let mut dice = fastrand::Rng::with_seed(1);
    let (mut reading, mut answering) = (f64::MAX, f64::MAX);
    let mut octets = 0;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let mut sum = 0;
        for query in &all {
            sum ^= read_query(query).map_or(0, |query| query.hash);
        }
        reading = reading.min(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        for batch in all.chunks(BATCH) {
            let table = shared.table();
            let ahead = table.names.len() > 4096;
            if ahead {
                let mut hashes = [0; BATCH];
                for (place, query) in hashes.iter_mut().zip(batch) {
                    *place = read_query(query).map_or(0, |query| query.hash);
                    table.names.prefetch_index(*place);
                }
                for hash in &hashes[..batch.len()] {
                    table.names.prefetch_record(*hash);
                }
            }
            let mut at = 0;
            for query in batch {
                let Some(query) = &read_query(query) else { continue };
                let draw = dice.u64(..);
                let client = Client::V4(0x7F00_0001);
                let room = &mut out[at..];
                if let Some(reply) =
                    respond(&table, query, client, Transport::Udp, false, draw, &counters, room)
                {
                    at += reply.len;
                }
            }
            octets += at;
        }
        answering = answering.min(begun.elapsed().as_secs_f64());
        std::hint::black_box(sum);
    }
    let each = |seconds: f64| seconds * 1e9 / all.len() as f64;
    println!(
        "{} queries, {} octets a reply: reading {:.1} ns, all of it {:.1} ns",
        all.len(),
        octets / RUNS / all.len(),
        each(reading),
        each(answering)
    );
}
