//! Questions over TCP (RFC 7766): many on one connection, answered in any order. A connection that ends
//! has its open questions asked again on another one; a server that ends each after an answer is given
//! one question at a time; and one that has gone silent is passed by, but still listened to.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::dns::{Query, QueryEdns, Response, begin_frame, end_frame, split_frame};

use super::dial::{Tls, connect};
use super::metrics::{Counts, Odd};
use super::trust::distrust;
use super::{Address, Failure, read};

/// Connections to one upstream.
const CONNECTIONS: usize = 32;

/// Questions on one connection at a time.
const IN_FLIGHT: usize = 64;

/// Connections that a question is tried on, when one after the other ends.
const TRIES: usize = 3;

/// So many answers on a connection are few.
const FEW: u32 = 4;

/// For how long a server is given one question per connection that was seen to answer few more.
const SINGLE: Duration = Duration::from_secs(10 * 60);

/// How long a connection may be silent with questions open, at least.
const LEAST_SILENCE: Duration = Duration::from_secs(1);

/// How long a connection may be idle, unless the server says (RFC 7828), and at most.
const IDLE: Duration = Duration::from_secs(10);
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// How long a connection that answers nothing is listened to.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// How often a connection looks whether those who asked still wait.
const LOOK: Duration = Duration::from_secs(1);

/// The connections to one upstream.
pub(super) struct Streams {
    to: Arc<(Address, Option<Tls>)>,
    open: Mutex<Vec<Line>>,
    /// One dials, and the others then find a connection.
    dialling: tokio::sync::Mutex<()>,
    places: Arc<Semaphore>,
    runtime: Handle,
    habits: Arc<Mutex<Habits>>,
    counts: Counts,
}

/// What is known of how a server treats connections.
#[derive(Debug, Default)]
struct Habits {
    /// It ends a connection after an answer, as far as can be told until then.
    single: Option<Instant>,
}

/// A connection, for those who ask on it.
#[derive(Clone)]
struct Line {
    asks: mpsc::Sender<Ask>,
    state: Arc<Mutex<State>>,
}

/// What can be told of a connection from outside.
#[derive(Debug)]
struct State {
    /// When something last came.
    heard: Instant,
    /// Questions that were put on it and have no answer.
    open: usize,
    /// It takes no more questions.
    is_passed_by: bool,
}

/// A question on a connection.
struct Ask {
    query: Query,
    edns: Option<QueryEdns>,
    /// Dropped without an answer when the connection ends.
    reply: oneshot::Sender<Result<Response, Failure>>,
}

type Reply = oneshot::Receiver<Result<Response, Failure>>;

impl Streams {
    /// Connections live on `runtime`, whoever asks on them.
    pub(super) fn new(to: &Address, tls: Option<Tls>, runtime: Handle, counts: Counts) -> Self {
        Self {
            to: Arc::new((to.clone(), tls)),
            open: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            runtime,
            habits: Arc::default(),
            counts,
        }
    }

    /// Asks on a connection, an old one or a new one. `time` is how long the server takes, about.
    pub(super) async fn ask(
        &self,
        query: &Query,
        edns: Option<QueryEdns>,
        time: Duration,
        by: Instant,
    ) -> Result<Response, Failure> {
        let silence = (3 * time).max(LEAST_SILENCE);
        for _ in 0..TRIES {
            let handle = self.connection(by).await?;
            let Some(reply) = handle.ask(query, edns) else {
                continue;
            };
            if let Some(said) = self.wait(query, edns, handle, reply, silence, by).await {
                return said;
            }
        }
        Err(Failure::Network)
    }

    /// Waits for a reply; `None` if the connection ended. A connection that is silent is passed by from
    /// then on, and the question asked on another one as well.
    async fn wait(
        &self,
        query: &Query,
        edns: Option<QueryEdns>,
        handle: Line,
        reply: Reply,
        silence: Duration,
        by: Instant,
    ) -> Option<Result<Response, Failure>> {
        let asked = Instant::now();
        let mut replies = vec![reply];
        let mut is_alone = true;
        loop {
            let heard = handle.with(|state| state.heard).max(asked);
            let until = if is_alone {
                (heard + silence).min(by)
            } else {
                by
            };
            match timeout_at(until.into(), first_of(&mut replies)).await {
                Ok(said) => return said,
                Err(_) if until == by => return Some(Err(Failure::Timeout)),
                Err(_) if handle.with(|state| state.heard) > heard => {}
                Err(_) => {
                    is_alone = false;
                    handle.with(|state| state.is_passed_by = true);
                    let Ok(other) = self.connection(by).await else {
                        continue;
                    };
                    replies.extend(other.ask(query, edns));
                }
            }
        }
    }

    /// A connection that takes another question.
    async fn connection(&self, by: Instant) -> Result<Line, Failure> {
        let now = Instant::now();
        // Whoever waits here must have time left to try something else.
        let until = now + by.saturating_duration_since(now) / 2;
        if self.is_single(now) {
            return self.dial(true, until).await;
        }
        if let Some(handle) = self.has_room() {
            return Ok(handle);
        }
        let turn = timeout_at(until.into(), self.dialling.lock()).await;
        let _turn = turn.map_err(|_| Failure::Timeout)?;
        match self.has_room() {
            Some(handle) => Ok(handle),
            None => self.dial(false, until).await,
        }
    }

    fn is_single(&self, now: Instant) -> bool {
        let habits = self.habits.lock().unwrap_or_else(PoisonError::into_inner);
        habits.single.is_some_and(|until| now < until)
    }

    fn has_room(&self) -> Option<Line> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|handle| !handle.asks.is_closed());
        let has_room =
            |handle: &&Line| handle.with(|state| !state.is_passed_by && state.open < IN_FLIGHT);
        open.iter().find(has_room).cloned()
    }

    /// Opens a connection. One that is for a single question is known to nobody else.
    async fn dial(&self, is_single: bool, until: Instant) -> Result<Line, Failure> {
        let dialled = timeout_at(until.into(), async {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.map_err(io::Error::other)?;
            let connecting = self.runtime.spawn(connect(Arc::clone(&self.to)));
            // Whoever gives up waiting wants no connection either.
            let connecting = AbortOnDropHandle::new(connecting);
            let stream = connecting.await.map_err(io::Error::other)??;
            Ok::<_, io::Error>((place, stream))
        });
        let (place, stream) = match dialled.await {
            Ok(Ok(dialled)) => dialled,
            Ok(Err(error)) => {
                if let Some(why) = distrust(&error) {
                    return Err(Failure::Untrusted(why));
                }
                tracing::debug!(upstream = %self.to.0, %error, "cannot connect");
                return Err(Failure::Network);
            }
            Err(_) => return Err(Failure::Timeout),
        };
        let (asks, asked) = mpsc::channel(IN_FLIGHT);
        let state = Arc::new(Mutex::new(State {
            heard: Instant::now(),
            open: 0,
            is_passed_by: false,
        }));
        let handle = Line {
            asks,
            state: Arc::clone(&state),
        };
        let connection = Connection {
            asked,
            open: HashMap::new(),
            next_id: rand::random(),
            state,
            habits: Arc::clone(&self.habits),
            counts: self.counts.clone(),
            idle: IDLE,
            is_one_by_one: self.to.1.is_some(),
            answers: 0,
            has_left: false,
            _place: place,
        };
        self.runtime.spawn(connection.run(stream));
        if !is_single {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.push(handle.clone());
        }
        Ok(handle)
    }
}

/// The first answer of several connections; `None` when all of them have ended.
async fn first_of(replies: &mut Vec<Reply>) -> Option<Result<Response, Failure>> {
    poll_fn(|context| {
        let mut said = None;
        replies.retain_mut(
            |reply| match Future::poll(std::pin::Pin::new(reply), context) {
                Poll::Ready(Ok(own)) => {
                    said.get_or_insert(own);
                    false
                }
                Poll::Ready(Err(_)) => false,
                Poll::Pending => true,
            },
        );
        match said {
            None if !replies.is_empty() => Poll::Pending,
            said => Poll::Ready(said),
        }
    })
    .await
}

impl Line {
    /// Puts a question on the connection; `None` if it has ended.
    fn ask(&self, query: &Query, edns: Option<QueryEdns>) -> Option<Reply> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            query: query.clone(),
            edns,
            reply,
        };
        self.asks.try_send(ask).ok()?;
        self.with(|state| state.open += 1);
        Some(answer)
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes some of these bytes, and says how many; none, once all of them have left.
async fn send(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    match bytes {
        // TLS keeps what the system does not take at once.
        [] => writer.flush().await.map(|()| 0),
        _ => match writer.write(bytes).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            sent => Ok(sent),
        },
    }
}

/// One connection: its questions, and its end.
struct Connection {
    asked: mpsc::Receiver<Ask>,
    open: HashMap<u16, Ask>,
    next_id: u16,
    state: Arc<Mutex<State>>,
    habits: Arc<Mutex<Habits>>,
    counts: Counts,
    /// How long it stays without a question.
    idle: Duration,
    /// Each question is written alone, so that it becomes a TLS record of its own: dnsdist (1.7) overlooks a
    /// question that is not the first in a record until something else comes.
    is_one_by_one: bool,
    /// How often it has answered.
    answers: u32,
    /// When it last answered, it had more to answer.
    has_left: bool,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(mut self, stream: impl AsyncRead + AsyncWrite) {
        self.counts.connections().inc();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (mut inbox, mut outbox) = (Vec::new(), Vec::new());
        let (mut written, mut is_sent) = (0, true);
        let mut last = Instant::now();
        let mut is_asked = true;
        let ended_by_server = loop {
            let (has_questions, has_room) = (!self.open.is_empty(), self.open.len() < IN_FLIGHT);
            if !is_asked && !has_questions {
                break false;
            }
            let may_write = !self.is_one_by_one || is_sent;
            let wake = if has_questions { LOOK } else { self.idle };
            tokio::select! {
                ask = self.asked.recv(), if is_asked && has_room && may_write => match ask {
                    Some(ask) => {
                        if written == outbox.len() {
                            outbox.clear();
                            written = 0;
                        }
                        self.take(ask, &mut outbox);
                        is_sent = false;
                        last = Instant::now();
                    }
                    None => is_asked = false,
                },
                read = reader.read_buf(&mut inbox) => match read {
                    Ok(1..) => {
                        last = Instant::now();
                        if !self.receive(&mut inbox) {
                            break false;
                        }
                    }
                    Ok(0) | Err(_) => break true,
                },
                sent = send(&mut writer, &outbox[written..]), if !is_sent => match sent {
                    Ok(0) => is_sent = true,
                    Ok(sent) => written += sent,
                    Err(_) => break true,
                },
                () = sleep_until((last + wake).into()) => {
                    if !has_questions {
                        break false;
                    }
                    self.forget();
                    if self.lock().heard.elapsed() > GIVEN_UP {
                        break false;
                    }
                    // Whoever asks sees the silence for himself.
                    last = Instant::now();
                }
            }
        };
        self.end(ended_by_server);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a question an id of its own, and writes it.
    fn take(&mut self, ask: Ask, outbox: &mut Vec<u8>) {
        while self.open.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let begin = begin_frame(outbox);
        ask.query.write(id, ask.edns, outbox);
        // A name and some options are nowhere near the limit; what was not written nobody answers.
        if end_frame(outbox, begin).is_some() {
            self.open.insert(id, ask);
        }
    }

    /// Hands out the replies that have come whole. False if there is no going on.
    fn receive(&mut self, inbox: &mut Vec<u8>) -> bool {
        let mut at = 0;
        while let Some((message, rest)) = split_frame(&inbox[at..]) {
            at = inbox.len() - rest.len();
            let Some(id) = message.first_chunk().map(|id| u16::from_be_bytes(*id)) else {
                // What follows cannot be trusted to be a message.
                self.counts.odd(Odd::Unreadable);
                return false;
            };
            let Some(ask) = self.open.get(&id) else {
                self.counts.odd(Odd::OtherId);
                continue;
            };
            let Some(said) = read(message, id, &ask.query, &self.counts) else {
                continue;
            };
            let keepalive = said
                .as_ref()
                .ok()
                .and_then(|response| response.edns.as_ref());
            if let Some(keepalive) = keepalive.and_then(|edns| edns.keepalive) {
                // If it is 0, the connection is to be closed as soon as may be (RFC 7828 section 3.2.2).
                self.idle = keepalive.min(LONGEST_IDLE);
            }
            if let Some(ask) = self.open.remove(&id) {
                self.answered();
                // If nobody waits any more, nobody misses it.
                let _ = ask.reply.send(said);
            }
        }
        inbox.drain(..at);
        let is_ending = self.idle.is_zero();
        let mut state = self.lock();
        state.heard = Instant::now();
        state.is_passed_by = is_ending;
        true
    }

    fn answered(&mut self) {
        self.answers = self.answers.saturating_add(1);
        self.has_left = !self.open.is_empty();
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
    }

    /// Forgets questions that nobody waits for any more.
    fn forget(&mut self) {
        let before = self.open.len();
        self.open.retain(|_, ask| !ask.reply.is_closed());
        let forgotten = before - self.open.len();
        let mut state = self.lock();
        state.open = state.open.saturating_sub(forgotten);
    }

    /// Nothing more comes. Those who still wait will ask elsewhere.
    fn end(self, by_server: bool) {
        // One that ends after many answers starts anew, or has a limit that does no harm.
        if by_server && self.has_left && self.answers <= FEW {
            let mut habits = self.habits.lock().unwrap_or_else(PoisonError::into_inner);
            habits.single = Some(Instant::now() + SINGLE);
        }
        self.counts.connections().dec();
    }
}
