//! The command line. Nothing else knows about flags: what leaves this file is a [`Command`] with
//! the [`Flags`] that the configuration starts from.

mod haproxy;
mod register;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands::RegisterMode;
use crate::config::{Address, DockerAddress, Errand, Flags, LogFormat, Switch, Upstreams, parse};

use haproxy::HaproxyArgs;
use register::RegisterArgs;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Serve(Flags),
    /// Run the server on files alone, for trying things out.
    Dev(Flags),
    /// Check the configuration and what it names, or whether a server that runs is ready.
    Check {
        /// What the server was given.
        flags: Flags,
        /// Ask the server that runs.
        running: bool,
    },
    /// Register containers in Consul.
    Register(Flags, RegisterMode),
    /// Keep an HAProxy configured.
    Haproxy(Flags, Errand),
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// Whatever clap found wrong; also a request for help or the version. `clap::Error::exit` prints
/// it and ends with the right code.
pub fn parse_args<I, T>(args: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let command = match Cli::try_parse_from(args)?.verb {
        Verb::Serve(args) => Command::Serve(args.into_flags()?),
        Verb::Dev(args) => Command::Dev(args.into_flags()?),
        Verb::Check(args) => Command::Check {
            flags: args.serve.into_flags()?,
            running: args.running,
        },
        Verb::Register(args) => {
            let (flags, mode) = args.into_parts();
            Command::Register(flags, mode)
        }
        Verb::Haproxy(args) => {
            let errand = args.errand();
            Command::Haproxy(args.into_flags(), errand)
        }
    };
    Ok(command)
}

/// DNS for people who run Consul: answers *.consul from memory on port 53 and recurses for the
/// rest.
#[derive(Debug, Parser)]
#[command(name = "portolan", version, max_term_width = 100)]
#[command(after_help = "Example:
  portolan dev
  dig @127.0.0.1 -p 8053 hello1.service.consul SRV")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the DNS server
    #[command(after_help = "Example:
  portolan serve --listen 10.0.0.5:53 --consul http://127.0.0.1:8500 --upstream 192.0.2.53

A flag beats the environment (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, ...), which beats the file,
which beats the default.")]
    Serve(ServeArgs),

    /// Run the DNS server on the services and zones of two directories, without Consul
    #[command(after_help = "Example:
  portolan dev
  dig @127.0.0.1 -p 8053 hello1.service.consul SRV")]
    Dev(DevArgs),

    /// Check configuration, service files and zones, and say what would be served; or ask the server
    /// that runs whether it is ready
    #[command(after_help = "Example:
  portolan check --config portolan.toml
  portolan check --running

It takes what `serve` takes and starts nothing. The first thing wrong ends it with code 78, and a
server that is not ready with code 1.")]
    Check(CheckArgs),

    /// Register the containers of this host in Consul, by Registrator's labels
    #[command(after_help = "Example:
  portolan register --consul http://127.0.0.1:8500
  docker run -d -e SERVICE_NAME=hello1 -p :80 IMAGE

Only what it registered itself is ever taken away. --dry-run says what it would do.")]
    Register(RegisterArgs),

    /// Keep an HAProxy configured from Consul: services by tag, settings by key
    #[command(after_help = haproxy::EXAMPLE)]
    Haproxy(HaproxyArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file [default: /etc/portolan/portolan.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address for UDP and TCP; may be repeated [default: 127.0.0.1:53]
    #[arg(long, value_name = "IP:PORT", value_parser = parse::listen_address)]
    listen: Vec<SocketAddr>,

    /// Consul's HTTP API, or `none` [env: CONSUL_HTTP_ADDR] [default: http://127.0.0.1:8500]
    #[arg(long, value_name = "URL|none", value_parser = consul)]
    consul: Option<Switch<Address>>,

    /// Take domain, TTLs, limits and recursors from the Consul agent's own dns_config; what is set
    /// here or in the file goes before it
    #[arg(long)]
    from_agent: bool,

    /// File that holds the ACL token for Consul [env: CONSUL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE", value_parser = parse::path)]
    token_file: Option<PathBuf>,

    /// Directory of Consul service-definition files to serve; may be repeated
    #[arg(long, value_name = "DIR", value_parser = parse::path)]
    services: Vec<PathBuf>,

    /// Serve the running containers too, by their SERVICE_* labels: Docker's API, or `none` [env:
    /// DOCKER_HOST] [default: none; without a URL: unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL|none", num_args = 0..=1, default_missing_value = "")]
    #[arg(value_parser = docker)]
    docker: Option<Switch<Option<DockerAddress>>>,

    /// Directory of zone files (*.zone) to serve
    #[arg(long, value_name = "DIR", value_parser = parse::path)]
    zones: Option<PathBuf>,

    /// Keep the last known catalog here, so that a restart while Consul is away still answers
    #[arg(long, value_name = "DIR", value_parser = parse::path)]
    state_dir: Option<PathBuf>,

    /// UDP workers per address [default: one per core]
    #[arg(long, value_name = "N", value_parser = workers)]
    workers: Option<usize>,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Ask the server that listens on the admin address whether it is ready
    #[arg(long)]
    running: bool,

    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Address for UDP and TCP; may be repeated
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8053")]
    #[arg(value_parser = parse::listen_address)]
    listen: Vec<SocketAddr>,

    /// Directory of Consul service-definition files to serve; may be repeated [default:
    /// zones/consul here, else the copy in the program]
    #[arg(long, value_name = "DIR", value_parser = parse::path)]
    services: Vec<PathBuf>,

    /// Directory of zone files (*.zone) to serve [default: zones here, else the copy in the
    /// program]
    #[arg(long, value_name = "DIR", value_parser = parse::path)]
    zones: Option<PathBuf>,

    #[command(flatten)]
    common: CommonArgs,
}

/// What both kinds of server take.
#[derive(Debug, Args)]
struct CommonArgs {
    /// Resolver for all other names, port 53 if left out, or `none`; may be repeated [default:
    /// the system's resolv.conf]
    #[arg(long = "upstream", value_name = "IP[:PORT]|none", value_parser = upstream)]
    upstreams: Vec<Switch<SocketAddr>>,

    /// Domain that services are under [default: consul]
    #[arg(long, value_name = "NAME", value_parser = parse::domain)]
    domain: Option<String>,

    /// Address of /healthz, /ready and /metrics, or `none` [default: 127.0.0.1:8054]
    #[arg(long, value_name = "IP:PORT|none", value_parser = admin)]
    admin: Option<Switch<SocketAddr>>,

    /// Form of log lines: text or json [default: text]
    #[arg(long, value_name = "text|json", value_parser = parse::log_format)]
    log_format: Option<LogFormat>,
}

impl ServeArgs {
    fn into_flags(self) -> Result<Flags, clap::Error> {
        Ok(Flags {
            config: self.config,
            listen: given(self.listen),
            workers: self.workers,
            consul: self.consul,
            from_agent: self.from_agent,
            token_file: self.token_file,
            services: given(self.services),
            serve_docker: self.docker.as_ref().map(|docker| *docker != Switch::Off),
            docker: self.docker.and_then(Switch::on).flatten(),
            zones: self.zones,
            state_dir: self.state_dir,
            ..self.common.into_flags()?
        })
    }
}

impl DevArgs {
    fn into_flags(self) -> Result<Flags, clap::Error> {
        Ok(Flags {
            listen: given(self.listen),
            consul: Some(Switch::Off),
            services: given(self.services),
            zones: self.zones,
            ..self.common.into_flags()?
        })
    }
}

impl CommonArgs {
    fn into_flags(self) -> Result<Flags, clap::Error> {
        Ok(Flags {
            upstreams: upstreams(&self.upstreams)?,
            domain: self.domain,
            admin: self.admin,
            log_format: self.log_format,
            ..Flags::default()
        })
    }
}

/// A repeatable flag that was not given leaves the lower layers alone.
fn given<T>(values: Vec<T>) -> Option<Vec<T>> {
    Some(values).filter(|values| !values.is_empty())
}

fn upstreams(values: &[Switch<SocketAddr>]) -> Result<Option<Upstreams>, clap::Error> {
    let addresses: Vec<SocketAddr> = values
        .iter()
        .filter_map(|value| match value {
            Switch::On(address) => Some(*address),
            Switch::Off => None,
        })
        .collect();
    if values.is_empty() {
        Ok(None)
    } else if addresses.is_empty() {
        Ok(Some(Upstreams::None))
    } else if addresses.len() == values.len() {
        Ok(Some(Upstreams::List(addresses)))
    } else {
        Err(Cli::command().error(
            ErrorKind::ArgumentConflict,
            "`--upstream none` switches recursion off and cannot stand beside an address",
        ))
    }
}

fn consul(text: &str) -> Result<Switch<Address>, String> {
    parse::or_none(text, Address::parse)
}

/// Without a value, Docker where it usually is.
fn docker(text: &str) -> Result<Switch<Option<DockerAddress>>, String> {
    if text.is_empty() {
        return Ok(Switch::On(None));
    }
    parse::or_none(text, |text| DockerAddress::parse(text).map(Some))
}

fn admin(text: &str) -> Result<Switch<SocketAddr>, String> {
    parse::or_none(text, parse::listen_address)
}

fn upstream(text: &str) -> Result<Switch<SocketAddr>, String> {
    parse::or_none(text, parse::upstream)
}

fn workers(text: &str) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=1024).contains(number));
    number.ok_or_else(|| format!("expected a number from 1 to 1024, such as 4, got {text:?}"))
}

#[cfg(test)]
mod tests {
    // What the command line takes, and what it refuses.

    use super::*;

    fn parse_line(line: &str) -> Result<Command, clap::Error> {
        parse_args(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_that_are_not_given_set_nothing() {
        let command = parse_line("portolan serve").expect("a command");
        assert_eq!(command, Command::Serve(Flags::default()));
        let command = parse_line("portolan check").expect("a command");
        let flags = Flags::default();
        assert_eq!(
            command,
            Command::Check {
                flags: flags.clone(),
                running: false
            }
        );
        let command = parse_line("portolan check --running").expect("a command");
        assert_eq!(
            command,
            Command::Check {
                flags,
                running: true
            }
        );
    }

    #[test]
    fn every_flag_of_serve_is_passed_on() {
        let line = "portolan serve --config c.toml --listen 127.0.0.1:1 --listen [::1]:2 \
                --consul http://c:8500 --token-file t --services a --services b --zones z \
                --from-agent --state-dir s --docker tcp://d:1 \
                --workers 4 --upstream 192.0.2.1 --upstream [::1]:5353 \
                --upstream ::1 --domain Sd.Example. --admin none --log-format json";
        let address = |text: &str| text.parse().expect("an address");
        let flags = Flags {
            config: Some("c.toml".into()),
            listen: Some(vec![address("127.0.0.1:1"), address("[::1]:2")]),
            workers: Some(4),
            consul: Some(Switch::On(Address::parse("http://c:8500").expect("a URL"))),
            token_file: Some("t".into()),
            services: Some(vec!["a".into(), "b".into()]),
            zones: Some("z".into()),
            upstreams: Some(Upstreams::List(vec![
                address("192.0.2.1:53"),
                address("[::1]:5353"),
                address("[::1]:53"),
            ])),
            domain: Some("sd.example".to_owned()),
            admin: Some(Switch::Off),
            log_format: Some(LogFormat::Json),
            from_agent: true,
            state_dir: Some("s".into()),
            serve_docker: Some(true),
            docker: Some(DockerAddress::parse("tcp://d:1").expect("an address")),
            ..Flags::default()
        };
        assert_eq!(parse_line(line).expect("a command"), Command::Serve(flags));
    }

    #[test]
    fn dev_needs_no_consul_and_no_root() {
        let Ok(Command::Dev(flags)) = parse_line("portolan dev") else {
            panic!("not dev");
        };
        assert_eq!(flags.consul, Some(Switch::Off));
        let listen = flags.listen.expect("an address");
        assert_eq!(listen, ["127.0.0.1:8053".parse().expect("an address")]);
        // Where they come from then depends on the folder it is run in.
        assert_eq!((flags.services, flags.zones), (None, None));
    }

    #[test]
    fn recursion_and_consul_can_be_switched_off() {
        let Ok(Command::Serve(flags)) = parse_line("portolan serve --upstream none --consul none")
        else {
            panic!("not serve");
        };
        assert_eq!(flags.upstreams, Some(Upstreams::None));
        assert_eq!(flags.consul, Some(Switch::Off));
    }

    #[test]
    fn docker_needs_no_address_and_can_be_switched_off() {
        for (line, serves) in [
            ("portolan serve --docker", Some(true)),
            ("portolan serve --docker --workers 1", Some(true)),
            ("portolan serve --docker none", Some(false)),
            ("portolan serve", None),
        ] {
            let Ok(Command::Serve(flags)) = parse_line(line) else {
                panic!("not serve: {line}");
            };
            assert_eq!((flags.serve_docker, flags.docker), (serves, None), "{line}");
        }
    }

    #[test]
    fn a_wrong_value_is_code_2_and_says_what_was_expected() {
        for (line, expected) in [
            (
                "serve --consul nowhere",
                "something like http://127.0.0.1:8500",
            ),
            (
                "serve --consul 127.0.0.1:8500",
                "did you mean http://127.0.0.1:8500",
            ),
            ("serve --docker docker.sock", "unix:///var/run/docker.sock"),
            ("serve --listen 127.0.0.1", "such as 127.0.0.1:53"),
            ("serve --listen localhost:53", "such as 127.0.0.1:53"),
            ("serve --upstream dns.example", "such as 192.0.2.53"),
            (
                "serve --upstream none --upstream 192.0.2.1",
                "cannot stand beside an address",
            ),
            ("serve --admin 8054", "such as 127.0.0.1:53"),
            ("serve --domain a..b", "such as \"consul\""),
            ("serve --workers 0", "from 1 to 1024"),
            ("serve --log-format xml", "expected \"text\" or \"json\""),
            ("serve --lisen 127.0.0.1:53", "--listen"),
            ("dev --consul http://c:8500", "unexpected argument"),
            ("nothing", "unrecognized subcommand"),
        ] {
            let error = parse_line(&format!("portolan {line}")).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            let shown = error.to_string();
            assert!(shown.contains(expected), "{line}: {shown}");
        }
    }

    #[test]
    fn every_help_shows_an_example() {
        for line in [
            "portolan --help",
            "portolan serve --help",
            "portolan dev --help",
            "portolan check --help",
            "portolan register --help",
            "portolan haproxy --help",
        ] {
            let help = parse_line(line).expect_err(line);
            assert_eq!(help.exit_code(), 0);
            assert!(help.to_string().contains("Example:\n  portolan "), "{help}");
        }
    }
}
