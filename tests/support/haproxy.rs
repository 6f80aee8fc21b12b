//! A real HAProxy, judged by what it says about itself on its stats socket.

use super::{directory, eventually, process::Process, program};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// A server slot, as `show servers state` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) slot: String,
    /// The address, or `-` while the slot is free.
    pub(crate) address: String,
    pub(crate) port: u16,
    /// The name the slot resolves, `-` while it has none.
    pub(crate) fqdn: String,
    pub(crate) weight: u16,
    pub(crate) up: bool,
}

impl Server {
    /// `address:port`, for comparing sets.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
}

/// A running HAProxy.
pub(crate) struct Haproxy {
    process: Process,
    _directory: TempDir,
    socket: PathBuf,
}

/// A `resolvers` section named `portolan`, whose one nameserver `p` is `nameserver`
/// (`IP:PORT` or `tcp@IP:PORT`). Everything that `hold` could hide is at its default: an instance that
/// is missing from one single answer loses its slot.
pub(crate) fn resolvers(nameserver: &str, payload: u16) -> String {
    format!(
        "resolvers portolan\n  nameserver p {nameserver}\n  accepted_payload_size {payload}\n  \
         timeout resolve 1s\n  timeout retry 1s\n"
    )
}

/// A backend `name` with `slots` server slots that are filled from `fqdn`.
pub(crate) fn backend(name: &str, slots: usize, fqdn: &str) -> String {
    format!(
        "backend {name}\n  server-template s {slots} {fqdn} resolvers portolan init-addr none \
         resolve-prefer ipv4\n"
    )
}

impl Haproxy {
    /// Starts HAProxy with these sections (after a `global` and a `defaults` of ours).
    pub(crate) fn start(sections: &str) -> Self {
        let directory = directory();
        let socket = directory.path().join("stats.sock");
        let config = format!(
            "global\n  stats socket {} mode 600 level admin\n  nbthread 1\n  maxconn 100\n\
             defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n\
             {sections}",
            socket.display()
        );
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, config).expect("writing haproxy.cfg");
        let mut command = Command::new(program("haproxy"));
        command.arg("-db").arg("-f").arg(&file);
        let mut process = Process::start("HAProxy", command, &directory.path().join("haproxy.log"));
        eventually(Duration::from_secs(10), "HAProxy runs", || {
            let ended = process.ended();
            assert!(ended.is_none(), "HAProxy ended: {}", process.log());
            UnixStream::connect(&socket)
                .map(drop)
                .map_err(|error| error.to_string())
        });
        Self {
            process,
            _directory: directory,
            socket,
        }
    }

    /// Asks the stats socket.
    pub(crate) fn command(&self, command: &str) -> String {
        let mut answer = String::new();
        UnixStream::connect(&self.socket)
            .and_then(|mut stream| {
                stream.write_all(format!("{command}\n").as_bytes())?;
                stream.read_to_string(&mut answer)
            })
            .unwrap_or_else(|error| panic!("HAProxy's stats socket, `{command}`: {error}"));
        answer
    }

    /// The slots of a backend.
    pub(crate) fn servers(&self, backend: &str) -> Vec<Server> {
        let text = self.command(&format!("show servers state {backend}"));
        let mut names = Vec::new();
        let mut servers = Vec::new();
        for line in text.lines() {
            if let Some(header) = line.strip_prefix("# ") {
                names = header.split_whitespace().collect();
            } else if line.split_whitespace().count() > 1 {
                let row: BTreeMap<&str, &str> =
                    names.iter().copied().zip(line.split_whitespace()).collect();
                servers.push(server(&row));
            }
        }
        assert!(!servers.is_empty(), "no backend {backend}: {text}");
        servers
    }

    /// The slots of a backend that are up and have an address.
    pub(crate) fn up(&self, backend: &str) -> Vec<Server> {
        let mut servers = self.servers(backend);
        servers.retain(|server| server.up);
        servers
    }

    /// The counters of the nameserver `p`.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let text = self.command("show resolvers portolan");
        let lines = text
            .lines()
            .skip_while(|line| !line.contains("nameserver p"));
        lines
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter_map(|(name, value)| Some((name.trim().to_owned(), value.trim().parse().ok()?)))
            .collect()
    }

    /// One counter of the nameserver `p`.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.counters();
        *counters
            .get(name)
            .unwrap_or_else(|| panic!("no counter `{name}` in {counters:?}"))
    }

    /// What it logged: each change of a slot is a line here.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

/// `127.0.0.1:PORT` with HAProxy's `tcp@` before it.
pub(crate) fn over_tcp(server: SocketAddr) -> String {
    format!("tcp@{server}")
}

fn server(row: &BTreeMap<&str, &str>) -> Server {
    let field = |name: &str| -> String {
        let value = row.get(name);
        let value = value.unwrap_or_else(|| panic!("no column {name} in {row:?}"));
        (*value).to_owned()
    };
    let number = |name: &str| -> u16 {
        let text = field(name);
        text.parse()
            .unwrap_or_else(|error| panic!("{name} is {text}: {error}"))
    };
    let address = field("srv_addr");
    // Operational state 2 is "running". The bits of the admin state are kinds of maintenance and
    // drain, but for 0x40, which says that the name came from an SRV record.
    let in_service = number("srv_admin_state") & 0x3f == 0;
    let up = number("srv_op_state") == 2 && in_service && address != "-";
    Server {
        slot: field("srv_name"),
        address,
        port: number("srv_port"),
        fqdn: field("srv_fqdn"),
        weight: number("srv_uweight"),
        up,
    }
}
