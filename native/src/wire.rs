//! Numbers of DNS (RFC 1035 and followers), names on the wire, and reading octets safely.

pub const FORMERR: u16 = 1;
pub const SERVFAIL: u16 = 2;
pub const NXDOMAIN: u16 = 3;
pub const NOTIMP: u16 = 4;
pub const REFUSED: u16 = 5;
pub const YXDOMAIN: u16 = 6;
pub const BADVERS: u16 = 16;
pub const NOERROR: u16 = 0;

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const HINFO: u16 = 13;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const DNAME: u16 = 39;
pub const OPT: u16 = 41;
pub const DS: u16 = 43;
pub const RRSIG: u16 = 46;
pub const NSEC: u16 = 47;
pub const IXFR: u16 = 251;
pub const AXFR: u16 = 252;
pub const ANY: u16 = 255;

pub const IN: u16 = 1;
pub const CH: u16 = 3;

pub const AUTHORITATIVE: u8 = 0x04;
pub const TRUNCATED: u8 = 0x02;

/// Octets of a domain name on the wire, root included (RFC 1035, section 2.3.4).
pub const MAX_NAME: usize = 255;
/// Octets of a label.
pub const MAX_LABEL: u8 = 63;
/// CNAME and DNAME steps followed inside our zones for one query.
pub const MAX_CHAIN: usize = 8;
/// Octets of a UDP message without EDNS.
pub const PLAIN_UDP: usize = 512;
/// The greatest EDNS buffer that a setting may ask for.
pub const MAX_UDP: usize = 4096;
/// Octets of a message over TCP.
pub const MAX_TCP: usize = 65535;
/// Octets of one ready record set.
pub const MAX_RRSET: usize = 60_000;
/// The largest query that is read, over UDP and TCP.
pub const MAX_QUERY: usize = 4096;

/// A pointer to the question's name: the owner of every record that is ready in advance.
pub const OWNER: [u8; 2] = [0xC0, 0x0C];

/// The 16 bits at `at`, most significant octet first; None beyond the end.
#[inline(always)]
pub fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    let pair = data.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

const LOW: u64 = 0x0101_0101_0101_0101;

/// Eight octets with ASCII letters made small, the others as they are.
#[inline(always)]
pub fn lower8(word: u64) -> u64 {
    // Per octet, without carries: is it 'A'..='Z' and below 128?
    let seven = word & (LOW * 0x7F);
    let from_a = seven.wrapping_add(LOW * (0x80 - 0x41));
    let past_z = seven.wrapping_add(LOW * (0x80 - 0x5B));
    let letter = (from_a & !past_z & !word) & (LOW * 0x80);
    word | letter >> 2
}

#[inline(always)]
fn word(octets: &[u8]) -> u64 {
    let mut all = [0u8; 8];
    all[..octets.len()].copy_from_slice(octets);
    u64::from_le_bytes(all)
}

/// The last, incomplete word of a name of `size` octets that ends at the end of `name`.
#[inline(always)]
fn tail(name: &[u8], rest: usize) -> u64 {
    let size = name.len();
    if size >= 8 {
        // The octets before it belong to the name as well: read a whole word and shift them out.
        let last = &name[size - 8..];
        let whole = u64::from_le_bytes([
            last[0], last[1], last[2], last[3], last[4], last[5], last[6], last[7],
        ]);
        whole >> (8 * (8 - rest))
    } else {
        word(&name[size - rest..])
    }
}

#[inline(always)]
fn mixed(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * 0x9E37_79B9_7F4A_7C15_u128;
    (product as u64) ^ (product >> 64) as u64
}

/// The hash of a name on the wire, the same whatever the case of its letters.
#[inline(always)]
pub fn hash_of(name: &[u8]) -> u64 {
    let mut hash = 0x51_7C_C1_B7_27_22_0A_95_u64 ^ name.len() as u64;
    let mut chunks = name.chunks_exact(8);
    for chunk in &mut chunks {
        let octets =
            [chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]];
        hash = mixed(hash, lower8(u64::from_le_bytes(octets)));
    }
    let rest = chunks.remainder().len();
    if rest > 0 {
        hash = mixed(hash, lower8(tail(name, rest)));
    }
    mixed(hash, 0xD6E8_FEB8_6659_FD93)
}

/// Whether `name`, in whatever case, is `small`, which is in lower case.
#[inline(always)]
pub fn same_name(name: &[u8], small: &[u8]) -> bool {
    if name.len() != small.len() {
        return false;
    }
    let (mut left, mut right) = (name.chunks_exact(8), small.chunks_exact(8));
    for (one, other) in (&mut left).zip(&mut right) {
        if lower8(word(one)) != word(other) {
            return false;
        }
    }
    let rest = left.remainder().len();
    rest == 0 || lower8(tail(name, rest)) == tail(small, rest)
}

/// The length of a whole name at the beginning of `data`, root octet included; None where there is
/// none without compression pointers.
pub fn name_size(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = *data.get(at)?;
        if length > MAX_LABEL {
            return None;
        }
        at += usize::from(length) + 1;
        if at > MAX_NAME {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}

/// Whether `data` is one whole name without compression pointers, and nothing else.
pub fn is_name(data: &[u8]) -> bool {
    name_size(data) == Some(data.len())
}

/// Whether `name`, in whatever case, is `suffix` or ends with it, label by label.
pub fn is_below(name: &[u8], suffix: &[u8]) -> bool {
    let mut at = 0;
    while name.len() - at > suffix.len() {
        at += usize::from(name[at]) + 1;
        if at > name.len() {
            return false;
        }
    }
    same_name(&name[at..], suffix)
}

/// (type, RDATA) of each record of a ready set, in order; None stands for the end.
///
/// The set was checked when it was loaded; what is not a record set ends early.
pub struct Records<'a> {
    rest: &'a [u8],
}

/// The records of a ready set.
pub fn records(wire: &[u8]) -> Records<'_> {
    Records { rest: wire }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = u16_at(self.rest, 2)?;
        let length = usize::from(u16_at(self.rest, 10)?);
        let data = self.rest.get(12..12 + length)?;
        self.rest = &self.rest[12 + length..];
        Some((kind, data))
    }
}

/// Whether `wire` is `count` whole records owned by [`OWNER`], and nothing else.
pub fn are_records(wire: &[u8], count: usize) -> bool {
    let (mut at, mut found) = (0, 0);
    while at < wire.len() {
        if wire.get(at..at + 2) != Some(&OWNER) {
            return false;
        }
        let Some(length) = u16_at(wire, at + 10) else {
            return false;
        };
        at += 12 + usize::from(length);
        found += 1;
    }
    at == wire.len() && found == count
}

/// Whether `octets` are whole EDNS options behind each other (RFC 6891, section 6.1.2), maybe none.
pub fn are_options(octets: &[u8]) -> bool {
    let mut at = 0;
    while at < octets.len() {
        let Some(length) = u16_at(octets, at + 2) else {
            return false;
        };
        at += 4 + usize::from(length);
    }
    at == octets.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_made_small_and_nothing_else_is() {
        for octet in 0..=255u8 {
            let all = u64::from_le_bytes([octet; 8]);
            let small = u64::from_le_bytes([octet.to_ascii_lowercase(); 8]);
            assert_eq!(lower8(all), small, "octet {octet}");
        }
    }

    #[test]
    fn a_name_is_the_same_in_any_case_and_length() {
        for size in 1..40usize {
            let name: Vec<u8> = (0..size).map(|at| b'A' + (at % 26) as u8).collect();
            let small = name.to_ascii_lowercase();
            assert!(same_name(&name, &small));
            assert_eq!(hash_of(&name), hash_of(&small));
            for at in 0..size {
                let mut other = small.clone();
                other[at] ^= 1;
                assert!(!same_name(&name, &other), "octet {at} of {size}");
                assert_ne!(hash_of(&name), hash_of(&other));
            }
        }
    }
}
