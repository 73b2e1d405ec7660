//! IPv4 spans where there are many, in little memory: most answers need one place of it, few three.
//!
//! Country data parts nearly everything at /24s, and most /16s not at all. So each /16 has a cell:
//!
//! ```text
//! whole: 0 x x depth (5 bits) class (8 bits)       the whole /16 lies in one span
//! block: 1 place (15 bits)                         it does not: its block is so many units of 4
//!                                                  octets behind the first block of its /8
//! ```
//!
//! A block has the begins of the spans that begin inside the /16, as offsets, and one class more,
//! the first for the span that the /16 begins in:
//!
//! ```text
//! by /24:      count u8 (not 0), begins u8 x count, classes u8 x (count + 1)
//! by address:  0 u8, count u16, begins u16 x count, classes u8 x (count + 1)
//! ```
//!
//! The depth, which is the length of the greatest block of addresses around the client's that lies
//! inside its span, follows from the nearest addresses outside: of a whole /16 they lie outside of
//! it, so all its addresses share the depth; in a block the nearer of them lies in the same /16.

use crate::table::prefetch;

/// From so many spans on this takes less memory than spans as they come.
pub const MANY: usize = 1 << 14;

const BLOCK: u16 = 1 << 15;
const DEPTH_SHIFT: u32 = 8;
const UNIT: usize = 4;
/// The length of a block of addresses that fills a /16.
const LONG: u32 = 16;

/// The whole of IPv4 in spans of at most 256 classes.
#[derive(Debug)]
pub struct Dense {
    cells: Box<[u16; 1 << LONG]>,
    /// Where the blocks of each /8 begin, in octets.
    bases: Box<[u32; 256]>,
    blocks: Box<[u8]>,
}

impl Dense {
    /// From the first addresses of spans, of which the first is 0 and each greater than the one
    /// before, and their classes. None where a class is above 255, or a /8 has more in it than a
    /// cell can point to.
    pub fn new(starts: &[u32], classes: &[u32]) -> Option<Self> {
        let classes: Vec<u8> =
            classes.iter().map(|&class| u8::try_from(class).ok()).collect::<Option<_>>()?;
        let (mut cells, mut bases) = (Vec::with_capacity(1 << LONG), Vec::with_capacity(256));
        let mut blocks = Vec::new();
        let mut next = 1; // the first span that begins behind the cell's first address
        for cell in 0..1u32 << LONG {
            let first = cell << LONG;
            if cell & 255 == 0 {
                bases.push(u32::try_from(blocks.len()).ok()?);
            }
            while starts.get(next).is_some_and(|&start| start <= first) {
                next += 1;
            }
            let rest = &starts[next.min(starts.len())..];
            let inside = rest.iter().take_while(|&start| start >> LONG == cell).count();
            if inside == 0 {
                let before = (next > 1).then(|| starts[next - 1] - 1);
                let outside = before.into_iter().chain(starts.get(next).copied());
                let depth = outside.map(|other| (first ^ other).leading_zeros() + 1).max();
                cells.push(
                    (depth.unwrap_or(0) as u16) << DEPTH_SHIFT | u16::from(classes[next - 1]),
                );
                continue;
            }
            let place = (blocks.len() - *bases.last()? as usize) / UNIT;
            cells.push(BLOCK | u16::try_from(place).ok().filter(|place| place & BLOCK == 0)?);
            put_block(&starts[next..next + inside], &classes[next - 1..next + inside], &mut blocks);
        }
        Some(Dense {
            cells: cells.into_boxed_slice().try_into().ok()?,
            bases: bases.into_boxed_slice().try_into().ok()?,
            blocks: blocks.into_boxed_slice(),
        })
    }

    /// (class, depth) of an address.
    #[inline(always)]
    pub fn find(&self, address: u32) -> (u32, u8) {
        let cell = self.cells[(address >> LONG) as usize];
        if cell & BLOCK == 0 {
            return (u32::from(cell & 255), (cell >> DEPTH_SHIFT) as u8);
        }
        let block = &self.blocks[self.place(address, cell)..];
        let count = usize::from(block[0]);
        if count == 0 {
            return by_address(block, address as u16);
        }
        let (begins, classes) = block[1..].split_at(count);
        let at = (address >> 8) as u8;
        let after = begins.partition_point(|&begin| begin <= at);
        let before = if after > 0 { at ^ (begins[after - 1] - 1) } else { u8::MAX };
        let next = begins.get(after).map_or(u8::MAX, |begin| at ^ begin);
        (u32::from(classes[after]), (LONG + 1 + before.min(next).leading_zeros()) as u8)
    }

    /// The octet at which the block begins that a cell points to.
    #[inline(always)]
    fn place(&self, address: u32, cell: u16) -> usize {
        self.bases[(address >> 24) as usize] as usize + usize::from(cell & !BLOCK) * UNIT
    }

    /// Ask the memory for the cell of an address.
    #[inline(always)]
    pub fn prefetch_cell(&self, address: u32) {
        prefetch(&self.cells[(address >> LONG) as usize]);
    }
    /// Ask the memory for the block of an address, where its cell leads to one.
    #[inline(always)]
    pub fn prefetch_block(&self, address: u32) {
        let cell = self.cells[(address >> LONG) as usize];
        if cell & BLOCK != 0 {
            if let Some(first) = self.blocks.get(self.place(address, cell)) {
                prefetch(first);
            }
        }
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        size_of_val(&*self.cells) + size_of_val(&*self.bases) + self.blocks.len()
    }
}

/// Put the spans inside a /16 behind `blocks`, and what fills the last unit.
fn put_block(starts: &[u32], classes: &[u8], blocks: &mut Vec<u8>) {
    if starts.iter().all(|start| start & 255 == 0) {
        blocks.push(starts.len() as u8);
        blocks.extend(starts.iter().map(|start| (start >> 8) as u8));
    } else {
        blocks.push(0);
        blocks.extend((starts.len() as u16).to_le_bytes());
        blocks.extend(starts.iter().flat_map(|start| (*start as u16).to_le_bytes()));
    }
    blocks.extend_from_slice(classes);
    blocks.resize(blocks.len().next_multiple_of(UNIT), 0);
}

/// (class, depth) in a block by address.
#[inline(never)]
fn by_address(block: &[u8], at: u16) -> (u32, u8) {
    let count = usize::from(u16::from_le_bytes([block[1], block[2]]));
    let (begins, classes) = block[3..].split_at(2 * count);
    let begin = |which: usize| u16::from_le_bytes([begins[2 * which], begins[2 * which + 1]]);
    let (mut after, mut end) = (0, count);
    while after < end {
        let middle = (after + end) / 2;
        if begin(middle) <= at {
            after = middle + 1;
        } else {
            end = middle;
        }
    }
    let before = if after > 0 { at ^ (begin(after - 1) - 1) } else { u16::MAX };
    let next = if after < count { at ^ begin(after) } else { u16::MAX };
    (u32::from(classes[after]), (LONG + 1 + before.min(next).leading_zeros()) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Spans;

    /// The same answers as plain spans, at the edges of every span and at many addresses.
    fn check(starts: &[u32], classes: &[u32], dice: &mut fastrand::Rng) -> Dense {
        let dense = Dense::new(starts, classes).unwrap();
        let plain = Spans::new(starts.to_vec(), classes.to_vec(), 0).unwrap();
        let edges = starts.iter().flat_map(|start| [start.wrapping_sub(1), *start, start | 255]);
        let random: Vec<u32> = (0..50_000).map(|_| dice.u32(..)).collect();
        for address in edges.chain(random).chain([0, u32::MAX]) {
            assert_eq!(dense.find(address), plain.find(address), "{address:#x}");
            dense.prefetch_cell(address);
            dense.prefetch_block(address);
        }
        dense
    }

    /// `count` spans at most that begin at multiples of `1 << bits` in the first `1 << room`.
    fn spans(count: usize, bits: u32, room: u32, dice: &mut fastrand::Rng) -> Vec<u32> {
        let mut starts: Vec<u32> =
            (0..count).map(|_| dice.u32(..) >> (32 - room) >> bits << bits).collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    #[test]
    fn dense_spans_say_what_plain_ones_say() {
        let mut dice = fastrand::Rng::with_seed(3);
        for (count, bits, room) in [
            (0, 0, 32),
            (1, 0, 32),
            (20, 16, 32),
            (20_000, 8, 32),
            (20_000, 8, 24), // nearly every /24 of a /8
            (2_000, 0, 17),  // by address, many in a /16
            (20_000, 0, 32),
            (5_000, 12, 28),
        ] {
            let starts = spans(count, bits, room, &mut dice);
            let classes: Vec<u32> = starts.iter().map(|_| dice.u32(..256)).collect();
            check(&starts, &classes, &mut dice);
        }
    }

    #[test]
    fn every_slash_24_and_every_address_of_a_slash_16_may_begin_a_span() {
        let mut dice = fastrand::Rng::with_seed(4);
        let all: Vec<u32> = (0..1 << 16).map(|at| at << 8).collect(); // the cells' greatest place
        let classes: Vec<u32> = (0..1 << 16).map(|at| at % 3).collect();
        let dense = check(&all, &classes, &mut dice);
        assert_eq!(dense.blocks.len(), 256 * 512);
        let each: Vec<u32> = (0..1 << 16).collect();
        check(&each, &classes, &mut dice);
    }

    #[test]
    fn what_does_not_fit_is_left_to_plain_spans() {
        assert!(Dense::new(&[0, 9], &[0, 256]).is_none(), "a class of more than one octet");
        let fine: Vec<u32> = (0..3 << 16).collect(); // 3 x 196 KiB in a /8
        assert!(Dense::new(&fine, &vec![1; fine.len()]).is_none());
    }
}
