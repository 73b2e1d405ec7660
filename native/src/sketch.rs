//! The most frequent keys of a stream in bounded memory: the space-saving sketch.
//!
//! Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data
//! streams", 2005. Of n keys seen, every one seen more than n / size times is there, and no count is
//! too small, nor too great by more than its own `over`, which is at most n / size.

/// A key, how often it was seen at most, and by how much that may be too much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub key: Box<[u8]>,
    pub count: u64,
    pub over: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u64,
    count: u64,
    over: u64,
    /// Where it stands in the heap.
    place: u16,
    len: u8,
}

/// The sketch; everything is allocated once.
pub struct Sketch {
    slots: Box<[Slot]>,
    keys: Box<[u8]>,
    longest: usize,
    /// Numbers of slots, the least count first: each at most those of 2n + 1 and 2n + 2.
    heap: Box<[u16]>,
    /// Numbers of slots plus one by hash, with linear probing; 0 is free.
    index: Box<[u16]>,
    used: usize,
    total: u64,
}

impl Sketch {
    /// For `size` keys of at most `longest` octets (255).
    pub fn new(size: u16, longest: u8) -> Self {
        let (many, longest) = (usize::from(size.max(1)), usize::from(longest));
        Sketch {
            slots: vec![Slot::default(); many].into(),
            keys: vec![0; many * longest].into(),
            longest,
            heap: vec![0; many].into(),
            index: vec![0; (4 * many).next_power_of_two()].into(),
            used: 0,
            total: 0,
        }
    }

    /// Count `key` once; of a longer one its front. Equal keys must have equal hashes.
    pub fn add(&mut self, hash: u64, key: &[u8]) {
        let key = &key[..key.len().min(self.longest)];
        self.total += 1;
        if let Some(slot) = self.find(hash, key) {
            self.slots[slot].count += 1;
            self.sink(usize::from(self.slots[slot].place));
            return;
        }
        let full = self.used == self.slots.len();
        let slot = if full { usize::from(self.heap[0]) } else { self.used };
        let over = self.slots[slot].count;
        let mut place = 0;
        if full {
            self.unindex(slot);
        } else {
            // A new count of 1 is least, but for others of 1: it rises to where one is.
            place = self.used;
            self.used += 1;
        }
        self.slots[slot] =
            Slot { hash, count: over + 1, over, place: place as u16, len: key.len() as u8 };
        self.keys[slot * self.longest..][..key.len()].copy_from_slice(key);
        self.heap[place] = slot as u16;
        let free = self.probe(hash, |other| other == 0);
        self.index[free] = slot as u16 + 1;
        if full {
            self.sink(place);
        } else {
            self.rise(place);
        }
    }

    /// Keys seen so far, each as often as it was.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How often a key that is not here was seen, at most.
    pub fn missed(&self) -> u64 {
        if self.used < self.slots.len() {
            return 0;
        }
        self.slots[usize::from(self.heap[0])].count
    }

    /// All that is here, in no order.
    pub fn all(&self) -> Vec<Counted> {
        let one = |(at, slot): (usize, &Slot)| Counted {
            key: self.key(at).into(),
            count: slot.count,
            over: slot.over,
        };
        self.slots[..self.used].iter().enumerate().map(one).collect()
    }

    fn key(&self, slot: usize) -> &[u8] {
        &self.keys[slot * self.longest..][..usize::from(self.slots[slot].len)]
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let same = |entry: u16| {
            let Some(slot) = usize::from(entry).checked_sub(1) else { return true };
            self.slots[slot].hash == hash && self.key(slot) == key
        };
        usize::from(self.index[self.probe(hash, same)]).checked_sub(1)
    }

    /// The first place of the index from that of `hash` on for which `wanted` holds; there always is
    /// one, as three of four places are free.
    fn probe(&self, hash: u64, wanted: impl Fn(u16) -> bool) -> usize {
        let mask = self.index.len() - 1;
        let mut at = spread(hash) & mask;
        while !wanted(self.index[at]) {
            at = (at + 1) & mask;
        }
        at
    }

    /// Take a slot out of the index, and move up what had to stand behind it.
    fn unindex(&mut self, slot: usize) {
        let mask = self.index.len() - 1;
        let mut hole = self.probe(self.slots[slot].hash, |entry| usize::from(entry) == slot + 1);
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(other) = usize::from(self.index[at]).checked_sub(1) else { break };
            let home = spread(self.slots[other].hash) & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.index[hole] = self.index[at];
                hole = at;
            }
        }
        self.index[hole] = 0;
    }

    fn count_at(&self, place: usize) -> u64 {
        self.slots[usize::from(self.heap[place])].count
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.slots[usize::from(self.heap[one])].place = one as u16;
        self.slots[usize::from(self.heap[other])].place = other as u16;
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (mut least, left) = (place, 2 * place + 1);
            for child in left..(left + 2).min(self.used) {
                if self.count_at(child) < self.count_at(least) {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 && self.count_at(place) < self.count_at((place - 1) / 2) {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
    }
}

/// Bits of a hash that differ even where it does not in its lower ones.
fn spread(hash: u64) -> usize {
    (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Count a stream both ways and hold the sketch to what it promises.
    fn check(size: u16, stream: impl Iterator<Item = u64>) -> Sketch {
        let (mut sketch, mut exact) = (Sketch::new(size, 8), HashMap::<u64, u64>::new());
        for key in stream {
            sketch.add(key, &key.to_be_bytes());
            *exact.entry(key).or_default() += 1;
        }
        let bound = sketch.total() / u64::from(size);
        let found = sketch.all();
        assert!(found.len() <= usize::from(size) && sketch.missed() <= bound);
        let mut seen = HashMap::new();
        for one in &found {
            let key = u64::from_be_bytes(one.key[..].try_into().unwrap());
            let real = exact[&key];
            assert!(real <= one.count && one.count <= real + one.over && one.over <= bound);
            assert!(seen.insert(key, one.count).is_none(), "a key stands twice");
        }
        for (key, real) in exact {
            assert!(seen.contains_key(&key) || real <= sketch.missed(), "{key} of {real} is lost");
        }
        assert_eq!(found.iter().map(|one| one.count).sum::<u64>(), sketch.total());
        sketch
    }

    #[test]
    fn few_keys_are_counted_exactly() {
        let sketch = check(16, (0..1000).map(|at| at % 10));
        assert!(sketch.all().iter().all(|one| one.count == 100 && one.over == 0));
        assert_eq!(sketch.missed(), 0);
    }

    #[test]
    fn no_count_is_wrong_by_more_than_the_bound_whatever_the_stream() {
        let mut dice = fastrand::Rng::with_seed(7);
        for size in [1, 2, 7, 64, 512] {
            check(size, (0..20_000).map(|_| dice.u64(..) % 1000));
            // few that are frequent among many that are rare
            check(size, (0..20_000).map(|_| 1 << dice.u64(..).leading_zeros().min(40)));
            check(size, (0..20_000).map(|_| dice.u64(..)));
            // each as often as the next, in turn: the worst case of the sketch
            check(size, (0..20_000).map(|at| at % (u64::from(size) + 1)));
            // frequent ones last
            check(size, (0..20_000).map(|at| if at < 15_000 { at } else { 5 }));
        }
    }

    #[test]
    fn hashes_that_are_all_the_same_are_only_slow() {
        let mut sketch = Sketch::new(32, 2);
        for at in 0..5_000u16 {
            sketch.add(99, &(at % 40).to_be_bytes());
        }
        assert_eq!(sketch.all().iter().map(|one| one.count).sum::<u64>(), 5_000);
    }

    #[test]
    fn keys_longer_than_the_longest_are_cut() {
        let mut sketch = Sketch::new(2, 3);
        sketch.add(1, b"abcdef");
        sketch.add(1, b"abcxyz");
        assert_eq!(sketch.all(), [Counted { key: (*b"abc").into(), count: 2, over: 0 }]);
    }
}
