//! Any body of a hand-over behind a right head: refused, or a table that answers soundly.
//!
//! Input: the body. A change is made one of the generation in force, so that it is looked at. What a
//! table that was taken is asked depends on all octets of the body: each input has a few questions,
//! and many inputs have them all. Some are for names of the table before, which a change may break.

#![no_main]

use std::collections::BTreeSet;
use std::sync::OnceLock;

use _native::load::Loaded;
use _native::plan::Client;
use _native::respond::Transport;
use _native::table::Table;
use _native::wire::name_size;
use libfuzzer_sys::fuzz_target;
use meridian_native_fuzz::{base, handed_over, headed, with_asker, Asker};

/// Questions for names in the body to a table that was taken, at most.
const FROM_BODY: usize = 12;
/// Questions for names of `base`.
const FROM_BASE: usize = 4;
const ROOT: &[u8] = b"\0";
const TYPES: [u16; 7] = [1, 28, 2, 5, 15, 43, 255];
const CLIENTS: [Client; 3] =
    [Client::V4(0x0A01_0203), Client::V4(0x0102_0304), Client::V6(0x2001_0db8 << 96 | 7)];
/// The generation of `base`: the first one.
const GENERATION: u64 = 1;

fuzz_target!(|input: &[u8]| {
    let mut body = input.to_vec();
    if body.first().is_some_and(|whole| *whole != 1) && body.len() >= 9 {
        body[1..9].copy_from_slice(&GENERATION.to_le_bytes());
    }
    let message = headed(&body);
    let Ok(loaded) = base().with(&message) else { return };
    let _ = loaded.sizes();
    with_asker(|asker| ask(&loaded.table, &body, asker));
    further(&loaded, &body);
});

/// Ask for names that stand in `body`, from some place in it on, for some of `base`, and below them.
fn ask(table: &Table, body: &[u8], asker: &mut Asker) {
    static OLD: OnceLock<Vec<&[u8]>> = OnceLock::new();
    let old = OLD.get_or_init(|| {
        let found: BTreeSet<&[u8]> = names(handed_over()).chain([ROOT]).collect();
        found.into_iter().collect()
    });
    let mut dice = fastrand::Rng::with_seed(crc32fast::hash(body).into());
    let start = dice.usize(..body.len());
    let new = names(&body[start..]).chain(names(body)).take(FROM_BODY);
    let some: [&[u8]; FROM_BASE] = std::array::from_fn(|_| old[dice.usize(..old.len())]);
    for name in some.into_iter().chain(new) {
        let below = dice.bool() && name.len() < 254;
        let front = if below { &b"\x01q"[..] } else { b"" };
        let data = query(front, name, dice.choice(TYPES).expect("types"));
        let client = dice.choice(CLIENTS).expect("clients");
        let transport = if dice.bool() { Transport::Udp } else { Transport::Tcp };
        asker.ask(table, &data, client, transport, dice.bool(), dice.u64(..));
    }
}

/// What may be names in `body`, each behind its length; not the root, which zeros look like.
fn names(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || loop {
        let (size, rest) = body.split_first()?;
        let name = rest.get(..usize::from(*size));
        let name = name.filter(|name| *name != ROOT && name_size(name) == Some(name.len()));
        body = &rest[name.map_or(0, <[u8]>::len)..];
        if name.is_some() {
            return name;
        }
    })
}

/// A change of nothing is taken on top of whatever was taken, and refused elsewhere.
fn further(loaded: &Loaded, body: &[u8]) {
    let generation = u64::from_le_bytes(body[9..17].try_into().expect("a generation"));
    let Some(next) = generation.checked_add(1) else { return };
    for (base, taken) in [(generation, true), (generation - 1, false)] {
        let mut body = vec![0];
        body.extend_from_slice(&u64::to_le_bytes(base));
        body.extend_from_slice(&u64::to_le_bytes(next));
        body.extend_from_slice(&[0; 8 + 3 + 8 * 4]);
        assert_eq!(loaded.with(&headed(&body)).is_ok(), taken, "a change of nothing");
    }
}

/// A query with EDNS and a client subnet for `front` and `name`.
fn query(front: &[u8], name: &[u8], rtype: u16) -> Vec<u8> {
    let mut data = Vec::with_capacity(12 + 255 + 27);
    data.extend_from_slice(b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01");
    data.extend_from_slice(front);
    data.extend_from_slice(name);
    data.extend_from_slice(&rtype.to_be_bytes());
    data.extend_from_slice(
        b"\0\x01\0\0\x29\x10\0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\0\x0a\x01\x02",
    );
    data
}
