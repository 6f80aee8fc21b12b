//! What keeps recursion from being set up.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::upstream::Address;

/// Why recursion cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Recursion without an upstream.
    #[error("no upstream to recurse through")]
    NoUpstreams,
    /// The operating system's list of resolvers cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An upstream is one of our own listeners.
    #[error(
        "upstream {upstream} is Portolan itself (it listens on {listener}): every question would \
         come back; name another resolver with --upstream, or --upstream none"
    )]
    Loop {
        /// The upstream.
        upstream: Box<Address>,
        /// The listener that it reaches.
        listener: SocketAddr,
    },
    /// The system does not list its interfaces.
    #[error("cannot list this host's addresses: {0}")]
    Interfaces(io::Error),
    /// An upstream cannot be asked.
    #[error("upstream {upstream}: {message}")]
    Upstream {
        /// The upstream.
        upstream: Box<Address>,
        /// Why.
        message: String,
    },
}
