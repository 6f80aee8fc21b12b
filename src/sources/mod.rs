//! What feeds the catalog. Each source owns one layer of it, compares states rather than replaying
//! events (D14), and knows no DNS.

pub mod consul;
pub mod docker;
pub mod files;
