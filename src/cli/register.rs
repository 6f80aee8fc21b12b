//! The flags of `portolan register`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::commands::RegisterMode;
use crate::config::{
    Address, Deregister, DockerAddress, Flags, LogFormat, OnExit, RegisterFlags, Switch, parse,
};

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// Configuration file [default: /etc/portolan/portolan.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Docker's API [env: DOCKER_HOST] [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL", value_parser = parse::DockerAddress::parse)]
    docker: Option<DockerAddress>,

    /// HTTP API of the Consul agent of this host [env: CONSUL_HTTP_ADDR] [default:
    /// http://127.0.0.1:8500]
    #[arg(long, value_name = "URL", value_parser = Address::parse)]
    consul: Option<Address>,

    /// File that holds the ACL token for Consul [env: CONSUL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE", value_parser = parse::path)]
    token_file: Option<PathBuf>,

    /// Name that our services bear in Consul; only what bears it is ever taken away [default: the
    /// ID of the Docker engine]
    #[arg(long, value_name = "NAME", value_parser = parse::owner)]
    owner: Option<String>,

    /// Address of published ports [default: that of Consul's agent]
    #[arg(long, value_name = "IP", value_parser = parse::service_address)]
    ip: Option<IpAddr>,

    /// Tags that every service gets
    #[arg(long, value_name = "TAG,…", value_delimiter = ',', value_parser = parse::tag)]
    tags: Vec<String>,

    /// Register containers with their own addresses and ports instead of published ones
    #[arg(long)]
    internal: bool,

    /// Register only containers with a SERVICE_NAME
    #[arg(long)]
    explicit: bool,

    /// When a container has ended, take its services away `always`, or `on-success` alone [default:
    /// always]
    #[arg(long, value_name = "WHEN", value_parser = parse::deregister)]
    deregister: Option<Deregister>,

    /// At the end `keep` all services or `deregister` them [default: keep]
    #[arg(long, value_name = "WHAT", value_parser = parse::on_exit)]
    on_exit: Option<OnExit>,

    /// How often everything is compared, whatever Docker says [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse::resync)]
    resync: Option<Duration>,

    /// Take over, once, what Registrator registered under this host's name
    #[arg(long)]
    adopt: bool,

    /// Compare once, do what is needed, and end
    #[arg(long)]
    once: bool,

    /// Print what would be done, and end
    #[arg(long)]
    dry_run: bool,

    /// Address of /healthz, /ready and /metrics, or `none` [default: 127.0.0.1:8055]
    #[arg(long, value_name = "IP:PORT|none", value_parser = super::admin)]
    admin: Option<Switch<SocketAddr>>,

    /// Form of log lines: text or json [default: text]
    #[arg(long, value_name = "text|json", value_parser = parse::log_format)]
    log_format: Option<LogFormat>,
}

impl RegisterArgs {
    pub(super) fn into_parts(self) -> (Flags, RegisterMode) {
        let mode = RegisterMode {
            adopt: self.adopt,
            once: self.once,
            dry_run: self.dry_run,
        };
        let register = RegisterFlags {
            owner: self.owner,
            ip: self.ip,
            tags: super::given(self.tags),
            internal: self.internal,
            explicit: self.explicit,
            deregister: self.deregister,
            on_exit: self.on_exit,
            resync: self.resync,
        };
        let flags = Flags {
            config: self.config,
            with_docker: true,
            docker: self.docker,
            consul: self.consul.map(Switch::On),
            token_file: self.token_file,
            register,
            admin: self.admin,
            log_format: self.log_format,
            ..Flags::default()
        };
        (flags, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse_args};
    use super::*;

    fn parse_line(line: &str) -> Result<Command, clap::Error> {
        parse_args(line.split(' '))
    }

    #[test]
    fn flags_that_are_not_given_set_nothing() {
        let flags = Flags {
            with_docker: true,
            ..Flags::default()
        };
        let command = parse_line("portolan register").expect("a command");
        assert_eq!(command, Command::Register(flags, RegisterMode::default()));
    }

    #[test]
    fn every_flag_of_register_is_passed_on() {
        let line = "portolan register --config c.toml --docker tcp://d:2375 --consul http://c:8500 \
                    --token-file t --owner me --ip 10.0.0.5 --tags a,b --tags c --internal \
                    --explicit --deregister on-success --on-exit deregister --resync 1m --adopt \
                    --once --dry-run --admin none --log-format json";
        let flags = Flags {
            config: Some("c.toml".into()),
            with_docker: true,
            docker: Some(DockerAddress::parse("tcp://d:2375").expect("an address")),
            consul: Some(Switch::On(Address::parse("http://c:8500").expect("a URL"))),
            token_file: Some("t".into()),
            register: RegisterFlags {
                owner: Some("me".to_owned()),
                ip: Some([10, 0, 0, 5].into()),
                tags: Some(["a", "b", "c"].map(str::to_owned).to_vec()),
                internal: true,
                explicit: true,
                deregister: Some(Deregister::OnSuccess),
                on_exit: Some(OnExit::Deregister),
                resync: Some(Duration::from_secs(60)),
            },
            admin: Some(Switch::Off),
            log_format: Some(LogFormat::Json),
            ..Flags::default()
        };
        let mode = RegisterMode {
            adopt: true,
            once: true,
            dry_run: true,
        };
        let command = parse_line(line).expect("a command");
        assert_eq!(command, Command::Register(flags, mode));
    }

    #[test]
    fn a_wrong_value_is_code_2_and_says_what_was_expected() {
        for (flags, expected) in [
            ("--docker nowhere", "something like unix://"),
            ("--docker ssh://host", "not supported"),
            ("--consul none", "something like http://127.0.0.1:8500"),
            ("--ip 0.0.0.0", "such as 10.0.0.5"),
            ("--tags a,,b", "a tag is empty"),
            ("--deregister never", "\"always\" or \"on-success\""),
            ("--on-exit stay", "\"keep\" or \"deregister\""),
            ("--resync 30", "no unit"),
            ("--resync 10ms", "expected 1s to 24h"),
            ("--ttl 30", "unexpected argument"),
        ] {
            let error = parse_line(&format!("portolan register {flags}")).expect_err(flags);
            assert_eq!(error.exit_code(), 2, "{flags}");
            let shown = error.to_string();
            assert!(shown.contains(expected), "{flags}: {shown}");
        }
    }
}
