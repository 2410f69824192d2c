//! `tercel verify`, `tercel validate` and `tercel inspect --tensors` on small checkpoints, whole
//! and damaged on purpose.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Outcome, Place};
use serde_json::{Value as Json, json};

/// A copy of a checkpoint, to be damaged.
struct Copy {
    place: Place,
}

impl Copy {
    fn of(name: &str) -> Self {
        let place = Place::new();
        let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/checkpoints");
        for entry in fs::read_dir(from.join(name)).expect("a committed checkpoint") {
            let path = entry.expect("an entry").path();
            let file = path.file_name().expect("a name").to_str().expect("UTF-8");
            place.write(&format!("m/{file}"), fs::read(&path).expect("read"));
        }
        Self { place }
    }

    fn path(&self) -> String {
        self.place.text("m")
    }

    /// A copy with a tokenizer of one token per byte and three special ones.
    fn with_tokenizer(name: &str) -> Self {
        let (copy, other) = (Self::of(name), Self::of("qwen2-padded"));
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            copy.write(file, &other.read(file));
        }
        copy
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.place.path("m").join(file)).expect("a file of the checkpoint")
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        self.place.write(&format!("m/{file}"), bytes);
    }

    fn edit(&self, file: &str, change: impl FnOnce(&mut Json)) {
        let mut json = serde_json::from_slice(&self.read(file)).expect("JSON");
        change(&mut json);
        self.write(file, json.to_string().as_bytes());
    }

    /// Changes the header of a safetensors file. The data stays where it is.
    fn edit_header(&self, file: &str, change: impl FnOnce(&mut Json)) {
        let bytes = self.read(file);
        let (length, rest) = bytes.split_first_chunk().expect("a header");
        let length = u64::from_le_bytes(*length) as usize;
        let mut header = serde_json::from_slice(&rest[..length]).expect("JSON");
        change(&mut header);
        let header = header.to_string().into_bytes();
        let mut changed = (header.len() as u64).to_le_bytes().to_vec();
        changed.extend(header);
        changed.extend(&rest[length..]);
        self.write(file, &changed);
    }

    /// The report of `tercel verify`, and its exit code.
    fn verify(&self) -> (i32, Json) {
        let outcome = self.place.run(&["verify", &self.path(), "--json"]);
        (outcome.code, last_line(&outcome))
    }

    /// The report of `tercel validate`, and its exit code.
    fn validate(&self, reference: &str, more: &[&str]) -> (i32, Json) {
        let path = self.path();
        let args = [&["validate", &path, reference, "--json"], more].concat();
        let outcome = self.place.run(&args);
        (outcome.code, last_line(&outcome))
    }

    fn reference(&self) -> String {
        self.place.text("m/reference.safetensors")
    }
}

/// The report, after the notes.
fn last_line(outcome: &Outcome) -> Json {
    let line = outcome.stdout.lines().last().unwrap_or_default();
    let report = serde_json::from_str(line);
    assert!(report.is_ok(), "{outcome:?}");
    report.expect("JSON")
}

/// The details of the checks of this name and outcome.
fn details(report: &Json, check: &str, outcome: &str) -> String {
    let checks = report["checks"].as_array().expect("a list");
    let found = checks
        .iter()
        .filter(|one| one["check"] == check && one["outcome"] == outcome);
    let details: Vec<&str> = found.filter_map(|one| one["detail"].as_str()).collect();
    details.join("\n")
}

/// One fault, and the check and words that must tell of it.
type Fault = (&'static str, fn() -> Copy, &'static str, &'static str);

#[test]
fn verify_names_each_fault() {
    let faults: [Fault; 13] = [
        (
            "a larger tokenizer",
            larger_tokenizer,
            "vocabulary",
            "wrong variant or stale config",
        ),
        (
            "the tokenizer of another model",
            shifted_tokenizer,
            "ids",
            "the tokenizer of another model",
        ),
        (
            "no tokenizer",
            || Copy::of("llama"),
            "tokenizer",
            "no tokenizer.json",
        ),
        (
            "a missing shard",
            missing_shard,
            "files",
            "model-00002-of-00004.safetensors is missing",
        ),
        (
            "a wrong shape",
            wrong_shape,
            "tensors",
            "has shape [160, 64], expected [64, 160]",
        ),
        ("another width", wrong_width, "tensors", "expected [96, 64]"),
        (
            "a tensor too many",
            extra_tensor,
            "tensors",
            "have no place in the architecture",
        ),
        (
            "a missing field",
            missing_field,
            "configuration",
            "field `hidden_size`: missing",
        ),
        (
            "a stale vocabulary",
            stale_vocabulary,
            "configuration",
            "stale configuration",
        ),
        (
            "missing scales",
            missing_scales,
            "weights",
            "expected a tensor `model.embed_tokens.scales`",
        ),
        (
            "wrong bits",
            wrong_bits,
            "weights",
            "do not make 8 bits in groups of 32",
        ),
        (
            "a method unheard of",
            unknown_method,
            "weights",
            "`exl2`, which is not supported",
        ),
        (
            "an unknown family",
            unknown_family,
            "configuration",
            "architecture `mamba` is not supported",
        ),
    ];
    for (fault, copy, check, words) in faults {
        let (code, report) = copy().verify();
        let found = details(&report, check, "fail");
        assert!(found.contains(words), "{fault}: {report:#}");
        assert_eq!((code, &report["outcome"]), (1, &json!("fail")), "{fault}");
    }
}

fn larger_tokenizer() -> Copy {
    let copy = Copy::with_tokenizer("qwen2-padded");
    copy.edit("tokenizer.json", |json| {
        let vocab = json["model"]["vocab"].as_object_mut().expect("a table");
        for id in vocab.len()..400 {
            vocab.insert(format!("word{id}"), id.into());
        }
    });
    copy
}

/// As many tokens, the special ones at the end.
fn shifted_tokenizer() -> Copy {
    let copy = Copy::of("qwen2-padded");
    copy.edit("tokenizer.json", |json| {
        let vocab = json["model"]["vocab"].as_object_mut().expect("a table");
        for id in vocab.values_mut() {
            *id = ((id.as_u64().expect("an id") + 256) % 259).into();
        }
        for token in json["added_tokens"].as_array_mut().expect("a list") {
            token["id"] = (token["id"].as_u64().expect("an id") + 256).into();
        }
    });
    copy
}

fn missing_shard() -> Copy {
    let copy = Copy::of("llama-shards");
    let shard = copy.place.path("m/model-00002-of-00004.safetensors");
    fs::remove_file(shard).expect("removed");
    copy
}

const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

fn wrong_shape() -> Copy {
    let copy = Copy::of("llama");
    copy.edit_header("model.safetensors", |header| {
        header[DOWN]["shape"] = json!([160, 64]);
    });
    copy
}

fn wrong_width() -> Copy {
    let copy = Copy::of("llama");
    copy.edit("config.json", |config| {
        config["intermediate_size"] = 96.into();
    });
    copy
}

fn extra_tensor() -> Copy {
    let copy = Copy::of("llama");
    copy.edit("config.json", |config| {
        config["num_hidden_layers"] = 3.into();
    });
    copy
}

fn missing_field() -> Copy {
    let copy = Copy::of("llama");
    copy.edit("config.json", |config| {
        config
            .as_object_mut()
            .expect("a table")
            .remove("hidden_size");
    });
    copy
}

fn stale_vocabulary() -> Copy {
    let copy = Copy::with_tokenizer("qwen2-padded");
    copy.edit("config.json", |config| config["vocab_size"] = 384.into());
    copy
}

fn missing_scales() -> Copy {
    let copy = Copy::of("qwen3-mlx-4bit");
    const SCALES: &str = "model.embed_tokens.scales";
    // Under another name, since a hole in the data is no valid file.
    copy.edit_header("model.safetensors", |header| {
        let tensors = header.as_object_mut().expect("a table");
        let scales = tensors.remove(SCALES).expect("there");
        tensors.insert("unheard.of".to_owned(), scales);
    });
    copy.edit("model.safetensors.index.json", |index| {
        let map = index["weight_map"].as_object_mut().expect("a table");
        let file = map.remove(SCALES).expect("there");
        map.insert("unheard.of".to_owned(), file);
    });
    copy
}

fn wrong_bits() -> Copy {
    let copy = Copy::of("qwen3-mlx-4bit");
    copy.edit("config.json", |config| {
        config["quantization"]["bits"] = 8.into();
    });
    copy
}

fn unknown_method() -> Copy {
    let copy = Copy::of("llama");
    copy.edit("config.json", |config| {
        config["quantization_config"] = json!({ "quant_method": "exl2" });
    });
    copy
}

fn unknown_family() -> Copy {
    let copy = Copy::of("llama");
    copy.edit("config.json", |config| {
        config["model_type"] = "mamba".into();
    });
    copy
}

#[test]
fn verify_passes_what_belongs_together() {
    let copy = Copy::of("qwen2-padded");
    let (code, report) = copy.verify();
    assert_eq!((code, &report["outcome"]), (0, &json!("ok")), "{report:#}");
    assert_eq!(report["expected_vocab"], 320);
    assert_eq!(report["tokenizer_vocab_size"], 259);
    let ids =
        json!({ "bos_token_id": null, "eos_token_id": 2, "pad_token_id": 0, "unk_token_id": null });
    assert_eq!(report["special_token_ids"], ids);
    assert!(details(&report, "vocabulary", "ok").contains("61 rows of padding"));
    let prompt = &report["prompts"][0];
    assert_eq!(
        (&prompt["prompt"], &prompt["decoded"]),
        (&json!("Hello!"), &json!("Hello!"))
    );
    assert_eq!(prompt["tokens"], 6);

    let text = copy.place.stdout(&["verify", &copy.path(), "--deep"]);
    assert!(text.starts_with("OUTCOME  CHECK"), "{text}");
    assert!(text.contains("eos stop"), "{text}");
    assert!(text.contains("Verification complete"), "{text}");
}

#[test]
fn one_fault_does_not_hide_another() {
    let copy = missing_shard();
    let padded = Copy::of("qwen2-padded");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        copy.write(file, &padded.read(file));
    }
    copy.edit("config.json", |config| config["rope_theta"] = 77.into());
    let (_, report) = copy.verify();
    assert_ne!(details(&report, "files", "fail"), "");
    assert_ne!(details(&report, "vocabulary", "fail"), "", "{report:#}");
    assert!(details(&report, "rope", "warn").contains("`rope_theta` is 77"));

    let copy = Copy::of("llama");
    copy.edit_header("model.safetensors", |header| {
        let tensors = header.as_object_mut().expect("a table");
        for name in ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"] {
            let tensor = tensors.remove(name).expect("there");
            tensors.insert(format!("other.{name}"), tensor);
        }
    });
    let (_, report) = copy.verify();
    let found = details(&report, "tensors", "fail");
    for missing in ["`model.norm.weight`", "`model.layers.1.mlp.up_proj.weight`"] {
        assert!(
            found.contains(&format!("tensor {missing} is missing")),
            "{found}"
        );
    }
}

#[test]
fn verify_looks_into_the_template() {
    let template =
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|stop|>{% endfor %}";
    let copy = Copy::of("qwen2-padded");
    copy.write("chat_template.jinja", template.as_bytes());
    let (code, report) = copy.verify();
    assert_eq!(code, 0, "{report:#}");
    let found = details(&report, "template markers", "warn");
    assert_eq!(
        found,
        "<|stop|>, <|turn|> not in the vocabulary, so the model gets them as plain text"
    );

    // The same with a tokenizer that has such markers, but others.
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        copy.edit(file, |json| {
            let text = json.to_string().replace("<pad>", "<|pad|>");
            *json = serde_json::from_str(&text).expect("JSON");
        });
    }
    let (code, report) = copy.verify();
    assert_eq!(code, 1, "{report:#}");
    let found = details(&report, "template markers", "fail");
    assert!(found.contains("the tokenizer of another model"), "{found}");

    copy.write("chat_template.jinja", b"{% for m in messages %}");
    let (code, report) = copy.verify();
    assert_eq!(code, 1);
    assert!(
        details(&report, "template", "fail").contains("chat template"),
        "{report:#}"
    );
}

#[test]
fn validate_passes_the_unchanged_and_names_a_wrong_rope_base() {
    for (name, base) in [("llama", 1_000_000.0), ("qwen3", 10_000.0)] {
        let copy = Copy::of(name);
        let reference = copy.reference();
        let (code, report) = copy.validate(&reference, &[]);
        assert_eq!(
            (code, &report["passed"]),
            (0, &json!(true)),
            "{name}: {report:#}"
        );
        assert!(report["max_abs"].as_f64().expect("a number") < 2e-3);
        assert_eq!(report["prompts"][0]["greedy"]["equal"], true);
        assert_eq!(
            report["prompts"][0]["positions"].as_array().map(Vec::len),
            Some(96)
        );

        copy.edit("config.json", |config| {
            config["rope_parameters"]["rope_theta"] = base.into();
        });
        let (code, report) = copy.validate(&reference, &[]);
        assert_eq!(
            (code, &report["triage"]),
            (1, &json!("late_positions")),
            "{name}"
        );
        assert!(
            report["advice"]
                .as_str()
                .is_some_and(|it| it.contains("rope_theta"))
        );
        // As coarse arithmetic sees it, too.
        let (code, report) = copy.validate(&reference, &["--as-stored"]);
        assert_eq!(
            (code, &report["triage"]),
            (1, &json!("late_positions")),
            "{name}"
        );

        let text = copy.place.run(&["validate", &copy.path(), &reference]);
        assert_eq!(text.code, 1);
        assert!(text.stdout.contains("RoPE"), "{text:?}");
        assert_eq!(text.stderr, "");
    }
}

#[test]
fn validate_names_other_shapes_of_failure() {
    let swapped = Copy::of("llama");
    let reference = swapped.reference();
    // Two layers in each other's place.
    swapped.edit_header("model.safetensors", |header| {
        let text = header.to_string();
        let text = text
            .replace(".layers.1.", ".layers.x.")
            .replace(".layers.2.", ".layers.1.");
        *header = serde_json::from_str(&text.replace(".layers.x.", ".layers.2.")).expect("JSON");
    });
    let (code, report) = swapped.validate(&reference, &[]);
    assert_eq!((code, &report["triage"]), (1, &json!("all_positions")));

    let rounded = Copy::of("llama");
    let (code, report) =
        rounded.validate(&reference, &["--quantize", "q8_0", "--max-abs", "0.002"]);
    assert_eq!(
        (code, &report["triage"]),
        (1, &json!("drift")),
        "{}",
        report["max_abs"]
    );

    let other = Copy::of("qwen2-padded");
    let (code, report) = other.validate(&reference, &[]);
    assert_eq!((code, &report["kind"]), (1, &json!("invalid_reference")));
}

#[test]
fn validate_compares_models_of_any_packaging() {
    let (float, coarse) = (
        Copy::with_tokenizer("qwen3"),
        Copy::with_tokenizer("qwen3-mlx-8bit"),
    );
    let (_, report) = coarse.validate(&float.path(), &["--max-context", "80"]);
    let prompts = report["prompts"].as_array().expect("a list");
    assert_eq!(prompts.len(), 7);
    assert!(prompts.iter().all(|prompt| prompt["ids_equal"] == true));
    assert_eq!(prompts[6]["tokens"], 80 - 32);
    assert!(
        report["match_rate"].as_f64().is_some_and(|rate| rate > 0.9),
        "{report}"
    );

    let (code, report) = float.validate(&float.path(), &["--exact", "--max-context", "80"]);
    assert_eq!((code, &report["max_abs"]), (0, &json!(0.0)), "{report}");

    let shifted = shifted_tokenizer();
    float.write("tokenizer.json", &shifted.read("tokenizer.json"));
    let (code, report) = coarse.validate(&float.path(), &["--max-context", "80"]);
    assert_eq!((code, &report["triage"]), (1, &json!("ids_differ")));
}

#[test]
fn inspect_says_what_quantizing_would_make_of_each_tensor() {
    let tensors = |name: &str, quantize: &str| -> Vec<Json> {
        let copy = Copy::of(name);
        let args = [
            "inspect",
            &copy.path(),
            "--tensors",
            "--quantize",
            quantize,
            "--json",
        ];
        let report: Json = serde_json::from_str(&copy.place.stdout(&args)).expect("JSON");
        report["tensor_list"].as_array().expect("a list").clone()
    };
    let of = |tensors: &[Json], name: &str| {
        let found = tensors.iter().find(|tensor| tensor["name"] == name);
        let tensor = found.expect("a tensor of this name");
        ["function", "becomes", "treatment"]
            .map(|key| tensor[key].as_str().unwrap_or("-").to_owned())
    };
    let llama = tensors("llama", "q4_0");
    for (name, expected) in [
        ("model.embed_tokens.weight", ["embedding", "Q8_0", "finer"]),
        ("lm_head.weight", ["head", "Q8_0", "finer"]),
        ("model.norm.weight", ["norm", "F32", "vector"]),
        (
            "model.layers.0.self_attn.q_proj.weight",
            ["query", "Q4_0", "quantized"],
        ),
        (
            "model.layers.0.self_attn.o_proj.weight",
            ["attention_output", "Q4_0", "quantized"],
        ),
        (DOWN, ["feed_forward", "Q4_0", "quantized"]),
    ] {
        assert_eq!(of(&llama, name), expected, "{name}");
    }
    let odd = tensors("qwen2-odd", "q4_k");
    let query = of(&odd, "model.layers.0.self_attn.q_proj.weight");
    assert_eq!(query, ["query", "F16", "fallback"]);
    let experts = tensors("qwen3_moe-fused", "q4_0");
    let fused = experts
        .iter()
        .find(|tensor| tensor["packing"]["kind"] == "stacked_fused")
        .expect("gate and up of all experts");
    assert_eq!(
        (&fused["function"], &fused["packing"]["parts"]),
        (&json!("experts"), &json!(2))
    );
    let router = of(&experts, "model.layers.0.mlp.gate.weight");
    assert_eq!(router, ["router", "F32", "delicate"]);
    let packed = tensors("qwen3-mlx-4bit", "q4_k");
    let query = of(&packed, "model.layers.0.self_attn.q_proj.weight");
    assert_eq!(query, ["query", "4-bit groups of 32", "already_quantized"]);

    let copy = Copy::of("qwen3_5");
    let text = copy.place.stdout(&["inspect", &copy.path(), "--tensors"]);
    for words in ["AS Q4_K", "recurrent", "vector: kept in single floats"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let refused = copy
        .place
        .run(&["inspect", &copy.path(), "--tensors", "--quantize", "q9"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("`quantize` is q9"), "{refused:?}");
}
