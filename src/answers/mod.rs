//! Lookup + catalog -> [`Answer`] -> [`Rendered`] wire bytes -> cut to the client's size. Pure: no
//! I/O, and no clock but an argument.

mod address;
mod answer;
mod cut;
mod make;
mod message;
mod node;
mod other;
mod record;
mod render;
mod reply;
mod service;
mod settings;
mod target;

pub use answer::{Answer, Cut, Glue, Outside, Rcode, Subset};
pub use cut::{Part, Place};
pub use make::{Asked, Maker, Moment, Step};
pub use record::{Data, Record};
pub use render::{Rendered, error_reply};
pub use reply::{Reply, ReplyEdns, Transport};
pub use settings::{Settings, Soa, SrvTarget, TtlTable};

#[cfg(test)]
mod tests;
