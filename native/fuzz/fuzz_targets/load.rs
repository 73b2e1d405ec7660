//! Any body of a hand-over behind a right head: refused, or a table that answers soundly.
//!
//! Input: the body. A change is made one of the generation in force, so that it is looked at.

#![no_main]

use _native::load::Loaded;
use _native::plan::Client;
use _native::respond::Transport;
use _native::table::Table;
use _native::wire::name_size;
use libfuzzer_sys::fuzz_target;
use meridian_native_fuzz::{base, headed, with_asker, Asker};

/// Names that are asked of a table that was taken.
const NAMES: usize = 48;
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
    further(&loaded);
});

/// Ask for the names that stand in `body`, and for one below each.
fn ask(table: &Table, body: &[u8], asker: &mut Asker) {
    let mut at = 0;
    let mut asked = 0;
    while at < body.len() && asked < NAMES {
        let size = usize::from(body[at]);
        let name = body.get(at + 1..at + 1 + size);
        let Some(name) = name.filter(|name| name_size(name) == Some(name.len())) else {
            at += 1;
            continue;
        };
        at += 1 + size;
        for rtype in TYPES {
            for front in [&b""[..], b"\x01q"] {
                if front.len() + name.len() > 255 {
                    continue;
                }
                let data = query(front, name, rtype);
                let client = CLIENTS[asked % CLIENTS.len()];
                let draw = (asked as u64) << 58 | 7;
                for transport in [Transport::Udp, Transport::Tcp] {
                    asker.ask(table, &data, client, transport, asked % 2 == 0, draw);
                }
            }
        }
        asked += 1;
    }
}

/// A change of nothing must be taken on top of whatever was taken.
fn further(loaded: &Loaded) {
    for generation in [0, GENERATION] {
        let mut body = vec![0];
        body.extend_from_slice(&u64::to_le_bytes(generation));
        body.extend_from_slice(&u64::to_le_bytes(generation + 1));
        body.extend_from_slice(&[0; 8 + 3 + 8 * 4]);
        let _ = loaded.with(&headed(&body));
    }
}

/// A query with EDNS and a client subnet for `front` and `name`.
fn query(front: &[u8], name: &[u8], rtype: u16) -> Vec<u8> {
    let mut data = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01".to_vec();
    data.extend_from_slice(front);
    data.extend_from_slice(name);
    data.extend_from_slice(&rtype.to_be_bytes());
    data.extend_from_slice(
        b"\0\x01\0\0\x29\x10\0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\0\x0a\x01\x02",
    );
    data
}
