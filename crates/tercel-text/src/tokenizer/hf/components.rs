//! Reading the parts of a `tokenizer.json` that work on texts: each is known, or refused by name.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{FILE, base64};
use crate::error::TextError;
use crate::tokenizer::charsmap::Charsmap;
use crate::tokenizer::normalize::{Bert, Normalize, Normalizer};
use crate::tokenizer::pattern::{Behavior, Pattern};
use crate::tokenizer::pretokenize::PreTokenizer;
use crate::tokenizer::split::{Metaspace, Prepend, Split, Splitter};
use crate::tokenizer::unicode_sets::is_punctuation;

/// Longest text of one part, in bytes. The largest published ones hold a table of 300 kB.
const MAX_PART_BYTES: usize = 8 << 20;

/// Most steps of one part, those of nested sequences together.
const MAX_STEPS: usize = 64;

/// How much longer the replacements of all steps together may make a text.
const MAX_GROWTH: usize = 1024;

/// A part as the file writes it: a map whose `type` is its name.
pub(super) struct Part {
    kind: &'static str,
    name: String,
    fields: Value,
}

impl Part {
    /// The part and those within it, in the order in which they work. `null` is no part.
    pub(super) fn list(
        kind: &'static str,
        list_field: &str,
        raw: Option<&RawValue>,
    ) -> Result<Vec<Self>, TextError> {
        let Some(raw) = raw else {
            return Ok(Vec::new());
        };
        if raw.get().len() > MAX_PART_BYTES {
            let problem = format!("{kind}: {} bytes, at most 8 MiB", raw.get().len());
            return Err(TextError::File {
                file: FILE,
                problem,
            });
        }
        let value = serde_json::from_str(raw.get()).map_err(|error| problem(kind, error))?;
        let mut parts = Vec::new();
        flatten(kind, list_field, value, &mut parts)?;
        Ok(parts)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The fields in their shape; any that the shape does not know is refused.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, TextError> {
        serde_json::from_value(self.fields.clone()).map_err(|error| self.problem(error))
    }

    pub(super) fn problem(&self, error: impl std::fmt::Display) -> TextError {
        problem(&format!("{} `{}`", self.kind, self.name), error)
    }

    pub(super) fn unsupported(&self) -> TextError {
        TextError::UnsupportedPart {
            part: self.kind,
            name: self.name.clone(),
        }
    }

    /// The part with something about it that is not known.
    pub(super) fn unsupported_with(&self, what: &str) -> TextError {
        TextError::UnsupportedPart {
            part: self.kind,
            name: format!("{} with {what}", self.name),
        }
    }
}

fn problem(what: &str, error: impl std::fmt::Display) -> TextError {
    TextError::File {
        file: FILE,
        problem: format!("{what}: {error}"),
    }
}

fn flatten(
    kind: &'static str,
    list_field: &str,
    value: Value,
    out: &mut Vec<Part>,
) -> Result<(), TextError> {
    let Value::Object(mut fields) = value else {
        return Err(problem(kind, "is not a map"));
    };
    let Some(Value::String(name)) = fields.shift_remove("type") else {
        return Err(problem(kind, "has no `type`"));
    };
    if name == "Sequence" {
        let Some(Value::Array(parts)) = fields.shift_remove(list_field) else {
            let error = format!("has no `{list_field}`");
            return Err(problem(&format!("{kind} `Sequence`"), error));
        };
        if let Some(unknown) = fields.keys().next() {
            let error = format!("unknown field `{unknown}`");
            return Err(problem(&format!("{kind} `Sequence`"), error));
        }
        for part in parts {
            flatten(kind, list_field, part, out)?;
        }
        return Ok(());
    }
    if out.len() == MAX_STEPS {
        return Err(problem(kind, format!("more than {MAX_STEPS} steps")));
    }
    out.push(Part {
        kind,
        name,
        fields: Value::Object(fields),
    });
    Ok(())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(serde::Deserialize)]
enum PatternFields {
    String(String),
    Regex(String),
}

impl PatternFields {
    fn compile(self, part: &Part) -> Result<Pattern, TextError> {
        match self {
            Self::String(text) => Ok(Pattern::Text(text)),
            Self::Regex(source) => Pattern::expression(&source).map_err(|e| part.problem(e)),
        }
    }
}

pub(super) fn normalizer(raw: Option<&RawValue>) -> Result<Normalizer, TextError> {
    let parts = Part::list("normalizer", "normalizers", raw)?;
    let mut steps = Vec::with_capacity(parts.len());
    let mut growth = 1usize;
    for part in &parts {
        let step = normalize(part)?;
        growth = growth.saturating_mul(step.growth());
        if growth > MAX_GROWTH {
            return Err(part.problem("the steps may make a text more than 1024 times as long"));
        }
        steps.push(step);
    }
    Ok(Normalizer(steps))
}

fn normalize(part: &Part) -> Result<Normalize, TextError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strip {
        strip_left: bool,
        strip_right: bool,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Replace {
        pattern: PatternFields,
        content: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Prepend {
        prepend: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Precompiled {
        precompiled_charsmap: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct BertFields {
        clean_text: bool,
        handle_chinese_chars: bool,
        strip_accents: Option<bool>,
        lowercase: bool,
    }
    let plain = |step| part.read::<Nothing>().map(|_| step);
    match part.name() {
        "NFC" => plain(Normalize::Nfc),
        "NFD" => plain(Normalize::Nfd),
        "NFKC" => plain(Normalize::Nfkc),
        "NFKD" => plain(Normalize::Nfkd),
        "Lowercase" => plain(Normalize::Lowercase),
        "StripAccents" => plain(Normalize::StripAccents),
        "Nmt" => plain(Normalize::Nmt),
        "Strip" => part.read().map(|fields: Strip| Normalize::Strip {
            left: fields.strip_left,
            right: fields.strip_right,
        }),
        "Replace" => {
            let fields: Replace = part.read()?;
            Ok(Normalize::Replace {
                pattern: fields.pattern.compile(part)?,
                content: fields.content,
            })
        }
        "Precompiled" => {
            let fields: Precompiled = part.read()?;
            let map = fields.precompiled_charsmap;
            let map = base64::decode(&map).ok_or_else(|| part.problem("is not base64"))?;
            let map = Charsmap::parse(&map).map_err(|error| part.problem(error))?;
            Ok(Normalize::Clusters(map))
        }
        "Prepend" => part
            .read()
            .map(|fields: Prepend| Normalize::Prepend(fields.prepend)),
        "BertNormalizer" => part.read().map(|fields: BertFields| {
            Normalize::Bert(Bert {
                clean_text: fields.clean_text,
                handle_chinese_chars: fields.handle_chinese_chars,
                strip_accents: fields.strip_accents.unwrap_or(fields.lowercase),
                lowercase: fields.lowercase,
            })
        }),
        _ => Err(part.unsupported()),
    }
}

/// A pre-tokenizer, and what the rest of the file has to know of it.
pub(super) struct PreTokenization {
    pub(super) splitter: Splitter,
    /// Words are to be spelled in the byte-level alphabet.
    pub(super) byte_level: bool,
    /// The names of its steps.
    pub(super) name: String,
}

pub(super) fn pre_tokenizer(raw: Option<&RawValue>) -> Result<PreTokenization, TextError> {
    let parts = Part::list("pre_tokenizer", "pretokenizers", raw)?;
    let mut out = PreTokenization {
        splitter: Splitter::default(),
        byte_level: false,
        name: parts.iter().map(Part::name).collect::<Vec<_>>().join(", "),
    };
    if parts.is_empty() {
        out.name = "none".into();
    }
    for part in &parts {
        if out.byte_level {
            return Err(part.unsupported_with("`ByteLevel` before it"));
        }
        split(part, &mut out)?;
    }
    Ok(out)
}

fn split(part: &Part, out: &mut PreTokenization) -> Result<(), TextError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ByteLevel {
        #[serde(default = "yes")]
        add_prefix_space: bool,
        /// About places of tokens in the text, which nobody asks for here.
        #[serde(default, rename = "trim_offsets")]
        _trim_offsets: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct SplitFields {
        pattern: PatternFields,
        behavior: Behavior,
        #[serde(default)]
        invert: bool,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Digits {
        #[serde(default)]
        individual_digits: bool,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Punctuation {
        #[serde(default = "isolated")]
        behavior: Behavior,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Delimiter {
        delimiter: char,
    }
    let cut = |pattern, behavior| Split::Cut {
        pattern,
        behavior,
        invert: false,
    };
    let steps = &mut out.splitter.0;
    match part.name() {
        "ByteLevel" => {
            let fields: ByteLevel = part.read()?;
            if fields.add_prefix_space {
                steps.push(Split::SpaceInFront);
            }
            if fields.use_regex {
                steps.push(Split::Words(PreTokenizer::Gpt2));
            }
            out.byte_level = true;
        }
        "Split" => {
            let fields: SplitFields = part.read()?;
            let whole = (Behavior::Isolated, false);
            steps.push(match fields.pattern {
                // The hand-written words are the whole text: keeping the matches alone is the
                // same.
                PatternFields::Regex(source)
                    if (fields.behavior, fields.invert) == whole
                        || (PreTokenizer::of_expression(&source).is_some()
                            && (fields.behavior, fields.invert) == (Behavior::Removed, true)) =>
                {
                    Split::expression(&source).map_err(|error| part.problem(error))?
                }
                pattern => Split::Cut {
                    pattern: pattern.compile(part)?,
                    behavior: fields.behavior,
                    invert: fields.invert,
                },
            });
        }
        "Digits" => {
            let behavior = match part.read::<Digits>()?.individual_digits {
                true => Behavior::Isolated,
                false => Behavior::Contiguous,
            };
            steps.push(cut(Pattern::Class(char::is_numeric), behavior));
        }
        "Metaspace" => steps.push(Split::Metaspace(metaspace(part)?.0)),
        "WhitespaceSplit" => {
            part.read::<Nothing>()?;
            steps.push(cut(Pattern::Class(char::is_whitespace), Behavior::Removed));
        }
        "Whitespace" => {
            part.read::<Nothing>()?;
            let pattern = Pattern::whitespace_words().map_err(|e| part.problem(e))?;
            steps.push(Split::Cut {
                pattern,
                behavior: Behavior::Removed,
                invert: true,
            });
        }
        "BertPreTokenizer" => {
            part.read::<Nothing>()?;
            steps.push(cut(Pattern::Class(char::is_whitespace), Behavior::Removed));
            steps.push(cut(Pattern::Class(is_punctuation), Behavior::Isolated));
        }
        "Punctuation" => {
            let behavior = part.read::<Punctuation>()?.behavior;
            steps.push(cut(Pattern::Class(is_punctuation), behavior));
        }
        "CharDelimiterSplit" => {
            let delimiter = part.read::<Delimiter>()?.delimiter;
            steps.push(cut(Pattern::Text(delimiter.into()), Behavior::Removed));
        }
        _ => return Err(part.unsupported()),
    }
    Ok(())
}

/// A `Metaspace`, pre-tokenizer or decoder; whether it puts a space in front anywhere.
pub(super) fn metaspace(part: &Part) -> Result<(Metaspace, bool), TextError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        replacement: char,
        /// As files of before 2024 say it.
        add_prefix_space: Option<bool>,
        prepend_scheme: Option<Prepend>,
        #[serde(default = "yes")]
        split: bool,
        /// An old field that repeats the replacement.
        #[serde(default, rename = "str_rep")]
        _str_rep: Option<String>,
    }
    let fields: Fields = part.read()?;
    let prepend = match (fields.prepend_scheme, fields.add_prefix_space) {
        (None | Some(Prepend::Never), Some(false)) => Prepend::Never,
        (Some(_), Some(false)) => {
            return Err(part.unsupported_with("`add_prefix_space` against `prepend_scheme`"));
        }
        (scheme, _) => scheme.unwrap_or(Prepend::Always),
    };
    let metaspace = Metaspace {
        replacement: fields.replacement,
        prepend,
        split: fields.split,
    };
    Ok((metaspace, prepend != Prepend::Never))
}

fn yes() -> bool {
    true
}

fn isolated() -> Behavior {
    Behavior::Isolated
}
