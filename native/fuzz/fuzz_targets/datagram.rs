//! Any datagram from any client, over both transports, the table stale or not.
//!
//! Input: flags (1: stale, 2: IPv6 client), 16 octets of a client, 8 of a draw, the datagram.

#![no_main]

use _native::respond::Transport;
use _native::wire::MAX_QUERY;
use libfuzzer_sys::fuzz_target;
use meridian_native_fuzz::{base, with_asker, Asker, Dice};

fuzz_target!(|input: &[u8]| with_asker(|asker| run(input, asker)));

fn run(input: &[u8], asker: &mut Asker) {
    let mut dice = Dice(input);
    let [flags] = dice.octets();
    let client = dice.client(flags & 2 != 0);
    let draw = u64::from_be_bytes(dice.octets());
    let data = &dice.0[..dice.0.len().min(MAX_QUERY)];
    let mut replied = |transport| {
        let stale = flags & 1 != 0;
        asker.ask(&base().table, data, client, transport, stale, draw).is_some()
    };
    let udp = replied(Transport::Udp);
    assert_eq!(udp, replied(Transport::Tcp), "silence over one transport alone");
    assert_eq!(udp, data.len() >= 12 && data[2] & 0x80 == 0, "silence where a reply is due");
}
