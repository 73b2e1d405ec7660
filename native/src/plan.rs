//! Plans: the small trees that policies compile to, and the walk that turns one into an answer.
//!
//! Nothing here knows a pool, a policy or health. A walk allocates nothing and takes no lock.

use std::sync::Arc;

use blake2::digest::consts::U8;
use blake2::{Blake2b, Digest};

use crate::clients::ClientTable;
use crate::counters::Counters;

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
