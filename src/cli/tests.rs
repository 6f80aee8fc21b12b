//! What the command line takes, and what it refuses.

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
