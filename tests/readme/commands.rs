//! The commands of each document, from the first to the last, as somebody would type them who reads along.

use crate::{
    acl,
    documents::{Command, Document, documents, open, root},
    support::{
        consul::{Consul, instance},
        directory, dns,
        docker::Docker,
        docker_proxy::DockerProxy,
        ensure, eventually, http,
        portolan::{Launch, Portolan, run_to_end},
        process::Process,
        program,
        registrar::Registrar,
        upstream::{self, Upstream},
        wire::{
            rcode,
            rtype::{A, SRV},
        },
        write_file,
    },
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use serde_json::json;
use std::{
    cell::LazyCell,
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    time::Duration,
};
use tempfile::TempDir;

/// Where `portolan dev` listens: the README says so, and there it really does.
const DEV_DNS: ([u8; 4], u16) = ([127, 0, 0, 1], 8053);
const DEV_ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 8054);

/// The first command may have to build everything, optimised, on a small machine.
const BUILD: Duration = Duration::from_secs(1800);

/// The name that the README recurses, and what the world says it is.
const WORLD: &str = "dns.google.";
const WORLD_SAYS: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

#[test]
fn the_commands_do_what_is_shown() {
    for document in documents() {
        let mut reader = Reader::new();
        for command in document.commands() {
            reader.types(&command);
        }
        reader.stop_dev();
        daemon_json(&document);
    }
}

/// What the README's opening says about a Consul that is away.
#[test]
fn what_was_known_is_answered_while_consul_is_away() {
    let mut consul = Consul::start();
    register_web(&consul);
    let portolan = Portolan::beside(&consul);
    let known = ["web.service.consul", "n1.node.consul"];
    let ask = |name| dns::ask(portolan.dns(), name, A).data();
    let before = known.map(ask);
    assert!(before.iter().all(|data| !data.is_empty()), "{before:?}");
    consul.kill();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(known.map(ask), before);
    assert_eq!(portolan.get("/ready").expect("an answer").status, 200);
}

fn register_web(consul: &Consul) {
    let service = json!({ "Service": "web", "Address": "10.1.0.1", "Port": 80 });
    consul.register(&instance("n1", "10.0.0.1", &service));
}

/// Somebody who reads a document and types what it says. What a document does not start, because another one
/// says how, is started when it is needed.
struct Reader {
    files: TempDir,
    /// What `portolan dev` was started with, and that process.
    dev: Option<(Command, Process)>,
    /// An upstream that knows one name.
    world: LazyCell<Upstream>,
    /// With a service `web`.
    consul: LazyCell<Consul>,
    /// The last `portolan serve`, and where it should have listened.
    serving: Option<Portolan>,
    listens: Vec<SocketAddr>,
    /// Where Portolan was installed to, as the document has it.
    installed: Option<String>,
    /// The containers of `docker run -d`, and who registers them.
    containers: LazyCell<Containers>,
    has_container: bool,
    registrar: Option<Registrar>,
}

struct Containers {
    docker: Docker,
    proxy: DockerProxy,
}

impl Reader {
    fn new() -> Self {
        Self {
            files: directory(),
            dev: None,
            world: LazyCell::new(|| {
                Upstream::start(|query, _| {
                    let question = upstream::question(query);
                    match question.name.to_ascii().to_lowercase() == WORLD {
                        true if question.query_type == RecordType::A => {
                            upstream::addresses(query, 300, &WORLD_SAYS)
                        }
                        true => upstream::negative(query, ResponseCode::NoError),
                        false => upstream::negative(query, ResponseCode::NXDomain),
                    }
                })
            }),
            consul: LazyCell::new(|| {
                let consul = Consul::start();
                register_web(&consul);
                consul
            }),
            serving: None,
            listens: Vec::new(),
            installed: None,
            containers: LazyCell::new(|| {
                let docker = Docker::new();
                Containers {
                    proxy: DockerProxy::showing(&docker.label()),
                    docker,
                }
            }),
            has_container: false,
            registrar: None,
        }
    }

    fn types(&mut self, command: &Command) {
        eprintln!("{}: {}", command.place, command.text);
        match command.words().as_slice() {
            ["cargo", "run", "--release", "--", "dev"] => self.start_dev(command, &[]),
            ["dig", "@127.0.0.1", "-p", "8053", rest @ ..] => self.dig_dev(command, rest),
            ["dig", "@127.0.0.1", "-p", "8600", name, rtype] => {
                is_answered(self.consul.dns(), &[name, rtype]);
            }
            ["dig", "@127.0.0.1", name, rtype] => is_answered(self.serving().dns(), &[name, rtype]),
            ["curl", "-s", url] => self.curl(url),
            // tests/compose runs it.
            ["docker", "compose", "-f", file, "up", "-d"] => assert!(root().join(file).is_file()),
            // The whole of it takes ten minutes and a quiet machine.
            ["benches/peers/run"] => {
                succeeds(process::Command::new("benches/peers/run").arg("--smoke"));
            }
            ["cargo", "build", "--release"] => {
                succeeds(process::Command::new(program("cargo")).args(["build", "--release"]))
            }
            ["sudo", "install", from, to] => self.install(from, to),
            ["sudo", "setcap", "cap_net_bind_service=+ep", file] => {
                assert_eq!(
                    self.installed.as_deref(),
                    Some(*file),
                    "another file than was installed"
                );
            }
            ["sudo", "cp", files @ .., "/etc/systemd/system/"] => {
                assert!(files.iter().all(|file| root().join(file).is_file()));
            }
            // tests/command_line and tests/compose start the units.
            ["sudo", "systemctl", .., unit] | ["journalctl", "-u", unit] => {
                assert!(root().join("packaging").join(unit).is_file(), "no {unit}");
            }
            ["portolan", "serve", flags @ ..] => self.serve(command, flags),
            // `haproxy.rs` runs these.
            ["portolan", "haproxy", ..] => {}
            ["portolan", "check", "--config", "portolan.toml"] => self.check(),
            ["portolan", "check", "--running"] => {
                let admin = self.serving().admin().to_string();
                let outcome = run_to_end(&["check", "--running", "--admin", &admin], &[]);
                assert_eq!(outcome.code, Some(0), "{outcome:?}");
            }
            ["portolan", "register", flags @ ..] => self.register(command, flags),
            ["docker", "run", "-d", flags @ ..] => self.container(flags),
            ["docker", "run", flags @ ..] => self.docker(flags),
            words if is_for_developers(words) => {}
            _ => panic!(
                "{}: nothing tests this command: {}",
                command.place, command.text
            ),
        }
        let compared = command.text.starts_with("dig ");
        assert!(
            compared || command.output.is_empty(),
            "{}: nothing compares the output of {}",
            command.place,
            command.text
        );
    }

    /// The `portolan serve` that answers.
    fn serving(&mut self) -> &Portolan {
        let consul = &self.consul;
        self.serving.get_or_insert_with(|| Portolan::beside(consul))
    }

    /// Asks what really runs, by the port that it has by default.
    fn curl(&mut self, url: &str) {
        let rest = url
            .strip_prefix("http://127.0.0.1:")
            .unwrap_or_else(|| panic!("{url}"));
        let (port, path) = rest.split_at(rest.find('/').expect("a path"));
        let answer = match port {
            "8054" => self.serving().get(path),
            "8055" => self.registrar().get(path),
            "8500" => http::get(self.consul.http(), path),
            _ => panic!("nobody listens there: {url}"),
        };
        let answer = answer.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(answer.status, 200, "{url}: {answer:?}");
        assert!(!answer.body.is_empty(), "{url}");
    }

    /// The `portolan register` that runs.
    fn registrar(&mut self) -> &Registrar {
        let (proxy, consul) = (self.containers.proxy.url(), self.consul.url());
        self.registrar.get_or_insert_with(|| {
            let registrar = Registrar::start(&["--docker", &proxy, "--consul", &consul]);
            registrar.wait_until_ready();
            registrar
        })
    }

    /// Starts the first command, in this repository and on its own ports.
    fn start_dev(&mut self, command: &Command, more: &[&str]) {
        for address in [DEV_DNS, DEV_ADMIN].map(SocketAddr::from) {
            assert!(
                TcpStream::connect(address).is_err(),
                "something listens on {address} already: `{}` needs it",
                command.text
            );
        }
        let words = command.words();
        let mut process = process::Command::new(program(words[0]));
        process
            .args(&words[1..])
            .args(more)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("RUST_LOG");
        let log = self.files.path().join("dev.log");
        let mut process = Process::start("`portolan dev`", process, &log);
        eventually(BUILD, "`portolan dev` is ready", || {
            let ended = process.ended();
            assert!(ended.is_none(), "it ended: {ended:?}: {}", process.log());
            // While this one is built, another one may be started, which would answer in its place.
            ensure(process.log().contains("admin listening"), || process.log())?;
            match http::get(DEV_ADMIN.into(), "/ready")? {
                ready if ready.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        self.dev = Some((command.clone(), process));
    }

    fn stop_dev(&mut self) {
        if let Some((_, mut process)) = self.dev.take() {
            process.signal("TERM");
            let status = process.wait(Duration::from_secs(6));
            assert_eq!(status.code(), Some(0), "{}", process.log());
        }
    }

    /// A `dig` of the first pages, to the letter.
    fn dig_dev(&mut self, command: &Command, rest: &[&str]) {
        let name = rest.iter().find(|word| !word.starts_with(['+', '-']));
        let name = name.expect("dig is given a name");
        let ours = name.ends_with(".consul") || name.ends_with("localhost");
        if !ours && self.world.seen().is_empty() {
            // The same command once more, with an upstream of the test instead of the Internet.
            let (first, _) = self.dev.as_ref().expect("`portolan dev` runs");
            let (first, upstream) = (first.clone(), self.world.address().to_string());
            self.stop_dev();
            self.start_dev(&first, &["--upstream", &upstream]);
        }
        let output = process::Command::new(program("dig"))
            .args(&command.words()[1..])
            .output()
            .expect("running dig");
        let lines = |text: &str| -> Vec<String> {
            let mut lines: Vec<String> = text
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with(';'))
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            // Addresses come in turns.
            lines.sort();
            lines
        };
        assert!(!command.output.is_empty(), "{command:?} shows nothing");
        assert_eq!(
            lines(&String::from_utf8_lossy(&output.stdout)),
            lines(&command.output.join("\n")),
            "{}: {}",
            command.place,
            command.text
        );
    }

    fn install(&mut self, from: &str, to: &str) {
        // Somebody who keeps build products elsewhere knows where to look.
        let from = match (env::var("CARGO_TARGET_DIR"), from.strip_prefix("target/")) {
            (Ok(target), Some(rest)) => Path::new(&target).join(rest),
            _ => PathBuf::from(from),
        };
        let here = self.files.path().join("portolan");
        succeeds(
            process::Command::new(program("install"))
                .arg(from)
                .arg(&here),
        );
        succeeds(process::Command::new(&here).arg("--version"));
        self.installed = Some(to.to_owned());
    }

    /// Starts what the document says, with addresses and paths of the test's own.
    fn serve(&mut self, command: &Command, flags: &[&str]) {
        if let Err(error) = portolan::cli::parse_args(command.words()) {
            panic!("{}: {error}", command.place);
        }
        let mut acl = None;
        let mut asked = "web.service.consul";
        self.listens.clear();
        let mut own: Vec<String> = Vec::new();
        let mut words = flags.iter().copied();
        while let Some(flag) = words.next() {
            if flag == "--from-agent" {
                own.push(flag.to_owned());
                continue;
            }
            if flag == "--docker" {
                // The container of before still runs.
                asked = "hello1.service.consul";
                own.extend([flag.to_owned(), self.containers.proxy.url()]);
                continue;
            }
            let value = words.next().expect("a flag has a value");
            let value = match flag {
                "--consul" => {
                    // The address is put in below.
                    assert!(
                        ["none", "http://127.0.0.1:8500"].contains(&value),
                        "{value}"
                    );
                    continue;
                }
                "--listen" => {
                    self.listens.push(value.parse().expect("an address"));
                    continue;
                }
                // It is nobody here.
                "--upstream" => {
                    value
                        .parse::<portolan::upstream::Address>()
                        .expect("an address");
                    continue;
                }
                "--forward" => {
                    own.extend([flag.to_owned(), value.to_owned()]);
                    continue;
                }
                "--token-file" => {
                    let (consul, token) = acl::start(&open(acl::POLICY).the_block("hcl").text);
                    let file = write_file(self.files.path(), "token", &format!("{token}\n"));
                    acl = Some(consul);
                    file
                }
                "--services" => self.directory_with("web.json", &services_json()),
                "--state-dir" => self.files.path().join("state"),
                "--zones" => {
                    asked = "www.example.internal";
                    let sample = fs::read_to_string(root().join("zones/example.zone.sample"));
                    self.directory_with("example.internal.zone", &sample.expect("the sample"))
                }
                other => panic!("{}: nothing tests {other}", command.place),
            };
            own.extend([flag.to_owned(), value.display().to_string()]);
        }
        let consul = match (&acl, flags.contains(&"none")) {
            (_, true) => "none".to_owned(),
            (Some(consul), _) => consul.url(),
            (None, _) => self.consul.url(),
        };
        let start = |more: &[String]| {
            Launch::new("serve")
                .args(["--consul", &consul, "--upstream", "none"])
                .args(more)
                .start()
        };
        let portolan = start(&own);
        let reply = dns::ask(portolan.dns(), asked, A);
        assert_eq!(reply.rcode(), rcode::NOERROR, "{}", reply.summary());
        assert!(!reply.answers.is_empty(), "{}", reply.summary());
        if flags.contains(&"--state-dir") {
            let kept = self.files.path().join("state/catalog.state");
            eventually(Duration::from_secs(10), "the catalog is kept", || {
                let metadata = fs::metadata(&kept).map_err(|error| error.to_string())?;
                ensure(metadata.len() > 0, || "the file is empty".to_owned())
            });
        }
        if flags.contains(&"--from-agent") {
            took_from_agent(&portolan);
        }
        if let Some(consul) = &acl {
            // Nobody else may see it, and the token is good for all that its policy is said to be.
            let anonymous = Launch::new("serve")
                .args(["--consul", &consul.url(), "--upstream", "none"])
                .not_ready()
                .start();
            let reply = dns::ask(anonymous.dns(), asked, A);
            assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
            own.push("--from-agent".to_owned());
            took_from_agent(&start(&own));
        }
        self.serving = Some(portolan);
    }

    fn directory_with(&self, name: &str, text: &str) -> PathBuf {
        let directory = self.files.path().join(format!("with-{name}"));
        fs::create_dir(&directory).expect("a directory");
        write_file(&directory, name, text);
        directory
    }

    fn check(&self) {
        let text = open(crate::snippets::CONFIGURATION).the_block("toml").text;
        let file = write_file(self.files.path(), "portolan.toml", &text);
        let outcome = run_to_end(&["check", "--config", &file.display().to_string()], &[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.ends_with("all is right\n"), "{outcome:?}");
    }

    /// Starts what the document says, beside the Docker Engine of this machine.
    fn register(&mut self, command: &Command, flags: &[&str]) {
        if let Err(error) = portolan::cli::parse_args(command.words()) {
            panic!("{}: {error}", command.place);
        }
        let ["--consul", "http://127.0.0.1:8500", mode @ ..] = flags else {
            panic!("{}: another Consul", command.place);
        };
        if mode == ["--dry-run"] {
            let (proxy, consul) = (self.containers.proxy.url(), self.consul.url());
            let arguments = ["register", "--docker", &proxy, "--consul", &consul, mode[0]];
            let outcome = run_to_end(&arguments, &[]);
            assert_eq!(outcome.code, Some(0), "{outcome:?}");
            let is_told = outcome.stdout.contains("hello1");
            assert_eq!(is_told, self.has_container, "{outcome:?}");
        } else if let ["--explain", name] = mode {
            let admin = self.registrar().admin();
            let (proxy, consul) = (self.containers.proxy.url(), self.consul.url());
            let name = self.containers.docker.name(name);
            let arguments = ["register", "--docker", &proxy, "--consul", &consul];
            let more = ["--admin", &admin, "--explain", &name];
            eventually(Duration::from_secs(5), "it is explained", || {
                let outcome = run_to_end(&[&arguments[..], &more].concat(), &[]);
                let is_told = outcome.stdout.contains("registered since");
                ensure(outcome.code == Some(0) && is_told, || {
                    format!("{outcome:?}")
                })
            });
        } else {
            assert!(mode.is_empty(), "{}: {mode:?}", command.place);
            self.registrar();
        }
    }

    /// Starts the container of the document, under a name of the test's own, and waits for its service.
    fn container(&mut self, flags: &[&str]) {
        let docker = &self.containers.docker;
        let (name, label) = (docker.name("hello1"), docker.label());
        let mut arguments = vec!["run", "-d", "--label", &label, "--init"];
        for (at, word) in flags.iter().enumerate() {
            arguments.push(match *word {
                "IMAGE" => docker.image(),
                _ if at > 0 && flags[at - 1] == "--name" => &name,
                word => word,
            });
        }
        arguments.extend(["sleep", "1000"]);
        crate::support::docker::docker(&arguments).unwrap_or_else(|error| panic!("{error}"));
        self.has_container = true;
        let server = self.serving().dns();
        eventually(Duration::from_secs(5), "the container has a name", || {
            let reply = dns::ask(server, "hello1.service.consul", SRV);
            ensure(reply.answers.len() == 1, || reply.summary())
        });
    }

    /// Docker is not at hand everywhere; what can go wrong with these lines is the address.
    fn docker(&self, flags: &[&str]) {
        let at = flags.iter().position(|flag| *flag == "--dns");
        let dns = flags[at.expect("docker is told of a DNS server") + 1];
        let dns: Ipv4Addr = dns.parse().expect("an address");
        let listens = SocketAddr::new(dns.into(), 53);
        assert!(
            self.listens.contains(&listens),
            "{listens} is not one of {:?}",
            self.listens
        );
        let shares_loopback = flags.windows(2).any(|pair| pair == ["--network", "host"]);
        assert_eq!(dns.is_loopback(), shares_loopback, "{flags:?}");
    }
}

/// The address that all containers are given is one that `docker run` is given.
fn daemon_json(document: &Document) {
    let runs = document.commands();
    for settings in crate::snippets::json(document, "dns") {
        for server in settings["dns"].as_array().expect("a list") {
            let flag = format!("--dns {} ", server.as_str().expect("an address"));
            let known = runs.iter().any(|command| command.text.contains(&flag));
            assert!(known, "{}: no `docker run {flag}`", document.name);
        }
    }
}

/// A `dig` whose answer is the reader's own: there has to be one.
fn is_answered(server: SocketAddr, question: &[&str]) {
    let found = crate::support::dig::dig(server, question);
    assert_eq!(found.status, "NOERROR", "{}", found.output);
    assert!(!found.answer.is_empty(), "{}", found.output);
}

/// What builds, tests and measures is not run from within a test; but what it names has to be there.
fn is_for_developers(words: &[&str]) -> bool {
    let is_test = |name: &str| root().join(format!("tests/{name}/main.rs")).is_file();
    match words {
        ["tests/run"] => is_executable(&root().join("tests/run")),
        ["tests/run" | "cargo", rest @ .., "--test", name] => {
            matches!(rest, [] | ["test"]) && is_test(name)
        }
        ["cargo", "build" | "test"] | ["cargo", "run", "--", "dev"] => true,
        ["cargo", "test", room] => {
            let room = room.trim_end_matches(':');
            root().join(format!("src/{room}")).is_dir()
        }
        ["cargo", "bench", "--bench", name] => root().join(format!("benches/{name}.rs")).is_file(),
        ["benches/peers/run", "--quick"] => is_executable(&root().join("benches/peers/run")),
        _ => false,
    }
}

fn took_from_agent(portolan: &Portolan) {
    let events = portolan.events();
    let took = |event: &serde_json::Value| {
        event["fields"]["message"] == "using the agent's dns_config for defaults"
    };
    assert!(events.iter().any(took), "{events:?}");
}

fn services_json() -> String {
    let found = crate::snippets::json(&open("docs/zones.md"), "services");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].to_string()
}

fn is_executable(file: &Path) -> bool {
    let metadata = fs::metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    metadata.is_file() && metadata.permissions().mode() & 0o111 == 0o111
}

fn succeeds(command: &mut process::Command) {
    let output = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}
