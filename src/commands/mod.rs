//! `serve`, `dev`, `check`, `register`: each wires the rooms together and holds no logic of its own.

mod agent;
mod check;
mod dev;
mod failure;
mod logging;
mod parts;
mod register;
mod serve;
mod signals;

pub use check::check;
pub use dev::dev;
pub use failure::Failure;
pub use register::{RegisterMode, register};
pub use serve::serve;
