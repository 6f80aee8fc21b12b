//! `[haproxy]`: how `portolan haproxy` keeps an HAProxy configured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::document::{Document, Number, Span, Text};
use super::environment::Strings;
use super::error::{Error, Place};
use super::flags::set;
use super::parse;
use super::token::Token;

/// `USER:PASSWORD` of the statistics page.
const STATS_AUTH: &str = "HAPROXY_STATS_AUTH";

/// The settings of `portolan haproxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Haproxy {
    /// The prefix of its keys in Consul's KV store, without a final slash. Default
    /// `service/haproxy`.
    pub prefix: String,
    /// Services with this tag get a backend. Default `rest`.
    pub tag: String,
    /// The template. Default: the one in the program.
    pub template: Option<PathBuf>,
    /// The file that HAProxy reads. Default `/etc/haproxy/haproxy.cfg`.
    pub output: PathBuf,
    /// HAProxy itself, as a path or as a name on the `PATH`. Default `haproxy`.
    pub program: PathBuf,
    /// The socket of its master process. Default `/run/haproxy-master.sock`.
    pub master_socket: PathBuf,
    /// HAProxy is started here; otherwise one that runs elsewhere is managed. Default true.
    pub exec: bool,
    /// The DNS server that HAProxy asks. Default `127.0.0.1:53`.
    pub resolver: SocketAddr,
    /// Where it takes requests. Default `0.0.0.0:80`.
    pub bind: SocketAddr,
    /// Where its statistics are. Default: port 1936 of all addresses if there are credentials,
    /// else of 127.0.0.1.
    pub stats_bind: Option<SocketAddr>,
    /// `HAPROXY_STATS_AUTH`: `USER:PASSWORD` for the statistics. Default none.
    pub stats_auth: Option<Token>,
    /// Server slots of a backend at least. Default 32.
    pub min_slots: usize,
    /// For how long more than half of the services, or all keys, must have been gone before that
    /// is believed. Default 30 s.
    pub doubt: Duration,
    /// How long HAProxy may differ from Consul before it is reloaded. Default 10 s.
    pub heal_after: Duration,
    /// How long requests in flight may take when it is stopped. Default 8 s, which leaves room
    /// within the 10 s that Docker gives a container.
    pub stop_timeout: Duration,
}

impl Default for Haproxy {
    fn default() -> Self {
        Self {
            prefix: "service/haproxy".to_owned(),
            tag: "rest".to_owned(),
            template: None,
            output: "/etc/haproxy/haproxy.cfg".into(),
            program: "haproxy".into(),
            master_socket: "/run/haproxy-master.sock".into(),
            exec: true,
            resolver: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53),
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80),
            stats_bind: None,
            stats_auth: None,
            min_slots: 32,
            doubt: Duration::from_secs(30),
            heal_after: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(8),
        }
    }
}

/// What the command line sets; what is `None` was not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HaproxyFlags {
    /// `haproxy.prefix`.
    pub prefix: Option<String>,
    /// `haproxy.tag`.
    pub tag: Option<String>,
    /// `haproxy.template`.
    pub template: Option<PathBuf>,
    /// `haproxy.output`.
    pub output: Option<PathBuf>,
    /// `haproxy.program`.
    pub program: Option<PathBuf>,
    /// `haproxy.master_socket`.
    pub master_socket: Option<PathBuf>,
    /// `haproxy.exec`.
    pub exec: Option<bool>,
    /// `haproxy.resolver`.
    pub resolver: Option<SocketAddr>,
    /// `haproxy.bind`.
    pub bind: Option<SocketAddr>,
    /// `haproxy.stats_bind`.
    pub stats_bind: Option<SocketAddr>,
}

/// For how long `portolan haproxy` is to run, and what it may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Until it is stopped.
    Keep,
    /// Until the file is right once.
    Once,
    /// Until it is known what would change in the file, which is shown.
    DryRun,
}

/// The table as the file has it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HaproxyTable {
    prefix: Text,
    tag: Text,
    template: Text,
    output: Text,
    program: Text,
    master_socket: Text,
    exec: Option<bool>,
    resolver: Text,
    bind: Text,
    stats_bind: Text,
    min_slots: Number,
    doubt: Span,
    heal_after: Span,
    stop_timeout: Span,
}

impl HaproxyTable {
    pub(super) fn apply(self, document: &Document<'_>, haproxy: &mut Haproxy) -> Result<(), Error> {
        document.text(&mut haproxy.prefix, self.prefix, parse::prefix)?;
        document.text(&mut haproxy.tag, self.tag, parse::tag)?;
        document.optional(&mut haproxy.template, self.template, parse::path)?;
        document.text(&mut haproxy.output, self.output, parse::path)?;
        document.text(&mut haproxy.program, self.program, parse::path)?;
        document.text(&mut haproxy.master_socket, self.master_socket, parse::path)?;
        haproxy.exec = self.exec.unwrap_or(haproxy.exec);
        document.text(&mut haproxy.resolver, self.resolver, parse::upstream)?;
        document.text(&mut haproxy.bind, self.bind, parse::listen_address)?;
        document.optional(
            &mut haproxy.stats_bind,
            self.stats_bind,
            parse::listen_address,
        )?;
        document.number(&mut haproxy.min_slots, self.min_slots, 1..=10_000)?;
        let hour = Duration::from_secs(3_600);
        document.time(&mut haproxy.doubt, self.doubt, Duration::ZERO..=hour)?;
        let second = Duration::from_secs(1);
        document.time(&mut haproxy.heal_after, self.heal_after, second..=hour)?;
        document.time(
            &mut haproxy.stop_timeout,
            self.stop_timeout,
            Duration::ZERO..=hour,
        )
    }
}

/// Applies the variable over the layers below.
pub(super) fn from_environment(env: &dyn Strings, haproxy: &mut Haproxy) -> Result<(), Error> {
    let Some(text) = env.get(STATS_AUTH).filter(|text| !text.is_empty()) else {
        return Ok(());
    };
    // Neither the text nor the library's words about it: it is a secret.
    let auth = Token::new(&text).ok().filter(|auth| {
        let user = auth.expose().split_once(':').map(|(user, _)| user);
        user.is_some_and(|user| !user.is_empty())
    });
    haproxy.stats_auth = Some(auth.ok_or_else(|| {
        let expected = "expected USER:PASSWORD in printable ASCII without blanks";
        Error::new(Place::Variable(STATS_AUTH), expected)
    })?);
    Ok(())
}

/// Applies the flags over the layers below.
pub(super) fn from_flags(flags: HaproxyFlags, haproxy: &mut Haproxy) {
    // Taken apart whole, so that a new flag cannot be forgotten here.
    let HaproxyFlags {
        prefix,
        tag,
        template,
        output,
        program,
        master_socket,
        exec,
        resolver,
        bind,
        stats_bind,
    } = flags;
    set(&mut haproxy.prefix, prefix);
    set(&mut haproxy.tag, tag);
    set(&mut haproxy.template, template.map(Some));
    set(&mut haproxy.output, output);
    set(&mut haproxy.program, program);
    set(&mut haproxy.master_socket, master_socket);
    set(&mut haproxy.exec, exec);
    set(&mut haproxy.resolver, resolver);
    set(&mut haproxy.bind, bind);
    set(&mut haproxy.stats_bind, stats_bind.map(Some));
}
