//! DNS over UDP past the kernel's network stack: AF_XDP, one socket and one thread a receive queue.
//!
//! What is asked at given addresses of one interface is answered in the frame that it came in, and
//! goes back to where it came from. Everything else takes its way to the ordinary sockets.

use std::ffi::CStr;
use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ahead::{ask_ahead, pays, GROUP};
use crate::answer::Answerer;
use crate::counters::{Counters, SILENT};
use crate::observe::Observer;
use crate::plan::Client;
use crate::query::{read_query, Query};
use crate::server::{monotonic_s, Shared};
use crate::table::Table;
use crate::udp::{Worker, BATCH, BATCHES, EXPRESS, FAILED, MALFORMED, UDP_CELLS, UNSENT};
use crate::wire::PLAIN_UDP;
use crate::xdp_packet::{self, Head, HEADERS};
use crate::xdp_program::{self, Link, Sockets, MAX_FRAME};
use crate::xdp_rings::{self, Packet, Port};

/// Queues that are served; what comes on others takes the ordinary way.
pub const MAX_QUEUES: u32 = 64;
/// Octets that a packet may have on an interface, at least: the smallest reply with its headers.
const MIN_MTU: usize = PLAIN_UDP + HEADERS;
/// Octets of an Ethernet header, which the MTU does not count.
const ETHERNET: usize = 14;
/// How long a queue may be another's at the start, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(10);
/// How long a worker waits before it has the kernel send what it did not take, in milliseconds.
const LATER_MS: i32 = 1;

/// What is known of an interface.
pub struct Interface {
    pub index: u32,
    pub mac: [u8; 6],
    /// Octets of the longest packet, without the Ethernet header.
    pub mtu: usize,
    /// Queues that receive and send.
    pub queues: u32,
}

impl Interface {
    /// Ask the kernel about the interface of this name.
    pub fn find(name: &CStr) -> io::Result<Self> {
        let octets = name.to_bytes_with_nul();
        // SAFETY: all numbers and plain octets.
        let mut asked: libc::ifreq = unsafe { zeroed() };
        if octets.len() > asked.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (place, octet) in asked.ifr_name.iter_mut().zip(octets) {
            *place = *octet as libc::c_char;
        }
        // SAFETY: a system call with numbers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut ask = |request: libc::c_ulong| {
            // SAFETY: the structure is the one that these requests read and write.
            let done = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut asked) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(asked)
        };
        // SAFETY: of the union, the field that the request has filled in.
        let index = unsafe { ask(libc::SIOCGIFINDEX)?.ifr_ifru.ifru_ifindex } as u32;
        // SAFETY: as above.
        let mtu = unsafe { ask(libc::SIOCGIFMTU)?.ifr_ifru.ifru_mtu } as usize;
        // SAFETY: as above.
        let hardware = unsafe { ask(libc::SIOCGIFHWADDR)?.ifr_ifru.ifru_hwaddr };
        if hardware.sa_family != libc::ARPHRD_ETHER {
            return Err(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT));
        }
        let mut mac = [0; 6];
        for (place, octet) in mac.iter_mut().zip(hardware.sa_data) {
            *place = octet as u8;
        }
        let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
        asked.ifr_ifru.ifru_data = (&raw mut channels).cast();
        // SAFETY: the request reads and writes the structure behind the pointer, which lives.
        let done =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut asked) };
        // A driver that does not say has one.
        let queues = if done == 0 {
            (channels.combined + channels.receiving.min(channels.sending)).clamp(1, MAX_QUEUES)
        } else {
            1
        };
        Ok(Interface { index, mac, mtu, queues })
    }
}

/// The request for the queues of an interface, and its answer (linux/ethtool.h).
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    most: [u32; 4],
    receiving: u32,
    sending: u32,
    other: u32,
    combined: u32,
}

const GET_CHANNELS: u32 = 0x3C;

/// Serves one interface.
pub struct Express {
    link: Option<Link>,
    workers: Vec<Worker>,
    /// The sockets of the workers.
    sockets: Vec<OwnedFd>,
    /// How: by the driver or on what the kernel made of packets, copied or not.
    pub mode: &'static str,
}

impl Express {
    /// Begin to serve what is asked at `places` of an interface. An error says what failed.
    ///
    /// The kernel frees a queue only after who had it has ended: it may be had a moment later.
    pub fn start(
        shared: &Arc<Shared>,
        name: &CStr,
        places: &[SocketAddr],
        seed: u64,
    ) -> Result<Self, (io::Error, &'static str)> {
        let begun = Instant::now();
        loop {
            let made = Express::try_start(shared, name, places, seed);
            let busy = |(error, _): &(io::Error, _)| error.raw_os_error() == Some(libc::EBUSY);
            if begun.elapsed() > PATIENCE || !made.as_ref().is_err_and(busy) {
                return made;
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn try_start(
        shared: &Arc<Shared>,
        name: &CStr,
        places: &[SocketAddr],
        seed: u64,
    ) -> Result<Self, (io::Error, &'static str)> {
        let failed = |what| move |error| (error, what);
        let interface = Interface::find(name).map_err(failed("the interface"))?;
        if interface.mtu < MIN_MTU {
            return Err((io::Error::from_raw_os_error(libc::EMSGSIZE), "its MTU"));
        }
        let sockets = Sockets::new(interface.queues).map_err(failed("a map"))?;
        let mut ports = Vec::new();
        for queue in 0..interface.queues {
            let port = Port::open(interface.index, queue).map_err(failed("a socket"))?;
            sockets.set(queue, &port).map_err(failed("the map"))?;
            ports.push(port);
        }
        // From here on packets come; they wait for the workers.
        let link = xdp_program::attach(interface.index, interface.mac, places, &sockets)
            .map_err(failed("the program"))?;
        let mode = match (link.native, ports.iter().all(|port| port.zero_copy)) {
            (true, true) => "driver, zero copy",
            (true, false) => "driver, copied",
            (false, _) => "generic, copied",
        };
        let longest = interface.mtu.min(MAX_FRAME - ETHERNET) + ETHERNET;
        let (workers, sockets) = (Vec::new(), Vec::new());
        let mut made = Express { link: Some(link), workers, sockets, mode };
        for (port, queue) in ports.into_iter().zip(0..) {
            let seed = seed.wrapping_add(queue);
            made.sockets.push(port.socket().map_err(failed("a socket"))?);
            let shared = shared.clone();
            let work = move |stop: &AtomicBool| serve(&shared, port, longest, stop, seed);
            made.workers.push(Worker::run("dns-xdp", work).map_err(failed("a thread"))?);
        }
        Ok(made)
    }

    /// Packets that the kernel had no place for.
    pub fn lost(&self) -> u64 {
        self.sockets.iter().map(xdp_rings::lost).sum()
    }
}

impl Drop for Express {
    /// Let the kernel have what comes from now on, answer what is here already, and end.
    fn drop(&mut self) {
        self.link = None;
        self.workers.iter().for_each(Worker::end);
        self.workers.iter_mut().for_each(Worker::join);
    }
}

/// What a worker answers with.
struct Desk<'w> {
    shared: &'w Shared,
    counters: &'w Counters,
    observer: &'w Observer,
    /// Octets of the longest frame.
    longest: usize,
}

/// A batch of packets; those before `at` are done.
struct Batch {
    packets: [Packet; BATCH],
    heads: [Option<Head>; BATCH],
    at: usize,
}

/// Serve `port` until `stop` is set, and then what it has received.
fn serve(shared: &Shared, mut port: Port, longest: usize, stop: &AtomicBool, seed: u64) {
    let counters = shared.counter();
    let observer = shared.watch.observer(counters.clone());
    let desk = Desk { shared, counters: &counters, observer: &observer, longest };
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut out = vec![0; longest];
    let mut batch = Batch { packets: [Packet::default(); BATCH], heads: [None; BATCH], at: 0 };
    loop {
        let count = port.take(&mut batch.packets);
        if count == 0 {
            if stop.load(Relaxed) {
                break;
            }
            let wait_ms = if port.unsent() > 0 { LATER_MS } else { -1 };
            port.wait(wait_ms);
            port.turn();
            continue;
        }
        batch.at = 0;
        while batch.at < count {
            let all = || desk.answer(&mut port, &mut batch, count, &mut dice, &mut out);
            // A query that broke the responder has no answer; those behind it have.
            if catch_unwind(AssertUnwindSafe(all)).is_err() {
                counters.count(FAILED);
                counters.count(UDP_CELLS + SILENT);
                port.dropped(batch.packets[batch.at]);
                batch.at += 1;
            }
        }
        counters.count(BATCHES);
        counters.add(EXPRESS, count as u64);
        port.turn();
    }
}

impl Desk<'_> {
    /// Answer what of the first `count` packets of a batch is not done yet.
    #[inline(always)]
    fn answer(
        &self,
        port: &mut Port,
        batch: &mut Batch,
        count: usize,
        dice: &mut fastrand::Rng,
        out: &mut [u8],
    ) {
        let Desk { shared, counters, observer, longest } = *self;
        let table = shared.table();
        let stale = shared.stale(&table, monotonic_s());
        let answerer = Answerer { table: &table, stale, counters, observer, careful: false };
        let Batch { packets, heads, at } = batch;
        for (head, packet) in heads.iter_mut().zip(&packets[..count]).skip(*at) {
            *head = xdp_packet::read(port.octets(*packet));
        }
        let begin = *at;
        while *at < count {
            if (*at - begin) % GROUP == 0 {
                let end = (*at + GROUP).min(count);
                ask_for(&table, port, &packets[*at..end], &heads[*at..end]);
            }
            let (packet, head) = (packets[*at], &heads[*at]);
            let Some(head) = head else {
                counters.count(MALFORMED);
                port.dropped(packet);
                *at += 1;
                continue;
            };
            let query = answerer.read(&port.octets(packet)[head.at..head.at + head.len]);
            let room = &mut out[..longest - head.at];
            let size = query.map_or(0, |query| answerer.answer(&query, head.client, dice, room));
            if size == 0 {
                port.dropped(packet);
            } else {
                let frame = port.room(packet);
                frame[head.at..head.at + size].copy_from_slice(&out[..size]);
                let octets = xdp_packet::turn(frame, head, size, dice.u16(..));
                if !port.sent(packet, octets) {
                    counters.count(UNSENT);
                }
            }
            *at += 1;
        }
    }
}

/// Ask the memory for what the answers to `packets` (at most `GROUP`) will need, where that pays:
/// they are read for it alone, because an answer is written where its query lies.
#[inline(always)]
fn ask_for(table: &Table, port: &Port, packets: &[Packet], heads: &[Option<Head>]) {
    if !pays(table, packets.len()) {
        return;
    }
    let mut queries: [Option<Query<'_>>; GROUP] = [None; GROUP];
    for ((place, packet), head) in queries.iter_mut().zip(packets).zip(heads) {
        *place = head
            .as_ref()
            .and_then(|head| read_query(&port.octets(*packet)[head.at..head.at + head.len]));
    }
    let nobody = Client::V4(0);
    ask_ahead(table, &queries[..packets.len()], |at| {
        heads[at].as_ref().map_or(nobody, |head| head.client)
    });
}
