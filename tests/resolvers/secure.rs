//! Servers that are asked over TLS and HTTPS: four real ones, each of which says what named says.

use crate::{
    servers::{Server, launch},
    support::{certificates::Authority, directory, free_ports, own_loopback, portolan::Portolan},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

/// The name in their certificates.
pub(crate) const NAME: &str = "dns.test";

/// Where one listens.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    ip: IpAddr,
    /// Plain, TLS, HTTPS.
    ports: [u16; 3],
}

impl Place {
    /// On an address that nobody else has.
    pub(crate) fn new() -> Self {
        Self::on(own_loopback())
    }

    /// On an address that an interface has: named listens on no other.
    pub(crate) fn on_interface() -> Self {
        Self::on(Ipv4Addr::LOCALHOST)
    }

    fn on(ip: Ipv4Addr) -> Self {
        Self {
            ip: ip.into(),
            ports: free_ports(ip),
        }
    }

    /// Its address.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    fn at(&self) -> [SocketAddr; 3] {
        self.ports.map(|port| SocketAddr::new(self.ip, port))
    }

    /// As an upstream over TLS.
    pub(crate) fn tls(&self) -> String {
        format!("tls://{}#{NAME}", self.at()[1])
    }

    /// As an upstream over HTTPS.
    pub(crate) fn https(&self) -> String {
        format!("https://{NAME}:{}/dns-query#{}", self.ports[2], self.ip)
    }

    /// As an upstream over UDP and TCP.
    pub(crate) fn plain(&self) -> String {
        self.at()[0].to_string()
    }
}

/// A server that runs.
pub(crate) struct Secure {
    pub(crate) server: Server,
    pub(crate) place: Place,
}

/// Certificate and key of a name of the authority's.
fn files(authority: &Authority, name: &str) -> [String; 2] {
    ["pem", "key"].map(|kind| {
        let path = authority.path(&format!("{name}.{kind}"));
        path.display().to_string()
    })
}

impl Secure {
    /// named, with these zones from files of a directory.
    pub(crate) fn named(
        place: Place,
        directory: &Path,
        zones: &[(&str, &str)],
        authority: &Authority,
    ) -> Self {
        let [certificate, key] = files(authority, "good");
        let before = format!(
            "tls own {{ cert-file \"{certificate}\"; key-file \"{key}\"; }};\n\
             http own {{ endpoints {{ \"/dns-query\"; }}; }};\n"
        );
        let [plain, tls, https] = place.at();
        let options = format!(
            "listen-on port {} tls own {{ {ip}; }}; listen-on port {} tls own http own {{ {ip}; }};",
            tls.port(),
            https.port(),
            ip = place.ip
        );
        let server = Server::named_with(plain, directory, zones, &before, &options);
        Self { server, place }
    }

    /// Unbound, which forwards everything there.
    pub(crate) fn unbound(place: Place, to: SocketAddr, authority: &Authority) -> Self {
        let [certificate, key] = files(authority, "good");
        let [plain, tls, https] = place.at();
        let own = directory();
        let path = own.path().display();
        let text = format!(
            "server:\n  interface: {ip}@{}\n  interface: {ip}@{}\n  interface: {ip}@{}\n  port: {}\n  \
             tls-port: {}\n  https-port: {}\n  tls-service-pem: \"{certificate}\"\n  \
             tls-service-key: \"{key}\"\n  do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  \
             directory: \"{path}\"\n  pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  \
             do-not-query-localhost: no\n  num-threads: 1\n  access-control: 0.0.0.0/0 allow\n\
             remote-control:\n  control-enable: no\n\
             forward-zone:\n  name: \".\"\n  forward-addr: {}@{}\n",
            plain.port(),
            tls.port(),
            https.port(),
            plain.port(),
            tls.port(),
            https.port(),
            to.ip(),
            to.port(),
            ip = place.ip
        );
        let server = Server::configured("unbound", &["-d", "-c"], &text, plain, "localhost", own);
        Self { server, place }
    }

    /// Knot Resolver, which asks there.
    pub(crate) fn kresd(place: Place, to: SocketAddr, known: &str, authority: &Authority) -> Self {
        let [certificate, key] = files(authority, "good");
        let ip = place.ip;
        let [plain, tls, https] = place.ports;
        let text = format!(
            "net.listen('{ip}', {plain}, {{ kind = 'dns' }})\n\
             net.listen('{ip}', {tls}, {{ kind = 'tls' }})\n\
             net.listen('{ip}', {https}, {{ kind = 'doh2' }})\n\
             net.tls('{certificate}', '{key}')\ntrust_anchors.remove('.')\n\
             policy.add(policy.all(policy.STUB('{}@{}')))\ncache.size = 10*MB\n",
            to.ip(),
            to.port()
        );
        let own = directory();
        let at = place.at()[0];
        let server = Server::configured("kresd", &["-n", "-c"], &text, at, known, own);
        Self { server, place }
    }

    /// dnsdist in front of a server, at this place, with a certificate of this name, and with more of its own
    /// configuration.
    pub(crate) fn dnsdist(
        place: Place,
        to: SocketAddr,
        known: &str,
        (authority, name): (&Authority, &str),
        more: &str,
    ) -> Self {
        let [certificate, key] = files(authority, name);
        let [plain, tls, https] = place.at();
        let text = format!(
            "setSecurityPollSuffix(\"\")\nsetLocal(\"{plain}\")\nsetACL({{\"0.0.0.0/0\"}})\n\
             addTLSLocal(\"{tls}\", \"{certificate}\", \"{key}\")\n\
             addDOHLocal(\"{https}\", \"{certificate}\", \"{key}\", \"/dns-query\")\n\
             newServer({{address=\"{to}\", healthCheckMode=\"up\"}})\n{more}"
        );
        let flags = ["--supervised", "--disable-syslog", "-C"];
        let server = Server::configured("dnsdist", &flags, &text, plain, known, directory());
        Self { server, place }
    }
}

/// Portolan with these upstreams, in this order, for which the authority vouches.
pub(crate) fn portolan(authority: &Authority, upstreams: &[String]) -> Portolan {
    let flags = upstreams
        .iter()
        .flat_map(|upstream| ["--upstream".to_owned(), upstream.clone()]);
    let file = authority.path("ca.pem").display().to_string();
    launch(&[])
        .args(flags)
        .args(["--upstream-ca-file".to_owned(), file])
        .start()
}
