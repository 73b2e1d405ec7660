//! A TCP stream that comes in pieces: its answers are those of each whole query, in order.
//!
//! Input: octets of a piece / 16, room for answers / 2 (2 octets), the stream.

#![no_main]

use std::cell::RefCell;

use _native::frames::{front, turn, Front, Then, MAX_INPUT, MAX_OUTPUT, MAX_READ, MAX_TURN, ROOM};
use _native::plan::Client;
use _native::respond::Transport;
use _native::wire::{MAX_QUERY, MAX_TCP};
use libfuzzer_sys::fuzz_target;
use meridian_native_fuzz::{base, with_asker, Asker, Dice};

const CLIENT: Client = Client::V4(0x0102_0304);
const DRAW: u64 = 1 << 63;
/// What stands where no answer was written.
const BLANK: u8 = 0xA5;

/// Where answers and a stream are held: made once, for to make it takes longer than a short stream.
struct Buffers {
    /// Of `ROOM` octets; blank between two turns.
    out: Box<[u8]>,
    held: Vec<u8>,
    found: Vec<u8>,
    wanted: Vec<u8>,
}

thread_local!(static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
    out: vec![BLANK; ROOM].into(),
    held: Vec::with_capacity(MAX_INPUT),
    found: Vec::new(),
    wanted: Vec::new(),
}));

fuzz_target!(|input: &[u8]| {
    BUFFERS.with_borrow_mut(|buffers| with_asker(|asker| run(input, asker, buffers)));
});

fn run(input: &[u8], asker: &mut Asker, buffers: &mut Buffers) {
    let Buffers { out, held, found, wanted } = buffers;
    [&mut *held, &mut *found, &mut *wanted].into_iter().for_each(Vec::clear);
    let mut dice = Dice(input);
    let [pieces] = dice.octets();
    let piece = (1 + 16 * usize::from(pieces)).min(MAX_READ);
    let room = (2 * usize::from(u16::from_be_bytes(dice.octets()))).max(1);
    let stream = dice.0;
    let mut answer = |query: &[u8], out: &mut [u8]| {
        assert!(!query.is_empty() && query.len() <= MAX_QUERY && out.len() == MAX_TCP);
        let reply = asker.ask(&base().table, query, CLIENT, Transport::Tcp, false, DRAW)?;
        out[..reply.len()].copy_from_slice(reply);
        Some(reply.len())
    };
    let bad = one_by_one(stream, &mut out[..MAX_TCP], wanted, &mut answer);
    let mut over = false;
    for part in stream.chunks(piece) {
        held.extend_from_slice(part);
        assert!(held.len() <= MAX_INPUT, "{} octets of a client are held", held.len());
        loop {
            let done = turn(held, room, out, &mut answer);
            assert!(done.queries <= MAX_TURN && done.taken <= held.len());
            assert!(done.written < room.min(MAX_OUTPUT) + 2 + MAX_TCP, "a turn without an end");
            found.extend_from_slice(&out[..done.written]);
            out[..done.written].fill(BLANK);
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

/// Add the framed answers of the whole queries in front of the first bad length to `all`; whether
/// there is one. `out` is blank again behind it.
fn one_by_one(
    stream: &[u8],
    out: &mut [u8],
    all: &mut Vec<u8>,
    mut answer: impl FnMut(&[u8], &mut [u8]) -> Option<usize>,
) -> bool {
    let mut rest = stream;
    loop {
        match front(rest) {
            Front::Query(query) => {
                if let Some(size) = answer(query, out) {
                    all.extend_from_slice(&(size as u16).to_be_bytes());
                    all.extend_from_slice(&out[..size]);
                    out[..size].fill(BLANK);
                }
                rest = &rest[2 + query.len()..];
            }
            Front::Part => return false,
            Front::Bad => return true,
        }
    }
}
