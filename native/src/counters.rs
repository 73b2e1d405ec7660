//! What one worker counts: plain cells that it alone writes and everybody may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Cells of one worker; numbers beyond are not counted.
pub const CELLS: usize = 1 << 17;
/// Outcomes of a query: 16 header rcodes, and silence.
pub const OUTCOMES: u32 = 17;
/// Where a query without an answer is counted.
pub const SILENT: u32 = 16;
/// No cell at all.
pub const NOTHING: u32 = u32::MAX;

/// The cells of one worker. Only the worker may call [`Counters::count`].
pub struct Counters {
    cells: Box<[AtomicU64]>,
}

impl Counters {
    /// `size` cells, all 0.
    pub fn new(size: usize) -> Self {
        Counters { cells: (0..size).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Add one. A load and a store, no locked instruction: there is one writer.
    #[inline(always)]
    pub fn count(&self, cell: u32) {
        self.add(cell, 1);
    }

    /// Add `more`.
    #[inline(always)]
    pub fn add(&self, cell: u32, more: u64) {
        if let Some(found) = self.cells.get(cell as usize) {
            found.store(found.load(Relaxed) + more, Relaxed);
        }
    }

    /// Make it `now`: a number that goes up and down.
    #[inline(always)]
    pub fn set(&self, cell: u32, now: u64) {
        if let Some(found) = self.cells.get(cell as usize) {
            found.store(now, Relaxed);
        }
    }

    /// Add what this worker counted to `sums`.
    pub fn sum_into(&self, sums: &mut [u64]) {
        for (sum, cell) in sums.iter_mut().zip(self.cells.iter()) {
            *sum += cell.load(Relaxed);
        }
    }
}
