//! What a configuration of a KV cache amounts to, and what is wrong with it.

use serde::Serialize;

use super::KvConfig;
use crate::memory::kv_size::{KvDtype, KvShape, KvSize, KvSizeError};
use crate::verify::Outcome;

/// What a configuration is checked against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvConfigSubject {
    /// Key and value heads of a layer; by default 8 are assumed.
    pub kv_heads: Option<u64>,
    /// Elements of a head; by default 128 are assumed.
    pub head_dim: Option<u64>,
    /// Layers that attend, where a model is known.
    pub layers: Option<u64>,
    /// The context that the model was trained for, where a model is known.
    pub trained_context: Option<u64>,
    /// How keys and values are stored.
    pub dtype: KvDtype,
    /// What all pages may take, in bytes; nothing is compared when `None`.
    pub budget_bytes: Option<u64>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It works, but not as it seems to be meant.
    Warn,
    /// It cannot work.
    Error,
}

/// Something about a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key, with dots between its parts.
    pub key: &'static str,
    /// What is wrong, and the way out.
    pub message: String,
}

/// What the pages of a configuration amount to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pages {
    /// Bytes of a token, keys and values of all layers.
    pub bytes_per_token: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Bytes of `max_pages_total`.
    pub max_total_bytes: u64,
    /// Bytes of `max_pages_per_sequence`.
    pub max_sequence_bytes: u64,
    /// Pages that a sequence of the whole context needs.
    pub needed_per_sequence: u64,
    /// Pages that all concurrent sequences of the whole context need.
    pub needed_total: u64,
    /// Bytes of those.
    pub needed_total_bytes: u64,
}

/// What a figure rests on where nothing was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assumption {
    /// What is not known.
    pub what: &'static str,
    /// What was taken for it.
    pub value: u64,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KvConfigReport {
    /// The gravest of the findings.
    pub outcome: Outcome,
    /// What is wrong, the errors first.
    pub findings: Vec<Finding>,
    /// The pages in bytes; `None` where numbers are so wrong that there is no such figure.
    pub pages: Option<Pages>,
    /// What the bytes rest on where nothing was said.
    pub assumptions: Vec<Assumption>,
    /// What all pages may take.
    pub budget_bytes: Option<u64>,
}

/// The model of the worked examples.
const ASSUMED_KV_HEADS: u64 = 8;
const ASSUMED_HEAD_DIM: u64 = 128;
/// The sizes of pages that are in use.
const PAGE_SIZES: [u64; 3] = [16, 32, 64];

impl KvConfig {
    /// Turns the page caps into bytes and compares them with the context and the budget.
    pub fn check(&self, subject: &KvConfigSubject) -> KvConfigReport {
        let mut findings = Findings(Vec::new());
        self.check_counts(&mut findings);
        self.check_model(subject, &mut findings);
        let mut assumptions = Vec::new();
        let mut or_assumed = |known: Option<u64>, what, value| {
            known.unwrap_or_else(|| {
                assumptions.push(Assumption { what, value });
                value
            })
        };
        let kv_heads = or_assumed(subject.kv_heads, "kv_heads", ASSUMED_KV_HEADS);
        let head_dim = or_assumed(subject.head_dim, "head_dim", ASSUMED_HEAD_DIM);
        let pages = match self.pages(kv_heads, head_dim, subject) {
            Ok(pages) => Some(pages),
            // A zero has been told of.
            Err(KvSizeError::Zero { .. }) => None,
            Err(error) => {
                findings.error("kv_cache.paging", error.to_string());
                None
            }
        };
        if let Some(pages) = &pages {
            self.check_pages(pages, subject, &mut findings);
        }
        let Findings(mut findings) = findings;
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        KvConfigReport {
            outcome: match findings.first().map(|finding| finding.severity) {
                None => Outcome::Ok,
                Some(Severity::Warn) => Outcome::Warn,
                Some(Severity::Error) => Outcome::Fail,
            },
            findings,
            pages,
            assumptions,
            budget_bytes: subject.budget_bytes,
        }
    }

    fn check_counts(&self, findings: &mut Findings) {
        let paging = &self.kv_cache.paging;
        let prefix = &self.kv_cache.prefix_cache;
        for (key, value) in [
            ("model.max_context_tokens", self.model.max_context_tokens),
            ("model.num_layers", self.model.num_layers),
            ("kv_cache.paging.page_size_tokens", paging.page_size_tokens),
            ("kv_cache.paging.max_pages_total", paging.max_pages_total),
            (
                "kv_cache.paging.max_pages_per_sequence",
                paging.max_pages_per_sequence,
            ),
            (
                "kv_cache.prefix_cache.eviction.max_entries",
                prefix.eviction.max_entries,
            ),
            (
                "runtime.max_concurrent_sequences",
                self.runtime.max_concurrent_sequences,
            ),
        ] {
            if value == 0 {
                findings.error(key, "is 0, must be at least 1".to_owned());
            }
        }
        if prefix.min_prefix_tokens > prefix.max_prefix_tokens {
            findings.error(
                "kv_cache.prefix_cache.min_prefix_tokens",
                format!(
                    "is {}, above `max_prefix_tokens` of {}: nothing would be kept",
                    prefix.min_prefix_tokens, prefix.max_prefix_tokens
                ),
            );
        }
        if prefix.max_prefix_tokens > self.model.max_context_tokens {
            findings.warn(
                "kv_cache.prefix_cache.max_prefix_tokens",
                format!(
                    "is {}, longer than the context of {}",
                    prefix.max_prefix_tokens, self.model.max_context_tokens
                ),
            );
        }
        if !PAGE_SIZES.contains(&paging.page_size_tokens) && paging.page_size_tokens > 0 {
            findings.warn(
                "kv_cache.paging.page_size_tokens",
                format!("is {}, usual are 16, 32 and 64", paging.page_size_tokens),
            );
        }
        if !paging.reuse_free_blocks {
            findings.warn(
                "kv_cache.paging.reuse_free_blocks",
                "is off: every sequence takes new pages, until there are none".to_owned(),
            );
        }
    }

    fn check_model(&self, subject: &KvConfigSubject, findings: &mut Findings) {
        let model = &self.model;
        if let Some(layers) = subject.layers.filter(|layers| *layers != model.num_layers) {
            findings.error(
                "model.num_layers",
                format!("is {}, the model has {layers}", model.num_layers),
            );
        }
        let trained = subject.trained_context;
        if let Some(trained) = trained.filter(|trained| model.max_context_tokens > *trained) {
            findings.error(
                "model.max_context_tokens",
                format!(
                    "is {}, the model was trained for {trained}",
                    model.max_context_tokens
                ),
            );
        }
    }

    fn pages(
        &self,
        kv_heads: u64,
        head_dim: u64,
        subject: &KvConfigSubject,
    ) -> Result<Pages, KvSizeError> {
        let paging = &self.kv_cache.paging;
        let shape = KvShape::new(self.model.num_layers, kv_heads, kv_heads, head_dim)?;
        let page = KvSize::new(shape, 1, paging.page_size_tokens, subject.dtype)?;
        let context = self.model.max_context_tokens;
        let times = |pages: u64| page.bytes().checked_mul(pages).ok_or(KvSizeError::Overflow);
        let needed_per_sequence = context.div_ceil(paging.page_size_tokens);
        let needed_total = needed_per_sequence
            .checked_mul(self.runtime.max_concurrent_sequences)
            .ok_or(KvSizeError::Overflow)?;
        Ok(Pages {
            bytes_per_token: page.bytes_per_token(),
            page_bytes: page.bytes(),
            max_total_bytes: times(paging.max_pages_total)?,
            max_sequence_bytes: times(paging.max_pages_per_sequence)?,
            needed_per_sequence,
            needed_total,
            needed_total_bytes: times(needed_total)?,
        })
    }

    fn check_pages(&self, pages: &Pages, subject: &KvConfigSubject, findings: &mut Findings) {
        const TOTAL: &str = "kv_cache.paging.max_pages_total";
        const EACH: &str = "kv_cache.paging.max_pages_per_sequence";
        let paging = &self.kv_cache.paging;
        let (context, sequences) = (
            self.model.max_context_tokens,
            self.runtime.max_concurrent_sequences,
        );
        if let Some(budget) = subject.budget_bytes
            && pages.max_total_bytes > budget
        {
            findings.error(
                TOTAL,
                format!(
                    "{} pages take {}, the budget is {}",
                    paging.max_pages_total,
                    size(pages.max_total_bytes),
                    size(budget)
                ),
            );
        }
        if paging.max_pages_total > pages.needed_total {
            findings.warn(
                TOTAL,
                format!(
                    "{} pages take {}; {} suffice for {sequences} sequences of {context} tokens, \
                     {}",
                    paging.max_pages_total,
                    size(pages.max_total_bytes),
                    pages.needed_total,
                    size(pages.needed_total_bytes)
                ),
            );
        }
        if paging.max_pages_total < pages.needed_per_sequence {
            findings.error(
                TOTAL,
                format!(
                    "{} pages do not hold one sequence of {context} tokens, which needs {}",
                    paging.max_pages_total, pages.needed_per_sequence
                ),
            );
        } else if paging.max_pages_total < pages.needed_total {
            findings.warn(
                TOTAL,
                format!(
                    "{} pages hold fewer than {sequences} sequences of {context} tokens, which \
                     need {}: some will wait",
                    paging.max_pages_total, pages.needed_total
                ),
            );
        }
        let reach = paging
            .max_pages_per_sequence
            .saturating_mul(paging.page_size_tokens);
        if paging.max_pages_per_sequence > pages.needed_per_sequence {
            findings.warn(
                EACH,
                format!(
                    "{} pages hold {reach} tokens, beyond the context of {context}; {} suffice",
                    paging.max_pages_per_sequence, pages.needed_per_sequence
                ),
            );
        } else if paging.max_pages_per_sequence < pages.needed_per_sequence {
            findings.warn(
                EACH,
                format!(
                    "{} pages hold {reach} tokens: no sequence reaches the context of {context}",
                    paging.max_pages_per_sequence
                ),
            );
        }
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, key: &'static str, message: String) {
        self.add(Severity::Error, key, message);
    }

    fn warn(&mut self, key: &'static str, message: String) {
        self.add(Severity::Warn, key, message);
    }

    fn add(&mut self, severity: Severity, key: &'static str, message: String) {
        self.0.push(Finding {
            severity,
            key,
            message,
        });
    }
}

/// `32 GiB`, `12.5 MiB`, `300 bytes`.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, of_unit)) = UNITS.iter().find(|(_, of_unit)| bytes >= *of_unit) else {
        return format!("{bytes} bytes");
    };
    let number = format!("{:.1}", bytes as f64 / *of_unit as f64);
    let number = number.strip_suffix(".0").unwrap_or(&number);
    format!("{number} {unit}")
}
