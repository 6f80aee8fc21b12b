//! Questions on their way to upstreams: one for each, however many ask it, and whoever of them stays.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::SetOnce;

use crate::dns::Query;
use crate::shares::{Client, Share, Shares};

use super::scrub::Links;

/// The questions that are on their way.
#[derive(Debug)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<Arc<Query>, Arc<Flight>>>,
    places: Arc<Shares>,
}

/// What came of a question; `None` if nobody can tell.
type Flight = SetOnce<Option<Arc<Links>>>;

/// How somebody gets to know it.
enum Seat {
    /// He is the first.
    Pilot(Landing),
    /// Somebody else has gone.
    Passenger(Arc<Flight>),
}

impl Flights {
    /// At most so many at a time.
    pub(super) fn new(places: usize) -> Self {
        Self {
            under_way: Mutex::default(),
            places: Shares::new(places),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Query>, Arc<Flight>>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(self: &Arc<Self>, query: Query, client: Option<Client>) -> Option<Seat> {
        let mut under_way = self.lock();
        if let Some(flight) = under_way.get(&query) {
            return Some(Seat::Passenger(Arc::clone(flight)));
        }
        let place = match client {
            Some(client) => Some(self.places.take(client)?),
            None => None,
        };
        let flight: Arc<Flight> = Arc::default();
        let query = Arc::new(query);
        under_way.insert(Arc::clone(&query), Arc::clone(&flight));
        Some(Seat::Pilot(Landing {
            flights: Arc::clone(self),
            query,
            flight,
            _place: place,
        }))
    }

    /// What comes of a question of this client's, or of ours: `go` is how it is asked, if nobody does
    /// already. Who leaves before the end leaves it to the runtime that it began on. `None` if the client
    /// has too many under way already.
    pub(super) async fn fly<F>(
        self: &Arc<Self>,
        query: Query,
        client: Option<Client>,
        go: impl FnOnce(Arc<Query>) -> F,
    ) -> Option<Arc<Links>>
    where
        F: Future<Output = Links> + Send + 'static,
    {
        match self.seat(query, client)? {
            Seat::Passenger(flight) => flight.wait().await.clone(),
            Seat::Pilot(landing) => {
                let going = go(Arc::clone(&landing.query));
                let all_the_way = async move {
                    let links = Arc::new(going.await);
                    landing.with(Arc::clone(&links));
                    links
                };
                let crew = Crew {
                    going: Some(Box::pin(all_the_way)),
                    runtime: Handle::current(),
                };
                Some(crew.await)
            }
        }
    }
}

/// The end of a flight, however it comes: it is no longer under way then, and nobody waits for it.
struct Landing {
    flights: Arc<Flights>,
    query: Arc<Query>,
    flight: Arc<Flight>,
    _place: Option<Share>,
}

impl Landing {
    fn with(self, links: Arc<Links>) {
        // Only here, and when this is dropped.
        let _ = self.flight.set(Some(links));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.query);
        // It has been said before, as a rule.
        let _ = self.flight.set(None);
    }
}

/// Goes with a flight, or leaves it to the runtime.
struct Crew {
    going: Option<Pin<Box<dyn Future<Output = Arc<Links>> + Send>>>,
    /// Its sockets are there, so that it cannot go on anywhere else.
    runtime: Handle,
}

impl Future for Crew {
    type Output = Arc<Links>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(going) = &mut self.going else {
            return Poll::Pending;
        };
        let polled = going.as_mut().poll(context);
        if polled.is_ready() {
            self.going = None;
        }
        polled
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Some(going) = self.going.take() {
            self.runtime.spawn(going);
        }
    }
}
