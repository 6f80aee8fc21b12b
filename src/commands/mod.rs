//! `serve`, `dev`, `check`, `register`, `haproxy`: each wires the rooms together and holds no logic
//! of its own.

mod agent;
mod check;
mod dev;
mod failure;
mod haproxy;
mod logging;
mod notify;
mod parts;
mod register;
mod running;
mod serve;
mod signals;

pub use check::check;
pub use dev::dev;
pub use failure::Failure;
pub use haproxy::haproxy;
pub use register::{RegisterMode, register};
pub use serve::serve;
