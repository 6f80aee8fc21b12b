//! What a container's HEALTHCHECK says, as Docker tells of it.

use serde::Deserialize;

/// What a container's HEALTHCHECK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Healthcheck {
    /// Not known yet.
    Starting,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
    /// It was well, and is paused now, so that nothing can be said.
    Paused,
}

impl Healthcheck {
    /// Reads Docker's word; `none` and words of the future are no health.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "starting" => Some(Self::Starting),
            "healthy" => Some(Self::Healthy),
            "unhealthy" => Some(Self::Unhealthy),
            _ => None,
        }
    }
}

/// What an inspection says of a HEALTHCHECK, and from API 1.52 the list too.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HealthJson {
    status: Option<String>,
    failing_streak: Option<i64>,
    log: Option<Vec<ProbeJson>>,
}

/// What one probe found.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProbeJson {
    exit_code: Option<i64>,
}

impl HealthJson {
    /// Docker's own word.
    pub(super) fn word(&self) -> Option<Healthcheck> {
        Healthcheck::parse(self.status.as_deref()?)
    }

    /// What it means. Docker calls a container unhealthy as soon as it pauses it, be it for the moment that
    /// `docker commit` takes, and until the next probe. No probe has failed then, and the last one holds.
    pub(super) fn meant(&self, is_paused: bool) -> Option<Healthcheck> {
        let told = self.word()?;
        if told != Healthcheck::Unhealthy || self.failing_streak != Some(0) {
            return Some(told);
        }
        if is_paused {
            return Some(Healthcheck::Paused);
        }
        let last = self.log.as_ref().and_then(|log| log.last());
        match last.map(|probe| probe.exit_code) {
            Some(Some(0)) => Some(Healthcheck::Healthy),
            Some(_) => Some(told),
            None => Some(Healthcheck::Starting),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_from_an_illness() {
        use Healthcheck::{Healthy, Paused, Starting, Unhealthy};
        for (json, is_paused, meant) in [
            (
                r#"{"Status":"healthy","FailingStreak":0}"#,
                false,
                Some(Healthy),
            ),
            (r#"{"Status":"none"}"#, false, None),
            (r#"{"Status":"unhealthy"}"#, false, Some(Unhealthy)),
            (
                r#"{"Status":"unhealthy","FailingStreak":3}"#,
                true,
                Some(Unhealthy),
            ),
            (
                r#"{"Status":"unhealthy","FailingStreak":0}"#,
                true,
                Some(Paused),
            ),
            (
                r#"{"Status":"unhealthy","FailingStreak":0,"Log":null}"#,
                false,
                Some(Starting),
            ),
            (
                r#"{"Status":"unhealthy","FailingStreak":0,"Log":[{"ExitCode":1},{"ExitCode":0}]}"#,
                false,
                Some(Healthy),
            ),
            (
                r#"{"Status":"unhealthy","FailingStreak":0,"Log":[{"ExitCode":0},{"ExitCode":1}]}"#,
                false,
                Some(Unhealthy),
            ),
        ] {
            let health: HealthJson = serde_json::from_str(json).expect(json);
            assert_eq!(health.meant(is_paused), meant, "{json} {is_paused}");
        }
    }
}
