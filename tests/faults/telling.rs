//! What the log says of trouble with Consul: one line for an outage, however many watches it befalls,
//! and one for each watch that has trouble of its own.

use crate::{
    alone, figure,
    lying::Scene,
    support::{ensure, eventually, fake_consul::Lie},
    world::NEW_DATA,
};
use serde_json::Value;
use std::time::Duration;

const SERVICES: usize = 60;

/// Whatever has to happen has happened by then, on the slowest machine.
const SOON: Duration = Duration::from_secs(60);

/// Lines of warning that somebody reads.
const HANDFUL: usize = 4;

/// The log from a moment on.
struct Log<'a> {
    scene: &'a Scene,
    seen: usize,
}

impl<'a> Log<'a> {
    fn from_now_on(scene: &'a Scene) -> Self {
        let seen = scene.portolan.events().len();
        Self { scene, seen }
    }

    fn lines(&self, level: &str) -> Vec<Value> {
        let mut events = self.scene.portolan.events().split_off(self.seen);
        events.retain(|event| event["level"] == level);
        events.into_iter().map(|mut e| e["fields"].take()).collect()
    }

    /// Waits for a line of that level whose message or path begins so.
    fn wait_for(&self, level: &str, key: &str, begins: &str) -> Value {
        let what = format!("the log says {begins:?}");
        eventually(SOON, &what, || {
            let lines = self.lines(level);
            let found = lines.iter().find(|line| {
                let text = line[key].as_str();
                text.is_some_and(|text| text.starts_with(begins))
            });
            found.cloned().ok_or_else(|| format!("only {lines:?}"))
        })
    }

    /// The warnings, of which there must be some but not many.
    fn warnings(&self, of: &str) -> usize {
        let lines = self.lines("WARN");
        let few = 1..=HANDFUL;
        assert!(few.contains(&lines.len()), "{of}: {lines:#?}");
        lines.len()
    }
}

/// Waits until nearly all watches wait for news: one or two may have been given up for another name.
fn waited_for(scene: &Scene, what: &str) {
    let since = scene.started;
    eventually(SOON, what, || {
        let is_waited_at = |number: &usize| {
            let path = format!("/v1/health/service/s{number}");
            scene.fake.is_waited_at(&path, since)
        };
        let waiting = (0..SERVICES).filter(is_waited_at).count();
        ensure(waiting >= 45, || format!("{waiting} wait"))
    });
}

/// Waits until watches have heard the lie so often: those of all services, or the one at `path`.
fn tried_again(scene: &Scene, path: &str, times: usize) {
    let before = scene.fake.told();
    let watches = if path == "*" { SERVICES } else { 1 };
    eventually(SOON, "the watches have tried again", || {
        let heard = scene.fake.told() - before;
        ensure(heard >= times * watches, || {
            format!("{heard} times by {watches}")
        })
    });
}

#[test]
fn an_outage_is_told_once() {
    let _alone = alone();
    let scene = Scene::of(SERVICES);
    let watches = scene
        .portolan
        .metric("portolan_sources_consul_watches{kind=\"service\"}");
    assert!(watches >= 50.0, "{watches} watches");
    waited_for(&scene, "the watches wait for news");
    // A token that was taken away befalls all of them as well, though Consul is there.
    let outages = [
        (
            "errors",
            "Consul is away",
            Lie::status(500, "No cluster leader"),
        ),
        ("broken connections", "Consul is away", Lie::broken()),
        (
            "refusals",
            "Consul is closed to us",
            Lie::status(403, "ACL not found"),
        ),
    ];
    for (number, (what, begins, lie)) in (1..).zip(outages) {
        let log = Log::from_now_on(&scene);
        scene.fake.tell("/v1/*", usize::MAX, lie);
        let away = log.wait_for("WARN", "message", begins);
        assert!(
            away["failing_watches"].as_f64() >= Some(50.0) && away["tried"].is_string(),
            "{away}"
        );
        tried_again(&scene, "*", 3);
        scene.fake.repent();
        log.wait_for("INFO", "message", "Consul is back");
        let late = scene.new_data(number);
        assert!(late <= NEW_DATA, "new data was seen after {late:?}");
        let warnings = log.warnings(what);
        let back = log.lines("INFO");
        assert_eq!(back.len(), 1, "{what}: {back:#?}");
        figure(&format!(
            "an outage with {watches} watches, of {what}: {warnings} warnings"
        ));
    }
    // All services that are refused while Consul is there. Their watches wait for news again, and so hear
    // of it together.
    waited_for(&scene, "the watches wait for news again");
    let log = Log::from_now_on(&scene);
    let refusal = Lie::status(403, "Permission denied");
    scene.fake.tell("/v1/health/service/*", usize::MAX, refusal);
    log.wait_for("WARN", "error", "HTTP 403");
    tried_again(&scene, "*", 2);
    let warnings = log.warnings("403");
    figure(&format!("{watches} watches refused: {warnings} warnings"));
    scene.fake.repent();
    log.wait_for("INFO", "message", "Consul answers all");
}

#[test]
fn what_befalls_one_watch_is_told() {
    let _alone = alone();
    let scene = Scene::of(SERVICES);
    let path = "/v1/health/service/s0";
    let lies = [
        Lie::status(403, "Permission denied"),
        Lie::status(500, "rpc error: EOF"),
        Lie::body("<html></html>"),
        Lie::body("[]"),
    ];
    for lie in lies {
        let log = Log::from_now_on(&scene);
        let shown = format!("{lie:?}");
        scene.fake.tell(path, usize::MAX, lie);
        log.wait_for("WARN", "path", "health/service/s0");
        // It is told once, however often it happens.
        tried_again(&scene, path, 1);
        let warnings = log.lines("WARN");
        assert_eq!(warnings.len(), 1, "{shown}: {warnings:#?}");
        scene.fake.repent();
        log.wait_for("INFO", "path", "health/service/s0");
    }
    // It is told as well if it is over at once.
    let log = Log::from_now_on(&scene);
    scene.fake.tell(path, 1, Lie::cut());
    log.wait_for("WARN", "path", "health/service/s0");
}
