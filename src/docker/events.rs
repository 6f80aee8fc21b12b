//! Docker's events. They are lossy by design (the daemon keeps 256 and drops what a reader is slow
//! to take), so each is only a wake-up; what it woke for is read by inspection.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::http::{self, Fault};

/// The longest line, in bytes: labels are in it.
const MAX_LINE: usize = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) what: What,
    /// The id of the container that it is about.
    pub(super) container: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// It started.
    Started,
    /// A signal was sent to it, as a name or a number.
    Signalled(String),
    /// Its process ended.
    Died {
        /// The container's name.
        name: String,
        /// With this code, if it was told.
        exit_code: Option<i64>,
    },
    /// It was removed.
    Removed,
    /// Anything else that may matter of a container that runs.
    Changed,
}

#[derive(Debug, Deserialize)]
struct EventJson {
    #[serde(rename = "Type")]
    kind: Option<String>,
    #[serde(rename = "Action")]
    action: Option<String>,
    #[serde(rename = "Actor")]
    actor: Option<ActorJson>,
}

#[derive(Debug, Deserialize)]
struct ActorJson {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, Option<String>>>,
}

impl Event {
    /// Reads one line; `None` if it does not matter or cannot be read.
    fn parse(line: &[u8]) -> Option<Self> {
        // RFC 7464, which API 1.52 may send, puts a record separator before each text.
        let line = line.strip_prefix(b"\x1e").unwrap_or(line);
        let event: EventJson = serde_json::from_slice(line).ok()?;
        let actor = event.actor?;
        let mut attributes = actor.attributes.unwrap_or_default();
        let mut attribute = |name: &str| attributes.remove(name).flatten();
        if event.kind.as_deref() == Some("network") {
            return Some(Self {
                what: What::Changed,
                container: attribute("container")?,
            });
        }
        // `health_status: healthy`; Podman writes `died` and `remove`.
        let action = event.action?;
        let what = match action.split(':').next().unwrap_or_default() {
            "start" | "restart" => What::Started,
            "kill" => What::Signalled(attribute("signal").unwrap_or_default()),
            "die" | "died" => What::Died {
                exit_code: attribute("exitCode").and_then(|code| code.parse().ok()),
                name: attribute("name").unwrap_or_default(),
            },
            "destroy" | "remove" => What::Removed,
            "pause" | "unpause" | "rename" | "update" | "health_status" => What::Changed,
            _ => return None,
        };
        Some(Self {
            what,
            container: actor.id?,
        })
    }
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Events {
    response: reqwest::Response,
    /// What came after the last whole line.
    rest: Vec<u8>,
    /// How much of it is known to have no end of line.
    searched: usize,
}

impl Events {
    /// What is asked for: health checks run every few seconds, and each is three `exec_*` events
    /// that nobody needs.
    pub(super) const FILTERS: &str = r#"{"type":["container","network"],"event":["start","restart","kill","die","died","destroy","remove","pause","unpause","rename","update","health_status","connect","disconnect"]}"#;

    pub(super) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            rest: Vec::new(),
            searched: 0,
        }
    }

    /// The next event that matters. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The stream has ended, for whatever reason.
    pub(super) async fn next(&mut self) -> Result<Event, Fault> {
        loop {
            while let Some(end) = self.rest[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line: Vec<u8> = self.rest.drain(..=self.searched + end).collect();
                self.searched = 0;
                if let Some(event) = Event::parse(&line) {
                    return Ok(event);
                }
            }
            self.searched = self.rest.len();
            if self.rest.len() > MAX_LINE {
                return Err(Fault::TooLong);
            }
            match http::chunk(&mut self.response)
                .await
                .map_err(Fault::Transport)?
            {
                Some(chunk) => self.rest.extend_from_slice(chunk.as_ref()),
                None => return Err(Fault::Transport("the stream of events ended".to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Event> {
        Event::parse(line.as_bytes())
    }

    #[test]
    fn docker_and_podman_are_understood() {
        let of = |what| {
            Some(Event {
                what,
                container: "c1".to_owned(),
            })
        };
        for (line, expected) in [
            (
                r#"{"status":"start","id":"c1","Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"name":"web"}}}"#,
                of(What::Started),
            ),
            (
                r#"{"Type":"container","Action":"kill","Actor":{"ID":"c1","Attributes":{"signal":"15"}}}"#,
                of(What::Signalled("15".to_owned())),
            ),
            (
                "\u{1e}{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"c1\",\"Attributes\":{\"exitCode\":\"137\",\"name\":\"web\"}}}",
                of(What::Died {
                    name: "web".to_owned(),
                    exit_code: Some(137),
                }),
            ),
            (
                r#"{"Type":"container","Action":"died","Actor":{"ID":"c1"}}"#,
                of(What::Died {
                    name: String::new(),
                    exit_code: None,
                }),
            ),
            (
                r#"{"Type":"container","Action":"health_status: unhealthy","Actor":{"ID":"c1","Attributes":null}}"#,
                of(What::Changed),
            ),
            (
                r#"{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"c1","type":"bridge"}}}"#,
                of(What::Changed),
            ),
            (
                r#"{"Type":"network","Action":"create","Actor":{"ID":"n1","Attributes":{"type":"bridge"}}}"#,
                None,
            ),
            (
                r#"{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"c1","Attributes":{}}}"#,
                None,
            ),
            ("", None),
            ("{", None),
            ("null", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
