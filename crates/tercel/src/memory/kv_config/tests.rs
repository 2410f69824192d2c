//! Configurations of KV caches, good and bad.

use super::*;
use crate::memory::kv_size::KvDtype;
use crate::verify::Outcome;

/// The example of the documentation.
const YAML: &str = r#"
model:
  name: "example-edge-llm"
  max_context_tokens: 4096
  num_layers: 32
kv_cache:
  prefix_cache:
    enabled: true
    min_prefix_tokens: 64
    max_prefix_tokens: 1024
    cache_key: "token_ids"
    eviction:
      policy: "lru"
      max_entries: 256
  paging:
    enabled: true
    page_size_tokens: 32
    max_pages_total: 8192
    max_pages_per_sequence: 2048
    reuse_free_blocks: true
runtime:
  max_concurrent_sequences: 8
  batch_mode: "continuous"
  log_level: "info"
"#;

fn example() -> KvConfig {
    KvConfig::parse(YAML, ConfigFormat::Yaml).expect("a valid file")
}

fn subject(budget_bytes: Option<u64>) -> KvConfigSubject {
    KvConfigSubject {
        kv_heads: Some(8),
        head_dim: Some(128),
        budget_bytes,
        ..KvConfigSubject::default()
    }
}

fn found(report: &KvConfigReport) -> Vec<(Severity, &str)> {
    let findings = report.findings.iter();
    findings.map(|one| (one.severity, one.key)).collect()
}

#[test]
fn all_formats_say_the_same() {
    let config = example();
    let json = serde_json::to_string(&config).expect("JSON");
    let toml = toml::to_string(&config).expect("TOML");
    for (text, format) in [(json, ConfigFormat::Json), (toml, ConfigFormat::Toml)] {
        assert_eq!(KvConfig::parse(&text, format), Ok(config.clone()));
    }
    assert_eq!(config.kv_cache.paging.max_pages_total, 8192);
    assert_eq!(ConfigFormat::of_extension("YML"), Some(ConfigFormat::Yaml));
    assert_eq!(ConfigFormat::of_extension("ini"), None);
}

#[test]
fn the_example_is_flagged_with_its_bytes() {
    let report = example().check(&subject(Some(4 << 30)));
    let pages = report.pages.as_ref().expect("there are figures");
    assert_eq!(pages.bytes_per_token, 128 << 10);
    assert_eq!(pages.page_bytes, 4 << 20);
    assert_eq!(pages.max_total_bytes, 32 << 30);
    assert_eq!((pages.needed_per_sequence, pages.needed_total), (128, 1024));
    assert_eq!(pages.needed_total_bytes, 4 << 30);
    assert_eq!(report.outcome, Outcome::Fail);
    assert_eq!(
        found(&report),
        [
            (Severity::Error, "kv_cache.paging.max_pages_total"),
            (Severity::Warn, "kv_cache.paging.max_pages_total"),
            (Severity::Warn, "kv_cache.paging.max_pages_per_sequence"),
        ]
    );
    let messages: Vec<&str> = report.findings.iter().map(|one| &*one.message).collect();
    assert_eq!(
        messages,
        [
            "8192 pages take 32 GiB, the budget is 4 GiB",
            "8192 pages take 32 GiB; 1024 suffice for 8 sequences of 4096 tokens, 4 GiB",
            "2048 pages hold 65536 tokens, beyond the context of 4096; 128 suffice",
        ]
    );
    // With room for all of it, it is wasteful and no more.
    let report = example().check(&subject(Some(64 << 30)));
    assert_eq!(report.outcome, Outcome::Warn);
    assert!(report.assumptions.is_empty());
}

#[test]
fn what_fits_exactly_has_no_findings() {
    let mut config = example();
    config.kv_cache.paging.max_pages_total = 1024;
    config.kv_cache.paging.max_pages_per_sequence = 128;
    let report = config.check(&subject(Some(4 << 30)));
    assert_eq!((report.outcome, report.findings.len()), (Outcome::Ok, 0));
    // The type of the cache counts.
    let quantized = KvConfigSubject {
        dtype: KvDtype::Q8_0,
        ..subject(None)
    };
    let pages = config.check(&quantized).pages.expect("figures");
    assert_eq!(pages.max_total_bytes, (4_u64 << 30) * 34 / 64);
}

#[test]
fn what_is_assumed_is_told() {
    let report = example().check(&KvConfigSubject::default());
    let assumed: Vec<_> = report
        .assumptions
        .iter()
        .map(|one| (one.what, one.value))
        .collect();
    assert_eq!(assumed, [("kv_heads", 8), ("head_dim", 128)]);
    assert_eq!(report.pages.expect("figures").max_total_bytes, 32 << 30);
}

#[test]
fn each_fault_has_its_finding() {
    type Change = fn(&mut KvConfig);
    const TOTAL: &str = "kv_cache.paging.max_pages_total";
    const EACH: &str = "kv_cache.paging.max_pages_per_sequence";
    let cases: [(Change, Severity, &str); 13] = [
        (
            |c| c.model.num_layers = 0,
            Severity::Error,
            "model.num_layers",
        ),
        (
            |c| c.model.num_layers = 31,
            Severity::Error,
            "model.num_layers",
        ),
        (
            |c| c.model.max_context_tokens = 8193,
            Severity::Error,
            "model.max_context_tokens",
        ),
        (
            |c| c.kv_cache.paging.max_pages_total = 0,
            Severity::Error,
            TOTAL,
        ),
        (
            |c| c.kv_cache.paging.max_pages_total = 127,
            Severity::Error,
            TOTAL,
        ),
        (
            |c| c.kv_cache.paging.max_pages_total = 1023,
            Severity::Warn,
            TOTAL,
        ),
        (
            |c| c.kv_cache.paging.max_pages_total = u64::MAX,
            Severity::Error,
            "kv_cache.paging",
        ),
        (
            |c| c.kv_cache.paging.max_pages_per_sequence = 127,
            Severity::Warn,
            EACH,
        ),
        (
            |c| c.kv_cache.paging.page_size_tokens = 48,
            Severity::Warn,
            "kv_cache.paging.page_size_tokens",
        ),
        (
            |c| c.kv_cache.paging.reuse_free_blocks = false,
            Severity::Warn,
            "kv_cache.paging.reuse_free_blocks",
        ),
        (
            |c| c.kv_cache.prefix_cache.min_prefix_tokens = 1025,
            Severity::Error,
            "kv_cache.prefix_cache.min_prefix_tokens",
        ),
        (
            |c| c.kv_cache.prefix_cache.max_prefix_tokens = 4097,
            Severity::Warn,
            "kv_cache.prefix_cache.max_prefix_tokens",
        ),
        (
            |c| c.runtime.max_concurrent_sequences = 0,
            Severity::Error,
            "runtime.max_concurrent_sequences",
        ),
    ];
    let known = KvConfigSubject {
        layers: Some(32),
        trained_context: Some(8192),
        ..subject(None)
    };
    for (change, severity, key) in cases {
        let mut config = example();
        config.kv_cache.paging.max_pages_total = 1024;
        config.kv_cache.paging.max_pages_per_sequence = 128;
        change(&mut config);
        let report = config.check(&known);
        assert!(
            found(&report).contains(&(severity, key)),
            "{key}: {report:?}"
        );
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (from, to, named) in [
        (
            "  num_layers: 32",
            "  num_layers: 32\n  num_heads: 8",
            "num_heads",
        ),
        (
            "max_pages_total: 8192",
            "max_page_total: 8192",
            "max_page_total",
        ),
        ("    max_pages_total: 8192\n", "", "max_pages_total"),
        ("policy: \"lru\"", "policy: \"fifo\"", "fifo"),
        ("\"token_ids\"", "\"text\"", "text"),
        ("\"continuous\"", "\"static\"", "static"),
        ("page_size_tokens: 32", "page_size_tokens: -1", "line"),
        ("page_size_tokens: 32", "page_size_tokens: many", "many"),
        ("runtime:", "runtime: [", "line"),
        (
            "  log_level",
            "  max_concurrent_sequences: 9\n  log_level",
            "max_concurrent_sequences",
        ),
    ] {
        assert!(YAML.contains(from), "{from}");
        let text = YAML.replace(from, to);
        let error = KvConfig::parse(&text, ConfigFormat::Yaml)
            .expect_err(to)
            .to_string();
        assert!(error.contains(named), "{to}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let large = " ".repeat(LARGEST_BYTES + 1);
    let error = KvConfig::parse(&large, ConfigFormat::Yaml).expect_err("too large");
    assert!(matches!(error, KvConfigError::TooLarge { .. }));
    // References that multiply, as in the billion laughs.
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for i in 1..30 {
        let of = vec![format!("*a{}", i - 1); 9].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{of}]\n"));
    }
    assert!(KvConfig::parse(&bomb, ConfigFormat::Yaml).is_err());
}
