//! Ethernet, IPv4 or IPv6, and UDP in one frame: a query's headers read, and turned into a reply's.
//!
//! Knows no socket. Reads what the program (`xdp_program`) lets through, and trusts none of it.
//! Sources: RFC 791, 768, 8200, 1071 (checksums).

use crate::plan::Client;

/// Octets of an Ethernet header.
const ETHERNET: usize = 14;
/// Octets of an IPv4 header without options.
const V4: usize = 20;
/// Octets of an IPv6 header.
const V6: usize = 40;
/// Octets of a UDP header.
const UDP: usize = 8;
/// The protocol's number.
const PROTOCOL: u8 = 17;
/// How far a reply may go; what Linux says too.
const TTL: u8 = 64;
/// Octets in front of a DNS message, at most.
pub const HEADERS: usize = ETHERNET + V6 + UDP;

/// Where the query lies in a frame, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the DNS message begins.
    pub at: usize,
    /// Its octets.
    pub len: usize,
    pub client: Client,
}

/// Read the headers of a frame; None where the kernel would drop it as well: lengths that do not
/// fit, a wrong checksum, a source that nobody can answer.
#[inline(always)]
pub fn read(frame: &[u8]) -> Option<Head> {
    match frame.get(ETHERNET)? >> 4 {
        4 => {
            let ip = frame.get(ETHERNET..)?;
            let total = usize::from(number(ip, 2)?);
            let ip = ip.get(..total)?;
            let (header, udp) = ip.split_at_checked(V4)?;
            let source = &header[12..16];
            let strange = matches!(source[0], 0 | 127 | 224..);
            if header[0] != 0x45 || strange || fold(sum(header)) != 0xFFFF {
                return None;
            }
            let len = datagram(udp, &header[12..], true)?;
            Some(Head { at: ETHERNET + V4 + UDP, len, client: Client::source(source) })
        }
        6 => {
            let (header, rest) = frame.get(ETHERNET..)?.split_at_checked(V6)?;
            let udp = rest.get(..usize::from(number(header, 4)?))?;
            let source = &header[8..24];
            // ::, ::1 and groups
            let strange = source[0] == 0xFF || source[..15] == [0; 15] && source[15] < 2;
            if strange {
                return None;
            }
            let len = datagram(udp, &header[8..], false)?;
            Some(Head { at: ETHERNET + V6 + UDP, len, client: Client::source(source) })
        }
        _ => None,
    }
}

/// The octets of the message in a UDP datagram between `addresses`, which are those of both ends.
#[inline(always)]
fn datagram(udp: &[u8], addresses: &[u8], may_lack: bool) -> Option<usize> {
    let len = usize::from(number(udp, 4)?);
    if len < UDP || number(udp, 0)? == 0 {
        return None;
    }
    let udp = udp.get(..len)?;
    let claimed = u16::from_ne_bytes([udp[6], udp[7]]);
    if claimed == 0 {
        return may_lack.then_some(len - UDP);
    }
    let pseudo = pseudo(addresses, len);
    // A sender on this machine leaves the rest of the sum to a card that there never was (veth,
    // virtio): such a datagram crossed no wire, and has the sum of its pseudo header alone.
    let whole = fold(pseudo + sum(udp)) == 0xFFFF || claimed == fold(pseudo);
    whole.then_some(len - UDP)
}

/// Make the frame of a query, whose message has become a reply of `len` octets, one that goes back;
/// gives the octets of the frame. `id` is anything.
#[inline(always)]
pub fn turn(frame: &mut [u8], head: &Head, len: usize, id: u16) -> usize {
    let end = head.at + len;
    let frame = &mut frame[..end];
    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
    let udp_len = (UDP + len) as u16;
    let begin = head.at - UDP;
    let (front, udp) = frame.split_at_mut(begin);
    let ip = &mut front[ETHERNET..];
    let addresses = if ip.len() == V4 {
        let [id, total] = [id, V4 as u16 + udp_len].map(u16::to_be_bytes);
        ip[..12].copy_from_slice(&[
            0x45, 0, total[0], total[1], id[0], id[1], 0, 0, TTL, PROTOCOL, 0, 0,
        ]);
        let (from, to) = ip[12..].split_at_mut(4);
        from.swap_with_slice(to);
        let check = !fold(sum(ip));
        ip[10..12].copy_from_slice(&check.to_ne_bytes());
        &ip[12..]
    } else {
        let size = udp_len.to_be_bytes();
        ip[..8].copy_from_slice(&[0x60, 0, 0, 0, size[0], size[1], PROTOCOL, TTL]);
        let (from, to) = ip[8..].split_at_mut(16);
        from.swap_with_slice(to);
        &ip[8..]
    };
    let (from, to) = udp[..4].split_at_mut(2);
    from.swap_with_slice(to);
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    udp[6..8].copy_from_slice(&[0, 0]);
    // A sum of zero is said as its other form: zero means that there is none.
    let check = match !fold(pseudo(addresses, udp.len()) + sum(udp)) {
        0 => 0xFFFF,
        other => other,
    };
    udp[6..8].copy_from_slice(&check.to_ne_bytes());
    end
}

#[inline(always)]
fn number(octets: &[u8], at: usize) -> Option<u16> {
    crate::wire::u16_at(octets, at)
}

/// The sum of the pseudo header of a datagram of `len` octets.
#[inline(always)]
fn pseudo(addresses: &[u8], len: usize) -> u64 {
    let both = u32::from(len as u16) + u32::from(PROTOCOL);
    sum(addresses) + u64::from(u16::from_ne_bytes((both as u16).to_be_bytes()))
}

/// The sum of octets in pairs, as they lie in memory: the order of octets does not matter to a sum
/// of complements (RFC 1071, section 2). Not folded; of up to 64 KiB.
#[inline(always)]
fn sum(octets: &[u8]) -> u64 {
    let words = octets.chunks_exact(4);
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    words
        .map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
        .sum::<u64>()
        + u64::from(u32::from_ne_bytes(last))
}

/// A sum in 16 bits.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let mut sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    const QUERY: &[u8] = b"a message of odd length";

    /// The sum as RFC 1071 says it, pair by pair.
    fn slowly(octets: &[u8]) -> u16 {
        let mut sum = octets.chunks(2).fold(0u32, |sum, pair| {
            sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
        });
        while sum >> 16 > 0 {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        sum as u16
    }

    /// What the sums of a frame come to: of the IPv4 header, of the datagram with its pseudo header.
    fn sums(frame: &[u8]) -> (u16, u16) {
        let six = frame[14] >> 4 == 6;
        let (ip, udp) = frame[14..].split_at(if six { V6 } else { V4 });
        let mut all = if six { ip[8..].to_vec() } else { ip[12..].to_vec() };
        all.extend([0, PROTOCOL]);
        all.extend((udp.len() as u16).to_be_bytes());
        all.extend(udp);
        (if six { 0xFFFF } else { slowly(ip) }, slowly(&all))
    }

    /// A frame from 192.0.2.1 or 2001:db8::1, port 4660, to port 53.
    fn frame(six: bool, message: &[u8]) -> Vec<u8> {
        let len = (UDP + message.len()) as u16;
        let mut made = MACS.to_vec();
        if six {
            made.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
            made.extend(len.to_be_bytes());
            made.extend([PROTOCOL, 9]);
            for last in [1, 2] {
                made.extend([0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
            }
        } else {
            made.extend([0x08, 0x00, 0x45, 0]);
            made.extend((len + V4 as u16).to_be_bytes());
            made.extend([0, 7, 0, 0, 9, PROTOCOL, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
            let sum = !slowly(&made[ETHERNET..]);
            made[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let at = made.len();
        made.extend([0x12, 0x34, 0, 53]);
        made.extend(len.to_be_bytes());
        made.extend([0, 0]);
        made.extend(message);
        let sum = !sums(&made).1;
        made[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
        made
    }

    #[test]
    fn the_quick_sum_is_the_slow_one() {
        let octets: Vec<u8> = (0..2000u32).map(|at| (at * 97 + at / 7) as u8).collect();
        for len in 0..octets.len() {
            assert_eq!(
                fold(sum(&octets[..len])).to_ne_bytes(),
                slowly(&octets[..len]).to_be_bytes()
            );
        }
        let most = vec![0xFF; 65_535];
        assert_eq!(fold(sum(&most)).to_ne_bytes(), slowly(&most).to_be_bytes());
    }

    #[test]
    fn a_query_is_found_behind_its_headers() {
        let head = read(&frame(false, QUERY)).unwrap();
        assert_eq!(head, Head { at: 42, len: QUERY.len(), client: Client::V4(0xC000_0201) });
        let head = read(&frame(true, QUERY)).unwrap();
        let client = Client::V6(0x2001_0DB8 << 96 | 1);
        assert_eq!(head, Head { at: 62, len: QUERY.len(), client });
    }

    #[test]
    fn octets_behind_the_packet_are_of_the_wire_and_not_of_the_query() {
        for six in [false, true] {
            let mut padded = frame(six, QUERY);
            padded.extend([0xEE; 30]);
            assert_eq!(read(&padded), read(&frame(six, QUERY)));
        }
    }

    #[test]
    fn every_wrong_octet_is_noticed_and_every_cut() {
        for six in [false, true] {
            let good = frame(six, QUERY);
            for at in 0..good.len() {
                assert_eq!(read(&good[..at]), None, "cut at {at}");
                let mut wrong = good.clone();
                wrong[at] ^= 0x40;
                // the Ethernet header, and in IPv6 class, flow and hop limit are in no sum
                let unseen = at < ETHERNET || six && matches!(at - ETHERNET, 1..=3 | 7);
                let next = six && at - ETHERNET.min(at) == 6; // the program has looked at it
                assert_eq!(read(&wrong).is_some(), unseen || next, "octet {at}, {six}");
            }
        }
    }

    #[test]
    fn a_sum_that_is_left_to_a_card_is_taken() {
        for six in [false, true] {
            let mut half = frame(six, QUERY);
            let at = if six { 54 } else { 34 };
            let addresses = if six { &half[22..54] } else { &half[26..34] };
            let sum = fold(pseudo(addresses, UDP + QUERY.len())).to_ne_bytes();
            half[at + 6..at + 8].copy_from_slice(&sum);
            assert!(read(&half).is_some());
            half[at + 7] ^= 1;
            assert!(read(&half).is_none());
        }
    }

    #[test]
    fn sources_that_nobody_can_answer_are_dropped() {
        let remade = |six: bool, at: usize, source: &[u8]| {
            let mut made = frame(six, QUERY);
            made[at..at + source.len()].copy_from_slice(source);
            if !six {
                made[24..26].fill(0);
                let sum = !slowly(&made[14..34]);
                made[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let udp = if six { 54 } else { 34 };
            made[udp + 6..udp + 8].fill(0);
            let sum = !sums(&made).1;
            made[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
            read(&made).is_some()
        };
        for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            assert!(!remade(false, 26, &source), "{source:?}");
        }
        assert!(remade(false, 26, &[223, 255, 255, 255]));
        let mut source = [0; 16];
        assert!(!remade(true, 22, &source), "::");
        source[15] = 1;
        assert!(!remade(true, 22, &source), "::1");
        source[15] = 2;
        assert!(remade(true, 22, &source));
        source[0] = 0xFF;
        assert!(!remade(true, 22, &source), "a group");
        assert!(!remade(false, 34, &[0, 0]), "port 0");
    }

    #[test]
    fn a_reply_goes_back_with_sums_that_are_right() {
        for six in [false, true] {
            for len in [12, 13, 14, 15, 512, 1200] {
                let query = frame(six, QUERY);
                let head = read(&query).unwrap();
                let mut room = vec![0xEE; 1700];
                room[..query.len()].copy_from_slice(&query);
                room[head.at..head.at + len].fill(0x5A);
                let octets = turn(&mut room, &head, len, 0xABCD);
                let reply = &room[..octets];
                assert_eq!(octets, head.at + len);
                assert_eq!((&reply[..6], &reply[6..12]), (&MACS[6..], &MACS[..6]));
                assert_eq!(sums(reply), (0xFFFF, 0xFFFF), "{six} {len}");
                let udp = head.at - UDP;
                assert_eq!(reply[udp..udp + 4], [0, 53, 0x12, 0x34]);
                // it is a datagram from the one asked
                let back = read(reply).unwrap();
                assert_eq!((back.at, back.len), (head.at, len));
                let asked =
                    if six { Client::V6(0x2001_0DB8 << 96 | 2) } else { Client::V4(0xC000_0202) };
                assert_eq!(back.client, asked);
            }
        }
    }

    #[test]
    fn any_octets_are_read_without_harm() {
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..200_000 {
            let mut any = frame(dice.bool(), QUERY);
            for _ in 0..dice.usize(1..6) {
                let at = dice.usize(ETHERNET..any.len());
                any[at] = dice.u8(..);
            }
            any.truncate(dice.usize(..=any.len()));
            if let Some(head) = read(&any) {
                assert!(head.at + head.len <= any.len());
            }
        }
    }
}
