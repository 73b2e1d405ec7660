//! A well-formed query for an instance that is steered by place, with any EDNS options.
//!
//! Input: flags (1: AAAA, 2: IPv6 client, 4: the rest is the data of a client subnet, else all
//! options), 16 octets of a client, 8 of a draw, the rest.

#![no_main]

use _native::plan::Client;
use _native::respond::Transport;
use _native::wire::MAX_QUERY;
use libfuzzer_sys::fuzz_target;
use meridian_native_fuzz::{base, with_asker, Asker, Dice};

const FRONT: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x04shop\x03gtm\x04test\0";
const OPT: &[u8] = b"\0\x01\0\0\x29\x10\0\0\0\0\0";

fuzz_target!(|input: &[u8]| with_asker(|asker| run(input, asker)));

fn run(input: &[u8], asker: &mut Asker) {
    let mut dice = Dice(input);
    let [flags] = dice.octets();
    let client = dice.client(flags & 2 != 0);
    let draw = u64::from_be_bytes(dice.octets());
    let rest = &dice.0[..dice.0.len().min(MAX_QUERY - 64)];
    let subnet = flags & 4 != 0;
    let size = rest.len() as u16;
    let mut data = Vec::with_capacity(MAX_QUERY);
    data.extend_from_slice(FRONT);
    data.extend_from_slice(&[0, if flags & 1 == 0 { 1 } else { 28 }]);
    data.extend_from_slice(OPT);
    if subnet {
        data.extend_from_slice(&(size + 4).to_be_bytes());
        data.extend_from_slice(&[0, 8]);
    }
    data.extend_from_slice(&size.to_be_bytes());
    data.extend_from_slice(rest);
    for transport in [Transport::Udp, Transport::Tcp] {
        let reply = asker.ask(&base().table, &data, client, transport, false, draw);
        let reply = reply.expect("an answer");
        if subnet {
            check_subnet(reply, rest, client);
        }
    }
}

/// FORMERR for a malformed subnet; a good one comes back with a scope (RFC 7871, section 7.2.1).
fn check_subnet(reply: &[u8], option: &[u8], client: Client) {
    let bits = good(option);
    assert_eq!(reply[3] & 15 == 1, bits.is_none(), "FORMERR, or not, for {option:x?}");
    let Some(bits) = bits else { return };
    assert_eq!(reply[3] & 15, 0, "an error from {client:?}");
    let tail = &reply[reply.len() - option.len() - 4..];
    assert_eq!(tail[..4], [0, 8, 0, option.len() as u8], "no subnet comes back");
    assert_eq!((&tail[4..7], &tail[8..]), (&option[..3], &option[4..]), "another subnet");
    assert!(tail[7] <= bits && (option[2] > 0 || tail[7] == 0), "a scope of {}", tail[7]);
}

/// The bits of the family, where the option is well-formed (RFC 7871, section 6).
fn good(option: &[u8]) -> Option<u8> {
    let [0, family, source, 0, address @ ..] = option else { return None };
    let bits = *[0, 32, 128].get(usize::from(*family))?;
    let whole = usize::from(*source).div_ceil(8) == address.len();
    let mut beyond = usize::from(*source)..address.len() * 8;
    let clear = beyond.all(|bit| address[bit / 8] >> (7 - bit % 8) & 1 == 0);
    (*source <= bits && whole && clear).then_some(bits)
}
