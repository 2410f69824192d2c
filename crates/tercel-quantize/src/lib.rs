//! From one form of a model to another.
//!
//! [`convert`] writes any model that this build runs as a Hugging Face directory of safetensors in
//! floats.
#![forbid(unsafe_code)]

mod convert;
mod error;

pub use convert::{Converted, Options, Precision, Progress, Source, convert};
pub use error::ConvertError;
