//! Where Consul's HTTP API is.

use std::fmt;
use std::path::PathBuf;

use url::Url;

const EXAMPLE: &str = "expected something like http://127.0.0.1:8500";

/// The address of Consul's HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over TCP, `http` or `https`. A path is put before that of every request.
    Http(Url),
    /// Over a Unix socket, written `unix:///path/to/socket`.
    Unix(PathBuf),
}

impl Address {
    /// Reads a full URL: `http://`, `https://` or `unix://`.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match is_host_and_port(text) {
                true => format!("not a URL: {text:?} has no scheme, did you mean http://{text} ?"),
                false => format!("not a URL: {EXAMPLE}, got {text:?}"),
            });
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "unix" => Err(
                "the path of a Unix socket starts with a slash, as in unix:///run/consul.sock"
                    .to_owned(),
            ),
            "http" | "https" => parse_http(text).map(Self::Http),
            _ => Err(format!(
                "{scheme:?} is not a scheme of Consul's API: {EXAMPLE}"
            )),
        }
    }

    /// Reads what Consul's own programs take from `CONSUL_HTTP_ADDR`: a URL, or `HOST:PORT`.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub(super) fn parse_as_consul(text: &str) -> Result<Self, String> {
        if !text.contains("://") && is_host_and_port(text) {
            return parse_http(&format!("http://{text}")).map(Self::Http);
        }
        Self::parse(text)
    }

    /// The same address over TLS, as `CONSUL_HTTP_SSL` asks for.
    pub(super) fn over_tls(self) -> Self {
        match self {
            Self::Http(url) if url.scheme() == "http" => {
                // Url keeps a scheme it cannot change; http to https always works.
                let mut secure = url;
                let _ = secure.set_scheme("https");
                Self::Http(secure)
            }
            other => other,
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

fn parse_http(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL ({error}): {EXAMPLE}"))?;
    // A password here would end up in logs and error messages. Do not repeat it in ours.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("leave user and password out of the address: use a token".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("nothing may follow `?` or `#`: {EXAMPLE}"));
    }
    if url.port() == Some(0) {
        return Err(format!("port 0 cannot be connected to: {EXAMPLE}"));
    }
    Ok(url)
}

/// Whether the text is `HOST:PORT` and nothing else. Without a port it may be any word, and more
/// often a mistake than an address.
fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_plain = host.starts_with('[') || !host.contains(':');
        !host.is_empty()
            && host_is_plain
            && !host.contains(['/', '@', ' '])
            && port.parse::<u16>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, shown) in [
            ("http://127.0.0.1:8500", "http://127.0.0.1:8500"),
            (
                "https://consul.example:8501/",
                "https://consul.example:8501",
            ),
            ("http://[::1]:8500", "http://[::1]:8500"),
            (
                "https://proxy.example/consul",
                "https://proxy.example/consul",
            ),
            ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!(address.to_string(), shown);
            assert_eq!(Address::parse_as_consul(text), Ok(address));
        }
    }

    #[test]
    fn what_is_not_a_url_is_refused_with_the_reason() {
        for (text, reason) in [
            (
                "",
                "not a URL: expected something like http://127.0.0.1:8500",
            ),
            ("not a url", "not a URL"),
            ("consul", "not a URL"),
            ("127.0.0.1:8500", "did you mean http://127.0.0.1:8500"),
            ("localhost:8500", "did you mean http://localhost:8500"),
            ("http:/127.0.0.1", "not a URL"),
            ("http://", "not a URL"),
            ("http://host:99999", "not a URL"),
            ("http://host:0", "port 0"),
            ("ftp://host:21", "not a scheme"),
            ("http://host/?dc=dc1", "nothing may follow"),
            ("unix://run/consul.sock", "starts with a slash"),
        ] {
            let error = Address::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let error = Address::parse("http://me:s3cret@host:8500").expect_err("a password");
        assert!(
            error.contains("token") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn the_variable_may_leave_out_the_scheme() {
        for (text, shown) in [
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("[::1]:8500", "http://[::1]:8500"),
            ("consul.local:80", "http://consul.local"),
        ] {
            let address = Address::parse_as_consul(text).expect(text);
            assert_eq!(address.to_string(), shown);
        }
        for text in ["consul", "::1:8500", ":8500", "a/b:80", "http:/127.0.0.1"] {
            assert!(Address::parse_as_consul(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tls_can_be_asked_for() {
        let over_tls =
            |text: &str| Address::parse(text).map(|address| address.over_tls().to_string());
        assert_eq!(over_tls("http://c:8500").as_deref(), Ok("https://c:8500"));
        assert_eq!(over_tls("https://c:8501").as_deref(), Ok("https://c:8501"));
        assert_eq!(over_tls("unix:///s").as_deref(), Ok("unix:///s"));
    }
}
