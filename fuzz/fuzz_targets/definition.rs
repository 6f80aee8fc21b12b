//! A file in Consul's service-definition format: read as `--services` does, then asked for
//! everything in it.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use portolan::answers::{Asked, Domains, Maker, Moment, Settings};
use portolan::catalog::{Catalog, Patience};
use portolan::dns::{Name, Rcode, Reply, ReplyEdns, Transport, types};
use portolan::files::{Files, Host, Origin, Source};
use portolan_fuzz::{checks, scratch};

fuzz_target!(|data: &[u8]| {
    let directory = scratch::holding("fuzz.json", data);
    let origins = vec![Origin::Directory(directory.to_owned())];
    let host = Host {
        name: "n1".to_owned(),
        address: "10.0.0.1".to_owned(),
        datacenter: "dc1".to_owned(),
    };
    match Files::read(origins, host) {
        Err(errors) => {
            let file = directory.join("fuzz.json").display().to_string();
            assert_eq!(errors.len(), 1, "one file, one mistake: {errors:?}");
            let text = errors[0].to_string();
            assert!(text.starts_with(&file), "{text}: names the file");
        }
        Ok(files) => {
            let definitions = &files.definitions;
            assert!(definitions.services() <= definitions.instances());
            let names = names(data);
            assert_eq!(names.len(), definitions.instances());
            let mut catalog = Catalog::new();
            Source::start(files, &mut catalog);
            for name in names.iter().take(8) {
                ask(&catalog, name);
            }
        }
    }
});

/// The names of all services in the file, as JSON has them.
fn names(data: &[u8]) -> Vec<String> {
    let file: serde_json::Value = serde_json::from_slice(data).expect("it was read before");
    let name = |service: &serde_json::Value| service["name"].as_str().map(str::to_owned);
    let many = file["services"].as_array();
    name(&file["service"])
        .into_iter()
        .chain(many.into_iter().flatten().filter_map(name))
        .collect()
}

fn ask(catalog: &Catalog, service: &str) {
    let domain = Name::from_text("consul").expect("a valid name");
    let domains = Domains::new(&domain, None);
    let Ok(name) = domain.below(&format!("{service}.service")) else {
        return;
    };
    let settings = Settings::default();
    let moment = Moment {
        serial: 7,
        serial_ends: u64::MAX,
    };
    let reader = catalog.read();
    let maker = Maker {
        catalog: &reader,
        settings: &settings,
    };
    for qtype in [types::A, types::AAAA, types::SRV, types::ANY] {
        let (domain, lookup) = domains
            .parse(name.as_wire(), qtype)
            .expect("below the domain");
        let asked = Asked {
            domain,
            name: &name,
            qtype,
            moment,
            patience: Patience::Some,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            by_alias: false,
        };
        let answer = maker.answer(&lookup, &asked).expect("files never wait");
        assert!(matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN));
        checks::negative(&answer);
        let question = [name.as_wire(), &qtype.to_be_bytes(), &[0, 1]].concat();
        checks::send(
            &answer,
            &name,
            &Reply {
                id: 7,
                question: &question,
                recursion_desired: true,
                wants_authentic: false,
                checking_disabled: false,
                recursion_available: false,
                transport: Transport::Udp,
                max_udp_size: 65507,
                edns: Some(ReplyEdns {
                    client_size: 1232,
                    own_size: 1232,
                    dnssec_ok: false,
                    client_subnet: None,
                }),
                client: IpAddr::V4(Ipv4Addr::LOCALHOST),
                rotation: 1,
                elapsed: 0,
            },
        );
    }
}
