//! `portolan register` between the real Docker Engine and a real Consul.

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod containers;
mod health;
mod many;
mod modes;
mod others;
mod refused;
mod secrets;
mod truth;
mod world;
