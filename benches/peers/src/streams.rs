//! The load over TCP: some connections, each with some queries always under way, and a look at every
//! reply. As over UDP, the thread never sleeps.

use crate::load::{LONGEST_LATENCY, Load, Outcome, PATIENCE};
use hdrhistogram::Histogram;
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// A connection and its queries.
struct Line {
    stream: TcpStream,
    next_id: u16,
    /// Which question an id is of, and when it was asked.
    open: HashMap<u16, (u32, Instant)>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// Keeps so many queries under way for so long.
pub(crate) fn run(load: &Load<'_>, number: usize, lasting: Duration) -> io::Result<Outcome> {
    let mut lines = Vec::new();
    for _ in 0..load.sockets {
        let stream = TcpStream::connect(load.server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        lines.push(Line {
            stream,
            next_id: 0,
            open: HashMap::new(),
            inbox: Vec::new(),
            outbox: Vec::new(),
        });
    }
    let mut running = Running {
        load,
        next: 0,
        outcome: Outcome {
            answered: 0,
            wrong: 0,
            lost: 0,
            took: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, LONGEST_LATENCY, 3).expect("valid bounds"),
        },
    };
    let share = number.div_ceil(lines.len());
    let start = Instant::now();
    for line in &mut lines {
        running.ask(line, share)?;
    }
    while start.elapsed() < lasting {
        let mut is_idle = true;
        for line in &mut lines {
            let replies = running.receive(line)?;
            is_idle &= replies == 0;
            running.ask(line, replies)?;
        }
        if is_idle {
            thread::yield_now();
        }
    }
    running.outcome.took = start.elapsed();
    let end = Instant::now() + PATIENCE;
    while lines.iter().any(|line| !line.open.is_empty()) && Instant::now() < end {
        for line in &mut lines {
            running.receive(line)?;
        }
    }
    let lost: usize = lines.iter().map(|line| line.open.len()).sum();
    running.outcome.lost = lost as u64;
    Ok(running.outcome)
}

struct Running<'a> {
    load: &'a Load<'a>,
    next: usize,
    outcome: Outcome,
}

impl Running<'_> {
    /// Asks the next questions on a connection, with one write if it takes that.
    fn ask(&mut self, line: &mut Line, number: usize) -> io::Result<()> {
        for _ in 0..number {
            let which = self.load.order[self.next];
            self.next = (self.next + 1) % self.load.order.len();
            let id = line.next_id;
            line.next_id = id.wrapping_add(1);
            let query = &self.load.asked[which as usize].query;
            let length = query.len() as u16;
            line.outbox.extend_from_slice(&length.to_be_bytes());
            line.outbox.extend_from_slice(&id.to_be_bytes());
            line.outbox.extend_from_slice(&query[2..]);
            line.open.insert(id, (which, Instant::now()));
        }
        while !line.outbox.is_empty() {
            match line.stream.write(&line.outbox) {
                Ok(written) => drop(line.outbox.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what has come; gives the number of replies.
    fn receive(&mut self, line: &mut Line) -> io::Result<usize> {
        let mut buffer = [0; 65_536];
        match line.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => line.inbox.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        }
        let now = Instant::now();
        let (mut at, mut replies) = (0, 0);
        while let Some((length, rest)) = line.inbox[at..].split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(reply) = rest.get(..length).filter(|reply| reply.len() >= 2) else {
                break;
            };
            at += 2 + length;
            let id = u16::from_be_bytes([reply[0], reply[1]]);
            let Some((which, asked)) = line.open.remove(&id) else {
                continue;
            };
            replies += 1;
            if self.load.asked[which as usize].is_answered_by(reply) {
                self.outcome.answered += 1;
            } else {
                self.outcome.wrong += 1;
            }
            let took = now.duration_since(asked).as_nanos() as u64;
            self.outcome.latency.saturating_record(took);
        }
        line.inbox.drain(..at);
        Ok(replies)
    }
}
