//! Tokenizer files that are damaged, hostile, or of a kind that is not known: an error that says
//! what it is, in bounded time, and never a panic.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tercel_text::{HfTokenizerFiles, TextError, Tokenizer};

fn read(json: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, TextError> {
    Tokenizer::from_hf(&HfTokenizerFiles {
        tokenizer_json: json,
        tokenizer_config: config,
        special_tokens_map: None,
    })
}

fn data(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/tokenizers/small");
    std::fs::read(root.join(name)).expect("a committed file")
}

fn added(id: u64, content: &str) -> Value {
    json!({ "id": id, "content": content, "special": true })
}

/// A sound file of four characters and one merge.
fn sound() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [added(5, "<end>")],
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": {
            "type": "BPE",
            "vocab": { "a": 0, "b": 1, "c": 2, "ab": 3, "<unk>": 4 },
            "merges": ["a b"],
        },
    })
}

fn unigram() -> Value {
    let mut file = sound();
    file["model"] = json!({
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -2.5], ["c", -3.0]],
    });
    file
}

/// Words of the error, and the change that must give it.
type Case = (&'static str, fn(&mut Value));

#[test]
fn what_is_not_known_or_not_sound_is_refused_by_name() {
    read(sound().to_string().as_bytes(), None).expect("a sound file");
    read(unigram().to_string().as_bytes(), None).expect("a sound file");
    let cases: &[Case] = &[
        ("unknown field `extra`", |f| f["extra"] = json!(1)),
        ("version `2.0`", |f| f["version"] = json!("2.0")),
        ("missing field `model`", |f| {
            f.as_object_mut().expect("a map").remove("model");
        }),
        (
            "model `WordLevel` is not supported (supported: BPE, Unigram, WordPiece)",
            |f| {
                f["model"]["type"] = json!("WordLevel");
            },
        ),
        ("unknown field `swap`", |f| f["model"]["swap"] = json!(1)),
        ("BPE with `dropout`", |f| f["model"]["dropout"] = json!(0.1)),
        ("`end_of_word_suffix`", |f| {
            f["model"]["end_of_word_suffix"] = json!("</w>");
        }),
        ("`model.merges` is missing", |f| {
            f["model"].as_object_mut().expect("a map").remove("merges");
        }),
        ("entry 1: `x` is not in the vocabulary", |f| {
            f["model"]["merges"] = json!(["a b", "x a"]);
        }),
        ("entry 0: `ba` is not in the vocabulary", |f| {
            f["model"]["merges"] = json!(["b a"]);
        }),
        ("entry 0: `a b c` is not two tokens", |f| {
            f["model"]["merges"] = json!(["a b c"]);
        }),
        ("a pair with an empty token", |f| {
            f["model"]["merges"] = json!([["a", ""]]);
        }),
        ("a pair of tokens", |f| {
            f["model"]["merges"] = json!([["a", "b", "c"]]);
        }),
        ("`a` and `b` both have the id 0", |f| {
            f["model"]["vocab"]["b"] = json!(0);
        }),
        ("invalid value: integer `-1`", |f| {
            f["model"]["vocab"]["b"] = json!(-1);
        }),
        ("ids up to 4294967295 for 6 tokens", |f| {
            f["model"]["vocab"]["b"] = json!(u32::MAX);
        }),
        ("ids up to 16000000", |f| {
            f["added_tokens"][0]["id"] = json!(16_000_000);
        }),
        ("`model.unk_token` is `<none>`, which is no token", |f| {
            f["model"]["unk_token"] = json!("<none>");
        }),
        ("has the id 7, the next free one is 5", |f| {
            f["added_tokens"][0]["id"] = json!(7);
        }),
        ("`ab` has two ids", |f| {
            f["added_tokens"][0]["content"] = json!("ab");
        }),
        ("`<end>` has the id 2, the next free one is 5", |f| {
            f["added_tokens"][0]["id"] = json!(2);
        }),
        ("special token of 1025 bytes", |f| {
            f["added_tokens"][0]["content"] = json!("x".repeat(1025));
        }),
        ("normalizer `Wash` is not supported", |f| {
            f["normalizer"] = json!({ "type": "Wash" });
        }),
        ("pre_tokenizer `UnicodeScripts` is not supported", |f| {
            f["pre_tokenizer"] = json!({ "type": "UnicodeScripts" });
        }),
        ("decoder `CTC` is not supported", |f| {
            f["decoder"] = json!({ "type": "CTC" });
        }),
        ("post_processor `Odd` is not supported", |f| {
            f["post_processor"] = json!({ "type": "Odd" });
        }),
        ("pre_tokenizer `Digits with `ByteLevel` before it`", |f| {
            let parts = json!([{ "type": "ByteLevel" }, { "type": "Digits" }]);
            f["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": parts });
        }),
        ("no token stands for a single byte", |f| {
            f["pre_tokenizer"] = json!({ "type": "ByteLevel" });
            f["model"]["vocab"] = json!({ "\u{444}": 0 });
            f["model"]["merges"] = json!([]);
            f["added_tokens"] = json!([]);
        }),
        ("normalizer: is not a map", |f| f["normalizer"] = json!([])),
        ("normalizer: has no `type`", |f| f["normalizer"] = json!({})),
        ("normalizer `Sequence`: has no `normalizers`", |f| {
            f["normalizer"] = json!({ "type": "Sequence" });
        }),
        ("normalizer `NFC`: unknown field `odd`", |f| {
            f["normalizer"] = json!({ "type": "NFC", "odd": 1 });
        }),
        ("normalizer: more than 64 steps", |f| {
            let parts = vec![json!({ "type": "NFC" }); 65];
            f["normalizer"] = json!({ "type": "Sequence", "normalizers": parts });
        }),
        ("more than 1024 times as long", |f| {
            let grow =
                json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aaaa" });
            let parts = vec![grow; 6];
            f["normalizer"] = json!({ "type": "Sequence", "normalizers": parts });
        }),
        ("the decoder makes it more than 16 times as long", |f| {
            let grow =
                json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aaaa" });
            let parts = vec![grow; 60];
            f["decoder"] = json!({ "type": "Sequence", "decoders": parts });
        }),
        ("is not base64", |f| {
            f["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": "!" });
        }),
        ("a trie of 16777215 bytes in 2", |f| {
            f["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": "////AAAA" });
        }),
        ("with more than one token before or after the text", |f| {
            let end = json!({ "SpecialToken": { "id": "<end>", "type_id": 0 } });
            f["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [end, end, { "Sequence": { "id": "A", "type_id": 0 } }],
                "special_tokens": { "<end>": { "id": "<end>", "ids": [5], "tokens": ["<end>"] } },
            });
        }),
        ("the post_processor's `<end>` is not the token 9", |f| {
            let end = json!({ "SpecialToken": { "id": "<end>", "type_id": 0 } });
            f["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [end, { "Sequence": { "id": "A", "type_id": 0 } }],
                "special_tokens": { "<end>": { "id": "<end>", "ids": [9], "tokens": ["<end>"] } },
            });
        }),
    ];
    refuse_all(sound, cases);
    let cases: &[Case] = &[
        ("`model.unk_id` is missing", |f| {
            f["model"].as_object_mut().expect("a map").remove("unk_id");
        }),
        (
            "`model.unk_id` is 9, outside the vocabulary of 5 tokens",
            |f| f["model"]["unk_id"] = json!(9),
        ),
        ("a token and its score", |f| {
            f["model"]["vocab"][1] = json!(["a"]);
        }),
        ("a token of 1025 bytes, at most 1024", |f| {
            f["model"]["vocab"][1] = json!(["x".repeat(1025), -1.0]);
        }),
        ("Unigram without scores", |f| {
            f["model"]["vocab"] = json!({ "a": 0 });
            f["added_tokens"] = json!([]);
        }),
        ("Unigram with `ByteLevel` before it", |f| {
            f["pre_tokenizer"] = json!({ "type": "ByteLevel" });
        }),
    ];
    refuse_all(unigram, cases);
}

fn refuse_all(file: fn() -> Value, cases: &[Case]) {
    for (message, damage) in cases {
        let mut file = file();
        damage(&mut file);
        let error = read(file.to_string().as_bytes(), None)
            .expect_err(message)
            .to_string();
        assert!(
            error.contains(message),
            "{error:?} does not say {message:?}"
        );
        assert_eq!(error.lines().count(), 1, "{error:?}");
    }
}

#[test]
fn expressions_that_cannot_be_trusted_are_refused() {
    let cases = [
        ("(a", "the expression \"(a\""),
        ("(a+)+b", "a repeat within a repeat"),
        ("(?:a*b*)*(?!c)", "a repeat within a repeat"),
        (r"\w+", r"has `\w`"),
        (r"a\b", r"has `\b`"),
        ("[[:alpha:]]+", "has `[:`"),
        ("(?:(?:(?:a{999}){999}){999}){999}", "the expression"),
    ];
    for (expression, message) in cases {
        let start = Instant::now();
        let mut file = sound();
        let pattern = json!({ "Regex": expression });
        file["pre_tokenizer"] =
            json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated" });
        let error = read(file.to_string().as_bytes(), None)
            .expect_err(expression)
            .to_string();
        assert!(
            error.contains(message),
            "{error:?} does not say {message:?}"
        );
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{expression}: {:?}",
            start.elapsed()
        );
    }
    let long = format!("(?:{})", "a|".repeat(10_000));
    let mut file = sound();
    file["normalizer"] = json!({ "type": "Replace", "pattern": { "Regex": long }, "content": "" });
    let error = read(file.to_string().as_bytes(), None)
        .expect_err("a long one")
        .to_string();
    assert!(error.contains("at most 16384"), "{error}");
}

#[test]
fn a_text_that_an_expression_gives_up_on_keeps_all_its_characters() {
    let mut file = sound();
    // Another way to say the words of Llama 3, which is not the hand-written one.
    let words = r"\s*[\r\n]+|\s+(?!\S)|\s+|[^\s]+?(?=\s|$)";
    file["pre_tokenizer"] =
        json!({ "type": "Split", "pattern": { "Regex": words }, "behavior": "Isolated" });
    file["model"]["vocab"][" "] = json!(5);
    file["added_tokens"][0]["id"] = json!(6);
    let tokenizer = read(file.to_string().as_bytes(), None).expect("a sound file");
    for text in [
        " ".repeat(1 << 20) + "ab c",
        "ab".repeat(1 << 19),
        "a b ".repeat(1 << 18),
    ] {
        let start = Instant::now();
        assert!(tokenizer.decode(&tokenizer.encode(&text)) == text);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn deep_and_broken_json_is_refused() {
    let start = Instant::now();
    let deep = |open: &str| format!(r#"{{"version":"1.0","normalizer":{}"#, open.repeat(1 << 20));
    let files: [Vec<u8>; 6] = [
        deep("[").into(),
        deep(r#"{"a":"#).into(),
        "[".repeat(1 << 20).into(),
        b"".to_vec(),
        b"{\"model\": \xff}".to_vec(),
        br#"{"model":{"vocab":{"a":0,"a":1},"merges":[]}}"#.to_vec(),
    ];
    for file in &files {
        let error = read(file, None).expect_err("a broken file").to_string();
        assert!(!error.is_empty() && error.len() < 300, "{error}");
    }
    for config in [
        &b"[1]"[..],
        b"{\"bos_token\": 7}",
        b"{\"bos_token\": \"<none>\"}",
    ] {
        read(sound().to_string().as_bytes(), Some(config)).expect_err("a broken config");
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn no_damage_to_a_file_is_a_panic() {
    let use_it = |result: Result<Tokenizer, TextError>| {
        if let Ok(tokenizer) = result {
            let ids = tokenizer.encode("The river, 12 \u{fb01}sh\u{3000}e\u{301}</s>\n\n");
            let size = tokenizer.vocab_size();
            assert!(ids.iter().all(|id| (*id as usize) < size));
            tokenizer.decode(&ids);
        }
    };
    for name in ["wordpiece.json", "unigram.json"] {
        let file = data(name);
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] = b"0\"}[-"[at % 5];
            use_it(read(&damaged, None));
        }
    }
    for name in ["spm-bpe.model", "spm-unigram.model"] {
        let file = data(name);
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= [0xff, 0x01, 0x80, 0x08][at % 4];
            use_it(Tokenizer::from_sentencepiece(&damaged, None));
            if at % 7 == 0 {
                use_it(Tokenizer::from_sentencepiece(&file[..at], None));
            }
        }
    }
}
