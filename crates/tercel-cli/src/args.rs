//! Options that commands share.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use tercel::cores::{Affinity, CoreSet};
use tercel::memory::KvDtype;
use tercel::{ContextOverflow, EngineBuilder, KvType, Sampling, Thinking};

use crate::config::Settings;
use crate::failure::Failure;

/// How a reply is made. Ranges are checked by the engine, so that they are the same
/// wherever a value comes from.
#[derive(Args, Debug)]
#[command(next_help_heading = "Reply")]
pub(crate) struct SamplingArgs {
    /// The most tokens to generate, at least 1 [default: 512]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// How freely tokens are drawn, 0 (always the most likely) to 2 [default: 0.7]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Draw among the K most likely tokens; 0 is off [default: 20]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw among the most likely tokens that together reach probability P, above 0 to 1; 1 is off
    /// [default: 0.9]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Draw among tokens at least P times as likely as the most likely one, 0 (off) to below 1
    /// [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Make recent tokens less likely, above 0 to 2; 1 is off [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// How many of the latest tokens the three penalties look at, at least 1 [default: 64]
    #[arg(long, value_name = "N")]
    repetition_window: Option<usize>,
    /// Lower the score of every recent token, -2 to 2; 0 is off [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Lower the score of a recent token once per occurrence, -2 to 2; 0 is off [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// The same seed, prompt and options give the same text [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the reply before TEXT; may be given up to 16 times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on after an end token, for measurements
    #[arg(long)]
    ignore_eos: bool,
    /// Whether the model thinks before it answers; auto leaves it to the model's template
    /// [default: auto]
    #[arg(
        long,
        value_name = "MODE",
        value_parser = PossibleValuesParser::new(["auto", "off", "on"])
            .try_map(|mode| mode.parse::<Thinking>()),
    )]
    thinking: Option<Thinking>,
    /// End a thought after N tokens, at least 1, and go on with the answer [default: no limit but
    /// that of the reply]
    #[arg(long, value_name = "N")]
    max_thinking_tokens: Option<usize>,
    /// End a thought early enough to leave N tokens to the answer; 0 is off [default: 0]
    #[arg(long, value_name = "N")]
    min_answer_tokens: Option<usize>,
    /// What becomes of a prompt that is too long for the context: error, drop_oldest_turns,
    /// sliding_window or truncate_middle [default: error]
    #[arg(
        long,
        value_name = "POLICY",
        value_parser = PossibleValuesParser::new(POLICIES)
            .try_map(|name| name.parse::<ContextOverflow>()),
    )]
    context_overflow: Option<ContextOverflow>,
    /// Tokens of the context that a prompt leaves to the reply, at least 1 [default: 1 where an
    /// overflow is an error, else those of the reply, at most a quarter of the context]
    #[arg(long, value_name = "N")]
    reserve_tokens: Option<usize>,
    /// First tokens that stay where a sliding window cuts [default: 4]
    #[arg(long, value_name = "N")]
    keep_first_tokens: Option<usize>,
}

const POLICIES: [&str; 4] = [
    "error",
    "drop_oldest_turns",
    "sliding_window",
    "truncate_middle",
];

impl SamplingArgs {
    /// The values that were given.
    pub(crate) fn sampling(&self) -> Sampling {
        let mut sampling = Sampling::default();
        sampling.max_new_tokens = self.max_new_tokens;
        sampling.temperature = self.temperature;
        sampling.top_k = self.top_k;
        sampling.top_p = self.top_p;
        sampling.min_p = self.min_p;
        sampling.repetition_penalty = self.repetition_penalty;
        sampling.repetition_window = self.repetition_window;
        sampling.presence_penalty = self.presence_penalty;
        sampling.frequency_penalty = self.frequency_penalty;
        sampling.seed = self.seed;
        sampling.stop.clone_from(&self.stop);
        sampling.ignore_eos = self.ignore_eos.then_some(true);
        sampling.thinking = self.thinking;
        sampling.max_thinking_tokens = self.max_thinking_tokens;
        sampling.min_answer_tokens = self.min_answer_tokens;
        sampling.context_overflow = self.context_overflow;
        sampling.reserve_tokens = self.reserve_tokens;
        sampling.keep_first_tokens = self.keep_first_tokens;
        sampling
    }
}

/// How a model is loaded.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Compute threads; the text does not depend on their number [default: physical cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Keep the whole process to these processors, such as 0-3,6 [default: all that it may use]
    #[arg(long, value_name = "LIST")]
    cores: Option<CoreSet>,
    /// Use only what is on this machine
    #[arg(long)]
    offline: bool,
    /// How keys and values are stored: f16, or q8_0 for about half the memory [default: f16]
    #[arg(
        long,
        value_name = "TYPE",
        value_parser = PossibleValuesParser::new(KV_TYPES.map(|(name, _)| name))
            .map(|name| kv_type(&name).unwrap_or_default()),
        conflicts_with = "exact",
    )]
    kv: Option<KvType>,
    /// A smaller model with the same vocabulary that guesses ahead; the text is the same
    #[arg(long, value_name = "MODEL")]
    draft: Option<String>,
    /// Compute one token at a time, without guesses that are checked several at once
    #[arg(long, conflicts_with = "draft")]
    no_speculation: bool,
    /// What the program may hold of the memory, as 2GiB: near it replies get shorter, then end
    /// [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    memory_budget: Option<u64>,
    /// Take the memory of the whole context at once, and not as it comes to be used
    #[arg(long)]
    commit_memory: bool,
    /// Quantize weights of floats as they are loaded: q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1 or
    /// q4_0; what is quantized already stays as it is
    #[arg(long, value_name = "TYPE")]
    quantize: Option<String>,
    /// Compute with single floats throughout, for validation; takes several times the memory and
    /// time
    #[arg(long, conflicts_with = "quantize")]
    exact: bool,
}

impl EngineArgs {
    /// Takes from the user's settings what the command line left out.
    pub(crate) fn fill(&mut self, settings: &mut Settings) {
        settings.fill("threads", &mut self.threads, |own| own.threads);
        settings.fill("cores", &mut self.cores, |own| own.cores.clone());
        settings.fill("memory_budget", &mut self.memory_budget, |own| {
            own.memory_budget
        });
        // It stores them in its own way.
        if !self.exact {
            settings.fill("kv_type", &mut self.kv, |own| own.kv_type);
        }
    }

    /// Keeps the process to the cores that were chosen; before a thread of an engine starts.
    pub(crate) fn keep_to_cores(&self) -> Result<(), Failure> {
        keep_to(self.cores.as_ref())
    }

    /// Whether only what is on this machine may be used.
    pub(crate) fn is_offline(&self) -> bool {
        self.offline
    }

    /// The builder with the values that were given.
    pub(crate) fn apply(&self, builder: EngineBuilder) -> EngineBuilder {
        let mut builder = builder.offline(self.offline).exact(self.exact);
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        if let Some(to) = &self.quantize {
            builder = builder.quantize(to);
        }
        if let Some(kv) = self.kv {
            builder = builder.kv_type(kv);
        }
        if let Some(draft) = &self.draft {
            builder = builder.draft(draft);
        }
        if let Some(bytes) = self.memory_budget {
            builder = builder.memory_budget(bytes);
        }
        builder = builder
            .speculation(!self.no_speculation)
            .commit_memory(self.commit_memory);
        builder
    }
}

/// A size such as `2GiB`, `1.5 GB`, `900MB` or `4096`; a unit is a power of 1024, however it is
/// spelled, as in all that this command prints.
pub(crate) fn byte_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [
        ("t", 1 << 40),
        ("g", 1 << 30),
        ("m", 1 << 20),
        ("k", 1 << 10),
    ];
    let wrong = || "it is no size such as 2GiB, 900MB or 4096".to_owned();
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 1,
        unit => {
            let prefix = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b'));
            let prefix = prefix.unwrap_or(unit);
            let known = UNITS.iter().find(|(name, _)| *name == prefix);
            known.ok_or_else(wrong)?.1
        }
    };
    let digits = digits.trim_end();
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(wrong);
    }
    match digits.parse::<f64>() {
        Ok(number) if number >= 0.0 && number * (unit as f64) < u64::MAX as f64 => {
            Ok((number * unit as f64) as u64)
        }
        _ => Err(wrong()),
    }
}

/// Keeps the process to some processors, where any are named.
pub(crate) fn keep_to(cores: Option<&CoreSet>) -> Result<(), Failure> {
    match cores {
        Some(cores) => Ok(Affinity::of_process()?.keep_to(cores)?),
        None => Ok(()),
    }
}

/// How an engine may store keys and values.
const KV_TYPES: [(&str, KvType); 3] = [
    ("f16", KvType::F16),
    ("q8_0", KvType::Q8_0),
    ("f32", KvType::F32),
];

/// The type of that name.
pub(crate) fn kv_type(name: &str) -> Option<KvType> {
    let known = KV_TYPES.iter().find(|(known, _)| *known == name);
    known.map(|(_, kv_type)| *kv_type)
}

/// How keys and values are stored.
pub(crate) fn kv_dtype(text: &str) -> Result<KvDtype, String> {
    KvDtype::parse(text).ok_or_else(|| {
        let names = KvDtype::ALL.map(KvDtype::name).join(", ");
        format!("it is none of {names}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4096b", 4096),
            ("2GiB", 2 << 30),
            ("2 gb", 2 << 30),
            ("1.5G", 3 << 29),
            ("900MB", 900 << 20),
            ("16k", 16 << 10),
            ("0", 0),
        ] {
            assert_eq!(byte_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "GiB",
            "-1",
            "2XB",
            "nan",
            "inf",
            "1e40",
            "99999999999GiB",
            "2GiBs",
        ] {
            assert!(byte_size(text).is_err(), "{text}");
        }
    }
}
