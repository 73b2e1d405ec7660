//! Where clients are: address spaces in spans in which clients are treated alike.

use crate::dense::{Dense, MANY};
use crate::plan::Client;
use crate::table::prefetch;

/// The spans of both address families in which clients are treated alike.
#[derive(Debug)]
pub struct ClientTable {
    pub v4: FourSpans,
    pub v6: SixSpans,
    /// One more than the greatest class.
    pub count: u32,
}

/// IPv4 spans: in little memory where there are many.
#[derive(Debug)]
pub enum FourSpans {
    Few(Spans<u32>),
    Many(Dense),
}

/// IPv6 spans: by the upper 64 bits where none ends inside a /64, else by all 128.
#[derive(Debug)]
pub enum SixSpans {
    Half(Spans<u64>),
    Whole(Spans<u128>),
}

impl FourSpans {
    /// Spans from their first addresses and classes; None where they are no partition that begins
    /// at address 0.
    pub fn new(starts: Vec<u32>, classes: Vec<u32>) -> Option<Self> {
        if starts.len() >= MANY && is_partition(&starts, &classes, 0) {
            if let Some(dense) = Dense::new(&starts, &classes) {
                return Some(FourSpans::Many(dense));
            }
        }
        Spans::new(starts, classes, 0).map(FourSpans::Few)
    }
}

impl ClientTable {
    /// (class, depth) of an address: the depth is the length of the greatest block around it that
    /// lies inside its span.
    #[inline(always)]
    pub fn find(&self, client: Client) -> (u32, u8) {
        match (client, &self.v4, &self.v6) {
            (Client::V4(address), FourSpans::Many(dense), _) => dense.find(address),
            (Client::V4(address), FourSpans::Few(spans), _) => spans.find(address),
            (Client::V6(address), _, SixSpans::Half(spans)) => spans.find((address >> 64) as u64),
            (Client::V6(address), _, SixSpans::Whole(spans)) => spans.find(address),
        }
    }

    /// Whether it is so large that asking the memory ahead pays.
    pub fn is_far(&self) -> bool {
        matches!(self.v4, FourSpans::Many(_))
    }

    /// Ask the memory for the first place that an answer for an IPv4 client needs, where it is
    /// far.
    #[inline(always)]
    pub fn prefetch_cell(&self, address: u32) {
        if let FourSpans::Many(dense) = &self.v4 {
            dense.prefetch_cell(address);
        }
    }

    /// Ask the memory for the second one, which the first leads to.
    #[inline(always)]
    pub fn prefetch_block(&self, address: u32) {
        if let FourSpans::Many(dense) = &self.v4 {
            dense.prefetch_block(address);
        }
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        let four = match &self.v4 {
            FourSpans::Few(spans) => spans.size(),
            FourSpans::Many(dense) => dense.size(),
        };
        let six = match &self.v6 {
            SixSpans::Half(spans) => spans.size(),
            SixSpans::Whole(spans) => spans.size(),
        };
        four + six
    }
}

/// An address as spans see it.
pub trait Address: Copy + Ord {
    /// The bucket of `bits` bits, in IPv6 behind the first three; None outside 2000::/3 in IPv6.
    fn bucket(self, bits: u32) -> Option<usize>;
    /// The first address of a bucket.
    fn bucket_start(bucket: usize, bits: u32) -> Self;
    /// The length of the greatest block around the address that `other` is not in.
    fn gap(self, other: Self) -> u32;
    /// The address before; not of the first.
    fn before(self) -> Self;
}

impl Address for u32 {
    #[inline(always)]
    fn bucket(self, bits: u32) -> Option<usize> {
        Some((u64::from(self) >> (32 - bits)) as usize)
    }
    fn bucket_start(bucket: usize, bits: u32) -> Self {
        ((bucket as u64) << (32 - bits)) as u32
    }
    #[inline(always)]
    fn gap(self, other: Self) -> u32 {
        (self ^ other).leading_zeros() + 1
    }
    #[inline(always)]
    fn before(self) -> Self {
        self - 1
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
    #[inline(always)]
    fn gap(self, other: Self) -> u32 {
        (self ^ other).leading_zeros() + 1
    }
    #[inline(always)]
    fn before(self) -> Self {
        self - 1
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
    #[inline(always)]
    fn gap(self, other: Self) -> u32 {
        (self ^ other).leading_zeros() + 1
    }
    #[inline(always)]
    fn before(self) -> Self {
        self - 1
    }
}

/// The bits of the greatest index in front of spans. Measured over real country data: with 16 the
/// index itself falls out of the cache, with 12 the search behind it takes longer.
const MAX_INDEX_BITS: u32 = 14;

/// An address space in spans of equal class; an index in front of them saves most of the search.
#[derive(Debug)]
pub struct Spans<T> {
    starts: Box<[T]>,
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
        if !is_partition(&starts, &classes, zero) {
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

    /// (class, depth) of an address.
    #[inline]
    pub fn find(&self, address: T) -> (u32, u8) {
        let (after, class) = self.after(address);
        let mut depth = if after > 1 { address.gap(self.starts[after - 1].before()) } else { 0 };
        if let Some(&next) = self.starts.get(after) {
            depth = depth.max(address.gap(next));
        }
        (class, depth as u8)
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

/// Whether spans have a class each, the first begins at address 0 and each behind the one before.
fn is_partition<T: Address>(starts: &[T], classes: &[u32], zero: T) -> bool {
    starts.len() == classes.len()
        && starts.first() == Some(&zero)
        && starts.len() <= u32::MAX as usize
        && starts.windows(2).all(|pair| pair[0] < pair[1])
}
