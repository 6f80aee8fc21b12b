//! Lookup + catalog -> [`Answer`] -> [`Rendered`] wire bytes -> cut to the client's size. Pure: no
//! I/O, and no clock but an argument.

mod address;
mod answer;
mod cut;
mod make;
mod node;
mod other;
mod record;
mod render;
mod service;
mod settings;
mod target;

pub use answer::{Answer, Cut, Glue, Outside, Rcode, Subset};
pub use cut::{Reply, ReplyEdns, Transport};
pub use make::{Asked, Maker, Step};
pub use record::{Data, Record};
pub use render::{Rendered, error_reply};
pub use settings::{Settings, Soa, SrvTarget, TtlTable};

#[cfg(test)]
mod tests;
