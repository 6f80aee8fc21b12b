//! The flags of `portolan haproxy`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::{Address, Errand, Flags, HaproxyFlags, LogFormat, Switch, parse};

/// What stands below the help.
pub(super) const EXAMPLE: &str = "Example:
  portolan haproxy --consul http://127.0.0.1:8500 --tag rest --resolver 127.0.0.1:53

HAProxy runs as a child of this process. Keys under the prefix: maxconn, timeouts/connect and its
kin, balance, check/path, stats/auth. The statistics take their USER:PASSWORD from stats/auth or
from the environment variable HAPROXY_STATS_AUTH.";

#[derive(Debug, Args)]
pub(super) struct HaproxyArgs {
    /// Configuration file [default: /etc/portolan/portolan.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Consul's HTTP API [env: CONSUL_HTTP_ADDR] [default: http://127.0.0.1:8500]
    #[arg(long, value_name = "URL", value_parser = Address::parse)]
    consul: Option<Address>,

    /// File that holds the ACL token for Consul [env: CONSUL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE", value_parser = parse::path)]
    token_file: Option<PathBuf>,

    /// Where its keys are in Consul's KV store [default: service/haproxy]
    #[arg(long, value_name = "KEY", value_parser = parse::prefix)]
    prefix: Option<String>,

    /// Services with this tag get a backend [default: rest]
    #[arg(long, value_name = "TAG", value_parser = parse::tag)]
    tag: Option<String>,

    /// Template of haproxy.cfg [default: the one in the program]
    #[arg(long, value_name = "FILE", value_parser = parse::path)]
    template: Option<PathBuf>,

    /// The file to keep right [default: /etc/haproxy/haproxy.cfg]
    #[arg(long, value_name = "FILE", value_parser = parse::path)]
    output: Option<PathBuf>,

    /// HAProxy [default: haproxy, on the PATH]
    #[arg(long, value_name = "PATH", value_parser = parse::path)]
    haproxy: Option<PathBuf>,

    /// Socket of HAProxy's master process [default: /run/haproxy-master.sock]
    #[arg(long, value_name = "PATH", value_parser = parse::path)]
    master_socket: Option<PathBuf>,

    /// DNS server for HAProxy to ask [default: 127.0.0.1:53]
    #[arg(long, value_name = "IP[:PORT]", value_parser = parse::upstream)]
    resolver: Option<SocketAddr>,

    /// Address for requests [default: 0.0.0.0:80]
    #[arg(long, value_name = "IP:PORT", value_parser = parse::listen_address)]
    bind: Option<SocketAddr>,

    /// Address of HAProxy's statistics [default: port 1936, of 127.0.0.1 alone while there are no
    /// credentials for them]
    #[arg(long, value_name = "IP:PORT", value_parser = parse::listen_address)]
    stats_bind: Option<SocketAddr>,

    /// Domain that services are under [default: consul]
    #[arg(long, value_name = "NAME", value_parser = parse::domain)]
    domain: Option<String>,

    /// Do not start HAProxy: manage the one at the master socket
    #[arg(long)]
    no_exec: bool,

    /// End as soon as the file is right
    #[arg(long)]
    once: bool,

    /// Show what would change in the file, and end
    #[arg(long, conflicts_with = "once")]
    dry_run: bool,

    /// Address of /healthz, /ready and /metrics, or `none` [default: 127.0.0.1:8056]
    #[arg(long, value_name = "IP:PORT|none", value_parser = super::admin)]
    admin: Option<Switch<SocketAddr>>,

    /// Form of log lines: text or json [default: text]
    #[arg(long, value_name = "text|json", value_parser = parse::log_format)]
    log_format: Option<LogFormat>,
}

impl HaproxyArgs {
    pub(super) fn errand(&self) -> Errand {
        match (self.once, self.dry_run) {
            (_, true) => Errand::DryRun,
            (true, false) => Errand::Once,
            (false, false) => Errand::Keep,
        }
    }

    pub(super) fn into_flags(self) -> Flags {
        Flags {
            config: self.config,
            consul: self.consul.map(Switch::On),
            token_file: self.token_file,
            domain: self.domain,
            admin: self.admin,
            log_format: self.log_format,
            haproxy: HaproxyFlags {
                prefix: self.prefix,
                tag: self.tag,
                template: self.template,
                output: self.output,
                program: self.haproxy,
                master_socket: self.master_socket,
                exec: self.no_exec.then_some(false),
                resolver: self.resolver,
                bind: self.bind,
                stats_bind: self.stats_bind,
            },
            ..Flags::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse_args};
    use super::*;

    #[test]
    fn every_flag_is_passed_on() {
        let line = "portolan haproxy --config c.toml --consul http://c:8500 --token-file t \
                    --prefix lb/ --tag web --template e.j2 --output e.cfg --haproxy /h \
                    --master-socket m --resolver 192.0.2.1 --bind 0.0.0.0:81 --stats-bind [::]:82 \
                    --domain Sd.example --no-exec --once --admin none --log-format json";
        let address = |text: &str| text.parse().expect("an address");
        let consul = Address::parse("http://c:8500").expect("a URL");
        let flags = Flags {
            config: Some("c.toml".into()),
            consul: Some(Switch::On(consul)),
            token_file: Some("t".into()),
            domain: Some("sd.example".to_owned()),
            admin: Some(Switch::Off),
            log_format: Some(LogFormat::Json),
            haproxy: HaproxyFlags {
                prefix: Some("lb".to_owned()),
                tag: Some("web".to_owned()),
                template: Some("e.j2".into()),
                output: Some("e.cfg".into()),
                program: Some("/h".into()),
                master_socket: Some("m".into()),
                exec: Some(false),
                resolver: Some(address("192.0.2.1:53")),
                bind: Some(address("0.0.0.0:81")),
                stats_bind: Some(address("[::]:82")),
            },
            ..Flags::default()
        };
        let words = line.split_whitespace();
        let command = parse_args(words).expect("a command");
        assert_eq!(command, Command::Haproxy(flags, Errand::Once));
        let plain = parse_args(["portolan", "haproxy"]).expect("a command");
        assert_eq!(plain, Command::Haproxy(Flags::default(), Errand::Keep));
        let both = parse_args(["portolan", "haproxy", "--once", "--dry-run"]);
        assert_eq!(both.expect_err("a conflict").exit_code(), 2);
    }
}
