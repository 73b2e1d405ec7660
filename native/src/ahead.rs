//! Asking the memory ahead for what the answers to several queries will need.
//!
//! In a large table most of it lies far, each piece is found through the one before, and a query by
//! itself would wait for each: so all of them ask for their first, then all for their second.

use crate::clients::ClientTable;
use crate::plan::{Client, Kind};
use crate::query::Query;
use crate::respond::client_of;
use crate::table::Table;
use crate::wire::AAAA;

/// Queries that ask together.
pub const GROUP: usize = 16;
/// From so many names on it pays to ask for them.
const MANY_NAMES: usize = 4096;
/// From so many queries on it pays: one waits for its own memory in any case.
const MANY_QUERIES: usize = 4;

/// Whether it pays to ask for what so many queries will need.
#[inline(always)]
pub fn pays(table: &Table, queries: usize) -> bool {
    queries >= MANY_QUERIES && (table.names.len() > MANY_NAMES || table.far_clients)
}

/// Ask for what `queries` (at most `GROUP`) will need, where that pays; `source` says which address
/// each came from.
#[inline(always)]
pub fn ask_ahead(table: &Table, queries: &[Option<Query<'_>>], source: impl Fn(usize) -> Client) {
    if !pays(table, queries.len()) {
        return;
    }
    if table.names.len() > MANY_NAMES {
        for query in queries.iter().flatten() {
            table.names.prefetch_index(query.hash);
        }
        for query in queries.iter().flatten() {
            table.names.prefetch_record(query.hash);
        }
    }
    if table.far_clients {
        ask_for_clients(table, queries, source);
    }
}

/// Ask for where IPv4 clients are, in plans that ask for that first.
#[inline(always)]
fn ask_for_clients(table: &Table, queries: &[Option<Query<'_>>], source: impl Fn(usize) -> Client) {
    let mut asked: [Option<(&ClientTable, u32)>; GROUP] = [None; GROUP];
    for (at, (query, place)) in queries.iter().zip(&mut asked).enumerate() {
        let Some(query) = query else { continue };
        let Some(slot) = table.names.glance(query.hash).and_then(|name| name.head().slot) else {
            continue;
        };
        let slot = table.slots.get(slot);
        let plan = table.plans.get(if query.qtype == AAAA { slot.aaaa } else { slot.a });
        if let (Kind::Located { table, .. }, Client::V4(address)) =
            (&plan.node.kind, client_of(query, source(at)))
        {
            table.prefetch_cell(address);
            *place = Some((table, address));
        }
    }
    for (table, address) in asked.iter().flatten() {
        table.prefetch_block(*address);
    }
}
