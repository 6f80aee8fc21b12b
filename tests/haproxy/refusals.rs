//! Values that break the configuration.

use crate::{
    backends::Backend,
    edge::{SOON, Site},
    load::Load,
    support::{ensure, eventually, write_file},
};
#[test]
fn a_bad_value_is_refused_by_name_and_the_one_before_it_stays() {
    let site = Site::new();
    site.set_key("maxconn", "500");
    let _hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    assert_eq!(edge.info("Maxconn").as_deref(), Ok("500"));
    let load = Load::start(site.http, "/hello1/x");

    for (value, reason) in [
        ("many", "got \"many\""),
        ("0", "got \"0\""),
        ("10 nbthread 1", "got \"10 nbthread 1\""),
        (
            "10\nbackend x\n  server a 127.0.0.1:1",
            "more than one line",
        ),
    ] {
        site.set_key("maxconn", value);
        let refused = edge.metric("refused_keys");
        eventually(SOON, "it is refused", || {
            let (status, body) = edge.ready()?;
            ensure(status == 200, || body.clone())?;
            let named = body.contains("service/haproxy/maxconn: ") && body.contains(reason);
            ensure(named && edge.metric("refused_keys") == 1, || {
                format!("{refused} {body}")
            })
        });
    }
    // The rest goes on.
    site.set_key("timeouts/server", "20s");
    edge.reloaded(1);
    let config = site.config();
    assert!(config.contains("maxconn 500\n") && config.contains("server 20s\n"));
    assert!(!config.contains("backend x"), "{config}");

    site.set_key("maxconn", "600");
    edge.reloaded(2);
    assert_eq!(edge.info("Maxconn").as_deref(), Ok("600"));
    assert_eq!(edge.metric("refused_keys"), 0);
    let named = edge.events().into_iter().filter(|event| {
        event["fields"]["key"] == "service/haproxy/maxconn" && event["level"] == "WARN"
    });
    assert!(named.count() >= 2, "{:?}", edge.events());
    load.stop_without_failure(0);
}

/// What the check of the file cannot tell shows when HAProxy is to load it.
#[test]
fn a_value_that_haproxy_cannot_load_is_refused_too() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let (before, worker) = (site.config(), edge.info("Pid"));
    site.set_key("maxconn", "10000000");
    let loaded = eventually(SOON, "it is refused or loaded", || {
        let refused = edge.ready()?.1.contains("service/haproxy/maxconn: ");
        let loaded = edge.info("Maxconn").is_ok_and(|max| max == "10000000");
        ensure(refused || loaded, || "neither".to_owned())?;
        Ok(loaded)
    });
    if loaded {
        // A machine with that many files to open.
        return;
    }
    assert_eq!(site.config(), before, "the file is what it was");
    assert_eq!(edge.info("Pid"), worker);
    site.answers("/hello1/x", "hello1 /x");
    site.set_key("maxconn", "700");
    eventually(SOON, "the next value is taken", || {
        let is_refused = edge.metric("refused_keys") > 0;
        let is_loaded = edge.info("Maxconn")? == "700";
        ensure(is_loaded && !is_refused, || "not yet".to_owned())
    });
}

/// The same when HAProxy is to start on it: then it starts on the file of before.
#[test]
fn a_value_that_haproxy_cannot_start_with() {
    let site = Site::new();
    site.set_key("maxconn", "500");
    let _hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let before = site.config();
    drop(edge);
    site.set_key("maxconn", "10000000");
    let edge = site.start();
    if edge.info("Maxconn").as_deref() == Ok("10000000") {
        // A machine with that many files to open.
        return;
    }
    let (status, body) = edge.says("the last good configuration of before; ");
    assert!(status == 200 && body.contains("HAProxy refuses"), "{body}");
    site.answers("/hello1/x", "hello1 /x");
    eventually(SOON, "the file is what it was", || {
        ensure(site.config() == before, || site.config())
    });
    site.set_key("maxconn", "700");
    eventually(SOON, "the next value is taken", || {
        ensure(edge.info("Maxconn")? == "700", || "not yet".to_owned())
    });
    edge.says("haproxy: 1 backends\n");
}

/// In a template of the user's own, HAProxy decides what is wrong: the key is found by trying.
#[test]
fn with_a_users_template_the_key_is_found() {
    let site = Site::new();
    let template = write_file(
        site.directory.path(),
        "edge.j2",
        "global\n  maxconn {{ key_or('max', 100) }}\ndefaults\n  mode http\n  timeout connect 5s\n  \
         timeout client {{ key_or('client', '9s') }}\n  timeout server 9s\nfrontend f\n  bind \
         {{ bind }}\n  http-request return status {{ key_or('status', 200) }}\n",
    );
    let edge = site.launch(&["--template", &template.display().to_string()]);
    edge.wait_until_ready();
    eventually(SOON, "it answers", || {
        ensure(site.get("/")?.0 == 200, || "another status".to_owned())
    });
    // Three at once, of which one is wrong.
    site.set_key("client", "8 s");
    site.set_key("max", "150");
    site.set_key("status", "202");
    let (_, said) = edge.says("service/haproxy/client: ");
    assert!(said.contains("[ALERT]"), "HAProxy's own words: {said}");
    eventually(SOON, "the others are taken", || {
        let answer = site.get("/")?.0;
        let has = site.config().contains("maxconn 150\n");
        ensure(answer == 202 && has, || site.config())
    });
    assert!(site.config().contains("client 9s\n"), "{}", site.config());
    site.set_key("client", "8s");
    eventually(SOON, "the next value is taken", || {
        let is_refused = edge.metric("refused_keys") > 0;
        let has = site.config().contains("client 8s\n");
        ensure(has && !is_refused, || site.config())
    });
}

/// A template of the user's that puts tags where HAProxy wants something else.
const BY_TAG: &str = "defaults
  mode http
  timeout connect 5s
  timeout client 9s
  timeout server 9s
frontend f
  bind {{ bind }}
  use_backend %[path,field(2,/)]
{% for own in services() if own.name != 'consul' %}
backend {{ own.name }}
  timeout server {{ key_or('server', '9s') }}
{%- for instance in service(own.name) %}
{%- for tag in instance.tags %}
  balance {{ tag }}
{%- endfor %}
  server {{ instance.id }} {{ instance.address }}:{{ instance.port }}
{%- endfor %}
{% endfor %}
";

/// One service of many, or two of them, or one and a key: what breaks the configuration is named and left as it was,
/// and everything else goes on changing.
#[test]
fn a_service_that_breaks_the_configuration_is_found() {
    let site = Site::new();
    let file = write_file(site.directory.path(), "edge.j2", BY_TAG);
    let all: Vec<Backend> = (0..12)
        .map(|number| Backend::start(&format!("web{number}")))
        .collect();
    for backend in &all {
        site.register(&backend.name, "roundrobin", backend);
    }
    // There from the beginning.
    let rogue = Backend::start("rogue");
    site.register("rogue", "no\nbalance", &rogue);
    let edge = site.launch(&["--template", &file.display().to_string()]);
    edge.wait_until_ready();
    for backend in &all {
        site.answers(
            &format!("/{}", backend.name),
            &format!("{0} /{0}", backend.name),
        );
    }
    edge.says("service rogue: ");
    assert_eq!(edge.metric("refused_services"), 1);
    assert!(!site.config().contains("backend rogue"));

    // One that was well, one that is new, and a key.
    site.register("web3", "nonsense", &all[3]);
    let new = Backend::start("new");
    site.register("new", "also wrong", &new);
    site.set_key("server", "soon");
    let more = Backend::start("more");
    site.register("more", "leastconn", &more);
    site.answers("/more", "more /more");
    for what in [
        "service rogue: ",
        "service web3: ",
        "service new: ",
        "service/haproxy/server: ",
    ] {
        let (status, _) = edge.says(what);
        assert_eq!(status, 200, "{what}");
    }
    // It stays as it was.
    site.answers("/web3", "web3 /web3");
    let config = site.config();
    assert!(
        config.contains("backend web3") && !config.contains("backend new"),
        "{config}"
    );
    assert!(!config.contains("nonsense"), "{config}");
    assert_eq!(
        (edge.metric("refused_services"), edge.metric("refused_keys")),
        (3, 1)
    );

    // Each is tried when it changes.
    site.register("web3", "first", &all[3]);
    site.register("new", "first", &new);
    site.register("rogue", "first", &rogue);
    site.set_key("server", "8s");
    for backend in [&all[3], &new, &rogue] {
        site.answers(
            &format!("/{}", backend.name),
            &format!("{0} /{0}", backend.name),
        );
    }
    eventually(SOON, "nothing is refused", || {
        let refused = (edge.metric("refused_services"), edge.metric("refused_keys"));
        ensure(refused == (0, 0), || format!("{refused:?}"))
    });
    assert!(site.config().contains("balance first"));
}

/// Where nothing is known to be good yet: a key that breaks every backend is refused, and not the services; and what
/// breaks all of them is the template.
#[test]
fn at_the_start_services_are_not_blamed_for_others() {
    let site = Site::new();
    let file = write_file(site.directory.path(), "edge.j2", BY_TAG);
    let file = file.display().to_string();
    let all: Vec<Backend> = (0..4)
        .map(|number| Backend::start(&format!("web{number}")))
        .collect();
    for backend in &all {
        site.register(&backend.name, "roundrobin", backend);
    }
    let wrong = BY_TAG.replace("  balance ", "  balanced ");
    let wrong = write_file(site.directory.path(), "wrong.j2", &wrong);
    let outcome = site.run(&["--once", "--template", &wrong.display().to_string()]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(site.config(), "", "nothing is written");

    site.set_key("server", "soon");
    let edge = site.launch(&["--template", &file]);
    edge.says("service/haproxy/server: ");
    for backend in &all {
        site.answers(
            &format!("/{}", backend.name),
            &format!("{0} /{0}", backend.name),
        );
    }
    assert_eq!(edge.metric("refused_services"), 0);
    site.set_key("server", "8s");
    eventually(SOON, "it is taken", || {
        ensure(site.config().contains("timeout server 8s"), || {
            site.config()
        })
    });
}

/// A backend that the template names elsewhere: what else changes is not held up when its service has been gone for long.
#[test]
fn a_backend_that_is_asked_for_by_name_lingers_on() {
    let site = Site::new();
    let text = BY_TAG.replace(
        "  use_backend %[path,field(2,/)]\n",
        "  use_backend web if { path_beg /web }\n  use_backend %[path,field(2,/)]\n",
    );
    let text = text
        .replace("services() if own.name != 'consul'", "tagged()")
        .replace("  balance {{ tag }}\n", "  # {{ tag }}\n");
    let file = write_file(site.directory.path(), "edge.j2", &text);
    let toml = "[haproxy]\nlinger = \"2s\"\nreload_pace = \"0s\"\n";
    let toml = write_file(site.directory.path(), "linger.toml", toml);
    let [web, other] = ["web", "other"].map(|name| site.service(name));
    let _more = site.service("more");
    let (file, toml) = (file.display().to_string(), toml.display().to_string());
    let edge = site.launch(&["--config", &toml, "--template", &file]);
    site.answers("/web", "web /web");
    site.deregister(&web);
    eventually(SOON, "it has stayed", || {
        let log = edge.log();
        let is_told = log.contains("they stay, empty");
        ensure(is_told, || "not yet".to_owned())
    });
    site.deregister(&other);
    site.set_key("server", "8s");
    eventually(SOON, "the rest goes on", || {
        let config = site.config();
        let is_right = config.contains("timeout server 8s") && !config.contains("backend other");
        ensure(is_right && config.contains("backend web\n"), || config)
    });
}
