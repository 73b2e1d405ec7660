//! What Python sees: one class, `Native`.

use std::os::fd::BorrowedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::counters::Counters;
use crate::plan::Client;
use crate::query::read_query;
use crate::respond::{respond, Transport};
use crate::server::{first_panic, remember_panics, Shared};
use crate::udp::Worker;
use crate::wire::MAX_TCP;

/// The table and the workers of one resolver.
#[pyclass(frozen)]
struct Native {
    shared: Arc<Shared>,
    workers: Mutex<Vec<Worker>>,
    idle: Counters,
}

#[pymethods]
impl Native {
    #[new]
    fn new() -> Self {
        Native { shared: Arc::default(), workers: Mutex::default(), idle: Counters::new(0) }
    }

    /// Put a hand-over in force; ValueError says why it is refused.
    fn load(
        &self,
        py: Python<'_>,
        data: &[u8],
    ) -> PyResult<(usize, usize, usize, usize, usize, f64)> {
        let done = py.detach(|| self.shared.load(data)).map_err(PyValueError::new_err)?;
        Ok((done.names, done.nodes, done.tables, done.names_bytes, done.tables_bytes, done.seconds))
    }

    /// Free what no worker reads any more; gives how many tables are left.
    fn sweep(&self, py: Python<'_>) -> usize {
        py.detach(|| self.shared.sweep())
    }

    /// Note when the table was last known to be up to date.
    fn heard(&self, at_s: f64) {
        self.shared.heard(at_s);
    }

    /// The reply to one query, as the workers would give it; None for silence.
    fn respond<'py>(
        &self,
        py: Python<'py>,
        query: &[u8],
        client: &[u8],
        transport: &str,
        now: f64,
        draw: u64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if client.len() != 4 && client.len() != 16 {
            return Err(PyValueError::new_err("an address has 4 or 16 octets"));
        }
        let Some(read) = read_query(query) else { return Ok(None) };
        let table = self.shared.table();
        let stale = self.shared.stale(&table, now);
        let transport = if transport == "tcp" { Transport::Tcp } else { Transport::Udp };
        let mut out = vec![0; MAX_TCP];
        let client = Client::source(client);
        let one = || respond(&table, &read, client, transport, stale, draw, &self.idle, &mut out);
        let reply = catch_unwind(AssertUnwindSafe(one))
            .map_err(|_| PyRuntimeError::new_err(first_panic()))?;
        Ok(reply.map(|reply| PyBytes::new(py, &out[..reply.len])))
    }

    /// Serve a bound UDP socket in a thread of its own.
    fn serve_udp(&self, fd: i32, wildcard: bool, seed: u64) -> PyResult<()> {
        if fd < 0 {
            return Err(PyValueError::new_err("no descriptor"));
        }
        // SAFETY: the caller's socket object is open during this call; it is duplicated here.
        let own = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        let worker = Worker::start(self.shared.clone(), own, wildcard, seed)
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        self.workers()?.push(worker);
        Ok(())
    }

    /// End every worker after the batch at hand, and wait for that.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut workers = std::mem::take(&mut *self.workers()?);
        py.detach(|| {
            workers.iter().for_each(Worker::end);
            workers.iter_mut().for_each(Worker::join);
        });
        Ok(())
    }

    /// The first defect that broke a query; "" where none did.
    fn defect(&self) -> &'static str {
        first_panic()
    }

    /// The first `cells` counts, summed over the workers.
    fn counted(&self, cells: usize) -> Vec<u64> {
        self.shared.counted(cells)
    }
}

impl Native {
    fn workers(&self) -> PyResult<std::sync::MutexGuard<'_, Vec<Worker>>> {
        self.workers.lock().map_err(|_| PyRuntimeError::new_err("a worker broke"))
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    remember_panics();
    module.add("DIGEST", option_env!("GTM_NATIVE_DIGEST").unwrap_or(""))?;
    module.add("TABLE_VERSION", crate::load::VERSION)?;
    module.add_class::<Native>()
}
