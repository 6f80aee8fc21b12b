//! Registers containers in Consul, and keeps what is registered equal to what runs.
//!
//! Two states are compared, over and over: what should be registered, from the containers that
//! run, and what Consul's agent holds. The difference is the few requests that are sent (D14).
//! Whatever was missed, on either side and in our own absence, the next comparison finds.
//!
//! Only what bears our owner's name is ever taken away.

mod body;
mod health;
mod identity;
mod legacy;
mod metrics;
mod owner;
mod plan;
mod reconciler;
mod retry;
mod run;
mod status;
mod table;
mod wanted;
mod writers;

pub use body::{body, status};
pub use identity::Identity;
pub use metrics::Metrics;
pub use owner::{OwnerError, owner};
pub use plan::{Action, Step, Why};
pub use reconciler::{Failed, Reconciler, Settings};
pub use run::{Unfollowed, run};
pub use status::Status;
pub use table::table;
