//! One order of things for every name: the loopback zones, Consul's domain and reverse names, the
//! static zones, recursion. It holds for the question's name, and for every name that an answer
//! leads to: an alias's target, the host of an SRV or MX record, an address in Consul that is a name.
//!
//! Beside a real Consul, a zone of our own and an upstream that lies about our names and remembers
//! what it was asked. What has to be answered stands in tables, one row a question; all rows that are
//! wrong are told at once.

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod order;
mod table;
mod unready;
mod world;
