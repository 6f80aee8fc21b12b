//! A Consul over TLS, whose certificate runs out and is renewed.

use crate::{
    alone,
    asking::all_right,
    figure,
    support::{
        consul::{Consul, Options},
        directory,
        dns::Query,
        ensure, eventually,
        portolan::{Launch, Portolan},
        program,
        wire::{rcode, rtype::A},
    },
    world::{Services, new_data},
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command, time::Duration};

/// The name in Consul's certificates: its address is known only once it runs.
const NAME: &str = "server.dc1.consul";

/// The longest pause between two tries, and what new data take after it.
const RECOVERED: Duration = Duration::from_secs(7);

/// An authority of its own, with its files in a directory.
const AUTHORITY: &str = "[ca]
default_ca = test
[test]
database = ./issued
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
x509_extensions = server
[any]
commonName = supplied
[server]
subjectAltName = DNS:server.dc1.consul
";

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new(program("openssl"))
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .output()
        .expect("running openssl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {errors}");
}

/// Makes an authority, a key, and two certificates for it: `expired.pem` and `good.pem`.
fn make_certificates(directory: &Path) {
    fs::write(directory.join("ca.cnf"), AUTHORITY).expect("writing ca.cnf");
    fs::write(directory.join("issued"), "").expect("writing the list of certificates");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        directory,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=test -days 30"),
    );
    openssl(
        directory,
        &format!("req {key} -keyout key.pem -out request.pem -subj /CN={NAME}"),
    );
    let sign = "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in request.pem";
    openssl(
        directory,
        &format!("{sign} -out expired.pem -startdate 20200101000000Z -enddate 20200201000000Z"),
    );
    openssl(directory, &format!("{sign} -out good.pem -days 30"));
}

/// Puts a certificate where Consul reads it, and has it read.
fn use_certificate(consul: Option<&Consul>, directory: &Path, file: &str) {
    fs::copy(directory.join(file), directory.join("certificate.pem")).expect("a certificate");
    if let Some(consul) = consul {
        consul.put("/v1/agent/reload", &Value::Null);
    }
}

fn start(directory: &Path) -> Consul {
    Consul::start_with(Options {
        https: true,
        extra: json!({ "ca_file": directory.join("ca.pem"),
            "cert_file": directory.join("certificate.pem"),
            "key_file": directory.join("key.pem") }),
        ..Options::default()
    })
}

fn beside(consul: &Consul, directory: &Path) -> Launch {
    let authority = directory.join("ca.pem");
    Launch::new("serve")
        .args(["--consul", &consul.https_url(), "--upstream", "none"])
        .config(&format!(
            "[consul]\nca_file = {authority:?}\ntls_server_name = {NAME:?}\n"
        ))
}

/// Waits until the log says that it is the certificate.
fn wait_until_alarmed(portolan: &Portolan) {
    eventually(
        Duration::from_secs(10),
        "the log speaks of the certificate",
        || {
            let events = portolan.events();
            let alarm = events.iter().find(|event| {
                let text = event["fields"].to_string().to_lowercase();
                event["level"] != "INFO" && text.contains("certificate") && text.contains("expired")
            });
            ensure(alarm.is_some(), || format!("{} other lines", events.len()))
        },
    );
}

#[test]
fn an_expired_certificate_at_the_start_is_waited_out() {
    let _alone = alone();
    let directory = directory();
    make_certificates(directory.path());
    use_certificate(None, directory.path(), "expired.pem");
    let consul = start(directory.path());
    let services = Services::new("s", 20, 20);
    services.register(&consul);
    let portolan = beside(&consul, directory.path()).not_ready().start();
    wait_until_alarmed(&portolan);
    let reply = Query::new(&services.name(1), A).ask(portolan.dns());
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
    use_certificate(Some(&consul), directory.path(), "good.pem");
    let righted = all_right(
        portolan.dns(),
        &services.questions(),
        Duration::from_secs(20),
    );
    figure(&format!(
        "names answered {righted:?} after a good certificate took an expired one's place"
    ));
    assert!(righted <= RECOVERED, "only after {righted:?}");
}

#[test]
fn a_certificate_that_expires_costs_no_name() {
    let _alone = alone();
    let directory = directory();
    make_certificates(directory.path());
    use_certificate(None, directory.path(), "good.pem");
    let mut consul = start(directory.path());
    let services = Services::new("s", 20, 20);
    services.register(&consul);
    let portolan = beside(&consul, directory.path()).start();
    let questions = services.questions();
    all_right(portolan.dns(), &questions, Duration::from_secs(10));
    new_data(&consul, portolan.dns(), "fresh", 1);

    // Connections that are open stay good, so it is a restart that shows the certificate.
    use_certificate(None, directory.path(), "expired.pem");
    consul.restart();
    consul.wait_until_ready();
    wait_until_alarmed(&portolan);
    all_right(portolan.dns(), &questions, Duration::from_secs(1));
    let absent = Query::new("absent.service.consul", A).ask(portolan.dns());
    assert_eq!(absent.rcode(), rcode::NXDOMAIN, "{}", absent.summary());

    use_certificate(Some(&consul), directory.path(), "good.pem");
    let late = new_data(&consul, portolan.dns(), "fresh", 2);
    all_right(portolan.dns(), &questions, Duration::from_secs(1));
    figure(&format!(
        "new data was seen {late:?} after an expired certificate was renewed"
    ));
    assert!(late <= RECOVERED, "new data was seen after {late:?}");
}
