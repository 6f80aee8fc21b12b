//! Portolan: DNS for people who run Consul.
//!
//! It answers `*.consul` on port 53 from an in-memory copy of Consul's catalog and recurses
//! everywhere else. The crate is a house of rooms; each folder is one, with one duty, and a room
//! uses only rooms that stand below it in this list (`tests/house` keeps it so):
//!
//! | room | duty |
//! |---|---|
//! | [`cli`] | the command line, and nothing else knows about flags |
//! | [`commands`] | wires the rooms together for `serve`, `dev`, `check`, `register`; holds no logic |
//! | [`config`] | portolan.toml, environment and flags become one checked `Config` |
//! | [`admin`] | HTTP: `/healthz`, `/ready`, `/metrics` |
//! | [`register`] | desired (Docker) against actual (Consul's agent), and the calls that make them equal |
//! | [`server`] | sockets, limits, shutdown, and the router: access list, `consul`, zones, recursion |
//! | [`recursion`] | upstreams, failover, cache |
//! | [`zones`] | static master files |
//! | [`answers`] | lookup + catalog -> answer -> wire bytes -> cut to size; pure |
//! | [`names`] | a question's bytes -> what was asked; pure |
//! | [`sources`] | what feeds the catalog: Consul, Docker, files |
//! | [`catalog`] | services, instances, nodes and their versions; knows no DNS and no HTTP |

pub mod admin;
pub mod answers;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod config;
pub mod names;
pub mod recursion;
pub mod register;
pub mod server;
pub mod sources;
pub mod zones;
