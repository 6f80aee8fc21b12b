//! Templates of users, and the errands that end by themselves.

use crate::{
    edge::{Edge, SOON, Site},
    support::{ensure, eventually, write_file},
};

const TEMPLATE: &str = "defaults
  mode http
  timeout connect {{ key_or('connect', '5s') }}
  timeout client 9s
  timeout server 9s
frontend f
  bind {{ bind }}
  default_backend web
backend web
{%- for instance in service('web') %}
  server {{ instance.id }} {{ instance.address }}:{{ instance.port }}
{%- endfor %}
";

fn template(site: &Site, text: &str) -> String {
    let file = write_file(site.directory.path(), "edge.j2", text);
    file.display().to_string()
}

/// As with Consul Template: servers are written down, and each that comes or goes is a reload.
#[test]
fn a_template_that_lists_instances() {
    let site = Site::new();
    let file = template(&site, TEMPLATE);
    let web = site.service("web");
    let edge: Edge = site.launch(&["--template", &file]);
    site.answers("/x", "web /x");
    let more = crate::backends::Backend::start("web-2");
    site.register("web", "other", &more);
    site.answers("/x", "web-2 /x");
    edge.reloaded(1);
    site.deregister(&web);
    edge.reloaded(2);
    let server = |backend: &crate::backends::Backend| format!("server {} ", backend.name);
    assert!(!site.config().contains(&server(&web)) && site.config().contains(&server(&more)));

    // A better template is taken up, and one that is wrong is not.
    template(&site, &TEMPLATE.replace("client 9s", "client 8s"));
    edge.signal("HUP");
    eventually(SOON, "the new template", || {
        ensure(site.config().contains("client 8s"), || site.config())
    });
    template(&site, "{% for %}");
    edge.signal("HUP");
    eventually(SOON, "it is refused", || {
        let refused = edge.log().contains("edge.j2:1: syntax error");
        ensure(refused, || "not yet".to_owned())
    });
    assert!(site.config().contains("client 8s"));
}

#[test]
fn once_and_dry_run() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    let shown = site.run(&["--dry-run"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("\n+backend hello1\n"), "{shown:?}");
    assert_eq!(site.config(), "", "nothing is written");

    let done = site.run(&["--once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        site.config().contains("\nbackend hello1\n"),
        "{}",
        site.config()
    );
    let shown = site.run(&["--dry-run"]);
    assert!(
        shown.stdout.ends_with("nothing would change\n"),
        "{shown:?}"
    );

    let before = site.config();
    site.set_key("timeouts/server", "11s");
    let shown = site.run(&["--dry-run"]);
    let lines: Vec<&str> = shown
        .stdout
        .lines()
        .filter(|l| l.starts_with(['+', '-']))
        .collect();
    assert_eq!(lines.len(), 4, "{shown:?}");
    assert!(lines.contains(&"+    timeout server 11s"), "{shown:?}");
    assert_eq!(site.config(), before);
    let names: Vec<String> = std::fs::read_dir(site.directory.path())
        .expect("there")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let candidates = names.iter().any(|name| name.ends_with(".new"));
    assert!(!candidates, "{names:?}");
}

#[test]
fn what_is_wrong_from_the_start_is_said_in_a_line() {
    let site = Site::new();
    let wrong = template(&site, "global\n{{ key( }}\n");
    for (more, code, words) in [
        (&["--template", &wrong][..], 78, "edge.j2:2: syntax error"),
        (&["--template", "/nowhere/x.j2"], 78, "/nowhere/x.j2: "),
        (
            &["--haproxy", "/nowhere/haproxy"],
            1,
            "cannot run /nowhere/haproxy",
        ),
    ] {
        let outcome = site.run(more);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.last_line().contains(words), "{outcome:?}");
    }
    let missing = template(&site, "global\n  maxconn {{ key('max') }}\n");
    let outcome = site.run(&["--template", &missing, "--once"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.last_line().contains("edge.j2:2: ")
            && outcome.last_line().contains("no key service/haproxy/max"),
        "{outcome:?}"
    );
    let broken = template(&site, "global\n  maxkonn 1\n");
    let outcome = site.run(&["--template", &broken, "--once"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.last_line().contains("maxkonn"),
        "HAProxy's words: {outcome:?}"
    );
    assert_eq!(site.config(), "");
}
