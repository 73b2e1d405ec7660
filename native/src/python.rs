//! What Python sees: one class, `Native`.

use std::ffi::CString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::connections::Limits;
use crate::counters::Counters;
use crate::observe::Seen;
use crate::plan::Client;
use crate::query::read_query;
use crate::respond::{respond, Transport};
use crate::server::{first_panic, remember_panics, Shared};
use crate::sketch::{Counted, Sketch};
use crate::wire::MAX_TCP;
use crate::xdp::Express;
use crate::{tcp, udp};

/// Longer times mean this one.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The table and the workers of one resolver.
#[pyclass(frozen)]
struct Native {
    shared: Arc<Shared>,
    workers: Mutex<Vec<udp::Worker>>,
    express: Mutex<Option<Express>>,
    tcp: Mutex<Option<tcp::Worker>>,
    /// What is counted of queries that Python hands over.
    own: Arc<Counters>,
    log: Mutex<Option<Receiver<Seen>>>,
}

#[pymethods]
impl Native {
    #[new]
    fn new() -> Self {
        let shared = Arc::<Shared>::default();
        let own = shared.counter();
        Native {
            shared,
            workers: Mutex::default(),
            express: Mutex::default(),
            tcp: Mutex::default(),
            own,
            log: Mutex::default(),
        }
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
        let one = || respond(&table, &read, client, transport, stale, draw, &self.own, &mut out);
        let reply = catch_unwind(AssertUnwindSafe(one))
            .map_err(|_| PyRuntimeError::new_err(first_panic()))?;
        Ok(reply.map(|reply| PyBytes::new(py, &out[..reply.len])))
    }

    /// Serve a bound UDP socket in a thread of its own.
    fn serve_udp(&self, fd: i32, wildcard: bool, seed: u64) -> PyResult<()> {
        let own = duplicated(fd)?;
        let worker = udp::Worker::start(self.shared.clone(), own, wildcard, seed)
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        locked(&self.workers)?.push(worker);
        Ok(())
    }

    /// Serve what is asked over UDP at addresses of an interface by AF_XDP, a thread for each of
    /// its queues; gives how. OSError has the number of what failed, and what that was.
    fn serve_xdp(
        &self,
        py: Python<'_>,
        interface: &str,
        places: Vec<(IpAddr, u16)>,
        seed: u64,
    ) -> PyResult<&'static str> {
        let interface = CString::new(interface)
            .map_err(|_| PyOSError::new_err((libc::ENODEV, "the interface")))?;
        let places: Vec<SocketAddr> = places.into_iter().map(SocketAddr::from).collect();
        if locked(&self.express)?.is_some() {
            return Err(PyRuntimeError::new_err("an interface is served already"));
        }
        // Without the lock: who holds the interpreter may wait for it.
        let begun = py
            .detach(|| Express::start(&self.shared, &interface, &places, seed))
            .map_err(|(error, what)| PyOSError::new_err((error.raw_os_error(), what)))?;
        let mode = begun.mode;
        *locked(&self.express)? = Some(begun);
        Ok(mode)
    }

    /// Packets that the kernel had no place for on the interface that is served.
    fn xdp_lost(&self) -> PyResult<u64> {
        Ok(locked(&self.express)?.as_ref().map_or(0, Express::lost))
    }

    /// Serve listening TCP sockets, all in one thread.
    fn serve_tcp(
        &self,
        fds: Vec<i32>,
        connections: usize,
        per_client: usize,
        idle_s: f64,
        total_s: f64,
        seed: u64,
    ) -> PyResult<()> {
        let (idle, total) = (duration(idle_s)?, duration(total_s)?);
        let limits = Limits { connections, per_client, idle, total };
        let sockets = fds.into_iter().map(duplicated).collect::<PyResult<_>>()?;
        let mut tcp = locked(&self.tcp)?;
        if tcp.is_some() {
            return Err(PyRuntimeError::new_err("TCP is served already"));
        }
        let worker = tcp::Worker::start(self.shared.clone(), sockets, limits, seed)
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        *tcp = Some(worker);
        Ok(())
    }

    /// Accept no further TCP connection, and end with the last one, or in `grace_s`.
    fn drain_tcp(&self, grace_s: f64) -> PyResult<()> {
        let grace = duration(grace_s)?;
        if let Some(worker) = &*locked(&self.tcp)? {
            worker.drain(grace);
        }
        Ok(())
    }

    /// End TCP: what is asked already is answered, as far as clients take it soon.
    fn end_tcp(&self, py: Python<'_>) -> PyResult<()> {
        let worker = locked(&self.tcp)?.take();
        py.detach(|| drop(worker));
        Ok(())
    }

    /// End UDP after the batches at hand, and wait for that.
    fn end_udp(&self, py: Python<'_>) -> PyResult<()> {
        let express = locked(&self.express)?.take();
        let mut workers = std::mem::take(&mut *locked(&self.workers)?);
        py.detach(|| {
            drop(express);
            workers.iter().for_each(udp::Worker::end);
            workers.iter_mut().for_each(udp::Worker::join);
        });
        Ok(())
    }

    /// End every worker after what is at hand, and wait for that.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.end_udp(py)?;
        self.end_tcp(py)
    }

    /// Have workers that begin from now on rank one query of `top_every`, and log one of
    /// `log_every`; 0: none.
    fn observe(&self, top_every: u32, log_every: u32) -> PyResult<()> {
        *locked(&self.log)? = Some(self.shared.watch.begin(top_every, log_every));
        Ok(())
    }

    /// Take at most `most` queries out of the log.
    fn logged<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Vec<Logged<'py>>> {
        let log = locked(&self.log)?;
        let taken = log.iter().flat_map(|log| log.try_iter().take(most));
        Ok(taken.map(|seen| logged(py, &seen)).collect())
    }

    /// The sketches of each worker: of names and of clients (keys, how often one that is not there
    /// was seen at most, all queries seen).
    fn tops<'py>(&self, py: Python<'py>) -> Vec<(Ranked<'py>, Ranked<'py>)> {
        let mut found = Vec::new();
        self.shared.watch.tops(|top| {
            let one = |sketch: &Sketch| (sketch.all(), sketch.missed(), sketch.total());
            found.push((one(&top.names), one(&top.clients)));
        });
        let shown = |(all, missed, total): (Vec<Counted>, u64, u64)| {
            let row = |one: Counted| (PyBytes::new(py, &one.key), one.count, one.over);
            (all.into_iter().map(row).collect(), missed, total)
        };
        found.into_iter().map(|(names, clients)| (shown(names), shown(clients))).collect()
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

/// Keys with their counts and by how much those may be too great; at most how often one that is
/// not there was seen; all that was seen.
type Ranked<'py> = (Vec<(Bound<'py, PyBytes>, u64, u64)>, u64, u64);

/// Unix seconds, transport, client, name asked, type asked, client subnet (length and address),
/// front of the reply, octets of the whole.
type Logged<'py> = (
    f64,
    &'static str,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    u16,
    Option<(u8, Bound<'py, PyBytes>)>,
    Bound<'py, PyBytes>,
    usize,
);

fn logged<'py>(py: Python<'py>, seen: &Seen) -> Logged<'py> {
    let address = |client: Client| match client {
        Client::V4(address) => PyBytes::new(py, &address.to_be_bytes()),
        Client::V6(address) => PyBytes::new(py, &address.to_be_bytes()),
    };
    let transport = if seen.transport == Transport::Tcp { "tcp" } else { "udp" };
    (
        seen.at_s,
        transport,
        address(seen.client),
        PyBytes::new(py, seen.name()),
        seen.qtype,
        seen.subnet.map(|(source, network)| (source, address(network))),
        PyBytes::new(py, seen.reply()),
        seen.size,
    )
}

/// A descriptor of our own for a socket of Python's.
fn duplicated(fd: i32) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(PyValueError::new_err("no descriptor"));
    }
    // SAFETY: the caller's socket object is open during this call; it is duplicated here.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?)
}

fn duration(seconds: f64) -> PyResult<Duration> {
    let made = Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(made.min(FOREVER))
}

fn locked<T>(it: &Mutex<T>) -> PyResult<MutexGuard<'_, T>> {
    it.lock().map_err(|_| PyRuntimeError::new_err("a worker broke"))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    remember_panics();
    module.add("DIGEST", option_env!("GTM_NATIVE_DIGEST").unwrap_or(""))?;
    module.add("TABLE_VERSION", crate::load::VERSION)?;
    module.add_class::<Native>()
}
