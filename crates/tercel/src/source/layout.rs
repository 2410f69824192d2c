//! The names of the files that make up a model of several files, wherever they lie.

use tercel_formats::CheckpointError;
use tercel_formats::checkpoint;
pub(super) use tercel_formats::checkpoint::is_shard_name;

/// Says what the tensors mean; without it a directory is no model.
pub(super) const CONFIG: &str = "config.json";
/// The weights of a checkpoint in one file.
pub(super) const WEIGHTS: &str = "model.safetensors";
/// Says which shard holds which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// More than the index of any model; the largest known ones take a tenth of it.
pub(super) const LARGEST_INDEX_BYTES: u64 = 64 << 20;

const TOKENIZER: &str = "tokenizer.json";
const SENTENCEPIECE: &str = "tokenizer.model";
/// What a checkpoint may have beside its config, its tokenizer and its weights.
const OPTIONAL: [&str; 5] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// The files of a checkpoint besides its weights, of those that `has` knows.
pub(super) fn small_files(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let tokenizer = [TOKENIZER, SENTENCEPIECE]
        .into_iter()
        .find(|name| has(name));
    [CONFIG]
        .into_iter()
        .chain(tokenizer)
        .chain(OPTIONAL)
        .filter(|name| has(name))
        .collect()
}

/// Whether `has` knows a tokenizer.
pub(super) fn has_tokenizer(has: impl Fn(&str) -> bool) -> bool {
    has(TOKENIZER) || has(SENTENCEPIECE)
}

/// The shards that an index names, sorted. The names are checked: they become paths.
///
/// The reason for a refusal continues a sentence that begins with the index.
pub(super) fn shards(index: &[u8]) -> Result<Vec<String>, String> {
    checkpoint::shards(index).map_err(|error| match error {
        CheckpointError::Json { problem, .. } => problem,
        other => other.to_string(),
    })
}

/// Whether a file is GGUF by its name.
pub(super) fn is_gguf(file: &str) -> bool {
    file.to_lowercase().ends_with(".gguf")
}

/// The name of one part of a split model: `name-00002-of-00003.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SplitName {
    /// What comes before the numbers, folders included.
    pub(super) stem: String,
    /// From 1 to `count`.
    pub(super) index: u32,
    /// How many parts there are.
    pub(super) count: u32,
    ending: String,
}

impl SplitName {
    /// Reads a file name, with or without folders; nothing for a file that is whole.
    pub(super) fn parse(file: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten()
        };
        let at = file.len().checked_sub(".gguf".len())?;
        let (name, ending) = file.split_at_checked(at).filter(|_| is_gguf(file))?;
        let (before, count) = name.rsplit_once("-of-")?;
        let (stem, index) = before.rsplit_once('-')?;
        let (index, count) = (number(index)?, number(count)?);
        (1..=count).contains(&index).then(|| Self {
            stem: stem.to_owned(),
            index,
            count,
            ending: ending.to_owned(),
        })
    }

    /// The name of a part, from 1.
    pub(super) fn part(&self, index: u32) -> String {
        let Self {
            stem,
            count,
            ending,
            ..
        } = self;
        format!("{stem}-{index:05}-of-{count:05}{ending}")
    }

    /// The names of all parts, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.count).map(|index| self.part(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_files_are_told_by_their_numbers() {
        let split = SplitName::parse("d/m-00002-of-00003.GGUF").expect("a part");
        assert_eq!(
            (split.stem.as_str(), split.index, split.count),
            ("d/m", 2, 3)
        );
        assert_eq!(split.part(1), "d/m-00001-of-00003.GGUF");
        assert_eq!(split.parts().count(), 3);
        for whole in [
            "m.gguf",
            "best-of-00003.gguf",
            "m-1-of-3.gguf",
            "master-of-none.gguf",
            "m-00000-of-00003.gguf",
            "m-00004-of-00003.gguf",
            "m-00001-of-00000.gguf",
            "m-00001-of-00003.safetensors",
            "\u{20ac}uf",
            "",
        ] {
            assert_eq!(SplitName::parse(whole), None, "{whole}");
        }
    }

    #[test]
    fn a_checkpoint_is_its_config_its_tokenizer_and_what_belongs_to_them() {
        let of = |there: &[&str]| small_files(|name| there.contains(&name));
        assert_eq!(
            of(&[
                "tokenizer.model",
                "tokenizer.json",
                "config.json",
                "pytorch_model.bin"
            ]),
            ["config.json", "tokenizer.json"]
        );
        assert_eq!(
            of(&["tokenizer.model", "config.json", "chat_template.jinja"]),
            ["config.json", "tokenizer.model", "chat_template.jinja"]
        );
    }

    #[test]
    fn an_index_names_plain_files_or_is_refused() {
        let read = |text: &str| shards(text.as_bytes());
        assert_eq!(
            read(
                r#"{"metadata":{},"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors","c":"m-2.safetensors"}}"#
            ),
            Ok(vec![
                "m-1.safetensors".to_owned(),
                "m-2.safetensors".to_owned()
            ])
        );
        for (text, reason) in [
            ("{}", "is no index"),
            ("[1", "is no index"),
            (r#"{"weight_map":{}}"#, "names no file"),
            (r#"{"weight_map":{"a":7}}"#, "is no index"),
            (
                r#"{"weight_map":{"a":"../m.safetensors"}}"#,
                "names `../m.safetensors`",
            ),
            (
                r#"{"weight_map":{"a":"/m.safetensors"}}"#,
                "no safetensors file",
            ),
            (
                r#"{"weight_map":{"a":"d/m.safetensors"}}"#,
                "no safetensors file",
            ),
            (
                r#"{"weight_map":{"a":"d\\m.safetensors"}}"#,
                "no safetensors file",
            ),
            (
                r#"{"weight_map":{"a":".m.safetensors"}}"#,
                "no safetensors file",
            ),
            (
                r#"{"weight_map":{"a":"m\n.safetensors"}}"#,
                "names `m\\n.safetensors`",
            ),
            (
                r#"{"weight_map":{"a":"config.json"}}"#,
                "no safetensors file",
            ),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
