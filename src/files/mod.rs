//! Consul's service-definition files as a source, without Consul.
//!
//! A directory of `*.json` files in Consul's own format is a catalog of one datacenter. The
//! directories are compared with what was read last, a few times a second (D14); an edit that
//! does not parse keeps the last good services and names file and line.

mod definition;
mod directory;
mod source;

pub use definition::{Definitions, Error, Host};
pub use directory::{Origin, load};
pub use source::Source;
