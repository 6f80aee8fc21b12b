//! `portolan register` between the real Docker Engine and a real Consul.

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod clones;
mod containers;
mod explain;
mod health;
mod many;
mod modes;
mod others;
mod refused;
mod secrets;
mod servers;
mod sight;
mod spins;
mod steps;
mod truth;
mod world;
