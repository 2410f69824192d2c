//! How much of JSON Schema constraints keep to, by the cases of its test suite.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tercel_text::grammar::{Grammar, Grammars};

use common::{goes_through, tokenizer};

#[derive(serde::Deserialize)]
struct Group {
    description: String,
    schema: Value,
    tests: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    description: String,
    data: Value,
    valid: bool,
}

/// What becomes of cases.
#[derive(Debug, Default, PartialEq)]
struct Count {
    /// Valid ones go through, others do not.
    right: usize,
    /// The schema is refused.
    refused: usize,
    /// Valid ones that do not go through: what is written is a part of what could be.
    narrower: usize,
    /// Others that do. There must be none.
    wrong: usize,
}

#[test]
fn what_a_schema_forbids_does_not_come() {
    let tokenizer = tokenizer("tiny-byte-level.json");
    let grammars = Grammars::new(tokenizer.clone()).expect("an end");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/json-schema");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("the suite")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect();
    files.sort();
    let mut total = Count::default();
    let mut reasons = BTreeMap::<String, usize>::new();
    for path in files {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read(&path).expect("a file of the suite");
        let groups: Vec<Group> = serde_json::from_slice(&text).expect("its shape");
        for Group {
            description,
            schema,
            tests,
        } in groups
        {
            let grammar = Grammar::JsonSchema(schema);
            if let Err(error) = grammars.compile(&grammar) {
                total.refused += tests.len();
                *reasons.entry(format!("{name}: {error:.120}")).or_default() += tests.len();
                continue;
            }
            for case in tests {
                let text = case.data.to_string();
                let constraint = grammars.compile(&grammar).expect("as before");
                match (case.valid, goes_through(&tokenizer, constraint, &text)) {
                    (true, true) | (false, false) => total.right += 1,
                    (true, false) => {
                        total.narrower += 1;
                        eprintln!(
                            "narrower: {name}, {description}, {}: {text}",
                            case.description
                        );
                    }
                    (false, true) => {
                        total.wrong += 1;
                        eprintln!("WRONG: {name}, {description}, {}: {text}", case.description);
                    }
                }
            }
        }
    }
    for (reason, cases) in reasons {
        eprintln!("refused, {cases} cases: {reason}");
    }
    // What a new version of the compiler changes is to be seen, and told in docs/server.md.
    let expected = Count {
        right: 542,
        refused: 735,
        narrower: 22,
        wrong: 0,
    };
    assert_eq!(total, expected);
}
