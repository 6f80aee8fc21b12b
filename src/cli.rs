//! The command line: the commands, and a flag for every key that has one. What leaves this file is a
//! [`Command`] with the [`Flags`] that the configuration is made with.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches};

use crate::commands::RegisterMode;
use crate::config::{Errand, Flags, KEYS, Key, KeyFlag, Verb};

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
    Haproxy {
        /// Its settings.
        flags: Flags,
        /// For how long.
        errand: Errand,
        /// Take over a file that somebody else wrote.
        adopt_config: bool,
    },
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
    let mut program = program();
    let matches = program.try_get_matches_from_mut(args)?;
    let (name, matches) = matches
        .subcommand()
        .ok_or_else(|| program.error(ErrorKind::MissingSubcommand, "name a command"))?;
    let flags = |verb| {
        flags(verb, matches)
            .map_err(|message| program.clone().error(ErrorKind::ValueValidation, message))
    };
    let is_given = |name: &str| matches.get_flag(name);
    Ok(match name {
        "dev" => Command::Dev(flags(Verb::Dev)?),
        "check" => Command::Check {
            flags: flags(Verb::Serve)?,
            running: is_given("running"),
        },
        "register" => {
            let mode = RegisterMode {
                adopt: is_given("adopt"),
                once: is_given("once"),
                dry_run: is_given("dry-run"),
                explain: matches.get_one::<String>("explain").cloned(),
            };
            Command::Register(flags(Verb::Register)?, mode)
        }
        "haproxy" => {
            let errand = match (is_given("once"), is_given("dry-run")) {
                (_, true) => Errand::DryRun,
                (true, false) => Errand::Once,
                (false, false) => Errand::Keep,
            };
            Command::Haproxy {
                flags: flags(Verb::Haproxy)?,
                errand,
                adopt_config: is_given("adopt-config"),
            }
        }
        _ => Command::Serve(flags(Verb::Serve)?),
    })
}

/// What was given, in the configuration's words.
fn flags(verb: Verb, matches: &ArgMatches) -> Result<Flags, String> {
    let mut flags = Flags::new(verb);
    for (key, flag) in keys_of(verb) {
        let given = || matches.get_many::<String>(key.path).into_iter().flatten();
        if flag.value.is_empty() {
            if matches.get_flag(key.path) {
                flags.set(key.path, &[key.turned_round()])?;
            }
        } else if given().next().is_some() {
            let words: Vec<&String> = given().collect();
            flags.set(key.path, &words)?;
        }
    }
    if verb != Verb::Dev {
        flags.config = matches.get_one::<PathBuf>(CONFIG).cloned();
    }
    if verb == Verb::Serve {
        flags.from_agent = matches.get_flag(FROM_AGENT);
        match matches.get_one::<String>(DOCKER).map(String::as_str) {
            None => {}
            Some("none") => flags.set("docker.serve", &["false"])?,
            Some(address) => {
                flags.set("docker.serve", &["true"])?;
                if !address.is_empty() {
                    flags.set("docker.address", &[address])?;
                }
            }
        }
    }
    Ok(flags)
}

const CONFIG: &str = "config";
const FROM_AGENT: &str = "from-agent";
const DOCKER: &str = "docker";

fn keys_of(verb: Verb) -> impl Iterator<Item = (&'static Key, KeyFlag)> {
    let with_flag = KEYS.iter().filter_map(|key| Some((key, key.flag?)));
    with_flag.filter(move |(_, flag)| flag.verbs.contains(&verb))
}

fn program() -> clap::Command {
    clap::Command::new("portolan")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "DNS for people who run Consul: answers *.consul from memory on port 53 and recurses for the rest",
        )
        .after_help(
            "Example:
  portolan dev
  dig @127.0.0.1 -p 8053 hello1.service.consul SRV",
        )
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(dev())
        .subcommand(check())
        .subcommand(register())
        .subcommand(haproxy())
}

fn serve() -> clap::Command {
    command("serve", Verb::Serve)
        .about("Run the DNS server")
        .args(of_serve())
        .after_help(
            "Example:
  portolan serve --listen 10.0.0.5:53 --consul http://127.0.0.1:8500 --upstream 192.0.2.53

A flag beats the environment (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, ...), which beats the file,
which beats the default.",
        )
}

fn dev() -> clap::Command {
    command("dev", Verb::Dev)
        .about("Run the DNS server on the services and zones of two directories, without Consul")
        .after_help(
            "Example:
  portolan dev
  dig @127.0.0.1 -p 8053 hello1.service.consul SRV

Without --services it takes zones/consul, without --zones it takes zones, each from the folder that
it runs in, or else the copies in the program.",
        )
}

fn check() -> clap::Command {
    let running = "Ask the server that listens on the admin address whether it is ready";
    command("check", Verb::Serve)
        .about(
            "Check configuration, certificates, service files and zones, and say what would be served; or \
             ask the server that runs whether it is ready",
        )
        .arg(switch("running", running))
        .args(of_serve())
        .after_help(
            "Example:
  portolan check --config portolan.toml
  portolan check --running

It takes what `serve` takes and starts nothing. It prints every mistake, one on a line, and ends with
code 78 if there is one; a server that is not ready ends it with code 1.",
        )
}

fn register() -> clap::Command {
    let adopt = "Take over, once, what Registrator registered under this host's name";
    command("register", Verb::Register)
        .about("Register the containers of this host in Consul, by Registrator's labels")
        .arg(switch("adopt", adopt))
        .arg(switch("once", "Compare once, do what is needed, and end"))
        .arg(switch("dry-run", "Print what would be done, and end"))
        .arg(
            Arg::new("explain")
                .long("explain")
                .value_name("CONTAINER")
                .help("Say what became of a container: registered as what, or why not, and since when; and end")
                .conflicts_with_all(["once", "dry-run"]),
        )
        .after_help(
            "Example:
  portolan register --consul http://127.0.0.1:8500
  docker run -d -e SERVICE_NAME=hello1 -p :80 IMAGE
  portolan register --consul http://127.0.0.1:8500 --explain hello1

It removes only services that it has registered itself. --dry-run says what it would do.",
        )
}

fn haproxy() -> clap::Command {
    let dry_run = switch("dry-run", "Show what would change in the file, and end");
    command("haproxy", Verb::Haproxy)
        .about("Keep an HAProxy configured from Consul: services by tag, settings by key")
        .arg(switch("once", "End as soon as the file is right"))
        .arg(dry_run.conflicts_with("once"))
        .arg(switch(
            "adopt-config",
            "Take over a file that somebody else wrote, and keep it as FILE.before-portolan",
        ))
        .after_help(
            "Example:
  portolan haproxy --consul http://127.0.0.1:8500 --tag rest --resolver 127.0.0.1:53

HAProxy runs as a child of this process. Keys under the prefix: maxconn, timeouts/connect and its
kin, balance, check/path, stats/auth. The statistics take their USER:PASSWORD from stats/auth or
from the environment variable HAPROXY_STATS_AUTH.",
        )
}

/// A command with the flags of its keys.
fn command(name: &'static str, verb: Verb) -> clap::Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Configuration file [default: /etc/portolan/portolan.toml if it exists]");
    let config = Some(config).filter(|_| verb != Verb::Dev);
    let keys = keys_of(verb).map(|(key, flag)| argument(key, flag, verb));
    clap::Command::new(name).args(config).args(keys)
}

fn argument(key: &'static Key, flag: KeyFlag, verb: Verb) -> Arg {
    let argument = Arg::new(key.path).long(flag.name).help(help(key, verb));
    if flag.value.is_empty() {
        return argument.action(ArgAction::SetTrue);
    }
    let check = move |word: &str| key.check(word).map(|()| word.to_owned());
    let argument = argument.value_name(flag.value).value_parser(check);
    let argument = match key.is_list() {
        true => argument.action(ArgAction::Append),
        false => argument,
    };
    match flag.value.contains(',') {
        true => argument.value_delimiter(','),
        false => argument,
    }
}

fn help(key: &Key, verb: Verb) -> String {
    let mut help = match key.default {
        // What the flag does is the opposite of what the key means.
        Some("true") => format!("Do not {}", lower(key.help)),
        _ => key.help.to_owned(),
    };
    if let Some(variable) = key.variable {
        help += &format!(" [env: {variable}]");
    }
    let own = verb.defaults().iter().find(|(path, _)| *path == key.path);
    let default = own.map(|(_, text)| *text).or(key.default);
    let is_switch = matches!(default, Some("true" | "false"));
    if let Some(default) = default.filter(|_| !is_switch) {
        help += &format!(" [default: {default}]");
    }
    help
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// The flags of `serve` that are no key's, or two keys' at once.
fn of_serve() -> [Arg; 2] {
    let from_agent = "Take domain, TTLs, limits and recursors from the Consul agent's own dns_config; \
                      flags, variables and the file override it";
    let docker = Arg::new(DOCKER)
        .long(DOCKER)
        .value_name("URL|none")
        .num_args(0..=1)
        .default_missing_value("")
        .value_parser(|word: &str| match word {
            "" | "none" => Ok(word.to_owned()),
            _ => {
                let mut scratch = Flags::new(Verb::Serve);
                scratch.set("docker.address", &[word]).map(|()| word.to_owned())
            }
        })
        .help(
            "Serve the running containers too, by their SERVICE_* labels: Docker's API, or `none` [env: \
             DOCKER_HOST] [default: none; without a URL: unix:///var/run/docker.sock]",
        );
    [switch(FROM_AGENT, from_agent), docker]
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

#[cfg(test)]
mod tests {
    // What the command line takes, and what it refuses.

    use super::*;

    fn parse_line(line: &str) -> Result<Command, clap::Error> {
        parse_args(line.split_whitespace())
    }

    fn flags_of(line: &str) -> Flags {
        match parse_line(line).expect(line) {
            Command::Serve(flags)
            | Command::Dev(flags)
            | Command::Check { flags, .. }
            | Command::Register(flags, _)
            | Command::Haproxy { flags, .. } => flags,
        }
    }

    #[test]
    fn the_definition_is_sound() {
        program().debug_assert();
    }

    #[test]
    fn flags_that_are_not_given_set_nothing() {
        for (name, verb) in [
            ("serve", Verb::Serve),
            ("dev", Verb::Dev),
            ("check", Verb::Serve),
            ("check --running", Verb::Serve),
            ("register", Verb::Register),
            ("haproxy", Verb::Haproxy),
        ] {
            assert_eq!(flags_of(&format!("portolan {name}")), Flags::new(verb));
        }
    }

    /// Every flag of the table, for every command that takes it, reaches its key.
    #[test]
    fn every_flag_is_passed_on() {
        for (name, verb) in [
            ("serve", Verb::Serve),
            ("dev", Verb::Dev),
            ("register", Verb::Register),
            ("haproxy", Verb::Haproxy),
        ] {
            for (key, flag) in keys_of(verb) {
                let word = crate::config::example(key);
                let line = match flag.value.is_empty() {
                    true => format!("portolan {name} --{}", flag.name),
                    false => format!("portolan {name} --{} {word}", flag.name),
                };
                let flags = flags_of(&line);
                let expected = match flag.value.is_empty() {
                    true => key.turned_round().to_owned(),
                    false => word,
                };
                assert_eq!(flags.get(key.path), Some(&[expected][..]), "{line}");
            }
        }
    }

    #[test]
    fn lists_are_given_word_by_word_or_with_commas() {
        let flags =
            flags_of("portolan serve --listen 127.0.0.1:1 --listen [::1]:2 --config c.toml");
        let listen = ["127.0.0.1:1", "[::1]:2"].map(str::to_owned);
        assert_eq!(flags.get("server.listen"), Some(&listen[..]));
        assert_eq!(flags.config, Some("c.toml".into()));
        let flags = flags_of("portolan register --tags a,b --tags c");
        let tags = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(flags.get("register.tags"), Some(&tags[..]));
    }

    #[test]
    fn modes_are_passed_on() {
        let mode = RegisterMode {
            adopt: true,
            once: true,
            dry_run: true,
            explain: None,
        };
        let command = parse_line("portolan register --adopt --once --dry-run");
        let expected = Command::Register(Flags::new(Verb::Register), mode);
        assert_eq!(command.expect("a command"), expected);
        for (line, errand) in [
            ("portolan haproxy", Errand::Keep),
            ("portolan haproxy --once", Errand::Once),
            ("portolan haproxy --dry-run", Errand::DryRun),
        ] {
            let expected = Command::Haproxy {
                flags: Flags::new(Verb::Haproxy),
                errand,
                adopt_config: false,
            };
            assert_eq!(parse_line(line).expect(line), expected);
        }
        assert!(flags_of("portolan serve --from-agent").from_agent);
        let command = parse_line("portolan check --running").expect("a command");
        assert!(matches!(command, Command::Check { running: true, .. }));
    }

    #[test]
    fn docker_needs_no_address_and_can_be_switched_off() {
        for (line, serves, address) in [
            ("portolan serve --docker", Some("true"), None),
            ("portolan serve --docker --workers 1", Some("true"), None),
            ("portolan serve --docker none", Some("false"), None),
            (
                "portolan serve --docker tcp://d:1",
                Some("true"),
                Some("tcp://d:1"),
            ),
            ("portolan serve", None, None),
        ] {
            let flags = flags_of(line);
            let said = |path| flags.get(path).map(|words| words[0].as_str());
            assert_eq!(said("docker.serve"), serves, "{line}");
            assert_eq!(said("docker.address"), address, "{line}");
        }
    }

    #[test]
    fn a_wrong_value_is_code_2_and_says_what_was_expected() {
        for (line, expected) in [
            (
                "serve --consul nowhere",
                "something like http://127.0.0.1:8500",
            ),
            ("serve --docker docker.sock", "unix:///var/run/docker.sock"),
            ("serve --listen 127.0.0.1", "such as 127.0.0.1:53"),
            ("serve --listen localhost:53", "such as 127.0.0.1:53"),
            ("serve --upstream dns.example", "such as 192.0.2.53"),
            (
                "serve --upstream none --upstream 192.0.2.1",
                "remove it, or remove the addresses",
            ),
            (
                "serve --upstream 192.0.2.1 --upstream none",
                "remove it, or remove the addresses",
            ),
            ("serve --admin 8054", "such as 127.0.0.1:53"),
            ("serve --domain a..b", "such as \"consul\""),
            ("serve --workers 0", "expected 1 to 1024"),
            ("serve --workers four", "expected a number"),
            ("serve --log-format xml", "expected \"text\" or \"json\""),
            ("serve --lisen 127.0.0.1:53", "--listen"),
            ("dev --consul http://c:8500", "unexpected argument"),
            ("dev --config c.toml", "unexpected argument"),
            ("register --docker nowhere", "something like unix://"),
            ("register --docker ssh://host", "not supported"),
            ("register --ip 0.0.0.0", "such as 10.0.0.5"),
            ("register --tags a,,b", "expected a tag"),
            (
                "register --deregister never",
                "\"always\" or \"on-success\"",
            ),
            ("register --on-exit stay", "\"keep\" or \"deregister\""),
            ("register --resync 30", "no unit"),
            ("register --resync 10ms", "expected 1s to 24h"),
            ("register --ttl 30", "unexpected argument"),
            ("haproxy --once --dry-run", "cannot be used with"),
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
