//! The resolvers and name servers of the tests, each on a port of its own.

use crate::support::{
    directory,
    dns::Query,
    ensure, eventually, free_ports, own_loopback,
    portolan::{Launch, Portolan},
    process::Process,
    program,
    wire::{rcode, rtype::A},
    write_file,
};
use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// How long one may take to start.
const STARTING: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _directory: Option<TempDir>,
}

/// An address that nobody else has.
fn address() -> SocketAddr {
    let ip = own_loopback();
    let [port] = free_ports(ip);
    (ip, port).into()
}

impl Server {
    fn start(
        name: &str,
        command: Command,
        address: SocketAddr,
        known: &str,
        directory: Option<TempDir>,
        log: &Path,
    ) -> Self {
        let process = Process::start(name, command, log);
        let mut server = Self {
            process,
            address,
            _directory: directory,
        };
        eventually(STARTING, &format!("{name} answers"), || {
            assert!(
                server.process.ended().is_none(),
                "{name}: {}",
                server.process.log()
            );
            let patience = Duration::from_millis(500);
            let query = Query::new(known, A).patience(patience);
            let reply = query.try_ask(address)?;
            // It may listen before it has read its zones.
            ensure(reply.rcode() == rcode::NOERROR, || reply.summary())
        });
        server
    }

    /// A program whose configuration is a file of its own, which comes behind these flags.
    pub(crate) fn configured(
        name: &str,
        flags: &[&str],
        text: &str,
        address: SocketAddr,
        known: &str,
        own: TempDir,
    ) -> Self {
        let file = write_file(own.path(), &format!("{name}.conf"), text);
        let log = own.path().join(format!("{name}.log"));
        let mut command = Command::new(program(name));
        command.args(flags).arg(file).current_dir(own.path());
        Self::start(name, command, address, known, Some(own), &log)
    }

    /// named, with these zones from files of a directory; it recurses for nobody.
    pub(crate) fn named(directory: &Path, zones: &[(&str, &str)]) -> Self {
        // It listens on addresses that an interface has, and on no other.
        let ip = Ipv4Addr::LOCALHOST;
        let [port] = free_ports(ip);
        Self::named_at((ip, port).into(), directory, zones)
    }

    /// The same at this address.
    pub(crate) fn named_at(address: SocketAddr, directory: &Path, zones: &[(&str, &str)]) -> Self {
        Self::named_with(address, directory, zones, "", "")
    }

    /// The same with more of its own configuration, before its options and among them.
    pub(crate) fn named_with(
        address: SocketAddr,
        directory: &Path,
        zones: &[(&str, &str)],
        before: &str,
        options: &str,
    ) -> Self {
        let mut text = format!(
            "{before}options {{ directory \"{}\"; {options} listen-on port {} {{ {}; }}; listen-on-v6 {{ none; }}; \
             recursion no; pid-file none; session-keyfile none; dnssec-validation no; \
             allow-query {{ any; }}; querylog yes; tcp-clients 1000; max-records-per-type 0; }};\ncontrols {{ }};\n",
            directory.display(),
            address.port(),
            address.ip()
        );
        for (zone, file) in zones {
            text += &format!("zone \"{zone}\" {{ type primary; file \"{file}\"; }};\n");
        }
        let file = write_file(directory, "named.conf", &text);
        let mut command = Command::new(program("named"));
        command.arg("-g").arg("-c").arg(file);
        let known = zones.first().map_or(".", |(zone, _)| zone);
        Self::start(
            "named",
            command,
            address,
            known,
            None,
            &directory.join("named.log"),
        )
    }

    /// Unbound, which forwards everything there.
    pub(crate) fn unbound(to: SocketAddr, more: &str) -> Self {
        let (address, own) = (address(), directory());
        let path = own.path().display();
        let text = format!(
            "server:\n  interface: {}\n  port: {}\n  do-daemonize: no\n  chroot: \"\"\n  \
             username: \"\"\n  directory: \"{path}\"\n  pidfile: \"\"\n  use-syslog: no\n  \
             logfile: \"\"\n  do-not-query-localhost: no\n  num-threads: 1\n  \
             access-control: 0.0.0.0/0 allow\n  ede: yes\n{more}\
             remote-control:\n  control-enable: no\n\
             forward-zone:\n  name: \".\"\n  forward-addr: {}@{}\n",
            address.ip(),
            address.port(),
            to.ip(),
            to.port()
        );
        Self::configured("unbound", &["-d", "-c"], &text, address, "localhost", own)
    }

    /// Knot Resolver, which forwards everything there, and trusts this key of the root.
    pub(crate) fn kresd(to: SocketAddr, anchor: &Path) -> Self {
        let (address, own) = (address(), directory());
        let text = format!(
            "net.listen('{}', {}, {{ kind = 'dns' }})\ntrust_anchors.remove('.')\n\
             trust_anchors.add_file('{}', true)\n\
             policy.add(policy.all(policy.FORWARD('{}@{}')))\ncache.size = 10*MB\n",
            address.ip(),
            address.port(),
            anchor.display(),
            to.ip(),
            to.port()
        );
        Self::configured("kresd", &["-n", "-c"], &text, address, ".", own)
    }

    /// dnsdist in front of a server, with more of its own configuration.
    pub(crate) fn dnsdist(to: SocketAddr, known: &str, more: &str) -> Self {
        let (address, own) = (address(), directory());
        // It would ask the Internet whether it is up to date, and give up a server that is slow.
        let text = format!(
            "setSecurityPollSuffix(\"\")\nsetLocal(\"{address}\")\nsetACL({{\"0.0.0.0/0\"}})\n\
             newServer({{address=\"{to}\", healthCheckMode=\"up\"}})\n{more}"
        );
        Self::configured(
            "dnsdist",
            &["--supervised", "--disable-syslog", "-C"],
            &text,
            address,
            known,
            own,
        )
    }
}

impl Server {
    /// dnsmasq, which asks that server, with more of its own configuration.
    pub(crate) fn dnsmasq(to: SocketAddr, known: &str, more: &str) -> Self {
        let server = format!("server={}#{}\n{more}", to.ip(), to.port());
        Self::dnsmasq_at(address(), known, &server)
    }

    /// dnsmasq at this address.
    pub(crate) fn dnsmasq_at(address: SocketAddr, known: &str, more: &str) -> Self {
        let own = directory();
        let text = format!(
            "no-resolv\nno-hosts\nbind-interfaces\nlisten-address={}\nport={}\nuser=root\n\
             pid-file=\n{more}",
            address.ip(),
            address.port(),
        );
        Self::configured(
            "dnsmasq",
            &["--keep-in-foreground", "-C"],
            &text,
            address,
            known,
            own,
        )
    }
}

/// Portolan with these upstreams, in this order, and nothing else.
pub(crate) fn launch(upstreams: &[SocketAddr]) -> Launch {
    let flags = upstreams
        .iter()
        .flat_map(|upstream| ["--upstream".to_owned(), upstream.to_string()]);
    Launch::new("serve")
        .args(["--consul", "none"])
        .args(flags.map(OsString::from))
}

/// The same, started.
pub(crate) fn portolan(upstreams: &[SocketAddr]) -> Portolan {
    launch(upstreams).start()
}
