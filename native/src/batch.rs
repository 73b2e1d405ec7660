//! A batch of queries over UDP: read, answered, and sent, replies to one client together.

use std::io;
use std::mem::{size_of, zeroed};

use crate::ahead::{ask_ahead, GROUP};
use crate::answer::Answerer;
use crate::counters::Counters;
use crate::observe::Observer;
use crate::plan::Client;
use crate::query::Query;
use crate::server::{monotonic_s, Shared};
use crate::udp::{BATCH, BATCHES, OVERSIZE, UNSENT};
use crate::wire::{MAX_QUERY, MAX_UDP};

/// Octets from query to query in memory: not a power of two, so that they fall in different sets of
/// the cache.
const STRIDE: usize = MAX_QUERY + 1 + 127;
/// Octets of control messages: where a query came to, and behind it how long the replies are.
const CONTROL: usize = 64;

/// Octets of the order from where to send, the longest (IPv6).
const ORDER: usize = 40;
/// Octets of one run of replies: less than the longest datagram that IP carries.
const MAX_RUN: usize = 60_000;
/// After so many refusals replies go one by one for good.
const MAX_REFUSED: u32 = 8;
/// The control message that has a datagram cut into pieces (linux/udp.h).
const UDP_SEGMENT: i32 = 103;

/// Everything that one batch needs, allocated once.
pub struct Buffers {
    input: Box<[u8]>,
    output: Box<[u8]>,
    peers: Box<[libc::sockaddr_in6; BATCH]>,
    control: Box<[[u64; CONTROL / 8]; BATCH]>,
    pub received: Box<[libc::mmsghdr; BATCH]>,
    sent: Box<[libc::mmsghdr; BATCH]>,
    into: Box<[libc::iovec; BATCH]>,
    from: Box<[libc::iovec; BATCH]>,
    runs: Box<[Run; BATCH]>,
}

impl Buffers {
    /// Everything for a socket; `wildcard` where it is bound to no address of its own.
    pub fn new(wildcard: bool) -> Self {
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
                runs: Box::new([Run::default(); BATCH]),
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
    pub fn rearm(&mut self, count: usize, wildcard: bool) {
        for one in &mut self.received[..count] {
            one.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            if wildcard {
                one.msg_hdr.msg_controllen = CONTROL;
            }
        }
    }
}

/// How a batch is answered.
pub struct Batch<'w> {
    pub shared: &'w Shared,
    pub counters: &'w Counters,
    pub observer: &'w Observer,
    pub wildcard: bool,
    /// Whether replies to one client go together.
    pub segments: bool,
    /// Whether a query that breaks the responder is caught by itself.
    pub careful: bool,
}

impl Batch<'_> {
    /// Answer the first `count` queries; gives the number of runs of replies.
    #[inline(always)]
    pub fn answer(&self, buffers: &mut Buffers, count: usize, dice: &mut fastrand::Rng) -> usize {
        let Batch { shared, counters, observer, careful, .. } = *self;
        let table = shared.table();
        let stale = shared.stale(&table, monotonic_s());
        let answerer = Answerer { table: &table, stale, counters, observer, careful };
        let Buffers { input, output, peers, control, received, runs, .. } = buffers;
        let (mut replies, mut begin) = (0, 0);
        let mut queries: [Option<Query<'_>>; GROUP] = [None; GROUP];
        for at in 0..count {
            if at % GROUP == 0 {
                let many = (count - at).min(GROUP);
                for (which, place) in queries[..many].iter_mut().enumerate() {
                    *place =
                        read(&answerer, &input[(at + which) * STRIDE..], &received[at + which]);
                }
                if !careful {
                    ask_ahead(&table, &queries[..many], |which| client_of(&peers[at + which]));
                }
            }
            let Some(query) = &queries[at % GROUP] else { continue };
            let size = answerer.answer(query, client_of(&peers[at]), dice, &mut output[begin..]);
            if size == 0 {
                continue;
            }
            begin += size;
            let there = if self.wildcard {
                from_there(&mut control[at], received[at].msg_hdr.msg_controllen)
            } else {
                0
            };
            let size = size as u16;
            if replies > 0 && self.segments {
                let run = &mut runs[replies - 1];
                let first = usize::from(run.query);
                let same = same_peer(&peers[first], &peers[at])
                    && run.there == there
                    && control[first][..there / 8] == control[at][..there / 8];
                if same && run.takes(size) {
                    continue;
                }
            }
            runs[replies] = Run::new(at, size, there);
            replies += 1;
        }
        counters.count(BATCHES);
        replies
    }
}

/// The query at the front of `input`; None, and counted, where silence is the answer.
#[inline(always)]
fn read<'b>(
    answerer: &Answerer<'_>,
    input: &'b [u8],
    received: &libc::mmsghdr,
) -> Option<Query<'b>> {
    let size = received.msg_len as usize;
    if size > MAX_QUERY {
        answerer.counters.count(OVERSIZE);
        return None;
    }
    answerer.read(&input[..size])
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

/// Make of "it came to this address" the order "send it from there" (ip(7), RFC 3542); gives its
/// octets with what pads them.
#[inline(always)]
fn from_there(control: &mut [u64; CONTROL / 8], size: usize) -> usize {
    // One message is asked for: length u64, level i32, kind i32, data.
    if size < 16 + 12 {
        return 0;
    }
    let level = control[1] as u32 as i32;
    if level == libc::IPPROTO_IP {
        // interface u32, local address, destination: send from the local address by any interface
        control[2] &= 0xFFFF_FFFF_0000_0000;
        control[3] = 0;
    } else {
        // address, interface u32: the interface counts for link-local addresses alone
        let first = control[2].to_le_bytes();
        let link_local = first[0] == 0xFE && first[1] & 0xC0 == 0x80;
        control[4] &= if link_local { 0xFFFF_FFFF } else { 0 };
    }
    (control[0] as usize).div_ceil(8).min(ORDER / 8) * 8
}

/// Whether two queries came from the same socket.
#[inline(always)]
fn same_peer(one: &libc::sockaddr_in6, other: &libc::sockaddr_in6) -> bool {
    one.sin6_port == other.sin6_port
        && one.sin6_flowinfo == other.sin6_flowinfo
        && one.sin6_family == other.sin6_family
        && (i32::from(one.sin6_family) == libc::AF_INET
            || (one.sin6_addr.s6_addr == other.sin6_addr.s6_addr
                && one.sin6_scope_id == other.sin6_scope_id))
}

/// Replies behind each other to one client, which the kernel takes at once and sends one by one
/// (UDP_SEGMENT, udp(7)): all of `size` octets, but the last, which may have fewer.
#[derive(Clone, Copy, Default)]
struct Run {
    query: u16,
    size: u16,
    last: u16,
    count: u16,
    octets: usize,
    /// Octets of the order from where to send.
    there: usize,
}

impl Run {
    #[inline(always)]
    fn new(query: usize, size: u16, there: usize) -> Self {
        let octets = usize::from(size);
        Run { query: query as u16, size, last: size, count: 1, octets, there }
    }

    /// Whether one more reply of `size` octets goes into the run; then it is in it.
    #[inline(always)]
    fn takes(&mut self, size: u16) -> bool {
        let octets = self.octets + usize::from(size);
        if self.last != self.size || size > self.size || octets > MAX_RUN {
            return false;
        }
        (self.last, self.octets, self.count) = (size, octets, self.count + 1);
        true
    }
}

/// Sends replies; knows whether the kernel takes several at once.
pub struct Sender {
    fd: i32,
    /// How often it refused to.
    refused: u32,
}

impl Sender {
    /// For a socket.
    pub fn new(fd: i32) -> Self {
        Sender { fd, refused: 0 }
    }

    /// Whether replies to one client shall go together.
    #[inline(always)]
    pub fn segments(&self) -> bool {
        self.refused < MAX_REFUSED
    }

    /// Send the first `count` runs; what the kernel does not take is counted, and forgotten.
    #[inline(always)]
    pub fn send(&mut self, buffers: &mut Buffers, count: usize, counters: &Counters) {
        let Buffers { output, peers, control, received, sent, from, runs, .. } = buffers;
        let mut place = output.as_mut_ptr();
        for (at, run) in runs[..count].iter().enumerate() {
            let query = usize::from(run.query);
            from[at] = libc::iovec { iov_base: place.cast(), iov_len: run.octets };
            place = place.wrapping_add(run.octets);
            let to = &mut sent[at].msg_hdr;
            to.msg_name = (&raw mut peers[query]).cast();
            to.msg_namelen = received[query].msg_hdr.msg_namelen;
            to.msg_controllen = run.there;
            if run.count > 1 {
                // length, level and kind, data
                let order = &mut control[query][run.there / 8..];
                let kind = (UDP_SEGMENT as u64) << 32 | libc::IPPROTO_UDP as u64;
                order[..3].copy_from_slice(&[16 + 2, kind, u64::from(run.size)]);
                to.msg_controllen += 24;
            }
            to.msg_control = control[query].as_mut_ptr().cast();
        }
        let mut begin = 0;
        while begin < count {
            // SAFETY: every header points into `buffers`, which nobody else touches, with its size.
            let done = unsafe {
                libc::sendmmsg(
                    self.fd,
                    sent[begin..].as_mut_ptr(),
                    (count - begin) as _,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if done > 0 {
                begin += done as usize;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EAGAIN) => counters.add(UNSENT, u64::from(runs[begin].count)),
                _ if runs[begin].count > 1 => {
                    self.refused += 1;
                    self.singly(&mut sent[begin].msg_hdr, &runs[begin], counters);
                }
                _ => counters.count(UNSENT),
            }
            begin += 1;
        }
    }

    /// Send the replies of a run one by one: together they were refused.
    #[cold]
    fn singly(&self, to: &mut libc::msghdr, run: &Run, counters: &Counters) {
        // SAFETY: the header has one piece of the output, as `send` made it.
        let whole = unsafe { *to.msg_iov };
        let usual = to.msg_iov;
        to.msg_controllen = run.there;
        let mut at = 0;
        while at < whole.iov_len {
            let size = usize::from(run.size).min(whole.iov_len - at);
            let piece = whole.iov_base.cast::<u8>().wrapping_add(at).cast();
            let mut one = libc::iovec { iov_base: piece, iov_len: size };
            to.msg_iov = &mut one;
            // SAFETY: the piece lies inside the output, and all of it lives through the call.
            if unsafe { libc::sendmsg(self.fd, to, libc::MSG_DONTWAIT) } < 0 {
                counters.count(UNSENT);
            }
            at += size;
        }
        to.msg_iov = usual;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_run_takes_replies_of_one_size_and_a_shorter_one_at_its_end() {
        let mut run = Run::new(0, 100, 0);
        assert!(run.takes(100) && run.takes(60));
        assert!(!run.takes(60) && !run.takes(100), "the last is shorter already");
        assert_eq!((run.count, run.octets), (3, 260));
        let mut run = Run::new(0, 100, 0);
        assert!(!run.takes(101), "a longer one");
        let mut run = Run::new(0, 4096, 0);
        while run.takes(4096) {}
        assert!(run.octets <= MAX_RUN);
    }

    #[test]
    fn replies_arrive_together_and_one_by_one_alike() {
        let (ours, theirs) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        theirs.connect(ours.local_addr().unwrap()).unwrap();
        ours.connect(theirs.local_addr().unwrap()).unwrap();
        let mut buffers = Buffers::new(false);
        buffers.output[..25].copy_from_slice(b"aaaaaaaaaabbbbbbbbbbccccc");
        let mut run = Run::new(0, 10, 0);
        assert!(run.takes(10) && run.takes(5));
        buffers.runs[0] = run;
        buffers.received[0].msg_hdr.msg_namelen = 0; // connected
        let counters = Counters::new(64);
        let mut sender = Sender::new(ours.as_raw_fd());
        for round in 0..2 {
            if round == 0 {
                sender.send(&mut buffers, 1, &counters);
            } else {
                sender.singly(&mut buffers.sent[0].msg_hdr, &run, &counters);
            }
            for expected in ["aaaaaaaaaa", "bbbbbbbbbb", "ccccc"] {
                let mut got = [0; 100];
                let size = theirs.recv(&mut got).unwrap();
                assert_eq!(&got[..size], expected.as_bytes(), "round {round}");
            }
        }
        let mut sums = [0; 64];
        counters.sum_into(&mut sums);
        assert_eq!(sums[UNSENT as usize], 0);
    }
}
