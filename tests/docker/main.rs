//! `portolan serve --docker`, against the real Docker Engine.

mod answering;
mod changing;
#[path = "../support/mod.rs"]
mod support;
mod world;
