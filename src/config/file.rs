//! The file layer: how the values of `portolan.toml` become settings.
//!
//! What each key means and its default stand at the fields of [`super::Config`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::address::Address;
use super::containers::{Docker, Register};
use super::docker::DockerAddress;
use super::document::{Document, List, Text};
use super::draft::{Draft, Placed};
use super::duration::Time;
use super::error::Error;
use super::flags::Switch;
use super::parse;
use super::schema::{
    AnswersTable, ConsulTable, DockerTable, RecursionTable, RegisterTable, Schema, ServerTable,
};
use super::settings::{Answers, Authorities, Config, Consul, Recursion, Soa, Upstreams};
use super::token::{Token, TokenSource};

/// Reads the file that was asked for, which must exist, or the default one if it exists.
pub(super) fn read(
    asked: Option<&Path>,
    default: Option<&Path>,
) -> Result<Option<(PathBuf, String)>, Error> {
    let Some(path) = asked.or(default) else {
        return Ok(None);
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && asked.is_none() => Ok(None),
        Err(error) => Err(Error::file(path, format!("cannot be read: {error}"))),
    }
}

/// Applies the file's text over the defaults.
pub(super) fn apply(path: &Path, text: &str, draft: &mut Draft) -> Result<(), Error> {
    let document = Document::parse(path, text)?;
    let schema: Schema = document.schema()?;
    schema.apply(&document, draft)
}

impl Schema {
    fn apply(self, document: &Document<'_>, draft: &mut Draft) -> Result<(), Error> {
        let Config {
            file: _,
            domain,
            // Set at the end, from the draft.
            alt_domain: _,
            consul: _,
            datacenter,
            state_dir,
            server: _,
            docker,
            register,
            services,
            zones,
            recursion,
            answers,
            admin,
            log,
        } = &mut draft.config;

        document.text(domain, self.domain, parse::domain)?;
        set_placed(
            document,
            &mut draft.alt_domain,
            self.alt_domain,
            parse::domain,
        )?;
        document.text(datacenter, self.datacenter, parse::datacenter)?;
        document.optional(state_dir, self.state_dir, parse::path)?;
        self.docker.apply(document, docker)?;
        self.register.apply(document, register)?;
        document.list(services, self.services.directories, parse::path)?;
        document.optional(zones, self.zones.directory, parse::path)?;
        self.recursion.apply(document, recursion)?;
        self.answers.apply(document, answers)?;
        document.text(admin, self.admin.listen, |text| {
            parse::or_none(text, parse::listen_address).map(Switch::on)
        })?;
        document.text(log, self.log.format, parse::log_format)?;
        self.server.apply(document, draft)?;
        self.consul.apply(document, draft)
    }
}

impl ServerTable {
    fn apply(self, document: &Document<'_>, draft: &mut Draft) -> Result<(), Error> {
        let server = &mut draft.config.server;
        not_empty(
            document,
            self.listen.as_ref(),
            "expected at least one address",
        )?;
        document.list(&mut server.listen, self.listen, parse::listen_address)?;
        document.number(&mut server.workers, self.workers, 1..=1024)?;
        document.number(
            &mut server.max_tcp_connections,
            self.max_tcp_connections,
            1..=1_000_000,
        )?;
        document.number(
            &mut server.max_tcp_connections_per_client,
            self.max_tcp_connections_per_client,
            1..=1_000_000,
        )?;
        document.time(
            &mut server.tcp_idle_timeout,
            self.tcp_idle_timeout,
            Duration::from_millis(100)..=Duration::from_secs(3_600),
        )?;
        document.number(&mut server.queue_size, self.queue_size, 1..=1_000_000)
    }
}

impl ConsulTable {
    fn apply(self, document: &Document<'_>, draft: &mut Draft) -> Result<(), Error> {
        let Consul {
            // Set at the end, from the draft.
            address: _,
            token,
            fallback_addresses,
            datacenter,
            max_watches,
            max_stale,
            translate_wan_addrs,
            tls,
        } = &mut draft.consul;

        document.text(&mut draft.address, self.address, |text| {
            parse::or_none(text, Address::parse)
        })?;
        either(
            document,
            self.token.as_ref(),
            self.token_file.as_ref(),
            "token",
        )?;
        document.text(token, self.token, |text| {
            Token::new(text).map(TokenSource::Given)
        })?;
        document.text(token, self.token_file, |text| {
            parse::path(text).map(TokenSource::File)
        })?;
        document.optional(datacenter, self.datacenter, parse::datacenter)?;
        // With fewer connections there is no room for watches beside what is always open.
        document.number(max_watches, self.max_watches, 32..=10_000)?;
        document.time(max_stale, self.max_stale, Duration::ZERO..=Duration::MAX)?;
        document.list(fallback_addresses, self.fallback_addresses, Address::parse)?;
        *translate_wan_addrs = self.translate_wan_addrs.unwrap_or(*translate_wan_addrs);
        either(
            document,
            self.ca_file.as_ref(),
            self.ca_path.as_ref(),
            "ca_file",
        )?;
        document.text(&mut tls.authorities, self.ca_file, |text| {
            parse::path(text).map(Authorities::File)
        })?;
        document.text(&mut tls.authorities, self.ca_path, |text| {
            parse::path(text).map(Authorities::Directory)
        })?;
        set_placed(
            document,
            &mut draft.client_cert,
            self.client_cert,
            parse::path,
        )?;
        set_placed(
            document,
            &mut draft.client_key,
            self.client_key,
            parse::path,
        )?;
        document.optional(&mut tls.server_name, self.tls_server_name, parse::domain)?;
        tls.verify = self.verify.unwrap_or(tls.verify);
        Ok(())
    }
}

impl DockerTable {
    fn apply(self, document: &Document<'_>, docker: &mut Docker) -> Result<(), Error> {
        document.text(&mut docker.address, self.address, DockerAddress::parse)?;
        document.optional(&mut docker.cert_path, self.cert_path, parse::path)?;
        docker.serve = self.serve.unwrap_or(docker.serve);
        document.optional(&mut docker.ip, self.ip, parse::service_address)
    }
}

impl RegisterTable {
    fn apply(self, document: &Document<'_>, register: &mut Register) -> Result<(), Error> {
        document.optional(&mut register.owner, self.owner, parse::owner)?;
        document.optional(&mut register.ip, self.ip, parse::service_address)?;
        document.list(&mut register.tags, self.tags, parse::tag)?;
        register.internal = self.internal.unwrap_or(register.internal);
        register.explicit = self.explicit.unwrap_or(register.explicit);
        document.text(&mut register.deregister, self.deregister, parse::deregister)?;
        document.text(&mut register.on_exit, self.on_exit, parse::on_exit)?;
        document.time(&mut register.resync, self.resync, parse::RESYNC)
    }
}

impl RecursionTable {
    fn apply(self, document: &Document<'_>, recursion: &mut Recursion) -> Result<(), Error> {
        if let Some(raw) = self.upstreams {
            let texts = &raw.get_ref().0;
            let is_none = texts.is_empty() || texts.iter().all(|text| text.get_ref() == "none");
            let mut list = Vec::new();
            if !is_none {
                document.list(&mut list, Some(raw), parse::upstream)?;
            }
            recursion.upstreams = match is_none {
                true => Upstreams::None,
                false => Upstreams::List(list),
            };
        }
        document.list(&mut recursion.allow, self.allow, parse::network)?;
        document.text(
            &mut recursion.recursor_strategy,
            self.recursor_strategy,
            parse::recursor_strategy,
        )?;
        document.time(
            &mut recursion.recursor_timeout,
            self.recursor_timeout,
            Duration::from_millis(10)..=Duration::from_secs(60),
        )?;
        document.number(&mut recursion.cache_size, self.cache_size, 0..=10_000_000)
    }
}

impl AnswersTable {
    fn apply(self, document: &Document<'_>, answers: &mut Answers) -> Result<(), Error> {
        // 512 bytes are every client's right; 65507 is the most that fits into a datagram.
        document.number(&mut answers.max_udp_size, self.max_udp_size, 512..=65_507)?;
        document.text(
            &mut answers.truncate_addresses,
            self.truncate_addresses,
            parse::truncate_addresses,
        )?;
        document.text(&mut answers.srv_target, self.srv_target, parse::srv_target)?;
        document.set(
            &mut answers.srv_weight_scale,
            self.srv_weight_scale,
            |scale| match scale {
                1 => Ok(1),
                256 => Ok(256),
                _ => Err(format!("expected 1 or 256, got {scale}")),
            },
        )?;
        answers.only_passing = self.only_passing.unwrap_or(answers.only_passing);
        service_ttl(document, &mut answers.service_ttl, self.service_ttl)?;
        document.seconds(&mut answers.node_ttl, self.node_ttl)?;
        document.number(&mut answers.a_record_limit, self.a_record_limit, 0..=65_535)?;
        document.number(
            &mut answers.udp_answer_limit,
            self.udp_answer_limit,
            0..=65_535,
        )?;

        let Soa {
            min_ttl,
            refresh,
            retry,
            expire,
        } = &mut answers.soa;
        document.seconds(min_ttl, self.soa.min_ttl)?;
        document.seconds(refresh, self.soa.refresh)?;
        document.seconds(retry, self.soa.retry)?;
        document.seconds(expire, self.soa.expire)
    }
}

/// Sets the TTLs that are given, and leaves the one for `*` if it is not among them.
fn service_ttl(
    document: &Document<'_>,
    target: &mut BTreeMap<String, Duration>,
    raw: BTreeMap<Spanned<String>, Spanned<Time>>,
) -> Result<(), Error> {
    let mut seen = Vec::new();
    for (pattern, ttl) in raw {
        let span = pattern.span();
        let error = |message| document.error(&span, message);
        let pattern = parse::service_pattern(pattern.get_ref()).map_err(error)?;
        if seen.contains(&pattern) {
            return Err(error(format!(
                "{pattern:?} is set twice: case does not matter"
            )));
        }
        let mut seconds = Duration::ZERO;
        document.seconds(&mut seconds, Some(ttl))?;
        target.insert(pattern.clone(), seconds);
        seen.push(pattern);
    }
    Ok(())
}

fn set_placed<T>(
    document: &Document<'_>,
    target: &mut Placed<T>,
    raw: Text,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(), Error> {
    let place = raw.as_ref().map(|raw| document.place(&raw.span()));
    let mut value = None;
    document.optional(&mut value, raw, parse)?;
    *target = value.zip(place);
    Ok(())
}

fn not_empty(
    document: &Document<'_>,
    list: Option<&Spanned<List>>,
    message: &str,
) -> Result<(), Error> {
    match list {
        Some(list) if list.get_ref().0.is_empty() => Err(document.error(&list.span(), message)),
        _ => Ok(()),
    }
}

/// Two keys of which one may be set: which of them would win is nothing to guess at.
fn either(
    document: &Document<'_>,
    one: Option<&Spanned<String>>,
    other: Option<&Spanned<String>>,
    name: &str,
) -> Result<(), Error> {
    match (one, other) {
        (Some(_), Some(other)) => Err(document.error(
            &other.span(),
            format!("`consul.{name}` is set too: keep one of the two"),
        )),
        _ => Ok(()),
    }
}
