//! `portolan serve --docker`, against the real Docker Engine.

#[path = "../support/mod.rs"]
mod support;

#[test]
fn probe() {
    let docker = support::docker::Docker::new();
    let net = docker.network("net", &[]);
    let c = docker.sleeper("a", &["--network", &net.name, "-p", ":80"]);
    println!(
        "{} {} {} {}",
        c.address(&net.name),
        c.published("80/tcp"),
        net.gateway(),
        docker.image()
    );
    let start = std::time::Instant::now();
    c.tell("stop");
    println!("{:?}", start.elapsed());
}
