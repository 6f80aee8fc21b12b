//! Golden table: what Docker's inspection says of containers, and exactly what is sent to Consul.
//!
//! `cases/*.json` hold the cases. Each patches `base.json`, a real inspection (RFC 7396: what is
//! given replaces, `null` removes), once for each container, and says what is sent
//! (`PUT /v1/agent/service/register`, without the owner's own keys in `Meta`) and what is told of.

mod properties;

use portolan::{
    docker::{Container, Reach, Settings, Severity, desired},
    register::{body, status},
};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, sync::Arc};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    #[serde(default)]
    settings: SettingsJson,
    /// Patches of the base, one for each container.
    containers: Vec<Value>,
    /// The bodies that are sent.
    #[serde(default)]
    sent: Vec<Value>,
    /// What is told of, each as `container: severity: message`.
    #[serde(default)]
    told: Vec<String>,
    /// What the HEALTHCHECKs of the services call for.
    #[serde(default)]
    status: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SettingsJson {
    reach: Option<String>,
    explicit: bool,
    ip: Option<IpAddr>,
    tags: Vec<String>,
}

impl SettingsJson {
    fn settings(&self) -> Settings {
        Settings {
            reach: match self.reach.as_deref() {
                None | Some("published") => Reach::Published,
                Some("internal") => Reach::Internal,
                Some("either") => Reach::Either,
                Some(other) => panic!("no such reach: {other}"),
            },
            explicit: self.explicit,
            ip: self.ip,
            host: "192.0.2.10".parse().expect("an address"),
            tags: self.tags.clone(),
            host_name: "host1".to_owned(),
        }
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/register/golden")
}

fn base() -> Value {
    let text = fs::read_to_string(folder().join("base.json")).expect("base.json");
    serde_json::from_str(&text).expect("base.json is JSON")
}

fn cases() -> Vec<Case> {
    let mut files: Vec<_> = fs::read_dir(folder().join("cases"))
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("a readable file");
            let cases: Result<Vec<Case>, _> = serde_json::from_str(&text);
            cases.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
        .collect()
}

/// RFC 7396.
fn patch(target: &mut Value, patch_value: &Value) {
    let Value::Object(changes) = patch_value else {
        *target = patch_value.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (key, change) in changes {
        if change.is_null() {
            target.as_object_mut().expect("an object").remove(key);
        } else {
            patch(&mut target[key], change);
        }
    }
}

fn container(changes: &Value) -> Arc<Container> {
    let mut inspected = base();
    patch(&mut inspected, changes);
    let bytes = serde_json::to_vec(&inspected).expect("JSON");
    Arc::new(Container::from_inspect(&bytes).expect("an inspection"))
}

#[test]
fn containers_become_exactly_these_registrations() {
    let cases = cases();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.case.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases bear one name");
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let mut containers: Vec<_> = case.containers.iter().map(container).collect();
        for _ in 0..2 {
            let found = desired(&containers, &case.settings.settings());
            let sent: Vec<Value> = found
                .registrations
                .iter()
                .map(|one| body(one, "90s"))
                .collect();
            let told: Vec<String> = found
                .problems
                .iter()
                .map(|problem| {
                    let severity = match problem.severity {
                        Severity::Reason => "reason",
                        Severity::Note => "note",
                        Severity::Warning => "warning",
                    };
                    format!("{}: {severity}: {}", problem.container, problem.message)
                })
                .collect();
            let statuses = found.registrations.iter().filter_map(status);
            let statuses: Vec<String> = statuses.map(str::to_owned).collect();
            if sent != case.sent || told != case.told || statuses != case.status {
                wrong.push(format!(
                    "---- {}\nsent {}\nexpected {}\ntold {told:#?}\nexpected {:#?}\nstatus {statuses:?}",
                    case.case,
                    show(&sent),
                    show(&case.sent),
                    case.told,
                ));
                break;
            }
            // In whatever order Docker lists them.
            containers.reverse();
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn show(value: &[Value]) -> String {
    serde_json::to_string_pretty(value).expect("JSON")
}
