//! Where Docker's API is.

use std::fmt;
use std::path::PathBuf;

use url::Url;

const EXAMPLE: &str = "expected something like unix:///var/run/docker.sock or tcp://proxy:2375";

/// Docker's usual ports, without TLS and with it.
const PORTS: (u16, u16) = (2375, 2376);

/// The address of Docker's API, as `DOCKER_HOST` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerAddress {
    /// `unix:///path/to/socket`.
    Unix(PathBuf),
    /// `tcp://HOST:PORT`, `http://…` or `https://…`; kept as `http` or `https`.
    Http(Url),
}

impl DockerAddress {
    /// Reads an address in the grammar of `DOCKER_HOST`.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("{EXAMPLE}, got {text:?}"));
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "unix" => Err(format!(
                "the path of a Unix socket starts with a slash: {EXAMPLE}"
            )),
            "tcp" | "http" => parse_http("http", rest, PORTS.0).map(Self::Http),
            "https" => parse_http("https", rest, PORTS.1).map(Self::Http),
            "ssh" => Err(format!(
                "Docker over SSH is not supported; forward its socket instead: {EXAMPLE}"
            )),
            _ => Err(format!(
                "{scheme:?} is not a scheme of Docker's API: {EXAMPLE}"
            )),
        }
    }

    /// The same address over TLS, as `DOCKER_TLS_VERIFY` asks for.
    pub(super) fn over_tls(self) -> Self {
        match self {
            Self::Http(url) if url.scheme() == "http" => {
                let mut secure = url;
                // The port is always there: `parse` puts it in.
                let _ = secure.set_scheme("https");
                Self::Http(secure)
            }
            other => other,
        }
    }
}

impl Default for DockerAddress {
    fn default() -> Self {
        Self::Unix(PathBuf::from("/var/run/docker.sock"))
    }
}

impl fmt::Display for DockerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

fn parse_http(scheme: &str, rest: &str, port: u16) -> Result<Url, String> {
    let url = Url::parse(&format!("{scheme}://{rest}"));
    let mut url = url.map_err(|error| format!("not an address ({error}): {EXAMPLE}"))?;
    // A password here would end up in logs and error messages. Do not repeat it in ours.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("leave user and password out of the address".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() || url.port() == Some(0) {
        return Err(format!("not an address: {EXAMPLE}"));
    }
    // Without a port it is Docker's, not that of the web.
    let has_port = rest.split('/').next().is_some_and(has_port);
    if !has_port && url.set_port(Some(port)).is_err() {
        return Err(format!("not an address: {EXAMPLE}"));
    }
    Ok(url)
}

/// The library forgets a port that is the scheme's own, such as 80.
fn has_port(authority: &str) -> bool {
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("tcp://proxy:2375", "http://proxy:2375"),
            ("tcp://proxy", "http://proxy:2375"),
            ("tcp://[::1]", "http://[::1]:2375"),
            ("http://proxy:80", "http://proxy"),
            ("https://proxy/docker", "https://proxy:2376/docker"),
        ] {
            let address = DockerAddress::parse(text).expect(text);
            assert_eq!(address.to_string(), shown);
        }
        let tls = DockerAddress::parse("tcp://proxy:2376").map(|address| address.over_tls());
        let tls = tls.map(|address| address.to_string());
        assert_eq!(tls.as_deref(), Ok("https://proxy:2376"));
        let default = DockerAddress::default().to_string();
        assert_eq!(default, "unix:///var/run/docker.sock");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "expected something like unix://"),
            ("/var/run/docker.sock", "expected something like unix://"),
            ("unix://run/docker.sock", "starts with a slash"),
            ("ssh://me@host", "not supported"),
            ("npipe:////./pipe/docker_engine", "not a scheme"),
            ("tcp://", "not an address"),
            ("tcp://host:0", "not an address"),
            ("tcp://host:1?x", "not an address"),
        ] {
            let error = DockerAddress::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        let error = DockerAddress::parse("tcp://me:s3cret@host:1").expect_err("a password");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
