//! A read of Consul's HTTP API, as whoever stands in for Consul hears it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
    time::Duration,
};

/// How long Consul holds a blocking query that names no time.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// One request. A GET has no body.
pub(crate) struct Request {
    /// `/v1/...`, without parameters.
    pub(crate) path: String,
    /// A parameter without a value has an empty one.
    pub(crate) params: BTreeMap<String, String>,
    /// By name in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    /// Reads the next one; nothing if the client has said all.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let Some(target) = first.split(' ').nth(1) else {
            return Ok(None);
        };
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let params = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Ok(Some(Self {
            path: path.to_owned(),
            params: params.collect(),
            headers,
        }))
    }

    /// The index that it waits beyond.
    pub(crate) fn index(&self) -> Option<u64> {
        self.params.get("index")?.parse().ok()
    }

    /// How long it may be kept waiting.
    pub(crate) fn wait(&self) -> Duration {
        let millis = self.params.get("wait").and_then(|wait| {
            let seconds = || wait.strip_suffix('s')?.parse::<u64>().ok();
            match wait.strip_suffix("ms") {
                Some(millis) => millis.parse().ok(),
                None => Some(1000 * seconds()?),
            }
        });
        millis.map_or(LONGEST_WAIT, Duration::from_millis)
    }
}
