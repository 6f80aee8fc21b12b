//! The nodes of a realm, by name and by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::Node;
use super::aging::Aging;

/// What a list of nodes says.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// By name in lower case.
    by_name: ArcSwapOption<HashMap<String, Arc<Node>>>,
    by_address: ArcSwap<HashMap<IpAddr, Arc<Node>>>,
    /// The list may have changed since it was read.
    pub(super) behind: AtomicBool,
    pub(super) aging: Aging,
}

impl Nodes {
    pub(super) fn are_known(&self) -> bool {
        self.by_name.load().is_some()
    }

    pub(super) fn are_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    pub(super) fn count(&self) -> usize {
        self.by_name.load().as_ref().map_or(0, |nodes| nodes.len())
    }

    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        let nodes = self.by_name.load();
        let nodes = nodes.iter().flat_map(|nodes| nodes.values());
        nodes.cloned().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Node>> {
        self.by_name.load().as_ref()?.get(name).cloned()
    }

    pub(super) fn at(&self, address: IpAddr) -> Option<Arc<Node>> {
        let nodes = self.by_address.load();
        nodes.get(&address.to_canonical()).cloned()
    }

    pub(super) fn has_below(&self, suffix: &str) -> bool {
        let nodes = self.by_name.load();
        let mut names = nodes.iter().flat_map(|nodes| nodes.keys());
        names.any(|name| is_below(name, suffix))
    }

    /// Puts others in their place. False if these are the same.
    pub(super) fn put(&self, nodes: Vec<Arc<Node>>) -> bool {
        let nodes: HashMap<String, Arc<Node>> = nodes
            .into_iter()
            .map(|node| (node.name.to_ascii_lowercase(), node))
            .collect();
        if self.by_name.load().as_deref() == Some(&nodes) {
            return false;
        }
        // The first of two nodes with one address, by name, as for services.
        let mut by_address = HashMap::with_capacity(nodes.len());
        for node in nodes.values() {
            if let Ok(address) = node.address.parse::<IpAddr>() {
                let known = by_address
                    .entry(address.to_canonical())
                    .or_insert_with(|| Arc::clone(node));
                if node.name < known.name {
                    *known = Arc::clone(node);
                }
            }
        }
        self.by_address.store(Arc::new(by_address));
        self.by_name.store(Some(Arc::new(nodes)));
        true
    }
}

/// Does the name end in `.` + `suffix`? Then the suffix is an empty non-terminal of the zone.
pub(super) fn is_below(name: &str, suffix: &str) -> bool {
    let rest = name.strip_suffix(suffix);
    rest.is_some_and(|rest| rest.ends_with('.'))
}
