//! What a service manager such as systemd hands over and wants to hear.

use crate::support::{
    bind_both, directory, dns, ensure, eventually,
    portolan::{Launch, run_to_end},
    process::Process,
    wire::{rcode, rtype::A},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Like a service manager: sockets 3 and following are the child's, and it is told so.
const HAND_OVER: &str = r#"exec 3<&0 4<&1 </dev/null >&2; LISTEN_PID=$$ exec "$0" "$@""#;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn it_is_told_what_goes_on() {
    let files = directory();
    let path = files.path().join("notify");
    let told = UnixDatagram::bind(&path).expect("a notification socket");
    told.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let portolan = Launch::new("serve")
        .args(["--consul", "none", "--upstream", "none"])
        .env("NOTIFY_SOCKET", path.to_str().expect("text"))
        .env("WATCHDOG_USEC", "100000")
        .start();
    let hears = |wanted: &str| {
        eventually(PATIENCE, wanted, || {
            let mut buffer = [0; 256];
            let length = told.recv(&mut buffer).map_err(|error| error.to_string())?;
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            ensure(message.lines().any(|line| line == wanted), || message)
        });
    };
    hears("READY=1");
    for _ in 0..3 {
        hears("WATCHDOG=1");
    }
    portolan.signal("HUP");
    hears("RELOADING=1");
    hears("READY=1");
    let ended = portolan.stop();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    hears("STOPPING=1");
}

/// The sockets outlive the process, so a query that comes between two of them is answered by the
/// second.
#[test]
fn sockets_that_are_handed_over_are_served() {
    let files = directory();
    let (tcp, udp) = bind_both(IpAddr::from(Ipv4Addr::LOCALHOST));
    let address = udp.local_addr().expect("a bound socket has an address");
    let log = files.path().join("portolan.log");

    let mut first = hand_over(&udp, &tcp, &log);
    assert_answers(address);
    first.signal("TERM");
    assert_eq!(first.wait(PATIENCE).code(), Some(0));

    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let query = dns::Query::new("www.test", A).bytes();
    client.send_to(&query, address).expect("sending a query");
    let _second = hand_over(&udp, &tcp, &log);
    let mut reply = [0; 512];
    let length = client.recv(&mut reply).expect("an answer of the second");
    assert_eq!(reply[..2], query[..2], "the id");
    assert!(length >= 12);
    assert_answers(address);
}

#[test]
fn half_of_a_socket_unit_is_refused() {
    let files = directory();
    let (_tcp, udp) = bind_both(IpAddr::from(Ipv4Addr::LOCALHOST));
    let log = files.path().join("portolan.log");
    let mut process = start(
        Stdio::from(OwnedFd::from(udp.try_clone().expect("a second handle"))),
        Stdio::null(),
        "1",
        &log,
    );
    assert_eq!(process.wait(PATIENCE).code(), Some(1));
    let address = udp.local_addr().expect("a bound socket has an address");
    let said = process.log();
    assert!(said.contains(&format!("ListenStream={address}")), "{said}");

    let mut process = start(Stdio::null(), Stdio::null(), "1", &log);
    assert_eq!(process.wait(PATIENCE).code(), Some(1));
    let said = process.log();
    assert!(said.contains("neither UDP nor TCP"), "{said}");
}

#[test]
fn a_running_server_is_asked_whether_it_is_ready() {
    let check = |admin: &str| run_to_end(&["check", "--running", "--admin", admin], &[]);

    let portolan = Launch::new("dev").args(["--upstream", "none"]).start();
    let outcome = check(&portolan.admin().to_string());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("services"), "{outcome:?}");
    let everywhere = SocketAddr::from(([0, 0, 0, 0], portolan.admin().port()));
    assert_eq!(check(&everywhere.to_string()).code, Some(0));
    let address = portolan.admin().to_string();
    portolan.stop();
    let outcome = check(&address);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.last_line().contains(&address), "{outcome:?}");

    // Port 1 of this address: nobody is there.
    let waiting = Launch::new("serve")
        .args(["--consul", "http://127.0.0.1:1", "--upstream", "none"])
        .not_ready()
        .start();
    let outcome = check(&waiting.admin().to_string());
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome
            .last_line()
            .contains("consul: waiting for the first answer from Consul"),
        "{outcome:?}"
    );
    assert_eq!(check("none").code, Some(1));
}

fn assert_answers(address: SocketAddr) {
    let reply = dns::Query::new("www.test", A)
        .patience(PATIENCE)
        .ask(address);
    assert_eq!(reply.rcode(), rcode::REFUSED, "{}", reply.summary());
    let reply = dns::Query::new("www.test", A)
        .patience(PATIENCE)
        .tcp()
        .ask(address);
    assert_eq!(reply.rcode(), rcode::REFUSED, "{}", reply.summary());
}

fn hand_over(udp: &UdpSocket, tcp: &TcpListener, log: &Path) -> Process {
    let udp = udp.try_clone().expect("a second handle");
    let tcp = tcp.try_clone().expect("a second handle");
    let [udp, tcp] = [OwnedFd::from(udp), OwnedFd::from(tcp)];
    start(Stdio::from(udp), Stdio::from(tcp), "2", log)
}

fn start(third: Stdio, fourth: Stdio, sockets: &str, log: &Path) -> Process {
    let mut command = Command::new("sh");
    command
        .args(["-c", HAND_OVER, env!("CARGO_BIN_EXE_portolan"), "serve"])
        // Of the sockets alone: this address is one that nobody has.
        .args(["--listen", "192.0.2.1:53", "--consul", "none"])
        .args(["--upstream", "none", "--admin", "none"])
        .env("LISTEN_FDS", sockets)
        .stdin(third)
        .stdout(fourth);
    Process::start_as_it_is("Portolan", command, log)
}
