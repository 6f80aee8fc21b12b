//! Templates of users and odd moments: values stay what they are, and what passes is waited out.

use crate::{
    edge::{SOON, Site},
    support::{ensure, eventually, portolan, program, write_file},
};
use std::fs;

/// What a template of a user begins with.
const HEAD: &str =
    "defaults\n  mode http\n  timeout connect 5s\n  timeout client 9s\n  timeout server 9s\n";

fn template(site: &Site, text: &str) -> String {
    let file = write_file(site.directory.path(), "edge.j2", &format!("{HEAD}{text}"));
    file.display().to_string()
}

/// Whatever is in a key, it stays text where the author has quoted it; and nothing of our environment is to be had.
#[test]
fn values_in_the_authors_quotes_stay_text() {
    let site = Site::new();
    let file = template(
        &site,
        "{%- macro text(key) -%}\n\"{{ key_or(key, 'none') }}\"\n{%- endmacro %}\nfrontend f\n  bind {{ bind }}\n  \
         http-request return status 200 content-type text/plain string {{ text('a') }} if { path /a }\n  \
         http-request return status 200 content-type text/plain string '{{ key_or('a', 'none') }}' if { path /b }\n  \
         http-request return status 200 content-type text/plain string {{ key_or('a', 'none') }} if { path /c }\n  \
         http-request return status 200 content-type text/plain string \"x${CONSUL_HTTP_TOKEN}${HAPROXY_STATS_AUTH}x\"\n",
    );
    let arguments = site.arguments(&["--template", &file]);
    let environment = [
        ("CONSUL_HTTP_TOKEN", "secret"),
        ("HAPROXY_STATS_AUTH", "me:secret"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let edge = site.launch_command(portolan::command(&arguments, &environment));
    site.answers("/a", "none");
    site.answers("/d", "xx");
    for value in [
        "${CONSUL_HTTP_TOKEN}",
        "\" if TRUE #",
        "it's \\ \"$HOME\" # {{ x }}",
        "' if TRUE #",
    ] {
        site.set_key("a", value);
        for path in ["/a", "/b", "/c"] {
            site.answers(path, value);
        }
    }
    let (_, said) = edge.ready().expect("an answer");
    assert!(!said.contains("refused"), "{said}");
}

/// Lines of a key are lines where they are asked for, and refuse the key elsewhere.
#[test]
fn keys_of_several_lines() {
    let site = Site::new();
    let file = template(
        &site,
        "frontend f\n  bind {{ bind }}\n{{ lines(key_or('rules', '')) }}\n  http-request return status 200 \
         content-type text/plain string {{ key_or('word', 'none') }}\n",
    );
    site.set_key(
        "rules",
        "  http-request deny deny_status 403 if { path /tea }\n  http-request deny deny_status 410 if { path /gone }\n",
    );
    let edge = site.launch(&["--template", &file]);
    site.answers("/x", "none");
    for (path, status) in [("/tea", 403), ("/gone", 410)] {
        eventually(SOON, "its rule is there", || {
            let answer = site.get(path)?;
            ensure(answer.0 == status, || format!("{answer:?}"))
        });
    }
    site.set_key("word", "a\nb");
    edge.says("service/haproxy/word");
    site.answers("/x", "none");
    site.set_key("word", "good");
    site.answers("/x", "good");
}

/// Consul Template's forms of a service mean what they mean there, or are an error with a place, not an empty list.
#[test]
fn forms_of_a_service_are_known_or_errors() {
    let site = Site::new();
    let web = site.service("web");
    for (form, found) in [
        ("rest.web", 1),
        ("blue.web", 0),
        ("web|any", 1),
        ("web|warning", 0),
    ] {
        let text = format!(
            "frontend f\n  bind {{{{ bind }}}}\n# found {{{{ service(\"{form}\")|length }}}}\n"
        );
        let outcome = site.run(&["--once", "--template", &template(&site, &text)]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let config = site.config();
        assert!(
            config.contains(&format!("# found {found}\n")),
            "{form}: {config}"
        );
    }
    drop(web);
    for form in ["web@dc1", "web~agent", "web|well", "rest.web@dc1"] {
        let text =
            format!("frontend f\n  bind {{{{ bind }}}}\n# {{{{ service(\"{form}\")|length }}}}\n");
        let outcome = site.run(&["--once", "--template", &template(&site, &text)]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("edge.j2:8"), "{outcome:?}");
        assert!(outcome.stderr.contains(form), "{outcome:?}");
    }
}

/// HAProxy is away for a moment: that says nothing against a key.
#[test]
fn what_passes_refuses_no_key() {
    let site = Site::new();
    let haproxy = site.directory.path().join("haproxy");
    fs::copy(program("haproxy"), &haproxy).expect("a copy");
    let site = site.with_haproxy(haproxy.clone());
    let _hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let away = site.directory.path().join("away");
    fs::rename(&haproxy, &away).expect("moved");
    site.set_key("maxconn", "600");
    eventually(SOON, "it is tried", || {
        let failed = edge.metric("changes_total{outcome=\"failed\"}");
        ensure(failed > 0, || "not yet".to_owned())
    });
    assert_eq!(edge.metric("refused_keys"), 0);
    fs::rename(&away, &haproxy).expect("moved back");
    eventually(SOON, "it is taken", || {
        ensure(edge.info("Maxconn").as_deref() == Ok("600"), || {
            site.config()
        })
    });
    let (_, said) = edge.ready().expect("an answer");
    assert!(!said.contains("maxconn"), "{said}");
}

/// Errands end, if with an error.
#[test]
fn errands_do_not_wait_for_ever() {
    let mut site = Site::new();
    site.consul.kill();
    for errand in ["--once", "--dry-run"] {
        let outcome = site.run(&[errand]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(
            outcome.stderr.contains("Consul has not said"),
            "{outcome:?}"
        );
    }
}

/// What a dry run shows may be shown to anybody.
#[test]
fn a_dry_run_shows_no_secret() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    site.set_key("stats/auth", "me:hidden-word");
    let outcome = site.run(&["--dry-run"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("stats auth …"), "{outcome:?}");
    assert!(!outcome.stdout.contains("hidden-word"), "{outcome:?}");
}
