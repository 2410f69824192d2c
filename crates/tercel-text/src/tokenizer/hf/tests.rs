//! Single normalizers and pre-tokenizers against what the Python package makes of the texts.

use serde_json::value::RawValue;

use super::components::{normalizer, pre_tokenizer};
use crate::tokenizer::byte_level::byte_to_char;

#[derive(serde::Deserialize)]
struct Parts {
    texts: Vec<String>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    normalizer: Option<Box<RawValue>>,
    pre_tokenizer: Option<Box<RawValue>>,
    /// Four digits for each text.
    hashes: String,
}

#[test]
fn parts_work_as_in_python() {
    let file = include_str!("../../../../../test-data/tokenizers/parts.json");
    let file: Parts = serde_json::from_str(file).expect("a committed file");
    assert!(file.cases.len() >= 60 && file.texts.len() >= 480);
    let mut wrong = Vec::new();
    for case in &file.cases {
        let part = case.normalizer.as_ref().or(case.pre_tokenizer.as_ref());
        let part = part.expect("one of the two").get();
        assert_eq!(case.hashes.len(), file.texts.len() * 4);
        for (at, text) in file.texts.iter().enumerate() {
            let made = made(case, text);
            if hash(&made) != case.hashes[at * 4..at * 4 + 4] {
                wrong.push(format!("{part} makes {made:?} of {text:?}"));
            }
        }
    }
    let count = wrong.len();
    wrong.truncate(30);
    assert!(wrong.is_empty(), "{count} differ:\n{}", wrong.join("\n"));
}

fn made(case: &Case, text: &str) -> Vec<String> {
    if let Some(part) = &case.normalizer {
        let normalizer = normalizer(Some(part)).expect("a known part");
        return vec![normalizer.apply(text).into_owned()];
    }
    let pre = pre_tokenizer(case.pre_tokenizer.as_deref()).expect("a known part");
    let mut words = Vec::new();
    pre.splitter.split(text, true, &mut |word| {
        words.push(match pre.byte_level {
            true => word.bytes().map(byte_to_char).collect(),
            false => word.to_owned(),
        });
    });
    words
}

/// FNV-1a of each part and a byte 255 after it, folded to 16 bits (`make_small.py`).
fn hash(parts: &[String]) -> String {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([255]));
    let state = bytes.fold(0x811c_9dc5u32, |state, byte| {
        (state ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{:04x}", state >> 16 ^ state & 0xffff)
}
