//! Whether the token may read what it writes. An agent leaves out of its lists what a token may not read, and what was
//! registered would look as if somebody had taken it away.

use std::collections::{BTreeMap, BTreeSet};

use crate::consul::{Agent, AgentError, AgentService, TokenMark};

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

    /// The agent's services, and the IDs of those among them that it does not show to our token.
    ///
    /// # Errors
    /// [`AgentError`] if the agent cannot be asked.
    pub(super) async fn services(
        &mut self,
        agent: &Agent,
    ) -> Result<(BTreeMap<String, AgentService>, BTreeSet<String>), AgentError> {
        let mut actual = agent.services().await?;
        let missing = self.missing(&actual);
        self.is_blind = match &missing {
            Some(id) => agent.hides(id).await? && !self.is_path_barred(agent, &actual).await?,
            None => false,
        };
        let mut hidden = BTreeSet::new();
        if self.is_blind {
            let shown: BTreeSet<String> = actual.keys().cloned().collect();
            self.complete(&mut actual);
            hidden.extend(actual.keys().filter(|id| !shown.contains(*id)).cloned());
        } else if let Some(id) = missing {
            self.forget(&id);
        }
        Ok((actual, hidden))
    }

    /// One that should be among them and is not.
    fn missing(&self, actual: &BTreeMap<String, AgentService>) -> Option<String> {
        let mut written = self.written.keys();
        written.find(|id| !actual.contains_key(*id)).cloned()
    }

    /// Adds what should be among them and is not: the agent has it and does not show it.
    fn complete(&self, actual: &mut BTreeMap<String, AgentService>) {
        for (id, service) in &self.written {
            actual.entry(id.clone()).or_insert_with(|| service.clone());
        }
    }

    /// Is the agent not to be asked for a single service at all, even for one that it shows? A proxy before it may forbid
    /// that.
    async fn is_path_barred(
        &self,
        agent: &Agent,
        actual: &BTreeMap<String, AgentService>,
    ) -> Result<bool, AgentError> {
        match self.written.keys().find(|id| actual.contains_key(*id)) {
            Some(shown) => agent.hides(shown).await,
            None => Ok(false),
        }
    }

    /// Asks for one of what was registered, with a token of which it is not known yet whether it may read.
    ///
    /// # Errors
    /// [`AgentError`] if the agent cannot be asked.
    pub(super) async fn try_token(&mut self, agent: &Agent) -> Result<(), AgentError> {
        if let Some(id) = self.untried(agent.token()) {
            let is_hidden = agent.hides(&id).await?;
            self.is_blind = is_hidden && !agent.services().await?.contains_key(&id);
        }
        Ok(())
    }

    fn untried(&mut self, token: TokenMark) -> Option<String> {
        if self.tried.as_ref() == Some(&token) {
            return None;
        }
        let one = self.written.keys().next().cloned();
        self.tried = one.as_ref().map(|_| token);
        one
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
