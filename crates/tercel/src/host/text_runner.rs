//! A runner with the verbs of ExecuTorch's `TextLLMRunner`: one context that grows from call to
//! call, until it is reset.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::generation_config::GenerationConfig;
use super::lease::Lease;
use super::{Host, HostError};
use crate::TokenId;
use crate::error::Error;
use crate::pipe::CancelHandle;
use crate::reply::{Event, Reply, StopReason};
use crate::request::Request;

/// What a run took; times are milliseconds, those of an event since 1970. What did not happen is 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(non_snake_case, reason = "the name is that of the JSON key")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of ExecuTorch's report")]
pub struct RunnerStats {
    pub prefill_token_per_sec: f64,
    pub decode_token_per_sec: f64,
    pub prompt_tokens: usize,
    /// The token that the prefill gives is counted.
    pub generated_tokens: usize,
    pub model_load_start_ms: u64,
    pub model_load_end_ms: u64,
    pub inference_start_ms: u64,
    pub inference_end_ms: u64,
    pub model_execution_start_ms: u64,
    pub model_execution_end_ms: u64,
    pub prompt_eval_end_ms: u64,
    pub first_token_ms: u64,
    /// Not told apart from the execution.
    pub aggregate_sampling_time_ms: u64,
    pub aggregate_model_execution_time_ms: u64,
    /// Without a GPU, 0, as are the four below.
    pub gpu_total_bytes: u64,
    pub gpu_free_before_load_bytes: u64,
    pub gpu_free_after_load_bytes: u64,
    pub gpu_free_after_generate_bytes: u64,
    pub gpu_peak_usage_mb: f64,
    pub SCALING_FACTOR_UNITS_PER_SECOND: u64,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// The model cannot be had.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The engine refused, or failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl RunnerError {
    /// A stable code in snake case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host(error) => error.kind(),
            Self::Engine(error) => error.kind(),
        }
    }
}

/// A model of a host, with one context that grows from call to call. (Where the SDK says
/// `TextLLMRunner`, this is meant too.)
///
/// What the context holds is computed once where the engine still has it, and anew where not; the
/// result is the same.
pub struct TextRunner {
    host: Host,
    name: String,
    context: Mutex<Context>,
    running: Mutex<Option<CancelHandle>>,
}

#[derive(Default)]
struct Context {
    tokens: Vec<TokenId>,
    /// When the model was loaded for this runner.
    load: Option<(Duration, Duration)>,
}

impl TextRunner {
    /// A runner of the model `name`; nothing is loaded yet.
    pub fn new(host: Host, name: impl Into<String>) -> Self {
        Self {
            host,
            name: name.into(),
            context: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// Whether the model is loaded.
    pub fn is_loaded(&self) -> bool {
        self.host.is_loaded(&self.name)
    }

    /// Loads the model, unless it is.
    ///
    /// # Errors
    /// Those of [`Host::get`].
    pub fn load(&self) -> Result<(), RunnerError> {
        self.lease(&mut self.lock()).map(drop)
    }

    /// Tokens that the context holds.
    pub fn position(&self) -> usize {
        self.lock().tokens.len()
    }

    /// Continues the context and `prompt`, which may be empty where the context is not. Loads the
    /// model where that has not been done. Gives why it ended.
    ///
    /// # Errors
    /// [`RunnerError::Host`] where the model cannot be had; [`Error::InvalidParameter`] for a
    /// temperature out of range, [`Error::EmptyPrompt`], [`Error::ContextOverflow`], or a failure
    /// of the computation. The context stays as it was.
    pub fn generate(
        &self,
        prompt: &str,
        config: &GenerationConfig,
        mut on_token: impl FnMut(&str),
        on_stats: impl FnOnce(&RunnerStats),
    ) -> Result<StopReason, RunnerError> {
        let (end, stats) = self.extend(&mut self.lock(), prompt, config, &mut on_token)?;
        if let Some(stats) = stats.filter(|_| !config.warming) {
            on_stats(&stats);
        }
        Ok(end)
    }

    /// Puts `text` into the context, and gives the token that is most likely to follow. It is not
    /// part of the context.
    ///
    /// # Errors
    /// Those of [`TextRunner::generate`].
    pub fn prefill(&self, text: &str, num_bos: u8, num_eos: u8) -> Result<TokenId, RunnerError> {
        let mut context = self.lock();
        let lease = self.lease(&mut context)?;
        let mut tokens = context.tokens.clone();
        tokens.extend(encode(&lease, text, num_bos, num_eos)?);
        let request = Request::tokens(tokens.clone())
            .max_new_tokens(1)
            .temperature(0.0);
        let reply = self.run(&lease, request, &mut |_| {})?;
        let next = reply.tokens.first().copied().ok_or(Error::Cancelled)?;
        context.tokens = tokens;
        Ok(next)
    }

    /// Generates without showing or keeping anything.
    ///
    /// # Errors
    /// Those of [`TextRunner::generate`].
    pub fn warmup(&self, prompt: &str, max_new_tokens: u32) -> Result<(), RunnerError> {
        let mut context = self.lock();
        let before = context.tokens.clone();
        let config = GenerationConfig {
            warming: true,
            max_new_tokens: max_new_tokens.into(),
            ..GenerationConfig::default()
        };
        let result = self.extend(&mut context, prompt, &config, &mut |_| {});
        context.tokens = before;
        result.map(drop)
    }

    /// Ends what runs, after the next token at the latest. The context keeps what was generated.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*running {
            running.cancel();
        }
    }

    /// Empties the context. Waits for what runs, so it is not for a callback.
    pub fn reset(&self) {
        self.lock().tokens.clear();
    }

    /// The draws are those of ExecuTorch's sampler: a temperature, a fixed top-p, nothing else.
    fn extend(
        &self,
        context: &mut Context,
        prompt: &str,
        config: &GenerationConfig,
        on_token: &mut dyn FnMut(&str),
    ) -> Result<(StopReason, Option<RunnerStats>), RunnerError> {
        if !(0.0..=1.0).contains(&config.temperature) {
            let value = config.temperature.to_string();
            return Err(Error::invalid_parameter("temperature", value, "0 to 1").into());
        }
        let lease = self.lease(context)?;
        let mut tokens = context.tokens.clone();
        tokens.extend(encode(&lease, prompt, config.num_bos, config.num_eos)?);
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt.into());
        }
        let max_context = lease.info().max_context;
        let most = config.resolve_max_new_tokens(max_context, tokens.len());
        let (prompt_tokens, wants_some) = (tokens.len(), config.max_new_tokens != 0);
        if most == 0 && wants_some {
            return Err(Error::ContextOverflow {
                prompt_tokens,
                max_context,
            }
            .into());
        }
        if config.echo && !config.warming && !prompt.is_empty() {
            on_token(prompt);
        }
        if most == 0 {
            context.tokens = tokens;
            return Ok((StopReason::MaxNewTokens, None));
        }
        let mut request = Request::tokens(tokens.clone())
            .max_new_tokens(most)
            .temperature(config.temperature)
            .top_k(0)
            .top_p(0.9)
            .min_p(0.0)
            .repetition_penalty(1.0)
            .presence_penalty(0.0)
            .frequency_penalty(0.0)
            .ignore_eos(config.ignore_eos);
        if let Some(seed) = config.seed {
            request = request.seed(seed);
        }
        if let Some(grammar) = config.grammar()? {
            request = request.constrained(grammar);
        }
        let started = since_1970();
        let reply = self.run(&lease, request, &mut |text| {
            if !config.warming {
                on_token(text);
            }
        })?;
        tokens.extend(&reply.tokens);
        context.tokens = tokens;
        let stats = stats(&reply, started, context.load);
        Ok((reply.stop_reason, Some(stats)))
    }

    fn run(
        &self,
        lease: &Lease,
        request: Request,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Reply, RunnerError> {
        let mut stream = lease.stream(request)?;
        self.set_running(Some(stream.cancel_handle()));
        let mut result = Err(Error::EngineClosed.into());
        for event in stream.by_ref() {
            match event {
                Ok(Event::Delta { text, .. }) => on_text(&text),
                Ok(Event::Done(reply)) => result = Ok(reply),
                // Nothing of a thought, and a runner has no tools.
                Ok(_) => {}
                Err(error) => result = Err(error.into()),
            }
        }
        self.set_running(None);
        result
    }

    fn lease(&self, context: &mut Context) -> Result<Lease, RunnerError> {
        let is_new = !self.is_loaded();
        let started = since_1970();
        let lease = self.host.get(&self.name)?;
        if is_new {
            context.load = Some((started, since_1970()));
        }
        Ok(lease)
    }

    fn set_running(&self, running: Option<CancelHandle>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }

    fn lock(&self) -> MutexGuard<'_, Context> {
        self.context.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TextRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextRunner")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A text between begin and end tokens.
fn encode(lease: &Lease, text: &str, num_bos: u8, num_eos: u8) -> Result<Vec<TokenId>, Error> {
    let tokenizer = lease.tokenizer();
    let marks = |field, number: u8, mark: Option<TokenId>| match mark {
        Some(mark) => Ok(vec![mark; number.into()]),
        None if number == 0 => Ok(Vec::new()),
        None => Err(Error::invalid_parameter(
            field,
            number.to_string(),
            "0, for the model has no such token",
        )),
    };
    let mut tokens = marks("num_bos", num_bos, tokenizer.bos())?;
    tokens.extend(tokenizer.encode(text));
    tokens.extend(marks("num_eos", num_eos, tokenizer.eos())?);
    Ok(tokens)
}

fn stats(reply: &Reply, started: Duration, load: Option<(Duration, Duration)>) -> RunnerStats {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let at = |seconds: f64| {
        let after = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        milliseconds(started.saturating_add(after))
    };
    let timings = &reply.timings;
    let (load_start, load_end) = load.unwrap_or_default();
    let executed = timings.prefill_seconds + timings.decode_seconds;
    RunnerStats {
        prefill_token_per_sec: timings.prefill_tokens_per_second(),
        decode_token_per_sec: timings.tokens_per_second(),
        prompt_tokens: reply.usage.prompt_tokens,
        generated_tokens: reply.usage.generated_tokens,
        model_load_start_ms: milliseconds(load_start),
        model_load_end_ms: milliseconds(load_end),
        inference_start_ms: milliseconds(started),
        inference_end_ms: at(timings.total_seconds),
        model_execution_start_ms: at(timings.start()),
        model_execution_end_ms: at(timings.start() + executed),
        prompt_eval_end_ms: at(timings.start() + timings.prefill_seconds),
        first_token_ms: at(timings.time_to_first_token),
        aggregate_sampling_time_ms: (timings.sampling_seconds * 1e3) as u64,
        aggregate_model_execution_time_ms: (executed * 1e3) as u64,
        SCALING_FACTOR_UNITS_PER_SECOND: 1000,
        ..RunnerStats::default()
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ModelSpec;
    use crate::testing::{END, chaotic, engine, says};

    fn runner(spec: ModelSpec) -> TextRunner {
        let host = Host::builder().model("m", spec).build().expect("a host");
        TextRunner::new(host, "m")
    }

    fn greedy() -> GenerationConfig {
        GenerationConfig {
            temperature: 0.0,
            max_new_tokens: 5,
            ..GenerationConfig::default()
        }
    }

    #[test]
    fn the_most_new_tokens_follow_the_rule() {
        for (seq_len, max_new_tokens, occupied, expected) in [
            (-1, -1, 0, 100),
            (-1, -1, 30, 70),
            (50, -1, 30, 20),
            (500, -1, 30, 70),
            (50, 10, 30, 10),
            (50, 40, 30, 20),
            (50, -1, 60, 0),
            (-1, 5, 100, 0),
            (-1, 0, 1, 0),
            (0, 5, 0, 0),
        ] {
            let config = GenerationConfig {
                seq_len,
                max_new_tokens,
                ..GenerationConfig::default()
            };
            let most = config.resolve_max_new_tokens(100, occupied);
            assert_eq!(most, expected, "{config:?}, {occupied}");
        }
        let json = serde_json::to_value(GenerationConfig::default()).expect("serializes");
        assert_eq!(
            json,
            serde_json::json!({
                "echo": true, "ignore_eos": false, "max_new_tokens": -1, "warming": false,
                "seq_len": -1, "temperature": 0.8_f32, "num_bos": 0,
                "num_eos": 0, "seed": null, "grammar": "", "grammar_type": "json_schema",
            })
        );
    }

    #[test]
    fn the_context_grows_until_it_is_reset() {
        let runner = runner(ModelSpec::made_by(|| engine(200, chaotic).0));
        assert!(!runner.is_loaded());
        let mut shown = Vec::new();
        let end = runner.generate("abc", &greedy(), |text| shown.push(text.to_owned()), |_| {});
        assert_eq!(end.expect("it ends"), StopReason::MaxNewTokens);
        assert!(runner.is_loaded());
        assert_eq!(
            (shown[0].as_str(), shown.len()),
            ("abc", 6),
            "the prompt comes first"
        );
        assert_eq!(runner.position(), 8);
        let quiet = GenerationConfig {
            echo: false,
            ..greedy()
        };
        let mut whole = shown.concat();
        let end = runner.generate("", &quiet, |text| whole.push_str(text), |_| {});
        end.expect("an empty prompt continues the context");
        assert_eq!(runner.position(), 13);

        // In one go it is the same.
        runner.reset();
        assert_eq!(runner.position(), 0);
        let config = GenerationConfig {
            max_new_tokens: 10,
            ..greedy()
        };
        let mut again = String::new();
        let end = runner.generate("abc", &config, |text| again.push_str(text), |_| {});
        end.expect("it ends");
        assert_eq!(whole, again);
    }

    #[test]
    fn a_prefill_tells_the_next_token_and_a_warm_up_leaves_nothing() {
        let runner = runner(ModelSpec::made_by(|| engine(200, says(5, "yes")).0));
        runner.warmup("abcde", 3).expect("warm");
        assert_eq!(runner.position(), 0);
        let error = runner
            .generate("", &greedy(), |_| {}, |_| {})
            .expect_err("nothing there");
        assert_eq!(error.kind(), "empty_prompt");
        let next = runner.prefill("abc", 0, 2).expect("a token");
        assert_eq!((next, runner.position()), (u32::from(b'y'), 5));
        let mut text = String::new();
        let mut ended = None;
        let end = runner.generate(
            "",
            &greedy(),
            |it| text.push_str(it),
            |it| ended = Some(it.clone()),
        );
        assert_eq!(
            (end.expect("it ends"), text.as_str()),
            (StopReason::Eos, "yes")
        );
        let stats = ended.expect("told");
        assert_eq!((stats.prompt_tokens, stats.generated_tokens), (5, 4));
        assert!(stats.inference_start_ms <= stats.first_token_ms);
        assert!(stats.first_token_ms <= stats.inference_end_ms && stats.model_load_start_ms > 0);
        let error = runner.prefill("x", 1, 0).expect_err("no begin token");
        assert!(error.to_string().contains("`num_bos` is 1"), "{error}");
        assert_eq!(runner.lock().tokens.last(), Some(&END));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_context_stays() {
        let runner = runner(ModelSpec::made_by(|| engine(60, chaotic).0));
        let fails = |prompt: &str, config: GenerationConfig| {
            runner
                .generate(prompt, &config, |_| {}, |_| {})
                .expect_err("refused")
                .kind()
        };
        runner.prefill("abc", 0, 0).expect("a token");
        assert_eq!(fails(&"x".repeat(57), greedy()), "context_overflow");
        for temperature in [-0.1, 1.1, f32::NAN] {
            let config = GenerationConfig {
                temperature,
                ..greedy()
            };
            assert_eq!(fails("x", config), "invalid_parameter");
        }
        assert_eq!(runner.position(), 3);
        let config = GenerationConfig {
            max_new_tokens: -1,
            ..greedy()
        };
        let end = runner
            .generate("", &config, |_| {}, |_| {})
            .expect("it ends");
        assert_eq!(end, StopReason::MaxNewTokens);
        assert_eq!(runner.position(), 60, "the context is full");
    }

    #[test]
    fn it_stops_at_a_token_when_asked() {
        let runner = runner(ModelSpec::made_by(|| engine(900, chaotic).0));
        let config = GenerationConfig {
            max_new_tokens: 800,
            echo: false,
            ..greedy()
        };
        let mut count = 0;
        let stop_at_three = |_: &str| {
            count += 1;
            if count == 3 {
                runner.stop();
            }
        };
        let end = runner
            .generate("abc", &config, stop_at_three, |_| {})
            .expect("it ends");
        assert_eq!(end, StopReason::Cancelled);
        assert!((6..800).contains(&runner.position()));
        runner.stop();
        assert_eq!(
            runner
                .prefill("go", 0, 0)
                .map(|_| ())
                .map_err(|it| it.kind()),
            Ok(())
        );
    }

    #[test]
    fn the_report_has_the_keys_of_the_sdk() {
        let json = serde_json::to_value(RunnerStats::default()).expect("serializes");
        let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
        let expected = "prefill_token_per_sec decode_token_per_sec prompt_tokens generated_tokens \
            model_load_start_ms model_load_end_ms inference_start_ms inference_end_ms \
            model_execution_start_ms model_execution_end_ms prompt_eval_end_ms first_token_ms \
            aggregate_sampling_time_ms aggregate_model_execution_time_ms gpu_total_bytes \
            gpu_free_before_load_bytes gpu_free_after_load_bytes gpu_free_after_generate_bytes \
            gpu_peak_usage_mb SCALING_FACTOR_UNITS_PER_SECOND";
        assert_eq!(keys, expected.split_whitespace().collect::<Vec<_>>());
    }
}
