//! Portolan beside a real Consul 1.8.7: its answers follow what happens in Consul, and are cut as the
//! design wants them. (That they are Consul's own is what `tests/parity` shows.)

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod person_with_dig;
mod sizes;
mod world;
