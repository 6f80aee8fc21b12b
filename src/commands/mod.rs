//! `serve`, `dev`, `check`: each wires the rooms together and holds no logic of its own.

mod agent;
mod check;
mod dev;
mod failure;
mod logging;
mod notify;
mod parts;
mod running;
mod serve;

pub use check::check;
pub use dev::dev;
pub use failure::Failure;
pub use serve::serve;
