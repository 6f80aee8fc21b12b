//! `portolan serve --docker`, against the real Docker Engine.

mod answering;
mod changing;
mod podman;
#[path = "../support/mod.rs"]
mod support;
mod world;
