//! `portolan serve --docker`, against the real Docker Engine.

mod answering;
mod changing;
mod podman;
mod reaching;
#[path = "../support/mod.rs"]
mod support;
mod world;
