//! What templates can ask for, and what becomes of odd words.

use std::collections::BTreeSet;

use super::*;
use crate::catalog::{Node, Weights};

fn instance(id: &str, address: &str, port: u16, health: Health) -> Instance {
    Instance {
        id: id.to_owned(),
        address: address.to_owned(),
        tagged_addresses: BTreeMap::new(),
        port,
        ports: Vec::new(),
        tags: vec!["rest".to_owned()],
        weights: Weights::default(),
        health,
        node: Arc::new(Node {
            name: "n1".to_owned(),
            datacenter: "dc1".to_owned(),
            address: "10.0.0.9".to_owned(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
        }),
    }
}

fn scene(values: &[(&str, &str)]) -> Arc<Scene> {
    let address = |text: &str| text.parse().expect("an address");
    let web = Service::new(vec![
        instance("web-1", "10.0.0.1", 80, Health::Passing),
        instance("web-2", "", 81, Health::Warning),
        instance("web-3", "10.0.0.3", 82, Health::Critical),
    ]);
    let tags = |tag: &str| BTreeSet::from([tag.to_owned()]);
    Arc::new(Scene {
        frame: Frame {
            prefix: "service/haproxy".to_owned(),
            tag: "rest".to_owned(),
            domain: "consul".to_owned(),
            resolver: address("127.0.0.1:53"),
            bind: address("0.0.0.0:80"),
            stats_bind: None,
            stats_auth: None,
            state_file: "/x/haproxy.state".into(),
        },
        values: values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        services: Arc::new(
            [
                ("web".to_owned(), tags("rest")),
                ("db".to_owned(), tags("x")),
            ]
            .into(),
        ),
        slots: [("web".to_owned(), 32)].into(),
        instances: [("web".to_owned(), Arc::new(web))].into(),
        lacks_auth: false,
    })
}

fn render(text: &str, values: &[(&str, &str)]) -> Result<Rendered, TemplateError> {
    let template = Template {
        name: "edge.j2".to_owned(),
        text: text.to_owned(),
    };
    template.render(&scene(values))
}

fn text(template: &str, values: &[(&str, &str)]) -> String {
    render(template, values).expect(template).text
}

#[test]
fn keys_by_their_whole_name_and_below_the_prefix() {
    let values = [
        ("maxconn", "9"),
        ("timeouts/client", "3s"),
        ("timeouts/a/b", "x"),
    ];
    let shown = |template| text(template, &values);
    assert_eq!(shown("{{ key('maxconn') }}"), "9\n");
    assert_eq!(shown("{{ key('service/haproxy/maxconn') }}"), "9\n");
    assert_eq!(
        shown("{{ key_or('none', 7) }} {{ key_or('maxconn', 7) }}"),
        "7 9\n"
    );
    let each = "{% for k in keys('timeouts') %}{{ k.key }}={{ k.value }};{% endfor %}";
    assert_eq!(shown(each), "client=3s;\n");
    let each = "{% for k in keys() %}{{ k.key }}={{ k.value }};{% endfor %}";
    assert_eq!(shown(each), "maxconn=9;\n");
}

#[test]
fn services_and_their_healthy_instances() {
    let shown = |template| text(template, &[]);
    let each = "{% for s in services() %}{{ s.name }}:{{ 'x' in s.tags }} {% endfor %}";
    assert_eq!(shown(each), "db:True web:False \n");
    let each = "{% for i in service('Web') %}{{ i.id }}={{ i.address }}:{{ i.port }} {% endfor %}";
    assert_eq!(
        shown(each),
        "web-1=10.0.0.1:80 web-2=10.0.0.9:81 \n".to_owned()
    );
    let each = "{% for s in tagged() %}{{ s.name }} {{ s.slots }} {{ s.instances }}{% endfor %}";
    assert_eq!(shown(each), "web 32 2\n");
    let rendered = render("{{ service('db')|length }}", &[]).expect("no instance");
    assert_eq!(rendered.asked, BTreeSet::from(["db".to_owned()]));
}

#[test]
fn a_value_stays_one_word() {
    let shown = |value| text("maxconn {{ key('k') }}", &[("k", value)]);
    assert_eq!(shown("4096"), "maxconn 4096\n");
    assert_eq!(shown("4096 nbthread 1"), "maxconn '4096 nbthread 1'\n");
    assert_eq!(shown("it's # $x"), "maxconn 'it'\\''s # $x'\n");
    assert_eq!(shown(""), "maxconn ''\n");
    assert_eq!(text("{{ key('k')|safe }}", &[("k", "a b")]), "a b\n");
    render("{{ key('k') }}", &[("k", "a\nb")]).expect_err("two lines");
}

#[test]
fn an_error_names_file_and_line() {
    for (template, place, what) in [
        ("a\n{% for %}\n", "edge.j2:2", "syntax error"),
        (
            "a\nb\n{{ key('none') }}",
            "edge.j2:3",
            "no key service/haproxy/none",
        ),
        ("\n{{ nothing }}", "edge.j2:2", "undefined"),
        ("{{ nothing() }}", "edge.j2:1", "unknown function"),
        ("{{ key() }}", "edge.j2:1", "missing argument"),
    ] {
        let error = render(template, &[]).expect_err(template).to_string();
        assert!(error.starts_with(place) && error.contains(what), "{error}");
    }
    let missing = Template::read(Some(Path::new("/nowhere/x.j2"))).expect_err("no file");
    assert!(
        missing.to_string().starts_with("/nowhere/x.j2: "),
        "{missing}"
    );
}

#[test]
fn the_template_in_the_program() {
    let template = Template::read(None).expect("a template");
    let shown = |values| template.render(&scene(values)).expect("rendered").text;
    let plain = shown(&[]);
    for line in [
        "    maxconn 4096\n",
        "    timeout client 50s\n",
        "    bind 127.0.0.1:1936\n",
        "    server-state-file /x/haproxy.state\n",
        "\nbackend web\n",
        "    server-template s 32 _web._tcp.service.consul resolvers portolan ",
    ] {
        assert!(plain.contains(line), "no {line:?} in:\n{plain}");
    }
    assert!(
        !plain.contains("stats auth") && !plain.contains("backend db"),
        "{plain}"
    );
    // A page that is for all without credentials is not when those in Consul are refused.
    let mut public = Arc::into_inner(scene(&[])).expect("nobody else has it");
    public.frame.stats_bind = "0.0.0.0:99".parse().ok();
    public.lacks_auth = true;
    let public = template.render(&Arc::new(public)).expect("rendered").text;
    assert!(public.contains("    bind 127.0.0.1:99\n"), "{public}");
    let set = shown(&[
        ("maxconn", "7"),
        ("timeouts/client", "3s"),
        ("stats/auth", "me:it's"),
        ("check/path", "/up"),
        ("balance", "leastconn"),
    ]);
    for line in [
        "    maxconn 7\n",
        "    timeout client 3s\n",
        "    timeout server 50s\n",
        "    bind 0.0.0.0:1936\n",
        "    stats auth 'me:it'\\''s'\n",
        "    http-check send meth HEAD uri /up ver HTTP/1.1 hdr Host web\n",
        "    balance leastconn\n",
    ] {
        assert!(set.contains(line), "no {line:?} in:\n{set}");
    }
    assert_eq!(set.matches("timeout client").count(), 1, "{set}");
}
