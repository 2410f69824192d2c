//! `tercel tune`: which settings answer fastest on this machine.

mod keep;

use std::ops::ControlFlow;

use serde::Serialize;
use tercel::cores::{Affinity, CoreSet, CoresError, Topology};
use tercel::{Engine, KvType};
use tercel_eval::{BenchOptions, Knob, Measured, Target, bench, core_sets, search};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Line;
use crate::{format, load};
pub(crate) use keep::Kept;

/// Find the settings with which a model answers fastest here, and keep them
///
/// One setting after the other is tried: threads; sets of cores, where the machine has several worth
/// trying (one processor of each core, the fastest cores, each half), with no more threads than they
/// have processors; requests at once, where --requests allows several; then how keys and values are
/// stored, and the winner once more. The best has the most tokens a second among those that keep to
/// --ttft-target-ms; where two are within 1 %, the one whose first token comes earlier. Close other
/// programs first.
///
/// The best threads, cores and type of keys and values are written to your settings for this model,
/// which `tercel run` and `tercel bench` then use. `tercel config show MODEL` shows them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel tune smollm2:135m
  tercel tune smollm2:135m --dry-run
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
    /// Try these processors and sets of them, such as 0-3,6 [default: all that it may use]
    #[arg(long, value_name = "LIST")]
    cores: Option<CoreSet>,
    /// Only tell what would be written
    #[arg(long)]
    dry_run: bool,
    /// Use only what is on this machine
    #[arg(long)]
    offline: bool,
    /// Print one JSON object a line: each trial, the best, then what was written
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Setting {
    threads: usize,
    /// Nothing where the system keeps no process to some cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    cores: Option<CoreSet>,
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
    let machine = Machine::of(args.cores.as_ref())?;
    let start = Setting {
        threads: 1,
        cores: machine.sets.first().cloned(),
        requests: 1,
        kv: KvName::F16,
    };
    let knobs = [
        Knob::Threads,
        Knob::Cores,
        Knob::Batch,
        Knob::Kv,
        Knob::Again,
    ];
    let values = |knob, setting: &Setting| args.values(knob, setting, &machine);
    let measure = |knob, setting: &Setting| {
        machine.keep_to(setting)?;
        let Some(measured) = args.measure(setting, context)? else {
            context.note(&format!("{}: this model cannot", setting.flags()));
            return Ok(None);
        };
        let trial = Trial {
            knob,
            setting: setting.clone(),
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
    machine.release()?;
    let (setting, measured) = &trials[best];
    if context.out.is_json() {
        context.out.json(&Line::Best(&Trial {
            knob: Knob::Again,
            setting: setting.clone(),
            measured: *measured,
        }))?;
    } else {
        show(&trials, best, &target, context)?;
    }
    let is_all = machine.is_all(setting);
    keep::keep(&args.model, setting, is_all, args.dry_run, context)
}

fn show(
    trials: &[(Setting, Measured)],
    best: usize,
    target: &Target,
    context: &Context,
) -> Result<(), Failure> {
    let (setting, measured) = &trials[best];
    let rows: Vec<_> = trials.iter().map(row).collect();
    let header = [
        "THREADS",
        "CORES",
        "REQUESTS",
        "KV",
        "TTFT P90 MS",
        "TOKENS/S",
        "MEMORY",
    ];
    for line in format::table(header, &[0, 2, 4, 5, 6], &rows) {
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

/// What of the machine there is to choose from.
struct Machine {
    affinity: Option<Affinity>,
    /// What to try, all of it first; none where the system keeps no process to some cores.
    sets: Vec<CoreSet>,
}

impl Machine {
    fn of(asked: Option<&CoreSet>) -> Result<Self, Failure> {
        let affinity = match Affinity::of_process() {
            Ok(affinity) => affinity,
            Err(CoresError::Unsupported) if asked.is_none() => {
                return Ok(Self {
                    affinity: None,
                    sets: Vec::new(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let all = asked.unwrap_or(affinity.allowed());
        affinity.keep_to(all)?;
        let sets = core_sets(&Topology::of_machine(), all);
        Ok(Self {
            affinity: Some(affinity),
            sets,
        })
    }

    /// Before an engine is loaded, since its threads have the mask from the one that starts them.
    fn keep_to(&self, setting: &Setting) -> Result<(), Failure> {
        match (&self.affinity, &setting.cores) {
            (Some(affinity), Some(cores)) => Ok(affinity.keep_to(cores)?),
            _ => Ok(()),
        }
    }

    /// Gives back all that the process was started with.
    fn release(&self) -> Result<(), Failure> {
        match &self.affinity {
            Some(affinity) => Ok(affinity.keep_to(affinity.allowed())?),
            None => Ok(()),
        }
    }

    /// Whether a setting uses all that the process was started with.
    fn is_all(&self, setting: &Setting) -> bool {
        let allowed = self.affinity.as_ref().map(Affinity::allowed);
        setting.cores.as_ref() == allowed
    }
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

    fn values(&self, knob: Knob, setting: &Setting, machine: &Machine) -> Vec<Setting> {
        let with = |change: &dyn Fn(&mut Setting)| {
            let mut setting = setting.clone();
            change(&mut setting);
            setting
        };
        match knob {
            Knob::Threads => thread_counts(processors())
                .map(|threads| with(&|setting| setting.threads = threads))
                .collect(),
            Knob::Cores => machine
                .sets
                .iter()
                .map(|cores| {
                    with(&|setting| {
                        setting.threads = setting.threads.min(cores.count());
                        setting.cores = Some(cores.clone());
                    })
                })
                .collect(),
            Knob::Batch => std::iter::successors(Some(1), |n| Some(n * 2))
                .take_while(|n| *n < self.requests)
                .chain([self.requests])
                .map(|requests| with(&|setting| setting.requests = requests))
                .collect(),
            Knob::Kv => [KvName::F16, KvName::Q8_0]
                .map(|kv| with(&|setting| setting.kv = kv))
                .to_vec(),
            _ => vec![setting.clone()],
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
                let flags = "--prompt-tokens and --max-new-tokens";
                return Err(load::explain_context(failure, flags));
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

/// Processors that the process may use now.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
        let cores = self.cores.as_ref();
        let cores = cores.map_or_else(String::new, |cores| format!(" --cores {cores}"));
        let mut flags = format!("--threads {}{cores} --kv {}", self.threads, self.kv.name());
        if self.requests > 1 {
            flags += &format!(", {} requests at once", self.requests);
        }
        flags
    }
}

fn row((setting, measured): &(Setting, Measured)) -> [String; 7] {
    [
        setting.threads.to_string(),
        setting
            .cores
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        setting.requests.to_string(),
        setting.kv.name().to_owned(),
        format!("{:.0}", measured.ttft_p90_ms),
        format!("{:.1}", measured.tokens_per_second),
        format::bytes(measured.memory_bytes),
    ]
}
