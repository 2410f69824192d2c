//! Where the time of a request goes, and what that says.

use std::fmt;

use serde::Serialize;

/// The stages of a request, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stages {
    /// Rendering the chat template.
    pub format_s: f64,
    /// Turning text into tokens.
    pub tokenize_s: f64,
    /// Waiting to be taken up.
    pub queue_s: f64,
    /// Moving data to a device; 0 where there is none.
    pub device_transfer_s: f64,
    /// The model's work on the prompt, up to the logits of the first token.
    pub prefill_s: f64,
    /// From the first token to the last.
    pub decode_s: f64,
    /// Drawing tokens, a part of decode.
    pub sampling_s: f64,
    /// Turning tokens into text, a part of decode.
    pub detokenize_s: f64,
}

impl Stages {
    /// The stages by name, in order.
    pub fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("format", self.format_s),
            ("tokenize", self.tokenize_s),
            ("queue", self.queue_s),
            ("device transfer", self.device_transfer_s),
            ("prefill", self.prefill_s),
            ("decode", self.decode_s),
            ("- sampling", self.sampling_s),
            ("- detokenize", self.detokenize_s),
        ]
    }
}

/// What takes much of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Suspect {
    /// Tokens after the first.
    Decode,
    /// Work on the prompt.
    PromptProcessing,
    /// Tokenization, or transfers to a device.
    InputPipeline,
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode => {
                "decode takes most of the time: other threads, a shorter context, fewer bits"
            }
            Self::PromptProcessing => {
                "the prompt takes much of the time: keep the model loaded, and let prompts begin \
                 alike, so that the prefix cache is hit"
            }
            Self::InputPipeline => {
                "tokenizing takes much of the time: tokenize what does not change once"
            }
        })
    }
}

/// Seconds of a reply of `tokens` tokens: the first one, then `tpot` each.
pub fn estimate(ttft: f64, tpot: f64, tokens: usize) -> f64 {
    ttft + tokens.saturating_sub(1) as f64 * tpot
}

/// What takes much of the time of a reply of `tokens` tokens: decode beyond 60 % of it, the first
/// token beyond 30 %, tokenization or transfers beyond 10 %.
pub fn suspects(stages: &Stages, ttft: f64, tpot: f64, tokens: usize) -> Vec<Suspect> {
    let total = estimate(ttft, tpot, tokens);
    let exceeds = |seconds: f64, share: f64| total > 0.0 && seconds > share * total;
    let input = exceeds(stages.tokenize_s, 0.1) || exceeds(stages.device_transfer_s, 0.1);
    [
        (Suspect::Decode, exceeds(tpot * tokens as f64, 0.6)),
        (Suspect::PromptProcessing, exceeds(ttft, 0.3)),
        (Suspect::InputPipeline, input),
    ]
    .into_iter()
    .filter_map(|(suspect, is_one)| is_one.then_some(suspect))
    .collect()
}

/// How a reply went, token by token, with what the machine did meanwhile.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Trace {
    /// Seconds to the first token.
    pub first_token_s: f64,
    /// Seconds of each further token.
    pub gaps_s: Vec<f64>,
    /// The processor's load during the reply, of the threads that computed: 0 to 1.
    pub cpu: Option<f64>,
    /// Pages that had to be read from disk during the reply.
    pub major_faults: Option<u64>,
}

/// What slows a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Tokens take longer and longer: the cache outgrows the memory, or is paged.
    KvPressure,
    /// The first token takes long, the others come evenly.
    ColdStart,
    /// Even, with a busy processor: what is left is computing.
    Compute,
    /// Even, with an idle processor: it waits for a lock, a device or memory.
    Blocked,
    /// Nothing stands out.
    Steady,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KvPressure => {
                "tokens take longer as the reply grows: a smaller context, keys and values in q8_0, \
                 or fewer requests at once"
            }
            Self::ColdStart => "the first token takes long, the others come evenly: warm up once",
            Self::Compute => "the processor is busy throughout: fewer bits, or other threads",
            Self::Blocked => "the processor waits: for a lock, a device, or other programs",
            Self::Steady => "nothing stands out",
        })
    }
}

/// A token that takes so many times longer in the second half shows growth.
const GROWTH: f64 = 1.5;
/// A first token beyond so many others is a cold start.
const COLD: f64 = 8.0;
/// Shares of the processor that are busy, and idle.
const BUSY: f64 = 0.85;
const IDLE: f64 = 0.5;

/// Looks for what slows a reply: growth before all else, as it grows worse; then a cold start; then
/// the processor.
pub fn verdict(trace: &Trace) -> Verdict {
    let half = trace.gaps_s.len() / 2;
    let (early, late) = trace.gaps_s.split_at(half);
    let median = |gaps: &[f64]| {
        let mut gaps = gaps.to_vec();
        gaps.sort_by(f64::total_cmp);
        gaps.get(gaps.len() / 2).copied()
    };
    let (Some(early), Some(late)) = (median(early), median(late)) else {
        return Verdict::Steady;
    };
    let faults = trace.major_faults.is_some_and(|faults| faults > 0);
    // Attention alone makes long replies slower by and by; a step, or a page from disk, is more.
    if late > GROWTH * early || (faults && late > 1.1 * early) {
        return Verdict::KvPressure;
    }
    if trace.first_token_s > COLD * early {
        return Verdict::ColdStart;
    }
    match trace.cpu {
        Some(cpu) if cpu >= BUSY => Verdict::Compute,
        Some(cpu) if cpu < IDLE => Verdict::Blocked,
        _ => Verdict::Steady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_takes_1732_ms_and_points_at_decode() {
        // Chapter 7.1: format 2, tokenize 18, transfer 6, TTFT 240, 7.5 ms a token, 200 tokens.
        let stages = Stages {
            format_s: 0.002,
            tokenize_s: 0.018,
            device_transfer_s: 0.006,
            detokenize_s: 0.004,
            ..Stages::default()
        };
        let total = estimate(0.240, 0.0075, 200);
        assert!((total - 1.7325).abs() < 1e-9, "{total}");
        assert_eq!(suspects(&stages, 0.240, 0.0075, 200), [Suspect::Decode]);
    }

    #[test]
    fn two_configurations_that_take_the_same() {
        // Chapter 7.1: 260 + 199 * 8.0 and 220 + 199 * 8.2.
        let (a, b) = (estimate(0.260, 0.0080, 200), estimate(0.220, 0.0082, 200));
        assert!((a - 1.852).abs() < 1e-9 && (a - b).abs() < 0.001, "{a} {b}");
    }

    #[test]
    fn every_stage_can_be_a_suspect() {
        use Suspect::{Decode, InputPipeline, PromptProcessing};
        for (tokenize_s, ttft, tpot, tokens, want) in [
            (0.0, 2.0, 0.01, 20, vec![PromptProcessing]),
            (0.0, 0.1, 0.01, 100, vec![Decode]),
            (0.0, 0.35, 0.0066, 100, vec![Decode, PromptProcessing]),
            (0.2, 1.0, 0.0, 1, vec![PromptProcessing, InputPipeline]),
            (0.05, 0.0, 0.0, 0, vec![]),
        ] {
            let stages = Stages {
                tokenize_s,
                ..Stages::default()
            };
            assert_eq!(suspects(&stages, ttft, tpot, tokens), want, "{ttft} {tpot}");
        }
    }

    #[test]
    fn the_worked_trace_gets_the_verdict_of_the_cache() {
        // Chapter 7.5: first token 6.0 s; tokens 1 to 20 some 120 ms; 21 to 40 some 260 ms and
        // growing, with faults from token 20 on.
        let gaps = (0..40).map(|i| match i {
            0..20 => 0.120,
            _ => 0.260 + 0.002 * f64::from(i - 20),
        });
        let mut trace = Trace {
            first_token_s: 6.0,
            gaps_s: gaps.collect(),
            cpu: Some(0.9),
            major_faults: Some(300),
        };
        assert_eq!(verdict(&trace), Verdict::KvPressure);
        trace.major_faults = None;
        assert_eq!(verdict(&trace), Verdict::KvPressure);
    }

    #[test]
    fn even_tokens_are_judged_by_the_first_and_by_the_processor() {
        let trace = |first_token_s, cpu| Trace {
            first_token_s,
            gaps_s: vec![0.1; 40],
            cpu,
            major_faults: None,
        };
        for (first, cpu, want) in [
            (6.0, Some(0.9), Verdict::ColdStart),
            (0.3, Some(0.95), Verdict::Compute),
            (0.3, Some(0.2), Verdict::Blocked),
            (0.3, Some(0.7), Verdict::Steady),
            (0.3, None, Verdict::Steady),
        ] {
            assert_eq!(verdict(&trace(first, cpu)), want, "{first} {cpu:?}");
        }
        assert_eq!(verdict(&Trace::default()), Verdict::Steady);
    }
}
