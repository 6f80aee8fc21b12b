//! How a connection to an upstream is opened, under TLS or not.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Address;
use super::trust::Trust;

/// How a connection is made one of TLS.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// To one whose certificate is for this name, or else for its address, if somebody of these vouches for it.
    pub(super) fn new(
        address: &Address,
        name: Option<&str>,
        trust: &Trust,
    ) -> Result<Self, String> {
        let name = match name {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| format!("{name} cannot be the name of a certificate"))?,
            None => ServerName::from(address.ip()),
        };
        let connector = Arc::new(trust.speaking(&["dot"])).into();
        Ok(Self { connector, name })
    }
}

/// What a connection is made of.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Opens a connection.
pub(super) async fn connect(to: Arc<(Address, Option<Tls>)>) -> io::Result<Box<dyn Stream>> {
    let (address, tls) = &*to;
    let stream = TcpStream::connect(address.socket()?).await?;
    // Questions are whole messages: waiting for more to send only delays them.
    stream.set_nodelay(true)?;
    Ok(match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.connector.connect(tls.name.clone(), stream).await?),
    })
}
