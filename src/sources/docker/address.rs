//! Where Docker's API is, in the grammar of `DOCKER_HOST`.

use std::path::PathBuf;

use url::Url;

/// Where Docker's API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `tcp://host:port`, `http://…` or `https://…`; `tcp` is either, by `DOCKER_TLS_VERIFY`.
    Http(Url),
}

/// How to get at Docker's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where it is.
    pub address: Address,
    /// The directory with `ca.pem`, `cert.pem` and `key.pem` (`DOCKER_CERT_PATH`), for https.
    pub certificates: Option<PathBuf>,
}
