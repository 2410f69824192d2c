//! Which argument is the model and which the prompt.

use std::path::Path;

use tercel::source::{Catalog, ModelRef, SourceError};

use super::Args;
use crate::failure::Failure;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) prompt: Option<String>,
}

impl Asked {
    pub(super) fn of(args: &Args, catalog: &Catalog) -> Result<Self, Failure> {
        let (first, second) = (args.first.clone(), args.second.clone());
        let (model, prompt) = match (first, &args.model, &args.prompt) {
            (Some(_), Some(_), Some(_)) => {
                let message = "an argument besides --model and --prompt has no meaning";
                return Err(Failure::Usage(message.to_owned()));
            }
            (None, model, prompt) => (model.clone(), prompt.clone()),
            (first, Some(model), None) => (Some(model.clone()), first),
            (first, None, Some(prompt)) => (first, Some(prompt.clone())),
            (first, None, None) if second.is_some() => (first, second),
            (Some(only), None, None) if means_model(&only, catalog) => (Some(only), None),
            (only, None, None) => (None, only),
        };
        Ok(Self {
            model: model.unwrap_or_else(|| catalog.default_name().to_owned()),
            prompt,
        })
    }
}

/// Adds to an error about the model how to say that a word was meant as the prompt.
pub(super) fn explain(failure: Failure, args: &Args) -> Failure {
    match (&args.first, &failure) {
        (Some(word), Failure::Error { hint, .. })
            if args.second.is_none() && args.model.is_none() && args.prompt.is_none() =>
        {
            let hint = hint
                .as_ref()
                .map(|hint| format!("{hint}; "))
                .unwrap_or_default();
            let hint = format!("{hint}if `{word}` is the prompt, use --prompt");
            failure.with_hint(hint)
        }
        _ => failure,
    }
}

/// Whether a single argument is meant as a model, even one that does not exist.
fn means_model(text: &str, catalog: &Catalog) -> bool {
    if text.trim().is_empty() {
        return false;
    }
    if Path::new(text).exists() {
        return true;
    }
    if text.contains(char::is_whitespace) {
        return false;
    }
    if text.contains([':', '/', '\\']) || text.to_lowercase().ends_with(".gguf") {
        return true;
    }
    match ModelRef::parse(text, catalog) {
        Ok(_) => true,
        Err(SourceError::UnknownModel { suggestions, .. }) => !suggestions.is_empty(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_argument_is_a_model_when_it_looks_like_one() {
        let catalog = Catalog::builtin();
        let directory = std::env::temp_dir().display().to_string();
        for text in [
            "smollm2:135m",
            "smolm2",
            "gemma",
            "hf:org/repo",
            "org/repo",
            "missing.gguf",
            "no:such",
            "./x",
            &directory,
        ] {
            assert!(means_model(text, catalog), "{text}");
        }
        for text in [
            "",
            "Hello",
            "Why is the sky blue?",
            "what is a/b testing",
            "Note: this",
            "\u{4f60}\u{597d}",
            "42",
        ] {
            assert!(!means_model(text, catalog), "{text}");
        }
    }
}
