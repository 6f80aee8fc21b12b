//! The load: queries from many sockets of one thread, and a look at every reply.
//!
//! The thread never sleeps: it looks at its sockets in turn, so that the server pays for no wake-up
//! of a client, and so that a reply is seen as soon as it is there.

use crate::question::Asked;
use crate::streams;
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};
use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Exp1};
use socket2::{Domain, Socket, Type};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Datagrams of one system call.
const BATCH: usize = 32;

/// The longest datagram that is taken whole.
const LONGEST: usize = 65_536;

/// Queries of one socket that may be under way.
const SLOTS: usize = 1024;

/// A reply that takes longer is lost.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// The longest latency that is told apart, in nanoseconds.
pub(crate) const LONGEST_LATENCY: u64 = 60_000_000_000;

/// Gaps between queries that are drawn beforehand, and then used again.
const GAPS: usize = 1 << 16;

/// Receive buffer of each socket.
const SOCKET_BUFFER: usize = 4 << 20;

/// The next name that was never asked for before, of any server.
static NEXT_FRESH: AtomicU32 = AtomicU32::new(1);

/// When queries are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Each reply is followed by the next query, so that always so many are under way.
    Outstanding(usize),
    /// So many a second, at random moments (a Poisson process), whatever the server does.
    Rate(f64),
}

/// A load on one server.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) server: SocketAddr,
    pub(crate) asked: &'a [Asked],
    /// Which of them in what order, over and over.
    pub(crate) order: &'a [u32],
    pub(crate) pace: Pace,
    pub(crate) sockets: usize,
    /// Over as many connections of TCP; then queries are always under way.
    pub(crate) over_tcp: bool,
}

/// What a load found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    /// Replies that were not what they should be.
    pub(crate) wrong: u64,
    /// Queries without a reply in time.
    pub(crate) lost: u64,
    pub(crate) took: Duration,
    /// Nanoseconds from when a query was due to its reply.
    pub(crate) latency: Histogram<u64>,
}

impl Outcome {
    /// Answers a second.
    pub(crate) fn throughput(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    /// Microseconds within which that share of answers came.
    pub(crate) fn latency_at(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    /// With what another load found at the same time.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.answered += other.answered;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.took = self.took.max(other.took);
        self.latency += &other.latency;
        self
    }
}

/// A query under way.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    id: u16,
    asked: u32,
    /// Nanoseconds after the start, or 0 for none.
    due: u64,
}

/// One socket and its queries.
struct Line {
    socket: UdpSocket,
    next_id: u16,
    slots: Box<[Slot]>,
}

impl Line {
    fn new(server: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.connect(&server.into())?;
        Ok(Self {
            socket: socket.into(),
            next_id: 0,
            slots: vec![Slot::default(); SLOTS].into(),
        })
    }
}

struct Running<'a> {
    load: &'a Load<'a>,
    start: Instant,
    headers: MultiHeaders<()>,
    outgoing: [Vec<u8>; BATCH],
    incoming: Vec<u8>,
    next: usize,
    under_way: usize,
    answered: u64,
    wrong: u64,
    lost: u64,
    latency: Histogram<u64>,
}

impl<'a> Load<'a> {
    /// Runs it for so long, and waits for the last replies.
    pub(crate) fn run(&self, lasting: Duration) -> io::Result<Outcome> {
        if let (true, Pace::Outstanding(number)) = (self.over_tcp, self.pace) {
            return streams::run(self, number, lasting);
        }
        let mut lines = (0..self.sockets)
            .map(|_| Line::new(self.server))
            .collect::<io::Result<Vec<_>>>()?;
        let mut running = Running::new(self);
        match self.pace {
            Pace::Outstanding(number) => running.closed(&mut lines, number, lasting)?,
            Pace::Rate(rate) => running.open(&mut lines, rate, lasting)?,
        }
        let took = running.start.elapsed().min(lasting);
        running.finish(&mut lines)?;
        Ok(Outcome {
            answered: running.answered,
            wrong: running.wrong,
            lost: running.lost,
            took,
            latency: running.latency,
        })
    }
}

impl<'a> Running<'a> {
    fn new(load: &'a Load<'a>) -> Self {
        Self {
            load,
            headers: MultiHeaders::preallocate(BATCH, None),
            outgoing: std::array::from_fn(|_| Vec::new()),
            incoming: vec![0; BATCH * LONGEST],
            next: 0,
            under_way: 0,
            answered: 0,
            wrong: 0,
            lost: 0,
            latency: Histogram::new_with_bounds(1, LONGEST_LATENCY, 3).expect("valid bounds"),
            start: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        // Never 0, which stands for no query.
        self.start.elapsed().as_nanos() as u64 | 1
    }

    fn closed(&mut self, lines: &mut [Line], number: usize, lasting: Duration) -> io::Result<()> {
        let share = number.div_ceil(lines.len());
        for line in lines.iter_mut() {
            let now = self.now();
            self.send(line, share, now)?;
        }
        let mut looked = Instant::now();
        while self.start.elapsed() < lasting {
            let mut idle = true;
            for line in lines.iter_mut() {
                let replies = self.receive(line)?;
                if replies > 0 {
                    idle = false;
                    let now = self.now();
                    self.send(line, replies, now)?;
                }
            }
            if idle {
                // Whoever has to share a core with us.
                thread::yield_now();
            }
            if looked.elapsed() > PATIENCE / 4 {
                looked = Instant::now();
                for line in lines.iter_mut() {
                    let expired = self.expire(line);
                    let now = self.now();
                    self.send(line, expired, now)?;
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, lines: &mut [Line], rate: f64, lasting: Duration) -> io::Result<()> {
        // Always the same moments: what is compared is asked alike.
        let mut random = SmallRng::seed_from_u64(rate.to_bits());
        let gaps: Vec<u64> = (0..GAPS)
            .map(|_| {
                let gap: f64 = Exp1.sample(&mut random);
                (gap * 1e9 / rate) as u64
            })
            .collect();
        let end = lasting.as_nanos() as u64;
        let (mut due, mut at, mut turn, number) = (0, 0, 0, lines.len());
        loop {
            for line in 0..number {
                let now = self.now();
                if now > end {
                    return Ok(());
                }
                while due <= now {
                    self.send(&mut lines[turn], 1, due | 1)?;
                    turn = (turn + 1) % number;
                    due += gaps[at];
                    at = (at + 1) % GAPS;
                }
                self.receive(&mut lines[line])?;
            }
        }
    }

    /// Waits for what is still under way.
    fn finish(&mut self, lines: &mut [Line]) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.under_way > 0 && Instant::now() < end {
            for line in lines.iter_mut() {
                self.receive(line)?;
            }
        }
        self.lost += self.under_way as u64;
        Ok(())
    }

    /// Sends the next questions, as due at that moment.
    fn send(&mut self, line: &mut Line, number: usize, due: u64) -> io::Result<()> {
        let mut left = number;
        while left > 0 {
            let batch = left.min(BATCH);
            left -= batch;
            for buffer in &mut self.outgoing[..batch] {
                let which = self.load.order[self.next];
                self.next = (self.next + 1) % self.load.order.len();
                let id = line.next_id;
                line.next_id = id.wrapping_add(1);
                buffer.clear();
                let asked = &self.load.asked[which as usize];
                buffer.extend_from_slice(&asked.query);
                if asked.is_fresh {
                    Asked::renew(buffer, NEXT_FRESH.fetch_add(1, Ordering::Relaxed));
                }
                buffer[..2].copy_from_slice(&id.to_be_bytes());
                let slot = &mut line.slots[id as usize % SLOTS];
                if slot.due == 0 {
                    self.under_way += 1;
                } else {
                    self.lost += 1;
                }
                (slot.id, slot.asked, slot.due) = (id, which, due);
            }
            let outgoing = &self.outgoing[..batch];
            let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|at| {
                [IoSlice::new(
                    outgoing.get(at).map_or(&[][..], Vec::as_slice),
                )]
            });
            let mut sent = 0;
            while sent < batch {
                let result = sendmmsg(
                    line.socket.as_raw_fd(),
                    &mut self.headers,
                    &slices[sent..batch],
                    &[None::<()>; BATCH][sent..batch],
                    [],
                    MsgFlags::MSG_DONTWAIT,
                );
                match result.map(Iterator::count) {
                    Ok(more) => sent += more.max(1),
                    // What the system does not take now is lost, as it is on a network.
                    Err(Errno::EAGAIN | Errno::ENOBUFS) => break,
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Takes what has come; gives the number of queries that this ended.
    fn receive(&mut self, line: &mut Line) -> io::Result<usize> {
        let mut rest = self.incoming.as_mut_slice();
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            let (buffer, others) = std::mem::take(&mut rest).split_at_mut(LONGEST);
            rest = others;
            [IoSliceMut::new(buffer)]
        });
        let fd = line.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = match recvmmsg(fd, &mut self.headers, slices.iter_mut(), flags, None) {
            Ok(messages) => messages,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let now = self.start.elapsed().as_nanos() as u64 | 1;
        let mut ended = 0;
        for message in messages {
            let Some(reply) = message.iovs().next().filter(|reply| reply.len() >= 2) else {
                continue;
            };
            let id = u16::from_be_bytes([reply[0], reply[1]]);
            let slot = &mut line.slots[id as usize % SLOTS];
            if slot.due == 0 || slot.id != id {
                // It came too late.
                continue;
            }
            if self.load.asked[slot.asked as usize].is_answered_by(reply) {
                self.answered += 1;
            } else {
                self.wrong += 1;
            }
            self.latency.saturating_record(now.saturating_sub(slot.due));
            slot.due = 0;
            ended += 1;
        }
        self.under_way -= ended;
        Ok(ended)
    }

    /// Gives up what has been under way for too long; gives the number.
    fn expire(&mut self, line: &mut Line) -> usize {
        let oldest = self.now().saturating_sub(PATIENCE.as_nanos() as u64);
        let mut expired = 0;
        for slot in &mut line.slots {
            if slot.due != 0 && slot.due < oldest {
                slot.due = 0;
                expired += 1;
            }
        }
        self.under_way -= expired;
        self.lost += expired as u64;
        expired
    }
}
