//! Callers of an engine: each asks, reads, lags, cancels and leaves as its numbers say.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tercel::{Engine, Error, Event, Reply, Request, StopReason, Stream};

use super::tally::{Count, Tally};
use crate::Problem;
use crate::random::Random;
use crate::subject::words;

/// Tokens of a reply that is known.
const KNOWN_TOKENS: usize = 48;
/// More than the engine runs ahead of a reader, so that one who lags stops it.
const LONG_REPLY: usize = 120;

/// What all callers share.
pub(crate) struct Field<'a> {
    pub(crate) engine: &'a Engine,
    /// Beginnings of prompts, some of which begin like others.
    stems: Vec<Vec<u32>>,
    pub(crate) known: Vec<Known>,
    vocab: u32,
    max_context: usize,
    pub(crate) tally: Tally,
    pub(crate) stop: AtomicBool,
    /// Callers at work.
    pub(crate) running: AtomicUsize,
    /// The longest time from a cancellation to its reply, in microseconds.
    pub(crate) slowest_cancel: AtomicU64,
    pub(crate) failures: Mutex<Vec<String>>,
}

/// A request whose reply was computed while nothing else was.
pub(crate) struct Known {
    request: Request,
    tokens: Vec<u32>,
    prompt: usize,
}

/// What a caller does with its stream.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// No stream: waits for the whole reply.
    Wait,
    Read,
    /// Reads slowly, a pause after each event.
    Lag,
    /// Cancels after so many events and reads to the end.
    CancelAfter(usize),
    /// Drops the stream after so many events.
    LeaveAfter(usize),
    /// Cancels after some time: in the queue, in the prompt, or in the reply.
    CancelIn(Duration),
}

/// A request, and what its reply may be.
struct Asked {
    request: Request,
    known: Option<usize>,
    prompt: usize,
    most: usize,
    has_stop: bool,
    has_limit: bool,
    ignores_end: bool,
}

impl<'a> Field<'a> {
    /// Computes the known replies, one by one.
    pub(crate) fn new(engine: &'a Engine, seed: u64) -> Result<Self, Problem> {
        let info = engine.info();
        let vocab = engine.tokenizer().vocab_size().min(info.model.vocab_size);
        let vocab = u32::try_from(vocab)?;
        let max_context = info.max_context;
        let mut random = Random::new(seed, 0);
        let mut stems: Vec<Vec<u32>> = Vec::new();
        for length in [20, 64, 65, 150, 300, 600] {
            let mut stem = stems.last().cloned().unwrap_or_default();
            stem.truncate(stem.len() * random.between(0, 3) / 2);
            stem.extend(random.tokens(length, vocab));
            stem.truncate(max_context * 3 / 4);
            stems.push(stem);
        }
        let mut known = Vec::new();
        for (i, length) in [12, 40, 1, 90, 180, 350].into_iter().enumerate() {
            let mut prompt = stems[i][..stems[i].len().min(length / 2)].to_vec();
            prompt.extend(random.tokens(length - prompt.len(), vocab));
            let request = Request::tokens(prompt).ignore_eos(true).seed(i as u64);
            let request = if i.is_multiple_of(2) {
                request.temperature(0.0)
            } else {
                request.temperature(0.9).top_p(0.95)
            };
            let reply = engine.generate(request.clone().max_new_tokens(KNOWN_TOKENS))?;
            known.push(Known {
                request,
                tokens: reply.tokens,
                prompt: length,
            });
        }
        Ok(Self {
            engine,
            stems,
            known,
            vocab,
            max_context,
            tally: Tally::default(),
            stop: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            slowest_cancel: AtomicU64::new(0),
            failures: Mutex::default(),
        })
    }

    /// Asks until told to stop, or something fails.
    pub(crate) fn work(&self, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(problem) = self.step(&mut random) {
                self.fail(problem.to_string());
            }
        }
    }

    /// Notes a failure, which ends the run.
    pub(crate) fn fail(&self, problem: String) {
        self.stop.store(true, Ordering::Relaxed);
        if let Ok(mut failures) = self.failures.lock() {
            failures.push(problem);
        }
    }

    /// Asks for a known reply before all others, and compares it.
    pub(crate) fn probe(&self, i: usize) -> Result<(), Problem> {
        let known = &self.known[i % self.known.len()];
        let request = known
            .request
            .clone()
            .max_new_tokens(KNOWN_TOKENS)
            .priority(9);
        let reply = loop {
            match self.engine.generate(request.clone()) {
                Err(Error::QueueFull { .. }) => thread::sleep(Duration::from_millis(5)),
                other => break other?,
            }
        };
        if reply.tokens != known.tokens {
            let (got, want) = (&reply.tokens, &known.tokens);
            return Err(format!("probe {i} gives {got:?}, at the start {want:?}").into());
        }
        self.tally.add(Count::Probes, 1);
        Ok(())
    }

    fn step(&self, random: &mut Random) -> Result<(), Problem> {
        match random.between(0, 100) {
            0..5 => self.score(random),
            5..10 => self.talk(random),
            10..13 => self.flood(random),
            13..15 => self.misuse(random),
            15..17 => self.housekeeping(random),
            _ => self.ask(random),
        }
    }

    fn ask(&self, random: &mut Random) -> Result<(), Problem> {
        let manner = match random.between(0, 10) {
            0 | 1 => Manner::Wait,
            2..5 => Manner::Read,
            5 => Manner::Lag,
            6 => Manner::CancelAfter(random.between(0, 12)),
            7 => Manner::LeaveAfter(random.between(0, 12)),
            _ => Manner::CancelIn(Duration::from_millis(random.between(0, 150) as u64)),
        };
        let mut asked = if random.chance(40) {
            self.known_request(random)
        } else {
            self.new_request(random)
        };
        if matches!(manner, Manner::Lag) && asked.known.is_none() {
            asked.most = LONG_REPLY.min(self.max_context - asked.prompt);
        }
        let request = asked.request.clone().max_new_tokens(asked.most);
        let what = format!(
            "{manner:?}, known {:?}, {} tokens",
            asked.known, asked.prompt
        );
        let reply = match manner {
            Manner::Wait => self.engine.generate(request).map(Some),
            _ => match self.engine.stream(request) {
                Ok(stream) => self.read(stream, manner, random),
                Err(error) => Err(error),
            },
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(Error::QueueFull { .. }) => {
                self.tally.add(Count::QueueFull, 1);
                thread::sleep(Duration::from_millis(random.between(1, 20) as u64));
                return Ok(());
            }
            Err(error) => return Err(format!("{what}: {error}").into()),
        };
        let Some(reply) = reply else {
            self.tally.add(Count::Left, 1);
            return Ok(());
        };
        let cancels = matches!(manner, Manner::CancelAfter(_) | Manner::CancelIn(_));
        let checked = self.check(&asked, &reply, cancels);
        checked.map_err(|problem| format!("{what}: {problem}").into())
    }

    /// Reads as `manner` says; nothing where the reader leaves.
    fn read(
        &self,
        mut stream: Stream,
        manner: Manner,
        random: &mut Random,
    ) -> Result<Option<Reply>, Error> {
        let mut cancelled = None;
        let mut text = String::new();
        let mut events = 0;
        loop {
            match manner {
                Manner::CancelIn(time) if cancelled.is_none() => {
                    thread::sleep(time);
                    stream.cancel();
                    cancelled = Some(Instant::now());
                }
                Manner::CancelAfter(n) if cancelled.is_none() && events >= n => {
                    stream.cancel();
                    cancelled = Some(Instant::now());
                }
                Manner::LeaveAfter(n) if events >= n => return Ok(None),
                Manner::Lag => thread::sleep(Duration::from_millis(random.between(0, 30) as u64)),
                _ => {}
            }
            let event = stream.next().ok_or(Error::EngineClosed)??;
            events += 1;
            match event {
                Event::Delta { text: more, .. } => text.push_str(&more),
                Event::Done(reply) => {
                    if let Some(since) = cancelled {
                        let took = since.elapsed().as_micros() as u64;
                        self.slowest_cancel.fetch_max(took, Ordering::Relaxed);
                    }
                    if text != reply.text {
                        let message = format!("events say `{text}`, the reply `{}`", reply.text);
                        return Err(Error::Internal { message });
                    }
                    return Ok(Some(reply));
                }
                _ => {}
            }
        }
    }

    /// Whether a reply ended for a reason that it had, with the tokens that are known.
    fn check(&self, asked: &Asked, reply: &Reply, cancels: bool) -> Result<(), String> {
        let n = reply.tokens.len();
        let has_reason = match reply.stop_reason {
            StopReason::Eos => !asked.ignores_end,
            StopReason::StopSequence => asked.has_stop && reply.stop_sequence.is_some(),
            StopReason::MaxNewTokens => n == asked.most,
            StopReason::ContextFull => asked.prompt + n >= self.max_context,
            StopReason::Cancelled => cancels,
            StopReason::Timeout => asked.has_limit,
            _ => false,
        };
        if !has_reason || n > asked.most || reply.usage.generated_tokens != n {
            let reason = reply.stop_reason;
            return Err(format!("{n} tokens of {}, ended by {reason}", asked.most));
        }
        if let Some(i) = asked.known {
            let want = &self.known[i].tokens;
            if !want.starts_with(&reply.tokens) {
                return Err(format!("{:?}, at the start {want:?}", reply.tokens));
            }
            self.tally.add(Count::Known, 1);
        }
        self.tally.reply(reply);
        Ok(())
    }

    fn known_request(&self, random: &mut Random) -> Asked {
        let i = random.between(0, self.known.len());
        let known = &self.known[i];
        let most = random.between(1, KNOWN_TOKENS + 1);
        self.asked(known.request.clone(), Some(i), known.prompt, most, random)
    }

    fn new_request(&self, random: &mut Random) -> Asked {
        let longest = self.max_context - 2;
        let length = match random.between(0, 100) {
            0..10 => 1,
            10..50 => random.between(2, 40),
            50..86 => random.between(40, longest / 5),
            86..96 => random.between(longest / 5, longest / 2),
            _ => random.between(longest / 2, longest + 1),
        };
        let mut prompt = Vec::with_capacity(length);
        if random.chance(70) {
            let stem = &self.stems[random.between(0, self.stems.len())];
            let most = stem.len().min(length);
            let shared = if random.chance(50) {
                most
            } else {
                random.between(0, most)
            };
            prompt.extend_from_slice(&stem[..shared]);
        }
        prompt.extend(random.tokens(length - prompt.len(), self.vocab));
        let mut request = Request::tokens(prompt)
            .seed(random.between(0, 1 << 30) as u64)
            .temperature(random.pick(&[0.0, 0.7, 1.3]));
        if random.chance(30) {
            request = request.top_k(random.between(1, 60)).min_p(0.02);
        }
        if random.chance(20) {
            request = request.repetition_penalty(1.2).frequency_penalty(0.3);
        }
        let most = random.between(1, 40).min(self.max_context - length);
        self.asked(request, None, length, most, random)
    }

    /// The terms of a request, which change its end but no token before it.
    fn asked(
        &self,
        mut request: Request,
        known: Option<usize>,
        prompt: usize,
        most: usize,
        random: &mut Random,
    ) -> Asked {
        let has_stop = random.chance(10);
        if has_stop {
            request = request.stop(random.pick(&[" the", "e", "\n\n", "42"]));
        }
        // Where a vocabulary is large enough to write with.
        let is_bound = known.is_none() && self.vocab > 10_000 && random.chance(12);
        if is_bound {
            request = request.regex(random.pick(&["([a-z]+ ){1,9}[a-z]+\\.", "(yes|no)", ".*"]));
        }
        let ignores_end = !is_bound && (known.is_some() || random.chance(50));
        let mut has_limit = false;
        if random.chance(12) {
            has_limit = true;
            let deadline = Duration::from_millis(random.between(10, 1500) as u64);
            request = request.deadline(deadline);
        }
        if random.chance(5) {
            has_limit = true;
            let timeout = Duration::from_millis(random.between(5, 400) as u64);
            request = request.token_timeout(timeout);
        }
        let request = request
            .priority(random.pick(&[-1, 0, 0, 0, 1]))
            .speculation(random.chance(70))
            .ignore_eos(ignores_end);
        Asked {
            request,
            known,
            prompt,
            most,
            has_stop,
            has_limit,
            ignores_end,
        }
    }

    fn score(&self, random: &mut Random) -> Result<(), Problem> {
        let n = random.between(2, 120.min(self.max_context));
        let from = random.between(0, n - 1);
        let tokens = random.tokens(n, self.vocab);
        match self.engine.score(&tokens, from) {
            Ok(scores) if scores.len() == n - 1 - from && scores.iter().all(|it| *it <= 0.0) => {
                self.tally.add(Count::Scores, 1);
                Ok(())
            }
            Ok(scores) => Err(format!("scores of {n} tokens from {from}: {scores:?}").into()),
            Err(Error::QueueFull { .. }) => {
                self.tally.add(Count::QueueFull, 1);
                Ok(())
            }
            Err(error) => Err(format!("scores: {error}").into()),
        }
    }

    /// Two turns of a conversation where the model can have one, or a text.
    fn talk(&self, random: &mut Random) -> Result<(), Problem> {
        let n = random.between(1, 30);
        let said = words(random, n).join(" ");
        let asked = if self.engine.info().has_template {
            let mut chat = self.engine.chat().system("Answer briefly.");
            let mut sampling = chat.current_sampling().clone();
            sampling.max_new_tokens = Some(12);
            sampling.seed = Some(n as u64);
            chat.set_sampling(sampling);
            chat.ask(said).and_then(|_| chat.ask("And then?"))
        } else {
            let request = Request::prompt(said).max_new_tokens(12).seed(n as u64);
            self.engine.generate(request)
        };
        match asked {
            Ok(reply) => {
                self.tally.add(Count::Chats, 1);
                self.tally.reply(&reply);
                Ok(())
            }
            Err(Error::QueueFull { .. }) => {
                self.tally.add(Count::QueueFull, 1);
                Ok(())
            }
            Err(error) => Err(format!("a conversation: {error}").into()),
        }
    }

    /// More requests at once than may wait; most are left before their turn.
    fn flood(&self, random: &mut Random) -> Result<(), Problem> {
        let mut streams = Vec::new();
        for _ in 0..16 {
            let asked = self.known_request(random);
            match self.engine.stream(asked.request.max_new_tokens(4)) {
                Ok(stream) => streams.push(stream),
                Err(Error::QueueFull { .. }) => self.tally.add(Count::QueueFull, 1),
                Err(error) => return Err(format!("a flood: {error}").into()),
            }
        }
        let left = streams.len().saturating_sub(1);
        self.tally.add(Count::Left, left as u64);
        if let Some(stream) = streams.pop() {
            drop(streams);
            let reply = stream.wait()?;
            self.tally.reply(&reply);
        }
        Ok(())
    }

    /// Requests that are refused before anything runs.
    fn misuse(&self, random: &mut Random) -> Result<(), Problem> {
        let long = random.tokens(self.max_context + 1, self.vocab);
        let (request, kind) = random.pick(&[
            (Request::tokens(Vec::new()), "empty_prompt"),
            (Request::tokens(long), "context_overflow"),
            (Request::tokens(vec![u32::MAX]), "invalid_parameter"),
            (Request::prompt("a").temperature(9.0), "invalid_parameter"),
            (Request::chat(Vec::new()), "empty_messages"),
        ]);
        let Err(refused) = self.engine.stream(request) else {
            return Err(format!("what is {kind} was accepted").into());
        };
        // Whether there are messages is looked at before whether there is a template.
        if refused.kind() != kind {
            return Err(format!("what is {kind} was refused with: {refused}").into());
        }
        self.tally.add(Count::Refused, 1);
        Ok(())
    }

    /// Now and then the cache is emptied, or a part of it goes out and comes back.
    fn housekeeping(&self, random: &mut Random) -> Result<(), Problem> {
        if random.chance(25) {
            self.engine.clear_prefixes()?;
            return Ok(());
        }
        let stem = &self.stems[random.between(0, self.stems.len())];
        if let Some(state) = self.engine.export_state(stem)? {
            self.engine.import_state(stem, &state)?;
            self.tally.add(Count::States, 1);
        }
        Ok(())
    }
}
