//! The answer table: immutable, shared by all workers, replaced as a whole by one pointer.
//!
//! Names lie in shards: a change of one name copies its shard, everything else is shared with the
//! table before. A record of a name is one run of octets, checked when it was loaded:
//!
//! ```text
//! length u8, name, flags u8, zone u32, [slot u32, meter u32], [zone above u32], sets u16,
//! sets x (type u16, ttl u32, count u16, length u16, octets), [ds as one set], [cut]
//! cut: ttl u32, owner (u8, octets), servers u16, glue u16,
//!      servers x (u8, octets), glue x (server u16, length u16, octets)
//! ```

use std::sync::Arc;

use crate::counters::{NOTHING, OUTCOMES};
use crate::plan::Node;
use crate::wire::*;

pub const HAS_SLOT: u8 = 1;
pub const ABSENT: u8 = 2;
pub const HAS_CUT: u8 = 4;
pub const HAS_ABOVE: u8 = 8;
pub const HAS_DS: u8 = 16;
pub const FLAGS: u8 = 31;

/// Names in one shard, about; a change of a name copies so many.
const SHARD_NAMES: usize = 256;
/// The bits of the greatest number of shards.
const MAX_SHARD_BITS: u32 = 14;
/// Elements of one piece of a [`Chunks`].
const CHUNK_BITS: usize = 10;

/// How the server speaks, the same for all names; options are ready for the wire.
#[derive(Debug, Default)]
pub struct Serving {
    pub nsid: Box<[u8]>,
    pub version: Box<[u8]>,
    pub server: Box<[u8]>,
    pub udp_payload: u16,
    pub idle_tenths: u16,
    pub stale_after_s: f64,
}

/// What negative answers of a zone carry.
#[derive(Debug)]
pub struct Zone {
    pub name: Box<[u8]>,
    pub soa: Box<[u8]>,
    pub ttl: u32,
}

/// An instance: the plans of A and AAAA, by number, and its TTL in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub a: u32,
    pub aaaa: u32,
    pub ttl: u32,
}

/// A plan; `aliased` where it may answer a CNAME.
#[derive(Clone, Debug)]
pub struct Plan {
    pub node: Arc<Node>,
    pub aliased: bool,
}

/// A sequence in pieces: a change copies the pieces that it touches.
#[derive(Debug)]
pub struct Chunks<T> {
    chunks: Arc<[Arc<[T]>]>,
    len: usize,
}

impl<T> Clone for Chunks<T> {
    fn clone(&self) -> Self {
        Chunks { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<T: Clone> Chunks<T> {
    /// From all elements.
    pub fn new(all: &[T]) -> Self {
        let chunks = all.chunks(1 << CHUNK_BITS).map(Arc::from).collect();
        Chunks { chunks, len: all.len() }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All elements.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Element `at`, which must exist.
    #[inline(always)]
    pub fn get(&self, at: u32) -> &T {
        let at = at as usize;
        &self.chunks[at >> CHUNK_BITS][at & ((1 << CHUNK_BITS) - 1)]
    }

    /// With `changes` put in place, in any order; those at the end and behind are appended, which
    /// must leave no gap. None where they do.
    pub fn with(&self, changes: &[(u32, T)]) -> Option<Self> {
        let mut chunks: Vec<Option<Vec<T>>> = vec![None; self.chunks.len()];
        let mut more: Vec<(u32, T)> = Vec::new();
        for (at, value) in changes {
            let index = *at as usize;
            if index >= self.len {
                more.push((*at, value.clone()));
                continue;
            }
            let chunk = index >> CHUNK_BITS;
            let made = chunks[chunk].get_or_insert_with(|| self.chunks[chunk].to_vec());
            made[index & ((1 << CHUNK_BITS) - 1)] = value.clone();
        }
        more.sort_by_key(|(at, _)| *at);
        let mut len = self.len;
        for (at, value) in more {
            if at as usize != len {
                return None;
            }
            if len & ((1 << CHUNK_BITS) - 1) == 0 {
                chunks.push(Some(Vec::new()));
            }
            let last = chunks.len() - 1;
            let made = match self.chunks.get(last) {
                Some(old) => chunks[last].get_or_insert_with(|| old.to_vec()),
                None => chunks[last].get_or_insert_with(Vec::new),
            };
            made.push(value);
            len += 1;
        }
        let chunks = chunks
            .into_iter()
            .enumerate()
            .map(|(at, made)| made.map_or_else(|| self.chunks[at].clone(), Arc::from))
            .collect();
        Some(Chunks { chunks, len })
    }
}

/// Some names: an open-addressed index of (tag, position + 1), and their records.
#[derive(Debug)]
pub struct Shard {
    index: Box<[u64]>,
    blob: Box<[u8]>,
    /// One more than the greatest zone and slot of its names.
    ends: (u32, u32),
}

impl Shard {
    /// From (hash, record), each name once.
    fn new(records: &[(u64, &[u8])]) -> Self {
        let size = (records.len() * 2).next_power_of_two().max(2);
        let total = records.iter().map(|(_, record)| record.len()).sum();
        let (mut index, mut blob) = (vec![0u64; size], Vec::with_capacity(total));
        let mut ends = (0, 0);
        for (hash, record) in records {
            let head = NameRef { rest: &record[1 + usize::from(record[0])..] }.head();
            ends.0 = ends.0.max(head.zone + 1).max(head.above.map_or(0, |zone| zone + 1));
            ends.1 = ends.1.max(head.slot.map_or(0, |slot| slot + 1));
            let mut at = *hash as usize & (size - 1);
            while index[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            index[at] = tag_of(*hash) | (blob.len() as u64 + 1);
            blob.extend_from_slice(record);
        }
        Shard { index: index.into_boxed_slice(), blob: blob.into_boxed_slice(), ends }
    }

    /// The record of a name in any case.
    #[inline(always)]
    fn find(&self, hash: u64, name: &[u8]) -> Option<NameRef<'_>> {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let entry = *self.index.get(at)?;
            if entry == 0 {
                return None;
            }
            if entry & TAG == tag_of(hash) {
                let record = self.blob.get((entry & !TAG) as usize - 1..)?;
                let size = usize::from(*record.first()?);
                if same_name(name, record.get(1..1 + size)?) {
                    return Some(NameRef { rest: &record[1 + size..] });
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Every record with its hash.
    fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = &self.blob[..];
        std::iter::from_fn(move || {
            let size = record_size(rest)?;
            let (record, after) = rest.split_at(size);
            rest = after;
            Some((hash_of(&record[1..1 + usize::from(record[0])]), record))
        })
    }
}

const TAG: u64 = 0xFFFF_FFFF_0000_0000;

#[inline(always)]
fn tag_of(hash: u64) -> u64 {
    hash << 18 & TAG
}

/// All names.
#[derive(Clone, Debug)]
pub struct Names {
    shards: Arc<[Arc<Shard>]>,
    bits: u32,
    count: usize,
}

impl Names {
    /// From records, each name once; None where one stands twice.
    pub fn new(records: &[&[u8]]) -> Option<Self> {
        let bits = (records.len() / SHARD_NAMES).next_power_of_two().trailing_zeros();
        let bits = bits.min(MAX_SHARD_BITS);
        let mut parts: Vec<Vec<(u64, &[u8])>> = vec![Vec::new(); 1 << bits];
        for record in records {
            let hash = hash_of(&record[1..1 + usize::from(record[0])]);
            parts[shard_of(hash, bits)].push((hash, record));
        }
        if parts.iter_mut().any(|part| twice(part)) {
            return None;
        }
        let shards = parts.iter().map(|part| Arc::new(Shard::new(part))).collect();
        Some(Names { shards, bits, count: records.len() })
    }

    /// With `put` in place of what they name, and without those in `gone`.
    pub fn with(&self, put: &[&[u8]], gone: &[&[u8]]) -> Option<Self> {
        let many = self.count + put.len();
        if self.bits < MAX_SHARD_BITS && many / SHARD_NAMES > 4 << self.bits {
            return self.spread(put, gone);
        }
        let mut touched: std::collections::BTreeMap<usize, Changed<'_>> = Default::default();
        for record in put {
            let hash = hash_of(&record[1..1 + usize::from(record[0])]);
            touched.entry(shard_of(hash, self.bits)).or_default().0.push((hash, record));
        }
        for name in gone {
            touched.entry(shard_of(hash_of(name), self.bits)).or_default().1.push(name);
        }
        let mut shards = self.shards.to_vec();
        let mut count = self.count;
        for (at, (mut put, gone)) in touched {
            if twice(&mut put) {
                return None;
            }
            let old = &self.shards[at];
            let before = old.records().count();
            let merged = merged(old, &put, &gone);
            count = count + merged.len() - before;
            shards[at] = Arc::new(Shard::new(&merged));
        }
        Some(Names { shards: shards.into(), bits: self.bits, count })
    }

    /// The same with more shards.
    fn spread(&self, put: &[&[u8]], gone: &[&[u8]]) -> Option<Self> {
        let again: std::collections::HashSet<&[u8]> =
            put.iter().map(|record| name_of(record)).chain(gone.iter().copied()).collect();
        let mut all: Vec<&[u8]> = Vec::with_capacity(self.count + put.len());
        for shard in self.shards.iter() {
            all.extend(
                shard
                    .records()
                    .map(|(_, record)| record)
                    .filter(|record| !again.contains(name_of(record))),
            );
        }
        all.extend(put);
        Names::new(&all)
    }

    /// Whether every name lies in one of so many zones, and its instance in one of so many slots.
    pub fn fit(&self, zones: usize, slots: usize) -> bool {
        self.shards
            .iter()
            .all(|shard| shard.ends.0 as usize <= zones && shard.ends.1 as usize <= slots)
    }

    /// Whether every name, of which `fit` holds, ends with the name of its zone.
    pub fn lie_in(&self, zones: &[Zone]) -> bool {
        self.shards.iter().flat_map(|shard| shard.records()).all(|(_, record)| {
            let name = name_of(record);
            let head = NameRef { rest: &record[1 + name.len()..] }.head();
            lies_in(name, &head, zones)
        })
    }

    /// Names.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The name with this hash, in any case, where it exists.
    #[inline(always)]
    pub fn get(&self, hash: u64, name: &[u8]) -> Option<NameRef<'_>> {
        self.shards[shard_of(hash, self.bits)].find(hash, name)
    }

    /// Ask the memory for the place where a name's position stands.
    #[inline(always)]
    pub fn prefetch_index(&self, hash: u64) {
        let shard = &self.shards[shard_of(hash, self.bits)];
        prefetch(&shard.index[hash as usize & (shard.index.len() - 1)]);
    }

    /// Ask the memory for a name's record.
    #[inline(always)]
    pub fn prefetch_record(&self, hash: u64) {
        let shard = &self.shards[shard_of(hash, self.bits)];
        let entry = shard.index[hash as usize & (shard.index.len() - 1)];
        let position = ((entry & !TAG) as usize).wrapping_sub(1);
        if let Some(first) = shard.blob.get(position) {
            prefetch(first);
            if let Some(more) = shard.blob.get(position + 64) {
                prefetch(more);
            }
        }
    }

    /// The name that most likely has this hash: names are not compared.
    #[inline(always)]
    pub fn glance(&self, hash: u64) -> Option<NameRef<'_>> {
        let shard = &self.shards[shard_of(hash, self.bits)];
        let entry = shard.index[hash as usize & (shard.index.len() - 1)];
        let position = ((entry & !TAG) as usize).wrapping_sub(1);
        let record = shard.blob.get(position..)?;
        let size = usize::from(*record.first()?);
        Some(NameRef { rest: record.get(1 + size..)? })
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        let each = |shard: &Arc<Shard>| shard.index.len() * 8 + shard.blob.len() + 64;
        self.shards.iter().map(each).sum::<usize>() + self.shards.len() * 8
    }
}

type Changed<'a> = (Vec<(u64, &'a [u8])>, Vec<&'a [u8]>);

fn merged<'a>(old: &'a Shard, put: &[(u64, &'a [u8])], gone: &[&[u8]]) -> Vec<(u64, &'a [u8])> {
    let again: std::collections::HashSet<&[u8]> =
        put.iter().map(|(_, record)| name_of(record)).chain(gone.iter().copied()).collect();
    let mut all: Vec<(u64, &[u8])> =
        old.records().filter(|(_, record)| !again.contains(name_of(record))).collect();
    all.extend_from_slice(put);
    all
}

/// Whether a name stands twice.
fn twice(part: &mut [(u64, &[u8])]) -> bool {
    part.sort_by(|one, other| name_of(one.1).cmp(name_of(other.1)));
    part.windows(2).any(|pair| name_of(pair[0].1) == name_of(pair[1].1))
}

fn name_of(record: &[u8]) -> &[u8] {
    &record[1..1 + usize::from(record[0])]
}

#[inline(always)]
fn shard_of(hash: u64, bits: u32) -> usize {
    (hash >> 50) as usize & ((1 << bits) - 1)
}

/// Ask the memory for a place that is read soon.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program sees, and the place exists.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch((place as *const T).cast(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// A ready set of static records.
#[derive(Clone, Copy, Debug)]
pub struct Set<'t> {
    pub ttl: u32,
    pub count: u16,
    pub wire: &'t [u8],
}

impl<'t> Set<'t> {
    /// The RDATA of the first record.
    pub fn first(&self) -> &'t [u8] {
        records(self.wire).next().map_or(&[], |(_, data)| data)
    }
}

/// A delegation.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'t> {
    pub ttl: u32,
    pub name: &'t [u8],
    servers: u16,
    glue: u16,
    rest: &'t [u8],
}

impl<'t> Cut<'t> {
    /// The servers' names.
    pub fn servers(&self) -> impl Iterator<Item = &'t [u8]> {
        let mut reader = Reader(self.rest);
        (0..self.servers).map_while(move |_| reader.short())
    }

    /// (number of a server, its record without the owner) of each piece of glue.
    pub fn glue(&self) -> impl Iterator<Item = (u16, &'t [u8])> {
        let mut reader = Reader(self.rest);
        for _ in 0..self.servers {
            reader.short();
        }
        (0..self.glue).map_while(move |_| Some((reader.u16()?, reader.long()?)))
    }

    /// Servers and pieces of glue.
    pub fn counts(&self) -> (u16, u16) {
        (self.servers, self.glue)
    }
}

/// A name's record behind the name itself.
#[derive(Clone, Copy, Debug)]
pub struct NameRef<'t> {
    rest: &'t [u8],
}

/// What stands in front of a name's sets.
#[derive(Clone, Copy, Debug)]
pub struct Head<'t> {
    pub zone: u32,
    pub slot: Option<u32>,
    pub meter: u32,
    pub absent: bool,
    pub above: Option<u32>,
    flags: u8,
    sets: u16,
    rest: &'t [u8],
}

impl<'t> NameRef<'t> {
    /// The name's head. The record was checked when it was loaded; were it short, the name would
    /// seem empty.
    #[inline(always)]
    pub fn head(self) -> Head<'t> {
        Head::read(&mut Reader(self.rest)).unwrap_or(Head {
            zone: 0,
            slot: None,
            meter: NOTHING,
            absent: false,
            above: None,
            flags: 0,
            sets: 0,
            rest: &[],
        })
    }
}

impl<'t> Head<'t> {
    #[inline(always)]
    fn read(reader: &mut Reader<'t>) -> Option<Self> {
        let flags = reader.u8()?;
        let zone = reader.u32()?;
        let (mut slot, mut meter) = (None, NOTHING);
        if flags & HAS_SLOT != 0 {
            slot = Some(reader.u32()?);
            meter = reader.u32()?;
        }
        let above = if flags & HAS_ABOVE != 0 { Some(reader.u32()?) } else { None };
        let sets = reader.u16()?;
        let absent = flags & ABSENT != 0;
        Some(Head { zone, slot, meter, absent, above, flags, sets, rest: reader.0 })
    }

    /// Whether the name is delegated.
    #[inline(always)]
    pub fn is_cut(&self) -> bool {
        self.flags & HAS_CUT != 0
    }

    /// Whether it has static records.
    pub fn has_sets(&self) -> bool {
        self.sets > 0
    }

    /// The set of a type.
    #[inline(always)]
    pub fn set(&self, rtype: u16) -> Option<Set<'t>> {
        let mut reader = Reader(self.rest);
        for _ in 0..self.sets {
            let found = reader.u16()?;
            let set = reader.set()?;
            if found == rtype {
                return Some(set);
            }
        }
        None
    }

    fn behind(&self) -> Option<Reader<'t>> {
        let mut reader = Reader(self.rest);
        for _ in 0..self.sets {
            reader.u16()?;
            reader.set()?;
        }
        Some(reader)
    }

    /// The DS records on the parent's side of an apex.
    pub fn ds(&self) -> Option<Set<'t>> {
        let mut reader = self.behind()?;
        if self.flags & HAS_DS == 0 {
            return None;
        }
        reader.u16()?;
        reader.set()
    }

    /// The delegation.
    pub fn cut(&self) -> Option<Cut<'t>> {
        if !self.is_cut() {
            return None;
        }
        let mut reader = self.behind()?;
        if self.flags & HAS_DS != 0 {
            reader.u16()?;
            reader.set()?;
        }
        let (ttl, name) = (reader.u32()?, reader.short()?);
        let (servers, glue) = (reader.u16()?, reader.u16()?);
        Some(Cut { ttl, name, servers, glue, rest: reader.0 })
    }
}

/// Reads little-endian numbers and runs of octets off the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'t>(pub &'t [u8]);

impl<'t> Reader<'t> {
    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    #[inline(always)]
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|one| one[0])
    }

    #[inline(always)]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline(always)]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline(always)]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// `size` octets.
    #[inline(always)]
    pub fn octets(&mut self, size: usize) -> Option<&'t [u8]> {
        if size > self.0.len() {
            return None;
        }
        let (front, rest) = self.0.split_at(size);
        self.0 = rest;
        Some(front)
    }

    /// A length in one octet and so many octets.
    #[inline(always)]
    pub fn short(&mut self) -> Option<&'t [u8]> {
        let size = self.u8()?;
        self.octets(usize::from(size))
    }

    /// A length in two octets and so many octets.
    #[inline(always)]
    pub fn long(&mut self) -> Option<&'t [u8]> {
        let size = self.u16()?;
        self.octets(usize::from(size))
    }

    #[inline(always)]
    fn set(&mut self) -> Option<Set<'t>> {
        let (ttl, count) = (self.u32()?, self.u16()?);
        Some(Set { ttl, count, wire: self.long()? })
    }
}

/// The octets of the first record in `data`; None where there is no whole one.
pub fn record_size(data: &[u8]) -> Option<usize> {
    let mut reader = Reader(data);
    reader.short()?;
    let head = Head::read(&mut reader)?;
    let mut reader = head.behind()?;
    if head.flags & HAS_DS != 0 {
        reader.u16()?;
        reader.set()?;
    }
    if head.is_cut() {
        reader.u32()?;
        reader.short()?;
        let (servers, glue) = (reader.u16()?, reader.u16()?);
        for _ in 0..servers {
            reader.short()?;
        }
        for _ in 0..glue {
            reader.u16()?;
            reader.long()?;
        }
    }
    Some(data.len() - reader.0.len())
}

/// Whether `name` ends with the names of its zone and of the zone above.
fn lies_in(name: &[u8], head: &Head<'_>, zones: &[Zone]) -> bool {
    let within = |zone: u32| zones.get(zone as usize).is_some_and(|it| is_below(name, &it.name));
    within(head.zone) && head.above.is_none_or(within)
}

/// Check a record that `record_size` found whole; says what is wrong with it.
pub fn check_record(record: &[u8], zones: &[Zone], slots: usize) -> Result<(), &'static str> {
    let name = name_of(record);
    if !is_name(name) || name.iter().any(u8::is_ascii_uppercase) {
        return Err("a name that is none in lower case");
    }
    let mut reader = Reader(&record[1 + name.len()..]);
    let head = Head::read(&mut reader).ok_or("a name without a head")?;
    if head.flags & !FLAGS != 0 {
        return Err("a name with unknown flags");
    }
    if !lies_in(name, &head, zones) {
        return Err("a name in a zone that does not exist, or is none of its");
    }
    if head.slot.is_some_and(|slot| slot as usize >= slots) || (head.absent && head.slot.is_none())
    {
        return Err("a name of an instance that does not exist");
    }
    if head.meter != NOTHING && head.meter > NOTHING - OUTCOMES {
        return Err("a cell to count in that is none");
    }
    let mut reader = Reader(head.rest);
    let ds = usize::from(head.flags & HAS_DS != 0);
    for _ in 0..usize::from(head.sets) + ds {
        let rtype = reader.u16().ok_or("a set without a type")?;
        let set = reader.set().ok_or("a set without records")?;
        if set.wire.len() > MAX_RRSET || set.count == 0 || !are_records(set.wire, set.count.into())
        {
            return Err("a set of records that are none");
        }
        if records(set.wire).any(|(found, _)| found != rtype) {
            return Err("a set with records of another type");
        }
        if (rtype == CNAME || rtype == DNAME) && !is_name(set.first()) {
            return Err("an alias whose target is no name");
        }
    }
    if let Some(cut) = head.cut() {
        let (servers, _) = cut.counts();
        if !is_name(cut.name) || !cut.servers().all(is_name) {
            return Err("a delegation of a name, or to a server, that is none");
        }
        if cut.name.iter().any(u8::is_ascii_uppercase) || cut.name != name {
            return Err("a delegation of another name");
        }
        let whole =
            |rest: &[u8]| u16_at(rest, 8).is_some_and(|size| rest.len() == 10 + usize::from(size));
        if cut.glue().any(|(server, rest)| server >= servers || !whole(rest)) {
            return Err("glue of no server, or that is no record");
        }
    }
    Ok(())
}

/// All answers as of `revision`. A table that is not `ready` answers SERVFAIL to everything.
#[derive(Clone, Debug)]
pub struct Table {
    pub revision: u64,
    pub ready: bool,
    pub serving: Arc<Serving>,
    pub zones: Arc<[Zone]>,
    pub names: Names,
    pub slots: Chunks<Slot>,
    pub plans: Chunks<Plan>,
    /// Whether plans look clients up in tables that are large.
    pub far_clients: bool,
}

impl Table {
    /// A table without anything.
    pub fn empty() -> Self {
        Table {
            revision: 0,
            ready: false,
            serving: Arc::new(Serving {
                udp_payload: 1232,
                stale_after_s: 60.0,
                ..Serving::default()
            }),
            zones: Arc::from(Vec::new()),
            names: Names { shards: Arc::from(vec![Arc::new(Shard::new(&[]))]), bits: 0, count: 0 },
            slots: Chunks::new(&[]),
            plans: Chunks::new(&[]),
            far_clients: false,
        }
    }
}
