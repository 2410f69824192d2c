//! How often may be asked (9.3): a bucket of tokens for each client, and one for all together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use crate::config::{Rate, Rates};
use crate::error::ApiError;

/// Clients that are remembered. One that is forgotten starts with a full bucket.
const MOST_CLIENTS: usize = 4096;

/// Who is counted as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    Key(String),
    Address(IpAddr),
}

impl Client {
    /// By the key, or by the address where there is none. A host has a whole IPv6 network of 64 bits
    /// to choose from.
    pub(super) fn new(key_id: Option<&str>, address: IpAddr) -> Self {
        match (key_id, address.to_canonical()) {
            (Some(id), _) => Self::Key(id.to_owned()),
            (None, IpAddr::V6(address)) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Self::Address(IpAddr::V6(network.into()))
            }
            (None, address) => Self::Address(address),
        }
    }
}

/// The buckets of all.
pub(super) struct Buckets {
    rates: Rates,
    state: Mutex<State>,
}

struct State {
    clients: HashMap<Client, Bucket>,
    global: Option<Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            tokens: rate.capacity,
            filled: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = rate.capacity.min(self.tokens + seconds * rate.per_second);
        self.filled = self.filled.max(now);
    }

    /// How long until there is a token; `None` where there is one.
    fn wait(&self, rate: Rate) -> Option<Duration> {
        let seconds = (1.0 - self.tokens) / rate.per_second;
        (self.tokens < 1.0)
            .then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(86_400)))
    }
}

impl Buckets {
    pub(super) fn new(rates: Rates) -> Self {
        let state = State {
            clients: HashMap::new(),
            global: None,
        };
        Self {
            rates,
            state: Mutex::new(state),
        }
    }

    /// Takes a token of the client's bucket and one of the common one, or neither: what one client
    /// is refused costs the others nothing.
    ///
    /// # Errors
    /// 429 `rate_limited` with the scope and the time after which a token is there.
    pub(super) fn take(&self, client: &Client, now: Instant) -> Result<(), ApiError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { clients, global } = &mut *state;
        let mut of_client = None;
        if let Some(rate) = self.rates.client {
            if !clients.contains_key(client) {
                make_room(clients, rate, now);
            }
            let bucket = clients
                .entry(client.clone())
                .or_insert_with(|| Bucket::full(rate, now));
            bucket.fill(rate, now);
            if let Some(wait) = bucket.wait(rate) {
                return Err(limited("client", "too many requests of this client", wait));
            }
            of_client = Some(bucket);
        }
        if let Some(rate) = self.rates.global {
            let bucket = global.get_or_insert_with(|| Bucket::full(rate, now));
            bucket.fill(rate, now);
            if let Some(wait) = bucket.wait(rate) {
                return Err(limited("global", "too many requests of all clients", wait));
            }
            bucket.tokens -= 1.0;
        }
        if let Some(bucket) = of_client {
            bucket.tokens -= 1.0;
        }
        Ok(())
    }
}

/// Forgets clients when there are too many: those whose buckets are full again, which changes
/// nothing, or else the one with the fullest, which gains least by it.
fn make_room(clients: &mut HashMap<Client, Bucket>, rate: Rate, now: Instant) {
    if clients.len() < MOST_CLIENTS {
        return;
    }
    clients.retain(|_, bucket| {
        bucket.fill(rate, now);
        bucket.tokens < rate.capacity
    });
    if clients.len() >= MOST_CLIENTS {
        let fullest = clients
            .iter()
            .max_by(|a, b| a.1.tokens.total_cmp(&b.1.tokens));
        if let Some(client) = fullest.map(|(client, _)| client.clone()) {
            clients.remove(&client);
        }
    }
}

fn limited(scope: &'static str, message: &str, wait: Duration) -> ApiError {
    let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
    error.scope = Some(scope);
    error.retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Rate = Rate {
        per_second: 1.0,
        capacity: 3.0,
    };
    const GLOBAL: Rate = Rate {
        per_second: 5.0,
        capacity: 10.0,
    };

    fn buckets() -> Buckets {
        Buckets::new(Rates {
            client: Some(CLIENT),
            global: Some(GLOBAL),
        })
    }

    fn key(number: usize) -> Client {
        Client::Key(number.to_string())
    }

    fn scope(result: Result<(), ApiError>) -> Option<&'static str> {
        result.err().and_then(|error| error.scope)
    }

    #[test]
    fn the_worked_example_holds() {
        let (buckets, start) = (buckets(), Instant::now());
        for _ in 0..3 {
            assert_eq!(buckets.take(&key(0), start), Ok(()));
        }
        let error = buckets.take(&key(0), start).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (429, "rate_limited"));
        assert_eq!(
            (error.scope, error.retry_after),
            (Some("client"), Some(Duration::from_secs(1)))
        );
        let later = start + Duration::from_secs(1);
        assert_eq!(buckets.take(&key(0), later), Ok(()));
        assert_eq!(scope(buckets.take(&key(0), later)), Some("client"));
    }

    #[test]
    fn a_refused_client_costs_the_others_nothing() {
        let (buckets, start) = (buckets(), Instant::now());
        for _ in 0..100 {
            let _ = buckets.take(&key(0), start);
        }
        // Three tokens of ten are gone, not a hundred.
        let passed = (1..=7)
            .filter(|number| buckets.take(&key(*number), start).is_ok())
            .count();
        assert_eq!(passed, 7);
        let error = buckets.take(&key(8), start).unwrap_err();
        assert_eq!(error.scope, Some("global"));
        assert_eq!(error.retry_after, Some(Duration::from_millis(200)));
        // Nor did the refusal of all cost the client its own.
        let later = start + Duration::from_secs(2);
        for _ in 0..3 {
            assert_eq!(buckets.take(&key(8), later), Ok(()));
        }
    }

    #[test]
    fn a_full_bucket_does_not_overflow_and_clocks_do_not_run_back() {
        let (buckets, start) = (buckets(), Instant::now());
        let later = start + Duration::from_secs(3600);
        let passed = (0..10)
            .filter(|_| buckets.take(&key(0), later).is_ok())
            .count();
        assert_eq!(passed, 3);
        assert_eq!(scope(buckets.take(&key(0), start)), Some("client"));
        assert_eq!(scope(buckets.take(&key(0), later)), Some("client"));
    }

    #[test]
    fn without_rates_nothing_is_limited_nor_remembered() {
        let (buckets, now) = (Buckets::new(Rates::default()), Instant::now());
        assert!((0..1000).all(|_| buckets.take(&key(0), now).is_ok()));
        assert!(buckets.state.lock().unwrap().clients.is_empty());
    }

    #[test]
    fn idle_clients_are_forgotten_and_their_number_is_bounded() {
        let rates = Rates {
            client: Some(CLIENT),
            global: None,
        };
        let (buckets, start) = (Buckets::new(rates), Instant::now());
        let count = |buckets: &Buckets| buckets.state.lock().unwrap().clients.len();
        for _ in 0..4 {
            let _ = buckets.take(&key(0), start);
        }
        for number in 1..MOST_CLIENTS + 100 {
            assert_eq!(buckets.take(&key(number), start), Ok(()));
        }
        assert_eq!(count(&buckets), MOST_CLIENTS);
        // The one that asked too often is not among those that were forgotten for room.
        assert_eq!(scope(buckets.take(&key(0), start)), Some("client"));
        let later = start + Duration::from_secs(10);
        assert_eq!(buckets.take(&key(MOST_CLIENTS * 2), later), Ok(()));
        assert_eq!(count(&buckets), 1);
    }

    #[test]
    fn one_host_is_one_client() {
        let client = |address: &str| Client::new(None, address.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        let address = "10.0.0.1".parse().unwrap();
        assert_eq!(Client::new(Some("a"), address), Client::Key("a".into()));
    }
}
