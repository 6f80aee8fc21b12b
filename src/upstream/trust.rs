//! Who an upstream has to be, for what is said to it over TLS: somebody vouches for its certificate, and the
//! certificate is for its name. There is no way round that (strict privacy, RFC 8310 section 5).

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

/// Why nobody can vouch for certificates.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("expected a PEM file, but {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds no certificate.
    #[error("{}: expected certificates in PEM, {message}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is there instead.
        message: String,
    },
    /// The system trusts nobody.
    #[error(
        "nobody vouches for tls:// and https:// upstreams: {0}; install the system's certificates \
         (package ca-certificates), or name a file in recursion.ca_file"
    )]
    System(rustls::Error),
}

/// Those who may vouch for the certificates of upstreams. TLS sessions are kept here, so that a connection that is
/// opened again takes one round trip less (RFC 8446 section 2.2).
#[derive(Debug, Clone)]
pub struct Trust {
    config: ClientConfig,
    /// The certificates; `None` for those of the system.
    pem: Option<Vec<u8>>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Trust {
    /// Those whose certificates are in this file; else those whom the system trusts.
    ///
    /// # Errors
    /// [`TrustError`]: there is nobody.
    pub fn new(file: Option<&Path>) -> Result<Self, TrustError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TrustError::System)?;
        let Some(path) = file else {
            let config = builder
                .with_platform_verifier()
                .map_err(TrustError::System)?
                .with_no_client_auth();
            return Ok(Self { config, pem: None });
        };
        let pem = fs::read(path).map_err(|source| TrustError::File {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |message: String| TrustError::Pem {
            path: path.to_owned(),
            message,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(format!("but {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(format!("but {error}")))?;
        }
        if roots.is_empty() {
            return Err(wrong("but there is none".to_owned()));
        }
        Ok(Self {
            config: builder.with_root_certificates(roots).with_no_client_auth(),
            pem: Some(pem),
        })
    }

    /// What a connection goes by on which one of these protocols is spoken (ALPN, RFC 7301).
    pub(super) fn speaking(&self, protocols: &[&str]) -> ClientConfig {
        let mut config = self.config.clone();
        let protocols = protocols.iter().map(|own| own.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        config
    }
}

/// What is wrong with the other side's certificate, if that is why there is no connection.
pub(super) fn distrust(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        // What an I/O error was made of is not among its causes.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let found = match inner {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        match found {
            Some(rustls::Error::InvalidCertificate(why)) => return Some(reason(why)),
            Some(own @ rustls::Error::NoCertificatesPresented) => return Some(own.to_string()),
            _ => {}
        }
        next = match inner {
            Some(inner) if found.is_none() => Some(inner),
            _ => error.source(),
        };
    }
    None
}

/// The usual reasons in plain words.
fn reason(why: &CertificateError) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; is the clock right?".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("it is for another name: {}", presented.join(", "))
        }
        CertificateError::NotValidForName => "it is for another name".to_owned(),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no authority that is trusted has signed it; see recursion.ca_file".to_owned()
        }
        other => other.to_string(),
    }
}
