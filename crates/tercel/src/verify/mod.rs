//! Whether a model's files belong together and say what they must, check by check.
//!
//! Each check is a row of its own, so that one fault does not hide the others: a model that cannot
//! be loaded is looked at as far as its files allow. What the numbers are worth is not seen here;
//! that takes a reference.

mod generation;
mod report;
mod template;
mod tokens;
mod weights;

use std::path::Path;

use tercel_formats::Checkpoint;

pub use report::{Check, Outcome, PromptCheck, SpecialTokenIds, Verification};

use crate::error::Error;
use crate::files::ModelFiles;
use crate::source::{LocalModel, SourceError};

/// What [`verify`] looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Load the model and see whether its replies end.
    pub deep: bool,
}

/// Checks the files of a model that was looked for. Files that are missing or damaged are failed
/// checks.
///
/// # Errors
/// Where there is no model to look at: an unknown name, a path that does not exist.
pub fn verify(
    found: Result<LocalModel, SourceError>,
    options: VerifyOptions,
) -> Result<Verification, Error> {
    let mut report = Verification::default();
    let files = match found {
        Ok(model) => {
            report.path.clone_from(&model.path);
            opened(&model, &mut report)
        }
        Err(error) => missing(error, &mut report)?,
    };
    if let Some(files) = files {
        look_at(&files, options, &mut report);
    }
    Ok(report)
}

const FILES: &str = "files";

fn opened(model: &LocalModel, report: &mut Verification) -> Option<ModelFiles> {
    match ModelFiles::unchecked(model) {
        Ok(files) => {
            let detail = format!(
                "{} of a {}",
                count(model.files.len(), "file"),
                model.kind.name()
            );
            report.ok(FILES, detail);
            Some(files)
        }
        Err(error) => {
            report.fail(FILES, error.to_string());
            ModelFiles::without_weights(&model.path)
        }
    }
}

/// A model with missing files: what is left of it.
fn missing(error: SourceError, report: &mut Verification) -> Result<Option<ModelFiles>, Error> {
    let directory = match &error {
        SourceError::MissingFile { path, needed_by } => {
            report.path = needed_by.parent().unwrap_or(needed_by).to_owned();
            path.parent()
        }
        SourceError::EmptyDirectory { path, .. } => {
            report.path.clone_from(path);
            Some(path.as_path())
        }
        SourceError::InvalidIndex { place, .. } => {
            report.path = place.into();
            Path::new(place).parent()
        }
        _ => return Err(error.into()),
    };
    let hint = error
        .hint()
        .map_or_else(String::new, |hint| format!("; {hint}"));
    report.fail(FILES, format!("{error}{hint}"));
    Ok(directory.and_then(ModelFiles::without_weights))
}

fn look_at(files: &ModelFiles, options: VerifyOptions, report: &mut Verification) {
    let whole = weights::read(files, report);
    // Without its weights, a directory still has a configuration and a tokenizer.
    let bare;
    let checkpoint: &Checkpoint<'_> = match &whole {
        Some(checkpoint) => checkpoint,
        None => match files.configuration() {
            Some(checkpoint) => {
                bare = checkpoint;
                &bare
            }
            None => return,
        },
    };
    weights::check(files, checkpoint, whole.is_some(), report);
    let tokenizer = match files.tokenizer_of(checkpoint) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            let hint = error
                .hint()
                .map_or_else(String::new, |hint| format!("; {hint}"));
            report.fail("tokenizer", format!("{error}{hint}"));
            return;
        }
    };
    tokens::check(files, checkpoint, &tokenizer, report);
    template::check(files, checkpoint, &tokenizer, report);
    if options.deep && report.outcome() != Outcome::Fail {
        generation::check(files.path(), report);
    }
}

/// `1 tensor`, `2 tensors`.
fn count(n: usize, thing: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {thing}{s}")
}
