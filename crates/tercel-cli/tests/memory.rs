//! The commands about memory: fit, kv-size, config check.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Place, tiny_model};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON value")
}

/// A committed checkpoint.
fn checkpoint(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../test-data/checkpoints")
        .join(name)
}

const WORKED: [&str; 12] = [
    "kv-size",
    "--layers",
    "32",
    "--heads",
    "32",
    "--kv-heads",
    "8",
    "--d-model",
    "4096",
    "--ctx",
    "2048",
    "--dtype=f16",
];

#[test]
fn kv_size_shows_the_worked_example() {
    let place = Place::new();
    let worked = |more: &[&str]| place.stdout(&[&WORKED[..], more].concat());
    let text = worked(&["--margin", "10"]);
    assert_eq!(
        text,
        "TERM               VALUE    PRODUCT\n\
         keys and values        2          2\n\
         layers                32         64\n\
         sequences              1         64\n\
         kv heads               8        512\n\
         tokens              2048    1048576\n\
         head dim             128  134217728\n\
         bytes per element      2  268435456\n\
         \n\
         268435456 bytes, 256 MiB\n\
         with a margin of 10 %: 281.6 MiB\n\
         a token takes 131072 bytes\n\
         32 attention heads share 8 key heads; counting attention heads would give 1024 MiB, 4 \
         times as much\n"
    );
    let report = json(&worked(&["--json", "--table"]));
    assert_eq!(report["bytes"], 268_435_456);
    assert_eq!(report["bytes_with_margin"], 295_279_002);
    assert_eq!(report["terms"][6]["product"], 268_435_456);
    let rows = report["table"].as_array().expect("rows");
    let row = |tokens: u64, sequences: u64| {
        let found = rows
            .iter()
            .find(|row| row["tokens"] == tokens && row["sequences"] == sequences);
        found.expect("a row")["mebibytes"].as_f64()
    };
    let sizes = [row(1024, 1), row(4096, 1), row(2048, 2)];
    assert_eq!(sizes, [Some(128.0), Some(512.0), Some(512.0)]);
    assert!(worked(&["--table"]).contains("TOKENS  SEQUENCES"));
}

#[test]
fn kv_size_refuses_what_cannot_be() {
    let place = Place::new();
    for (args, code, told) in [
        (&["kv-size"][..], 2, "--layers"),
        (
            &["kv-size", "--layers", "2", "--heads", "4"],
            2,
            "--d-model",
        ),
        (
            &[
                "kv-size",
                "--layers",
                "2",
                "--heads",
                "3",
                "--d-model",
                "64",
            ],
            1,
            "cannot be shared",
        ),
        (
            &[
                "kv-size",
                "--layers",
                "0",
                "--heads",
                "4",
                "--d-model",
                "64",
            ],
            1,
            "`layers` is 0",
        ),
        (&["kv-size", "m", "--heads", "4"], 2, "cannot be used with"),
        (
            &["kv-size", "nothing-of-this-name"],
            1,
            "nothing-of-this-name",
        ),
    ] {
        let outcome = place.run(args);
        assert_eq!(outcome.code, code, "{args:?}: {outcome:?}");
        assert!(outcome.stderr.contains(told), "{args:?}: {outcome:?}");
    }
}

#[test]
fn kv_size_of_a_model_is_what_an_engine_takes() {
    let place = Place::new();
    let model = checkpoint("llama").display().to_string();
    let args = ["kv-size", &model, "--ctx", "128", "--batch", "2", "--json"];
    let report = json(&place.stdout(&args));
    assert_eq!(report["bytes"], report["engine_bytes"]);
    assert_eq!(
        report["bytes_by_mistake"].as_u64(),
        report["bytes"].as_u64().map(|b| 2 * b)
    );
    let text = place.stdout(&args[..6]);
    assert!(
        text.contains("4 attention heads share 2 key heads"),
        "{text}"
    );
    assert!(text.contains("just that"), "{text}");
}

#[test]
fn fit_shows_the_parts_and_what_fits() {
    let place = Place::new();
    let model = place.model(&[]);
    let fit = |more: &[&str]| {
        let outcome = place.run(&[&["fit", &model, "--json"], more].concat());
        (outcome.code, json(&outcome.stdout))
    };
    let (code, whole) = fit(&["--budget", "1GiB"]);
    assert_eq!((code, &whole["fits"]), (0, &true.into()));
    let sum: u64 = [
        "weights_bytes",
        "recurrent_bytes",
        "workspace_bytes",
        "prefix_cache_bytes",
    ]
    .iter()
    .map(|part| whole[part].as_u64().expect("a size"))
    .sum();
    let kv: u64 = whole["kv"]
        .as_array()
        .expect("kinds of layers")
        .iter()
        .map(|kv| kv["bytes"].as_u64().expect("a size"))
        .sum();
    let tokenizer = whole["tokenizer_bytes"].as_u64().expect("a size");
    assert_eq!(whole["total_bytes"], sum + kv + tokenizer);
    assert_eq!(whole["tokenizer_known"], true);
    assert_eq!(whole["largest_context"], whole["model"]["trained_context"]);

    let (code, tight) = fit(&["--budget", "100KiB"]);
    assert_eq!((code, &tight["fits"]), (1, &false.into()));
    let outcome = place.run(&["fit", &model, "--budget", "100KiB"]);
    assert_eq!(outcome.code, 1);
    for line in [
        "weights",
        "full attention",
        "it does not fit the budget of 100.0 KB",
    ] {
        assert!(outcome.stdout.contains(line), "{outcome:?}");
    }

    let (_, more) = fit(&["--budget", "1GiB", "--context", "64", "--sequences", "3"]);
    assert_eq!(
        (&more["max_context"], &more["sequences"]),
        (&64.into(), &3.into())
    );
    for (args, told) in [
        (["--budget", "many"], "no size"),
        (["--kv", "q2"], "q8_0"),
        (["--context", "99999999"], "trained"),
        (["--sequences", "0"], "`sequences`"),
    ] {
        let outcome = place.run(&[&["fit", &model], &args[..]].concat());
        assert!(
            outcome.code > 0 && outcome.stderr.contains(told),
            "{outcome:?}"
        );
    }
}

#[test]
fn fit_reckons_with_models_that_are_only_described() {
    let place = Place::new();
    let whole = checkpoint("llama");
    let config = fs::read(whole.join("config.json")).expect("committed");
    let config = place.write("described/config.json", config);
    let directory = place.text("described");
    let of = |model: &str| json(&place.stdout(&["fit", model, "--quantize", "q8_0", "--json"]));
    let want = of(&whole.display().to_string());
    for model in [&config, &directory] {
        let fit = of(model);
        assert_eq!(fit["described"], "by_configuration");
        assert_eq!(fit["tokenizer_known"], false);
        for part in [
            "model",
            "weights_bytes",
            "kv",
            "workspace_bytes",
            "prefix_cache_bytes",
        ] {
            assert_eq!(fit[part], want[part], "{part}");
        }
    }
    let outcome = place.run(&["fit", &config]);
    assert!(
        outcome.stderr.contains("configuration alone"),
        "{outcome:?}"
    );

    // A file that was cut off after its header.
    let bytes = tiny_model(&[]);
    let model = place.write("whole.gguf", &bytes);
    let cut = place.write("cut.gguf", &bytes[..bytes.len() - 100]);
    let (want, fit) = (
        json(&place.stdout(&["fit", &model, "--json"])),
        json(&place.stdout(&["fit", &cut, "--json"])),
    );
    assert_eq!(
        (&fit["described"], &want["described"]),
        (&"by_header".into(), &Value::Null)
    );
    for part in [
        "model",
        "weights_bytes",
        "kv",
        "workspace_bytes",
        "tokenizer_bytes",
    ] {
        assert_eq!(fit[part], want[part], "{part}");
    }
    // What is no model stays none.
    for (name, text) in [
        ("not.json", "[]"),
        ("other.json", r#"{"model_type":"bert"}"#),
    ] {
        let outcome = place.run(&["fit", &place.write(name, text)]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.starts_with("error:"), "{outcome:?}");
    }
}

/// The example of the documentation.
const CONFIG: &str = "\
model: {name: example, max_context_tokens: 4096, num_layers: 32}
kv_cache:
  prefix_cache:
    enabled: true
    min_prefix_tokens: 64
    max_prefix_tokens: 1024
    cache_key: token_ids
    eviction: {policy: lru, max_entries: 256}
  paging:
    enabled: true
    page_size_tokens: 32
    max_pages_total: 8192
    max_pages_per_sequence: 2048
    reuse_free_blocks: true
runtime: {max_concurrent_sequences: 8, batch_mode: continuous, log_level: info}
";

#[test]
fn config_check_flags_page_caps_in_bytes() {
    let place = Place::new();
    let file = place.write("edge-llm-kv.yaml", CONFIG);
    let check = |more: &[&str]| place.run(&[&["config", "check", &file], more].concat());
    let outcome = check(&["--budget", "4GiB"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    for line in [
        "error: kv_cache.paging.max_pages_total: 8192 pages take 32 GiB, the budget is 4 GiB",
        "warning: kv_cache.paging.max_pages_per_sequence: 2048 pages hold 65536 tokens",
        "It cannot work: 1 error.",
    ] {
        assert!(outcome.stdout.contains(line), "{line}: {outcome:?}");
    }
    assert!(
        outcome.stderr.contains("--kv-heads is taken to be 8"),
        "{outcome:?}"
    );
    let outcome = check(&[
        "--budget",
        "64GiB",
        "--json",
        "--kv-heads",
        "8",
        "--head-dim",
        "128",
    ]);
    let report = json(&outcome.stdout);
    assert_eq!((outcome.code, &report["outcome"]), (0, &"warn".into()));
    assert_eq!(report["pages"]["max_total_bytes"], 32_u64 << 30);
    assert_eq!(report["assumptions"], Value::Array(vec![]));

    let model = checkpoint("llama").display().to_string();
    let report = json(&check(&["--model", &model, "--budget", "64GiB", "--json"]).stdout);
    let findings = report["findings"].to_string();
    for told in [
        "is 32, the model has 4",
        "is 4096, the model was trained for 512",
    ] {
        assert!(findings.contains(told), "{findings}");
    }
}

#[test]
fn config_check_refuses_what_it_does_not_know() {
    let place = Place::new();
    let misspelled = CONFIG.replace("max_pages_total", "max_page_total");
    for (name, text, told) in [
        ("bad.yaml", misspelled.as_str(), "max_page_total"),
        ("kv.ini", CONFIG, "neither .yaml"),
        ("kv.json", CONFIG, "kv.json"),
    ] {
        let file = place.write(name, text);
        let outcome = place.run(&["config", "check", &file]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains(told), "{outcome:?}");
    }
    let outcome = place.run(&["config", "check", &place.text("none.yaml")]);
    assert!(
        outcome.stderr.contains("no such configuration"),
        "{outcome:?}"
    );
}
