//! The hand-over: octets that describe a table, or what changes in one, checked before anything is
//! believed. Numbers are little-endian; `resolver/handover.py` writes them.
//!
//! ```text
//! "GTMTABLE", version u32, crc32 of the body u32, length of the body u64, body
//! body: whole u8, base u64, generation u64, revision u64, ready u8,
//!       [serving], [zones], client tables, nodes, slots, plans, names gone, names put,
//!       tables forgotten, nodes forgotten
//! ```
//!
//! A change names the generation that it is based on; another is refused, and nothing is changed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clients::{ClientTable, FourSpans, SixSpans, Spans};
use crate::plan::{Kind, Leaf, Node, BUCKETS, MAX_DEPTH};
use crate::table::{
    check_record, record_size, Chunks, Names, Plan, Reader, Serving, Slot, Table, Zone,
};
use crate::wire::*;

pub const MAGIC: &[u8; 8] = b"GTMTABLE";
/// The only version that is read.
pub const VERSION: u32 = 1;
/// Octets in front of the body.
pub const HEAD: usize = 24;

/// What a loader remembers between two loads.
pub struct Loaded {
    pub table: Arc<Table>,
    generation: u64,
    nodes: HashMap<u64, Arc<Node>>,
    tables: HashMap<u64, Arc<ClientTable>>,
}

impl Default for Loaded {
    fn default() -> Self {
        Loaded {
            table: Arc::new(Table::empty()),
            generation: 0,
            nodes: HashMap::new(),
            tables: HashMap::new(),
        }
    }
}

type Made<T> = Result<T, String>;

fn short<T>(value: Option<T>) -> Made<T> {
    value.ok_or_else(|| "it ends in the middle".to_string())
}

/// The body of a hand-over, after its head was checked.
fn body_of(data: &[u8]) -> Made<&[u8]> {
    let mut reader = Reader(data);
    if short(reader.octets(8))? != MAGIC {
        return Err("it is no table".into());
    }
    let version = short(reader.u32())?;
    if version != VERSION {
        return Err(format!("it is of version {version}, and {VERSION} is read"));
    }
    let (sum, length) = (short(reader.u32())?, short(reader.u64())?);
    if reader.0.len() as u64 != length {
        return Err(format!("{length} octets are announced, {} are there", reader.0.len()));
    }
    if crc32fast::hash(reader.0) != sum {
        return Err("its checksum is wrong".into());
    }
    Ok(reader.0)
}

impl Loaded {
    /// The state after `data`, or why it is refused; `self` stays as it is.
    pub fn with(&self, data: &[u8]) -> Made<Loaded> {
        let mut reader = Reader(body_of(data)?);
        let whole = short(reader.u8())? == 1;
        let base = short(reader.u64())?;
        if !whole && base != self.generation {
            return Err(format!(
                "it changes generation {base}, and {} is in force",
                self.generation
            ));
        }
        let generation = short(reader.u64())?;
        if generation <= base {
            return Err(format!("its generation is {generation}, no later than {base}"));
        }
        let fresh = Loaded::default();
        let before = if whole { &fresh } else { self };
        before.changed(generation, &mut reader)
    }

    fn changed(&self, generation: u64, reader: &mut Reader<'_>) -> Made<Loaded> {
        let revision = short(reader.u64())?;
        let ready = short(reader.u8())? == 1;
        let old = &self.table;
        let serving = match short(reader.u8())? {
            0 => old.serving.clone(),
            _ => Arc::new(read_serving(reader)?),
        };
        let zones = match short(reader.u8())? {
            0 => old.zones.clone(),
            _ => read_zones(reader)?,
        };
        let mut tables = self.tables.clone();
        for _ in 0..short(reader.u32())? {
            let id = short(reader.u64())?;
            if tables.insert(id, Arc::new(read_table(reader)?)).is_some() {
                return Err(format!("client table {id} is there already"));
            }
        }
        let mut nodes = self.nodes.clone();
        for _ in 0..short(reader.u32())? {
            let id = short(reader.u64())?;
            let node = read_node(reader, &nodes, &tables)?;
            if nodes.insert(id, Arc::new(node)).is_some() {
                return Err(format!("node {id} is there already"));
            }
        }
        let slots = read_slots(reader, &old.slots)?;
        let plans = read_plans(reader, &old.plans, &nodes)?;
        check_slots(&slots, plans.len())?;
        let names = read_names(reader, &old.names, &zones, slots.len())?;
        let same = old.zones.iter().zip(zones.iter()).all(|(one, other)| one.name == other.name);
        if !names.fit(zones.len(), slots.len()) || !(same || names.lie_in(&zones)) {
            return Err("a change takes the zone of a name away".into());
        }
        for _ in 0..short(reader.u32())? {
            tables.remove(&short(reader.u64())?);
        }
        for _ in 0..short(reader.u32())? {
            nodes.remove(&short(reader.u64())?);
        }
        if !reader.0.is_empty() {
            return Err(format!("{} octets are left over", reader.0.len()));
        }
        let far_clients = tables.values().any(|table| table.is_far());
        let table = Table { revision, ready, serving, zones, names, slots, plans, far_clients };
        Ok(Loaded { table: Arc::new(table), generation, nodes, tables })
    }

    /// (names, nodes, client tables, bytes of names, of client tables).
    pub fn sizes(&self) -> (usize, usize, usize, usize, usize) {
        let names = &self.table.names;
        let spans = self.tables.values().map(|table| table.size()).sum();
        (names.len(), self.nodes.len(), self.tables.len(), names.size(), spans)
    }
}

fn read_serving(reader: &mut Reader<'_>) -> Made<Serving> {
    let nsid = short(reader.short())?.into();
    let version = short(reader.short())?.into();
    let server = short(reader.short())?.into();
    let udp_payload = short(reader.u16())?;
    if !(PLAIN_UDP..=MAX_UDP).contains(&usize::from(udp_payload)) {
        return Err(format!("an EDNS buffer of {udp_payload} octets"));
    }
    let idle_tenths = short(reader.u16())?;
    let stale_after_s = f64::from_bits(short(reader.u64())?);
    if stale_after_s.is_nan() || stale_after_s < 0.0 {
        return Err(format!("answers that are stale after {stale_after_s} s"));
    }
    let serving = Serving { nsid, version, server, udp_payload, idle_tenths, stale_after_s };
    if serving.nsid.len() > 64 {
        return Err("a server identifier of more than 64 octets".into());
    }
    Ok(serving)
}

fn read_zones(reader: &mut Reader<'_>) -> Made<Arc<[Zone]>> {
    let mut zones = Vec::new();
    for _ in 0..short(reader.u32())? {
        let name = short(reader.short())?;
        let soa = short(reader.long())?;
        if !is_name(name)
            || name.iter().any(u8::is_ascii_uppercase)
            || soa.len() > 2 * MAX_NAME + 20
        {
            return Err("a zone whose name or SOA is none".into());
        }
        zones.push(Zone { name: name.into(), soa: soa.into(), ttl: short(reader.u32())? });
    }
    Ok(zones.into())
}

fn read_table(reader: &mut Reader<'_>) -> Made<ClientTable> {
    let count = short(reader.u32())?;
    let wrong = || "spans of clients that are no partition".to_string();
    let (starts, classes) = read_spans(reader, 4, count)?;
    let starts = starts.chunks_exact(4).map(|one| u32::from_le_bytes(array(one))).collect();
    let v4 = FourSpans::new(starts, classes).ok_or_else(wrong)?;
    let v6 = if short(reader.u8())? == 0 {
        let (starts, classes) = read_spans(reader, 8, count)?;
        let starts = starts.chunks_exact(8).map(|one| u64::from_le_bytes(array(one))).collect();
        SixSpans::Half(Spans::new(starts, classes, 0).ok_or_else(wrong)?)
    } else {
        let (starts, classes) = read_spans(reader, 16, count)?;
        let starts = starts.chunks_exact(16).map(|one| u128::from_le_bytes(array(one))).collect();
        SixSpans::Whole(Spans::new(starts, classes, 0).ok_or_else(wrong)?)
    };
    Ok(ClientTable { v4, v6, count })
}

fn array<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut all = [0; N];
    all.copy_from_slice(octets);
    all
}

fn read_spans<'a>(reader: &mut Reader<'a>, width: usize, count: u32) -> Made<(&'a [u8], Vec<u32>)> {
    let many = short(reader.u32())? as usize;
    let starts = short(many.checked_mul(width).and_then(|size| reader.octets(size)))?;
    let each = usize::from(short(reader.u8())?);
    if !matches!(each, 1 | 2 | 4) {
        return Err(format!("classes of {each} octets"));
    }
    let octets = short(many.checked_mul(each).and_then(|size| reader.octets(size)))?;
    let classes: Vec<u32> = octets
        .chunks_exact(each)
        .map(|one| {
            let mut all = [0; 4];
            all[..each].copy_from_slice(one);
            u32::from_le_bytes(all)
        })
        .collect();
    if classes.iter().any(|class| *class >= count) {
        return Err("a class of clients that does not exist".into());
    }
    Ok((starts, classes))
}

fn read_node(
    reader: &mut Reader<'_>,
    nodes: &HashMap<u64, Arc<Node>>,
    tables: &HashMap<u64, Arc<ClientTable>>,
) -> Made<Node> {
    let kind = match short(reader.u8())? {
        0 => return Ok(Node { kind: Kind::Leaf(read_leaf(reader)?), depth: 0 }),
        1 => {
            let total = short(reader.u64())?;
            let branches = read_branches(reader, nodes)?;
            let many = short(reader.u32())? as usize;
            let octets = short(many.checked_mul(8).and_then(|size| reader.octets(size)))?;
            let ends: Box<[u64]> =
                octets.chunks_exact(8).map(|one| u64::from_le_bytes(array(one))).collect();
            let fits = if ends.is_empty() {
                total == branches.len() as u64
            } else {
                ends.len() == branches.len()
                    && ends.last() == Some(&total)
                    && ends.windows(2).all(|pair| pair[0] <= pair[1])
            };
            if !fits || total == 0 {
                return Err("a draw whose weights are none".into());
            }
            Kind::Weighted { total, ends, branches }
        }
        2 => {
            let (prefix_v4, prefix_v6) = (short(reader.u8())?, short(reader.u8())?);
            let wide = short(reader.u8())? == 1;
            let each = if wide { 2 } else { 1 };
            let octets = short(reader.octets(BUCKETS * each))?;
            let buckets: Box<[u16]> = octets
                .chunks_exact(each)
                .map(|one| one.iter().fold(0, |sum, octet| sum << 8 | u16::from(*octet)))
                .collect();
            let branches = read_branches(reader, nodes)?;
            let beyond = buckets.iter().any(|bucket| usize::from(*bucket) >= branches.len());
            if prefix_v4 > 32 || prefix_v6 > 128 || beyond {
                return Err("a hash over branches or prefixes that do not exist".into());
            }
            Kind::Hashed { prefix_v4, prefix_v6, buckets, branches }
        }
        3 => {
            let id = short(reader.u64())?;
            let table =
                tables.get(&id).ok_or_else(|| format!("client table {id} is unknown"))?.clone();
            let branches = read_branches(reader, nodes)?;
            let meters = read_meters(reader)?;
            if table.count as usize > branches.len() {
                return Err("a class of clients without a branch".into());
            }
            Kind::Located { table, branches, meters }
        }
        other => return Err(format!("a node of kind {other}")),
    };
    let below = match &kind {
        Kind::Leaf(_) => 0,
        Kind::Weighted { branches, .. }
        | Kind::Hashed { branches, .. }
        | Kind::Located { branches, .. } => {
            branches.iter().map(|node| node.depth).max().unwrap_or(0)
        }
    };
    if below >= MAX_DEPTH {
        return Err(format!("a plan of more than {MAX_DEPTH} nodes above each other"));
    }
    Ok(Node { kind, depth: below + 1 })
}

fn read_leaf(reader: &mut Reader<'_>) -> Made<Leaf> {
    let ttl = short(reader.u32())?;
    let rcode = i16::from(short(reader.u8())? as i8);
    let count = short(reader.u16())?;
    let meters = read_meters(reader)?;
    let extended: Box<[u8]> = short(reader.short())?.into();
    let wire: Box<[u8]> = short(reader.long())?.into();
    let leaf = Leaf { ttl, rcode, count, wire, extended, meters };
    if leaf.wire.len() > MAX_RRSET || !are_records(&leaf.wire, usize::from(count)) {
        return Err("a leaf with records that are none".into());
    }
    if !(-1..=15).contains(&rcode) || leaf.extended.len() > 64 || !are_options(&leaf.extended) {
        return Err("a leaf with an error that is none".into());
    }
    if leaf.alias().is_some_and(|target| !is_name(target)) {
        return Err("a leaf with an alias whose target is no name".into());
    }
    Ok(leaf)
}

fn read_meters(reader: &mut Reader<'_>) -> Made<Box<[u32]>> {
    let many = usize::from(short(reader.u16())?);
    let octets = short(reader.octets(many * 4))?;
    Ok(octets.chunks_exact(4).map(|one| u32::from_le_bytes(array(one))).collect())
}

fn read_branches(
    reader: &mut Reader<'_>,
    nodes: &HashMap<u64, Arc<Node>>,
) -> Made<Box<[Arc<Node>]>> {
    let many = short(reader.u32())? as usize;
    let octets = short(many.checked_mul(8).and_then(|size| reader.octets(size)))?;
    if many == 0 {
        return Err("a node without branches".into());
    }
    octets
        .chunks_exact(8)
        .map(|one| {
            let id = u64::from_le_bytes(array(one));
            nodes.get(&id).cloned().ok_or_else(|| format!("node {id} is unknown"))
        })
        .collect()
}

fn read_slots(reader: &mut Reader<'_>, old: &Chunks<Slot>) -> Made<Chunks<Slot>> {
    let mut changes = Vec::new();
    for _ in 0..short(reader.u32())? {
        let at = short(reader.u32())?;
        let (a, aaaa, ttl) = (short(reader.u32())?, short(reader.u32())?, short(reader.u32())?);
        changes.push((at, Slot { a, aaaa, ttl }));
    }
    if changes.is_empty() {
        return Ok(old.clone());
    }
    old.with(&changes).ok_or_else(|| "slots with a gap".into())
}

fn read_plans(
    reader: &mut Reader<'_>,
    old: &Chunks<Plan>,
    nodes: &HashMap<u64, Arc<Node>>,
) -> Made<Chunks<Plan>> {
    let mut changes = Vec::new();
    for _ in 0..short(reader.u32())? {
        let at = short(reader.u32())?;
        let aliased = short(reader.u8())? == 1;
        let id = short(reader.u64())?;
        let node = nodes.get(&id).ok_or_else(|| format!("node {id} is unknown"))?.clone();
        changes.push((at, Plan { node, aliased }));
    }
    if changes.is_empty() {
        return Ok(old.clone());
    }
    old.with(&changes).ok_or_else(|| "plans with a gap".into())
}

fn check_slots(slots: &Chunks<Slot>, plans: usize) -> Made<()> {
    let wrong = slots.iter().any(|slot| slot.a as usize >= plans || slot.aaaa as usize >= plans);
    if wrong {
        return Err("a slot of a plan that does not exist".into());
    }
    Ok(())
}

fn read_names(reader: &mut Reader<'_>, old: &Names, zones: &[Zone], slots: usize) -> Made<Names> {
    let mut gone = Vec::new();
    for _ in 0..short(reader.u32())? {
        gone.push(short(reader.short())?);
    }
    let many = short(reader.u32())?;
    let mut put = Vec::new();
    for _ in 0..many {
        let size = short(record_size(reader.0))?;
        let record = short(reader.octets(size))?;
        check_record(record, zones, slots)?;
        put.push(record);
    }
    if gone.is_empty() && put.is_empty() {
        return Ok(old.clone());
    }
    let made = if old.is_empty() { Names::new(&put) } else { old.with(&put, &gone) };
    made.ok_or_else(|| "a name that stands twice".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONES: [&[u8]; 2] = [b"\x04test\0", b"\x05other\0"];
    const NAME: &[u8] = b"\x01a\x04test\0";
    const NO_SETS: &[u8] = &[0, 0];

    /// What a message changes; all of the table where `base` is 0.
    #[derive(Clone, Copy, Default)]
    struct Change<'c> {
        base: u64,
        generation: u64,
        zones: &'c [&'c [u8]],
        nodes: &'c [&'c [u8]],
        put: &'c [&'c [u8]],
    }

    impl Change<'_> {
        fn message(&self) -> Vec<u8> {
            let mut body = vec![u8::from(self.base == 0)];
            for number in [self.base, self.generation, 1] {
                body.extend(number.to_le_bytes());
            }
            body.extend([1, 0, u8::from(!self.zones.is_empty())]);
            if !self.zones.is_empty() {
                body.extend((self.zones.len() as u32).to_le_bytes());
            }
            for name in self.zones {
                body.push(name.len() as u8);
                body.extend_from_slice(name);
                body.extend([0; 6]);
            }
            let counted = |body: &mut Vec<u8>, all: &[&[u8]]| {
                body.extend((all.len() as u32).to_le_bytes());
                all.iter().for_each(|one| body.extend_from_slice(one));
            };
            for all in [&[], self.nodes, &[], &[], &[], self.put, &[], &[]] {
                counted(&mut body, all);
            }
            with_head(&body)
        }

        fn on(&self, before: &Loaded) -> Made<Loaded> {
            before.with(&self.message())
        }
    }

    fn with_head(body: &[u8]) -> Vec<u8> {
        let mut made = MAGIC.to_vec();
        made.extend(VERSION.to_le_bytes());
        made.extend(crc32fast::hash(body).to_le_bytes());
        made.extend((body.len() as u64).to_le_bytes());
        made.extend(body);
        made
    }

    fn loaded() -> Loaded {
        let name = record(NAME, 0, 0, &[NO_SETS]);
        let whole = Change { generation: 1, zones: &ZONES, put: &[&name], ..Change::default() };
        whole.on(&Loaded::default()).unwrap()
    }

    fn record(name: &[u8], flags: u8, zone: u32, parts: &[&[u8]]) -> Vec<u8> {
        let head = [&[name.len() as u8], name, &[flags], &zone.to_le_bytes()[..]].concat();
        [head, parts.concat()].concat()
    }

    fn put(name: &[u8]) -> Made<()> {
        let change = Change { base: 1, generation: 2, put: &[name], ..Change::default() };
        change.on(&loaded()).map(drop)
    }

    #[test]
    fn a_generation_that_is_no_later_than_its_base_is_refused() {
        let change = Change { base: 1, ..Change::default() };
        assert!(Change { generation: 2, ..change }.on(&loaded()).is_ok());
        for generation in [0, 1] {
            assert!(Change { generation, ..change }.on(&loaded()).is_err());
        }
        assert!(Change { zones: &ZONES, ..Change::default() }.on(&loaded()).is_err());
    }

    #[test]
    fn answers_go_stale_after_a_time_that_can_be_compared() {
        for (stale_after_s, fits) in [
            (0.0, true),
            (60.0, true),
            (f64::INFINITY, true),
            (f64::NAN, false),
            (-f64::NAN, false),
            (-1.0, false),
        ] {
            let texts = [0; 3];
            let (payload, idle) = (1232u16.to_le_bytes(), [0; 2]);
            let octets = [&texts[..], &payload, &idle, &stale_after_s.to_le_bytes()].concat();
            let mut body = vec![1];
            for number in [0u64, 1, 1] {
                body.extend(number.to_le_bytes());
            }
            body.extend([1, 1]);
            body.extend(octets);
            body.extend([0; 1 + 8 * 4]);
            let made = Loaded::default().with(&with_head(&body));
            assert_eq!(made.is_ok(), fits, "{stale_after_s}");
        }
    }

    #[test]
    fn a_name_lies_in_its_zone_and_the_zone_above() {
        put(&record(NAME, 0, 0, &[NO_SETS])).unwrap();
        put(&record(NAME, 8, 0, &[&[0; 4], NO_SETS])).unwrap();
        put(&record(NAME, 0, 1, &[NO_SETS])).unwrap_err();
        put(&record(NAME, 8, 0, &[&[1, 0, 0, 0], NO_SETS])).unwrap_err();
        put(&record(b"\x05xtest\0", 0, 0, &[NO_SETS])).unwrap_err();
    }

    #[test]
    fn zones_that_change_their_places_take_names_along_or_are_refused() {
        let (first, second) = (ZONES[0], ZONES[1]);
        let turned =
            Change { base: 1, generation: 2, zones: &[second, first], ..Change::default() };
        assert!(turned.on(&loaded()).is_err());
        let moved = record(NAME, 0, 1, &[NO_SETS]);
        assert!(Change { put: &[&moved], ..turned }.on(&loaded()).is_ok());
    }

    #[test]
    fn glue_has_the_length_that_it_says() {
        let cut = [&[0; 4][..], &[NAME.len() as u8], NAME, &[1, 0, 1, 0, 1, 0]].concat();
        for (length, fits) in [(4, true), (3, false), (5, false)] {
            let glue = [0, 1, 0, 1, 0, 0, 0, 60, 0, length, 192, 0, 2, 1];
            let made = put(&record(NAME, 4, 0, &[NO_SETS, &cut, &[0, 0, 14, 0], &glue]));
            assert_eq!(made.is_ok(), fits, "{made:?}");
        }
    }

    #[test]
    fn an_extended_error_is_made_of_whole_options() {
        for (option, fits) in [
            (&b"\0\x0f\0\x02\0\x03"[..], true),
            (b"\0\x0f\0\x03\0\x03", false),
            (b"\0\x0f\0\x01\0\x03", false),
            (b"\0\x0f", false),
        ] {
            let node =
                [&[9, 0, 0, 0, 0, 0, 0, 0][..], &[0; 10], &[option.len() as u8], option].concat();
            let node = [&node[..], &[0, 0]].concat();
            let change = Change { base: 1, generation: 2, nodes: &[&node], ..Change::default() };
            assert_eq!(change.on(&loaded()).is_ok(), fits);
        }
    }

    #[test]
    fn a_cell_that_no_outcome_can_be_added_to_is_refused() {
        let beyond = record(NAME, 1, 0, &[&[0; 4], &(u32::MAX - 1).to_le_bytes(), NO_SETS]);
        let error = check_record(&beyond, &loaded().table.zones, 1).unwrap_err();
        assert!(error.contains("cell"), "{error}");
        let none = record(NAME, 1, 0, &[&[0; 4], &[255; 4], NO_SETS]);
        check_record(&none, &loaded().table.zones, 1).unwrap();
    }
}
