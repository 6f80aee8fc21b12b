//! Whether the token may read what it writes. An agent leaves out of its lists what a token may not read, and what was
//! registered would look as if somebody had taken it away.

use std::collections::BTreeMap;

use crate::consul::{AgentService, TokenMark};

/// What this process has registered, as the agent should show it.
#[derive(Debug, Default)]
pub(super) struct Sight {
    written: BTreeMap<String, AgentService>,
    /// The agent hides some of it.
    is_blind: bool,
    /// The token that the agent was last asked with for something that had just been registered.
    tried: Option<TokenMark>,
}

impl Sight {
    /// It was registered.
    pub(super) fn wrote(&mut self, id: &str, service: AgentService) {
        self.written.insert(id.to_owned(), service);
    }

    /// It is not registered any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.written.remove(id);
    }

    /// One that should be among them and is not.
    pub(super) fn missing(&self, actual: &BTreeMap<String, AgentService>) -> Option<String> {
        let mut written = self.written.keys();
        written.find(|id| !actual.contains_key(*id)).cloned()
    }

    /// Adds what should be among them and is not: the agent has it and does not show it.
    pub(super) fn complete(&self, actual: &mut BTreeMap<String, AgentService>) {
        for (id, service) in &self.written {
            actual.entry(id.clone()).or_insert_with(|| service.clone());
        }
    }

    /// One to ask for, with a token of which it is not known yet whether it may read.
    pub(super) fn untried(&mut self, token: TokenMark) -> Option<String> {
        if self.tried.as_ref() == Some(&token) {
            return None;
        }
        let one = self.written.keys().next().cloned();
        self.tried = one.as_ref().map(|_| token);
        one
    }

    /// Does the agent hide some of it?
    pub(super) fn set_blind(&mut self, is_blind: bool) {
        self.is_blind = is_blind;
    }

    /// Does the agent hide some of it?
    pub(super) fn is_blind(&self) -> bool {
        self.is_blind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_there_all_the_same() {
        let mut sight = Sight::default();
        let mark = || TokenMark::of("a");
        assert_eq!(sight.untried(mark()), None, "there is nothing to ask for");
        for id in ["a", "b"] {
            sight.wrote(id, AgentService::default());
        }
        assert_eq!(sight.untried(mark()).as_deref(), Some("a"));
        assert_eq!(sight.untried(mark()), None, "it is known");
        assert_eq!(sight.untried(TokenMark::of("b")).as_deref(), Some("a"));
        let theirs = AgentService {
            name: "theirs".to_owned(),
            ..AgentService::default()
        };
        let mut actual = BTreeMap::from([("a".to_owned(), theirs.clone())]);
        assert_eq!(sight.missing(&actual).as_deref(), Some("b"));
        sight.complete(&mut actual);
        assert_eq!(actual["a"], theirs);
        assert!(actual.contains_key("b"));
        sight.forget("b");
        assert_eq!(
            sight.missing(&BTreeMap::from([("a".to_owned(), theirs)])),
            None
        );
    }
}
