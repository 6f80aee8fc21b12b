//! Everything that runs on a host shares the connections that its agent of Consul allows.

use crate::{
    alone,
    asking::{Line, all_right},
    figure,
    support::{
        consul::{Consul, Options},
        directory, ensure, eventually,
        portolan::{self, Launch, Portolan},
        process::Process,
        resources,
    },
    world::{NEW_DATA, Services, new_data},
};
use serde_json::json;
use std::{
    ffi::OsString,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Services that are in use.
const SERVICES: usize = 300;

/// Connections of all three together, where nobody limits them.
const TOGETHER: usize = 120;

/// In the first half minute there are fewer watches, since Consul may still hold an earlier life's.
const GROWN: Duration = Duration::from_secs(45);

/// A low limit has been found out after this.
const SETTLED: Duration = Duration::from_secs(75);

/// A Consul, and the three commands beside it.
struct Host {
    consul: Consul,
    services: Services,
    serve: Portolan,
    others: Vec<Process>,
}

impl Host {
    fn start(folder: &Path, connections: usize) -> Self {
        let extra = json!({ "limits": { "http_max_conns_per_client": connections } });
        let consul = Consul::start_with(Options {
            extra,
            ..Options::default()
        });
        let services = Services::new("s", SERVICES, 20);
        services.register(&consul);
        let serve = Launch::new("serve")
            .args(["--consul", &consul.url(), "--upstream", "none"])
            .start();
        let output = folder.join("haproxy.cfg");
        let others = [
            vec![
                "haproxy".into(),
                "--no-exec".into(),
                "--output".into(),
                output.into_os_string(),
            ],
            vec![OsString::from("register")],
        ];
        let others = others.map(|mut arguments| {
            let name = arguments[0].to_string_lossy().into_owned();
            let common = ["--consul", &consul.url(), "--admin", "none"];
            arguments.extend(common.map(OsString::from));
            let command = portolan::command(&arguments, &[]);
            Process::start_as_it_is(&name, command, &folder.join(format!("{name}.log")))
        });
        Self {
            consul,
            services,
            serve,
            others: others.into(),
        }
    }

    /// Everything is asked for all the time; gives how many connections Consul held at most, all in all and
    /// in the last moment.
    fn used_for(&self, lasting: Duration) -> (usize, usize) {
        let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
        let questions = self.services.questions();
        let last = thread::scope(|scope| {
            scope.spawn(|| {
                let mut line = Line::new(self.serve.dns(), false);
                for question in questions.iter().cycle() {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    // Whether all are right is judged at the end.
                    let _ = line.ask(question);
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let start = Instant::now();
            let mut held = 0;
            while start.elapsed() < lasting {
                held = resources::held(self.consul.http());
                most.fetch_max(held, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
            done.store(true, Ordering::Relaxed);
            held
        });
        (most.into_inner(), last)
    }

    /// Nobody has ended, every name is right, and what is new is seen.
    fn is_well(&mut self) {
        for other in &mut self.others {
            assert_eq!(other.ended(), None, "{}", other.log());
        }
        all_right(
            self.serve.dns(),
            &self.services.questions(),
            Duration::from_secs(10),
        );
        let late = new_data(&self.consul, self.serve.dns(), "fresh", 1);
        assert!(late <= NEW_DATA, "new data was seen after {late:?}");
    }
}

#[test]
fn three_commands_stay_within_what_one_host_may_have() {
    let _alone = alone();
    let folder = directory();
    let mut host = Host::start(folder.path(), 200);
    let (most, last) = host.used_for(GROWN);
    figure(&format!(
        "serve, haproxy and register with {SERVICES} services held {most} connections at most, {last} at the \
         end (at most {TOGETHER})"
    ));
    assert!(most <= TOGETHER, "{most} connections");
    let watched = host
        .serve
        .metric("portolan_sources_consul_watches{kind=\"service\"}");
    assert!(watched >= 40.0, "{watched} services are watched");
    assert_eq!(
        host.serve.metric("portolan_sources_consul_watches_borne"),
        0.0
    );
    host.is_well();
}

/// A limit that is lower than what they would use together is found out, and kept.
#[test]
fn a_lower_limit_is_found_out() {
    const LIMIT: usize = 60;
    let _alone = alone();
    let folder = directory();
    let mut host = Host::start(folder.path(), LIMIT);
    let (most, last) = host.used_for(SETTLED);
    let borne = host.serve.metric("portolan_sources_consul_watches_borne");
    figure(&format!(
        "with {LIMIT} connections allowed, {most} were held at most, {last} at the end; {borne} services watched"
    ));
    assert!(borne > 0.0, "no limit was found out");
    let log = host.serve.log();
    let told = log.matches("Consul resets connections").count();
    assert!((1..=12).contains(&told), "told {told} times");
    assert!(!log.contains("Consul is away"), "a limit is no outage");
    eventually(Duration::from_secs(10), "there is room again", || {
        let held = resources::held(host.consul.http());
        ensure(held < LIMIT, || format!("{held} are held"))
    });
    host.is_well();
}
