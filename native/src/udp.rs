//! DNS over UDP: one thread and one socket, batches in and out (recvmmsg, sendmmsg).
//!
//! Several workers share an address by SO_REUSEPORT; who opens the sockets is Python's business.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Batch, Buffers, Sender};
use crate::counters::OUTCOMES;
use crate::server::Shared;
use crate::slice::serve_me_soon;

/// Datagrams in one batch.
pub const BATCH: usize = 64;
/// How long a worker that may not block sleeps before it looks whether it shall end, in
/// milliseconds.
const LOOK_MS: i32 = 250;
/// From call to call to a worker that shall end and may be about to block.
const AGAIN: Duration = Duration::from_millis(2);
/// What gets a worker out of the kernel: nobody minds it otherwise, as its default is to be ignored.
const CALL: i32 = libc::SIGURG;
/// Cells of queries over UDP by outcome.
pub const UDP_CELLS: u32 = 0;
/// Cells of queries over TCP by outcome.
pub const TCP_CELLS: u32 = OUTCOMES;
/// Answers that the kernel did not take.
pub const UNSENT: u32 = 2 * OUTCOMES;
/// Queries larger than any that is read.
pub const OVERSIZE: u32 = 2 * OUTCOMES + 1;
/// Batches read over UDP.
pub const BATCHES: u32 = 2 * OUTCOMES + 2;
/// Queries that broke the responder.
pub const FAILED: u32 = 2 * OUTCOMES + 3;
/// Datagrams that came by AF_XDP, answered or not.
pub const EXPRESS: u32 = 2 * OUTCOMES + 4;
/// Those of them that are no datagram of IP and UDP, or have a wrong checksum.
pub const MALFORMED: u32 = 2 * OUTCOMES + 5;

/// Serve `socket` until `stop` is set.
pub fn serve(shared: &Shared, socket: &OwnedFd, wildcard: bool, stop: &AtomicBool, seed: u64) {
    let counters = shared.counter();
    let observer = shared.watch.observer(counters.clone());
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut buffers = Buffers::new(wildcard);
    let fd = socket.as_raw_fd();
    let mut sender = Sender::new(fd);
    while !stop.load(Relaxed) {
        // SAFETY: every header points to buffers that live as long as `buffers`, with their sizes.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                buffers.received.as_mut_ptr(),
                BATCH as _,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        if count <= 0 {
            // A call to end, or an ICMP error about an earlier answer.
            wait_if_empty(fd);
            continue;
        }
        let count = count as usize;
        let segments = sender.segments();
        let (counters, observer) = (&*counters, &observer);
        let mut batch = Batch { shared, counters, observer, wildcard, segments, careful: false };
        let whole = catch_unwind(AssertUnwindSafe(|| batch.answer(&mut buffers, count, &mut dice)));
        // A query broke the responder: each by itself, so that the others are answered.
        let runs = whole.unwrap_or_else(|_| {
            batch.careful = true;
            batch.answer(&mut buffers, count, &mut dice)
        });
        sender.send(&mut buffers, runs, counters);
        buffers.rearm(count, wildcard);
    }
}

/// Wait for a query where the call before would not: who takes the socket over, or had it before,
/// shares its state with us and may have told it not to block.
#[cold]
fn wait_if_empty(fd: i32) {
    if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
        let mut one = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives through the call.
        unsafe { libc::poll(&mut one, 1, LOOK_MS) };
    }
}

/// Have `CALL` interrupt what a thread waits for, and do nothing else.
fn hear_calls() -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: an action that is all zero but for its function, which does nothing, is a whole one.
    let done = unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(CALL, &action, std::ptr::null_mut())
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A thread that serves one socket.
pub struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    /// Begin to serve `socket`, which is made to block without end: a time-out would cost a timer
    /// each time that there is nothing to read.
    pub fn start(
        shared: Arc<Shared>,
        socket: OwnedFd,
        wildcard: bool,
        seed: u64,
    ) -> io::Result<Self> {
        let forever = libc::timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: the descriptor is ours, and the option's value lives through the call.
        let done = unsafe {
            let flags = libc::fcntl(socket.as_raw_fd(), libc::F_GETFL);
            libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK);
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const forever).cast(),
                size_of::<libc::timeval>() as _,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Worker::run("dns-udp", move |stop| serve(&shared, &socket, wildcard, stop, seed))
    }

    /// Begin a thread that does `work`, which ends soon after the flag is set and a system call of
    /// its own was interrupted.
    pub fn run(name: &str, work: impl FnOnce(&AtomicBool) + Send + 'static) -> io::Result<Self> {
        hear_calls()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            serve_me_soon();
            work(&told);
        })?;
        Ok(Worker { stop, thread: Some(thread) })
    }

    /// Have it end after the batch at hand.
    pub fn end(&self) {
        self.stop.store(true, Relaxed);
        self.call();
    }

    /// Wait until it has ended; only after `end`.
    pub fn join(&mut self) {
        // A call that came just before the worker blocked was in vain.
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            self.call();
            std::thread::sleep(AGAIN);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn call(&self) {
        if let Some(thread) = &self.thread {
            // SAFETY: the thread was not joined yet, so its name is good.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), CALL) };
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
        self.join();
    }
}
