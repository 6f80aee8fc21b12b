//! Where Docker's API is.

use std::fmt;
use std::path::PathBuf;

use url::Url;

/// Where Docker's API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A URL of `http` or `https`; a path is put before that of every request.
    Http(Url),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
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
