//! The program that picks DNS queries out of what an interface receives, and bpf(2) around it.
//!
//! It passes everything on to the kernel but UDP to one of the given addresses and ports, over IPv4
//! without options or fragments or IPv6 without extension headers, sent to the interface's own MAC
//! address. That goes to the socket of its queue, where there is one.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Octets of the longest frame that is taken; longer ones go to the kernel.
pub const MAX_FRAME: usize = 1514;

// linux/bpf.h
const MAP_CREATE: i32 = 0;
const MAP_UPDATE: i32 = 2;
const PROGRAM_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const XSKMAP: u32 = 17;
const PROGRAM_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const XDP_PASS: i32 = 2;
const REDIRECT_MAP: i32 = 51;
const PSEUDO_MAP_FD: u8 = 1;
/// Who runs it (linux/if_link.h): the driver, or else the kernel, on what it has made of a packet.
const DRIVER: u32 = 1 << 2;
const GENERIC: u32 = 1 << 1;

/// One instruction; where a jump goes is a label until all are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    number: i32,
    label: Option<Label>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Pass,
    Take,
    Six,
}

const DATA: u8 = 2;
const END: u8 = 3;
const AT: u8 = 4;
const ONE: u8 = 5;

/// The instructions of a program, in order.
#[derive(Default)]
struct Program {
    steps: Vec<Step>,
    labels: Vec<(Label, usize)>,
}

impl Program {
    fn step(&mut self, code: u8, to: u8, from: u8, offset: i16, number: i32) {
        self.steps.push(Step { code, to, from, offset, number, label: None });
    }

    fn jump(&mut self, code: u8, to: u8, from: u8, number: i32, label: Label) {
        self.steps.push(Step { code, to, from, offset: 0, number, label: Some(label) });
    }

    fn here(&mut self, label: Label) {
        self.labels.push((label, self.steps.len()));
    }

    /// `to` = so many octets (1, 2 or 4) at `offset` of the packet.
    fn load(&mut self, to: u8, octets: usize, offset: usize) {
        let size = match octets {
            1 => 0x10,
            2 => 0x08,
            _ => 0x00,
        };
        self.step(0x61 | size, to, DATA, offset as i16, 0);
    }

    /// Leave unless the packet has `octets`.
    fn want(&mut self, octets: usize) {
        self.step(0xBF, AT, DATA, 0, 0);
        self.step(0x07, AT, 0, 0, octets as i32);
        self.jump(0x2D, AT, END, 0, Label::Pass);
    }

    /// Leave unless `octets` of the packet at `offset` are these.
    fn expect(&mut self, offset: usize, octets: &[u8]) {
        self.load(ONE, octets.len(), offset);
        self.jump(0x56, ONE, 0, word(octets), Label::Pass);
    }

    /// The octets of the program, each jump with its distance.
    fn octets(&self) -> Vec<u8> {
        let mut made = Vec::new();
        for (at, step) in self.steps.iter().enumerate() {
            let target = step.label.and_then(|label| self.labels.iter().find(|one| one.0 == label));
            let offset = target.map_or(step.offset, |&(_, to)| (to - at - 1) as i16);
            let (low, high) = if cfg!(target_endian = "little") {
                (step.to, step.from)
            } else {
                (step.from, step.to)
            };
            made.extend([step.code, high << 4 | low]);
            made.extend(offset.to_ne_bytes());
            made.extend(step.number.to_ne_bytes());
        }
        made
    }
}

/// Up to four octets as a load from memory gives them.
fn word(octets: &[u8]) -> i32 {
    match *octets {
        [one] => i32::from(one),
        [one, two] => i32::from(u16::from_ne_bytes([one, two])),
        [one, two, three, four] => i32::from_ne_bytes([one, two, three, four]),
        _ => unreachable!("1, 2 or 4 octets"),
    }
}

/// The program for an interface with `mac`, the octets of its instructions.
fn program(mac: [u8; 6], places: &[SocketAddr], map: i32) -> Vec<u8> {
    let mut made = Program::default();
    made.step(0x61, DATA, 1, 0, 0);
    made.step(0x61, END, 1, 4, 0);
    made.want(14 + 20 + 8);
    made.step(0xBF, AT, DATA, 0, 0);
    made.step(0x07, AT, 0, 0, MAX_FRAME as i32);
    made.jump(0x2D, END, AT, 0, Label::Pass);
    made.expect(0, &mac[..4]);
    made.expect(4, &mac[4..]);
    made.load(ONE, 2, 12);
    made.jump(0x16, ONE, 0, word(&[0x86, 0xDD]), Label::Six);
    made.jump(0x56, ONE, 0, word(&[0x08, 0x00]), Label::Pass);
    made.expect(14, &[0x45]);
    made.load(ONE, 2, 20);
    made.step(0x57, ONE, 0, 0, word(&[0x3F, 0xFF])); // more fragments, and which one
    made.jump(0x56, ONE, 0, 0, Label::Pass);
    made.expect(23, &[17]);
    made.load(AT, 2, 36);
    made.load(ONE, 4, 30);
    for place in places {
        if let IpAddr::V4(address) = place.ip() {
            made.step(0x56, ONE, 0, 1, word(&address.octets()));
            made.jump(0x16, AT, 0, word(&place.port().to_be_bytes()), Label::Take);
        }
    }
    made.jump(0x05, 0, 0, 0, Label::Pass);
    made.here(Label::Six);
    made.want(14 + 40 + 8);
    made.load(ONE, 1, 14);
    made.step(0x57, ONE, 0, 0, 0xF0);
    made.jump(0x56, ONE, 0, 0x60, Label::Pass);
    made.expect(20, &[17]);
    made.load(AT, 2, 56);
    for (register, offset) in (5..9).zip([38, 42, 46, 50]) {
        made.load(register, 4, offset);
    }
    for place in places {
        if let IpAddr::V6(address) = place.ip() {
            for (at, four) in address.octets().chunks_exact(4).enumerate() {
                // to behind the last of the four and what follows it
                made.step(0x56, 5 + at as u8, 0, 4 - at as i16, word(four));
            }
            made.jump(0x16, AT, 0, word(&place.port().to_be_bytes()), Label::Take);
        }
    }
    made.here(Label::Pass);
    made.step(0xB7, 0, 0, 0, XDP_PASS);
    made.step(0x95, 0, 0, 0, 0);
    made.here(Label::Take);
    made.step(0x61, 2, 1, 16, 0); // the queue
    made.step(0x18, 1, PSEUDO_MAP_FD, 0, map);
    made.step(0, 0, 0, 0, 0);
    made.step(0xB7, 3, 0, 0, XDP_PASS); // where no socket is
    made.step(0x85, 0, 0, 0, REDIRECT_MAP);
    made.step(0x95, 0, 0, 0, 0);
    made.octets()
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_octets: u32,
    value_octets: u32,
    entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_octets: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach: u32,
    flags: u32,
}

/// bpf(2) with an attribute that is one of the structures above.
fn bpf<A>(command: i32, attribute: &A) -> io::Result<i32> {
    // SAFETY: the attribute has the size that is said, and what it points to lives through the
    // call; the kernel takes what lies behind as zero.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command, &raw const *attribute, size_of::<A>() as u32)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done as i32)
}

/// bpf(2) where it makes a descriptor.
fn made<A>(command: i32, attribute: &A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attribute)?;
    // SAFETY: the descriptor was just made, and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sockets by the queue of an interface (XSKMAP).
pub struct Sockets(OwnedFd);

impl Sockets {
    /// Places for so many queues.
    pub fn new(queues: u32) -> io::Result<Self> {
        let wanted = MapCreate { kind: XSKMAP, key_octets: 4, value_octets: 4, entries: queues };
        Ok(Sockets(made(MAP_CREATE, &wanted)?))
    }

    /// Have `socket` get what comes on `queue`.
    pub fn set(&self, queue: u32, socket: &impl AsRawFd) -> io::Result<()> {
        let (map, value) = (self.0.as_raw_fd() as u32, socket.as_raw_fd());
        let (key, value) = (&raw const queue as u64, &raw const value as u64);
        bpf(MAP_UPDATE, &MapUpdate { map, pad: 0, key, value, flags: 0 }).map(drop)
    }
}

/// What has the kernel run the program: it ends with this, however the process ends.
pub struct Link {
    /// Held: what ends with the last descriptor.
    _link: OwnedFd,
    /// Whether the driver runs it itself.
    pub native: bool,
}

/// Load the program for the interface of `index` and `mac`, and have it run there.
pub fn attach(
    index: u32,
    mac: [u8; 6],
    places: &[SocketAddr],
    sockets: &Sockets,
) -> io::Result<Link> {
    let instructions = program(mac, places, sockets.0.as_raw_fd());
    let mut wanted = ProgramLoad {
        kind: PROGRAM_XDP,
        count: (instructions.len() / 8) as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        attach: ATTACH_XDP,
        ..ProgramLoad::default()
    };
    wanted.name[..10].copy_from_slice(b"gtm_expres");
    let loaded = made(PROGRAM_LOAD, &wanted)?;
    let link = |flags| {
        let program = loaded.as_raw_fd() as u32;
        made(LINK_CREATE, &LinkCreate { program, interface: index, attach: ATTACH_XDP, flags })
    };
    match link(DRIVER) {
        Ok(link) => Ok(Link { _link: link, native: true }),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(error),
        Err(_) => Ok(Link { _link: link(GENERIC)?, native: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_ends_within_the_program_and_it_grows_by_its_addresses() {
        let one: Vec<SocketAddr> = vec!["192.0.2.1:53".parse().unwrap()];
        let many: Vec<SocketAddr> = (0..64)
            .map(|at| format!("[2001:db8::{at:x}]:{}", 5300 + at).parse().unwrap())
            .chain(one.clone())
            .collect();
        let (short, long) = (program([2; 6], &one, 7), program([2; 6], &many, 7));
        assert_eq!(long.len() - short.len(), 64 * 5 * 8);
        for octets in [short, long] {
            let count = octets.len() / 8;
            for (at, step) in octets.chunks_exact(8).enumerate() {
                let jumps = matches!(step[0] & 7, 5 | 6) && !matches!(step[0], 0x85 | 0x95);
                let offset = i16::from_ne_bytes([step[2], step[3]]);
                if jumps {
                    assert!(offset >= 0 && at + 1 + (offset as usize) < count, "step {at}");
                }
            }
        }
    }
}
