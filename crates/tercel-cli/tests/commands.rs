//! The commands around models: list, inspect, tokenize, perplexity, rm.

mod common;

use common::{Place, VOCAB, events};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON value")
}

#[test]
fn an_empty_store_lists_what_can_be_pulled() {
    let place = Place::new();
    let text = place.stdout(&["list"]);
    assert!(text.starts_with("no models in "), "{text}");
    assert!(
        text.contains("smollm2:135m") && text.contains("gemma3:270m"),
        "{text}"
    );
    let list = json(&place.stdout(&["list", "--json"]));
    assert_eq!(list["models"], Value::Array(vec![]));
    assert_eq!(list["pullable"][0]["name"], "smollm2:135m");
    let unverified = |name: &str| {
        let rows = list["pullable"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["name"] == name).expect(name);
        (row["unverified"].clone(), row["size_bytes"].is_null())
    };
    assert_eq!(unverified("smollm2:135m"), (false.into(), false));
    assert_eq!(unverified("qwen3:0.6b"), (true.into(), true));
    let told = text
        .lines()
        .filter(|line| line.contains("(unverified)"))
        .count();
    assert!(told > 5 && text.contains("nobody of the project"), "{text}");
    let pulled = place.run(&["pull", "qwen3"]);
    assert!(
        pulled.stderr.contains("qwen3:0.6b is unverified"),
        "{pulled:?}"
    );
    assert!(pulled.stderr.contains("offline"), "{pulled:?}");
    assert_eq!(list["store"], place.home().display().to_string());
}

#[test]
fn a_stored_model_is_listed_found_and_removed() {
    const NAME: &str = "hf:some/model:tiny.gguf";
    let place = Place::new();
    let bytes = common::tiny_model(&[]);
    let directory = "home/models/hf-some-model-tiny.gguf-aef7de5a807d";
    let path = place.write(&format!("{directory}/tiny.gguf"), &bytes);
    let record = serde_json::json!({
        "schema": 1, "name": NAME, "file": "tiny.gguf", "size_bytes": bytes.len(),
        "sha256": "00", "source": "a test\x1b[31m", "licence": "mit",
        "fetched_at_unix_seconds": 0,
    });
    place.write(&format!("{directory}/model.json"), record.to_string());

    let list = place.stdout(&["list"]);
    assert!(list.starts_with("NAME") && list.contains(NAME), "{list}");
    assert!(!list.contains('\x1b'), "{list:?}");
    assert!(place.stdout(&["list", "--paths"]).contains(&path));
    let listed = json(&place.stdout(&["list", "--json"]));
    assert_eq!(listed["models"][0]["path"], path.as_str());

    let pulled = place.run(&["pull", NAME]);
    assert_eq!((pulled.code, pulled.stderr.as_str()), (0, ""), "{pulled:?}");
    for part in [
        "was there already",
        &path,
        "KB (",
        "mit",
        "sha256        00",
    ] {
        assert!(pulled.stdout.contains(part), "no `{part}` in {pulled:?}");
    }
    assert_eq!(place.stdout(&["tokenize", NAME, "hi", "--count"]), "2\n");

    let removed = place.run(&["rm", "smollm2:135m", NAME]);
    assert_eq!(removed.code, 1, "one of the two is not there: {removed:?}");
    assert!(
        removed.stdout.starts_with(&format!("removed {NAME} (")),
        "{removed:?}"
    );
    assert!(removed.stderr.contains("smollm2:135m"), "{removed:?}");
    assert!(place.stdout(&["list"]).starts_with("no models in "));
}

#[test]
fn a_damaged_model_is_listed_with_the_way_out() {
    const TORN: &str = "hf-some-model-tiny.gguf-aef7de5a807d";
    const LOST: &str = "smollm2-135m-000000000000";
    let place = Place::new();
    place.write(&format!("home/models/{TORN}/tiny.gguf"), b"GGUF");
    let torn = "{\"schema\": 2, \"name\": \"hf:some/model:tiny.gguf\", ";
    place.write(&format!("home/models/{TORN}/model.json"), torn);
    place.write(&format!("home/models/{LOST}/tiny.gguf"), b"GGUF");

    let list = place.stdout(&["list"]);
    let lines: Vec<&str> = list
        .lines()
        .filter(|line| line.starts_with("damaged: "))
        .collect();
    assert_eq!(lines.len(), 2, "{list}");
    assert!(lines[0].contains("model.json is damaged"), "{list}");
    assert!(
        lines[0].contains("`tercel pull hf:some/model:tiny.gguf` repairs it"),
        "{list}"
    );
    assert!(
        lines[1].ends_with(&format!("is missing; `tercel rm {LOST}` removes it")),
        "{list}"
    );
    let list = json(&place.stdout(&["list", "--json"]));
    assert_eq!(list["damaged"][0]["name"], "hf:some/model:tiny.gguf");
    assert_eq!(list["damaged"][1]["fetchable"], false);

    place.stdout(&["rm", LOST, "hf:some/model:tiny.gguf"]);
    assert!(!place.stdout(&["list"]).contains("damaged"));
    assert_eq!(place.run(&["rm", LOST]).code, 1);
}

#[test]
fn a_model_of_several_files_is_listed_with_what_it_is() {
    let place = Place::new();
    let directory = "home/models/hf-some-float-f845a4da41ec";
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        place.write(&format!("{directory}/{name}"), b"1234");
    }
    let files = ["config.json", "tokenizer.json", "model.safetensors"].map(|name| {
        let checked = if name == "config.json" {
            "git_sha1"
        } else {
            "sha256"
        };
        serde_json::json!({ "name": name, "size_bytes": 4, "sha256": "00", "checked": checked })
    });
    let record = serde_json::json!({
        "schema": 2, "name": "hf:some/float", "kind": "directory", "files": files,
        "source": "hf:some/float", "fetched_at_unix_seconds": 0,
    });
    place.write(&format!("{directory}/model.json"), record.to_string());

    let list = json(&place.stdout(&["list", "--json"]));
    let row = &list["models"][0];
    assert_eq!(
        (&row["kind"], &row["files"]),
        (&"directory".into(), &3.into())
    );
    assert_eq!(
        (&row["size_bytes"], &row["sha256"]),
        (&12.into(), &Value::Null)
    );
    assert_eq!(row["path"], place.text(directory));
    let pulled = place.stdout(&["pull", "some/float"]);
    for part in [
        "12 bytes) in 3 files",
        "safetensors directory",
        "2 by SHA-256, 1 by git hash",
    ] {
        assert!(pulled.contains(part), "no `{part}` in {pulled}");
    }
}

#[test]
fn inspect_tells_what_a_model_is_and_takes() {
    let place = Place::new();
    let model = place.model(&[("general.sampling.temp", 0.25_f32.into())]);
    let text = place.stdout(&["inspect", &model]);
    for part in [
        "Tiny \\u{1b}[31mllama",
        "llama, ",
        "2, 64 wide, feed forward 96",
        "4 heads of 16, 2 for keys and values",
        "gpt2 (default), 257 tokens",
        "temperature 0.25",
        "160 tokens, trained for 160",
        "KV cache",
        "F32 ",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(!text.contains('\x1b'), "escaped: {text:?}");

    let whole = json(&place.stdout(&["inspect", &model, "--json"]));
    let half = json(&place.stdout(&["inspect", &model, "--json", "--max-context", "80"]));
    assert_eq!(whole["model"]["vocab_size"], VOCAB);
    assert_eq!(whole["tensor_types"][0]["dtype"], "F32");
    let kv = |of: &Value| of["memory"]["kv_bytes"].as_u64().expect("a size");
    assert!(kv(&half) < kv(&whole), "{half} {whole}");
    let all = place.stdout(&["inspect", &model, "--metadata", "--tensors"]);
    for part in [
        "llama.block_count",
        "u32     2",
        "257 of string",
        "blk.1.ffn_up.weight",
        "64 x 96",
    ] {
        assert!(all.contains(part), "no `{part}` in {all}");
    }
    assert!(!all.contains('\x1b'), "escaped: {all:?}");
    let all = json(&place.stdout(&["inspect", &model, "--json", "--metadata", "--tensors"]));
    assert_eq!(
        all["tensor_list"].as_array().map(Vec::len),
        all["tensors"].as_u64().map(|n| n as usize)
    );
    assert!(
        all["metadata"]
            .as_array()
            .is_some_and(|entries| entries.len() == 18),
        "{all}"
    );
    let base = place.stdout(&["inspect", &place.base_model()]);
    assert!(base.contains("none: the model continues text"), "{base}");
}

#[test]
fn tokenize_gives_ids_and_pieces() {
    let place = Place::new();
    let model = place.model(&[]);
    let text = place.stdout(&["tokenize", &model, "a\n\u{e9}"]);
    assert_eq!(
        text,
        "    97  \"a\"\n    10  \"\\n\"\n   195  \"\\xc3\"\n   169  \"\\xa9\"\n"
    );
    assert_eq!(
        place.stdout(&["tokenize", &model, "--count", "hello"]),
        "5\n"
    );
    assert_eq!(
        place.stdout(&["tokenize", &model, "<end>", "--count"]),
        "5\n"
    );
    let special = place.stdout(&["tokenize", &model, "<end>", "--special"]);
    assert_eq!(special, "   256  \"<end>\"\n");
    let both = json(&place.stdout(&["tokenize", &model, "hi", "--json"]));
    assert_eq!(both["count"], 2);
    assert_eq!(
        both["tokens"][1],
        serde_json::json!({"id": 105, "piece": "i"})
    );
    // Standard input is taken as it is, its last line break included.
    assert_eq!(
        place.stdout_of_stdin(&["tokenize", &model, "-", "--count"], "ab\n"),
        "3\n"
    );
    assert_eq!(place.stdout(&["tokenize", &model, ""]), "");
}

#[test]
fn perplexity_is_printed_chunk_by_chunk() {
    let place = Place::new();
    let model = place.model(&[]);
    let file = place.write(
        "text.txt",
        "some text that is long enough for this. ".repeat(10),
    );
    let args = ["perplexity", &model, &file, "--context", "64"];
    let text = place.stdout(&args);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 7, "{text}");
    assert!(
        lines[0].starts_with("[1] ") && lines[5].starts_with("[6] "),
        "{text}"
    );
    let last = lines[6];
    assert!(
        last.starts_with("perplexity ") && last.contains(" over 6 chunks ("),
        "{text}"
    );

    let stdout = place.stdout(&[&args[..], &["--json", "--chunks", "2"]].concat());
    let events = events(&stdout);
    let chunks: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "chunk")
        .collect();
    assert_eq!(chunks.len(), 2);
    let result = events.last().expect("a result");
    assert_eq!(
        (&result["event"], &result["chunks"]),
        (&"perplexity".into(), &2.into())
    );
    assert_eq!(result["ppl"], chunks[1]["ppl"]);
    // An untrained model knows nothing: about as good as a guess among all tokens.
    assert!(
        result["ppl"]
            .as_f64()
            .is_some_and(|ppl| (100.0..2000.0).contains(&ppl)),
        "{result}"
    );

    for (more, says) in [
        (&["--context", "161"][..], "161"),
        (&["--context", "3"], "`context` is 3"),
        (&["--context", "64", "--chunks", "0"], "`max_chunks` is 0"),
    ] {
        let outcome = place.run(&[&["perplexity", &model, &file], more].concat());
        assert!(
            outcome.code == 1 && outcome.stderr.contains(says),
            "{outcome:?}"
        );
    }
    let short = place.write("short.txt", "too short");
    let outcome = place.run(&["perplexity", &model, &short, "--context", "64"]);
    assert!(
        outcome
            .stderr
            .contains("the text has 9 tokens, a chunk takes 64"),
        "{outcome:?}"
    );
}
