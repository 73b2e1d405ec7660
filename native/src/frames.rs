//! Queries in a TCP stream: a length of two octets, then so many (RFC 1035, section 4.2.2).
//!
//! Octets in, framed answers out. Decides how much one turn of a connection may take. Pure: no
//! socket, no clock.

use crate::wire::{MAX_QUERY, MAX_TCP};

/// Queries of one connection that are answered before the others get their turn.
pub const MAX_TURN: usize = 64;
/// Octets of answers that wait for a slow client; beyond it no further query of it is answered.
pub const MAX_OUTPUT: usize = 64 << 10;
/// Octets read at once.
pub const MAX_READ: usize = 16 << 10;
/// Octets of a client's input that are held at most: the beginning of a query, and one reading.
pub const MAX_INPUT: usize = 2 + MAX_QUERY + MAX_READ;
/// Octets that the answers of one turn may need.
pub const ROOM: usize = MAX_OUTPUT + 2 + MAX_TCP;

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front<'s> {
    /// A whole query.
    Query(&'s [u8]),
    /// Less than that.
    Part,
    /// A length that no query has.
    Bad,
}

/// What `stream` begins with.
#[inline(always)]
pub fn front(stream: &[u8]) -> Front<'_> {
    let [high, low, rest @ ..] = stream else { return Front::Part };
    let size = usize::from(u16::from_be_bytes([*high, *low]));
    if size == 0 || size > MAX_QUERY {
        return Front::Bad;
    }
    rest.get(..size).map_or(Front::Part, Front::Query)
}

/// What one turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Octets of the stream that are done with.
    pub taken: usize,
    /// Queries in them.
    pub queries: usize,
    /// Octets of framed answers.
    pub written: usize,
    /// What comes next in the stream.
    pub then: Then,
}

/// What a stream goes on with after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// A further query.
    More,
    /// Less than that, or nothing.
    Part,
    /// What can't be a query: the connection is over.
    Bad,
}

/// Answer up to `MAX_TURN` queries at the front of `stream`, in order, into `out` (`ROOM` octets).
///
/// It stops once there are `room` octets of answers. `answer` writes the reply to a query and gives
/// its length, or None for silence.
#[inline]
pub fn turn(
    stream: &[u8],
    room: usize,
    out: &mut [u8],
    mut answer: impl FnMut(&[u8], &mut [u8]) -> Option<usize>,
) -> Turn {
    let mut turn = Turn { taken: 0, queries: 0, written: 0, then: Then::More };
    loop {
        let query = match front(&stream[turn.taken..]) {
            Front::Query(query) => query,
            Front::Part => return Turn { then: Then::Part, ..turn },
            Front::Bad => return Turn { then: Then::Bad, ..turn },
        };
        if turn.queries == MAX_TURN || turn.written >= room.min(MAX_OUTPUT) {
            return turn;
        }
        let (size, reply) = out[turn.written..].split_at_mut(2);
        if let Some(length) = answer(query, &mut reply[..MAX_TCP]) {
            size.copy_from_slice(&(length as u16).to_be_bytes());
            turn.written += 2 + length;
        }
        turn.queries += 1;
        turn.taken += 2 + query.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(queries: &[&[u8]]) -> Vec<u8> {
        let sized = |query: &&[u8]| [&(query.len() as u16).to_be_bytes(), *query].concat();
        queries.iter().flat_map(sized).collect()
    }

    /// The query back; nothing to "silence"; 60,000 octets to "large".
    fn echo(query: &[u8], out: &mut [u8]) -> Option<usize> {
        match query {
            b"silence" => None,
            b"large" => Some(60_000),
            _ => {
                out[..query.len()].copy_from_slice(query);
                Some(query.len())
            }
        }
    }

    fn turned(stream: &[u8], room: usize) -> (Turn, Vec<u8>) {
        let mut out = vec![0; ROOM];
        let turn = turn(stream, room, &mut out, echo);
        out.truncate(turn.written);
        (turn, out)
    }

    #[test]
    fn queries_are_answered_in_order_and_the_beginning_of_one_is_left() {
        let whole = framed(&[b"a", b"silence", b"bcd"]);
        let stream = [&whole[..], b"\0\x05half"].concat();
        let (turn, out) = turned(&stream, MAX_OUTPUT);
        assert_eq!(turn, Turn { taken: whole.len(), queries: 3, written: 8, then: Then::Part });
        assert_eq!(out, framed(&[b"a", b"bcd"]));
    }

    #[test]
    fn a_length_that_no_query_has_is_bad_whatever_follows() {
        for size in [0u16, MAX_QUERY as u16 + 1, 65535] {
            let stream = [&framed(&[b"a"])[..], &size.to_be_bytes()].concat();
            let (turn, out) = turned(&stream, MAX_OUTPUT);
            assert_eq!((turn.taken, turn.then), (3, Then::Bad));
            assert_eq!(out, framed(&[b"a"]));
        }
        let longest = vec![1; MAX_QUERY];
        assert_eq!(front(&framed(&[&longest])), Front::Query(&longest[..]));
    }

    #[test]
    fn a_turn_is_bounded_by_queries_and_by_octets() {
        let many = framed(&[b"a".as_slice(); MAX_TURN + 1]);
        let (turn, _) = turned(&many, MAX_OUTPUT);
        assert_eq!((turn.queries, turn.then), (MAX_TURN, Then::More));
        let exact = framed(&[b"a".as_slice(); MAX_TURN]);
        assert_eq!(turned(&exact, MAX_OUTPUT).0.then, Then::Part);
        let large = framed(&[b"large".as_slice(); 5]);
        let (turn, out) = turned(&large, MAX_OUTPUT);
        assert_eq!((turn.queries, turn.then), (2, Then::More));
        assert!(out.len() <= ROOM);
        assert_eq!(turned(&large, 1).0.queries, 1);
        assert_eq!(
            turned(&large, 0).0,
            Turn { taken: 0, queries: 0, written: 0, then: Then::More }
        );
    }

    #[test]
    fn wherever_a_stream_is_cut_the_same_comes_out() {
        let stream = framed(&[b"a", b"silence", b"bcd", b"e"]);
        let (_, whole) = turned(&stream, MAX_OUTPUT);
        for cut in 0..=stream.len() {
            let (first, mut out) = turned(&stream[..cut], MAX_OUTPUT);
            out.extend(turned(&stream[first.taken..], MAX_OUTPUT).1);
            assert_eq!(out, whole);
        }
    }
}
