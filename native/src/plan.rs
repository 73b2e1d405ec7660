//! Plans: the small trees that policies compile to, and the walk that turns one into an answer.
//!
//! Nothing here knows a pool, a policy or health. A walk allocates nothing and takes no lock.

use std::sync::Arc;

use blake2::digest::consts::U8;
use blake2::{Blake2b, Digest};

use crate::counters::Counters;
use crate::table::prefetch;

/// Into so many buckets a `Hashed` node parts the networks of clients.
pub const BUCKETS: usize = 1 << 14;
/// The `rcode` of a leaf that is no answer at all: the query is dropped.
pub const DROP: i16 = -1;
/// Nodes above each other, at most; a deeper plan is refused when it is loaded.
pub const MAX_DEPTH: u8 = 32;

/// A client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    V4(u32),
    V6(u128),
}

impl Client {
    /// An address of 4 or 16 octets, or the front of one: what is missing is zero. An IPv4-mapped
    /// IPv6 address stays what it is.
    #[inline(always)]
    pub fn padded(family_bits: u32, octets: &[u8]) -> Self {
        // By arithmetic: octets put into memory one by one and read back as a number stall.
        let half = |from: usize, count: usize| {
            (from..from + count)
                .fold(0u64, |sum, at| sum << 8 | u64::from(octets.get(at).copied().unwrap_or(0)))
        };
        if family_bits == 32 {
            return Client::V4(half(0, 4) as u32);
        }
        Client::V6(u128::from(half(0, 8)) << 64 | u128::from(half(8, 8)))
    }

    /// A source address; an IPv4-mapped IPv6 address is the IPv4 address.
    #[inline(always)]
    pub fn source(octets: &[u8]) -> Self {
        if octets.len() == 4 {
            return Client::padded(32, octets);
        }
        match Client::padded(128, octets) {
            Client::V6(address) if address >> 32 == 0xFFFF => Client::V4(address as u32),
            other => other,
        }
    }
}

/// A ready record set with its TTL in seconds; without records NODATA, or an error by `rcode`.
#[derive(Debug, Default)]
pub struct Leaf {
    pub ttl: u32,
    pub rcode: i16,
    pub count: u16,
    pub wire: Box<[u8]>,
    pub extended: Box<[u8]>,
    /// What is counted when it is answered.
    pub meters: Box<[u32]>,
}

impl Leaf {
    /// The target of a CNAME, on the wire; None where the records are of another type.
    #[inline]
    pub fn alias(&self) -> Option<&[u8]> {
        (self.count == 1 && self.wire.get(2..4) == Some(&[0, 5])).then(|| &self.wire[12..])
    }
}

/// A node of a plan.
#[derive(Debug)]
pub enum Kind {
    Leaf(Leaf),
    /// One draw among branches: `ends` are cumulated weights, empty where each weighs 1.
    Weighted {
        total: u64,
        ends: Box<[u64]>,
        branches: Box<[Arc<Node>]>,
    },
    /// A consistent choice by the client's network.
    Hashed {
        prefix_v4: u8,
        prefix_v6: u8,
        buckets: Box<[u16]>,
        branches: Box<[Arc<Node>]>,
    },
    /// A choice by where the client is; `meters` has what is counted for each branch, or nothing.
    Located {
        table: Arc<ClientTable>,
        branches: Box<[Arc<Node>]>,
        meters: Box<[u32]>,
    },
}

/// A node and how many are below it, at the deepest.
#[derive(Debug)]
pub struct Node {
    pub kind: Kind,
    pub depth: u8,
}

/// (leaf, scope) for a client: `draw` is 64 bits; a node with n choices takes `(draw * n) >> 64`
/// and passes on the rest. The scope is the longest leaf among the nodes visited.
#[inline]
pub fn walk<'t>(
    plan: &'t Node,
    client: Client,
    mut draw: u64,
    counters: &Counters,
) -> (&'t Leaf, u8) {
    let (mut node, mut scope) = (plan, 0);
    loop {
        match &node.kind {
            Kind::Leaf(leaf) => return (leaf, scope),
            Kind::Weighted { total, ends, branches } => {
                let product = u128::from(draw) * u128::from(*total);
                let pick = (product >> 64) as u64;
                draw = product as u64;
                let at = if ends.is_empty() {
                    pick as usize
                } else {
                    ends.partition_point(|end| *end <= pick)
                };
                node = &branches[at];
            }
            Kind::Hashed { prefix_v4, prefix_v6, buckets, branches } => {
                let prefix = match client {
                    Client::V4(_) => *prefix_v4,
                    Client::V6(_) => *prefix_v6,
                };
                node = &branches[usize::from(buckets[bucket_of(client, prefix)])];
                scope = scope.max(prefix);
            }
            Kind::Located { table, branches, meters } => {
                let (class, depth) = table.find(client);
                if let Some(&meter) = meters.get(class as usize) {
                    counters.count(meter);
                }
                node = &branches[class as usize];
                scope = scope.max(depth);
            }
        }
    }
}

/// The bucket of the network of `prefix` bits around an address: the leading bits of BLAKE2b with
/// a digest of 8 octets over the network's address.
pub fn bucket_of(client: Client, prefix: u8) -> usize {
    let mut hasher = Blake2b::<U8>::new();
    match client {
        Client::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            hasher.update((address & mask).to_be_bytes());
        }
        Client::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            hasher.update((address & mask).to_be_bytes());
        }
    }
    let digest: [u8; 8] = hasher.finalize().into();
    ((u128::from(u64::from_be_bytes(digest)) * BUCKETS as u128) >> 64) as usize
}

/// The spans of both address families in which clients are treated alike.
#[derive(Debug)]
pub struct ClientTable {
    pub v4: Spans<u32>,
    pub v6: SixSpans,
    /// One more than the greatest class.
    pub count: u32,
}

/// IPv6 spans: by the upper 64 bits where none ends inside a /64, else by all 128.
#[derive(Debug)]
pub enum SixSpans {
    Half(Spans<u64>),
    Whole(Spans<u128>),
}

impl ClientTable {
    /// (class, depth) of an address.
    #[inline]
    pub fn find(&self, client: Client) -> (u32, u8) {
        match (client, &self.v6) {
            (Client::V4(address), _) => {
                let (after, class) = self.v4.after(address);
                let gap = |start: u32| 33 - (32 - (address ^ start).leading_zeros());
                let before = self.v4.starts[after - 1];
                let mut depth = if after > 1 { gap(before - 1) } else { 0 };
                if let Some(&next) = self.v4.starts.get(after) {
                    depth = depth.max(gap(next));
                }
                (class, depth as u8)
            }
            (Client::V6(address), SixSpans::Half(spans)) => {
                let (after, class) = spans.after((address >> 64) as u64);
                (
                    class,
                    depth_of(
                        address,
                        |at| u128::from(spans.starts[at]) << 64,
                        after,
                        spans.starts.len(),
                    ),
                )
            }
            (Client::V6(address), SixSpans::Whole(spans)) => {
                let (after, class) = spans.after(address);
                (class, depth_of(address, |at| spans.starts[at], after, spans.starts.len()))
            }
        }
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        let six = match &self.v6 {
            SixSpans::Half(spans) => spans.size(),
            SixSpans::Whole(spans) => spans.size(),
        };
        self.v4.size() + six
    }
}

/// The length of the greatest block around an address that lies inside its span.
#[inline]
fn depth_of(address: u128, start: impl Fn(usize) -> u128, after: usize, count: usize) -> u8 {
    let gap = |outside: u128| 129 - (128 - (address ^ outside).leading_zeros());
    let mut depth = if after > 1 { gap(start(after - 1) - 1) } else { 0 };
    if after < count {
        depth = depth.max(gap(start(after)));
    }
    depth as u8
}

/// An address as spans see it.
pub trait Address: Copy + Ord {
    /// The bucket of `bits` bits, in IPv6 behind the first three; None outside 2000::/3 in IPv6.
    fn bucket(self, bits: u32) -> Option<usize>;
    /// The first address of a bucket.
    fn bucket_start(bucket: usize, bits: u32) -> Self;
}

impl Address for u32 {
    #[inline(always)]
    fn bucket(self, bits: u32) -> Option<usize> {
        Some((u64::from(self) >> (32 - bits)) as usize)
    }
    fn bucket_start(bucket: usize, bits: u32) -> Self {
        ((bucket as u64) << (32 - bits)) as u32
    }
}

impl Address for u64 {
    #[inline(always)]
    fn bucket(self, bits: u32) -> Option<usize> {
        (self >> 61 == 1).then_some(((self << 3 >> 3) >> (61 - bits)) as usize)
    }
    fn bucket_start(bucket: usize, bits: u32) -> Self {
        1 << 61 | (bucket as u64) << (61 - bits)
    }
}

impl Address for u128 {
    #[inline(always)]
    fn bucket(self, bits: u32) -> Option<usize> {
        ((self >> 64) as u64).bucket(bits)
    }
    fn bucket_start(bucket: usize, bits: u32) -> Self {
        u128::from(u64::bucket_start(bucket, bits)) << 64
    }
}

/// The bits of the greatest index in front of spans. Measured over real country data: with 16 the
/// index itself falls out of the cache, with 12 the search behind it takes longer.
const MAX_INDEX_BITS: u32 = 14;

/// An address space in spans of equal class; an index in front of them saves most of the search.
#[derive(Debug)]
pub struct Spans<T> {
    pub starts: Box<[T]>,
    classes: Classes,
    index: Box<[u32]>,
    bits: u32,
}

#[derive(Debug)]
enum Classes {
    One(Box<[u8]>),
    Two(Box<[u16]>),
    Four(Box<[u32]>),
}

impl<T: Address> Spans<T> {
    /// Spans from their first addresses and classes; None where they are no partition that begins
    /// at address 0.
    pub fn new(starts: Vec<T>, classes: Vec<u32>, zero: T) -> Option<Self> {
        if starts.len() != classes.len() || starts.first() != Some(&zero) {
            return None;
        }
        if starts.windows(2).any(|pair| pair[0] >= pair[1]) || starts.len() > u32::MAX as usize {
            return None;
        }
        let bits = (usize::BITS - starts.len().leading_zeros()).clamp(1, MAX_INDEX_BITS);
        let index = if starts.len() < 8 {
            Vec::new()
        } else {
            let mut index: Vec<u32> = Vec::with_capacity((1 << bits) + 1);
            let mut at = 0;
            for bucket in 0..1usize << bits {
                let first = T::bucket_start(bucket, bits);
                while at < starts.len() && starts[at] <= first {
                    at += 1;
                }
                index.push(at as u32);
            }
            index.push(starts.len() as u32);
            index
        };
        let greatest = classes.iter().copied().max().unwrap_or(0);
        let classes = if greatest < 1 << 8 {
            Classes::One(classes.iter().map(|class| *class as u8).collect())
        } else if greatest < 1 << 16 {
            Classes::Two(classes.iter().map(|class| *class as u16).collect())
        } else {
            Classes::Four(classes.into_boxed_slice())
        };
        Some(Spans {
            starts: starts.into_boxed_slice(),
            classes,
            index: index.into_boxed_slice(),
            bits,
        })
    }

    /// (number of spans that begin at or before `address`, class there).
    #[inline]
    fn after(&self, address: T) -> (usize, u32) {
        let mut range = 0..self.starts.len();
        if !self.index.is_empty() {
            if let Some(bucket) = address.bucket(self.bits) {
                range = self.index[bucket] as usize..self.index[bucket + 1] as usize;
                self.ask_ahead(range.start);
            }
        }
        let first = range.start;
        let after = first + self.starts[range].partition_point(|start| *start <= address);
        let class = match &self.classes {
            Classes::One(all) => u32::from(all[after - 1]),
            Classes::Two(all) => u32::from(all[after - 1]),
            Classes::Four(all) => all[after - 1],
        };
        (after, class)
    }

    /// Ask the memory for the class of a span near `at`, while its beginning is looked for.
    #[inline(always)]
    fn ask_ahead(&self, at: usize) {
        match &self.classes {
            Classes::One(all) => all.get(at).map_or((), prefetch),
            Classes::Two(all) => all.get(at).map_or((), prefetch),
            Classes::Four(all) => all.get(at).map_or((), prefetch),
        }
    }

    fn size(&self) -> usize {
        let each = match &self.classes {
            Classes::One(_) => 1,
            Classes::Two(_) => 2,
            Classes::Four(_) => 4,
        };
        self.starts.len() * (size_of::<T>() + each) + self.index.len() * 4
    }
}
