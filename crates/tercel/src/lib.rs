//! Run language models on the device: load a model, ask it, stream the answer.
#![forbid(unsafe_code)]

pub mod source;
