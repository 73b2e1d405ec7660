//! A datagram and a table in, a datagram or silence out: the twin of `resolver/responder.py`.
//!
//! The same bytes for the same draw. Nothing is allocated on the way of an ordinary answer; no input
//! makes it panic, and all work is bounded.

use crate::counters::{Counters, SILENT};
use crate::plan::{walk, Client, Kind, Leaf, DROP};
use crate::query::{Edns, Query};
use crate::table::{Cut, Head, NameRef, Set, Table};
use crate::wire::*;

const NSID: u16 = 3;
const SUBNET: u16 = 8;
const KEEPALIVE: u16 = 11;

/// The minimal answer to ANY (RFC 8482), TTL 3600 s.
const MINIMAL: [u8; 21] = *b"\xc0\x0c\x00\x0d\x00\x01\x00\x00\x0e\x10\x00\x09\x07RFC8482\x00";
const MINIMAL_TTL_S: u32 = 3600;

/// Extended errors (RFC 8914), as options.
const STALE_ANSWER: &[u8] = b"\x00\x0f\x00\x1e\x00\x03the store has not been heard";
const STALE_NXDOMAIN: &[u8] = b"\x00\x0f\x00\x1e\x00\x13the store has not been heard";
const NOT_READY: &[u8] = b"\x00\x0f\x00\x16\x00\x0eno configuration yet";
const NOT_AUTHORITATIVE: &[u8] = b"\x00\x0f\x00\x02\x00\x14";

/// Servers of a delegation whose places need no memory of their own.
const FEW_SERVERS: usize = 64;

const VERSION_BIND: &[u8] = b"\x07version\x04bind\x00";
const ID_SERVER: &[u8] = b"\x02id\x06server\x00";

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A reply's length in octets, the rcode in its header, and what is counted for the name asked.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub len: usize,
    pub rcode: u8,
    pub meter: u32,
}

/// Octets behind each other; beyond the end of `buf` they are counted only.
struct Out<'o> {
    buf: &'o mut [u8],
    at: usize,
}

impl Out<'_> {
    #[inline(always)]
    fn put(&mut self, octets: &[u8]) {
        let end = self.at + octets.len();
        if let Some(room) = self.buf.get_mut(self.at..end) {
            room.copy_from_slice(octets);
        }
        self.at = end;
    }

    #[inline(always)]
    fn u16(&mut self, number: u16) {
        self.put(&number.to_be_bytes());
    }

    /// Eight octets, the most significant first. Numbers are put together by arithmetic: octets
    /// that are written one by one and read back together stall.
    #[inline(always)]
    fn u64(&mut self, number: u64) {
        self.put(&number.to_be_bytes());
    }

    /// What stands between the owner and the data of a record in class IN.
    #[inline(always)]
    fn fixed(&mut self, rtype: u16, ttl: u32, length: usize) {
        self.u64(u64::from(rtype) << 48 | u64::from(IN) << 32 | u64::from(ttl));
        self.u16(length as u16);
    }

    /// The shortest owner for `name`, which stands in full at `position`; gives its length.
    #[inline(always)]
    fn owner(&mut self, position: usize, name: &[u8]) -> usize {
        if position < 0x4000 {
            self.u16(0xC000 | position as u16);
            2
        } else {
            self.put(name);
            name.len()
        }
    }
}

/// What is answered: the sections are written already, but for the OPT record.
#[derive(Clone, Copy, Default)]
struct Found<'t> {
    rcode: i16,
    flags: u8,
    counts: [usize; 3],
    scope: u8,
    extended: &'t [u8],
    from_table: bool,
}

impl<'t> Found<'t> {
    fn only(rcode: u16) -> Self {
        Found { rcode: rcode as i16, ..Found::default() }
    }
}

/// What goes with every answer to one query.
struct Asked<'q, 't> {
    table: &'t Table,
    query: &'q Query<'q>,
    client: Client,
    draw: u64,
    counters: &'q Counters,
}

impl Asked<'_, '_> {
    /// Count what a leaf says of itself.
    #[inline(always)]
    fn met(&self, leaf: &Leaf) {
        for &meter in leaf.meters.iter() {
            self.counters.count(meter);
        }
    }
}

/// Write the reply to `query` into `out` (at least `PLAIN_UDP` octets, over TCP `MAX_TCP`).
///
/// None for silence. `client` is the source address, `stale` whether the store was not heard for
/// too long, `draw` 64 random bits.
#[inline]
#[allow(clippy::too_many_arguments)]
pub fn respond(
    table: &Table,
    query: &Query<'_>,
    client: Client,
    transport: Transport,
    stale: bool,
    draw: u64,
    counters: &Counters,
    out: &mut [u8],
) -> Option<Reply> {
    let limit = limit_of(table, query, transport).min(out.len());
    let mut meter = crate::counters::NOTHING;
    let mut writer = Out { buf: &mut out[..limit], at: query.end };
    let asked = Asked { table, query, client, draw, counters };
    let found = find(&asked, &mut writer, &mut meter);
    if i32::from(found.rcode) == i32::from(DROP) {
        if meter != crate::counters::NOTHING {
            counters.count(meter + SILENT);
        }
        return None;
    }
    let (sections, mut flags, mut counts) = (writer.at, found.flags, found.counts);
    if let Some(edns) = &query.edns {
        write_opt(table, edns, &found, transport, stale, &mut writer);
        if writer.at > limit {
            writer.at = query.end;
            (flags, counts) = (flags | TRUNCATED, [0; 3]);
            write_opt(table, edns, &found, transport, stale, &mut writer);
        }
        counts[2] += 1;
    } else if sections > limit {
        writer.at = query.end;
        (flags, counts) = (flags | TRUNCATED, [0; 3]);
    }
    let len = writer.at;
    let data = query.data;
    out[12..query.end].copy_from_slice(&data[12..query.end]);
    let rcode = (found.rcode & 15) as u8;
    let question = u8::from(query.end > 12);
    let flags = 0x80 | data[2] & 0x79 | flags;
    let id = u64::from(u16::from_be_bytes([data[0], data[1]]));
    let first = id << 48
        | u64::from(flags) << 40
        | u64::from(rcode) << 32
        | u64::from(question) << 16
        | u64::from(counts[0] as u16);
    let second = u32::from(counts[1] as u16) << 16 | u32::from(counts[2] as u16);
    out[..8].copy_from_slice(&first.to_be_bytes());
    out[8..12].copy_from_slice(&second.to_be_bytes());
    if meter != crate::counters::NOTHING {
        counters.count(meter + u32::from(rcode));
    }
    Some(Reply { len, rcode, meter })
}

/// The octets that a reply may have.
#[inline(always)]
fn limit_of(table: &Table, query: &Query<'_>, transport: Transport) -> usize {
    match (transport, &query.edns) {
        (Transport::Tcp, _) => MAX_TCP,
        (Transport::Udp, None) => PLAIN_UDP,
        (Transport::Udp, Some(edns)) => {
            usize::from(edns.payload.min(table.serving.udp_payload)).max(PLAIN_UDP)
        }
    }
}

/// Our OPT record with the options that the query and the answer call for.
#[inline(always)]
fn write_opt(
    table: &Table,
    edns: &Edns<'_>,
    found: &Found<'_>,
    transport: Transport,
    stale: bool,
    out: &mut Out<'_>,
) {
    let serving = &table.serving;
    let begin = out.at;
    // root, type, class: our size; upper bits of the rcode, version 0, DO
    out.u64(
        u64::from(OPT) << 40
            | u64::from(serving.udp_payload) << 24
            | u64::from((found.rcode >> 4) as u8) << 16
            | u64::from(edns.dnssec_ok) << 7,
    );
    out.put(&[0, 0, 0]);
    if found.from_table {
        if stale {
            match found.rcode as u16 {
                NOERROR => out.put(STALE_ANSWER),
                NXDOMAIN => out.put(STALE_NXDOMAIN),
                _ => {}
            }
        }
        out.put(found.extended);
        if let Some(subnet) = edns.subnet {
            let scope = if subnet.source > 0 { found.scope } else { 0 };
            out.u64(
                u64::from(SUBNET) << 48
                    | (subnet.address.len() as u64 + 4) << 32
                    | u64::from(subnet.family) << 16
                    | u64::from(subnet.source) << 8
                    | u64::from(scope),
            );
            out.put(subnet.address);
        }
    } else {
        out.put(found.extended);
    }
    if edns.nsid && !serving.nsid.is_empty() {
        out.u16(NSID);
        out.u16(serving.nsid.len() as u16);
        out.put(&serving.nsid);
    }
    if edns.keepalive && transport == Transport::Tcp {
        out.u16(KEEPALIVE);
        out.u16(2);
        out.u16(serving.idle_tenths);
    }
    let length = (out.at - begin - 11) as u16;
    if let Some(place) = out.buf.get_mut(begin + 9..begin + 11) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// What is to be answered, whatever the query.
#[inline(always)]
fn find<'t>(asked: &Asked<'_, 't>, out: &mut Out<'_>, meter: &mut u32) -> Found<'t> {
    let (query, table) = (asked.query, asked.table);
    if query.rcode != NOERROR {
        return Found::only(query.rcode);
    }
    if query.qtype == OPT {
        return Found::only(FORMERR);
    }
    if (249..=254).contains(&query.qtype) {
        let transfer = query.qtype == AXFR || query.qtype == IXFR;
        return Found::only(if transfer { REFUSED } else { NOTIMP });
    }
    if query.qclass == CH {
        return chaos(asked, out);
    }
    if query.qclass != IN {
        return Found::only(REFUSED);
    }
    if !table.ready {
        return Found { extended: NOT_READY, ..Found::only(SERVFAIL) };
    }
    // The usual case: the name exists, and no alias stands in the way.
    if let Some(name) = table.names.get(query.hash, query.name()) {
        let head = name.head();
        *meter = head.meter;
        if !head.is_cut() && plain(asked, &head) {
            return existing(asked, &head, &Trail::of(query), None, out);
        }
    }
    search(asked, out)
}

/// Whether a name's answer is no alias, so that nothing has to be followed.
#[inline(always)]
fn plain(asked: &Asked<'_, '_>, head: &Head<'_>) -> bool {
    let steered = match head.slot {
        Some(slot) if !head.absent => asked.table.plans.get(asked.table.slots.get(slot).a).aliased,
        _ => false,
    };
    !steered && (!head.has_sets() || beside_alias(asked.query.qtype) || head.set(CNAME).is_none())
}

/// Types that are looked up at an alias itself (RFC 1034, section 3.6.2; RFC 4035, section 2.5).
#[inline(always)]
fn beside_alias(qtype: u16) -> bool {
    matches!(qtype, CNAME | ANY | NSEC | RRSIG)
}

#[cold]
fn chaos<'t>(asked: &Asked<'_, 't>, out: &mut Out<'_>) -> Found<'t> {
    let (query, serving) = (asked.query, &asked.table.serving);
    let text: &[u8] = if same_name(query.name(), VERSION_BIND) {
        &serving.version
    } else if same_name(query.name(), ID_SERVER) {
        &serving.server
    } else {
        &[]
    };
    if text.is_empty() || (query.qtype != TXT && query.qtype != ANY) {
        return Found::only(REFUSED);
    }
    let [high, low] = (text.len() as u16 + 1).to_be_bytes();
    out.put(&[
        OWNER[0],
        OWNER[1],
        0,
        TXT as u8,
        0,
        CH as u8,
        0,
        0,
        0,
        0,
        high,
        low,
        text.len() as u8,
    ]);
    out.put(text);
    Found { flags: AUTHORITATIVE, counts: [1, 0, 0], ..Found::only(NOERROR) }
}

/// How far a search came: the name looked at now, where it stands in the reply, the number of
/// alias records before it, and how much of the client's address decided on them.
struct Trail<'n> {
    name: &'n [u8],
    position: usize,
    links: usize,
    scope: u8,
}

impl<'n> Trail<'n> {
    fn of(query: &Query<'n>) -> Self {
        Trail { name: query.name(), position: 12, links: 0, scope: 0 }
    }

    /// Write the owner for `suffix`, with which the name ends.
    fn owner(&self, suffix: &[u8], out: &mut Out<'_>) -> usize {
        out.owner(self.position + self.name.len() - suffix.len(), suffix)
    }
}

/// A name in lower case.
#[derive(Clone, Copy)]
struct Small {
    octets: [u8; MAX_NAME],
    len: u8,
}

impl Small {
    fn of(name: &[u8]) -> Self {
        let mut made = Small { octets: [0; MAX_NAME], len: name.len() as u8 };
        made.octets[..name.len()].copy_from_slice(name);
        made.octets[..name.len()].make_ascii_lowercase();
        made
    }

    fn get(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// The answer from our zones; aliases inside them are followed, each name once.
#[inline(never)]
fn search<'t>(asked: &Asked<'_, 't>, out: &mut Out<'_>) -> Found<'t> {
    let (query, table) = (asked.query, asked.table);
    let mut seen: [Small; MAX_CHAIN + 2] = [Small::of(query.name()); MAX_CHAIN + 2];
    let mut count = 1; // names seen; the last is the one looked at now
    let mut renamed: [usize; MAX_CHAIN + 2] = [0; MAX_CHAIN + 2]; // which DNAME owners are answered
    let mut renames = 0;
    let (mut position, mut links, mut scope) = (12, 0, 0);
    loop {
        let (before, _) = seen.split_at(count);
        let mut trail = Trail { name: before[count - 1].get(), position, links, scope };
        let (name, encloser) = lookup(table, trail.name);
        let next; // the name to go on with
        match (name, encloser) {
            (None, None) => {
                if links > 0 {
                    return aliases(&trail, NOERROR);
                }
                return Found { extended: NOT_AUTHORITATIVE, ..Found::only(REFUSED) };
            }
            (Some(found), _) if !found.head().is_cut() || query.qtype == DS => {
                let head = found.head();
                let alias = head.set(CNAME).filter(|_| !beside_alias(query.qtype));
                if let Some(set) = alias {
                    next = Small::of(set.first());
                    position = follow(&trail, out, set.first(), set.ttl);
                } else {
                    let walked = early(asked, &head);
                    let named = walked.and_then(|(leaf, depth)| Some((leaf, leaf.alias()?, depth)));
                    let Some((leaf, target, depth)) = named else {
                        return existing(asked, &head, &trail, walked, out);
                    };
                    asked.met(leaf);
                    if query.qtype == CNAME || query.qtype == ANY {
                        return positive(leaf.view(), &trail, depth, out);
                    }
                    next = Small::of(target);
                    position = follow(&trail, out, target, leaf.ttl);
                    scope = scope.max(depth);
                }
                links += 1;
            }
            (found, above) => {
                let start = above.unwrap_or(0);
                let encloser = &trail.name[start..];
                let head = match found {
                    Some(name) => name.head(),
                    None => match table.names.get(hash_of(encloser), encloser) {
                        Some(name) => name.head(),
                        None => return Found::only(SERVFAIL),
                    },
                };
                if let Some(cut) = head.cut() {
                    return referral(&trail, &cut, out);
                }
                let Some(alias) = head.set(DNAME) else {
                    return negative(table, head.zone, &trail, NXDOMAIN, None, &[], 0, out);
                };
                let target = alias.first();
                let known = renamed[..renames]
                    .iter()
                    .any(|at| ends_with_encloser(&seen[..count], *at, encloser));
                if !known {
                    // no record stands twice, RFC 2181, section 5
                    renamed[renames] = (count - 1) << 8 | start;
                    renames += 1;
                    owned(records(alias.wire), alias.ttl, |out| trail.owner(encloser, out), out);
                    links += 1;
                    trail.links = links;
                }
                if start + target.len() > MAX_NAME {
                    return aliases(&trail, YXDOMAIN); // RFC 6672, section 2.2
                }
                let exact = Exact::of(&trail.name[..start], target);
                next = Small::of(exact.get());
                position = follow(&trail, out, exact.get(), alias.ttl);
                links += 1;
                trail.links = links;
                if query.qtype == CNAME || query.qtype == ANY {
                    // the made CNAME is the answer, RFC 1034, section 3.6.2
                    return aliases(&trail, NOERROR);
                }
            }
        }
        if seen[..count].iter().any(|one| one.get() == next.get()) || count > MAX_CHAIN {
            return aliases(&Trail { name: next.get(), position, links, scope }, NOERROR);
        }
        seen[count] = next;
        count += 1;
    }
}

/// Whether the DNAME owner noted as `at` is `encloser`.
fn ends_with_encloser(seen: &[Small], at: usize, encloser: &[u8]) -> bool {
    &seen[at >> 8].get()[at & 0xFF..] == encloser
}

/// The name that a DNAME record makes, letters as they are.
struct Exact {
    octets: [u8; MAX_NAME],
    len: usize,
}

impl Exact {
    fn of(front: &[u8], target: &[u8]) -> Self {
        let mut made = Exact { octets: [0; MAX_NAME], len: front.len() + target.len() };
        made.octets[..front.len()].copy_from_slice(front);
        made.octets[front.len()..made.len].copy_from_slice(target);
        made
    }

    fn get(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// Write a CNAME from the trail's name to `target`; gives the position at which the target stands.
fn follow(trail: &Trail<'_>, out: &mut Out<'_>, target: &[u8], ttl: u32) -> usize {
    trail.owner(trail.name, out);
    out.fixed(CNAME, ttl, target.len());
    let position = out.at;
    out.put(target);
    position
}

/// (name, None) where it exists, by a wildcard maybe; (None, where the closest encloser begins)
/// where it does not (RFC 4592); (None, None) outside our zones.
fn lookup<'t>(table: &'t Table, qname: &[u8]) -> (Option<NameRef<'t>>, Option<usize>) {
    if let Some(found) = table.names.get(hash_of(qname), qname) {
        return (Some(found), None);
    }
    let mut start = 0;
    while let Some(&length) = qname.get(start) {
        if length == 0 {
            break;
        }
        start += usize::from(length) + 1;
        let Some(above) = qname.get(start..) else { break };
        if let Some(encloser) = table.names.get(hash_of(above), above) {
            if !encloser.head().is_cut() && above.len() + 2 <= MAX_NAME {
                let mut wildcard = [0; MAX_NAME];
                wildcard[..2].copy_from_slice(b"\x01*");
                wildcard[2..2 + above.len()].copy_from_slice(above);
                let name = &wildcard[..2 + above.len()];
                if let Some(found) = table.names.get(hash_of(name), name) {
                    return (Some(found), None);
                }
            }
            return (None, Some(start));
        }
    }
    (None, None)
}

/// The aliases alone: they lead out of our zones, in a circle, or on for too long.
fn aliases<'t>(trail: &Trail<'_>, rcode: u16) -> Found<'t> {
    Found {
        flags: AUTHORITATIVE,
        counts: [trail.links, 0, 0],
        scope: trail.scope,
        from_table: true,
        ..Found::only(rcode)
    }
}

/// The walk of an instance that may answer with a CNAME, which stands for all types; or None.
fn early<'t>(asked: &Asked<'_, 't>, head: &Head<'t>) -> Option<(&'t Leaf, u8)> {
    let slot = head.slot?;
    if head.absent || !asked.table.plans.get(asked.table.slots.get(slot).a).aliased {
        return None;
    }
    Some(steered(asked, slot))
}

/// The record set of a name that exists, or NODATA; `walked` is its plan's walk if done.
#[inline(always)]
fn existing<'t>(
    asked: &Asked<'_, 't>,
    head: &Head<'t>,
    trail: &Trail<'_>,
    walked: Option<(&'t Leaf, u8)>,
    out: &mut Out<'_>,
) -> Found<'t> {
    let (query, table) = (asked.query, asked.table);
    let ttl = head.slot.map(|slot| table.slots.get(slot).ttl);
    if head.absent {
        return negative(table, head.zone, trail, NXDOMAIN, ttl, &[], 0, out);
    }
    if let Some(slot) = head.slot {
        if query.qtype == A || query.qtype == AAAA {
            let (leaf, scope) = walked.unwrap_or_else(|| steered(asked, slot));
            asked.met(leaf);
            if leaf.rcode != 0 {
                return Found {
                    rcode: leaf.rcode,
                    scope: scope.max(trail.scope),
                    extended: &leaf.extended,
                    from_table: true,
                    // an error says nothing but itself
                    ..Found::default()
                }
                .cleared(query, out);
            }
            if leaf.count == 0 {
                let ttl = Some(leaf.ttl);
                return negative(table, head.zone, trail, NOERROR, ttl, &leaf.extended, scope, out);
            }
            return positive(leaf.view(), trail, scope, out);
        }
    }
    if query.qtype == DS {
        if let Some(above) = head.above {
            // the parent's side of a zone cut, RFC 4035, section 3.1.4.1
            return match head.ds() {
                Some(set) => positive(set.view(), trail, 0, out),
                None => negative(table, above, trail, NOERROR, None, &[], 0, out),
            };
        }
    }
    let mut found = head.set(query.qtype).map(|set| set.view());
    if query.qtype == ANY && (head.has_sets() || head.slot.is_some()) {
        let minimal = View { ttl: MINIMAL_TTL_S, count: 1, wire: &MINIMAL, extended: &[] };
        found = Some(head.set(CNAME).map_or(minimal, |set| set.view()));
    }
    match found {
        Some(view) => positive(view, trail, 0, out),
        None => negative(table, head.zone, trail, NOERROR, ttl, &[], 0, out),
    }
}

impl<'t> Found<'t> {
    /// The same with nothing written behind the question.
    #[cold]
    fn cleared(self, query: &Query<'_>, out: &mut Out<'_>) -> Self {
        out.at = query.end;
        self
    }
}

/// The walk of an instance's plan for this client.
#[inline(always)]
fn steered<'t>(asked: &Asked<'_, 't>, slot: u32) -> (&'t Leaf, u8) {
    let (table, query) = (asked.table, asked.query);
    let slot = table.slots.get(slot);
    let plan = table.plans.get(if query.qtype == AAAA { slot.aaaa } else { slot.a });
    if let Kind::Leaf(leaf) = &plan.node.kind {
        return (leaf, 0);
    }
    walk(&plan.node, client_of(query, asked.client), asked.draw, asked.counters)
}

/// The client that an answer is for: what the subnet in the query says, or the source address.
#[inline(always)]
pub fn client_of(query: &Query<'_>, source: Client) -> Client {
    match query.edns.as_ref().and_then(|edns| edns.subnet) {
        Some(subnet) if subnet.source > 0 => {
            Client::padded(if subnet.family == 1 { 32 } else { 128 }, subnet.address)
        }
        _ => source,
    }
}

/// Records to answer, whether of a plan or static.
#[derive(Clone, Copy)]
struct View<'t> {
    ttl: u32,
    count: u16,
    wire: &'t [u8],
    extended: &'t [u8],
}

impl Leaf {
    #[inline(always)]
    fn view(&self) -> View<'_> {
        View { ttl: self.ttl, count: self.count, wire: &self.wire, extended: &self.extended }
    }
}

impl<'t> Set<'t> {
    #[inline(always)]
    fn view(&self) -> View<'t> {
        View { ttl: self.ttl, count: self.count, wire: self.wire, extended: &[] }
    }
}

/// The records of a leaf, behind the aliases that led to it.
#[inline(always)]
fn positive<'t>(view: View<'t>, trail: &Trail<'_>, scope: u8, out: &mut Out<'_>) -> Found<'t> {
    if trail.links == 0 {
        out.put(view.wire);
    } else {
        owned(records(view.wire), view.ttl, |out| trail.owner(trail.name, out), out);
    }
    Found {
        flags: AUTHORITATIVE,
        counts: [trail.links + usize::from(view.count), 0, 0],
        scope: scope.max(trail.scope),
        extended: view.extended,
        from_table: true,
        ..Found::only(NOERROR)
    }
}

/// Write records under another owner.
fn owned(
    records: Records<'_>,
    ttl: u32,
    mut owner: impl FnMut(&mut Out<'_>) -> usize,
    out: &mut Out<'_>,
) {
    for (rtype, data) in records {
        owner(out);
        out.fixed(rtype, ttl, data.len());
        out.put(data);
    }
}

/// NODATA or NXDOMAIN with the SOA of the zone (RFC 2308), behind the aliases that led here.
#[allow(clippy::too_many_arguments)]
fn negative<'t>(
    table: &'t Table,
    zone: u32,
    trail: &Trail<'_>,
    rcode: u16,
    ttl: Option<u32>,
    extended: &'t [u8],
    scope: u8,
    out: &mut Out<'_>,
) -> Found<'t> {
    let Some(apex) = table.zones.get(zone as usize) else {
        return Found::only(SERVFAIL);
    };
    let ttl = ttl.map_or(apex.ttl, |ttl| ttl.min(apex.ttl));
    trail.owner(&apex.name, out);
    out.fixed(SOA, ttl, apex.soa.len());
    out.put(&apex.soa);
    Found {
        flags: AUTHORITATIVE,
        counts: [trail.links, 1, 0],
        scope: scope.max(trail.scope),
        extended,
        from_table: true,
        ..Found::only(rcode)
    }
}

/// The delegation that the name lies under, with its glue (RFC 1034, 4.3.2; RFC 9471).
#[cold]
fn referral<'t>(trail: &Trail<'_>, cut: &Cut<'_>, out: &mut Out<'_>) -> Found<'t> {
    let (servers, pieces) = cut.counts();
    let (mut few, mut many) = ([0; FEW_SERVERS], Vec::new());
    let places = if usize::from(servers) <= FEW_SERVERS {
        &mut few[..usize::from(servers)]
    } else {
        many.resize(usize::from(servers), 0);
        &mut many[..]
    };
    for (place, target) in places.iter_mut().zip(cut.servers()) {
        let owner = trail.position + trail.name.len() - cut.name.len();
        let owner_size = trail.owner(cut.name, out);
        let inside = is_below(target, cut.name);
        let front = if inside { target.len() - cut.name.len() } else { target.len() };
        let length = front + if inside { owner_size } else { 0 };
        out.fixed(NS, cut.ttl, length);
        *place = out.at;
        out.put(&target[..front]);
        if inside {
            out.owner(owner, cut.name);
        }
    }
    for (server, rest) in cut.glue() {
        if out.at > out.buf.len() {
            break; // it will be cut off anyway, and servers far behind are long to look for
        }
        let place = places[usize::from(server)];
        if place < 0x4000 {
            out.owner(place, &[]);
        } else {
            out.put(cut.servers().nth(usize::from(server)).unwrap_or(&[]));
        }
        out.put(rest);
    }
    Found {
        flags: if trail.links > 0 { AUTHORITATIVE } else { 0 },
        counts: [trail.links, usize::from(servers), usize::from(pieces)],
        scope: trail.scope,
        from_table: true,
        ..Found::only(NOERROR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_made_in_advance_have_the_length_that_they_say() {
        for option in [STALE_ANSWER, STALE_NXDOMAIN, NOT_READY, NOT_AUTHORITATIVE] {
            let length = usize::from(u16::from_be_bytes([option[2], option[3]]));
            assert_eq!(length + 4, option.len());
        }
        assert_eq!(MINIMAL.len(), 12 + usize::from(MINIMAL[11]));
    }
}
