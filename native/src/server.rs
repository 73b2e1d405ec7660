//! What all workers share: the table in force, when the store was last heard, who counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::counters::{Counters, CELLS};
use crate::load::Loaded;
use crate::observe::Watch;
use crate::table::Table;

/// The state shared by the workers of one process.
pub struct Shared {
    table: ArcSwap<Table>,
    heard_s: AtomicU64,
    counters: Mutex<Vec<Arc<Counters>>>,
    /// What is sampled of the queries.
    pub watch: Watch,
    loader: Mutex<Loader>,
}

#[derive(Default)]
struct Loader {
    loaded: Loaded,
    /// Tables that a worker may still read; freed here, so that no worker ever has to.
    retired: Vec<Arc<Table>>,
}

static FIRST_PANIC: OnceLock<String> = OnceLock::new();

/// Remember the first defect that broke a query, instead of telling each on standard error.
pub fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        let _ = FIRST_PANIC.set(info.to_string());
    }));
}

/// The first defect that broke a query; "" where none did.
pub fn first_panic() -> &'static str {
    FIRST_PANIC.get().map_or("", String::as_str)
}

/// What a load did.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub names: usize,
    pub nodes: usize,
    pub tables: usize,
    pub names_bytes: usize,
    pub tables_bytes: usize,
    pub seconds: f64,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            table: ArcSwap::from(Arc::new(Table::empty())),
            heard_s: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
            counters: Mutex::default(),
            watch: Watch::default(),
            loader: Mutex::default(),
        }
    }
}

impl Shared {
    /// Put a hand-over in force, or say why it is refused; then everything stays as it was.
    pub fn load(&self, data: &[u8]) -> Result<Outcome, String> {
        let begun = Instant::now();
        let mut loader = self.loader.lock().map_err(|_| "an earlier load broke".to_string())?;
        let loaded = loader.loaded.with(data)?;
        self.table.store(loaded.table.clone());
        let former = std::mem::replace(&mut loader.loaded, loaded);
        loader.retired.push(former.table);
        loader.retired.retain(|table| Arc::strong_count(table) > 1);
        let (names, nodes, tables, names_bytes, tables_bytes) = loader.loaded.sizes();
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Outcome { names, nodes, tables, names_bytes, tables_bytes, seconds })
    }

    /// Free what no worker reads any more; gives how many tables are left.
    pub fn sweep(&self) -> usize {
        let Ok(mut loader) = self.loader.lock() else { return 0 };
        loader.retired.retain(|table| Arc::strong_count(table) > 1);
        loader.retired.len()
    }

    /// The table in force.
    #[inline(always)]
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// Note when the table was last known to be up to date, in monotonic seconds.
    pub fn heard(&self, at_s: f64) {
        self.heard_s.store(at_s.to_bits(), Relaxed);
    }

    /// Whether answers of `table` are stale at `now_s`.
    #[inline(always)]
    pub fn stale(&self, table: &Table, now_s: f64) -> bool {
        now_s - f64::from_bits(self.heard_s.load(Relaxed)) > table.serving.stale_after_s
    }

    /// Cells for a new worker.
    pub fn counter(&self) -> Arc<Counters> {
        let made = Arc::new(Counters::new(CELLS));
        if let Ok(mut all) = self.counters.lock() {
            all.push(made.clone());
        }
        made
    }

    /// The sums of all workers, of the first `cells` cells.
    pub fn counted(&self, cells: usize) -> Vec<u64> {
        let mut sums = vec![0; cells.min(CELLS)];
        if let Ok(all) = self.counters.lock() {
            for one in all.iter() {
                one.sum_into(&mut sums);
            }
        }
        sums
    }
}

/// Seconds of the monotonic clock that Python's `time.monotonic` reads.
#[inline(always)]
pub fn monotonic_s() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and `now` is ours to be written.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}
