//! Consul's names: what they mean, and what the catalog says to them. Pure: no I/O, and no clock but
//! an argument.

mod address;
mod lookup;
mod make;
mod node;
mod service;
mod settings;

pub use lookup::{Domains, Lookup, is_reverse, reverse_address};
pub use make::{Asked, Maker, Moment};
pub use settings::{Settings, Soa, SrvTarget, TtlTable};

#[cfg(test)]
mod tests;
