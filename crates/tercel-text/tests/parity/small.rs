//! Token ids of small tokenizers of every kind, equal to those of the Python packages.

use crate::common::{Sets, check_set, data};
use tercel_text::{HfTokenizerFiles, TextError, TokenKind, Tokenizer};

fn from_json(json: &[u8], config: Option<&str>) -> Result<Tokenizer, TextError> {
    Tokenizer::from_hf(&HfTokenizerFiles {
        tokenizer_json: json,
        tokenizer_config: config.map(str::as_bytes),
        special_tokens_map: None,
    })
}

fn small(name: &str) -> Tokenizer {
    let file = data(&format!("small/{name}.json"));
    from_json(&file, None).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn ids_of_tokenizer_json_equal_those_of_python() {
    let sets = Sets::load("small.json");
    let cases = [
        ("qwen3", "BPE", "Split, ByteLevel"),
        ("wordpiece", "WordPiece", "BertPreTokenizer"),
        ("unigram", "Unigram", "Metaspace"),
        ("unigram-bytes", "Unigram", "Metaspace"),
    ];
    for (name, model, pre) in cases {
        let tokenizer = small(name);
        check_set(&tokenizer, &sets, name);
        assert_eq!((tokenizer.model(), tokenizer.pre_tokenizer()), (model, pre));
    }
}

#[test]
fn ids_of_tokenizer_model_equal_those_of_python() {
    let sets = Sets::load("small.json");
    for (name, model) in [("spm-bpe", "BPE"), ("spm-unigram", "Unigram")] {
        let file = data(&format!("small/{name}.model"));
        let tokenizer = Tokenizer::from_sentencepiece(&file, None)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        // Python takes no control token out of a text, whoever wrote it.
        check_plain(&tokenizer, &sets, name);
        assert_eq!(tokenizer.model(), model);
        let roles = [
            tokenizer.unk(),
            tokenizer.bos(),
            tokenizer.eos(),
            tokenizer.pad(),
        ];
        assert_eq!(roles, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(tokenizer.end_ids(), [2]);
        assert_eq!(
            (tokenizer.add_bos(), tokenizer.add_eos()),
            (model == "BPE", false)
        );
        assert_eq!(tokenizer.encode_trusted("</s>"), [2]);
    }
}

#[test]
fn what_goes_around_a_text_comes_from_the_template_or_the_config() {
    let bert = small("wordpiece");
    assert_eq!(
        (bert.bos(), bert.eos()),
        (bert.id("[CLS]"), bert.id("[SEP]"))
    );
    assert!(bert.add_bos() && bert.add_eos());
    assert_eq!(bert.unk(), bert.id("[UNK]"));
    let t5 = small("unigram");
    assert_eq!((t5.bos(), t5.eos()), (None, t5.id("</s>")));
    assert!(!t5.add_bos() && t5.add_eos());

    let file = data("small/qwen3.json");
    let config = r#"{"bos_token": null, "eos_token": {"content": "<|im_end|>", "lstrip": false},
        "pad_token": "<|endoftext|>", "model_max_length": 1e30, "unknown": [1],
        "added_tokens_decoder": {"1482": {"content": "<new>", "special": true}}}"#;
    let mut qwen = from_json(&file, Some(config)).expect("a sound file");
    assert_eq!((qwen.eos(), qwen.add_eos()), (qwen.id("<|im_end|>"), false));
    assert_eq!((qwen.bos(), qwen.pad()), (None, qwen.id("<|endoftext|>")));
    assert_eq!(qwen.encode_trusted("<new>"), [1482]);
    assert_eq!(qwen.kind(1482), TokenKind::Control);
    let ends = |tokenizer: &Tokenizer| tokenizer.end_ids().to_vec();
    assert_eq!(ends(&qwen), [1456, 1458]);
    assert_eq!(qwen.add_ends(&[5, 1456]), Ok(()));
    assert_eq!(ends(&qwen), [5, 1456, 1458]);
    let error = qwen
        .add_ends(&[7, 1483])
        .expect_err("an id too high")
        .to_string();
    assert_eq!(
        error,
        "`eos_token_id` is 1483, outside the vocabulary of 1483 tokens"
    );
    assert_eq!(ends(&qwen), [5, 1456, 1458]);
}

#[test]
fn the_map_of_special_tokens_speaks_where_the_config_does_not() {
    let json = data("small/qwen3.json");
    let tokenizer = Tokenizer::from_hf(&HfTokenizerFiles {
        tokenizer_json: &json,
        tokenizer_config: Some(br#"{"eos_token": "<|im_end|>", "add_bos_token": true}"#),
        special_tokens_map: Some(
            br#"{"eos_token": "<|endoftext|>", "bos_token": {"content": "<|im_start|>"}}"#,
        ),
    })
    .expect("sound files");
    assert_eq!(tokenizer.eos(), tokenizer.id("<|im_end|>"));
    assert_eq!(tokenizer.bos(), tokenizer.id("<|im_start|>"));
    assert!(tokenizer.add_bos());
}

#[test]
fn a_config_adds_tokens_to_a_model_file() {
    let file = data("small/spm-bpe.model");
    let config = r#"{"add_bos_token": false, "eos_token": "<end>",
        "added_tokens_decoder": {"2": {"content": "</s>", "special": true},
        "600": {"content": "<end>", "special": true}, "601": {"content": "<fn>"}}}"#;
    let tokenizer =
        Tokenizer::from_sentencepiece(&file, Some(config.as_bytes())).expect("sound files");
    assert_eq!((tokenizer.eos(), tokenizer.add_bos()), (Some(600), false));
    assert_eq!(tokenizer.encode_trusted("<end>"), [600]);
    assert_eq!(tokenizer.encode("<fn>")[1..], [601]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("a <fn> b")), "a <fn> b");
    let config = r#"{"added_tokens_decoder": {"7": {"content": "<x>"}}}"#;
    let error = Tokenizer::from_sentencepiece(&file, Some(config.as_bytes())).expect_err("a clash");
    assert!(
        error.to_string().contains("`<x>` is not the token 7"),
        "{error}"
    );
}

fn check_plain(tokenizer: &Tokenizer, sets: &Sets, name: &str) {
    let mut wrong = Vec::new();
    for (text, ids, decoded) in sets.rows(name) {
        let found = tokenizer.encode(text);
        if found != ids {
            wrong.push(format!("{text:?}: {found:?}, Python gives {ids:?}"));
        }
        let found = tokenizer.decode(&ids);
        if found != decoded {
            wrong.push(format!(
                "{text:?} decodes to {found:?}, Python gives {decoded:?}"
            ));
        }
    }
    let count = wrong.len();
    wrong.truncate(20);
    assert!(
        wrong.is_empty(),
        "{name}: {count} differ:\n{}",
        wrong.join("\n")
    );
}
