//! What should be registered, given what runs. Pure.

use std::sync::Arc;

use super::container::Container;
use super::registration::Registration;
use super::settings::Settings;

/// How much a [`Problem`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing: something works differently than in Registrator.
    Note,
    /// Something that was asked for is left out.
    Warning,
}

/// Something about a container that cannot be done as asked. It never holds the value of an
/// environment variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The container's name.
    pub container: String,
    /// What is wrong, and what is done instead.
    pub message: String,
}

/// What should be registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Sorted by id; ids are unique.
    pub registrations: Vec<Registration>,
    /// Sorted by container.
    pub problems: Vec<Problem>,
}

/// What should be registered when these containers run.
pub fn desired(containers: &[Arc<Container>], settings: &Settings) -> Desired {
    let _ = (containers, settings);
    Desired::default()
}
