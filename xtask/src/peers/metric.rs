//! What is measured, and in what unit.

use std::fmt;

use super::load::Load;

/// How many chats run at once where several do.
pub(crate) const CHATS: u32 = 8;

/// One thing that a process is started for. What it gives is a few [`Metric`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Reads a prompt of so many tokens into an empty cache.
    Prefill { tokens: u32 },
    /// Generates `tokens` behind `depth` tokens that the cache holds already.
    Decode { depth: u32, tokens: u32 },
    /// Starts, loads, reads a short prompt, and shows one token.
    Start,
    /// Fills a context of so many tokens, for the memory that this takes.
    Memory { context: u32 },
    /// [`CHATS`] chats at once, each with a prompt of its own.
    Chats { prompt: u32, tokens: u32 },
    /// A server whose clients ask one thing after the other.
    Serve(Load),
    /// What the machine could do; no model is run.
    Limits,
}

impl Job {
    /// The word by which `--what` chooses jobs of this kind.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Prefill { .. } => "prefill",
            Self::Decode { .. } => "decode",
            Self::Start => "start",
            Self::Memory { .. } => "memory",
            Self::Chats { .. } => "chats",
            Self::Serve(_) => "serve",
            Self::Limits => "limits",
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefill { tokens } => write!(f, "prefill {tokens}"),
            Self::Decode { depth, tokens } => write!(f, "decode {tokens} at depth {depth}"),
            Self::Start => f.write_str("start"),
            Self::Memory { context } => write!(f, "memory at {context} tokens"),
            Self::Chats { prompt, tokens } => {
                write!(f, "{CHATS} chats of {prompt} + {tokens} tokens")
            }
            Self::Serve(load) => write!(f, "server, {load}"),
            Self::Limits => f.write_str("limits of the machine"),
        }
    }
}

/// A figure. The order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Tokens of a prompt a second.
    Prefill { tokens: u32 },
    /// Generated tokens a second.
    Decode { depth: u32 },
    /// Generated tokens a second, of all chats together.
    Chats,
    /// Seconds to the first token of a chat among all, the 95th percentile.
    ChatsFirstToken,
    /// Generated tokens a second of a server, to all clients together.
    Serve { clients: u32 },
    /// Seconds from a request to its first text, a percentile.
    ServeFirstToken { clients: u32, percent: u32 },
    /// Seconds between two texts of a reply, a percentile.
    ServeBetween { clients: u32, percent: u32 },
    /// Seconds from the start of the process to its first token.
    FirstToken,
    /// Seconds to load the model, as the program itself reports it.
    Load,
    /// The most memory that a process ever held whose context was filled so far, in bytes.
    PeakMemory { context: u32 },
    /// Bytes read from memory in a second.
    Bandwidth,
    /// Multiply-adds of bytes in a second.
    IntegerPeak,
}

impl Metric {
    pub(crate) fn is_higher_better(self) -> bool {
        !matches!(
            self,
            Self::ChatsFirstToken
                | Self::ServeFirstToken { .. }
                | Self::ServeBetween { .. }
                | Self::FirstToken
                | Self::Load
                | Self::PeakMemory { .. }
        )
    }

    /// A value in the [`unit`](Self::unit) of the report.
    pub(crate) fn number(self, value: f64) -> String {
        let value = value / self.scale();
        let digits = match value.abs() {
            large if large >= 100.0 => 0,
            middle if middle >= 10.0 => 1,
            _ => 2,
        };
        format!("{value:.digits$}")
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Prefill { .. } | Self::Decode { .. } | Self::Chats | Self::Serve { .. } => {
                "tok/s"
            }
            Self::ChatsFirstToken
            | Self::ServeFirstToken { .. }
            | Self::ServeBetween { .. }
            | Self::FirstToken
            | Self::Load => "ms",
            Self::PeakMemory { .. } => "MiB",
            Self::Bandwidth => "GB/s",
            Self::IntegerPeak => "G multiply-adds/s",
        }
    }

    /// The unit of the report in the unit of the values.
    fn scale(self) -> f64 {
        match self {
            Self::Prefill { .. } | Self::Decode { .. } | Self::Chats | Self::Serve { .. } => 1.0,
            Self::ChatsFirstToken
            | Self::ServeFirstToken { .. }
            | Self::ServeBetween { .. }
            | Self::FirstToken
            | Self::Load => 1e-3,
            Self::PeakMemory { .. } => 1024.0 * 1024.0,
            Self::Bandwidth | Self::IntegerPeak => 1e9,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefill { tokens } => write!(f, "prefill {tokens}"),
            Self::Decode { depth } => write!(f, "decode at depth {depth}"),
            Self::Chats => write!(f, "{CHATS} chats at once, all together"),
            Self::ChatsFirstToken => write!(f, "{CHATS} chats at once, first token (p95)"),
            Self::Serve { clients } => write!(f, "server with {clients} clients, all together"),
            Self::ServeFirstToken { clients, percent } => {
                write!(f, "server with {clients} clients, first token (p{percent})")
            }
            Self::ServeBetween { clients, percent } => {
                write!(
                    f,
                    "server with {clients} clients, between tokens (p{percent})"
                )
            }
            Self::FirstToken => f.write_str("process start to first token"),
            Self::Load => f.write_str("load"),
            Self::PeakMemory { context } => write!(f, "peak memory, {context} tokens"),
            Self::Bandwidth => f.write_str("read bandwidth"),
            Self::IntegerPeak => f.write_str("integer peak"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_units_a_reader_knows() {
        for (metric, value, want) in [
            (Metric::Prefill { tokens: 128 }, 271.4, "271 tok/s"),
            (Metric::Decode { depth: 7000 }, 12.66, "12.7 tok/s"),
            (Metric::FirstToken, 0.2264, "226 ms"),
            (Metric::Load, 0.004_56, "4.56 ms"),
            (
                Metric::PeakMemory { context: 9 },
                169.0 * 1_048_576.0,
                "169 MiB",
            ),
            (Metric::Bandwidth, 28.04e9, "28.0 GB/s"),
        ] {
            assert_eq!(format!("{} {}", metric.number(value), metric.unit()), want);
        }
    }
}
