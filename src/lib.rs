//! Portolan: DNS for people who run Consul.
//!
//! It answers `*.consul` on port 53 from an in-memory copy of Consul's catalog and recurses
//! everywhere else. The crate is a house of rooms; each folder is one, with one duty, and a room
//! uses only rooms that stand below it in this list (`tests/house` keeps it so):
//!
//! | room | duty |
//! |---|---|
//! | [`cli`] | the command line: the commands, and a flag for every key that has one |
//! | [`commands`] | wires the rooms together for `serve`, `dev`, `check`, `register`, `haproxy`; holds no logic |
//! | [`config`] | portolan.toml, environment and flags become one checked `Config`, by one table of keys |
//! | [`admin`] | HTTP: `/healthz`, `/ready`, `/metrics` |
//! | [`register`] | desired (Docker) against actual (Consul's agent), and the calls that make them equal |
//! | [`haproxy`] | keys and services of Consul -> haproxy.cfg -> proof -> reload; runs HAProxy |
//! | [`server`] | sockets, batches, limits; a request's bytes in, a reply's bytes out |
//! | [`router`] | THE order of things: catalog -> zones -> upstreams, for every name |
//! | [`recursion`] | what upstreams said, link by link, and what of it is anybody's business |
//! | [`upstream`] | resolvers that are asked: datagrams, streams, health, and the race of several |
//! | [`zones`] | static master files |
//! | [`answers`] | Consul's names: what they mean, what the catalog says to them; pure |
//! | [`consul`] | Consul's HTTP API: client, watches and what they feed, the agent beside us |
//! | [`docker`] | Docker's API: what runs, and what its labels ask for |
//! | [`files`] | service-definition files |
//! | [`catalog`] | what exists, behind versions; knows no DNS and no HTTP |
//! | [`dns`] | DNS's own words: names, requests, answers, wire; pure; knows no Consul |
//! | [`http`] | one HTTP client for the two APIs: TCP, TLS, Unix sockets |
//! | [`shares`] | places that clients share, so that one who floods leaves room |
//! | [`secret`] | tokens and passwords, which are never printed |
//! | [`duration`] | Go's durations |

pub mod admin;
pub mod answers;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod config;
pub mod consul;
pub mod dns;
pub mod docker;
pub mod duration;
pub mod files;
pub mod haproxy;
pub mod http;
pub mod recursion;
pub mod register;
pub mod router;
pub mod secret;
pub mod server;
pub mod shares;
pub mod upstream;
pub mod zones;
