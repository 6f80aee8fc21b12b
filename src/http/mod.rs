//! One HTTP client for the two APIs that we speak: over TCP, TLS or a Unix socket, with certificates
//! from PEM files, bodies of bounded length, and errors that name their causes.

mod stub;

use std::error::Error as StdError;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder, Identity, Method, RequestBuilder, Response};
use url::Url;

use stub::Stub;

/// How long a connection may take to open.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// What may not stand in a segment of a path as it is (RFC 3986 section 3.3; `\`, which URLs of the web take for a slash).
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// May a name stand in a path of Consul's API, so that Consul finds what has it? Its server tidies up paths first
/// (`//`, `.`, `..`), and refuses those with anything that is not printable (`agent/http.go`).
pub fn is_addressable(name: &str) -> bool {
    let is_part = |part: &str| !["", ".", ".."].contains(&part);
    name.split('/').all(is_part) && name.chars().all(is_printable)
}

/// What Go takes for printable (`unicode.IsPrint`): letters, marks, numbers, punctuation, symbols, and of all spaces
/// the usual one. The standard library escapes the others, and a few that it has a short way for.
fn is_printable(character: char) -> bool {
    match character {
        '"' | '\'' | '\\' => true,
        // A mark is escaped where it would stand alone.
        _ => {
            let beside = ['a', character].iter().collect::<String>();
            beside.escape_debug().nth(1) == Some(character)
        }
    }
}

/// Where an API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A URL of `http` or `https`; a path is put before that of every request.
    Http(Url),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Is the connection to it one of TLS?
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Http(url) if url.scheme() == "https")
    }

    /// The same endpoint over TLS, where there is a choice.
    #[must_use]
    pub fn over_tls(self) -> Self {
        match self {
            Self::Http(mut url) if url.scheme() == "http" => {
                // From http to https always works.
                let _ = url.set_scheme("https");
                Self::Http(url)
            }
            other => other,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// What a TLS connection goes by. Files are in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Who may vouch for the other side's certificate; empty for those that the system trusts.
    pub authorities: Vec<PathBuf>,
    /// Our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name to expect in the other side's certificate, if it is not the host of the address.
    pub server_name: Option<String>,
    /// Is the other side's certificate not checked?
    pub insecure: bool,
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not PEM, or a certificate and a key do not go together.
    #[error("{}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the TLS library says.
        source: reqwest::Error,
    },
    /// The HTTP library cannot be set up.
    #[error("cannot set up HTTP: {0}")]
    Http(String),
    /// The server name cannot be a host's.
    #[error("cannot use the server name {name:?}: {message}")]
    ServerName {
        /// The name.
        name: String,
        /// What is wrong.
        message: String,
    },
}

/// Why a body was not read.
#[derive(Debug)]
pub enum Fault {
    /// The connection broke, with the causes.
    Transport(String),
    /// It is longer than was allowed.
    TooLong,
}

/// A client of one API at one place. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

impl Client {
    /// A client; nothing is sent yet. `tune` sets what this API has of its own.
    ///
    /// # Errors
    /// [`SetupError`] if a file of `tls` cannot be used.
    pub fn new(
        endpoint: &Endpoint,
        tls: &Tls,
        tune: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, SetupError> {
        // Another part of the process may have chosen one already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = tune(
            reqwest::Client::builder()
                .no_proxy()
                // Who is asked has our token; who is named in an answer does not get it.
                .redirect(Policy::none())
                .connect_timeout(CONNECT_TIME)
                .tcp_nodelay(true)
                .user_agent(concat!("portolan/", env!("CARGO_PKG_VERSION"))),
        );
        let base = match endpoint {
            Endpoint::Http(url) => url.clone(),
            Endpoint::Unix(path) => {
                builder = builder.unix_socket(path.clone());
                Url::parse("http://localhost/")
                    .map_err(|error| SetupError::Http(error.to_string()))?
            }
        };
        let (base, stub) = match &tls.server_name {
            Some(name) => under_name(base, name)?,
            None => (base, Stub::default()),
        };
        builder = builder.dns_resolver(Arc::new(stub));
        let mut roots = Vec::new();
        for path in &tls.authorities {
            roots.extend(Certificate::from_pem_bundle(&read(path)?).map_err(pem(path))?);
        }
        // Without TLS the system's own authorities are not looked for: an image that holds nothing
        // but this program has none, and the TLS library would not start without.
        if !tls.authorities.is_empty() || base.scheme() != "https" {
            builder = builder.tls_certs_only(roots);
        }
        if let Some((certificate, key)) = &tls.client {
            let mut both = read(certificate)?;
            both.push(b'\n');
            both.extend(read(key)?);
            builder = builder.identity(Identity::from_pem(&both).map_err(pem(certificate))?);
        }
        if tls.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let http = builder.build();
        Ok(Self {
            http: http.map_err(|error| SetupError::Http(in_full(&error)))?,
            base,
        })
    }

    /// The address of a path, each of whose segments is encoded as one: whatever is in a name stays in it. What
    /// [`is_addressable`] refuses has no address; it gets one that is nobody's.
    pub fn url<S: AsRef<str>>(&self, segments: impl IntoIterator<Item = S>) -> Url {
        let mut path = self.base.path().trim_end_matches('/').to_owned();
        for segment in segments {
            path.push('/');
            let encoded = utf8_percent_encode(segment.as_ref(), SEGMENT).to_string();
            // These say where to go in a path, however they are encoded.
            path += &match encoded.as_str() {
                "." | ".." => encoded.replace('.', "%252E"),
                _ => encoded,
            };
        }
        let mut url = self.base.clone();
        url.set_path(&path);
        url
    }

    /// A request to one of its addresses.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }
}

/// The whole body, if it has no more than `most` bytes.
///
/// # Errors
/// [`Fault`]
pub async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = chunk(&mut response).await.map_err(Fault::Transport)? {
        if body.len() + chunk.as_ref().len() > most {
            return Err(Fault::TooLong);
        }
        body.extend_from_slice(chunk.as_ref());
    }
    Ok(body)
}

/// The next piece of a body; `None` at its end.
///
/// # Errors
/// What broke, with the causes.
pub async fn chunk(response: &mut Response) -> Result<Option<impl AsRef<[u8]> + use<>>, String> {
    response.chunk().await.map_err(transport)
}

/// What broke. The library's errors say least at the top; the causes are what helps. Its URL is left
/// out: whoever logs this knows what was asked.
pub fn transport(error: reqwest::Error) -> String {
    in_full(&error.without_url())
}

/// An error with its causes.
fn in_full(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = StdError::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The same address under another name: the TLS library takes the name from the URL.
fn under_name(mut base: Url, name: &str) -> Result<(Url, Stub), SetupError> {
    let refuse = |message: String| SetupError::ServerName {
        name: name.to_owned(),
        message,
    };
    let host = base.host_str().unwrap_or_default().to_owned();
    base.set_host(Some(name))
        .map_err(|error| refuse(error.to_string()))?;
    // As it is looked up: the URL has it in lower case.
    let name = base.host_str().unwrap_or_default().to_owned();
    let renamed = Some((name, host));
    Ok((base, Stub { renamed }))
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    fs::read(path).map_err(|source| SetupError::File {
        path: path.to_owned(),
        source,
    })
}

fn pem(path: &Path) -> impl FnOnce(reqwest::Error) -> SetupError {
    let path = path.to_owned();
    move |source| SetupError::Pem { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Client {
        let endpoint = Endpoint::Http(Url::parse(url).expect("a URL"));
        Client::new(&endpoint, &Tls::default(), |builder| builder).expect("nothing to read")
    }

    #[test]
    fn every_segment_stays_one() {
        for (base, segments, url) in [
            ("http://h:1", vec!["v1", "a/b?c"], "http://h:1/v1/a%2Fb%3Fc"),
            ("http://h:1/proxy/", vec!["v1"], "http://h:1/proxy/v1"),
            (
                "http://h:1/proxy",
                vec!["v1", "x y"],
                "http://h:1/proxy/v1/x%20y",
            ),
        ] {
            assert_eq!(client(base).url(segments).as_str(), url);
        }
    }

    #[test]
    fn nothing_in_a_name_gets_lost() {
        for name in [
            "tab\tx",
            "new\nline",
            "\u{a0}",
            "\u{200b}",
            "a%2Fb",
            "a\\b",
            "[x]^|",
        ] {
            let url = client("http://h:1/base/").url(["v1", name, "end"]);
            let segments: Vec<_> = url.path_segments().expect("a path").collect();
            let decoded = percent_encoding::percent_decode_str(segments[2]);
            assert_eq!(decoded.decode_utf8().expect("UTF-8"), name);
            assert_eq!(segments.len(), 4, "{url}");
        }
        for name in [".", ".."] {
            let url = client("http://h:1").url(["v1", name, "end"]);
            assert_eq!(url.path_segments().expect("a path").count(), 3, "{url}");
        }
    }

    #[test]
    fn what_consul_could_not_be_asked_for() {
        for name in [
            "web", "a b", "a/b", "ü", "e\u{301}", "日本", "\"'\\", "%", "…", "a:80",
        ] {
            assert!(is_addressable(name), "{name:?}");
        }
        let odd = [
            "", "/a", "a//b", "a/", ".", "a/../b", "tab\tx", "a\nb", "\u{0}", "\u{a0}", "\u{200b}",
            "\u{feff}", "\u{2028}", "\u{e000}", "\u{7f}", "\u{ad}",
        ];
        for name in odd {
            assert!(!is_addressable(name), "{name:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let tls = Tls {
            authorities: vec!["/nonexistent/ca.pem".into()],
            ..Tls::default()
        };
        let endpoint = Endpoint::Unix("/run/x.sock".into());
        assert_eq!(endpoint.to_string(), "unix:///run/x.sock");
        let error = Client::new(&endpoint, &tls, |builder| builder).expect_err("no such file");
        assert!(
            error.to_string().starts_with("/nonexistent/ca.pem: "),
            "{error}"
        );
    }
}
