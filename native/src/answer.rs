//! One query over UDP: read, answered, counted and observed; the same however the datagram came.

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::counters::{Counters, SILENT};
use crate::observe::Observer;
use crate::plan::Client;
use crate::query::{read_query, Query};
use crate::respond::{respond, Transport};
use crate::table::Table;
use crate::udp::{FAILED, UDP_CELLS};

/// What one batch of queries is answered with.
pub struct Answerer<'w> {
    pub table: &'w Table,
    pub stale: bool,
    pub counters: &'w Counters,
    pub observer: &'w Observer,
    /// Whether a query that breaks the responder is caught by itself.
    pub careful: bool,
}

impl Answerer<'_> {
    /// The query in `datagram`; None, and counted, where silence is the answer.
    #[inline(always)]
    pub fn read<'q>(&self, datagram: &'q [u8]) -> Option<Query<'q>> {
        let query = read_query(datagram);
        if query.is_none() {
            self.counters.count(UDP_CELLS + SILENT);
        }
        query
    }

    /// Write the reply to `query` into `room`; gives its octets, 0 for silence.
    #[inline(always)]
    pub fn answer(
        &self,
        query: &Query<'_>,
        client: Client,
        dice: &mut fastrand::Rng,
        room: &mut [u8],
    ) -> usize {
        let Answerer { table, stale, counters, observer, .. } = *self;
        let draw = dice.u64(..);
        let mut one =
            || respond(table, query, client, Transport::Udp, stale, draw, counters, &mut *room);
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
            observer.saw(draw, query, client, Transport::Udp, &[]);
            return 0;
        };
        counters.count(UDP_CELLS + u32::from(reply.rcode));
        observer.saw(draw, query, client, Transport::Udp, &room[..reply.len]);
        reply.len
    }
}
