//! What can keep a model from being converted.

use std::io;
use std::path::{Path, PathBuf};

use tercel_formats::GgufError;
use tercel_nn::{NnError, PackError};
use tercel_text::TextError;

use crate::Precision;

/// Why a model was not converted. Nothing is left of what was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The output is there already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// A file or a directory cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// What could not be written.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The disk has not enough space.
    #[error(
        "the result takes {} MB, {} has {} MB free",
        needed_bytes.div_ceil(1 << 20), path.display(), available_bytes >> 20
    )]
    DiskFull {
        /// The directory that would hold it.
        path: PathBuf,
        /// Bytes of the result.
        needed_bytes: u64,
        /// Bytes that are free.
        available_bytes: u64,
    },
    /// The model does not load.
    #[error(transparent)]
    Model(#[from] NnError),
    /// The tokenizer cannot be carried over.
    #[error(transparent)]
    Tokenizer(#[from] TextError),
    /// A metadata field has another type than it must.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// The model has something that the result cannot express.
    #[error("{what} cannot be converted: {problem}")]
    Unsupported {
        /// What it is.
        what: String,
        /// Why not.
        problem: String,
    },
    /// The numbers of a tensor cannot be read.
    #[error("tensor `{name}`: {error}")]
    Tensor {
        /// Its name in the source.
        name: String,
        /// What is wrong.
        error: PackError,
    },
    /// A number is too large for the precision.
    #[error("tensor `{name}` holds {value}, which {precision} cannot hold")]
    OutOfRange {
        /// The tensor's name in the result.
        name: String,
        /// The number.
        value: f32,
        /// The precision asked for.
        precision: Precision,
    },
    /// The caller asked to stop.
    #[error("the conversion was cancelled")]
    Cancelled,
}

impl ConvertError {
    /// A stable code in snake case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "output_exists",
            Self::Write { .. } => "output_failed",
            Self::DiskFull { .. } => "disk_full",
            Self::Model(_) | Self::Metadata(_) | Self::Tensor { .. } => "model_load_failed",
            Self::Tokenizer(_) => "tokenizer_failed",
            Self::Unsupported { .. } => "unsupported",
            Self::OutOfRange { .. } => "out_of_range",
            Self::Cancelled => "cancelled",
        }
    }

    /// The way out, in one line, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some("remove it, or choose another output".to_owned()),
            Self::DiskFull { .. } => Some("free some space, or choose another disk".to_owned()),
            Self::OutOfRange { .. } => Some("convert to bf16 or f32".to_owned()),
            _ => None,
        }
    }

    pub(crate) fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::Write {
            path: path.clone(),
            reason,
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            problem: problem.into(),
        }
    }
}
