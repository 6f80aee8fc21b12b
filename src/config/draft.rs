//! A configuration while the layers are applied, and the checks that need more than one key.

use std::path::PathBuf;

use super::address::Address;
use super::error::{Error, Place};
use super::flags::Switch;
use super::settings::{ClientCertificate, Config, Consul};

/// A value and where it was set, for errors that are found only when all layers are known.
pub(super) type Placed<T> = Option<(T, Place)>;

/// What the layers are applied to. It starts as the defaults.
pub(super) struct Draft {
    /// All that needs no check across keys; its `consul` and `alt_domain` are set at the end.
    pub(super) config: Config,
    /// `consul.address`.
    pub(super) address: Switch<Address>,
    /// The rest of `[consul]`, which is kept apart because the address may be `none`.
    pub(super) consul: Consul,
    /// `consul.client_cert`.
    pub(super) client_cert: Placed<PathBuf>,
    /// `consul.client_key`.
    pub(super) client_key: Placed<PathBuf>,
    /// `alt_domain`.
    pub(super) alt_domain: Placed<String>,
}

impl Draft {
    /// A draft that starts as `base`.
    pub(super) fn over(base: Config) -> Self {
        let consul = base.consul.clone().unwrap_or_default();
        Self {
            config: base,
            address: Switch::On(consul.address.clone()),
            consul,
            client_cert: None,
            client_key: None,
            alt_domain: None,
        }
    }

    /// Checks what concerns several keys, and completes the configuration.
    pub(super) fn finish(self) -> Result<Config, Error> {
        let Self {
            mut config,
            address,
            mut consul,
            client_cert,
            client_key,
            alt_domain,
        } = self;

        if let Some((alt_domain, place)) = alt_domain {
            if alt_domain == config.domain {
                return Err(Error::new(place, "the same as `domain`: leave it out"));
            }
            config.alt_domain = Some(alt_domain);
        }

        let server = &mut config.server;
        server.max_tcp_connections_per_client = server
            .max_tcp_connections_per_client
            .min(server.max_tcp_connections);
        keep_first(&mut server.listen);
        keep_first(&mut config.services);

        config.consul = match address {
            Switch::Off => None,
            Switch::On(address) => {
                consul.address = address;
                consul.tls.client = pair(client_cert, client_key)?;
                Some(consul)
            }
        };
        Ok(config)
    }
}

fn pair(
    certificate: Placed<PathBuf>,
    key: Placed<PathBuf>,
) -> Result<Option<ClientCertificate>, Error> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some((certificate, _)), Some((key, _))) => {
            Ok(Some(ClientCertificate { certificate, key }))
        }
        (Some((_, place)), None) => Err(Error::new(
            place,
            "a client certificate needs its key: set `consul.client_key` or CONSUL_CLIENT_KEY too",
        )),
        (None, Some((_, place))) => Err(Error::new(
            place,
            "a client key needs its certificate: set `consul.client_cert` or CONSUL_CLIENT_CERT too",
        )),
    }
}

/// Drops what was listed before: the second bind of one address would fail.
fn keep_first<T: PartialEq>(list: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *list = kept;
}
