//! A server under load: so many clients, each with one request after the other.

use std::fmt;
use std::io::BufRead;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::RUN;
use super::http::request;
use super::metric::Metric;

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) clients: u32,
    pub(crate) seconds: u32,
    /// Tokens of each prompt; no two prompts begin alike.
    pub(crate) prompt: u32,
    /// Tokens of each reply.
    pub(crate) tokens: u32,
}

/// How a server is asked, and how its events are read.
pub(crate) struct Wire<'a> {
    pub(crate) path: &'static str,
    pub(crate) body: &'a (dyn Fn(&[u32], u32) -> Value + Sync),
    /// Tokens of the reply, in the event that tells them.
    pub(crate) tokens: &'a (dyn Fn(&Value) -> Option<u64> + Sync),
    /// Whether an event brings text.
    pub(crate) has_text: &'a (dyn Fn(&Value) -> bool + Sync),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            clients,
            seconds,
            prompt,
            tokens,
        } = self;
        write!(
            f,
            "{clients} clients for {seconds} s, {prompt} + {tokens} tokens"
        )
    }
}

/// What clients saw.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    tokens: u64,
    /// Seconds from each request to its first text.
    first: Vec<f64>,
    /// Seconds between the texts of each reply.
    between: Vec<f64>,
}

impl Load {
    /// Asks for all of it. A client whose time is up reads its last reply to the end.
    ///
    /// # Errors
    /// When a reply is refused, broken off, or of another length than was asked for.
    pub(crate) fn run(&self, address: SocketAddr, wire: &Wire<'_>) -> Result<Vec<(Metric, f64)>> {
        let started = Instant::now();
        let until = started + Duration::from_secs(self.seconds.into());
        let seen = thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients)
                .map(|client| scope.spawn(move || self.client(address, wire, client, until)))
                .collect();
            let seen = clients.into_iter().map(|client| match client.join() {
                Ok(seen) => seen,
                Err(_) => bail!("a client gave up"),
            });
            seen.collect::<Result<Vec<Seen>>>()
        })?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(self.figures(&seen, seconds))
    }

    fn client(
        &self,
        address: SocketAddr,
        wire: &Wire<'_>,
        client: u32,
        until: Instant,
    ) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut turn = 0;
        while Instant::now() < until {
            let prompt: Vec<u32> = (0..self.prompt)
                .map(|i| 100 + (client * 131 + turn * 977 + i * 7) % 8000)
                .collect();
            let body = (wire.body)(&prompt, self.tokens).to_string();
            let asked = Instant::now();
            let answer = request(address, "POST", wire.path, &body, RUN)?;
            let tokens = read(answer, wire, &mut seen, || asked.elapsed().as_secs_f64())?;
            if tokens != u64::from(self.tokens) {
                bail!("a reply has {tokens} tokens, not {}", self.tokens);
            }
            seen.tokens += tokens;
            turn += 1;
        }
        Ok(seen)
    }

    fn figures(&self, seen: &[Seen], seconds: f64) -> Vec<(Metric, f64)> {
        let clients = self.clients;
        let tokens: u64 = seen.iter().map(|seen| seen.tokens).sum();
        let mut values = vec![(Metric::Serve { clients }, tokens as f64 / seconds)];
        let mut first: Vec<f64> = seen.iter().flat_map(|seen| seen.first.clone()).collect();
        let mut between: Vec<f64> = seen.iter().flat_map(|seen| seen.between.clone()).collect();
        for percent in [50, 95] {
            let value = percentile(&mut first, percent);
            values.extend(value.map(|it| (Metric::ServeFirstToken { clients, percent }, it)));
        }
        for percent in [50, 95, 99] {
            let value = percentile(&mut between, percent);
            values.extend(value.map(|it| (Metric::ServeBetween { clients, percent }, it)));
        }
        values
    }
}

/// By nearest rank.
fn percentile(values: &mut [f64], percent: u32) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let rank = (last as f64 * f64::from(percent) / 100.0).round_ties_even();
    values.get(rank as usize).copied()
}

/// Reads the events of a reply, and gives the number of its tokens.
fn read(
    mut answer: impl BufRead,
    wire: &Wire<'_>,
    seen: &mut Seen,
    now: impl Fn() -> f64,
) -> Result<u64> {
    let mut line = String::new();
    answer.read_line(&mut line).context("no answer")?;
    if !line.contains(" 200 ") {
        bail!("the server answers `{}`", line.trim());
    }
    let mut latest = None;
    loop {
        line.clear();
        if answer
            .read_line(&mut line)
            .context("a reply does not go on")?
            == 0
        {
            bail!("a reply was broken off");
        }
        let Some(event) = line.strip_prefix("data: ") else {
            continue;
        };
        let event: Value = serde_json::from_str(event).context("an event is no JSON")?;
        if (wire.has_text)(&event) {
            let now = now();
            match latest {
                None => seen.first.push(now),
                Some(latest) => seen.between.push(now - latest),
            }
            latest = Some(now);
        }
        if let Some(tokens) = (wire.tokens)(&event) {
            return Ok(tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    const WIRE: Wire<'static> = Wire {
        path: "/",
        body: &|prompt, tokens| json!([prompt, tokens]),
        tokens: &|event| event["n"].as_u64(),
        has_text: &|event| event["t"].is_string(),
    };

    #[test]
    fn texts_are_timed_and_tokens_counted() {
        let reply = "HTTP/1.1 200 OK\r\n\r\n5\r\ndata: {}\n\ndata: {\"t\":\"a\"}\n\n\
                     data: {\"t\":\"b\"}\n\ndata: {\"t\":\"c\"}\n\ndata: {\"n\":3}\n\n";
        let clock = Cell::new(0.0);
        let now = || {
            clock.set(clock.get() + 1.0);
            clock.get()
        };
        let mut seen = Seen::default();
        assert_eq!(read(reply.as_bytes(), &WIRE, &mut seen, now).unwrap(), 3);
        assert_eq!(
            (&seen.first[..], &seen.between[..]),
            (&[1.0][..], &[1.0, 1.0][..])
        );
        for (answer, part) in [
            ("HTTP/1.1 429 Too Many\r\n", "429"),
            ("HTTP/1.1 200 OK\r\n\r\ndata: {\"t\":\"a\"}\n", "broken off"),
            ("HTTP/1.1 200 OK\r\n\r\ndata: x\n", "no JSON"),
        ] {
            let error = read(answer.as_bytes(), &WIRE, &mut Seen::default(), || 0.0).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut values: Vec<f64> = (0..101).rev().map(f64::from).collect();
        for percent in [50, 95, 99] {
            assert_eq!(percentile(&mut values, percent), Some(f64::from(percent)));
        }
        assert_eq!(percentile(&mut [], 50), None);
        assert_eq!(percentile(&mut [3.0], 99), Some(3.0));
    }
}
