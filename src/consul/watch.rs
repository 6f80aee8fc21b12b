//! One blocking query, asked again for as long as it lives (`api-docs/features/blocking`): its states, and
//! what is believed of its answers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::client::{Ask, Mode, RequestError, Response};
use super::contact::{Context, WatchHandle};
use super::pace::{Cost, Pace, random_fraction};
use super::subjects::Subject;

/// How long Consul may hold a query with nothing new to say. Consul holds the connection of a query
/// that nobody waits for any more until this is over, and counts it among the client's; its own
/// default of five minutes would let a few restarts lock us out.
pub(super) const WAIT: Duration = Duration::from_secs(30);

/// The first wait of a watch; it doubles. A process that lived for a moment leaves little behind.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// For how long an answer that takes something away is doubted when the index went back: a server
/// that was restored or started anew may be about to learn the rest.
const DOUBT: Duration = Duration::from_secs(10);

/// How often a doubted answer is looked at again, at first and after a while.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOK_LATER: Duration = Duration::from_millis(1500);

/// A query that was sent for news that may be there already, and is not answered after this time, waits for
/// it: there is none.
const NO_NEWS: Duration = Duration::from_secs(1);

/// Over this time the watches come back after an outage.
const REVIVAL: Duration = Duration::from_millis(600);

/// What a watch does now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Reads at once: at the start, after an error, in doubt, when Consul is back.
    Read,
    /// Asks to hear when the index moves: what was heard so far is believed.
    Block {
        /// The index to ask beyond.
        index: u64,
    },
    /// Pauses after an error, unless Consul is well again before.
    Rest {
        /// For how long.
        pause: Duration,
        /// And then.
        then: Box<Self>,
    },
    /// Consul has asked not to be asked before, which holds whatever else happens.
    Hold {
        /// Until then.
        until: Instant,
        /// And then.
        then: Box<Self>,
    },
}

impl State {
    /// The state once Consul is back after an outage.
    fn revived(self) -> Self {
        match self {
            Self::Rest { then, .. } => then.revived(),
            hold @ Self::Hold { .. } => hold,
            Self::Read | Self::Block { .. } => Self::Read,
        }
    }
}

/// What a watch holds to judge an answer by.
#[derive(Debug, Default, Clone)]
struct Held {
    /// The last body that was believed.
    body: Option<Vec<u8>>,
    /// The highest index that was believed.
    highest: u64,
    /// Since when the index has been further back than that.
    back_since: Option<Instant>,
}

impl Held {
    fn goes_back(&self, index: Option<u64>) -> bool {
        index.is_some_and(|index| index < self.highest)
    }

    /// What was answered is how things are; gives what to do next. The index to ask beyond is never 0, and
    /// never one that Consul did not name.
    fn believe(&mut self, response: Response) -> State {
        self.body = Some(response.body);
        match response.index {
            Some(index) => {
                self.highest = index;
                self.back_since = None;
                State::Block {
                    index: index.max(1),
                }
            }
            None => State::Read,
        }
    }
}

/// What news would do to what is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Change {
    /// It takes something away.
    takes_away: bool,
    /// It leaves nothing where there must be something.
    empties: bool,
}

/// What an answer says, beside what is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// The same.
    Same,
    /// Nothing that can be read.
    Unreadable,
    /// Something else.
    News(Change),
}

/// What is thought of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    /// It says what was believed before.
    Same,
    /// It is news, and believed.
    News,
    /// It may be, if the leader bears it out.
    AskLeader,
    /// It is not believed for now.
    Doubt(Doubt),
}

/// Why an answer is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// The body cannot be read.
    Unreadable,
    /// It takes something away that the token may not see.
    Filtered,
    /// It takes something away, and its server knows no leader.
    NoLeader,
    /// It takes something away, and its index went back a moment ago.
    WentBack,
    /// It empties, and the leader does not bear that out.
    Unconfirmed,
}

impl Doubt {
    /// What the log and the metric say of it.
    fn error(self) -> RequestError {
        RequestError::Suspect(match self {
            Self::Unreadable => "it cannot be read",
            Self::Filtered => "the token may not see all of it",
            Self::NoLeader => "its server knows no leader",
            Self::WentBack => "its index went back",
            Self::Unconfirmed => {
                "it is empty, and should not be; has the ACL token lost its rights?"
            }
        })
    }

    /// What it is counted as, beside an index that went back.
    fn suspicion(self) -> Option<&'static str> {
        match self {
            Self::Unreadable => Some("body"),
            Self::Filtered => Some("filtered"),
            Self::NoLeader => Some("leader"),
            // Both are counted when they are first seen.
            Self::WentBack | Self::Unconfirmed => None,
        }
    }
}

/// All rules of doubt.
///
/// Nothing is lost by waiting: what is known stays, and the next answer is judged anew.
fn judge(held: &Held, response: &Response, said: Said, now: Instant) -> Belief {
    let change = match said {
        // Even if the index went back: there is nothing to doubt.
        Said::Same => return Belief::Same,
        Said::Unreadable => return Belief::Doubt(Doubt::Unreadable),
        Said::News(change) => change,
    };
    if change.takes_away && response.filtered {
        return Belief::Doubt(Doubt::Filtered);
    }
    if change.takes_away && !response.known_leader {
        return Belief::Doubt(Doubt::NoLeader);
    }
    // If it stays back for long enough, that is how things are now.
    let back_for = now - held.back_since.unwrap_or(now);
    if change.takes_away && held.goes_back(response.index) && back_for < DOUBT {
        return Belief::Doubt(Doubt::WentBack);
    }
    match change.empties {
        // Without a leader, or with a token that has lost its rights, what is known stays.
        true => Belief::AskLeader,
        false => Belief::News,
    }
}

/// What the leader makes of news that empties: does its answer bear the emptiness out?
fn judge_leader(filtered: bool, confirms: bool) -> Belief {
    match confirms {
        _ if filtered => Belief::Doubt(Doubt::Filtered),
        true => Belief::News,
        false => Belief::Doubt(Doubt::Unconfirmed),
    }
}

/// Watches until the stop. Errors are retried for ever, further and further apart.
pub(super) async fn watch(context: Context, mut subject: impl Subject, stop: CancellationToken) {
    // A dropped request closes its connection, which is how Consul learns of it.
    let mut watch = Watch::new(&context, &mut subject);
    stop.run_until_cancelled(watch.run()).await;
    // If it has ended by itself, whoever counts connections can tell by that.
    stop.cancel();
}

/// Reads once and publishes what is believed: for services without a watch of their own.
pub(super) async fn refresh(
    context: &Context,
    subject: &mut impl Subject,
) -> Result<(), RequestError> {
    let mut watch = Watch::new(context, subject);
    watch.ask(&State::Read).await.0
}

/// One watch.
struct Watch<'a, S> {
    context: &'a Context,
    subject: &'a mut S,
    ask: Ask,
    held: Held,
    /// How long Consul may hold the next query.
    wait: Duration,
    /// And those after it.
    longest_wait: Duration,
    /// There may be news that is not read yet, because that would cost too much.
    is_behind: bool,
    /// It costs so little that every change is read.
    is_cheap: bool,
    /// What the last read came to.
    cost: Cost,
}

impl<'a, S: Subject> Watch<'a, S> {
    fn new(context: &'a Context, subject: &'a mut S) -> Self {
        Self {
            context,
            ask: subject.ask(),
            subject,
            held: Held::default(),
            wait: FIRST_WAIT,
            longest_wait: WAIT,
            is_behind: false,
            is_cheap: true,
            cost: Cost::default(),
        }
    }

    fn set_behind(&mut self, behind: bool) {
        if self.is_behind != behind {
            self.is_behind = behind;
            self.subject.falls_behind(behind);
        }
    }

    async fn run(&mut self) {
        let mut pace = self.subject.pace();
        let mut handle = WatchHandle::new(&self.context.contact, &self.ask, S::WHAT);
        let mut state = State::Read;
        loop {
            let contact = Arc::clone(&self.context.contact);
            if self.subject.is_over() {
                return;
            }
            tokio::select! {
                next = self.step(&state, &mut pace, &mut handle) => state = next,
                () = contact.revived() => {
                    state = state.revived();
                    pace.start_anew();
                    sleep(REVIVAL.mul_f64(random_fraction())).await;
                }
            }
        }
    }

    /// Does what the state says, and gives the next one.
    async fn step(&mut self, state: &State, pace: &mut Pace, handle: &mut WatchHandle) -> State {
        match state {
            State::Rest { pause, then } => {
                if handle.rest(*pause).await {
                    pace.start_anew();
                }
                (**then).clone()
            }
            State::Hold { until, then } => {
                sleep_until(*until).await;
                (**then).clone()
            }
            State::Read | State::Block { .. } => {
                handle.begin();
                let (result, next) = self.ask(state).await;
                match result {
                    Ok(()) => {
                        handle.answered();
                        let pause = pace.after_success(&self.cost);
                        self.longest_wait = pace.longest_wait(WAIT);
                        self.is_cheap = pace.is_cheap();
                        if !self.is_cheap {
                            // Such a list is one connection, and dear each time that it comes.
                            self.wait = self.longest_wait;
                        }
                        self.set_behind(!pause.is_zero() || !self.is_cheap);
                        if !pause.is_zero() {
                            sleep(pause).await;
                        }
                        next
                    }
                    Err(error) => {
                        handle.failed(&error);
                        self.subject.fell_silent();
                        self.set_behind(true);
                        let pause = pace.after_failure(handle.longest_pause(&error));
                        rest(&error, pause, next)
                    }
                }
            }
        }
    }

    /// One request and its consequences: what came of it, and what to do next, after a pause if it failed.
    async fn ask(&mut self, state: &State) -> (Result<(), RequestError>, State) {
        let mode = match state {
            State::Block { index } => {
                // Watches that began together must not end together.
                let wait = self.wait.mul_f64(0.9 + random_fraction() / 10.0);
                self.wait = (self.wait * 2).min(self.longest_wait);
                Mode::Blocking {
                    index: *index,
                    wait,
                }
            }
            _ => Mode::Stale,
        };
        let response = match self.get(mode).await {
            Ok(response) => response,
            // What is held is as good as before, and an answer costs one more read.
            Err(error @ RequestError::RateLimited { .. }) => return (Err(error), state.clone()),
            // A query that blocks would leave open for long whether all is well again.
            Err(error) => return (Err(error), State::Read),
        };
        match self.digest(response).await {
            // Without an index there is nothing to wait for: read it again after a while.
            Ok(State::Read) => (Err(RequestError::Suspect("it has no index")), State::Read),
            Ok(next) => (Ok(()), next),
            Err((error, true)) => (Err(error), state.clone()),
            Err((error, false)) => (Err(error), State::Read),
        }
    }

    /// Sends the request, and notes what it came to.
    async fn get(&mut self, mode: Mode) -> Result<Response, RequestError> {
        if !self.subject.is_urgent() {
            self.context.throttle.turn().await;
        }
        let asked = Instant::now();
        let mut request = pin!(self.context.get(&self.ask, mode));
        // What is cheap is followed once Consul has nothing more to say.
        let may_follow = self.is_behind && self.is_cheap;
        let response = match timeout_at(asked + NO_NEWS, &mut request).await {
            Ok(response) => response?,
            Err(_) => {
                if may_follow && matches!(mode, Mode::Blocking { .. }) {
                    self.is_behind = false;
                    self.subject.falls_behind(false);
                }
                request.await?
            }
        };
        self.cost = Cost {
            bytes: response.body.len(),
            took: asked.elapsed(),
            may_have_waited: !matches!(mode, Mode::Stale),
        };
        Ok(response)
    }

    /// Judges an answer, and publishes it if it is believed. Gives what to do next; or why it is not
    /// believed, and whether the same is to be asked again.
    async fn digest(&mut self, response: Response) -> Result<State, (RequestError, bool)> {
        let (arrived, metrics) = (Instant::now(), &self.context.metrics);
        let went_back = self.held.goes_back(response.index);
        let is_same = self.held.body.as_ref() == Some(&response.body);
        if went_back && (is_same || self.held.back_since.is_none()) {
            metrics.suspect("index");
        }
        let read = (!is_same).then(|| self.subject.read(&response.body));
        let said = match &read {
            None => Said::Same,
            Some(Err(_)) => Said::Unreadable,
            Some(Ok(news)) => Said::News(Change {
                takes_away: self.subject.takes_away(news),
                empties: self.subject.empties(news),
            }),
        };
        let mut belief = judge(&self.held, &response, said, arrived);
        // Its index says nothing of the token, with which this changes.
        let again = belief == Belief::Doubt(Doubt::Filtered);
        if went_back && !matches!(belief, Belief::Doubt(doubt) if doubt != Doubt::WentBack) {
            self.held.back_since.get_or_insert(arrived);
        }
        if belief == Belief::AskLeader {
            metrics.suspect("empty");
            belief = self.ask_leader().await.map_err(|error| (error, false))?;
        }
        match (belief, read) {
            (Belief::Doubt(doubt), read) => {
                if let Some(kind) = doubt.suspicion() {
                    metrics.suspect(kind);
                }
                let error = match read {
                    Some(Err(error)) => error.into(),
                    _ => doubt.error(),
                };
                return Err((error, again));
            }
            (Belief::News, Some(Ok(news))) => {
                self.subject.publish(news, response.index);
                metrics.lag.observe(arrived.elapsed().as_secs_f64());
            }
            _ => {}
        }
        self.subject.confirmed();
        Ok(self.held.believe(response))
    }

    /// What became empty at once is only believed if the leader bears it out.
    async fn ask_leader(&self) -> Result<Belief, RequestError> {
        let (mut filtered, mut bodies) = (false, Vec::new());
        for confirmation in self.subject.confirmation() {
            let leader = self.context.get(&confirmation, Mode::Leader).await?;
            filtered |= leader.filtered;
            bodies.push(leader.body);
        }
        let confirms = self.subject.confirms(&bodies);
        let confirms = confirms.inspect_err(|_| self.context.metrics.suspect("body"))?;
        Ok(judge_leader(filtered, confirms))
    }
}

/// The rest after an error, and then `next`.
fn rest(error: &RequestError, pause: Duration, next: State) -> State {
    let (pause, then) = match error {
        RequestError::Suspect(_) => (pause.clamp(LOOK_AGAIN, LOOK_LATER), next),
        RequestError::RateLimited { wait, .. } => {
            // Many are asked to wait for the same time, and must not come together.
            let wait = wait.mul_f64(1.0 + random_fraction() / 10.0);
            let (until, then) = (Instant::now() + wait, Box::new(next));
            (wait, State::Hold { until, then })
        }
        _ => (pause, next),
    };
    State::Rest {
        pause,
        then: Box::new(then),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: u64 = 50;

    /// What a watch holds that has believed `body` at index 50.
    fn held() -> Held {
        Held {
            body: Some(b"held".to_vec()),
            highest: HELD,
            back_since: None,
        }
    }

    fn response(body: &str) -> Response {
        Response {
            index: Some(HELD + 1),
            known_leader: true,
            filtered: false,
            body: body.as_bytes().to_vec(),
        }
    }

    const NOTHING: Change = Change {
        takes_away: false,
        empties: false,
    };
    const LESS: Change = Change {
        takes_away: true,
        empties: false,
    };
    const EMPTY: Change = Change {
        takes_away: true,
        empties: true,
    };

    /// One row for each lie that the scripted Consul of the tests can tell, and for each rule beside.
    #[test]
    fn what_is_believed() {
        let now = Instant::now() + 10 * DOUBT;
        let back = |since: Duration| Held {
            back_since: Some(now - since),
            ..held()
        };
        let without_leader = |body| Response {
            known_leader: false,
            ..response(body)
        };
        let filtered = |body| Response {
            filtered: true,
            ..response(body)
        };
        let at = |index, body| Response {
            index,
            ..response(body)
        };
        let doubt = Belief::Doubt;
        for (what, held, response, said, expected) in [
            (
                "the same",
                held(),
                response("held"),
                Said::Same,
                Belief::Same,
            ),
            (
                "the same, index back",
                held(),
                at(Some(1), "held"),
                Said::Same,
                Belief::Same,
            ),
            (
                "the same, no index",
                held(),
                at(None, "held"),
                Said::Same,
                Belief::Same,
            ),
            (
                "news",
                held(),
                response("more"),
                Said::News(NOTHING),
                Belief::News,
            ),
            (
                "the first news",
                Held::default(),
                response("more"),
                Said::News(NOTHING),
                Belief::News,
            ),
            (
                "fewer",
                held(),
                response("less"),
                Said::News(LESS),
                Belief::News,
            ),
            (
                "no index",
                held(),
                at(None, "more"),
                Said::News(NOTHING),
                Belief::News,
            ),
            (
                "fewer, no index",
                held(),
                at(None, "less"),
                Said::News(LESS),
                Belief::News,
            ),
            // Lies.
            (
                "empty",
                held(),
                response("[]"),
                Said::News(EMPTY),
                Belief::AskLeader,
            ),
            (
                "index backwards",
                held(),
                at(Some(1), "less"),
                Said::News(LESS),
                doubt(Doubt::WentBack),
            ),
            (
                "no leader, older",
                held(),
                without_leader("less"),
                Said::News(LESS),
                doubt(Doubt::NoLeader),
            ),
            (
                "no leader, empty",
                held(),
                without_leader("[]"),
                Said::News(EMPTY),
                doubt(Doubt::NoLeader),
            ),
            (
                "filtered",
                held(),
                filtered("[]"),
                Said::News(EMPTY),
                doubt(Doubt::Filtered),
            ),
            (
                "half of the JSON",
                held(),
                response("{"),
                Said::Unreadable,
                doubt(Doubt::Unreadable),
            ),
            (
                "HTML",
                held(),
                response("<html>"),
                Said::Unreadable,
                doubt(Doubt::Unreadable),
            ),
            (
                "other JSON",
                held(),
                response("{\"errors\": 7}"),
                Said::Unreadable,
                doubt(Doubt::Unreadable),
            ),
            // What is harmless is believed of anybody.
            (
                "more, filtered",
                held(),
                filtered("more"),
                Said::News(NOTHING),
                Belief::News,
            ),
            (
                "more, no leader",
                held(),
                without_leader("more"),
                Said::News(NOTHING),
                Belief::News,
            ),
            (
                "more, index back",
                held(),
                at(Some(1), "more"),
                Said::News(NOTHING),
                Belief::News,
            ),
            // What stays is the truth.
            (
                "back for a while",
                back(DOUBT - Duration::from_millis(1)),
                at(Some(1), "less"),
                Said::News(LESS),
                doubt(Doubt::WentBack),
            ),
            (
                "back for long",
                back(DOUBT),
                at(Some(1), "less"),
                Said::News(LESS),
                Belief::News,
            ),
            (
                "back for long, and empty",
                back(DOUBT),
                at(Some(1), "[]"),
                Said::News(EMPTY),
                Belief::AskLeader,
            ),
            (
                "back and forth",
                back(Duration::from_secs(1)),
                at(Some(HELD), "less"),
                Said::News(LESS),
                Belief::News,
            ),
            // Several things at once: what the token may not see comes first.
            (
                "filtered, no leader, index back",
                held(),
                Response {
                    known_leader: false,
                    index: Some(1),
                    ..filtered("[]")
                },
                Said::News(EMPTY),
                doubt(Doubt::Filtered),
            ),
        ] {
            assert_eq!(judge(&held, &response, said, now), expected, "{what}");
        }
    }

    #[test]
    fn the_leader_decides_about_what_is_empty() {
        let doubt = Belief::Doubt;
        for (filtered, confirms, expected) in [
            (false, true, Belief::News),
            (false, false, doubt(Doubt::Unconfirmed)),
            (true, true, doubt(Doubt::Filtered)),
            (true, false, doubt(Doubt::Filtered)),
        ] {
            assert_eq!(judge_leader(filtered, confirms), expected);
        }
    }

    #[test]
    fn what_is_believed_is_held() {
        let mut held = held();
        held.back_since = Some(Instant::now());
        for (index, next, highest) in [
            (Some(60), State::Block { index: 60 }, 60),
            // Never ask beyond 0: that would not block.
            (Some(0), State::Block { index: 1 }, 0),
            (None, State::Read, 0),
        ] {
            let answer = Response {
                index,
                ..response("new")
            };
            assert_eq!(held.believe(answer), next);
            assert_eq!((held.highest, held.back_since), (highest, None));
            assert_eq!(held.body.as_deref(), Some(&b"new"[..]));
        }
    }

    /// The lies that are no answers: a pause, and then from the start.
    #[tokio::test(start_paused = true)]
    async fn after_an_error_there_is_a_rest() {
        let pause = Duration::from_millis(50);
        let status = |status: u16| RequestError::Status {
            status: reqwest::StatusCode::from_u16(status).expect("a status"),
            body: String::new(),
        };
        for error in [
            status(500),
            status(403),
            status(404),
            RequestError::Transport("half a body".to_owned()),
            RequestError::TooLong,
        ] {
            let expected = State::Rest {
                pause,
                then: Box::new(State::Read),
            };
            assert_eq!(rest(&error, pause, State::Read), expected, "{error}");
            assert_eq!(expected.revived(), State::Read);
        }
        // What is doubted is looked at again soon, but not at once.
        let suspect = rest(&Doubt::WentBack.error(), pause, State::Read);
        assert!(matches!(suspect, State::Rest { pause, .. } if pause == LOOK_AGAIN));
        // Nothing cuts short what Consul has asked for.
        let limited = RequestError::RateLimited {
            status: reqwest::StatusCode::TOO_MANY_REQUESTS,
            wait: Duration::from_secs(2),
        };
        let before = Instant::now();
        let held = rest(&limited, pause, State::Read).revived();
        let State::Hold { until, .. } = held else {
            panic!("not held: {held:?}");
        };
        assert!((2.0..=2.2).contains(&(until - before).as_secs_f64()));
        assert_eq!(held.clone().revived(), held);
    }
}
