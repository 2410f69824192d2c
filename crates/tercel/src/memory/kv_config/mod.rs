//! The file that configures a KV cache: read strictly, and its page caps turned into bytes.
//!
//! ```yaml
//! model: { name: "example", max_context_tokens: 4096, num_layers: 32 }
//! kv_cache:
//!   prefix_cache:
//!     enabled: true
//!     min_prefix_tokens: 64
//!     max_prefix_tokens: 1024
//!     cache_key: token_ids
//!     eviction: { policy: lru, max_entries: 256 }
//!   paging:
//!     enabled: true
//!     page_size_tokens: 32
//!     max_pages_total: 8192
//!     max_pages_per_sequence: 2048
//!     reuse_free_blocks: true
//! runtime: { max_concurrent_sequences: 8, batch_mode: continuous, log_level: info }
//! ```

mod check;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use check::{Assumption, Finding, KvConfigReport, KvConfigSubject, Pages, Severity};

/// The formats that a configuration may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFormat {
    /// YAML 1.2.
    Yaml,
    /// TOML 1.0.
    Toml,
    /// JSON.
    Json,
}

impl ConfigFormat {
    /// The format of a file by the end of its name: `yaml`, `yml`, `toml` or `json`.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The configuration of a KV cache. A key that is not known is an error; one that is left out has
/// the default that its field names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KvConfig {
    /// The model that it is for.
    pub model: ModelPart,
    /// Pages and prefixes.
    pub kv_cache: CachePart,
    /// How requests are run.
    pub runtime: RuntimePart,
}

/// The model that a configuration is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelPart {
    /// Its name.
    pub name: String,
    /// Tokens that a sequence may have.
    pub max_context_tokens: u64,
    /// Its layers.
    pub num_layers: u64,
}

/// Pages and prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CachePart {
    /// What is kept for later requests that begin alike.
    pub prefix_cache: PrefixPart,
    /// The pool of pages.
    pub paging: PagingPart,
}

/// What is kept for later requests that begin alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PrefixPart {
    /// Whether anything is: by default it is.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The shortest prefix that is kept, by default 64 tokens.
    #[serde(default = "min_prefix_tokens")]
    pub min_prefix_tokens: u64,
    /// The longest, by default 1024 tokens.
    #[serde(default = "max_prefix_tokens")]
    pub max_prefix_tokens: u64,
    /// What prefixes are found by: token ids, always.
    #[serde(default)]
    pub cache_key: CacheKey,
    /// What goes when there is no room.
    #[serde(default)]
    pub eviction: EvictionPart,
}

/// What prefixes are found by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CacheKey {
    /// The ids of their tokens. Texts would mix up prompts of different templates.
    #[default]
    TokenIds,
}

/// What goes when there is no room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EvictionPart {
    /// Which goes first.
    #[serde(default)]
    pub policy: EvictionPolicy,
    /// How many prefixes are kept at most, by default 256.
    #[serde(default = "max_entries")]
    pub max_entries: u64,
}

impl Default for EvictionPart {
    fn default() -> Self {
        Self {
            policy: EvictionPolicy::default(),
            max_entries: max_entries(),
        }
    }
}

/// Which prefix goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// The one that nobody used for the longest time.
    #[default]
    Lru,
}

/// The pool of pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PagingPart {
    /// Whether there is one: by default there is.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Tokens of a page, by default 32.
    #[serde(default = "page_size_tokens")]
    pub page_size_tokens: u64,
    /// Pages of all sequences.
    pub max_pages_total: u64,
    /// Pages of one sequence.
    pub max_pages_per_sequence: u64,
    /// Whether pages of sequences that ended are used again: by default they are.
    #[serde(default = "yes")]
    pub reuse_free_blocks: bool,
}

/// How requests are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RuntimePart {
    /// Sequences that run at once.
    pub max_concurrent_sequences: u64,
    /// How they share a pass.
    #[serde(default)]
    pub batch_mode: BatchMode,
    /// How much is logged.
    #[serde(default)]
    pub log_level: LogLevel,
}

/// How sequences share a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BatchMode {
    /// They join and leave at every step.
    #[default]
    Continuous,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Errors.
    Error,
    /// Warnings too.
    Warn,
    /// What is worth knowing.
    #[default]
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

/// Why a configuration cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvConfigError {
    /// It is not written as its format wants, lacks a key, has one that is not known, or a value of
    /// another kind.
    #[error("{problem}")]
    Syntax {
        /// What is wrong, and where.
        problem: String,
    },
    /// It is too large for what it is.
    #[error("a configuration of {bytes} bytes, at most {LARGEST_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// More than any configuration has.
const LARGEST_BYTES: usize = 1 << 20;

impl KvConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`KvConfigError`], in one line that names the key.
    pub fn parse(text: &str, format: ConfigFormat) -> Result<Self, KvConfigError> {
        if text.len() > LARGEST_BYTES {
            let bytes = text.len();
            return Err(KvConfigError::TooLarge { bytes });
        }
        let parsed = match format {
            ConfigFormat::Yaml => yaml(text),
            ConfigFormat::Toml => toml::from_str(text).map_err(|error| error.to_string()),
            ConfigFormat::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
        };
        parsed.map_err(|problem| KvConfigError::Syntax {
            problem: one_line(&problem),
        })
    }
}

fn yaml(text: &str) -> Result<KvConfig, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// Messages of parsers come with the line of the text below them.
fn one_line(text: &str) -> String {
    let parts: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    parts.join("; ")
}

fn yes() -> bool {
    true
}

fn min_prefix_tokens() -> u64 {
    64
}

fn max_prefix_tokens() -> u64 {
    1024
}

fn max_entries() -> u64 {
    256
}

fn page_size_tokens() -> u64 {
    32
}
