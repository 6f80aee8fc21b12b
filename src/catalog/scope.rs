//! Where a lookup takes place.

/// The part of the world that a name speaks of. All names are in lower case; the default is the
/// local datacenter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Scope {
    /// Another datacenter, joined over WAN.
    pub datacenter: Option<String>,
    /// A cluster peer (Consul 1.13 and later); never together with a datacenter.
    pub peer: Option<String>,
    /// An Enterprise namespace.
    pub namespace: Option<String>,
    /// An Enterprise admin partition.
    pub partition: Option<String>,
}

impl Scope {
    /// Does it need Consul Enterprise?
    pub fn is_enterprise(&self) -> bool {
        self.namespace.is_some() || self.partition.is_some()
    }
}
