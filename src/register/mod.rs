//! Registers containers in Consul, and keeps what is registered equal to what runs.
//!
//! Two states are compared, over and over: what should be registered, from the containers that
//! run, and what Consul's agent holds. The difference is the few requests that are sent (D14).
//! Whatever was missed, on either side and in our own absence, the next comparison finds.
//!
//! Only what bears our owner's name is ever taken away.

mod catalog;
mod checks;
mod due;
mod explain;
mod heritage;
mod identity;
mod metrics;
mod plan;
mod reconciler;
mod run;
mod sight;
mod tokens;
mod told;
mod wanted;
mod write;
mod writers;

pub use explain::{Explained, ExplainedService};
pub use identity::{Identity, OwnerError, of_engine};
pub use metrics::{Metrics, Report};
pub use plan::{Action, Step, Why, table};
pub use reconciler::{Failed, Reconciler, Settings};
pub use run::{Unfollowed, run};
pub use wanted::{body, status};
