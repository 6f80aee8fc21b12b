//! A server under measurement: a process on the cores that it is given, killed when done.

use crate::question::{Asked, Question};
use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of a log that are shown when its server fails.
const SHOWN_LINES: usize = 20;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    pub(crate) address: SocketAddr,
    /// What it works with, which is not measured.
    behind: Option<Box<Self>>,
}

impl Server {
    /// Starts a program on these cores; `address` is where it will listen.
    pub(crate) fn start(
        command: &Command,
        cores: &[usize],
        address: SocketAddr,
        log: PathBuf,
    ) -> io::Result<Self> {
        let file = File::create(&log)?;
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        let mut pinned = Command::new("taskset");
        pinned
            .args(["-c", &cores.join(",")])
            .arg(command.get_program())
            .args(command.get_args())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = pinned
            .spawn()
            .map_err(|error| io::Error::other(format!("{command:?}: {error}")))?;
        Ok(Self {
            child,
            log,
            address,
            behind: None,
        })
    }

    /// Keeps the other one running for as long as this one runs.
    pub(crate) fn in_front_of(mut self, other: Self) -> Self {
        self.behind = Some(Box::new(other));
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it gives an answer with records.
    pub(crate) fn wait_until_it_answers(&mut self, question: &Question) -> io::Result<()> {
        self.wait(|server| match Asked::probe(question, server.address) {
            Ok((_, reply)) if !reply.answers.is_empty() => Ok(()),
            Ok((_, reply)) => Err(format!("{}, no answers", reply.metadata.response_code)),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Waits until something is true of it.
    pub(crate) fn wait(
        &mut self,
        is_ready: impl Fn(&Self) -> Result<(), String>,
    ) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let state = match self.child.try_wait()? {
                Some(status) => format!("it ended: {status}"),
                None => match is_ready(self) {
                    Ok(()) => return Ok(()),
                    Err(state) if Instant::now() < end => {
                        drop(state);
                        thread::sleep(Duration::from_millis(50));
                        continue;
                    }
                    Err(state) => state,
                },
            };
            return Err(io::Error::other(format!("{state}\n{}", self.last_words())));
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of the loopback address that is free for UDP and TCP.
pub(crate) fn free_port() -> io::Result<u16> {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = udp.local_addr()?.port();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}

/// Writes a file for a server and gives its path.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    Ok(path)
}
