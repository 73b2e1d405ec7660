//! A TCP stream that comes in pieces: its answers are those of each whole query, in order.
//!
//! Input: octets of a piece / 16, room for answers (2 octets), the stream.

#![no_main]

use _native::frames::{front, turn, Front, Then, MAX_INPUT, MAX_OUTPUT, MAX_READ, MAX_TURN, ROOM};
use _native::plan::Client;
use _native::respond::Transport;
use _native::wire::{MAX_QUERY, MAX_TCP};
use libfuzzer_sys::fuzz_target;
use meridian_native_fuzz::{base, with_asker, Asker, Dice};

const CLIENT: Client = Client::V4(0x0102_0304);
const DRAW: u64 = 1 << 63;

fuzz_target!(|input: &[u8]| with_asker(|asker| run(input, asker)));

fn run(input: &[u8], asker: &mut Asker) {
    let mut dice = Dice(input);
    let [pieces] = dice.octets();
    let piece = (1 + 16 * usize::from(pieces)).min(MAX_READ);
    let room = usize::from(u16::from_be_bytes(dice.octets())).max(1);
    let stream = dice.0;
    let mut answer = |query: &[u8], out: &mut [u8]| {
        assert!(!query.is_empty() && query.len() <= MAX_QUERY && out.len() == MAX_TCP);
        let reply = asker.ask(&base().table, query, CLIENT, Transport::Tcp, false, DRAW)?;
        out[..reply.len()].copy_from_slice(reply);
        Some(reply.len())
    };
    let (wanted, bad) = one_by_one(stream, &mut answer);
    let mut out = vec![0; ROOM];
    let (mut held, mut found, mut over) = (Vec::new(), Vec::new(), false);
    for part in stream.chunks(piece) {
        held.extend_from_slice(part);
        assert!(held.len() <= MAX_INPUT, "{} octets of a client are held", held.len());
        loop {
            let done = turn(&held, room, &mut out, &mut answer);
            assert!(done.queries <= MAX_TURN && done.taken <= held.len());
            assert!(done.written < room.min(MAX_OUTPUT) + 2 + MAX_TCP, "a turn without an end");
            found.extend_from_slice(&out[..done.written]);
            held.drain(..done.taken);
            match done.then {
                Then::More => assert!(done.queries > 0, "no progress"),
                Then::Part => break,
                Then::Bad => {
                    over = true;
                    break;
                }
            }
        }
        if over {
            break;
        }
    }
    assert_eq!(over, bad, "an end where none was due, or none where one was");
    assert!(found == wanted, "{} octets came, {} were due", found.len(), wanted.len());
}

/// The framed answers of the whole queries in front of the first bad length, and whether one is.
fn one_by_one(
    stream: &[u8],
    mut answer: impl FnMut(&[u8], &mut [u8]) -> Option<usize>,
) -> (Vec<u8>, bool) {
    let (mut rest, mut all, mut out) = (stream, Vec::new(), vec![0; MAX_TCP]);
    loop {
        match front(rest) {
            Front::Query(query) => {
                if let Some(size) = answer(query, &mut out) {
                    all.extend_from_slice(&(size as u16).to_be_bytes());
                    all.extend_from_slice(&out[..size]);
                }
                rest = &rest[2 + query.len()..];
            }
            Front::Part => return (all, false),
            Front::Bad => return (all, true),
        }
    }
}
