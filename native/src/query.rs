//! Reading a query: header, question, EDNS (RFC 1035, 6891, 7871). Bounded work, no allocation.

use crate::wire::*;

/// Records behind the question that a query may carry; more is FORMERR.
const MAX_QUERY_RECORDS: u32 = 16;
/// EDNS options that a query may carry; more is FORMERR.
const MAX_OPTIONS: usize = 32;
/// Compression pointers followed in one name.
const MAX_POINTERS: usize = 16;

const NSID: u16 = 3;
const SUBNET: u16 = 8;
const KEEPALIVE: u16 = 11;

/// A client subnet: the option's address as it came; family 1 or 2 (0 goes with `source` 0).
#[derive(Clone, Copy, Debug)]
pub struct Subnet<'a> {
    pub family: u16,
    pub source: u8,
    pub address: &'a [u8],
}

/// An OPT record as read.
#[derive(Clone, Copy, Debug)]
pub struct Edns<'a> {
    pub payload: u16,
    pub dnssec_ok: bool,
    pub nsid: bool,
    pub keepalive: bool,
    pub subnet: Option<Subnet<'a>>,
}

/// A query as read; `rcode` is what reading decided. `end` is where the question ends: 12 where
/// none counts.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub data: &'a [u8],
    pub rcode: u16,
    pub end: usize,
    pub qtype: u16,
    pub qclass: u16,
    pub hash: u64,
    pub edns: Option<Edns<'a>>,
}

impl<'a> Query<'a> {
    fn refused(data: &'a [u8], rcode: u16) -> Self {
        Query { data, rcode, end: 12, qtype: 0, qclass: 0, hash: 0, edns: None }
    }

    /// The name asked, as it came.
    #[inline(always)]
    pub fn name(&self) -> &'a [u8] {
        if self.end == 12 {
            return &[];
        }
        &self.data[12..self.end - 4]
    }
}

/// `data` as a query; None where silence is the answer: no whole header, or a response.
#[inline(always)]
pub fn read_query(data: &[u8]) -> Option<Query<'_>> {
    let size = data.len();
    if size < 12 || data[2] & 0x80 != 0 {
        return None;
    }
    if data[2] & 0x78 != 0 {
        return Some(Query::refused(data, NOTIMP));
    }
    if data[4] != 0 || data[5] != 1 {
        // one question, RFC 9619
        return Some(Query::refused(data, FORMERR));
    }
    let mut at = 12;
    loop {
        let Some(&length) = data.get(at) else {
            return Some(Query::refused(data, FORMERR));
        };
        if length == 0 {
            break;
        }
        if length > MAX_LABEL {
            // a pointer has nothing before it that it could point to
            return Some(Query::refused(data, FORMERR));
        }
        at += usize::from(length) + 1;
    }
    at += 1;
    if at - 12 > MAX_NAME || at + 4 > size {
        return Some(Query::refused(data, FORMERR));
    }
    let name = at;
    at += 4;
    let (edns, mut rcode, end) =
        if data[6..12] == [0, 0, 0, 0, 0, 1] && data.get(at..at + 3) == Some(&[0, 0, 41]) {
            read_opt(data, at + 1)
        } else if data[6..12] != [0; 6] {
            read_records(data, at)
        } else {
            (None, NOERROR, at)
        };
    if rcode == NOERROR && end != size {
        rcode = FORMERR;
    }
    Some(Query {
        data,
        rcode,
        end: at,
        qtype: u16::from_be_bytes([data[name], data[name + 1]]),
        qclass: u16::from_be_bytes([data[name + 2], data[name + 3]]),
        hash: hash_of(&data[12..name]),
        edns,
    })
}

/// (EDNS, rcode, position behind) of the OPT record whose type stands at `at`.
#[inline(always)]
fn read_opt(data: &[u8], at: usize) -> (Option<Edns<'_>>, u16, usize) {
    let Some(fixed) = data.get(at..at + 10) else {
        return (None, FORMERR, at);
    };
    let end = at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let Some(octets) = data.get(at + 10..end) else {
        return (None, FORMERR, at);
    };
    let version = fixed[5];
    let read = if version == 0 { read_options(octets) } else { Some(Options::default()) };
    let rcode = match read {
        _ if version > 0 => BADVERS,
        None => FORMERR,
        Some(_) => NOERROR,
    };
    let Options { nsid, keepalive, subnet } = read.unwrap_or_default();
    let payload = u16::from_be_bytes([fixed[2], fixed[3]]);
    let dnssec_ok = fixed[6] & 0x80 != 0;
    (Some(Edns { payload, dnssec_ok, nsid, keepalive, subnet }), rcode, end)
}

/// What the options of an OPT record say.
#[derive(Clone, Copy, Default)]
struct Options<'a> {
    nsid: bool,
    keepalive: bool,
    subnet: Option<Subnet<'a>>,
}

/// The options in `octets`; None where they are malformed.
#[inline(always)]
fn read_options(octets: &[u8]) -> Option<Options<'_>> {
    let mut read = Options::default();
    let mut rest = octets;
    for _ in 0..MAX_OPTIONS {
        if rest.is_empty() {
            return Some(read);
        }
        let code = u16_at(rest, 0)?;
        let length = usize::from(u16_at(rest, 2)?);
        let data = rest.get(4..4 + length)?;
        rest = &rest[4 + length..];
        match code {
            SUBNET => {
                if read.subnet.is_some() {
                    return None;
                }
                read.subnet = Some(read_subnet(data)?);
            }
            NSID => read.nsid = true,
            KEEPALIVE => read.keepalive = true,
            _ => {}
        }
    }
    rest.is_empty().then_some(read)
}

/// A client subnet option; None where it is malformed (RFC 7871, section 6).
#[inline(always)]
fn read_subnet(data: &[u8]) -> Option<Subnet<'_>> {
    let family = u16_at(data, 0)?;
    let (source, scope) = (*data.get(2)?, *data.get(3)?);
    let address = &data[4..];
    let bits: u8 = match family {
        0 => 0,
        1 => 32,
        2 => 128,
        _ => return None,
    };
    if scope != 0 || source > bits || address.len() != usize::from(source).div_ceil(8) {
        return None;
    }
    let over = source % 8;
    if over != 0 && address[address.len() - 1] & (0xFF >> over) != 0 {
        return None;
    }
    Some(Subnet { family, source, address })
}

/// (EDNS, rcode, position behind) of whatever records follow the question.
#[cold]
fn read_records(data: &[u8], start: usize) -> (Option<Edns<'_>>, u16, usize) {
    let count = |at: usize| u32::from(u16::from_be_bytes([data[at], data[at + 1]]));
    let (answers, authorities, additionals) = (count(6), count(8), count(10));
    if answers != 0 || authorities + additionals > MAX_QUERY_RECORDS {
        return (None, FORMERR, start);
    }
    let (mut edns, mut rcode, mut at) = (None, NOERROR, start);
    for index in 0..authorities + additionals {
        let Some((root, behind)) = skip_name(data, at) else {
            return (edns, FORMERR, at);
        };
        at = behind;
        let Some(fixed) = data.get(at..at + 10) else {
            return (edns, FORMERR, at);
        };
        if u16::from_be_bytes([fixed[0], fixed[1]]) == OPT {
            if edns.is_some() || !root || index < authorities {
                return (edns, FORMERR, at); // RFC 6891, section 6.1.1
            }
            (edns, rcode, at) = read_opt(data, at);
            if edns.is_none() {
                return (None, rcode, at);
            }
        } else {
            at += 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
            if at > data.len() {
                return (edns, FORMERR, at);
            }
        }
    }
    (edns, rcode, at)
}

/// (whether it is the root, position behind) of a name; None where it is malformed.
///
/// Every pointer must point to before the name's own beginning and to before the last one's target.
fn skip_name(data: &[u8], start: usize) -> Option<(bool, usize)> {
    let (mut at, mut floor) = (start, start);
    let (mut behind, mut total) = (None, 1);
    for _ in 0..=MAX_POINTERS {
        let first = loop {
            let length = *data.get(at)?;
            if length > MAX_LABEL {
                break length;
            }
            let end = at + usize::from(length) + 1;
            if end > data.len() {
                return None;
            }
            at = end;
            if length == 0 {
                return Some((total == 1, behind.unwrap_or(at)));
            }
            total += usize::from(length) + 1;
            if total > MAX_NAME {
                return None;
            }
        };
        if first < 0xC0 {
            return None;
        }
        let target = usize::from(u16_at(data, at)? & 0x3FFF);
        if target < 12 || target >= floor {
            return None;
        }
        behind = behind.or(Some(at + 2));
        (at, floor) = (target, target);
    }
    None
}
