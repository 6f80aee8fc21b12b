//! The system of `docker/compose.yaml` on this machine's Docker Engine, with images that are made
//! here because there is no registry. Everything vanishes with the value.

use crate::support::{
    docker::docker,
    http, program,
    upstream::{self, Upstream},
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A name outside, and what the scripted upstream says of it.
pub(crate) const OUTSIDE: &str = "www.outside.test";
pub(crate) const OUTSIDE_IS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// Where the system is published, as the file has it.
pub(crate) const WEB: SocketAddr = local(80);
pub(crate) const DNS: SocketAddr = local(53);
pub(crate) const CONSUL: SocketAddr = local(8500);
pub(crate) const STATISTICS: SocketAddr = local(1936);

/// On every image that is made here, and those that are made from them.
const LABEL: &str = "portolan-compose-test";

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `tests/run` provides.
fn provided(path: &str) -> PathBuf {
    let file = root().join(path);
    assert!(file.exists(), "no {path}: run tests/run, it makes it");
    file
}

/// What stands in for the registry, and the right to the ports that the file publishes.
pub(crate) struct World {
    /// Variables of the compose file, and the name of the project.
    environment: Vec<(String, String)>,
    project: String,
    /// It ends before its network does, whose address it needs for that: fields go in this order.
    upstream: Upstream,
    _made: Made,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    pub(crate) fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = docker(&["version", "--format", "{{.Server.Version}}"]) {
            panic!("no Docker Engine: run tests/run, it says how to get one ({error})");
        }
        sweep();
        let project = format!("ptc{}", std::process::id());
        // The upstream is outside: at an address of this machine that containers can reach.
        let gateway = outside(&project);
        let upstream = Upstream::start_on(gateway, |query, _| {
            let question = upstream::question(query);
            match question.name.to_ascii().to_lowercase() == format!("{OUTSIDE}.") {
                true if question.query_type == RecordType::A => {
                    upstream::addresses(query, 60, &[OUTSIDE_IS])
                }
                true => upstream::negative(query, ResponseCode::NoError),
                false => upstream::negative(query, ResponseCode::NXDomain),
            }
        });
        let image = |name: &str| format!("{LABEL}:{project}-{name}");
        let variables = [
            ("COMPOSE_PROJECT_NAME", project.clone()),
            ("BUILDER", image("base")),
            ("HAPROXY", image("base")),
            ("PREBUILT", "target/image".to_owned()),
            ("CONSUL_IMAGE", image("consul")),
            ("PORTOLAN_IMAGE", image("portolan")),
            ("PORTOLAN_HAPROXY_IMAGE", image("haproxy")),
            ("HELLO_IMAGE", image("hello")),
            ("HAPROXY_STATS_AUTH", "admin:secret".to_owned()),
            ("UPSTREAM", upstream.address().to_string()),
        ];
        let world = Self {
            environment: variables
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            _made: Made(project.clone()),
            project,
            upstream,
            _alone: alone,
        };
        world.import();
        world
    }

    /// The images that others would take from a registry: a Debian with HAProxy, and Consul.
    fn import(&self) {
        provided("target/image/portolan");
        provided("target/image/hello");
        let base = provided("target/programs/base.tar");
        let consul = std::env::var_os("PORTOLAN_CONSUL").map_or_else(
            || provided("target/programs/consul/usr/bin/consul"),
            PathBuf::from,
        );
        let (name, label) = (
            self.variable("BUILDER"),
            format!("LABEL {LABEL}={}", self.project),
        );
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        docker(&["import", "--change", &label, &text(&base), name])
            .unwrap_or_else(|error| panic!("{error}"));
        let context = crate::support::directory();
        std::fs::copy(consul, context.path().join("consul")).expect("copying Consul");
        let file = text(&root().join("tests/compose/consul.Dockerfile"));
        let build = format!("BASE={name}");
        let tag = self.variable("CONSUL_IMAGE");
        let context = text(context.path());
        docker(&[
            "build",
            "--build-arg",
            &build,
            "--file",
            &file,
            "--tag",
            tag,
            &context,
        ])
        .unwrap_or_else(|error| panic!("{error}"));
    }

    /// The value of a variable of the compose file.
    pub(crate) fn variable(&self, name: &str) -> &str {
        let found = self.environment.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// A shell command at the root of the repository, with the variables.
    pub(crate) fn shell(&self, command: &str) -> Result<String, String> {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(root())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .expect("running sh");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout);
        match output.status.success() {
            true => Ok(said),
            false => Err(format!("`{command}`: {said}{}", text(&output.stderr))),
        }
    }

    /// `docker compose -f docker/compose.yaml …`.
    pub(crate) fn compose(&self, arguments: &str) -> String {
        self.shell(&format!(
            "{} -f docker/compose.yaml {arguments}",
            compose_command()
        ))
        .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Fails if somebody else has a port that the file publishes.
    pub(crate) fn assert_ports_are_free(&self) {
        for address in [WEB, DNS, CONSUL, STATISTICS] {
            let taken = TcpListener::bind(address)
                .err()
                .filter(|error| error.kind() == ErrorKind::AddrInUse);
            if let Some(error) = taken {
                panic!(
                    "docker/compose.yaml publishes port {}, and {address} is taken on this machine: \
                     stop what listens there ({error})",
                    address.port()
                );
            }
        }
    }

    /// The ids of a service's containers.
    pub(crate) fn containers(&self, service: &str) -> Vec<String> {
        let ids = self.compose(&format!("ps -q {service}"));
        ids.split_whitespace().map(str::to_owned).collect()
    }

    /// The one container of a service.
    pub(crate) fn container(&self, service: &str) -> String {
        let mut found = self.containers(service);
        assert_eq!(found.len(), 1, "containers of {service}: {found:?}");
        found.remove(0)
    }

    /// A shell command in the network of a service's container, as its own shell would run it: not
    /// all of them have one.
    pub(crate) fn inside(&self, service: &str, command: &str) -> Result<String, String> {
        let network = format!("container:{}", self.container(service));
        let base = self.variable("BUILDER");
        docker(&[
            "run",
            "--rm",
            "--network",
            &network,
            base,
            "sh",
            "-c",
            command,
        ])
    }

    /// The name of a network of the system.
    pub(crate) fn network(&self, name: &str) -> String {
        format!("{}_{name}", self.project)
    }

    /// The label that Compose gives to all that is ours.
    pub(crate) fn filter(&self) -> String {
        format!("label=com.docker.compose.project={}", self.project)
    }

    /// What the scripted upstream was asked.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for container in list(&["ps", "--all"], &self.filter()) {
                let log = self.shell(&format!("docker logs --tail 30 {container} 2>&1"));
                eprintln!("---- {container}: {}", log.unwrap_or_default());
            }
        }
    }
}

/// All that a project has made. It vanishes with the value.
struct Made(String);

impl Drop for Made {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Compose as it is installed here: a plugin of docker, or the program it was before.
pub(crate) fn compose_command() -> &'static str {
    if docker(&["compose", "version"]).is_ok() {
        "docker compose"
    } else {
        program("docker-compose");
        "docker-compose"
    }
}

/// `GET path` through HAProxy: the body of a 200, or what is wrong.
pub(crate) fn get(path: &str) -> Result<String, String> {
    match http::get(WEB, path)? {
        response if response.status == 200 => Ok(response.body),
        response => Err(format!("{path}: {} {}", response.status, response.body)),
    }
}

/// Which instance answers, by its name.
pub(crate) fn host_of(body: &str) -> Option<String> {
    let rest = body.strip_prefix("Hello from ")?;
    Some(rest.split_once(',')?.0.to_owned())
}

/// How long something takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

/// Makes a network beside the system's, and gives this machine's address in it.
fn outside(project: &str) -> Ipv4Addr {
    let name = format!("{project}_outside");
    let label = format!("com.docker.compose.project={project}");
    let address = docker(&["network", "create", "--label", &label, &name]).and_then(|_| {
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        docker(&["network", "inspect", "--format", format, &name])
    });
    let address = address.unwrap_or_else(|error| panic!("{error}"));
    address.parse().expect("an address")
}

fn list(what: &[&str], filter: &str) -> Vec<String> {
    let mut arguments = what.to_vec();
    arguments.extend(["--quiet", "--filter", filter]);
    let ids = docker(&arguments).unwrap_or_default();
    ids.split_whitespace().map(str::to_owned).collect()
}

/// Removes all that a project left: containers, networks, volumes, images.
fn remove(project: &str) {
    let filter = format!("label=com.docker.compose.project={project}");
    for (what, verb) in [
        (&["ps", "--all"][..], &["rm", "--force", "--volumes"][..]),
        (&["network", "ls"], &["network", "rm"]),
        (&["volume", "ls"], &["volume", "rm", "--force"]),
    ] {
        let ids = list(what, &filter);
        if !ids.is_empty() {
            let mut arguments = verb.to_vec();
            arguments.extend(ids.iter().map(String::as_str));
            if let Err(error) = docker(&arguments) {
                eprintln!("left behind: {error}");
            }
        }
    }
    let named = docker(&["images", "--quiet", &format!("{LABEL}:{project}-*")]);
    let mut images: Vec<String> = named
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    // Stages that the builder keeps without a name come last: the others are made from them.
    images.extend(list(&["images"], &format!("label={LABEL}={project}")));
    for image in images {
        // Removing one may have removed another.
        let _ = docker(&["rmi", "--force", &image]);
    }
}

/// Removes what test processes left that no longer live.
fn sweep() {
    let label = "com.docker.compose.project";
    let mut projects = Vec::new();
    for what in [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]] {
        let mut arguments = what.to_vec();
        let (filter, format) = (
            format!("label={label}"),
            format!("{{{{.Label {label:?}}}}}"),
        );
        arguments.extend(["--filter", &filter, "--format", &format]);
        let found = docker(&arguments).unwrap_or_default();
        projects.extend(found.lines().map(str::to_owned));
    }
    let images = docker(&["images", LABEL, "--format", "{{.Tag}}"]).unwrap_or_default();
    let tags = images.lines().filter_map(|tag| tag.split('-').next());
    projects.extend(tags.map(str::to_owned));
    projects.sort();
    projects.dedup();
    for project in projects {
        let process = project.strip_prefix("ptc");
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            remove(&project);
        }
    }
}
