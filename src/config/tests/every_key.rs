//! Every key of the file at once.

use super::*;

/// Every key, none with its default.
pub(super) const EVERYTHING: &str = r#"
    domain = "sd.example."
    alt_domain = "Other"
    datacenter = "DC7"
    state_dir = "state"
    [server]
    listen = ["127.0.0.1:5300", "[::1]:5300", "127.0.0.1:5300"]
    workers = 3
    max_tcp_connections = 64
    max_tcp_connections_per_client = 100
    tcp_idle_timeout = 20
    queue_size = 10
    [consul]
    address = "https://consul.example:8501"
    token = "secret"
    datacenter = "dc2"
    fallback_addresses = ["http://c2:8500"]
    max_watches = 64
    max_stale = "10s"
    translate_wan_addrs = true
    ca_file = "ca.pem"
    client_cert = "cert.pem"
    client_key = "key.pem"
    tls_server_name = "server.dc2.consul"
    verify = false
    [docker]
    address = "tcp://proxy:2375"
    cert_path = "certs"
    serve = true
    ip = "10.0.0.9"
    [register]
    owner = "me"
    ip = "10.0.0.5"
    tags = ["one", "two"]
    internal = true
    explicit = true
    deregister = "on-success"
    on_exit = "deregister"
    resync = "1m"
    [services]
    directories = ["one", "two"]
    [zones]
    directory = "zones"
    [recursion]
    upstreams = ["192.0.2.53", "[2001:db8::53]:5353"]
    allow = ["192.0.2.0/24"]
    recursor_strategy = "random"
    recursor_timeout = "500ms"
    cache_size = 0
    [answers]
    max_udp_size = 1232
    truncate_addresses = "tc"
    srv_target = "address"
    srv_weight_scale = 256
    only_passing = true
    service_ttl = { Web = "10s", "db*" = 20 }
    node_ttl = "0s"
    a_record_limit = 4
    udp_answer_limit = 3
    [answers.soa]
    min_ttl = 2
    refresh = "3s"
    retry = "4s"
    expire = "5s"
    [admin]
    listen = "none"
    [log]
    format = "json"
"#;

#[test]
fn every_key_is_read() {
    let seconds = Duration::from_secs;
    let config = file(EVERYTHING);
    let expected = Config {
        file: config.file.clone(),
        domain: "sd.example".to_owned(),
        alt_domain: Some("other".to_owned()),
        datacenter: "dc7".to_owned(),
        state_dir: Some(PathBuf::from("state")),
        server: Server {
            listen: ["127.0.0.1:5300", "[::1]:5300"]
                .map(|address| address.parse().expect(address))
                .to_vec(),
            workers: 3,
            max_tcp_connections: 64,
            max_tcp_connections_per_client: 64,
            tcp_idle_timeout: seconds(20),
            queue_size: 10,
        },
        consul: Some(Consul {
            address: Address::parse("https://consul.example:8501").expect("a URL"),
            token: TokenSource::Given(Token::new("secret").expect("a token")),
            datacenter: Some("dc2".to_owned()),
            fallback_addresses: vec![Address::parse("http://c2:8500").expect("a URL")],
            max_watches: 64,
            max_stale: seconds(10),
            translate_wan_addrs: true,
            tls: Tls {
                authorities: Authorities::File(PathBuf::from("ca.pem")),
                client: Some(ClientCertificate {
                    certificate: PathBuf::from("cert.pem"),
                    key: PathBuf::from("key.pem"),
                }),
                server_name: Some("server.dc2.consul".to_owned()),
                verify: false,
            },
        }),
        docker: Docker {
            address: DockerAddress::parse("http://proxy:2375").expect("an address"),
            cert_path: Some(PathBuf::from("certs")),
            serve: true,
            ip: Some([10, 0, 0, 9].into()),
        },
        register: Register {
            owner: Some("me".to_owned()),
            ip: Some([10, 0, 0, 5].into()),
            tags: vec!["one".to_owned(), "two".to_owned()],
            internal: true,
            explicit: true,
            deregister: Deregister::OnSuccess,
            on_exit: OnExit::Deregister,
            resync: seconds(60),
        },
        services: vec![PathBuf::from("one"), PathBuf::from("two")],
        zones: Some(PathBuf::from("zones")),
        recursion: Recursion {
            upstreams: Upstreams::List(
                ["192.0.2.53:53", "[2001:db8::53]:5353"]
                    .map(|address| address.parse().expect(address))
                    .to_vec(),
            ),
            allow: vec!["192.0.2.0/24".parse().expect("a network")],
            recursor_strategy: RecursorStrategy::Random,
            recursor_timeout: Duration::from_millis(500),
            cache_size: 0,
        },
        answers: Answers {
            max_udp_size: 1232,
            truncate_addresses: TruncateAddresses::Tc,
            srv_target: SrvTarget::Address,
            srv_weight_scale: 256,
            only_passing: true,
            service_ttl: [("*", 1), ("db*", 20), ("web", 10)]
                .map(|(name, ttl)| (name.to_owned(), seconds(ttl)))
                .into(),
            node_ttl: Duration::ZERO,
            a_record_limit: 4,
            udp_answer_limit: 3,
            soa: Soa {
                min_ttl: seconds(2),
                refresh: seconds(3),
                retry: seconds(4),
                expire: seconds(5),
            },
        },
        admin: None,
        log: LogFormat::Json,
    };
    assert_eq!(config, expected);
    assert!(config.file.is_some());
}

#[test]
fn the_list_of_keys_and_the_schema_agree() {
    // The two that cannot stand beside their twins in EVERYTHING.
    let twins = ["consul.token_file", "consul.ca_path"];
    let table: toml::Table = EVERYTHING.parse().expect("TOML");
    for key in keys::KEYS {
        let mut parts = key.split('.');
        let first = parts.next().and_then(|part| table.get(part));
        let value = parts.fold(first, |value, part| value.and_then(|value| value.get(part)));
        assert!(
            value.is_some() || twins.contains(key),
            "{key} is not in EVERYTHING"
        );
    }
    let config = file("[consul]\ntoken_file = \"t\"\nca_path = \"c\"");
    let consul = consul(config);
    assert_eq!(consul.token, TokenSource::File(PathBuf::from("t")));
    assert_eq!(
        consul.tls.authorities,
        Authorities::Directory(PathBuf::from("c"))
    );
}
