//! `serve`, `dev`, `check`, `register`, `haproxy`: each wires the rooms together and holds no logic
//! of its own.

mod build;
mod check;
mod defaults;
mod failure;
mod haproxy;
mod process;
mod register;
mod running;
mod serve;

pub use check::check;
pub use failure::Failure;
pub use haproxy::haproxy;
pub use register::{RegisterMode, register};
pub use serve::{dev, serve};
