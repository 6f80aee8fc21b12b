//! The template of haproxy.cfg: what it can ask for, and how its words are kept words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::Value;
use minijinja::{Environment, Error, UndefinedBehavior, context, escape_formatter};

use crate::catalog::{Health, Instance, Service};
use crate::consul::TagsByName;
use crate::secret::Token;

use super::Settings;
use super::backends::Backend;
use super::helpers::{add_helpers, invalid};
use super::quoting::{marked, settle};
use super::values::Texts;

/// The template in the program.
const BUILTIN: &str = include_str!("haproxy.cfg.j2");
const BUILTIN_NAME: &str = "the template in the program";

/// The port of the statistics.
const STATS_PORT: u16 = 1936;

/// A template, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    name: String,
    text: String,
}

/// Why a template gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Its file cannot be read.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is wrong, or asks for what is not there.
    #[error("{place}: {what}")]
    Wrong {
        /// File and line.
        place: String,
        /// What is wrong there.
        what: String,
    },
}

/// What a template is rendered from.
pub(super) struct Model {
    pub(super) settings: Settings,
    /// Where a new process of HAProxy finds its servers.
    pub(super) state_file: PathBuf,
    pub(super) values: Texts,
    pub(super) services: Arc<TagsByName>,
    /// The services that get a backend.
    pub(super) backends: BTreeMap<String, Backend>,
    pub(super) instances: BTreeMap<String, Arc<Service>>,
    /// There are credentials for the statistics in Consul, and they are not right.
    pub(super) lacks_auth: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// Services whose instances it asked for.
    pub(super) asked: BTreeSet<String>,
}

impl Template {
    /// Reads a file, or takes the template in the program.
    ///
    /// # Errors
    /// If the file cannot be read or is no template.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, TemplateError> {
        let template = match file {
            None => Self {
                name: BUILTIN_NAME.to_owned(),
                text: BUILTIN.to_owned(),
            },
            Some(file) => Self {
                name: file.display().to_string(),
                text: std::fs::read_to_string(file).map_err(|source| TemplateError::File {
                    file: file.to_owned(),
                    source,
                })?,
            },
        };
        let parsed = Environment::new()
            .template_from_named_str(&template.name, &template.text)
            .map(drop);
        parsed.map_err(|error| template.wrong(&error))?;
        Ok(template)
    }

    /// Renders the template.
    ///
    /// # Errors
    /// With file and line, if it is wrong or asks for a key that is not there.
    pub(super) fn render(&self, model: &Arc<Model>) -> Result<Rendered, TemplateError> {
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(|out, state, value| match value.as_str() {
            Some(text) if !value.is_safe() => {
                let marked = marked(text).map_err(|what| invalid(what.to_owned()))?;
                out.write_str(&marked).map_err(Error::from)
            }
            _ => escape_formatter(out, state, value),
        });
        add_helpers(&mut environment, model, &asked);
        let settings = &model.settings;
        let mut text = environment
            .template_from_named_str(&self.name, &self.text)
            .and_then(|template| {
                template.render(context! {
                    prefix => &settings.prefix,
                    tag => &settings.tag,
                    domain => &settings.domain,
                    resolver => settings.resolver.to_string(),
                    bind => settings.bind.to_string(),
                    state_file => model.state_file.display().to_string(),
                    stats => stats(model),
                })
            })
            .map_err(|error| self.wrong(&error))?;
        text = settle(&text);
        // HAProxy wants its last line whole.
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let asked = std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Rendered { text, asked })
    }

    fn wrong(&self, error: &Error) -> TemplateError {
        let name = error.name().unwrap_or(&self.name);
        let place = match error.line() {
            Some(line) => format!("{name}:{line}"),
            None => name.to_owned(),
        };
        let what = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        TemplateError::Wrong { place, what }
    }
}

/// The statistics: everybody may see them who can reach them, so without credentials nobody can from
/// elsewhere, unless the operator says so.
fn stats(model: &Model) -> Value {
    let key = model.values.get("stats/auth").map(String::as_str);
    let set = model.settings.stats_auth.as_ref().map(Token::expose);
    let auth = key.or(set);
    let address = match auth {
        Some(_) => SocketAddr::from(([0, 0, 0, 0], STATS_PORT)),
        None => SocketAddr::from(([127, 0, 0, 1], STATS_PORT)),
    };
    let mut bind = model.settings.stats_bind.unwrap_or(address);
    // Whoever wants credentials does not want the page open to all because they are mistyped.
    if auth.is_none() && model.lacks_auth && !bind.ip().is_loopback() {
        bind.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let bind = bind.to_string();
    context! { bind, auth }
}

impl Model {
    /// Keys may be written whole, as in a template of Consul Template.
    pub(super) fn relative<'a>(&self, key: &'a str) -> &'a str {
        let key = key.trim_start_matches('/');
        let below = key.strip_prefix(self.settings.prefix.as_str());
        match below {
            Some("") => "",
            Some(rest) => rest.strip_prefix('/').unwrap_or(key),
            None => key,
        }
    }
}

/// The instances that DNS would answer with.
pub(super) fn healthy(service: &Service) -> impl Iterator<Item = &Instance> {
    let instances = service.instances().iter();
    instances.filter(|instance| instance.health != Health::Critical)
}

/// Where an instance is: its own address, or its node's.
pub(super) fn address(instance: &Instance) -> &str {
    match instance.address.as_str() {
        "" => &instance.node.address,
        own => own,
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    // What templates can ask for, and what becomes of odd words.

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

    fn model(values: &[(&str, &str)]) -> Arc<Model> {
        let web = Service::new(vec![
            instance("web-1", "10.0.0.1", 80, Health::Passing),
            instance("web-2", "", 81, Health::Warning),
            instance("web-3", "10.0.0.3", 82, Health::Critical),
        ]);
        let tags = |tag: &str| BTreeSet::from([tag.to_owned()]);
        Arc::new(Model {
            settings: Settings::default(),
            state_file: "/x/haproxy.state".into(),
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
            backends: [(
                "web".to_owned(),
                Backend {
                    slots: 32,
                    tags: tags("rest"),
                },
            )]
            .into(),
            instances: [("web".to_owned(), Arc::new(web))].into(),
            lacks_auth: false,
        })
    }

    fn render(text: &str, values: &[(&str, &str)]) -> Result<Rendered, TemplateError> {
        let template = Template {
            name: "edge.j2".to_owned(),
            text: text.to_owned(),
        };
        template.render(&model(values))
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
        let shown = |template: &str| text(template, &[]);
        let each = "{% for s in services() %}{{ s.name }}:{{ 'x' in s.tags }} {% endfor %}";
        assert_eq!(shown(each), "db:True web:False \n");
        let each =
            "{% for i in service('Web') %}{{ i.id }}={{ i.address }}:{{ i.port }} {% endfor %}";
        assert_eq!(
            shown(each),
            "web-1=10.0.0.1:80 web-2=10.0.0.9:81 \n".to_owned()
        );
        let each =
            "{% for s in tagged() %}{{ s.name }} {{ s.slots }} {{ s.instances }}{% endfor %}";
        assert_eq!(shown(each), "web 32 2\n");
        for (call, expected) in [
            ("service('web')", "web-1 web-2 "),
            ("service('rest.web')", "web-1 web-2 "),
            ("service('blue.web')", ""),
            ("service('web', tag='REST')", "web-1 web-2 "),
            ("service('web', tag='blue')", ""),
            ("service('web|any')", "web-1 web-3 web-2 "),
            ("service('web|passing')", "web-1 "),
            ("service('rest.web|warning,critical')", "web-3 web-2 "),
            ("service('v1.2.web')", ""),
            ("service('nobody')", ""),
        ] {
            let each = format!("{{% for i in {call} %}}{{{{ i.id }}}} {{% endfor %}}");
            assert_eq!(shown(&each), format!("{expected}\n"), "{call}");
        }
        let each = "{% for i in service('web|any') %}{{ i.health }} {% endfor %}";
        assert_eq!(shown(each), "passing critical warning \n");
        for wrong in ["web@dc2", "web~agent", "web|well", "web@dc2|any"] {
            let error = render(&format!("{{{{ service('{wrong}') }}}}"), &[]);
            error.expect_err(wrong);
        }
        let rendered = render("{{ service('db')|length }}", &[]).expect("no instance");
        assert_eq!(rendered.asked, BTreeSet::from(["db".to_owned()]));
    }

    #[test]
    fn trees_json_and_the_environment() {
        let values = [
            ("a/b/c", "1"),
            ("a/d", "2"),
            ("e", r#"{"name": "x y", "ports": [80, 81]}"#),
        ];
        let shown = |template| text(template, &values);
        let each = "{% for pair in tree('a') %}{{ pair.key }}={{ pair.value }} {% endfor %}";
        assert_eq!(shown(each), "b/c=1 d=2 \n");
        let each = "{% for pair in tree('service/haproxy') %}{{ pair.key }} {% endfor %}";
        assert_eq!(shown(each), "a/b/c a/d e \n");
        let each = "{% set own = json(key('e')) %}{{ own.name }} {{ own.ports[1] }}";
        assert_eq!(shown(each), "'x y' 81\n");
        render("{{ json(key('a/d') ~ '{') }}", &values).expect_err("no JSON");
        assert_eq!(shown("{{ env('PATH')|length > 0 }}"), "True\n");
        assert_eq!(shown("{{ env('HAPROXY_NOBODY', 'else') }}"), "else\n");
        for name in ["CONSUL_HTTP_TOKEN", "HAPROXY_STATS_AUTH", "HAPROXY_NOBODY"] {
            render(&format!("{{{{ env('{name}') }}}}"), &values).expect_err(name);
        }
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
        let shown = |values| template.render(&model(values)).expect("rendered").text;
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
        let mut public = Arc::into_inner(model(&[])).expect("nobody else has it");
        public.settings.stats_bind = "0.0.0.0:99".parse().ok();
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
}
