//! DNS over UDP: one thread and one socket, batches in and out (recvmmsg, sendmmsg).
//!
//! Several workers share an address by SO_REUSEPORT; who opens the sockets is Python's business.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use crate::counters::{Counters, OUTCOMES, SILENT};
use crate::plan::Client;
use crate::query::read_query;
use crate::respond::{respond, Transport};
use crate::server::{monotonic_s, Shared};
use crate::table::Table;
use crate::wire::{MAX_QUERY, MAX_UDP};

/// Datagrams in one batch.
pub const BATCH: usize = 64;
/// How long a worker sleeps before it looks whether it shall end, in milliseconds.
pub const LOOK_MS: i64 = 250;
/// Octets from query to query in memory: not a power of two, so that they fall in different sets of
/// the cache.
const STRIDE: usize = MAX_QUERY + 1 + 127;
/// Octets of control messages about where a query came to.
const CONTROL: usize = 64;
/// From so many names on it pays to ask the memory in advance.
const MANY_NAMES: usize = 4096;

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

/// Everything that one batch needs, allocated once.
struct Buffers {
    input: Box<[u8]>,
    output: Box<[u8]>,
    peers: Box<[libc::sockaddr_in6; BATCH]>,
    control: Box<[[u64; CONTROL / 8]; BATCH]>,
    received: Box<[libc::mmsghdr; BATCH]>,
    sent: Box<[libc::mmsghdr; BATCH]>,
    into: Box<[libc::iovec; BATCH]>,
    from: Box<[libc::iovec; BATCH]>,
}

impl Buffers {
    fn new(wildcard: bool) -> Self {
        // SAFETY: all of these are plain C structures of numbers and pointers, for which zero is
        // a valid value.
        let mut made = unsafe {
            Buffers {
                input: vec![0; BATCH * STRIDE].into_boxed_slice(),
                output: vec![0; BATCH * MAX_UDP].into_boxed_slice(),
                peers: Box::new(zeroed()),
                control: Box::new([[0; CONTROL / 8]; BATCH]),
                received: Box::new(zeroed()),
                sent: Box::new(zeroed()),
                into: Box::new(zeroed()),
                from: Box::new(zeroed()),
            }
        };
        for at in 0..BATCH {
            made.into[at].iov_base = made.input[at * STRIDE..].as_mut_ptr().cast();
            made.into[at].iov_len = MAX_QUERY + 1;
            let header = &mut made.received[at].msg_hdr;
            header.msg_iov = &mut made.into[at];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut made.peers[at]).cast();
            if wildcard {
                header.msg_control = made.control[at].as_mut_ptr().cast();
            }
            made.sent[at].msg_hdr.msg_iov = &mut made.from[at];
            made.sent[at].msg_hdr.msg_iovlen = 1;
        }
        made.rearm(BATCH, wildcard);
        made
    }

    /// Make the first `count` places ready for the next batch.
    #[inline(always)]
    fn rearm(&mut self, count: usize, wildcard: bool) {
        for one in &mut self.received[..count] {
            one.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            if wildcard {
                one.msg_hdr.msg_controllen = CONTROL;
            }
        }
    }
}

/// Serve `socket` until `stop` is set.
pub fn serve(shared: &Shared, socket: &OwnedFd, wildcard: bool, stop: &AtomicBool, seed: u64) {
    let counters = shared.counter();
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut buffers = Buffers::new(wildcard);
    let fd = socket.as_raw_fd();
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
            // Time to look at `stop`, or an ICMP error about an earlier answer.
            continue;
        }
        let count = count as usize;
        let mut batch = Batch { shared, counters: &counters, wildcard, careful: false };
        let whole = catch_unwind(AssertUnwindSafe(|| batch.answer(&mut buffers, count, &mut dice)));
        // A query broke the responder: each by itself, so that the others are answered.
        let replies = whole.unwrap_or_else(|_| {
            batch.careful = true;
            batch.answer(&mut buffers, count, &mut dice)
        });
        send(fd, &mut buffers, replies, &counters);
        buffers.rearm(count, wildcard);
    }
}

/// How a batch is answered.
struct Batch<'w> {
    shared: &'w Shared,
    counters: &'w Counters,
    wildcard: bool,
    /// Whether a query that breaks the responder is caught by itself.
    careful: bool,
}

impl Batch<'_> {
    /// Answer the first `count` queries; gives the number of replies.
    #[inline(always)]
    fn answer(&self, buffers: &mut Buffers, count: usize, dice: &mut fastrand::Rng) -> usize {
        let Batch { shared, counters, .. } = *self;
        let table = shared.table();
        let table = &**table;
        let stale = shared.stale(table, monotonic_s());
        let Buffers { input, output, peers, control, received, sent, from, .. } = buffers;
        if table.names.len() > MANY_NAMES {
            ask_ahead(table, input, &received[..count]);
        }
        let (mut replies, mut begin) = (0, 0);
        for at in 0..count {
            let size = received[at].msg_len as usize;
            if size > MAX_QUERY {
                counters.count(OVERSIZE);
                continue;
            }
            let Some(query) = read_query(&input[at * STRIDE..at * STRIDE + size]) else {
                counters.count(UDP_CELLS + SILENT);
                continue;
            };
            let query = &query;
            let (client, draw) = (client_of(&peers[at]), dice.u64(..));
            let room = &mut output[begin..];
            let mut one =
                || respond(table, query, client, Transport::Udp, stale, draw, counters, room);
            let reply = if self.careful {
                catch_unwind(AssertUnwindSafe(one)).unwrap_or_else(|_| {
                    counters.count(FAILED);
                    None
                })
            } else {
                one()
            };
            let Some(reply) = reply else {
                counters.count(UDP_CELLS + SILENT);
                continue;
            };
            counters.count(UDP_CELLS + u32::from(reply.rcode));
            from[replies].iov_base = output[begin..].as_mut_ptr().cast();
            from[replies].iov_len = reply.len;
            begin += reply.len;
            let (to, from) = (&mut sent[replies].msg_hdr, &received[at].msg_hdr);
            to.msg_name = from.msg_name;
            to.msg_namelen = from.msg_namelen;
            if self.wildcard {
                to.msg_control = from.msg_control;
                to.msg_controllen = from.msg_controllen;
                from_there(&mut control[at], from.msg_controllen);
            }
            replies += 1;
        }
        counters.count(BATCHES);
        replies
    }
}

/// Ask the memory for what the answers to a batch will need: in a large table most of it lies far.
fn ask_ahead(table: &Table, input: &[u8], received: &[libc::mmsghdr]) {
    let mut hashes = [0; BATCH];
    for ((place, one), input) in hashes.iter_mut().zip(received).zip(input.chunks_exact(STRIDE)) {
        let size = (one.msg_len as usize).min(MAX_QUERY);
        *place = read_query(&input[..size]).map_or(0, |query| query.hash);
        table.names.prefetch_index(*place);
    }
    for hash in &hashes[..received.len()] {
        table.names.prefetch_record(*hash);
    }
}

/// The source address of a query.
#[inline(always)]
fn client_of(peer: &libc::sockaddr_in6) -> Client {
    if i32::from(peer.sin6_family) == libc::AF_INET {
        // An IPv4 address lies where the flow information of an IPv6 one does.
        return Client::V4(u32::from_be(peer.sin6_flowinfo));
    }
    Client::source(&peer.sin6_addr.s6_addr)
}

/// Make of "it came to this address" the order "send it from there" (ip(7), RFC 3542).
#[inline(always)]
fn from_there(control: &mut [u64; CONTROL / 8], size: usize) {
    // One message is asked for: length u64, level i32, kind i32, data.
    if size < 16 + 12 {
        return;
    }
    let level = control[1] as u32 as i32;
    if level == libc::IPPROTO_IP {
        // interface u32, local address, destination: send from the local address by any interface
        control[2] &= 0xFFFF_FFFF_0000_0000;
        control[3] &= 0xFFFF_FFFF_0000_0000;
    } else {
        // address, interface u32: the interface counts for link-local addresses alone
        let first = control[2].to_le_bytes();
        let link_local = first[0] == 0xFE && first[1] & 0xC0 == 0x80;
        if !link_local {
            control[4] &= 0xFFFF_FFFF_0000_0000;
        }
    }
}

/// Send the first `count` replies; what the kernel does not take is counted, and forgotten.
#[inline(always)]
fn send(fd: i32, buffers: &mut Buffers, count: usize, counters: &Counters) {
    let mut begin = 0;
    while begin < count {
        // SAFETY: as for receiving; the replies lie in `output`, which nobody touches meanwhile.
        let sent = unsafe {
            libc::sendmmsg(
                fd,
                buffers.sent[begin..].as_mut_ptr(),
                (count - begin) as _,
                libc::MSG_DONTWAIT as _,
            )
        };
        if sent > 0 {
            begin += sent as usize;
        } else if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            counters.count(UNSENT);
            begin += 1;
        }
    }
}

/// A thread that serves one socket.
pub struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    /// Begin to serve `socket`, which is made to block for `LOOK_MS` at most.
    pub fn start(
        shared: Arc<Shared>,
        socket: OwnedFd,
        wildcard: bool,
        seed: u64,
    ) -> io::Result<Self> {
        let wait = libc::timeval { tv_sec: 0, tv_usec: LOOK_MS * 1000 };
        // SAFETY: the descriptor is ours, and the option's value lives through the call.
        let done = unsafe {
            let flags = libc::fcntl(socket.as_raw_fd(), libc::F_GETFL);
            libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK);
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const wait).cast(),
                size_of::<libc::timeval>() as _,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::Builder::new()
            .name("dns-udp".into())
            .spawn(move || serve(&shared, &socket, wildcard, &told, seed))?;
        Ok(Worker { stop, thread: Some(thread) })
    }

    /// Have it end after the batch at hand.
    pub fn end(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Wait until it has ended.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
        self.join();
    }
}
