//! Portolan among other resolvers: what real ones ask of it, and what it makes of real ones, and of odd
//! ones, as upstreams.

#[path = "../support/mod.rs"]
mod support;

mod encrypted;
mod fairness;
mod forwarding;
mod hosts;
mod namespace;
mod odd;
mod rebinding;
mod resolv_conf;
mod scripts;
mod secure;
mod servers;
mod signed;
mod size;
mod stale;
mod streams;
mod stub;
mod validating;
