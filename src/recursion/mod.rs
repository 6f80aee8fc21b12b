//! Recursion through upstream resolvers: what they said is kept link by link, and nothing but what was
//! asked of them gets any further.
//!
//! A few names that must never leave the host (`localhost`, `invalid`, `onion`) are answered in
//! `special`. Otherwise a question passes as it came: DO and CD go to the upstream, and what it says of
//! its checking comes back (AD, signatures, Extended DNS Errors). A client's other options stay here.

mod cache;
mod error;
mod flight;
mod link;
mod metrics;
mod plan;
mod rebind;
mod scrub;
mod settings;
mod special;
mod system;
mod told;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::dns::{Answer, ExtendedError, Name, Query, Rcode, Response};
use crate::shares::Client;
use crate::upstream::{Address, Trust};

use cache::Cache;
pub use error::Error;
use flight::Flights;
pub use link::Form;
use link::{Age, Link};
pub use metrics::Metrics;
use plan::{Mark, Plan, Whom};
use scrub::Links;
pub use settings::{Forward, Settings, Upstreams};
pub use system::{ResolvConf, check_loops, own_addresses};
pub use told::Told;
use told::{Found, told};

/// Extended DNS Errors (RFC 8914 section 4) that say why there is no answer, where no upstream says it:
/// there was none a moment ago; too much is under way; no upstream has one.
const CACHED_ERROR: u16 = 13;
const NOT_READY: u16 = 14;
const NO_REACHABLE_AUTHORITY: u16 = 22;

/// What is said instead of an answer that leads inside (RFC 8914 section 4.18).
const FILTERED: u16 = 17;

/// How long somebody waits for an upstream where what it said before is at hand (RFC 8767 section 5, client
/// response timer).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// So long after a look into the cache another one would hardly find anything else. What is asked meanwhile is under
/// way, and asked once all the same.
const RECENT: Duration = Duration::from_millis(1);

/// Questions of our own at a time, to keep known names fresh.
const MAX_OWN: usize = 64;

/// A question for upstreams.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// In lower case.
    pub name: &'a Name,
    /// QTYPE.
    pub qtype: u16,
    /// What else it is asked with.
    pub form: Form,
}

impl<'a> Question<'a> {
    /// The same of another name, in lower case.
    fn at(self, name: &'a Name) -> Self {
        Self { name, ..self }
    }
}

/// That nothing can be said to a question at once.
#[derive(Debug)]
pub struct Unsaid {
    /// What was said of it before, and has run down.
    expired: Option<Arc<Link>>,
    /// When that was looked for.
    at: Instant,
}

/// What was found out about a question: it takes little memory as long as it is not put into words.
#[derive(Debug)]
pub struct Landed(What);

#[derive(Debug)]
enum What {
    Links(Arc<Links>),
    /// It has run down, and upstreams have nothing better.
    Stale(Arc<Link>),
    Told(Told),
}

/// Answers questions through upstreams. Share it in an `Arc`.
pub struct Recursor {
    plan: ArcSwap<Plan>,
    /// Who changes the plan goes by the one before.
    changing: Mutex<()>,
    cache: Arc<Cache>,
    flights: Arc<Flights>,
    /// Places for questions of our own: nobody waits for them.
    own: Arc<Semaphore>,
    /// Where those are asked.
    runtime: Handle,
    metrics: Metrics,
}

impl Recursor {
    /// Prepares recursion through these upstreams and those that the settings forward to, for whose certificates
    /// `trust` vouches. It counts in `metrics`. Connections live on `runtime`, whoever asks. Nothing is sent yet.
    ///
    /// # Errors
    /// There is neither an upstream nor a domain to forward, where none may come later, or one of them cannot
    /// be an upstream.
    pub fn new(
        addresses: &[Address],
        settings: Settings,
        trust: Option<Trust>,
        runtime: &Handle,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let cache = Arc::new(Cache::new(settings.links_cache()));
        metrics.show(&cache);
        let flights = Arc::new(Flights::new(settings.max_concurrent));
        let may_come = settings.upstreams == Upstreams::System;
        if addresses.is_empty() && settings.forward.is_empty() && !may_come {
            return Err(Error::NoUpstreams);
        }
        let of_upstreams = &metrics.upstreams;
        let plan = Plan::new(addresses, settings, trust, runtime, of_upstreams, None)?;
        Ok(Self {
            plan: ArcSwap::from_pointee(plan),
            changing: Mutex::default(),
            cache,
            flights,
            own: Arc::new(Semaphore::new(MAX_OWN)),
            runtime: runtime.clone(),
            metrics,
        })
    }

    /// Are the system's resolvers asked, whichever they are?
    pub fn follows_system(&self) -> bool {
        self.plan.load().settings.upstreams == Upstreams::System
    }

    /// From now on all is as for [`Self::new`], but that what is known stays, and so does what is known of those who
    /// are asked as before.
    ///
    /// # Errors
    /// As for [`Self::new`]; nothing has changed then.
    pub fn adopt(
        &self,
        addresses: &[Address],
        settings: Settings,
        trust: Option<Trust>,
    ) -> Result<(), Error> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.plan.load();
        let bytes = settings.links_cache();
        let metrics = &self.metrics.upstreams;
        let plan = Plan::new(
            addresses,
            settings,
            trust,
            &self.runtime,
            metrics,
            Some(&before),
        )?;
        if bytes != before.settings.links_cache() {
            self.cache.resize(bytes);
        }
        self.plan.store(Arc::new(plan));
        Ok(())
    }

    /// From now on these are asked for what is not forwarded, if the system's resolvers are.
    ///
    /// # Errors
    /// As for [`Self::adopt`].
    pub fn follow(&self, addresses: &[Address]) -> Result<(), Error> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.follows_system() {
            return Ok(());
        }
        let metrics = &self.metrics.upstreams;
        let plan = self
            .plan
            .load()
            .with_default(addresses, &self.runtime, metrics)?;
        self.plan.store(Arc::new(plan));
        Ok(())
    }

    /// How long the resolution of one question may take.
    pub fn deadline(&self) -> Duration {
        self.plan.load().settings.deadline
    }

    /// May anything be said to a name, in lower case?
    pub fn speaks_for(&self, name: &Name) -> bool {
        !matches!(self.plan.load().whom(name), Whom::Nobody)
    }

    /// Is this somebody else's name, which may not lead to anything of ours?
    pub fn withholds(&self, name: &Name) -> bool {
        self.plan.load().withholds(name)
    }

    /// What can be said at once: what is never asked of an upstream, or is in the cache. TTLs have run
    /// down since they were learned; what is about to run down is asked for anew. What has run down is
    /// said only where it is known that upstreams have nothing better. An alias whose target cannot be
    /// said at once is left open.
    ///
    /// # Errors
    /// It cannot be said at once; [`Self::resolve`] wants to know what is known all the same.
    pub fn recall(self: &Arc<Self>, question: Question<'_>) -> Result<Told, Unsaid> {
        let Question { name, qtype, form } = question;
        if special::is_not_recursed(qtype) {
            return Ok(Told::once(Answer::empty(Rcode::NOTIMP, false)));
        }
        if let Some(answer) = special::answer(name, qtype) {
            let holds = Duration::from_secs(special::TTL.into());
            return Ok(Told { answer, holds });
        }
        let plan = self.plan.load();
        match plan.whom(name) {
            Whom::Group(..) | Whom::Nobody => {}
            Whom::Nothing => return Ok(Told::once(Answer::empty(Rcode::NXDOMAIN, false))),
            Whom::Awaited => return Ok(Told::failed(NOT_READY)),
        }
        let (now, stale) = (Instant::now(), plan.settings.stale);
        let mut due: Vec<(Name, OwnedSemaphorePermit)> = Vec::new();
        let mut is_stale = false;
        let mut expired = None;
        let told = told(question, now, |at, is_first| {
            let Whom::Group(upstreams, mark) = plan.whom(at) else {
                return None;
            };
            let (link, age) = self.cache.get(question.at(at), mark, stale, now)?;
            // What could not be said during an outage, or by others, counts no more.
            let stands =
                |since| !plan.is_younger_than(since) && !upstreams.have_recovered_since(since);
            let is_put_off = || link.put_off_since(now).is_some_and(stands);
            let (may_be_told, is_due) = match age {
                Age::Fresh => (!link.is_failure() || stands(link.born()), false),
                Age::Ageing => (true, plan.settings.prefetch && !is_put_off()),
                // What an alias leads to is looked for on its own.
                Age::Expired if !is_first => (false, false),
                // Whoever asks tells that they are back, for all other names as well.
                Age::Expired if is_put_off() => (true, upstreams.want_probe(now)),
                Age::Expired => (upstreams.rest(), true),
                Age::Gone => (false, false),
            };
            if !may_be_told {
                expired = Some(link).filter(|link| is_first && !link.is_failure());
                return None;
            }
            is_stale |= age == Age::Expired;
            if is_due
                && let Ok(place) = Arc::clone(&self.own).try_acquire_owned()
                && link.begin_refresh()
            {
                due.push((at.clone(), place));
            }
            Some(link)
        });
        let mut told = told.ok_or(Unsaid { expired, at: now })?;
        for (at, place) in due {
            self.refresh(at, qtype, form, place);
        }
        if is_stale {
            self.metrics.stale.inc();
        } else {
            self.metrics.hits.inc();
        }
        if told.answer.rcode == Rcode::SERVFAIL && told.answer.errors.is_empty() {
            told = Told::failed(CACHED_ERROR);
        }
        Ok(told)
    }

    /// Asks for a name anew, while what was said of it before is served.
    fn refresh(self: &Arc<Self>, name: Name, qtype: u16, form: Form, place: OwnedSemaphorePermit) {
        self.metrics.refreshes.inc();
        let recursor = Arc::clone(self);
        self.runtime.spawn(async move {
            let question = Question {
                name: &name,
                qtype,
                form,
            };
            drop(recursor.fly(question, None).await);
            drop(place);
        });
    }

    /// Finds out what is said to a question of this client's: NOERROR or NXDOMAIN of an upstream; what it
    /// said before, if that is at hand and it has no answer now; else SERVFAIL. An alias that the upstream
    /// left open is left open. Takes no longer than the deadline of the settings. What is under way when
    /// this is dropped goes on for those who ask next.
    pub async fn resolve(
        self: &Arc<Self>,
        question: Question<'_>,
        client: Client,
        mut unsaid: Unsaid,
    ) -> Landed {
        if unsaid.at.elapsed() > RECENT {
            // Somebody else may have been told meanwhile.
            unsaid = match self.recall(question) {
                Ok(told) => return Landed(What::Told(told)),
                Err(unsaid) => unsaid,
            };
        }
        let expired = unsaid.expired;
        self.metrics.misses.inc();
        let flight = self.fly(question, Some(client));
        let Some(link) = expired else {
            return Landed(match flight.await {
                Some(links) => What::Links(links),
                None => {
                    self.metrics.shed.inc();
                    What::Told(Told::failed(NOT_READY))
                }
            });
        };
        let links = timeout(STALE_AFTER, flight).await.ok().flatten();
        let has_answer = |links: &Arc<Links>| {
            let first = links.first();
            first.is_some_and(|(_, link)| !link.is_failure())
        };
        Landed(match links.filter(has_answer) {
            Some(links) => What::Links(links),
            None => {
                self.metrics.stale.inc();
                What::Stale(link)
            }
        })
    }

    /// Puts into words what was found out.
    pub fn tell(&self, question: Question<'_>, landed: &Landed) -> Told {
        let (now, plan) = (Instant::now(), self.plan.load());
        let kept = |at: &Name| {
            let (link, age) = match plan.whom(at) {
                Whom::Group(_, mark) => {
                    self.cache.get(question.at(at), mark, Duration::ZERO, now)?
                }
                _ => return None,
            };
            matches!(age, Age::Fresh | Age::Ageing).then_some(link)
        };
        let told = match &landed.0 {
            What::Told(told) => return told.clone(),
            What::Stale(link) => told(question, now, |at, is_first| match is_first {
                true => Some(Arc::clone(link)),
                false => kept(at),
            }),
            What::Links(links) => {
                let mut found = Found::new(links);
                told(question, now, |at, _| found.next(at).or_else(|| kept(at)))
            }
        };
        match told {
            Some(told)
                if told.answer.rcode != Rcode::SERVFAIL || !told.answer.errors.is_empty() =>
            {
                told
            }
            _ => Told::failed(NO_REACHABLE_AUTHORITY),
        }
    }

    /// What upstreams say, asked once for all who ask the same, for this client or for ourselves; `None` if
    /// the client has too many questions under way already.
    async fn fly(
        self: &Arc<Self>,
        question: Question<'_>,
        client: Option<Client>,
    ) -> Option<Arc<Links>> {
        let Question { name, qtype, form } = question;
        let query = Query::new(name, qtype, form.dnssec_ok, form.checking_disabled);
        let go = |query: Arc<Query>| {
            let (recursor, name) = (Arc::clone(self), name.clone());
            async move {
                let name = &name;
                recursor.ask(Question { name, qtype, form }, &query).await
            }
        };
        self.flights.fly(query, client, go).await
    }

    /// Asks upstreams, and keeps what they say.
    async fn ask(&self, question: Question<'_>, query: &Query) -> Links {
        let Question { name, qtype, form } = question;
        let plan = self.plan.load_full();
        let by = Instant::now() + plan.settings.deadline;
        let (said, mark) = match plan.whom(name) {
            Whom::Group(upstreams, mark) => (upstreams.ask(query, by).await, mark),
            Whom::Nothing | Whom::Awaited | Whom::Nobody => (Err(Vec::new()), Mark::default()),
        };
        let now = Instant::now();
        let links = match said {
            Ok(response) => {
                let is_same = |next: &Name| plan.is_same(name, next);
                let mut links = scrub::links(name, qtype, form, &response, now, is_same);
                if plan.withholds(name) {
                    for (_, link) in &mut links {
                        if rebind::leads_inside(link) {
                            *link = Arc::new(link.withheld(filtered()));
                        }
                    }
                }
                links
            }
            Err(errors) => {
                self.metrics.failures.inc();
                // What those could not say who were asked before says nothing of those who are asked now.
                let is_past = !Arc::ptr_eq(&self.plan.load_full(), &plan);
                let before = self.cache.failure(question, mark).filter(|_| !is_past);
                let failed = Arc::new(Link::failed(errors, before.as_deref(), now));
                let kept = self.cache.get(question, mark, plan.settings.stale, now);
                let kept = kept.filter(|(link, _)| !link.is_failure());
                match &kept {
                    Some((link, _)) if is_past => link.end_refresh(),
                    // It is served instead, and says for how long upstreams are not asked.
                    Some((link, _)) => link.put_off(now),
                    None => {}
                }
                let links = vec![(name.clone(), failed)];
                if is_past || kept.is_some() {
                    return links;
                }
                // RFC 9520: or every client's retry would go to every upstream again.
                links
            }
        };
        for (own, link) in &links {
            self.cache.put(question.at(own), mark, link, now);
        }
        links
    }
}

/// What a reply says to a question, with nothing that was not asked for: pure.
pub fn said(question: Question<'_>, response: &Response) -> Answer {
    let now = Instant::now();
    let Question { name, qtype, form } = question;
    let links = scrub::links(name, qtype, form, response, now, |_| true);
    let mut found = Found::new(&links);
    let told = told(question, now, |at, _| found.next(at));
    told.unwrap_or_else(|| Told::failed(NO_REACHABLE_AUTHORITY))
        .answer
}

/// The Extended DNS Error that says that an answer is withheld.
pub fn filtered() -> ExtendedError {
    ExtendedError::new(FILTERED, b"it leads inside")
}

#[cfg(test)]
mod tests;
