//! `tercel tune`: which settings answer fastest on this machine.

use std::ops::ControlFlow;

use serde::Serialize;
use tercel::{Engine, KvType};
use tercel_eval::{BenchOptions, Knob, Measured, Target, bench, search};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Line;
use crate::{format, load};

/// Find the settings with which a model answers fastest here
///
/// One setting after the other is tried: threads, requests at once where --requests allows several,
/// then how keys and values are stored, and the winner once more. The best has the most tokens a
/// second among those that keep to --ttft-target-ms; where two are within 1 %, the one whose first
/// token comes earlier. Close other programs first.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel tune smollm2:135m
  tercel tune smollm2:135m --requests 8 --ttft-target-ms 500
  tercel tune model.gguf --prompt-tokens 1024 --json")]
pub(crate) struct Args {
    /// A catalog name, a GGUF file, or hf:org/repo
    #[arg(default_value = "smollm2:135m")]
    model: String,
    /// The most requests at once to try, at least 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    requests: usize,
    /// Milliseconds in which 90 % of the requests must have their first token
    #[arg(long, value_name = "MS")]
    ttft_target_ms: Option<f64>,
    /// Tokens of a prompt, at least 1
    #[arg(long, value_name = "N", default_value_t = 256)]
    prompt_tokens: usize,
    /// Tokens of a reply, at least 1
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Runs of a trial, at least 1
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Use only what is on this machine
    #[arg(long)]
    offline: bool,
    /// Print one JSON object a line: each trial, then the best
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Setting {
    threads: usize,
    requests: usize,
    kv: KvName,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum KvName {
    F16,
    #[serde(rename = "q8_0")]
    Q8_0,
}

impl KvName {
    fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }

    fn kv_type(self) -> KvType {
        match self {
            Self::F16 => KvType::F16,
            Self::Q8_0 => KvType::Q8_0,
        }
    }
}

/// A trial, as `--json` prints it.
#[derive(Serialize)]
pub(crate) struct Trial {
    knob: Knob,
    #[serde(flatten)]
    setting: Setting,
    #[serde(flatten)]
    measured: Measured,
}

/// More requests at once are a server's, and tried there.
const MOST_REQUESTS: usize = 64;

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    args.check()?;
    let mut target = Target::default();
    target.ttft_p90_ms = args.ttft_target_ms;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let start = Setting {
        threads: 1,
        requests: 1,
        kv: KvName::F16,
    };
    let knobs = [Knob::Threads, Knob::Batch, Knob::Kv, Knob::Again];
    let values = |knob, setting: &Setting| args.values(knob, setting, cores);
    let measure = |knob, setting: &Setting| {
        let Some(measured) = args.measure(setting, context)? else {
            context.note(&format!("{}: this model cannot", setting.flags()));
            return Ok(None);
        };
        let trial = Trial {
            knob,
            setting: *setting,
            measured,
        };
        if context.out.is_json() {
            context.out.json(&Line::Trial(&trial))?;
        } else {
            context.note(&format!(
                "{}: first token {:.0} ms, {:.1} tokens/s",
                setting.flags(),
                measured.ttft_p90_ms,
                measured.tokens_per_second
            ));
        }
        Ok::<_, Failure>(Some(measured))
    };
    let (trials, best) = search(start, &knobs, &target, values, measure)?;
    let (setting, measured) = trials[best];
    if context.out.is_json() {
        return context.out.json(&Line::Best(&Trial {
            knob: Knob::Again,
            setting,
            measured,
        }));
    }
    let rows: Vec<_> = trials.iter().map(row).collect();
    let header = [
        "THREADS",
        "REQUESTS",
        "KV",
        "TTFT P90 MS",
        "TOKENS/S",
        "MEMORY",
    ];
    for line in format::table(header, &[0, 1, 3, 4, 5], &rows) {
        context.out.line(&line)?;
    }
    context.out.line("")?;
    if let Some(most) = target
        .ttft_p90_ms
        .filter(|most| measured.ttft_p90_ms > *most)
    {
        context.note(&format!("nothing keeps to a first token after {most} ms"));
    }
    context.out.line(&format!("best: {}", setting.flags()))
}

impl Args {
    fn check(&self) -> Result<(), Failure> {
        self.options(1).check()?;
        if !(1..=MOST_REQUESTS).contains(&self.requests) {
            let requests = self.requests;
            let problem = format!("`requests` is {requests}, must be 1 to {MOST_REQUESTS}");
            return Err(Failure::new("invalid_parameter", problem));
        }
        match self.ttft_target_ms {
            Some(most) if most.is_nan() || most <= 0.0 => {
                let problem = format!("`ttft_target_ms` is {most}, must be above 0");
                Err(Failure::new("invalid_parameter", problem))
            }
            _ => Ok(()),
        }
    }

    fn options(&self, requests: usize) -> BenchOptions {
        let mut options = BenchOptions::default();
        options.warmup = 1;
        options.runs = self.runs;
        options.prompt_tokens = self.prompt_tokens;
        options.max_new_tokens = self.max_new_tokens;
        options.concurrency = requests;
        options
    }

    fn values(&self, knob: Knob, setting: &Setting, cores: usize) -> Vec<Setting> {
        let with = |change: &dyn Fn(&mut Setting)| {
            let mut setting = *setting;
            change(&mut setting);
            setting
        };
        match knob {
            Knob::Threads => thread_counts(cores)
                .map(|threads| with(&|setting| setting.threads = threads))
                .collect(),
            Knob::Batch => std::iter::successors(Some(1), |n| Some(n * 2))
                .take_while(|n| *n < self.requests)
                .chain([self.requests])
                .map(|requests| with(&|setting| setting.requests = requests))
                .collect(),
            Knob::Kv => [KvName::F16, KvName::Q8_0]
                .map(|kv| with(&|setting| setting.kv = kv))
                .to_vec(),
            _ => vec![*setting],
        }
    }

    fn measure(&self, setting: &Setting, context: &Context) -> Result<Option<Measured>, Failure> {
        let options = self.options(setting.requests);
        let builder = Engine::builder(&self.model)
            .max_context(options.context())
            .max_sequences(setting.requests)
            .threads(setting.threads)
            .kv_type(setting.kv.kv_type())
            .offline(self.offline);
        let engine = match load::engine(builder, &self.model, context) {
            Ok(engine) => engine,
            Err(failure) if failure.kind() == Some("unsupported_kv_type") => return Ok(None),
            Err(failure) => {
                let hint = "that is --prompt-tokens and --max-new-tokens together";
                return Err(failure.with_hint_for("max_context", hint));
            }
        };
        let report = bench(&engine, &options, |_| {
            if context.interrupt.is_hit() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        let memory = engine.info().memory.total_bytes as u64;
        let ttft = report.ttft_e2e_ms.p90;
        let rate = report.total_tokens_per_second.p50;
        Ok(Some(Measured::new(ttft, rate, memory)))
    }
}

/// Numbers of threads worth trying below all cores, each a third to a half more than the last from
/// two on, and all of them.
fn thread_counts(cores: usize) -> impl Iterator<Item = usize> {
    let some = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
    some.into_iter()
        .filter(move |n| *n < cores)
        .chain([cores.min(64)])
}

impl Setting {
    /// As flags of `tercel run`, and what has none.
    fn flags(&self) -> String {
        let mut flags = format!("--threads {} --kv {}", self.threads, self.kv.name());
        if self.requests > 1 {
            flags += &format!(", {} requests at once", self.requests);
        }
        flags
    }
}

fn row((setting, measured): &(Setting, Measured)) -> [String; 6] {
    [
        setting.threads.to_string(),
        setting.requests.to_string(),
        setting.kv.name().to_owned(),
        format!("{:.0}", measured.ttft_p90_ms),
        format!("{:.1}", measured.tokens_per_second),
        format::bytes(measured.memory_bytes),
    ]
}
