//! `serve`, `dev`, `check`, `haproxy`: each wires the rooms together and holds no logic of its own.

mod agent;
mod check;
mod dev;
mod failure;
mod haproxy;
mod logging;
mod parts;
mod serve;

pub use check::check;
pub use dev::dev;
pub use failure::Failure;
pub use haproxy::haproxy;
pub use serve::serve;
