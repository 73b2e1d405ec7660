//! One AF_XDP socket: its frames, and the four rings that it shares with the kernel.
//!
//! A frame is in one place at any time: free, offered to the kernel, received, or on its way out.
//! Source: Documentation/networking/af_xdp.rst, linux/if_xdp.h.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Octets of a frame, those that the kernel keeps in front of the packet (256) included.
const FRAME: usize = 2048;
/// Entries of each ring.
const ENTRIES: u32 = 2048;
/// Frames of a socket: those on their way out leave as many to be received into as a ring holds.
const FRAMES: u32 = 2 * ENTRIES;
/// Packets that one call has the kernel send where it copies them, if it can be told.
const BUDGET: i32 = 64;
/// The option by which it is told (linux/if_xdp.h, since 6.17).
const MAX_TX_SKB_BUDGET: i32 = 9;
/// Calls to send a batch before what is left waits for the next one.
const KICKS: usize = 8;

/// Memory that the kernel shares with us.
struct Mapping {
    begin: NonNull<u8>,
    octets: usize,
}

// SAFETY: the memory belongs to whoever has the mapping; nothing in it is bound to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Map `octets` of `fd` from `offset` on; without a descriptor fresh memory.
    fn new(octets: usize, fd: Option<RawFd>, offset: i64) -> io::Result<Self> {
        let flags = match fd {
            Some(_) => libc::MAP_SHARED | libc::MAP_POPULATE,
            None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
        };
        // SAFETY: new memory at a place that the kernel chooses; nobody has a pointer into it.
        let begin = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                octets,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd.unwrap_or(-1),
                offset,
            )
        };
        match NonNull::new(begin) {
            Some(place) if begin != libc::MAP_FAILED => Ok(Mapping { begin: place.cast(), octets }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and whoever looks into it holds it.
        unsafe { libc::munmap(self.begin.as_ptr().cast(), self.octets) };
    }
}

/// A ring of entries `T` between us and the kernel. Each side writes one of two counters, which
/// only grow: `producer` whoever fills it, `consumer` whoever empties it.
struct Ring<T> {
    /// Held: the pointers go there.
    _memory: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    /// Our own counter, and how far we know that the kernel's goes.
    own: u32,
    other: u32,
}

// SAFETY: it points into its own memory alone, which moves with it.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// The ring of `fd` that is made by `option` and lies at `page`.
    fn new(
        fd: RawFd,
        option: i32,
        page: u64,
        offsets: impl Fn(&libc::xdp_mmap_offsets) -> libc::xdp_ring_offset,
    ) -> io::Result<Self> {
        set(fd, option, &ENTRIES)?;
        let known = get(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        let at = offsets(&known);
        let octets = at.desc as usize + ENTRIES as usize * size_of::<T>();
        let memory = Mapping::new(octets, Some(fd), page as i64)?;
        // SAFETY: the kernel says where these lie in what it has just mapped, aligned for them.
        let (producer, consumer, flags, entries) = unsafe {
            (
                memory.begin.add(at.producer as usize).cast(),
                memory.begin.add(at.consumer as usize).cast(),
                memory.begin.add(at.flags as usize).cast(),
                memory.begin.add(at.desc as usize).cast(),
            )
        };
        Ok(Ring { _memory: memory, producer, consumer, flags, entries, own: 0, other: 0 })
    }

    /// Where entry number `at` lies.
    fn entry(&self, at: u32) -> NonNull<T> {
        // SAFETY: the ring has so many entries, a power of two.
        unsafe { self.entries.add((at & (ENTRIES - 1)) as usize) }
    }

    /// How many entries there are for us to take out, at most `most`.
    #[inline(always)]
    fn waiting(&mut self, most: u32) -> u32 {
        if self.other == self.own {
            // SAFETY: it lies in our memory.
            self.other = unsafe { self.producer.as_ref() }.load(Ordering::Acquire);
        }
        self.other.wrapping_sub(self.own).min(most)
    }

    /// Take one out; only as many as are `waiting`. Ours when `took` has told the kernel.
    #[inline(always)]
    fn take(&mut self) -> T {
        // SAFETY: the kernel has written it before it let its counter go past it.
        let taken = unsafe { self.entry(self.own).read() };
        self.own = self.own.wrapping_add(1);
        taken
    }

    /// Give the places of all that was taken back.
    #[inline(always)]
    fn took(&self) {
        // SAFETY: it lies in our memory.
        unsafe { self.consumer.as_ref() }.store(self.own, Ordering::Release);
    }

    /// How many entries we may put in.
    #[inline(always)]
    fn room(&mut self) -> u32 {
        // SAFETY: it lies in our memory.
        self.other = unsafe { self.consumer.as_ref() }.load(Ordering::Acquire);
        ENTRIES - self.own.wrapping_sub(self.other)
    }

    /// Put one in; only as many as there is `room` for. The kernel's when it was `told`.
    #[inline(always)]
    fn put(&mut self, entry: T) {
        // SAFETY: the kernel does not look at a place that its counter has gone past.
        unsafe { self.entry(self.own).write(entry) };
        self.own = self.own.wrapping_add(1);
    }

    /// Let the kernel see all that was put in.
    #[inline(always)]
    fn tell(&self) {
        // SAFETY: it lies in our memory.
        unsafe { self.producer.as_ref() }.store(self.own, Ordering::Release);
    }

    /// Whether the kernel looks at it only when called.
    #[inline(always)]
    fn sleeps(&self) -> bool {
        // SAFETY: it lies in our memory.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A socket on one queue of an interface.
pub struct Port {
    // The socket goes first, so that the kernel lets go of what is unmapped after it.
    socket: OwnedFd,
    receive: Ring<libc::xdp_desc>,
    send: Ring<libc::xdp_desc>,
    fill: Ring<u64>,
    done: Ring<u64>,
    memory: Mapping,
    free: Vec<u64>,
    /// Frames on their way out.
    leaving: u32,
    /// Whether the driver reads and writes the frames itself.
    pub zero_copy: bool,
}

/// One received packet, which is ours until it is `sent` or `dropped`.
#[derive(Clone, Copy, Default)]
pub struct Packet {
    begin: u64,
    len: u32,
}

impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Port {
    /// Open a socket on `queue` of the interface of `index`.
    pub fn open(index: u32, queue: u32) -> io::Result<Self> {
        // SAFETY: a system call with numbers.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let memory = Mapping::new(FRAMES as usize * FRAME, None, 0)?;
        // SAFETY: all numbers, zero where nothing else is wanted.
        let mut wanted: libc::xdp_umem_reg = unsafe { zeroed() };
        wanted.addr = memory.begin.as_ptr() as u64;
        wanted.len = memory.octets as u64;
        wanted.chunk_size = FRAME as u32;
        set(fd, libc::XDP_UMEM_REG, &wanted)?;
        let fill_page = libc::XDP_UMEM_PGOFF_FILL_RING;
        let done_page = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
        let fill = Ring::new(fd, libc::XDP_UMEM_FILL_RING, fill_page, |all| all.fr)?;
        let done = Ring::new(fd, libc::XDP_UMEM_COMPLETION_RING, done_page, |all| all.cr)?;
        let receive =
            Ring::new(fd, libc::XDP_RX_RING, libc::XDP_PGOFF_RX_RING as u64, |all| all.rx)?;
        let send = Ring::new(fd, libc::XDP_TX_RING, libc::XDP_PGOFF_TX_RING as u64, |all| all.tx)?;
        let _ = set(fd, MAX_TX_SKB_BUDGET, &BUDGET); // a kernel that cannot is called more often
        let mut address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let size = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: the address has the size that is said, and lives through the call.
        if unsafe { libc::bind(fd, (&raw mut address).cast(), size) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let free = (0..u64::from(FRAMES)).rev().map(|at| at * FRAME as u64).collect();
        let options: u32 = get(fd, libc::SOL_XDP, libc::XDP_OPTIONS).unwrap_or(0);
        let zero_copy = options & libc::XDP_OPTIONS_ZEROCOPY != 0;
        let mut made =
            Port { socket, receive, send, fill, done, memory, free, leaving: 0, zero_copy };
        made.offer();
        Ok(made)
    }

    /// The socket once more, to be asked about it.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Take what was received, as many as there are places for; gives how many.
    #[inline(always)]
    pub fn take(&mut self, packets: &mut [Packet]) -> usize {
        let count = self.receive.waiting(packets.len() as u32) as usize;
        for packet in &mut packets[..count] {
            let entry = self.receive.take();
            *packet = Packet { begin: entry.addr, len: entry.len };
        }
        if count > 0 {
            self.receive.took();
        }
        count
    }

    /// The octets of a packet.
    #[inline(always)]
    pub fn octets(&self, packet: Packet) -> &[u8] {
        let place = self.place(packet);
        // SAFETY: the kernel wrote a packet of this length there, inside one frame, which is ours.
        unsafe { std::slice::from_raw_parts(place.as_ptr(), packet.len as usize) }
    }

    /// The octets from the begin of a packet to the end of its frame.
    #[inline(always)]
    pub fn room(&mut self, packet: Packet) -> &mut [u8] {
        let room = FRAME - packet.begin as usize % FRAME;
        // SAFETY: the rest of a frame, which is ours; what was never received is zero.
        unsafe { std::slice::from_raw_parts_mut(self.place(packet).as_ptr(), room) }
    }

    fn place(&self, packet: Packet) -> NonNull<u8> {
        debug_assert!((packet.begin as usize) < self.memory.octets);
        // SAFETY: the kernel gives places in frames that we offered.
        unsafe { self.memory.begin.add(packet.begin as usize) }
    }

    /// Have `octets` sent from where a packet was; false where too much is on its way already.
    #[inline(always)]
    pub fn sent(&mut self, packet: Packet, octets: usize) -> bool {
        if self.leaving >= ENTRIES {
            self.dropped(packet);
            return false;
        }
        self.leaving += 1;
        self.send.put(libc::xdp_desc { addr: packet.begin, len: octets as u32, options: 0 });
        true
    }

    /// Have the frame of a packet used anew.
    #[inline(always)]
    pub fn dropped(&mut self, packet: Packet) {
        self.free.push(frame_of(packet.begin));
    }

    /// Have the kernel send what was put, take back what it has sent, offer it what is free.
    #[inline(always)]
    pub fn turn(&mut self) {
        self.send.tell();
        for _ in 0..KICKS {
            if self.unsent() == 0 || !self.send.sleeps() || !self.kick() {
                break;
            }
        }
        let back = self.done.waiting(ENTRIES);
        for _ in 0..back {
            let begin = self.done.take();
            self.free.push(frame_of(begin));
        }
        if back > 0 {
            self.leaving -= back;
            self.done.took();
        }
        self.offer();
    }

    /// Call the kernel to send; whether it wants to be called again for the rest.
    fn kick(&self) -> bool {
        let (fd, none) = (self.as_raw_fd(), std::ptr::null());
        // SAFETY: nothing is sent but what lies in the ring.
        let done = unsafe { libc::sendto(fd, none, 0, libc::MSG_DONTWAIT, none.cast(), 0) };
        done < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
    }

    /// Packets that the kernel has not taken yet.
    #[inline(always)]
    pub fn unsent(&mut self) -> u32 {
        ENTRIES - self.send.room()
    }

    /// Offer what is free to be received into.
    #[inline(always)]
    fn offer(&mut self) {
        let room = self.fill.room() as usize;
        let from = self.free.len().saturating_sub(room);
        for begin in self.free.drain(from..) {
            self.fill.put(begin);
        }
        self.fill.tell();
    }

    /// Block until something is received, or for `wait_ms`; without end where that is negative.
    pub fn wait(&self, wait_ms: i32) {
        let mut one = libc::pollfd { fd: self.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives through the call.
        unsafe { libc::poll(&mut one, 1, wait_ms) };
        if one.revents & libc::POLLERR != 0 {
            // The interface is gone, and this socket silent from now on. It would not block before
            // the error is read.
            let _: io::Result<i32> = get(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR);
        }
    }
}

/// Packets that the kernel could not give to a socket: no frame was free, or the ring was full. What
/// a driver that writes frames itself drops is in its own statistics.
pub fn lost(fd: &impl AsRawFd) -> u64 {
    let known = get(fd.as_raw_fd(), libc::SOL_XDP, libc::XDP_STATISTICS);
    known.map_or(0, |all: libc::xdp_statistics| all.rx_dropped + all.rx_ring_full)
}

fn frame_of(begin: u64) -> u64 {
    begin / FRAME as u64 * FRAME as u64
}

fn set<T>(fd: RawFd, option: i32, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value has the size that is said, and lives through the call.
    let done =
        unsafe { libc::setsockopt(fd, libc::SOL_XDP, option, (&raw const *value).cast(), size) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// An option of a socket, of a type that is all numbers.
fn get<T: Copy>(fd: RawFd, level: i32, option: i32) -> io::Result<T> {
    // SAFETY: zero is a valid value of what is all numbers.
    let mut value: T = unsafe { zeroed() };
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value has the size that is said, and lives through the call.
    let done = unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &mut size) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}
