//! What the containers may do, as Docker itself sees it.

use crate::{
    support::{docker::docker, http},
    world::World,
};
use serde_json::Value;
use std::{collections::BTreeSet, net::SocketAddr};

/// The one that root's socket needs root for.
const ROOT: &str = "docker-api";

const SOCKET: &str = "docker.sock";

fn inspect(id: &str) -> Value {
    let text = docker(&["inspect", id]).unwrap_or_else(|error| panic!("{error}"));
    let mut all: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    all.remove(0)
}

pub(crate) fn of_every_container(world: &World) {
    let ids = docker(&["ps", "--quiet", "--no-trunc", "--filter", &world.filter()]);
    let ids = ids.unwrap_or_else(|error| panic!("{error}"));
    let mut services = BTreeSet::new();
    for container in ids.lines().map(inspect) {
        let service = &container["Config"]["Labels"]["com.docker.compose.service"];
        let service = service.as_str().expect("a service").to_owned();
        let host = &container["HostConfig"];
        assert_eq!(host["Privileged"], false, "{service}");
        assert_eq!(host["CapAdd"], Value::Null, "{service}");
        assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]), "{service}");
        assert_eq!(host["ReadonlyRootfs"], true, "{service}");
        let options = host["SecurityOpt"].to_string();
        assert!(
            options.contains("no-new-privileges:true"),
            "{service}: {options}"
        );
        for mode in ["NetworkMode", "PidMode", "IpcMode", "UTSMode"] {
            assert_ne!(host[mode], "host", "{service} {mode}");
        }
        assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped", "{service}");

        let user = container["Config"]["User"].as_str().unwrap_or_default();
        let is_root = matches!(user.split(':').next(), Some("" | "0" | "root"));
        assert_eq!(is_root, service == ROOT, "{service} is {user:?}");
        let mounts = container["Mounts"].as_array().expect("mounts");
        let socket = mounts
            .iter()
            .find(|mount| mount["Source"].to_string().contains(SOCKET));
        assert_eq!(socket.is_some(), service == ROOT, "{service} {mounts:?}");
        assert!(
            socket.is_none_or(|socket| socket["RW"] == false),
            "{socket:?}"
        );

        // What everybody can reach, and what this machine can.
        let bindings = host["PortBindings"].as_object().expect("bindings");
        for (port, binding) in bindings {
            let public = ["80/tcp", "1936/tcp"].contains(&port.as_str());
            let private = ["53/tcp", "53/udp", "8500/tcp"].contains(&port.as_str());
            let ip = binding[0]["HostIp"].as_str().unwrap_or_default();
            assert!(
                public || (private && ip == "127.0.0.1"),
                "{service} {port} {ip}"
            );
        }
        services.insert(service);
    }
    let all = [
        "consul",
        "docker-api",
        "haproxy",
        "hello1",
        "hello2",
        "registrar",
        "resolver",
    ];
    assert_eq!(services, all.map(str::to_owned).into());
}

/// Who may read may not write, and may read no more than is needed.
pub(crate) fn of_dockers_api(world: &World) {
    let container = inspect(&world.container("docker-api"));
    let network = &container["NetworkSettings"]["Networks"][world.network("docker-api")];
    let ip = network["IPAddress"].as_str().expect("an address");
    let api = SocketAddr::new(ip.parse().expect("an address"), 2375);
    let id = world.container("hello1");
    for (method, path, wanted) in [
        ("GET", "/_ping".to_owned(), 200),
        ("GET", "/v1.41/containers/json".to_owned(), 200),
        ("GET", format!("/v1.41/containers/{id}/json"), 200),
        ("GET", format!("/v1.41/containers/{id}/archive?path=/"), 403),
        (
            "GET",
            "/v1.41/containers/json/../../secrets".to_owned(),
            403,
        ),
        ("GET", "/v1.41/images/json".to_owned(), 403),
        ("POST", "/v1.41/containers/create".to_owned(), 405),
        ("POST", format!("/v1.41/containers/{id}/stop"), 405),
        ("DELETE", format!("/v1.41/containers/{id}?force=1"), 405),
        ("PUT", format!("/v1.41/containers/{id}/archive?path=/"), 405),
        (
            "HEAD",
            format!("/v1.41/containers/{id}/archive?path=/"),
            403,
        ),
    ] {
        let response = http::request(api, method, &path, "");
        let status = response.map(|response| response.status);
        assert_eq!(status, Ok(wanted), "{method} {path}");
    }
    assert_eq!(inspect(&id)["State"]["Running"], true);
}
