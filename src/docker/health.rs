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
    /// It is paused, so that nothing can be said.
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

    /// What it means, where so many probes in a row have to fail. Docker calls a container unhealthy as soon as it pauses
    /// it, be it for the moment that `docker commit` takes, and until the next probe. Fewer have failed then, and
    /// what it was before holds.
    pub(super) fn meant(&self, is_paused: bool, retries: i64) -> Option<Healthcheck> {
        let told = self.word()?;
        if told != Healthcheck::Unhealthy {
            return Some(told);
        }
        if is_paused {
            return Some(Healthcheck::Paused);
        }
        if self.failing_streak.is_none_or(|streak| streak >= retries) {
            return Some(told);
        }
        let mut log = self.log.iter().flatten();
        match log.any(|probe| probe.exit_code == Some(0)) {
            true => Some(Healthcheck::Healthy),
            false => Some(Healthcheck::Starting),
        }
    }
}

/// How a container is probed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ProbingJson {
    retries: Option<i64>,
}

/// How many probes fail before Docker calls a container unhealthy, if nothing is said.
const RETRIES: i64 = 3;

impl ProbingJson {
    /// How many probes in a row have to fail.
    pub(super) fn retries(&self) -> i64 {
        let said = self.retries.filter(|retries| *retries > 0);
        said.unwrap_or(RETRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_from_an_illness() {
        use Healthcheck::{Healthy, Paused, Starting, Unhealthy};
        let unhealthy = |rest: &str| format!(r#"{{"Status":"unhealthy"{rest}}}"#);
        let good = r#","FailingStreak":0,"Log":[{"ExitCode":1},{"ExitCode":0}]"#;
        let once = r#","FailingStreak":1,"Log":[{"ExitCode":0},{"ExitCode":1}]"#;
        for (json, is_paused, meant) in [
            (
                r#"{"Status":"healthy","FailingStreak":0}"#.to_owned(),
                false,
                Some(Healthy),
            ),
            (r#"{"Status":"none"}"#.to_owned(), false, None),
            (unhealthy(""), false, Some(Unhealthy)),
            (unhealthy(r#","FailingStreak":3"#), false, Some(Unhealthy)),
            (unhealthy(r#","FailingStreak":3"#), true, Some(Paused)),
            (
                unhealthy(r#","FailingStreak":0,"Log":null"#),
                false,
                Some(Starting),
            ),
            (unhealthy(good), true, Some(Paused)),
            (unhealthy(good), false, Some(Healthy)),
            (unhealthy(once), false, Some(Healthy)),
        ] {
            let health: HealthJson = serde_json::from_str(&json).expect(&json);
            assert_eq!(health.meant(is_paused, 3), meant, "{json} {is_paused}");
        }
    }
}
