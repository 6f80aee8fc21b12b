//! Desired (what Docker says) against actual (what Consul's agent holds), and the few calls that
//! make them equal.

mod body;

pub use body::{body, status};
