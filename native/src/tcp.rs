//! DNS over TCP (RFC 7766): pipelined queries, answers in order, everything bounded.
//!
//! One thread serves every address, so that the limits hold over all of them. It waits for the
//! kernel once a round, then each connection with something to do has one turn. An idle connection
//! costs about 250 octets here, and what the kernel holds of it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::connections::{Admission, Connections, Limits};
use crate::counters::{Counters, OUTCOMES, SILENT};
use crate::observe::Observer;
use crate::plan::Client;
use crate::query::read_query;
use crate::respond::{respond, Transport};
use crate::server::{monotonic_s, Shared};
use crate::slice::serve_me_soon;
use crate::stream::{Bench, Next, Stream};
use crate::udp::TCP_CELLS;

/// Connections at present.
pub const CONNECTIONS: u32 = 2 * OUTCOMES + 8;
/// Connections closed at once because there were too many.
pub const REFUSED: u32 = 2 * OUTCOMES + 9;
/// Connections ended for being idle or old.
pub const EXPIRED: u32 = 2 * OUTCOMES + 10;
/// Octets that connections hold of queries and answers, at present.
pub const HELD: u32 = 2 * OUTCOMES + 11;
/// Times that no connection could be accepted, for want of descriptors or memory.
pub const STARVED: u32 = 2 * OUTCOMES + 12;
/// Queries and connections that met a defect.
pub const BROKEN: u32 = 2 * OUTCOMES + 13;

/// Addresses that one worker listens on.
pub const MAX_LISTENERS: usize = 64;
/// What the kernel tells at once.
const MAX_EVENTS: usize = 1024;
/// Connections accepted, and connections expired, before the others get their turn.
const MAX_CHANGES: usize = 64;
/// How often idle connections are looked for, at most.
const SWEEP: Duration = Duration::from_millis(250);
/// How long nothing is accepted after it failed.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a worker that ends waits for clients to take their last answers.
const LAST: Duration = Duration::from_millis(500);

const WAKER: Token = Token(usize::MAX);

/// What a worker is told.
enum Order {
    /// Accept nothing more, and end with the last connection, or after this time.
    Drain(Duration),
    /// End now.
    End,
}

/// What answers the queries of one worker.
trait Answer {
    /// Write the reply to `query` and give its length; None for silence. It may panic.
    fn answer(&mut self, client: Client, query: &[u8], out: &mut [u8]) -> Option<usize>;
}

/// The responder over the table of the moment, counted.
struct Responder {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    observer: Observer,
    dice: fastrand::Rng,
}

impl Answer for Responder {
    #[inline]
    fn answer(&mut self, client: Client, query: &[u8], out: &mut [u8]) -> Option<usize> {
        let table = self.shared.table();
        let stale = self.shared.stale(&table, monotonic_s());
        let query = read_query(query)?;
        let (draw, counters) = (self.dice.u64(..), &self.counters);
        let reply = respond(&table, &query, client, Transport::Tcp, stale, draw, counters, out);
        let written = reply.as_ref().map_or(0, |reply| reply.len);
        self.observer.saw(draw, &query, client, Transport::Tcp, &out[..written]);
        counters.count(TCP_CELLS + u32::from(reply?.rcode));
        Some(written)
    }
}

struct Listener {
    socket: TcpListener,
    /// Whether somebody may wait to be accepted.
    ready: bool,
}

/// Everything that one worker has; it alone touches it.
struct Server<A> {
    answer: A,
    counters: Arc<Counters>,
    orders: Receiver<Order>,
    poll: Poll,
    listeners: Vec<Listener>,
    connections: Connections<Stream>,
    /// The numbers of those that have a turn in the next round.
    turns: VecDeque<usize>,
    bench: Bench,
    sweep: Duration,
    held: usize,
    now: Instant,
    /// No connection is accepted, and no expired one looked for, before these.
    accept_at: Instant,
    sweep_at: Instant,
    /// Once nothing is accepted any more: when the connections have to finish.
    finish_at: Option<Instant>,
    /// Once they have to: when all is over.
    over_at: Option<Instant>,
}

impl<A: Answer> Server<A> {
    fn new(
        answer: A,
        counters: Arc<Counters>,
        orders: Receiver<Order>,
        poll: Poll,
        sockets: Vec<OwnedFd>,
        limits: Limits,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let mut listeners = Vec::with_capacity(sockets.len());
        for (number, socket) in sockets.into_iter().enumerate() {
            let socket = std::net::TcpListener::from(socket);
            socket.set_nonblocking(true)?;
            let mut socket = TcpListener::from_std(socket);
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            listeners.push(Listener { socket, ready: true });
        }
        Ok(Server {
            answer,
            counters,
            orders,
            poll,
            listeners,
            connections: Connections::new(limits),
            turns: VecDeque::new(),
            bench: Bench::default(),
            sweep: SWEEP.min(limits.idle / 4),
            held: 0,
            now,
            accept_at: now,
            sweep_at: now,
            finish_at: None,
            over_at: None,
        })
    }

    /// Serve until told to end.
    fn run(&mut self) {
        let mut events = Events::with_capacity(MAX_EVENTS);
        loop {
            let round = || self.round(&mut events);
            match catch_unwind(AssertUnwindSafe(round)) {
                Ok(false) => return,
                Ok(true) => {}
                Err(_) => self.counters.count(BROKEN),
            }
        }
    }

    /// Wait, and do what is due; false once all is over.
    fn round(&mut self, events: &mut Events) -> bool {
        if self.poll.poll(events, self.wait()).is_err() {
            events.clear();
        }
        self.now = Instant::now();
        for event in events.iter() {
            match event.token() {
                WAKER => self.obey(),
                Token(number) if number < MAX_LISTENERS => {
                    if let Some(listener) = self.listeners.get_mut(number) {
                        listener.ready = true;
                    }
                }
                Token(number) => {
                    let number = number - MAX_LISTENERS;
                    if let Some(stream) = self.connections.get_mut(number) {
                        stream.wake(event);
                        queue(&mut self.turns, number, stream);
                    }
                }
            }
        }
        self.take_turns();
        self.accept();
        self.expire();
        self.finish();
        self.counters.set(CONNECTIONS, self.connections.len() as u64);
        self.counters.set(HELD, self.held as u64);
        let drained = self.finish_at.is_some() && self.connections.is_empty();
        !drained && self.over_at.is_none_or(|at| self.now < at)
    }

    /// How long there is nothing to do, unless the kernel has something to tell.
    fn wait(&self) -> Option<Duration> {
        if !self.turns.is_empty() {
            return Some(Duration::ZERO);
        }
        let accept = self.listeners.iter().any(|one| one.ready).then_some(self.accept_at);
        let expire = self.connections.deadline().map(|at| at.max(self.sweep_at));
        let due = [accept, expire, self.over_at.or(self.finish_at)];
        let next = due.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Do what the orders say that came meanwhile.
    fn obey(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            let grace = match order {
                Order::Drain(grace) => grace,
                Order::End => Duration::ZERO,
            };
            for listener in &mut self.listeners {
                // Others may hold the same socket, so that closing it would not be enough.
                let _ = self.poll.registry().deregister(&mut listener.socket);
            }
            self.listeners.clear();
            let at = self.now + grace;
            self.finish_at = Some(self.finish_at.map_or(at, |former| former.min(at)));
        }
    }

    /// One turn for each connection that waits for one.
    fn take_turns(&mut self) {
        for _ in 0..self.turns.len() {
            let Some(number) = self.turns.pop_front() else { return };
            let Some(stream) = self.connections.get_mut(number) else { continue };
            stream.queued = false;
            let before = stream.held();
            let (client, answer, counters) = (stream.client, &mut self.answer, &self.counters);
            let one = |query: &[u8], out: &mut [u8]| {
                // What breaks the responder gets silence; what follows is answered.
                let reply = catch_unwind(AssertUnwindSafe(|| answer.answer(client, query, out)));
                let reply = reply.unwrap_or_else(|_| {
                    counters.count(BROKEN);
                    None
                });
                if reply.is_none() {
                    counters.count(TCP_CELLS + SILENT);
                }
                reply
            };
            let turn = catch_unwind(AssertUnwindSafe(|| stream.turn(&mut self.bench, one)));
            let (next, queries) = turn.unwrap_or_else(|_| {
                self.counters.count(BROKEN);
                (Next::Over, 0)
            });
            self.held = self.held + stream.held() - before;
            if next == Next::Again {
                queue(&mut self.turns, number, stream);
            }
            if next == Next::Over {
                self.forget(number);
            } else if queries > 0 {
                self.connections.used(number, self.now);
            }
        }
    }

    /// Take the connections that wait, some of each address.
    fn accept(&mut self) {
        if self.now < self.accept_at {
            return;
        }
        for at in 0..self.listeners.len() {
            for _ in 0..MAX_CHANGES {
                let listener = &mut self.listeners[at];
                if !listener.ready {
                    break;
                }
                match listener.socket.accept() {
                    Ok((socket, peer)) => self.admit(socket, peer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.ready = false;
                    }
                    Err(error) if of_one_connection(&error) => {}
                    Err(_) => {
                        self.counters.count(STARVED);
                        self.accept_at = self.now + PAUSE;
                        return;
                    }
                }
            }
        }
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddr) {
        let client = match peer.ip() {
            IpAddr::V4(address) => Client::source(&address.octets()),
            IpAddr::V6(address) => Client::source(&address.octets()),
        };
        // Answers leave at once, however small.
        if socket.set_nodelay(true).is_err() {
            return;
        }
        match self.connections.admit(client, Stream::new(socket, client), self.now) {
            Admission::Refused(_) => self.counters.count(REFUSED),
            Admission::Admitted(number, gone) => {
                if let Some(gone) = gone {
                    self.counters.count(EXPIRED);
                    self.held -= gone.held();
                }
                let Some(stream) = self.connections.get_mut(number) else { return };
                let token = Token(number + MAX_LISTENERS);
                let interest = Interest::READABLE | Interest::WRITABLE;
                if self.poll.registry().register(&mut stream.socket, token, interest).is_err() {
                    self.forget(number);
                }
            }
        }
    }

    /// End the connections whose time is over, some in a round.
    fn expire(&mut self) {
        if self.now < self.sweep_at {
            return;
        }
        for _ in 0..MAX_CHANGES {
            let Some(gone) = self.connections.expired(self.now) else {
                self.sweep_at = self.now + self.sweep;
                return;
            };
            self.counters.count(EXPIRED);
            self.held -= gone.held();
        }
    }

    /// Where it is time, have every connection answer what is there, and end.
    fn finish(&mut self) {
        if self.over_at.is_some() || self.finish_at.is_none_or(|at| self.now < at) {
            return;
        }
        self.over_at = Some(self.now + LAST);
        for (number, stream) in self.connections.iter_mut() {
            stream.finish();
            queue(&mut self.turns, number, stream);
        }
    }

    fn forget(&mut self, number: usize) {
        if let Some(gone) = self.connections.forget(number) {
            self.held -= gone.held();
        }
    }
}

/// Have a connection take a turn in the next round, once.
fn queue(turns: &mut VecDeque<usize>, number: usize, stream: &mut Stream) {
    if !stream.queued {
        stream.queued = true;
        turns.push_back(number);
    }
}

/// Whether an error of accepting concerns one connection alone (accept(2)): the next may be well.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
        )
    )
}

/// A thread that serves TCP on every address.
pub struct Worker {
    orders: Sender<Order>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Begin to serve listening sockets.
    pub fn start(
        shared: Arc<Shared>,
        sockets: Vec<OwnedFd>,
        limits: Limits,
        seed: u64,
    ) -> io::Result<Self> {
        let counters = shared.counter();
        let dice = fastrand::Rng::with_seed(seed);
        let observer = shared.watch.observer(counters.clone());
        let answer = Responder { shared, counters: counters.clone(), observer, dice };
        Worker::with(answer, counters, sockets, limits)
    }

    fn with<A: Answer + Send + 'static>(
        answer: A,
        counters: Arc<Counters>,
        sockets: Vec<OwnedFd>,
        limits: Limits,
    ) -> io::Result<Self> {
        if sockets.len() > MAX_LISTENERS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets"));
        }
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (orders, told) = channel();
        let mut server = Server::new(answer, counters, told, poll, sockets, limits)?;
        let thread = std::thread::Builder::new().name("dns-tcp".into()).spawn(move || {
            serve_me_soon();
            server.run();
            server.counters.set(CONNECTIONS, 0);
            server.counters.set(HELD, 0);
        })?;
        Ok(Worker { orders, waker, thread: Some(thread) })
    }

    /// Have it accept nothing more, and end with its last connection, or `grace` from now.
    pub fn drain(&self, grace: Duration) {
        self.order(Order::Drain(grace));
    }

    /// Have it end now; what is asked already is answered, as far as clients take it soon.
    pub fn end(&self) {
        self.order(Order::End);
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Wait until it has ended.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener as Listening, TcpStream as Peer};

    use super::*;

    /// The query back; words in it ask for something else.
    struct Echo;

    impl Answer for Echo {
        fn answer(&mut self, _: Client, query: &[u8], out: &mut [u8]) -> Option<usize> {
            match query {
                b"silence" => return None,
                b"defect" => panic!("a defect"),
                b"worse" => return Some(1 << 20),
                b"large" => return Some(60_000),
                _ => out[..query.len()].copy_from_slice(query),
            }
            Some(query.len())
        }
    }

    struct Opened {
        worker: Worker,
        counters: Arc<Counters>,
        address: SocketAddr,
    }

    impl Opened {
        fn new() -> Self {
            let socket = Listening::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            let (idle, total) = (Duration::from_secs(10), Duration::from_secs(30));
            let limits = Limits { connections: 8, per_client: 8, idle, total };
            let counters = Arc::new(Counters::new(64));
            let sockets = vec![OwnedFd::from(socket)];
            let worker = Worker::with(Echo, counters.clone(), sockets, limits).unwrap();
            Opened { worker, counters, address }
        }

        fn client(&self) -> Peer {
            let client = Peer::connect(self.address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            client
        }

        fn counted(&self, cell: u32) -> u64 {
            let mut sums = [0; 64];
            self.counters.sum_into(&mut sums);
            sums[cell as usize]
        }
    }

    fn framed(query: &[u8]) -> Vec<u8> {
        [&(query.len() as u16).to_be_bytes(), query].concat()
    }

    fn asked(client: &mut Peer, query: &[u8]) -> Vec<u8> {
        client.write_all(&framed(query)).unwrap();
        let mut size = [0; 2];
        client.read_exact(&mut size).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(size))];
        client.read_exact(&mut reply).unwrap();
        reply
    }

    fn ended(client: &mut Peer) -> bool {
        matches!(client.read(&mut [0]), Ok(0) | Err(_))
    }

    #[test]
    fn a_query_that_breaks_the_responder_gets_silence_and_the_connection_goes_on() {
        let server = Opened::new();
        let mut client = server.client();
        client.write_all(&framed(b"defect")).unwrap();
        assert_eq!(asked(&mut client, b"next"), b"next");
        assert_eq!(server.counted(BROKEN), 1);
        assert_eq!(server.counted(TCP_CELLS + SILENT), 1);
    }

    #[test]
    fn a_defect_in_one_connection_ends_that_one_alone() {
        let server = Opened::new();
        let (mut client, mut other) = (server.client(), server.client());
        assert_eq!(asked(&mut other, b"a"), b"a");
        client.write_all(&framed(b"worse")).unwrap();
        assert!(ended(&mut client));
        assert_eq!(asked(&mut other, b"b"), b"b");
        assert_eq!(server.counted(CONNECTIONS), 1);
        assert_eq!(server.counted(BROKEN), 1);
    }

    #[test]
    fn draining_accepts_nobody_and_goes_on_with_those_who_are_there() {
        let mut server = Opened::new();
        let mut client = server.client();
        assert_eq!(asked(&mut client, b"a"), b"a");
        server.worker.drain(Duration::from_secs(60));
        while Peer::connect(server.address).is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(asked(&mut client, b"b"), b"b");
        assert!(!server.worker.is_over());
        client.shutdown(Shutdown::Write).unwrap();
        assert!(ended(&mut client));
        server.worker.join();
        assert_eq!((server.counted(CONNECTIONS), server.counted(HELD)), (0, 0));
    }

    #[test]
    fn what_is_asked_when_it_ends_is_answered() {
        let mut server = Opened::new();
        let mut client = server.client();
        assert_eq!(asked(&mut client, b"a"), b"a");
        client.write_all(&framed(b"large").repeat(100)).unwrap();
        server.worker.end();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 100 * (2 + 60_000));
        server.worker.join();
    }
}
