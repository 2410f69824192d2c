//! How fast a model answers here: stages, percentiles, and what they say.

mod core_sets;
mod diagnosis;
mod percentiles;
mod prompts;
mod tune;

use std::ops::ControlFlow;
use std::thread;
use std::time::Instant;

use serde::Serialize;
use tercel::cores::{self, CoreSet};
use tercel::{Engine, Event, Reply, Request, Stream};

pub use core_sets::core_sets;
pub use diagnosis::{Stages, Suspect, Trace, Verdict, estimate, suspects, verdict};
pub use percentiles::Percentiles;
pub use tune::{Knob, Measured, Target, best, search};

use crate::EvalError;
use prompts::Prompts;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BenchOptions {
    /// Runs before those that count.
    pub warmup: usize,
    /// Runs that count.
    pub runs: usize,
    /// Tokens of a made-up prompt; with [`prompt`](Self::prompt), of no meaning.
    pub prompt_tokens: usize,
    /// A prompt of one's own, which the model's template is put around where it has one.
    #[serde(skip)]
    pub prompt: Option<String>,
    /// Tokens that the engine computed before and holds, to which the prompt is added.
    pub depth: usize,
    /// Tokens of a reply.
    pub max_new_tokens: usize,
    /// Requests at once.
    pub concurrency: usize,
    /// Whether tokens may be guessed ahead. What repeats is guessed well, so it is off unless asked
    /// for.
    pub speculation: bool,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            warmup: 1,
            runs: 20,
            prompt_tokens: 128,
            prompt: None,
            depth: 0,
            max_new_tokens: 64,
            concurrency: 1,
            speculation: false,
        }
    }
}

impl BenchOptions {
    /// Tokens of context that a request takes.
    pub fn context(&self) -> usize {
        self.depth + self.prompt_tokens + self.max_new_tokens
    }

    /// Checks that there is something to measure.
    ///
    /// # Errors
    /// [`EvalError::InvalidOption`] for a number that may not be 0.
    pub fn check(&self) -> Result<(), EvalError> {
        for (field, value) in [
            ("runs", self.runs),
            ("prompt_tokens", self.prompt_tokens),
            ("max_new_tokens", self.max_new_tokens),
            ("concurrency", self.concurrency),
        ] {
            if value == 0 {
                return Err(EvalError::InvalidOption {
                    field,
                    value,
                    range: "at least 1".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// One request of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BenchRun {
    /// The run, from 1; 0 for the first request of all, which is no run.
    pub run: usize,
    /// Which of the requests at once, from 0.
    pub request: usize,
    /// Where its time went.
    #[serde(flatten)]
    pub stages: Stages,
    /// Seconds from the start of the model's work to the first token.
    pub ttft_s: f64,
    /// Seconds from the request to the first token: template, tokenization and waiting counted.
    pub ttft_e2e_s: f64,
    /// Seconds of a token after the first.
    pub tpot_s: f64,
    /// Seconds from the request to its end.
    pub total_s: f64,
    /// Tokens of the prompt, those that were held from before counted.
    pub prompt_tokens: usize,
    /// How many of them were held from before.
    pub cached_tokens: usize,
    /// Tokens of the reply.
    pub out_tokens: usize,
    /// Computed tokens of the prompt a second.
    pub prefill_tokens_per_second: f64,
    /// Tokens after the first a second.
    pub tokens_per_second: f64,
    /// Seconds between tokens, in order.
    #[serde(skip)]
    pub gaps_s: Vec<f64>,
}

/// A measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BenchReport {
    /// The model as it was asked for.
    pub model: String,
    /// This program's version.
    pub version: &'static str,
    /// What computed, such as `cpu-avx2`.
    pub backend: String,
    /// Compute threads.
    pub threads: usize,
    /// The processors that it may use, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<CoreSet>,
    /// What was measured.
    #[serde(flatten)]
    pub options: BenchOptions,
    /// Milliseconds of each stage, in order.
    pub stages_ms: Vec<Stage>,
    /// Milliseconds from the start of the model's work to the first token.
    pub ttft_ms: Percentiles,
    /// Milliseconds from the request to the first token.
    pub ttft_e2e_ms: Percentiles,
    /// Milliseconds of a token after the first, a reply each.
    pub tpot_ms: Percentiles,
    /// Milliseconds between two tokens, each counted by itself. Absent where replies have one token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<Percentiles>,
    /// Milliseconds of a whole request.
    pub total_ms: Percentiles,
    /// Computed tokens of the prompt a second, a request each.
    pub prefill_tokens_per_second: Percentiles,
    /// Tokens after the first a second, a reply each.
    pub tokens_per_second: Percentiles,
    /// Tokens of all requests at once, over the time from the first to the last.
    pub total_tokens_per_second: Percentiles,
    /// Milliseconds to the first token of the very first request, which finds everything cold.
    pub first_request_ttft_ms: f64,
    /// Seconds that loading took, the fetch counted.
    pub load_seconds: f64,
    /// The most memory that this process held, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// What takes much of the time.
    pub suspects: Vec<Suspect>,
    /// What slows a reply as it goes.
    pub verdict: Verdict,
}

/// A stage of all requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Milliseconds.
    #[serde(flatten)]
    pub ms: Percentiles,
}

/// Measures how fast an engine answers. `on_run` sees every request that counts.
///
/// # Errors
/// [`EvalError`] when an option is out of range, the engine refuses a request, or `on_run` breaks.
pub fn bench(
    engine: &Engine,
    options: &BenchOptions,
    mut on_run: impl FnMut(&BenchRun) -> ControlFlow<()>,
) -> Result<BenchReport, EvalError> {
    options.check()?;
    let prompts = Prompts::new(engine, options);
    engine.clear_prefixes()?;
    let first = round(engine, options, &prompts, 0)?;
    let mut rounds = Vec::new();
    for n in 1..=options.warmup + options.runs {
        let Some(run) = n.checked_sub(options.warmup).filter(|run| *run > 0) else {
            round(engine, options, &prompts, n)?;
            continue;
        };
        let mut round = round(engine, options, &prompts, n)?;
        for request in &mut round.requests {
            request.run = run;
            if on_run(request).is_break() {
                return Err(EvalError::Cancelled);
            }
        }
        rounds.push(round);
    }
    Ok(report(engine, options, &first, &rounds))
}

/// Requests that ran at once.
struct Round {
    requests: Vec<BenchRun>,
    /// From the start of the first to the end of the last.
    seconds: f64,
}

fn round(
    engine: &Engine,
    options: &BenchOptions,
    prompts: &Prompts,
    number: usize,
) -> Result<Round, EvalError> {
    match prompts.depth() {
        // What is deep is computed first and stays in the prefix cache.
        Some(depth) => {
            engine.generate(plain(Request::tokens(depth.to_vec()), 1, options))?;
        }
        None => engine.clear_prefixes()?,
    }
    let prompt = |i| prompts.make(engine, number * options.concurrency + i);
    let prompts: Vec<_> = (0..options.concurrency).map(prompt).collect();
    let started = Instant::now();
    let streams = prompts.iter().map(|prompt| {
        let request = prompt.request.clone();
        engine.stream(plain(request, options.max_new_tokens, options))
    });
    let streams: Vec<Stream> = streams.collect::<Result<_, _>>()?;
    let replies: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(move || read(stream)))
            .collect();
        readers
            .into_iter()
            .map(|reader| match reader.join() {
                Ok(reply) => reply,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    let mut requests = Vec::new();
    for (request, (prompt, reply)) in prompts.iter().zip(replies).enumerate() {
        let (reply, gaps_s) = reply?;
        let timings = &reply.timings;
        let stages = Stages {
            format_s: timings.format_seconds,
            tokenize_s: timings.tokenize_seconds + prompt.tokenize_s,
            queue_s: timings.queue_seconds,
            device_transfer_s: 0.0,
            prefill_s: timings.prefill_seconds,
            decode_s: timings.decode_seconds,
            sampling_s: timings.sampling_seconds,
            detokenize_s: timings.detokenize_seconds,
        };
        let waited = timings.format_seconds + timings.tokenize_seconds + timings.queue_seconds;
        let further = reply.usage.generated_tokens.saturating_sub(1).max(1);
        requests.push(BenchRun {
            run: 0,
            request,
            stages,
            ttft_s: timings.time_to_first_token - waited,
            ttft_e2e_s: prompt.tokenize_s + timings.time_to_first_token,
            tpot_s: timings.decode_seconds / further as f64,
            total_s: prompt.tokenize_s + timings.total_seconds,
            prompt_tokens: reply.usage.prompt_tokens,
            cached_tokens: reply.usage.cached_tokens,
            out_tokens: reply.usage.generated_tokens,
            prefill_tokens_per_second: timings.prefill_tokens_per_second(),
            tokens_per_second: timings.tokens_per_second(),
            gaps_s,
        });
    }
    Ok(Round { requests, seconds })
}

/// A request whose reply has as many tokens as it may.
fn plain(request: Request, max_new_tokens: usize, options: &BenchOptions) -> Request {
    request
        .max_new_tokens(max_new_tokens)
        .temperature(0.0)
        .ignore_eos(true)
        .speculation(options.speculation)
}

/// Reads a reply as it comes, and the seconds between its tokens.
fn read(stream: Stream) -> Result<(Reply, Vec<f64>), tercel::Error> {
    let mut gaps = Vec::new();
    let mut last: Option<(Instant, usize)> = None;
    for event in stream {
        match event? {
            Event::Delta { token_index, .. } | Event::Thinking { token_index, .. } => {
                let now = Instant::now();
                if let Some((before, index)) = last
                    && token_index > index
                {
                    // Some tokens complete no character.
                    let tokens = token_index - index;
                    let gap = (now - before).as_secs_f64() / tokens as f64;
                    gaps.extend(std::iter::repeat_n(gap, tokens));
                }
                last = Some((now, token_index));
            }
            Event::Done(reply) => return Ok((reply, gaps)),
            _ => {}
        }
    }
    Err(tercel::Error::Internal {
        message: "a stream ended without a reply".to_owned(),
    })
}

fn report(engine: &Engine, options: &BenchOptions, first: &Round, rounds: &[Round]) -> BenchReport {
    let info = engine.info();
    let requests = || rounds.iter().flat_map(|round| &round.requests);
    let of = |value: &dyn Fn(&BenchRun) -> f64| {
        Percentiles::of(requests().map(value)).unwrap_or_default()
    };
    let ms = |value: &dyn Fn(&BenchRun) -> f64| of(&|run| value(run) * 1e3);
    let names = Stages::default().named();
    let stages_ms = names.iter().enumerate().map(|(i, (name, _))| Stage {
        name,
        ms: ms(&|run| run.stages.named()[i].1),
    });
    let gaps = requests().flat_map(|run| &run.gaps_s);
    let all = rounds.iter().map(|round| {
        let tokens: usize = round.requests.iter().map(|run| run.out_tokens).sum();
        tokens as f64 / round.seconds
    });
    let (ttft_ms, tpot_ms) = (ms(&|run| run.ttft_s), ms(&|run| run.tpot_s));
    let median = requests().nth(requests().count() / 2);
    let first_ttft_s = first.requests.first().map_or(0.0, |run| run.ttft_s);
    let trace = median.map_or_else(Trace::default, |run| Trace {
        // A long prompt takes its time whenever it comes; a cold start takes more.
        first_token_s: (first_ttft_s - run.ttft_s).max(0.0),
        gaps_s: run.gaps_s.clone(),
        ..Trace::default()
    });
    let stages = median.map(|run| run.stages).unwrap_or_default();
    let tokens = median.map_or(0, |run| run.out_tokens);
    BenchReport {
        model: info.id.clone(),
        version: env!("CARGO_PKG_VERSION"),
        backend: info.backend.clone(),
        threads: info.threads,
        cores: cores::of_process(),
        stages_ms: stages_ms.collect(),
        ttft_ms,
        ttft_e2e_ms: ms(&|run| run.ttft_e2e_s),
        tpot_ms,
        gap_ms: Percentiles::of(gaps.map(|gap| gap * 1e3)),
        total_ms: ms(&|run| run.total_s),
        prefill_tokens_per_second: of(&|run| run.prefill_tokens_per_second),
        tokens_per_second: of(&|run| run.tokens_per_second),
        total_tokens_per_second: Percentiles::of(all).unwrap_or_default(),
        first_request_ttft_ms: first_ttft_s * 1e3,
        load_seconds: info.load_seconds,
        peak_rss_bytes: tercel::memory::measure().map(|memory| memory.peak_rss_bytes),
        suspects: suspects(&stages, ttft_ms.p50 / 1e3, tpot_ms.p50 / 1e3, tokens),
        verdict: verdict(&trace),
        options: options.clone(),
    }
}
