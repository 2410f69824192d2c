//! Token ids of two small vocabularies, equal to those of the Python package that trained them.

use tercel_formats::gguf::{Gguf, OwnedValue, Writer};
use tercel_text::{TextError, Tokenizer, TokenizerParts};

use crate::common::{Expected, check, tiny_parts};

#[test]
fn byte_level_ids_equal_those_of_python() {
    let file = Expected::load("tiny-byte-level.json");
    let tokenizer = Tokenizer::from_parts(&tiny_parts(&file)).expect("a sound vocabulary");
    check(&tokenizer, &file.texts);
    assert_eq!(tokenizer.model(), "gpt2");
}

#[test]
fn sentencepiece_ids_equal_those_of_python() {
    let file = Expected::load("tiny-sentencepiece.json");
    let tokenizer = Tokenizer::from_parts(&tiny_parts(&file)).expect("a sound vocabulary");
    check(&tokenizer, &file.texts);
    assert_eq!(tokenizer.model(), "llama");
}

#[test]
fn a_long_word_is_not_quadratic() {
    for name in ["tiny-byte-level.json", "tiny-sentencepiece.json"] {
        let file = Expected::load(name);
        let tokenizer = Tokenizer::from_parts(&tiny_parts(&file)).expect("a sound vocabulary");
        let start = std::time::Instant::now();
        let word = "theriver".repeat(1 << 17);
        let ids = tokenizer.encode(&word);
        assert_eq!(tokenizer.decode(&ids), word);
        // A quadratic merge of a million symbols takes hours.
        assert!(
            start.elapsed().as_secs() < 20,
            "{name}: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn control_tokens_in_text_stay_text() {
    let file = Expected::load("tiny-byte-level.json");
    let tokenizer = Tokenizer::from_parts(&tiny_parts(&file)).expect("a sound vocabulary");
    let end = tokenizer.id("<|end|>").expect("a token of the file");
    assert_eq!(tokenizer.encode_trusted("<|end|>"), [end]);
    let plain = tokenizer.encode("<|end|>");
    assert!(!plain.contains(&end));
    assert_eq!(tokenizer.decode(&plain), "<|end|>");
    assert_eq!(tokenizer.piece(end), b"");
    assert!(tokenizer.is_end(end));
    assert_eq!(tokenizer.end_ids(), [end]);
    assert_eq!(tokenizer.decode(&[u32::MAX]), "");
    // A user-defined token is text, and matched whole whoever wrote it.
    let tool = tokenizer.id("<tool>").expect("a token of the file");
    assert_eq!(tokenizer.encode("<tool>"), [tool]);
    assert_eq!(tokenizer.piece(tool), b"<tool>");
}

#[test]
fn a_space_in_front_comes_and_goes() {
    let file = Expected::load("tiny-sentencepiece.json");
    let mut parts = tiny_parts(&file);
    parts.add_space_prefix = None;
    let tokenizer = Tokenizer::from_parts(&parts).expect("a sound vocabulary");
    let with_space = Tokenizer::from_parts(&tiny_parts(&file)).expect("a sound vocabulary");
    for text in ["the river", " the river", "", "x<eos>y"] {
        let ids = tokenizer.encode(text);
        assert_eq!(tokenizer.decode(&ids), text);
        if !text.is_empty() {
            assert_eq!(ids, with_space.encode(&format!(" {text}")), "{text}");
        }
    }
}

/// A GGUF file with the given metadata and nothing else.
fn file_with(metadata: &[(&str, OwnedValue)]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (key, value) in metadata {
        writer.set(key, value.clone()).expect("a sound key");
    }
    let mut file = Vec::new();
    writer.write_to(&mut file).expect("memory");
    file
}

fn from_file(metadata: &[(&str, OwnedValue)]) -> Result<Tokenizer, TextError> {
    let file = file_with(metadata);
    let gguf = Gguf::parse(&file).expect("what the writer wrote");
    Tokenizer::from_gguf(gguf.metadata())
}

#[test]
fn metadata_of_a_file_becomes_a_tokenizer() {
    let pieces = Expected::load("tiny-sentencepiece.json");
    let parts = tiny_parts(&pieces);
    let metadata: Vec<(&str, OwnedValue)> = vec![
        ("tokenizer.ggml.model", "llama".into()),
        ("tokenizer.ggml.tokens", parts.tokens.as_slice().into()),
        (
            "tokenizer.ggml.scores",
            parts.scores.clone().expect("scores").into(),
        ),
        (
            "tokenizer.ggml.token_type",
            parts.kinds.clone().expect("kinds").into(),
        ),
        (
            "tokenizer.ggml.bos_token_id",
            parts.bos.expect("an id").into(),
        ),
        (
            "tokenizer.ggml.eos_token_id",
            parts.eos.expect("an id").into(),
        ),
        (
            "tokenizer.ggml.unknown_token_id",
            parts.unk.expect("an id").into(),
        ),
        ("tokenizer.ggml.padding_token_id", 0u32.into()),
        ("tokenizer.ggml.add_space_prefix", false.into()),
        ("tokenizer.ggml.add_eos_token", true.into()),
    ];
    let tokenizer = from_file(&metadata).expect("a sound file");
    check(&tokenizer, &pieces.texts);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (parts.bos, parts.eos));
    assert_eq!((tokenizer.unk(), tokenizer.pad()), (parts.unk, Some(0)));
    assert!(tokenizer.add_bos() && tokenizer.add_eos());

    for (key, _) in &metadata[..3] {
        let without: Vec<_> = metadata
            .iter()
            .filter(|(other, _)| other != key)
            .cloned()
            .collect();
        let error = from_file(&without).expect_err(key).to_string();
        assert_eq!(error, format!("tokenizer metadata: `{key}` is missing"));
    }
    for (key, _) in &metadata {
        let mut wrong = metadata.clone();
        wrong.retain(|(other, _)| other != key);
        wrong.push((key, OwnedValue::F64(0.5)));
        let error = from_file(&wrong).expect_err(key);
        assert!(
            matches!(&error, TextError::Metadata { problem } if problem.contains(key)),
            "{error}"
        );
    }
}

#[test]
fn byte_level_metadata_of_a_file_becomes_a_tokenizer() {
    let file = Expected::load("tiny-byte-level.json");
    let parts = tiny_parts(&file);
    let metadata: Vec<(&str, OwnedValue)> = vec![
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", "gpt-2".into()),
        ("tokenizer.ggml.tokens", parts.tokens.as_slice().into()),
        (
            "tokenizer.ggml.token_type",
            parts.kinds.clone().expect("kinds").into(),
        ),
        (
            "tokenizer.ggml.merges",
            parts.merges.as_deref().expect("merges").into(),
        ),
    ];
    let tokenizer = from_file(&metadata).expect("a sound file");
    check(&tokenizer, &file.texts);
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()),
        (None, None, false)
    );
    assert_eq!(tokenizer.pre_tokenizer(), "gpt-2");
}

/// A change that makes sound parts unsound, and words of the error it must give.
type Damage = (&'static str, fn(&mut TokenizerParts<'static>));

#[test]
fn every_named_pre_tokenizer_keeps_the_text() {
    let file = Expected::load("tiny-byte-level.json");
    let composed = "e\u{301}t\u{e9} 123 \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} IT'S x";
    for (pre, expected) in [
        ("gpt-2", composed),
        ("smollm", composed),
        ("llama-bpe", composed),
        ("tekken", composed),
        // Qwen's tokenizers compose characters, which the file does not say.
        ("qwen2", &composed.replace("e\u{301}", "\u{e9}")),
        ("qwen35", &composed.replace("e\u{301}", "\u{e9}")),
    ] {
        let mut parts = tiny_parts(&file);
        parts.pre = Some(pre);
        let tokenizer = Tokenizer::from_parts(&parts).expect("a known name");
        let ids = tokenizer.encode(composed);
        assert_eq!(tokenizer.decode(&ids), expected, "{pre}");
        assert_eq!(tokenizer.pre_tokenizer(), pre);
    }
}

#[test]
fn unsound_metadata_is_refused() {
    let byte_level: &'static Expected = Box::leak(Box::new(Expected::load("tiny-byte-level.json")));
    let cases: &[Damage] = &[
        (
            "tokenizer model `bert` is not supported (supported: gpt2, llama)",
            |p| p.model = "bert",
        ),
        ("pre-tokenizer `starcoder`", |p| p.pre = Some("starcoder")),
        ("0 tokens", |p| {
            (p.tokens, p.kinds, p.eos) = (vec![], Some(vec![]), None);
        }),
        ("`tokenizer.ggml.token_type` has 1 entries", |p| {
            p.kinds = Some(vec![1]);
        }),
        ("kind 7 is none of 1 to 6", |p| {
            p.kinds.as_mut().expect("kinds")[3] = 7;
        }),
        ("`tokenizer.ggml.bos_token_id` is 4294967295", |p| {
            p.bos = Some(u32::MAX);
        }),
        ("`tokenizer.ggml.padding_token_id` is 421", |p| {
            p.pad = Some(421);
        }),
        ("`tokenizer.ggml.merges` is missing", |p| p.merges = None),
        ("entry 0: `ab` is not two tokens", |p| {
            p.merges = Some(vec!["ab"]);
        }),
        ("entry 0: `a b c` is not two tokens", |p| {
            p.merges = Some(vec!["a b c"]);
        }),
        ("entry 0: ` b` is not two tokens", |p| {
            p.merges = Some(vec![" b"]);
        }),
        ("entry 1: `qqq` is not in the vocabulary", |p| {
            p.merges.as_mut().expect("merges")[1] = "qqq a";
        }),
        ("no token stands for a single byte", |p| {
            p.tokens.iter_mut().for_each(|token| *token = "xyz");
            p.merges = Some(vec![]);
        }),
    ];
    refuse_all(byte_level, cases);
    let pieces: &'static Expected = Box::leak(Box::new(Expected::load("tiny-sentencepiece.json")));
    let cases: &[Damage] = &[
        ("`tokenizer.ggml.scores` is missing", |p| p.scores = None),
        ("`tokenizer.ggml.scores` has 2 entries", |p| {
            p.scores = Some(vec![0.0; 2]);
        }),
        ("entry 5: the score is not a number", |p| {
            p.scores.as_mut().expect("scores")[5] = f32::NAN;
        }),
        ("a byte token is not written <0x00> to <0xFF>", |p| {
            p.tokens[20] = "<0x-1>";
        }),
        ("byte tokens are missing", |p| {
            p.kinds.as_mut().expect("kinds")[20] = 1;
            p.unk = None;
        }),
        ("special token of 1025 bytes", |p| {
            p.tokens[3] = Box::leak("x".repeat(1025).into_boxed_str());
        }),
    ];
    refuse_all(pieces, cases);
}

fn refuse_all(file: &'static Expected, cases: &[Damage]) {
    for (message, damage) in cases {
        let mut parts = tiny_parts(file);
        damage(&mut parts);
        let error = Tokenizer::from_parts(&parts)
            .expect_err(message)
            .to_string();
        assert!(
            error.contains(message),
            "{error:?} does not say {message:?}"
        );
    }
}
