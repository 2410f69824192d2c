//! How a runner generates.

use serde::{Deserialize, Serialize};
use tercel_text::grammar::Grammar;

use crate::error::Error;

/// How a [`TextRunner`](super::TextRunner) generates. The names in JSON are those of the C++ class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Whether the prompt is the first text that the callback gets.
    pub echo: bool,
    /// Whether to go on after an end token.
    pub ignore_eos: bool,
    /// The most tokens to generate; negative is no limit but the context.
    pub max_new_tokens: i64,
    /// A run that is not to be seen: no callback is called.
    pub warming: bool,
    /// The most tokens of context and reply together; negative is the model's own limit.
    pub seq_len: i64,
    /// 0 to 1; 0 takes the most likely token.
    pub temperature: f32,
    /// How many begin tokens stand before the prompt.
    pub num_bos: u8,
    /// How many end tokens stand after the prompt.
    pub num_eos: u8,
    /// The seed of the draws; without one, a random one.
    pub seed: Option<u64>,
    /// What the reply must be; empty is anything.
    pub grammar: String,
    /// What [`grammar`](Self::grammar) is written in.
    pub grammar_type: GrammarType,
}

/// What a grammar is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GrammarType {
    /// A JSON schema, as JSON.
    #[default]
    JsonSchema,
    /// A regular expression.
    Regex,
    /// A grammar in the form of Lark.
    Lark,
    /// A grammar in the form of GBNF.
    Gbnf,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            echo: true,
            ignore_eos: false,
            max_new_tokens: -1,
            warming: false,
            seq_len: -1,
            temperature: 0.8,
            num_bos: 0,
            num_eos: 0,
            seed: None,
            grammar: String::new(),
            grammar_type: GrammarType::default(),
        }
    }
}

impl GenerationConfig {
    /// How many tokens may be generated in a context of `max_context` tokens of which `occupied`
    /// are taken, the prompt included.
    pub fn resolve_max_new_tokens(&self, max_context: usize, occupied: usize) -> usize {
        let limit = |tokens: i64| usize::try_from(tokens).unwrap_or(usize::MAX);
        let room = limit(self.seq_len)
            .min(max_context)
            .saturating_sub(occupied);
        room.min(limit(self.max_new_tokens))
    }

    /// What the reply must be, if anything.
    pub(super) fn grammar(&self) -> Result<Option<Grammar>, Error> {
        let text = &self.grammar;
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.grammar_type {
            GrammarType::JsonSchema => {
                let schema = serde_json::from_str(text).map_err(|error| {
                    let range = format!("JSON where `grammar_type` is `json_schema`: {error}");
                    Error::invalid_parameter("grammar", shortened(text), range)
                })?;
                Grammar::JsonSchema(schema)
            }
            GrammarType::Regex => Grammar::Regex(text.clone()),
            GrammarType::Lark => Grammar::Lark(text.clone()),
            GrammarType::Gbnf => Grammar::Gbnf(text.clone()),
        }))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grammar_is_read_as_its_type_says() {
        let config = |text: &str, name: &str| -> GenerationConfig {
            let json = serde_json::json!({"grammar": text, "grammar_type": name});
            serde_json::from_value(json).expect("a configuration")
        };
        assert_eq!(GenerationConfig::default().grammar().expect("none"), None);
        for (text, name, expected) in [
            ("", "regex", None),
            (
                "{}",
                "json_schema",
                Some(Grammar::JsonSchema(serde_json::json!({}))),
            ),
            ("a+", "regex", Some(Grammar::Regex("a+".into()))),
            ("start: A", "lark", Some(Grammar::Lark("start: A".into()))),
            (
                "root ::= a",
                "gbnf",
                Some(Grammar::Gbnf("root ::= a".into())),
            ),
        ] {
            assert_eq!(
                config(text, name).grammar().expect("read"),
                expected,
                "{name}"
            );
        }
        let error = config("{", "json_schema").grammar().expect_err("no JSON");
        assert!(error.to_string().starts_with("`grammar` is {"), "{error}");
    }
}
