//! How soon a worker gets a processor that other threads have.
//!
//! Linux (since 6.12) lets a thread of the ordinary class ask for a slice of its own: who asks for
//! a short one is served soon after it wakes, in the middle of another's slice, and has no more of
//! the processor for it. A worker needs microseconds for what it wakes for; with the slice that
//! threads have by default it waits for those of all others (docs/benchmarks.md).

use std::mem::{size_of, zeroed};

/// The slice that a worker asks for, in nanoseconds; the least that Linux grants.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr`, its first version.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Have the calling thread served soon; class and niceness stay. A kernel that is older, or a
/// sandbox that refuses, leaves everything as it was.
pub fn serve_me_soon() {
    const SIZE: u32 = size_of::<Attributes>() as u32;
    // SAFETY: numbers alone, for which zero is a value.
    let mut mine: Attributes = unsafe { zeroed() };
    // SAFETY: 0 is the calling thread, and `mine` has the room that is announced.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut mine, SIZE, 0) };
    if read != 0 || !matches!(mine.policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH) {
        return;
    }
    (mine.size, mine.runtime) = (SIZE, SLICE_NS);
    // SAFETY: as above; the kernel reads `mine` alone.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const mine, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_class_and_its_niceness() {
        let seen = std::thread::spawn(|| {
            // SAFETY: 0 is the calling thread.
            unsafe {
                libc::setpriority(libc::PRIO_PROCESS, 0, 5);
                serve_me_soon();
                (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0))
            }
        });
        assert_eq!(seen.join().unwrap(), (libc::SCHED_OTHER, 5));
    }
}
