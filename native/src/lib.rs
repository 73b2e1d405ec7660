//! The native responder of Meridian GTM: the fast twin of `resolver/responder.py`.
//!
//! It answers DNS from a table that Python compiles and hands over. It decides nothing: no policy,
//! no store, no configuration. Data flow: [`load`] makes a [`table::Table`], workers of [`udp`],
//! [`xdp`] and [`tcp`] read queries ([`query`]), walk plans ([`plan`]) and write answers ([`respond`]).

pub mod ahead;
pub mod answer;
pub mod batch;
pub mod clients;
pub mod connections;
pub mod counters;
pub mod dense;
pub mod frames;
pub mod load;
pub mod observe;
pub mod plan;
pub mod query;
pub mod respond;
pub mod server;
pub mod sketch;
pub mod slice;
pub mod stream;
pub mod table;
pub mod tcp;
pub mod udp;
pub mod wire;
pub mod xdp;
pub mod xdp_packet;
pub mod xdp_program;
pub mod xdp_rings;

#[cfg(feature = "python")]
mod python;
