//! Where Docker's API is, in the grammar of `DOCKER_HOST`.

use std::fmt;
use std::path::PathBuf;

use url::Url;

/// What Docker's own programs take when nothing else is said.
pub const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

const EXAMPLE: &str = "expected something like unix:///var/run/docker.sock or tcp://127.0.0.1:2375";

/// Where Docker's API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `tcp://host:port`, `http://…` or `https://…`, as a URL of `http` or `https`.
    Http(Url),
}

impl Address {
    /// Reads what `DOCKER_HOST` holds. `tls`, which `DOCKER_TLS_VERIFY` asks for, makes `tcp` and
    /// `http` mean `https`.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str, tls: bool) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match text.starts_with('/') {
                true => format!("{text:?} has no scheme, did you mean unix://{text} ?"),
                false => format!("not an address of Docker: {EXAMPLE}, got {text:?}"),
            });
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "unix" => Err("the path of a Unix socket starts with a slash, as in \
                 unix:///var/run/docker.sock"
                .to_owned()),
            "tcp" | "http" | "https" => {
                let secure = tls || scheme == "https";
                http(rest, scheme, secure).map(Self::Http)
            }
            _ => Err(format!(
                "{scheme:?} is not a scheme that can be used here: {EXAMPLE}"
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

fn http(rest: &str, scheme: &str, secure: bool) -> Result<Url, String> {
    let http = if secure { "https" } else { "http" };
    let mut url = Url::parse(&format!("{http}://{rest}"))
        .map_err(|error| format!("not an address of Docker ({error}): {EXAMPLE}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("leave user and password out of the address of Docker".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("nothing may follow `?` or `#`: {EXAMPLE}"));
    }
    if url.port() == Some(0) {
        return Err(format!("port 0 cannot be connected to: {EXAMPLE}"));
    }
    // Docker's own default ports, where HTTP's are not meant.
    let authority = rest.split('/').next().unwrap_or_default();
    let has_port = authority
        .rsplit(']')
        .next()
        .is_some_and(|end| end.contains(':'));
    if scheme == "tcp" && !has_port {
        let _ = url.set_port(Some(if secure { 2376 } else { 2375 }));
    }
    Ok(url)
}

/// How to get at Docker's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where it is.
    pub address: Address,
    /// The directory with `ca.pem`, `cert.pem` and `key.pem` (`DOCKER_CERT_PATH`), for https. A file
    /// that is not there is not needed.
    pub certificates: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_host_holds_is_read() {
        for (text, tls, shown) in [
            (
                "unix:///var/run/docker.sock",
                false,
                "unix:///var/run/docker.sock",
            ),
            ("tcp://127.0.0.1", false, "http://127.0.0.1:2375"),
            ("tcp://127.0.0.1:1234", false, "http://127.0.0.1:1234"),
            ("tcp://docker.example", true, "https://docker.example:2376"),
            ("tcp://127.0.0.1:80", false, "http://127.0.0.1"),
            ("tcp://[::1]", false, "http://[::1]:2375"),
            ("tcp://[::1]:2375", false, "http://[::1]:2375"),
            (
                "http://proxy:2375/docker",
                false,
                "http://proxy:2375/docker",
            ),
            ("https://proxy", false, "https://proxy"),
            ("http://proxy:2375", true, "https://proxy:2375"),
        ] {
            let address = Address::parse(text, tls).expect(text);
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "not an address"),
            (
                "/var/run/docker.sock",
                "did you mean unix:///var/run/docker.sock",
            ),
            ("unix://docker.sock", "starts with a slash"),
            ("ssh://host", "not a scheme"),
            ("npipe:////./pipe/docker_engine", "not a scheme"),
            ("tcp://", "not an address"),
            ("tcp://me:s3cret@host", "leave user and password"),
            ("tcp://host:0", "port 0"),
            ("tcp://host/?a", "nothing may follow"),
        ] {
            let error = Address::parse(text, false).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("s3cret"));
        }
    }
}
