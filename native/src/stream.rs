//! One TCP connection: what came in part, what waits to leave, and its turns.
//!
//! Decides when a client is read from and when its connection is over. Idle, it holds no buffer.

use std::io::{self, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;

use crate::frames::{front, turn, Front, Then, MAX_INPUT, MAX_OUTPUT, MAX_READ, ROOM};
use crate::plan::Client;

/// What all connections of a worker read into and write their answers to, one at a time.
pub struct Bench {
    input: Box<[u8]>,
    output: Box<[u8]>,
}

impl Default for Bench {
    fn default() -> Self {
        Bench {
            input: vec![0; MAX_INPUT].into_boxed_slice(),
            output: vec![0; ROOM].into_boxed_slice(),
        }
    }
}

/// What a connection does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits for its client.
    Wait,
    /// It has more to do, after everybody else had a turn.
    Again,
    /// It is over.
    Over,
}

/// Whether a connection is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// Once more, and no further.
    Last,
    Done,
}

/// One connection.
pub struct Stream {
    pub socket: TcpStream,
    pub client: Client,
    /// Whether it stands in the queue for a turn.
    pub queued: bool,
    /// The beginning of a query, or whole ones that were not answered yet.
    input: Vec<u8>,
    /// Answers that the kernel did not take yet.
    output: Vec<u8>,
    reading: Reading,
    /// Whether there may be something to read.
    readable: bool,
    /// Whether the client has ended its side, behind what may still be there to read.
    ended: bool,
    /// Whether the kernel takes nothing at present.
    blocked: bool,
}

impl Stream {
    /// A new connection, of which nothing is known to be there.
    pub fn new(socket: TcpStream, client: Client) -> Self {
        Stream {
            socket,
            client,
            queued: false,
            input: Vec::new(),
            output: Vec::new(),
            reading: Reading::Open,
            readable: false,
            ended: false,
            blocked: false,
        }
    }

    /// Note what the kernel said of it.
    pub fn wake(&mut self, event: &Event) {
        self.ended |= event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || self.ended;
        self.blocked &= !(event.is_writable() || event.is_error() || event.is_write_closed());
    }

    /// Have it end once what is there is read, answered and sent.
    pub fn finish(&mut self) {
        if self.reading == Reading::Open {
            self.reading = Reading::Last;
        }
    }

    /// Octets of memory that it holds besides itself.
    pub fn held(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    /// Read once, answer some, send what the kernel takes; gives what is next, and the queries.
    pub fn turn(
        &mut self,
        bench: &mut Bench,
        answer: impl FnMut(&[u8], &mut [u8]) -> Option<usize>,
    ) -> (Next, usize) {
        self.turned(bench, answer).unwrap_or((Next::Over, 0))
    }

    /// As `turn`; an error is the end of the connection.
    fn turned(
        &mut self,
        bench: &mut Bench,
        answer: impl FnMut(&[u8], &mut [u8]) -> Option<usize>,
    ) -> io::Result<(Next, usize)> {
        self.flush()?;
        let room = MAX_OUTPUT.saturating_sub(self.output.len());
        if room == 0 {
            return Ok((Next::Wait, 0));
        }
        let end = self.read(&mut bench.input)?;
        let done = turn(&bench.input[..end], room, &mut bench.output, answer);
        self.send(&bench.output[..done.written])?;
        keep(&mut self.input, &bench.input[done.taken..end]);
        Ok((self.next(done.then), done.queries))
    }

    fn next(&self, then: Then) -> Next {
        let full = self.output.len() >= MAX_OUTPUT;
        match then {
            Then::Bad => Next::Over,
            _ if full => Next::Wait,
            Then::More => Next::Again,
            Then::Part if self.reading == Reading::Done && self.output.is_empty() => Next::Over,
            Then::Part if self.reading == Reading::Done => Next::Wait,
            Then::Part if self.readable || self.reading == Reading::Last => Next::Again,
            Then::Part => Next::Wait,
        }
    }

    /// Put what is held of the input into `buffer`, and read on behind it; gives the end of both.
    ///
    /// Whole queries that wait are answered before anything further is read.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let held = self.input.len();
        buffer[..held].copy_from_slice(&self.input);
        let wanted = self.readable || self.reading == Reading::Last;
        if !wanted || self.reading == Reading::Done || front(&self.input) != Front::Part {
            return Ok(held);
        }
        let count = loop {
            match self.socket.read(&mut buffer[held..held + MAX_READ]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break None,
                other => break Some(other?),
            }
        };
        // Where the kernel has no more for now, it will say so when it has; an end it says once.
        self.readable = count.is_some_and(|count| count == MAX_READ || self.ended);
        if count == Some(0) || self.reading == Reading::Last {
            self.reading = Reading::Done;
        }
        Ok(held + count.unwrap_or(0))
    }

    /// Send `answers` behind what waits already.
    fn send(&mut self, answers: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        if self.output.is_empty() && !self.blocked {
            sent = write(&mut self.socket, answers)?;
            self.blocked = sent < answers.len();
        }
        if sent < answers.len() {
            self.output.reserve_exact(answers.len() - sent);
            self.output.extend_from_slice(&answers[sent..]);
        }
        Ok(())
    }

    /// Send what waits, as far as the kernel takes it.
    fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() && !self.blocked {
            let sent = write(&mut self.socket, &self.output)?;
            self.blocked = sent < self.output.len();
            self.output.drain(..sent);
            if self.output.is_empty() {
                self.output = Vec::new();
            }
        }
        Ok(())
    }
}

/// Make `held` what is left of a stream; with nothing left it needs no memory.
fn keep(held: &mut Vec<u8>, left: &[u8]) {
    if left.is_empty() {
        *held = Vec::new();
        return;
    }
    held.clear();
    held.reserve_exact(left.len());
    held.extend_from_slice(left);
    held.shrink_to(left.len() * 2);
}

/// Write until the kernel takes no more; gives how much it took.
fn write(socket: &mut TcpStream, octets: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < octets.len() {
        match socket.write(&octets[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
