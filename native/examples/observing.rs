//! Nanoseconds that counting and sampling cost a query: `observing`. Prints the least of several
//! runs: the dice alone, with an observer that samples nothing, with sketches of one query of 64
//! over frequent and over random names, and with the cells of an answer of 1 and of 8 addresses.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use _native::counters::{Counters, CELLS};
use _native::observe::{Observer, Watch};
use _native::plan::Client;
use _native::query::{read_query, Query};
use _native::respond::Transport;

const RUNS: usize = 20;
const QUERIES: usize = 500_000;
const NAMES: usize = 5_000;

fn least(what: &str, mut one: impl FnMut(u64, usize)) {
    let mut dice = fastrand::Rng::with_seed(1);
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let begun = Instant::now();
        for at in 0..QUERIES {
            one(black_box(dice.u64(..)), at);
        }
        best = best.min(begun.elapsed().as_secs_f64());
    }
    println!("{what}: {:.2} ns", best * 1e9 / QUERIES as f64);
}

fn observed(top_every: u32) -> Observer {
    let watch = Watch::default();
    let _log = watch.begin(top_every, 0);
    watch.observer(Arc::new(Counters::new(64)))
}

fn main() {
    let asked: Vec<Vec<u8>> = (0..NAMES)
        .map(|at| {
            let mut data = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x08".to_vec();
            data.extend(format!("{at:08}").bytes());
            data.extend(b"\x04test\0\0\x01\0\x01");
            data
        })
        .collect();
    let all: Vec<Query<'_>> = asked.iter().filter_map(|data| read_query(data)).collect();
    let client = |draw: u64| Client::V4((draw >> 32) as u32);
    least("dice alone", |draw, at| {
        black_box((draw, &all[at % 16]));
    });
    let off = observed(0);
    least("nothing sampled", |draw, at| {
        off.saw(draw, &all[at % 16], client(draw), Transport::Udp, &[])
    });
    let on = observed(64);
    least("1/64, 16 names, random clients", |draw, at| {
        on.saw(draw, &all[at % 16], client(draw), Transport::Udp, &[])
    });
    let on = observed(64);
    least("1/64, 5,000 names in turn, random clients", |draw, at| {
        on.saw(draw, &all[at % NAMES], client(draw), Transport::Udp, &[])
    });
    let counters = Counters::new(CELLS);
    for many in [3, 10] {
        let cells: Box<[u32]> = (0..many).map(|at| 20_000 + 3 * at).collect();
        least(&format!("{many} cells"), |draw, _| {
            for &cell in black_box(&cells).iter() {
                counters.count(cell);
            }
            black_box(draw);
        });
    }
}
